/* SPDX-License-Identifier: MIT */
/* A look at regions that may be copies; see copies-look.h. */
#include "nbd-bridge/main/copies-look.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"

static int parse_uris(struct copies_look *look, char *const *uris, unsigned nr,
	struct weft_error *err)
{
	for (; look->nr < nr; look->nr++) {
		struct weft_uri *uri = &look->uris[look->nr];
		int r = weft_uri_parse(uris[look->nr], uri, err);

		if (r < 0)
			return r;
		look->texts[look->nr] = weft_uri_format(uri);
		look->find.donors[look->nr].uri = uri;
		if (uri->transport)
			look->find.choice = uri->transport;
		if (uri->foreign || !uri->region[0]) {
			look->nr++;
			return weft_error_set(err, EINVAL,
				"'%s' names no region of a weft donor, such as weft://HOST/REGION",
				uris[look->nr - 1]);
		}
	}
	return 0;
}

int copies_look_open(struct copies_look *look, char *const *uris, unsigned nr,
	const char *key_file, bool allow_insecure, size_t buf_bytes, struct weft_error *err)
{
	const struct weft_hello hello = {.generation = UINT64_C(1) << 32,
		.mode = WEFT_MODE_SHARED,
		.name = "weft-look",
		.copies = true};
	int r = parse_uris(look, uris, nr, err);

	if (r < 0)
		return r;
	look->find.key_file = key_file;
	look->find.allow_insecure = allow_insecure;
	r = bridge_find_keys(&look->find, nr, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < nr; i++) {
		bridge_find_first_way(&look->find.donors[i], look->find.choice, &look->donors[i]);
		look->visits[i].donor = &look->donors[i];
	}
	visits_open(look->visits, nr, &hello, weft_max(buf_bytes, WEFT_COPIES_BYTES),
		COPIES_LOOK_MS);
	copies_look_again(look);
	return 0;
}

unsigned copies_look_again(struct copies_look *look)
{
	return visits_ask(look->visits, look->nr,
		&(struct weft_copies_asked){.action = WEFT_COPIES_ASK}, COPIES_LOOK_MS);
}

void copies_look_close(struct copies_look *look)
{
	visits_close(look->visits, look->nr);
	bridge_find_fini(&look->find);
	for (unsigned i = 0; i < look->nr; i++) {
		weft_uri_fini(&look->uris[i]);
		free(look->texts[i]);
	}
}

static uint64_t set_of(const struct copies_look *look, unsigned i)
{
	return visit_is_open(&look->visits[i]) ? look->visits[i].answer.of.set : 0;
}

static bool is_first_of_set(const struct copies_look *look, unsigned i)
{
	if (!set_of(look, i))
		return false;
	for (unsigned j = 0; j < i; j++)
		if (set_of(look, j) == set_of(look, i))
			return false;
	return true;
}

static void put(struct copies_set *set, const struct copies_look *look, unsigned copy, unsigned i)
{
	const struct bridge_visit *visit = &look->visits[i];

	set->at[copy] = (int)i;
	set->copies[copy] = (struct agree_copy){.answers = visit_is_open(visit),
		.epoch = visit->info.epoch,
		.said = visit->answer};
}

/* Of two regions that have been the same copy the one with newer notes is it. */
static bool is_newer(const struct copies_look *look, unsigned i, unsigned than)
{
	const struct weft_copies_answer *a = &look->visits[i].answer;
	const struct weft_copies_answer *b = &look->visits[than].answer;

	return a->term != b->term ? a->term > b->term : a->change > b->change;
}

static void fill(const struct copies_look *look, unsigned first, bool alone,
	struct copies_set *ret)
{
	const struct weft_copy_of *of = &look->visits[first].answer.of;

	*ret = (struct copies_set){.set = of->set, .count = of->count, .min = of->min};
	for (unsigned copy = 0; copy < WEFT_COPIES_MAX; copy++)
		ret->at[copy] = -1;
	for (unsigned i = 0; i < look->nr; i++) {
		const struct weft_copy_of *its = &look->visits[i].answer.of;

		if (set_of(look, i) == of->set && its->index <= ret->count &&
			(ret->at[its->index - 1] < 0 ||
				is_newer(look, i, (unsigned)ret->at[its->index - 1])))
			put(ret, look, its->index - 1U, i);
	}
	for (unsigned i = 0, copy = 0; alone && i < look->nr; i++) {
		if (set_of(look, i))
			continue;
		while (copy < ret->count && ret->at[copy] >= 0)
			copy++;
		if (copy < ret->count)
			put(ret, look, copy, i);
	}
	agree(ret->copies, ret->count, ret->min, NULL, &ret->answer);
}

bool copies_look_next(const struct copies_look *look, unsigned *io_next, struct copies_set *ret)
{
	unsigned nr_sets = 0;

	for (unsigned i = 0; i < look->nr; i++)
		nr_sets += is_first_of_set(look, i);
	while (*io_next < look->nr && !is_first_of_set(look, *io_next))
		(*io_next)++;
	if (*io_next >= look->nr)
		return false;
	fill(look, (*io_next)++, nr_sets == 1, ret);
	return true;
}
