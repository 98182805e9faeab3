/* SPDX-License-Identifier: MIT */
/*
 * A donor in this process, served over QUIC on 127.0.0.1, or at an address of IPv4: its listener's
 * loop runs in a thread.
 */
#ifndef WEFT_TESTS_CONFORMANCE_QUIC_PEER_H
#define WEFT_TESTS_CONFORMANCE_QUIC_PEER_H

#include <netinet/in.h>

#include "tests/conformance/suite.h"
#include "transports/quic/donor/listener.h"

/* Fills conf for it; its target has the key that the donor knows. */
void quic_peer_start(struct conf *conf, const struct quic_listener_config *config);
void quic_peer_start_at(struct conf *conf, const struct quic_listener_config *config, in_addr_t ip,
	const char *port);
void quic_peer_stop(struct conf *conf);
/* Lends a new file of 64 KiB as "f", too.  path: as mkstemp(3) has it; the caller removes it. */
struct weft_region *quic_peer_lend_file(const struct conf *conf, char *path);
void quic_peer_status(const struct conf *conf, struct weft_listener_status *ret);

#endif
