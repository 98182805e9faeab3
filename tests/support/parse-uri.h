/* SPDX-License-Identifier: MIT */
/* A URI that a test takes for valid. */
#ifndef WEFT_TESTS_SUPPORT_PARSE_URI_H
#define WEFT_TESTS_SUPPORT_PARSE_URI_H

#include "fabric/uri.h"

static struct weft_uri uri; /* the last one that was parsed */

/* cmocka's, after the last test. */
static inline int free_uri(void **state)
{
	weft_uri_fini(&uri);
	uri = (struct weft_uri){0};
	return 0;
}

/* Into uri, whose former contents it frees; fails the test where that is no URI. */
static inline void parse_uri(const char *text)
{
	struct weft_error err = {0};

	free_uri(NULL);
	if (weft_uri_parse(text, &uri, &err) < 0)
		fail_msg("%s: %s", text, err.message);
}

#endif
