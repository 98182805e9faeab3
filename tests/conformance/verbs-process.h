/* SPDX-License-Identifier: MIT */
/*
 * A verbs donor in another process, which can be stopped and killed, and its borrower in this one.
 * The donor is the same program: `PROGRAM donor SIZE CHUNK LEASE_MS`, which prints its port; with
 * the keys of the directory $WEFT_KEYS, and slower or poorer as WEFT_SLOW_MS,
 * WEFT_SLOW_REGISTER_MS and WEFT_POOR say.  Needs RDMA_IP, as verbs.c does.
 *
 * The program is linked with --wrap for rdma_disconnect and ibv_reg_mr_iova2.
 */
#ifndef WEFT_TESTS_CONFORMANCE_VERBS_PROCESS_H
#define WEFT_TESTS_CONFORMANCE_VERBS_PROCESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "fabric/transport.h"

enum { BOUND_MS = 30000, BUF_BYTES = 32 << 20, NR_OPS = 16 };

extern const char *peer_rdma_ip;

struct peer {
	pid_t pid;
	char port[8];
	struct tp *tp;
	uint8_t *buf;
	struct tp_mem *mem;
	struct tp_target target;
};

/* First in main(): an exit status, or -1: go on with the tests. */
int peer_main(int argc, char **argv);

/* The donor's words: bytes of its region, and of a chunk (0: its own choice), and milliseconds. */
struct peer *peer_new(const char *size, const char *chunk, const char *lease);
void peer_free(struct peer *peer);
/* Kills it. */
void peer_stop_donor(struct peer *peer);

uint64_t peer_bound_ns(uint64_t ms);
/* Ready or failed; and one that is ready. */
struct tp_conn *peer_try_connect(struct peer *peer);
struct tp_conn *peer_connect(struct peer *peer);
void peer_finish(struct tp_conn *conn);
/* Waits once; returns how many completed: each adds one to the int that its user is. */
int peer_pump(struct tp_conn *conn, int timeout_ms);
/* The status, or what tp_post() said. */
int peer_run(struct peer *peer, struct tp_conn *conn, enum tp_op_kind kind, uint64_t off,
	uint64_t len, void *buf);

/* Words that tell their place and the stamp. */
void peer_fill(uint8_t *buf, uint64_t off, size_t len, uint64_t stamp);
void peer_check(const uint8_t *buf, uint64_t off, size_t len, uint64_t stamp);

#endif
