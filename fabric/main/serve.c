/*
 * weft serve: lends memory, files and directories.
 *
 * The main thread owns the loop: accept, timers, signals, the control socket.  Each connection has a
 * thread of its own, in the listener.
 * Order: sockets are bound first (a second daemon on the same port ends before it takes memory), then
 * regions, then "ready".  The end is the reverse.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>

#include "fabric/available.h"
#include "fabric/control.h"
#include "fabric/donor.h"
#include "fabric/holder.h"
#include "fabric/listen.h"
#include "fabric/log.h"
#include "fabric/loop.h"
#include "fabric/uri.h"
#include "fabric/util.h"
#include "transports/nbd/listener.h"

enum {
	MAX_LISTEN = 16,
	MAX_REGIONS = 256,
	MAX_PASSED = 2 * MAX_REGIONS + MAX_LISTEN,
	LISTED_FILES = 20,   /* of a directory, with their attach lines */
	DRAIN_MS = 10000,    /* for requests in flight when we stop */
	TICK_NS = 1000000000,
	HOLDER_RESTART_S = 10, /* one that dies sooner is not started again */
};

struct wanted {
	char *name;
	char *path; /* FILE */
	uint64_t size_bytes;
	struct weft_region *region;
	bool recovered;
};

struct serve {
	/* What was asked for. */
	struct wanted wanted[MAX_REGIONS];
	unsigned nr_wanted;
	const char *directory;
	const char *listen[MAX_LISTEN];
	unsigned nr_listen;
	uint64_t hugepage_bytes;
	enum weft_numa numa;
	unsigned numa_node;
	bool read_only, allow_insecure, overcommit;
	unsigned lease_s, keep_s;

	/* What became of it. */
	struct weft_listening listening[MAX_LISTEN];
	unsigned nr_listening;
	struct weft_loop *loop;
	struct weft_donor *donor;
	struct nbd_listener *listener;
	struct weft_control *control;
	struct weft_watch signals;
	struct weft_timer tick;
	struct weft_holder *holder; /* NULL: memory does not outlive us */
	struct weft_watch holder_watch;
	uint64_t holder_start_ns;
	int stop_signal;
	uint64_t start_ns;
};

