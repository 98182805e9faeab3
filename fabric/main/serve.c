/* SPDX-License-Identifier: MIT */
/*
 * weft serve: lends memory, files and directories.
 *
 * The main thread owns the loop: accept, timers, signals, the control socket.  Each connection has
 * a thread of its own, in the listener.  Order: sockets are bound first (a second daemon on the
 * same port ends before it takes memory), then regions, then "ready".  The end has the reverse
 * order.
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
#include "fabric/base/util.h"
#include "fabric/main/serve.h"

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

/* Without a control socket `weft status` does not see us, but lending works. */

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

	/* Whoever comes next gets what there is. */
	if (signo != SIGUSR2 && serve_drain(s, signo))
		return;
	s->stop_signal = signo;
	weft_loop_stop(s->loop);
}

static void on_tick(struct weft_timer *timer)
{
	struct serve *s = weft_container_of(timer, struct serve, tick);

	weft_watchdog_feed(&s->watchdog);
	weft_donor_tick(s->donor, weft_now_ns());
	serve_warn_of_files(s);
	weft_loop_timer_set(s->loop, timer, TICK_NS);
}

static void raise_limits(void)
{
	weft_process_set_limits();
	/* Connections allocate only when they come; an arena for each thread would waste memory. */
	mallopt(M_ARENA_MAX, 2);
}

static int open_listener(struct serve *s, const struct tp_driver *driver, struct weft_error *err)
{
	const struct weft_listener_config config = {
		.donor = s->donor,
		.loop = s->loop,
		.sockets = s->listening,
		.nr_sockets = s->nr_listening,
		.tls_certificates = s->tls_certificates,
	};
	struct serve_listener *l = &s->listeners[s->nr_listeners];
	int r = weft_listener_new(driver->listener, &config, &l->listener, err);

	if (r < 0)
		return r;
	l->driver = driver;
	s->nr_listeners++;
	return 0;
}

/*
 * Tells the donor all offers, as far as they fit.  A listener without offers is reached by a URI of
 * its own.
 */
static void tell_offers(struct serve *s)
{
	char offers[64] = "", one[64];
	size_t used = 0;

	for (unsigned i = 0; i < s->nr_listeners && used + 1 < sizeof(offers); i++) {
		weft_listener_offers(s->listeners[i].listener, one,
			sizeof(offers) - used - (used > 0));
		if (one[0])
			used += (size_t)snprintf(offers + used, sizeof(offers) - used, "%s%s",
				used > 0 ? "," : "", one);
	}
	weft_donor_offer(s->donor, offers);
}

/*
 * Listens over the base transport, which has to work, over others that were asked for, which have
 * to work too, and over the rest where they can.  Whoever asked for a transport has borrowers that
 * have no other: a donor that goes on without it would look well to everybody but them.
 */
static int open_listeners(struct serve *s, struct weft_error *err)
{
	const struct tp_driver *base = tp_base_driver();
	int r = open_listener(s, base, err);

	if (r < 0)
		return r;
	for (const struct tp_driver *const *at = tp_drivers;
		*at && s->nr_listeners < SERVE_MAX_LISTENERS; at++) {
		struct weft_error why;

		if (*at == base || !(*at)->listener)
			continue;
		r = open_listener(s, *at, &why);
		if (r < 0 && weft_listener_is_wanted((*at)->listener)) {
			*err = why;
			return r;
		}
		if (r < 0 && r != -ENODEV)
			weft_warn("%s; %s only", why.message, base->label);
	}
	tell_offers(s);
	return 0;
}

/* The donor, with the keys of those whom it lends to. */
static int open_donor(struct serve *s, struct weft_error *err)
{
	int r = serve_open_keys(s, err);

	if (r < 0)
		return r;
	const struct weft_donor_config config = {
		.lease_ms = s->lease_s * 1000,
		.keys = s->keys,
		.allow_insecure = s->allow_insecure,
		.question = serve_answer_move,
		.question_ctx = s,
	};
	r = weft_donor_new(&config, &s->donor);
	if (r < 0)
		return weft_error_set(err, -r, "cannot start: %s", strerror(-r));
	return serve_watch_keys(s, err);
}

