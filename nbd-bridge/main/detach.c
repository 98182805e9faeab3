/* SPDX-License-Identifier: MIT */
/*
 * weft detach: ends an attachment.  Asks the bridge, and waits until its process has gone; clears
 * away what a dead bridge left behind.  One thread.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/control.h"
#include "fabric/hello.h"
#include "fabric/base/options.h"
#include "fabric/base/patience.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "nbd-bridge/device/device-kind.h"
#include "nbd-bridge/cache/file.h"
#include "nbd-bridge/front/front.h"
#include "nbd-bridge/main/detach-goodbye.h"
#include "nbd-bridge/front/settle.h"
#include "nbd-bridge/main/state.h"

enum {
	ALIVE_MS = 5000,   /* for the first answer of a bridge */
	ANSWER_MS = 60000, /* for requests in flight, and the last FLUSH */
	EXIT_MS = 10000,
	STUCK_MS = 20000,  /* for something to be written back */
	SILENT_S = 2,      /* a donor without an answer for this time counts as silent */
	FORCED_S = 30,     /* for requests in flight, and the last FLUSH */
};

struct search {
	const char *path;
	char name[WEFT_NAME_MAX + 1];
	unsigned found;
};

static int look_at(void *ctx, const char *name)
{
	struct search *search = ctx;
	struct bridge_state_file state;
	bool alive;

	if (bridge_state_peek(name, &state, &alive, NULL) < 0)
		return 0;
	if ((state.socket && strcmp(state.socket, search->path) == 0) ||
		(state.mount && strcmp(state.mount, search->path) == 0) ||
		strcmp(state.device.path, search->path) == 0) {
		snprintf(search->name, sizeof(search->name), "%s", name);
		search->found++;
	}
	bridge_state_fini(&state);
	return 0;
}

/* The attachment's name, from a name or a path. */
static int find(const char *what, char *name, struct weft_error *err)
{
	struct search search = {.path = what};
	WEFT_CLEANUP_FREE char *absolute = NULL;

	if (weft_name_valid(what) && strcmp(what, ".") != 0 && strcmp(what, "..") != 0) {
		struct bridge_state_file state;
		bool alive;

		if (bridge_state_peek(what, &state, &alive, NULL) == 0) {
			bridge_state_fini(&state);
			snprintf(name, WEFT_NAME_MAX + 1, "%s", what);
			return 0;
		}
	}
	/* realpath() would look at the file, which may be a mount that does not answer. */
	if (what[0] != '/') {
		WEFT_CLEANUP_FREE char *dir = getcwd(NULL, 0);

		if (!dir || asprintf(&absolute, "%s/%s", dir, what) < 0)
			return weft_error_set(err, ENOMEM, "out of memory");
		search.path = absolute;
	}
	bridge_state_each(look_at, &search);
	if (search.found == 0)
		return weft_error_set(err, ENOENT,
			"there is no attachment '%s'; weft status shows all attachments", what);
	snprintf(name, WEFT_NAME_MAX + 1, "%s", search.name);
	return 0;
}

/* Finds the bytes that the dead bridge's cache file has and the donor has not; 0 without a file. */
static int left_in_file(const struct bridge_state_file *state, uint64_t *ret_bytes,
	struct weft_error *err)
{
	struct cache_file *file;

	*ret_bytes = 0;
	int r = state->cache_file ? cache_file_open(state->cache_file, false, &file, err) : -ENOENT;
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	*ret_bytes = cache_file_dirty_bytes(file);
	cache_file_close(file);
	return 0;
}

/* A bridge's socket and its log. */
static void remove_from_run_dir(const char *name)
{
	static const char *const suffixes[] = {"sock", "sock.lock", "log"};
	char dir[128], path[256];

	if (weft_run_dir(dir, sizeof(dir)) < 0)
		return;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(suffixes); i++)
		if (snprintf(path, sizeof(path), "%s/attach-%s.%s", dir, name, suffixes[i]) <
			(int)sizeof(path))
			unlink(path);
}

