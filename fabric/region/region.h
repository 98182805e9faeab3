/* SPDX-License-Identifier: MIT */
/*
 * A region: a named, fixed-size span of bytes that a donor lends, and its epoch.
 *
 * Threads: read, write, zero, trim, flush and extents may be called from any number of
 * threads at once; everything else from the thread that owns the donor.
 * References: a region lives until the last weft_region_put().
 */
#ifndef WEFT_FABRIC_REGION_REGION_H
#define WEFT_FABRIC_REGION_REGION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/copying.h"
#include "fabric/stripe.h"

struct weft_hasher;

enum weft_backing {
	WEFT_BACKING_MEMORY, /* a memfd, mapped whole */
	WEFT_BACKING_FILE,   /* a regular file or a block device, through the page cache */
};

enum weft_numa {
	WEFT_NUMA_ANY,
	WEFT_NUMA_NODE,       /* spec->numa_node */
	WEFT_NUMA_NIC,        /* the node of the first network device that has one */
	WEFT_NUMA_INTERLEAVE, /* over all nodes */
};

struct weft_memory_spec {
	const char *name;
	uint64_t size_bytes;     /* > 0; rounded up to the page size in use */
	uint64_t hugepage_bytes; /* 0, 2 MiB or 1 GiB */
	enum weft_numa numa;
	unsigned numa_node;
	bool read_only;
	bool overcommit; /* lend more than is available */
	uint64_t epoch;  /* of contents that come from elsewhere; 0: they are new, and so is it */
	bool fills;      /* it may be lent before they are here: weft_region_begin_fill() */
};

/*
 * FILE: contents that go to another donor, or come from one (fabric/move/), as the mark has it.
 * They go on under their epoch only at the donor of that number, whose notes of the move say whose
 * they are; whoever else opens the file begins a new epoch.
 */
enum weft_transfer_way { WEFT_TRANSFER_NONE, WEFT_LEAVES, WEFT_COMES };
struct weft_transfer {
	enum weft_transfer_way way;
	uint64_t donor; /* 0: they are nobody's any more */
	uint64_t move;
};

/*
 * The facts that must outlive the daemon, in a small memfd of their own, mapped shared.  The holder
 * and the descriptor store keep it too.  The magic is its version.
 */
struct weft_region_header;

