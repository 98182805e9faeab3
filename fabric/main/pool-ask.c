/* SPDX-License-Identifier: MIT */
/* What weft pool asks of a coordinator, and how it waits for donors.  One thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/patience.h"
#include "fabric/base/util.h"
#include "fabric/main/pool.h"

enum {
	ANSWER_MS = 30000,
	WAIT_MS = 60000,
	PAUSE_MS = 100,
	PAGE = 500, /* entries of a list at a time */
	TELL_MS = 5000,
	DETACHED_MS = 3000, /* until all donors have reported */
};
#define NS_PER_MS UINT64_C(1000000)

/* A path with a name in it, which is the user's: anything but plain letters is written as %XX. */
const char *pool_path(const char *fmt, const char *name, char ret[512])
{
	char plain[3 * 120 + 1];
	size_t n = 0;

	for (const char *p = name; *p && n + 3 < sizeof(plain); p++) {
		const bool is_plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			(*p >= '0' && *p <= '9') || strchr("-._", *p);

		n += (size_t)sprintf(plain + n, is_plain ? "%c" : "%%%02X", (unsigned char)*p);
	}
	plain[n] = '\0';
	for (n = 0; *fmt && n + sizeof(plain) < 512; fmt++)
		if (*fmt == '*')
			n += (size_t)sprintf(ret + n, "%s", plain);
		else
			ret[n++] = *fmt;
	ret[n] = '\0';
	return ret;
}

static int ask(struct pool_client *client, const char *method, const char *path, json_t *body,
	json_t **ret, struct weft_error *err)
{
	weft_patience_begin("weft-pool: waiting for an answer of %s, up to %d s (Ctrl-C gives up)",
		pool_client_url(client), ANSWER_MS / 1000);
	int r = pool_client_ask(client, method, path, body, ANSWER_MS, ret, err);
	weft_patience_end();
	json_decref(body);
	return r;
}

/* Asks, prints what is under the key of the answer (NULL: all of it), and forgets it. */
static int show(const struct pool_options *o, struct pool_client *client, const char *path,
	const char *key, void (*print)(const json_t *json), struct weft_error *err)
{
	json_t *answer;
	int r = ask(client, "GET", path, NULL, &answer, err);

	if (r < 0)
		return r;
	if (o->json)
		pool_print_json(answer);
	else
		print(key ? json_object_get(answer, key) : answer);
	json_decref(answer);
	return 0;
}

int pool_ask_status(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	return show(o, client, "/v1/status", NULL, pool_print_status, err);
}

int pool_ask_donors(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	return show(o, client, "/v1/donors", "donors", pool_print_donors, err);
}

int pool_ask_quotas(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	return show(o, client, "/v1/quotas", "quotas", pool_print_quotas, err);
}

/* ---- lists that come in pages ---- */

static int list_leases(const struct pool_options *o, struct pool_client *client, json_t *all,
	struct weft_error *err)
{
	char job[512] = "", path[1200], after[512] = "";
	json_t *answer;

	if (o->job)
		pool_path("&job=*", o->job, job);
	for (size_t nr = PAGE; nr == PAGE;) {
		snprintf(path, sizeof(path), "/v1/leases?most=%d%s%s", PAGE, job, after);
		int r = ask(client, "GET", path, NULL, &answer, err);

		if (r < 0)
			return r;
		const json_t *page = json_object_get(answer, "leases");
		nr = json_array_size(page);
		const char *last = nr > 0
			? json_string_value(json_object_get(json_array_get(page, nr - 1), "lease"))
			: NULL;
		pool_path("&after=*", last ? last : "", after);
		json_array_extend(all, (json_t *)page);
		json_decref(answer);
	}
	return 0;
}

int pool_ask_leases(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	char path[512];

	if (o->name)
		return show(o, client, pool_path("/v1/leases/*", o->name, path), NULL,
			pool_print_lease, err);
	json_t *all = json_array(), *json = json_pack("{s:O}", "leases", all);
	int r = json ? list_leases(o, client, all, err) : weft_error_set(err, ENOMEM, "no memory");
	if (r == 0 && o->json)
		pool_print_json(json);
	else if (r == 0)
		pool_print_leases(all);
	json_decref(json);
	json_decref(all);
	return r;
}