static void usage(FILE *out)
{
	fputs("usage: weft serve [--memory NAME=SIZE]... [--file NAME=PATH]... [--directory PATH] [OPTION]...\n"
	      "Lends memory, files, or the files of a directory to borrowers on the network.\n"
	      "\n"
	      "  --memory NAME=SIZE        lend SIZE bytes (K, M, G, T) of memory; taken and cleared up front\n"
	      "  --hugepages 2M|1G         in huge pages\n"
	      "  --numa NODE|nic|interleave  on one NUMA node, on the network card's, or over all\n"
	      "  --overcommit              even if that is more than is available\n"
	      "  --file NAME=PATH          lend a file's content\n"
	      "  --directory PATH          lend each regular file below PATH, by its relative path\n"
	      "  --read-only               nothing may be written\n"
	      "  --listen ADDRESS[:PORT]   or unix:PATH; port 0: any (default 127.0.0.1:10809)\n"
	      "  --allow-insecure          listen beyond this machine, though there are no keys yet\n"
	      "  --lease SECONDS           how long a silent borrower keeps its region (default 30)\n"
	      "  --keep SECONDS            how long memory outlives a crash of this program (default 300)\n"
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
static struct wanted *want(struct serve *s, const char *option, const char *text, bool last, char **ret_value)
{
	const char *equals = last ? strrchr(text, '=') : strchr(text, '=');

	if (!equals || equals == text || equals[1] == '\0') {
		usage_error("--%s wants NAME=%s, not '%s'", option, last ? "SIZE, such as scratch=4G" : "PATH", text);
		return NULL;
	}
	if (s->nr_wanted == MAX_REGIONS) {
		usage_error("more than %d regions", MAX_REGIONS);
		return NULL;
	}
	struct wanted *w = &s->wanted[s->nr_wanted];
	w->name = strndup(text, (size_t)(equals - text));
	*ret_value = strdup(equals + 1);
	if (!w->name || !*ret_value)
		abort();
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
	struct wanted *w = want(s, "memory", text, true, &size);

	if (!w)
		return -EINVAL;
	if (weft_parse_size(size, &w->size_bytes) < 0 || w->size_bytes == 0)
		return usage_error("--memory %s: '%s' is no size; say 64M, 4G or 1.5T", text, size);
	return 0;
}

static int want_file(struct serve *s, const char *text)
{
	char *path = NULL;
	struct wanted *w = want(s, "file", text, false, &path);

	if (!w)
		return -EINVAL;
	w->path = path;
	return 0;
}

static int parse_seconds(const char *option, const char *text, unsigned min, unsigned *ret)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || v < min || v > 31536000)
		return usage_error("--%s wants seconds, %u or more, not '%s'", option, min, text);
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

/* 0; 1 after --help; -EINVAL. */
static int parse_options(struct serve *s, int argc, char **argv)
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
				r = usage_error("--directory can be given once");
			s->directory = optarg;
			break;
		case READ_ONLY:
			s->read_only = true;
			break;
		case LISTEN:
			if (s->nr_listen == MAX_LISTEN)
				r = usage_error("--listen can be given %d times", MAX_LISTEN);
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
			r = parse_seconds("lease", optarg, 1, &s->lease_s);
			break;
		case KEEP:
			r = parse_seconds("keep", optarg, 0, &s->keep_s);
			break;
		case 'h':
			usage(stdout);
			return 1;
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

/* ---- sockets and regions ---- */

/* The first socket that a borrower elsewhere would use: TCP before Unix. */
static const struct weft_listening *main_listening(const struct serve *s)
{
	for (unsigned i = 0; i < s->nr_listening; i++)
		if (!*s->listening[i].socket)
			return &s->listening[i];
	return &s->listening[0];
}

/* Sockets that systemd made take the place of the default one. */
static int take_passed_sockets(struct serve *s, int *fds, char *const *names, int nr_fds, struct weft_error *err)
{
	for (int i = 0; i < nr_fds; i++) {
		if (strncmp(names[i], WEFT_HOLDER_STORE_NAME, strlen(WEFT_HOLDER_STORE_NAME)) == 0)
			continue;
		if (s->nr_listening == MAX_LISTEN)
			return weft_error_set(err, E2BIG, "systemd passed more than %d sockets", MAX_LISTEN);
		int r = weft_listening_describe(fds[i], s->allow_insecure, &s->listening[s->nr_listening], err);

		if (r < 0)
			return weft_error_prefix(err, "socket '%s', passed by systemd", names[i]);
		s->listening[s->nr_listening++].passed = true;
		fds[i] = -1;
	}
	return 0;
}

static int open_sockets(struct serve *s, struct weft_error *err)
{
	static const char *const default_listen[] = {"127.0.0.1"};
	const char *const *listen = s->nr_listen ? s->listen : default_listen;
	unsigned nr = s->nr_listen ? s->nr_listen : s->nr_listening ? 0 : 1;

	for (unsigned i = 0; i < nr; i++) {
		if (s->nr_listening == MAX_LISTEN)
			return weft_error_set(err, E2BIG, "more than %d sockets to listen on", MAX_LISTEN);
		int r = weft_listen(listen[i], "10809", s->allow_insecure, &s->listening[s->nr_listening], err);

		if (r < 0)
			return r;
		s->nr_listening++;
	}
	return 0;
}

/* Whether it is worth starting to take memory: all regions together, not one after the other. */
static int check_total(const struct serve *s, struct weft_error *err)
{
	struct weft_available available;
	char want_text[32], have_text[32];
	uint64_t total = 0;
	unsigned nr = 0;

	for (unsigned i = 0; i < s->nr_wanted; i++) {
		const struct wanted *w = &s->wanted[i];

		if (w->path || w->region)
			continue;
		if (w->size_bytes > UINT64_MAX - total)
			return weft_error_set(err, ENOMEM, "the regions' sizes add up to more than 16 EiB");
		total += w->size_bytes;
		nr++;
	}
	if (s->overcommit || nr < 2 || weft_available("", s->hugepage_bytes, -1, &available) < 0 ||
		total <= available.bytes)
		return 0;
	return weft_error_set(err, ENOMEM, "%s wanted for %u regions, but only %s can be had (%s); lend less, or "
		"insist with --overcommit", weft_format_size(total, want_text, sizeof(want_text)), nr,
		weft_format_size(available.bytes, have_text, sizeof(have_text)), available.limit);
}

static void remove_sockets(const struct serve *s)
{
	for (unsigned i = 0; i < s->nr_listening; i++)
		if (*s->listening[i].socket == '/' && !s->listening[i].passed)
			unlink(s->listening[i].socket);
}

struct progress {
	const struct serve *s;
	const char *name;
	bool tty;
	uint64_t last_ns;
};

static void show_progress(void *ctx, uint64_t done, uint64_t total)
{
	struct progress *p = ctx;
	uint64_t now_ns = weft_now_ns();
	char done_text[32], total_text[32], bar[31];
	sigset_t pending;

	/* Nobody waits for a terabyte to be taken only to see it given back. */
	if (sigpending(&pending) == 0 && (sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT))) {
		remove_sockets(p->s);
		_exit(1);
	}
	if (done < total && now_ns - p->last_ns < (p->tty ? 100000000u : 5000000000u))
		return;
	if (!p->tty && done == total)
		return;
	p->last_ns = now_ns;
	weft_format_size(done, done_text, sizeof(done_text));
	weft_format_size(total, total_text, sizeof(total_text));
	if (!p->tty) {
		weft_info("region '%s': %s of %s taken", p->name, done_text, total_text);
		return;
	}
	size_t full = (size_t)((double)done / (double)total * (double)(sizeof(bar) - 1));
	memset(bar, ' ', sizeof(bar) - 1);
	memset(bar, '#', full);
	bar[sizeof(bar) - 1] = '\0';
	fprintf(stderr, "\r%s [%s] %s of %s \033[K%s", p->name, bar, done_text, total_text,
		done == total ? "\r\033[K" : "");
}

