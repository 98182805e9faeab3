/* SPDX-License-Identifier: MIT */
/*
 * weft status: the attachments and donors of this user on this machine, asked over their control
 * sockets.  One thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/control.h"
#include "fabric/hello.h"
#include "fabric/donor/holder.h"
#include "fabric/base/options.h"
#include "fabric/base/patience.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "nbd-bridge/cache/file.h"
#include "nbd-bridge/main/status-copies.h"
#include "nbd-bridge/main/status-names.h"
#include "nbd-bridge/main/status-prometheus.h"
#include "nbd-bridge/main/state.h"

enum {
	ANSWER_MS = 5000,
	SILENT_S = 2, /* a donor's silence is told after this time */
};

enum form { TABLE, JSON, PROMETHEUS, EXPLAIN };

struct collection {
	const char *name; /* only this one; NULL: all */
	enum form form;
	json_t *attachments, *donors;
	json_t *held; /* memory whose donor crashed */
	bool found;
	bool silent_donors; /* there are some, stopped or stuck */
};

/* ---- reading ---- */

static const char *text_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : "";
}

static uint64_t number_of(const json_t *json, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(json, key));
}

/* ---- collecting ---- */

/* For a dead bridge: adds what the donor has not received, and how to go on. */
static void add_what_is_left(json_t *json, const struct bridge_state_file *state)
{
	struct cache_file *file;
	struct weft_error err;

	if (state->again && state->directory)
		json_object_update_new(json,
			json_pack("{s:s, s:s}", "attach_again", state->again, "directory",
				state->directory));
	if (!state->cache_file)
		return;
	json_object_set_new(json, "cache_file", json_string(state->cache_file));
	int r = cache_file_open(state->cache_file, false, &file, &err);
	json_object_set_new(json, "unsaved_bytes",
		r < 0 ? json_null() : json_integer((json_int_t)cache_file_dirty_bytes(file)));
	if (r < 0)
		json_object_set_new(json, "cache_file_trouble", json_string(err.message));
	else
		cache_file_close(file);
}

/* The status of an attachment whose bridge does not answer. */
static json_t *from_state(const char *name, int error)
{
	struct bridge_state_file state;
	const char *now = "dead",
		   *why = "the bridge died; attach again with the same name, or detach it";
	bool alive;

	if (bridge_state_peek(name, &state, &alive, NULL) < 0)
		return NULL;
	if (alive && error == -ETIMEDOUT) {
		now = "not answering";
		why = "the bridge does not answer";
	} else if (alive) {
		now = "starting or ending";
		why = "the bridge has no control socket yet, or not any more";
	} else if (state.damaged) {
		why = "the bridge died, and its state is damaged, or of a newer weft: detach it "
		      "with --force";
	}
	json_t *json = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s?, s:s?, s:s?, s:i}", "schema",
		WEFT_STATUS_SCHEMA, "kind", "attachment", "name", name, "uri",
		state.uri ? state.uri : "", "state", now, "why", why, "socket", state.socket,
		"mount", state.mount, "device", state.device.path[0] ? state.device.path : NULL,
		"pid", (int)state.pid);
	if (state.key_file)
		json_object_set_new(json, "key",
			json_pack("{s:s, s:s}", "identity", state.donors[0].identity, "file",
				state.key_file));
	if (!alive)
		add_what_is_left(json, &state);
	bridge_state_fini(&state);
	return json;
}

/* Renames fields of an older bridge, which may outlive an upgrade. */
static json_t *from_older(json_t *answer)
{
	static const char *const keys[] = {"kind", "name", "uri", "state", "socket", "mount",
		"device", "pid"};
	json_t *json = json_pack("{s:i, s:s}", "schema", WEFT_STATUS_SCHEMA, "why",
		"the bridge is of another version of weft: attach anew to see more");

	for (size_t i = 0; i < WEFT_ARRAY_LEN(keys); i++)
		json_object_set(json, keys[i], json_object_get(answer, keys[i]));
	json_decref(answer);
	return json;
}

