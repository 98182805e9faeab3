/* SPDX-License-Identifier: MIT */
/*
 * Memory regions outlive the daemon: systemd's descriptor store keeps their descriptors where there
 * is one, otherwise a tiny process does (weftholder, main/holder.c).
 *
 * The daemon keeps a connection to its holder.  When the connection ends without a goodbye, the
 * holder waits for the next daemon, and gives up after a while.  The next daemon looks at all
 * holders in weft_run_dir() whose daemon is gone.  From those whose daemon listened at the same
 * place it takes the regions that it was told to lend, hands them to a holder of its own, and lets
 * the old holder forget them.  So somebody has the memory at any time.
 *
 * Thread: the daemon's main thread.
 */
#ifndef WEFT_FABRIC_DONOR_HOLDER_H
#define WEFT_FABRIC_DONOR_HOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/region/region.h"

/* Descriptors that a daemon left behind. */
struct weft_leftovers;

struct weft_leftover {
	char name[WEFT_MEMORY_NAME_MAX + 1];
	uint64_t size_bytes, epoch;
	int fd, header_fd; /* they belong to the leftovers; dup before adopting */
	bool stored;       /* in systemd's store, else with the process holder_pid */
	int holder_pid;
	/* stored, or left by a donor that listened where we do; only then to be adopted */
	bool ours;
	char place[280];    /* not stored: where that donor listened */
	unsigned seconds;   /* not stored: how long the holder still keeps it */
};

/*
 * Collects the leftovers among the nr_fds descriptors that systemd passed with these names (a
 * region's descriptors become the leftovers', and -1 in fds[]), and those of holders whose daemon
 * is gone.  places: where this daemon listens, lines of weft_listening_places().  If a daemon that
 * listened there is still dying, its holder is waited for (5 s).  0, or -ENOMEM; what cannot be
 * read is left out.
 */
int weft_leftovers_find(const char *places, int *fds, char *const *names, int nr_fds,
	struct weft_leftovers **ret);
/* The leftover of this name, or NULL; of several the first that is ours, else the first. */
const struct weft_leftover *weft_leftovers_get(const struct weft_leftovers *leftovers,
	const char *name);
/*
 * Lists the memory of all holders that have lost their daemon, without waiting for a holder; takes
 * nothing from them.  0, or -ENOMEM.
 */
int weft_leftovers_look(struct weft_leftovers **ret);
/* The i-th, in no particular order; NULL past the last. */
const struct weft_leftover *weft_leftovers_at(const struct weft_leftovers *leftovers, unsigned i);
/* The leftover was adopted and handed on: its keeper may forget it. */
void weft_leftovers_done(struct weft_leftovers *leftovers, const struct weft_leftover *leftover);
/* Leftovers that were not taken stay with their keepers, for the time that is left.  Takes NULL. */
void weft_leftovers_free(struct weft_leftovers *leftovers);

struct weft_holder;

/*
 * Starts a holder that keeps memory for keep_s seconds without a daemon.  places: as
 * weft_listening_places() says.  -ENOENT: no weftholder beside this program; or what socketpair(2),
 * posix_spawn(3) said.
 */
int weft_holder_start(const char *places, unsigned keep_s, struct weft_holder **ret,
	struct weft_error *err);
/*
 * The same for systemd's descriptor store, which has room for nr_free more descriptors.  0, or
 * -ENOMEM.
 */
int weft_holder_store(unsigned nr_free, struct weft_holder **ret);
/*
 * Hands the holder a memory region, and waits until the holder has the region.  0; -EPIPE: the
 * holder died; -ENOSPC: the store, or the holder, is full; or what sendmsg(2),
 * sd_pid_notify_with_fds(3) said.
 */
int weft_holder_hold(struct weft_holder *holder, const struct weft_region *region,
	struct weft_error *err);
/* The holder forgets a region that it was given. */
void weft_holder_drop(struct weft_holder *holder, const struct weft_region *region);
/* To poll for: readable when the holder died.  -1: nothing to watch. */
int weft_holder_fd(const struct weft_holder *holder);
/* The holder's process; 0 for systemd's store or NULL. */
int weft_holder_pid(const struct weft_holder *holder);
/*
 * The daemon ends.  keep: the memory stays for the next daemon; otherwise it is freed now, unless
 * systemd decides.  Takes NULL.
 */
void weft_holder_end(struct weft_holder *holder, bool keep);

/*
 * Between the two, on SOCK_SEQPACKET sockets:
 *   daemon:       "hold EPOCH ack" with two descriptors (memory, header); "drop EPOCH"; "bye"
 *   next daemon:  "take"; "drop EPOCH"
 *   holder:       "up" to its daemon, once it listens, or "down WHY";
 *                 "held" or "full" to "hold", where that says "ack";
 *                 to "take": "busy PID PLACES"; or "kept SECONDS PLACES", then "region EPOCH" with
 *                 two descriptors for each, then "end"
 * EPOCH: 16 hex digits.
 */
enum { WEFT_HOLDER_MESSAGE_MAX = 512, WEFT_HOLDER_FD = 3 };
#define WEFT_HOLDER_PREFIX "hold-"
#define WEFT_HOLDER_STORE_NAME "weft-region-" /* and the epoch: a name in systemd's store */

/*
 * Sends a message with nr_fds descriptors.  0, or -errno.  Receives one: its length,
 * NUL-terminated; -EPIPE at the end.
 */
int weft_holder_send(int fd, const char *text, const int *fds, unsigned nr_fds);
int weft_holder_receive(int fd, char text[WEFT_HOLDER_MESSAGE_MAX], int fds[2],
	unsigned *ret_nr_fds);

#endif
