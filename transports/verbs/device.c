/* SPDX-License-Identifier: MIT */
/*
 * Devices, the meaning of their errors, and message buffers, for both ends of the verbs transport.
 * Invariant: every wc status and every event of the connection manager gets its errno here and
 * nowhere else.
 */
#include "transports/verbs/device.h"

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

int verbs_devices(struct ibv_context ***ret, int *ret_nr, struct weft_error *err)
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
		return weft_error_set(err, ENODEV, "cannot use RDMA: " VERBS_NO_DEVICE_TEXT);
	default:
		return weft_error_set(err, code,
			"cannot open the RDMA devices: %s (are the modules rdma_ucm and ib_uverbs "
			"loaded, and may this user open /dev/infiniband/*?)",
			strerror(code));
	}
}

int verbs_wc_errno(enum ibv_wc_status status)
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

/*
 * Anybody can reject, and proves nothing by it.  So it says no error that would end an attachment:
 * a donor says those in a REFUSE.
 */
static int refused(int code, const char *peer, struct weft_error *err)
{
	switch (code) {
	case ECONNREFUSED:
		return weft_error_set(err, code,
			"cannot connect to %s over RDMA: nobody listens there "
			"(`weft list` shows what a donor offers)",
			peer);
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
	/* InfiniBand spec 12.6.7.2 */
	enum { REJ_INVALID_SERVICE_ID = 8, REJ_CONSUMER_DEFINED = 28 };
	int status = event->status < 0 ? -event->status : event->status, error;

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
				"cannot connect to %s over RDMA: the way there leads through an "
				"interface without an RDMA device (`rdma link` shows which have "
				"one)",
				peer);
		if (status == ETIMEDOUT || status == EAGAIN)
			return weft_error_set(err, EHOSTUNREACH, "cannot connect to %s over RDMA: "
				"no host answers at that address", peer);
		return weft_error_set(err, EHOSTUNREACH, "cannot connect to %s over RDMA: %s", peer,
			status ? strerror(status) : "no route");
	case RDMA_CM_EVENT_UNREACHABLE:
		return weft_error_set(err, status == ETIMEDOUT ? ETIMEDOUT : EHOSTUNREACH,
			"cannot connect to %s over RDMA: no answer", peer);
	case RDMA_CM_EVENT_REJECTED:
		if (event->status == REJ_CONSUMER_DEFINED &&
			verbs_unpack_reject(event->param.conn.private_data,
				event->param.conn.private_data_len, &error) == 0)
			return refused(-error, peer, err);
		if (event->status == REJ_INVALID_SERVICE_ID || event->status == -ECONNREFUSED)
			return refused(ECONNREFUSED, peer, err);
		return weft_error_set(err, ECONNREFUSED,
			"cannot connect to %s over RDMA: rejected, reason %d", peer, event->status);
	case RDMA_CM_EVENT_CONNECT_ERROR:
		return weft_error_set(err, status ? status : EIO,
			"cannot connect to %s over RDMA: %s", peer,
			strerror(status ? status : EIO));
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		return weft_error_set(err, ENOTCONN,
			"the RDMA device of the path to %s was removed", peer);
	case RDMA_CM_EVENT_DISCONNECTED:
	default:
		return weft_error_set(err, ENOTCONN, "%s closed the connection", peer);
	}
}

void verbs_set_timeout(struct rdma_cm_id *id)
{
	uint8_t timeout = VERBS_ACK_TIMEOUT;

	rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, sizeof(timeout));
}

void verbs_address_text(const struct sockaddr *address, char *buf, size_t len)
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

void verbs_path_text(struct rdma_cm_id *id, char *buf, size_t len)
{
	char from[64], to[64];

	verbs_address_text(rdma_get_local_addr(id), from, sizeof(from));
	verbs_address_text(rdma_get_peer_addr(id), to, sizeof(to));
	snprintf(buf, len, "%s gid %d %s -> %s", ibv_get_device_name(id->verbs->device),
		gid_index(id), from, to);
}

int verbs_memlock_check(uint64_t bytes, struct weft_error *err)
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

int verbs_reg_failed(int code, uint64_t bytes, struct weft_error *err)
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

int verbs_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

void *verbs_pages_new(size_t len)
{
	void *pages;

	len = weft_whole_pages(len);
	return posix_memalign(&pages, weft_page_bytes(), len) == 0 ? memset(pages, 0, len) : NULL;
}

int verbs_bufs_init(struct verbs_bufs *bufs, struct ibv_pd *pd, unsigned nr_recv, unsigned nr_send,
	struct weft_error *err)
{
	size_t len = (size_t)(nr_recv + nr_send) * VERBS_MSG_MAX;
	uint8_t *data =
		nr_recv + nr_send <= WEFT_ARRAY_LEN(bufs->busy) ? verbs_pages_new(len) : NULL;

	if (!data)
		return weft_error_set(err, ENOMEM, "cannot take message buffers: out of memory");
	struct ibv_mr *mr = ibv_reg_mr(pd, data, len, IBV_ACCESS_LOCAL_WRITE);
	if (!mr) {
		int code = errno;

		free(data);
		return verbs_reg_failed(code, len, err);
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
