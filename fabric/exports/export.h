/* SPDX-License-Identifier: MIT */
/*
 * A donor's region as an NBD export, in the transmission phase: what a server's connection
 * (fabric/nbd/server.h) does with the region that it was granted, whatever carries its bytes.  The
 * transport has the handshake, and who may be granted what is the donor's to say.
 *
 * The user of the connection (nbd_conn_user()) is its struct weft_export.
 *
 * Threads: the connection's; counters are read by any.
 */
#ifndef WEFT_FABRIC_EXPORTS_EXPORT_H
#define WEFT_FABRIC_EXPORTS_EXPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/donor/donor.h"
#include "fabric/nbd/server.h"

enum {
	/*
	 * Requests of a file region get their buffers from here, one after another, and give all
	 * back once the replies have left.  A longer request goes through the arena in pieces: so a
	 * peer that receives no replies, or never ends a payload, holds no more memory than this.
	 */
	WEFT_EXPORT_ARENA_BYTES = 256 << 10,
};

/* Written by the connection's thread alone, read by others. */
struct weft_export_counters {
	_Atomic uint64_t requests, read_bytes, written_bytes, errors;
};

struct weft_export {
	/* The transport's to set, before requests come. */
	struct weft_donor *donor;
	void *session; /* not looked at */
	struct weft_grant *grant;
	struct weft_region *region; /* the grant's */
	bool by_alias; /* granted by a session's alias: silence is no sign */
	/* Whether nobody waits any more for what the connection answers.  Costs a system call. */
	bool (*is_gone)(const struct nbd_conn *conn);
	/*
	 * What follows may take minutes, and does not touch the connection; and that is over.  For
	 * a transport whose peer would take the thread's silence for its end; NULL: it would not.
	 * 0; -ESHUTDOWN: nobody waits for it any more, and it is not begun.
	 */
	int (*waits)(struct weft_export *export, bool begins);

	struct weft_export_counters counters;
	/* Its own. */
	uint8_t *arena;
	size_t arena_used;
	unsigned arena_users;
};

/*
 * How the donor knows its peers by TLS, and they it: by its keys, and by certificates, of which
 * NULL: there are none.  As nbd_tls_server_new().
 */
int weft_export_credentials(struct weft_donor *donor, const char *certificates,
	struct nbd_tls_credentials **ret, struct weft_error *err);

/* Gives the memory back; no request is left. */
void weft_export_fini(struct weft_export *export);

/* What INFO and GO tell of the region; the strings are the region's. */
void weft_export_describe(const struct weft_region *region, bool writable, struct nbd_export *ret);
/* Now is weft_now_ns(), and the session is alive. */
void weft_export_touch(const struct weft_export *export, uint64_t now_ns);
/* Adds c to sum. */
void weft_export_add(struct weft_export_counters *sum, const struct weft_export_counters *c);

/* The functions of struct nbd_service, which say what they do. */
int weft_export_prepare(struct nbd_request *rq);
int weft_export_take(struct nbd_request *rq, uint64_t off, uint32_t len);
void weft_export_submit(struct nbd_request *rq);
void weft_export_release(struct nbd_request *rq);
void weft_export_received(struct nbd_conn *conn, uint64_t now_ns);

#endif
