/* SPDX-License-Identifier: MIT */
/* weft-serve's lines on standard output, and its status.  Main thread. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/main/serve.h"
#include "fabric/uri.h"

enum { LISTED_FILES = 20 }; /* of a directory, with their attach lines */

static void print_attach_line(const struct serve *s, const char *name)
{
	const struct weft_listening *l = serve_main_listening(s);
	struct weft_uri uri = {.region = (char *)name};
	char leaf[64];
	size_t n = 0;

	memcpy(uri.host, l->host, sizeof(uri.host));
	memcpy(uri.port, l->port, sizeof(uri.port));
	memcpy(uri.socket, l->socket, sizeof(uri.socket));
	char *text = weft_uri_format(&uri);
	/* A file name that any shell takes literally, on any machine. */
	for (const char *p = name; *p && n < sizeof(leaf) - 1; p++) {
		bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			(*p >= '0' && *p <= '9') || *p == '-' || *p == '_' || (*p == '.' && n > 0);

		leaf[n++] = plain ? *p : '_';
	}
	leaf[n] = '\0';
	/*
	 * "?" and "[" are patterns to a shell; a quote of its own the URI never has: it would be
	 * %27.
	 */
	const char *quote = text && strpbrk(text, "?[") ? "'" : "";
	printf("weft attach %s%s%s --mount %s.img\n", quote, text ? text : "?", quote, leaf);
	free(text);
}

static int print_file(void *ctx, const char *name, const char *description, uint64_t size_bytes)
{
	struct {
		const struct serve *s;
		unsigned n;
	} *c = ctx;

	for (unsigned i = 0; i < c->s->nr_wanted; i++)
		if (strcmp(c->s->wanted[i].name, name) == 0)
			return 0;
	if (c->n++ == LISTED_FILES) {
		char text[280];

		printf("and more; all are listed by:  weft list weft://%s\n",
			weft_listening_format(serve_main_listening(c->s), text));
		return 1;
	}
	printf("region '%s': %s ; map it with:  ", name, description);
	print_attach_line(c->s, name);
	return 0;
}

/* Where there is no swap nothing is swapped out. */
static bool machine_swaps(void)
{
	char line[256];
	unsigned lines = 0;
	FILE *f = fopen("/proc/swaps", "re");

	while (f && fgets(line, sizeof(line), f))
		lines++;
	if (f)
		fclose(f);
	return lines > 1; /* the first is a heading */
}

static void warn_unlocked(const struct weft_region *region)
{
	if (region->backing == WEFT_BACKING_MEMORY && !region->locked && machine_swaps())
		weft_warn(
			"region '%s' is not locked in memory, so this machine may swap it out; "
			"raise the limit "
			"(ulimit -l unlimited, or LimitMEMLOCK=infinity in a unit) and start again",
			region->name);
}

/* Prints how programs without weft can use the regions. */
static void print_stock_lines(const struct serve *s)
{
	const struct weft_listening *at = serve_main_listening(s);
	const char *proof = NULL;
	char line[400];

	/* On this machine a program of the donor's user needs none. */
	if (at->insecure && !s->allow_insecure)
		proof = weft_keys_are_there(s->keys) ? "key" : "certificate";
	for (unsigned i = 0; i < s->nr_listeners; i++) {
		const struct tp_driver *driver = s->listeners[i].driver;

		if (!driver->stock_line)
			continue;
		driver->stock_line(at, proof, line, sizeof(line));
		puts(line);
	}
}

/* … what lines of regions need before them … */
static void print_lines_before(const struct serve *s)
{
	for (unsigned i = 0; i < s->nr_listeners; i++) {
		const struct tp_driver *driver = s->listeners[i].driver;

		if (driver->region_line_before)
			printf("over %s, on the borrower, first:  %s\n", driver->label,
				driver->region_line_before);
	}
}

