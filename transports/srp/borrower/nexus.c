/* SPDX-License-Identifier: MIT */
/* Nexuses.  Invariant: at most one channel of a generation leads, and no lower one logs in then. */
#include "transports/srp/borrower/nexus.h"

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
		free(nexus->waiting);
		free(nexus);
	}
	pthread_mutex_unlock(&lock);
}

/* Under the lock. */
static void wake_all(struct srp_nexus *nexus)
{
	uint64_t one = 1;

	for (unsigned i = 0; i < nexus->nr_waiting; i++)
		(void)!write(nexus->waiting[i], &one, sizeof(one));
	nexus->nr_waiting = 0;
}

/* Under the lock. */
static void remove_waiting(struct srp_nexus *nexus, int wake_fd)
{
	for (unsigned i = 0; i < nexus->nr_waiting; i++)
		if (nexus->waiting[i] == wake_fd)
			nexus->waiting[i--] = nexus->waiting[--nexus->nr_waiting];
}

/* Under the lock. */
static enum srp_turn wait_for_leader(struct srp_nexus *nexus, int wake_fd)
{
	remove_waiting(nexus, wake_fd);
	int *waiting = reallocarray(nexus->waiting, nexus->nr_waiting + 1, sizeof(int));

	if (!waiting)
		return SRP_TURN_OVER; /* it comes again */
	nexus->waiting = waiting;
	waiting[nexus->nr_waiting++] = wake_fd;
	return SRP_TURN_WAIT;
}

enum srp_turn srp_nexus_ask(struct srp_nexus *nexus, uint64_t generation, int wake_fd)
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
	} else if (nexus->state == SRP_NEXUS_LED) {
		turn = wait_for_leader(nexus, wake_fd);
	} else {
		turn = SRP_TURN_FOLLOW;
	}
	pthread_mutex_unlock(&lock);
	return turn;
}

void srp_nexus_led(struct srp_nexus *nexus, uint64_t generation, bool ready)
{
	pthread_mutex_lock(&lock);
	if (generation == nexus->generation) {
		nexus->state = ready ? SRP_NEXUS_OPEN : SRP_NEXUS_NEW;
		nexus->was_open |= ready;
		wake_all(nexus);
	}
	pthread_mutex_unlock(&lock);
}

void srp_nexus_leave(struct srp_nexus *nexus, int wake_fd)
{
	pthread_mutex_lock(&lock);
	remove_waiting(nexus, wake_fd);
	pthread_mutex_unlock(&lock);
}

bool srp_nexus_is_current(struct srp_nexus *nexus, uint64_t generation)
{
	pthread_mutex_lock(&lock);
	bool current = generation == nexus->generation;
	pthread_mutex_unlock(&lock);
	return current;
}
