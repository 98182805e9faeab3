/* SPDX-License-Identifier: MIT */
/*
 * Replaces a link's connection that works, but not for ever (tp_is_worn()).  The link's thread.
 *
 * Another connection is made beside the old one, over the same way and at the same generation, as a
 * lane more would be: nothing is fenced, and until it is granted nothing changes.  Then the link
 * posts nothing until the old connection has answered everything, and goes on with the new one.  So
 * no operation is ever without an answer, and none is on both.  If the old connection is lost
 * meanwhile, the new one is given up: what was not answered has to wait for a higher generation.
 */
#include <string.h>

#include "fabric/base/util.h"
#include "nbd-bridge/link/arm.h"
#include "nbd-bridge/link/follow.h"
#include "nbd-bridge/link/link-private.h"

enum { AGAIN_MS = 5000 };

void link_renew_drop(struct bridge_link *link)
{
	if (!link->fresh)
		return;
	weft_loop_remove(link->worker->loop, &link->fresh_watch);
	link->fresh_watch.fd = -1;
	tp_disconnect(link->fresh);
	link->fresh = NULL;
	link->holds = false;
}

static void ended(struct bridge_link *link, int error)
{
	bridge_recorder_event(link->recorder, BRIDGE_EVENT_RENEWED, error, link->generation,
		link->way);
	link->renew_ns = weft_worker_now(link->worker) + AGAIN_MS * MS_NS;
}

void link_renew(struct bridge_link *link)
{
	struct weft_error why;

	if (link->fresh || weft_worker_now(link->worker) < link->renew_ns ||
		!tp_is_worn(link->conn))
		return;
	int r = link_connect(link, link->site, link->way, link->generation, &link->fresh, NULL,
		&why);
	if (r < 0) {
		link->fresh = NULL;
		ended(link, r);
	}
}

static void take_fresh(struct bridge_link *link)
{
	struct tp_conn *old = link->conn;

	weft_loop_remove(link->worker->loop, &link->watch);
	link->watch.fd = -1;
	weft_loop_remove(link->worker->loop, &link->fresh_watch);
	link->fresh_watch.fd = -1;
	link->conn = link->fresh;
	link->fresh = NULL;
	link->holds = false;
	tp_disconnect(old); /* with a goodbye, since nothing is in flight */
	memcpy(link->path, link->conn->info.path, sizeof(link->path));
	peer_renewed(link->peer, &link->conn->info);
	peer_renew_lease(link->peer, link->conn->asked_ns, link->conn->info.lease_ms);
	link->nr_renewals++;
	ended(link, 0);
	link->renew_ns = 0;
}

void link_renew_progress(struct bridge_link *link)
{
	struct weft_error why;
	int r;

	/* A connection that becomes ready may change its descriptor, and close the old one. */
	if (tp_state(link->fresh) == TP_CONNECTING)
		weft_loop_remove(link->worker->loop, &link->fresh_watch);
	tp_progress(link->fresh, NULL, 0);
	if (tp_state(link->fresh) == TP_CONNECTING)
		return;
	if (tp_state(link->fresh) == TP_READY && !link->holds) {
		r = peer_check_grant(link->peer, &link->fresh->info, &why);
		if (r == 0)
			r = follow_granted(link->peer, &link->site, &link->fresh->info);
		link->holds = r == 0;
	} else {
		r = link->fresh->error;
	}
	if (r < 0) {
		link_renew_drop(link);
		ended(link, r);
	} else if (link->conn->nr_outstanding == 0) {
		take_fresh(link);
	}
}

bool link_renew_arm(struct bridge_link *link)
{
	struct weft_error why;

	return tp_state(link->fresh) == TP_FAILED ||
		link_arm_conn(link->worker->loop, link->fresh, &link->fresh_watch, &why);
}
