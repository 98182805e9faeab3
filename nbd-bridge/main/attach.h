/* SPDX-License-Identifier: MIT */
/* Private to weft attach: what its files share. */
#ifndef WEFT_NBD_BRIDGE_MAIN_ATTACH_H
#define WEFT_NBD_BRIDGE_MAIN_ATTACH_H

#include <pthread.h>
#include <stdatomic.h>

#include "fabric/base/control.h"
#include "fabric/base/process.h"
#include "nbd-bridge/bridge/find.h"
#include "nbd-bridge/cache/seal.h"
#include "nbd-bridge/front/front.h"
#include "nbd-bridge/main/attach-options.h"
#include "nbd-bridge/front/settle.h"
#include "nbd-bridge/main/state.h"

enum {
	ATTACH_STALE = 3, /* weft-attach exits with it: taken over, but stale */
	ATTACH_CONNECT_MS = 10000,
};

struct attach {
	struct attach_options options;
	struct weft_loop *loop;
	struct bridge_find find;
	struct bridge *bridge;
	struct bridge_front *fronts; /* in the order of stopping */
	struct weft_control *control;
	struct weft_control_call *detach; /* the question that waits for the end */
	struct bridge_state_file state; /* under state_lock, once there is a bridge */
	pthread_mutex_t state_lock;
	struct bridge_tenure socket_tenure;
	bool have_name; /* the state file is ours */
	/* it was taken over, and its donors do not have the contents that it remembers */
	bool began_stale;
	struct cache_file *cache_file; /* NULL: none */
	bool resumes;  /* goes on with the cache file's contents */
	struct seal *seal; /* NULL: the contents are not sealed */
	/* as struct seal_identity has it; under state_lock, once there is a bridge */
	char seal_boot[SEAL_BOOT];
	/* the machine was restarted while the contents that the seal's file has were attached */
	bool restarted;
	bool seal_lost; /* taken over, and nobody keeps the memory that sealed the contents */
	uint64_t nr_bad_told; /* bad blocks that the log has named */
	bool left_cache; /* stale: the cache file keeps its contents, for weft rescue */
	struct attach_rescue *rescue; /* under way */
	bool attached; /* the attach had succeeded */
	bool rescued;  /* since it became stale */
	bool unmounted; /* the user has unmounted the file, and the log says so */
	struct weft_signals signals;
	/* attach-end.c */
	struct bridge_settle settle;
	/* the kernel has written back, with settle_result, since the last look */
	bool settled;
	bool settle_everything; /* a signal began the write-back that is under way */
	int settle_result;
	int asked_to_end;       /* the signal that asked; 0: none */
	struct weft_timer end_look;
	/* the user ordered it to end without the bytes that a silent donor has not received */
	bool gives_up;
	struct weft_error end_told; /* the reason that was told why it goes on */
	uint64_t nr_changes[BRIDGE_MAX_DONORS]; /* changes of transport that were told */
	/* regions that have moved: where it begins, taken over; the last change that is noted */
	struct weft_uri at[BRIDGE_MAX_DONORS];
	uint64_t nr_places[BRIDGE_MAX_DONORS];
	/* … and told: its number, and where the region was then; NULL: nothing yet */
	uint64_t told_places[BRIDGE_MAX_DONORS];
	const char *told_at[BRIDGE_MAX_DONORS];
	char device_why[320]; /* the reason for this kind of device */
	/* a copy: what the state remembers of it is gone, as its donor said before the begin */
	bool has_other_contents[BRIDGE_MAX_DONORS];
	const char *last_state;
	/* attach-swap.c: the state file's pages, locked */
	void *held_state;
	struct weft_timer swapped_look; /* attach-swapped.c */
	uint32_t told_current; /* copies: a bit for each donor; logged */
	bool told_of_key; /* … that it is refused, since it was ready */
	int result_fd; /* -1: the foreground */
	pid_t guard;   /* 0: there is none; see attach-guard.h */
};

/* attach-control.c: the control socket's questions. */
void attach_on_question(void *attach, struct weft_control_call *call, const json_t *question);

/* attach-note.c: the state that outlives the bridge */

enum weft_mode attach_mode(const struct attach_options *o);
/*
 * Takes the attachment's name, and reads the state that a bridge of this name left.  Errors say
 * what to do.
 */
int attach_take_name(struct attach *a, struct weft_error *err);
/* Begins where the state says that the donors' regions are. */
int attach_begin_at_places(struct attach *a, struct weft_error *err);
/* Changes a->state by change() (NULL: not), under its lock, and writes it to disk. */
int attach_save_state(struct attach *a, void (*change)(struct attach *a, void *ctx), void *ctx,
	struct weft_error *err);
/* Whether the URI is the one that the user attached this donor's region by. */
bool attach_is_given(const struct attach_options *o, unsigned donor, const char *uri);
/* Two such changes: the grants of the bridge's donors; that the attachment is stale. */
void attach_change_granted(struct attach *a, void *ctx);
void attach_change_stale(struct attach *a, void *ctx);
/* The bridge became stale: a take-over has to know. */
void attach_keep_stale(struct attach *a);
/*
 * As bridge_attachment_config.note and note_place, bridge_tenure.note, and for
 * bridge_front_device_new(); ctx: the attach.
 */
int attach_note(void *ctx, unsigned donor, uint64_t epoch, uint64_t granted, bool wrote);
int attach_note_place(void *ctx, unsigned donor, uint64_t nr, const char *at, const char *moving);
int attach_note_tenure(void *ctx, uint64_t tenure);
int attach_save_device(void *ctx, const struct bridge_device *device, struct weft_error *err);

/*
 * attach-begin.c: makes and starts a->bridge, again and again with --wait.  Errors say what to do.
 */
