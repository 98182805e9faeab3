/* SPDX-License-Identifier: MIT */
/*
 * Private to the borrower's side: a channel to an SRP target, and the transport that it belongs to.
 * A file uses those above it only: conn.c (its end), io.c (commands out, responses in), connect.c
 * (from a name to a unit that is ready), progress.c (waiting), client.c (the table of functions).
 *
 * Threads: a channel belongs to its lane's thread.  The reaper's thread destroys the queue pair
 * (qp_gone says when) and, after tp_disconnect(), everything else.
 */
#ifndef WEFT_TRANSPORTS_SRP_BORROWER_CONN_H
#define WEFT_TRANSPORTS_SRP_BORROWER_CONN_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>

#include "fabric/base/util.h"
#include "fabric/transport.h"
#include "transports/rdma/borrower.h"
#include "transports/rdma/lookup.h"
#include "transports/rdma/wait.h"
#include "transports/srp/borrower/client.h"
#include "transports/srp/borrower/name.h"
#include "transports/srp/borrower/nexus.h"
#include "transports/srp/borrower/unit.h"
#include "transports/srp/proto.h"

enum {
	SRP_IMMEDIATE_OFF = SRP_CMD_BYTES + SRP_BUFFER_BYTES + SRP_IMMEDIATE_BYTES, /* as Linux's */
	SRP_IMMEDIATE_MAX = 8192,
	/*
	 * What a target sends has up to SRP_AER_REQ_BYTES + 252 bytes; whatever it says of more at
	 * login, there is nothing that needs it.
	 */
	SRP_RECV_BYTES = 512,
	SRP_SPARE_RECVS = 8, /* for what it sends unasked, and the answer to a task management */
	SRP_SEND_BYTES = 128, /* an IU, but for its immediate data; and an UNMAP's list */
	SRP_SPARE_SENDS = 8,
	SRP_MAX_TRIES = 40, /* of one command, 0.3 s apart at most */
};

struct srp_tp {
	struct weft_rdma_borrower base;
	struct srp_client_config config;
	uint64_t random_ext; /* for those who have no id */
	struct srp_tp_nexus {
		struct srp_nexus *nexus;
		struct srp_tp_nexus *next;
	} *nexuses; /* kept, so that it is known what was before */
};

enum srp_phase {
	SRP_PHASE_LOOKUP,  /* waits for the resolver's thread */
	SRP_PHASE_ADDR,    /* ADDR_RESOLVED */
	SRP_PHASE_DEVICE,  /* the reaper, which registers our memory with a device that is new */
	SRP_PHASE_ROUTE,   /* ROUTE_RESOLVED */
	SRP_PHASE_TURN,    /* the channel that leads */
	SRP_PHASE_LOGIN,   /* ESTABLISHED, with the login response */
	SRP_PHASE_RESET,   /* the response to a LOGICAL UNIT RESET */
	SRP_PHASE_EXAM,    /* the unit's answers */
	SRP_PHASE_READY,
};

/* What a work request is for: bits 32 and up of its wr_id; below is a buffer or a count. */
enum srp_wr {
	SRP_WR_RECV,  /* an IU came */
	SRP_WR_SEND,  /* so many IUs have left */
	SRP_WR_DRAIN, /* after the end: all sends have come back */
};

static inline uint64_t srp_wr_id(enum srp_wr what, uint32_t i)
{
	return (uint64_t)what << 32 | i;
}

/* What an operation does next. */
enum srp_stage {
	SRP_STAGE_DATA, /* the commands of its kind, until all of its range is done */
	SRP_STAGE_SYNC, /* SYNCHRONIZE CACHE behind them */
};

/* A command in flight, or one that waits to be sent again. */
struct srp_slot {
	struct tp_op *op;  /* NULL: free, or the channel's own (while connecting) */
	uint64_t tag;      /* 0: nothing is in flight */
	uint64_t done_bytes; /* of op->len, by commands before this */
	uint32_t bytes;    /* of this command's range */
	uint32_t data_bytes; /* that this command sends or receives */
	bool data_in;
	enum srp_stage stage;
	uint16_t tries;
	uint16_t next_free;
	uint64_t again_ns; /* when to send it again; 0: it does not wait */
};

struct srp_conn {
	struct tp_conn conn;
	struct srp_tp *tp;
	enum srp_phase phase;
	char peer[80]; /* for people: "192.0.2.7:5555" */
	struct srp_name name;
	struct weft_error no_name; /* code 0: it is one */
	struct srp_nexus *nexus;
	uint64_t generation;
	bool leads, greeted, resets, wants_write;
	uint8_t initiator[SRP_PORT_BYTES];
	uint32_t timeout_ms, answer_ms;
	struct weft_rdma_lookup *lookup;

