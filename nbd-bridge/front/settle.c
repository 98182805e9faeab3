/* SPDX-License-Identifier: MIT */
/*
 * A process that asks the kernel; see settle.h.  Its exit status is 0, or the errno and
 * STATUS_ERRNO; any other means that it could not ask.
 */
#include "nbd-bridge/front/settle.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/process.h"
#include "fabric/base/util.h"

#define SETTLE_NAME "weft-settle"

extern char **environ;

enum { STATUS_ERRNO = 120 };

/* 0 or -errno that the kernel answered; -ECHILD: it was not asked. */
static int result_of(int how)
{
	if (!WIFEXITED(how))
		return -ECHILD;
	int status = WEXITSTATUS(how);
	return status == 0 ? 0 : status > STATUS_ERRNO ? STATUS_ERRNO - status : -ECHILD;
}

static void on_end(struct weft_watch *watch, uint32_t events)
{
	struct bridge_settle *settle = weft_container_of(watch, struct bridge_settle, watch);
	int how = 0, result = -ECHILD;

	if (waitpid(settle->pid, &how, 0) == settle->pid)
		result = result_of(how);
	bridge_settle_end(settle);
	settle->done(settle, result);
}

/* *ret_pidfd becomes readable when it has ended. */
static int start(const char *what, const char *const *paths, unsigned nr_paths, pid_t *ret,
	int *ret_pidfd)
{
	char *argv[BRIDGE_SETTLE_PATHS + 3] = {SETTLE_NAME, (char *)what};

	for (unsigned i = 0; i < nr_paths && i < BRIDGE_SETTLE_PATHS; i++)
		argv[2 + i] = (char *)paths[i];
	/* This very program: the file that it was started from may have been replaced. */
	int r = posix_spawn(ret, "/proc/self/exe", NULL, NULL, argv, environ);
	if (r != 0)
		return -r;
	*ret_pidfd = pidfd_open(*ret, 0);
	return *ret_pidfd < 0 ? -errno : 0;
}

int bridge_settle_begin(struct bridge_settle *settle, struct weft_loop *loop,
	const char *const *paths, unsigned nr_paths, bool everything,
	void (*done)(struct bridge_settle *settle, int result))
{
	if (settle->pid)
		return -EALREADY;
	settle->loop = loop;
	settle->done = done;
	settle->watch.fn = on_end;
	settle->watch.fd = -1;
	int r = start(everything ? "everything" : "paths", paths, nr_paths, &settle->pid,
		&settle->watch.fd);
	if (r == 0)
		r = weft_loop_add(loop, &settle->watch, EPOLLIN);
	if (r < 0)
		bridge_settle_end(settle);
	return r;
}

int bridge_settle_look(const char *path, int timeout_ms)
{
	pid_t pid = 0;
	int pidfd = -1, how, r = start("look", &path, 1, &pid, &pidfd);
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	if (r == 0 && poll(&p, 1, timeout_ms) != 1)
		r = -ETIMEDOUT;
	if (r < 0 && pid > 0)
		kill(pid, SIGKILL);
	if (pid > 0 && waitpid(pid, &how, r < 0 ? WNOHANG : 0) == pid && r == 0)
		r = result_of(how);
	weft_close_fd(pidfd);
	return r;
}

void bridge_settle_end(struct bridge_settle *settle)
{
	if (!settle->pid)
		return;
	weft_loop_remove(settle->loop, &settle->watch);
	weft_close_fd(settle->watch.fd);
	/* The process may still wait for the kernel: init reaps it after our end. */
	kill(settle->pid, SIGKILL);
	waitpid(settle->pid, NULL, WNOHANG);
	settle->pid = 0;
}

static int write_back(const char *path)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return errno;
	return fsync(fd) < 0 ? errno : 0;
}

static int look(const char *path)
{
	struct statx now;

	return statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS,
		       &now) < 0
		? errno
		: 0;
}

static int write_all_back(char *const *paths)
{
	int first = 0;

	for (; *paths; paths++) {
		int r = write_back(*paths);

		if (first == 0)
			first = r;
	}
	return first;
}

int bridge_settle_main(int argc, char **argv)
{
	if (argc < 2 || strcmp(argv[0], SETTLE_NAME) != 0)
		return -1;
	prctl(PR_SET_NAME, SETTLE_NAME);
	weft_signals_ignore();
	/*
	 * The process must not hold open anything, least of all what the bridge's end has to close.
	 */
	close_range(STDERR_FILENO + 1, UINT_MAX, 0);
	int error;
	if (strcmp(argv[1], "look") == 0) {
		error = argv[2] ? look(argv[2]) : EINVAL;
	} else {
		error = write_all_back(argv + 2);
		if (strcmp(argv[1], "everything") == 0) {
			sync(); /* it may wait for others' disks, too */
			error = write_all_back(argv + 2);
		}
	}
	return error ? STATUS_ERRNO + error : 0;
}
