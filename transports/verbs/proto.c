/* SPDX-License-Identifier: MIT */
/*
 * Packs and unpacks the messages of the verbs transport.  Pure functions, any thread; the only file
 * of this transport that knows about byte order.
 */
#include "transports/verbs/proto.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#define PACKED __attribute__((packed))

struct wire_head {
	uint32_t magic;
	uint8_t version;
	uint8_t type;
	uint16_t length; /* of the whole message */
	uint32_t cookie;
	uint32_t reserved;
} PACKED;
_Static_assert(sizeof(struct wire_head) == 16, "head");

struct wire_chunk {
	uint64_t addr;
	uint32_t rkey;
} PACKED;
_Static_assert(sizeof(struct wire_chunk) == 12, "chunk");

struct wire_hello {
	struct wire_head head;
	uint8_t id[WEFT_ID_BYTES];
	uint64_t generation;
	uint64_t epoch;
	uint8_t mode; /* enum weft_mode */
	uint8_t version; /* 0, or 1: fields follow */
	uint16_t region_len;
	uint8_t sealed[VERBS_SEALED_BYTES];
	char name[WEFT_NAME_MAX + 1];
	/* the region's name, region_len bytes; then fields */
} PACKED;
_Static_assert(sizeof(struct wire_hello) == 148, "hello");
_Static_assert(sizeof(struct wire_hello) + VERBS_REGION_MAX + VERBS_FIELDS_MAX + VERBS_TAG_BYTES <=
	VERBS_MSG_MAX, "hello fits");

struct wire_field {
	uint16_t number;
	uint16_t length; /* of what follows */
} PACKED;
_Static_assert(sizeof(struct wire_field) == 4, "field");

/* What VERBS_FIELD_STRIPE holds. */
struct wire_stripe {
	uint32_t index, count;
	uint64_t unit_bytes;
} PACKED;
_Static_assert(sizeof(struct wire_stripe) == 16, "stripe");

struct wire_wait {
	struct wire_head head;
	uint64_t done_bytes, total_bytes;
} PACKED;

struct wire_grant {
	struct wire_head head;
	uint64_t size_bytes, epoch, generation;
	uint32_t lease_ms, flags;
	uint64_t chunk_bytes;
	uint32_t nr_chunks;
	struct wire_chunk epoch_word, beat_word;
	uint8_t token[VERBS_TOKEN_BYTES];
	char offers[VERBS_OFFERS_MAX + 1];
	/* fields, if the HELLO was of version 1 */
} PACKED;
_Static_assert(sizeof(struct wire_grant) == 164, "grant");

struct wire_refuse {
	struct wire_head head;
	uint32_t error;
	uint32_t text_len;
	/* the text */
} PACKED;

struct wire_get_chunks {
	struct wire_head head;
	uint32_t first;
} PACKED;

struct wire_chunks {
	struct wire_head head;
	uint32_t first, nr;
	/* nr struct wire_chunk */
} PACKED;
_Static_assert(sizeof(struct wire_chunks) + VERBS_CHUNKS_PER_MESSAGE * sizeof(struct wire_chunk) <=
	VERBS_MSG_MAX - VERBS_TAG_BYTES, "chunks fit");

struct wire_request {
	struct wire_head head;
	uint8_t kind;
	uint8_t no_hole;
	uint8_t more;
	uint8_t reserved;
	uint32_t nr_ranges;
	uint64_t off, len;
	/* nr_ranges struct wire_range */
} PACKED;
_Static_assert(sizeof(struct wire_request) == 40, "request");

struct wire_range {
	uint64_t off, len;
} PACKED;
_Static_assert(sizeof(struct wire_request) + VERBS_RANGES_PER_MESSAGE * sizeof(struct wire_range) <=
	VERBS_MSG_MAX - VERBS_TAG_BYTES, "ranges fit");

struct wire_bye {
	struct wire_head head;
	uint8_t changed;
	uint8_t reserved[7];
} PACKED;

struct wire_reply {
	struct wire_head head;
	uint32_t error;
} PACKED;

struct wire_start {
	struct wire_head head;
	uint8_t nonce[VERBS_NONCE_BYTES];
	uint8_t version;
	uint8_t identity_len;
	uint16_t reserved;
	/* the identity, identity_len bytes; then fields */
} PACKED;
_Static_assert(sizeof(struct wire_start) + VERBS_IDENTITY_MAX <= VERBS_START_MAX, "start fits");

struct wire_challenge {
	struct wire_head head;
	uint8_t nonce[VERBS_NONCE_BYTES];
	uint64_t session;
	/* fields */
} PACKED;
_Static_assert(sizeof(struct wire_challenge) <= VERBS_START_MAX, "challenge fits");