static int start(struct serve *s, struct weft_error *err)
{
	int r;

	s->start_ns = weft_now_ns();
	raise_limits();
	r = weft_loop_new(&s->loop);
	if (r == 0)
		r = weft_signals_watch(&s->signals, s->loop, true, on_signal);
	if (r < 0)
		return weft_error_set(err, -r, "cannot start: %s", strerror(-r));
	r = open_donor(s, err);
	if (r < 0)
		return r;
	char **names = NULL;
	int nr_passed = sd_listen_fds_with_names(1, &names), passed[SERVE_MAX_PASSED];
	if (nr_passed < 0 || nr_passed > SERVE_MAX_PASSED)
		return weft_error_set(err, EINVAL, "systemd passed more than %d descriptors",
			SERVE_MAX_PASSED);
	for (int i = 0; i < nr_passed; i++)
		passed[i] = SD_LISTEN_FDS_START + i;
	r = serve_open_sockets(s, passed, names, nr_passed, err);
	if (r == 0)
		r = serve_open_pool(s, err);
	if (r == 0)
		r = serve_open_moves(s, err);
	if (r == 0)
		r = serve_open_regions(s, passed, names, nr_passed, err);
	for (int i = 0; i < nr_passed; i++) {
		weft_close_fd(passed[i]);
		free(names[i]);
	}
	free(names);
	if (r < 0)
		return r;
	r = open_listeners(s, err);
	if (r < 0)
		return r;
	open_control(s);
	/* Not before: a start that fails must not leave memory behind that nobody has used. */
	serve_hold_all(s);
	s->tick.fn = on_tick;
	weft_loop_timer_set(s->loop, &s->tick, TICK_NS);
	r = weft_watchdog_start(&s->watchdog, s->watchdog_s);
	if (r < 0)
		return weft_error_set(err, -r, "cannot start a watchdog: %s", strerror(-r));
	serve_start_moves(s);
	r = serve_start_pool(s, err);
	if (r < 0)
		return r;
	serve_print_ready(s);
	sd_notifyf(0, "READY=1\nSTATUS=lending %u region%s", s->nr_wanted,
		s->nr_wanted == 1 ? "" : "s");
	return 0;
}

/* Afterwards nobody is served any more.  0; -ETIMEDOUT: a thread is stuck in a region. */
static int end_listeners(struct serve *s, struct weft_error *err)
{
	for (unsigned i = s->nr_listeners; i-- > 0;)
		weft_listener_stop(s->listeners[i].listener);
	for (unsigned i = 0; i < s->nr_listeners; i++) {
		struct serve_listener *l = &s->listeners[i];

		if (weft_listener_drain(l->listener, DRAIN_MS) < 0) {
			/*
			 * That thread may still write: no mark becomes clean, and nothing is
			 * unmapped under it.
			 */
			weft_donor_flush(s->donor, NULL);
			return weft_error_set(err, ETIMEDOUT,
				"a connection over %s did not end in time: files get a new epoch",
				l->driver->label);
		}
		weft_listener_free(l->listener);
	}
	for (unsigned i = 0; s->nr_listeners == 0 && i < s->nr_listening; i++)
		close(s->listening[i].fd);
	return 0;
}

/* 0, or -errno: something is not as durable as it should be, or a thread is stuck in a region. */
static int finish(struct serve *s, struct weft_error *err)
{
	int r;

	/* A file's last writes take as long as they take. */
	weft_watchdog_end(&s->watchdog);
	sd_notify(0, "STOPPING=1\nSTATUS=finishing requests");
	serve_end_drain(s);
	if (s->stop_signal)
		serve_warn_given_back(s);
	if (s->donor)
		weft_donor_stop(s->donor);
	serve_end_pool(s);
	serve_end_moves(s);
	r = end_listeners(s, err);
	if (r < 0)
		return r;
	serve_free_pool(s);
	weft_moves_free(s->moves);
	free(s->take_directory);
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
	weft_keys_close(s->keys);
	weft_signals_end(&s->signals, s->loop);
	weft_loop_free(s->loop);
	return r;
}

int main(int argc, char **argv)
{
	static struct serve s = {.lease_s = 30,
		.keep_s = 300,
		.pool_wish.reserve_bytes = 8 * WEFT_GIB};
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
