/*
 * weft attach: maps a region.
 *
 * In the background the program is two processes: the one that was started waits for the other's result on
 * a pipe, prints it and exits; the other is the bridge.  Its main thread owns the loop: the listening
 * socket, the control socket, signals.  The lanes are threads of the bridge.
 *
 * Order: the state file (whose lock is the attachment's name) is written before anything is connected, so
 * that a bridge that is killed at any point can be taken over.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/options.h"
#include "fabric/base/patience.h"
#include "fabric/base/util.h"
#include "nbd-bridge/cache/cache.h"
#include "nbd-bridge/cache/file.h"
#include "nbd-bridge/device/device.h"
#include "nbd-bridge/main/attach-guard.h"
#include "nbd-bridge/main/detach-goodbye.h"
#include "nbd-bridge/cache/pull-order.h"

enum {
	CONNECT_MS = 10000,
	WAIT_MS = 1000, /* between two tries, with --wait */
	FLUSH_MS = 20000,
	GOODBYE_MS = 2000, /* for the answer to `weft detach` to leave */
};

/* ---- changes, told once each ---- */

static void bridge_changes(void *ctx)
{
	struct attach *a = ctx;

	weft_loop_wake(a->loop);
}

/* `umount FILE` is a way of detaching, too, and `nbd-client -d`.  What lies there then is the user's. */
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
		weft_warn("%s was unmounted or disconnected, and is not the region any more; '%s' goes on without it", what,
			a->options.name);
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

/* What the data goes over is told whenever it changes. */
static void tell_ways(struct attach *a)
{
	const struct attach_options *o = &a->options;
	struct bridge_way_now now;

	for (unsigned i = 0; i < o->nr_donors; i++) {
		peer_way_now(&bridge_attachment(a->bridge)->peers[i], &now);
		if (now.nr_changes == a->nr_changes[i])
			continue;
		a->nr_changes[i] = now.nr_changes;
		weft_warn("'%s' goes on over transport %s%s%s (%s)", o->name, now.transport, o->nr_donors > 1 ? " to " : "",
			o->nr_donors > 1 ? o->donors[i].uri_text : "", now.why);
	}
}

int attach_save_state(struct attach *a, void (*change)(struct attach *a, void *ctx), void *ctx, struct weft_error *err)
{
	pthread_mutex_lock(&a->state_lock);
	if (change)
		change(a, ctx);
	int r = bridge_state_write(&a->state, err);
	pthread_mutex_unlock(&a->state_lock);
	return r;
}

/* What a lane was granted, and that it wrote. */
struct noted {
	unsigned donor;
	uint64_t epoch, granted;
	bool wrote;
};

static void change_noted(struct attach *a, void *ctx)
{
	const struct noted *noted = ctx;
	struct bridge_state_donor *donor = &a->state.donors[noted->donor];

	bridge_state_note(donor, noted->epoch, noted->granted, noted->wrote);
	if (a->cache_file)
		cache_file_note_granted(a->cache_file, noted->donor, donor->granted, donor->wrote);
}

/* On a lane's thread. */
static int note(void *ctx, unsigned donor, uint64_t epoch, uint64_t granted, bool wrote)
{
	struct noted noted = {donor, epoch, granted, wrote};
	struct weft_error err;
	int r = attach_save_state(ctx, change_noted, &noted, &err);

	if (r < 0)
		weft_warn("%s", err.message);
	return r;
}

static void change_tenure(struct attach *a, void *ctx)
{
	a->state.socket_tenure = *(const uint64_t *)ctx;
}

/* On a lane's thread. */
static int note_tenure(void *ctx, uint64_t tenure)
{
	struct weft_error err;
	int r = attach_save_state(ctx, change_tenure, &tenure, &err);

	if (r < 0)
		weft_warn("%s", err.message);
	return r;
}

static void change_stale(struct attach *a, void *ctx)
{
	a->state.stale = true;
}

