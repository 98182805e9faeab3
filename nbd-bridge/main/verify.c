/* SPDX-License-Identifier: MIT */
/*
 * weft verify: compares the copies of a device by hashes that their donors make.
 *
 * The device may be written meanwhile: then a block differs for as long as a write is on its way to
 * some of its copies.  So a block that differs is looked at again.  A write that goes on changes
 * it; a copy that a write does not reach is left behind before long, which changes the generation.
 * What stays different, and as it is, is wrong.
 *
 * Repairing is the bridge's, which keeps writes away meanwhile: it is told which copy is right.
 * That is the one whose hash most copies have, or the user's choice.  One thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "fabric/base/control.h"
#include "fabric/base/options.h"
#include "fabric/base/patience.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "nbd-bridge/main/copies-look.h"
#include "nbd-bridge/main/state.h"

#define NS_PER_MS UINT64_C(1000000)

enum {
	DIFFERS = 3, /* the exit status */
	BLOCK = WEFT_HASH_BLOCK_MIN,
	MAX_RANGE = 1 << 20,
	HASHES = MAX_RANGE / BLOCK,
	ANSWER_MS = 30000,
	/* Longer than a bridge waits for a donor before it leaves the copy behind. */
	SETTLED_MS = 8000,
	MAX_WAIT_MS = 60000, /* for a block that changes all the time */
	LOOK_MS = 200,
	MAX_SUSPECTS = 16384,
	MAX_TRIES = 3, /* while members change */
	PROGRESS_MS = 1000,
	REPAIR_MS = 20000,
};

/* A block of a set that differed. */
struct suspect {
	uint64_t off;
	uint64_t look;     /* a hash of what its hashes were at the last look */
	uint64_t since_ns; /* … and since when they are so */
	bool wrong, busy, same, repaired;
};

struct verify_options {
	const char *key_file, *from;
	bool allow_insecure, json, repair;
};

struct verify {
	const struct verify_options *options;
	struct copies_look look;
	struct weft_hashing hashing;
	struct suspect suspects[MAX_SUSPECTS];
	unsigned nr_suspects;
	bool too_many;
	const char *name; /* of the attachment; NULL: none is meant */
	int from; /* the region that is right, by its number; -1: what most copies have is */
	struct weft_error why_not; /* the first reason for what was not repaired; code 0: none */
	uint64_t checked_bytes, wrong_bytes, busy_bytes, repaired_bytes, total_bytes;
	json_t *ranges; /* what is wrong */
	uint64_t said_ns;
};

/* ---- comparing ---- */

/* The visits of the copies that are current. */
static uint32_t visits_of(const struct copies_set *set)
{
	uint32_t visits = 0;

	for (unsigned i = 0; i < set->count; i++)
		if ((set->answer.members >> i & 1) && set->at[i] >= 0)
			visits |= UINT32_C(1) << set->at[i];
	return visits;
}

static uint64_t size_of(const struct verify *v, uint32_t visits)
{
	uint64_t size = UINT64_MAX;

	for (unsigned i = 0; i < v->look.nr; i++)
		if (visits >> i & 1)
			size = weft_min(size, v->look.visits[i].info.size_bytes);
	return size;
}

static uint64_t range_of(const struct verify *v, uint32_t visits)
{
	uint64_t range = MAX_RANGE;

	for (unsigned i = 0; i < v->look.nr; i++)
		if (visits >> i & 1)
			range = weft_min(range,
				(uint64_t)v->look.visits[i].info.max_hash_blocks * BLOCK);
	return range;
}

static int hash(struct verify *v, uint32_t visits, uint64_t off, uint64_t len,
	struct weft_error *err)
{
	struct bridge_visit *all = v->look.visits;
	uint32_t done = visits_do(all, v->look.nr, visits, TP_HASH, off, len, &v->hashing,
		ANSWER_MS);

	for (unsigned i = 0; i < v->look.nr; i++)
		if ((visits & ~done) >> i & 1)
			return weft_error_set(err, all[i].why.code ? all[i].why.code : EIO,
				"%s: %s", v->look.texts[i],
				all[i].why.code ? all[i].why.message : strerror(-all[i].status));
	return 0;
}

