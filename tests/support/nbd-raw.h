/* SPDX-License-Identifier: MIT */
/*
 * A raw NBD client for tests: bytes as the test wants them, right or wrong.  With a server
 * connection it drives that one too, in the same thread: nothing ever waits for another thread.
 */
#ifndef WEFT_TESTS_NBD_RAW_H
#define WEFT_TESTS_NBD_RAW_H

#include "fabric/nbd/server.h"

struct nbd_raw {
	int fd;
	struct nbd_tls *tls;     /* started by the test, ended by nbd_raw_close(); NULL: none */
	struct nbd_conn *server; /* NULL: somebody else serves the other end */
	int server_result;       /* what nbd_conn_receive() or _send() ended with; 1: goes on */
	size_t step;             /* bytes per write(2); 0: all at once */
	uint32_t structured;
};

/* A socketpair with a server connection at the other end.  Asserts that it works. */
void nbd_raw_pair(struct nbd_raw *raw, const struct nbd_service *service, void *user);
/* Closes both ends. */
void nbd_raw_close(struct nbd_raw *raw);
/* Lets the server receive and send until it waits for us. */
void nbd_raw_pump(struct nbd_raw *raw);

/* STARTTLS, and TLS's handshake with these credentials.  0, or -errno. */
int nbd_raw_starttls(struct nbd_raw *raw, struct nbd_tls_credentials *credentials);

/* 0, or -errno: -ECONNRESET when the server hung up, -ETIMEDOUT after 30 s. */
int nbd_raw_send(struct nbd_raw *raw, const void *data, size_t n);
int nbd_raw_recv(struct nbd_raw *raw, void *data, size_t n);
/* True when the server has hung up and nothing is left to read. */
bool nbd_raw_ended(struct nbd_raw *raw);

/* The greeting, and our flags. */
int nbd_raw_hello(struct nbd_raw *raw, uint32_t flags);
int nbd_raw_option(struct nbd_raw *raw, uint32_t option, const void *data, uint32_t n);
/*
 * One reply; at most cap bytes of its data are kept. Returns its type, or 0 when the connection
 * ended.
 */
uint32_t nbd_raw_reply(struct nbd_raw *raw, uint32_t option, void *data, uint32_t cap,
	uint32_t *ret_len);
/* Replies until the final one, whose type is returned. */
uint32_t nbd_raw_final(struct nbd_raw *raw, uint32_t option);
/* Data of INFO and GO; returns its length. */
uint32_t nbd_raw_info_data(uint8_t *p, const char *name, const uint16_t *infos, unsigned n);
/* Data of LIST_ and SET_META_CONTEXT. */
uint32_t nbd_raw_context_data(uint8_t *p, const char *name, const char *const *queries, unsigned n);
/* Greeting, structured replies and base:allocation if asked for, GO of name.  0, or -EPROTO. */
int nbd_raw_go(struct nbd_raw *raw, const char *name, bool structured);

int nbd_raw_request(struct nbd_raw *raw, uint16_t flags, uint16_t type, uint64_t cookie,
	uint64_t off, uint32_t len);
struct nbd_raw_answer {
	uint32_t error; /* NBD_E… */
	uint64_t cookie;
	uint16_t type; /* of the last chunk; 0 for simple replies */
	uint32_t len;  /* of its payload */
	uint64_t off;  /* OFFSET_DATA */
	bool done;
};
/*
 * One simple reply or chunk; data_len bytes of READ data go to data when there was no error, or
 * fewer if more chunks follow.
 */
int nbd_raw_answer(struct nbd_raw *raw, struct nbd_raw_answer *ret, void *data, uint32_t data_len);
/*
 * Request and answer of a command; write data or read data in data. Returns the NBD error, or
 * -errno.
 */
int nbd_raw_command(struct nbd_raw *raw, uint16_t flags, uint16_t type, uint64_t off, uint32_t len,
	void *data);

#endif
