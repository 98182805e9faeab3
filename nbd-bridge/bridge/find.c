/* SPDX-License-Identifier: MIT */
/* The ways to donors, and the start of a bridge over the best of them. */
#include "nbd-bridge/bridge/find.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/uri-key.h"

enum {
	ASK_MS = 5000, /* to a donor that takes longer, the fallback is used */
	/*
	 * The time for an answer over a better way, if there is a fallback: so many times the
	 * fallback's, within these bounds.
	 */
	TRY_FACTOR = 10,
	TRY_MIN_MS = 1000,
	TRY_MAX_MS = 10000,
	MAX_BETTER = BRIDGE_MAX_TRANSPORTS / 2, /* the other half is for the donors' fallbacks */
};

/* The transports that are better than the fallback, and that this machine can use. */
struct better {
	const struct tp_driver *drivers[MAX_BETTER];
	unsigned nr;
};

/*
 * choice: look at it alone; NULL: at all that are for this borrower.  *why: why the first unusable
 * one, *ret_tried, cannot be used; code 0: there is a usable one, for near donors too.
 */
static void find_better(const struct tp_driver *choice, bool has_key, struct better *ret,
	const struct tp_driver **ret_tried, struct weft_error *why)
{
	bool for_near = false;
	struct weft_error err;

	for (const struct tp_driver *const *at = tp_drivers;
		*at && !(*at)->ask && ret->nr < MAX_BETTER; at++) {
		if (!(*at)->parse_offer || (choice && choice != *at) ||
			(!choice && (*at)->needs_proof && !has_key))
			continue;
		if (!(*at)->usable || (*at)->usable(&err) == 0) {
			ret->drivers[ret->nr++] = *at;
			for_near = for_near || !(*at)->far_ms;
		} else if (ret->nr == 0 && !*ret_tried) {
			*why = err;
			*ret_tried = *at;
		}
	}
	if (for_near || choice)
		why->code = ret->nr > 0 ? 0 : why->code;
}

/*
 * Asks the donor over which transports it offers the region, and for the region's epoch; "" and 0
 * if it does not say.  Returns how long that took.
 */
static uint64_t ask(
	const struct weft_uri *uri, struct weft_held_key *held, struct weft_welcome *ret)
{
	const uint64_t begin_ns = weft_now_ns();
	struct weft_key space = {0};
	struct weft_error err;
	const char *certificates;
	const struct weft_key *key = weft_held_key_proof(held, &space, &certificates);

	if (tp_base_driver()->ask(uri, key, certificates, ASK_MS, -1, ret, NULL, &err) < 0)
		weft_debug("%s: %s", uri->host, err.message);
	weft_key_wipe(&space);
	return (weft_now_ns() - begin_ns) / 1000000;
}

int bridge_find_keys(struct bridge_find *find, unsigned nr_donors, struct weft_error *err)
{
	int r = 0;

	for (unsigned i = 0; i < nr_donors && r == 0; i++)
		r = weft_uri_key(find->donors[i].uri, find->key_file, find->allow_insecure,
			&find->donors[i].key, err);
	if (r < 0)
		bridge_find_fini(find);
	return r;
}

void bridge_find_fini(struct bridge_find *find)
{
	for (unsigned i = 0; i < BRIDGE_MAX_DONORS; i++) {
		weft_held_key_close(find->donors[i].key);
		find->donors[i].key = NULL;
	}
}

static void add_way(struct bridge_found *found, struct bridge_donor_config *config,
	const struct tp_driver *driver, const char *host, const char *port)
{
	unsigned i = config->nr_ways;

	for (unsigned j = 0; j < i; j++)
		if (config->ways[j].transport == driver->ops &&
			strcmp(config->ways[j].host, host) == 0)
			return;
	if (i == BRIDGE_MAX_WAYS)
		return;
	snprintf(found->hosts[i], sizeof(found->hosts[i]), "%s", host);
	snprintf(found->ports[i], sizeof(found->ports[i]), "%s", port);
	config->ways[i] = (struct bridge_way){
		.transport = driver->ops, .host = found->hosts[i], .port = found->ports[i]};
	config->nr_ways++;
}

struct adding {
	struct bridge_found *found;
	struct bridge_donor_config *config;
};

static void add_offered(void *ctx, const struct tp_driver *driver, const char *host,
	const char *port)
{
	const struct adding *adding = ctx;

	add_way(adding->found, adding->config, driver, host, port);
}

static void add_fallback(const struct weft_uri *uri, const struct tp_driver *driver,
	struct bridge_donor_config *config)
{
	bool at_socket = uri->socket[0];

	config->ways[0] = (struct bridge_way){
		.transport = driver->ops,
		.host = at_socket ? uri->socket : uri->host,
		.port = at_socket ? NULL : uri->port,
	};
	config->nr_ways = 1;
}

