/* SPDX-License-Identifier: MIT */
/*
 * The layouts of weft-protocol(7) against the code: messages are built from them and held against
 * what the code packs, and the other way round.
 */
#include "tests/support/manual.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/bytes.h"
#include "fabric/base/util.h"
#include "fabric/copying.h"
#include "fabric/marking.h"
#include "transports/verbs/proto.h"

/* A message as the manual has it: rows that are written, and how long the fixed part is. */
struct image {
	const struct manual_table *layout;
	uint8_t bytes[VERBS_MSG_MAX];
	size_t len;
	uint64_t written; /* a bit for each row */
};

/* The rows of a layout lie end to end: nothing is between them that is not in the manual. */
static size_t fixed_len(const struct manual_table *t)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < t->nr_rows; i++) {
		assert_int_equal(manual_number(t, i, 0), at);
		if (strcmp(t->cell[i][1], "-") == 0) {
			assert_int_equal(i, t->nr_rows - 1);
			break;
		}
		at += manual_number(t, i, 1);
	}
	return at;
}

static struct image *image_of(const char *layout)
{
	struct image *image = calloc(1, sizeof(*image));

	assert_non_null(image);
	image->layout = manual_table(layout);
	image->len = fixed_len(image->layout);
	return image;
}

/* Where a field is, and what size the manual gives it. */
static uint8_t *place(struct image *image, const char *field, uint64_t *ret_size)
{
	const struct manual_table *t = image->layout;
	int row = manual_row(t, field);

	if (row < 0)
		fail_msg("the manual's %s has no field '%s'", t->name, field);
	image->written |= UINT64_C(1) << row;
	*ret_size = strcmp(t->cell[row][1], "-") == 0 ? 0 : manual_number(t, (unsigned)row, 1);
	return image->bytes + manual_number(t, (unsigned)row, 0);
}

static void put(struct image *image, const char *field, uint64_t value)
{
	uint64_t size;
	uint8_t *p = place(image, field, &size);

	assert_true(size >= 1 && size <= 8);
	for (uint64_t i = 0; i < size; i++)
		p[i] = (uint8_t)(value >> 8 * (size - 1 - i));
	if (size < 8)
		assert_int_equal(value >> 8 * size, 0);
}

static void put_bytes(struct image *image, const char *field, const void *bytes, size_t len)
{
	uint64_t size;
	uint8_t *p = place(image, field, &size);

	if (size == 0) {
		assert_int_equal(p - image->bytes, image->len);
		image->len += len;
	} else {
		assert_true(len <= size);
	}
	if (len > 0)
		memcpy(p, bytes, len);
}

/* Another layout inside of a field, as one (a head, a chunk) or at the end. */
static void put_image(struct image *image, const char *field, struct image *inner)
{
	uint64_t size;

	place(image, field, &size);
	if (size > 0)
		assert_int_equal(size, inner->len);
	put_bytes(image, field, inner->bytes, inner->len);
	free(inner);
}

static void append(struct image *image, struct image *more)
{
	memcpy(image->bytes + image->len, more->bytes, more->len);
	image->len += more->len;
	free(more);
}

/* The manual's number of this name, which is the code's (protocol-manual.c). */
static uint64_t number(const char *table, const char *name)
{
	const struct manual_table *t = manual_table(table);
	int row = manual_row(t, name);

	if (row < 0)
		fail_msg("the manual's table %s has no %s", table, name);
	return manual_number(t, (unsigned)row, 0);
}

static struct image *chunk_image(const struct verbs_chunk *chunk)
{
	struct image *image = image_of("CHUNK");

	put(image, "addr", chunk->addr);
	put(image, "rkey", chunk->rkey);
	return image;
}

static struct image *field_image(const char *name, const uint8_t *value, size_t len)
{
	const struct manual_table *t = manual_table("NUMBER");
	struct image *image = image_of("FIELD");
	int row = manual_row(t, name);

