/* SPDX-License-Identifier: MIT */
/* How weft move tells what becomes of moves: a table that is drawn, texts, or JSON. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/main/move.h"

#define NS_PER_MS UINT64_C(1000000)

enum { PATIENT_MS = 1000, DRAW_MS = 200, LINE_MS = 5000 };

static double seconds_since(const struct move_report *r)
{
	return (double)(weft_now_ns() - r->begin_ns) / 1e9;
}

static const char *result_name(enum move_result result)
{
	static const char *const names[] = {
		[MOVE_MOVED] = "moved",
		[MOVE_ABORTED] = "aborted",
		[MOVE_FAILED] = "failed",
		[MOVE_UNKNOWN] = "unknown",
	};

	return names[result];
}

/* Of ms, where -1 is null. */
static json_t *seconds_json(int64_t ms)
{
	return ms < 0 ? json_null() : json_real((double)ms / 1e3);
}

/* Takes the object. */
void move_report_json(json_t *json)
{
	json_dumpf(json, stdout, JSON_REAL_PRECISION(9));
	putchar('\n');
	fflush(stdout);
	json_decref(json);
}

static void print_status(const struct move_report *r, const struct move_status *s,
	enum move_result result)
{
	move_report_json(json_pack(
		"{s:s, s:s?, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:o, s:o, s:f, "
		"s:s?}",
		"phase", s->phase, "result", result_name(result), "move", r->id, "from", r->from,
		"to", r->to, "size_bytes", (json_int_t)s->size_bytes, "copied_bytes",
		(json_int_t)s->copied_bytes, "left_bytes", (json_int_t)s->left_bytes,
		"checked_bytes", (json_int_t)s->checked_bytes, "rate_bytes_per_s",
		(json_int_t)s->rate, "dirty_rate_bytes_per_s", (json_int_t)s->dirty_rate, "round",
		(int)s->round, "borrowers", (int)s->borrowers, "eta_s", seconds_json(s->eta_ms),
		"downtime_s", seconds_json(s->downtime_ms), "seconds", seconds_since(r), "error",
		s->error[0] ? s->error : NULL));
}

/* "pull, round 2: 1.2 GiB copied, 30 MiB to go, 800 MiB/s, 20 MiB/s written, 1 s left" */
static void describe(const struct move_status *s, char *buf, size_t len)
{
	char copied[32], left[32], rate[32], dirty[32];
	int n = snprintf(buf, len, "%s", s->phase);

	if (s->round)
		n += snprintf(buf + n, len - (size_t)n, ", round %u", s->round);
	n += snprintf(buf + n, len - (size_t)n, ": %s copied, %s to go, %s/s",
		weft_format_size(s->copied_bytes, copied, sizeof(copied)),
		weft_format_size(s->left_bytes, left, sizeof(left)),
		weft_format_size(s->rate, rate, sizeof(rate)));
	if (s->dirty_rate)
		n += snprintf(buf + n, len - (size_t)n, ", %s/s written",
			weft_format_size(s->dirty_rate, dirty, sizeof(dirty)));
	if (s->eta_ms >= 0)
		snprintf(buf + n, len - (size_t)n, ", %" PRId64 " s left",
			(s->eta_ms + 999) / 1000);
}

void move_report_phase(struct move_report *r, const struct move_status *s)
{
	if (r->json && strcmp(r->phase, s->phase) != 0)
		print_status(r, s, MOVE_GOES_ON);
	strcpy(r->phase, s->phase);
}

void move_table_clear(struct move_table *t)
{
	if (t->terminal && t->nr_lines > 0)
		fputs("\r\033[K", stderr);
	/* The cursor is in the last line. */
	for (; t->terminal && t->nr_lines > 1; t->nr_lines--)
		fputs("\033[A\033[K", stderr);
	t->nr_lines = 0;
}

static void draw_line(struct move_table *t, const char *text)
{
	if (t->terminal)
		fprintf(stderr, "%s%s", t->nr_lines > 0 ? "\n" : "", text);
	else
		fprintf(stderr, "%s\n", text);
	t->nr_lines++;
}

void move_table_draw(struct move_table *t, const struct move_row *rows, unsigned nr,
	unsigned nr_moved, unsigned nr_all)
{
	const uint64_t now_ns = weft_now_ns();
	const uint64_t pause_ns = (t->terminal ? DRAW_MS : LINE_MS) * NS_PER_MS;
	char text[256], line[WEFT_PLACE_MAX + 300];

	if (now_ns - t->begin_ns < PATIENT_MS * NS_PER_MS ||
		(t->said_ns && now_ns - t->said_ns < pause_ns))
		return;
	t->said_ns = now_ns;
	move_table_clear(t);
	for (unsigned i = 0; i < nr; i++) {
		describe(rows[i].status, text, sizeof(text));
		snprintf(line, sizeof(line), "weft-move: %s: %s", rows[i].from, text);
		draw_line(t, line);
	}
	if (nr_all > 1) {
		snprintf(line, sizeof(line), "weft-move: %u of %u regions have moved", nr_moved,
			nr_all);
		draw_line(t, line);
	}
}

static void print_moved(const struct move_report *r, const struct move_status *s)
{
	char size[32], copied[32], checked[32];

	/* The donor started anew, and knows no more of the move than that. */
	if (move_result_of(s) != MOVE_MOVED) {
		printf("moved %s to %s\n", r->from, r->to);
		fflush(stdout);
		return;
	}
	printf("moved %s to %s: %s", r->from, r->to,
		weft_format_size(s->size_bytes, size, sizeof(size)));
	if (r->before)
		printf(" some time ago");
	else
		printf(" in %.1f s", seconds_since(r));
	printf(", %u round%s, %s copied, ", s->round, s->round == 1 ? "" : "s",
		weft_format_size(s->copied_bytes, copied, sizeof(copied)));
	if (s->checked_bytes >= s->size_bytes)
		printf("all compared");
	else
		printf("%s compared", weft_format_size(s->checked_bytes, checked, sizeof(checked)));
	if (s->downtime_ms >= 0)
		printf(", downtime %" PRId64 " ms", s->downtime_ms);
	putchar('\n');
	fflush(stdout);
}

void move_report_end(const struct move_report *r, const struct move_status *s,
	enum move_result result)
{
	if (r->json)
		print_status(r, s, result);
	else if (result == MOVE_MOVED)
		print_moved(r, s);
}

void move_report_trial(const struct move_report *r, const struct move_trial *t)
{
	char size[32], room[32];
	size_t i;
	json_t *text;

	if (r->json) {
		move_report_json(json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:i, s:O, s:s?}",
			"phase", "dry-run", "result", t->possible ? "possible" : "impossible",
			"from", r->from, "to", r->to, "size_bytes", (json_int_t)t->size_bytes,
			"free_bytes", (json_int_t)t->free_bytes, "borrowers", (int)t->borrowers,
			"cannot_follow", t->cannot_follow, "error", t->why[0] ? t->why : NULL));
		return;
	}
	printf("%s %s to %s: it has %s, and %s can be had there; it has %u borrower%s\n", r->from,
		t->possible ? "can move" : "cannot move", r->to,
		weft_format_size(t->size_bytes, size, sizeof(size)),
		weft_format_size(t->free_bytes, room, sizeof(room)), t->borrowers,
		t->borrowers == 1 ? "" : "s");
	if (t->why[0])
		printf("%s\n", t->why);
	json_array_foreach(t->cannot_follow, i, text)
		printf("cannot follow: %s\n", json_string_value(text));
	fflush(stdout);
}
