/* SPDX-License-Identifier: MIT */
/*
 * weft attach: maps a region.
 *
 * In the background the program is two processes: the one that was started waits for the other's
 * result on a pipe, prints it and exits; the other is the bridge.  Its main thread owns the loop:
 * the listening socket, the control socket, signals.  The lanes are threads of the bridge.
 *
 * Order: the state file (whose lock is the attachment's name) is written before anything is
 * connected, so that a bridge that is killed at any point can be taken over.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/options.h"
#include "fabric/base/patience.h"
#include "fabric/base/resident.h"
#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/key/held.h"
#include "nbd-bridge/bridge/copies.h"
#include "nbd-bridge/cache/cache.h"
#include "nbd-bridge/cache/file.h"
#include "nbd-bridge/cache/seal.h"
#include "nbd-bridge/device/device.h"
#include "nbd-bridge/link/follow.h"
#include "nbd-bridge/main/attach-guard.h"
#include "nbd-bridge/main/detach-goodbye.h"

enum {
	FLUSH_MS = 20000,
	GOODBYE_MS = 2000, /* for the answer to `weft detach` to leave */
};

/* ---- changes, told once each ---- */

/* `umount FILE` detaches too, and so does `nbd-client -d`.  The path is the user's afterwards. */
static void end_if_unused(struct attach *a)
{
	bool used = false, unmounted = false;
	const char *what = "";

	for (struct bridge_front *front = a->fronts; front; front = front->next) {
		bool gone = front->ops->gone && front->ops->gone(front);

		used |= !gone;
		unmounted |= gone;
		if (gone)
			what = front->path;
	}
	if (unmounted && used && !a->unmounted)
		weft_warn("%s was unmounted or disconnected, and is not the region any more; '%s' "
			  "goes on without it",
			what, a->options.name);
	a->unmounted = unmounted;
	if (used)
		return;
	weft_info("'%s' ends: %s was unmounted or disconnected", a->options.name, what);
	weft_loop_stop(a->loop);
}

static void forget_contents(struct attach *a)
{
	for (struct bridge_front *front = a->fronts; front; front = front->next)
		if (front->ops->forget)
			front->ops->forget(front);
}

/* Logs the transport whenever it changes. */
static void tell_ways(struct attach *a)
{
	const struct attach_options *o = &a->options;
	struct bridge_way_now now;

	for (unsigned i = 0; i < o->nr_donors; i++) {
		peer_way_now(&bridge_attachment(a->bridge)->peers[i], &now);
		if (now.nr_changes == a->nr_changes[i])
			continue;
		a->nr_changes[i] = now.nr_changes;
		weft_warn("'%s' goes on over transport %s%s%s (%s)%s", o->name, now.transport,
			o->nr_donors > 1 ? " to " : "",
			o->nr_donors > 1 ? o->donors[i].uri_text : "", now.why,
			tp_word_note(now.transport));
	}
}

/* Logs it when a region is about to move, and when it has moved or stays. */
static void tell_places(struct attach *a)
{
	const struct attach_options *o = &a->options;
	const char *at, *moving;

	for (unsigned i = 0; i < o->nr_donors; i++) {
		struct bridge_peer *peer = &bridge_attachment(a->bridge)->peers[i];
		uint64_t nr = follow_now(peer, &at, &moving);
		bool moved = a->told_at[i] && at != a->told_at[i];

		if (nr == a->told_places[i])
			continue;
		if (moved)
			weft_info("'%s' has moved: %s is at %s now", o->name,
				o->donors[i].uri_text, at);
		if (moving[0])
			weft_info("'%s' is about to move: %s to %s", o->name,
				at[0] ? at : o->donors[i].uri_text, moving);
		else if (!moved && a->told_places[i])
			weft_info("'%s' does not move: %s stays", o->name,
				at[0] ? at : o->donors[i].uri_text);
		a->told_places[i] = nr;
		a->told_at[i] = at;
		if (moving[0] && o->swap)
			attach_look_up_place(moving);
	}
}

/* A donor that changed a block is told of for the first ones; status counts all. */
static void tell_bad(struct attach *a)
{
	uint64_t block;

	while (a->seal && seal_next_bad(a->seal, &a->nr_bad_told, &block))
		weft_err("'%s': block %" PRIu64 " (bytes from %" PRIu64 " on) is not what was "
			 "written: a donor, or somebody on the way, changed it; reading it is an "
			 "I/O error until it is written as a whole%s",
			a->options.name, block, block * SEAL_BLOCK,
			a->nr_bad_told == SEAL_TOLD_MAX
				? "; others are counted by weft status, and not named"
				: "");
}

