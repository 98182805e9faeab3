/* SPDX-License-Identifier: MIT */
/*
 * Keeps a connection alive while its thread waits for a disk, for its turn to hash, or for a grant:
 * a borrower would take the silence for the donor's end.  The session's thread lends its connection
 * before such a call, and takes it back after.  A thread of the listener's crew, the keeper, takes
 * in and acknowledges what comes, if the call is a long one.
 *
 * Invariant: the connection is the session's thread's while it is not lent, and else belongs to
 * whoever holds the keeper's lock.
 */
#include <errno.h>

#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "transports/quic/donor/session.h"

#define MS_NS UINT64_C(1000000)

enum {
	PATIENCE_MS = 50, /* a call that takes no longer is left alone */
	LOOK_MS = 20,     /* between two looks at the wire in one that does */
};

/* Under the lock, which it releases. */
static void wait_until(struct quic_keeper *k, uint64_t until_ns)
{
	weft_cond_wait_until(&k->news, &k->lock, until_ns);
}

static void keeper_main(void *ctx)
{
	struct quic_session *s = ctx;
	struct quic_keeper *k = &s->keeper;

	pthread_mutex_lock(&k->lock);
	while (!k->ends) {
		const uint64_t from_ns = k->lent_ns + PATIENCE_MS * MS_NS;

		if (!k->lent) {
			k->idle = true;
			wait_until(k, UINT64_MAX);
			k->idle = false;
		} else if (weft_now_ns() < from_ns) {
			wait_until(k, from_ns);
		} else {
			quic_session_keep_up(s);
			wait_until(k, weft_now_ns() + LOOK_MS * MS_NS);
		}
	}
	k->runs = false;
	pthread_cond_broadcast(&k->news);
	pthread_mutex_unlock(&k->lock);
}

void quic_keeper_init(struct quic_keeper *k)
{
	pthread_mutex_init(&k->lock, NULL);
	weft_cond_init(&k->news);
}

void quic_keeper_lend(struct quic_session *s)
{
	struct quic_keeper *k = &s->keeper;

	pthread_mutex_lock(&k->lock);
	k->lent = true;
	k->lent_ns = weft_now_ns();
	/* Without a thread the peer has to be patient. */
	if (!k->runs)
		k->runs = weft_crew_run(&s->listener->crew, keeper_main, s) == 0;
	else if (k->idle)
		pthread_cond_signal(&k->news);
	pthread_mutex_unlock(&k->lock);
}

void quic_keeper_take_back(struct quic_session *s)
{
	pthread_mutex_lock(&s->keeper.lock);
	s->keeper.lent = false;
	pthread_mutex_unlock(&s->keeper.lock);
}

void quic_keeper_end(struct quic_session *s)
{
	struct quic_keeper *k = &s->keeper;

	pthread_mutex_lock(&k->lock);
	k->ends = true;
	pthread_cond_broadcast(&k->news);
	while (k->runs)
		wait_until(k, UINT64_MAX);
	pthread_mutex_unlock(&k->lock);
	pthread_cond_destroy(&k->news);
	pthread_mutex_destroy(&k->lock);
}
