/* SPDX-License-Identifier: MIT */
/*
 * What weft-serve does for regions that come from other donors, or go there (fabric/move/).  Their
 * threads need things that are the main thread's: they leave a call, and wait.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "fabric/base/log.h"
#include "fabric/main/serve.h"

struct serve_call {
	struct serve_call *next;
	void (*fn)(struct serve *s, struct serve_call *call);
	bool done;
	int r;
	struct weft_region *region;
	const char *name;
	uint64_t size_bytes;
};

static void on_wake(void *ctx)
{
	struct serve *s = ctx;

	pthread_mutex_lock(&s->calls_lock);
	while (s->calls) {
		struct serve_call *call = s->calls;

		s->calls = call->next;
		call->fn(s, call);
		call->done = true;
	}
	pthread_cond_broadcast(&s->calls_done);
	pthread_mutex_unlock(&s->calls_lock);
}

/* Runs it on the main thread; -ESHUTDOWN: that is ending. */
static int call_main(struct serve *s, struct serve_call *call)
{
	pthread_mutex_lock(&s->calls_lock);
	if (!s->takes_calls) {
		pthread_mutex_unlock(&s->calls_lock);
		return -ESHUTDOWN;
	}
	call->next = s->calls;
	s->calls = call;
	weft_loop_wake(s->loop);
	while (!call->done)
		pthread_cond_wait(&s->calls_done, &s->calls_lock);
	pthread_mutex_unlock(&s->calls_lock);
	return call->r;
}

static void call_add(struct serve *s, struct serve_call *call)
{
	if (s->nr_wanted == SERVE_MAX_REGIONS) {
		call->r = -EMFILE;
		return;
	}
	struct serve_region w = {.name = strdup(call->name),
		.size_bytes = call->size_bytes,
		.region = call->region,
		.came = true};

	if (!w.name) {
		call->r = -ENOMEM;
		return;
	}
	serve_keep_promises(s, &w);
	s->wanted[s->nr_wanted++] = w;
	serve_hold(s, &s->wanted[s->nr_wanted - 1]);
}

static void call_forget(struct serve *s, struct serve_call *call)
{
	for (unsigned i = 0; i < s->nr_wanted; i++) {
		struct serve_region *w = &s->wanted[i];

		if (w->region != call->region)
			continue;
		if (w->keeper)
			weft_holder_drop(s->holder, w->region);
		weft_region_forget_promises(w->region);
		weft_region_put(w->region);
		serve_forget_wanted(s, w);
		return;
	}
}

/* The slow part, taking memory, is the caller's thread's. */
static int make(void *ctx, const char *name, uint64_t size_bytes, uint64_t epoch,
	struct weft_region **ret, struct weft_error *err)
{
	struct serve *s = ctx;
	struct weft_memory_spec spec = {
		.name = name,
		.size_bytes = size_bytes,
		.hugepage_bytes = s->hugepage_bytes,
		.numa = s->numa,
		.numa_node = s->numa_node,
		.overcommit = s->overcommit,
		.epoch = epoch,
	};
	struct serve_call call = {.fn = call_add, .name = name, .size_bytes = size_bytes};
	int r = weft_region_new_memory(&spec, NULL, NULL, &call.region, err);

	if (r < 0)
		return r;
	weft_region_get(call.region); /* the program's, and the caller's */
	r = call_main(s, &call);
	if (r == 0) {
		*ret = call.region;
		return 0;
	}
	weft_region_put(call.region);
	weft_region_put(call.region);
	return weft_error_set(err, -r, "region '%s' cannot be taken in: %s", name, strerror(-r));
}

static void forget(void *ctx, struct weft_region *region)
{
	struct serve_call call = {.fn = call_forget, .region = region};

	call_main(ctx, &call);
}

int serve_open_moves(struct serve *s, struct weft_error *err)
{
	static const struct weft_moves_owner owner = {make, forget};
	char dir[128], place[300], path[256];
	int r = weft_state_dir(dir, sizeof(dir));

	pthread_mutex_init(&s->calls_lock, NULL);
	pthread_cond_init(&s->calls_done, NULL);
	weft_listening_format(serve_main_listening(s), place);
	if (r == 0 &&
		snprintf(path, sizeof(path), "%s/moves-%016" PRIx64, dir,
			(uint64_t)XXH3_64bits(place, strlen(place))) >= (int)sizeof(path))
		r = -ENAMETOOLONG;
	if (r < 0)
		return weft_error_set(err, -r, "what moves cannot be noted in %s: %s", dir,
			strerror(-r));
	const struct weft_moves_config config = {
		.donor = s->donor,
		.notes = path,
		.take_bytes = s->take_bytes,
		.certificates = s->tls_certificates,
		.owner = &owner,
		.ctx = s,
	};
	return weft_moves_new(&config, &s->moves, err);
}

void serve_start_moves(struct serve *s)
{
	weft_loop_on_wake(s->loop, on_wake, s);
	pthread_mutex_lock(&s->calls_lock);
	s->takes_calls = true;
	pthread_mutex_unlock(&s->calls_lock);
	weft_moves_start(s->moves);
}

void serve_end_moves(struct serve *s)
{
	if (!s->moves)
		return;
	pthread_mutex_lock(&s->calls_lock);
	s->takes_calls = false;
	for (struct serve_call *call = s->calls; call; call = call->next) {
		call->r = -ESHUTDOWN;
		call->done = true;
	}
	s->calls = NULL;
	pthread_cond_broadcast(&s->calls_done);
	pthread_mutex_unlock(&s->calls_lock);
	weft_moves_free(s->moves);
	s->moves = NULL;
}

int serve_answer_move(void *ctx, const struct weft_peer *peer, const json_t *question,
	json_t **ret_answer, struct weft_error *err)
{
	const struct serve *s = ctx;

	return weft_moves_question(s->moves, peer, question, ret_answer, err);
}
