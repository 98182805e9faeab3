/* SPDX-License-Identifier: MIT */
/*
 * Resolves a host's name in a detached thread.  Invariant: the caller and the thread have a
 * reference each; dropping the second one frees.
 */
#include "transports/verbs/borrower/lookup.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/thread.h"

struct verbs_lookup {
	_Atomic int refs;
	_Atomic bool done;
	int fd;
	int error; /* of getaddrinfo(3) */
	struct sockaddr_storage address;
	char *host, *port;
};

static void put(struct verbs_lookup *lookup)
{
	if (atomic_fetch_sub(&lookup->refs, 1) > 1)
		return;
	close(lookup->fd);
	free(lookup->host);
	free(lookup->port);
	free(lookup);
}

static void resolve(struct verbs_lookup *lookup, int flags)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags}, *list = NULL;

	lookup->error = getaddrinfo(lookup->host, lookup->port, &hints, &list);
	if (lookup->error == 0)
		memcpy(&lookup->address, list->ai_addr, list->ai_addrlen);
	if (list)
		freeaddrinfo(list);
}

static void finish(struct verbs_lookup *lookup)
{
	uint64_t one = 1;

	atomic_store(&lookup->done, true);
	(void)!write(lookup->fd, &one, sizeof(one));
}

static void *lookup_main(void *ctx)
{
	struct verbs_lookup *lookup = ctx;

	resolve(lookup, AI_ADDRCONFIG);
	finish(lookup);
	put(lookup);
	return NULL;
}

int verbs_lookup_start(const char *host, const char *port, struct verbs_lookup **ret)
{
	struct verbs_lookup *lookup = calloc(1, sizeof(*lookup));
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	if (!lookup)
		return -ENOMEM;
	atomic_init(&lookup->refs, 1);
	lookup->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	lookup->host = strdup(host);
	lookup->port = strdup(port);
	if (lookup->fd < 0 || !lookup->host || !lookup->port) {
		r = lookup->fd < 0 ? -errno : -ENOMEM;
		put(lookup);
		return r;
	}
	resolve(lookup, AI_NUMERICHOST | AI_NUMERICSERV);
	if (lookup->error != EAI_NONAME) {
		finish(lookup);
		*ret = lookup;
		return 0;
	}
	atomic_store(&lookup->refs, 2);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = weft_thread_create(&thread, &attr, lookup_main, lookup);
	pthread_attr_destroy(&attr);
	if (r < 0) {
		put(lookup);
		put(lookup);
		return r;
	}
	*ret = lookup;
	return 0;
}

int verbs_lookup_fd(const struct verbs_lookup *lookup)
{
	return lookup->fd;
}

int verbs_lookup_result(struct verbs_lookup *lookup, struct sockaddr_storage *ret,
	const char **ret_why)
{
	if (!atomic_load(&lookup->done))
		return -EAGAIN;
	if (lookup->error != 0) {
		*ret_why = gai_strerror(lookup->error);
		return -EHOSTUNREACH;
	}
	*ret = lookup->address;
	return 0;
}

void verbs_lookup_free(struct verbs_lookup *lookup)
{
	if (lookup)
		put(lookup);
}
