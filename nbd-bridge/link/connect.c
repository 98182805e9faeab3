/* SPDX-License-Identifier: MIT */
/*
 * Asking a donor for a connection: over which way and at which generation, and what a refusal
 * means.  The link's thread.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/key/held.h"
#include "nbd-bridge/link/follow.h"
#include "nbd-bridge/link/link-private.h"

enum {
	LINK_BACKOFF_MIN_MS = 20,
	LINK_WAY_MS = 4000, /* for connecting, where there is another way */
	/* so often is a donor asked that does not take the key … */
	LINK_KEY_BACKOFF_MS = 5000,
	LINK_KEY_PATIENCE_MS = 10000, /* … after so long */
	/* So soon is a region asked for that is between two donors … */
	LINK_SOON_MIN_MS = 5,
	LINK_SOON_MAX_MS = 20,
	LINK_BETWEEN_MS = 2000, /* … and for so long */
	LINK_AT_ONCE_MAX = 4,   /* attempts without a wait, whatever donors say of each other */
};

static void wait_and_retry(struct bridge_link *link, uint32_t ms)
{
	link->state = LINK_BACKOFF;
	weft_loop_timer_set(link->worker->loop, &link->retry, ms * MS_NS);
}

void link_back_off(struct bridge_link *link)
{
	uint32_t ms = link->backoff_ms;

	weft_debug("%s; again in %u ms", link->why.code ? link->why.message : "not connected", ms);
	link->backoff_ms =
		(uint32_t)weft_min(weft_max(2 * ms, LINK_BACKOFF_MIN_MS), LINK_BACKOFF_MAX_MS);
	link->nr_at_once = 0;
	wait_and_retry(link, ms);
}

/* Where a donor has said lately that the region is about to come, or to go: soon. */
static void back_off_or_ask_soon(struct bridge_link *link)
{
	if (link->between_ns == 0 ||
		weft_now_ns() - link->between_ns > LINK_BETWEEN_MS * MS_NS) {
		link_back_off(link);
		return;
	}
	link->soon_ms =
		(uint32_t)weft_min(weft_max(2 * link->soon_ms, LINK_SOON_MIN_MS), LINK_SOON_MAX_MS);
	link->nr_at_once = 0;
	wait_and_retry(link, link->soon_ms);
}

/*
 * A rotation of keys may have ended: the next try is with what the file has now, and at once.
 * Otherwise somebody has to see to it, who is told; and the donor is not asked as often for long.
 */
static void on_key_refused(struct bridge_link *link)
{
	struct weft_held_key *held = link->peer->config.key;
	char identity[WEFT_IDENTITY_MAX + 1];

	/* Another lane may have read the file since. */
	if (weft_held_key_renew(held) || weft_held_key_number(held) != link->asked_key) {
		weft_debug("%s has another key now", weft_held_key_file(held));
		link->backoff_ms = 0;
		return;
	}
	if (!link->peer->granted)
		return;
	weft_held_key_identity(held, identity);
	weft_error_prefix(&link->why, "the donor no longer takes the %s%s of %s",
		identity[0] ? "key " : "certificates", identity, weft_held_key_file(held));
	if (link->down_ns && weft_now_ns() - link->down_ns > LINK_KEY_PATIENCE_MS * MS_NS)
		link->backoff_ms = LINK_KEY_BACKOFF_MS;
	attachment_changed(link->attachment);
}

/*
 * The attach itself does not insist: the user sees the reason and decides.  But each donor that may
 * have the region is asked, and one that hands it over has time for that.
 */
static bool has_a_result(const struct bridge_link *link, enum follow_next next)
{
	if (next == FOLLOW_NOW)
		return link->nr_at_once >= LINK_AT_ONCE_MAX;
	return next != FOLLOW_SOON || weft_now_ns() - link->down_ns >
		link->attachment->config.connect_timeout_ms * MS_NS;
}

/* Asks another donor, or the same one soon.  False: it is not the time for that. */
static bool follow(struct bridge_link *link, enum follow_next next)
{
	if (next == FOLLOW_NOW && link->nr_at_once < LINK_AT_ONCE_MAX) {
		link->nr_at_once++;
		wait_and_retry(link, 1);
		return true;
	}
	if (next != FOLLOW_SOON)
		return false;
	if (link->between_ns == 0) {
		link->between_ns = weft_now_ns();
		link->soon_ms = 0;
	}
	back_off_or_ask_soon(link);
	return true;
}

