/* SPDX-License-Identifier: MIT */
/*
 * What the files of libweft share.
 *
 * A command is one blocking call, or one asynchronous command.  It is carried out on one lane, in
 * pieces (command.c).  The calling thread drives that lane (nbd-bridge/lane/drive.h).
 */
#ifndef WEFT_NBD_BRIDGE_LIBRARY_WEFT_PRIVATE_H
#define WEFT_NBD_BRIDGE_LIBRARY_WEFT_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "fabric/hashing.h"
#include "fabric/uri.h"
#include "nbd-bridge/bridge/bridge.h"
#include "nbd-bridge/bridge/find.h"
#include "nbd-bridge/lane/drive.h"
#include "nbd-bridge/library/weft.h"

enum {
	LANE_PIECES = 16,           /* through the lane's buffers: at most so many at a time … */
	BUFFERED_BYTES = 256 << 10, /* … of this size */
	BUFFERED_HASHES = 256,
	/* in the caller's memory: one piece at a time, which the lane cuts further */
	DIRECT_BYTES = 32 << 20,
	AIO_CHUNK = 64,             /* asynchronous commands that are allocated at once */
	AIO_CHUNKS = 1024,
};

struct library_lane;
struct command;

/* A request of the lane for a part of a command. */
struct piece {
	struct bridge_request rq;
	struct command *command;
	void *at; /* the caller's memory */
	struct piece *next;
};

/* A thread in weft_aio_wait(). */
struct aio_waiter {
	struct lane_waiter waiter;
	int status;
};

enum aio_state { AIO_FREE, AIO_IN_FLIGHT, AIO_ENDED };

struct command {
	/* Set by the caller that begins it. */
	uint8_t kind; /* enum tp_op_kind */
	void *buf;
	uint64_t off, len;
	struct weft_hashing hashing; /* HASH */
	struct library_lane *lane;
	struct tp_mem *mem; /* buf is registered; NULL: data go through buffers */
	struct lane_job job;
	/*
	 * Called on the lane's thread once the command has ended, with the result in `status`.
	 * Afterwards nothing here touches the command.
	 */
	void (*ended)(struct command *command);
	/* The lane's. */
	uint64_t begun;     /* bytes for which pieces were made */
	unsigned nr_pieces; /* in flight */
	int status;
	bool has_news, is_short; /* on those lists of the lane */
	struct command *next_news, *next_short;
	struct piece piece; /* the one that needs no buffer */
	/* A call's. */
	struct lane_waiter *caller;
	/* An asynchronous one's, under the handle's lock. */
	enum aio_state state;
	uint64_t cookie; /* its index in the low bits, and how often it was used above them */
	struct weft_completion completion;
	struct aio_waiter *waiter;
	struct command *prev, *next; /* free (next alone), or ended and not retired */
};

/* Raises the mark of every donor, while writes wait for that (mark.c). */
struct library_raise {
	bool is_running;
	unsigned donor; /* the one that is asked */
	struct command command;
	uint8_t answer[WEFT_HASH_BYTES];
	struct command *parked, **parked_tail; /* by next_short */
};

struct library_lane {
	struct weft *w;
	struct bridge_lane *lane;
	struct lane_drive *drive;
	/* all memory is registered, the caller's is used; NULL: data go through buffers */
	struct tp_mem *all;
	_Atomic unsigned nr_in_flight; /* asynchronous commands */
	/* The lane's thread's. */
	uint64_t nr_told; /* of the handle's nr_ended: pollers were told of these */
	struct weft_deferred deferred;
	struct weft_timer later; /* for news that one step leaves to the next */
	bool acts, has_more;     /* acts: `deferred` runs; has_more: there is more for it */
	struct command *news, **news_tail;    /* commands of which a piece has ended */
	struct command *shorts, **shorts_tail; /* commands that want a piece or a buffer */
	struct bridge_waiter buffers;
	struct piece *free_pieces;
	struct piece pieces[LANE_PIECES];
	struct library_raise raise;
};

