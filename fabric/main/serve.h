/* SPDX-License-Identifier: MIT */
/*
 * What the parts of weft-serve share: serve.c (the daemon's life), serve-options.c (the command
 * line), serve-backend.c (servers that keep contents), serve-keys.c (the keys of those who may
 * come), serve-regions.c (what is lent, and what outlives the daemon), serve-notes.c (where it is
 * noted what moves), serve-moves.c (what comes from other donors, or goes there), serve-pool.c
 * (what a pool leases), serve-drain.c (everything goes, before the end) and serve-status.c
 * (messages and status).
 */
#ifndef WEFT_FABRIC_MAIN_SERVE_H
#define WEFT_FABRIC_MAIN_SERVE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/control.h"
#include "fabric/donor/donor.h"
#include "fabric/donor/holder.h"
#include "fabric/driver.h"
#include "fabric/listen.h"
#include "fabric/key/store.h"
#include "fabric/listener.h"
#include "fabric/move/moves.h"
#include "fabric/base/loop.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/base/watchdog.h"

enum {
	SERVE_MAX_LISTEN = 16,
	SERVE_MAX_LISTENERS = 16, /* transports */
	SERVE_MAX_REGIONS = 256,
	SERVE_MAX_PASSED = 2 * SERVE_MAX_REGIONS + SERVE_MAX_LISTEN, /* descriptors from systemd */
};

/* Who else has a region's memory, in case that we crash. */
enum serve_keeper {
	KEPT_BY_NOBODY,
	KEPT_BY_HOLDER,
	KEPT_BY_SYSTEMD, /* its descriptor store */
};

struct serve_region {
	char *name;
	char *path; /* FILE; of a backend its URI */
	bool is_backend;
	uint64_t size_bytes;
	struct weft_region *region;
	bool recovered;
	bool came;  /* from another donor */
	bool waits; /* whether it came is not known yet: it is not lent */
	enum serve_keeper keeper;
};

/* --pool: the pool that the donor joins. */
struct serve_pool_wish {
	const char *url;  /* of its coordinator; NULL: none */
	const char *name; /* of the donor there; NULL: the machine's */
	const char *rack, *key;
	uint64_t lend_bytes; /* 0: what is idle */
	bool idle;
	uint64_t reserve_bytes;
	uint32_t deadline_ms; /* 0: regions are never given up */
};

struct serve_pool;

struct serve {
	/* What was asked for. */
	struct serve_region wanted[SERVE_MAX_REGIONS];
	unsigned nr_wanted;
	const char *directory;
	const char *listen[SERVE_MAX_LISTEN];
	unsigned nr_listen;
	uint64_t hugepage_bytes;
	enum weft_numa numa;
	unsigned numa_node;
	bool read_only, allow_insecure, overcommit, backend_stable;
	unsigned lease_s, keep_s, watchdog_s;
	uint64_t take_bytes;  /* how much memory other donors may move here; 0: none */
	char *take_directory; /* where files go that other donors move here; NULL: nowhere */
	const char *drain_to; /* the donor that gets everything before the end; NULL: none does */
	const char *keys_dir; /* NULL: the default one, if there is one */
	const char *tls_certificates;
	struct serve_pool_wish pool_wish;

	/* What became of it. */
	struct weft_listening listening[SERVE_MAX_LISTEN];
	unsigned nr_listening;
	struct weft_loop *loop;
	struct weft_keys *keys; /* NULL: there are none */
	struct weft_watch keys_watch;
	struct weft_donor *donor;
	struct weft_moves *moves;
	struct serve_pool *pool; /* NULL: it joins none */
	/* How much more memory may come here now, by the pool; NULL: all of take_bytes. */
	uint64_t (*room)(struct serve *s);
	/* what threads of moves want of the main thread */
	pthread_mutex_t calls_lock;
	pthread_cond_t calls_done;
	struct serve_call *calls;
	bool takes_calls;
	/* The base transport's is the first. */
	struct serve_listener {
		const struct tp_driver *driver;
		struct weft_listener *listener;
	} listeners[SERVE_MAX_LISTENERS];
	unsigned nr_listeners;
	struct weft_control *control;
	struct weft_signals signals;
	struct weft_timer tick;
	struct weft_watchdog watchdog;
	struct weft_holder *holder; /* NULL: memory does not outlive us */
	struct weft_watch holder_watch;
	struct weft_timer holder_retry; /* after it died, or did not start */
	unsigned holder_wait_s;         /* before the last retry; 0: there was none */
	uint64_t holder_start_ns;
	/* weft move, while everything goes away */
	struct serve_drain {
		pid_t pid; /* 0: it does not run */
		struct weft_watch watch;
		struct weft_timer patience;
		int signo;
		unsigned nr; /* regions that it moves */
		bool ends; /* it is called off */
	} drain;
	int stop_signal;
	uint64_t start_ns;
};

