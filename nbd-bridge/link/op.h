/* SPDX-License-Identifier: MIT */
/*
 * An operation as a link carries it, and lists of such.
 *
 * An operation is on the free list, on its link's queue (to be posted), with the transport
 * (posted_ns > 0), or on its link's parked list (its fate is unknown).
 */
#ifndef WEFT_NBD_BRIDGE_LINK_OP_H
#define WEFT_NBD_BRIDGE_LINK_OP_H

#include "fabric/transport.h"

struct bridge_link;
struct bridge_request;

struct bridge_op {
	struct tp_op tp;           /* tp.user: the operation */
	/* the owner's, not looked at by the link; NULL: the link's probe */
	struct bridge_request *rq;
	uint64_t made_ns; /* the owner's too */
	struct bridge_link *link;
	uint64_t posted_ns;
	struct bridge_op *next;
};

struct op_list {
	struct bridge_op *head, **tail;
	unsigned nr;
};

static inline void op_list_init(struct op_list *list)
{
	list->head = NULL;
	list->tail = &list->head;
	list->nr = 0;
}

static inline void op_list_push(struct op_list *list, struct bridge_op *op)
{
	op->next = NULL;
	*list->tail = op;
	list->tail = &op->next;
	list->nr++;
}

static inline struct bridge_op *op_list_pop(struct op_list *list)
{
	struct bridge_op *op = list->head;

	if (!op)
		return NULL;
	list->head = op->next;
	if (!list->head)
		list->tail = &list->head;
	list->nr--;
	return op;
}

#endif
