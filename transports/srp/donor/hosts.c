/* SPDX-License-Identifier: MIT */
/* Hosts, as the command line names them. */
#include "transports/srp/donor/hosts.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "fabric/base/util.h"

/* nr bytes of hex digits; colons: one may stand behind each four digits. */
static bool parse_hex(const char *text, size_t len, bool colons, uint8_t *ret, size_t nr)
{
	size_t digits = 0;

	for (size_t i = 0; i < len; i++) {
		if (colons && text[i] == ':' && digits > 0 && digits % 4 == 0 &&
			text[i - 1] != ':' && i + 1 < len)
			continue;
		if (!isxdigit((unsigned char)text[i]) || digits == 2 * nr)
			return false;
		int c = tolower((unsigned char)text[i]);
		uint8_t value = (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
		ret[digits / 2] = digits % 2 ? ret[digits / 2] | value : (uint8_t)(value << 4);
		digits++;
	}
	return digits == 2 * nr;
}

static bool parse_id(const char *text, size_t len, struct srp_host_id *ret)
{
	char address[WEFT_RANGE_TEXT_MAX];

	*ret = (struct srp_host_id){.kind = SRP_ID_PORT};
	if (parse_hex(text, len, false, ret->port, SRP_PORT_BYTES))
		return true;
	ret->kind = SRP_ID_GUID;
	if (parse_hex(text, len, true, ret->port + SRP_PORT_BYTES / 2, SRP_PORT_BYTES / 2))
		return true;
	ret->kind = SRP_ID_ADDRESS;
	if (len >= sizeof(address))
		return false;
	memcpy(address, text, len);
	address[len] = '\0';
	return weft_range_parse(address, &ret->range) == 0;
}

static bool is_name(const char *text, size_t len)
{
	if (len == 0 || len > SRP_HOST_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("._-", text[i]))
			return false;
	return true;
}

int srp_hosts_parse(struct srp_hosts *hosts, const char *text)
{
	struct srp_host host = {0};
	const char *equals = strchr(text, '=');

	if (!equals || !is_name(text, (size_t)(equals - text)))
		return -EINVAL;
	if (hosts->nr == SRP_HOSTS_MAX)
		return -E2BIG;
	memcpy(host.name, text, (size_t)(equals - text));
	for (unsigned i = 0; i < hosts->nr; i++)
		if (strcmp(hosts->host[i].name, host.name) == 0)
			return -EINVAL;
	for (const char *at = equals + 1;; at++) {
		size_t len = strcspn(at, ",");

		if (len == 2 && strncmp(at, "ro", 2) == 0 && at[len] == '\0') {
			host.read_only = true;
		} else {
			if (host.nr_ids == SRP_HOST_IDS_MAX)
				return -E2BIG;
			if (!parse_id(at, len, &host.ids[host.nr_ids++]))
				return -EINVAL;
		}
		at += len;
		if (!*at)
			break;
	}
	if (host.nr_ids == 0)
		return -EINVAL;
	hosts->host[hosts->nr++] = host;
	return 0;
}

static bool is(const struct srp_host_id *id, const uint8_t initiator[SRP_PORT_BYTES],
	const struct sockaddr *address)
{
	enum { HALF = SRP_PORT_BYTES / 2 };
	struct weft_range range = id->range;
	const struct weft_rights rights = {.from = &range, .nr_from = 1};

	if (id->kind == SRP_ID_ADDRESS)
		return weft_rights_have_address(&rights, address);
	if (id->kind == SRP_ID_GUID)
		return memcmp(id->port + HALF, initiator + HALF, HALF) == 0;
	return memcmp(id->port, initiator, SRP_PORT_BYTES) == 0;
}

const struct srp_host *srp_hosts_find(const struct srp_hosts *hosts,
	const uint8_t initiator[SRP_PORT_BYTES], const struct sockaddr *address)
{
	for (unsigned i = 0; i < hosts->nr; i++)
		for (unsigned k = 0; k < hosts->host[i].nr_ids; k++)
			if (is(&hosts->host[i].ids[k], initiator, address))
				return &hosts->host[i];
	return NULL;
}
