/* SPDX-License-Identifier: MIT */
/*
 * The transport interface: how operations reach a donor.
 *
 * fabric/ owns it; transports/verbs, transports/nbd and transports/mem implement
 * it as one `struct tp_ops` each.  Callers use only the tp_*() functions below: they
 * check state, bounds and contract once, so that implementations need not.
 *
 * Threads: a `struct tp`, its registered memory and its connections belong to one
 * thread (a lane); nothing here locks.
 *
 * Ownership of an operation: the caller's until tp_post() accepts it; then it and
 * its buffer belong to the transport until its completion, which comes exactly
 * once and only from tp_progress().  A timeout fails the connection, never a lone
 * operation: the NIC could still write into a reused buffer.
 */
#ifndef WEFT_FABRIC_TRANSPORT_H
#define WEFT_FABRIC_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/hello.h"

struct weft_hashing;
struct weft_key;
struct tp;
struct tp_conn;
struct tp_op;

enum tp_op_kind {
	TP_READ,  /* region -> buf */
	TP_WRITE, /* buf -> region */
	/*
	 * all writes that completed before, on any connection of the attachment, become as durable
	 * as the region can make them
	 */
	TP_FLUSH,
	TP_TRIM,  /* advisory: contents of the range become undefined */
	TP_ZERO,  /* the range reads as zeros */
	TP_CACHE, /* advisory: the range will be read */
	/* a round trip that touches no data: liveness of donor and epoch; also the heartbeat */
	TP_PROBE,
	TP_HASH, /* hashes of the range's blocks -> buf (hashing.h) */
	TP_NR_KINDS
};

enum {
	TP_FUA = 1 << 0,       /* WRITE, ZERO, TRIM: durable before completion */
	TP_NO_HOLE = 1 << 1,   /* ZERO: leave the range allocated */
	TP_FAST_ZERO = 1 << 2, /* ZERO: -EOPNOTSUPP rather than as slow as a write */
};

/* Memory that operations may point into.  Made by tp_register(). */
struct tp_mem {
	struct tp *tp;
	void *base;
	size_t len;
	uint32_t nr_borrowed; /* operations in flight that point into it */
	/* for a caller that registers the same memory with several transports; not looked at */
	struct tp_mem *twin;
	uint64_t priv[2];     /* the transport's */
};

struct tp_op {
	/* Set by the caller. */
	uint8_t kind;  /* enum tp_op_kind */
	uint8_t flags; /* TP_FUA, … */
	/* the choke point's mark while the operation is posted; before, anything but the mark */
	uint32_t owner;
	uint64_t off;   /* bytes from the region's start; FLUSH and PROBE: 0 */
	uint64_t len;   /* bytes, see tp_post(); FLUSH and PROBE: 0 */
	/* READ and WRITE: len bytes inside mem; HASH: weft_hash_nr_blocks() hashes inside mem */
	void *buf;
	struct tp_mem *mem;
	const struct weft_hashing *hashing; /* HASH: what is asked, until completion */
	void *user; /* not looked at */
	/* Set at completion. */
	int status; /* 0 or -errno, see tp_progress() */
	/* The transport's while it owns the operation. */
	struct tp_op *next;
	uint64_t priv[4];
};

enum tp_state {
	TP_CONNECTING, /* waits for the donor's grant */
	TP_READY,      /* granted: operations are accepted */
	/* lost, refused or shut down: outstanding operations complete with the error */
	TP_FAILED,
};

/* The most that one TRIM, ZERO or CACHE may cover: what fits NBD's 32-bit length. */
#define TP_MAX_RANGE_BYTES UINT32_MAX

