/* SPDX-License-Identifier: MIT */
/* The command line of weft attach: its options.  One thread, before anything is started. */
#include "nbd-bridge/main/attach-options.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/options.h"
#include "fabric/base/util.h"
#include "fabric/copying.h"
#include "nbd-bridge/bridge/bridge.h"

enum { AGAIN_MAX = 8192 }; /* the state file has a limit */

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

static int parse_path(void *into, const struct weft_option *option, char *value)
{
	char **path = (char **)((char *)into + option->into);

	free(*path);
	*path = absolute(value);
	return *path ? WEFT_GO_ON
		     : weft_usage_error("--%s %s: %s", option->name, value, strerror(errno));
}

/* A power of two, so that aligned requests cross as few boundaries as possible. */
static bool parse_power(const struct weft_option *option, const char *value, uint64_t *ret)
{
	uint64_t size;

	if (weft_parse_size(value, &size) < 0 || size < option->min || size > option->max ||
		(size & (size - 1)) != 0)
		return false;
	*ret = size;
	return true;
}

static int parse_stripe(void *into, const struct weft_option *option, char *value)
{
	struct attach_options *o = into;

	return parse_power(option, value, &o->stripe_bytes) ? WEFT_GO_ON
							    : weft_option_refuse(option, value);
}

static int parse_chunk(void *into, const struct weft_option *option, char *value)
{
	struct attach_options *o = into;
	uint64_t bytes;

	if (!parse_power(option, value, &bytes))
		return weft_option_refuse(option, value);
	o->chunk_bytes = (uint32_t)bytes;
	return WEFT_GO_ON;
}

static int parse_on_too_few(void *into, const struct weft_option *option, char *value)
{
	struct attach_options *o = into;

	o->fails_on_too_few = strcmp(value, "error") == 0;
	return o->fails_on_too_few || strcmp(value, "wait") == 0
		? WEFT_GO_ON
		: weft_option_refuse(option, value);
}

static int parse_spare(void *into, const struct weft_option *option, char *value)
{
	struct attach_options *o = into;
	struct weft_error err;

	if (o->nr_spares == BRIDGE_MAX_DONORS)
		return weft_usage_error("at most %d spares", BRIDGE_MAX_DONORS);
	struct attach_donor *spare = &o->spares[o->nr_spares];
	if (weft_uri_parse(value, &spare->uri, &err) < 0)
		return weft_usage_error("--spare: %s", err.message);
	o->nr_spares++;
	spare->uri_text = weft_uri_format(&spare->uri);
	return spare->uri_text ? WEFT_GO_ON : weft_usage_error("out of memory");
}

static int parse_device(void *into, const struct weft_option *option, char *value)
{
	struct attach_options *o = into;

	o->device = true;
	o->device_wish.path = value;
	return WEFT_GO_ON;
}

static int parse_device_kind(void *into, const struct weft_option *option, char *value)
{
	struct attach_options *o = into;

	o->device = true;
	return bridge_device_kind_parse(value, &o->device_wish.kind) < 0
		? weft_option_refuse(option, value)
		: WEFT_GO_ON;
}

static int parse_transport(void *into, const struct weft_option *option, char *value)
{
	struct attach_options *o = into;
	char choices[120];

	if (tp_choice_parse(value, &o->transport) == 0)
		return WEFT_GO_ON;
	return weft_usage_error("--transport wants one of %s, not '%s'",
		tp_choices(", ", choices, sizeof(choices)), value);
}

/* A number, or the name of a user or group. */
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

static int parse_owner(void *into, const struct weft_option *option, char *value)
{
	struct attach_options *o = into;
	struct bridge_file_rights *rights = &o->rights;
	const char *colon = strchr(value, ':');
	const char *group = colon ? colon + 1 : NULL;
	/* The argument must stay unchanged: it is part of the line that attaches again. */
	WEFT_CLEANUP_FREE char *user = strndup(value, strcspn(value, ":"));

	o->has_owner = true;
	if (!user)
		return weft_usage_error("out of memory");
	if (!parse_id(user, false, &rights->uid))
		return weft_usage_error("--owner: there is no user '%s'", user);
	if (group && !parse_id(group, true, &rights->gid))
		return weft_usage_error("--owner: there is no group '%s'", group);
	const struct passwd *pw = group ? NULL : getpwuid(rights->uid);
	if (pw)
		rights->gid = pw->pw_gid;
	return WEFT_GO_ON;
}

