/* SPDX-License-Identifier: MIT */
/*
 * weft-protocol(7) against the code.  The manual's tables are read out of its source; messages are
 * built from its layouts and held against what the code packs, and the other way round; each of its
 * numbers is one of the code's, and each of the code's is in it.
 */
#include <ctype.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/nbd/conn.h"
#include "fabric/region/region.h"
#include "transports/verbs/proto.h"

enum { MAX_TABLES = 64, MAX_ROWS = 64, MAX_CELLS = 6, MAX_TEXT = 1 << 20 };

/* A table's name is the one in capitals among its heads. */
struct table {
	const char *name;
	unsigned nr_rows, nr_cells, name_column;
	char *cell[MAX_ROWS][MAX_CELLS];
};

static struct table tables[MAX_TABLES];
static unsigned nr_tables;

static char *slurp(const char *path)
{
	FILE *file = fopen(path, "r");
	char *text = calloc(1, MAX_TEXT);

	if (!file || !text)
		fail_msg("cannot read %s", path);
	size_t n = fread(text, 1, MAX_TEXT - 1, file);
	if (n == 0 || n == MAX_TEXT - 1)
		fail_msg("%s is empty, or too long", path);
	fclose(file);
	return text;
}

static unsigned split(char *line, char **cells)
{
	unsigned n = 0;

	for (char *cell; (cell = strsep(&line, "|"));) {
		assert_true(n < MAX_CELLS);
		cells[n++] = cell;
	}
	return n;
}

static bool in_capitals(const char *text)
{
	return isupper(text[0]) && isupper(text[1]);
}

static void begin_table(char *heads)
{
	char *cell[MAX_CELLS];

	assert_true(nr_tables < MAX_TABLES);
	struct table *t = &tables[nr_tables++];
	t->nr_cells = split(heads, cell);
	while (t->name_column < t->nr_cells && !in_capitals(cell[t->name_column]))
		t->name_column++;
	if (t->name_column == t->nr_cells)
		fail_msg("table %u of the manual has no name among its heads", nr_tables);
	t->name = cell[t->name_column];
}

static void add_row(char *line)
{
	struct table *t = &tables[nr_tables - 1];

	assert_true(t->nr_rows < MAX_ROWS);
	if (split(line, t->cell[t->nr_rows]) != t->nr_cells)
		fail_msg("table %s: a row beginning with '%s' has another number of cells than its "
			 "heads",
			t->name, line);
	t->nr_rows++;
}

/* tab(|); formats, the last with a dot at its end; heads; rows. */
static int read_tables(void **state)
{
	enum { OUTSIDE, FORMATS, HEADS, ROWS } at = OUTSIDE;
	char *text = slurp(MANUAL);

	for (char *line; (line = strsep(&text, "\n"));) {
		size_t len = strlen(line);

		if (strcmp(line, ".TS") == 0) {
			at = FORMATS;
		} else if (strcmp(line, ".TE") == 0) {
			at = OUTSIDE;
		} else if (at == FORMATS && len > 0 && line[len - 1] == '.') {
			at = HEADS;
		} else if (at == HEADS) {
			begin_table(line);
			at = ROWS;
		} else if (at == ROWS) {
			add_row(line);
		}
	}
	return 0;
}

static const struct table *find_table(const char *name)
{
	const struct table *found = NULL;

	for (unsigned i = 0; i < nr_tables; i++) {
		if (strcmp(tables[i].name, name) != 0)
			continue;
		if (found)
			fail_msg("the manual has two tables %s", name);
		found = &tables[i];
	}
	if (!found)
		fail_msg("the manual has no table %s", name);
	return found;
}

static uint64_t number_in(const struct table *t, unsigned row, unsigned column)
{
	char *end;
	uint64_t n = strtoull(t->cell[row][column], &end, 0);

	if (*end || end == t->cell[row][column])
		fail_msg("table %s: '%s' is no number", t->name, t->cell[row][column]);
	return n;
}

