/* The command line of weft attach.  One thread, before anything is started. */
#include "nbd-bridge/main/attach-options.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/arguments.h"
#include "fabric/base/util.h"
#include "nbd-bridge/bridge/bridge.h"

static void usage(FILE *out)
{
	fputs("usage: weft attach URI... --device [PATH] | --socket PATH | --mount FILE [OPTION]...\n"
	      "Maps a region of a donor: as a block device, as an NBD server on a Unix socket, as a file, or as several of them.\n"
	      "Several URIs are one device, striped over regions of several donors.\n"
	      "\n"
	      "  URI                        weft://HOST[:PORT]/REGION, or nbd://HOST[:PORT]/EXPORT for another server\n"
	      "                             or weft+unix:///REGION?socket=PATH, nbd+unix:///EXPORT?socket=PATH\n"
	      "  --device [PATH]            a block device (root only): /dev/ublkbN or /dev/nbdN; one that is free unless told\n"
	      "  --device-kind auto|ublk|nbd  the kernel's driver that makes it (default auto: ublk where there is one)\n"
	      "  --socket PATH              an NBD server on this Unix socket\n"
	      "  --mount FILE               the region is the content of this file (FUSE)\n"
	      "  --allow-other              let other users open the file too, as its mode says (default then 0666)\n"
	      "  --owner USER[:GROUP]       the file's owner (default: you)\n"
	      "  --mode MODE                the file's mode, in octal (default 0600)\n"
	      "  --name NAME                the attachment's name (default: the region's)\n"
	      "  --lanes NUMBER             threads, each with a connection (default: processors, at most 4)\n"
	      "  --read-only                attach as a reader\n"
	      "  --shared                   a reader that may stand beside a writer\n"
	      "  --transport auto|rdma|tcp  what the data goes over (default auto)\n"
	      "  --stripe-unit SIZE         with several URIs: so much lies at one, then the next has its turn (default 256K)\n"
	      "  --new-contents             give up what the regions hold as parts of another device, or alone\n"
	      "  --cache SIZE               managed: keep up to SIZE of it in memory here, fetch ahead, write back later\n"
	      "  --cache-file PATH          keep it in this file, which outlives a bridge that is killed\n"
	      "  --chunk-size SIZE          of the cache: 64K to 1M, a power of two (default: as the path asks for)\n"
	      "  --write-through            a write is done when the donor has it\n"
	      "  --push-interval SECONDS    how soon what was written is written back (default 1)\n"
	      "  --pull                     fetch the whole region in the background\n"
	      "  --pull-workers NUMBER      chunks at a time (default 4)\n"
	      "  --pull-rate SIZE           bytes a second at most\n"
	      "  --pull-order FILE          in the order of these offsets, and then the rest\n"
	      "  --record-order FILE        in the end, leave there where was read most, for --pull-order\n"
	      "  --wait SECONDS             wait so long for a donor that is not there yet, or a region in use (0: for ever)\n"
	      "  --dead-timeout SECONDS     how long requests wait for a donor that is gone (default 30; 0: for ever)\n"
	      "  --timeout SECONDS          how long an answer may take before its connection is given up (default 30)\n"
	      "  --assume-stable            nbd:// only: the server's contents survive a lost connection\n"
	      "  --foreground               stay in the foreground\n"
	      "  --help                     show this\n",
		out);
}

static int usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int usage_error(const char *fmt, ...)
{
	va_list ap;

	fputs("weft-attach: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\nTry: weft attach --help\n", stderr);
	return 1 + 2;
}

static bool parse_seconds(const char *text, uint32_t *ret_ms)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end != '\0' || !(value > 0) || value > 86400)
		return false;
	*ret_ms = (uint32_t)weft_max((uint64_t)(value * 1000), 1);
	return true;
}

/* 0 stands for ever. */
static bool parse_seconds_or_ever(const char *text, uint32_t *ret_ms)
{
	char *end;

	if (strtod(text, &end) == 0 && end != text && *end == '\0') {
		*ret_ms = 0;
		return true;
	}
	return parse_seconds(text, ret_ms);
}