static int parse_mode(void *into, const struct weft_option *option, char *value)
{
	struct attach_options *o = into;
	char *end;
	unsigned long mode = strtoul(value, &end, 8);

	if (end == value || *end || mode > 0777)
		return weft_option_refuse(option, value);
	o->has_mode = true;
	o->rights.mode = (mode_t)mode;
	return WEFT_GO_ON;
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
		strcpy(name, "region"); /* no character of it is allowed in a name */
	else if (name[0] == '-')
		name[0] = '_'; /* a leading '-' would make it an option */
}

static int parse_name(void *into, const struct weft_option *option, char *value)
{
	struct attach_options *o = into;

	if (!weft_name_valid(value) || is_dots(value))
		return weft_usage_error("--name wants 1 to %d of A-Z a-z 0-9 . _ -, not '%s'",
			WEFT_NAME_MAX, value);
	strcpy(o->name, value);
	return WEFT_GO_ON;
}

#define INTO(member) .into = offsetof(struct attach_options, member)
#define PATH(member)                                                                               \
	.kind = WEFT_OPTION_CALL, .parse = parse_path, INTO(member),                               \
	.completion = WEFT_COMPLETE_FILE

static const struct weft_option options[] = {
	{NULL, "URI",
		"weft://HOST[:PORT]/REGION, or nbd://HOST[:PORT]/EXPORT for another server\n"
		"or weft+unix:///REGION?socket=PATH, nbd+unix:///EXPORT?socket=PATH\n"
		"or srp://HOST:PORT/ID_EXT[.IOC_GUID][/LUN] for a unit of an SRP target\n"
		"or pool:NAME for a lease of a pool (weft pool)",
		.kind = WEFT_OPTION_ARGUMENT, .completion = WEFT_COMPLETE_URI},
	{.kind = WEFT_OPTION_GROUP, .help = "How it is used here:"},
	{"device", "[PATH]",
		"a block device (root only): /dev/ublkbN or /dev/nbdN; "
		"without PATH one that is free",
		.kind = WEFT_OPTION_CALL, .parse = parse_device, .follows = '/',
		.completion = WEFT_COMPLETE_FILE},
	{"device-kind", "auto|ublk|nbd",
		"the kernel's driver that makes it (default auto: ublk if the kernel has it)",
		.kind = WEFT_OPTION_CALL, .parse = parse_device_kind, .wants = "auto, ublk or nbd"},
	{"kernel-socket", NULL, "/dev/nbdN, and the kernel holds the donor's TCP connection itself",
		.kind = WEFT_OPTION_FLAG, INTO(device_wish.kernel_socket)},
	{"socket", "PATH", "an NBD server on this Unix socket", PATH(socket)},
	{"mount", "FILE", "the region is the content of this file (FUSE)", PATH(mount)},
	{"allow-other", NULL,
		"let other users open the file too, as its mode says (default then 0666)",
		.kind = WEFT_OPTION_FLAG, INTO(rights.allow_other)},
	{"owner", "USER[:GROUP]", "the file's owner (default: you)", .kind = WEFT_OPTION_CALL,
		.parse = parse_owner},
	{"mode", "MODE", "the file's mode, in octal (default 0600)", .kind = WEFT_OPTION_CALL,
		.parse = parse_mode, .wants = "an octal number up to 0777, such as 0660"},
	{.kind = WEFT_OPTION_GROUP, .help = "The attachment:"},
	{"name", "NAME", "the attachment's name (default: the region's)", .kind = WEFT_OPTION_CALL,
		.parse = parse_name},
	{"lanes", "NUMBER", "threads, each with a connection (default: processors, at most 4)",
		.kind = WEFT_OPTION_NUMBER, INTO(nr_lanes), .min = 1, .max = BRIDGE_MAX_LANES},
	{"read-only", NULL, "attach as a reader", .kind = WEFT_OPTION_FLAG, INTO(read_only)},
	{"shared", NULL, "a reader that may stand beside a writer", .kind = WEFT_OPTION_FLAG,
		INTO(shared)},
	{0},
};

