/* SPDX-License-Identifier: MIT */
/*
 * A client's connection on its lane: see client.h.
 *
 * A client that holds buffers of its lane, and neither sends nor receives, is ended once others
 * wait for buffers: a stopped process must not stop its neighbours.
 */
#include "nbd-bridge/front/client.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/probe.h"
#include "fabric/base/util.h"

enum { STALL_MS = 30000 };

static uint16_t export_flags(const struct bridge *bridge)
{
	const struct tp_info *info = bridge_info(bridge);
	const bool managed = bridge_is_managed(bridge);

	return (uint16_t)((info->read_only ? NBD_FLAG_READ_ONLY : 0) |
		(info->can_flush || managed ? NBD_FLAG_SEND_FLUSH : 0) |
		(info->can_fua || info->can_flush || managed ? NBD_FLAG_SEND_FUA : 0) |
		(info->can_trim && !info->read_only ? NBD_FLAG_SEND_TRIM : 0) |
		(info->can_zero && !info->read_only ? NBD_FLAG_SEND_WRITE_ZEROES : 0) |
		(info->can_zero && info->can_fast_zero && !info->read_only ? NBD_FLAG_SEND_FAST_ZERO
									   : 0) |
		(info->can_cache || managed ? NBD_FLAG_SEND_CACHE : 0) |
		/*
		 * This is true for a server with a single lane too, since there is one connection
		 * to it.
		 */
		NBD_FLAG_CAN_MULTI_CONN);
}

void bridge_export_fill(const struct bridge *bridge, struct nbd_export *ret)
{
	const struct tp_info *info = bridge_info(bridge);

	*ret = (struct nbd_export){
		.size_bytes = info->size_bytes,
		.flags = export_flags(bridge),
		.min_block_bytes = info->min_block_bytes,
		.preferred_block_bytes = (uint32_t)weft_max(info->preferred_block_bytes, 4096),
		.max_block_bytes = BRIDGE_MAX_REQUEST,
		.name = bridge_config_of(bridge)->attach.region,
		.description = bridge_config_of(bridge)->attach.name,
	};
}

/* ---- requests ---- */

static struct bridge_client_slot *take_slot(struct bridge_client *client, struct nbd_request *nbd)
{
	struct bridge_client_slot *slot = client->free_slots;

	/* There are as many slots as the engine takes requests. */
	assert(slot);
	client->free_slots = slot->next;
	slot->nbd = nbd;
	slot->rq.buf = NULL;
	slot->rq.mem = NULL;
	slot->rq.lent = NULL;
	nbd->user = slot;
	return slot;
}

int bridge_client_prepare(struct nbd_request *nbd)
{
	struct bridge_client *client = nbd_conn_user(nbd->conn);
	struct tp_mem *mem;
	int r = bridge_lane_buffer_get(client->lane, nbd->len, &client->waiter, &nbd->buf, &mem);

	if (r < 0)
		return r;
	struct bridge_client_slot *slot = take_slot(client, nbd);
	slot->rq.buf = nbd->buf;
	slot->rq.mem = mem;
	client->nr_buffers++;
	return 0;
}

static void request_done(struct bridge_request *rq, int error)
{
	struct bridge_client_slot *slot = weft_container_of(rq, struct bridge_client_slot, rq);
	struct nbd_request *nbd = slot->nbd;
	struct bridge_client *client = nbd_conn_user(nbd->conn);

	slot->submitted = false;
	client->nr_submitted--;
	if (rq->lent) {
		nbd->buf = (void *)(uintptr_t)rq->lent;
		bridge_lane_buffer_put(client->lane, rq->buf);
		client->nr_buffers--;
		rq->buf = NULL;
	}
	if (client->conn)
		bridge_lane_defer(client->lane, &client->deferred);
	nbd_request_complete(nbd, error); /* may free the client */
}

void bridge_client_submit(struct nbd_request *nbd)
{
	static const uint8_t kinds[] = {
		[NBD_CMD_READ] = TP_READ,
		[NBD_CMD_WRITE] = TP_WRITE,
		[NBD_CMD_FLUSH] = TP_FLUSH,
		[NBD_CMD_TRIM] = TP_TRIM,
		[NBD_CMD_CACHE] = TP_CACHE,
		[NBD_CMD_WRITE_ZEROES] = TP_ZERO,
	};
	struct bridge_client *client = nbd_conn_user(nbd->conn);
	bool moves = nbd->type == NBD_CMD_READ || nbd->type == NBD_CMD_WRITE;
	struct bridge_client_slot *slot = moves ? nbd->user : take_slot(client, nbd);
	struct bridge_request *rq = &slot->rq;

	if (nbd->type == NBD_CMD_BLOCK_STATUS) {
		/* Nothing is known about allocation behind a transport. */
		nbd->extents[0] = (struct nbd_extent){.len = nbd->len};
		nbd->nr_extents = 1;
		nbd_request_complete(nbd, 0);
		return;
	}
	rq->kind = kinds[nbd->type];
	rq->flags = 0;
	if (nbd->type == NBD_CMD_WRITE || nbd->type == NBD_CMD_TRIM ||
		nbd->type == NBD_CMD_WRITE_ZEROES)
		rq->flags |= nbd->flags & NBD_CMD_FLAG_FUA ? TP_FUA : 0;
	if (nbd->type == NBD_CMD_WRITE_ZEROES) {
		rq->flags |= nbd->flags & NBD_CMD_FLAG_NO_HOLE ? TP_NO_HOLE : 0;
		rq->flags |= nbd->flags & NBD_CMD_FLAG_FAST_ZERO ? TP_FAST_ZERO : 0;
	}
	rq->off = nbd->off;
	rq->len = nbd->len;
	rq->may_lend = true;
	rq->done = request_done;
	slot->submitted = true;
	client->nr_submitted++;
	bridge_lane_submit(client->lane, rq);
}

