/* SPDX-License-Identifier: MIT */
/*
 * weft move: a region goes over to another donor while it is used.  The donors do the work: this
 * program asks the one that takes the region to do so, and shows what it says.  If this program
 * ends, the move goes on; the same command joins it.  One thread.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/options.h"
#include "fabric/base/patience.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/main/move.h"

enum {
	ANSWER_MS = 10000, /* for a question that a donor answers at once */
	TAKE_MS = 60000,   /* for one that makes it ask the other donor */
	LOST_MS = 10000,   /* for a donor that does not answer to come back */
	FIND_MS = 3000,    /* for a donor's word on what it has, where the other does not answer */
	FIRST_PAUSE_MS = 10, /* between the first two looks at a move, then twice that … */
	PAUSE_MS = 200,      /* … and so on, up to this */
	DOWNTIME_MS = 50,
	DOWNTIME_MAX_MS = 60000,
};

struct move_options {
	struct move_keys keys;
	uint64_t bandwidth;
	unsigned downtime_ms;
	bool json, dry_run, disconnect;
};

struct mover {
	const struct move_options *options;
	struct weft_uri from, to; /* the region's, now and then */
	char *from_text, *to_text;
	struct move_donor giver, taker;
	char id[MOVE_ID_LEN + 1]; /* "": it has not begun */
	bool abort_sent;
	struct move_status status; /* the last that is known */
	struct move_report report;
};

/* ---- signals ---- */

static volatile sig_atomic_t interrupted;
static int interrupted_fd = -1; /* an eventfd, which is readable then */

static void on_signal(int signo)
{
	const uint64_t one = 1;

	interrupted = 1;
	if (write(interrupted_fd, &one, sizeof(one)) < 0)
		return; /* it is readable already */
}

static int catch_signals(struct weft_error *err)
{
	/* A second signal ends the program. */
	const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	interrupted_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (interrupted_fd < 0)
		return weft_error_set(err, errno, "cannot make an eventfd: %s", strerror(errno));
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	return 0;
}

/* The first signal ends it. */
static void rest(int ms)
{
	struct pollfd p = {.fd = interrupted ? -1 : interrupted_fd, .events = POLLIN};

	poll(&p, 1, ms);
}

/* For questions whose wait the first signal ends; afterwards the second ends the program. */
static int until_interrupted(void)
{
	return interrupted ? -1 : interrupted_fd;
}

/* ---- asking ---- */

static json_t *question_of_move(const struct mover *m, const char *op)
{
	return json_pack("{s:s, s:s}", "op", op, "move", m->id);
}

static int ask_status(struct mover *m, const char *op, struct weft_error *err)
{
	json_t *answer;
	int r = move_donor_ask(&m->taker, question_of_move(m, op), ANSWER_MS, until_interrupted(),
		&answer, err);

	if (r < 0)
		return r;
	r = move_status_read(answer, &m->status, err);
	json_decref(answer);
	return r;
}

static int take(struct mover *m, json_t **ret, struct weft_error *err)
{
	const struct move_options *o = m->options;
	WEFT_CLEANUP_FREE char *as = NULL;
	struct weft_uri to = m->to;

	/* Borrowers have keys of their own. */
	to.identity[0] = '\0';
	as = weft_uri_format(&to);
	json_t *question = as ? json_pack(
		"{s:s, s:s, s:s, s:s, s:I, s:i, s:b, s:b}", "op", "take", "from", m->from_text,
		"region", m->to.region, "as", as, "bandwidth", (json_int_t)o->bandwidth,
		"downtime_ms", (int)o->downtime_ms, "disconnect", o->disconnect, "dry_run",
		o->dry_run) : NULL;

	weft_patience_begin("weft-move: waiting for an answer of %s, up to %d s", m->taker.name,
		TAKE_MS / 1000);
	int r = move_donor_ask(&m->taker, question, TAKE_MS, -1, ret, err);
	weft_patience_end();
	if (r < 0 && r != -ENOSYS && m->taker.talk)
		weft_error_prefix(err, "cannot move %s to %s", m->from_text, m->to_text);
	return r;
}

/*
 * A question that changes nothing, since its wait can be given up: whether the donor is there, lets
 * us in, and knows of moves.
 */
static int knock(struct mover *m, struct weft_error *err)
{
	json_t *answer;

	weft_patience_begin("weft-move: waiting for an answer of %s, up to %d s (Ctrl-C gives up)",
		m->taker.name, ANSWER_MS / 1000);
	int r = move_donor_ask(&m->taker, json_pack("{s:s}", "op", "takes"), ANSWER_MS,
		until_interrupted(), &answer, err);
	weft_patience_end();
	if (r == 0)
		json_decref(answer);
	else if (r != -ENOSYS && m->taker.talk)
		weft_error_prefix(err, "%s", m->taker.name);
	return r;
}

