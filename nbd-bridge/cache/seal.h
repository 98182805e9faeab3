/* SPDX-License-Identifier: MIT */
/*
 * Sealed contents: what a donor holds is checked (--verify), or encrypted too (--encrypt), by the
 * borrower alone.  The donor is trusted to keep bytes, and with nothing else.
 *
 * The unit is a block of 4 KiB (the last one of a region may be shorter).  It is sealed when the
 * cache writes it back, and opened when the cache fetches it, so that the cache, and everybody
 * above it, knows plain bytes alone, and the lanes and transports below carry sealed ones alone.
 *
 * What a block is sealed with:
 *
 *     key         the contents' own, random; nothing that a donor knows goes into it
 *     salt        256 random bits of each process that writes; HKDF(key, salt) is that process's
 *                 key, under which it counts its nonces: no restart and no state that is put back
 *                 makes a process seal two things alike
 *     volume      128 random bits, drawn when the contents begin; beside them the block's number
 *                 and the salt's number go into each tag, and neither donor, name nor life: the
 *                 same bytes at another place, or of other contents, are not taken
 *
 * A block has a row of 24 bytes, 0.6 % of the region: the nonce, which names the salt, and the tag.
 * A row without a nonce is a block that was never written, or was made zeros: it reads as zeros,
 * and the donor is not asked.  So contents begin empty.
 *
 * The key, the salts and the rows lie in memory (memfd_create(2)) that outlives the bridge, as the
 * bridge's guard keeps it (nbd-bridge/main/attach-guard.c), and so does the cache: in the same way,
 * or in a cache file.  This makes the death of a bridge safe.  A row is set for the block's next
 * bytes before they are sent. Until the donor has confirmed them the cache has the block, and
 * counts it as newer than the donor's, so that the next bridge writes it back again.  Nobody
 * fetches a block whose row and whose bytes at the donor may differ.  Once nobody keeps that
 * memory, and at a restart of the machine, the contents have ended.
 *
 * With a key of the user's they outlive that: salts and rows are in a file (seal-disk.h), and so is
 * what the donors are told of who goes on with them (struct seal_identity).
 *
 * A request for a block with a wrong tag fails with EIO, until the block is written as a whole.  No
 * other block is affected.
 *
 * A seal is the control thread's, unless a comment says otherwise; each lane has a sealer.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_SEAL_H
#define WEFT_NBD_BRIDGE_CACHE_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/hello.h"
#include "nbd-bridge/cache/blocks.h"

enum seal_kind {
	SEAL_NONE,
	SEAL_VERIFY,  /* the bytes at the donor are plain; a tag is a MAC of them */
	SEAL_ENCRYPT, /* they are encrypted; a tag authenticates them */
};

/*
 * What seals; whichever is faster on the machine where the contents began.  For SEAL_VERIFY both
 * authenticate the bytes, and encrypt nothing of them.
 */
enum seal_algorithm { SEAL_AES_256_GCM = 1, SEAL_CHACHA20_POLY1305 };

enum {
	SEAL_BLOCK = CACHE_BLOCK,
	SEAL_KEY_BYTES = 32,
	SEAL_SALT_BYTES = 32,
	SEAL_VOLUME_BYTES = 16,
	SEAL_TAG_BYTES = 16,
	SEAL_ROW_BYTES = 24,
	SEAL_TOLD_MAX = 16, /* bad blocks that are told by their number */
	SEAL_SALTS_MAX = 1024, /* processes whose blocks there may be at a time */
};

struct seal;
struct sealer;
struct seal_row;

enum { SEAL_DONORS = 16, SEAL_URI = 4096, SEAL_BOOT = 40 };

/* What a seal's file remembers for whoever goes on with its contents: who we are at each donor. */
struct seal_donor {
	uint8_t id[WEFT_ID_BYTES];
	uint64_t generation;     /* the first of our incarnation */
	uint64_t epoch, granted; /* as in weft_hello; epoch 0: nothing was granted yet */
	uint64_t wrote;
};
struct seal_identity {
	char uri[SEAL_URI]; /* a URI for each donor, with spaces between */
	uint64_t stripe_bytes, nr_donors;
	struct seal_donor donors[SEAL_DONORS];
	/* the machine's boot in which they were written to last; "": they were detached since */
	char boot[SEAL_BOOT];
};

