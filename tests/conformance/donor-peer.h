/* SPDX-License-Identifier: MIT */
/*
 * A donor in this process, served over NBD on a Unix socket or TCP, or over TLS: its listener's
 * loop runs in a thread.
 */
#ifndef WEFT_TESTS_CONFORMANCE_DONOR_PEER_H
#define WEFT_TESTS_CONFORMANCE_DONOR_PEER_H

#include <stdbool.h>

#include "tests/conformance/suite.h"

/* Fills conf for it.  tcp: on 127.0.0.1; else on a Unix socket in a directory of its own. */
void donor_peer_start(struct conf *conf, bool tcp);
/* The same over TCP, to those who prove a key alone; conf's target has it. */
void donor_peer_start_tls(struct conf *conf);
void donor_peer_stop(struct conf *conf);
/*
 * go: ends its connections, and listens no more; the region stays.  come_back: listens again, on
 * the same Unix socket, with the same region or with another one, of zeros and another epoch.
 */
void donor_peer_go(struct conf *conf);
void donor_peer_come_back(struct conf *conf, bool with_other_contents);

#endif
