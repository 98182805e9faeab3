/* SPDX-License-Identifier: MIT */
/*
 * weft pool serve: the coordinator.  One thread, whose loop has the sockets, the timer of the pool,
 * the keys and the signals.  It may be killed at any time: what it decided is on the disk before
 * anybody learns of it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/key/store.h"
#include "fabric/listen.h"
#include "fabric/main/pool.h"
#include "fabric/pool/http.h"
#include "fabric/pool/pool.h"
#include "fabric/pool/shared.h"

#define TICK_NS UINT64_C(1000000000)

struct coordinator {
	const struct pool_options *options;
	struct weft_loop *loop;
	struct weft_signals signals;
	struct weft_timer tick;
	struct weft_keys *keys; /* NULL: there are none */
	struct weft_watch keys_watch;
	struct pool_shared *shared; /* NULL: the state is a file */
	struct pool *pool;          /* NULL: another coordinator leads */
	char trouble[300];          /* why it does not lead, as was told last */
	struct pool_callers *callers;
	struct pool_http *https[POOL_MAX_LISTEN + 1];
	struct weft_listening sockets[POOL_MAX_LISTEN + 1];
	unsigned nr;
};

static void on_signal(struct weft_signals *signals, int signo)
{
	struct coordinator *c = weft_container_of(signals, struct coordinator, signals);

	weft_loop_stop(c->loop);
}

/* ---- who leads ---- */

static int lead(struct coordinator *c, struct weft_error *err)
{
	int r = pool_shared_lead(c->shared, err);

	if (r < 0)
		return r;
	r = pool_open_shared(c->shared, &c->pool, err);
	if (r < 0) {
		pool_shared_resign(c->shared);
		return r;
	}
	c->trouble[0] = '\0';
	weft_info("this coordinator leads");
	return 0;
}

/* Each second: it leads if nobody does; and what may be old is forgotten at once. */
static void see_leader(struct coordinator *c)
{
	struct weft_error err;

	pool_shared_keep(c->shared);
	if (c->pool && !pool_leads(c->pool)) {
		weft_warn("this coordinator leads no longer");
		pool_close(c->pool);
		c->pool = NULL;
		pool_shared_resign(c->shared);
	}
	if (c->pool || lead(c, &err) == 0 || strcmp(c->trouble, err.message) == 0)
		return;
	snprintf(c->trouble, sizeof(c->trouble), "%s", err.message);
	weft_info("this coordinator does not lead: %s", err.message);
}

static void on_tick(struct weft_timer *timer)
{
	struct coordinator *c = weft_container_of(timer, struct coordinator, tick);

	if (c->shared)
		see_leader(c);
	if (c->pool) {
		pool_at(c->pool, weft_now_ns(), (int64_t)time(NULL));
		pool_tick(c->pool);
	}
	weft_loop_timer_set(c->loop, timer, TICK_NS);
}

static void on_keys(struct weft_watch *watch, uint32_t events)
{
	struct coordinator *c = weft_container_of(watch, struct coordinator, keys_watch);
	struct weft_error err;

	if (weft_keys_reload(c->keys, &err) < 0)
		weft_warn("%s; the keys stay what they were", err.message);
}

/* ---- the start ---- */

static int open_keys(struct coordinator *c, struct weft_error *err)
{
	int r = weft_keys_open(c->options->keys, &c->keys, err);

	if (r == -ENOENT && !c->options->keys)
		return 0; /* nobody has a home for them */
	if (r < 0)
		return r;
	c->keys_watch = (struct weft_watch){.fd = weft_keys_fd(c->keys), .fn = on_keys};
	r = weft_loop_add(c->loop, &c->keys_watch, EPOLLIN);
	return r < 0 ? weft_error_set(err, -r, "cannot watch %s for changes: %s",
			       weft_keys_dir(c->keys), strerror(-r))
		     : 0;
}

static int open_shared(struct coordinator *c, struct weft_error *err)
{
	char machine[65] = "?", name[100];
	struct weft_error why;

	gethostname(machine, sizeof(machine) - 1);
	snprintf(name, sizeof(name), "%s (process %d)", machine, (int)getpid());
	const struct pool_shared_config config = {
		.endpoints = c->options->etcd,
		.certificates = c->options->etcd_certificates,
		.prefix = c->options->etcd_prefix ? c->options->etcd_prefix : "/weft/pool",
		.name = name,
	};
	int r = pool_shared_new(&config, &c->shared, err);
	if (r < 0)
		return r;
	/* Who has no etcd yet, or does not lead, may later. */
	r = lead(c, &why);
	if (r == -EBADMSG || r == -EPROTONOSUPPORT)
		return weft_error_set(err, why.code, "%s", why.message);
	if (r < 0) {
		snprintf(c->trouble, sizeof(c->trouble), "%s", why.message);
		weft_info("this coordinator does not lead: %s", why.message);
	}
	return 0;
}