/* That the region moved is no reason; why the donor that has it refused is one. */
static int find_reason(struct bridge_link *link, enum follow_next next, int error)
{
	if (error == -WEFT_EMOVED && next == FOLLOW_LATER && link->place_why.code) {
		link->why = link->place_why;
		return -link->why.code;
	}
	if (next == FOLLOW_NOW && error != -WEFT_EMOVED)
		link->place_why = link->why;
	return error;
}

/* Over the same way after a wait, or over another one. */
static void try_another_way(struct bridge_link *link)
{
	/* What it refuses says nothing of the ways to the donor that has the region. */
	bool home = follow_is_home(link->peer, link->site);

	if (home && peer_refused(link->peer, link->generation, &link->why))
		wait_and_retry(link, 1);
	else
		back_off_or_ask_soon(link);
}

/* The region does not move: a refusal as any. */
static void refused_by_owner(struct bridge_link *link, int error, bool first)
{
	struct bridge_peer *peer = link->peer;

	/*
	 * Over RDMA a donor of version 0, such as one that was put back to an older weft, closes
	 * the connection on a hello of ours without an answer.  So the next hello is of the other
	 * version.  Not if the contents may be put back: such a hello cannot say what it knows of
	 * them; nor with a key, of which version 0 knows nothing.
	 */
	if (error == -ENOTCONN && peer->granted && !peer->info.restorable && !peer->config.key &&
		link->asked_tp && link->asked_tp->ops->silent_refusal)
		atomic_store(&peer->version0, !link->asked_version0);
	if (error == -WEFT_ESUPERSEDED && (peer->granted || link->attachment->granted)) {
		attachment_set_superseded(link->attachment, &link->why);
		link->state = LINK_IDLE;
		return;
	}
	/*
	 * The donor may have granted this generation without our learning of it, and its lease may
	 * have lapsed: then the donor grants the next one.  Version 0 does not tell that apart from
	 * a final refusal, but refuses the next one too if the bridge was superseded.
	 */
	bool over = error == -WEFT_EOVER ||
		(error == -ESTALE && !link->insisted && atomic_load(&peer->version0));
	if (over && peer->granted) {
		link->insisted = true;
		peer_raise(peer, link->generation);
		/* Whoever says so grants the next one, at once. */
		if (!follow(link, FOLLOW_NOW))
			link_back_off(link);
		return;
	}
	if (error == -ESTALE && link->generation == atomic_load(&peer->generation)) {
		if (peer->granted || link->attachment->nr_copies > 1)
			peer_set_stale(peer, &link->why);
		link->state = LINK_IDLE;
		return;
	}
	/* The attach itself does not insist: the user sees the reason and decides. */
	if (first && !link->insists) {
		link->state = LINK_IDLE;
		return;
	}
	try_another_way(link);
}

void link_refused(struct bridge_link *link, int error)
{
	struct bridge_peer *peer = link->peer;
	enum follow_next next = follow_refused(peer, link->site, error, link->told);

	bridge_recorder_event(link->recorder, BRIDGE_EVENT_REFUSED, error, link->generation, 0);
	bool first = link->ready_ns == 0;
	error = find_reason(link, next, error);
	if (first && has_a_result(link, next)) {
		link->owner->first_result(link, error, &link->why);
		if (next != FOLLOW_NOT && !link->insists) {
			link->state = LINK_IDLE;
			return;
		}
	}
	if (weft_error_is_of_keys(error) && peer->config.key)
		on_key_refused(link);
	if (follow(link, next))
		return;
	if (next == FOLLOW_NOT)
		refused_by_owner(link, error, first);
	else
		try_another_way(link);
}

void link_set_down(struct bridge_link *link)
{
	uint64_t now_ns = weft_now_ns(),
		 timeout_ns = link->attachment->config.dead_timeout_ms * MS_NS;

	if (link->down_ns == 0)
		link->down_ns = now_ns;
	if (timeout_ns == 0)
		return;
	weft_loop_timer_set(link->worker->loop, &link->dead,
		now_ns - link->down_ns < timeout_ns ? link->down_ns + timeout_ns - now_ns : 1);
}

