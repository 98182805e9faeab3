/* SPDX-License-Identifier: MIT */
/* A lane's links, and their calls to the lane.  The lane's thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nbd-bridge/lane/lane-private.h"

#define MS_NS UINT64_C(1000000)

static struct bridge_lane *lane_of(const struct bridge_link *link)
{
	return link->owner_ctx;
}

static struct bridge_scout *scout_of(const struct bridge_link *link)
{
	return lane_of(link)->scouts[link->peer->index];
}

void lane_look_whether_ready(struct bridge_lane *lane)
{
	bool ready = true;

	for (unsigned i = 0; i < lane->nr_links; i++)
		ready &= lane->links[i].state == LINK_READY || !lane_counts_donor(lane, i);
	atomic_store(&lane->ready, ready);
}

static void set_ready(struct bridge_link *link)
{
	lane_look_whether_ready(lane_of(link));
}

static void granted(struct bridge_link *link)
{
	struct bridge_lane *lane = lane_of(link);

	if (scout_of(link))
		scout_link_changed(scout_of(link));
	if (lane->stage)
		lane->stage->granted(lane->stage_ctx);
}

static void lost(struct bridge_link *link)
{
	set_ready(link);
	if (lane_of(link)->copies)
		lane_copies_link_lost(lane_of(link), link);
	if (scout_of(link))
		scout_link_changed(scout_of(link));
}

static void op_done(struct bridge_link *link, struct bridge_op *op, int error)
{
	lane_op_finish(lane_of(link), op, error);
}

static unsigned fail_all(struct bridge_link *link, int error)
{
	return lane_purge(lane_of(link), link, error, false);
}

/*
 * Whether a request seems to end each connection that it is posted on, while others are answered.
 */
static bool is_hopeless(const struct bridge_lane *lane, uint64_t since_ns, uint64_t now_ns)
{
	const struct bridge_attachment_config *config = &lane->attachment->config;

	if (config->dead_timeout_ms == 0)
		return false;
	return now_ns - weft_min(since_ns, now_ns) >
		2 * ((uint64_t)config->timeout_ms + config->dead_timeout_ms) * MS_NS;
}

static bool may_repeat(struct bridge_link *link, const struct bridge_op *op)
{
	struct bridge_lane *lane = lane_of(link);

	return !op->rq->lane.orphan && (!lane->copies || lane_copies_may_repeat(lane, op)) &&
		!is_hopeless(lane, op->rq->lane.start_ns, weft_worker_now(&lane->worker));
}

/*
 * Copies that are not there now may come later; not if another process has the attachment.  Under
 * the lanes' lock.
 */
static int first_result_of_copies(struct bridge_lane *lane)
{
	struct bridge_attachment *attachment = lane->attachment;

	if (lane->nr_results < lane->nr_links || lane->failure == -WEFT_ESUPERSEDED)
		return lane->nr_results < lane->nr_links ? 0 : lane->failure;
	for (unsigned i = 0; i < attachment->map.nr; i++) {
		uint32_t of_stripe = ((1U << attachment->nr_copies) - 1)
			<< i * attachment->nr_copies;
		int nr = __builtin_popcount(lane->has_grant & of_stripe);

		if (nr < (int)attachment->config.copies.nr_needed)
			return lane->failure;
	}
	int r = peer_put_together(attachment, &lane->first_error);
	return r < 0 ? r : 1;
}

static void first_result(struct bridge_link *link, int result, const struct weft_error *why)
{
	struct bridge_lane *lane = lane_of(link);
	bool *has_result = &lane->has_result[link->peer->index];

	pthread_mutex_lock(&lane->lanes->lock);
	if (!*has_result)
		lane->nr_results++;
	*has_result = true;
	if (result > 0) {
		lane->nr_granted++;
		lane->has_grant |= 1U << link->peer->index;
	} else if (lane->failure == 0) {
		lane->failure = result;
		if (why)
			lane->first_error = *why;
	}
	/*
	 * Not before all links have a result: a grant on its way could not be given back cleanly.
	 */
	if (lane->copies)
		lane->first_result = first_result_of_copies(lane);
	else if (lane->nr_granted == lane->nr_links)
		lane->first_result = 1;
	else if (lane->nr_results == lane->nr_links)
		lane->first_result = lane->failure;
	pthread_cond_broadcast(&lane->lanes->changed);
	pthread_mutex_unlock(&lane->lanes->lock);
}