/* For a dead bridge: removes everything that it left in the file system, except its cache file. */
static int clear_away(struct bridge_state_file *state, const char *name, const char *how,
	bool force, struct weft_error *err)
{
	struct stat st;
	struct weft_error unseen;
	uint64_t left;
	char size[32];

	if (state->damaged && !force)
		return weft_error_set(err, EUCLEAN,
			"'%s' %s, and its state, %s, is damaged, or of a newer weft: what it left "
			"cannot all be found; end what uses "
			"its device, file or socket, and give it up with: weft detach --force %s",
			name, how, state->path, name);
	int seen = left_in_file(state, &left, &unseen);
	if (seen < 0 && !force)
		return weft_error_set(err, -seen,
			"'%s' %s, and what it left in its cache file cannot be seen: %.500s; mend "
			"that, or give it up with: "
			"weft detach --force %s",
			name, how, unseen.message, name);
	weft_format_size(left, size, sizeof(size));
	if (left > 0 && !force)
		return weft_error_set(err, EBUSY,
			"'%s' %s, and %s that are not at the donor are in %s; attach it again with "
			"--cache-file %s to "
			"have them written back, or save them with weft rescue and then: weft "
			"detach --force %s",
			name, how, size, state->cache_file, state->cache_file, name);
	int cleared = bridge_device_clear(&state->device, force, err);
	if (cleared < 0)
		return cleared;
	if (state->socket && lstat(state->socket, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(state->socket);
	if (state->mount) {
		int r = bridge_clear_stale_mount(state->mount, err);

		if (r < 0)
			return r;
		if (r > 0)
			bridge_remove_made_file(state->mount,
				(struct bridge_made_file){.dev = state->made_dev,
					.ino = state->made_ino});
	}
	/* Contents that are gone on with later are still ours: a goodbye would give them up. */
	const bool goes_on = state->seal_file && !state->stale;
	struct weft_error why;
	weft_patience_begin(
		"weft-detach: telling the donor that '%s' has ended, which may take up to 10 s",
		name);
	int told = goes_on ? 0 : detach_say_goodbye(state, &why);
	weft_patience_end();
	/* The state file comes last: its holder is the attachment. */
	remove_from_run_dir(name);
	bridge_state_remove(state);
	printf("'%s' %s; what it left is cleared away. What it had not flushed may not be "
	       "durable.\n",
		name, how);
	if (left > 0)
		printf("  %s of it are in %s still; save them with: weft rescue %s FILE\n", size,
			state->cache_file, state->cache_file);
	if (goes_on)
		printf("  its contents can be attached again, with %s; its donor holds the region "
		       "until the lease is over\n",
			state->seal_file);
	if (told < 0)
		printf("  its donor could not be told, and holds the region until the lease is "
		       "over: %s\n",
			why.message);
	return 0;
}

static int wait_for_exit(int pidfd, const char *complaint, struct weft_error *err)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	if (pidfd >= 0 && poll(&p, 1, EXIT_MS) == 0)
		return weft_error_set(err, ETIMEDOUT, "%s", complaint);
	return 0;
}

static int ask(const char *name, json_t *question, int timeout_ms, json_t **ret,
	struct weft_error *err)
{
	char control[WEFT_NAME_MAX + 32];

	snprintf(control, sizeof(control), "attach-%s.sock", name);
	int r = weft_control_ask(control, question, timeout_ms, ret, err);
	json_decref(question);
	return r;
}

/* Ends a bridge that does not answer: kills it if need be, and clears away what it leaves. */
static int end_silent(const char *name, pid_t pid, int pidfd, bool force, struct weft_error *err)
{
	struct bridge_state_file state;
	bool alive;

	if (!force)
		return weft_error_set(err, ETIMEDOUT,
			"'%s' is not detached: its bridge, pid %d, does not answer; to kill "
			"it, and lose what it has not written: weft detach --force %s",
			name, (int)pid, name);
	int r = bridge_state_peek(name, &state, &alive, err);
	if (r < 0)
		return r;
	/*
	 * The process number may be another's by now; the bridge is the one that has its state file
	 * open.
	 */
	if (alive && (pidfd < 0 || !bridge_process_has_open(pid, state.path)))
		r = weft_error_set(err, ESRCH,
			"'%s' does not answer, and its process cannot be found", name);
	else if (alive && pidfd_send_signal(pidfd, SIGKILL, NULL, 0) < 0)
		r = weft_error_set(err, errno, "cannot kill pid %d: %s", (int)pid, strerror(errno));
	bridge_state_fini(&state);
	if (r == 0)
		r = wait_for_exit(pidfd, "it was killed, but its process does not end", err);
	if (r == 0)
		r = bridge_state_peek(name, &state, &alive, err);
	if (r < 0)
		return r;
	if (alive)
		r = weft_error_set(err, EBUSY, "pid %d was killed, but another process has '%s'",
			(int)pid, name);
	else
		r = clear_away(&state, name, "did not answer and was killed", true, err);
	bridge_state_fini(&state);
	return r;
}

/*
 * Tells what it waits for: at once if the donor does not answer now, otherwise when it takes long.
 */
static void tell_wait(const char *name, const json_t *status, bool force)
{
	const char *state = json_string_value(json_object_get(status, "state"));
	const char *why = json_string_value(json_object_get(status, "why"));
	bool answers = !state ||
		(strcmp(state, "ready") == 0 &&
			json_real_value(json_object_get(status, "silent_s")) < SILENT_S);

	if (force)
		weft_patience_begin(
			"weft-detach: waiting for requests in flight to end, up to %d s", FORCED_S);
	else if (answers || strcmp(state, "stale") == 0)
		weft_patience_begin("weft-detach: waiting for what was written to arrive at the "
				    "donor; to give up now: weft detach --force %s",
			name);
	else
		fprintf(stderr,
			"weft-detach: waiting up to %d s for the donor, which does not answer%s%s; "
			"to give up now: weft detach --force %s\n",
			STUCK_MS / 1000, why ? ": " : "", why ? why : "", name);
}

/*
 * Asks until the cache has nothing that is not at the donor, and the bridge ends.  Gives up, with
 * the attachment as it was, when nothing is written back for STUCK_MS, neither by the cache nor by
 * the kernel.
 */
static int ask_until_written_back(const char *name, bool force, json_t **ret,
	struct weft_error *err)
{
	uint64_t least = UINT64_MAX, most = 0, moved_ns = weft_now_ns(), told_ns = moved_ns;
	bool told = false;
	char size[32];

	for (;;) {
		int r = ask(name, json_pack("{s:s, s:b}", "op", "detach", "force", force),
			ANSWER_MS, ret, err);

		if (r < 0 || !json_is_false(json_object_get(*ret, "detached"))) {
			if (told && r == 0)
				fprintf(stderr, "weft-detach: everything is written back\n");
			return r;
		}
		uint64_t dirty = (uint64_t)json_integer_value(json_object_get(*ret, "dirty_bytes")),
			 written = (uint64_t)json_integer_value(
				 json_object_get(*ret, "written_bytes")),
			 now_ns = weft_now_ns();
		weft_format_size(dirty, size, sizeof(size));
		if (dirty < least || written > most)
			moved_ns = now_ns;
		least = weft_min(least, dirty);
		most = weft_max(most, written);
		const char *state = json_string_value(json_object_get(*ret, "state"));
		bool stale = state && strcmp(state, "stale") == 0;
		if (stale || now_ns - moved_ns > STUCK_MS * UINT64_C(1000000)) {
			if (dirty == 0)
				r = weft_error_set(err, EIO,
					"'%s' is not detached: what the kernel caches of it was "
					"not written back within %d s (it is %s); "
					"try again when its donor is there, or give it up: weft "
					"detach --force %s",
					name, STUCK_MS / 1000, state ? state : "not ready", name);
			else
				r = weft_error_set(err, EIO,
					"'%s' is not detached: %s of its cache cannot be written "
					"back; %s: weft rescue %s FILE; "
					"or give it up: weft detach --force %s",
					name, size,
					stale ? "it is stale, so its donor takes none of it; save "
						"that with"
					      : "try again when its donor is there, or save that "
						"with",
					name, name);
			json_decref(*ret);
			*ret = NULL;
			return r;
		}
		if (dirty > 0 && now_ns - told_ns > UINT64_C(1000000000)) {
			fprintf(stderr, "weft-detach: %s of the cache to be written back\n", size);
			told_ns = now_ns;
			told = true;
		}
		json_decref(*ret);
		*ret = NULL;
		usleep(20000);
	}
}

static int detach(const char *name, bool force, struct weft_error *err)
{
	struct bridge_state_file state;
	json_t *answer = NULL;
	bool alive;
	int r = bridge_state_peek(name, &state, &alive, err);

	if (r < 0)
		return r;
	if (!alive) {
		r = clear_away(&state, name, "had died", force, err);
		bridge_state_fini(&state);
		return r;
	}
	pid_t pid = state.pid;
	WEFT_CLEANUP_CLOSE int pidfd = state.pid > 0 ? pidfd_open(state.pid, 0) : -1;
	bridge_state_fini(&state);
	/*
	 * First see whether the bridge answers: it would carry out a queued order when nobody waits
	 * any more.
	 */
	weft_patience_begin("weft-detach: waiting for the bridge of '%s' to answer, up to %d s",
		name, ALIVE_MS / 1000);
	r = ask(name, json_pack("{s:s}", "op", "status"), ALIVE_MS, &answer, err);
	weft_patience_end();
	if (r == 0)
		tell_wait(name, answer, force);
	json_decref(answer);
	answer = NULL;
	if (r != -ETIMEDOUT)
		r = ask_until_written_back(name, force, &answer, err);
	if (r < 0)
		weft_patience_end();
	if (r == -ETIMEDOUT)
		return end_silent(name, pid, pidfd, force, err);
	if (r < 0)
		return r;
	const char *warning = json_string_value(json_object_get(answer, "warning"));
	r = wait_for_exit(pidfd, "it was detached, but its process does not end", err);
	weft_patience_end();
	if (r == 0 && warning)
		r = weft_error_set(err, EIO, "'%s' is detached, but %s", name, warning);
	if (r == 0)
		printf("'%s' is detached\n", name);
	json_decref(answer);
	return r;
}

struct detach_options {
	const char *what; /* a name, or a path */
	bool force;
};

static const struct weft_option options[] = {
	{NULL, "NAME|PATH", "the attachment, by its name or by its device, socket or file",
		WEFT_OPTION_ARGUMENT, .into = offsetof(struct detach_options, what),
		.completion = WEFT_COMPLETE_ATTACHMENT,
		.wants = "which one? Give its name, or the path of its device, socket or file"},
	{"force", NULL, "although it is in use; a bridge that does not answer is killed",
		WEFT_OPTION_FLAG, .into = offsetof(struct detach_options, force)},
	{0},
};

/* WEFT_GO_ON, or the exit status. */
static int parse(int argc, char **argv, struct detach_options *o)
{
	struct weft_command_line line = {
		.command = "detach",
		.synopsis = "[--force] NAME|PATH",
		.about = "Ends an attachment, told by its name or by the path of its "
			 "device, socket or file: flushes, removes\n"
			 "the device, the socket or the mount, and lets go of the region.",
		.tables = {{options, o}},
		.surplus = "one at a time",
		.noun = "a name",
	};

	return weft_options_parse(&line, argc, argv);
}

int main(int argc, char **argv)
{
	char name[WEFT_NAME_MAX + 1];
	struct weft_error err = {0};
	struct detach_options o = {0};

	weft_process_begin();
	int r = bridge_settle_main(argc, argv);
	if (r >= 0)
		return r;
	/* A shell may have handed us the file that has to go, and we must not count as its user. */
	close_range(STDERR_FILENO + 1, UINT_MAX, 0);
	r = parse(argc, argv, &o);
	if (r != WEFT_GO_ON)
		return r;
	if (find(o.what, name, &err) < 0 || detach(name, o.force, &err) < 0) {
		fprintf(stderr, "weft-detach: %s\n", err.message);
		return 1;
	}
	return 0;
}
