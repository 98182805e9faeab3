/* SPDX-License-Identifier: MIT */
/* UDP sockets for QUIC; see socket.h. */
#include "transports/quic/socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/map.h"
#include "fabric/base/util.h"

enum { IPV4_UDP_BYTES = 28, IPV6_UDP_BYTES = 48 };

/* Room for the control messages that are received, or sent. */
union control {
	struct cmsghdr header;
	uint8_t bytes[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(int))];
};

struct quic_inbox {
	struct mmsghdr messages[QUIC_INBOX];
	struct iovec iov[QUIC_INBOX];
	union control control[QUIC_INBOX];
	struct sockaddr_storage from[QUIC_INBOX];
	uint8_t bytes[QUIC_INBOX][QUIC_MESSAGE_BYTES];
};

static socklen_t address_len(const struct sockaddr *address)
{
	return address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					       : sizeof(struct sockaddr_in);
}

static void copy_address(struct sockaddr_storage *ret, socklen_t *ret_len,
	const struct sockaddr *address)
{
	*ret_len = address_len(address);
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, address, *ret_len);
}

static void set(int fd, int level, int name, int value)
{
	/* Each makes it faster where it is there, and is looked for where it matters. */
	(void)setsockopt(fd, level, name, &value, sizeof(value));
}

void quic_socket_share(const struct quic_socket *s)
{
	set(s->fd, SOL_SOCKET, SO_REUSEPORT, 1);
}

/* With the privilege, or else as much as anybody may have. */
static void set_room(int fd, int forced, int asked)
{
	const int bytes = QUIC_SOCKET_BYTES;

	if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) < 0)
		set(fd, SOL_SOCKET, asked, bytes);
}

size_t quic_socket_room(int fd)
{
	int bytes = 0;
	socklen_t len = sizeof(bytes);

	/* The kernel tells twice of what was asked for (socket(7)). */
	return getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, &len) < 0 ? 0 : (size_t)bytes / 2;
}

static void tune(struct quic_socket *s, int family)
{
	const int none = 0;

	set_room(s->fd, SO_RCVBUFFORCE, SO_RCVBUF);
	set_room(s->fd, SO_SNDBUFFORCE, SO_SNDBUF);
	set(s->fd, SOL_UDP, UDP_GRO, 1);
	s->gso = setsockopt(s->fd, SOL_UDP, UDP_SEGMENT, &none, sizeof(none)) == 0;
	/* No fragments, and no belief in what anybody says of the path's size (RFC 9000, 14.2). */
	set(s->fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE); /* of IPv6's sockets, too */
	if (family == AF_INET6) {
		set(s->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
		set(s->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, !s->connected);
	} else {
		set(s->fd, IPPROTO_IP, IP_PKTINFO, !s->connected);
	}
}

static size_t route_bytes(int fd, int family)
{
	const bool v6 = family == AF_INET6;
	int mtu = 0;
	socklen_t len = sizeof(mtu);

	if (getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU, &mtu, &len) < 0)
		mtu = 0;
	return (size_t)mtu - weft_min((uint64_t)mtu, v6 ? IPV6_UDP_BYTES : IPV4_UDP_BYTES);
}

int quic_socket_connect(struct quic_socket *s, const struct sockaddr *remote)
{
	socklen_t len = sizeof(s->path.local);

	if (connect(s->fd, remote, address_len(remote)) < 0 ||
		getsockname(s->fd, (struct sockaddr *)&s->path.local, &len) < 0)
		return -errno;
	s->path.local_len = len;
	copy_address(&s->path.remote, &s->path.remote_len, remote);
	s->route_bytes = route_bytes(s->fd, remote->sa_family);
	return 0;
}

bool quic_socket_renew(struct quic_socket *s)
{
	const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
	const struct quic_path before = s->path;

	/* The kernel forgets the address, and chooses one anew (connect(2), udp(7)). */
	if (connect(s->fd, &nowhere, sizeof(nowhere)) < 0 ||
		quic_socket_connect(s, (const struct sockaddr *)&before.remote) < 0)
		return false;
	return memcmp(&before.local, &s->path.local, sizeof(before.local)) != 0;
}

int quic_socket_open(const struct sockaddr *local, const struct sockaddr *remote, bool shared,
	struct quic_socket *ret, struct weft_error *err)
{
	const int family = remote ? remote->sa_family : local->sa_family;
	struct quic_socket s = {
		.fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
		.connected = remote != NULL,
	};
	socklen_t len = sizeof(s.path.local);
	int r = 0;