	int epfd, timerfd, again_fd; /* again_fd: the timer of commands that wait */
	int wake_fd; /* others': qp_gone is set, adopted is, the nexus has changed */
	struct rdma_event_channel *channel;
	struct rdma_cm_id *id;
	bool established;
	struct weft_rdma_seat seat;
	struct ibv_comp_channel *comp;
	struct weft_rdma_cq cq;
	unsigned nr_fast; /* calls of progress without a look at anything but completions */
	struct weft_rdma_spin spin;

	/*
	 * Registered for both sides: IUs to send, one a slot and the spare ones; IUs to receive;
	 * SRP_UNIT_DATA_BYTES for the examination; as many zeros.
	 */
	uint8_t *memory;
	struct ibv_mr *mr;
	uint8_t *recvs, *scratch, *zeros;
	unsigned nr_recvs;        /* buffers */
	unsigned nr_posted_recvs; /* with the device */
	unsigned nr_fresh_recvs;  /* taken from the device, to be given back at once … */
	struct ibv_recv_wr *recv_wrs; /* … by these */
	struct ibv_sge *recv_sges;

	unsigned depth;     /* of operations; one slot more is the channel's own */
	unsigned sq_room, nr_unsignaled;
	int64_t credits;    /* one is kept for task management */
	uint32_t max_immediate; /* bytes; 0: the target takes none */
	uint32_t next_tag;
	uint64_t reset_tag;
	struct srp_slot *slots; /* depth + 1 */
	unsigned free_slot;     /* first free; depth: none */
	uint64_t next_again_ns; /* the earliest of the slots'; 0: none waits */
	unsigned next_spare;
	struct tp_op *done, **done_end;

	struct srp_exam exam;
	struct scsi_cdb exam_cdb;
	/* connect.c's: the answers to srp_io_examine() and srp_io_reset() */
	void (*exam_done)(struct srp_conn *conn, const struct srp_judgement *judgement, size_t len);
	void (*reset_done)(struct srp_conn *conn, const struct srp_rsp *rsp);
	struct srp_unit unit;

	/* an event ends the connection; the event says why, not the flushed completions */
	bool ending;
	bool aborted, killing, drained;
	_Atomic bool qp_gone;
	struct weft_rdma_job kill_job, free_job;
};

static inline struct srp_conn *to_srp(struct tp_conn *conn)
{
	return weft_container_of(conn, struct srp_conn, conn);
}

/* conn.c */

/* Fails the channel and ends its queue pair, so that everything in flight comes back. */
void srp_fail(struct srp_conn *conn, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/*
 * What the unit answered while it is examined.  False: it is news that the other channels have to
 * know of, and all of this generation have failed, or will.
 */
bool srp_conn_may_hear(struct srp_conn *conn, const struct srp_judgement *judgement);
/* Fails the channel if another one was told that news. */
void srp_conn_look_at_nexus(struct srp_conn *conn);
/* For a device that does not end the queue pair: the reaper destroys it, and sets qp_gone. */
void srp_kill(struct srp_conn *conn);
/* Takes half-made channels; waits for the driver. */
void srp_conn_free(struct srp_conn *conn);

/* io.c */

/* Allocates what commands need, once the device is known; 0, or -errno with err. */
int srp_io_init(struct srp_conn *conn, struct weft_error *err);
/* The login was accepted: how many operations may be in flight. */
void srp_io_begin(struct srp_conn *conn, const struct srp_login_rsp *rsp);
int srp_io_post(struct tp_conn *conn, struct tp_op *const *ops, unsigned n);
/* An IU came into buffer i. */
void srp_io_received(struct srp_conn *conn, unsigned i, uint32_t len);
/* Gives the buffers that were taken back to the device. */
void srp_io_give_back(struct srp_conn *conn);
/* Sends what has waited long enough. */
void srp_io_again(struct srp_conn *conn);
/* The next command of the examination, whose answer goes to conn->exam_done(). */
void srp_io_examine(struct srp_conn *conn);
/* A LOGICAL UNIT RESET, whose answer goes to conn->reset_done(). */
void srp_io_reset(struct srp_conn *conn);
/* What a failed channel leaves, once nothing can touch its memory any more. */
void srp_io_give_up(struct srp_conn *conn);

/* connect.c */

int srp_connect(struct tp *tp, const struct tp_target *target, struct tp_conn **ret,
	struct weft_error *err);
/* The connection manager's next step.  False: the event is none. */
bool srp_connect_step(struct srp_conn *conn, const struct rdma_cm_event *event);
/* A refusal of the target's is in the event: the channel has failed with its reason. */
bool srp_connect_rejected(struct srp_conn *conn, const struct rdma_cm_event *event);
/* While connecting: looks for what other threads have done for it. */
void srp_connect_look(struct srp_conn *conn);
void srp_connect_timed_out(struct srp_conn *conn);

/* progress.c */

int srp_progress(struct tp_conn *conn, struct tp_op **done, unsigned max);
int srp_arm(struct tp_conn *conn);

#endif
