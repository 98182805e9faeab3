/* SPDX-License-Identifier: MIT */
/*
 * Donors in this process, each with a copy of a device, or of a stripe of it, and a bridge that has
 * them all.  On the test's thread.
 */
#ifndef WEFT_TESTS_SUPPORT_COPIES_WORLD_H
#define WEFT_TESTS_SUPPORT_COPIES_WORLD_H

#include "nbd-bridge/bridge/copies.h"
#include "tests/support/bridge-io.h"
#include "transports/mem/mem.h"

enum {
	WORLD_DONORS = 4,
	WORLD_REGION = 4 << 20,
	WORLD_UNIT = 16 << 10, /* of stripes */
	WORLD_LOST_MS = 150,
};

struct world {
	unsigned nr_donors, nr_copies, min;
	struct mem_config mems[WORLD_DONORS];
	struct weft_donor *donors[WORLD_DONORS];
	struct weft_region *regions[WORLD_DONORS];
	/* donors that lost their memory; freed at the end, once nobody is connected */
	struct weft_donor *old_donors[1000];
	struct weft_region *old_regions[1000];
	unsigned nr_old;
	struct bridge_donor_config to[WORLD_DONORS];
	struct bridge_config config;
	/* what the bridge before knew, for a take-over; set 0: nothing */
	struct bridge_copies_known state[WORLD_DONORS];
	bool takes_over; /* settles with the state */
	void (*at_note)(void); /* called before each note in the state, on the bridge's thread */
	_Atomic bool note_fails;
	_Atomic unsigned nr_notes;
	bool was_same; /* the last settle() found that the copies are the same */
};
extern struct world world;

/* Donors with blank memory, for stripes with so many copies each; starts no bridge. */
void world_begin(unsigned nr_stripes, unsigned nr_copies, unsigned min);
void world_end(void);
/* Makes a bridge, which settles with what the donors say, and starts it. */
void world_attach(void);
/* The same, where it has to fail: with the error. */
int world_cannot_attach(struct weft_error *err);
/* A goodbye; the last FLUSH has to succeed. */
void world_detach(void);
/* The bridge ends without a word. */
void world_kill_bridge(void);

/*
 * The donor cannot be reached, and its connections are lost; it answers nothing any more; it comes
 * back.
 */
void world_cut(unsigned donor);
void world_silence(unsigned donor);
void world_heal(unsigned donor);
/* The donor comes back with other memory; it was cut. */
void world_forget(unsigned donor);

enum bridge_copy_state world_state(unsigned donor);
void world_wait_for(unsigned donor, enum bridge_copy_state state);
/* All donors are current. */
void world_wait_until_whole(void);
/* Where an address of the device is at a copy. */
uint8_t *world_byte(unsigned copy, uint64_t off);
void world_assert_holds(unsigned copy, uint64_t off, const uint8_t *data, uint64_t len);
/* Of each stripe all current copies have the same bytes. */
void world_assert_same(void);

#endif
