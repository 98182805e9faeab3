/* SPDX-License-Identifier: MIT */
/*
 * The donor: regions, who may use them, and when they must stop.
 *
 * One writing attachment per region; readers beside it only if they said `shared`.  Joining with
 * the same attachment id and generation adds a session; a higher generation supersedes all lower
 * ones on every transport; a lower one is refused.  All stock NBD clients of a region
 * that have the same key, or none, are together one anonymous attachment, which writes (unless the
 * region is read-only, or the key); it and a weft writer exclude each other.
 *
 * A hello that names an epoch *remembers*: whoever sends it goes on with contents that it knows.
 * It is granted only if nobody else could write since, and if the region was not put back to what
 * it was before (a file, from a copy).  A hello that names none remembers nothing.  For that the
 * donor keeps three facts for each attachment, as long as the contents (region.h): the highest
 * generation that was granted, whether the attachment holds the region, and whether a writer was
 * granted since.  None of this binds shared readers.
 *
 * An attachment that is silent for a lease is fenced and loses the region.  Its generation is over;
 * a higher one may go on.  After a crash of a file region's donor the contents are new.  Nobody is
 * granted them before the promised leases are over: a borrower with a lease may still answer from
 * what it remembers.
 *
 * A peer that proved nothing is let in over a Unix socket, and over loopback if its socket belongs
 * to the user who runs the donor, or to root.  One that proved a key has what the key is for
 * (key/rights.h): regions, or all; to read only; so much memory and so many sessions at a time.  An
 * attachment's id means something only under the name whose key made it: under another, or none, it
 * is another attachment.  When a key is revoked or over, or is for less than before, sessions under
 * it are fenced, and come back for what it is for still.  What they held is free for others once
 * their lease is over, as their borrower may answer from memory until then.
 *
 * Stock clients cannot say what they remember.  The region has a *tenure* for them, a random
 * number.  It is new with each epoch (a file's: with each opening), and with each writing grant to
 * somebody who remembers nothing.  A client that asks for NAME@TENURE is granted the region only
 * while that is the region's tenure.  A tenure is its first writer's: when a client of another host
 * or key writes under it, it is over for all but clients of that one.
 *
 * A session may have an *alias* (hello.h), under which clients that cannot say a hello, such as the
 * kernel's nbd driver, join its attachment.  As long as the session lasts, whoever knows the alias,
 * and has the same key, or none like it, is granted what a lane more would be, at the session's
 * generation, and is fenced with that.  A session's goodbye ends those who came by its alias first.
 * When the session is lost without one, they go on and keep the attachment alive; but nobody comes
 * by that alias any more.
 *
 * A region's bytes make sense as one part of one device (stripe.h).  The first writing grant to
 * somebody who says which part sets the part, for as long as the contents are kept.  Nobody is
 * granted the region as another part, except a writer that gives the contents up.  Stock clients
 * and hellos of version 0 do not say a part, and are granted the region as any.
 *
 * Threads: all functions are thread-safe (one lock, never held while a transport works), except
 * weft_donor_new/free.  Nothing here is on the data path but weft_grant_touch().
 */
#ifndef WEFT_FABRIC_DONOR_DONOR_H
#define WEFT_FABRIC_DONOR_DONOR_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/donor/peer.h"
#include "fabric/hashing.h"
#include "fabric/hello.h"
#include "fabric/key/store.h"
#include "fabric/marking.h"
#include "fabric/region/region.h"

struct weft_donor;

/* One session's right to a region.  Made by weft_donor_grant(), ended by weft_grant_release(). */
struct weft_grant {
	struct weft_region *region;
	bool writable;
	/*
	 * As long as two grants have the same number, the region was no other writer's between them
	 * (of stock clients: no other host's, or key's).
	 */
	uint64_t turn;
	struct weft_attachment *attachment; /* private */
	/*
	 * Called at most once, from any thread, without the lock: makes the session stop (shut its
	 * socket down, destroy its QP).  It must not block; the session calls weft_grant_release()
	 * once no thread of its own can touch the region any more.
	 */
	void (*fence)(void *ctx);
	void *ctx;
	_Atomic bool fenced;
	_Atomic uint64_t last_seen_ns; /* sign of life */
	struct weft_peer peer;
	/* Private. */
	int64_t expires; /* of its key; seconds of CLOCK_REALTIME, 0: never */
	uint64_t look;   /* the last look for those who may not stay */
	struct weft_grant *next;
	uint64_t generation;
	bool has_alias, by_alias; /* the session has this alias; it came by it */
	uint8_t alias[WEFT_ID_BYTES];
	bool fencing;      /* fence() is being called, by `fencer` */
	bool released;     /* from inside fence(): freed after it */
	pthread_t fencer;
};

