/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations: who is kept from what, and what others are told.  libiscsi builds the
 * commands and reads the answers.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/scsi/data.h"
#include "tests/support/scsi-world.h"

static int reserve(struct world *w, unsigned who, int action, int type, struct scsi_pr_list list)
{
	struct scsi_persistent_reserve_out_basic basic = {
		.reservation_key = list.key,
		.service_action_reservation_key = list.action_key,
		.spec_i_pt = list.spec_i_pt,
		.all_tg_pt = list.all_tg_pt,
		.aptpl = list.aptpl,
	};
	struct scsi_task *task =
		scsi_cdb_persistent_reserve_out((enum scsi_persistent_out_sa)action,
			SCSI_PERSISTENT_RESERVE_SCOPE_LU, (enum scsi_persistent_out_type)type,
			&basic);

	return world_tell(w, who, task, task->iovector_out.iov[0].iov_base);
}

#define LIST(KEY, ACTION_KEY) ((struct scsi_pr_list){.key = KEY, .action_key = ACTION_KEY})

/* Initiators 0 to nr - 1 have the keys 1 to nr. */
static struct world *registered(unsigned nr)
{
	struct world *w = WORLD(.write_cache = true);

	for (unsigned who = 0; who < nr; who++)
		assert_int_equal(reserve(w, who, SCSI_PR_REGISTER, 0, LIST(0, who + 1)), SCSI_GOOD);
	return w;
}

/* Asks without being told what the test wants to see told. */
static void look(struct world *w, struct scsi_task *task)
{
	const uint32_t gate = atomic_exchange(&w->nexus[0].gate, 0);
	const uint64_t aborted = w->aborted;

	assert_int_equal(world_ask(w, 0, task, NULL), SCSI_GOOD);
	atomic_store(&w->nexus[0].gate, gate);
	w->aborted = aborted;
}

static unsigned nr_keys(struct world *w, uint32_t *ret_generation)
{
	struct scsi_task *task =
		scsi_cdb_persistent_reserve_in(SCSI_PERSISTENT_RESERVE_READ_KEYS, 4096);

	look(w, task);
	const struct scsi_persistent_reserve_in_read_keys *keys = scsi_datain_unmarshall(task);
	unsigned nr = (unsigned)keys->num_keys;

	if (ret_generation)
		*ret_generation = keys->prgeneration;
	scsi_free_scsi_task(task);
	return nr;
}

/* The key of the reservation's holder; 0: it is free. */
static uint64_t held_by(struct world *w, int *ret_type)
{
	struct scsi_task *task =
		scsi_cdb_persistent_reserve_in(SCSI_PERSISTENT_RESERVE_READ_RESERVATION, 4096);

	look(w, task);
	const struct scsi_persistent_reserve_in_read_reservation *r = scsi_datain_unmarshall(task);
	uint64_t key = r->reserved ? r->reservation_key : 0;

	if (ret_type)
		*ret_type = r->reserved ? r->pr_type : 0;
	scsi_free_scsi_task(task);
	return key;
}

static int test(struct world *w, unsigned who)
{
	return world_tell(w, who, scsi_cdb_testunitready(), NULL);
}

static void is_told(struct world *w, unsigned who, uint16_t asc)
{
	world_refused(w, test(w, who), SCSI_KEY_UNIT_ATTENTION, asc);
}

static void is_told_nothing(struct world *w, unsigned who)
{
	assert_int_equal(test(w, who), SCSI_GOOD);
}

/* SPC table 58, SBC table 13: every command, each type, for the holder, a registrant, a stranger.
 */
