/* SPDX-License-Identifier: MIT */
/* What is made of a job's lease at this node, by other programs of weft's, and how it ends. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "fabric/base/control.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/main/pool-job.h"

enum {
	ALIVE_MS = 1000,   /* for an answer of a bridge */
	DETACH_MS = 17000, /* weft detach waits for a bridge, then for its donor */
	DETACH_MIN_MS = 2000,
	ARGS_MAX = 24,
};
#define NS_PER_MS UINT64_C(1000000)

int pool_here_remaining_ms(const struct pool_here *h, int most)
{
	const uint64_t now = weft_now_ns();

	return now >= h->end_ns ? 1
				: (int)weft_min((h->end_ns - now) / NS_PER_MS + 1, (uint64_t)most);
}

int pool_here_path(const struct pool_here *h, const char *name, char ret[PATH_MAX])
{
	return snprintf(ret, PATH_MAX, "%s/%s", h->dir, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
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

pid_t pool_job_bridge(const struct pool_here *h, json_t **ret_status)
{
	char socket[WEFT_NAME_MAX + 20];
	json_t *status, *question = json_pack("{s:s}", "op", "status");

	snprintf(socket, sizeof(socket), "attach-%s.sock", h->lease);
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

static int tell_run(const struct pool_here *h, const char *what, int r, struct weft_error *err)
{
	if (r == 0)
		return 0;
	return weft_error_set(err, r < 0 ? -r : EIO, "lease '%s': weft %s %s", h->lease, what,
		r == -ETIMEDOUT ? "took too long"
				: "failed; what it said is in the log of the prolog");
}

static int map(const struct pool_here *h, struct weft_error *err)
{
	char from[WEFT_NAME_MAX + 8], file[PATH_MAX], owner[80];
	char *args[ARGS_MAX] = {from, "--name", (char *)h->lease}, **arg = args + 3;
	const struct pool_options *o = h->o;

	snprintf(from, sizeof(from), "pool:%s", h->lease);
	if (pool_here_path(h, "memory", file) < 0)
		return weft_error_set(err, ENAMETOOLONG, "%s is too long", h->dir);
	if (h->form == POOL_FILE) {
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
	int r = run("weft-attach", args, pool_here_remaining_ms(h, INT_MAX));
	return tell_run(h, "attach", r, err);
}

static int swap_on(const struct pool_here *h, struct weft_error *err)
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
	int r = run("weft-swap", args, pool_here_remaining_ms(h, INT_MAX));
	return tell_run(h, "swap", r, err);
}

int pool_job_attach(const struct pool_here *h, struct weft_error *err)
{
	if (pool_job_bridge(h, NULL) > 0)
		return 0;
	return h->form == POOL_SWAP ? swap_on(h, err) : map(h, err);
}

/* A device becomes its owner's; its bridge takes it back. */
static int give_device(const struct pool_here *h, char ret[PATH_MAX])
{
	json_t *status = NULL;
	const pid_t pid = pool_job_bridge(h, &status);
	const char *path = json_string_value(json_object_get(status, "device"));
	const struct passwd *user = h->o->owner ? getpwnam(h->o->owner) : NULL;
	int r = pid <= 0 || !path ? -ENODEV : h->o->owner && !user ? -EINVAL : 0;

	if (r == 0 && user && chown(path, user->pw_uid, (gid_t)-1) < 0)
		r = -errno;
	if (r == 0)
		snprintf(ret, PATH_MAX, "%s", path);
	json_decref(status);
	return r;
}

int pool_job_where(const struct pool_here *h, char ret[PATH_MAX], struct weft_error *err)
{
	int r = 0;

	if (h->form == POOL_SWAP)
		snprintf(ret, PATH_MAX, "%s", h->lease);
	else if (h->form == POOL_DEVICE)
		r = give_device(h, ret);
	else
		r = pool_here_path(h, "memory", ret);
	return r < 0 ? weft_error_set(err, -r, "the job cannot be told where its memory is: %s",
			       strerror(-r))
		     : 0;
}

/* ---- the end ---- */

bool pool_job_detach(const struct pool_here *h)
{
	char *args[] = {"--force", (char *)h->lease, NULL};
	char file[PATH_MAX];
	pid_t pid = pool_job_bridge(h, NULL);

	/* Nobody finds it any more, whoever has it open. */
	if (h->form == POOL_FILE && pool_here_path(h, "memory", file) == 0)
		umount2(file, MNT_DETACH);
	/* Once more clears away what was killed. */
	for (int i = 0; i < 2; i++) {
		run("weft-detach", args,
			weft_max(pool_here_remaining_ms(h, DETACH_MS), DETACH_MIN_MS));
		if (pool_job_bridge(h, NULL) == 0)
			return true;
		if (pid > 0)
			kill(pid, SIGKILL);
	}
	return pool_job_bridge(h, NULL) == 0;
}

/*
 * weft swap notes what it makes before it makes it, until nothing of it is left.  A space may be
 * left without a bridge, which another bridge can take over (weft-swap(1)).
 */
static bool is_swap_left(const struct pool_here *h)
{
	char path[PATH_MAX];

	if (weft_run_dir(path, sizeof(path)) < 0)
		return true;
	const size_t n = strlen(path);
	snprintf(path + n, sizeof(path) - n, "/swap-%s.json", h->lease);
	return access(path, F_OK) == 0 || errno != ENOENT;
}

bool pool_job_swap_off(const struct pool_here *h)
{
	char *args[] = {"off", "--force", (char *)h->lease, NULL};

	if (!is_swap_left(h))
		return true;
	run("weft-swap", args, pool_here_remaining_ms(h, INT_MAX));
	return !is_swap_left(h);
}
