/* SPDX-License-Identifier: MIT */
/* Units, nexuses, and wishes that commands end.  Threads: any; unit.h says. */
#include "transports/srp/donor/unit.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "transports/rdma/device.h"

int srp_units_init(struct srp_units *units, uint64_t chunk_bytes, const char *donor)
{
	*units = (struct srp_units){.chunk_bytes = chunk_bytes};
	snprintf(units->donor, sizeof(units->donor), "%s", donor);
	pthread_mutex_init(&units->lock, NULL);
	weft_cond_init(&units->changed);
	return 0;
}

static void unit_free(struct srp_unit *unit)
{
	assert(!unit->nexuses && !unit->reaches);
	scsi_unit_fini(&unit->scsi);
	weft_region_put(unit->region);
	free(unit);
}

void srp_units_fini(struct srp_units *units)
{
	while (units->first) {
		struct srp_unit *unit = units->first;

		units->first = unit->next;
		unit_free(unit);
	}
	pthread_cond_destroy(&units->changed);
	pthread_mutex_destroy(&units->lock);
}

/* Under the lock, as all that follows without a lock of its own. */
static struct srp_unit *find_unit(struct srp_units *units, const struct weft_region *region)
{
	struct srp_unit *unit = units->first;

	while (unit && unit->number != region->number)
		unit = unit->next;
	return unit;
}

static struct srp_unit *unit_new(struct srp_units *units, struct weft_region *region,
	struct weft_error *err)
{
	struct srp_unit *unit = calloc(1, sizeof(*unit));
	struct scsi_unit_config config = {
		.size_bytes = region->size_bytes,
		.read_only = region->read_only,
		.write_cache = region->backing == WEFT_BACKING_FILE && !region->read_only,
		.protocol = SCSI_PROTOCOL_SRP,
	};

	if (!unit) {
		weft_error_set(err, ENOMEM, "region '%s': no memory", region->name);
		return NULL;
	}
	scsi_names(units->donor, region->name, &config.names);
	if (scsi_unit_init(&unit->scsi, &config) < 0) {
		weft_error_set(err, EINVAL, "region '%s' is smaller than a block of %d bytes",
			region->name, SCSI_BLOCK_BYTES);
		free(unit);
		return NULL;
	}
	unit->number = region->number;
	unit->next = units->first;
	units->first = unit;
	return unit;
}

static bool has_registrations(struct srp_unit *unit)
{
	bool has = false;

	pthread_mutex_lock(&unit->scsi.lock);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(unit->scsi.registration); i++)
		has |= unit->scsi.registration[i].key != 0;
	pthread_mutex_unlock(&unit->scsi.lock);
	return has;
}

static void unlist(struct srp_units *units, struct srp_unit *unit)
{
	struct srp_unit **p = &units->first;

	while (*p != unit)
		p = &(*p)->next;
	*p = unit->next;
}

/* Of too many units that nobody uses, the one that was used last the longest ago is freed. */
static void keep_registrations(struct srp_units *units, struct srp_unit *unit)
{
	struct srp_unit *oldest = NULL;
	unsigned nr = 0;

	unlist(units, unit);
	unit->next = units->first;
	units->first = unit;
	for (struct srp_unit *u = unit; u; u = u->next)
		if (!u->region) {
			oldest = u;
			nr++;
		}
	if (nr > SRP_UNUSED_MAX) {
		unlist(units, oldest);
		unit_free(oldest);
	}
}

/* The region is not closed here: whoever leaves, or fails to enter, has a reference of his own. */
static void drop_if_unused(struct srp_units *units, struct srp_unit *unit)
{
	if (unit->nexuses || unit->reaches)
		return;
	weft_region_put(unit->region);
	unit->region = NULL;
	if (has_registrations(unit)) {
		keep_registrations(units, unit);
		return;
	}
	unlist(units, unit);
	unit_free(unit);
}

static struct srp_nexus *find_nexus(struct srp_unit *unit, const uint8_t *initiator,
	const char *host)
{
	struct srp_nexus *nexus = unit->nexuses;

	while (nexus && (memcmp(nexus->initiator, initiator, SRP_PORT_BYTES) != 0 ||
				strcmp(nexus->host, host) != 0))
		nexus = nexus->next;
	return nexus;
}

