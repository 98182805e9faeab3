/*
 * Private to nbd-bridge/: the insides of a bridge, shared by bridge.c (control thread), lane.c (requests),
 * buffers.c and link.c (the connection to a donor).
 *
 * Invariants: a request is the lane's from bridge_lane_submit() to its done(); it is on the backlog until
 * the last of its operations was made.  An operation is on the free list, on its link's queue (to be
 * posted), with the transport (posted_ns > 0), or on its link's parked list (its fate is unknown).
 */
#ifndef WEFT_NBD_BRIDGE_LANE_LANE_H
#define WEFT_NBD_BRIDGE_LANE_LANE_H

#include <pthread.h>
#include <stdatomic.h>

#include "fabric/base/histogram.h"
#include "fabric/base/util.h"
#include "nbd-bridge/bridge/bridge.h"
#include "nbd-bridge/lane/map.h"
#include "nbd-bridge/lane/pool.h"
#include "nbd-bridge/link/recorder.h"
#include "nbd-bridge/link/ways.h"

enum {
	LANE_OPS = 128,          /* operations at most; as many as a donor takes on a connection */
	LANE_BATCH = 64,         /* operations posted, and completions taken, at once */
	LANE_ARENA = 5 << 20,    /* for requests up to BRIDGE_POOL_MAX */
	LANE_BIG_KEPT = 2 << 20, /* a big buffer up to this size is kept for a while, per lane … */
	                         /* … and only one lane at a time has a larger one */
	LINK_BACKOFF_MIN_MS = 20,
	LINK_BACKOFF_MAX_MS = 1000,
	LINK_PROBE_MS = 5000,
	LINK_GOODBYE_MS = 500,
	LINK_WAY_MS = 4000, /* for connecting, where there is another way */
	BRIDGE_MAX_TRANSPORTS = 4,
};

struct bridge_op {
	struct tp_op tp; /* tp.user: the operation */
	struct bridge_request *rq; /* NULL: the link's probe */
	struct bridge_link *link;
	uint64_t posted_ns;
	struct bridge_op *next;
};

struct op_list {
	struct bridge_op *head, **tail;
	unsigned nr;
};

enum link_state {
	LINK_IDLE,       /* not started, or ended */
	LINK_CONNECTING, /* waits for the donor's grant */
	LINK_READY,      /* operations are posted */
	LINK_DRAINING,   /* lost: waits for the transport to give back what it holds */
	LINK_BACKOFF,    /* waits to try again */
	LINK_STALE,      /* for good: every request fails */
};

struct bridge_donor;
struct bridge_scout;

struct bridge_link {
	struct bridge_lane *lane;
	struct bridge_donor *donor;
	enum link_state state;
	struct tp_conn *conn, *next; /* next: granted, takes over once conn has ended */
	struct weft_watch watch;
	uint64_t generation; /* of conn, or of the last one */
	unsigned way;        /* the same */
	bool was_granted;    /* that generation was, and is of no use any more */
	bool has_result;     /* of its first connection */
	struct op_list queue, parked;
	struct bridge_op probe;
	uint64_t probe_sent_ns; /* weft_boottime_ns() */
	struct weft_timer retry, dead, tick;
	uint32_t tick_ms;    /* as the tick is set now */
	uint32_t backoff_ms;
	uint64_t ready_ns;   /* when it was granted */
	uint64_t seen_ns;    /* when the donor last answered */
	uint64_t down_ns;    /* since when it is not ready, or was granted but has answered nothing; 0: it answers */
	bool is_dead;        /* --dead-timeout is over */
	bool insisted;       /* refused as stale since the last grant by a donor of version 0, and tried once more */
	bool asked_version0; /* the hello that was sent last */
	bool must_note;      /* that something was written is not noted yet */
	struct weft_error why; /* of the last loss or refusal */
	char path[160];
	uint64_t nr_reconnects;
	struct bridge_scout *scout; /* the first lane's, where there are other ways */
	struct bridge_op *free_ops;
	struct bridge_op ops[LANE_OPS];
};

