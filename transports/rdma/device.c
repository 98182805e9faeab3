/* SPDX-License-Identifier: MIT */
/*
 * Devices, and the meaning of their errors.  Invariant: every wc status and every event of the
 * connection manager gets its errno here and nowhere else.
 */
#include "transports/rdma/device.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fabric/base/util.h"

enum { MAX_GIDS = 1024 };

int weft_rdma_devices(struct ibv_context ***ret, int *ret_nr, struct weft_error *err)
{
	int nr = 0;

	/*
	 * Mounting a file starts a child.  Before Linux 5.12 the kernel does not copy pinned pages
	 * for a child, so the device would be left with pages that are not ours any more.  Without
	 * devices an error means nothing.
	 */
	ibv_fork_init();
	errno = 0;
	struct ibv_context **list = rdma_get_devices(&nr);

	if (list && nr > 0) {
		*ret = list;
		*ret_nr = nr;
		return 0;
	}
	int code = list ? ENODEV : errno;
	if (list)
		rdma_free_devices(list);
	switch (code) {
	case 0:
	case ENOENT:
	case ENODEV:
	case ENOSYS:
		return weft_error_set(err, ENODEV, "cannot use RDMA: " WEFT_RDMA_NO_DEVICE_TEXT);
	default:
		return weft_error_set(err, code,
			"cannot open the RDMA devices: %s (are the modules rdma_ucm and ib_uverbs "
			"loaded, and may this user open /dev/infiniband/*?)",
			strerror(code));
	}
}

int weft_rdma_wc_errno(enum ibv_wc_status status)
{
	switch (status) {
	case IBV_WC_SUCCESS:
		return 0;
	case IBV_WC_RETRY_EXC_ERR:     /* no answer from the peer */
	case IBV_WC_RNR_RETRY_EXC_ERR: /* nor a buffer for our message */
	case IBV_WC_RESP_TIMEOUT_ERR:
		return -ETIMEDOUT;
	/* the queue pair was ended: the request was not done, for another reason */
	case IBV_WC_WR_FLUSH_ERR:
	case IBV_WC_REM_ACCESS_ERR: /* we check bounds, so the key is dead: access was revoked */
	case IBV_WC_REM_ABORT_ERR:
	case IBV_WC_REM_OP_ERR:
	case IBV_WC_REM_INV_REQ_ERR:
	case IBV_WC_REM_INV_RD_REQ_ERR:
	case IBV_WC_FATAL_ERR: /* the device */
	case IBV_WC_GENERAL_ERR:
	default:
		return -ENOTCONN;
	case IBV_WC_LOC_LEN_ERR: /* our own mistakes */
	case IBV_WC_LOC_QP_OP_ERR:
	case IBV_WC_LOC_PROT_ERR:
	case IBV_WC_LOC_ACCESS_ERR:
	case IBV_WC_MW_BIND_ERR:
	case IBV_WC_BAD_RESP_ERR:
		return -EIO;
	}
}

int weft_rdma_event_errno(const struct rdma_cm_event *event,
	const struct weft_rdma_protocol *protocol, const char *peer,
	struct weft_error *err)
{
	int status = event->status < 0 ? -event->status : event->status;

	switch (event->event) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
	case RDMA_CM_EVENT_CONNECT_REQUEST:
	case RDMA_CM_EVENT_CONNECT_RESPONSE:
	case RDMA_CM_EVENT_ESTABLISHED:
	case RDMA_CM_EVENT_MULTICAST_JOIN:
	case RDMA_CM_EVENT_MULTICAST_ERROR:
	case RDMA_CM_EVENT_TIMEWAIT_EXIT: /* after the end */
		return 0;
	case RDMA_CM_EVENT_ADDR_CHANGE:
		/* The address has moved to another device: this path does not come back. */
		return weft_error_set(err, ENOTCONN,
			"the address of the path to %s moved to another device", peer);
	case RDMA_CM_EVENT_ADDR_ERROR:
	case RDMA_CM_EVENT_ROUTE_ERROR:
		if (status == ENODEV || status == EADDRNOTAVAIL)
			return weft_error_set(err, ENODEV,
				"cannot connect to %s over %s: the way there leads through an "
				"interface without an RDMA device (`rdma link` shows which have "
				"one)",
				peer, protocol->name);
		if (status == ETIMEDOUT || status == EAGAIN)
			return weft_error_set(err, EHOSTUNREACH,
				"cannot connect to %s over %s: no host answers at that address",
				peer, protocol->name);
		return weft_error_set(err, EHOSTUNREACH, "cannot connect to %s over %s: %s", peer,
			protocol->name, status ? strerror(status) : "no route");
	case RDMA_CM_EVENT_UNREACHABLE:
		return weft_error_set(err, status == ETIMEDOUT ? ETIMEDOUT : EHOSTUNREACH,
			"cannot connect to %s over %s: no answer", peer, protocol->name);
	case RDMA_CM_EVENT_REJECTED:
		if (event->status == WEFT_RDMA_REJ_INVALID_SERVICE_ID ||
			event->status == -ECONNREFUSED)
			return weft_error_set(err, ECONNREFUSED,
				"cannot connect to %s over %s: nobody listens there%s", peer,
				protocol->name, protocol->advice);
		return weft_error_set(err, ECONNREFUSED,
			"cannot connect to %s over %s: rejected, reason %d", peer, protocol->name,
			event->status);
	case RDMA_CM_EVENT_CONNECT_ERROR:
		return weft_error_set(err, status ? status : EIO,
			"cannot connect to %s over %s: %s", peer, protocol->name,
			strerror(status ? status : EIO));
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		return weft_error_set(err, ENOTCONN,
			"the RDMA device of the path to %s was removed", peer);
	case RDMA_CM_EVENT_DISCONNECTED:
	default:
		return weft_error_set(err, ENOTCONN, "%s closed the connection", peer);
	}
}

