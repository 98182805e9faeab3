/* SPDX-License-Identifier: MIT */
/*
 * weft serve --pool: what a donor says to the coordinator of its pool each second, and does for it.
 * Two threads.
 *
 *   the reporter  says what there is, then ends, moves and orders what the answer tells it.  An
 *                 answer is carried out before the next report is made, so that a report has all
 *                 that earlier answers led to.
 *   the maker     makes the regions that were ordered, which takes as long as their memory takes
 *                 to clear.  Until then the report says of them that they are being made.
 *
 * Without a coordinator everything that is lent stays lent.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "fabric/machine/available.h"
#include "fabric/machine/pressure.h"
#include "fabric/main/serve-pool.h"

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* ---- what there is ---- */

/* Whether others may have it: what was given to another donor is kept for a moment. */
static bool is_ours(struct serve *s, const struct serve_region *w)
{
	struct weft_region *region;

	if (w->waits)
		return true;
	if (weft_donor_find(s->donor, NULL, w->name, &region, NULL, NULL) < 0)
		return false;
	weft_region_put(region);
	return true;
}

static void note_user(void *ctx, const struct weft_attachment_status *a)
{
	struct serve_pool *p = ctx;

	if (a->nr_sessions == 0 && a->lease_left_ms == 0)
		return;
	for (unsigned i = 0; i < p->nr_has; i++)
		if (strcmp(p->has[i].name, a->region) == 0 && !p->has[i].user[0])
			snprintf(p->has[i].user, sizeof(p->has[i].user), "%s", a->name);
}

/* On the main thread. */
static int look(struct serve *s, void *ctx)
{
	struct serve_pool *p = ctx;

	for (unsigned i = 0; i < s->nr_wanted && p->nr_has < HAS_MAX; i++) {
		const struct serve_region *w = &s->wanted[i];
		struct has *has = &p->has[p->nr_has];

		if (!w->region || !serve_pool_has_name(w->name) || !is_ours(s, w))
			continue;
		*has = (struct has){
			.size_bytes = w->region->size_bytes,
			.epoch = w->region->epoch,
			.region = weft_region_get(w->region),
		};
		strcpy(has->name, w->name);
		p->nr_has++;
	}
	weft_donor_status(s->donor, note_user, p);
	return 0;
}

static void forget_look(struct serve_pool *p)
{
	while (p->nr_has > 0)
		weft_region_put(p->has[--p->nr_has].region);
}

/* ---- how much is lent ---- */

static void decide(struct serve_pool *p, uint64_t having, uint64_t making)
{
	struct pool_lending lending = {.lent_bytes = p->wish->lend_bytes};
	struct weft_available available;

	if (p->wish->idle) {
		struct pool_machine machine = {
			.reserve_bytes = p->wish->reserve_bytes,
			.lent_bytes = having + making,
			.making_bytes = making,
			.stalled_percent = weft_memory_stalled(""),
			.was_pressed = p->lending.pressed,
		};

		if (weft_available("", p->serve->hugepage_bytes, -1, &available) == 0)
			machine.available_bytes = available.bytes;
		lending = pool_lend_idle(&machine);
	}
	if (lending.pressed != p->lending.pressed)
		weft_info("%s",
			lending.pressed ? "this machine's own jobs need memory: nothing new is lent"
					: "there is memory to lend again");
	if (lending.give_back_bytes == 0)
		p->missed_since_ns = 0;
	else if (!p->missed_since_ns)
		p->missed_since_ns = weft_now_ns();
	p->lending = lending;
	p->used_bytes = having + making;
}

/* ---- the report ---- */

static json_t *has_json(const struct has *has)
{
	char epoch[17];

	snprintf(epoch, sizeof(epoch), "%016" PRIx64, has->epoch);
	return json_pack("{s:s, s:I, s:s, s:b}", "name", has->name, "size_bytes",
		(json_int_t)has->size_bytes, "epoch", epoch, "used", has->user[0] != '\0');
}

