/* SPDX-License-Identifier: MIT */
/*
 * The budget for peers without a grant; see strangers.h.  Invariant, under the lock: the list has
 * nr <= max strangers, oldest first, and each counts once in its address's place.
 */
#include "fabric/donor/strangers.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "fabric/base/address.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"

enum {
	REMEMBERED_ADDRESSES = 512, /* more than those of present strangers */
	NR_PLACES = 1024,           /* of sources, for the rate at which each comes */
	BURST = 1000,
	MOST_REMEMBERED = 16,       /* of one address: that is forgotten in a minute or two */
};
#define FADE_NS UINT64_C(20000000000)
#define INTERVAL_NS UINT64_C(2000000) /* between two handshakes of a source, on average */

int weft_strangers_init(struct weft_strangers *strangers, unsigned max)
{
	assert(max > 0);
	*strangers = (struct weft_strangers){.max = max};
	strangers->end = &strangers->oldest;
	strangers->nr_addresses = max + REMEMBERED_ADDRESSES;
	strangers->addresses = calloc(strangers->nr_addresses, sizeof(*strangers->addresses));
	strangers->due_ns = calloc(NR_PLACES, sizeof(*strangers->due_ns));
	weft_random(&strangers->seed, sizeof(strangers->seed));
	if (!strangers->addresses || !strangers->due_ns) {
		free(strangers->addresses);
		free(strangers->due_ns);
		strangers->addresses = NULL;
		return -ENOMEM;
	}
	pthread_mutex_init(&strangers->lock, NULL);
	return 0;
}

void weft_strangers_fini(struct weft_strangers *strangers)
{
	if (!strangers->addresses)
		return;
	assert(strangers->nr == 0);
	free(strangers->addresses);
	free(strangers->due_ns);
	strangers->addresses = NULL;
	pthread_mutex_destroy(&strangers->lock);
}

static void unlist(struct weft_strangers *strangers, struct weft_stranger *stranger)
{
	*stranger->prev = stranger->next;
	if (stranger->next)
		stranger->next->prev = stranger->prev;
	else
		strangers->end = stranger->prev;
	stranger->prev = NULL;
	strangers->addresses[stranger->address].nr--;
	strangers->nr--;
}

static unsigned weight(const struct weft_stranger_address *address)
{
	return address->nr + address->made_room;
}

/*
 * A stranger of the address that has the most; of those one that has said nothing; of those the
 * oldest.
 */
static struct weft_stranger *choose(const struct weft_strangers *strangers)
{
	struct weft_stranger *best = NULL;
	unsigned most = 0;

	for (struct weft_stranger *s = strangers->oldest; s; s = s->next) {
		unsigned w = weight(&strangers->addresses[s->address]);

		if (w > most || (w == most && best->spoke && !s->spoke)) {
			best = s;
			most = w;
		}
	}
	return best;
}

static bool make_room(struct weft_strangers *strangers)
{
	struct weft_stranger *stranger = choose(strangers);

	if (!stranger)
		return false;
	unlist(strangers, stranger);
	stranger->made_room = true;
	if (strangers->addresses[stranger->address].made_room < MOST_REMEMBERED)
		strangers->addresses[stranger->address].made_room++;
	strangers->nr_made_room++;
	weft_debug("a peer without a grant makes room for another: there are %u", strangers->nr);
	stranger->make_room(stranger);
	return true;
}

/* The key's place; or a new one, in place of the address of which there is least to remember. */
static unsigned find_place(const struct weft_strangers *strangers, const uint8_t *key)
{
	unsigned place = 0, least = UINT_MAX;

	for (unsigned i = 0; i < strangers->nr_addresses; i++) {
		const struct weft_stranger_address *address = &strangers->addresses[i];

		if (weight(address) > 0 && memcmp(address->key, key, sizeof(address->key)) == 0)
			return i;
		if (address->nr == 0 && address->made_room < least) {
			place = i;
			least = address->made_room;
		}
	}
	/* There are more places than strangers. */
	assert(least < UINT_MAX);
	memcpy(strangers->addresses[place].key, key, WEFT_ADDRESS_KEY_BYTES);
	strangers->addresses[place].made_room = 0;
	return place;
}

