/* SPDX-License-Identifier: MIT */
/* The row of the transport "quic". */
#include "transports/quic/driver.h"

#include "transports/quic/borrower/client.h"
#include "transports/quic/doctor.h"
#include "transports/quic/donor/serve.h"

/*
 * Asking over TCP what a donor offers takes four round trips.  Where one of them takes 5 ms, a
 * packet that is lost costs more than QUIC's work for the processor.
 */
enum { FAR_MS = 20 };

static int usable(struct weft_error *err)
{
	struct tp *tp;
	int r = tp_open(&tp_quic_ops, NULL, &tp, err);

	if (r == 0)
		tp_close(tp);
	return r;
}

static bool parse_offer(const char *offer, struct tp_offer *ret)
{
	return tp_parse_offer("quic", offer, ret);
}

const struct tp_driver tp_quic_driver = {
	.word = "quic",
	.label = "QUIC",
	.ops = &tp_quic_ops,
	.needs_proof = true,
	.far_ms = FAR_MS,
	.usable = usable,
	.parse_offer = parse_offer,
	.listener = &quic_listener_ops,
	.listen_options = quic_listen_options,
	.listen_settings = &quic_listen_settings,
	.checks = quic_checks,
};
