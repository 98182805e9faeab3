/* SPDX-License-Identifier: MIT */
/* Touching a mapped file whose pages may not be there: see mapped.h. */
#include "nbd-bridge/cache/mapped.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <ucontext.h>

/* The state of a thread that is inside mapped_try(). */
struct attempt {
	jmp_buf env;
	volatile sig_atomic_t under_way;
	const void *volatile at;
};

static _Thread_local struct attempt attempt;
static struct sigaction before;

static void on_bus_error(int signo, siginfo_t *info, void *context)
{
	/* This only reports bad memory that nobody touches now. */
	if (info->si_code == BUS_MCEERR_AO)
		return;
	if (attempt.under_way && info->si_code > 0) {
		attempt.at = info->si_addr;
		/* As if the handler had returned. */
		pthread_sigmask(SIG_SETMASK, &((const ucontext_t *)context)->uc_sigmask, NULL);
		longjmp(attempt.env, 1);
	}
	/* Not ours: with the earlier handler back in place, the access fails again. */
	sigaction(signo, &before, NULL);
	if (info->si_code <= 0)
		raise(signo);
}

void mapped_init(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	const struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
	struct sigaction now;

	pthread_mutex_lock(&lock);
	if (sigaction(SIGBUS, NULL, &now) == 0 && now.sa_sigaction != on_bus_error) {
		before = now;
		sigaction(SIGBUS, &action, NULL);
	}
	pthread_mutex_unlock(&lock);
}

int mapped_try(int (*fn)(void *ctx), void *ctx, const void **ret_at)
{
	if (_setjmp(attempt.env) != 0) {
		attempt.under_way = 0;
		if (ret_at)
			*ret_at = attempt.at;
		return -EIO;
	}
	attempt.under_way = 1;
	atomic_signal_fence(memory_order_seq_cst);
	int r = fn(ctx);
	atomic_signal_fence(memory_order_seq_cst);
	attempt.under_way = 0;
	return r;
}

struct copy {
	void *to;
	const void *from;
	size_t len;
};

static int copy(void *ctx)
{
	const struct copy *c = ctx;

	memcpy(c->to, c->from, c->len);
	return 0;
}

int mapped_copy(void *to, const void *from, size_t len, const void **ret_at)
{
	struct copy c = {.to = to, .from = from, .len = len};

	return mapped_try(copy, &c, ret_at);
}
