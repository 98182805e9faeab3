/* SPDX-License-Identifier: MIT */
/* The rights of a key: their JSON, and questions that a donor asks. */
#include "fabric/key/rights.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fabric/base/util.h"

/* ---- addresses ---- */

int weft_range_parse(const char *text, struct weft_range *ret)
{
	char address[INET6_ADDRSTRLEN];
	size_t len = strcspn(text, "/");
	struct weft_range range = {.family = strchr(text, ':') ? AF_INET6 : AF_INET};
	unsigned most = range.family == AF_INET6 ? 128 : 32;

	if (len >= sizeof(address))
		return -EINVAL;
	memcpy(address, text, len);
	address[len] = '\0';
	if (inet_pton(range.family, address, range.address) != 1)
		return -EINVAL;
	range.bits = most;
	if (text[len] == '/') {
		const char *bits = text + len + 1;

		if (!bits[0] || strlen(bits) > 3 || strspn(bits, "0123456789") != strlen(bits))
			return -EINVAL;
		range.bits = (unsigned)strtoul(bits, NULL, 10);
		if (range.bits > most)
			return -EINVAL;
	}
	*ret = range;
	return 0;
}

char *weft_range_format(const struct weft_range *range, char *ret)
{
	inet_ntop(range->family, range->address, ret, INET6_ADDRSTRLEN);
	sprintf(ret + strlen(ret), "/%u", range->bits);
	return ret;
}

static bool is_within(const struct weft_range *range, int family, const uint8_t *address)
{
	unsigned bytes = range->bits / 8, rest = range->bits % 8;
	uint8_t mask = (uint8_t)(0xff00 >> rest);

	return range->family == family && memcmp(range->address, address, bytes) == 0 &&
		(rest == 0 || ((range->address[bytes] ^ address[bytes]) & mask) == 0);
}

bool weft_rights_have_address(const struct weft_rights *rights, const struct sockaddr *address)
{
	const struct in6_addr *six = &((const struct sockaddr_in6 *)address)->sin6_addr;
	const uint8_t *bytes;
	int family = address->sa_family;

	if (rights->nr_from == 0)
		return true;
	if (family == AF_INET) {
		bytes = (const uint8_t *)&((const struct sockaddr_in *)address)->sin_addr;
	} else if (family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(six)) {
		family = AF_INET;
		bytes = six->s6_addr + 12;
	} else if (family == AF_INET6) {
		bytes = six->s6_addr;
	} else {
		return false;
	}
	for (size_t i = 0; i < rights->nr_from; i++)
		if (is_within(&rights->from[i], family, bytes))
			return true;
	return false;
}

bool weft_rights_have_region(const struct weft_rights *rights, const char *region)
{
	for (size_t i = 0; i < rights->nr_regions; i++)
		if (strcmp(rights->regions[i], region) == 0)
			return true;
	return rights->nr_regions == 0;
}

/* ---- dates ---- */

int weft_date_parse(const char *text, int64_t *ret)
{
	static const char *const forms[] = {"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(forms); i++) {
		struct tm tm = {0}, was;
		const char *end = strptime(text, forms[i], &tm);

		if (!end || *end)
			continue;
		was = tm;
		time_t seconds = timegm(&tm);
		/* There is no 31st of February. */
		if (seconds <= 0 || tm.tm_mday != was.tm_mday)
			return -EINVAL;
		*ret = seconds;
		return 0;
	}
	return -EINVAL;
}