static int take_memory(const struct serve *s, struct wanted *w, struct weft_error *err)
{
	struct weft_memory_spec spec = {
		.name = w->name,
		.size_bytes = w->size_bytes,
		.hugepage_bytes = s->hugepage_bytes,
		.numa = s->numa,
		.numa_node = s->numa_node,
		.read_only = s->read_only,
		.overcommit = s->overcommit,
	};
	struct progress progress = {s, w->name, isatty(STDERR_FILENO), weft_now_ns()};

	sd_notifyf(0, "STATUS=taking memory for region '%s'", w->name);
	return weft_region_new_memory(&spec, show_progress, &progress, &w->region, err);
}

/* ---- what outlives us ---- */

static void on_holder(struct weft_watch *watch, uint32_t events);

static void start_holder(struct serve *s)
{
	struct weft_error err;
	char place[280];

	if (s->keep_s == 0)
		return;
	s->holder_start_ns = weft_now_ns();
	if (weft_holder_start(weft_listening_format(main_listening(s), place), s->keep_s, &s->holder, &err) < 0) {
		weft_warn("memory will not outlive a crash of this program: %s", err.message);
		return;
	}
	s->holder_watch.fd = weft_holder_fd(s->holder);
	s->holder_watch.fn = on_holder;
	if (s->holder_watch.fd >= 0)
		weft_loop_add(s->loop, &s->holder_watch, EPOLLIN);
}

static void hold(struct serve *s, const struct wanted *w)
{
	struct weft_error err;

	if (s->holder && w->region && w->region->header && weft_holder_hold(s->holder, w->region, &err) < 0)
		weft_warn("%s", err.message);
}

