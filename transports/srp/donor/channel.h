/* SPDX-License-Identifier: MIT */
/*
 * A channel of an initiator at the donor, private to transports/srp/donor/: what its thread keeps,
 * shared by channel.c (its life), login.c, command.c, task.c, flush.c, slot.c and post.c, of which
 * each uses those behind it only.
 *
 * Threads: each channel has one, which does everything that may wait; srp_channel_wake() any.  The
 * acceptor's lock guards the list.  Invariants: a slot has the receive of one of the initiator's
 * credits posted, or is in use by what came with it.  What a slot's state waits for is beside the
 * state.  Behind the QP's error state, and after all that was posted has come back, nothing of the
 * channel reaches the region or the initiator's memory: then the grant is released, and the nexus
 * left.
 */
#ifndef WEFT_TRANSPORTS_SRP_DONOR_CHANNEL_H
#define WEFT_TRANSPORTS_SRP_DONOR_CHANNEL_H

#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/donor/donor.h"
#include "transports/rdma/wait.h"
#include "transports/srp/donor/listener.h"
#include "transports/srp/donor/unit.h"
#include "transports/srp/proto.h"
#include "transports/srp/walk.h"

enum {
	SRP_DEPTH = 64, /* credits */
	/* Linux has 8260 bytes by default: 8 KiB of immediate data. */
	SRP_IT_IU_MAX = 8448,
	SRP_TI_IU_MAX = 128,
	SRP_NR_ANSWERS = 2 * SRP_DEPTH,
	SRP_NR_MOVES = 192, /* work requests that move data */
	SRP_TURN = 16,      /* of those, WRITEs of one command before others have their turn */
	SRP_CHAIN = 64,     /* work requests that go to the device at once */
	SRP_INLINE_BYTES = 64, /* answers up to this size are taken along, if the device can */
	SRP_MAX_READS = 16, /* of those, READs at a time, if the initiator takes as many */
	SRP_FORMATS = SRP_FORMAT_DIRECT | SRP_FORMAT_INDIRECT,
	/* An abort is answered in that time, or the channels end: Linux waits for 5 s. */
	SRP_ABORT_MS = 3000,
};
_Static_assert(SRP_RSP_BYTES + SRP_RSP_DATA_BYTES + SCSI_SENSE_MAX_BYTES <= SRP_TI_IU_MAX, "rsp");
_Static_assert((int)SRP_PIECE_BYTES <= (int)SCSI_DATA_BYTES, "a piece of a table fits");

enum srp_state {
	SRP_FREE,     /* waits for the initiator */
	SRP_QUEUED,   /* waits for its turn: to post, to work at the region, to answer */
	SRP_TABLE_IN, /* waits for a piece of the initiator's table */
	SRP_MOVING,   /* waits for READs */
	SRP_FLUSHING, /* waits for the file's disk */
	SRP_WAITING,  /* task management: waits until others have ended */
};

/* What came with one of the initiator's credits. */
struct srp_slot {
	enum srp_state state;
	bool aborted;     /* it ends without an answer as soon as nothing of it is in flight */
	bool failed;      /* its buffers cannot be reached */
	bool is_task, has_code;
	bool of_command;  /* it waits as a command that ends others' */
	bool notify_good, notify_bad;
	uint8_t code;     /* of task management */
	uint64_t tag;
	struct scsi_command cmd;
	bool decided;     /* the command has ended: what is left is the answer */
	enum scsi_kind kind; /* as it began */
	struct srp_walk walk;
	const uint8_t *immediate; /* NULL: the data is elsewhere */
	uint64_t done;    /* bytes that were moved, or are on their way */
	uint64_t compared;
	unsigned nr_out;  /* READs in flight */
	/* WAITING: the wish, whose it is to fulfil, and until when */
	uint64_t wish, wish_slots, deadline_ns;
	uint8_t function; /* enum scsi_function */
	struct srp_slot *next; /* in a queue */
};

struct srp_queue {
	struct srp_slot *first, *last;
};

struct srp_channel {
	struct srp_listener *listener;
	struct srp_channel *next; /* in the listener's list */
	struct srp_member member;
	struct rdma_event_channel *events;
	struct rdma_cm_id *id;
	int wake_fd;
	struct weft_stranger stranger;
	_Atomic bool fenced;

