/* SPDX-License-Identifier: MIT */
/*
 * One-sided RDMA beside perftest: the verbs transport against a `weft serve`, and ib_read_lat,
 * ib_read_bw, ib_write_bw over rdma_cm on the same device.  Needs RDMA_IP, the address of an RDMA
 * device, as the testbed sets it; without it there are no cases.
 *     perf/run --testbed 2 verbs '^verbs/'
 *     perf/run --testbed 1 verbs-one-cpu '^verbs/read-.*-event'
 * `event` sleeps in epoll_wait(2), as a lane does, until a completion wakes it (perftest: -e),
 * `poll` looks without pause.  ib_write_bw has no -e and always polls.
 *
 * `weft` walks through 64 MiB of the region, a buffer for each operation in flight; `weft-hot`
 * reads and writes one place from one buffer, as perftest does: what lies between them is the
 * memory's share.  `weft-spin` looks for 20 us before it sleeps, the transport's default,
 * `weft-spin-100` for 100.
 *
 * The emulated device works in a kernel thread.  With several CPUs the scheduler's choice decides
 * whether a completion wakes a thread on its own CPU or on another, which in the testbed costs as
 * much as the whole READ, and does so differently from run to run: what the programs themselves
 * cost is seen on one CPU.  perftest's polling takes a slice of the scheduler's for each operation
 * there: only its events can be compared.
 *
 * ib_write_lat halves a ping-pong of two WRITEs that both sides await by polling memory: it
 * contains no completion.  What a WRITE takes until its completion is known is the inverse of
 * ib_write_bw's rate at a depth of 1, a mean: that is the `perftest` of these rows, and `one-way`
 * what ib_write_lat says.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fabric/base/histogram.h"
#include "fabric/base/util.h"
#include "perf/harness/perf.h"
#include "perf/harness/process.h"
#include "perf/suites/suites.h"
#include "transports/verbs/verbs.h"

enum { MAX_DEPTH = 16, PERFTEST_PORT = 18600 };
#define REGION_BYTES (64 * WEFT_MIB)

struct verbs_case {
	bool write, events, hot;
	uint32_t spin_us; /* before it sleeps; as struct verbs_config has it */
	uint32_t len;
	unsigned depth;
	const char *tool;     /* perftest's; NULL: weft */
	unsigned nr_messages; /* perftest's, about a slice */
};

static const char *rdma_ip;

struct verbs_run {
	const struct verbs_case *c;
	pid_t server;
	struct tp *tp;
	struct tp_conn *conn;
	struct tp_mem *mem;
	uint8_t *buf;
	int epfd;
};

static int watch(struct verbs_run *run, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	return epoll_ctl(run->epfd, EPOLL_CTL_ADD, fd, &event);
}

/* Finishes what is on its way; 0, or -errno with why. */
static int wait_ready(struct verbs_run *run, char *why)
{
	while (tp_state(run->conn) == TP_CONNECTING) {
		struct tp_op *done[1];

		tp_progress(run->conn, done, 1);
		int events = tp_arm(run->conn);
		struct pollfd fd = {.fd = tp_event_fd(run->conn), .events = (short)events};
		if (events)
			poll(&fd, 1, 100);
	}
	if (tp_state(run->conn) == TP_READY)
		return watch(run, tp_event_fd(run->conn)) < 0 ? -errno : 0;
	snprintf(why, 256, "%.250s", run->conn->why.message);
	return run->conn->error;
}

static void teardown(void *state)
{
	struct verbs_run *run = state;

	if (run->conn) {
		tp_shutdown(run->conn);
		while (run->conn->nr_outstanding > 0) {
			struct tp_op *done[MAX_DEPTH];

			tp_progress(run->conn, done, MAX_DEPTH);
		}
		tp_disconnect(run->conn);
	}
	tp_deregister(run->mem);
	tp_close(run->tp);
	if (run->epfd >= 0)
		close(run->epfd);
	if (run->buf)
		munmap(run->buf, (size_t)run->c->depth * run->c->len);
	if (run->server > 0)
		perf_stop(run->server);
	free(run);
}