/* ---- who has it ---- */

static int find_out_of(struct move_donor *d, const char *region, struct move_standing *ret)
{
	struct weft_error err;
	int r = move_standing_ask(d, region, FIND_MS, until_interrupted(), ret, &err);

	if (r == 0)
		move_standing_tell(d, region, ret);
	else
		fprintf(stderr, "weft-move: what %s has of the region is not known: %s\n", d->name,
			err.message);
	return r;
}

/*
 * The donor that takes the region does not answer, or knows nothing of the move, or says that it
 * failed: the two are asked what they have, and it is told.  Returns what became of the move.
 */
static enum move_result find_out(struct mover *m)
{
	struct move_standing taker, giver;
	const int r = find_out_of(&m->taker, m->to.region, &taker);

	if (r == 0 && move_standing_is(&taker, "owner"))
		return MOVE_MOVED;
	const int s = find_out_of(&m->giver, m->from.region, &giver);
	/* As long as the one is prepared, or silent, the other may yet be told. */
	return r == 0 && s == 0 && move_standing_is(&giver, "owner") &&
			!move_standing_is(&taker, "prepared")
		? MOVE_FAILED
		: MOVE_UNKNOWN;
}

/* ---- a move ---- */

/*
 * The connection to the donor that takes the region is lost.  It is asked again for some time.  0;
 * -ENOENT: it knows nothing of the move; or another -errno: it is not to be had.
 */
static int ask_again(struct mover *m, struct weft_error *err)
{
	const uint64_t end_ns = weft_now_ns() + LOST_MS * UINT64_C(1000000);
	int r = -err->code;

	move_report_clear(&m->report);
	fprintf(stderr, "weft-move: %s; trying again for %d s\n", err->message, LOST_MS / 1000);
	/* Whoever has told it to abort waits for what became of that. */
	while (r < 0 && !m->taker.talk && weft_now_ns() < end_ns &&
		(!interrupted || m->abort_sent)) {
		rest(PAUSE_MS);
		r = ask_status(m, "take-status", err);
	}
	return r;
}

static void abort_move(struct mover *m)
{
	struct weft_error err;

	move_report_clear(&m->report);
	m->abort_sent = true;
	int r = ask_status(m, "take-abort", &err);
	if (r < 0)
		fprintf(stderr, "weft-move: cannot abort the move: %s; waiting for its end\n",
			err.message);
}

/* Looks at the move until the donor says that it is over.  Or -errno: it does not say that. */
static int watch(struct mover *m, struct weft_error *err)
{
	int pause_ms = FIRST_PAUSE_MS;

	while (move_result_of(&m->status) == MOVE_GOES_ON) {
		int r = ask_status(m, "take-status", err);

		if (r == -ECANCELED && !m->taker.talk)
			r = 0; /* a signal */
		if (r < 0 && !m->taker.talk)
			r = ask_again(m, err);
		if (r < 0)
			return r;
		if (move_result_of(&m->status) != MOVE_GOES_ON)
			break;
		if (interrupted && !m->abort_sent) {
			abort_move(m);
			continue;
		}
		move_report_progress(&m->report, &m->status);
		rest(pause_ms);
		pause_ms = (int)weft_min(2 * (unsigned)pause_ms, PAUSE_MS);
	}
	return 0;
}

/* The same; it has been told. */
static enum move_result end_of(struct mover *m)
{
	struct weft_error err;
	int r = watch(m, &err);
	enum move_result result = move_result_of(&m->status);

	move_report_clear(&m->report);
	if (r < 0) {
		/* That it does not answer is told with what is not known. */
		if (m->taker.talk)
			fprintf(stderr, "weft-move: %s\n", err.message);
		result = find_out(m);
	}
	const char *why = r == 0 ? m->status.error : "";
	if (result == MOVE_ABORTED)
		fprintf(stderr, "weft-move: aborted: %s still has the region, nothing was lost\n",
			m->giver.name);
	if (result == MOVE_FAILED)
		fprintf(stderr, "weft-move: the move of %s to %s failed%s%s; the same command "
				"begins again\n",
			m->from_text, m->to_text, why[0] ? ": " : "", why);
	if (result == MOVE_FAILED && r == 0)
		find_out(m);
	if (result == MOVE_UNKNOWN)
		fprintf(stderr, "weft-move: the move may go on: the same command asks what became "
				"of it\n");
	return result;
}

