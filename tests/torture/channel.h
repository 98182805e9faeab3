/* SPDX-License-Identifier: MIT */
/*
 * Where a client's operations go: a connection to an NBD server, or a block device.  Several are
 * under way at once.  An operation whose connection broke is unanswered, and up to the client; a
 * device's is never.  One thread.
 */
#ifndef WEFT_TESTS_TORTURE_CHANNEL_H
#define WEFT_TESTS_TORTURE_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum channel_kind { CHANNEL_READ, CHANNEL_WRITE, CHANNEL_FLUSH };

/* What has become of one. */
enum { CHANNEL_PENDING, CHANNEL_DONE, CHANNEL_ERROR, CHANNEL_UNANSWERED };

struct channel;

/* path: a Unix socket, or a block device; uri: an NBD URI.  NULL if it cannot be opened (now). */
struct channel *channel_open_path(const char *path);
struct channel *channel_open_uri(const char *uri);
/* clean: it says goodbye.  Takes NULL. */
void channel_close(struct channel *c, bool clean);

/*
 * slot: less than 16, free.  buf is the channel's until there is an outcome. False: it is broken.
 */
bool channel_submit(struct channel *c, unsigned slot, enum channel_kind kind, void *buf,
	uint64_t off, size_t len);
/* Once, after which the slot is free, unless it is CHANNEL_PENDING. */
int channel_outcome(struct channel *c, unsigned slot);
bool channel_is_broken(const struct channel *c);
/* Moves what can be moved; waits at most so long. Several: waits for any. */
void channels_run(struct channel *const *channels, unsigned nr, int timeout_ms);

#endif
