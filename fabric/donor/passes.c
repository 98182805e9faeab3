/* SPDX-License-Identifier: MIT */
/*
 * The passes that this donor would take (fabric/key/pass.h): each for pass_ms, once, and as the
 * peer that had the TLS session.  What that peer may do is decided when it asks for a region, by
 * its name, as for any other.
 *
 * Threads: any, under the donor's lock.  Bounds: so many passes in all, and of a name; whoever
 * comes beyond them goes on over TLS, and no pass makes room for another.
 */
#include <errno.h>
#include <string.h>

#include "fabric/donor/donor-private.h"
#include "fabric/base/util.h"
#include "fabric/key/memory.h"

enum { MAX_PASSES = 512, MAX_OF_A_NAME = 64 };

struct donor_passes {
	struct donor_pass {
		uint64_t end_ns; /* 0: the place is free */
		int64_t expires;
		char name[WEFT_IDENTITY_MAX + 1];
		struct weft_key key;
	} pass[MAX_PASSES];
};

void donor_passes_expire(struct weft_donor *donor, uint64_t now_ns)
{
	struct donor_passes *passes = donor->passes;

	for (unsigned i = 0; passes && i < MAX_PASSES; i++)
		if (passes->pass[i].end_ns && passes->pass[i].end_ns <= now_ns)
			explicit_bzero(&passes->pass[i], sizeof(passes->pass[i]));
}

void donor_passes_fini(struct weft_donor *donor)
{
	weft_secret_free(donor->passes, sizeof(*donor->passes));
	donor->passes = NULL;
}

/* A free place, or NULL: there are too many of the name, or in all. */
static struct donor_pass *find_place(struct donor_passes *passes, const char *name)
{
	struct donor_pass *place = NULL;
	unsigned nr = 0;

	for (unsigned i = 0; i < MAX_PASSES; i++) {
		struct donor_pass *pass = &passes->pass[i];

		if (!pass->end_ns)
			place = pass;
		else
			nr += strcmp(pass->name, name) == 0;
	}
	return nr < MAX_OF_A_NAME ? place : NULL;
}

static int keep(struct weft_donor *donor, const struct weft_peer *peer, const struct weft_key *key)
{
	uint64_t now_ns = weft_now_ns();

	if (!donor->passes)
		donor->passes = weft_secret_alloc(sizeof(*donor->passes));
	if (!donor->passes)
		return -ENOMEM;
	donor_passes_expire(donor, now_ns);
	struct donor_pass *pass = find_place(donor->passes, peer->identity);
	if (!pass)
		return -EBUSY;
	pass->end_ns = now_ns + donor->pass_ms * NS_PER_MS;
	pass->expires = peer->expires;
	donor_copy_text(pass->name, sizeof(pass->name), peer->identity);
	pass->key = *key;
	return 0;
}

int weft_donor_keep_pass(struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_key *key)
{
	if (!peer->certified || !peer->encrypted || weft_donor_let_in(donor, peer, NULL) < 0)
		return -EACCES;
	pthread_mutex_lock(&donor->lock);
	int r = keep(donor, peer, key);
	pthread_mutex_unlock(&donor->lock);
	return r;
}

int weft_donor_take_pass(struct weft_donor *donor, const char *identity, struct weft_key *ret,
	struct weft_peer *ret_peer)
{
	int r = -ENOKEY;

	pthread_mutex_lock(&donor->lock);
	donor_passes_expire(donor, weft_now_ns());
	for (unsigned i = 0; donor->passes && i < MAX_PASSES && r < 0; i++) {
		struct donor_pass *pass = &donor->passes->pass[i];

		if (!pass->end_ns || strcmp(pass->key.identity, identity) != 0)
			continue;
		*ret = pass->key;
		ret_peer->certified = true;
		ret_peer->expires = pass->expires;
		strcpy(ret_peer->identity, pass->name);
		explicit_bzero(pass, sizeof(*pass));
		r = 0;
	}
	pthread_mutex_unlock(&donor->lock);
	return r;
}
