/* SPDX-License-Identifier: MIT */
/* The ends of a line.  One thread. */
#include "perf/peers/line/network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"

enum { IPV6_MIN_MTU = 1280, QUEUE_PACKETS = 10000 };

const char *const line_side_names[2] = {"near", "far"};

static int write_file(const char *path, const char *text)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : weft_write_all(fd, text, strlen(text));
}

/* Capabilities that this process has are kept by what it runs, although that is not root. */
static int keep_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(data); i++)
		data[i].inheritable = data[i].permitted;
	if (syscall(SYS_capset, &header, data) < 0)
		return -errno;
	for (unsigned c = 0; c <= CAP_LAST_CAP; c++)
		if (data[c / 32].permitted >> c % 32 & 1)
			prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, c, 0, 0);
	return 0;
}

int line_get_rights(struct weft_error *err)
{
	unsigned user = (unsigned)geteuid(), group = (unsigned)getegid();
	char uid[64], gid[64];

	if (user == 0)
		return 0;
	snprintf(uid, sizeof(uid), "%u %u 1", user, user);
	snprintf(gid, sizeof(gid), "%u %u 1", group, group);
	if (unshare(CLONE_NEWUSER) < 0)
		return weft_error_set(err, errno,
			"cannot make a user namespace; root needs none: %s", strerror(errno));
	int r = write_file("/proc/self/setgroups", "deny");
	if (r == 0)
		r = write_file("/proc/self/uid_map", uid);
	if (r == 0)
		r = write_file("/proc/self/gid_map", gid);
	if (r == 0)
		r = keep_capabilities();
	return r == 0 ? 0
		      : weft_error_set(
				err, -r, "cannot get rights over networks: %s", strerror(-r));
}

/* ---- namespaces ---- */

static int enter(const char *existing, struct weft_error *err)
{
	char path[512];

	if (!existing) {
		weft_debug("making a network namespace");
		if (unshare(CLONE_NEWNET) < 0)
			return weft_error_set(
				err, errno, "cannot make a network namespace: %s", strerror(errno));
		return 0;
	}
	if (strchr(existing, '/'))
		snprintf(path, sizeof(path), "%s", existing);
	else if (existing[strspn(existing, "0123456789")] == '\0')
		snprintf(path, sizeof(path), "/proc/%s/ns/net", existing);
	else
		snprintf(path, sizeof(path), "/run/netns/%s", existing);
	weft_debug("entering the network namespace %s", path);
	WEFT_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		return weft_error_set(err, errno, "cannot enter the network namespace %s: %s", path,
			strerror(errno));
	return 0;
}

/* ---- the device ---- */

static int open_tun(char name[16], struct weft_error *err)
{
	const unsigned offload = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	const unsigned uso = 0x20 | 0x40; /* TUN_F_USO4, TUN_F_USO6, since Linux 6.2 */
	struct ifreq ifr = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return weft_error_set(err, errno, "cannot open /dev/net/tun: %s", strerror(errno));
	memcpy(ifr.ifr_name, name, 16);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0 || (ioctl(fd, TUNSETOFFLOAD, offload | uso) < 0 &&
		ioctl(fd, TUNSETOFFLOAD, offload) < 0)) {
		weft_error_set(
			err, errno, "cannot make the network device %s: %s", name, strerror(errno));
		close(fd);
		return -err->code;
	}
	return fd;
}

static int set_ipv4(int sock, struct ifreq *ifr, unsigned request, const char *address)
{
	struct sockaddr_in in = {.sin_family = AF_INET};

	inet_pton(AF_INET, address, &in.sin_addr);
	memcpy(&ifr->ifr_addr, &in, sizeof(in));
	return ioctl(sock, request, ifr);
}

/* Brings a device up.  mtu 0: leaves it as it is.  (An ioctl would let only the machine's root
 * change the queue.) */
