/* SPDX-License-Identifier: MIT */
/*
 * weft swap: a donor's memory as this machine's swap space.  This file is the command line.  One
 * thread.
 */
#include "nbd-bridge/main/swap.h"

#include <stdio.h>
#include <string.h>

#include "fabric/base/options.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/copying.h"
#include "fabric/driver.h"
#include "nbd-bridge/main/swap-kernel.h"
#include "nbd-bridge/main/swap-status.h"

static int parse_device(void *into, const struct weft_option *option, char *value)
{
	struct swap_options *o = into;

	o->device = true;
	o->device_path = value;
	return WEFT_GO_ON;
}

static int parse_name(void *into, const struct weft_option *option, char *value)
{
	/* Several donors' attachments have a number behind it. */
	if (!weft_name_valid(value) || value[0] == '-' || value[0] == '.' ||
		strlen(value) > WEFT_NAME_MAX - 3)
		return weft_option_refuse(option, value);
	((struct swap_options *)into)->name = value;
	return WEFT_GO_ON;
}

#define INTO(member) .into = offsetof(struct swap_options, member)
#define TEXT(member) .kind = WEFT_OPTION_TEXT, INTO(member)
#define FLAG(member) .kind = WEFT_OPTION_FLAG, INTO(member)

static const struct weft_option options[] = {
	{NULL, "on|off|status", "what to do", .kind = WEFT_OPTION_ARGUMENT,
		.wants = "what to do is on, off or status"},
	{NULL, "URI|NAME", "on: of the donors' regions; off, status: the name that `on` gave",
		.kind = WEFT_OPTION_ARGUMENT, .completion = WEFT_COMPLETE_URI},
	{"force", NULL, "on: although it is not safe; off: although memory may not suffice",
		FLAG(force)},
	{.kind = WEFT_OPTION_GROUP, .help = "on: the swap space"},
	{"name", "NAME", "how it is called (default: as the first region)",
		.kind = WEFT_OPTION_CALL, .parse = parse_name,
		.wants = "1 to 60 of A-Z a-z 0-9 . _ -"},
	{"size", "SIZE", "so much of each device (default: all)", .kind = WEFT_OPTION_SIZE,
		INTO(size_bytes), .min = 1 << 20, .wants = "a size of 1M or more, such as 64G"},
	{"priority", "NUMBER", "higher ones are filled first (default: above disks, 10 or more)",
		.kind = WEFT_OPTION_NUMBER, INTO(priority), .max = SWAP_PRIORITY_MAX},
	{"stripe", NULL, "several URIs are one striped device, not a device each", FLAG(striped)},
	{"mirror", "NUMBER", "each NUMBER URIs, one after the other, have copies of the same pages",
		.kind = WEFT_OPTION_NUMBER, INTO(copies), .min = 2, .max = WEFT_COPIES_MAX},
	{"new-contents", NULL, "give up what the regions hold, if they hold something",
		FLAG(new_contents)},
	{"zswap", NULL, "compress pages in memory first (the kernel's zswap)", FLAG(zswap)},
	{"dry-run", NULL, "only look whether it would be safe", FLAG(dry_run)},
	{.kind = WEFT_OPTION_GROUP, .help = "on: for one job"},
	{"cgroup", "PATH", "this group (cgroup v2) may have pages in swap", TEXT(cgroup),
		.completion = WEFT_COMPLETE_DIRECTORY},
	{"slice", "NAME", "the same, for a slice of systemd's", TEXT(slice)},
	{"memory-high", "SIZE", "what the group has in memory before it swaps (memory.high)",
		.kind = WEFT_OPTION_SIZE, INTO(high_bytes), .min = 1 << 20,
		.wants = "a size of 1M or more"},
	{"swap-max", "SIZE", "what it may have in swap (memory.swap.max; default: all there is)",
		.kind = WEFT_OPTION_SIZE, INTO(swap_max_bytes), .min = 1 << 20,
		.wants = "a size of 1M or more"},
	{"exclusive", NULL, "no other group at the top may swap", FLAG(exclusive)},
	{.kind = WEFT_OPTION_GROUP, .help = "on: how it is attached (weft help attach)"},
	{"device", "[PATH]", "this device; without PATH one that is free", .kind = WEFT_OPTION_CALL,
		.parse = parse_device, .follows = '/', .completion = WEFT_COMPLETE_FILE},
	{"device-kind", "auto|ublk|nbd", "the kernel's driver that makes it", TEXT(device_kind)},
	{"kernel-socket", NULL, "over plain TCP: the kernel holds the donor's connection itself",
		FLAG(kernel_socket)},
	{0},
};