	/* The thread's. */
	struct srp_login login;
	struct weft_peer peer;
	uint8_t their_reads; /* that the initiator takes at a time */
	bool accepted, established, over, clean, pending, refused;
	struct weft_region *region; /* referenced */
	struct weft_grant *grant;
	bool staged;
	struct srp_reach *reach;
	uint32_t *lkeys; /* of the region's chunks */
	int epfd;
	struct ibv_comp_channel *comp;
	/* What came wakes the thread; what has left does if something waits for it: channel.c. */
	struct weft_rdma_cq came, left;
	struct weft_rdma_spin spin;
	struct ibv_mr *mr;
	uint8_t *mem; /* receives, data, tables, answers */
	uint16_t immediate_off; /* 0: no immediate data */
	uint64_t deadline_ns, seen_ns, probed_ns;
	uint32_t tick_ms, lease_ms;
	bool probing;
	bool busy; /* something came, or has left, since the thread slept */

	struct srp_counts counts;
	struct srp_slot slots[SRP_DEPTH];
	unsigned due;      /* credits to be given back */
	unsigned nr_moves; /* that are free, of SRP_NR_MOVES */
	unsigned nr_reads, max_reads; /* in flight */
	uint64_t nr_posted, nr_completed; /* signalled work requests of the send queue */
	bool broken; /* the device did not take all that was posted */
	uint32_t max_inline;
	struct srp_queue pushes, pulls, works; /* wait for a move, for a READ, to work */
	struct srp_queue flushes, flushing; /* wait for the next flush, for the one that runs */
	bool flush_runs;
	bool flush_ended; /* under the listener's lock, and its result */
	int flush_result;
	uint8_t free_answers[SRP_NR_ANSWERS];
	unsigned nr_free_answers;
	uint16_t moves_before[SRP_NR_ANSWERS]; /* moves that an answer's completion gives back */
	/* What the next srp_channel_ring() gives to the device: receives first. */
	struct ibv_recv_wr recvs[SRP_DEPTH];
	struct ibv_sge recv_sges[SRP_DEPTH];
	unsigned nr_recvs;
	struct ibv_send_wr wrs[SRP_CHAIN];
	struct ibv_sge sges[SRP_CHAIN];
	unsigned nr_wrs;
	unsigned nr_open; /* WRITEs behind which a signalled one is still to come */
	unsigned nr_aborted;
	uint64_t marked, marked_posted; /* the last wish that was seen, and nr_posted then */
	uint64_t met;                   /* the last that was met */
};

/* channel.c */

/*
 * Starts the thread for a login, whose id becomes the channel's.  0, or -errno: the id is still the
 * caller's.
 */
int srp_channel_start(struct srp_listener *listener, struct rdma_cm_id *id,
	const struct srp_login *login, uint8_t their_reads);
static inline void srp_channel_wake(struct srp_channel *channel)
{
	uint64_t one = 1;

	(void)!write(channel->wake_fd, &one, sizeof(one));
}
static inline bool srp_channel_must_end(const struct srp_channel *channel)
{
	return channel->over || atomic_load(&channel->fenced) ||
		atomic_load(&channel->member.ended);
}

/* login.c */

/* All that an accepted login needs: 0, or -errno; *ret_reason is for the initiator. */
int srp_channel_login(struct srp_channel *channel, uint8_t *ret_result, uint32_t *ret_reason,
	struct weft_error *err);
void srp_channel_unstage(struct srp_channel *channel);

/* post.c */

int srp_channel_open(struct srp_channel *channel, struct weft_error *err);
void srp_channel_close(struct srp_channel *channel);

static inline uint8_t *srp_slot_iu(struct srp_channel *channel, unsigned i)
{
	return channel->mem + (size_t)i * SRP_IT_IU_MAX;
}
static inline uint8_t *srp_slot_data(struct srp_channel *channel, unsigned i)
{
	return channel->mem + (size_t)SRP_DEPTH * SRP_IT_IU_MAX + (size_t)i * SCSI_DATA_BYTES;
}
static inline uint8_t *srp_slot_table(struct srp_channel *channel, unsigned i)
{
	return channel->mem + (size_t)SRP_DEPTH * (SRP_IT_IU_MAX + SCSI_DATA_BYTES) +
		(size_t)i * SRP_PIECE_BYTES;
}
static inline unsigned srp_slot_number(const struct srp_channel *channel,
	const struct srp_slot *slot)
{
	return (unsigned)(slot - channel->slots);
}

