/* SPDX-License-Identifier: MIT */
/*
 * The NBD client's trust boundary: the server's bytes are checked here, and nowhere else.
 * Invariant: a READ, or HASH, completes with success only when every byte of it arrived exactly
 * once.  No
 * system calls.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/nbd/client-private.h"

enum {
	MAX_ERROR_CHUNK = 2 * NBD_MAX_STRING,
	/* for reads from this size on, saving a copy is worth another system call */
	DIRECT_BYTES = 16 << 10,
};

static int fail(struct nbd_client *c, const char *what)
{
	tp_conn_fail(c->conn, EPROTO, "%s: the server broke the protocol: %s", c->conn->info.path,
		what);
	return -EPROTO;
}

static int status_of(uint32_t error)
{
	int code = nbd_error_to_errno(error);

	switch (code) {
	case EPERM:
	case ENOMEM:
	case EINVAL:
	case ENOSPC:
	case EOPNOTSUPP:
	case ESHUTDOWN:
		return code;
	default:
		return EIO;
	}
}

struct tp_op *nbd_slot_complete(struct nbd_client *c, struct nbd_slot *slot, int status)
{
	struct tp_op *op = slot->op;

	assert(op);
	if (slot->type == NBD_CMD_READ) {
		c->nr_reads--;
		c->read_bytes -= slot->len;
	}
	op->status = status;
	slot->op = NULL;
	slot->next_free = c->first_free;
	c->first_free = (uint16_t)(slot - c->slots);
	return op;
}

/* The request that the cookie names, or NULL. */
static struct nbd_slot *find_slot(struct nbd_client *c, uint64_t cookie)
{
	uint32_t index = (uint32_t)cookie;

	if (index >= c->depth)
		return NULL;
	struct nbd_slot *slot = &c->slots[index];
	if (!slot->op || slot->generation != (uint32_t)(cookie >> 32))
		return NULL;
	/*
	 * A request that has not left whole cannot be answered: its buffer would be reused during
	 * the send.
	 */
	if ((int32_t)(slot->tx_pos - c->tx_head) >= 0)
		return NULL;
	return slot;
}

/*
 * Notes that [start, end) arrived.  False: part of it arrived before, or there are too many pieces.
 */
static bool add_span(struct nbd_slot *slot, uint32_t start, uint32_t end)
{
	struct nbd_span *spans = slot->spans;
	unsigned i = 0, nr = slot->nr_spans;

	while (i < nr && spans[i].end < start)
		i++;
	/* spans[i] is the first that ends at or after start. */
	bool before = i < nr && spans[i].end == start;
	unsigned after = before ? i + 1 : i;
	if (after < nr && spans[after].start < end)
		return false;
	bool behind = after < nr && spans[after].start == end;
	if (before && behind) {
		spans[i].end = spans[after].end;
		memmove(&spans[after], &spans[after + 1], (nr - after - 1) * sizeof(spans[0]));
		slot->nr_spans--;
	} else if (before) {
		spans[i].end = end;
	} else if (behind) {
		spans[after].start = start;
	} else {
		if (nr == NBD_CLIENT_MAX_SPANS)
			return false;
		memmove(&spans[i + 1], &spans[i], (nr - i) * sizeof(spans[0]));
		spans[i] = (struct nbd_span){start, end};
		slot->nr_spans++;
	}
	return true;
}

static bool is_whole(const struct nbd_slot *slot)
{
	return slot->nr_spans == 1 && slot->spans[0].start == 0 && slot->spans[0].end == slot->len;
}

/* A chunk (or a simple reply) ended.  Its operation goes into done[] if it was the last. */
static int end_chunk(struct nbd_client *c, struct tp_op **done, unsigned *nr)
{
	struct nbd_slot *slot = c->rx.slot;

	c->rx.state = RX_HEADER;
	c->rx.need = 4;
	c->rx.slot = NULL;
	if (!c->rx.done)
		return 0;
	if (slot->error == ESHUTDOWN) {
		/*
		 * The operation was not done, and is worth another try elsewhere or later: so the
		 * connection fails.
		 */
		tp_conn_fail(c->conn, ESHUTDOWN, "%s: the server is shutting down",
			c->conn->info.path);
		return -ESHUTDOWN;
	}
	if (slot->error == 0 && slot->type == NBD_CMD_READ && !is_whole(slot))
		return fail(c, "a READ's reply lacks data");
	if (slot->error == 0 && slot->type == NBD_CMD_HASH && slot->nr_spans == 0)
		return fail(c, "a HASH's reply lacks hashes");
	done[(*nr)++] = nbd_slot_complete(c, slot, -slot->error);
	return 0;
}

