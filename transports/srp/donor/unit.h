/* SPDX-License-Identifier: MIT */
/*
 * Who uses a region over SRP: a unit for each region, a nexus for each initiator at it, and the
 * nexus's channels.
 *
 * Threads: a struct srp_units has one lock, which guards the lists, and is never held while
 * anything waits.  Invariant: a channel is in its nexus from before anything is posted until
 * nothing of its queue pair can reach the initiator's memory any more; a nexus and its unit live as
 * long as they have a channel.  A unit with registrations lives on, but without its region, which
 * may be closed: a region that is opened again is another one, to which nobody is registered.
 */
#ifndef WEFT_TRANSPORTS_SRP_DONOR_UNIT_H
#define WEFT_TRANSPORTS_SRP_DONOR_UNIT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/region/region.h"
#include "fabric/scsi/target.h"
#include "transports/rdma/memory.h"
#include "transports/srp/proto.h"

struct srp_units {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a channel left */
	struct srp_unit *first;
	uint64_t chunk_bytes;   /* of registrations */
	char donor[80];         /* what tells this donor from others */
};

/* A region's memory at one device: a protection domain that gives nobody a right from afar. */
struct srp_reach {
	struct srp_reach *next;
	struct srp_unit *unit;
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct weft_rdma_memory *memory;
	unsigned nr_users;
};

struct srp_unit {
	struct srp_unit *next;
	uint64_t number;            /* the region's */
	struct weft_region *region; /* referenced; NULL: nobody uses it */
	struct scsi_unit scsi;
	uint64_t turn; /* of the writer whose the reservations are: as a grant's */
	struct srp_nexus *nexuses;
	struct srp_reach *reaches;
};

/* A channel, as a member of its nexus; zeroed, but for wake, before it enters. */
struct srp_member {
	struct srp_member *next;
	struct srp_nexus *nexus; /* NULL: it has none, or none any more */
	/* Has its thread look at the rest.  Any thread, under the lock: it must not block. */
	void (*wake)(struct srp_member *member);
	_Atomic bool ended; /* the channel has to end */
	/* Numbers of wishes that commands end: the last one, and the last one that was met. */
	_Atomic uint64_t asked;
	uint64_t met;
	unsigned nr_waiting; /* commands of its own that wait for others' */
};

struct srp_nexus {
	struct srp_nexus *next;
	struct srp_unit *unit;
	struct scsi_nexus scsi;
	uint8_t initiator[SRP_PORT_BYTES];
	char host[64]; /* that it is of: nobody is another's by saying his identifier */
	struct srp_member *members;
	unsigned nr_members;
};

int srp_units_init(struct srp_units *units, uint64_t chunk_bytes, const char *donor);
/* No channel is left (asserted). */
void srp_units_fini(struct srp_units *units);

enum {
	SRP_CHANNELS_MAX = 128, /* of a nexus */
	SRP_UNUSED_MAX = 1024,  /* units that are there for their registrations alone */
};

/*
 * The channel, which has been granted the region, becomes one of the initiator's there.
 * read_only and turn are the grant's: what another writer has reserved is forgotten.
 * *ret_result: what of the nexus's others (enum srp_channels_result).  single: they are ended, and
 * waited for, until deadline_ns.  0; -EBUSY: too many; -ETIMEDOUT; -ECANCELED: a later login ended
 * this one; -ENOMEM.
 */
int srp_unit_enter(struct srp_units *units, struct weft_region *region,
	const uint8_t initiator[SRP_PORT_BYTES], const char *host, bool read_only, uint64_t turn,
	bool single, uint64_t deadline_ns, struct srp_member *member, uint8_t *ret_result,
	struct weft_error *err);
/* Has the channel end. */
static inline void srp_member_end(struct srp_member *member)
{
	atomic_store(&member->ended, true);
	member->wake(member);
}
/* Takes one that never entered. */
void srp_unit_leave(struct srp_units *units, struct srp_member *member);

/* The region's memory at the device; waits until it is registered.  As the functions of memory.h */
int srp_reach_get(struct srp_units *units, struct srp_unit *unit, struct ibv_context *context,
	weft_rdma_wait_fn *wait, void *ctx, struct srp_reach **ret, struct weft_error *err);
/* The queue pairs in its protection domain were destroyed.  Takes NULL. */
void srp_reach_put(struct srp_units *units, struct srp_reach *reach);

/*
 * Asks all channels of these nexuses of the unit (bits of nexus->scsi.slot) that their commands
 * end.  The number of the wish.
 */
uint64_t srp_unit_ask(struct srp_units *units, struct srp_unit *unit, uint64_t slots);
/* Whether they have ended; kill: the channels where they have not are ended. */
bool srp_unit_is_met(struct srp_units *units, struct srp_unit *unit, uint64_t slots, uint64_t wish,
	bool kill);
/* The channel has met all wishes up to this one. */
void srp_unit_met(struct srp_units *units, struct srp_member *member, uint64_t wish);

#endif
