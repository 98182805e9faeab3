/* What the kernel counts: processor time, and bytes of network interfaces.  Functions without state. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "perf/bench/bench.h"

uint64_t bench_cpu_ns(pid_t pid)
{
	clockid_t clock = CLOCK_PROCESS_CPUTIME_ID;
	struct timespec ts;

	if ((pid && clock_getcpuclockid(pid, &clock)) || clock_gettime(clock, &ts) < 0)
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t bench_machine_cpu_ns(void)
{
	uint64_t user = 0, nice = 0, system = 0, idle, iowait, irq = 0, softirq = 0;
	FILE *f = fopen("/proc/stat", "re");

	if (!f)
		return 0;
	if (fscanf(f, "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &user, &nice,
		    &system, &idle, &iowait, &irq, &softirq) != 7)
		user = nice = system = irq = softirq = 0;
	fclose(f);
	return (user + nice + system + irq + softirq) * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

static bool read_count(const char *path, uint64_t *ret)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fscanf(f, "%" SCNu64, ret) == 1;

	if (f)
		fclose(f);
	return ok;
}

/*
 * An adapter that does RDMA by itself does not tell the interface: its port has counters of its own, in words
 * of 4 bytes.  Software ones leave those alone and count at the interface; so both are taken.
 */
bool bench_net_bytes(const char *netdev, const char *rdma_device, uint64_t *ret_rx, uint64_t *ret_tx)
{
	uint64_t rx = 0, tx = 0, words;
	char path[256];
	bool ok = false;

	if (netdev[0]) {
		snprintf(path, sizeof(path), "/sys/class/net/%s/statistics/rx_bytes", netdev);
		ok = read_count(path, &rx);
		snprintf(path, sizeof(path), "/sys/class/net/%s/statistics/tx_bytes", netdev);
		ok = read_count(path, &tx) && ok;
	}
	if (rdma_device[0]) {
		snprintf(path, sizeof(path), "/sys/class/infiniband/%s/ports/1/counters/port_rcv_data", rdma_device);
		if (read_count(path, &words)) {
			rx += 4 * words;
			ok = true;
		}
		snprintf(path, sizeof(path), "/sys/class/infiniband/%s/ports/1/counters/port_xmit_data", rdma_device);
		if (read_count(path, &words))
			tx += 4 * words;
	}
	if (ok) {
		*ret_rx = rx;
		*ret_tx = tx;
	}
	return ok;
}

static bool same_address(const struct sockaddr *address, const char *text)
{
	char have[INET6_ADDRSTRLEN];

	if (address->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, have, sizeof(have));
	else if (address->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, have, sizeof(have));
	else
		return false;
	return strcmp(have, text) == 0;
}

/* "10.0.0.1:52044" and "[fe80::1]:52044" lose all but the address.  The interface that has it, or "". */
static void netdev_of_address(const struct ifaddrs *all, char *address, char netdev[64])
{
	char *end = strrchr(address, ':');

	if (end)
		*end = '\0';
	if (address[0] == '[') {
		address[strcspn(address, "]")] = '\0';
		address++;
	}
	netdev[0] = '\0';
	for (const struct ifaddrs *one = all; one; one = one->ifa_next)
		if (one->ifa_addr && same_address(one->ifa_addr, address)) {
			snprintf(netdev, 64, "%s", one->ifa_name);
			break;
		}
}

bool bench_netdev_of_path(const char *path, char netdev[64], char rdma_device[64])
{
	char device[64] = "", here[128] = "", there[128] = "", peer[64];
	struct ifaddrs *all;
	unsigned gid;

	netdev[0] = rdma_device[0] = '\0';
	if (sscanf(path, "rdma %63s gid %u %127s -> %127s", device, &gid, here, there) == 4)
		strcpy(rdma_device, device);
	else if (sscanf(path, "%*s %127s -> %127s", here, there) != 2)
		return false;
	if (getifaddrs(&all) < 0)
		return false;
	netdev_of_address(all, here, netdev);
	netdev_of_address(all, there, peer);
	freeifaddrs(all);
	return peer[0] != '\0';
}
