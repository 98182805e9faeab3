/* SPDX-License-Identifier: MIT */
/* The bridges under swap spaces: see swap-bridge.h. */
#include "nbd-bridge/main/swap-bridge.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/control.h"
#include "fabric/base/util.h"
#include "nbd-bridge/device/device-kind.h"
#include "nbd-bridge/main/state.h"
#include "nbd-bridge/main/swap-run.h"

enum { WORDS_MAX = 64, WORDS_BYTES = 8192, ANSWER_MS = 5000, SETTLE_MS = 20000, LOOK_MS = 100,
	TORN_MS = 1000, TORN_LOOK_MS = 10 };

/* A command line that is put together. */
struct words {
	const char *at[WORDS_MAX];
	char text[WORDS_BYTES];
	size_t nr, used;
	bool full;
};

static void add(struct words *words, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct words *words, const char *fmt, ...)
{
	const size_t room = sizeof(words->text) - words->used;
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(words->text + words->used, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= room || words->nr + 1 == WORDS_MAX) {
		words->full = true;
		return;
	}
	words->at[words->nr++] = words->text + words->used;
	words->used += (size_t)n + 1;
}

static void add_option(struct words *words, const char *option, const char *value)
{
	if (value)
		add(words, "--%s=%s", option, value);
}

static void add_flag(struct words *words, const char *option, bool given)
{
	if (given)
		add(words, "--%s", option);
}

static int program(struct words *words, const char *leaf, struct weft_error *err)
{
	char path[PATH_MAX];
	int r = swap_own_program(leaf, path);

	if (r < 0)
		return weft_error_set(err, -r, "cannot tell where this program is");
	add(words, "%s", path);
	return 0;
}

int swap_attach(const struct swap_options *o, const char *name, char *const *uris, unsigned nr,
	bool locked, struct weft_error *err)
{
	struct words words = {0};
	int r = program(&words, "weft-attach", err);

	for (unsigned i = 0; i < nr; i++)
		add(&words, "%s", uris[i]);
	add_option(&words, "device", o->device_path);
	add_flag(&words, "device", !o->device_path);
	add_flag(&words, "swap", locked);
	add_option(&words, "name", name);
	if (o->copies > 1)
		add(&words, "--mirror=%u", o->copies);
	add_option(&words, "device-kind", o->device_kind);
	add_flag(&words, "kernel-socket", o->kernel_socket);
	add_option(&words, "transport", o->transport);
	add_option(&words, "lanes", o->lanes);
	add_option(&words, "key", o->key);
	add_flag(&words, "allow-insecure", o->allow_insecure);
	add_flag(&words, "new-contents", o->new_contents);
	add_flag(&words, "verify", o->verify);
	add_flag(&words, "encrypt", o->encrypt);
	add_option(&words, "cache", o->cache);
	/* A page is out once the donor has it; sealed contents have a cache of their own. */
	add_flag(&words, "write-through", o->cache && !o->cache_file && !o->verify && !o->encrypt);
	add_option(&words, "cache-file", o->cache_file);
	add_option(&words, "dead-timeout", o->dead_timeout);
	add_option(&words, "timeout", o->timeout);
	if (r == 0 && words.full)
		r = weft_error_set(err, E2BIG, "the command line for weft attach is too long");
	return r < 0 ? r : swap_run(words.at, NULL, 0, err);
}

bool swap_is_attached(const char *name)
{
	struct bridge_state_file state;
	bool alive;

	if (bridge_state_peek(name, &state, &alive, NULL) < 0)
		return false;
	bridge_state_fini(&state);
	return true;
}

/* A bridge may be writing its state.  -ENOENT: there is no such attachment. */
static int read_state(const char *name, struct bridge_state_file *ret, struct weft_error *err)
{
	const uint64_t end_ns = weft_now_ns() + TORN_MS * UINT64_C(1000000);
	bool alive;

	for (;;) {
		int r = bridge_state_peek(name, ret, &alive, err);

		if (r < 0 || !ret->damaged)
			return r;
		bridge_state_fini(ret);
		if (weft_now_ns() > end_ns)
			return weft_error_set(err, EUCLEAN,
				"the state of '%s' is damaged; clear it with: weft detach %s", name,
				name);
		usleep(TORN_LOOK_MS * 1000);
	}
}

int swap_note_backend(struct swap_member *member, struct weft_error *err)
{
	struct bridge_state_file state;
	int r = read_state(member->attachment, &state, err);

	if (r < 0)
		return r;
	snprintf(member->backend, sizeof(member->backend), "%s", state.device.backend);
	bridge_state_fini(&state);
	return 0;
}

int swap_has_device(const struct swap_member *member)
{
	struct swap_member of_state = *member;

	if (!of_state.backend[0]) {
		int r = swap_note_backend(&of_state, NULL);

		if (r < 0)
			return r;
	}
	return bridge_device_is(member->device, of_state.backend);
}

int swap_ask_bridge(const char *name, json_t **ret, struct weft_error *err)
{
	char socket[WEFT_NAME_MAX + 32];
	json_t *question = json_pack("{s:s}", "op", "status");

	snprintf(socket, sizeof(socket), "attach-%s.sock", name);
	int r = weft_control_ask(socket, question, ANSWER_MS, ret, err);
	json_decref(question);
	if (r == -ENOENT || r == -ECONNREFUSED)
		return weft_error_set(err, ESRCH, "its bridge has died: %s",
			swap_is_attached(name) ? "weft status shows how to attach again"
					       : "it left nothing");
	return r;
}

static bool is_alive(const char *name)
{
	struct bridge_state_file state;
	bool alive;

	if (bridge_state_peek(name, &state, &alive, NULL) < 0)
		return false;
	bridge_state_fini(&state);
	return alive;
}

/* A bridge that is just starting or ending answers nobody: waits until it is one or the other. */
static void settle(const char *name)
{
	const uint64_t end_ns = weft_now_ns() + SETTLE_MS * UINT64_C(1000000);
	json_t *status = NULL;

	while (is_alive(name) && weft_now_ns() < end_ns &&
		swap_ask_bridge(name, &status, NULL) == -ESRCH)
		usleep(LOOK_MS * 1000);
	json_decref(status);
}

/*
 * Whether the attachment of the member's name is the member's: 1; 0; -EAGAIN: it may be; or
 * -errno.
 */
static int is_members(const struct swap_member *member, struct weft_error *err)
{
	struct bridge_state_file state;
	int r = read_state(member->attachment, &state, err);

	if (r < 0)
		return r;
	if (member->backend[0])
		r = strcmp(state.device.backend, member->backend) == 0;
	else
		r = state.uri && strcmp(state.uri, member->uri) == 0 ? -EAGAIN : 0;
	bridge_state_fini(&state);
	return r;
}

int swap_detach(const struct swap_member *member, struct weft_error *err)
{
	const char *name = member->attachment;
	struct words words = {0};
	int r = program(&words, "weft-detach", err);

	if (r < 0)
		return r;
	settle(name);
	const int ours = is_members(member, err);
	if (ours == -ENOENT)
		return 0;
	if (ours == 0) {
		fprintf(stderr, "weft-swap: '%s' is another attachment by now, and is let be\n",
			name);
		return 0;
	}
	if (ours < 0 && ours != -EAGAIN)
		return ours;
	add_flag(&words, "force", ours == 1);
	add(&words, "%s", name);
	r = swap_run(words.at, NULL, 0, err);
	/* It failed if the donor did not get everything; nobody wants these bytes any more. */
	return r < 0 && !swap_is_attached(name) ? 0 : r;
}
