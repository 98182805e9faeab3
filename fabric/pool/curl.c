/* SPDX-License-Identifier: MIT */
#include "fabric/pool/curl.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"

static size_t on_data(char *data, size_t size, size_t nr, void *ctx)
{
	struct pool_answer *answer = ctx;
	const size_t len = size * nr;
	char *more = answer->len + len > answer->most
		? NULL
		: realloc(answer->text, answer->len + len + 1);

	if (!more)
		return 0;
	memcpy(more + answer->len, data, len);
	answer->text = more;
	answer->len += len;
	return len;
}

static void init_library(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

CURL *pool_curl_new(char *why)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, init_library);
	CURL *curl = curl_easy_init();
	if (!curl)
		return NULL;
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "weft/" WEFT_VERSION);
	curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	return curl;
}

int pool_curl_trust(CURL *curl, const char *dir, struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *ca = NULL, *cert = NULL, *key = NULL;

	if (asprintf(&ca, "%s/ca-cert.pem", dir) < 0 ||
		asprintf(&cert, "%s/client-cert.pem", dir) < 0 ||
		asprintf(&key, "%s/client-key.pem", dir) < 0)
		return weft_error_set(err, ENOMEM, "no memory");
	if (access(ca, R_OK) < 0) {
		int r = -errno;

		return weft_error_set(err, -r, "cannot read %s: %s", ca, strerror(-r));
	}
	curl_easy_setopt(curl, CURLOPT_CAINFO, ca);
	/* This authority alone: libcurl with GnuTLS takes the system's as well. */
	curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
	if (access(cert, F_OK) == 0) {
		curl_easy_setopt(curl, CURLOPT_SSLCERT, cert);
		curl_easy_setopt(curl, CURLOPT_SSLKEY, key);
	}
	return 0;
}
