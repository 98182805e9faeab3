/* SPDX-License-Identifier: MIT */
/*
 * Waiting for events, and handling them.
 *
 * Runs on the lane's thread.  Each call of progress looks at completions, and at everything else
 * (the connection manager, timers, the others' signal) only when there is a sign of it.
 */
#include "transports/srp/borrower/conn.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "transports/rdma/device.h"

enum {
	POLL_BATCH = 32,
	LOOK_EVERY = 64,  /* calls of progress */
};

static unsigned poll_completions(struct srp_conn *conn);

/* ---- the connection manager, timers ---- */

static void on_event(struct srp_conn *conn, const struct rdma_cm_event *event)
{
	static const struct weft_rdma_protocol protocol = {.name = "SRP", .advice = ""};
	struct weft_error err;
	int r;

	if (srp_connect_step(conn, event) || srp_connect_rejected(conn, event))
		return;
	r = weft_rdma_event_errno(event, &protocol, conn->peer, &err);
	if (r == 0)
		return;
	/* Answers that came before the end say more than the end does; what is flushed, less. */
	conn->ending = true;
	poll_completions(conn);
	srp_fail(conn, -r, "%s", err.message);
	/* A device that is removed may never give its work requests back. */
	if (event->event == RDMA_CM_EVENT_DEVICE_REMOVAL)
		srp_kill(conn);
}

static void look_at_events(struct srp_conn *conn)
{
	struct rdma_cm_event *event;

	while (rdma_get_cm_event(conn->channel, &event) == 0) {
		conn->seat.removed |= event->event == RDMA_CM_EVENT_DEVICE_REMOVAL;
		if (conn->conn.state != TP_FAILED)
			on_event(conn, event);
		else if (event->event == RDMA_CM_EVENT_DEVICE_REMOVAL)
			srp_kill(conn);
		rdma_ack_cm_event(event);
	}
}

static void look_at_timers(struct srp_conn *conn)
{
	uint64_t times;

	if (read(conn->again_fd, &times, sizeof(times)) > 0)
		srp_io_again(conn);
	if (read(conn->timerfd, &times, sizeof(times)) < 0)
		return;
	if (conn->conn.state == TP_CONNECTING)
		srp_connect_timed_out(conn);
	else if (conn->conn.state == TP_FAILED)
		srp_kill(conn);
}

/* Looks at everything but completions. */
static void look(struct srp_conn *conn)
{
	uint64_t count;

	/*
	 * This comes first: the next lines may give the reaper a job, and its signal must not be
	 * lost.
	 */
	(void)!read(conn->wake_fd, &count, sizeof(count));
	if (conn->conn.state == TP_CONNECTING)
		srp_connect_look(conn);
	srp_conn_look_at_nexus(conn);
	look_at_events(conn);
	look_at_timers(conn);
}

/* ---- completions ---- */

static void fail_wc(struct srp_conn *conn, const struct ibv_wc *wc)
{
	if (conn->conn.state == TP_FAILED || conn->ending)
		return;
	/* The connection manager may know why. */
	look(conn);
	if (conn->conn.state != TP_FAILED)
		srp_fail(conn, -weft_rdma_wc_errno(wc->status), "the connection to %s is lost: %s",
			conn->peer, ibv_wc_status_str(wc->status));
}

/* With an error only wr_id and status are valid. */
static void on_wc(struct srp_conn *conn, const struct ibv_wc *wc)
{
	uint32_t i = (uint32_t)wc->wr_id;

	if (wc->status != IBV_WC_SUCCESS && wc->wr_id >> 32 != SRP_WR_DRAIN)
		fail_wc(conn, wc);
	switch ((enum srp_wr)(wc->wr_id >> 32)) {
	case SRP_WR_RECV:
		conn->nr_posted_recvs--;
		if (wc->status != IBV_WC_SUCCESS)
			break;
		conn->recv_sges[conn->nr_fresh_recvs].addr =
			(uintptr_t)(conn->recvs + i * SRP_RECV_BYTES);
		conn->recv_wrs[conn->nr_fresh_recvs].wr_id = wc->wr_id;
		if (conn->nr_fresh_recvs > 0)
			conn->recv_wrs[conn->nr_fresh_recvs - 1].next =
				&conn->recv_wrs[conn->nr_fresh_recvs];
		conn->nr_fresh_recvs++;
		srp_io_received(conn, i, wc->byte_len);
		break;
	case SRP_WR_SEND:
		if (wc->status == IBV_WC_SUCCESS)
			conn->sq_room += i;
		break;
	case SRP_WR_DRAIN:
		conn->drained = true;
	}
}

/* Takes completions from the device; returns how many. */
static unsigned poll_completions(struct srp_conn *conn)
{
	struct ibv_wc wc[POLL_BATCH];
	unsigned nr = 0;
	int n;

	if (!conn->cq.ibv)
		return 0;
	do {
		n = ibv_poll_cq(conn->cq.ibv, POLL_BATCH, wc);
		for (int i = 0; i < n; i++)
			on_wc(conn, &wc[i]);
		nr += n > 0 ? (unsigned)n : 0;
		/* Before commands are sent that they are for. */
		srp_io_give_back(conn);
	} while (n == POLL_BATCH);
	if (n < 0) {
		srp_fail(conn, EIO, "the completion queue of the path to %s broke", conn->peer);
		srp_kill(conn);
	}
	if (nr > 0)
		srp_io_again(conn);
	return nr;
}

int srp_progress(struct tp_conn *tp_conn, struct tp_op **done, unsigned max)
{
	struct srp_conn *conn = to_srp(tp_conn);
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
	 * queue pair is gone, no completion can come later for a slot that was freed.
	 */
	bool gone = atomic_load(&conn->qp_gone);
	poll_completions(conn);
	if (conn->conn.state == TP_FAILED && conn->conn.nr_outstanding > 0 &&
		(gone || (conn->drained && conn->nr_posted_recvs == 0)))
		srp_io_give_up(conn);
	while (n < max && conn->done) {
		done[n++] = conn->done;
		conn->done = conn->done->next;
	}
	if (!conn->done)
		conn->done_end = &conn->done;
	return (int)n;
}

/* Looks for completions for a little while. */
static bool spin(struct srp_conn *conn)
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

int srp_arm(struct tp_conn *tp_conn)
{
	struct srp_conn *conn = to_srp(tp_conn);

	if (conn->done)
		return 0;
	if (conn->conn.state == TP_READY &&
		(spin(conn) || (!conn->cq.armed && poll_completions(conn) > 0)))
		return 0;
	if (conn->cq.ibv && !conn->cq.armed) {
		if (weft_rdma_cq_arm(&conn->cq) < 0)
			return 0;
		/* Completions that came before the arming wake nobody. */
		if (poll_completions(conn) > 0)
			return 0;
	}
	return EPOLLIN;
}