struct weft_region {
	/* UTF-8 without control characters, at most 4096 bytes; MEMORY: WEFT_MEMORY_NAME_MAX */
	char *name;
	char *description; /* for people: "memory, 1 GiB" */
	uint64_t size_bytes;
	enum weft_backing backing;
	bool read_only;
	int fd;
	uint8_t *map;    /* MEMORY: size_bytes, page-aligned; else NULL */
	uint64_t epoch;  /* constant for the life of this struct */
	/* no two regions of a process have the same; one that is opened again has another */
	uint64_t number;
	struct weft_region_header *header; /* MEMORY: mapped; else NULL */
	int header_fd;
	_Atomic unsigned refs;
	_Atomic bool dirty; /* FILE: written since the last flush */
	bool locked;        /* MEMORY: the system does not swap it out */
	/* Private. */
	uint64_t page_bytes;   /* MEMORY: of the pages in use */
	_Atomic bool punched;  /* MEMORY: may have holes */
	_Atomic unsigned nr_pins, nr_punching; /* MEMORY: weft_region_pin() */
	/*
	 * FILE: -errno of the write-back that failed, or -EUCLEAN: the file is another now.  From
	 * then on everything fails with -EIO
	 */
	_Atomic int lost;
	bool was_clean;        /* FILE: opened under the epoch of a clean mark */
	/* FILE: the mark when it was opened, whatever it said; 0: there was none */
	uint64_t marked_epoch;
	struct weft_transfer marked_transfer;
	/* FILE: of a move that is under way; the end makes no mark clean then */
	struct weft_transfer transfer;
	_Atomic bool settled;  /* FILE: weft_region_settle() */
	bool has_name;         /* FILE: in some directory, when it was opened */
	/* FILE: 0, or a block device's block size: it can zero and discard whole blocks only */
	uint32_t block_bytes;
	_Atomic bool marked;   /* FILE: the mark says "open": it may be written */
	pthread_mutex_t flush_lock;
	struct region_stage *stage; /* FILE: weft_region_stage() */
	/* FILE, or with a promise_path: the notes of who holds the region */
	struct region_note *note;
	char *promise_path;         /* of weft_region_keep_promises(); NULL: it was not called */
	/* guards that file (flush_lock may be held for as long as a whole disk is flushed) */
	pthread_mutex_t promise_lock;
	/* weft_region_track(); a bit for each chunk, and how long a writer has to wait */
	_Atomic bool tracked;
	_Atomic uint64_t *changes;
	_Atomic uint64_t pace_ns_per_mib;
	pthread_mutex_t reports_lock;
	struct weft_report *reports; /* weft_region_begin_report() */
	/* MEMORY that fills: chunks are absent; a bit for each, which outlives the daemon */
	_Atomic bool filling;
	_Atomic uint64_t *absent;
	struct region_fill *fill;
	/* The donor's, under its lock. */
	struct donor_move *move; /* to another donor, if it moves */
	bool evicted;            /* nobody is granted it any more */
	/* WEFT_NR_GENERATIONS of them, in the header if there is one */
	struct weft_generation *generations;
	/*
	 * FILE: what keeps the contents in place of a file; ops NULL: nothing does.  The contents
	 * are in memory, and fd is where the mark is, or a file of nobody's.
	 */
	const struct weft_store_ops *store_ops;
	void *store;
	uint64_t store_block_bytes; /* it is written in whole blocks of so many */
	/* of the last access to the store; 0: all that was flushed is there */
	_Atomic int store_error;
	/* FILE: a report said that the file is no longer what was opened; the reporting thread's */
	bool reported;
	uint64_t table_seq; /* counts changes of that table */
	uint64_t tenure;    /* see donor.h */
	/*
	 * Whose the tenure is: a hash of a name; 0: nobody's yet.  And by which tenure that one is
	 * known: this one, or an earlier one.
	 */
	uint64_t tenure_owner, owner_tenure;
	uint64_t turn; /* counts changes of these */
	/* see fabric/marking.h; 0: nobody has looked at it yet.  CLOCK_BOOTTIME */
	uint64_t mark, mark_since_ns;
	bool was_marked; /* since this donor has the region open */
	/* which part of a device the contents are; count 0: nobody has said so yet */
	struct weft_stripe stripe;
	struct weft_copies copies; /* set 0: of no device that is known */
	/* until then holders of contents that are gone may answer from memory; 0: nobody may */
	uint64_t grace_until_ns;
	/* the longest lease that holders had been promised when the region was opened */
	uint32_t promised_lease_ms;
	/* FILE: a device, or in a file system without attributes: there are no marks */
	bool unmarked;
	/* the region may be written, and nothing says who held it, or under which lease */
	bool forgets;
	bool crashed;       /* the epoch is new, and somebody may hold the one before */
};

enum {
	WEFT_MEMORY_NAME_MAX = 255,
	/* no donor promises a longer lease: a mark with a longer one is damaged */
	WEFT_LEASE_MAX_S = 604800,
};

/* True for 1 to max bytes of UTF-8 without control characters, but for WEFT_EXPORT_SESSION. */
bool weft_region_name_valid(const char *name, size_t max);

/* Called now and then while memory is taken: done of total bytes.  Same thread as the caller. */
typedef void weft_progress_fn(void *ctx, uint64_t done, uint64_t total);

/*
 * Allocates and clears the memory, in parallel.  -ENOMEM: more than is available (the message says
 * how much is, and how to insist); -EINVAL: name, size; or what memfd_create(2), mmap(2) said.
 */
int weft_region_new_memory(const struct weft_memory_spec *spec, weft_progress_fn *progress,
	void *ctx, struct weft_region **ret, struct weft_error *err);

/*
 * Takes over the two descriptors of a memory region that a daemon left behind.  The fds become the
 * region's, on success only.  -ESTALE: header and memory do not belong together, or another
 * version.
 */
int weft_region_adopt(int fd, int header_fd, bool read_only, struct weft_region **ret,
	struct weft_error *err);

/*
 * Reads name, size and epoch from the header, without adopting.  0; -ESTALE: not a header of this
 * version.
 */
