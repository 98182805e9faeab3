/* SPDX-License-Identifier: MIT */
/*
 * The SRP borrower's commands and what comes of responses, hostile ones too, without a device: the
 * queue pair is a stub.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/srp-stub.h"
#include "transports/rdma/device.h"

static const struct srp_unit unit = {
	.size_bytes = STUB_BLOCKS * 512,
	.block_bytes = 512,
	.write_cache = true,
	.fua = true,
	.can_unmap = true,
	.can_same = true,
	.max_transfer = 2048,
	.max_unmap = 100,
	.max_same = 100,
};

static int setup(void **state)
{
	*state = stub_new(4, &unit);
	return 0;
}

static int teardown(void **state)
{
	stub_free(*state);
	return 0;
}

static void post(struct stub *s, struct tp_op *op, enum tp_op_kind kind, uint64_t off, uint64_t len)
{
	*op = (struct tp_op){.kind = kind,
		.flags = op->flags,
		.off = off,
		.len = len,
		.buf = s->buf,
		.mem = &s->mem};
	struct tp_op *ops = op;
	assert_int_equal(tp_post(&s->conn.conn, &ops, 1), 1);
}

/* What comes out: the operation, or NULL. */
static struct tp_op *progress(struct stub *s)
{
	struct tp_op *done = NULL;
	int n = tp_progress(&s->conn.conn, &done, 1);

	return n > 0 ? done : NULL;
}

static struct srp_iu sent(const struct stub *s, unsigned n)
{
	const struct stub_sent *at = stub_sent_at(s, n);
	struct srp_iu iu;

	assert_true(at->len <= sizeof(at->iu));
	assert_int_equal(srp_unpack_from_initiator(at->iu, at->len, 0, &iu), 0);
	return iu;
}

static struct scsi_cdb cdb_of(const struct srp_iu *iu)
{
	struct scsi_field bad;
	struct scsi_cdb cdb;

	assert_int_equal(scsi_unpack_cdb(iu->cmd.cdb, &cdb, &bad), 0);
	return cdb;
}

static void respond(struct stub *s, const struct srp_rsp *rsp)
{
	uint8_t iu[SRP_RSP_BYTES + SRP_RSP_DATA_BYTES + SCSI_SENSE_MAX_BYTES];

	stub_receive(s, iu, (uint32_t)srp_pack_rsp(rsp, iu));
}

static void respond_status(struct stub *s, uint64_t tag, uint8_t status)
{
	respond(s, &(struct srp_rsp){.tag = tag, .delta = 1, .status = status});
}

static void respond_fault(struct stub *s, uint64_t tag, const struct scsi_fault *fault)
{
	uint8_t sense[SCSI_SENSE_MAX_BYTES];

	respond(s, &(struct srp_rsp){.tag = tag,
			   .delta = 1,
			   .status = SCSI_CHECK_CONDITION,
			   .sense = sense,
			   .sense_bytes = (uint32_t)scsi_pack_sense(fault, false, sense)});
}

static void assert_ended(struct stub *s, struct tp_op *op, int error)
{
	assert_null(progress(s));
	assert_int_equal(tp_state(&s->conn.conn), TP_FAILED);
	assert_int_equal(s->conn.conn.error, error);
	/* Its buffer may be written to until the queue pair is gone. */
	assert_null(progress(s));
	atomic_store(&s->conn.qp_gone, true);
	if (op)
		assert_ptr_equal(progress(s), op);
	assert_null(progress(s));
}

static void a_read_is_a_command_with_one_descriptor(void **state)
{
	struct stub *s = *state;
	struct tp_op op = {0};

	post(s, &op, TP_READ, 8192, 65536);
	struct srp_iu iu = sent(s, 0);
	struct scsi_cdb cdb = cdb_of(&iu);
	assert_int_equal(cdb.opcode, SCSI_OP_READ_16);
	assert_int_equal(cdb.lba, 16);
	assert_int_equal(cdb.blocks, 128);
	assert_int_equal(iu.cmd.in.format, SRP_DIRECT);
	struct srp_buffer buffer;
	srp_unpack_buffer(iu.cmd.in.list, &buffer);
	assert_int_equal(buffer.addr, (uintptr_t)s->buf);
	assert_int_equal(buffer.len, 65536);
	assert_int_equal(buffer.key, 8);
	respond_status(s, iu.cmd.tag, SCSI_GOOD);
	assert_ptr_equal(progress(s), &op);
	assert_int_equal(op.status, 0);
}