/* What the donor granted; valid once the state is TP_READY. */
struct tp_info {
	uint64_t size_bytes;
	bool has_epoch; /* false: a foreign NBD server, of whose contents' life nothing is known */
	uint64_t epoch; /* random, another for each life of the contents */
	/* a hash of what a foreign server's device is called; 0: it has no name */
	uint64_t identity;
	uint64_t generation; /* the hello's; 0: the hello is anonymous */
	uint32_t lease_ms;     /* 0: no lease */
	/* the same epoch may come back with older contents: a file, put back from a copy */
	bool restorable;
	bool version0;         /* the donor speaks version 0 of hello.h */
	uint64_t max_io_bytes; /* per READ or WRITE operation */
	uint32_t min_block_bytes; /* off and len are multiples of it; 1 at a weft donor */
	uint32_t preferred_block_bytes;
	uint32_t depth; /* operations in flight at most; then tp_post() says -EAGAIN */
	uint32_t rtt_us; /* what a round trip took before the grant; 0: not known */
	/* Guarantees, each a sentence. */
	bool read_only;     /* WRITE, TRIM and ZERO are refused with -EPERM. */
	/* FLUSH is carried out; if false, a completed write is as durable as it can be. */
	bool can_flush;
	bool can_fua;       /* TP_FUA is honoured. */
	bool can_trim;      /* TRIM is accepted. */
	bool can_zero;      /* ZERO is accepted. */
	bool can_fast_zero; /* TP_FAST_ZERO is accepted. */
	bool can_cache;     /* CACHE is accepted. */
	bool can_multi_conn; /* A FLUSH on one connection covers completed writes of all. */
	/* … provided that a FLUSH goes to each connection that wrote since its last one. */
	bool flush_each_conn;
	/* HASH is accepted, of so many blocks at most; 0: it is not. */
	uint32_t max_hash_blocks;
	bool can_mark;       /* HASH is accepted with questions about the mark (marking.h). */
	bool one_sided;      /* READ and WRITE cost the donor's process nothing. */
	char transport[16];  /* "tcp", "tcp+tls", "tcp+ktls", "rdma", "srp", "mem" */
	char path[160];      /* for people: "tcp 10.0.0.1:52044 -> 10.0.0.2:10809" */
	/* transports that the donor offers: "tcp", "tcp,rdma:20049"; may be "" */
	char offers[64];
	/*
	 * The place to which the region is about to move (hello.h); "": it stays.  Also after a
	 * refusal with WEFT_EMOVED or WEFT_EMOVING: the place that the donor named.
	 */
	char moving[WEFT_PLACE_MAX];
};

/* Where and as whom to connect.  Strings are copied by tp_connect(). */
struct tp_target {
	const char *host; /* name or address; a path beginning with '/' is a Unix socket */
	const char *port; /* NULL: the transport's default */
	const char *region;
	struct weft_hello hello; /* identity; hello.anonymous: a stock client */
	/*
	 * Who attaches, to a server that knows no attachments: the same number whenever this
	 * borrower does, and nobody else's; 0: there is none but hello.id.
	 */
	uint64_t borrower;
	/*
	 * Both ends prove that they have this key before anything is granted; copied by
	 * tp_connect(). NULL: nothing is proved, and the connection is in plaintext.
	 */
	const struct weft_key *key;
	/*
	 * Instead of a key: a directory with certificates, which the donor's has to fit and ours is
	 * in (struct nbd_tls_client); read by tp_connect().  NULL: there is none.
	 */
	const char *certificates;
	/*
	 * How a transport that shows no certificates itself gets a pass (fabric/key/pass.h), from
	 * the same donor: tp_get_pass() of driver.h, with this host and port.  NULL: it cannot.
	 */
	int (*get_pass)(const char *host, const char *port, const char *region,
		const char *certificates, int cancel_fd, struct weft_key *ret,
		struct weft_error *err);
	const char *pass_host, *pass_port;
	uint32_t connect_timeout_ms;
	/* how long connecting waits for the donor to answer at all; 0: as long as for the grant */
	uint32_t answer_ms;
	/*
	 * a machine that acknowledges nothing for this time is gone; 0: the transport's default,
	 * which is the longest time
	 */
	uint32_t dead_ms;
	/*
	 * The caller makes a new connection in place of one that tp_is_worn(); else a connection
	 * lasts, if with more work for the processor.
	 */
	bool renews;
};

/*
 * A transport.  The tp_*() function of the same name below is the choke point in front of each
 * function.  It has checked the call, and it keeps the fields that say so.  The function has to do
 * what the choke point's comment promises.  The choke point sets tp->ops after open(), and conn->tp
 * after connect().
 */
