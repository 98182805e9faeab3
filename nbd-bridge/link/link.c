/* SPDX-License-Identifier: MIT */
/*
 * A connection to a donor: posting, completions, liveness, and coming back after a loss.
 * Owned by its worker's thread.
 *
 * A connection is granted at a generation.  When it is lost, the operations that were not answered
 * are parked: the donor may have carried them out, or may still do so.  The link raises the
 * generation (unless another link to the donor has) and connects with it.  The grant implies that
 * the donor has stopped all sessions of lower generations, on every transport, so that parked
 * operations can be posted again.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/counter.h"
#include "fabric/base/probe.h"
#include "fabric/base/util.h"
#include "nbd-bridge/link/arm.h"
#include "nbd-bridge/link/follow.h"
#include "nbd-bridge/link/link-private.h"

enum { PROBE_MS = 5000 };

static void on_event(struct weft_watch *watch, uint32_t events);
static void on_fresh_event(struct weft_watch *watch, uint32_t events);
static void on_dead(struct weft_timer *timer);
static void on_tick(struct weft_timer *timer);
static const struct bridge_op *oldest_posted(const struct bridge_link *link);

const char *link_state_name(const struct bridge_link *link)
{
	static const char *const names[] = {
		[LINK_IDLE] = "ended",
		[LINK_CONNECTING] = "connecting",
		[LINK_READY] = "ready",
		[LINK_DRAINING] = "lost",
		[LINK_BACKOFF] = "waiting to reconnect",
		[LINK_STALE] = "stale",
	};

	return link->is_dead && link->state != LINK_STALE ? "dead, still trying"
							  : names[link->state];
}

void link_init(struct bridge_link *link, const struct link_owner *owner, void *owner_ctx,
	struct weft_worker *worker, struct bridge_recorder *recorder, struct tp *const *tps,
	struct bridge_peer *peer)
{
	link->owner = owner;
	link->owner_ctx = owner_ctx;
	link->worker = worker;
	link->recorder = recorder;
	link->tps = tps;
	link->peer = peer;
	link->attachment = peer->attachment;
	link->site = &peer->first;
	link->way = peer->config.first_way;
	for (unsigned i = LINK_OPS; i-- > 0;) {
		link->ops[i].link = link;
		link->ops[i].tp.user = &link->ops[i];
		link->ops[i].next = link->free_ops;
		link->free_ops = &link->ops[i];
	}
	link->watch.fd = link->fresh_watch.fd = -1;
	link->watch.fn = on_event;
	link->fresh_watch.fn = on_fresh_event;
	link->retry.fn = link_on_retry;
	link->dead.fn = on_dead;
	link->tick.fn = on_tick;
	link->probe.tp.kind = TP_PROBE;
	link->probe.tp.user = &link->probe;
	link->probe.link = link;
	op_list_init(&link->queue);
	op_list_init(&link->parked);
}

/* ---- granted ---- */

/* The attachment is not valid any more; each link ends its connection when it notices. */
static void become_stale(struct bridge_link *link)
{

	if (link->conn) {
		tp_shutdown(link->conn);
		return; /* disconnected() calls this again */
	}
	weft_loop_timer_cancel(link->worker->loop, &link->retry);
	weft_loop_timer_cancel(link->worker->loop, &link->dead);
	weft_loop_timer_cancel(link->worker->loop, &link->tick);
	link->state = LINK_STALE;
	bridge_recorder_event(link->recorder, BRIDGE_EVENT_STALE, -ESTALE, link->generation, 0);
	link->owner->fail_all(link, -EIO);
}

uint64_t link_silent_ns(const struct bridge_link *link)
{
	const struct bridge_op *oldest = link->state == LINK_READY ? oldest_posted(link) : NULL;
	uint64_t now_ns = weft_now_ns(), since_ns = link->down_ns;

	if (oldest)
		since_ns = weft_max(oldest->posted_ns, link->seen_ns);
	else if (link->state == LINK_READY)
		return 0;
	return since_ns != 0 && now_ns > since_ns ? now_ns - since_ns : 0;
}

