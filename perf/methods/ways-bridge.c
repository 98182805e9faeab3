/* SPDX-License-Identifier: MIT */
/*
 * A region behind a process: a bridge of weft attach, nbdkit, or qemu-storage-daemon; or behind a
 * device that was there before.  One thread; what was started is ended by close().
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/transport.h"
#include "perf/methods/methods.h"

enum { START_MS = 10000 };

struct bridge_way {
	struct methods_way way;
	struct bench_bridge bridge; /* weft's, … */
	struct bench_daemon daemon; /* … or another */
	char socket[160], cache[160];
	struct bench_io *io;
};

static struct bridge_way *of(struct methods_way *way)
{
	return weft_container_of(way, struct bridge_way, way);
}

static int one(struct bench_io *io, struct bench_slot *slot)
{
	struct bench_slot *done;
	int r = io->submit(io, &slot, 1);

	if (r == 0)
		r = io->reap(io, &done, 1);
	return r < 0 ? r : slot->error;
}

static int bridge_read(struct methods_way *way, void *buf, uint32_t len, uint64_t off)
{
	struct bench_io *io = of(way)->io;
	int r = one(io, &(struct bench_slot){.len = len, .off = off, .buf = io->buf});

	if (r == 0)
		memcpy(buf, io->buf, len);
	return r;
}

static int bridge_write(struct methods_way *way, const void *buf, uint32_t len, uint64_t off)
{
	struct bench_io *io = of(way)->io;

	memcpy(io->buf, buf, len);
	return one(io,
		&(struct bench_slot){.write = true, .len = len, .off = off, .buf = io->buf});
}

static int bridge_flush(struct methods_way *way)
{
	return of(way)->io->flush(of(way)->io);
}

static void close_bridge(struct methods_way *way)
{
	struct bridge_way *b = of(way);

	if (b->io)
		b->io->close(b->io);
	bench_detach(&b->bridge);
	if (b->cache[0])
		unlink(b->cache);
	bench_daemon_end(&b->daemon);
	free(b);
}

static struct bridge_way *new_bridge(struct weft_error *err)
{
	struct bridge_way *b = calloc(1, sizeof(*b));

	if (!b)
		weft_error_set(err, ENOMEM, "out of memory");
	else
		*b = (struct bridge_way){.daemon.out = -1,
			.way = {.read = bridge_read,
				.write = bridge_write,
				.flush = bridge_flush,
				.close = close_bridge}};
	return b;
}

/* A socket that speaks NBD, without anything of weft. */
static int connect_socket(struct bridge_way *b, const char *path, struct weft_error *err)
{
	struct weft_uri uri = {.region = (char *)""};

	snprintf(uri.socket, sizeof(uri.socket), "%.107s", path);
	return bench_io_connect(tp_base_driver()->ops, &uri, NULL, NULL, false, true, "bench",
		&b->io, NULL, err);
}

static enum bench_front front_of(const char *name)
{
	int front = BENCH_SOCKET;

	while (front < BENCH_UBLK && strcmp(bench_front_names[front], name) != 0)
		front++;
	return (enum bench_front)front;
}

int methods_open_bridge(const struct methods_cell *cell, uint64_t local_bytes,
	struct methods_way **ret, struct weft_error *err)
{
	enum bench_front front = front_of(cell->method->name);
	bool managed = strcmp(cell->method->mode, "managed") == 0, fronts[BENCH_NR_FRONTS] = {0};
	struct bridge_way *b = new_bridge(err);
	char uri[200], cache[32];
	struct bench_options o = {
		.uri_text = (char *)methods_cell_uri(cell, false, uri),
		.key_file = cell->transport->key ? cell->site->key : NULL,
		.allow_insecure = !cell->transport->key,
	};

	if (!b)
		return -ENOMEM;
	fronts[front] = true;
	snprintf(cache, sizeof(cache), "%" PRIu64, local_bytes);
	snprintf(b->cache, sizeof(b->cache), "%s/cache", cell->site->dir); /* bench_attach()'s */
	int r = bench_attach(&o, cell->transport->word, fronts, managed ? cache : NULL,
		cell->site->dir, &b->bridge, err);
	if (r == 0 && front == BENCH_SOCKET)
		r = connect_socket(b, b->bridge.socket, err);
	else if (r == 0)
		r = bench_io_open(front == BENCH_FILE ? b->bridge.file : b->bridge.device, false,
			&b->io, err);
	if (r < 0) {
		close_bridge(&b->way);
		return r;
	}
	b->way.bridge = b->bridge.pid;
	*ret = &b->way;
	return 0;
}

