/* SPDX-License-Identifier: MIT */
/*
 * Logins: who comes, to which region, and whether the contents are those that are meant.
 *
 * Threads: the channel's.  Invariant: nothing is accepted before the donor has granted the region,
 * under the tenure that the login names.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "transports/rdma/device.h"
#include "transports/srp/donor/channel.h"
#include "transports/srp/target.h"

enum {
	MAX_TICK_MS = 1000,
	MIN_TICK_MS = 100,
	OTHERS_MS = 20000, /* older channels of the initiator have to end in that time */
	DEFAULT_LEASE_MS = 30000,
};

/* The donor calls this, from any thread. */
static void on_fence(void *ctx)
{
	struct srp_channel *channel = ctx;

	atomic_store(&channel->fenced, true);
	srp_channel_wake(channel);
}

/* What the login asks of the protocol. */
static uint32_t check_login(const struct srp_login *login, struct weft_error *err)
{
	if (login->it_iu_bytes > SRP_IT_IU_MAX) {
		weft_error_set(err, EMSGSIZE,
			"it wants to send requests of %u bytes, and %d is the most (of ib_srp: "
			"srp_max_imm_data, cmd_sg_entries)",
			login->it_iu_bytes, SRP_IT_IU_MAX);
		return SRP_REJ_IU_TOO_LONG;
	}
	if (login->it_iu_bytes < SRP_CMD_BYTES || login->channels > SRP_CHANNELS_MULTI) {
		weft_error_set(err, EPROTO, "its login is none of SRP");
		return SRP_REJ_CANNOT;
	}
	if (login->formats & ~SRP_FORMATS || !(login->formats & SRP_FORMAT_DIRECT)) {
		weft_error_set(err, ENOTSUP, "it has descriptors of formats %#x",
			login->formats);
		return SRP_REJ_FORMAT;
	}
	return 0;
}

/* Who it is, as far as that can be told. */
static uint32_t know(struct srp_channel *channel, struct weft_error *err)
{
	const struct srp_listener_config *config = &channel->listener->config;
	const struct srp_login *login = &channel->login;
	struct weft_peer *peer = &channel->peer;
	uint64_t ext, guid;

	srp_unpack_port(login->initiator, &ext, &guid);
	peer->may_be_plaintext = config->may_be_plaintext;
	if (!config->hosts) {
		snprintf(peer->host, sizeof(peer->host), "%016" PRIx64 "%016" PRIx64, ext, guid);
		return 0;
	}
	const struct srp_host *host = srp_hosts_find(config->hosts, login->initiator,
		(const struct sockaddr *)&peer->address);
	if (!host) {
		weft_error_set(err, EACCES,
			"no --srp-host of this donor has its address or its identifier "
			"%016" PRIx64 "%016" PRIx64,
			ext, guid);
		return SRP_REJ_CANNOT;
	}
	snprintf(peer->host, sizeof(peer->host), "%s", host->name);
	peer->listed = true;
	peer->read_only = host->read_only;
	return 0;
}

struct search {
	uint64_t guid;
	char *name;
};

static int is_it(void *ctx, const char *name, const char *description, uint64_t size_bytes)
{
	struct search *search = ctx;

	if (search->name || srp_target_guid(name) != search->guid)
		return 0;
	search->name = strdup(name);
	return 1;
}

static void is_open(void *ctx, struct weft_region *region, bool from_directory)
{
	is_it(ctx, region->name, NULL, 0);
}

/*
 * The name of the region with the guid, of those that this peer may know.  Whoever comes may ask
 * for any: so a directory is read for one login at a time, and never for a region that is open.
 */
static int search_name(struct srp_channel *channel, struct search *search, struct weft_error *err)
{
	struct srp_listener *listener = channel->listener;

	weft_donor_regions(listener->donor, is_open, search);
	if (search->name)
		return 0;
	pthread_mutex_lock(&listener->search_lock);
	int r = weft_donor_list(listener->donor, &channel->peer, is_it, search, err);
	pthread_mutex_unlock(&listener->search_lock);
	return r;
}

