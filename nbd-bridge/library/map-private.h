/* SPDX-License-Identifier: MIT */
/*
 * What the files of weft_map() share.
 *
 * A map is cut into units.  A unit that is here has a frame, and a frame has a slot: as many bytes
 * of the staging area.  A frame's pages lie either in its slot or in the map, and UFFDIO_MOVE takes
 * them from one to the other.  So pages are neither allocated nor copied when units come and go,
 * and no more of them exist than frames.
 *
 *      donor --READ--> slot --MOVE--> map --MOVE--> slot --copy, WRITE--> donor
 *
 * The first unit of a frame whose slot has no memory yet is copied into the map (UFFDIO_COPY) from
 * a buffer of its handler: the kernel takes longer to find pages and clear them.
 *
 * Writes are found, never caught.  A page is write-protected when somebody looks at it, and the
 * kernel takes the protection away at the first write (UFFD_FEATURE_WP_ASYNC); PAGEMAP_SCAN tells
 * the pages without it, and protects them again.  A page that moves has no protection, and there
 * are times in which a write leaves no mark: between a scan and a MOVE out, and between a MOVE in
 * and the first look.  So the bytes themselves decide there: a page that nobody called dirty is
 * dirty if its hash is not that of the bytes that the donor has, or was sent.
 *
 * That is the paged mode.  In the others (map-shared.c) slot and map are the same pages.  Which of
 * them were written is found by hashes alone, and a write to a unit that was looked at is a fault.
 *
 * Threads: the handlers take faults (map-handlers.c).  The pump fetches ahead, writes back and
 * heals (map-pump.c, map-write.c); another thread makes room, and looks for dirt (map-room.c).
 * Callers of weft_map_*() mark what they want, and wait.
 *
 * Invariants: m->lock is held for moments, and never while anybody touches the map, waits for the
 * network, or allocates.  Whoever changes a frame's state owns the frame's pages until the next
 * change: in FETCHING, LEAVING and RETURNING nobody else touches them, and with `copying` set they
 * stay where they are.  Handlers never touch the map.
 */
#ifndef WEFT_NBD_BRIDGE_LIBRARY_MAP_PRIVATE_H
#define WEFT_NBD_BRIDGE_LIBRARY_MAP_PRIVATE_H

#include <sched.h>

#include "fabric/base/error.h"
#include "nbd-bridge/library/weft-private.h"

enum {
	MAP_HANDLERS_MAX = 8,
	MAP_READS = 16,         /* the pump's, at a time */
	MAP_WRITES_MAX = 32,
	MAP_WRITE_BYTES = 64 << 10, /* or one unit */
	MAP_WRITE_UNITS = 16,
	MAP_MASK_BITS = 64,     /* a frame tells so many grains apart */
	MAP_GRAIN_MAX = 64 << 10,
	MAP_STREAMS = 8,
	MAP_WANTS = 64,
	MAP_MIN_FRAMES = 16,
	MAP_TOGETHER = 8, /* WRITEs: the donor works on these while the next are prepared */
	MAP_COPIES = MAP_TOGETHER * MAP_WRITE_UNITS,
	MAP_RUN_MAX = 64,       /* frames */
	MAP_RUN_BYTES = 512 << 10,
};

/* In place of a frame's number and 1; 0: the unit is absent. */
#define MAP_POISONED UINT32_MAX
#define MAP_POISONED_NOW (UINT32_MAX - 1) /* since the donor was last found to be read again */
#define MAP_HEALING (UINT32_MAX - 2)      /* the pump is about to make it absent */
#define MAP_NO_FRAME UINT32_MAX
#define MAP_NO_UNIT UINT64_MAX
/* Between two looks whether what is poisoned can be read again, and before the first. */
#define MAP_HEAL_NS UINT64_C(200000000)

enum frame_state {
	FRAME_FREE,      /* waits for a unit */
	FRAME_FETCHING,  /* waits for its READ, which goes into the slot */
	FRAME_RESIDENT,  /* in the map */
	FRAME_LEAVING,   /* waits for the MOVE out of the map */
	FRAME_STAGED,    /* in the slot; waits to be written back, or to be used for another unit */
	FRAME_RETURNING, /* waits for the MOVE into the map */
};