int weft_region_peek(int header_fd, char name[WEFT_MEMORY_NAME_MAX + 1], uint64_t *ret_size_bytes,
	uint64_t *ret_epoch);

/*
 * The content of the regular file `path`, or of the block device, is the region (dirfd as
 * openat(2); beneath: refuse anything that leaves dirfd by name or by link, openat2(2)
 * RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS).  A file that may only be read becomes a read-only region.
 * A file keeps its epoch and its table of attachments over a clean stop, by a mark in an extended
 * attribute, which is "open" from the first write on; otherwise the epoch is new.  A read-only
 * file's epoch is made from the mark: other contents, or another mark, are another epoch.  A device
 * has no mark.  A device that may be written is opened for us alone (O_EXCL), and none is served
 * from below a directory.  -EISDIR, -ENOTSUP: neither; -ENODATA: empty; -EBUSY: another daemon
 * serves it (flock(2)), or a device is in use; or what open(2) said.
 */
int weft_region_open_file(int dirfd, const char *path, const char *name, bool beneath,
	bool read_only, struct weft_region **ret, struct weft_error *err);

/*
 * A new file of the directory, of zeros, for contents of that epoch that come by a move.  Its path
 * is directory/name.  -EINVAL: no name for a file; -EEXIST: there is one already; -ENOTSUP: the
 * file system has no attributes; -ENOSPC; or what open(2) said.
 */
struct weft_file_spec {
	const char *directory, *name;
	uint64_t size_bytes, epoch;
	struct weft_transfer transfer; /* WEFT_COMES */
};
int weft_region_new_file(const struct weft_file_spec *spec, struct weft_region **ret,
	struct weft_error *err);
/* Whether a new file could have that name. */
bool weft_region_file_name_valid(const char *name);
/*
 * FILE, which nobody writes: all of it is durable afterwards, with the epoch, the table and the
 * lease in the mark, which says that the contents are the transfer's.  Then the file cannot be
 * written, and no table is noted, until weft_region_release().  Blocks.  0, or -errno: the mark is
 * what it was, or the new one.
 */
int weft_region_settle(struct weft_region *region, const struct weft_transfer *transfer,
	const struct weft_generation *table, uint32_t lease_ms);
/*
 * FILE: what was written of the range is on its way to the disk; len 0: to the end.  A flush that
 * comes soon is short then.  Nothing is waited for, and nothing promised.
 */
void weft_region_begin_flush(struct weft_region *region, uint64_t off, uint64_t len);
/* The contents are lent: the next grant makes the mark a clean one. */
void weft_region_release(struct weft_region *region);
/* Of a file that was opened: its contents go on under the epoch of its mark, which has a transfer.
 */
void weft_region_go_on(struct weft_region *region);
/* … or they are not lent: the end leaves its mark alone. */
void weft_region_forgo(struct weft_region *region);

/*
 * Of a region that is closed: a new epoch, durably, for the same bytes.  0; or -errno of the mark.
 */
int weft_region_begin_epoch(struct weft_region *region);

/*
 * What keeps the contents of a region elsewhere, such as a server.  Blocks; called by one thread at
 * a time.  Each returns 0 or -errno; write() that returns -ETIMEDOUT or -ENOTCONN may be carried
 * out later still.  What was written may be lost until flush() has returned 0.
 */
struct weft_store_ops {
	int (*read)(void *store, void *buf, uint64_t off, uint64_t len);
	int (*write)(void *store, const void *buf, uint64_t off, uint64_t len);
	int (*flush)(void *store);
	void (*close)(void *store);
};
enum { WEFT_STORE_BLOCK_MAX = 256 << 10 };
struct weft_store_spec {
	const char *name, *place; /* place: for people */
	uint64_t size_bytes;
	/* a power of two, WEFT_STORE_BLOCK_MAX at most; size_bytes is a whole number of them */
	uint64_t block_bytes;
	bool read_only;
	/*
	 * The file whose attributes keep the mark, so that the epoch outlives a clean stop; made if
	 * it is not there.  NULL: each opening is a new epoch, as a device's.
	 */
	const char *mark_path;
	const struct weft_store_ops *ops;
	void *store; /* closed with the region, or when this fails */
};
typedef int weft_stage_fn(void *ctx, uint64_t done, uint64_t total);
/*
 * A FILE region whose contents a store keeps.  All of them are read into memory, and stay there, so
 * that nobody reads what the store had once; a flush writes back what changed.  When the store
 * fails, the flush fails, and the next one compares everything and tries again.  Blocks; wait (or
 * NULL) as below.  -ENOMEM: the contents do not fit; -EBUSY: another donor has the mark; or what
 * the store said.
 */