/* … and lines that hold for these contents alone. */
static void print_region_lines(const struct serve *s, const struct weft_region *region)
{
	char line[400];

	for (unsigned i = 0; i < s->nr_listeners; i++) {
		struct weft_listener *listener = s->listeners[i].listener;

		if (!listener->ops->region_line)
			continue;
		listener->ops->region_line(listener, region->name, region->epoch,
			weft_donor_tenure(s->donor, region), line, sizeof(line));
		printf("region '%s' over %s:  %s\n", region->name, s->listeners[i].driver->label,
			line);
	}
}

/* Which keys it knows its borrowers by. */
static void print_keys(const struct serve *s)
{
	if (!weft_keys_are_there(s->keys))
		return;
	size_t nr = weft_keys_count(s->keys);

	printf("keys in %s: %zu\n", weft_keys_dir(s->keys), nr);
	if (nr == 0 && !s->allow_insecure)
		weft_warn("there is no key in %s yet, so nobody is let in from elsewhere; make "
			  "one: weft key new NAME",
			weft_keys_dir(s->keys));
}

void serve_print_ready(const struct serve *s)
{
	struct {
		const struct serve *s;
		unsigned n;
	} files = {s, 0};
	char text[280];

	for (unsigned i = 0; i < s->nr_listening; i++) {
		printf("listening on %s\n", weft_listening_format(&s->listening[i], text));
		if (s->allow_insecure && !*s->listening[i].socket)
			weft_warn("whoever reaches %s can read and write all regions: no key is "
				  "asked for (--allow-insecure)",
				text);
	}
	print_keys(s);
	for (unsigned i = 0; i < s->nr_listeners; i++) {
		struct weft_listener_status status;

		weft_listener_status(s->listeners[i].listener, &status);
		if (status.place[0])
			printf("listening on %s over %s\n", status.place,
				s->listeners[i].driver->label);
	}
	print_stock_lines(s);
	print_lines_before(s);
	for (unsigned i = 0; i < s->nr_wanted; i++) {
		const struct weft_region *region = s->wanted[i].region;

		if (s->wanted[i].waits) {
			printf("region '%s': not lent before it is known whether it came here\n",
				region->name);
			continue;
		}
		printf("region '%s': %s, epoch %016" PRIx64 " ; map it with:  ", region->name,
			region->description, region->epoch);
		print_attach_line(s, region->name);
		print_region_lines(s, region);
		warn_unlocked(region);
	}
	if (s->directory)
		weft_donor_list(s->donor, NULL, print_file, &files, NULL);
	serve_print_pool(s);
	puts("ready");
	fflush(stdout);
}

static json_t *hex_json(uint64_t v)
{
	char text[17];

	snprintf(text, sizeof(text), "%016" PRIx64, v);
	return json_string(text);
}

/* In what a follower may trust. */
static void add_mark(json_t *json, const struct weft_marked *mark, bool was_marked)
{
	json_object_set_new(json, "was_marked", json_boolean(was_marked));
	json_object_set_new(json, "marked", json_boolean(weft_is_marked(mark->number)));
	json_object_set_new(json, "mark_s", json_real((double)mark->age_ms / 1e3));
}

static json_t *region_json(const struct weft_region *r, uint64_t tenure, bool recovered,
	enum serve_keeper keeper, const struct weft_marked *mark)
{
	static const char *const keepers[] = {"nobody", "holder", "systemd"};
	struct weft_error trouble = {0};

	weft_region_trouble(r, &trouble);
	json_t *json = json_pack("{s:s, s:s, s:I, s:s, s:b, s:b, s:o, s:o, s:b, s:s?, s:s?}",
		"name", r->name, "description", r->description, "size_bytes",
		(json_int_t)r->size_bytes, "backing",
		r->backing == WEFT_BACKING_MEMORY ? "memory"
			: r->block_bytes          ? "device"
			: r->store_ops            ? "backend"
						  : "file",
		"read_only", r->read_only, "locked", r->locked, "epoch", hex_json(r->epoch),
		"tenure", hex_json(tenure), "recovered", recovered, "kept_by",
		r->backing == WEFT_BACKING_MEMORY ? keepers[keeper] : NULL, "trouble",
		trouble.code ? trouble.message : NULL);
	add_mark(json, mark, r->was_marked);
	return json;
}

