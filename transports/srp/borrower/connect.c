/* SPDX-License-Identifier: MIT */
/*
 * From a name to a unit that is ready.
 *
 * Runs on the lane's thread; nothing waits.  Invariant: a channel moves to the next phase only by
 * the event, or the response, that its phase waits for.
 */
#include "transports/srp/borrower/conn.h"

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
#include "transports/rdma/device.h"

enum {
	DEFAULT_TIMEOUT_MS = 5000,
	MAX_READS = 16, /* of the target's, in flight */
};

static const char no_memory[] = "cannot connect over SRP: out of memory";

static uint32_t answer_ms(const struct srp_conn *conn)
{
	uint32_t ms = conn->answer_ms;

	return ms && ms < conn->timeout_ms ? ms : conn->timeout_ms;
}

/* The channel has a reference, and the transport keeps one until it is closed. */
static int take_nexus(struct srp_conn *conn, const struct tp_target *target)
{
	struct srp_nexus_key key = {.initiator = srp_name_initiator(target, conn->tp->random_ext),
		.target_ext = conn->name.target_ext,
		.target_guid = conn->name.target_guid};
	struct srp_tp_nexus *kept = conn->tp->nexuses;

	strcpy(key.place, conn->peer);
	conn->nexus = srp_nexus_get(&key);
	if (!conn->nexus)
		return -ENOMEM;
	while (kept && kept->nexus != conn->nexus)
		kept = kept->next;
	if (kept)
		return srp_nexus_join(conn->nexus, conn->wake_fd);
	kept = calloc(1, sizeof(*kept));
	if (!kept)
		return -ENOMEM;
	kept->nexus = srp_nexus_ref(conn->nexus);
	kept->next = conn->tp->nexuses;
	conn->tp->nexuses = kept;
	return srp_nexus_join(conn->nexus, conn->wake_fd);
}

static int open_files(struct srp_conn *conn)
{
	conn->epfd = epoll_create1(EPOLL_CLOEXEC);
	conn->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	conn->again_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	conn->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	conn->channel = rdma_create_event_channel();
	if (!conn->channel || conn->epfd < 0 || conn->timerfd < 0 || conn->again_fd < 0 ||
		conn->wake_fd < 0)
		return errno ? -errno : -ENOMEM;
	int r = weft_rdma_nonblocking(conn->channel->fd);
	if (r == 0)
		r = weft_rdma_watch(conn->epfd, conn->channel->fd);
	if (r == 0)
		r = weft_rdma_watch(conn->epfd, conn->timerfd);
	if (r == 0)
		r = weft_rdma_watch(conn->epfd, conn->again_fd);
	return r == 0 ? weft_rdma_watch(conn->epfd, conn->wake_fd) : r;
}

static void fail_errno(struct srp_conn *conn, const char *what)
{
	struct weft_error err;

	weft_rdma_step_failed(conn->peer, "over SRP", what, &err);
	srp_fail(conn, err.code, "%s", err.message);
}

static void look_up(struct srp_conn *conn)
{
	struct sockaddr_storage address;
	struct weft_key none;
	struct weft_error why;
	int r = weft_rdma_lookup_result(conn->lookup, &address, &none, &why);

	if (r == -EAGAIN)
		return;
	if (r < 0) {
		srp_fail(conn, -r, "cannot connect to %s: %s", conn->peer, why.message);
		return;
	}
	epoll_ctl(conn->epfd, EPOLL_CTL_DEL, weft_rdma_lookup_fd(conn->lookup), NULL);
	weft_rdma_lookup_free(conn->lookup);
	conn->lookup = NULL;
	conn->phase = SRP_PHASE_ADDR;
	if (rdma_create_id(conn->channel, &conn->id, conn, RDMA_PS_TCP) != 0)
		fail_errno(conn, "rdma_create_id");
	else if (rdma_resolve_addr(conn->id, NULL, (struct sockaddr *)&address,
			 (int)weft_max(WEFT_RDMA_RESOLVE_MS, conn->answer_ms)) != 0)
		fail_errno(conn, "rdma_resolve_addr");
}

