/* SPDX-License-Identifier: MIT */
/*
 * The IUs of SRP as they lie in memory.  Section numbers are of SRP revision 16a; the login over
 * rdma_cm and immediate data are Linux's.  Pure functions, any thread.
 */
#include "transports/srp/proto.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#define PACKED __attribute__((packed))

struct wire_login { /* 6.2, in the order of Linux's srp_login_req_rdma */
	uint64_t tag;
	uint16_t formats;
	uint8_t flags;
	uint8_t type;
	uint32_t it_iu_bytes;
	uint8_t initiator[SRP_PORT_BYTES];
	uint8_t target[SRP_PORT_BYTES];
	uint16_t immediate_off;
	uint8_t reserved[6];
} PACKED;
_Static_assert(sizeof(struct wire_login) == SRP_LOGIN_BYTES, "login");

struct wire_login_rsp { /* 6.3 */
	uint8_t type;
	uint8_t reserved1[3];
	uint32_t delta;
	uint64_t tag;
	uint32_t max_it_iu_bytes;
	uint32_t max_ti_iu_bytes;
	uint16_t formats;
	uint8_t flags;
	uint8_t reserved2[25];
} PACKED;
_Static_assert(sizeof(struct wire_login_rsp) == SRP_LOGIN_RSP_BYTES, "login response");

struct wire_login_rej { /* 6.4 */
	uint8_t type;
	uint8_t reserved1[3];
	uint32_t reason;
	uint64_t tag;
	uint8_t reserved2[8];
	uint16_t formats;
	uint8_t reserved3[6];
} PACKED;
_Static_assert(sizeof(struct wire_login_rej) == SRP_LOGIN_REJ_BYTES, "login reject");

struct wire_buffer { /* 5.6.2.4 */
	uint64_t addr;
	uint32_t key;
	uint32_t len;
} PACKED;
_Static_assert(sizeof(struct wire_buffer) == SRP_BUFFER_BYTES, "direct descriptor");

struct wire_table { /* 5.6.2.5; a list follows */
	struct wire_buffer table;
	uint32_t len;
} PACKED;
_Static_assert(sizeof(struct wire_table) == SRP_TABLE_BYTES, "indirect descriptor");

struct wire_cmd { /* 6.8 */
	uint8_t type;
	uint8_t notify;
	uint8_t reserved1[3];
	uint8_t formats; /* data-out in the high half */
	uint8_t nr_out;  /* descriptors in the lists */
	uint8_t nr_in;
	uint64_t tag;
	uint8_t reserved2[4];
	uint64_t lun;
	uint8_t reserved3;
	uint8_t attribute; /* the low three bits */
	uint8_t reserved4;
	uint8_t add_cdb; /* words of four bytes, in the high six bits */
	uint8_t cdb[SRP_CDB_BYTES];
} PACKED;
_Static_assert(sizeof(struct wire_cmd) == SRP_CMD_BYTES, "command");

struct wire_rsp { /* 6.9 */
	uint8_t type;
	uint8_t notify;
	uint8_t reserved1[2];
	uint32_t delta;
	uint64_t tag;
	uint8_t reserved2[2];
	uint8_t flags;
	uint8_t status;
	uint32_t out_residual;
	uint32_t in_residual;
	uint32_t sense_bytes;
	uint32_t data_bytes;
} PACKED;
_Static_assert(sizeof(struct wire_rsp) == SRP_RSP_BYTES, "response");

struct wire_task { /* 6.7 */
	uint8_t type;
	uint8_t notify;
	uint8_t reserved1[6];
	uint64_t tag;
	uint8_t reserved2[4];
	uint64_t lun;
	uint8_t reserved3[2];
	uint8_t function;
	uint8_t reserved4;
	uint64_t task_tag;
	uint8_t reserved5[8];
} PACKED;
_Static_assert(sizeof(struct wire_task) == SRP_TSK_MGMT_BYTES, "task management");

struct wire_short { /* 6.5, 6.6, 6.10, 6.11, 6.13 */
	uint8_t type;
	uint8_t notify; /* of a target's */
	uint8_t reserved[2];
	uint32_t word; /* T_LOGOUT: the reason; CRED_REQ: credits */
	uint64_t tag;
} PACKED;
_Static_assert(sizeof(struct wire_short) == SRP_SHORT_BYTES, "short");
_Static_assert((int)SRP_CRED_REQ_BYTES == (int)SRP_SHORT_BYTES, "credit request");

