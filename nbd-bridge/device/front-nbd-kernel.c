/* SPDX-License-Identifier: MIT */
/*
 * The device front-end whose data does not come by here: /dev/nbdN, and the kernel's nbd driver
 * holds the donor's TCP socket itself.  Only a socket that the kernel owns may take memory that is
 * kept for freeing memory (sk_set_memalloc), which matters when the kernel swaps to the device.
 *
 * The bridge keeps the session.  The kernel's connection came by the session's alias, so it belongs
 * to the session's generation (fabric/donor/donor.h).  There is one connection, since the driver
 * sends a request again over another of its connections while the first copy may still be on its
 * way to the donor: see nbd-barrier.h.  With one it waits for a new socket.  When the connection
 * has ended, for whatever reason, a session at the next generation is granted first.  That grant
 * means that nothing of the old connection is carried out any more.  Then the driver gets a new
 * socket, and sends again what was not answered.
 *
 * When the contents are lost, the device is disconnected: its users get errors, never the contents
 * of another life.
 *
 * Threads: the control thread's alone.  Connecting blocks it, for CONNECT_MS at most.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/nbd/proto.h"
#include "nbd-bridge/bridge/alias.h"
#include "nbd-bridge/device/device.h"
#include "nbd-bridge/device/nbd-netlink.h"
#include "nbd-bridge/front/front.h"

#define NS_PER_S UINT64_C(1000000000)

enum {
	/*
	 * After this time without an answer the driver gives the connection up, and so long may
	 * requests stand still that were in flight when it was lost.  The whole queue, 128 requests
	 * of MAX_SECTORS_KB, has to fit into it on a slow network.
	 */
	TIMEOUT_S = 10,
	FOR_EVER_S = 1000000000,
	CONNECT_MS = 3000,
	SETTLE_NS = 20000000,   /* for the driver to see that its socket is dead */
	LOOK_NS = 100000000,    /* how often to look for a session, or try again */
	RENEW_NS = 300000000,   /* a session that is still there is given up after so long */
	TAKE_OVER_MS = 5000,    /* for the driver to see that the dead bridge's socket is dead */
};
#define MAX_SECTORS_KB "256"

enum kernel_state {
	KERNEL_NONE,    /* not made yet, or stopped */
	KERNEL_LIVE,    /* the driver has a socket */
	KERNEL_WAITING, /* waits for a session at another generation */
	KERNEL_ENDED,   /* the contents are lost: disconnected */
	KERNEL_GONE,    /* the device is not ours any more */
};

struct kernel_device {
	struct bridge_front base;
	struct weft_loop *loop;
	struct weft_watch watch; /* our descriptor of the driver's socket; -1: there is none */
	struct weft_timer timer;
	struct bridge_device id;
	int number; /* -1: not made yet */
	uint32_t dead_conn_s;
	enum kernel_state state;
	uint64_t generation; /* of the session that the socket belongs, or belonged, to */
	uint64_t lost_ns;    /* when the socket was found dead, or the session given up */
	uint64_t nr_sockets;
	char path[160];
};

static struct kernel_device *to_kernel(struct bridge_front *base)
{
	return weft_container_of(base, struct kernel_device, base);
}

static const char *name_of(const struct kernel_device *device)
{
	return device->id.path + strlen("/dev/");
}

static void wait_for(struct kernel_device *device, uint64_t ns)
{
	weft_loop_timer_set(device->loop, &device->timer, ns);
}

static void drop_socket(struct kernel_device *device)
{
	if (device->watch.fd < 0)
		return;
	weft_loop_remove(device->loop, &device->watch);
	/* The driver does not use it any more either. */
	shutdown(device->watch.fd, SHUT_RDWR);
	close(device->watch.fd);
	device->watch.fd = -1;
}

/*
 * Whether the driver uses the socket.  RECONFIGURE ignores a socket, and says nothing, while the
 * driver thinks that its old one lives; in one that it uses it sets a time-out for sending.
 */
static bool was_taken(int fd)
{
	struct timeval timeout = {0};
	socklen_t len = sizeof(timeout);

	return getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, &len) == 0 && timeout.tv_sec > 0;
}

