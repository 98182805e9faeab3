/* SPDX-License-Identifier: MIT */
/*
 * The state that must outlive a bridge that is killed: <run dir>/attach-NAME.json, mode 0600.  The
 * secret id and the incarnation let the next bridge of this name take the attachment over.  The
 * process that holds the file's lock is the attachment.  Owned by the control thread.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_STATE_H
#define WEFT_NBD_BRIDGE_MAIN_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fabric/base/error.h"
#include "fabric/hello.h"
#include "fabric/key/key.h"
#include "fabric/transport.h"
#include "fabric/base/util.h"
#include "nbd-bridge/cache/seal.h"
#include "nbd-bridge/front/front.h"
#include "nbd-bridge/link/attachment.h"

enum { BRIDGE_STATE_DONORS = 16 };

/* Who we are at a donor. */
struct bridge_state_donor {
	uint8_t id[WEFT_ID_BYTES];
	uint64_t epoch; /* of the contents attached; 0: none yet */
	uint64_t granted; /* with an epoch, as in weft_hello */
	bool wrote;
	char identity[WEFT_IDENTITY_MAX + 1]; /* of the key; "": none */
	/*
	 * Of a region that moves: where it is, "": where `uri` of the state says; where it may be
	 * soon, "": it stays.
	 */
	char at[WEFT_PLACE_MAX], moving[WEFT_PLACE_MAX];
	/* the grant; size_bytes 0: nothing was granted yet, or it is not known */
	struct tp_info info;
};

struct bridge_state_file {
	struct bridge_state_donor donors[BRIDGE_STATE_DONORS];
	unsigned nr_donors;
	uint64_t generation;   /* the first of this incarnation, at all donors */
	char mode;             /* as in a hello; 0: not known */
	/* the donors refused the contents that are remembered; until a reset's grant is noted */
	bool stale;
	/*
	 * of the bridge's own socket: a client that comes back by NAME@TENURE finds the contents
	 * that it knows
	 */
	uint64_t socket_tenure;
	/* by which foreign servers know this attachment, whenever it attaches; 0: none */
	uint64_t borrower;
	uint64_t stripe_bytes; /* 0: one donor */
	/* donors are copies in turn, so many of each stripe; 1: there are none */
	unsigned copies, min_copies;
	/* of each stripe; set 0: not known yet */
	struct bridge_copies_known sets[BRIDGE_STATE_DONORS];
	char *uri;             /* a URI for each donor, with spaces between */
	char *socket, *mount; /* NULL: none */
	char *cache_file;     /* the same */
	char *key_file;       /* the same */
	char *seal_file;      /* the same: what seals the contents, where it outlives a restart */
	enum seal_kind sealed; /* how the contents are sealed */
	pid_t guard;           /* of sealed contents: the process that keeps their memory … */
	uint64_t keeps[2];     /* … with these inodes: what seals them, the cache (0: in a file) */
	/* the line that attaches it, and the directory that it was given in; NULL: not known */
	char *again;
	char *directory;
	struct bridge_device device; /* without a backend: none */
	/* CLOCK_BOOTTIME: since when nobody serves that device; 0: somebody does, or did last */
	uint64_t unserved_ns;
	uint64_t made_dev, made_ino; /* the mount's file, if it was made by us; else 0 */
	pid_t pid;
	/* Not in the file. */
	/*
	 * the file was there, and cannot be believed; the fields that could be read may serve to
	 * clear away what its bridge left
	 */
	bool damaged;
	/*
	 * the file was left by a bridge that did not end by itself, since the machine was started
	 */
	bool takes_over;
	char boot[WEFT_BOOT_ID_BYTES]; /* the machine's life in which it was written */
	int fd;
	/* the file is never shorter than this, so that each write finds its pages there */
	size_t kept_bytes;
	char path[160];
};

/* Begins the next incarnation: its grants fence whatever earlier ones have under way. */
void bridge_state_next_incarnation(struct bridge_state_file *state);

/*
 * Takes the name: locks the file, and reads the state that a dead bridge left (or makes a fresh id
 * and the first generation).  -EBUSY: there is a live attachment of this name; -EUCLEAN: the file
 * cannot be believed; then *ret has what could be read, and needs bridge_state_fini() too.
 */
int bridge_state_open(const char *name, struct bridge_state_file *ret, struct weft_error *err);
/*
 * The same without taking or making anything.  0: there is a file; *ret_alive: whether its bridge
 * lives; -ENOENT.
 */
int bridge_state_peek(const char *name, struct bridge_state_file *ret, bool *ret_alive,
	struct weft_error *err);
/*
 * Calls fn with the name of each attachment that has a state file, sorted, whether it lives or has
 * died.  0, or -errno.
 */
int bridge_state_each(int (*fn)(void *ctx, const char *name), void *ctx);
/*
 * Notes that a lane was granted this, or wrote under it.  Another lane may have noted more already.
 */
void bridge_state_note(struct bridge_state_donor *donor, uint64_t epoch, uint64_t granted,
	bool wrote);
/* Begins a new identity at so many donors: the old state belongs to something else. */
void bridge_state_renew(struct bridge_state_file *state, unsigned nr_donors);
/* On disk when it returns.  -EILSEQ: a path in it is no UTF-8. */
int bridge_state_write(struct bridge_state_file *state, struct weft_error *err);
/* From now on each write finds its pages there: the file has them all.  0, or -errno. */
int bridge_state_keep(struct bridge_state_file *state);
/* Removes the file from the disk. */
void bridge_state_remove(struct bridge_state_file *state);
/* Releases the name; the file stays. */
void bridge_state_fini(struct bridge_state_file *state);

#endif
