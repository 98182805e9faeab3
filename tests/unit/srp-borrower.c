/* SPDX-License-Identifier: MIT */
/*
 * The SRP borrower's judgement without a target: names of units, what responses mean, and what a
 * unit says of itself.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "transports/srp/borrower/judge.h"
#include "transports/srp/borrower/name.h"
#include "transports/srp/borrower/nexus.h"
#include "transports/srp/borrower/unit.h"

static void a_borrower_with_a_number_is_one_initiator(void **state)
{
	struct tp_target first = {.hello.id = {1}}, second = {.hello.id = {2}}, none = {0};

	/* Without: each attachment is one, always the same. */
	uint64_t ext = srp_name_initiator(&first, 7);
	assert_int_equal(srp_name_initiator(&first, 8), ext);
	assert_int_not_equal(srp_name_initiator(&second, 7), ext);
	assert_int_equal(srp_name_initiator(&none, 7), 7);
	/* With: whatever the attachment's id is. */
	first.borrower = second.borrower = 9;
	assert_int_equal(srp_name_initiator(&first, 7), 9);
	assert_int_equal(srp_name_initiator(&second, 8), 9);
}

static void a_name_is_what_an_add_target_line_has(void **state)
{
	static const struct {
		const char *text;
		uint64_t ext, guid, lun;
	} good[] = {
		{"0002c90300a0b1c0", 0x0002c90300a0b1c0, 0x0002c90300a0b1c0, 0},
		{"0x2c90300a0b1c0/", 0x0002c90300a0b1c0, 0x0002c90300a0b1c0, 0},
		{"0002:c903:00a0:b1c0/7", 0x0002c90300a0b1c0, 0x0002c90300a0b1c0, 7ull << 48},
		{"1.FEDCBA9876543210/255", 1, 0xfedcba9876543210, 255ull << 48},
		{"1.2/256", 1, 2, 0x4100ull << 48},
		{"1.2/16383", 1, 2, 0x7fffull << 48},
	};
	static const char *const bad[] = {"", "/0", "scratch", "12345678901234567", "1.", "1./0",
		":1", "1.2.3", "1/x", "1/-1", "1/16384", "1/99999999999", "1/1/1", "0x", "1 "};
	struct srp_name name;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(good); i++) {
		assert_int_equal(srp_name_parse(good[i].text, &name, NULL), 0);
		assert_int_equal(name.target_ext, good[i].ext);
		assert_int_equal(name.target_guid, good[i].guid);
		assert_int_equal(name.lun, good[i].lun);
	}
	for (size_t i = 0; i < WEFT_ARRAY_LEN(bad); i++)
		if (srp_name_parse(bad[i], &name, NULL) != -EINVAL)
			fail_msg("'%s' is a name", bad[i]);
}

static struct srp_judgement judge(uint8_t status, uint8_t key, uint16_t asc, bool deferred,
	bool begun)
{
	const struct scsi_fault fault = {.key = key, .asc = asc, .deferred = deferred};
	uint8_t sense[SCSI_SENSE_MAX_BYTES];
	struct srp_rsp rsp = {.status = status, .sense = sense};
	struct srp_judgement j;

	if (status == SCSI_CHECK_CONDITION)
		rsp.sense_bytes = (uint32_t)scsi_pack_sense(&fault, false, sense);
	srp_judge(&rsp, begun, &j);
	return j;
}

static void a_status_is_done_or_again_or_the_end(void **state)
{
	struct srp_judgement j = judge(SCSI_GOOD, 0, 0, false, true);

	assert_int_equal(j.verdict, SRP_DONE);
	assert_int_equal(j.status, 0);
	assert_int_equal(judge(SCSI_BUSY, 0, 0, false, true).verdict, SRP_LATER);
	assert_int_equal(judge(SCSI_TASK_SET_FULL, 0, 0, false, true).verdict, SRP_LATER);
	assert_int_equal(judge(SCSI_TASK_ABORTED, 0, 0, false, true).verdict, SRP_AGAIN);
	j = judge(SCSI_RESERVATION_CONFLICT, 0, 0, false, true);
	assert_int_equal(j.verdict, SRP_END);
	assert_int_equal(j.why.code, EBUSY);
	j = judge(0x7e, 0, 0, false, true);
	assert_int_equal(j.verdict, SRP_DONE);
	assert_int_equal(j.status, -EIO);
}

