/* SPDX-License-Identifier: MIT */
/*
 * systemd's descriptor store, played by this program: a donor that was killed finds its memory
 * again.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "fabric/donor/holder.h"
#include "fabric/base/util.h"
#include "tests/support/emulated.h"

enum { MAX_STORED = 8 };

static char dir[] = "/tmp/weft-holder.XXXXXX";
static char notify_path[64];
static struct weft_error err;

/* The service manager's side. */
static int notify_fd;
static struct {
	int fds[MAX_STORED];
	char names[MAX_STORED][64];
	int nr;
	bool ready, stopping;
} manager;

static void hear_notification(const char *text, const int *fds, unsigned nr_fds)
{
	const char *name = strstr(text, "FDNAME=");

	manager.ready |= strstr(text, "READY=1") != NULL;
	manager.stopping |= strstr(text, "STOPPING=1") != NULL;
	for (unsigned i = 0; i < nr_fds; i++) {
		assert_non_null(strstr(text, "FDSTORE=1"));
		assert_non_null(name);
		assert_true(manager.nr < MAX_STORED);
		snprintf(manager.names[manager.nr], sizeof(manager.names[0]), "%.*s",
			(int)strcspn(name + 7, "\n"), name + 7);
		manager.fds[manager.nr++] = fds[i];
	}
}

/* Until the flag is set, at most 20 s. */
static void hear(const bool *until)
{
	while (!*until) {
		struct pollfd p = {.fd = notify_fd, .events = POLLIN};
		char text[WEFT_HOLDER_MESSAGE_MAX];
		unsigned nr_fds;
		int fds[2];

		assert_int_equal(poll(&p, 1, 20000), 1);
		assert_true(weft_holder_receive(notify_fd, text, fds, &nr_fds) > 0);
		hear_notification(text, fds, nr_fds);
	}
}

static int setup(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	memset(&manager, 0, sizeof(manager));
	notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	strcpy(addr.sun_path, notify_path);
	unlink(notify_path);
	return bind(notify_fd, (struct sockaddr *)&addr, sizeof(addr));
}

static int teardown(void **state)
{
	for (int i = 0; i < manager.nr; i++)
		close(manager.fds[i]);
	close(notify_fd);
	unsetenv("NOTIFY_SOCKET");
	return 0;
}

static void a_stored_region_is_found_by_name(void **state)
{
	struct weft_memory_spec spec = {.name = "ä region", .size_bytes = WEFT_MIB};
	struct weft_region *region, *again;
	struct weft_leftovers *leftovers;
	struct weft_holder *holder;
	char *names[MAX_STORED];
	bool stored = false;

	setenv("NOTIFY_SOCKET", notify_path, 1);
	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &region, &err), 0);
	memset(region->map, 0x21, WEFT_MIB);
	assert_int_equal(weft_holder_store(3, &holder), 0);
	assert_int_equal(weft_holder_pid(holder), 0);
	assert_int_equal(weft_holder_hold(holder, region, &err), 0);
	/* What is beyond its maximum systemd drops without a word. */
	assert_int_equal(weft_holder_hold(holder, region, &err), -ENOSPC);
	assert_non_null(strstr(err.message, "FileDescriptorStoreMax="));
	while (manager.nr < 2) {
		char text[WEFT_HOLDER_MESSAGE_MAX];
		unsigned nr_fds;
		int fds[2];

		assert_true(weft_holder_receive(notify_fd, text, fds, &nr_fds) > 0);
		hear_notification(text, fds, nr_fds);
		stored |= nr_fds == 2;
	}
	assert_true(stored);
	uint64_t epoch = region->epoch;
	weft_holder_end(holder, true);
	weft_region_put(region);

	for (int i = 0; i < manager.nr; i++)
		names[i] = manager.names[i];
	assert_int_equal(weft_leftovers_find("127.0.0.1:1", manager.fds, names, manager.nr,
				 &leftovers),
		0);
	assert_int_equal(manager.fds[0], -1);
	assert_int_equal(manager.fds[1], -1);
	manager.nr = 0;
	assert_null(weft_leftovers_get(leftovers, "other"));
	const struct weft_leftover *left = weft_leftovers_get(leftovers, "ä region");
	assert_non_null(left);
	assert_true(left->stored && left->epoch == epoch && left->size_bytes == WEFT_MIB);
	assert_int_equal(weft_region_adopt(dup(left->fd), dup(left->header_fd), false, &again,
				 &err),
		0);
	weft_leftovers_done(leftovers, left);
	weft_leftovers_free(leftovers);
	assert_int_equal(again->map[WEFT_MIB - 1], 0x21);
	weft_region_put(again);
}

