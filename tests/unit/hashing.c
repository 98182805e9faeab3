/* SPDX-License-Identifier: MIT */
/* Hashes of blocks: bounds, what weft-protocol(7) says of them, holes, and whose turn it is. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/bytes.h"
#include "fabric/base/util.h"
#include "fabric/donor/donor.h"
#include "fabric/hashing.h"
#include "fabric/region/region.h"
#include "tests/support/manual.h"

static const uint8_t key[WEFT_HASH_KEY_BYTES] = {5, 6, 7};

static struct weft_region *memory(uint64_t size)
{
	struct weft_memory_spec spec = {.name = "m", .size_bytes = size};
	struct weft_region *region = NULL;

	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &region, NULL), 0);
	return region;
}

static struct weft_region *file(char *path, uint64_t size)
{
	struct weft_region *region = NULL;
	int fd = mkstemp(path);

	assert_true(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	close(fd);
	assert_int_equal(weft_region_open_file(-1, path, "f", false, false, &region, NULL), 0);
	return region;
}

static void questions_have_bounds(void **state)
{
	struct weft_hashing h = {.block_bytes = 65536};

	assert_true(weft_hashing_valid(&h, WEFT_HASH_MAX_BYTES));
	assert_false(weft_hashing_valid(&h, WEFT_HASH_MAX_BYTES + UINT64_C(1)));
	assert_false(weft_hashing_valid(&h, 0));
	h.block_bytes = 4096;
	assert_true(weft_hashing_valid(&h, WEFT_HASH_MAX_BLOCKS * 4096));
	assert_false(weft_hashing_valid(&h, WEFT_HASH_MAX_BLOCKS * 4096 + 1));
	for (uint32_t i = 0; i < 4096; i++) {
		h.block_bytes = i;
		assert_false(weft_hashing_valid(&h, 1));
	}
}

/* The manual has a hash for those who make their own. */
static void the_manuals_example_is_right(void **state)
{
	struct weft_hasher hasher = {0};
	uint8_t ones[WEFT_HASH_KEY_BYTES], hash[WEFT_HASH_BYTES];
	static const uint8_t zeros[4096];
	char hex[2 * WEFT_HASH_BYTES + 1], *manual = manual_slurp(MANUAL);

	memset(ones, 1, sizeof(ones));
	assert_int_equal(weft_hasher_set(&hasher, ones), 0);
	weft_hasher_hash(&hasher, zeros, sizeof(zeros), hash);
	weft_hex(hash, sizeof(hash), hex);
	if (!strstr(manual, hex))
		fail_msg("weft-protocol(7) does not have the hash %s", hex);
	free(manual);
}

static void another_key_gives_other_hashes(void **state)
{
	struct weft_hasher hasher = {0};
	uint8_t other[WEFT_HASH_KEY_BYTES], a[WEFT_HASH_BYTES], b[WEFT_HASH_BYTES];

	memcpy(other, key, sizeof(other));
	other[31] ^= 1;
	weft_hasher_set(&hasher, key);
	weft_hasher_hash(&hasher, "data", 4, a);
	weft_hasher_set(&hasher, other);
	weft_hasher_hash(&hasher, "data", 4, b);
	assert_memory_not_equal(a, b, sizeof(a));
	weft_hasher_set(&hasher, key);
	weft_hasher_hash(&hasher, "data", 4, b);
	assert_memory_equal(a, b, sizeof(a));
}

static void write_to(struct weft_region *region, uint64_t off, const char *text)
{
	if (region->map)
		memcpy(region->map + off, text, strlen(text));
	else
		assert_int_equal(weft_region_write(region, text, off, strlen(text)), 0);
}

static void read_from(struct weft_region *region, void *buf, uint64_t off, uint64_t len)
{
	if (region->map)
		memcpy(buf, region->map + off, len);
	else
		assert_int_equal(weft_region_read(region, buf, off, len), 0);
}

/* At all offsets and lengths around holes the hashes are those of the bytes. */
static void compare_around_holes(struct weft_region *region)
{
	static const uint64_t offs[] = {0, 1, 4096, 100000, 262144, 300001};
	static const uint64_t lens[] = {1, 4095, 4096, 65537, 200000, 700000};
	static uint8_t scratch[WEFT_HASH_BLOCK_MAX], data[1 << 20];
	static uint8_t is[256 * WEFT_HASH_BYTES], want[256 * WEFT_HASH_BYTES];
	struct weft_hasher hasher = {0};

	assert_int_equal(weft_hasher_set(&hasher, key), 0);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(offs) * WEFT_ARRAY_LEN(lens); i++) {
		const uint64_t off = offs[i % WEFT_ARRAY_LEN(offs)],
			       len = lens[i / WEFT_ARRAY_LEN(offs)];

		read_from(region, data, off, len);
		for (uint32_t block = 4096; block <= 65536; block *= 16) {
			const size_t n = weft_hash_nr_blocks(len, block) * WEFT_HASH_BYTES;

			assert_int_equal(weft_region_hash(region, &hasher, block, off, len,
						 scratch, is),
				0);
			weft_hasher_hash_blocks(&hasher, block, data, len, want);
			assert_memory_equal(is, want, n);
		}
	}
}

