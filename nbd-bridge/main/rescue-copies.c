/* SPDX-License-Identifier: MIT */
/*
 * weft rescue --copies: asks the donors what they have noted, and says which copies are current and
 * what can be done.  It changes nothing.  One thread.
 */
#include "nbd-bridge/main/rescue-copies.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/patience.h"
#include "fabric/base/util.h"
#include "nbd-bridge/main/copies-look.h"

enum { NUMBERS_MAX = 64 };

/* "1, 2" for a set of copies. */
static const char *numbers(uint16_t copies, char *ret)
{
	size_t at = 0;

	ret[0] = '\0';
	for (unsigned i = 0; i < WEFT_COPIES_MAX; i++)
		if (copies >> i & 1)
			at += (size_t)snprintf(ret + at, NUMBERS_MAX - at, "%s%u", at ? ", " : "",
				i + 1);
	return ret;
}

static const char *verdict_of(const struct copies_set *set)
{
	static const char *const verdicts[] = {[AGREE_GO_ON] = "current",
		[AGREE_MAKE] = "unwritten",
		[AGREE_WAIT] = "wait",
		[AGREE_LOST] = "lost",
		[AGREE_NOT_ALIKE] = "not alike",
		[AGREE_USED] = "lost",
		[AGREE_STALE] = "lost"};

	return verdicts[set->answer.verdict];
}

static int status_of(const struct copies_set *set)
{
	switch (set->answer.verdict) {
	case AGREE_GO_ON:
	case AGREE_MAKE:
		return 0;
	case AGREE_WAIT:
		return RESCUE_COPIES_WAIT;
	default:
		return RESCUE_COPIES_LOST;
	}
}

/* ---- for people ---- */

/* A line for each region, whatever it is. */
static void print_regions(const struct copies_look *look)
{
	size_t width = strlen("REGION");

	for (unsigned i = 0; i < look->nr; i++)
		width = weft_max(width, strlen(look->texts[i]));
	printf("%-*s  COPY  GENERATION  CURRENT THEN  NOTED\n", (int)width, "REGION");
	for (unsigned i = 0; i < look->nr; i++) {
		const struct bridge_visit *visit = &look->visits[i];
		const struct weft_copies_answer *said = &visit->answer;
		char generation[AGREE_GENERATION_MAX], copy[16], list[NUMBERS_MAX];

		printf("%-*s  ", (int)width, look->texts[i]);
		if (!visit_is_open(visit)) {
			printf("?     no answer: %s\n", visit->why.message);
			continue;
		}
		if (!said->of.set) {
			printf("-     notes nothing%s\n",
				said->foreign ? ", and has been used alone" : "");
			continue;
		}
		snprintf(copy, sizeof(copy), "%u/%u", said->of.index, said->of.count);
		printf("%-4s  %-10s  %-12s  %s\n", copy, agree_generation(said, generation),
			said->term ? numbers(said->members, list) : "-",
			said->ended         ? "a goodbye"
				: said->term ? "no goodbye"
					     : "that the set is being made");
	}
}

/* "weft attach URI… --mirror 2 --min-copies 1". */
static void print_attach(const struct copies_look *look, const struct copies_set *set)
{
	printf("weft attach");
	for (unsigned i = 0; i < set->count; i++)
		printf(" %s", set->at[i] < 0 ? "URI" : look->texts[set->at[i]]);
	printf(" --mirror %u --min-copies %u", set->count, set->min);
}

/* The copy with the newest notes: the likeliest choice, and no more than that. */
static int newest_of(const struct copies_set *set)
{
	int newest = -1;

	for (unsigned i = 0; i < set->count; i++) {
		const struct weft_copies_answer *said = &set->copies[i].said, *best;

		if (!set->copies[i].answers || !said->of.set)
			continue;
		best = newest < 0 ? NULL : &set->copies[newest].said;
		if (!best || said->term > best->term ||
			(said->term == best->term && said->change > best->change))
			newest = (int)i;
	}
	return newest;
}

static void print_choice(const struct copies_look *look, const struct copies_set *set)
{
	const int newest = newest_of(set);

	if (newest < 0)
		return;
	printf("  copy %d has the newest notes of those that answer, which need not be the newest "
	       "there were\n"
	       "  to make copies of what it holds, and give up what the others hold: weft attach",
		newest + 1);
	for (unsigned i = 0; i < set->count; i++)
		printf(" %s", set->at[i] < 0 ? "URI" : look->texts[set->at[i]]);
	printf(" --mirror %u --min-copies 1 --from %s …\n", set->count,
		look->texts[set->at[newest]]);
}

