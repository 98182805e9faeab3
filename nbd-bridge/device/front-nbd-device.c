/* SPDX-License-Identifier: MIT */
/*
 * The device front-end over the kernel's nbd driver: /dev/nbdN.
 *
 * The driver gets one end of a socket pair for each connection, a lane the other, as a client that
 * is past its handshake.  The connections are a set (see nbd-barrier.h).  When one has ended, all
 * are ended.  When all requests that came over them have ended too, the driver gets a new set and
 * sends again the requests that were not answered.
 *
 * Threads: the device is the control thread's; clients are their lanes'.  A lane tells that a
 * connection has ended, or that the set is empty, through an eventfd.  Invariant: a set is made
 * only when no client of the last one is left.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "nbd-bridge/front/client.h"
#include "nbd-bridge/device/device.h"
#include "nbd-bridge/front/front.h"
#include "nbd-bridge/device/nbd-barrier.h"
#include "nbd-bridge/device/nbd-netlink.h"

enum {
	/*
	 * After this time a request is sent again.  After a take-over, requests in flight stand
	 * still for this time.
	 */
	TIMEOUT_S = 3,
	MARGIN_S = 5,         /* the driver waits longer than we do, by this */
	LOOK_NS = 100000000,  /* how often to look whether there is a donor again */
	SETTLE_NS = 20000000, /* for the driver to see that its ends are dead */
	SOON_NS = 500000000,  /* after a set that did not live long */
	SHORT_LIFE_S = 2,
};

enum set_state {
	SET_NONE,     /* not made yet, or stopped */
	SET_LIVE,     /* the driver has it */
	SET_DRAINING, /* waits for the end of all requests that came over it */
	SET_WAITING,  /* waits to be made anew */
	SET_GONE,     /* the device is not ours any more */
};

struct nbd_device;

struct connection {
	struct bridge_client client;
	struct nbd_device *device;
	unsigned index;
	enum nbd_cookie_order order;
};

struct nbd_device {
	struct bridge_front base;
	struct weft_loop *loop;
	struct weft_watch watch; /* the eventfd */
	struct weft_timer timer;
	struct bridge_device id;
	int number; /* -1: not made yet */
	uint32_t dead_conn_s;
	enum set_state state;
	uint64_t live_ns;    /* when the set was given to the driver */
	uint64_t waiting_ns; /* since when there is no set */
	uint64_t nr_sets;
	_Atomic unsigned nr_clients;
	struct nbd_barrier barrier;
	/* the lanes free them; valid while they are adopted */
	struct connection *connections[NBD_BARRIER_MAX];
};

static const char *name_of(const struct nbd_device *device)
{
	return device->id.path + strlen("/dev/");
}