int pool_ask_audit(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	json_int_t after = o->after;
	char path[100];
	json_t *answer;

	for (size_t nr = PAGE; nr == PAGE;) {
		snprintf(path, sizeof(path), "/v1/audit?most=%d&after=%lld", PAGE, after);
		int r = ask(client, "GET", path, NULL, &answer, err);

		if (r < 0)
			return r;
		const json_t *page = json_object_get(answer, "audit"), *one;
		size_t i;
		nr = json_array_size(page);
		if (nr > 0)
			after = json_integer_value(
				json_object_get(json_array_get(page, nr - 1), "nr"));
		if (!o->json)
			pool_print_audit(page);
		/* A line for each, so that a reader need not wait for the last. */
		json_array_foreach(o->json ? page : NULL, i, one) {
			json_dumpf(one, stdout, JSON_COMPACT);
			putchar('\n');
		}
		json_decref(answer);
	}
	return 0;
}

/* ---- leases ---- */

static const char *text(const json_t *json, const char *key)
{
	const char *value = json_string_value(json_object_get(json, key));

	return value ? value : "";
}

static void rest(void)
{
	nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
}

static uint64_t wait_until(const struct pool_options *o)
{
	const uint64_t ms = o->has_wait ? o->wait_ms : WAIT_MS;

	return weft_now_ns() + ms * NS_PER_MS;
}

/* One that was begun is made, or is not: *io_lease is what there is to say of it in the end. */
static int wait_for_lease(const struct pool_options *o, struct pool_client *client,
	json_t **io_lease, struct weft_error *err)
{
	const uint64_t end = wait_until(o);
	char path[512];

	pool_path("/v1/leases/*", o->name, path);
	weft_patience_begin("weft-pool: waiting for donors to make '%s' (Ctrl-C gives up waiting)",
		o->name);
	while (strcmp(text(*io_lease, "state"), "making") == 0 && weft_now_ns() < end) {
		json_t *now;

		rest();
		int r = pool_client_ask(client, "GET", path, NULL, ANSWER_MS, &now, err);
		if (r == -EHOSTUNREACH) /* it may be started again */
			continue;
		if (r < 0) {
			weft_patience_end();
			return r == -ENOENT
				? weft_error_set(err, ENOENT,
					  "lease '%s' could not be made; weft pool audit "
					  "says why",
					  o->name)
				: r;
		}
		json_decref(*io_lease);
		*io_lease = now;
	}
	weft_patience_end();
	if (strcmp(text(*io_lease, "state"), "making") == 0)
		return weft_error_set(err, ETIMEDOUT,
			"lease '%s' is not made yet; donors go on: weft pool leases %s, or weft "
			"pool "
			"release %s",
			o->name, o->name, o->name);
	if (strcmp(text(*io_lease, "state"), "ready") == 0)
		return 0;
	return weft_error_set(err, EIO, "lease '%s' could not be made: %s", o->name,
		text(*io_lease, "why")[0] ? text(*io_lease, "why") : text(*io_lease, "state"));
}

static void put(json_t *json, const char *key, const char *value)
{
	if (value)
		json_object_set_new(json, key, json_string(value));
}

static json_t *wish_of(const struct pool_options *o)
{
	json_t *wish =
		json_pack("{s:I, s:i, s:I, s:b, s:b}", "size_bytes", (json_int_t)o->size_bytes,
			"copies", (int)o->copies, "idle_s", (json_int_t)((o->idle_ms + 999) / 1000),
			"dry_run", o->dry_run, "explain", o->explain);

	put(wish, "spread", o->spread);
	put(wish, "job", o->job);
	put(wish, "project", o->project);
	put(wish, "owner", o->owner);
	put(wish, "at", o->donor);
	return wish;
}

