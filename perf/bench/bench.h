/* SPDX-License-Identifier: MIT */
/*
 * Private to weft bench: what its files share.
 *
 * The same work goes over every path between this machine and a region: a transport (RDMA, TCP) and
 * where one enters (the transport itself, a bridge's socket, a file, a device of either kind).
 * Rounds are interleaved: each begins with another path.  What was measured is one JSON object
 * (result.c makes it); tables, CSV, the page and the comparison are made from that object alone.
 *
 * One thread, but for the control (control.c).
 */
#ifndef WEFT_PERF_BENCH_BENCH_H
#define WEFT_PERF_BENCH_BENCH_H

#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "fabric/base/error.h"
#include "fabric/base/histogram.h"
#include "fabric/uri-key.h"

enum {
	BENCH_MAX_CELLS = 32,
	BENCH_MAX_PATHS = 36, /* 9 a transport, at most */
	BENCH_MAX_ROUNDS = 64,
	BENCH_MAX_DEPTH = 128,
	BENCH_BLOCK = 512, /* one word in each is known */
	BENCH_NR_RECENT = 16,
	BENCH_MAX_RTTS = 12,
	BENCH_MAX_DEVICES = 8,
};

enum bench_front { BENCH_DIRECT, BENCH_SOCKET, BENCH_FILE, BENCH_NBD, BENCH_UBLK, BENCH_NR_FRONTS };
extern const char *const bench_front_names[BENCH_NR_FRONTS];

struct bench_options {
	char *uri_text;
	struct weft_uri uri;
	const char *key_file; /* as weft attach's options */
	bool allow_insecure;
	struct weft_held_key *key; /* NULL: none */
	bool overwrite, read_only;
	bool fronts[BENCH_NR_FRONTS];
	bool named[BENCH_NR_FRONTS]; /* by the user: what cannot be had is an error then */
	const char *cache; /* NULL: not cached */
	const char *line;  /* makes one, with these options; NULL: none */
	uint64_t span_bytes;
	double seconds;
	unsigned nr_rounds;
	uint32_t sizes[8];
	unsigned depths[8];
	unsigned nr_sizes, nr_depths;
	bool have_sizes; /* chosen by the user: all of them are wanted */
	bool json, csv; /* on standard output, in place of the table */
	const char *json_file, *csv_file, *html_file;
	const char *from;              /* shows this earlier run */
	bool compare;
	const char *compare_a, *compare_b;

	/* Methods beside each other (perf/methods). */
	bool methods, quick;
	const char *methods_list, *transports; /* words with commas; NULL: all */
	double rtts[BENCH_MAX_RTTS]; /* ms */
	unsigned nr_rtts;
	uint64_t seed;
	const char *out; /* a directory for all reports; NULL: none */
	const char *at; /* no lines, but donors at this address of the machine; NULL: lines */
	const char *devices[BENCH_MAX_DEVICES]; /* NAME=PATH */
	unsigned nr_devices;
};

/* WEFT_GO_ON (fabric/base/options.h), or the exit status; everything has been said then. */
int bench_options_parse(int argc, char **argv, struct bench_options *ret);

/* Set by SIGINT, SIGTERM and SIGHUP: the work ends after the slice, and tidies up. */
extern volatile sig_atomic_t bench_stop;

/* ---- the data ---- */

/* What the span of the region holds: a word of every BENCH_BLOCK bytes. */
struct bench_truth {
	uint64_t *words;
	uint64_t span_bytes;
	uint64_t next; /* the word that is written next: none is written twice */
};

/* ---- operations in flight ---- */

struct bench_slot;

