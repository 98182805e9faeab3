/* SPDX-License-Identifier: MIT */
/* weft reset: makes a stale attachment go on with its donor's present contents.  One thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/control.h"
#include "fabric/hello.h"
#include "fabric/base/options.h"
#include "fabric/base/patience.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "nbd-bridge/main/state.h"

enum { ANSWER_MS = 60000 };

/* The error for an attachment without a living bridge. */
static void say_not_there(const char *name, struct weft_error *err)
{
	struct bridge_state_file state;
	bool alive;

	if (bridge_state_peek(name, &state, &alive, err) < 0) {
		weft_error_set(err, ENOENT,
			"there is no attachment '%s'; weft status shows all attachments", name);
		return;
	}
	if (alive)
		weft_error_set(err, EAGAIN,
			"the bridge of '%s' is just starting or ending; try again", name);
	else
		weft_error_set(err, ESRCH,
			"the bridge of '%s' died: there is nothing to reset; attach it again, or "
			"end it with: weft detach %s",
			name, name);
	bridge_state_fini(&state);
}

struct reset_options {
	const char *name;
	bool discard;
};

static const char which_one[] = "name one attachment; weft status shows all attachments";

static const struct weft_option options[] = {
	{NULL, "NAME", "of the attachment", WEFT_OPTION_ARGUMENT,
		.into = offsetof(struct reset_options, name),
		.completion = WEFT_COMPLETE_ATTACHMENT, .wants = which_one},
	{"discard", NULL,
		"although the cache holds what was not at the donor, "
		"and nobody saved it (weft rescue)",
		WEFT_OPTION_FLAG, .into = offsetof(struct reset_options, discard)},
	{0},
};

/* WEFT_GO_ON, or the exit status. */
static int parse(int argc, char **argv, struct reset_options *o)
{
	struct weft_command_line line = {
		.command = "reset",
		.synopsis = "[--discard] NAME",
		.about = "Lets a stale attachment go on with whatever its donor has now. "
			 "The device, socket or file stays, and its users are\n"
			 "not told: end or unmount what relied on the old contents first.",
		.tables = {{options, o}},
		.surplus = "one attachment at a time",
		.noun = "a name",
	};
	int r = weft_options_parse(&line, argc, argv);

	return r == WEFT_GO_ON && !weft_name_valid(o->name) ? weft_usage_error("%s", which_one) : r;
}

int main(int argc, char **argv)
{
	char control[WEFT_NAME_MAX + 32];
	struct weft_error err = {0};
	struct reset_options o = {0};
	json_t *answer = NULL;

	weft_process_begin();
	int r = parse(argc, argv, &o);
	if (r != WEFT_GO_ON)
		return r;
	snprintf(control, sizeof(control), "attach-%s.sock", o.name);
	json_t *question = json_pack("{s:s, s:b}", "op", "reset", "discard", o.discard);
	weft_patience_begin(
		"weft-reset: waiting for the donor of '%s', up to %d s", o.name, ANSWER_MS / 1000);
	r = weft_control_ask(control, question, ANSWER_MS, &answer, &err);
	weft_patience_end();
	if (r == -ENOENT || r == -ECONNREFUSED)
		say_not_there(o.name, &err);
	json_decref(question);
	if (r < 0)
		fprintf(stderr, "weft-reset: %s\n", err.message);
	else
		printf("'%s' goes on with the contents that its donor has now\n", o.name);
	json_decref(answer);
	return weft_end_output("weft-reset", r < 0 ? 1 : 0);
}
