/* The command line of weft bench.  One thread, before anything is started. */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/arguments.h"
#include "fabric/base/util.h"
#include "perf/bench/bench.h"

static void usage(FILE *out)
{
	fputs("usage: weft bench URI [OPTION]...\n"
	      "       weft bench --from FILE [OPTION]...\n"
	      "       weft bench --compare A.json B.json [OPTION]...\n"
	      "Measures a region over every path that leads to it: RDMA and TCP; the transport itself, a bridge's socket, file and\n"
	      "devices.  It WRITES to the region, which must hold only zeros in the span used, and leaves zeros there.\n"
	      "\n"
	      "  URI                as weft attach takes it; ?transport=rdma|tcp measures that one alone\n"
	      "  --read-only        only read; the region keeps what it holds\n"
	      "  --overwrite        destroy what the region holds\n"
	      "  --paths LIST       of direct, socket, file, nbd, ublk; device: both of these (default: all there are)\n"
	      "  --cache SIZE       measure bridges with a cache of this size beside those without\n"
	      "  --sizes LIST       bytes a request (default 4K,64K,1M)\n"
	      "  --depths LIST      requests in flight (default 1,4,16)\n"
	      "  --span SIZE        how much of the region is used (default 64M)\n"
	      "  --time SECONDS     how long to measure, about (default 40)\n"
	      "  --rounds NUMBER    rounds over all paths (default 9)\n"
	      "  --json[=FILE]      as JSON, on standard output or into a file\n"
	      "  --csv[=FILE]       as CSV, likewise\n"
	      "  --html FILE        one HTML page with plots, which needs nothing else\n"
	      "  --from FILE        show an earlier run, from its JSON\n"
	      "  --compare          tell what changed from run A to run B; exits 1 if anything became worse\n"
	      "  --help             show this\n",
		out);
}

static int usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int usage_error(const char *fmt, ...)
{
	va_list ap;

	fputs("weft-bench: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\nTry: weft bench --help\n", stderr);
	return 1 + 2;
}

static bool parse_number(const char *text, unsigned long most, unsigned *ret)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end || value < 1 || value > most || text[0] == '-')
		return false;
	*ret = (unsigned)value;
	return true;
}

