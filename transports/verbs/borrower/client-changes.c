/* SPDX-License-Identifier: MIT */
/*
 * The ranges of a file region that a borrower's WRITEs have changed since the last FLUSH, which
 * tells the donor.
 *
 * Runs on the lane's thread.  They are a bitmap of a fixed size, made with the connection.  Changes
 * that a connection did not tell before its end, the donor finds by comparing.
 */
#include "transports/verbs/borrower/client.h"

#include <assert.h>
#include <stdlib.h>

enum { MIN_SHIFT = 12, MAX_BITS_SHIFT = 20, WORD_BITS = 64 };

int verbs_changes_init(struct verbs_conn *conn)
{
	struct verbs_changes *changes = &conn->changes;

	changes->shift = MIN_SHIFT;
	while ((conn->size_bytes - 1) >> changes->shift >> MAX_BITS_SHIFT)
		changes->shift++;
	uint64_t nr_bits = ((conn->size_bytes - 1) >> changes->shift) + 1;
	changes->nr_words = (uint32_t)((nr_bits + WORD_BITS - 1) / WORD_BITS);
	changes->words = calloc(changes->nr_words, sizeof(changes->words[0]));
	changes->first = changes->nr_words;
	return changes->words ? 0 : -ENOMEM;
}

void verbs_changes_fini(struct verbs_conn *conn)
{
	free(conn->changes.words);
}

void verbs_changes_note(struct verbs_conn *conn, uint64_t off, uint64_t len)
{
	struct verbs_changes *changes = &conn->changes;

	if (!changes->words)
		return;
	uint64_t bit = off >> changes->shift, last = (off + len - 1) >> changes->shift;

	changes->first = (uint32_t)weft_min(changes->first, bit / WORD_BITS);
	changes->end = (uint32_t)weft_max(changes->end, last / WORD_BITS + 1);
	for (; bit <= last; bit++)
		changes->words[bit / WORD_BITS] |= UINT64_C(1) << bit % WORD_BITS;
}

bool verbs_changes_any(struct verbs_conn *conn)
{
	struct verbs_changes *changes = &conn->changes;

	while (changes->first < changes->end && changes->words[changes->first] == 0)
		changes->first++;
	if (changes->first < changes->end)
		return true;
	changes->first = changes->nr_words;
	changes->end = 0;
	return false;
}

/* Takes the first run of bits from word `first` on; false: there is none. */
static bool take_run(struct verbs_conn *conn, uint64_t *ret_bit, uint64_t *ret_nr)
{
	struct verbs_changes *changes = &conn->changes;

	if (!verbs_changes_any(conn))
		return false;
	uint64_t *words = changes->words;
	uint64_t start = changes->first * (uint64_t)WORD_BITS +
		(unsigned)__builtin_ctzll(words[changes->first]);
	uint64_t bit = start, end = changes->end * (uint64_t)WORD_BITS;

	for (; bit < end && words[bit / WORD_BITS] >> bit % WORD_BITS & 1; bit++)
		words[bit / WORD_BITS] &= ~(UINT64_C(1) << bit % WORD_BITS);
	*ret_bit = start;
	*ret_nr = bit - start;
	return true;
}

void verbs_changes_take(struct verbs_conn *conn, struct verbs_msg *msg)
{
	uint64_t bit, nr;

	msg->request.nr_ranges = 0;
	while (msg->request.nr_ranges < VERBS_RANGES_PER_MESSAGE && take_run(conn, &bit, &nr)) {
		uint64_t off = bit << conn->changes.shift;

		msg->request.range[msg->request.nr_ranges++] = (struct verbs_range){
			.off = off,
			.len = weft_min(nr << conn->changes.shift, conn->size_bytes - off),
		};
	}
	msg->request.more = verbs_changes_any(conn);
}

void verbs_changes_put_back(struct verbs_conn *conn, const struct verbs_msg *msg)
{
	for (uint32_t i = 0; i < msg->request.nr_ranges; i++)
		verbs_changes_note(conn, msg->request.range[i].off, msg->request.range[i].len);
}
