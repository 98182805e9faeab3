/* SPDX-License-Identifier: MIT */
/*
 * The device front-end over the kernel's ublk driver: /dev/ublkbN.
 *
 * The control thread makes, takes over and ends the device here; the lanes serve its queues
 * (ublk-queue.c).
 *
 * A device outlives its bridge. The kernel then keeps new requests, and those that the dead bridge
 * had not answered, for as long as it takes, until another bridge takes the device over or `weft
 * detach` ends it. That bridge has a grant by then, which fences the dead one: old operations
 * cannot overtake the repeated requests.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "nbd-bridge/device/device.h"
#include "nbd-bridge/front/front.h"
#include "nbd-bridge/device/ublk-queue.h"

enum {
	GONE_MS = 10000, /* for the kernel to be done with a process that was killed … */
	/* … and with all its resources; an RDMA connection whose peer is out of reach takes 51 s */
	FREED_MS = 60000,
	TELL_MS = 3000,   /* when to tell the user what it waits for */
	NODE_MS = 5000,  /* for udev to make /dev/ublkcN */
};

struct ublk_device {
	struct bridge_front base;
	struct ublk_control *control;
	struct bridge_device id;
	struct ublksrv_ctrl_dev_info info;
	int cdev;
	bool there, stopped; /* the kernel has it */
	_Atomic bool gone;
	unsigned nr_queues;
	struct ublk_queue *queues[BRIDGE_MAX_LANES];
	struct bridge_ring *rings[BRIDGE_MAX_LANES]; /* by lane */
};

static const char *name_of(const struct ublk_device *device)
{
	return device->id.path + strlen("/dev/");
}

/* ---- what a device is known by ---- */

int bridge_ublk_device_index(const char *path)
{
	return bridge_device_index(path, "/dev/ublkb");
}

/*
 * The 64 random bits at the end of "weft:NAME:0123456789abcdef"; the driver has room for as many.
 * 0: there are none.
 */
static uint64_t key_of(const struct bridge_device *device)
{
	const char *colon = strrchr(device->backend, ':');

	return colon ? strtoull(colon + 1, NULL, 16) : 0;
}

static bool find(struct ublk_control *control, const struct bridge_device *device,
	struct ublksrv_ctrl_dev_info *ret)
{
	DIR *dir = key_of(device) ? opendir("/sys/class/ublk-char") : NULL;
	struct dirent *entry;
	unsigned number;
	bool found = false;

	if (!dir)
		return false;
	while (!found && (entry = readdir(dir)) != NULL)
		found = sscanf(entry->d_name, "ublkc%u", &number) == 1 &&
			ublk_control_info(control, number, ret) == 0 &&
			ret->ublksrv_flags == key_of(device);
	closedir(dir);
	return found;
}

bool bridge_ublk_device_find(const struct bridge_device *device, char *path, size_t len)
{
	struct ublksrv_ctrl_dev_info info;
	struct ublk_control *control;

	if (!device->backend[0] || ublk_control_new(&control, NULL) < 0)
		return false;
	bool found = find(control, device, &info);
	if (found)
		snprintf(path, len, "/dev/ublkb%u", info.dev_id);
	ublk_control_free(control);
	return found;
}

int bridge_ublk_device_is(const char *path, const char *backend)
{
	struct bridge_device device = {0};
	struct ublksrv_ctrl_dev_info info;
	struct ublk_control *control;
	unsigned number;

	snprintf(device.backend, sizeof(device.backend), "%s", backend);
	if (sscanf(path, "/dev/ublkb%u", &number) != 1)
		return 0;
	int r = ublk_control_new(&control, NULL);
	if (r < 0)
		return r;
	r = ublk_control_info(control, number, &info);
	if (r == 0)
		r = info.ublksrv_flags == key_of(&device);
	ublk_control_free(control);
	return r;
}

