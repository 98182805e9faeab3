/* SPDX-License-Identifier: MIT */
/*
 * What the donor's files share.  A file uses those above it only: rules.c, rights.c, audit.c, then
 * attachments.c (and their sessions), elsewhere.c, moves.c, grants.c and regions.c, donor.c.
 */
#ifndef WEFT_FABRIC_DONOR_DONOR_PRIVATE_H
#define WEFT_FABRIC_DONOR_DONOR_PRIVATE_H

#include <pthread.h>
#include <stdio.h>

#include "fabric/donor/donor.h"

#define NS_PER_MS UINT64_C(1000000)

struct donor_region {
	struct weft_region *region; /* one reference */
	bool from_directory;
	uint64_t found_ns; /* when it was last asked for */
};

/* What bounds the lines about refusals. */
struct donor_audit {
	pthread_mutex_t lock;
	uint64_t window_ns; /* since then … */
	unsigned nr_told, nr_untold;
	struct {
		uint64_t what, said_ns;
	} recent[16];
	unsigned next;
};

struct weft_donor {
	struct donor_audit audit; /* has its own lock */
	pthread_mutex_t lock;   /* everything below, but for the directory's constants */
	pthread_cond_t changed; /* a session ended, or a fence() returned */
	uint32_t lease_ms, fence_timeout_ms, pass_ms;
	char offers[64];
	bool stopping;
	uint64_t last_tick_ns; /* 0: never */
	uint64_t looks;        /* for sessions whose key is gone */

	/* These are constant. */
	unsigned max_sessions_each;
	struct weft_keys *keys;
	bool allow_insecure;
	weft_donor_question_fn *question;
	void *question_ctx;

	struct weft_attachment *attachments;
	unsigned nr_grants;
	struct donor_passes *passes; /* NULL: nobody asked for one */
	struct donor_elsewhere *elsewhere; /* regions that moved away, or are about to come */
	struct donor_hashes *hashes; /* has its own lock */

	struct donor_region *regions; /* by name */
	unsigned nr_regions, nr_from_directory;

	/* taken before `lock`: opening and closing the directory's files */
	pthread_mutex_t open_lock;
	int dir_fd;                /* -1: none; constant once set, like dir_read_only */
	bool dir_read_only;
};

struct weft_attachment {
	struct weft_attachment *next;
	struct weft_donor *donor;
	struct weft_region *region; /* one reference */
	/* all stock clients of the region: no id, no generation, no lease */
	bool anonymous;
	bool lapsed;                /* lost its lease; waits for its sessions to stop */
	bool granted;               /* under this generation, or (anonymous) since it began */
	bool follows;               /* as the newest hello said */
	uint8_t id_hash[16];
	uint64_t generation;
	enum weft_mode mode;
	char name[WEFT_NAME_MAX + 1];
	char owner[WEFT_KEY_NAME_MAX + 1]; /* the name of the key that made it, or "" */
	struct weft_grant *grants;
	unsigned nr_grants;
	unsigned nr_waiters;   /* weft_donor_grant() calls that wait for older sessions to stop */
	uint64_t last_seen_ns; /* of sessions that are gone; others say it themselves */
	uint32_t lease_ms;     /* as promised */
	struct weft_peer peer; /* of the newest session */
};

/*
 * rules.c.  gen: the attachment's entry, or NULL.  0, or the refusal as weft_donor_grant() has it.
 */

/* Whether these are the contents that are meant. */
int donor_check_contents(const struct weft_region *region, const struct weft_hello *hello,
	uint64_t owner, struct weft_error *err);
/* A writer is granted the region: whose the tenure is now.  owner: of stock clients, as below. */
void donor_note_tenure(struct weft_region *region, const struct weft_hello *hello, uint64_t owner);
/*
 * A borrower of version 0 names an epoch over RDMA even when it attaches for the first time: that
 * of the contents that it was offered over TCP.  Such a borrower remembers nothing.
 */
bool donor_is_new_of_version0(const struct weft_hello *hello, const struct weft_generation *gen);
/* Whether the attachment may go on with those contents, under this generation. */
int donor_check_generation(const struct weft_region *region, const struct weft_hello *hello,
	const struct weft_generation *gen, struct weft_error *err);
/* For a generation that is not above `highest`. */
int donor_refuse_generation(const struct weft_region *region, const struct weft_hello *hello,
	uint64_t highest, struct weft_error *err);
