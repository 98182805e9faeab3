/* SPDX-License-Identifier: MIT */
/* Packs the messages of the verbs transport, which are ours.  Pure functions, any thread. */
#include <assert.h>
#include <endian.h>
#include <string.h>

#include "transports/verbs/proto-wire.h"

static struct wire_chunk chunk_to_wire(const struct verbs_chunk *chunk)
{
	return (struct wire_chunk){.addr = htobe64(chunk->addr), .rkey = htobe32(chunk->rkey)};
}

static size_t pack_field(uint8_t *buf, size_t len, uint16_t number, const void *value,
	uint16_t value_len)
{
	struct wire_field field = {.number = htobe16(number), .length = htobe16(value_len)};

	memcpy(buf + len, &field, sizeof(field));
	if (value_len > 0)
		memcpy(buf + len + sizeof(field), value, value_len);
	return len + sizeof(field) + value_len;
}

static size_t pack_hello(const struct verbs_msg *msg, uint8_t *buf)
{
	struct wire_hello *wire = (void *)buf;
	const struct weft_hello *hello = &msg->hello.hello;
	size_t region_len = strlen(msg->hello.region);

	assert(!hello->anonymous && region_len <= VERBS_REGION_MAX);
	memcpy(wire->id, hello->id, sizeof(wire->id));
	wire->generation = htobe64(hello->generation);
	wire->epoch = htobe64(hello->version0 && !hello->epoch ? hello->expect : hello->epoch);
	wire->mode = (uint8_t)hello->mode;
	wire->region_len = htobe16((uint16_t)region_len);
	memcpy(wire->sealed, msg->hello.sealed, sizeof(wire->sealed));
	/* Zeros follow the name's end, so that none of our memory travels. */
	memcpy(wire->name, hello->name, strnlen(hello->name, WEFT_NAME_MAX));
	memcpy(buf + sizeof(*wire), msg->hello.region, region_len);
	size_t len = sizeof(*wire) + region_len;
	if (hello->version0)
		return len;
	wire->version = 1;
	if (!hello->epoch && hello->expect) {
		uint64_t expect = htobe64(hello->expect);

		len = pack_field(buf, len, VERBS_FIELD_EXPECT, &expect, sizeof(expect));
	}
	if (hello->epoch && hello->granted) {
		uint64_t granted = htobe64(hello->granted);

		len = pack_field(buf, len, VERBS_FIELD_GRANTED, &granted, sizeof(granted));
		if (hello->wrote)
			len = pack_field(buf, len, VERBS_FIELD_WROTE, NULL, 0);
	}
	if (hello->stripe.count) {
		struct wire_stripe stripe = {htobe32(hello->stripe.index),
			htobe32(hello->stripe.count), htobe64(hello->stripe.unit_bytes)};

		len = pack_field(buf, len, VERBS_FIELD_STRIPE, &stripe, sizeof(stripe));
		if (hello->new_contents)
			len = pack_field(buf, len, VERBS_FIELD_RENEW, NULL, 0);
	}
	if (hello->follows)
		len = pack_field(buf, len, VERBS_FIELD_FOLLOWS, NULL, 0);
	if (hello->copies)
		len = pack_field(buf, len, VERBS_FIELD_COPIES, NULL, 0);
	if (msg->hello.reports)
		len = pack_field(buf, len, VERBS_FIELD_REPORTS, NULL, 0);
	return len;
}

static size_t pack_grant(const struct verbs_msg *msg, uint8_t *buf)
{
	struct wire_grant *wire = (void *)buf;

	wire->size_bytes = htobe64(msg->grant.size_bytes);
	wire->epoch = htobe64(msg->grant.epoch);
	wire->generation = htobe64(msg->grant.generation);
	wire->lease_ms = htobe32(msg->grant.lease_ms);
	wire->flags = htobe32(msg->grant.flags);
	wire->chunk_bytes = htobe64(msg->grant.chunk_bytes);
	wire->nr_chunks = htobe32(msg->grant.nr_chunks);
	wire->epoch_word = chunk_to_wire(&msg->grant.epoch_word);
	wire->beat_word = chunk_to_wire(&msg->grant.beat_word);
	memcpy(wire->token, msg->grant.token, sizeof(wire->token));
	memcpy(wire->offers, msg->grant.offers, strnlen(msg->grant.offers, VERBS_OFFERS_MAX));
	if (msg->grant.version0)
		return sizeof(*wire);
	size_t len = sizeof(*wire);
	const uint32_t hashes = htobe32(msg->grant.hashes), marks = htobe32(msg->grant.marks);
	if (msg->grant.restorable)
		len = pack_field(buf, len, VERBS_FIELD_RESTORABLE, NULL, 0);
	if (hashes)
		len = pack_field(buf, len, VERBS_FIELD_HASHES, &hashes, sizeof(hashes));
	if (marks)
		len = pack_field(buf, len, VERBS_FIELD_MARKS, &marks, sizeof(marks));
	if (msg->grant.has_said) {
		const struct wire_chunk said = chunk_to_wire(&msg->grant.said);

		len = pack_field(buf, len, VERBS_FIELD_SAID, &said, sizeof(said));
	}
	if (msg->grant.moving[0])
		len = pack_field(buf, len, VERBS_FIELD_MOVING, msg->grant.moving,
			(uint16_t)strlen(msg->grant.moving));
	return len;
}

static size_t pack_refuse(const struct verbs_msg *msg, uint8_t *buf)
{
	struct wire_refuse *wire = (void *)buf;
	size_t len = strnlen(msg->refuse.text, VERBS_TEXT_MAX);

	wire->error = verbs_error_to_wire(
		-weft_refusal_code(-msg->refuse.error, msg->refuse.version0));
	wire->text_len = htobe32((uint32_t)len);
	memcpy(buf + sizeof(*wire), msg->refuse.text, len);
	return sizeof(*wire) + len;
}

