/* SPDX-License-Identifier: MIT */
/*
 * The messages of the verbs transport: all of its byte order is in proto*.c.
 *
 * A session is two connections of rdma_cm.  The first, "control", lives in a protection domain of
 * its own that holds message buffers and nothing else; on it the borrower says hello and the donor
 * grants.  The grant names memory keys and a token that is good once.  With the token the borrower
 * opens the second connection, "data", for one-sided READ and WRITE.  The donor accepts it into the
 * protection domain of the attachment's generation.
 *
 *     borrower                                     donor
 *     REQ (private data: control)        ->
 *                                        <-        REP
 *     START                              ->                  (with a key alone)
 *                                        <-        CHALLENGE (the same)
 *     HELLO                              ->
 *                                        <-        WAIT …   (memory is being registered)
 *                                        <-        GRANT, or REFUSE
 *     GET_CHUNKS                         ->
 *                                        <-        CHUNKS   (until all are known)
 *     REQ (private data: data, token)    ->                  (with a key: proved, MAC)
 *                                        <-        REP
 *     REQUEST                            ->
 *                                        <-        REPLY
 *                                        <-        QUIET    (where the grant asks for reports)
 *     BYE                                ->
 *
 * Messages are SENDs on the control connection; big-endian, fixed layouts (a name's bytes come
 * last).  Behind the fixed part of HELLO and GRANT fields may follow, each with a number and a
 * length; one that is not known is skipped, unless it says that it must not be: then the hello is
 * refused by its number.  A HELLO of version 0 (hello.h) has none, and is granted without.
 * unpack() trusts nothing: what it lets through has every length and count inside its bounds.
 *
 * With a key (transports/verbs/proof.h) each message from the CHALLENGE on has a tag behind it,
 * which its length does not count; pack() and unpack() do not see it.
 * weft-protocol(7) has all of this for other implementations; tests/unit/protocol-manual.c holds
 * its tables against this file.  Pure functions; any thread.
 */
#ifndef WEFT_TRANSPORTS_VERBS_PROTO_H
#define WEFT_TRANSPORTS_VERBS_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/hashing.h"
#include "fabric/hello.h"

enum {
	VERBS_MAGIC = 0x57454654, /* "WEFT" */
	VERBS_VERSION = 1,
	VERBS_TOKEN_BYTES = 16,
	VERBS_NONCE_BYTES = 32,  /* of START and CHALLENGE */
	VERBS_TAG_BYTES = 32,    /* behind a message */
	VERBS_SEALED_BYTES = 32, /* an id under the seal */
	VERBS_IDENTITY_MAX = 65, /* of a START */
	VERBS_PROOF_VERSION = 1,
	VERBS_REGION_MAX = 4096,
	VERBS_TEXT_MAX = 400,
	VERBS_OFFERS_MAX = 63,
	VERBS_CHUNKS_PER_MESSAGE = 256,
	VERBS_MAX_CHUNKS = 1 << 20, /* 512 TiB of chunks of 512 MiB */
	VERBS_FIELDS_MAX = 96,      /* bytes of them behind a HELLO of ours */
	/* the longest message: HELLO with the longest name and fields, and a tag behind it */
	VERBS_MSG_MAX = 4384,
	VERBS_START_MAX = 256,      /* bytes of a START or CHALLENGE */
	VERBS_RANGES_PER_MESSAGE = 256,
	VERBS_HASHES_PER_MESSAGE = 256,
	VERBS_REQUESTS = 8,         /* REQUESTs without a REPLY at most */
	VERBS_PRIVATE_BYTES = 24,   /* of a REQ */
	VERBS_PROVED_BYTES = 56,    /* of one with a MAC; rdma_cm has room for no more */
	VERBS_REJECT_BYTES = 8,     /* of a REJ */
};

enum verbs_msg_type {
	VERBS_HELLO = 1,
	VERBS_WAIT,
	VERBS_GRANT,
	VERBS_REFUSE,
	VERBS_GET_CHUNKS,
	VERBS_CHUNKS,
	VERBS_REQUEST,
	VERBS_REPLY,
	VERBS_BYE,
	VERBS_START,
	VERBS_CHALLENGE,
	VERBS_QUIET,
};

