/* SPDX-License-Identifier: MIT */
/*
 * Following a region that moves from one donor to another while it is used.
 *
 * The donor that has the region, the home, says in its grants to which place the region is about to
 * move.  From then on a session that was lost is asked for at both in turn, at the place first, and
 * at the same generation.  A grant at the place makes it the home: the donor at the home before
 * grants nothing any more.  Until then nothing but a grant counts of what the place says, unless
 * the home has said that the region is there.  A grant at the home that names no place says that
 * the region stays.
 *
 * All lanes go to the same donor: one that finds that another lane has chosen follows it.  Any
 * lane's thread, under the attachment's lock.
 */
#ifndef WEFT_NBD_BRIDGE_LINK_FOLLOW_H
#define WEFT_NBD_BRIDGE_LINK_FOLLOW_H

#include "nbd-bridge/link/peer.h"

/* What is to be done about a refusal. */
enum follow_next {
	FOLLOW_NOT,   /* the region does not move: as about any refusal */
	FOLLOW_NOW,   /* ask at once: another donor's turn has come */
	FOLLOW_SOON,  /* the region is between two donors: ask soon */
	FOLLOW_LATER, /* both have refused: ask after the usual wait; nothing is final */
};

/* At the attachment's begin; peer->first is filled. */
void follow_init(struct bridge_peer *peer);
/* After a reset: what a donor said of a move was about other contents.  Under the lock. */
void follow_forget(struct bridge_peer *peer);
/* Whether there is a way from the peer to another region; under the lock. */
bool follow_reaches(struct bridge_peer *peer, const char *uri);
/*
 * The peer is that region from now on, of which nothing is known and which it reaches; as
 * peer_begin_anew(), under the lock.
 */
void follow_replace(struct bridge_peer *peer, const char *uri);
/*
 * Where the region is ("": as the attachment was begun), and where it may be soon ("": it stays);
 * they live as long as the attachment.  Returns a number that goes up with each change.
 */
uint64_t follow_now(struct bridge_peer *peer, const char **ret_at, const char **ret_moving);
/* Whether the region may be at another place than the home. */
bool follow_has_place(struct bridge_peer *peer);
/* Whether the site is where the attachment is.  */
bool follow_is_home(struct bridge_peer *peer, const struct bridge_site *site);
/*
 * Whether a grant's contents, or a refusal, of the site say something final; others are of a donor
 * that may not have the region.
 */
bool follow_counts(struct bridge_peer *peer, const struct bridge_site *site);
/* The site refused a session.  told: the place that it named; "": none. */
enum follow_next follow_refused(struct bridge_peer *peer, const struct bridge_site *site, int error,
	const char *told);
/*
 * A session was granted at *io_site, which becomes the home, with the ways that it offers, and is
 * noted.  Nothing was asked under the grant yet.  0; -EAGAIN: the grant is of no use, as another
 * lane has found the region elsewhere; or as note_place().
 */
int follow_granted(struct bridge_peer *peer, const struct bridge_site **io_site,
	const struct tp_info *info);

#endif
