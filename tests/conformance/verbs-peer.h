/* SPDX-License-Identifier: MIT */
/* A donor in this process, served over RDMA: its listener's loop runs in a thread. */
#ifndef WEFT_TESTS_CONFORMANCE_VERBS_PEER_H
#define WEFT_TESTS_CONFORMANCE_VERBS_PEER_H

#include "tests/conformance/suite.h"

/*
 * Fills conf for it.  rdma_ip: of a device here; chunk_bytes: of a registration, 0: as the
 * transport likes.
 */
void verbs_peer_start(struct conf *conf, const char *rdma_ip, uint64_t region_bytes,
	uint64_t chunk_bytes);
void verbs_peer_stop(struct conf *conf);

#endif
