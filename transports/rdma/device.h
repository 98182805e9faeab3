/* SPDX-License-Identifier: MIT */
/*
 * What all that uses RDMA shares: the machine's RDMA devices, the meaning of their errors, options
 * of connections.  Functions without state of their own; any thread.
 */
#ifndef WEFT_TRANSPORTS_RDMA_DEVICE_H
#define WEFT_TRANSPORTS_RDMA_DEVICE_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"

enum {
	/*
	 * A dead peer is noticed after (RETRIES + 1) * 4.096 us * 2^ACK_TIMEOUT = 0.94 s.  7
	 * retries would mean "for ever" to some devices (rxe); for RNR, 7 means "for ever" to all
	 * devices.
	 */
	WEFT_RDMA_RETRIES = 6,
	WEFT_RDMA_ACK_TIMEOUT = 15,
	WEFT_RDMA_RESOLVE_MS = 1000,
	WEFT_RDMA_BACKLOG = 64,
	/* Reasons of a rejection, InfiniBand spec 12.6.7.2. */
	WEFT_RDMA_REJ_INVALID_SERVICE_ID = 8,
	WEFT_RDMA_REJ_CONSUMER_DEFINED = 28,
};

/* The message on a machine without RDMA. */
#define WEFT_RDMA_NO_DEVICE_TEXT "this machine has no RDMA device (`rdma link` shows them; " \
	"`rdma link add rxe0 type rxe netdev ETH` makes a software one)"

/*
 * All RDMA devices, as rdma_cm opened them: free with rdma_free_devices().  -ENODEV: none; -EACCES
 * and such: the device files cannot be used.
 */
int weft_rdma_devices(struct ibv_context ***ret, int *ret_nr, struct weft_error *err);

/* The negative errno of a failed completion. */
int weft_rdma_wc_errno(enum ibv_wc_status status);

/* What is spoken over RDMA, in sentences for people. */
struct weft_rdma_protocol {
	const char *name;   /* "SRP" */
	const char *advice; /* behind "nobody listens there"; "": none */
};

/*
 * The negative errno of a connection manager's event that ends or refuses a connection; 0: this
 * event does not.  Fills err for people; peer: "10.0.0.2:10809".
 */
int weft_rdma_event_errno(const struct rdma_cm_event *event,
	const struct weft_rdma_protocol *protocol, const char *peer,
	struct weft_error *err);

/*
 * Sets our ACK timeout; before rdma_connect() or rdma_accept().  A device may refuse, and keeps its
 * own.
 */
void weft_rdma_set_timeout(struct rdma_cm_id *id);

/* For people: "rxe0 gid 1 10.9.0.1:20049 -> 10.9.0.2:20049".  The id's route is known. */
void weft_rdma_path_text(struct rdma_cm_id *id, char *buf, size_t len);
/* "10.9.0.2:20049" */
void weft_rdma_address_text(const struct sockaddr *address, char *buf, size_t len);

/*
 * Whether this process may pin `bytes`: 0, or -ENOMEM with the limit and the way to raise it.  (The
 * kernel limits pinned memory except for processes that may ignore the limit.)
 */
int weft_rdma_memlock_check(uint64_t bytes, struct weft_error *err);
/* A registration failed with errno `code`: fills err. Returns -code. */
int weft_rdma_reg_failed(int code, uint64_t bytes, struct weft_error *err);

/*
 * len bytes of zeros to register, on pages of their own: the kernel pins whole pages, and does not
 * give them to children of a program that called ibv_fork_init(3). NULL: out of memory.  Freed by
 * free(3).
 */
void *weft_rdma_pages_new(size_t len);

/*
 * Puts the id's queue pair into the error state, by a disconnection if it was established.  0 also
 * if there is none; else the device's error.
 */
int weft_rdma_end_qp(struct rdma_cm_id *id, bool established);

/*
 * A step of connecting to peer failed with errno: fills err for people.  how: "over RDMA"; what:
 * "rdma_connect".
 */
void weft_rdma_step_failed(const char *peer, const char *how, const char *what,
	struct weft_error *err);

/* Makes the descriptor of an event channel or completion channel non-blocking. */
int weft_rdma_nonblocking(int fd);

#endif
