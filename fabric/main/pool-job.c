/* SPDX-License-Identifier: MIT */
/*
 * weft pool job-start and job-end: what the prolog and the epilog of a scheduler call.  Both may be
 * called again at any time, and come to an end within --wait: a node is never kept by a donor.
 * At a node job-start does not fail for what is the job's matter, and job-end fails only where a
 * bridge or a swap space is left, so that the node needs somebody.  One thread.
 *
 * A job's lease at a node is called job-JOB.NODE.FORM; FORM says what the node makes of it.  NODE
 * is "any" where the lease was made before it was known: it is for the first node.  Nobody but an
 * administrator of the pool makes leases of such names.
 */
#include "fabric/main/pool-job.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"

enum {
	WAIT_MS = 25000, /* less than the 30 s that a scheduler may give */
	ANSWER_MS = 5000,
	FIND_MS = 17000, /* longer than another coordinator takes to lead */
	AGAIN_MS = 200,
	TEXT_MAX = 400,
};
#define DIR_TOP "/run/weft-jobs"
#define NS_PER_MS UINT64_C(1000000)

/* ---- leases ---- */

static int lease_name(const char *job, const char *node, const char *form,
	char ret[WEFT_NAME_MAX + 1], struct weft_error *err)
{
	if (snprintf(ret, WEFT_NAME_MAX + 1, "job-%s.%s.%s", job, node, form) > WEFT_NAME_MAX)
		return weft_error_set(err, ENAMETOOLONG, "the name of node '%s' is too long", node);
	return 0;
}

/*
 * Asks until somebody answers who leads, or until then.  All that is asked may be asked again.
 * client NULL: there is none, and err says why.
 */
static int ask(struct pool_here *h, struct pool_client *client, const char *method,
	const char *path, const json_t *body, uint64_t end_ns, json_t **ret, struct weft_error *err)
{
	int r;

	if (!client)
		return -err->code;
	for (;;) {
		r = pool_client_ask(client, method, path, body,
			pool_here_remaining_ms(h, ANSWER_MS), ret, err);
		if ((r != -EHOSTUNREACH && r != -EIO) || weft_now_ns() >= end_ns)
			return r;
		nanosleep(&(struct timespec){.tv_nsec = AGAIN_MS * 1000000L}, NULL);
	}
}

static int ask_for(struct pool_here *h, struct pool_client *client, const struct pool_want *want,
	const char *lease, struct weft_error *err)
{
	const struct pool_options *o = h->o;
	char path[512];
	json_t *ret,
		*wish = json_pack("{s:I, s:I, s:I, s:s, s:s*, s:s*}", "size_bytes",
			(json_int_t)want->size_bytes, "copies", want->copies, "idle_s",
			(json_int_t)(o->idle_ms / 1000), "job", o->job, "owner", o->owner,
			"project", o->project);
	int r = ask(h, client, "PUT", pool_path("/v1/leases/*", lease, path), wish, h->end_ns, &ret,
		err);
	json_decref(wish);
	if (r == 0)
		json_decref(ret);
	return r;
}

/* Ends a lease, or all of a job at all nodes, whoever has it attached.  Asked once. */
static int give_back(struct pool_here *h, struct pool_client *client, const char *fmt,
	const char *name, struct weft_error *err)
{
	char path[512], asked[530];
	json_t *ret;

	snprintf(asked, sizeof(asked), "%s?force=1", pool_path(fmt, name, path));
	int r = ask(h, client, "DELETE", asked, NULL, 0, &ret, err);
	if (r == 0)
		json_decref(ret);
	return r == -ENOENT ? 0 : r;
}

static int take_lease(struct pool_here *h, const json_t *lease, struct weft_error *err)
{
	const char *owner = json_string_value(json_object_get(lease, "owner"));
	const char *name = json_string_value(json_object_get(lease, "lease"));

	if (!name || !owner || (h->o->owner && strcmp(owner, h->o->owner) != 0))
		return weft_error_set(err, EPERM,
			"the lease '%.80s' is of %.80s, and the job of %s", name ? name : "?",
			owner ? owner : "nobody", h->o->owner);
	snprintf(h->lease, sizeof(h->lease), "%s", name);
	return 0;
}