	assert_true(row >= 0);
	if (strcmp(t->cell[row][1], "-") != 0)
		assert_int_equal(manual_number(t, (unsigned)row, 1), len);
	put(image, "number", manual_number(t, (unsigned)row, 0));
	put(image, "length", len);
	put_bytes(image, "value", value, len);
	return image;
}

static struct image *field_u64(const char *name, uint64_t value)
{
	uint8_t bytes[8];

	weft_put64(bytes, value);
	return field_image(name, bytes, sizeof(bytes));
}

/* Head, and a check that every row was written: what the manual has, the code's message has too. */
static void finish(struct image *image, const struct verbs_msg *msg)
{
	struct image *head = image_of("HEAD");

	put(head, "magic", number("CONSTANT", "MAGIC"));
	put(head, "version", number("CONSTANT", "VERSION"));
	put(head, "type", number("TYPE", image->layout->name));
	put(head, "length", image->len);
	put(head, "cookie", msg->cookie);
	put(head, "reserved", 0);
	assert_int_equal(head->written, (UINT64_C(1) << head->layout->nr_rows) - 1);
	put_image(image, "head", head);
	for (unsigned i = 0; i < image->layout->nr_rows; i++)
		if (!(image->written >> i & 1))
			fail_msg("the manual's %s has a field '%s' that the code does not know",
				image->layout->name,
				image->layout->cell[i][image->layout->name_column]);
}

static void assert_same(const struct image *image, const uint8_t *bytes, size_t len)
{
	size_t i = 0;

	while (i < len && i < image->len && bytes[i] == image->bytes[i])
		i++;
	if (len != image->len || i < len)
		fail_msg("%s: the manual's message (%zu bytes) and the code's (%zu) differ from "
			 "byte %zu on",
			image->layout->name, image->len, len, i);
}

/*
 * What the code packs is the manual's message, and what the code unpacks of the manual's message is
 * what was meant: packed again it is the same.
 */
static void check(struct image *image, const struct verbs_msg *msg)
{
	uint8_t buf[VERBS_MSG_MAX];
	struct verbs_msg back = {0};

	finish(image, msg);
	assert_same(image, buf, verbs_pack(msg, buf));
	assert_int_equal(verbs_unpack(image->bytes, image->len, &back), 0);
	assert_int_equal(back.type, msg->type);
	assert_int_equal(back.cookie, msg->cookie);
	/* For whom it is does not travel. */
	if (back.type == VERBS_REFUSE)
		back.refuse.version0 = false;
	if (back.type == VERBS_GRANT)
		back.grant.version0 = false;
	assert_same(image, buf, verbs_pack(&back, buf));
	free(image);
}

static void hello_is_laid_out_so(void **state)
{
	struct verbs_msg msg = {.type = VERBS_HELLO};
	struct weft_hello *hello = &msg.hello.hello;

	for (unsigned mode = WEFT_MODE_READ; mode <= WEFT_MODE_WRITE; mode++) {
		for (unsigned i = 0; i < WEFT_ID_BYTES; i++)
			hello->id[i] = (uint8_t)(0xa0 + i);
		hello->generation = UINT64_C(0x0102030405060708);
		hello->epoch = UINT64_C(0x1112131415161718);
		hello->granted = UINT64_C(0x2122232425262728);
		hello->wrote = true;
		hello->stripe = (struct weft_stripe){0x31, 0x3233, UINT64_C(0x3435363738393a3b)};
		hello->mode = (enum weft_mode)mode;
		for (unsigned i = 0; i < VERBS_SEALED_BYTES; i++)
			msg.hello.sealed[i] = (uint8_t)(0xc0 + i);
		snprintf(hello->name, sizeof(hello->name), "box-%u", mode);
		snprintf(msg.hello.region, sizeof(msg.hello.region), "dir/region %u", mode);

		struct image *image = image_of("HELLO"), *stripe = image_of("STRIPE");
		static const char *const modes[] = {"READ", "SHARED", "WRITE"};
		put_bytes(image, "id", hello->id, sizeof(hello->id));
		put(image, "generation", hello->generation);
		put(image, "epoch", hello->epoch);
		put(image, "mode", number("MODE", modes[mode]));
		put(image, "version", 1);
		put(image, "region_len", strlen(msg.hello.region));
		put_bytes(image, "sealed", msg.hello.sealed, VERBS_SEALED_BYTES);
		put_bytes(image, "name", hello->name, strlen(hello->name));
		put_bytes(image, "region", msg.hello.region, strlen(msg.hello.region));
		append(image, field_u64("GRANTED", hello->granted));
		append(image, field_image("WROTE", NULL, 0));
		put(stripe, "index", hello->stripe.index);
		put(stripe, "count", hello->stripe.count);
		put(stripe, "unit_bytes", hello->stripe.unit_bytes);
		append(image, field_image("STRIPE", stripe->bytes, stripe->len));
		free(stripe);
		check(image, &msg);
	}
}

