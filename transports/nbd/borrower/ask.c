/* SPDX-License-Identifier: MIT */
/* A hello in a metadata context, which a donor answers before anything is granted. */
#include "transports/nbd/borrower/ask.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "transports/nbd/borrower/dial.h"

enum { DEAD_MS = 20000 };

static int no_pass(const struct weft_uri *uri, struct weft_error *err)
{
	return weft_error_set(err, EOPNOTSUPP,
		"%s takes certificates over TLS alone: its weft is too old for more, too much is "
		"asked of it at once, or the session is of TLS 1.2",
		uri->host);
}

static int talk_once(const struct nbd_dial *dial, struct nbd_talk *talk,
	const struct nbd_talk_wish *wish, struct weft_key *ret_pass, struct weft_error *err)
{
	struct nbd_stream stream = {.fd = nbd_dial(dial, err)};

	if (stream.fd < 0)
		return stream.fd;
	int r = nbd_dial_talk(dial, &stream, talk, wish);
	if (r < 0)
		weft_error_set(err, -r, "%s", talk->error.message);
	else if (ret_pass && (!talk->welcome.pass || !stream.tls ||
				     nbd_tls_pass(stream.tls, ret_pass) < 0))
		talk->welcome.pass = false;
	nbd_tls_free(stream.tls);
	close(stream.fd);
	return r;
}

static int ask(const struct nbd_dial *dial, const struct weft_uri *uri, struct weft_welcome *ret,
	struct weft_key *ret_pass, struct weft_error *err)
{
	struct nbd_talk_wish wish = {
		.region = uri->region,
		.hello = {.generation = 1,
			.mode = WEFT_MODE_SHARED,
			.name = "weft-attach",
			.pass = ret_pass != NULL},
		.only_ask = true,
	};
	struct nbd_talk *talk = malloc(sizeof(*talk));
	int r = -ECONNRESET;

	if (!talk)
		return weft_error_set(err, ENOMEM, "cannot ask %s: no memory", uri->host);
	weft_random(wish.hello.id, sizeof(wish.hello.id));
	/* Another's server may hang up on what comes unasked: then it is asked step by step. */
	for (unsigned i = 0; i < 2 && r == -ECONNRESET; i++) {
		wish.at_once = i == 0;
		r = talk_once(dial, talk, &wish, ret_pass, err);
	}
	if (r == 0 && !talk->has_welcome)
		r = weft_error_set(err, EACCES,
			"%s does not let us in, has no region '%.100s' for us, or is no weft donor",
			uri->host, uri->region);
	if (r == 0 && ret_pass && !talk->welcome.pass)
		r = no_pass(uri, err);
	if (r == 0)
		*ret = talk->welcome;
	free(talk);
	return r;
}

int nbd_ask(const struct weft_uri *uri, const struct weft_key *key, const char *certificates,
	uint32_t timeout_ms, int cancel_fd, struct weft_welcome *ret, struct weft_key *ret_pass,
	struct weft_error *err)
{
	struct nbd_dial dial = {
		.host = uri->host,
		.port = uri->port,
		.timeout_ms = timeout_ms,
		.deadline_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000),
		.dead_ms = DEAD_MS,
		.cancel_fd = cancel_fd,
	};

	/* What is told in plaintext could be anybody's word. */
	int r = nbd_dial_prove(&dial, key, certificates, false, err);
	if (r < 0)
		return r;
	r = ask(&dial, uri, ret, ret_pass, err);
	nbd_tls_credentials_put(dial.credentials);
	return r;
}