/* Of the names job-JOB.NODE.FORM, which follow each other in a list of names. */
static int find_of_node(struct pool_here *h, struct pool_client *client, const char *node,
	uint64_t end_ns, struct weft_error *err)
{
	char path[512], after[512], asked[1100], head[WEFT_NAME_MAX + 1];
	json_t *answer, *one;
	size_t i;
	int r = lease_name(h->o->job, node, "", head, err);

	if (r < 0)
		return r;
	snprintf(asked, sizeof(asked), "%s%s&most=%d",
		pool_path("/v1/leases?job=*", h->o->job, path), pool_path("&after=*", head, after),
		POOL_NR_FORMS);
	r = ask(h, client, "GET", asked, NULL, end_ns, &answer, err);
	if (r < 0)
		return r;
	json_array_foreach(json_object_get(answer, "leases"), i, one) {
		const char *name = json_string_value(json_object_get(one, "lease"));

		if (r == 0 && name && strncmp(name, head, strlen(head)) == 0 &&
			pool_form_parse(name + strlen(head), &h->form))
			r = take_lease(h, one, err);
	}
	json_decref(answer);
	return r;
}

/* The lease that the job has for this node, if it has one. */
static int find_lease(struct pool_here *h, struct pool_client *client, uint64_t end_ns,
	struct weft_error *err)
{
	int r = find_of_node(h, client, h->node, end_ns, err);

	return r == 0 && !h->lease[0] && h->o->is_first
		? find_of_node(h, client, "any", end_ns, err)
		: r;
}

/* ---- what the job finds ---- */

__attribute__((format(printf, 3, 4))) static int write_file(const struct pool_here *h,
	const char *name, const char *fmt, ...)
{
	char path[PATH_MAX], fresh[PATH_MAX];
	va_list ap;
	int r = pool_here_path(h, name, path);

	if (r == 0 && snprintf(fresh, sizeof(fresh), "%s/.%s", h->dir, name) >= PATH_MAX)
		r = -ENAMETOOLONG;
	FILE *f = r == 0 ? fopen(fresh, "we") : NULL;
	if (!f)
		return r < 0 ? r : -errno;
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	fchmod(fileno(f), 0644);
	if (fclose(f) != 0 || rename(fresh, path) < 0)
		return -errno;
	return 0;
}

static int make_dir(const struct pool_here *h, struct weft_error *err)
{
	const char *top = h->o->dir ? h->o->dir : DIR_TOP;

	if ((mkdir(top, 0711) < 0 && errno != EEXIST) ||
		(mkdir(h->dir, 0711) < 0 && errno != EEXIST)) {
		int r = -errno;

		return weft_error_set(err, -r, "cannot make %s: %s", h->dir, strerror(-r));
	}
	return 0;
}

/*
 * The job cannot have what it asked for, or, as nobody could be asked, it is not known whether it
 * did: its environment says so.  The node can do without.
 */
static void tell_job(const struct pool_here *h, bool asked, const struct weft_error *why)
{
	char text[TEXT_MAX], word[4 * TEXT_MAX + 3];

	snprintf(text, sizeof(text), "%s", why->message);
	fprintf(stderr, "weft-pool: job %s: %s\n", h->o->job, text);
	weft_shell_word(weft_printable(text), word);
	if (make_dir(h, NULL) == 0)
		write_file(h, "env", "export %s=%s\n", asked ? "WEFT_ERROR" : "WEFT_UNKNOWN", word);
}

/* Where the job finds it: a line for its shell. */
static int tell_where(const struct pool_here *h, struct weft_error *err)
{
	static const char *const variables[] = {"WEFT_FILE", "WEFT_DEVICE", "WEFT_SWAP"};
	char where[PATH_MAX];
	int r = pool_job_where(h, where, err);

	if (r < 0)
		return r;
	r = write_file(h, "env", "export %s=%s\nexport WEFT_BYTES=%lld\n", variables[h->form],
		where, json_integer_value(json_object_get(h->json, "size_bytes")));
	return r < 0 ? weft_error_set(err, -r, "the job cannot be told where its memory is: %s",
			       strerror(-r))
		     : 0;
}

static void remove_dir(const struct pool_here *h)
{
	static const char *const files[] = {"memory", "env", "lease"};
	char path[PATH_MAX];

	for (size_t i = 0; i < WEFT_ARRAY_LEN(files); i++)
		if (pool_here_path(h, files[i], path) == 0)
			unlink(path);
	rmdir(h->dir);
}

/* ---- the start ---- */

/* Of donors that a coordinator has not heard of yet, and that may report. */
static bool may_become_ready(const char *state)
{
	return strcmp(state, "making") == 0 || strcmp(state, "silent") == 0 ||
		strcmp(state, "degraded") == 0;
}