struct wire_aer { /* 6.12; sense data follows */
	struct wire_short head;
	uint8_t reserved1[4];
	uint64_t lun;
	uint32_t sense_bytes;
	uint8_t reserved2[4];
} PACKED;
_Static_assert(sizeof(struct wire_aer) == SRP_AER_REQ_BYTES, "asynchronous event");

enum {
	/* of a login */
	LOGIN_CHANNELS = 0x03,
	LOGIN_IMMEDIATE = 0x80,
	/* of its response */
	LOGIN_RSP_RESULT = 0x03,
	LOGIN_RSP_IMMEDIATE = 0x80,
	/* SOLNT of what a target sends; SCSOLNT, UCSOLNT of a request */
	NOTIFY = 0x01,
	NOTIFY_GOOD = 0x02,
	NOTIFY_BAD = 0x04,
	ATTRIBUTE = 0x07,
	/* of a response */
	RSP_DATA = 0x01,
	RSP_SENSE = 0x02,
	RSP_OUT_OVER = 0x04,
	RSP_OUT_UNDER = 0x08,
	RSP_IN_OVER = 0x10,
	RSP_IN_UNDER = 0x20,
};

void srp_pack_port(uint64_t ext, uint64_t guid, uint8_t ret[SRP_PORT_BYTES])
{
	uint64_t wire[2] = {htobe64(ext), htobe64(guid)};

	memcpy(ret, wire, sizeof(wire));
}

void srp_unpack_port(const uint8_t port[SRP_PORT_BYTES], uint64_t *ret_ext, uint64_t *ret_guid)
{
	uint64_t wire[2];

	memcpy(wire, port, sizeof(wire));
	*ret_ext = be64toh(wire[0]);
	*ret_guid = be64toh(wire[1]);
}

void srp_pack_login(const struct srp_login *login, uint8_t ret[SRP_LOGIN_BYTES])
{
	struct wire_login wire = {
		.tag = htobe64(login->tag),
		.formats = htobe16(login->formats),
		.flags = (login->channels & LOGIN_CHANNELS) |
			(login->immediate ? LOGIN_IMMEDIATE : 0),
		.type = SRP_LOGIN_REQ,
		.it_iu_bytes = htobe32(login->it_iu_bytes),
		.immediate_off = htobe16(login->immediate_off),
	};

	memcpy(wire.initiator, login->initiator, sizeof(wire.initiator));
	srp_pack_port(login->target_ext, login->target_guid, wire.target);
	memcpy(ret, &wire, sizeof(wire));
}

int srp_unpack_login(const void *data, size_t len, struct srp_login *ret)
{
	struct wire_login wire;

	if (len < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, data, sizeof(wire));
	if (wire.type != SRP_LOGIN_REQ)
		return -EPROTO;
	*ret = (struct srp_login){
		.tag = be64toh(wire.tag),
		.it_iu_bytes = be32toh(wire.it_iu_bytes),
		.formats = be16toh(wire.formats),
		.channels = wire.flags & LOGIN_CHANNELS,
		.immediate = wire.flags & LOGIN_IMMEDIATE,
		.immediate_off = be16toh(wire.immediate_off),
	};
	memcpy(ret->initiator, wire.initiator, sizeof(ret->initiator));
	srp_unpack_port(wire.target, &ret->target_ext, &ret->target_guid);
	return 0;
}

void srp_pack_login_rsp(const struct srp_login_rsp *rsp, uint8_t ret[SRP_LOGIN_RSP_BYTES])
{
	struct wire_login_rsp wire = {
		.type = SRP_LOGIN_RSP,
		.delta = htobe32(rsp->delta),
		.tag = htobe64(rsp->tag),
		.max_it_iu_bytes = htobe32(rsp->max_it_iu_bytes),
		.max_ti_iu_bytes = htobe32(rsp->max_ti_iu_bytes),
		.formats = htobe16(rsp->formats),
		.flags = (rsp->result & LOGIN_RSP_RESULT) |
			(rsp->immediate ? LOGIN_RSP_IMMEDIATE : 0),
	};

	memcpy(ret, &wire, sizeof(wire));
}

