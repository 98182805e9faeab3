/* SPDX-License-Identifier: MIT */
/*
 * A client's bytes up to GO: the first byte says what the server is like, the second is a piece's
 * length, the rest is what it sends.
 */
#include "fabric/nbd/handshake.c"
#include "tests/fuzz/feed.h"
#include "tests/support/nbd-memory.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	HAS_TENURES = 1,
	HUGE_LIST = 2,
	IS_STOPPING = 4,
	WANTS_TLS = 8,
	NO_SESSIONS = 16,
	BIG_BLOCKS = 32,
	REFUSES = 64,
	ANSWERS = 128,
};

static uint64_t tenure(struct nbd_conn *conn, const char *name)
{
	return 0x1234;
}

/* More exports than it lists. */
static int list_some(struct nbd_conn *conn,
	int (*emit)(void *ctx, const char *name, const char *description), void *ctx,
	struct weft_error *err)
{
	int r = emit(ctx, "some", NULL);

	return r < 0 ? r : -E2BIG;
}

static int welcome_nobody(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct weft_welcome *ret)
{
	return -ENOENT;
}

static const char *too_long(void)
{
	static char text[NBD_MAX_ANSWER + 2];

	if (!text[0])
		memset(text, 'x', NBD_MAX_ANSWER + 1);
	return text;
}

static void make_service(struct nbd_memory *m, uint8_t how)
{
	m->names[1] = "m";
	m->description = "memory";
	m->huge_list = how & HUGE_LIST;
	if (how & HAS_TENURES)
		m->service.tenure = tenure;
	if (how & IS_STOPPING) {
		m->open_error = ESHUTDOWN;
		m->open_message = "it stops";
		m->service.list = list_some;
		m->service.welcome = welcome_nobody;
	}
	if (how & REFUSES) {
		m->open_error = EBUSY;
		m->open_message = "somebody else has it";
	}
	if (how & NO_SESSIONS)
		m->service.welcome = NULL;
	if (how & BIG_BLOCKS)
		m->min_block_bytes = 512;
	if (how & ANSWERS)
		nbd_memory_answer(m, how & REFUSES ? NULL : "{\"an\":\"answer\"}");
	if (how & ANSWERS && how & IS_STOPPING)
		m->answer = too_long();
	m->question_error = how & HAS_TENURES ? ENOSYS : EACCES;
	m->question_message = "it does not answer";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct nbd_conn conn;
	static uint8_t mem[4096];
	struct nbd_memory m;
	size_t piece;
	int r = 0;

	if (size < 2)
		return 0;
	piece = data[1] ? data[1] : NBD_RX_BYTES;
	nbd_memory_init(&m, mem, sizeof(mem));
	make_service(&m, data[0]);
	memset(&conn, 0, offsetof(struct nbd_conn, rx));
	conn.service = &m.service;
	conn.user = &m;
	if (data[0] & WANTS_TLS)
		conn.wants_tls = "TLS is wanted";
	data += 2, size -= 2;
	while (r == 0 && size > 0 && conn.phase < NBD_REQUEST) {
		size_t n = feed(&conn, data, size, piece);
		data += n;
		size -= n;
		do {
			conn.held_back = false;
			while ((r = nbd_handshake_step(&conn)) > 0)
				assert(conn.rx_start <= conn.rx_end && conn.tx_len <= conn.tx_cap);
			conn.tx_len = 0; /* sent */
		} while (r == 0 && conn.held_back);
	}
	assert(conn.phase < NBD_REQUEST || conn.goodbye ||
		(conn.opened && conn.export.size_bytes > 0));
	free(conn.tx);
	return 0;
}
