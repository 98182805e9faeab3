/* SPDX-License-Identifier: MIT */
/*
 * What both ends of a control connection share: message buffers, what a rejection says, and whose
 * ends the messages are between.  Any thread.
 */
#ifndef WEFT_TRANSPORTS_VERBS_MESSAGES_H
#define WEFT_TRANSPORTS_VERBS_MESSAGES_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "transports/rdma/device.h"
#include "transports/verbs/proof.h"

/*
 * As weft_rdma_event_errno().  The donor's reason for a rejection is in the event's private data,
 * and is part of the text.
 */
int verbs_event_errno(const struct rdma_cm_event *event, const char *peer, struct weft_error *err);

/* The ends of a connection that is established, or being accepted; `donor`: we are the donor. */
void verbs_ends_of(struct rdma_cm_id *id, bool donor, struct verbs_ends *ret);

/*
 * Message buffers of one control connection: the first nr_recv are posted for receiving, the others
 * are for sending.
 */
struct verbs_bufs {
	uint8_t *data; /* nr * VERBS_MSG_MAX */
	struct ibv_mr *mr;
	unsigned nr_recv, nr;
	bool busy[32]; /* sending */
};

int verbs_bufs_init(struct verbs_bufs *bufs, struct ibv_pd *pd, unsigned nr_recv, unsigned nr_send,
	struct weft_error *err);
/* After the queue pair was destroyed.  Takes a zeroed struct that was never initialised. */
void verbs_bufs_fini(struct verbs_bufs *bufs);
/* Posts receive buffer i < nr_recv, with wr_id. 0, or -errno. */
int verbs_bufs_post_recv(struct verbs_bufs *bufs, struct ibv_qp *qp, unsigned i, uint64_t wr_id);
static inline uint8_t *verbs_bufs_at(struct verbs_bufs *bufs, unsigned i)
{
	return bufs->data + (size_t)i * VERBS_MSG_MAX;
}
/*
 * Packs and sends, with the tag that the proof asks for.  wr_id: wr_base + the number of the
 * buffer, which verbs_bufs_sent() gives back at its completion.  0; -EAGAIN: no buffer is free; or
 * -errno.
 */
int verbs_bufs_send(struct verbs_bufs *bufs, struct ibv_qp *qp, const struct verbs_msg *msg,
	struct verbs_proof *proof, uint64_t wr_base);
void verbs_bufs_sent(struct verbs_bufs *bufs, unsigned i);
/* Whether no message is on its way. */
bool verbs_bufs_all_sent(const struct verbs_bufs *bufs);

#endif
