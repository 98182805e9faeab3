/* SPDX-License-Identifier: MIT */
/*
 * Who was granted what, whose sessions were ended with their key, and who was refused: a line of
 * the log for each.  Refusals have a bound, since anybody can cause them: a few at a time, and the
 * same one again only after a while; those that are left out are counted.
 *
 * Threads: any, without the donor's lock.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "fabric/donor/donor-private.h"
#include "fabric/base/address.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"

#define SAME_NS (60000 * NS_PER_MS)   /* the same refusal is said again after it */
#define WINDOW_NS (10000 * NS_PER_MS) /* in so long … */
enum { MAX_TOLD = 20 };               /* … so many are said */

/* "key 'alice' at 10.0.0.2:40112 over tcp+tls", or a host that says who it is */
static void describe(const struct weft_peer *peer, char *text, size_t size)
{
	const char *what = peer->identity[0] ? "key '" : peer->host[0] ? "host '" : "";

	snprintf(text, size, "%s%s%s%s over %s", what,
		peer->identity[0] ? peer->identity : peer->host, *what ? "' at " : "", peer->text,
		peer->transport);
}

static void describe_wish(const struct weft_hello *hello, const struct weft_peer *peer,
	bool writable, char *text, size_t size)
{
	char generation[24];
	bool shared = !hello->anonymous && hello->mode == WEFT_MODE_SHARED;
	const char *client = peer->host[0] ? "initiator" : "NBD client";
	const char *mode = writable ? "writer" : shared ? "shared reader" : "reader";

	if (hello->anonymous)
		snprintf(text, size, "%s, a stock %s", mode, client);
	else
		snprintf(text, size, "%s, attachment '%s', generation %s", mode, hello->name,
			weft_format_generation(hello->generation, generation, sizeof(generation)));
}

void donor_audit_grant(const struct weft_peer *peer, const struct weft_region *region,
	const struct weft_hello *hello, bool writable)
{
	char who[160], what[160];

	describe(peer, who, sizeof(who));
	describe_wish(hello, peer, writable, what, sizeof(what));
	weft_info("granted region '%s' to %s: %s", region->name, who, what);
}

void donor_audit_end(const struct weft_peer *peer, const char *region, const char *why)
{
	char who[160];

	describe(peer, who, sizeof(who));
	weft_info("ended a session of %s with region '%s': %s", who, region, why);
}

/* Whether one of the last few refusals was the same. */
static bool is_repeated(struct donor_audit *audit, uint64_t what, uint64_t now_ns)
{
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(audit->recent); i++)
		if (audit->recent[i].what == what && now_ns - audit->recent[i].said_ns < SAME_NS)
			return true;
	return false;
}

/* Whether to say it; *ret_untold: how many were not said before it. */
static bool may_tell(struct donor_audit *audit, uint64_t what, unsigned *ret_untold)
{
	uint64_t now_ns = weft_now_ns();
	bool tell;

	pthread_mutex_lock(&audit->lock);
	if (now_ns - audit->window_ns >= WINDOW_NS) {
		audit->window_ns = now_ns;
		audit->nr_told = 0;
	}
	tell = audit->nr_told < MAX_TOLD && !is_repeated(audit, what, now_ns);
	*ret_untold = tell ? audit->nr_untold : 0;
	if (tell) {
		audit->nr_told++;
		audit->nr_untold = 0;
		audit->recent[audit->next].what = what;
		audit->recent[audit->next].said_ns = now_ns;
		audit->next = (audit->next + 1) % WEFT_ARRAY_LEN(audit->recent);
	} else {
		audit->nr_untold++;
	}
	pthread_mutex_unlock(&audit->lock);
	return tell;
}

/* The same for each connection of an address, and however long others were silent. */
static uint64_t hash_of(const struct weft_peer *peer, const char *region,
	const struct weft_error *why)
{
	uint8_t key[WEFT_ADDRESS_KEY_BYTES];
	char text[sizeof(why->message)];
	size_t len = 0;
	XXH64_hash_t hash;

	for (const char *p = why->message; *p; p++)
		if (*p < '0' || *p > '9')
			text[len++] = *p;
	weft_address_key((const struct sockaddr *)&peer->address, peer->uid, key);
	hash = XXH3_64bits(key, sizeof(key));
	hash = XXH3_64bits_withSeed(peer->identity, strlen(peer->identity), hash);
	hash = XXH3_64bits_withSeed(region, strlen(region), hash);
	return XXH3_64bits_withSeed(text, len, hash);
}

static void refuse(struct weft_donor *donor, const struct weft_peer *peer, const char *region,
	const char *what, const struct weft_error *why)
{
	char who[160];
	unsigned untold;

	if (!may_tell(&donor->audit, hash_of(peer, region, why), &untold))
		return;
	describe(peer, who, sizeof(who));
	if (untold > 0)
		weft_info("%u refusal%s before this one %s not in the log", untold,
			untold == 1 ? "" : "s", untold == 1 ? "is" : "are");
	if (region[0])
		weft_info("refused region '%s' to %s: %s: %s", region, who, what, why->message);
	else
		weft_info("refused %s: %s", who, why->message);
}

void donor_audit_refusal(struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_region *region, const struct weft_hello *hello,
	const struct weft_error *why)
{
	char what[160];

	describe_wish(hello, peer, hello->mode == WEFT_MODE_WRITE || hello->anonymous, what,
		sizeof(what));
	refuse(donor, peer, region->name, what, why);
}

void weft_donor_kept_out(struct weft_donor *donor, const struct weft_peer *peer,
	const struct weft_error *why)
{
	refuse(donor, peer, "", "", why);
}