static void each_type_keeps_others_from_what_it_says(void **state)
{
	enum { HOLDER = 1, REGISTRANT = 2, STRANGER = 4, ALL = 7 };
	const struct {
		int type;
		unsigned may_read, may_write;
	} types[] = {
		{SCSI_PR_WRITE_EXCLUSIVE, ALL, HOLDER},
		{SCSI_PR_EXCLUSIVE_ACCESS, HOLDER, HOLDER},
		{SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS, ALL, HOLDER | REGISTRANT},
		{SCSI_PR_EXCLUSIVE_ACCESS_REGISTRANTS, HOLDER | REGISTRANT, HOLDER | REGISTRANT},
		{SCSI_PR_WRITE_EXCLUSIVE_ALL, ALL, HOLDER | REGISTRANT},
		{SCSI_PR_EXCLUSIVE_ACCESS_ALL, HOLDER | REGISTRANT, HOLDER | REGISTRANT},
	};
	enum { ALWAYS, READS, WRITES };
	const struct {
		struct scsi_cdb cdb;
		int effect;
	} commands[] = {
		{CDB(.opcode = SCSI_OP_READ_10, .blocks = 1), READS},
		{CDB(.opcode = SCSI_OP_READ_12, .blocks = 1), READS},
		{CDB(.opcode = SCSI_OP_READ_16, .blocks = 1), READS},
		{CDB(.opcode = SCSI_OP_VERIFY_10), READS},
		{CDB(.opcode = SCSI_OP_MODE_SENSE_6, .page = 8, .list_bytes = 64), READS},
		{CDB(.opcode = SCSI_OP_MODE_SENSE_10, .page = 8, .list_bytes = 64), READS},
		{CDB(.opcode = SCSI_OP_WRITE_10, .blocks = 1), WRITES},
		{CDB(.opcode = SCSI_OP_WRITE_12, .blocks = 1), WRITES},
		{CDB(.opcode = SCSI_OP_WRITE_16, .blocks = 1), WRITES},
		{CDB(.opcode = SCSI_OP_WRITE_SAME_10, .blocks = 1), WRITES},
		{CDB(.opcode = SCSI_OP_WRITE_SAME_16, .blocks = 1, .ndob = true), WRITES},
		{CDB(.opcode = SCSI_OP_UNMAP), WRITES},
		{CDB(.opcode = SCSI_OP_SYNCHRONIZE_CACHE_10), WRITES},
		{CDB(.opcode = SCSI_OP_SYNCHRONIZE_CACHE_16), WRITES},
		{CDB(.opcode = SCSI_OP_MODE_SELECT_6, .pf = true), WRITES},
		{CDB(.opcode = SCSI_OP_START_STOP_UNIT), WRITES},
		{CDB(.opcode = SCSI_OP_START_STOP_UNIT, .start = true), ALWAYS},
		{CDB(.opcode = SCSI_OP_TEST_UNIT_READY), ALWAYS},
		{CDB(.opcode = SCSI_OP_INQUIRY, .list_bytes = 36), ALWAYS},
		{CDB(.opcode = SCSI_OP_REPORT_LUNS, .list_bytes = 16), ALWAYS},
		{CDB(.opcode = SCSI_OP_REQUEST_SENSE, .list_bytes = 18), ALWAYS},
		{CDB(.opcode = SCSI_OP_READ_CAPACITY_10), ALWAYS},
	};

	(void)state;
	for (size_t t = 0; t < WEFT_ARRAY_LEN(types); t++) {
		struct world *w = registered(2);

		assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, types[t].type, LIST(1, 0)),
			SCSI_GOOD);
		for (size_t c = 0; c < WEFT_ARRAY_LEN(commands); c++)
			for (unsigned who = 0; who < 3; who++) {
				const unsigned may = commands[c].effect == ALWAYS ? ALL
					: commands[c].effect == READS ? types[t].may_read
								      : types[t].may_write;

				assert_int_equal(world_send(w, who, commands[c].cdb, 4096,
							 w->medium, 4096),
					may & 1u << who ? SCSI_GOOD : SCSI_RESERVATION_CONFLICT);
			}
		assert_int_equal(reserve(w, 0, SCSI_PR_RELEASE, types[t].type, LIST(1, 0)),
			SCSI_GOOD);
		assert_int_equal(world_send(w, 2, commands[6].cdb, 0, w->medium, 512), SCSI_GOOD);
		world_free(w);
	}
}

