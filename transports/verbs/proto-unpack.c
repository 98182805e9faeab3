/* SPDX-License-Identifier: MIT */
/*
 * Unpacks the messages of the verbs transport, which a peer sent: no length or count in them is
 * trusted.  Pure functions, any thread.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "fabric/base/bytes.h"
#include "transports/verbs/proto-wire.h"

static struct verbs_chunk chunk_from_wire(const struct wire_chunk *wire)
{
	return (struct verbs_chunk){.addr = be64toh(wire->addr), .rkey = be32toh(wire->rkey)};
}

/* Cuts the first field off; false: malformed. */
static bool next_field(const uint8_t **p, size_t *left, uint16_t *ret_number,
	const uint8_t **ret_value, size_t *ret_len)
{
	struct wire_field field;

	if (*left < sizeof(field))
		return false;
	memcpy(&field, *p, sizeof(field));
	size_t len = be16toh(field.length);
	if (len > *left - sizeof(field) || (be16toh(field.number) & ~VERBS_FIELD_MUST) == 0)
		return false;
	*ret_number = be16toh(field.number);
	*ret_value = *p + sizeof(field);
	*ret_len = len;
	*p += sizeof(field) + len;
	*left -= sizeof(field) + len;
	return true;
}

static int take_u64(const uint8_t *value, size_t len, uint64_t *ret)
{
	if (len != sizeof(*ret) || *ret)
		return -EPROTO;
	memcpy(ret, value, sizeof(*ret));
	*ret = be64toh(*ret);
	return *ret ? 0 : -EPROTO;
}

static int take_stripe(const uint8_t *value, size_t len, struct weft_stripe *ret)
{
	struct wire_stripe wire;

	if (len != sizeof(wire) || ret->count)
		return -EPROTO;
	memcpy(&wire, value, sizeof(wire));
	struct weft_stripe stripe = {be32toh(wire.index), be32toh(wire.count),
		be64toh(wire.unit_bytes)};
	if (!weft_stripe_valid(&stripe))
		return -EPROTO;
	*ret = stripe;
	return 0;
}

static int unpack_hello_fields(const uint8_t *p, size_t left, struct weft_hello *hello,
	bool *ret_reports, uint16_t *ret_unknown)
{
	const uint8_t *value;
	uint16_t number;
	size_t len;
	int r = 0;

	if (hello->version0 && left > 0)
		return -EPROTO;
	while (left > 0) {
		if (!next_field(&p, &left, &number, &value, &len))
			return -EPROTO;
		switch (number & ~VERBS_FIELD_MUST) {
		case VERBS_FIELD_GRANTED:
			r = take_u64(value, len, &hello->granted);
			break;
		case VERBS_FIELD_EXPECT:
			r = take_u64(value, len, &hello->expect);
			break;
		case VERBS_FIELD_WROTE:
			if (len != 0 || hello->wrote)
				return -EPROTO;
			hello->wrote = true;
			break;
		case VERBS_FIELD_STRIPE:
			r = take_stripe(value, len, &hello->stripe);
			break;
		case VERBS_FIELD_RENEW:
			if (len != 0 || hello->new_contents)
				return -EPROTO;
			hello->new_contents = true;
			break;
		case VERBS_FIELD_FOLLOWS:
			if (len != 0 || hello->follows)
				return -EPROTO;
			hello->follows = true;
			break;
		case VERBS_FIELD_COPIES:
			if (len != 0 || hello->copies)
				return -EPROTO;
			hello->copies = true;
			break;
		case VERBS_FIELD_REPORTS:
			if (len != 0 || *ret_reports)
				return -EPROTO;
			*ret_reports = true;
			break;
		default:
			if ((number & VERBS_FIELD_MUST) && *ret_unknown == 0)
				*ret_unknown = number & (uint16_t)~VERBS_FIELD_MUST;
		}
		if (r < 0)
			return r;
	}
	if ((hello->expect && hello->epoch) || (hello->granted && !hello->epoch) ||
		(hello->wrote && !hello->granted) ||
		(hello->new_contents && (hello->epoch || !hello->stripe.count)))
		return -EPROTO;
	return 0;
}

