/* SPDX-License-Identifier: MIT */
/*
 * What the files that make up regions share; see region.h.  A file uses only those before it in
 * this list: object.c, reports.c, changes.c, fill.c, generations.c, mark.c, promise.c, pages.c and
 * file-io.c; file-mark.c; stage.c; memory.c, file.c and store.c; region.c; transfer.c.
 */
#ifndef WEFT_FABRIC_REGION_REGION_PRIVATE_H
#define WEFT_FABRIC_REGION_REGION_PRIVATE_H

#include <fcntl.h>
#include <sys/stat.h>

#include "fabric/region/region.h"

#define REGION_HEADER_MAGIC "weftRGN1"

/* All fields up to the checksum are constant once the memory is complete. */
struct weft_region_header {
	char magic[8];
	uint64_t header_bytes;
	uint64_t size_bytes;
	uint64_t page_bytes;
	uint64_t epoch;
	uint64_t mem_dev, mem_ino; /* of the memfd that it belongs to */
	char name[WEFT_MEMORY_NAME_MAX + 1];
	uint64_t checksum; /* of everything above */
	/* 0 in headers that an older version made. */
	uint64_t tenure;
	uint64_t promised_lease_ms;
	struct weft_stripe stripe;
	/* of the tenure owned_tenure, which is another once an older version changed the tenure */
	uint64_t tenure_owner, owner_tenure, owned_tenure;
	/* the key of id hashes, if it has one of its own */
	uint8_t id_key[WEFT_ID_KEY_BYTES];
	uint64_t has_id_key;
	/* in the first or the second place, as the daemon may be killed while it notes; 0: none */
	uint8_t copies[2][WEFT_COPIES_KEPT];
	uint64_t copies_at;
	uint64_t next_epoch; /* that took the place of `epoch`; 0: none did */
	uint64_t fills; /* 1: the file goes on, at REGION_FILL_OFF, with a bit for each chunk */
	uint64_t copies_regions[2]; /* of copies */
	uint64_t unused[60];
	struct weft_generation generations[WEFT_NR_GENERATIONS];
};

_Static_assert(sizeof(struct weft_generation) == 104, "the header's layout outlives the daemon");
_Static_assert(sizeof(struct weft_stripe) == 16, "and this part's");
_Static_assert(sizeof(struct weft_region_header) == 1016 + 64 * 104, "so does its size");
_Static_assert(sizeof(struct weft_region_header) <= 8192, "what comes behind it is on pages");

/* object.c */

/*
 * A region with name, description and one reference; fd and header_fd are -1.  NULL without memory.
 */
struct weft_region *region_new(enum weft_backing backing, const char *name,
	const char *description);
/* Closes and frees everything but a stage.  Takes NULL. */
void region_free(struct weft_region *region);

/* fill.c: where the header's file has the bits, and how long it is with them. */
enum { REGION_FILL_OFF = 8192 };
uint64_t region_fill_bytes(uint64_t size_bytes);
/* Maps them; -ENOMEM. */
int region_fill_map(struct weft_region *region);
void region_fill_free(struct weft_region *region);

/* reports.c: as weft_region_take_changes(), and adds to what ret has. */
void region_take_reports(struct weft_region *region, uint64_t first, uint64_t nr, uint64_t *ret);

/* mark.c: the mark of a file region, in an extended attribute. */
/* ext4 has 4 KiB for all attributes of a file */
enum { REGION_KEY_BYTES = 16, REGION_MARK_MAX = 3800 };

struct region_mark {
	bool clean; /* all data are in the file, and nothing was written since */
	struct weft_transfer transfer; /* then clean, too */
	uint64_t epoch;
	int64_t size_bytes, mtime_s;
	uint32_t mtime_ns;
	uint32_t lease_ms; /* the longest that was promised to those who hold the region */
	uint8_t key[REGION_KEY_BYTES]; /* the key of id hashes */
	struct weft_stripe stripe; /* as in weft_region */
	struct weft_generation table[WEFT_NR_GENERATIONS]; /* in order of use */
};

/* Text, without a NUL; returns its length. */
size_t region_mark_format(const struct region_mark *mark, char text[REGION_MARK_MAX]);
/*
 * 0, or -EINVAL: not a mark, or one of an unknown version.  Version 1 has neither lease, key nor
 * table.
 */
int region_mark_parse(const char *text, size_t len, struct region_mark *ret);

/*
 * What was noted last in a file region's mark, under flush_lock; or in the file of promises, under
 * promise_lock.
 */
