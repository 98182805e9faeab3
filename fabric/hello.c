/* SPDX-License-Identifier: MIT */
/*
 * Hellos and welcomes as metadata context names.  Pure functions; any thread.
 * The parsers are a trust boundary: the text is a peer's.
 */
#include "fabric/hello.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"

/* A piece of the peer's text, not NUL-terminated. */
struct span {
	const char *p;
	size_t len;
};

static bool name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '-';
}

static bool name_span_valid(struct span s)
{
	if (s.len == 0 || s.len > WEFT_NAME_MAX)
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (!name_char(s.p[i]))
			return false;
	return true;
}

bool weft_name_valid(const char *name)
{
	return name_span_valid((struct span){name, strnlen(name, WEFT_NAME_MAX + 1)});
}

static const char mode_letters[] = {
	[WEFT_MODE_READ] = 'r',
	[WEFT_MODE_SHARED] = 's',
	[WEFT_MODE_WRITE] = 'w',
};

static const struct {
	int code;
	const char *word;
} refusals[] = {
	{EBUSY, "EBUSY"},
	{ESTALE, "ESTALE"},
	{EROFS, "EROFS"},
	{WEFT_EOVER, "OVER"},
	{WEFT_ESUPERSEDED, "SUPERSEDED"},
	{WEFT_EMOVED, "MOVED"},
	{WEFT_EMOVING, "MOVING"},
	{EPROTONOSUPPORT, "EPROTONOSUPPORT"},
	{EINVAL, "EINVAL"},
	{EACCES, "EACCES"},
};

int weft_refusal_code(int code, bool version0)
{
	return version0 && (code == WEFT_EOVER || code == WEFT_ESUPERSEDED) ? ESTALE : code;
}

const char *weft_refusal_word(int code, bool version0)
{
	code = weft_refusal_code(code, version0);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(refusals); i++)
		if (refusals[i].code == code)
			return refusals[i].word;
	return NULL;
}

int weft_hello_check_version0(const struct weft_hello *hello, const char *region,
	struct weft_error *err)
{
	bool joins = hello->granted == hello->generation;

	if (hello->has_alias)
		return weft_error_set(err, EPROTONOSUPPORT,
			"the donor runs an older weft, which gives a session no alias, as the "
			"kernel's own connection to region '%.100s' needs; upgrade the donor",
			region);
	if (!hello->epoch || (uint32_t)hello->generation != 0 || joins ||
		hello->mode == WEFT_MODE_SHARED)
		return 0;
	return weft_error_set(err, EPROTONOSUPPORT,
		"the donor runs an older weft, which cannot tell whether another borrower wrote to "
		"region '%.100s' since this attachment was last connected; upgrade the donor",
		region);
}

int weft_refusal_parse(const char *text, const char **ret_rest)
{
	for (size_t i = 0; i < WEFT_ARRAY_LEN(refusals); i++) {
		size_t n = strlen(refusals[i].word);

		if (strncmp(text, refusals[i].word, n) == 0 && text[n] == ':' &&
			text[n + 1] == ' ') {
			*ret_rest = text + n + 2;
			return refusals[i].code;
		}
	}
	return 0;
}

bool weft_place_valid(const char *text, size_t len)
{
	static const char scheme[] = "weft://";

	if (len >= WEFT_PLACE_MAX || len <= strlen(scheme) ||
		memcmp(text, scheme, strlen(scheme)) != 0)
		return false;
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~' || strchr(",;=", text[i]))
			return false;
	return true;
}

bool weft_place_of(const char *text, char ret[WEFT_PLACE_MAX])
{
	const size_t len = strcspn(text, " ");

	if (!weft_place_valid(text, len))
		return false;
	memcpy(ret, text, len);
	ret[len] = '\0';
	return true;
}

/* A text of ours that grows in a buffer of WEFT_CONTEXT_MAX. */
static void add(char *buf, int *n, const char *form, ...) __attribute__((format(printf, 3, 4)));
static void add(char *buf, int *n, const char *form, ...)
{
	va_list args;

	va_start(args, form);
	*n += vsnprintf(buf + *n, WEFT_CONTEXT_MAX - (size_t)*n, form, args);
	va_end(args);
	assert(*n < WEFT_CONTEXT_MAX);
}

