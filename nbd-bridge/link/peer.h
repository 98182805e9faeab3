/* SPDX-License-Identifier: MIT */
/*
 * A donor as an attachment sees it: the generation and the way that all lanes share, the grant, the
 * notes, the lease.  Any lane's thread.
 */
#ifndef WEFT_NBD_BRIDGE_LINK_PEER_H
#define WEFT_NBD_BRIDGE_LINK_PEER_H

#include <jansson.h>

#include "nbd-bridge/link/attachment.h"
#include "nbd-bridge/link/site.h"
#include "nbd-bridge/link/ways.h"

enum { BRIDGE_WHY_MAX = 640 };

/* Fields that change are under the attachment's lock, except the atomic ones. */
struct bridge_peer {
	struct bridge_attachment *attachment;
	unsigned index;
	struct bridge_donor_config config;
	_Atomic uint64_t generation;
	/* the highest that was granted: lower ones are fenced */
	_Atomic uint64_t granted_generation;
	uint64_t noted_generation; /* config.note() knows of it */
	_Atomic uint64_t wrote_generation; /* … and of a write under this one */
	unsigned nr_ready;   /* links that are ready at the generation */
	/* a scout asks for the next generation over another way: nobody else may */
	bool changes_way;
	bool granted;        /* info is valid */
	/*
	 * A copy whose donor has other contents than it was granted with, or none: it is asked no
	 * more, until it begins anew.
	 */
	_Atomic bool lost_contents;
	struct tp_info info; /* what was granted first */
	_Atomic bool version0;   /* whether the donor spoke version 0 when it granted last */
	/*
	 * of weft_boottime_ns(): afterwards others may have been granted the region; UINT64_MAX:
	 * never
	 */
	uint64_t lease_until_ns;
	uint8_t alias[WEFT_ID_BYTES]; /* of the session at … */
	uint64_t alias_generation;    /* … this generation, as asked for; 0: none */
	struct bridge_ways ways;
	char used_transport[16];
	struct weft_error left_why; /* why the way before was left */
	char way_why[BRIDGE_WHY_MAX];
	/* follow.h: the region may move */
	bool follows;     /* constant: the attachment can go on elsewhere, and says so */
	bool asks_place;  /* the next session is asked for at the place */
	unsigned nr_moving; /* refusals of the place that say that the region is about to come */
	bool decided;     /* the donor that had the region says that the place has it */
	struct bridge_site first;       /* as config has it */
	const struct bridge_site *home; /* the donor that granted last, and `ways` lead to */
	bool is_replaced; /* home is another region than before, and was not granted yet */
	const struct bridge_site *place; /* where the region may be soon; NULL: it stays */
	struct bridge_site *sites;      /* all but the first, as long as the attachment */
	uint64_t nr_places, noted_places; /* changes of home and place; … that are noted */
};

/*
 * Where to connect: 0, or -EAGAIN: another lane is finding out, ask again soon.  lost: the grant at
 * the generation is lost, so the next generation is due.
 */
int peer_where(struct bridge_peer *peer, uint64_t generation, bool lost, uint64_t *ret_generation,
	const struct bridge_site **ret_site, unsigned *ret_way);
/*
 * A link was granted; a link lost its grant.  *ret_way_changed: the grant is the first over another
 * way.
 */
void peer_granted(struct bridge_peer *peer, uint64_t generation, unsigned way,
	const struct tp_info *info, bool *ret_way_changed);
/* A connection of the generation was replaced by another like it. */
void peer_renewed(struct bridge_peer *peer, const struct tp_info *info);
void peer_lost(struct bridge_peer *peer, const struct bridge_site *site, uint64_t generation,
	unsigned way, const struct weft_error *why);
/* Connecting at the generation failed: another way may be taken from now on.  True: at once. */
bool peer_refused(struct bridge_peer *peer, uint64_t generation, const struct weft_error *why);
/* The next generation, unless somebody has raised it already. */
void peer_raise(struct bridge_peer *peer, uint64_t generation);
/*
 * The donor has other contents than the attachment remembers: a copy has lost its contents, and
 * anything else is stale from now on.
 */
void peer_set_stale(struct bridge_peer *peer, const struct weft_error *why);
/*
 * A copy that lost its contents, or never was granted, begins anew: it remembers nothing.  No link
 * to it has a connection, or asks for one.  uri: from now on the copy is this region, which it
 * reaches; NULL: the same.
 */
void peer_begin_anew(struct bridge_peer *peer, const char *uri);
/* Whether there is a way to the region, for a copy that is another one now. */
bool peer_reaches(struct bridge_peer *peer, const char *uri);
/* The URI of the region that it is now; it lives as long as the attachment.  NULL: nobody said. */
const char *peer_uri(struct bridge_peer *peer);
/*
 * Notes for a take-over: the grant, before anything is asked under it; a write under the grant,
 * before anybody learns of the write.  0, or -errno.
 */
int peer_note_granted(struct bridge_peer *peer, uint64_t generation);
int peer_note_wrote(struct bridge_peer *peer, uint64_t generation);
/* The highest generation that was noted; 0: none, or the contents cannot be put back. */
uint64_t peer_noted(struct bridge_peer *peer);
/* Fills the fields of a hello that say what is remembered. */
void peer_claim(const struct bridge_peer *peer, struct weft_hello *hello);
/* Whether its contents are known: a lane has been granted them. */
bool peer_is_granted(const struct bridge_peer *peer);
/* Gives the hello an alias that no session had before. */
void peer_give_alias(struct bridge_peer *peer, struct weft_hello *hello);
/*
 * The alias of the session that the donor has granted last; returns its generation.  0: there is no
 * such session now.  Any thread.
 */
uint64_t peer_alias(struct bridge_peer *peer, uint8_t *ret);
/* The donor has answered a sign of life that was sent at sent_ns (weft_boottime_ns()). */
void peer_renew_lease(struct bridge_peer *peer, uint64_t sent_ns, uint32_t lease_ms);
/*
 * For a scout.  may_look: whether to look, and over which way; move: begins, or ends, the move to
 * the next generation, at the site.  move_end returns whether everything has moved: false too if
 * the region has another site by now.
 */
bool peer_may_look(struct bridge_peer *peer, unsigned *ret_way, uint64_t *ret_wait_ns);
void peer_look_failed(struct bridge_peer *peer, const struct weft_error *why);
bool peer_move_begin(struct bridge_peer *peer, const struct bridge_site *site,
	uint64_t generation);
bool peer_move_end(struct bridge_peer *peer, bool moved, const struct bridge_site *site,
	uint64_t generation, unsigned way);

/*
 * grant.c: checks that the grant is for the contents and the abilities of this attachment; keeps
 * the first grant.  -ESTALE: other contents; -EOPNOTSUPP: the donor can do less than before.  The
 * first grants of all donors come to one lane alone.
 */
int peer_check_grant(struct bridge_peer *peer, const struct tp_info *info, struct weft_error *err);
/*
 * With copies: as many donors have granted as are needed, and the others have refused.  Puts
 * together what they can do, unless that was done.  0, or -EINVAL.
 */
int peer_put_together(struct bridge_attachment *attachment, struct weft_error *err);

/* The way to the donor that was granted last.  Any thread. */
struct bridge_way_now {
	char transport[16];
	uint64_t nr_changes;
	uint64_t since_ns;
	char why[BRIDGE_WHY_MAX]; /* "" before the first change */
};
void peer_way_now(struct bridge_peer *peer, struct bridge_way_now *ret);
/* For the bridge's status: a new reference.  Any thread. */
json_t *peer_status(struct bridge_peer *peer);

#endif
