/* SPDX-License-Identifier: MIT */
/*
 * weft serve --drain: before it ends the donor has its regions moved to another one, by weft move,
 * which it starts.  Main thread.
 *
 *   the first signal   everything begins to move away, and nothing is taken in any more.  The
 *                      donor ends once nothing and nobody is here.  Where that fails it stays, says
 *                      why, and the next signal is a first one again.
 *   the second         what goes on is called off, and the donor ends.
 *   the third          the donor ends at once.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/main/serve.h"
#include "fabric/uri.h"

/* For weft move to call off what it does, after the second signal. */
#define PATIENCE_NS UINT64_C(10000000000)

extern char **environ;

/* Of what may have come here, and is not lent yet, nobody can say whose it is. */
static bool is_to_move(const struct serve *s, const struct serve_region *w)
{
	struct weft_region *region;

	if (weft_donor_find(s->donor, NULL, w->name, &region, NULL, NULL) < 0)
		return false;
	const bool can = !region->read_only && weft_donor_may_leave(s->donor, region, NULL) == 0;
	weft_region_put(region);
	return can;
}

/*
 * How the other donor reaches this one.  One with certificates is known by its name, which a
 * wildcard stands for.
 */
static void find_way(const struct serve *s, struct weft_uri *ret)
{
	const struct weft_listening *here = NULL;
	struct weft_uri there;
	struct weft_error err;

	if (weft_uri_parse(s->drain_to, &there, &err) == 0) {
		here = weft_listening_towards(s->listening, s->nr_listening, there.host, there.port,
			ret->host, sizeof(ret->host));
		weft_uri_fini(&there);
	}
	if (!here || s->tls_certificates) {
		here = here ? here : serve_main_listening(s);
		snprintf(ret->host, sizeof(ret->host), "%s", here->host);
	}
	snprintf(ret->port, sizeof(ret->port), "%s", here->port);
}

/* weft move --wait URI... DONOR: NULL-terminated, each text to be freed, and the array. */
static char **command_line(const struct serve *s)
{
	char **argv = calloc(s->nr_wanted + 4, sizeof(*argv));
	struct weft_uri uri = {0};
	unsigned n = 0;

	if (!argv)
		return NULL;
	find_way(s, &uri);
	argv[n++] = strdup("weft-move");
	argv[n++] = strdup("--wait");
	for (unsigned i = 0; i < s->nr_wanted; i++) {
		if (!is_to_move(s, &s->wanted[i]))
			continue;
		uri.region = s->wanted[i].name;
		argv[n++] = weft_uri_format(&uri);
	}
	argv[n++] = strdup(s->drain_to);
	return argv;
}

int serve_spawn(const char *program, char *const *argv, pid_t *ret)
{
	posix_spawnattr_t attr;
	sigset_t none, all;

	/* Its exit status is wanted, which is not kept where SIGCHLD is ignored (holder.c). */
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&attr);
	/* A terminal's ^C is for the donor, which says what it means for the moves. */
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setflags(&attr,
		POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	int r = -posix_spawn(ret, program, NULL, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	return r;
}

static void on_end(struct weft_watch *watch, uint32_t events);

static int start(struct serve *s)
{
	struct serve_drain *d = &s->drain;
	char program[PATH_MAX];
	char **argv = command_line(s);
	int r = argv ? weft_program_beside("weft-move", program, sizeof(program)) : -ENOMEM;

	if (r == 0)
		r = serve_spawn(program, argv, &d->pid);
	for (unsigned i = 0; argv && argv[i]; i++)
		free(argv[i]);
	free(argv);
	if (r < 0)
		return r;
	d->watch.fd = pidfd_open(d->pid, 0);
	d->watch.fn = on_end;
	r = d->watch.fd < 0 ? -errno : weft_loop_add(s->loop, &d->watch, EPOLLIN);
	if (r < 0) {
		kill(d->pid, SIGKILL);
		waitpid(d->pid, NULL, 0);
		d->pid = 0;
	}
	return r;
}

static void stop(struct serve *s)
{
	s->stop_signal = s->drain.signo;
	weft_loop_stop(s->loop);
}

static void stay(struct serve *s)
{
	s->drain.nr = 0;
	weft_moves_close(s->moves, false);
	sd_notify(0, "STATUS=not drained; lending what is left");
	weft_warn("this donor stays, since not everything is at %s; a signal tries again, and two "
		  "end this donor",
		s->drain_to);
}

/* Of a region that is here still. */
static void warn_of_user(void *ctx, const struct weft_attachment_status *a)
{
	unsigned *nr_users = ctx;

	if (a->nr_sessions == 0)
		return;
	++*nr_users;
	weft_warn("region '%s', which %s%s%s uses, does not move", a->region,
		a->name[0] == '(' ? "" : "'", a->name, a->name[0] == '(' ? "" : "'");
}

/* How much would be lost, or left alone, by an end; told. */
static unsigned warn_of_what_is_left(struct serve *s)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < s->nr_wanted; i++)
		if (!s->wanted[i].path) {
			weft_warn("region '%s' may have come here, which is not known yet",
				s->wanted[i].name);
			nr++;
		}
	weft_donor_status(s->donor, warn_of_user, &nr);
	return nr;
}

