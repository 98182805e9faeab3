/* SPDX-License-Identifier: MIT */
/* The regions of a donor, for weft move --all.  The donor is another machine's program. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/main/move-job.h"

enum { MAX_REGIONS = 65536 };

static int read_all(const json_t *regions, const struct weft_uri *donor, struct weft_uri *uris,
	unsigned *ret_nr, struct weft_error *err)
{
	const json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach(regions, i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));
		struct weft_uri place = *donor;

		if (!name || !*name)
			return weft_error_set(err, EPROTO,
				"the donor's answer has no proper 'name'");
		/* The URI of the region has what it points to for itself. */
		WEFT_CLEANUP_FREE char *region = strdup(name);
		place.region = region;
		WEFT_CLEANUP_FREE char *text = region ? weft_uri_format(&place) : NULL;
		r = text ? weft_uri_parse(text, &uris[*ret_nr], err)
			 : weft_error_set(err, ENOMEM, "no memory");
		if (r < 0)
			return r;
		++*ret_nr;
	}
	return 0;
}

int move_list_all(const struct move_options *options, const struct weft_uri *donor,
	struct weft_uri **ret, unsigned *ret_nr, struct weft_error *err)
{
	struct move_donor asked;
	json_t *answer = NULL;
	unsigned nr = 0;
	int r = move_donor_begin(donor, &options->keys, &asked, err);

	if (r == 0)
		r = move_donor_ask(&asked, json_pack("{s:s}", "op", "regions"), MOVE_ANSWER_MS,
			move_until_interrupted(), &answer, err);
	const json_t *regions = json_object_get(answer, "regions");
	if (r == 0 && (!json_is_array(regions) || json_array_size(regions) > MAX_REGIONS))
		r = weft_error_set(err, EPROTO, "%s: its answer has no proper 'regions'",
			asked.name);
	struct weft_uri *uris = r == 0 ? calloc(json_array_size(regions) + 1, sizeof(*uris)) : NULL;
	if (r == 0)
		r = uris ? read_all(regions, donor, uris, &nr, err)
			 : weft_error_set(err, ENOMEM, "no memory");
	json_decref(answer);
	move_donor_end(&asked);
	*ret = uris;
	*ret_nr = nr;
	return r;
}