static int unpack_hello(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	const struct wire_hello *wire = (const void *)buf;
	struct weft_hello hello = {0};

	if (len < sizeof(*wire))
		return -EPROTO;
	size_t region_len = be16toh(wire->region_len);
	const char *region = (const char *)buf + sizeof(*wire);
	if (region_len > VERBS_REGION_MAX || len < sizeof(*wire) + region_len ||
		memchr(region, '\0', region_len))
		return -EPROTO;
	hello.version0 = wire->version == 0;
	memcpy(hello.id, wire->id, sizeof(hello.id));
	hello.generation = be64toh(wire->generation);
	hello.epoch = be64toh(wire->epoch);
	if (wire->mode != WEFT_MODE_READ && wire->mode != WEFT_MODE_SHARED &&
		wire->mode != WEFT_MODE_WRITE)
		return -EPROTO;
	hello.mode = (enum weft_mode)wire->mode;
	if (wire->name[WEFT_NAME_MAX] != '\0')
		return -EPROTO;
	memcpy(hello.name, wire->name, sizeof(hello.name));
	if (!weft_name_valid(hello.name) || hello.generation == 0)
		return -EPROTO;
	ret->hello.unknown = 0;
	ret->hello.reports = false;
	if (unpack_hello_fields(buf + sizeof(*wire) + region_len, len - sizeof(*wire) - region_len,
		    &hello, &ret->hello.reports, &ret->hello.unknown) < 0)
		return -EPROTO;
	ret->hello.hello = hello;
	memcpy(ret->hello.sealed, wire->sealed, sizeof(wire->sealed));
	memcpy(ret->hello.region, region, region_len);
	ret->hello.region[region_len] = '\0';
	return 0;
}

/* The bytes are not looked at by anybody but the card, which knows which it may write. */
static int take_said(const uint8_t *value, size_t len, struct verbs_msg *ret)
{
	struct wire_chunk wire;

	if (len != sizeof(wire) || ret->grant.has_said)
		return -EPROTO;
	memcpy(&wire, value, sizeof(wire));
	ret->grant.has_said = true;
	ret->grant.said = chunk_from_wire(&wire);
	return 0;
}

static int take_moving(const uint8_t *value, size_t len, struct verbs_msg *ret)
{
	if (!weft_place_valid((const char *)value, len) || ret->grant.moving[0])
		return -EPROTO;
	memcpy(ret->grant.moving, value, len);
	ret->grant.moving[len] = '\0';
	return 0;
}

static int unpack_grant_fields(const uint8_t *p, size_t left, struct verbs_msg *ret)
{
	const uint8_t *value;
	uint16_t number;
	size_t len;
	int r = 0;

	ret->grant.restorable = ret->grant.has_said = false;
	ret->grant.hashes = ret->grant.marks = 0;
	ret->grant.said = (struct verbs_chunk){0};
	ret->grant.moving[0] = '\0';
	while (left > 0) {
		if (!next_field(&p, &left, &number, &value, &len))
			return -EPROTO;
		const uint16_t which = number & (uint16_t)~VERBS_FIELD_MUST;
		if (which == VERBS_FIELD_RESTORABLE)
			ret->grant.restorable = true;
		else if (which == VERBS_FIELD_HASHES && len == 4)
			ret->grant.hashes = weft_get32(value);
		else if (which == VERBS_FIELD_MARKS && len == 4)
			ret->grant.marks = weft_get32(value);
		else if (which == VERBS_FIELD_SAID)
			r = take_said(value, len, ret);
		else if (which == VERBS_FIELD_MOVING)
			r = take_moving(value, len, ret);
		else if (number & VERBS_FIELD_MUST)
			return -EPROTONOSUPPORT;
		if (r < 0)
			return r;
	}
	return 0;
}

static int unpack_grant(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	const struct wire_grant *wire = (const void *)buf;

	if (len < sizeof(*wire) || wire->offers[VERBS_OFFERS_MAX] != '\0')
		return -EPROTO;
	uint64_t size = be64toh(wire->size_bytes), chunk = be64toh(wire->chunk_bytes);
	uint32_t nr = be32toh(wire->nr_chunks), flags = be32toh(wire->flags);
	/* Code that divides by chunk, allocates nr, or adds to an offset relies on these checks. */
	if (size == 0 || size > INT64_MAX || chunk < 4096 || chunk > INT64_MAX || nr == 0 ||
		nr > VERBS_MAX_CHUNKS || verbs_nr_chunks(size, chunk) != nr ||
		(flags & ~(uint32_t)(VERBS_GRANT_READ_ONLY | VERBS_GRANT_FLUSH_ASKS)))
		return -EPROTO;
	for (const char *c = wire->offers; *c; c++)
		if (*c < '!' || *c > '~')
			return -EPROTO;
	int r = unpack_grant_fields(buf + sizeof(*wire), len - sizeof(*wire), ret);
	if (r < 0)
		return r;
	ret->grant.size_bytes = size;
	ret->grant.epoch = be64toh(wire->epoch);
	ret->grant.generation = be64toh(wire->generation);
	ret->grant.lease_ms = be32toh(wire->lease_ms);
	ret->grant.flags = flags;
	ret->grant.chunk_bytes = chunk;
	ret->grant.nr_chunks = nr;
	ret->grant.epoch_word = chunk_from_wire(&wire->epoch_word);
	ret->grant.beat_word = chunk_from_wire(&wire->beat_word);
	memcpy(ret->grant.token, wire->token, sizeof(wire->token));
	memcpy(ret->grant.offers, wire->offers, sizeof(wire->offers));
	return 0;
}

