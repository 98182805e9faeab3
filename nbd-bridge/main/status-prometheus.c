/* SPDX-License-Identifier: MIT */
/*
 * The state of attachments and donors in Prometheus' text format, version 0.0.4: each metric's
 * samples together, behind its HELP and TYPE; no two samples with the same labels, as that makes
 * the whole answer invalid.  A donor is named by where it listens, which a restart does not change.
 * A state is a sample for each possible state, 1 or 0.  One thread.
 */
#include "nbd-bridge/main/status-prometheus.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/driver.h"

struct label {
	const char *name, *value;
};
#define LABELS(...) ((const struct label[]){__VA_ARGS__, {NULL, NULL}})

struct metric {
	const char *name, *type, *help;
	const char *key; /* the number's key in the object */
};

static void head(const struct metric *m)
{
	printf("# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, m->type);
}

/* A label's value: backslash, quote and newline are escaped. */
static void print_label(const struct label *label)
{
	printf("%s=\"", label->name);
	for (const char *p = label->value ? label->value : ""; *p; p++) {
		if (*p == '\n') {
			fputs("\\n", stdout);
			continue;
		}
		if (*p == '\\' || *p == '"')
			putchar('\\');
		putchar(*p);
	}
	putchar('"');
}

static void sample(const char *metric, const struct label *labels, double value)
{
	printf("%s{", metric);
	for (const struct label *l = labels; l->name; l++) {
		if (l > labels)
			putchar(',');
		print_label(l);
	}
	/* Prometheus knows "NaN", but not "-nan". */
	if (isnan(value))
		puts("} NaN");
	else
		printf(value == floor(value) && fabs(value) < 9e15 ? "} %.0f\n" : "} %.9f\n",
			value);
}

static const char *text_of(const json_t *json, const char *key)
{
	return json_string_value(json_object_get(json, key));
}

/* A number may be missing, such as the quantile of no requests: NaN. */
static double number_of(const json_t *json, const char *key)
{
	const json_t *value = json_object_get(json, key);

	return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Prints the number of each object that has it, under one label. */
static void simple(const json_t *objects, const struct metric *metrics, size_t nr,
	const char *inside, const char *label, const char *label_key)
{
	const json_t *json, *numbers;
	size_t i;

	for (size_t n = 0; n < nr; n++) {
		head(&metrics[n]);
		json_array_foreach(objects, i, json) {
			numbers = inside ? json_object_get(json, inside) : json;
			if (json_is_number(json_object_get(numbers, metrics[n].key)))
				sample(metrics[n].name, LABELS({label, text_of(json, label_key)}),
					number_of(numbers, metrics[n].key));
		}
	}
}

/* ---- attachments ---- */

static void print_state(const json_t *attachments)
{
	static const char *const states[] = {"ready", "reconnecting", "dead", "stale",
		"not answering", "starting or ending"};
	static const struct metric ready = {"weft_attachment_ready", "gauge",
		"1 while every lane is connected and the attachment is valid.", NULL};
	static const struct metric state = {"weft_attachment_state", "gauge",
		"1 for the state that the attachment is in.", NULL};
	static const struct metric info = {"weft_attachment_info", "gauge",
		"1; what the attachment is of.", NULL};
	json_t *json;
	size_t i;

	head(&ready);
	json_array_foreach(attachments, i, json)
		sample(ready.name, LABELS({"name", text_of(json, "name")}),
			strcmp(text_of(json, "state"), "ready") == 0);
	head(&state);
	json_array_foreach(attachments, i, json)
		for (size_t s = 0; s < WEFT_ARRAY_LEN(states); s++)
			sample(state.name,
				LABELS({"name", text_of(json, "name")}, {"state", states[s]}),
				strcmp(text_of(json, "state"), states[s]) == 0);
	head(&info);
	json_array_foreach(attachments, i, json)
		sample(info.name,
			LABELS({"name", text_of(json, "name")}, {"uri", text_of(json, "uri")}), 1);
}

static void print_transport(const struct metric *metric, const json_t *attachment,
	const json_t *donor, const char *word)
{
	sample(metric->name,
		LABELS({"name", text_of(attachment, "name")}, {"donor", text_of(donor, "uri")},
			{"transport", word}),
		strcmp(text_of(donor, "transport"), word) == 0);
}

static void print_encrypted(const struct metric *metric, const json_t *attachment,
	const json_t *donor, const struct tp_driver *driver)
{
	const char *const *word = driver->encrypted_words;

	for (; word && *word; word++)
		print_transport(metric, attachment, donor, *word);
}

static void print_transports(const json_t *attachments)
{
	static const struct metric transport = {"weft_transport", "gauge",
		"1 for the transport that the data of a donor goes over.", NULL};
	static const struct metric changes = {"weft_transport_changes_total", "counter",
		"Changes of the transport that the data of a donor goes over.",
		"transport_changes"};
	json_t *json, *donor;
	size_t i, j;

	head(&transport);
	json_array_foreach(attachments, i, json)
		json_array_foreach(json_object_get(json, "donors"), j, donor)
			for (const struct tp_driver *const *driver = tp_drivers; *driver;
				driver++) {
				print_transport(&transport, json, donor, (*driver)->word);
				if ((*driver)->local_word)
					print_transport(&transport, json, donor,
						(*driver)->local_word);
				print_encrypted(&transport, json, donor, *driver);
			}
	head(&changes);
	json_array_foreach(attachments, i, json)
		json_array_foreach(json_object_get(json, "donors"), j, donor)
			sample(changes.name,
				LABELS({"name", text_of(json, "name")},
					{"donor", text_of(donor, "uri")}),
				number_of(donor, changes.key));
}

static void print_copy_states(const json_t *attachments)
{
	static const char *const states[] = {"current", "syncing", "lost", "others"};
	static const struct metric state = {"weft_copy_state", "gauge",
		"1 for the state that a donor's copy is in.", NULL};
	static const struct metric behind = {"weft_copy_behind_bytes", "gauge",
		"Bytes that a donor's copy may lack.", "behind_bytes"};
	const json_t *json, *member;
	size_t i, j;

	head(&state);
	json_array_foreach(attachments, i, json)
		json_array_foreach(json_object_get(json_object_get(json, "copies"), "members"), j,
			member)
			for (size_t s = 0; s < WEFT_ARRAY_LEN(states); s++)
				sample(state.name,
					LABELS({"name", text_of(json, "name")},
						{"donor", text_of(member, "donor")},
						{"state", states[s]}),
					strcmp(text_of(member, "state"), states[s]) == 0);
	head(&behind);
	json_array_foreach(attachments, i, json)
		json_array_foreach(json_object_get(json_object_get(json, "copies"), "members"), j,
			member)
			sample(behind.name,
				LABELS({"name", text_of(json, "name")},
					{"donor", text_of(member, "donor")}),
				number_of(member, behind.key));
}

static void print_requests(const json_t *attachments)
{
	static const struct metric requests = {"weft_requests_total", "counter",
		"Requests answered.", NULL};
	json_t *json, *value;
	const char *kind;
	size_t i;

	head(&requests);
	json_array_foreach(attachments, i, json)
		json_object_foreach(json_object_get(json, "requests"), kind, value)
			sample(requests.name,
				LABELS({"name", text_of(json, "name")}, {"kind", kind}),
				json_number_value(value));
}

static void print_latencies(const json_t *attachments)
{
	static const struct metric seconds = {"weft_request_seconds", "summary",
		"Time from a request's arrival to its answer.", NULL};
	static const struct {
		const char *key, *quantile;
	} quantiles[] = {{"p50", "0.5"}, {"p99", "0.99"}, {"max", "1"}};
	json_t *json, *latency;
	const char *kind;
	size_t i;

	head(&seconds);
	json_array_foreach(attachments, i, json) {
		json_object_foreach(json_object_get(json, "latency_s"), kind, latency) {
			const struct label name = {"name", text_of(json, "name")};

			for (size_t q = 0; q < WEFT_ARRAY_LEN(quantiles); q++)
				sample(seconds.name,
					LABELS(name, {"kind", kind},
						{"quantile", quantiles[q].quantile}),
					number_of(latency, quantiles[q].key));
			sample("weft_request_seconds_sum", LABELS(name, {"kind", kind}),
				number_of(latency, "sum"));
			sample("weft_request_seconds_count", LABELS(name, {"kind", kind}),
				number_of(latency, "count"));
		}
	}
}

static void print_attachments(const json_t *attachments)
{
	static const struct metric numbers[] = {
		{"weft_region_size_bytes", "gauge", "Size of the region.", "size_bytes"},
		{"weft_silent_seconds", "gauge",
			"How long a donor has not answered, while something waits for it.",
			"silent_s"},
		{"weft_waiting_requests", "gauge", "Requests that wait for a donor.",
			"waiting_requests"},
		{"weft_request_errors_total", "counter", "Requests answered with an error.",
			"errors"},
		{"weft_read_bytes_total", "counter", "Bytes read.", "read_bytes"},
		{"weft_written_bytes_total", "counter", "Bytes written.", "written_bytes"},
		{"weft_reconnects_total", "counter", "Connections made again after a loss.",
			"reconnects"},
	};
	static const struct metric cache[] = {
		{"weft_cache_size_bytes", "gauge", "Size of the cache.", "size_bytes"},
		{"weft_cache_valid_bytes", "gauge", "Bytes that the cache holds.", "valid_bytes"},
		{"weft_cache_dirty_bytes", "gauge", "Bytes of them that are not at the donor yet.",
			"dirty_bytes"},
		{"weft_cache_lost_bytes", "gauge", "Bytes of them that the cache file has lost.",
			"lost_bytes"},
		{"weft_cache_hits_total", "counter",
			"Requests that found all of their bytes in the cache.", "hits"},
		{"weft_cache_misses_total", "counter", "Requests that did not.", "misses"},
		{"weft_cache_fetched_bytes_total", "counter", "Bytes fetched into the cache.",
			"fetched_bytes"},
		{"weft_cache_pushed_bytes_total", "counter", "Bytes written back.", "pushed_bytes"},
		{"weft_cache_push_errors_total", "counter",
			"Write-backs that failed, and were tried again.", "push_errors"},
		{"weft_cache_bad_blocks_total", "counter",
			"Blocks of sealed contents that were not what was written.", "bad_blocks"},
	};
	static const struct metric copies[] = {
		{"weft_copies", "gauge", "Copies that there are of each stripe.", "copies"},
		{"weft_copies_min", "gauge", "Copies that a write has when it is answered.",
			"min_copies"},
		{"weft_copies_current", "gauge",
			"Copies that are current, of the stripe that has the fewest.", "current"},
	};
	static const struct metric swap[] = {
		{"weft_swap_locked_bytes", "gauge", "Memory that the bridge has locked.",
			"locked_bytes"},
		{"weft_swap_major_faults_total", "counter",
			"Page faults of the bridge that read a page; should be 0.", "faults_major"},
		{"weft_swap_minor_faults_total", "counter",
			"Other page faults of the bridge; should be 0.", "faults_minor"},
		{"weft_swap_reserve_free_bytes", "gauge", "What is free of the bridge's heap.",
			"reserve_free_bytes"},
		{"weft_swap_grown_bytes", "gauge", "What its reserve lacked; should be 0.",
			"grown_bytes"},
	};

	print_state(attachments);
	simple(attachments, numbers, WEFT_ARRAY_LEN(numbers), NULL, "name", "name");
	print_requests(attachments);
	print_latencies(attachments);
	print_transports(attachments);
	simple(attachments, cache, WEFT_ARRAY_LEN(cache), "cache", "name", "name");
	simple(attachments, swap, WEFT_ARRAY_LEN(swap), "swap", "name", "name");
	simple(attachments, copies, WEFT_ARRAY_LEN(copies), "copies", "name", "name");
	print_copy_states(attachments);
}

/* ---- donors ---- */

/* The first place where the donor listens. */
static struct label listen_of(const json_t *donor)
{
	return (struct label){"listen",
		json_string_value(json_array_get(json_object_get(donor, "listen"), 0))};
}

static void print_regions(const json_t *donors)
{
	static const char *const keepers[] = {"holder", "systemd", "nobody"};
	static const struct metric size = {"weft_donor_region_size_bytes", "gauge",
		"Size of a region that is lent.", "size_bytes"};
	static const struct metric usable = {"weft_donor_region_usable", "gauge",
		"0 once a region's file was removed, replaced or cut, or its disk failed.", NULL};
	static const struct metric kept = {"weft_donor_region_kept", "gauge",
		"1 for who keeps a region of memory when its donor crashes.", NULL};
	json_t *donor, *region;
	size_t i, j;

#define EACH_REGION \
	json_array_foreach(donors, i, donor) \
		json_array_foreach(json_object_get(donor, "regions"), j, region)
	head(&size);
	EACH_REGION
	sample(size.name, LABELS(listen_of(donor), {"region", text_of(region, "name")}),
		number_of(region, size.key));
	head(&usable);
	EACH_REGION
	sample(usable.name, LABELS(listen_of(donor), {"region", text_of(region, "name")}),
		!text_of(region, "trouble"));
	head(&kept);
	EACH_REGION
		for (size_t k = 0; text_of(region, "kept_by") && k < WEFT_ARRAY_LEN(keepers); k++)
			sample(kept.name,
				LABELS(listen_of(donor), {"region", text_of(region, "name")},
					{"by", keepers[k]}),
				strcmp(text_of(region, "kept_by"), keepers[k]) == 0);
#undef EACH_REGION
}

static bool same_user(const json_t *a, const json_t *b)
{
	static const char *const keys[] = {"region", "name", "mode", "identity",
		"encrypted"};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(keys); i++)
		if (!json_equal(json_object_get(a, keys[i]), json_object_get(b, keys[i])))
			return false;
	return true;
}

static const char *is_encrypted(const json_t *user)
{
	return json_is_true(json_object_get(user, "encrypted")) ? "yes" : "no";
}

/* Borrowers choose their names, and several may have the same: they become one sample. */
static void print_users(const json_t *donors)
{
	static const struct metric metrics[] = {
		{"weft_donor_attachment_connections", "gauge",
			"Connections of an attachment that holds a region.", "connections"},
		{"weft_donor_attachment_silent_seconds", "gauge",
			"How long ago an attachment that holds a region was heard.", "silent_s"},
	};
	json_t *donor, *user, *other;
	size_t i, j, k;

	for (size_t m = 0; m < WEFT_ARRAY_LEN(metrics); m++) {
		head(&metrics[m]);
		json_array_foreach(donors, i, donor) {
			const json_t *users = json_object_get(donor, "attachments");

			json_array_foreach(users, j, user) {
				const char *identity = text_of(user, "identity");
				double value = 0;
				bool first = true;

				json_array_foreach(users, k, other) {
					if (!same_user(user, other))
						continue;
					first &= k >= j;
					value = m == 0
						? value + number_of(other, metrics[m].key)
						: fmax(value, number_of(other, metrics[m].key));
				}
				if (first)
					sample(metrics[m].name,
						LABELS(listen_of(donor),
							{"region", text_of(user, "region")},
							{"attachment", text_of(user, "name")},
							{"mode", text_of(user, "mode")},
							{"identity", identity ? identity : ""},
							{"encrypted", is_encrypted(user)}),
						value);
			}
		}
	}
}

static void print_keys(const json_t *donors)
{
	static const struct metric identities = {"weft_donor_keys", "gauge",
		"Keys by which a donor knows borrowers.", NULL};
	static const struct metric insecure = {"weft_donor_allow_insecure", "gauge",
		"1 if a donor lends to whoever comes, without a key.", NULL};
	json_t *donor;
	size_t i;

	head(&identities);
	json_array_foreach(donors, i, donor)
		sample(identities.name, LABELS(listen_of(donor)),
			number_of(json_object_get(donor, "keys"), "identities"));
	head(&insecure);
	json_array_foreach(donors, i, donor)
		sample(insecure.name, LABELS(listen_of(donor)),
			json_is_true(json_object_get(donor, "allow_insecure")));
}

static void print_counters(const json_t *donors)
{
	static const struct metric counters[] = {
		{"weft_donor_connections", "gauge", "Connections open.", "connections"},
		{"weft_donor_requests_total", "counter", "Requests of all connections.",
			"requests"},
		{"weft_donor_read_bytes_total", "counter", "Bytes read.", "read_bytes"},
		{"weft_donor_written_bytes_total", "counter", "Bytes written.", "written_bytes"},
		{"weft_donor_errors_total", "counter", "Requests answered with an error.",
			"errors"},
	};
	json_t *donor;
	size_t i;

	for (size_t n = 0; n < WEFT_ARRAY_LEN(counters); n++) {
		head(&counters[n]);
		json_array_foreach(donors, i, donor)
			sample(counters[n].name, LABELS(listen_of(donor)),
				number_of(json_object_get(donor, "counters"), counters[n].key));
	}
}

/* The same of each transport; over RDMA there are no requests to the donor. */
static void print_donor_transports(const json_t *donors)
{
	static const struct metric counters[] = {
		{"weft_donor_transport_connections", "gauge", "Connections open, by transport.",
			"connections"},
		{"weft_donor_transport_requests_total", "counter", "Requests, by transport.",
			"requests"},
		{"weft_donor_transport_read_bytes_total", "counter", "Bytes read, by transport.",
			"read_bytes"},
		{"weft_donor_transport_written_bytes_total", "counter",
			"Bytes written, by transport.", "written_bytes"},
	};
	static const struct metric sense = {"weft_donor_sense_total", "counter",
		"SCSI commands that ended with sense data, by its key.", NULL};
	json_t *donor, *of, *n;
	const char *transport, *key;
	size_t i;

	for (size_t k = 0; k < WEFT_ARRAY_LEN(counters); k++) {
		head(&counters[k]);
		json_array_foreach(donors, i, donor)
			json_object_foreach(json_object_get(donor, "transports"), transport, of)
				sample(counters[k].name,
					LABELS(listen_of(donor), {"transport", transport}),
					number_of(of, counters[k].key));
	}
	head(&sense);
	json_array_foreach(donors, i, donor)
		json_object_foreach(json_object_get(donor, "transports"), transport, of)
			json_object_foreach(json_object_get(of, "sense"), key, n)
				sample(sense.name,
					LABELS(listen_of(donor), {"transport", transport},
						{"key", key}),
					(uint64_t)json_integer_value(n));
}

static void print_strangers(const json_t *donors)
{
	static const struct metric numbers[] = {
		{"weft_donor_strangers", "gauge", "Peers without a grant.", "now"},
		{"weft_donor_strangers_max", "gauge", "How many of them there may be.", "max"},
		{"weft_donor_strangers_total", "counter", "Peers that came without a grant.",
			"entered"},
		{"weft_donor_strangers_made_room_total", "counter",
			"Of them those that had to end for others.", "made_room"},
	};
	json_t *donor, *strangers;
	const char *transport;
	size_t i;

	for (size_t n = 0; n < WEFT_ARRAY_LEN(numbers); n++) {
		head(&numbers[n]);
		json_array_foreach(donors, i, donor)
			json_object_foreach(json_object_get(donor, "strangers"), transport,
				strangers)
				sample(numbers[n].name,
					LABELS(listen_of(donor), {"transport", transport}),
					number_of(strangers, numbers[n].key));
	}
}

static void print_held(const json_t *held)
{
	static const struct metric metrics[] = {
		{"weft_held_size_bytes", "gauge",
			"Size of a region that is kept although its donor is gone.", "size_bytes"},
		{"weft_held_left_seconds", "gauge", "How long it is kept yet.", "left_s"},
	};
	json_t *region;
	size_t i;

	for (size_t m = 0; m < WEFT_ARRAY_LEN(metrics); m++) {
		head(&metrics[m]);
		json_array_foreach(held, i, region)
			sample(metrics[m].name,
				LABELS({"listen", text_of(region, "listen")},
					{"region", text_of(region, "region")},
					{"epoch", text_of(region, "epoch")}),
				number_of(region, metrics[m].key));
	}
}

void status_print_prometheus(const json_t *attachments, const json_t *donors, const json_t *held)
{
	print_attachments(attachments);
	print_regions(donors);
	print_users(donors);
	print_keys(donors);
	print_counters(donors);
	print_donor_transports(donors);
	print_strangers(donors);
	print_held(held);
}
