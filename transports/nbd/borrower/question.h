/* SPDX-License-Identifier: MIT */
/* Questions to a donor itself over NBD, and the connection that they go over. */
#ifndef WEFT_TRANSPORTS_NBD_BORROWER_QUESTION_H
#define WEFT_TRANSPORTS_NBD_BORROWER_QUESTION_H

#include <jansson.h>
#include <stdint.h>

#include "fabric/driver.h"

/*
 * See question() and hang_up() of struct tp_driver.  Control path: blocks and allocates.  A talk
 * belongs to one thread at a time.
 */
int nbd_put_question(const struct weft_uri *uri, const struct weft_key *key,
	const char *certificates, uint32_t timeout_ms, int cancel_fd, struct tp_talk **io_talk,
	const json_t *question, json_t **ret_answer, struct weft_error *err);
void nbd_hang_up(struct tp_talk *talk);

#endif