static int simple_reply(struct nbd_client *c, const uint8_t *p, struct tp_op **done, unsigned *nr)
{
	uint32_t error;
	uint64_t cookie;

	nbd_unpack_simple_reply(p, &error, &cookie);
	struct nbd_slot *slot = find_slot(c, cookie);
	if (!slot)
		return fail(c, "a reply to no request");
	c->rx.slot = slot;
	c->rx.done = true;
	if (slot->type == NBD_CMD_READ) {
		if (c->structured)
			return fail(c,
				"a simple reply to a READ after structured replies were agreed on");
		if (error == 0) {
			add_span(slot, 0, slot->len);
			c->rx.state = RX_PAYLOAD;
			c->rx.to = slot->buf;
			c->rx.rest = slot->len;
			return 0;
		}
	} else if (slot->error || slot->nr_spans) {
		return fail(c, "a simple reply after a chunk");
	}
	if (error)
		slot->error = status_of(error);
	return end_chunk(c, done, nr);
}

/* All hashes of a HASH come in one chunk. */
static int hashes_chunk(struct nbd_client *c)
{
	struct nbd_rx *rx = &c->rx;
	struct nbd_slot *slot = rx->slot;

	if (slot->type != NBD_CMD_HASH || rx->chunk_len != slot->hash_bytes || slot->nr_spans)
		return fail(c, "a chunk of hashes out of place or of impossible length");
	slot->nr_spans = 1;
	rx->state = RX_PAYLOAD;
	rx->to = slot->buf;
	rx->rest = slot->hash_bytes;
	return 0;
}

static int structured_reply(struct nbd_client *c, const uint8_t *p, struct tp_op **done,
	unsigned *nr)
{
	struct nbd_rx *rx = &c->rx;
	struct nbd_chunk chunk;

	if (!c->structured)
		return fail(c, "a structured reply that was not agreed on");
	nbd_unpack_chunk(p, &chunk);
	rx->slot = find_slot(c, chunk.cookie);
	if (!rx->slot)
		return fail(c, "a reply to no request");
	rx->done = chunk.flags & NBD_REPLY_FLAG_DONE;
	rx->chunk_len = chunk.len;
	rx->chunk_type = chunk.type;
	if (chunk.type & (1 << 15)) {
		if (chunk.len < 6 || chunk.len > MAX_ERROR_CHUNK)
			return fail(c, "an error chunk of impossible length");
		rx->state = RX_ERROR;
		rx->need = chunk.len;
		return 0;
	}
	switch (chunk.type) {
	case NBD_REPLY_TYPE_NONE:
		if (chunk.len != 0 || !rx->done)
			return fail(c, "a NONE chunk with a payload, or not the last");
		return end_chunk(c, done, nr);
	case NBD_REPLY_TYPE_OFFSET_DATA:
		if (rx->slot->type != NBD_CMD_READ || chunk.len <= 8 ||
			chunk.len - 8 > rx->slot->len)
			return fail(c, "a data chunk out of place or of impossible length");
		rx->state = RX_OFFSET;
		rx->need = 8;
		return 0;
	case NBD_REPLY_TYPE_OFFSET_HOLE:
		if (rx->slot->type != NBD_CMD_READ || chunk.len != 12)
			return fail(c, "a hole chunk out of place or of impossible length");
		rx->state = RX_HOLE;
		rx->need = 12;
		return 0;
	case NBD_REPLY_TYPE_HASHES:
		return hashes_chunk(c);
	default:
		return fail(c, "a chunk of unknown type");
	}
}

/*
 * The place of the region's [off, off + len) in the READ's buffer, which is noted as arrived.
 * NULL: outside.
 */
static uint8_t *place(struct nbd_slot *slot, uint64_t off, uint32_t len)
{
	if (len == 0 || off < slot->off || off - slot->off > slot->len ||
		len > slot->len - (uint32_t)(off - slot->off))
		return NULL;
	uint32_t start = (uint32_t)(off - slot->off);
	return add_span(slot, start, start + len) ? slot->buf + start : NULL;
}

