/* SPDX-License-Identifier: MIT */
/*
 * The SCSI RDMA Protocol (SRP, T10 1415-D revision 16a, and what Linux added: immediate data and
 * the login over rdma_cm).  All of its byte order is in proto.c.
 *
 *     initiator                                    target
 *     REQ (private data: login)          ->
 *                                        <-        REP (login response), or REJ (login reject)
 *     CMD                                ->
 *                                        <-        RDMA READ, RDMA WRITE of the command's buffers
 *                                        <-        RSP
 *     TSK_MGMT                           ->
 *                                        <-        RSP
 *
 * What is sent on a channel is an information unit (IU).  Each that an initiator sends takes one of
 * its credits; responses give them back (delta).  The initiator receives nothing before its channel
 * is established.
 *
 * Unpacking trusts nothing: what it lets through has every length and count inside the IU.  Where
 * the buffers are is the initiator's business, and not looked at.  Packing writes what fits the
 * sizes beside the functions; wrong lengths are our own mistakes (asserted).
 *
 * Pure functions; any thread.
 */
#ifndef WEFT_TRANSPORTS_SRP_PROTO_H
#define WEFT_TRANSPORTS_SRP_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first byte of each IU. */
enum {
	SRP_LOGIN_REQ = 0x00,
	SRP_TSK_MGMT = 0x01,
	SRP_CMD = 0x02,
	SRP_I_LOGOUT = 0x03,
	SRP_CRED_RSP = 0x41,
	SRP_AER_RSP = 0x42,
	SRP_T_LOGOUT = 0x80,
	SRP_CRED_REQ = 0x81,
	SRP_AER_REQ = 0x82,
	SRP_LOGIN_RSP = 0xc0,
	SRP_RSP = 0xc1,
	SRP_LOGIN_REJ = 0xc2,
};

/* Bytes of each IU, without what may follow. */
enum {
	SRP_LOGIN_BYTES = 56, /* in rdma_cm's private data */
	SRP_LOGIN_RSP_BYTES = 52,
	SRP_LOGIN_REJ_BYTES = 32,
	SRP_CMD_BYTES = 48,      /* additional CDB, descriptors and immediate data follow */
	SRP_RSP_BYTES = 36,      /* response data and sense data follow */
	SRP_TSK_MGMT_BYTES = 48,
	SRP_CRED_REQ_BYTES = 16,
	SRP_AER_REQ_BYTES = 36,  /* sense data follows */
	SRP_SHORT_BYTES = 16,    /* I_LOGOUT, T_LOGOUT, CRED_RSP, AER_RSP */

	SRP_BUFFER_BYTES = 16,   /* a direct descriptor */
	SRP_TABLE_BYTES = 20,    /* an indirect one, without its list */
	SRP_IMMEDIATE_BYTES = 4, /* the descriptor of immediate data */

	SRP_PORT_BYTES = 16,     /* a port's identifier */
	SRP_CDB_BYTES = 16,
	SRP_ADD_CDB_MAX = 63 * 4,
	SRP_RSP_DATA_BYTES = 4,  /* response data, where there is any */
};

/* 6.2: SRP_LOGIN_REQ.  A port's identifier is an extension, and the GUID of its host. */
enum {
	SRP_FORMAT_DIRECT = 1 << 1,
	SRP_FORMAT_INDIRECT = 1 << 2,
};
enum srp_channels {
	SRP_CHANNELS_SINGLE = 0, /* those that the nexus has already end */
	SRP_CHANNELS_MULTI = 1,  /* this one comes beside them */
};
struct srp_login {
	uint64_t tag;
	uint32_t it_iu_bytes; /* the longest IU that the initiator wants to send */
	uint16_t formats;     /* SRP_FORMAT_…, of its descriptors */
	uint8_t channels;     /* enum srp_channels, or what is reserved */
	bool immediate;       /* it would send immediate data … */
	uint16_t immediate_off; /* … there in its IUs */
	uint8_t initiator[SRP_PORT_BYTES]; /* says itself who it is */
	/* id_ext and ioc_guid of Linux's add_target */
	uint64_t target_ext, target_guid;
};