static struct srp_nexus *nexus_new(struct srp_unit *unit, const uint8_t *initiator,
	const char *host, bool read_only, struct weft_error *err)
{
	struct srp_nexus *nexus = calloc(1, sizeof(*nexus));

	if (!nexus) {
		weft_error_set(err, ENOMEM, "region '%s': no memory", unit->region->name);
		return NULL;
	}
	memcpy(nexus->initiator, initiator, SRP_PORT_BYTES);
	snprintf(nexus->host, sizeof(nexus->host), "%s", host);
	nexus->scsi.read_only = read_only;
	scsi_srp_transport_id(initiator, nexus->scsi.transport_id);
	if (scsi_unit_join(&unit->scsi, &nexus->scsi) < 0) {
		weft_error_set(err, EBUSY,
			"region '%s' has %d initiators, or one of another host with the same "
			"identifier",
			unit->region->name, SCSI_MAX_NEXUSES);
		free(nexus);
		return NULL;
	}
	nexus->unit = unit;
	nexus->next = unit->nexuses;
	unit->nexuses = nexus;
	return nexus;
}

static int add(struct srp_units *units, struct weft_region *region, const uint8_t *initiator,
	const char *host, bool read_only, struct srp_member *member, struct weft_error *err)
{
	struct srp_unit *unit = find_unit(units, region);

	if (!unit)
		unit = unit_new(units, region, err);
	if (!unit)
		return -err->code;
	if (!unit->region)
		unit->region = weft_region_get(region);
	struct srp_nexus *nexus = find_nexus(unit, initiator, host);
	if (!nexus)
		nexus = nexus_new(unit, initiator, host, read_only, err);
	if (!nexus) {
		drop_if_unused(units, unit);
		return -err->code;
	}
	if (nexus->scsi.read_only != read_only)
		return weft_error_set(err, EBUSY,
			"region '%s': an initiator's channels all write, or none does",
			region->name);
	if (nexus->nr_members == SRP_CHANNELS_MAX)
		return weft_error_set(err, EBUSY,
			"region '%s': an initiator may have %d channels at a time", region->name,
			SRP_CHANNELS_MAX);
	member->nexus = nexus;
	member->next = nexus->members;
	nexus->members = member;
	nexus->nr_members++;
	return 0;
}

/* It writes: the region is its own now, unless it is late. */
static void take_over(struct srp_unit *unit, uint64_t turn)
{
	if (turn <= unit->turn)
		return;
	unit->turn = turn;
	scsi_unit_forget_reservations(&unit->scsi);
}

/* Ends the nexus's other channels, and waits for them. */
static int end_others(struct srp_units *units, struct srp_member *member, uint64_t deadline_ns,
	struct weft_error *err)
{
	struct srp_nexus *nexus = member->nexus;

	for (struct srp_member *m = nexus->members; m; m = m->next)
		if (m != member)
			srp_member_end(m);
	/* Some of them may be here. */
	pthread_cond_broadcast(&units->changed);
	while (nexus->nr_members > 1) {
		if (atomic_load(&member->ended))
			return weft_error_set(err, ECANCELED, "it has logged in again since");
		if (!weft_cond_wait_until(&units->changed, &units->lock, deadline_ns))
			return weft_error_set(err, ETIMEDOUT,
				"its older channels did not end in time");
	}
	return 0;
}

int srp_unit_enter(struct srp_units *units, struct weft_region *region,
	const uint8_t initiator[SRP_PORT_BYTES], const char *host, bool read_only, uint64_t turn,
	bool single, uint64_t deadline_ns, struct srp_member *member, uint8_t *ret_result,
	struct weft_error *err)
{
	struct weft_error why;

	pthread_mutex_lock(&units->lock);
	int r = add(units, region, initiator, host, read_only, member, err ? err : &why);
	if (r == 0) {
		bool others = member->nexus->nr_members > 1;

		if (!read_only)
			take_over(member->nexus->unit, turn);
		*ret_result = !others ? SRP_NO_CHANNELS
			: single      ? SRP_CHANNELS_ENDED
				      : SRP_CHANNELS_KEPT;
		if (others && single)
			r = end_others(units, member, deadline_ns, err);
	}
	pthread_mutex_unlock(&units->lock);
	return r;
}

static void wake_waiting(struct srp_unit *unit)
{
	for (struct srp_nexus *n = unit->nexuses; n; n = n->next)
		for (struct srp_member *m = n->members; m; m = m->next)
			if (m->nr_waiting > 0)
				m->wake(m);
}

void srp_unit_leave(struct srp_units *units, struct srp_member *member)
{
	pthread_mutex_lock(&units->lock);
	struct srp_nexus *nexus = member->nexus;
	if (nexus) {
		struct srp_unit *unit = nexus->unit;
		struct srp_member **p = &nexus->members;

		while (*p != member)
			p = &(*p)->next;
		*p = member->next;
		member->nexus = NULL;
		wake_waiting(unit);
		if (--nexus->nr_members == 0) {
			struct srp_nexus **n = &unit->nexuses;

			while (*n != nexus)
				n = &(*n)->next;
			*n = nexus->next;
			scsi_unit_leave(&nexus->scsi);
			free(nexus);
			drop_if_unused(units, unit);
		}
		pthread_cond_broadcast(&units->changed);
	}
	pthread_mutex_unlock(&units->lock);
}

