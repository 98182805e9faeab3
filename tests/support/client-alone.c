/* SPDX-License-Identifier: MIT */
/*
 * Our NBD client alone, without a bridge, for shell tests: connects, reads 4 KiB, and prints how
 * long that took and over what; then writes all of the region in pieces of 1 MiB, many in flight,
 * and reads it back.
 *
 *	client-alone [-k KEY-FILE | -c CERTIFICATES] [-f | -q] HOST PORT REGION
 *
 * -f: any NBD server, no donor.  -q: over QUIC.  HOST may be a Unix socket's path.
 */
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/key/find.h"
#include "transports/nbd/borrower/client.h"
#include "transports/quic/borrower/client.h"

enum { PIECE = 1 << 20, MAX_PIECES = 64 };

static struct tp *tp;
static struct tp_conn *conn;

static void wait_for(void)
{
	struct pollfd p = {.fd = tp_event_fd(conn), .events = (short)tp_arm(conn)};

	if (p.events && poll(&p, 1, 60000) != 1)
		errx(1, "nothing comes");
}

static void move(enum tp_op_kind kind, struct tp_mem *mem, unsigned n, uint32_t len)
{
	struct tp_op ops[MAX_PIECES] = {0}, *list[MAX_PIECES];
	unsigned posted = 0, done = 0;

	for (unsigned i = 0; i < n; i++) {
		ops[i] = (struct tp_op){.kind = (uint8_t)kind,
			.off = (uint64_t)i * len,
			.len = len,
			.buf = (uint8_t *)mem->base + (size_t)i * len,
			.mem = mem};
		list[i] = &ops[i];
	}
	while (done < n) {
		struct tp_op *finished[MAX_PIECES];
		int r = posted < n ? tp_post(conn, list + posted, n - posted) : 0;

		posted += r > 0 ? (unsigned)r : 0;
		done += (unsigned)tp_progress(conn, finished, MAX_PIECES);
		if (done < n)
			wait_for();
	}
	for (unsigned i = 0; i < n; i++)
		if (ops[i].status < 0)
			errx(1, "operation %u of %u: %s (%s)", i, n, strerror(-ops[i].status),
				conn->why.message);
}

static void write_and_read(struct tp_mem *mem, unsigned n)
{
	uint8_t *buf = mem->base, *right = malloc((size_t)n * PIECE);

	if (!right)
		errx(1, "out of memory");
	weft_random(right, (size_t)n * PIECE);
	memcpy(buf, right, (size_t)n * PIECE);
	move(TP_WRITE, mem, n, PIECE);
	memset(buf, 0, (size_t)n * PIECE);
	move(TP_READ, mem, n, PIECE);
	if (memcmp(buf, right, (size_t)n * PIECE) != 0)
		errx(1, "other bytes came back");
	free(right);
}

int main(int argc, char **argv)
{
	struct tp_target target = {.connect_timeout_ms = 20000,
		.hello = {.generation = 1, .mode = WEFT_MODE_WRITE, .name = "t"}};
	const struct tp_ops *transport = &tp_nbd_ops;
	const char *file = NULL;
	struct weft_error why;
	struct weft_key key = {0};
	struct tp_mem *mem;
	int c;

	while ((c = getopt(argc, argv, "k:c:fq")) != -1) {
		if (c == 'k')
			file = optarg;
		else if (c == 'c')
			target.certificates = optarg;
		else if (c == 'q')
			transport = &tp_quic_ops;
		else
			target.hello.anonymous = true;
	}
	if (argc - optind != 3)
		errx(2, "usage: client-alone [-k KEY-FILE | -c CERTIFICATES] [-f | -q] "
			"HOST PORT REGION");
	if (file && weft_key_find(file, NULL, &key, &why) < 0)
		errx(1, "%s", why.message);
	target.key = file ? &key : NULL;
	target.host = argv[optind];
	target.port = argv[optind + 1];
	target.region = argv[optind + 2];
	weft_random(target.hello.id, sizeof(target.hello.id));
	void *buf = aligned_alloc(4096, (size_t)MAX_PIECES * PIECE);
	if (!buf || tp_open(transport, NULL, &tp, &why) < 0 ||
		tp_register(tp, buf, (size_t)MAX_PIECES * PIECE, &mem, &why) < 0)
		errx(1, "cannot begin");

	uint64_t start_ns = weft_now_ns();
	if (tp_connect(tp, &target, &conn, &why) < 0)
		errx(1, "%s", why.message);
	while (tp_state(conn) == TP_CONNECTING) {
		wait_for();
		tp_progress(conn, NULL, 0);
	}
	if (tp_state(conn) == TP_FAILED)
		errx(1, "%s", conn->why.message);
	move(TP_READ, mem, 1, 4096);
	printf("%llu ms, %s, %s\n", (unsigned long long)(weft_now_ns() - start_ns) / 1000000,
		conn->info.transport, conn->info.path);
	write_and_read(mem, (unsigned)weft_min(conn->info.size_bytes / PIECE, MAX_PIECES));
	tp_shutdown(conn);
	tp_disconnect(conn);
	tp_deregister(mem);
	tp_close(tp);
	weft_key_wipe(&key);
	free(buf);
	return 0;
}