/* Over a transport's connection (io-transport.c), or a file or device (io-file.c). */
struct bench_io {
	uint64_t size_bytes;
	uint32_t max_io_bytes;
	unsigned max_depth;
	/* Starts all n slots.  0, or -errno. */
	int (*submit)(struct bench_io *io, struct bench_slot **slots, unsigned n);
	/*
	 * Waits for at least one, at most 30 s.  How many came back, or -errno: then nothing will
	 * any more.
	 */
	int (*reap)(struct bench_io *io, struct bench_slot **done, unsigned max);
	/* Nothing is in flight.  Waits until what was written is durable.  0, or -errno. */
	int (*flush)(struct bench_io *io);
	/* Nothing is in flight, or everything is given up. */
	void (*close)(struct bench_io *io);
	uint8_t *buf; /* bench_buf(): what slots point into */
	uint64_t ready_ns; /* what opening it took */
};
enum { BENCH_BUF_BYTES = 32 << 20 };

struct bench_slot {
	bool write;
	uint32_t len;
	uint64_t off;
	uint8_t *buf;
	uint64_t start_ns;
	int error; /* of the operation */
	void *priv; /* io's */
};

struct tp_ops;
struct tp_info;
/* key: NULL: none.  hello_name: what the donor shows us as.  ret_info may be NULL. */
int bench_io_connect(const struct tp_ops *ops, const struct weft_uri *uri, const char *port,
	struct weft_held_key *key, bool read_only, bool anonymous, const char *hello_name,
	struct bench_io **ret, struct tp_info *ret_info, struct weft_error *err);
int bench_io_open(const char *path, bool read_only, struct bench_io **ret, struct weft_error *err);
/* Of BENCH_BUF_BYTES, for whichever io is open: there is one at a time.  NULL without memory. */
uint8_t *bench_buf(void);

/* ---- work ---- */

struct bench_cell {
	bool write;
	uint32_t len;
	unsigned depth;
};

/* Of one slice of time. */
struct bench_slice {
	uint64_t elapsed_ns, nr_ops;
	struct weft_histogram latency; /* ns */
	uint64_t recent[BENCH_NR_RECENT]; /* where the latest writes went, in a ring */
	unsigned nr_recent;
};

/*
 * The cell's work for about slice_ns; all that is read is compared with what is known.  0; -EILSEQ:
 * wrong bytes; or -errno.
 */
int bench_work(struct bench_io *io, struct bench_truth *truth, const struct bench_cell *cell,
	uint64_t slice_ns, struct bench_slice *ret, struct weft_error *err);
/* Reads the latest writes of a slice, one after another.  As above. */
int bench_read_back(struct bench_io *io, const struct bench_truth *truth,
	const struct bench_cell *cell, const struct bench_slice *slice, struct weft_error *err);

enum bench_sweep {
	BENCH_SWEEP_IS_EMPTY, /* all zeros?  -ENOTEMPTY */
	BENCH_SWEEP_FILL,     /* writes new words, so that all are known */
	BENCH_SWEEP_LEARN,    /* reads what is there */
	BENCH_SWEEP_CHECK,    /* -EILSEQ: other words than those that are known */
	BENCH_SWEEP_CLEAR,    /* zeros */
};
/* Over the whole span, once. */
int bench_sweep(struct bench_io *io, struct bench_truth *truth, enum bench_sweep what,
	struct weft_error *err);

/* ---- bridges, which are weft attach's ---- */

struct bench_bridge {
	char name[64], socket[160], file[160], device[64];
	pid_t pid;
	uint64_t ready_ns; /* from the start of weft attach to its end */
	char transport[16], why[320], path[160];
	unsigned nr_lanes;
	bool up;
};

/* fronts: which, of devices one; a NULL cache is none.  err: what weft attach said. */
int bench_attach(const struct bench_options *o, const char *transport,
	const bool fronts[BENCH_NR_FRONTS], const char *cache, const char *dir,
	struct bench_bridge *ret, struct weft_error *err);
void bench_detach(struct bench_bridge *bridge);
/* The donor of an attachment of that name, if it runs on this machine as this user; 0: no. */
pid_t bench_local_donor(const char *name);

/* The path of a program of ours: it lies beside this one, wherever that was installed. */
void bench_program(const char *leaf, char path[PATH_MAX]);

/* ---- a line ---- */

/* A process that goes on until it is told to end. */
struct bench_daemon {
	pid_t pid; /* 0: not started */
	int out;   /* what it says */
};