static void hello_of_one_that_remembers_nothing_is_laid_out_so(void **state)
{
	struct verbs_msg msg = {.type = VERBS_HELLO};
	struct weft_hello *hello = &msg.hello.hello;

	*hello = (struct weft_hello){.generation = 1,
		.mode = WEFT_MODE_WRITE,
		.name = "x",
		.expect = 77,
		.stripe = weft_stripe_whole,
		.new_contents = true};
	for (unsigned version = 0; version <= 1; version++) {
		struct image *image = image_of("HELLO");

		hello->version0 = version == 0;
		put_bytes(image, "id", hello->id, sizeof(hello->id));
		put(image, "generation", 1);
		put(image, "epoch", version ? 0 : 77); /* "epoch means expect too" */
		put(image, "mode", number("MODE", "WRITE"));
		put(image, "version", version);
		put(image, "region_len", 0);
		put_bytes(image, "sealed", "", 0);
		put_bytes(image, "name", "x", 1);
		put_bytes(image, "region", "", 0);
		if (version) {
			const uint8_t whole[16] = {[3] = 1, [7] = 1};

			append(image, field_u64("EXPECT", 77));
			append(image, field_image("STRIPE", whole, sizeof(whole)));
			append(image, field_image("RENEW", NULL, 0));
		}
		check(image, &msg);
	}
}

static void wait_is_laid_out_so(void **state)
{
	struct verbs_msg msg = {.type = VERBS_WAIT,
		.wait = {UINT64_C(0x0102030405060708), UINT64_C(0x1112131415161718)}};
	struct image *image = image_of("WAIT");

	put(image, "done_bytes", msg.wait.done_bytes);
	put(image, "total_bytes", msg.wait.total_bytes);
	check(image, &msg);
}

