/*
 * The state of attachments and donors in Prometheus' text format, version 0.0.4: each metric's samples
 * together, behind its HELP and TYPE.  One thread.
 */
#include "nbd-bridge/main/status-prometheus.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "fabric/util.h"

/* A label's value: backslash, quote and newline are escaped. */
static void print_label(const char *name, const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	printf("%s=\"", name);
	for (; text && *text; text++) {
		if (*text == '\n') {
			fputs("\\n", stdout);
			continue;
		}
		if (*text == '\\' || *text == '"')
			putchar('\\');
		putchar(*text);
	}
	putchar('"');
}

static void head(const char *metric, const char *type, const char *help)
{
	printf("# HELP %s %s\n# TYPE %s %s\n", metric, help, metric, type);
}

static uint64_t number_of(const json_t *json, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(json, key));
}

/* One number of each object's. */
static void simple(const json_t *objects, const char *metric, const char *type, const char *help,
	const char *label, const char *label_key, const char *key)
{
	json_t *json;
	size_t i;

	head(metric, type, help);
	json_array_foreach(objects, i, json) {
		if (!json_object_get(json, key))
			continue;
		printf("%s{", metric);
		print_label(label, json, label_key);
		printf("} %" PRIu64 "\n", number_of(json, key));
	}
}

static void print_up(const json_t *attachments)
{
	json_t *json;
	size_t i;

	head("weft_attachment_ready", "gauge", "1 while every lane is connected and the attachment is valid.");
	json_array_foreach(attachments, i, json) {
		printf("weft_attachment_ready{");
		print_label("name", json, "name");
		putchar(',');
		print_label("uri", json, "uri");
		putchar(',');
		print_label("transport", json, "transport");
		putchar(',');
		print_label("state", json, "state");
		printf("} %d\n", strcmp(json_string_value(json_object_get(json, "state")), "ready") == 0);
	}
}

static void print_transports(const json_t *attachments)
{
	json_t *json, *donor;
	size_t i, j;

	head("weft_transport", "gauge", "1 for the transport that the data of a donor goes over.");
	json_array_foreach(attachments, i, json) {
		json_array_foreach(json_object_get(json, "donors"), j, donor) {
			printf("weft_transport{");
			print_label("name", json, "name");
			printf(",donor=\"%zu\",", j);
			print_label("transport", donor, "transport");
			printf("} 1\n");
		}
	}
	head("weft_transport_changes_total", "counter", "Changes of the transport that the data of a donor goes over.");
	json_array_foreach(attachments, i, json) {
		json_array_foreach(json_object_get(json, "donors"), j, donor) {
			printf("weft_transport_changes_total{");
			print_label("name", json, "name");
			printf(",donor=\"%zu\"} %" PRIu64 "\n", j, number_of(donor, "transport_changes"));
		}
	}
}

static void print_requests(const json_t *attachments)
{
	json_t *json, *value;
	const char *kind;
	size_t i;

	head("weft_requests_total", "counter", "Requests answered.");
	json_array_foreach(attachments, i, json) {
		json_object_foreach(json_object_get(json, "requests"), kind, value) {
			printf("weft_requests_total{");
			print_label("name", json, "name");
			printf(",kind=\"%s\"} %" PRIu64 "\n", kind, (uint64_t)json_integer_value(value));
		}
	}
}

static void print_latencies(const json_t *attachments)
{
	static const struct {
		const char *key, *quantile;
	} quantiles[] = {{"p50", "0.5"}, {"p99", "0.99"}, {"max", "1"}};
	json_t *json, *latency;
	const char *kind;
	size_t i;

	head("weft_request_seconds", "summary", "Time from a request's arrival to its answer.");
	json_array_foreach(attachments, i, json) {
		json_object_foreach(json_object_get(json, "latency_us"), kind, latency) {
			for (size_t q = 0; q < WEFT_ARRAY_LEN(quantiles); q++) {
				printf("weft_request_seconds{");
				print_label("name", json, "name");
				printf(",kind=\"%s\",quantile=\"%s\"} %.9f\n", kind, quantiles[q].quantile,
					json_real_value(json_object_get(latency, quantiles[q].key)) / 1e6);
			}
			printf("weft_request_seconds_sum{");
			print_label("name", json, "name");
			printf(",kind=\"%s\"} %.9f\n", kind, json_real_value(json_object_get(latency, "sum")) / 1e6);
			printf("weft_request_seconds_count{");
			print_label("name", json, "name");
			printf(",kind=\"%s\"} %" PRIu64 "\n", kind, number_of(latency, "count"));
		}
	}
}

