/* SPDX-License-Identifier: MIT */
/*
 * Going along the buffers of a command, which its descriptors name: one part after another, of a
 * list inside the IU and of a table at the initiator, piece by piece.  Pure functions, any thread.
 *
 * What initiators say of lengths is not believed: the parts end when the descriptors do.
 */
#ifndef WEFT_TRANSPORTS_SRP_WALK_H
#define WEFT_TRANSPORTS_SRP_WALK_H

#include <stdint.h>

#include "transports/srp/proto.h"

enum {
	SRP_PIECE = 256, /* descriptors of a table that are read at once */
	SRP_PIECE_BYTES = SRP_PIECE * SRP_BUFFER_BYTES,
	SRP_TABLE_MAX = 4096, /* descriptors of a table */
};

struct srp_walk {
	const uint8_t *list; /* at hand: nr_list descriptors, of which `at` is next … */
	uint32_t nr_list, at;
	uint32_t used; /* … and so many of its bytes were given out */
	struct srp_buffer table;
	uint32_t nr_table, nr_read; /* descriptors in all, and those that were at hand up to now */
};

/* DIRECT or INDIRECT.  0; -EPROTO: the table is too long, or wraps. */
int srp_walk_begin(struct srp_walk *walk, const struct srp_data *data);
/*
 * The next part, at most max > 0 bytes.  0; -EAGAIN: a piece of the table is needed first; -EPROTO:
 * there are no more, or the part wraps.
 */
int srp_walk_next(struct srp_walk *walk, uint64_t max, struct srp_buffer *ret);
/* After -EAGAIN: where the piece is, at most SRP_PIECE_BYTES. */
void srp_walk_piece(const struct srp_walk *walk, struct srp_buffer *ret);
/* The piece is there; it stays until the next -EAGAIN. */
void srp_walk_pieced(struct srp_walk *walk, const uint8_t *piece);

#endif
