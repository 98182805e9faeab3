/*
 * weft serve: lends memory, files and directories.
 *
 * The main thread owns the loop: accept, timers, signals, the control socket.  Each connection has a
 * thread of its own, in the listener.
 * Order: sockets are bound first (a second daemon on the same port ends before it takes memory), then
 * regions, then "ready".  The end is the reverse.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include "fabric/base/log.h"
#include "fabric/base/options.h"
#include "fabric/main/serve.h"
#include "transports/nbd/donor/listener.h"
#include "transports/verbs/donor/listener.h"

enum { DRAIN_MS = 10000 }; /* for requests in flight when we stop */
#define TICK_NS UINT64_C(1000000000)

static void on_question(void *ctx, struct weft_control_call *call, const json_t *question)
{
	const char *op = json_string_value(json_object_get(question, "op"));

	if (op && strcmp(op, "status") == 0)
		weft_control_answer(call, serve_status_json(ctx));
	else
		weft_control_answer(call, json_pack("{s:s, s:i}", "error",
			"a donor answers to {\"op\": \"status\"} only", "code", EOPNOTSUPP));
}

/* Without a control socket `weft status` does not see us; lending works all the same. */

static void open_control(struct serve *s)
{
	const struct weft_listening *l = serve_main_listening(s);
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

static void on_signal(struct weft_signals *signals, int signo)
{
	struct serve *s = weft_container_of(signals, struct serve, signals);

	s->stop_signal = signo;
	weft_loop_stop(s->loop);
}

static void on_tick(struct weft_timer *timer)
{
	struct serve *s = weft_container_of(timer, struct serve, tick);

	weft_donor_tick(s->donor, weft_now_ns());
	serve_warn_of_files(s);
	weft_loop_timer_set(s->loop, timer, TICK_NS);
}

static void raise_limits(void)
{
	weft_process_raise_files();
	/* Connections allocate when they come; an arena for each thread would be memory for nothing. */
	mallopt(M_ARENA_MAX, 2);
}

/* RDMA is offered wherever an address that we listen on has a device, under the same port number. */
static void open_rdma(struct serve *s)
{
	for (unsigned i = 0; i < s->nr_listening && !s->rdma; i++) {
		const struct weft_listening *l = &s->listening[i];
		struct sockaddr_storage address;
		socklen_t len = sizeof(address);
		struct weft_error err;
		char offers[64];

		if (*l->socket || getsockname(l->fd, (struct sockaddr *)&address, &len) < 0)
			continue;
		int r = verbs_listener_new(s->donor, s->loop, (struct sockaddr *)&address, NULL, &s->rdma, &err);
		if (r == 0) {
			weft_listening_format(l, s->rdma_place);
			strcpy(offers, "tcp,");
			verbs_listener_offers(s->rdma, offers + 4, sizeof(offers) - 4);
			weft_donor_offer(s->donor, offers);
		} else if (r != -ENODEV) {
			weft_warn("%s; TCP only", err.message);
		}
	}
}

static int start(struct serve *s, struct weft_error *err)
{
	struct weft_donor_config config = {.lease_ms = s->lease_s * 1000, .offers = "tcp"};
	int fds[SERVE_MAX_LISTEN], r;

	s->start_ns = weft_now_ns();
	raise_limits();
	r = weft_loop_new(&s->loop);
	if (r == 0)
		r = weft_signals_watch(&s->signals, s->loop, true, on_signal);
	if (r == 0)
		r = weft_donor_new(&config, &s->donor);
	if (r < 0)
		return weft_error_set(err, -r, "cannot start: %s", strerror(-r));
	char **names = NULL;
	int nr_passed = sd_listen_fds_with_names(1, &names), passed[SERVE_MAX_PASSED];
	if (nr_passed < 0 || nr_passed > SERVE_MAX_PASSED)
		return weft_error_set(err, EINVAL, "systemd passed more than %d descriptors", SERVE_MAX_PASSED);
	for (int i = 0; i < nr_passed; i++)
		passed[i] = SD_LISTEN_FDS_START + i;
	r = serve_open_sockets(s, passed, names, nr_passed, err);
	if (r == 0)
		r = serve_open_regions(s, passed, names, nr_passed, err);
	for (int i = 0; i < nr_passed; i++) {
		if (passed[i] >= 0)
			close(passed[i]);
		free(names[i]);
	}
	free(names);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < s->nr_listening; i++)
		fds[i] = s->listening[i].fd;
	r = nbd_listener_new(s->donor, s->loop, fds, s->nr_listening, NULL, &s->listener, err);
	if (r < 0)
		return r;
	open_rdma(s);
	open_control(s);
	/* Only now, so that a start that fails does not leave behind what nobody has used. */
	serve_hold_all(s);
	s->tick.fn = on_tick;
	weft_loop_timer_set(s->loop, &s->tick, TICK_NS);
	serve_print_ready(s);
	sd_notifyf(0, "READY=1\nSTATUS=lending %u region%s", s->nr_wanted, s->nr_wanted == 1 ? "" : "s");
	return 0;
}

/* 0, or -errno: something is not as durable as it should be, or a thread is stuck in a region. */
static int finish(struct serve *s, struct weft_error *err)
{
	int r = 0;

	sd_notify(0, "STOPPING=1\nSTATUS=finishing requests");
	if (s->stop_signal)
		serve_warn_given_back(s);
	if (s->donor)
		weft_donor_stop(s->donor);
	if (s->rdma)
		verbs_listener_stop(s->rdma);
	if (s->listener) {
		nbd_listener_stop(s->listener);
		if (nbd_listener_drain(s->listener, DRAIN_MS) < 0) {
			/* It may still write: no clean marks, and nothing is unmapped under it. */
			weft_donor_flush(s->donor, NULL);
			return weft_error_set(err, ETIMEDOUT, "a connection did not end in time: files get a new epoch");
		}
		nbd_listener_free(s->listener);
	} else {
		for (unsigned i = 0; i < s->nr_listening; i++)
			close(s->listening[i].fd);
	}
	if (s->rdma && verbs_listener_drain(s->rdma, DRAIN_MS) < 0) {
		weft_donor_flush(s->donor, NULL);
		return weft_error_set(err, ETIMEDOUT, "the RDMA driver did not end a connection in time: files get a new epoch");
	}
	verbs_listener_free(s->rdma);
	serve_remove_sockets(s);
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
	serve_end_holder(s);
	weft_signals_end(&s->signals, s->loop);
	weft_loop_free(s->loop);
	return r;
}

int main(int argc, char **argv)
{
	static struct serve s = {.lease_s = 30, .keep_s = 300};
	struct weft_error err = {0};
	int r;

	weft_process_begin();
	r = serve_parse_options(&s, argc, argv);
	if (r != WEFT_GO_ON)
		return r;
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