static void grant_is_laid_out_so(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		struct verbs_msg msg = {.type = VERBS_GRANT};
		struct image *image = image_of("GRANT");

		msg.grant.size_bytes = UINT64_C(0x0102030405060708);
		msg.grant.epoch = UINT64_C(0x1112131415161718);
		msg.grant.generation = UINT64_C(0x2122232425262728);
		msg.grant.lease_ms = 0x31323334;
		msg.grant.flags =
			(i & 1 ? VERBS_GRANT_READ_ONLY : 0) | (i & 2 ? VERBS_GRANT_FLUSH_ASKS : 0);
		msg.grant.chunk_bytes = UINT64_C(0x0002030405060708);
		msg.grant.nr_chunks =
			(uint32_t)verbs_nr_chunks(msg.grant.size_bytes, msg.grant.chunk_bytes);
		msg.grant.epoch_word =
			(struct verbs_chunk){UINT64_C(0x4142434445464748), 0x494a4b4c};
		msg.grant.beat_word =
			(struct verbs_chunk){UINT64_C(0x5152535455565758), 0x595a5b5c};
		for (unsigned b = 0; b < VERBS_TOKEN_BYTES; b++)
			msg.grant.token[b] = (uint8_t)(0x60 + b);
		snprintf(msg.grant.offers, sizeof(msg.grant.offers), "tcp,rdma:20049");
		msg.grant.restorable = i & 1;
		msg.grant.hashes = i & 2 ? 0x01020304 : 0;
		msg.grant.marks = i & 1 ? 0x05060708 : 0;

		put(image, "size_bytes", msg.grant.size_bytes);
		put(image, "epoch", msg.grant.epoch);
		put(image, "generation", msg.grant.generation);
		put(image, "lease_ms", msg.grant.lease_ms);
		put(image, "flags",
			(i & 1 ? number("FLAG", "READ_ONLY") : 0) |
				(i & 2 ? number("FLAG", "FLUSH_ASKS") : 0));
		put(image, "chunk_bytes", msg.grant.chunk_bytes);
		put(image, "nr_chunks", msg.grant.nr_chunks);
		put_image(image, "epoch_word", chunk_image(&msg.grant.epoch_word));
		put_image(image, "beat_word", chunk_image(&msg.grant.beat_word));
		put_bytes(image, "token", msg.grant.token, VERBS_TOKEN_BYTES);
		put_bytes(image, "offers", msg.grant.offers, strlen(msg.grant.offers));
		if (msg.grant.restorable)
			append(image, field_image("RESTORABLE", NULL, 0));
		if (msg.grant.hashes)
			append(image, field_image("HASHES", (const uint8_t[]){1, 2, 3, 4}, 4));
		if (msg.grant.marks)
			append(image, field_image("MARKS", (const uint8_t[]){5, 6, 7, 8}, 4));
		if (i & 2) {
			struct image *said;

			msg.grant.has_said = true;
			msg.grant.said =
				(struct verbs_chunk){UINT64_C(0x6162636465666768), 0x696a6b6c};
			strcpy(msg.grant.moving, "weft://b:1/r");
			said = chunk_image(&msg.grant.said);
			append(image, field_image("SAID", said->bytes, said->len));
			free(said);
			append(image,
				field_image("MOVING", (const uint8_t *)msg.grant.moving, 12));
		}
		check(image, &msg);
	}
}

static void refuse_is_laid_out_so(void **state)
{
	struct verbs_msg msg = {.type = VERBS_REFUSE};
	struct image *image = image_of("REFUSE");

	msg.refuse.error = -WEFT_ESUPERSEDED;
	memset(msg.refuse.text, 't', VERBS_TEXT_MAX);
	put(image, "error", number("ERROR", "SUPERSEDED"));
	put(image, "text_len", number("CONSTANT", "TEXT_MAX"));
	put_bytes(image, "text", msg.refuse.text, VERBS_TEXT_MAX);
	check(image, &msg);
}

static void chunks_are_laid_out_so(void **state)
{
	struct verbs_msg msg = {.type = VERBS_GET_CHUNKS, .get_chunks.first = 0x10203};
	struct image *image = image_of("GET_CHUNKS");

	put(image, "first", msg.get_chunks.first);
	check(image, &msg);

	struct image *all = calloc(1, sizeof(*all));
	assert_non_null(all);
	msg = (struct verbs_msg){
		.type = VERBS_CHUNKS, .chunks = {.first = 0x10203, .nr = VERBS_CHUNKS_PER_MESSAGE}};
	for (unsigned i = 0; i < msg.chunks.nr; i++) {
		msg.chunks.chunk[i] =
			(struct verbs_chunk){UINT64_C(0x4142434445464700) + i, 0x50000000 + i};
		append(all, chunk_image(&msg.chunks.chunk[i]));
	}
	image = image_of("CHUNKS");
	put(image, "first", msg.chunks.first);
	put(image, "nr", number("CONSTANT", "CHUNKS_PER_MESSAGE"));
	put_image(image, "chunks", all);
	check(image, &msg);
}

