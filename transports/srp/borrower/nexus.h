/* SPDX-License-Identifier: MIT */
/*
 * What the channels of an attachment share: one initiator port at one target port.
 *
 * Nothing of an attachment that was lost may happen after it came back, so the first channel of
 * each generation leads: it logs in as the only one, at which the target ends those that there are,
 * and it resets the unit where commands of theirs may be under way.  The others wait for it, then
 * come beside it.
 *
 * A target tells news of a unit once, by whichever channel asks next.  If that is one that comes
 * beside others, the generation is over for all of them.
 *
 * Threads: any; a lock guards all nexuses, and is taken when channels come and go.
 */
#ifndef WEFT_TRANSPORTS_SRP_BORROWER_NEXUS_H
#define WEFT_TRANSPORTS_SRP_BORROWER_NEXUS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"

struct srp_nexus_key {
	uint64_t initiator; /* the identifier's extension */
	uint64_t target_ext, target_guid;
	char place[80];     /* host and port */
};

struct srp_nexus {
	struct srp_nexus_key key;
	/* a write that was answered is lost: the next FLUSH has to fail */
	_Atomic bool deferred;
	/* Private. */
	struct srp_nexus *next;
	unsigned nr_users;
	uint64_t generation;
	enum { SRP_NEXUS_NEW, SRP_NEXUS_LED, SRP_NEXUS_OPEN, SRP_NEXUS_OVER } state;
	struct weft_error why; /* OVER */
	bool was_open;  /* under some generation */
	bool greets;    /* the leader was told of a start: perhaps every channel is */
	int *wake_fds;  /* of the channels */
	unsigned nr_wake_fds;
};

enum srp_turn {
	SRP_TURN_LEAD,   /* log in as the only channel */
	SRP_TURN_AGAIN,  /* the same, and there were channels before: reset the unit */
	SRP_TURN_FOLLOW, /* log in beside the others */
	SRP_TURN_WAIT,   /* ask again when woken */
	SRP_TURN_OVER,   /* a later generation has begun, or this one has ended */
};

/* Takes a reference.  NULL: out of memory. */
struct srp_nexus *srp_nexus_get(const struct srp_nexus_key *key);
struct srp_nexus *srp_nexus_ref(struct srp_nexus *nexus);
/* Takes NULL. */
void srp_nexus_put(struct srp_nexus *nexus);

/* wake_fd is written to whenever ask or is_over may say something else; 0 or -ENOMEM. */
int srp_nexus_join(struct srp_nexus *nexus, int wake_fd);
/* wake_fd may be closed afterwards. */
void srp_nexus_leave(struct srp_nexus *nexus, int wake_fd);

enum srp_turn srp_nexus_ask(struct srp_nexus *nexus, uint64_t generation);
/* The leader's: ready, and whether it was greeted; or it failed, and another may lead. */
void srp_nexus_led(struct srp_nexus *nexus, uint64_t generation, bool ready, bool greeted);
bool srp_nexus_greets(struct srp_nexus *nexus);
/* The channels of this generation have to end, until a later one begins. */
void srp_nexus_end(struct srp_nexus *nexus, uint64_t generation, const struct weft_error *why);
bool srp_nexus_is_over(struct srp_nexus *nexus, uint64_t generation, struct weft_error *ret_why);
/* No later generation has begun, and this one has not ended. */
bool srp_nexus_is_current(struct srp_nexus *nexus, uint64_t generation);

#endif