static void strangers_among_the_descriptors_are_left_alone(void **state)
{
	int fds[] = {open("/dev/null", O_RDWR), open("/dev/null", O_RDWR),
		open("/dev/null", O_RDWR)};
	char *names[] = {(char *)"weft-region-1", (char *)"weft-region-1", (char *)"weft.socket"};
	struct weft_leftovers *leftovers;

	assert_int_equal(weft_leftovers_find("127.0.0.1:1", fds, names, 3, &leftovers), 0);
	weft_leftovers_free(leftovers);
	for (int i = 0; i < 3; i++) {
		assert_true(fcntl(fds[i], F_GETFD) >= 0);
		close(fds[i]);
	}
}

/* A holder says what it has, and what it has no room for. */
static void a_holder_that_is_full_says_so(void **state)
{
	const struct rlimit seven = {7, 7};
	char program[512], text[WEFT_HOLDER_MESSAGE_MAX];
	int pair[2], fds[2], status;
	unsigned nr_fds;

	SKIP_IF_EMULATED(NULL, "does not start programs of the architecture that it emulates");
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	snprintf(program, sizeof(program), "%s/weftholder", getenv("WEFT_BIN"));
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int high = fcntl(pair[1], F_DUPFD, 100);

		dup2(high, WEFT_HOLDER_FD);
		for (int fd = WEFT_HOLDER_FD + 1; fd <= high; fd++)
			close(fd);
		setrlimit(RLIMIT_NOFILE, &seven);
		execl(program, "weftholder", "10", "127.0.0.1:1", (char *)NULL);
		_exit(127);
	}
	close(pair[1]);
	assert_true(weft_holder_receive(pair[0], text, fds, &nr_fds) > 0);
	assert_string_equal(text, "up");
	static const struct {
		const char *question, *answer;
	} cases[] = {
		{"hold 0000000000000001 ack", "held"},
		{"hold 0000000000000002 ack", "full"},
		{"hold 0000000000000001 ack", "full"}, /* it would need room for both copies */
	};
	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		fds[0] = fds[1] = pair[0];
		assert_int_equal(weft_holder_send(pair[0], cases[i].question, fds, 2), 0);
		assert_true(weft_holder_receive(pair[0], text, fds, &nr_fds) > 0);
		assert_string_equal(text, cases[i].answer);
	}
	/* An older daemon takes any answer for the holder's end. */
	fds[0] = fds[1] = pair[0];
	assert_int_equal(weft_holder_send(pair[0], "hold 0000000000000003", fds, 2), 0);
	assert_int_equal(weft_holder_send(pair[0], "drop 0000000000000001", NULL, 0), 0);
	assert_int_equal(weft_holder_send(pair[0], "hold 0000000000000004", fds, 0), 0);
	struct pollfd p = {.fd = pair[0], .events = POLLIN};
	assert_int_equal(poll(&p, 1, 200), 0);
	assert_int_equal(weft_holder_send(pair[0], "bye", NULL, 0), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(pair[0]);
}