/* In the end.  r: what came before; takes the lease. */
static int show_lease(const struct pool_options *o, int r, json_t *lease)
{
	if (r == 0 && o->json)
		pool_print_json(lease);
	else if (r == 0)
		pool_print_lease(lease);
	json_decref(lease);
	return r;
}

/* What would be done, or why it cannot be. */
static int tell_trial(const struct pool_options *o, const json_t *answer, struct weft_error *err)
{
	const bool could = json_is_true(json_object_get(answer, "could"));

	if (o->json)
		pool_print_json(answer);
	else if (could)
		printf("lease '%s' could be made\n", o->name);
	return could ? 0 : weft_error_set(err, ENOSPC, "%s", text(answer, "why"));
}

int pool_ask_alloc(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	char path[512];
	json_t *lease;
	int r = ask(client, "PUT", pool_path("/v1/leases/*", o->name, path), wish_of(o), &lease,
		err);

	if (r < 0)
		return r;
	if (o->explain && !o->json)
		pool_print_explained(json_object_get(lease, "explained"));
	if (o->dry_run) {
		r = tell_trial(o, lease, err);
	} else {
		json_t *explained = json_incref(json_object_get(lease, "explained"));

		r = wait_for_lease(o, client, &lease, err);
		if (explained)
			json_object_set_new(lease, "explained", explained);
		return show_lease(o, r, lease);
	}
	json_decref(lease);
	return r;
}

int pool_ask_resize(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	char path[512];
	json_t *lease;
	int r = ask(client, "PUT", pool_path("/v1/leases/*/size", o->name, path),
		json_pack("{s:I, s:b}", "size_bytes", (json_int_t)o->size_bytes, "discard",
			o->discard),
		&lease, err);

	if (r < 0)
		return r;
	r = wait_for_lease(o, client, &lease, err);
	return show_lease(o, r, lease);
}

/* Donors say once a second whether somebody has it attached: who has just detached it waits. */
static int ask_release(const struct pool_options *o, struct pool_client *client, const char *path,
	struct weft_error *err)
{
	const uint64_t end = weft_now_ns() + DETACHED_MS * NS_PER_MS;
	json_t *answer;
	int r;

	while ((r = ask(client, "DELETE", path, NULL, &answer, err)) == -EBUSY &&
		weft_now_ns() < end)
		rest();
	if (r == 0)
		json_decref(answer);
	return r;
}

/* All leases of a job; those that are attached end once they are not. */
static int release_job(const struct pool_options *o, struct pool_client *client,
	struct weft_error *err)
{
	char path[512], asked[520];
	json_t *answer;

	snprintf(asked, sizeof(asked), "%s%s", pool_path("/v1/jobs/*", o->job, path),
		o->force ? "?force=1" : "");
	int r = ask(client, "DELETE", asked, NULL, &answer, err);
	if (r < 0)
		return r;
	if (o->json)
		pool_print_json(answer);
	else
		printf("%lld leases of job '%s' end\n",
			json_integer_value(json_object_get(answer, "ended")), o->job);
	json_decref(answer);
	return 0;
}

static int tell_gone(const struct pool_options *o)
{
	if (o->json)
		printf("{\n  \"lease\": \"%s\",\n  \"state\": \"gone\"\n}\n", o->name);
	else
		printf("lease '%s' is released\n", o->name);
	return 0;
}

int pool_ask_release(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	const uint64_t end = wait_until(o);
	char path[512], asked[520];
	json_t *lease;

	if (!o->name)
		return release_job(o, client, err);
	pool_path("/v1/leases/*", o->name, path);
	snprintf(asked, sizeof(asked), "%s%s", path, o->force ? "?force=1" : "");
	int r = ask_release(o, client, asked, err);
	if (r < 0)
		return r;
	weft_patience_begin("weft-pool: waiting for donors to end '%s' (Ctrl-C gives up waiting)",
		o->name);
	for (; weft_now_ns() < end; rest()) {
		r = pool_client_ask(client, "GET", path, NULL, ANSWER_MS, &lease, err);
		if (r == 0)
			json_decref(lease);
		else if (r != -EHOSTUNREACH)
			break;
	}
	weft_patience_end();
	if (r == -ENOENT)
		return tell_gone(o);
	return r < 0 ? r
		     : weft_error_set(err, ETIMEDOUT,
			       "lease '%s' is not gone yet: a donor is silent, or somebody has it "
			       "attached; it goes by itself",
			       o->name);
}

