/* SPDX-License-Identifier: MIT */
/*
 * Child processes.  Owned by the main thread.  Invariant: every child that runs is in children[],
 * and gets SIGTERM from the kernel should the harness die.
 */
#include "perf/harness/process.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/harness/perf.h"

enum { MAX_CHILDREN = 64, STOP_MS = 10000, MAX_COUNTED = 1024 };

static int counted[MAX_COUNTED]; /* a counter for each thread */
static unsigned nr_counted;

static pid_t children[MAX_CHILDREN];

static int listen_unix(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&un, sizeof(un)) == 0 && listen(fd, 64) == 0)
		return fd;
	r = -errno;
	weft_cleanup_close(&fd);
	return r;
}

static int listen_tcp(uint16_t *ret_port)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), r;
	socklen_t len = sizeof(in);

	inet_pton(AF_INET, perf_far_ip(), &in.sin_addr);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0 && listen(fd, 64) == 0 &&
		getsockname(fd, (struct sockaddr *)&in, &len) == 0) {
		*ret_port = ntohs(in.sin_port);
		return fd;
	}
	r = -errno;
	weft_cleanup_close(&fd);
	return r;
}

int perf_listen(const char *unix_path, uint16_t *ret_port)
{
	WEFT_CLEANUP_CLOSE int far = perf_far_ns(), here = -1;
	int fd;

	if (unix_path)
		return listen_unix(unix_path);
	/* A socket stays in the namespace that it was made in. */
	here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (far >= 0 && (here < 0 || setns(far, CLONE_NEWNET) < 0))
		return -errno;
	fd = listen_tcp(ret_port);
	if (far >= 0 && setns(here, CLONE_NEWNET) < 0)
		abort();
	return fd;
}

static void child(int ns, const char *const argv[], int listen_fd, const char *log, pid_t parent)
{
	char path[512], text[16];
	int out;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(127);
	snprintf(path, sizeof(path), "%s/%s", perf_tmpdir(), log);
	out = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (out < 0)
		_exit(127);
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	if (ns >= 0 && setns(ns, CLONE_NEWNET) < 0)
		_exit(127);
	if (listen_fd >= 0) {
		if (listen_fd == 3)
			fcntl(3, F_SETFD, 0);
		else
			dup2(listen_fd, 3);
		setenv("LISTEN_FDS", "1", 1);
		snprintf(text, sizeof(text), "%d", (int)getpid());
		setenv("LISTEN_PID", text, 1);
	}
	execvp(argv[0], (char *const *)argv);
	dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

pid_t perf_spawn(const char *const argv[], int listen_fd, const char *log)
{
	return perf_spawn_in(-1, argv, listen_fd, log);
}

pid_t perf_spawn_in(int ns, const char *const argv[], int listen_fd, const char *log)
{
	pid_t parent = getpid(), pid;
	unsigned i;

	for (i = 0; i < MAX_CHILDREN && children[i]; i++)
		;
	if (i == MAX_CHILDREN)
		return -EAGAIN;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		child(ns, argv, listen_fd, log, parent);
	children[i] = pid;
	return pid;
}

static void forget(pid_t pid)
{
	for (unsigned i = 0; i < MAX_CHILDREN; i++)
		if (children[i] == pid)
			children[i] = 0;
}

int perf_alive(pid_t pid)
{
	siginfo_t info = {.si_pid = 0};

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
		info.si_pid == 0;
}

int perf_stop(pid_t pid)
{
	const struct timespec tick = {.tv_nsec = 2000000};
	int status = -1, ms;

	kill(pid, SIGTERM);
	for (ms = 0; ms < STOP_MS; ms += 2) {
		if (waitpid(pid, &status, WNOHANG) != 0)
			break;
		nanosleep(&tick, NULL);
	}
	if (ms >= STOP_MS) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	forget(pid);
	return status;
}

void perf_stop_all(void)
{
	for (unsigned i = MAX_CHILDREN; i-- > 0;)
		if (children[i])
			perf_stop(children[i]);
}

uint64_t perf_cpu_ns(pid_t pid)
{
	struct timespec ts;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &ts) < 0)
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t perf_switches(pid_t pid)
{
	char path[320], line[128];
	uint64_t n, total = 0;
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		FILE *f;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.16s/status", (int)pid, e->d_name);
		f = fopen(path, "re");
		while (f && fgets(line, sizeof(line), f))
			if (sscanf(line, "voluntary_ctxt_switches: %" SCNu64, &n) == 1 ||
				sscanf(line, "nonvoluntary_ctxt_switches: %" SCNu64, &n) == 1)
				total += n;
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
	return total;
}

static int count_thread(pid_t tid, uint64_t tracepoint)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
		.config = tracepoint};
	long fd = nr_counted < MAX_COUNTED
		? syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC)
		: -1;

	if (nr_counted == MAX_COUNTED)
		return -E2BIG;
	if (fd < 0)
		return errno == ESRCH ? 0 : -errno; /* it has just ended */
	counted[nr_counted++] = (int)fd;
	return 0;
}

int perf_calls_start(pid_t pid)
{
	FILE *f = fopen("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id", "re");
	uint64_t tracepoint;
	struct dirent *e;
	char path[64];
	int r = f ? 0 : -errno;
	DIR *d;

	if (f && fscanf(f, "%" SCNu64, &tracepoint) != 1)
		r = -EIO;
	if (f)
		fclose(f);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	if (!d)
		return -errno;
	while (r == 0 && (e = readdir(d)))
		if (e->d_name[0] != '.')
			r = count_thread((pid_t)atoi(e->d_name), tracepoint);
	closedir(d);
	if (r < 0)
		perf_calls_stop();
	return r;
}

uint64_t perf_calls_stop(void)
{
	uint64_t n, total = 0;

	while (nr_counted > 0) {
		int fd = counted[--nr_counted];

		if (read(fd, &n, sizeof(n)) == sizeof(n))
			total += n;
		close(fd);
	}
	return total;
}

void perf_pin(pid_t pid, int cpu)
{
	char path[64];
	cpu_set_t set;
	struct dirent *e;
	DIR *d;

	CPU_ZERO(&set);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (cpu < 0 || i == cpu)
			CPU_SET(i, &set);
	if (pid == 0) {
		sched_setaffinity(0, sizeof(set), &set);
		return;
	}
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			sched_setaffinity(atoi(e->d_name), sizeof(set), &set);
	if (d)
		closedir(d);
}

int perf_call(const char *const argv[], const char *log)
{
	pid_t pid = perf_spawn(argv, -1, log);
	int status;

	if (pid < 0)
		return (int)pid;
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	forget(pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}
