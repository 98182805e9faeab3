/* SPDX-License-Identifier: MIT */
/* Sessions and grants: what is accepted comes back the same from what it is formatted to. */
#include "fabric/hello.c"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct weft_hello hello, again;
	struct weft_welcome welcome, welcome_again;
	char text[WEFT_CONTEXT_MAX];

	if (weft_hello_parse((const char *)data, size, &hello, NULL) == 0) {
		weft_hello_format(&hello, text);
		assert(weft_hello_parse(text, strlen(text), &again, NULL) == 0);
		assert(memcmp(hello.id, again.id, sizeof(hello.id)) == 0);
		assert(hello.generation == again.generation && hello.mode == again.mode);
		assert(strcmp(hello.name, again.name) == 0 && hello.epoch == again.epoch);
		assert(hello.granted == again.granted && hello.wrote == again.wrote &&
			hello.version0 == again.version0);
		assert(weft_stripe_equal(&hello.stripe, &again.stripe) &&
			hello.new_contents == again.new_contents);
		assert(!again.anonymous && weft_name_valid(again.name));
	}
	if (weft_welcome_parse((const char *)data, size, &welcome) == 0) {
		weft_welcome_format(&welcome, text);
		assert(weft_welcome_parse(text, strlen(text), &welcome_again) == 0);
		assert(welcome.epoch == welcome_again.epoch &&
			welcome.lease_ms == welcome_again.lease_ms);
		assert(welcome.restorable == welcome_again.restorable &&
			welcome.version0 == welcome_again.version0 &&
			welcome.hashes == welcome_again.hashes);
		assert(strcmp(welcome.offers, welcome_again.offers) == 0);
	}
	return 0;
}