/* The row between is attach_options_parse()'s: it names the transports that there are. */
static const struct weft_option more_options[] = {
	{"key", "FILE",
		"the key that the donor knows (default: $WEFT_KEY, ~/.config/weft/key, "
		"/etc/weft/key)",
		PATH(key_file)},
	{"allow-insecure", NULL, "use no key: in plaintext, with a donor that proves nothing",
		.kind = WEFT_OPTION_FLAG, INTO(allow_insecure)},
	{"stripe-unit", "SIZE",
		"with several URIs: bytes at one before the next has its turn (default 256K)",
		.kind = WEFT_OPTION_CALL, .parse = parse_stripe, .min = 4096, .max = WEFT_GIB,
		.wants = "a power of two from 4K to 1G"},
	{"new-contents", NULL, "give up what the regions hold as parts of another device, or alone",
		.kind = WEFT_OPTION_FLAG, INTO(new_contents)},
	{"assume-stable", NULL,
		"nbd:// and srp:// only: the server's contents survive a lost connection",
		.kind = WEFT_OPTION_FLAG, INTO(assume_stable)},
	{"foreground", NULL, "stay in the foreground", .kind = WEFT_OPTION_FLAG, INTO(foreground)},
	{.kind = WEFT_OPTION_GROUP, .help = "Copies:"},
	{"mirror", "NUMBER",
		"each NUMBER URIs, one after the other, have a copy of the same; 2 to 16",
		.kind = WEFT_OPTION_NUMBER, INTO(copies), .min = 2, .max = WEFT_COPIES_MAX},
	{"min-copies", "NUMBER",
		"a write is answered when so many have it, at least (default: one less than all)",
		.kind = WEFT_OPTION_NUMBER, INTO(min_copies), .min = 1, .max = WEFT_COPIES_MAX},
	{"on-too-few", "wait|error",
		"what requests do when fewer are left (default wait, up to --dead-timeout)",
		.kind = WEFT_OPTION_CALL, .parse = parse_on_too_few, .wants = "wait or error"},
	{"from", "URI", "make copies of what this one of the regions holds, and give up the rest",
		.kind = WEFT_OPTION_TEXT, INTO(from), .completion = WEFT_COMPLETE_URI},
	{"spare", "URI", "a region that becomes the copy in place of one that is lost; any number",
		.kind = WEFT_OPTION_CALL, .parse = parse_spare, .completion = WEFT_COMPLETE_URI},
	{"spare-after", "SECONDS", "… for so long (default 60)", .kind = WEFT_OPTION_SECONDS,
		INTO(spare_after_ms), .wants = "seconds"},
	{.kind = WEFT_OPTION_GROUP, .help = "A cache:"},
	{"cache", "SIZE",
		"managed: keep up to SIZE of it in memory here, fetch ahead, write back later",
		.kind = WEFT_OPTION_SIZE, INTO(cache_bytes), .min = 1,
		.wants = "a size such as 1G"},
	{"cache-file", "PATH", "keep it in this file, which outlives a bridge that is killed",
		PATH(cache_file)},
	{"chunk-size", "SIZE",
		"of the cache: 64K to 1M, a power of two (default: to fit the path)",
		.kind = WEFT_OPTION_CALL, .parse = parse_chunk, .min = BRIDGE_CHUNK_MIN,
		.max = BRIDGE_CHUNK_MAX, .wants = "64K, 128K, 256K, 512K or 1M"},
	{"write-through", NULL, "a write is done when the donor has it", .kind = WEFT_OPTION_FLAG,
		INTO(write_through)},
	{"push-interval", "SECONDS", "how soon writes go to the donor (default 1)",
		.kind = WEFT_OPTION_SECONDS, INTO(push_interval_ms), .wants = "seconds"},
	{"pull", NULL, "fetch the whole region in the background", .kind = WEFT_OPTION_FLAG,
		INTO(pull)},
	{"pull-workers", "NUMBER", "chunks at a time (default 4; more far away)",
		.kind = WEFT_OPTION_NUMBER, INTO(pull_workers), .min = 1,
		.max = BRIDGE_PULL_WORKERS_MAX},
	{"pull-rate", "SIZE", "bytes a second at most", .kind = WEFT_OPTION_SIZE, INTO(pull_rate),
		.min = 1, .wants = "bytes a second, such as 50M"},
	{"pull-order", "FILE", "pull in the order of these offsets, then the rest",
		PATH(pull_order)},
	{"record-order", "FILE", "in the end, write there what was read most, for --pull-order",
		PATH(record_order)},
	{.kind = WEFT_OPTION_GROUP, .help = "Trusting no donor:"},
	{"verify", NULL,
		"what the donor changes is an I/O error: each block has a MAC that is kept here",
		.kind = WEFT_OPTION_FLAG, INTO(verify)},
	{"encrypt", NULL, "the same, and the donor sees encrypted bytes alone",
		.kind = WEFT_OPTION_FLAG, INTO(encrypt)},
	{"verify-key", "FILE",
		"--verify with this key, and --cache-file: the contents outlive a restart of "
		"this machine",
		PATH(verify_key)},
	{"encrypt-key", "FILE", "--encrypt in the same way", PATH(encrypt_key)},
	{.kind = WEFT_OPTION_GROUP, .help = "Waiting:"},
	{"wait", "SECONDS",
		"how long to wait for a donor that is not there yet, "
		"or a region in use (0: for ever)",
		.kind = WEFT_OPTION_SECONDS, INTO(wait_ms), .zero = true,
		.wants = "seconds, or 0 for ever"},
	{"dead-timeout", "SECONDS",
		"how long requests wait for a donor that is gone (default 30; 0: for ever)",
		.kind = WEFT_OPTION_SECONDS, INTO(dead_timeout_ms), .zero = true,
		.wants = "seconds"},
	{"timeout", "SECONDS",
		"how long an answer may take before its connection is given up (default 30)",
		.kind = WEFT_OPTION_SECONDS, INTO(timeout_ms), .wants = "seconds"},
	{.kind = WEFT_OPTION_GROUP, .help = "Other:"},
	{"swap", NULL, "the kernel swaps to it: the bridge's memory is locked, and all of it there",
		.kind = WEFT_OPTION_FLAG, INTO(swap)},
	{0},
};

