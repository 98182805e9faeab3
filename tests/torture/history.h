/* SPDX-License-Identifier: MIT */
/*
 * What the clients of a region were told, and whether that can be true.
 *
 * Everything that happens has a number that counts up: what a write is known by (its mark) is the
 * number of its issue.  A block always holds one mark, in every word, with what it belongs to, so
 * that no byte of anything else passes for it.
 *
 * For each block the history keeps a floor: the newest mark that cannot be gone or older any more,
 * whoever asks: of a write that was answered by the donor itself, or answered and flushed.  What a
 * client sees through one attachment is a view: it begins with an attachment that remembers nothing
 * (or a reset), and outlives bridges and donors until its client is told that it is stale.  Held
 * against each answer:
 *
 *   S1  no write of a view is answered (through a cache: flushed) after another client's write that
 *       the view is older than, and no block falls below its floor
 *   S2  no read has a mark below the floor at the time of its issue, nor below what this view was
 *       told before
 *   S3  a view that begins anew sees nothing that is below the floor
 *   L   nobody is told that it is stale unless another wrote, or the contents were lost, or got a
 *       new epoch
 *
 * Pure, but for the numbers; one thread.
 */
#ifndef WEFT_TESTS_TORTURE_HISTORY_H
#define WEFT_TESTS_TORTURE_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HISTORY_BLOCKS = 64, HISTORY_BLOCK_BYTES = 4096, HISTORY_WHY = 256 };

/* When something last happened, and when it last did for another view than that. */
struct history_last {
	const struct view *view;
	uint64_t at, other;
};

struct history {
	uint64_t seed;   /* of the run, and the region's number in it: what marks belong to */
	uint64_t now;    /* the last number given */
	uint64_t floor[HISTORY_BLOCKS];
	struct history_last wrote;   /* answers of the donor: a write, or a flush of some */
	struct history_last granted; /* attachments that could write, and writes */
	uint64_t epoch_since;  /* when its contents were lost, replaced, or got another epoch */
	/* when contents were lost or put back; none of those is newer than that */
	uint64_t replaced, newest_before;
};

struct view {
	struct history *history;
	const char *name;
	bool write_back; /* a write is at the donor once it was flushed */
	bool remembers;  /* reads may be answered without the donor, too */
	uint64_t since;
	uint64_t answered[HISTORY_BLOCKS];
};

/* What a flush covers, or what a read was issued against. */
struct snapshot {
	uint64_t at;
	uint64_t mark[HISTORY_BLOCKS];
};

void history_init(struct history *h, uint64_t seed);

/* A view begins, or begins anew after its client was told. */
void view_begin(struct view *v, struct history *h, const char *name, bool write_back,
	bool remembers);
/* It was told that it is stale. 0, or -1 with why: there is no cause. */
int view_told(const struct view *v, char *why);
/* Its bridge died, and with it the cache: writes that were not flushed are gone. */
void view_lost_cache(struct view *v);

/* A write begins: its mark, and its bytes. */
uint64_t view_write(struct view *v, unsigned block, void *bytes);
/* The bytes of a mark again. */
void history_bytes(const struct history *h, unsigned block, uint64_t mark, void *bytes);
/* It was answered. at: when it was issued (again). */
int view_write_answered(struct view *v, unsigned block, uint64_t mark, uint64_t at, char *why);

/* A flush, or a read of a block, begins. */
uint64_t view_read(struct view *v, unsigned block, uint64_t *ret_at);
int view_read_answered(struct view *v, unsigned block, uint64_t at_least, uint64_t at,
	const void *bytes, char *why);
void view_flush(struct view *v, struct snapshot *ret);
int view_flush_answered(struct view *v, const struct snapshot *s, char *why);

/* The contents have a new epoch, being the same. */
void history_new_epoch(struct history *h);
/* The contents are gone (NULL), or those of the snapshot again, which history_copy() made. */
void history_replaced(struct history *h, const struct snapshot *s);
void history_copy(const struct history *h, struct snapshot *ret);

#endif
