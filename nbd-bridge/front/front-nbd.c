/* SPDX-License-Identifier: MIT */
/*
 * The NBD front-end: a listening Unix socket on the control thread, connections on the lanes.
 *
 * A client belongs to its lane's thread; its place in the front's list is guarded by the lock.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fabric/base/accept.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "nbd-bridge/front/client.h"
#include "nbd-bridge/front/front.h"

enum {
	MAX_CLIENTS = 256,
	ORPHAN_WAIT_NS = 2000000, /* how often to look whether orphans are gone */
};

struct client {
	struct bridge_client base;
	struct nbd_front *front;
	int fd; /* closed by the lane, after it has named the orphans */
	/* Under the front's lock. */
	pid_t pid;
	struct client *next, **link;
};

struct nbd_front {
	struct bridge_front base;
	struct weft_acceptor acceptor;
	int listen_fd; /* -1: it is closed */
	pthread_mutex_t lock;
	struct client *clients;
	unsigned nr_clients;
	struct bridge_tenure *tenure; /* NULL: none */
};

/* ---- the service: requests of a connection ---- */

static int emit_exports(struct nbd_conn *conn,
	int (*emit)(void *ctx, const char *name, const char *description), void *ctx,
	struct weft_error *err)
{
	const struct bridge_client *client = nbd_conn_user(conn);

	return emit(ctx, bridge_config_of(client->bridge)->attach.region, NULL);
}

static struct bridge_tenure *tenure_of(const struct bridge_client *base)
{
	return weft_container_of(base, struct client, base)->front->tenure;
}

/* 0: the client came by the plain name; 1: by the present tenure; or -errno. */
static int look_up(const struct bridge_client *client, const char *name, struct weft_error *err)
{
	const char *region = bridge_config_of(client->bridge)->attach.region;
	struct bridge_tenure *tenure = tenure_of(client);
	char plain[4096 + 1];
	uint64_t asked;

	if (name[0] == '\0' || strcmp(name, region) == 0)
		return 0;
	if (!tenure || !weft_tenure_split(name, plain, sizeof(plain), &asked) ||
		strcmp(plain, region) != 0)
		return weft_error_set(err, ENOENT, "no such export; this socket serves '%s'",
			region);
	if (asked != atomic_load(&tenure->now))
		return weft_error_set(err, ESTALE,
			"tenure %016" PRIx64
			" of '%s' is over: another could write since, or the contents are others; "
			"what you remember of it is not what it has; without '@%016" PRIx64
			"' you get what it has",
			asked, region, asked);
	return 1;
}

static int export_info(struct nbd_conn *conn, const char *name, struct nbd_export *ret,
	struct weft_error *err)
{
	const struct bridge_client *client = nbd_conn_user(conn);
	int r = look_up(client, name, err);

	if (r < 0)
		return r;
	bridge_export_fill(client->bridge, ret);
	return 0;
}

/* A client that remembers nothing may change contents that clients of the old tenure know. */
static int begin_tenure(struct bridge_tenure *tenure, struct weft_error *err)
{
	uint64_t next = weft_random_name();
	int r = tenure->note ? tenure->note(tenure->ctx, next) : 0;

	if (r < 0)
		return weft_error_set(err, -r, "the bridge cannot keep what has to outlive it: %s",
			strerror(-r));
	atomic_store(&tenure->now, next);
	return 0;
}

static uint64_t export_tenure(struct nbd_conn *conn, const char *name)
{
	struct bridge_tenure *tenure = tenure_of(nbd_conn_user(conn));

	return tenure ? atomic_load(&tenure->now) : 0;
}

static int export_open(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct nbd_export *ret, struct weft_error *err)
{
	struct bridge_client *client = nbd_conn_user(conn);
	int r = look_up(client, name, err);

	if (r == 0 && tenure_of(client) && !bridge_info(client->bridge)->read_only)
		r = begin_tenure(tenure_of(client), err);
	if (r < 0)
		return r;
	bridge_export_fill(client->bridge, ret);
	client->opened = true;
	return 0;
}

static void closed(struct bridge_client *base)
{
	struct client *client = weft_container_of(base, struct client, base);
	struct nbd_front *front = client->front;

	pthread_mutex_lock(&front->lock);
	*client->link = client->next;
	if (client->next)
		client->next->link = client->link;
	front->nr_clients--;
	pthread_mutex_unlock(&front->lock);
	weft_debug("%s: the client of process %d has left", front->base.path, (int)client->pid);
	free(client);
}

static const struct nbd_service service = {
	.list = emit_exports,
	.info = export_info,
	.open = export_open,
	.tenure = export_tenure,
	.prepare = bridge_client_prepare,
	.submit = bridge_client_submit,
	.release = bridge_client_release,
	.close = bridge_client_close,
};

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
	client->fd = fd;
	client->base.bridge = front->base.bridge;
	client->base.service = &service;
	client->base.closed = closed;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0)
		client->pid = peer.pid;
	r = bridge_client_new(&client->base, fd, NULL);
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
	weft_debug("%s: a client, process %d", front->base.path, (int)client->pid);
	bridge_lane_run(bridge_next_lane(front->base.bridge), bridge_client_adopt, &client->base);
	return 0;
}

