/* SPDX-License-Identifier: MIT */
/*
 * A region that is served here before its contents are (post-copy): they come from A, which keeps
 * them, closed, until all are here.  On the take's thread.
 *
 * Invariant: a chunk counts as here once its bytes were compared with A's.  Until then whoever
 * touches it waits, or gets an error; nobody gets zeros.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/step.h"
#include "fabric/base/util.h"
#include "fabric/move/fields.h"
#include "fabric/move/moves-private.h"

enum {
	BATCH_NS = 20000000, /* so long does who needs a chunk wait for others, about */
	BATCH_MIN = 1,
	BATCH_MAX = PULL_BYTES / WEFT_CHUNK_BYTES,
	RETRY_MAX_MS = 2000,
	BITS = 64,
};

struct fill {
	struct take *take;
	uint64_t at;    /* the next one that nobody waits for */
	uint64_t batch; /* chunks */
	bool connected;
	int wait_ms; /* before A is asked again */
};

static uint64_t left_bytes(const struct take *t, uint64_t nr_absent)
{
	return weft_min(nr_absent * WEFT_CHUNK_BYTES, t->region->size_bytes);
}

static void show(struct take *t, uint64_t nr_absent, uint64_t copied, uint64_t ns)
{
	pthread_mutex_lock(&t->moves->lock);
	t->view.left_bytes = left_bytes(t, nr_absent);
	if (ns > 0 && copied > WEFT_MIB)
		t->view.rate = (uint64_t)((double)copied / (double)ns * 1e9);
	pthread_mutex_unlock(&t->moves->lock);
}

static void put(struct pull *pull, uint64_t chunk)
{
	pull->dirty[chunk / BITS] |= UINT64_C(1) << chunk % BITS;
}

static bool has(const uint64_t *bits, uint64_t chunk)
{
	return bits[chunk / BITS] >> chunk % BITS & 1;
}

/* What is waited for, and behind that what comes next, into pull->dirty. */
static uint64_t choose(struct fill *f)
{
	struct weft_region *region = f->take->region;
	const uint64_t nr_chunks = weft_region_nr_chunks(region);
	struct pull *pull = &f->take->pull;
	uint64_t wanted[BATCH_MAX], nr = 0;

	memset(pull->dirty, 0, pull->nr_words * sizeof(*pull->dirty));
	const unsigned nr_wanted =
		weft_region_take_wanted(region, wanted, (unsigned)weft_max(f->batch, 16));
	for (unsigned i = 0; i < nr_wanted; i++)
		if (weft_region_next_absent(region, wanted[i]) == wanted[i]) {
			put(pull, wanted[i]);
			nr++;
		}
	/* What was wanted lately is near what is wanted soon. */
	if (nr > 0)
		f->at = wanted[nr_wanted - 1] + 1;
	for (uint64_t looked = 0; nr < f->batch && looked < nr_chunks; looked++) {
		const uint64_t next = weft_region_next_absent(region, f->at);

		if (next == nr_chunks && f->at == 0)
			break;
		f->at = next == nr_chunks ? 0 : next + 1;
		if (next == nr_chunks || has(pull->dirty, next))
			continue;
		put(pull, next);
		nr++;
	}
	return nr;
}

static int lose(struct take *t, const char *why, struct weft_error *err)
{
	const uint64_t nr_chunks = weft_region_nr_chunks(t->region);
	uint64_t nr = 0;

	for (uint64_t i = 0; (i = weft_region_next_absent(t->region, i)) < nr_chunks; i++)
		nr++;
	weft_region_lose_absent(t->region);
	return weft_error_set(err, ESTALE,
		"%s %s: %" PRIu64 " bytes of region '%s' are lost, and who reads or writes them "
		"gets an error",
		t->from, why, left_bytes(t, nr), t->name);
}

/*
 * What is absent is lost: -ESTALE, or 0.  What A does not say is no reason, but an operator's word
 * that it is gone is one, as long as A says nothing.
 */
static int look_at_giver(struct take *t, struct weft_error *err)
{
	struct weft_error why = {0};
	json_t *told = NULL;
	int r = take_ask_with(t, take_question(t, "give-outcome"), t->cancel_fd, &told, &why);
	const char *is = json_string_value(json_object_get(told, "is"));
	const bool silent = r < 0 && take_is_of_link(r);
	const bool gone = r == 0 && is && strcmp(is, "given") == 0 &&
		!json_object_get(told, "facts");
	const bool anew = r == 0 && json_is_true(json_object_get(told, "anew"));

	json_decref(told);
	if (gone)
		return lose(t, "has lost the bytes that were not here yet", err);
	if (anew)
		return lose(t, "has begun anew, as somebody said that this donor is gone", err);
	/* Somebody who says so of a giver that answers is wrong. */
	if (r == 0)
		take_forget_word(t);
	if (silent && take_word_of(t) == WORD_LOST)
		return lose(t, "is gone for good, as somebody said", err);
	return 0;
}

