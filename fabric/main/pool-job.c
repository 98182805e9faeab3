/* SPDX-License-Identifier: MIT */
/*
 * weft pool job-start and job-end: what the prolog and the epilog of a scheduler call.  Both may be
 * called again at any time, and come to an end within --wait: a node is never kept by a donor.
 * job-end fails only where a bridge or a swap space is left, so that the node needs somebody.  One
 * thread.
 *
 * A job's lease at a node is called job-JOB.NODE.FORM; FORM says what the node makes of it.  NODE
 * is "any" where the lease was made before it was known: it is for the first node.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/control.h"
#include "fabric/base/log.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/hello.h"
#include "fabric/main/pool.h"

enum {
	WAIT_MS = 25000, /* less than the 30 s that a scheduler may give */
	ANSWER_MS = 5000,
	ALIVE_MS = 1000,   /* for an answer of a bridge */
	DETACH_MS = 17000, /* weft detach waits for a bridge, then for its donor */
	DETACH_MIN_MS = 2000,
	ARGS_MAX = 24,
	TEXT_MAX = 400,
};
#define DIR_TOP "/run/weft-jobs"
#define NS_PER_MS UINT64_C(1000000)

enum form { FILE_FORM, DEVICE, SWAP, NR_FORMS };
static const char *const forms[NR_FORMS] = {
	[FILE_FORM] = "file",
	[DEVICE] = "device",
	[SWAP] = "swap",
};

/* What a job asks for, of each of its nodes. */
struct want {
	uint64_t size_bytes; /* 0: nothing */
	json_int_t copies;
	enum form form;
};

/* A job at this node. */
struct here {
	const struct pool_options *o;
	uint64_t end_ns;
	char node[WEFT_NAME_MAX + 1];
	char dir[PATH_MAX / 2];        /* of the job */
	char lease[WEFT_NAME_MAX + 1]; /* "": it has none here */
	enum form form;
	json_t *json; /* the lease */
};

/* ---- what is asked for ---- */

/* Behind "weft=" or "weft:", which begins a word; NULL: it is not there. */
static const char *find_wish(const char *text)
{
	for (const char *at = text; (at = strstr(at, "weft")); at++)
		if ((at == text || strchr(" \t,;", at[-1])) && (at[4] == '=' || at[4] == ':'))
			return at + 4;
	return NULL;
}

static int no_wish(const char *text, struct weft_error *err)
{
	return weft_error_set(err, EINVAL,
		"'%.100s' asks for nothing that there is: weft=SIZE[,copies=1|2|3]"
		"[,as=file|device|swap], or the licence weft:GIBIBYTES",
		text);
}

static bool take_part(const char *part, struct want *want)
{
	if (strncmp(part, "copies=", 7) == 0 && part[7] >= '1' && part[7] <= '3' && !part[8]) {
		want->copies = part[7] - '0';
		return true;
	}
	for (int i = 0; strncmp(part, "as=", 3) == 0 && i < NR_FORMS; i++)
		if (strcmp(part + 3, forms[i]) == 0) {
			want->form = (enum form)i;
			return true;
		}
	return false;
}

/* A licence is counted for the job, whose nodes share what it stands for. */
static int take_licence(const char *wish, unsigned nr_nodes, struct want *ret,
	struct weft_error *err)
{
	char *end;
	const unsigned long gib = strtoul(wish, &end, 10);

	if (!isdigit((unsigned char)wish[0]) || gib == 0 || gib > 1u << 20 ||
		(*end && *end != ',' && !isspace((unsigned char)*end)))
		return no_wish(wish, err);
	ret->size_bytes = weft_whole_pages(gib * WEFT_GIB / nr_nodes);
	return 0;
}