/* Starts it in the network namespace ns (-1: ours); all that it says comes out of *ret_out. */
pid_t bench_daemon_spawn(const char *const argv[], int ns, int *ret_out);
/*
 * Starts it, and waits until it says "ready"; what it said until then into said.  what: "donor",
 * for err.  0, or -errno; bench_daemon_end() is due in any case.
 */
int bench_daemon_start(const char *const argv[], int ns, const char *what, struct bench_daemon *ret,
	char *said, size_t len, struct weft_error *err);
void bench_daemon_end(struct bench_daemon *daemon);

struct bench_line {
	struct bench_daemon line, donor;
	int far; /* the far end's network namespace */
	char near_address[64], far_address[64];
	char stats[128], uri[80];
};

/*
 * Makes a line ("delay=1ms,loss=0.1%": options of weft line); this process is at the near end from
 * then on.  0, or -errno with err, and nothing is left.  Blocks.
 */
int bench_line_make(const char *options, struct bench_line *ret, struct weft_error *err);
/* The same, with a donor at its far end with so many bytes of memory, uri. */
int bench_line_open(const char *options, uint64_t bytes, struct bench_line *ret,
	struct weft_error *err);
/* Ends both.  What went over the line, which the caller owns; NULL: weft line did not tell. */
json_t *bench_line_close(struct bench_line *line);

/* ---- counters and the machine ---- */

uint64_t bench_cpu_ns(pid_t pid); /* 0: self */
/* Busy time of all processors, kernel and interrupts too, in ns (ticks of 10 ms). */
uint64_t bench_machine_cpu_ns(void);
/* Of an interface: received and sent; false: it does not count. */
bool bench_net_bytes(const char *netdev, const char *rdma_device, uint64_t *ret_rx,
	uint64_t *ret_tx);
json_t *bench_machine(void);
json_t *bench_network(const char *netdev, const char *rdma_device, const char *path);

/*
 * The machine's own pace: 4 KiB to a thread and back over a pair of sockets, for slice_ns; round
 * trips a second.  No part of weft is in it: when it changes between two runs, the machine did.
 */
double bench_control(uint64_t slice_ns);

/* ---- the run ---- */

/* The whole run.  *ret: the JSON object.  -EINTR: stopped by the user. */
int bench_run(const struct bench_options *o, json_t **ret, struct weft_error *err);

/* A bar on a terminal, lines elsewhere; on standard error. */
void bench_progress_begin(unsigned total);
void bench_progress(unsigned done, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bench_progress_end(void);

/* ---- what is made of it ---- */

/* NULL, with what is wrong in err: not a run. */
json_t *bench_load_run(const char *file, struct weft_error *err);
/* Sentences about what its figures do not mean; returns how many. */
unsigned bench_caveats(const json_t *run, const char *ret[2]);
/*
 * Says on out that nr rows are noisy, if any are.  what: one of them, "row"; which: whose rounds
 * differ, "the rounds"; again: what to do, "measure again".
 */
void bench_say_noisy(FILE *out, unsigned nr, const char *what, const char *which,
	const char *again);
/* "over a line made for it, …" into buf; false: there was none. */
bool bench_line_words(const json_t *run, char *buf, size_t len);
void bench_print_table(const json_t *run, FILE *out);
void bench_print_csv(const json_t *run, FILE *out);
/* A comma and json's key; nothing behind the comma where nothing is known. */
void bench_csv_number(const json_t *json, const char *key, FILE *out);
void bench_print_html(const json_t *run, FILE *out);
/*
 * *ret_worse: how many cells of b are slower, or cost more, than a's beyond what chance and the
 * machine explain.
 */
json_t *bench_compare(const json_t *a, const json_t *b, unsigned *ret_worse);
void bench_print_comparison(const json_t *comparison, FILE *out);

/* For people, into buf of at least 32 bytes: "4 KiB", "1.2 M". */
const char *bench_format_count(double value, char *buf);

#endif