void weft_hello_format(const struct weft_hello *hello, char *buf)
{
	char id[2 * WEFT_ID_BYTES + 1], alias[2 * WEFT_ID_BYTES + 1];
	char stripe[WEFT_STRIPE_TEXT_MAX];
	int n = 0;

	weft_hex(hello->id, WEFT_ID_BYTES, id);
	add(buf, &n, WEFT_CONTEXT_SESSION "%sid=%s,gen=%" PRIu64 ",mode=%c,name=%s",
		hello->version0 ? "" : "v=1,", id, hello->generation, mode_letters[hello->mode],
		hello->name);
	if (hello->epoch || (hello->expect && hello->version0))
		add(buf, &n, ",epoch=%016" PRIx64, hello->epoch ? hello->epoch : hello->expect);
	else if (hello->expect)
		add(buf, &n, ",expect=%016" PRIx64, hello->expect);
	if (hello->epoch && hello->granted && !hello->version0)
		add(buf, &n, ",granted=%" PRIu64 "%s", hello->granted,
			hello->wrote ? ",wrote=1" : "");
	if (hello->stripe.count && !hello->version0)
		add(buf, &n, ",stripe=%s%s", weft_stripe_format(&hello->stripe, stripe),
			hello->new_contents ? ",renew=1" : "");
	if (hello->pass && !hello->version0)
		add(buf, &n, ",pass=1");
	if (hello->follows && !hello->version0)
		add(buf, &n, ",follows=1");
	if (hello->copies && !hello->version0)
		add(buf, &n, ",copies=1");
	weft_hex(hello->alias, WEFT_ID_BYTES, alias);
	if (hello->has_alias && !hello->version0)
		add(buf, &n, ",!alias=%s", alias);
	explicit_bzero(alias, sizeof(alias));
}

void weft_welcome_format(const struct weft_welcome *welcome, char *buf)
{
	int n = 0;

	add(buf, &n, WEFT_CONTEXT_GRANT "%sepoch=%016" PRIx64 ",lease=%" PRIu32 ",offers=%s",
		welcome->version0 ? "" : "v=1,", welcome->epoch, welcome->lease_ms,
		welcome->offers);
	/* A comma separates fields here, and list members in offers. */
	for (char *p = strstr(buf, ",offers=") + 1; *p; p++)
		if (*p == ',')
			*p = ';';
	if (welcome->restorable && !welcome->version0)
		add(buf, &n, ",restorable=1");
	if (welcome->pass && !welcome->version0)
		add(buf, &n, ",pass=1");
	if (welcome->hashes && !welcome->version0)
		add(buf, &n, ",hashes=%" PRIu32, welcome->hashes);
	if (welcome->marks && !welcome->version0)
		add(buf, &n, ",marks=%" PRIu32 ",%s=%" PRIu64, welcome->marks,
			weft_is_marked(welcome->mark.number) ? "marked" : "unmarked",
			welcome->mark.age_ms);
	if (welcome->moving[0] && !welcome->version0)
		add(buf, &n, ",moving=%s", welcome->moving);
}

/* Cuts the next "key=value" off the text.  False: malformed. */
static bool next_field(struct span *text, struct span *ret_key, struct span *ret_value)
{
	const char *comma = memchr(text->p, ',', text->len);
	size_t len = comma ? (size_t)(comma - text->p) : text->len;
	const char *equals = memchr(text->p, '=', len);

	if (!equals)
		return false;
	*ret_key = (struct span){text->p, (size_t)(equals - text->p)};
	*ret_value = (struct span){equals + 1, len - ret_key->len - 1};
	/* A comma at the very end leaves an empty field, which has no '='. */
	text->p += len + (comma ? 1 : 0);
	text->len -= len + (comma ? 1 : 0);
	return !comma || text->len > 0;
}

static bool is_key(struct span key, const char *name)
{
	return key.len == strlen(name) && memcmp(key.p, name, key.len) == 0;
}

