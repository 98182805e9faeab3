/* SPDX-License-Identifier: MIT */
/*
 * The transports of a process share on a device one protection domain, and one registration of
 * memory that several of them use, such as the cache that all lanes fetch into.  Each registration
 * locks its memory again and counts against the limit again, so that the cache of four lanes would
 * count four times.
 *
 * Any thread, under one lock, which is held during a registration: a thread that wants the same
 * memory waits, and then has it.
 */
#include "transports/verbs/borrower/client.h"

#include <errno.h>
#include <stdlib.h>

struct verbs_mr {
	struct ibv_mr *mr;
	void *base;
	size_t len;
	unsigned nr_users;
	struct verbs_mr *next;
};

struct verbs_pd {
	struct ibv_pd *pd;
	unsigned nr_users;
	struct verbs_mr *mrs;
	struct verbs_pd *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct verbs_pd *pds;

static struct verbs_pd **find_pd(const struct ibv_pd *pd)
{
	struct verbs_pd **p = &pds;

	while ((*p)->pd != pd)
		p = &(*p)->next;
	return p;
}

static struct verbs_pd *add_pd(struct ibv_context *context)
{
	struct verbs_pd *shared = calloc(1, sizeof(*shared));

	if (!shared)
		return NULL;
	shared->pd = ibv_alloc_pd(context);
	if (!shared->pd) {
		free(shared);
		return NULL;
	}
	shared->next = pds;
	pds = shared;
	return shared;
}

struct ibv_pd *verbs_pd_get(struct ibv_context *context)
{
	struct verbs_pd *shared;

	pthread_mutex_lock(&lock);
	for (shared = pds; shared && shared->pd->context != context; shared = shared->next)
		;
	if (!shared)
		shared = add_pd(context);
	if (shared)
		shared->nr_users++;
	pthread_mutex_unlock(&lock);
	return shared ? shared->pd : NULL;
}

void verbs_pd_put(struct ibv_pd *pd)
{
	pthread_mutex_lock(&lock);
	struct verbs_pd **p = find_pd(pd), *shared = *p;
	if (--shared->nr_users == 0) {
		*p = shared->next;
		ibv_dealloc_pd(pd);
		free(shared);
	}
	pthread_mutex_unlock(&lock);
}

static struct verbs_mr *add_mr(struct verbs_pd *shared, void *base, size_t len)
{
	struct verbs_mr *mr = calloc(1, sizeof(*mr));

	if (!mr)
		return NULL;
	mr->mr = ibv_reg_mr(shared->pd, base, len, IBV_ACCESS_LOCAL_WRITE);
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

struct ibv_mr *verbs_mr_get(struct ibv_pd *pd, void *base, size_t len)
{
	struct verbs_mr *mr;

	pthread_mutex_lock(&lock);
	struct verbs_pd *shared = *find_pd(pd);
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

void verbs_mr_put(struct ibv_mr *ibv_mr)
{
	pthread_mutex_lock(&lock);
	struct verbs_mr **p = &(*find_pd(ibv_mr->pd))->mrs;
	while ((*p)->mr != ibv_mr)
		p = &(*p)->next;
	struct verbs_mr *mr = *p;
	if (--mr->nr_users == 0) {
		*p = mr->next;
		ibv_dereg_mr(ibv_mr);
		free(mr);
	}
	pthread_mutex_unlock(&lock);
}
