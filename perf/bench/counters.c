/* SPDX-License-Identifier: MIT */
/*
 * What the kernel counts: processor time, and bytes of network interfaces.  Functions without
 * state.
 */
#include <inttypes.h>
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
	if (fscanf(f,
		    "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
		    " %" SCNu64,
		    &user, &nice, &system, &idle, &iowait, &irq, &softirq) != 7)
		user = nice = system = irq = softirq = 0;
	fclose(f);
	return (user + nice + system + irq + softirq) *
		(1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

static bool read_count(const char *path, uint64_t *ret)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fscanf(f, "%" SCNu64, ret) == 1;

	if (f)
		fclose(f);
	return ok;
}

/* Of the network that this process is in; /sys has that in which it was mounted. */
static bool interface_bytes(const char *netdev, uint64_t *ret_rx, uint64_t *ret_tx)
{
	char line[512], name[64];
	uint64_t rx, tx;
	bool ok = false;
	FILE *f = fopen("/proc/net/dev", "re");

	/* Eight columns of what it received, then of what it sent; each begins with bytes. */
	while (f && !ok && fgets(line, sizeof(line), f))
		ok = sscanf(line, " %63[^:]: %" SCNu64 " %*u %*u %*u %*u %*u %*u %*u %" SCNu64,
			     name, &rx, &tx) == 3 &&
			strcmp(name, netdev) == 0;
	if (f)
		fclose(f);
	if (ok) {
		*ret_rx = rx;
		*ret_tx = tx;
	}
	return ok;
}

/*
 * An adapter that does RDMA by itself does not tell the interface: its port has counters of its
 * own, in words of 4 bytes.  Software ones leave those alone and count at the interface; so both
 * are taken.
 */
bool bench_net_bytes(const char *netdev, const char *rdma_device, uint64_t *ret_rx,
	uint64_t *ret_tx)
{
	uint64_t rx = 0, tx = 0, words;
	char path[256];
	bool ok = false;

	if (netdev[0])
		ok = interface_bytes(netdev, &rx, &tx);
	if (rdma_device[0]) {
		snprintf(path, sizeof(path),
			"/sys/class/infiniband/%s/ports/1/counters/port_rcv_data", rdma_device);
		if (read_count(path, &words)) {
			rx += 4 * words;
			ok = true;
		}
		snprintf(path, sizeof(path),
			"/sys/class/infiniband/%s/ports/1/counters/port_xmit_data", rdma_device);
		if (read_count(path, &words))
			tx += 4 * words;
	}
	if (ok) {
		*ret_rx = rx;
		*ret_tx = tx;
	}
	return ok;
}
