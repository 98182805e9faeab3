/* SPDX-License-Identifier: MIT */
/*
 * The transport "mem": a region in this process, for tests.  It delays, fails, reorders, holds and
 * kills on demand, so that users of transports can be tested with all of these.
 *
 * config of tp_mem_ops: a struct mem_config, which must outlive the transport and may be shared by
 * any number of them (a lane each); NULL: mem_home.
 */
#ifndef WEFT_TRANSPORTS_MEM_MEM_H
#define WEFT_TRANSPORTS_MEM_MEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/donor/donor.h"
#include "fabric/transport.h"

struct mem_config {
	/* Constant while a transport uses it. */

	/*
	 * The regions of this donor (memory ones only), with its grants and fences; NULL: one
	 * region, which the next fields describe.
	 */
	struct weft_donor *_Atomic donor; /* may change: for connections from then on */
	/* the region's memory; NULL: each transport allocates its own, zeroed */
	void *base;
	uint64_t size_bytes; /* of the region */
	uint64_t epoch;
	uint32_t lease_ms;
	const char *region; /* its name; NULL: any */
	uint32_t depth, max_io_bytes, min_block_bytes; /* 0: 128, 1 MiB, 1 */
	/* Abilities that it lacks. */
	bool read_only, no_epoch, no_flush, no_fua, no_trim, no_zero, no_fast_zero, no_cache,
		no_multi_conn, no_hash;
	uint32_t max_hash_blocks; /* 0: WEFT_HASH_MAX_BLOCKS */
	/* a FLUSH covers its own connection's changes, and those of connections that ended */
	bool flush_each_conn;

	/* Knobs; any thread, any time. */
	_Atomic uint64_t delay_ns; /* from post to completion */
	/* seed: completions come in a random order; 0: in that of the posts */
	_Atomic uint64_t reorder;
	/* the Nth operation accepted (see nr_ops) fails and changes nothing */
	_Atomic uint64_t fail_at;
	_Atomic int fail_error;    /* its error, positive */
	_Atomic uint64_t kill_at;  /* the Nth operation kills its connection, a WRITE half done */
	_Atomic bool kill_each;    /* each operation kills its connection */
	/* nothing completes; once hold is false, operations complete at the next progress */
	_Atomic bool hold;
	_Atomic bool silent;       /* connecting takes for ever; goes with hold */
	_Atomic int refuse;        /* connecting fails with this error, positive */
	/* connections that began under another number are lost; looked at all the time if > 0 */
	_Atomic uint64_t cut;

	/* Counted. */
	_Atomic uint64_t nr_connects;  /* connections asked for so far, granted or refused */
	_Atomic uint64_t nr_ops;       /* operations accepted so far, on all connections */
	_Atomic uint64_t nr_unflushed; /* changes that no FLUSH has covered */
	_Atomic uint64_t nr_left;      /* those of them by connections that ended */
};

/*
 * The region that a transport without a config has: MEM_HOME_BYTES in this process, zeros at first.
 */
enum { MEM_HOME_BYTES = 64 << 20 };
extern struct mem_config mem_home;

extern const struct tp_ops tp_mem_ops;

#endif