static void holes_of_memory_hash_as_zeros_and_stay_holes(void **state)
{
	struct weft_region *region = memory(2 << 20);

	write_to(region, 5000, "somewhere");
	assert_int_equal(weft_region_zero(region, 65536, 1 << 20, true, false), 0);
	write_to(region, 400000, "in a hole");
	const struct weft_extent before = weft_region_extent(region, 524288, 262144);
	static uint8_t hashes[64 * WEFT_HASH_BYTES], scratch[WEFT_HASH_BLOCK_MAX];
	struct weft_hasher hasher = {0};
	assert_int_equal(weft_hasher_set(&hasher, key), 0);
	assert_int_equal(weft_region_hash(region, &hasher, 4096, 524288, 262144, scratch, hashes),
		0);
	const struct weft_extent after = weft_region_extent(region, 524288, 262144);
	assert_true(after.hole == before.hole && after.len == before.len);
	compare_around_holes(region);
	weft_region_put(region);
}

static void holes_of_a_file_hash_as_zeros(void **state)
{
	char path[] = "/tmp/weft-hashing-XXXXXX";
	struct weft_region *region = file(path, (2 << 20) + 17);

	write_to(region, 5000, "somewhere");
	write_to(region, 400000, "in a hole");
	compare_around_holes(region);
	weft_region_put(region);
	unlink(path);
}

/* ---- whose turn it is ---- */

static bool never(void *ctx)
{
	return false;
}

struct asker {
	struct weft_donor *donor;
	struct weft_region *region;
	int result;
	uint8_t hashes[16 * WEFT_HASH_BYTES];
};

static void *ask(void *ctx)
{
	struct asker *a = ctx;
	const struct weft_hashing hashing = {.block_bytes = 65536, .key = {1}};

	for (int i = 0; i < 50 && a->result == 0; i++)
		a->result = weft_donor_hash(a->donor, a->region, &hashing, 0, 1 << 20, never, NULL,
			a->hashes);
	return NULL;
}

static void many_ask_and_all_get_theirs(void **state)
{
	struct weft_donor_config config = {0};
	struct weft_donor *donor;
	struct weft_region *region = memory(1 << 20);
	static struct asker askers[6];
	pthread_t threads[6];

	for (uint64_t i = 0; i < region->size_bytes; i += 8)
		weft_put64(region->map + i, i * 3);
	assert_int_equal(weft_donor_new(&config, &donor), 0);
	for (int i = 0; i < 6; i++) {
		askers[i] = (struct asker){.donor = donor, .region = region};
		assert_int_equal(pthread_create(&threads[i], NULL, ask, &askers[i]), 0);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(askers[i].result, 0);
		assert_memory_equal(askers[i].hashes, askers[0].hashes,
			sizeof(askers[0].hashes));
	}
	weft_region_put(region);
	weft_donor_free(donor);
}

/* The second time that it is asked: in the middle. */
static bool after_a_slice(void *ctx)
{
	unsigned *nr = ctx;

	return (*nr)++ > 0;
}

static void nobody_is_hashed_for_who_is_gone(void **state)
{
	struct weft_donor_config config = {0};
	struct weft_donor *donor;
	struct weft_region *region = memory(8 << 20);
	const struct weft_hashing hashing = {.block_bytes = 65536};
	static uint8_t hashes[128 * WEFT_HASH_BYTES];
	unsigned nr = 0;

	assert_int_equal(weft_donor_new(&config, &donor), 0);
	assert_int_equal(weft_donor_hash(donor, region, &hashing, 0, 8 << 20, after_a_slice, &nr,
				 hashes),
		-ESHUTDOWN);
	assert_int_equal(nr, 2);
	assert_int_equal(weft_donor_hash(donor, region, &hashing, 0, 8 << 20, never, NULL, hashes),
		0);
	weft_region_put(region);
	weft_donor_free(donor);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(questions_have_bounds),
		cmocka_unit_test(the_manuals_example_is_right),
		cmocka_unit_test(another_key_gives_other_hashes),
		cmocka_unit_test(holes_of_memory_hash_as_zeros_and_stay_holes),
		cmocka_unit_test(holes_of_a_file_hash_as_zeros),
		cmocka_unit_test(many_ask_and_all_get_theirs),
		cmocka_unit_test(nobody_is_hashed_for_who_is_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