/* It says nothing: its end is all there is to see. */
static void on_holder(struct weft_watch *watch, uint32_t events)
{
	struct serve *s = weft_container_of(watch, struct serve, holder_watch);
	uint64_t lived_ns = weft_now_ns() - s->holder_start_ns;

	weft_loop_remove(s->loop, watch);
	weft_holder_end(s->holder, true);
	s->holder = NULL;
	if (lived_ns < HOLDER_RESTART_S * UINT64_C(1000000000)) {
		weft_warn("weftholder ended; memory will not outlive a crash of this program");
		return;
	}
	weft_warn("weftholder ended; starting another");
	start_holder(s);
	for (unsigned i = 0; i < s->nr_wanted; i++)
		hold(s, &s->wanted[i]);
}

static int recover(struct serve *s, struct wanted *w, struct weft_leftovers *leftovers, struct weft_error *err)
{
	const struct weft_leftover *left = weft_leftovers_get(leftovers, w->name);
	uint64_t page = s->hugepage_bytes ? s->hugepage_bytes : (uint64_t)sysconf(_SC_PAGESIZE);
	char size[32], how[96];

	if (!left)
		return 0;
	weft_format_size(left->size_bytes, size, sizeof(size));
	if (left->size_bytes != w->size_bytes && left->size_bytes != (w->size_bytes + page - 1) / page * page) {
		if (left->stored)
			snprintf(how, sizeof(how), "stop its systemd unit, which empties the descriptor store");
		else
			snprintf(how, sizeof(how), "kill %d", left->holder_pid);
		return weft_error_set(err, EEXIST, "region '%s': a donor before this one left %s (%" PRIu64 " bytes) of "
			"contents under this name. Lend that size to have them back, or give them up first: %s",
			w->name, size, left->size_bytes, how);
	}
	int fd = fcntl(left->fd, F_DUPFD_CLOEXEC, 3), header_fd = fcntl(left->header_fd, F_DUPFD_CLOEXEC, 3);
	int r = fd < 0 || header_fd < 0
			? weft_error_set(err, EMFILE, "region '%s': no descriptors left", w->name)
			: weft_region_adopt(fd, header_fd, s->read_only, &w->region, err);
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		if (header_fd >= 0)
			close(header_fd);
		return r;
	}
	w->recovered = true;
	hold(s, w);
	if (s->holder)
		weft_leftovers_done(leftovers, left);
	printf("recovered region '%s' (%s), epoch %016" PRIx64 "\n", w->name, size, w->region->epoch);
	return 0;
}

static int recover_all(struct serve *s, int *fds, char *const *names, int nr_fds, struct weft_error *err)
{
	struct weft_leftovers *leftovers;
	char place[280];
	int r = weft_leftovers_find(weft_listening_format(main_listening(s), place), fds, names, nr_fds,
		&leftovers);

	if (r < 0)
		return weft_error_set(err, -r, "cannot look for what a donor before this one left: %s", strerror(-r));
	start_holder(s); /* after the search, which would come upon it */
	for (unsigned i = 0; i < s->nr_wanted && r == 0; i++)
		if (!s->wanted[i].path)
			r = recover(s, &s->wanted[i], leftovers, err);
	weft_leftovers_free(leftovers);
	return r;
}

static int open_regions(struct serve *s, struct weft_error *err)
{
	int r = check_total(s, err);

	for (unsigned i = 0; i < s->nr_wanted && r == 0; i++) {
		struct wanted *w = &s->wanted[i];

		if (w->path)
			r = weft_region_open_file(AT_FDCWD, w->path, w->name, false, s->read_only, &w->region, err);
		else if (!w->region)
			r = take_memory(s, w, err);
		if (r == 0)
			r = weft_donor_add(s->donor, w->region, err);
	}
	if (r == 0 && s->directory)
		r = weft_donor_add_directory(s->donor, s->directory, s->read_only, err);
	return r;
}

/* ---- what it says ---- */

