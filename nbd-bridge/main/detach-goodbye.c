/* SPDX-License-Identifier: MIT */
/*
 * The goodbye that a killed bridge could not say.  We join its attachment under the next
 * incarnation, as a reader, and leave at once, so that the donor frees the region now and not at
 * the end of the lease.  Main thread; blocks for a moment.
 */
#include "nbd-bridge/main/detach-goodbye.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "fabric/driver.h"
#include "fabric/key/held.h"
#include "fabric/uri.h"
#include "fabric/base/util.h"

enum { CONNECT_MS = 3000, MOVES = 4 };

/* Waits until it is granted or refused; 0, or the refusal. */
static int wait_for_grant(struct tp_conn *conn, struct weft_error *err)
{
	uint64_t end_ns = weft_now_ns() + 2 * CONNECT_MS * UINT64_C(1000000);

	while (tp_state(conn) == TP_CONNECTING && weft_now_ns() < end_ns) {
		struct tp_op *done[1];

		tp_progress(conn, done, WEFT_ARRAY_LEN(done));
		int events = tp_arm(conn);
		struct pollfd p = {.fd = tp_event_fd(conn), .events = (short)events};
		if (events != 0)
			poll(&p, 1, 100);
	}
	if (tp_state(conn) == TP_READY)
		return 0;
	if (tp_state(conn) == TP_CONNECTING)
		return weft_error_set(err, ETIMEDOUT, "no answer");
	*err = conn->why;
	return conn->error;
}

/* place: where the donor says that the region has moved to, "": nowhere. */
static int join_and_leave(struct tp *tp, const struct tp_target *target, char *place,
	struct weft_error *err)
{
	struct tp_conn *conn;
	int r = tp_connect(tp, target, &conn, err);

	if (r < 0)
		return r;
	r = wait_for_grant(conn, err);
	snprintf(place, WEFT_PLACE_MAX, "%s", r == -WEFT_EMOVED ? conn->info.moving : "");
	tp_shutdown(conn); /* a clean goodbye: nothing is in flight */
	tp_disconnect(conn);
	return r;
}

/* The one that it had, or what has taken its place in the file; nothing, if it had none. */
static int load_key(const struct bridge_state_file *state, unsigned i, struct weft_key *ret,
	struct weft_error *err)
{
	const char *identity = state->donors[i].identity;
	char name[WEFT_KEY_NAME_MAX + 1];

	if (!state->key_file || !identity[0])
		return 0;
	int r = weft_key_load(state->key_file, identity, ret, err);
	if (r != -ENOKEY)
		return r;
	weft_identity_name(identity, name);
	return weft_key_load(state->key_file, name, ret, err);
}

static int say_goodbye_at(const struct bridge_state_file *state, unsigned i, const char *uri_text,
	char *place, struct weft_error *err)
{
	struct tp_target target = {.connect_timeout_ms = CONNECT_MS,
		.hello.mode = WEFT_MODE_SHARED,
		.hello.copies = true};
	struct weft_key key = {0};
	struct weft_uri uri;
	struct tp *tp;
	int r = weft_uri_parse(uri_text, &uri, err);

	if (r < 0)
		return r;
	if (uri.foreign)
		goto fini_uri;
	r = load_key(state, i, &key, err);
	if (r < 0)
		goto fini_uri;
	if (key.secret_bytes)
		target.key = &key;
	else if (state->key_file && weft_key_is_directory(state->key_file))
		target.certificates = state->key_file;
	target.host = uri.socket[0] ? uri.socket : uri.host;
	target.port = uri.socket[0] ? NULL : uri.port;
	target.region = uri.region;
	target.hello.generation = weft_next_incarnation(state->generation);
	memcpy(target.hello.id, state->donors[i].id, sizeof(target.hello.id));
	strcpy(target.hello.name, "weft-detach");
	r = tp_open((uri.driver ? uri.driver : tp_base_driver())->ops, NULL, &tp, err);
	if (r < 0)
		goto fini_uri;
	r = join_and_leave(tp, &target, place, err);
	tp_close(tp);
	/* Other contents, or another's attachment by now: nothing is held for us. */
	if (r == -ESTALE)
		r = 0;
fini_uri:
	weft_key_wipe(&key);
	weft_uri_fini(&uri);
	return r;
}

/* A region that has moved is followed, though not for ever. */
static int follow_and_say_goodbye(const struct bridge_state_file *state, unsigned i,
	const char *uri_text, struct weft_error *err)
{
	const struct bridge_state_donor *donor = &state->donors[i];
	char at[WEFT_PLACE_MAX], place[WEFT_PLACE_MAX] = "";
	int r = say_goodbye_at(state, i, donor->at[0] ? donor->at : uri_text, place, err);

	for (unsigned n = 0; r == -WEFT_EMOVED && place[0] && n < MOVES; n++) {
		memcpy(at, place, sizeof(at));
		r = say_goodbye_at(state, i, at, place, err);
	}
	/* Its donor may have given the region away, and be gone. */
	if (r < 0 && donor->moving[0])
		r = say_goodbye_at(state, i, donor->moving, place, err);
	return r;
}

int detach_say_goodbye(const struct bridge_state_file *state, struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *uris = state->uri ? strdup(state->uri) : NULL;
	unsigned i = 0;
	char *at;
	int r = 0;

	if (!uris)
		return weft_error_set(err, ENODATA, "it is not known what it was attached to");
	for (char *uri = strtok_r(uris, " ", &at); uri && i < state->nr_donors;
		uri = strtok_r(NULL, " ", &at)) {
		int one = follow_and_say_goodbye(state, i++, uri, err);

		if (one < 0)
			r = one;
	}
	return r;
}