static void tell(const struct nbd_device *device)
{
	const uint64_t one = 1;

	/* If it is full it is readable anyway. */
	if (write(device->watch.fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}

/* ---- requests, on their lanes ---- */

static void submit(struct nbd_request *nbd)
{
	struct connection *connection =
		weft_container_of(nbd_conn_user(nbd->conn), struct connection, client);
	struct nbd_device *device = connection->device;
	bool foreign;
	int queue = nbd_cookie_queue(&connection->order, nbd->cookie, device->barrier.nr);

	if (nbd_barrier_pass(&device->barrier, connection->index, queue, &foreign)) {
		nbd->priv[0] = foreign;
		bridge_client_submit(nbd);
		return;
	}
	/* No answer must reach the driver: it will send the request again over the next set. */
	nbd->priv[0] = false;
	nbd_conn_kill(nbd->conn, false);
	tell(device);
	bridge_client_refuse(nbd, -ESHUTDOWN);
}

static int prepare(struct nbd_request *nbd)
{
	nbd->priv[0] = false;
	return bridge_client_prepare(nbd);
}

static void release(struct nbd_request *nbd)
{
	struct connection *connection =
		weft_container_of(nbd_conn_user(nbd->conn), struct connection, client);

	if (nbd->priv[0])
		nbd_barrier_done(&connection->device->barrier);
	bridge_client_release(nbd);
}

static const struct nbd_service service = {
	.prepare = prepare,
	.submit = submit,
	.release = release,
	.close = bridge_client_close,
};

static void ended(struct bridge_client *client)
{
	struct connection *connection = weft_container_of(client, struct connection, client);
	struct nbd_device *device = connection->device;

	/* The barrier's descriptor keeps the socket open. */
	shutdown(device->barrier.fds[connection->index].fd, SHUT_RDWR);
	atomic_store(&device->barrier.over, true);
	tell(device);
}

static void closed(struct bridge_client *client)
{
	struct connection *connection = weft_container_of(client, struct connection, client);
	struct nbd_device *device = connection->device;

	free(connection);
	if (atomic_fetch_sub(&device->nr_clients, 1) == 1)
		tell(device);
}

/* ---- the set ---- */

static void close_set(struct nbd_device *device)
{
	assert(atomic_load(&device->nr_clients) == 0);
	for (unsigned i = 0; i < device->barrier.nr; i++)
		close(device->barrier.fds[i].fd);
	device->barrier.nr = 0;
}

static struct bridge_lane *lane_of(const struct nbd_device *device, unsigned i)
{
	return bridge_lane(device->base.bridge, i % bridge_nr_lanes(device->base.bridge));
}

/* One connection; *ret_theirs: the driver's end. */
static int add_connection(struct nbd_device *device, const struct nbd_export *export,
	int *ret_theirs)
{
	const int bytes = 1 << 20;
	struct connection *connection = calloc(1, sizeof(*connection));
	struct nbd_barrier *barrier = &device->barrier;
	int fds[2], watch;

	if (!connection)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
		free(connection);
		return -errno;
	}
	watch = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
	if (setsockopt(fds[1], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	connection->device = device;
	connection->index = barrier->nr;
	connection->client.bridge = device->base.bridge;
	connection->client.service = &service;
	connection->client.ended = ended;
	connection->client.closed = closed;
	int r = watch < 0 ? -errno : bridge_client_new(&connection->client, fds[0], export);
	if (r < 0) {
		if (watch < 0)
			close(fds[0]);
		else
			close(watch);
		close(fds[1]);
		free(connection);
		return r;
	}
	barrier->fds[barrier->nr] = (struct pollfd){.fd = watch, .events = POLLRDHUP};
	device->connections[barrier->nr++] = connection;
	atomic_fetch_add(&device->nr_clients, 1);
	*ret_theirs = fds[1];
	return 0;
}

/*
 * Makes a set and gives it to the driver.  The device's number, or -errno: then the connections
 * made so far end by themselves.
 */
static int give_set(struct nbd_device *device, bool anew, struct weft_error *err)
{
	const struct tp_info *info = bridge_info(device->base.bridge);
	int theirs[NBD_BARRIER_MAX];
	struct nbd_export export;
	unsigned n;
	int r = 0;

	close_set(device);
	atomic_store(&device->barrier.over, false);
	atomic_store(&device->barrier.nr_foreign, 0);
	bridge_export_fill(device->base.bridge, &export);
	for (n = 0; n < device->id.nr_connections && r == 0; n += r == 0)
		r = add_connection(device, &export, &theirs[n]);
	/* All are known before the first request comes. */
	for (unsigned i = 0; i < n; i++)
		bridge_lane_run(lane_of(device, i), bridge_client_adopt,
			&device->connections[i]->client);
	if (r < 0) {
		weft_error_set(err, -r, "cannot make sockets: %s", strerror(-r));
	} else {
		struct nbd_netlink_device told = {
			.index = device->number,
			.size_bytes = info->size_bytes,
			.block_bytes = bridge_device_block_bytes(info),
			.flags = (uint16_t)(NBD_FLAG_HAS_FLAGS | export.flags),
			.timeout_s = TIMEOUT_S,
			.dead_conn_s = device->dead_conn_s,
			.backend = device->id.backend,
			.fds = theirs,
			.nr_fds = n,
		};

		r = anew ? nbd_netlink_connect(&told, err) : nbd_netlink_reconfigure(&told, err);
	}
	/* Ends the connections that the driver did not take. */
	for (unsigned i = 0; i < n; i++)
		close(theirs[i]);
	device->live_ns = weft_now_ns();
	device->state = SET_LIVE;
	device->nr_sets++;
	return r;
}

/*
 * A client that has ended may be freed by now: only its socket is touched.  Its lane then ends it.
 */
static void shut_set(struct nbd_device *device)
{
	for (unsigned i = 0; i < device->barrier.nr; i++)
		shutdown(device->barrier.fds[i].fd, SHUT_RDWR);
}

static bool is_ours(const struct nbd_device *device)
{
	char path[32];

	return bridge_nbd_device_find(&device->id, path, sizeof(path)) &&
		strcmp(path, device->id.path) == 0;
}

static void wait_for(struct nbd_device *device, uint64_t ns)
{
	weft_loop_timer_set(device->loop, &device->timer, ns);
}

static void on_event(struct weft_watch *watch, uint32_t events)
{
	struct nbd_device *device = weft_container_of(watch, struct nbd_device, watch);
	uint64_t n;

	if (read(watch->fd, &n, sizeof(n)) < 0)
		return;
	if (device->state == SET_LIVE && atomic_load(&device->barrier.over)) {
		device->state = SET_DRAINING;
		shut_set(device);
	}
	if (device->state == SET_DRAINING && atomic_load(&device->nr_clients) == 0) {
		uint64_t now_ns = weft_now_ns();

		device->state = SET_WAITING;
		device->waiting_ns = now_ns;
		wait_for(device,
			now_ns - device->live_ns < SHORT_LIFE_S * UINT64_C(1000000000) ? SOON_NS
										       : SETTLE_NS);
	}
}

/* Whether to leave requests in the kernel, which waits for a while, since there is no donor. */
static bool better_wait(struct nbd_device *device)
{
	uint64_t waited_ns = weft_now_ns() - device->waiting_ns;

	return strcmp(bridge_state(device->base.bridge, NULL), "reconnecting") == 0 &&
	       waited_ns < device->dead_conn_s * UINT64_C(500000000);
}

static void on_timer(struct weft_timer *timer)
{
	struct nbd_device *device = weft_container_of(timer, struct nbd_device, timer);
	struct weft_error err = {0};

	if (device->state != SET_WAITING)
		return;
	if (!is_ours(device)) {
		weft_warn("%s was disconnected by somebody else", device->id.path);
		device->state = SET_GONE;
		weft_loop_wake(device->loop);
		return;
	}
	if (better_wait(device)) {
		wait_for(device, LOOK_NS);
		return;
	}
	if (give_set(device, false, &err) < 0) {
		weft_warn("cannot give %s new connections, trying again: %s", device->id.path,
			err.message);
		shut_set(device);
	}
}

/* ---- the device's identifier ---- */

int bridge_nbd_device_index(const char *path)
{
	return bridge_device_index(path, "/dev/nbd");
}

bool bridge_nbd_device_find(const struct bridge_device *device, char *path, size_t len)
{
	DIR *dir = device->backend[0] ? opendir("/sys/block") : NULL;
	struct dirent *entry;
	char backend[128];
	bool found = false;

	if (!dir)
		return false;
	while (!found && (entry = readdir(dir)) != NULL) {
		if (strncmp(entry->d_name, "nbd", 3) != 0)
			continue;
		found = bridge_device_attribute(entry->d_name, "backend", backend,
				sizeof(backend)) &&
			strcmp(backend, device->backend) == 0;
		if (found)
			snprintf(path, len, "/dev/%s", entry->d_name);
	}
	closedir(dir);
	return found;
}

int bridge_nbd_device_is(const char *path, const char *backend)
{
	const char *name = path + strlen("/dev/");
	char sys[64], there[128];

	if (bridge_device_attribute(name, "backend", there, sizeof(there)))
		return strcmp(there, backend) == 0;
	/* A device that was made without a backend has no such attribute. */
	snprintf(sys, sizeof(sys), "/sys/block/%.32s/size", name);
	return access(sys, R_OK) < 0 ? -errno : 0;
}

int bridge_nbd_device_clear(const struct bridge_device *device, bool force, struct weft_error *err)
{
	json_t *texts;
	char path[32];

	if (!bridge_nbd_device_find(device, path, sizeof(path)))
		return 0;
	const char *name = path + strlen("/dev/");
	texts = json_array();
	unsigned n = bridge_device_users(name, texts);
	json_decref(texts);
	if (n > 0 && !force)
		return bridge_device_say_busy(name, err);
	bridge_device_take_back(name);
	int r = nbd_netlink_disconnect(bridge_nbd_device_index(path), err);
	if (r < 0) {
		weft_error_prefix(err, "cannot disconnect %s", path);
		return r;
	}
	return 1;
}

/* ---- the front-end ---- */

static unsigned users(struct bridge_front *base, json_t *texts)
{
	const struct nbd_device *device = weft_container_of(base, struct nbd_device, base);

	return device->number < 0 || device->state == SET_GONE
		? 0
		: bridge_device_users(name_of(device), texts);
}

/* Ends the clients that are left of the set, or waits until they end by themselves. */
static void end_set(struct nbd_device *device, uint64_t end_ns)
{
	shut_set(device);
	while (atomic_load(&device->nr_clients) > 0 && weft_now_ns() < end_ns)
		usleep(1000);
}

static int stop(struct bridge_front *base, bool force, uint32_t timeout_ms, struct weft_error *err)
{
	struct nbd_device *device = weft_container_of(base, struct nbd_device, base);
	uint64_t end_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);
	int r = 0, held = -1;

	if (device->state == SET_NONE)
		return 0;
	if (device->state != SET_GONE && is_ours(device)) {
		r = bridge_device_hold(name_of(device), force, timeout_ms / 2, &held, err);
		if (r < 0)
			return r;
		/* While nobody else can have it. */
		bridge_device_take_back(name_of(device));
		r = nbd_netlink_disconnect(device->number, err);
	}
	weft_loop_timer_cancel(device->loop, &device->timer);
	weft_close_fd(held);
	if (r < 0 && !force) {
		weft_error_prefix(err, "cannot disconnect %s", device->id.path);
		return r;
	}
	device->state = SET_NONE;
	end_set(device, weft_max(end_ns, weft_now_ns() + 1000000000));
	return 0;
}

static bool gone(struct bridge_front *base)
{
	return weft_container_of(base, struct nbd_device, base)->state == SET_GONE;
}

static void forget(struct bridge_front *base)
{
	bridge_device_forget(name_of(weft_container_of(base, struct nbd_device, base)));
}

static void nothing(struct bridge_lane *lane, void *ctx)
{
}

static void free_front(struct bridge_front *base)
{
	struct nbd_device *device = weft_container_of(base, struct nbd_device, base);

	/* A lane may be about to report the end of the last client. */
	for (unsigned i = 0; i < bridge_nr_lanes(base->bridge); i++)
		bridge_lane_run(bridge_lane(base->bridge, i), nothing, NULL);
	weft_loop_timer_cancel(device->loop, &device->timer);
	weft_loop_remove(device->loop, &device->watch);
	close_set(device);
	close(device->watch.fd);
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

/* A region's earlier device, with its users. */
static int take_over(struct nbd_device *device, const char *path, struct weft_error *err)
{
	int r = bridge_device_check_earlier(device->id.path, path,
		bridge_info(device->base.bridge)->read_only, err);

	if (r < 0)
		return r;
	device->number = bridge_nbd_device_index(device->id.path);
	r = give_set(device, false, err);
	if (r < 0)
		return weft_error_prefix(err, "cannot take %s over", device->id.path);
	return 0;
}

static int connect_new(struct nbd_device *device, const char *path, struct weft_error *err)
{
	device->number = path ? bridge_nbd_device_index(path) : -1;
	for (int tries = 0;; tries++) {
		int r = give_set(device, true, err);

		if (r >= 0) {
			device->number = r;
			snprintf(device->id.path, sizeof(device->id.path), "/dev/nbd%d", r);
			/* Of a bridge that was killed. */
			bridge_device_take_back(name_of(device));
			return 0;
		}
		end_set(device, weft_now_ns() + UINT64_C(5000000000));
		if (atomic_load(&device->nr_clients) > 0)
			return r;
		/* A program that looks at new devices may have it open for a moment. */
		if (r == -EBUSY && tries < 10) {
			usleep(50000);
			continue;
		}
		if (r == -EBUSY)
			return weft_error_set(err, EBUSY,
				"%s is in use by somebody else; give another, or --device alone "
				"for one that is free",
				path ? path : "the device");
		return weft_error_prefix(err, "cannot make %s", path ? path : "a device");
	}
}

int bridge_front_nbd_device_new(struct bridge *bridge, struct weft_loop *loop, const char *path,
	const struct bridge_device *earlier,
	int (*save)(void *ctx, const struct bridge_device *device, struct weft_error *err),
	void *ctx, struct bridge_front **ret, struct weft_error *err)
{
	const struct bridge_config *config = bridge_config_of(bridge);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int r = bridge_device_check_region(bridge_info(bridge), err);

	if (r < 0)
		return r;
	struct nbd_device *device = calloc(1, sizeof(*device));
	if (!device)
		return weft_error_set(err, ENOMEM, "cannot make a device: out of memory");
	device->base.ops = &front_ops;
	device->base.bridge = bridge;
	device->loop = loop;
	device->id = *earlier;
	device->timer.fn = on_timer;
	device->watch.fn = on_event;
	device->number = -1;
	device->dead_conn_s =
		(uint32_t)weft_max(config->attach.timeout_ms, config->attach.dead_timeout_ms) /
			1000 +
		MARGIN_S;
	device->watch.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = device->watch.fd < 0 ? -errno : weft_loop_add(loop, &device->watch, EPOLLIN);
	if (r < 0) {
		weft_error_set(err, -r, "cannot watch a device: %s", strerror(-r));
		goto fail;
	}
	bool is_there =
		bridge_nbd_device_find(&device->id, device->id.path, sizeof(device->id.path));
	/* The kernel has as many queues as processors at most. */
	if (!is_there || device->id.nr_connections == 0 ||
		device->id.nr_connections > NBD_BARRIER_MAX)
		device->id.nr_connections =
			(unsigned)weft_min(bridge_nr_lanes(bridge), cpus < 1 ? 1 : (uint64_t)cpus);
	if (!is_there)
		device->id.path[0] = '\0';
	r = save(ctx, &device->id, err);
	if (r == 0)
		r = is_there ? take_over(device, path, err) : connect_new(device, path, err);
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
	end_set(device, weft_now_ns() + UINT64_C(5000000000));
	free_front(&device->base);
	return r;
}