struct lane_call {
	void (*fn)(struct bridge_lane *lane, void *ctx);
	void *ctx;
	bool done;
	struct lane_call *next;
};

struct lane_counters {
	_Atomic uint64_t requests[TP_NR_KINDS], errors;
	_Atomic uint64_t read_bytes, write_bytes;
	_Atomic uint64_t ops, posts; /* posts: calls of tp_post() that accepted something */
};

struct request_list {
	struct bridge_request *head, **tail;
};

/* FLUSHes that take more than one lane: flush.c.  What is atomic other lanes look at. */
struct lane_flush {
	_Atomic uint64_t nr_written;  /* changes of data that completed */
	_Atomic uint64_t nr_flushed;  /* of those, by a visit */
	_Atomic uint64_t nr_asked;    /* tickets: visits that others asked for */
	_Atomic uint64_t nr_answered; /* … that were carried out, or failed */
	_Atomic uint64_t failed;      /* the last of a visit that failed … */
	_Atomic int error;            /* … with this */
	_Atomic bool waiting;         /* for another lane's answer */
	bool visiting, in_round;
	uint64_t visit_answers, visit_covers;
	struct bridge_request visit;
	struct request_list next;  /* FLUSHes that wait for a round */
	struct request_list round; /* … for the other lanes */
	uint64_t tickets[BRIDGE_MAX_LANES]; /* of the round; 0: not asked */
};

struct bridge_lane {
	/* What each step touches. */
	struct bridge *bridge;
	struct weft_loop *loop;
	struct lane_drive *drive; /* NULL: the lane's own thread runs the loop; else whoever leads */
	uint64_t now_ns; /* of this step; 0: not read yet */
	uint64_t boottime_ns, boottime_for_ns; /* at this now_ns */
	struct bridge_request *backlog, **backlog_tail;
	struct bridge_deferred *deferred, **deferred_tail;
	struct bridge_waiter *waiters, **waiters_tail, *serving;
	bool buffers_freed; /* since the waiters were served last */
	unsigned nr_orphans;
	struct bridge_link *links; /* one for each donor */
	unsigned nr_links;
	unsigned nr_open; /* links that have a free operation */
	struct cache_lane *cache; /* NULL: direct */
	struct bridge_pool *pool;
	struct tp_mem *arena_mem;
	struct lane_counters counters;
	_Atomic uint32_t nr_requests; /* submitted and not done; written by the lane */
	_Atomic bool ready;           /* its links are; written by the lane */

	unsigned index;
	struct tp *tps[BRIDGE_MAX_TRANSPORTS];
	void *arena;
	void *big; /* a buffer above BRIDGE_POOL_MAX, or NULL */
	size_t big_len;
	struct tp_mem *big_mem;
	bool big_used, big_idle;
	pthread_t thread;
	bool running; /* the control thread's */
	/* Under the bridge's lock. */
	struct lane_call *calls, **calls_tail;
	int first_result; /* 0: not known; 1: all links granted; -errno */
	unsigned nr_results, nr_granted; /* links that have a result; that were granted */
	int failure; /* the first of a link */
	struct weft_error first_error;

	struct lane_flush flush;
	struct weft_histogram reads, writes, flushes;
	struct bridge_recorder recorder;
};

/* A donor of the attachment.  What changes is under the bridge's lock, but for the atomics. */
struct bridge_donor {
	struct bridge *bridge;
	unsigned index;
	struct bridge_donor_config config;
	uint8_t transports[BRIDGE_MAX_WAYS]; /* of each way: in lane.tps */
	_Atomic uint64_t generation;
	_Atomic uint64_t granted_generation; /* the highest that was: lower ones are fenced */
	uint64_t noted_generation; /* bridge_config.note() knows of it */
	_Atomic uint64_t wrote_generation; /* … and that something was written under this one */
	unsigned nr_ready;   /* links that are, at the generation */
	bool moving;         /* a scout asks for the next generation over another way: nobody else may */
	bool granted;        /* info is valid */
	struct tp_info info; /* what was granted first */
	_Atomic bool version0;   /* the donor, when it granted last */
	uint64_t lease_until_ns; /* of weft_boottime_ns(): others may have been granted the region after; UINT64_MAX: never */
	struct bridge_ways ways;
	char used_transport[16];
	struct weft_error left_why; /* why the way before was left */
	char way_why[BRIDGE_WHY_MAX];
};

