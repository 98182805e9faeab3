/* SPDX-License-Identifier: MIT */
/* Talking to nbd.ko: see nbd-netlink.h. */
#include "nbd-bridge/device/nbd-netlink.h"
#include "fabric/base/log.h"

#include <errno.h>
#include <linux/nbd-netlink.h>
#include <linux/nbd.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <stdbool.h>
#include <string.h>

struct call {
	struct nl_sock *sock;
	struct nl_cb *cb;
	struct nl_msg *msg;
	int family;
	int index; /* of the answer to CONNECT; -1: none came */
	int error; /* -errno from the kernel */
	bool done;
};

static int on_answer(struct nl_msg *msg, void *ctx)
{
	struct call *call = ctx;
	struct nlattr *attrs[NBD_ATTR_MAX + 1];

	if (genlmsg_parse(nlmsg_hdr(msg), 0, attrs, NBD_ATTR_MAX, NULL) == 0 &&
		attrs[NBD_ATTR_INDEX])
		call->index = (int)nla_get_u32(attrs[NBD_ATTR_INDEX]);
	return NL_OK;
}

static int on_ack(struct nl_msg *msg, void *ctx)
{
	((struct call *)ctx)->done = true;
	return NL_STOP;
}

/* libnl's own error codes say less. */
static int on_error(struct sockaddr_nl *who, struct nlmsgerr *error, void *ctx)
{
	struct call *call = ctx;

	call->error = error->error;
	call->done = true;
	return NL_STOP;
}

static void end_call(struct call *call)
{
	nlmsg_free(call->msg);
	nl_cb_put(call->cb);
	nl_socket_free(call->sock);
}

static int begin_call(struct call *call, int command, struct weft_error *err)
{
	*call = (struct call){.index = -1,
		.sock = nl_socket_alloc(),
		.cb = nl_cb_alloc(NL_CB_DEFAULT),
		.msg = nlmsg_alloc_size(16384)};
	if (!call->sock || !call->cb || !call->msg) {
		weft_error_set(err, ENOMEM, "out of memory");
		goto fail;
	}
	int r = genl_connect(call->sock);
	if (r < 0) {
		weft_error_set(err, EIO, "cannot speak netlink: %s", nl_geterror(r));
		goto fail;
	}
	/* Asking for the family loads the module where the kernel may. */
	call->family = genl_ctrl_resolve(call->sock, NBD_GENL_FAMILY_NAME);
	if (call->family < 0) {
		weft_error_set(err, ENOENT,
			"the kernel's nbd driver is not loaded; as root: modprobe nbd (Linux 4.12 "
			"or later)");
		end_call(call);
		return -ENOENT;
	}
	nl_cb_set(call->cb, NL_CB_VALID, NL_CB_CUSTOM, on_answer, call);
	nl_cb_set(call->cb, NL_CB_ACK, NL_CB_CUSTOM, on_ack, call);
	nl_cb_err(call->cb, NL_CB_CUSTOM, on_error, call);
	genlmsg_put(call->msg, NL_AUTO_PORT, NL_AUTO_SEQ, call->family, 0, 0, (uint8_t)command,
		NBD_GENL_VERSION);
	return 0;
fail:
	end_call(call);
	return err && err->code ? -err->code : -EIO;
}

/* Sends the call, waits, and ends it.  The answer's index (0 if there is none), or -errno. */
static int carry_out(struct call *call, struct weft_error *err)
{
	int r = nl_send_auto(call->sock, call->msg);

	while (r >= 0 && !call->done)
		r = nl_recvmsgs(call->sock, call->cb);
	if (call->error < 0)
		r = weft_error_set(err, -call->error, "%s", strerror(-call->error));
	else if (!call->done)
		r = weft_error_set(err, EIO, "%s", nl_geterror(r));
	else
		r = call->index < 0 ? 0 : call->index;
	end_call(call);
	weft_debug("netlink: %s", r < 0 ? (err ? err->message : strerror(-r)) : "done");
	if (r == -EPERM)
		weft_error_set(err, EPERM, "only root (CAP_SYS_ADMIN) may do that");
	return r;
}

static void put_device(struct nl_msg *msg, const struct nbd_netlink_device *device)
{
	if (device->index >= 0)
		nla_put_u32(msg, NBD_ATTR_INDEX, (uint32_t)device->index);
	nla_put_u64(msg, NBD_ATTR_SIZE_BYTES, device->size_bytes);
	nla_put_u64(msg, NBD_ATTR_BLOCK_SIZE_BYTES, device->block_bytes);
	nla_put_u64(msg, NBD_ATTR_SERVER_FLAGS, device->flags);
	nla_put_u64(msg, NBD_ATTR_TIMEOUT, device->timeout_s);
	nla_put_u64(msg, NBD_ATTR_DEAD_CONN_TIMEOUT, device->dead_conn_s);
	nla_put_string(msg, NBD_ATTR_BACKEND_IDENTIFIER, device->backend);
	struct nlattr *sockets = nla_nest_start(msg, NBD_ATTR_SOCKETS);
	for (unsigned i = 0; i < device->nr_fds; i++) {
		struct nlattr *item = nla_nest_start(msg, NBD_SOCK_ITEM);

		nla_put_u32(msg, NBD_SOCK_FD, (uint32_t)device->fds[i]);
		nla_nest_end(msg, item);
	}
	nla_nest_end(msg, sockets);
}

int nbd_netlink_check(struct weft_error *err)
{
	struct call call;
	int r = begin_call(&call, NBD_CMD_STATUS, err);

	if (r == 0)
		end_call(&call);
	return r;
}

static int tell_device(int command, const struct nbd_netlink_device *device, struct weft_error *err)
{
	struct call call;
	int r = begin_call(&call, command, err);

	if (r < 0)
		return r;
	put_device(call.msg, device);
	return carry_out(&call, err);
}

int nbd_netlink_connect(const struct nbd_netlink_device *device, struct weft_error *err)
{
	return tell_device(NBD_CMD_CONNECT, device, err);
}

int nbd_netlink_reconfigure(const struct nbd_netlink_device *device, struct weft_error *err)
{
	return tell_device(NBD_CMD_RECONFIGURE, device, err);
}

int nbd_netlink_disconnect(int index, struct weft_error *err)
{
	struct call call;
	int r = begin_call(&call, NBD_CMD_DISCONNECT, err);

	if (r < 0)
		return r;
	nla_put_u32(call.msg, NBD_ATTR_INDEX, (uint32_t)index);
	return carry_out(&call, err);
}