int attach_begin_bridge(struct attach *a, struct weft_error *err);
/* Whether nobody waits for the attach any more. */
bool attach_is_given_up(void *attach);

/*
 * attach-copies.c: with --mirror.  ask: asks all donors, before anything is granted, whether the
 * copies can be attached; errors say what they answered.
 */
int attach_ask_copies(struct attach *a, struct weft_error *err);
/* Whether the donor has to have the contents that the state knows.  True without --mirror. */
bool attach_copy_remembers(const struct attach *a, unsigned donor);
/* bridge_copies_config.nr_needed, and for settle and note; ctx: the attach. */
unsigned attach_copies_needed(const struct attach *a);
int attach_settle_copies(void *ctx, struct bridge *bridge, struct bridge_copies_known *known,
	struct weft_error *err);
int attach_note_copies(void *ctx, unsigned set, const struct bridge_copies_known *known);

/*
 * attach-spares.c.  place: finds out which spares are copies already; their places are where it is
 * begun from the next attach_begin_at_places() on.  now: the regions that are none, by URI; returns
 * how many.
 */
void attach_place_spares(struct attach *a);
unsigned attach_spares_now(const struct attach *a, const char *ret[BRIDGE_MAX_DONORS]);
/* Where the donor's region is: as given, or elsewhere since. */
const char *attach_uri_now(const struct attach *a, unsigned donor);

/* attach-end.c */
/* Ends the front-ends: no new users, and those that there are finish.  -EBUSY without force. */
int attach_stop_fronts(struct attach *a, bool force, struct weft_error *err);
/* The number of users, and their names for people. */
unsigned attach_users(struct attach *a, char *text, size_t len);
enum attach_end {
	ATTACH_END_NOW,     /* the front-ends are stopped; the caller stops the loop */
	ATTACH_END_LATER,   /* something is being written back: try again later */
	ATTACH_END_REFUSED, /* the bridge goes on; *err says why */
};
enum attach_end attach_try_to_end(struct attach *a, struct weft_error *err);
/* SIGTERM and SIGINT: ends as soon as attach_try_to_end() lets it. */
void attach_on_signal(struct weft_signals *signals, int signo);
bool attach_donor_answers(struct attach *a);
/* Called before the bridge is stopped. */
void attach_forget_end(struct attach *a);

/*
 * attach-seal.c: for --verify and --encrypt: makes the memory that seals the contents, and the
 * cache's, or takes both from the guard of the bridge that died (or sets a->seal_lost).  Starts a
 * guard.
 */
int attach_open_seal(struct attach *a, struct weft_error *err);

/*
 * With a key of the user's: opens the file that seals the contents, and takes from it who we are
 * and what we remember.
 */
int attach_open_seal_file(struct attach *a, struct weft_error *err);
/* Notes that in the file too, durably, if there is one. */
int attach_note_seal(struct attach *a, struct weft_error *err);
/*
 * From now on something may be written that is not flushed, as the next note says: under the
 * state's lock.  And not any more, as the bridge has ended with a FLUSH.
 */
void attach_seal_in_use(struct attach *a);
void attach_seal_is_flushed(struct attach *a);
/* Whether the contents of that file are gone on with. */
bool attach_has_seal_file(const struct attach *a);

/*
 * attach-swap.c: with --swap; without it the first two do nothing.  Before the first thread: this
 * process is locked in memory, with a reserve.  When the bridge is there, and again when the
 * front-ends are: all of it is faulted in.  Errors say what to do.
 */
int attach_begin_swap(struct attach *a, struct weft_error *err);
int attach_complete_swap(struct attach *a, struct weft_error *err);
/* … and the host of a place to which the region may move is looked up before it is needed. */
void attach_look_up_place(const char *uri);
/* For status; null without --swap. */
json_t *attach_swap_status(struct attach *a);

/*
 * attach-swapped.c: who has swapped pages, for the log.  start: once this process is resident, and
 * all that it will be for its threads.  Without it the others do nothing.
 */
int attach_swapped_start(struct attach *a, struct weft_error *err);
/*
 * The bridge has come to another state, and some donor has been silent so long.  While that is
 * waited for, it is looked who has swapped pages, as the kernel soon ends those who want one that
 * is out of reach; then the log names them, largest first.
 */
void attach_follow_swapped(struct attach *a, const char *state, uint64_t silent_ns);
/* Before the log's thread ends. */
void attach_swapped_end(void);

/* attach-cache.c */
/*
 * Opens the cache file, if one was asked for.  The contents that a dead bridge left are resumed
 * (a->resumes; a->state says as whom); contents that cannot be resumed are kept.
 */
int attach_open_cache(struct attach *a, struct weft_error *err);

/* attach-reset.c */
/* "rescue": begins a rescue (with a file), or tells how far it is. */
json_t *attach_on_rescue(struct attach *a, const json_t *question);
/* "reset": a way back from being stale. */
json_t *attach_on_reset(struct attach *a, bool discard);
/* Called before the bridge is freed. */
void attach_end_rescue(struct attach *a);

/*
 * attach-log.c: from now on the messages of a bridge in the background, or of its guard, go to a
 * file beside its socket.
 */
void attach_log_to_file(const struct attach_options *o);
/* The path of that file; < 0: there is none. */
int attach_log_path(const struct attach_options *o, char *path, size_t len);

/*
 * attach-report.c: appends to the reason why a donor refused, or was not there, what the user can
 * do about it.  Returns -err->code.
 */
int attach_explain_refusal(const struct attach *a, struct weft_error *err);
/*
 * attach-report.c: tells the waiting command the result, on a pipe: a byte (0: attached; 1: not;
 * ATTACH_STALE), then the text.
 */
void attach_report(struct attach *a, int r, const struct weft_error *err);

#endif