static void requests_are_laid_out_so(void **state)
{
	struct verbs_msg msg = {.type = VERBS_REQUEST, .cookie = 0xc0c1c2c3};
	struct image *image = image_of("REQUEST"), *all = calloc(1, sizeof(*all));

	assert_non_null(all);
	msg.request.kind = VERBS_ZERO;
	msg.request.no_hole = true;
	msg.request.off = UINT64_C(0x0102030405060708);
	msg.request.len = UINT64_C(0x1112131415161718);
	put(image, "kind", number("KIND", "ZERO"));
	put(image, "no_hole", 1);
	put(image, "more", 0);
	put(image, "reserved", 0);
	put(image, "nr_ranges", 0);
	put(image, "off", msg.request.off);
	put(image, "len", msg.request.len);
	put_bytes(image, "ranges", "", 0);
	check(image, &msg);

	msg = (struct verbs_msg){.type = VERBS_REQUEST, .cookie = 1};
	msg.request.kind = VERBS_FLUSH;
	msg.request.more = true;
	msg.request.nr_ranges = VERBS_RANGES_PER_MESSAGE;
	for (unsigned i = 0; i < VERBS_RANGES_PER_MESSAGE; i++) {
		struct image *range = image_of("RANGE");

		msg.request.range[i] =
			(struct verbs_range){UINT64_C(0x2122232425262700) + i, 1 + i};
		put(range, "off", msg.request.range[i].off);
		put(range, "len", msg.request.range[i].len);
		append(all, range);
	}
	image = image_of("REQUEST");
	put(image, "kind", number("KIND", "FLUSH"));
	put(image, "no_hole", 0);
	put(image, "more", 1);
	put(image, "reserved", 0);
	put(image, "nr_ranges", number("CONSTANT", "RANGES_PER_MESSAGE"));
	put(image, "off", 0);
	put(image, "len", 0);
	put_image(image, "ranges", all);
	check(image, &msg);

	msg = (struct verbs_msg){.type = VERBS_REPLY, .cookie = 0xc0c1c2c3, .reply.error = -ENOSPC};
	image = image_of("REPLY");
	put(image, "error", number("ERROR", "ENOSPC"));
	put_bytes(image, "hashes", "", 0);
	check(image, &msg);

	msg = (struct verbs_msg){.type = VERBS_BYE, .bye.changed = true};
	image = image_of("BYE");
	put(image, "changed", 1);
	put(image, "reserved", 0);
	check(image, &msg);
}

static void a_question_for_hashes_and_its_answer_are_laid_out_so(void **state)
{
	struct verbs_msg msg = {.type = VERBS_REQUEST, .cookie = 5};
	struct image *image = image_of("REQUEST"), *asked = image_of("ASKED");

	msg.request.kind = VERBS_HASH;
	msg.request.off = UINT64_C(0x0102030405060708);
	msg.request.len = UINT64_C(0x1112131415161718);
	msg.request.hashing.scheme = 0x21222324;
	msg.request.hashing.block_bytes = 0x31323334;
	for (unsigned i = 0; i < WEFT_HASH_KEY_BYTES; i++)
		msg.request.hashing.key[i] = (uint8_t)(0x40 + i);
	put(asked, "scheme", msg.request.hashing.scheme);
	put(asked, "block_bytes", msg.request.hashing.block_bytes);
	put_bytes(asked, "key", msg.request.hashing.key, WEFT_HASH_KEY_BYTES);
	put(image, "kind", number("KIND", "HASH"));
	put(image, "no_hole", 0);
	put(image, "more", 0);
	put(image, "reserved", 0);
	put(image, "nr_ranges", 0);
	put(image, "off", msg.request.off);
	put(image, "len", msg.request.len);
	put_image(image, "ranges", asked);
	check(image, &msg);

	msg = (struct verbs_msg){.type = VERBS_REPLY, .cookie = 5};
	msg.reply.nr_hashes = VERBS_HASHES_PER_MESSAGE;
	for (unsigned i = 0; i < sizeof(msg.reply.hashes); i++)
		msg.reply.hashes[i] = (uint8_t)(i * 7);
	image = image_of("REPLY");
	put(image, "error", number("ERROR", "OK"));
	put_bytes(image, "hashes", msg.reply.hashes, sizeof(msg.reply.hashes));
	check(image, &msg);
}

