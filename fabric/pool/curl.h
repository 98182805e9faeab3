/* SPDX-License-Identifier: MIT */
/* How the pool's parts use libcurl: nothing of the environment, no other protocol, bounded answers.
 */
#ifndef WEFT_FABRIC_POOL_CURL_H
#define WEFT_FABRIC_POOL_CURL_H

#include <curl/curl.h>

#include "fabric/base/error.h"

struct pool_answer {
	char *text; /* to be freed */
	size_t len, most;
};

/* why: CURL_ERROR_SIZE bytes.  CURLOPT_WRITEDATA is to be a struct pool_answer.  NULL: no memory.
 */
CURL *pool_curl_new(char *why);
/* ca-cert.pem of the directory, and client-cert.pem with client-key.pem if that is there. */
int pool_curl_trust(CURL *curl, const char *dir, struct weft_error *err);

#endif