char *weft_date_format(int64_t seconds, char *ret)
{
	time_t time = (time_t)seconds;
	struct tm tm;

	ret[0] = '\0';
	if (gmtime_r(&time, &tm))
		strftime(ret, WEFT_DATE_TEXT_MAX, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return ret;
}

/* ---- JSON ---- */

void weft_rights_fini(struct weft_rights *rights)
{
	for (size_t i = 0; i < rights->nr_regions; i++)
		free(rights->regions[i]);
	free(rights->regions);
	free(rights->from);
	rights->regions = NULL;
	rights->from = NULL;
	rights->nr_regions = rights->nr_from = 0;
}

static int load_regions(const json_t *list, struct weft_rights *ret)
{
	const json_t *one;
	size_t i;

	if (json_array_size(list) == 0) /* which would mean all of them */
		return -EINVAL;
	ret->regions = calloc(json_array_size(list), sizeof(*ret->regions));
	if (!ret->regions)
		return -ENOMEM;
	json_array_foreach(list, i, one) {
		if (!json_is_string(one))
			return -EINVAL;
		ret->regions[i] = strdup(json_string_value(one));
		if (!ret->regions[i])
			return -ENOMEM;
		ret->nr_regions++;
	}
	return 0;
}

static int load_from(const json_t *list, struct weft_rights *ret)
{
	const json_t *one;
	size_t i;

	if (json_array_size(list) == 0)
		return -EINVAL;
	ret->from = calloc(json_array_size(list), sizeof(*ret->from));
	if (!ret->from)
		return -ENOMEM;
	json_array_foreach(list, i, one) {
		if (!json_is_string(one) ||
			weft_range_parse(json_string_value(one), &ret->from[i]) < 0)
			return -EINVAL;
		ret->nr_from++;
	}
	return 0;
}

static int load_number(const json_t *value, uint64_t most, uint64_t *ret)
{
	json_int_t number = json_integer_value(value);

	if (!json_is_integer(value) || number <= 0 || (uint64_t)number > most)
		return -EINVAL;
	*ret = (uint64_t)number;
	return 0;
}

static int load_flag(const json_t *value, bool *ret)
{
	if (!json_is_boolean(value))
		return -EINVAL;
	*ret = json_is_true(value);
	return 0;
}

static int load_field(const char *field, const json_t *value, struct weft_rights *ret)
{
	uint64_t number = 0;
	int r;

	if (strcmp(field, "regions") == 0)
		return load_regions(value, ret);
	if (strcmp(field, "from") == 0)
		return load_from(value, ret);
	if (strcmp(field, "read_only") == 0)
		return load_flag(value, &ret->read_only);
	if (strcmp(field, "admin") == 0)
		return load_flag(value, &ret->admin);
	if (strcmp(field, "pool_donor") == 0)
		return load_flag(value, &ret->pool_donor);
	if (strcmp(field, "rdma_plaintext") == 0)
		return load_flag(value, &ret->rdma_plaintext);
	if (strcmp(field, "max_bytes") == 0)
		return load_number(value, INT64_MAX, &ret->max_bytes);
	if (strcmp(field, "max_sessions") == 0) {
		r = load_number(value, INT32_MAX, &number);
		ret->max_sessions = (unsigned)number;
		return r;
	}
	if (strcmp(field, "expires") == 0)
		return json_is_string(value)
			? weft_date_parse(json_string_value(value), &ret->expires)
			: -EINVAL;
	return -EOPNOTSUPP;
}

int weft_rights_load(const json_t *json, struct weft_rights *ret, struct weft_error *err)
{
	struct weft_rights rights = {0};
	const char *field;
	json_t *value;
	int r = json_is_object(json) ? 0 : weft_error_set(err, EINVAL, "it is no object of fields");

	json_object_foreach((json_t *)json, field, value) {
		r = load_field(field, value, &rights);
		if (r == -ENOMEM)
			weft_error_set(err, ENOMEM, "no memory");
		else if (r == -EOPNOTSUPP)
			r = weft_error_set(err, EINVAL,
				"the field '%.64s' is unknown, and may be a limit", field);
		else if (r < 0)
			weft_error_set(err, EINVAL, "the field '%s' has no such value", field);
		if (r < 0)
			break;
	}
	if (r < 0) {
		weft_rights_fini(&rights);
		return r;
	}
	*ret = rights;
	return 0;
}

/* Whether it is in the object: a failure to make the value is one too. */
static bool put(json_t *json, const char *field, json_t *value)
{
	return json_object_set_new(json, field, value) == 0;
}

json_t *weft_rights_json(const struct weft_rights *rights)
{
	json_t *json = json_object(), *list;
	char date[WEFT_DATE_TEXT_MAX], range[WEFT_RANGE_TEXT_MAX];
	bool ok = json != NULL;

	if (rights->nr_regions > 0) {
		ok = ok && put(json, "regions", list = json_array());
		for (size_t i = 0; ok && i < rights->nr_regions; i++)
			ok = json_array_append_new(list, json_string(rights->regions[i])) == 0;
	}
	if (rights->nr_from > 0) {
		ok = ok && put(json, "from", list = json_array());
		for (size_t i = 0; ok && i < rights->nr_from; i++)
			ok = json_array_append_new(list,
				     json_string(weft_range_format(&rights->from[i], range))) == 0;
	}
	if (rights->read_only)
		ok = ok && put(json, "read_only", json_true());
	if (rights->admin)
		ok = ok && put(json, "admin", json_true());
	if (rights->pool_donor)
		ok = ok && put(json, "pool_donor", json_true());
	if (rights->rdma_plaintext)
		ok = ok && put(json, "rdma_plaintext", json_true());
	if (rights->max_bytes > 0)
		ok = ok && put(json, "max_bytes", json_integer((json_int_t)rights->max_bytes));
	if (rights->max_sessions > 0)
		ok = ok && put(json, "max_sessions", json_integer(rights->max_sessions));
	if (rights->expires > 0)
		ok = ok &&
			put(json, "expires", json_string(weft_date_format(rights->expires, date)));
	if (ok)
		return json;
	json_decref(json);
	return NULL;
}
