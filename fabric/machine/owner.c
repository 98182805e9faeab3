/* SPDX-License-Identifier: MIT */
/*
 * Whose socket the other end of a connection is; see owner.h.
 *
 * One message to the kernel and one back.  Not taken for an answer is a socket without an inode:
 * nobody has it open any more, and the kernel names root as its owner then; and one that only
 * begins to connect, which may be another's, at an address that was free again.
 */
#include "fabric/machine/owner.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/address.h"
#include "fabric/base/util.h"

enum { LOOPBACK_INDEX = 1 }; /* of the interface; sockets that are bound to it are found too */

/* As the kernel has both ends of a socket. */
static int fill_ends(const struct sockaddr_storage *from, const struct sockaddr_storage *to,
	struct inet_diag_sockid *ret)
{
	const struct sockaddr_in *from4 = (const void *)from, *to4 = (const void *)to;
	const struct sockaddr_in6 *from6 = (const void *)from, *to6 = (const void *)to;

	if (from->ss_family != to->ss_family)
		return -ENOENT;
	if (from->ss_family == AF_INET) {
		ret->idiag_sport = from4->sin_port;
		ret->idiag_dport = to4->sin_port;
		memcpy(ret->idiag_src, &from4->sin_addr, sizeof(from4->sin_addr));
		memcpy(ret->idiag_dst, &to4->sin_addr, sizeof(to4->sin_addr));
	} else if (from->ss_family == AF_INET6) {
		ret->idiag_sport = from6->sin6_port;
		ret->idiag_dport = to6->sin6_port;
		memcpy(ret->idiag_src, &from6->sin6_addr, sizeof(from6->sin6_addr));
		memcpy(ret->idiag_dst, &to6->sin6_addr, sizeof(to6->sin6_addr));
	} else {
		return -ENOENT;
	}
	return 0;
}

/* One end of the answer, so that it can be compared with what was asked. */
static struct sockaddr_storage end_of(const struct inet_diag_msg *answer, const __be32 *address,
	__be16 port)
{
	struct sockaddr_storage end = {.ss_family = answer->idiag_family};

	if (answer->idiag_family == AF_INET6) {
		struct sockaddr_in6 *six = (struct sockaddr_in6 *)&end;

		six->sin6_port = port;
		memcpy(&six->sin6_addr, address, sizeof(six->sin6_addr));
	} else {
		struct sockaddr_in *four = (struct sockaddr_in *)&end;

		four->sin_port = port;
		memcpy(&four->sin_addr, address, sizeof(four->sin_addr));
	}
	/* An IPv6 socket may be one end of a connection over IPv4. */
	weft_address_unmap(&end);
	return end;
}

static bool is_asked_for(const struct inet_diag_msg *answer, const struct sockaddr_storage *theirs,
	const struct sockaddr_storage *ours)
{
	struct sockaddr_storage from =
		end_of(answer, answer->id.idiag_src, answer->id.idiag_sport);
	struct sockaddr_storage to = end_of(answer, answer->id.idiag_dst, answer->id.idiag_dport);
	struct inet_diag_sockid asked = {0}, got = {0};

	return from.ss_family == theirs->ss_family && fill_ends(theirs, ours, &asked) == 0 &&
	       fill_ends(&from, &to, &got) == 0 && memcmp(&asked, &got, sizeof(asked)) == 0;
}

static bool is_open(const struct inet_diag_msg *answer)
{
	return answer->idiag_inode != 0 &&
	       (answer->idiag_state == TCP_ESTABLISHED || answer->idiag_state == TCP_FIN_WAIT1 ||
		       answer->idiag_state == TCP_FIN_WAIT2);
}