int srp_unpack_login_rsp(const void *data, size_t len, struct srp_login_rsp *ret)
{
	struct wire_login_rsp wire;

	if (len < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, data, sizeof(wire));
	if (wire.type != SRP_LOGIN_RSP)
		return -EPROTO;
	*ret = (struct srp_login_rsp){
		.tag = be64toh(wire.tag),
		.delta = be32toh(wire.delta),
		.max_it_iu_bytes = be32toh(wire.max_it_iu_bytes),
		.max_ti_iu_bytes = be32toh(wire.max_ti_iu_bytes),
		.formats = be16toh(wire.formats),
		.result = wire.flags & LOGIN_RSP_RESULT,
		.immediate = wire.flags & LOGIN_RSP_IMMEDIATE,
	};
	return 0;
}

void srp_pack_login_rej(const struct srp_login_rej *rej, uint8_t ret[SRP_LOGIN_REJ_BYTES])
{
	struct wire_login_rej wire = {
		.type = SRP_LOGIN_REJ,
		.reason = htobe32(rej->reason),
		.tag = htobe64(rej->tag),
		.formats = htobe16(rej->formats),
	};

	memcpy(ret, &wire, sizeof(wire));
}

int srp_unpack_login_rej(const void *data, size_t len, struct srp_login_rej *ret)
{
	struct wire_login_rej wire;

	if (len < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, data, sizeof(wire));
	if (wire.type != SRP_LOGIN_REJ)
		return -EPROTO;
	*ret = (struct srp_login_rej){
		.tag = be64toh(wire.tag),
		.reason = be32toh(wire.reason),
		.formats = be16toh(wire.formats),
	};
	return 0;
}

static struct wire_buffer buffer_to_wire(const struct srp_buffer *buffer)
{
	return (struct wire_buffer){
		.addr = htobe64(buffer->addr),
		.key = htobe32(buffer->key),
		.len = htobe32(buffer->len),
	};
}

static struct srp_buffer buffer_from_wire(const struct wire_buffer *wire)
{
	return (struct srp_buffer){
		.addr = be64toh(wire->addr),
		.key = be32toh(wire->key),
		.len = be32toh(wire->len),
	};
}

void srp_pack_buffer(const struct srp_buffer *buffer, uint8_t ret[SRP_BUFFER_BYTES])
{
	struct wire_buffer wire = buffer_to_wire(buffer);

	memcpy(ret, &wire, sizeof(wire));
}

void srp_unpack_buffer(const uint8_t data[SRP_BUFFER_BYTES], struct srp_buffer *ret)
{
	struct wire_buffer wire;

	memcpy(&wire, data, sizeof(wire));
	*ret = buffer_from_wire(&wire);
}

/* The next n bytes of an IU, of which *off were taken; NULL: they are not there. */
static const uint8_t *take(const uint8_t *iu, size_t len, size_t *off, size_t n)
{
	const uint8_t *at = iu + *off;

	if (n > len - *off)
		return NULL;
	*off += n;
	return at;
}

/* 5.6.2: descriptors of one direction.  nr: how many a list has. */
static int unpack_data(const uint8_t *iu, size_t len, size_t *off, uint8_t format, uint8_t nr,
	uint16_t immediate_off, struct srp_data *ret)
{
	struct srp_data data = {.format = format};
	struct srp_buffer direct;
	struct wire_table wire;
	const uint8_t *at;
	uint32_t word;

	switch (format) {
	case SRP_NO_DATA:
		break;
	case SRP_DIRECT:
		data.list = take(iu, len, off, SRP_BUFFER_BYTES);
		if (!data.list)
			return -EPROTO;
		srp_unpack_buffer(data.list, &direct);
		data.len = direct.len;
		data.nr_list = 1;
		break;
	case SRP_INDIRECT:
		at = take(iu, len, off, sizeof(wire));
		data.list = at ? take(iu, len, off, (size_t)nr * SRP_BUFFER_BYTES) : NULL;
		if (!data.list)
			return -EPROTO;
		memcpy(&wire, at, sizeof(wire));
		data.len = be32toh(wire.len);
		data.table = buffer_from_wire(&wire.table);
		data.nr_table = data.table.len / SRP_BUFFER_BYTES;
		data.nr_list = nr;
		if (data.table.len % SRP_BUFFER_BYTES != 0 || nr > data.nr_table)
			return -EPROTO;
		break;
	case SRP_IMMEDIATE:
		if (immediate_off == 0)
			return -ENOTSUP;
		at = take(iu, len, off, SRP_IMMEDIATE_BYTES);
		if (!at || immediate_off < *off || immediate_off > len)
			return -EPROTO;
		memcpy(&word, at, sizeof(word));
		data.len = be32toh(word);
		if (data.len > len - immediate_off)
			return -EPROTO;
		data.immediate = iu + immediate_off;
		break;
	default:
		return -ENOTSUP;
	}
	*ret = data;
	return 0;
}

