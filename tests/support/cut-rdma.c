/* SPDX-License-Identifier: MIT */
/*
 * cut-rdma: preloaded into a program, cuts its RDMA connections off every WEFT_CUT_S seconds, as a
 * card that fails would.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <rdma/rdma_cma.h>

enum { MAX_IDS = 256 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct rdma_cm_id *ids[MAX_IDS]; /* connected ones */
static int started;

static void *cutter(void *ctx)
{
	const char *seconds = getenv("WEFT_CUT_S");

	for (;;) {
		sleep(seconds ? (unsigned)atoi(seconds) : 10);
		pthread_mutex_lock(&lock);
		for (int i = 0; i < MAX_IDS; i++)
			if (ids[i])
				rdma_disconnect(ids[i]);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

static void replace(struct rdma_cm_id *from, struct rdma_cm_id *to)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_IDS; i++) {
		if (ids[i] == from) {
			ids[i] = to;
			break;
		}
	}
	pthread_mutex_unlock(&lock);
}

__attribute__((visibility("default"))) int rdma_connect(struct rdma_cm_id *id,
	struct rdma_conn_param *param)
{
	int (*real)(struct rdma_cm_id *, struct rdma_conn_param *) = (int (*)(struct rdma_cm_id *,
		struct rdma_conn_param *))dlsym(RTLD_NEXT, "rdma_connect");
	pthread_t thread;

	if (!__atomic_exchange_n(&started, 1, __ATOMIC_SEQ_CST))
		pthread_create(&thread, NULL, cutter, NULL);
	replace(NULL, id);
	return real(id, param);
}

__attribute__((visibility("default"))) int rdma_destroy_id(struct rdma_cm_id *id)
{
	int (*real)(struct rdma_cm_id *) =
		(int (*)(struct rdma_cm_id *))dlsym(RTLD_NEXT, "rdma_destroy_id");

	replace(id, NULL);
	return real(id);
}
