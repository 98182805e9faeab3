/* SPDX-License-Identifier: MIT */
/* The NBD listener behind the table of functions. */
#include "transports/nbd/donor/serve.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fabric/base/util.h"
#include "transports/nbd/donor/session.h"

static struct nbd_listener *to_nbd(struct weft_listener *listener)
{
	return weft_container_of(listener, struct nbd_listener, base);
}

static int listen_new(const struct weft_listener_config *config, struct weft_listener **ret,
	struct weft_error *err)
{
	WEFT_CLEANUP_FREE int *fds = calloc(config->nr_sockets + 1, sizeof(*fds));
	struct nbd_listener *nbd;

	if (!fds)
		return weft_error_set(err, ENOMEM, "cannot listen: no memory");
	for (unsigned i = 0; i < config->nr_sockets; i++)
		fds[i] = config->sockets[i].fd;
	const struct nbd_listener_config nbd_config = {
		.tls_certificates = config->tls_certificates,
	};
	int r = nbd_listener_new(
		config->donor, config->loop, fds, config->nr_sockets, &nbd_config, &nbd, err);
	if (r == 0)
		*ret = &nbd->base;
	return r;
}

static void listen_offers(const struct weft_listener *listener, char *buf, size_t len)
{
	snprintf(buf, len, "tcp");
}

static void listen_status(struct weft_listener *listener, struct weft_listener_status *ret)
{
	nbd_listener_status(to_nbd(listener), ret);
}

static void listen_stop(struct weft_listener *listener)
{
	nbd_listener_stop(to_nbd(listener));
}

static int listen_drain(struct weft_listener *listener, uint32_t timeout_ms)
{
	return nbd_listener_drain(to_nbd(listener), timeout_ms);
}

static void listen_free(struct weft_listener *listener)
{
	nbd_listener_free(to_nbd(listener));
}

const struct weft_listener_ops nbd_listener_ops = {
	.new = listen_new,
	.offers = listen_offers,
	.status = listen_status,
	.stop = listen_stop,
	.drain = listen_drain,
	.free = listen_free,
};