static void registering_needs_the_key_that_is_there(void **state)
{
	struct world *w = WORLD(0);
	uint32_t generation = 0;

	(void)state;
	assert_int_equal(reserve(w, 0, SCSI_PR_REGISTER, 0, LIST(9, 1)), SCSI_RESERVATION_CONFLICT);
	assert_int_equal(reserve(w, 0, SCSI_PR_REGISTER, 0, LIST(0, 0)), SCSI_GOOD);
	assert_int_equal(reserve(w, 0, SCSI_PR_REGISTER_AND_IGNORE, 0, LIST(9, 0)), SCSI_GOOD);
	assert_int_equal(nr_keys(w, &generation), 0);
	assert_int_equal(generation, 0);
	assert_int_equal(reserve(w, 0, SCSI_PR_REGISTER, 0, LIST(0, 1)), SCSI_GOOD);
	assert_int_equal(reserve(w, 0, SCSI_PR_REGISTER, 0, LIST(0, 2)), SCSI_RESERVATION_CONFLICT);
	assert_int_equal(reserve(w, 0, SCSI_PR_REGISTER, 0, LIST(1, 2)), SCSI_GOOD);
	assert_int_equal(reserve(w, 0, SCSI_PR_REGISTER_AND_IGNORE, 0, LIST(77, 3)), SCSI_GOOD);
	assert_int_equal(nr_keys(w, &generation), 1);
	assert_int_equal(generation, 3);
	assert_int_equal(reserve(w, 0, SCSI_PR_REGISTER, 0, LIST(3, 0)), SCSI_GOOD);
	assert_int_equal(nr_keys(w, &generation), 0);
	assert_int_equal(generation, 4);
	/* Who is not registered can do nothing else. */
	for (int action = SCSI_PR_RESERVE; action <= SCSI_PR_PREEMPT_AND_ABORT; action++)
		assert_int_equal(reserve(w, 0, action, SCSI_PR_WRITE_EXCLUSIVE, LIST(3, 3)),
			SCSI_RESERVATION_CONFLICT);
	world_free(w);
}

static void what_cannot_be_kept_is_refused(void **state)
{
	struct world *w = WORLD(0);
	struct scsi_pr_list lists[] = {
		{.action_key = 1, .aptpl = true},
		{.action_key = 1, .spec_i_pt = true},
		{.action_key = 1, .all_tg_pt = true},
	};
	uint8_t list[64] = {0};
	struct scsi_cdb cdb = {.opcode = SCSI_OP_PERSISTENT_RESERVE_OUT,
		.action = SCSI_PR_REGISTER,
		.list_bytes = 28};

	(void)state;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(lists); i++) {
		world_illegal(w, reserve(w, 0, SCSI_PR_REGISTER, 0, lists[i]),
			SCSI_ASC_INVALID_FIELD_IN_LIST);
		world_points_at(w, false, 20);
	}
	assert_int_equal(nr_keys(w, NULL), 0);
	world_illegal(w, world_send(w, 0, cdb, 0, list, 28), SCSI_ASC_PARAMETER_LIST_LENGTH);
	cdb.list_bytes = UINT32_MAX;
	world_illegal(w, world_send(w, 0, cdb, 0, list, UINT32_MAX),
		SCSI_ASC_PARAMETER_LIST_LENGTH);
	cdb.list_bytes = 24;
	world_illegal(w, world_send(w, 0, cdb, 0, list, 23),
		SCSI_ASC_INVALID_INFORMATION_UNIT_FIELD);
	cdb.action = SCSI_PR_RESERVE;
	for (unsigned type = 0; type < 16; type++) {
		cdb.type = (uint8_t)type;
		int status = world_send(w, 0, cdb, 0, list, 24);

		if (0x1ea & 1 << type)
			assert_int_equal(status, SCSI_RESERVATION_CONFLICT);
		else
			world_illegal(w, status, SCSI_ASC_INVALID_FIELD_IN_CDB);
	}
	cdb.type = SCSI_PR_WRITE_EXCLUSIVE;
	cdb.scope = 1;
	world_illegal(w, world_send(w, 0, cdb, 0, list, 24), SCSI_ASC_INVALID_FIELD_IN_CDB);
	/* REGISTER AND MOVE */
	const uint8_t move[SCSI_CDB_BYTES] = {SCSI_OP_PERSISTENT_RESERVE_OUT, 7, 0, 0, 0, 0, 0, 0,
		24};

	world_illegal(w,
		world_say(w, 0,
			&(struct scsi_request){.cdb = move, .cdb_bytes = 16, .out_bytes = 24},
			list),
		SCSI_ASC_INVALID_FIELD_IN_CDB);
	world_points_at(w, true, 1);
	/* and so it is told */
	struct scsi_task *task =
		scsi_cdb_persistent_reserve_in(SCSI_PERSISTENT_RESERVE_REPORT_CAPABILITIES, 64);

	assert_int_equal(world_ask(w, 0, task, NULL), SCSI_GOOD);
	const struct scsi_persistent_reserve_in_report_capabilities *c =
		scsi_datain_unmarshall(task);

	assert_false(c->ptpl_c || c->sip_c || c->atp_c || c->crh || c->ptpl_a);
	assert_int_equal(c->persistent_reservation_type_mask, SCSI_PR_TYPE_MASK_ALL);
	scsi_free_scsi_task(task);
	world_free(w);
}