static int connect_weft(struct verbs_run *run, uint16_t port, char *why)
{
	const struct verbs_config config = {.spin_us = run->c->spin_us};
	char text[8];
	struct tp_target target = {
		.host = rdma_ip,
		.port = text,
		.region = "r",
		.hello = {.generation = 1, .mode = WEFT_MODE_WRITE, .name = "perf"},
		.connect_timeout_ms = 10000,
	};
	struct weft_error err = {0};
	int r;

	snprintf(text, sizeof(text), "%u", port);
	run->buf = mmap(NULL, (size_t)run->c->depth * run->c->len, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (run->buf == MAP_FAILED) {
		run->buf = NULL;
		return -errno;
	}
	r = tp_open(&tp_verbs_ops, &config, &run->tp, &err);
	if (r == 0)
		r = tp_register(run->tp, run->buf, (size_t)run->c->depth * run->c->len, &run->mem,
			&err);
	/* It may take a moment until the donor listens. */
	for (int i = 0; r == 0 && i < 100; i++) {
		r = tp_connect(run->tp, &target, &run->conn, &err);
		if (r < 0)
			break;
		r = wait_ready(run, why);
		if (r != -ECONNREFUSED)
			return r;
		tp_disconnect(run->conn);
		run->conn = NULL;
		poll(NULL, 0, 50);
		r = 0;
	}
	snprintf(why, 256, "%.250s", err.message[0] ? err.message : "no donor");
	return r < 0 ? r : -ECONNREFUSED;
}

static int setup(const void *arg, void **ret_state, char *why)
{
	static uint16_t port = 19000;
	struct verbs_run *run = calloc(1, sizeof(*run));
	char serve[512], listen[80];
	int r = 0;

	if (!run)
		return -ENOMEM;
	run->c = arg;
	run->epfd = -1;
	if (!run->c->tool) {
		run->epfd = epoll_create1(EPOLL_CLOEXEC);
		snprintf(serve, sizeof(serve), "%s/weft-serve", perf_bindir());
		snprintf(listen, sizeof(listen), "%s:%u", rdma_ip, ++port);
		const char *const argv[] = {serve, "--listen", listen, "--allow-insecure",
			"--memory", "r=64M", "--keep", "0", NULL};
		run->server = perf_spawn(argv, -1, "donor.log");
		r = run->server < 0 ? (int)run->server : connect_weft(run, port, why);
	}
	if (r < 0) {
		teardown(run);
		return r;
	}
	*ret_state = run;
	return 0;
}

static void count(struct perf_sample *ret, uint64_t ops, uint64_t bytes, uint64_t elapsed_ns,
	double p50_us)
{
	ret->elapsed_ns = elapsed_ns;
	perf_count(ret, "ops_s", (double)ops * 1e9 / (double)elapsed_ns);
	perf_count(ret, "MB_s", (double)bytes * 1e3 / (double)elapsed_ns);
	perf_count(ret, "p50_us", p50_us);
}

static int run_weft(struct verbs_run *run, uint64_t slice_ns, struct perf_sample *ret, char *why)
{
	const struct verbs_case *c = run->c;
	struct tp_op ops[MAX_DEPTH], *done[MAX_DEPTH], *again[MAX_DEPTH];
	uint64_t posted_ns[MAX_DEPTH], start_ns = weft_now_ns(), end_ns = start_ns + slice_ns,
				       nr = 0, place = 0;
	static struct weft_histogram latency;
	unsigned n = c->depth;

	memset(&latency, 0, sizeof(latency));
	for (unsigned i = 0; i < n; i++) {
		ops[i] = (struct tp_op){.kind = c->write ? TP_WRITE : TP_READ, .len = c->len,
			.buf = run->buf + (c->hot ? 0 : (size_t)i * c->len), .mem = run->mem};
		again[i] = &ops[i];
	}
	uint64_t now_ns = start_ns;
	while (n > 0 || run->conn->nr_outstanding > 0) {
		for (unsigned i = 0; i < n; i++) {
			again[i]->off = place;
			if (!c->hot)
				place = (place + c->len) % REGION_BYTES;
			posted_ns[again[i] - ops] = now_ns;
		}
		if (n > 0 && tp_post(run->conn, again, n) != (int)n) {
			snprintf(why, 256, "cannot post");
			return -EIO;
		}
		n = 0;
		int got = tp_progress(run->conn, done, MAX_DEPTH);
		if (got == 0 && c->events) {
			struct epoll_event event;

			if (tp_arm(run->conn))
				epoll_wait(run->epfd, &event, 1, 1000);
		}
		now_ns = weft_now_ns();
		for (int i = 0; i < got; i++) {
			if (done[i]->status < 0) {
				snprintf(why, 256, "%s", strerror(-done[i]->status));
				return done[i]->status;
			}
			nr++;
			weft_histogram_add(&latency, now_ns - posted_ns[done[i] - ops]);
			if (now_ns < end_ns)
				again[n++] = done[i];
		}
	}
	count(ret, nr, nr * c->len, now_ns - start_ns,
		(double)weft_histogram_quantile(&latency, 0.5) / 1e3);
	return 0;
}

/*
 * The last line of figures: for latency its 5th column (typical), for bandwidth the 4th (average,
 * MB/s of 10^6 with the option).
 */
static int read_figure(const char *log, unsigned column, double *ret)
{
	char path[512], line[512], *last = NULL, *save;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", perf_tmpdir(), log);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	static char kept[512];
	while (fgets(line, sizeof(line), f)) {
		char *p = line + strspn(line, " ");

		if (*p >= '1' && *p <= '9' && strchr(line, '.'))
			last = strcpy(kept, p);
	}
	fclose(f);
	for (char *word = last ? strtok_r(last, " \t\n", &save) : NULL; word;
		word = strtok_r(NULL, " \t\n", &save))
		if (--column == 0) {
			*ret = strtod(word, NULL);
			return *ret > 0 ? 0 : -EPROTO;
		}
	return -EPROTO;
}

static int run_perftest(struct verbs_run *run, struct perf_sample *ret, char *why)
{
	static unsigned port = PERFTEST_PORT;
	const struct verbs_case *c = run->c;
	bool latency = strstr(c->tool, "_lat");
	char size[16], nr[16], depth[16], text[16];
	const char *argv[24];
	unsigned n = 0;
	double figure = 0;
	int r = -EIO;

	snprintf(size, sizeof(size), "%u", c->len);
	snprintf(nr, sizeof(nr), "%u", c->nr_messages);
	snprintf(depth, sizeof(depth), "%u", c->depth);
	snprintf(text, sizeof(text), "%u", ++port);
	argv[n++] = c->tool;
	argv[n++] = "-R";
	argv[n++] = "-F";
	argv[n++] = "-p";
	argv[n++] = text;
	argv[n++] = "-s";
	argv[n++] = size;
	argv[n++] = "-n";
	argv[n++] = nr;
	if (!latency) {
		argv[n++] = "--report_gbits";
		argv[n++] = "-t";
		argv[n++] = depth;
		argv[n++] = "-Q";
		argv[n++] = "1";
	}
	if (c->events)
		argv[n++] = "-e";
	argv[n] = NULL;
	pid_t server = perf_spawn(argv, -1, "perftest-server.log");
	if (server < 0)
		return (int)server;
	argv[n++] = rdma_ip;
	argv[n] = NULL;
	/* It may take a moment until the server listens. */
	uint64_t start_ns = weft_now_ns();
	for (int i = 0; i < 40 && r < 0 && perf_alive(server) == 1; i++) {
		poll(NULL, 0, 100);
		start_ns = weft_now_ns();
		r = perf_call(argv, "perftest.log");
	}
	uint64_t elapsed_ns = weft_now_ns() - start_ns;
	perf_stop(server);
	if (r == 0)
		r = read_figure("perftest.log", latency ? 5 : 4, &figure);
	if (r < 0) {
		snprintf(why, 256, "%s failed", c->tool);
		return r;
	}
	ret->elapsed_ns = elapsed_ns;
	if (latency) {
		perf_count(ret, "p50_us", figure);
	} else {
		if (c->depth == 1)
			perf_count(ret, "p50_us", c->len * 8 / figure / 1e3);
		perf_count(ret, "ops_s", figure * 1e9 / 8 / c->len);
		perf_count(ret, "MB_s", figure * 1e3 / 8);
	}
	return 0;
}

static int run_case(void *state, uint64_t iterations, uint64_t slice_ns, struct perf_sample *ret,
	char *why)
{
	struct verbs_run *run = state;

	return run->c->tool ? run_perftest(run, ret, why) : run_weft(run, slice_ns, ret, why);
}

static void add(const struct verbs_case *c, const char *row, const char *who)
{
	struct verbs_case *copy = malloc(sizeof(*copy));
	struct perf_case pc = {.arg = copy,
		.setup = setup,
		.run = run_case,
		.teardown = teardown,
		.sliced = true};

	if (!copy)
		abort();
	*copy = *c;
	snprintf(pc.name, sizeof(pc.name), "verbs/%s/%s", row, who);
	perf_add(&pc);
}

void suite_verbs(void)
{
	static const char *const counters[] = {"p50_us", "ops_s", "MB_s", NULL};
	static const struct perf_ratio ratios[] = {{"p50/perftest", "p50_us", "perftest"},
		{"MB/perftest", "MB_s", "perftest"}, {NULL, NULL, NULL}};
	static const struct perf_columns columns = {"verbs", counters, ratios};
	static const struct {
		const char *row, *tool;
		bool write, events;
		uint32_t len;
		unsigned depth, nr_messages;
	} rows[] = {
		{"read-4K-x1-event", "ib_read_lat", false, true, 4096, 1, 2000},
		{"read-4K-x1-poll", "ib_read_lat", false, false, 4096, 1, 4000},
		{"read-4K-x16-event", "ib_read_bw", false, true, 4096, 16, 8000},
		{"read-64K-x16-event", "ib_read_bw", false, true, 65536, 16, 600},
		{"read-64K-x16-poll", "ib_read_bw", false, false, 65536, 16, 600},
		{"read-1M-x4-event", "ib_read_bw", false, true, 1 << 20, 4, 60},
		{"read-1M-x4-poll", "ib_read_bw", false, false, 1 << 20, 4, 60},
		{"write-4K-x1-event", "ib_write_bw", true, true, 4096, 1, 2000},
		{"write-4K-x1-poll", "ib_write_bw", true, false, 4096, 1, 4000},
		{"write-4K-x16-event", "ib_write_bw", true, true, 4096, 16, 8000},
		{"write-64K-x16-event", "ib_write_bw", true, true, 65536, 16, 600},
		{"write-64K-x16-poll", "ib_write_bw", true, false, 65536, 16, 600},
		{"write-1M-x4-event", "ib_write_bw", true, true, 1 << 20, 4, 60},
		{"write-1M-x4-poll", "ib_write_bw", true, false, 1 << 20, 4, 60},
	};

	/*
	 * With events: for a machine that counts instructions.  Polling: for two emulated
	 * processors, with their noise.
	 */
	static const struct perf_bound bounds[] = {
		{"verbs/read-4K-x1-event", "weft-hot", "perftest", "p50_us", 0, 1.15,
			"what is promised"},
		{"verbs/*K-x16-event", "weft-hot", "perftest", "MB_s", 0.9, 0, "what is promised"},
		{"verbs/*-1M-x4-event", "weft-hot", "perftest", "MB_s", 0.9, 0, "what is promised"},
		{"verbs/*-4K-x1-poll", "weft-hot", "perftest", "p50_us", 0, 1.25,
			"1.15, and 9 % for noise"},
		{"verbs/*-64K-x16-poll", "weft-hot", "perftest", "MB_s", 0.8, 0,
			"0.9, and 11 % for noise"},
		{"verbs/*-1M-x4-poll", "weft-hot", "perftest", "MB_s", 0.8, 0,
			"0.9, and 11 % for noise"},
	};

	rdma_ip = getenv("RDMA_IP");
	if (!rdma_ip)
		return;
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(rows); i++) {
		struct verbs_case c = {.write = rows[i].write, .events = rows[i].events, .len = rows[i].len,
			.depth = rows[i].depth, .nr_messages = rows[i].nr_messages, .spin_us = UINT32_MAX};

		add(&c, rows[i].row, "weft");
		if (c.events && c.depth == 1) {
			c.spin_us = 0;
			add(&c, rows[i].row, "weft-spin");
			c.spin_us = 100;
			add(&c, rows[i].row, "weft-spin-100");
			c.spin_us = UINT32_MAX;
		}
		c.hot = true;
		add(&c, rows[i].row, "weft-hot");
		c.tool = rows[i].tool;
		c.events = c.events && !c.write; /* ib_write_bw only polls */
		add(&c, rows[i].row, "perftest");
		if (c.write && c.depth == 1) {
			c.tool = "ib_write_lat";
			add(&c, rows[i].row, "one-way");
		}
	}
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(bounds); i++)
		perf_bound_add(&bounds[i]);
	perf_columns_add(&columns);
}
