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

enum {
	DEFAULT_DEPTH = 128,
	MAX_DEPTH = 1024,
	DEFAULT_SPIN_US = 20,
};

/* ---- opening ---- */

static void tp_last_job(struct weft_rdma_job *job)
{
	struct srp_tp *tp = weft_container_of(job, struct srp_tp, last);

	weft_crew_fini(&tp->lookups);
	weft_rdma_local_fini(&tp->local);
	free(tp);
}

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
	if (tp->config.depth == 0)
		tp->config.depth = DEFAULT_DEPTH;
	if (tp->config.depth > MAX_DEPTH)
		tp->config.depth = MAX_DEPTH;
	if (tp->config.spin_us == 0)
		tp->config.spin_us = DEFAULT_SPIN_US;
	weft_random(&tp->random_ext, sizeof(tp->random_ext));
	int r = weft_rdma_local_init(&tp->local, access, err);
	if (r < 0)
		goto free_tp;
	r = weft_rdma_reaper_new(&tp->reaper);
	if (r < 0) {
		weft_error_set(err, -r, "cannot start a thread: %s", strerror(-r));
		goto fini_local;
	}
	tp->last.fn = tp_last_job;
	weft_crew_init(&tp->lookups, "weft-lookup", 0);
	*ret = &tp->tp;
	return 0;
fini_local:
	weft_rdma_local_fini(&tp->local);
free_tp:
	free(tp);
	return r;
}

static void srp_close(struct tp *tp)
{
	struct srp_tp *srp = weft_container_of(tp, struct srp_tp, tp);

	while (srp->nexuses) {
		struct srp_tp_nexus *kept = srp->nexuses;

		srp->nexuses = kept->next;
		srp_nexus_put(kept->nexus);
		free(kept);
	}
	weft_rdma_reaper_stop(srp->reaper, &srp->last);
}

static int srp_reg(struct tp *tp, struct tp_mem *mem, struct weft_error *err)
{
	return weft_rdma_local_reg(&weft_container_of(tp, struct srp_tp, tp)->local, mem, err);
}

static void srp_dereg(struct tp_mem *mem)
{
	weft_rdma_local_dereg(&weft_container_of(mem->tp, struct srp_tp, tp)->local, mem);
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
	weft_rdma_reaper_put(conn->tp->reaper, &conn->free_job);
}

static int srp_event_fd(struct tp_conn *conn)
{
	return to_srp(conn)->epfd;
}

const struct tp_ops tp_srp_ops = {
	.name = "srp",
	.open = srp_open,
	.close = srp_close,
	.reg = srp_reg,
	.dereg = srp_dereg,
	.connect = srp_connect,
	.shutdown = srp_shutdown,
	.disconnect = srp_disconnect,
	.post = srp_io_post,
	.progress = srp_progress,
	.event_fd = srp_event_fd,
	.arm = srp_arm,
};
