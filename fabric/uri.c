/* SPDX-License-Identifier: MIT */
/*
 * URIs of regions, through uriparser.  No state, any thread.  A part of a URI that we do not
 * understand is refused, never ignored: it may have been meant to protect something.
 */
#include "fabric/uri.h"

#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <uriparser/Uri.h>

#include "fabric/base/util.h"
#include "fabric/driver.h"

enum { REGION_MAX = 4096, URI_TEXT_MAX = 16384 };

static const char *const default_port = "10809";

enum { WRONG_MAX = 240 }; /* what is wrong, in words */

static const struct tp_scheme weft_scheme = {
	.name = "weft", .place = TP_AT_HOST, .example = "weft://192.0.2.7/scratch"};

/*
 * Walks through all schemes: weft's first, then those of the transports.  False: there are no more.
 */
struct scheme_walk {
	const struct tp_driver *const *driver; /* NULL: before the first */
	unsigned i;
	const struct tp_scheme *scheme;
};

static bool next_scheme(struct scheme_walk *walk)
{
	if (!walk->driver) {
		walk->driver = tp_drivers;
		walk->scheme = &weft_scheme;
		return true;
	}
	for (; *walk->driver; walk->driver++, walk->i = 0) {
		walk->scheme =
			(*walk->driver)->schemes ? &(*walk->driver)->schemes[walk->i++] : NULL;
		if (walk->scheme && walk->scheme->name)
			return true;
	}
	return false;
}

static bool is_named(const struct tp_scheme *scheme, const char *name, size_t len)
{
	return strlen(scheme->name) == len && strncasecmp(name, scheme->name, len) == 0;
}

/* Fills the error, with an example of the form of URI that was meant. */
static int wrong_uri(struct weft_error *err, const char *text, const char *wrong)
{
	char looks_like[160];
	size_t scheme_len = strcspn(text, ":/");
	bool known = false;

	snprintf(looks_like, sizeof(looks_like), "a region's URI looks like %s",
		weft_scheme.example);
	for (struct scheme_walk walk = {0}; next_scheme(&walk);) {
		if (!is_named(walk.scheme, text, scheme_len))
			continue;
		known = true;
		if (walk.scheme != &weft_scheme)
			snprintf(looks_like, sizeof(looks_like), "it looks like %s",
				walk.scheme->example);
	}
	if (!known && text[0] && text[0] != '/' && strchr(text, '/') && !strstr(text, "//"))
		return weft_error_set(err, EINVAL,
			"cannot use '%.200s': it begins with no scheme; is it weft://%.200s?", text,
			text);
	return weft_error_set(err, EINVAL, "cannot use '%.200s': %s; %s", text, wrong, looks_like);
}