/* What made room counts for less as time goes by. */
static void fade(struct weft_strangers *strangers)
{
	uint64_t now_ns = weft_now_ns();

	if (now_ns - strangers->faded_ns < FADE_NS)
		return;
	strangers->faded_ns = now_ns;
	for (unsigned i = 0; i < strangers->nr_addresses; i++)
		strangers->addresses[i].made_room /= 2;
}

bool weft_strangers_may_come(struct weft_strangers *strangers, const struct sockaddr *peer)
{
	uint8_t key[WEFT_ADDRESS_KEY_BYTES];
	uint64_t now_ns = weft_now_ns();

	if ((peer->sa_family != AF_INET && peer->sa_family != AF_INET6) ||
		weft_address_is_loopback(peer))
		return true;
	weft_address_key(peer, 0, key);
	/* Sources that fall into one place share its rate; nobody knows which. */
	uint64_t *due_ns =
		&strangers->due_ns[XXH3_64bits_withSeed(key, sizeof(key), strangers->seed) %
			NR_PLACES];
	pthread_mutex_lock(&strangers->lock);
	*due_ns = weft_max(*due_ns, now_ns);
	bool may = *due_ns - now_ns < BURST * INTERVAL_NS;
	if (may)
		*due_ns += INTERVAL_NS;
	pthread_mutex_unlock(&strangers->lock);
	return may;
}

void weft_strangers_enter(struct weft_strangers *strangers, struct weft_stranger *stranger,
	const struct sockaddr *peer, uint32_t uid)
{
	uint8_t key[WEFT_ADDRESS_KEY_BYTES];

	weft_address_key(peer, uid, key);
	pthread_mutex_lock(&strangers->lock);
	fade(strangers);
	stranger->strangers = strangers;
	stranger->address = find_place(strangers, key);
	/*
	 * The newcomer counts already, so that it does not push out a stranger of another address
	 * when its own has as many.
	 */
	strangers->addresses[stranger->address].nr++;
	if (strangers->nr == strangers->max)
		make_room(strangers);
	stranger->next = NULL;
	stranger->prev = strangers->end;
	*strangers->end = stranger;
	strangers->end = &stranger->next;
	strangers->nr++;
	strangers->nr_entered++;
	pthread_mutex_unlock(&strangers->lock);
}

void weft_stranger_spoke(struct weft_stranger *stranger)
{
	pthread_mutex_lock(&stranger->strangers->lock);
	stranger->spoke = true;
	pthread_mutex_unlock(&stranger->strangers->lock);
}

static bool leave(struct weft_stranger *stranger, bool belongs)
{
	struct weft_strangers *strangers = stranger->strangers;

	if (!strangers)
		return true;
	pthread_mutex_lock(&strangers->lock);
	if (stranger->prev) {
		unlist(strangers, stranger);
		if (belongs)
			strangers->addresses[stranger->address].made_room = 0;
	}
	bool made_room = stranger->made_room;
	pthread_mutex_unlock(&strangers->lock);
	return !made_room;
}

bool weft_stranger_leave(struct weft_stranger *stranger)
{
	return leave(stranger, false);
}

bool weft_stranger_belongs(struct weft_stranger *stranger)
{
	return leave(stranger, true);
}

bool weft_strangers_make_room(struct weft_strangers *strangers)
{
	pthread_mutex_lock(&strangers->lock);
	bool made = make_room(strangers);
	pthread_mutex_unlock(&strangers->lock);
	return made;
}

void weft_strangers_status(struct weft_strangers *strangers, struct weft_strangers_status *ret)
{
	pthread_mutex_lock(&strangers->lock);
	*ret = (struct weft_strangers_status){
		.now = strangers->nr,
		.max = strangers->max,
		.entered = strangers->nr_entered,
		.made_room = strangers->nr_made_room,
	};
	for (unsigned i = 0; i < strangers->nr_addresses; i++)
		ret->addresses += strangers->addresses[i].nr > 0;
	pthread_mutex_unlock(&strangers->lock);
}