static int one_attachment(void *ctx, const char *name)
{
	struct collection *c = ctx;
	char socket[WEFT_NAME_MAX + 32];
	json_t *answer = NULL;

	if (c->name && strcmp(c->name, name) != 0)
		return 0;
	snprintf(socket, sizeof(socket), "attach-%s.sock", name);
	json_t *question = json_pack("{s:s}", "op", c->form == EXPLAIN ? "explain" : "status");
	weft_patience_begin("weft-status: waiting for the bridge of '%s', up to %d s", name,
		ANSWER_MS / 1000);
	int r = weft_control_ask(socket, question, ANSWER_MS, &answer, NULL);
	weft_patience_end();
	if (r < 0)
		answer = from_state(name, r);
	else if (number_of(answer, "schema") != WEFT_STATUS_SCHEMA)
		answer = from_older(answer);
	json_decref(question);
	if (answer) {
		json_array_append_new(c->attachments, answer);
		c->found = true;
	}
	return 0;
}

static int one_donor(void *ctx, const char *socket)
{
	struct collection *c = ctx;
	json_t *question = json_pack("{s:s}", "op", "status"), *answer = NULL;
	struct weft_error err = {0};

	weft_patience_begin("weft-status: waiting for the donor behind %s, up to %d s", socket,
		ANSWER_MS / 1000);
	int r = weft_control_ask(socket, question, ANSWER_MS, &answer, &err);
	weft_patience_end();
	if (r == 0) {
		json_array_append_new(c->donors, answer);
	} else if (err.code == ETIMEDOUT) {
		fprintf(stderr, "weft-status: a donor is not answering: %s\n", err.message);
		c->silent_donors = true;
	}
	json_decref(question);
	return 0;
}

/* One for each region. */
static void collect_held(struct collection *c)
{
	const struct weft_leftover *left;
	struct weft_leftovers *leftovers;
	char epoch[17];

	if (weft_leftovers_look(&leftovers) < 0)
		return;
	for (unsigned i = 0; (left = weft_leftovers_at(leftovers, i)); i++) {
		snprintf(epoch, sizeof(epoch), "%016" PRIx64, left->epoch);
		json_array_append_new(c->held,
			json_pack("{s:s, s:I, s:s, s:s, s:i, s:f}", "region", left->name,
				"size_bytes", (json_int_t)left->size_bytes, "epoch", epoch,
				"listen", left->place, "holder_pid", left->holder_pid, "left_s",
				(double)left->seconds));
	}
	weft_leftovers_free(leftovers);
}

/* ---- for people ---- */

static void print_latency(const json_t *attachment, const char *kind)
{
	const json_t *l = json_object_get(json_object_get(attachment, "latency_s"), kind);

	if (number_of(l, "count") == 0)
		return;
	printf("  %-6s %12" PRIu64 "  p50 %8.1f us  p99 %8.1f us  max %8.1f us\n", kind,
		number_of(l, "count"), 1e6 * json_real_value(json_object_get(l, "p50")),
		1e6 * json_real_value(json_object_get(l, "p99")),
		1e6 * json_real_value(json_object_get(l, "max")));
}

static void print_records(const json_t *attachment)
{
	json_t *lane, *record;
	size_t i, j;

	json_array_foreach(json_object_get(attachment, "recorder"), i, lane) {
		printf("  lane %zu, the last %zu events, oldest first:\n", i,
			json_array_size(lane));
		json_array_foreach(lane, j, record) {
			const char *event = text_of(record, "event"),
				   *error = text_of(record, "error");

			printf("    -%10.3f ms  ",
				1e3 * json_real_value(json_object_get(record, "age_s")));
			if (strcmp(event, "request") == 0)
				printf("%-5s %10" PRIu64 " +%-8" PRIu64 " %9.1f us",
					text_of(record, "kind"), number_of(record, "offset_bytes"),
					number_of(record, "length_bytes"),
					1e6 *
						json_real_value(
							json_object_get(record, "duration_s")));
			else
				printf("%-9s generation %s, %" PRIu64 " operations", event,
					text_of(record, "generation"),
					number_of(record, "operations"));
			printf("%s%s\n", error[0] ? "  " : "", error);
		}
	}
}

