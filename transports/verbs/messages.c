/* SPDX-License-Identifier: MIT */
/*
 * Messages of a control connection: their buffers, what a rejection says, and whose ends they are
 * between.
 */
#include "transports/verbs/messages.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "transports/rdma/device.h"

/*
 * Anybody can reject, and proves nothing by it.  So it says no error that would end an attachment:
 * a donor says those in a REFUSE.
 */
static int refused(int code, const char *peer, struct weft_error *err)
{
	switch (code) {
	case EBUSY:
		return weft_error_set(err, code,
			"%s has too many connections that wait for a grant", peer);
	case EPROTONOSUPPORT:
		return weft_error_set(err, code, "%s speaks another version of the protocol", peer);
	case ESHUTDOWN:
		return weft_error_set(err, code, "%s is stopping", peer);
	default:
		return weft_error_set(err,
			code == EACCES || code == EPROTO ? code : ECONNREFUSED,
			"%s refused the connection: %s", peer, strerror(code));
	}
}

int verbs_event_errno(const struct rdma_cm_event *event, const char *peer, struct weft_error *err)
{
	static const struct weft_rdma_protocol protocol = {
		.name = "RDMA", .advice = " (`weft list` shows what a donor offers)"};
	int error;

	if (event->event == RDMA_CM_EVENT_REJECTED &&
		event->status == WEFT_RDMA_REJ_CONSUMER_DEFINED &&
		verbs_unpack_reject(event->param.conn.private_data,
			event->param.conn.private_data_len, &error) == 0)
		return refused(-error, peer, err);
	return weft_rdma_event_errno(event, &protocol, peer, err);
}

/* The port. */
static uint16_t end_of(const struct sockaddr *address, uint8_t ret[16])
{
	if (address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)address;

		memcpy(ret, &in6->sin6_addr, 16);
		return ntohs(in6->sin6_port);
	}
	const struct sockaddr_in *in = (const void *)address;

	memset(ret, 0, 10);
	memset(ret + 10, 0xff, 2);
	memcpy(ret + 12, &in->sin_addr, 4);
	return ntohs(in->sin_port);
}

void verbs_ends_of(struct rdma_cm_id *id, bool donor, struct verbs_ends *ret)
{
	const struct sockaddr *here = rdma_get_local_addr(id), *there = rdma_get_peer_addr(id);

	end_of(donor ? there : here, ret->borrower);
	ret->donor_port = end_of(donor ? here : there, ret->donor);
}

int verbs_bufs_init(struct verbs_bufs *bufs, struct ibv_pd *pd, unsigned nr_recv, unsigned nr_send,
	struct weft_error *err)
{
	size_t len = (size_t)(nr_recv + nr_send) * VERBS_MSG_MAX;
	uint8_t *data =
		nr_recv + nr_send <= WEFT_ARRAY_LEN(bufs->busy) ? weft_rdma_pages_new(len) : NULL;

	if (!data)
		return weft_error_set(err, ENOMEM, "cannot take message buffers: out of memory");
	struct ibv_mr *mr = ibv_reg_mr(pd, data, len, IBV_ACCESS_LOCAL_WRITE);
	if (!mr) {
		int code = errno;

		free(data);
		return weft_rdma_reg_failed(code, len, err);
	}
	*bufs = (struct verbs_bufs){
		.data = data,
		.mr = mr,
		.nr_recv = nr_recv,
		.nr = nr_recv + nr_send,
	};
	return 0;
}

void verbs_bufs_fini(struct verbs_bufs *bufs)
{
	if (bufs->mr)
		ibv_dereg_mr(bufs->mr);
	free(bufs->data);
	*bufs = (struct verbs_bufs){0};
}

int verbs_bufs_post_recv(struct verbs_bufs *bufs, struct ibv_qp *qp, unsigned i, uint64_t wr_id)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)verbs_bufs_at(bufs, i),
		.length = VERBS_MSG_MAX,
		.lkey = bufs->mr->lkey,
	};
	struct ibv_recv_wr wr = {.wr_id = wr_id, .sg_list = &sge, .num_sge = 1}, *bad;

	return -ibv_post_recv(qp, &wr, &bad);
}

int verbs_bufs_send(struct verbs_bufs *bufs, struct ibv_qp *qp, const struct verbs_msg *msg,
	struct verbs_proof *proof, uint64_t wr_base)
{
	unsigned i = bufs->nr_recv;

	while (i < bufs->nr && bufs->busy[i])
		i++;
	if (i == bufs->nr)
		return -EAGAIN;
	uint8_t *buf = verbs_bufs_at(bufs, i);
	int r = verbs_proof_mark(proof, buf, verbs_pack(msg, buf));
	if (r < 0)
		return r;
	struct ibv_sge sge = {
		.addr = (uintptr_t)buf,
		.length = (uint32_t)r,
		.lkey = bufs->mr->lkey,
	};
	struct ibv_send_wr wr = {
		.wr_id = wr_base + i,
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_SEND,
		.send_flags = IBV_SEND_SIGNALED,
	}, *bad;
	r = ibv_post_send(qp, &wr, &bad);
	if (r != 0)
		return -r;
	bufs->busy[i] = true;
	return 0;
}

void verbs_bufs_sent(struct verbs_bufs *bufs, unsigned i)
{
	if (i >= bufs->nr_recv && i < bufs->nr)
		bufs->busy[i] = false;
}

bool verbs_bufs_all_sent(const struct verbs_bufs *bufs)
{
	for (unsigned i = bufs->nr_recv; i < bufs->nr; i++)
		if (bufs->busy[i])
			return false;
	return true;
}