enum verbs_request_kind {
	VERBS_FLUSH = 1, /* the region becomes durable */
	VERBS_ZERO = 2,  /* the range reads as zeros */
	VERBS_HASH = 3,  /* the hashes of the range's blocks */
};

enum {
	VERBS_GRANT_READ_ONLY = 1 << 0,
	VERBS_GRANT_FLUSH_ASKS = 1 << 1, /* a FLUSH needs a REQUEST; otherwise a READ is enough */
};

/* Fields behind HELLO and GRANT. */
enum {
	VERBS_FIELD_GRANTED = 1, /* HELLO: 8 bytes */
	VERBS_FIELD_WROTE,       /* HELLO: none */
	VERBS_FIELD_EXPECT,      /* HELLO: 8 bytes */
	VERBS_FIELD_RESTORABLE,  /* GRANT: none */
	VERBS_FIELD_STRIPE,      /* HELLO: 16 bytes, struct wire_stripe */
	VERBS_FIELD_RENEW,       /* HELLO: none */
	VERBS_FIELD_HASHES,      /* GRANT: 4 bytes, weft_welcome.hashes */
	VERBS_FIELD_MARKS,       /* GRANT: 4 bytes, weft_welcome.marks */
	VERBS_FIELD_FOLLOWS,     /* HELLO: none */
	VERBS_FIELD_COPIES,      /* HELLO: none */
	VERBS_FIELD_REPORTS,     /* HELLO: none */
	VERBS_FIELD_SAID,        /* GRANT: 12 bytes, struct wire_chunk */
	VERBS_FIELD_MOVING,      /* GRANT: a place, weft_welcome.moving */
	/* a receiver that does not know the number may not skip the field */
	VERBS_FIELD_MUST = 1 << 15,
};

/* One registered piece of the region. */
struct verbs_chunk {
	uint64_t addr;
	uint32_t rkey;
};

struct verbs_range {
	uint64_t off, len;
};

struct verbs_msg {
	uint8_t type;
	uint32_t cookie; /* REQUEST and its REPLY; else 0 */
	union {
		struct {
			struct weft_hello hello; /* never anonymous */
			/* with a key the id is in here, and zeros in the hello; else zeros */
			uint8_t sealed[VERBS_SEALED_BYTES];
			/* NUL-terminated, otherwise a peer's bytes */
			char region[VERBS_REGION_MAX + 1];
			bool reports; /* the borrower can say what it writes */
			uint16_t unknown; /* a field that must not be skipped; 0: none */
		} hello;
		struct {
			uint64_t done_bytes, total_bytes;
		} wait;
		struct {
			uint64_t size_bytes, epoch, generation;
			uint32_t lease_ms, flags;
			uint64_t chunk_bytes; /* every chunk but the last */
			uint32_t nr_chunks;   /* together size_bytes */
			/* read-only; the epoch in big-endian order */
			struct verbs_chunk epoch_word;
			/* write-only, 8 bytes: any change is a sign of life */
			struct verbs_chunk beat_word;
			uint8_t token[VERBS_TOKEN_BYTES];
			char offers[VERBS_OFFERS_MAX + 1];
			bool restorable, version0; /* see tp_info */
			uint32_t hashes;           /* the scheme; 0: none */
			uint32_t marks;            /* as weft_welcome.marks */
			/*
			 * Write-only: a byte for each WEFT_CHUNK_BYTES of the region, in which the
			 * borrower has to say what it writes (enum weft_said), until a QUIET
			 */
			bool has_said;
			struct verbs_chunk said;
			char moving[WEFT_PLACE_MAX]; /* as weft_welcome.moving */
		} grant;
		struct {
			int error; /* negative errno, one of those that may travel */
			/* for a peer that knows only the errors of version 0; not in the message */
			bool version0;
			char text[VERBS_TEXT_MAX + 1]; /* printable */
		} refuse;
		struct {
			uint32_t first;
		} get_chunks;
		struct {
			uint32_t first, nr; /* nr: 1 to VERBS_CHUNKS_PER_MESSAGE */
			struct verbs_chunk chunk[VERBS_CHUNKS_PER_MESSAGE];
		} chunks;
		struct {
			uint8_t kind; /* enum verbs_request_kind */
			bool no_hole;
			uint64_t off, len; /* not yet checked against the region */
			struct weft_hashing hashing; /* HASH: what is asked, not checked either */
			/*
			 * FLUSH of a file region: the ranges that WRITEs changed since the last
			 * FLUSH, not yet checked either.
			 */
			bool more; /* the ranges go on in the next REQUEST, which may flush */
			uint32_t nr_ranges;
			struct verbs_range range[VERBS_RANGES_PER_MESSAGE];
		} request;
		struct {
			int error; /* 0, or negative errno */
			uint32_t nr_hashes; /* HASH, without an error */
			uint8_t hashes[VERBS_HASHES_PER_MESSAGE * WEFT_HASH_BYTES];
		} reply;
		struct {
			bool changed; /* WRITEs since the last FLUSH: nobody said where */
		} bye;
		struct {
			uint8_t nonce[VERBS_NONCE_BYTES];
			uint8_t version; /* of the proof; the rest means nothing in another */
			char identity[VERBS_IDENTITY_MAX + 1]; /* printable, otherwise a peer's */
			uint16_t unknown; /* as in a HELLO */
		} start;
		struct {
			uint8_t nonce[VERBS_NONCE_BYTES];
			uint64_t session; /* a public number, for the data connection */
		} challenge;
	};
};

