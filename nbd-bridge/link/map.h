/* SPDX-License-Identifier: MIT */
/*
 * The map of extents: which donor holds an address of the bridge, and where.  Pure.
 *
 * With several donors the addresses are striped: unit bytes lie at the first donor, the next unit
 * bytes at the second, and so on, round and round.  Each donor holds part_bytes.  So the part of a
 * range that lies at one donor is one range too.
 */
#ifndef WEFT_NBD_BRIDGE_LINK_MAP_H
#define WEFT_NBD_BRIDGE_LINK_MAP_H

#include <stdbool.h>
#include <stdint.h>

struct bridge_map {
	unsigned nr;
	uint64_t unit;       /* bytes; with one donor: not looked at */
	uint64_t part_bytes; /* a multiple of unit */
};

struct bridge_piece {
	unsigned donor;
	uint64_t off, len; /* of its region */
};

/* The beginning of a range, as far as it lies in one piece. */
static inline struct bridge_piece bridge_map_first(const struct bridge_map *map, uint64_t off,
	uint64_t len)
{
	if (map->nr == 1)
		return (struct bridge_piece){.off = off, .len = len};
	uint64_t stripe = off / map->unit, in = off % map->unit, left = map->unit - in;

	return (struct bridge_piece){
		.donor = (unsigned)(stripe % map->nr),
		.off = stripe / map->nr * map->unit + in,
		.len = len < left ? len : left,
	};
}

/* How many of the donor's bytes lie below an address. */
static inline uint64_t bridge_map_below(const struct bridge_map *map, unsigned donor, uint64_t off)
{
	uint64_t round = map->unit * map->nr, in = off % round, begin = donor * map->unit;

	return off / round * map->unit +
		(in <= begin                             ? 0
				: in - begin < map->unit ? in - begin
							 : map->unit);
}

/* The part of a range that lies at the donor; len 0: none. */
static inline struct bridge_piece bridge_map_part(const struct bridge_map *map, unsigned donor,
	uint64_t off, uint64_t len)
{
	if (map->nr == 1)
		return (struct bridge_piece){.off = off, .len = len};
	uint64_t begin = bridge_map_below(map, donor, off),
		 end = bridge_map_below(map, donor, off + len);

	return (struct bridge_piece){.donor = donor, .off = begin, .len = end - begin};
}

#endif