static int unpack_refuse(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	const struct wire_refuse *wire = (const void *)buf;

	if (len < sizeof(*wire))
		return -EPROTO;
	size_t text_len = be32toh(wire->text_len);
	if (text_len > VERBS_TEXT_MAX || len != sizeof(*wire) + text_len)
		return -EPROTO;
	int error = verbs_error_from_wire(wire->error);
	if (error == 0)
		return -EPROTO;
	ret->refuse.error = error;
	for (size_t i = 0; i < text_len; i++) {
		char c = (char)buf[sizeof(*wire) + i];

		/* The text goes to a log or a terminal. */
		ret->refuse.text[i] = (unsigned char)c < ' ' || c == 0x7f ? '?' : c;
	}
	ret->refuse.text[text_len] = '\0';
	return 0;
}

static int unpack_chunks(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	const struct wire_chunks *wire = (const void *)buf;

	if (len < sizeof(*wire))
		return -EPROTO;
	uint32_t first = be32toh(wire->first), nr = be32toh(wire->nr);
	if (nr == 0 || nr > VERBS_CHUNKS_PER_MESSAGE || first >= VERBS_MAX_CHUNKS ||
		len != sizeof(*wire) + nr * sizeof(struct wire_chunk))
		return -EPROTO;
	ret->chunks.first = first;
	ret->chunks.nr = nr;
	for (uint32_t i = 0; i < nr; i++) {
		struct wire_chunk chunk;

		memcpy(&chunk, buf + sizeof(*wire) + i * sizeof(chunk), sizeof(chunk));
		ret->chunks.chunk[i] = chunk_from_wire(&chunk);
	}
	return 0;
}

/* HASH: what is asked stands behind the fixed part. */
static int unpack_hashing(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	const struct wire_request *wire = (const void *)buf;
	struct wire_hashing hashing;

	if (len != sizeof(*wire) + sizeof(hashing) || wire->nr_ranges || wire->more ||
		wire->no_hole)
		return -EPROTO;
	memcpy(&hashing, buf + sizeof(*wire), sizeof(hashing));
	ret->request.kind = VERBS_HASH;
	ret->request.no_hole = ret->request.more = false;
	ret->request.nr_ranges = 0;
	ret->request.off = be64toh(wire->off);
	ret->request.len = be64toh(wire->len);
	ret->request.hashing.scheme = be32toh(hashing.scheme);
	ret->request.hashing.block_bytes = be32toh(hashing.block_bytes);
	memcpy(ret->request.hashing.key, hashing.key, sizeof(hashing.key));
	return 0;
}

static int unpack_reply(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	const struct wire_reply *wire = (const void *)buf;
	const size_t hashes = len - sizeof(*wire);

	if (len < sizeof(*wire) || hashes % WEFT_HASH_BYTES || hashes > sizeof(ret->reply.hashes))
		return -EPROTO;
	ret->reply.error = verbs_error_from_wire(wire->error);
	ret->reply.nr_hashes = (uint32_t)(hashes / WEFT_HASH_BYTES);
	if (ret->reply.error < 0 && hashes > 0)
		return -EPROTO;
	memcpy(ret->reply.hashes, buf + sizeof(*wire), hashes);
	return 0;
}

static int unpack_request(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	const struct wire_request *wire = (const void *)buf;

	if (len >= sizeof(*wire) && wire->kind == VERBS_HASH)
		return unpack_hashing(buf, len, ret);
	if (len < sizeof(*wire) || (wire->kind != VERBS_FLUSH && wire->kind != VERBS_ZERO) ||
		wire->no_hole > 1 || wire->more > 1)
		return -EPROTO;
	uint32_t nr = be32toh(wire->nr_ranges);
	if (nr > VERBS_RANGES_PER_MESSAGE ||
		len != sizeof(*wire) + nr * sizeof(struct wire_range) ||
		(wire->kind != VERBS_FLUSH && (nr > 0 || wire->more)))
		return -EPROTO;
	for (uint32_t i = 0; i < nr; i++) {
		struct wire_range range;

		memcpy(&range, buf + sizeof(*wire) + i * sizeof(range), sizeof(range));
		ret->request.range[i] =
			(struct verbs_range){.off = be64toh(range.off), .len = be64toh(range.len)};
	}
	ret->request.more = wire->more;
	ret->request.nr_ranges = nr;
	ret->request.kind = wire->kind;
	ret->request.no_hole = wire->no_hole;
	ret->request.off = be64toh(wire->off);
	ret->request.len = be64toh(wire->len);
	return 0;
}

