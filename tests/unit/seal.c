/* SPDX-License-Identifier: MIT */
/*
 * Sealed blocks: what they look like, what is told from what, and what a process finds that another
 * left.  The vectors were made with another implementation (Python's cryptography 48, HKDF, AESGCM
 * and ChaCha20Poly1305).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/seal-private.h"

enum { BLOCKS = 100, TAIL = 1000, SIZE = BLOCKS * SEAL_BLOCK + TAIL };

static const enum seal_kind kinds[] = {SEAL_VERIFY, SEAL_ENCRYPT};
static const enum seal_algorithm algorithms[] = {SEAL_AES_256_GCM, SEAL_CHACHA20_POLY1305};

static void what_is_sealed_is_what_others_would_make(void **state)
{
	static const struct {
		enum seal_kind kind;
		enum seal_algorithm algorithm;
		size_t len;
		const char *tag, *first; /* of the ciphertext */
	} vectors[] = {
		{SEAL_VERIFY, SEAL_AES_256_GCM, 4096, "3f17006cee8f3e71bdf24a07724118fc", NULL},
		{SEAL_VERIFY, SEAL_AES_256_GCM, 100, "7e806c52e516b972928959ccd3632064", NULL},
		{SEAL_VERIFY, SEAL_CHACHA20_POLY1305, 4096, "01bdad0d55a46639d9e7330b6e8c892b",
			NULL},
		{SEAL_VERIFY, SEAL_CHACHA20_POLY1305, 100, "6ff132aeb66948cb458587ba2903c536",
			NULL},
		{SEAL_ENCRYPT, SEAL_AES_256_GCM, 4096, "e85feae372ff4480c4337d46394778f4",
			"859ca60ebf6b536d04b3af4baf084901"},
		{SEAL_ENCRYPT, SEAL_AES_256_GCM, 100, "e25bb8f647ae6751324e07adc1c5ab2c",
			"859ca60ebf6b536d04b3af4baf084901"},
		{SEAL_ENCRYPT, SEAL_CHACHA20_POLY1305, 4096, "665935511d8ed43051630f082704fb02",
			"46bdb3ff1c3696cffa7b37e9d94fc0e6"},
		{SEAL_ENCRYPT, SEAL_CHACHA20_POLY1305, 100, "032989e10857cb27a504b5781a8b05c2",
			"46bdb3ff1c3696cffa7b37e9d94fc0e6"},
	};
	const struct seal_place place = {UINT64_C(0x1122334455), 3, UINT64_C(0x0102030405)};
	uint8_t key[32], salt[32], derived[32], tag[16], want[16];
	static uint8_t plain[4096], sealed[4096 + 16];

	for (unsigned i = 0; i < 32; i++) {
		key[i] = (uint8_t)i;
		salt[i] = (uint8_t)(100 + i);
	}
	for (unsigned i = 0; i < sizeof(plain); i++)
		plain[i] = (uint8_t)(i * 7 % 251);
	for (size_t v = 0; v < WEFT_ARRAY_LEN(vectors); v++) {
		struct seal_context context = {.kind = vectors[v].kind,
			.algorithm = vectors[v].algorithm};
		const size_t len = vectors[v].len;
		struct seal_cipher *cipher;

		for (unsigned i = 0; i < SEAL_VOLUME_BYTES; i++)
			context.volume[i] = (uint8_t)(200 + i);
		assert_int_equal(seal_derive(&context, key, salt, derived), 0);
		assert_int_equal(seal_cipher_new(&context, derived, &cipher), 0);
		weft_unhex(vectors[v].tag, want, 16);
		memcpy(sealed, plain, len);
		assert_int_equal(seal_cipher_seal(cipher, &place, plain, sealed, len, tag), 0);
		assert_memory_equal(tag, want, 16);
		if (vectors[v].first) {
			weft_unhex(vectors[v].first, want, 16);
			assert_memory_equal(sealed, want, 16);
		}
		assert_int_equal(seal_cipher_open(cipher, &place, sealed, len, tag), 0);
		assert_memory_equal(sealed, plain, len);
		/* In its place. */
		assert_int_equal(seal_cipher_seal(cipher, &place, sealed, sealed, len, want), 0);
		assert_memory_equal(tag, want, 16);
		assert_int_equal(seal_cipher_open(cipher, &place, sealed, len, tag), 0);
		assert_memory_equal(sealed, plain, len);
		seal_cipher_free(cipher);
	}
}