/* How long ago, for people. */
static void print_since(const json_t *donor)
{
	uint64_t changes = number_of(donor, "transport_changes");

	printf("%s (%s)%s, changed %" PRIu64 " time%s", text_of(donor, "transport"),
		text_of(donor, "transport_why"), tp_word_note(text_of(donor, "transport")), changes,
		changes == 1 ? "" : "s");
	if (changes > 0)
		printf(", the last %.0f s ago",
			json_real_value(json_object_get(donor, "transport_since_s")));
}

static void print_key(const json_t *key)
{
	if (!json_is_object(key))
		return;
	if (text_of(key, "identity")[0])
		printf("  key %s, of %s\n", text_of(key, "identity"), text_of(key, "file"));
	else
		printf("  certificates of %s\n", text_of(key, "file"));
}

/* Where the region of a donor is, if it moved, or moves. */
static void print_move(const json_t *donor)
{
	if (text_of(donor, "moved_from")[0])
		printf("  now at %s, moved from %s\n", text_of(donor, "uri"),
			text_of(donor, "moved_from"));
	if (text_of(donor, "moving_to")[0])
		printf("  about to move to %s\n", text_of(donor, "moving_to"));
}

/* Prints a line for each of several donors; for a single donor its other ways. */
static void print_donors(const json_t *a)
{
	const json_t *donors = json_object_get(a, "donors");
	json_t *donor;
	char size[32];
	size_t i;

	if (json_array_size(donors) == 1) {
		donor = json_array_get(donors, 0);
		print_move(donor);
		print_key(json_object_get(donor, "key"));
		if (json_array_size(json_object_get(donor, "ways")) > 1) {
			printf("  transport ");
			print_since(donor);
			printf("\n");
		}
		return;
	}
	json_array_foreach(donors, i, donor) {
		json_t *lane, *link;
		size_t l, ready = 0;

		json_array_foreach(json_object_get(a, "lanes"), l, lane) {
			link = json_array_get(json_object_get(lane, "links"), i);
			ready += strcmp(text_of(link, "state"), "ready") == 0;
		}
		printf("  donor %s, %s, %zu of %zu lanes connected; transport ",
			text_of(donor, "uri"),
			weft_format_size(number_of(donor, "size_bytes"), size, sizeof(size)), ready,
			json_array_size(json_object_get(a, "lanes")));
		print_since(donor);
		printf("\n");
		print_move(donor);
		print_key(json_object_get(donor, "key"));
	}
	if (number_of(a, "stripe_bytes"))
		printf("  striped, %s at a time\n",
			weft_format_size(number_of(a, "stripe_bytes"), size, sizeof(size)));
}

static void print_copies(const json_t *copies)
{
	char line[1024];

	if (json_is_object(copies))
		printf("  %s\n", status_copies_line(copies, line, sizeof(line)));
}

static void print_cache(const json_t *cache)
{
	const json_t *ahead = json_object_get(cache, "ahead"),
		     *pull = json_object_get(cache, "pull");
	char size[32], chunk[32], valid[32], dirty[32], used[32], wasted[32], pulled[32], lost[32];

	printf("  cache %s in chunks of %s, %s: holds %s, %s of it not at the donor yet%s\n",
		weft_format_size(number_of(cache, "size_bytes"), size, sizeof(size)),
		weft_format_size(number_of(cache, "chunk_bytes"), chunk, sizeof(chunk)),
		text_of(cache, "policy"),
		weft_format_size(number_of(cache, "valid_bytes"), valid, sizeof(valid)),
		weft_format_size(number_of(cache, "dirty_bytes"), dirty, sizeof(dirty)),
		json_is_true(json_object_get(cache, "push_failing"))
			? "; writing back has failed, and is tried again"
			: "");
	const json_t *sealed = json_object_get(cache, "sealed");
	if (json_is_object(sealed))
		printf("  %s (%s): %" PRIu64 " blocks were not what was written%s%s\n",
			strcmp(text_of(sealed, "kind"), "encrypt") == 0 ? "encrypted and verified"
									: "verified",
			text_of(sealed, "algorithm"), number_of(cache, "bad_blocks"),
			json_is_string(json_object_get(sealed, "file")) ? "; sealed by " : "",
			json_is_string(json_object_get(sealed, "file")) ? text_of(sealed, "file")
									: "");
	if (number_of(cache, "lost_bytes") > 0)
		printf("  %s that were not at the donor are LOST: the cache file cannot be read "
		       "there\n",
			weft_format_size(number_of(cache, "lost_bytes"), lost, sizeof(lost)));
	printf("  hits %" PRIu64 ", misses %" PRIu64 ", fetched ahead and used %s, wasted %s\n",
		number_of(cache, "hits"), number_of(cache, "misses"),
		weft_format_size(number_of(ahead, "used_bytes"), used, sizeof(used)),
		weft_format_size(number_of(ahead, "wasted_bytes"), wasted, sizeof(wasted)));
	if (strcmp(text_of(pull, "state"), "off") != 0)
		printf("  pull: %s, %s so far\n", text_of(pull, "state"),
			weft_format_size(number_of(pull, "done_bytes"), pulled, sizeof(pulled)));
}