static bool parse_sizes(char *list, struct bench_options *o)
{
	uint64_t size;

	o->nr_sizes = 0;
	for (char *save, *one = strtok_r(list, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
		if (o->nr_sizes == WEFT_ARRAY_LEN(o->sizes) || weft_parse_size(one, &size) < 0 || size < 4096 || size > 4 << 20 ||
			size % 4096)
			return false;
		o->sizes[o->nr_sizes++] = (uint32_t)size;
	}
	return o->nr_sizes > 0;
}

static bool parse_depths(char *list, struct bench_options *o)
{
	o->nr_depths = 0;
	for (char *save, *one = strtok_r(list, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
		if (o->nr_depths == WEFT_ARRAY_LEN(o->depths) || !parse_number(one, BENCH_MAX_DEPTH, &o->depths[o->nr_depths]))
			return false;
		if (o->nr_depths > 0 && o->depths[o->nr_depths] <= o->depths[o->nr_depths - 1])
			return false;
		o->nr_depths++;
	}
	return o->nr_depths > 0;
}

static bool parse_fronts(char *list, struct bench_options *o)
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

enum { READ_ONLY = 256, OVERWRITE, PATHS, CACHE, SIZES, DEPTHS, SPAN, TIME, ROUNDS, JSON, CSV, HTML, FROM, COMPARE, HELP };

static const struct option longs[] = {
	{"read-only", no_argument, NULL, READ_ONLY},
	{"overwrite", no_argument, NULL, OVERWRITE},
	{"paths", required_argument, NULL, PATHS},
	{"cache", required_argument, NULL, CACHE},
	{"sizes", required_argument, NULL, SIZES},
	{"depths", required_argument, NULL, DEPTHS},
	{"span", required_argument, NULL, SPAN},
	{"time", required_argument, NULL, TIME},
	{"rounds", required_argument, NULL, ROUNDS},
	{"json", optional_argument, NULL, JSON},
	{"csv", optional_argument, NULL, CSV},
	{"html", required_argument, NULL, HTML},
	{"from", required_argument, NULL, FROM},
	{"compare", no_argument, NULL, COMPARE},
	{"help", no_argument, NULL, HELP},
	{NULL, 0, NULL, 0},
};

/* An argument that is one too many, or was not meant as one. */
static int surplus(const char *what, char **argv, int argc, int wanted)
{
	char extra[512];

	return usage_error("%s%s", what,
		weft_arguments_explain(argv, argc, wanted, wanted == 2 ? "a run" : "a URI", longs, extra, sizeof(extra)));
}

static int check(struct bench_options *o)
{
	uint64_t largest = 0;

	for (unsigned i = 0; i < o->nr_sizes; i++)
		largest = weft_max(largest, o->sizes[i]);
	if (largest * o->depths[o->nr_depths - 1] > BENCH_BUF_BYTES)
		return usage_error("--sizes and --depths: at most 32 MiB may be in flight at once");
	if (o->read_only && o->overwrite)
		return usage_error("--read-only and --overwrite exclude each other");
	if (o->json && o->csv)
		return usage_error("only one of --json and --csv can have the standard output; the other wants a file: --csv=FILE");
	return 0;
}

int bench_options_parse(int argc, char **argv, struct bench_options *o)
{
	bool compare = false;
	struct weft_error err;
	char extra[512];
	uint64_t size;
	char *end;
	int c;

	*o = (struct bench_options){
		.fronts = {true, true, true, true, true},
		.span_bytes = 64 * WEFT_MIB,
		.seconds = 40,
		.nr_rounds = 9,
		.sizes = {4 << 10, 64 << 10, 1 << 20},
		.nr_sizes = 3,
		.depths = {1, 4, 16},
		.nr_depths = 3,
	};
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case READ_ONLY:
			o->read_only = true;
			break;
		case OVERWRITE:
			o->overwrite = true;
			break;
		case PATHS:
			if (!parse_fronts(optarg, o))
				return usage_error("--paths wants some of direct,socket,file,nbd,ublk,device");
			break;
		case CACHE:
			if (weft_parse_size(optarg, &size) < 0 || size == 0)
				return usage_error("--cache wants a size such as 64M, not '%s'", optarg);
			o->cache = optarg;
			break;
		case SIZES:
			if (!parse_sizes(optarg, o))
				return usage_error("--sizes wants up to 8 sizes from 4K to 4M, whole 4K each, such as 4K,64K");
			o->have_sizes = true;
			break;
		case DEPTHS:
			if (!parse_depths(optarg, o))
				return usage_error("--depths wants up to 8 numbers from 1 to %d that grow, such as 1,16",
					BENCH_MAX_DEPTH);
			break;
		case SPAN:
			if (weft_parse_size(optarg, &o->span_bytes) < 0 || o->span_bytes < WEFT_MIB)
				return usage_error("--span wants a size of at least 1M, not '%s'", optarg);
			break;
		case TIME:
			o->seconds = strtod(optarg, &end);
			if (end == optarg || *end || !(o->seconds > 0) || o->seconds > 86400)
				return usage_error("--time wants seconds, not '%s'", optarg);
			break;
		case ROUNDS:
			if (!parse_number(optarg, BENCH_MAX_ROUNDS, &o->nr_rounds))
				return usage_error("--rounds wants 1 to %d, not '%s'", BENCH_MAX_ROUNDS, optarg);
			break;
		case JSON:
			o->json_file = optarg;
			o->json |= !optarg;
			break;
		case CSV:
			o->csv_file = optarg;
			o->csv |= !optarg;
			break;
		case HTML:
			o->html_file = optarg;
			break;
		case FROM:
			o->from = optarg;
			break;
		case COMPARE:
			compare = true;
			break;
		case HELP:
			usage(stdout);
			return 1 + weft_end_output("weft-bench", 0);
		default:
			fputs("Try: weft bench --help\n", stderr);
			return 1 + 2;
		}
	}
	argc -= optind;
	argv += optind;
	if (compare) {
		if (argc > 2)
			return surplus("--compare wants the JSON files of two runs: ", argv, argc, 2);
		if (argc != 2)
			return usage_error("--compare wants the JSON files of two runs");
		if (o->csv || o->csv_file || o->html_file || o->from)
			return usage_error("a comparison is shown as a table or as JSON");
		o->compare_a = argv[0];
		o->compare_b = argv[1];
		return 0;
	}
	if (o->from)
		return argc > 0 ? surplus("--from shows an earlier run: ", argv, argc, 0) : check(o);
	if (argc != 1)
		return argc == 0 ? usage_error("which region? Give its URI, such as weft://HOST/REGION")
				 : surplus("one URI at a time: ", argv, argc, 1);
	if (weft_uri_parse(argv[0], &o->uri, &err) < 0) {
		weft_arguments_explain(argv, 1, 1, "a URI", longs, extra, sizeof(extra));
		return usage_error("%s", strstr(extra, "did you mean") ? extra : err.message);
	}
	if (!o->uri.foreign && o->uri.region[0] == '\0')
		return usage_error("name a region of the donor; what there is shows: weft list %s", argv[0]);
	o->uri_text = weft_uri_format(&o->uri);
	return check(o);
}
