/* SPDX-License-Identifier: MIT */
/* A hello in a metadata context, which a donor answers before anything is granted. */
#include "transports/nbd/borrower/ask.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "transports/nbd/borrower/dial.h"

enum { DEAD_MS = 20000 };

void nbd_ask(const struct weft_uri *uri, const struct weft_key *key, uint32_t timeout_ms,
	struct weft_welcome *ret)
{
	const struct nbd_dial dial = {
		.host = uri->host,
		.port = uri->port,
		.timeout_ms = timeout_ms,
		.deadline_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000),
		.dead_ms = DEAD_MS,
		.cancel_fd = -1,
	};
	struct nbd_talk_wish wish = {
		.region = uri->region,
		.hello = {.generation = 1, .mode = WEFT_MODE_SHARED, .name = "weft-attach"},
		.at_once = true,
		.only_ask = true,
	};
	struct nbd_talk *talk = malloc(sizeof(*talk));
	struct weft_error err;
	int r = -ECONNRESET;

	/* What is told in plaintext could be anybody's word. */
	if (!talk || key) {
		free(talk);
		return;
	}
	weft_random(wish.hello.id, sizeof(wish.hello.id));
	/* Another's server may hang up on what comes unasked: then it is asked step by step. */
	for (unsigned i = 0; i < 2 && r == -ECONNRESET; i++) {
		wish.at_once = i == 0;
		struct nbd_stream stream = {.fd = nbd_dial(&dial, &err)};
		if (stream.fd < 0)
			break;
		r = nbd_dial_talk(&dial, &stream, talk, &wish);
		nbd_tls_free(stream.tls);
		close(stream.fd);
	}
	if (r == 0 && talk->has_welcome)
		*ret = talk->welcome;
	free(talk);
}