struct map_frame {
	uint8_t state; /* enum frame_state */
	bool copying;  /* somebody reads the pages, wherever they are: they stay there */
	bool wanted;   /* a thread waits for the unit: into the map as soon as that can be */
	bool unsure;   /* pages that nobody called dirty may be: the hash says */
	bool ahead;    /* nobody has asked for the unit yet */
	bool stays_staged; /* FETCHING: not into the map; the fault on it asks for more */
	bool awaited; /* somebody waits at `changed` for the frame */
	bool alone;   /* its last WRITE failed: the next one is of no other */
	bool warm; /* the slot has memory, or gets the pages back, when the frame is free */
	uint32_t unit;
	uint64_t dirty;   /* grains whose bytes the donor was not sent */
	uint64_t writing; /* grains that a WRITE has under way; none of them is sent again */
	uint64_t hashed;  /* STAGED: grains whose hashes are those of the bytes in the slot */
	uint64_t dirty_seq, writing_seq; /* of the oldest of them */
	uint64_t dirty_ns;               /* when it was found */
	struct map_list *list;  /* FREE, RESIDENT, clean and STAGED: in one */
	uint32_t prev, next;
	bool in_dirty, urgent;  /* in that list */
	uint32_t dirty_prev, dirty_next;
};

/* Frames, the oldest first. */
struct map_list {
	uint32_t first, last, nr;
};

/* What a WRITE has of one unit. */
struct map_part {
	uint32_t frame;
	uint64_t grains; /* one after the other */
};

/* An operation of the pump. */
struct map_io {
	struct command command;
	struct weft_map *m;
	uint32_t frame, nr; /* the first frame, and of how many units, which follow one another */
	struct map_part parts[MAP_WRITE_UNITS]; /* a WRITE's: nr, without a gap between them */
	uint8_t *buf;                           /* a WRITE's */
	struct map_io *next;
};

/* Faults that follow one another at the same distance. */
struct map_stream {
	/* Groups of m->around units. */
	uint64_t last;   /* that of the newest */
	int64_t step;    /* 0: there was but one */
	uint64_t ahead;  /* groups from last on, step by step, that were asked for */
	uint32_t window;
	uint64_t used;   /* when, to find the oldest */
};

struct map_want {
	uint64_t unit, nr;
	int64_t step;
	uint64_t stays; /* the unit that stays staged, or MAP_NO_UNIT */
};

/* A unit that threads wait for and no handler fetches. */
struct map_demand {
	uint32_t unit;
	uint64_t since_ns;
};

struct map_counts {
	uint64_t faults, waits, fetched, ahead, ahead_used, returned, evicted, evicted_dirty;
	uint64_t pinned, read_bytes, written_bytes, write_errors, poisoned;
};

struct map_handler {
	struct weft_map *m;
	pthread_t thread;
	int epoll_fd;
	int cpu;      /* that it stays on; -1: any */
	int seen_cpu; /* where the thread ran that it looked for last; -1: not known */
	unsigned nr_served;
	bool spare;
	uint8_t *bounce; /* for READs whose frame's slot has no memory; NULL: into the slot */
};

