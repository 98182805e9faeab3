/* SPDX-License-Identifier: MIT */
/* Checks options of weft attach against each other.  One thread, before anything is started. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/options.h"
#include "nbd-bridge/bridge/bridge.h"
#include "nbd-bridge/main/attach-options.h"

/* Which of the regions is meant by --from. */
static int find_from(struct attach_options *o)
{
	struct weft_error err;
	struct weft_uri uri;
	unsigned i = 0;

	if (!o->from)
		return WEFT_GO_ON;
	if (weft_uri_parse(o->from, &uri, &err) < 0)
		return weft_usage_error("--from: %s", err.message);
	while (i < o->nr_donors && !weft_uri_is_same_region(&o->donors[i].uri, &uri))
		i++;
	weft_uri_fini(&uri);
	if (i == o->nr_donors)
		return weft_usage_error("--from wants one of the URIs that are attached, not '%s'",
			o->from);
	o->from_copy = i % o->copies;
	return WEFT_GO_ON;
}

static int check_spares(const struct attach_options *o)
{
	if (o->spare_after_ms && !o->nr_spares)
		return weft_usage_error("--spare-after is for --spare");
	if (o->nr_donors + o->nr_spares > BRIDGE_MAX_DONORS)
		return weft_usage_error("at most %d URIs, spares among them", BRIDGE_MAX_DONORS);
	for (unsigned i = 0; i < o->nr_spares; i++) {
		const struct attach_donor *spare = &o->spares[i];

		if (spare->uri.foreign || !spare->uri.region[0])
			return weft_usage_error("--spare wants a region of a weft donor, such as "
						"weft://HOST/REGION, not '%s'", spare->uri_text);
		for (unsigned j = 0; j < o->nr_donors; j++)
			if (weft_uri_is_same_region(&o->donors[j].uri, &spare->uri))
				return weft_usage_error("--spare %s is a copy already",
					spare->uri_text);
	}
	return WEFT_GO_ON;
}

static int check_copies(struct attach_options *o)
{
	if (o->copies == 1)
		return o->has_copy_options
			? weft_usage_error(
				  "--min-copies, --on-too-few, --from, --spare and --spare-after "
				  "are for --mirror")
			: WEFT_GO_ON;
	if (o->nr_donors % o->copies)
		return weft_usage_error("--mirror %u wants %u URIs, or a multiple of that, and not "
					"%u: each %u, one after the other, have a copy of the same",
			o->copies, o->copies, o->nr_donors, o->copies);
	if (!o->min_copies)
		o->min_copies = o->copies - 1;
	if (o->min_copies > o->copies)
		return weft_usage_error("--min-copies %u: there are no more than %u copies",
			o->min_copies, o->copies);
	if (o->donors[0].uri.foreign)
		return weft_usage_error("--mirror is for weft:// donors: another server does not "
					"note which copies are current");
	if (o->read_only || o->shared)
		return weft_usage_error("--mirror goes with neither --read-only nor --shared: who "
					"attaches copies is the one that keeps them the same");
	if (o->new_contents)
		return weft_usage_error("--mirror goes without --new-contents: to make copies of "
					"regions that have been written, name the one whose "
					"contents are kept: --from URI");
	if (o->sealed || o->cache_file)
		return weft_usage_error("--mirror goes without --%s for now",
			o->sealed ? seal_kind_name(o->sealed) : "cache-file");
	int r = check_spares(o);
	return r == WEFT_GO_ON ? find_from(o) : r;
}

static int check_donors(struct attach_options *o)
{
	for (unsigned i = 0; i < o->nr_donors; i++) {
		const struct attach_donor *d = &o->donors[i];

		if (!d->uri.foreign && d->uri.region[0] == '\0')
			return weft_usage_error(
				"name a region of the donor; to see its regions: weft list %s",
				d->uri_text);
		if (d->uri.foreign != o->donors[0].uri.foreign)
			return weft_usage_error(
				"weft:// donors and other servers are not striped together");
		for (unsigned j = 0; j < i; j++)
			if (strcmp(d->uri_text, o->donors[j].uri_text) == 0)
				return weft_usage_error("%s is there twice", d->uri_text);
	}
	if (o->nr_donors <= o->copies && o->stripe_bytes)
		return weft_usage_error("--stripe-unit is for several URIs%s",
			o->copies > 1 ? ", of which not all are copies of each other" : "");
	if (o->nr_donors > o->copies && !o->stripe_bytes)
		o->stripe_bytes = 256 << 10;
	return check_copies(o);
}

enum { SEALED_CACHE_BYTES = 64 << 20 }; /* unless --cache says otherwise */

