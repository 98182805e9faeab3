/* SPDX-License-Identifier: MIT */
/* Names of units at SRP targets. */
#include "transports/srp/borrower/name.h"

#include <ctype.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <stdlib.h>
#include <string.h>

enum {
	LUN_MAX = 0x3fff,
	LUN_FLAT = 0x4000, /* SAM 4.7.7.3: flat space addressing */
	LUN_PERIPHERAL_MAX = 0xff,
};

static int digit_of(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* A number up to any of ends, behind which *text is then; false: it is none of 1 to 16 digits. */
static bool take_number(const char **text, const char *ends, uint64_t *ret)
{
	const char *p = *text;
	unsigned nr = 0;
	uint64_t n = 0;

	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X'))
		p += 2;
	for (; *p && !strchr(ends, *p); p++) {
		if (*p == ':' && nr > 0)
			continue;
		if (!isxdigit((unsigned char)*p) || ++nr > 16)
			return false;
		n = n << 4 | (uint64_t)digit_of(*p);
	}
	*text = p;
	*ret = n;
	return nr > 0;
}

int srp_name_parse(const char *text, struct srp_name *ret, struct weft_error *err)
{
	struct srp_name name = {0};
	const char *p = text;

	if (!take_number(&p, "./", &name.target_ext))
		goto wrong;
	name.target_guid = name.target_ext;
	if (*p == '.') {
		p++;
		if (!take_number(&p, "/", &name.target_guid))
			goto wrong;
	}
	if (*p == '/' && p[1]) {
		size_t len = strspn(p + 1, "0123456789");

		name.number = len < 6 ? (unsigned)strtoul(p + 1, NULL, 10) : LUN_MAX + 1;
		if (p[1 + len] || name.number > LUN_MAX)
			return weft_error_set(err, EINVAL,
				"'%.100s' is no number of a unit: it is 0 to %d", p + 1, LUN_MAX);
	}
	name.lun = (uint64_t)(name.number <= LUN_PERIPHERAL_MAX ? name.number
								: LUN_FLAT | name.number) << 48;
	*ret = name;
	return 0;
wrong:
	return weft_error_set(err, EINVAL,
		"'%.100s' is no unit of an SRP target: it looks like ID_EXT, ID_EXT.IOC_GUID or "
		"ID_EXT.IOC_GUID/LUN, with hexadecimal numbers (the target's add_target line has "
		"them)",
		text);
}

uint64_t srp_name_initiator(const struct tp_target *target, uint64_t random)
{
	static const uint8_t none[WEFT_ID_BYTES];
	const uint8_t *id = target->hello.id;
	uint8_t digest[32];
	uint64_t ext;

	if (target->borrower)
		return target->borrower;
	/* The id is secret: whoever sees the extension does not know it. */
	if (memcmp(id, none, sizeof(none)) == 0 ||
		gnutls_hash_fast(GNUTLS_DIG_SHA256, id, sizeof(none), digest) < 0)
		return random;
	memcpy(&ext, digest, sizeof(ext));
	return ext;
}