static void a_fault_is_told_in_our_terms(void **state)
{
	static const struct {
		uint8_t key;
		uint16_t asc;
		int status;
	} faults[] = {
		{SCSI_KEY_NO_SENSE, 0, 0},
		{SCSI_KEY_RECOVERED_ERROR, 0x1701, 0},
		{SCSI_KEY_MEDIUM_ERROR, 0x1100, -EIO},
		{SCSI_KEY_HARDWARE_ERROR, 0x4400, -EIO},
		{SCSI_KEY_NOT_READY, 0x3a00, -EIO},
		{SCSI_KEY_DATA_PROTECT, 0x2700, -EPERM},
		{SCSI_KEY_DATA_PROTECT, 0x2707, -ENOSPC},
		{SCSI_KEY_ILLEGAL_REQUEST, 0x2000, -EOPNOTSUPP},
		{SCSI_KEY_ILLEGAL_REQUEST, 0x2400, -EOPNOTSUPP},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(faults); i++) {
		struct srp_judgement j =
			judge(SCSI_CHECK_CONDITION, faults[i].key, faults[i].asc, false, true);

		assert_int_equal(j.verdict, SRP_DONE);
		assert_int_equal(j.status, faults[i].status);
	}
	assert_int_equal(
		judge(SCSI_CHECK_CONDITION, SCSI_KEY_NOT_READY, 0x0401, false, true).verdict,
		SRP_LATER);
	assert_int_equal(
		judge(SCSI_CHECK_CONDITION, SCSI_KEY_ABORTED_COMMAND, 0, false, true).verdict,
		SRP_AGAIN);
}

/* A reset of the queue is none of the unit's; a restart, another size, another device are. */
static void a_unit_attention_ends_what_it_may_have_changed(void **state)
{
	static const uint16_t ends[] = {0x2900, 0x2901, 0x2904, 0x2a09, 0x3f03, 0x3f0e, 0x2800};
	static const uint16_t harmless[] = {0x2902, 0x2903, 0x2907, 0x2a01, 0x2a03, 0x2a05, 0x2f00};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(ends); i++) {
		struct srp_judgement j = judge(SCSI_CHECK_CONDITION, SCSI_KEY_UNIT_ATTENTION,
			ends[i], false, true);

		assert_int_equal(j.verdict, SRP_END);
		assert_int_equal(j.why.code, ENOTCONN);
		/* A newcomer has nothing that could be old. */
		assert_int_equal(judge(SCSI_CHECK_CONDITION, SCSI_KEY_UNIT_ATTENTION, ends[i],
					 false, false).verdict,
			SRP_AGAIN);
	}
	for (size_t i = 0; i < WEFT_ARRAY_LEN(harmless); i++)
		assert_int_equal(judge(SCSI_CHECK_CONDITION, SCSI_KEY_UNIT_ATTENTION, harmless[i],
					 false, true).verdict,
			SRP_AGAIN);
	/* It has shrunk, or is gone. */
	assert_int_equal(
		judge(SCSI_CHECK_CONDITION, SCSI_KEY_ILLEGAL_REQUEST, 0x2100, false, true).verdict,
		SRP_END);
	assert_int_equal(
		judge(SCSI_CHECK_CONDITION, SCSI_KEY_ILLEGAL_REQUEST, 0x2500, false, true).verdict,
		SRP_END);
}