static void on_dead(struct weft_timer *timer)
{
	struct bridge_link *link = weft_container_of(timer, struct bridge_link, dead);

	link->is_dead = true;
	unsigned n = link->owner->fail_all(link, -EIO);
	bridge_recorder_event(link->recorder, BRIDGE_EVENT_DEAD, -EIO, link->generation, n);
	attachment_changed(link->attachment);
}

static void set_tick(struct bridge_link *link, bool busy)
{
	uint32_t lease_ms = link->peer->info.lease_ms;
	uint64_t ms = PROBE_MS;

	/* Well within the lease, so that losing a probe does not lose the lease. */
	if (lease_ms > 0)
		ms = weft_min(ms, weft_max(lease_ms / 4, 1));
	if (busy)
		ms = weft_min(ms,
			weft_min(1000, weft_max(link->attachment->config.timeout_ms / 4, 1)));
	link->tick_ms = (uint32_t)ms;
	weft_loop_timer_set(link->worker->loop, &link->tick, ms * MS_NS);
}

/* If the contents may be put back, the fact that we know them has to outlive us. */
static int note_grant(struct bridge_link *link)
{
	struct bridge_peer *peer = link->peer;
	const struct tp_info *info = &link->conn->info;

	link->must_note = false;
	if (!info->restorable || link->attachment->config.mode == WEFT_MODE_SHARED)
		return 0;
	link->must_note =
		!info->read_only && atomic_load(&peer->wrote_generation) < link->generation;
	int r = peer_note_granted(peer, link->generation);
	/* What others write by the session's alias is seen by nobody here. */
	if (r == 0 && link->must_note && link->attachment->config.wants_alias) {
		r = peer_note_wrote(peer, link->generation);
		link->must_note = false;
	}
	return r;
}

/* The connection is granted and good. */
static void become_ready(struct bridge_link *link)
{
	struct bridge_op *op;
	bool moved;
	int r = follow_granted(link->peer, &link->site, &link->conn->info);

	if (r == 0)
		r = note_grant(link);
	if (r == -EAGAIN)
		weft_error_set(&link->why, EAGAIN, "another lane has found the region elsewhere");
	else if (r < 0)
		weft_error_set(&link->why, -r, "what has to outlive the bridge cannot be kept: %s",
			strerror(-r));
	if (r < 0) {
		link->was_granted = r != -EAGAIN;
		if (link->ready_ns == 0 && r != -EAGAIN)
			link->owner->first_result(link, r, &link->why);
		tp_shutdown(link->conn);
		return;
	}
	peer_renew_lease(link->peer, link->conn->asked_ns, link->conn->info.lease_ms);
	bridge_recorder_event(link->recorder, BRIDGE_EVENT_GRANTED, 0, link->generation,
		link->parked.nr);
	memcpy(link->path, link->conn->info.path, sizeof(link->path));
	bool first = link->ready_ns == 0;
	link->state = LINK_READY;
	link->owner->ready(link);
	peer_granted(link->peer, link->generation, link->way, &link->conn->info, &moved);
	if (moved)
		bridge_recorder_event(link->recorder, BRIDGE_EVENT_MOVED, 0, link->generation,
			link->way);
	link->ready_ns = link->seen_ns = weft_now_ns();
	link->is_dead = link->insisted = false;
	link->between_ns = link->place_why.code = 0;
	weft_loop_timer_cancel(link->worker->loop, &link->dead);
	/* Parked operations go before newer ones. */
	if (link->parked.head) {
		while ((op = op_list_pop(&link->queue)) != NULL)
			op_list_push(&link->parked, op);
		while ((op = op_list_pop(&link->parked)) != NULL)
			op_list_push(&link->queue, op);
	}
	set_tick(link, true);
	if (first)
		link->owner->first_result(link, 1, NULL);
	else
		link->nr_reconnects++;
	link->owner->granted(link);
	attachment_changed(link->attachment);
}

