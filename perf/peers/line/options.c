/* SPDX-License-Identifier: MIT */
/* The command line of weft line. */
#include "perf/peers/line/options.h"

#include <string.h>
#include <strings.h>

#include "fabric/base/options.h"
#include "fabric/base/util.h"

enum { MAX_DELAY_S = 60 };

struct unit {
	const char *name;
	double factor;
};

static const struct unit times[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {NULL, 0}};
static const struct unit rates[] = {
	{"bit", 1}, {"kbit", 1e3}, {"Mbit", 1e6}, {"Gbit", 1e9}, {NULL, 0}};
static const struct unit shares[] = {{"%", 0.01}, {NULL, 0}};

/* A number with a unit, at most `most`.  0 needs no unit. */
static bool parse(const char *text, const struct unit *units, double most, double *ret)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || !(value >= 0))
		return false;
	if (value == 0 && !*end) {
		*ret = 0;
		return true;
	}
	for (; units->name; units++)
		if (strcasecmp(end, units->name) == 0 && value * units->factor <= most) {
			*ret = value * units->factor;
			return true;
		}
	return false;
}

/* into: of the table's object, where a uint64_t of ns is. */
static int parse_time(void *into, const struct weft_option *option, char *value)
{
	double ns;

	if (!parse(value, times, MAX_DELAY_S * 1e9, &ns))
		return weft_option_refuse(option, value);
	*(uint64_t *)((char *)into + option->into) = (uint64_t)ns;
	return WEFT_GO_ON;
}

static int parse_rate(void *into, const struct weft_option *option, char *value)
{
	struct line_options *o = into;
	double rate;

	if (!parse(value, rates, 1e12, &rate) || (rate > 0 && rate < 1000))
		return weft_option_refuse(option, value);
	o->shape.rate_bit_s = (uint64_t)rate;
	return WEFT_GO_ON;
}

static int parse_loss(void *into, const struct weft_option *option, char *value)
{
	struct line_options *o = into;

	return parse(value, shares, 1, &o->shape.loss) ? WEFT_GO_ON
						       : weft_option_refuse(option, value);
}

static int parse_seed(void *into, const struct weft_option *option, char *value)
{
	struct line_options *o = into;
	char *end;

	o->shape.seed = strtoull(value, &end, 10);
	return end != value && !*end && value[0] != '-' ? WEFT_GO_ON
							: weft_option_refuse(option, value);
}

#define INTO(member) .into = offsetof(struct line_options, member)

static const struct weft_option options[] = {
	{NULL, "COMMAND", "what runs at the near end, and its arguments",
		.kind = WEFT_OPTION_ARGUMENT},
	{.kind = WEFT_OPTION_GROUP, .help = "What becomes of packets:"},
	{"delay", "TIME", "one way, such as 500us, 10ms or 1s (default 0)",
		.kind = WEFT_OPTION_CALL, .parse = parse_time, INTO(shape.delay_ns),
		.wants = "a time of at most 60s, such as 10ms"},
	{"jitter", "TIME", "the delay differs by up to so much; packets keep their order",
		.kind = WEFT_OPTION_CALL, .parse = parse_time, INTO(shape.jitter_ns),
		.wants = "a time of at most 60s, such as 1ms"},
	{"loss", "PERCENT", "share of the packets that are lost (default 0%)",
		.kind = WEFT_OPTION_CALL, .parse = parse_loss,
		.wants = "a share of the packets, such as 0.1%"},
	{"rate", "RATE", "bits a second, such as 100Mbit (default: as fast as it goes)",
		.kind = WEFT_OPTION_CALL, .parse = parse_rate,
		.wants = "bits a second, from 1kbit to 1000Gbit"},
	{"queue", "SIZE", "bytes that may wait for the rate; what comes then is lost (default 1M)",
		.kind = WEFT_OPTION_SIZE, INTO(shape.queue_bytes), .min = 65536,
		.wants = "a size of at least 64K"},
	{"mtu", "BYTES", "the largest packet (default 1500)", .kind = WEFT_OPTION_NUMBER, INTO(mtu),
		.min = 576, .max = 65535, .wants = "bytes, "},
	{"seed", "NUMBER", "of the chance: the same packets are lost again",
		.kind = WEFT_OPTION_CALL, .parse = parse_seed, .wants = "a number"},
	{.kind = WEFT_OPTION_GROUP, .help = "Its ends:"},
	{"near", "NETNS", "an existing network namespace: a name, a process id or a path",
		.kind = WEFT_OPTION_TEXT, INTO(existing[0])},
	{"far", "NETNS", "likewise", .kind = WEFT_OPTION_TEXT, INTO(existing[1])},
	{"number", "NUMBER", "tells lines apart that meet in a namespace (default 0)",
		.kind = WEFT_OPTION_NUMBER, INTO(number), .max = 255},
	{.kind = WEFT_OPTION_GROUP, .help = "Other:"},
	{"stats", "FILE", "what went over it, as JSON, once it has ended", .kind = WEFT_OPTION_TEXT,
		INTO(stats_file), .completion = WEFT_COMPLETE_FILE},
	{0},
};

int line_options_parse(int argc, char **argv, struct line_options *o)
{
	struct weft_command_line line = {
		.command = "line",
		.synopsis = "[OPTION]... [COMMAND [ARGUMENT]...]",
		.about = "Joins two network namespaces by a line with a given delay, jitter, loss, "
			 "rate and MTU, and runs a\n"
			 "command at its near end.  Without one it prints where the ends are, and "
			 "lasts until it is told to end.",
		.runs_program = true,
		.tables = {{options, o}},
	};

	*o = (struct line_options){.mtu = 1500};
	o->shape.queue_bytes = WEFT_MIB;
	o->shape.seed = weft_random_name() >> 12;
	int r = weft_options_parse(&line, argc, argv);
	if (r != WEFT_GO_ON)
		return r;
	if (o->shape.jitter_ns > o->shape.delay_ns)
		return weft_usage_error(
			"--jitter can be at most --delay: nothing arrives before it was sent");
	o->command = line.nr_arguments > 0 ? line.arguments : NULL;
	return WEFT_GO_ON;
}