static int parse_want(const char *text, unsigned nr_nodes, struct want *ret, struct weft_error *err)
{
	const char *wish = text ? find_wish(text) : NULL;
	char buf[128], *at = buf, *part;

	*ret = (struct want){.copies = 1};
	if (!wish)
		return 0;
	if (wish[0] == ':')
		return take_licence(wish + 1, nr_nodes, ret, err);
	const size_t len = strcspn(wish + 1, " \t;");
	if (len >= sizeof(buf))
		return no_wish(text, err);
	snprintf(buf, sizeof(buf), "%.*s", (int)len, wish + 1);
	if (weft_parse_size(strsep(&at, ","), &ret->size_bytes) < 0 || ret->size_bytes == 0)
		return no_wish(text, err);
	while ((part = strsep(&at, ",")))
		if (!take_part(part, ret))
			return no_wish(text, err);
	if (ret->form == SWAP && ret->copies > 1)
		return weft_error_set(err, EINVAL, "swap space has one copy: '%.100s'", text);
	return 0;
}

/* ---- leases ---- */

static int remaining_ms(const struct here *h, int most)
{
	const uint64_t now = weft_now_ns();

	return now >= h->end_ns ? 1
				: (int)weft_min((h->end_ns - now) / NS_PER_MS + 1, (uint64_t)most);
}

static int lease_name(const char *job, const char *node, const char *form,
	char ret[WEFT_NAME_MAX + 1], struct weft_error *err)
{
	if (snprintf(ret, WEFT_NAME_MAX + 1, "job-%s.%s.%s", job, node, form) > WEFT_NAME_MAX)
		return weft_error_set(err, ENAMETOOLONG, "the name of node '%s' is too long", node);
	return 0;
}

static int ask_for(const struct here *h, struct pool_client *client, const struct want *want,
	const char *lease, struct weft_error *err)
{
	const struct pool_options *o = h->o;
	char path[512];
	json_t *ret,
		*wish = json_pack("{s:I, s:I, s:I, s:s, s:s*, s:s*}", "size_bytes",
			(json_int_t)want->size_bytes, "copies", want->copies, "idle_s",
			(json_int_t)(o->idle_ms / 1000), "job", o->job, "owner", o->owner,
			"project", o->project);
	int r = pool_client_ask(client, "PUT", pool_path("/v1/leases/*", lease, path), wish,
		remaining_ms(h, ANSWER_MS), &ret, err);
	json_decref(wish);
	if (r == 0)
		json_decref(ret);
	return r;
}

static int give_back(const struct here *h, struct pool_client *client, const char *lease,
	struct weft_error *err)
{
	char path[512], asked[530];
	json_t *ret;

	snprintf(asked, sizeof(asked), "%s?force=1", pool_path("/v1/leases/*", lease, path));
	int r = pool_client_ask(client, "DELETE", asked, NULL, remaining_ms(h, ANSWER_MS), &ret,
		err);
	if (r == 0)
		json_decref(ret);
	return r == -ENOENT ? 0 : r;
}

/* All of the job's leases, at all nodes, whoever has them attached. */
static int end_job(const struct here *h, struct pool_client *client, struct weft_error *err)
{
	char path[512], asked[530];
	json_t *ret;

	snprintf(asked, sizeof(asked), "%s?force=1", pool_path("/v1/jobs/*", h->o->job, path));
	int r = pool_client_ask(client, "DELETE", asked, NULL, remaining_ms(h, ANSWER_MS), &ret,
		err);
	if (r == 0)
		json_decref(ret);
	return r;
}

/* Whether the lease is one for this node; then *h says which. */
static bool take_lease(struct here *h, const char *name, const char *node)
{
	char wanted[WEFT_NAME_MAX + 1];

	for (int f = 0; f < NR_FORMS; f++)
		if (lease_name(h->o->job, node, forms[f], wanted, NULL) == 0 &&
			strcmp(name, wanted) == 0) {
			strcpy(h->lease, wanted);
			h->form = (enum form)f;
			return true;
		}
	return false;
}

