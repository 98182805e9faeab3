/* SPDX-License-Identifier: MIT */
/*
 * The donor's keys: which store they are in, and that the daemon follows its changes.  Main thread.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "fabric/base/log.h"
#include "fabric/main/serve.h"

static void on_keys_changed(struct weft_watch *watch, uint32_t events)
{
	struct serve *s = weft_container_of(watch, struct serve, keys_watch);
	struct weft_error err;
	int r = weft_keys_reload(s->keys, &err);

	if (r < 0)
		weft_warn("%s; the keys stay what they were", err.message);
	if (r <= 0)
		return;
	weft_donor_keys_changed(s->donor);
	weft_info("the keys in %s have changed: there are %zu now", weft_keys_dir(s->keys),
		weft_keys_count(s->keys));
}

/* A user without a home directory has no default store, which is no error: there are no keys. */
int serve_open_keys(struct serve *s, struct weft_error *err)
{
	int r = weft_keys_open(s->keys_dir, &s->keys, err);

	return r == -ENOENT && !s->keys_dir ? 0 : r;
}

int serve_watch_keys(struct serve *s, struct weft_error *err)
{
	if (!s->keys)
		return 0;
	s->keys_watch = (struct weft_watch){.fd = weft_keys_fd(s->keys), .fn = on_keys_changed};
	int r = weft_loop_add(s->loop, &s->keys_watch, EPOLLIN);
	return r < 0 ? weft_error_set(err, -r, "cannot watch %s for changes: %s",
			       weft_keys_dir(s->keys), strerror(-r))
		     : 0;
}