/* A power of two, so that nothing that is aligned crosses more than it must. */
static bool parse_stripe(const char *text, uint64_t *ret_bytes)
{
	uint64_t bytes;

	if (weft_parse_size(text, &bytes) < 0 || bytes < 4096 || bytes > UINT64_C(1) << 30 || (bytes & (bytes - 1)))
		return false;
	*ret_bytes = bytes;
	return true;
}

/* The daemon works in "/".  The last component need not be there yet. */
static char *absolute(const char *path)
{
	WEFT_CLEANUP_FREE char *head = strdup(path);
	char *slash = head ? strrchr(head, '/') : NULL, *dir, *ret;
	const char *leaf = slash ? path + (slash - head) + 1 : path;

	if (!head || leaf[0] == '\0' || strcmp(leaf, ".") == 0 || strcmp(leaf, "..") == 0) {
		errno = EISDIR;
		return NULL;
	}
	if (slash)
		slash[slash == head ? 1 : 0] = '\0';
	dir = realpath(slash ? head : ".", NULL);
	if (!dir)
		return NULL;
	if (asprintf(&ret, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir, leaf) < 0)
		ret = NULL;
	free(dir);
	return ret;
}

/* `weft detach` would take them for paths. */
static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* The name of a region as the name of an attachment. */
static void name_from_region(const char *region, char *name)
{
	size_t n = 0;

	for (; region[n] && n < WEFT_NAME_MAX; n++) {
		const char one[2] = {region[n], '\0'};

		name[n] = weft_name_valid(one) ? region[n] : '-';
	}
	name[n] = '\0';
	if (n == 0 || is_dots(name))
		strcpy(name, "default");
	else if (name[strspn(name, "-._")] == '\0')
		strcpy(name, "region"); /* nothing of it can be typed */
	else if (name[0] == '-')
		name[0] = '_'; /* it would be an option */
}

static int check_donors(struct attach_options *o)
{
	for (unsigned i = 0; i < o->nr_donors; i++) {
		const struct attach_donor *d = &o->donors[i];

		if (!d->uri.foreign && d->uri.region[0] == '\0')
			return usage_error("name a region of the donor; what there is shows: weft list %s", d->uri_text);
		if (d->uri.foreign != o->donors[0].uri.foreign)
			return usage_error("weft:// donors and nbd:// servers are not striped together");
		for (unsigned j = 0; j < i; j++)
			if (strcmp(d->uri_text, o->donors[j].uri_text) == 0)
				return usage_error("%s is there twice", d->uri_text);
	}
	if (o->nr_donors == 1 && o->stripe_bytes)
		return usage_error("--stripe-unit is for several URIs");
	if (o->nr_donors > 1 && !o->stripe_bytes)
		o->stripe_bytes = 256 << 10;
	return 0;
}

static int check_cache(const struct attach_options *o, bool needs_cache)
{
	if (o->cache_bytes == 0)
		return needs_cache ? usage_error("--cache-file, --chunk-size, --write-through, --push-interval, --pull and --record-order are for an attachment "
						 "with --cache") : 0;
	if (o->shared)
		return usage_error("--cache does not go with --shared: what it keeps would grow old beside a writer");
	/* The device outlives a bridge that is killed: its users would go on without what was not written back. */
	if (o->device && !o->write_through && !o->read_only && !o->cache_file)
		return usage_error("--cache with --device wants --cache-file or --write-through: the device goes on when the bridge was "
				   "killed, and what was not written back would be missing without a word");
	if (o->cache_file && o->donors[0].uri.foreign)
		return usage_error("--cache-file is for weft:// donors: an nbd:// server cannot tell whether another wrote since");
	if (o->cache_bytes < BRIDGE_CACHE_MIN)
		return usage_error("--cache wants at least %d MiB", BRIDGE_CACHE_MIN >> 20);
	if (o->chunk_bytes && o->cache_bytes / o->chunk_bytes < BRIDGE_CACHE_MIN_CHUNKS)
		return usage_error("--cache is too small for this --chunk-size: it has at least %d chunks",
			BRIDGE_CACHE_MIN_CHUNKS);
	return 0;
}

