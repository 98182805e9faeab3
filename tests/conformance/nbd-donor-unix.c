/* SPDX-License-Identifier: MIT */
/* Conformance of the transport "nbd" at a weft donor over a Unix socket. */
#include "tests/conformance/donor-peer.h"

static void start(struct conf *conf)
{
	donor_peer_start(conf, false);
}

int main(void)
{
	static const struct conf_fixture fixture = {.name = "nbd-donor-unix",
		.start = start,
		.stop = donor_peer_stop,
		.epoch = true,
		.sessions = true};

	return conf_run(&fixture, NULL, 0);
}