static void print_placing(const json_t *placing)
{
	const char *nodes = text_of(placing, "nodes"), *cpus = text_of(placing, "processors");

	if (!json_is_object(placing)) /* there is nowhere else to run */
		return;
	if (text_of(placing, "why")[0])
		printf("  lanes are not placed: %s\n", text_of(placing, "why"));
	else
		printf("  lanes near %s: node%s %s, processor%s %s\n", text_of(placing, "device"),
			strpbrk(nodes, ",-") ? "s" : "", nodes, strpbrk(cpus, ",-") ? "s" : "",
			cpus);
}

static void print_kernel_socket(const json_t *socket)
{
	uint64_t nr = number_of(socket, "sockets");

	if (json_is_object(socket))
		printf("  the kernel holds the donor's socket: %s, %s, %" PRIu64
		       " socket%s so far; without failover, stripes, cache and encryption\n",
			text_of(socket, "path"), text_of(socket, "state"), nr, nr == 1 ? "" : "s");
}

/* "ready, but no answer for 6 s (1 request waits)". */
static void print_silence(const json_t *a)
{
	double silent_s = json_real_value(json_object_get(a, "silent_s"));
	uint64_t waiting = number_of(a, "waiting_requests");

	if (silent_s < SILENT_S || strcmp(text_of(a, "state"), "stale") == 0)
		return;
	printf("%s for %.0f s", strcmp(text_of(a, "state"), "ready") == 0 ? ", but no answer" : "",
		silent_s);
	if (waiting > 0)
		printf(" (%" PRIu64 " request%s)", waiting, waiting == 1 ? " waits" : "s wait");
}

static void print_what_is_left(const json_t *a)
{
	char size[32];

	if (text_of(a, "cache_file_trouble")[0])
		printf("  what its cache file holds cannot be seen: %s\n",
			text_of(a, "cache_file_trouble"));
	else if (number_of(a, "unsaved_bytes") > 0)
		printf("  %s that are not at the donor are in %s; attaching again writes them "
		       "back, weft rescue saves them\n",
			weft_format_size(number_of(a, "unsaved_bytes"), size, sizeof(size)),
			text_of(a, "cache_file"));
	if (text_of(a, "attach_again")[0])
		printf("  attach it again, in %s: %s\n", text_of(a, "directory"),
			text_of(a, "attach_again"));
}

