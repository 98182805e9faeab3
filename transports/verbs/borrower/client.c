/* SPDX-License-Identifier: MIT */
/*
 * The borrower's side of the verbs transport: its table of functions, opening it, ending it.
 *
 * Threads: conn.h says.
 */
#include "transports/verbs/borrower/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	BYE_MS = 1000, /* for a goodbye to leave … */
	LEAVE_MS = 2000, /* … and for the donor to release the grant */
};

/* Opening. */

static int verbs_open(const void *config, struct tp **ret, struct weft_error *err)
{
	struct verbs_tp *tp = calloc(1, sizeof(*tp));

	if (!tp)
		return weft_error_set(err, ENOMEM, "cannot open RDMA: out of memory");
	if (config)
		tp->config = *(const struct verbs_config *)config;
	tp->config.depth = weft_rdma_depth(tp->config.depth);
	int r = weft_rdma_borrower_open(&tp->base, IBV_ACCESS_LOCAL_WRITE, err);
	if (r < 0) {
		free(tp);
		return r;
	}
	*ret = &tp->base.tp;
	return 0;
}

/* Ending. */

static void verbs_shutdown(struct tp_conn *tp_conn)
{
	struct verbs_conn *conn = to_verbs(tp_conn);
	struct verbs_msg bye = {.type = VERBS_BYE};

	bye.bye.changed = verbs_changes_any(conn);
	if (tp_conn->state == TP_READY && tp_conn->nr_outstanding == 0 &&
		verbs_send(conn, &bye) == 0) {
		conn->saying_bye = true;
		verbs_set_timer(conn, 0);
		return; /* the reaper waits until the goodbye has left */
	}
	verbs_fail(conn, ECANCELED, "shut down");
}

static bool has_left(struct verbs_conn *conn)
{
	struct rdma_cm_event *event;

	while (rdma_get_cm_event(conn->channel, &event) == 0) {
		verbs_note_end(conn, event);
		rdma_ack_cm_event(event);
	}
	return conn->left || conn->seat.removed;
}

static void wait_until_left(struct verbs_conn *conn)
{
	uint64_t end_ns = weft_now_ns() + LEAVE_MS * UINT64_C(1000000), now_ns;

	while (!has_left(conn) && (now_ns = weft_now_ns()) < end_ns) {
		struct pollfd p = {.fd = conn->channel->fd, .events = POLLIN};

		poll(&p, 1, (int)((end_ns - now_ns) / 1000000) + 1);
	}
}

/* On the reaper's thread: waits until a goodbye has left, and was answered. */
static void wait_for_bye(struct verbs_conn *conn)
{
	uint64_t end_ns = weft_now_ns() + BYE_MS * UINT64_C(1000000);
	struct timespec nap = {.tv_nsec = 500000};
	struct ibv_wc wc;

	while (weft_now_ns() < end_ns) {
		int n = ibv_poll_cq(conn->cq.ibv, 1, &wc);

		if (n > 0 && wc.status == IBV_WC_SUCCESS && wc.wr_id >> 24 == VERBS_WR_SEND) {
			wait_until_left(conn);
			break;
		}
		/* Nothing else is being sent, and nobody would hear of a failure. */
		if (n < 0 || (n > 0 && wc.status != IBV_WC_SUCCESS))
			break;
		if (n == 0)
			nanosleep(&nap, NULL);
	}
	verbs_end_qps(conn);
}

static void free_job(struct weft_rdma_job *job)
{
	struct verbs_conn *conn = weft_container_of(job, struct verbs_conn, free_job);

	if (conn->saying_bye)
		wait_for_bye(conn);
	verbs_conn_free(conn);
}

static void verbs_disconnect(struct tp_conn *tp_conn)
{
	struct verbs_conn *conn = to_verbs(tp_conn);

	conn->free_job.fn = free_job;
	weft_rdma_reaper_put(conn->tp->base.reaper, &conn->free_job);
}

static int verbs_event_fd(struct tp_conn *conn)
{
	return to_verbs(conn)->epfd;
}

const struct tp_ops tp_verbs_ops = {
	.name = "verbs",
	.silent_refusal = true,
	.proves_keys = true,
	.proves_certificates = true,
	.open = verbs_open,
	.close = weft_rdma_borrower_close,
	.reg = weft_rdma_borrower_reg,
	.dereg = weft_rdma_borrower_dereg,
	.connect = verbs_connect,
	.shutdown = verbs_shutdown,
	.disconnect = verbs_disconnect,
	.post = verbs_io_post,
	.progress = verbs_io_progress,
	.event_fd = verbs_event_fd,
	.arm = verbs_io_arm,
};
