/* SPDX-License-Identifier: MIT */
/*
 * Hashes of regions, for those who were granted them.  Hashing is the only work that a borrower can
 * give the donor's processors: so it is one thread's at a time, for all of them, in the order in
 * which they come, a slice each.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "fabric/donor/donor-private.h"

enum {
	SLICE_BYTES = 1 << 20, /* between two turns, and two looks whether anybody waits still */
	LOOK_MS = 50,
};

/* A thread that wants a turn; lies on its stack. */
struct turn {
	bool is_mine;
	struct turn *next;
};

struct donor_hashes {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool busy;
	struct turn *first, **end; /* those who wait */
	/* Of the one whose turn it is. */
	struct weft_hasher hasher;
	uint8_t scratch[WEFT_HASH_BLOCK_MAX];
};

int donor_hashes_init(struct weft_donor *donor)
{
	struct donor_hashes *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	pthread_mutex_init(&h->lock, NULL);
	weft_cond_init(&h->changed);
	h->end = &h->first;
	donor->hashes = h;
	return 0;
}

void donor_hashes_fini(struct weft_donor *donor)
{
	struct donor_hashes *h = donor->hashes;

	if (!h)
		return;
	pthread_cond_destroy(&h->changed);
	pthread_mutex_destroy(&h->lock);
	explicit_bzero(&h->hasher, sizeof(h->hasher));
	free(h);
}

static void leave(struct donor_hashes *h, struct turn *turn)
{
	struct turn **at = &h->first;

	while (*at != turn)
		at = &(*at)->next;
	*at = turn->next;
	if (!turn->next)
		h->end = at;
}

/* 0, or -ESHUTDOWN: nobody wants the hashes any more. */
static int begin_turn(struct donor_hashes *h, bool (*is_gone)(void *ctx), void *ctx)
{
	struct turn turn = {0};

	pthread_mutex_lock(&h->lock);
	turn.is_mine = !h->busy;
	h->busy = true;
	if (!turn.is_mine) {
		*h->end = &turn;
		h->end = &turn.next;
	}
	while (!turn.is_mine) {
		weft_cond_wait_until(&h->changed, &h->lock, weft_now_ns() + LOOK_MS * NS_PER_MS);
		if (!turn.is_mine && is_gone(ctx)) {
			leave(h, &turn);
			break;
		}
	}
	pthread_mutex_unlock(&h->lock);
	return turn.is_mine ? 0 : -ESHUTDOWN;
}

static void end_turn(struct donor_hashes *h)
{
	pthread_mutex_lock(&h->lock);
	struct turn *next = h->first;
	h->busy = next;
	if (next) {
		leave(h, next);
		next->is_mine = true;
		pthread_cond_broadcast(&h->changed);
	}
	pthread_mutex_unlock(&h->lock);
}

int weft_donor_hash(struct weft_donor *donor, struct weft_region *region,
	const struct weft_hashing *hashing, uint64_t off, uint64_t len,
	bool (*is_gone)(void *ctx), void *ctx, uint8_t *ret)
{
	struct donor_hashes *h = donor->hashes;

	for (uint64_t done = 0; done < len; done += SLICE_BYTES) {
		const uint64_t n = weft_min(SLICE_BYTES, len - done);
		int r = is_gone(ctx) ? -ESHUTDOWN : begin_turn(h, is_gone, ctx);

		if (r < 0)
			return r;
		r = weft_hasher_set(&h->hasher, hashing->key);
		if (r == 0)
			r = weft_region_hash(region, &h->hasher, hashing->block_bytes, off + done,
				n, h->scratch, ret);
		end_turn(h);
		if (r < 0)
			return r;
		ret += weft_hash_nr_blocks(n, hashing->block_bytes) * WEFT_HASH_BYTES;
	}
	return 0;
}
