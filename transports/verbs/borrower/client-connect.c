/* SPDX-License-Identifier: MIT */
/*
 * The borrower's side of the verbs transport: from a name to a granted connection.
 *
 * Runs on the lane's thread; nothing waits.  Invariant: a connection moves to the next phase only
 * by the event, or the message, that its phase waits for.
 */
#include "transports/verbs/borrower/client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/marking.h"
#include "transports/rdma/device.h"
#include "transports/rdma/lookup.h"

enum {
	DEFAULT_TIMEOUT_MS = 5000,
	MAX_READS = 128, /* outstanding at the device; more wait in its queue */
};

static const char no_memory[] = "cannot connect over RDMA: out of memory";

static uint32_t answer_ms(const struct verbs_conn *conn)
{
	uint32_t ms = conn->answer_ms;

	return ms && ms < conn->timeout_ms ? ms : conn->timeout_ms;
}

/*
 * The time for one step of connecting: where a donor's answers take long, so do those of neighbours
 * and routers.
 */
static int resolve_ms(const struct verbs_conn *conn)
{
	return (int)weft_max(WEFT_RDMA_RESOLVE_MS, conn->answer_ms);
}

int verbs_connect(struct tp *tp, const struct tp_target *target, struct tp_conn **ret,
	struct weft_error *err)
{
	struct verbs_tp *verbs = weft_container_of(tp, struct verbs_tp, base.tp);
	const char *port = target->port ? target->port : VERBS_DEFAULT_PORT;
	int r;

	if (!target->host || target->host[0] == '/')
		return weft_error_set(err, EINVAL,
			"cannot connect over RDMA: it needs a host, not a socket");
	if (target->hello.anonymous)
		return weft_error_set(err, EINVAL,
			"cannot connect over RDMA: it needs an attachment");
	r = target->hello.version0 ? weft_hello_check_version0(&target->hello, target->region, err)
				   : 0;
	if (r < 0)
		return r;
	if ((target->key || target->certificates) && target->hello.version0)
		return weft_error_set(err, EPROTONOSUPPORT,
			"the donor is of a version of weft that knows no keys; upgrade it");
	if (target->certificates && !target->get_pass)
		return weft_error_set(err, EINVAL,
			"cannot connect over RDMA: nobody said where to show the certificates");
	struct verbs_conn *conn = calloc(1, sizeof(*conn));
	if (!conn)
		return weft_error_set(err, ENOMEM, no_memory);
	conn->tp = verbs;
	conn->hello = target->hello;
	conn->keyed = target->key || target->certificates;
	if (target->key)
		conn->key = *target->key;
	conn->answer_ms = target->answer_ms;
	conn->timeout_ms =
		target->connect_timeout_ms ? target->connect_timeout_ms : DEFAULT_TIMEOUT_MS;
	snprintf(conn->peer, sizeof(conn->peer), "%.60s:%.10s", target->host, port);
	conn->epfd = epoll_create1(EPOLL_CLOEXEC);
	conn->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	conn->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	conn->region = strdup(target->region);
	conn->channel = rdma_create_event_channel();
	if (!conn->region || !conn->channel || conn->epfd < 0 || conn->timerfd < 0 ||
		conn->wake_fd < 0) {
		r = weft_error_set(err, errno ? errno : ENOMEM, "cannot connect over RDMA: %s",
			strerror(errno ? errno : ENOMEM));
		goto free_conn;
	}
	r = weft_rdma_nonblocking(conn->channel->fd);
	if (r == 0)
		r = weft_rdma_lookup_start(&verbs->base.lookups, target, port, &conn->lookup);
	if (r == 0)
		r = weft_rdma_watch(conn->epfd, conn->channel->fd);
	if (r == 0)
		r = weft_rdma_watch(conn->epfd, conn->timerfd);
	if (r == 0)
		r = weft_rdma_watch(conn->epfd, conn->wake_fd);
	if (r == 0)
		r = weft_rdma_watch(conn->epfd, weft_rdma_lookup_fd(conn->lookup));
	if (r < 0) {
		weft_error_set(err, -r, "cannot connect over RDMA: %s", strerror(-r));
		goto free_conn;
	}
	conn->conn.state = TP_CONNECTING;
	conn->done_end = &conn->done;
	conn->asking_end = &conn->asking;
	verbs_set_timer(conn, answer_ms(conn));
	*ret = &conn->conn;
	return 0;
free_conn:
	verbs_conn_free(conn);
	return r;
}