/* Where the lanes run: place.c.  The control thread's. */
struct bridge_place {
	bool one_node; /* the machine has no other: nothing else here means anything */
	bool bound;
	char netdev[64], rdma_device[64];          /* of the first lane's connection to the first donor; "": none */
	char device[64], nodes[128], cpus[512]; /* bound: near which, and to what */
	char why[256];                             /* else */
};

struct bridge {
	struct bridge_config config;
	struct tp_info info; /* what all donors can do, over all ways */
	struct bridge_map map;
	struct bridge_donor *donors;
	unsigned nr_donors;
	unsigned nr_transports;
	struct bridge_way transports[BRIDGE_MAX_TRANSPORTS]; /* host and port mean nothing */
	_Atomic bool stale;   /* connections end; not while a reset tries */
	_Atomic bool refuses; /* requests fail: it is stale, or being reset */
	_Atomic uint64_t fresh_until_ns; /* the first of the donors' lease_until_ns: what is remembered is what they have */
	_Atomic bool stopping;
	_Atomic uint32_t nr_orphans;
	_Atomic uint32_t next_lane;
	_Atomic bool big_taken; /* a lane has a big buffer over LANE_BIG_KEPT */
	uint64_t start_ns;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct weft_error stale_why; /* under the lock; set once */
	bool superseded;             /* under the lock: stale since another process has it */
	bool granted;                /* under the lock: info is valid, of all donors */
	struct bridge_cache *cache;  /* NULL: direct */
	struct bridge_place place;
	uint64_t rtt_ns, rate; /* of the path, as measured for a cache: of a small READ; bytes a second of a large one */
	unsigned nr_lanes;
	struct bridge_lane *lanes[BRIDGE_MAX_LANES];
};

static inline uint64_t lane_now(struct bridge_lane *lane)
{
	if (!lane->now_ns)
		lane->now_ns = weft_now_ns();
	return lane->now_ns;
}

/* Whether what is remembered of the donors' contents is known to be what they have. */
static inline bool lane_is_fresh(struct bridge_lane *lane)
{
	uint64_t now_ns = lane_now(lane);

	if (lane->boottime_for_ns != now_ns) {
		lane->boottime_ns = weft_boottime_ns();
		lane->boottime_for_ns = now_ns;
	}
	return lane->boottime_ns <= atomic_load_explicit(&lane->bridge->fresh_until_ns, memory_order_relaxed);
}

/* For counters that one thread writes and any reads. */
static inline void count(_Atomic uint64_t *counter, uint64_t by)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
		memory_order_relaxed);
}

/* lane.c */
int lane_new(struct bridge *bridge, unsigned index, struct bridge_lane **ret, struct weft_error *err);
void lane_free(struct bridge_lane *lane);
int lane_start_thread(struct bridge_lane *lane, struct weft_error *err);
void lane_join(struct bridge_lane *lane);
/* To the donor, whether there is a cache or not. */
void lane_submit_direct(struct bridge_lane *lane, struct bridge_request *rq);
/* Counts it, and tells whoever sent it. */
void lane_request_finish(struct bridge_lane *lane, struct bridge_request *rq, int error);
/* Makes operations of waiting requests, as far as there are free ones. */
void lane_split(struct bridge_lane *lane);
/* Takes back an operation that is on no list. */
void lane_op_finish(struct bridge_lane *lane, struct bridge_op *op, int error);
/* Fails what waits for the link: of the backlog, and what is queued or parked.  Returns how many. */
enum lane_purge { PURGE_ALL, PURGE_ORPHANS };
unsigned lane_purge(struct bridge_lane *lane, struct bridge_link *link, int error, enum lane_purge which);
/* Whether any of the request's operations is the link's; is one's that is dead. */
bool lane_touches(const struct bridge_request *rq, const struct bridge_link *link);
bool lane_touches_dead(const struct bridge_lane *lane, const struct bridge_request *rq);
/* Whether all links that hold a part of these bytes are ready. */
bool lane_reaches(const struct bridge_lane *lane, uint64_t off, uint64_t len);
/* lane->ready, from its links. */
void lane_set_ready(struct bridge_lane *lane);