static void tell_stale(const struct attach *a, const struct weft_error *why)
{
	const char *name = a->options.name;

	if (a->options.copies > 1)
		weft_err("'%s' is stale, every request fails from now on: %s; end it: weft detach "
			 "--force %s; and attach the copies again (weft rescue --copies says what "
			 "each has)",
			name, why->message, name);
	else
		weft_err("'%s' is stale, every request fails from now on: %s; go on with the "
			 "donor's present contents: weft reset %s; or end it: "
			 "weft detach --force %s",
			name, why->message, name, name);
}

/* Logs it whenever a copy is current no more, or is again; first: says nothing. */
static void tell_copies(struct attach *a, bool first)
{
	struct bridge_copy copy;

	for (unsigned i = 0; bridge_has_copies(a->bridge) && i < a->options.nr_donors; i++) {
		const uint32_t bit = 1U << i;

		bridge_copies_look(a->bridge, i, &copy);
		const bool is = copy.state == BRIDGE_COPY_CURRENT;
		if (is == !!(a->told_current & bit))
			continue;
		a->told_current ^= bit;
		if (first)
			continue;
		if (is)
			weft_info("'%s': the copy at %s is current again", a->options.name,
				peer_uri(&bridge_attachment(a->bridge)->peers[i]));
		else
			weft_warn("'%s': the copy at %s is not current any more%s%s",
				a->options.name, peer_uri(&bridge_attachment(a->bridge)->peers[i]),
				copy.why.code ? ": " : "", copy.why.code ? copy.why.message : "");
	}
}

static void on_wake(void *ctx)
{
	struct attach *a = ctx;
	struct weft_error why = {0};

	/* After the bridge has gone the loop goes on for a moment, to answer weft detach. */
	if (!a->last_state || !a->bridge)
		return;
	end_if_unused(a);
	tell_ways(a);
	tell_places(a);
	tell_bad(a);
	tell_copies(a, false);
	bridge_place_again(a->bridge);
	uint64_t silent_ns;
	const char *now = bridge_state_silent(a->bridge, &why, &silent_ns);
	bool of_key = strcmp(now, "ready") != 0 && weft_error_is_of_keys(-why.code);
	if (strcmp(now, a->last_state) == 0 && (a->told_of_key || !of_key))
		return;
	a->last_state = now;
	a->told_of_key = of_key;
	if (strcmp(now, "stale") == 0) {
		forget_contents(a);
		attach_keep_stale(a);
	}
	if (strcmp(now, "ready") == 0)
		weft_info("'%s' is ready again", a->options.name);
	else if (strcmp(now, "stale") == 0)
		tell_stale(a, &why);
	else
		weft_warn("'%s' is %s%s%s%s", a->options.name, now, why.code ? ": " : "",
			why.code ? why.message : "",
			of_key ? "; the file is read again at each try" : "");
	attach_follow_swapped(a, now, silent_ns);
}

/* ---- beginning ---- */

static int start_fronts(struct attach *a, struct weft_error *err)
{
	const struct attach_options *o = &a->options;
	struct bridge_front *front;
	int r;

	if (o->socket) {
		atomic_store(&a->socket_tenure.now, a->state.socket_tenure);
		a->socket_tenure.note = attach_note_tenure;
		a->socket_tenure.ctx = a;
		r = bridge_front_nbd_new(a->bridge, a->loop, o->socket, &a->socket_tenure, &front,
			err);
		if (r < 0)
			return r;
		a->fronts = front;
	}
	if (o->mount) {
		struct bridge_made_file made = {.dev = a->state.made_dev, .ino = a->state.made_ino};

		r = bridge_front_fuse_new(a->bridge, o->mount, &o->rights, made, &front, err);
		if (r < 0)
			return r;
		/* The mount is stopped first: it may turn out to be busy. */
		front->next = a->fronts;
		a->fronts = front;
		made = bridge_front_fuse_made_file(front);
		a->state.made_dev = made.dev;
		a->state.made_ino = made.ino;
		r = attach_save_state(a, NULL, NULL, err);
		if (r < 0)
			return r;
	}
	if (o->device) {
		r = bridge_front_device_new(a->bridge, a->loop, &o->device_wish, &a->state.device,
			attach_save_device, a, a->device_why, &front, err);
		if (r < 0)
			return r;
		front->next = a->fronts;
		a->fronts = front;
		if (a->state.unserved_ns) {
			a->state.unserved_ns = 0;
			return attach_save_state(a, NULL, NULL, err);
		}
	}
	return 0;
}

