/* SPDX-License-Identifier: MIT */
/*
 * The environment of a process at its start, and its signals; whether another process is dying. The
 * main thread.
 */
#include "fabric/base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"

static void open_standard_descriptors(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		/*
		 * open(2) returns the lowest free number, which is this one.  A tree without /dev
		 * gets a descriptor that can be neither read nor written.
		 */
		if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0 &&
			open("/", O_PATH) < 0)
			abort();
	}
}

/*
 * Opens a file description of our own: other processes share the one that we were given, and rely
 * on its O_NONBLOCK.
 */
static void make_blocking(int fd)
{
	char path[32];
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || !(flags & O_NONBLOCK) || fstat(fd, &st) < 0 ||
		!(S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)))
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int own = open(path, (flags & O_ACCMODE) | O_NOCTTY | O_CLOEXEC);
	if (own < 0)
		return;
	dup2(own, fd);
	close(own);
}

int weft_program_beside(const char *name, char *buf, size_t len)
{
	const size_t room = strlen(name) + 1;
	ssize_t n = room < len ? readlink("/proc/self/exe", buf, len - room) : -1;
	char *slash = n > 0 ? memrchr(buf, '/', (size_t)n) : NULL;

	if (!slash)
		return -ENOENT;
	strcpy(slash + 1, name);
	return 0;
}

void weft_process_begin(void)
{
	sigset_t none;

	open_standard_descriptors();
	make_blocking(STDOUT_FILENO);
	make_blocking(STDERR_FILENO);
	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	mode_t mask = umask(S_IRWXU);
	umask(mask & ~(mode_t)S_IRWXU);
	weft_debug_enable_from_environment();
}

void weft_process_set_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	/* At 0 a program that core_pattern pipes cores to gets them; at 1 it does not. */
	if (getrlimit(RLIMIT_CORE, &limit) == 0) {
		limit.rlim_cur = weft_min(limit.rlim_max, 1);
		setrlimit(RLIMIT_CORE, &limit);
	}
}

void weft_signals_ignore(void)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(numbers); i++)
		signal(numbers[i], SIG_IGN);
}

static void on_signal(struct weft_watch *watch, uint32_t events)
{
	struct weft_signals *signals = weft_container_of(watch, struct weft_signals, watch);
	struct signalfd_siginfo info;

	if (read(watch->fd, &info, sizeof(info)) == sizeof(info))
		signals->fn(signals, (int)info.ssi_signo);
}

int weft_signals_watch(struct weft_signals *signals, struct weft_loop *loop, bool hand_over,
	void (*fn)(struct weft_signals *signals, int signo))
{
	sigset_t set;

	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (hand_over)
		/* a blocked signal is not discarded, even if it is ignored */
		sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals->fn = fn;
	signals->watch.fn = on_signal;
	signals->watch.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals->watch.fd < 0)
		return -errno;
	int r = weft_loop_add(loop, &signals->watch, EPOLLIN);
	if (r < 0) {
		close(signals->watch.fd);
		signals->fn = NULL;
	}
	return r;
}

void weft_signals_end(struct weft_signals *signals, struct weft_loop *loop)
{
	if (!signals->watch.added)
		return;
	weft_loop_remove(loop, &signals->watch);
	close(signals->watch.fd);
}

/* ---- another process ---- */

bool weft_process_is_dying(pid_t pid)
{
	char path[64], line[256], state = 0;
	unsigned long long pending = 0, mask;
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	FILE *in = fopen(path, "re");
	if (!in)
		return errno == ENOENT;
	while (fgets(line, sizeof(line), in)) {
		found |= sscanf(line, "State: %c", &state) == 1;
		if (sscanf(line, "SigPnd: %llx", &mask) == 1 ||
			sscanf(line, "ShdPnd: %llx", &mask) == 1)
			pending |= mask;
	}
	fclose(in);
	if (!found || state == 'Z' || state == 'X' || pending >> (SIGKILL - 1) & 1)
		return true;
	/*
	 * The kernel's PF_EXITING, proc(5), field 9; the name before the fields ends with the last
	 * ')'.
	 */
	unsigned flags = 0;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	in = fopen(path, "re");
	if (!in)
		return errno == ENOENT;
	const char *end = fgets(line, sizeof(line), in) ? strrchr(line, ')') : NULL;
	fclose(in);
	return !end || (sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && flags & 0x4);
}