/* Takes the jobs first: one that ends meanwhile is among the regions. */
static json_t *make_report(struct serve_pool *p)
{
	json_t *regions = json_array();
	uint64_t having = 0, making = 0;
	char names[JOBS_MAX][REGION_LEN + 1];
	unsigned nr_names = 0;

	pthread_mutex_lock(&p->lock);
	for (; nr_names < p->nr_jobs; nr_names++) {
		const struct job *job = &p->jobs[nr_names];

		strcpy(names[nr_names], job->name);
		making += job->size_bytes;
		json_array_append_new(regions,
			json_pack("{s:s, s:I, s:b}", "name", job->name, "size_bytes",
				(json_int_t)job->size_bytes, "making", true));
	}
	json_t *refused = p->refused;
	p->refused = json_array();
	pthread_mutex_unlock(&p->lock);
	if (serve_call_main(p->serve, look, p) < 0) {
		json_decref(regions);
		json_decref(refused);
		return NULL;
	}
	for (unsigned i = 0; i < p->nr_has; i++) {
		bool listed = false;

		for (unsigned j = 0; j < nr_names; j++)
			listed |= strcmp(names[j], p->has[i].name) == 0;
		if (listed)
			continue;
		having += p->has[i].size_bytes;
		json_array_append_new(regions, has_json(&p->has[i]));
	}
	pthread_mutex_lock(&p->lock);
	decide(p, having, making);
	const struct pool_lending lending = p->lending;
	pthread_mutex_unlock(&p->lock);
	json_t *stays = p->stays;
	p->stays = json_array();
	return json_pack("{s:s, s:s?, s:I, s:I, s:I, s:b, s:I, s:o, s:o, s:o}", "uri", p->uri,
		"rack", p->wish->rack, "since", (json_int_t)p->since, "nr",
		(json_int_t)++p->nr_reports, "lent_bytes", (json_int_t)lending.lent_bytes,
		"pressed", lending.pressed, "give_back_bytes", (json_int_t)lending.give_back_bytes,
		"regions", regions, "refused", refused, "stays", stays);
}

/* ---- threads ---- */

static bool has_ended(void *ctx)
{
	struct serve_pool *p = ctx;

	pthread_mutex_lock(&p->lock);
	const bool ends = p->ends;
	pthread_mutex_unlock(&p->lock);
	return ends;
}

/* Told once each: that the coordinator is not there, and that it is again. */
static void tell(struct serve_pool *p, int r, const struct weft_error *err)
{
	pthread_mutex_lock(&p->lock);
	const bool was_joined = p->joined, new_trouble = strcmp(p->trouble, err->message) != 0;
	p->joined = r == 0;
	snprintf(p->trouble, sizeof(p->trouble), "%s", r == 0 ? "" : err->message);
	pthread_mutex_unlock(&p->lock);
	if (r == 0 && !was_joined)
		weft_info("this donor is in the pool of %s, as '%s'", p->wish->url, p->name);
	else if (r < 0 && r != -ECANCELED && new_trouble)
		weft_warn("the pool does not hear of this donor, and what is lent stays lent: %s",
			err->message);
}

static void report(struct serve_pool *p, const char *path)
{
	struct weft_error err = {0};
	json_t *answer = NULL, *body;

	p->is_busy = false;
	serve_pool_see_moves(p);
	body = make_report(p);
	if (!body)
		return;
	int r = pool_client_ask(p->client, "POST", path, body, ANSWER_MS, &answer, &err);
	json_decref(body);
	tell(p, r, &err);
	if (r == 0)
		serve_pool_carry_out(p, answer);
	json_decref(answer);
	if (p->wish->deadline_ms && p->missed_since_ns &&
		weft_now_ns() - p->missed_since_ns > p->wish->deadline_ms * NS_PER_MS)
		serve_pool_give_up(p);
	forget_look(p); /* what ended is free now */
}

/* Whether the machine's own jobs have begun to need what is lent. */
static bool is_short(const struct serve_pool *p)
{
	struct weft_available available;

	return weft_available("", p->serve->hugepage_bytes, -1, &available) == 0 &&
		available.bytes < p->wish->reserve_bytes;
}