static int start(struct attach *a, struct weft_error *err)
{
	char control[WEFT_NAME_MAX + 32];
	int r = weft_loop_new(&a->loop);

	if (r < 0)
		return weft_error_set(err, -r, "cannot make an event loop: %s", strerror(-r));
	weft_loop_on_wake(a->loop, on_wake, a);
	r = weft_signals_watch(&a->signals, a->loop, false, attach_on_signal);
	if (r < 0)
		return weft_error_set(err, -r, "cannot watch signals: %s", strerror(-r));
	r = attach_take_name(a, err);
	if (r < 0)
		return r;
	if (a->options.device) {
		r = bridge_device_check(&a->options.device_wish, &a->state.device, err);
		if (r < 0)
			return r;
		if (!a->options.swap)
			bridge_device_protect_process();
	}
	r = attach_begin_swap(a, err);
	if (r < 0)
		return r;
	r = attach_begin_bridge(a, err);
	if (r < 0)
		return r;
	snprintf(control, sizeof(control), "attach-%s.sock", a->options.name);
	r = weft_control_new(a->loop, control, attach_on_question, a, &a->control, err);
	if (r < 0)
		return r;
	r = attach_complete_swap(a, err);
	if (r < 0)
		return r;
	r = start_fronts(a, err);
	return r < 0 ? r : attach_complete_swap(a, err);
}

/* ---- ending ---- */

/* The attachment forgets its contents: the donors need not keep others waiting. */
static void say_goodbye(const struct attach *a)
{
	struct weft_error err;

	if (detach_say_goodbye(&a->state, &err) < 0)
		weft_warn("'%s': a donor was not told that this attachment has ended: %s",
			a->options.name, err.message);
}

static int stop(struct attach *a, struct weft_error *err)
{
	int r = 0;

	a->last_state = NULL; /* changes are not told any more */
	if (a->attached && a->options.foreground)
		sd_notify(0, "STOPPING=1\nSTATUS=writing back what is left");
	if (a->loop) {
		weft_loop_timer_cancel(a->loop, &a->swapped_look);
		attach_forget_end(a);
		weft_signals_end(&a->signals, a->loop);
	}
	if (!a->detach)
		attach_stop_fronts(a, true, NULL);
	attach_end_rescue(a);
	if (a->bridge) {
		bool lost = strcmp(bridge_state(a->bridge, NULL), "stale") == 0 &&
			!attachment_is_superseded(bridge_attachment(a->bridge));

		r = bridge_stop(a->bridge, a->gives_up ? 0 : FLUSH_MS, err);
		if (r == 0 && !a->gives_up)
			attach_seal_is_flushed(a);
		if (lost && !a->gives_up)
			say_goodbye(a);
	}
	bridge_front_free(a->fronts);
	a->fronts = NULL;
	if (a->attached && a->options.record_order) {
		struct weft_error why;

		if (cache_save_pull_order(bridge_cache(a->bridge), a->options.record_order, &why) <
			0)
			weft_warn("%s", why.message);
	}
	bridge_free(a->bridge);
	a->bridge = NULL;
	bridge_find_fini(&a->find);
	if (!a->attached && a->cache_file && cache_file_dirty_bytes(a->cache_file) == 0)
		cache_file_unmake(a->cache_file);
	cache_file_close(a->cache_file);
	a->cache_file = NULL;
	return r;
}

/* keep_state: the next bridge of this name takes over, since nothing was ended cleanly. */
static void finish(struct attach *a, int r, const struct weft_error *err, bool keep_state)
{
	if (a->have_name && !keep_state)
		bridge_state_remove(&a->state);
	/* Nobody takes them over any more: until now a kill left them as they were. */
	if (a->seal && !keep_state)
		seal_end(a->seal);
	seal_free(a->seal);
	bridge_state_fini(&a->state);
	for (unsigned i = 0; i < a->options.nr_donors; i++)
		weft_uri_fini(&a->at[i]);
	if (a->detach) {
		weft_control_answer(a->detach,
			r < 0 ? json_pack("{s:s, s:b}", "warning", err->message, "detached", 1)
			      : json_pack("{s:b}", "detached", 1));
		uint64_t end = weft_now_ns() + GOODBYE_MS * UINT64_C(1000000);
		for (int i = 0; i < 10 && weft_now_ns() < end; i++)
			weft_loop_step(a->loop, 1);
	}
	weft_control_free(a->control);
	weft_loop_free(a->loop);
	attach_swapped_end();
	weft_log_end_thread();
}