/* For a request that is on no list: to be made operations of, or to end with an error. */
void lane_backlog(struct bridge_lane *lane, struct bridge_request *rq);
void lane_settle(struct bridge_lane *lane, struct bridge_request *rq, int error);

/* flush.c */
void lane_flush_init(struct bridge_lane *lane);
/* A FLUSH: on the backlog once the other lanes have flushed what they wrote. */
void lane_flush(struct bridge_lane *lane, struct bridge_request *rq);
/* After a wake-up: others ask, or answered. */
void lane_flush_look(struct bridge_lane *lane);
/* Takes off all that wait for other lanes; linked by next. */
struct bridge_request *lane_flush_take_waiting(struct bridge_lane *lane);

/* buffers.c */
/* The memory of most buffers, registered with the lane's transports.  0, or -errno; dropped either way when the lane is freed. */
int lane_make_arena(struct bridge_lane *lane, struct weft_error *err);
void lane_drop_arena(struct bridge_lane *lane);
/* The lane's thread, before any buffer was given out: it takes them from the memory that it prefers by now. */
int lane_remake_arena(struct bridge_lane *lane, struct weft_error *err);
/* Lets those who wait for a buffer try again, in turn, as far as there are any. */
void lane_serve_waiters(struct bridge_lane *lane);
/* Gives the kept big buffer back: when nobody needed it for a tick; at once. */
void lane_trim_big(struct bridge_lane *lane);
void lane_drop_big(struct bridge_lane *lane);

/* link.c */
void link_init(struct bridge_link *link, struct bridge_lane *lane, struct bridge_donor *donor);
void link_start(struct bridge_link *link);
/* Ends it for good, with a goodbye if nothing is in flight; what waits fails. */
void link_end(struct bridge_link *link);
/* Posts what waits.  True: requests failed, which left room. */
bool link_pump(struct bridge_link *link);
/* Takes completions and follows the connection's state. */
void link_progress(struct bridge_link *link);
/* Asks for a wake-up; true: there is work already. */
bool link_arm(struct bridge_link *link);
/* It is stale or was refused, and the attachment is valid again. */
void link_restart(struct bridge_link *link);
/* For how long the donor owes an answer, or there is no connection to it; 0: it answers. */
uint64_t link_silent_ns(const struct bridge_link *link);
const char *link_state_name(const struct bridge_link *link);
/* Where and as whom to connect: over the way, at the generation. */
struct tp_target link_target(const struct bridge_link *link, unsigned way, uint64_t generation);
/* The connection was granted at the generation over the way, which is the donor's now: it takes over from the one that there is. */
void link_take_over(struct bridge_link *link, struct tp_conn *conn, uint64_t generation, unsigned way);
/* The attachment became stale, or a newer generation was granted: ends what is of no use any more. */
void link_check(struct bridge_link *link);

/* scout.c: looks whether a better way works again, beside the one that is used, and moves the attachment to it. */
int scout_new(struct bridge_link *link, struct bridge_scout **ret);
void scout_free(struct bridge_scout *scout);
/* The link was granted or lost. */
void scout_link_changed(struct bridge_scout *scout);
/* As for a link. */
void scout_progress(struct bridge_scout *scout);
bool scout_arm(struct bridge_scout *scout);
void scout_end(struct bridge_scout *scout);

