/* SPDX-License-Identifier: MIT */
/* The barrier against requests that the kernel sent again: see nbd-barrier.h. */
#include "nbd-bridge/device/nbd-barrier.h"

#include <errno.h>
#include <string.h>

enum { MAX_TAG = 128 }; /* tags of each of the driver's queues */

/* The low half of the driver's handle is blk_mq_unique_tag(): the queue's number, then the tag. */
static bool plausible(uint64_t handle, unsigned nr_queues)
{
	return (handle >> 16 & 0xffff) < nr_queues && (handle & 0xffff) < MAX_TAG;
}

int nbd_cookie_queue(enum nbd_cookie_order *order, uint64_t cookie, unsigned nr_queues)
{
	uint64_t native = __builtin_bswap64(cookie);
	bool big = plausible(cookie, nr_queues), little = plausible(native, nr_queues);

	if (*order == NBD_COOKIE_UNKNOWN && big != little)
		*order = big ? NBD_COOKIE_BIG : NBD_COOKIE_NATIVE;
	else if ((*order == NBD_COOKIE_UNKNOWN && !big) || (*order == NBD_COOKIE_BIG && !big) ||
		(*order == NBD_COOKIE_NATIVE && !little))
		*order = NBD_COOKIE_STRANGE;
	switch (*order) {
	case NBD_COOKIE_BIG:
		return cookie >> 16 & 0xffff;
	case NBD_COOKIE_NATIVE:
		return native >> 16 & 0xffff;
	default:
		return -1;
	}
}

static bool any_shut(const struct nbd_barrier *barrier)
{
	struct pollfd fds[NBD_BARRIER_MAX];
	int n;

	memcpy(fds, barrier->fds, barrier->nr * sizeof(fds[0]));
	do
		n = poll(fds, barrier->nr, 0);
	while (n < 0 && errno == EINTR);
	/* Any event is an end: no other was asked for. */
	return n != 0;
}

bool nbd_barrier_pass(struct nbd_barrier *barrier, unsigned index, int queue, bool *ret_foreign)
{
	bool foreign = queue != (int)index;

	*ret_foreign = false;
	/* Over a single connection nothing is sent again before there is a new set. */
	if (barrier->nr == 1 || (!foreign && atomic_load(&barrier->nr_foreign) == 0))
		return true;
	/*
	 * Counted before looking: either the connection with the second copy sees the count, or we
	 * see that ours was shut.
	 */
	if (foreign)
		atomic_fetch_add(&barrier->nr_foreign, 1);
	if (any_shut(barrier)) {
		if (foreign)
			nbd_barrier_done(barrier);
		atomic_store(&barrier->over, true);
		return false;
	}
	*ret_foreign = foreign;
	return true;
}

void nbd_barrier_done(struct nbd_barrier *barrier)
{
	atomic_fetch_sub(&barrier->nr_foreign, 1);
}
