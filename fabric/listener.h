/* SPDX-License-Identifier: MIT */
/*
 * A transport's listener: the donor's side of the transport, which serves the donor's regions to
 * borrowers that connect.
 *
 * A transport implements `struct weft_listener_ops`; its own struct has a `struct weft_listener`.
 *
 * Threads: the thread of the loop; weft_listener_status() any.
 */
#ifndef WEFT_FABRIC_LISTENER_H
#define WEFT_FABRIC_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/donor/strangers.h"
#include "fabric/listen.h"

struct weft_donor;
struct weft_loop;
struct weft_listener;

/* The donor and the loop outlive the listener; only weft_listener_new() looks at the rest. */
struct weft_listener_config {
	struct weft_donor *donor;
	struct weft_loop *loop;
	/*
	 * Where the donor listens: the base transport takes the descriptors over, others may listen
	 * at the same addresses.
	 */
	const struct weft_listening *sockets;
	unsigned nr_sockets;
	/*
	 * A directory with the certificates by which a transport with TLS knows its peers, and they
	 * the donor (fabric/nbd/tls.h); NULL: there are none.
	 */
	const char *tls_certificates;
};

struct weft_listener_status {
	char place[280]; /* "10.0.0.1:10809"; "": at the donor's sockets */
	uint64_t connections;       /* now */
	uint64_t accepted, refused; /* since the start */
	struct weft_strangers_status strangers;
	/*
	 * Since the start, of operations that are requests to the donor (one-sided ones are not).
	 */
	uint64_t requests, read_bytes, written_bytes, errors;
	/* Of a transport of SCSI: commands that ended with sense data, by its key. */
	bool has_sense;
	uint64_t sense[16];
};

/* The functions below, for one transport. */
struct weft_listener_ops {
	int (*new)(const struct weft_listener_config *config, struct weft_listener **ret,
		struct weft_error *err);
	/*
	 * Whether this transport was asked for by name: a donor that cannot serve it does not start
	 * then.  NULL: it never is, and serves where it can.
	 */
	bool (*is_wanted)(void);
	void (*offers)(const struct weft_listener *listener, char *buf, size_t len);
	void (*status)(struct weft_listener *listener, struct weft_listener_status *ret);
	void (*stop)(struct weft_listener *listener);
	int (*drain)(struct weft_listener *listener, uint32_t timeout_ms);
	void (*free)(struct weft_listener *listener);
	/*
	 * What a user of programs without weft writes to have a region, with these contents: "echo
	 * … >/sys/…".  NULL: the transport needs no such line.
	 */
	void (*region_line)(struct weft_listener *listener, const char *region, uint64_t epoch,
		uint64_t tenure, char *buf, size_t len);
};

struct weft_listener {
	const struct weft_listener_ops *ops; /* set by weft_listener_new() */
};

/*
 * Listens, and serves from now on.  0; -ENODEV: this transport can serve none of the addresses,
 * which is no error unless it is wanted; or another -errno, and err says why.
 */
int weft_listener_new(const struct weft_listener_ops *ops,
	const struct weft_listener_config *config, struct weft_listener **ret,
	struct weft_error *err);

/* Whether a donor that cannot serve this transport must not start. */
bool weft_listener_is_wanted(const struct weft_listener_ops *ops);

/*
 * What a donor offers over this listener (struct tp_offer), into buf: one offer, or several with
 * commas between, as far as they fit.
 */
void weft_listener_offers(const struct weft_listener *listener, char *buf, size_t len);
void weft_listener_status(struct weft_listener *listener, struct weft_listener_status *ret);

/*
 * Accepts no more, and ends the connections: requests that were received are carried out and
 * answered.  Returns at once.
 */
void weft_listener_stop(struct weft_listener *listener);
/*
 * After weft_listener_stop(): waits up to timeout_ms for the connections to end, and a little
 * longer if one has to be cut off.  0, or -ETIMEDOUT: a connection is busy in a region, or a driver
 * keeps it.  It ends by itself; the listener must not be freed before.
 */
int weft_listener_drain(struct weft_listener *listener, uint32_t timeout_ms);
/* All connections ended before (asserted).  Takes NULL. */
void weft_listener_free(struct weft_listener *listener);

#endif