/* 6.3: SRP_LOGIN_RSP */
enum srp_channels_result {
	SRP_NO_CHANNELS = 0, /* the nexus had none before */
	SRP_CHANNELS_ENDED = 1,
	SRP_CHANNELS_KEPT = 2,
};
struct srp_login_rsp {
	uint64_t tag;
	uint32_t delta; /* credits */
	uint32_t max_it_iu_bytes, max_ti_iu_bytes;
	uint16_t formats;
	uint8_t result; /* enum srp_channels_result */
	bool immediate; /* immediate data may be sent */
};

/* 6.4: SRP_LOGIN_REJ, table 15 */
enum srp_reject {
	SRP_REJ_CANNOT = 0x10000,
	SRP_REJ_RESOURCES = 0x10001,
	SRP_REJ_IU_TOO_LONG = 0x10002,
	SRP_REJ_TARGET = 0x10003, /* there is no such target port */
	SRP_REJ_FORMAT = 0x10004,
	SRP_REJ_NO_CHANNELS = 0x10005,
	SRP_REJ_TOO_MANY = 0x10006,
};
struct srp_login_rej {
	uint64_t tag;
	uint32_t reason; /* enum srp_reject */
	uint16_t formats;
};

/* 5.6.2: where a part of a command's data is, at the initiator. */
struct srp_buffer {
	uint64_t addr;
	uint32_t key, len;
};
enum srp_format {
	SRP_NO_DATA = 0,
	SRP_DIRECT = 1,
	SRP_INDIRECT = 2,
	SRP_IMMEDIATE = 3,
};
/*
 * The data of a command in one direction.  list points into the IU: descriptors, of which
 * srp_unpack_buffer() takes one out.
 */
struct srp_data {
	uint8_t format;        /* enum srp_format */
	uint32_t len;          /* bytes in all, as the initiator says */
	/* DIRECT: 1; INDIRECT: in list, up to nr_table */
	unsigned nr_list;
	const uint8_t *list;
	/* INDIRECT: the whole table at the initiator, of which list is the beginning */
	struct srp_buffer table;
	uint32_t nr_table;
	const uint8_t *immediate; /* len bytes, in the IU */
};

/* 6.8: SRP_CMD */
enum {
	SRP_SIMPLE = 0,
	SRP_HEAD_OF_QUEUE = 1,
	SRP_ORDERED = 2,
	SRP_ACA = 4,
};
struct srp_cmd {
	uint64_t tag, lun;
	uint8_t attribute; /* SRP_SIMPLE, … */
	bool notify_good, notify_bad; /* SCSOLNT, UCSOLNT: the response is to be solicited */
	const uint8_t *cdb;  /* cdb_bytes of it, not aligned */
	size_t cdb_bytes;    /* SRP_CDB_BYTES, or SRP_CDB_BYTES + 4 n */
	struct srp_data out, in;
};

/* 6.9: SRP_RSP */
enum { SRP_RSP_GOOD = 0, SRP_RSP_INVALID = 1, SRP_RSP_NOT_SUPPORTED = 4, SRP_RSP_FAILED = 5 };
struct srp_rsp {
	uint64_t tag;
	int32_t delta; /* credits */
	bool solicited;
	uint8_t status; /* SCSI status */
	bool has_code;  /* of task management; then there is no status */
	uint8_t code;   /* SRP_RSP_GOOD, … */
	/* bytes of a buffer that were not used, or, if negative, that were missing */
	int64_t out_residual, in_residual;
	uint32_t sense_bytes;
	const uint8_t *sense;
};

/* 6.7: SRP_TSK_MGMT */
enum {
	SRP_ABORT_TASK = 0x01,
	SRP_ABORT_TASK_SET = 0x02,
	SRP_CLEAR_TASK_SET = 0x04,
	SRP_LUN_RESET = 0x08,
	SRP_CLEAR_ACA = 0x40,
};
struct srp_task {
	uint64_t tag, lun;
	uint8_t function; /* SRP_ABORT_TASK, … */
	uint64_t task_tag; /* of SRP_ABORT_TASK */
	bool notify_good, notify_bad;
};

