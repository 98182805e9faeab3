/* SPDX-License-Identifier: MIT */
/* The verbs listener behind the table of functions. */
#include "transports/verbs/donor/serve.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "transports/rdma/settings.h"
#include "transports/verbs/donor/session.h"

static struct verbs_listener *to_verbs(struct weft_listener *listener)
{
	return weft_container_of(listener, struct verbs_listener, base);
}

struct verbs_listen_settings verbs_listen_settings;

static int parse_rdma(void *into, const struct weft_option *option, char *value)
{
	struct verbs_listen_settings *settings = into;

	settings->off = strcmp(value, "off") == 0;
	return settings->off || strcmp(value, "auto") == 0 ? WEFT_GO_ON
							   : weft_option_refuse(option, value);
}

/* For others over RDMA too. */
static int parse_plaintext(void *into, const struct weft_option *option, char *value)
{
	weft_rdma_listen_settings.plaintext = true;
	return WEFT_GO_ON;
}

const struct weft_option verbs_listen_options[] = {
	{"rdma", "auto|off", "over RDMA too, where --listen is on an RDMA device (default auto)",
		.kind = WEFT_OPTION_CALL, .parse = parse_rdma, .wants = "auto or off"},
	{"rdma-plaintext", NULL, "over RDMA to each key, although its data is in plaintext",
		.kind = WEFT_OPTION_CALL, .parse = parse_plaintext},
	{0},
};

/* -ENODEV: not at this socket's address. */
static int listen_at(const struct weft_listener_config *config, const struct weft_listening *socket,
	struct verbs_listener **ret, struct weft_error *err)
{
	const struct verbs_listener_config verbs = {
		.may_be_plaintext = weft_rdma_listen_settings.plaintext,
	};
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);

	if (*socket->socket || getsockname(socket->fd, (struct sockaddr *)&address, &len) < 0)
		return -ENODEV;
	int r = verbs_listener_new(
		config->donor, config->loop, (struct sockaddr *)&address, &verbs, ret, err);
	if (r == 0)
		weft_listening_format(socket, (*ret)->place);
	return r;
}

static int listen_new(const struct weft_listener_config *config, struct weft_listener **ret,
	struct weft_error *err)
{
	struct verbs_listener *verbs = NULL;
	struct weft_error failed = {0}, one;

	if (verbs_listen_settings.off)
		return weft_error_set(err, ENODEV, "this donor is told not to listen over RDMA");
	for (unsigned i = 0; i < config->nr_sockets && !verbs; i++) {
		int r = listen_at(config, &config->sockets[i], &verbs, &one);

		if (r < 0 && r != -ENODEV && failed.code == 0)
			failed = one;
	}
	if (verbs) {
		if (failed.code)
			weft_warn("%s", failed.message);
		*ret = &verbs->base;
		return 0;
	}
	if (failed.code == 0)
		return weft_error_set(
			err, ENODEV, "no address that this donor listens on is on an RDMA device");
	*err = failed;
	return -failed.code;
}

static void listen_offers(const struct weft_listener *listener, char *buf, size_t len)
{
	verbs_listener_offers(
		weft_container_of(listener, const struct verbs_listener, base), buf, len);
}

static void listen_status(struct weft_listener *listener, struct weft_listener_status *ret)
{
	struct verbs_listener *verbs = to_verbs(listener);

	verbs_listener_status(verbs, ret);
	strcpy(ret->place, verbs->place);
}

static void listen_stop(struct weft_listener *listener)
{
	verbs_listener_stop(to_verbs(listener));
}

static int listen_drain(struct weft_listener *listener, uint32_t timeout_ms)
{
	return verbs_listener_drain(to_verbs(listener), timeout_ms);
}

static void listen_free(struct weft_listener *listener)
{
	verbs_listener_free(to_verbs(listener));
}

const struct weft_listener_ops verbs_listener_ops = {
	.new = listen_new,
	.offers = listen_offers,
	.status = listen_status,
	.stop = listen_stop,
	.drain = listen_drain,
	.free = listen_free,
};
