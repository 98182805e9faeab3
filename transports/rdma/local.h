/* SPDX-License-Identifier: MIT */
/*
 * A lane's devices and memory: what is registered with which, and devices that come and go.
 *
 * Threads: the lane's; the reaper's calls weft_rdma_local_adopt().  Functions may wait for a
 * registration.
 */
#ifndef WEFT_TRANSPORTS_RDMA_LOCAL_H
#define WEFT_TRANSPORTS_RDMA_LOCAL_H

#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/transport.h"

enum { WEFT_RDMA_MAX_DEVICES = 8 };

struct weft_rdma_list;

struct weft_rdma_device {
	struct ibv_context *context; /* NULL: a free place */
	struct ibv_pd *pd;
	struct weft_rdma_list *list;
	unsigned nr_conns;
	bool ready; /* all memory is registered with it */
	bool gone;  /* removed: nothing is registered with it any more */
};

struct weft_rdma_local {
	int access; /* of ibv_reg_mr(3), for all memory */
	/* A device that came later is adopted by the reaper: what follows is under the lock. */
	pthread_mutex_t lock;
	struct weft_rdma_device devices[WEFT_RDMA_MAX_DEVICES];
	struct weft_rdma_mem *mems;
};

/* The registrations of a tp_mem at each device; tp_mem.priv[0] points to this. */
struct weft_rdma_mem {
	struct ibv_mr *mr[WEFT_RDMA_MAX_DEVICES];
	void *base;
	size_t len;
	struct weft_rdma_mem *next, **link;
};

/* Opens the devices that there are. */
int weft_rdma_local_init(struct weft_rdma_local *local, int access, struct weft_error *err);
void weft_rdma_local_fini(struct weft_rdma_local *local);
/* As reg() and dereg() of struct tp_ops. */
int weft_rdma_local_reg(struct weft_rdma_local *local, struct tp_mem *mem, struct weft_error *err);
void weft_rdma_local_dereg(struct weft_rdma_local *local, struct tp_mem *mem);

/*
 * Takes a device for a connection: 0, with *ret its place in devices, and all memory is registered
 * with it; -EAGAIN: it is new, have it adopted.
 */
int weft_rdma_local_take(struct weft_rdma_local *local, const struct ibv_context *context,
	unsigned *ret);
/* removed: the connection manager said that the device was. */
void weft_rdma_local_put(struct weft_rdma_local *local, unsigned device, bool removed);
/* For a thread that may wait: opens a device that came later, and registers all memory with it. */
int weft_rdma_local_adopt(struct weft_rdma_local *local, struct ibv_context *context,
	struct weft_error *err);

static inline const struct ibv_mr *weft_rdma_local_mr(const struct tp_mem *mem, unsigned device)
{
	return ((const struct weft_rdma_mem *)(uintptr_t)mem->priv[0])->mr[device];
}

#endif