/* Ends a device without a server; requests that wait for it fail. */
static int remove_left(struct ublk_control *control, struct ublksrv_ctrl_dev_info *info)
{
	uint64_t end_ns = weft_now_ns() + GONE_MS * UINT64_C(1000000);
	int r;

	/* The kernel may not be done with its last process. */
	while (info->state == UBLK_S_DEV_LIVE && weft_now_ns() < end_ns) {
		usleep(5000);
		if (ublk_control_info(control, info->dev_id, info) < 0)
			return 0;
	}
	r = ublk_control_stop(control, info->dev_id, GONE_MS);
	return r < 0 ? r : ublk_control_del(control, info->dev_id);
}

int bridge_ublk_device_clear(const struct bridge_device *device, bool force, struct weft_error *err)
{
	struct ublksrv_ctrl_dev_info info;
	struct ublk_control *control;
	char name[32];
	int r = 0;

	if (!device->backend[0] || ublk_control_new(&control, NULL) < 0)
		return 0;
	if (find(control, device, &info)) {
		json_t *texts = json_array();

		snprintf(name, sizeof(name), "ublkb%u", info.dev_id);
		if (!force && bridge_device_users(name, texts) > 0)
			r = bridge_device_say_busy(name, err);
		else if ((r = remove_left(control, &info)) < 0)
			weft_error_set(err, -r, "cannot remove /dev/%s: %s", name, strerror(-r));
		else
			r = 1;
		json_decref(texts);
	}
	ublk_control_free(control);
	return r;
}

int bridge_ublk_check(struct weft_error *err)
{
	struct ublk_control *control;
	int r = ublk_control_new(&control, err);

	if (r == 0)
		ublk_control_free(control);
	return r;
}

/* ---- its queues ---- */

static int open_cdev(struct ublk_device *device, struct weft_error *err)
{
	uint64_t end_ns = weft_now_ns() + NODE_MS * UINT64_C(1000000);
	char path[32];

	snprintf(path, sizeof(path), "/dev/ublkc%u", device->info.dev_id);
	for (;;) {
		device->cdev = open(path, O_RDWR | O_CLOEXEC);
		if (device->cdev >= 0)
			return 0;
		if (errno != ENOENT || weft_now_ns() > end_ns)
			return weft_error_set(err, errno, "cannot open %s: %s", path,
				strerror(errno));
		usleep(1000);
	}
}

struct begin {
	struct ublk_device *device;
	unsigned index;
	struct weft_error *err;
	int result;
};

/* A lane has one ring for all of its queues. */
static void begin(struct bridge_lane *lane, void *ctx)
{
	struct begin *b = ctx;
	struct ublk_device *device = b->device;
	struct bridge *bridge = device->base.bridge;
	const unsigned nr_lanes = bridge_nr_lanes(bridge), nr_queues = device->info.nr_hw_queues;
	struct bridge_ring **ring = &device->rings[b->index % nr_lanes];
	struct ublk_queue_config config = {
		.bridge = bridge,
		.lane = lane,
		.cdev = device->cdev,
		.index = (uint16_t)b->index,
		.depth = device->info.queue_depth,
		.size_bytes = bridge_info(bridge)->size_bytes,
		.gone = &device->gone,
	};

	if (!*ring) {
		b->result = bridge_ring_new(bridge_lane_loop(lane),
			(nr_queues + nr_lanes - 1) / nr_lanes * config.depth, ring);
		if (b->result < 0) {
			weft_error_set(b->err, -b->result, "cannot make an io_uring: %s",
				strerror(-b->result));
			return;
		}
	}
	config.ring = *ring;
	b->result = ublk_queue_new(&config, &device->queues[b->index], b->err);
	if (b->result < 0)
		return;
	device->nr_queues++;
	b->result = ublk_queue_begin(device->queues[b->index], b->err);
}

static int begin_queues(struct ublk_device *device, struct weft_error *err)
{
	struct bridge *bridge = device->base.bridge;
	int r = open_cdev(device, err);

	for (unsigned i = 0; i < device->info.nr_hw_queues && r == 0; i++) {
		struct begin b = {.device = device, .index = i, .err = err};

		bridge_lane_run(bridge_lane(bridge, i % bridge_nr_lanes(bridge)), begin, &b);
		r = b.result;
	}
	return r;
}

struct end {
	struct ublk_device *device;
	unsigned lane;
};

