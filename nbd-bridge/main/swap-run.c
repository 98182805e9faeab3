/* SPDX-License-Identifier: MIT */
/* Programs that weft swap runs: see swap-run.h. */
#include "nbd-bridge/main/swap-run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/util.h"

enum { LOOK_MS = 100 };

extern char **environ;

/* Without those that nohup(1) or a shell had us ignore. */
static void ending_signals(sigset_t *ret)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction now;

	sigemptyset(ret);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(signals); i++)
		if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
			sigaddset(ret, signals[i]);
}

void swap_signals_hold(void)
{
	sigset_t set;

	ending_signals(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

void swap_signals_release(void)
{
	sigset_t set;

	ending_signals(&set);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

bool swap_signals_came(void)
{
	sigset_t set, pending;

	ending_signals(&set);
	if (sigpending(&pending) < 0)
		return false;
	sigandset(&pending, &pending, &set);
	return !sigisemptyset(&pending);
}

void swap_signals_forget(void)
{
	const struct timespec now = {0};
	sigset_t set;

	ending_signals(&set);
	while (sigtimedwait(&set, NULL, &now) > 0)
		;
}

/* Of the child; its standard output is out, or nowhere. */
static int spawn(const char *const *argv, int out, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;

	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	if (out < 0)
		posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	else
		posix_spawn_file_actions_adddup2(&actions, out, 1);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&attr, &none);
	int r = -posix_spawnp(ret, argv[0], &actions, &attr, (char *const *)argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

/* Takes what there is of the child's words; false: it has closed its standard output. */
static bool take_words(int fd, char *said, size_t len, size_t *n)
{
	char rest[512];
	bool room = *n + 1 < len;
	ssize_t got = read(fd, room ? said + *n : rest, room ? len - *n - 1 : sizeof(rest));

	if (got <= 0)
		return got < 0 && errno == EINTR;
	if (room)
		*n += (size_t)got;
	return true;
}

/* Until the child ends.  It is told once of a signal that has come to us. */
static void attend(pid_t pid, int fd, char *said, size_t len)
{
	WEFT_CLEANUP_CLOSE int pidfd = pidfd_open(pid, 0);
	struct pollfd watched[2] = {{.fd = pidfd, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
	bool told = swap_signals_came();
	size_t n = 0;

	while (pidfd >= 0) {
		int r = poll(watched, 2, LOOK_MS);

		if (r > 0 && watched[1].revents && !take_words(fd, said, len, &n))
			watched[1].fd = -1;
		else if (r > 0 && watched[0].revents)
			break;
		if (!told && swap_signals_came()) {
			kill(pid, SIGTERM);
			told = true;
		}
	}
	if (said)
		said[n] = '\0';
}

int swap_run(const char *const *argv, char *said, size_t len, struct weft_error *err)
{
	const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
	int pipe_fds[2] = {-1, -1}, status;
	pid_t pid;

	if (said && pipe2(pipe_fds, O_CLOEXEC) < 0)
		return weft_error_set(err, errno, "cannot make a pipe: %s", strerror(errno));
	int r = spawn(argv, pipe_fds[1], &pid);
	weft_close_fd(pipe_fds[1]);
	if (r == 0) {
		attend(pid, pipe_fds[0], said, len);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	weft_close_fd(pipe_fds[0]);
	if (r < 0)
		return weft_error_set(err, -r, "cannot run %s: %s", argv[0], strerror(-r));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status))
		return weft_error_set(err, ECHILD, "%s failed, with exit status %d", name,
			WEXITSTATUS(status));
	return weft_error_set(err, ECHILD, "%s was ended by SIG%s", name,
		sigabbrev_np(WTERMSIG(status)));
}

int swap_own_program(const char *leaf, char *buf)
{
	ssize_t n = readlink("/proc/self/exe", buf, PATH_MAX - 64);
	char *slash = n > 0 ? memrchr(buf, '/', (size_t)n) : NULL;

	if (!slash)
		return -ENOENT;
	snprintf(slash + 1, 64, "%s", leaf);
	return 0;
}
