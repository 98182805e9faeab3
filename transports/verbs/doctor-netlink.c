/* SPDX-License-Identifier: MIT */
/*
 * weft doctor: facts about RDMA devices that the kernel tells only over netlink, as `rdma resource
 * show qp` does.
 *
 * Each port has a queue pair of the kernel's for management messages (GSI), over which connections
 * are made.  If a driver leaves that queue pair in the error state, as soft-RoCE's does when its
 * link goes down under a connection, the port is active and answers nobody.
 */
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <rdma/rdma_netlink.h>
#include <string.h>

#include "transports/verbs/doctor.h"

/* enum ib_qp_type and ib_qp_state, which no header for programs has. */
enum { TYPE_GSI = 1, STATE_ERR = 6 };

struct search {
	const char *device;
	int64_t index; /* -1: not found */
	bool failed;
};

static int on_device(struct nl_msg *msg, void *ctx)
{
	struct nlattr *attrs[RDMA_NLDEV_ATTR_MAX];
	struct search *search = ctx;

	if (nlmsg_parse(nlmsg_hdr(msg), 0, attrs, RDMA_NLDEV_ATTR_MAX - 1, NULL) == 0 &&
		attrs[RDMA_NLDEV_ATTR_DEV_INDEX] && attrs[RDMA_NLDEV_ATTR_DEV_NAME] &&
		strcmp(nla_get_string(attrs[RDMA_NLDEV_ATTR_DEV_NAME]), search->device) == 0)
		search->index = nla_get_u32(attrs[RDMA_NLDEV_ATTR_DEV_INDEX]);
	return NL_OK;
}

static int on_queue_pairs(struct nl_msg *msg, void *ctx)
{
	struct nlattr *attrs[RDMA_NLDEV_ATTR_MAX], *entry;
	struct search *search = ctx;
	int rest;

	if (nlmsg_parse(nlmsg_hdr(msg), 0, attrs, RDMA_NLDEV_ATTR_MAX - 1, NULL) != 0 ||
		!attrs[RDMA_NLDEV_ATTR_RES_QP])
		return NL_OK;
	nla_for_each_nested(entry, attrs[RDMA_NLDEV_ATTR_RES_QP], rest) {
		struct nlattr *qp[RDMA_NLDEV_ATTR_MAX];

		search->failed |= nla_parse_nested(qp, RDMA_NLDEV_ATTR_MAX - 1, entry, NULL) == 0 &&
			qp[RDMA_NLDEV_ATTR_RES_TYPE] && qp[RDMA_NLDEV_ATTR_RES_STATE] &&
			nla_get_u8(qp[RDMA_NLDEV_ATTR_RES_TYPE]) == TYPE_GSI &&
			nla_get_u8(qp[RDMA_NLDEV_ATTR_RES_STATE]) == STATE_ERR;
	}
	return NL_OK;
}

/* Asks for all objects of one kind; index -1: of all devices. */
static void ask(struct nl_sock *sock, int command, int64_t index, nl_recvmsg_msg_cb_t fn,
	struct search *search)
{
	struct nl_msg *msg = nlmsg_alloc_simple(RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, command),
		NLM_F_REQUEST | NLM_F_DUMP);

	if (!msg)
		return;
	nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, fn, search);
	if ((index < 0 || nla_put_u32(msg, RDMA_NLDEV_ATTR_DEV_INDEX, (uint32_t)index) == 0) &&
		nl_send_auto(sock, msg) >= 0)
		nl_recvmsgs_default(
			sock); /* an old kernel does not know the question: then nothing is found */
	nlmsg_free(msg);
}

bool verbs_management_failed(const char *device)
{
	struct search search = {.device = device, .index = -1};
	struct nl_sock *sock = nl_socket_alloc();

	if (!sock)
		return false;
	if (nl_connect(sock, NETLINK_RDMA) == 0) {
		ask(sock, RDMA_NLDEV_CMD_GET, -1, on_device, &search);
		if (search.index >= 0)
			ask(sock, RDMA_NLDEV_CMD_RES_QP_GET, search.index, on_queue_pairs, &search);
	}
	nl_socket_free(sock);
	return search.failed;
}