static int check(struct attach_options *o, const char *socket, const char *mount, const char *name)
{
	const struct weft_uri *uri = &o->donors[0].uri;
	int r = check_donors(o);

	if (r != 0)
		return r;
	const struct bridge_device_wish *wish = &o->device_wish;
	enum bridge_device_kind kind;
	if (!socket && !mount && !o->device)
		return usage_error("tell how to use it: --device, --socket PATH, --mount FILE, or several of them");
	if (wish->path && (bridge_device_kind_of(wish->path, &kind) < 0 || (wish->kind && wish->kind != kind)))
		return usage_error("--device wants %s or nothing, not '%s'", wish->kind == BRIDGE_DEVICE_UBLK ? "/dev/ublkbN" :
			wish->kind == BRIDGE_DEVICE_NBD ? "/dev/nbdN" : "/dev/ublkbN, /dev/nbdN", wish->path);
	if (name && (!weft_name_valid(name) || is_dots(name)))
		return usage_error("--name wants 1 to %d of A-Z a-z 0-9 . _ -, not '%s'", WEFT_NAME_MAX, name);
	if (o->assume_stable && !uri->foreign)
		return usage_error(
			"--assume-stable is for nbd:// servers; a weft donor says whether its contents are the same");
	if (o->new_contents && uri->foreign)
		return usage_error("--new-contents is for weft:// donors; an nbd:// server remembers no stripes");
	if (o->new_contents && (o->read_only || o->shared))
		return usage_error("--new-contents is for a writer; a reader wants what there is");
	if (o->shared && uri->foreign)
		return usage_error("--shared is for weft:// donors; an nbd:// server knows no readers and writers");
	if (name)
		strcpy(o->name, name);
	else
		name_from_region(uri->region, o->name);
	if (socket && !(o->socket = absolute(socket)))
		return usage_error("--socket %s: %s", socket, strerror(errno));
	if (mount && !(o->mount = absolute(mount)))
		return usage_error("--mount %s: %s", mount, strerror(errno));
	if (socket && strlen(o->socket) > 107)
		return usage_error("--socket %s: a socket's path has at most 107 bytes", o->socket);
	return 0;
}

enum { AGAIN_MAX = 8192 }; /* the state file has a limit */

enum {
	SOCKET = 256,
	MOUNT,
	ALLOW_OTHER,
	OWNER,
	MODE,
	DEVICE,
	KIND,
	NAME,
	LANES,
	READ_ONLY,
	SHARED,
	TRANSPORT,
	STRIPE,
	NEW_CONTENTS,
	CACHE,
	CACHE_FILE,
	CHUNK_SIZE,
	WRITE_THROUGH,
	PUSH_INTERVAL,
	PULL,
	PULL_WORKERS,
	PULL_RATE,
	PULL_ORDER,
	RECORD_ORDER,
	WAIT,
	DEAD,
	TIMEOUT,
	STABLE,
	FOREGROUND,
	HELP,
};

static const struct option longs[] = {
	{"socket", required_argument, NULL, SOCKET},
	{"mount", required_argument, NULL, MOUNT},
	{"allow-other", no_argument, NULL, ALLOW_OTHER},
	{"owner", required_argument, NULL, OWNER},
	{"mode", required_argument, NULL, MODE},
	{"device", optional_argument, NULL, DEVICE},
	{"device-kind", required_argument, NULL, KIND},
	{"name", required_argument, NULL, NAME},
	{"lanes", required_argument, NULL, LANES},
	{"read-only", no_argument, NULL, READ_ONLY},
	{"shared", no_argument, NULL, SHARED},
	{"transport", required_argument, NULL, TRANSPORT},
	{"stripe-unit", required_argument, NULL, STRIPE},
	{"new-contents", no_argument, NULL, NEW_CONTENTS},
	{"cache", required_argument, NULL, CACHE},
	{"cache-file", required_argument, NULL, CACHE_FILE},
	{"chunk-size", required_argument, NULL, CHUNK_SIZE},
	{"write-through", no_argument, NULL, WRITE_THROUGH},
	{"push-interval", required_argument, NULL, PUSH_INTERVAL},
	{"pull", no_argument, NULL, PULL},
	{"pull-workers", required_argument, NULL, PULL_WORKERS},
	{"pull-rate", required_argument, NULL, PULL_RATE},
	{"pull-order", required_argument, NULL, PULL_ORDER},
	{"record-order", required_argument, NULL, RECORD_ORDER},
	{"wait", required_argument, NULL, WAIT},
	{"dead-timeout", required_argument, NULL, DEAD},
	{"timeout", required_argument, NULL, TIMEOUT},
	{"assume-stable", no_argument, NULL, STABLE},
	{"foreground", no_argument, NULL, FOREGROUND},
	{"help", no_argument, NULL, HELP},
	{NULL, 0, NULL, 0},
};