/* Until the next report is due, or the end; under the lock. */
static void wait_for_next(struct serve_pool *p, uint64_t next_ns)
{
	const bool looks = p->wish->idle && p->used_bytes > 0 && !p->missed_since_ns;
	bool is_over = false;

	while (!p->ends && !is_over && weft_now_ns() < next_ns) {
		const uint64_t look_ns = weft_now_ns() + LOOK_MS * NS_PER_MS;

		is_over = !weft_cond_wait_until(&p->changed, &p->lock,
				  looks ? weft_min(look_ns, next_ns) : next_ns) &&
			looks && is_short(p);
	}
}

static void *run_reporter(void *ctx)
{
	struct serve_pool *p = ctx;
	char path[120];

	snprintf(path, sizeof(path), "/v1/donors/%s", p->name);
	while (!has_ended(p)) {
		const uint64_t begin_ns = weft_now_ns();

		report(p, path);
		for (unsigned i = 0; i < MOVES_MAX; i++)
			p->is_busy |= p->leaving[i].pid != 0;
		pthread_mutex_lock(&p->lock);
		p->is_busy |= p->nr_jobs > 0 ||
			(p->missed_since_ns &&
				begin_ns - p->missed_since_ns < HURRY_MS * NS_PER_MS);
		const uint64_t next_ns =
			begin_ns + (p->is_busy ? SOON_MS * NS_PER_MS : POOL_REPORT_S * NS_PER_S);
		wait_for_next(p, next_ns);
		pthread_mutex_unlock(&p->lock);
	}
	return NULL;
}

static void make(struct serve_pool *p, const struct job *job)
{
	struct weft_region *region;
	struct weft_error err;
	char size[32];
	int r = serve_make_region(p->serve, job->name, job->size_bytes, 0, NULL, false, &region,
		&err);

	if (r == 0) {
		r = weft_donor_add(p->serve->donor, region, &err);
		if (r < 0)
			serve_forget_region(p->serve, region);
		weft_region_put(region);
	}
	if (r == 0)
		weft_info("region '%s' (%s) is made for the pool", job->name,
			weft_format_size(job->size_bytes, size, sizeof(size)));
	else if (r != -ESHUTDOWN)
		weft_warn("region '%s' cannot be made for the pool: %s", job->name, err.message);
	pthread_mutex_lock(&p->lock);
	if (r < 0)
		serve_pool_append(p->refused, job->name, err.message);
	struct job *done = serve_pool_find_job(p, job->name);
	if (done)
		serve_pool_remove_job(p, done);
	pthread_mutex_unlock(&p->lock);
}

