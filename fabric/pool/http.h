/* SPDX-License-Identifier: MIT */
/*
 * The coordinator's server of HTTP, on libmicrohttpd: what comes is bounded, asked of whom it is
 * (callers.h), and answered (api.h).  On the thread of the loop, which nothing here keeps waiting
 * but the state's disk.
 */
#ifndef WEFT_FABRIC_POOL_HTTP_H
#define WEFT_FABRIC_POOL_HTTP_H

#include "fabric/base/loop.h"
#include "fabric/listen.h"
#include "fabric/pool/callers.h"
#include "fabric/pool/pool.h"

enum {
	POOL_BODY_MAX = 1 << 20,
	POOL_CONNECTIONS_MAX = 4096,
	POOL_CONNECTIONS_OF_ONE = 64, /* address; over a Unix socket: user */
	POOL_IDLE_S = 30,             /* before a connection that says nothing is ended */
};

struct pool_http;

/*
 * Serves the socket, which becomes its own.  *pool is NULL while another coordinator leads.  tls:
 * HTTPS, with what the callers have of certificates. 0, or -errno.
 */
int pool_http_new(struct weft_loop *loop, const struct weft_listening *socket, bool tls,
	struct pool *const *pool, struct pool_callers *callers, struct pool_http **ret,
	struct weft_error *err);
void pool_http_free(struct pool_http *http); /* takes NULL */

#endif