/* The argument may be meant as the value of an option that wants "=". */
static int refuse_uri(const struct weft_command_line *line, const struct weft_error *err)
{
	char extra[512];

	weft_options_explain(line, line->nr_arguments, "a URI", extra, sizeof(extra));
	return weft_usage_error("%s", strstr(extra, "did you mean") ? extra : err->message);
}

/* pool:NAME becomes the URIs of that lease; *uris are the line's own arguments otherwise. */
static int find_lease(struct attach_options *o, struct weft_command_line *line,
	char *uris[BRIDGE_MAX_DONORS])
{
	static const char scheme[] = "pool:";
	const char *name = line->arguments[0] + sizeof(scheme) - 1;
	unsigned nr;

	for (int i = 1; i < line->nr_arguments; i++)
		if (strncmp(line->arguments[i], scheme, sizeof(scheme) - 1) == 0)
			return weft_usage_error("'%s' stands alone", line->arguments[i]);
	if (strncmp(line->arguments[0], scheme, sizeof(scheme) - 1) != 0)
		return WEFT_GO_ON;
	if (line->nr_arguments > 1)
		return weft_usage_error("'%s' stands alone", line->arguments[0]);
	if (!weft_name_valid(name) || is_dots(name) || name[0] == '-')
		return weft_usage_error("'%s' names no lease of a pool", line->arguments[0]);
	int r = attach_pool_find(name, uris, &nr);
	if (r != WEFT_GO_ON)
		return r;
	if (!o->name[0])
		strcpy(o->name, name);
	if (o->copies > 1 && o->copies != nr)
		return weft_usage_error("lease '%s' has %u cop%s, so that --mirror %u is wrong",
			name, nr, nr == 1 ? "y" : "ies", o->copies);
	if (nr > 1)
		o->copies = nr;
	line->arguments = uris;
	line->nr_arguments = (int)nr;
	/* Several regions of a lease are copies of each other. */
	if (nr > 1 && !weft_option_given(line, "mirror"))
		o->copies = nr;
	return WEFT_GO_ON;
}

static int parse_uris(struct attach_options *o, const struct weft_command_line *line)
{
	bool have_transport = weft_option_given(line, "transport");
	unsigned nr = (unsigned)line->nr_arguments;
	struct weft_error err;
	size_t len = 1;

	for (; o->nr_donors < nr; o->nr_donors++) {
		struct attach_donor *d = &o->donors[o->nr_donors];

		if (weft_uri_parse(line->arguments[o->nr_donors], &d->uri, &err) < 0)
			return refuse_uri(line, &err);
		d->uri_text = weft_uri_format(&d->uri);
		if (!d->uri_text)
			return weft_usage_error("out of memory");
		len += strlen(d->uri_text) + 1;
		/* There is one transport for all donors: the one that any URI names. */
		if (!have_transport && d->uri.transport)
			o->transport = d->uri.transport;
	}
	o->uri_text = calloc(1, len);
	for (unsigned i = 0; i < nr && o->uri_text; i++) {
		if (i > 0)
			strcat(o->uri_text, " ");
		strcat(o->uri_text, o->donors[i].uri_text);
	}
	return o->uri_text ? WEFT_GO_ON : weft_usage_error("out of memory");
}