static int open_state(struct coordinator *c, struct weft_error *err)
{
	char dir[400], path[480];

	if (c->options->etcd)
		return open_shared(c, err);
	if (c->options->state)
		return pool_open(c->options->state, &c->pool, err);
	int r = weft_state_dir(dir, sizeof(dir));
	if (r < 0)
		return weft_error_set(err, -r,
			"there is no directory for the state: %s; say "
			"--state FILE",
			strerror(-r));
	snprintf(path, sizeof(path), "%s/pool.db", dir);
	return pool_open(path, &c->pool, err);
}

static int listen_on(struct coordinator *c, const char *place, struct weft_error *err)
{
	struct weft_listening *l = &c->sockets[c->nr];
	char port[8];

	snprintf(port, sizeof(port), "%d", POOL_PORT);
	int r = weft_listen(place, port, true, l, err);
	if (r < 0)
		return r;
	const bool tls = l->socket[0] == '\0' && c->options->at.certificates;
	if (l->insecure && !tls) {
		close(l->fd);
		return weft_error_set(err, EPERM,
			"%s can be reached from other machines, and what is said there would be "
			"plain to all of them; say --tls-certificates DIR",
			place);
	}
	/* Its users are known by name, and a directory keeps out who is not to ask at all. */
	if (l->socket[0] && chmod(l->socket, 0666) < 0)
		weft_warn("%s: %s", l->socket, strerror(errno));
	r = pool_http_new(c->loop, l, tls, &c->pool, c->callers, &c->https[c->nr], err);
	if (r == 0)
		c->nr++;
	return r;
}

static int listen_on_all(struct coordinator *c, struct weft_error *err)
{
	const struct pool_options *o = c->options;
	char text[160];
	int r = 0;

	for (unsigned i = 0; r == 0 && i < o->nr_listen; i++)
		r = listen_on(c, o->listen[i], err);
	if (r == 0 && o->socket) {
		snprintf(text, sizeof(text), "unix:%s", o->socket);
		r = listen_on(c, text, err);
	}
	if (r < 0 || o->nr_listen > 0 || o->socket)
		return r;
	r = pool_default_socket(text, sizeof(text));
	if (r < 0)
		return weft_error_set(err, -r, "there is no run directory: %s", strerror(-r));
	return listen_on(c, text, err);
}

static void print_ready(const struct coordinator *c)
{
	for (unsigned i = 0; i < c->nr; i++) {
		const struct weft_listening *l = &c->sockets[i];
		const bool brackets = strchr(l->host, ':') != NULL;

		if (l->socket[0])
			printf("listening on unix:%s\n", l->socket);
		else
			printf("listening on %s://%s%s%s:%s\n",
				c->options->at.certificates ? "https" : "http", brackets ? "[" : "",
				l->host, brackets ? "]" : "", l->port);
	}
	puts("ready");
	fflush(stdout);
	sd_notify(0, "READY=1");
}

static int start(struct coordinator *c, struct weft_error *err)
{
	int r = weft_loop_new(&c->loop);

	weft_process_set_limits();
	if (r == 0)
		r = weft_signals_watch(&c->signals, c->loop, false, on_signal);
	if (r < 0)
		return weft_error_set(err, -r, "cannot start: %s", strerror(-r));
	r = open_keys(c, err);
	if (r == 0)
		r = pool_callers_new(c->keys, c->options->at.certificates, &c->callers, err);
	if (r == 0)
		r = open_state(c, err);
	if (r == 0)
		r = listen_on_all(c, err);
	if (r < 0)
		return r;
	c->tick.fn = on_tick;
	weft_loop_timer_set(c->loop, &c->tick, TICK_NS);
	print_ready(c);
	return 0;
}

static void finish(struct coordinator *c)
{
	while (c->nr > 0) {
		c->nr--;
		pool_http_free(c->https[c->nr]);
		if (c->sockets[c->nr].socket[0])
			unlink(c->sockets[c->nr].socket);
	}
	pool_close(c->pool);
	pool_shared_free(c->shared);
	pool_callers_free(c->callers);
	weft_keys_close(c->keys);
	weft_signals_end(&c->signals, c->loop);
	weft_loop_free(c->loop);
}

int pool_serve(const struct pool_options *o, struct weft_error *err)
{
	struct coordinator c = {.options = o};
	int r = start(&c, err);

	if (r == 0)
		r = weft_loop_run(c.loop);
	finish(&c);
	return r;
}
