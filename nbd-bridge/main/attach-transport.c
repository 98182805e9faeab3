/*
 * Which transport an attachment takes.  TCP is asked what the donor offers; RDMA is tried if that is among it; a fall back
 * to TCP is never silent.  Main thread; blocks.
 */
#include "nbd-bridge/main/attach-transport.h"

#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <string.h>

#include "fabric/util.h"
#include "transports/nbd/client.h"
#include "transports/verbs/verbs.h"

enum {
	ASK_MS = 5000,  /* for what a donor offers; one that takes longer is spoken to over TCP */
	TRY_MS = 1000,  /* for an answer over RDMA, when there is TCP too */
};

static int one_context(void *user, const char *name)
{
	struct weft_welcome welcome;

	if (weft_welcome_parse(name, strlen(name), &welcome) == 0)
		memcpy(user, welcome.offers, sizeof(welcome.offers));
	return 0;
}

static int answered(void *user, int *error)
{
	*(bool *)user = true;
	return 0;
}

/* What the donor offers the region over; "" if it does not say.  Nothing is granted. */
static void ask_offers(const struct weft_uri *uri, char offers[64])
{
	struct weft_hello hello = {.generation = 1, .mode = WEFT_MODE_SHARED, .name = "weft-attach"};
	struct nbd_handle *nbd = nbd_create();
	uint64_t end_ns = weft_now_ns() + ASK_MS * UINT64_C(1000000);
	char query[WEFT_CONTEXT_MAX];
	bool done = false;

	offers[0] = '\0';
	if (!nbd)
		return;
	weft_random(hello.id, sizeof(hello.id));
	weft_hello_format(&hello, query);
	if (nbd_set_opt_mode(nbd, true) == 0 && nbd_aio_connect_tcp(nbd, uri->host, uri->port) == 0) {
		while (nbd_aio_is_connecting(nbd) && weft_now_ns() < end_ns)
			if (nbd_poll(nbd, 100) < 0)
				break;
		if (nbd_aio_is_negotiating(nbd) && nbd_set_export_name(nbd, uri->region) == 0 &&
			nbd_add_meta_context(nbd, query) == 0 &&
			nbd_aio_opt_list_meta_context(nbd,
				(nbd_context_callback){.callback = one_context, .user_data = offers},
				(nbd_completion_callback){.callback = answered, .user_data = &done}) == 0)
			while (!done && weft_now_ns() < end_ns)
				if (nbd_poll(nbd, 100) < 0)
					break;
		if (done)
			nbd_aio_opt_abort(nbd); /* a goodbye; nobody waits for its answer */
	}
	nbd_close(nbd);
}

/* The port after "rdma:" in "tcp,rdma:10809". */
static bool rdma_port(const char *offers, char port[8])
{
	const char *rdma = strstr(offers, "rdma:");

	return rdma && sscanf(rdma, "rdma:%7[0-9]", port) == 1;
}

static int start_over(struct attach *a, struct bridge_config *config, const struct tp_ops *transport,
	const void *transport_config, const char *port, struct weft_error *err)
{
	const struct weft_uri *uri = &a->options.uri;

	config->transport = transport;
	config->transport_config = transport_config;
	config->host = uri->socket[0] ? uri->socket : uri->host;
	config->port = uri->socket[0] ? NULL : port;
	int r = bridge_new(config, &a->bridge, err);
	if (r < 0)
		return r;
	return bridge_start(a->bridge, err);
}

/*
 * A donor's own word, which it would say over any transport.  EBUSY and EINVAL are the driver's, or the listener's, as well:
 * TCP is asked again then.
 */
static bool is_final(int error)
{
	return error == -ESTALE || error == -EROFS || error == -ENOENT || error == -ESHUTDOWN;
}

/* Without a device here nobody needs to be asked. */
static int look_for_device(struct weft_error *err)
{
	struct tp *tp;
	int r = tp_open(&tp_verbs_ops, NULL, &tp, err);

	if (r == 0)
		tp_close(tp);
	return r;
}

int attach_start_bridge(struct attach *a, struct bridge_config *config, struct weft_error *err)
{
	static const struct verbs_config told = {0}, tried = {.answer_ms = TRY_MS};
	const struct attach_options *o = &a->options;
	const char *why_not = NULL;
	char offers[64] = "";
	struct weft_error rdma;
	bool may_ask = !o->uri.foreign && !o->uri.socket[0] && o->transport != WEFT_TRANSPORT_TCP;
	int r;

	if (o->transport == WEFT_TRANSPORT_RDMA && (o->uri.foreign || o->uri.socket[0]))
		return weft_error_set(err, EOPNOTSUPP, "cannot attach over RDMA: %s; use --transport auto or tcp",
			o->uri.foreign ? "an NBD server speaks TCP only" : "a Unix socket is none");
	if (may_ask && look_for_device(&rdma) < 0)
		why_not = rdma.message;
	else if (may_ask)
		ask_offers(&o->uri, offers);
	bool offered = rdma_port(offers, a->rdma_port);

	if (o->transport == WEFT_TRANSPORT_RDMA) {
		snprintf(a->why, sizeof(a->why), "as told");
		/* There may be a way over RDMA alone. */
		return start_over(a, config, &tp_verbs_ops, &told, offered ? a->rdma_port : o->uri.port, err);
	}
	if (offered) {
		r = start_over(a, config, &tp_verbs_ops, &tried, a->rdma_port, &rdma);
		if (r == 0) {
			snprintf(a->why, sizeof(a->why), "auto: the donor offers %s", offers);
			return 0;
		}
		if (is_final(r)) {
			*err = rdma;
			return r;
		}
		if (a->bridge)
			bridge_stop(a->bridge, 0, NULL);
		bridge_free(a->bridge);
		a->bridge = NULL;
		why_not = rdma.message;
	}
	r = start_over(a, config, &tp_nbd_ops, NULL, o->uri.port, err);
	if (r < 0)
		return r;
	if (o->uri.foreign)
		snprintf(a->why, sizeof(a->why), "an NBD server offers nothing else");
	else if (o->transport == WEFT_TRANSPORT_TCP)
		snprintf(a->why, sizeof(a->why), "as told");
	else if (why_not && rdma_port(bridge_info(a->bridge)->offers, a->rdma_port))
		snprintf(a->why, sizeof(a->why), "auto: RDMA was tried: %s", why_not);
	else if (o->uri.socket[0])
		snprintf(a->why, sizeof(a->why), "the donor is on this machine");
	else
		snprintf(a->why, sizeof(a->why), "auto: the donor offers only %s", bridge_info(a->bridge)->offers);
	return 0;
}
