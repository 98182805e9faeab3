/* SPDX-License-Identifier: MIT */
/* Conformance of the transport "nbd" at a weft donor over TLS, which each end proves a key in. */
#include "tests/conformance/donor-peer.h"

int main(void)
{
	static const struct conf_fixture fixture = {.name = "nbd-donor-tls",
		.start = donor_peer_start_tls,
		.stop = donor_peer_stop,
		.epoch = true,
		.sessions = true};

	return conf_run(&fixture, NULL, 0);
}
