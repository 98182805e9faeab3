/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations (SPC 5.13): a small table of the unit, under its lock.  What it means for
 * a nexus is in the nexus's gate, so that no command looks at the table.
 *
 * Invariant: pr_type is 0, or of a type for all registrants and there is one, or pr_holder has a
 * key.  Nothing is kept over a restart of the target (PTPL_C is 0), so APTPL is refused.
 */
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/scsi/target-private.h"

enum { NOBODY = SCSI_MAX_NEXUSES };

static bool is_for_all(uint8_t type)
{
	return type == SCSI_PR_WRITE_EXCLUSIVE_ALL || type == SCSI_PR_EXCLUSIVE_ACCESS_ALL;
}

static bool is_for_registrants(uint8_t type)
{
	return type >= SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS;
}

static bool keeps_from_reading(uint8_t type)
{
	return type == SCSI_PR_EXCLUSIVE_ACCESS || type == SCSI_PR_EXCLUSIVE_ACCESS_REGISTRANTS ||
		type == SCSI_PR_EXCLUSIVE_ACCESS_ALL;
}

static bool is_type(uint8_t type)
{
	return type == SCSI_PR_WRITE_EXCLUSIVE || keeps_from_reading(type) ||
		type == SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS || type == SCSI_PR_WRITE_EXCLUSIVE_ALL;
}

/* The nexus's registration, or NOBODY. */
static unsigned registration_of(const struct scsi_unit *unit, const struct scsi_nexus *nexus)
{
	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++)
		if (unit->registration[i].key &&
			memcmp(unit->registration[i].transport_id, nexus->transport_id,
				SCSI_TRANSPORT_ID_BYTES) == 0)
			return i;
	return NOBODY;
}

static struct scsi_nexus *nexus_of(const struct scsi_unit *unit, unsigned registration)
{
	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++)
		if (unit->nexus[i] &&
			memcmp(unit->nexus[i]->transport_id,
				unit->registration[registration].transport_id,
				SCSI_TRANSPORT_ID_BYTES) == 0)
			return unit->nexus[i];
	return NULL;
}

static bool holds(const struct scsi_unit *unit, unsigned registration)
{
	return unit->pr_type && registration != NOBODY &&
		(is_for_all(unit->pr_type) || unit->pr_holder == registration);
}

static bool is_registered(const struct scsi_unit *unit)
{
	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++)
		if (unit->registration[i].key)
			return true;
	return false;
}

void scsi_reserve_gate(struct scsi_unit *unit, struct scsi_nexus *nexus)
{
	const unsigned registration = registration_of(unit, nexus);
	uint32_t bits = 0;

	if (unit->pr_type && !holds(unit, registration) &&
		(registration == NOBODY || !is_for_registrants(unit->pr_type)))
		bits = keeps_from_reading(unit->pr_type) ? SCSI_GATE_RESERVED : SCSI_GATE_NO_WRITE;
	atomic_fetch_or(&nexus->gate, bits);
	atomic_fetch_and(&nexus->gate, ~(uint32_t)(SCSI_GATE_RESERVED & ~bits));
}

static void set_gates(struct scsi_unit *unit)
{
	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++)
		if (unit->nexus[i])
			scsi_reserve_gate(unit, unit->nexus[i]);
}

/* To each registrant but one's own nexus. */
static void tell_registrants(struct scsi_unit *unit, const struct scsi_nexus *but, unsigned ua)
{
	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++) {
		struct scsi_nexus *nexus = unit->registration[i].key ? nexus_of(unit, i) : NULL;

		if (nexus && nexus != but)
			atomic_fetch_or(&nexus->gate, 1u << ua);
	}
}

/* The reservation ends by itself or by its holder (SPC 5.13.11.2.2). */
static void release(struct scsi_unit *unit, const struct scsi_nexus *by)
{
	if (is_for_registrants(unit->pr_type))
		tell_registrants(unit, by, SCSI_UA_RESERVATIONS_RELEASED);
	unit->pr_type = 0;
}

/* SPC 5.13.11.3: who unregisters may have been the holder, or the last one. */
static void unregister(struct scsi_unit *unit, unsigned registration, const struct scsi_nexus *by)
{
	const bool held = holds(unit, registration);

	unit->registration[registration].key = 0;
	if (held && (!is_for_all(unit->pr_type) || !is_registered(unit)))
		release(unit, by);
}

static void add_registration(struct scsi_command *cmd, uint64_t key)
{
	struct scsi_unit *unit = cmd->nexus->unit;

	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++) {
		if (unit->registration[i].key)
			continue;
		unit->registration[i].key = key;
		memcpy(unit->registration[i].transport_id, cmd->nexus->transport_id,
			SCSI_TRANSPORT_ID_BYTES);
		unit->pr_generation++;
		scsi_command_good(cmd);
		return;
	}
	scsi_command_illegal(cmd, SCSI_ASC_INSUFFICIENT_REGISTRATION_RESOURCES);
}

