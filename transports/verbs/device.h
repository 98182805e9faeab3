/* SPDX-License-Identifier: MIT */
/*
 * What both ends share: the machine's RDMA devices, the meaning of their errors, options of
 * connections, message buffers.  Functions without state of their own; any thread.
 */
#ifndef WEFT_TRANSPORTS_VERBS_DEVICE_H
#define WEFT_TRANSPORTS_VERBS_DEVICE_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "transports/verbs/proof.h"

enum {
	/*
	 * A dead peer is noticed after (RETRIES + 1) * 4.096 us * 2^ACK_TIMEOUT = 0.94 s.  7
	 * retries would mean "for ever" to some devices (rxe); for RNR, 7 means "for ever" to all
	 * devices.
	 */
	VERBS_RETRIES = 6,
	VERBS_ACK_TIMEOUT = 15,
	VERBS_RESOLVE_MS = 1000,
	VERBS_BACKLOG = 64,
};

/* The message on a machine without RDMA. */
#define VERBS_NO_DEVICE_TEXT "this machine has no RDMA device (`rdma link` shows them; " \
	"`rdma link add rxe0 type rxe netdev ETH` makes a software one)"

/*
 * All RDMA devices, as rdma_cm opened them: free with rdma_free_devices().  -ENODEV: none; -EACCES
 * and such: the device files cannot be used.
 */
int verbs_devices(struct ibv_context ***ret, int *ret_nr, struct weft_error *err);

/* The negative errno of a failed completion. */
int verbs_wc_errno(enum ibv_wc_status status);

/*
 * The negative errno of a connection manager's event that ends or refuses a connection; 0: this
 * event does not.  Fills err for people; peer: "10.0.0.2:10809".  The donor's reason is in the
 * event's private data, and is part of the text.
 */
int verbs_event_errno(const struct rdma_cm_event *event, const char *peer, struct weft_error *err);

/*
 * Sets our ACK timeout; before rdma_connect() or rdma_accept().  A device may refuse, and keeps its
 * own.
 */
void verbs_set_timeout(struct rdma_cm_id *id);

/* For people: "rxe0 gid 1 10.9.0.1:20049 -> 10.9.0.2:20049".  The id's route is known. */
void verbs_path_text(struct rdma_cm_id *id, char *buf, size_t len);
/* The ends of a connection that is established, or being accepted; `donor`: we are the donor. */
void verbs_ends_of(struct rdma_cm_id *id, bool donor, struct verbs_ends *ret);
/* "10.9.0.2:20049" */
void verbs_address_text(const struct sockaddr *address, char *buf, size_t len);

/*
 * Whether this process may pin `bytes`: 0, or -ENOMEM with the limit and the way to raise it.  (The
 * kernel limits pinned memory except for processes that may ignore the limit.)
 */
int verbs_memlock_check(uint64_t bytes, struct weft_error *err);
/* A registration failed with errno `code`: fills err. Returns -code. */
int verbs_reg_failed(int code, uint64_t bytes, struct weft_error *err);

/*
 * len bytes of zeros to register, on pages of their own: the kernel pins whole pages, and does not
 * give them to children of a program that called ibv_fork_init(3). NULL: out of memory.  Freed by
 * free(3).
 */
void *verbs_pages_new(size_t len);

/* Makes the descriptor of an event channel or completion channel non-blocking. */
int verbs_nonblocking(int fd);

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
