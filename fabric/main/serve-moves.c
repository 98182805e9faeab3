/* SPDX-License-Identifier: MIT */
/*
 * What weft-serve does for regions that come from other donors, or go there (fabric/move/).  Their
 * threads need things that are the main thread's: they leave a call, and wait.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/main/serve.h"

struct serve_call {
	struct serve_call *next;
	int (*fn)(struct serve *s, void *ctx);
	void *ctx;
	bool done;
	int r;
};

/* A region that is to be the program's. */
struct added {
	struct weft_region *region;
	const char *name;
	char *path; /* of a file; the region's, once it was added */
	uint64_t size_bytes;
};

static void on_wake(void *ctx)
{
	struct serve *s = ctx;

	pthread_mutex_lock(&s->calls_lock);
	while (s->calls) {
		struct serve_call *call = s->calls;

		s->calls = call->next;
		call->r = call->fn(s, call->ctx);
		call->done = true;
	}
	pthread_cond_broadcast(&s->calls_done);
	pthread_mutex_unlock(&s->calls_lock);
}

int serve_call_main(struct serve *s, int (*fn)(struct serve *s, void *ctx), void *ctx)
{
	struct serve_call call = {.fn = fn, .ctx = ctx};

	pthread_mutex_lock(&s->calls_lock);
	if (!s->takes_calls) {
		pthread_mutex_unlock(&s->calls_lock);
		return -ESHUTDOWN;
	}
	call.next = s->calls;
	s->calls = &call;
	weft_loop_wake(s->loop);
	while (!call.done)
		pthread_cond_wait(&s->calls_done, &s->calls_lock);
	pthread_mutex_unlock(&s->calls_lock);
	return call.r;
}

static int call_add(struct serve *s, void *ctx)
{
	struct added *added = ctx;

	if (s->nr_wanted == SERVE_MAX_REGIONS)
		return -EMFILE;
	struct serve_region w = {.name = strdup(added->name),
		.path = added->path,
		.size_bytes = added->size_bytes,
		.region = added->region,
		.came = true};

	if (!w.name)
		return -ENOMEM;
	added->path = NULL;
	if (!w.path)
		serve_keep_promises(s, &w);
	s->wanted[s->nr_wanted++] = w;
	serve_hold(s, &s->wanted[s->nr_wanted - 1]);
	return 0;
}

static int call_forget(struct serve *s, void *ctx)
{
	for (unsigned i = 0; i < s->nr_wanted; i++) {
		struct serve_region *w = &s->wanted[i];

		if (w->region != ctx)
			continue;
		if (w->keeper)
			weft_holder_drop(s->holder, w->region);
		if (w->came && w->path)
			serve_remove_file(w);
		weft_region_forget_promises(w->region);
		weft_region_put(w->region);
		serve_forget_wanted(s, w);
		break;
	}
	return 0;
}

static int make_file(struct serve *s, struct added *added, uint64_t epoch,
	const struct weft_transfer *transfer, struct weft_error *err)
{
	const struct weft_file_spec spec = {.directory = s->take_directory,
		.name = added->name,
		.size_bytes = added->size_bytes,
		.epoch = epoch,
		.transfer = *transfer};

	if (asprintf(&added->path, "%s/%s", s->take_directory, added->name) < 0) {
		added->path = NULL;
		return weft_error_set(err, ENOMEM, "no memory");
	}
	return weft_region_new_file(&spec, &added->region, err);
}

static int make_memory(const struct serve *s, struct added *added, uint64_t epoch, bool fills,
	struct weft_error *err)
{
	struct weft_memory_spec spec = {
		.name = added->name,
		.size_bytes = added->size_bytes,
		.hugepage_bytes = s->hugepage_bytes,
		.numa = s->numa,
		.numa_node = s->numa_node,
		.overcommit = s->overcommit,
		.epoch = epoch,
		.fills = fills,
	};

	return weft_region_new_memory(&spec, NULL, NULL, &added->region, err);
}

/* The slow part, taking memory or room, is the caller's thread's. */
int serve_make_region(void *ctx, const char *name, uint64_t size_bytes, uint64_t epoch,
	const struct weft_transfer *transfer, bool fills, struct weft_region **ret,
	struct weft_error *err)
{
	struct serve *s = ctx;
	struct added added = {.name = name, .size_bytes = size_bytes};
	int r = transfer ? make_file(s, &added, epoch, transfer, err)
			 : make_memory(s, &added, epoch, fills, err);

	if (r < 0) {
		free(added.path);
		return r;
	}
	weft_region_get(added.region); /* the program's, and the caller's */
	r = serve_call_main(s, call_add, &added);
	if (r == 0) {
		*ret = added.region;
		return 0;
	}
	if (added.path)
		unlink(added.path);
	free(added.path);
	weft_region_put(added.region);
	weft_region_put(added.region);
	return weft_error_set(err, -r, "region '%s' cannot be taken in: %s", name, strerror(-r));
}

int serve_forget_region(void *ctx, struct weft_region *region)
{
	return serve_call_main(ctx, call_forget, region);
}

static uint64_t room(void *ctx)
{
	struct serve *s = ctx;

	return s->room ? s->room(s) : UINT64_MAX;
}

int serve_open_moves(struct serve *s, struct weft_error *err)
{
	static const struct weft_moves_owner owner = {serve_make_region, serve_forget_region, room};
	char path[SERVE_NOTES_MAX];
	int r;

	pthread_mutex_init(&s->calls_lock, NULL);
	pthread_cond_init(&s->calls_done, NULL);
	r = serve_find_notes(s, serve_main_listening(s), path, err);
	if (r < 0)
		return r;
	const struct weft_moves_config config = {
		.donor = s->donor,
		.notes = path,
		.take_bytes = s->take_bytes,
		.take_directory = s->take_directory,
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

void serve_end_calls(struct serve *s)
{
	pthread_mutex_lock(&s->calls_lock);
	s->takes_calls = false;
	for (struct serve_call *call = s->calls; call; call = call->next) {
		call->r = -ESHUTDOWN;
		call->done = true;
	}
	s->calls = NULL;
	pthread_cond_broadcast(&s->calls_done);
	pthread_mutex_unlock(&s->calls_lock);
}

void serve_end_moves(struct serve *s)
{
	if (!s->moves)
		return;
	serve_end_calls(s);
	/* Connections may ask until the listeners have ended. */
	weft_moves_stop(s->moves);
}

int serve_answer_move(void *ctx, const struct weft_peer *peer, const json_t *question,
	json_t **ret_answer, struct weft_error *err)
{
	const struct serve *s = ctx;

	return weft_moves_question(s->moves, peer, question, ret_answer, err);
}