static int parse_uris(struct attach_options *o, char **texts, unsigned nr, bool have_transport)
{
	struct weft_error err;
	size_t len = 1;

	for (; o->nr_donors < nr; o->nr_donors++) {
		struct attach_donor *d = &o->donors[o->nr_donors];

		if (weft_uri_parse(texts[o->nr_donors], &d->uri, &err) < 0) {
			char extra[512];

			weft_arguments_explain(texts, (int)nr, (int)nr, "a URI", longs, extra, sizeof(extra));
			return usage_error("%s", strstr(extra, "did you mean") ? extra : err.message);
		}
		d->uri_text = weft_uri_format(&d->uri);
		if (!d->uri_text)
			return usage_error("out of memory");
		len += strlen(d->uri_text) + 1;
		/* One for all: what one of them is told is meant. */
		if (!have_transport && d->uri.transport)
			o->transport = d->uri.transport;
	}
	o->uri_text = calloc(1, len);
	for (unsigned i = 0; i < nr && o->uri_text; i++) {
		if (i > 0)
			strcat(o->uri_text, " ");
		strcat(o->uri_text, o->donors[i].uri_text);
	}
	return o->uri_text ? 0 : usage_error("out of memory");
}

/* A number, or what the system knows by that name. */
static bool parse_id(const char *text, bool group, uint32_t *ret)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	if (text[0] >= '0' && text[0] <= '9' && *end == '\0' && number < UINT32_MAX) {
		*ret = (uint32_t)number;
		return true;
	}
	const struct group *gr = group ? getgrnam(text) : NULL;
	const struct passwd *pw = group ? NULL : getpwnam(text);
	if (gr)
		*ret = gr->gr_gid;
	if (pw)
		*ret = pw->pw_uid;
	return gr || pw;
}

static int parse_owner(char *text, struct bridge_file_rights *rights)
{
	char *group = strchr(text, ':');

	if (group)
		*group++ = '\0';
	if (!parse_id(text, false, &rights->uid))
		return usage_error("--owner: there is no user '%s'", text);
	if (group && !parse_id(group, true, &rights->gid))
		return usage_error("--owner: there is no group '%s'", group);
	const struct passwd *pw = group ? NULL : getpwuid(rights->uid);
	if (pw)
		rights->gid = pw->pw_gid;
	return 0;
}

/* 0, -1: another option; or what usage_error() returned. */
static int parse_rights_option(int c, struct attach_options *o)
{
	char *end;
	unsigned long mode;

	switch (c) {
	case ALLOW_OTHER:
		o->rights.allow_other = true;
		return 0;
	case OWNER:
		o->has_owner = true;
		return parse_owner(optarg, &o->rights);
	case MODE:
		mode = strtoul(optarg, &end, 8);
		if (end == optarg || *end || mode > 0777)
			return usage_error("--mode wants an octal number up to 0777, such as 0660, not '%s'", optarg);
		o->has_mode = true;
		o->rights.mode = (mode_t)mode;
		return 0;
	default:
		return -1;
	}
}