struct tp_ops {
	const char *name; /* "nbd", "mem", "verbs" */
	/*
	 * Operations may use any memory: reg() looks at nothing and costs nothing, whatever the
	 * length.
	 */
	bool any_memory;
	/*
	 * A donor that does not understand a hello closes the connection without an answer:
	 * -ENOTCONN.
	 */
	bool silent_refusal;
	/* connect() proves target->key, and makes the donor prove it; else it never gets one. */
	bool proves_keys;
	bool proves_certificates; /* the same of target->certificates */
	/* *ret: a zeroed struct tp, in a struct of the transport's.  Each lane has its own. */
	int (*open)(const void *config, struct tp **ret, struct weft_error *err);
	void (*close)(struct tp *tp);
	/* mem has base and len.  On failure the caller frees mem. */
	int (*reg)(struct tp *tp, struct tp_mem *mem, struct weft_error *err);
	void (*dereg)(struct tp_mem *mem);
	/*
	 * *ret: a zeroed struct tp_conn, inside a struct of the transport's, in the state
	 * TP_CONNECTING.  Fails only if it cannot begin: progress() reports a donor that refuses,
	 * or is not there.
	 */
	int (*connect)(struct tp *tp, const struct tp_target *target, struct tp_conn **ret,
		struct weft_error *err);
	/*
	 * Sets no state: after the call the choke point makes the connection TP_FAILED, with
	 * ECANCELED.
	 */
	void (*shutdown)(struct tp_conn *conn);
	void (*disconnect)(struct tp_conn *conn); /* shut down before */
	/*
	 * The state is TP_READY, depth has room for n more, and each operation keeps to the
	 * contract of tp_post().  Returns -EAGAIN, or how many were accepted, at least 1.  They are
	 * in flight until progress() hands them out, and shutdown() may keep them from being done.
	 * A transport may carry them out within this call.
	 */
	int (*post)(struct tp_conn *conn, struct tp_op *const *ops, unsigned n);
	/*
	 * Called in any state.  Makes a connection TP_READY, or fails it with tp_conn_fail().  Once
	 * the connection has failed, by this or any other call, progress() hands out every
	 * operation that is left, with tp_conn_op_status().
	 *
	 * TP_READY means that info is filled, and that the hello was looked at: read_only unless
	 * its mode is WEFT_MODE_WRITE or it is anonymous; has_epoch unless it is anonymous; a hello
	 * whose epoch, or expect, is another than the contents' has failed with ESTALE.  It also
	 * means that no session of the attachment at a lower generation can change anything any
	 * more, since the caller posts again what that session left undone.  A session that is
	 * fenced before the caller saw it ready becomes ready first, or fails with another error:
	 * during TP_CONNECTING, ESTALE is for contents alone.
	 */
	int (*progress)(struct tp_conn *conn, struct tp_op **done, unsigned max);
	/*
	 * A descriptor that can be polled in any state.  A transport that does all in post() has an
	 * eventfd that nobody writes to.
	 */
	int (*event_fd)(struct tp_conn *conn);
	/*
	 * Returns 0, not events, whenever progress() has something to do: otherwise the caller
	 * would sleep while there is work.
	 */
	int (*arm)(struct tp_conn *conn);
	bool (*is_worn)(const struct tp_conn *conn); /* the state is TP_READY; NULL: never */
};

/* The heads of the implementations' own structs. */
struct tp {
	const struct tp_ops *ops;
	uint32_t nr_mems, nr_conns; /* kept by the choke point */
};

struct tp_conn {
	struct tp *tp;
	enum tp_state state;
	int error;               /* TP_FAILED: -errno */
	struct weft_error why;   /* TP_FAILED: for people */
	struct tp_info info;     /* TP_READY and after; info.moving: TP_FAILED too */
	/* weft_boottime_ns() before the grant was asked for; kept by the choke point */
	uint64_t asked_ns;
	uint32_t nr_outstanding; /* kept by the choke point */
	/*
	 * Set by the transport: with operations in flight tp_arm() looks for completions for a
	 * little while.
	 */
	bool spins;
};

/*
 * config: the implementation's, documented with its ops; may be NULL.  Control path: may block and
 * allocate.
 */
int tp_open(const struct tp_ops *ops, const void *config, struct tp **ret, struct weft_error *err);
/* All memory deregistered and all connections closed before (asserted).  Takes NULL. */
void tp_close(struct tp *tp);

/*
 * Registers len > 0 bytes at base for buffers; every transport takes page-aligned memory.  The
 * memory stays the caller's and must outlive the registration.  -ENOMEM with the memlock limit
 * named, or what the device said.
 */