/* The row between is parse()'s: it names the transports that there are. */
static const struct weft_option more_options[] = {
	{"lanes", "NUMBER", "threads, each with a connection", TEXT(lanes)},
	{"key", "FILE", "the key that the donor knows", TEXT(key),
		.completion = WEFT_COMPLETE_FILE},
	{"allow-insecure", NULL, "use no key", FLAG(allow_insecure)},
	{"verify", NULL, "what the donor changes is an I/O error", FLAG(verify)},
	{"encrypt", NULL, "the same, and the donor sees encrypted bytes alone", FLAG(encrypt)},
	{"cache", "SIZE", "keep up to SIZE of it in locked memory here", TEXT(cache)},
	{"cache-file", "PATH", "not safe for swap", TEXT(cache_file),
		.completion = WEFT_COMPLETE_FILE},
	{"dead-timeout", "SECONDS", "how long pages wait for a donor that is gone (default 30)",
		TEXT(dead_timeout)},
	{"timeout", "SECONDS", "how long an answer may take", TEXT(timeout)},
	{.kind = WEFT_OPTION_GROUP, .help = "off"},
	{"all", NULL, "whatever weft swap made", FLAG(all)},
	{"wait", "SECONDS", "wait so long for memory that others give back",
		.kind = WEFT_OPTION_SECONDS, INTO(wait_ms), .zero = true, .wants = "seconds"},
	{.kind = WEFT_OPTION_GROUP, .help = "status"},
	{"json", NULL, "as JSON", FLAG(json)},
	{0},
};

/* Which options belong to which action; an option that is not here is on's. */
static const struct {
	const char *option, *actions;
} belongs[] = {
	{"force", "on off"},
	{"all", "off"},
	{"wait", "off"},
	{"json", "status"},
};

static const struct action {
	const char *name;
	int (*fn)(const struct swap_options *o);
} actions[] = {{"on", swap_on}, {"off", swap_off}, {"status", swap_status}};

static const struct action *action_of(const char *name)
{
	for (size_t i = 0; i < WEFT_ARRAY_LEN(actions); i++)
		if (strcmp(actions[i].name, name) == 0)
			return &actions[i];
	return NULL;
}

static const char *actions_of(const char *option)
{
	for (size_t i = 0; i < WEFT_ARRAY_LEN(belongs); i++)
		if (strcmp(belongs[i].option, option) == 0)
			return belongs[i].actions;
	return "on";
}

static int check_belongs(const struct weft_command_line *line, const struct swap_options *o,
	const struct weft_option *rows)
{
	for (; rows->name || rows->kind != WEFT_OPTION_END; rows++) {
		const char *whose = rows->name ? actions_of(rows->name) : "";

		if (rows->name && weft_option_given(line, rows->name) && !strstr(whose, o->action))
			return weft_usage_error("--%s belongs to %s, not to %s", rows->name, whose,
				o->action);
	}
	return WEFT_GO_ON;
}

