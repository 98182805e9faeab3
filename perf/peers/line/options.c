/* The command line of weft line. */
#include "perf/peers/line/options.h"

#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "fabric/base/util.h"

enum { MIN_MTU = 576, MAX_MTU = 65535, MAX_DELAY_S = 60 };

static void usage(FILE *out)
{
	fputs("usage: weft line [OPTION]... [COMMAND [ARGUMENT]...]\n"
	      "Joins two network namespaces by a line with a given delay, jitter, loss, rate and "
	      "MTU, and runs a command at its\n"
	      "near end.  Without a command it prints where the ends are, and lasts until it is "
	      "told to end.\n"
	      "\n"
	      "  --delay TIME     one way, such as 500us, 10ms or 1s (default 0)\n"
	      "  --jitter TIME    the delay differs by up to so much; packets stay in order "
	      "(default 0)\n"
	      "  --loss PERCENT   of the packets, by chance (default 0%)\n"
	      "  --rate RATE      bits a second, such as 100Mbit or 10Gbit (default: as fast as it "
	      "goes)\n"
	      "  --queue SIZE     bytes that may wait for the rate; what comes then is lost "
	      "(default 1M)\n"
	      "  --mtu BYTES      the largest packet, from 576 to 65535 (default 1500)\n"
	      "  --seed NUMBER    of the chance: the same packets are lost again (default: another "
	      "each time)\n"
	      "  --near NETNS     an existing namespace for this end: a name, a process id or a "
	      "path\n"
	      "  --far NETNS      likewise\n"
	      "  --number N       tells lines apart that meet in a namespace, from 0 to 255 "
	      "(default 0)\n"
	      "  --stats FILE     what went over it, as JSON, once it has ended\n"
	      "  --help           show this\n",
		out);
}

static int usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int usage_error(const char *fmt, ...)
{
	va_list ap;

	fputs("weft-line: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\nTry: weft line --help\n", stderr);
	return 1 + 2;
}

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

static bool parse_whole(const char *text, unsigned long least, unsigned long most, unsigned *ret)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end || text[0] == '-' || value < least || value > most)
		return false;
	*ret = (unsigned)value;
	return true;
}

enum { DELAY = 256, JITTER, LOSS, RATE, QUEUE, MTU, SEED, NEAR, FAR, NUMBER, STATS, HELP };

static const struct option longs[] = {
	{"delay", required_argument, NULL, DELAY},
	{"jitter", required_argument, NULL, JITTER},
	{"loss", required_argument, NULL, LOSS},
	{"rate", required_argument, NULL, RATE},
	{"queue", required_argument, NULL, QUEUE},
	{"mtu", required_argument, NULL, MTU},
	{"seed", required_argument, NULL, SEED},
	{"near", required_argument, NULL, NEAR},
	{"far", required_argument, NULL, FAR},
	{"number", required_argument, NULL, NUMBER},
	{"stats", required_argument, NULL, STATS},
	{"help", no_argument, NULL, HELP},
	{NULL, 0, NULL, 0},
};

static int parse_time(const char *option, const char *text, uint64_t *ret_ns)
{
	double ns;

	if (!parse(text, times, MAX_DELAY_S * 1e9, &ns))
		return usage_error("%s wants a time of at most %d s, such as 10ms, not '%s'",
			option, MAX_DELAY_S, text);
	*ret_ns = (uint64_t)ns;
	return 0;
}

static int parse_rate(const char *text, uint64_t *ret)
{
	double rate;

	if (!parse(text, rates, 1e12, &rate) || (rate > 0 && rate < 1000))
		return usage_error(
			"--rate wants bits a second, from 1kbit to 1000Gbit, not '%s'", text);
	*ret = (uint64_t)rate;
	return 0;
}

static int parse_seed(const char *text, uint64_t *ret)
{
	char *end;

	*ret = strtoull(text, &end, 10);
	return end != text && !*end && text[0] != '-'
		       ? 0
		       : usage_error("--seed wants a number, not '%s'", text);
}

static int parse_shape(int c, const char *text, struct line_options *o)
{
	switch (c) {
	case DELAY:
		return parse_time("--delay", text, &o->shape.delay_ns);
	case JITTER:
		return parse_time("--jitter", text, &o->shape.jitter_ns);
	case LOSS:
		return parse(text, shares, 1, &o->shape.loss)
			       ? 0
			       : usage_error("--loss wants a share of the packets, such as 0.1%%, "
					     "not '%s'",
					 text);
	case RATE:
		return parse_rate(text, &o->shape.rate_bit_s);
	case QUEUE:
		return weft_parse_size(text, &o->shape.queue_bytes) == 0 &&
				       o->shape.queue_bytes >= MAX_MTU
			       ? 0
			       : usage_error(
					 "--queue wants a size of at least 64K, not '%s'", text);
	default:
		return parse_seed(text, &o->shape.seed);
	}
}

static int parse_ends(int c, char *text, struct line_options *o)
{
	switch (c) {
	case MTU:
		return parse_whole(text, MIN_MTU, MAX_MTU, &o->mtu)
			       ? 0
			       : usage_error("--mtu wants bytes, from %d to %d, not '%s'", MIN_MTU,
					 MAX_MTU, text);
	case NEAR:
	case FAR:
		o->existing[c - NEAR] = text;
		return 0;
	case NUMBER:
		return parse_whole(text, 0, 255, &o->number)
			       ? 0
			       : usage_error("--number wants 0 to 255, not '%s'", text);
	default:
		o->stats_file = text;
		return 0;
	}
}

int line_options_parse(int argc, char **argv, struct line_options *o)
{
	int c, r = 0;

	*o = (struct line_options){
		.shape.queue_bytes = WEFT_MIB, .shape.seed = weft_random_name() >> 12, .mtu = 1500};
	/* "+": what comes behind the command is the command's. */
	while (r == 0 && (c = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
		if (c == HELP) {
			usage(stdout);
			return 1 + weft_end_output("weft-line", 0);
		}
		if (c < DELAY) {
			fputs("Try: weft line --help\n", stderr);
			return 1 + 2;
		}
		r = c <= QUEUE || c == SEED ? parse_shape(c, optarg, o) : parse_ends(c, optarg, o);
	}
	if (r == 0 && o->shape.jitter_ns > o->shape.delay_ns)
		r = usage_error(
			"--jitter can be at most --delay: nothing arrives before it was sent");
	o->command = argv[optind] ? argv + optind : NULL;
	return r;
}
