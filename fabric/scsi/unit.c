/* SPDX-License-Identifier: MIT */
/*
 * A logical unit and who has logged in to it: names, unit attentions, task management.
 * The unit's lock guards its tables; a nexus's gate is atomic, as its commands look at it.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "fabric/base/bytes.h"
#include "fabric/base/util.h"
#include "fabric/scsi/target-private.h"

void scsi_names(const char *donor, const char *region, struct scsi_names *ret)
{
	XXH128_canonical_t of[2], name;

	/* The hash of both hashes: so nobody's end is another's beginning. */
	XXH128_canonicalFromHash(&of[0], XXH3_128bits(donor, strlen(donor)));
	XXH128_canonicalFromHash(&of[1], XXH3_128bits(region, strlen(region)));
	XXH128_canonicalFromHash(&name, XXH3_128bits(of, sizeof(of)));
	weft_hex(name.digest, sizeof(name.digest), ret->serial);
	memcpy(ret->naa, name.digest, sizeof(ret->naa));
	/* SPC 7.8.5.6.5: the first four bits are the format, the others are locally assigned. */
	ret->naa[0] = (uint8_t)(0x30 | (ret->naa[0] & 0xf));
}

void scsi_srp_transport_id(const uint8_t initiator_port[16], uint8_t ret[SCSI_TRANSPORT_ID_BYTES])
{
	memset(ret, 0, SCSI_TRANSPORT_ID_BYTES);
	ret[0] = SCSI_PROTOCOL_SRP;
	memcpy(ret + 8, initiator_port, 16);
}

/* What MODE SELECT has changed is as at first. */
static void reset_mode(struct scsi_unit *unit)
{
	atomic_store(&unit->wce, unit->config.write_cache);
	atomic_store(&unit->descriptor_sense, false);
}

int scsi_unit_init(struct scsi_unit *unit, const struct scsi_unit_config *config)
{
	uint32_t physical = config->physical_bytes ? config->physical_bytes : 4096;

	/* The exponent of logical blocks a physical one has four bits. */
	if (config->size_bytes < SCSI_BLOCK_BYTES || physical < SCSI_BLOCK_BYTES ||
		(physical & (physical - 1)) || physical > SCSI_BLOCK_BYTES << 15)
		return -EINVAL;
	memset(unit, 0, sizeof(*unit));
	unit->config = *config;
	unit->config.physical_bytes = physical;
	atomic_init(&unit->nr_blocks, config->size_bytes / SCSI_BLOCK_BYTES);
	atomic_init(&unit->lost, false);
	reset_mode(unit);
	pthread_mutex_init(&unit->lock, NULL);
	return 0;
}

void scsi_unit_fini(struct scsi_unit *unit)
{
	assert(scsi_unit_slots(unit) == 0);
	pthread_mutex_destroy(&unit->lock);
}

int scsi_unit_join(struct scsi_unit *unit, struct scsi_nexus *nexus)
{
	unsigned slot = SCSI_MAX_NEXUSES;
	int r = 0;

	pthread_mutex_lock(&unit->lock);
	for (unsigned i = SCSI_MAX_NEXUSES; i-- > 0;) {
		if (!unit->nexus[i])
			slot = i;
		else if (memcmp(unit->nexus[i]->transport_id, nexus->transport_id,
				 SCSI_TRANSPORT_ID_BYTES) == 0)
			r = -EEXIST;
	}
	if (r == 0 && slot == SCSI_MAX_NEXUSES)
		r = -ENOSPC;
	if (r == 0) {
		nexus->unit = unit;
		nexus->slot = slot;
		atomic_init(&nexus->gate, 1 << SCSI_UA_POWER_ON);
		scsi_reserve_gate(unit, nexus);
		unit->nexus[slot] = nexus;
	}
	pthread_mutex_unlock(&unit->lock);
	return r;
}

void scsi_unit_leave(struct scsi_nexus *nexus)
{
	struct scsi_unit *unit = nexus->unit;

	pthread_mutex_lock(&unit->lock);
	assert(unit->nexus[nexus->slot] == nexus);
	unit->nexus[nexus->slot] = NULL;
	pthread_mutex_unlock(&unit->lock);
	nexus->unit = NULL;
}

void scsi_unit_tell(struct scsi_unit *unit, const struct scsi_nexus *but, unsigned ua)
{
	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++)
		if (unit->nexus[i] && unit->nexus[i] != but)
			atomic_fetch_or(&unit->nexus[i]->gate, 1u << ua);
}

