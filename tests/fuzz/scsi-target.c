/* SPDX-License-Identifier: MIT */
/*
 * What hostile initiators ask of a logical unit: whatever it tells the transport to do is inside
 * the unit and inside the initiators' buffers, and its reservations add up.
 *
 * The first byte says what the unit is like; then come events, each begun by a byte: whose it is,
 * and what.  A command is its CDB, three lengths (of the buffers, and of the list) and the list.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/bytes.h"
#include "fabric/base/util.h"
#include "fabric/scsi/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NR_NEXUSES = 3, UNIT_BYTES = 64 << 10, COMMAND_BYTES = SCSI_CDB_BYTES + 3 * 2 };

static struct scsi_unit unit;
static struct scsi_nexus nexus[NR_NEXUSES];
static uint8_t medium[UNIT_BYTES];

static void join(unsigned who)
{
	const uint8_t port[16] = {[15] = (uint8_t)(who + 1)};

	scsi_srp_transport_id(port, nexus[who].transport_id);
	assert(scsi_unit_join(&unit, &nexus[who]) == 0);
}

static void check_range(uint64_t off, uint64_t len)
{
	const uint64_t bytes = unit.nr_blocks * SCSI_BLOCK_BYTES;

	assert(bytes <= UNIT_BYTES && off <= bytes && len <= bytes - off);
}

static void check_reservations(void)
{
	bool registered = false;

	for (unsigned i = 0; i < SCSI_MAX_NEXUSES; i++)
		registered = registered || unit.registration[i].key;
	if (unit.pr_type)
		assert(unit.pr_type >= SCSI_PR_WRITE_EXCLUSIVE_ALL
				? registered
				: unit.registration[unit.pr_holder].key != 0);
	for (unsigned i = 0; i < NR_NEXUSES; i++)
		assert(unit.pr_type || !(nexus[i].gate >> 16));
}

/* As a transport carries it out.  An error now and then. */
static void carry_out(struct scsi_command *cmd, const struct scsi_request *rq, int error)
{
	switch (cmd->kind) {
	case SCSI_DO_SEND:
		assert(cmd->data_bytes > 0 && cmd->data_bytes <= rq->in_bytes);
		break;
	case SCSI_DO_UNMAP:
		assert(cmd->nr_extents > 0 && cmd->nr_extents <= SCSI_MAX_EXTENTS);
		for (unsigned i = 0; i < cmd->nr_extents; i++) {
			uint64_t off, len;

			scsi_command_extent(cmd, i, &off, &len);
			check_range(off, len);
		}
		break;
	case SCSI_DO_ABORT:
		assert(cmd->abort_slots && !(cmd->abort_slots & UINT64_C(1) << cmd->nexus->slot));
		break;
	case SCSI_DO_COMPARE:
		assert(cmd->len <= rq->out_bytes);
		check_range(cmd->off, cmd->len);
		if (error) {
			scsi_command_miscompare(cmd, cmd->len - 1);
			return;
		}
		break;
	case SCSI_DO_READ:
		assert(cmd->len <= rq->in_bytes);
		check_range(cmd->off, cmd->len);
		break;
	default:
		assert(cmd->len > 0 && (cmd->kind != SCSI_DO_WRITE || cmd->len <= rq->out_bytes));
		check_range(cmd->off, cmd->len);
		if (cmd->kind == SCSI_DO_SAME)
			memcpy(medium + cmd->off, cmd->list, SCSI_BLOCK_BYTES);
		else if (cmd->kind != SCSI_DO_FLUSH)
			memset(medium + cmd->off, 0, cmd->len);
	}
	scsi_command_end(cmd, error);
}

static void check_end(const struct scsi_command *cmd, const struct scsi_request *rq)
{
	struct scsi_fault fault;

	assert(cmd->kind == SCSI_DO_END);
	assert((cmd->status == SCSI_CHECK_CONDITION) == (cmd->sense_bytes > 0));
	assert(cmd->in_residual <= (int64_t)rq->in_bytes);
	assert(cmd->out_residual <= (int64_t)rq->out_bytes);
	if (cmd->sense_bytes) {
		assert(scsi_unpack_sense(cmd->sense, cmd->sense_bytes, &fault) == 0);
		assert(fault.key == cmd->key && fault.asc == cmd->asc && scsi_asc_name(fault.asc));
	}
	assert(scsi_status_name(cmd->status) && scsi_key_name(cmd->key));
}