static void a_question_about_the_mark_and_its_answer_are_laid_out_so(void **state)
{
	struct image *image = image_of("MARKING"), *answer = image_of("MARKED");
	const struct weft_marked marked = {0x0102030405060708, 0x1112131415161718};
	struct weft_hashing hashing;
	struct weft_marking marking;
	struct weft_marked back;
	uint8_t bytes[WEFT_HASH_BYTES];

	weft_marking_pack(WEFT_MARK_SET, UINT64_C(0x2122232425262728), &hashing);
	assert_int_equal(hashing.scheme, number("MARK", "SCHEME"));
	put(image, "action", number("MARK", "SET"));
	put_bytes(image, "reserved", "", 0);
	put(image, "number", UINT64_C(0x2122232425262728));
	put_bytes(image, "unused", "", 0);
	assert_int_equal(image->len, WEFT_HASH_KEY_BYTES);
	assert_memory_equal(image->bytes, hashing.key, WEFT_HASH_KEY_BYTES);
	weft_marking_unpack(&hashing, &marking);
	assert_true(marking.action == WEFT_MARK_SET && marking.number == 0x2122232425262728);

	weft_marked_pack(&marked, bytes);
	put(answer, "number", marked.number);
	put(answer, "age_ms", marked.age_ms);
	assert_memory_equal(answer->bytes, bytes, WEFT_HASH_BYTES);
	weft_marked_unpack(bytes, &back);
	assert_true(back.number == marked.number && back.age_ms == marked.age_ms);
	free(image);
	free(answer);
}

static void a_question_about_copies_and_its_answer_are_laid_out_so(void **state)
{
	const struct weft_copies_asked asked = {.action = WEFT_COPIES_NOTE,
		.of = {.set = UINT64_C(0x0102030405060708), .index = 2, .count = 3, .min = 1},
		.term = UINT64_C(0x1112131415161718),
		.change = 0x21222324,
		.members = 6,
		.regions = 0x0f1};
	const struct weft_copies_answer told = {.of = asked.of,
		.claimed = UINT64_C(0x3132333435363738),
		.term = asked.term,
		.change = asked.change,
		.members = asked.members,
		.regions = asked.regions,
		.ended = true,
		.used = true,
		.foreign = true};
	struct image *image = image_of("COPYING"), *answer = image_of("COPIED");
	struct weft_hashing hashing;
	struct weft_copies_asked back;
	uint8_t bytes[WEFT_COPIES_BYTES];

	weft_copies_ask_pack(&asked, &hashing);
	assert_int_equal(hashing.scheme, number("COPIES", "SCHEME"));
	put(image, "action", number("COPIES", "NOTE") + 16 * (asked.of.index - 1U));
	put(image, "count", asked.of.count - 1U + 16 * (asked.of.min - 1U));
	put(image, "members", asked.members);
	put(image, "change", asked.change);
	put(image, "set", asked.of.set);
	put(image, "term", asked.term);
	put(image, "regions", asked.regions);
	assert_int_equal(image->len, WEFT_HASH_KEY_BYTES);
	assert_memory_equal(image->bytes, hashing.key, WEFT_HASH_KEY_BYTES);
	weft_copies_ask_unpack(&hashing, &back);
	assert_true(back.action == asked.action && back.of.set == asked.of.set &&
		back.of.index == 2 && back.of.count == 3 && back.of.min == 1 &&
		back.term == asked.term && back.change == asked.change &&
		back.members == 6 && back.regions == asked.regions);

	weft_copies_answer_pack(&told, bytes);
	put(answer, "set", told.of.set);
	put(answer, "claimed", told.claimed);
	put(answer, "term", told.term);
	put(answer, "change", told.change);
	put(answer, "members", told.members);
	put(answer, "index", told.of.index);
	put(answer, "count", told.of.count);
	put(answer, "min", told.of.min);
	put(answer, "flags", 1 + 4 + 8);
	put_bytes(answer, "reserved", "", 0);
	put(answer, "regions", told.regions);
	assert_int_equal(answer->len, WEFT_COPIES_BYTES);
	assert_memory_equal(answer->bytes, bytes, WEFT_COPIES_BYTES);
	free(image);
	free(answer);
}

