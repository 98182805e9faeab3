/*
 * URIs of regions, through uriparser.  No state, any thread.
 * What a URI has and we do not understand is refused, never ignored: it may have been meant to protect something.
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

enum { REGION_MAX = 4096, URI_TEXT_MAX = 16384 };

static const char *const default_port = "10809";

static const struct {
	const char *name;
	bool foreign, is_unix;
} schemes[] = {
	{"weft", false, false},
	{"nbd", true, false},
	{"weft+unix", false, true},
	{"nbd+unix", true, true},
};

static const char *const transports[] = {
	[WEFT_TRANSPORT_AUTO] = "auto",
	[WEFT_TRANSPORT_RDMA] = "rdma",
	[WEFT_TRANSPORT_TCP] = "tcp",
};

int weft_transport_choice_parse(const char *text, enum weft_transport_choice *ret)
{
	for (size_t i = 0; i < WEFT_ARRAY_LEN(transports); i++) {
		if (strcmp(text, transports[i]) == 0) {
			*ret = (enum weft_transport_choice)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* The way out, for an error: the form of URI that was meant. */
static int wrong_uri(struct weft_error *err, const char *text, const char *wrong)
{
	const char *looks_like = "a region's URI looks like weft://192.0.2.7/scratch";
	size_t scheme_len = strcspn(text, ":/");
	bool known = false;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(schemes); i++) {
		if (strlen(schemes[i].name) != scheme_len || strncasecmp(text, schemes[i].name, scheme_len) != 0)
			continue;
		known = true;
		if (schemes[i].is_unix)
			looks_like = schemes[i].foreign ? "it looks like nbd+unix:///export?socket=/run/server.sock"
							: "it looks like weft+unix:///scratch?socket=/run/donor.sock";
		else if (schemes[i].foreign)
			looks_like = "it looks like nbd://192.0.2.7/export";
	}
	if (!known && text[0] && text[0] != '/' && strchr(text, '/') && !strstr(text, "//"))
		return weft_error_set(err, EINVAL, "cannot use '%.200s': it begins with no scheme; is it weft://%.200s?",
			text, text);
	return weft_error_set(err, EINVAL, "cannot use '%.200s': %s; %s", text, wrong, looks_like);
}

