/* SPDX-License-Identifier: MIT */
/*
 * Copies of a device: which of them are current, as their donors say (nbd-bridge/link/agree.h).
 * All donors are asked once before anything is granted: then a refusal leaves no trace at them.
 * They are asked again once they have granted their regions, and that decides.  Main thread, but
 * for attach_note_copies().
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "nbd-bridge/bridge/copies.h"
#include "nbd-bridge/bridge/visit.h"
#include "nbd-bridge/link/agree.h"
#include "nbd-bridge/main/attach.h"

enum {
	ASK_MS = 5000,
	MAX_CLAIMS = 8, /* of a term, while others claim theirs */
	TEXT_MAX = 320, /* the advice behind it has to fit into the message */
};

/* A set of copies, and what its donors say; whys: why some say nothing. */
struct asked_set {
	const struct attach *attach;
	unsigned index, count, min, first; /* first: its first donor */
	struct agree_copy copies[WEFT_COPIES_MAX];
	struct weft_error whys[WEFT_COPIES_MAX];
};

static unsigned nr_sets(const struct attach *a)
{
	return a->options.nr_donors / a->options.copies;
}

static void begin(struct asked_set *s, const struct attach *a, unsigned index)
{
	memset(s, 0, sizeof(*s));
	s->attach = a;
	s->index = index;
	s->count = a->options.copies;
	s->min = a->options.min_copies;
	s->first = index * s->count;
}

/* What the bridge before knew; false: nothing. */
static bool find_known(const struct asked_set *s, struct agree_known *ret)
{
	const struct bridge_state_file *state = &s->attach->state;
	const struct bridge_copies_known *set = &state->sets[s->index];

	*ret = (struct agree_known){.set = set->set,
		.term = set->term,
		.change = set->change,
		.members = set->members};
	memcpy(ret->regions, set->regions, sizeof(ret->regions));
	for (unsigned i = 0; i < s->count; i++)
		ret->epochs[i] = state->donors[s->first + i].epoch;
	return set->set != 0;
}

/* ---- refusals ---- */

static void add(char *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(char *text, const char *fmt, ...)
{
	size_t len = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + len, TEXT_MAX - len, fmt, ap);
	va_end(ap);
}

/* "weft://a/r: generation 2.1 (copies 1, 2); weft://b/r: no answer within 5 s". */
static void describe(const struct asked_set *s, uint16_t replaced, char *text)
{
	text[0] = '\0';
	for (unsigned i = 0; i < s->count; i++) {
		const struct weft_copies_answer *said = &s->copies[i].said;
		char generation[AGREE_GENERATION_MAX];

		add(text, "%s%s: ", i ? "; " : "",
			attach_uri_now(s->attach, s->first + i));
		if (!s->copies[i].answers) {
			add(text, "%s", s->whys[i].code ? s->whys[i].message : "not granted");
			continue;
		}
		add(text, "generation %s", agree_generation(said, generation));
		for (unsigned j = 0; said->term && j < s->count; j++)
			if (said->members >> j & 1)
				add(text, "%s%u",
					(said->members & ((1U << j) - 1)) ? ", " : " (copies ",
					j + 1);
		add(text, said->term ? ")" : "");
		add(text, replaced >> i & 1 ? ", replaced since" : "");
	}
}

static int refuse_too_few(const struct asked_set *s, const struct agree_answer *answer,
	struct weft_error *err)
{
	const bool waits = answer->verdict == AGREE_WAIT;
	char text[TEXT_MAX];

	describe(s, answer->replaced, text);
	if (answer->of_current)
		return weft_error_set(err, waits ? EAGAIN : ENODATA,
			"%u current cop%s there, and %u %s needed: %s; see weft rescue --copies",
			answer->nr_count, answer->nr_count == 1 ? "y is" : "ies are",
			answer->nr_needed, answer->nr_needed == 1 ? "is" : "are", text);
	return weft_error_set(err, waits ? EAGAIN : ENODATA,
		"which copies are current is not known: %u of their donors say%s what they have "
		"noted, and %u are needed: %s; see weft rescue --copies",
		answer->nr_count, answer->nr_count == 1 ? "s" : "", answer->nr_needed, text);
}

static int refuse(const struct asked_set *s, const struct agree_answer *answer,
	struct weft_error *err)
{
	const struct weft_copy_of *of = &s->copies[answer->about].said.of;
	const char *uri = attach_uri_now(s->attach, s->first + answer->about);

	switch (answer->verdict) {
	case AGREE_STALE:
		return weft_error_set(err, ESTALE,
			"%s was told more of these copies than is known here: another has "
			"attached them since, or the attachment's state is an older one", uri);
	case AGREE_USED:
		return weft_error_set(err, EEXIST,
			"%s may have been written, and copies are made of regions that never "
			"were; to make copies of what one of them holds: --from URI",
			uri);
	case AGREE_NOT_ALIKE:
		return weft_error_set(err, EINVAL,
			"%s is copy %u of %u of the set %016" PRIx64
			", with at least %u current, and is meant to be copy %u of %u with at "
			"least %u: name the same regions in the same order as before; see weft "
			"rescue --copies",
			uri, of->index, of->count, of->set, of->min, answer->about + 1, s->count,
			s->min);
	default:
		return refuse_too_few(s, answer, err);
	}
}