/*
 * Answers a question of a peer that may ask (weft_donor_question()).  Whether the peer's key is for
 * the regions that the question is about is left to look at.  From any thread, several at a time;
 * may take long.  0 with an object, which becomes the caller's; -ENOSYS: it does not know such a
 * question; or another -errno, with why.
 */
typedef int weft_donor_question_fn(void *ctx, const struct weft_peer *peer,
	const json_t *question, json_t **ret_answer, struct weft_error *err);

struct weft_donor_config {
	uint32_t lease_ms;          /* 0: 30 s */
	/* 0: 10 s; how long a new generation waits for the old to stop */
	uint32_t fence_timeout_ms;
	uint32_t pass_ms;           /* 0: 10 s; how long a pass is good */
	char offers[64];            /* "tcp" */
	/* 0: 512; of one address, and of a key that says nothing of it */
	unsigned max_sessions_each;
	struct weft_keys *keys;     /* NULL: there are none; outlives the donor */
	/* Lets in who proved nothing, too: whoever comes, not just this user's own processes. */
	bool allow_insecure;
	weft_donor_question_fn *question; /* NULL: no questions are answered */
	void *question_ctx;
};

int weft_donor_new(const struct weft_donor_config *config, struct weft_donor **ret);
/* All grants released before (asserted).  Drops its references to the regions. */
void weft_donor_free(struct weft_donor *donor);

/* Sets the transports that regions are offered over from now on: "tcp,rdma:10809". */
void weft_donor_offer(struct weft_donor *donor, const char *offers);

/* Those of its config; NULL: there are none, or no directory of them yet. */
struct weft_keys *weft_donor_keys(const struct weft_donor *donor);
/*
 * Whether the peer may ask this donor for anything: 0, or -EACCES with what it takes.  The others
 * below ask it by themselves.
 */
int weft_donor_let_in(struct weft_donor *donor, const struct weft_peer *peer,
	struct weft_error *err);
/*
 * Whether a region of this name, if there is one, is for the peer: 0; -EACCES: its key is for
 * others, or as above.
 */
int weft_donor_may_have(struct weft_donor *donor, const struct weft_peer *peer, const char *name,
	struct weft_error *err);
/* Whether it may write to the region. */
bool weft_donor_may_write(struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_region *region);
/* For the log, which has refusals of this file's functions: a transport did not let the peer in. */
void weft_donor_kept_out(struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_error *why);
/*
 * A question to the donor itself, which may change it: len bytes of a peer's.  0 with a JSON
 * object's text, which is the caller's; -EACCES: the peer is not let in, or has a key without the
 * right `admin`; -ENOSYS: nobody answers such questions; -EINVAL: it is no JSON object;
 * -ENOMEM; or the answerer's refusal.  Takes as long as the answer.
 */
int weft_donor_question(struct weft_donor *donor, const struct weft_peer *peer, const char *text,
	size_t len, char **ret, struct weft_error *err);
/*
 * Passes (fabric/key/pass.h), of peers that a certificate names.
 *
 * keep: the pass of the peer's TLS session is good once, for pass_ms.  Once for a session.
 * 0; -EACCES: the peer is not let in, or no certificate names it; -EBUSY: there are too many, of
 * it or in all; -ENOMEM.
 *
 * take: the pass of this identity, if there is one, ends.  0 with its secret, which the caller
 * wipes, and in *ret_peer who it was: identity, certified, expires.  It still has to be proved.
 * -ENOKEY: there is none.
 */
int weft_donor_keep_pass(struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_key *key);
int weft_donor_take_pass(struct weft_donor *donor, const char *identity, struct weft_key *ret,
	struct weft_peer *ret_peer);
/* Another look at all sessions, after weft_keys_reload() has changed something. */
void weft_donor_keys_changed(struct weft_donor *donor);

/*
 * Takes a reference.  -EEXIST: the name is taken.  Attachments that held an adopted region when the
 * last daemon died hold it again, for the time of a lease.
 */