/* What is on it is overwritten, so nobody else may have the device (open(2), O_EXCL). */
static int check_device(const char *path, struct weft_error *err)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);

	if (fd >= 0)
		return 0;
	return errno == EBUSY
		? weft_error_set(err, EBUSY, "%s is mounted, or a part of another device", path)
		: weft_error_set(err, errno, "cannot open %s: %s", path, strerror(errno));
}

int methods_open_device(const struct methods_cell *cell, uint64_t local_bytes,
	struct methods_way **ret, struct weft_error *err)
{
	const char *path = methods_device(cell->site->o, cell->method->name);
	struct bridge_way *b = new_bridge(err);

	if (!b)
		return -ENOMEM;
	int r = check_device(path, err);
	if (r == 0)
		r = bench_io_open(path, false, &b->io, err);
	if (r == 0 && b->io->size_bytes < cell->site->bytes)
		r = weft_error_set(err, ENOSPC, "the device is too small for this --span");
	if (r < 0) {
		close_bridge(&b->way);
		return r;
	}
	*ret = &b->way;
	return 0;
}

/* nbdkit and qemu-storage-daemon, as clients of the same donor. */
static int start_peer(const struct methods_cell *cell, struct bridge_way *b, struct weft_error *err)
{
	const char *address = methods_cell_donor(cell)->address;
	bool cache = strcmp(cell->method->mode, "cache") == 0,
	     qemu = strcmp(cell->method->name, "qemu") == 0;
	char uri[128], blockdev[256], server[200];
	const char *const direct[] = {"nbdkit", "-U", b->socket, "-f", "nbd", uri, NULL},
			  *const cached[] = {"nbdkit", "-U", b->socket, "-f", "--filter=cache",
				  "--filter=readahead", "nbd", uri, "cache-on-read=true", NULL},
			  *const storage[] = {"qemu-storage-daemon", "--blockdev", blockdev,
				  "--nbd-server", server, "--export",
				  "type=nbd,id=e,node-name=n,name=,writable=on", NULL};
	const char *colon = strrchr(address, ':');

	snprintf(uri, sizeof(uri), "uri=nbd://%s/bench", address);
	snprintf(server, sizeof(server), "addr.type=unix,addr.path=%s", b->socket);
	snprintf(blockdev, sizeof(blockdev),
		"driver=nbd,node-name=n,server.type=inet,server.host=%.*s,server.port=%s,"
		"export=bench",
		(int)(colon - address), address, colon + 1);
	pid_t pid = bench_daemon_spawn(qemu ? storage : cache ? cached : direct, -1,
		&b->daemon.out);
	if (pid < 0)
		return weft_error_set(err, -pid, "cannot start it: %s", strerror(-pid));
	b->daemon.pid = pid;
	return 0;
}

/* The reason of a process that did not come up. */
static int why_not(const struct bridge_way *b, struct weft_error *err)
{
	char said[400];
	ssize_t n = read(b->daemon.out, said, sizeof(said) - 1);

	said[n > 0 ? n : 0] = '\0';
	return weft_error_set(err, EIO, "%.*s", (int)strcspn(said, "\n"),
		n > 0 ? said : "it ended without a word");
}

int methods_open_peer(const struct methods_cell *cell, uint64_t local_bytes,
	struct methods_way **ret, struct weft_error *err)
{
	uint64_t until_ns = weft_now_ns() + START_MS * UINT64_C(1000000);
	struct bridge_way *b = new_bridge(err);

	if (!b)
		return -ENOMEM;
	snprintf(b->socket, sizeof(b->socket), "%s/peer", cell->site->dir);
	unlink(b->socket);
	int r = start_peer(cell, b, err);
	while (r == 0 && connect_socket(b, b->socket, err) < 0) {
		if (weft_process_is_dying(b->daemon.pid))
			r = why_not(b, err);
		else if (weft_now_ns() >= until_ns)
			r = -err->code;
		usleep(2000);
	}
	if (r < 0) {
		close_bridge(&b->way);
		return r;
	}
	b->way.bridge = b->daemon.pid;
	*ret = &b->way;
	return 0;
}