static int error_chunk(struct nbd_client *c, const uint8_t *p)
{
	struct nbd_rx *rx = &c->rx;
	struct nbd_slot *slot = rx->slot;
	uint32_t error = weft_get32(p);
	uint32_t text = weft_get16(p + 4);

	if (error == 0)
		return fail(c, "an error chunk without an error");
	if (text > NBD_MAX_STRING || 6 + text > rx->chunk_len)
		return fail(c, "an error chunk whose text does not fit");
	if (rx->chunk_type == NBD_REPLY_TYPE_ERROR && rx->chunk_len != 6 + text)
		return fail(c, "an error chunk of impossible length");
	if (rx->chunk_type == NBD_REPLY_TYPE_ERROR_OFFSET) {
		if (rx->chunk_len != 6 + text + 8)
			return fail(c, "an error chunk of impossible length");
		uint64_t off = weft_get64(p + 6 + text);
		if (off < slot->off || off - slot->off >= slot->len)
			return fail(c, "an error at an offset that was not asked for");
	}
	/* An unknown error is an error all the same (proto, "Structured reply types"). */
	if (slot->error == 0)
		slot->error = status_of(error);
	return 0;
}

int nbd_rx_parse(struct nbd_client *c, struct tp_op **done, unsigned max, unsigned *nr)
{
	struct nbd_rx *rx = &c->rx;
	int r = 0;

	while (r == 0) {
		uint32_t avail = rx->tail - rx->head;
		const uint8_t *p = rx->buf + rx->head;

		if (rx->state == RX_PAYLOAD) {
			uint32_t n = (uint32_t)weft_min(avail, rx->rest);

			memcpy(rx->to, p, n);
			rx->to += n;
			rx->head += n;
			rx->rest -= n;
			if (rx->rest > 0)
				return 0;
			r = end_chunk(c, done, nr);
			continue;
		}
		if (rx->state == RX_HEADER && *nr == max) {
			rx->stopped = avail > 0;
			return 1;
		}
		if (avail < rx->need)
			return 0;
		switch (rx->state) {
		case RX_HEADER:
			if (rx->need == 4) {
				uint32_t magic = weft_get32(p);

				if (magic == NBD_SIMPLE_REPLY_MAGIC)
					rx->need = NBD_SIMPLE_REPLY_BYTES;
				else if (magic == NBD_STRUCTURED_REPLY_MAGIC)
					rx->need = NBD_CHUNK_BYTES;
				else
					return fail(c, "wrong magic in a reply");
				continue;
			}
			rx->head += rx->need;
			if (rx->need == NBD_SIMPLE_REPLY_BYTES)
				r = simple_reply(c, p, done, nr);
			else
				r = structured_reply(c, p, done, nr);
			break;
		case RX_OFFSET:
			rx->rest = rx->chunk_len - 8;
			rx->to = place(rx->slot, weft_get64(p), rx->rest);
			if (!rx->to)
				return fail(c, "data that was not asked for, or twice");
			rx->head += 8;
			rx->state = RX_PAYLOAD;
			break;
		case RX_HOLE: {
			uint32_t len = weft_get32(p + 8);
			uint8_t *to = place(rx->slot, weft_get64(p), len);

			if (!to)
				return fail(c, "a hole that was not asked for, or twice");
			memset(to, 0, len);
			rx->head += 12;
			r = end_chunk(c, done, nr);
			break;
		}
		case RX_ERROR:
			r = error_chunk(c, p);
			rx->head += rx->chunk_len;
			if (r == 0)
				r = end_chunk(c, done, nr);
			break;
		case RX_PAYLOAD:
			break;
		}
	}
	return r;
}

uint32_t nbd_rx_window(const struct nbd_client *c)
{
	const struct nbd_rx *rx = &c->rx;
	uint32_t have = rx->tail - rx->head;
	uint32_t header = c->structured ? NBD_DATA_CHUNK_BYTES : NBD_SIMPLE_REPLY_BYTES;

	/*
	 * With large reads on their way, only the next header is received, so that its payload can
	 * be received in place; otherwise as much as fits, many replies at once.
	 */
	if (c->nr_reads == 0 || c->read_bytes / c->nr_reads < DIRECT_BYTES)
		return NBD_CLIENT_RX_BYTES - have;
	if (rx->state == RX_PAYLOAD)
		return header;
	if (rx->state == RX_HEADER || rx->need <= have)
		return header > have ? header - have : header;
	return rx->need - have;
}