/* The lease that the job has for this node, if it has one. */
static int find_lease(struct here *h, struct pool_client *client, struct weft_error *err)
{
	char path[512];
	json_t *answer, *one;
	size_t i;
	int r = pool_client_ask(client, "GET", pool_path("/v1/leases?job=*", h->o->job, path), NULL,
		remaining_ms(h, ANSWER_MS), &answer, err);

	if (r < 0)
		return r;
	json_array_foreach(json_object_get(answer, "leases"), i, one) {
		const char *name = json_string_value(json_object_get(one, "lease"));

		if (name && !take_lease(h, name, h->node) && h->o->is_first)
			take_lease(h, name, "any");
	}
	json_decref(answer);
	return 0;
}

/* ---- programs ---- */

/*
 * Bridges are no part of the scheduler's service, nor of the job: what ends either, ends no bridge.
 * In the child, so that nothing is called that could wait for a lock.
 */
static void leave_group(void)
{
	static const char *const groups[] = {"/sys/fs/cgroup/weft.slice",
		"/sys/fs/cgroup/unified/weft.slice"};
	char path[100];

	for (size_t i = 0; i < WEFT_ARRAY_LEN(groups); i++) {
		mkdir(groups[i], 0755);
		snprintf(path, sizeof(path), "%s/cgroup.procs", groups[i]);
		WEFT_CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd >= 0 && write(fd, "0\n", 2) == 2)
			return;
	}
}

/* The exit status of a program beside this one, -ETIMEDOUT after it was killed, or -errno. */
static int run(const char *name, char *const *args, int timeout_ms)
{
	static char slice[] = "--slice=weft.slice";
	char program[PATH_MAX], *argv[ARGS_MAX + 6];
	const bool managed = sd_booted() > 0;
	int status, n = 0;
	int r = weft_program_beside(name, program, sizeof(program));

	if (r < 0)
		return r;
	if (managed)
		for (char *const *word = (char *[]){"systemd-run", "--scope", "--quiet",
			     "--collect", slice, NULL};
			*word; word++)
			argv[n++] = *word;
	argv[n++] = program;
	while (*args && n < ARGS_MAX + 5)
		argv[n++] = *args++;
	argv[n] = NULL;
	const pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		setpgid(0, 0);
		if (!managed)
			leave_group();
		execvp(argv[0], argv);
		_exit(127);
	}
	setpgid(pid, pid);
	WEFT_CLEANUP_CLOSE int fd = pidfd_open(pid, 0);
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	while ((r = poll(&ready, 1, timeout_ms)) < 0 && errno == EINTR)
		;
	if (r == 0)
		kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (r == 0)
		return -ETIMEDOUT;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
}

/* The bridge's process; 0: there is none; or -errno: it does not answer. */
static pid_t bridge_of(const char *name, json_t **ret_status)
{
	char socket[WEFT_NAME_MAX + 20];
	json_t *status, *question = json_pack("{s:s}", "op", "status");

	snprintf(socket, sizeof(socket), "attach-%s.sock", name);
	int r = weft_control_ask(socket, question, ALIVE_MS, &status, NULL);
	json_decref(question);
	if (r < 0)
		return r == -ENOENT || r == -ECONNREFUSED ? 0 : r;
	const pid_t pid = (pid_t)json_integer_value(json_object_get(status, "pid"));
	if (ret_status)
		*ret_status = status;
	else
		json_decref(status);
	return pid > 0 ? pid : -EPROTO;
}

/* ---- what the job finds ---- */