/* No field is known here.  *ret_unknown: the first that must not be skipped.  0, or -EPROTO. */
static int skip_fields(const uint8_t *p, size_t left, uint16_t *ret_unknown)
{
	const uint8_t *value;
	uint16_t number;
	size_t len;

	*ret_unknown = 0;
	while (left > 0) {
		if (!next_field(&p, &left, &number, &value, &len))
			return -EPROTO;
		if ((number & VERBS_FIELD_MUST) && *ret_unknown == 0)
			*ret_unknown = number & (uint16_t)~VERBS_FIELD_MUST;
	}
	return 0;
}

static int unpack_start(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	const struct wire_start *wire = (const void *)buf;

	if (len < sizeof(*wire) || len > VERBS_START_MAX)
		return -EPROTO;
	size_t identity_len = wire->identity_len, left = len - sizeof(*wire);
	const uint8_t *identity = buf + sizeof(*wire);
	if (identity_len == 0 || identity_len > VERBS_IDENTITY_MAX || identity_len > left)
		return -EPROTO;
	for (size_t i = 0; i < identity_len; i++)
		if (identity[i] < '!' || identity[i] > '~')
			return -EPROTO;
	ret->start.version = wire->version;
	memcpy(ret->start.nonce, wire->nonce, sizeof(wire->nonce));
	memcpy(ret->start.identity, identity, identity_len);
	ret->start.identity[identity_len] = '\0';
	return skip_fields(identity + identity_len, left - identity_len, &ret->start.unknown);
}

static int unpack_challenge(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	const struct wire_challenge *wire = (const void *)buf;
	uint16_t unknown;

	if (len < sizeof(*wire) || len > VERBS_START_MAX)
		return -EPROTO;
	memcpy(ret->challenge.nonce, wire->nonce, sizeof(wire->nonce));
	ret->challenge.session = be64toh(wire->session);
	if (skip_fields(buf + sizeof(*wire), len - sizeof(*wire), &unknown) < 0)
		return -EPROTO;
	return unknown ? -EPROTONOSUPPORT : 0;
}

static int unpack_body(const uint8_t *buf, size_t len, struct verbs_msg *msg)
{
	switch (msg->type) {
	case VERBS_HELLO:
		return unpack_hello(buf, len, msg);
	case VERBS_WAIT:
		if (len != sizeof(struct wire_wait))
			return -EPROTO;
		msg->wait.done_bytes = be64toh(((const struct wire_wait *)buf)->done_bytes);
		msg->wait.total_bytes = be64toh(((const struct wire_wait *)buf)->total_bytes);
		return 0;
	case VERBS_GRANT:
		return unpack_grant(buf, len, msg);
	case VERBS_REFUSE:
		return unpack_refuse(buf, len, msg);
	case VERBS_GET_CHUNKS:
		if (len != sizeof(struct wire_get_chunks))
			return -EPROTO;
		msg->get_chunks.first = be32toh(((const struct wire_get_chunks *)buf)->first);
		return 0;
	case VERBS_CHUNKS:
		return unpack_chunks(buf, len, msg);
	case VERBS_REQUEST:
		return unpack_request(buf, len, msg);
	case VERBS_REPLY:
		return unpack_reply(buf, len, msg);
	case VERBS_BYE:
		if (len != sizeof(struct wire_bye) || ((const struct wire_bye *)buf)->changed > 1)
			return -EPROTO;
		msg->bye.changed = ((const struct wire_bye *)buf)->changed;
		return 0;
	case VERBS_START:
		return unpack_start(buf, len, msg);
	case VERBS_CHALLENGE:
		return unpack_challenge(buf, len, msg);
	case VERBS_QUIET:
		return len == sizeof(struct wire_head) ? 0 : -EPROTO;
	default:
		return -EPROTO;
	}
}

int verbs_unpack(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	const struct wire_head *head = (const void *)buf;
	struct verbs_msg msg;

	if (len < sizeof(*head) || len > VERBS_MSG_MAX || be32toh(head->magic) != VERBS_MAGIC)
		return -EPROTO;
	if (head->version != VERBS_VERSION)
		return -EPROTONOSUPPORT;
	if (be16toh(head->length) != len)
		return -EPROTO;
	msg.type = head->type;
	msg.cookie = be32toh(head->cookie);
	int r = unpack_body(buf, len, &msg);
	if (r < 0)
		return r;
	*ret = msg;
	return 0;
}
