/* SPDX-License-Identifier: MIT */
/*
 * The borrower's side, private: what each of the files has for the others.  A file uses those above
 * it only: conn.c, then client-io.c (operations out), client-hello.c, client-connect.c,
 * client-progress.c, and client.c.
 */
#ifndef WEFT_TRANSPORTS_VERBS_BORROWER_CLIENT_H
#define WEFT_TRANSPORTS_VERBS_BORROWER_CLIENT_H

#include "transports/verbs/borrower/conn.h"

/* client-changes.c */

/* Once the size is known.  -ENOMEM. */
int verbs_changes_init(struct verbs_conn *conn);
void verbs_changes_fini(struct verbs_conn *conn);
/* A WRITE of len > 0 bytes completed. */
void verbs_changes_note(struct verbs_conn *conn, uint64_t off, uint64_t len);
bool verbs_changes_any(struct verbs_conn *conn);
/* Moves as many as there is room for into a FLUSH; and back, if it could not be sent. */
void verbs_changes_take(struct verbs_conn *conn, struct verbs_msg *msg);
void verbs_changes_put_back(struct verbs_conn *conn, const struct verbs_msg *msg);

/* client-io.c */

/*
 * Allocates what operations need, once the device is known; 0, or -errno with err.
 * verbs_conn_free() frees it.
 */
int verbs_io_init(struct verbs_conn *conn, struct weft_error *err);
int verbs_io_post(struct tp_conn *conn, struct tp_op *const *ops, unsigned n);
int verbs_post_epoch_read(struct verbs_conn *conn);
uint64_t verbs_epoch_read(const struct verbs_conn *conn);
int verbs_send(struct verbs_conn *conn, const struct verbs_msg *msg);
/*
 * An operation that the donor carries out waits in `asking`, by way of op->next; priv[0] is its
 * slot.
 */
void verbs_ask(struct verbs_conn *conn, struct tp_op *op);
/* REQUESTs that waited for a buffer, or for others to be answered. */
void verbs_send_requests(struct verbs_conn *conn);
/* A REPLY came. */
void verbs_on_reply(struct verbs_conn *conn, const struct verbs_msg *msg);
/*
 * What a failed connection leaves: nothing waits for work requests that cannot touch memory any
 * more.
 */
void verbs_give_up(struct verbs_conn *conn, bool gone);

/* The operation in the slot is done. */
static inline void verbs_finish_slot(struct verbs_conn *conn, unsigned i, int status)
{
	struct tp_op *op = conn->slots[i].op;

	conn->slots[i].op = NULL;
	conn->slots[i].next_free = (uint16_t)conn->free_slot;
	conn->free_slot = i;
	op->status = status;
	op->next = NULL;
	*conn->done_end = op;
	conn->done_end = &op->next;
}

/* Where READs of the epoch for this slot go; conn->depth: the first READ's. */
static inline uint64_t *verbs_scratch_word(struct verbs_conn *conn, unsigned i)
{
	return (uint64_t *)(conn->scratch + VERBS_ZERO_BYTES) + i;
}

/* Where VERBS_SAID_MAX times the word is (WEFT_SAID_OPEN, WEFT_SAID_CLOSED). */
static inline uint8_t *verbs_scratch_said(struct verbs_conn *conn, uint8_t word)
{
	return (uint8_t *)verbs_scratch_word(conn, conn->depth + 1) +
		(word == WEFT_SAID_OPEN ? 0 : VERBS_SAID_MAX);
}

/* client-hello.c */

/* The control connection is established. */
int verbs_say_hello(struct verbs_conn *conn);
/* A message came: into conn->msg.  0; or -errno, and the connection has failed with why. */
int verbs_receive(struct verbs_conn *conn, const uint8_t *buf, size_t len);
void verbs_on_challenge(struct verbs_conn *conn);
void verbs_on_refuse(struct verbs_conn *conn);

/* client-connect.c */

int verbs_connect(struct tp *tp, const struct tp_target *target, struct tp_conn **ret,
	struct weft_error *err);
/* The connection manager's next step.  False: the event is none. */
bool verbs_connect_step(struct verbs_conn *conn, const struct rdma_cm_event *event);
/* While connecting: looks for what other threads have done for it. */
void verbs_connect_look(struct verbs_conn *conn);
void verbs_connect_timed_out(struct verbs_conn *conn);
void verbs_on_message(struct verbs_conn *conn);
void verbs_on_epoch(struct verbs_conn *conn);

/* client-progress.c */

int verbs_io_progress(struct tp_conn *conn, struct tp_op **done, unsigned max);
int verbs_io_arm(struct tp_conn *conn);

#endif