struct weft {
	struct bridge *bridge;
	struct bridge_find find;
	struct weft_uri uris[BRIDGE_MAX_DONORS];
	unsigned nr_uris;
	struct tp_info info; /* of the whole device; constant */
	struct library_lane *lanes;
	unsigned nr_lanes;
	bool write_back, has_cache;
	uint64_t stripe_bytes; /* with several regions */
	_Atomic bool closing;
	/* A write is given to it rather than begun, on the lane's thread; NULL: it is begun. */
	void (*_Atomic before_write)(struct command *command);
	/* Asynchronous commands. */
	_Atomic uint64_t nr_ended;
	_Atomic int aio_fd;  /* -1: nobody asked for it */
	int told_fd;         /* an eventfd in aio_fd: a command has ended */
	/* Held while a map is reset; taken before `lock` and the maps' locks. */
	pthread_mutex_t reset_lock;
	pthread_mutex_t lock;
	/* Under the lock. */
	struct command *aio_free, *ended, *last_ended;
	struct command *aio[AIO_CHUNKS]; /* AIO_CHUNK each */
	unsigned nr_chunks;
	struct weft_map *maps;
	_Atomic unsigned nr_maps; /* written under the lock */
};

/* ---- command.c ---- */

/* Fills the handle's part for a lane, before any other thread knows the handle.  0, or -ENOMEM. */
int library_lane_init(struct library_lane *lane, struct weft *w, struct bridge_lane *bridge_lane);
/* Ends the lane's registrations.  No command is in flight any more. */
void library_lane_fini(struct library_lane *lane);

/* Checks a command before it begins: 0, -ENOSPC, -EPERM or -EINVAL.  Not a HASH's question. */
int command_check(const struct weft *w, uint8_t kind, uint64_t off, uint64_t len);
/* Fills a command that is all zeros. */
void command_init(struct command *command, struct library_lane *lane, uint8_t kind, void *buf,
	uint64_t off, uint64_t len);
/* The lane's thread, inside a step of its loop: begins it, or ends one that did not begin. */
void command_begin(struct command *command);
void command_fail(struct command *command, int error);

/*
 * of_thread: the lane for this thread's asynchronous commands, the same as long as it is ready.
 * choose: the lane for a blocking call of this thread: that one, or another that nobody leads while
 * somebody leads it.
 */
struct library_lane *library_lane_choose(struct weft *w);
struct library_lane *library_lane_of_thread(struct weft *w);

/*
 * Accessed without a function call: the library's are a few words, and each thread has room for
 * those.
 */
#define LIBRARY_THREAD_LOCAL _Thread_local __attribute__((tls_model("initial-exec")))

/*
 * A command from beginning to end, on this thread; allocates nothing.  0, or -errno as
 * weft_pread(), which has checked it.
 */
int library_call(struct weft *w, uint8_t kind, void *buf, uint64_t off, uint64_t len);
/* The same; mems: what library_register() gave for memory that buf lies in, or NULL. */
int library_call_from(struct weft *w, struct tp_mem *const *mems, uint8_t kind, void *buf,
	uint64_t off, uint64_t len);

/* Whether data go through buffers, but for memory that is registered. */
bool library_has_registered(const struct weft *w);
/*
 * Registers memory with each lane: *ret, for each its registration.  0, or -errno.  deregister:
 * takes NULL; 0, or -EBUSY: operations in flight point into the memory, which has to stay.
 */
int library_register(struct weft *w, void *base, size_t len, struct tp_mem ***ret);
int library_deregister(struct weft *w, struct tp_mem **mems);

/* The same of a HASH. */
int library_ask(struct weft *w, const struct weft_hashing *hashing, uint64_t off, uint64_t len,
	uint8_t *ret);

/* The lane whose completions this thread runs now; NULL: it runs none. */
extern LIBRARY_THREAD_LOCAL struct library_lane *library_lane_in_completion;

/* ---- map-frames.c, map-lost.c ---- */

/*
 * Whether any of the bytes lie in a map of the handle.  The thread that leads a lane must not wait
 * for a handler, which may need that lane.
 */
bool library_is_mapped(struct weft *w, const void *buf, uint64_t len);

/* The handle may be lost.  Any thread, without locks. */
void library_maps_changed(struct weft *w);

/* ---- aio.c ---- */

/* hashing: HASH's, copied; else NULL.  As weft_aio_pread(). */
int64_t aio_start(struct weft *w, uint8_t kind, void *buf, uint64_t off, uint64_t len,
	const struct weft_hashing *hashing, const struct weft_completion *completion);

/* Frees the handle's memory for asynchronous commands.  None is in flight. */
void aio_fini(struct weft *w);

#endif