/* Both need a cache: blocks, and an order of what is done to one. */
static int check_sealed(struct attach_options *o)
{
	o->encrypt |= o->encrypt_key != NULL;
	o->sealed = o->encrypt                 ? SEAL_ENCRYPT
		: o->verify || o->verify_key ? SEAL_VERIFY
					     : SEAL_NONE;
	if (!o->sealed)
		return WEFT_GO_ON;
	if (o->encrypt && o->verify_key)
		return weft_usage_error("--verify-key goes with --verify alone; to encrypt with a "
					"key of yours: --encrypt-key");
	o->seal_key = o->encrypt ? o->encrypt_key : o->verify_key;
	if (o->seal_key && !o->cache_file)
		return weft_usage_error(
			"--%s-key wants --cache-file PATH: what seals the contents is kept beside "
			"that, in PATH.seal, and outlives a restart of this machine with it",
			seal_kind_name(o->sealed));
	if (o->seal_key && asprintf(&o->seal_file, "%s.seal", o->cache_file) < 0)
		return weft_usage_error("out of memory");
	if (o->read_only || o->shared)
		return weft_usage_error("--%s goes with neither --read-only nor --shared: its "
					"contents begin empty, and nobody else has their key",
			seal_kind_name(o->sealed));
	if (o->cache_bytes == 0)
		o->cache_bytes = SEALED_CACHE_BYTES;
	return WEFT_GO_ON;
}

static int check_cache(const struct attach_options *o)
{
	if (o->cache_bytes == 0 && o->needs_cache)
		return weft_usage_error(
			"--cache-file, --chunk-size, --write-through, --push-interval, "
			"--pull and --record-order are for an attachment with --cache");
	if (o->cache_bytes == 0)
		return WEFT_GO_ON;
	if (o->shared)
		return weft_usage_error("--cache does not go with --shared: "
					"cached data would grow old beside a writer");
	/*
	 * The device outlives a bridge that is killed: its users would go on without the blocks
	 * that were not written back.  The cache of sealed contents outlives the bridge as well.
	 */
	if (o->device && !o->write_through && !o->read_only && !o->cache_file && !o->sealed)
		return weft_usage_error(
			"--cache with --device wants --cache-file or --write-through: "
			"the device outlives a bridge that is killed, and would silently lack "
			"what was not written back");
	if (o->cache_file && o->donors[0].uri.foreign)
		return weft_usage_error("--cache-file is for weft:// donors: "
					"another server cannot tell whether somebody wrote since");
	if (o->cache_bytes < BRIDGE_CACHE_MIN)
		return weft_usage_error("--cache wants at least %d MiB", BRIDGE_CACHE_MIN >> 20);
	if (o->chunk_bytes && o->cache_bytes / o->chunk_bytes < BRIDGE_CACHE_MIN_CHUNKS)
		return weft_usage_error(
			"--cache is too small for this --chunk-size: it has at least %d chunks",
			BRIDGE_CACHE_MIN_CHUNKS);
	return WEFT_GO_ON;
}

static int check_rights(struct attach_options *o)
{
	struct bridge_file_rights *rights = &o->rights;

	if ((rights->allow_other || o->has_owner || o->has_mode) && !o->mount)
		return weft_usage_error(
			"--allow-other, --owner and --mode are for the file of --mount");
	/*
	 * FUSE lets nobody else in, whatever the mode, so accepting the mode would be a false
	 * promise.
	 */
	if (!rights->allow_other &&
		((o->has_owner && rights->uid != geteuid()) ||
			(o->has_mode && (rights->mode & 077))))
		return weft_usage_error(
			"--owner and --mode let nobody else in without --allow-other");
	if (!o->has_mode)
		rights->mode = rights->allow_other && !o->has_owner ? 0666 : 0600;
	return WEFT_GO_ON;
}

static int check_device(const struct attach_options *o)
{
	const struct bridge_device_wish *wish = &o->device_wish;
	enum bridge_device_kind kind;
	const char *wanted = "/dev/ublkbN, /dev/nbdN";

	if (!wish->path)
		return WEFT_GO_ON;
	if (bridge_device_kind_of(wish->path, &kind) == 0 && (!wish->kind || wish->kind == kind))
		return WEFT_GO_ON;
	if (wish->kind == BRIDGE_DEVICE_UBLK)
		wanted = "/dev/ublkbN";
	if (wish->kind == BRIDGE_DEVICE_NBD)
		wanted = "/dev/nbdN";
	return weft_usage_error("--device wants %s or nothing, not '%s'", wanted, wish->path);
}