struct weft_map {
	struct weft *w;
	struct weft_map *next; /* of the handle, under its lock */
	const struct map_mode *mode;
	int uffd, pagemap, stop_fd;
	int file, empty; /* the modes' that share; -1 */
	bool read_only, user_faults_only;
	bool protects; /* a write to a page that was looked at leaves a mark, or is a fault */
	bool overlays; /* SIGBUS is the empty file in a unit's place */
	_Atomic bool overlaid; /* it was, somewhere */
	struct tp_mem **slots; /* for each lane: the slots, registered; NULL: they need not be */
	uint8_t *base;   /* of the map */
	uint8_t *stage;  /* the slots */
	uint64_t off;    /* in the region */
	uint64_t len, map_bytes; /* map_bytes: whole pages */
	uint64_t unit_bytes, nr_units, grain_bytes;
	unsigned grains; /* of a unit */
	uint32_t nr_frames;
	uint32_t run_max; /* frames that are fetched or moved together */
	uint32_t write_units; /* that go home together */
	/* A fault has the pump fetch the others of so many units, which begin at a multiple. */
	uint32_t around;
	uint64_t hash_seed;
	uint64_t dead_ns; /* how long a fault waits for room: as a call for the donor */
	void (*on_lost)(void *ctx, int error);
	void *on_lost_ctx;
	struct map_handler handlers[MAP_HANDLERS_MAX + 1];
	unsigned nr_handlers, nr_threads;
	cpu_set_t cpus; /* that handlers may use */
	pthread_t pump, room;
	bool pump_runs, room_runs;
	_Atomic bool stop; /* these two; the handlers stop after them, which may fault */
	_Atomic bool stop_handlers;
	_Atomic unsigned nr_knocking; /* handlers that want `lock` */
	_Atomic unsigned nr_to_scan;  /* who wants `scan_lock` */
	/* Held until what a scan took is marked; taken before `lock`. */
	pthread_mutex_t scan_lock;
	pthread_mutex_t lock;
	/* Under the lock. */
	pthread_cond_t changed; /* a frame's state, or its dirt; see map_changed() */
	unsigned nr_waiting;    /* there, whatever changes */
	pthread_cond_t news_cond;
	pthread_cond_t room_cond;
	bool wants_room;
	uint64_t scan_ns, scan_every_ns; /* when somebody looks for dirt */
	bool scan_asked; /* somebody else has said when, since the last look began */
	uint32_t *units;        /* frame + 1, MAP_POISONED(_NOW), MAP_HEALING, or 0 */
	struct map_frame *frames;
	uint64_t *hashes;       /* of grains; belong to whoever owns the pages */
	uint64_t *written;      /* for each unit the grains that weft_map_dirty() tells of */
	struct map_list free, resident, clean;
	struct map_list urgent, aged; /* by dirty_prev, dirty_next */
	unsigned nr_direct;     /* handlers that wait for the network */
	uint64_t nr_dirty_grains, nr_poisoned;
	uint64_t seq;
	uint64_t nr_write_errors;
	int write_error;        /* the newest */
	uint64_t retry_ns;      /* after an error nothing is written before, but at sync */
	int lost;               /* 0, or -errno */
	bool lost_done;         /* no page is in the map any more; on_lost is called after that */
	unsigned lost_tries;
	uint32_t forced;        /* copied where it is, as its pages cannot be moved; MAP_NO_FRAME */
	struct map_stream streams[MAP_STREAMS];
	uint64_t stream_clock;
	struct map_want wants[MAP_WANTS];   /* ahead of faults */
	unsigned want_first, want_nr;
	struct map_demand demand[MAP_WANTS]; /* the oldest first */
	unsigned demand_first, demand_nr;
	bool random;
	struct map_counts counts;
	/* The pump's. */
	struct map_io *ios_free[2]; /* [0]: reads, [1]: writes */
	struct map_io *ios;
	struct map_io *submitted, **submitted_tail; /* to be sent together */
	unsigned nr_submitted;
	unsigned nr_ios, nr_writes, nr_in_flight;
	uint8_t *bounce;
	struct library_lane *lane; /* that its operations were sent to last */
	uint64_t heal_ns;
	_Atomic(struct map_io *) done;
	_Atomic uint64_t news;
	_Atomic(struct lane_drive *) waits_at; /* the pump waits there for `news` */
	bool waits_here;                       /* it waits for news_cond; under the lock */
};

/* ---- Ways of putting pages into the map, and out: map-paged.c, map-shared.c ---- */

struct map_mode {
	const char *name;
	bool keeps;  /* what was hidden lies in the slot, so that it can be shown again */
	bool shares; /* slots are the same pages as the map's, at the unit's place */
	bool whole;  /* there is room for every unit, and none is taken out */
	/*
	 * show: from the slots into the map, and wakes who waits there.  hide: out of the map, into
	 * the slots where the mode keeps; ret_written, one for each frame, gets the grains that are
	 * known to have been written.  Both of nr frames from the first on, of units that follow
	 * one another.  0, or -errno with the pages where they were: -EBUSY (somebody has pinned
	 * one), -ENOENT (somebody has taken one out of the map).
	 */
	int (*show)(struct weft_map *m, uint32_t frame, uint32_t nr);
	int (*hide)(struct weft_map *m, uint32_t frame, uint32_t nr, uint64_t *ret_written);
	/*
	 * show, of bytes that lie elsewhere: the slot gets no memory for them.  NULL: they lie in
	 * the slot.
	 */
	int (*copy)(struct weft_map *m, uint32_t frame, const uint8_t *bytes);
	/*
	 * Frees the slot's memory, before the frame is another unit's.  NULL: slots are used again.
	 */
	void (*drop)(struct weft_map *m, uint32_t frame);
};

