/* SPDX-License-Identifier: MIT */
/*
 * Key files and grants: a line that is accepted comes back the same, the borrower's choice is among
 * the lines, and rights that are accepted come back the same from their JSON.
 */
#include "fabric/key/find.c"

#include <assert.h>
#include <stdint.h>

#include "fabric/key/rights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void lines(struct weft_key_text text)
{
	struct weft_key key, again;
	char buf[WEFT_KEY_LINE_MAX];
	const char *line;
	size_t len;

	while (weft_key_text_line(&text, &line, &len)) {
		if (weft_key_text_parse(&text, line, len, &key, NULL) < 0)
			continue;
		weft_key_format(&key, buf);
		assert(weft_key_parse(buf, strlen(buf), &again, NULL) == 0);
		assert(memcmp(&key, &again, sizeof(key)) == 0);
		assert(weft_identity_valid(key.identity));
	}
}

static void choice(struct weft_key_text text, const char *identity)
{
	struct weft_error err;
	struct weft_key key;

	if (choose(&text, identity, &key, &err) == 0) {
		assert(key.secret_bytes >= WEFT_SECRET_MIN && key.secret_bytes <= WEFT_SECRET_MAX);
		assert(!identity || weft_identity_is_of(key.identity, identity) ||
			strcmp(key.identity, identity) == 0);
	}
}

static void grants(const char *text, size_t size)
{
	json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	struct weft_rights rights, again;

	if (json && weft_rights_load(json, &rights, NULL) == 0) {
		json_t *once = weft_rights_json(&rights);

		assert(weft_rights_load(once, &again, NULL) == 0);
		json_t *twice = weft_rights_json(&again);
		assert(json_equal(once, twice));
		json_decref(once);
		json_decref(twice);
		weft_rights_fini(&rights);
		weft_rights_fini(&again);
	}
	json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Of its own, so that a byte too many is seen. */
	char *copy = malloc(size);
	struct weft_key_text text = {.path = "key", .text = copy, .len = size};

	if (size > 0)
		memcpy(copy, data, size);
	lines(text);
	choice(text, NULL);
	choice(text, "node7");
	choice(text, "node7~2");
	grants(copy, size);
	free(copy);
	return 0;
}