static void one_reservation_at_a_time(void **state)
{
	struct world *w = registered(2);
	int type;

	(void)state;
	assert_int_equal(held_by(w, NULL), 0);
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, SCSI_PR_WRITE_EXCLUSIVE, LIST(1, 0)),
		SCSI_GOOD);
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, SCSI_PR_WRITE_EXCLUSIVE, LIST(1, 0)),
		SCSI_GOOD); /* again */
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, SCSI_PR_EXCLUSIVE_ACCESS, LIST(1, 0)),
		SCSI_RESERVATION_CONFLICT);
	assert_int_equal(reserve(w, 1, SCSI_PR_RESERVE, SCSI_PR_WRITE_EXCLUSIVE, LIST(2, 0)),
		SCSI_RESERVATION_CONFLICT);
	assert_int_equal(held_by(w, &type), 1);
	assert_int_equal(type, SCSI_PR_WRITE_EXCLUSIVE);
	/* Another's release is no release; one's own has to say the type. */
	assert_int_equal(reserve(w, 1, SCSI_PR_RELEASE, SCSI_PR_WRITE_EXCLUSIVE, LIST(2, 0)),
		SCSI_GOOD);
	assert_int_equal(held_by(w, NULL), 1);
	world_illegal(w, reserve(w, 0, SCSI_PR_RELEASE, SCSI_PR_EXCLUSIVE_ACCESS, LIST(1, 0)),
		SCSI_ASC_INVALID_RELEASE);
	assert_int_equal(reserve(w, 0, SCSI_PR_RELEASE, SCSI_PR_WRITE_EXCLUSIVE, LIST(9, 0)),
		SCSI_RESERVATION_CONFLICT);
	assert_int_equal(reserve(w, 0, SCSI_PR_RELEASE, SCSI_PR_WRITE_EXCLUSIVE, LIST(1, 0)),
		SCSI_GOOD);
	assert_int_equal(held_by(w, NULL), 0);
	is_told_nothing(w, 1);
	world_free(w);
}

static void registrants_are_told_of_a_release(void **state)
{
	struct world *w = registered(2);
	const int type = SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS;

	(void)state;
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, type, LIST(1, 0)), SCSI_GOOD);
	assert_int_equal(reserve(w, 0, SCSI_PR_RELEASE, type, LIST(1, 0)), SCSI_GOOD);
	is_told(w, 1, SCSI_ASC_RESERVATIONS_RELEASED);
	is_told_nothing(w, 0);
	is_told_nothing(w, 2);
	/* Unregistering is a release, too. */
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, type, LIST(1, 0)), SCSI_GOOD);
	assert_int_equal(reserve(w, 0, SCSI_PR_REGISTER, 0, LIST(1, 0)), SCSI_GOOD);
	assert_int_equal(held_by(w, NULL), 0);
	is_told(w, 1, SCSI_ASC_RESERVATIONS_RELEASED);
	world_free(w);
}

