/* SPDX-License-Identifier: MIT */
#include "fabric/pool/api.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"

enum {
	WORDS_MAX = 5, /* of a path */
	LISTED_MAX = 1000,
};

/* A path's words: "v1", "leases", NAME. */
struct words {
	char text[256];
	const char *at[WORDS_MAX];
	unsigned nr;
};

struct asked {
	struct pool *pool;
	const struct pool_caller *caller;
	const struct pool_request *request;
	const char *name, *second; /* what stands for '*' in the path */
	json_t **ret;
	struct weft_error *err;
};

/* ---- errors ---- */

static const struct {
	int code;
	unsigned status;
} statuses[] = {
	{EACCES, 403},
	{ENOENT, 404},
	{EEXIST, 409},
	{EBUSY, 409},
	{ESTALE, 409},
	{EINVAL, 400},
	{ENOSPC, 507},
	{EDQUOT, 507},
	{ENOSYS, 404},
	{EFBIG, 413},
	{ENOMEM, 503},
	{EAGAIN, 503},
};

unsigned pool_api_error(const struct weft_error *err, json_t **ret)
{
	const char *name = strerrorname_np(err->code);

	*ret = json_pack("{s:s, s:s}", "error", err->message, "code", name ? name : "EIO");
	for (size_t i = 0; i < WEFT_ARRAY_LEN(statuses); i++)
		if (statuses[i].code == err->code)
			return statuses[i].status;
	return 500;
}

/* ---- arguments ---- */

static const char *argument(const struct asked *a, const char *key)
{
	return a->request->argument ? a->request->argument(a->request->ctx, key) : NULL;
}

static bool flag(const struct asked *a, const char *key)
{
	const char *text = argument(a, key);

	return text && strcmp(text, "1") == 0;
}

static int64_t number(const struct asked *a, const char *key, int64_t most, int64_t otherwise)
{
	const char *text = argument(a, key);
	const size_t digits = text ? strspn(text, "0123456789") : 0;

	if (digits == 0 || digits > 18 || text[digits])
		return otherwise;
	return (int64_t)weft_min((uint64_t)strtoll(text, NULL, 10), (uint64_t)most);
}

/* ---- what can be asked ---- */

static int get_status(const struct asked *a)
{
	return pool_status(a->pool, a->caller, a->ret, a->err);
}

static int get_donors(const struct asked *a)
{
	return pool_donors(a->pool, a->caller, a->ret, a->err);
}

static int post_donor(const struct asked *a)
{
	return pool_report(a->pool, a->caller, a->name, a->request->body, a->ret, a->err);
}

static int delete_donor(const struct asked *a)
{
	return pool_forget_donor(a->pool, a->caller, a->name, a->ret, a->err);
}

static int put_donor_state(const struct asked *a)
{
	const char *state = json_string_value(json_object_get(a->request->body, "state"));

	return pool_set_donor(a->pool, a->caller, a->name, state ? state : "", a->ret, a->err);
}

static int get_leases(const struct asked *a)
{
	const char *after = argument(a, "after");

	return pool_leases(a->pool, a->caller, argument(a, "job"), after ? after : "",
		number(a, "most", LISTED_MAX, LISTED_MAX), a->ret, a->err);
}

static int get_lease(const struct asked *a)
{
	return pool_lease(a->pool, a->caller, a->name, a->ret, a->err);
}

static int put_lease(const struct asked *a)
{
	return pool_alloc(a->pool, a->caller, a->name, a->request->body, a->ret, a->err);
}

static int delete_lease(const struct asked *a)
{
	return pool_release(a->pool, a->caller, a->name, flag(a, "force"), a->ret, a->err);
}

static int put_lease_size(const struct asked *a)
{
	return pool_resize(a->pool, a->caller, a->name, a->request->body, a->ret, a->err);
}

static int post_lease_move(const struct asked *a)
{
	return pool_move(a->pool, a->caller, a->name, a->request->body, a->ret, a->err);
}

static int delete_job(const struct asked *a)
{
	return pool_end_job(a->pool, a->caller, a->name, flag(a, "force"), a->ret, a->err);
}

static int get_quotas(const struct asked *a)
{
	return pool_quotas(a->pool, a->caller, a->ret, a->err);
}

static int put_quota(const struct asked *a)
{
	const json_t *bytes = json_object_get(a->request->body, "bytes");

	if (!json_is_null(bytes) && (!json_is_integer(bytes) || json_integer_value(bytes) < 0))
		return weft_error_set(a->err, EINVAL,
			"\"bytes\" are how many, or null: no quota");
	return pool_set_quota(a->pool, a->caller, a->name, a->second,
		json_is_null(bytes) ? -1 : json_integer_value(bytes), a->ret, a->err);
}

static int get_audit(const struct asked *a)
{
	return pool_audit(a->pool, a->caller, number(a, "after", INT64_MAX, 0),
		number(a, "most", LISTED_MAX, LISTED_MAX), a->ret, a->err);
}