/* ---- the device ---- */

static void post_recvs(struct srp_conn *conn)
{
	for (unsigned i = 0; i < conn->nr_recvs; i++) {
		conn->recv_sges[i] = (struct ibv_sge){
			.addr = (uintptr_t)(conn->recvs + i * SRP_RECV_BYTES),
			.length = SRP_RECV_BYTES,
			.lkey = conn->mr->lkey};
		conn->recv_wrs[i] = (struct ibv_recv_wr){.wr_id = srp_wr_id(SRP_WR_RECV, i),
			.next = &conn->recv_wrs[i + 1],
			.sg_list = &conn->recv_sges[i],
			.num_sge = 1};
	}
	conn->nr_fresh_recvs = conn->nr_recvs;
	srp_io_give_back(conn);
}

/* The device is known: makes everything that belongs to it. */
static int use_device(struct srp_conn *conn, struct weft_error *err)
{
	struct weft_rdma_device *device = &conn->tp->base.local.devices[conn->seat.device];
	int r = srp_io_init(conn, err);

	if (r < 0)
		return r;
	r = weft_rdma_cq_init(&conn->cq, device->context, conn->sq_room + conn->nr_recvs + 8,
		&conn->comp, err);
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
			.max_send_wr = conn->sq_room + 1, /* and the last */
			.max_recv_wr = conn->nr_recvs,
			.max_send_sge = 2,
			.max_recv_sge = 1,
		},
	};
	if (rdma_create_qp(conn->id, device->pd, &attr) != 0)
		return weft_error_set(err, errno ? errno : EIO, "cannot make a queue pair: %s",
			strerror(errno));
	post_recvs(conn);
	return 0;
}

static void take_device(struct srp_conn *conn)
{
	struct weft_error err;
	int r = weft_rdma_seat_take(&conn->seat, &conn->tp->base, conn->id->verbs, conn->wake_fd);

	if (r == -EAGAIN) {
		conn->phase = SRP_PHASE_DEVICE;
		return;
	}
	r = use_device(conn, &err);
	if (r < 0) {
		srp_fail(conn, -r, "%s", err.message);
		return;
	}
	conn->phase = SRP_PHASE_ROUTE;
	if (rdma_resolve_route(conn->id, (int)weft_max(WEFT_RDMA_RESOLVE_MS, conn->answer_ms)) !=
		0)
		fail_errno(conn, "rdma_resolve_route");
}

static void look_at_adoption(struct srp_conn *conn)
{
	int r = weft_rdma_seat_look(&conn->seat);

	if (r < 0)
		srp_fail(conn, -r, "cannot connect to %s over SRP: %s", conn->peer,
			conn->seat.why.message);
	else if (r > 0)
		take_device(conn);
}

/* ---- login ---- */

static void log_in(struct srp_conn *conn)
{
	struct srp_login login = {
		.it_iu_bytes = SRP_IMMEDIATE_OFF + SRP_IMMEDIATE_MAX,
		.formats = SRP_FORMAT_DIRECT | SRP_FORMAT_INDIRECT,
		.channels = conn->leads ? SRP_CHANNELS_SINGLE : SRP_CHANNELS_MULTI,
		.immediate = true,
		.immediate_off = SRP_IMMEDIATE_OFF,
		.target_ext = conn->name.target_ext,
		.target_guid = conn->name.target_guid,
	};
	uint8_t private_data[SRP_LOGIN_BYTES];
	struct rdma_conn_param param = {
		.private_data = private_data,
		.private_data_len = sizeof(private_data),
		.initiator_depth = 1,
		.retry_count = WEFT_RDMA_RETRIES,
		.rnr_retry_count = WEFT_RDMA_RETRIES,
	};
	struct ibv_device_attr attr;

	/* The machine's half is what a target's list of initiators may have. */
	srp_pack_port(conn->nexus->key.initiator,
		be64toh((uint64_t)ibv_get_device_guid(conn->id->verbs->device)), conn->initiator);
	memcpy(login.initiator, conn->initiator, sizeof(login.initiator));
	srp_pack_login(&login, private_data);
	if (ibv_query_device(conn->id->verbs, &attr) != 0) {
		fail_errno(conn, "ibv_query_device");
		return;
	}
	param.responder_resources =
		(uint8_t)weft_min(weft_max((uint64_t)attr.max_qp_rd_atom, 1), MAX_READS);
	weft_rdma_set_timeout(conn->id);
	conn->phase = SRP_PHASE_LOGIN;
	if (rdma_connect(conn->id, &param) != 0)
		fail_errno(conn, "rdma_connect");
}

