/* SPDX-License-Identifier: MIT */
/*
 * What must outlive a bridge that is killed: <run dir>/attach-NAME.json, mode 0600.  The secret id
 * and the incarnation let the next bridge of this name take the attachment over; whoever holds the
 * file's lock is the attachment.  Owned by the control thread.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_STATE_H
#define WEFT_NBD_BRIDGE_MAIN_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fabric/base/error.h"
#include "fabric/hello.h"
#include "fabric/transport.h"
#include "fabric/base/util.h"
#include "nbd-bridge/front/front.h"

enum { BRIDGE_STATE_DONORS = 16 };

/* Who we are at a donor. */
struct bridge_state_donor {
	uint8_t id[WEFT_ID_BYTES];
	uint64_t epoch; /* of the contents attached; 0: none yet */
	uint64_t granted; /* with an epoch, as in weft_hello */
	bool wrote;
	struct tp_info info; /* what was granted; size_bytes 0: nothing yet, or it is not known */
};

struct bridge_state_file {
	struct bridge_state_donor donors[BRIDGE_STATE_DONORS];
	unsigned nr_donors;
	uint64_t generation;   /* the first of this incarnation, at all of them */
	char mode;             /* as in a hello; 0: not known */
	/* the donors refused what is remembered; until a reset's grant is noted */
	bool stale;
	/* of the bridge's own socket: who comes back there by NAME@TENURE finds what it knows */
	uint64_t socket_tenure;
	uint64_t stripe_bytes; /* 0: one donor */
	char *uri;             /* one of each donor, spaces between */
	char *socket, *mount; /* NULL: none */
	char *cache_file;     /* the same */
	/* the line that attaches it, and the directory that it was given in; NULL: not known */
	char *again;
	char *directory;
	struct bridge_device device; /* without a backend: none */
	uint64_t made_dev, made_ino; /* the mount's file, if it was made by us; else 0 */
	pid_t pid;
	/* Not in the file. */
	/*
	 * it was there, and cannot be believed: what is known of it beside may serve to clear away
	 * what it left
	 */
	bool damaged;
	/*
	 * it was there: left by a bridge that did not end by itself, since the machine was started
	 */
	bool takes_over;
	char boot[WEFT_BOOT_ID_BYTES]; /* the machine's life in which it was written */
	int fd;
	char path[160];
};

/* Another incarnation of it: what it asks for fences whatever the ones before have under way. */
void bridge_state_next_incarnation(struct bridge_state_file *state);

/*
 * Takes the name: reads what a dead bridge left (a fresh id and the first generation if there is
 * nothing), and locks it.  -EBUSY: there is a live attachment of this name; -EUCLEAN: what is there
 * cannot be believed, and may remember anything.  *ret tells what is known of it (fini it then
 * too).
 */
int bridge_state_open(const char *name, struct bridge_state_file *ret, struct weft_error *err);
/*
 * The same without taking or making anything: 0: there is a file, and a bridge lives (*ret_alive)
 * or not; -ENOENT.
 */
int bridge_state_peek(const char *name, struct bridge_state_file *ret, bool *ret_alive,
	struct weft_error *err);
/*
 * Calls fn with the name of each attachment that has a state file, sorted: it lives, or died.  0,
 * or -errno.
 */
int bridge_state_each(int (*fn)(void *ctx, const char *name), void *ctx);
/* A lane was granted this, or wrote under it.  Another may have noted more meanwhile. */
void bridge_state_note(struct bridge_state_donor *donor, uint64_t epoch, uint64_t granted,
	bool wrote);
/* A new identity at so many donors: the file speaks of something else. */
void bridge_state_renew(struct bridge_state_file *state, unsigned nr_donors);
/* On disk when it returns.  -EILSEQ: a path in it is no UTF-8. */
int bridge_state_write(struct bridge_state_file *state, struct weft_error *err);
/* Removes the file. */
void bridge_state_remove(struct bridge_state_file *state);
/* Lets go of it; the file stays. */
void bridge_state_fini(struct bridge_state_file *state);

#endif
