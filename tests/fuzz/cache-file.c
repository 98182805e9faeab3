/* SPDX-License-Identifier: MIT */
/*
 * Cache files.  The first byte's bits say whether the header's sum is set right, and whether the
 * file gets the length that its header asks for, as long as that is small; the header follows, and
 * then the table and the slots' bytes.
 */
#include "nbd-bridge/cache/file.c"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FIX_SUM = 1, FIX_LENGTH = 2, MAX_BYTES = 4 << 20 };

/* A run's bytes are there to be read, and lie in the region. */
static int look(void *ctx, uint64_t off, uint64_t len, enum cache_content content, const void *data)
{
	const struct cache_file *file = ctx;
	const uint8_t *bytes = data;
	volatile uint8_t sink;

	assert(len > 0 && off < file->known.identity.size_bytes &&
		len <= file->known.identity.size_bytes - off);
	assert((content == CACHE_CONTENT_TORN) == !data);
	for (uint64_t i = 0; data && i < len; i++)
		sink = bytes[i];
	(void)sink;
	return 0;
}

static void use(struct cache_file *file)
{
	const struct cache_file_identity *id = cache_file_identity(file);
	uint64_t unknown, block;
	bool wrote;

	if (!id)
		return;
	assert(strlen(id->uri) < sizeof(id->uri));
	cache_file_dirty_bytes(file);
	cache_file_same_boot(file);
	for (unsigned i = 0; i < id->nr_donors; i++) {
		cache_file_epoch(file, i);
		cache_file_generation(file, i);
		cache_file_granted(file, i, &wrote);
	}
	if (cache_file_entry(file, id->nr_slots - 1, file->slot_blocks - 1, &block) == 1)
		assert(block < file->nr_blocks);
	assert(cache_file_each(file, look, file, &unknown) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cache_file *file = calloc(1, sizeof(*file));
	struct header header;
	size_t head = weft_min(size > 0 ? size - 1 : 0, sizeof(header));

	file->fd = memfd_create("cache", MFD_CLOEXEC);
	file->path = strdup("cache");
	file->read_only = true;
	assert(file->fd >= 0);
	if (size > 1) {
		memset(&header, 0, sizeof(header));
		memcpy(&header, data + 1, head);
		if (data[0] & FIX_SUM)
			header.sum = header_sum(&header);
		assert(pwrite(file->fd, &header, head, 0) == (ssize_t)head);
		size_t rest = size - 1 - head;
		if (rest > 0)
			assert(pwrite(file->fd, data + 1 + head, rest, HEADER_BYTES) ==
				(ssize_t)rest);
		const struct cache_file_identity *id = &header.identity;
		if ((data[0] & FIX_LENGTH) && id->chunk_bytes <= BRIDGE_CHUNK_MAX &&
			id->nr_slots <= MAX_BYTES / BRIDGE_CHUNK_MIN &&
			file_bytes(id) <= MAX_BYTES)
			assert(ftruncate(file->fd, (off_t)file_bytes(id)) == 0);
	}
	if (load(file, NULL) == 0)
		use(file);
	cache_file_close(file);
	return 0;
}