/* Ends a lane's queues, and its ring with their queued commands. */
static void end_lane(struct bridge_lane *lane, void *ctx)
{
	const struct end *end = ctx;
	struct ublk_device *device = end->device;

	for (unsigned i = end->lane; i < device->nr_queues;
		i += bridge_nr_lanes(device->base.bridge))
		ublk_queue_end(device->queues[i]);
	bridge_ring_free(device->rings[end->lane]);
	device->rings[end->lane] = NULL;
}

static void end_queues(struct ublk_device *device)
{
	struct bridge *bridge = device->base.bridge;

	for (unsigned i = 0; i < bridge_nr_lanes(bridge); i++) {
		struct end end = {.device = device, .lane = i};

		if (device->rings[i])
			bridge_lane_run(bridge_lane(bridge, i), end_lane, &end);
	}
	weft_close_fd(device->cdev);
	device->cdev = -1;
}

static void free_queue(struct bridge_lane *lane, void *ctx)
{
	ublk_queue_free(ctx);
}

/* ---- making it ---- */

static void fill_params(const struct bridge *bridge, struct ublk_params *ret)
{
	const struct tp_info *info = bridge_info(bridge);
	const bool can_flush = info->can_flush || bridge_is_managed(bridge);
	/* a request's length in bytes has 32 bits */
	const uint32_t most = (UINT32_MAX >> 9) & ~UINT32_C(7);
	uint8_t shift = 9;

	while ((1u << shift) < bridge_device_block_bytes(info))
		shift++;
	*ret = (struct ublk_params){
		.types = UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD,
		.basic =
			{
				.attrs = (info->read_only ? UBLK_ATTR_READ_ONLY : 0) |
					(can_flush ? UBLK_ATTR_VOLATILE_CACHE : 0) |
					(can_flush && info->can_fua ? UBLK_ATTR_FUA : 0),
				.logical_bs_shift = shift,
				.physical_bs_shift = 12,
				.io_min_shift = 12,
				.io_opt_shift = 0,
				.max_sectors = UBLK_MAX_IO_BYTES >> 9,
				.dev_sectors = info->size_bytes >> 9,
			},
		.discard =
			{
				.discard_granularity = 4096,
				.max_discard_sectors = info->can_trim ? most : 0,
				.max_discard_segments = 1,
				.max_write_zeroes_sectors = info->can_zero ? most : 0,
			},
	};
}

static void set_path(struct ublk_device *device)
{
	snprintf(device->id.path, sizeof(device->id.path), "/dev/ublkb%u", device->info.dev_id);
	device->id.nr_connections = device->info.nr_hw_queues;
}

static int make(struct ublk_device *device, const char *path, struct weft_error *err)
{
	const struct bridge *bridge = device->base.bridge;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct ublk_params params;
	int r;

	device->info = (struct ublksrv_ctrl_dev_info){
		/* The kernel has as many queues as processors at most. */
		.nr_hw_queues =
			(uint16_t)weft_min(bridge_nr_lanes(bridge), cpus < 1 ? 1 : (uint64_t)cpus),
		.queue_depth = UBLK_DEPTH,
		.max_io_buf_bytes = UBLK_MAX_IO_BYTES,
		.dev_id = path ? (uint32_t)bridge_ublk_device_index(path) : UINT32_MAX,
		.flags = UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE |
			UBLK_F_NEED_GET_DATA | UBLK_F_CMD_IOCTL_ENCODE,
		.ublksrv_flags = key_of(&device->id),
	};
	r = ublk_control_add(device->control, &device->info);
	if (r == -EEXIST)
		return weft_error_set(err, EBUSY,
			"%s is somebody else's; give another, or --device alone for one that is "
			"free",
			path);
	if (r < 0)
		return weft_error_set(err, -r, "cannot make a ublk device: %s%s", strerror(-r),
			r == -EPERM || r == -EACCES ? "; it needs root (CAP_SYS_ADMIN)" : "");
	device->there = true;
	set_path(device);
	fill_params(bridge, &params);
	r = ublk_control_set_params(device->control, device->info.dev_id, &params);
	return r < 0 ? weft_error_set(err, -r,
			       "the kernel refuses a device with this region's properties: %s",
			       strerror(-r))
		     : 0;
}