static void print_verdict(const struct copies_look *look, const struct copies_set *set)
{
	const struct agree_answer *answer = &set->answer;
	char list[NUMBERS_MAX];

	printf("set %016" PRIx64 ": ", set->set);
	switch (answer->verdict) {
	case AGREE_GO_ON:
		printf("current: %s of %u%s; attach with: ", numbers(answer->members, list),
			set->count,
			answer->differ ? ", which are made the same first" : "");
		print_attach(look, set);
		printf(" …\n");
		break;
	case AGREE_MAKE:
		printf("nothing was ever written; attach with: ");
		print_attach(look, set);
		printf(" …\n");
		break;
	case AGREE_WAIT:
		printf("%u cop%s there%s, and %u %s needed: bring back, or name, the others\n",
			answer->nr_count, answer->nr_count == 1 ? "y is" : "ies are",
			answer->of_current ? " that are current" : " with notes",
			answer->nr_needed, answer->nr_needed == 1 ? "is" : "are");
		print_choice(look, set);
		break;
	case AGREE_NOT_ALIKE:
		printf("%s is another copy, or of another number of copies, than it is meant to "
		       "be\n",
			set->at[answer->about] < 0 ? "a region"
						   : look->texts[set->at[answer->about]]);
		break;
	default:
		printf("which copies are current is not known: a donor that notes nothing has lost "
		       "its memory\n");
		print_choice(look, set);
	}
}

/* ---- JSON ---- */

static json_t *numbers_json(uint16_t copies)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < WEFT_COPIES_MAX; i++)
		if (copies >> i & 1)
			json_array_append_new(list, json_integer(i + 1));
	return list;
}

static json_t *region_json(const struct copies_look *look, unsigned i)
{
	const struct bridge_visit *visit = &look->visits[i];
	const struct weft_copies_answer *said = &visit->answer;
	const bool answers = visit_is_open(visit), has_set = answers && said->of.set;
	char generation[AGREE_GENERATION_MAX];
	json_t *json = json_pack("{s:s, s:b, s:s?}", "uri", look->texts[i], "answers",
		(int)answers, "error", answers ? NULL : visit->why.message);

	json_object_set_new(json, "set",
		has_set ? json_sprintf("%016" PRIx64, said->of.set) : json_null());
	json_object_set_new(json, "copy", has_set ? json_integer(said->of.index) : json_null());
	json_object_set_new(json, "generation",
		has_set && said->term ? json_string(agree_generation(said, generation))
				      : json_null());
	json_object_set_new(json, "members",
		has_set && said->term ? numbers_json(said->members) : json_null());
	json_object_set_new(json, "goodbye", json_boolean(has_set && said->ended));
	json_object_set_new(json, "used_alone", json_boolean(answers && said->foreign));
	return json;
}

static json_t *set_json(const struct copies_set *set)
{
	json_t *json = json_pack("{s:i, s:i, s:s, s:b}", "copies", (int)set->count, "min_copies",
		(int)set->min, "verdict", verdict_of(set), "differ", (int)set->answer.differ);

	json_object_set_new(json, "set", json_sprintf("%016" PRIx64, set->set));
	json_object_set_new(json, "current",
		numbers_json(set->answer.verdict == AGREE_GO_ON ? set->answer.members : 0));
	return json;
}

static void print_json(const struct copies_look *look)
{
	json_t *json = json_object(), *regions = json_array(), *sets = json_array();
	struct copies_set set;
	unsigned next = 0;

	for (unsigned i = 0; i < look->nr; i++)
		json_array_append_new(regions, region_json(look, i));
	while (copies_look_next(look, &next, &set))
		json_array_append_new(sets, set_json(&set));
	json_object_set_new(json, "regions", regions);
	json_object_set_new(json, "sets", sets);
	json_dumpf(json, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(json);
}

int rescue_copies(const struct rescue_copies *o, char *const *uris, unsigned nr)
{
	static struct copies_look look;
	struct weft_error err = {0};
	struct copies_set set;
	unsigned next = 0, nr_sets = 0;
	int status = 0;

	weft_patience_begin("weft-rescue: waiting for %u donor%s, up to %d s", nr,
		nr == 1 ? "" : "s", 2 * COPIES_LOOK_MS / 1000);
	int r = copies_look_open(&look, uris, nr, o->key_file, o->allow_insecure, 0, &err);
	weft_patience_end();
	if (r < 0) {
		fprintf(stderr, "weft-rescue: %s\n", err.message);
		status = 1;
		goto close;
	}
	if (o->json)
		print_json(&look);
	else
		print_regions(&look);
	while (copies_look_next(&look, &next, &set)) {
		int one = status_of(&set);

		nr_sets++;
		status = one > status ? one : status;
		if (!o->json)
			print_verdict(&look, &set);
	}
	if (nr_sets == 0) {
		fprintf(stderr, "weft-rescue: no donor that answers has a copy there\n");
		status = 1;
	}
close:
	copies_look_close(&look);
	return status;
}
