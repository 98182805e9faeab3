/* SPDX-License-Identifier: MIT */
/*
 * A service for tests, benches and fuzzers: exports of plain memory behind the NBD engine.
 * Requests complete at once, or, when `hold` is set, when the test says so.
 * Owned by the thread of the connections that use it, but for mem, which all may share.
 */
#ifndef WEFT_TESTS_NBD_MEMORY_H
#define WEFT_TESTS_NBD_MEMORY_H

#include "fabric/nbd/server.h"

enum { NBD_MEMORY_NAMES = 4 };

struct nbd_memory {
	struct nbd_service service; /* nbd_conn_new(fd, &m->service, m, …) */
	const char *names[NBD_MEMORY_NAMES]; /* the same memory under each */
	const char *description;
	uint8_t *mem;
	uint8_t *hashes; /* NULL: the service does not hash */
	uint32_t hashes_used; /* bytes */
	uint64_t size_bytes;
	uint16_t flags;
	uint32_t min_block_bytes, max_block_bytes;
	bool zero_extents; /* BLOCK_STATUS finds runs of zero pages; else all is data */

	bool hold;                 /* submitted requests wait in held[] */
	struct nbd_request *held[NBD_CONN_REQUESTS];
	unsigned nr_held;
	unsigned nr_buffers;       /* prepare() says -EAGAIN beyond; 0: no limit */
	int prepare_error, error;  /* the next requests' outcome */
	int open_error;
	const char *open_message;
	bool huge_list;
	const char *answer; /* to each question; NULL: question_error */
	int question_error;
	const char *question_message;

	unsigned nr_in_use; /* buffers */
	unsigned nr_prepared, nr_submitted, nr_released, nr_opened, nr_closed, nr_received;
	bool clean;
	struct weft_hello hello; /* of the last open() */
	char opened[64];
	unsigned nr_questions;
	char question[256]; /* the beginning of the last */
};

/* Every flag on; 1-byte blocks; names[0] = "". */
void nbd_memory_init(struct nbd_memory *m, void *mem, uint64_t size_bytes);
/* The service hashes from now on, into WEFT_HASH_MAX_BLOCKS hashes for all that is not answered. */
void nbd_memory_hashes(struct nbd_memory *m, uint8_t *hashes);
/* The service answers questions from now on, with this text, or NULL. */
void nbd_memory_answer(struct nbd_memory *m, const char *answer);
/* Completes held[i] with the error (0: does the work). */
void nbd_memory_complete(struct nbd_memory *m, unsigned i, int error);

#endif