static void print_attachment(const json_t *a)
{
	const json_t *requests = json_object_get(a, "requests");
	char size[32], in[32], out[32];

	printf("%s  %s  %s", text_of(a, "name"), text_of(a, "uri"), text_of(a, "state"));
	print_silence(a);
	printf("%s%s\n", text_of(a, "why")[0] ? ": " : "", text_of(a, "why"));
	if (text_of(a, "ending")[0])
		printf("  told to end (%s); it ends when nobody uses it any more\n",
			text_of(a, "ending"));
	if (requests) {
		const struct tp_driver *driver = tp_driver_of_word(text_of(a, "transport"));
		const json_t *lanes = json_object_get(a, "lanes");

		printf("  %s, %s, up %.0f s; transport %s (%s)%s, %zu lane%s, %" PRIu64
		       " reconnect%s, generation %s\n",
			weft_format_size(number_of(a, "size_bytes"), size, sizeof(size)),
			text_of(a, "mode"), json_real_value(json_object_get(a, "uptime_s")),
			text_of(a, "transport"), text_of(a, "transport_why"),
			tp_word_note(text_of(a, "transport")), json_array_size(lanes),
			json_array_size(lanes) == 1 ? "" : "s", number_of(a, "reconnects"),
			number_of(a, "reconnects") == 1 ? "" : "s", text_of(a, "generation"));
		/* Which of the devices and GIDs is in use; how it is encrypted. */
		if ((driver && driver->shows_path) || strchr(text_of(a, "transport"), '+'))
			printf("  lane 0 goes over %s\n",
				text_of(json_array_get(lanes, 0), "path"));
		print_placing(json_object_get(a, "placing"));
		print_donors(a);
		print_copies(json_object_get(a, "copies"));
	}
	if (text_of(a, "device")[0])
		printf("  device %s%s%s%s\n", text_of(a, "device"),
			text_of(a, "device_why")[0] ? " (" : "", text_of(a, "device_why"),
			text_of(a, "device_why")[0] ? ")" : "");
	print_kernel_socket(json_object_get(a, "kernel_socket"));
	if (text_of(a, "socket")[0])
		printf("  socket %s, %zu client%s%s%s\n", text_of(a, "socket"),
			json_array_size(json_object_get(a, "clients")),
			json_array_size(json_object_get(a, "clients")) == 1 ? "" : "s",
			text_of(a, "socket_tenure")[0] ? ", tenure " : "",
			text_of(a, "socket_tenure"));
	if (text_of(a, "mount")[0])
		printf("  file %s%s\n", text_of(a, "mount"),
			json_is_false(json_object_get(a, "mounted"))
				? ", no longer mounted: it is not the region"
				: "");
	print_key(json_object_get(a, "key"));
	print_what_is_left(a);
	if (requests) {
		printf("  read %s, written %s, errors %" PRIu64 "\n",
			weft_format_size(number_of(a, "read_bytes"), in, sizeof(in)),
			weft_format_size(number_of(a, "written_bytes"), out, sizeof(out)),
			number_of(a, "errors"));
		if (json_is_object(json_object_get(a, "cache")))
			print_cache(json_object_get(a, "cache"));
		print_latency(a, "read");
		print_latency(a, "write");
		print_latency(a, "flush");
	}
	print_records(a);
}

/* What protects a region's contents when its donor crashes. */
static const char *protection(const json_t *region)
{
	const char *by = text_of(region, "kept_by");

	if (!*by) /* a file's are on its disk */
		return "";
	return strcmp(by, "holder") == 0   ? ", protected by the holder"
	       : strcmp(by, "systemd") == 0 ? ", protected by systemd's descriptor store"
					    : ", unprotected: lost if the donor crashes";
}

/* Printed only while there are some, or after there were too many. */
static void print_strangers(const json_t *donor)
{
	json_t *strangers;
	const char *transport;

	json_object_foreach(json_object_get(donor, "strangers"), transport, strangers) {
		if (number_of(strangers, "now") == 0 && number_of(strangers, "made_room") == 0)
			continue;
		printf("  peers without a grant over %s: %" PRIu64 " of at most %" PRIu64
		       ", from %" PRIu64 " address%s; %" PRIu64 " made room for others\n",
			transport, number_of(strangers, "now"), number_of(strangers, "max"),
			number_of(strangers, "addresses"),
			number_of(strangers, "addresses") == 1 ? "" : "es",
			number_of(strangers, "made_room"));
	}
}