/* 6.10, 6.12, 6.5, 6.6: what is short */
struct srp_short {
	uint64_t tag;
	int32_t delta;   /* CRED_REQ, AER_REQ */
	uint32_t reason; /* T_LOGOUT */
	bool solicited;  /* of a target's */
	uint64_t lun;    /* AER_REQ */
	uint32_t sense_bytes;
	const uint8_t *sense;
};

/* An IU as it comes over a channel; pointers lead into the IU. */
struct srp_iu {
	uint8_t type; /* SRP_CMD, … */
	union {
		struct srp_cmd cmd;
		struct srp_task task;
		struct srp_rsp rsp;
		struct srp_short other;
	};
};

/* Login.  A length that is not the IU's, or another type of IU: -EPROTO. */
void srp_pack_login(const struct srp_login *login, uint8_t ret[SRP_LOGIN_BYTES]);
int srp_unpack_login(const void *data, size_t len, struct srp_login *ret);
void srp_pack_login_rsp(const struct srp_login_rsp *rsp, uint8_t ret[SRP_LOGIN_RSP_BYTES]);
/* Bytes behind the IU are rdma_cm's, here and below. */
int srp_unpack_login_rsp(const void *data, size_t len, struct srp_login_rsp *ret);
void srp_pack_login_rej(const struct srp_login_rej *rej, uint8_t ret[SRP_LOGIN_REJ_BYTES]);
int srp_unpack_login_rej(const void *data, size_t len, struct srp_login_rej *ret);

/*
 * What an initiator sends.  immediate_off: as the login says; 0: there is no immediate data.
 * -EPROTO: another type, or not all of it is there; -ENOTSUP: descriptors of a format that there is
 * not.  Either is an initiator that cannot go on: nothing more is known of its credits.
 */
int srp_unpack_from_initiator(const uint8_t *iu, size_t len, uint16_t immediate_off,
	struct srp_iu *ret);
/* What a target sends. -EPROTO. */
int srp_unpack_from_target(const uint8_t *iu, size_t len, struct srp_iu *ret);

/*
 * A command without its immediate data, which the sender puts to immediate_off, behind what this
 * returns.  cmd->out and cmd->in: of DIRECT and INDIRECT nr_list packed descriptors at list are
 * copied; INDIRECT has table, and nr_table.  The length; -EMSGSIZE: more than max.
 */
int srp_pack_cmd(const struct srp_cmd *cmd, uint8_t *ret, size_t max);
/* ret: SRP_RSP_BYTES + SRP_RSP_DATA_BYTES + rsp->sense_bytes.  The length. */
size_t srp_pack_rsp(const struct srp_rsp *rsp, uint8_t *ret);
size_t srp_pack_task(const struct srp_task *task, uint8_t ret[SRP_TSK_MGMT_BYTES]);
/*
 * I_LOGOUT, T_LOGOUT, CRED_REQ, CRED_RSP, AER_RSP, and AER_REQ (SRP_AER_REQ_BYTES +
 * sense_bytes).  The length.
 */
size_t srp_pack_short(uint8_t type, const struct srp_short *other, uint8_t *ret);

/* Descriptors, each SRP_BUFFER_BYTES, in a list or a table. */
void srp_pack_buffer(const struct srp_buffer *buffer, uint8_t ret[SRP_BUFFER_BYTES]);
void srp_unpack_buffer(const uint8_t data[SRP_BUFFER_BYTES], struct srp_buffer *ret);

/* A port's identifier of its two halves, as Linux's add_target names them. */
void srp_pack_port(uint64_t ext, uint64_t guid, uint8_t ret[SRP_PORT_BYTES]);
void srp_unpack_port(const uint8_t port[SRP_PORT_BYTES], uint64_t *ret_ext, uint64_t *ret_guid);

#endif
