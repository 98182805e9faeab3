/* SPDX-License-Identifier: MIT */
/*
 * Replies to requests: the header, and where the payload is.  Owned by the connection's thread;
 * nothing is queued here.
 */
#include <assert.h>

#include "fabric/nbd/conn.h"
#include "fabric/base/util.h"

enum {
	/*
	 * Replies and extents share a slot's row of extents: descriptors, then the weft context's
	 * chunk.
	 */
	DESCRIPTOR_BYTES = 8,
	STATUS_BYTES = NBD_CHUNK_BYTES + 4,
};
_Static_assert(NBD_MAX_EXTENTS * DESCRIPTOR_BYTES + STATUS_BYTES + DESCRIPTOR_BYTES <=
		NBD_MAX_EXTENTS * sizeof(struct nbd_extent),
	"packed in place");
_Static_assert(sizeof(((struct nbd_request *)0)->head) >= NBD_DATA_CHUNK_BYTES, "reply header");
_Static_assert(sizeof(((struct nbd_request *)0)->head) >= STATUS_BYTES, "reply header");

void nbd_request_pack_error(struct nbd_request *rq, int error)
{
	const uint32_t code = nbd_error_from_errno(-error);

	if (rq->conn->structured) {
		nbd_pack_error_chunk(rq->head, NBD_REPLY_FLAG_DONE, rq->cookie, code);
		rq->head_len = NBD_ERROR_CHUNK_BYTES;
	} else {
		nbd_pack_simple_reply(rq->head, code, rq->cookie);
		rq->head_len = NBD_SIMPLE_REPLY_BYTES;
	}
	rq->payload_len = 0;
}

static void pack_status_head(uint8_t *p, uint64_t cookie, uint32_t context, unsigned nr, bool last)
{
	const struct nbd_chunk chunk = {
		.flags = last ? NBD_REPLY_FLAG_DONE : 0,
		.type = NBD_REPLY_TYPE_BLOCK_STATUS,
		.cookie = cookie,
		.len = 4 + nr * DESCRIPTOR_BYTES,
	};

	nbd_pack_chunk(p, &chunk);
	weft_put32(p + NBD_CHUNK_BYTES, context);
}

/* Descriptors are packed over the extents that they come from: each is half as long. */
static void pack_extents(struct nbd_request *rq)
{
	uint8_t *p = rq->payload;
	uint64_t sum = 0;
	unsigned n = 0;

	assert(rq->nr_extents > 0 && rq->nr_extents <= rq->max_extents);
	while (n < rq->nr_extents && sum < rq->len) {
		const struct nbd_extent extent = rq->extents[n];
		uint64_t len = extent.len;

		assert(len > 0);
		if (rq->flags & NBD_CMD_FLAG_REQ_ONE)
			len = weft_min(len, rq->len);
		/*
		 * A length has 32 bits; the client asks again for the part behind a shortened one.
		 */
		if (len > UINT32_MAX)
			len = UINT32_MAX & ~(uint64_t)4095;
		weft_put32(p + n * DESCRIPTOR_BYTES, (uint32_t)len);
		weft_put32(p + n * DESCRIPTOR_BYTES + 4, extent.flags);
		sum += len;
		n++;
		if (len < extent.len)
			break;
	}
	rq->payload_len = n * DESCRIPTOR_BYTES;
	pack_status_head(rq->head, rq->cookie, NBD_CONTEXT_ALLOCATION, n,
		!(rq->conn->contexts & NBD_CONTEXT_GRANT));
}

/* proto, NBD_CMD_BLOCK_STATUS: one chunk for each selected context. */
static void pack_status(struct nbd_request *rq)
{
	const uint8_t contexts = rq->conn->contexts;
	uint8_t *p = rq->payload;

	rq->head_len = STATUS_BYTES;
	rq->payload_len = 0;
	if (contexts & NBD_CONTEXT_ALLOCATION)
		pack_extents(rq);
	if (contexts & NBD_CONTEXT_GRANT) {
		/* Our context says nothing about blocks. */
		if (rq->payload_len > 0) {
			pack_status_head(p + rq->payload_len, rq->cookie, NBD_CONTEXT_GRANT, 1,
				true);
			rq->payload_len += STATUS_BYTES;
		} else {
			pack_status_head(rq->head, rq->cookie, NBD_CONTEXT_GRANT, 1, true);
		}
		weft_put32(p + rq->payload_len, rq->len);
		weft_put32(p + rq->payload_len + 4, 0);
		rq->payload_len += DESCRIPTOR_BYTES;
	}
}

/* One chunk, with nothing but the hashes. */
static void pack_hashes(struct nbd_request *rq)
{
	rq->payload = rq->buf;
	rq->payload_len =
		weft_hash_nr_blocks(rq->len, rq->hashing.block_bytes) * WEFT_HASH_BYTES;
	const struct nbd_chunk chunk = {
		.flags = NBD_REPLY_FLAG_DONE,
		.type = NBD_REPLY_TYPE_HASHES,
		.cookie = rq->cookie,
		.len = rq->payload_len,
	};
	nbd_pack_chunk(rq->head, &chunk);
	rq->head_len = NBD_CHUNK_BYTES;
}

void nbd_request_pack_reply(struct nbd_request *rq, int error)
{
	if (error) {
		nbd_request_pack_error(rq, error);
		return;
	}
	switch (rq->type) {
	case NBD_CMD_READ:
		rq->payload = rq->buf;
		rq->payload_len = rq->len;
		if (rq->conn->structured) {
			nbd_pack_data_chunk(rq->head, NBD_REPLY_FLAG_DONE, rq->cookie, rq->off,
				rq->len);
			rq->head_len = NBD_DATA_CHUNK_BYTES;
			return;
		}
		break;
	case NBD_CMD_BLOCK_STATUS:
		pack_status(rq);
		return;
	case NBD_CMD_HASH:
		pack_hashes(rq);
		return;
	default:
		rq->payload_len = 0;
	}
	/* Without a payload a simple reply is always allowed, and shorter. */
	nbd_pack_simple_reply(rq->head, 0, rq->cookie);
	rq->head_len = NBD_SIMPLE_REPLY_BYTES;
}