static int refuse_choice(
	const struct weft_uri *uri, const struct tp_driver *choice, struct weft_error *err)
{
	return weft_error_set(err, EOPNOTSUPP,
		"cannot attach over %s: %s; use --transport auto%s%s", choice->label,
		uri->scheme->only, tp_driver_is_choice(uri->driver) ? " or " : "",
		tp_driver_is_choice(uri->driver) ? uri->driver->word : "");
}

static void begin_to_find(struct bridge_found *found, struct bridge_donor_config *config)
{
	const struct weft_uri *uri = found->uri;

	config->region = uri->region;
	config->label = found->label;
	config->key = found->key;
	config->pass_host = uri->host;
	config->pass_port = uri->port;
	config->nr_ways = 0;
	found->offers[0] = '\0';
	found->tried = NULL;
}

void bridge_find_first_way(struct bridge_found *found, const struct tp_driver *choice,
	struct bridge_donor_config *config)
{
	const struct weft_uri *uri = found->uri;
	const struct tp_driver *fallback = uri->driver ? uri->driver : tp_base_driver();

	begin_to_find(found, config);
	if (choice && choice != fallback)
		add_way(found, config, choice, uri->host, uri->port);
	else
		add_fallback(uri, fallback, config);
}

int bridge_find_ways(struct bridge_found *found, const struct tp_driver *choice,
	struct bridge_donor_config *config, struct weft_error *no_better, struct weft_error *err)
{
	const struct weft_uri *uri = found->uri;
	const struct tp_driver *fallback = uri->driver ? uri->driver : tp_base_driver();
	struct weft_welcome welcome = {0};
	struct adding adding = {found, config};
	struct better better = {.nr = 0};
	uint64_t took_ms = 0;

	begin_to_find(found, config);
	if (uri->driver && choice && choice != uri->driver)
		return refuse_choice(uri, choice, err);
	if (!uri->driver && choice != fallback)
		find_better(choice, found->key != NULL, &better, &found->tried, no_better);
	if (better.nr > 0) {
		took_ms = ask(uri, found->key, &welcome);
		strcpy(found->offers, welcome.offers);
		/* A donor at an offered address must have the same contents. */
		if (config->epoch == 0)
			config->expect = welcome.epoch;
		config->version0 = welcome.version0;
	}
	bool alone = choice && choice != fallback;
	if (!alone)
		add_fallback(uri, fallback, config);
	for (unsigned i = 0; i < better.nr; i++)
		if (choice || took_ms >= better.drivers[i]->far_ms)
			tp_each_offered(better.drivers[i], found->offers, uri->host, add_offered,
				&adding);
	/* The donor may be there over the chosen transport alone. */
	if (config->nr_ways == 0)
		add_way(found, config, choice, uri->host, uri->port);
	weft_debug("%s offers %s, answered within %" PRIu64 " ms: %u ways",
		uri->socket[0] ? uri->socket : uri->host,
		found->offers[0] ? found->offers : "nothing else", took_ms, config->nr_ways);
	for (unsigned i = 0; i < config->nr_ways; i++)
		weft_debug("  %s, %s port %s", config->ways[i].transport->name,
			config->ways[i].host, config->ways[i].port);
	/* A machine or network that is slow over the fallback is slow over a better way too. */
	for (unsigned i = 1; i < config->nr_ways && !alone; i++)
		config->ways[i].answer_ms =
			(uint32_t)weft_max(weft_min(TRY_FACTOR * took_ms, TRY_MAX_MS), TRY_MIN_MS);
	return 0;
}

/*
 * Whether the donor would refuse with this error over any transport.  EBUSY and EINVAL may also
 * come from the driver or the listener, so the fallback is asked again.
 */
static bool is_final(int error)
{
	return error == -ECANCELED || error == -ESTALE || error == -WEFT_ESUPERSEDED ||
		error == -EROFS || error == -ENOENT || error == -ESHUTDOWN;
}

void bridge_find_end(struct bridge **bridge)
{
	if (!*bridge)
		return;
	bridge_stop(*bridge, 0, NULL);
	bridge_free(*bridge);
	*bridge = NULL;
}

/*
 * Begins with the nth better way of each donor that has so many, and with the fallback of others.
 */
static int start_over(struct bridge_config *config, struct bridge_donor_config *donors,
	unsigned nth, struct bridge **bridge, struct weft_error *err)
{
	bridge_find_end(bridge);
	for (unsigned i = 0; i < config->attach.nr_donors; i++)
		donors[i].first_way = nth < donors[i].nr_ways ? nth : 0;
	config->attach.donors = donors;
	int r = bridge_new(config, bridge, err);
	if (r < 0)
		return r;
	return bridge_start(*bridge, err);
}

static unsigned most_ways(const struct bridge_donor_config *donors, unsigned nr)
{
	unsigned most = 0;

	for (unsigned i = 0; i < nr; i++)
		if (donors[i].nr_ways > most)
			most = donors[i].nr_ways;
	return most;
}

