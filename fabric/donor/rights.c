/* SPDX-License-Identifier: MIT */
/*
 * What a peer may do at this donor: by the key that it proved, from where it comes, and how it
 * came.  Here rather than in transports, so that each has the same rules.  tests/model/ has what
 * becomes of what was granted under a key that is gone: change it there first.
 *
 * Threads: any; what is said to be under the donor's lock is.  Nothing here waits.
 */
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fabric/donor/donor-private.h"
#include "fabric/base/address.h"
#include "fabric/base/util.h"

void donor_name_of(const struct weft_peer *peer, char *ret)
{
	if (peer && peer->identity[0])
		weft_identity_name(peer->identity, ret);
	else if (peer && peer->host[0])
		snprintf(ret, WEFT_KEY_NAME_MAX + 1, "@%s", peer->host); /* the name of no key */
	else
		ret[0] = '\0';
}

bool donor_is_same_source(const struct weft_peer *a, const struct weft_peer *b)
{
	uint8_t of_a[WEFT_ADDRESS_KEY_BYTES], of_b[WEFT_ADDRESS_KEY_BYTES];

	weft_address_key((const struct sockaddr *)&a->address, a->uid, of_a);
	weft_address_key((const struct sockaddr *)&b->address, b->uid, of_b);
	return memcmp(of_a, of_b, sizeof(of_a)) == 0;
}

struct weft_keys *weft_donor_keys(const struct weft_donor *donor)
{
	return weft_keys_are_there(donor->keys) ? donor->keys : NULL;
}

static int refuse_key(const struct weft_peer *peer, int why, struct weft_error *err)
{
	if (why == -ENOMEM)
		return weft_error_set(err, ENOMEM, "cannot look up key '%s': no memory",
			peer->identity);
	return weft_error_set(err, EACCES,
		"key '%s' %s; whoever runs this donor makes another: weft key new", peer->identity,
		why == -EKEYEXPIRED ? "has expired" : "is not, or no longer, one of this donor's");
}

/* Of one that proved a key. */
static int check_key(const struct weft_donor *donor, const struct weft_peer *peer,
	struct weft_rights *ret, struct weft_error *err)
{
	struct weft_keys *keys = weft_donor_keys(donor);
	struct weft_rights rights = {0};
	int r = weft_identity_valid(peer->identity) && keys
		? weft_keys_rights(keys, peer->identity, &rights)
		: -ENOKEY;

	/*
	 * Where there are no keys, whom the certificates' authority vouches for may do all.  Where
	 * there are, a name that has none, or has one no longer, may do nothing.
	 */
	if (r == -ENOKEY && peer->certified && !keys) {
		weft_identity_name(peer->identity, rights.name);
		r = 0;
	}
	if (r < 0)
		return refuse_key(peer, r, err);
	if (peer->expires && (!rights.expires || peer->expires < rights.expires))
		rights.expires = peer->expires;
	if (peer->life && peer->life != rights.life)
		r = refuse_key(peer, -ENOKEY, err);
	else if (!weft_rights_have_address(&rights, (const struct sockaddr *)&peer->address))
		r = weft_error_set(err, EACCES, "key '%s' may not be used from %s", rights.name,
			peer->text);
	else if (peer->expires && peer->expires <= (int64_t)time(NULL))
		r = weft_error_set(err, EACCES, "the certificate of '%s' has expired", rights.name);
	else if (!peer->encrypted && !peer->local && !peer->may_be_plaintext &&
		!rights.rdma_plaintext && !donor->allow_insecure)
		r = weft_error_set(err, EACCES,
			"what travels over %s is in plaintext, which %s '%s' is not for; "
			"--rdma-plaintext of weft %s allows it",
			peer->transport, keys ? "key" : "the certificate of", rights.name,
			keys ? "key new, or of weft serve," : "serve");
	if (r < 0)
		weft_rights_fini(&rights);
	else
		*ret = rights;
	return r;
}

/*
 * A donor with keys lends without one to hosts that its owner has listed, if plaintext is allowed:
 * what they call themselves tells them apart, and proves nothing.
 */
static bool is_listed(const struct weft_donor *donor, const struct weft_peer *peer)
{
	return weft_donor_keys(donor) && peer->listed && peer->may_be_plaintext;
}

static int refuse_plaintext(const struct weft_donor *donor, const struct weft_peer *peer,
	struct weft_error *err)
{
	bool loopback = weft_address_is_loopback((const struct sockaddr *)&peer->address);
	char user[64] = "";

	if (peer->host[0])
		return weft_error_set(err, EACCES, "over %s nobody proves who comes; %s",
			peer->transport,
			weft_donor_keys(donor)
				? "a donor with keys lends to the hosts of --srp-host alone, and "
				  "with --rdma-plaintext"
				: "to lend to whoever comes: --allow-insecure");
	if (weft_donor_keys(donor))
		return weft_error_set(err, EACCES,
			"this donor wants a key; whoever runs it makes one: weft key new");
	if (loopback && peer->has_uid)
		snprintf(user, sizeof(user), "is a process of uid %u", peer->uid);
	else
		snprintf(user, sizeof(user), "%s",
			loopback ? "is of a user whom the kernel does not name"
				 : "does not come over loopback");
	return weft_error_set(err, EACCES,
		"%s %s, and this donor lends to processes of uid %u and of root alone; to lend to "
		"others of this machine: weft serve --listen unix:PATH, whose file's mode says to "
		"whom; or to whoever comes: --allow-insecure",
		peer->text, user, geteuid());
}