/* Donors make it; *h->json is what it is in the end. */
static int wait_ready(struct pool_here *h, struct pool_client *client, struct weft_error *err)
{
	const char *state = "not made";
	char path[512];
	json_t *now;

	pool_path("/v1/leases/*", h->lease, path);
	while (weft_now_ns() < h->end_ns) {
		int r = ask(h, client, "GET", path, NULL, h->end_ns, &now, err);
		if (r < 0)
			return r;
		json_decref(h->json);
		h->json = now;
		state = json_string_value(json_object_get(now, "state"));
		if (!state)
			state = "unknown";
		if (strcmp(state, "ready") == 0)
			return 0;
		if (!may_become_ready(state))
			return weft_error_set(err, EIO, "lease '%s' is %s", h->lease, state);
		nanosleep(&(struct timespec){.tv_nsec = AGAIN_MS * 1000000L}, NULL);
	}
	return weft_error_set(err, ETIMEDOUT, "lease '%s' is not ready in time: it is %s", h->lease,
		state);
}

static int begin_here(const struct pool_options *o, struct pool_here *h, struct weft_error *err)
{
	*h = (struct pool_here){
		.o = o,
		.end_ns = weft_now_ns() + (o->has_wait ? o->wait_ms : WAIT_MS) * NS_PER_MS,
	};
	const char *node = o->node ? o->node : getenv("SLURMD_NODENAME");
	if (node)
		snprintf(h->node, sizeof(h->node), "%s", node);
	else
		gethostname(h->node, sizeof(h->node) - 1);
	if (!node)
		h->node[strcspn(h->node, ".")] = '\0';
	if (!weft_name_valid(o->job) || !weft_name_valid(h->node) || o->job[0] == '.')
		return weft_error_set(err, EINVAL, "'%.60s' at '%.60s' is no job at a node", o->job,
			h->node);
	if (snprintf(h->dir, sizeof(h->dir), "%s/%s", o->dir ? o->dir : DIR_TOP, o->job) >=
		(int)sizeof(h->dir))
		return weft_error_set(err, ENAMETOOLONG, "%s is too long", o->dir);
	/* weft attach asks the same coordinator. */
	if (o->at.url)
		setenv("WEFT_POOL", o->at.url, 1);
	if (o->at.key)
		setenv("WEFT_KEY", o->at.key, 1);
	if (o->at.certificates)
		setenv("WEFT_POOL_CERTIFICATES", o->at.certificates, 1);
	return 0;
}

/* Swap space is not its job's alone, but whoever's that swaps, unless a group is named. */
static int check_form(const struct pool_options *o, enum pool_form form, struct weft_error *err)
{
	if (form != POOL_SWAP || o->allow_swap || o->cgroup)
		return 0;
	return weft_error_set(err, EPERM,
		"jobs get no swap space here: that needs --allow-swap, or --cgroup");
}

/* A new lease for this node, unless the job has one. */
static int have_lease(struct pool_here *h, struct pool_client *client, const struct pool_want *want,
	struct weft_error *err)
{
	if (h->lease[0] || !want->is_asked)
		return 0;
	h->form = want->form;
	int r = lease_name(h->o->job, h->node, pool_form_name(h->form), h->lease, err);
	if (r == 0)
		r = check_form(h->o, h->form, err);
	return r < 0 ? r : ask_for(h, client, want, h->lease, err);
}

static int use_lease(struct pool_here *h, struct pool_client *client, struct weft_error *err)
{
	int r = check_form(h->o, h->form, err);

	if (r == 0)
		r = make_dir(h, err);
	if (r == 0) { /* for job-end, should nobody else know by then */
		r = write_file(h, "lease", "%s\n", h->lease);
		if (r < 0)
			r = weft_error_set(err, -r, "cannot write to %s: %s", h->dir, strerror(-r));
	}
	if (r == 0)
		r = wait_ready(h, client, err);
	if (r == 0)
		r = pool_job_attach(h, err);
	return r == 0 ? tell_where(h, err) : r;
}

/* Whatever fails here is the job's matter, and none of the node's. */
static void start_here(struct pool_here *h, struct pool_client *client, const char *text,
	struct weft_error *err)
{
	struct pool_want want;
	int r = pool_want_parse(text, 1, &want, err);