/* Whether the nth block is the same everywhere; *ret_look: a hash of what it was. */
static bool is_same(const struct verify *v, uint32_t visits, size_t nth, uint64_t *ret_look)
{
	const uint8_t *first = NULL;
	bool same = true;
	uint64_t look = 0;

	for (unsigned i = 0; i < v->look.nr; i++) {
		if (!(visits >> i & 1))
			continue;
		const uint8_t *its = (uint8_t *)v->look.visits[i].buf + nth * WEFT_HASH_BYTES;

		if (!first)
			first = its;
		same &= memcmp(first, its, WEFT_HASH_BYTES) == 0;
		look = XXH3_64bits_withSeed(its, WEFT_HASH_BYTES, look);
	}
	*ret_look = look;
	return same;
}

static void say_progress(struct verify *v, uint64_t begin_ns)
{
	const uint64_t now_ns = weft_now_ns();
	char at[32], of[32];

	if (now_ns - begin_ns < PROGRESS_MS * NS_PER_MS ||
		(v->said_ns && now_ns - v->said_ns < PROGRESS_MS * NS_PER_MS))
		return;
	v->said_ns = now_ns;
	fprintf(stderr, "%sweft-verify: %s of %s compared%s", isatty(STDERR_FILENO) ? "\r" : "",
		weft_format_size(v->checked_bytes, at, sizeof(at)),
		weft_format_size(v->total_bytes, of, sizeof(of)),
		isatty(STDERR_FILENO) ? "\033[K" : "\n");
}

static int compare(struct verify *v, uint32_t visits, uint64_t begin_ns, struct weft_error *err)
{
	const uint64_t size = size_of(v, visits), range = range_of(v, visits);

	for (uint64_t off = 0; off < size && !v->too_many; off += range) {
		const uint64_t len = weft_min(range, size - off);
		int r = hash(v, visits, off, len, err);

		if (r < 0)
			return r;
		for (size_t n = 0; n * BLOCK < len && !v->too_many; n++) {
			struct suspect suspect = {
				.off = off + n * BLOCK, .since_ns = weft_now_ns()};

			if (is_same(v, visits, n, &suspect.look))
				continue;
			v->too_many = v->nr_suspects == MAX_SUSPECTS;
			if (!v->too_many)
				v->suspects[v->nr_suspects++] = suspect;
		}
		v->checked_bytes += len;
		say_progress(v, begin_ns);
	}
	return 0;
}

/* True: it is known what the block is. */
static int look_again(struct verify *v, uint32_t visits, uint64_t size, struct suspect *s,
	uint64_t begin_ns, bool *ret_settled, struct weft_error *err)
{
	uint64_t look, now_ns;
	int r = hash(v, visits, s->off, weft_min(BLOCK, size - s->off), err);

	if (r < 0)
		return r;
	now_ns = weft_now_ns();
	s->same = is_same(v, visits, 0, &look);
	if (look != s->look)
		s->since_ns = now_ns;
	s->look = look;
	s->wrong = !s->same && now_ns - s->since_ns > SETTLED_MS * NS_PER_MS;
	s->busy = !s->same && !s->wrong && now_ns - begin_ns > MAX_WAIT_MS * NS_PER_MS;
	*ret_settled = s->same || s->wrong || s->busy;
	return 0;
}

/* Until each block that differed is known to be the same, or wrong, or never quiet. */
static int look_at_suspects(struct verify *v, uint32_t visits, struct weft_error *err)
{
	const uint64_t begin_ns = weft_now_ns(), size = size_of(v, visits);
	unsigned left = v->nr_suspects;

	while (left > 0) {
		usleep(LOOK_MS * 1000);
		left = 0;
		for (unsigned i = 0; i < v->nr_suspects; i++) {
			struct suspect *s = &v->suspects[i];
			bool settled;

			if (s->same || s->wrong || s->busy)
				continue;
			int r = look_again(v, visits, size, s, begin_ns, &settled, err);
			if (r < 0)
				return r;
			left += !settled;
		}
	}
	return 0;
}