static void print_attach_line(const struct serve *s, const char *name)
{
	const struct weft_listening *l = main_listening(s);
	struct weft_uri uri = {.region = (char *)name};
	char run_dir[108], leaf[64];
	size_t n = 0;

	memcpy(uri.host, l->host, sizeof(uri.host));
	memcpy(uri.port, l->port, sizeof(uri.port));
	memcpy(uri.socket, l->socket, sizeof(uri.socket));
	char *text = weft_uri_format(&uri);
	/* A path that any shell takes as it is. */
	for (const char *p = name; *p && n < sizeof(leaf) - 1; p++) {
		bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
			     *p == '-' || *p == '_' || (*p == '.' && n > 0);

		leaf[n++] = plain ? *p : '_';
	}
	leaf[n] = '\0';
	if (weft_run_dir(run_dir, sizeof(run_dir)) < 0)
		strcpy(run_dir, "/tmp");
	printf("weft attach %s --socket %s/%s.nbd\n", text ? text : "?", run_dir, leaf);
	free(text);
}

static int print_file(void *ctx, const char *name, const char *description, uint64_t size_bytes)
{
	struct {
		const struct serve *s;
		unsigned n;
	} *c = ctx;

	for (unsigned i = 0; i < c->s->nr_wanted; i++)
		if (strcmp(c->s->wanted[i].name, name) == 0)
			return 0;
	if (c->n++ == LISTED_FILES) {
		char text[280];

		printf("and more; all are listed by:  weft list weft://%s\n",
			weft_listening_format(main_listening(c->s), text));
		return 1;
	}
	printf("region '%s': %s ; map it with:  ", name, description);
	print_attach_line(c->s, name);
	return 0;
}

static void print_ready(const struct serve *s)
{
	struct {
		const struct serve *s;
		unsigned n;
	} files = {s, 0};
	char text[280];

	for (unsigned i = 0; i < s->nr_listening; i++) {
		printf("listening on %s\n", weft_listening_format(&s->listening[i], text));
		if (s->listening[i].insecure)
			weft_warn("whoever reaches %s can read and write all regions: there are no keys yet", text);
	}
	for (unsigned i = 0; i < s->nr_wanted; i++) {
		const struct weft_region *region = s->wanted[i].region;

		printf("region '%s': %s, epoch %016" PRIx64 " ; map it with:  ", region->name,
			region->description, region->epoch);
		print_attach_line(s, region->name);
	}
	if (s->directory)
		weft_donor_list(s->donor, print_file, &files);
	puts("ready");
	fflush(stdout);
}

static json_t *hex_json(uint64_t v)
{
	char text[17];

	snprintf(text, sizeof(text), "%016" PRIx64, v);
	return json_string(text);
}

static json_t *region_json(const struct wanted *w)
{
	const struct weft_region *r = w->region;

	return json_pack("{s:s, s:s, s:I, s:s, s:b, s:o, s:b}", "name", r->name, "description", r->description,
		"size_bytes", (json_int_t)r->size_bytes, "backing",
		r->backing == WEFT_BACKING_MEMORY ? "memory" : "file", "read_only", r->read_only, "epoch",
		hex_json(r->epoch), "recovered", w->recovered);
}

static void add_attachment(void *ctx, const struct weft_attachment_status *a)
{
	static const char *const modes[] = {"read", "shared", "write"};

	json_array_append_new(ctx, json_pack("{s:s, s:s, s:s, s:I, s:i, s:s, s:s, s:I, s:o}", "region", a->region,
		"name", a->name, "mode", modes[a->mode], "generation", (json_int_t)a->generation, "sessions",
		(int)a->nr_sessions, "peer", a->peer, "transport", a->transport, "silent_ms",
		(json_int_t)a->silent_ms, "lease_left_ms",
		a->lease_left_ms == UINT64_MAX ? json_null() : json_integer((json_int_t)a->lease_left_ms)));
}