static uint16_t flags_of(const struct tp_info *info)
{
	const bool writes = !info->read_only;

	return (uint16_t)(NBD_FLAG_HAS_FLAGS | (writes ? 0 : NBD_FLAG_READ_ONLY) |
		(info->can_flush ? NBD_FLAG_SEND_FLUSH : 0) |
		(info->can_fua ? NBD_FLAG_SEND_FUA : 0) |
		(info->can_trim && writes ? NBD_FLAG_SEND_TRIM : 0) |
		(info->can_zero && writes ? NBD_FLAG_SEND_WRITE_ZEROES : 0) |
		(info->can_multi_conn ? NBD_FLAG_CAN_MULTI_CONN : 0));
}

/* Our end of it: that the connection has ended is all that we hear of it. */
static int watch_socket(struct kernel_device *device, int fd, struct weft_error *err)
{
	device->watch.fd = fd;
	int r = weft_loop_add(device->loop, &device->watch, EPOLLRDHUP);
	if (r < 0) {
		device->watch.fd = -1;
		return weft_error_set(err, -r, "cannot watch its socket: %s", strerror(-r));
	}
	return 0;
}

static int tell_driver(const struct kernel_device *device, const struct tp_info *info, int fd,
	bool anew, struct weft_error *err)
{
	const struct nbd_netlink_device told = {
		.index = device->number,
		.size_bytes = info->size_bytes,
		.block_bytes = bridge_device_block_bytes(info),
		.flags = flags_of(info),
		.timeout_s = TIMEOUT_S,
		.dead_conn_s = device->dead_conn_s,
		.backend = device->id.backend,
		.fds = &fd,
		.nr_fds = 1,
	};
	int r = anew ? nbd_netlink_connect(&told, err) : nbd_netlink_reconfigure(&told, err);

	if (r >= 0 && !was_taken(fd))
		return weft_error_set(err, EAGAIN, "the kernel's old socket is not dead yet");
	return r;
}

/* Connects, and gives the driver the socket.  The device's number, or -errno. */
static int give_socket(struct kernel_device *device, bool anew, struct weft_error *err)
{
	struct bridge *bridge = device->base.bridge;
	uint64_t generation;
	struct tp_info info;
	int fd = bridge_alias_open(bridge, CONNECT_MS, &generation, &info, err), r;

	if (fd < 0)
		return fd;
	if (info.size_bytes != bridge_info(bridge)->size_bytes ||
		info.read_only != bridge_info(bridge)->read_only)
		r = weft_error_set(err, EPROTO, "the donor has another region by the alias");
	else
		r = tell_driver(device, &info, fd, anew, err);
	int watched = r < 0 ? 0 : watch_socket(device, fd, err);
	if (r < 0 || watched < 0) {
		close(fd);
		return r < 0 ? r : watched;
	}
	device->generation = generation;
	device->state = KERNEL_LIVE;
	device->nr_sockets++;
	memcpy(device->path, info.path, sizeof(device->path));
	return r;
}

static bool is_ours(const struct kernel_device *device)
{
	char path[32];

	return bridge_nbd_device_find(&device->id, path, sizeof(path)) &&
		strcmp(path, device->id.path) == 0;
}

static bool is_stale(const struct kernel_device *device)
{
	return strcmp(bridge_state(device->base.bridge, NULL), "stale") == 0;
}

static void on_end(struct weft_watch *watch, uint32_t events)
{
	struct kernel_device *device = weft_container_of(watch, struct kernel_device, watch);

	drop_socket(device);
	device->state = KERNEL_WAITING;
	device->lost_ns = weft_now_ns();
	wait_for(device, SETTLE_NS);
}

/* Nobody may see what the region has now. */
static void end_device(struct kernel_device *device)
{
	struct weft_error err;

	device->state = KERNEL_ENDED;
	if (nbd_netlink_disconnect(device->number, &err) < 0)
		weft_warn("cannot disconnect %s: %s", device->id.path, err.message);
	else
		weft_err("%s is disconnected, and fails whatever is asked of it: its contents are "
			 "lost",
			device->id.path);
}

