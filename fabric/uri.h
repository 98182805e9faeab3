/* SPDX-License-Identifier: MIT */
/*
 * weft://[IDENTITY@]HOST[:PORT]/REGION[?transport=auto|rdma|quic|tcp], and the schemes that
 * transports bring:
 * nbd://HOST[:PORT]/EXPORT for a foreign server, weft+unix:///REGION?socket=PATH,
 * nbd+unix:///EXPORT?socket=PATH (the NBD project's doc/uri.md).  An IPv6 address may have a zone,
 * as %25eth0 (RFC 6874) or %eth0.  RFC 3986 through uriparser.  No state, any thread.
 */
#ifndef WEFT_FABRIC_URI_H
#define WEFT_FABRIC_URI_H

#include <stdbool.h>

#include "fabric/base/error.h"
#include "fabric/key/key.h"

struct tp_driver;
struct tp_scheme;

struct weft_uri {
	/* which of the borrower's keys is meant (fabric/key/find.h); "": it is not said */
	char identity[WEFT_IDENTITY_MAX + 1];
	/* name or address, with its zone, without brackets: "fe80::1%eth0"; "" with a socket */
	char host[256];
	char port[8];      /* decimal; "10809" if not given */
	char socket[108];  /* "" without one */
	char *region;      /* percent-decoded; "" for the default */
	bool foreign;      /* nbd://: the server is not a weft donor */
	/* Rows of the table in driver.h. */
	/* never NULL after parsing; in other structs NULL means weft:// or weft+unix:// */
	const struct tp_scheme *scheme;
	const struct tp_driver *driver;    /* the scheme's only transport; NULL: weft:// has none */
	const struct tp_driver *transport; /* ?transport=; NULL: auto */
};

/*
 * 0, or -EINVAL with what is wrong and an example of what is right.  weft_uri_fini() after success.
 */
int weft_uri_parse(const char *text, struct weft_uri *ret, struct weft_error *err);
void weft_uri_fini(struct weft_uri *uri);
/* Whether both lead to the same region, with whatever key and over whatever transport. */
bool weft_uri_is_same_region(const struct weft_uri *a, const struct weft_uri *b);
/* The canonical text, allocated; NULL without memory.  Percent-encodes the region. */
char *weft_uri_format(const struct weft_uri *uri);

#endif