/* 0: connected; -EAGAIN: not yet; or the end. */
static int connect_again(struct fill *f, struct weft_error *err)
{
	struct take *t = f->take;
	int r;

	pull_disconnect(&t->pull);
	if (f->wait_ms > 0 && !take_rest(t, f->wait_ms))
		return -ESHUTDOWN;
	f->wait_ms = f->wait_ms ? weft_min(2 * f->wait_ms, RETRY_MAX_MS) : TAKE_RETRY_MS;
	r = take_connect_reader(t, err);
	f->connected = r == 0;
	take_set_waits(t, !f->connected);
	if (f->connected) {
		take_forget_word(t);
		return 0;
	}
	weft_debug("region '%s': %s", t->name, err->message);
	r = look_at_giver(t, err);
	return r < 0 ? r : -EAGAIN;
}

/* What came is here.  Returns how many are absent. */
static uint64_t take_in(struct fill *f, const uint64_t *asked)
{
	struct take *t = f->take;
	struct pull *pull = &t->pull;
	uint64_t left = 1;

	for (uint64_t i = 0; i < pull->nr_chunks; i++) {
		if (asked[i / BITS] == 0) {
			i += BITS - 1 - i % BITS;
			continue;
		}
		if (has(asked, i) && !has(pull->dirty, i) && !has(pull->bad, i))
			left = weft_region_arrived(t->region, i);
	}
	return left;
}

/* One batch.  0: goes on; 1: all is here; or the end. */
static int step(struct fill *f, struct weft_error *err)
{
	struct take *t = f->take;
	struct pull *pull = &t->pull;

	/* What came to nothing the last time is found by the next look. */
	if (choose(f) == 0)
		return !weft_region_is_filling(t->region);
	memcpy(t->changed, pull->dirty, pull->nr_words * sizeof(*t->changed));
	const uint64_t start_ns = weft_now_ns(), start = atomic_load(&pull->copied_bytes);
	int r = pull_round(pull, err);
	const uint64_t left = take_in(f, t->changed), ns = weft_now_ns() - start_ns,
		       copied = atomic_load(&pull->copied_bytes) - start;
	if (r < 0) {
		if (r != -ECANCELED)
			weft_warn("region '%s' from %s: %s; connecting anew", t->name, t->from,
				err->message);
		f->connected = false;
		return 0;
	}
	f->wait_ms = 0;
	show(t, left, copied, ns);
	if (copied > 0 && ns > 0)
		f->batch = weft_max(weft_min(copied * BATCH_NS / ns / WEFT_CHUNK_BYTES, BATCH_MAX),
			BATCH_MIN);
	/* What came wrong is asked for again, as long as it takes: there is no other copy. */
	memset(t->changed, 0, pull->nr_words * sizeof(*t->changed));
	if (pull_judge(pull, t->changed, err) < 0) {
		weft_warn("region '%s': %s", t->name, err->message);
		memset(pull->strikes, 0, pull->nr_chunks);
		f->connected = false;
		f->wait_ms = RETRY_MAX_MS;
	}
	return left == 0;
}

static int init(struct take *t, struct weft_error *err)
{
	int r = t->pull.region ? 0 : pull_init(&t->pull, t->region, t->cancel_fd, err);

	if (r == 0 && !t->changed && !(t->changed = calloc(t->pull.nr_words, sizeof(*t->changed))))
		r = weft_error_set(err, ENOMEM, "no memory");
	t->pull.bandwidth = t->bandwidth;
	t->pull.pace = &t->group->pace;
	pthread_mutex_lock(&t->moves->lock);
	t->view.copies = t->pull.region != NULL;
	pthread_mutex_unlock(&t->moves->lock);
	return r;
}

int take_fill(struct take *t, struct weft_error *err)
{
	struct fill f = {.take = t, .batch = 16, .connected = t->pull.conn != NULL};
	int r = 0;

	/* After a restart all may be here. */
	if (!weft_region_is_filling(t->region))
		return 0;
	while (init(t, err) < 0)
		if (!take_rest(t, 1000))
			return -ESHUTDOWN;
	while (r == 0 || r == -EAGAIN) {
		if (!f.connected)
			r = connect_again(&f, err);
		else
			r = step(&f, err);
		if (r <= 0 && !take_rest(t, 0))
			r = -ESHUTDOWN;
	}
	pull_disconnect(&t->pull);
	return r > 0 ? 0 : r;
}
