/* SPDX-License-Identifier: MIT */
/*
 * What is known of the service manager: from the environment, and from a manager that this program
 * plays on a bus.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/donor/supervision.h"

#define UNIT "/org/freedesktop/systemd1/unit/weft_2dserve_2eservice"

static char dir[] = "/tmp/weft-supervision.XXXXXX";

/* The manager's side: one connection. */
static struct {
	uint32_t main_pid, store_max;
	const char *notify_access, *kill_mode, *restart, *preserve;
	int listen_fd;
	unsigned asked;
	pthread_t thread;
} manager;

static int get_unit(sd_bus_message *m, void *data, sd_bus_error *error)
{
	uint32_t pid;

	assert_true(sd_bus_message_read(m, "u", &pid) >= 0);
	assert_int_equal(pid, getpid());
	manager.asked++;
	return sd_bus_reply_method_return(m, "o", UNIT);
}

static int get_property(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *data, sd_bus_error *error)
{
	if (strcmp(property, "MainPID") == 0)
		return sd_bus_message_append(reply, "u", manager.main_pid);
	if (strcmp(property, "FileDescriptorStoreMax") == 0)
		return sd_bus_message_append(reply, "u", manager.store_max);
	if (strcmp(property, "KillMode") == 0)
		return sd_bus_message_append(reply, "s", manager.kill_mode);
	if (strcmp(property, "Restart") == 0)
		return sd_bus_message_append(reply, "s", manager.restart);
	if (strcmp(property, "FileDescriptorStorePreserve") == 0)
		return sd_bus_message_append(reply, "s", manager.preserve);
	return sd_bus_message_append(reply, "s", manager.notify_access);
}

static const sd_bus_vtable manager_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD("GetUnitByPID", "u", "o", get_unit, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};
#define PROPERTY(name, type) SD_BUS_PROPERTY(name, type, get_property, 0, 0)
#define PROPERTIES \
	SD_BUS_VTABLE_START(0), PROPERTY("MainPID", "u"), \
		PROPERTY("FileDescriptorStoreMax", "u"), PROPERTY("NotifyAccess", "s"), \
		PROPERTY("KillMode", "s"), PROPERTY("Restart", "s")

static const sd_bus_vtable service_vtable[] = {PROPERTIES, SD_BUS_VTABLE_END};
static const sd_bus_vtable newer_vtable[] = {PROPERTIES,
	PROPERTY("FileDescriptorStorePreserve", "s"), SD_BUS_VTABLE_END};

static void *run_manager(void *arg)
{
	sd_id128_t id = {.qwords = {1, 2}};
	int fd = accept(manager.listen_fd, NULL, NULL);
	sd_bus *bus = NULL;
	int r;

	if (fd < 0)
		return NULL;
	assert_true(sd_bus_new(&bus) >= 0 && sd_bus_set_fd(bus, fd, fd) >= 0 &&
		sd_bus_set_server(bus, 1, id) >= 0);
	assert_true(sd_bus_add_object_vtable(bus, NULL, "/org/freedesktop/systemd1",
			    "org.freedesktop.systemd1.Manager", manager_vtable, NULL) >= 0);
	assert_true(sd_bus_add_object_vtable(bus, NULL, UNIT, "org.freedesktop.systemd1.Service",
			    manager.preserve ? newer_vtable : service_vtable, NULL) >= 0);
	assert_true(sd_bus_start(bus) >= 0);
	while ((r = sd_bus_process(bus, NULL)) >= 0)
		if (r == 0 && sd_bus_wait(bus, UINT64_MAX) < 0)
			break;
	sd_bus_flush_close_unref(bus);
	return NULL;
}

static void start_manager(uint32_t main_pid, uint32_t store_max, const char *notify_access,
	const char *kill_mode)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	manager.main_pid = main_pid;
	manager.store_max = store_max;
	manager.notify_access = notify_access;
	manager.kill_mode = kill_mode;
	manager.asked = 0;
	manager.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/systemd/private", dir);
	unlink(addr.sun_path);
	assert_int_equal(bind(manager.listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(manager.listen_fd, 1), 0);
	assert_int_equal(pthread_create(&manager.thread, NULL, run_manager, NULL), 0);
}

static int end_manager(void)
{
	shutdown(manager.listen_fd, SHUT_RDWR);
	pthread_join(manager.thread, NULL);
	return close(manager.listen_fd);
}

