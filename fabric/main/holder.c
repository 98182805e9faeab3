/* SPDX-License-Identifier: MIT */
/*
 * weftholder KEEP_SECONDS PLACES: keeps a daemon's memory while there is no daemon.
 *
 * Started by weft-serve with a connection on descriptor 3 (fabric/donor/holder.h says what is
 * spoken).  It does not map or interpret the memory that it holds.  It ends after a goodbye, when
 * all was handed on, on SIGTERM, or KEEP_SECONDS after the daemon's connection ended.  One thread.
 * Invariant: without a daemon there is a deadline.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "fabric/base/accept.h"
#include "fabric/donor/holder.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"

enum {
	MAX_HELD = 1024,
	SEND_TIMEOUT_S = 5,  /* for a next daemon that does not read */
	HAND_OVER_S = 60,    /* for one that took the memory and says nothing more */
};

static struct held {
	uint64_t epoch;
	int fds[2];
} held[MAX_HELD];
static unsigned nr_held;
static int daemon_fd = WEFT_HOLDER_FD;
static pid_t daemon_pid;
static char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
static uint64_t deadline_ns; /* 0: the daemon lives */
static volatile sig_atomic_t stopped;

static void on_stop(int signo)
{
	stopped = 1;
}

static void drop(uint64_t epoch)
{
	for (unsigned i = 0; i < nr_held; i++) {
		if (held[i].epoch != epoch)
			continue;
		close(held[i].fds[0]);
		close(held[i].fds[1]);
		held[i] = held[--nr_held];
		return;
	}
}

/* Answers a question with "ack" only: an older daemon takes any answer for our end. */
static void answer_daemon(const char *question, const char *answer)
{
	if (strncmp(question, "hold ", 5) == 0 && strstr(question, " ack"))
		weft_holder_send(daemon_fd, answer, NULL, 0);
}

/* Takes one message of the daemon.  False: the daemon is gone. */
static bool hear_daemon(void)
{
	char text[WEFT_HOLDER_MESSAGE_MAX];
	unsigned nr_fds;
	uint64_t epoch;
	int fds[2], r = weft_holder_receive(daemon_fd, text, fds, &nr_fds);

	if (r == -EMSGSIZE) { /* descriptors that we have no room for */
		answer_daemon(text, "full");
		return true;
	}
	if (r < 0)
		return false;
	if (strcmp(text, "bye") == 0) {
		stopped = 1;
	} else if (sscanf(text, "hold %16" SCNx64, &epoch) == 1 && nr_fds == 2 &&
		nr_held < MAX_HELD) {
		drop(epoch);
		held[nr_held++] = (struct held){epoch, {fds[0], fds[1]}};
		answer_daemon(text, "held");
		return true;
	} else if (sscanf(text, "drop %16" SCNx64, &epoch) == 1) {
		drop(epoch);
	} else {
		answer_daemon(text, "full");
	}
	for (unsigned i = 0; i < nr_fds; i++)
		close(fds[i]);
	return true;
}

static void hand_over(int fd, const char *places)
{
	char text[WEFT_HOLDER_MESSAGE_MAX];
	uint64_t now = weft_now_ns();

	snprintf(text, sizeof(text), "kept %u %.400s",
		deadline_ns > now ? (unsigned)((deadline_ns - now) / 1000000000) : 0, places);
	if (weft_holder_send(fd, text, NULL, 0) < 0)
		return;
	for (unsigned i = 0; i < nr_held; i++) {
		snprintf(text, sizeof(text), "region %016" PRIx64, held[i].epoch);
		if (weft_holder_send(fd, text, held[i].fds, 2) < 0)
			return;
	}
	weft_holder_send(fd, "end", NULL, 0);
}

/* Takes one message of a next daemon.  False: that daemon is gone. */
static bool hear_next(int fd, const char *places)
{
	char text[WEFT_HOLDER_MESSAGE_MAX], busy[WEFT_HOLDER_MESSAGE_MAX];
	unsigned nr_fds;
	uint64_t epoch;
	int fds[2];

	if (weft_holder_receive(fd, text, fds, &nr_fds) < 0)
		return false;
	for (unsigned i = 0; i < nr_fds; i++)
		close(fds[i]);
	if (daemon_fd >= 0) {
		snprintf(busy, sizeof(busy), "busy %d %.400s", (int)daemon_pid, places);
		weft_holder_send(fd, busy, NULL, 0);
		return false;
	}
	if (strcmp(text, "take") == 0)
		hand_over(fd, places);
	else if (sscanf(text, "drop %16" SCNx64, &epoch) == 1)
		drop(epoch);
	return true;
}