/* SPC 5.13.7 */
static void do_register(struct scsi_command *cmd, const struct scsi_pr_list *list, unsigned own)
{
	struct scsi_unit *unit = cmd->nexus->unit;
	const bool ignore = cmd->cdb.action == SCSI_PR_REGISTER_AND_IGNORE;
	const uint64_t key = own == NOBODY ? 0 : unit->registration[own].key;

	scsi_command_good(cmd);
	if (!ignore && list->key != key) {
		scsi_command_status(cmd, SCSI_RESERVATION_CONFLICT);
	} else if (own == NOBODY) {
		if (list->action_key)
			add_registration(cmd, list->action_key);
	} else {
		if (list->action_key)
			unit->registration[own].key = list->action_key;
		else
			unregister(unit, own, cmd->nexus);
		unit->pr_generation++;
	}
}

/* SPC 5.13.9 */
static void do_reserve(struct scsi_command *cmd, unsigned own)
{
	struct scsi_unit *unit = cmd->nexus->unit;

	if (unit->pr_type && (!holds(unit, own) || unit->pr_type != cmd->cdb.type)) {
		scsi_command_status(cmd, SCSI_RESERVATION_CONFLICT);
		return;
	}
	if (!unit->pr_type) {
		unit->pr_type = cmd->cdb.type;
		unit->pr_holder = own;
	}
	scsi_command_good(cmd);
}

/* SPC 5.13.11.2 */
static void do_release(struct scsi_command *cmd, unsigned own)
{
	struct scsi_unit *unit = cmd->nexus->unit;

	scsi_command_good(cmd);
	if (!holds(unit, own))
		return;
	if (unit->pr_type != cmd->cdb.type)
		scsi_command_illegal(cmd, SCSI_ASC_INVALID_RELEASE);
	else
		release(unit, cmd->nexus);
}

/* SPC 5.13.11.6 */
static void clear(struct scsi_unit *unit, const struct scsi_nexus *by)
{
	tell_registrants(unit, by, SCSI_UA_RESERVATIONS_PREEMPTED);
	memset(unit->registration, 0, sizeof(unit->registration));
	unit->pr_type = 0;
	unit->pr_generation++;
}

void scsi_unit_forget_reservations(struct scsi_unit *unit)
{
	pthread_mutex_lock(&unit->lock);
	clear(unit, NULL);
	set_gates(unit);
	pthread_mutex_unlock(&unit->lock);
}

/* Whether PREEMPT with this key takes the registration, in which case it may be one's own. */
static bool is_preempted(const struct scsi_unit *unit, unsigned i, uint64_t key, bool all_others,
	unsigned own)
{
	if (!unit->registration[i].key)
		return false;
	return all_others ? i != own : unit->registration[i].key == key;
}

/*
 * SPC 5.13.11.4: registrations with the key go; if that is the holder's key (of a reservation for
 * all registrants: none), the reservation becomes one's own.
 */
static void do_preempt(struct scsi_command *cmd, uint64_t key, unsigned own)
{
	struct scsi_unit *unit = cmd->nexus->unit;
	const bool for_all = is_for_all(unit->pr_type);
	const bool all_others = for_all && key == 0;
	const bool takes = unit->pr_type &&
		(all_others || (!for_all && unit->registration[unit->pr_holder].key == key));
	const uint8_t old_type = unit->pr_type;
	uint64_t gone = 0;
	bool found = takes;

	if (key == 0 && !all_others) {
		scsi_command_bad_list(cmd, 8);
		return;
	}
	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++) {
		struct scsi_nexus *nexus;

		if (!is_preempted(unit, i, key, all_others, own))
			continue;
		found = true;
		if (takes && i == own)
			continue;
		nexus = nexus_of(unit, i);
		if (nexus && i != own) {
			gone |= UINT64_C(1) << nexus->slot;
			atomic_fetch_or(&nexus->gate, 1u << SCSI_UA_REGISTRATIONS_PREEMPTED);
		}
		if (takes)
			unit->registration[i].key = 0;
		else
			unregister(unit, i, cmd->nexus);
	}
	if (!found) {
		scsi_command_status(cmd, SCSI_RESERVATION_CONFLICT);
		return;
	}
	if (takes) {
		if (old_type != cmd->cdb.type && is_for_registrants(old_type))
			tell_registrants(unit, cmd->nexus, SCSI_UA_RESERVATIONS_RELEASED);
		unit->pr_type = cmd->cdb.type;
		unit->pr_holder = own;
	}
	unit->pr_generation++;
	scsi_command_good(cmd);
	if (cmd->cdb.action == SCSI_PR_PREEMPT_AND_ABORT && gone) {
		cmd->abort_slots = gone;
		cmd->kind = SCSI_DO_ABORT;
	}
}

static bool has_scope_and_type(uint8_t action)
{
	return action == SCSI_PR_RESERVE || action == SCSI_PR_RELEASE ||
		action == SCSI_PR_PREEMPT || action == SCSI_PR_PREEMPT_AND_ABORT;
}