static void add_attachment(void *ctx, const struct weft_attachment_status *a)
{
	static const char *const modes[] = {"read", "shared", "write"};
	char generation[24];

	json_array_append_new(ctx,
		json_pack("{s:s, s:s, s:s, s:s, s:i, s:s?, s:s?, s:s?, s:b, s:f, s:o}", "region",
			a->region,
			"name", a->name, "mode", modes[a->mode], "generation",
			weft_format_generation(a->generation, generation, sizeof(generation)),
			"connections", (int)a->nr_sessions, "peer", a->peer[0] ? a->peer : NULL,
			"transport", a->transport[0] ? a->transport : NULL, "identity",
			a->identity[0] ? a->identity : NULL, "encrypted", a->encrypted, "silent_s",
			(double)a->silent_ms / 1e3, "lease_left_s",
			a->lease_left_ms == UINT64_MAX
				? json_null()
				: json_real((double)a->lease_left_ms / 1e3)));
}

struct troubles {
	char *said[8]; /* more are said a tick later */
	unsigned nr;
};

static void add_trouble(void *ctx, struct weft_region *region, bool from_directory)
{
	struct troubles *troubles = ctx;
	struct weft_error err;
	char *text;

	if (region->reported || troubles->nr == WEFT_ARRAY_LEN(troubles->said) ||
		weft_region_check(region, &err) == 0)
		return;
	if (asprintf(&text, "%s; it cannot be written or attached until %s", err.message,
		    from_directory ? "those who use it have detached"
				   : "weft serve is started anew") < 0)
		return;
	region->reported = true;
	troubles->said[troubles->nr++] = text;
}

void serve_warn_of_files(struct serve *s)
{
	struct troubles troubles = {.nr = 0};

	weft_donor_regions(s->donor, add_trouble, &troubles);
	for (unsigned i = 0; i < troubles.nr; i++) {
		weft_warn("%s", troubles.said[i]);
		free(troubles.said[i]);
	}
}

void serve_warn_given_back(const struct serve *s)
{
	bool upgrade = s->stop_signal == SIGUSR2; /* what somebody keeps is not given back */
	json_t *attachments = json_array(), *a;
	char size[32];
	size_t i;

	weft_donor_status(s->donor, add_attachment, attachments);
	json_array_foreach(attachments, i, a) {
		const char *name = json_string_value(json_object_get(a, "region"));
		const char *who = json_string_value(json_object_get(a, "name"));
		const char *peer = json_string_value(json_object_get(a, "peer"));
		/* "(stock NBD clients)" is no name */
		const char *quote = who && *who == '(' ? "" : "'";
		const struct serve_region *w = NULL;

		for (unsigned j = 0; j < s->nr_wanted; j++)
			if (name && strcmp(s->wanted[j].name, name) == 0)
				w = &s->wanted[j];
		if (!w || !who || w->path || (upgrade && w->keeper))
			continue;
		weft_format_size(w->region->size_bytes, size, sizeof(size));
		if (w->keeper == KEPT_BY_SYSTEMD)
			weft_warn("region '%s' (%s), which %s%s%s%s%s has attached: systemd keeps "
				  "it over a restart of the "
				  "unit and gives it back when the unit is stopped",
				name, size, quote, who, quote, peer ? " from " : "",
				peer ? peer : "");
		else
			weft_warn("giving back region '%s' (%s), which %s%s%s%s%s has attached%s",
				name, size, quote, who, quote, peer ? " from " : "",
				peer ? peer : "", w->keeper ? "; SIGUSR2 would have kept it" : "");
	}
	json_decref(attachments);
}

static json_t *strangers_json(const struct weft_strangers_status *s)
{
	return json_pack("{s:i, s:i, s:i, s:I, s:I}", "now", (int)s->now, "max", (int)s->max,
		"addresses", (int)s->addresses, "entered", (json_int_t)s->entered, "made_room",
		(json_int_t)s->made_room);
}