static void start_and_challenge_are_laid_out_so(void **state)
{
	struct verbs_msg msg = {.type = VERBS_START};
	struct image *image = image_of("START");

	for (unsigned i = 0; i < VERBS_NONCE_BYTES; i++)
		msg.start.nonce[i] = (uint8_t)(0x20 + i);
	msg.start.version = VERBS_PROOF_VERSION;
	snprintf(msg.start.identity, sizeof(msg.start.identity), "box-1~2");
	put_bytes(image, "nonce", msg.start.nonce, VERBS_NONCE_BYTES);
	put(image, "version", number("CONSTANT", "PROOF_VERSION"));
	put(image, "identity_len", 7);
	put(image, "reserved", 0);
	put_bytes(image, "identity", "box-1~2", 7);
	check(image, &msg);

	msg = (struct verbs_msg){.type = VERBS_CHALLENGE};
	image = image_of("CHALLENGE");
	for (unsigned i = 0; i < VERBS_NONCE_BYTES; i++)
		msg.challenge.nonce[i] = (uint8_t)(0x40 + i);
	msg.challenge.session = UINT64_C(0x0102030405060708);
	put_bytes(image, "nonce", msg.challenge.nonce, VERBS_NONCE_BYTES);
	put(image, "session", msg.challenge.session);
	check(image, &msg);
}

static void quiet_is_laid_out_so(void **state)
{
	struct verbs_msg msg = {.type = VERBS_QUIET};

	check(image_of("QUIET"), &msg);
}

static void what_is_proved_is_laid_out_so(void **state)
{
	struct verbs_ends ends = {.donor_port = 0x3132};
	uint8_t buf[VERBS_ENDS_BYTES], maced[VERBS_MACED_BYTES], token[VERBS_TOKEN_BYTES];
	struct image *image = image_of("ENDS");

	for (unsigned i = 0; i < 16; i++) {
		ends.borrower[i] = (uint8_t)(0x10 + i);
		ends.donor[i] = (uint8_t)(0x20 + i);
		token[i] = (uint8_t)(0x40 + i);
	}
	put_bytes(image, "borrower", ends.borrower, 16);
	put_bytes(image, "donor", ends.donor, 16);
	put(image, "donor_port", 0x3132);
	verbs_pack_ends(&ends, buf);
	assert_same(image, buf, sizeof(buf));
	free(image);

	image = image_of("MACED");
	put_bytes(image, "token", token, sizeof(token));
	put(image, "session", 0x51525354);
	put(image, "counter", 0x61626364);
	verbs_pack_maced(token, 0x51525354, 0x61626364, maced);
	assert_same(image, maced, sizeof(maced));
	free(image);
}

static void every_message_of_the_manual_was_looked_at(void **state)
{
	const struct manual_table *types = manual_table("TYPE");

	for (unsigned i = 0; i < types->nr_rows; i++)
		manual_table(types->cell[i][types->name_column]);
	/* Of each layout there is a test above; a new table comes with one. */
	assert_int_equal(types->nr_rows, 12);
	assert_int_equal(manual_nr_tables, 44);
}