/* Decimal without sign or leading zeros. */
static bool parse_decimal(struct span s, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (s.len == 0 || (s.len > 1 && s.p[0] == '0'))
		return false;
	for (size_t i = 0; i < s.len; i++) {
		uint64_t digit = (uint64_t)(s.p[i] - '0');

		if (s.p[i] < '0' || s.p[i] > '9' || v > (max - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*ret = v;
	return true;
}

/* 16 hex digits, not all zero. */
static bool parse_epoch(struct span s, uint64_t *ret)
{
	uint8_t b[8];
	uint64_t v = 0;

	if (s.len != 16 || weft_unhex(s.p, b, sizeof(b)) < 0)
		return false;
	for (size_t i = 0; i < sizeof(b); i++)
		v = v << 8 | b[i];
	if (v == 0)
		return false;
	*ret = v;
	return true;
}

static bool parse_mode(struct span s, enum weft_mode *ret)
{
	for (size_t i = 0; i < sizeof(mode_letters); i++) {
		if (s.len == 1 && s.p[0] == mode_letters[i]) {
			*ret = (enum weft_mode)i;
			return true;
		}
	}
	return false;
}

static bool strip_prefix(struct span *text, const char *prefix)
{
	size_t n = strlen(prefix);

	if (text->len < n || memcmp(text->p, prefix, n) != 0)
		return false;
	text->p += n;
	text->len -= n;
	return true;
}

/* Takes a leading "v=".  Its number says only that unknown fields have a rule. */
static bool take_version(struct span *rest, bool *ret_version0)
{
	struct span key, value, after = *rest;
	uint64_t version;

	*ret_version0 = true;
	if (rest->len < 2 || memcmp(rest->p, "v=", 2) != 0)
		return true;
	if (!next_field(&after, &key, &value) || !parse_decimal(value, UINT32_MAX, &version) ||
		version == 0)
		return false;
	*rest = after;
	*ret_version0 = false;
	return true;
}

/* Judges a field that is not known: 0: it may be skipped. */
static int unknown_field(struct span key, bool version0, struct weft_error *err)
{
	if (version0 || key.len == 0 || key.len > WEFT_NAME_MAX)
		return -EINVAL;
	for (size_t i = 0; i < key.len; i++)
		if (!name_char(key.p[i]) && !(i == 0 && key.p[i] == '!'))
			return -EINVAL;
	if (key.p[0] != '!')
		return 0;
	return weft_error_set(err, EPROTONOSUPPORT,
		"the peer needs '%.*s', which this version of weft does not know; upgrade it",
		(int)key.len - 1, key.p + 1);
}

/* WEFT_ID_BYTES of them. */
static bool parse_bytes(struct span s, uint8_t *ret)
{
	return s.len == 2 * WEFT_ID_BYTES && weft_unhex(s.p, ret, WEFT_ID_BYTES) == 0;
}

static bool parse_one(struct span s, bool *ret)
{
	*ret = true;
	return s.len == 1 && s.p[0] == '1';
}

bool weft_tenure_split(const char *name, char *ret_name, size_t size, uint64_t *ret_tenure)
{
	const char *at = strrchr(name, '@');

	if (!at || (size_t)(at - name) >= size ||
		!parse_epoch((struct span){at + 1, strlen(at + 1)}, ret_tenure))
		return false;
	memcpy(ret_name, name, (size_t)(at - name));
	ret_name[at - name] = '\0';
	return true;
}

void weft_alias_format(const uint8_t *alias, char *ret)
{
	weft_hex(alias, WEFT_ID_BYTES, stpcpy(ret, WEFT_EXPORT_ALIAS));
}

bool weft_alias_parse(const char *name, uint8_t *ret)
{
	struct span rest = {name, strlen(name)};

	return strip_prefix(&rest, WEFT_EXPORT_ALIAS) && parse_bytes(rest, ret);
}

int weft_hello_parse(const char *text, size_t len, struct weft_hello *ret, struct weft_error *err)
{
	enum {
		ID = 1,
		GEN = 2,
		MODE = 4,
		NAME = 8,
		EPOCH = 16,
		GRANTED = 32,
		WROTE = 64,
		EXPECT = 128,
		STRIPE = 256,
		RENEW = 512,
		PASS = 1024,
		ALIAS = 2048,
		FOLLOWS = 4096,
		COPIES = 8192
	};
	struct weft_hello hello = {0};
	struct span rest = {text, len};
	unsigned seen = 0;

	if (len >= WEFT_CONTEXT_MAX || !strip_prefix(&rest, WEFT_CONTEXT_SESSION) ||
		!take_version(&rest, &hello.version0))
		return -EINVAL;
	while (rest.len > 0) {
		struct span key, value;
		unsigned field;
		bool ok;

		if (!next_field(&rest, &key, &value))
			return -EINVAL;
		if (is_key(key, "id")) {
			field = ID;
			ok = parse_bytes(value, hello.id);
		} else if (is_key(key, "gen")) {
			field = GEN;
			ok = parse_decimal(value, UINT64_MAX, &hello.generation) &&
				hello.generation > 0;
		} else if (is_key(key, "mode")) {
			field = MODE;
			ok = parse_mode(value, &hello.mode);
		} else if (is_key(key, "name")) {
			field = NAME;
			ok = name_span_valid(value);
			if (ok)
				memcpy(hello.name, value.p, value.len);
		} else if (is_key(key, "epoch")) {
			field = EPOCH;
			ok = parse_epoch(value, &hello.epoch);
		} else if (!hello.version0 && is_key(key, "expect")) {
			field = EXPECT;
			ok = parse_epoch(value, &hello.expect);
		} else if (!hello.version0 && is_key(key, "granted")) {
			field = GRANTED;
			ok = parse_decimal(value, UINT64_MAX, &hello.granted) && hello.granted > 0;
		} else if (!hello.version0 && is_key(key, "wrote")) {
			field = WROTE;
			ok = parse_one(value, &hello.wrote);
		} else if (!hello.version0 && is_key(key, "stripe")) {
			field = STRIPE;
			ok = weft_stripe_parse(value.p, value.len, &hello.stripe);
		} else if (!hello.version0 && is_key(key, "renew")) {
			field = RENEW;
			ok = parse_one(value, &hello.new_contents);
		} else if (!hello.version0 && is_key(key, "pass")) {
			field = PASS;
			ok = parse_one(value, &hello.pass);
		} else if (!hello.version0 && is_key(key, "follows")) {
			field = FOLLOWS;
			ok = parse_one(value, &hello.follows);
		} else if (!hello.version0 && is_key(key, "copies")) {
			field = COPIES;
			ok = parse_one(value, &hello.copies);
		} else if (!hello.version0 && is_key(key, "!alias")) {
			field = ALIAS;
			hello.has_alias = ok = parse_bytes(value, hello.alias);
		} else {
			int r = unknown_field(key, hello.version0, err);

			if (r < 0)
				return r;
			continue;
		}
		if (!ok || (seen & field))
			return -EINVAL;
		seen |= field;
	}
	if ((seen & (ID | GEN | MODE | NAME)) != (ID | GEN | MODE | NAME) ||
		((seen & GRANTED) && !(seen & EPOCH)) || ((seen & WROTE) && !(seen & GRANTED)) ||
		((seen & EPOCH) && (seen & EXPECT)) || ((seen & RENEW) && !(seen & STRIPE)) ||
		((seen & RENEW) && (seen & EPOCH)))
		return -EINVAL;
	*ret = hello;
	return 0;
}

/* Members of [A-Za-z0-9._:-] with ';' between; may be empty. */
static bool parse_offers(struct span s, char *ret, size_t size)
{
	if (s.len >= size)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if (!name_char(s.p[i]) && s.p[i] != ':' && s.p[i] != ';')
			return false;
		ret[i] = s.p[i] == ';' ? ',' : s.p[i];
	}
	ret[s.len] = '\0';
	return true;
}

int weft_welcome_parse(const char *text, size_t len, struct weft_welcome *ret)
{
	enum { EPOCH = 1, LEASE = 2, OFFERS = 4, RESTORABLE = 8, PASS = 16, HASHES = 32, MARKS = 64,
		MARK = 128, MOVING = 256 };
	struct weft_welcome welcome = {0};
	struct span rest = {text, len};
	unsigned seen = 0;

	if (len >= WEFT_CONTEXT_MAX || !strip_prefix(&rest, WEFT_CONTEXT_GRANT) ||
		!take_version(&rest, &welcome.version0))
		return -EINVAL;
	while (rest.len > 0) {
		struct span key, value;
		uint64_t lease = 0, hashes = 0, marks = 0;
		unsigned field;
		bool ok;

		if (!next_field(&rest, &key, &value))
			return -EINVAL;
		if (is_key(key, "epoch")) {
			field = EPOCH;
			ok = parse_epoch(value, &welcome.epoch);
		} else if (is_key(key, "lease")) {
			field = LEASE;
			ok = parse_decimal(value, UINT32_MAX, &lease);
			welcome.lease_ms = (uint32_t)lease;
		} else if (is_key(key, "offers")) {
			field = OFFERS;
			ok = parse_offers(value, welcome.offers, sizeof(welcome.offers));
		} else if (!welcome.version0 && is_key(key, "restorable")) {
			field = RESTORABLE;
			ok = parse_one(value, &welcome.restorable);
		} else if (!welcome.version0 && is_key(key, "pass")) {
			field = PASS;
			ok = parse_one(value, &welcome.pass);
		} else if (!welcome.version0 && is_key(key, "hashes")) {
			field = HASHES;
			ok = parse_decimal(value, UINT32_MAX, &hashes) && hashes > 0;
			welcome.hashes = (uint32_t)hashes;
		} else if (!welcome.version0 && is_key(key, "marks")) {
			field = MARKS;
			ok = parse_decimal(value, UINT32_MAX, &marks) && marks > 0;
			welcome.marks = (uint32_t)marks;
		} else if (!welcome.version0 &&
			(is_key(key, "marked") || is_key(key, "unmarked"))) {
			field = MARK;
			ok = parse_decimal(value, UINT64_MAX, &welcome.mark.age_ms);
			welcome.mark.number = is_key(key, "unmarked");
		} else if (!welcome.version0 && is_key(key, "moving")) {
			field = MOVING;
			ok = weft_place_valid(value.p, value.len);
			if (ok)
				memcpy(welcome.moving, value.p, value.len);
		} else {
			int r = unknown_field(key, welcome.version0, NULL);

			if (r < 0)
				return r;
			continue;
		}
		if (!ok || (seen & field))
			return -EINVAL;
		seen |= field;
	}
	if ((seen & (EPOCH | LEASE | OFFERS)) != (EPOCH | LEASE | OFFERS))
		return -EINVAL;
	*ret = welcome;
	return 0;
}