static void fail_errno(struct verbs_conn *conn, const char *what)
{
	struct weft_error err;

	weft_rdma_step_failed(conn->peer, "over RDMA", what, &err);
	verbs_fail(conn, err.code, "%s", err.message);
}

static void look_up(struct verbs_conn *conn)
{
	struct sockaddr_storage address;
	struct weft_error why;
	int r = weft_rdma_lookup_result(conn->lookup, &address, &conn->key, &why);

	if (r == -EAGAIN)
		return;
	if (r < 0) {
		verbs_fail(conn, -r, "cannot connect to %s: %s", conn->peer, why.message);
		return;
	}
	epoll_ctl(conn->epfd, EPOLL_CTL_DEL, weft_rdma_lookup_fd(conn->lookup), NULL);
	weft_rdma_lookup_free(conn->lookup);
	conn->lookup = NULL;
	conn->phase = VERBS_PHASE_ADDR;
	if (rdma_create_id(conn->channel, &conn->control, conn, RDMA_PS_TCP) != 0) {
		fail_errno(conn, "rdma_create_id");
		return;
	}
	if (rdma_resolve_addr(conn->control, NULL, (struct sockaddr *)&address, resolve_ms(conn)) !=
		0)
		fail_errno(conn, "rdma_resolve_addr");
}

/* The device is known: makes everything that belongs to it. */
static int use_device(struct verbs_conn *conn, struct weft_error *err)
{
	struct weft_rdma_device *device = &conn->tp->base.local.devices[conn->seat.device];
	int r = verbs_io_init(conn, err);
	if (r < 0)
		return r;
	r = verbs_bufs_init(&conn->bufs, device->pd, VERBS_NR_RECV, VERBS_NR_SEND, err);
	if (r < 0)
		return r;
	r = weft_rdma_cq_init(&conn->cq, device->context,
		conn->sq_size + VERBS_NR_RECV + VERBS_NR_SEND + 8, &conn->comp, err);
	if (r < 0)
		return r;
	r = weft_rdma_watch(conn->epfd, conn->comp->fd);
	if (r < 0)
		return weft_error_set(err, -r, "cannot wait for completions: %s", strerror(-r));
	struct ibv_qp_init_attr attr = {
		.send_cq = conn->cq.ibv,
		.recv_cq = conn->cq.ibv,
		.qp_type = IBV_QPT_RC,
		.cap = {
			.max_send_wr = VERBS_NR_SEND,
			.max_recv_wr = VERBS_NR_RECV,
			.max_send_sge = 1,
			.max_recv_sge = 1,
		},
	};
	if (rdma_create_qp(conn->control, device->pd, &attr) != 0)
		return weft_error_set(err, errno ? errno : EIO, "cannot make a queue pair: %s",
			strerror(errno));
	for (unsigned buf = 0; buf < VERBS_NR_RECV; buf++) {
		r = verbs_bufs_post_recv(&conn->bufs, conn->control->qp, buf,
			verbs_wr_id(VERBS_WR_RECV, buf));
		if (r < 0)
			return weft_error_set(err, -r, "cannot post a buffer: %s", strerror(-r));
	}
	return 0;
}

static int take_data_qp(struct verbs_conn *conn, struct weft_error *err)
{
	struct weft_rdma_device *device = &conn->tp->base.local.devices[conn->seat.device];
	struct ibv_qp_init_attr attr = {
		.send_cq = conn->cq.ibv,
		.recv_cq = conn->cq.ibv,
		.qp_type = IBV_QPT_RC,
		.cap = {
			.max_send_wr = conn->sq_size,
			.max_recv_wr = 1,
			.max_send_sge = 1,
			.max_recv_sge = 1,
			.max_inline_data = 220,
		},
	};

	if (conn->data->verbs != device->context)
		return weft_error_set(err, EHOSTUNREACH, "the way to %s moved to another device",
			conn->peer);
	if (rdma_create_qp(conn->data, device->pd, &attr) != 0) {
		attr.cap.max_inline_data = sizeof(conn->beat);
		if (rdma_create_qp(conn->data, device->pd, &attr) != 0)
			return weft_error_set(err, errno ? errno : EIO,
				"cannot make a queue pair: %s", strerror(errno));
	}
	conn->max_inline = attr.cap.max_inline_data;
	return 0;
}