static int hex_value(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* Percent-decodes into buf.  -ENAMETOOLONG, or -EINVAL for an encoded NUL.  The parser has checked the digits. */
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

static const char *parse_scheme(const UriUriA *parsed, struct weft_uri *uri, bool *ret_unix)
{
	size_t len = range_len(&parsed->scheme);

	for (size_t i = 0; i < WEFT_ARRAY_LEN(schemes); i++) {
		if (strlen(schemes[i].name) == len &&
			strncasecmp(schemes[i].name, parsed->scheme.first, len) == 0) {
			uri->foreign = schemes[i].foreign;
			*ret_unix = schemes[i].is_unix;
			return NULL;
		}
	}
	if (len == 0)
		return "no scheme";
	return "its scheme is none of weft, nbd, weft+unix, nbd+unix";
}

/*
 * Takes the zone out of "[fe80::1%25eth0]" (RFC 6874) or "[fe80::1%eth0]" (as everything else writes it), as the parser knows
 * neither.  zone: "" without one.
 */
static const char *cut_zone(char *text, char zone[IF_NAMESIZE])
{
	char *authority = strstr(text, "//"), *open = authority ? authority + 2 : NULL;
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

static const char *parse_authority(const UriUriA *parsed, const char *zone, struct weft_uri *uri, bool is_unix)
{
	size_t port_len = range_len(&parsed->portText), len;

	if (!parsed->hostText.first)
		return "no host";
	if (parsed->userInfo.first)
		return "a user name means nothing here";
	if (parsed->hostData.ipFuture.first)
		return "unknown form of address";
	if (is_unix) {
		if (range_len(&parsed->hostText) > 0 || parsed->portText.first)
			return "a Unix socket has no host, so that there are three slashes";
		return NULL;
	}
	if (decode(parsed->hostText.first, parsed->hostText.afterLast, uri->host, sizeof(uri->host)) < 0)
		return "its host is not valid";
	if (uri->host[0] == '\0')
		return "no host";
	/* A path here would be taken for a Unix socket further on. */
	for (const char *p = uri->host; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr(parsed->hostData.ip6 ? ".:" : ".-_", *p) &&
			(unsigned char)*p < 0x80)
			return "its host is not valid";
	len = strlen(uri->host);
	if (*zone)
		snprintf(uri->host + len, sizeof(uri->host) - len, "%%%s", zone);
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

static const char *parse_query(const UriUriA *parsed, struct weft_uri *uri, bool is_unix)
{
	UriQueryListA *list = NULL;
	const char *wrong = NULL;
	bool has_transport = false;
	int nr;

	if (parsed->query.first &&
		uriDissectQueryMallocExA(&list, &nr, parsed->query.first, parsed->query.afterLast,
			URI_FALSE, URI_BR_DONT_TOUCH) != URI_SUCCESS)
		return "what follows '?' is not valid";
	for (UriQueryListA *q = list; q && !wrong; q = q->next) {
		const char *value = q->value ? q->value : "";

		if (strcmp(q->key, "socket") == 0 && is_unix) {
			if (uri->socket[0])
				wrong = "socket= is there twice";
			else if (value[0] != '/')
				wrong = "socket= needs an absolute path";
			else if (strlen(value) >= sizeof(uri->socket))
				wrong = "socket= is over 107 bytes, more than a socket's address holds";
			else
				memcpy(uri->socket, value, strlen(value) + 1);
		} else if (strcmp(q->key, "transport") == 0 && !uri->foreign && !is_unix) {
			if (has_transport)
				wrong = "transport= is there twice";
			else if (weft_transport_choice_parse(value, &uri->transport) < 0)
				wrong = "transport= is none of auto, rdma, tcp";
			has_transport = true;
		} else {
			wrong = "what follows '?' is unknown; with weft:// it may be transport=auto|rdma|tcp, "
				"with +unix:// it must be socket=PATH";
		}
	}
	if (list)
		uriFreeQueryListA(list);
	if (!wrong && is_unix && !uri->socket[0])
		wrong = "no socket=PATH";
	return wrong;
}

/* text has a valid scheme and authority.  The path is cut from the text: the parser's empty segments point elsewhere. */
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
	char zone[IF_NAMESIZE];
	bool is_unix = false;
	UriUriA parsed;

	if (strlen(text) > URI_TEXT_MAX)
		return weft_error_set(err, EINVAL, "cannot use the URI: it is over %d bytes", URI_TEXT_MAX);
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
	wrong = parse_scheme(&parsed, &uri, &is_unix);
	if (!wrong && parsed.fragment.first)
		wrong = "'#' must be written %23";
	if (!wrong && strstr(text, "%00"))
		wrong = "a name cannot hold a zero byte";
	if (!wrong)
		wrong = parse_authority(&parsed, zone, &uri, is_unix);
	if (!wrong)
		wrong = parse_query(&parsed, &uri, is_unix);
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

char *weft_uri_format(const struct weft_uri *uri)
{
	size_t len = 64 + 3 * (strlen(uri->host) + strlen(uri->region) + strlen(uri->socket)) +
		     strlen(uri->port);
	char *text = malloc(len);
	char *p = text;

	if (!text)
		return NULL;
	p += sprintf(p, "%s%s://", uri->foreign ? "nbd" : "weft", uri->socket[0] ? "+unix" : "");
	const char *zone = strchr(uri->host, '%');
	if (strchr(uri->host, ':'))
		p += sprintf(p, "[%.*s%s%s]", (int)strcspn(uri->host, "%"), uri->host, zone ? "%25" : "",
			zone ? zone + 1 : "");
	else
		p = encode(p, uri->host);
	if (!uri->socket[0] && strcmp(uri->port, default_port) != 0)
		p += sprintf(p, ":%s", uri->port);
	*p++ = '/';
	p = encode(p, uri->region);
	if (uri->socket[0]) {
		p += sprintf(p, "?socket=");
		encode(p, uri->socket);
	} else if (uri->transport != WEFT_TRANSPORT_AUTO) {
		sprintf(p, "?transport=%s", transports[uri->transport]);
	}
	return text;
}