static void all_registrants_hold_until_the_last_is_gone(void **state)
{
	struct world *w = registered(2);
	const int type = SCSI_PR_EXCLUSIVE_ACCESS_ALL;
	int is;
	size_t at = 0;
	struct scsi_pr_registrant one;

	(void)state;
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, type, LIST(1, 0)), SCSI_GOOD);
	assert_int_equal(held_by(w, &is), 0); /* no key: all of them */
	assert_int_equal(is, type);
	assert_int_equal(reserve(w, 1, SCSI_PR_RESERVE, type, LIST(2, 0)), SCSI_GOOD);
	assert_int_equal(reserve(w, 0, SCSI_PR_REGISTER, 0, LIST(1, 0)), SCSI_GOOD);
	held_by(w, &is);
	assert_int_equal(is, type);
	struct scsi_cdb cdb = {.opcode = SCSI_OP_PERSISTENT_RESERVE_IN,
		.action = SCSI_PR_READ_FULL_STATUS,
		.list_bytes = 4096};

	assert_int_equal(world_send(w, 2, cdb, 4096, NULL, 0), SCSI_GOOD);
	assert_int_equal(scsi_next_pr_registrant(w->answer, w->answer_len, &at, &one), 0);
	assert_int_equal(one.key, 2);
	assert_true(one.holder);
	assert_int_equal(one.type, type);
	assert_memory_equal(one.transport_id, w->nexus[1].transport_id, one.transport_id_bytes);
	assert_int_equal(one.transport_id_bytes, SCSI_TRANSPORT_ID_BYTES);
	assert_int_equal(scsi_next_pr_registrant(w->answer, w->answer_len, &at, &one), -ENOENT);
	assert_int_equal(reserve(w, 1, SCSI_PR_REGISTER, 0, LIST(2, 0)), SCSI_GOOD);
	held_by(w, &is);
	assert_int_equal(is, 0);
	world_free(w);
}

static void clearing_is_told_to_all(void **state)
{
	struct world *w = registered(2);

	(void)state;
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, SCSI_PR_EXCLUSIVE_ACCESS, LIST(1, 0)),
		SCSI_GOOD);
	assert_int_equal(reserve(w, 1, SCSI_PR_CLEAR, 0, LIST(2, 0)), SCSI_GOOD);
	assert_int_equal(nr_keys(w, NULL), 0);
	assert_int_equal(held_by(w, NULL), 0);
	is_told(w, 0, SCSI_ASC_RESERVATIONS_PREEMPTED);
	is_told_nothing(w, 1);
	is_told_nothing(w, 2);
	world_free(w);
}

static void preempting_the_holder_takes_what_it_holds(void **state)
{
	struct world *w = registered(3);
	int type;

	(void)state;
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS,
				 LIST(1, 0)),
		SCSI_GOOD);
	assert_int_equal(reserve(w, 1, SCSI_PR_PREEMPT, SCSI_PR_EXCLUSIVE_ACCESS, LIST(2, 1)),
		SCSI_GOOD);
	assert_int_equal(w->aborted, 0);
	assert_int_equal(held_by(w, &type), 2);
	assert_int_equal(type, SCSI_PR_EXCLUSIVE_ACCESS);
	assert_int_equal(nr_keys(w, NULL), 2);
	/* Commands of the one that is out conflict before it is told why. */
	assert_int_equal(world_send(w, 0, CDB(.opcode = SCSI_OP_WRITE_10, .blocks = 1), 0,
				 w->medium, 512),
		SCSI_RESERVATION_CONFLICT);
	is_told(w, 0, SCSI_ASC_REGISTRATIONS_PREEMPTED);
	is_told(w, 2, SCSI_ASC_RESERVATIONS_RELEASED); /* the type is another */
	is_told_nothing(w, 1);
	/* One's own, to change the type. */
	assert_int_equal(reserve(w, 1, SCSI_PR_PREEMPT, SCSI_PR_WRITE_EXCLUSIVE, LIST(2, 2)),
		SCSI_GOOD);
	assert_int_equal(held_by(w, &type), 2);
	assert_int_equal(type, SCSI_PR_WRITE_EXCLUSIVE);
	assert_int_equal(nr_keys(w, NULL), 2);
	world_free(w);
}