static void a_short_write_goes_along(void **state)
{
	struct stub *s = *state;
	struct tp_op op = {.flags = TP_FUA};

	memset(s->buf, 0x5a, 4096);
	post(s, &op, TP_WRITE, 0, 4096);
	const struct stub_sent *at = stub_sent_at(s, 0);
	assert_int_equal(at->len, SRP_IMMEDIATE_OFF + 4096);
	assert_int_equal(at->iu[SRP_IMMEDIATE_OFF], 0x5a);
	assert_int_equal(at->iu[5], SRP_IMMEDIATE << 4);
	struct scsi_field bad;
	struct scsi_cdb cdb;
	assert_int_equal(scsi_unpack_cdb(at->iu + 32, &cdb, &bad), 0);
	assert_int_equal(cdb.opcode, SCSI_OP_WRITE_16);
	assert_true(cdb.fua);
}

static void a_long_write_is_fetched(void **state)
{
	struct stub *s = *state;
	struct tp_op op = {0};

	post(s, &op, TP_WRITE, 0, 65536);
	assert_int_equal(sent(s, 0).cmd.out.format, SRP_DIRECT);
}

static void one_credit_is_kept(void **state)
{
	struct stub *s = *state;
	struct tp_op op[4] = {{0}}, *more = &op[3];

	for (unsigned i = 0; i < 3; i++)
		post(s, &op[i], TP_PROBE, 0, 0);
	assert_int_equal(s->conn.credits, 1);
	op[3].kind = TP_PROBE;
	assert_int_equal(tp_post(&s->conn.conn, &more, 1), -EAGAIN);
	/* One without an answer. */
	const struct srp_short credit = {.tag = 77, .delta = 1};
	uint8_t iu[SRP_AER_REQ_BYTES];
	stub_receive(s, iu, (uint32_t)srp_pack_short(SRP_CRED_REQ, &credit, iu));
	assert_null(progress(s));
	assert_int_equal(sent(s, 3).type, SRP_CRED_RSP);
	assert_int_equal(sent(s, 3).other.tag, 77);
	assert_int_equal(s->conn.credits, 2);
	for (unsigned i = 0; i < 3; i++)
		respond_status(s, sent(s, i).cmd.tag, SCSI_GOOD);
	for (unsigned i = 0; i < 3; i++)
		assert_ptr_equal(progress(s), &op[i]);
	assert_int_equal(s->conn.credits, 5);
}

static void a_trim_is_as_many_commands_as_it_takes(void **state)
{
	struct stub *s = *state;
	struct tp_op op = {.flags = TP_FUA};

	post(s, &op, TP_TRIM, 512, 250 * 512);
	for (unsigned i = 0; i < 3; i++) {
		const struct stub_sent *at = stub_sent_at(s, i);
		uint64_t lba, tag;
		uint32_t blocks;

		assert_int_equal(at->len, SRP_IMMEDIATE_OFF + 24);
		assert_int_equal(at->iu[32], SCSI_OP_UNMAP);
		scsi_unpack_unmap_extent(at->iu + SRP_IMMEDIATE_OFF + SCSI_UNMAP_HEAD_BYTES, &lba,
			&blocks);
		assert_int_equal(lba, 1 + 100 * i);
		assert_int_equal(blocks, i < 2 ? 100 : 50);
		memcpy(&tag, at->iu + 8, sizeof(tag));
		respond_status(s, be64toh(tag), SCSI_GOOD);
		assert_null(progress(s));
	}
	/* … and durable. */
	struct srp_iu iu = sent(s, 3);
	assert_int_equal(cdb_of(&iu).opcode, SCSI_OP_SYNCHRONIZE_CACHE_10);
	respond_status(s, iu.cmd.tag, SCSI_GOOD);
	assert_ptr_equal(progress(s), &op);
	assert_int_equal(op.status, 0);
}