static void a_deferred_error_is_another_commands(void **state)
{
	struct srp_judgement j =
		judge(SCSI_CHECK_CONDITION, SCSI_KEY_MEDIUM_ERROR, 0x0c00, true, true);

	assert_int_equal(j.verdict, SRP_AGAIN);
	assert_true(j.deferred);
}

static void sense_that_makes_no_sense_is_an_error(void **state)
{
	const uint8_t wrong[] = {0x55, 1, 2, 3};
	struct srp_rsp rsp = {.status = SCSI_CHECK_CONDITION};
	struct srp_judgement j;

	srp_judge(&rsp, true, &j);
	assert_int_equal(j.verdict, SRP_DONE);
	assert_int_equal(j.status, -EIO);
	rsp.sense = wrong;
	rsp.sense_bytes = sizeof(wrong);
	srp_judge(&rsp, true, &j);
	assert_int_equal(j.status, -EIO);
	rsp = (struct srp_rsp){.has_code = true, .code = SRP_RSP_INVALID};
	srp_judge(&rsp, true, &j);
	assert_int_equal(j.status, -EIO);
}

/* ---- a unit that answers ---- */

struct world {
	struct scsi_inquiry inquiry;
	struct scsi_capacity capacity;
	struct scsi_mode mode;
	struct scsi_limits limits;
	struct scsi_provisioning provisioning;
	struct scsi_pr_reservation reservation;
	const char *serial;
	uint8_t naa;    /* the last byte of its name */
	bool reversed;  /* the order of its names */
	bool knows_opcodes;
	uint8_t refuses; /* an opcode */
};

static const struct world disk = {
	.inquiry = {.version = 6, .vendor = "WEFT", .product = "TEST"},
	.capacity = {.last_lba = 2047, .block_bytes = 512, .physical_exponent = 3},
	.mode = {.ten = true, .dpofua = true, .has_caching = true},
	.limits = {.max_transfer = 128, .max_unmap = 1000, .max_unmap_extents = 1},
	.provisioning = {.unmap = true},
	.serial = "12",
};

static size_t designators(const struct world *w, uint8_t *data)
{
	uint8_t naa[8] = {0x60, 1, 2, 3, 4, 5, 6, w->naa};
	const struct scsi_designator names[] = {
		{.association = SCSI_OF_UNIT, .code_set = SCSI_CODE_BINARY,
			.type = SCSI_DESIGNATOR_NAA, .len = 8, .bytes = naa},
		{.association = SCSI_OF_UNIT, .code_set = SCSI_CODE_ASCII,
			.type = SCSI_DESIGNATOR_T10, .len = 5, .bytes = (const uint8_t *)"T10:1"},
	};
	const struct scsi_designator turned[] = {names[1], names[0]};

	return scsi_pack_vpd_designators(w->reversed ? turned : names, 2, data);
}

static size_t answer(const struct world *w, const struct scsi_cdb *cdb, uint8_t *data)
{
	static const uint8_t pages[] = {0x00, 0x80, 0x83, 0xb0, 0xb2};

	memset(data, 0, SCSI_PARAMETER_BYTES);
	switch (cdb->opcode) {
	case SCSI_OP_INQUIRY:
		if (!cdb->evpd)
			return scsi_pack_inquiry(&w->inquiry, data);
		switch (cdb->page) {
		case SCSI_VPD_PAGES:
			return scsi_pack_vpd_pages(pages, sizeof(pages), data);
		case SCSI_VPD_SERIAL:
			return scsi_pack_vpd_serial(w->serial, data);
		case SCSI_VPD_DESIGNATORS:
			return designators(w, data);
		case SCSI_VPD_LIMITS:
			return scsi_pack_vpd_limits(&w->limits, data);
		default:
			return scsi_pack_vpd_provisioning(&w->provisioning, data);
		}
	case SCSI_OP_SERVICE_ACTION_IN_16:
		return scsi_pack_capacity_16(&w->capacity, data);
	case SCSI_OP_MODE_SENSE_10:
		return scsi_pack_mode(&w->mode, data);
	case SCSI_OP_MAINTENANCE_IN:
		return scsi_pack_opcode(w->knows_opcodes ? SCSI_OP_WRITE_SAME_16 : 0xff,
			SCSI_NO_ACTION, false, data);
	case SCSI_OP_PERSISTENT_RESERVE_IN:
		return scsi_pack_pr_reservation(&w->reservation, data);
	case SCSI_OP_READ_16:
		return w->capacity.block_bytes;
	default:
		return 0;
	}
}

