/* SPDX-License-Identifier: MIT */
/* A hello in a metadata context, which a donor answers before anything is granted. */
#include "transports/nbd/borrower/ask.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "transports/nbd/borrower/dial.h"

enum { DEAD_MS = 20000 };

static void ask(const struct nbd_dial *dial, const struct weft_uri *uri, struct weft_welcome *ret)
{
	struct nbd_talk_wish wish = {
		.region = uri->region,
		.hello = {.generation = 1, .mode = WEFT_MODE_SHARED, .name = "weft-attach"},
		.only_ask = true,
	};
	struct nbd_talk *talk = malloc(sizeof(*talk));
	struct weft_error err;
	int r = -ECONNRESET;

	if (!talk)
		return;
	weft_random(wish.hello.id, sizeof(wish.hello.id));
	/* Another's server may hang up on what comes unasked: then it is asked step by step. */
	for (unsigned i = 0; i < 2 && r == -ECONNRESET; i++) {
		struct nbd_stream stream = {.fd = nbd_dial(dial, &err)};

		if (stream.fd < 0)
			break;
		wish.at_once = i == 0;
		r = nbd_dial_talk(dial, &stream, talk, &wish);
		nbd_tls_free(stream.tls);
		close(stream.fd);
	}
	if (r == 0 && talk->has_welcome)
		*ret = talk->welcome;
	free(talk);
}

void nbd_ask(const struct weft_uri *uri, const struct weft_key *key, const char *certificates,
	uint32_t timeout_ms, struct weft_welcome *ret)
{
	struct nbd_dial dial = {
		.host = uri->host,
		.port = uri->port,
		.timeout_ms = timeout_ms,
		.deadline_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000),
		.dead_ms = DEAD_MS,
		.cancel_fd = -1,
	};

	/* What is told in plaintext could be anybody's word. */
	if (nbd_dial_prove(&dial, key, certificates, NULL) < 0)
		return;
	ask(&dial, uri, ret);
	nbd_tls_credentials_put(dial.credentials);
}