static json_t *status_json(const struct serve *s)
{
	json_t *listen = json_array(), *regions = json_array(), *attachments = json_array();
	const char *kept_by = !s->holder ? "nobody" : weft_holder_pid(s->holder) ? "weftholder" : "systemd";
	struct nbd_listener_status c;
	char text[280];

	for (unsigned i = 0; i < s->nr_listening; i++)
		json_array_append_new(listen, json_string(weft_listening_format(&s->listening[i], text)));
	for (unsigned i = 0; i < s->nr_wanted; i++)
		json_array_append_new(regions, region_json(&s->wanted[i]));
	weft_donor_status(s->donor, add_attachment, attachments);
	nbd_listener_status(s->listener, &c);
	return json_pack("{s:s, s:s, s:i, s:I, s:i, s:o, s:o, s:s?, s:o, s:s, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}}",
		"kind", "serve", "version", WEFT_VERSION, "pid", (int)getpid(), "uptime_s",
		(json_int_t)((weft_now_ns() - s->start_ns) / 1000000000), "lease_s", (int)s->lease_s, "listen",
		listen, "regions", regions, "directory", s->directory, "attachments", attachments, "memory_kept_by", kept_by, "counters",
		"connections", (json_int_t)c.connections, "accepted", (json_int_t)c.accepted, "refused",
		(json_int_t)c.refused, "requests", (json_int_t)c.requests, "read_bytes", (json_int_t)c.read_bytes,
		"written_bytes", (json_int_t)c.written_bytes, "errors", (json_int_t)c.errors);
}

static void on_question(void *ctx, struct weft_control_call *call, const json_t *question)
{
	const char *op = json_string_value(json_object_get(question, "op"));

	if (op && strcmp(op, "status") == 0)
		weft_control_answer(call, status_json(ctx));
	else
		weft_control_answer(call, json_pack("{s:s, s:i}", "error",
			"a donor answers to {\"op\": \"status\"} only", "code", EOPNOTSUPP));
}

/* Without a control socket `weft status` does not see us; lending works all the same. */
static void open_control(struct serve *s)
{
	const struct weft_listening *l = main_listening(s);
	struct weft_error err;
	char name[64];
	int r;

	if (*l->port)
		snprintf(name, sizeof(name), "serve-%s.sock", l->port);
	else
		snprintf(name, sizeof(name), "serve-%d.sock", (int)getpid());
	r = weft_control_new(s->loop, name, on_question, s, &s->control, &err);
	if (r == -EADDRINUSE) { /* the same port of another address */
		snprintf(name, sizeof(name), "serve-%s-%d.sock", l->port, (int)getpid());
		r = weft_control_new(s->loop, name, on_question, s, &s->control, &err);
	}
	if (r < 0)
		weft_warn("%s", err.message);
}

/* ---- life ---- */

static void on_signal(struct weft_watch *watch, uint32_t events)
{
	struct serve *s = weft_container_of(watch, struct serve, signals);
	struct signalfd_siginfo info;

	if (read(watch->fd, &info, sizeof(info)) != sizeof(info))
		return;
	s->stop_signal = (int)info.ssi_signo;
	weft_loop_stop(s->loop);
}

static void on_tick(struct weft_timer *timer)
{
	struct serve *s = weft_container_of(timer, struct serve, tick);

	weft_donor_tick(s->donor, weft_now_ns());
	weft_loop_timer_set(s->loop, timer, TICK_NS);
}

/* Blocks the signals that stop us, in all threads to come, and reads them from a descriptor. */
static int watch_signals(struct serve *s)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s->signals.fn = on_signal;
	if (s->signals.fd < 0)
		return -errno;
	return weft_loop_add(s->loop, &s->signals, EPOLLIN);
}

static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	/* Connections allocate when they come; an arena for each thread would be memory for nothing. */
	mallopt(M_ARENA_MAX, 2);
}