/* Where its copies are: what weft attach asks for. */
int pool_ask_uris(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	const json_t *region;
	char path[512];
	json_t *lease;
	size_t i;
	int r = ask(client, "GET", pool_path("/v1/leases/*", o->name, path), NULL, &lease, err);

	if (r < 0)
		return r;
	const char *state = text(lease, "state");
	if (strcmp(state, "ready") != 0 && strcmp(state, "degraded") != 0 &&
		strcmp(state, "silent") != 0)
		r = weft_error_set(err, EAGAIN, "lease '%s' is %s%s%s", o->name, state,
			text(lease, "why")[0] ? ": " : "", text(lease, "why"));
	if (r == 0 && o->json)
		pool_print_json(lease);
	json_array_foreach(json_object_get(lease, "regions"), i, region)
		if (r == 0 && !o->json && strcmp(text(region, "state"), "there") == 0)
			puts(text(region, "uri"));
	json_decref(lease);
	return r;
}

/* ---- donors ---- */

static void tell_drain(const struct pool_options *o, const json_t *donor)
{
	char size[32];

	fprintf(stderr, "weft-pool: %lld regions with %s are to leave %s\n",
		json_integer_value(json_object_get(donor, "regions")),
		weft_format_size((uint64_t)json_integer_value(json_object_get(donor, "used_bytes")),
			size, sizeof(size)),
		o->name);
}

static int find_donor(const struct pool_options *o, struct pool_client *client, json_t **ret,
	struct weft_error *err)
{
	json_t *answer, *one;
	size_t i;
	int r = pool_client_ask(client, "GET", "/v1/donors", NULL, ANSWER_MS, &answer, err);

	if (r < 0)
		return r;
	*ret = NULL;
	json_array_foreach(json_object_get(answer, "donors"), i, one)
		if (strcmp(text(one, "donor"), o->name) == 0)
			*ret = json_incref(one);
	json_decref(answer);
	return *ret ? 0 : weft_error_set(err, ENOENT, "there is no donor '%s'", o->name);
}

static int wait_for_drain(const struct pool_options *o, struct pool_client *client,
	json_t **io_donor, struct weft_error *err)
{
	const uint64_t begin = weft_now_ns(), end = o->has_wait ? wait_until(o) : UINT64_MAX;
	uint64_t told = begin - (TELL_MS - 1000) * NS_PER_MS;

	while (json_integer_value(json_object_get(*io_donor, "regions")) > 0) {
		json_t *now;

		if (weft_now_ns() >= end)
			return weft_error_set(err, ETIMEDOUT,
				"%s is not empty yet; the rest goes on leaving it", o->name);
		if (weft_now_ns() - told >= TELL_MS * NS_PER_MS) {
			told = weft_now_ns();
			tell_drain(o, *io_donor);
		}
		rest();
		int r = find_donor(o, client, &now, err);
		if (r == -EHOSTUNREACH)
			continue;
		if (r < 0)
			return r;
		json_decref(*io_donor);
		*io_donor = now;
	}
	return 0;
}

int pool_ask_donor_state(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	static const struct {
		const char *action, *state, *told;
	} states[] = {
		{"cordon", "cordoned", "gets nothing new"},
		{"drain", "draining", "is empty, and gets nothing new"},
		{"open", "open", "gets leases again"},
	};
	char path[512];
	json_t *donor;
	size_t i = 0;

	while (strcmp(states[i].action, o->action) != 0)
		i++;
	int r = ask(client, "PUT", pool_path("/v1/donors/*/state", o->name, path),
		json_pack("{s:s}", "state", states[i].state), &donor, err);
	if (r < 0)
		return r;
	if (strcmp(o->action, "drain") == 0)
		r = wait_for_drain(o, client, &donor, err);
	if (r == 0 && o->json)
		pool_print_json(donor);
	else if (r == 0)
		printf("donor '%s' %s\n", o->name, states[i].told);
	json_decref(donor);
	return r;
}