/* The row of this name, or -1. */
static int find_row(const struct table *t, const char *name)
{
	for (unsigned i = 0; i < t->nr_rows; i++)
		if (strcmp(t->cell[i][t->name_column], name) == 0)
			return (int)i;
	return -1;
}

/* ---- numbers ---- */

static const struct {
	const char *name, *prefix, *table;
	uint64_t value;
} numbers[] = {
#define K(table, prefix, name)                                                                     \
	{                                                                                          \
#prefix #name, #prefix, #table, prefix##name                                       \
	}
	K(CONSTANT, VERBS_, MAGIC),
	K(CONSTANT, VERBS_, VERSION),
	K(CONSTANT, VERBS_, TOKEN_BYTES),
	K(CONSTANT, VERBS_, NONCE_BYTES),
	K(CONSTANT, VERBS_, TAG_BYTES),
	K(CONSTANT, VERBS_, SEALED_BYTES),
	K(CONSTANT, VERBS_, IDENTITY_MAX),
	K(CONSTANT, VERBS_, PROOF_VERSION),
	K(CONSTANT, VERBS_, REGION_MAX),
	K(CONSTANT, VERBS_, TEXT_MAX),
	K(CONSTANT, VERBS_, OFFERS_MAX),
	K(CONSTANT, VERBS_, CHUNKS_PER_MESSAGE),
	K(CONSTANT, VERBS_, MAX_CHUNKS),
	K(CONSTANT, VERBS_, FIELDS_MAX),
	K(CONSTANT, VERBS_, MSG_MAX),
	K(CONSTANT, VERBS_, START_MAX),
	K(CONSTANT, VERBS_, RANGES_PER_MESSAGE),
	K(CONSTANT, VERBS_, REQUESTS),
	K(CONSTANT, VERBS_, PRIVATE_BYTES),
	K(CONSTANT, VERBS_, PROVED_BYTES),
	K(CONSTANT, VERBS_, ENDS_BYTES),
	K(CONSTANT, VERBS_, MACED_BYTES),
	K(CONSTANT, VERBS_, REJECT_BYTES),
	K(TYPE, VERBS_, HELLO),
	K(TYPE, VERBS_, WAIT),
	K(TYPE, VERBS_, GRANT),
	K(TYPE, VERBS_, REFUSE),
	K(TYPE, VERBS_, GET_CHUNKS),
	K(TYPE, VERBS_, CHUNKS),
	K(TYPE, VERBS_, REQUEST),
	K(TYPE, VERBS_, REPLY),
	K(TYPE, VERBS_, BYE),
	K(TYPE, VERBS_, START),
	K(TYPE, VERBS_, CHALLENGE),
	K(KIND, VERBS_, FLUSH),
	K(KIND, VERBS_, ZERO),
	K(FLAG, VERBS_GRANT_, READ_ONLY),
	K(FLAG, VERBS_GRANT_, FLUSH_ASKS),
	K(NUMBER, VERBS_FIELD_, GRANTED),
	K(NUMBER, VERBS_FIELD_, WROTE),
	K(NUMBER, VERBS_FIELD_, EXPECT),
	K(NUMBER, VERBS_FIELD_, RESTORABLE),
	K(NUMBER, VERBS_FIELD_, STRIPE),
	K(NUMBER, VERBS_FIELD_, RENEW),
	K(BIT, VERBS_FIELD_, MUST),
	K(PURPOSE, VERBS_, CONTROL),
	K(PURPOSE, VERBS_, DATA),
	K(PURPOSE, VERBS_, PROVED),
	K(MODE, WEFT_MODE_, READ),
	K(MODE, WEFT_MODE_, SHARED),
	K(MODE, WEFT_MODE_, WRITE),
	K(SIZE, WEFT_, ID_BYTES),
	K(SIZE, WEFT_, NAME_MAX),
	K(SIZE, WEFT_, CONTEXT_MAX),
	K(SIZE, WEFT_, STRIPE_MAX),
	K(LIMIT, NBD_, PORT),
	K(LIMIT, NBD_, MAX_STRING),
	K(LIMIT, NBD_, MAX_PAYLOAD),
	K(LIMIT, NBD_, MAX_OPTION),
	K(LIMIT, NBD_, MAX_OPTIONS),
	K(LIMIT, NBD_, MAX_OPTION_BYTES),
	K(LIMIT, NBD_, CONN_REQUESTS),
	K(LIMIT, WEFT_, NR_GENERATIONS),
#undef K
};

