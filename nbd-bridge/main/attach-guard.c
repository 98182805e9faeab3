/* SPDX-License-Identifier: MIT */
/*
 * Waits for the bridge's end, then for another bridge, or for a detach, and meanwhile has what it
 * keeps; see attach-guard.h.
 *
 * The guard's own process, of one thread.  The guard changes nothing unless it has the state file's
 * lock: then no bridge lives, and none can begin to take the device over.
 */
#include "nbd-bridge/main/attach-guard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/process.h"
#include "fabric/base/resident.h"
#include "fabric/base/util.h"

enum { MARGIN_MS = 5000 /* as with nbd */, LOOK_MS = 500 };

uint64_t attach_patience_ms(const struct attach_options *o)
{
	return (uint64_t)weft_max(o->timeout_ms, o->dead_timeout_ms) + MARGIN_MS;
}

static void end_device(const struct attach *a, struct bridge_state_file *state, unsigned waited_s)
{
	const char *name = a->options.name;
	struct weft_error err = {0};
	char path[32];

	if (!bridge_ublk_device_find(&state->device, path, sizeof(path)))
		return;
	attach_log_to_file(&a->options);
	if (bridge_ublk_device_clear(&state->device, true, &err) < 0)
		weft_err("%s has no bridge, and cannot be ended: %s", path, err.message);
	else
		weft_warn("the bridge of '%s' died, and no other took over within %u s: %s is "
			  "ended, and requests that waited for it failed",
			name, waited_s, path);
}

/* Whatever else keeps us from looking may be over soon. */
static bool has_ended(const char *path)
{
	return access(path, F_OK) < 0 && errno == ENOENT;
}

/* Keeps the descriptors as long as the state names this guard. */
static void keep(const struct attach *a, const char *path)
{
	struct bridge_state_file state;
	pid_t guard = getpid();
	bool alive;

	while (guard == getpid() && !has_ended(path)) {
		usleep(LOOK_MS * 1000);
		if (bridge_state_peek(a->options.name, &state, &alive, NULL) < 0)
			continue;
		/* A state that is being written names nobody. */
		if (state.takes_over && !state.damaged)
			guard = state.guard;
		bridge_state_fini(&state);
	}
}

/* Whether there may be a device whose requests would wait for ever. */
static bool may_be_ublk(const struct attach_options *o)
{
	enum bridge_device_kind kind = o->device_wish.kind;

	if (o->device_wish.path)
		bridge_device_kind_of(o->device_wish.path, &kind);
	return o->device && kind != BRIDGE_DEVICE_NBD;
}

static void guard(const struct attach *a, pid_t bridge, int pidfd, bool keeps)
{
	const uint64_t patience_ms = attach_patience_ms(&a->options);
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	struct bridge_state_file state;
	char dir[128], path[256];
	bool alive;

	if (weft_run_dir(dir, sizeof(dir)) < 0)
		return;
	snprintf(path, sizeof(path), "%s/attach-%s.json", dir, a->options.name);
	while (poll(&p, 1, -1) != 1)
		;
	if (keeps)
		seal_lock_key(ATTACH_GUARD_FD);
	/*
	 * Looking at more than the file's name would take the lock, and be in the way of an attach.
	 */
	for (uint64_t end_ns = weft_now_ns() + patience_ms * 1000000; weft_now_ns() < end_ns;
		usleep(LOOK_MS * 1000))
		if (has_ended(path))
			return;
	while (bridge_state_peek(a->options.name, &state, &alive, NULL) < 0) {
		if (has_ended(path))
			return;
		usleep(LOOK_MS * 1000);
	}
	if (!alive && state.pid == bridge && may_be_ublk(&a->options))
		end_device(a, &state, (unsigned)(patience_ms / 1000));
	bridge_state_fini(&state);
	if (keeps)
		keep(a, path);
}

/*
 * Memory waits for the device that the guard is to end.  What the guard has of the bridge's memory
 * is from before that had a reserve.
 */
static void stay(void)
{
	int r = weft_be_io_flusher();

	if (r == 0 && mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		r = -errno;
	if (r < 0)
		weft_debug("the guard of swap space is not locked in memory: %s", strerror(-r));
}

/*
 * Lets go of the pipes, terminal, process group and directory of the starting process, and of all
 * descriptors but fds, which become ATTACH_GUARD_FD and the next, and pidfd behind them.  Returns
 * pidfd's number; < 0: it cannot be done.
 */
static int stand_alone(int pidfd, const int *fds, unsigned nr)
{
	enum { ABOVE = ATTACH_GUARD_FD + ATTACH_GUARD_KEEPS + 1 };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	const int own = ATTACH_GUARD_FD + (int)nr;
	int high[ATTACH_GUARD_KEEPS + 1];

	/* First away from the numbers that others of them are to have. */
	for (unsigned i = 0; i <= nr; i++)
		high[i] = fcntl(i < nr ? fds[i] : pidfd, F_DUPFD_CLOEXEC, ABOVE);
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	for (unsigned i = 0; i <= nr; i++)
		if (high[i] < 0 || dup2(high[i], ATTACH_GUARD_FD + (int)i) < 0)
			return -1;
	close_range((unsigned)own + 1, UINT_MAX, 0);
	setsid();
	/* The next bridge opens descriptors in /proc, whatever protects the bridge's own memory. */
	prctl(PR_SET_DUMPABLE, 1);
	weft_signals_ignore();
	prctl(PR_SET_NAME, "weft-guard");
	if (chdir("/") < 0)
		return -1;
	int r = weft_be_spared();
	if (r < 0)
		weft_debug("cannot set oom_score_adj: %s", strerror(-r));
	return own;
}

static int start(struct attach *a, const int *fds, unsigned nr)
{
	pid_t bridge = getpid();
	int pidfd = pidfd_open(bridge, 0), r = 0;
	pid_t pid = pidfd < 0 ? -1 : fork();

	if (pid == 0) {
		int own = stand_alone(pidfd, fds, nr);

		if (a->options.swap)
			stay();
		if (own >= 0)
			guard(a, bridge, own, nr > 0);
		_exit(0);
	}
	if (pid < 0)
		r = -errno;
	else
		a->guard = pid;
	weft_close_fd(pidfd);
	return r;
}

void attach_guard_start(struct attach *a)
{
	int r = may_be_ublk(&a->options) ? start(a, NULL, 0) : 0;

	if (r < 0)
		weft_warn("the device has no guard: %s; should this bridge be killed, its users "
			  "wait until it is attached again, "
			  "or detached",
			strerror(-r));
}

int attach_guard_keep(struct attach *a, const int *fds, unsigned nr, struct weft_error *err)
{
	int r = start(a, fds, nr);

	return r < 0 ? weft_error_set(err, -r,
			       "cannot start the guard that is to keep what seals the contents: %s",
			       strerror(-r))
		     : 0;
}

void attach_guard_settle(struct attach *a)
{
	enum bridge_device_kind kind;

	if (a->options.sealed && !a->options.seal_key)
		return;
	if (bridge_device_kind_of(a->state.device.path, &kind) < 0 || kind != BRIDGE_DEVICE_UBLK)
		attach_guard_end(a);
}

void attach_guard_end(struct attach *a)
{
	if (a->guard <= 0)
		return;
	kill(a->guard, SIGKILL);
	waitpid(a->guard, NULL, 0);
	a->guard = 0;
}