static void granted(struct bridge_link *link)
{
	struct weft_error why;
	int r = peer_check_grant(link->peer, &link->conn->info, &why);

	if (r == 0) {
		become_ready(link);
		return;
	}
	bool attached = link->ready_ns != 0 || peer_is_granted(link->peer);
	bool counts = follow_counts(link->peer, link->site);

	link->why = why;
	link->was_granted = true;
	if (link->ready_ns == 0 && counts)
		link->owner->first_result(link, -why.code, &why);
	/* Another way may be able to do what was granted before. */
	if (attached && counts && (r == -ESTALE || link->site->nr_ways == 1))
		peer_set_stale(link->peer, &why);
	tp_shutdown(link->conn);
}

/* ---- losing it ---- */

static bool is_foreign_and_unstable(const struct bridge_link *link)
{
	return !link->peer->info.has_epoch && !link->attachment->config.assume_stable;
}

/* The connection was lost, or we gave it up: from here on operations come back unanswered. */
static void lost(struct bridge_link *link)
{
	const uint64_t dead_timeout_ns = link->attachment->config.dead_timeout_ms * MS_NS;

	/*
	 * The donor counts as gone since it fell silent; half of the time stays for connecting
	 * anew.
	 */
	if (link->down_ns == 0)
		link->down_ns = weft_now_ns() - weft_min(link_silent_ns(link), dead_timeout_ns / 2);
	/* Given up by ourselves: the reason is there already. */
	if (link->conn->error != -ECANCELED)
		link->why = link->conn->why;
	bridge_recorder_event(link->recorder, BRIDGE_EVENT_LOST, link->conn->error,
		link->generation, link->conn->nr_outstanding);
	peer_lost(link->peer, link->site, link->generation, link->way, &link->why);
	link->was_granted = true;
	link->state = LINK_DRAINING;
	link_renew_drop(link);
	weft_loop_timer_cancel(link->worker->loop, &link->tick);
	link_set_down(link);
	link->owner->lost(link);
	/* Its contents must not be read any more: a restarted server's could be older, or gone. */
	if (is_foreign_and_unstable(link)) {
		struct weft_error why;

		weft_error_set(&why, ESTALE,
			"the server cannot say whether its contents are still the same (see "
			"--assume-stable), and the connection was lost: %.300s",
			link->why.message);
		attachment_set_stale(link->attachment, &why);
		return;
	}
	attachment_changed(link->attachment);
}

/* Nothing is outstanding any more. */
static void disconnected(struct bridge_link *link)
{
	bool was_granted = link->state == LINK_DRAINING;

	link_renew_drop(link);
	weft_loop_remove(link->worker->loop, &link->watch);
	link->watch.fd = -1;
	/* Given up by ourselves: the reason is there already. */
	if (!was_granted && link->conn->error != -ECANCELED)
		link->why = link->conn->why;
	memcpy(link->told, link->conn->info.moving, sizeof(link->told));
	tp_disconnect(link->conn);
	link->conn = NULL;
	if (atomic_load(&link->attachment->stale)) {
		tp_disconnect(link->next);
		link->next = NULL;
		become_stale(link);
		return;
	}
	if (link->next) {
		link->conn = link->next;
		link->next = NULL;
		link->was_granted = false;
		become_ready(link);
		return;
	}
	if (!was_granted) {
		link_refused(link, -link->why.code);
		return;
	}
	/* Connects at once, unless the connection was lost as soon as it was granted. */
	if (weft_now_ns() - link->ready_ns > LINK_BACKOFF_MAX_MS * MS_NS)
		link->backoff_ms = 0;
	link_back_off(link);
}

void link_take_over(struct bridge_link *link, struct tp_conn *conn, uint64_t generation,
	const struct bridge_site *site, unsigned way)
{
	link_renew_drop(link);
	link->generation = generation;
	link->site = site;
	link->way = way;
	if (!link->conn) {
		/* The old one has ended already. */
		weft_loop_timer_cancel(link->worker->loop, &link->retry);
		link->was_granted = false;
		link->conn = conn;
		become_ready(link);
		return;
	}
	weft_error_set(&link->why, ESTALE, "moved to another way");
	link->next = conn;
	tp_shutdown(link->conn);
	link_progress(link);
}