/* A session is there: the socket's, or one after it. */
static void go_on(struct kernel_device *device, uint64_t generation)
{
	struct weft_error err = {0};

	if (generation > device->generation) {
		if (give_socket(device, false, &err) >= 0) {
			bridge_device_set(name_of(device), "max_sectors_kb", MAX_SECTORS_KB);
			return;
		}
		weft_debug("no socket for %s, trying again: %s", device->id.path, err.message);
	} else if (weft_now_ns() - device->lost_ns > RENEW_NS) {
		device->lost_ns = weft_now_ns();
		bridge_alias_renew(device->base.bridge, "the kernel's connection has ended");
	}
	wait_for(device, LOOK_NS);
}

static void on_timer(struct weft_timer *timer)
{
	struct kernel_device *device = weft_container_of(timer, struct kernel_device, timer);

	if (device->state != KERNEL_WAITING)
		return;
	if (!is_ours(device)) {
		weft_warn("%s was disconnected by somebody else", device->id.path);
		device->state = KERNEL_GONE;
		weft_loop_wake(device->loop);
		return;
	}
	if (is_stale(device)) {
		end_device(device);
		return;
	}
	go_on(device, bridge_alias_generation(device->base.bridge));
}

/* ---- the front-end ---- */

static unsigned users(struct bridge_front *base, json_t *texts)
{
	const struct kernel_device *device = to_kernel(base);

	return device->number < 0 || device->state == KERNEL_GONE
		? 0
		: bridge_device_users(name_of(device), texts);
}

static int stop(struct bridge_front *base, bool force, uint32_t timeout_ms, struct weft_error *err)
{
	struct kernel_device *device = to_kernel(base);
	int r = 0, held = -1;

	if (device->state == KERNEL_NONE)
		return 0;
	if (device->state != KERNEL_GONE && is_ours(device)) {
		r = bridge_device_hold(name_of(device), force, timeout_ms / 2, &held, err);
		if (r < 0)
			return r;
		/* While nobody else can have it. */
		bridge_device_take_back(name_of(device));
		r = nbd_netlink_disconnect(device->number, err);
	}
	weft_close_fd(held);
	if (r < 0 && !force) {
		weft_error_prefix(err, "cannot disconnect %s", device->id.path);
		return r;
	}
	weft_loop_timer_cancel(device->loop, &device->timer);
	drop_socket(device);
	device->state = KERNEL_NONE;
	return 0;
}

static bool gone(struct bridge_front *base)
{
	return to_kernel(base)->state == KERNEL_GONE;
}

static void forget(struct bridge_front *base)
{
	bridge_device_forget(name_of(to_kernel(base)));
}

static json_t *status(struct bridge_front *base)
{
	static const char *const states[] = {
		[KERNEL_NONE] = "stopped",
		[KERNEL_LIVE] = "connected",
		[KERNEL_WAITING] = "reconnecting",
		[KERNEL_ENDED] = "ended",
		[KERNEL_GONE] = "gone",
	};
	const struct kernel_device *device = to_kernel(base);

	return json_pack("{s:s, s:s, s:I, s:i}", "state", states[device->state], "path",
		device->path, "sockets", (json_int_t)device->nr_sockets, "timeout_s", TIMEOUT_S);
}

static void free_front(struct bridge_front *base)
{
	struct kernel_device *device = to_kernel(base);

	weft_loop_timer_cancel(device->loop, &device->timer);
	/* A device that is left is the next bridge's, and so is its socket. */
	if (device->watch.fd >= 0) {
		weft_loop_remove(device->loop, &device->watch);
		close(device->watch.fd);
	}
	free(device);
}

static const struct bridge_front_ops front_ops = {
	.name = "device",
	.users = users,
	.stop = stop,
	.gone = gone,
	.forget = forget,
	.status = status,
	.free = free_front,
};