static void a_busy_unit_is_asked_again_and_not_for_ever(void **state)
{
	struct stub *s = *state;
	struct tp_op op = {0}, *done = NULL;
	unsigned n = 0;

	post(s, &op, TP_READ, 0, 4096);
	for (; !done; n++) {
		if (n >= s->nr_sent) {
			/* It waits: meanwhile nothing is sent, and nothing blocks. */
			assert_null(progress(s));
			assert_int_equal(s->nr_sent, n);
			uint64_t until_ns = s->conn.next_again_ns;
			assert_true(until_ns > 0 && until_ns <= weft_now_ns() + 300000000);
			for (unsigned i = 0; i <= STUB_DEPTH; i++)
				if (s->conn.slots[i].again_ns)
					s->conn.slots[i].again_ns = 1;
			s->conn.next_again_ns = 1;
			srp_io_again(&s->conn);
			assert_int_equal(s->nr_sent, n + 1);
		}
		respond_status(s, sent(s, n).cmd.tag, n % 2 ? SCSI_BUSY : SCSI_TASK_SET_FULL);
		done = progress(s);
		assert_true(n <= SRP_MAX_TRIES);
	}
	assert_ptr_equal(done, &op);
	assert_int_equal(op.status, -EIO);
	assert_int_equal(n, SRP_MAX_TRIES + 1);
	assert_int_equal(tp_state(&s->conn.conn), TP_READY);
}

static void what_others_did_to_the_queue_is_repeated_at_once(void **state)
{
	static const struct scsi_fault reset = {
		.key = SCSI_KEY_UNIT_ATTENTION, .asc = SCSI_ASC_RESET_BY_FUNCTION};
	struct stub *s = *state;
	struct tp_op op = {0};

	post(s, &op, TP_WRITE, 0, 65536);
	respond_fault(s, sent(s, 0).cmd.tag, &reset);
	assert_null(progress(s));
	assert_int_equal(s->nr_sent, 2);
	assert_int_not_equal(sent(s, 1).cmd.tag, sent(s, 0).cmd.tag);
	respond_status(s, sent(s, 1).cmd.tag, SCSI_TASK_ABORTED);
	assert_null(progress(s));
	respond_status(s, sent(s, 2).cmd.tag, SCSI_GOOD);
	assert_ptr_equal(progress(s), &op);
	assert_int_equal(op.status, 0);
}

static void a_unit_that_changed_ends_the_connection(void **state)
{
	static const struct scsi_fault grown = {
		.key = SCSI_KEY_UNIT_ATTENTION, .asc = SCSI_ASC_CAPACITY_CHANGED};
	struct stub *s = *state;
	struct tp_op op = {0};

	post(s, &op, TP_READ, 0, 4096);
	respond_fault(s, sent(s, 0).cmd.tag, &grown);
	assert_ended(s, &op, -ENOTCONN);
	assert_int_equal(op.status, -ENOTCONN);
}

static void a_reservation_ends_the_connection(void **state)
{
	struct stub *s = *state;
	struct tp_op op = {0};

	post(s, &op, TP_WRITE, 0, 4096);
	uint64_t tag;
	memcpy(&tag, stub_sent_at(s, 0)->iu + 8, sizeof(tag));
	respond_status(s, be64toh(tag), SCSI_RESERVATION_CONFLICT);
	assert_ended(s, &op, -EBUSY);
	assert_non_null(strstr(s->conn.conn.why.message, "reserved"));
}

/* A write that was answered is lost: who flushes has to learn of it, once. */
static void a_deferred_error_fails_the_next_flush(void **state)
{
	static const struct scsi_fault lost = {
		.key = SCSI_KEY_MEDIUM_ERROR, .asc = SCSI_ASC_WRITE_ERROR, .deferred = true};
	struct stub *s = *state;
	struct tp_op op = {0};

	post(s, &op, TP_READ, 0, 4096);
	respond_fault(s, sent(s, 0).cmd.tag, &lost);
	assert_null(progress(s));
	respond_status(s, sent(s, 1).cmd.tag, SCSI_GOOD);
	assert_ptr_equal(progress(s), &op);
	assert_int_equal(op.status, 0);
	for (unsigned i = 0; i < 2; i++) {
		post(s, &op, TP_FLUSH, 0, 0);
		respond_status(s, sent(s, 2 + i).cmd.tag, SCSI_GOOD);
		assert_ptr_equal(progress(s), &op);
		assert_int_equal(op.status, i == 0 ? -EIO : 0);
	}
}

