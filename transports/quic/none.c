/* SPDX-License-Identifier: MIT */
/* QUIC in a build without ngtcp2: it says that it is not there. */
#include <errno.h>

#include "transports/quic/borrower/client.h"
#include "transports/quic/donor/listener.h"

#define WHY "this weft was built without QUIC (libngtcp2, with GnuTLS)"

static int none_open(const void *config, struct tp **ret, struct weft_error *err)
{
	return weft_error_set(err, EOPNOTSUPP, WHY);
}

const struct tp_ops tp_quic_ops = {
	.name = "quic",
	.any_memory = true,
	.proves_keys = true,
	.proves_certificates = true,
	.open = none_open,
};

int quic_listener_new(struct weft_donor *donor, struct weft_loop *loop,
	const struct sockaddr *address, const struct quic_listener_config *config,
	struct quic_listener **ret, struct weft_error *err)
{
	return weft_error_set(err, EOPNOTSUPP, WHY);
}

/* There is no listener: nobody calls these. */

void quic_listener_stop(struct quic_listener *listener)
{
}

int quic_listener_drain(struct quic_listener *listener, uint32_t timeout_ms)
{
	return 0;
}

void quic_listener_free(struct quic_listener *listener)
{
}

void quic_listener_status(struct quic_listener *listener, struct weft_listener_status *ret)
{
	*ret = (struct weft_listener_status){.connections = 0};
}

void quic_listener_address(const struct quic_listener *listener, struct sockaddr_storage *ret)
{
	ret->ss_family = AF_UNSPEC;
}