static int unpack_cmd(const uint8_t *iu, size_t len, uint16_t immediate_off, struct srp_cmd *ret)
{
	struct wire_cmd wire;
	size_t off = sizeof(wire);

	if (len < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, iu, sizeof(wire));
	size_t add = wire.add_cdb & ~(size_t)3;
	struct srp_cmd cmd = {
		.tag = be64toh(wire.tag),
		.lun = be64toh(wire.lun),
		.attribute = wire.attribute & ATTRIBUTE,
		.notify_good = wire.notify & NOTIFY_GOOD,
		.notify_bad = wire.notify & NOTIFY_BAD,
		.cdb = iu + offsetof(struct wire_cmd, cdb),
		.cdb_bytes = SRP_CDB_BYTES + add,
	};
	if (!take(iu, len, &off, add))
		return -EPROTO;
	int r = unpack_data(iu, len, &off, wire.formats >> 4, wire.nr_out, immediate_off, &cmd.out);
	if (r == 0)
		r = unpack_data(iu, len, &off, wire.formats & 0xf, wire.nr_in, 0, &cmd.in);
	/* Immediate data does not overlap the other direction's descriptors. */
	if (r == 0 && cmd.out.immediate && immediate_off < off)
		r = -EPROTO;
	if (r == 0)
		*ret = cmd;
	return r;
}

static int unpack_task(const uint8_t *iu, size_t len, struct srp_task *ret)
{
	struct wire_task wire;

	if (len < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, iu, sizeof(wire));
	*ret = (struct srp_task){
		.tag = be64toh(wire.tag),
		.lun = be64toh(wire.lun),
		.function = wire.function,
		.task_tag = be64toh(wire.task_tag),
		.notify_good = wire.notify & NOTIFY_GOOD,
		.notify_bad = wire.notify & NOTIFY_BAD,
	};
	return 0;
}

static int unpack_short(const uint8_t *iu, size_t len, struct srp_short *ret)
{
	struct wire_aer wire = {0};

	if (len < sizeof(wire.head))
		return -EPROTO;
	memcpy(&wire.head, iu, sizeof(wire.head));
	struct srp_short other = {.tag = be64toh(wire.head.tag)};
	switch (wire.head.type) {
	case SRP_T_LOGOUT:
		other.reason = be32toh(wire.head.word);
		break;
	case SRP_CRED_REQ:
	case SRP_AER_REQ:
		other.delta = (int32_t)be32toh(wire.head.word);
		break;
	default:
		*ret = other;
		return 0;
	}
	other.solicited = wire.head.notify & NOTIFY;
	if (wire.head.type == SRP_AER_REQ) {
		if (len < sizeof(wire))
			return -EPROTO;
		memcpy(&wire, iu, sizeof(wire));
		other.lun = be64toh(wire.lun);
		other.sense_bytes = be32toh(wire.sense_bytes);
		other.sense = iu + sizeof(wire);
		if (other.sense_bytes > len - sizeof(wire))
			return -EPROTO;
	}
	*ret = other;
	return 0;
}

/* Negative if bytes were missing.  Both bits: it cannot be told which. */
static int64_t residual(uint8_t flags, uint8_t over, uint8_t under, uint32_t n)
{
	return flags & under ? n : flags & over ? -(int64_t)n : 0;
}

