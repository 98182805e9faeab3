/* SPDX-License-Identifier: MIT */
/*
 * Conformance of the verbs transport against a donor in this process.  Needs an RDMA device with an
 * IPv4 address, named by RDMA_IP (tests/shell/verbs-conformance.sh); without it everything is
 * skipped.  WEFT_CHUNK: bytes of a memory registration, so small regions can have many.
 * WEFT_REGION: bytes of the region.
 */
#include <stdlib.h>

#include "tests/conformance/verbs-peer.h"
#include "transports/verbs/donor/listener.h"
#include "transports/verbs/verbs.h"

static const char *rdma_ip;
static struct verbs_listener_config listener;
static uint64_t region_bytes;

static void start(struct conf *conf)
{
	verbs_peer_start(conf, rdma_ip, region_bytes, &listener);
}

int main(void)
{
	static const struct conf_fixture fixture = {.name = "verbs",
		.start = start,
		.stop = verbs_peer_stop,
		.epoch = true,
		.sessions = true,
		.no_stock = true};
	struct tp *keep;

	listener.chunk_bytes = getenv("WEFT_CHUNK") ? strtoull(getenv("WEFT_CHUNK"), NULL, 0) : 0;
	region_bytes = getenv("WEFT_REGION") ? strtoull(getenv("WEFT_REGION"), NULL, 0)
					     : CONF_REGION_BYTES;
	rdma_ip = verbs_peer_ip(&keep);
	if (!rdma_ip)
		return 77;
	int r = conf_run(&fixture, NULL, 0);
	tp_close(keep);
	return r;
}
