/* SPDX-License-Identifier: MIT */
/* Names that a shell completes: see status-names.h. */
#include "nbd-bridge/main/status-names.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/control.h"
#include "fabric/base/util.h"
#include "fabric/uri.h"
#include "nbd-bridge/main/state.h"

enum { PATIENCE_MS = 500 };

static int print_attachment(void *ctx, const char *name)
{
	puts(name);
	return 0;
}

/* "unix:PATH", "[ADDRESS]:PORT" or "ADDRESS:PORT", as donors tell where they listen. */
static void take_listen(const char *listen, struct weft_uri *uri)
{
	const char *colon = strrchr(listen, ':');
	bool bracket = listen[0] == '[';

	if (strncmp(listen, "unix:", 5) == 0)
		snprintf(uri->socket, sizeof(uri->socket), "%s", listen + 5);
	else if (colon)
		snprintf(uri->host, sizeof(uri->host), "%.*s",
			(int)(colon - listen) - (bracket ? 2 : 0), listen + bracket);
	if (colon && !uri->socket[0])
		snprintf(uri->port, sizeof(uri->port), "%s", colon + 1);
}

static int print_regions(void *ctx, const char *socket)
{
	json_t *question = json_pack("{s:s}", "op", "status"), *answer = NULL, *region;
	size_t i;

	if (weft_control_ask(socket, question, PATIENCE_MS, &answer, NULL) == 0) {
		const json_t *listens = json_object_get(answer, "listen");
		const char *listen = json_string_value(json_array_get(listens, 0));
		struct weft_uri uri = {0};

		if (listen)
			take_listen(listen, &uri);
		json_array_foreach(json_object_get(answer, "regions"), i, region) {
			WEFT_CLEANUP_FREE char *text = NULL;
			const char *name = json_string_value(json_object_get(region, "name"));

			uri.region = (char *)name;
			text = listen && name ? weft_uri_format(&uri) : NULL;
			if (text)
				puts(text);
		}
	}
	json_decref(question);
	json_decref(answer);
	return 0;
}

int status_print_names(const char *kind)
{
	if (strcmp(kind, "attachments") == 0)
		bridge_state_each(print_attachment, NULL);
	else if (strcmp(kind, "regions") == 0)
		weft_control_each("serve-", print_regions, NULL);
	return 0;
}