void weft_rdma_set_timeout(struct rdma_cm_id *id)
{
	uint8_t timeout = WEFT_RDMA_ACK_TIMEOUT;

	rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, sizeof(timeout));
}

void weft_rdma_address_text(const struct sockaddr *address, char *buf, size_t len)
{
	char text[INET6_ADDRSTRLEN] = "?";

	if (address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)address;

		inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
		snprintf(buf, len, "[%s]:%u", text, ntohs(in6->sin6_port));
	} else {
		const struct sockaddr_in *in = (const void *)address;

		inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
		snprintf(buf, len, "%s:%u", text, ntohs(in->sin_port));
	}
}

/*
 * The index of our GID in the port's table, or -1.  An address has an entry for RoCE v1 and one for
 * v2: the kernel takes v2.
 */
static int gid_index(struct rdma_cm_id *id)
{
	const union ibv_gid *gid = &id->route.addr.addr.ibaddr.sgid;
	struct ibv_gid_entry *entries = calloc(MAX_GIDS, sizeof(*entries));
	/* One call for the whole table, which has a thousand places. */
	ssize_t nr = entries ? ibv_query_gid_table(id->verbs, entries, MAX_GIDS, 0) : -1;
	int found = -1;

	for (ssize_t i = 0; i < nr; i++) {
		if (entries[i].port_num != id->port_num ||
			memcmp(&entries[i].gid, gid, sizeof(*gid)) != 0)
			continue;
		if (found < 0 || entries[i].gid_type == IBV_GID_TYPE_ROCE_V2)
			found = (int)entries[i].gid_index;
	}
	free(entries);
	return found;
}

void weft_rdma_path_text(struct rdma_cm_id *id, char *buf, size_t len)
{
	char from[64], to[64];

	weft_rdma_address_text(rdma_get_local_addr(id), from, sizeof(from));
	weft_rdma_address_text(rdma_get_peer_addr(id), to, sizeof(to));
	snprintf(buf, len, "%s gid %d %s -> %s", ibv_get_device_name(id->verbs->device),
		gid_index(id), from, to);
}

int weft_rdma_memlock_check(uint64_t bytes, struct weft_error *err)
{
	struct rlimit limit;
	char need[16], have[16];

	if (geteuid() == 0 || getrlimit(RLIMIT_MEMLOCK, &limit) != 0 ||
		limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= bytes)
		return 0;
	return weft_error_set(err, ENOMEM,
		"cannot register %s with the RDMA device: the limit on locked memory is %s (raise "
		"it: `ulimit -l unlimited`, memlock in /etc/security/limits.conf, "
		"LimitMEMLOCK=infinity in a unit)",
		weft_format_size(bytes, need, sizeof(need)),
		weft_format_size(limit.rlim_cur, have, sizeof(have)));
}

int weft_rdma_reg_failed(int code, uint64_t bytes, struct weft_error *err)
{
	char size[16];

	weft_format_size(bytes, size, sizeof(size));
	if (code == ENOMEM)
		return weft_error_set(err, code,
			"cannot register %s with the RDMA device: out of memory, or "
			"the limit on locked memory (`ulimit -l`) is too low for it",
			size);
	if (code == EFAULT)
		return weft_error_set(err, code,
			"cannot register %s with the RDMA device: this kind of "
			"memory cannot be pinned",
			size);
	return weft_error_set(err, code ? code : EIO, "cannot register %s with the RDMA device: %s",
		size, strerror(code ? code : EIO));
}

int weft_rdma_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

void *weft_rdma_pages_new(size_t len)
{
	void *pages;

	len = weft_whole_pages(len);
	return posix_memalign(&pages, weft_page_bytes(), len) == 0 ? memset(pages, 0, len) : NULL;
}

int weft_rdma_end_qp(struct rdma_cm_id *id, bool established)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	if (!id || !id->qp)
		return 0;
	if (established && rdma_disconnect(id) == 0)
		return 0;
	return ibv_modify_qp(id->qp, &attr, IBV_QP_STATE);
}

void weft_rdma_step_failed(const char *peer, const char *how, const char *what,
	struct weft_error *err)
{
	int code = errno ? errno : EIO;

	if (code == ENODEV)
		weft_error_set(err, code,
			"cannot connect to %s %s: the way there leads through an interface without "
			"an RDMA device (`rdma link` shows which have one)",
			peer, how);
	else
		weft_error_set(err, code, "cannot connect to %s %s: %s: %s", peer, how, what,
			strerror(code));
}