static void tick(struct bridge_link *link)
{
	lane_trim_big(lane_of(link));
}

static const struct link_owner owner = {
	.op_done = op_done,
	.fail_all = fail_all,
	.may_repeat = may_repeat,
	.ready = set_ready,
	.granted = granted,
	.lost = lost,
	.first_result = first_result,
	.tick = tick,
};

/* ---- making and ending them ---- */

int lane_make_links(struct bridge_lane *lane, struct weft_error *err)
{
	struct bridge_attachment *attachment = lane->attachment;
	int r = 0;

	lane->links = calloc(attachment->nr_peers, sizeof(lane->links[0]));
	if (!lane->links)
		return weft_error_set(err, ENOMEM, "cannot make lane %u: out of memory",
			lane->index);
	for (; lane->nr_links < attachment->nr_peers; lane->nr_links++) {
		struct bridge_link *link = &lane->links[lane->nr_links];

		link_init(link, &owner, lane, &lane->worker, &lane->recorder, lane->tps,
			&attachment->peers[lane->nr_links]);
		/* The attach itself does not insist: the user sees the reason and decides. */
		link->insists = lane->index > 0 || lane->copies;
	}
	lane->nr_open = lane->nr_links;
	for (unsigned i = 0; lane->index == 0 && r == 0 && i < lane->nr_links; i++) {
		if (attachment->peers[i].config.nr_ways > 1) {
			r = scout_new(&lane->links[i], &lane->scouts[i]);
			lane->has_scouts = true;
		}
	}
	return r < 0 ? weft_error_set(err, -r, "cannot make lane %u: %s", lane->index, strerror(-r))
		     : 0;
}

void lane_start_links(struct bridge_lane *lane)
{
	for (unsigned i = 0; i < lane->nr_links; i++)
		link_start(&lane->links[i]);
}

void lane_restart_links(struct bridge_lane *lane)
{
	for (unsigned i = 0; i < lane->nr_links; i++)
		link_restart(&lane->links[i]);
}

void lane_end_scouts(struct bridge_lane *lane)
{
	for (unsigned i = 0; i < lane->nr_links; i++)
		if (lane->scouts[i])
			scout_end(lane->scouts[i]);
}

void lane_end_links(struct bridge_lane *lane)
{
	if (!lane->worker.loop)
		return;
	lane_end_scouts(lane);
	for (unsigned i = 0; i < lane->nr_links; i++)
		link_end(&lane->links[i]);
}

void lane_free_links(struct bridge_lane *lane)
{
	for (unsigned i = 0; i < lane->nr_links; i++)
		scout_free(lane->scouts[i]);
	free(lane->links);
}

void lane_check_links(struct bridge_lane *lane)
{
	for (unsigned i = 0; i < lane->nr_links; i++)
		link_check(&lane->links[i]);
}

bool bridge_lane_spins(const struct bridge_lane *lane)
{
	for (unsigned i = 0; i < lane->nr_links; i++) {
		const struct tp_conn *conn = lane->links[i].conn;

		if (conn && conn->spins && conn->nr_outstanding > 0)
			return true;
	}
	return false;
}

struct bridge_link *lane_link(struct bridge_lane *lane, unsigned donor)
{
	return &lane->links[donor];
}

int lane_first_result(const struct bridge_lane *lane, struct weft_error *ret_why)
{
	if (lane->first_result < 0)
		*ret_why = lane->first_error;
	return lane->first_result;
}