extern const struct map_mode map_paged, map_paged_read_only, map_compat, map_resident;

/*
 * Asks the kernel what it can do, chooses the mode (enum weft_map_mode), and opens the descriptors.
 * 0, or -errno.
 */
int map_probe(struct weft_map *m, unsigned flags, unsigned mode, struct weft_error *err);
/* Makes the mappings.  0, or -errno. */
int map_make_mappings(struct weft_map *m, struct weft_error *err);
void map_end_mappings(struct weft_map *m);
/* Gives the slots' memory up; the frames' pages are the caller's, and no mapping is shared. */
void map_drop_slots(struct weft_map *m, uint32_t frame, uint32_t nr);
/* Gets memory for slots that have none, at once: a fault for each page takes twice as long. */
void map_warm_slots(uint8_t *slots, uint64_t bytes);
void map_wake(struct weft_map *m, uint64_t unit);
void map_wake_range(struct weft_map *m, const uint8_t *at, uint64_t bytes);
/* The kernel said EAGAIN: a page is locked, or the mappings change.  *nr: how often so far. */
void map_pause(struct weft_map *m, unsigned *nr);
/* Protects pages from writes, or ends that and wakes who waits.  0, or -errno. */
int map_protect(struct weft_map *m, const uint8_t *at, uint64_t bytes, bool protects);
/* Accesses of the unit, which has no page in the map, are SIGBUS from now on. */
int map_poison(struct weft_map *m, uint64_t unit);
/* No page is in the map: where each unit would be a mapping of its own, one is enough. */
void map_poison_all(struct weft_map *m);
/*
 * Copies bytes of a frame from where they are.  -EFAULT: the program has dropped pages that are its
 * own bytes; who touched those would get the program's SIGBUS.
 */
int map_read(const struct weft_map *m, uint32_t frame, uint64_t first, void *to, uint64_t len);
/* The same of several frames, MAP_COPIES at most. */
struct map_copy {
	uint32_t frame;
	uint64_t first, len;
	void *to;
	int error; /* what came of it */
};
void map_read_all(const struct weft_map *m, struct map_copy *copies, unsigned nr);
/*
 * A fault in a unit that is in the map: the page came meanwhile, or the program has dropped it,
 * with its bytes.  If it is gone, accesses are SIGBUS from now on.  One that is here stays, and one
 * in swap space too; such a page counts as written then.
 */
void map_poison_page_that_is_gone(struct weft_map *m, uint64_t address);
/* The pages of nr units are missing in the map from now on.  0, or -errno. */
int map_take_pages(struct weft_map *m, uint64_t unit, uint64_t nr);
/*
 * The units of [first, end) are not SIGBUS any more, but missing.  Without the lock, and no
 * handler: it may have to wait for one.  0, or -errno.
 */
int map_cure(struct weft_map *m, uint64_t first, uint64_t end);
/* The same for all units, none of which has pages any more.  0, or -errno. */
int map_cure_all(struct weft_map *m);
/*
 * Tells fn of all pages in [from, to) of the map that were written since they were protected, and
 * protects them again.  0, or -errno.
 */
int map_scan(struct weft_map *m, uint64_t from, uint64_t to,
	void (*fn)(struct weft_map *m, uint64_t from, uint64_t to));

/* ---- Frames: map-frames.c, map-moves.c; under the lock, which some release meanwhile ---- */

static inline uint64_t map_unit_off(const struct weft_map *m, uint64_t unit)
{
	return unit * m->unit_bytes;
}

/* Whole pages; the last unit may be shorter. */
static inline uint64_t map_unit_bytes(const struct weft_map *m, uint64_t unit)
{
	return weft_min(m->unit_bytes, m->map_bytes - map_unit_off(m, unit));
}

/* What the donor has of it. */
static inline uint64_t map_unit_data(const struct weft_map *m, uint64_t unit)
{
	return weft_min(m->unit_bytes, m->len - map_unit_off(m, unit));
}

static inline uint8_t *map_at(const struct weft_map *m, uint64_t unit)
{
	return m->base + map_unit_off(m, unit);
}

