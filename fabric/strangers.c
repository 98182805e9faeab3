/*
 * The budget for peers without a grant; see strangers.h.
 * Invariant, under the lock: the list has nr <= max strangers, oldest first, and each counts once in its address's place.
 */
#include "fabric/strangers.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

enum { IPV6_PREFIX_BYTES = 8, MAPPED_BYTES = 12, LOCAL_MARK = 0xff };

static void make_key(const struct sockaddr *peer, uint32_t uid, uint8_t *key)
{
	static const uint8_t mapped[MAPPED_BYTES] = {[10] = 0xff, [11] = 0xff};

	memset(key, 0, WEFT_STRANGER_KEY_BYTES);
	if (peer->sa_family == AF_INET) {
		memcpy(key, mapped, MAPPED_BYTES);
		memcpy(key + MAPPED_BYTES, &((const struct sockaddr_in *)peer)->sin_addr, 4);
	} else if (peer->sa_family == AF_INET6) {
		const struct in6_addr *in6 = &((const struct sockaddr_in6 *)peer)->sin6_addr;
		bool whole = IN6_IS_ADDR_V4MAPPED(in6) || IN6_IS_ADDR_LINKLOCAL(in6);

		memcpy(key, in6, whole ? sizeof(*in6) : IPV6_PREFIX_BYTES);
	} else {
		/* A multicast address: nobody connects from one. */
		key[0] = LOCAL_MARK;
		memcpy(key + MAPPED_BYTES, &uid, sizeof(uid));
	}
}

int weft_strangers_init(struct weft_strangers *strangers, unsigned max)
{
	assert(max > 0);
	*strangers = (struct weft_strangers){.max = max};
	strangers->end = &strangers->oldest;
	strangers->addresses = calloc(max, sizeof(*strangers->addresses));
	if (!strangers->addresses)
		return -ENOMEM;
	pthread_mutex_init(&strangers->lock, NULL);
	return 0;
}

void weft_strangers_fini(struct weft_strangers *strangers)
{
	if (!strangers->addresses)
		return;
	assert(strangers->nr == 0);
	free(strangers->addresses);
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

/* From the address that has the most, whoever has said nothing, the oldest: each counts for more than the next. */
static struct weft_stranger *choose(const struct weft_strangers *strangers)
{
	struct weft_stranger *best = NULL;
	unsigned best_nr = 0;

	for (struct weft_stranger *s = strangers->oldest; s; s = s->next) {
		unsigned nr = strangers->addresses[s->address].nr;

		if (nr > best_nr || (nr == best_nr && best->spoke && !s->spoke)) {
			best = s;
			best_nr = nr;
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
	strangers->nr_made_room++;
	stranger->make_room(stranger);
	return true;
}

/* The key's place, or else a free one; -1: there is none. */
static int find_place(const struct weft_strangers *strangers, const uint8_t *key)
{
	int place = -1;

	for (unsigned i = 0; i < strangers->max; i++) {
		const struct weft_stranger_address *address = &strangers->addresses[i];

		if (address->nr > 0 && memcmp(address->key, key, sizeof(address->key)) == 0)
			return (int)i;
		if (address->nr == 0 && place < 0)
			place = (int)i;
	}
	return place;
}

void weft_strangers_enter(struct weft_strangers *strangers, struct weft_stranger *stranger,
	const struct sockaddr *peer, uint32_t uid)
{
	uint8_t key[WEFT_STRANGER_KEY_BYTES];
	int place;

	make_key(peer, uid, key);
	pthread_mutex_lock(&strangers->lock);
	place = find_place(strangers, key);
	/* It counts already, so that it does not push out another address's where its own has as many. */
	if (place >= 0 && strangers->addresses[place].nr > 0)
		strangers->addresses[place].nr++;
	else
		place = -1;
	if (strangers->nr == strangers->max)
		make_room(strangers);
	if (place < 0) {
		place = find_place(strangers, key);
		memcpy(strangers->addresses[place].key, key, sizeof(key));
		strangers->addresses[place].nr = 1;
	}
	stranger->strangers = strangers;
	stranger->address = (unsigned)place;
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

bool weft_stranger_leave(struct weft_stranger *stranger)
{
	struct weft_strangers *strangers = stranger->strangers;

	if (!strangers)
		return true;
	pthread_mutex_lock(&strangers->lock);
	if (stranger->prev)
		unlist(strangers, stranger);
	bool made_room = stranger->made_room;
	pthread_mutex_unlock(&strangers->lock);
	return !made_room;
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
	for (unsigned i = 0; i < strangers->max; i++)
		ret->addresses += strangers->addresses[i].nr > 0;
	pthread_mutex_unlock(&strangers->lock);
}
