/* SPDX-License-Identifier: MIT */
/* Collects what weft swap status tells: see swap-status.h. */
#include "nbd-bridge/main/swap-status.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fabric/base/util.h"
#include "fabric/machine/finding.h"
#include "fabric/machine/swapped.h"
#include "nbd-bridge/main/swap-bridge.h"
#include "nbd-bridge/main/swap-kernel.h"

enum { COUNT_MS = 1000, SWAPS_MAX = 64 };

struct collection {
	const struct swap_options *o;
	struct swap_note *notes;
	size_t nr;
	bool failed;
	struct swap_spaces spaces;
	json_t *remarks;
};

static json_t *integer(uint64_t value)
{
	return json_integer((json_int_t)value);
}

/* ---- which ---- */

static int take_note(void *ctx, const char *name)
{
	struct collection *c = ctx;
	struct weft_error err;

	if (c->nr == SWAPS_MAX)
		return 0;
	if (swap_note_read(name, &c->notes[c->nr], &err) == 0) {
		c->nr++;
		return 0;
	}
	fprintf(stderr, "weft-swap: %s\n", err.message);
	c->failed = true;
	return 0;
}

static void take_notes(struct collection *c)
{
	for (unsigned i = 0; i < c->o->nr_arguments; i++)
		take_note(c, c->o->arguments[i]);
	if (c->o->nr_arguments == 0)
		swap_note_each(take_note, c);
}

/* ---- one space ---- */

/* Whether pages lie open on the way: neither the connection nor the contents are encrypted. */
static bool is_plaintext(const json_t *bridge, const json_t *donor)
{
	const json_t *cache = json_object_get(bridge, "cache");
	const char *kind =
		json_string_value(json_object_get(json_object_get(cache, "sealed"), "kind"));
	const char *word = json_string_value(json_object_get(donor, "transport"));

	return word && !strchr(word, '+') && !(kind && strcmp(kind, "encrypt") == 0);
}

enum { SILENT_S = 2 }; /* as weft status tells of silence */

/* A current copy whose donor has fallen silent, or lost its memory, may have to stay "current". */
static bool is_there(const json_t *member)
{
	const char *state = json_string_value(json_object_get(member, "state"));

	return state && strcmp(state, "current") == 0 &&
		!json_is_string(json_object_get(member, "why")) &&
		json_real_value(json_object_get(member, "silent_s")) < SILENT_S;
}

/* Whether another donor has a current copy of what the one of this number has. */
static bool has_another_copy(const json_t *copies, size_t donor)
{
	const json_t *members = json_object_get(copies, "members"), *member;
	const json_t *stripe = json_object_get(json_array_get(members, donor), "stripe");
	size_t i;

	json_array_foreach(members, i, member)
		if (i != donor && json_equal(json_object_get(member, "stripe"), stripe) &&
			is_there(member))
			return true;
	return false;
}

/* What is lost with each donor: of stripes, all that is on the device. */
static json_t *donors_of(const json_t *bridge, const struct swap_member *member, uint64_t used)
{
	const json_t *copies = json_object_get(bridge, "copies");
	json_t *ret = json_array(), *donor;
	size_t i;

	json_array_foreach(json_object_get(bridge, "donors"), i, donor)
		json_array_append_new(ret,
			json_pack("{s:O, s:O, s:b, s:o}", "uri", json_object_get(donor, "uri"),
				"transport", json_object_get(donor, "transport"), "plaintext",
				is_plaintext(bridge, donor), "lost_bytes",
				integer(has_another_copy(copies, i) ? 0 : used)));
	if (json_array_size(ret) == 0)
		json_array_append_new(ret,
			json_pack("{s:s, s:n, s:n, s:o}", "uri", member->uri, "transport",
				"plaintext", "lost_bytes", integer(used)));
	return ret;
}

/* NULL: the member's device is no swap space. */
static const struct swap_space *space_of(const struct collection *c,
	const struct swap_member *member)
{
	const struct swap_space *space = swap_spaces_find(&c->spaces, member->device);

	return space && (space->is_gone || swap_has_device(member) != 0) ? space : NULL;
}

