/* SPDX-License-Identifier: MIT */
/* A hello in a metadata context, which a donor answers before anything is granted. */
#include "transports/nbd/borrower/ask.h"

#include <errno.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/nbd/libnbd.h"

static int one_context(void *user, const char *name)
{
	struct weft_welcome welcome;

	if (weft_welcome_parse(name, strlen(name), &welcome) == 0)
		*(struct weft_welcome *)user = welcome;
	return 0;
}

static int answered(void *user, int *error)
{
	*(bool *)user = true;
	return 0;
}

/* Moves libnbd on once.  False: it is over, or the time is. */
static bool step(struct nbd_handle *nbd, uint64_t end_ns)
{
	struct pollfd p = nbd_libnbd_wants(nbd);
	const uint64_t now_ns = weft_now_ns();

	if (now_ns >= end_ns)
		return false;
	int r = poll(&p, 1, (int)((end_ns - now_ns + 999999) / 1000000));
	return r <= 0 ? r == 0 || errno == EINTR : nbd_libnbd_go_on(nbd, &p) == 0;
}

/* true: it was answered. */
static bool ask_once(struct nbd_handle *nbd, const struct weft_hello *hello, uint64_t end_ns,
	struct weft_welcome *ret)
{
	char query[WEFT_CONTEXT_MAX];
	bool done = false;

	weft_hello_format(hello, query);
	if (nbd_clear_meta_contexts(nbd) < 0 || nbd_add_meta_context(nbd, query) < 0 ||
		nbd_aio_opt_list_meta_context(nbd,
			(nbd_context_callback){.callback = one_context, .user_data = ret},
			(nbd_completion_callback){.callback = answered, .user_data = &done}) < 0)
		return false;
	while (!done && step(nbd, end_ns))
		;
	return done;
}

void nbd_ask(const struct weft_uri *uri, uint32_t timeout_ms, struct weft_welcome *ret)
{
	struct weft_hello hello = {
		.generation = 1, .mode = WEFT_MODE_SHARED, .name = "weft-attach"};
	struct nbd_handle *nbd = nbd_create();
	const uint64_t end_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);
	bool done = false;

	if (!nbd)
		return;
	weft_random(hello.id, sizeof(hello.id));
	if (nbd_set_opt_mode(nbd, true) == 0 &&
		nbd_aio_connect_tcp(nbd, uri->host, uri->port) == 0) {
		while (nbd_aio_is_connecting(nbd) && step(nbd, end_ns))
			;
		if (nbd_aio_is_negotiating(nbd) && nbd_set_export_name(nbd, uri->region) == 0) {
			done = ask_once(nbd, &hello, end_ns, ret);
			/* A donor of version 0 does not understand the other. */
			hello.version0 = true;
			if (done && ret->epoch == 0)
				done = ask_once(nbd, &hello, end_ns, ret);
		}
		if (done)
			nbd_aio_opt_abort(nbd); /* a goodbye; nobody waits for its answer */
	}
	nbd_close(nbd);
}
