/* SPDX-License-Identifier: MIT */
/*
 * What open transports over RDMA share at the borrower: a lane's devices and memory, and threads
 * for what may take long.
 *
 * Threads: the lane's.
 */
#ifndef WEFT_TRANSPORTS_RDMA_BORROWER_H
#define WEFT_TRANSPORTS_RDMA_BORROWER_H

#include <stdatomic.h>

#include "fabric/base/crew.h"
#include "fabric/transport.h"
#include "transports/rdma/local.h"
#include "transports/rdma/reaper.h"

enum {
	WEFT_RDMA_DEPTH = 128, /* operations in flight, unless told */
	WEFT_RDMA_MAX_DEPTH = 1024,
};

/* The first member of the transport's struct, which is malloc(3)'s. */
struct weft_rdma_borrower {
	struct tp tp;
	struct weft_rdma_reaper *reaper;
	struct weft_rdma_job last;
	struct weft_rdma_local local;
	struct weft_crew lookups;
};

/* access: of ibv_reg_mr(3), for all memory.  0; or -errno, and it is the caller's to free. */
int weft_rdma_borrower_open(struct weft_rdma_borrower *borrower, int access,
	struct weft_error *err);
/* As of struct tp_ops.  The memory of the struct is freed when drivers have let go. */
void weft_rdma_borrower_close(struct tp *tp);
int weft_rdma_borrower_reg(struct tp *tp, struct tp_mem *mem, struct weft_error *err);
void weft_rdma_borrower_dereg(struct tp_mem *mem);

/* A connection's place at a device. */
struct weft_rdma_seat {
	unsigned device; /* in borrower->local.devices, once it is taken */
	bool taken;
	bool removed; /* the connection manager said so: set by the connection */
	/* A device that came later: 0: the reaper works on it; 1: done, or -errno with why. */
	_Atomic int adopted;
	struct weft_rdma_borrower *borrower;
	struct ibv_context *context;
	int wake_fd;
	struct weft_error why;
	struct weft_rdma_job job;
};

/*
 * 0: the seat is taken, and all memory is registered with the device; -EAGAIN: the device is new.
 * The reaper makes it ready then, and writes to wake_fd, an eventfd(2)'s.
 */
int weft_rdma_seat_take(struct weft_rdma_seat *seat, struct weft_rdma_borrower *borrower,
	struct ibv_context *context, int wake_fd);
/* After -EAGAIN: 0: not yet; 1: take it now; or -errno with seat->why. */
static inline int weft_rdma_seat_look(const struct weft_rdma_seat *seat)
{
	return atomic_load(&seat->adopted);
}
/* Also one that is not taken; not while the reaper works on it. */
void weft_rdma_seat_leave(struct weft_rdma_seat *seat);

/* wanted: 0: whatever. */
static inline unsigned weft_rdma_depth(unsigned wanted)
{
	return wanted == 0 ? WEFT_RDMA_DEPTH
	       : wanted > WEFT_RDMA_MAX_DEPTH ? WEFT_RDMA_MAX_DEPTH : wanted;
}

#endif