/* Whoever attached at an SRP target reads of SRP, and not of donors. */
static void a_refusal_speaks_of_what_was_spoken(void **state)
{
	static const struct weft_rdma_protocol protocol = {.name = "SRP", .advice = ""};
	const struct {
		struct rdma_cm_event event;
		int code;
		const char *text;
	} refusals[] = {
		{{.event = RDMA_CM_EVENT_REJECTED, .status = WEFT_RDMA_REJ_INVALID_SERVICE_ID},
			ECONNREFUSED, "cannot connect to t over SRP: nobody listens there"},
		{{.event = RDMA_CM_EVENT_REJECTED, .status = 1}, ECONNREFUSED,
			"cannot connect to t over SRP: rejected, reason 1"},
		{{.event = RDMA_CM_EVENT_UNREACHABLE, .status = -ETIMEDOUT}, ETIMEDOUT,
			"cannot connect to t over SRP: no answer"},
		{{.event = RDMA_CM_EVENT_ADDR_ERROR, .status = -ETIMEDOUT}, EHOSTUNREACH,
			"cannot connect to t over SRP: no host answers at that address"},
		{{.event = RDMA_CM_EVENT_ROUTE_ERROR, .status = -EINVAL}, EHOSTUNREACH,
			"cannot connect to t over SRP: Invalid argument"},
		{{.event = RDMA_CM_EVENT_CONNECT_ERROR, .status = -EIO}, EIO,
			"cannot connect to t over SRP: Input/output error"},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(refusals); i++) {
		struct weft_error err = {0};

		assert_int_equal(weft_rdma_event_errno(
					 &refusals[i].event, &protocol, "t", &err),
			-refusals[i].code);
		assert_string_equal(err.message, refusals[i].text);
	}
}

/* ---- a channel that is examined ---- */

static void exam_goes_on(
	struct srp_conn *conn, const struct srp_judgement *judgement, size_t len)
{
	conn->phase = SRP_PHASE_READY;
}

/* Is told this instead of an answer to its first question: whether it asks again. */
static bool asks_again_after(struct stub *s, const struct scsi_fault *fault)
{
	struct srp_conn *conn = &s->conn;
	unsigned nr = s->nr_sent;

	conn->conn.state = TP_CONNECTING;
	conn->phase = SRP_PHASE_EXAM;
	conn->exam_done = exam_goes_on;
	srp_exam_begin(&conn->exam, true);
	srp_io_examine(conn);
	srp_io_again(conn);
	assert_int_equal(s->nr_sent, nr + 1);
	respond_fault(s, sent(s, nr).cmd.tag, fault);
	assert_null(progress(s));
	return s->nr_sent == nr + 2;
}

static const struct scsi_fault has_started = {
	.key = SCSI_KEY_UNIT_ATTENTION, .asc = SCSI_ASC_POWER_ON};
static const struct scsi_fault has_grown = {
	.key = SCSI_KEY_UNIT_ATTENTION, .asc = SCSI_ASC_CAPACITY_CHANGED};
static const struct scsi_fault was_reset = {
	.key = SCSI_KEY_UNIT_ATTENTION, .asc = SCSI_ASC_RESET_BY_FUNCTION};

static void begin_generation(struct stub *s, bool greeted)
{
	s->conn.generation = 1;
	assert_int_equal(srp_nexus_ask(s->conn.nexus, 1), SRP_TURN_LEAD);
	srp_nexus_led(s->conn.nexus, 1, true, greeted);
}

static void the_first_channel_may_be_told_anything(void **state)
{
	struct stub *s = *state;

	s->conn.generation = 1;
	s->conn.leads = true;
	assert_int_equal(srp_nexus_ask(s->conn.nexus, 1), SRP_TURN_LEAD);
	assert_true(asks_again_after(s, &has_grown));
	assert_false(s->conn.greeted);
	respond_status(s, sent(s, s->nr_sent - 1).cmd.tag, SCSI_GOOD);
	assert_null(progress(s));
	assert_true(asks_again_after(s, &has_started));
	assert_true(s->conn.greeted);
}

