/* SPDX-License-Identifier: MIT */
/* The command line of weft bench.  One thread, before anything is started. */
#include <stdlib.h>
#include <string.h>

#include "fabric/base/options.h"
#include "fabric/base/util.h"
#include "perf/bench/bench.h"
#include "perf/methods/methods.h"

static bool parse_number(const char *text, unsigned long most, unsigned *ret)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end || value < 1 || value > most || text[0] == '-')
		return false;
	*ret = (unsigned)value;
	return true;
}

static bool read_sizes(char *list, struct bench_options *o)
{
	uint64_t size;

	o->nr_sizes = 0;
	for (char *save, *one = strtok_r(list, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
		if (o->nr_sizes == WEFT_ARRAY_LEN(o->sizes) || weft_parse_size(one, &size) < 0 ||
			size < 4096 || size > 4 << 20 || size % 4096)
			return false;
		o->sizes[o->nr_sizes++] = (uint32_t)size;
	}
	return o->nr_sizes > 0;
}

static bool read_depths(char *list, struct bench_options *o)
{
	o->nr_depths = 0;
	for (char *save, *one = strtok_r(list, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
		if (o->nr_depths == WEFT_ARRAY_LEN(o->depths) ||
			!parse_number(one, BENCH_MAX_DEPTH, &o->depths[o->nr_depths]))
			return false;
		if (o->nr_depths > 0 && o->depths[o->nr_depths] <= o->depths[o->nr_depths - 1])
			return false;
		o->nr_depths++;
	}
	return o->nr_depths > 0;
}

static bool read_fronts(char *list, struct bench_options *o)
{
	memset(o->fronts, 0, sizeof(o->fronts));
	memset(o->named, 0, sizeof(o->named));
	for (char *save, *one = strtok_r(list, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
		int front = 0;

		if (strcmp(one, "device") == 0) {
			o->fronts[BENCH_NBD] = o->fronts[BENCH_UBLK] = true;
			continue;
		}
		while (front < BENCH_NR_FRONTS && strcmp(one, bench_front_names[front]) != 0)
			front++;
		if (front == BENCH_NR_FRONTS)
			return false;
		o->fronts[front] = o->named[front] = true;
	}
	for (int front = 0; front < BENCH_NR_FRONTS; front++)
		if (o->fronts[front])
			return true;
	return false;
}

static int parse_paths(void *into, const struct weft_option *option, char *value)
{
	return read_fronts(value, into)
		? WEFT_GO_ON
		: weft_usage_error("--paths wants some of direct,socket,file,nbd,ublk,device");
}

static int parse_sizes(void *into, const struct weft_option *option, char *value)
{
	struct bench_options *o = into;

	o->have_sizes = true;
	return read_sizes(value, o) ? WEFT_GO_ON
				    : weft_usage_error("--sizes wants up to 8 sizes from 4K to 4M, "
						       "whole 4K each, such as 4K,64K");
}

static int parse_depths(void *into, const struct weft_option *option, char *value)
{
	return read_depths(value, into)
		? WEFT_GO_ON
		: weft_usage_error(
			  "--depths wants up to 8 numbers from 1 to %d that grow, such as 1,16",
			  BENCH_MAX_DEPTH);
}

static int parse_cache(void *into, const struct weft_option *option, char *value)
{
	struct bench_options *o = into;
	uint64_t size;

	if (weft_parse_size(value, &size) < 0 || size == 0)
		return weft_option_refuse(option, value);
	o->cache = value;
	return WEFT_GO_ON;
}

static int parse_time(void *into, const struct weft_option *option, char *value)
{
	struct bench_options *o = into;
	char *end;

	o->seconds = strtod(value, &end);
	if (end == value || *end || !(o->seconds > 0) || o->seconds > 86400)
		return weft_option_refuse(option, value);
	return WEFT_GO_ON;
}

static int parse_methods(void *into, const struct weft_option *option, char *value)
{
	struct bench_options *o = into;

	o->methods = true;
	o->methods_list = value;
	return WEFT_GO_ON;
}

/* Is it NAME=PATH, with a name that a method has? */
static int parse_device(void *into, const struct weft_option *option, char *value)
{
	struct bench_options *o = into;
	size_t len = strcspn(value, "=");

	if (value[len] == '\0' || value[len + 1] == '\0' || o->nr_devices == BENCH_MAX_DEVICES)
		return weft_option_refuse(option, value);
	if (!methods_are_devices(value, len))
		return weft_usage_error("--device: there is no '%.*s'", (int)len, value);
	o->devices[o->nr_devices++] = value;
	return WEFT_GO_ON;
}

static int parse_rtts(void *into, const struct weft_option *option, char *value)
{
	struct bench_options *o = into;
	char *end = value;

	o->nr_rtts = 0;
	for (bool more = true; more; value = end + 1) {
		double rtt_ms = strtod(value, &end);

		if (end == value || (*end && *end != ',') || !(rtt_ms >= 0) || rtt_ms > 1000 ||
			o->nr_rtts == BENCH_MAX_RTTS)
			return weft_option_refuse(option, value);
		o->rtts[o->nr_rtts++] = rtt_ms;
		more = *end == ',';
	}
	return WEFT_GO_ON;
}

static int parse_seed(void *into, const struct weft_option *option, char *value)
{
	struct bench_options *o = into;
	char *end;

	o->seed = strtoull(value, &end, 10);
	return end == value || *end || value[0] == '-' ? weft_option_refuse(option, value)
						       : WEFT_GO_ON;
}

static int parse_json(void *into, const struct weft_option *option, char *value)
{
	struct bench_options *o = into;

	o->json_file = value;
	o->json |= !value;
	return WEFT_GO_ON;
}

static int parse_csv(void *into, const struct weft_option *option, char *value)
{
	struct bench_options *o = into;

	o->csv_file = value;
	o->csv |= !value;
	return WEFT_GO_ON;
}

#define INTO(member) .into = offsetof(struct bench_options, member)

static const struct weft_option options[] = {
	{NULL, "URI", "as weft attach takes it; ?transport=rdma|tcp measures that one alone",
		.kind = WEFT_OPTION_ARGUMENT, .completion = WEFT_COMPLETE_URI},
	{.kind = WEFT_OPTION_GROUP, .help = "What is measured:"},
	{"read-only", NULL, "only read; the region keeps what it holds", .kind = WEFT_OPTION_FLAG,
		INTO(read_only)},
	{"overwrite", NULL, "destroy what the region holds", .kind = WEFT_OPTION_FLAG,
		INTO(overwrite)},
	{"paths", "LIST",
		"of direct, socket, file, nbd, ublk; "
		"device: both of these (default: all there are)",
		.kind = WEFT_OPTION_CALL, .parse = parse_paths},
	{"key", "FILE",
		"the key that the donor knows (default: $WEFT_KEY, ~/.config/weft/key, "
		"/etc/weft/key)",
		.kind = WEFT_OPTION_TEXT, INTO(key_file), .completion = WEFT_COMPLETE_FILE},
	{"allow-insecure", NULL, "use no key: in plaintext, with a donor that proves nothing",
		.kind = WEFT_OPTION_FLAG, INTO(allow_insecure)},
	{"cache", "SIZE", "measure bridges with a cache of this size beside those without",
		.kind = WEFT_OPTION_CALL, .parse = parse_cache, .wants = "a size such as 64M"},
	{"line", "OPTIONS",
		"lend memory at the far end of a line, and measure that: "
		"delay=1ms,loss=0.1%\n(weft line has the options)",
		.kind = WEFT_OPTION_TEXT, INTO(line)},
	{"sizes", "LIST", "bytes a request (default 4K,64K,1M)", .kind = WEFT_OPTION_CALL,
		.parse = parse_sizes},
	{"depths", "LIST", "requests in flight (default 1,4,16)", .kind = WEFT_OPTION_CALL,
		.parse = parse_depths},
	{"span", "SIZE", "how much of the region is used (default 64M; with --methods 256M)",
		.kind = WEFT_OPTION_SIZE,
		INTO(span_bytes), .min = WEFT_MIB, .wants = "a size of at least 1M"},
	{"time", "SECONDS", "how long to measure, about (default 40)", .kind = WEFT_OPTION_CALL,
		.parse = parse_time, .wants = "seconds"},
	{"rounds", "NUMBER", "rounds over all paths (default 9)", .kind = WEFT_OPTION_NUMBER,
		INTO(nr_rounds), .min = 1, .max = BENCH_MAX_ROUNDS},
	{.kind = WEFT_OPTION_GROUP, .help = "Methods beside each other, over lines made for it:"},
	{"methods", "[=LIST]",
		"of bulk, library, map, socket, file, nbd, ublk, push, move, peers (all)",
		.kind = WEFT_OPTION_CALL, .parse = parse_methods},
	{"quick", NULL, "less of it: two round trips, 64M, half a second each",
		.kind = WEFT_OPTION_FLAG, INTO(quick)},
	{"rtt", "LIST", "round trips in ms (default 0,1,2,5,10,25,40; with --quick 0,10)",
		.kind = WEFT_OPTION_CALL, .parse = parse_rtts,
		.wants = "up to 12 round trips in ms, such as 0,10,25"},
	{"at", "ADDRESS",
		"no lines: lend at this address of the machine; with RDMA and SRP, if an\n"
		"RDMA device has it",
		.kind = WEFT_OPTION_TEXT, INTO(at)},
	{"device", "NAME=PATH",
		"beside them measure a block device that was set up as nbd-client, nvme-tcp,\n"
		"nvme-rdma or srp; what is on it is overwritten",
		.kind = WEFT_OPTION_CALL, .parse = parse_device,
		.wants = "such as nvme-tcp=/dev/nvme0n1"},
	{"transports", "LIST", "of tcp, tls, quic, and with --at rdma, srp (default all)",
		.kind = WEFT_OPTION_TEXT, INTO(transports)},
	{"seed", "NUMBER", "of contents and of the order of random work (default 1)",
		.kind = WEFT_OPTION_CALL, .parse = parse_seed, .wants = "a number"},
	{"out", "DIR", "write report.html, .md, .csv and .json there", .kind = WEFT_OPTION_TEXT,
		INTO(out), .completion = WEFT_COMPLETE_DIRECTORY},
	{.kind = WEFT_OPTION_GROUP, .help = "How it is shown:"},
	{"json", "[=FILE]", "as JSON, on standard output or into a file", .kind = WEFT_OPTION_CALL,
		.parse = parse_json, .completion = WEFT_COMPLETE_FILE},
	{"csv", "[=FILE]", "as CSV, likewise", .kind = WEFT_OPTION_CALL, .parse = parse_csv,
		.completion = WEFT_COMPLETE_FILE},
	{"html", "FILE", "one HTML page with plots, which needs nothing else",
		.kind = WEFT_OPTION_TEXT, INTO(html_file), .completion = WEFT_COMPLETE_FILE},
	{"from", "FILE", "show an earlier run, from its JSON", .kind = WEFT_OPTION_TEXT, INTO(from),
		.completion = WEFT_COMPLETE_FILE},
	{"compare", NULL, "tell what changed from run A to run B; exits 1 if anything became worse",
		.kind = WEFT_OPTION_FLAG, INTO(compare)},
	{.kind = WEFT_OPTION_GROUP, .help = "Other:"},
	{0},
};

/* An argument that is one too many, or was not meant as one. */
static int surplus(const char *what, const struct weft_command_line *line, int wanted)
{
	const char *noun = wanted == 2 ? "a run" : "a URI";
	char extra[512];

	weft_options_explain(line, wanted, noun, extra, sizeof(extra));
	return weft_usage_error("%s: %s", what, extra);
}

static int check(struct bench_options *o)
{
	uint64_t largest = 0;

	if (!o->methods &&
		(o->quick || o->nr_rtts > 0 || o->transports || o->seed != 1 || o->at ||
			o->nr_devices > 0))
		return weft_usage_error("--quick, --rtt, --at, --device, --transports and --seed "
					"belong to --methods");
	if (!o->span_bytes)
		o->span_bytes = 64 * WEFT_MIB;
	for (unsigned i = 0; i < o->nr_sizes; i++)
		largest = weft_max(largest, o->sizes[i]);
	if (largest * o->depths[o->nr_depths - 1] > BENCH_BUF_BYTES)
		return weft_usage_error(
			"--sizes and --depths: at most 32 MiB may be in flight at once");
	if (o->read_only && o->overwrite)
		return weft_usage_error("--read-only and --overwrite exclude each other");
	if (o->json && o->csv)
		return weft_usage_error(
			"only one of --json and --csv can have the standard output; "
			"the other wants a file: --csv=FILE");
	return WEFT_GO_ON;
}

static int take_runs(struct bench_options *o, const struct weft_command_line *line)
{
	if (line->nr_arguments > 2)
		return surplus("--compare wants the JSON files of two runs", line, 2);
	if (line->nr_arguments != 2)
		return weft_usage_error("--compare wants the JSON files of two runs");
	if (o->csv || o->csv_file || o->html_file || o->from)
		return weft_usage_error("a comparison is shown as a table or as JSON");
	o->compare_a = line->arguments[0];
	o->compare_b = line->arguments[1];
	return WEFT_GO_ON;
}

static int take_methods(struct bench_options *o, const struct weft_command_line *line)
{
	static const double all[] = {0, 1, 2, 5, 10, 25, 40}, few[] = {0, 10};
	unsigned nr = o->quick ? WEFT_ARRAY_LEN(few) : WEFT_ARRAY_LEN(all);

	if (line->nr_arguments > 0)
		return surplus("--methods lends regions of its own", line, 0);
	if (o->line)
		return weft_usage_error("--methods makes lines of its own; see --rtt");
	if (!o->span_bytes)
		o->span_bytes = (o->quick ? 64 : 256) * WEFT_MIB;
	if (o->span_bytes < 16 * WEFT_MIB)
		return weft_usage_error("--methods wants a --span of at least 16M");
	for (const char *at = o->methods_list; at && *at; at += strcspn(at, ","), at += *at == ',')
		if (!methods_are_called(at, strcspn(at, ",")))
			return weft_usage_error("--methods: there is no '%.*s'",
				(int)strcspn(at, ","), at);
	if (o->at && o->nr_rtts > 0)
		return weft_usage_error("--rtt is of lines, and --at makes none");
	if (o->at)
		nr = 1; /* no delay */
	if (o->nr_rtts == 0) {
		memcpy(o->rtts, o->quick ? few : all, nr * sizeof(*all));
		o->nr_rtts = nr;
	}
	return check(o);
}

static int take_uri(struct bench_options *o, const struct weft_command_line *line)
{
	struct weft_error err;
	char extra[512];

	if (o->line)
		return line->nr_arguments > 0 ? surplus("--line lends a region of its own", line, 0)
					      : check(o);
	if (line->nr_arguments == 0)
		return weft_usage_error("which region? Give its URI, such as weft://HOST/REGION");
	if (line->nr_arguments > 1)
		return surplus("one URI at a time", line, 1);
	if (weft_uri_parse(line->arguments[0], &o->uri, &err) < 0) {
		weft_options_explain(line, 1, "a URI", extra, sizeof(extra));
		return weft_usage_error("%s", strstr(extra, "did you mean") ? extra : err.message);
	}
	if (!o->uri.foreign && o->uri.region[0] == '\0')
		return weft_usage_error(
			"name a region of the donor; to see its regions: weft list %s",
			line->arguments[0]);
	o->uri_text = weft_uri_format(&o->uri);
	return check(o);
}

int bench_options_parse(int argc, char **argv, struct bench_options *o)
{
	struct weft_command_line line = {
		.command = "bench",
		.synopsis = "URI [OPTION]...\n"
			    "--line OPTIONS [OPTION]...\n"
			    "--methods[=LIST] [--quick] [--out DIR] [OPTION]...\n"
			    "--from FILE [OPTION]...\n"
			    "--compare A.json B.json [OPTION]...",
		.about = "Measures a region over every path that leads to it: RDMA and TCP; "
			 "the transport itself, a bridge's socket, file and\n"
			 "devices.  It WRITES to the region, which must hold only zeros "
			 "in the span used, and leaves zeros there.",
		.tables = {{options, o}},
	};

	*o = (struct bench_options){
		.fronts = {true, true, true, true, true},
		.seed = 1,
		.seconds = 40,
		.nr_rounds = 9,
		.sizes = {4 << 10, 64 << 10, 1 << 20},
		.nr_sizes = 3,
		.depths = {1, 4, 16},
		.nr_depths = 3,
	};
	int r = weft_options_parse(&line, argc, argv);
	if (r != WEFT_GO_ON)
		return r;
	if (o->compare)
		return take_runs(o, &line);
	if (o->methods && !o->from)
		return take_methods(o, &line);
	if (!o->from)
		return take_uri(o, &line);
	return line.nr_arguments > 0 ? surplus("--from shows an earlier run", &line, 0) : check(o);
}