static int unpack_rsp(const uint8_t *iu, size_t len, struct srp_rsp *ret)
{
	struct wire_rsp wire;
	size_t off = sizeof(wire);

	if (len < sizeof(wire))
		return -EPROTO;
	memcpy(&wire, iu, sizeof(wire));
	struct srp_rsp rsp = {
		.tag = be64toh(wire.tag),
		.delta = (int32_t)be32toh(wire.delta),
		.solicited = wire.notify & NOTIFY,
		.status = wire.status,
		.out_residual = residual(wire.flags, RSP_OUT_OVER, RSP_OUT_UNDER,
			be32toh(wire.out_residual)),
		.in_residual = residual(wire.flags, RSP_IN_OVER, RSP_IN_UNDER,
			be32toh(wire.in_residual)),
	};
	if (wire.flags & RSP_DATA) {
		const uint8_t *data = take(iu, len, &off, be32toh(wire.data_bytes));

		if (!data || be32toh(wire.data_bytes) < SRP_RSP_DATA_BYTES)
			return -EPROTO;
		rsp.has_code = true;
		rsp.code = data[3];
	}
	if (wire.flags & RSP_SENSE) {
		rsp.sense_bytes = be32toh(wire.sense_bytes);
		rsp.sense = take(iu, len, &off, rsp.sense_bytes);
		if (!rsp.sense)
			return -EPROTO;
	}
	*ret = rsp;
	return 0;
}

int srp_unpack_from_initiator(const uint8_t *iu, size_t len, uint16_t immediate_off,
	struct srp_iu *ret)
{
	if (len == 0)
		return -EPROTO;
	ret->type = iu[0];
	switch (iu[0]) {
	case SRP_CMD:
		return unpack_cmd(iu, len, immediate_off, &ret->cmd);
	case SRP_TSK_MGMT:
		return unpack_task(iu, len, &ret->task);
	case SRP_I_LOGOUT:
	case SRP_CRED_RSP:
	case SRP_AER_RSP:
		return unpack_short(iu, len, &ret->other);
	default:
		return -EPROTO;
	}
}

int srp_unpack_from_target(const uint8_t *iu, size_t len, struct srp_iu *ret)
{
	if (len == 0)
		return -EPROTO;
	ret->type = iu[0];
	switch (iu[0]) {
	case SRP_RSP:
		return unpack_rsp(iu, len, &ret->rsp);
	case SRP_T_LOGOUT:
	case SRP_CRED_REQ:
	case SRP_AER_REQ:
		return unpack_short(iu, len, &ret->other);
	default:
		return -EPROTO;
	}
}

/* Puts what describes one direction to *off; false: it does not fit. */
static bool pack_data(const struct srp_data *data, uint8_t *ret, size_t max, size_t *off)
{
	size_t list = (size_t)data->nr_list * SRP_BUFFER_BYTES;
	struct wire_table wire;
	uint32_t word;

	switch (data->format) {
	case SRP_NO_DATA:
		return true;
	case SRP_DIRECT:
		assert(data->nr_list == 1);
		break;
	case SRP_INDIRECT:
		assert(data->nr_list <= UINT8_MAX);
		if (max - *off < sizeof(wire))
			return false;
		wire.table = buffer_to_wire(&data->table);
		wire.len = htobe32(data->len);
		memcpy(ret + *off, &wire, sizeof(wire));
		*off += sizeof(wire);
		break;
	default:
		assert(data->format == SRP_IMMEDIATE);
		if (max - *off < sizeof(word))
			return false;
		word = htobe32(data->len);
		memcpy(ret + *off, &word, sizeof(word));
		*off += sizeof(word);
		return true;
	}
	if (max - *off < list)
		return false;
	memcpy(ret + *off, data->list, list);
	*off += list;
	return true;
}

int srp_pack_cmd(const struct srp_cmd *cmd, uint8_t *ret, size_t max)
{
	size_t add = cmd->cdb_bytes > SRP_CDB_BYTES ? cmd->cdb_bytes - SRP_CDB_BYTES : 0;
	size_t off = sizeof(struct wire_cmd);
	struct wire_cmd wire = {
		.type = SRP_CMD,
		.notify = (cmd->notify_good ? NOTIFY_GOOD : 0) |
			(cmd->notify_bad ? NOTIFY_BAD : 0),
		.formats = (uint8_t)(cmd->out.format << 4 | cmd->in.format),
		.tag = htobe64(cmd->tag),
		.lun = htobe64(cmd->lun),
		.attribute = cmd->attribute & ATTRIBUTE,
		.add_cdb = (uint8_t)add,
	};

	assert(add % 4 == 0 && add <= SRP_ADD_CDB_MAX);
	if (off + add > max)
		return -EMSGSIZE;
	/* A direct descriptor is no list. */
	wire.nr_out = cmd->out.format == SRP_INDIRECT ? (uint8_t)cmd->out.nr_list : 0;
	wire.nr_in = cmd->in.format == SRP_INDIRECT ? (uint8_t)cmd->in.nr_list : 0;
	memcpy(wire.cdb, cmd->cdb, cmd->cdb_bytes - add);
	memcpy(ret, &wire, sizeof(wire));
	memcpy(ret + off, cmd->cdb + cmd->cdb_bytes - add, add);
	off += add;
	if (!pack_data(&cmd->out, ret, max, &off) || !pack_data(&cmd->in, ret, max, &off))
		return -EMSGSIZE;
	return (int)off;
}