	if (r < 0) {
		tell_job(h, true, err);
		return;
	}
	/* Who is not known to ask is not held up for as long as that. */
	r = find_lease(h, client,
		want.is_asked ? h->end_ns
			      : weft_min(h->end_ns, weft_now_ns() + FIND_MS * NS_PER_MS),
		err);
	const bool is_known = r == 0 || h->lease[0] || want.is_asked || r == -EPERM;
	if (r == 0)
		r = have_lease(h, client, &want, err);
	if (r == 0 && h->lease[0])
		r = use_lease(h, client, err);
	else if (r == 0)
		remove_dir(h); /* of an earlier try */
	if (r < 0)
		tell_job(h, is_known, err);
}

/* ---- the start, for all nodes ---- */

static unsigned count_nodes(const char *list)
{
	unsigned nr = 0;

	for (const char *p = list; *p; p++)
		nr += *p != ',' && (p == list || p[-1] == ',');
	return nr;
}

/* Leases for all nodes, before any of them is told of the job; all of them, or none. */
static int lease_for_nodes(struct pool_here *h, struct pool_client *client,
	const struct pool_want *want, struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *list = strdup(h->o->nodes);
	char lease[WEFT_NAME_MAX + 1], *at = list, *node;
	struct weft_error unused;
	int r = list ? check_form(h->o, want->form, err) : weft_error_set(err, ENOMEM, "no memory");

	while (r == 0 && (node = strsep(&at, ","))) {
		if (!node[0])
			continue;
		r = lease_name(h->o->job, node, pool_form_name(want->form), lease, err);
		if (r == 0)
			r = ask_for(h, client, want, lease, err);
	}
	if (r < 0 && client)
		give_back(h, client, "/v1/jobs/*", h->o->job, &unused);
	return r;
}

static int start_for_nodes(struct pool_here *h, struct pool_client *client, const char *text,
	struct weft_error *err)
{
	const unsigned nr = count_nodes(h->o->nodes);
	struct weft_error why;
	struct pool_want want;
	int r = pool_want_parse(text, weft_max(nr, 1u), &want, &why);

	if (r < 0)
		return weft_error_set(err, why.code, "%s", why.message);
	if (!want.is_asked)
		return 0;
	if (nr == 0)
		return weft_error_set(err, EINVAL, "--nodes names no node");
	return lease_for_nodes(h, client, &want, err);
}

int pool_job_start(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	const char *text = o->want ? o->want : getenv("SPANK_WEFT");
	struct pool_here h;
	struct weft_error why;
	int r = begin_here(o, &h, &why);

	if (r < 0)
		return weft_error_set(err, why.code, "%s", why.message);
	if (o->nodes)
		return start_for_nodes(&h, client, text, err);
	start_here(&h, client, text, err);
	json_decref(h.json);
	return 0;
}

/* ---- the end ---- */

static void read_lease(struct pool_here *h)
{
	char path[PATH_MAX], *dot;
	FILE *f = pool_here_path(h, "lease", path) == 0 ? fopen(path, "re") : NULL;

	if (!f)
		return;
	if (fgets(h->lease, sizeof(h->lease), f))
		h->lease[strcspn(h->lease, "\n")] = '\0';
	fclose(f);
	dot = strrchr(h->lease, '.');
	if (!dot || !pool_form_parse(dot + 1, &h->form) || !weft_name_valid(h->lease))
		h->lease[0] = '\0';
}

/*
 * Other processes may have pages in a swap space, so that it ends before its lease does.  All else
 * is the job's alone: its lease goes first, so that a bridge writes nothing back that nobody needs.
 */
int pool_job_end(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	struct pool_here h;
	struct weft_error why;
	int r = begin_here(o, &h, &why);

	if (r < 0)
		return weft_error_set(err, why.code, "%s", why.message);
	read_lease(&h);
	if (!h.lease[0])
		find_lease(&h, client, 0, err);
	if (h.lease[0] && h.form == POOL_SWAP && !pool_job_swap_off(&h))
		return weft_error_set(err, EBUSY, "swap space '%s' is left", h.lease);
	if (h.lease[0] && give_back(&h, client, "/v1/leases/*", h.lease, err) < 0)
		weft_warn("job %s: %s; the lease ends by itself", o->job, err->message);
	if (h.lease[0] && h.form != POOL_SWAP && !pool_job_detach(&h))
		return weft_error_set(err, EBUSY, "the bridge of '%s' is left", h.lease);
	remove_dir(&h);
	return 0;
}