int weft_donor_add(struct weft_donor *donor, struct weft_region *region, struct weft_error *err);

/*
 * Lends the region no more, and drops the reference.  0; -EBUSY: somebody uses it, or waits for it;
 * -ENOENT: it is not lent.
 */
int weft_donor_remove(struct weft_donor *donor, struct weft_region *region);

/*
 * Lends the files below this directory; one is opened when somebody asks for its name.  The path
 * must exist.  A donor has one directory.
 */
int weft_donor_add_directory(struct weft_donor *donor, const char *path, bool read_only,
	struct weft_error *err);

/*
 * Finds a region for a peer (NULL: for the donor itself) by its export name (any bytes of a peer's,
 * NUL-terminated), opening it below the directory if need be.  NAME@TENURE is NAME, unless there
 * is a region of exactly that name; *ret_tenure (may be NULL) is 0 or the tenure.  The empty name
 * means the only region, if there is just one.  Returns a reference in *ret.  -ENOENT: there is
 * none, or not for this peer; -EACCES: it is not let in; or why it could not be opened.
 */
int weft_donor_find(struct weft_donor *donor, const struct weft_peer *peer, const char *name,
	struct weft_region **ret, uint64_t *ret_tenure, struct weft_error *err);

/*
 * The region of an alias, for this peer: a reference in *ret; *ret_writable: with the right to
 * write.  -ENOENT: no session has that alias, or another key's; -EACCES: the peer is not let in.
 */
int weft_donor_find_alias(struct weft_donor *donor, const struct weft_peer *peer,
	const uint8_t *alias, struct weft_region **ret, bool *ret_writable, struct weft_error *err);

/*
 * Calls fn for the name, description and size of each region that the peer (NULL: the donor itself)
 * may know of, in order of name, without the lock; a directory's files without opening them.  Stops
 * at fn's first non-zero return, which it returns.  -E2BIG: there are more than a listing holds, fn
 * was called for the others; -EACCES: the peer is not let in.
 */
int weft_donor_list(struct weft_donor *donor, const struct weft_peer *peer,
	int (*fn)(void *ctx, const char *name, const char *description, uint64_t size_bytes),
	void *ctx, struct weft_error *err);

/*
 * Calls fn for each region that is open, a directory's files too.  Under the lock: fn must not
 * wait, nor call the donor.
 */
void weft_donor_regions(struct weft_donor *donor,
	void (*fn)(void *ctx, struct weft_region *region, bool from_directory), void *ctx);

/* The donor's answer to a hello, before access is granted. */
void weft_donor_welcome(struct weft_donor *donor, struct weft_region *region,
	struct weft_welcome *ret);

/*
 * Whether the hello's attachment has the region now, or had it a moment ago and may come back.  The
 * attachment's id is a secret: nobody else can say it.
 */
bool weft_donor_knows(struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_region *region, const struct weft_hello *hello);

uint64_t weft_donor_tenure(struct weft_donor *donor, const struct weft_region *region);
/* The tenure by which the peer's host, or key, is known if the present tenure is its own; or 0. */
uint64_t weft_donor_own_tenure(struct weft_donor *donor, const struct weft_region *region,
	const struct weft_peer *peer);

/*
 * Grants access, superseding and fencing lower generations first: may block up to the fence
 * timeout.  On success the caller owns *ret, whose fence() may be called from now on.
 *   -EACCES  the peer is not let in; -ENOENT: the region is not for it, or no session has the alias
 *   -EBUSY   held by another attachment (the message names it and says when it will be free),
 *            an old generation did not stop in time, or the key's limits are reached
 *   -ESTALE  what hello remembers may have changed, or is gone
 *   -WEFT_ESUPERSEDED  another process of the attachment was granted a higher generation
 *   -WEFT_EOVER  hello.generation is over: its lease lapsed, a higher one of the same process was
 *                granted, or the file was closed since
 *   -EINVAL  the session would join its own attachment in another mode, or the region is another
 *            part of a striped device
 *   -EIO     the grant cannot be noted, in the file's mark or with the promises; or the region's
 *            file was removed, replaced or cut, and hello.epoch is 0: who does not know it need not
 *            begin
 *   -EROFS   a writer asked for a read-only region, or has a key to read it
 *   -WEFT_EMOVED, -WEFT_EMOVING  another donor has it, or is about to (moving.h)
 *   -ESHUTDOWN the donor is stopping
 * peer: who asks, as its transport knows; it is copied.
 */