/* The region that is meant, with the contents that are. */
static uint32_t find(struct srp_channel *channel, uint64_t *ret_tenure, struct weft_error *err)
{
	struct weft_donor *donor = channel->listener->donor;
	const struct srp_login *login = &channel->login;
	struct search search = {.guid = login->target_guid};

	int r = search_name(channel, &search, err);
	if (search.name)
		r = weft_donor_find(donor, &channel->peer, search.name, &channel->region, NULL,
			err);
	else if (r == 0 || r == -E2BIG)
		r = weft_error_set(err, ENOENT, "there is no region with ioc_guid %016" PRIx64,
			login->target_guid);
	free(search.name);
	if (r < 0)
		return r == -ENOENT || r == -EACCES ? SRP_REJ_TARGET : SRP_REJ_RESOURCES;
	*ret_tenure = weft_donor_tenure(donor, channel->region);
	if (srp_target_ext(channel->region->epoch, *ret_tenure) == login->target_ext)
		return 0;
	*ret_tenure = weft_donor_own_tenure(donor, channel->region, &channel->peer);
	if (*ret_tenure &&
		srp_target_ext(channel->region->epoch, *ret_tenure) == login->target_ext)
		return 0;
	weft_error_set(err, ESTALE,
		"region '%s': id_ext %016" PRIx64 " is over: another could write since, or the "
		"contents are others (weft list --line srp has what holds)",
		channel->region->name, login->target_ext);
	return SRP_REJ_TARGET;
}

static int wait_for_memory(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	struct srp_channel *channel = ctx;

	if (channel->grant)
		weft_grant_touch(channel->grant, weft_now_ns());
	return srp_channel_must_end(channel) ? -ECANCELED : 0;
}

static int note_keys(struct srp_channel *channel, struct weft_error *err)
{
	uint32_t nr = weft_rdma_memory_nr_chunks(channel->reach->memory);

	channel->lkeys = calloc(nr, sizeof(channel->lkeys[0]));
	if (!channel->lkeys)
		return weft_error_set(err, ENOMEM, "region '%s': no memory",
			channel->region->name);
	for (uint32_t i = 0; i < nr; i++)
		channel->lkeys[i] = weft_rdma_memory_chunk(channel->reach->memory, i).lkey;
	return 0;
}

static uint32_t grant(struct srp_channel *channel, uint64_t tenure, struct weft_error *err)
{
	const struct weft_hello hello = {.anonymous = true, .tenure = tenure};
	struct weft_donor *donor = channel->listener->donor;
	struct weft_welcome welcome;

	int r = weft_donor_grant(donor, channel->region, &hello, &channel->peer, on_fence, channel,
		&channel->grant, err);
	if (r < 0)
		return r == -EBUSY ? SRP_REJ_TOO_MANY
			: r == -ESTALE || r == -EACCES || r == -ENOENT ? SRP_REJ_TARGET
								       : SRP_REJ_RESOURCES;
	weft_donor_welcome(donor, channel->region, &welcome);
	channel->lease_ms = welcome.lease_ms ? welcome.lease_ms : DEFAULT_LEASE_MS;
	channel->tick_ms = channel->lease_ms / 8;
	channel->tick_ms =
		(uint32_t)weft_max(weft_min(channel->tick_ms, MAX_TICK_MS), MIN_TICK_MS);
	return 0;
}

static int prepare(struct srp_channel *channel, struct weft_error *err)
{
	int r = weft_region_stage(channel->region, channel->grant->writable, wait_for_memory,
		channel, err);

	if (r < 0)
		return r;
	channel->staged = true;
	r = srp_reach_get(&channel->listener->units, channel->member.nexus->unit,
		channel->id->verbs, wait_for_memory, channel, &channel->reach, err);
	if (r == 0)
		r = note_keys(channel, err);
	if (r == 0)
		r = srp_channel_open(channel, err);
	return r;
}

int srp_channel_login(struct srp_channel *channel, uint8_t *ret_result, uint32_t *ret_reason,
	struct weft_error *err)
{
	const struct srp_login *login = &channel->login;
	uint64_t tenure = 0;

	*ret_reason = check_login(login, err);
	if (*ret_reason == 0)
		*ret_reason = know(channel, err);
	if (*ret_reason == 0)
		*ret_reason = find(channel, &tenure, err);
	if (*ret_reason)
		return -err->code;
	/* Before others are ended: of another host this is not. */
	*ret_reason = grant(channel, tenure, err);
	if (*ret_reason)
		return -err->code;
	int r = srp_unit_enter(&channel->listener->units, channel->region, login->initiator,
		channel->peer.host, !channel->grant->writable, channel->grant->turn,
		login->channels == SRP_CHANNELS_SINGLE,
		weft_now_ns() + OTHERS_MS * UINT64_C(1000000), &channel->member, ret_result, err);
	*ret_reason = r == -EBUSY ? SRP_REJ_TOO_MANY : SRP_REJ_RESOURCES;
	if (r < 0)
		return r;
	return prepare(channel, err);
}

void srp_channel_unstage(struct srp_channel *channel)
{
	int r = channel->staged ? weft_region_unstage(channel->region) : 0;

	channel->staged = false;
	/* There is nobody left to tell. */
	if (r < 0)
		weft_warn("region '%s': what was written over SRP stays in memory, since its file "
			  "cannot be written: %s",
			channel->region->name, strerror(-r));
}