/* A listening socket that has its name only once it listens. */
static int listen_here(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char run_dir[sizeof(addr.sun_path)];

	int r = weft_run_dir(run_dir, sizeof(run_dir));
	if (r < 0)
		return r;
	if (snprintf(socket_path, sizeof(socket_path), "%s/" WEFT_HOLDER_PREFIX "%d.sock", run_dir,
			(int)getpid()) >= (int)sizeof(socket_path) ||
		snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/.%d", run_dir, (int)getpid()) >=
			(int)sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	umask(0177);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 8) < 0 ||
		rename(addr.sun_path, socket_path) < 0) {
		r = -errno;
		unlink(addr.sun_path);
		close(fd);
		return r;
	}
	return fd;
}

/* A descriptor, or -errno of weft_accept(). */
static int accept_next(int listen_fd, int *spare_fd)
{
	struct timeval bound = {.tv_sec = SEND_TIMEOUT_S};
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int fd = weft_accept(listen_fd, 0, spare_fd);

	if (fd < 0)
		return fd;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.uid != geteuid()) {
		close(fd);
		return -EAGAIN;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound));
	return fd;
}

static uint64_t seconds_from_now(uint64_t s)
{
	return weft_now_ns() + s * UINT64_C(1000000000);
}

int main(int argc, char **argv)
{
	struct sigaction stop = {.sa_handler = on_stop};
	uint64_t keep_s = argc == 3 ? strtoull(argv[1], NULL, 10) : 0, next_deadline_ns = 0;
	int next_fd = -1, spare_fd = -1;
	bool full = false; /* no descriptors: nobody is let in for a moment */

	weft_process_begin();
	if (argc != 3 || fcntl(WEFT_HOLDER_FD, F_GETFD) < 0) {
		fprintf(stderr,
			"weftholder is started by weft-serve, and keeps its memory if that "
			"crashes\n");
		return 2;
	}
	fcntl(WEFT_HOLDER_FD, F_SETFD, FD_CLOEXEC);
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (chdir("/") < 0)
		return 1;
	daemon_pid = getppid();
	int listen_fd = listen_here();
	if (listen_fd < 0) {
		char why[WEFT_HOLDER_MESSAGE_MAX];

		snprintf(why, sizeof(why), "down %s: %s",
			*socket_path ? socket_path : "the run directory", strerror(-listen_fd));
		weft_holder_send(daemon_fd, why, NULL, 0);
		return 1;
	}
	weft_holder_send(daemon_fd, "up", NULL, 0);
	while (!stopped && (daemon_fd >= 0 || nr_held > 0)) {
		/* One next daemon at a time; others wait in the backlog. */
		struct pollfd p[] = {
			{.fd = daemon_fd, .events = POLLIN},
			{.fd = next_fd >= 0 || full ? -1 : listen_fd, .events = POLLIN},
			{.fd = next_fd, .events = POLLIN},
		};
		uint64_t due = next_fd >= 0 ? next_deadline_ns : deadline_ns, now = weft_now_ns();
		int timeout = due == 0 ? -1
			: due > now    ? (int)weft_min((due - now) / 1000000 + 1, 3600000)
				       : 0;
		if (full && (timeout < 0 || timeout > WEFT_ACCEPT_PAUSE_MS))
			timeout = WEFT_ACCEPT_PAUSE_MS;
		int n = poll(p, WEFT_ARRAY_LEN(p), timeout);
		full = false;

		if (n < 0 && errno != EINTR)
			break;
		if (n <= 0) {
			now = weft_now_ns();
			if (next_fd >= 0 && now >= next_deadline_ns) {
				close(next_fd);
				next_fd = -1;
			}
			if (next_fd < 0 && deadline_ns && now >= deadline_ns)
				break;
			continue;
		}
		if (p[0].revents && !hear_daemon()) {
			close(daemon_fd);
			daemon_fd = -1;
			deadline_ns = seconds_from_now(keep_s);
		}
		if (p[2].revents && !hear_next(next_fd, argv[2])) {
			close(next_fd);
			next_fd = -1;
		}
		if (p[1].revents) {
			next_fd = accept_next(listen_fd, &spare_fd);
			full = weft_accept_must_pause(next_fd);
			next_deadline_ns = seconds_from_now(HAND_OVER_S);
		}
	}
	unlink(socket_path);
	return 0;
}