static void add_bridge(json_t *space, const struct swap_member *member, uint64_t used)
{
	static const char *const copied[] = {"state", "why", "silent_s", "latency_s", "swap",
		"copies"};
	json_t *bridge = NULL;
	struct weft_error err;

	if (swap_ask_bridge(member->attachment, &bridge, &err) < 0)
		bridge = json_pack("{s:s, s:s, s:n, s:n, s:n, s:n}", "state", "dead", "why",
			err.message, "silent_s", "latency_s", "swap", "copies");
	for (size_t i = 0; i < WEFT_ARRAY_LEN(copied); i++)
		json_object_set(space, copied[i], json_object_get(bridge, copied[i]));
	json_object_set_new(space, "donors", donors_of(bridge, member, used));
	json_decref(bridge);
}

static void add_traffic(json_t *space, const struct swap_member *member)
{
	struct swap_traffic now;
	bool known = member->device[0] && swap_traffic_read(member->device, &now);

	json_object_set_new(space, "pages_in",
		known ? integer(now.read_bytes / weft_page_bytes()) : json_null());
	json_object_set_new(space, "pages_out",
		known ? integer(now.written_bytes / weft_page_bytes()) : json_null());
}

static json_t *space_json(const struct collection *c, const struct swap_member *member)
{
	const struct swap_space *space = space_of(c, member);
	json_t *json = json_pack("{s:s, s:s?, s:s, s:b, s:o, s:o}", "attachment",
		member->attachment, "device", member->device[0] ? member->device : NULL, "uri",
		member->uri, "active", space != NULL, "size_bytes",
		integer(space ? space->size_bytes : 0), "used_bytes",
		integer(space ? space->used_bytes : 0));

	add_bridge(json, member, space ? space->used_bytes : 0);
	add_traffic(json, member);
	return json;
}

/* ---- a swap ---- */

static json_t *group_json(const struct swap_note *note)
{
	static const char *const files[] = {"memory.high", "memory.current", "memory.swap.max",
		"memory.swap.current"};
	static const char *const keys[] = {"high_bytes", "memory_bytes", "swap_max_bytes",
		"swap_bytes"};
	char path[SWAP_PATH_MAX + 32], line[64];
	unsigned long long value;

	if (!note->group[0])
		return json_null();
	json_t *json = json_pack("{s:s}", "path", note->group);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", note->group, files[i]);
		bool is_number = swap_read_line(path, line, sizeof(line)) &&
			sscanf(line, "%llu", &value) == 1;

		/* "max" is no limit. */
		json_object_set_new(json, keys[i], is_number ? integer(value) : json_null());
	}
	return json;
}

static json_t *settings_json(const struct swap_note *note)
{
	json_t *ret = json_array();
	char now[SWAP_VALUE_MAX];

	for (size_t i = 0; i < note->nr_settings; i++) {
		const struct swap_setting *setting = &note->settings[i];
		bool is_there = swap_read_line(setting->path, now, sizeof(now));

		json_array_append_new(ret,
			json_pack("{s:s, s:s, s:s?}", "file", setting->path, "was", setting->was,
				"now", is_there ? now : NULL));
	}
	return ret;
}

static json_t *swap_json(const struct collection *c, const struct swap_note *note)
{
	json_t *spaces = json_array();

	for (size_t i = 0; i < note->nr_members; i++)
		json_array_append_new(spaces, space_json(c, &note->members[i]));
	return json_pack("{s:s, s:i, s:b, s:o, s:o, s:o}", "name", note->name, "priority",
		note->priority, "exclusive", note->exclusive, "group", group_json(note), "settings",
		settings_json(note), "spaces", spaces);
}

/* ---- rates ---- */

