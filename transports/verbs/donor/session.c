/* SPDX-License-Identifier: MIT */
/*
 * A session at the donor: handshake, grant, requests, end.  Reads and writes do not come through
 * here.
 *
 * Each session runs on a thread of its own, which may wait for the driver and the donor.
 * Invariant: the grant is released only after verbs_share_leave(), so access is dead before anybody
 * relies on that.  A session's queue pair in the share's protection domain is destroyed before the
 * share is put, and before its report ends: until then its writes may land.  A file region stays
 * staged until after both.  Before anybody else is granted the region, it is noted that the
 * session's WRITEs may have changed unknown ranges.
 */
#include "transports/rdma/device.h"
#include "transports/verbs/donor/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "transports/verbs/messages.h"

enum {
	STACK_BYTES = 512 * 1024,
	/* the time that a borrower has to receive the message when it makes room for others */
	LEAVE_MS = 300,
};
#define ZERO_SLICE_BYTES (4 * WEFT_MIB)

/* Ends a session without a grant, since others came. */
static void make_room(struct verbs_run *run)
{
	struct weft_error err;

	weft_error_set(&err, EBUSY,
		"too many peers without a grant come to this donor over RDMA, and most of them "
		"from here; try again (weft status shows them at the donor)");
	verbs_run_refuse(run, LEAVE_MS, &err);
}

/* Accepts the control connection, in a protection domain that has only its own buffers. */
static int accept_control(struct verbs_run *run)
{
	struct verbs_session *session = run->session;
	struct rdma_cm_id *id = session->control;
	struct rdma_conn_param param = {.rnr_retry_count = WEFT_RDMA_RETRIES};
	struct weft_error err;

	run->pd = ibv_alloc_pd(id->verbs);
	if (!run->pd)
		return -errno;
	run->comp = ibv_create_comp_channel(id->verbs);
	if (run->comp)
		run->cq = ibv_create_cq(id->verbs, VERBS_RUN_NR_RECV + VERBS_RUN_NR_SEND + 4, NULL,
			run->comp, 0);
	if (!run->cq || weft_rdma_nonblocking(run->comp->fd) < 0)
		return -errno;
	int r = verbs_bufs_init(&run->bufs, run->pd, VERBS_RUN_NR_RECV, VERBS_RUN_NR_SEND, &err);
	if (r < 0)
		return r;
	struct ibv_qp_init_attr attr = {
		.send_cq = run->cq,
		.recv_cq = run->cq,
		.qp_type = IBV_QPT_RC,
		.cap = {
			.max_send_wr = VERBS_RUN_NR_SEND,
			.max_recv_wr = VERBS_RUN_NR_RECV,
			.max_send_sge = 1,
			.max_recv_sge = 1,
		},
	};
	if (rdma_create_qp(id, run->pd, &attr) != 0)
		return -errno;
	for (unsigned i = 0; i < VERBS_RUN_NR_RECV && r == 0; i++)
		r = verbs_bufs_post_recv(&run->bufs, id->qp, i, VERBS_RUN_WR_RECV | i);
	weft_rdma_set_timeout(id);
	if (r == 0 && rdma_accept(id, &param) != 0)
		r = -errno;
	return r;
}

static uint8_t max_reads(struct ibv_context *context)
{
	struct ibv_device_attr attr;

	if (ibv_query_device(context, &attr) != 0 || attr.max_qp_rd_atom <= 0)
		return 1;
	return (uint8_t)weft_min((uint64_t)attr.max_qp_rd_atom, 128);
}

/* Accepts a data connection with the right token, into the generation's protection domain. */
static int accept_data(struct verbs_run *run, const struct verbs_params *params)
{
	struct rdma_cm_id *id = run->data;
	struct ibv_qp_init_attr attr = {
		.send_cq = run->cq,
		.recv_cq = run->cq,
		.qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
	};
	struct rdma_conn_param param = {.rnr_retry_count = WEFT_RDMA_RETRIES};

	if (id->verbs != run->session->control->verbs)
		return -EXDEV;
	if (rdma_create_qp(id, verbs_share_pd(run->share), &attr) != 0)
		return -errno;
	param.responder_resources =
		(uint8_t)weft_max(weft_min(params->responder_resources, max_reads(id->verbs)), 1);
	param.initiator_depth = params->initiator_depth;
	weft_rdma_set_timeout(id);
	return rdma_accept(id, &param) != 0 ? -errno : 0;
}