/* -EBUSY: the kernel is not done with the dead bridge. */
static int begin_recovery(struct ublk_device *device)
{
	const uint64_t begin_ns = weft_now_ns();
	bool told = false;
	int r;

	while ((r = ublk_control_start_recovery(device->control, device->info.dev_id)) == -EBUSY) {
		uint64_t waited_ms = (weft_now_ns() - begin_ns) / 1000000;

		if (waited_ms >= FREED_MS)
			break;
		if (waited_ms >= TELL_MS && !told)
			weft_info("waiting for the kernel to be done with the bridge of %s that "
				  "died, pid %d",
				device->id.path, device->info.ublksrv_pid);
		told |= waited_ms >= TELL_MS;
		usleep(5000);
	}
	return r;
}

static void abort_queue(struct bridge_lane *lane, void *ctx)
{
	ublk_queue_abort(ctx);
}

/* The device of an earlier bridge, with its users. */
static int take_over(struct ublk_device *device, const char *path, struct weft_error *err)
{
	struct ublk_params was, is;

	set_path(device);
	int r = bridge_device_check_earlier(device->id.path, path,
		bridge_info(device->base.bridge)->read_only, err);

	if (r < 0)
		return r;
	fill_params(device->base.bridge, &is);
	r = ublk_control_get_params(device->control, device->info.dev_id, &was);
	/*
	 * Its FLUSH and FUA may come from another transport's abilities; every transport answers
	 * both.
	 */
	if (r == 0 &&
		(was.basic.dev_sectors != is.basic.dev_sectors ||
			was.basic.logical_bs_shift < is.basic.logical_bs_shift ||
			was.basic.max_sectors > is.basic.max_sectors ||
			device->info.nr_hw_queues > BRIDGE_MAX_LANES))
		return weft_error_set(err, EINVAL,
			"%s was made for a region with another size, or smaller blocks; clear it "
			"with weft detach",
			device->id.path);
	if (r == 0)
		r = begin_recovery(device);
	return r < 0 ? weft_error_set(err, -r, "cannot take %s over: %s%s", device->id.path,
			       strerror(-r),
			       r == -EBUSY ? ": the kernel is not done with the bridge that died "
					     "yet; try again"
				       : r == -ETIMEDOUT ? ": the kernel does not answer; try again"
							 : "")
		     : 0;
}

static void abort_queues(struct ublk_device *device)
{
	for (unsigned i = 0; i < device->nr_queues; i++)
		bridge_lane_run(device->queues[i]->config.lane, abort_queue, device->queues[i]);
}

/*
 * While the lanes serve the queues: the kernel makes the disk and reads its partition table, or
 * gives the disk back to its users.
 */
static int begin_disk(struct ublk_device *device, bool recover, struct weft_error *err)
{
	int r = recover ? ublk_control_end_recovery(device->control, device->info.dev_id)
			: ublk_control_start(device->control, device->info.dev_id);

	if (r < 0 && r != -ETIMEDOUT)
		return weft_error_set(err, -r, "cannot start %s: %s", device->id.path,
			strerror(-r));
	if (r == 0)
		return 0;
	weft_error_set(err, ETIMEDOUT,
		"cannot start %s: the kernel has not said within a minute that it has it; %s; try "
		"again",
		device->id.path,
		recover ? "its users wait until another bridge takes it over"
			: "it reads the partition table first, so see whether the donor answers");
	if (recover)
		return -ETIMEDOUT;
	/* Requests that the disk waits for fail now, so that the command ends. */
	abort_queues(device);
	ublk_control_free(device->control);
	device->control = NULL;
	if (ublk_control_new(&device->control, NULL) < 0)
		device->there = false;
	return -ETIMEDOUT;
}

/* ---- the front-end ---- */

static unsigned users(struct bridge_front *base, json_t *texts)
{
	const struct ublk_device *device = weft_container_of(base, struct ublk_device, base);

	return device->stopped || device->gone ? 0 : bridge_device_users(name_of(device), texts);
}

/*
 * Removes the device: the kernel finishes requests in flight, and refuses new ones.  Requests that
 * are not finished in time fail.  A process that still has the device open holds nothing but a
 * name.
 */