static size_t pack_chunks(const struct verbs_msg *msg, uint8_t *buf)
{
	struct wire_chunks *wire = (void *)buf;

	assert(msg->chunks.nr > 0 && msg->chunks.nr <= VERBS_CHUNKS_PER_MESSAGE);
	wire->first = htobe32(msg->chunks.first);
	wire->nr = htobe32(msg->chunks.nr);
	for (uint32_t i = 0; i < msg->chunks.nr; i++) {
		struct wire_chunk chunk = chunk_to_wire(&msg->chunks.chunk[i]);

		memcpy(buf + sizeof(*wire) + i * sizeof(chunk), &chunk, sizeof(chunk));
	}
	return sizeof(*wire) + msg->chunks.nr * sizeof(struct wire_chunk);
}

static size_t pack_request(const struct verbs_msg *msg, uint8_t *buf)
{
	struct wire_request *wire = (void *)buf;

	wire->kind = msg->request.kind;
	wire->no_hole = msg->request.no_hole;
	wire->more = msg->request.more;
	wire->nr_ranges = htobe32(msg->request.nr_ranges);
	wire->off = htobe64(msg->request.off);
	wire->len = htobe64(msg->request.len);
	if (msg->request.kind == VERBS_HASH) {
		struct wire_hashing hashing = {
			.scheme = htobe32(msg->request.hashing.scheme
					? msg->request.hashing.scheme
					: WEFT_HASH_SCHEME),
			.block_bytes = htobe32(msg->request.hashing.block_bytes),
		};

		memcpy(hashing.key, msg->request.hashing.key, sizeof(hashing.key));
		memcpy(buf + sizeof(*wire), &hashing, sizeof(hashing));
		return sizeof(*wire) + sizeof(hashing);
	}
	assert(msg->request.nr_ranges <= VERBS_RANGES_PER_MESSAGE);
	for (uint32_t i = 0; i < msg->request.nr_ranges; i++) {
		const struct verbs_range *range = &msg->request.range[i];
		struct wire_range to = {.off = htobe64(range->off), .len = htobe64(range->len)};

		memcpy(buf + sizeof(*wire) + i * sizeof(to), &to, sizeof(to));
	}
	return sizeof(*wire) + msg->request.nr_ranges * sizeof(struct wire_range);
}

static size_t pack_reply(const struct verbs_msg *msg, uint8_t *buf)
{
	struct wire_reply *wire = (void *)buf;
	const size_t len = msg->reply.nr_hashes * (size_t)WEFT_HASH_BYTES;

	assert(msg->reply.nr_hashes <= VERBS_HASHES_PER_MESSAGE);
	wire->error = verbs_error_to_wire(msg->reply.error);
	memcpy(buf + sizeof(*wire), msg->reply.hashes, len);
	return sizeof(*wire) + len;
}

static size_t pack_start(const struct verbs_msg *msg, uint8_t *buf)
{
	struct wire_start *wire = (void *)buf;
	size_t len = strlen(msg->start.identity);

	assert(len > 0 && len <= VERBS_IDENTITY_MAX);
	memcpy(wire->nonce, msg->start.nonce, sizeof(wire->nonce));
	wire->version = msg->start.version;
	wire->identity_len = (uint8_t)len;
	memcpy(buf + sizeof(*wire), msg->start.identity, len);
	return sizeof(*wire) + len;
}

static size_t pack_challenge(const struct verbs_msg *msg, uint8_t *buf)
{
	struct wire_challenge *wire = (void *)buf;

	memcpy(wire->nonce, msg->challenge.nonce, sizeof(wire->nonce));
	wire->session = htobe64(msg->challenge.session);
	return sizeof(*wire);
}

size_t verbs_pack(const struct verbs_msg *msg, uint8_t *buf)
{
	struct wire_head *head = (void *)buf;
	size_t len = sizeof(*head);

	/* Every fixed part is shorter than a grant; variable parts are overwritten whole. */
	memset(buf, 0, sizeof(struct wire_grant));
	switch (msg->type) {
	case VERBS_HELLO:
		len = pack_hello(msg, buf);
		break;
	case VERBS_WAIT:
		((struct wire_wait *)buf)->done_bytes = htobe64(msg->wait.done_bytes);
		((struct wire_wait *)buf)->total_bytes = htobe64(msg->wait.total_bytes);
		len = sizeof(struct wire_wait);
		break;
	case VERBS_GRANT:
		len = pack_grant(msg, buf);
		break;
	case VERBS_REFUSE:
		len = pack_refuse(msg, buf);
		break;
	case VERBS_GET_CHUNKS:
		((struct wire_get_chunks *)buf)->first = htobe32(msg->get_chunks.first);
		len = sizeof(struct wire_get_chunks);
		break;
	case VERBS_CHUNKS:
		len = pack_chunks(msg, buf);
		break;
	case VERBS_REQUEST:
		len = pack_request(msg, buf);
		break;
	case VERBS_REPLY:
		len = pack_reply(msg, buf);
		break;
	case VERBS_START:
		len = pack_start(msg, buf);
		break;
	case VERBS_CHALLENGE:
		len = pack_challenge(msg, buf);
		break;
	case VERBS_QUIET:
		break;
	default:
		assert(msg->type == VERBS_BYE);
		((struct wire_bye *)buf)->changed = msg->bye.changed;
		len = sizeof(struct wire_bye);
	}
	head->magic = htobe32(VERBS_MAGIC);
	head->version = VERBS_VERSION;
	head->type = msg->type;
	head->length = htobe16((uint16_t)len);
	head->cookie = htobe32(msg->cookie);
	return len;
}
