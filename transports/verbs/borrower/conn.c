/* SPDX-License-Identifier: MIT */
/*
 * A connection's end: failing it, its queue pairs, its memory.
 *
 * Threads: conn.h says.  Invariant: once a connection has failed, its queue pairs are going into
 * the error state, or are being destroyed.  An operation comes back when its last work request has,
 * or when the queue pairs are gone: never while the NIC could still touch its buffer.
 */
#include "transports/verbs/borrower/conn.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "transports/verbs/borrower/client.h"
#include "transports/rdma/device.h"
#include "transports/rdma/lookup.h"

/* how long a failed connection waits for its work requests before the queue pairs are destroyed */
enum { DRAIN_MS = 2000 };

void verbs_set_timer(struct verbs_conn *conn, uint64_t after_ms)
{
	weft_rdma_set_timer(conn->timerfd, after_ms * UINT64_C(1000000));
}

static void destroy_qps(struct verbs_conn *conn)
{
	if (conn->data && conn->data->qp)
		rdma_destroy_qp(conn->data);
	if (conn->control && conn->control->qp)
		rdma_destroy_qp(conn->control);
	atomic_store(&conn->qps_gone, true);
}

static void kill_job(struct weft_rdma_job *job)
{
	struct verbs_conn *conn = weft_container_of(job, struct verbs_conn, kill_job);
	uint64_t one = 1;

	destroy_qps(conn);
	/*
	 * The last touch: now the lane may have the connection freed, by another job of this
	 * thread.
	 */
	(void)!write(conn->wake_fd, &one, sizeof(one));
}

void verbs_kill(struct verbs_conn *conn)
{
	if (conn->killing)
		return;
	conn->killing = true;
	verbs_set_timer(conn, 0);
	conn->kill_job.fn = kill_job;
	weft_rdma_reaper_put(conn->tp->base.reaper, &conn->kill_job);
}

int verbs_end_qps(struct verbs_conn *conn)
{
	int r = weft_rdma_end_qp(conn->data, conn->data_established);

	return r | weft_rdma_end_qp(conn->control, conn->control_established);
}

static void abort_conn(struct verbs_conn *conn)
{
	if (conn->aborted)
		return;
	conn->aborted = true;
	if (verbs_end_qps(conn) != 0)
		verbs_kill(conn);
	else
		verbs_set_timer(conn, DRAIN_MS);
}

void verbs_fail(struct verbs_conn *conn, int code, const char *fmt, ...)
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

void verbs_note_end(struct verbs_conn *conn, const struct rdma_cm_event *event)
{
	conn->seat.removed |= event->event == RDMA_CM_EVENT_DEVICE_REMOVAL;
	conn->left |= event->event == RDMA_CM_EVENT_DISCONNECTED && event->id == conn->control;
}

static void io_fini(struct verbs_conn *conn)
{
	if (conn->scratch_mr)
		ibv_dereg_mr(conn->scratch_mr);
	free(conn->scratch);
	free(conn->slots);
	free(conn->sges);
	free(conn->wrs);
}

static void destroy_id(struct rdma_cm_id *id)
{
	if (id)
		rdma_destroy_id(id);
}

void verbs_conn_free(struct verbs_conn *conn)
{
	destroy_qps(conn);
	verbs_bufs_fini(&conn->bufs);
	io_fini(conn);
	verbs_changes_fini(conn);
	weft_rdma_cq_fini(&conn->cq);
	if (conn->comp)
		ibv_destroy_comp_channel(conn->comp);
	destroy_id(conn->data);
	destroy_id(conn->control);
	weft_rdma_seat_leave(&conn->seat);
	if (conn->channel)
		rdma_destroy_event_channel(conn->channel);
	weft_rdma_lookup_free(conn->lookup);
	weft_close_fd(conn->wake_fd);
	weft_close_fd(conn->timerfd);
	weft_close_fd(conn->epfd);
	free(conn->chunks);
	free(conn->region);
	weft_key_wipe(&conn->key);
	verbs_proof_wipe(&conn->proof);
	explicit_bzero(conn->hello.id, sizeof(conn->hello.id));
	free(conn);
}
