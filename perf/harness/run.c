/* SPDX-License-Identifier: MIT */
/*
 * What a run has: its table of cases, its options, and its directories.  Main thread.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "perf/harness/perf.h"

struct perf_table perf_table;
struct perf_options perf_options = {.rounds = 9, .slice_ns = 100000000};

static char tmpdir[64], bindir[PATH_MAX];

void perf_add(const struct perf_case *c)
{
	if (perf_table.nr == perf_table.capacity) {
		perf_table.capacity = perf_table.capacity ? 2 * perf_table.capacity : 64;
		perf_table.cases = realloc(perf_table.cases,
			perf_table.capacity * sizeof(*perf_table.cases));
		if (!perf_table.cases)
			abort();
	}
	perf_table.cases[perf_table.nr++] = *c;
}

const char *perf_tmpdir(void)
{
	return tmpdir;
}

const char *perf_bindir(void)
{
	return bindir;
}

int perf_far_ns(void)
{
	const char *path = getenv("WEFT_LINE_FAR");

	return path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
}

const char *perf_far_ip(void)
{
	const char *ip = getenv("WEFT_LINE_FAR_IP");

	return ip ? ip : "127.0.0.1";
}

uint64_t perf_own_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void tmpdir_remove(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	char name[512];

	while (d && (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(name, sizeof(name), "%s/%.255s", path, e->d_name);
		if (unlink(name) < 0 && (errno == EISDIR || errno == EPERM))
			tmpdir_remove(name);
	}
	if (d)
		closedir(d);
	rmdir(path);
}

static int find_bindir(void)
{
	ssize_t n = readlink("/proc/self/exe", bindir, sizeof(bindir) - 1);
	char *slash;

	if (n < 0)
		return -errno;
	bindir[n] = 0;
	slash = strrchr(bindir, '/');
	*slash = 0;
	return 0;
}

int perf_dirs_init(void)
{
	const char *tmp = getenv("TMPDIR");
	int r = find_bindir();

	if (r < 0)
		return r;
	/* Sockets live there: the path must be short. */
	snprintf(tmpdir, sizeof(tmpdir), "%s/weft-perf.XXXXXX",
		tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	if (!mkdtemp(tmpdir)) {
		tmpdir[0] = 0;
		return -errno;
	}
	return 0;
}

void perf_dirs_fini(void)
{
	if (tmpdir[0] && !getenv("PERF_KEEP"))
		tmpdir_remove(tmpdir);
}