void scsi_reserve_out(struct scsi_command *cmd)
{
	const struct scsi_cdb *cdb = &cmd->cdb;

	if (has_scope_and_type(cdb->action) && cdb->scope != 0)
		scsi_command_bad_cdb(cmd, 2, 7);
	else if (has_scope_and_type(cdb->action) && !is_type(cdb->type))
		scsi_command_bad_cdb(cmd, 2, 3);
	else if (cdb->list_bytes != SCSI_PR_LIST_BYTES)
		scsi_command_illegal(cmd, SCSI_ASC_PARAMETER_LIST_LENGTH);
	else
		scsi_command_fetch(cmd, SCSI_PR_LIST_BYTES);
}

static void carry_out(struct scsi_command *cmd, const struct scsi_pr_list *list)
{
	struct scsi_unit *unit = cmd->nexus->unit;
	const unsigned own = registration_of(unit, cmd->nexus);
	const uint8_t action = cmd->cdb.action;

	if (action == SCSI_PR_REGISTER || action == SCSI_PR_REGISTER_AND_IGNORE) {
		do_register(cmd, list, own);
		return;
	}
	if (own == NOBODY || unit->registration[own].key != list->key) {
		scsi_command_status(cmd, SCSI_RESERVATION_CONFLICT);
		return;
	}
	if (action == SCSI_PR_RESERVE) {
		do_reserve(cmd, own);
	} else if (action == SCSI_PR_RELEASE) {
		do_release(cmd, own);
	} else if (action == SCSI_PR_CLEAR) {
		clear(unit, cmd->nexus);
		scsi_command_good(cmd);
	} else {
		do_preempt(cmd, list->action_key, own);
	}
}

void scsi_reserve_listed(struct scsi_command *cmd)
{
	struct scsi_unit *unit = cmd->nexus->unit;
	struct scsi_pr_list list;

	scsi_unpack_pr_list(cmd->list, &list);
	/* Nothing is kept for ports that are not there, or over a loss of power. */
	if (list.spec_i_pt || list.all_tg_pt || list.aptpl) {
		scsi_command_bad_list(cmd, 20);
		return;
	}
	pthread_mutex_lock(&unit->lock);
	carry_out(cmd, &list);
	set_gates(unit);
	pthread_mutex_unlock(&unit->lock);
}

static size_t pack_keys(const struct scsi_unit *unit, uint8_t *ret)
{
	uint64_t keys[SCSI_MAX_NEXUSES];
	size_t nr = 0;

	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++)
		if (unit->registration[i].key)
			keys[nr++] = unit->registration[i].key;
	return scsi_pack_pr_keys(unit->pr_generation, keys, nr, ret);
}

static size_t pack_reservation(const struct scsi_unit *unit, uint8_t *ret)
{
	const struct scsi_pr_reservation reservation = {
		.generation = unit->pr_generation,
		.type = unit->pr_type,
		/* SPC 6.15.3.2: one that all registrants hold has no key. */
		.key = unit->pr_type && !is_for_all(unit->pr_type)
			? unit->registration[unit->pr_holder].key
			: 0,
	};

	return scsi_pack_pr_reservation(&reservation, ret);
}

static size_t pack_status(const struct scsi_unit *unit, uint8_t *ret)
{
	struct scsi_pr_registrant registrants[SCSI_MAX_NEXUSES];
	size_t nr = 0;

	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++)
		if (unit->registration[i].key)
			registrants[nr++] = (struct scsi_pr_registrant){
				.key = unit->registration[i].key,
				.holder = holds(unit, i),
				.type = unit->pr_type,
				.relative_port = 1,
				.transport_id = unit->registration[i].transport_id,
				.transport_id_bytes = SCSI_TRANSPORT_ID_BYTES,
			};
	return scsi_pack_pr_status(unit->pr_generation, registrants, nr, ret);
}

void scsi_reserve_in(struct scsi_command *cmd)
{
	static const struct scsi_pr_capabilities capabilities = {
		.types = 1 << SCSI_PR_WRITE_EXCLUSIVE | 1 << SCSI_PR_EXCLUSIVE_ACCESS |
			1 << SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS |
			1 << SCSI_PR_EXCLUSIVE_ACCESS_REGISTRANTS |
			1 << SCSI_PR_WRITE_EXCLUSIVE_ALL | 1 << SCSI_PR_EXCLUSIVE_ACCESS_ALL,
	};
	struct scsi_unit *unit = cmd->nexus->unit;
	size_t len;

	pthread_mutex_lock(&unit->lock);
	switch (cmd->cdb.action) {
	case SCSI_PR_READ_KEYS:
		len = pack_keys(unit, cmd->data);
		break;
	case SCSI_PR_READ_RESERVATION:
		len = pack_reservation(unit, cmd->data);
		break;
	case SCSI_PR_REPORT_CAPABILITIES:
		len = scsi_pack_pr_capabilities(&capabilities, cmd->data);
		break;
	default:
		len = pack_status(unit, cmd->data);
	}
	pthread_mutex_unlock(&unit->lock);
	scsi_command_answer(cmd, len, cmd->cdb.list_bytes);
}
