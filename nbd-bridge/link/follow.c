/* SPDX-License-Identifier: MIT */
/* See follow.h. */
#include "nbd-bridge/link/follow.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"

/* Questions to a place that says that the region is about to come, before one to the home. */
enum { PLACE_ASKS = 4 };

/* Finds it among those that there were, or makes it; NULL: it cannot be reached. */
static const struct bridge_site *site_of(struct bridge_peer *peer, const char *uri,
	const char *offers)
{
	struct bridge_site *site = peer->sites;

	while (site && (strcmp(site->uri, uri) != 0 || strcmp(site->offers, offers) != 0))
		site = site->next;
	if (site)
		return site;
	site = site_new(peer->attachment, uri, offers, peer->first.ways[1].answer_ms);
	if (site) {
		site->next = peer->sites;
		peer->sites = site;
	}
	return site;
}

static void set_place(struct bridge_peer *peer, const struct bridge_site *place)
{
	if (place != peer->place)
		peer->nr_places++;
	peer->place = place;
	peer->decided = false;
	if (!place)
		peer->asks_place = false;
}

/* A donor named the place.  True: it is news. */
static bool learn(struct bridge_peer *peer, const char *uri)
{
	if (!uri[0] || strcmp(uri, peer->home->uri) == 0 ||
		(peer->place && strcmp(uri, peer->place->uri) == 0))
		return false;
	const struct bridge_site *site = site_of(peer, uri, "");

	if (!site)
		return false;
	weft_debug("the region may be at %s soon", uri);
	set_place(peer, site);
	return true;
}

void follow_init(struct bridge_peer *peer)
{
	const struct bridge_attachment_config *config = &peer->attachment->config;

	peer->home = &peer->first;
	/* A kernel that holds the connection itself cannot be told. */
	peer->follows = !config->foreign && !config->wants_alias &&
		site_base_transport(peer->attachment) >= 0;
	if (peer->config.at)
		snprintf(peer->first.uri, sizeof(peer->first.uri), "%s", peer->config.at);
	if (peer->follows && peer->config.moving)
		peer->asks_place = learn(peer, peer->config.moving);
	/* What there is now is noted already.  The next bridge of this process goes on counting. */
	peer->nr_places = peer->noted_places = weft_now_ns();
}

void follow_forget(struct bridge_peer *peer)
{
	set_place(peer, NULL);
}

uint64_t follow_now(struct bridge_peer *peer, const char **ret_at, const char **ret_moving)
{
	pthread_mutex_lock(&peer->attachment->lock);
	const uint64_t nr = peer->nr_places;
	*ret_at = peer->home->uri;
	*ret_moving = peer->place ? peer->place->uri : "";
	pthread_mutex_unlock(&peer->attachment->lock);
	return nr;
}

bool follow_has_place(struct bridge_peer *peer)
{
	pthread_mutex_lock(&peer->attachment->lock);
	bool has = peer->place;
	pthread_mutex_unlock(&peer->attachment->lock);
	return has;
}

bool follow_is_home(struct bridge_peer *peer, const struct bridge_site *site)
{
	pthread_mutex_lock(&peer->attachment->lock);
	bool is = site_is_same(site, peer->home);
	pthread_mutex_unlock(&peer->attachment->lock);
	return is;
}

static bool is_place(const struct bridge_peer *peer, const struct bridge_site *site)
{
	return peer->place && site_is_same(site, peer->place);
}

bool follow_counts(struct bridge_peer *peer, const struct bridge_site *site)
{
	pthread_mutex_lock(&peer->attachment->lock);
	bool counts = site_is_same(site, peer->home) || (is_place(peer, site) && peer->decided);
	pthread_mutex_unlock(&peer->attachment->lock);
	return counts;
}

/* ---- refusals ---- */

static enum follow_next refused_at_home(struct bridge_peer *peer, int error, const char *told)
{
	const bool moved = error == -WEFT_EMOVED, moving = error == -WEFT_EMOVING;
	const bool news = (moved || moving) && learn(peer, told);

	/* Who says so has the region. */
	if (!peer->place || error == -ESTALE || error == -WEFT_ESUPERSEDED || error == -WEFT_EOVER)
		return FOLLOW_NOT;
	peer->decided |= moved;
	peer->asks_place = true;
	if (moving)
		return FOLLOW_SOON;
	return news ? FOLLOW_NOW : FOLLOW_LATER;
}

