/* SPDX-License-Identifier: MIT */
/* The choke point in front of a transport's listener. */
#include "fabric/listener.h"

#include <string.h>

int weft_listener_new(const struct weft_listener_ops *ops,
	const struct weft_listener_config *config, struct weft_listener **ret,
	struct weft_error *err)
{
	struct weft_listener *listener;
	int r = ops->new (config, &listener, err);

	if (r < 0)
		return r;
	listener->ops = ops;
	*ret = listener;
	return 0;
}

bool weft_listener_is_wanted(const struct weft_listener_ops *ops)
{
	return ops->is_wanted && ops->is_wanted();
}

void weft_listener_offers(const struct weft_listener *listener, char *buf, size_t len)
{
	buf[0] = '\0';
	listener->ops->offers(listener, buf, len);
}

void weft_listener_status(struct weft_listener *listener, struct weft_listener_status *ret)
{
	memset(ret, 0, sizeof(*ret));
	listener->ops->status(listener, ret);
}

void weft_listener_stop(struct weft_listener *listener)
{
	listener->ops->stop(listener);
}

int weft_listener_drain(struct weft_listener *listener, uint32_t timeout_ms)
{
	return listener->ops->drain(listener, timeout_ms);
}

void weft_listener_free(struct weft_listener *listener)
{
	if (listener)
		listener->ops->free(listener);
}
