/*
 * A session at the donor: handshake, grant, requests, end.  Reads and writes do not come by here.
 *
 * Each runs on a thread of its own, which may wait for the driver and the donor.  Invariant: the grant is released only
 * after verbs_share_leave(): access is dead before anybody is told that it is; and a session's queue pair in the share's
 * protection domain is destroyed before the share is put.  A file region stays staged until after both; that what WRITEs
 * changed may not have been told is noted before anybody else is granted it.
 */
#include "transports/verbs/donor/session.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "transports/verbs/device.h"

enum {
	NR_RECV = VERBS_REQUESTS + 2, /* REQUESTs, and a BYE behind them */
	NR_SEND = VERBS_REQUESTS + 4,
	STACK_BYTES = 512 * 1024,
	LINGER_MS = 1000, /* how long a refused borrower has to read why … */
	LEAVE_MS = 300,   /* … and one that makes room for others to take in the message */
	MAX_TICK_MS = 1000,
	MIN_TICK_MS = 5,
	WR_RECV = 0,
	WR_SEND = 1 << 16,
	WAIT_MS = 250,     /* between two WAITs while a file is loaded … */
	PROGRESS_MS = 5000, /* … and two lines of the log */
};
#define ZERO_SLICE_BYTES (4 * WEFT_MIB)

enum state {
	STATE_HELLO,   /* waits for a hello */
	STATE_DATA,    /* granted, waits for the data connection */
	STATE_GRANTED, /* serves requests */
	STATE_REFUSED, /* waits for the borrower to leave */
	STATE_OVER,
};

/* What only the thread touches. */
struct run {
	struct verbs_session *session;
	enum state state;
	bool counted; /* among those with a grant */
	bool clean;   /* it said goodbye */
	bool told;    /* and that we know of all its WRITEs */
	uint64_t deadline_ns; /* 0: none */
	char peer[64];
	struct ibv_pd *pd; /* of the control connection: holds message buffers only */
	struct ibv_comp_channel *comp;
	struct ibv_cq *cq;
	struct verbs_bufs bufs;
	unsigned received[NR_RECV], nr_received; /* buffers with messages, oldest first */
	uint32_t received_len[NR_RECV];
	struct rdma_cm_id *data;
	struct weft_region *region; /* referenced */
	struct weft_grant *grant;
	bool staged; /* a file's contents, for us */
	uint64_t waited_ns, logged_ns; /* for it: when that was said last */
	struct verbs_share *share;
	uint64_t *beat; /* a page */
	struct ibv_mr *beat_mr;
	uint64_t seen_beat;
	uint32_t tick_ms;
	uint32_t nr_told; /* of the share's chunks, from the first on */
	struct verbs_msg msg, out;
};

static void wake(struct verbs_session *session)
{
	uint64_t one = 1;

	(void)!write(session->wake_fd, &one, sizeof(one));
}

void verbs_session_wake(struct verbs_session *session)
{
	wake(session);
}

/* The donor's, from any thread. */
static void on_fence(void *ctx)
{
	struct verbs_session *session = ctx;

	atomic_store(&session->fenced, true);
	wake(session);
}

static bool must_end(const struct run *run)
{
	return run->state == STATE_OVER || atomic_load(&run->session->fenced) ||
		atomic_load(&run->session->stopped);
}

static uint64_t after_ms(uint64_t ms)
{
	return weft_now_ns() + ms * UINT64_C(1000000);
}

static void take_events(struct run *run)
{
	struct rdma_cm_event *event;

	while (rdma_get_cm_event(run->session->channel, &event) == 0) {
		if (verbs_event_errno(event, run->peer, NULL) < 0)
			run->state = STATE_OVER;
		rdma_ack_cm_event(event);
	}
}

static unsigned take_completions(struct run *run)
{
	struct ibv_wc wc;
	unsigned nr = 0;

	while (ibv_poll_cq(run->cq, 1, &wc) > 0) {
		unsigned i = wc.wr_id & 0xffff;

		nr++;
		if (wc.status != IBV_WC_SUCCESS) {
			run->state = STATE_OVER;
			continue;
		}
		if (wc.wr_id & WR_SEND) {
			verbs_bufs_sent(&run->bufs, i);
		} else {
			run->received[run->nr_received] = i;
			run->received_len[run->nr_received++] = wc.byte_len;
		}
	}
	return nr;
}