static int start(struct serve *s, struct weft_error *err)
{
	struct weft_donor_config config = {.lease_ms = s->lease_s * 1000, .offers = "tcp"};
	int fds[MAX_LISTEN], r;

	s->start_ns = weft_now_ns();
	raise_limits();
	r = weft_loop_new(&s->loop);
	if (r == 0)
		r = watch_signals(s);
	if (r == 0)
		r = weft_donor_new(&config, &s->donor);
	if (r < 0)
		return weft_error_set(err, -r, "cannot start: %s", strerror(-r));
	char **names = NULL;
	int nr_passed = sd_listen_fds_with_names(1, &names), passed[MAX_PASSED];
	if (nr_passed < 0 || nr_passed > MAX_PASSED)
		return weft_error_set(err, EINVAL, "cannot make out the descriptors that systemd passed");
	for (int i = 0; i < nr_passed; i++)
		passed[i] = SD_LISTEN_FDS_START + i;
	r = take_passed_sockets(s, passed, names, nr_passed, err);
	if (r == 0)
		r = open_sockets(s, err);
	if (r == 0)
		r = recover_all(s, passed, names, nr_passed, err);
	for (int i = 0; i < nr_passed; i++) {
		if (passed[i] >= 0)
			close(passed[i]);
		free(names[i]);
	}
	free(names);
	if (r == 0)
		r = open_regions(s, err);
	if (r < 0)
		return r;
	/* Only now, so that a start that fails does not leave behind what nobody has used. */
	for (unsigned i = 0; i < s->nr_wanted; i++)
		if (!s->wanted[i].recovered)
			hold(s, &s->wanted[i]);
	for (unsigned i = 0; i < s->nr_listening; i++)
		fds[i] = s->listening[i].fd;
	r = nbd_listener_new(s->donor, s->loop, fds, s->nr_listening, NULL, &s->listener, err);
	if (r < 0)
		return r;
	open_control(s);
	s->tick.fn = on_tick;
	weft_loop_timer_set(s->loop, &s->tick, TICK_NS);
	print_ready(s);
	sd_notifyf(0, "READY=1\nSTATUS=lending %u region%s", s->nr_wanted, s->nr_wanted == 1 ? "" : "s");
	return 0;
}

/* 0, or -errno: something is not as durable as it should be, or a thread is stuck in a region. */
static int finish(struct serve *s, struct weft_error *err)
{
	int r = 0;

	sd_notify(0, "STOPPING=1\nSTATUS=finishing requests");
	if (s->donor)
		weft_donor_stop(s->donor);
	if (s->listener) {
		nbd_listener_stop(s->listener);
		if (nbd_listener_drain(s->listener, DRAIN_MS) < 0) {
			/* It may still write: no clean marks, and nothing is unmapped under it. */
			weft_donor_flush(s->donor, NULL);
			return weft_error_set(err, ETIMEDOUT, "a session is stuck in a region; files get a new epoch");
		}
		nbd_listener_free(s->listener);
	} else {
		for (unsigned i = 0; i < s->nr_listening; i++)
			close(s->listening[i].fd);
	}
	remove_sockets(s);
	weft_control_free(s->control);
	if (s->donor)
		r = weft_donor_flush(s->donor, err);
	weft_donor_free(s->donor);
	/* The last references: files are marked clean. */
	for (unsigned i = 0; i < s->nr_wanted; i++) {
		weft_region_put(s->wanted[i].region);
		free(s->wanted[i].name);
		free(s->wanted[i].path);
	}
	if (s->holder && s->holder_watch.fd >= 0)
		weft_loop_remove(s->loop, &s->holder_watch);
	bool keep = s->stop_signal != SIGTERM && s->stop_signal != SIGINT;
	if (keep && s->stop_signal && weft_holder_pid(s->holder))
		weft_info("memory stays with weftholder (%d) for %u s", weft_holder_pid(s->holder), s->keep_s);
	weft_holder_end(s->holder, keep);
	if (s->loop && s->signals.fd >= 0)
		close(s->signals.fd);
	weft_loop_free(s->loop);
	return r;
}

int main(int argc, char **argv)
{
	static struct serve s = {.lease_s = 30, .keep_s = 300, .signals.fd = -1};
	struct weft_error err = {0};
	int r;

	weft_log_init("weft-serve", WEFT_LOG_INFO);
	r = parse_options(&s, argc, argv);
	if (r != 0)
		return r > 0 ? 0 : 2;
	r = start(&s, &err);
	if (r < 0)
		weft_err("%s", err.message);
	else
		r = weft_loop_run(s.loop);
	int ended = finish(&s, &err);
	if (ended < 0)
		weft_err("%s", err.message);
	return r < 0 || ended < 0;
}
