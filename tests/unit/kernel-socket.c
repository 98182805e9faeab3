/* SPDX-License-Identifier: MIT */
/*
 * The device whose driver holds the donor's socket: when the driver gets a new one, and when it
 * gets none any more.  The donor and the bridge are real; a few lines here stand for the driver,
 * which keeps a reference of the socket and marks it (shell/device-kernel-socket.sh has the real
 * one).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/loop.h"
#include "fabric/base/util.h"
#include "nbd-bridge/bridge/alias.h"
#include "nbd-bridge/device/device.h"
#include "nbd-bridge/device/nbd-netlink.h"
#include "nbd-bridge/front/front.h"
#include "tests/support/nbd-donor.h"
#include "transports/nbd/borrower/client.h"

enum { SIZE = 1 << 20, ID = 3 };

static struct {
	struct nbd_raw raw; /* the driver's reference of the socket */
	unsigned nr_connects, nr_reconfigures, nr_disconnects;
	unsigned ignores; /* so many RECONFIGUREs come before it sees that its socket is dead */
	bool is_there;
	struct nbd_netlink_device told;
} driver;
static struct nbd_donor donor;
static struct bridge *bridge;
static struct weft_loop *loop;
static struct bridge_front *front;
static char port[8];
static uint8_t data[4096], back[4096];