/* With one transport alone the attachment stays with the first address that answers. */
static int start_alone(struct bridge_find *find, struct bridge_config *config,
	struct bridge_donor_config *donors, struct bridge **bridge, struct weft_error *err)
{
	unsigned most = most_ways(donors, config->attach.nr_donors);
	int r = 0;

	for (unsigned nth = 0; nth < most; nth++) {
		struct bridge_donor_config one[BRIDGE_MAX_DONORS];

		for (unsigned i = 0; i < config->attach.nr_donors; i++) {
			one[i] = donors[i];
			one[i].ways[0] = donors[i].ways[nth < donors[i].nr_ways ? nth : 0];
			one[i].nr_ways = 1;
		}
		r = start_over(config, one, 0, bridge, err);
		if (r == 0 || is_final(r))
			break;
	}
	snprintf(find->why, sizeof(find->why), "as told");
	return r;
}

static bool is_offered(const struct tp_driver *driver, const char *offers)
{
	struct tp_offer offer;

	return tp_next_offer(driver, &offers, &offer);
}

/*
 * The first transport that is better than the fallback, far: for donors that are far away, and is
 * offered; NULL: there is none.
 */
static const struct tp_driver *better_offered(const char *offers, bool far)
{
	for (const struct tp_driver *const *driver = tp_drivers; *driver && !(*driver)->ask;
		driver++)
		if (!(*driver)->far_ms == !far && is_offered(*driver, offers))
			return *driver;
	return NULL;
}

static void say_why_fallback(
	struct bridge_find *find, const struct bridge *bridge, const struct weft_error *no_better)
{
	const struct weft_uri *uri = find->donors[0].uri;
	const char *offers = bridge_info(bridge)->offers;
	const struct tp_driver *tried = find->donors[0].tried;

	if (find->choice && !uri->foreign)
		snprintf(find->why, sizeof(find->why), "as told");
	else if (no_better->code && tried && is_offered(tried, offers))
		snprintf(find->why, sizeof(find->why), "auto: %s was tried: %s", tried->label,
			no_better->message);
	else if (uri->scheme->why)
		snprintf(find->why, sizeof(find->why), "%s", uri->scheme->why);
	else if (!find->donors[0].offers[0] && better_offered(offers, false))
		snprintf(find->why, sizeof(find->why),
			"auto: the donor took over %u s to say what it offers", ASK_MS / 1000);
	else if (better_offered(offers, true))
		snprintf(find->why, sizeof(find->why), "auto: the donor is near, and offers %s",
			offers);
	else
		snprintf(find->why, sizeof(find->why), "auto: the donor offers only %s", offers);
}

static int find_all(struct bridge_find *find, const struct bridge_config *config,
	struct bridge_donor_config *donors, struct weft_error *no_better, struct weft_error *err)
{
	int r = 0;

	for (unsigned i = 0; i < config->attach.nr_donors && r == 0; i++)
		r = bridge_find_ways(&find->donors[i], find->choice, &donors[i], no_better, err);
	return r;
}

int bridge_find_and_start_stale(struct bridge_find *find, struct bridge_config *config,
	struct bridge_donor_config *donors, const struct tp_info *infos,
	const struct weft_error *why, struct bridge **bridge, struct weft_error *err)
{
	struct weft_error no_better = {0};

	bridge_find_end(bridge);
	int r = find_all(find, config, donors, &no_better, err);
	config->attach.donors = donors;
	snprintf(find->why, sizeof(find->why), "it was stale when it was taken over");
	if (r == 0)
		r = bridge_new(config, bridge, err);
	return r < 0 ? r : bridge_start_stale(*bridge, infos, why, err);
}

int bridge_find_and_start(struct bridge_find *find, struct bridge_config *config,
	struct bridge_donor_config *donors, struct bridge **bridge, struct weft_error *err)
{
	struct weft_error no_better = {0};

	/* The old bridge borrows the hosts and ports that are found anew. */
	bridge_find_end(bridge);
	int r = find_all(find, config, donors, &no_better, err);
	if (r < 0)
		return r;
	if (find->choice && find->choice != tp_base_driver())
		return start_alone(find, config, donors, bridge, err);
	unsigned most = most_ways(donors, config->attach.nr_donors);
	for (unsigned nth = 1; nth < most; nth++) {
		r = start_over(config, donors, nth, bridge, err);
		if (r == 0) {
			snprintf(find->why, sizeof(find->why), "auto: the donor offers %s",
				bridge_info(*bridge)->offers);
			return 0;
		}
		if (is_final(r))
			return r;
		/* The first address is the likeliest one, so its failure is the one to report. */
		if (no_better.code == 0) {
			no_better = *err;
			find->donors[0].tried = tp_driver_of_ops(
				donors[0].ways[donors[0].first_way].transport);
		}
	}
	r = start_over(config, donors, 0, bridge, err);
	if (r == 0)
		say_why_fallback(find, *bridge, &no_better);
	return r;
}