/* The flag of a residual, and its number. */
static uint8_t residual_flag(int64_t n, uint8_t over, uint8_t under, uint32_t *ret)
{
	int64_t most = n < 0 ? -n : n;

	*ret = htobe32(most > UINT32_MAX ? UINT32_MAX : (uint32_t)most);
	return n > 0 ? under : n < 0 ? over : 0;
}

size_t srp_pack_rsp(const struct srp_rsp *rsp, uint8_t *ret)
{
	uint32_t data_bytes = rsp->has_code ? SRP_RSP_DATA_BYTES : 0;
	uint8_t *at = ret + sizeof(struct wire_rsp);
	uint32_t out, in;
	struct wire_rsp wire = {
		.type = SRP_RSP,
		.notify = rsp->solicited ? NOTIFY : 0,
		.delta = htobe32((uint32_t)rsp->delta),
		.tag = htobe64(rsp->tag),
		.status = rsp->status,
		.sense_bytes = htobe32(rsp->sense_bytes),
		.data_bytes = htobe32(data_bytes),
	};

	wire.flags = (rsp->has_code ? RSP_DATA : 0) | (rsp->sense_bytes ? RSP_SENSE : 0) |
		residual_flag(rsp->out_residual, RSP_OUT_OVER, RSP_OUT_UNDER, &out) |
		residual_flag(rsp->in_residual, RSP_IN_OVER, RSP_IN_UNDER, &in);
	wire.out_residual = out;
	wire.in_residual = in;
	memcpy(ret, &wire, sizeof(wire));
	if (rsp->has_code) {
		memcpy(at, (uint8_t[SRP_RSP_DATA_BYTES]){0, 0, 0, rsp->code}, data_bytes);
		at += data_bytes;
	}
	if (rsp->sense_bytes)
		memcpy(at, rsp->sense, rsp->sense_bytes);
	return sizeof(wire) + data_bytes + rsp->sense_bytes;
}

size_t srp_pack_task(const struct srp_task *task, uint8_t ret[SRP_TSK_MGMT_BYTES])
{
	struct wire_task wire = {
		.type = SRP_TSK_MGMT,
		.notify = (task->notify_good ? NOTIFY_GOOD : 0) |
			(task->notify_bad ? NOTIFY_BAD : 0),
		.tag = htobe64(task->tag),
		.lun = htobe64(task->lun),
		.function = task->function,
		.task_tag = htobe64(task->task_tag),
	};

	memcpy(ret, &wire, sizeof(wire));
	return sizeof(wire);
}

size_t srp_pack_short(uint8_t type, const struct srp_short *other, uint8_t *ret)
{
	struct wire_aer wire = {.head = {.type = type, .tag = htobe64(other->tag)}};

	if (type == SRP_T_LOGOUT)
		wire.head.word = htobe32(other->reason);
	else if (type == SRP_CRED_REQ || type == SRP_AER_REQ)
		wire.head.word = htobe32((uint32_t)other->delta);
	if (type == SRP_T_LOGOUT || type == SRP_CRED_REQ || type == SRP_AER_REQ)
		wire.head.notify = other->solicited ? NOTIFY : 0;
	if (type != SRP_AER_REQ) {
		memcpy(ret, &wire.head, sizeof(wire.head));
		return sizeof(wire.head);
	}
	wire.lun = htobe64(other->lun);
	wire.sense_bytes = htobe32(other->sense_bytes);
	memcpy(ret, &wire, sizeof(wire));
	if (other->sense_bytes)
		memcpy(ret + sizeof(wire), other->sense, other->sense_bytes);
	return sizeof(wire) + other->sense_bytes;
}