static void numbers_are_the_codes(void **state)
{
	unsigned nr_rows = 0, nr_found = 0;
	const char *last = "";

	for (size_t i = 0; i < WEFT_ARRAY_LEN(numbers); i++) {
		const struct table *t = find_table(numbers[i].table);
		int row = find_row(t, numbers[i].name + strlen(numbers[i].prefix));

		if (row < 0)
			fail_msg("%s is not in the manual's table %s", numbers[i].name, t->name);
		if (number_in(t, (unsigned)row, 0) != numbers[i].value)
			fail_msg("%s is %llu, in the manual's table %s it is %s", numbers[i].name,
				(unsigned long long)numbers[i].value, t->name, t->cell[row][0]);
		nr_found++;
		if (strcmp(last, t->name) != 0)
			nr_rows += t->nr_rows;
		last = t->name;
	}
	/* No table has more than those: names are told apart above. */
	assert_int_equal(nr_rows, nr_found);
}

/* Each name of the header that begins like this is among them, unless it is one that does not
 * travel. */
static void header_is_known(const char *path, const char *prefix, const char *const *others)
{
	char *text = slurp(path);
	unsigned nr = 0;

	for (char *p = text; (p = strstr(p, prefix));) {
		size_t len = strspn(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
		bool known = p > text && (isalnum(p[-1]) || p[-1] == '_');

		for (size_t i = 0; i < WEFT_ARRAY_LEN(numbers) && !known; i++)
			known = strlen(numbers[i].name) == len &&
				memcmp(numbers[i].name, p, len) == 0;
		for (unsigned i = 0; others[i] && !known; i++)
			known = strlen(others[i]) == len && memcmp(others[i], p, len) == 0;
		if (!known)
			fail_msg("%.*s of %s is not in the manual: add it to one of its tables, "
				 "and to those that this test knows",
				(int)len, p, path);
		p += len;
		nr++;
	}
	assert_true(nr > 10);
	free(text);
}

static void every_number_of_the_headers_is_in_the_manual(void **state)
{
	static const char *const none[] = {NULL};
	/* Texts and errno's; both have tests of their own. */
	static const char *const of_hello[] = {"WEFT_CONTEXT_SESSION", "WEFT_CONTEXT_GRANT",
		"WEFT_CONTEXT_TENURE", "WEFT_EXPORT_SESSION", "WEFT_EOVER", "WEFT_ESUPERSEDED",
		"WEFT_FABRIC_HELLO_H", NULL};

	header_is_known(SOURCE "/transports/verbs/proto.h", "VERBS_", none);
	header_is_known(SOURCE "/fabric/hello.h", "WEFT_", of_hello);
}

/* ---- errors ---- */

static const char *error_name(int code)
{
	return code == 0                  ? "OK"
	       : code == WEFT_EOVER       ? "OVER"
	       : code == WEFT_ESUPERSEDED ? "SUPERSEDED"
					  : strerrorname_np(code);
}

static void errors_over_rdma_are_the_codes(void **state)
{
	const struct table *t = find_table("ERROR");
	uint8_t buf[VERBS_MSG_MAX];
	unsigned nr = 0;

	for (int code = 0; code < 200; code++) {
		struct verbs_msg msg = {.type = VERBS_REPLY}, back;

		msg.reply.error = -code;
		assert_int_equal(verbs_unpack(buf, verbs_pack(&msg, buf), &back), 0);
		uint32_t wire = weft_get32(buf + 16);
		if (back.reply.error != -code) {
			assert_int_equal(back.reply.error, -EIO); /* it does not travel */
			continue;
		}
		int row = find_row(t, error_name(code));
		if (row < 0)
			fail_msg("%s travels, and is not in the manual's table ERROR",
				error_name(code));
		assert_int_equal(number_in(t, (unsigned)row, 0), wire);
		nr++;
	}
	assert_int_equal(nr, t->nr_rows);
}

static void words_of_refusals_are_the_codes(void **state)
{
	const struct table *t = find_table("WORD"), *errors = find_table("ERROR");
	unsigned nr = 0;

	for (int code = 1; code < 200; code++) {
		const char *word = weft_refusal_word(code, false),
			   *old = weft_refusal_word(code, true);

		if (!word)
			continue;
		nr++;
		int row = find_row(t, word), same = find_row(errors, error_name(code));
		if (row < 0 || same < 0)
			fail_msg("%s is not in the manual's tables WORD and ERROR", word);
		assert_string_equal(t->cell[row][0], errors->cell[same][0]);
		/* "ESTALE is said for OVER and SUPERSEDED" */
		assert_string_equal(
			old, code == WEFT_EOVER || code == WEFT_ESUPERSEDED ? "ESTALE" : word);
	}
	assert_int_equal(nr, t->nr_rows);
}

/* ---- layouts ---- */

/* A message as the manual has it: rows that are written, and how long the fixed part is. */
struct image {
	const struct table *layout;
	uint8_t bytes[VERBS_MSG_MAX];
	size_t len;
	uint64_t written; /* a bit for each row */
};

/* The rows of a layout lie end to end: nothing is between them that is not in the manual. */
static size_t fixed_len(const struct table *t)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < t->nr_rows; i++) {
		assert_int_equal(number_in(t, i, 0), at);
		if (strcmp(t->cell[i][1], "-") == 0) {
			assert_int_equal(i, t->nr_rows - 1);
			break;
		}
		at += number_in(t, i, 1);
	}
	return at;
}

