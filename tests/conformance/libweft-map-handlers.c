/* SPDX-License-Identifier: MIT */
/*
 * The threads that take a map's page faults: how many are woken, and on which processor.  Where the
 * kernel cannot map, the cases are skipped with what weft_map() says.
 */
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/libweft-peer.h"

enum { UNIT = 4096, FAULTS = 512, MANY = 8 };

static struct weft_map *map_with(struct weft *w, unsigned handlers)
{
	const struct weft_map_options o = {.size = sizeof(o),
		.unit_bytes = UNIT,
		.handlers = handlers};
	struct weft_map *m;
	char why[256];

	if (weft_page_bytes() > UNIT)
		conf_skip("the region is too small for so many faults of larger pages");
	int r = weft_map(w, 0, weft_size(w), &o, &m, why, sizeof(why));

	if (r == -ENOTSUP || r == -ENOSYS)
		conf_skip("%s", why);
	if (r < 0)
		fail_msg("%s", why);
	assert_int_equal(weft_map_advise(m, WEFT_MAP_RANDOM), 0);
	return m;
}

/* Calls fn for each thread of that name. */
static void each_thread(const char *name, void (*fn)(int thread, void *ctx), void *ctx)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		char path[64], found[32] = "";

		snprintf(path, sizeof(path), "/proc/self/task/%.16s/comm", entry->d_name);
		FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (!file)
			continue;
		if (fgets(found, sizeof(found), file))
			found[strcspn(found, "\n")] = '\0';
		fclose(file);
		if (strcmp(found, name) == 0)
			fn(atoi(entry->d_name), ctx);
	}
	closedir(dir);
}

/* How often the thread has slept. */
static void add_sleeps(int thread, void *ctx)
{
	unsigned long *total = ctx, nr = 0;
	char path[64], line[128];

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", thread);
	FILE *file = fopen(path, "re");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file) &&
		sscanf(line, "voluntary_ctxt_switches: %lu", &nr) != 1)
		;
	fclose(file);
	*total += nr;
}

static unsigned long sleeps_of_handlers(void)
{
	unsigned long nr = 0;

	each_thread("weft-map", add_sleeps, &nr);
	return nr;
}

static void fault(struct weft_map *m, unsigned first, unsigned nr)
{
	volatile uint8_t *p = weft_map_addr(m);

	for (unsigned i = first; i < first + nr; i++)
		(void)p[i * UNIT];
}

/* It sleeps for the fault, and perhaps for the line; all others sleep on. */
static void a_fault_wakes_one_handler(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_with(w, MANY);

	fault(m, 0, 1);
	const unsigned long before = sleeps_of_handlers();
	fault(m, 1, FAULTS);
	const unsigned long sleeps = sleeps_of_handlers() - before;
	if (sleeps >= MANY / 2 * FAULTS)
		fail_msg("%d handlers slept %lu times in %d faults", MANY, sleeps, FAULTS);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

static void add_affinity(int thread, void *ctx)
{
	cpu_set_t *all = ctx, set;

	assert_int_equal(sched_getaffinity(thread, sizeof(set), &set), 0);
	CPU_OR(all, all, &set);
}

static bool handler_is_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	each_thread("weft-map", add_affinity, &set);
	return CPU_COUNT(&set) == 1 && CPU_ISSET(cpu, &set);
}

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
}

static void a_handler_goes_where_the_thread_is_that_waits(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	cpu_set_t all;
	int cpu = CPU_SETSIZE - 1;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	if (CPU_COUNT(&all) < 2)
		conf_skip("there is one processor");
	struct weft_map *m = map_with(w, 1);
	/* It begins on the first. */
	while (!CPU_ISSET(cpu, &all))
		cpu--;
	assert_false(handler_is_on(cpu));
	stay_on(cpu);
	for (unsigned i = 0; i < FAULTS && !handler_is_on(cpu); i++)
		fault(m, i, 1);
	assert_true(handler_is_on(cpu));
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

static void a_handler_stays_where_the_program_lets_it(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	cpu_set_t all;
	int first = 0, last = CPU_SETSIZE - 1;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	if (CPU_COUNT(&all) < 2)
		conf_skip("there is one processor");
	while (!CPU_ISSET(first, &all))
		first++;
	while (!CPU_ISSET(last, &all))
		last--;
	stay_on(first);
	struct weft_map *m = map_with(w, 1);
	stay_on(last);
	fault(m, 0, FAULTS);
	assert_true(handler_is_on(first));
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		libweft_case(a_fault_wakes_one_handler),
		libweft_case(a_handler_goes_where_the_thread_is_that_waits),
		libweft_case(a_handler_stays_where_the_program_lets_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