void bridge_client_release(struct nbd_request *nbd)
{
	struct bridge_client *client = nbd_conn_user(nbd->conn);
	struct bridge_client_slot *slot = nbd->user;

	WEFT_PROBE(sent, &slot->rq);
	bridge_lane_give_back(client->lane, &slot->rq);
	if (slot->rq.buf) {
		bridge_lane_buffer_put(client->lane, slot->rq.buf);
		client->nr_buffers--;
	}
	slot->rq.buf = NULL;
	slot->next = client->free_slots;
	client->free_slots = slot;
}

/* ---- the connection ---- */

void bridge_client_refuse(struct nbd_request *nbd, int error)
{
	struct bridge_client *client = nbd_conn_user(nbd->conn);

	if (nbd->type != NBD_CMD_READ && nbd->type != NBD_CMD_WRITE)
		take_slot(client, nbd); /* release() gives it back */
	bridge_lane_defer(client->lane, &client->deferred);
	nbd_request_complete(nbd, error);
}

int bridge_client_new(struct bridge_client *client, int fd, const struct nbd_export *export)
{
	/* A reply of 1 MiB goes out in one piece: 5 % on one processor, more across two. */
	const int buffer = 1 << 20;

	for (unsigned i = NBD_CONN_REQUESTS; i-- > 0;) {
		client->slots[i].next = client->free_slots;
		client->free_slots = &client->slots[i];
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	if (!export)
		return nbd_conn_new(fd, client->service, client, &client->conn);
	int r = nbd_conn_new_open(fd, client->service, client, export, &client->conn);
	client->opened = r == 0;
	return r;
}

void bridge_client_end(struct bridge_client *client)
{
	struct nbd_conn *conn = client->conn;
	bool opened = client->opened;

	if (client->ended)
		client->ended(client);
	weft_loop_remove(bridge_lane_loop(client->lane), &client->watch);
	bridge_lane_defer_cancel(client->lane, &client->deferred);
	bridge_lane_waiter_cancel(client->lane, &client->waiter);
	weft_loop_timer_cancel(bridge_lane_loop(client->lane), &client->stall);
	for (unsigned i = 0; i < NBD_CONN_REQUESTS; i++)
		if (client->slots[i].submitted)
			bridge_lane_orphan(client->lane, &client->slots[i].rq);
	client->conn = NULL;
	nbd_conn_free(conn);
	if (!opened)
		client->closed(client);
}

static void set_stall(struct bridge_client *client)
{
	const uint32_t ms = bridge_config_of(client->bridge)->stall_ms;

	client->moved = false;
	weft_loop_timer_set(bridge_lane_loop(client->lane), &client->stall,
		(ms ? ms : STALL_MS) * UINT64_C(1000000));
}

static void on_stall(struct weft_timer *timer)
{
	struct bridge_client *client = weft_container_of(timer, struct bridge_client, stall);

	if (!client->opened)
		bridge_client_end(client);
	else if (client->nr_buffers == 0 || client->nr_submitted > 0)
		return; /* it holds nothing, or waits for us; client_update() sees when that changes
			 */
	else if (!client->moved && bridge_lane_others_wait(client->lane, &client->waiter))
		bridge_client_end(client);
	else
		set_stall(client);
}

static void client_update(struct weft_deferred *deferred)
{
	struct bridge_client *client = weft_container_of(deferred, struct bridge_client, deferred);
	int r = nbd_conn_send(client->conn);

	if ((r < 0 && r != -EAGAIN) ||
		(client->ending && nbd_conn_nr_requests(client->conn) == 0 && r == 0)) {
		bridge_client_end(client);
		return;
	}
	if (client->nr_buffers > 0 && client->nr_submitted == 0 && client->stall.due_ns == 0)
		set_stall(client);
	weft_loop_modify(bridge_lane_loop(client->lane), &client->watch,
		(uint32_t)nbd_conn_events(client->conn));
}

static void on_client(struct weft_watch *watch, uint32_t events)
{
	struct bridge_client *client = weft_container_of(watch, struct bridge_client, watch);
	int r = -EAGAIN;

	client->moved = true;
	if (events & EPOLLIN)
		r = nbd_conn_receive(client->conn, false);
	if (r == 0)
		client->ending = true;
	/* Both directions are shut: nobody waits for an answer any more. */
	if ((r < 0 && r != -EAGAIN) || (r <= 0 && (events & (EPOLLHUP | EPOLLERR)))) {
		bridge_client_end(client);
		return;
	}
	bridge_lane_defer(client->lane, &client->deferred);
}

static void on_buffer(struct bridge_waiter *waiter)
{
	struct bridge_client *client = weft_container_of(waiter, struct bridge_client, waiter);

	if (nbd_conn_resume(client->conn) < 0)
		bridge_client_end(client);
	else
		bridge_lane_defer(client->lane, &client->deferred);
}

void bridge_client_adopt(struct bridge_lane *lane, void *ctx)
{
	struct bridge_client *client = ctx;

	client->lane = lane;
	client->watch.fd = nbd_conn_fd(client->conn);
	client->watch.fn = on_client;
	client->deferred.fn = client_update;
	client->waiter.fn = on_buffer;
	client->stall.fn = on_stall;
	if (weft_loop_add(bridge_lane_loop(lane), &client->watch, EPOLLIN) < 0) {
		bridge_client_end(client);
		return;
	}
	set_stall(client);
	bridge_lane_defer(lane, &client->deferred); /* the greeting */
}

void bridge_client_close(struct nbd_conn *conn, bool clean)
{
	struct bridge_client *client = nbd_conn_user(conn);

	client->closed(client);
}
