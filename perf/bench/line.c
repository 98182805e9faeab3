/* SPDX-License-Identifier: MIT */
/*
 * A line made for a run: weft line, with a donor of its own at the far end, and this process at the
 * near one.  One thread, before the run and after it: it changes the namespaces of the thread that
 * calls it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/bench/bench.h"

enum { MAX_WORDS = 24 };

pid_t bench_daemon_spawn(const char *const argv[], int ns, int *ret_out)
{
	pid_t parent = getpid(), pid;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		/* Ctrl-C is for the bench, which ends what it started in order. */
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != parent)
			_exit(127);
		dup2(fds[1], STDOUT_FILENO);
		dup2(fds[1], STDERR_FILENO);
		if (ns < 0 || setns(ns, CLONE_NEWNET) == 0)
			execvp(argv[0], (char *const *)argv);
		dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	close(fds[1]);
	if (pid < 0)
		close(fds[0]);
	else
		*ret_out = fds[0];
	return pid < 0 ? -errno : pid;
}

/* Reads until it says that it is ready, into said.  0, or -EIO: it ended. */
static int wait_until_ready(int out, char *said, size_t len)
{
	size_t have = 0;

	for (;;) {
		ssize_t n = read(out, said + have, len - 1 - have);

		if (n < 0 && errno == EINTR && !bench_stop)
			continue;
		if (n <= 0)
			break;
		have += (size_t)n;
		said[have] = '\0';
		if (strstr(said, "ready\n"))
			return 0;
	}
	said[have] = '\0';
	return -EIO;
}

int bench_daemon_start(const char *const argv[], int ns, const char *what, struct bench_daemon *ret,
	char *said, size_t len, struct weft_error *err)
{
	pid_t pid = bench_daemon_spawn(argv, ns, &ret->out);

	if (pid < 0)
		return weft_error_set(err, -pid, "cannot start %s: %s", what, strerror(-pid));
	ret->pid = pid;
	if (wait_until_ready(ret->out, said, len) == 0)
		return 0;
	return weft_error_set(
		err, EIO, "there is no %s: %.*s", what, (int)strcspn(said, "\n"), said);
}

void bench_daemon_end(struct bench_daemon *daemon)
{
	if (daemon->pid > 0) {
		kill(daemon->pid, SIGTERM);
		while (waitpid(daemon->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	daemon->pid = 0;
	weft_cleanup_close(&daemon->out);
	daemon->out = -1;
}

/* "delay=1ms,loss=0.1%" as options of weft line. */
static void split(const char *options, char *text, const char **argv, unsigned n)
{
	for (const char *at = options; *at && n < MAX_WORDS - 1; at += strspn(at, ",")) {
		size_t len = strcspn(at, ",");

		argv[n++] = text;
		text += sprintf(text, "--%.*s", (int)len, at) + 1;
		at += len;
	}
	argv[n] = NULL;
}

static int start_line(const char *options, struct bench_line *line, char *said, size_t len,
	struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *text = malloc(4 * strlen(options) + 1);
	const char *argv[MAX_WORDS] = {"", "--stats", line->stats};
	char path[PATH_MAX];

	if (!text)
		return weft_error_set(err, ENOMEM, "out of memory");
	bench_program("weft-line", path);
	argv[0] = path;
	split(options, text, argv, 3);
	return bench_daemon_start(argv, -1, "line", &line->line, said, len, err);
}

static int enter(const char *path, int type)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd >= 0 && setns(fd, type) == 0 ? 0 : -errno;
}

/* This process to the near end; the far end's namespace into line->far. */
static int enter_line(struct bench_line *line, const char *said, struct weft_error *err)
{
	const char *near_line = strstr(said, "near "), *far_line = strstr(said, "far ");
	char near_path[64], far_path[64], user[64];
	int r = 0;

	if (!near_line || !far_line ||
		sscanf(near_line, "near %63s %*s %63s", line->near_address, near_path) != 2 ||
		sscanf(far_line, "far %63s %*s %63s", line->far_address, far_path) != 2)
		return weft_error_set(err, EPROTO, "weft line does not say where its ends are");
	snprintf(user, sizeof(user), "/proc/%d/ns/user", (int)line->line.pid);
	if (geteuid() != 0)
		r = enter(user, CLONE_NEWUSER);
	if (r == 0)
		r = enter(near_path, CLONE_NEWNET);
	line->far = r == 0 ? open(far_path, O_RDONLY | O_CLOEXEC) : -1;
	if (line->far < 0)
		return weft_error_set(err, errno, "cannot enter the line: %s", strerror(errno));
	return 0;
}

static int start_donor(uint64_t bytes, struct bench_line *line, struct weft_error *err)
{
	char path[PATH_MAX], memory[48], said[4096];
	const char *const argv[] = {path, "--memory", memory, "--listen", line->far_address,
		"--allow-insecure", NULL};

	bench_program("weft-serve", path);
	snprintf(memory, sizeof(memory), "bench=%llu", (unsigned long long)bytes);
	return bench_daemon_start(argv, line->far, "donor", &line->donor, said, sizeof(said), err);
}

int bench_line_make(const char *options, struct bench_line *ret, struct weft_error *err)
{
	const char *tmp = getenv("TMPDIR");
	char said[4096];
	int r, fd;

	*ret = (struct bench_line){.line.out = -1, .donor.out = -1, .far = -1};
	snprintf(ret->stats, sizeof(ret->stats), "%s/weft-bench.XXXXXX",
		tmp && strlen(tmp) < 70 ? tmp : "/tmp");
	fd = mkstemp(ret->stats);
	if (fd < 0)
		return weft_error_set(
			err, errno, "cannot make %s: %s", ret->stats, strerror(errno));
	close(fd);
	r = start_line(options, ret, said, sizeof(said), err);
	if (r == 0)
		r = enter_line(ret, said, err);
	if (r < 0)
		json_decref(bench_line_close(ret));
	return r;
}

int bench_line_open(
	const char *options, uint64_t bytes, struct bench_line *ret, struct weft_error *err)
{
	int r = bench_line_make(options, ret, err);

	if (r < 0)
		return r;
	r = start_donor(bytes, ret, err);
	if (r == 0)
		snprintf(ret->uri, sizeof(ret->uri), "weft://%s/bench", ret->far_address);
	else
		json_decref(bench_line_close(ret));
	return r;
}

json_t *bench_line_close(struct bench_line *line)
{
	bench_daemon_end(&line->donor);
	bench_daemon_end(&line->line);
	weft_close_fd(line->far);
	line->far = -1;
	json_t *figures = json_load_file(line->stats, 0, NULL);
	unlink(line->stats);
	return figures;
}