/*
 * Into buf of VERBS_MSG_MAX; returns the length.  The message is ours, so it is asserted to be
 * right.
 */
size_t verbs_pack(const struct verbs_msg *msg, uint8_t *buf);
/*
 * 0; with *ret untouched -EPROTO: not a message of ours, or a malformed one; -EPROTONOSUPPORT:
 * another version.
 */
int verbs_unpack(const uint8_t *buf, size_t len, struct verbs_msg *ret);

/* What a connection request is for. */
enum verbs_purpose {
	VERBS_CONTROL = 1,
	VERBS_DATA = 2,   /* without a key: the token says which session's */
	VERBS_PROVED = 3, /* the same with a key: its session's number, and a MAC */
};

struct verbs_private {
	enum verbs_purpose purpose;
	uint8_t token[VERBS_TOKEN_BYTES]; /* DATA; all zeros for the others */
	/* PROVED */
	uint64_t session, counter; /* the counter goes up with each request for the session */
	uint8_t mac[VERBS_TAG_BYTES];
};

/* CONTROL, or DATA with its token. */
void verbs_pack_private(enum verbs_purpose purpose, const uint8_t token[VERBS_TOKEN_BYTES],
	uint8_t buf[VERBS_PRIVATE_BYTES]);
/* PROVED. */
void verbs_pack_proved(const struct verbs_private *wants, uint8_t buf[VERBS_PROVED_BYTES]);
/* As verbs_unpack().  len may be more than needed: rdma_cm pads. */
int verbs_unpack_private(const void *buf, size_t len, struct verbs_private *ret);
/* Whom the connection is between: IPv6 addresses, those of IPv4 as ::ffff:a.b.c.d. */
struct verbs_ends {
	uint8_t borrower[16], donor[16];
	uint16_t donor_port;
};

enum { VERBS_ENDS_BYTES = 34 };
void verbs_pack_ends(const struct verbs_ends *ends, uint8_t buf[VERBS_ENDS_BYTES]);

/* What the MAC of a PROVED request is of. */
enum { VERBS_MACED_BYTES = VERBS_TOKEN_BYTES + 16 };
void verbs_pack_maced(const uint8_t token[VERBS_TOKEN_BYTES], uint64_t session, uint64_t counter,
	uint8_t buf[VERBS_MACED_BYTES]);

/*
 * The reason for refusing a connection request: a negative errno.  Any that REFUSE has fits in, but
 * a borrower believes few: weft-protocol(7).
 */
void verbs_pack_reject(int error, uint8_t buf[VERBS_REJECT_BYTES]);
int verbs_unpack_reject(const void *buf, size_t len, int *ret_error);

/* The epoch word and back. */
uint64_t verbs_epoch_to_wire(uint64_t epoch);

/* How many chunks of chunk_bytes > 0 hold size_bytes. */
static inline uint64_t verbs_nr_chunks(uint64_t size_bytes, uint64_t chunk_bytes)
{
	return size_bytes / chunk_bytes + (size_bytes % chunk_bytes != 0);
}

#endif