static int bring_up(const char *device, unsigned mtu)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg info;
		char attributes[32];
	} question = {
		.header = {.nlmsg_type = RTM_NEWLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		.info = {.ifi_index = (int)if_nametoindex(device),
			.ifi_flags = IFF_UP,
			.ifi_change = IFF_UP},
	};
	const uint32_t values[] = {mtu, QUEUE_PACKETS};
	const unsigned short types[] = {IFLA_MTU, IFLA_TXQLEN};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
	} answer;
	size_t len = NLMSG_LENGTH(sizeof(question.info));
	WEFT_CLEANUP_CLOSE int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	for (size_t i = 0; mtu > 0 && i < WEFT_ARRAY_LEN(types); i++) {
		struct rtattr attribute = {
			.rta_type = types[i], .rta_len = RTA_LENGTH(sizeof(values[i]))};

		memcpy((char *)&question + len, &attribute, sizeof(attribute));
		memcpy((char *)&question + len + RTA_LENGTH(0), &values[i], sizeof(values[i]));
		len += RTA_SPACE(sizeof(values[i]));
	}
	question.header.nlmsg_len = (uint32_t)len;
	if (sock < 0 || send(sock, &question, len, 0) < 0 ||
		recv(sock, &answer, sizeof(answer), 0) < (ssize_t)sizeof(answer))
		return -errno;
	return answer.error.error;
}

/* false: there is no IPv6 here. */
static bool set_ipv6(const char *device, const struct in6_addr *address)
{
	struct {
		struct in6_addr address;
		uint32_t prefix;
		int index;
	} request = {*address, 64, (int)if_nametoindex(device)}; /* struct in6_ifreq */
	WEFT_CLEANUP_CLOSE int sock = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return sock >= 0 && ioctl(sock, SIOCSIFADDR, &request) == 0;
}

static int configure(const struct line_end *end, unsigned mtu, struct weft_error *err)
{
	WEFT_CLEANUP_CLOSE int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {0};

	memcpy(ifr.ifr_name, end->device, sizeof(end->device));
	if (sock < 0 || set_ipv4(sock, &ifr, SIOCSIFADDR, end->ipv4) < 0 ||
		set_ipv4(sock, &ifr, SIOCSIFNETMASK, "255.255.255.252") < 0)
		return weft_error_set(
			err, errno, "cannot give %s its address: %s", end->device, strerror(errno));
	int r = bring_up(end->device, mtu);
	if (r == 0)
		r = bring_up("lo", 0);
	if (r < 0)
		return weft_error_set(err, -r, "cannot bring %s up with an MTU of %u: %s",
			end->device, mtu, strerror(-r));
	weft_debug("%s is up with %s and an MTU of %u", end->device, end->ipv4, mtu);
	return 0;
}

int line_end_open(enum line_side side, const char *existing, unsigned number, unsigned mtu,
	struct line_end *ret, struct weft_error *err)
{
	struct line_end end = {.tun = -1, .ns = -1, .ipv6 = "-"};
	int r = enter(existing, err);

	if (r < 0)
		return r;
	snprintf(end.device, sizeof(end.device), "line%u", number);
	/* RFC 2544 and RFC 5180 keep these for measurements. */
	snprintf(end.ipv4, sizeof(end.ipv4), "198.18.%u.%d", number, side + 1);
	end.ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (end.ns < 0)
		return weft_error_set(
			err, errno, "cannot open the network namespace: %s", strerror(errno));
	end.tun = open_tun(end.device, err);
	r = end.tun < 0 ? end.tun : configure(&end, mtu, err);
	struct in6_addr ipv6 = {
		{{0x20, 1, 0, 2, 0, 0, 0, (uint8_t)number, [15] = (uint8_t)(side + 1)}}};
	if (r == 0 && mtu >= IPV6_MIN_MTU && set_ipv6(end.device, &ipv6))
		inet_ntop(AF_INET6, &ipv6, end.ipv6, sizeof(end.ipv6));
	weft_debug("the %s end: %s, %s, %s: %s", line_side_names[side], end.device, end.ipv4,
		end.ipv6, r < 0 ? err->message : "made");
	if (r < 0)
		line_end_close(&end);
	else
		*ret = end;
	return r;
}

uint64_t line_end_overrun(const struct line_end *end)
{
	char line[512], name[32];
	uint64_t dropped = 0, n;

	if (setns(end->ns, CLONE_NEWNET) < 0)
		return 0;
	FILE *f = fopen("/proc/thread-self/net/dev", "re");
	while (f && fgets(line, sizeof(line), f))
		/* Eight columns of what it received, then bytes, packets, errors and drops of what
		 * it sent. */
		if (sscanf(line, " %31[^:]: %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %" SCNu64,
			    name, &n) == 2 &&
			strcmp(name, end->device) == 0)
			dropped = n;
	if (f)
		fclose(f);
	return dropped;
}

void line_end_close(struct line_end *end)
{
	weft_cleanup_close(&end->tun);
	weft_cleanup_close(&end->ns);
	end->tun = end->ns = -1;
}