int weft_region_open_store(const struct weft_store_spec *spec, weft_stage_fn *wait, void *ctx,
	struct weft_region **ret, struct weft_error *err);

struct weft_region *weft_region_get(struct weft_region *region);
/*
 * Takes NULL.  The last reference's end unmaps and closes; before that a file region is flushed and
 * marked clean.
 */
void weft_region_put(struct weft_region *region);

/*
 * FILE regions only (a MEMORY region is accessed at map + off).  off + len inside the region:
 * asserted.  0, or -EIO, -ENOSPC and what pread(2), pwrite(2) said; a file that became shorter:
 * -EIO, and so for a change of a file that was removed, since nobody would ever find that change.
 * After a write-back error nobody knows which bytes reached the disk: everything fails with -EIO
 * from then on, until the file is opened anew (under a new epoch).
 */
int weft_region_read(struct weft_region *region, void *buf, uint64_t off, uint64_t len);
int weft_region_write(struct weft_region *region, const void *buf, uint64_t off, uint64_t len);

/*
 * FILE: whether the file is still what was opened, as far as the kernel knows without asking a
 * server: 0, or -EIO and err says what happened to the file.  MEMORY: 0.
 */
int weft_region_check(const struct weft_region *region, struct weft_error *err);
/*
 * As that, and -EIO while a store fails, although the contents are here and can be lent: for
 * people.
 */
int weft_region_trouble(const struct weft_region *region, struct weft_error *err);

/*
 * Both backings.  FILE: makes the data durable (fdatasync); MEMORY: nothing to do.  0, or -errno;
 * after one error every call fails.
 */
int weft_region_flush(struct weft_region *region);
/*
 * The range reads as zeros.  may_punch: a hole is allowed.  fast: -EOPNOTSUPP instead of writing
 * zeros.
 */
int weft_region_zero(struct weft_region *region, uint64_t off, uint64_t len, bool may_punch,
	bool fast);
/* Advisory; never fails for lack of support. */
int weft_region_trim(struct weft_region *region, uint64_t off, uint64_t len);

/*
 * MEMORY: while pinned (counted) no pages are given back to the system: a device that accesses them
 * would go on with the old pages.  weft_region_pin() waits for holes that are being made.  Any
 * thread.
 */
void weft_region_pin(struct weft_region *region);
void weft_region_unpin(struct weft_region *region);

/*
 * FILE: moves the contents into memory, where a device can reach them; all access goes there until
 * the last weft_region_unstage().  writable: the device may write.  Blocks; wait (or NULL) is
 * called now and then, and a negative return ends the move.  MEMORY: nothing to do.  0; -ENOMEM:
 * the file does not fit; -EIO, or what wait and pread(2) said.
 */
int weft_region_stage(struct weft_region *region, bool writable, weft_stage_fn *wait, void *ctx,
	struct weft_error *err);
/*
 * The last call writes changed bytes back, and the contents are in the file again.  Blocks.  0, or
 * an error of weft_region_flush(): then the contents stay in memory.
 */
int weft_region_unstage(struct weft_region *region);
/* Page-aligned; MEMORY, or FILE while staged. */
uint8_t *weft_region_memory(struct weft_region *region);
/*
 * While staged: notes that a device has changed the range, or that it has changed something. The
 * next flush makes the change durable.  Any thread.
 */
void weft_region_changed(struct weft_region *region, uint64_t off, uint64_t len);
void weft_region_changed_somewhere(struct weft_region *region);

/*
 * From now on it is noted which chunks change, by whoever says so with
 * weft_region_track_change().  A write that was under way when this began may be missing.  0, or
 * -ENOMEM.  The donor's lock is held; so for the end.
 */
