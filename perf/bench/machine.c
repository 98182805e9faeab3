/* SPDX-License-Identifier: MIT */
/*
 * The conditions: machine, kernel, network.  What cannot be told is null, never left out.
 * Functions without state.
 */
#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/bench/bench.h"

/* A file's first line; false: none. */
static bool first_line(char *line, int len, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static bool first_line(char *line, int len, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;
	FILE *f;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	f = fopen(path, "re");
	if (!f)
		return false;
	bool ok = fgets(line, len, f) != NULL;
	fclose(f);
	if (ok)
		line[strcspn(line, "\n")] = '\0';
	return ok && line[0];
}

static json_t *line_or_null(bool ok, const char *line)
{
	return ok ? json_string(line) : json_null();
}

static json_t *cpu_model(void)
{
	char line[256];
	json_t *ret = NULL;
	FILE *f = fopen("/proc/cpuinfo", "re");

	while (f && !ret && fgets(line, sizeof(line), f))
		if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
			line[strcspn(line, "\n")] = '\0';
			ret = json_string(strchr(line, ':') + 2);
		}
	if (f)
		fclose(f);
	return ret ? ret : json_null();
}

/* The kernel tells a guest that it is one by a flag of the processor. */
static bool is_virtual(void)
{
	char line[8192];
	bool ret = false;
	FILE *f = fopen("/proc/cpuinfo", "re");

	while (f && !ret && fgets(line, sizeof(line), f))
		ret = strncmp(line, "flags", 5) == 0 && strstr(line, " hypervisor");
	if (f)
		fclose(f);
	return ret;
}

json_t *bench_machine(void)
{
	char line[256], product[128] = "";
	struct utsname uts;
	double load = -1;
	bool ok;

	uname(&uts);
	json_t *json = json_pack("{s:s, s:s, s:s, s:i, s:o, s:b}", "host", uts.nodename, "kernel",
		uts.release, "architecture", uts.machine, "processors",
		(int)sysconf(_SC_NPROCESSORS_ONLN), "processor", cpu_model(), "virtual",
		is_virtual());
	first_line(product, sizeof(product), "/sys/class/dmi/id/product_name");
	json_object_set_new(json, "product", line_or_null(product[0] != '\0', product));
	json_object_set_new(json, "memory_bytes",
		json_integer((json_int_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE)));
	ok = first_line(line, sizeof(line),
		"/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
	json_object_set_new(json, "governor", line_or_null(ok, line));
	ok = first_line(line, sizeof(line), "/proc/loadavg");
	if (ok)
		load = strtod(line, NULL);
	json_object_set_new(json, "load_before", load >= 0 ? json_real(load) : json_null());
	return json;
}

static json_t *driver_of(const char *netdev)
{
	char path[PATH_MAX], target[PATH_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/class/net/%s/device/driver", netdev);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return json_null();
	target[n] = '\0';
	return json_string(strrchr(target, '/') ? strrchr(target, '/') + 1 : target);
}

/* The largest of RDMA's sizes that fits with its headers. */
static unsigned rdma_mtu(unsigned mtu)
{
	return mtu >= 4200    ? 4096
		: mtu >= 2200 ? 2048
		: mtu >= 1124 ? 1024
		: mtu >= 612  ? 512
			      : 256;
}

json_t *bench_network(const char *netdev, const char *rdma_device, const char *path)
{
	json_t *json = json_pack("{s:s, s:s?, s:s?}", "path", path, "interface",
		netdev[0] ? netdev : NULL, "rdma_device", rdma_device[0] ? rdma_device : NULL);
	unsigned gid = 0, mtu = 0;
	char line[128];
	bool ok;

	ok = netdev[0] && first_line(line, sizeof(line), "/sys/class/net/%s/mtu", netdev);
	if (ok)
		mtu = (unsigned)atoi(line);
	json_object_set_new(json, "mtu", ok ? json_integer(mtu) : json_null());
	ok = netdev[0] && first_line(line, sizeof(line), "/sys/class/net/%s/speed", netdev) &&
		atoi(line) > 0;
	json_object_set_new(json, "speed_mbit_s", ok ? json_integer(atoi(line)) : json_null());
	json_object_set_new(json, "driver", netdev[0] ? driver_of(netdev) : json_null());
	json_object_set_new(json, "rdma_mtu",
		rdma_device[0] && mtu ? json_integer(rdma_mtu(mtu)) : json_null());
	ok = rdma_device[0] &&
		first_line(line, sizeof(line), "/sys/class/infiniband/%s/hca_type", rdma_device);
	json_object_set_new(json, "rdma_type", line_or_null(ok, line));
	ok = rdma_device[0] &&
		first_line(line, sizeof(line), "/sys/class/infiniband/%s/fw_ver", rdma_device);
	json_object_set_new(json, "rdma_firmware", line_or_null(ok, line));
	/* What is made of software hangs on no bus. */
	char bus[PATH_MAX];
	snprintf(bus, sizeof(bus), "/sys/class/infiniband/%s/device", rdma_device);
	json_object_set_new(json, "rdma_in_software",
		rdma_device[0] ? json_boolean(access(bus, F_OK) < 0) : json_null());
	ok = rdma_device[0] && sscanf(path, "rdma %*s gid %u", &gid) == 1;
	json_object_set_new(json, "gid_index", ok ? json_integer(gid) : json_null());
	ok = ok &&
		first_line(line, sizeof(line), "/sys/class/infiniband/%s/ports/1/gids/%u",
			rdma_device, gid);
	json_object_set_new(json, "gid", line_or_null(ok, line));
	ok = ok &&
		first_line(line, sizeof(line),
			"/sys/class/infiniband/%s/ports/1/gid_attrs/types/%u", rdma_device, gid);
	json_object_set_new(json, "gid_type", line_or_null(ok, line));
	return json;
}
