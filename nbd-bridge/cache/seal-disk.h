/* SPDX-License-Identifier: MIT */
/*
 * Private to nbd-bridge/cache/: the file of a seal that outlives restarts of the machine.
 *
 *     two heads     written in turn, so that one is whole: volume, salts, what to say to the donors
 *     a table       the rows, in pages of a sector (512 bytes) with a checksum each
 *     two logs      of which one is in use: rows that blocks are about to have
 *
 * A row is in the log, on disk, before the bytes that it belongs to are sent; the table has the row
 * of the last bytes that the donor confirmed, at the latest when a FLUSH is answered.  So after a
 * loss of power a block that was flushed, and not written since, has one row.  Of any other the
 * donor may have the bytes of the table's row, or those of a newer one in the log: the block is in
 * doubt, and whoever goes on with the file reads it once, and tells which.
 *
 * Rows of one process are ordered by their nonces.  The log has rows of one process alone: all
 * doubts of the last one end before another row is logged.
 *
 * Nothing is mapped: what is on disk is what was written, in the order in which it was.  A disk
 * that loses power has a sector as it was, or as it was to be: another checksum is damage.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_SEAL_DISK_H
#define WEFT_NBD_BRIDGE_CACHE_SEAL_DISK_H

#include <pthread.h>

#include "nbd-bridge/cache/seal-private.h"

/* A row that a block is about to have; of zeros: how many blocks, in place of the tag. */
struct seal_entry {
	uint64_t block, nonce;
	union {
		uint8_t tag[SEAL_TAG_BYTES];
		uint64_t nr;
	};
};

struct seal_head;

struct seal_disk {
	char *path;
	int fd;       /* locked; -1: there is no file yet */
	uint8_t *key; /* in memory for secrets */
	pthread_mutex_t head_lock; /* for the head, its two places in the file, the identity */
	struct seal_head *head;
	struct seal_identity identity;
	bool noted; /* the identity is on disk */
	/* For one thread: the seal's, then the log's. */
	uint64_t nr_pages;         /* of the table */
	uint64_t *unsynced;        /* pages that were written, and are not known to be on disk */
	struct seal_entry *logged; /* what the log has */
	size_t nr_logged, max_logged;
	uint64_t sectors;  /* of the log, used */
	bool log_is_bad;   /* a write of it failed: the next begins another */
	/* Where a log ends that the head may name, as it could not be written; 0: nowhere. */
	uint64_t maybe_used;
	struct seal_entry *doubts; /* of blocks in doubt, in the order of blocks, oldest first */
	size_t nr_doubts;
	/* seal-log.c, under the lock, which also guards rows that the log's thread reads */
	pthread_mutex_t lock;
	pthread_cond_t wanted;
	pthread_t thread;
	bool runs, ends;
	uint64_t *changed; /* pages of the table whose rows are newer than the file's */
	struct seal_entry *queue, *spare;
	size_t nr_queued, max_queue, max_spare;
	uint64_t nr_asked; /* entries and commits that were asked for */
	uint64_t failed_from, failed_to; /* of those: what failed, … */
	int error;                       /* … and why */
	bool commits; /* the table is wanted on disk */
	uint64_t nr_settled; /* rows, since it was wanted last, about */
	_Atomic uint64_t nr_done;
	bool busy; /* writes */
	pthread_cond_t idle;
	struct seal_watcher watcher; /* without functions: none */
};

/*
 * Opens the file, takes its lock, and loads its head.  anew: whatever the file holds is of no use,
 * and stays as it is until seal_disk_create().  *ret->head->begun: there are contents.
 */
int seal_disk_open(const char *path, const uint8_t key[SEAL_KEY_BYTES], enum seal_kind kind,
	bool anew, struct seal_disk **ret, struct weft_error *err);
/* Takes NULL. */
void seal_disk_close(struct seal_disk *disk);
bool seal_disk_has_begun(const struct seal_disk *disk);
uint64_t seal_disk_size_bytes(const struct seal_disk *disk);
/* Fills seal->file, which has room for all rows, and finds the doubts. */
int seal_disk_load(struct seal *seal, struct weft_error *err);
/* Puts a new file, empty, into the place of the old one; seal->file says of what. */
int seal_disk_create(struct seal *seal, struct weft_error *err);
/* Writes the head as seal->file and the identity say.  0, or -errno. */
int seal_disk_write_head(struct seal *seal);
/* Takes an identity for the head, and writes that now if it has to be.  As seal_note(). */
int seal_disk_note(struct seal *seal, const struct seal_identity *identity, bool now);
/*
 * Writes the table's changed pages (if so wanted), and entries to the log; on disk when it returns.
 * 0, or -errno: nothing of it may count as written.
 */
int seal_disk_write(struct seal *seal, bool table, const struct seal_entry *entries, size_t nr);
/* All doubts have ended: the table has all that is known, and the log is empty. */
int seal_disk_settle(struct seal *seal);

enum { SEAL_PAGE_ROWS = 20 }; /* of the table */

/* The doubts of a block, newest first; NULL: there are none, or no older ones. */
const struct seal_entry *seal_newest_doubt(const struct seal *seal, uint64_t block);
const struct seal_entry *seal_older_doubt(const struct seal *seal, const struct seal_entry *entry);
/* This is the block's row. */
void seal_take_doubt(struct seal *seal, const struct seal_entry *entry);

/* Begins and ends the thread that writes the log. */
int seal_log_start(struct seal *seal, struct weft_error *err);
void seal_log_stop(struct seal *seal);
/* Makes nr blocks zeros, with the log's order. */
void seal_log_zeros(struct seal *seal, uint64_t first, uint64_t nr);

#endif
