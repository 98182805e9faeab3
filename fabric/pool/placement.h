/* SPDX-License-Identifier: MIT */
/*
 * Where a lease goes: at which donors its copies are to be.  Pure functions of what donors have
 * said and what is asked for, so that a simulation and a dry run decide as the coordinator does.
 *
 * A donor is out for one reason, the first of enum pool_why that holds.  Of the others the one that
 * has most room left afterwards is the best; of two with the same room the one that lends fewer
 * regions, then the first by name.  A second copy is never at the same donor, nor, if that is
 * asked for, in the same rack.
 */
#ifndef WEFT_FABRIC_POOL_PLACEMENT_H
#define WEFT_FABRIC_POOL_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	POOL_COPIES_MAX = 3,
	POOL_REGIONS_MAX = 200, /* of a pool at one donor, which has room for others beside */
};

/* Why a donor is out, in the order in which reasons are looked at; POOL_FITS: it is not. */
enum pool_why {
	POOL_FITS,
	POOL_IS_OTHER,    /* another donor is asked for */
	POOL_IS_SILENT,   /* it has not reported lately */
	POOL_IS_CORDONED, /* it is to get nothing new */
	POOL_IS_DRAINING,
	POOL_IS_PRESSED, /* it has too little memory for its own jobs */
	POOL_REFUSED,    /* it could not make this lease's region */
	POOL_HAS_A_COPY,
	POOL_SAME_RACK, /* a copy is in its rack */
	POOL_NO_RACK,   /* it has not said in which rack it is */
	POOL_TOO_MANY,  /* regions */
	POOL_TOO_SMALL, /* too little room is left */
	POOL_NR_WHYS,
};

/* A donor, as far as it matters here.  Texts are the caller's. */
struct pool_place {
	const char *name, *rack;         /* rack "": it has not said */
	uint64_t lent_bytes, used_bytes; /* used: of leases, made or not yet made or ended */
	unsigned nr_regions;
	bool silent, cordoned, draining, pressed;
	bool refused;  /* this lease's region */
	bool has_copy; /* of this lease, which stays where it is */
};

struct pool_wish {
	uint64_t size_bytes; /* of each copy; > 0 */
	unsigned copies;     /* to be placed: 1 to POOL_COPIES_MAX */
	bool spread_racks;
	const char *at; /* this donor alone; NULL: any */
};

/*
 * The donors of the copies, the best first: indices into ret, as many as are wanted.  -ENOSPC:
 * there are not as many.
 */
int pool_place(const struct pool_place *donors, size_t nr, const struct pool_wish *wish,
	size_t ret[POOL_COPIES_MAX]);

/* Why a donor is out, given those that were chosen before. */
enum pool_why pool_why_not(const struct pool_place *donors, size_t nr, size_t i,
	const struct pool_wish *wish, const size_t *chosen, size_t nr_chosen);
/* For people, of one donor or of many: "silent". */
const char *pool_why_text(enum pool_why why);

/* Room that is left at a donor. */
static inline uint64_t pool_room(const struct pool_place *donor)
{
	return donor->lent_bytes > donor->used_bytes ? donor->lent_bytes - donor->used_bytes : 0;
}

#endif
