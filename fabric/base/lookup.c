/* SPDX-License-Identifier: MIT */
/* Addresses of hosts; see lookup.h.  The list only grows, under the lock. */
#include "fabric/base/lookup.h"

#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/resident.h"
#include "fabric/base/util.h"

struct kept {
	struct kept *next;
	struct weft_lookup found;
	const char *port;
	char host[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kept *all;

static const struct kept *find(const char *host, const char *port)
{
	const struct kept *kept = all;

	while (kept && (strcmp(kept->host, host) != 0 || strcmp(kept->port, port) != 0))
		kept = kept->next;
	return kept;
}

static bool find_kept(const char *host, const char *port, struct weft_lookup *ret)
{
	pthread_mutex_lock(&lock);
	const struct kept *kept = find(host, port);
	if (kept)
		*ret = kept->found;
	pthread_mutex_unlock(&lock);
	return kept;
}

/* Without memory for it the next one asks again. */
static void keep(const char *host, const char *port, const struct weft_lookup *found)
{
	const size_t host_bytes = strlen(host) + 1, port_bytes = strlen(port) + 1;
	struct kept *kept = malloc(sizeof(*kept) + host_bytes + port_bytes);

	if (!kept)
		return;
	memcpy(kept->host, host, host_bytes);
	kept->port = memcpy(kept->host + host_bytes, port, port_bytes);
	kept->found = *found;
	pthread_mutex_lock(&lock);
	kept->next = all;
	all = kept;
	pthread_mutex_unlock(&lock);
}

static int ask(const char *host, const char *port, int flags, struct weft_lookup *ret)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags}, *list = NULL;
	int r = getaddrinfo(host, port, &hints, &list);

	ret->nr = 0;
	for (const struct addrinfo *ai = r == 0 ? list : NULL; ai && ret->nr < WEFT_LOOKUP_MAX;
		ai = ai->ai_next) {
		memcpy(&ret->at[ret->nr], ai->ai_addr, ai->ai_addrlen);
		ret->len[ret->nr++] = ai->ai_addrlen;
	}
	if (list)
		freeaddrinfo(list);
	return r;
}

int weft_lookup(const char *host, const char *port, int flags, struct weft_lookup *ret)
{
	if (weft_is_resident() && find_kept(host, port, ret))
		return 0;
	int r = ask(host, port, flags, ret);
	if (r == 0 && weft_is_resident())
		keep(host, port, ret);
	return r;
}
