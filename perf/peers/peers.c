/* SPDX-License-Identifier: MIT */
/*
 * Starting the peers.  Invariant: a peer in peers[] was tried once; its error stays.
 */
#include "perf/peers/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/harness/perf.h"
#include "perf/harness/process.h"

enum { MAX_PEERS = 24, START_MS = 20000 };

static struct perf_peer peers[MAX_PEERS];
static unsigned nr_peers;

struct launcher {
	const char *name;
	int (*start)(struct perf_peer *peer, int fd, char *why);
	bool own_socket; /* listens by itself */
	bool empty;      /* populated by somebody else */
};

static int spawned(struct perf_peer *peer, const char *const argv[], int fd)
{
	WEFT_CLEANUP_CLOSE int far = peer->tcp ? perf_far_ns() : -1;
	char log[64];

	snprintf(log, sizeof(log), "%s-%s.log", peer->name, peer->tcp ? "tcp" : "unix");
	peer->pid = perf_spawn_in(far, argv, fd, log);
	return peer->pid < 0 ? (int)peer->pid : 0;
}

static int start_floor(struct perf_peer *peer, int fd, char *why)
{
	char path[512];
	const char *argv[] = {path, NULL};

	snprintf(path, sizeof(path), "%s/echo-floor", perf_bindir());
	peer->target.bare = true;
	return spawned(peer, argv, fd);
}

static int start_nbdkit(struct perf_peer *peer, int fd, char *why)
{
	const char *argv[] = {"nbdkit", "-f", "memory", "size=256M", "allocator=malloc", NULL};

	return spawned(peer, argv, fd);
}

/* The plugin's default allocator: pages in a table, taken when first written. */
static int start_nbdkit_sparse(struct perf_peer *peer, int fd, char *why)
{
	const char *argv[] = {"nbdkit", "-f", "memory", "size=256M", NULL};

	return spawned(peer, argv, fd);
}

/* A file of RAM: in /dev/shm, unlinked once qemu has it open. */
static int start_qemu(struct perf_peer *peer, int fd, char *why)
{
	char path[64], blockdev[160];
	WEFT_CLEANUP_CLOSE int ram = -1;
	const char *argv[] = {"qemu-storage-daemon", "--blockdev", blockdev, "--nbd-server",
		"addr.type=fd,addr.str=3,max-connections=0", "--export",
		"type=nbd,id=e,node-name=ram,name=perf,writable=on", NULL};
	int r;

	snprintf(path, sizeof(path), "/dev/shm/weft-perf-%d-%d.ram", (int)getpid(), peer->tcp);
	ram = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (ram < 0)
		return -errno;
	if (ftruncate(ram, (off_t)PERF_PEER_BYTES) < 0) {
		r = -errno;
		unlink(path);
		return r;
	}
	snprintf(blockdev, sizeof(blockdev),
		"driver=file,node-name=ram,filename=%s,cache.direct=off,aio=threads", path);
	peer->target.export_name = "perf";
	r = spawned(peer, argv, fd);
	/* Once it has answered it has the file open. */
	if (r == 0)
		r = perf_nbd_populate(&peer->target, 1 << 20, why);
	unlink(path);
	return r;
}

/* Waits until the log holds `line`; the whole log is in text then. */
static int wait_log(const struct perf_peer *peer, const char *line, char *text, size_t len,
	char *why)
{
	const struct timespec tick = {.tv_nsec = 5000000};
	char path[512];

	snprintf(path, sizeof(path), "%s/%s-%s.log", perf_tmpdir(), peer->name,
		peer->tcp ? "tcp" : "unix");
	for (int ms = 0; ms < START_MS; ms += 5) {
		bool alive = perf_alive(peer->pid);
		WEFT_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? 0 : read(fd, text, len - 1);

		text[n < 0 ? 0 : n] = 0;
		if (strstr(text, line))
			return 0;
		if (!alive) {
			snprintf(why, 256, "%.250s", text[0] ? text : "it ended at once");
			return -ECONNREFUSED;
		}
		nanosleep(&tick, NULL);
	}
	snprintf(why, 256, "not ready after %d s", START_MS / 1000);
	return -ETIMEDOUT;
}

