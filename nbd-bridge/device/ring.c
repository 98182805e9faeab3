/* SPDX-License-Identifier: MIT */
/*
 * A lane's io_uring.
 *
 * A watch is a poll that ends with its first event.  It is made anew when the loop waits again, so
 * that a descriptor that is still ready is reported again.  A poll is known by its slot and the
 * slot's turn: the end of a poll that was removed finds another turn, and is ignored.
 */
#include "nbd-bridge/device/ring.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"

enum {
	NR_POLLS = 64, /* submitted at once, beside operations */
	NO_SLOT = UINT32_MAX,
	NOBODYS = 0, /* user_data of operations that nobody waits for */
	IDLE_MS = 2, /* until a lane that waits is idle */
	MEMORY_MS = 1, /* until a submission is tried again that the kernel had no memory for */
};

struct slot {
	struct weft_watch *watch; /* NULL: free, or to be cancelled */
	uint32_t turn;
	bool armed;   /* the kernel has a poll of this turn */
	bool pending; /* in ring->pending */
	uint32_t next; /* free or pending */
};

struct bridge_ring {
	struct weft_poller poller;
	struct weft_loop *loop;
	struct io_uring io;
	unsigned nr_ops;
	struct slot *slots;
	uint32_t nr_slots, free_slot;
	uint32_t pending; /* slots whose poll has to be made */
	struct bridge_ring_note *notes;
	/* ended: by a function that reap() called; then reap() frees the ring */
	bool reaping, ended;
};

static uint64_t poll_id(const struct bridge_ring *ring, uint32_t i)
{
	return (uint64_t)ring->slots[i].turn << 32 | (uint64_t)i << 1 | 1;
}

/* An entry for a poll, or for the end of one; NULL: later.  There is always room for operations. */
static struct io_uring_sqe *poll_sqe(struct bridge_ring *ring)
{
	if (io_uring_sq_space_left(&ring->io) <= ring->nr_ops)
		bridge_ring_submit(ring);
	return io_uring_sq_space_left(&ring->io) > ring->nr_ops ? io_uring_get_sqe(&ring->io)
								: NULL;
}

static void pend(struct bridge_ring *ring, uint32_t i)
{
	if (ring->slots[i].pending)
		return;
	ring->slots[i].pending = true;
	ring->slots[i].next = ring->pending;
	ring->pending = i;
}

static void free_slot(struct bridge_ring *ring, uint32_t i)
{
	ring->slots[i].next = ring->free_slot;
	ring->free_slot = i;
}

/*
 * Makes the polls that are due, and ends those that nobody wants.  False: some have to wait for
 * room.
 */
static bool make_polls(struct bridge_ring *ring)
{
	struct io_uring_sqe *sqe;

	while (ring->pending != NO_SLOT) {
		uint32_t i = ring->pending;
		struct slot *slot = &ring->slots[i];

		if (slot->armed) {
			sqe = poll_sqe(ring);
			if (!sqe)
				return false;
			io_uring_prep_poll_remove(sqe, poll_id(ring, i));
			io_uring_sqe_set_data64(sqe, NOBODYS);
			slot->armed = false;
			slot->turn++;
		}
		if (slot->watch) {
			sqe = poll_sqe(ring);
			if (!sqe)
				return false;
			io_uring_prep_poll_add(sqe, slot->watch->fd, slot->watch->events);
			io_uring_sqe_set_data64(sqe, poll_id(ring, i));
			slot->armed = true;
		}
		ring->pending = slot->next;
		slot->pending = false;
		if (!slot->watch)
			free_slot(ring, i);
	}
	return true;
}