/* A take-over must not ask for what was refused for good.  Who was superseded has no successor but the one that there is. */
static void keep_stale(struct attach *a)
{
	struct weft_error err;

	if (!attachment_is_superseded(bridge_attachment(a->bridge)) && attach_save_state(a, change_stale, NULL, &err) < 0)
		weft_warn("%s", err.message);
}

static void on_wake(void *ctx)
{
	struct attach *a = ctx;
	struct weft_error why = {0};

	/* The loop turns on for a moment after the bridge has gone, to answer who asked for it. */
	if (!a->last_state || !a->bridge)
		return;
	end_if_unused(a);
	tell_ways(a);
	bridge_place_again(a->bridge);
	const char *now = bridge_state(a->bridge, &why);
	if (strcmp(now, a->last_state) == 0)
		return;
	a->last_state = now;
	if (strcmp(now, "stale") == 0) {
		forget_contents(a);
		keep_stale(a);
	}
	if (strcmp(now, "ready") == 0)
		weft_info("'%s' is ready again", a->options.name);
	else if (strcmp(now, "stale") == 0)
		weft_err("'%s' is stale, every request fails from now on: %s; go on with what there is now: weft reset %s; or end it: "
			 "weft detach --force %s", a->options.name, why.message, a->options.name, a->options.name);
	else
		weft_warn("'%s' is %s%s%s", a->options.name, now, why.code ? ": " : "",
			why.code ? why.message : "");
}

/* ---- beginning ---- */

/* A device that a dead bridge left may have users, whose data must not become another region's. */
static int check_left_device(const struct attach *a, struct weft_error *err)
{
	const struct attach_options *o = &a->options;
	const struct bridge_state_file *state = &a->state;
	char path[32];

	if (!bridge_device_find(&state->device, path, sizeof(path)))
		return 0;
	if (!state->uri || strcmp(state->uri, o->uri_text) != 0)
		return weft_error_set(err, EBUSY, "a bridge named '%s' died and left %s, which is %s; clear it with: weft "
			"detach %s; or give this one another --name", o->name, path, state->uri ? state->uri : "another region's",
			o->name);
	if (!o->device)
		return weft_error_set(err, EBUSY, "the bridge that died left %s, which may be in use; take it over with "
			"--device, or clear it with: weft detach %s", path, o->name);
	return 0;
}

static void name_device(struct attach *a)
{
	struct bridge_device *device = &a->state.device;
	char key[17];
	uint8_t random[8];

	if (!a->options.device)
		memset(device, 0, sizeof(*device));
	else if (!device->backend[0]) {
		weft_random(random, sizeof(random));
		weft_hex(random, sizeof(random), key);
		snprintf(device->backend, sizeof(device->backend), "weft:%s:%s", a->options.name, key);
	}
}

static enum weft_mode mode_of(const struct attach_options *o)
{
	return o->shared ? WEFT_MODE_SHARED : o->read_only ? WEFT_MODE_READ : WEFT_MODE_WRITE;
}

/* As the state has them. */
static const char mode_letters[] = {[WEFT_MODE_READ] = 'r', [WEFT_MODE_SHARED] = 's', [WEFT_MODE_WRITE] = 'w'};

/* Readers and writers are held to other rules: one does not go on as the other. */
static int check_mode(const struct attach *a, struct weft_error *err)
{
	static const char *const options[] = {
		[WEFT_MODE_READ] = "with --read-only", [WEFT_MODE_SHARED] = "with --shared", [WEFT_MODE_WRITE] = "to read and write"};
	const char *name = a->options.name;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(mode_letters); i++)
		if (a->state.mode == mode_letters[i] && i != mode_of(&a->options))
			return weft_error_set(err, EINVAL, "the bridge of '%s' that died was attached %s, and is taken over in the same way only; "
				"or end it: weft detach %s", name, options[i], name);
	return 0;
}

