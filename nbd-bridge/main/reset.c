/* weft reset: a stale attachment goes on with the contents that there are now.  One thread. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/arguments.h"
#include "fabric/base/control.h"
#include "fabric/hello.h"
#include "fabric/base/patience.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "nbd-bridge/main/state.h"

enum { ANSWER_MS = 60000 };

static void usage(FILE *out)
{
	fputs("usage: weft reset [--discard] NAME\n"
	      "Lets a stale attachment go on with whatever its donor has now. The device, socket or file stays, and its users are\n"
	      "not told: end or unmount what relied on the old contents first.\n"
	      "\n"
	      "  --discard  although the cache holds what was not at the donor, and nobody saved it (weft rescue)\n"
	      "  --help     show this\n",
		out);
}

/* What has no bridge that lives. */
static void say_not_there(const char *name, struct weft_error *err)
{
	struct bridge_state_file state;
	bool alive;

	if (bridge_state_peek(name, &state, &alive, err) < 0) {
		weft_error_set(err, ENOENT, "there is no attachment '%s'; weft status shows what there is", name);
		return;
	}
	if (alive)
		weft_error_set(err, EAGAIN, "the bridge of '%s' is just starting or ending; try again", name);
	else
		weft_error_set(err, ESRCH, "the bridge of '%s' died: there is nothing to reset; attach it again, or end it with: weft detach %s",
			name, name);
	bridge_state_fini(&state);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"discard", no_argument, NULL, 'd'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	char control[WEFT_NAME_MAX + 32];
	struct weft_error err = {0};
	bool discard = false;
	json_t *answer = NULL;
	int c;

	weft_process_begin();
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 'h') {
			usage(stdout);
			return weft_end_output("weft-reset", 0);
		}
		if (c != 'd') {
			fputs("Try: weft reset --help\n", stderr);
			return 2;
		}
		discard = true;
	}
	if (argc - optind > 1) {
		char extra[512];

		fprintf(stderr, "weft-reset: one attachment at a time: %s\nTry: weft reset --help\n",
			weft_arguments_explain(argv + optind, argc - optind, 1, "a name", longs, extra, sizeof(extra)));
		return 2;
	}
	if (argc - optind != 1 || !weft_name_valid(argv[optind])) {
		fputs("weft-reset: name one attachment; weft status shows what there is\nTry: weft reset --help\n", stderr);
		return 2;
	}
	snprintf(control, sizeof(control), "attach-%s.sock", argv[optind]);
	json_t *question = json_pack("{s:s, s:b}", "op", "reset", "discard", discard);
	weft_patience_begin("weft-reset: waiting for the donor of '%s', up to %d s", argv[optind], ANSWER_MS / 1000);
	int r = weft_control_ask(control, question, ANSWER_MS, &answer, &err);
	weft_patience_end();
	if (r == -ENOENT || r == -ECONNREFUSED)
		say_not_there(argv[optind], &err);
	json_decref(question);
	if (r < 0)
		fprintf(stderr, "weft-reset: %s\n", err.message);
	else
		printf("'%s' goes on with the contents that its donor has now\n", argv[optind]);
	json_decref(answer);
	return weft_end_output("weft-reset", r < 0 ? 1 : 0);
}
