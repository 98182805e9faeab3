/* SPDX-License-Identifier: MIT */
/* A donor in this process, served over RDMA: its listener's loop runs in a thread. */
#ifndef WEFT_TESTS_CONFORMANCE_VERBS_PEER_H
#define WEFT_TESTS_CONFORMANCE_VERBS_PEER_H

#include "tests/conformance/suite.h"

struct tp;
struct verbs_listener_config;

/*
 * The address that RDMA_IP names, of a device here.  NULL: there is none, and what is said skips
 * the test.  *ret_keep keeps the devices open from one case to the next, until tp_close().
 */
const char *verbs_peer_ip(struct tp **ret_keep);

/* Fills conf for it.  rdma_ip: of a device here. */
void verbs_peer_start(struct conf *conf, const char *rdma_ip, uint64_t region_bytes,
	const struct verbs_listener_config *config);
/* The same with more of the donor's: its keys, and so on. */
void verbs_peer_start_donor(struct conf *conf, const char *rdma_ip, uint64_t region_bytes,
	const struct verbs_listener_config *config, struct weft_donor_config donor);
void verbs_peer_stop(struct conf *conf);

#endif