static void *run_maker(void *ctx)
{
	struct serve_pool *p = ctx;

	pthread_mutex_lock(&p->lock);
	while (!p->ends) {
		if (p->nr_jobs == 0) {
			weft_cond_wait_until(&p->changed, &p->lock, UINT64_MAX);
			continue;
		}
		p->jobs[0].under_way = true;
		const struct job job = p->jobs[0];
		pthread_mutex_unlock(&p->lock);
		make(p, &job);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* ---- life ---- */

static int name_donor(struct serve_pool *p, struct weft_error *err)
{
	char host[POOL_NAME_MAX + 1] = "";

	if (!p->wish->name && gethostname(host, sizeof(host) - 1) == 0)
		host[strcspn(host, ".")] = '\0';
	snprintf(p->name, sizeof(p->name), "%s", p->wish->name ? p->wish->name : host);
	if (!p->name[0] || (p->wish->name && strcmp(p->name, p->wish->name) != 0) ||
		p->name[strspn(p->name,
			"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			"0123456789._-")])
		return weft_error_set(err, EINVAL,
			"'%.80s' is no name of a donor: up to %d of a-z A-Z 0-9 . _ -; say another "
			"with --pool-name",
			p->wish->name ? p->wish->name : host, POOL_NAME_MAX);
	return 0;
}

static uint64_t room(struct serve *s)
{
	struct serve_pool *p = s->pool;

	pthread_mutex_lock(&p->lock);
	const uint64_t ret = serve_pool_most(p) - weft_min(p->used_bytes, serve_pool_most(p));
	pthread_mutex_unlock(&p->lock);
	return ret;
}

int serve_open_pool(struct serve *s, struct weft_error *err)
{
	const struct serve_pool_wish *wish = &s->pool_wish;
	const struct pool_client_config config = {
		.url = wish->url,
		.key = wish->key,
		.certificates = s->tls_certificates,
	};
	const struct weft_listening *l = serve_main_listening(s);
	struct timespec now;

	if (!wish->url)
		return 0;
	if (l->socket[0])
		return weft_error_set(err, EINVAL,
			"a pool's leases are used over the network: say --listen ADDRESS");
	struct serve_pool *p = calloc(1, sizeof(*p));
	if (!p)
		return weft_error_set(err, ENOMEM, "no memory");
	p->serve = s;
	p->wish = wish;
	pthread_mutex_init(&p->lock, NULL);
	weft_cond_init(&p->changed);
	p->refused = json_array();
	p->stays = json_array();
	clock_gettime(CLOCK_REALTIME, &now);
	p->since = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
	s->pool = p;
	int r = name_donor(p, err);
	if (r == 0)
		r = pool_client_new(&config, &p->client, err);
	if (r < 0)
		return r;
	snprintf(p->uri, sizeof(p->uri), strchr(l->host, ':') ? "weft://[%s]:%s" : "weft://%s:%s",
		l->host, l->port);
	pool_client_give_up(p->client, has_ended, p);
	/* Regions come from other donors of the pool, too: as much as is lent, whoever counts; of
	 * what is idle, room() says how much that is now. */
	if (p->wish->idle)
		s->room = room;
	if (!s->take_bytes)
		s->take_bytes = p->wish->idle ? INT64_MAX : p->wish->lend_bytes;
	return 0;
}

int serve_start_pool(struct serve *s, struct weft_error *err)
{
	struct serve_pool *p = s->pool;

	if (!p)
		return 0;
	int r = weft_thread_create(&p->reporter, NULL, run_reporter, p);
	p->nr_threads += r == 0;
	if (r == 0)
		r = weft_thread_create(&p->maker, NULL, run_maker, p);
	p->nr_threads += r == 0;
	return r < 0 ? weft_error_set(err, -r, "cannot join the pool: %s", strerror(-r)) : 0;
}

void serve_end_pool(struct serve *s)
{
	struct serve_pool *p = s->pool;

	if (!p)
		return;
	serve_end_calls(s);
	pthread_mutex_lock(&p->lock);
	p->ends = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	if (p->nr_threads > 0)
		pthread_join(p->reporter, NULL);
	if (p->nr_threads > 1)
		pthread_join(p->maker, NULL);
	p->nr_threads = 0;
}

void serve_free_pool(struct serve *s)
{
	struct serve_pool *p = s->pool;

	if (!p)
		return;
	pool_client_free(p->client);
	json_decref(p->refused);
	json_decref(p->stays);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p);
	s->pool = NULL;
}

void serve_print_pool(const struct serve *s)
{
	char size[32];

	if (s->pool && s->pool_wish.idle)
		printf("pool %s: '%s' lends all but %s of what is available\n", s->pool_wish.url,
			s->pool->name,
			weft_format_size(s->pool_wish.reserve_bytes, size, sizeof(size)));
	else if (s->pool)
		printf("pool %s: '%s' lends %s\n", s->pool_wish.url, s->pool->name,
			weft_format_size(s->pool_wish.lend_bytes, size, sizeof(size)));
}

json_t *serve_pool_json(const struct serve *s)
{
	struct serve_pool *p = s->pool;

	if (!p)
		return json_null();
	pthread_mutex_lock(&p->lock);
	json_t *json = json_pack("{s:s, s:s, s:b, s:s?, s:I, s:I, s:b, s:I}", "url", p->wish->url,
		"donor", p->name, "joined", p->joined, "why", p->trouble[0] ? p->trouble : NULL,
		"lent_bytes", (json_int_t)p->lending.lent_bytes, "used_bytes",
		(json_int_t)p->used_bytes, "pressed", p->lending.pressed, "give_back_bytes",
		(json_int_t)p->lending.give_back_bytes);
	pthread_mutex_unlock(&p->lock);
	return json;
}
