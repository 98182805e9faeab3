/* SPDX-License-Identifier: MIT */
/*
 * One round trip: a line, donors at its far end, and the methods at its near end, one after
 * another.  One thread.  Invariant: nothing that was started, and no file, outlives the station.
 */
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/methods/methods.h"

enum { STATION_S = 7200, CELL_S = 400, QUICK_MS = 500, FULL_MS = 2000 };

struct station {
	const struct bench_options *o;
	struct methods_site site;
	struct bench_line line;
	unsigned done, total;
	json_t *cells, *failed;
	bool parted; /* the region went elsewhere */
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	remove(path);
	return 0;
}

static int make_places(struct methods_site *site, struct weft_error *err)
{
	const char *tmp = getenv("TMPDIR");
	char run[128];

	/* A socket's path must be short. */
	snprintf(site->dir, sizeof(site->dir), "%s/weft-bench.XXXXXX",
		tmp && strlen(tmp) < 70 ? tmp : "/tmp");
	if (!mkdtemp(site->dir)) {
		int code = errno;

		site->dir[0] = '\0';
		return weft_error_set(err, code, "cannot make a directory: %s", strerror(code));
	}
	snprintf(run, sizeof(run), "%s/run", site->dir);
	if (mkdir(run, 0700) < 0 || setenv("WEFT_RUN_DIR", run, 1) < 0)
		return weft_error_set(err, errno, "cannot make %s: %s", run, strerror(errno));
	return 0;
}

static int make_key(struct methods_site *site, char *store, size_t len, struct weft_error *err)
{
	char program[PATH_MAX], said[1024];
	const char *const argv[] = {
		program, "new", "bench", "--store", store, "--out", site->key, NULL};

	bench_program("weft-key", program);
	snprintf(store, len, "%s/keys", site->dir);
	snprintf(site->key, sizeof(site->key), "%s/key", site->dir);
	return methods_call(argv, said, sizeof(said), err);
}

/* METHODS_KEYED: TLS over TCP, and QUIC; else plaintext. */
static int start_donor(struct station *s, unsigned which, struct weft_error *err)
{
	static const char *const ports[] = {"10809", "10811", "10813"},
				 *const here[] = {"12809", "12811", "12813"};
	const char *host = s->o->at ? s->o->at : s->line.far_address;
	struct methods_site *site = &s->site;
	struct methods_donor *donor = &site->donors[which];
	char program[PATH_MAX], memory[48], store[128], said[4096];
	const char *argv[16] = {program, "--memory", memory, "--listen", donor->address, "--keep",
		"0", "--allow-insecure"};
	int r = methods_contents_new(&donor->contents, s->o->seed + which, site->bytes);

	donor->daemon.out = -1;
	if (r < 0)
		return weft_error_set(err, -r, "out of memory");
	bench_program("weft-serve", program);
	snprintf(memory, sizeof(memory), "bench=%" PRIu64, site->bytes);
	snprintf(donor->address, sizeof(donor->address), "%s:%s", host,
		(s->o->at ? here : ports)[which]);
	if (which == METHODS_KEYED) {
		r = make_key(site, store, sizeof(store), err);
		argv[7] = "--keys";
		argv[8] = store;
		argv[9] = "--quic";
		argv[10] = s->o->at ? "12812" : "10812";
	} else if (which == METHODS_SRP) {
		argv[8] = "--srp";
		argv[9] = donor->target;
		snprintf(donor->lent_at, sizeof(donor->lent_at), "%.80s:%s", host, here[which]);
		snprintf(donor->target, sizeof(donor->target), "%.80s:12815", host);
	}
	if (r == 0)
		r = bench_daemon_start(argv, site->far, "donor", &donor->daemon, said, sizeof(said),
			err);
	return r;
}

static int start_donors(struct station *s, struct weft_error *err)
{
	struct weft_error no_srp;
	int r = start_donor(s, METHODS_PLAIN, err);

	if (r == 0)
		r = start_donor(s, METHODS_KEYED, err);
	if (r == 0 && s->o->at && start_donor(s, METHODS_SRP, &no_srp) < 0) {
		bench_daemon_end(&s->site.donors[METHODS_SRP].daemon);
		snprintf(s->site.no_srp, sizeof(s->site.no_srp), "%.290s", no_srp.message);
	}
	return r;
}

static bool is_there(const struct station *s, const struct methods_transport *transport)
{
	return s->site.donors[transport->donor].daemon.pid > 0;
}

/* The regions hold what belongs there. */
static json_t *fill_all(void *ctx, struct weft_error *err)
{
	struct station *s = ctx;
	bool filled[METHODS_NR_DONORS] = {0};

	for (unsigned t = 0; t < METHODS_NR_TRANSPORTS; t++) {
		const struct methods_cell cell = {
			&s->site, &methods_table[0], &methods_transports[t], NULL};
		unsigned donor = cell.transport->donor;

		if (filled[donor] || !is_there(s, cell.transport))
			continue;
		if (methods_bulk_write(&cell, NULL, err) < 0)
			return NULL;
		filled[donor] = true;
	}
	return json_object();
}