static struct image *image_of(const char *layout)
{
	struct image *image = calloc(1, sizeof(*image));

	assert_non_null(image);
	image->layout = find_table(layout);
	image->len = fixed_len(image->layout);
	return image;
}

/* Where a field is, and what size the manual gives it. */
static uint8_t *place(struct image *image, const char *field, uint64_t *ret_size)
{
	const struct table *t = image->layout;
	int row = find_row(t, field);

	if (row < 0)
		fail_msg("the manual's %s has no field '%s'", t->name, field);
	image->written |= UINT64_C(1) << row;
	*ret_size = strcmp(t->cell[row][1], "-") == 0 ? 0 : number_in(t, (unsigned)row, 1);
	return image->bytes + number_in(t, (unsigned)row, 0);
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

/* The code's number of this name, which numbers_are_the_codes() holds against the manual's. */
static uint64_t number(const char *table, const char *name)
{
	const struct table *t = find_table(table);
	int row = find_row(t, name);

	if (row < 0)
		fail_msg("the manual's table %s has no %s", table, name);
	return number_in(t, (unsigned)row, 0);
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
	const struct table *t = find_table("NUMBER");
	struct image *image = image_of("FIELD");
	int row = find_row(t, name);

	assert_true(row >= 0);
	assert_int_equal(number_in(t, (unsigned)row, 1), len);
	put(image, "number", number_in(t, (unsigned)row, 0));
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
	check(image, &msg);

	msg = (struct verbs_msg){.type = VERBS_BYE, .bye.changed = true};
	image = image_of("BYE");
	put(image, "changed", 1);
	put(image, "reserved", 0);
	check(image, &msg);
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
	const struct table *types = find_table("TYPE");

	for (unsigned i = 0; i < types->nr_rows; i++)
		find_table(types->cell[i][types->name_column]);
	/* Of each layout there is a test above; a new table comes with one. */
	assert_int_equal(types->nr_rows, 11);
	assert_int_equal(nr_tables, 34);
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

/* ---- texts ---- */

/* Between a heading and the next. */
static char *section(const char *name)
{
	char head[80], *text = slurp(MANUAL);

	snprintf(head, sizeof(head), "\n.Sh %s\n", name);
	char *start = strstr(text, head);
	if (!start)
		fail_msg("the manual has no section %s", name);
	start += strlen(head);
	char *end = strstr(start, "\n.Sh ");
	char *copy = strndup(start, end ? (size_t)(end - start) : strlen(start));
	assert_non_null(copy);
	free(text);
	return copy;
}

static void names_of_fields_are_the_codes(void **state)
{
	char *manual = section("THE HELLO OVER TCP"), *code = slurp(SOURCE "/fabric/hello.c"),
	     item[80];
	unsigned nr = 1, nr_items = 0; /* v is not looked for like the others */

	for (char *p = code; (p = strstr(p, "is_key(key, \""));) {
		p += strlen("is_key(key, \"");
		char *end = strchr(p, '"');
		assert_non_null(end);
		snprintf(item, sizeof(item), "\n.It Ar %.*s\n", (int)(end - p), p);
		if (!strstr(manual, item))
			fail_msg("the manual does not explain the field '%.*s'", (int)(end - p), p);
		/* Some are in a hello and in a welcome. */
		snprintf(item, sizeof(item), "is_key(key, \"%.*s\")", (int)(end - p), p);
		nr += !strstr(end, item);
	}
	assert_non_null(strstr(manual, "\n.It Ar v\n"));
	for (const char *p = manual; (p = strstr(p, "\n.It Ar ")); p++)
		nr_items++;
	assert_int_equal(nr_items, nr);
	free(code);
	free(manual);
}

/* Lines that continue one are indented. */
static void examples_are_what_the_code_says(void **state)
{
	char *manual = section("THE HELLO OVER TCP"), *p = strstr(manual, ".Ss Example"),
	     text[WEFT_CONTEXT_MAX];
	unsigned nr_hellos = 0, nr_welcomes = 0;

	assert_non_null(p);
	while ((p = strstr(p, "\nweft:"))) {
		char whole[WEFT_CONTEXT_MAX] = "";
		struct weft_hello hello;
		struct weft_welcome welcome;

		p++;
		for (bool goes_on = true; goes_on;) {
			size_t len = strcspn(p, "\n");

			assert_true(strlen(whole) + len < sizeof(whole));
			strncat(whole, p, len);
			p += len;
			goes_on = p[0] == '\n' && p[1] == ' ';
			p += goes_on ? 1 + strspn(p + 1, " ") : 0;
		}
		if (weft_hello_parse(whole, strlen(whole), &hello, NULL) == 0) {
			weft_hello_format(&hello, text);
			nr_hellos++;
		} else {
			assert_int_equal(weft_welcome_parse(whole, strlen(whole), &welcome), 0);
			weft_welcome_format(&welcome, text);
			nr_welcomes++;
		}
		assert_string_equal(text, whole);
	}
	assert_int_equal(nr_hellos, 3);
	assert_int_equal(nr_welcomes, 1);
	free(manual);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_the_codes),
		cmocka_unit_test(every_number_of_the_headers_is_in_the_manual),
		cmocka_unit_test(errors_over_rdma_are_the_codes),
		cmocka_unit_test(words_of_refusals_are_the_codes),
		cmocka_unit_test(hello_is_laid_out_so),
		cmocka_unit_test(hello_of_one_that_remembers_nothing_is_laid_out_so),
		cmocka_unit_test(wait_is_laid_out_so),
		cmocka_unit_test(grant_is_laid_out_so),
		cmocka_unit_test(refuse_is_laid_out_so),
		cmocka_unit_test(chunks_are_laid_out_so),
		cmocka_unit_test(requests_are_laid_out_so),
		cmocka_unit_test(every_message_of_the_manual_was_looked_at),
		cmocka_unit_test(start_and_challenge_are_laid_out_so),
		cmocka_unit_test(what_is_proved_is_laid_out_so),
		cmocka_unit_test(private_data_are_laid_out_so),
		cmocka_unit_test(names_of_fields_are_the_codes),
		cmocka_unit_test(examples_are_what_the_code_says),
	};

	return cmocka_run_group_tests(tests, read_tables, NULL);
}