static int more_slots(struct bridge_ring *ring)
{
	uint32_t n = ring->nr_slots + 16;
	struct slot *slots = realloc(ring->slots, n * sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	ring->slots = slots;
	for (; ring->nr_slots < n; ring->nr_slots++) {
		slots[ring->nr_slots] = (struct slot){0};
		free_slot(ring, ring->nr_slots);
	}
	return 0;
}

static int poller_add(struct weft_poller *poller, struct weft_watch *watch)
{
	struct bridge_ring *ring = weft_container_of(poller, struct bridge_ring, poller);

	if (ring->free_slot == NO_SLOT && more_slots(ring) < 0)
		return -ENOMEM;
	uint32_t i = ring->free_slot;
	ring->free_slot = ring->slots[i].next;
	ring->slots[i].watch = watch;
	watch->slot = i;
	pend(ring, i);
	return 0;
}

static void poller_modify(struct weft_poller *poller, struct weft_watch *watch)
{
	pend(weft_container_of(poller, struct bridge_ring, poller), watch->slot);
}

static void poller_remove(struct weft_poller *poller, struct weft_watch *watch)
{
	struct bridge_ring *ring = weft_container_of(poller, struct bridge_ring, poller);

	ring->slots[watch->slot].watch = NULL;
	pend(ring, watch->slot);
}

/* Whether it is worth trying again. */
static bool is_transient(int result)
{
	return result == -EAGAIN || result == -ENOMEM || result == -EBUSY || result == -EINTR ||
		result == -ECANCELED || result == -ETIME;
}

/* A poll has ended. */
static void polled(struct bridge_ring *ring, uint64_t id, int result)
{
	uint32_t i = (uint32_t)id >> 1;
	struct slot *slot = &ring->slots[i];

	if (slot->turn != id >> 32)
		return;
	slot->armed = false;
	slot->turn++;
	if (!slot->watch)
		return;
	pend(ring, i);
	if (!is_transient(result))
		slot->watch->fn(slot->watch, result < 0 ? EPOLLERR | EPOLLHUP : (uint32_t)result);
}

/* The ring may be gone then. */
static void reap(struct bridge_ring *ring)
{
	struct io_uring_cqe *cqe;
	const bool inner = ring->reaping;

	ring->reaping = true;
	while (!ring->ended && io_uring_peek_cqe(&ring->io, &cqe) == 0) {
		uint64_t data = cqe->user_data;
		int result = cqe->res;

		io_uring_cqe_seen(&ring->io, cqe);
		if (data & 1) {
			polled(ring, data, result);
		} else if (data != NOBODYS) {
			struct bridge_ring_op *op = (struct bridge_ring_op *)(uintptr_t)data;

			op->fn(op, result);
		}
	}
	ring->reaping = inner;
	if (ring->ended && !inner)
		free(ring);
}

static void run_notes(struct bridge_ring *ring)
{
	if (io_uring_sq_ready(&ring->io) > 0)
		return;
	while (ring->notes) {
		struct bridge_ring_note *note = ring->notes;

		ring->notes = note->next;
		note->queued = false;
		note->fn(note);
	}
}

/*
 * A task that waits in io_uring_enter(2) while requests are pending counts as waiting for I/O
 * (6.5), and fetches are always pending.  So an idle lane sleeps in poll(2) on the ring, which a
 * request interrupts.
 */
static int sleep_until(struct bridge_ring *ring, int timeout_ms)
{
	struct pollfd p = {.fd = ring->io.ring_fd, .events = POLLIN};

	return poll(&p, 1, timeout_ms) < 0 ? -errno : 0;
}

static int wait_in_ring(struct bridge_ring *ring, int timeout_ms)
{
	const bool idles = timeout_ms < 0 || timeout_ms > IDLE_MS;
	const bool later = !make_polls(ring);
	const int ms = later ? MEMORY_MS : idles ? IDLE_MS : timeout_ms;
	struct __kernel_timespec ts = {.tv_nsec = ms * 1000000LL},
				 memory = {.tv_nsec = MEMORY_MS * 1000000LL};
	struct io_uring_cqe *cqe;
	int r = io_uring_submit_and_wait_timeout(&ring->io, &cqe, 1, &ts, NULL);

	run_notes(ring);
	/* This submits nothing, so that completions that are there already are taken. */
	if (r == -EAGAIN || r == -ENOMEM || r == -EBUSY)
		return io_uring_wait_cqe_timeout(&ring->io, &cqe, &memory);
	if (r == -ETIME && idles && !later && io_uring_sq_ready(&ring->io) == 0)
		return sleep_until(ring, timeout_ms < 0 ? -1 : timeout_ms - IDLE_MS);
	return r;
}

static int poller_wait(struct weft_poller *poller, int timeout_ms)
{
	struct bridge_ring *ring = weft_container_of(poller, struct bridge_ring, poller);
	int r = wait_in_ring(ring, timeout_ms);

	if (r < 0 && !is_transient(r)) {
		/*
		 * The state of the kernel's operations is unknown from now on.  A device waits for
		 * the next bridge.
		 */
		weft_err("a lane cannot wait: %s", strerror(-r));
		abort();
	}
	reap(ring);
	return 0;
}

struct io_uring_sqe *bridge_ring_queue(struct bridge_ring *ring, struct bridge_ring_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->io);

	assert(sqe);
	io_uring_sqe_set_data(sqe, op);
	return sqe;
}