/* After a crash: whether a borrower that held the lost contents may still answer from memory. */
int donor_check_grace(struct weft_region *region, const struct weft_generation *gen,
	struct weft_error *err);
/* The attachment is about to be granted the region. */
void donor_enter(struct weft_region *region, struct weft_generation *gen,
	const struct weft_hello *hello);
/*
 * A writer is about to be granted the region: no other attachment may go on with what it knew
 * before.  ours: the writer's entry, or NULL.  Returns the changed entries, a bit for each, for
 * donor_take_back_writer() in case that the writer is not granted after all.
 */
uint64_t donor_note_writer(struct weft_region *region, const struct weft_generation *ours);
void donor_take_back_writer(struct weft_region *region, uint64_t changed);
/*
 * check: whether the region is the part of a device that the hello says.  note: before a writer is
 * granted the region, that the region is this part from now on.
 */
int donor_check_stripe(const struct weft_region *region, const struct weft_hello *hello,
	struct weft_error *err);
void donor_note_stripe(struct weft_region *region, const struct weft_hello *hello);
/*
 * Whether donor_note_stripe() would change the region's part, for a hello that donor_check_stripe()
 * has let through.
 */
bool donor_changes_stripe(const struct weft_region *region, const struct weft_hello *hello);
/* Whether the writer takes the region as new contents, whatever it holds. */
bool donor_gives_up_contents(const struct weft_hello *hello);
/*
 * copies.c.  check: whether the borrower knows of the other copies, if the region is one of
 * several.  enter: notes that a writer is granted the region, for certain, and what it knows of
 * copies.
 */
int donor_check_copies(const struct weft_region *region, const struct weft_hello *hello,
	struct weft_error *err);
void donor_enter_copies(struct weft_region *region, const struct weft_hello *hello);
/* The region's contents are others than those that its entries know. */
void donor_lose_contents(struct weft_region *region);
/*
 * Newcomers wait for a whole lease from now, as long as a holder of the lost contents may answer
 * from memory.  Nobody knows how much of that lease is over already.
 */
void donor_begin_grace(struct weft_region *region);

/* rights.c */

/* The name of the peer's key into ret of WEFT_KEY_NAME_MAX + 1; "" without one. */
void donor_name_of(const struct weft_peer *peer, char *ret);
/*
 * What the peer may do here: 0, with what weft_rights_fini() takes; or -EACCES, -ENOMEM.  Without a
 * key of its own, or without a peer (NULL), that is everything.
 */
int donor_rights(const struct weft_donor *donor, const struct weft_peer *peer,
	struct weft_rights *ret, struct weft_error *err);
/* The same if it may have the region in this mode; else -ENOENT, -EROFS too. */
int donor_may_have(const struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_region *region, enum weft_mode mode, struct weft_rights *ret,
	struct weft_error *err);
/* Whether both share an address's budget. */
bool donor_is_same_source(const struct weft_peer *a, const struct weft_peer *b);
/*
 * Whether the limits of a key, and those of an address, allow one more session, of the region: 0,
 * or -EBUSY.  own: the attachment that it joins or raises to the generation, or NULL.  Under the
 * lock.
 */
int donor_check_limits(const struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_rights *rights, const struct weft_region *region,
	const struct weft_attachment *own, uint64_t generation, struct weft_error *err);
/* By what the owner of a tenure is known, never 0; as donor_name_of() names him. */
uint64_t donor_owner_of(const struct weft_region *region, const struct weft_peer *peer);
/* By what an attachment is known: its id, under the name of its key. */
void donor_id_hash(const struct weft_region *region, const char *owner, const uint8_t *id,
	uint8_t *ret);
/* Says so, of one that there is not, or not for who asks: -ENOENT. */
int donor_no_such_region(const char *name, struct weft_error *err);

/* passes.c; under the lock, but for fini. */

/* Wipes those whose time is over. */
void donor_passes_expire(struct weft_donor *donor, uint64_t now_ns);
void donor_passes_fini(struct weft_donor *donor);

/* marks.c: no state of the region is one to trust, from now on.  Under the lock. */
void donor_raise_mark(struct weft_region *region);

/* elsewhere.c and moves.c; under the lock. */

