/* SPDX-License-Identifier: MIT */
/*
 * Sessions with several donors side by side that need no bridge: to ask what donors have noted of
 * copies, or to look at some bytes.  A donor that does not answer in time costs no more than that
 * time, whatever the others do.
 *
 *	struct bridge_visit visits[2] = {{.donor = &donors[0]}, {.donor = &donors[1]}};
 *	visits_open(visits, 2, &hello, BUFFER_BYTES, 5000);
 *	visits_ask(visits, 2, asked, 5000);
 *	…
 *	visits_close(visits, 2);
 *
 * Threads: the one that opened them.  Everything here blocks.
 */
#ifndef WEFT_NBD_BRIDGE_BRIDGE_VISIT_H
#define WEFT_NBD_BRIDGE_BRIDGE_VISIT_H

#include "fabric/copying.h"
#include "nbd-bridge/link/attachment.h"

struct bridge_visit {
	/* Set by the caller; borrowed.  Its first way is taken, and nothing that it remembers. */
	const struct bridge_donor_config *donor;
	/* Filled. */
	struct weft_error why; /* why there is no session any more; code 0: there is one */
	struct tp_info info;   /* what was granted */
	void *buf;             /* as many bytes as visits_open() was told */
	int status;            /* of the operation that was posted last: 0 or -errno */
	struct weft_copies_answer answer; /* to visits_ask() */
	/* Private. */
	struct tp *tp;
	struct tp_conn *conn;
	struct tp_mem *mem;
	size_t buf_bytes;
	struct tp_op op;
	struct weft_hashing hashing;
	bool busy;
};

static inline bool visit_is_open(const struct bridge_visit *visit)
{
	return visit->why.code == 0 && visit->conn;
}

/*
 * Connects to all of them; each has a session, or a reason, within timeout_ms.  hello: as whom; its
 * id counts for nothing: each session is a new attachment, that remembers nothing.  Returns how
 * many there are.
 */
unsigned visits_open(struct bridge_visit *visits, unsigned nr, const struct weft_hello *hello,
	size_t buf_bytes, uint32_t timeout_ms);
/*
 * Asks each that is open the same question; a region that is no copy and cannot be one, or a donor
 * that knows nothing of copies, is a reason to end the session.  Returns how many answered.
 */
unsigned visits_ask(struct bridge_visit *visits, unsigned nr,
	const struct weft_copies_asked *asked, uint32_t timeout_ms);
/*
 * Posts an operation at each of the set (bit i: visit i) that is open, and waits for all.  READ and
 * WRITE: len bytes at buf; HASH: the hashes come to buf.  Returns those where it was carried out; a
 * session without an answer in time ends.
 */
uint32_t visits_do(struct bridge_visit *visits, unsigned nr, uint32_t set, enum tp_op_kind kind,
	uint64_t off, uint64_t len, const struct weft_hashing *hashing, uint32_t timeout_ms);
void visits_close(struct bridge_visit *visits, unsigned nr);

#endif
