/* SPDX-License-Identifier: MIT */
/*
 * Private to weft bench --methods: the same work by every method of sharing memory over a network,
 * on lines of several lengths.
 *
 * For each round trip there is a process (station.c) with a line, donors at its far end, and a
 * process for each method over a transport, which works at the near end: so what one leaves behind,
 * and what one breaks, is not the next one's.  What was measured is one JSON object; the reports
 * are made from it alone.
 *
 * One thread in each process, beside those of libweft.
 */
#ifndef WEFT_PERF_METHODS_METHODS_H
#define WEFT_PERF_METHODS_METHODS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fabric/base/error.h"
#include "fabric/base/histogram.h"
#include "perf/bench/bench.h"

enum {
	METHODS_PAGE = 4096,
	METHODS_CHUNK = 256 << 10, /* of sequential work */
	METHODS_BULK = 1 << 20,    /* a request of the bulk rate, … */
	METHODS_BULK_DEPTH = 64,   /* … and how many are in flight */
	METHODS_BULK_LANES = 4,
};

/* ---- what is there (contents.c) ---- */

/*
 * What a region or a file holds: each page is made of the seed, its number and its version, so that
 * every byte that is read can be checked.  The versions are shared by the processes of a station.
 */
struct methods_contents {
	uint64_t seed, bytes;
	uint32_t *versions; /* a page each */
};

/* 0, or -ENOMEM. */
int methods_contents_new(struct methods_contents *c, uint64_t seed, uint64_t bytes);
void methods_contents_free(struct methods_contents *c);
/* From now on other bytes belong there.  off and len: whole pages, here and below. */
void methods_contents_change(struct methods_contents *c, uint64_t off, uint64_t len);
void methods_contents_make(const struct methods_contents *c, void *buf, uint32_t len, uint64_t off);
/* 0; or -EILSEQ: other bytes. */
int methods_contents_check(const struct methods_contents *c, const void *buf, uint32_t len,
	uint64_t off, struct weft_error *err);

struct methods_random {
	uint64_t x; /* not 0 */
};
uint64_t methods_random_below(struct methods_random *random, uint64_t bound);

/* ---- what it costs (meter.c) ---- */

struct methods_cpu {
	uint64_t user_ns, system_ns;
};

struct methods_meter {
	uint64_t ns, machine_ns, wire_bytes;
	struct methods_cpu client, bridge, donor;
};

struct methods_site;
/* Processes that are not there (0) cost nothing. */
void methods_meter_read(
	const struct methods_site *site, pid_t bridge, pid_t donor, struct methods_meter *ret);
uint64_t methods_resident_bytes(pid_t pid); /* 0: self */

/* One kind of work, while it is done. */
struct methods_phase {
	struct methods_meter from, to;
	struct weft_histogram latency; /* ns */
	uint64_t ops, bytes;
};
/* The caller owns it.  Processor time of who was not there, or cannot be told, is null. */
json_t *methods_phase_json(const struct methods_site *site, const struct methods_phase *phase,
	bool have_bridge, bool have_donor);

/* ---- processes (child.c) ---- */

/*
 * What fn makes, in a process of its own, whose id *ret_pid is; fn's error comes back in err. NULL:
 * it failed, was killed, or took longer than that.  SIGTERM, which it gets when bench_stop is set,
 * is for it to end in order.
 */
json_t *methods_in_child(json_t *(*fn)(void *ctx, struct weft_error *err), void *ctx,
	unsigned seconds, pid_t *ret_pid, struct weft_error *err);
/* Runs a program to its end; the last line that it printed into said.  0, or -EIO with err. */
int methods_call(const char *const argv[], char *said, size_t len, struct weft_error *err);

/* ---- transports (cell.c) and methods (table.c) ---- */

struct methods_transport {
	const char *name; /* as it is shown: "tls" */
	const char *word; /* as weft attach --transport has it: "tcp" */
	unsigned donor;   /* one of the site's */
	bool key;
	bool here; /* wants an RDMA device, which no line has: only with --at */
};
enum { METHODS_NR_TRANSPORTS = 5 };
extern const struct methods_transport methods_transports[METHODS_NR_TRANSPORTS];