static void tell_all(struct scsi_unit *unit, const struct scsi_nexus *but, unsigned ua)
{
	pthread_mutex_lock(&unit->lock);
	scsi_unit_tell(unit, but, ua);
	pthread_mutex_unlock(&unit->lock);
}

int scsi_unit_resize(struct scsi_unit *unit, uint64_t size_bytes)
{
	if (size_bytes < SCSI_BLOCK_BYTES)
		return -EINVAL;
	atomic_store(&unit->nr_blocks, size_bytes / SCSI_BLOCK_BYTES);
	tell_all(unit, NULL, SCSI_UA_CAPACITY);
	return 0;
}

void scsi_unit_lose(struct scsi_unit *unit)
{
	if (!atomic_exchange(&unit->lost, true))
		tell_all(unit, NULL, SCSI_UA_LOST);
}

bool scsi_nexus_is_read_only(const struct scsi_nexus *nexus)
{
	return nexus->read_only || nexus->unit->config.read_only;
}

uint16_t scsi_nexus_take_attention(struct scsi_nexus *nexus)
{
	static const uint16_t ascs[SCSI_NR_UAS] = {
		[SCSI_UA_POWER_ON] = SCSI_ASC_POWER_ON,
		[SCSI_UA_RESET] = SCSI_ASC_RESET_BY_FUNCTION,
		[SCSI_UA_LOST] = SCSI_ASC_MEDIUM_CHANGED,
		[SCSI_UA_CAPACITY] = SCSI_ASC_CAPACITY_CHANGED,
		[SCSI_UA_CLEARED] = SCSI_ASC_COMMANDS_CLEARED,
		[SCSI_UA_MODE] = SCSI_ASC_MODE_CHANGED,
		[SCSI_UA_REGISTRATIONS_PREEMPTED] = SCSI_ASC_REGISTRATIONS_PREEMPTED,
		[SCSI_UA_RESERVATIONS_PREEMPTED] = SCSI_ASC_RESERVATIONS_PREEMPTED,
		[SCSI_UA_RESERVATIONS_RELEASED] = SCSI_ASC_RESERVATIONS_RELEASED,
	};
	uint32_t gate = atomic_load(&nexus->gate) & SCSI_GATE_UAS;

	/* Channels share it: each attention is told once. */
	while (gate) {
		unsigned ua = (unsigned)__builtin_ctz(gate);

		if (atomic_fetch_and(&nexus->gate, ~(1u << ua)) & 1u << ua)
			return ascs[ua];
		gate &= gate - 1;
	}
	return 0;
}

uint64_t scsi_unit_slots(struct scsi_unit *unit)
{
	uint64_t slots = 0;

	pthread_mutex_lock(&unit->lock);
	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++)
		if (unit->nexus[i])
			slots |= UINT64_C(1) << i;
	pthread_mutex_unlock(&unit->lock);
	return slots;
}

bool scsi_lun_is_unit(uint64_t lun)
{
	/* SAM 4.7.3: peripheral device addressing; 4.7.4: flat space addressing */
	return lun == 0 || lun == UINT64_C(0x4000) << 48;
}

int scsi_function_begin(struct scsi_nexus *nexus, enum scsi_function function, uint64_t lun,
	uint64_t *ret_slots)
{
	if (!scsi_lun_is_unit(lun))
		return -ENXIO;
	switch (function) {
	case SCSI_ABORT_TASK:
	case SCSI_ABORT_TASK_SET:
		*ret_slots = UINT64_C(1) << nexus->slot;
		return 0;
	case SCSI_CLEAR_TASK_SET:
	case SCSI_LOGICAL_UNIT_RESET:
		/* Who may only read is not in the way of who writes. */
		*ret_slots = scsi_nexus_is_read_only(nexus) ? UINT64_C(1) << nexus->slot
							    : scsi_unit_slots(nexus->unit);
		return 0;
	default:
		return -EOPNOTSUPP; /* there is no ACA */
	}
}

void scsi_function_end(struct scsi_nexus *nexus, enum scsi_function function)
{
	if (scsi_nexus_is_read_only(nexus)) {
		if (function == SCSI_LOGICAL_UNIT_RESET)
			atomic_fetch_or(&nexus->gate, 1u << SCSI_UA_RESET);
	} else if (function == SCSI_CLEAR_TASK_SET) {
		tell_all(nexus->unit, nexus, SCSI_UA_CLEARED);
	} else if (function == SCSI_LOGICAL_UNIT_RESET) {
		reset_mode(nexus->unit);
		tell_all(nexus->unit, NULL, SCSI_UA_RESET);
	}
}