/* 0 with the answer, or -errno. */
static int ask(int fd, const struct inet_diag_req_v2 *question, struct inet_diag_msg *ret)
{
	struct {
		struct nlmsghdr head;
		struct inet_diag_req_v2 body;
	} out = {
		.head = {.nlmsg_len = sizeof(out),
			.nlmsg_type = SOCK_DIAG_BY_FAMILY,
			.nlmsg_flags = NLM_F_REQUEST},
		.body = *question,
	};
	const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct sockaddr_nl from;
	socklen_t from_len = sizeof(from);
	/* Attributes that follow what is looked at may be cut off. */
	_Alignas(struct nlmsghdr) char in[1024];
	const struct nlmsghdr *head = (const struct nlmsghdr *)in;

	if (sendto(fd, &out, sizeof(out), 0, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	ssize_t n = recvfrom(fd, in, sizeof(in), MSG_DONTWAIT, (struct sockaddr *)&from,
		&from_len);
	if (n < 0)
		return -errno;
	if (from_len != sizeof(from) || from.nl_pid != 0 || (size_t)n < NLMSG_HDRLEN)
		return -EPROTO;
	if (head->nlmsg_type == NLMSG_ERROR && (size_t)n >= NLMSG_LENGTH(sizeof(struct nlmsgerr))) {
		const struct nlmsgerr *error = NLMSG_DATA(head);

		return error->error < 0 ? error->error : -EPROTO;
	}
	if (head->nlmsg_type != SOCK_DIAG_BY_FAMILY || (size_t)n < NLMSG_LENGTH(sizeof(*ret)) ||
		head->nlmsg_len < NLMSG_LENGTH(sizeof(*ret)))
		return -EPROTO;
	memcpy(ret, NLMSG_DATA(head), sizeof(*ret));
	return 0;
}

/* ---- without sock_diag: the kernel's tables ---- */

enum { HEX_MAX = 32 + 1 };

/*
 * As a table has it: each word in the order of the kernel's processor, which is not always ours (an
 * emulator shows the kernel's own files).
 */
static void format_address(const struct sockaddr_storage *end, bool in_tcp6, bool swapped,
	char ret[HEX_MAX])
{
	uint32_t words[4] = {0, 0, htonl(0xffff), 0};
	const unsigned nr = in_tcp6 ? 4 : 1;

	if (end->ss_family == AF_INET6)
		memcpy(words, &((const struct sockaddr_in6 *)end)->sin6_addr, sizeof(words));
	else
		memcpy(&words[nr - 1], &((const struct sockaddr_in *)end)->sin_addr,
			sizeof(words[0]));
	for (unsigned i = 0; i < nr; i++)
		sprintf(ret + 8 * i, "%08" PRIX32,
			swapped ? __builtin_bswap32(words[i]) : words[i]);
}

static unsigned port_of(const struct sockaddr_storage *end)
{
	return ntohs(end->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)end)->sin6_port
						: ((const struct sockaddr_in *)end)->sin_port);
}

static int look_in(const char *path, bool in_tcp6, const struct sockaddr_storage *from,
	const struct sockaddr_storage *to, uint32_t *ret_uid)
{
	char line[512], a[HEX_MAX], b[HEX_MAX], src[HEX_MAX], dst[HEX_MAX];
	FILE *file = fopen(path, "re");
	int r = -ENOENT;

	while (file && r < 0 && fgets(line, sizeof(line), file)) {
		struct inet_diag_msg row = {0};
		unsigned sport, dport, state;

		if (sscanf(line, "%*u: %32[0-9A-F]:%x %32[0-9A-F]:%x %x %*x:%*x %*x:%*x %*x %u %*u "
				 "%u",
			    src, &sport, dst, &dport, &state, &row.idiag_uid, &row.idiag_inode) !=
				7 ||
			sport != port_of(from) || dport != port_of(to))
			continue;
		row.idiag_state = (uint8_t)state;
		for (unsigned swapped = 0; swapped < 2 && r < 0; swapped++) {
			format_address(from, in_tcp6, swapped, a);
			format_address(to, in_tcp6, swapped, b);
			if (strcmp(a, src) == 0 && strcmp(b, dst) == 0 && is_open(&row))
				r = 0;
		}
		if (r == 0)
			*ret_uid = row.idiag_uid;
	}
	if (file)
		fclose(file);
	return r;
}

static int look_in_tables(const struct sockaddr_storage *from, const struct sockaddr_storage *to,
	uint32_t *ret_uid)
{
	int r = from->ss_family == AF_INET
		? look_in("/proc/self/net/tcp", false, from, to, ret_uid)
		: -ENOENT;

	/* IPv6 sockets are in a table of their own, also those that are connected over IPv4. */
	return r == 0 ? r : look_in("/proc/self/net/tcp6", true, from, to, ret_uid);
}

static void copy_address(struct sockaddr_storage *to, const struct sockaddr *from)
{
	memset(to, 0, sizeof(*to));
	memcpy(to, from,
		from->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					    : sizeof(struct sockaddr_in));
	weft_address_unmap(to);
}

int weft_socket_owner(const struct sockaddr *theirs, const struct sockaddr *ours, uint32_t *ret_uid)
{
	struct sockaddr_storage from, to;
	struct inet_diag_msg answer;
	struct inet_diag_req_v2 question = {
		.sdiag_protocol = IPPROTO_TCP,
		.idiag_states = UINT32_MAX,
		.id = {.idiag_if = LOOPBACK_INDEX,
			.idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}},
	};

	copy_address(&from, theirs);
	copy_address(&to, ours);
	question.sdiag_family = (uint8_t)from.ss_family;
	int r = fill_ends(&from, &to, &question.id);
	if (r < 0)
		return r;
	WEFT_CLEANUP_CLOSE int fd =
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0)
		return look_in_tables(&from, &to, ret_uid);
	r = ask(fd, &question, &answer);
	if (r < 0)
		return r;
	if (!is_open(&answer) || !is_asked_for(&answer, &from, &to))
		return -ENOENT;
	*ret_uid = answer.idiag_uid;
	return 0;
}
