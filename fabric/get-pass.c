/* SPDX-License-Identifier: MIT */
/* Passes for other transports, over the base transport; see driver.h.  No state, any thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/driver.h"
#include "fabric/uri.h"

enum { PASS_MS = 5000 };

int tp_get_pass(const char *host, const char *port, const char *region, const char *certificates,
	int cancel_fd, struct weft_key *ret, struct weft_error *err)
{
	struct weft_uri uri = {.region = strdup(region)};
	struct weft_welcome welcome;
	int r;

	snprintf(uri.host, sizeof(uri.host), "%s", host);
	snprintf(uri.port, sizeof(uri.port), "%s", port);
	if (uri.region)
		r = tp_base_driver()->ask(&uri, NULL, certificates, PASS_MS, cancel_fd,
			&welcome, ret, err);
	else
		r = weft_error_set(err, ENOMEM, "cannot ask %s: no memory", host);
	weft_uri_fini(&uri);
	return r;
}