static int remove_device(struct ublk_device *device, uint32_t timeout_ms, struct weft_error *err)
{
	int r = ublk_control_stop(device->control, device->info.dev_id, timeout_ms);

	if (r == -ETIMEDOUT) {
		weft_warn("requests in flight on %s fail: the donor did not answer",
			device->id.path);
		abort_queues(device);
		r = ublk_control_stop_wait(device->control);
	}
	if (r < 0 && r != -ENODEV)
		return weft_error_set(err, -r, "cannot stop %s: %s", device->id.path, strerror(-r));
	device->stopped = true;
	end_queues(device);
	r = ublk_control_del(device->control, device->info.dev_id);
	if (r < 0 && r != -ENODEV)
		return weft_error_set(err, -r, "cannot remove %s: %s", device->id.path,
			strerror(-r));
	return 0;
}

static int stop(struct bridge_front *base, bool force, uint32_t timeout_ms, struct weft_error *err)
{
	struct ublk_device *device = weft_container_of(base, struct ublk_device, base);
	int held = -1, r;

	if (device->stopped)
		return 0;
	if (!device->gone) {
		r = bridge_device_hold(name_of(device), force, timeout_ms / 2, &held, err);
		if (r < 0)
			return r;
	}
	r = remove_device(device, timeout_ms / 2, err);
	weft_close_fd(held);
	return r;
}

static bool gone(struct bridge_front *base)
{
	const struct ublk_device *device = weft_container_of(base, struct ublk_device, base);

	return device->gone && !device->stopped;
}

static void forget(struct bridge_front *base)
{
	bridge_device_forget(name_of(weft_container_of(base, struct ublk_device, base)));
}

static void free_front(struct bridge_front *base)
{
	struct ublk_device *device = weft_container_of(base, struct ublk_device, base);

	end_queues(device);
	for (unsigned i = 0; i < device->nr_queues; i++)
		bridge_lane_run(bridge_lane(base->bridge, i % bridge_nr_lanes(base->bridge)),
			free_queue, device->queues[i]);
	ublk_control_free(device->control);
	free(device);
}

static const struct bridge_front_ops front_ops = {
	.name = "device",
	.users = users,
	.stop = stop,
	.gone = gone,
	.forget = forget,
	.free = free_front,
};

int bridge_front_ublk_new(struct bridge *bridge, const char *path,
	const struct bridge_device *earlier,
	int (*save)(void *ctx, const struct bridge_device *device, struct weft_error *err),
	void *ctx, struct bridge_front **ret, struct weft_error *err)
{
	struct ublk_device *device;
	bool recover;
	int r = bridge_device_check_region(bridge_info(bridge), err);

	if (r < 0)
		return r;
	device = calloc(1, sizeof(*device));
	if (!device)
		return weft_error_set(err, ENOMEM, "cannot make a device: out of memory");
	device->base.ops = &front_ops;
	device->base.bridge = bridge;
	device->id = *earlier;
	device->cdev = -1;
	r = ublk_control_new(&device->control, err);
	if (r < 0)
		goto fail;
	recover = find(device->control, &device->id, &device->info);
	if (recover && device->info.state == UBLK_S_DEV_DEAD) {
		/* The bridge was killed before the device was started, or after it was stopped. */
		ublk_control_del(device->control, device->info.dev_id);
		recover = false;
	}
	if (!recover)
		device->id.path[0] = '\0';
	/* With this stored, the device that is made next can be found again. */
	r = save(ctx, &device->id, err);
	if (r == 0)
		r = recover ? take_over(device, path, err) : make(device, path, err);
	if (r == 0)
		r = begin_queues(device, err);
	if (r == 0)
		r = begin_disk(device, recover, err);
	if (r == 0) {
		bridge_device_tune(name_of(device));
		r = save(ctx, &device->id, err);
	}
	if (r < 0)
		goto fail;
	snprintf(device->base.path, sizeof(device->base.path), "%s", device->id.path);
	*ret = &device->base;
	return 0;
fail:
	if (device->there)
		remove_device(device, GONE_MS, NULL);
	free_front(&device->base);
	return r;
}