/* ---- before anything is granted ---- */

static bool all_answer(const struct asked_set *s)
{
	for (unsigned i = 0; i < s->count; i++)
		if (!s->copies[i].answers)
			return false;
	return true;
}

/* A new set has what one region holds: the others need not answer for anything but themselves. */
static int check_from(const struct asked_set *s, const struct agree_answer *answer,
	struct weft_error *err)
{
	char text[TEXT_MAX];

	if (answer->verdict == AGREE_GO_ON)
		return weft_error_set(err, EEXIST,
			"these are copies already, and enough of them are current: attach them "
			"without --from");
	if (all_answer(s))
		return 0;
	describe(s, 0, text);
	return weft_error_set(err, EAGAIN,
		"--from makes new copies, and all donors have to answer: %s; to leave one out, "
		"name another region in its place",
		text);
}

static int judge_before(struct attach *a, const struct asked_set *s, struct weft_error *err)
{
	struct agree_known known;
	struct agree_answer answer;
	const bool knows = find_known(s, &known);

	for (unsigned i = 0; i < s->count; i++)
		a->has_other_contents[s->first + i] = knows && s->copies[i].answers &&
			s->copies[i].epoch != known.epochs[i];
	agree(s->copies, s->count, s->min, knows ? &known : NULL, &answer);
	if (a->options.from)
		return check_from(s, &answer, err);
	if (answer.verdict == AGREE_GO_ON || answer.verdict == AGREE_MAKE)
		return 0;
	int r = refuse(s, &answer, err);
	/* No donor has what the device's users remember. */
	if (knows && answer.verdict == AGREE_LOST) {
		err->code = ESTALE;
		return -ESTALE;
	}
	return r;
}

int attach_ask_copies(struct attach *a, struct weft_error *err)
{
	const unsigned nr = a->options.nr_donors;
	struct bridge_donor_config donors[BRIDGE_MAX_DONORS] = {0};
	struct bridge_visit visits[BRIDGE_MAX_DONORS] = {0};
	struct weft_hello hello = {.generation = UINT64_C(1) << 32,
		.mode = WEFT_MODE_SHARED,
		.copies = true};
	int r = 0;

	if (a->options.copies == 1)
		return 0;
	strcpy(hello.name, a->options.name);
	for (unsigned i = 0; i < nr; i++) {
		bridge_find_first_way(&a->find.donors[i], a->find.choice, &donors[i]);
		visits[i].donor = &donors[i];
	}
	visits_open(visits, nr, &hello, WEFT_COPIES_BYTES, ASK_MS);
	visits_ask(visits, nr, &(struct weft_copies_asked){.action = WEFT_COPIES_ASK}, ASK_MS);
	for (unsigned index = 0; index < nr_sets(a) && r == 0; index++) {
		struct asked_set s;

		begin(&s, a, index);
		for (unsigned i = 0; i < s.count; i++) {
			const struct bridge_visit *visit = &visits[s.first + i];

			s.whys[i] = visit->why;
			s.copies[i] = (struct agree_copy){.answers = visit_is_open(visit),
				.epoch = visit->info.epoch,
				.said = visit->answer};
		}
		r = judge_before(a, &s, err);
	}
	visits_close(visits, nr);
	return r;
}

bool attach_copy_remembers(const struct attach *a, unsigned donor)
{
	const struct bridge_copies_known *set;

	if (a->options.copies == 1)
		return true;
	set = &a->state.sets[donor / a->options.copies];
	return set->set && (set->members >> donor % a->options.copies & 1) &&
		!a->has_other_contents[donor];
}

unsigned attach_copies_needed(const struct attach *a)
{
	const struct attach_options *o = &a->options;

	if (o->from)
		return o->copies;
	for (unsigned i = 0; i < nr_sets(a); i++)
		if (!a->state.sets[i].set)
			return o->copies - o->min_copies + 1;
	return o->min_copies;
}

/* ---- once the donors have granted ---- */

/* Asks all that have granted.  Those that do not answer do not count. */
static void ask_all(struct asked_set *s, struct bridge *bridge,
	const struct weft_copies_asked *asked)
{
	for (unsigned i = 0; i < s->count; i++) {
		struct agree_copy *copy = &s->copies[i];
		const struct bridge_peer *peer = &bridge_attachment(bridge)->peers[s->first + i];

		copy->answers = bridge_copies_granted(bridge, s->first + i, &s->whys[i]) &&
			bridge_copies_ask(bridge, s->first + i, asked, &copy->said, &s->whys[i]) ==
				0;
		copy->epoch = peer->info.epoch;
	}
}