/* Whether the word, or the one behind it that is its value, is `once`. */
static bool is_once(int argc, char *const argv[], int i, const char *once)
{
	if (argv[i] == once)
		return true;
	return i + 1 < argc && argv[i + 1] == once && once[0] != '-' && argv[i][0] == '-';
}

/*
 * "weft attach …" with the arguments as given, except the option that `once` (may be NULL) ends,
 * which is not meant for another time.
 */
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
		if (is_once(argc, argv, i, once))
			continue;
		*to++ = ' ';
		to = weft_shell_word(argv[i], to);
	}
	return line;
}

static bool is_any_given(const struct weft_command_line *line, const char *const *names)
{
	for (; *names; names++)
		if (weft_option_given(line, *names))
			return true;
	return false;
}

/* Options that are for an attachment with a cache, or with copies, alone. */
static const char *const cache_options[] = {"cache-file", "chunk-size", "write-through",
	"push-interval", "pull", "pull-workers", "pull-rate", "pull-order", "record-order", NULL};
static const char *const copy_options[] = {"min-copies", "on-too-few", "from", "spare",
	"spare-after", NULL};

static void set_defaults(struct attach_options *o)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	memset(o, 0, sizeof(*o));
	o->nr_lanes = cpus < 1 ? 1 : cpus > 4 ? 4 : (unsigned)cpus;
	o->timeout_ms = o->dead_timeout_ms = 30000;
	o->push_interval_ms = 1000;
	o->copies = 1;
	o->rights.uid = geteuid();
	o->rights.gid = getegid();
}

int attach_options_parse(int argc, char **argv, struct attach_options *o)
{
	char choices[120];
	const struct weft_option transport[] = {
		{"transport", tp_choices("|", choices, sizeof(choices)),
			"how data travels (default auto)", .kind = WEFT_OPTION_CALL,
			.parse = parse_transport},
		{0},
	};
	struct weft_command_line line = {
		.command = "attach",
		.synopsis = "URI... --device [PATH] | --socket PATH | --mount FILE [OPTION]...",
		.about = "Maps a region of a donor: as a block device, "
			 "as an NBD server on a Unix socket, as a file, or as several of them.\n"
			 "Several URIs are one device, striped over regions of several donors, or "
			 "copies of each other (--mirror), or both.",
		.tables = {{options, o}, {transport, o}, {more_options, o}},
	};
	/* A copy, since getopt_long(3) moves the arguments. */
	WEFT_CLEANUP_FREE char **given = calloc((size_t)argc + 1, sizeof(*given));

	set_defaults(o);
	if (!given)
		return weft_usage_error("out of memory");
	memcpy(given, argv, (size_t)argc * sizeof(*given));
	int r = weft_options_parse(&line, argc, argv);
	if (r != WEFT_GO_ON)
		return r;
	const char *once = weft_option_given(&line, "new-contents");
	o->again = line_of(argc, given, once ? once : weft_option_given(&line, "from"));
	o->waits = weft_option_given(&line, "wait");
	o->pull |= weft_option_given(&line, "pull-workers") ||
		weft_option_given(&line, "pull-rate") || weft_option_given(&line, "pull-order");
	o->needs_cache = is_any_given(&line, cache_options);
	o->has_copy_options = is_any_given(&line, copy_options);
	if (line.nr_arguments == 0)
		return weft_usage_error("which region? Give its URI, such as weft://HOST/REGION");
	if (line.nr_arguments > BRIDGE_MAX_DONORS)
		return weft_usage_error("at most %d URIs", BRIDGE_MAX_DONORS);
	char *uris[BRIDGE_MAX_DONORS] = {NULL};
	r = find_lease(o, &line, uris);
	if (r == WEFT_GO_ON)
		r = parse_uris(o, &line);
	for (unsigned i = 0; i < BRIDGE_MAX_DONORS; i++)
		free(uris[i]);
	if (r == WEFT_GO_ON)
		r = attach_options_check(o);
	if (r == WEFT_GO_ON && !o->name[0])
		name_from_region(o->donors[0].uri.region, o->name);
	return r;
}
