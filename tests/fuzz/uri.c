/* SPDX-License-Identifier: MIT */
/* URIs: what is accepted comes back the same from its canonical text. */
#include "fabric/uri.c"

#include <assert.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct weft_uri uri, again;
	char *text = strndup((const char *)data, size);

	if (weft_uri_parse(text, &uri, NULL) == 0) {
		char *canonical = weft_uri_format(&uri), *twice;

		assert(weft_uri_parse(canonical, &again, NULL) == 0);
		assert(strcmp(uri.host, again.host) == 0 && strcmp(uri.port, again.port) == 0);
		assert(strcmp(uri.region, again.region) == 0 &&
			strcmp(uri.socket, again.socket) == 0);
		assert(strcmp(uri.identity, again.identity) == 0);
		assert(uri.foreign == again.foreign && uri.transport == again.transport);
		twice = weft_uri_format(&again);
		assert(strcmp(canonical, twice) == 0);
		free(canonical);
		free(twice);
		weft_uri_fini(&uri);
		weft_uri_fini(&again);
	}
	free(text);
	return 0;
}