	if (s.fd < 0)
		return weft_error_set(err, errno, "socket: %s", strerror(errno));
	if (shared)
		set(s.fd, SOL_SOCKET, SO_REUSEPORT, 1);
	tune(&s, family);
	if (local && bind(s.fd, local, address_len(local)) < 0)
		r = -errno;
	if (r == 0 && remote)
		r = quic_socket_connect(&s, remote);
	if (r == 0 && getsockname(s.fd, (struct sockaddr *)&s.path.local, &len) < 0)
		r = -errno;
	if (r < 0) {
		close(s.fd);
		return weft_error_set(err, -r, "%s", strerror(-r));
	}
	s.path.local_len = len;
	*ret = s;
	return 0;
}

void quic_socket_close(struct quic_socket *s)
{
	weft_close_fd(s->fd);
	s->fd = -1;
}

/* ---- receiving ---- */

struct quic_inbox *quic_inbox_new(void)
{
	struct quic_inbox *inbox = weft_map_bytes(sizeof(*inbox));

	for (unsigned i = 0; inbox && i < QUIC_INBOX; i++)
		inbox->iov[i] = (struct iovec){inbox->bytes[i], QUIC_MESSAGE_BYTES};
	return inbox;
}

void quic_inbox_free(struct quic_inbox *inbox)
{
	weft_unmap_bytes(inbox, sizeof(*inbox));
}

/* To which of our addresses it came, and of what size the datagrams are. */
static void read_control(struct msghdr *header, struct quic_message *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
			int segment;

			memcpy(&segment, CMSG_DATA(c), sizeof(segment));
			if (segment > 0)
				message->segment = (size_t)segment;
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct sockaddr_in *to = (struct sockaddr_in *)&message->path.local;
			struct in_pktinfo info;

			memcpy(&info, CMSG_DATA(c), sizeof(info));
			to->sin_addr = info.ipi_addr;
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			struct sockaddr_in6 *to = (struct sockaddr_in6 *)&message->path.local;
			struct in6_pktinfo info;

			memcpy(&info, CMSG_DATA(c), sizeof(info));
			to->sin6_addr = info.ipi6_addr;
			if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
				to->sin6_scope_id = info.ipi6_ifindex;
		}
	}
}