void link_check(struct bridge_link *link)
{
	if (atomic_load(&link->attachment->stale) && link->state != LINK_STALE) {
		link_progress(link);
		return;
	}
	/* The donor has fenced this connection, or will soon. */
	if (link->state == LINK_READY &&
		(link->generation < atomic_load(&link->peer->granted_generation) ||
			!follow_is_home(link->peer, link->site))) {
		weft_error_set(&link->why, ESTALE, "another lane had to connect anew");
		tp_shutdown(link->conn);
		link_progress(link);
	}
}

/* Parks an operation whose fate is unknown. */
static void park(struct bridge_link *link, struct bridge_op *op)
{

	if (link->is_dead || atomic_load(&link->attachment->stale) || link->state == LINK_IDLE ||
		!link->owner->may_repeat(link, op))
		link->owner->op_done(link, op, -EIO);
	else
		op_list_push(&link->parked, op);
}

static bool fate_unknown(int status)
{
	return status == -ENOTCONN || status == -ETIMEDOUT || status == -ECANCELED ||
		status == -ESTALE;
}

static void completed(struct bridge_link *link, struct bridge_op *op)
{
	op->posted_ns = 0;
	WEFT_PROBE(complete, op, op->rq, op->tp.status);
	if (fate_unknown(op->tp.status)) {
		/* The connection seems to live, but this status means its end: it is useless. */
		if (tp_state(link->conn) == TP_READY) {
			weft_error_set(&link->why, -op->tp.status,
				"the donor ended the session: %s", strerror(-op->tp.status));
			tp_shutdown(link->conn);
		}
		if (op != &link->probe)
			park(link, op);
		return;
	}
	link->seen_ns = weft_worker_now(link->worker);
	link->down_ns = 0;
	if (op == &link->probe) {
		if (op->tp.status == 0)
			peer_renew_lease(link->peer, link->probe_sent_ns,
				link->conn->info.lease_ms);
		return;
	}
	/* Nobody learns of a write before a take-over would know of it. */
	if (link->must_note && op->tp.status == 0 && op_changes_data(op)) {
		op->tp.status = peer_note_wrote(link->peer, link->generation) < 0 ? -EIO : 0;
		link->must_note = op->tp.status < 0;
	}
	link->owner->op_done(link, op, op->tp.status);
}

void link_progress(struct bridge_link *link)
{
	struct tp_op *done[LINK_BATCH];
	int n;

	if (!link->conn) {
		if (atomic_load(&link->attachment->stale) && link->state != LINK_STALE)
			become_stale(link);
		return;
	}
	if (atomic_load_explicit(&link->attachment->stale, memory_order_relaxed))
		become_stale(link);
	/* A connection that becomes ready may change its descriptor, and close the old one. */
	if (link->state == LINK_CONNECTING)
		weft_loop_remove(link->worker->loop, &link->watch);
	do {
		n = tp_progress(link->conn, done, LINK_BATCH);
		if (link->state == LINK_READY && tp_state(link->conn) == TP_FAILED)
			lost(link);
		for (int i = 0; i < n; i++)
			completed(link, done[i]->user);
	} while (n == LINK_BATCH);
	if (link->state == LINK_CONNECTING && tp_state(link->conn) == TP_READY)
		granted(link);
	if (link->state == LINK_READY && tp_state(link->conn) == TP_FAILED)
		lost(link);
	if (tp_state(link->conn) == TP_FAILED && link->conn->nr_outstanding == 0)
		disconnected(link);
	if (__builtin_expect(link->fresh != NULL, 0))
		link_renew_progress(link);
}

static void on_event(struct weft_watch *watch, uint32_t events)
{
	link_progress(weft_container_of(watch, struct bridge_link, watch));
}

static void on_fresh_event(struct weft_watch *watch, uint32_t events)
{
	link_progress(weft_container_of(watch, struct bridge_link, fresh_watch));
}