/* cut: answers end after so many bytes. */
static int examine_cut(const struct world *w, bool writes, size_t cut, struct srp_unit *ret,
	struct weft_error *err)
{
	uint8_t data[SCSI_PARAMETER_BYTES];
	struct srp_exam exam;
	struct scsi_cdb cdb;
	uint32_t bytes;
	int r = 0;

	srp_exam_begin(&exam, writes);
	while (r == 0 && srp_exam_next(&exam, &cdb, &bytes)) {
		struct srp_judgement j = {.verdict = SRP_DONE};
		size_t len = weft_min(weft_min(answer(w, &cdb, data), bytes), cut);
		uint8_t packed[SCSI_CDB_BYTES];
		/* Of exactly its size, so that a sanitizer sees what is read behind it. */
		uint8_t *exact = malloc(len ? len : 1);

		assert_true(scsi_pack_cdb(&cdb, packed) > 0);
		assert_true(bytes <= SRP_UNIT_DATA_BYTES);
		memcpy(exact, data, len);
		if (w->refuses && cdb.opcode == w->refuses)
			j.status = -EOPNOTSUPP;
		r = srp_exam_answer(&exam, &j, exact, len, err);
		free(exact);
	}
	if (r == 0)
		*ret = exam.unit;
	return r;
}

static int examine(const struct world *w, struct srp_unit *ret)
{
	struct weft_error err = {0};

	return examine_cut(w, true, SIZE_MAX, ret, &err);
}

static void a_unit_is_what_it_says(void **state)
{
	struct srp_unit unit;

	assert_int_equal(examine(&disk, &unit), 0);
	assert_int_equal(unit.size_bytes, 1 << 20);
	assert_int_equal(unit.block_bytes, 512);
	assert_int_equal(unit.physical_bytes, 4096);
	assert_int_equal(unit.max_transfer, 128);
	assert_true(unit.fua && unit.can_unmap && !unit.can_same && !unit.read_only);
	assert_false(unit.write_cache);
	assert_int_equal(unit.max_unmap, 1000);
	assert_string_equal(unit.name, "WEFT TEST, serial 12");

	struct world w = disk;
	w.knows_opcodes = true;
	w.mode.write_protected = false;
	assert_int_equal(examine(&w, &unit), 0);
	assert_true(unit.can_same);
	assert_true(unit.max_same > 0);
	w.mode.write_protected = true;
	assert_int_equal(examine(&w, &unit), 0);
	assert_true(unit.read_only);
}

/* What it does not say is taken for the worse. */
static void what_is_unsaid_is_not_relied_on(void **state)
{
	struct world w = disk;
	struct srp_unit unit;

	w.refuses = SCSI_OP_MODE_SENSE_10;
	assert_int_equal(examine(&w, &unit), 0);
	assert_true(unit.write_cache);
	assert_false(unit.fua);
	w.refuses = SCSI_OP_MAINTENANCE_IN;
	w.provisioning.unmap = false;
	assert_int_equal(examine(&w, &unit), 0);
	assert_false(unit.can_unmap || unit.can_same);
	w.refuses = SCSI_OP_SERVICE_ACTION_IN_16;
	assert_int_equal(examine(&w, &unit), -EOPNOTSUPP);
}