struct wire_private {
	uint32_t magic;
	uint8_t version;
	uint8_t purpose;
	uint16_t reserved;
	uint8_t token[VERBS_TOKEN_BYTES];
} PACKED;
_Static_assert(sizeof(struct wire_private) == VERBS_PRIVATE_BYTES, "private data");

/* The same for VERBS_PROVED. */
struct wire_proved {
	uint32_t magic;
	uint8_t version;
	uint8_t purpose;
	uint16_t reserved;
	uint64_t session, counter;
	uint8_t mac[VERBS_TAG_BYTES];
} PACKED;
_Static_assert(sizeof(struct wire_proved) == VERBS_PROVED_BYTES, "private data with a MAC");

struct wire_ends {
	uint8_t borrower[16], donor[16];
	uint16_t donor_port;
} PACKED;
_Static_assert(sizeof(struct wire_ends) == VERBS_ENDS_BYTES, "ends");

struct wire_maced {
	uint8_t token[VERBS_TOKEN_BYTES];
	uint64_t session, counter;
} PACKED;
_Static_assert(sizeof(struct wire_maced) == VERBS_MACED_BYTES, "what the MAC is of");

struct wire_reject {
	uint32_t magic;
	uint32_t error;
} PACKED;
_Static_assert(sizeof(struct wire_reject) == VERBS_REJECT_BYTES, "reject");

/* Errors that travel, with the protocol's own numbers. */
static const struct {
	uint32_t wire;
	int error;
} errors[] = {
	{0, 0},
	{1, EPERM},
	{2, ENOENT},
	{3, EIO},
	{4, EBUSY},
	{5, ESTALE},
	{6, EROFS},
	{7, ESHUTDOWN},
	{8, EOPNOTSUPP},
	{9, ENOMEM},
	{10, ENOSPC},
	{11, EINVAL},
	{12, EPROTO},
	{13, EPROTONOSUPPORT},
	{14, EACCES},
	{15, EAGAIN},
	{16, ETIMEDOUT},
	{17, WEFT_EOVER},       /* 17 and up: since version 1 */
	{18, WEFT_ESUPERSEDED},
};

static uint32_t error_to_wire(int error)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].error == -error)
			return htobe32(errors[i].wire);
	return htobe32(3);
}

/* Unknown numbers are errors all the same. */
static int error_from_wire(uint32_t wire)
{
	wire = be32toh(wire);
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].wire == wire)
			return -errors[i].error;
	return -EIO;
}

uint64_t verbs_epoch_to_wire(uint64_t epoch)
{
	return htobe64(epoch);
}

static struct wire_chunk chunk_to_wire(const struct verbs_chunk *chunk)
{
	return (struct wire_chunk){.addr = htobe64(chunk->addr), .rkey = htobe32(chunk->rkey)};
}

static struct verbs_chunk chunk_from_wire(const struct wire_chunk *wire)
{
	return (struct verbs_chunk){.addr = be64toh(wire->addr), .rkey = be32toh(wire->rkey)};
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
	return msg->grant.restorable
		? pack_field(buf, sizeof(*wire), VERBS_FIELD_RESTORABLE, NULL, 0)
		: sizeof(*wire);
}

static size_t pack_refuse(const struct verbs_msg *msg, uint8_t *buf)
{
	struct wire_refuse *wire = (void *)buf;
	size_t len = strnlen(msg->refuse.text, VERBS_TEXT_MAX);

	wire->error = error_to_wire(-weft_refusal_code(-msg->refuse.error, msg->refuse.version0));
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
	assert(msg->request.nr_ranges <= VERBS_RANGES_PER_MESSAGE);
	for (uint32_t i = 0; i < msg->request.nr_ranges; i++) {
		const struct verbs_range *range = &msg->request.range[i];
		struct wire_range to = {.off = htobe64(range->off), .len = htobe64(range->len)};

		memcpy(buf + sizeof(*wire) + i * sizeof(to), &to, sizeof(to));
	}
	return sizeof(*wire) + msg->request.nr_ranges * sizeof(struct wire_range);
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
		((struct wire_reply *)buf)->error = error_to_wire(msg->reply.error);
		len = sizeof(struct wire_reply);
		break;
	case VERBS_START:
		len = pack_start(msg, buf);
		break;
	case VERBS_CHALLENGE:
		len = pack_challenge(msg, buf);
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
	uint16_t *ret_unknown)
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
	if (unpack_hello_fields(buf + sizeof(*wire) + region_len, len - sizeof(*wire) - region_len,
		    &hello, &ret->hello.unknown) < 0)
		return -EPROTO;
	ret->hello.hello = hello;
	memcpy(ret->hello.sealed, wire->sealed, sizeof(wire->sealed));
	memcpy(ret->hello.region, region, region_len);
	ret->hello.region[region_len] = '\0';
	return 0;
}