int tp_register(struct tp *tp, void *base, size_t len, struct tp_mem **ret, struct weft_error *err);
/* 0, or -EBUSY with nothing done, while operations in flight point into the memory.  Takes NULL. */
int tp_deregister(struct tp_mem *mem);

/*
 * Starts connecting; never blocks.  tp_progress() drives it on, until tp_state()
 * says TP_READY or TP_FAILED (conn->why tells the reason; -ESTALE: the contents are others, or may
 * have changed; -WEFT_EOVER, -WEFT_ESUPERSEDED: the generation is gone, -WEFT_EMOVED,
 * -WEFT_EMOVING: the region is, or may soon be, at conn->info.moving, see hello.h; -EBUSY: the
 * region is held by another attachment; -EROFS: it is read-only; -ENOENT: no such region;
 * -ECONNREFUSED, -ETIMEDOUT, -EHOSTUNREACH: no donor).  Returns 0, or -errno when it could not even
 * start; -EOPNOTSUPP: there is a key to prove, and the transport proves none.
 */
int tp_connect(struct tp *tp, const struct tp_target *target, struct tp_conn **ret,
	struct weft_error *err);

static inline enum tp_state tp_state(const struct tp_conn *conn)
{
	return conn->state;
}

/*
 * Fails the connection: every operation in flight completes through tp_progress() (with -ECANCELED
 * where it was not done yet), and no more are accepted.  Never blocks.  If nothing is in flight,
 * the transport says a clean goodbye, so that the donor frees the attachment at once.
 */
void tp_shutdown(struct tp_conn *conn);
/*
 * Frees the connection.  No operation may be outstanding (asserted): shut down and drain first.
 * Takes NULL.
 */
void tp_disconnect(struct tp_conn *conn);

/*
 * Posts up to n > 0 operations, in order.  Returns how many were accepted (a prefix, at
 * least 1), or with none accepted: -EAGAIN (full: progress first), -ENOTCONN (not
 * ready, or failed), or for the first operation
 *   -EINVAL      HASH: not weft_hashing_valid(), or more blocks than tp_info.max_hash_blocks
 *   -EINVAL      unknown kind, or a flag that the kind does not have; READ and WRITE: buffer
 *                outside mem, len of 0 or over tp_info.max_io_bytes; TRIM, ZERO, CACHE: len of 0 or
 *                over TP_MAX_RANGE_BYTES; off or len no multiple of tp_info.min_block_bytes
 *   -ENOSPC      outside the region
 *   -EPERM       changes data of a read-only grant
 *   -EOPNOTSUPP  what tp_info says it cannot do Never blocks, never allocates.  It is asserted that
 *                no operation is posted twice.
 */
int tp_post(struct tp_conn *conn, struct tp_op *const *ops, unsigned n);

/*
 * Moves the connection on and fills done[] with up to max completed operations, which are the
 * caller's again.  Returns their number.  Statuses: 0; -EIO, -ENOSPC, -EPERM, -EINVAL, -ENOMEM,
 * -EOPNOTSUPP as the donor said; -ESTALE: the epoch is gone, or this attachment was superseded or
 * lost its lease; -ENOTCONN, -ETIMEDOUT: the connection died, and nobody knows whether the
 * operation was done; -ECANCELED: tp_shutdown().
 */
int tp_progress(struct tp_conn *conn, struct tp_op **done, unsigned max);

/* The descriptor to wait on; may change when the state does. */
int tp_event_fd(struct tp_conn *conn);
/*
 * Asks for a wake-up.  Returns the poll(2) events to wait for on tp_event_fd(), or 0
 * when there is work for tp_progress() already.
 */
int tp_arm(struct tp_conn *conn);

/*
 * Whether a READY connection is to be replaced before long, although it works: another at the same
 * generation joins it, and it ends once its operations have.  One that is not replaced fails after
 * some time.  Only if target.renews.  A few system calls: not for each operation.
 */
bool tp_is_worn(const struct tp_conn *conn);

/*
 * For transports: moves the connection to TP_FAILED with the first error reported
 * (later ones are dropped).
 */
void tp_conn_fail(struct tp_conn *conn, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* For transports: the status of operations that a failed connection leaves undone. */
int tp_conn_op_status(const struct tp_conn *conn);

#endif
