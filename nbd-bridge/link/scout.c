/* SPDX-License-Identifier: MIT */
/*
 * Looks whether a better way to a donor works again, and moves the attachment to it. Owned by the
 * first lane's thread; a look does not disturb the connections that carry data.
 *
 * A look is one more session at the present generation, over the better way: the donor grants it
 * beside the others.  Once it has answered probes for a while it says goodbye, and another is made
 * at the next generation.  Its grant fences the old way's sessions; until then they carry on, so
 * that a move that is refused has changed nothing.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "nbd-bridge/link/arm.h"
#include "nbd-bridge/link/scout.h"

#define MS_NS UINT64_C(1000000)

enum { PROBE_MS = 100 };

enum scout_state {
	SCOUT_RESTS,    /* waits until it may look, or for nothing */
	SCOUT_CONNECTS, /* waits for the grant beside the others */
	SCOUT_WATCHES,  /* probes */
	SCOUT_LEAVES,   /* waits for its last probe, to say goodbye; then it moves, or rests */
	SCOUT_MOVES,    /* waits for the next generation's grant */
};

struct bridge_scout {
	struct bridge_link *link;
	enum scout_state state;
	struct tp_conn *conn;
	struct weft_watch watch;
	struct weft_timer timer;
	struct tp_op probe;
	bool probing, good;
	const struct bridge_site *site; /* the link's when the look began */
	unsigned way;
	uint64_t generation; /* the same */
	uint64_t ready_ns;
	struct weft_error why;
};

static void set_timer(struct bridge_scout *scout, uint64_t after_ns)
{
	weft_loop_timer_set(scout->link->worker->loop, &scout->timer, after_ns);
}

static void rest(struct bridge_scout *scout)
{
	uint64_t wait_ns;
	unsigned way;

	scout->state = SCOUT_RESTS;
	if (peer_may_look(scout->link->peer, &way, &wait_ns))
		wait_ns = PROBE_MS * MS_NS;
	if (wait_ns)
		set_timer(scout, wait_ns);
	else
		weft_loop_timer_cancel(scout->link->worker->loop, &scout->timer);
}

static void record(struct bridge_scout *scout, int error)
{
	bridge_recorder_event(scout->link->recorder, BRIDGE_EVENT_LOOKED, error, scout->generation,
		scout->way);
}

static void failed(struct bridge_scout *scout)
{
	record(scout, scout->why.code ? -scout->why.code : -EIO);
	peer_look_failed(scout->link->peer, &scout->why);
	rest(scout);
}

static void drop_conn(struct bridge_scout *scout)
{
	weft_loop_remove(scout->link->worker->loop, &scout->watch);
	scout->watch.fd = -1;
	tp_disconnect(scout->conn);
	scout->conn = NULL;
}

static int connect_at(struct bridge_scout *scout, uint64_t generation)
{
	struct bridge_link *link = scout->link;
	int r = link_connect(link, scout->site, scout->way, generation, &scout->conn, NULL,
		&scout->why);

	if (r < 0)
		scout->conn = NULL;
	return r;
}

static void look(struct bridge_scout *scout)
{
	struct bridge_link *link = scout->link;
	uint64_t wait_ns;

	if (link->state != LINK_READY || atomic_load(&link->attachment->stale) ||
		!peer_may_look(link->peer, &scout->way, &wait_ns)) {
		rest(scout);
		return;
	}
	/* The region has just moved, and the ways are another donor's. */
	if (scout->way >= link->site->nr_ways) {
		rest(scout);
		return;
	}
	scout->generation = link->generation;
	scout->site = link->site;
	scout->good = scout->probing = false;
	scout->why.code = 0;
	scout->state = SCOUT_CONNECTS;
	weft_debug("looking at a better way, to %s port %s", scout->site->ways[scout->way].host,
		scout->site->ways[scout->way].port);
	if (connect_at(scout, scout->generation) < 0)
		failed(scout);
}

static void move(struct bridge_scout *scout)
{
	struct bridge_link *link = scout->link;

	record(scout, 0);
	/* Somebody had to connect anew meanwhile: the look begins again. */
	if (link->generation != scout->generation ||
		!peer_move_begin(link->peer, scout->site, scout->generation)) {
		rest(scout);
		return;
	}
	scout->state = SCOUT_MOVES;
	if (connect_at(scout, scout->generation + 1) < 0) {
		peer_move_end(link->peer, false, scout->site, 0, 0);
		failed(scout);
	}
}

static bool is_granted(struct bridge_scout *scout)
{
	return peer_check_grant(scout->link->peer, &scout->conn->info, &scout->why) == 0;
}

static void moved(struct bridge_scout *scout)
{
	struct bridge_link *link = scout->link;
	struct tp_conn *conn = scout->conn;
	bool good = is_granted(scout);

	weft_loop_remove(link->worker->loop, &scout->watch);
	scout->watch.fd = -1;
	good = peer_move_end(link->peer, good, scout->site, scout->generation + 1, scout->way);
	if (!good) {
		tp_shutdown(conn);
		return; /* ended() finds the state and the reason */
	}
	scout->conn = NULL;
	rest(scout);
	link_take_over(link, conn, scout->generation + 1, scout->site, scout->way);
}

