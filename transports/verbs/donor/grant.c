/* SPDX-License-Identifier: MIT */
/*
 * Answers a hello: with a grant and all that belongs to it, or with a refusal.
 *
 * Threads: the session's, which may wait for the driver and the donor.  Invariant: a file region is
 * staged from before its share is made until after the share is put.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "transports/rdma/device.h"
#include "transports/verbs/donor/run.h"

enum {
	MAX_TICK_MS = 1000,
	MIN_TICK_MS = 5,
	WAIT_MS = 250,     /* between two WAITs while a file is loaded … */
	PROGRESS_MS = 5000, /* … and two lines of the log */
};

/* The donor calls this, from any thread. */
static void on_fence(void *ctx)
{
	struct verbs_session *session = ctx;

	atomic_store(&session->fenced, true);
	verbs_session_wake(session);
}

/* The session is no stranger any more, even if it was just about to make room. */
static void stay(struct verbs_run *run)
{
	struct verbs_listener *listener = run->session->listener;

	if (weft_stranger_belongs(&run->session->stranger) ||
		!atomic_exchange(&run->session->unwanted, false))
		return;
	pthread_mutex_lock(&listener->acceptor.lock);
	listener->nr_leaving--;
	pthread_mutex_unlock(&listener->acceptor.lock);
}

/* -EBUSY: there are too many already. */
static int count(struct verbs_run *run, bool known, struct weft_error *err)
{
	struct verbs_listener *listener = run->session->listener;

	pthread_mutex_lock(&listener->acceptor.lock);
	run->counted = listener->nr_granted < listener->config.max_sessions || known;
	listener->nr_granted += run->counted;
	pthread_mutex_unlock(&listener->acceptor.lock);
	return run->counted
		? 0
		: weft_error_set(err, EBUSY,
			  "this donor serves %u connections over RDMA, and more only to "
			  "attachments that it has already",
			  listener->config.max_sessions);
}

static int wait_for_share(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	struct verbs_run *run = ctx;

	verbs_run_take_completions(run);
	verbs_run_take_events(run);
	if (verbs_run_must_end(run))
		return -ECANCELED;
	/*
	 * The borrower waits for us, so its silence says nothing.  An event, or a message that does
	 * not arrive, shows that it is gone.
	 */
	if (run->grant)
		weft_grant_touch(run->grant, weft_now_ns());
	run->out = (struct verbs_msg){.type = VERBS_WAIT};
	run->out.wait.done_bytes = done_bytes;
	run->out.wait.total_bytes = total_bytes;
	return verbs_run_send(run);
}

static int wait_for_file(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	struct verbs_run *run = ctx;
	uint64_t now_ns = weft_now_ns();
	char done[32], total[32];

	if (run->logged_ns == 0)
		run->logged_ns = now_ns;
	if (now_ns - run->logged_ns >= PROGRESS_MS * UINT64_C(1000000)) {
		weft_info("region '%s': %s of %s loaded into memory for RDMA", run->region->name,
			weft_format_size(done_bytes, done, sizeof(done)),
			weft_format_size(total_bytes, total, sizeof(total)));
		run->logged_ns = now_ns;
	}
	if (now_ns - run->waited_ns < WAIT_MS * UINT64_C(1000000))
		return verbs_run_must_end(run) ? -ECANCELED : 0;
	run->waited_ns = now_ns;
	return wait_for_share(run, done_bytes, total_bytes);
}

