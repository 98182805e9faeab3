/* SPDX-License-Identifier: MIT */
/* Processor time, bytes on the wire and memory, before a piece of work and after it.  No state. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/methods/methods.h"

/* The sum is exact; the kernel only samples how it is shared. */
static struct methods_cpu cpu_of(pid_t pid)
{
	uint64_t sum = bench_cpu_ns(pid), user = 0, system = 0;
	char path[64], line[1024];

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	FILE *f = fopen(path, "re");
	if (f && fgets(line, sizeof(line), f) && strrchr(line, ')'))
		(void)sscanf(strrchr(line, ')'),
			") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64, &user,
			&system);
	if (f)
		fclose(f);
	uint64_t user_ns = user + system ? sum * user / (user + system) : sum;
	return (struct methods_cpu){user_ns, sum - user_ns};
}

static uint64_t ns_of(const struct timeval *tv)
{
	return (uint64_t)tv->tv_sec * 1000000000u + (uint64_t)tv->tv_usec * 1000u;
}

/* This process, and those that it started and that ended. */
static struct methods_cpu cpu_of_us(void)
{
	struct rusage self, children;

	getrusage(RUSAGE_SELF, &self);
	getrusage(RUSAGE_CHILDREN, &children);
	return (struct methods_cpu){ns_of(&self.ru_utime) + ns_of(&children.ru_utime),
		ns_of(&self.ru_stime) + ns_of(&children.ru_stime)};
}

void methods_meter_read(
	const struct methods_site *site, pid_t bridge, pid_t donor, struct methods_meter *ret)
{
	uint64_t rx = 0, tx = 0;

	*ret = (struct methods_meter){.client = cpu_of_us()};
	if (bridge)
		ret->bridge = cpu_of(bridge);
	if (donor)
		ret->donor = cpu_of(donor);
	ret->machine_ns = bench_machine_cpu_ns();
	if (site->netdev && bench_net_bytes(site->netdev, "", &rx, &tx))
		ret->wire_bytes = rx + tx;
	ret->ns = weft_now_ns();
}

uint64_t methods_resident_bytes(pid_t pid)
{
	char path[64], line[256];
	uint64_t kib = 0;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	else
		strcpy(path, "/proc/self/status");
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmRSS: %" SCNu64, &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib << 10;
}

static json_t *cpu_json(struct methods_cpu from, struct methods_cpu to, double gb, bool known)
{
	/* The kernel's shares may move a little from one to the other. */
	double user = to.user_ns > from.user_ns ? (double)(to.user_ns - from.user_ns) : 0;
	double system = to.system_ns > from.system_ns ? (double)(to.system_ns - from.system_ns) : 0;

	if (!known)
		return json_null();
	return json_pack("{s:f, s:f}", "user", user / 1e9 / gb, "system", system / 1e9 / gb);
}

json_t *methods_phase_json(const struct methods_site *site, const struct methods_phase *phase,
	bool have_bridge, bool have_donor)
{
	const struct methods_meter *from = &phase->from, *to = &phase->to;
	double seconds = (double)(to->ns - from->ns) / 1e9, gb = (double)phase->bytes / 1e9;
	json_t *cpu = json_pack("{s:o, s:o, s:o, s:f}", "client",
		cpu_json(from->client, to->client, gb, true), "bridge",
		cpu_json(from->bridge, to->bridge, gb, have_bridge), "donor",
		cpu_json(from->donor, to->donor, gb, have_donor), "machine",
		(double)(to->machine_ns - from->machine_ns) / 1e9 / gb);
	json_t *json = json_pack("{s:I, s:I, s:f, s:f, s:f, s:o}", "ops", (json_int_t)phase->ops,
		"bytes", (json_int_t)phase->bytes, "seconds", seconds, "MB_s", gb * 1e3 / seconds,
		"ops_s", (double)phase->ops / seconds, "cpu_s_per_GB", cpu);

	if (phase->latency.total > 0) {
		json_object_set_new(json, "p50_us",
			json_real((double)weft_histogram_quantile(&phase->latency, 0.5) / 1e3));
		json_object_set_new(json, "p99_us",
			json_real((double)weft_histogram_quantile(&phase->latency, 0.99) / 1e3));
	}
	json_object_set_new(json, "wire_per_byte",
		site->netdev ? json_real((double)(to->wire_bytes - from->wire_bytes) /
				       (double)phase->bytes)
			     : json_null());
	return json;
}
