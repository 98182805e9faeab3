/* SPDX-License-Identifier: MIT */
/*
 * Containers of the C++ library in a region that lies at a donor: the map is a memory resource, and
 * every node, string and array that the containers allocate is in it.
 *
 *	pmr URI WORDS LOCAL_BYTES      in a map, with so much memory here
 *	pmr - WORDS                    in plain memory, to compare
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory_resource>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>
#include <weft.h>

/* Memory of a donor, given out from front to back. */
class remote_memory : public std::pmr::memory_resource {
public:
	remote_memory(const char *uri, std::uint64_t local_bytes)
	{
		weft_map_options options = {};
		char why[256];

		options.size = sizeof(options);
		options.local_bytes = local_bytes;
		if (weft_open(uri, 0, &handle_, why, sizeof(why)) < 0)
			throw std::runtime_error(why);
		if (weft_map(handle_, 0, weft_size(handle_), &options, &map_, why, sizeof(why)) <
			0) {
			weft_close(handle_);
			throw std::runtime_error(why);
		}
		next_ = reinterpret_cast<std::uintptr_t>(weft_map_addr(map_));
		end_ = next_ + weft_size(handle_);
	}

	/* Nobody wants the bytes afterwards. */
	~remote_memory() override
	{
		weft_unmap(map_, WEFT_UNMAP_DISCARD);
		weft_close(handle_);
	}

	remote_memory(const remote_memory &) = delete;
	remote_memory &operator=(const remote_memory &) = delete;

private:
	void *do_allocate(std::size_t bytes, std::size_t alignment) override
	{
		std::uintptr_t at = (next_ + alignment - 1) / alignment * alignment;

		if (at > end_ || bytes > end_ - at)
			throw std::bad_alloc();
		next_ = at + bytes;
		return reinterpret_cast<void *>(at);
	}

	void do_deallocate(void *, std::size_t, std::size_t) override {}

	bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override
	{
		return this == &other;
	}

	struct weft *handle_ = nullptr;
	struct weft_map *map_ = nullptr;
	std::uintptr_t next_ = 0, end_ = 0;
};

static void work(std::pmr::memory_resource *memory, unsigned long nr)
{
	std::pmr::unordered_map<std::pmr::string, std::uint64_t> counts(memory);
	std::pmr::vector<std::uint64_t> all(memory);
	std::uint64_t number = 1, sum = 0;

	for (unsigned long i = 0; i < nr; i++) {
		number = number * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		std::uint64_t word = (number >> 33) % (nr / 2 + 1);

		/* Too long for the string itself, so that its bytes are allocated. */
		counts[std::pmr::string("the word with the number " + std::to_string(word),
			memory)]++;
		all.push_back(word);
	}
	for (std::uint64_t word : all)
		sum = sum * 31 +
			counts.at(std::pmr::string(
				"the word with the number " + std::to_string(word), memory));
	std::printf("%016llx %zu\n", static_cast<unsigned long long>(sum), counts.size());
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	const unsigned long nr = std::strtoul(argv[2], nullptr, 0);

	try {
		if (argv[1][0] == '-') {
			work(std::pmr::new_delete_resource(), nr);
		} else {
			remote_memory memory(
				argv[1], argc > 3 ? std::strtoull(argv[3], nullptr, 0) : 0);

			work(&memory, nr);
		}
	} catch (const std::exception &e) {
		std::fprintf(stderr, "%s\n", e.what());
		return 1;
	}
	return 0;
}
