/* SPDX-License-Identifier: MIT */
/*
 * What a unit of an SRP target is and can do: asked for by one command after the other at each
 * login.  No input or output of its own; one thread.
 */
#ifndef WEFT_TRANSPORTS_SRP_BORROWER_UNIT_H
#define WEFT_TRANSPORTS_SRP_BORROWER_UNIT_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/scsi/cdb.h"
#include "fabric/scsi/data.h"
#include "transports/srp/borrower/judge.h"

enum {
	SRP_UNIT_DATA_BYTES = 4096, /* of any answer, and of a block */
	SRP_UNIT_NAME_MAX = 100,
};

struct srp_unit {
	uint64_t size_bytes;
	uint32_t block_bytes, physical_bytes;
	bool read_only;
	bool write_cache; /* FLUSH has something to do; also if the unit does not say */
	bool fua;
	bool can_unmap;      /* UNMAP */
	bool can_same;       /* WRITE SAME(16) */
	bool same_can_unmap; /* … with its UNMAP bit */
	bool reads_zeros;    /* blocks that are not mapped do */
	/* blocks of one command, > 0 */
	uint32_t max_transfer, max_unmap, max_same;
	uint64_t identity;   /* a hash of all that it is called */
	char name[SRP_UNIT_NAME_MAX]; /* for people: "LIO-ORG FILEIO, serial 12" */
};

/* The steps, in order. */
enum srp_exam_step {
	SRP_EXAM_READY,        /* TEST UNIT READY: takes what the unit has to tell a newcomer */
	SRP_EXAM_INQUIRY,
	SRP_EXAM_CAPACITY,
	SRP_EXAM_MODE,         /* the caching page */
	SRP_EXAM_PAGES,        /* which vital product data there is */
	SRP_EXAM_SERIAL,
	SRP_EXAM_DESIGNATORS,
	SRP_EXAM_LIMITS,
	SRP_EXAM_PROVISIONING,
	SRP_EXAM_OPCODE,       /* whether WRITE SAME(16) is supported */
	SRP_EXAM_RESERVATION,
	SRP_EXAM_READ,         /* the first block */
	SRP_EXAM_END,
};

struct srp_exam {
	bool wants_write; /* a reservation of others is in the way */
	enum srp_exam_step step;
	struct srp_unit unit;
	/* Private. */
	struct scsi_inquiry inquiry;
	char serial[SCSI_SERIAL_MAX + 1];
	bool has_serial, has_designators, has_limits, has_provisioning;
	uint64_t names; /* the sum of the designators' hashes */
};

void srp_exam_begin(struct srp_exam *exam, bool wants_write);
/*
 * The next command, and how many bytes its answer may have (<= SRP_UNIT_DATA_BYTES; 0: there is
 * none); false: SRP_EXAM_END was reached.
 */
bool srp_exam_next(struct srp_exam *exam, struct scsi_cdb *ret, uint32_t *ret_bytes);
/*
 * The command was done, with judgement->verdict SRP_DONE; len bytes of data came.  0: go on; -errno
 * with err: this unit cannot be used.
 */
int srp_exam_answer(struct srp_exam *exam, const struct srp_judgement *judgement,
	const uint8_t *data, size_t len, struct weft_error *err);

#endif