/* The target tells it once, and another channel is not told any more. */
static void what_a_further_channel_is_told_ends_the_others(void **state)
{
	struct stub *s = *state;
	struct srp_conn *conn = &s->conn;
	struct weft_error why;

	begin_generation(s, false);
	assert_true(asks_again_after(s, &was_reset));
	respond_status(s, sent(s, s->nr_sent - 1).cmd.tag, SCSI_GOOD);
	assert_null(progress(s));
	assert_false(asks_again_after(s, &has_grown));
	assert_int_equal(tp_state(&conn->conn), TP_FAILED);
	assert_int_equal(conn->conn.error, -ENOTCONN);
	assert_true(srp_nexus_is_over(conn->nexus, 1, &why));
	assert_non_null(strstr(why.message, "2a/09"));
}

static void a_channel_ends_when_another_was_told(void **state)
{
	struct stub *s = *state;
	struct tp_op op = {0};
	struct weft_error why = {0};

	begin_generation(s, false);
	post(s, &op, TP_READ, 0, 4096);
	weft_error_set(&why, ENOTCONN, "the unit says something");
	srp_nexus_end(s->conn.nexus, 1, &why);
	srp_conn_look_at_nexus(&s->conn);
	assert_ended(s, &op, -ENOTCONN);
	assert_non_null(strstr(s->conn.conn.why.message, "the unit says something"));
}

/* To such targets each channel is an initiator of its own. */
static void a_greeting_that_the_first_channel_had_is_no_news(void **state)
{
	struct stub *s = *state;

	begin_generation(s, true);
	assert_true(asks_again_after(s, &has_started));
	respond_status(s, sent(s, s->nr_sent - 1).cmd.tag, SCSI_GOOD);
	assert_null(progress(s));
	assert_false(asks_again_after(s, &has_grown));
	assert_int_equal(tp_state(&s->conn.conn), TP_FAILED);
}

static void a_start_that_the_first_channel_was_not_told_of_is_news(void **state)
{
	struct stub *s = *state;

	begin_generation(s, false);
	assert_false(asks_again_after(s, &has_started));
	assert_int_equal(tp_state(&s->conn.conn), TP_FAILED);
}

static void a_deferred_error_counts_while_a_channel_is_examined(void **state)
{
	static const struct scsi_fault lost = {
		.key = SCSI_KEY_MEDIUM_ERROR, .asc = SCSI_ASC_WRITE_ERROR, .deferred = true};
	struct stub *s = *state;

	begin_generation(s, false);
	assert_true(asks_again_after(s, &lost));
	assert_true(atomic_load(&s->conn.nexus->deferred));
}

/* GOOD with less data than was asked for is no success. */
static void a_residual_is_an_error(void **state)
{
	struct stub *s = *state;
	struct tp_op op = {0};

	for (int sign = -1; sign <= 1; sign += 2) {
		post(s, &op, TP_READ, 0, 4096);
		respond(s, &(struct srp_rsp){.tag = sent(s, s->nr_sent - 1).cmd.tag,
				   .delta = 1,
				   .in_residual = sign * 512});
		assert_ptr_equal(progress(s), &op);
		assert_int_equal(op.status, -EIO);
	}
	post(s, &op, TP_WRITE, 0, 65536);
	respond(s, &(struct srp_rsp){
			   .tag = sent(s, s->nr_sent - 1).cmd.tag, .delta = 1, .out_residual = 1});
	assert_ptr_equal(progress(s), &op);
	assert_int_equal(op.status, -EIO);
}

static void a_tag_that_is_not_in_flight_ends_the_connection(void **state)
{
	struct stub *s = *state;
	struct tp_op op = {0};

	post(s, &op, TP_READ, 0, 4096);
	uint64_t tag = sent(s, 0).cmd.tag;
	respond_status(s, tag, SCSI_GOOD);
	assert_ptr_equal(progress(s), &op);
	/* The same again, while its slot has another. */
	post(s, &op, TP_READ, 0, 4096);
	respond_status(s, tag, SCSI_GOOD);
	assert_ended(s, &op, -EPROTO);
	assert_int_not_equal(op.status, 0);
}