struct methods_cell;
struct methods_way;

struct methods_method {
	const char *name, *mode;
	/*
	 * Ways that are opened, read, written and closed have open(); others do the work as they
	 * do it.
	 */
	int (*open)(const struct methods_cell *cell, uint64_t local_bytes, struct methods_way **ret,
		struct weft_error *err);
	json_t *(*run)(const struct methods_cell *cell, struct weft_error *err);
	bool peer;   /* not weft's */
	bool any_transport; /* else over TCP alone, or RDMA: how bytes come is not its matter */
	bool device; /* a block device that somebody else made: --device */
	bool holds_all; /* all of the region is here: "exceeds" means nothing */
	bool parts_with_region; /* the region is elsewhere afterwards */
	const char *needs;  /* privileges, and what the kernel has to have */
	const char *effort; /* what a program does to use it */
	const char *room;   /* weft's files that are it, a shell's pattern; NULL: not weft's */
	unsigned lines;     /* of them, rounded to hundreds: bench-methods-effort.sh counts */
};
extern const struct methods_method methods_table[];
extern const unsigned methods_nr;
/* Is it one of them, or "peers"? */
bool methods_are_called(const char *name, size_t len);
/* Is it one that --device has to name? */
bool methods_are_devices(const char *name, size_t len);
/* Where the device is that --device gave this name; NULL: nowhere. */
const char *methods_device(const struct bench_options *o, const char *name);
bool methods_wanted(const struct bench_options *o, const struct methods_method *method,
	const struct methods_transport *transport);

/* ---- work (work.c, copies.c, bulk.c) ---- */

struct methods_donor {
	char address[160]; /* HOST:PORT; of an SRP target with its identifiers */
	/* of a donor with an SRP target: where it says them, and of its target; else "" */
	char lent_at[96], target[96];
	struct bench_daemon daemon;
	struct methods_contents contents;
};

enum { METHODS_PLAIN, METHODS_KEYED, METHODS_SRP, METHODS_NR_DONORS };

/* What the processes of a station know. */
struct methods_site {
	const struct bench_options *o;
	double rtt_ms;
	char dir[112], key[128], near_address[80];
	const char *netdev; /* that counts bytes; NULL: none does */
	int far;            /* the far end's network namespace; -1: there is no line */
	struct methods_donor donors[METHODS_NR_DONORS];
	char no_srp[300]; /* why there is no SRP target */
	uint64_t bytes;
	uint64_t phase_ns; /* how long a kind of work may take, about */
};

struct methods_cell {
	struct methods_site *site;
	const struct methods_method *method;
	const struct methods_transport *transport;
	struct methods_donor *own; /* has the bytes, not the transport's donor; NULL: none */
};
struct methods_donor *methods_cell_donor(const struct methods_cell *cell);
/*
 * Before the region is opened: an SRP target is called otherwise after each writer.  Takes about as
 * long as a program takes to start.
 */
int methods_cell_find(const struct methods_cell *cell, struct weft_error *err);
/* weft://…, into buf of 200 bytes; with_transport: ?transport= is in it. */
const char *methods_cell_uri(const struct methods_cell *cell, bool with_transport, char *buf);

enum methods_work {
	METHODS_READ,
	METHODS_RANDOM_READ,
	METHODS_WRITE,
	METHODS_RANDOM_WRITE,
	METHODS_FITS,
	METHODS_EXCEEDS,
	METHODS_UPDATE,
	METHODS_COPY,
	METHODS_NR_WORKS,
};
extern const char *const methods_work_names[METHODS_NR_WORKS];

/* A region that is open by some method.  Blocks; each call is one operation. */
struct methods_way {
	pid_t bridge; /* the process between; 0: none */
	int (*read)(struct methods_way *way, void *buf, uint32_t len, uint64_t off);
	int (*write)(struct methods_way *way, const void *buf, uint32_t len, uint64_t off);
	int (*flush)(struct methods_way *way);
	void (*close)(struct methods_way *way);
};

/* The method's cell, which the caller owns. */
json_t *methods_work(const struct methods_cell *cell, struct weft_error *err);

