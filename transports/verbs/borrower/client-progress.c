/* SPDX-License-Identifier: MIT */
/*
 * The borrower's side of the verbs transport: waiting for events, and handling them.
 *
 * Runs on the lane's thread.  Each call of progress looks at completions, and at everything else
 * (the connection manager, timers, the reaper's signal) only when there is a sign of it.
 */
#include "transports/rdma/device.h"
#include "transports/verbs/borrower/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
	POLL_BATCH = 32,
	LOOK_EVERY = 64,    /* calls of progress */
};

static unsigned poll_completions(struct verbs_conn *conn);

/* ---- the connection manager, timers ---- */

static void on_event(struct verbs_conn *conn, const struct rdma_cm_event *event)
{
	struct weft_error err;
	int r;

	if (verbs_connect_step(conn, event))
		return;
	r = verbs_event_errno(event, conn->peer, &err);
	if (r == 0)
		return;
	/*
	 * A refusal that came before the end says more than the end does; flushed work requests say
	 * less.
	 */
	conn->ending = true;
	if (conn->conn.state == TP_CONNECTING)
		poll_completions(conn);
	if (event->event == RDMA_CM_EVENT_DEVICE_REMOVAL) {
		/* Its work requests may never come back by themselves. */
		verbs_fail(conn, -r, "%s", err.message);
		verbs_kill(conn);
		return;
	}
	if (conn->phase == VERBS_PHASE_CHALLENGE)
		verbs_fail(conn, -r,
			"%s when it was asked to prove key '%s'; a donor of an older weft does not "
			"know how: upgrade it",
			err.message, conn->key.identity);
	verbs_fail(conn, -r, "%s", err.message);
}

static void look_at_events(struct verbs_conn *conn)
{
	struct rdma_cm_event *event;

	while (rdma_get_cm_event(conn->channel, &event) == 0) {
		verbs_note_end(conn, event);
		if (conn->conn.state != TP_FAILED)
			on_event(conn, event);
		else if (event->event == RDMA_CM_EVENT_DEVICE_REMOVAL)
			verbs_kill(conn);
		rdma_ack_cm_event(event);
	}
}

static void look_at_timer(struct verbs_conn *conn)
{
	uint64_t times;

	if (read(conn->timerfd, &times, sizeof(times)) < 0)
		return;
	if (conn->conn.state == TP_CONNECTING)
		verbs_connect_timed_out(conn);
	else if (conn->conn.state == TP_FAILED)
		verbs_kill(conn);
}

/* Looks at everything but completions. */
static void look(struct verbs_conn *conn)
{
	uint64_t count;

	/*
	 * This comes first: the next lines may give the reaper a job, and its signal must not be
	 * lost.
	 */
	(void)!read(conn->wake_fd, &count, sizeof(count));
	if (conn->conn.state == TP_CONNECTING)
		verbs_connect_look(conn);
	look_at_events(conn);
	look_at_timer(conn);
}

/* ---- completions ---- */

static void fail_wc(struct verbs_conn *conn, const struct ibv_wc *wc)
{
	if (conn->conn.state == TP_FAILED || conn->ending)
		return;
	/* The connection manager may know why. */
	look(conn);
	if (conn->conn.state == TP_FAILED)
		return;
	if (wc->status == IBV_WC_REM_ACCESS_ERR)
		verbs_fail(conn, ENOTCONN, "%s revoked the access", conn->peer);
	else
		verbs_fail(conn, -weft_rdma_wc_errno(wc->status),
			"the connection to %s is lost: %s",
			conn->peer, ibv_wc_status_str(wc->status));
}

/* The last work request of the operation in slot i came back. */
static void on_last(struct verbs_conn *conn, unsigned i)
{
	struct verbs_slot *slot = &conn->slots[i];
	struct tp_op *op = slot->op;

	conn->sq_room += slot->nr_wrs;
	slot->nr_wrs = 0;
	if (slot->error < 0) {
		verbs_finish_slot(conn, i, tp_conn_op_status(&conn->conn));
		return;
	}
	if (op->kind == TP_PROBE &&
		*verbs_scratch_word(conn, i) != verbs_epoch_to_wire(conn->epoch)) {
		verbs_fail(conn, ESTALE, "the contents at %s are gone: it has a new epoch",
			conn->peer);
		verbs_finish_slot(conn, i, -ESTALE);
		return;
	}
	if (op->kind == TP_WRITE || op->kind == TP_ZERO)
		verbs_changes_note(conn, op->off, op->len);
	if (op->kind == TP_FLUSH && (conn->flags & VERBS_GRANT_FLUSH_ASKS)) {
		verbs_ask(conn, op);
		verbs_send_requests(conn);
		return;
	}
	verbs_finish_slot(conn, i, 0);
}