struct region_note {
	uint8_t key[REGION_KEY_BYTES];
	uint64_t seq;      /* of the table below */
	uint32_t lease_ms; /* as in the mark */
	struct weft_stripe stripe;
	/* FILE: checksum of the mark as it was found, or written last; 0: there is none */
	uint64_t mark_sum;
	struct weft_generation table[WEFT_NR_GENERATIONS];
};

/* promise.c: weft_region_note_table() of memory. */
int region_note_promises(struct weft_region *region,
	const struct weft_generation table[WEFT_NR_GENERATIONS], uint64_t seq, uint32_t lease_ms);

/* pages.c */

#define REGION_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* A sealed memfd of this size, or -errno. */
int region_memfd(const char *name, uint64_t size, unsigned flags);
/* Maps all of it. */
int region_map(int fd, uint64_t size, uint8_t **ret);
/*
 * Several threads call fn for slices in turn, until one call fails.  The caller's thread waits, and
 * calls progress (may be NULL).
 */
int region_parallel(uint64_t size, int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg,
	weft_progress_fn *progress, void *ctx);

/* file-io.c */

/* The size of the file or device that fd is. */
int region_file_size(int fd, uint64_t *ret);
/* 0, or -EIO when the file is shorter than it was, removed, or lost. */
int region_file_check(struct weft_region *region);
/* 0: all len bytes; or -errno. */
int region_file_pread(struct weft_region *region, void *buf, uint64_t off, uint64_t len);
int region_file_pwrite(struct weft_region *region, const void *buf, uint64_t off, uint64_t len);
/* What was written is where it outlives the machine's end.  flush_lock is held. */
int region_make_durable(struct weft_region *region);

/* file-mark.c */

/*
 * Takes the facts from the mark of a file that was opened.  From a clean mark that fits: the
 * contents' epoch, and who may go on with them.  From any other mark: who may still remember the
 * contents that are gone.
 */
int region_mark_take(struct weft_region *region, const struct stat *st);
/*
 * Whether the mark is the one that we know.  0; -EUCLEAN: while the file was open, a copy was put
 * in its place, with the copy's mark.
 */
int region_mark_check(const struct weft_region *region);
/*
 * 0 once the mark is durable; -ENOTSUP where there are no such attributes.  transfer: NULL, or
 * whose the contents are to be; then clean.
 */
int region_mark_write(struct weft_region *region, bool clean, const struct weft_transfer *transfer);
/* weft_region_begin_epoch() of a file. */
int region_mark_begin_epoch(struct weft_region *region, uint64_t epoch);
/* weft_region_note_table() of a file that may be written. */
int region_mark_note_table(struct weft_region *region,
	const struct weft_generation table[WEFT_NR_GENERATIONS], const struct weft_stripe *stripe,
	uint64_t seq, uint32_t lease_ms);
/* region_file_check() before a change; the first one takes the clean mark away, durably. */
int region_file_check_write(struct weft_region *region);

/* stage.c: where a file region's contents are. */
enum region_stage_state {
	STAGE_NONE,    /* in the file */
	STAGE_LOADING, /* in the file, and on their way into memory: changes are noted */
	STAGE_LOADED,  /* in memory */
};

struct region_stage {
	/* held for reading by users of the contents, for writing while they are moved */
	pthread_rwlock_t access;
	enum region_stage_state state;
	uint8_t *map;
	_Atomic uint64_t *changed; /* a bit for each block of 4 KiB */
	_Atomic bool changed_somewhere;
	/* Of a store, under flush_lock.  As `changed`: sent, and not flushed since; …  */
	uint64_t *sent;
	uint64_t *late; /* … and of writes that it never answered, and may carry out yet */
	bool any_sent, any_late;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	unsigned nr_users; /* both under the lock */
	bool moving;
};

int region_stage_init(struct weft_region *region);
void region_stage_fini(struct weft_region *region);
/*
 * FILE: until region_leave() the contents stay where they are: in the returned memory, or (NULL) in
 * the file.
 */
uint8_t *region_enter(struct weft_region *region);
void region_leave(struct weft_region *region);
/* After a change, inside region_enter(). */
void region_note_change(struct weft_region *region, uint64_t off, uint64_t len);
/* Memory to file; not yet durable.  flush_lock is held. */
int region_write_back(struct weft_region *region);
/* weft_region_flush() for a caller that is inside region_enter(), or moves the contents. */
int region_flush_file(struct weft_region *region);

/* file.c */

/* Ends a file region: flushes it, and makes its mark clean, so that the epoch is kept. */
void region_file_finish(struct weft_region *region);

#endif