static enum follow_next refused_at_place(struct bridge_peer *peer, int error, const char *told)
{
	/* Who says that the generation is over would grant the next one. */
	if (error == -WEFT_EOVER ||
		(peer->decided && (error == -ESTALE || error == -WEFT_ESUPERSEDED)))
		return FOLLOW_NOT;
	/* It had the region, and gave it to a third one. */
	if (error == -WEFT_EMOVED && learn(peer, told)) {
		peer->decided = true;
		peer->asks_place = true;
		return FOLLOW_NOW;
	}
	/* The region is about to be there: who asks the home in between learns of it later. */
	if (error == -WEFT_EMOVING && ++peer->nr_moving % PLACE_ASKS != 0)
		return FOLLOW_SOON;
	peer->asks_place = false;
	return error == -WEFT_EMOVING ? FOLLOW_SOON : FOLLOW_NOW;
}

enum follow_next follow_refused(struct bridge_peer *peer, const struct bridge_site *site, int error,
	const char *told)
{
	enum follow_next next = FOLLOW_NOT;

	if (!peer->follows)
		return FOLLOW_NOT;
	pthread_mutex_lock(&peer->attachment->lock);
	if (site_is_same(site, peer->home))
		next = refused_at_home(peer, error, told);
	else if (is_place(peer, site))
		next = refused_at_place(peer, error, told);
	else
		next = FOLLOW_NOW;
	pthread_mutex_unlock(&peer->attachment->lock);
	return next;
}

/* ---- grants ---- */

static void set_home(struct bridge_peer *peer, const struct bridge_site *site)
{
	const uint64_t nr_changes = peer->ways.nr_changes;

	peer->home = site;
	bridge_ways_init(&peer->ways, site->nr_ways, site_nr_best(site), 0, peer->ways.return_ms);
	peer->ways.nr_changes = nr_changes;
	weft_debug("the region is at %s now", site->uri);
}

/* With the ways that the donor there offers, if that is of use. */
static void set_home_with_ways(struct bridge_peer *peer, const struct bridge_site *site,
	const struct tp_info *info)
{
	const struct bridge_site *better =
		peer->first.nr_ways > 1 ? site_of(peer, site->uri, info->offers) : NULL;

	set_home(peer, better ? better : site);
}

/* The region has moved to the place. */
static void go_home(struct bridge_peer *peer, const struct tp_info *info)
{
	set_home_with_ways(peer, peer->place, info);
	set_place(peer, NULL);
	peer->nr_ready = 0;
}

bool follow_reaches(struct bridge_peer *peer, const char *uri)
{
	return peer->follows && site_of(peer, uri, "");
}

void follow_replace(struct bridge_peer *peer, const char *uri)
{
	set_home(peer, site_of(peer, uri, ""));
	peer->nr_places++;
	peer->is_replaced = true;
}

/* Each lane sees to it that what it goes by is noted; another may note the same. */
static int note_place(struct bridge_peer *peer, uint64_t nr, const struct bridge_site *home,
	const struct bridge_site *place)
{
	const struct bridge_attachment_config *config = &peer->attachment->config;
	int r = config->note_place
		? config->note_place(config->note_ctx, peer->index, nr, home->uri,
			  place ? place->uri : "")
		: 0;

	if (r < 0)
		return r;
	pthread_mutex_lock(&peer->attachment->lock);
	peer->noted_places = weft_max(peer->noted_places, nr);
	pthread_mutex_unlock(&peer->attachment->lock);
	return 0;
}

int follow_granted(struct bridge_peer *peer, const struct bridge_site **io_site,
	const struct tp_info *info)
{
	struct bridge_attachment *attachment = peer->attachment;
	bool moved = false;
	int r = 0;

	if (!peer->follows)
		return 0;
	pthread_mutex_lock(&attachment->lock);
	if (is_place(peer, *io_site)) {
		go_home(peer, info);
		moved = true;
	} else if (peer->is_replaced && site_is_same(*io_site, peer->home)) {
		peer->is_replaced = false;
		set_home_with_ways(peer, peer->home, info);
	} else if (!site_is_same(*io_site, peer->home)) {
		r = -EAGAIN;
	}
	if (r == 0) {
		*io_site = peer->home;
		peer->asks_place = false;
		if (!info->moving[0])
			set_place(peer, NULL);
		else
			learn(peer, info->moving);
	}
	const struct bridge_site *home = peer->home, *place = peer->place;
	const uint64_t nr = peer->nr_places;
	const bool noted = nr <= peer->noted_places;
	pthread_mutex_unlock(&attachment->lock);
	if (r == 0 && !noted)
		r = note_place(peer, nr, home, place);
	/* Sessions at the donor before are of no use any more. */
	if (moved)
		attachment->owner->wake_lanes(attachment);
	return r;
}
