/* SPDX-License-Identifier: MIT */
/*
 * The client that all servers are measured with.  libnbd shakes hands; then a raw loop drives the
 * socket: `depth` requests in flight a connection, everything that has come taken with one receive,
 * everything that may be asked again asked with one send.  A thread a connection.
 *
 * Every 512 bytes of the span carry a stamped word, a function of the place and of the generation
 * of the write; each word that is read is checked, each slice of writes is read back in part.
 */
#ifndef PERF_HARNESS_NBD_CLIENT_H
#define PERF_HARNESS_NBD_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/histogram.h"

struct perf_nbd_target {
	char unix_path[108]; /* "": TCP to host:port */
	const char *host;    /* an IPv4 address; NULL: 127.0.0.1 */
	uint16_t port;
	const char *export_name;
	/*
	 * The floor's echo: no handshake but `hello`, nothing behind the sizes, so the stamps
	 * are looked at but not judged.
	 */
	bool bare;
	struct perf_echo_hello {
		uint32_t write;      /* 0: payload in the replies, 1: in the requests */
		uint32_t len;        /* payload bytes */
		uint32_t receive;    /* enum perf_echo_receive */
		uint32_t send;       /* enum perf_echo_send */
		uint32_t chunk;      /* bytes a send or receive at most; 0: no limit */
		uint32_t sndbuf;     /* SO_SNDBUF and SO_RCVBUF; 0: as they are */
		uint32_t spin_ns;    /* RECEIVE_SPIN */
		uint32_t busy_us;    /* SO_BUSY_POLL */
		/* 0: one payload for all; else payloads lie in RAM of this size */
		uint32_t span;
	} hello;
};

enum perf_echo_receive {
	PERF_RECEIVE_BLOCK,    /* recv(2) */
	PERF_RECEIVE_POLL,     /* poll(2), then recv(2) */
	/* recv(2) with MSG_DONTWAIT, and when there is nothing a blocking one */
	PERF_RECEIVE_TRY,
	PERF_RECEIVE_TRY_POLL, /* … and when there is nothing poll(2) */
	PERF_RECEIVE_SPIN,     /* MSG_DONTWAIT for a while, then block */
	PERF_RECEIVE_BEST,     /* not sent: TRY_POLL by Unix socket, BLOCK by TCP, as measured */
};

enum perf_echo_send {
	PERF_SEND_FLAT,  /* headers and payloads in one buffer, one send(2) a batch */
	PERF_SEND_IOVEC, /* header and payload an iovec each, one sendmsg(2) a batch */
	PERF_SEND_MORE,  /* for each reply: header with MSG_MORE, then payload */
	PERF_SEND_EACH,  /* one send(2) a reply */
	/* for each reply: header, then payload: the client wakes up while the payload is copied */
	PERF_SEND_EARLY,
};

struct perf_nbd_load {
	bool write;
	uint32_t len;    /* bytes a request: 512 to 4 MiB, a multiple of 512 */
	unsigned depth;  /* requests in flight a connection: at most 64 */
	unsigned conns;  /* at most 16 */
	/* bytes from the export's start that requests go to, evenly and at random */
	uint64_t span;
	uint64_t total;  /* 0: for slice_ns; else the whole span once, in order */
	uint16_t generation; /* of the words written */
};

struct perf_nbd_result {
	uint64_t elapsed_ns; /* from the first send to the end of the slice */
	uint64_t ops;        /* completed within it */
	uint64_t all_ops;    /* with those in flight at its end: what the CPU time was used for */
	uint64_t words;      /* stamps looked at */
	uint64_t receives, sends;
	struct weft_histogram latency; /* ns */
};

struct perf_nbd_client;

/* 0; -ECONNREFUSED, …; -EPROTO: handshake.  why: 256 bytes. */
int perf_nbd_open(const struct perf_nbd_target *target, const struct perf_nbd_load *load,
	struct perf_nbd_client **ret, char *why);
/* 0; -EIO: the server said so; -EILSEQ: wrong bytes; -EPIPE: it hung up. */
int perf_nbd_run(struct perf_nbd_client *client, uint64_t slice_ns, struct perf_nbd_result *ret,
	char *why);
/* Reads back some of what the last slice wrote. */
int perf_nbd_check(struct perf_nbd_client *client, char *why);
void perf_nbd_close(struct perf_nbd_client *client);

/* Stamps the whole span with generation 1. */
int perf_nbd_populate(const struct perf_nbd_target *target, uint64_t span, char *why);

#endif