/* With a line, or without one. */
static int make_way(struct station *s, struct weft_error *err)
{
	struct methods_site *site = &s->site;
	char options[48];
	int r;

	if (s->o->at) {
		snprintf(site->near_address, sizeof(site->near_address), "%.70s:12817", s->o->at);
		return 0;
	}
	snprintf(options, sizeof(options), "delay=%.0fus", site->rtt_ms * 500);
	r = bench_line_make(options, &s->line, err);
	if (r < 0)
		return r;
	site->netdev = "line0";
	site->far = s->line.far;
	snprintf(site->near_address, sizeof(site->near_address), "%s", s->line.near_address);
	return 0;
}

static int set_up(struct station *s, struct weft_error *err)
{
	struct methods_site *site = &s->site;
	pid_t pid;
	int r;

	*site = (struct methods_site){.o = s->o,
		.rtt_ms = site->rtt_ms,
		.far = -1,
		.bytes = s->o->span_bytes / METHODS_BULK * METHODS_BULK,
		.phase_ns = (s->o->quick ? QUICK_MS : FULL_MS) * UINT64_C(1000000)};
	for (int i = 0; i < METHODS_NR_DONORS; i++)
		site->donors[i].daemon.out = -1;
	r = make_places(site, err);
	if (r == 0)
		r = make_way(s, err);
	if (r == 0)
		r = start_donors(s, err);
	if (r < 0)
		return r;
	json_t *filled = methods_in_child(fill_all, s, CELL_S, &pid, err);
	json_decref(filled);
	return filled ? 0 : -err->code;
}

static void tear_down(struct station *s)
{
	for (int i = 0; i < METHODS_NR_DONORS; i++) {
		bench_daemon_end(&s->site.donors[i].daemon);
		methods_contents_free(&s->site.donors[i].contents);
	}
	if (s->line.line.pid > 0)
		json_decref(bench_line_close(&s->line));
	if (s->site.dir[0])
		nftw(s->site.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static json_t *run_cell(void *ctx, struct weft_error *err)
{
	const struct methods_cell *cell = ctx;

	return cell->method->run ? cell->method->run(cell, err) : methods_work(cell, err);
}

/* What a process that was killed left: its bridge, and a region of which nobody knows the bytes. */
static void clear_away(struct station *s, pid_t pid)
{
	struct bench_bridge bridge = {.up = true};
	struct weft_error ignored;
	char state[200];
	pid_t filler;

	snprintf(bridge.name, sizeof(bridge.name), "bench-%d", (int)pid);
	snprintf(state, sizeof(state), "%s/run/attach-%s.json", s->site.dir, bridge.name);
	if (access(state, F_OK) == 0)
		bench_detach(&bridge);
	if (!bench_stop && !s->parted)
		json_decref(methods_in_child(fill_all, s, CELL_S, &filler, &ignored));
}

static void measure(struct station *s, const struct methods_method *method,
	const struct methods_transport *transport)
{
	struct methods_cell cell = {&s->site, method, transport, NULL};
	struct weft_error err;
	json_t *json = NULL;
	pid_t pid = 0;

	bench_progress(s->done++, "round trip %g ms: %s %s over %s", s->site.rtt_ms, method->name,
		method->mode, transport->name);
	if (is_there(s, transport))
		json = methods_in_child(run_cell, &cell, CELL_S, &pid, &err);
	else
		weft_error_set(&err, ENODEV, "%s", s->site.no_srp);
	json_t *head = json_pack("{s:f, s:s, s:s, s:s, s:b}", "rtt_ms", s->site.rtt_ms, "method",
		method->name, "mode", method->mode, "transport", transport->name, "peer",
		method->peer);
	s->parted |= method->parts_with_region;
	if (json) {
		json_object_update(head, json);
		json_array_append_new(s->cells, head);
		json_decref(json);
		return;
	}
	json_object_set_new(head, "why", json_string(err.message));
	json_array_append_new(s->failed, head);
	if (pid > 0)
		clear_away(s, pid);
}

static json_t *run_station(void *ctx, struct weft_error *err)
{
	struct station *s = ctx;
	int r = set_up(s, err);

	s->cells = json_array();
	s->failed = json_array();
	bench_progress_begin(s->total);
	for (unsigned m = 0; r == 0 && m < methods_nr; m++)
		for (unsigned t = 0; t < METHODS_NR_TRANSPORTS && !bench_stop; t++)
			if (methods_wanted(s->o, &methods_table[m], &methods_transports[t]))
				measure(s, &methods_table[m], &methods_transports[t]);
	tear_down(s);
	if (r == 0 && bench_stop)
		r = weft_error_set(err, EINTR, "stopped");
	return r < 0 ? NULL : json_pack("{s:o, s:o}", "cells", s->cells, "failed", s->failed);
}

json_t *methods_station(const struct bench_options *o, double rtt_ms, unsigned done, unsigned total,
	struct weft_error *err)
{
	static struct station s;
	pid_t pid;

	s = (struct station){.o = o, .site.rtt_ms = rtt_ms, .done = done, .total = total,
		.line = {.line.out = -1, .donor.out = -1, .far = -1}};
	return methods_in_child(run_station, &s, STATION_S, &pid, err);
}