static void take_socket(const struct nbd_netlink_device *device)
{
	const struct timeval timeout = {.tv_sec = (time_t)device->timeout_s};

	if (driver.raw.fd >= 0)
		close(driver.raw.fd);
	assert_int_equal(device->nr_fds, 1);
	driver.raw = (struct nbd_raw){.fd = dup(device->fds[0])};
	setsockopt(driver.raw.fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	driver.told = *device;
}

int __wrap_nbd_netlink_connect(const struct nbd_netlink_device *device, struct weft_error *error);
int __wrap_nbd_netlink_reconfigure(const struct nbd_netlink_device *device,
	struct weft_error *error);
int __wrap_nbd_netlink_disconnect(int index, struct weft_error *error);
bool __wrap_bridge_nbd_device_find(const struct bridge_device *device, char *path, size_t len);
int __wrap_bridge_device_hold(const char *name, bool force, unsigned timeout_ms, int *ret_fd,
	struct weft_error *error);

int __wrap_nbd_netlink_connect(const struct nbd_netlink_device *device, struct weft_error *error)
{
	driver.nr_connects++;
	driver.is_there = true;
	take_socket(device);
	return 7;
}

int __wrap_nbd_netlink_reconfigure(const struct nbd_netlink_device *device,
	struct weft_error *error)
{
	driver.nr_reconfigures++;
	if (driver.ignores > 0)
		driver.ignores--;
	else
		take_socket(device);
	return 0;
}

int __wrap_nbd_netlink_disconnect(int index, struct weft_error *error)
{
	assert_int_equal(index, 7);
	driver.nr_disconnects++;
	driver.is_there = false;
	return 0;
}

bool __wrap_bridge_nbd_device_find(const struct bridge_device *device, char *path, size_t len)
{
	if (driver.is_there)
		snprintf(path, len, "/dev/nbd7");
	return driver.is_there;
}

int __wrap_bridge_device_hold(const char *name, bool force, unsigned timeout_ms, int *ret_fd,
	struct weft_error *error)
{
	*ret_fd = -1;
	return 0;
}

static int save(void *ctx, const struct bridge_device *device, struct weft_error *error)
{
	return 0;
}

static void start_bridge(uint64_t generation, uint64_t epoch)
{
	struct bridge_config config = {
		.attach = {
			.transport = &tp_nbd_ops,
			.host = "127.0.0.1",
			.port = port,
			.region = "m",
			.generation = generation,
			.epoch = epoch,
			.name = "test",
			.mode = WEFT_MODE_WRITE,
			.wants_alias = true,
			.timeout_ms = 5000,
			.dead_timeout_ms = 20000,
			.connect_timeout_ms = 10000,
		},
		.nr_lanes = 1,
	};
	struct weft_error error;

	memset(config.attach.id, ID, sizeof(config.attach.id));
	if (bridge_new(&config, &bridge, &error) < 0 || bridge_start(bridge, &error) < 0)
		fail_msg("%s", error.message);
}

static void make_front(void)
{
	struct bridge_device earlier = {.backend = "weft:test", .nr_connections = 1};
	struct weft_error error;

	if (bridge_front_nbd_kernel_new(
		    bridge, loop, NULL, &earlier, save, NULL, &front, &error) < 0)
		fail_msg("%s", error.message);
}

static int set_up(void **state)
{
	memset(&driver, 0, sizeof(driver));
	driver.raw.fd = -1;
	nbd_donor_start(&donor, SIZE, NULL, 0);
	snprintf(port, sizeof(port), "%u", donor.port);
	assert_int_equal(weft_loop_new(&loop), 0);
	start_bridge(UINT64_C(1) << 32, 0);
	make_front();
	return 0;
}

static int tear_down(void **state)
{
	if (driver.raw.fd >= 0)
		close(driver.raw.fd);
	assert_int_equal(front->ops->stop(front, true, 1000, NULL), 0);
	bridge_stop(bridge, 1000, NULL);
	bridge_front_free(front);
	bridge_free(bridge);
	weft_loop_free(loop);
	nbd_donor_end(&donor);
	return 0;
}

static bool is_in_state(const char *wanted)
{
	json_t *json = front->ops->status(front);
	bool is = strcmp(json_string_value(json_object_get(json, "state")), wanted) == 0;

	json_decref(json);
	return is;
}

/* Lets the front-end work until the driver was asked so often, or the state is this. */
static void work_until(unsigned nr_reconfigures, const char *wanted)
{
	for (int i = 0; driver.nr_reconfigures < nr_reconfigures || !is_in_state(wanted); i++) {
		assert_true(i < 2000);
		weft_loop_step(loop, 10);
	}
}

/* The driver's requests, which arrive or do not. */
static int driver_writes(void)
{
	weft_random(data, sizeof(data));
	return nbd_raw_command(&driver.raw, 0, NBD_CMD_WRITE, 0, sizeof(data), data);
}

static void assert_works(void)
{
	assert_int_equal(driver_writes(), 0);
	assert_int_equal(nbd_raw_command(&driver.raw, 0, NBD_CMD_READ, 0, sizeof(back), back), 0);
	assert_memory_equal(data, back, sizeof(data));
	assert_memory_equal(data, donor.region->map, sizeof(data));
}

static void the_driver_reads_and_writes_at_the_donor(void **state)
{
	const uint16_t wanted = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
		NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN;

	assert_string_equal(front->path, "/dev/nbd7");
	assert_int_equal(driver.told.size_bytes, SIZE);
	assert_int_equal(driver.told.flags, wanted);
	assert_works();
	assert_int_equal(nbd_raw_command(&driver.raw, 0, NBD_CMD_FLUSH, 0, 0, NULL), 0);
	assert_true(is_in_state("connected"));
}

/* What was in flight may be carried out late: not after the driver has a new socket. */
static void a_lost_socket_costs_a_generation(void **state)
{
	uint64_t before = bridge_alias_generation(bridge);

	shutdown(driver.raw.fd, SHUT_RDWR);
	work_until(1, "connected");
	assert_true(bridge_alias_generation(bridge) > before);
	assert_works();
}

static void a_lost_session_costs_the_socket(void **state)
{
	struct nbd_raw old = {.fd = dup(driver.raw.fd)};

	bridge_alias_renew(bridge, "a test");
	work_until(1, "connected");
	assert_true(nbd_raw_ended(&old));
	close(old.fd);
	assert_works();
}

static void a_socket_that_the_driver_ignores_is_given_again(void **state)
{
	driver.ignores = 3;
	shutdown(driver.raw.fd, SHUT_RDWR);
	work_until(4, "connected");
	assert_works();
}

static void another_process_ends_the_device(void **state)
{
	struct nbd_raw other;

	nbd_donor_connect(&donor, &other, true);
	assert_int_equal(nbd_donor_go(&other, "m", ID, UINT64_C(9) << 32, NULL), NBD_REP_ACK);
	work_until(0, "ended");
	assert_int_equal(driver.nr_disconnects, 1);
	assert_int_not_equal(driver_writes(), 0);
	assert_int_equal(driver.nr_reconfigures, 0);
	nbd_raw_close(&other);
}

static void the_next_bridge_gives_the_device_a_socket(void **state)
{
	uint64_t epoch = bridge_info(bridge)->epoch;

	/* The bridge dies: no goodbye, and nobody stops the device. */
	bridge_alias_renew(bridge, "the end");
	bridge_front_free(front);
	bridge_end_lanes(bridge);
	bridge_free(bridge);
	start_bridge(UINT64_C(2) << 32, epoch);
	driver.ignores = 2;
	make_front();
	assert_int_equal(driver.nr_connects, 1);
	assert_int_equal(driver.nr_reconfigures, 3);
	assert_works();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
		TEST(the_driver_reads_and_writes_at_the_donor),
		TEST(a_lost_socket_costs_a_generation),
		TEST(a_lost_session_costs_the_socket),
		TEST(a_socket_that_the_driver_ignores_is_given_again),
		TEST(another_process_ends_the_device),
		TEST(the_next_bridge_gives_the_device_a_socket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
