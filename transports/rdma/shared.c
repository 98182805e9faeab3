/* SPDX-License-Identifier: MIT */
/*
 * The transports of a process share on a device one protection domain, and one registration of
 * memory that several of them use, such as the cache that all lanes fetch into.  (Memory that peers
 * may reach has another: its keys are worth nothing at the queue pairs of the first.)  Each
 * registration
 * locks its memory again and counts against the limit again, so that the cache of four lanes would
 * count four times.
 *
 * Any thread, under one lock, which is held during a registration: a thread that wants the same
 * memory waits, and then has it.
 */
#include "transports/rdma/shared.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct shared_mr {
	struct ibv_mr *mr;
	void *base;
	size_t len;
	unsigned nr_users;
	struct shared_mr *next;
};

struct shared_pd {
	struct ibv_pd *pd;
	int access;
	unsigned nr_users;
	struct shared_mr *mrs;
	struct shared_pd *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shared_pd *pds;

static struct shared_pd **find_pd(const struct ibv_pd *pd)
{
	struct shared_pd **p = &pds;

	while ((*p)->pd != pd)
		p = &(*p)->next;
	return p;
}

static struct shared_pd *add_pd(struct ibv_context *context, int access)
{
	struct shared_pd *shared = calloc(1, sizeof(*shared));

	if (!shared)
		return NULL;
	shared->pd = ibv_alloc_pd(context);
	if (!shared->pd) {
		free(shared);
		return NULL;
	}
	shared->access = access;
	shared->next = pds;
	pds = shared;
	return shared;
}

struct ibv_pd *weft_rdma_pd_get(struct ibv_context *context, int access)
{
	struct shared_pd *shared;

	pthread_mutex_lock(&lock);
	for (shared = pds;
		shared && (shared->pd->context != context || shared->access != access);
		shared = shared->next)
		;
	if (!shared)
		shared = add_pd(context, access);
	if (shared)
		shared->nr_users++;
	pthread_mutex_unlock(&lock);
	return shared ? shared->pd : NULL;
}

void weft_rdma_pd_put(struct ibv_pd *pd)
{
	pthread_mutex_lock(&lock);
	struct shared_pd **p = find_pd(pd), *shared = *p;
	if (--shared->nr_users == 0) {
		*p = shared->next;
		ibv_dealloc_pd(pd);
		free(shared);
	}
	pthread_mutex_unlock(&lock);
}

static struct shared_mr *add_mr(struct shared_pd *shared, void *base, size_t len)
{
	struct shared_mr *mr = calloc(1, sizeof(*mr));

	if (!mr)
		return NULL;
	mr->mr = ibv_reg_mr(shared->pd, base, len, shared->access);
	if (!mr->mr) {
		int code = errno;

		free(mr);
		errno = code;
		return NULL;
	}
	mr->base = base;
	mr->len = len;
	mr->next = shared->mrs;
	shared->mrs = mr;
	return mr;
}

struct ibv_mr *weft_rdma_mr_get(struct ibv_pd *pd, void *base, size_t len)
{
	struct shared_mr *mr;

	pthread_mutex_lock(&lock);
	struct shared_pd *shared = *find_pd(pd);
	for (mr = shared->mrs; mr && (mr->base != base || mr->len != len); mr = mr->next)
		;
	if (!mr)
		mr = add_mr(shared, base, len);
	int code = errno;
	if (mr)
		mr->nr_users++;
	pthread_mutex_unlock(&lock);
	errno = code;
	return mr ? mr->mr : NULL;
}

void weft_rdma_mr_put(struct ibv_mr *ibv_mr)
{
	pthread_mutex_lock(&lock);
	struct shared_mr **p = &(*find_pd(ibv_mr->pd))->mrs;
	while ((*p)->mr != ibv_mr)
		p = &(*p)->next;
	struct shared_mr *mr = *p;
	if (--mr->nr_users == 0) {
		*p = mr->next;
		ibv_dereg_mr(ibv_mr);
		free(mr);
	}
	pthread_mutex_unlock(&lock);
}