static void leave(struct bridge_scout *scout)
{
	scout->state = SCOUT_LEAVES;
	if (!scout->probing)
		tp_shutdown(scout->conn);
}

static void probe(struct bridge_scout *scout)
{
	uint32_t settle_ms = scout->link->attachment->config.settle_ms;
	struct tp_op *op = &scout->probe;

	if (weft_now_ns() - scout->ready_ns >= (settle_ms ? settle_ms : BRIDGE_SETTLE_MS) * MS_NS) {
		scout->good = true;
		leave(scout);
		return;
	}
	if (!scout->probing && tp_post(scout->conn, &op, 1) == 1)
		scout->probing = true;
	set_timer(scout, PROBE_MS * MS_NS);
}

static void on_timer(struct weft_timer *timer)
{
	struct bridge_scout *scout = weft_container_of(timer, struct bridge_scout, timer);

	if (scout->state == SCOUT_RESTS)
		look(scout);
	else if (scout->state == SCOUT_WATCHES)
		probe(scout);
}

/* The connection has ended, and nothing is in flight on it. */
static void ended(struct bridge_scout *scout)
{
	enum scout_state state = scout->state;

	if (scout->conn->error != -ECANCELED)
		scout->why = scout->conn->why;
	drop_conn(scout);
	if (state == SCOUT_LEAVES && scout->good) {
		move(scout);
		return;
	}
	if (state == SCOUT_MOVES)
		peer_move_end(scout->link->peer, false, scout->site, 0, 0);
	failed(scout);
}

static void on_event(struct weft_watch *watch, uint32_t events)
{
	scout_progress(weft_container_of(watch, struct bridge_scout, watch));
}

void scout_progress(struct bridge_scout *scout)
{
	struct tp_op *done[1];

	if (!scout->conn)
		return;
	/* A connection that becomes ready may change its descriptor, and close the old one. */
	if (tp_state(scout->conn) == TP_CONNECTING)
		weft_loop_remove(scout->link->worker->loop, &scout->watch);
	while (tp_progress(scout->conn, done, 1) > 0) {
		scout->probing = false;
		if (done[0]->status == 0)
			continue;
		scout->good = false;
		tp_shutdown(scout->conn);
	}
	if (tp_state(scout->conn) == TP_READY) {
		switch (scout->state) {
		case SCOUT_CONNECTS:
			if (!is_granted(scout)) {
				tp_shutdown(scout->conn);
				break;
			}
			scout->state = SCOUT_WATCHES;
			scout->ready_ns = weft_now_ns();
			probe(scout);
			return;
		case SCOUT_LEAVES:
			leave(scout);
			break;
		case SCOUT_MOVES:
			moved(scout);
			break;
		default:
			return;
		}
	}
	if (scout->conn && tp_state(scout->conn) == TP_FAILED && scout->conn->nr_outstanding == 0)
		ended(scout);
}

bool scout_arm(struct bridge_scout *scout)
{
	struct weft_loop *loop = scout->link->worker->loop;

	if (!scout->conn)
		return false;
	if (tp_state(scout->conn) == TP_FAILED && scout->conn->nr_outstanding == 0)
		return true;
	return link_arm_conn(loop, scout->conn, &scout->watch, &scout->why);
}

void scout_link_changed(struct bridge_scout *scout)
{
	/* The link's session is gone, so a look ends; a move goes on. */
	if (scout->state == SCOUT_CONNECTS || scout->state == SCOUT_WATCHES) {
		scout->good = false;
		leave(scout);
	} else if (scout->state == SCOUT_LEAVES) {
		scout->good = false;
	} else if (scout->state == SCOUT_RESTS) {
		rest(scout);
	}
}

int scout_new(struct bridge_link *link, struct bridge_scout **ret)
{
	struct bridge_scout *scout = calloc(1, sizeof(*scout));

	if (!scout)
		return -ENOMEM;
	scout->link = link;
	scout->watch.fd = -1;
	scout->watch.fn = on_event;
	scout->timer.fn = on_timer;
	scout->probe.kind = TP_PROBE;
	*ret = scout;
	return 0;
}

/* Waits until the probe has come back, or ms are over. */
static void drain(struct bridge_scout *scout, unsigned ms)
{
	uint64_t end_ns = weft_now_ns() + ms * MS_NS;
	struct tp_op *done[1];

	while (tp_progress(scout->conn, done, 1) == 0 && scout->conn->nr_outstanding > 0 &&
		weft_now_ns() < end_ns) {
		int events = tp_arm(scout->conn);
		struct pollfd p = {.fd = tp_event_fd(scout->conn), .events = (short)events};

		if (events != 0)
			poll(&p, 1, 10);
	}
}

void scout_end(struct bridge_scout *scout)
{
	weft_loop_timer_cancel(scout->link->worker->loop, &scout->timer);
	if (scout->conn) {
		if (scout->conn->nr_outstanding > 0)
			drain(scout, LINK_GOODBYE_MS);
		tp_shutdown(scout->conn);
		while (scout->conn->nr_outstanding > 0)
			drain(scout, LINK_GOODBYE_MS);
		drop_conn(scout);
	}
	if (scout->state == SCOUT_MOVES)
		peer_move_end(scout->link->peer, false, scout->site, 0, 0);
	scout->state = SCOUT_RESTS;
}

void scout_free(struct bridge_scout *scout)
{
	free(scout);
}