int weft_region_track(struct weft_region *region);
void weft_region_untrack(struct weft_region *region);
static inline bool weft_region_is_tracked(const struct weft_region *region)
{
	return atomic_load_explicit(&region->tracked, memory_order_relaxed);
}
/*
 * The range, which is tracked, was changed; all of its bytes are there.  May wait as long as
 * writers are held back (pace_ns_per_mib).  Any thread.
 */
void weft_region_track_change(struct weft_region *region, uint64_t off, uint64_t len);
enum { WEFT_CHUNK_BYTES = 64 << 10 };
static inline uint64_t weft_region_nr_chunks(const struct weft_region *region)
{
	return (region->size_bytes + WEFT_CHUNK_BYTES - 1) / WEFT_CHUNK_BYTES;
}
/*
 * The changes since the last call, of nr chunks from the first on, into ret, a bit each, the lowest
 * of ret[0] for the first; what is told is forgotten.  first is a multiple of 64.  Any thread.
 */
void weft_region_take_changes(struct weft_region *region, uint64_t first, uint64_t nr,
	uint64_t *ret);

/*
 * What a session that writes past this process says of its writes, into bytes of its own, one for
 * each chunk.  Before it writes, it says that the chunk is open, and afterwards that it is closed;
 * each of its writes lands between the two.  While the report lasts, a chunk that is open counts as
 * changed each time that somebody asks, and one that is closed once.  reports.c.
 */
enum { WEFT_SAID_NOTHING, WEFT_SAID_OPEN, WEFT_SAID_CLOSED };
struct weft_report {
	/*
	 * The owner's: a byte for each of weft_region_nr_chunks(), rounded up to whole words, zeros
	 * at first.  What a peer writes there may be anything.
	 */
	_Atomic uint64_t *said;
	struct weft_report *next; /* private */
};
/*
 * end: after it nothing of the session lands any more, neither in the region nor in the bytes, and
 * what they say is remembered.  Any thread.
 */
void weft_region_begin_report(struct weft_region *region, struct weft_report *report);
void weft_region_end_report(struct weft_region *region, struct weft_report *report);

/*
 * MEMORY with spec->fills: the region is lent before its contents are here.  From now on every
 * chunk is absent, also for the next daemon, until weft_region_arrived(); before anybody touches a
 * range, weft_region_fetch() waits for what is absent of it.  0; -ETIMEDOUT: not all of it is here
 * yet; -EIO: what is absent is lost.  Any thread.
 */
void weft_region_begin_fill(struct weft_region *region);
static inline bool weft_region_is_filling(const struct weft_region *region)
{
	return atomic_load_explicit(&region->filling, memory_order_acquire);
}
int weft_region_fetch(struct weft_region *region, uint64_t off, uint64_t len, uint32_t timeout_ms);
/*
 * For the one thread that fetches.  take_wanted: chunks that are waited for, at most max, of which
 * some may be here by now; next_absent: the first from a chunk on, or their number; arrived: the
 * bytes of the chunk are there, returns how many are absent still; lose_absent: there is no hope
 * for what is absent.
 */
unsigned weft_region_take_wanted(struct weft_region *region, uint64_t *ret, unsigned max);
uint64_t weft_region_next_absent(const struct weft_region *region, uint64_t from);
uint64_t weft_region_arrived(struct weft_region *region, uint64_t chunk);
void weft_region_lose_absent(struct weft_region *region);

/*
 * Under which key attachments' ids are hashed.  MEMORY: it is the boot's id, unless the contents
 * came from elsewhere with their table: then it is that one's.  FILE: the mark has it.  get: into
 * ret of WEFT_ID_KEY_BYTES.
 */
enum { WEFT_ID_KEY_BYTES = 16 };
void weft_region_get_id_key(const struct weft_region *region, uint8_t *ret);
void weft_region_set_id_key(struct weft_region *region, const uint8_t *key);

/*
 * One run of equal allocation from off: at most len bytes.  Never fails: unknown parts count as
 * data.
 */
struct weft_extent {
	uint64_t len;
	bool hole; /* not allocated, reads as zeros */
};
struct weft_extent weft_region_extent(struct weft_region *region, uint64_t off, uint64_t len);