/* The generation is over. */
static void fail_over(struct srp_conn *conn)
{
	struct weft_error why;

	if (srp_nexus_is_over(conn->nexus, conn->generation, &why))
		srp_fail(conn, ENOTCONN, "%s: %s", conn->peer, why.message);
	else
		srp_fail(conn, ECONNABORTED, "another lane has begun anew with %s", conn->peer);
}

static void take_turn(struct srp_conn *conn)
{
	conn->phase = SRP_PHASE_TURN;
	switch (srp_nexus_ask(conn->nexus, conn->generation)) {
	case SRP_TURN_WAIT:
		return;
	case SRP_TURN_OVER:
		fail_over(conn);
		return;
	case SRP_TURN_AGAIN:
		conn->resets = true;
		conn->leads = true;
		break;
	case SRP_TURN_LEAD:
		conn->leads = true;
		break;
	case SRP_TURN_FOLLOW:
		break;
	}
	log_in(conn);
}

static void examine(struct srp_conn *conn)
{
	conn->phase = SRP_PHASE_EXAM;
	srp_exam_begin(&conn->exam, conn->wants_write);
	srp_io_examine(conn);
}

static void on_login_rsp(struct srp_conn *conn, const struct rdma_cm_event *event)
{
	struct srp_login_rsp rsp;

	if (srp_unpack_login_rsp(event->param.conn.private_data,
		    event->param.conn.private_data_len, &rsp) < 0) {
		srp_fail(conn, EPROTO, "%s does not answer as an SRP target does", conn->peer);
		return;
	}
	if (rsp.delta < 2 || rsp.delta > INT16_MAX ||
		rsp.max_it_iu_bytes < SRP_CMD_BYTES + SRP_BUFFER_BYTES ||
		!(rsp.formats & SRP_FORMAT_DIRECT)) {
		srp_fail(conn, EPROTO,
			"%s offers a channel that is of no use: %" PRIu32
			" credits, IUs of %" PRIu32 " bytes, descriptors %04x",
			conn->peer, rsp.delta, rsp.max_it_iu_bytes, rsp.formats);
		return;
	}
	srp_io_begin(conn, &rsp);
	weft_rdma_set_timer(conn->timerfd, conn->timeout_ms * UINT64_C(1000000));
	/* The high half of a generation counts processes, from 1. */
	conn->resets = conn->leads && conn->wants_write &&
		(conn->resets || rsp.result == SRP_CHANNELS_ENDED || conn->generation >> 32 > 1);
	if (!conn->resets) {
		examine(conn);
		return;
	}
	conn->phase = SRP_PHASE_RESET;
	srp_io_reset(conn);
}

static void reset_done(struct srp_conn *conn, const struct srp_rsp *rsp)
{
	if (conn->phase != SRP_PHASE_RESET) {
		srp_fail(conn, EPROTO, "%s answered what was not asked", conn->peer);
		return;
	}
	if (!rsp->has_code || rsp->code != SRP_RSP_GOOD) {
		srp_fail(conn, EOPNOTSUPP,
			"%s does not reset unit %u (response code %u): writes from before the "
			"connection was lost could still land",
			conn->peer, conn->name.number, rsp->code);
		return;
	}
	examine(conn);
}