static int connect_id(struct verbs_conn *conn, struct rdma_cm_id *id, enum verbs_purpose purpose)
{
	struct verbs_private wants = {.session = conn->proof.session, .counter = 1};
	uint8_t private_data[VERBS_PROVED_BYTES];
	struct rdma_conn_param param = {
		.private_data = private_data,
		.private_data_len = VERBS_PRIVATE_BYTES,
		.retry_count = WEFT_RDMA_RETRIES,
		.rnr_retry_count = WEFT_RDMA_RETRIES,
	};
	struct ibv_device_attr attr;

	verbs_pack_private(purpose, conn->token, private_data);
	if (purpose == VERBS_DATA && conn->keyed) {
		if (verbs_proof_request(&conn->proof.keys, conn->token, &wants) < 0) {
			errno = EIO;
			return -1;
		}
		verbs_pack_proved(&wants, private_data);
		param.private_data_len = VERBS_PROVED_BYTES;
	}
	if (purpose == VERBS_DATA) {
		if (ibv_query_device(id->verbs, &attr) != 0)
			return -1;
		param.initiator_depth =
			(uint8_t)weft_min((uint64_t)weft_max((uint64_t)attr.max_qp_init_rd_atom, 1),
				MAX_READS);
	}
	weft_rdma_set_timeout(id);
	return rdma_connect(id, &param);
}

/* Checks how many READs the queue pair may have outstanding: with 0 they would never be sent. */
static int check_data_qp(struct verbs_conn *conn)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;

	if (ibv_query_qp(conn->data->qp, &attr, IBV_QP_MAX_QP_RD_ATOMIC, &init) != 0)
		return 0;
	return attr.max_rd_atomic > 0 ? 0 : -EPROTO;
}

/* The control connection's device is known. */
static void take_device(struct verbs_conn *conn)
{
	struct weft_error err;
	int r = weft_rdma_seat_take(&conn->seat, &conn->tp->base, conn->control->verbs,
		conn->wake_fd);

	weft_debug("%s: its address leads to %s", conn->peer,
		ibv_get_device_name(conn->control->verbs->device));
	if (r == -EAGAIN) {
		conn->phase = VERBS_PHASE_DEVICE;
		return;
	}
	r = use_device(conn, &err);
	if (r < 0) {
		verbs_fail(conn, -r, "%s", err.message);
		return;
	}
	conn->phase = VERBS_PHASE_ROUTE;
	if (rdma_resolve_route(conn->control, resolve_ms(conn)) != 0)
		fail_errno(conn, "rdma_resolve_route");
}

bool verbs_connect_step(struct verbs_conn *conn, const struct rdma_cm_event *event)
{
	bool data = event->id == conn->data;
	struct weft_error err;
	int r = 0;

	switch (event->event) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		if (!data) {
			take_device(conn);
			return true;
		}
		r = take_data_qp(conn, &err);
		if (r < 0) {
			verbs_fail(conn, -r, "%s", err.message);
			return true;
		}
		conn->phase = VERBS_PHASE_DATA_ROUTE;
		if (rdma_resolve_route(event->id, resolve_ms(conn)) != 0)
			fail_errno(conn, "rdma_resolve_route");
		return true;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		conn->phase = data ? VERBS_PHASE_DATA_CONNECT : VERBS_PHASE_CONNECT;
		if (connect_id(conn, event->id, data ? VERBS_DATA : VERBS_CONTROL) != 0)
			fail_errno(conn, "rdma_connect");
		return true;
	case RDMA_CM_EVENT_ESTABLISHED:
		if (data) {
			conn->data_established = true;
			conn->phase = VERBS_PHASE_EPOCH;
			r = check_data_qp(conn);
			if (r == 0)
				r = verbs_post_epoch_read(conn);
		} else {
			conn->control_established = true;
			verbs_set_timer(conn, conn->timeout_ms);
			r = verbs_say_hello(conn);
		}
		if (r < 0)
			verbs_fail(conn, -r, "cannot use the connection to %s: %s", conn->peer,
				strerror(-r));
		return true;
	default:
		return false;
	}
}

/* The event that a phase waits for, for people. */
static const char *const waits_for[] = {
	[VERBS_PHASE_LOOKUP] = "the host's address, or an answer over TLS",
	[VERBS_PHASE_ADDR] = "the way there",
	[VERBS_PHASE_DEVICE] = "our memory's registration",
	[VERBS_PHASE_ROUTE] = "the way there",
	[VERBS_PHASE_CONNECT] = "an answer",
	[VERBS_PHASE_CHALLENGE] = "a proof of the key",
	[VERBS_PHASE_GRANT] = "a grant",
	[VERBS_PHASE_CHUNKS] = "the memory's keys",
	[VERBS_PHASE_DATA_ADDR] = "the way there, again",
	[VERBS_PHASE_DATA_ROUTE] = "the way there, again",
	[VERBS_PHASE_DATA_CONNECT] = "the second connection",
	[VERBS_PHASE_EPOCH] = "the first READ",
	[VERBS_PHASE_READY] = "nothing",
};