/*
 * The hashes of the blocks of a range inside the region, weft_hash_nr_blocks() of them.  scratch:
 * WEFT_HASH_BLOCK_MAX bytes, for this call alone.  The blocks are those of some moment of the call,
 * each of its own.  0, or as weft_region_read().
 */
int weft_region_hash(struct weft_region *region, const struct weft_hasher *hasher,
	uint32_t block_bytes, uint64_t off, uint64_t len, void *scratch, uint8_t *ret);

/*
 * The table of attachments, which is kept as long as the contents: MEMORY in the header, which
 * outlives the daemon; FILE in the mark.  The table is bounded: when it is full, of the entries
 * that hold nothing the one that was not used for longest is forgotten.  Not thread-safe: the donor
 * calls them under its lock.
 */
enum weft_lapsed {
	WEFT_NOT_LAPSED,
	WEFT_LAPSED,         /* the lease of this generation ran out */
	WEFT_LAPSED_WRITTEN, /* and another attachment could write since */
	WEFT_LEFT_WRITTEN,   /* it left without lapsing, and another attachment could write since */
};

enum {
	WEFT_ENTRY_HERE = 1 << 0, /* FILE: granted since the file was opened */
	/*
	 * FILE, not HERE: the mark was made at a grant, not at an end.  What this generation wrote
	 * after that is not in these contents.
	 */
	WEFT_ENTRY_OPEN = 1 << 1,
};

struct weft_generation {
	uint8_t id_hash[16]; /* of the secret id, which is not stored */
	uint64_t generation; /* the highest that was granted; 0: the entry is free */
	uint64_t last_used;  /* counts up */
	uint32_t lapsed;     /* enum weft_lapsed */
	uint16_t held;       /* 0, or 1 + enum weft_mode: the attachment holds the region */
	uint16_t flags;      /* WEFT_ENTRY_…; MEMORY: 0 */
	char name[64];       /* public name; FILE: may be "" after a restart */
};
enum { WEFT_NR_GENERATIONS = 64 };

/*
 * A one-way hash of a secret id.  MEMORY: the same until the next reboot; FILE: as long as the
 * file's mark lasts.
 */
void weft_region_id_hash(const struct weft_region *region, const uint8_t id[16], uint8_t ret[16]);
/*
 * The entry of this id, or NULL.  add: makes one if there is none (generation 1, nothing held; NULL
 * only when every entry holds the region).
 */
struct weft_generation *weft_region_generation(struct weft_region *region,
	const uint8_t id_hash[16], bool add);

/*
 * FILE: writes `table` and `stripe`, which were copied when table_seq was seq, to the mark, before
 * anybody learns of a grant.  lease_ms: promised to the holders.  Any thread, without the donor's
 * lock; waits for the disk.  0, or -errno: the mark cannot be written.  With a promise_path they go
 * to that file instead, and only if there is a new holder, or a longer lease.
 */
int weft_region_note_table(struct weft_region *region,
	const struct weft_generation table[WEFT_NR_GENERATIONS], const struct weft_stripe *stripe,
	uint64_t seq, uint32_t lease_ms);
/*
 * MEMORY, and files without a mark: promised leases outlive the contents, in a file at path.  After
 * a loss of the contents newcomers wait until those leases are over.  is_new: the contents are new,
 * so the promises in the file are an earlier donor's.  0, or -errno: the file cannot be used.
 */
int weft_region_keep_promises(struct weft_region *region, const char *path, bool is_new);
/* Nobody holds the region any more.  Any thread. */
void weft_region_forget_promises(struct weft_region *region);
/* MEMORY: the header keeps tenure and owner, lease, stripe and copies.  Under the donor's lock. */
void weft_region_note_tenure(struct weft_region *region, uint64_t tenure); /* nobody's yet */
void weft_region_note_owner(struct weft_region *region, uint64_t owner, uint64_t owner_tenure);
void weft_region_note_lease(struct weft_region *region, uint32_t lease_ms);
void weft_region_note_stripe(struct weft_region *region, const struct weft_stripe *stripe);
void weft_region_note_copies(struct weft_region *region, const struct weft_copies *copies);

#endif