static int start_weft(struct perf_peer *peer, int fd, char *why)
{
	char path[512], listen[160], log[4096], *at;
	const char *argv[] = {path, "--memory", "perf=256M", "--listen", listen, "--allow-insecure",
		NULL};
	unsigned port;
	int r;

	snprintf(path, sizeof(path), "%s/weft-serve", perf_bindir());
	if (access(path, X_OK) < 0) {
		snprintf(why, 256, "%.200s is not built", path);
		return -ENOENT;
	}
	if (peer->tcp)
		snprintf(listen, sizeof(listen), "%s:0", perf_far_ip());
	else
		snprintf(listen, sizeof(listen), "unix:%s", peer->target.unix_path);
	peer->target.export_name = "perf";
	r = spawned(peer, argv, -1);
	if (r == 0)
		r = wait_log(peer, "\nready\n", log, sizeof(log), why);
	if (r < 0 || !peer->tcp)
		return r;
	at = strstr(log, "listening on ");
	if (!at || sscanf(at, "listening on %*[0-9.]:%u", &port) != 1) {
		snprintf(why, 256, "it does not say where it listens");
		return -EPROTO;
	}
	peer->target.port = (uint16_t)port;
	return 0;
}

/*
 * A bridge, and a donor of its own behind it, since a weft writer and stock clients exclude each
 * other.  bridge-cached: its cache holds all that there is, once it is populated.
 */
static int start_bridge(struct perf_peer *peer, int fd, char *why)
{
	struct perf_peer *donor;
	char path[512], uri[64], log[4096];
	bool cached = strcmp(peer->name, "bridge-cached") == 0;
	const char *argv[] = {path, uri, "--socket", peer->target.unix_path, "--name", peer->name,
		"--foreground", cached ? "--cache" : NULL, "512M", NULL};
	int r;

	snprintf(path, sizeof(path), "%s/weft-attach", perf_bindir());
	if (access(path, X_OK) < 0) {
		snprintf(why, 256, "%.200s is not built", path);
		return -ENOENT;
	}
	r = perf_peer_get(cached ? "weft-donor-cached" : "weft-donor", true, &donor, why);
	if (r < 0)
		return r;
	snprintf(uri, sizeof(uri), "weft://%s:%u/perf", perf_far_ip(), donor->target.port);
	r = spawned(peer, argv, -1);
	if (r == 0)
		r = wait_log(peer, peer->target.unix_path, log, sizeof(log), why);
	peer->donor = donor->pid;
	return r;
}

static const struct launcher launchers[] = {
	{.name = "floor", .start = start_floor},
	{.name = "nbdkit", .start = start_nbdkit},
	{.name = "nbdkit-sparse", .start = start_nbdkit_sparse},
	{.name = "qemu", .start = start_qemu},
	{.name = "weft", .start = start_weft, .own_socket = true},
	{.name = "weft-donor", .start = start_weft, .own_socket = true, .empty = true},
	{.name = "weft-donor-cached", .start = start_weft, .own_socket = true, .empty = true},
	{.name = "bridge", .start = start_bridge, .own_socket = true},
	{.name = "bridge-cached", .start = start_bridge, .own_socket = true},
};

static int start(struct perf_peer *peer, char *why)
{
	WEFT_CLEANUP_CLOSE int fd = -1;
	unsigned i;
	int r;

	for (i = 0; i < WEFT_ARRAY_LEN(launchers); i++)
		if (!strcmp(launchers[i].name, peer->name))
			break;
	if (i == WEFT_ARRAY_LEN(launchers)) {
		snprintf(why, 256, "no launcher for it");
		return -EINVAL;
	}
	peer->target.host = perf_far_ip();
	if (!peer->tcp)
		snprintf(peer->target.unix_path, sizeof(peer->target.unix_path), "%.64s/%s.sock",
			perf_tmpdir(), peer->name);
	if (!launchers[i].own_socket) {
		fd = perf_listen(peer->tcp ? NULL : peer->target.unix_path, &peer->target.port);
		if (fd < 0)
			return fd;
	}
	r = launchers[i].start(peer, fd, why);
	/*
	 * The child has its copy of the listening socket; should it die, connections are refused.
	 */
	weft_cleanup_close(&fd);
	fd = -1;
	if (r < 0 || launchers[i].empty)
		return r;
	return perf_nbd_populate(&peer->target, PERF_PEER_BYTES, why);
}

int perf_peer_get(const char *name, bool tcp, struct perf_peer **ret, char *why)
{
	struct perf_peer *peer;
	unsigned i;

	for (i = 0; i < nr_peers; i++)
		if (peers[i].tcp == tcp && !strcmp(peers[i].name, name))
			break;
	if (i == MAX_PEERS)
		return -EAGAIN;
	peer = &peers[i];
	if (i == nr_peers) {
		nr_peers++;
		snprintf(peer->name, sizeof(peer->name), "%s", name);
		peer->tcp = tcp;
		peer->error = start(peer, peer->why);
		if (peer->error < 0 && !peer->why[0])
			snprintf(peer->why, sizeof(peer->why), "%s", strerror(-peer->error));
	}
	if (peer->error < 0) {
		snprintf(why, 256, "%.255s", peer->why);
		return peer->error;
	}
	*ret = peer;
	return 0;
}