/* The dead bridge's socket was fenced by our grant; the driver will see it. */
static int take_over(struct kernel_device *device, const char *path, struct weft_error *err)
{
	uint64_t end_ns = weft_now_ns() + TAKE_OVER_MS * UINT64_C(1000000);
	int r = bridge_device_check_earlier(device->id.path, path,
		bridge_info(device->base.bridge)->read_only, err);

	if (r < 0)
		return r;
	if (device->id.nr_connections != 1)
		return weft_error_set(err, EINVAL,
			"%s was made without --kernel-socket, and is taken over in the same way "
			"only; or end it with weft detach",
			device->id.path);
	device->number = bridge_nbd_device_index(device->id.path);
	while ((r = give_socket(device, false, err)) == -EAGAIN && weft_now_ns() < end_ns)
		usleep(50000);
	return r < 0 ? weft_error_prefix(err, "cannot take %s over", device->id.path) : 0;
}

/* A stale attachment has no contents for a device: that of a dead bridge ends. */
static int take_over_stale(struct kernel_device *device, bool is_there, struct weft_error *err)
{
	if (!is_there)
		return weft_error_set(err, ESTALE,
			"its contents are lost, and its device has ended; clear the rest away with "
			"weft detach --force");
	device->number = bridge_nbd_device_index(device->id.path);
	end_device(device);
	return 0;
}

static int connect_new(struct kernel_device *device, const char *path, struct weft_error *err)
{
	int r, tries = 0;

	device->number = path ? bridge_nbd_device_index(path) : -1;
	/* A program that looks at new devices may have it open for a moment. */
	while ((r = give_socket(device, true, err)) == -EBUSY && tries++ < 10)
		usleep(50000);
	if (r == -EBUSY)
		return weft_error_set(err, EBUSY,
			"%s is in use by somebody else; give another, or --device alone for one "
			"that is free",
			path ? path : "the device");
	if (r < 0)
		return weft_error_prefix(err, "cannot make %s", path ? path : "a device");
	device->number = r;
	snprintf(device->id.path, sizeof(device->id.path), "/dev/nbd%d", r);
	/* Of a bridge that was killed. */
	bridge_device_take_back(name_of(device));
	return 0;
}

int bridge_front_nbd_kernel_new(struct bridge *bridge, struct weft_loop *loop, const char *path,
	const struct bridge_device *earlier,
	int (*save)(void *ctx, const struct bridge_device *device, struct weft_error *err),
	void *ctx, struct bridge_front **ret, struct weft_error *err)
{
	const uint32_t dead_ms = bridge_config_of(bridge)->attach.dead_timeout_ms;
	int r = bridge_device_check_region(bridge_info(bridge), err);

	if (r < 0)
		return r;
	struct kernel_device *device = calloc(1, sizeof(*device));
	if (!device)
		return weft_error_set(err, ENOMEM, "cannot make a device: out of memory");
	device->base.ops = &front_ops;
	device->base.bridge = bridge;
	device->loop = loop;
	device->id = *earlier;
	device->timer.fn = on_timer;
	device->watch.fn = on_end;
	device->watch.fd = -1;
	device->number = -1;
	device->dead_conn_s = dead_ms ? (uint32_t)weft_max(dead_ms / 1000, 1) : FOR_EVER_S;
	bool is_there =
		bridge_nbd_device_find(&device->id, device->id.path, sizeof(device->id.path));
	if (!is_there) {
		device->id.nr_connections = 1;
		device->id.path[0] = '\0';
	}
	r = save(ctx, &device->id, err);
	if (r == 0 && is_stale(device))
		r = take_over_stale(device, is_there, err);
	else if (r == 0)
		r = is_there ? take_over(device, path, err) : connect_new(device, path, err);
	if (r == 0) {
		bridge_device_tune(name_of(device));
		bridge_device_set(name_of(device), "max_sectors_kb", MAX_SECTORS_KB);
		r = save(ctx, &device->id, err);
	}
	if (r < 0) {
		free_front(&device->base);
		return r;
	}
	snprintf(device->base.path, sizeof(device->base.path), "%s", device->id.path);
	*ret = &device->base;
	return 0;
}