static int take_name(struct attach *a, struct weft_error *err)
{
	struct attach_options *o = &a->options;
	struct bridge_state_file *state = &a->state;
	int r = bridge_state_open(o->name, state, err);

	if (r < 0)
		return r;
	a->have_name = true;
	r = check_left_device(a, err);
	if (r < 0)
		return r;
	/* The secret is for that region only. */
	bool same = state->uri && strcmp(state->uri, o->uri_text) == 0 && state->nr_donors == o->nr_donors;
	if (state->takes_over && same && state->stripe_bytes != o->stripe_bytes)
		return weft_error_set(err, EINVAL, "the bridge of '%s' that died had stripes of %" PRIu64 " bytes: with others its "
			"contents would be scrambled; give --stripe-unit %" PRIu64 ", or end it: weft detach %s", o->name,
			state->stripe_bytes, state->stripe_bytes, o->name);
	if (state->takes_over && same && o->new_contents)
		return weft_error_set(err, EINVAL, "the bridge of '%s' that died is taken over with the contents that it knows, without --new-contents; "
			"or end it: weft detach %s", o->name, o->name);
	if (state->takes_over && same) {
		r = check_mode(a, err);
		if (r < 0)
			return r;
	}
	r = attach_check_left_cache(a, same, err);
	if (r < 0)
		return r;
	if (!state->takes_over || !same)
		bridge_state_renew(state, o->nr_donors);
	state->stripe_bytes = o->stripe_bytes;
	r = attach_open_cache(a, err);
	if (r < 0)
		return r;
	if (a->resumes && o->new_contents)
		return weft_error_set(err, EINVAL, "%s holds what was written and is not at the donor yet: attach without --new-contents to write it "
			"back, or remove the file", o->cache_file);
	if (!state->mount || !o->mount || strcmp(state->mount, o->mount) != 0)
		state->made_dev = state->made_ino = 0;
	free(state->uri);
	free(state->socket);
	free(state->mount);
	free(state->cache_file);
	state->cache_file = o->cache_file ? strdup(o->cache_file) : NULL;
	state->uri = strdup(o->uri_text);
	state->socket = o->socket ? strdup(o->socket) : NULL;
	state->mount = o->mount ? strdup(o->mount) : NULL;
	free(state->again);
	free(state->directory);
	state->again = o->again ? strdup(o->again) : NULL;
	state->directory = getcwd(NULL, 0);
	name_device(a);
	state->mode = mode_letters[mode_of(o)];
	state->pid = getpid();
	return bridge_state_write(state, err);
}

void attach_change_granted(struct attach *a, void *ctx)
{
	for (unsigned i = 0; i < a->options.nr_donors; i++) {
		struct bridge_state_donor *donor = &a->state.donors[i];

		donor->info = bridge_attachment(a->bridge)->peers[i].info;
		donor->epoch = donor->info.epoch;
	}
	a->state.stale = false;
}

/* What the front-ends of a stale attachment are, without a donor's word. */
static bool knows_infos(const struct bridge_state_file *state)
{
	for (unsigned i = 0; i < state->nr_donors; i++)
		if (state->donors[i].info.size_bytes == 0)
			return false;
	return true;
}

/*
 * Its device, file or socket is owned by a living bridge, and answers EIO: then there is somebody whom weft reset and detach can ask.
 * *err: why it is stale.
 */
static int start_stale(struct attach *a, struct bridge_config *config, struct bridge_donor_config *donors, struct weft_error *err)
{
	struct tp_info infos[BRIDGE_MAX_DONORS];
	struct weft_error why = *err;

	for (unsigned i = 0; i < config->attach.nr_donors; i++)
		infos[i] = a->state.donors[i].info;
	config->cache.bytes = 0;
	config->cache.file = NULL;
	a->left_cache = a->resumes;
	a->resumes = config->cache.resume = false;
	cache_file_close(a->cache_file);
	a->cache_file = NULL;
	int r = attach_save_state(a, change_stale, NULL, err);
	if (r == 0)
		r = bridge_find_and_start_stale(&a->find, config, donors, infos, &why, &a->bridge, err);
	a->began_stale = r == 0;
	return r;
}

/* Sleeps; true: whoever waits for us has given up, or a signal asks for the end. */
static bool sleep_or_give_up(const struct attach *a, int ms)
{
	struct pollfd p[] = {{.fd = a->signals.watch.fd, .events = POLLIN}, {.fd = a->result_fd}};

	return poll(p, WEFT_ARRAY_LEN(p), ms) > 0;
}

