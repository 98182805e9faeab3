/* SPDX-License-Identifier: MIT */
/* weft swap: what its files share.  One thread. */
#ifndef WEFT_NBD_BRIDGE_MAIN_SWAP_H
#define WEFT_NBD_BRIDGE_MAIN_SWAP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nbd-bridge/main/swap-note.h"

enum { SWAP_PRIORITY_MAX = 32767, SWAP_PRIORITY_USUAL = 10 };

struct swap_options {
	const char *action; /* "on", "off", "status" */
	/* of the command line behind the action: URIs for on, names for off and status */
	char *const *arguments;
	unsigned nr_arguments;
	bool force, json, all, dry_run;
	/* on */
	const char *name;
	uint64_t size_bytes; /* 0: the whole device */
	unsigned priority, copies; /* of each URI's contents; 1 without --mirror */
	bool has_priority, striped, new_contents, zswap, exclusive;
	const char *cgroup, *slice;
	uint64_t high_bytes, swap_max_bytes;
	/* on: weft attach's own */
	bool device;
	const char *device_path, *device_kind, *transport, *key, *encrypt_key, *cache, *cache_file;
	const char *dead_timeout, *timeout, *lanes;
	bool allow_insecure, encrypt, verify, kernel_socket;
	/* off */
	uint32_t wait_ms;
};

/* The actions: the program's exit status. */
int swap_on(const struct swap_options *o);
int swap_off(const struct swap_options *o);
int swap_status(const struct swap_options *o);

#endif
