/* SPDX-License-Identifier: MIT */
/* Nexuses.  Invariant: at most one channel of a generation leads, and no lower one logs in then. */
#include "transports/srp/borrower/nexus.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct srp_nexus *nexuses;

static bool is_same(const struct srp_nexus_key *a, const struct srp_nexus_key *b)
{
	return a->initiator == b->initiator && a->target_ext == b->target_ext &&
		a->target_guid == b->target_guid && strcmp(a->place, b->place) == 0;
}

struct srp_nexus *srp_nexus_get(const struct srp_nexus_key *key)
{
	struct srp_nexus *nexus;

	pthread_mutex_lock(&lock);
	for (nexus = nexuses; nexus && !is_same(&nexus->key, key); nexus = nexus->next)
		;
	if (!nexus) {
		nexus = calloc(1, sizeof(*nexus));
		if (nexus) {
			nexus->key = *key;
			nexus->next = nexuses;
			nexuses = nexus;
		}
	}
	if (nexus)
		nexus->nr_users++;
	pthread_mutex_unlock(&lock);
	return nexus;
}

struct srp_nexus *srp_nexus_ref(struct srp_nexus *nexus)
{
	pthread_mutex_lock(&lock);
	nexus->nr_users++;
	pthread_mutex_unlock(&lock);
	return nexus;
}

void srp_nexus_put(struct srp_nexus *nexus)
{
	struct srp_nexus **p = &nexuses;

	if (!nexus)
		return;
	pthread_mutex_lock(&lock);
	if (--nexus->nr_users == 0) {
		while (*p != nexus)
			p = &(*p)->next;
		*p = nexus->next;
		free(nexus->wake_fds);
		free(nexus);
	}
	pthread_mutex_unlock(&lock);
}

/* Under the lock. */
static void wake_all(const struct srp_nexus *nexus)
{
	uint64_t one = 1;

	for (unsigned i = 0; i < nexus->nr_wake_fds; i++)
		(void)!write(nexus->wake_fds[i], &one, sizeof(one));
}

int srp_nexus_join(struct srp_nexus *nexus, int wake_fd)
{
	int r = -ENOMEM;

	pthread_mutex_lock(&lock);
	int *fds = reallocarray(nexus->wake_fds, nexus->nr_wake_fds + 1, sizeof(int));
	if (fds) {
		nexus->wake_fds = fds;
		fds[nexus->nr_wake_fds++] = wake_fd;
		r = 0;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

void srp_nexus_leave(struct srp_nexus *nexus, int wake_fd)
{
	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < nexus->nr_wake_fds; i++)
		if (nexus->wake_fds[i] == wake_fd)
			nexus->wake_fds[i--] = nexus->wake_fds[--nexus->nr_wake_fds];
	/* Nobody is left who would have to end. */
	if (nexus->nr_wake_fds == 0 && nexus->state == SRP_NEXUS_OVER)
		nexus->state = SRP_NEXUS_NEW;
	pthread_mutex_unlock(&lock);
}

enum srp_turn srp_nexus_ask(struct srp_nexus *nexus, uint64_t generation)
{
	enum srp_turn turn;

	pthread_mutex_lock(&lock);
	if (generation < nexus->generation) {
		turn = SRP_TURN_OVER;
	} else if (generation > nexus->generation || nexus->state == SRP_NEXUS_NEW) {
		turn = nexus->was_open ? SRP_TURN_AGAIN : SRP_TURN_LEAD;
		nexus->generation = generation;
		nexus->state = SRP_NEXUS_LED;
		wake_all(nexus); /* those of lower generations */
	} else if (nexus->state == SRP_NEXUS_OVER) {
		turn = SRP_TURN_OVER;
	} else if (nexus->state == SRP_NEXUS_LED) {
		turn = SRP_TURN_WAIT;
	} else {
		turn = SRP_TURN_FOLLOW;
	}
	pthread_mutex_unlock(&lock);
	return turn;
}

void srp_nexus_led(struct srp_nexus *nexus, uint64_t generation, bool ready, bool greeted)
{
	pthread_mutex_lock(&lock);
	if (generation == nexus->generation) {
		nexus->state = ready ? SRP_NEXUS_OPEN : SRP_NEXUS_NEW;
		nexus->was_open |= ready;
		nexus->greets = greeted;
		wake_all(nexus);
	}
	pthread_mutex_unlock(&lock);
}

bool srp_nexus_greets(struct srp_nexus *nexus)
{
	pthread_mutex_lock(&lock);
	bool greets = nexus->greets;
	pthread_mutex_unlock(&lock);
	return greets;
}

void srp_nexus_end(struct srp_nexus *nexus, uint64_t generation, const struct weft_error *why)
{
	pthread_mutex_lock(&lock);
	if (generation == nexus->generation && nexus->state == SRP_NEXUS_OPEN) {
		nexus->state = SRP_NEXUS_OVER;
		nexus->why = *why;
		wake_all(nexus);
	}
	pthread_mutex_unlock(&lock);
}

bool srp_nexus_is_over(struct srp_nexus *nexus, uint64_t generation, struct weft_error *ret_why)
{
	pthread_mutex_lock(&lock);
	bool over = generation == nexus->generation && nexus->state == SRP_NEXUS_OVER;
	if (over)
		*ret_why = nexus->why;
	pthread_mutex_unlock(&lock);
	return over;
}

bool srp_nexus_is_current(struct srp_nexus *nexus, uint64_t generation)
{
	pthread_mutex_lock(&lock);
	bool current = generation == nexus->generation && nexus->state != SRP_NEXUS_OVER;
	pthread_mutex_unlock(&lock);
	return current;
}
