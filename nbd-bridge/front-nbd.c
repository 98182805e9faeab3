/*
 * The NBD front-end: a listening Unix socket on the control thread, connections on the lanes.
 *
 * A client belongs to its lane's thread, but for its place in the front's list, which the lock guards.
 * A client that holds buffers of its lane and neither sends nor takes anything is ended once others wait for
 * them: a stopped process must not stop its neighbours.
 * Invariant: a client lives until its connection's close() (or, never opened, until the connection was
 * freed); a slot is taken from prepare() or submit() until release().
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fabric/nbd/server.h"
#include "fabric/util.h"
#include "nbd-bridge/front.h"

enum {
	MAX_CLIENTS = 256,
	ORPHAN_WAIT_NS = 2000000, /* how often to look whether orphans are gone */
	FULL_WAIT_NS = 100000000, /* and whether there are descriptors again */
	STALL_MS = 30000,
};

struct slot {
	struct bridge_request rq;
	struct nbd_request *nbd;
	bool submitted;
	struct slot *next;
};

struct client {
	struct nbd_front *front;
	struct bridge_lane *lane;
	struct nbd_conn *conn; /* NULL: freed, the rest waits for close() */
	struct weft_watch watch;
	struct bridge_deferred deferred;
	struct bridge_waiter waiter;
	struct weft_timer stall;
	bool opened, ending;
	bool moved; /* sent or took something since the stall timer was set */
	unsigned nr_buffers, nr_submitted;
	struct slot *free_slots;
	struct slot slots[NBD_CONN_REQUESTS];
	/* Under the front's lock. */
	pid_t pid;
	struct client *next, **link;
};

struct nbd_front {
	struct bridge_front base;
	struct weft_loop *loop;
	struct weft_watch watch; /* the listening socket */
	struct weft_timer hold;  /* accepting waits for orphans */
	bool listening;
	pthread_mutex_t lock;
	struct client *clients;
	unsigned nr_clients;
};

/* ---- the service: requests of a connection ---- */

static int emit_exports(struct nbd_conn *conn,
	int (*emit)(void *ctx, const char *name, const char *description), void *ctx)
{
	const struct client *client = nbd_conn_user(conn);

	return emit(ctx, bridge_config_of(client->front->base.bridge)->region, NULL);
}

static uint16_t export_flags(const struct tp_info *info)
{
	return (uint16_t)((info->read_only ? NBD_FLAG_READ_ONLY : 0) |
		(info->can_flush ? NBD_FLAG_SEND_FLUSH : 0) |
		(info->can_fua || info->can_flush ? NBD_FLAG_SEND_FUA : 0) |
		(info->can_trim && !info->read_only ? NBD_FLAG_SEND_TRIM : 0) |
		(info->can_zero && !info->read_only ? NBD_FLAG_SEND_WRITE_ZEROES : 0) |
		(info->can_zero && info->can_fast_zero && !info->read_only ? NBD_FLAG_SEND_FAST_ZERO : 0) |
		(info->can_cache ? NBD_FLAG_SEND_CACHE : 0) |
		/* True of a server with a single lane too: then there is one connection to it. */
		NBD_FLAG_CAN_MULTI_CONN);
}

static int export_info(struct nbd_conn *conn, const char *name, struct nbd_export *ret,
	struct weft_error *err)
{
	const struct client *client = nbd_conn_user(conn);
	const struct bridge *bridge = client->front->base.bridge;
	const char *region = bridge_config_of(bridge)->region;
	const struct tp_info *info = bridge_info(bridge);

	if (name[0] != '\0' && strcmp(name, region) != 0)
		return weft_error_set(err, ENOENT, "no such export; this socket serves '%s'", region);
	*ret = (struct nbd_export){
		.size_bytes = info->size_bytes,
		.flags = export_flags(info),
		.min_block_bytes = info->min_block_bytes,
		.preferred_block_bytes = (uint32_t)weft_max(info->preferred_block_bytes, 4096),
		.max_block_bytes = BRIDGE_MAX_REQUEST,
		.name = region,
		.description = bridge_config_of(bridge)->name,
	};
	return 0;
}