static int try(struct mover *m, struct weft_error *err)
{
	struct move_trial trial;
	json_t *answer;
	int r = take(m, &answer, err);

	if (r < 0)
		return r;
	r = move_trial_read(answer, &trial, err);
	json_decref(answer);
	if (r < 0)
		return r;
	move_report_trial(&m->report, &trial);
	json_decref(trial.cannot_follow);
	return trial.possible ? 0 : 1;
}

static bool says(const json_t *json, const char *name, const char *text)
{
	const char *value = json_string_value(json_object_get(json, name));

	return value && strcmp(value, text) == 0;
}

/*
 * There is a region of that name at the taker: it may have come there by this very move, which went
 * on when another weft move had ended.
 */
static bool has_moved_already(struct mover *m)
{
	struct weft_error err;
	json_t *answer, *one;
	bool found = false;
	size_t i;

	if (move_donor_ask(&m->taker, json_pack("{s:s}", "op", "takes"), ANSWER_MS,
		    until_interrupted(), &answer, &err) < 0)
		return false;
	json_array_foreach(json_object_get(answer, "takes"), i, one)
		found = found || (says(one, "from", m->from_text) && says(one, "phase", "done") &&
					 says(one, "region", m->to.region) &&
					 move_id_read(one, m->id, &err) == 0 &&
					 move_status_read(one, &m->status, &err) == 0);
	json_decref(answer);
	return found;
}

/* 0: it has moved; 1: it has not, and why was told; or -errno. */
static int carry_out(struct mover *m, struct weft_error *err)
{
	json_t *answer;
	int r = take(m, &answer, err);

	if (r == -EEXIST && has_moved_already(m)) {
		m->report.before = true;
		move_report_end(&m->report, &m->status, MOVE_MOVED);
		return 0;
	}
	if (r < 0)
		return r;
	r = move_id_read(answer, m->id, err);
	json_decref(answer);
	if (r < 0)
		return r;
	weft_debug("the move is %s", m->id);
	enum move_result result = end_of(m);
	move_report_end(&m->report, &m->status, result);
	return result == MOVE_MOVED ? 0 : 1;
}

/* As carry_out(). */
static int move(const struct move_options *o, const struct weft_uri *from,
	const struct weft_uri *to, struct weft_error *err)
{
	struct mover m = {
		.options = o,
		.from = *from,
		.to = *to,
		.status = {.phase = "asked", .eta_ms = -1, .downtime_ms = -1},
	};

	if (!m.to.region[0])
		m.to.region = m.from.region;
	m.from_text = weft_uri_format(&m.from);
	m.to_text = weft_uri_format(&m.to);
	m.report = (struct move_report){
		.from = m.from_text,
		.to = m.to_text,
		.id = m.id,
		.json = o->json,
		.terminal = isatty(STDERR_FILENO),
		.begin_ns = weft_now_ns(),
	};
	int r = move_donor_begin(&m.to, &o->keys, &m.taker, err);
	if (r == 0)
		r = move_donor_begin(&m.from, &o->keys, &m.giver, err);
	if (r == 0 && (!m.from_text || !m.to_text))
		r = weft_error_set(err, ENOMEM, "no memory");
	if (r == 0)
		r = knock(&m, err);
	if (r == 0)
		r = o->dry_run ? try(&m, err) : carry_out(&m, err);
	move_donor_end(&m.taker);
	move_donor_end(&m.giver);
	free(m.from_text);
	free(m.to_text);
	return r;
}

/* ---- the command line ---- */

/* A number of s or ms, into a number of ms. */
static int parse_downtime(void *into, const struct weft_option *option, char *value)
{
	char *end;
	double ms = strtod(value, &end);

	if (strcmp(end, "s") == 0)
		ms *= 1000;
	else if (strcmp(end, "ms") != 0)
		return weft_option_refuse(option, value);
	if (end == value || !(ms >= 1 && ms <= DOWNTIME_MAX_MS))
		return weft_option_refuse(option, value);
	((struct move_options *)into)->downtime_ms = (unsigned)ms;
	return WEFT_GO_ON;
}

