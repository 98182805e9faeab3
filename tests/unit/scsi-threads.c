/* SPDX-License-Identifier: MIT */
/*
 * A unit whose channels are threads: they read and write while others reserve it, reset it, resize
 * it and come and go.  What a channel knew to be reserved before its command began conflicts.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/bytes.h"
#include "fabric/base/util.h"
#include "fabric/scsi/data.h"
#include "fabric/scsi/target.h"

enum { NR_CHANNELS = 4, ROUNDS = 25, BLOCKS = 64 };

static struct scsi_unit unit;
/* Of two initiators with two channels each, and of the one that reserves. */
static struct scsi_nexus nexus[3];
static _Atomic bool ending;
static _Atomic unsigned changes; /* odd: reserved, all the time that it stays so */
static _Atomic unsigned nr_done[NR_CHANNELS], nr_wrong, nr_conflicts, nr_attentions;

static void run(struct scsi_command *cmd, struct scsi_nexus *from, const struct scsi_cdb *cdb,
	const uint8_t *list)
{
	uint8_t bytes[SCSI_CDB_BYTES];
	static _Thread_local uint8_t data[SCSI_DATA_BYTES];

	if (scsi_pack_cdb(cdb, bytes) < 0)
		abort();
	scsi_command_begin(cmd, from,
		&(struct scsi_request){.cdb = bytes,
			.cdb_bytes = 16,
			.in_bytes = 4096,
			.out_bytes = 4096},
		data);
	if (cmd->kind == SCSI_DO_FETCH)
		scsi_command_fetched(cmd, list);
}

static void *channel(void *arg)
{
	const unsigned number = (unsigned)(uintptr_t)arg;

	while (!atomic_load(&ending)) {
		const bool writes =
			atomic_load_explicit(&nr_done[number], memory_order_relaxed) % 2;
		const struct scsi_cdb cdb = {
			.opcode = writes ? SCSI_OP_WRITE_10 : SCSI_OP_READ_16,
			.action = SCSI_NO_ACTION,
			.lba = number,
			.blocks = 8,
		};
		const unsigned before = atomic_load(&changes);
		struct scsi_command cmd;

		run(&cmd, &nexus[number % 2], &cdb, NULL);
		if (cmd.kind != SCSI_DO_END) {
			if ((before % 2 && before == atomic_load(&changes)) ||
				cmd.off != number * 512 || cmd.len != 4096)
				atomic_fetch_add(&nr_wrong, 1);
			scsi_command_end(&cmd, 0);
		}
		if (cmd.status == SCSI_RESERVATION_CONFLICT)
			atomic_fetch_add(&nr_conflicts, 1);
		else if (cmd.status == SCSI_CHECK_CONDITION && cmd.key == SCSI_KEY_UNIT_ATTENTION)
			atomic_fetch_add(&nr_attentions, 1);
		else if (cmd.status != SCSI_GOOD)
			atomic_fetch_add(&nr_wrong, 1);
		atomic_fetch_add(&nr_done[number], 1);
		sched_yield();
	}
	return NULL;
}

/* Until each channel has begun and ended a command. */
static void let_all_go_on(void)
{
	unsigned was[NR_CHANNELS];

	for (unsigned i = 0; i < NR_CHANNELS; i++)
		was[i] = atomic_load(&nr_done[i]);
	for (unsigned i = 0; i < NR_CHANNELS; i++)
		while (atomic_load(&nr_done[i]) - was[i] < 2)
			sched_yield();
}

static void reserve(uint8_t action, uint64_t key, uint64_t action_key)
{
	const struct scsi_cdb cdb = {.opcode = SCSI_OP_PERSISTENT_RESERVE_OUT,
		.action = action,
		.type = SCSI_PR_EXCLUSIVE_ACCESS,
		.list_bytes = SCSI_PR_LIST_BYTES};
	uint8_t list[SCSI_PR_LIST_BYTES];
	struct scsi_command cmd;

	scsi_pack_pr_list(&(struct scsi_pr_list){.key = key, .action_key = action_key}, list);
	do /* whatever it is told first */
		run(&cmd, &nexus[2], &cdb, list);
	while (cmd.kind == SCSI_DO_END && cmd.status == SCSI_CHECK_CONDITION &&
		cmd.key == SCSI_KEY_UNIT_ATTENTION);
	assert_int_equal(cmd.status, SCSI_GOOD);
}

/* Attentions go to whichever channel asks first, and to one. */
static void an_attention_is_told_once(void)
{
	const unsigned before = atomic_load(&nr_attentions);

	assert_int_equal(scsi_unit_resize(&unit, BLOCKS * 512), 0);
	let_all_go_on();
	assert_int_equal(atomic_load(&nr_attentions) - before, 2);
}

static void come_and_go(void)
{
	static struct scsi_nexus guest = {.transport_id = {9}};

	assert_int_equal(scsi_unit_join(&unit, &guest), 0);
	scsi_unit_leave(&guest);
}

static void channels_see_what_others_reserve(void **state)
{
	const struct scsi_unit_config config = {.size_bytes = BLOCKS * 512, .write_cache = true};
	pthread_t threads[NR_CHANNELS];

	(void)state;
	assert_int_equal(scsi_unit_init(&unit, &config), 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(nexus); i++) {
		nexus[i].transport_id[8] = (uint8_t)(i + 1);
		assert_int_equal(scsi_unit_join(&unit, &nexus[i]), 0);
	}
	for (uintptr_t i = 0; i < NR_CHANNELS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, channel, (void *)i), 0);
	let_all_go_on();
	reserve(SCSI_PR_REGISTER_AND_IGNORE, 0, 1);
	for (unsigned round = 0; round < ROUNDS; round++) {
		reserve(SCSI_PR_RESERVE, 1, 0);
		atomic_fetch_add(&changes, 1);
		let_all_go_on();
		come_and_go();
		atomic_fetch_add(&changes, 1);
		reserve(SCSI_PR_RELEASE, 1, 0);
		let_all_go_on();
		an_attention_is_told_once();
		scsi_function_end(&nexus[round % 3], SCSI_LOGICAL_UNIT_RESET);
		let_all_go_on();
	}
	atomic_store(&ending, true);
	for (unsigned i = 0; i < NR_CHANNELS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(nr_wrong, 0);
	assert_true(nr_conflicts >= ROUNDS);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(nexus); i++)
		scsi_unit_leave(&nexus[i]);
	scsi_unit_fini(&unit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(channels_see_what_others_reserve),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