int quic_socket_receive(const struct quic_socket *s, struct quic_inbox *inbox,
	struct quic_message ret[QUIC_INBOX])
{
	for (unsigned i = 0; i < QUIC_INBOX; i++)
		inbox->messages[i].msg_hdr = (struct msghdr){
			.msg_name = &inbox->from[i],
			.msg_namelen = sizeof(inbox->from[i]),
			.msg_iov = &inbox->iov[i],
			.msg_iovlen = 1,
			.msg_control = &inbox->control[i],
			.msg_controllen = sizeof(inbox->control[i]),
		};
	int nr = recvmmsg(s->fd, inbox->messages, QUIC_INBOX, MSG_DONTWAIT, NULL);
	if (nr < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	for (int i = 0; i < nr; i++) {
		struct mmsghdr *m = &inbox->messages[i];

		ret[i] = (struct quic_message){
			.path = s->path,
			.bytes = inbox->bytes[i],
			.len = m->msg_len,
			.segment = m->msg_len,
		};
		copy_address(&ret[i].path.remote, &ret[i].path.remote_len,
			(const struct sockaddr *)&inbox->from[i]);
		read_control(&m->msg_hdr, &ret[i]);
	}
	return nr;
}

/* ---- sending ---- */

/* That the message is to leave from this address of ours. */
static void add_source(struct msghdr *msg, union control *control, const struct quic_path *path)
{
	struct cmsghdr *c = (struct cmsghdr *)(control->bytes + msg->msg_controllen);

	if (path->local.ss_family == AF_INET6) {
		const struct sockaddr_in6 *from = (const struct sockaddr_in6 *)&path->local;
		const struct in6_pktinfo info = {.ipi6_addr = from->sin6_addr};

		if (IN6_IS_ADDR_UNSPECIFIED(&from->sin6_addr))
			return;
		*c = (struct cmsghdr){.cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_PKTINFO,
			.cmsg_len = CMSG_LEN(sizeof(info))};
		memcpy(CMSG_DATA(c), &info, sizeof(info));
		msg->msg_controllen += CMSG_SPACE(sizeof(info));
	} else {
		const struct sockaddr_in *from = (const struct sockaddr_in *)&path->local;
		const struct in_pktinfo info = {.ipi_spec_dst = from->sin_addr};

		if (from->sin_addr.s_addr == htonl(INADDR_ANY))
			return;
		*c = (struct cmsghdr){.cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO,
			.cmsg_len = CMSG_LEN(sizeof(info))};
		memcpy(CMSG_DATA(c), &info, sizeof(info));
		msg->msg_controllen += CMSG_SPACE(sizeof(info));
	}
	msg->msg_control = control;
}

static void add_segment(struct msghdr *msg, union control *control, size_t segment)
{
	const uint16_t bytes = (uint16_t)segment;
	struct cmsghdr *c = (struct cmsghdr *)(control->bytes + msg->msg_controllen);

	*c = (struct cmsghdr){.cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT,
		.cmsg_len = CMSG_LEN(sizeof(bytes))};
	memcpy(CMSG_DATA(c), &bytes, sizeof(bytes));
	msg->msg_controllen += CMSG_SPACE(sizeof(bytes));
	msg->msg_control = control;
}

static void set_target(struct msghdr *msg, union control *control, struct quic_batch *batch)
{
	msg->msg_name = &batch->path.remote;
	msg->msg_namelen = batch->path.remote_len;
	add_source(msg, control, &batch->path);
}

/* The rest of the batch in one message, which the kernel, or the card, cuts.  0, or -errno. */
static int send_whole(const struct quic_socket *s, struct quic_batch *batch, bool to_path)
{
	union control control = {.bytes = {0}};
	struct iovec iov = {batch->bytes + batch->sent, batch->len - batch->sent};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (to_path)
		set_target(&msg, &control, batch);
	if (iov.iov_len > batch->segment)
		add_segment(&msg, &control, batch->segment);
	if (sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return -errno;
	batch->sent = batch->len;
	return 0;
}

/* A message for each datagram, as many as the kernel takes in one call.  0, or -errno. */
static int send_each(const struct quic_socket *s, struct quic_batch *batch, bool to_path)
{
	struct mmsghdr messages[QUIC_BATCH_PACKETS];
	struct iovec iov[QUIC_BATCH_PACKETS];
	union control control = {.bytes = {0}};
	struct msghdr common = {.msg_iovlen = 1};
	unsigned nr = 0;

	if (to_path)
		set_target(&common, &control, batch);
	for (size_t at = batch->sent; at < batch->len && nr < QUIC_BATCH_PACKETS; nr++) {
		iov[nr] = (struct iovec){
			batch->bytes + at, weft_min(batch->len - at, batch->segment)};
		messages[nr].msg_hdr = common;
		messages[nr].msg_hdr.msg_iov = &iov[nr];
		at += iov[nr].iov_len;
	}
	const int sent = sendmmsg(s->fd, messages, nr, MSG_DONTWAIT | MSG_NOSIGNAL);
	for (int i = 0; i < sent; i++)
		batch->sent += iov[i].iov_len;
	return sent < 0 ? -errno : 0;
}

int quic_socket_send(struct quic_socket *s, struct quic_batch *batch, bool to_path)
{
	bool each = !s->gso;

	while (batch->sent < batch->len) {
		const int r = each ? send_each(s, batch, to_path) : send_whole(s, batch, to_path);

		if (r == 0 || r == -EINTR)
			continue;
		if (r == -EAGAIN)
			return r;
		/* A device without it; or the route has become too small for a segment. */
		if (!each && (r == -EIO || r == -EINVAL)) {
			/* Where others send too, it is found out anew each time. */
			if (!to_path)
				s->gso = r != -EIO;
			each = true;
			continue;
		}
		batch->sent = batch->len;
		return r;
	}
	return 0;
}

void quic_socket_send_to(int fd, const struct quic_path *path, const void *bytes, size_t len)
{
	union control control = {.bytes = {0}};
	struct iovec iov = {(void *)bytes, len};
	struct msghdr msg = {
		.msg_name = (void *)&path->remote,
		.msg_namelen = path->remote_len,
		.msg_iov = &iov,
		.msg_iovlen = 1,
	};

	add_source(&msg, &control, path);
	(void)sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}