static int unpack_grant(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	const struct wire_grant *wire = (const void *)buf;
	const uint8_t *value;
	uint16_t number;
	size_t value_len;

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
	const uint8_t *p = buf + sizeof(*wire);
	size_t left = len - sizeof(*wire);
	ret->grant.restorable = false;
	while (left > 0) {
		if (!next_field(&p, &left, &number, &value, &value_len))
			return -EPROTO;
		if ((number & ~VERBS_FIELD_MUST) == VERBS_FIELD_RESTORABLE)
			ret->grant.restorable = true;
		else if (number & VERBS_FIELD_MUST)
			return -EPROTONOSUPPORT;
	}
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
	int error = error_from_wire(wire->error);
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

static int unpack_request(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	const struct wire_request *wire = (const void *)buf;

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
		if (len != sizeof(struct wire_reply))
			return -EPROTO;
		msg->reply.error = error_from_wire(((const struct wire_reply *)buf)->error);
		return 0;
	case VERBS_BYE:
		if (len != sizeof(struct wire_bye) || ((const struct wire_bye *)buf)->changed > 1)
			return -EPROTO;
		msg->bye.changed = ((const struct wire_bye *)buf)->changed;
		return 0;
	case VERBS_START:
		return unpack_start(buf, len, msg);
	case VERBS_CHALLENGE:
		return unpack_challenge(buf, len, msg);
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

void verbs_pack_private(enum verbs_purpose purpose, const uint8_t token[VERBS_TOKEN_BYTES],
	uint8_t buf[VERBS_PRIVATE_BYTES])
{
	struct wire_private wire = {
		.magic = htobe32(VERBS_MAGIC),
		.version = VERBS_VERSION,
		.purpose = (uint8_t)purpose,
	};

	if (purpose == VERBS_DATA)
		memcpy(wire.token, token, sizeof(wire.token));
	memcpy(buf, &wire, sizeof(wire));
}

void verbs_pack_proved(const struct verbs_private *wants, uint8_t buf[VERBS_PROVED_BYTES])
{
	struct wire_proved wire = {
		.magic = htobe32(VERBS_MAGIC),
		.version = VERBS_VERSION,
		.purpose = VERBS_PROVED,
		.session = htobe64(wants->session),
		.counter = htobe64(wants->counter),
	};

	memcpy(wire.mac, wants->mac, sizeof(wire.mac));
	memcpy(buf, &wire, sizeof(wire));
}

int verbs_unpack_private(const void *buf, size_t len, struct verbs_private *ret)
{
	struct wire_private wire;
	struct wire_proved proved;

	if (!buf || len < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, buf, sizeof(wire));
	if (be32toh(wire.magic) != VERBS_MAGIC)
		return -EPROTO;
	if (wire.version != VERBS_VERSION)
		return -EPROTONOSUPPORT;
	struct verbs_private wants = {.purpose = (enum verbs_purpose)wire.purpose};
	switch (wire.purpose) {
	case VERBS_CONTROL:
		break;
	case VERBS_DATA:
		memcpy(wants.token, wire.token, sizeof(wire.token));
		break;
	case VERBS_PROVED:
		if (len < sizeof(proved))
			return -EPROTO;
		memcpy(&proved, buf, sizeof(proved));
		wants.session = be64toh(proved.session);
		wants.counter = be64toh(proved.counter);
		memcpy(wants.mac, proved.mac, sizeof(proved.mac));
		break;
	default:
		return -EPROTO;
	}
	*ret = wants;
	return 0;
}

void verbs_pack_ends(const struct verbs_ends *ends, uint8_t buf[VERBS_ENDS_BYTES])
{
	struct wire_ends wire = {.donor_port = htobe16(ends->donor_port)};

	memcpy(wire.borrower, ends->borrower, sizeof(wire.borrower));
	memcpy(wire.donor, ends->donor, sizeof(wire.donor));
	memcpy(buf, &wire, sizeof(wire));
}

void verbs_pack_maced(const uint8_t token[VERBS_TOKEN_BYTES], uint64_t session, uint64_t counter,
	uint8_t buf[VERBS_MACED_BYTES])
{
	struct wire_maced wire = {.session = htobe64(session), .counter = htobe64(counter)};

	memcpy(wire.token, token, sizeof(wire.token));
	memcpy(buf, &wire, sizeof(wire));
}

void verbs_pack_reject(int error, uint8_t buf[VERBS_REJECT_BYTES])
{
	struct wire_reject wire = {.magic = htobe32(VERBS_MAGIC), .error = error_to_wire(error)};

	memcpy(buf, &wire, sizeof(wire));
}

int verbs_unpack_reject(const void *buf, size_t len, int *ret_error)
{
	struct wire_reject wire;

	if (!buf || len < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, buf, sizeof(wire));
	if (be32toh(wire.magic) != VERBS_MAGIC)
		return -EPROTO;
	int error = error_from_wire(wire.error);
	if (error == 0)
		return -EPROTO;
	*ret_error = error;
	return 0;
}