static int reach_new(struct srp_units *units, struct srp_unit *unit, struct ibv_context *context,
	struct srp_reach **ret, struct weft_error *err)
{
	struct srp_reach *reach = calloc(1, sizeof(*reach));
	int r;

	if (!reach)
		return weft_error_set(err, ENOMEM, "cannot lend over SRP: out of memory");
	reach->unit = unit;
	reach->context = context;
	reach->pd = ibv_alloc_pd(context);
	if (!reach->pd) {
		r = weft_error_set(err, errno, "cannot lend over SRP: no protection domain: %s",
			strerror(errno));
		free(reach);
		return r;
	}
	/* Nobody may reach it from afar: we read and write ourselves. */
	r = weft_rdma_memory_new(reach->pd, unit->region, units->chunk_bytes,
		unit->region->read_only ? 0 : IBV_ACCESS_LOCAL_WRITE, &reach->memory, err);
	if (r < 0) {
		ibv_dealloc_pd(reach->pd);
		free(reach);
		return r;
	}
	reach->next = unit->reaches;
	unit->reaches = reach;
	*ret = reach;
	return 0;
}

int srp_reach_get(struct srp_units *units, struct srp_unit *unit, struct ibv_context *context,
	weft_rdma_wait_fn *wait, void *ctx, struct srp_reach **ret, struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&units->lock);
	struct srp_reach *reach = unit->reaches;
	while (reach && reach->context != context)
		reach = reach->next;
	if (!reach)
		r = weft_rdma_memlock_check(unit->region->size_bytes, err);
	if (!reach && r == 0)
		r = reach_new(units, unit, context, &reach, err);
	if (r == 0)
		reach->nr_users++;
	pthread_mutex_unlock(&units->lock);
	if (r == 0)
		r = weft_rdma_memory_wait(reach->memory, wait, ctx, err);
	if (r < 0)
		srp_reach_put(units, reach);
	else
		*ret = reach;
	return r;
}

void srp_reach_put(struct srp_units *units, struct srp_reach *reach)
{
	if (!reach)
		return;
	pthread_mutex_lock(&units->lock);
	bool last = --reach->nr_users == 0;
	if (last) {
		struct srp_reach **p = &reach->unit->reaches;

		while (*p != reach)
			p = &(*p)->next;
		*p = reach->next;
		drop_if_unused(units, reach->unit);
	}
	pthread_mutex_unlock(&units->lock);
	if (!last)
		return;
	weft_rdma_memory_revoke(reach->memory);
	weft_rdma_memory_free(reach->memory);
	ibv_dealloc_pd(reach->pd);
	free(reach);
}

static bool is_meant(const struct srp_nexus *nexus, uint64_t slots)
{
	return slots >> nexus->scsi.slot & 1;
}

uint64_t srp_unit_ask(struct srp_units *units, struct srp_unit *unit, uint64_t slots)
{
	uint64_t wish = 0;

	pthread_mutex_lock(&units->lock);
	for (struct srp_nexus *n = unit->nexuses; n; n = n->next)
		for (struct srp_member *m = n->members; m; m = m->next)
			wish = weft_max(wish, atomic_load(&m->asked));
	wish++;
	for (struct srp_nexus *n = unit->nexuses; n; n = n->next)
		for (struct srp_member *m = n->members; is_meant(n, slots) && m; m = m->next) {
			atomic_store(&m->asked, wish);
			m->wake(m);
		}
	pthread_mutex_unlock(&units->lock);
	return wish;
}

bool srp_unit_is_met(struct srp_units *units, struct srp_unit *unit, uint64_t slots, uint64_t wish,
	bool kill)
{
	bool met = true;

	pthread_mutex_lock(&units->lock);
	for (struct srp_nexus *n = unit->nexuses; n; n = n->next)
		for (struct srp_member *m = n->members; is_meant(n, slots) && m; m = m->next) {
			/* One that came later was not asked. */
			if (m->met >= wish || atomic_load(&m->asked) < wish)
				continue;
			met = false;
			if (kill)
				srp_member_end(m);
		}
	pthread_mutex_unlock(&units->lock);
	return met;
}

void srp_unit_met(struct srp_units *units, struct srp_member *member, uint64_t wish)
{
	pthread_mutex_lock(&units->lock);
	member->met = wish;
	wake_waiting(member->nexus->unit);
	pthread_mutex_unlock(&units->lock);
}
