/* SPDX-License-Identifier: MIT */
/*
 * Private to the borrower's side: a connection and the transport that it belongs to.
 *
 * Threads: a connection belongs to its lane's thread.  The reaper's thread destroys the queue pairs
 * (qps_gone says when) and, after tp_disconnect(), everything else.
 */
#ifndef WEFT_TRANSPORTS_VERBS_BORROWER_CONN_H
#define WEFT_TRANSPORTS_VERBS_BORROWER_CONN_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>

#include "fabric/base/crew.h"
#include "fabric/base/util.h"
#include "fabric/region/region.h"
#include "transports/rdma/borrower.h"
#include "transports/rdma/wait.h"
#include "transports/verbs/messages.h"
#include "transports/verbs/verbs.h"

enum {
	VERBS_MAX_FRAGMENTS = 8, /* work requests that one operation may become */
	VERBS_ZERO_BYTES = 64 << 10, /* ZEROs up to this size are WRITEs */
	VERBS_MAX_IO_BYTES = 32 << 20,
	/* chunks that one operation touches, at most */
	VERBS_SAID_MAX = VERBS_MAX_IO_BYTES / WEFT_CHUNK_BYTES + 1,
	VERBS_NR_RECV = 8,
	VERBS_NR_SEND = VERBS_REQUESTS + 2,
};

struct verbs_tp {
	struct weft_rdma_borrower base;
	struct verbs_config config;
};

enum verbs_phase {
	VERBS_PHASE_LOOKUP,        /* waits for the resolver's thread */
	VERBS_PHASE_ADDR,          /* control: waits for ADDR_RESOLVED */
	/* the reaper, which registers our memory with a device that is new */
	VERBS_PHASE_DEVICE,
	VERBS_PHASE_ROUTE,         /* control: ROUTE_RESOLVED */
	VERBS_PHASE_CONNECT,       /* control: ESTABLISHED */
	VERBS_PHASE_CHALLENGE,     /* with a key: CHALLENGE or REFUSE */
	VERBS_PHASE_GRANT,         /* GRANT or REFUSE */
	VERBS_PHASE_CHUNKS,        /* CHUNKS, until all are known */
	VERBS_PHASE_DATA_ADDR,     /* data: ADDR_RESOLVED */
	VERBS_PHASE_DATA_ROUTE,    /* data: ROUTE_RESOLVED */
	VERBS_PHASE_DATA_CONNECT,  /* data: ESTABLISHED */
	VERBS_PHASE_EPOCH,         /* the first READ, of the epoch */
	VERBS_PHASE_READY,
};

/*
 * What a work request is for: bits 24 and up of its wr_id.  The bits below are a slot or a buffer.
 */
enum verbs_wr {
	VERBS_WR_DATA,  /* bits 0-15: slot; VERBS_WR_LAST: the operation's last */
	VERBS_WR_EPOCH, /* the first READ of the epoch */
	VERBS_WR_RECV,  /* control: a message came */
	VERBS_WR_SEND,  /* control: a message left */
};
enum { VERBS_WR_LAST = 1 << 16 };

static inline uint64_t verbs_wr_id(enum verbs_wr what, uint32_t i)
{
	return (uint64_t)what << 24 | i;
}

/* An operation in flight. */
struct verbs_slot {
	struct tp_op *op;  /* NULL: free */
	uint16_t nr_wrs;   /* work requests of the send queue, until the last completes */
	uint16_t next_free;
	bool asked;        /* its REQUEST is on its way, or waits for a REPLY */
	bool more;         /* … and another REQUEST follows */
	int error;         /* the first of its work requests */
};

/* Changes of a file region that the next FLUSH tells the donor.  client-changes.c. */
struct verbs_changes {
	uint64_t *words; /* a bit for each 1 << shift bytes; NULL: nobody needs to know */
	uint32_t nr_words;
	uint32_t first, end; /* words outside are 0 */
	unsigned shift;
};

struct weft_rdma_lookup;

struct verbs_conn {
	struct tp_conn conn;
	struct verbs_tp *tp;
	enum verbs_phase phase;
	char peer[80]; /* for people */
	char *region;
	struct weft_hello hello;
	bool keyed;          /* nothing goes on without a proof */
	struct weft_key key; /* until it was used */
	struct verbs_proof proof;
	uint32_t timeout_ms, answer_ms;
	struct weft_rdma_lookup *lookup;

	int epfd, timerfd;
	int wake_fd; /* the reaper's signal that qps_gone is set */
	struct rdma_event_channel *channel;
	struct rdma_cm_id *control, *data;
	bool control_established, data_established;
	struct weft_rdma_seat seat;
	struct ibv_comp_channel *comp;
	struct weft_rdma_cq cq;
	struct verbs_bufs bufs;
	unsigned nr_fast; /* calls of progress without a look at anything but completions */
	struct weft_rdma_spin spin;

	struct verbs_msg msg; /* the one that came last */
	uint64_t size_bytes, epoch, generation, chunk_bytes;
	uint32_t lease_ms, flags, nr_chunks, nr_known;
	struct verbs_chunk *chunks;
	struct verbs_chunk epoch_word, beat_word;
	/* before and after each write it is said there, since the region moves */
	bool says;
	struct verbs_chunk said;
	char moving[WEFT_PLACE_MAX];
	uint8_t token[VERBS_TOKEN_BYTES];
	char offers[VERBS_OFFERS_MAX + 1];
	bool restorable;
	uint32_t hashes, marks;

	/*
	 * Registered: VERBS_ZERO_BYTES zeros, then a word a slot for READs of the epoch, then one
	 * more; then VERBS_SAID_MAX times what is said before a write, and the same after it.
	 */
	uint8_t *scratch;
	struct ibv_mr *scratch_mr;
	uint32_t max_inline;
	uint64_t beat, beat_ns; /* its value, and when it was written last */

	unsigned depth, sq_size, sq_room;
	struct ibv_send_wr *wrs; /* sq_size, to build chains in */
	struct ibv_sge *sges;
	unsigned nr_wrs; /* built */
	struct verbs_slot *slots; /* depth */
	struct verbs_changes changes;
	unsigned free_slot;       /* first free; depth: none */
	struct tp_op *done, **done_end;
	struct tp_op *asking, **asking_end; /* operations that wait until a REQUEST may be sent */
	unsigned nr_asked;

	/* an event ends the connection; the event says why, not the flushed completions */
	bool ending;
	bool aborted, killing, saying_bye;
	/* the donor has ended the control connection, as it does when it has released the grant */
	bool left;
	_Atomic bool qps_gone;
	struct weft_rdma_job kill_job, free_job;
};

static inline struct verbs_conn *to_verbs(struct tp_conn *conn)
{
	return weft_container_of(conn, struct verbs_conn, conn);
}

/* Fails the connection and ends its queue pairs, so that everything in flight comes back. */
void verbs_fail(struct verbs_conn *conn, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* For a device that does not end the queue pairs: the reaper destroys them, and sets qps_gone. */
void verbs_kill(struct verbs_conn *conn);
/* 0: no time is up. */
void verbs_set_timer(struct verbs_conn *conn, uint64_t after_ms);
/* Puts the queue pairs into the error state: 0, or the device's error. */
int verbs_end_qps(struct verbs_conn *conn);
/* Notes the reason for the end that an event of the connection manager gives. */
void verbs_note_end(struct verbs_conn *conn, const struct rdma_cm_event *event);
/* Takes half-made connections; waits for the driver. */
void verbs_conn_free(struct verbs_conn *conn);

#endif
