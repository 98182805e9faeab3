/* SPDX-License-Identifier: MIT */
/* weft swap off: brings pages back, ends swap spaces and their attachments, gives settings back. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/main/swap-down.h"
#include "nbd-bridge/main/swap-drain.h"
#include "nbd-bridge/main/swap-run.h"
#include "nbd-bridge/main/swap.h"

enum { LOOK_MS = 250 };

struct names {
	char at[BRIDGE_MAX_DONORS * 4][WEFT_NAME_MAX + 1];
	size_t nr;
};

static int add_name(void *ctx, const char *name)
{
	struct names *names = ctx;

	if (names->nr < WEFT_ARRAY_LEN(names->at))
		snprintf(names->at[names->nr++], sizeof(names->at[0]), "%s", name);
	return 0;
}

/* Others may be ending still, as when the machine is shut down. */
static int wait_for_memory(const struct swap_note *note, uint32_t wait_ms, struct weft_error *err)
{
	const uint64_t end_ns = weft_now_ns() + wait_ms * UINT64_C(1000000);
	bool told = false;
	int r;

	while ((r = swap_drain_check(note, err)) == -ENOMEM && weft_now_ns() < end_ns &&
		!swap_signals_came()) {
		if (!told)
			fprintf(stderr, "weft-swap: waiting up to %u s for memory: %s\n",
				wait_ms / 1000, err->message);
		told = true;
		usleep(LOOK_MS * 1000);
	}
	return r;
}

static int take_down(const struct swap_options *o, const char *name, struct weft_error *err)
{
	struct swap_note note;
	int r = swap_note_read(name, &note, err);

	if (r == 0 && (!o->force || o->wait_ms > 0))
		r = wait_for_memory(&note, o->wait_ms, err);
	if (r == -ENOMEM && o->force && !swap_signals_came())
		r = 0;
	if (r == 0)
		r = swap_take_down(&note, err);
	if (r == 0)
		printf("'%s' is swap space no more\n", name);
	return r;
}

int swap_off(const struct swap_options *o)
{
	struct names names = {.nr = 0};
	struct weft_error err = {0};
	bool failed = false;
	const int lock = swap_lock(&err);

	if (lock < 0) {
		fprintf(stderr, "weft-swap: %s\n", err.message);
		return 1;
	}
	swap_signals_hold();
	for (unsigned i = 0; i < o->nr_arguments; i++)
		add_name(&names, o->arguments[i]);
	if (o->all)
		swap_note_each(add_name, &names);
	for (size_t i = 0; i < names.nr && !swap_signals_came(); i++) {
		int r = take_down(o, names.at[i], &err);

		if (r < 0)
			fprintf(stderr, "weft-swap: %s%s%s\n", err.message,
				r == -EINTR ? "; go on with: weft swap off " : "",
				r == -EINTR ? names.at[i] : "");
		failed |= r < 0;
	}
	weft_close_fd(lock);
	return failed || swap_signals_came() ? 1 : 0;
}
