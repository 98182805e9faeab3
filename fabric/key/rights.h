/* SPDX-License-Identifier: MIT */
/*
 * The rights that a donor's owner grants to the holder of a key, under either of its two
 * identities.  Pure but for memory; any thread.
 */
#ifndef WEFT_FABRIC_KEY_RIGHTS_H
#define WEFT_FABRIC_KEY_RIGHTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "fabric/base/error.h"
#include "fabric/key/key.h"

/* A range of addresses: an IPv4 range holds no IPv6 address, and the other way round. */
struct weft_range {
	int family; /* AF_INET, AF_INET6 */
	uint8_t address[16];
	unsigned bits;
};

struct weft_rights {
	char name[WEFT_KEY_NAME_MAX + 1];
	/*
	 * Of the key that was asked for: another number for each secret that there ever was under
	 * this identity, since the store was opened.  A session that proved a key is over when the
	 * number has changed.
	 */
	uint64_t life;
	char **regions; /* names; none: all regions */
	size_t nr_regions;
	struct weft_range *from; /* none: from anywhere */
	size_t nr_from;
	bool read_only;
	bool admin;            /* may ask for what changes the donor */
	bool pool_donor;       /* may join a pool as a donor of this name */
	bool rdma_plaintext;   /* may use RDMA, whose payload is in plaintext */
	uint64_t max_bytes;    /* of all regions that it holds at a time; 0: no limit */
	unsigned max_sessions; /* at a time; 0: no limit */
	int64_t expires;       /* seconds of CLOCK_REALTIME; 0: never */
};

/*
 * Reads the rights from the object of one name in grants.json.  An unknown field may be a limit, so
 * it is refused.  *ret needs weft_rights_fini() after success; its name and life are "" and 0.  0,
 * -EINVAL (err names the field), or -ENOMEM.
 */
int weft_rights_load(const json_t *json, struct weft_rights *ret, struct weft_error *err);
/* The inverse; what is not limited is absent.  NULL: no memory. */
json_t *weft_rights_json(const struct weft_rights *rights);
void weft_rights_fini(struct weft_rights *rights);

/* Whether the region of this name is among those granted. */
bool weft_rights_have_region(const struct weft_rights *rights, const char *region);
/* Whether a peer at this address may come; one without an IP address only if any may. */
bool weft_rights_have_address(const struct weft_rights *rights, const struct sockaddr *address);

/* "192.0.2.0/24", or an address alone.  0, or -EINVAL. */
int weft_range_parse(const char *text, struct weft_range *ret);
enum { WEFT_RANGE_TEXT_MAX = 64 };
/* Into ret of WEFT_RANGE_TEXT_MAX; returns ret. */
char *weft_range_format(const struct weft_range *range, char *ret);

/* "2027-01-31T12:00:00Z"; or "2027-01-31", whose beginning is meant.  0, or -EINVAL. */
int weft_date_parse(const char *text, int64_t *ret);
enum { WEFT_DATE_TEXT_MAX = 40 };
/* Into ret of WEFT_DATE_TEXT_MAX; returns ret. */
char *weft_date_format(int64_t seconds, char *ret);

#endif