static void what_cannot_be_used_is_refused(void **state)
{
	struct weft_error err;
	struct srp_unit unit;
	struct world w = disk;

	w.inquiry.qualifier = 3;
	assert_int_equal(examine(&w, &unit), -ENOENT);
	w = disk;
	w.inquiry.type = 5;
	assert_int_equal(examine(&w, &unit), -EINVAL);
	w = disk;
	w.capacity.block_bytes = 520;
	assert_int_equal(examine(&w, &unit), -EINVAL);
	w.capacity.block_bytes = 0;
	assert_int_equal(examine(&w, &unit), -EINVAL);
	w.capacity.block_bytes = 1 << 30;
	assert_int_equal(examine(&w, &unit), -EINVAL);
	w = disk;
	w.capacity.last_lba = UINT64_MAX;
	assert_int_equal(examine(&w, &unit), -EINVAL);
	w = disk;
	w.capacity.protection = 2;
	assert_int_equal(examine(&w, &unit), -EINVAL);
	w = disk;
	w.reservation = (struct scsi_pr_reservation){.type = SCSI_PR_WRITE_EXCLUSIVE, .key = 1};
	assert_int_equal(examine(&w, &unit), -EBUSY);
	assert_int_equal(examine_cut(&w, false, SIZE_MAX, &unit, &err), 0);
	w.reservation.type = SCSI_PR_EXCLUSIVE_ACCESS;
	assert_int_equal(examine_cut(&w, false, SIZE_MAX, &unit, &err), -EBUSY);
}

static void another_unit_has_another_identity(void **state)
{
	struct srp_unit unit, other;
	struct world w = disk;

	assert_int_equal(examine(&disk, &unit), 0);
	assert_int_not_equal(unit.identity, 0);
	w.reversed = true;
	assert_int_equal(examine(&w, &other), 0);
	assert_int_equal(other.identity, unit.identity);
	w = disk;
	w.naa = 1;
	assert_int_equal(examine(&w, &other), 0);
	assert_int_not_equal(other.identity, unit.identity);
	w = disk;
	w.serial = "13";
	assert_int_equal(examine(&w, &other), 0);
	assert_int_not_equal(other.identity, unit.identity);
	w = disk;
	w.capacity.block_bytes = 4096;
	assert_int_equal(examine(&w, &other), 0);
	assert_int_not_equal(other.identity, unit.identity);
}

static void answers_that_are_cut_short_are_survived(void **state)
{
	struct weft_error err;
	struct srp_unit unit;

	for (size_t cut = 0; cut < 600; cut++)
		if (examine_cut(&disk, true, cut, &unit, &err) == 0)
			assert_int_equal(unit.size_bytes, 1 << 20);
}

/* ---- channels of one nexus ---- */

static void one_channel_of_a_generation_leads(void **state)
{
	const struct srp_nexus_key key = {.initiator = 1, .place = "192.0.2.7:5555"};
	struct srp_nexus *nexus = srp_nexus_get(&key), *same = srp_nexus_get(&key);
	int fd[2];

	assert_ptr_equal(nexus, same);
	assert_return_code(pipe(fd), errno);
	assert_int_equal(srp_nexus_join(nexus, fd[1]), 0);
	assert_int_equal(srp_nexus_ask(nexus, 5), SRP_TURN_LEAD);
	assert_int_equal(srp_nexus_ask(nexus, 5), SRP_TURN_WAIT);
	uint64_t woken;
	assert_int_equal(read(fd[0], &woken, sizeof(woken)), sizeof(woken));
	/* The leader failed: another leads. */
	srp_nexus_led(nexus, 5, false, false);
	assert_int_equal(read(fd[0], &woken, sizeof(woken)), sizeof(woken));
	assert_int_equal(srp_nexus_ask(nexus, 5), SRP_TURN_LEAD);
	srp_nexus_led(nexus, 5, true, false);
	assert_int_equal(srp_nexus_ask(nexus, 5), SRP_TURN_FOLLOW);
	assert_true(srp_nexus_is_current(nexus, 5));
	/* Something was lost: what it left behind is ended first. */
	assert_int_equal(srp_nexus_ask(nexus, 6), SRP_TURN_AGAIN);
	assert_false(srp_nexus_is_current(nexus, 5));
	assert_int_equal(srp_nexus_ask(nexus, 5), SRP_TURN_OVER);
	assert_int_equal(srp_nexus_ask(nexus, 6), SRP_TURN_WAIT);
	srp_nexus_leave(nexus, fd[1]);
	/* The old leader's end says nothing of the new one. */
	srp_nexus_led(nexus, 5, true, false);
	assert_int_equal(srp_nexus_ask(nexus, 6), SRP_TURN_WAIT);
	srp_nexus_put(nexus);
	srp_nexus_put(same);
	close(fd[0]);
	close(fd[1]);
}