/* The kernel speaks NBD over one plain TCP connection, and nothing that weft adds to it. */
static int check_kernel_socket(struct attach_options *o)
{
	struct bridge_device_wish *wish = &o->device_wish;
	const struct weft_uri *uri = &o->donors[0].uri;
	enum bridge_device_kind kind;

	if (!wish->kernel_socket)
		return WEFT_GO_ON;
	if (!o->device || wish->kind == BRIDGE_DEVICE_UBLK ||
		(wish->path && bridge_device_kind_of(wish->path, &kind) == 0 &&
			kind != BRIDGE_DEVICE_NBD))
		return weft_usage_error("--kernel-socket is for --device of the nbd driver, "
					"/dev/nbdN: ublk's requests come to this program");
	if (o->socket || o->mount)
		return weft_usage_error("--kernel-socket goes with --device alone: what the kernel "
					"writes does not come by a --socket or --mount beside it");
	if (o->nr_donors > 1)
		return weft_usage_error("--kernel-socket is for one URI: the kernel's driver knows "
					"neither stripes nor copies");
	if (uri->foreign || uri->socket[0])
		return weft_usage_error(
			"--kernel-socket is for weft:// over TCP: %s",
			uri->foreign ? "another server gives a session no alias; the kernel's own "
				       "client is nbd-client"
				     : "a Unix socket leads to this machine, whose memory it is");
	if (o->transport && o->transport != tp_base_driver())
		return weft_usage_error("--kernel-socket is for TCP: RDMA needs no socket");
	if (o->sealed)
		return weft_usage_error("--kernel-socket goes without --%s: the kernel sends and "
					"receives the bytes as they are",
			seal_kind_name(o->sealed));
	if (o->cache_bytes)
		return weft_usage_error("--kernel-socket goes without --cache: what the kernel "
					"reads and writes does not come by it");
	if (o->key_file)
		return weft_usage_error("--kernel-socket is plaintext, and --key would encrypt: "
					"the kernel's driver keeps no keys; with --allow-insecure, "
					"and a donor with that, it works in a trusted network");
	wish->kind = BRIDGE_DEVICE_NBD;
	o->transport = tp_base_driver();
	o->nr_lanes = 1;
	return WEFT_GO_ON;
}

static int check_foreign(const struct attach_options *o)
{
	bool foreign = o->donors[0].uri.foreign;

	if (o->assume_stable && !foreign)
		return weft_usage_error("--assume-stable is for nbd:// and srp://; "
					"a weft donor says whether its contents are the same");
	if (o->new_contents && foreign && !o->sealed)
		return weft_usage_error("--new-contents is for weft:// donors; "
					"another server remembers no stripes");
	if (o->new_contents && (o->read_only || o->shared))
		return weft_usage_error(
			"--new-contents is for a writer; a reader takes the contents as they are");
	if (o->shared && foreign)
		return weft_usage_error("--shared is for weft:// donors; "
					"another server knows no readers and writers");
	return WEFT_GO_ON;
}

static int check_use(const struct attach_options *o)
{
	if (!o->socket && !o->mount && !o->device)
		return weft_usage_error(
			"tell how to use it: --device, --socket PATH, --mount FILE, "
			"or several of them");
	if (o->socket && strlen(o->socket) > 107)
		return weft_usage_error(
			"--socket %s: a socket's path has at most 107 bytes", o->socket);
	return WEFT_GO_ON;
}

/* What could wait for memory that waits for this bridge. */
static int check_swap(const struct attach_options *o)
{
	if (!o->swap)
		return WEFT_GO_ON;
	if (o->mount)
		return weft_usage_error(
			"--swap is for --device and --socket: the file of --mount goes through the "
			"page cache, and FUSE takes memory for each request");
	if (o->cache_file)
		return weft_usage_error(
			"--swap goes without --cache-file: its pages are the page cache's, whose "
			"memory may wait for this very bridge; a cache without a file is locked in "
			"memory");
	if (o->dead_timeout_ms == 0)
		return weft_usage_error(
			"--swap wants a --dead-timeout: with 0 a donor that is gone would stop "
			"this machine for ever");
	if (o->read_only || o->shared)
		return weft_usage_error("--swap goes with neither --read-only nor --shared");
	return WEFT_GO_ON;
}

int attach_options_check(struct attach_options *o)
{
	int r = check_swap(o);

	if (r == WEFT_GO_ON)
		r = check_sealed(o);
	if (r == WEFT_GO_ON)
		r = check_kernel_socket(o);
	if (r == WEFT_GO_ON)
		r = check_cache(o);
	if (r == WEFT_GO_ON)
		r = check_rights(o);
	if (r == WEFT_GO_ON)
		r = check_donors(o);
	if (r == WEFT_GO_ON)
		r = check_use(o);
	if (r == WEFT_GO_ON)
		r = check_device(o);
	return r == WEFT_GO_ON ? check_foreign(o) : r;
}