/*
 * Work requests gather in a chain, which srp_channel_ring() gives to the device.  A command's
 * WRITEs are open until its answer, or srp_post_writes(), comes behind them; nothing else does
 * before.
 */
/* How many WRITEs a command may still add in this turn. */
static inline unsigned srp_writes_room(const struct srp_channel *channel)
{
	return (unsigned)weft_min(SRP_TURN, channel->nr_moves) - channel->nr_open;
}
void srp_post_write(struct srp_channel *channel, const void *from, uint32_t lkey,
	const struct srp_buffer *to);
/* Closes them without an answer. */
void srp_post_writes(struct srp_channel *channel);
/* table: of a piece; else of data.  Takes a READ's place. */
void srp_post_read(struct srp_channel *channel, struct srp_slot *slot, void *to, uint32_t lkey,
	const struct srp_buffer *from, bool table);
/*
 * The slot's receive, to be posted again, and the answer behind the open WRITEs.  The slot is free.
 * False: no place for an answer is free, and nothing was done.
 */
bool srp_post_answer(struct srp_channel *channel, struct srp_slot *slot);
/* The slot ends without an answer: its credit goes back with the next one. */
void srp_slot_drop(struct srp_channel *channel, struct srp_slot *slot);
void srp_post_probe(struct srp_channel *channel);
void srp_channel_ring(struct srp_channel *channel);
/* Whether this completion is one of nr_posted. */
bool srp_wr_is_counted(uint64_t wr_id);
/* Takes what has completed, up to a bound, and tells ops: how many. */
struct srp_completion_ops {
	void (*received)(struct srp_channel *channel, struct srp_slot *slot, uint32_t len);
	/* A READ of the slot's; table: of a piece of its table. */
	void (*read)(struct srp_channel *channel, struct srp_slot *slot, bool table);
};
unsigned srp_channel_take_completions(struct srp_channel *channel,
	const struct srp_completion_ops *ops);

/* slot.c */

void srp_enqueue(struct srp_queue *queue, struct srp_slot *slot);
struct srp_slot *srp_dequeue(struct srp_queue *queue);
/* Whether it was there. */
bool srp_unqueue(struct srp_queue *queue, struct srp_slot *slot);
/* Answers behind the open WRITEs, or when there is a place for it; drops one that was aborted. */
void srp_slot_answer(struct srp_channel *channel, struct srp_slot *slot);

/* flush.c */

/* The slot waits until what the region has now is in the file. */
void srp_flush_begin(struct srp_channel *channel, struct srp_slot *slot);
/* One whose flush has ended, with 0 or -errno of weft_region_flush(); NULL: there is none. */
struct srp_slot *srp_flush_take(struct srp_channel *channel, int *ret_result);
/* The slot, in SRP_FLUSHING, waits no more. */
void srp_flush_leave(struct srp_channel *channel, struct srp_slot *slot);
/* Until no flush runs: nothing else of the channel's may wait for one. */
void srp_flush_wait(struct srp_channel *channel);

/* command.c */

extern const struct srp_completion_ops srp_command_ops;
/*
 * A WRITE, or what came of it, is in the region, and no READ of it is in flight: a file's contents
 * in memory are others.
 */
static inline void srp_slot_note_write(struct srp_channel *channel, const struct srp_slot *slot)
{
	if (slot->state != SRP_FREE && !slot->is_task && slot->kind == SCSI_DO_WRITE &&
		channel->region->backing == WEFT_BACKING_FILE)
		weft_region_changed(channel->region, slot->cmd.off, slot->cmd.len);
}
/* Those that wait for their turn go on, as far as they can; whether there is more to do at once. */
bool srp_channel_run(struct srp_channel *channel);

/* task.c */

void srp_task_begin(struct srp_channel *channel, struct srp_slot *slot,
	const struct srp_task *task);
/* cmd->kind is SCSI_DO_ABORT. */
void srp_task_of_command(struct srp_channel *channel, struct srp_slot *slot);
/* Looks at what was asked of this channel, and at what it waits for itself. */
void srp_channel_look_at_tasks(struct srp_channel *channel);

#endif
