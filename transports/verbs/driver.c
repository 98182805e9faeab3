/* SPDX-License-Identifier: MIT */
/* The row of the transport "verbs". */
#include "transports/verbs/driver.h"

#include "transports/verbs/doctor.h"
#include "transports/verbs/donor/serve.h"
#include "transports/verbs/verbs.h"

static int usable(struct weft_error *err)
{
	struct tp *tp;
	int r = tp_open(&tp_verbs_ops, NULL, &tp, err);

	if (r == 0)
		tp_close(tp);
	return r;
}

static bool parse_offer(const char *offer, struct tp_offer *ret)
{
	return tp_parse_offer("rdma", offer, ret);
}

const struct tp_driver tp_verbs_driver = {
	.word = "rdma",
	.label = "RDMA",
	.ops = &tp_verbs_ops,
	.shows_path = true,
	.plaintext = true,
	.usable = usable,
	.parse_offer = parse_offer,
	.listener = &verbs_listener_ops,
	.listen_options = verbs_listen_options,
	.listen_settings = &verbs_listen_settings,
	.checks = verbs_checks,
};
