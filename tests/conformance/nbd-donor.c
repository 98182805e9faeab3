/* SPDX-License-Identifier: MIT */
/* Conformance of the transport "nbd" at a weft donor, over TCP and over a Unix socket. */
#include "tests/conformance/donor-peer.h"

static bool over_tcp = true;

static void start(struct conf *conf)
{
	donor_peer_start(conf, over_tcp);
}

int main(void)
{
	struct conf_fixture fixture = {.name = "nbd-donor",
		.start = start,
		.stop = donor_peer_stop,
		.epoch = true,
		.sessions = true};

	int r = conf_run(&fixture, NULL, 0);
	over_tcp = false;
	fixture.name = "nbd-donor-unix";
	return conf_run(&fixture, NULL, 0) | r;
}