bool srp_connect_rejected(struct srp_conn *conn, const struct rdma_cm_event *event)
{
	struct srp_login_rej rej;
	uint64_t ext, guid;

	if (event->event != RDMA_CM_EVENT_REJECTED ||
		event->status != WEFT_RDMA_REJ_CONSUMER_DEFINED ||
		srp_unpack_login_rej(event->param.conn.private_data,
			event->param.conn.private_data_len, &rej) < 0)
		return false;
	srp_unpack_port(conn->initiator, &ext, &guid);
	switch (rej.reason) {
	case SRP_REJ_TARGET:
		srp_fail(conn, ENOENT,
			"there is no target port %016" PRIx64 ".%016" PRIx64 " at %s",
			conn->name.target_ext, conn->name.target_guid, conn->peer);
		break;
	case SRP_REJ_TOO_MANY:
	case SRP_REJ_RESOURCES:
		srp_fail(conn, EBUSY,
			"%s takes no%s channel of this initiator: it is not on the target's list, "
			"another has the unit, or there are too many channels (--lanes); the "
			"initiator is %016" PRIx64 ".%016" PRIx64 ", or our address",
			conn->peer, conn->leads ? "" : " further", ext, guid);
		break;
	case SRP_REJ_NO_CHANNELS:
		srp_fail(conn, EOPNOTSUPP, "%s takes one channel alone: use --lanes 1",
			conn->peer);
		break;
	default:
		srp_fail(conn, ECONNREFUSED, "%s rejected the login, reason %05" PRIx32, conn->peer,
			rej.reason);
	}
	return true;
}

bool srp_connect_step(struct srp_conn *conn, const struct rdma_cm_event *event)
{
	switch (event->event) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		take_device(conn);
		return true;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		take_turn(conn);
		return true;
	case RDMA_CM_EVENT_ESTABLISHED:
		conn->established = true;
		on_login_rsp(conn, event);
		return true;
	default:
		return false;
	}
}

/* The event that a phase waits for, for people. */
static const char *const waits_for[] = {
	[SRP_PHASE_LOOKUP] = "the host's address",
	[SRP_PHASE_ADDR] = "the way there",
	[SRP_PHASE_DEVICE] = "our memory's registration",
	[SRP_PHASE_ROUTE] = "the way there",
	[SRP_PHASE_TURN] = "another lane",
	[SRP_PHASE_LOGIN] = "an answer",
	[SRP_PHASE_RESET] = "the unit's reset",
	[SRP_PHASE_EXAM] = "the unit",
	[SRP_PHASE_READY] = "nothing",
};

void srp_connect_timed_out(struct srp_conn *conn)
{
	srp_fail(conn, ETIMEDOUT, "cannot connect to %s over SRP: waited %u ms for %s", conn->peer,
		conn->established ? conn->timeout_ms : answer_ms(conn), waits_for[conn->phase]);
}

void srp_connect_look(struct srp_conn *conn)
{
	if (conn->no_name.code)
		srp_fail(conn, ENOENT, "%s", conn->no_name.message);
	else if (conn->phase == SRP_PHASE_LOOKUP)
		look_up(conn);
	else if (conn->phase == SRP_PHASE_DEVICE)
		look_at_adoption(conn);
	else if (conn->phase == SRP_PHASE_TURN)
		take_turn(conn);
}

/* ---- the unit ---- */