/* WEFT_GO_ON (fabric/base/options.h), or the exit status; everything has been said then. */
int serve_parse_options(struct serve *s, int argc, char **argv);

int serve_open_keys(struct serve *s, struct weft_error *err);
/* From now on changes of them take effect at once. */
int serve_watch_keys(struct serve *s, struct weft_error *err);

/*
 * Takes the sockets that systemd passed (their fds become -1), and binds those that were asked for.
 */
int serve_open_sockets(struct serve *s, int *fds, char *const *names, int nr_fds,
	struct weft_error *err);
/* Removes the socket files that we made. */
void serve_remove_sockets(const struct serve *s);
/* The first socket that a borrower elsewhere would use: TCP before Unix. */
const struct weft_listening *serve_main_listening(const struct serve *s);

/*
 * Recovers the memory that was left behind (in part among the fds), then makes and opens the other
 * regions.
 */
int serve_open_regions(struct serve *s, int *fds, char *const *names, int nr_fds,
	struct weft_error *err);
/* w->path is an NBD server's URI. */
int serve_open_backend(const struct serve *s, struct serve_region *w, weft_stage_fn *wait,
	void *ctx, struct weft_error *err);
/* One of them, which was there before or came later. */
void serve_hold(struct serve *s, struct serve_region *w);
void serve_keep_promises(const struct serve *s, const struct serve_region *w);
/* A file that came by a move is not ours any more. */
void serve_remove_file(const struct serve_region *w);
void serve_forget_wanted(struct serve *s, struct serve_region *w);

/*
 * The path of the file of this donor's notes of moves, there or not.  first:
 * serve_main_listening().  Or what mkdir(2) said of its directory.
 */
enum { SERVE_NOTES_MAX = 512 };
int serve_find_notes(const struct serve *s, const struct weft_listening *first,
	char ret[SERVE_NOTES_MAX], struct weft_error *err);
/*
 * Before something is taken of what a donor before this one left: that may have had its notes in
 * another file, if it listened elsewhere first.  -EEXIST: another file says something of this life
 * of the region, and this donor's own does not, so that it may not lend it; or as notes_load().
 */
int serve_check_notes(const struct serve *s, const struct weft_listening *first,
	const struct weft_leftover *left, struct weft_error *err);

/* Before regions are opened; when the donor listens; before the loop ends for good. */
int serve_open_moves(struct serve *s, struct weft_error *err);
void serve_start_moves(struct serve *s);
void serve_end_moves(struct serve *s);
/* Any thread: runs it on the main thread, and returns what it returns; -ESHUTDOWN: that is ending.
 */
int serve_call_main(struct serve *s, int (*fn)(struct serve *s, void *ctx), void *ctx);
/* From now on there are none; those that wait are refused.  After serve_open_moves(). */
void serve_end_calls(struct serve *s);
/* weft_moves_owner: ctx is the program.  Memory that is made, or given up, while the donor runs. */
int serve_make_region(void *ctx, const char *name, uint64_t size_bytes, uint64_t epoch,
	const struct weft_transfer *transfer, bool fills, struct weft_region **ret,
	struct weft_error *err);
int serve_forget_region(void *ctx, struct weft_region *region);
/* weft_donor_config.question */
int serve_answer_move(void *ctx, const struct weft_peer *peer, const json_t *question,
	json_t **ret_answer, struct weft_error *err);

/* Before regions are opened; once the donor listens; before moves end. */
int serve_open_pool(struct serve *s, struct weft_error *err);
int serve_start_pool(struct serve *s, struct weft_error *err);
void serve_end_pool(struct serve *s);
/* Once nobody asks any more how much room there is. */
void serve_free_pool(struct serve *s);
/* The line about it, if there is one, of what is printed when the donor is ready. */
void serve_print_pool(const struct serve *s);
/* For the status; a new reference; null where there is none. */
json_t *serve_pool_json(const struct serve *s);

/*
 * A signal that asks for the end.  False: that is due now; else the loop is stopped once what there
 * is has gone, or is called off.
 */
bool serve_drain(struct serve *s, int signo);
/* A program in a process group of its own, with signals as by default.  0, or -errno. */
int serve_spawn(const char *program, char *const *argv, pid_t *ret);
/* After the loop. */
void serve_end_drain(struct serve *s);

/* From now on the memory that we took outlives us too. */
void serve_hold_all(struct serve *s);
void serve_end_holder(struct serve *s);

void serve_print_ready(const struct serve *s);
/* Warns, once for each file, of files that are no longer what was opened. */
void serve_warn_of_files(struct serve *s);
/* Warns of memory that ends with us although somebody has it attached. */
void serve_warn_given_back(const struct serve *s);
json_t *serve_status_json(const struct serve *s);

#endif