/* Sleeps until something happens, at most timeout_ms.  Does not look at what. */
static void sleep_on(struct run *run, int timeout_ms)
{
	struct pollfd fds[] = {
		{.fd = run->session->wake_fd, .events = POLLIN},
		{.fd = run->session->channel->fd, .events = POLLIN},
		{.fd = run->comp->fd, .events = POLLIN},
	};
	struct ibv_cq *cq;
	uint64_t count;
	void *ctx;

	if (ibv_req_notify_cq(run->cq, 0) != 0)
		run->state = STATE_OVER;
	/* What came before it was armed wakes nobody. */
	if (take_completions(run) == 0 && run->nr_received == 0 && !must_end(run))
		poll(fds, WEFT_ARRAY_LEN(fds), timeout_ms);
	(void)!read(run->session->wake_fd, &count, sizeof(count));
	while (ibv_get_cq_event(run->comp, &cq, &ctx) == 0)
		ibv_ack_cq_events(cq, 1);
	take_completions(run);
	take_events(run);
}

static int send_msg(struct run *run)
{
	uint64_t end_ns = after_ms(LINGER_MS);
	int r;

	/* Buffers come back as soon as the peer's side acknowledges. */
	while ((r = verbs_bufs_send(&run->bufs, run->session->control->qp, &run->out, WR_SEND)) == -EAGAIN &&
		!must_end(run) && weft_now_ns() < end_ns)
		sleep_on(run, 10);
	if (r < 0)
		run->state = STATE_OVER;
	return r;
}

static void refuse(struct run *run, uint32_t linger_ms, const struct weft_error *err)
{
	run->out = (struct verbs_msg){.type = VERBS_REFUSE};
	run->out.refuse.error = -err->code;
	run->out.refuse.version0 = run->msg.type == VERBS_HELLO && run->msg.hello.hello.version0;
	snprintf(run->out.refuse.text, sizeof(run->out.refuse.text), "%.*s", VERBS_TEXT_MAX,
		err->message);
	run->state = STATE_REFUSED;
	run->deadline_ns = after_ms(linger_ms);
	send_msg(run);
}

/* Others came, and this one has no grant yet. */
static void make_room(struct run *run)
{
	struct weft_error err;

	weft_error_set(&err, EBUSY, "too many peers without a grant come to this donor over RDMA, and most of them from here; "
		"try again (weft status shows them at the donor)");
	refuse(run, LEAVE_MS, &err);
}

/* It is no stranger any more, even if it was just about to make room. */
static void stay(struct run *run)
{
	struct verbs_listener *listener = run->session->listener;

	if (weft_stranger_belongs(&run->session->stranger) || !atomic_exchange(&run->session->unwanted, false))
		return;
	pthread_mutex_lock(&listener->lock);
	listener->nr_leaving--;
	pthread_mutex_unlock(&listener->lock);
}

/* -EBUSY: there are too many already. */
static int count(struct run *run, bool known, struct weft_error *err)
{
	struct verbs_listener *listener = run->session->listener;

	pthread_mutex_lock(&listener->lock);
	run->counted = listener->nr_granted < listener->config.max_sessions || known;
	listener->nr_granted += run->counted;
	pthread_mutex_unlock(&listener->lock);
	return run->counted ? 0 : weft_error_set(err, EBUSY, "this donor serves %u connections over RDMA, and more only to "
		"attachments that it has already", listener->config.max_sessions);
}