/* bridge.c */
/* Any thread, once: nothing of this attachment is valid any more. */
void bridge_set_stale(struct bridge *bridge, const struct weft_error *why);
/* The same, when another process has it. */
void bridge_set_superseded(struct bridge *bridge, const struct weft_error *why);
/* A link's: its first connection was granted (code > 0; once) or refused. */
void bridge_first_result(struct bridge_link *link, int result, const struct weft_error *why);
/* A lane's: whether the grant is what this bridge was made for; remembers the first.  -ESTALE, or -EOPNOTSUPP: it can do less. */
int bridge_check_grant(struct bridge_donor *donor, const struct tp_info *info, struct weft_error *err);

/*
 * donor.c: the generation and the way that all lanes share.  Lanes' threads.
 * Where to connect: 0, or -EAGAIN: another lane finds out; ask again soon.  lost: what was granted at the
 * generation is, so that the next one is due.
 */
int donor_where(struct bridge_donor *donor, uint64_t generation, bool lost, uint64_t *ret_generation, unsigned *ret_way);
/* A link was granted; or lost that.  way_changed: it is the first over another way. */
void donor_granted(struct bridge_donor *donor, uint64_t generation, unsigned way, const struct tp_info *info, bool *ret_way_changed);
void donor_lost(struct bridge_donor *donor, uint64_t generation, unsigned way, const struct weft_error *why);
/* Connecting at the generation failed: another way may be taken from now on.  True: at once. */
bool donor_refused(struct bridge_donor *donor, uint64_t generation, const struct weft_error *why);
/* The next generation, unless somebody has raised it already. */
void donor_raise(struct bridge_donor *donor, uint64_t generation);
/* A grant is kept for a take-over, before anything is asked under it; that something was written under it, before anybody learns of it.  0, or -errno. */
int donor_note_granted(struct bridge_donor *donor, uint64_t generation);
int donor_note_wrote(struct bridge_donor *donor, uint64_t generation);
/* The highest generation that is kept so; 0: none, or the contents cannot be put back. */
uint64_t donor_noted(struct bridge_donor *donor);
/* What a hello to it says of what is remembered. */
void donor_claim(const struct bridge_donor *donor, struct weft_hello *hello);
/* What was sent at sent_ns (weft_boottime_ns()) was a sign of life, and the donor has answered it. */
void donor_renew_lease(struct bridge_donor *donor, uint64_t sent_ns, uint32_t lease_ms);
/* A scout's: whether to look, and over which way; begins, or ends, the move to the next generation. */
bool donor_may_look(struct bridge_donor *donor, unsigned *ret_way, uint64_t *ret_wait_ns);
void donor_look_failed(struct bridge_donor *donor, const struct weft_error *why);
bool donor_move_begin(struct bridge_donor *donor, uint64_t generation);
void donor_move_end(struct bridge_donor *donor, bool moved, uint64_t generation, unsigned way);
/* Fills it for the bridge's status. */
json_t *donor_status(struct bridge_donor *donor);

/* place.c: the first donor was granted, all lanes run, and none of their buffers is used.  0, or -errno when those cannot be made anew. */
int bridge_place_first(struct bridge *bridge, struct weft_error *err);
json_t *bridge_place_json(const struct bridge *bridge);

void bridge_wake_lanes(struct bridge *bridge);
/* Any thread: tells whoever wants to know that the state may be another. */
void bridge_changed(const struct bridge *bridge);

static inline void op_list_init(struct op_list *list)
{
	list->head = NULL;
	list->tail = &list->head;
	list->nr = 0;
}

static inline void op_list_push(struct op_list *list, struct bridge_op *op)
{
	op->next = NULL;
	*list->tail = op;
	list->tail = &op->next;
	list->nr++;
}

static inline struct bridge_op *op_list_pop(struct op_list *list)
{
	struct bridge_op *op = list->head;

	if (!op)
		return NULL;
	list->head = op->next;
	if (!list->head)
		list->tail = &list->head;
	list->nr--;
	return op;
}

#endif