static int export_open(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct nbd_export *ret, struct weft_error *err)
{
	struct client *client = nbd_conn_user(conn);
	int r = export_info(conn, name, ret, err);

	if (r == 0)
		client->opened = true;
	return r;
}

static struct slot *take_slot(struct client *client, struct nbd_request *nbd)
{
	struct slot *slot = client->free_slots;

	/* As many as the engine takes requests. */
	assert(slot);
	client->free_slots = slot->next;
	slot->nbd = nbd;
	slot->rq.buf = NULL;
	slot->rq.mem = NULL;
	nbd->user = slot;
	return slot;
}

static int prepare(struct nbd_request *nbd)
{
	struct client *client = nbd_conn_user(nbd->conn);
	struct tp_mem *mem;
	int r = bridge_lane_buffer_get(client->lane, nbd->len, &client->waiter, &nbd->buf, &mem);

	if (r < 0)
		return r;
	struct slot *slot = take_slot(client, nbd);
	slot->rq.buf = nbd->buf;
	slot->rq.mem = mem;
	client->nr_buffers++;
	return 0;
}

static void request_done(struct bridge_request *rq, int error)
{
	struct slot *slot = weft_container_of(rq, struct slot, rq);
	struct nbd_request *nbd = slot->nbd;
	struct client *client = nbd_conn_user(nbd->conn);

	slot->submitted = false;
	client->nr_submitted--;
	if (client->conn)
		bridge_lane_defer(client->lane, &client->deferred);
	nbd_request_complete(nbd, error); /* may free the client */
}

static void submit(struct nbd_request *nbd)
{
	static const uint8_t kinds[] = {
		[NBD_CMD_READ] = TP_READ,
		[NBD_CMD_WRITE] = TP_WRITE,
		[NBD_CMD_FLUSH] = TP_FLUSH,
		[NBD_CMD_TRIM] = TP_TRIM,
		[NBD_CMD_CACHE] = TP_CACHE,
		[NBD_CMD_WRITE_ZEROES] = TP_ZERO,
	};
	struct client *client = nbd_conn_user(nbd->conn);
	bool moves = nbd->type == NBD_CMD_READ || nbd->type == NBD_CMD_WRITE;
	struct slot *slot = moves ? nbd->user : take_slot(client, nbd);
	struct bridge_request *rq = &slot->rq;

	if (nbd->type == NBD_CMD_BLOCK_STATUS) {
		/* Nothing is known about allocation behind a transport. */
		nbd->extents[0] = (struct nbd_extent){.len = nbd->len};
		nbd->nr_extents = 1;
		nbd_request_complete(nbd, 0);
		return;
	}
	rq->kind = kinds[nbd->type];
	rq->flags = 0;
	if (nbd->type == NBD_CMD_WRITE || nbd->type == NBD_CMD_TRIM || nbd->type == NBD_CMD_WRITE_ZEROES)
		rq->flags |= nbd->flags & NBD_CMD_FLAG_FUA ? TP_FUA : 0;
	if (nbd->type == NBD_CMD_WRITE_ZEROES) {
		rq->flags |= nbd->flags & NBD_CMD_FLAG_NO_HOLE ? TP_NO_HOLE : 0;
		rq->flags |= nbd->flags & NBD_CMD_FLAG_FAST_ZERO ? TP_FAST_ZERO : 0;
	}
	rq->off = nbd->off;
	rq->len = nbd->len;
	rq->done = request_done;
	slot->submitted = true;
	client->nr_submitted++;
	bridge_lane_submit(client->lane, rq);
}

static void release(struct nbd_request *nbd)
{
	struct client *client = nbd_conn_user(nbd->conn);
	struct slot *slot = nbd->user;

	if (slot->rq.buf) {
		bridge_lane_buffer_put(client->lane, slot->rq.buf);
		client->nr_buffers--;
	}
	slot->rq.buf = NULL;
	slot->next = client->free_slots;
	client->free_slots = slot;
}