void verbs_connect_timed_out(struct verbs_conn *conn)
{
	verbs_fail(conn, ETIMEDOUT, "cannot connect to %s over RDMA: waited %u ms for %s",
		conn->peer, conn->control_established ? conn->timeout_ms : answer_ms(conn),
		waits_for[conn->phase]);
}

static void look_at_adoption(struct verbs_conn *conn)
{
	int r = weft_rdma_seat_look(&conn->seat);

	if (r < 0)
		verbs_fail(conn, -r, "cannot connect to %s over RDMA: %s", conn->peer,
			conn->seat.why.message);
	else if (r > 0)
		take_device(conn);
}

void verbs_connect_look(struct verbs_conn *conn)
{
	if (conn->phase == VERBS_PHASE_LOOKUP)
		look_up(conn);
	if (conn->conn.state == TP_CONNECTING && conn->phase == VERBS_PHASE_DEVICE)
		look_at_adoption(conn);
}

/* Messages. */

static void ask_for_chunks(struct verbs_conn *conn)
{
	struct verbs_msg msg = {.type = VERBS_GET_CHUNKS};

	msg.get_chunks.first = conn->nr_known;
	int r = verbs_send(conn, &msg);
	if (r < 0)
		verbs_fail(conn, -r, "cannot ask %s: %s", conn->peer, strerror(-r));
}

static void on_grant(struct verbs_conn *conn)
{
	const struct verbs_msg *msg = &conn->msg;

	if (msg->grant.generation != conn->hello.generation) {
		verbs_fail(conn, EPROTO, "%s granted another generation than was asked for",
			conn->peer);
		return;
	}
	conn->chunks = calloc(msg->grant.nr_chunks, sizeof(conn->chunks[0]));
	if (!conn->chunks) {
		verbs_fail(conn, ENOMEM, no_memory);
		return;
	}
	conn->size_bytes = msg->grant.size_bytes;
	conn->epoch = msg->grant.epoch;
	conn->generation = msg->grant.generation;
	conn->lease_ms = msg->grant.lease_ms;
	conn->flags = msg->grant.flags;
	conn->chunk_bytes = msg->grant.chunk_bytes;
	conn->nr_chunks = msg->grant.nr_chunks;
	conn->epoch_word = msg->grant.epoch_word;
	conn->beat_word = msg->grant.beat_word;
	memcpy(conn->token, msg->grant.token, sizeof(conn->token));
	memcpy(conn->offers, msg->grant.offers, sizeof(conn->offers));
	conn->restorable = msg->grant.restorable;
	conn->hashes = msg->grant.hashes;
	conn->marks = msg->grant.marks;
	conn->says = msg->grant.has_said;
	conn->said = msg->grant.said;
	memcpy(conn->moving, msg->grant.moving, sizeof(conn->moving));
	if ((conn->flags & VERBS_GRANT_FLUSH_ASKS) && !(conn->flags & VERBS_GRANT_READ_ONLY) &&
		verbs_changes_init(conn) < 0) {
		verbs_fail(conn, ENOMEM, no_memory);
		return;
	}
	conn->phase = VERBS_PHASE_CHUNKS;
	weft_debug("%s: granted, %" PRIu32 " chunks to ask for", conn->peer, conn->nr_chunks);
	ask_for_chunks(conn);
}

/* All chunks are known: makes the data connection, along the path of the first. */
static void connect_data(struct verbs_conn *conn)
{
	struct sockaddr_storage local, peer;

	memcpy(&local, &conn->control->route.addr.src_storage, sizeof(local));
	memcpy(&peer, &conn->control->route.addr.dst_storage, sizeof(peer));
	if (local.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&local)->sin6_port = 0;
	else
		((struct sockaddr_in *)&local)->sin_port = 0;
	conn->phase = VERBS_PHASE_DATA_ADDR;
	if (rdma_create_id(conn->channel, &conn->data, conn, RDMA_PS_TCP) != 0)
		fail_errno(conn, "rdma_create_id");
	else if (rdma_resolve_addr(conn->data, (struct sockaddr *)&local, (struct sockaddr *)&peer,
			 resolve_ms(conn)) != 0)
		fail_errno(conn, "rdma_resolve_addr");
}

