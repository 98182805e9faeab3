/* SPDX-License-Identifier: MIT */
/* An open transport over RDMA. */
#include "transports/rdma/borrower.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"

static void last_job(struct weft_rdma_job *job)
{
	struct weft_rdma_borrower *borrower =
		weft_container_of(job, struct weft_rdma_borrower, last);

	weft_crew_fini(&borrower->lookups);
	weft_rdma_local_fini(&borrower->local);
	free(borrower);
}

int weft_rdma_borrower_open(struct weft_rdma_borrower *borrower, int access,
	struct weft_error *err)
{
	int r = weft_rdma_local_init(&borrower->local, access, err);

	if (r < 0)
		return r;
	r = weft_rdma_reaper_new(&borrower->reaper);
	if (r < 0) {
		weft_rdma_local_fini(&borrower->local);
		return weft_error_set(err, -r, "cannot start a thread: %s", strerror(-r));
	}
	borrower->last.fn = last_job;
	weft_crew_init(&borrower->lookups, "weft-lookup", 0);
	return 0;
}

static struct weft_rdma_borrower *borrower_of(struct tp *tp)
{
	return weft_container_of(tp, struct weft_rdma_borrower, tp);
}

void weft_rdma_borrower_close(struct tp *tp)
{
	struct weft_rdma_borrower *borrower = borrower_of(tp);

	weft_rdma_reaper_stop(borrower->reaper, &borrower->last);
}

int weft_rdma_borrower_reg(struct tp *tp, struct tp_mem *mem, struct weft_error *err)
{
	return weft_rdma_local_reg(&borrower_of(tp)->local, mem, err);
}

void weft_rdma_borrower_dereg(struct tp_mem *mem)
{
	weft_rdma_local_dereg(&borrower_of(mem->tp)->local, mem);
}

/* On the reaper's thread: a device that came after the start. */
static void adopt_job(struct weft_rdma_job *job)
{
	struct weft_rdma_seat *seat = weft_container_of(job, struct weft_rdma_seat, job);
	uint64_t one = 1;
	int r = weft_rdma_local_adopt(&seat->borrower->local, seat->context, &seat->why);

	atomic_store(&seat->adopted, r < 0 ? r : 1);
	(void)!write(seat->wake_fd, &one, sizeof(one));
}

int weft_rdma_seat_take(struct weft_rdma_seat *seat, struct weft_rdma_borrower *borrower,
	struct ibv_context *context, int wake_fd)
{
	int r = weft_rdma_local_take(&borrower->local, context, &seat->device);

	seat->borrower = borrower;
	seat->taken = r == 0;
	if (r == -EAGAIN) {
		seat->context = context;
		seat->wake_fd = wake_fd;
		atomic_store(&seat->adopted, 0);
		seat->job.fn = adopt_job;
		weft_rdma_reaper_put(borrower->reaper, &seat->job);
	}
	return r;
}

void weft_rdma_seat_leave(struct weft_rdma_seat *seat)
{
	if (seat->taken)
		weft_rdma_local_put(&seat->borrower->local, seat->device, seat->removed);
	seat->taken = false;
}
