/* SPDX-License-Identifier: MIT */
/* The NBD engine: requests come and replies leave over a pair of sockets; behind it is memory. */
#include <err.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "fabric/nbd/server.h"
#include "fabric/base/util.h"
#include "perf/count/count.h"
#include "perf/harness/wire.h"

static uint8_t region[COUNT_REGION];

static int service_info(struct nbd_conn *conn, const char *name, struct nbd_export *ret,
	struct weft_error *error)
{
	*ret = (struct nbd_export){.size_bytes = COUNT_REGION,
		.min_block_bytes = 1,
		.preferred_block_bytes = 4096,
		.max_block_bytes = NBD_MAX_PAYLOAD};
	return 0;
}

static int service_open(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct nbd_export *ret, struct weft_error *error)
{
	return service_info(conn, name, ret, error);
}

static int service_list(struct nbd_conn *conn,
	int (*emit)(void *ctx, const char *name, const char *description), void *ctx,
	struct weft_error *err)
{
	return 0;
}

static int service_prepare(struct nbd_request *rq)
{
	rq->buf = region + rq->off;
	return 0;
}

static void service_submit(struct nbd_request *rq)
{
	nbd_request_complete(rq, 0);
}

static void service_release(struct nbd_request *rq) {}

static void service_close(struct nbd_conn *conn, bool clean) {}

static const struct nbd_service service = {
	.info = service_info,
	.open = service_open,
	.list = service_list,
	.prepare = service_prepare,
	.submit = service_submit,
	.release = service_release,
	.close = service_close,
};

static void drain(struct nbd_conn *conn)
{
	int r;

	while ((r = nbd_conn_receive(conn, false)) > 0)
		if (nbd_conn_send(conn) != 0)
			errx(1, "the replies do not fit");
	if (r != -EAGAIN)
		errx(1, "the engine hung up: %s", strerror(-r));
}

static void shake_hands(struct nbd_conn *conn, int fd)
{
	uint8_t hello[18], option[20], export[10];

	if (nbd_conn_send(conn) != 0 || weft_read_all(fd, hello, sizeof(hello)) < 0)
		errx(1, "no greeting");
	weft_put32(option, 3); /* FIXED_NEWSTYLE, NO_ZEROES */
	weft_put64(option + 4, NBD_OPTS_MAGIC);
	weft_put32(option + 12, NBD_OPT_EXPORT_NAME);
	weft_put32(option + 16, 0);
	weft_write_all(fd, option, sizeof(option));
	drain(conn);
	if (weft_read_all(fd, export, sizeof(export)) < 0)
		errx(1, "no export");
}

/* The name is what perf/count/run counts by. */
__attribute__((noinline)) void weft_counted_engine(struct nbd_conn *conn, int fd, bool write,
	unsigned batch);

void weft_counted_engine(struct nbd_conn *conn, int fd, bool write, unsigned batch)
{
	static uint8_t requests[COUNT_MAX_BATCH * (NBD_REQUEST_BYTES + COUNT_BYTES)],
		replies[sizeof(requests)];
	size_t request_len = NBD_REQUEST_BYTES + (write ? COUNT_BYTES : 0);
	size_t reply_len = NBD_SIMPLE_REPLY_BYTES + (write ? 0 : COUNT_BYTES);

	for (unsigned op = 0; op < COUNT_OPS; op += batch) {
		for (unsigned i = 0; i < batch; i++)
			wire_request(requests + i * request_len,
				write ? NBD_CMD_WRITE : NBD_CMD_READ, op + i,
				(op + i) % (COUNT_REGION / COUNT_BYTES) * COUNT_BYTES, COUNT_BYTES);
		weft_write_all(fd, requests, batch * request_len);
		drain(conn);
		weft_read_all(fd, replies, batch * reply_len);
	}
}

void count_engine(bool write, unsigned batch)
{
	struct nbd_conn *conn;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0 ||
		nbd_conn_new(fds[1], &service, NULL, &conn) < 0)
		err(1, "set-up");
	shake_hands(conn, fds[0]);
	weft_counted_engine(conn, fds[0], write, batch);
	nbd_conn_free(conn);
	close(fds[0]);
}