/* ---- repairing ---- */

/* The hash of the nth block of what was hashed last, at a visit. */
static const uint8_t *hash_at(const struct verify *v, unsigned visit, size_t nth)
{
	return (uint8_t *)v->look.visits[visit].buf + nth * WEFT_HASH_BYTES;
}

/* The copy that is right; -1: nobody can tell. */
static int right_copy(const struct verify *v, const struct copies_set *set, size_t nth)
{
	const uint32_t visits = visits_of(set);

	for (unsigned i = 0; i < set->count; i++) {
		const int at = set->at[i];
		int nr_like = 0;

		if (at < 0 || !(visits >> at & 1))
			continue;
		if (v->from >= 0 && at == v->from)
			return (int)i;
		for (unsigned j = 0; j < v->look.nr; j++)
			nr_like += visits >> j & 1 &&
				memcmp(hash_at(v, (unsigned)at, nth), hash_at(v, j, nth),
					WEFT_HASH_BYTES) == 0;
		if (v->from < 0 && 2 * nr_like > __builtin_popcount(visits))
			return (int)i;
	}
	return -1;
}

/* The bridge answers at once, and is asked until it is done. */
static int ask_to_repair(const struct verify *v, unsigned stripe, int copy, uint64_t off,
	uint64_t len, struct weft_error *err)
{
	const uint64_t end_ns = weft_now_ns() + REPAIR_MS * NS_PER_MS;
	char control[WEFT_NAME_MAX + 32];
	bool repaired = false;
	json_t *question = json_pack("{s:s, s:i, s:i, s:I, s:I}", "op", "repair", "stripe",
		(int)stripe, "copy", copy, "offset_bytes", (json_int_t)off, "length_bytes",
		(json_int_t)len);
	int r = 0;

	snprintf(control, sizeof(control), "attach-%s.sock", v->name);
	while (r == 0 && !repaired) {
		json_t *answer = NULL;

		r = weft_control_ask(control, question, ANSWER_MS, &answer, err);
		repaired = json_is_true(json_object_get(answer, "repaired"));
		json_decref(answer);
		if (r == 0 && !repaired && weft_now_ns() > end_ns)
			r = weft_error_set(err, ETIMEDOUT, "it took longer than %d s",
				REPAIR_MS / 1000);
	}
	json_decref(question);
	return r;
}

/* How many suspects from the first on are wrong, and lie side by side in one range. */
static unsigned nr_adjacent(const struct verify *v, unsigned first, uint64_t range)
{
	const struct suspect *s = &v->suspects[first];
	unsigned nr = 1;

	while (first + nr < v->nr_suspects && s[nr].wrong && (nr + 1) * (uint64_t)BLOCK <= range &&
		s[nr].off == s->off + nr * (uint64_t)BLOCK)
		nr++;
	return nr;
}

/* *io_nr suspects, which lie side by side: the first ones, for which the same copy is right. */
static int repair_some(struct verify *v, const struct copies_set *set, struct suspect *s,
	unsigned *io_nr, uint64_t size, struct weft_error *err)
{
	const uint32_t visits = visits_of(set);
	uint64_t len = weft_min(*io_nr * (uint64_t)BLOCK, size - s->off), look;
	unsigned nr = 1, nr_left = 0;
	int r = hash(v, visits, s->off, len, err);

	if (r < 0)
		return r;
	const int copy = right_copy(v, set, 0);
	while (nr < *io_nr && right_copy(v, set, nr) == copy)
		nr++;
	*io_nr = nr;
	if (copy < 0)
		return weft_error_set(err, ENODATA,
			"nobody can tell which copy is right: name its region with --from");
	len = weft_min(nr * (uint64_t)BLOCK, size - s->off);
	r = ask_to_repair(v, (unsigned)(set->at[copy] / (int)set->count), copy, s->off, len, err);
	if (r == 0)
		r = hash(v, visits, s->off, len, err);
	for (unsigned i = 0; i < nr && r == 0; i++) {
		s[i].repaired = is_same(v, visits, i, &look);
		nr_left += !s[i].repaired;
	}
	return nr_left > 0 ? weft_error_set(err, EIO, "it was repaired, and differs again") : r;
}