static void client_free(struct client *client)
{
	struct nbd_front *front = client->front;

	pthread_mutex_lock(&front->lock);
	*client->link = client->next;
	if (client->next)
		client->next->link = client->link;
	front->nr_clients--;
	pthread_mutex_unlock(&front->lock);
	free(client);
}

static void closed(struct nbd_conn *conn, bool clean)
{
	client_free(nbd_conn_user(conn));
}

static const struct nbd_service service = {
	.list = emit_exports,
	.info = export_info,
	.open = export_open,
	.prepare = prepare,
	.submit = submit,
	.release = release,
	.close = closed,
};

/* ---- connections, on their lane ---- */

/* Ends the connection.  What it has in flight completes into nothing. */
static void client_end(struct client *client)
{
	struct nbd_conn *conn = client->conn;
	bool opened = client->opened;

	weft_loop_remove(bridge_lane_loop(client->lane), &client->watch);
	bridge_lane_defer_cancel(client->lane, &client->deferred);
	bridge_lane_waiter_cancel(client->lane, &client->waiter);
	weft_loop_timer_cancel(bridge_lane_loop(client->lane), &client->stall);
	for (unsigned i = 0; i < NBD_CONN_REQUESTS; i++)
		if (client->slots[i].submitted)
			bridge_lane_orphan(client->lane, &client->slots[i].rq);
	client->conn = NULL;
	nbd_conn_free(conn);
	if (!opened)
		client_free(client);
}

static void set_stall(struct client *client)
{
	const uint32_t ms = bridge_config_of(client->front->base.bridge)->stall_ms;

	client->moved = false;
	weft_loop_timer_set(bridge_lane_loop(client->lane), &client->stall,
		(ms ? ms : STALL_MS) * UINT64_C(1000000));
}

static void on_stall(struct weft_timer *timer)
{
	struct client *client = weft_container_of(timer, struct client, stall);

	if (!client->opened)
		client_end(client);
	else if (client->nr_buffers == 0 || client->nr_submitted > 0)
		return; /* it holds nothing, or waits for us; client_update() sees when that changes */
	else if (!client->moved && bridge_lane_others_wait(client->lane, &client->waiter))
		client_end(client);
	else
		set_stall(client);
}

static void client_update(struct bridge_deferred *deferred)
{
	struct client *client = weft_container_of(deferred, struct client, deferred);
	int r = nbd_conn_send(client->conn);

	if ((r < 0 && r != -EAGAIN) || (client->ending && nbd_conn_nr_requests(client->conn) == 0 && r == 0)) {
		client_end(client);
		return;
	}
	if (client->nr_buffers > 0 && client->nr_submitted == 0 && client->stall.due_ns == 0)
		set_stall(client);
	weft_loop_modify(bridge_lane_loop(client->lane), &client->watch,
		(uint32_t)nbd_conn_events(client->conn));
}

static void on_client(struct weft_watch *watch, uint32_t events)
{
	struct client *client = weft_container_of(watch, struct client, watch);
	int r = -EAGAIN;

	client->moved = true;
	if (events & EPOLLIN)
		r = nbd_conn_receive(client->conn, false);
	if (r == 0)
		client->ending = true;
	/* Both directions are shut: nobody waits for what is not answered yet. */
	if ((r < 0 && r != -EAGAIN) || (r <= 0 && (events & (EPOLLHUP | EPOLLERR)))) {
		client_end(client);
		return;
	}
	bridge_lane_defer(client->lane, &client->deferred);
}

static void on_buffer(struct bridge_waiter *waiter)
{
	struct client *client = weft_container_of(waiter, struct client, waiter);

	if (nbd_conn_resume(client->conn) < 0)
		client_end(client);
	else
		bridge_lane_defer(client->lane, &client->deferred);
}