/* Whether the move that the region is in, if there is one, lets this hello be granted. */
int donor_check_move(const struct weft_region *region, const struct weft_hello *hello,
	const struct weft_peer *peer, struct weft_error *err);
/* Whether contents of that epoch (0: any) were here under the name, and are elsewhere now. */
int donor_check_elsewhere(const struct weft_donor *donor, const char *name, uint64_t epoch,
	struct weft_error *err);
/* To where the region was given, or NULL. */
const char *donor_given_to(const struct weft_region *region);
/* For a welcome: to where the region moves, or "". */
void donor_moving_to(const struct weft_region *region, char ret[WEFT_PLACE_MAX]);
/* Ends a move whose taker is silent, before it was given. */
void donor_moves_tick(struct weft_donor *donor, struct weft_region *region, uint64_t now_ns);
void donor_moves_fini(struct weft_donor *donor);

/* hashes.c: whose turn it is to hash.  0, or -ENOMEM. */

int donor_hashes_init(struct weft_donor *donor);
void donor_hashes_fini(struct weft_donor *donor);

/* audit.c: lines of the log, without the lock. */

void donor_audit_grant(const struct weft_peer *peer, const struct weft_region *region,
	const struct weft_hello *hello, bool writable);
void donor_audit_refusal(struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_region *region, const struct weft_hello *hello,
	const struct weft_error *why);
void donor_audit_end(const struct weft_peer *peer, const char *region, const char *why);

/* attachments.c; under the lock. */

struct weft_attachment *donor_attachment_new(struct weft_donor *donor, struct weft_region *region);
/* It is idle. */
void donor_attachment_free(struct weft_attachment *a);
/* The entry that says whether it holds the region; NULL for those who hold nothing. */
struct weft_generation *donor_generation_of(const struct weft_attachment *a);
/* The longest lease of those who hold the region against others. */
uint32_t donor_longest_lease_ms(const struct weft_donor *donor, const struct weft_region *region);
uint64_t donor_silent_ns(const struct weft_attachment *a, uint64_t now_ns);
/*
 * Takes the region away from the attachment if its lease ran out.  Its sessions are still to be
 * fenced.
 */
void donor_lapse_if_silent(struct weft_attachment *a, uint64_t now_ns);
/* A grant of `a` below the generation that is not fenced yet, or NULL. */
struct weft_grant *donor_unfenced(const struct weft_attachment *a, uint64_t below);
/* Leases that are over, keys that are gone; the lock is released meanwhile. */
void donor_attachments_tick(struct weft_donor *donor, uint64_t now_ns);
/* Calls fence() once, without the lock. */
void donor_fence(struct weft_donor *donor, struct weft_grant *grant);
/* The writers that this process does not see; the same for each. */
void donor_fence_unseen_writers(struct weft_donor *donor, const struct weft_region *region);
/*
 * The session that has the alias, if it is good for a peer whose key has this name; or NULL.
 */
struct weft_grant *donor_find_alias(const struct weft_donor *donor, const char *owner,
	const uint8_t *alias);
/* False once deadline_ns has passed. */
bool donor_wait_for_change(struct weft_donor *donor, uint64_t deadline_ns);

static inline bool donor_is_idle(const struct weft_attachment *a)
{
	return a->nr_grants == 0 && a->nr_waiters == 0;
}

/* What the host calls itself, of an attachment without a key; NULL: it is none of a host's. */
static inline const char *donor_host_of(const struct weft_attachment *a)
{
	return a->owner[0] == '@' ? a->owner + 1 : NULL;
}

static inline uint64_t donor_lease_ns(const struct weft_attachment *a)
{
	return a->lease_ms * NS_PER_MS;
}

static inline void donor_copy_text(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from ? from : "");
}

/* Whether it has a session, or somebody waits for one. */
bool donor_is_being_used(const struct weft_donor *donor, const struct weft_region *region);
bool donor_region_in_use(const struct weft_donor *donor, const struct weft_region *region);
/*
 * For a region that was adopted or opened: keeps it for the attachments that held it before.  0, or
 * -ENOMEM.
 */
int donor_restore_attachments(struct weft_donor *donor, struct weft_region *region);
/*
 * The region is not lent after all, and nobody has been granted it.  Its entries keep what they
 * say.
 */
void donor_drop_attachments(struct weft_donor *donor, struct weft_region *region);

/* regions.c */

void donor_regions_fini(struct weft_donor *donor);

#endif