static int hex_value(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/*
 * Percent-decodes into buf.  -ENAMETOOLONG, or -EINVAL for an encoded NUL.  The parser has checked
 * the digits.
 */
static int decode(const char *first, const char *last, char *buf, size_t len)
{
	size_t n = 0;

	while (first < last) {
		char c = *first++;

		if (c == '%') {
			c = (char)(hex_value(first[0]) << 4 | hex_value(first[1]));
			first += 2;
			if (c == '\0')
				return -EINVAL;
		}
		if (n + 1 >= len)
			return -ENAMETOOLONG;
		buf[n++] = c;
	}
	buf[n] = '\0';
	return 0;
}

static size_t range_len(const UriTextRangeA *range)
{
	return range->first ? (size_t)(range->afterLast - range->first) : 0;
}

static const char *parse_scheme(const UriUriA *parsed, struct weft_uri *uri, char wrong[WRONG_MAX])
{
	size_t len = range_len(&parsed->scheme), used = 0;

	if (len == 0)
		return "no scheme";
	for (struct scheme_walk walk = {0}; next_scheme(&walk);) {
		if (is_named(walk.scheme, parsed->scheme.first, len)) {
			uri->scheme = walk.scheme;
			uri->driver = walk.scheme == &weft_scheme ? NULL : *walk.driver;
			uri->foreign = walk.scheme->foreign;
			return NULL;
		}
		if (used < WRONG_MAX)
			used += (size_t)snprintf(wrong + used, WRONG_MAX - used, "%s%s",
				used ? ", " : "its scheme is none of ", walk.scheme->name);
	}
	return wrong;
}

/*
 * Takes the zone out of "[fe80::1%25eth0]" (RFC 6874) or "[fe80::1%eth0]" (as everything else
 * writes it), as the parser knows neither.  zone: "" without one.
 */
static const char *cut_zone(char *text, char zone[IF_NAMESIZE])
{
	char *authority = strstr(text, "//"), *open = authority ? authority + 2 : NULL;
	char *at = open ? memrchr(open, '@', strcspn(open, "/?#")) : NULL;

	open = at ? at + 1 : open;
	char *end = open && *open == '[' ? strpbrk(open, "]/?#") : NULL;
	char *percent = end && *end == ']' ? memchr(open, '%', (size_t)(end - open)) : NULL;

	zone[0] = '\0';
	if (!percent)
		return NULL;
	const char *first = percent + 1;
	if (end - first > 2 && strncmp(first, "25", 2) == 0)
		first += 2;
	for (const char *p = first; p < end; p++)
		if (!isalnum((unsigned char)*p) && !strchr(".-_~", *p))
			return "the zone of its address is not valid";
	if (first == end || end - first >= IF_NAMESIZE)
		return "the zone of its address is no interface's name";
	memcpy(zone, first, (size_t)(end - first));
	zone[end - first] = '\0';
	memmove(percent, end, strlen(end) + 1);
	return NULL;
}

/*
 * A secret in a URI is seen by everybody who sees a command line: it is refused before anything
 * is said of the text.
 */
static bool has_password(const char *text)
{
	const char *slashes = strstr(text, "//"), *first = slashes ? slashes + 2 : text;
	const char *at = memrchr(first, '@', strcspn(first, "/?#"));

	return at && memchr(first, ':', (size_t)(at - first));
}

static const char *parse_identity(const UriUriA *parsed, struct weft_uri *uri)
{
	if (!parsed->userInfo.first)
		return NULL;
	if (uri->scheme->place != TP_AT_HOST)
		return "an identity stands before a host, and it has none";
	if (decode(parsed->userInfo.first, parsed->userInfo.afterLast, uri->identity,
		    sizeof(uri->identity)) < 0 ||
		!weft_identity_valid(uri->identity))
		return "what stands before '@' is no identity of a key";
	return NULL;
}

static const char *parse_authority(const UriUriA *parsed, const char *zone, struct weft_uri *uri)
{
	size_t port_len = range_len(&parsed->portText), len;

	if (!parsed->hostText.first)
		return "no host";
	const char *wrong = parse_identity(parsed, uri);
	if (wrong)
		return wrong;
	if (parsed->hostData.ipFuture.first)
		return "unknown form of address";
	if (uri->scheme->place != TP_AT_HOST) {
		if (range_len(&parsed->hostText) > 0 || parsed->portText.first)
			return uri->scheme->place == TP_AT_SOCKET
				? "a Unix socket has no host, so that there are three slashes"
				: "it has no host, so that there are three slashes";
		return NULL;
	}
	if (decode(parsed->hostText.first, parsed->hostText.afterLast, uri->host,
		    sizeof(uri->host)) < 0)
		return "its host is not valid";
	if (uri->host[0] == '\0')
		return "no host";
	/* A host that is a path would be taken for a Unix socket later. */
	for (const char *p = uri->host; *p; p++)
		if (!isalnum((unsigned char)*p) &&
			!strchr(parsed->hostData.ip6 ? ".:" : ".-_", *p) &&
			(unsigned char)*p < 0x80)
			return "its host is not valid";
	len = strlen(uri->host);
	if (*zone)
		snprintf(uri->host + len, sizeof(uri->host) - len, "%%%s", zone);
	if (port_len == 0 && uri->scheme->needs_port)
		return "no port, and there is no usual one";
	if (port_len == 0) {
		snprintf(uri->port, sizeof(uri->port), "%s", default_port);
		return NULL;
	}
	unsigned long port = 0;
	for (const char *p = parsed->portText.first; p < parsed->portText.afterLast; p++) {
		port = port * 10 + (unsigned long)(*p - '0');
		if (port > 65535)
			break;
	}
	if (port < 1 || port > 65535)
		return "its port is not between 1 and 65535";
	snprintf(uri->port, sizeof(uri->port), "%lu", port);
	return NULL;
}

static const char *parse_socket(const char *value, struct weft_uri *uri)
{
	if (uri->socket[0])
		return "socket= is there twice";
	if (value[0] != '/')
		return "socket= needs an absolute path";
	if (strlen(value) >= sizeof(uri->socket))
		return "socket= is over 107 bytes, more than a socket's address holds";
	memcpy(uri->socket, value, strlen(value) + 1);
	return NULL;
}

static const char *parse_transport(
	const char *value, bool again, struct weft_uri *uri, char wrong[WRONG_MAX])
{
	char choices[120];

	if (again)
		return "transport= is there twice";
	if (tp_choice_parse(value, &uri->transport) == 0)
		return NULL;
	snprintf(wrong, WRONG_MAX, "transport= is none of %s",
		tp_choices(", ", choices, sizeof(choices)));
	return wrong;
}

static const char *parse_query(const UriUriA *parsed, struct weft_uri *uri, char text[WRONG_MAX])
{
	bool at_socket = uri->scheme->place == TP_AT_SOCKET, has_transport = false;
	UriQueryListA *list = NULL;
	const char *wrong = NULL;
	char choices[120];
	int nr;

	if (parsed->query.first &&
		uriDissectQueryMallocExA(&list, &nr, parsed->query.first, parsed->query.afterLast,
			URI_FALSE, URI_BR_DONT_TOUCH) != URI_SUCCESS)
		return "what follows '?' is not valid";
	for (UriQueryListA *q = list; q && !wrong; q = q->next) {
		const char *value = q->value ? q->value : "";

		if (strcmp(q->key, "socket") == 0 && at_socket) {
			wrong = parse_socket(value, uri);
		} else if (strcmp(q->key, "transport") == 0 && !uri->driver) {
			wrong = parse_transport(value, has_transport, uri, text);
			has_transport = true;
		} else {
			snprintf(text, WRONG_MAX,
				"what follows '?' is unknown; with weft:// it may be transport=%s, "
				"with +unix:// it must be socket=PATH",
				tp_choices("|", choices, sizeof(choices)));
			wrong = text;
		}
	}
	if (list)
		uriFreeQueryListA(list);
	if (!wrong && at_socket && !uri->socket[0])
		wrong = "no socket=PATH";
	return wrong;
}

/*
 * text has a valid scheme and authority.  The path is cut from the text: the parser's empty
 * segments point elsewhere.
 */
static const char *parse_path(const char *text, struct weft_uri *uri)
{
	const char *authority = strstr(text, "//") + 2;
	const char *first = authority + strcspn(authority, "/?");
	const char *last = first + strcspn(first, "?");
	char region[REGION_MAX + 1];
	int r = decode(first < last ? first + 1 : first, last, region, sizeof(region));

	if (r == -ENAMETOOLONG)
		return "its region's name is over 4096 bytes";
	if (r < 0)
		return "its region's name is not valid";
	uri->region = strdup(region);
	return uri->region ? NULL : "out of memory";
}

int weft_uri_parse(const char *text, struct weft_uri *ret, struct weft_error *err)
{
	struct weft_uri uri = {0};
	const char *wrong, *where, *given = text;
	char zone[IF_NAMESIZE], text_wrong[WRONG_MAX];
	UriUriA parsed;

	if (strlen(text) > URI_TEXT_MAX)
		return weft_error_set(err, EINVAL, "cannot use the URI: it is over %d bytes",
			URI_TEXT_MAX);
	if (has_password(text))
		return weft_error_set(err, EINVAL,
			"cannot use the URI: a password stands in it, which others see; keys are "
			"in a file (weft key), and a URI has their identity at most: "
			"weft://IDENTITY@HOST/REGION");
	WEFT_CLEANUP_FREE char *without_zone = strdup(text);
	if (!without_zone)
		return weft_error_set(err, ENOMEM, "no memory");
	wrong = cut_zone(without_zone, zone);
	if (wrong)
		return wrong_uri(err, given, wrong);
	text = without_zone;
	if (uriParseSingleUriA(&parsed, text, &where) != URI_SUCCESS) {
		char at[64];

		snprintf(at, sizeof(at), "wrong at '%.40s'", where ? where : "");
		return wrong_uri(err, given, at);
	}
	wrong = parse_scheme(&parsed, &uri, text_wrong);
	if (!wrong && parsed.fragment.first)
		wrong = "'#' must be written %23";
	if (!wrong && strstr(text, "%00"))
		wrong = "a name cannot hold a zero byte";
	if (!wrong)
		wrong = parse_authority(&parsed, zone, &uri);
	if (!wrong)
		wrong = parse_query(&parsed, &uri, text_wrong);
	if (!wrong)
		wrong = parse_path(text, &uri);
	uriFreeUriMembersA(&parsed);
	if (wrong)
		return wrong_uri(err, given, wrong);
	*ret = uri;
	return 0;
}

void weft_uri_fini(struct weft_uri *uri)
{
	free(uri->region);
	uri->region = NULL;
}

bool weft_uri_is_same_region(const struct weft_uri *a, const struct weft_uri *b)
{
	return a->scheme == b->scheme && strcasecmp(a->host, b->host) == 0 &&
		strcmp(a->port, b->port) == 0 && strcmp(a->socket, b->socket) == 0 &&
		strcmp(a->region, b->region) == 0;
}

static char *encode(char *to, const char *from)
{
	for (; *from; from++) {
		unsigned char c = (unsigned char)*from;

		if (isalnum(c) || strchr("-._~/", c))
			*to++ = (char)c;
		else
			to += sprintf(to, "%%%02X", c);
	}
	*to = '\0';
	return to;
}

/* The scheme of a URI that was not parsed: weft's own, with its host or socket. */
static const struct tp_scheme *scheme_of(const struct weft_uri *uri)
{
	enum tp_place place = uri->socket[0] ? TP_AT_SOCKET : TP_AT_HOST;

	if (uri->scheme)
		return uri->scheme;
	for (struct scheme_walk walk = {0}; next_scheme(&walk);)
		if (walk.scheme->place == place && walk.scheme->foreign == uri->foreign)
			return walk.scheme;
	return &weft_scheme;
}

char *weft_uri_format(const struct weft_uri *uri)
{
	size_t len = 64 + strlen(uri->identity) + strlen(uri->port) +
		     3 * (strlen(uri->host) + strlen(uri->region) + strlen(uri->socket));
	char *text = malloc(len);
	char *p = text;

	if (!text)
		return NULL;
	p += sprintf(p, "%s://", scheme_of(uri)->name);
	if (uri->identity[0])
		p += sprintf(p, "%s@", uri->identity);
	const char *zone = strchr(uri->host, '%');
	if (strchr(uri->host, ':'))
		p += sprintf(p, "[%.*s%s%s]", (int)strcspn(uri->host, "%"), uri->host,
			zone ? "%25" : "", zone ? zone + 1 : "");
	else
		p = encode(p, uri->host);
	if (!uri->socket[0] && uri->port[0] && strcmp(uri->port, default_port) != 0)
		p += sprintf(p, ":%s", uri->port);
	*p++ = '/';
	p = encode(p, uri->region);
	if (uri->socket[0]) {
		p += sprintf(p, "?socket=");
		encode(p, uri->socket);
	} else if (uri->transport) {
		sprintf(p, "?transport=%s", uri->transport->word);
	}
	return text;
}