static int setup(void **state)
{
	unsetenv("NOTIFY_SOCKET");
	unsetenv("FDSTORE");
	unsetenv("SYSTEMD_EXEC_PID");
	return 0;
}

static void set_pid(const char *variable, int pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	setenv(variable, text, 1);
}

static struct weft_supervision find(void)
{
	struct weft_supervision s = {99, true};

	weft_supervision_find(&s);
	return s;
}

static void without_a_manager_there_is_no_store(void **state)
{
	struct weft_supervision s = find();

	assert_int_equal(s.store_max, 0);
	assert_false(s.ends_children);
}

static void a_notification_socket_alone_is_no_store(void **state)
{
	setenv("NOTIFY_SOCKET", "/tmp/somebody", 1);
	struct weft_supervision s = find();
	assert_int_equal(s.store_max, 0);
	assert_false(s.ends_children);
}

static void a_newer_systemd_tells_in_the_environment(void **state)
{
	struct weft_supervision s;

	setenv("NOTIFY_SOCKET", "/tmp/somebody", 1);
	setenv("FDSTORE", "12", 1);
	set_pid("SYSTEMD_EXEC_PID", (int)getpid());
	s = find();
	assert_int_equal(s.store_max, 12);
	/* A child of the service's, which systemd need not listen to. */
	set_pid("SYSTEMD_EXEC_PID", 1);
	s = find();
	assert_int_equal(s.store_max, 0);
	unsetenv("NOTIFY_SOCKET");
	set_pid("SYSTEMD_EXEC_PID", (int)getpid());
	s = find();
	assert_int_equal(s.store_max, 0);
}

static void a_service_without_a_store_ends_with_its_processes(void **state)
{
	set_pid("SYSTEMD_EXEC_PID", (int)getpid());
	struct weft_supervision s = find();
	assert_int_equal(s.store_max, 0);
	assert_true(s.ends_children);
}

static void a_manager_that_can_be_asked_is_asked(void **state)
{
	static const struct {
		bool is_main;
		uint32_t store_max;
		const char *notify_access, *kill_mode, *restart, *preserve;
		struct weft_supervision expected;
	} cases[] = {
		{true, 1024, "main", "control-group", "on-failure", NULL, {1024, true}},
		{true, 1024, "main", "control-group", "always", "restart", {1024, true}},
		/*
		 * What a unit that is not started anew has stored is dropped, unless it is told to
		 * keep it.
		 */
		{true, 1024, "main", "control-group", "no", NULL, {0, true}},
		{true, 1024, "main", "control-group", "on-success", "restart", {0, true}},
		{true, 1024, "main", "control-group", "no", "yes", {1024, true}},
		{true, 1024, "none", "control-group", "always", NULL, {0, true}},
		{true, 0, "main", "mixed", "always", NULL, {0, true}},
		{true, 0, "main", "process", "always", NULL, {0, false}},
		{false, 16, "main", "process", "always", NULL, {0, false}},
		{false, 16, "exec", "process", "always", NULL, {0, false}},
		{false, 16, "all", "none", "always", NULL, {16, false}},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		setenv("NOTIFY_SOCKET", "/tmp/somebody", 1);
		manager.restart = cases[i].restart;
		manager.preserve = cases[i].preserve;
		setenv("FDSTORE", "7", 1);
		start_manager(cases[i].is_main ? (uint32_t)getpid() : 1, cases[i].store_max,
			cases[i].notify_access, cases[i].kill_mode);
		struct weft_supervision s = find();
		end_manager();
		assert_int_equal(manager.asked, 1);
		assert_int_equal(s.store_max, cases[i].expected.store_max);
		assert_int_equal(s.ends_children, cases[i].expected.ends_children);
	}
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup(fn, setup)
	const struct CMUnitTest tests[] = {
		TEST(without_a_manager_there_is_no_store),
		TEST(a_notification_socket_alone_is_no_store),
		TEST(a_newer_systemd_tells_in_the_environment),
		TEST(a_service_without_a_store_ends_with_its_processes),
		TEST(a_manager_that_can_be_asked_is_asked),
	};
	char path[64];

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/systemd", dir);
	mkdir(path, 0700);
	setenv("XDG_RUNTIME_DIR", dir, 1);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(path, sizeof(path), "%s/systemd/private", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/systemd", dir);
	rmdir(path);
	rmdir(dir);
	return failed;
}
