/* SPDX-License-Identifier: MIT */
/* What a request of HTTP asks of the coordinator; weft-pool(1) has the table.  One thread. */
#ifndef WEFT_FABRIC_POOL_API_H
#define WEFT_FABRIC_POOL_API_H

#include "fabric/pool/pool.h"

struct pool_request {
	const char *method, *path; /* "GET", "/v1/status"; a stranger's */
	/* An argument behind the path's '?'; NULL: it is not there, or has no value. */
	const char *(*argument)(void *ctx, const char *key);
	void *ctx;
	const json_t *body; /* NULL: there is none */
};

/*
 * Carries it out.  Returns the status, with a new reference in *ret: the answer, or {"error": text,
 * "code": "ENOSPC"}; NULL: no memory.
 */
unsigned pool_api(struct pool *pool, const struct pool_caller *caller,
	const struct pool_request *request, json_t **ret);

/* Of an error: its status, and the answer. */
unsigned pool_api_error(const struct weft_error *err, json_t **ret);

/* /metrics, in the format of Prometheus; to be freed; NULL: no memory. */
char *pool_api_metrics(struct pool *pool);

#endif