static void adopt(struct bridge_lane *lane, void *ctx)
{
	struct client *client = ctx;

	client->lane = lane;
	client->watch.fd = nbd_conn_fd(client->conn);
	client->watch.fn = on_client;
	client->deferred.fn = client_update;
	client->waiter.fn = on_buffer;
	client->stall.fn = on_stall;
	if (weft_loop_add(bridge_lane_loop(lane), &client->watch, EPOLLIN) < 0) {
		client_end(client);
		return;
	}
	set_stall(client);
	bridge_lane_defer(lane, &client->deferred); /* the greeting */
}

/* ---- the listening socket, on the control thread ---- */

static int client_new(struct nbd_front *front, int fd)
{
	struct client *client = calloc(1, sizeof(*client));
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int r;

	if (!client) {
		close(fd);
		return -ENOMEM;
	}
	client->front = front;
	for (unsigned i = NBD_CONN_REQUESTS; i-- > 0;) {
		client->slots[i].next = client->free_slots;
		client->free_slots = &client->slots[i];
	}
	/* A reply of 1 MiB goes out in one piece: 5 % on one processor, more across two. */
	const int buffer = 1 << 20;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0)
		client->pid = peer.pid;
	r = nbd_conn_new(fd, &service, client, &client->conn);
	if (r < 0) {
		free(client);
		return r;
	}
	pthread_mutex_lock(&front->lock);
	client->next = front->clients;
	client->link = &front->clients;
	if (client->next)
		client->next->link = &client->next;
	front->clients = client;
	front->nr_clients++;
	pthread_mutex_unlock(&front->lock);
	bridge_lane_run(bridge_next_lane(front->base.bridge), adopt, client);
	return 0;
}

static unsigned nr_clients(struct nbd_front *front)
{
	pthread_mutex_lock(&front->lock);
	unsigned n = front->nr_clients;
	pthread_mutex_unlock(&front->lock);
	return n;
}

/* Accepts nothing for a while. */
static void hold(struct nbd_front *front, uint64_t ns)
{
	weft_loop_modify(front->loop, &front->watch, 0);
	weft_loop_timer_set(front->loop, &front->hold, ns);
}

static void on_listen(struct weft_watch *watch, uint32_t events)
{
	struct nbd_front *front = weft_container_of(watch, struct nbd_front, watch);

	/* A client that comes back must not overtake what it sent before on a connection that it dropped. */
	if (bridge_nr_orphans(front->base.bridge) > 0) {
		hold(front, ORPHAN_WAIT_NS);
		return;
	}
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0) {
		/* The socket stays readable: the loop would spin. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			hold(front, FULL_WAIT_NS);
		return;
	}
	if (nr_clients(front) >= MAX_CLIENTS)
		close(fd);
	else
		client_new(front, fd);
}

static void on_hold(struct weft_timer *timer)
{
	struct nbd_front *front = weft_container_of(timer, struct nbd_front, hold);

	weft_loop_modify(front->loop, &front->watch, EPOLLIN);
}

static int listen_on(const char *path, struct weft_error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	WEFT_CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return weft_error_set(err, errno, "cannot make a socket: %s", strerror(errno));
	if (strlen(path) >= sizeof(addr.sun_path))
		return weft_error_set(err, ENAMETOOLONG, "cannot listen on %s: a socket's path has at most %zu bytes",
			path, sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 || errno == EAGAIN)
		return weft_error_set(err, EADDRINUSE,
			"cannot listen on %s: another process does; give another --socket", path);
	/* Only a socket is replaced, and only one that nobody listens on. */
	struct stat st;
	if (errno == ECONNREFUSED && lstat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode))
			return weft_error_set(err, EEXIST, "cannot listen on %s: it exists and is no socket", path);
		unlink(path);
	}
	mode_t mask = umask(0177);
	int r = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? errno : 0;
	umask(mask);
	if (r == 0 && listen(fd, 128) < 0)
		r = errno;
	if (r != 0)
		return weft_error_set(err, r, "cannot listen on %s: %s", path, strerror(r));
	int ret = fd;
	fd = -1;
	return ret;
}