/* ---- the two processes ---- */

static void be_patient(const struct attach_options *o)
{
	/* With --wait, the reason is told with the wait. */
	if (!o->waits)
		weft_patience_begin(
			"weft-attach: waiting for an answer of %s, up to %d s (Ctrl-C gives up)",
			o->uri_text, ATTACH_CONNECT_MS / 1000);
}

static int run(struct attach *a)
{
	bool background = a->result_fd >= 0;
	struct weft_error err = {0};
	char log[256];

	/* Of what is sealed it has to keep something, unless there is a file: attach-seal.c. */
	if (!a->options.sealed || a->options.seal_key)
		attach_guard_start(a);
	if (!background)
		be_patient(&a->options);
	int r = start(a, &err);
	if (!background)
		weft_patience_end();
	/* An attachment that was taken over has users, and keeps its front-ends. */
	if (r == 0 && background && !a->state.takes_over && attach_is_given_up(a))
		r = weft_error_set(&err, ECANCELED, "given up");
	if (r < 0) {
		stop(a, NULL);
		/*
		 * A device that is left needs a guard: the dead bridge's guard has seen this
		 * bridge, and gone.
		 */
		if (!a->state.takes_over)
			attach_guard_end(a);
		finish(a, r, &err, a->state.takes_over);
		attach_report(a, r, &err);
		return 1;
	}
	a->attached = true;
	attach_guard_settle(a);
	attach_report(a, r, &err);
	if (!background)
		sd_notifyf(0, "READY=1\nSTATUS=%s is attached", a->options.uri_text);
	if (background) {
		if (chdir("/") < 0)
			weft_warn("cannot leave the directory: %s", strerror(errno));
		attach_log_to_file(&a->options);
	}
	a->last_state = bridge_state(a->bridge, NULL);
	tell_copies(a, true);
	tell_places(a);
	weft_loop_run(a->loop);
	r = stop(a, &err);
	attach_guard_end(a);
	if (r < 0)
		weft_err("'%s' ended, but %s", a->options.name, err.message);
	else if (background && attach_log_path(&a->options, log, sizeof(log)) > 0)
		unlink(log);
	finish(a, r, &err, false);
	return r < 0 ? 1 : 0;
}

/* The process that the user started waits for the bridge's result. */
static int wait_for_bridge(int fd, pid_t pid)
{
	char text[4096], failed;
	ssize_t n;

	int r = weft_read_all(fd, &failed, 1);
	weft_patience_end();
	if (r < 0) {
		int how = 0;

		waitpid(pid, &how, 0);
		if (WIFSIGNALED(how))
			fprintf(stderr, "weft-attach: the bridge died: %s\n",
				strsignal(WTERMSIG(how)));
		else
			fprintf(stderr, "weft-attach: the bridge ended, and did not say why\n");
		return 1;
	}
	while ((n = read(fd, text, sizeof(text))) > 0)
		fwrite(text, 1, (size_t)n, failed ? stderr : stdout);
	fflush(stdout);
	if (failed == 1)
		waitpid(pid, NULL, 0); /* wait, so that nothing of it is left when we report */
	return failed;
}

int main(int argc, char **argv)
{
	static struct attach attach = {.result_fd = -1, .state_lock = PTHREAD_MUTEX_INITIALIZER};
	int fds[2];

	weft_process_begin();
	int r = bridge_settle_main(argc, argv);
	if (r >= 0)
		return r;
	r = attach_options_parse(argc, argv, &attach.options);
	if (r != WEFT_GO_ON)
		return r;
	if (attach.options.swap)
		weft_resident_prepare();
	weft_process_set_limits();
	if (attach.options.foreground)
		return run(&attach);
	if (pipe2(fds, O_CLOEXEC) < 0) {
		fprintf(stderr, "weft-attach: cannot make a pipe: %s\n", strerror(errno));
		return 1;
	}
	pid_t pid = fork();
	if (pid < 0) {
		fprintf(stderr,
			"weft-attach: cannot go into the background: %s; try --foreground\n",
			strerror(errno));
		return 1;
	}
	if (pid > 0) {
		close(fds[1]);
		be_patient(&attach.options);
		return wait_for_bridge(fds[0], pid);
	}
	close(fds[0]);
	setsid();
	attach.result_fd = fds[1];
	return run(&attach);
}
