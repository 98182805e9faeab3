/* SPDX-License-Identifier: MIT */
/*
 * Resolves a host's name, and asks a donor for a pass, on a thread of a crew.  Invariant: the
 * caller and the thread have a reference each; dropping the second one frees, and wipes.
 */
#include "transports/rdma/lookup.h"

#include <errno.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/lookup.h"
#include "fabric/base/util.h"
#include "fabric/key/memory.h"
#include "fabric/transport.h"

struct weft_rdma_lookup {
	_Atomic int refs;
	_Atomic bool done;
	int fd;
	int cancel_fd;        /* eventfd: the caller has gone */
	int error;            /* of getaddrinfo(3) */
	struct weft_error no; /* why there is no pass; code 0: there is one, or none is needed */
	struct sockaddr_storage address;
	char *port;
	struct tp_target target; /* how to get a pass: its strings are copies, most are NULL */
	struct weft_key pass;
};

static void put(struct weft_rdma_lookup *lookup)
{
	if (atomic_fetch_sub(&lookup->refs, 1) > 1)
		return;
	weft_close_fd(lookup->fd);
	weft_close_fd(lookup->cancel_fd);
	free(lookup->port);
	free((char *)(uintptr_t)lookup->target.host);
	free((char *)(uintptr_t)lookup->target.region);
	free((char *)(uintptr_t)lookup->target.certificates);
	free((char *)(uintptr_t)lookup->target.pass_host);
	free((char *)(uintptr_t)lookup->target.pass_port);
	weft_secret_free(lookup, sizeof(*lookup));
}

static void resolve(struct weft_rdma_lookup *lookup, int flags)
{
	struct weft_lookup found;

	lookup->error = weft_lookup(lookup->target.host, lookup->port, flags, &found);
	if (lookup->error == 0)
		lookup->address = found.at[0];
}

/* Over TLS or not at all: who has certificates believes nothing else (struct tp_driver). */
static void get_pass(struct weft_rdma_lookup *lookup)
{
	const struct tp_target *target = &lookup->target;

	if (target->certificates &&
		target->get_pass(target->pass_host, target->pass_port, target->region,
			target->certificates, lookup->cancel_fd, &lookup->pass,
			&lookup->no) == 0)
		lookup->no.code = 0;
}

static void set(int fd)
{
	uint64_t one = 1;

	(void)!write(fd, &one, sizeof(one));
}

static void finish(struct weft_rdma_lookup *lookup)
{
	atomic_store(&lookup->done, true);
	set(lookup->fd);
}

static void lookup_main(void *ctx)
{
	struct weft_rdma_lookup *lookup = ctx;

	if (lookup->error != 0)
		resolve(lookup, AI_ADDRCONFIG);
	if (lookup->error == 0)
		get_pass(lookup);
	finish(lookup);
	put(lookup);
}

static bool copy(const char *from, const char **ret)
{
	*ret = strdup(from);
	return *ret;
}

static int fill(struct weft_rdma_lookup *lookup, const struct tp_target *target, const char *port)
{
	struct tp_target *ours = &lookup->target;

	atomic_init(&lookup->refs, 1);
	lookup->cancel_fd = -1;
	lookup->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (lookup->fd < 0)
		return -errno;
	lookup->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (lookup->cancel_fd < 0)
		return -errno;
	lookup->port = strdup(port);
	if (!lookup->port || !copy(target->host, &ours->host))
		return -ENOMEM;
	if (!target->certificates)
		return 0;
	ours->get_pass = target->get_pass;
	return copy(target->certificates, &ours->certificates) &&
			copy(target->region, &ours->region) &&
			copy(target->pass_host, &ours->pass_host) &&
			copy(target->pass_port, &ours->pass_port)
		? 0
		: -ENOMEM;
}

static int start_thread(struct weft_crew *crew, struct weft_rdma_lookup *lookup)
{
	atomic_store(&lookup->refs, 2);
	int r = weft_crew_run(crew, lookup_main, lookup);
	if (r < 0)
		put(lookup);
	return r;
}

int weft_rdma_lookup_start(struct weft_crew *crew, const struct tp_target *target,
	const char *port, struct weft_rdma_lookup **ret)
{
	struct weft_rdma_lookup *lookup = weft_secret_alloc(sizeof(*lookup));

	if (!lookup)
		return -ENOMEM;
	int r = fill(lookup, target, port);
	if (r < 0)
		goto put_lookup;
	resolve(lookup, AI_NUMERICHOST | AI_NUMERICSERV);
	if (lookup->error != EAI_NONAME && !lookup->target.certificates)
		finish(lookup);
	else
		r = start_thread(crew, lookup);
	if (r < 0)
		goto put_lookup;
	*ret = lookup;
	return 0;
put_lookup:
	put(lookup);
	return r;
}

int weft_rdma_lookup_fd(const struct weft_rdma_lookup *lookup)
{
	return lookup->fd;
}

int weft_rdma_lookup_result(struct weft_rdma_lookup *lookup, struct sockaddr_storage *ret,
	struct weft_key *ret_pass, struct weft_error *err)
{
	if (!atomic_load(&lookup->done))
		return -EAGAIN;
	if (lookup->error != 0)
		return weft_error_set(err, EHOSTUNREACH, "%s", gai_strerror(lookup->error));
	if (lookup->no.code) {
		*err = lookup->no;
		return -err->code;
	}
	*ret = lookup->address;
	if (lookup->target.certificates)
		*ret_pass = lookup->pass;
	return 0;
}

void weft_rdma_lookup_free(struct weft_rdma_lookup *lookup)
{
	if (!lookup)
		return;
	set(lookup->cancel_fd);
	put(lookup);
}