static void preempting_another_takes_its_registration_alone(void **state)
{
	struct world *w = registered(3);

	(void)state;
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, SCSI_PR_WRITE_EXCLUSIVE, LIST(1, 0)),
		SCSI_GOOD);
	assert_int_equal(reserve(w, 1, SCSI_PR_PREEMPT, SCSI_PR_EXCLUSIVE_ACCESS, LIST(2, 3)),
		SCSI_GOOD);
	assert_int_equal(held_by(w, NULL), 1);
	is_told(w, 2, SCSI_ASC_REGISTRATIONS_PREEMPTED);
	assert_int_equal(reserve(w, 1, SCSI_PR_PREEMPT, SCSI_PR_EXCLUSIVE_ACCESS, LIST(2, 3)),
		SCSI_RESERVATION_CONFLICT); /* nobody has the key */
	world_illegal(w, reserve(w, 1, SCSI_PR_PREEMPT, SCSI_PR_EXCLUSIVE_ACCESS, LIST(2, 0)),
		SCSI_ASC_INVALID_FIELD_IN_LIST);
	/* Without a reservation keys are taken, and nothing is reserved. */
	assert_int_equal(reserve(w, 0, SCSI_PR_RELEASE, SCSI_PR_WRITE_EXCLUSIVE, LIST(1, 0)),
		SCSI_GOOD);
	assert_int_equal(reserve(w, 1, SCSI_PR_PREEMPT, SCSI_PR_EXCLUSIVE_ACCESS, LIST(2, 1)),
		SCSI_GOOD);
	assert_int_equal(held_by(w, NULL), 0);
	assert_int_equal(nr_keys(w, NULL), 1);
	world_free(w);
}

static void preempting_all_registrants(void **state)
{
	struct world *w = registered(3);
	int type;

	(void)state;
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, SCSI_PR_EXCLUSIVE_ACCESS_ALL, LIST(1, 0)),
		SCSI_GOOD);
	/* One of them: the reservation stays the others'. */
	assert_int_equal(reserve(w, 1, SCSI_PR_PREEMPT, SCSI_PR_WRITE_EXCLUSIVE, LIST(2, 1)),
		SCSI_GOOD);
	held_by(w, &type);
	assert_int_equal(type, SCSI_PR_EXCLUSIVE_ACCESS_ALL);
	is_told(w, 0, SCSI_ASC_REGISTRATIONS_PREEMPTED);
	/* All of them: it is one's own. */
	assert_int_equal(reserve(w, 1, SCSI_PR_PREEMPT_AND_ABORT, SCSI_PR_WRITE_EXCLUSIVE,
				 LIST(2, 0)),
		SCSI_GOOD);
	assert_int_equal(held_by(w, &type), 2);
	assert_int_equal(type, SCSI_PR_WRITE_EXCLUSIVE);
	assert_int_equal(nr_keys(w, NULL), 1);
	assert_int_equal(w->aborted, 1 << w->nexus[2].slot);
	world_free(w);
}

static void aborting_names_whose_commands_end(void **state)
{
	struct world *w = registered(2);

	(void)state;
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, SCSI_PR_WRITE_EXCLUSIVE, LIST(1, 0)),
		SCSI_GOOD);
	assert_int_equal(reserve(w, 1, SCSI_PR_PREEMPT_AND_ABORT, SCSI_PR_WRITE_EXCLUSIVE,
				 LIST(2, 1)),
		SCSI_GOOD);
	assert_int_equal(w->aborted, 1 << w->nexus[0].slot);
	assert_int_equal(held_by(w, NULL), 2);
	world_free(w);
}

