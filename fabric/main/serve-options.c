/* weft-serve's command line.  Main thread, before anything else. */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "fabric/main/serve.h"

static void usage(FILE *out)
{
	fputs("usage: weft serve [--memory NAME=SIZE]... [--file NAME=PATH]... [--directory PATH] [OPTION]...\n"
	      "Lends memory, files, or the files of a directory to borrowers on the network.\n"
	      "\n"
	      "  --memory NAME=SIZE        lend SIZE bytes (K, M, G, T) of memory; taken and cleared up front\n"
	      "  --hugepages 2M|1G         take memory in huge pages\n"
	      "  --numa NODE|nic|interleave  take memory on one NUMA node, on the network card's, or on all\n"
	      "  --overcommit              lend more memory than is available\n"
	      "  --file NAME=PATH          lend a file's content\n"
	      "  --directory PATH          lend each regular file below PATH, by its relative path\n"
	      "  --read-only               let nobody write\n"
	      "  --listen ADDRESS[:PORT]   or unix:PATH; port 0: any that is free (default 127.0.0.1:10809)\n"
	      "  --allow-insecure          allow addresses that other machines can reach; there are no keys yet\n"
	      "  --lease SECONDS           how long a region is reserved for a borrower that is silent (default 30)\n"
	      "  --keep SECONDS            how long memory is kept after a crash of this program (default 300)\n"
	      "  --help                    show this\n",
		out);
}

static int usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int usage_error(const char *fmt, ...)
{
	va_list ap;

	fputs("weft-serve: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\nTry: weft serve --help\n", stderr);
	return -EINVAL;
}

/* NAME=VALUE; the name goes to the new entry. */
static struct serve_region *want(struct serve *s, const char *option, const char *text, bool last, char **ret_value)
{
	const char *equals = last ? strrchr(text, '=') : strchr(text, '=');

	if (!equals || equals == text || equals[1] == '\0') {
		usage_error("--%s wants NAME=%s, not '%s'", option, last ? "SIZE, such as scratch=4G" : "PATH", text);
		return NULL;
	}
	if (s->nr_wanted == SERVE_MAX_REGIONS) {
		usage_error("more than %d regions", SERVE_MAX_REGIONS);
		return NULL;
	}
	struct serve_region *w = &s->wanted[s->nr_wanted];
	w->name = strndup(text, (size_t)(equals - text));
	*ret_value = strdup(equals + 1);
	if (!w->name || !*ret_value) {
		fputs("weft-serve: out of memory\n", stderr);
		free(*ret_value);
		*ret_value = NULL;
		free(w->name);
		return NULL;
	}
	for (unsigned i = 0; i < s->nr_wanted; i++) {
		if (strcmp(s->wanted[i].name, w->name) == 0) {
			usage_error("there are two regions named '%s'", w->name);
			free(*ret_value);
			*ret_value = NULL;
			free(w->name);
			return NULL;
		}
	}
	s->nr_wanted++;
	return w;
}

static int want_memory(struct serve *s, const char *text)
{
	WEFT_CLEANUP_FREE char *size = NULL;
	struct serve_region *w = want(s, "memory", text, true, &size);

	if (!w)
		return -EINVAL;
	if (weft_parse_size(size, &w->size_bytes) < 0 || w->size_bytes == 0)
		return usage_error("--memory %s: '%s' is no size; say 64M, 4G or 1.5T", text, size);
	return 0;
}

static int want_file(struct serve *s, const char *text)
{
	char *path = NULL;
	struct serve_region *w = want(s, "file", text, false, &path);

	if (!w)
		return -EINVAL;
	w->path = path;
	return 0;
}

static int parse_seconds(const char *option, const char *text, unsigned min, unsigned max, unsigned *ret)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || v < min || v > max)
		return usage_error("--%s wants seconds, %u to %u, not '%s'", option, min, max, text);
	*ret = (unsigned)v;
	return 0;
}

static int parse_numa(struct serve *s, const char *text)
{
	char *end;

	if (strcmp(text, "nic") == 0) {
		s->numa = WEFT_NUMA_NIC;
	} else if (strcmp(text, "interleave") == 0) {
		s->numa = WEFT_NUMA_INTERLEAVE;
	} else {
		unsigned long v = strtoul(text, &end, 10);

		if (text[0] < '0' || text[0] > '9' || *end || v > 4095)
			return usage_error("--numa wants a node's number, 'nic' or 'interleave', not '%s'", text);
		s->numa = WEFT_NUMA_NODE;
		s->numa_node = (unsigned)v;
	}
	return 0;
}

int serve_parse_options(struct serve *s, int argc, char **argv)
{
	enum { MEMORY = 256, HUGEPAGES, NUMA, FILE_, DIRECTORY, READ_ONLY, LISTEN, INSECURE, OVERCOMMIT, LEASE, KEEP };
	static const struct option options[] = {
		{"memory", required_argument, NULL, MEMORY},
		{"hugepages", required_argument, NULL, HUGEPAGES},
		{"numa", required_argument, NULL, NUMA},
		{"file", required_argument, NULL, FILE_},
		{"directory", required_argument, NULL, DIRECTORY},
		{"read-only", no_argument, NULL, READ_ONLY},
		{"listen", required_argument, NULL, LISTEN},
		{"allow-insecure", no_argument, NULL, INSECURE},
		{"overcommit", no_argument, NULL, OVERCOMMIT},
		{"lease", required_argument, NULL, LEASE},
		{"keep", required_argument, NULL, KEEP},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c, r = 0;

	while (r == 0 && (c = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		switch (c) {
		case MEMORY:
			r = want_memory(s, optarg);
			break;
		case HUGEPAGES:
			if (strcasecmp(optarg, "2M") == 0)
				s->hugepage_bytes = 2 * WEFT_MIB;
			else if (strcasecmp(optarg, "1G") == 0)
				s->hugepage_bytes = WEFT_GIB;
			else
				r = usage_error("--hugepages wants 2M or 1G, not '%s'", optarg);
			break;
		case NUMA:
			r = parse_numa(s, optarg);
			break;
		case FILE_:
			r = want_file(s, optarg);
			break;
		case DIRECTORY:
			if (s->directory)
				r = usage_error("--directory can be given only once");
			s->directory = optarg;
			break;
		case READ_ONLY:
			s->read_only = true;
			break;
		case LISTEN:
			if (s->nr_listen == SERVE_MAX_LISTEN)
				r = usage_error("--listen can be given %d times at most", SERVE_MAX_LISTEN);
			else
				s->listen[s->nr_listen++] = optarg;
			break;
		case INSECURE:
			s->allow_insecure = true;
			break;
		case OVERCOMMIT:
			s->overcommit = true;
			break;
		case LEASE:
			r = parse_seconds("lease", optarg, 1, WEFT_LEASE_MAX_S, &s->lease_s);
			break;
		case KEEP:
			r = parse_seconds("keep", optarg, 0, 31536000, &s->keep_s);
			break;
		case 'h':
			usage(stdout);
			exit(weft_end_output("weft-serve", 0));
		default:
			fputs("Try: weft serve --help\n", stderr);
			return -EINVAL;
		}
	}
	if (r == 0 && optind < argc)
		r = usage_error("'%s' is no option; regions are named with --memory, --file or --directory",
			argv[optind]);
	if (r == 0 && s->nr_wanted == 0 && !s->directory)
		r = usage_error("nothing to lend: say --memory NAME=SIZE, --file NAME=PATH or --directory PATH");
	return r;
}
