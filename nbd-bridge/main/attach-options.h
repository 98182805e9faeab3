/* SPDX-License-Identifier: MIT */
/* The command line of weft attach. */
#ifndef WEFT_NBD_BRIDGE_MAIN_ATTACH_OPTIONS_H
#define WEFT_NBD_BRIDGE_MAIN_ATTACH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/driver.h"
#include "fabric/hello.h"
#include "fabric/uri.h"
#include "nbd-bridge/bridge/bridge.h"
#include "nbd-bridge/cache/seal.h"
#include "nbd-bridge/device/device-kind.h"
#include "nbd-bridge/front/front.h"

struct attach_donor {
	struct weft_uri uri;
	char *uri_text; /* canonical */
};

struct attach_options {
	struct attach_donor donors[BRIDGE_MAX_DONORS];
	unsigned nr_donors;
	char *uri_text; /* of all donors, with spaces between */
	char *again;    /* the command line as given, for a shell; NULL: it is too long */
	uint64_t stripe_bytes;
	/* each so many URIs, one after the other, are copies of the same; 1: there are none */
	unsigned copies, min_copies;
	const char *from; /* a URI as given; NULL: none */
	unsigned from_copy; /* which of the copies that is, from 0 */
	bool fails_on_too_few;
	struct attach_donor spares[BRIDGE_MAX_DONORS];
	unsigned nr_spares;
	uint32_t spare_after_ms;
	bool has_copy_options; /* an option was given that is for copies */
	bool new_contents;
	char *socket, *mount; /* absolute; NULL: none */
	struct bridge_file_rights rights; /* of the mount's file */
	bool has_owner, has_mode;
	bool device;
	struct bridge_device_wish device_wish;
	char name[WEFT_NAME_MAX + 1];
	unsigned nr_lanes;
	bool read_only, shared, assume_stable, foreground;
	const struct tp_driver *transport; /* NULL: auto */
	char *key_file;      /* absolute; NULL: where keys are usually */
	bool allow_insecure; /* no key */
	uint32_t timeout_ms, dead_timeout_ms;
	bool waits;       /* for the donor to appear */
	uint32_t wait_ms; /* 0: for ever */
	/* A managed attachment. */
	bool needs_cache;     /* an option was given that needs a cache */
	uint64_t cache_bytes; /* 0: direct */
	char *cache_file;     /* absolute; NULL: in memory */
	uint32_t chunk_bytes; /* 0: chosen to fit the path */
	uint32_t push_interval_ms;
	bool write_through, pull;
	bool verify, encrypt;
	enum seal_kind sealed; /* what of those two is meant */
	char *verify_key, *encrypt_key; /* absolute; NULL: the key is random */
	const char *seal_key;           /* one of them */
	char *seal_file; /* beside the cache file; NULL: the contents end with the attachment */
	unsigned pull_workers;
	uint64_t pull_rate; /* 0: no limit */
	char *pull_order, *record_order; /* absolute; NULL: none */
	bool swap; /* memory waits for it: attach-swap.c */
};

/* WEFT_GO_ON (fabric/base/options.h), or the exit status; everything has been said then. */
int attach_options_parse(int argc, char **argv, struct attach_options *ret);
/*
 * Where the copies of a pool's lease are: texts that the caller frees.  WEFT_GO_ON, or
 * the exit status, after saying why.
 */
int attach_pool_find(const char *name, char *uris[BRIDGE_MAX_DONORS], unsigned *ret_nr);
/* The part that checks options against each other; returns the same. */
int attach_options_check(struct attach_options *o);

#endif