static void whatever_is_changed_is_found(void **state)
{
	uint8_t key[32] = {1}, tag[16];
	static uint8_t plain[SEAL_BLOCK], sealed[SEAL_BLOCK + 16];

	for (size_t i = 0; i < 4; i++) {
		struct seal_context context = {.kind = kinds[i % 2],
			.algorithm = algorithms[i / 2],
			.volume = {7}};
		const struct seal_place right = {5, 2, 9};
		struct seal_place wrong[] = {{6, 2, 9}, {5, 1, 9}, {5, 2, 8}};
		struct seal_cipher *cipher;

		assert_int_equal(seal_cipher_new(&context, key, &cipher), 0);
		memcpy(sealed, plain, sizeof(plain));
		assert_int_equal(seal_cipher_seal(cipher, &right, plain, sealed, sizeof(plain),
					 tag),
			0);
		for (unsigned w = 0; w < WEFT_ARRAY_LEN(wrong); w++) {
			uint8_t copy[SEAL_BLOCK];

			memcpy(copy, sealed, sizeof(copy));
			assert_int_equal(seal_cipher_open(cipher, &wrong[w], copy, sizeof(copy),
						 tag),
				-EBADMSG);
		}
		for (unsigned bit = 0; bit < 8 * (SEAL_BLOCK + 16); bit += 1 + bit / 64 % 97) {
			uint8_t copy[SEAL_BLOCK], copied[16];

			memcpy(copy, sealed, sizeof(copy));
			memcpy(copied, tag, 16);
			if (bit < 8 * SEAL_BLOCK)
				copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
			else
				copied[bit / 8 - SEAL_BLOCK] ^= (uint8_t)(1 << bit % 8);
			assert_int_equal(seal_cipher_open(cipher, &right, copy, sizeof(copy),
						 copied),
				-EBADMSG);
		}
		/* Of other contents; of another process. */
		for (unsigned other = 0; other < 2; other++) {
			struct seal_cipher *stranger;
			uint8_t copy[SEAL_BLOCK];

			context.volume[3] ^= !other;
			key[9] ^= (uint8_t)other;
			assert_int_equal(seal_cipher_new(&context, key, &stranger), 0);
			memcpy(copy, sealed, sizeof(copy));
			assert_int_equal(seal_cipher_open(stranger, &right, copy, sizeof(copy),
						 tag),
				-EBADMSG);
			seal_cipher_free(stranger);
			context.volume[3] ^= !other;
			key[9] ^= (uint8_t)other;
		}
		assert_int_equal(seal_cipher_open(cipher, &right, sealed, sizeof(plain), tag), 0);
		assert_memory_equal(sealed, plain, sizeof(plain));
		seal_cipher_free(cipher);
	}
}

/* ---- a seal ---- */