/* The regions that are here move; or there is none, and the donor ends, unless one is used. */
static void go_on(struct serve *s)
{
	const unsigned before = s->drain.nr;
	unsigned nr = 0;

	for (unsigned i = 0; i < s->nr_wanted; i++)
		nr += is_to_move(s, &s->wanted[i]);
	s->drain.nr = nr;
	if (nr == 0 && warn_of_what_is_left(s) == 0) {
		stop(s);
		return;
	}
	/* What came here while the others went moves too, but this ends. */
	if (nr == 0 || (before > 0 && nr >= before)) {
		stay(s);
		return;
	}
	weft_info("%u region%s move%s to %s, and then this donor ends; another signal calls that "
		  "off, and ends it",
		nr, nr == 1 ? "" : "s", nr == 1 ? "s" : "", s->drain_to);
	sd_notifyf(0, "STATUS=moving %u region%s away", nr, nr == 1 ? "" : "s");
	int r = start(s);
	if (r < 0) {
		weft_err("weft move cannot be started: %s", strerror(-r));
		stay(s);
	}
}

static void end_watch(struct serve *s)
{
	struct serve_drain *d = &s->drain;

	weft_loop_timer_cancel(s->loop, &d->patience);
	weft_loop_remove(s->loop, &d->watch);
	close(d->watch.fd);
	d->pid = 0;
}

static void on_end(struct weft_watch *watch, uint32_t events)
{
	struct serve *s = weft_container_of(watch, struct serve, drain.watch);
	int status = -1;

	if (waitpid(s->drain.pid, &status, 0) < 0)
		weft_warn("what became of weft move is not known: %s", strerror(errno));
	end_watch(s);
	if (s->drain.ends)
		stop(s);
	else if (status == 0)
		go_on(s); /* what came here meanwhile */
	else
		stay(s);
}

static void on_patience(struct weft_timer *timer)
{
	struct serve *s = weft_container_of(timer, struct serve, drain.patience);

	weft_warn("weft move does not end");
	stop(s);
}

bool serve_drain(struct serve *s, int signo)
{
	struct serve_drain *d = &s->drain;

	if (!s->drain_to)
		return false;
	d->signo = signo;
	if (d->pid && d->ends)
		return false;
	if (d->pid) {
		weft_info("calling off what moves, and ending");
		d->ends = true;
		kill(d->pid, SIGTERM);
		d->patience.fn = on_patience;
		weft_loop_timer_set(s->loop, &d->patience, PATIENCE_NS);
		return true;
	}
	weft_moves_close(s->moves, true);
	go_on(s);
	return true;
}

void serve_end_drain(struct serve *s)
{
	struct serve_drain *d = &s->drain;

	if (!d->pid)
		return;
	kill(d->pid, SIGKILL);
	waitpid(d->pid, NULL, 0);
	end_watch(s);
}