/* The bytes of nr units; the last may be shorter. */
static inline uint64_t map_run_bytes(const struct weft_map *m, uint64_t unit, uint64_t nr)
{
	return weft_min(nr * m->unit_bytes, m->map_bytes - map_unit_off(m, unit));
}

static inline uint64_t map_run_data(const struct weft_map *m, uint64_t unit, uint64_t nr)
{
	return weft_min(nr * m->unit_bytes, m->len - map_unit_off(m, unit));
}

/* Units from this one on that go together: of one donor, so that they wait for no other. */
static inline uint32_t map_run_from(const struct weft_map *m, uint64_t unit, uint64_t nr)
{
	const uint64_t stripe = m->w->stripe_bytes, at = m->off + map_unit_off(m, unit);
	const uint64_t left = stripe ? stripe - at % stripe : UINT64_MAX;

	return (uint32_t)weft_max(weft_min(weft_min(nr, m->run_max), left / m->unit_bytes), 1);
}

static inline uint8_t *map_slot(const struct weft_map *m, uint32_t frame)
{
	return m->stage +
		(m->mode->shares ? map_unit_off(m, m->frames[frame].unit)
				 : (uint64_t)frame * m->unit_bytes);
}

/* Under the lock. */
static inline bool map_is_poisoned(const struct weft_map *m, uint64_t unit)
{
	return m->units[unit] == MAP_POISONED || m->units[unit] == MAP_POISONED_NOW;
}

/* All grains of the unit. */
uint64_t map_unit_grains(const struct weft_map *m, uint64_t unit);
/* The frame of a unit that has one, or MAP_NO_FRAME. */
uint32_t map_frame_of(const struct weft_map *m, uint64_t unit);

/*
 * A mutex goes to a thread that runs before it goes to one that waits for it.  Whoever holds the
 * lock for long calls this in between, so that handlers get it.  Releases the lock.
 */
void map_let_handlers_in(struct weft_map *m);
/* The frame's state or dirt has changed: tells who waits for that. */
void map_changed(struct weft_map *m, uint32_t frame);
/* Waits for a change of the frame, or of what is no frame's. */
void map_wait_for_change(struct weft_map *m, uint32_t frame);

void map_list_init(struct map_list *list);
void map_list_add(struct weft_map *m, struct map_list *list, uint32_t frame);
void map_list_remove(struct weft_map *m, uint32_t frame);

/* Frames that are to be at hand; and has room made for them, if it gets short. */
uint32_t map_wanted_room(const struct weft_map *m);
void map_keep_room(struct weft_map *m);

/* The frame's grains are dirty; seq: 0 if they may have been for long. */
void map_mark_dirty(struct weft_map *m, uint32_t frame, uint64_t grains, uint64_t seq);
/* Puts a frame with dirt in front of those that have time. */
void map_make_urgent(struct weft_map *m, uint32_t frame);
/* The frame is in no list of dirty ones any more. */
void map_undirty(struct weft_map *m, uint32_t frame);

/*
 * A frame for the unit, which is absent; its state is FETCHING.  Evicts, but waits for nothing:
 * MAP_NO_FRAME: all frames hold what has to be written back first, or are in use.  Releases the
 * lock; *ret_absent: the unit is still absent (else there is no frame).
 */
uint32_t map_take_frame(struct weft_map *m, uint64_t unit, bool *ret_absent);
/*
 * The same for up to nr units from this one on, as many as there are frames side by side at hand:
 * *ret_nr.  The first of the frames.
 */
uint32_t map_take_run(struct weft_map *m, uint64_t unit, uint32_t nr, uint32_t *ret_nr,
	bool *ret_absent);
/* Gives back a frame that was FETCHING: its unit is absent again.  May release the lock before. */
void map_put_frame(struct weft_map *m, uint32_t frame);
/* The same for one that is staged and clean. */
void map_empty_frame(struct weft_map *m, uint32_t frame);
/*
 * What was fetched is in the slots of nr frames, of a run: hashes it and shows it, or leaves one
 * staged.  elsewhere: where the one unit is, if it is not in the slot; then somebody waits
 * for it.
 */
void map_fetched(struct weft_map *m, uint32_t frame, uint32_t nr, const uint8_t *elsewhere);
/* Staged frames, of a run, go back into the map. */
void map_bring_back(struct weft_map *m, uint32_t frame, uint32_t nr);
/*
 * Takes a resident frame out of the map.  0: it is staged and clean; 1: it has to be written back,
 * or is in the map again; or -errno.
 */
