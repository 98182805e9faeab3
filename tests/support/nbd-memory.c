/* SPDX-License-Identifier: MIT */
#include "tests/support/nbd-memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"

static struct nbd_memory *memory_of(const struct nbd_conn *conn)
{
	return nbd_conn_user(conn);
}

static int memory_list(struct nbd_conn *conn,
	int (*emit)(void *ctx, const char *name, const char *description), void *ctx,
	struct weft_error *err)
{
	struct nbd_memory *m = memory_of(conn);
	char name[NBD_MAX_STRING + 1];
	int r = 0;

	for (unsigned i = 0; r == 0 && m->huge_list && i < 5000; i++) {
		snprintf(name, sizeof(name), "%04095u", i);
		r = emit(ctx, name, NULL);
	}
	for (unsigned i = 0; r == 0 && i < NBD_MEMORY_NAMES && m->names[i]; i++)
		r = emit(ctx, m->names[i], m->description);
	return r;
}

static int memory_info(struct nbd_conn *conn, const char *name, struct nbd_export *ret,
	struct weft_error *err)
{
	struct nbd_memory *m = memory_of(conn);

	for (unsigned i = 0; i < NBD_MEMORY_NAMES && m->names[i]; i++) {
		if (strcmp(m->names[i], name) != 0)
			continue;
		*ret = (struct nbd_export){
			.size_bytes = m->size_bytes,
			.flags = m->flags,
			.min_block_bytes = m->min_block_bytes,
			.preferred_block_bytes = 4096,
			.max_block_bytes = m->max_block_bytes,
			.name = m->names[i],
			.description = m->description,
		};
		return 0;
	}
	return weft_error_set(err, ENOENT, "no such export");
}

static int memory_open(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct nbd_export *ret, struct weft_error *err)
{
	struct nbd_memory *m = memory_of(conn);
	int r;

	if (m->open_error)
		return weft_error_set(err, m->open_error, "%s", m->open_message);
	r = memory_info(conn, name, ret, err);
	if (r < 0)
		return r;
	m->nr_opened++;
	m->hello = *hello;
	snprintf(m->opened, sizeof(m->opened), "%s", name);
	return 0;
}

static int memory_welcome(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct weft_welcome *ret)
{
	*ret = (struct weft_welcome){.epoch = 0x1122334455667788,
		.lease_ms = 30000,
		.offers = "tcp"};
	return 0;
}

static int memory_question(struct nbd_conn *conn, const char *json, size_t len, char **ret_answer,
	struct weft_error *err)
{
	struct nbd_memory *m = memory_of(conn);

	m->nr_questions++;
	snprintf(m->question, sizeof(m->question), "%.*s", (int)weft_min(len, 255), json);
	if (!m->answer)
		return weft_error_set(err, m->question_error, "%s", m->question_message);
	*ret_answer = strdup(m->answer);
	return *ret_answer ? 0 : -ENOMEM;
}

static void memory_close(struct nbd_conn *conn, bool clean)
{
	struct nbd_memory *m = memory_of(conn);

	m->nr_closed++;
	m->clean = clean;
}

static int memory_prepare(struct nbd_request *rq)
{
	struct nbd_memory *m = memory_of(rq->conn);

	if (m->prepare_error)
		return m->prepare_error;
	if (m->nr_buffers && m->nr_in_use == m->nr_buffers)
		return -EAGAIN;
	if (m->nr_in_use == 0)
		m->hashes_used = 0;
	m->nr_prepared++;
	m->nr_in_use++;
	rq->buf = m->mem + rq->off;
	if (rq->type == NBD_CMD_HASH) {
		rq->buf = m->hashes + m->hashes_used;
		m->hashes_used +=
			weft_hash_nr_blocks(rq->len, rq->hashing.block_bytes) * WEFT_HASH_BYTES;
	}
	return 0;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static void find_extents(struct nbd_memory *m, struct nbd_request *rq)
{
	uint64_t off = rq->off;
	const uint64_t end = rq->off + rq->len;

	rq->nr_extents = 0;
	while (off < end && rq->nr_extents <= rq->max_extents) {
		const uint64_t n = weft_min(end, (off | 4095) + 1) - off;
		const uint32_t flags = m->zero_extents && all_zero(m->mem + off, n)
			? NBD_STATE_HOLE | NBD_STATE_ZERO
			: 0;

		if (rq->nr_extents > 0 && rq->extents[rq->nr_extents - 1].flags == flags) {
			rq->extents[rq->nr_extents - 1].len += n;
		} else {
			if (rq->nr_extents == rq->max_extents)
				break;
			rq->extents[rq->nr_extents++] = (struct nbd_extent){ n, flags };
		}
		off += n;
	}
}

static void finish(struct nbd_memory *m, struct nbd_request *rq, int error)
{
	if (!error && rq->type == NBD_CMD_WRITE_ZEROES) {
		if (rq->flags & NBD_CMD_FLAG_FAST_ZERO)
			error = -EOPNOTSUPP;
		else
			memset(m->mem + rq->off, 0, rq->len);
	}
	if (!error && rq->type == NBD_CMD_HASH) {
		struct weft_hasher hasher = {0};

		error = weft_hasher_set(&hasher, rq->hashing.key);
		weft_hasher_hash_blocks(&hasher, rq->hashing.block_bytes, m->mem + rq->off,
			rq->len, rq->buf);
	}
	if (!error && rq->type == NBD_CMD_BLOCK_STATUS)
		find_extents(m, rq);
	nbd_request_complete(rq, error);
}

static void memory_submit(struct nbd_request *rq)
{
	struct nbd_memory *m = memory_of(rq->conn);

	m->nr_submitted++;
	if (m->hold)
		m->held[m->nr_held++] = rq;
	else
		finish(m, rq, m->error);
}

static void memory_release(struct nbd_request *rq)
{
	struct nbd_memory *m = memory_of(rq->conn);

	m->nr_released++;
	m->nr_in_use -= rq->buf != NULL;
}

static void memory_received(struct nbd_conn *conn, uint64_t now_ns)
{
	memory_of(conn)->nr_received += now_ns > 0;
}

void nbd_memory_complete(struct nbd_memory *m, unsigned i, int error)
{
	struct nbd_request *rq = m->held[i];

	memmove(&m->held[i], &m->held[i + 1], (--m->nr_held - i) * sizeof(m->held[0]));
	finish(m, rq, error);
}

void nbd_memory_hashes(struct nbd_memory *m, uint8_t *hashes)
{
	m->hashes = hashes;
	m->service.hashes = true;
}

void nbd_memory_answer(struct nbd_memory *m, const char *answer)
{
	m->answer = answer;
	m->service.question = memory_question;
}

void nbd_memory_init(struct nbd_memory *m, void *mem, uint64_t size_bytes)
{
	*m = (struct nbd_memory){
		.service = {
			.list = memory_list,
			.info = memory_info,
			.open = memory_open,
			.welcome = memory_welcome,
			.prepare = memory_prepare,
			.submit = memory_submit,
			.release = memory_release,
			.close = memory_close,
			.received = memory_received,
		},
		.names = { "" },
		.mem = mem,
		.size_bytes = size_bytes,
		.flags = NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |
			NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE |
			NBD_FLAG_SEND_FAST_ZERO,
		.min_block_bytes = 1,
		.max_block_bytes = NBD_MAX_PAYLOAD,
	};
}