static void a_registration_outlives_a_login(void **state)
{
	struct world *w = registered(2);

	(void)state;
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, SCSI_PR_EXCLUSIVE_ACCESS, LIST(1, 0)),
		SCSI_GOOD);
	scsi_unit_leave(&w->nexus[0]);
	scsi_unit_leave(&w->nexus[1]);
	/* Whoever comes first, the places are others: it is the port that counts. */
	assert_int_equal(scsi_unit_join(&w->unit, &w->nexus[1]), 0);
	assert_int_equal(scsi_unit_join(&w->unit, &w->nexus[0]), 0);
	assert_int_equal(w->nexus[1].slot, 0);
	assert_int_equal(world_send(w, 1, CDB(.opcode = SCSI_OP_READ_10, .blocks = 1), 512, NULL,
				 0),
		SCSI_RESERVATION_CONFLICT);
	is_told(w, 0, SCSI_ASC_POWER_ON);
	assert_int_equal(world_send(w, 0, CDB(.opcode = SCSI_OP_READ_10, .blocks = 1), 512, NULL,
				 0),
		SCSI_GOOD);
	/* A reset changes nothing of it. */
	scsi_function_end(&w->nexus[0], SCSI_LOGICAL_UNIT_RESET);
	is_told(w, 0, SCSI_ASC_RESET_BY_FUNCTION);
	assert_int_equal(held_by(w, NULL), 1);
	world_free(w);
}

static void who_comes_next_is_bound_by_nothing(void **state)
{
	struct world *w = registered(2);
	int type;

	(void)state;
	assert_int_equal(reserve(w, 0, SCSI_PR_RESERVE, SCSI_PR_EXCLUSIVE_ACCESS, LIST(1, 0)),
		SCSI_GOOD);
	scsi_unit_leave(&w->nexus[0]);
	scsi_unit_forget_reservations(&w->unit);
	assert_int_equal(world_send(w, 2, CDB(.opcode = SCSI_OP_WRITE_10, .blocks = 1), 0,
				 w->medium, 512),
		SCSI_GOOD);
	is_told(w, 1, SCSI_ASC_RESERVATIONS_PREEMPTED);
	assert_int_equal(scsi_unit_join(&w->unit, &w->nexus[0]), 0);
	assert_int_equal(nr_keys(w, NULL), 0);
	assert_int_equal(held_by(w, &type), 0);
	assert_int_equal(type, 0);
	world_free(w);
}

static void there_is_room_for_so_many(void **state)
{
	struct world *w = WORLD(0);

	(void)state;
	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++) {
		scsi_unit_leave(&w->nexus[0]);
		world_set_nexus(&w->nexus[0], 1000 + i);
		assert_int_equal(scsi_unit_join(&w->unit, &w->nexus[0]), 0);
		is_told(w, 0, SCSI_ASC_POWER_ON);
		assert_int_equal(reserve(w, 0, SCSI_PR_REGISTER, 0, LIST(0, i + 1)), SCSI_GOOD);
	}
	world_illegal(w, reserve(w, 1, SCSI_PR_REGISTER, 0, LIST(0, 1)),
		SCSI_ASC_INSUFFICIENT_REGISTRATION_RESOURCES);
	/* All that can be said of them fits. */
	for (uint8_t action = 0; action <= SCSI_PR_READ_FULL_STATUS; action++) {
		struct scsi_cdb cdb = {.opcode = SCSI_OP_PERSISTENT_RESERVE_IN,
			.action = action,
			.list_bytes = UINT16_MAX};

		assert_int_equal(world_send(w, 0, cdb, UINT32_MAX, NULL, 0), SCSI_GOOD);
		assert_true(w->answer_len >= 8);
	}
	assert_int_equal(nr_keys(w, NULL), SCSI_MAX_NEXUSES);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_type_keeps_others_from_what_it_says),
		cmocka_unit_test(registering_needs_the_key_that_is_there),
		cmocka_unit_test(what_cannot_be_kept_is_refused),
		cmocka_unit_test(one_reservation_at_a_time),
		cmocka_unit_test(registrants_are_told_of_a_release),
		cmocka_unit_test(all_registrants_hold_until_the_last_is_gone),
		cmocka_unit_test(clearing_is_told_to_all),
		cmocka_unit_test(preempting_the_holder_takes_what_it_holds),
		cmocka_unit_test(preempting_another_takes_its_registration_alone),
		cmocka_unit_test(preempting_all_registrants),
		cmocka_unit_test(aborting_names_whose_commands_end),
		cmocka_unit_test(a_registration_outlives_a_login),
		cmocka_unit_test(who_comes_next_is_bound_by_nothing),
		cmocka_unit_test(there_is_room_for_so_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