bool link_arm(struct bridge_link *link)
{
	if (__builtin_expect(link->fresh != NULL, 0) && link_renew_arm(link))
		return true;
	return link->conn &&
		link_arm_conn(link->worker->loop, link->conn, &link->watch, &link->why);
}

/* ---- posting ---- */

/* Takes the first n operations off the queue; the transport has them, or they failed. */
static void posted(struct bridge_link *link, unsigned n)
{
	uint64_t now_ns = weft_worker_now(link->worker);

	for (unsigned i = 0; i < n; i++) {
		struct bridge_op *op = op_list_pop(&link->queue);

		op->posted_ns = now_ns;
		WEFT_PROBE(post, op, op->rq, op->tp.kind, op->tp.off, op->tp.len);
	}
	weft_count(&link->nr_ops, n);
	weft_count(&link->nr_posts, 1);
	if (link->tick_ms > 1000)
		set_tick(link, true);
}

/* Points the operation to the registration at the connection's transport. */
static void use_memory_of(struct tp_op *op, const struct tp *tp)
{
	while (op->mem && op->mem->tp != tp)
		op->mem = op->mem->twin;
}

static bool is_small(const struct tp_op *op)
{
	return op->len <= (op->kind == TP_HASH ? LINK_SMALL_HASHED : LINK_SMALL_BYTES);
}

static unsigned gather(struct bridge_link *link, struct tp_op **batch)
{
	const unsigned before = link->conn->nr_outstanding;
	unsigned n = 0;

	for (struct bridge_op *op = link->queue.head; op && n < LINK_BATCH; op = op->next) {
		if (before + n >= LINK_FEW && !is_small(&op->tp))
			break;
		use_memory_of(&op->tp, link->conn->tp);
		batch[n++] = &op->tp;
	}
	return n;
}

bool link_pump(struct bridge_link *link)
{
	struct tp_op *batch[LINK_BATCH];
	bool failed = false;

	while (link->state == LINK_READY && link->queue.head && !link->holds) {
		unsigned n = gather(link, batch);
		int r = n > 0 ? tp_post(link->conn, batch, n) : -EAGAIN;
		if (r == -EAGAIN || r == -ENOTCONN)
			break;
		if (r < 0) {
			link->owner->op_done(link, op_list_pop(&link->queue), r);
			failed = true;
		} else {
			posted(link, (unsigned)r);
		}
	}
	return failed;
}

/* ---- liveness ---- */

static void give_up(struct bridge_link *link, const struct bridge_op *op)
{
	static const char *const kinds[TP_NR_KINDS] = {
		[TP_READ] = "a READ",
		[TP_WRITE] = "a WRITE",
		[TP_FLUSH] = "a FLUSH",
		[TP_TRIM] = "a TRIM",
		[TP_ZERO] = "a WRITE_ZEROES",
		[TP_CACHE] = "a CACHE",
		[TP_PROBE] = "a probe",
		[TP_HASH] = "a HASH",
	};

	weft_error_set(&link->why, ETIMEDOUT, "no answer to %s for %u ms", kinds[op->tp.kind],
		link->attachment->config.timeout_ms);
	tp_shutdown(link->conn);
	link_progress(link);
}

static const struct bridge_op *oldest_posted(const struct bridge_link *link)
{
	const struct bridge_op *oldest = link->probe.posted_ns ? &link->probe : NULL;

	for (unsigned i = 0; i < LINK_OPS; i++) {
		const struct bridge_op *op = &link->ops[i];

		if (op->posted_ns && (!oldest || op->posted_ns < oldest->posted_ns))
			oldest = op;
	}
	return oldest;
}

static void send_probe(struct bridge_link *link, uint64_t now_ns, uint64_t boottime_ns)
{
	struct tp_op *probe = &link->probe.tp;

	if (tp_post(link->conn, &probe, 1) == 1) {
		link->probe.posted_ns = now_ns;
		link->probe_sent_ns = boottime_ns;
	}
}