static void on_recv(struct verbs_conn *conn, const struct ibv_wc *wc)
{
	unsigned buf = wc->wr_id & 0xffff;
	int r = verbs_receive(conn, verbs_bufs_at(&conn->bufs, buf), wc->byte_len);

	if (r < 0)
		return;
	r = verbs_bufs_post_recv(&conn->bufs, conn->control->qp, buf,
		verbs_wr_id(VERBS_WR_RECV, buf));
	if (r < 0)
		verbs_fail(conn, -r, "cannot post a buffer: %s", strerror(-r));
	else
		verbs_on_message(conn);
}

/* With an error only wr_id and status are valid. */
static void on_wc(struct verbs_conn *conn, const struct ibv_wc *wc)
{
	unsigned i = wc->wr_id & 0xffff;

	if (wc->status != IBV_WC_SUCCESS)
		fail_wc(conn, wc);
	switch ((enum verbs_wr)(wc->wr_id >> 24)) {
	case VERBS_WR_DATA:
		if (wc->status != IBV_WC_SUCCESS)
			conn->slots[i].error = -EIO;
		if (wc->wr_id & VERBS_WR_LAST)
			on_last(conn, i);
		break;
	case VERBS_WR_EPOCH:
		conn->sq_room++;
		if (wc->status == IBV_WC_SUCCESS && conn->conn.state == TP_CONNECTING)
			verbs_on_epoch(conn);
		break;
	case VERBS_WR_RECV:
		if (wc->status == IBV_WC_SUCCESS && conn->conn.state != TP_FAILED)
			on_recv(conn, wc);
		break;
	case VERBS_WR_SEND:
		verbs_bufs_sent(&conn->bufs, i);
		if (wc->status == IBV_WC_SUCCESS)
			verbs_send_requests(conn);
		break;
	}
}

/* Takes completions from the device; returns how many. */
static unsigned poll_completions(struct verbs_conn *conn)
{
	struct ibv_wc wc[POLL_BATCH];
	unsigned nr = 0;
	int n;

	if (!conn->cq.ibv || conn->saying_bye)
		return 0;
	do {
		n = ibv_poll_cq(conn->cq.ibv, POLL_BATCH, wc);
		for (int i = 0; i < n; i++)
			on_wc(conn, &wc[i]);
		nr += n > 0 ? (unsigned)n : 0;
	} while (n == POLL_BATCH);
	if (n < 0) {
		verbs_fail(conn, EIO, "the completion queue of the path to %s broke", conn->peer);
		verbs_kill(conn);
	}
	return nr;
}

static struct tp_op *take_done(struct verbs_conn *conn)
{
	struct tp_op *op = conn->done;

	conn->done = op->next;
	if (!conn->done)
		conn->done_end = &conn->done;
	return op;
}

int verbs_io_progress(struct tp_conn *tp_conn, struct tp_op **done, unsigned max)
{
	struct verbs_conn *conn = to_verbs(tp_conn);
	unsigned n = 0;

	/*
	 * A wake-up without completions was for something else.  If every wake-up has completions,
	 * look at others now and then.
	 */
	bool awaited = conn->cq.armed;
	if ((awaited && !weft_rdma_cq_woken(conn->comp)) || conn->conn.state != TP_READY ||
		++conn->nr_fast >= LOOK_EVERY) {
		conn->nr_fast = 0;
		if (weft_rdma_others_are_ready(conn->epfd, conn->comp))
			look(conn);
	}
	/*
	 * Read after the reaper's signal, which is not repeated, and before completions: when the
	 * queue pairs are gone, no completion can come later for a slot that was freed.
	 */
	bool gone = atomic_load(&conn->qps_gone);
	poll_completions(conn);
	if (conn->conn.state == TP_FAILED && conn->conn.nr_outstanding > 0)
		verbs_give_up(conn, gone);
	while (n < max && conn->done)
		done[n++] = take_done(conn);
	return (int)n;
}

/* Looks for completions for a little while. */
static bool spin(struct verbs_conn *conn)
{
	bool found = false;

	if (conn->conn.nr_outstanding == 0 || !weft_rdma_spin_begin(&conn->spin))
		return false;
	do
		found = poll_completions(conn) > 0;
	while (!found && weft_rdma_spin_goes_on(&conn->spin));
	if (found)
		weft_rdma_spin_found(&conn->spin);
	conn->conn.spins = conn->spin.ns > 0;
	return found;
}

int verbs_io_arm(struct tp_conn *tp_conn)
{
	struct verbs_conn *conn = to_verbs(tp_conn);

	if (conn->done)
		return 0;
	if (conn->conn.state == TP_READY &&
		(spin(conn) || (!conn->cq.armed && poll_completions(conn) > 0)))
		return 0;
	if (conn->cq.ibv && !conn->saying_bye && !conn->cq.armed) {
		if (weft_rdma_cq_arm(&conn->cq) < 0)
			return 0;
		/* Completions that came before the arming wake nobody. */
		if (poll_completions(conn) > 0)
			return 0;
	}
	return EPOLLIN;
}
