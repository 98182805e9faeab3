/* SPDX-License-Identifier: MIT */
/*
 * Questions to the donor itself, about its regions: who may ask, and what travels.  The answers are
 * somebody else's (weft_donor_config.question).  Any thread, without the donor's lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/donor/donor-private.h"

/*
 * A peer without a key is this donor's own user, or one whom it lends to without any; where there
 * are no keys, a certificate is as good as all rights.
 */
static int may_ask(struct weft_donor *donor, const struct weft_peer *peer, struct weft_error *err)
{
	struct weft_rights rights;
	int r = donor_rights(donor, peer, &rights, err);

	if (r < 0)
		return r;
	if (peer->identity[0] && weft_donor_keys(donor) && !rights.admin)
		r = weft_error_set(err, EACCES,
			"key '%s' is not for what changes this donor; whoever runs it makes one "
			"that is: weft key new NAME --admin",
			peer->identity);
	weft_rights_fini(&rights);
	return r;
}

static int parse(const char *text, size_t len, json_t **ret, struct weft_error *err)
{
	json_error_t why;
	json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);

	if (!json && json_error_code(&why) == json_error_out_of_memory)
		return weft_error_set(err, ENOMEM, "no memory for the question");
	if (!json_is_object(json)) {
		json_decref(json);
		return weft_error_set(err, EINVAL, "the question is no JSON object");
	}
	*ret = json;
	return 0;
}

int weft_donor_question(struct weft_donor *donor, const struct weft_peer *peer, const char *text,
	size_t len, char **ret, struct weft_error *err)
{
	struct weft_error why = { 0 };
	json_t *question, *answer = NULL;
	int r = may_ask(donor, peer, &why);

	if (r < 0) {
		weft_donor_kept_out(donor, peer, &why);
		if (err)
			*err = why;
		return r;
	}
	if (!donor->question)
		return weft_error_set(err, ENOSYS, "this donor answers no questions");
	r = parse(text, len, &question, err);
	if (r < 0)
		return r;
	r = donor->question(donor->question_ctx, peer, question, &answer, err);
	json_decref(question);
	if (r < 0)
		return r;
	char *said = json_dumps(answer, JSON_COMPACT);
	json_decref(answer);
	if (!said)
		return weft_error_set(err, ENOMEM, "no memory for the answer");
	*ret = said;
	return 0;
}