#define INTO(field) .into = offsetof(struct move_options, field)
static const struct weft_option options[] = {
	{NULL, "URI",
		"of the regions, weft://A/REGION, and of the donor that takes them,\n"
		"weft://B, or weft://B/NAME to call a region otherwise there",
		WEFT_OPTION_ARGUMENT, .completion = WEFT_COMPLETE_URI},
	{"dry-run", NULL, "say whether it could be done, and do nothing", WEFT_OPTION_FLAG,
		INTO(dry_run)},
	{"bandwidth", "RATE", "copy at most so many bytes a second, such as 200M (no limit)",
		WEFT_OPTION_SIZE, INTO(bandwidth), .min = 1 << 16,
		.wants = "bytes a second, 64K or more, such as 200M"},
	{"downtime", "TIME", "for how long its borrowers may have to wait (50ms)", WEFT_OPTION_CALL,
		.parse = parse_downtime, .wants = "a time of 1ms to 60s, such as 50ms"},
	{"disconnect", NULL, "move although some borrowers cannot follow, and cut these off",
		WEFT_OPTION_FLAG, INTO(disconnect)},
	{"json", NULL, "say what is done as JSON, an object for each phase", WEFT_OPTION_FLAG,
		INTO(json)},
	{"key", "FILE",
		"the key that the donor at the last URI knows (default: $WEFT_KEY,\n"
		"~/.config/weft/key, /etc/weft/key)",
		WEFT_OPTION_TEXT, INTO(keys.file), .completion = WEFT_COMPLETE_FILE},
	{"allow-insecure", NULL, "use no key: in plaintext, with a donor that proves nothing",
		WEFT_OPTION_FLAG, INTO(keys.allow_insecure)},
	{0},
};

/* Of a donor on the network.  WEFT_GO_ON, or the exit status. */
static int parse_uri(const char *text, struct weft_uri *ret)
{
	struct weft_error err;

	if (weft_uri_parse(text, ret, &err) < 0)
		return weft_usage_error("%s", err.message);
	if (ret->transport)
		return weft_usage_error("'%s': transport= says how a borrower reaches a region, "
					"and it moves without",
			text);
	if (ret->driver)
		return weft_usage_error("'%s': a region moves between donors on the network, "
					"such as weft://HOST/REGION",
			text);
	return WEFT_GO_ON;
}

static bool is_same_donor(const struct weft_uri *a, const struct weft_uri *b)
{
	return strcmp(a->host, b->host) == 0 && strcmp(a->port, b->port) == 0;
}

/* uris: of zeros, one for each argument; the last is of the donor that takes. */
static int check_uris(const struct weft_command_line *line, struct weft_uri *uris)
{
	const int last = line->nr_arguments - 1;
	int r = WEFT_GO_ON;

	for (int i = 0; i <= last && r == WEFT_GO_ON; i++)
		r = parse_uri(line->arguments[i], &uris[i]);
	if (r != WEFT_GO_ON)
		return r;
	if (uris[last].region[0] && last > 1)
		return weft_usage_error("several regions cannot have one name: leave '%s' out",
			uris[last].region);
	for (int i = 0; i < last; i++) {
		if (!uris[i].region[0])
			return weft_usage_error("which region of '%s'?", line->arguments[i]);
		if (is_same_donor(&uris[i], &uris[last]))
			return weft_usage_error("'%s' is at the donor that takes it already",
				line->arguments[i]);
	}
	return WEFT_GO_ON;
}

static int move_all(const struct move_options *o, const struct weft_uri *uris, int last)
{
	struct weft_error err = {0};
	int r = catch_signals(&err);

	for (int i = 0; i < last && r == 0; i++)
		r = move(o, &uris[i], &uris[last], &err);
	if (r < 0)
		fprintf(stderr, "weft-move: %s\n", r == -ECANCELED ? "given up" : err.message);
	weft_close_fd(interrupted_fd);
	return r == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	struct move_options o = {.downtime_ms = DOWNTIME_MS};
	struct weft_command_line line = {
		.command = "move",
		.synopsis = "URI... weft://B[:PORT][/NAME] [OPTION]...",
		.about = "Moves regions to another donor while they are used.\n"
			 "Several move one after the other; the first that does not ends it.",
		.tables = {{options, &o}},
	};
	struct weft_uri *uris = NULL;

	weft_process_begin();
	int r = weft_options_parse(&line, argc, argv);
	if (r != WEFT_GO_ON)
		return r;
	if (line.nr_arguments < 2)
		return weft_usage_error(line.nr_arguments
				? "where to? Give the URI of the donor that takes it, "
				  "such as weft://HOST"
				: "what to move, and where to: weft://A/REGION weft://B");
	uris = calloc((size_t)line.nr_arguments, sizeof(*uris));
	if (!uris) {
		fputs("weft-move: no memory\n", stderr);
		return 1;
	}
	r = check_uris(&line, uris);
	if (r == WEFT_GO_ON)
		r = move_all(&o, uris, line.nr_arguments - 1);
	for (int i = 0; i < line.nr_arguments; i++)
		weft_uri_fini(&uris[i]);
	free(uris);
	return weft_end_output("weft-move", r);
}