static int check_on(const struct swap_options *o)
{
	if (o->nr_arguments == 0)
		return weft_usage_error(
			"on: swap to which region? Give its URI, such as weft://HOST/REGION");
	if (o->nr_arguments > BRIDGE_MAX_DONORS)
		return weft_usage_error("at most %d URIs", BRIDGE_MAX_DONORS);
	for (unsigned i = 0; i < o->nr_arguments; i++)
		if (!strstr(o->arguments[i], "://"))
			return weft_usage_error(
				"on: '%s' is no URI of a region, such as weft://HOST/REGION",
				o->arguments[i]);
	if (o->nr_arguments % o->copies)
		return weft_usage_error("--mirror %u wants %u URIs, or a multiple of that",
			o->copies, o->copies);
	if (o->striped && o->nr_arguments == o->copies)
		return weft_usage_error("--stripe wants several URIs%s",
			o->copies > 1 ? ", of which not all are copies of each other" : "");
	if (o->device_path && o->nr_arguments > o->copies && !o->striped)
		return weft_usage_error("--device %s is one device: several URIs want --stripe%s",
			o->device_path, o->copies > 1 ? "" : ", or --mirror");
	if (o->cgroup && o->slice)
		return weft_usage_error("--cgroup and --slice name the same thing: give one");
	if (!o->cgroup && !o->slice && (o->high_bytes || o->swap_max_bytes || o->exclusive))
		return weft_usage_error("--%s wants a group: --cgroup or --slice",
			o->exclusive            ? "exclusive"
				: o->high_bytes ? "memory-high"
						: "swap-max");
	return WEFT_GO_ON;
}

static int check(const struct weft_command_line *line, struct swap_options *o)
{
	if (line->nr_arguments == 0 || !action_of(line->arguments[0]))
		return line->nr_arguments == 0
			? weft_usage_error("%s", options[0].wants)
			: weft_usage_error("'%s': %s", line->arguments[0], options[0].wants);
	o->action = line->arguments[0];
	o->arguments = line->arguments + 1;
	o->nr_arguments = (unsigned)line->nr_arguments - 1;
	o->has_priority = weft_option_given(line, "priority");
	int r = check_belongs(line, o, options);
	if (r == WEFT_GO_ON)
		r = check_belongs(line, o, line->tables[1].options);
	if (r == WEFT_GO_ON)
		r = check_belongs(line, o, more_options);
	if (r == WEFT_GO_ON && strcmp(o->action, "on") == 0)
		r = check_on(o);
	if (r != WEFT_GO_ON || strcmp(o->action, "off") != 0)
		return r;
	if (o->all == (o->nr_arguments > 0))
		return weft_usage_error(o->all ? "off: --all, or names"
					       : "off: which one? Give its name, or --all");
	return WEFT_GO_ON;
}

static int parse(int argc, char **argv, struct swap_options *o)
{
	char choices[120];
	const struct weft_option transport[] = {
		{"transport", tp_choices("|", choices, sizeof(choices)), "how data travels",
			TEXT(transport)},
		{0},
	};
	struct weft_command_line line = {
		.command = "swap",
		.synopsis = "on URI... [--size SIZE] [--priority NUMBER] [--cgroup PATH | --slice "
			    "NAME] [OPTION]...\n"
			    "off NAME... | --all [--wait SECONDS] [--force]\n"
			    "status [NAME]... [--json]",
		.about = "Donors' memory as swap space of this machine, or of one job on it (root "
			 "only).",
		.tables = {{options, o}, {transport, o}, {more_options, o}},
	};
	int r = weft_options_parse(&line, argc, argv);

	return r == WEFT_GO_ON ? check(&line, o) : r;
}

/* Above every disk, whatever the kernel or an administrator gave it. */
static unsigned usual_priority(void)
{
	struct swap_spaces spaces;
	int priority = SWAP_PRIORITY_USUAL;

	swap_spaces_read(&spaces);
	for (size_t i = 0; i < spaces.nr; i++)
		if (!spaces.at[i].is_compressed_memory && spaces.at[i].priority >= priority)
			priority = spaces.at[i].priority + 1;
	return (unsigned)weft_min((uint64_t)priority, SWAP_PRIORITY_MAX);
}

int swap_status(const struct swap_options *o)
{
	json_t *status = swap_status_collect(o);

	if (!status)
		return 1;
	if (o->json) {
		json_dumpf(status, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		swap_status_print(status);
	}
	json_decref(status);
	return 0;
}

int main(int argc, char **argv)
{
	struct swap_options o = {.copies = 1};

	weft_process_begin();
	int r = parse(argc, argv, &o);
	if (r != WEFT_GO_ON)
		return r;
	if (!o.has_priority)
		o.priority = usual_priority();
	return weft_end_output("weft-swap", action_of(o.action)->fn(&o));
}