static void set_rate(json_t *space, const char *key, const char *rate_key, uint64_t bytes, double s)
{
	const json_t *before = json_object_get(space, key);
	double pages = (double)(bytes / weft_page_bytes()) - (double)json_integer_value(before);

	json_object_set_new(space, key, integer(bytes / weft_page_bytes()));
	json_object_set_new(space, rate_key, json_real(pages > 0 ? pages / s : 0));
}

/* Counts pages a second time, `s` after the first. */
static void add_rates(json_t *swaps, double s)
{
	json_t *swap, *space;
	size_t i, j;

	json_array_foreach(swaps, i, swap) {
		json_array_foreach(json_object_get(swap, "spaces"), j, space) {
			const char *device = json_string_value(json_object_get(space, "device"));
			struct swap_traffic now;

			if (!device || !swap_traffic_read(device, &now)) {
				json_object_set_new(space, "pages_in_per_s", json_null());
				json_object_set_new(space, "pages_out_per_s", json_null());
				continue;
			}
			set_rate(space, "pages_in", "pages_in_per_s", now.read_bytes, s);
			set_rate(space, "pages_out", "pages_out_per_s", now.written_bytes, s);
		}
	}
}

/* ---- the machine ---- */

static bool is_members(const struct collection *c, const struct swap_space *space)
{
	for (size_t i = 0; i < c->nr; i++)
		for (size_t j = 0; j < c->notes[i].nr_members; j++)
			if (space_of(c, &c->notes[i].members[j]) == space)
				return true;
	return false;
}

static json_t *others_json(const struct collection *c)
{
	json_t *ret = json_array();

	for (size_t i = 0; i < c->spaces.nr; i++) {
		const struct swap_space *space = &c->spaces.at[i];

		if (!is_members(c, space))
			json_array_append_new(ret,
				json_pack("{s:s, s:b, s:i, s:o, s:o}", "path", space->path,
					"compressed_memory", space->is_compressed_memory,
					"priority", space->priority, "size_bytes",
					integer(space->size_bytes), "used_bytes",
					integer(space->used_bytes)));
	}
	return ret;
}

static void add_holders(json_t *json)
{
	struct weft_swapped top[SWAP_STATUS_HOLDERS];
	json_t *list = json_array();
	struct weft_swapped_all all;

	weft_swapped(facts_root, UINT64_MAX, top, SWAP_STATUS_HOLDERS, &all);
	for (unsigned i = 0; i < weft_min(all.nr, SWAP_STATUS_HOLDERS); i++)
		json_array_append_new(list,
			json_pack("{s:i, s:s, s:o}", "pid", (int)top[i].pid, "name",
				weft_printable(top[i].name), "swap_bytes", integer(top[i].bytes)));
	json_object_set_new(json, "processes", list);
	json_object_set_new(json, "processes_all", integer(all.nr));
	json_object_set_new(json, "processes_swap_bytes", integer(all.bytes));
}

json_t *swap_status_collect(const struct swap_options *o)
{
	static const char *const zswap[] = {NULL, "off", "on"};
	struct collection c = {.o = o, .notes = calloc(SWAPS_MAX, sizeof(*c.notes))};
	const struct timespec pause = {.tv_sec = COUNT_MS / 1000};
	json_t *swaps = json_array();

	if (c.notes)
		take_notes(&c);
	swap_spaces_read(&c.spaces);
	const uint64_t begin_ns = weft_now_ns();
	for (size_t i = 0; i < c.nr; i++)
		json_array_append_new(swaps, swap_json(&c, &c.notes[i]));
	if (c.nr > 0)
		nanosleep(&pause, NULL);
	add_rates(swaps, (double)(weft_now_ns() - begin_ns) / 1e9);
	json_t *json = json_pack("{s:i, s:o, s:o, s:s?, s:o}", "schema", SWAP_STATUS_SCHEMA,
		"swaps", swaps, "others", others_json(&c), "zswap", zswap[swap_zswap()],
		"available_bytes", integer(swap_memory_available()));
	add_holders(json);
	free(c.notes);
	if (!c.failed)
		return json;
	json_decref(json);
	return NULL;
}