static void repair(struct verify *v, const struct copies_set *set, uint64_t size)
{
	const uint64_t range = range_of(v, visits_of(set));
	struct weft_error err;

	for (unsigned i = 0, nr; i < v->nr_suspects; i += nr) {
		nr = 1;
		if (!v->suspects[i].wrong)
			continue;
		nr = nr_adjacent(v, i, range);
		if (repair_some(v, set, &v->suspects[i], &nr, size, &err) < 0 && !v->why_not.code)
			v->why_not = err;
	}
}

/* ---- sets ---- */

static void count_suspects(struct verify *v, const struct copies_set *set, uint64_t size)
{
	uint64_t end = 0;
	json_t *range = NULL;

	for (unsigned i = 0; i < v->nr_suspects; i++) {
		const struct suspect *s = &v->suspects[i];
		const uint64_t len = weft_min(BLOCK, size - s->off);

		v->busy_bytes += s->busy ? len : 0;
		v->repaired_bytes += s->repaired ? len : 0;
		if (!s->wrong || s->repaired)
			continue;
		v->wrong_bytes += len;
		if (!range || end != s->off) {
			range = json_pack("{s:I, s:I}", "offset_bytes", (json_int_t)s->off,
				"length_bytes", (json_int_t)0);
			json_object_set_new(range, "set",
				json_sprintf("%016" PRIx64, set->set));
			json_array_append_new(v->ranges, range);
		}
		end = s->off + len;
		json_object_set_new(range, "length_bytes",
			json_integer(json_integer_value(json_object_get(range, "length_bytes")) +
				(json_int_t)len));
	}
}

/* The set as it is now, by its number; false: no donor knows it any more. */
static bool find_set(struct verify *v, uint64_t number, struct copies_set *ret)
{
	unsigned next = 0;

	copies_look_again(&v->look);
	while (copies_look_next(&v->look, &next, ret))
		if (ret->set == number)
			return true;
	return false;
}

static bool is_same_generation(const struct copies_set *a, const struct copies_set *b)
{
	for (unsigned i = 0; i < a->count; i++)
		if ((a->answer.members >> i & 1) &&
			(a->copies[i].said.term != b->copies[i].said.term ||
				a->copies[i].said.change != b->copies[i].said.change))
			return false;
	return a->answer.members == b->answer.members;
}

static int verify_set(struct verify *v, struct copies_set set, struct weft_error *err)
{
	const uint64_t begin_ns = weft_now_ns(), checked_bytes = v->checked_bytes;

	for (unsigned n = 0; n < MAX_TRIES; n++) {
		const uint32_t visits = visits_of(&set);
		struct copies_set now;

		if (set.answer.verdict != AGREE_GO_ON)
			return weft_error_set(err, ENODATA,
				"which copies of the set %016" PRIx64
				" are current is not known: see weft rescue --copies",
				set.set);
		if (__builtin_popcount(visits) < 2)
			return weft_error_set(err, ENODATA,
				"one copy of the set %016" PRIx64
				" is current, and there is nothing to compare it with",
				set.set);
		v->nr_suspects = 0;
		v->checked_bytes = checked_bytes;
		v->total_bytes = checked_bytes + size_of(v, visits);
		int r = compare(v, visits, begin_ns, err);
		if (r == 0)
			r = look_at_suspects(v, visits, err);
		if (r < 0)
			return r;
		if (!find_set(v, set.set, &now))
			return weft_error_set(err, ENOTCONN, "its donors do not answer any more");
		if (is_same_generation(&set, &now)) {
			if (v->options->repair)
				repair(v, &set, size_of(v, visits));
			count_suspects(v, &set, size_of(v, visits));
			return 0;
		}
		set = now;
	}
	return weft_error_set(err, EAGAIN, "its copies come and go: try again when they stay");
}