/* A term that is ours at all that answer. */
static int claim(struct asked_set *s, struct bridge *bridge, uint64_t *ret_term,
	struct weft_error *err)
{
	for (unsigned n = 0; n < MAX_CLAIMS; n++) {
		const uint64_t term = agree_next_term(s->copies, s->count);
		bool ours = true;

		ask_all(s, bridge,
			&(struct weft_copies_asked){.action = WEFT_COPIES_CLAIM, .term = term});
		for (unsigned i = 0; i < s->count; i++)
			ours &= !s->copies[i].answers ||
				(s->copies[i].said.mine && s->copies[i].said.claimed == term);
		*ret_term = term;
		if (ours)
			return 0;
	}
	return weft_error_set(err, EAGAIN, "others attach these copies at the same time");
}

/* Each copy notes that the set is being made, before one notes a generation. */
static int make(struct asked_set *s, struct bridge *bridge, const struct bridge_copies_known *set,
	struct weft_error *err)
{
	for (unsigned i = 0; i < s->count; i++) {
		const struct weft_copies_asked asked = {.action = WEFT_COPIES_MAKE,
			.of = {.set = set->set,
				.index = (uint8_t)(i + 1),
				.count = (uint8_t)s->count,
				.min = (uint8_t)s->min},
			.term = set->term};
		struct weft_copies_answer said;
		int r = bridge_copies_ask(bridge, s->first + i, &asked, &said, err);

		if (r < 0)
			return r;
		if (said.of.set != set->set)
			return weft_error_set(err, EAGAIN, "%s is made a copy by another",
				attach_uri_now(s->attach, s->first + i));
	}
	return 0;
}

/* A write needs so many; the others are made copies afterwards. */
static uint16_t first_members(const struct asked_set *s)
{
	uint16_t members = (uint16_t)(1U << s->attach->options.from_copy);

	for (unsigned i = 0; (unsigned)__builtin_popcount(members) < s->min; i++)
		members |= (uint16_t)(1U << i);
	return members;
}

static int settle_new(struct asked_set *s, struct bridge *bridge, struct bridge_copies_known *ret,
	struct weft_error *err)
{
	struct agree_answer answer;
	int r = claim(s, bridge, &ret->term, err);

	if (r < 0)
		return r;
	if (s->attach->options.from) {
		r = check_from(s, &(struct agree_answer){.verdict = AGREE_USED}, err);
		ret->set = weft_random_name();
		ret->members = first_members(s);
		ret->source = (uint16_t)(1U << s->attach->options.from_copy);
		ret->same = true;
		return r;
	}
	agree(s->copies, s->count, s->min, NULL, &answer);
	ret->set = answer.set;
	ret->members = answer.members;
	memcpy(ret->regions, answer.regions, sizeof(ret->regions));
	ret->same = !answer.differ;
	if (answer.verdict == AGREE_GO_ON)
		return 0;
	if (answer.verdict != AGREE_MAKE)
		return refuse(s, &answer, err);
	ret->set = weft_random_name();
	return make(s, bridge, ret, err);
}

static int settle_known(struct asked_set *s, const struct agree_known *known,
	struct bridge_copies_known *ret, struct weft_error *err)
{
	struct agree_answer answer;

	agree(s->copies, s->count, s->min, known, &answer);
	if (answer.verdict != AGREE_GO_ON)
		return refuse(s, &answer, err);
	*ret = (struct bridge_copies_known){.set = answer.set,
		.term = answer.term,
		.change = known->change,
		.members = answer.members,
		.same = !answer.differ};
	memcpy(ret->regions, answer.regions, sizeof(ret->regions));
	return 0;
}

int attach_settle_copies(void *ctx, struct bridge *bridge, struct bridge_copies_known *known,
	struct weft_error *err)
{
	struct attach *a = ctx;
	int r = 0;

	for (unsigned index = 0; index < nr_sets(a) && r == 0; index++) {
		struct agree_known before;
		struct asked_set s;

		begin(&s, a, index);
		known[index] = (struct bridge_copies_known){0};
		ask_all(&s, bridge, &(struct weft_copies_asked){.action = WEFT_COPIES_ASK});
		r = find_known(&s, &before) ? settle_known(&s, &before, &known[index], err)
					    : settle_new(&s, bridge, &known[index], err);
	}
	return r;
}

/* ---- changes ---- */

struct noted_copies {
	unsigned set;
	const struct bridge_copies_known *known;
};

static void change_copies(struct attach *a, void *ctx)
{
	const struct noted_copies *noted = ctx;
	struct bridge_attachment *attachment = bridge_attachment(a->bridge);
	const unsigned first = noted->set * a->options.copies;

	a->state.sets[noted->set] = *noted->known;
	pthread_mutex_lock(&attachment->lock);
	for (unsigned i = 0; i < a->options.copies; i++)
		if (noted->known->members >> i & 1)
			a->state.donors[first + i].epoch = attachment->peers[first + i].info.epoch;
	pthread_mutex_unlock(&attachment->lock);
}

int attach_note_copies(void *ctx, unsigned set, const struct bridge_copies_known *known)
{
	struct noted_copies noted = {set, known};
	struct weft_error err;
	int r = attach_save_state(ctx, change_copies, &noted, &err);

	if (r < 0)
		weft_warn("%s", err.message);
	return r;
}