static void private_data_are_laid_out_so(void **state)
{
	uint8_t token[VERBS_TOKEN_BYTES], buf[VERBS_PRIVATE_BYTES], reject[VERBS_REJECT_BYTES];
	struct verbs_private back;
	struct image *image = image_of("PRIVATE");
	int error = 0;

	for (unsigned i = 0; i < sizeof(token); i++)
		token[i] = (uint8_t)(0x70 + i);
	put(image, "magic", number("CONSTANT", "MAGIC"));
	put(image, "version", number("CONSTANT", "VERSION"));
	put(image, "purpose", number("PURPOSE", "DATA"));
	put(image, "reserved", 0);
	put_bytes(image, "token", token, sizeof(token));
	verbs_pack_private(VERBS_DATA, token, buf);
	assert_same(image, buf, sizeof(buf));
	assert_int_equal(verbs_unpack_private(image->bytes, image->len, &back), 0);
	assert_int_equal(back.purpose, VERBS_DATA);
	assert_memory_equal(token, back.token, sizeof(token));
	put(image, "purpose", number("PURPOSE", "CONTROL"));
	memset(token, 0, sizeof(token));
	put_bytes(image, "token", token, sizeof(token));
	verbs_pack_private(VERBS_CONTROL, token, buf);
	assert_same(image, buf, sizeof(buf));
	free(image);

	struct verbs_private wants = {.purpose = VERBS_PROVED,
		.session = UINT64_C(0x0102030405060708), .counter = UINT64_C(0x1112131415161718)};
	uint8_t proved[VERBS_PROVED_BYTES];
	for (unsigned i = 0; i < sizeof(wants.mac); i++)
		wants.mac[i] = (uint8_t)(0x80 + i);
	image = image_of("PROVED");
	put(image, "magic", number("CONSTANT", "MAGIC"));
	put(image, "version", number("CONSTANT", "VERSION"));
	put(image, "purpose", number("PURPOSE", "PROVED"));
	put(image, "reserved", 0);
	put(image, "session", wants.session);
	put(image, "counter", wants.counter);
	put_bytes(image, "mac", wants.mac, sizeof(wants.mac));
	verbs_pack_proved(&wants, proved);
	assert_same(image, proved, sizeof(proved));
	assert_int_equal(verbs_unpack_private(image->bytes, image->len, &back), 0);
	assert_memory_equal(&wants, &back, sizeof(wants));
	free(image);

	image = image_of("REJECT");
	put(image, "magic", number("CONSTANT", "MAGIC"));
	put(image, "error", number("ERROR", "EACCES"));
	verbs_pack_reject(-EACCES, reject);
	assert_same(image, reject, sizeof(reject));
	assert_int_equal(verbs_unpack_reject(image->bytes, image->len, &error), 0);
	assert_int_equal(error, -EACCES);
	free(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hello_is_laid_out_so),
		cmocka_unit_test(hello_of_one_that_remembers_nothing_is_laid_out_so),
		cmocka_unit_test(wait_is_laid_out_so),
		cmocka_unit_test(grant_is_laid_out_so),
		cmocka_unit_test(refuse_is_laid_out_so),
		cmocka_unit_test(chunks_are_laid_out_so),
		cmocka_unit_test(requests_are_laid_out_so),
		cmocka_unit_test(every_message_of_the_manual_was_looked_at),
		cmocka_unit_test(a_question_for_hashes_and_its_answer_are_laid_out_so),
		cmocka_unit_test(a_question_about_the_mark_and_its_answer_are_laid_out_so),
		cmocka_unit_test(a_question_about_copies_and_its_answer_are_laid_out_so),
		cmocka_unit_test(start_and_challenge_are_laid_out_so),
		cmocka_unit_test(quiet_is_laid_out_so),
		cmocka_unit_test(what_is_proved_is_laid_out_so),
		cmocka_unit_test(private_data_are_laid_out_so),
	};

	return cmocka_run_group_tests(tests, manual_read, NULL);
}