/* Adds a directory's file if somebody uses it; other files need not be open. */
static void add_open_file(void *ctx, struct weft_region *region, bool from_directory)
{
	struct weft_marked mark;

	if (!from_directory || atomic_load(&region->refs) <= 1)
		return;
	weft_donor_mark_of(region, &mark);
	json_array_append_new(ctx,
		region_json(region, region->tenure, false, KEPT_BY_NOBODY, &mark));
}

static json_t *keys_json(const struct serve *s)
{
	return weft_keys_are_there(s->keys)
		? json_pack("{s:s, s:I}", "directory", weft_keys_dir(s->keys), "identities",
			  (json_int_t)weft_keys_count(s->keys))
		: json_null();
}

/* Commands that ended with sense data, by its key (SPC 4.5.6). */
static json_t *sense_json(const uint64_t sense[16])
{
	static const char *const keys[16] = {"no_sense", "recovered_error", "not_ready",
		"medium_error", "hardware_error", "illegal_request", "unit_attention",
		"data_protect", "blank_check", "vendor_specific", "copy_aborted",
		"aborted_command", NULL, "volume_overflow", "miscompare", "completed"};
	json_t *json = json_object();

	for (unsigned i = 0; i < 16; i++)
		if (sense[i] > 0)
			json_object_set_new(json, keys[i] ? keys[i] : "reserved",
				json_integer((json_int_t)sense[i]));
	return json;
}

static json_t *counters_json(const struct weft_listener_status *c)
{
	json_t *json = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "connections",
		(json_int_t)c->connections, "accepted", (json_int_t)c->accepted, "refused",
		(json_int_t)c->refused, "requests", (json_int_t)c->requests, "read_bytes",
		(json_int_t)c->read_bytes, "written_bytes", (json_int_t)c->written_bytes, "errors",
		(json_int_t)c->errors);

	if (c->has_sense)
		json_object_set_new(json, "sense", sense_json(c->sense));
	return json;
}

json_t *serve_status_json(const struct serve *s)
{
	json_t *listen = json_array(), *regions = json_array(), *attachments = json_array(),
	       *strangers = json_object(), *transports = json_object(), *counters = NULL;
	char text[280];

	for (unsigned i = 0; i < s->nr_listening; i++)
		json_array_append_new(listen,
			json_string(weft_listening_format(&s->listening[i], text)));
	for (unsigned i = 0; i < s->nr_listeners; i++) {
		const struct serve_listener *l = &s->listeners[i];
		struct weft_listener_status status = {0};

		weft_listener_status(l->listener, &status);
		if (status.place[0])
			json_array_append_new(
				listen, json_sprintf("%s:%s", l->driver->word, status.place));
		json_object_set_new(strangers, l->driver->word, strangers_json(&status.strangers));
		json_object_set_new(transports, l->driver->word, counters_json(&status));
		if (i == 0) /* of the base transport alone, as ever */
			counters = counters_json(&status);
	}
	for (unsigned i = 0; i < s->nr_wanted; i++) {
		struct weft_welcome welcome;

		weft_donor_welcome(s->donor, s->wanted[i].region, &welcome);
		json_array_append_new(regions,
			region_json(s->wanted[i].region,
				weft_donor_tenure(s->donor, s->wanted[i].region),
				s->wanted[i].recovered, s->wanted[i].keeper, &welcome.mark));
	}
	weft_donor_regions(s->donor, add_open_file, regions);
	weft_donor_status(s->donor, add_attachment, attachments);
	return json_pack("{s:i, s:s, s:s, s:i, s:f, s:f, s:o, s:o, s:b, s:o, s:s?, s:o, s:o, "
			 "s:o, s:o, s:o, s:o}",
		"schema", WEFT_STATUS_SCHEMA, "kind", "donor", "version", WEFT_VERSION, "pid",
		(int)getpid(), "uptime_s", (double)(weft_now_ns() - s->start_ns) / 1e9, "lease_s",
		(double)s->lease_s, "listen", listen, "keys", keys_json(s), "allow_insecure",
		s->allow_insecure, "regions", regions, "directory", s->directory, "attachments",
		attachments, "strangers", strangers, "counters", counters, "transports", transports,
		"moves", weft_moves_status(s->moves), "pool", serve_pool_json(s));
}