static unsigned nr_clients(struct nbd_front *front)
{
	pthread_mutex_lock(&front->lock);
	unsigned n = front->nr_clients;
	pthread_mutex_unlock(&front->lock);
	return n;
}

/* Whether a client has hung up, and its lane may not have noticed yet. */
static bool unseen_hangups(struct nbd_front *front)
{
	struct pollfd fds[MAX_CLIENTS];
	nfds_t n = 0;

	pthread_mutex_lock(&front->lock);
	for (const struct client *client = front->clients; client; client = client->next)
		fds[n++] = (struct pollfd){.fd = client->fd};
	int r = poll(fds, n, 0);
	pthread_mutex_unlock(&front->lock);
	for (nfds_t i = 0; r > 0 && i < n; i++)
		if (fds[i].revents & (POLLHUP | POLLERR))
			return true;
	return false;
}

/*
 * New requests of a client that comes back must not be overtaken by its old ones, from a dropped
 * connection.
 */
static uint64_t wait_for_orphans(struct weft_acceptor *acceptor)
{
	struct nbd_front *front = weft_container_of(acceptor, struct nbd_front, acceptor);

	return unseen_hangups(front) || bridge_nr_orphans(front->base.bridge) > 0 ? ORPHAN_WAIT_NS
										  : 0;
}

static void on_connection(struct weft_acceptor *acceptor, int fd)
{
	struct nbd_front *front = weft_container_of(acceptor, struct nbd_front, acceptor);

	if (nr_clients(front) >= MAX_CLIENTS)
		close(fd);
	else
		client_new(front, fd);
}

static int listen_on(const char *path, struct weft_error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	WEFT_CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return weft_error_set(err, errno, "cannot make a socket: %s", strerror(errno));
	if (strlen(path) >= sizeof(addr.sun_path))
		return weft_error_set(err, ENAMETOOLONG,
			"cannot listen on %s: a socket's path has at most %zu bytes", path,
			sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 || errno == EAGAIN)
		return weft_error_set(err, EADDRINUSE,
			"cannot listen on %s: another process does; give another --socket", path);
	/* Only a socket is replaced, and only one that nobody listens on. */
	struct stat st;
	if (errno == ECONNREFUSED && lstat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode))
			return weft_error_set(err, EEXIST,
				"cannot listen on %s: it exists and is no socket", path);
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
	if (front->listen_fd < 0)
		return;
	weft_acceptor_stop(&front->acceptor);
	close(front->listen_fd);
	front->listen_fd = -1;
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

/* Finds a client of the lane that still has a connection; only its lane frees such a client. */
static struct client *find_client(struct nbd_front *front, const struct bridge_lane *lane)
{
	struct client *client;

	pthread_mutex_lock(&front->lock);
	for (client = front->clients; client; client = client->next)
		if (client->base.lane == lane && client->base.conn)
			break;
	pthread_mutex_unlock(&front->lock);
	return client;
}

static void drain_clients(struct bridge_lane *lane, void *ctx)
{
	struct nbd_front *front = ctx;

	pthread_mutex_lock(&front->lock);
	for (struct client *client = front->clients; client; client = client->next)
		if (client->base.lane == lane && client->base.conn)
			nbd_conn_kill(client->base.conn, true);
	pthread_mutex_unlock(&front->lock);
}

static void end_clients(struct bridge_lane *lane, void *ctx)
{
	struct client *client;

	while ((client = find_client(ctx, lane)) != NULL)
		bridge_client_end(&client->base);
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
	/* The clients that are left end with their requests, at the latest with the links. */
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
	struct bridge_tenure *tenure, struct bridge_front **ret, struct weft_error *err)
{
	struct nbd_front *front = calloc(1, sizeof(*front));
	int fd, r;

	if (!front)
		return weft_error_set(err, ENOMEM, "cannot make a socket front-end: out of memory");
	front->base.ops = &front_ops;
	front->base.bridge = bridge;
	front->tenure = tenure;
	snprintf(front->base.path, sizeof(front->base.path), "%s", path);
	front->acceptor.fn = on_connection;
	front->acceptor.wait_ns = wait_for_orphans;
	front->acceptor.what = "clients of the socket";
	fd = listen_on(path, err);
	if (fd < 0) {
		free(front);
		return fd;
	}
	pthread_mutex_init(&front->lock, NULL);
	front->listen_fd = fd;
	r = weft_acceptor_start(&front->acceptor, loop, fd);
	if (r < 0) {
		free_front(&front->base);
		return weft_error_set(err, -r, "cannot watch %s: %s", path, strerror(-r));
	}
	*ret = &front->base;
	return 0;
}
