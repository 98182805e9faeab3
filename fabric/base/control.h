/* SPDX-License-Identifier: MIT */
/*
 * A daemon's control socket: a Unix stream socket in weft_run_dir(), over which a client asks one
 * JSON object and the daemon answers with one.  Its mode is 0600, and peers of another uid are
 * refused (SO_PEERCRED).  Names: "serve-<port>.sock", "attach-<name>.sock".  A question is one
 * line, {"op": "status", …}; the answer is one line.
 */
#ifndef WEFT_FABRIC_BASE_CONTROL_H
#define WEFT_FABRIC_BASE_CONTROL_H

#include <jansson.h>
#include <stdbool.h>

#include "fabric/base/error.h"
#include "fabric/base/loop.h"

/*
 * The version of what daemons answer to "status": weft-status(1).  It goes up when a name or a unit
 * changes.
 */
enum { WEFT_STATUS_SCHEMA = 1 };

struct weft_control;
struct weft_control_call; /* one question waiting for its answer */

/*
 * Serves weft_run_dir()/name on the loop.  fn is called on the loop's thread with the question
 * (borrowed) and must, then or later, call weft_control_answer() once.  A stale socket file (nobody
 * answers) is replaced; -EADDRINUSE: a live daemon has the name.
 */
int weft_control_new(struct weft_loop *loop, const char *name,
	void (*fn)(void *ctx, struct weft_control_call *call, const json_t *question), void *ctx,
	struct weft_control **ret, struct weft_error *err);
/* Removes the socket file; open calls are dropped.  Takes NULL. */
void weft_control_free(struct weft_control *control);
/* Takes over the reference to answer.  Safe when the asker has gone. */
void weft_control_answer(struct weft_control_call *call, json_t *answer);

/*
 * Asks a daemon and waits for the answer at most timeout_ms.  name: as above, or an absolute path.
 * The answer is a new reference.  -ENOENT: no such daemon; -ECONNREFUSED: its socket is stale;
 * -ETIMEDOUT; -EPROTO: not JSON; an answer {"error": "…", "code": N} becomes -N with the text.
 */
int weft_control_ask(const char *name, const json_t *question, int timeout_ms, json_t **ret,
	struct weft_error *err);

/*
 * Calls fn with the socket name of each daemon whose name starts with prefix, sorted. 0, or -errno.
 */
int weft_control_each(const char *prefix, int (*fn)(void *ctx, const char *name), void *ctx);
/* The same for other files in weft_run_dir(): those that end with suffix. */
int weft_run_dir_each(const char *prefix, const char *suffix,
	int (*fn)(void *ctx, const char *name), void *ctx);

#endif