static void tags_out_of_nowhere_end_the_connection(void **state)
{
	static const uint64_t tags[] = {0, 1, STUB_DEPTH, STUB_DEPTH + 1, 0xffff, UINT64_MAX,
		UINT64_C(1) << 63, UINT64_C(1) << 63 | 1};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(tags); i++) {
		struct stub *s = stub_new(4, &unit);

		respond_status(s, tags[i], SCSI_GOOD);
		assert_ended(s, NULL, -EPROTO);
		stub_free(s);
	}
	stub_now = *state;
}

static void credits_that_make_no_sense_end_the_connection(void **state)
{
	static const int32_t deltas[] = {INT32_MAX, INT32_MIN, -4, 1 << 17};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(deltas); i++) {
		struct stub *s = stub_new(4, &unit);
		struct tp_op op = {0};

		post(s, &op, TP_READ, 0, 4096);
		respond(s, &(struct srp_rsp){.tag = sent(s, 0).cmd.tag, .delta = deltas[i]});
		assert_ended(s, &op, -EPROTO);
		assert_int_not_equal(op.status, 0);
		stub_free(s);
	}
	stub_now = *state;
}

static void what_srp_does_not_know_ends_the_connection(void **state)
{
	static const uint8_t types[] = {SRP_CMD, SRP_LOGIN_RSP, 0x55, SRP_TSK_MGMT};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(types); i++)
		for (uint32_t len = 0; len <= SRP_RSP_BYTES; len += SRP_RSP_BYTES) {
			struct stub *s = stub_new(4, &unit);
			uint8_t iu[SRP_RSP_BYTES] = {types[i]};

			stub_receive(s, iu, len);
			assert_ended(s, NULL, -EPROTO);
			stub_free(s);
		}
	stub_now = *state;
}

static void a_logout_ends_the_connection(void **state)
{
	struct stub *s = *state;
	const struct srp_short logout = {.tag = 1, .reason = 2};
	uint8_t iu[SRP_AER_REQ_BYTES];

	stub_receive(s, iu, (uint32_t)srp_pack_short(SRP_T_LOGOUT, &logout, iu));
	assert_ended(s, NULL, -ENOTCONN);
}

static void a_flood_of_questions_ends_the_connection(void **state)
{
	struct stub *s = *state;
	const struct srp_short credit = {.tag = 1};
	uint8_t iu[SRP_AER_REQ_BYTES];
	uint32_t len = (uint32_t)srp_pack_short(SRP_CRED_REQ, &credit, iu);

	/* Its answers never leave. */
	for (unsigned i = 0; i < 1000 && tp_state(&s->conn.conn) == TP_READY; i++) {
		unsigned kept = 0;

		for (unsigned k = 0; k < s->nr_wcs; k++)
			if (s->wcs[k].opcode != IBV_WC_SEND)
				s->wcs[kept++] = s->wcs[k];
		s->nr_wcs = kept;
		stub_receive(s, iu, len);
		progress(s);
	}
	assert_int_equal(tp_state(&s->conn.conn), TP_FAILED);
	assert_int_equal(s->conn.conn.error, -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_read_is_a_command_with_one_descriptor, setup, teardown),
		cmocka_unit_test_setup_teardown(a_short_write_goes_along, setup, teardown),
		cmocka_unit_test_setup_teardown(a_long_write_is_fetched, setup, teardown),
		cmocka_unit_test_setup_teardown(one_credit_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_trim_is_as_many_commands_as_it_takes, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_busy_unit_is_asked_again_and_not_for_ever, setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_others_did_to_the_queue_is_repeated_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_unit_that_changed_ends_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(a_reservation_ends_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_deferred_error_fails_the_next_flush, setup, teardown),
		cmocka_unit_test_setup_teardown(
			the_first_channel_may_be_told_anything, setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_a_further_channel_is_told_ends_the_others, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_channel_ends_when_another_was_told, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_greeting_that_the_first_channel_had_is_no_news, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_start_that_the_first_channel_was_not_told_of_is_news, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_deferred_error_counts_while_a_channel_is_examined, setup, teardown),
		cmocka_unit_test(a_refusal_speaks_of_what_was_spoken),
		cmocka_unit_test_setup_teardown(a_residual_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_tag_that_is_not_in_flight_ends_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(
			tags_out_of_nowhere_end_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(
			credits_that_make_no_sense_end_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_srp_does_not_know_ends_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(a_logout_ends_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_flood_of_questions_ends_the_connection, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