static void on_chunks(struct verbs_conn *conn)
{
	const struct verbs_msg *msg = &conn->msg;

	if (msg->chunks.first != conn->nr_known ||
		msg->chunks.nr > conn->nr_chunks - conn->nr_known) {
		verbs_fail(conn, EPROTO, "%s sent keys that were not asked for", conn->peer);
		return;
	}
	memcpy(conn->chunks + conn->nr_known, msg->chunks.chunk,
		msg->chunks.nr * sizeof(conn->chunks[0]));
	conn->nr_known += msg->chunks.nr;
	if (conn->nr_known < conn->nr_chunks)
		ask_for_chunks(conn);
	else
		connect_data(conn);
}

void verbs_on_message(struct verbs_conn *conn)
{
	const struct verbs_msg *msg = &conn->msg;
	bool expected = false;

	switch (msg->type) {
	case VERBS_CHALLENGE:
		expected = conn->phase == VERBS_PHASE_CHALLENGE;
		if (expected)
			verbs_on_challenge(conn);
		break;
	case VERBS_WAIT:
		expected = conn->phase == VERBS_PHASE_GRANT;
		if (expected)
			verbs_set_timer(conn, conn->timeout_ms); /* it works on it */
		break;
	case VERBS_GRANT:
		expected = conn->phase == VERBS_PHASE_GRANT;
		if (expected)
			on_grant(conn);
		break;
	case VERBS_REFUSE:
		expected = conn->phase < VERBS_PHASE_READY;
		if (expected)
			verbs_on_refuse(conn);
		break;
	case VERBS_CHUNKS:
		expected = conn->phase == VERBS_PHASE_CHUNKS;
		if (expected)
			on_chunks(conn);
		break;
	case VERBS_QUIET:
		expected = conn->phase > VERBS_PHASE_GRANT && conn->says;
		conn->says = false;
		break;
	case VERBS_REPLY:
		expected = conn->phase == VERBS_PHASE_READY;
		if (expected)
			verbs_on_reply(conn, msg);
		break;
	default:
		break;
	}
	if (!expected)
		verbs_fail(conn, EPROTO, "%s sent a message that was not expected (%u)", conn->peer,
			msg->type);
}

/* The epoch was read with our own key: access works, and the memory is the one that was granted. */
void verbs_on_epoch(struct verbs_conn *conn)
{
	struct tp_info *info = &conn->conn.info;
	struct ibv_port_attr port;
	uint64_t max_io = VERBS_MAX_IO_BYTES;

	if (verbs_epoch_read(conn) != verbs_epoch_to_wire(conn->epoch)) {
		verbs_fail(conn, ESTALE, "%s granted one epoch and holds another", conn->peer);
		return;
	}
	if (ibv_query_port(conn->data->verbs, conn->data->port_num, &port) == 0 &&
		port.max_msg_sz > 0)
		max_io = weft_min(max_io, port.max_msg_sz);
	/* An operation that begins inside a chunk touches one more than its length says. */
	max_io = weft_min(max_io, (VERBS_MAX_FRAGMENTS - 2) * conn->chunk_bytes);
	info->size_bytes = conn->size_bytes;
	info->has_epoch = true;
	info->epoch = conn->epoch;
	info->generation = conn->generation;
	info->lease_ms = conn->lease_ms;
	info->restorable = conn->restorable;
	info->max_hash_blocks =
		conn->hashes == WEFT_HASH_SCHEME ? VERBS_HASHES_PER_MESSAGE : 0;
	info->can_mark = conn->marks == WEFT_MARKS && info->max_hash_blocks > 0;
	info->version0 = conn->hello.version0;
	info->max_io_bytes = max_io;
	info->min_block_bytes = 1;
	info->preferred_block_bytes = 4096;
	info->depth = conn->depth;
	info->read_only = conn->flags & VERBS_GRANT_READ_ONLY;
	info->can_flush = true;
	info->can_trim = !info->read_only;
	info->can_zero = !info->read_only;
	info->can_multi_conn = true;
	info->flush_each_conn = conn->flags & VERBS_GRANT_FLUSH_ASKS;
	info->one_sided = true;
	snprintf(info->transport, sizeof(info->transport), "rdma");
	snprintf(info->path, sizeof(info->path), "rdma ");
	weft_rdma_path_text(conn->data, info->path + 5, sizeof(info->path) - 5);
	snprintf(info->offers, sizeof(info->offers), "%s", conn->offers);
	memcpy(info->moving, conn->moving, sizeof(info->moving));
	verbs_set_timer(conn, 0);
	conn->phase = VERBS_PHASE_READY;
	conn->conn.state = TP_READY;
}
