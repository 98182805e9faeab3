/* SPDX-License-Identifier: MIT */
/* What a region or a file holds, and has to hold; and chance.  Functions without state. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "perf/methods/methods.h"

enum { WORDS = METHODS_PAGE / 8 };
static const uint64_t STEP = UINT64_C(0x9e3779b97f4a7c15);

int methods_contents_new(struct methods_contents *c, uint64_t seed, uint64_t bytes)
{
	size_t len = bytes / METHODS_PAGE * sizeof(*c->versions);
	void *versions = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (versions == MAP_FAILED)
		return -ENOMEM;
	*c = (struct methods_contents){.seed = seed, .bytes = bytes, .versions = versions};
	return 0;
}

void methods_contents_free(struct methods_contents *c)
{
	if (c->versions)
		munmap(c->versions, c->bytes / METHODS_PAGE * sizeof(*c->versions));
	c->versions = NULL;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* The first word of a page; the others follow in steps. */
static uint64_t first_word(const struct methods_contents *c, uint64_t page)
{
	return mix(mix(c->seed + page * STEP) + c->versions[page]);
}

void methods_contents_change(struct methods_contents *c, uint64_t off, uint64_t len)
{
	for (uint64_t page = off / METHODS_PAGE; page < (off + len) / METHODS_PAGE; page++)
		c->versions[page]++;
}

void methods_contents_make(const struct methods_contents *c, void *buf, uint32_t len, uint64_t off)
{
	uint64_t *words = buf;

	for (uint64_t page = off / METHODS_PAGE; len > 0; page++, len -= METHODS_PAGE) {
		uint64_t word = first_word(c, page);

		for (unsigned i = 0; i < WORDS; i++, word += STEP)
			*words++ = word;
	}
}

int methods_contents_check(const struct methods_contents *c, const void *buf, uint32_t len,
	uint64_t off, struct weft_error *err)
{
	const uint64_t *words = buf;

	for (uint64_t at = off; at < off + len; at += METHODS_PAGE, words += WORDS) {
		uint64_t word = first_word(c, at / METHODS_PAGE), other = 0;

		for (unsigned i = 0; i < WORDS; i++, word += STEP)
			other |= words[i] ^ word;
		if (other)
			return weft_error_set(err, EILSEQ,
				"wrong bytes: in the page at offset %" PRIu64
				" are other bytes than were written",
				at);
	}
	return 0;
}

uint64_t methods_random_below(struct methods_random *random, uint64_t bound)
{
	random->x ^= random->x << 13;
	random->x ^= random->x >> 7;
	random->x ^= random->x << 17;
	return (random->x >> 11) % bound;
}
