/* SPDX-License-Identifier: MIT */
/*
 * The borrower's side of the transport "srp": its table of functions, opening it, ending it.
 *
 * Threads: conn.h says.
 */
#include "transports/srp/borrower/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transports/srp/borrower/conn.h"

/* ---- opening ---- */

static int srp_open(const void *config, struct tp **ret, struct weft_error *err)
{
	/* The target reaches into our buffers. */
	const int access =
		IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
	struct srp_tp *tp = calloc(1, sizeof(*tp));

	if (!tp)
		return weft_error_set(err, ENOMEM, "cannot open SRP: out of memory");
	if (config)
		tp->config = *(const struct srp_client_config *)config;
	tp->config.depth = weft_rdma_depth(tp->config.depth);
	weft_random(&tp->random_ext, sizeof(tp->random_ext));
	int r = weft_rdma_borrower_open(&tp->base, access, err);
	if (r < 0) {
		free(tp);
		return r;
	}
	*ret = &tp->base.tp;
	return 0;
}

static void srp_close(struct tp *tp)
{
	struct srp_tp *srp = weft_container_of(tp, struct srp_tp, base.tp);

	while (srp->nexuses) {
		struct srp_tp_nexus *kept = srp->nexuses;

		srp->nexuses = kept->next;
		srp_nexus_put(kept->nexus);
		free(kept);
	}
	weft_rdma_borrower_close(tp);
}

/* ---- ending ---- */

/* The disconnection is the goodbye: Linux's target knows no other. */
static void srp_shutdown(struct tp_conn *tp_conn)
{
	srp_fail(to_srp(tp_conn), ECANCELED, "shut down");
}

static void free_job(struct weft_rdma_job *job)
{
	srp_conn_free(weft_container_of(job, struct srp_conn, free_job));
}

static void srp_disconnect(struct tp_conn *tp_conn)
{
	struct srp_conn *conn = to_srp(tp_conn);

	conn->free_job.fn = free_job;
	weft_rdma_reaper_put(conn->tp->base.reaper, &conn->free_job);
}

static int srp_event_fd(struct tp_conn *conn)
{
	return to_srp(conn)->epfd;
}

const struct tp_ops tp_srp_ops = {
	.name = "srp",
	.open = srp_open,
	.close = srp_close,
	.reg = weft_rdma_borrower_reg,
	.dereg = weft_rdma_borrower_dereg,
	.connect = srp_connect,
	.shutdown = srp_shutdown,
	.disconnect = srp_disconnect,
	.post = srp_io_post,
	.progress = srp_progress,
	.event_fd = srp_event_fd,
	.arm = srp_arm,
};
