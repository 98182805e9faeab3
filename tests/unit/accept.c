/* SPDX-License-Identifier: MIT */
/*
 * Accepting when there are no descriptors left: no spinning, one that still gets through, and going
 * on afterwards.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/accept.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"

enum { FIT = 5, CLIENTS = 10, LOOK_MS = 1000 };

struct served {
	struct weft_watch watch;
	struct weft_loop *loop;
};

static struct sockaddr_un address = {.sun_family = AF_UNIX};

static void on_hang_up(struct weft_watch *watch, uint32_t events)
{
	struct served *served = weft_container_of(watch, struct served, watch);

	weft_loop_remove(served->loop, watch);
	close(watch->fd);
	free(served);
}

static void on_connection(struct weft_acceptor *acceptor, int fd)
{
	struct served *served = calloc(1, sizeof(*served));

	served->loop = acceptor->loop;
	served->watch = (struct weft_watch){.fd = fd, .fn = on_hang_up};
	if (write(fd, "x", 1) != 1 || weft_loop_add(served->loop, &served->watch, EPOLLIN) < 0)
		_exit(3);
}

/* Serves with room for FIT connections, and the spare. */
static void serve(int listen_fd)
{
	static struct weft_acceptor acceptor = {.fn = on_connection,
		.what = "connections of a test"};
	struct weft_loop *loop;
	struct rlimit limit;

	weft_log_init("test", WEFT_LOG_ERROR);
	/* What others left open has numbers in between. */
	if (close_range((unsigned)listen_fd + 1, ~0u, 0) < 0)
		_exit(2);
	if (weft_loop_new(&loop) < 0 || weft_acceptor_start(&acceptor, loop, listen_fd) < 0)
		_exit(2);
	int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
	close(next);
	limit.rlim_cur = limit.rlim_max = (rlim_t)next + FIT;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		_exit(2);
	weft_loop_run(loop);
	_exit(4);
}

static uint64_t cpu_ns(pid_t pid)
{
	struct timespec ts;
	clockid_t clock;

	assert_int_equal(clock_getcpuclockid(pid, &clock), 0);
	assert_int_equal(clock_gettime(clock, &ts), 0);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static unsigned nr_served(struct pollfd *clients, unsigned nr, unsigned want)
{
	uint64_t end_ns = weft_now_ns() + UINT64_C(10000000000);
	unsigned n = 0;

	do {
		poll(NULL, 0, 10);
		assert_true(poll(clients, nr, 0) >= 0);
		n = 0;
		for (unsigned i = 0; i < nr; i++)
			n += clients[i].fd >= 0 && (clients[i].revents & POLLIN);
	} while (n != want && weft_now_ns() < end_ns);
	return n;
}

static void no_descriptors_no_spinning(void **state)
{
	struct pollfd clients[CLIENTS];
	int listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char dir[] = "/tmp/weft-accept.XXXXXX";

	assert_non_null(mkdtemp(dir));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", dir);
	assert_int_equal(bind(listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listen_fd, 64), 0);
	pid_t child = fork();
	if (child == 0)
		serve(listen_fd);
	close(listen_fd);
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = (struct pollfd){.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
			.events = POLLIN};
		assert_int_equal(connect(clients[i].fd, (struct sockaddr *)&address,
					 sizeof(address)),
			0);
	}
	/* One more than there are descriptors for: with the spare. */
	assert_int_equal(nr_served(clients, CLIENTS, FIT + 1), FIT + 1);
	uint64_t before_ns = cpu_ns(child);
	poll(NULL, 0, LOOK_MS);
	assert_in_range(cpu_ns(child) - before_ns, 0, LOOK_MS * UINT64_C(1000000) / 10);
	assert_int_equal(nr_served(clients, CLIENTS, FIT + 1), FIT + 1);
	/* As descriptors come back the others have their turn, and the spare is there again. */
	for (int i = 0; i < FIT; i++) {
		close(clients[i].fd);
		clients[i].fd = -1;
	}
	assert_int_equal(nr_served(clients, CLIENTS, CLIENTS - FIT), CLIENTS - FIT);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	for (int i = FIT; i < CLIENTS; i++)
		close(clients[i].fd);
	unlink(address.sun_path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_descriptors_no_spinning),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