static int check_rights(struct attach_options *o, const char *mount)
{
	struct bridge_file_rights *rights = &o->rights;

	if ((rights->allow_other || o->has_owner || o->has_mode) && !mount)
		return usage_error("--allow-other, --owner and --mode are for the file of --mount");
	/* Whatever its mode, FUSE lets nobody else in; success would be a promise. */
	if (!rights->allow_other && ((o->has_owner && rights->uid != geteuid()) || (o->has_mode && (rights->mode & 077))))
		return usage_error("--owner and --mode let nobody else in without --allow-other");
	if (!o->has_mode)
		rights->mode = rights->allow_other && !o->has_owner ? 0666 : 0600;
	return 0;
}

/* 0, -1: another option; or what usage_error() returned. */
static int parse_cache_option(int c, struct attach_options *o)
{
	unsigned long workers;
	uint64_t size;
	char *end;

	switch (c) {
	case CACHE:
		if (weft_parse_size(optarg, &o->cache_bytes) < 0 || o->cache_bytes == 0)
			return usage_error("--cache wants a size such as 1G, not '%s'", optarg);
		return 0;
	case CACHE_FILE:
		o->cache_file = absolute(optarg);
		return o->cache_file ? 0 : usage_error("--cache-file %s: %s", optarg, strerror(errno));
	case CHUNK_SIZE:
		if (weft_parse_size(optarg, &size) < 0 || size < BRIDGE_CHUNK_MIN || size > BRIDGE_CHUNK_MAX ||
			(size & (size - 1)) != 0)
			return usage_error("--chunk-size wants 64K, 128K, 256K, 512K or 1M, not '%s'", optarg);
		o->chunk_bytes = (uint32_t)size;
		return 0;
	case WRITE_THROUGH:
		o->write_through = true;
		return 0;
	case PUSH_INTERVAL:
		if (!parse_seconds(optarg, &o->push_interval_ms))
			return usage_error("--push-interval wants seconds, not '%s'", optarg);
		return 0;
	case PULL:
		o->pull = true;
		return 0;
	case PULL_WORKERS:
		workers = strtoul(optarg, &end, 10);
		if (*end || workers < 1 || workers > BRIDGE_PULL_WORKERS_MAX)
			return usage_error("--pull-workers wants 1 to %d, not '%s'", BRIDGE_PULL_WORKERS_MAX, optarg);
		o->pull_workers = (unsigned)workers;
		o->pull = true;
		return 0;
	case PULL_RATE:
		if (weft_parse_size(optarg, &o->pull_rate) < 0 || o->pull_rate == 0)
			return usage_error("--pull-rate wants bytes a second, such as 50M, not '%s'", optarg);
		o->pull = true;
		return 0;
	case PULL_ORDER:
		o->pull_order = absolute(optarg);
		o->pull = true;
		return o->pull_order ? 0 : usage_error("--pull-order %s: %s", optarg, strerror(errno));
	case RECORD_ORDER:
		o->record_order = absolute(optarg);
		return o->record_order ? 0 : usage_error("--record-order %s: %s", optarg, strerror(errno));
	default:
		return -1;
	}
}

/* "weft attach …" of the arguments as they were given, but for `once` (may be NULL), which is not meant for another time. */
static char *line_of(int argc, char *const argv[], const char *once)
{
	size_t len = sizeof("weft attach");

	for (int i = 1; i < argc; i++)
		len += 1 + WEFT_SHELL_WORD_MAX(strlen(argv[i]));
	char *line = len <= AGAIN_MAX ? malloc(len) : NULL;
	if (!line)
		return NULL;
	char *to = stpcpy(line, "weft attach");
	for (int i = 1; i < argc; i++) {
		if (argv[i] == once)
			continue;
		*to++ = ' ';
		to = weft_shell_word(argv[i], to);
	}
	return line;
}

