/*
 * Hellos and welcomes as metadata context names.  Pure functions; any thread.
 * The parsers are a trust boundary: the text is a peer's.
 */
#include "fabric/hello.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fabric/util.h"

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

void weft_hello_format(const struct weft_hello *hello, char *buf)
{
	char id[2 * WEFT_ID_BYTES + 1];
	int n;

	weft_hex(hello->id, WEFT_ID_BYTES, id);
	n = snprintf(buf, WEFT_CONTEXT_MAX, WEFT_CONTEXT_SESSION "id=%s,gen=%" PRIu64 ",mode=%c,name=%s",
		id, hello->generation, mode_letters[hello->mode], hello->name);
	if (hello->epoch)
		n += snprintf(buf + n, WEFT_CONTEXT_MAX - (size_t)n, ",epoch=%016" PRIx64, hello->epoch);
	assert(n < WEFT_CONTEXT_MAX);
}

void weft_welcome_format(const struct weft_welcome *welcome, char *buf)
{
	int n = snprintf(buf, WEFT_CONTEXT_MAX,
		WEFT_CONTEXT_GRANT "epoch=%016" PRIx64 ",lease=%" PRIu32 ",offers=%s", welcome->epoch,
		welcome->lease_ms, welcome->offers);

	assert(n < WEFT_CONTEXT_MAX);
	/* A comma separates fields here, and list members in offers. */
	for (char *p = strstr(buf, ",offers=") + 1; *p; p++)
		if (*p == ',')
			*p = ';';
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

int weft_hello_parse(const char *text, size_t len, struct weft_hello *ret)
{
	enum { ID = 1, GEN = 2, MODE = 4, NAME = 8, EPOCH = 16 };
	struct weft_hello hello = {0};
	struct span rest = {text, len};
	unsigned seen = 0;

	if (len >= WEFT_CONTEXT_MAX || !strip_prefix(&rest, WEFT_CONTEXT_SESSION))
		return -EINVAL;
	while (rest.len > 0) {
		struct span key, value;
		unsigned field;
		bool ok;

		if (!next_field(&rest, &key, &value))
			return -EINVAL;
		if (is_key(key, "id")) {
			field = ID;
			ok = value.len == 2 * WEFT_ID_BYTES &&
			     weft_unhex(value.p, hello.id, WEFT_ID_BYTES) == 0;
		} else if (is_key(key, "gen")) {
			field = GEN;
			ok = parse_decimal(value, UINT64_MAX, &hello.generation) && hello.generation > 0;
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
		} else {
			return -EINVAL;
		}
		if (!ok || (seen & field))
			return -EINVAL;
		seen |= field;
	}
	if ((seen & (ID | GEN | MODE | NAME)) != (ID | GEN | MODE | NAME))
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
	enum { EPOCH = 1, LEASE = 2, OFFERS = 4 };
	struct weft_welcome welcome = {0};
	struct span rest = {text, len};
	unsigned seen = 0;

	if (len >= WEFT_CONTEXT_MAX || !strip_prefix(&rest, WEFT_CONTEXT_GRANT))
		return -EINVAL;
	while (rest.len > 0) {
		struct span key, value;
		uint64_t lease = 0;
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
		} else {
			return -EINVAL;
		}
		if (!ok || (seen & field))
			return -EINVAL;
		seen |= field;
	}
	if (seen != (EPOCH | LEASE | OFFERS))
		return -EINVAL;
	*ret = welcome;
	return 0;
}