int donor_rights(const struct weft_donor *donor, const struct weft_peer *peer,
	struct weft_rights *ret, struct weft_error *err)
{
	if (peer && peer->identity[0])
		return check_key(donor, peer, ret, err);
	if (peer && !peer->local && !donor->allow_insecure && !weft_peer_is_our_user(peer) &&
		!is_listed(donor, peer))
		return refuse_plaintext(donor, peer, err);
	*ret = (struct weft_rights){.read_only = peer && peer->read_only};
	return 0;
}

int donor_no_such_region(const char *name, struct weft_error *err)
{
	return weft_error_set(err, ENOENT, "there is no region '%.200s'", name);
}

int donor_may_have(const struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_region *region, enum weft_mode mode, struct weft_rights *ret,
	struct weft_error *err)
{
	struct weft_rights rights;
	int r = donor_rights(donor, peer, &rights, err);

	if (r < 0)
		return r;
	if (!weft_rights_have_region(&rights, region->name))
		r = donor_no_such_region(region->name, err);
	else if (rights.read_only && mode == WEFT_MODE_WRITE)
		r = weft_error_set(err, EROFS, "region '%s': key '%s' may read it, and not write",
			region->name, rights.name);
	if (r < 0)
		weft_rights_fini(&rights);
	else
		*ret = rights;
	return r;
}

/* Whether an attachment before this one is of the same name and region. */
static bool is_counted(const struct weft_donor *donor, const struct weft_attachment *until,
	const char *name, const struct weft_region *region)
{
	const struct weft_attachment *a = donor->attachments;

	while (a != until && !(a->region == region && strcmp(a->owner, name) == 0))
		a = a->next;
	return a != until;
}

int donor_check_limits(const struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_rights *rights, const struct weft_region *region,
	const struct weft_attachment *own, uint64_t generation, struct weft_error *err)
{
	uint64_t bytes = is_counted(donor, NULL, rights->name, region) ? 0 : region->size_bytes;
	unsigned nr_of_key = 0, nr_from_there = 0, max = donor->max_sessions_each;
	unsigned max_of_key = rights->max_sessions ? rights->max_sessions : max;
	bool from_here = peer->address.ss_family == AF_UNSPEC;
	char text[32];

	for (const struct weft_attachment *a = donor->attachments; a; a = a->next) {
		bool of_key = rights->name[0] && strcmp(a->owner, rights->name) == 0;

		if (of_key && !is_counted(donor, a, rights->name, a->region))
			bytes += a->region->size_bytes;
		for (const struct weft_grant *g = a->grants; g; g = g->next) {
			/* What is about to stop makes room. */
			if (atomic_load(&g->fenced) || (a == own && g->generation < generation))
				continue;
			nr_of_key += of_key;
			nr_from_there += donor_is_same_source(&g->peer, peer);
		}
	}
	if (nr_from_there >= max && !from_here)
		return weft_error_set(err, EBUSY,
			"region '%s': an address may have %u connections at a time, and that of %s "
			"has them",
			region->name, max, peer->text);
	if (nr_of_key >= max_of_key)
		return weft_error_set(err, EBUSY,
			"region '%s': key '%s' may have %u connections at a time, and has them",
			region->name, rights->name, max_of_key);
	if (rights->max_bytes && bytes > rights->max_bytes)
		return weft_error_set(err, EBUSY,
			"region '%s': key '%s' may hold %s in all, and would hold more with it",
			region->name, rights->name,
			weft_format_size(rights->max_bytes, text, sizeof(text)));
	return 0;
}

void donor_id_hash(const struct weft_region *region, const char *owner, const uint8_t *id,
	uint8_t *ret)
{
	uint8_t digest[32];

	_Static_assert(sizeof(digest) >= WEFT_ID_BYTES, "the hash is an id");
	if (!owner[0]) {
		weft_region_id_hash(region, id, ret);
		return;
	}
	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, id, WEFT_ID_BYTES, owner, strlen(owner), digest) <
		0)
		abort(); /* no SHA-256 in the library */
	weft_region_id_hash(region, digest, ret);
}

uint64_t donor_owner_of(const struct weft_region *region, const struct weft_peer *peer)
{
	const uint8_t none[WEFT_ID_BYTES] = {0};
	char name[WEFT_KEY_NAME_MAX + 1];
	uint8_t hash[16];
	uint64_t owner;

	donor_name_of(peer, name);
	donor_id_hash(region, name, none, hash);
	memcpy(&owner, hash, sizeof(owner));
	return owner ? owner : 1;
}

int weft_donor_let_in(struct weft_donor *donor, const struct weft_peer *peer,
	struct weft_error *err)
{
	struct weft_rights rights;
	int r = donor_rights(donor, peer, &rights, err);

	if (r == 0)
		weft_rights_fini(&rights);
	return r;
}

int weft_donor_may_have(struct weft_donor *donor, const struct weft_peer *peer, const char *name,
	struct weft_error *err)
{
	struct weft_rights rights;
	int r = donor_rights(donor, peer, &rights, err);

	if (r < 0)
		return r;
	if (!weft_rights_have_region(&rights, name))
		r = weft_error_set(err, EACCES, "key '%s' is not for a region '%.200s'",
			rights.name, name);
	weft_rights_fini(&rights);
	return r;
}

bool weft_donor_may_write(struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_region *region)
{
	struct weft_rights rights;

	if (region->read_only ||
		donor_may_have(donor, peer, region, WEFT_MODE_WRITE, &rights, NULL) < 0)
		return false;
	weft_rights_fini(&rights);
	return true;
}