/* Where a writer says what it writes while the region moves.  0, or -errno with err. */
static int begin_report(struct verbs_run *run, struct weft_error *err)
{
	const uint64_t nr = weft_region_nr_chunks(run->region);

	/* A move that begins from now on ends this session first. */
	if (!run->msg.hello.reports || !run->grant->writable ||
		!weft_region_is_tracked(run->region))
		return 0;
	uint64_t *said = weft_rdma_pages_new(nr);
	if (!said)
		return weft_error_set(err, ENOMEM, "cannot grant over RDMA: out of memory");
	run->said_mr = ibv_reg_mr(verbs_share_pd(run->share), said, nr,
		IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	if (!run->said_mr) {
		int code = errno;

		free(said);
		return weft_rdma_reg_failed(code, nr, err);
	}
	run->report.said = (_Atomic uint64_t *)said;
	weft_region_begin_report(run->region, &run->report);
	return 0;
}

void verbs_run_end_report(struct verbs_run *run)
{
	if (!run->said_mr)
		return;
	weft_region_end_report(run->region, &run->report);
	ibv_dereg_mr(run->said_mr);
	free((void *)run->report.said);
	run->said_mr = NULL;
}

void verbs_run_tell_quiet(struct verbs_run *run)
{
	if (!run->said_mr || run->quiet || weft_region_is_tracked(run->region))
		return;
	run->quiet = true;
	run->out = (struct verbs_msg){.type = VERBS_QUIET};
	verbs_run_send(run);
}

/* Prepares everything that a grant needs; 0, or -errno with err. */
static int prepare_grant(struct verbs_run *run, struct weft_error *err)
{
	struct verbs_session *session = run->session;
	struct verbs_listener *listener = session->listener;
	const struct weft_hello *hello = &run->msg.hello.hello;

	if (verbs_run_know(run) < 0)
		return weft_error_set(err, EPROTO, "the attachment's id is not under the seal");
	if (run->msg.hello.unknown)
		return weft_error_set(err, EPROTONOSUPPORT,
			"the borrower needs field %u of its hello understood, which this version "
			"of weft does not know; upgrade the donor",
			run->msg.hello.unknown);
	run->peer.reports = run->msg.hello.reports;
	int r = weft_donor_find(listener->donor, &run->peer, run->msg.hello.region,
		&run->region, &run->msg.hello.hello.tenure, err);

	if (r < 0)
		return r;
	bool known = weft_donor_knows(listener->donor, &run->peer, run->region, hello);
	/* It belongs here: it does not make room for strangers from now on. */
	if (known)
		stay(run);
	r = count(run, known, err);
	if (r < 0)
		return r;
	/* The borrower's time-out starts anew: others may have to stop first. */
	wait_for_share(run, 0, run->region->size_bytes);
	r = weft_donor_grant(listener->donor, run->region, hello, &run->peer, on_fence, session,
		 &run->grant, err);
	if (r < 0)
		return r;
	stay(run);
	r = weft_region_stage(run->region, run->grant->writable, wait_for_file, run, err);
	if (r < 0)
		return r;
	run->staged = true;
	r = verbs_share_join(&listener->shares, session->control->verbs, run->region, hello,
		run->grant->writable, wait_for_share, run, &run->share, err);
	if (r < 0)
		return r;
	run->beat = weft_rdma_pages_new(sizeof(*run->beat));
	if (!run->beat)
		return weft_error_set(err, ENOMEM, "cannot grant over RDMA: out of memory");
	run->beat_mr = ibv_reg_mr(verbs_share_pd(run->share), run->beat, sizeof(*run->beat),
		IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	return run->beat_mr ? begin_report(run, err)
			    : weft_rdma_reg_failed(errno, weft_page_bytes(), err);
}

void verbs_run_unstage(struct verbs_run *run)
{
	int r = run->staged ? weft_region_unstage(run->region) : 0;

	run->staged = false;
	/* There is nobody left to tell. */
	if (r < 0)
		weft_warn("region '%s': what was written over RDMA stays in memory, since its file "
			  "cannot be written: %s",
			run->region->name, strerror(-r));
}

/*
 * Gives back a grant that cannot be used.  A new attachment leaves nothing behind; one that
 * reconnects keeps the region until its lease ends.
 */
static void give_back(struct verbs_run *run)
{
	if (run->share) {
		verbs_share_leave(run->share, NULL, atomic_load(&run->session->fenced));
		verbs_share_put(run->share);
		run->share = NULL;
	}
	if (run->grant)
		weft_grant_release(run->grant, (uint32_t)run->msg.hello.hello.generation == 0);
	run->grant = NULL;
	verbs_run_unstage(run);
}

void verbs_run_grant(struct verbs_run *run)
{
	struct verbs_session *session = run->session;
	struct verbs_listener *listener = session->listener;
	struct weft_error err = {0};
	struct weft_welcome welcome;
	const struct weft_hello *hello = &run->msg.hello.hello;
	uint8_t token[VERBS_TOKEN_BYTES];
	int r = prepare_grant(run, &err);

	weft_debug("a hello for region '%.*s': %s", (int)sizeof(run->msg.hello.region),
		run->msg.hello.region, r < 0 ? err.message : "granted");
	if (verbs_run_must_end(run))
		return;
	if (r < 0) {
		give_back(run);
		verbs_run_refuse(run, VERBS_RUN_LINGER_MS, &err);
		return;
	}
	weft_donor_welcome(listener->donor, run->region, &welcome);
	weft_random(token, sizeof(token));
	run->tick_ms = welcome.lease_ms ? welcome.lease_ms / 8 : MAX_TICK_MS;
	run->tick_ms = (uint32_t)weft_max(weft_min(run->tick_ms, MAX_TICK_MS), MIN_TICK_MS);
	run->out = (struct verbs_msg){.type = VERBS_GRANT};
	run->out.grant.size_bytes = run->region->size_bytes;
	run->out.grant.epoch = run->region->epoch;
	run->out.grant.generation = hello->generation;
	run->out.grant.lease_ms = welcome.lease_ms;
	run->out.grant.flags = run->grant->writable ? 0 : VERBS_GRANT_READ_ONLY;
	if (run->region->backing == WEFT_BACKING_FILE)
		run->out.grant.flags |= VERBS_GRANT_FLUSH_ASKS;
	run->out.grant.chunk_bytes = verbs_share_chunk_bytes(run->share);
	run->out.grant.nr_chunks = verbs_share_nr_chunks(run->share);
	run->out.grant.epoch_word = verbs_share_epoch_word(run->share);
	run->out.grant.beat_word = (struct verbs_chunk){.addr = (uintptr_t)run->beat_mr->addr,
		.rkey = run->beat_mr->rkey};
	memcpy(run->out.grant.token, token, sizeof(token));
	snprintf(run->out.grant.offers, sizeof(run->out.grant.offers), "%s", welcome.offers);
	run->out.grant.restorable = welcome.restorable;
	run->out.grant.hashes = welcome.hashes;
	run->out.grant.marks = welcome.marks;
	run->out.grant.has_said = run->said_mr != NULL;
	if (run->said_mr)
		run->out.grant.said = (struct verbs_chunk){.addr = (uintptr_t)run->said_mr->addr,
			.rkey = run->said_mr->rkey};
	strcpy(run->out.grant.moving, welcome.moving);
	run->out.grant.version0 = hello->version0;
	run->state = VERBS_RUN_DATA;
	run->deadline_ns = verbs_after_ms(listener->config.handshake_ms);
	pthread_mutex_lock(&listener->acceptor.lock);
	memcpy(session->token, token, sizeof(token));
	session->keys = run->proof.on ? &run->proof.keys : NULL;
	session->number = run->proof.session;
	session->has_token = true;
	pthread_mutex_unlock(&listener->acceptor.lock);
	verbs_run_send(run);
}

void verbs_run_tell_chunks(struct verbs_run *run)
{
	uint32_t first = run->msg.get_chunks.first, nr = verbs_share_nr_chunks(run->share);

	if (first >= nr) {
		run->state = VERBS_RUN_OVER;
		return;
	}
	run->out = (struct verbs_msg){.type = VERBS_CHUNKS};
	run->out.chunks.first = first;
	run->out.chunks.nr = (uint32_t)weft_min(nr - first, VERBS_CHUNKS_PER_MESSAGE);
	for (uint32_t i = 0; i < run->out.chunks.nr; i++)
		run->out.chunks.chunk[i] = verbs_share_chunk(run->share, first + i);
	/* Asking again for chunks that were told does not extend the deadline. */
	if (first + run->out.chunks.nr > run->nr_told) {
		run->nr_told = first + run->out.chunks.nr;
		run->deadline_ns = verbs_after_ms(run->session->listener->config.handshake_ms);
	}
	weft_grant_touch(run->grant, weft_now_ns());
	verbs_run_send(run);
}
