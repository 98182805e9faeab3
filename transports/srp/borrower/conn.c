/* SPDX-License-Identifier: MIT */
/*
 * A channel's end: failing it, its queue pair, its memory.
 *
 * Threads: conn.h says.  Invariant: once a channel has failed, its queue pair is going into the
 * error state, or is being destroyed.  An operation comes back when all receives and sends have, or
 * when the queue pair is gone: never while the target could still reach its buffer.
 */
#include "transports/srp/borrower/conn.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "transports/rdma/device.h"

/* how long a failed channel waits for its work requests before the queue pair is destroyed */
#define DRAIN_NS (UINT64_C(2000) * 1000000)

static void destroy_qp(struct srp_conn *conn)
{
	if (conn->id && conn->id->qp)
		rdma_destroy_qp(conn->id);
	atomic_store(&conn->qp_gone, true);
}

static void kill_job(struct weft_rdma_job *job)
{
	struct srp_conn *conn = weft_container_of(job, struct srp_conn, kill_job);
	uint64_t one = 1;

	destroy_qp(conn);
	/*
	 * The last touch: now the lane may have the channel freed, by another job of this thread.
	 */
	(void)!write(conn->wake_fd, &one, sizeof(one));
}

void srp_kill(struct srp_conn *conn)
{
	if (conn->killing)
		return;
	conn->killing = true;
	weft_rdma_set_timer(conn->timerfd, 0);
	conn->kill_job.fn = kill_job;
	weft_rdma_reaper_put(conn->tp->base.reaper, &conn->kill_job);
}

/* The last send; sends come back in order. */
static int post_drain(struct srp_conn *conn)
{
	struct ibv_send_wr wr = {
		.wr_id = srp_wr_id(SRP_WR_DRAIN, 0),
		.opcode = IBV_WR_SEND,
		.send_flags = IBV_SEND_SIGNALED,
	}, *bad;

	if (!conn->id || !conn->id->qp) {
		conn->drained = true;
		return 0;
	}
	return ibv_post_send(conn->id->qp, &wr, &bad);
}

static void abort_conn(struct srp_conn *conn)
{
	if (conn->aborted)
		return;
	conn->aborted = true;
	if (conn->leads)
		srp_nexus_led(conn->nexus, conn->generation, false, false);
	conn->leads = false;
	if (weft_rdma_end_qp(conn->id, conn->established) != 0 || post_drain(conn) != 0)
		srp_kill(conn);
	else
		weft_rdma_set_timer(conn->timerfd, DRAIN_NS);
}

void srp_fail(struct srp_conn *conn, int code, const char *fmt, ...)
{
	struct weft_error err;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err.message, sizeof(err.message), fmt, ap);
	va_end(ap);
	weft_debug("%s", err.message);
	tp_conn_fail(&conn->conn, code, "%s", err.message);
	abort_conn(conn);
}

/*
 * The leader's first answers are to a newcomer, for whom nothing is old.  A channel beside it hears
 * what the target would have told any of them.  Only where the leader was greeted with the news of
 * a start, so may the others be: then each channel is an initiator of its own to the target.
 */
bool srp_conn_may_hear(struct srp_conn *conn, const struct srp_judgement *judgement)
{
	const struct scsi_fault *fault = &judgement->fault;

	if (judgement->deferred)
		atomic_store(&conn->nexus->deferred, true);
	if (!judgement->has_fault || judgement->deferred || !srp_is_news(fault))
		return true;
	if (conn->leads) {
		conn->greeted |= srp_is_greeting(fault);
		return true;
	}
	if (srp_is_greeting(fault) && srp_nexus_greets(conn->nexus))
		return true;
	srp_nexus_end(conn->nexus, conn->generation, &judgement->why);
	srp_fail(conn, ENOTCONN, "%s: %s", conn->peer, judgement->why.message);
	return false;
}

void srp_conn_look_at_nexus(struct srp_conn *conn)
{
	struct weft_error why;

	if (conn->conn.state == TP_READY &&
		srp_nexus_is_over(conn->nexus, conn->generation, &why))
		srp_fail(conn, ENOTCONN, "%s: %s", conn->peer, why.message);
}

void srp_conn_free(struct srp_conn *conn)
{
	destroy_qp(conn);
	if (conn->mr)
		ibv_dereg_mr(conn->mr);
	free(conn->memory);
	free(conn->slots);
	free(conn->recv_wrs);
	free(conn->recv_sges);
	weft_rdma_cq_fini(&conn->cq);
	if (conn->comp)
		ibv_destroy_comp_channel(conn->comp);
	if (conn->id)
		rdma_destroy_id(conn->id);
	weft_rdma_seat_leave(&conn->seat);
	if (conn->channel)
		rdma_destroy_event_channel(conn->channel);
	weft_rdma_lookup_free(conn->lookup);
	if (conn->nexus)
		srp_nexus_leave(conn->nexus, conn->wake_fd);
	srp_nexus_put(conn->nexus);
	weft_close_fd(conn->wake_fd);
	weft_close_fd(conn->again_fd);
	weft_close_fd(conn->timerfd);
	weft_close_fd(conn->epfd);
	free(conn);
}