static bool is_given_up(void *ctx)
{
	return sleep_or_give_up(ctx, 0);
}

static int start_bridge(struct attach *a, struct weft_error *err)
{
	const struct attach_options *o = &a->options;
	const struct weft_uri *uri = &o->donors[0].uri;
	struct bridge_donor_config donors[BRIDGE_MAX_DONORS] = {0};
	struct pull_order order = {0};

	if (o->pull_order && pull_order_read(o->pull_order, &order, err) < 0)
		return -err->code;
	struct bridge_config config = {
		.attach = {
			.nr_donors = o->nr_donors,
			.stripe_bytes = o->stripe_bytes,
			.new_contents = o->new_contents,
			.foreign = uri->foreign,
			.mode = mode_of(o),
			.timeout_ms = o->timeout_ms,
			.dead_timeout_ms = o->dead_timeout_ms,
			.connect_timeout_ms = CONNECT_MS,
			.assume_stable = o->assume_stable,
			.changed = bridge_changes,
			.changed_ctx = a,
			.note = note,
			.note_ctx = a,
		},
		.cache = {
			.bytes = o->cache_bytes,
			.chunk_bytes = o->chunk_bytes,
			.write_through = o->write_through,
			.push_interval_ms = o->push_interval_ms,
			.pull = o->pull,
			.pull_workers = o->pull_workers,
			.pull_rate = o->pull_rate,
			.pull_order = o->pull_order ? &order : NULL,
			.file = a->cache_file,
			.uri = o->uri_text,
			.resume = a->resumes,
		},
		.nr_lanes = o->nr_lanes,
		.given_up = is_given_up,
		.given_up_ctx = a,
	};
	strcpy(config.attach.name, o->name);
	a->find.choice = o->transport;
	for (unsigned i = 0; i < o->nr_donors; i++) {
		a->find.donors[i].uri = &o->donors[i].uri;
		a->find.donors[i].label = o->nr_donors > 1 ? o->donors[i].uri_text : NULL;
		memcpy(donors[i].id, a->state.donors[i].id, sizeof(donors[i].id));
		donors[i].epoch = a->state.donors[i].epoch;
		donors[i].granted = a->state.donors[i].granted;
		donors[i].wrote = a->state.donors[i].wrote;
		donors[i].generation = a->state.generation;
	}
	int r = a->state.stale ? weft_error_set(err, ESTALE, "it was stale already when its bridge died")
			       : bridge_find_and_start(&a->find, &config, donors, &a->bridge, err);

	pull_order_free(&order);
	if (r == -ESTALE && a->state.takes_over && knows_infos(&a->state))
		return start_stale(a, &config, donors, err);
	if (r < 0)
		return attach_explain_refusal(a, err);
	return attach_save_state(a, attach_change_granted, NULL, err);
}

static void change_device(struct attach *a, void *ctx)
{
	a->state.device = *(const struct bridge_device *)ctx;
}

/* Whether what refused us may be over soon: a donor, a network or a name server that is not up yet, another's lease. */
static bool may_come(const struct attach *a, int r)
{
	return r == -ECONNREFUSED || r == -EHOSTUNREACH || r == -ENETUNREACH || r == -ENETDOWN || r == -ETIMEDOUT || r == -ECONNRESET ||
	       r == -EADDRNOTAVAIL || r == -ESHUTDOWN || r == -EBUSY || (r == -ENOENT && a->options.donors[0].uri.socket[0]);
}

/* After a try that failed: the next fences what was asked and not heard of. */
static void change_try(struct attach *a, void *ctx)
{
	const bool *remembers = ctx;

	bridge_state_next_incarnation(&a->state);
	/* What it was granted has reached nobody. */
	for (unsigned i = 0; i < a->state.nr_donors; i++) {
		struct bridge_state_donor *donor = &a->state.donors[i];

		if (!remembers[i]) {
			donor->epoch = donor->granted = 0;
			donor->wrote = false;
		}
	}
}