/* Prints a borrower that has one of the donor's regions. */
static void print_user(const json_t *a)
{
	const char *name = text_of(a, "name"), *mode = text_of(a, "mode"),
		   *peer = text_of(a, "peer"), *port = strrchr(peer, ':');
	bool stock = *name == '('; /* "(stock NBD clients)" is no name */
	const char *identity = text_of(a, "identity");
	bool encrypted = json_is_true(json_object_get(a, "encrypted"));
	uint64_t n = number_of(a, "connections");
	const char *transport = text_of(a, "transport"), *note = tp_word_note(transport);

	/* The port belongs to one of its connections only, so it is left out. */
	printf("  region %s: used by %s%s%s (%s)%s%.*s%s%s%s%s%s%s, %" PRIu64
	       " connection%s, last heard %.1f s ago\n",
		text_of(a, "region"), stock ? "" : "attachment '", name, stock ? "" : "'",
		strcmp(mode, "write") == 0            ? "writer"
			: strcmp(mode, "shared") == 0 ? "shared reader"
						      : "reader",
		*peer ? " from " : "", port ? (int)(port - peer) : (int)strlen(peer), peer,
		*note ? " over " : "", *note ? transport : "",
		!*peer ? "" : encrypted ? ", encrypted" : ", in plaintext",
		*identity ? ", key '" : "", identity, *identity ? "'" : "", n, n == 1 ? "" : "s",
		json_real_value(json_object_get(a, "silent_s")));
}

static void print_word(const char *text)
{
	char *word = malloc(WEFT_SHELL_WORD_MAX(strlen(text)) + 1);

	if (word) {
		weft_shell_word(text, word);
		fputs(word, stdout);
	}
	free(word);
}

static void print_held(const json_t *held)
{
	char size[32], *option;

	printf("a donor on %s crashed: region %s, %s, is kept for %.0f s more by weftholder, pid "
	       "%" PRIu64 "\n",
		text_of(held, "listen"), text_of(held, "region"),
		weft_format_size(number_of(held, "size_bytes"), size, sizeof(size)),
		json_real_value(json_object_get(held, "left_s")), number_of(held, "holder_pid"));
	printf("  a donor there takes it back, with a --memory for each region that it is to take: "
	       "weft serve --listen ");
	print_word(text_of(held, "listen"));
	printf(" --memory ");
	if (asprintf(&option, "%s=%" PRIu64, text_of(held, "region"),
		    number_of(held, "size_bytes")) >= 0) {
		print_word(option);
		free(option);
	}
	printf("\n  to free it, with all that this weftholder keeps: kill %" PRIu64 "\n",
		number_of(held, "holder_pid"));
}

/* To whom it lends. */
static void print_keys(const json_t *d)
{
	const json_t *keys = json_object_get(d, "keys");
	uint64_t n = number_of(keys, "identities");

	if (json_is_object(keys))
		printf("  lends to those who have a key of %s, which has %" PRIu64 "\n",
			text_of(keys, "directory"), n);
	if (json_is_true(json_object_get(d, "allow_insecure")))
		printf("  lends to WHOEVER COMES, without a key (--allow-insecure)\n");
}

/* Only of a region that somebody follows, or pushes to. */
static void print_mark(const json_t *region)
{
	const double s = json_real_value(json_object_get(region, "mark_s"));

	if (json_is_true(json_object_get(region, "marked")))
		printf("    marked for those who follow it, %.0f s ago\n", s);
	else if (json_is_true(json_object_get(region, "was_marked")))
		printf("    no mark for those who follow it, for %.0f s\n", s);
}

static void print_donor(const json_t *d)
{
	json_t *listen, *r, *a;
	char size[32];
	size_t i;

	printf("donor, pid %" PRIu64 ", on", number_of(d, "pid"));
	json_array_foreach(json_object_get(d, "listen"), i, listen)
		printf("%s %s", i ? "," : "", json_string_value(listen));
	printf("\n");
	json_array_foreach(json_object_get(d, "regions"), i, r) {
		printf("  region %s, %s, epoch %s%s%s\n", text_of(r, "name"),
			weft_format_size(number_of(r, "size_bytes"), size, sizeof(size)),
			text_of(r, "epoch"),
			json_is_true(json_object_get(r, "read_only")) ? ", read-only" : "",
			protection(r));
		print_mark(r);
		if (text_of(r, "trouble")[0])
			printf("    cannot be written or attached: %s\n", text_of(r, "trouble"));
	}
	print_keys(d);
	json_array_foreach(json_object_get(d, "attachments"), i, a)
		print_user(a);
	print_strangers(d);
}