/* The control connection: a protection domain with nothing in it but its own buffers. */
static int accept_control(struct run *run)
{
	struct verbs_session *session = run->session;
	struct rdma_cm_id *id = session->control;
	struct rdma_conn_param param = {.rnr_retry_count = VERBS_RETRIES};
	struct weft_error err;

	run->pd = ibv_alloc_pd(id->verbs);
	if (!run->pd)
		return -errno;
	run->comp = ibv_create_comp_channel(id->verbs);
	if (run->comp)
		run->cq = ibv_create_cq(id->verbs, NR_RECV + NR_SEND + 4, NULL, run->comp, 0);
	if (!run->cq || verbs_nonblocking(run->comp->fd) < 0)
		return -errno;
	int r = verbs_bufs_init(&run->bufs, run->pd, NR_RECV, NR_SEND, &err);
	if (r < 0)
		return r;
	struct ibv_qp_init_attr attr = {
		.send_cq = run->cq,
		.recv_cq = run->cq,
		.qp_type = IBV_QPT_RC,
		.cap = {
			.max_send_wr = NR_SEND,
			.max_recv_wr = NR_RECV,
			.max_send_sge = 1,
			.max_recv_sge = 1,
		},
	};
	if (rdma_create_qp(id, run->pd, &attr) != 0)
		return -errno;
	for (unsigned i = 0; i < NR_RECV && r == 0; i++)
		r = verbs_bufs_post_recv(&run->bufs, id->qp, i, WR_RECV | i);
	verbs_set_timeout(id);
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

/* The data connection, whose token was right: into the generation's protection domain. */
static int accept_data(struct run *run, const struct verbs_params *params)
{
	struct rdma_cm_id *id = run->data;
	struct ibv_qp_init_attr attr = {
		.send_cq = run->cq,
		.recv_cq = run->cq,
		.qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
	};
	struct rdma_conn_param param = {.rnr_retry_count = VERBS_RETRIES};

	if (id->verbs != run->session->control->verbs)
		return -EXDEV;
	if (rdma_create_qp(id, verbs_share_pd(run->share), &attr) != 0)
		return -errno;
	param.responder_resources =
		(uint8_t)weft_max(weft_min(params->responder_resources, max_reads(id->verbs)), 1);
	param.initiator_depth = params->initiator_depth;
	verbs_set_timeout(id);
	return rdma_accept(id, &param) != 0 ? -errno : 0;
}

static void look_for_data(struct run *run)
{
	struct verbs_session *session = run->session;
	struct verbs_params params;

	pthread_mutex_lock(&session->listener->lock);
	run->data = session->arrived;
	session->arrived = NULL;
	params = session->arrived_params;
	pthread_mutex_unlock(&session->listener->lock);
	if (!run->data)
		return;
	if (accept_data(run, &params) < 0) {
		rdma_reject(run->data, NULL, 0);
		run->state = STATE_OVER;
		return;
	}
	run->deadline_ns = 0;
	weft_grant_touch(run->grant, weft_now_ns());
	run->state = STATE_GRANTED;
}

static int wait_for_share(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	struct run *run = ctx;

	take_completions(run);
	take_events(run);
	if (must_end(run))
		return -ECANCELED;
	/* It waits for us: its silence says nothing.  That it is gone is an event, or a message that does not arrive. */
	if (run->grant)
		weft_grant_touch(run->grant, weft_now_ns());
	run->out = (struct verbs_msg){.type = VERBS_WAIT};
	run->out.wait.done_bytes = done_bytes;
	run->out.wait.total_bytes = total_bytes;
	return send_msg(run);
}

static int wait_for_file(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	struct run *run = ctx;
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
		return must_end(run) ? -ECANCELED : 0;
	run->waited_ns = now_ns;
	return wait_for_share(run, done_bytes, total_bytes);
}

/* Everything that a grant needs; 0, or -errno with err. */
static int prepare_grant(struct run *run, struct weft_error *err)
{
	struct verbs_session *session = run->session;
	struct verbs_listener *listener = session->listener;
	const struct weft_hello *hello = &run->msg.hello.hello;
	void *page = NULL;

	if (run->msg.hello.unknown)
		return weft_error_set(err, EPROTONOSUPPORT, "the borrower needs field %u of its hello understood, which this version of "
			"weft does not know; upgrade the donor", run->msg.hello.unknown);
	int r = weft_donor_find(listener->donor, run->msg.hello.region, &run->region, &run->msg.hello.hello.tenure, err);

	if (r < 0)
		return r;
	bool known = weft_donor_knows(listener->donor, run->region, hello);
	/* It belongs here: it does not make room for strangers from now on. */
	if (known)
		stay(run);
	r = count(run, known, err);
	if (r < 0)
		return r;
	/* Its patience starts anew: others may have to stop first. */
	wait_for_share(run, 0, run->region->size_bytes);
	r = weft_donor_grant(listener->donor, run->region, hello, run->peer, "rdma", on_fence, session,
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
	if (posix_memalign(&page, 4096, 4096) != 0)
		return weft_error_set(err, ENOMEM, "cannot grant over RDMA: out of memory");
	memset(page, 0, 4096);
	run->beat = page;
	run->beat_mr = ibv_reg_mr(verbs_share_pd(run->share), page, sizeof(uint64_t),
		IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	return run->beat_mr ? 0 : verbs_reg_failed(errno, 4096, err);
}

/* May take as long as writing all of the file. */
static void unstage(struct run *run)
{
	int r = run->staged ? weft_region_unstage(run->region) : 0;

	run->staged = false;
	/* Nobody who could be told is left. */
	if (r < 0)
		weft_warn("region '%s': what was written over RDMA stays in memory, since its file cannot be written: %s",
			run->region->name, strerror(-r));
}

/*
 * What was granted and cannot be used.  Who attaches anew leaves nothing behind then; who reconnects keeps the region until
 * its lease ends.
 */
static void give_back(struct run *run)
{
	if (run->share) {
		verbs_share_leave(run->share, NULL, atomic_load(&run->session->fenced));
		verbs_share_put(run->share);
		run->share = NULL;
	}
	if (run->grant)
		weft_grant_release(run->grant, (uint32_t)run->msg.hello.hello.generation == 0);
	run->grant = NULL;
	unstage(run);
}

static void on_hello(struct run *run)
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
	if (must_end(run))
		return;
	if (r < 0) {
		give_back(run);
		refuse(run, LINGER_MS, &err);
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
	run->out.grant.beat_word =
		(struct verbs_chunk){.addr = (uintptr_t)run->beat_mr->addr, .rkey = run->beat_mr->rkey};
	memcpy(run->out.grant.token, token, sizeof(token));
	snprintf(run->out.grant.offers, sizeof(run->out.grant.offers), "%s", welcome.offers);
	run->out.grant.restorable = welcome.restorable;
	run->out.grant.version0 = hello->version0;
	run->state = STATE_DATA;
	run->deadline_ns = after_ms(listener->config.handshake_ms);
	pthread_mutex_lock(&listener->lock);
	memcpy(session->token, token, sizeof(token));
	session->has_token = true;
	pthread_mutex_unlock(&listener->lock);
	send_msg(run);
}

static void on_get_chunks(struct run *run)
{
	uint32_t first = run->msg.get_chunks.first, nr = verbs_share_nr_chunks(run->share);

	if (first >= nr) {
		run->state = STATE_OVER;
		return;
	}
	run->out = (struct verbs_msg){.type = VERBS_CHUNKS};
	run->out.chunks.first = first;
	run->out.chunks.nr = (uint32_t)weft_min(nr - first, VERBS_CHUNKS_PER_MESSAGE);
	for (uint32_t i = 0; i < run->out.chunks.nr; i++)
		run->out.chunks.chunk[i] = verbs_share_chunk(run->share, first + i);
	/* Asking again for what was told buys no time. */
	if (first + run->out.chunks.nr > run->nr_told) {
		run->nr_told = first + run->out.chunks.nr;
		run->deadline_ns = after_ms(run->session->listener->config.handshake_ms);
	}
	weft_grant_touch(run->grant, weft_now_ns());
	send_msg(run);
}

/* In slices, so that a fence does not wait long. */
static int zero(struct run *run, uint64_t off, uint64_t len)
{
	if (!run->grant->writable)
		return -EPERM;
	if (off > run->region->size_bytes || len > run->region->size_bytes - off)
		return -ENOSPC;
	while (len > 0) {
		uint64_t n = weft_min(len, ZERO_SLICE_BYTES);

		if (must_end(run))
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

/* What its WRITEs changed.  -EPROTO: that cannot be. */
static int note_changes(struct run *run)
{
	for (uint32_t i = 0; i < run->msg.request.nr_ranges; i++) {
		const struct verbs_range *range = &run->msg.request.range[i];

		if (!run->grant->writable || range->len == 0 || range->off > run->region->size_bytes ||
			range->len > run->region->size_bytes - range->off)
			return -EPROTO;
		weft_region_changed(run->region, range->off, range->len);
	}
	return 0;
}

static void on_request(struct run *run)
{
	int r = 0;

	if (note_changes(run) < 0) {
		run->state = STATE_OVER;
		return;
	}
	/* It waits for us, which may take a disk's time. */
	weft_grant_touch(run->grant, UINT64_MAX);
	if (run->msg.request.kind == VERBS_ZERO)
		r = zero(run, run->msg.request.off, run->msg.request.len);
	else if (!run->msg.request.more)
		r = weft_region_flush(run->region);
	weft_grant_touch(run->grant, weft_now_ns());
	run->out = (struct verbs_msg){.type = VERBS_REPLY, .cookie = run->msg.cookie};
	run->out.reply.error = r;
	send_msg(run);
}

static void on_message(struct run *run)
{
	uint8_t type = run->msg.type;

	if (type == VERBS_HELLO && run->state == STATE_HELLO) {
		weft_stranger_spoke(&run->session->stranger);
		on_hello(run);
	} else if (type == VERBS_GET_CHUNKS && run->state == STATE_DATA) {
		on_get_chunks(run);
	} else if (type == VERBS_REQUEST && run->state == STATE_GRANTED) {
		on_request(run);
	} else {
		run->clean = type == VERBS_BYE && run->state == STATE_GRANTED;
		run->told = run->clean && !run->msg.bye.changed;
		run->state = STATE_OVER;
	}
}

static void take_message(struct run *run)
{
	unsigned i = run->received[0];
	int r = verbs_unpack(verbs_bufs_at(&run->bufs, i), run->received_len[0], &run->msg);

	run->nr_received--;
	memmove(run->received, run->received + 1, run->nr_received * sizeof(run->received[0]));
	memmove(run->received_len, run->received_len + 1, run->nr_received * sizeof(run->received_len[0]));
	if (r == 0)
		r = verbs_bufs_post_recv(&run->bufs, run->session->control->qp, i, WR_RECV | i);
	if (r < 0)
		run->state = STATE_OVER;
	else
		on_message(run);
}

/* A sign of life that the borrower wrote by itself. */
static void look_at_beat(struct run *run)
{
	uint64_t beat = atomic_load_explicit((_Atomic uint64_t *)run->beat, memory_order_relaxed);

	if (beat == run->seen_beat)
		return;
	run->seen_beat = beat;
	weft_grant_touch(run->grant, weft_now_ns());
}

static void serve(struct run *run)
{
	run->deadline_ns = after_ms(run->session->listener->config.handshake_ms);
	while (!must_end(run)) {
		uint64_t now_ns = weft_now_ns();
		int timeout_ms = -1;

		if (run->state == STATE_HELLO && atomic_load(&run->session->unwanted))
			make_room(run);
		if (run->state == STATE_REFUSED && atomic_load(&run->session->unwanted) && verbs_bufs_all_sent(&run->bufs))
			break;
		if (run->nr_received > 0) {
			take_message(run);
			continue;
		}
		if (run->state == STATE_DATA)
			look_for_data(run);
		if (run->state == STATE_GRANTED) {
			look_at_beat(run);
			timeout_ms = (int)run->tick_ms;
		}
		if (run->deadline_ns) {
			if (now_ns >= run->deadline_ns)
				break;
			timeout_ms = (int)((run->deadline_ns - now_ns) / 1000000) + 1;
		}
		sleep_on(run, timeout_ms);
	}
	/* A goodbye that came before the end is one. */
	take_completions(run);
	for (unsigned i = 0; i < run->nr_received && run->data; i++)
		if (verbs_unpack(verbs_bufs_at(&run->bufs, run->received[i]), run->received_len[i],
			    &run->msg) == 0 && run->msg.type == VERBS_BYE) {
			run->clean = true;
			run->told = !run->msg.bye.changed;
		}
	if (run->beat_mr)
		look_at_beat(run);
}

/* Not listed any more: nobody hands anything over. */
static void unlist(struct run *run)
{
	struct verbs_session *session = run->session;
	struct verbs_listener *listener = session->listener;
	struct verbs_session **p = &listener->sessions;

	pthread_mutex_lock(&listener->lock);
	session->has_token = false;
	while (session->arriving)
		pthread_cond_wait(&listener->changed, &listener->lock);
	while (*p != session)
		p = &(*p)->next;
	*p = session->next;
	listener->nr_granted -= run->counted;
	pthread_mutex_unlock(&listener->lock);
	weft_stranger_leave(&session->stranger);
	/* Nobody else sees it any more. */
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

static void end(struct run *run)
{
	struct verbs_session *session = run->session;
	struct verbs_listener *listener = session->listener;
	int r = 0;

	weft_debug("a session ends%s", run->clean ? "" : ", not cleanly");
	unlist(run);
	if (run->share)
		r = verbs_share_leave(run->share, run->data ? run->data->qp : NULL, atomic_load(&session->fenced));
	if (r < 0)
		destroy_qp(run->data);
	if (run->grant && run->grant->writable && run->data && !run->told)
		weft_region_changed_somewhere(run->region);
	if (run->grant)
		weft_grant_release(run->grant, run->clean);
	/* The rest only takes the driver's time. */
	destroy_qp(run->data);
	destroy_qp(session->control);
	if (run->beat_mr)
		ibv_dereg_mr(run->beat_mr);
	free(run->beat);
	if (run->share)
		verbs_share_put(run->share);
	unstage(run);
	weft_region_put(run->region);
	verbs_bufs_fini(&run->bufs);
	if (run->cq)
		ibv_destroy_cq(run->cq);
	if (run->comp)
		ibv_destroy_comp_channel(run->comp);
	if (run->pd)
		ibv_dealloc_pd(run->pd);
	/* Last: they keep a device open that was removed meanwhile. */
	if (run->data)
		rdma_destroy_id(run->data);
	rdma_destroy_id(session->control);
	rdma_destroy_event_channel(session->channel);
	close(session->wake_fd);
	bool left = atomic_load(&session->unwanted);
	free(session);
	pthread_mutex_lock(&listener->lock);
	listener->nr_sessions--;
	listener->nr_leaving -= left;
	pthread_cond_broadcast(&listener->changed);
	pthread_mutex_unlock(&listener->lock);
}

static void *session_main(void *ctx)
{
	struct verbs_session *session = ctx;
	struct run run = {.session = session};

	verbs_address_text(rdma_get_peer_addr(session->control), run.peer, sizeof(run.peer));
	if (accept_control(&run) == 0)
		serve(&run);
	else
		rdma_reject(session->control, NULL, 0);
	end(&run);
	return NULL;
}

/* The budget's; on the listener's thread, where strangers enter. */
static void on_make_room(struct weft_stranger *stranger)
{
	struct verbs_session *session = weft_container_of(stranger, struct verbs_session, stranger);
	struct verbs_listener *listener = session->listener;

	pthread_mutex_lock(&listener->lock);
	listener->nr_leaving++;
	pthread_mutex_unlock(&listener->lock);
	atomic_store(&session->unwanted, true);
	wake(session);
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
	r = verbs_nonblocking(session->channel->fd);
	if (r < 0)
		goto fail;
	if (rdma_migrate_id(id, session->channel) != 0) {
		r = -errno;
		goto fail;
	}
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	/* It may leave as soon as it has a thread. */
	session->stranger.make_room = on_make_room;
	weft_strangers_enter(&listener->strangers, &session->stranger, rdma_get_peer_addr(id), 0);
	/* Under the lock, so that the thread finds itself listed, and a stop finds it. */
	pthread_mutex_lock(&listener->lock);
	r = listener->stopping ? -ESHUTDOWN : -pthread_create(&thread, &attr, session_main, session);
	if (r == 0) {
		session->next = listener->sessions;
		listener->sessions = session;
		listener->nr_sessions++;
	}
	pthread_mutex_unlock(&listener->lock);
	pthread_attr_destroy(&attr);
	if (r == 0)
		return 0;
	weft_stranger_leave(&session->stranger);
	rdma_migrate_id(id, listener->channel);
fail:
	if (session->channel)
		rdma_destroy_event_channel(session->channel);
	if (session->wake_fd >= 0)
		close(session->wake_fd);
	free(session);
	return r;
}