int weft_donor_grant(struct weft_donor *donor, struct weft_region *region,
	const struct weft_hello *hello, const struct weft_peer *peer,
	void (*fence)(void *ctx), void *ctx, struct weft_grant **ret, struct weft_error *err);

/*
 * Ends a session.  clean: the session said goodbye.  When the last session of an attachment did,
 * the attachment is gone at once.  Otherwise the attachment keeps the region until its lease runs
 * out, so that it can come back.  The anonymous attachment is gone with its last session.
 */
void weft_grant_release(struct weft_grant *grant, bool clean);

/*
 * The session's peer has moved to the address, which its key allows; text: as in weft_peer.  What
 * the key says of addresses is held against that one from now on.
 */
void weft_grant_moved(struct weft_grant *grant, const struct sockaddr_storage *address,
	const char *text);

/*
 * Data path: notes a sign of life.  now_ns: any recent weft_now_ns(); UINT64_MAX: alive until the
 * next call.
 */
static inline void weft_grant_touch(struct weft_grant *grant, uint64_t now_ns)
{
	atomic_store_explicit(&grant->last_seen_ns, now_ns, memory_order_relaxed);
}

/*
 * The hashes of a range inside a region, for the holder of a grant (hashing.h); the question is
 * weft_hashing_valid().  One thread hashes at a time, so that this may wait for others.  is_gone()
 * is asked now and then, and must not wait: nobody wants the hashes any more.  0; -ESHUTDOWN: so it
 * said; or as weft_region_read().
 */
int weft_donor_hash(struct weft_donor *donor, struct weft_region *region,
	const struct weft_hashing *hashing, uint64_t off, uint64_t len,
	bool (*is_gone)(void *ctx), void *ctx, uint8_t *ret);

/*
 * Answers a question about the region's mark, for the holder of a grant (marking.h).  0; -EPERM:
 * who only reads does not change it; -EBUSY: it was raised since the question's number;
 * -EOPNOTSUPP: another question; -ESHUTDOWN: the grant is fenced.
 */
int weft_donor_mark(struct weft_donor *donor, const struct weft_grant *grant,
	const struct weft_hashing *hashing, uint8_t ret[WEFT_HASH_BYTES]);
/*
 * Answers a question about copies, for the holder of a grant (copying.h).  0, whether the donor
 * has taken what is to be noted or not; -EPERM: who only reads notes nothing; -EINVAL: the numbers
 * make no sense; -EOPNOTSUPP: another question, or the region is no memory; -ESHUTDOWN: the grant
 * is fenced.
 */
int weft_donor_copies(struct weft_donor *donor, const struct weft_grant *grant,
	const struct weft_hashing *hashing, uint8_t ret[WEFT_COPIES_BYTES]);
/* The region's mark, inside weft_donor_regions(). */
void weft_donor_mark_of(struct weft_region *region, struct weft_marked *ret);

/*
 * Fences attachments whose lease ran out and frees those that stopped.  Call about once a second.
 */
void weft_donor_tick(struct weft_donor *donor, uint64_t now_ns);

/* No new grants from now on. */
void weft_donor_stop(struct weft_donor *donor);
/*
 * Fences all sessions and waits, at most timeout_ms, for them to end; not for those that come
 * meanwhile.  0, or -ETIMEDOUT.
 */
int weft_donor_fence_all(struct weft_donor *donor, uint32_t timeout_ms);

/* Makes all file regions durable.  0, or the first error, with the file's name. */
int weft_donor_flush(struct weft_donor *donor, struct weft_error *err);

/*
 * One line of `weft status`, for each attachment.  fn is called under the lock: it must only copy.
 */
struct weft_attachment_status {
	const char *region;
	const char *name; /* "(stock NBD clients)" for the anonymous one */
	enum weft_mode mode;
	uint64_t generation;
	unsigned nr_sessions;
	/*
	 * the key that the newest session proved, or without one the key's name; "": none, or not
	 * known since the donor's start
	 */
	const char *identity;
	const char *peer, *transport; /* of the newest session; "" without one */
	bool encrypted;               /* the same */
	uint64_t silent_ms, lease_left_ms; /* lease_left_ms: UINT64_MAX without a lease */
};
void weft_donor_status(struct weft_donor *donor,
	void (*fn)(void *ctx, const struct weft_attachment_status *status), void *ctx);

#endif