/* methods_method.open */
int methods_open_library(const struct methods_cell *cell, uint64_t local_bytes,
	struct methods_way **ret, struct weft_error *err);
int methods_open_map(const struct methods_cell *cell, uint64_t local_bytes,
	struct methods_way **ret, struct weft_error *err);
int methods_open_bridge(const struct methods_cell *cell, uint64_t local_bytes,
	struct methods_way **ret, struct weft_error *err);
int methods_open_peer(const struct methods_cell *cell, uint64_t local_bytes,
	struct methods_way **ret, struct weft_error *err);
int methods_open_device(const struct methods_cell *cell, uint64_t local_bytes,
	struct methods_way **ret, struct weft_error *err);

/* methods_method.run */
json_t *methods_run_bulk(const struct methods_cell *cell, struct weft_error *err);
json_t *methods_run_push(const struct methods_cell *cell, struct weft_error *err);
json_t *methods_run_rsync(const struct methods_cell *cell, struct weft_error *err);
json_t *methods_run_move(const struct methods_cell *cell, struct weft_error *err);
json_t *methods_run_device(const struct methods_cell *cell, struct weft_error *err);

/* Everything once, with much in flight; versions stay.  phase: NULL: not measured. */
int methods_bulk_write(const struct methods_cell *cell, struct methods_phase *phase,
	struct weft_error *err);
int methods_bulk_read(const struct methods_cell *cell, const char *uri,
	struct methods_phase *phase, struct weft_error *err);

/* ---- the run (station.c, run.c) ---- */

/* {"cells": […], "failed": […]} of one round trip, from a process of its own. */
json_t *methods_station(const struct bench_options *o, double rtt_ms, unsigned done, unsigned total,
	struct weft_error *err);
/* All of it.  0 with *ret, or -errno. */
int methods_run(const struct bench_options *o, json_t **ret, struct weft_error *err);

/* ---- reports ---- */

/* "map paged, tcp" into buf of 64 bytes. */
const char *methods_name(const json_t *cell, char *buf);
/* NULL: it was not measured. */
const json_t *methods_find(const json_t *run, double rtt_ms, const char *method, const char *mode,
	const char *transport);
/* Of a kind of work, such as "read", "MB_s"; below 0: not measured. */
double methods_figure(const json_t *cell, const char *work, const char *figure);
/* Seconds of all processes, a GB. */
double methods_cpu_per_gb(const json_t *cell, const char *work);
bool methods_is_run(const json_t *run);
/* The round trips of its cells, in their order, into ret[BENCH_MAX_RTTS].  How many. */
unsigned methods_rtts(const json_t *run, double *ret);
/* The conditions, in sentences. */
void methods_conditions(const json_t *run, char *buf, size_t len);
/* The figures that tables show of a cell; below 0: not measured. */
extern const size_t methods_nr_columns;
const char *methods_column_head(size_t c);
double methods_column(const json_t *cell, size_t c);
/* For people, into buf of 32 bytes; below 0: "-". */
const char *methods_format(double value, char *buf);
/* The same with its unit, in ms or sizes where that reads better, into buf of 64 bytes. */
const char *methods_format_unit(double value, const char *unit, char *buf);
/* The reason of an entry of not_measured, with its round trips. */
void methods_print_why_not(const json_t *one, char *buf, size_t len);
/* The names of those that are as good, with commas. */
void methods_print_as_good(const json_t *decision, char *buf, size_t len);
extern const char methods_how_to_decide[]; /* sentences for people */
/* Which method when: [{"situation", "rtt_ms", "best", "figure", "as_good"}]. */
json_t *methods_decide(const json_t *run);
/* Of these, that for the round trip; the first of the situation's for one below 0; or NULL. */
const json_t *methods_decision(const json_t *all, const char *situation, double rtt_ms);
/* Published figures: [{"what", "figure", "conditions", "source"}]. */
json_t *methods_published(void);
void methods_print_markdown(const json_t *run, FILE *out);
void methods_print_csv(const json_t *run, FILE *out);
void methods_print_html(const json_t *run, FILE *out);
void methods_print_comparison(const json_t *a, const json_t *b, FILE *out);

#endif