/* Starts weft-serve as systemd would: with the notification socket and what it stored. */
static pid_t start_service(const char *log)
{
	const char *bin = getenv("WEFT_BIN");
	char program[512], all_names[1024] = "", text[32];

	snprintf(program, sizeof(program), "%s/weft-serve", bin);
	manager.ready = manager.stopping = false;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid > 0)
		return pid;
	int out = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	dup2(out, 1);
	dup2(out, 2);
	/* Away from 3 and up first, so that nothing is overwritten before it was moved. */
	int high[MAX_STORED];
	for (int i = 0; i < manager.nr; i++) {
		high[i] = fcntl(manager.fds[i], F_DUPFD, 100);
		snprintf(all_names + strlen(all_names), sizeof(all_names) - strlen(all_names),
			"%s%s", i ? ":" : "", manager.names[i]);
	}
	for (int i = 0; i < manager.nr; i++) {
		dup2(high[i], 3 + i);
		close(high[i]);
	}
	if (manager.nr > 0) {
		snprintf(text, sizeof(text), "%d", (int)getpid());
		setenv("LISTEN_PID", text, 1);
		snprintf(text, sizeof(text), "%d", manager.nr);
		setenv("LISTEN_FDS", text, 1);
		setenv("LISTEN_FDNAMES", all_names, 1);
	}
	setenv("NOTIFY_SOCKET", notify_path, 1);
	snprintf(text, sizeof(text), "%d", (int)getpid());
	setenv("SYSTEMD_EXEC_PID", text, 1);
	setenv("FDSTORE", "8", 1);
	execl(program, program, "--memory", "scratch=1M", "--listen", "127.0.0.1:0", (char *)NULL);
	_exit(127);
}

static void read_epoch(const char *log, char epoch[17])
{
	char line[512];
	FILE *f = fopen(log, "r");

	epoch[0] = '\0';
	while (fgets(line, sizeof(line), f)) {
		char *at = strstr(line, "region 'scratch': ");

		if (at && (at = strstr(at, "epoch ")))
			snprintf(epoch, 17, "%.16s", at + 6);
	}
	fclose(f);
}

static bool log_has(const char *log, const char *text)
{
	char line[512];
	bool has = false;
	FILE *f = fopen(log, "r");

	while (fgets(line, sizeof(line), f))
		has |= strstr(line, text) != NULL;
	fclose(f);
	return has;
}

static void a_killed_service_comes_back_with_its_memory(void **state)
{
	char log[80], first[17], second[17];
	int status;

	SKIP_IF_EMULATED(NULL, "does not start programs of the architecture that it emulates");
	snprintf(log, sizeof(log), "%s/log", dir);
	pid_t pid = start_service(log);
	hear(&manager.ready);
	assert_int_equal(manager.nr, 2);
	read_epoch(log, first);
	assert_int_equal(strlen(first), 16);
	/* Not systemd's way and a holder's as well. */
	assert_false(log_has(log, "weftholder"));
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);

	int before = manager.nr;
	pid = start_service(log);
	hear(&manager.ready);
	assert_true(log_has(log, "recovered region 'scratch'"));
	read_epoch(log, second);
	assert_string_equal(first, second);
	/* Stored again under the same name; systemd itself drops such a copy. */
	for (int i = before; i < manager.nr; i++)
		assert_string_equal(manager.names[i], manager.names[0]);
	kill(pid, SIGTERM);
	hear(&manager.stopping);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	unlink(log);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_stored_region_is_found_by_name),
		TEST(a_holder_that_is_full_says_so),
		TEST(strangers_among_the_descriptors_are_left_alone),
		TEST(a_killed_service_comes_back_with_its_memory),
	};
	char command[64], bin[512];

	if (!mkdtemp(dir))
		return 1;
	snprintf(notify_path, sizeof(notify_path), "%s/notify", dir);
	setenv("WEFT_RUN_DIR", dir, 1);
	/* build/<preset>/tests/unit/holder: the programs are in build/<preset>/bin. */
	ssize_t n = readlink("/proc/self/exe", bin, sizeof(bin) - 16);
	for (int up = 0; up < 3 && n > 0; up++)
		n = (char *)memrchr(bin, '/', (size_t)n) - bin;
	strcpy(bin + n, "/bin");
	setenv("WEFT_BIN", bin, 0);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command) != 0 || failed;
}