/* Of a region that is held they count seconds. */
static bool differ_in_numbers_only(const char *a, const char *b)
{
	static const char number[] = "0123456789.";

	for (;; a++, b++) {
		a += strspn(a, number);
		b += strspn(b, number);
		if (*a != *b || !*a)
			return *a == *b;
	}
}

/* As often as --wait lets it. */
static int start_bridge_when_it_can(struct attach *a, struct weft_error *err)
{
	bool remembers[BRIDGE_STATE_DONORS];
	const struct attach_options *o = &a->options;
	const uint64_t end_ns = o->wait_ms ? weft_now_ns() + o->wait_ms * UINT64_C(1000000) : UINT64_MAX;
	struct weft_error told = {0};
	char how_long[48] = "";
	int r;

	if (o->wait_ms)
		snprintf(how_long, sizeof(how_long), " for up to %g s", (double)o->wait_ms / 1000);
	for (unsigned i = 0; i < a->state.nr_donors; i++)
		remembers[i] = a->state.donors[i].epoch != 0;
	while ((r = start_bridge(a, err)) < 0 && o->waits && may_come(a, r) && weft_now_ns() < end_ns) {
		if (!differ_in_numbers_only(told.message, err->message))
			weft_info("%s; trying again%s", err->message, how_long);
		told = *err;
		bridge_find_end(&a->bridge);
		if (sleep_or_give_up(a, WAIT_MS))
			return weft_error_prefix(err, "given up");
		r = attach_save_state(a, change_try, remembers, err);
		if (r < 0)
			return r;
	}
	return r;
}

static int save_device(void *ctx, const struct bridge_device *device, struct weft_error *err)
{
	struct attach *a = ctx;

	return attach_save_state(a, change_device, (void *)device, err);
}

static int start_fronts(struct attach *a, struct weft_error *err)
{
	const struct attach_options *o = &a->options;
	struct bridge_front *front;
	int r;

	if (o->socket) {
		atomic_store(&a->socket_tenure.now, a->state.socket_tenure);
		a->socket_tenure.note = note_tenure;
		a->socket_tenure.ctx = a;
		r = bridge_front_nbd_new(a->bridge, a->loop, o->socket, &a->socket_tenure, &front, err);
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
		r = bridge_front_device_new(a->bridge, a->loop, &o->device_wish, &a->state.device, save_device, a, a->device_why,
			&front, err);
		if (r < 0)
			return r;
		front->next = a->fronts;
		a->fronts = front;
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
	r = take_name(a, err);
	if (r < 0)
		return r;
	if (a->options.device) {
		r = bridge_device_check(&a->options.device_wish, &a->state.device, err);
		if (r < 0)
			return r;
		bridge_device_protect_process();
	}
	r = start_bridge_when_it_can(a, err);
	if (r < 0)
		return r;
	snprintf(control, sizeof(control), "attach-%s.sock", a->options.name);
	r = weft_control_new(a->loop, control, attach_on_question, a, &a->control, err);
	if (r < 0)
		return r;
	return start_fronts(a, err);
}

/* ---- ending ---- */

/* What it remembered is forgotten: the donors need not keep others waiting. */
static void say_goodbye(const struct attach *a)
{
	struct weft_error err;

	if (detach_say_goodbye(&a->state, &err) < 0)
		weft_warn("'%s': a donor was not told that this attachment has ended: %s", a->options.name, err.message);
}

static int stop(struct attach *a, struct weft_error *err)
{
	int r = 0;

	a->last_state = NULL; /* changes are nobody's business any more */
	if (a->attached && a->options.foreground)
		sd_notify(0, "STOPPING=1\nSTATUS=writing back what is left");
	if (a->loop) {
		attach_forget_end(a);
		weft_signals_end(&a->signals, a->loop);
	}
	if (!a->detach)
		attach_stop_fronts(a, true, NULL);
	attach_end_rescue(a);
	if (a->bridge) {
		bool lost = strcmp(bridge_state(a->bridge, NULL), "stale") == 0 && !attachment_is_superseded(bridge_attachment(a->bridge));

		r = bridge_stop(a->bridge, a->gives_up ? 0 : FLUSH_MS, err);
		if (lost && !a->gives_up)
			say_goodbye(a);
	}
	bridge_front_free(a->fronts);
	a->fronts = NULL;
	if (a->attached && a->options.record_order) {
		struct weft_error why;

		if (cache_save_pull_order(bridge_cache(a->bridge), a->options.record_order, &why) < 0)
			weft_warn("%s", why.message);
	}
	bridge_free(a->bridge);
	a->bridge = NULL;
	if (!a->attached && a->cache_file && cache_file_dirty_bytes(a->cache_file) == 0)
		cache_file_unmake(a->cache_file);
	cache_file_close(a->cache_file);
	a->cache_file = NULL;
	return r;
}

/* keep_state: a next bridge of this name is to take over, as nothing was ended cleanly. */
static void finish(struct attach *a, int r, const struct weft_error *err, bool keep_state)
{
	if (a->have_name && !keep_state)
		bridge_state_remove(&a->state);
	bridge_state_fini(&a->state);
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
}

/* ---- what a bridge in the background says ---- */

static int log_path(const struct attach_options *o, char *path, size_t len)
{
	char dir[128];
	int r = weft_run_dir(dir, sizeof(dir));

	return r < 0 ? r : snprintf(path, len, "%s/attach-%s.log", dir, o->name);
}

void attach_log_to_file(const struct attach_options *o)
{
	char path[256];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), log = -1;

	if (log_path(o, path, sizeof(path)) > 0)
		log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	dup2(null, 0);
	dup2(null, 1);
	dup2(log >= 0 ? log : null, 2);
	if (log >= 0)
		close(log);
	close(null);
}