static const struct {
	const char *method, *path;
	int (*fn)(const struct asked *a);
	bool body; /* is wanted */
} table[] = {
	{"GET", "v1/status", get_status, false},
	{"GET", "v1/donors", get_donors, false},
	{"POST", "v1/donors/*", post_donor, true},
	{"DELETE", "v1/donors/*", delete_donor, false},
	{"PUT", "v1/donors/*/state", put_donor_state, true},
	{"GET", "v1/leases", get_leases, false},
	{"GET", "v1/leases/*", get_lease, false},
	{"PUT", "v1/leases/*", put_lease, true},
	{"DELETE", "v1/leases/*", delete_lease, false},
	{"PUT", "v1/leases/*/size", put_lease_size, true},
	{"POST", "v1/leases/*/move", post_lease_move, true},
	{"DELETE", "v1/jobs/*", delete_job, false},
	{"GET", "v1/quotas", get_quotas, false},
	{"PUT", "v1/quotas/*/*", put_quota, true},
	{"GET", "v1/audit", get_audit, false},
};

/* ---- which of them ---- */

static bool split(const char *path, struct words *ret)
{
	if (path[0] != '/' || strlen(path) >= sizeof(ret->text))
		return false;
	strcpy(ret->text, path + 1);
	for (char *at = ret->text, *word; (word = strsep(&at, "/"));) {
		if (ret->nr == WORDS_MAX || !word[0])
			return false;
		ret->at[ret->nr++] = word;
	}
	return true;
}

/* Whether the words are those of the row's path. */
static bool matches(const struct words *words, const char *path, struct asked *a)
{
	const char *stars[2] = {NULL, NULL};
	unsigned i = 0, nr = 0;

	for (const char *at = path; *at; i++) {
		const size_t len = strcspn(at, "/");

		if (i == words->nr)
			return false;
		if (len == 1 && at[0] == '*')
			stars[nr++] = words->at[i];
		else if (strlen(words->at[i]) != len || strncmp(words->at[i], at, len) != 0)
			return false;
		at += len + (at[len] == '/');
	}
	a->name = stars[0];
	a->second = stars[1];
	return i == words->nr;
}

static int carry_out(struct asked *a)
{
	struct words words = {.nr = 0};
	bool is_path = false;

	if (!split(a->request->path, &words))
		return weft_error_set(a->err, ENOENT, "there is no such path");
	for (size_t i = 0; i < WEFT_ARRAY_LEN(table); i++) {
		if (!matches(&words, table[i].path, a))
			continue;
		is_path = true;
		if (strcmp(table[i].method, a->request->method) != 0)
			continue;
		if (table[i].body && !json_is_object(a->request->body))
			return weft_error_set(a->err, EINVAL,
				"the body is to be an object of JSON");
		return table[i].fn(a);
	}
	return weft_error_set(a->err, ENOSYS,
		is_path ? "that cannot be done with this path" : "there is no such path");
}

unsigned pool_api(struct pool *pool, const struct pool_caller *caller,
	const struct pool_request *request, json_t **ret)
{
	struct weft_error err = {0};
	struct asked a = {pool, caller, request, .ret = ret, .err = &err};

	*ret = NULL;
	return carry_out(&a) == 0 ? 200 : pool_api_error(&err, ret);
}

/* ---- metrics ---- */

static void metric(FILE *out, const char *name, const char *help, json_int_t value)
{
	fprintf(out, "# HELP weft_pool_%s %s\n# TYPE weft_pool_%s gauge\nweft_pool_%s %lld\n", name,
		help, name, name, (long long)value);
}

static json_int_t number_of(const json_t *status, const char *first, const char *second)
{
	const json_t *at = json_object_get(status, first);

	return json_integer_value(second ? json_object_get(at, second) : at);
}

char *pool_api_metrics(struct pool *pool)
{
	const struct pool_caller caller = {.admin = true};
	json_t *s = NULL;
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	if (pool_status(pool, &caller, &s, NULL) == 0) {
		metric(out, "donors", "Donors that have joined.", number_of(s, "donors", "known"));
		metric(out, "donors_silent", "Donors that do not report.",
			number_of(s, "donors", "silent"));
		metric(out, "donors_pressed", "Donors that need memory for their own jobs.",
			number_of(s, "donors", "pressed"));
		metric(out, "lent_bytes", "Memory that donors lend.",
			number_of(s, "lent_bytes", NULL));
		metric(out, "used_bytes", "Memory that leases have.",
			number_of(s, "used_bytes", NULL));
		metric(out, "room_bytes", "Memory that new leases can have.",
			number_of(s, "room_bytes", NULL));
		metric(out, "leases", "Leases.", number_of(s, "leases", NULL));
		metric(out, "regions_wanted", "Regions that are not made yet.",
			number_of(s, "regions", "wanted"));
		metric(out, "regions_lost", "Regions whose donor has lost them.",
			number_of(s, "regions", "lost"));
		metric(out, "regions_unknown", "Regions at donors that belong to no lease.",
			number_of(s, "regions", "unknown"));
	}
	json_decref(s);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