static void become_ready(struct srp_conn *conn)
{
	const struct srp_unit *unit = &conn->exam.unit;
	struct tp_info *info = &conn->conn.info;

	/* A later generation's login may have come before ours: its commands count, not these. */
	if (!srp_nexus_is_current(conn->nexus, conn->generation)) {
		fail_over(conn);
		return;
	}
	conn->unit = *unit;
	info->size_bytes = unit->size_bytes;
	info->identity = unit->identity;
	info->max_io_bytes = (uint64_t)unit->max_transfer * unit->block_bytes;
	info->min_block_bytes = unit->block_bytes;
	info->preferred_block_bytes = (uint32_t)weft_max(unit->physical_bytes, 4096);
	info->depth = conn->depth;
	info->read_only = unit->read_only;
	info->can_flush = true;
	info->can_fua = unit->fua;
	info->can_trim = !unit->read_only && (unit->can_unmap || unit->same_can_unmap);
	info->can_zero = !unit->read_only && unit->can_same;
	info->can_multi_conn = true;
	snprintf(info->transport, sizeof(info->transport), "srp");
	snprintf(info->offers, sizeof(info->offers), "srp");
	snprintf(info->path, sizeof(info->path), "srp ");
	weft_rdma_path_text(conn->id, info->path + 4, sizeof(info->path) - 4);
	size_t len = strlen(info->path);
	snprintf(info->path + len, sizeof(info->path) - len, ", %s", unit->name);
	weft_rdma_set_timer(conn->timerfd, 0);
	conn->phase = SRP_PHASE_READY;
	if (conn->leads)
		srp_nexus_led(conn->nexus, conn->generation, true, conn->greeted);
	conn->leads = false;
	conn->conn.state = TP_READY;
}

static void exam_done(struct srp_conn *conn, const struct srp_judgement *judgement, size_t len)
{
	struct weft_error err;
	struct scsi_cdb cdb;
	uint32_t bytes;

	if (srp_exam_answer(&conn->exam, judgement, conn->scratch, len, &err) < 0)
		srp_fail(conn, err.code, "cannot use unit %u of %s: %s", conn->name.number,
			conn->peer, err.message);
	else if (srp_exam_next(&conn->exam, &cdb, &bytes))
		srp_io_examine(conn);
	else
		become_ready(conn);
}

int srp_connect(struct tp *tp, const struct tp_target *target, struct tp_conn **ret,
	struct weft_error *err)
{
	struct srp_tp *srp = weft_container_of(tp, struct srp_tp, base.tp);
	int r;

	if (!target->host || target->host[0] == '/' || !target->port)
		return weft_error_set(err, EINVAL,
			"cannot connect over SRP: it needs a host and a port");
	if (!target->hello.anonymous)
		return weft_error_set(err, EPROTONOSUPPORT,
			"an SRP target knows nothing of attachments (srp:// takes it as it is)");
	struct srp_conn *conn = calloc(1, sizeof(*conn));
	if (!conn)
		return weft_error_set(err, ENOMEM, no_memory);
	conn->tp = srp;
	srp_name_parse(target->region, &conn->name, &conn->no_name);
	conn->generation = target->hello.generation;
	conn->wants_write = target->hello.mode == WEFT_MODE_WRITE;
	conn->answer_ms = target->answer_ms;
	conn->timeout_ms =
		target->connect_timeout_ms ? target->connect_timeout_ms : DEFAULT_TIMEOUT_MS;
	conn->done_end = &conn->done;
	conn->exam_done = exam_done;
	conn->reset_done = reset_done;
	snprintf(conn->peer, sizeof(conn->peer), strchr(target->host, ':') ? "[%.60s]:%.10s"
									  : "%.60s:%.10s",
		target->host, target->port);
	r = open_files(conn);
	if (r == 0)
		r = take_nexus(conn, target);
	if (r == 0)
		r = weft_rdma_lookup_start(&srp->base.lookups, target, target->port, &conn->lookup);
	if (r == 0)
		r = weft_rdma_watch(conn->epfd, weft_rdma_lookup_fd(conn->lookup));
	if (r < 0) {
		weft_error_set(err, -r, "cannot connect over SRP: %s", strerror(-r));
		srp_conn_free(conn);
		return r;
	}
	conn->conn.state = TP_CONNECTING;
	weft_rdma_set_timer(conn->timerfd, answer_ms(conn) * UINT64_C(1000000));
	*ret = &conn->conn;
	return 0;
}