/* How many bytes of data it took. */
static size_t command(struct scsi_nexus *from, uint64_t lun, int error, const uint8_t *data,
	size_t size)
{
	uint8_t head[COMMAND_BYTES] = {0};
	/* of exactly the size that may be used, so that what goes beyond it is seen */
	uint8_t *answer = malloc(SCSI_DATA_BYTES), *list = NULL;
	struct scsi_command cmd;
	size_t taken = weft_min(size, sizeof(head));

	memcpy(head, data, taken);
	const struct scsi_request rq = {
		.cdb = head,
		.cdb_bytes = SCSI_CDB_BYTES,
		.lun = lun,
		.in_bytes = (uint64_t)weft_get16(head + SCSI_CDB_BYTES) << 2,
		.out_bytes = (uint64_t)weft_get16(head + SCSI_CDB_BYTES + 2) << 2,
	};
	size_t has = weft_min(weft_get16(head + SCSI_CDB_BYTES + 4), size - taken);

	assert(answer);
	scsi_command_begin(&cmd, from, &rq, answer);
	if (cmd.kind == SCSI_DO_FETCH) {
		assert(cmd.data_bytes > 0 && cmd.data_bytes <= SCSI_DATA_BYTES &&
			cmd.data_bytes <= rq.out_bytes);
		list = calloc(1, cmd.data_bytes);
		assert(list);
		memcpy(list, data + taken, weft_min(has, cmd.data_bytes));
		scsi_command_fetched(&cmd, list);
	}
	if (cmd.kind != SCSI_DO_END)
		carry_out(&cmd, &rq, error);
	check_end(&cmd, &rq);
	free(list);
	free(answer);
	return taken + has;
}

static void manage(struct scsi_nexus *from, enum scsi_function function, uint64_t lun)
{
	uint64_t slots = 0;

	if (scsi_function_begin(from, function, lun, &slots) == 0) {
		assert(slots & UINT64_C(1) << from->slot);
		scsi_function_end(from, function);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const int errors[] = {-EIO, -ENOSPC, -ESTALE, -ECONNABORTED};
	struct scsi_unit_config config = {.size_bytes = UNIT_BYTES, .protocol = SCSI_PROTOCOL_SRP};

	if (size == 0)
		return 0;
	config.write_cache = data[0] & 1;
	config.read_only = data[0] & 2;
	nexus[1].read_only = data[0] & 4;
	scsi_names("donor", "region", &config.names);
	assert(scsi_unit_init(&unit, &config) == 0);
	for (unsigned i = 0; i < NR_NEXUSES; i++)
		join(i);
	for (size_t at = 1; at + 1 < size;) {
		const uint8_t what = data[at++];
		const unsigned who = what % 4 % NR_NEXUSES;
		const uint64_t lun = what & 0x80 ? UINT64_C(1) << 48 : 0;

		switch (what >> 2 & 7) {
		case 4:
			manage(&nexus[who], data[at++] % 6, lun);
			break;
		case 5:
			scsi_unit_leave(&nexus[who]);
			join(who);
			break;
		case 6:
			(void)scsi_unit_resize(&unit, (uint64_t)(data[at++] % 129) << 9);
			break;
		case 7:
			if (data[at] == 0xff)
				scsi_unit_lose(&unit);
			else if (data[at] == 0xfe)
				scsi_unit_forget_reservations(&unit);
			at++;
			break;
		default:
			at += command(&nexus[who], lun, what & 0x40 ? errors[what >> 2 & 3] : 0,
				data + at, size - at);
		}
		check_reservations();
	}
	for (unsigned i = 0; i < NR_NEXUSES; i++)
		scsi_unit_leave(&nexus[i]);
	scsi_unit_fini(&unit);
	return 0;
}