static void stop_listening(struct nbd_front *front)
{
	if (!front->listening)
		return;
	front->listening = false;
	weft_loop_timer_cancel(front->loop, &front->hold);
	weft_loop_remove(front->loop, &front->watch);
	close(front->watch.fd);
	unlink(front->base.path);
}

static unsigned users(struct bridge_front *base, json_t *texts)
{
	struct nbd_front *front = weft_container_of(base, struct nbd_front, base);
	char process[64], text[128];

	pthread_mutex_lock(&front->lock);
	for (const struct client *client = front->clients; client; client = client->next) {
		bridge_process_name(client->pid, process, sizeof(process));
		snprintf(text, sizeof(text), "%s is connected to the socket", process);
		json_array_append_new(texts, json_string(text));
	}
	unsigned n = front->nr_clients;
	pthread_mutex_unlock(&front->lock);
	return n;
}

/* One of the lane's clients that has a connection still.  Such a client is freed by its lane only. */
static struct client *find_client(struct nbd_front *front, const struct bridge_lane *lane)
{
	struct client *client;

	pthread_mutex_lock(&front->lock);
	for (client = front->clients; client; client = client->next)
		if (client->lane == lane && client->conn)
			break;
	pthread_mutex_unlock(&front->lock);
	return client;
}

static void drain_clients(struct bridge_lane *lane, void *ctx)
{
	struct nbd_front *front = ctx;

	pthread_mutex_lock(&front->lock);
	for (struct client *client = front->clients; client; client = client->next)
		if (client->lane == lane && client->conn)
			nbd_conn_kill(client->conn, true);
	pthread_mutex_unlock(&front->lock);
}

static void end_clients(struct bridge_lane *lane, void *ctx)
{
	struct client *client;

	while ((client = find_client(ctx, lane)) != NULL)
		client_end(client);
}

static int stop(struct bridge_front *base, bool force, uint32_t timeout_ms, struct weft_error *err)
{
	struct nbd_front *front = weft_container_of(base, struct nbd_front, base);
	uint64_t drain_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);

	stop_listening(front);
	for (unsigned i = 0; i < bridge_nr_lanes(base->bridge); i++)
		bridge_lane_run(bridge_lane(base->bridge, i), drain_clients, front);
	while (nr_clients(front) > 0 && weft_now_ns() < drain_ns)
		usleep(1000);
	for (unsigned i = 0; i < bridge_nr_lanes(base->bridge); i++)
		bridge_lane_run(bridge_lane(base->bridge, i), end_clients, front);
	/* What is left ends when its requests do, at the latest with the links. */
	return 0;
}

static void free_front(struct bridge_front *base)
{
	struct nbd_front *front = weft_container_of(base, struct nbd_front, base);

	stop_listening(front);
	assert(front->nr_clients == 0);
	pthread_mutex_destroy(&front->lock);
	free(front);
}

static const struct bridge_front_ops front_ops = {
	.name = "socket",
	.users = users,
	.stop = stop,
	.free = free_front,
};

int bridge_front_nbd_new(struct bridge *bridge, struct weft_loop *loop, const char *path,
	struct bridge_front **ret, struct weft_error *err)
{
	struct nbd_front *front = calloc(1, sizeof(*front));
	int fd, r;

	if (!front)
		return weft_error_set(err, ENOMEM, "cannot make a socket front-end: out of memory");
	front->base.ops = &front_ops;
	front->base.bridge = bridge;
	snprintf(front->base.path, sizeof(front->base.path), "%s", path);
	front->loop = loop;
	front->hold.fn = on_hold;
	fd = listen_on(path, err);
	if (fd < 0) {
		free(front);
		return fd;
	}
	pthread_mutex_init(&front->lock, NULL);
	front->listening = true;
	front->watch.fd = fd;
	front->watch.fn = on_listen;
	r = weft_loop_add(loop, &front->watch, EPOLLIN);
	if (r < 0) {
		free_front(&front->base);
		return weft_error_set(err, -r, "cannot watch %s: %s", path, strerror(-r));
	}
	*ret = &front->base;
	return 0;
}
