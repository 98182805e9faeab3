/* SPDX-License-Identifier: MIT */
/*
 * The donor's SRP side: stock initiators log in over rdma_cm and have a region as a disk.  Each
 * region is a target of its own, with the region at LUN 0.
 *
 * Threads: the loop's; srp_listener_status() any.
 */
#ifndef WEFT_TRANSPORTS_SRP_DONOR_LISTENER_H
#define WEFT_TRANSPORTS_SRP_DONOR_LISTENER_H

#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "fabric/base/crew.h"
#include "fabric/base/loop.h"
#include "fabric/donor/donor.h"
#include "fabric/listener.h"
#include "transports/rdma/acceptor.h"
#include "transports/srp/donor/hosts.h"
#include "transports/srp/donor/unit.h"

struct srp_channel;

struct srp_counts {
	_Atomic uint64_t commands, read_bytes, written_bytes;
	_Atomic uint64_t by_key[16]; /* commands that ended with sense data, by its key */
};

struct srp_listener_config {
	const struct srp_hosts *hosts; /* that may come; NULL: any may; outlives the listener */
	bool may_be_plaintext; /* hosts are let in although there are keys */
	uint64_t chunk_bytes;  /* 0: 512 MiB; of a memory registration */
};

struct srp_listener {
	struct weft_listener base;
	struct weft_rdma_acceptor acceptor; /* its `nr` are channels */
	struct weft_donor *donor;
	struct srp_listener_config config;
	struct srp_units units;
	struct weft_crew crew; /* whose threads flush files */
	pthread_mutex_t search_lock; /* of a login that reads the donor's directory */
	/* under the acceptor's lock */
	struct srp_channel *channels;
	unsigned nr_pending; /* channels without an answer to their login */
	struct srp_counts counts; /* of channels that have ended */
};

/*
 * Listens on the address (port 0: any).  donor and loop must outlive it.  -ENODEV: no RDMA device;
 * -EADDRINUSE, -EADDRNOTAVAIL; -ENOMEM.
 */
int srp_listener_new(struct weft_donor *donor, struct weft_loop *loop,
	const struct sockaddr *address, const struct srp_listener_config *config,
	struct srp_listener **ret, struct weft_error *err);
uint16_t srp_listener_port(const struct srp_listener *listener);
/* "srp:5555:10.9.0.1", and others with commas between, where it listens on all. */
void srp_listener_offers(const struct srp_listener *listener, char *buf, size_t len);
/* As those of struct weft_listener_ops. */
void srp_listener_stop(struct srp_listener *listener);
void srp_listener_free(struct srp_listener *listener);
void srp_listener_status(struct srp_listener *listener, struct weft_listener_status *ret);

#endif