static int verify_all(struct verify *v, struct weft_error *err)
{
	struct copies_set set;
	unsigned next = 0, nr_sets = 0;
	int r = 0;

	v->hashing = (struct weft_hashing){.block_bytes = BLOCK};
	weft_random(v->hashing.key, sizeof(v->hashing.key));
	for (; r == 0 && copies_look_next(&v->look, &next, &set); nr_sets++)
		r = verify_set(v, set, err);
	if (r == 0 && nr_sets == 0)
		r = weft_error_set(err, ENODATA, "no donor that answers has a copy there");
	return r;
}

/* ---- what is said ---- */

static void report(const struct verify *v)
{
	char checked[32], wrong[32], busy[32];
	json_t *range;
	size_t i;

	if (v->options->json) {
		json_t *json = json_pack("{s:I, s:I, s:I, s:I, s:b, s:O}", "checked_bytes",
			(json_int_t)v->checked_bytes, "differing_bytes",
			(json_int_t)v->wrong_bytes, "repaired_bytes",
			(json_int_t)v->repaired_bytes, "unsettled_bytes",
			(json_int_t)v->busy_bytes, "given_up", (int)v->too_many, "ranges",
			v->ranges);

		json_dumpf(json, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(json);
		return;
	}
	json_array_foreach(v->ranges, i, range)
		printf("set %s: %" JSON_INTEGER_FORMAT " bytes from %" JSON_INTEGER_FORMAT
		       " on differ\n",
			json_string_value(json_object_get(range, "set")),
			json_integer_value(json_object_get(range, "length_bytes")),
			json_integer_value(json_object_get(range, "offset_bytes")));
	if (v->repaired_bytes)
		printf("%s differed, and were made the same\n",
			weft_format_size(v->repaired_bytes, wrong, sizeof(wrong)));
	printf("%s of each copy compared, %s%s%s%s\n",
		weft_format_size(v->checked_bytes, checked, sizeof(checked)),
		v->wrong_bytes ? weft_format_size(v->wrong_bytes, wrong, sizeof(wrong)) : "nothing",
		v->too_many ? " and more, since it was given up," : "",
		v->wrong_bytes ? " differ" : " differs", v->busy_bytes ? "; " : "");
	if (v->busy_bytes)
		printf("  %s were written all the time, and could not be compared\n",
			weft_format_size(v->busy_bytes, busy, sizeof(busy)));
}

/* ---- the command line ---- */

static const struct weft_option options[] = {
	{NULL, "NAME|URI", "an attachment, or the regions that are copies", WEFT_OPTION_ARGUMENT,
		.completion = WEFT_COMPLETE_ATTACHMENT},
	{"repair", NULL, "make the copies of an attachment the same, as most of them have it",
		WEFT_OPTION_FLAG, .into = offsetof(struct verify_options, repair)},
	{"from", "URI", "… or as this one of its regions has it", WEFT_OPTION_TEXT,
		.into = offsetof(struct verify_options, from), .completion = WEFT_COMPLETE_URI},
	{"json", NULL, "say as JSON what was found", WEFT_OPTION_FLAG,
		.into = offsetof(struct verify_options, json)},
	{"key", "FILE",
		"the key that the donors know (default: $WEFT_KEY,\n"
		"~/.config/weft/key, /etc/weft/key)",
		WEFT_OPTION_TEXT, .into = offsetof(struct verify_options, key_file),
		.completion = WEFT_COMPLETE_FILE},
	{"allow-insecure", NULL, "use no key: in plaintext, with a donor that proves nothing",
		WEFT_OPTION_FLAG, .into = offsetof(struct verify_options, allow_insecure)},
	{0},
};

/* WEFT_GO_ON, or the exit status. */
static int parse(int argc, char **argv, struct verify_options *o, char ***ret, unsigned *ret_nr)
{
	struct weft_command_line line = {
		.command = "verify",
		.synopsis = "NAME|URI... [--repair [--from URI]] [--json] [--key FILE | "
			    "--allow-insecure]",
		.about = "Compares the current copies of a device, whether it is attached and "
			 "written, or not.",
		.tables = {{options, o}},
	};
	int r = weft_options_parse(&line, argc, argv);

	if (r != WEFT_GO_ON)
		return r;
	*ret = line.arguments;
	*ret_nr = (unsigned)line.nr_arguments;
	if (*ret_nr == 0)
		return weft_usage_error("which copies? Give an attachment, or the URI of each");
	if (*ret_nr > BRIDGE_MAX_DONORS)
		return weft_usage_error("at most %d URIs", BRIDGE_MAX_DONORS);
	if (o->from && !o->repair)
		return weft_usage_error("--from is for --repair");
	if (o->repair && (*ret_nr > 1 || strstr((*ret)[0], "://")))
		return weft_usage_error("--repair is for an attachment, by its name: who keeps "
					"the copies repairs them");
	return WEFT_GO_ON;
}

/* The regions of an attachment, and its key. */
static int open_name(struct verify *v, const char *name, struct weft_error *err)
{
	char *uris[BRIDGE_MAX_DONORS], *at;
	struct bridge_state_file state;
	unsigned nr = 0;
	bool alive;
	int r = bridge_state_peek(name, &state, &alive, err);

	if (r < 0)
		return weft_error_set(err, ENOENT,
			"there is no attachment '%s'; weft status shows all attachments", name);
	for (char *uri = state.uri ? strtok_r(state.uri, " ", &at) : NULL;
		uri && nr < state.nr_donors && nr < BRIDGE_MAX_DONORS;
		uri = strtok_r(NULL, " ", &at)) {
		uris[nr] = state.donors[nr].at[0] ? state.donors[nr].at : uri;
		nr++;
	}
	r = state.copies < 2
		? weft_error_set(err, EINVAL, "'%s' has no copies: it is not of --mirror", name)
		: copies_look_open(&v->look, uris, nr,
			  v->options->key_file ? v->options->key_file : state.key_file,
			  v->options->allow_insecure || !state.key_file,
			  HASHES * WEFT_HASH_BYTES, err);
	bridge_state_fini(&state);
	return r;
}

static int find_from(struct verify *v, struct weft_error *err)
{
	struct weft_uri from;
	int r;

	v->from = -1;
	if (!v->options->from)
		return 0;
	r = weft_uri_parse(v->options->from, &from, err);
	for (unsigned i = 0; r == 0 && i < v->look.nr; i++)
		if (weft_uri_is_same_region(&v->look.uris[i], &from))
			v->from = (int)i;
	weft_uri_fini(&from);
	return r == 0 && v->from < 0
		? weft_error_set(err, EINVAL, "--from: '%s' is no region of '%s'",
			  v->options->from, v->name)
		: r;
}

int main(int argc, char **argv)
{
	static struct verify verify;
	struct verify_options o = {0};
	struct weft_error err = {0};
	unsigned nr;
	char **what;

	weft_process_begin();
	int r = parse(argc, argv, &o, &what, &nr);
	if (r != WEFT_GO_ON)
		return r;
	verify.options = &o;
	verify.ranges = json_array();
	weft_patience_begin("weft-verify: waiting for its donors, up to %d s",
		2 * COPIES_LOOK_MS / 1000);
	verify.name = nr == 1 && !strstr(what[0], "://") ? what[0] : NULL;
	if (verify.name)
		r = open_name(&verify, verify.name, &err);
	else
		r = copies_look_open(&verify.look, what, nr, o.key_file, o.allow_insecure,
			HASHES * WEFT_HASH_BYTES, &err);
	weft_patience_end();
	if (r == 0)
		r = find_from(&verify, &err);
	if (r == 0)
		r = verify_all(&verify, &err);
	if (verify.said_ns && isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	if (r < 0)
		fprintf(stderr, "weft-verify: %s\n", err.message);
	else
		report(&verify);
	if (verify.why_not.code)
		fprintf(stderr, "weft-verify: not repaired: %s\n", verify.why_not.message);
	copies_look_close(&verify.look);
	json_decref(verify.ranges);
	return weft_end_output("weft-verify", r < 0 ? 1 : verify.wrong_bytes ? DIFFERS : 0);
}