static void look_for_data(struct verbs_run *run)
{
	struct verbs_session *session = run->session;
	struct verbs_params params;

	pthread_mutex_lock(&session->listener->acceptor.lock);
	run->data = session->arrived;
	session->arrived = NULL;
	params = session->arrived_params;
	pthread_mutex_unlock(&session->listener->acceptor.lock);
	if (!run->data)
		return;
	if (accept_data(run, &params) < 0) {
		rdma_reject(run->data, NULL, 0);
		run->state = VERBS_RUN_OVER;
		return;
	}
	run->deadline_ns = 0;
	weft_grant_touch(run->grant, weft_now_ns());
	run->state = VERBS_RUN_GRANTED;
}

/* In slices, so that a fence does not wait long. */
static int zero(struct verbs_run *run, uint64_t off, uint64_t len)
{
	if (!run->grant->writable)
		return -EPERM;
	if (off > run->region->size_bytes || len > run->region->size_bytes - off)
		return -ENOSPC;
	while (len > 0) {
		uint64_t n = weft_min(len, ZERO_SLICE_BYTES);

		if (verbs_run_must_end(run))
			return -ESTALE;
		/* No holes: the pages are registered. */
		int r = weft_region_zero(run->region, off, n, false, false);
		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

/* Notes the ranges that WRITEs changed.  -EPROTO: they are outside the region. */
static int note_changes(struct verbs_run *run)
{
	for (uint32_t i = 0; i < run->msg.request.nr_ranges; i++) {
		const struct verbs_range *range = &run->msg.request.range[i];

		if (!run->grant->writable || range->len == 0 ||
			range->off > run->region->size_bytes ||
			range->len > run->region->size_bytes - range->off)
			return -EPROTO;
		weft_region_changed(run->region, range->off, range->len);
	}
	return 0;
}

static bool is_gone(void *ctx)
{
	return verbs_run_must_end(ctx);
}

/* The hashes go into the REPLY, with which this is called. */
static int hash(struct verbs_run *run)
{
	const struct weft_hashing *hashing = &run->msg.request.hashing;
	const uint64_t off = run->msg.request.off, len = run->msg.request.len;

	if (!weft_hash_knows_scheme(hashing->scheme))
		return -EOPNOTSUPP;
	if (off > run->region->size_bytes || len > run->region->size_bytes - off)
		return -ENOSPC;
	if (!weft_hashing_valid(hashing, len) ||
		weft_hash_nr_blocks(len, hashing->block_bytes) > VERBS_HASHES_PER_MESSAGE)
		return -EINVAL;
	struct weft_donor *donor = run->session->listener->donor;
	uint8_t *ret = run->out.reply.hashes;
	int r = weft_asks_for_mark(hashing) ? weft_donor_mark(donor, run->grant, hashing, ret)
		: weft_asks_for_copies(hashing)
		? weft_donor_copies(donor, run->grant, hashing, ret)
		: weft_donor_hash(donor, run->region, hashing, off, len, is_gone, run, ret);
	if (r == 0)
		run->out.reply.nr_hashes = weft_hash_nr_blocks(len, hashing->block_bytes);
	return r;
}

static void on_request(struct verbs_run *run)
{
	int r = 0;

	if (note_changes(run) < 0) {
		run->state = VERBS_RUN_OVER;
		return;
	}
	run->out = (struct verbs_msg){.type = VERBS_REPLY, .cookie = run->msg.cookie};
	/* The borrower waits for us, and a disk may be slow. */
	weft_grant_touch(run->grant, UINT64_MAX);
	if (run->msg.request.kind == VERBS_ZERO)
		r = zero(run, run->msg.request.off, run->msg.request.len);
	else if (run->msg.request.kind == VERBS_HASH)
		r = hash(run);
	else if (!run->msg.request.more)
		r = weft_region_flush(run->region);
	weft_grant_touch(run->grant, weft_now_ns());
	run->out.reply.error = r;
	verbs_run_send(run);
}

static void on_message(struct verbs_run *run)
{
	uint8_t type = run->msg.type;

	if (type == VERBS_START && run->state == VERBS_RUN_HELLO) {
		weft_stranger_spoke(&run->session->stranger);
		verbs_run_challenge(run);
	} else if (type == VERBS_HELLO && run->state <= VERBS_RUN_PROOF) {
		weft_stranger_spoke(&run->session->stranger);
		verbs_run_grant(run);
	} else if (type == VERBS_GET_CHUNKS && run->state == VERBS_RUN_DATA) {
		verbs_run_tell_chunks(run);
	} else if (type == VERBS_REQUEST && run->state == VERBS_RUN_GRANTED) {
		on_request(run);
	} else {
		run->clean = type == VERBS_BYE && run->state == VERBS_RUN_GRANTED;
		run->told = run->clean && !run->msg.bye.changed;
		run->state = VERBS_RUN_OVER;
	}
}

static void take_message(struct verbs_run *run)
{
	unsigned i = run->received[0];
	int r = verbs_proof_unpack(&run->proof, verbs_bufs_at(&run->bufs, i), run->received_len[0],
		&run->msg);

	run->nr_received--;
	memmove(run->received, run->received + 1, run->nr_received * sizeof(run->received[0]));
	memmove(run->received_len, run->received_len + 1,
		run->nr_received * sizeof(run->received_len[0]));
	if (r == 0)
		r = verbs_bufs_post_recv(&run->bufs, run->session->control->qp, i,
			VERBS_RUN_WR_RECV | i);
	if (r < 0)
		run->state = VERBS_RUN_OVER;
	else
		on_message(run);
}

/* Looks at the word that the borrower writes as a sign of life. */
static void look_at_beat(struct verbs_run *run)
{
	uint64_t beat = atomic_load_explicit((_Atomic uint64_t *)run->beat, memory_order_relaxed);

	if (beat == run->seen_beat)
		return;
	run->seen_beat = beat;
	weft_grant_touch(run->grant, weft_now_ns());
}

static void serve(struct verbs_run *run)
{
	run->deadline_ns = verbs_after_ms(run->session->listener->config.handshake_ms);
	while (!verbs_run_must_end(run)) {
		uint64_t now_ns = weft_now_ns();
		int timeout_ms = -1;

		if (run->state <= VERBS_RUN_PROOF && atomic_load(&run->session->unwanted))
			make_room(run);
		if (run->state == VERBS_RUN_REFUSED && atomic_load(&run->session->unwanted) &&
			verbs_bufs_all_sent(&run->bufs))
			break;
		if (run->nr_received > 0) {
			take_message(run);
			continue;
		}
		if (run->state == VERBS_RUN_DATA)
			look_for_data(run);
		if (run->state == VERBS_RUN_GRANTED) {
			look_at_beat(run);
			verbs_run_tell_quiet(run);
			timeout_ms = (int)run->tick_ms;
		}
		if (run->deadline_ns) {
			if (now_ns >= run->deadline_ns)
				break;
			timeout_ms = (int)((run->deadline_ns - now_ns) / 1000000) + 1;
		}
		verbs_run_sleep(run, timeout_ms);
	}
	/* A goodbye that came before the end still counts. */
	verbs_run_take_completions(run);
	for (unsigned i = 0; i < run->nr_received && run->data; i++)
		if (verbs_proof_unpack(&run->proof, verbs_bufs_at(&run->bufs, run->received[i]),
			    run->received_len[i], &run->msg) == 0 && run->msg.type == VERBS_BYE) {
			run->clean = true;
			run->told = !run->msg.bye.changed;
		}
	if (run->beat_mr)
		look_at_beat(run);
}

/* Takes the session off the list, so that nobody hands it a connection. */
static void unlist(struct verbs_run *run)
{
	struct verbs_session *session = run->session;
	struct verbs_listener *listener = session->listener;
	struct verbs_session **p = &listener->sessions;

	pthread_mutex_lock(&listener->acceptor.lock);
	session->has_token = false;
	while (session->arriving)
		pthread_cond_wait(&listener->acceptor.changed, &listener->acceptor.lock);
	while (*p != session)
		p = &(*p)->next;
	*p = session->next;
	listener->nr_granted -= run->counted;
	pthread_mutex_unlock(&listener->acceptor.lock);
	weft_stranger_leave(&session->stranger);
	/* Nobody else sees the session any more. */
	if (session->arrived) {
		rdma_reject(session->arrived, NULL, 0);
		rdma_destroy_id(session->arrived);
		session->arrived = NULL;
	}
}

static void destroy_qp(struct rdma_cm_id *id)
{
	if (!id || !id->qp)
		return;
	rdma_disconnect(id);
	rdma_destroy_qp(id);
}

static void end(struct verbs_run *run)
{
	struct verbs_session *session = run->session;
	struct verbs_listener *listener = session->listener;
	int r = 0;

	weft_debug("a session ends%s", run->clean ? "" : ", not cleanly");
	verbs_run_tell_kept_out(run);
	unlist(run);
	if (run->share)
		r = verbs_share_leave(run->share, run->data ? run->data->qp : NULL,
			atomic_load(&session->fenced));
	if (r < 0)
		destroy_qp(run->data);
	if (run->grant && run->grant->writable && run->data && !run->told)
		weft_region_changed_somewhere(run->region);
	if (run->grant)
		weft_grant_release(run->grant, run->clean);
	/* From here on only the driver is waited for. */
	destroy_qp(run->data);
	verbs_run_end_report(run);
	destroy_qp(session->control);
	if (run->beat_mr)
		ibv_dereg_mr(run->beat_mr);
	free(run->beat);
	if (run->share)
		verbs_share_put(run->share);
	verbs_run_unstage(run);
	weft_region_put(run->region);
	verbs_bufs_fini(&run->bufs);
	if (run->cq)
		ibv_destroy_cq(run->cq);
	if (run->comp)
		ibv_destroy_comp_channel(run->comp);
	if (run->pd)
		ibv_dealloc_pd(run->pd);
	/* These come last: they keep a device open that was removed meanwhile. */
	if (run->data)
		rdma_destroy_id(run->data);
	rdma_destroy_id(session->control);
	rdma_destroy_event_channel(session->channel);
	close(session->wake_fd);
	verbs_proof_wipe(&run->proof);
	explicit_bzero(&run->msg, sizeof(run->msg));
	bool left = atomic_load(&session->unwanted);
	free(session);
	pthread_mutex_lock(&listener->acceptor.lock);
	listener->acceptor.nr--;
	listener->nr_leaving -= left;
	pthread_cond_broadcast(&listener->acceptor.changed);
	pthread_mutex_unlock(&listener->acceptor.lock);
}

static void name_peer(struct rdma_cm_id *id, struct weft_peer *peer)
{
	const struct sockaddr *address = rdma_get_peer_addr(id);

	peer->transport = "rdma";
	peer->one_sided = true;
	weft_rdma_address_text(address, peer->text, sizeof(peer->text));
	memcpy(&peer->address, address,
		address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					       : sizeof(struct sockaddr_in));
}

static void *session_main(void *ctx)
{
	struct verbs_session *session = ctx;
	struct verbs_run run = {.session = session};

	name_peer(session->control, &run.peer);
	if (accept_control(&run) == 0)
		serve(&run);
	else
		rdma_reject(session->control, NULL, 0);
	end(&run);
	return NULL;
}

/* The budget calls this, on the listener's thread, where strangers enter. */
static void on_make_room(struct weft_stranger *stranger)
{
	struct verbs_session *session = weft_container_of(stranger, struct verbs_session, stranger);
	struct verbs_listener *listener = session->listener;

	pthread_mutex_lock(&listener->acceptor.lock);
	listener->nr_leaving++;
	pthread_mutex_unlock(&listener->acceptor.lock);
	atomic_store(&session->unwanted, true);
	verbs_session_wake(session);
}

int verbs_session_start(struct verbs_listener *listener, struct rdma_cm_id *id)
{
	struct verbs_session *session = calloc(1, sizeof(*session));
	pthread_attr_t attr;
	pthread_t thread;
	int r = -ENOMEM;

	if (!session)
		return r;
	session->listener = listener;
	session->control = id;
	session->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	session->channel = rdma_create_event_channel();
	if (session->wake_fd < 0 || !session->channel)
		goto fail;
	r = weft_rdma_nonblocking(session->channel->fd);
	if (r < 0)
		goto fail;
	if (rdma_migrate_id(id, session->channel) != 0) {
		r = -errno;
		goto fail;
	}
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	/* The session may leave as soon as it has a thread. */
	session->stranger.make_room = on_make_room;
	weft_strangers_enter(&listener->acceptor.strangers, &session->stranger,
		rdma_get_peer_addr(id), 0);
	/* Under the lock, so that the thread finds itself listed, and a stop finds it. */
	pthread_mutex_lock(&listener->acceptor.lock);
	r = listener->acceptor.stopping ? -ESHUTDOWN
			       : -pthread_create(&thread, &attr, session_main, session);
	if (r == 0) {
		session->next = listener->sessions;
		listener->sessions = session;
		listener->acceptor.nr++;
	}
	pthread_mutex_unlock(&listener->acceptor.lock);
	pthread_attr_destroy(&attr);
	if (r == 0)
		return 0;
	weft_stranger_leave(&session->stranger);
	rdma_migrate_id(id, listener->acceptor.events);
fail:
	if (session->channel)
		rdma_destroy_event_channel(session->channel);
	weft_close_fd(session->wake_fd);
	free(session);
	return r;
}
