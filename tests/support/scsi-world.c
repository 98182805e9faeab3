/* SPDX-License-Identifier: MIT */
/* See scsi-world.h. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/bytes.h"
#include "tests/support/scsi-world.h"

void world_set_nexus(struct scsi_nexus *nexus, unsigned number)
{
	uint8_t port[16] = {0};

	memset(nexus, 0, sizeof(*nexus));
	weft_put32(port + 12, number + 1);
	scsi_srp_transport_id(port, nexus->transport_id);
}

struct world *world_new(struct scsi_unit_config config)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	if (!config.size_bytes)
		config.size_bytes = UNIT_BYTES;
	config.protocol = SCSI_PROTOCOL_SRP;
	scsi_names("a donor", "a region", &config.names);
	assert_int_equal(scsi_unit_init(&w->unit, &config), 0);
	for (unsigned i = 0; i < NR_NEXUSES; i++) {
		world_set_nexus(&w->nexus[i], i);
		assert_int_equal(scsi_unit_join(&w->unit, &w->nexus[i]), 0);
		atomic_store(&w->nexus[i].gate, 0); /* power on has been told */
	}
	return w;
}

void world_free(struct world *w)
{
	for (unsigned i = 0; i < NR_NEXUSES; i++)
		scsi_unit_leave(&w->nexus[i]);
	scsi_unit_fini(&w->unit);
	free(w);
}

/* What a transport does with a range. */
static int carry_out(struct world *w, const uint8_t *out)
{
	struct scsi_command *cmd = &w->cmd;
	uint8_t *at = w->medium + cmd->off;

	/* All of it facts, or this is memory that is not ours. */
	assert_true(cmd->off <= UNIT_BYTES && cmd->len <= UNIT_BYTES - cmd->off);
	assert_true(cmd->len > 0);
	switch (cmd->kind) {
	case SCSI_DO_READ:
		memcpy(w->answer, at, cmd->len);
		w->answer_len = cmd->len;
		break;
	case SCSI_DO_WRITE:
		memcpy(at, out, cmd->len);
		break;
	case SCSI_DO_ZERO:
		memset(at, 0, cmd->len);
		break;
	case SCSI_DO_SAME:
		for (uint64_t i = 0; i < cmd->len; i += SCSI_BLOCK_BYTES)
			memcpy(at + i, cmd->list, SCSI_BLOCK_BYTES);
		break;
	default:
		assert_int_equal(cmd->kind, SCSI_DO_FLUSH);
		w->nr_flushes++;
	}
	w->nr_flushes += cmd->fua;
	return w->error;
}

static void compare(struct world *w, const uint8_t *out)
{
	for (uint64_t i = 0; i < w->cmd.len; i++)
		if (w->medium[w->cmd.off + i] != out[i]) {
			scsi_command_miscompare(&w->cmd, i);
			return;
		}
	scsi_command_end(&w->cmd, w->error);
}

static void unmap(struct world *w)
{
	assert_true(w->cmd.nr_extents > 0 && w->cmd.nr_extents <= SCSI_MAX_EXTENTS);
	for (unsigned i = 0; i < w->cmd.nr_extents; i++) {
		uint64_t off, len;

		scsi_command_extent(&w->cmd, i, &off, &len);
		assert_true(off <= UNIT_BYTES && len <= UNIT_BYTES - off);
		w->trimmed_bytes += len;
	}
	scsi_command_end(&w->cmd, w->error);
}