static int memory(void)
{
	int fd = memfd_create("seal", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static struct seal *begin_on(int fd, enum seal_kind kind, struct sealer **ret_sealer)
{
	struct seal *seal;

	assert_int_equal(seal_new(fd, kind, &seal, NULL), 0);
	assert_int_equal(seal_start(seal, SIZE, NULL), 0);
	assert_int_equal(sealer_new(seal, ret_sealer, NULL), 0);
	return seal;
}

static void end(struct seal *seal, struct sealer *sealer)
{
	sealer_free(sealer);
	seal_free(seal);
}

/* Blocks from `first` on, nr of them, of which each byte is `fill`. */
static void put(struct sealer *sealer, uint8_t *donor, uint64_t first, unsigned nr, uint8_t fill)
{
	static uint8_t plain[8 * SEAL_BLOCK], sealed[8 * SEAL_BLOCK + SEAL_TAG_BYTES];
	const size_t len = weft_min(nr * SEAL_BLOCK, SIZE - first * SEAL_BLOCK);

	memset(plain, fill, sizeof(plain));
	memcpy(sealed, plain, len);
	assert_int_equal(sealer_seal(sealer, first, plain, sealed, len, NULL), 0);
	memcpy(donor + first * SEAL_BLOCK, sealed, len);
}

/* 0 and what it is, or -EIO. */
static int get(struct sealer *sealer, const uint8_t *donor, uint64_t block, uint8_t *ret_fill)
{
	uint8_t bytes[SEAL_BLOCK];
	const size_t len = weft_min(SEAL_BLOCK, SIZE - block * SEAL_BLOCK);
	struct cache_map bad;

	memcpy(bytes, donor + block * SEAL_BLOCK, len);
	int r = sealer_open(sealer, block, bytes, len, &bad);
	assert_int_equal(cache_map_any(&bad, 0, 1), r < 0);
	for (size_t i = 1; r == 0 && i < len; i++)
		assert_int_equal(bytes[i], bytes[0]);
	*ret_fill = bytes[0];
	return r;
}

static void the_next_process_opens_what_the_last_one_sealed(void **state)
{
	static uint8_t donor[SIZE], first_key[2 * SEAL_BLOCK];
	struct sealer *sealer;
	uint8_t fill;

	for (unsigned k = 0; k < 2; k++) {
		int fd = memory();

		for (unsigned process = 0; process < 5; process++) {
			struct seal *seal = begin_on(fd, kinds[k], &sealer);

			for (unsigned i = 0; i < process; i++) {
				assert_false(seal_is_zero(seal, i));
				assert_int_equal(get(sealer, donor, i, &fill), 0);
				assert_int_equal(fill, i + 1);
			}
			assert_int_equal(get(sealer, donor, 0, &fill), process ? 0 : -EIO);
			assert_true(seal_is_zero(seal, process));
			put(sealer, donor, process, 1, (uint8_t)(process + 1));
			put(sealer, donor, BLOCKS, 1, (uint8_t)(process + 50));
			assert_int_equal(get(sealer, donor, BLOCKS, &fill), 0);
			assert_int_equal(fill, process + 50);
			/* Each under a key of its own. */
			put(sealer, donor, 90, 2, 9);
			if (kinds[k] == SEAL_ENCRYPT && process > 0)
				assert_memory_not_equal(first_key, donor + 90 * SEAL_BLOCK,
					sizeof(first_key));
			memcpy(first_key, donor + 90 * SEAL_BLOCK, sizeof(first_key));
			end(seal, sealer);
		}
		close(fd);
	}
}

/* The nonces of the rows of a run join the nr that there were, and are none of them. */
static unsigned note_nonces(const struct seal *seal, uint64_t first, unsigned blocks,
	uint64_t *nonces, unsigned nr)
{
	for (unsigned i = 0; i < blocks; i++) {
		const uint64_t nonce = seal->rows[first + i].nonce;

		for (unsigned k = 0; k < nr; k++)
			assert_true(nonces[k] != nonce);
		nonces[nr++] = nonce;
	}
	return nr;
}

/* With a nonce that comes twice under a key, what was encrypted, and the tags, are anybody's. */
static void no_nonce_comes_twice(void **state)
{
	enum { PROCESSES = 3, ROUNDS = 8 };
	static uint8_t donor[SIZE];
	uint64_t nonces[PROCESSES * ROUNDS * 2 * ROUNDS];
	unsigned nr_nonces = 0;
	int fd = memory();

	for (unsigned process = 0; process < PROCESSES; process++) {
		struct sealer *lanes[2];
		struct seal *seal = begin_on(fd, SEAL_ENCRYPT, &lanes[0]);

		assert_int_equal(sealer_new(seal, &lanes[1], NULL), 0);
		for (unsigned i = 0; i < 2 * ROUNDS; i++) {
			const unsigned nr = 1 + i % ROUNDS;

			put(lanes[i % 2], donor, i, nr, 1);
			nr_nonces = note_nonces(seal, i, nr, nonces, nr_nonces);
		}
		assert_int_equal(seal->nr_salts, process + 1);
		for (unsigned i = 0; i < process; i++)
			assert_memory_not_equal(seal->keys[i], seal->keys[process], SEAL_KEY_BYTES);
		sealer_free(lanes[1]);
		end(seal, lanes[0]);
	}
	close(fd);
}

static void bad_blocks_are_counted_once_and_named(void **state)
{
	static uint8_t donor[SIZE], before[SIZE];
	struct sealer *sealer;
	uint64_t at = 0, block;
	uint8_t fill;
	int fd = memory();
	struct seal *seal = begin_on(fd, SEAL_VERIFY, &sealer);

	put(sealer, donor, 0, 8, 1);
	memcpy(before, donor, sizeof(donor));
	put(sealer, donor, 0, 8, 2);
	donor[3 * SEAL_BLOCK + 77] ^= 1;                                     /* changed */
	memcpy(donor + 5 * SEAL_BLOCK, before + 5 * SEAL_BLOCK, SEAL_BLOCK); /* what it was */
	assert_false(seal_next_bad(seal, &at, &block));
	for (unsigned again = 0; again < 2; again++)
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(get(sealer, donor, i, &fill), i == 3 || i == 5 ? -EIO : 0);
	assert_int_equal(seal_nr_bad(seal), 2);
	assert_true(seal_next_bad(seal, &at, &block));
	assert_int_equal(block, 3);
	assert_true(seal_next_bad(seal, &at, &block));
	assert_int_equal(block, 5);
	assert_false(seal_next_bad(seal, &at, &block));
	/* Written, it is whole; and zeros are asked of nobody. */
	put(sealer, donor, 3, 1, 4);
	assert_int_equal(get(sealer, donor, 3, &fill), 0);
	seal_make_zero(seal, 5, 1);
	assert_true(seal_is_zero(seal, 5) && !seal_is_zero(seal, 4) && !seal_is_zero(seal, 6));
	end(seal, sealer);
	/* The number stays, as long as the contents do. */
	seal = begin_on(fd, SEAL_VERIFY, &sealer);
	assert_int_equal(seal_nr_bad(seal), 2);
	end(seal, sealer);
	close(fd);
}

static void other_contents_begin_empty(void **state)
{
	static uint8_t donor[SIZE];
	struct sealer *sealer;
	uint8_t fill;
	int fd = memory();
	struct seal *seal = begin_on(fd, SEAL_ENCRYPT, &sealer);

	put(sealer, donor, 0, 8, 1);
	put(sealer, donor, BLOCKS, 1, 1);
	struct seal_context before = seal->context;
	assert_int_equal(seal_start_anew(seal, NULL), 0);
	assert_memory_not_equal(seal->context.volume, before.volume, sizeof(before.volume));
	assert_int_equal(sealer_take_keys(sealer, NULL), 0);
	for (unsigned i = 0; i <= BLOCKS; i++)
		assert_true(seal_is_zero(seal, i));
	assert_int_equal(get(sealer, donor, 0, &fill), -EIO);
	put(sealer, donor, 1, 1, 3);
	assert_int_equal(get(sealer, donor, 1, &fill), 0);
	end(seal, sealer);
	seal = begin_on(fd, SEAL_ENCRYPT, &sealer);
	assert_int_equal(get(sealer, donor, 1, &fill), 0);
	assert_int_equal(fill, 3);
	end(seal, sealer);
	close(fd);
}

static void only_what_was_left_is_gone_on_with(void **state)
{
	struct weft_error err;
	struct sealer *sealer;
	struct seal *seal;
	int fd = memory();

	seal = begin_on(fd, SEAL_VERIFY, &sealer);
	end(seal, sealer);
	assert_int_equal(seal_new(fd, SEAL_ENCRYPT, &seal, &err), -EINVAL);
	assert_int_equal(seal_new(fd, SEAL_VERIFY, &seal, &err), 0);
	assert_int_equal(seal_start(seal, SIZE - 1, &err), -ESTALE);
	seal_free(seal);
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(ftruncate(fd, st.st_size - 24), 0);
	assert_int_equal(seal_new(fd, SEAL_VERIFY, &seal, &err), -EINVAL);
	close(fd);
}

/* There is room for so many salts; what nobody needs any more is drawn anew. */
static void bridges_may_die_as_often_as_they_like(void **state)
{
	static uint8_t donor[SIZE];
	uint8_t fill, first_key[SEAL_KEY_BYTES];
	struct sealer *sealer;
	int fd = memory();

	for (unsigned i = 0; i < SEAL_SALTS_MAX + 20; i++) {
		struct seal *seal = begin_on(fd, SEAL_ENCRYPT, &sealer);

		if (i == 0)
			memcpy(first_key, seal->keys[0], sizeof(first_key));
		if (i == 5)
			put(sealer, donor, 50, 1, 7);
		put(sealer, donor, 0, 1, (uint8_t)i);
		assert_int_equal(get(sealer, donor, 0, &fill), 0);
		assert_int_equal(fill, (uint8_t)i);
		assert_in_range(seal->nr_salts, 1, SEAL_SALTS_MAX);
		if (i == SEAL_SALTS_MAX)
			assert_memory_not_equal(first_key, seal->keys[seal->own_salt],
				sizeof(first_key));
		end(seal, sealer);
	}
	struct seal *seal = begin_on(fd, SEAL_ENCRYPT, &sealer);
	assert_int_equal(get(sealer, donor, 50, &fill), 0);
	assert_int_equal(fill, 7);
	assert_int_equal(get(sealer, donor, 0, &fill), 0);
	end(seal, sealer);
	close(fd);
}

static void there_is_no_room_for_more_salts_that_blocks_name(void **state)
{
	const uint64_t size_bytes = UINT64_C(1) * SEAL_SALTS_MAX * SEAL_BLOCK;
	struct weft_error err;
	int fd = memory();

	for (unsigned i = 0; i <= SEAL_SALTS_MAX; i++) {
		struct seal *seal;

		assert_int_equal(seal_new(fd, SEAL_ENCRYPT, &seal, &err), 0);
		assert_int_equal(seal_start(seal, size_bytes, &err),
			i < SEAL_SALTS_MAX ? 0 : -ENOSPC);
		if (i < SEAL_SALTS_MAX)
			seal->rows[i].nonce = (uint64_t)i << SEAL_COUNTER_BITS | 1;
		seal_free(seal);
	}
	close(fd);
}

/* A bridge that could not start is made anew in the same process. */
static void a_process_has_one_salt(void **state)
{
	static uint8_t donor[SIZE];
	struct sealer *sealer;
	uint8_t fill;
	int fd = memory();
	struct seal *seal = begin_on(fd, SEAL_ENCRYPT, &sealer);

	put(sealer, donor, 3, 1, 1);
	const uint64_t before = seal->rows[3].nonce;
	sealer_free(sealer);
	assert_int_equal(seal_start(seal, SIZE, NULL), 0);
	assert_int_equal(sealer_new(seal, &sealer, NULL), 0);
	assert_int_equal(seal->nr_salts, 1);
	put(sealer, donor, 3, 1, 2);
	assert_true(seal->rows[3].nonce > before);
	assert_int_equal(get(sealer, donor, 3, &fill), 0);
	end(seal, sealer);
	close(fd);
}

static void contents_that_end_leave_no_key(void **state)
{
	uint8_t before[4096], after[4096];
	struct sealer *sealer;
	unsigned nr_wiped = 0;
	int fd = memory();
	struct seal *seal = begin_on(fd, SEAL_ENCRYPT, &sealer);

	assert_int_equal(pread(fd, before, sizeof(before), 0), sizeof(before));
	seal_end(seal);
	assert_int_equal(pread(fd, after, sizeof(after), 0), sizeof(after));
	for (size_t i = 0; i < sizeof(before); i++)
		nr_wiped += before[i] && !after[i];
	/* Some bytes of it were zeros before. */
	assert_in_range(nr_wiped, SEAL_KEY_BYTES / 2, SEAL_KEY_BYTES + 4);
	end(seal, sealer);
	seal = begin_on(fd, SEAL_ENCRYPT, &sealer);
	assert_true(seal_is_zero(seal, 0));
	end(seal, sealer);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_sealed_is_what_others_would_make),
		cmocka_unit_test(whatever_is_changed_is_found),
		cmocka_unit_test(the_next_process_opens_what_the_last_one_sealed),
		cmocka_unit_test(no_nonce_comes_twice),
		cmocka_unit_test(bad_blocks_are_counted_once_and_named),
		cmocka_unit_test(other_contents_begin_empty),
		cmocka_unit_test(only_what_was_left_is_gone_on_with),
		cmocka_unit_test(bridges_may_die_as_often_as_they_like),
		cmocka_unit_test(there_is_no_room_for_more_salts_that_blocks_name),
		cmocka_unit_test(a_process_has_one_salt),
		cmocka_unit_test(contents_that_end_leave_no_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