int attach_options_parse(int argc, char **argv, struct attach_options *o)
{
	/* getopt_long(3) moves them. */
	WEFT_CLEANUP_FREE char **given = calloc((size_t)argc + 1, sizeof(*given));
	const char *socket = NULL, *mount = NULL, *name = NULL, *once = NULL;
	bool have_transport = false, needs_cache = false;
	unsigned long lanes;
	char *end, choices[120];
	int c, r;

	memset(o, 0, sizeof(*o));
	if (!given)
		return usage_error("out of memory");
	memcpy(given, argv, (size_t)argc * sizeof(*given));
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	o->nr_lanes = cpus < 1 ? 1 : cpus > 4 ? 4 : (unsigned)cpus;
	o->timeout_ms = o->dead_timeout_ms = 30000;
	o->push_interval_ms = 1000;
	o->pull_workers = 4;
	o->rights.uid = geteuid();
	o->rights.gid = getegid();
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		r = parse_rights_option(c, o);
		if (r < 0) {
			r = parse_cache_option(c, o);
			needs_cache |= r == 0 && c != CACHE;
		}
		if (r > 0)
			return r;
		if (r == 0)
			continue;
		switch (c) {
		case SOCKET:
			socket = optarg;
			break;
		case MOUNT:
			mount = optarg;
			break;
		case DEVICE:
			o->device = true;
			o->device_wish.path = optarg;
			/* "--device /dev/nbd3" too; a URI never begins like that. */
			if (!optarg && optind < argc && argv[optind][0] == '/')
				o->device_wish.path = argv[optind++];
			break;
		case KIND:
			if (bridge_device_kind_parse(optarg, &o->device_wish.kind) < 0)
				return usage_error("--device-kind wants auto, ublk or nbd, not '%s'", optarg);
			o->device = true;
			break;
		case NAME:
			name = optarg;
			break;
		case LANES:
			lanes = strtoul(optarg, &end, 10);
			if (*end || lanes < 1 || lanes > BRIDGE_MAX_LANES)
				return usage_error("--lanes wants 1 to %d, not '%s'", BRIDGE_MAX_LANES, optarg);
			o->nr_lanes = (unsigned)lanes;
			break;
		case READ_ONLY:
			o->read_only = true;
			break;
		case SHARED:
			o->shared = true;
			break;
		case TRANSPORT:
			if (tp_choice_parse(optarg, &o->transport) < 0)
				return usage_error("--transport wants one of %s, not '%s'",
					tp_choices(", ", choices, sizeof(choices)), optarg);
			have_transport = true;
			break;
		case STRIPE:
			if (!parse_stripe(optarg, &o->stripe_bytes))
				return usage_error("--stripe-unit wants a power of two from 4K to 1G, not '%s'", optarg);
			break;
		case NEW_CONTENTS:
			o->new_contents = true;
			once = argv[optind - 1];
			break;
		case WAIT:
			if (!parse_seconds_or_ever(optarg, &o->wait_ms))
				return usage_error("--wait wants seconds, or 0 for ever, not '%s'", optarg);
			o->waits = true;
			break;
		case DEAD:
			if (!parse_seconds_or_ever(optarg, &o->dead_timeout_ms))
				return usage_error("--dead-timeout wants seconds, not '%s'", optarg);
			break;
		case TIMEOUT:
			if (!parse_seconds(optarg, &o->timeout_ms))
				return usage_error("--timeout wants seconds, not '%s'", optarg);
			break;
		case STABLE:
			o->assume_stable = true;
			break;
		case FOREGROUND:
			o->foreground = true;
			break;
		case HELP:
			usage(stdout);
			return 1 + weft_end_output("weft-attach", 0);
		default:
			fputs("Try: weft attach --help\n", stderr);
			return 1 + 2;
		}
	}
	o->again = line_of(argc, given, once);
	if (argc == optind)
		return usage_error("which region? Give its URI, such as weft://HOST/REGION");
	if (argc - optind > BRIDGE_MAX_DONORS)
		return usage_error("at most %d URIs", BRIDGE_MAX_DONORS);
	r = parse_uris(o, argv + optind, (unsigned)(argc - optind), have_transport);
	if (r == 0)
		r = check_cache(o, needs_cache);
	if (r == 0)
		r = check_rights(o, mount);
	return r != 0 ? r : check(o, socket, mount, name);
}