int world_say(struct world *w, unsigned who, const struct scsi_request *rq, const uint8_t *out)
{
	struct scsi_command *cmd = &w->cmd;
	static uint8_t data[SCSI_DATA_BYTES];

	w->answer_len = 0;
	w->aborted = 0;
	memset(&w->fault, 0, sizeof(w->fault));
	memset(cmd, 0xa5, sizeof(*cmd));
	scsi_command_begin(cmd, &w->nexus[who], rq, data);
	if (cmd->kind == SCSI_DO_FETCH) {
		assert_true(cmd->data_bytes <= rq->out_bytes);
		memcpy(data, out, cmd->data_bytes);
		scsi_command_fetched(cmd, data);
	}
	switch (cmd->kind) {
	case SCSI_DO_END:
		break;
	case SCSI_DO_SEND:
		assert_true(cmd->data_bytes > 0 && cmd->data_bytes <= rq->in_bytes);
		memcpy(w->answer, cmd->data, cmd->data_bytes);
		w->answer_len = cmd->data_bytes;
		scsi_command_end(cmd, 0);
		break;
	case SCSI_DO_COMPARE:
		compare(w, out);
		break;
	case SCSI_DO_UNMAP:
		unmap(w);
		break;
	case SCSI_DO_ABORT:
		w->aborted = cmd->abort_slots;
		scsi_command_end(cmd, 0);
		break;
	default:
		scsi_command_end(cmd, carry_out(w, out));
	}
	assert_int_equal(cmd->kind, SCSI_DO_END);
	assert_int_equal(cmd->sense_bytes > 0, cmd->status == SCSI_CHECK_CONDITION);
	if (cmd->status == SCSI_CHECK_CONDITION) {
		assert_int_equal(scsi_unpack_sense(cmd->sense, cmd->sense_bytes, &w->fault), 0);
		assert_int_equal(w->fault.key, cmd->key);
		assert_int_equal(w->fault.asc, cmd->asc);
	}
	return cmd->status;
}

int world_ask(struct world *w, unsigned who, struct scsi_task *task, const void *out)
{
	uint8_t cdb[SCSI_CDB_BYTES] = {0};
	struct scsi_request rq = {.cdb = cdb, .cdb_bytes = SCSI_CDB_BYTES};

	assert_non_null(task);
	memcpy(cdb, task->cdb, (size_t)task->cdb_size);
	if (task->xfer_dir == SCSI_XFER_READ)
		rq.in_bytes = (uint64_t)task->expxferlen;
	else if (task->xfer_dir == SCSI_XFER_WRITE)
		rq.out_bytes = (uint64_t)task->expxferlen;
	int status = world_say(w, who, &rq, out);

	if (w->answer_len) {
		task->datain.data = malloc(w->answer_len);
		assert_non_null(task->datain.data);
		memcpy(task->datain.data, w->answer, w->answer_len);
		task->datain.size = (int)w->answer_len;
	}
	return status;
}

int world_tell(struct world *w, unsigned who, struct scsi_task *task, const void *out)
{
	int status = world_ask(w, who, task, out);

	scsi_free_scsi_task(task);
	return status;
}

int world_send(struct world *w, unsigned who, struct scsi_cdb cdb, uint64_t in_bytes,
	const void *out, uint64_t out_bytes)
{
	uint8_t bytes[SCSI_CDB_BYTES];

	assert_true(scsi_pack_cdb(&cdb, bytes) > 0);
	return world_say(w, who, &(struct scsi_request){
		.cdb = bytes,
		.cdb_bytes = sizeof(bytes),
		.in_bytes = in_bytes,
		.out_bytes = out_bytes,
	}, out);
}

void world_refused(struct world *w, int status, uint8_t key, uint16_t asc)
{
	assert_int_equal(status, SCSI_CHECK_CONDITION);
	assert_int_equal(w->fault.key, key);
	assert_int_equal(w->fault.asc, asc);
}

void world_illegal(struct world *w, int status, uint16_t asc)
{
	world_refused(w, status, SCSI_KEY_ILLEGAL_REQUEST, asc);
}

void world_points_at(struct world *w, bool in_cdb, unsigned byte)
{
	assert_true(w->fault.has_field);
	assert_int_equal(w->fault.field_in_cdb, in_cdb);
	assert_int_equal(w->fault.field.byte, byte);
}