void link_renounce(struct bridge_link *link, const char *why)
{
	if (link->state != LINK_READY)
		return;
	weft_error_set(&link->why, ECANCELED, "%s", why);
	/* With something in flight the end is no goodbye, and the donor keeps the region for us. */
	if (link->probe.posted_ns == 0)
		send_probe(link, weft_worker_now(link->worker), weft_boottime_ns());
	tp_shutdown(link->conn);
	link_progress(link);
}

static void on_tick(struct weft_timer *timer)
{
	struct bridge_link *link = weft_container_of(timer, struct bridge_link, tick);
	const struct bridge_op *oldest;

	if (link->state != LINK_READY)
		return;
	uint64_t now_ns = weft_worker_now(link->worker);
	bool busy = link->conn->nr_outstanding > 0;
	oldest = oldest_posted(link);
	if (oldest && now_ns - oldest->posted_ns > link->attachment->config.timeout_ms * MS_NS) {
		give_up(link, oldest);
		return;
	}
	link->owner->tick(link);
	link_renew(link);
	/*
	 * After silence since the last tick, ask.  With traffic a probe is needed only to renew the
	 * lease.
	 */
	uint64_t boottime_ns = weft_boottime_ns();
	uint64_t renew_ns = link->conn->info.lease_ms / 4 * MS_NS;
	bool renew = renew_ns > 0 &&
		boottime_ns - weft_max(link->probe_sent_ns, link->conn->asked_ns) >= renew_ns;
	if (link->probe.posted_ns == 0 && !link->holds &&
		(renew || now_ns - link->seen_ns >= link->tick_ms * MS_NS / 2))
		send_probe(link, now_ns, boottime_ns);
	set_tick(link, busy || link->probe.posted_ns != 0);
}

/* ---- the end ---- */

static unsigned fail_list(struct bridge_link *link, struct op_list *list, int error,
	bool (*which)(const struct bridge_op *op))
{
	struct op_list ops = *list;
	struct bridge_op *op;
	unsigned n = 0;

	if (!ops.head)
		return 0;
	op_list_init(list);
	while ((op = op_list_pop(&ops)) != NULL) {
		if (which && !which(op)) {
			op_list_push(list, op);
			continue;
		}
		n++;
		link->owner->op_done(link, op, error);
	}
	return n;
}

unsigned link_fail_ops(struct bridge_link *link, int error,
	bool (*which)(const struct bridge_op *op))
{
	unsigned n = fail_list(link, &link->parked, error, which);

	return n + fail_list(link, &link->queue, error, which);
}

/* Takes completions until nothing is outstanding; false: not in ms. */
static bool drain(struct bridge_link *link, unsigned ms)
{
	uint64_t end_ns = weft_now_ns() + ms * MS_NS;
	struct tp_op *done[LINK_BATCH];

	for (;;) {
		int n = tp_progress(link->conn, done, LINK_BATCH);

		for (int i = 0; i < n; i++)
			completed(link, done[i]->user);
		if (link->conn->nr_outstanding == 0)
			return true;
		if (weft_now_ns() > end_ns)
			return false;
		int events = tp_arm(link->conn);
		struct pollfd p = {.fd = tp_event_fd(link->conn), .events = (short)events};
		if (events != 0)
			poll(&p, 1, 10);
	}
}

void link_end(struct bridge_link *link)
{

	if (!link->worker->loop)
		return;
	weft_loop_timer_cancel(link->worker->loop, &link->retry);
	weft_loop_timer_cancel(link->worker->loop, &link->dead);
	weft_loop_timer_cancel(link->worker->loop, &link->tick);
	weft_loop_remove(link->worker->loop, &link->watch);
	link->watch.fd = -1;
	link_renew_drop(link);
	/* A probe in flight would make the goodbye an unclean one. */
	if (link->state == LINK_READY)
		drain(link, LINK_GOODBYE_MS);
	link->state = LINK_IDLE;
	if (link->conn) {
		tp_shutdown(link->conn);
		while (!drain(link, LINK_GOODBYE_MS))
			;
		tp_disconnect(link->conn);
		link->conn = NULL;
	}
	tp_disconnect(link->next);
	link->next = NULL;
	link->owner->fail_all(link, -ESHUTDOWN);
}