/* ---- the two processes ---- */

static void be_patient(const struct attach_options *o)
{
	/* What a wait that was ordered is for is told with the reason. */
	if (!o->waits)
		weft_patience_begin("weft-attach: waiting for an answer of %s, up to %d s (Ctrl-C gives up)", o->uri_text, CONNECT_MS / 1000);
}

static int run(struct attach *a)
{
	bool background = a->result_fd >= 0;
	struct weft_error err = {0};
	char log[256];

	attach_guard_start(a);
	if (!background)
		be_patient(&a->options);
	int r = start(a, &err);
	if (!background)
		weft_patience_end();
	/* What was taken over has users, from whom nothing is taken. */
	if (r == 0 && background && !a->state.takes_over && is_given_up(a))
		r = weft_error_set(&err, ECANCELED, "given up");
	if (r < 0) {
		stop(a, NULL);
		/* A device that is left has its guard: the dead bridge's own has seen this one in its place. */
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
	weft_loop_run(a->loop);
	r = stop(a, &err);
	attach_guard_end(a);
	if (r < 0)
		weft_err("'%s' ended, but %s", a->options.name, err.message);
	else if (background && log_path(&a->options, log, sizeof(log)) > 0)
		unlink(log);
	finish(a, r, &err, false);
	return r < 0 ? 1 : 0;
}

/* The process that was started: waits for the bridge's word. */
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
			fprintf(stderr, "weft-attach: the bridge died: %s\n", strsignal(WTERMSIG(how)));
		else
			fprintf(stderr, "weft-attach: the bridge ended without a word\n");
		return 1;
	}
	while ((n = read(fd, text, sizeof(text))) > 0)
		fwrite(text, 1, (size_t)n, failed ? stderr : stdout);
	fflush(stdout);
	if (failed == 1)
		waitpid(pid, NULL, 0); /* nothing of it is left when we say so */
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
	weft_process_raise_files();
	if (attach.options.foreground)
		return run(&attach);
	if (pipe2(fds, O_CLOEXEC) < 0) {
		fprintf(stderr, "weft-attach: cannot make a pipe: %s\n", strerror(errno));
		return 1;
	}
	pid_t pid = fork();
	if (pid < 0) {
		fprintf(stderr, "weft-attach: cannot go into the background: %s; try --foreground\n",
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