static void print_donor_regions(const json_t *donors)
{
	json_t *donor, *region;
	size_t i, j;

	head("weft_donor_region_bytes", "gauge", "Size of a region that is lent.");
	json_array_foreach(donors, i, donor) {
		json_array_foreach(json_object_get(donor, "regions"), j, region) {
			printf("weft_donor_region_bytes{pid=\"%" PRIu64 "\",", number_of(donor, "pid"));
			print_label("region", region, "name");
			putchar(',');
			print_label("epoch", region, "epoch");
			printf("} %" PRIu64 "\n", number_of(region, "size_bytes"));
		}
	}
}

static void print_protection(const json_t *donors)
{
	static const char *const keepers[] = {"holder", "systemd", "nobody"};
	json_t *donor, *region;
	size_t i, j;

	head("weft_donor_region_kept", "gauge", "1 for who keeps a region of memory when its donor crashes.");
	json_array_foreach(donors, i, donor) {
		json_array_foreach(json_object_get(donor, "regions"), j, region) {
			const char *by = json_string_value(json_object_get(region, "kept_by"));

			for (size_t k = 0; by && k < WEFT_ARRAY_LEN(keepers); k++) {
				printf("weft_donor_region_kept{");
				print_label("region", region, "name");
				printf(",by=\"%s\"} %d\n", keepers[k], strcmp(by, keepers[k]) == 0);
			}
		}
	}
}

static void print_usable(const json_t *donors)
{
	json_t *donor, *region;
	size_t i, j;

	head("weft_donor_region_usable", "gauge", "0 once a region's file was removed, replaced or cut, or its disk failed.");
	json_array_foreach(donors, i, donor) {
		json_array_foreach(json_object_get(donor, "regions"), j, region) {
			printf("weft_donor_region_usable{");
			print_label("region", region, "name");
			printf("} %d\n", !json_is_string(json_object_get(region, "trouble")));
		}
	}
}

static void print_donor_counters(const json_t *donors)
{
	static const struct {
		const char *metric, *type, *help, *key;
	} counters[] = {
		{"weft_donor_connections", "gauge", "Connections open.", "connections"},
		{"weft_donor_requests_total", "counter", "Requests of all connections.", "requests"},
		{"weft_donor_read_bytes_total", "counter", "Bytes read.", "read_bytes"},
		{"weft_donor_written_bytes_total", "counter", "Bytes written.", "written_bytes"},
		{"weft_donor_errors_total", "counter", "Requests answered with an error.", "errors"},
	};
	json_t *donor;
	size_t i;

	for (size_t n = 0; n < WEFT_ARRAY_LEN(counters); n++) {
		head(counters[n].metric, counters[n].type, counters[n].help);
		json_array_foreach(donors, i, donor)
			printf("%s{pid=\"%" PRIu64 "\"} %" PRIu64 "\n", counters[n].metric, number_of(donor, "pid"),
				number_of(json_object_get(donor, "counters"), counters[n].key));
	}
}

static void print_donor_strangers(const json_t *donors)
{
	static const struct {
		const char *metric, *type, *help, *key;
	} numbers[] = {
		{"weft_donor_strangers", "gauge", "Peers without a grant.", "now"},
		{"weft_donor_strangers_max", "gauge", "How many of them there may be.", "max"},
		{"weft_donor_strangers_total", "counter", "Peers that came without a grant.", "entered"},
		{"weft_donor_strangers_made_room_total", "counter", "Of them those that had to end for others.", "made_room"},
	};
	json_t *donor, *strangers;
	const char *transport;
	size_t i;

	for (size_t n = 0; n < WEFT_ARRAY_LEN(numbers); n++) {
		head(numbers[n].metric, numbers[n].type, numbers[n].help);
		json_array_foreach(donors, i, donor)
			json_object_foreach(json_object_get(donor, "strangers"), transport, strangers)
				printf("%s{pid=\"%" PRIu64 "\",transport=\"%s\"} %" PRIu64 "\n", numbers[n].metric,
					number_of(donor, "pid"), transport, number_of(strangers, numbers[n].key));
	}
}

void status_print_prometheus(const json_t *attachments, const json_t *donors)
{
	print_up(attachments);
	simple(attachments, "weft_region_bytes", "gauge", "Size of the region.", "name", "name", "bytes");
	print_requests(attachments);
	simple(attachments, "weft_request_errors_total", "counter", "Requests answered with an error.", "name", "name",
		"errors");
	simple(attachments, "weft_read_bytes_total", "counter", "Bytes read.", "name", "name", "read_bytes");
	simple(attachments, "weft_written_bytes_total", "counter", "Bytes written.", "name", "name", "written_bytes");
	simple(attachments, "weft_reconnects_total", "counter", "Connections made again after a loss.", "name", "name",
		"reconnects");
	print_transports(attachments);
	print_latencies(attachments);
	print_donor_regions(donors);
	print_usable(donors);
	print_protection(donors);
	print_donor_counters(donors);
	print_donor_strangers(donors);
}
