/* SPDX-License-Identifier: MIT */
/* Prints what weft swap status tells, for people: see swap-status.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "nbd-bridge/main/status-copies.h"
#include "nbd-bridge/main/swap-status.h"

static const char *text_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : "";
}

static uint64_t number_of(const json_t *json, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(json, key));
}

static double real_of(const json_t *json, const char *key)
{
	return json_number_value(json_object_get(json, key));
}

static char *size_of(const json_t *json, const char *key, char buf[32])
{
	return weft_format_size(number_of(json, key), buf, 32);
}

static void print_latency(const json_t *space, const char *kind, const char *what)
{
	const json_t *latency = json_object_get(json_object_get(space, "latency_s"), kind);

	if (number_of(latency, "count") > 0)
		printf("; %s p50 %.0f us, p99 %.0f us", what, 1e6 * real_of(latency, "p50"),
			1e6 * real_of(latency, "p99"));
}

static void print_pages(const json_t *space)
{
	if (!json_is_integer(json_object_get(space, "pages_out")))
		return;
	printf("    pages out %" PRIu64 " (%.0f a second), in %" PRIu64 " (%.0f a second)",
		number_of(space, "pages_out"), real_of(space, "pages_out_per_s"),
		number_of(space, "pages_in"), real_of(space, "pages_in_per_s"));
	print_latency(space, "write", "out");
	print_latency(space, "read", "in");
	putchar('\n');
}

static void print_donors(const json_t *space)
{
	const json_t *donors = json_object_get(space, "donors"), *donor;
	const json_t *copies = json_object_get(space, "copies");
	char size[32];
	size_t i;

	json_array_foreach(donors, i, donor) {
		const char *transport = text_of(donor, "transport");

		printf("    with %s%s%s%s%s ", text_of(donor, "uri"), transport[0] ? " (" : "",
			transport,
			json_is_true(json_object_get(donor, "plaintext")) ? ", in plaintext" : "",
			transport[0] ? ")" : "");
		if (number_of(donor, "lost_bytes") == 0 && number_of(space, "used_bytes") > 0 &&
			json_is_object(copies))
			printf("nothing is lost: there is another copy\n");
		else
			printf("%s of pages are lost, and the processes that touch them\n",
				size_of(donor, "lost_bytes", size));
	}
}

static void print_copies(const json_t *space)
{
	const json_t *copies = json_object_get(space, "copies");
	const char *state = text_of(space, "state");
	char line[1024];

	if (json_is_object(copies))
		printf("    %s\n", status_copies_line(copies, line, sizeof(line)));
	/* A bridge that died itself says nothing of its memory. */
	else if (json_is_object(json_object_get(space, "swap")) &&
		(strcmp(state, "stale") == 0 || strcmp(state, "dead") == 0))
		printf("    copies at several donors outlive the loss of one (weft swap on "
		       "--mirror)\n");
}

static void print_bridge(const json_t *space)
{
	const json_t *swap = json_object_get(space, "swap");
	char size[32];

	if (json_is_object(swap))
		printf("    bridge: %s locked, %" PRIu64 " major and %" PRIu64
		       " minor page faults\n",
			size_of(swap, "locked_bytes", size), number_of(swap, "faults_major"),
			number_of(swap, "faults_minor"));
	else if (strcmp(text_of(space, "state"), "dead") != 0)
		printf("    bridge: NOT locked in memory: it may itself be swapped out\n");
}

static void print_space(const json_t *space)
{
	char size[32], used[32];
	const char *state = text_of(space, "state"), *why = text_of(space, "why");

	printf("  %s  %s  ",
		json_is_null(json_object_get(space, "device")) ? "no device yet"
							       : text_of(space, "device"),
		text_of(space, "uri"));
	if (json_is_true(json_object_get(space, "active")))
		printf("%s of %s used", size_of(space, "used_bytes", used),
			size_of(space, "size_bytes", size));
	else
		printf("not swapped to");
	if (strcmp(state, "ready") != 0)
		printf("; %s%s%s", state, why[0] ? ": " : "", why);
	putchar('\n');
	print_pages(space);
	print_bridge(space);
	print_copies(space);
	print_donors(space);
}

/* A limit that there is none of is null. */
static const char *limit_of(const json_t *group, const char *key, char buf[32])
{
	return json_is_integer(json_object_get(group, key)) ? size_of(group, key, buf) : "no limit";
}

static void print_group(const json_t *swap)
{
	const json_t *group = json_object_get(swap, "group");
	char text[4][32];

	if (json_is_object(group))
		printf("  group %s: memory %s (memory.high %s), swap %s (memory.swap.max %s)\n",
			text_of(group, "path"), size_of(group, "memory_bytes", text[0]),
			limit_of(group, "high_bytes", text[1]),
			size_of(group, "swap_bytes", text[2]),
			limit_of(group, "swap_max_bytes", text[3]));
	if (json_is_true(json_object_get(swap, "exclusive")))
		printf("  the other groups at the top do not swap; the root group's own "
		       "processes cannot be kept from it\n");
	else if (json_is_object(group))
		printf("  other groups swap to it as well (--exclusive keeps them off)\n");
}

static void print_settings(const json_t *swap)
{
	const json_t *settings = json_object_get(swap, "settings"), *one;
	size_t i;

	json_array_foreach(settings, i, one)
		printf("  set: %s = %s (was %s)\n", text_of(one, "file"), text_of(one, "now"),
			text_of(one, "was"));
}

static void print_others(const json_t *status)
{
	const json_t *one;
	char size[32], used[32];
	size_t i;

	json_array_foreach(json_object_get(status, "others"), i, one)
		printf("other swap: %s%s, %s of %s used, priority %d\n", text_of(one, "path"),
			json_is_true(json_object_get(one, "compressed_memory"))
				? " (compressed memory)"
				: "",
			size_of(one, "used_bytes", used), size_of(one, "size_bytes", size),
			(int)json_integer_value(json_object_get(one, "priority")));
	if (text_of(status, "zswap")[0])
		printf("zswap is %s\n", text_of(status, "zswap"));
}

static void print_holders(const json_t *status)
{
	const json_t *list = json_object_get(status, "processes"), *one;
	char size[32];
	size_t i;

	if (json_array_size(list) == 0)
		return;
	printf("%" PRIu64 " process%s %s in swap; most have\n", number_of(status, "processes_all"),
		number_of(status, "processes_all") == 1 ? " has" : "es have",
		size_of(status, "processes_swap_bytes", size));
	json_array_foreach(list, i, one)
		printf("  %9s  pid %d (%s)\n", size_of(one, "swap_bytes", size),
			(int)json_integer_value(json_object_get(one, "pid")), text_of(one, "name"));
}

void swap_status_print(const json_t *status)
{
	const json_t *swaps = json_object_get(status, "swaps"), *swap, *space;
	size_t i, j;

	if (json_array_size(swaps) == 0)
		printf("nothing is swapped to a donor\n");
	json_array_foreach(swaps, i, swap) {
		printf("%s  priority %d\n", text_of(swap, "name"),
			(int)json_integer_value(json_object_get(swap, "priority")));
		json_array_foreach(json_object_get(swap, "spaces"), j, space)
			print_space(space);
		print_group(swap);
		print_settings(swap);
	}
	print_others(status);
	print_holders(status);
}
