/* SPDX-License-Identifier: MIT */
/*
 * Load cases.  Main thread.  A connection lives for one run; the peer for the whole program.
 */
#include "perf/suites/load.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "perf/harness/process.h"
#include "perf/peers/peers.h"

enum { WARM_NS = 10000000 };

struct state {
	struct perf_peer *peer;
	struct perf_nbd_client *client;
	uint32_t len;
	struct perf_nbd_result result;
};

static uint16_t generation = 1;

static void place(const struct perf_peer *peer, enum perf_place where)
{
	int server = where == PERF_PLACE_FREE ? -1 : where == PERF_PLACE_SAME ? 0 : 1;

	perf_pin(0, where == PERF_PLACE_FREE ? -1 : 0);
	perf_pin(peer->pid, server);
	if (peer->donor)
		perf_pin(peer->donor, server);
}

static int setup(const void *arg, void **ret_state, char *why)
{
	const struct perf_load_case *l = arg;
	struct perf_nbd_load load = l->load;
	struct perf_nbd_target target;
	struct state *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	r = perf_peer_get(l->peer, l->tcp, &s->peer, why);
	if (r < 0)
		goto err_free;
	place(s->peer, l->place);
	if (!load.span)
		load.span = PERF_PEER_BYTES;
	load.generation = ++generation;
	target = s->peer->target;
	target.hello = l->hello;
	if (l->tcp && target.hello.receive == PERF_RECEIVE_BEST)
		target.hello.receive = PERF_RECEIVE_BLOCK;
	else if (target.hello.receive == PERF_RECEIVE_BEST)
		target.hello.receive = PERF_RECEIVE_TRY_POLL;
	r = perf_nbd_open(&target, &load, &s->client, why);
	if (r < 0)
		goto err_free;
	place(s->peer, l->place); /* threads that the connections brought */
	/* Caches, socket buffers and the scheduler settle. */
	r = perf_nbd_run(s->client, WARM_NS, &s->result, why);
	if (r < 0)
		goto err_close;
	s->len = load.len;
	*ret_state = s;
	return 0;

err_close:
	perf_nbd_close(s->client);
	place(s->peer, PERF_PLACE_FREE);
err_free:
	free(s);
	return r;
}

/* Of a little more of the same work, since counting takes time. */
static int count_calls(struct state *s, uint64_t slice_ns, struct perf_sample *ret, char *why)
{
	int r;

	if (perf_calls_start(s->peer->pid) < 0)
		return 0;
	r = perf_nbd_run(s->client, slice_ns, &s->result, why);
	double calls = (double)perf_calls_stop();
	if (r == 0)
		r = perf_nbd_check(s->client, why);
	if (r == 0 && s->result.all_ops)
		perf_count(ret, "calls", calls / (double)s->result.all_ops);
	return r;
}

static int run(void *state, uint64_t iterations, uint64_t slice_ns, struct perf_sample *ret,
	char *why)
{
	struct state *s = state;
	struct perf_nbd_result *res = &s->result;
	uint64_t server, donor, own, switches;
	double ops, seconds;
	int r;

	switches = perf_switches(s->peer->pid);
	server = perf_cpu_ns(s->peer->pid);
	donor = s->peer->donor ? perf_cpu_ns(s->peer->donor) : 0;
	own = perf_own_cpu_ns();
	r = perf_nbd_run(s->client, slice_ns, res, why);
	if (r < 0)
		return r;
	own = perf_own_cpu_ns() - own;
	server = perf_cpu_ns(s->peer->pid) - server;
	donor = s->peer->donor ? perf_cpu_ns(s->peer->donor) - donor : 0;
	switches = perf_switches(s->peer->pid) - switches;
	r = perf_nbd_check(s->client, why);
	if (r < 0)
		return r;
	if (!res->ops) {
		snprintf(why, 256, "not one operation completed in the slice");
		return -ETIMEDOUT;
	}
	ret->elapsed_ns = res->elapsed_ns;
	seconds = (double)res->elapsed_ns / 1e9;
	ops = (double)res->all_ops;
	perf_count(ret, "ops_s", (double)res->ops / seconds);
	perf_count(ret, "MB_s",
		(double)res->ops * s->len / seconds / 1e6);
	perf_count(ret, "p50_us", (double)weft_histogram_quantile(&res->latency, 0.5) / 1e3);
	perf_count(ret, "p99_us", (double)weft_histogram_quantile(&res->latency, 0.99) / 1e3);
	perf_count(ret, "server_us", (double)server / ops / 1e3);
	if (s->peer->donor)
		perf_count(ret, "donor_us", (double)donor / ops / 1e3);
	perf_count(ret, "client_us", (double)own / ops / 1e3);
	perf_count(ret, "both_us", (double)(server + donor + own) / ops / 1e3);
	if (s->peer->donor) {
		double all = (double)(server + donor + own) / 100;

		perf_count(ret, "client_%", (double)own / all);
		perf_count(ret, "bridge_%", (double)server / all);
		perf_count(ret, "donor_%", (double)donor / all);
	}
	perf_count(ret, "switches", (double)switches / ops);
	perf_count(ret, "receives_op", (double)res->receives / ops);
	return count_calls(s, slice_ns / 8, ret, why);
}

static void teardown(void *state)
{
	struct state *s = state;

	perf_nbd_close(s->client);
	place(s->peer, PERF_PLACE_FREE);
	free(s);
}

void perf_load_shape(struct perf_load_case *l, const struct perf_shape *shape, bool write)
{
	l->place = shape->place;
	l->load = (struct perf_nbd_load){
		.write = write,
		.len = shape->len,
		.depth = shape->depth,
		.conns = shape->conns,
		.span = shape->span,
	};
}

void perf_load_add(const struct perf_load_case *l, const char *name, ...)
{
	struct perf_load_case *copy = malloc(sizeof(*copy));
	struct perf_case c = {.setup = setup, .run = run, .teardown = teardown, .sliced = true};
	va_list ap;

	if (!copy)
		abort();
	*copy = *l;
	c.arg = copy;
	va_start(ap, name);
	vsnprintf(c.name, sizeof(c.name), name, ap);
	va_end(ap);
	perf_add(&c);
}