static int in_dir(const struct here *h, const char *name, char ret[PATH_MAX])
{
	return snprintf(ret, PATH_MAX, "%s/%s", h->dir, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

__attribute__((format(printf, 3, 4))) static int write_file(const struct here *h, const char *name,
	const char *fmt, ...)
{
	char path[PATH_MAX], fresh[PATH_MAX];
	va_list ap;
	int r = in_dir(h, name, path);

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

static int make_dir(const struct here *h, struct weft_error *err)
{
	const char *top = h->o->dir ? h->o->dir : DIR_TOP;

	if ((mkdir(top, 0711) < 0 && errno != EEXIST) ||
		(mkdir(h->dir, 0711) < 0 && errno != EEXIST)) {
		int r = -errno;

		return weft_error_set(err, -r, "cannot make %s: %s", h->dir, strerror(-r));
	}
	return 0;
}

/* The job cannot have what it asked for, which its environment says.  The node can do without. */
static void tell_job(const struct here *h, const struct want *want, const struct weft_error *why)
{
	char text[TEXT_MAX], word[4 * TEXT_MAX + 3];

	snprintf(text, sizeof(text), "%s", why->message);
	fprintf(stderr, "weft-pool: job %s: %s\n", h->o->job, text);
	/* Whether it asked for anything is not known otherwise. */
	if ((h->lease[0] || want->size_bytes) && make_dir(h, NULL) == 0)
		write_file(h, "env", "export WEFT_ERROR=%s\n",
			weft_shell_word(weft_printable(text), word));
}

/* ---- the start ---- */

static int tell_run(const struct here *h, const char *what, int r, struct weft_error *err)
{
	if (r == 0)
		return 0;
	return weft_error_set(err, r < 0 ? -r : EIO, "lease '%s': weft %s %s", h->lease, what,
		r == -ETIMEDOUT ? "took too long"
				: "failed; what it said is in the log of the prolog");
}

static int attach(const struct here *h, struct weft_error *err)
{
	char from[WEFT_NAME_MAX + 8], file[PATH_MAX], owner[80];
	char *args[ARGS_MAX] = {from, "--name", (char *)h->lease}, **arg = args + 3;
	const struct pool_options *o = h->o;

	snprintf(from, sizeof(from), "pool:%s", h->lease);
	if (in_dir(h, "memory", file) < 0)
		return weft_error_set(err, ENAMETOOLONG, "%s is too long", h->dir);
	if (h->form == FILE_FORM) {
		*arg++ = "--mount";
		*arg++ = file;
		if (o->owner) {
			snprintf(owner, sizeof(owner), "%s", o->owner);
			*arg++ = "--allow-other";
			*arg++ = "--owner";
			*arg++ = owner;
		}
	} else {
		*arg++ = "--device";
	}
	if (o->allow_insecure)
		*arg++ = "--allow-insecure";
	return tell_run(h, "attach", run("weft-attach", args, remaining_ms(h, WAIT_MS)), err);
}

static int swap_on(const struct here *h, struct weft_error *err)
{
	const json_t *region = json_array_get(json_object_get(h->json, "regions"), 0);
	const char *uri = json_string_value(json_object_get(region, "uri"));
	char *args[ARGS_MAX] = {"on", (char *)uri, "--name", (char *)h->lease}, **arg = args + 4;

	if (!uri)
		return weft_error_set(err, EIO, "lease '%s' is nowhere", h->lease);
	if (h->o->cgroup) {
		*arg++ = "--cgroup";
		*arg++ = (char *)h->o->cgroup;
	}
	if (h->o->allow_insecure)
		*arg++ = "--allow-insecure";
	return tell_run(h, "swap", run("weft-swap", args, remaining_ms(h, WAIT_MS)), err);
}

/* A device becomes its owner's. */
static int give_device(const struct here *h, char ret[PATH_MAX])
{
	json_t *status = NULL;
	const pid_t pid = bridge_of(h->lease, &status);
	const char *path = json_string_value(json_object_get(status, "device"));
	const struct passwd *user = h->o->owner ? getpwnam(h->o->owner) : NULL;
	int r = pid <= 0 || !path ? -ENODEV : h->o->owner && !user ? -EINVAL : 0;

	if (r == 0 && user && chown(path, user->pw_uid, user->pw_gid) < 0)
		r = -errno;
	if (r == 0)
		snprintf(ret, PATH_MAX, "%s", path);
	json_decref(status);
	return r;
}

/* Where the job finds it: a line for its shell. */
static int tell_where(const struct here *h, struct weft_error *err)
{
	static const char *const variables[] = {"WEFT_FILE", "WEFT_DEVICE", "WEFT_SWAP"};
	char where[PATH_MAX];
	int r = 0;

	if (h->form == SWAP)
		snprintf(where, sizeof(where), "%s", h->lease);
	else if (h->form == DEVICE)
		r = give_device(h, where);
	else
		r = in_dir(h, "memory", where);
	if (r == 0)
		r = write_file(h, "env", "export %s=%s\nexport WEFT_BYTES=%lld\n",
			variables[h->form], where,
			json_integer_value(json_object_get(h->json, "size_bytes")));
	return r < 0 ? weft_error_set(err, -r, "the job cannot be told where its memory is: %s",
			       strerror(-r))
		     : 0;
}

/* Donors make it; *h->json is what it is in the end. */
static int wait_ready(struct here *h, struct pool_client *client, struct weft_error *err)
{
	char path[512];
	json_t *now;

	pool_path("/v1/leases/*", h->lease, path);
	for (;;) {
		int r = pool_client_ask(client, "GET", path, NULL, remaining_ms(h, ANSWER_MS), &now,
			err);
		if (r < 0 && r != -EHOSTUNREACH)
			return r;
		if (r == 0) {
			json_decref(h->json);
			h->json = now;
			const char *state = json_string_value(json_object_get(now, "state"));
			if (state && strcmp(state, "ready") == 0)
				return 0;
			if (!state || strcmp(state, "making") != 0)
				return weft_error_set(err, EIO, "lease '%s' is %s", h->lease,
					state ? state : "unknown");
		}
		if (weft_now_ns() >= h->end_ns)
			return weft_error_set(err, ETIMEDOUT, "lease '%s' is not made in time",
				h->lease);
		nanosleep(&(struct timespec){.tv_nsec = 100000000L}, NULL);
	}
}

static int begin_here(const struct pool_options *o, struct here *h, struct weft_error *err)
{
	*h = (struct here){
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
	return 0;
}

/* Whatever fails here is the job's matter, and none of the node's. */
static int start_here(struct here *h, struct pool_client *client, const struct want *want,
	struct weft_error *err)
{
	int r = find_lease(h, client, err);

	if (r == 0 && !h->lease[0] && want->size_bytes) {
		h->form = want->form;
		r = lease_name(h->o->job, h->node, forms[h->form], h->lease, err);
		if (r == 0)
			r = ask_for(h, client, want, h->lease, err);
	}
	if (r < 0 || !h->lease[0])
		return r;
	r = make_dir(h, err);
	if (r == 0) /* for job-end, should nobody else know by then */
		r = write_file(h, "lease", "%s\n", h->lease);
	if (r == 0)
		r = wait_ready(h, client, err);
	if (r == 0 && bridge_of(h->lease, NULL) <= 0)
		r = h->form == SWAP ? swap_on(h, err) : attach(h, err);
	return r == 0 ? tell_where(h, err) : r;
}

/* Leases for all nodes, before any of them is told of the job; all of them, or none. */
static int lease_for_nodes(struct here *h, struct pool_client *client, const struct want *want,
	struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *list = strdup(h->o->nodes);
	char lease[WEFT_NAME_MAX + 1], *at = list, *node;
	struct weft_error unused;
	int r = list ? 0 : weft_error_set(err, ENOMEM, "no memory");

	while (r == 0 && (node = strsep(&at, ","))) {
		if (!node[0])
			continue;
		r = lease_name(h->o->job, node, forms[want->form], lease, err);
		if (r == 0)
			r = ask_for(h, client, want, lease, err);
	}
	if (r < 0)
		end_job(h, client, &unused);
	return r;
}

static unsigned count_nodes(const char *list)
{
	unsigned nr = 1;

	for (const char *p = list ? list : ""; *p; p++)
		nr += *p == ',' && p[1];
	return nr;
}

int pool_job_start(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	const char *text = o->want ? o->want : getenv("SPANK_WEFT");
	struct want want;
	struct here h;
	int r = begin_here(o, &h, err);

	if (r == 0)
		r = parse_want(text, count_nodes(o->nodes), &want, err);
	if (r < 0)
		return r;
	if (o->nodes)
		return want.size_bytes ? lease_for_nodes(&h, client, &want, err) : 0;
	r = start_here(&h, client, &want, err);
	json_decref(h.json);
	if (r < 0)
		tell_job(&h, &want, err);
	return 0;
}

/* ---- the end ---- */

static void read_lease(struct here *h)
{
	char path[PATH_MAX], *dot;
	FILE *f = in_dir(h, "lease", path) == 0 ? fopen(path, "re") : NULL;

	if (!f)
		return;
	if (fgets(h->lease, sizeof(h->lease), f))
		h->lease[strcspn(h->lease, "\n")] = '\0';
	fclose(f);
	dot = strrchr(h->lease, '.');
	for (int i = 0; dot && i < NR_FORMS; i++)
		if (strcmp(dot + 1, forms[i]) == 0)
			h->form = (enum form)i;
	if (!weft_name_valid(h->lease))
		h->lease[0] = '\0';
}

/* The bridge goes, whatever it waits for.  Whether none is left. */
static bool detach(const struct here *h)
{
	char *args[] = {"--force", (char *)h->lease, NULL};
	char file[PATH_MAX];
	pid_t pid = bridge_of(h->lease, NULL);

	/* Nobody finds it any more, whoever has it open. */
	if (h->form == FILE_FORM && in_dir(h, "memory", file) == 0)
		umount2(file, MNT_DETACH);
	/* Once more clears away what was killed. */
	for (int i = 0; i < 2; i++) {
		run("weft-detach", args,
			(int)weft_max((uint64_t)remaining_ms(h, DETACH_MS), DETACH_MIN_MS));
		if (bridge_of(h->lease, NULL) == 0)
			return true;
		if (pid > 0)
			kill(pid, SIGKILL);
	}
	return bridge_of(h->lease, NULL) == 0;
}

/*
 * weft swap notes what it makes before it makes it, until nothing of it is left.  A space may be
 * left without a bridge, which another bridge can take over (weft-swap(1)).
 */
static bool is_swap_left(const struct here *h)
{
	char path[PATH_MAX];

	if (weft_run_dir(path, sizeof(path)) < 0)
		return true;
	const size_t n = strlen(path);
	snprintf(path + n, sizeof(path) - n, "/swap-%s.json", h->lease);
	return access(path, F_OK) == 0 || errno != ENOENT;
}

static bool swap_off(const struct here *h)
{
	char *args[] = {"off", "--force", (char *)h->lease, NULL};

	if (!is_swap_left(h))
		return true;
	run("weft-swap", args, remaining_ms(h, WAIT_MS));
	return !is_swap_left(h);
}

static void remove_dir(const struct here *h)
{
	static const char *const files[] = {"memory", "env", "lease"};
	char path[PATH_MAX];

	for (size_t i = 0; i < WEFT_ARRAY_LEN(files); i++)
		if (in_dir(h, files[i], path) == 0)
			unlink(path);
	rmdir(h->dir);
}

/*
 * Other processes may have pages in a swap space, so that it ends before its lease does.  All else
 * is the job's alone: its lease goes first, so that a bridge writes nothing back that nobody needs.
 */
int pool_job_end(struct pool_options *o, struct pool_client *client, struct weft_error *err)
{
	struct weft_error why = {0};
	struct here h;
	int r = begin_here(o, &h, err);

	if (r < 0)
		return r;
	read_lease(&h);
	if (!h.lease[0])
		find_lease(&h, client, &why);
	if (h.lease[0] && h.form == SWAP && !swap_off(&h))
		return weft_error_set(err, EBUSY, "swap space '%s' is left", h.lease);
	if (h.lease[0] && give_back(&h, client, h.lease, &why) < 0)
		weft_warn("job %s: %s; the lease ends by itself", o->job, why.message);
	if (h.lease[0] && h.form != SWAP && !detach(&h))
		return weft_error_set(err, EBUSY, "the bridge of '%s' is left", h.lease);
	remove_dir(&h);
	return 0;
}