int map_evict_frame(struct weft_map *m, uint32_t frame);
/* Evicts until so many frames are at hand, or one that is resident cannot be. */
void map_make_room(struct weft_map *m, uint32_t nr);
/* A staged frame without dirt: others may have it. */
void map_settle(struct weft_map *m, uint32_t frame);
/* The hash of a grain. */
uint64_t map_hash_of(const struct weft_map *m, const uint8_t *bytes, uint64_t len);
/* The hashes of a run of the frame's grains; `bytes` are the run's, and the caller's. */
void map_hash(struct weft_map *m, uint32_t frame, uint64_t grains, const uint8_t *bytes);
/* The grains of those whose bytes are not what was hashed; their hashes are the bytes' now. */
uint64_t map_differing(struct weft_map *m, uint32_t frame, uint64_t grains, const uint8_t *bytes);
/* The unit cannot be had: poisons it, whoever waits for it. */
void map_fail_unit(struct weft_map *m, uint64_t unit, int error);

/* There is something for the pump to do.  Never inside a completion. */
void map_tell_pump(struct weft_map *m);

/* ---- Streams: map-ahead.c; under the lock ---- */

void map_note_fault(struct weft_map *m, uint64_t unit);
bool map_want(struct weft_map *m, uint64_t unit, uint64_t nr, int64_t step, uint64_t stays);
/* The unit is being fetched: the others of its group are wanted. */
void map_want_around(struct weft_map *m, uint64_t unit);

/* ---- map-fault.c, map-handlers.c ---- */

/*
 * Somebody waits for the unit, which is absent: the pump fetches it.  False: too much was asked
 * for, ask again.  Under the lock.
 */
bool map_demand(struct weft_map *m, uint64_t unit);
/* The program has touched the address, which was missing, or protected from writes. */
void map_serve(struct map_handler *handler, uint64_t address, bool is_protected);
int map_start_handlers(struct weft_map *m, struct weft_error *err);
void map_join_handlers(struct weft_map *m);

/* ---- map-pump.c ---- */

int map_pump_init(struct weft_map *m, struct weft_error *err);
int map_start_pump(struct weft_map *m, struct weft_error *err);
void map_join_pump(struct weft_map *m);
void map_pump_fini(struct weft_map *m);

/* ---- map-write.c; the pump's, under the lock ---- */

/*
 * What is to be written back, if there is anything.  The frames' pages stay where they are until
 * they are copied.
 */
bool map_choose_write(struct weft_map *m, struct map_io *io);
/*
 * Copies what was chosen: the command's status says what came of it.  The bytes may change
 * meanwhile, if they are in the map: then they are dirty again.  Releases the lock.
 */
void map_copy_writes(struct weft_map *m, struct map_io **ios, unsigned nr);
/* Where the WRITE goes, in the map. */
void map_write_place(const struct weft_map *m, const struct map_io *io, uint64_t *ret_off,
	uint64_t *ret_len);
/* The command's status says how. */
void map_write_ended(struct weft_map *m, struct map_io *io);

/* ---- map-room.c ---- */

/* Under the lock: the next look for dirt. */
void map_look_for_dirt_at(struct weft_map *m, uint64_t ns);
int map_start_room(struct weft_map *m, struct weft_error *err);
void map_join_room(struct weft_map *m);

/* ---- map-lost.c ---- */

/*
 * The pump, under the lock: looks whether the contents are gone, and if so takes all pages out of
 * the map, and tells the program.
 */
void map_look_whether_lost(struct weft_map *m);
/* A fault, under the lock, after the contents were lost, at a unit that has a frame. */
void map_lost_fault(struct weft_map *m, uint64_t unit);

/* ---- map-sync.c ---- */

/* Marks what was written in the units of [from, to); the pump's, or a caller's. */
int map_collect(struct weft_map *m, uint64_t from, uint64_t to);
/*
 * Marks what was written between a move into the map and the first look, which a scan does not
 * see.  Under the lock, which it releases; does nothing for a frame that is not unsure.
 */
void map_look_at_bytes(struct weft_map *m, uint32_t frame);
/* As weft_map_sync(), without a flush. */
int map_sync_units(struct weft_map *m, uint64_t first, uint64_t end);

#endif
