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
	/* MEMORY: weft_region_track(); a bit for each chunk, and how long a writer has to wait */
	_Atomic bool tracked;
	_Atomic uint64_t *changes;
	_Atomic uint64_t pace_ns_per_mib;
	/* The donor's, under its lock. */
	struct donor_move *move; /* to another donor, if it moves */
	/* WEFT_NR_GENERATIONS of them, in the header if there is one */
	struct weft_generation *generations;
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
typedef int weft_stage_fn(void *ctx, uint64_t done, uint64_t total);
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
 * MEMORY: from now on it is noted which chunks change, by whoever says so with
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
 * MEMORY: under which key attachments' ids are hashed.  It is the boot's id, unless the contents
 * came from elsewhere with their table: then it is that one's.  get: into ret of
 * WEFT_ID_KEY_BYTES.
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
/* MEMORY: the header keeps tenure and owner, promised lease and stripe.  Under the donor's lock. */
void weft_region_note_tenure(struct weft_region *region, uint64_t tenure); /* nobody's yet */
void weft_region_note_owner(struct weft_region *region, uint64_t owner, uint64_t owner_tenure);
void weft_region_note_lease(struct weft_region *region, uint32_t lease_ms);
void weft_region_note_stripe(struct weft_region *region, const struct weft_stripe *stripe);

#endif