static void a_generation_that_was_ended_is_over_until_the_next(void **state)
{
	const struct srp_nexus_key key = {.initiator = 2, .place = "192.0.2.7:5555"};
	struct srp_nexus *nexus = srp_nexus_get(&key);
	struct weft_error why = {0}, told = {0};
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	uint64_t woken;

	weft_error_set(&why, ENOTCONN, "the unit says something");
	assert_int_equal(srp_nexus_join(nexus, fd), 0);
	assert_int_equal(srp_nexus_ask(nexus, 5), SRP_TURN_LEAD);
	assert_false(srp_nexus_greets(nexus));
	srp_nexus_led(nexus, 5, true, true);
	assert_true(srp_nexus_greets(nexus));
	/* Of another generation it says nothing. */
	srp_nexus_end(nexus, 4, &why);
	assert_false(srp_nexus_is_over(nexus, 5, &told));
	assert_int_equal(srp_nexus_ask(nexus, 5), SRP_TURN_FOLLOW);
	assert_int_equal(read(fd, &woken, sizeof(woken)), sizeof(woken));
	srp_nexus_end(nexus, 5, &why);
	assert_int_equal(read(fd, &woken, sizeof(woken)), sizeof(woken));
	assert_true(srp_nexus_is_over(nexus, 5, &told));
	assert_string_equal(told.message, "the unit says something");
	assert_false(srp_nexus_is_current(nexus, 5));
	assert_int_equal(srp_nexus_ask(nexus, 5), SRP_TURN_OVER);
	assert_int_equal(srp_nexus_ask(nexus, 6), SRP_TURN_AGAIN);
	assert_false(srp_nexus_is_over(nexus, 6, &told));
	srp_nexus_led(nexus, 6, true, false);
	/* Once all channels have gone, the same generation may begin again. */
	srp_nexus_end(nexus, 6, &why);
	srp_nexus_leave(nexus, fd);
	assert_int_equal(srp_nexus_ask(nexus, 6), SRP_TURN_AGAIN);
	srp_nexus_put(nexus);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_is_what_an_add_target_line_has),
		cmocka_unit_test(a_borrower_with_a_number_is_one_initiator),
		cmocka_unit_test(a_status_is_done_or_again_or_the_end),
		cmocka_unit_test(a_fault_is_told_in_our_terms),
		cmocka_unit_test(a_unit_attention_ends_what_it_may_have_changed),
		cmocka_unit_test(a_deferred_error_is_another_commands),
		cmocka_unit_test(sense_that_makes_no_sense_is_an_error),
		cmocka_unit_test(a_unit_is_what_it_says),
		cmocka_unit_test(what_is_unsaid_is_not_relied_on),
		cmocka_unit_test(what_cannot_be_used_is_refused),
		cmocka_unit_test(another_unit_has_another_identity),
		cmocka_unit_test(answers_that_are_cut_short_are_survived),
		cmocka_unit_test(one_channel_of_a_generation_leads),
		cmocka_unit_test(a_generation_that_was_ended_is_over_until_the_next),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