void bridge_ring_note(struct bridge_ring *ring, struct bridge_ring_note *note)
{
	if (note->queued)
		return;
	note->queued = true;
	note->next = ring->notes;
	ring->notes = note;
}

void bridge_ring_note_cancel(struct bridge_ring *ring, struct bridge_ring_note *note)
{
	if (!note->queued)
		return;
	for (struct bridge_ring_note **at = &ring->notes; *at; at = &(*at)->next) {
		if (*at != note)
			continue;
		*at = note->next;
		break;
	}
	note->queued = false;
}

int bridge_ring_submit(struct bridge_ring *ring)
{
	if (io_uring_sq_ready(&ring->io) > 0)
		io_uring_submit(&ring->io);
	run_notes(ring);
	return io_uring_sq_ready(&ring->io) > 0 ? -EAGAIN : 0;
}

int bridge_ring_submit_and_reap(struct bridge_ring *ring)
{
	int r = bridge_ring_submit(ring);

	reap(ring);
	return r;
}

int bridge_ring_new(struct weft_loop *loop, unsigned nr_ops, struct bridge_ring **ret)
{
	struct bridge_ring *ring = calloc(1, sizeof(*ring));
	int r;

	if (!ring)
		return -ENOMEM;
	ring->poller = (struct weft_poller){.add = poller_add,
		.modify = poller_modify,
		.remove = poller_remove,
		.wait = poller_wait};
	ring->loop = loop;
	ring->nr_ops = nr_ops;
	ring->free_slot = ring->pending = NO_SLOT;
	/*
	 * COOP_TASKRUN: the lane is in the kernel often enough.  With DEFER_TASKRUN poll(2) on the
	 * ring would not be woken by a request (6.12).
	 */
	r = io_uring_queue_init(nr_ops + NR_POLLS, &ring->io,
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN);
	if (r < 0) {
		free(ring);
		return r;
	}
	/* saves the kernel a look-up in each call, and may fail */
	io_uring_register_ring_fd(&ring->io);
	r = weft_loop_use(loop, &ring->poller);
	if (r < 0) {
		io_uring_queue_exit(&ring->io);
		free(ring->slots);
		free(ring);
		return r;
	}
	*ret = ring;
	return 0;
}

void bridge_ring_free(struct bridge_ring *ring)
{
	if (!ring)
		return;
	/* Without its watches the lane cannot go on. */
	if (weft_loop_use(ring->loop, NULL) < 0)
		abort();
	io_uring_queue_exit(&ring->io);
	free(ring->slots);
	ring->ended = true;
	if (!ring->reaping)
		free(ring);
}
