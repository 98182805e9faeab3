/* SPDX-License-Identifier: MIT */
/*
 * What the programs weft push and weft pull have in common: options, the region, signals, and what
 * they say.  One thread.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_SYNC_COMMAND_H
#define WEFT_NBD_BRIDGE_MAIN_SYNC_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/options.h"
#include "nbd-bridge/library/weft.h"
#include "nbd-bridge/main/sync.h"

struct sync_command {
	const char *program; /* "weft-push" */
	/* Set by sync_command_take_arguments(); as given. */
	const char *file;
	const char *const *uris;
	unsigned nr_uris;
	/* Of sync_command_options. */
	const char *key_file;
	uint64_t stripe_bytes;
	bool json, allow_insecure;
	/* Set by sync_command_open(). */
	struct weft *w;
	uint64_t region_bytes;
	char *uri; /* all of them, for people */
	/* Private. */
	struct sync *sync;
	uint64_t begin_ns, work_ns, total, said_ns; /* work_ns: when what is shown began */
	bool terminal, drawn;
	volatile sig_atomic_t stop;
};

/* Rows of both: --stripe-unit, --json, --key, --allow-insecure. */
extern const struct weft_option sync_command_options[];

/*
 * Takes the file and the URIs, after weft_options_parse().  The file is the first argument or else
 * the last; the first two rows of the line are the arguments'.  WEFT_GO_ON, or the exit status.
 */
int sync_command_take_arguments(struct sync_command *command, const struct weft_command_line *line,
	bool file_first);
/* Opens the region, over one connection to each donor.  flags: WEFT_OPEN_….  0, or -errno. */
int sync_command_open(struct sync_command *command, unsigned flags, struct weft_error *err);
/*
 * Makes *ret as sync_new(); config has the direction and the file.  From now on SIGINT and SIGTERM
 * ask to stop, the first time, and work that takes longer than a second shows how far it is.
 */
int sync_command_begin(struct sync_command *command, struct sync_config *config, struct sync **ret,
	struct weft_error *err);
/* What is done from now on is shown if it takes longer than a second by itself. */
void sync_command_begin_work(struct sync_command *command);
/* Only the signals, for work without a struct sync. */
void sync_command_catch_signals(struct sync_command *command);
/* total: of what is done in all; 0: not known. */
void sync_command_progress(struct sync_command *command, uint64_t done, uint64_t total);
void sync_command_end_progress(struct sync_command *command);
/*
 * Says on standard output what was done, as a sentence or a JSON object.  complete: it was not
 * asked to stop.
 */
void sync_command_report(struct sync_command *command, const struct sync_totals *totals, bool pull,
	bool complete);
/*
 * Of a pass that followed another: how much the pass found and pushed.  0: the region is the file
 * as it was between the two, and is marked.  A line, or a JSON object on one.
 */
void sync_command_report_pass(struct sync_command *command, uint64_t different, bool marked);
/* Of a follower: the file is the state of this mark; the region has none; its donor is gone. */
void sync_command_report_marked(struct sync_command *command, const struct sync_totals *totals,
	const struct weft_mark *mark);
void sync_command_report_unmarked(struct sync_command *command, const struct weft_mark *mark);
void sync_command_report_gone(struct sync_command *command);
/* Waits, unless it is asked to stop; 0: a second. */
void sync_command_rest(const struct sync_command *command, uint32_t ms);
/* Closes the region and frees the rest. */
void sync_command_fini(struct sync_command *command);

#endif