/* "verify", "encrypt"; "" for SEAL_NONE. */
const char *seal_kind_name(enum seal_kind kind);
/* False: the name is neither. */
bool seal_kind_parse(const char *name, enum seal_kind *ret);
const char *seal_algorithm_name(enum seal_algorithm algorithm);

/*
 * Makes a seal on a file, which is mapped: the file is empty, or as another process left it.  The
 * caller keeps fd, and may close it.  0; -EINVAL: the file is something else, or of another kind;
 * -ENOMEM, ….
 */
int seal_new(int fd, enum seal_kind kind, struct seal **ret, struct weft_error *err);
/*
 * Makes a seal on a file on disk, with the user's key: contents that outlive a restart of the
 * machine.  anew: what the file has is given up, once seal_start() begins others; until then the
 * file is left as it is, and none is made.  0; -ENOENT: there is no file; -EUCLEAN: it is damaged;
 * -EPROTONOSUPPORT: another version of weft made it; -EKEYREJECTED: it has another key; -EINVAL:
 * another kind; -EBUSY: another seal is on it; ….
 */
int seal_open(const char *path, const uint8_t key[SEAL_KEY_BYTES], enum seal_kind kind, bool anew,
	struct seal **ret, struct weft_error *err);
/* NULL: there is none. */
const char *seal_path(const struct seal *seal);
/* NULL: the file has no contents. */
const struct seal_identity *seal_identity(const struct seal *seal);
/*
 * Notes in the file, durably, what to remember; keeps it for later if there are no contents yet.
 * Any thread, one at a time.  0, or -errno.
 */
int seal_note(struct seal *seal, const struct seal_identity *identity, struct weft_error *err);
/* The file keeps what it has.  No sealer is there any more.  Takes NULL. */
void seal_free(struct seal *seal);
/* Ends contents in memory for good: wipes their key.  No sealer is there any more. */
void seal_end(struct seal *seal);
/*
 * Keeps a file's key in memory and out of swap space, as far as the process may lock memory: for a
 * process that keeps the file and makes no seal.
 */
void seal_lock_key(int fd);

enum seal_kind seal_kind_of(const struct seal *seal);
/* The contents have begun. */
enum seal_algorithm seal_algorithm_of(const struct seal *seal);

/*
 * Goes on with the contents that there are, under a salt of this process, or begins contents of so
 * many bytes, empty.  Before the first sealer is made; again, if a bridge could not start.  0;
 * -ESTALE: there are contents of another size; -ENOSPC: there are blocks of SEAL_SALTS_MAX
 * processes; -ENOMEM, ….
 */
int seal_start(struct seal *seal, uint64_t size_bytes, struct weft_error *err);
/*
 * Ends the contents, and begins others, empty.  No sealer is used meanwhile, and each takes its
 * keys anew afterwards (sealer_take_keys()).  0; -errno: there are no contents then.
 */
int seal_start_anew(struct seal *seal, struct weft_error *err);

/* Counts blocks that did not open since the contents began, each once until it is written. */
uint64_t seal_nr_bad(const struct seal *seal);
/*
 * Gives the next of the first SEAL_TOLD_MAX bad blocks that this process found; *at begins with 0.
 * False: there is no next one yet.  Any thread.
 */
bool seal_next_bad(const struct seal *seal, uint64_t *at, uint64_t *ret_block);

/*
 * Rows: any thread, but one thread at a time has a row: the thread whose operation is on the block,
 * or, without an operation, the thread that has the chunk's lock.
 */

/* Whether the block was never written, or was made zeros. */
bool seal_is_zero(const struct seal *seal, uint64_t block);
/* Makes nr blocks zeros. */
void seal_make_zero(struct seal *seal, uint64_t first, uint64_t nr);

