/* SPDX-License-Identifier: MIT */
/*
 * The suites: each adds its cases to the table when the program starts.
 */
#ifndef PERF_SUITES_SUITES_H
#define PERF_SUITES_SUITES_H

void suite_nbd_servers(void);
void suite_bridge(void);
void suite_socket_ways(void);
void suite_verbs(void);
void suite_tls(void);

#endif