static void print_table(const struct collection *c)
{
	json_t *json;
	size_t i;

	json_array_foreach(c->attachments, i, json)
		print_attachment(json);
	json_array_foreach(c->donors, i, json)
		print_donor(json);
	json_array_foreach(c->held, i, json)
		print_held(json);
	if (json_array_size(c->attachments) + json_array_size(c->donors) +
				json_array_size(c->held) ==
			0 &&
		!c->silent_donors)
		puts("no attachments and no donors");
}

static void collect(struct collection *c)
{
	/* A bridge that was killed leaves its state, and maybe no socket. */
	bridge_state_each(one_attachment, c);
	if (!c->name)
		weft_control_each("serve-", one_donor, c);
	if (!c->name)
		collect_held(c);
}

static void print(const struct collection *c)
{
	if (c->form == PROMETHEUS) {
		status_print_prometheus(c->attachments, c->donors, c->held);
	} else if (c->form == JSON) {
		json_t *all = json_pack("{s:O, s:O, s:O}", "attachments", c->attachments, "donors",
			c->donors, "held", c->held);

		/* 17 digits, the default, show the error of the conversion: 598.01599999999996. */
		json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
		putchar('\n');
		json_decref(all);
	} else {
		print_table(c);
	}
}

/* The form's number is `min` of its row. */
static int parse_form(void *into, const struct weft_option *option, char *value)
{
	struct collection *c = into;

	if (c->form != TABLE)
		return weft_usage_error("one form at a time");
	c->form = (enum form)option->min;
	return WEFT_GO_ON;
}

static const struct weft_option options[] = {
	{NULL, "NAME", "only this attachment", WEFT_OPTION_ARGUMENT,
		.into = offsetof(struct collection, name), .completion = WEFT_COMPLETE_ATTACHMENT},
	{"json", NULL, "as JSON", WEFT_OPTION_CALL, .parse = parse_form, .min = JSON},
	{"prometheus", NULL, "as metrics in the text format that Prometheus reads",
		WEFT_OPTION_CALL, .parse = parse_form, .min = PROMETHEUS},
	{"explain", NULL, "with the last operations of each lane", WEFT_OPTION_CALL,
		.parse = parse_form, .min = EXPLAIN},
	{0},
};

/* WEFT_GO_ON, or the exit status. */
static int parse(int argc, char **argv, struct collection *c)
{
	struct weft_command_line line = {
		.command = "status",
		.synopsis = "[NAME] [--json | --prometheus | --explain]",
		.about = "Shows the attachments and the donors of this user on this machine.",
		.tables = {{options, c}},
		.surplus = "one name at a time",
		.noun = "a name",
	};

	return weft_options_parse(&line, argc, argv);
}

/* The worst of all attachments. */
static int code_of(const json_t *attachments)
{
	const json_t *json;
	int code = 0;
	size_t i;

	json_array_foreach(attachments, i, json) {
		int one = status_copies_code(json_object_get(json, "copies"));

		code = one > code ? one : code;
	}
	return code;
}

int main(int argc, char **argv)
{
	struct collection c = {.form = TABLE};
	int status = 0;

	weft_process_begin();
	/* For fabric/completion/weft; not an option. */
	if (argc == 3 && strcmp(argv[1], "--completion-names") == 0)
		return weft_end_output("weft-status", status_print_names(argv[2]));
	int r = parse(argc, argv, &c);
	if (r != WEFT_GO_ON)
		return r;
	c.attachments = json_array();
	c.donors = json_array();
	c.held = json_array();
	collect(&c);
	if (c.name && !c.found) {
		fprintf(stderr, "weft-status: there is no attachment '%s'\n", c.name);
		status = 1;
	} else {
		print(&c);
		status = code_of(c.attachments);
	}
	json_decref(c.attachments);
	json_decref(c.donors);
	json_decref(c.held);
	return weft_end_output("weft-status", status);
}