int pool_ask_forget(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	char path[512];
	json_t *answer;
	int r = ask(client, "DELETE", pool_path("/v1/donors/*", o->name, path), NULL, &answer, err);

	if (r < 0)
		return r;
	json_decref(answer);
	if (!o->json)
		printf("donor '%s' is forgotten\n", o->name);
	else
		printf("{\n  \"donor\": \"%s\",\n  \"state\": \"forgotten\"\n}\n", o->name);
	return 0;
}

int pool_ask_quota(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	char path[512];
	json_t *answer;
	int r = ask(client, "PUT",
		pool_path(o->is_project ? "/v1/quotas/project/*" : "/v1/quotas/user/*", o->name,
			path),
		json_pack("{s:o}", "bytes",
			o->none ? json_null() : json_integer((json_int_t)o->size_bytes)),
		&answer, err);

	if (r < 0)
		return r;
	if (o->json)
		pool_print_json(answer);
	else
		pool_print_quotas(json_object_get(answer, "quotas"));
	json_decref(answer);
	return 0;
}

/* Where the lease's copies are on their way to. */
static json_t *targets_of(const json_t *lease)
{
	const json_t *region;
	json_t *ret = json_object();
	size_t i;

	json_array_foreach(json_object_get(lease, "regions"), i, region)
		if (text(region, "moving_to")[0])
			json_object_set(ret, text(region, "region"),
				json_object_get(region, "moving_to"));
	return ret;
}

/* Whether those that are not on their way any more have arrived. */
static int check_arrived(const char *name, const json_t *lease, const json_t *targets,
	struct weft_error *err)
{
	const json_t *region;
	size_t i;

	json_array_foreach(json_object_get(lease, "regions"), i, region) {
		const char *to = text(targets, text(region, "region"));

		if (to[0] && !text(region, "moving_to")[0] &&
			strcmp(text(region, "donor"), to) != 0)
			return weft_error_set(err, EIO,
				"copy %d of '%s' did not move to %s, and is at %s; weft pool "
				"audit says why",
				(int)json_integer_value(json_object_get(region, "copy")),
				name, to, text(region, "donor"));
	}
	return 0;
}

int pool_ask_move(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	const uint64_t end = wait_until(o);
	json_t *wish = json_pack("{s:i}", "copy", (int)o->copy), *lease;
	char path[512];

	put(wish, "to", o->to);
	int r = ask(client, "POST", pool_path("/v1/leases/*/move", o->name, path), wish, &lease,
		err);
	if (r < 0)
		return r;
	json_t *targets = targets_of(lease);
	pool_path("/v1/leases/*", o->name, path);
	weft_patience_begin("weft-pool: waiting for donors to move '%s' (Ctrl-C gives up waiting)",
		o->name);
	for (bool moves = true; r == 0 && moves;) {
		const json_t *region;
		size_t i;

		moves = false;
		json_array_foreach(json_object_get(lease, "regions"), i, region)
			moves |= text(region, "moving_to")[0] != '\0';
		if (!moves || weft_now_ns() >= end)
			break;
		rest();
		json_decref(lease);
		lease = NULL;
		r = pool_client_ask(client, "GET", path, NULL, ANSWER_MS, &lease, err);
	}
	weft_patience_end();
	if (r == 0 && weft_now_ns() >= end)
		r = weft_error_set(err, ETIMEDOUT, "lease '%s' is still moving; donors go on",
			o->name);
	else if (r == 0)
		r = check_arrived(o->name, lease, targets, err);
	json_decref(targets);
	return show_lease(o, r, lease);
}
