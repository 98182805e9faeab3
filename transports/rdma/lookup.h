/* SPDX-License-Identifier: MIT */
/*
 * The address of a host, without waiting for it: names are resolved on a thread of a crew.  So is a
 * donor asked for a pass (fabric/key/pass.h), over TLS, by whoever has certificates.
 */
#ifndef WEFT_TRANSPORTS_RDMA_LOOKUP_H
#define WEFT_TRANSPORTS_RDMA_LOOKUP_H

#include <sys/socket.h>

#include "fabric/base/crew.h"
#include "fabric/base/error.h"
#include "fabric/key/key.h"

struct weft_rdma_lookup;
struct tp_target;

/*
 * Of the target's host and this port; and for a pass, if the target has certificates.  Numeric
 * addresses are there at once.  The target with certificates has get_pass().  0, or -errno.
 */
int weft_rdma_lookup_start(struct weft_crew *crew, const struct tp_target *target,
	const char *port, struct weft_rdma_lookup **ret);
/* Readable once the result is there. */
int weft_rdma_lookup_fd(const struct weft_rdma_lookup *lookup);
/*
 * 0, with the pass in *ret_pass if there was one to ask for; -EAGAIN: not yet; -EHOSTUNREACH: no
 * address; or as ask() of struct tp_driver, with why.
 */
int weft_rdma_lookup_result(struct weft_rdma_lookup *lookup, struct sockaddr_storage *ret,
	struct weft_key *ret_pass, struct weft_error *err);
/* Also while the thread still works: it asks no longer, and cleans up.  Takes NULL. */
void weft_rdma_lookup_free(struct weft_rdma_lookup *lookup);

#endif