static struct tp_target target_of(const struct bridge_link *link, const struct bridge_site *site,
	unsigned way, uint64_t generation)
{
	struct bridge_peer *peer = link->peer;
	const struct bridge_attachment_config *config = &link->attachment->config;
	struct tp_target target = {
		.host = site->ways[way].host,
		.port = site->ways[way].port,
		.region = site->region,
		.get_pass = site->pass_host ? tp_get_pass : NULL,
		.pass_host = site->pass_host,
		.pass_port = site->pass_port,
		.connect_timeout_ms = config->connect_timeout_ms,
		.answer_ms = site->ways[way].answer_ms,
		/* A dead machine is noticed in time to connect anew before requests fail. */
		.dead_ms = (uint32_t)weft_max(config->dead_timeout_ms / 2,
			config->dead_timeout_ms ? 1000 : 0),
		.renews = !config->foreign,
		.borrower = config->borrower,
		.hello.anonymous = config->foreign,
		.hello.mode = config->mode,
		.hello.generation = generation,
	};

	/* If there is another way, or another donor, to try, this one gets little time. */
	if ((site->nr_ways > 1 && peer_is_granted(peer)) || follow_has_place(peer))
		target.connect_timeout_ms =
			(uint32_t)weft_min(target.connect_timeout_ms, LINK_WAY_MS);
	peer_claim(peer, &target.hello);
	if (config->wants_alias)
		peer_give_alias(peer, &target.hello);
	link->attachment->owner->asking(link->attachment, peer->index, generation);
	memcpy(target.hello.id, peer->config.id, sizeof(target.hello.id));
	memcpy(target.hello.name, config->name, sizeof(target.hello.name));
	return target;
}

int link_connect(const struct bridge_link *link, const struct bridge_site *site, unsigned way,
	uint64_t generation, struct tp_conn **ret, bool *ret_version0, struct weft_error *err)
{
	struct weft_held_key *held = link->peer->config.key;
	struct tp_target target = target_of(link, site, way, generation);
	struct weft_key key = {0};

	target.key = weft_held_key_proof(held, &key, &target.certificates);
	weft_debug("connecting to %s port %s%s%s", target.host, target.port,
		target.key ? " with the key " : target.certificates ? " with certificates" : "",
		key.identity);
	if (ret_version0)
		*ret_version0 = target.hello.version0;
	int r = tp_connect(link->tps[site->transports[way]], &target, ret, err);
	weft_key_wipe(&key);
	return r;
}

void link_start(struct bridge_link *link)
{
	int r;

	assert(!link->conn);
	if (atomic_load(&link->peer->lost_contents)) {
		link->state = LINK_IDLE;
		return;
	}
	r = peer_where(link->peer, link->generation, link->was_granted, &link->generation,
		&link->site, &link->way);
	if (link->down_ns == 0)
		link_set_down(link);
	if (r < 0) {
		wait_and_retry(link, LINK_BACKOFF_MIN_MS);
		return;
	}
	link->was_granted = false;
	bridge_recorder_event(link->recorder, BRIDGE_EVENT_CONNECT, 0, link->generation, link->way);
	if (link->peer->config.key)
		link->asked_key = weft_held_key_number(link->peer->config.key);
	link->told[0] = '\0';
	r = link_connect(link, link->site, link->way, link->generation, &link->conn,
		&link->asked_version0, &link->why);
	link->asked_tp = r < 0 ? NULL : link->conn->tp;
	if (r < 0) {
		link->conn = NULL;
		link_refused(link, r);
		return;
	}
	link->state = LINK_CONNECTING;
}

void link_restart(struct bridge_link *link)
{
	if (link->conn || (link->state != LINK_STALE && link->state != LINK_IDLE))
		return;
	link->was_granted = link->is_dead = link->insisted = false;
	link->down_ns = 0;
	link->backoff_ms = 0;
	link->why.code = 0;
	link_start(link);
}

void link_on_retry(struct weft_timer *timer)
{
	link_start(weft_container_of(timer, struct bridge_link, retry));
}