/*
 * seal-log.c: rows of a seal with a file.  A row is logged, and on disk, before its bytes are sent;
 * it is the block's row once the donor has confirmed them (seal_settle()), and the only one after
 * seal_commit().  Any thread.
 */

/*
 * Logs rows that blocks are about to have.  Returns a ticket, which seal_is_done() takes; 0: there
 * is no memory.  Does not wait.
 */
uint64_t seal_log(struct seal *seal, uint64_t first, uint64_t nr, const struct seal_row *rows);
/* All rows that are settled by now are to be on disk, and the only ones.  Returns a ticket. */
uint64_t seal_commit(struct seal *seal);
/* A ticket for what was logged so far. */
uint64_t seal_logged(struct seal *seal);
/* 1: it is on disk; 0: not yet; -errno: it could not be written. */
int seal_is_done(struct seal *seal, uint64_t ticket);
void seal_settle(struct seal *seal, uint64_t first, uint64_t nr, const struct seal_row *rows);
/* Called on the log's thread. */
struct seal_watcher {
	void (*wake)(void *ctx); /* tickets are done */
	/* Has the bytes that rows are logged for, on disk before it returns; 0, or -errno. */
	int (*sync)(void *ctx);
	void *ctx;
};
/* Copies it.  NULL: nothing is called any more. */
void seal_watch(struct seal *seal, const struct seal_watcher *watcher);

/*
 * Blocks that may have one of several rows, after a restart: before anything is logged they have to
 * be told (sealer_tell()), and seal_end_doubts() called.  Gives the first run of them from block
 * *first on, of `max` at most.  0: there are none.  The control thread.
 */
uint64_t seal_doubts(const struct seal *seal, uint64_t *first, uint64_t max);
/* 0, or -errno. */
int seal_end_doubts(struct seal *seal, struct weft_error *err);

/* ---- sealer.c: a lane's part, for one thread ---- */

/* 0, or -ENOMEM. */
int sealer_new(struct seal *seal, struct sealer **ret, struct weft_error *err);
/* Takes NULL. */
void sealer_free(struct sealer *sealer);
/* After seal_start_anew().  0; -ENOMEM: the sealer can only be freed. */
int sealer_take_keys(struct sealer *sealer, struct weft_error *err);

/*
 * Seals len bytes that begin with block `first` (whole blocks, except for the region's last one),
 * and sets their rows, or those that are given in their place (NULL: none are).  SEAL_ENCRYPT:
 * writes the sealed bytes to `to`, which is `from`, or memory
 * of len bytes and SEAL_TAG_BYTES more for scratch.  SEAL_VERIFY: writes nothing; `to` may be NULL.
 * Allocates nothing.  0, or -EIO: GnuTLS refused.
 */
int sealer_seal(struct sealer *sealer, uint64_t first, const void *from, void *to, size_t len,
	struct seal_row *rows);
/*
 * Tells which row a block in doubt has, by its bytes at the donor.  0; -EBADMSG: by none, since
 * another wrote there, or only a part of the bytes has arrived.
 */
int sealer_tell(struct sealer *sealer, uint64_t block, const void *bytes, size_t len);
/*
 * Tells it by plain bytes: seals them, in their place (with SEAL_TAG_BYTES behind), as they were
 * sealed before, so that they can be sent again.  0; -EBADMSG: they are not what was sealed.
 */
int sealer_tell_again(struct sealer *sealer, uint64_t block, void *bytes, size_t len);
/* Gives it its newest row: the block is bad. */
void sealer_give_up(struct sealer *sealer, uint64_t block);
/*
 * Opens len fetched bytes that begin with block `first`, in their place.  ret_bad: blocks, counted
 * from `first`, that are not what was sealed, or whose row says zeros; their bytes are of no use.
 * Allocates nothing.  0; -EIO: there are bad blocks.
 */
int sealer_open(struct sealer *sealer, uint64_t first, void *bytes, size_t len,
	struct cache_map *ret_bad);

#endif
