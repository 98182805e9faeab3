/* SPDX-License-Identifier: MIT */
/*
 * A logical unit over one region, as a transport sees it.  Nothing here knows a transport, a region
 * or a donor: what a command does to the medium is told to the transport, which moves the bytes.
 *
 * A command has up to three steps:
 *
 *     scsi_command_begin()    the CDB, what buffers the initiator has     -> cmd->kind
 *     scsi_command_fetched()  of SCSI_DO_FETCH alone: the parameter list  -> cmd->kind
 *     scsi_command_end()      what became of it           -> status, sense data, residuals
 *
 * scsi_command_begin() and scsi_command_fetched() are the trust boundary: behind them offsets,
 * lengths and lists are facts (inside the unit, inside the initiator's buffers, allowed to this
 * initiator).
 *
 * A unit answers for LUN 0, and for the other LUNs that they are not there.
 *
 * A command is under way before scsi_command_begin() is called, as far as the transport counts (a
 * store with memory_order_seq_cst): what comes then either sees the other's reservation, or is seen
 * by the transport when it ends the commands of that nexus (SCSI_DO_ABORT).
 *
 * Task attributes are the transport's.  SIMPLE commands may be carried out in any order, and the
 * control page says so; what is ORDERED waits for those before it.
 *
 * Threads: each function may be called from any thread; one command belongs to one thread at a
 * time.  scsi_command_begin() of a READ or WRITE takes no lock, allocates nothing and writes to
 * nothing that channels share; all else may take the unit's lock for a moment.  Nothing blocks.
 */
#ifndef WEFT_FABRIC_SCSI_TARGET_H
#define WEFT_FABRIC_SCSI_TARGET_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/scsi/cdb.h"
#include "fabric/scsi/sense.h"

enum {
	SCSI_BLOCK_BYTES = 512,
	/* of every parameter list that is taken, and of all data that is answered */
	SCSI_DATA_BYTES = 4096,
	SCSI_MAX_NEXUSES = 64,     /* of a unit; and of registrations with it */
	SCSI_TRANSPORT_ID_BYTES = 24,
	/* of a READ, WRITE or VERIFY; told in VPD page B0h */
	SCSI_MAX_TRANSFER_BYTES = 16 << 20,
	SCSI_MAX_ZERO_BYTES = 256 << 20,    /* of a WRITE SAME */
	SCSI_MAX_EXTENTS = (SCSI_DATA_BYTES - 8) / 16, /* of an UNMAP */
};

/* SPC 7.6.1: protocol identifiers */
enum { SCSI_PROTOCOL_SRP = 0x4 };

/*
 * What a unit is called.  The same donor and region have the same names for ever, whatever the
 * contents; no two have the same but by chance (60 bits).
 */
struct scsi_names {
	uint8_t naa[8];  /* SPC 7.8.5.6.5: NAA locally assigned */
	/* 32 hex digits: the serial number, and the T10 designator behind "WEFT    " */
	char serial[33];
};

/* donor: what tells the donor from others, and stays over restarts. */
void scsi_names(const char *donor, const char *region, struct scsi_names *ret);

struct scsi_unit_config {
	uint64_t size_bytes;     /* of which whole blocks are told; at least one */
	/* told as the physical block, a power of two of at least SCSI_BLOCK_BYTES; 0: 4096 */
	uint32_t physical_bytes;
	bool read_only;
	/*
	 * SYNCHRONIZE CACHE, and FUA, have something to do: what was written is not yet where a
	 * flush brings it (a file that is staged).  Of memory a flush does nothing, so there is no
	 * cache to tell of.
	 */
	bool write_cache;
	struct scsi_names names;
	uint8_t protocol; /* SCSI_PROTOCOL_… */
};

struct scsi_registration {
	uint64_t key; /* 0: none */
	uint8_t transport_id[SCSI_TRANSPORT_ID_BYTES];
};

struct scsi_unit {
	struct scsi_unit_config config;
	_Atomic uint64_t nr_blocks;
	_Atomic bool lost; /* scsi_unit_lose() */
	/* mode pages, as MODE SELECT left them */
	_Atomic bool wce, descriptor_sense;
	/* Private. */
	pthread_mutex_t lock; /* guards what follows, and who joins */
	struct scsi_nexus *nexus[SCSI_MAX_NEXUSES];
	struct scsi_registration registration[SCSI_MAX_NEXUSES];
	uint32_t pr_generation;
	uint8_t pr_type; /* 0: not reserved */
	unsigned pr_holder; /* an index of registration; of the types for all, nothing */
};

/*
 * An initiator port that has logged in, over however many channels.  The transport allocates it and
 * fills in the first part.
 */
struct scsi_nexus {
	/* SPC 7.6.4: TransportID.  A registration is found again by it after a new login. */
	uint8_t transport_id[SCSI_TRANSPORT_ID_BYTES];
	/*
	 * Though the unit is not.  Such an initiator disturbs nobody: it reserves nothing, changes
	 * no mode page, and its resets end its own commands.
	 */
	bool read_only;
	/* Set by scsi_unit_join(). */
	struct scsi_unit *unit;
	unsigned slot; /* < SCSI_MAX_NEXUSES; of this unit, while it is joined */
	/* what keeps a command from going straight on; 0: nothing */
	_Atomic uint32_t gate;
};

/* An SRP initiator's TransportID (SPC 7.6.4.5). */
void scsi_srp_transport_id(const uint8_t initiator_port[16],
	uint8_t ret[SCSI_TRANSPORT_ID_BYTES]);

/* 0; -EINVAL: smaller than a block, or physical_bytes is none. */
int scsi_unit_init(struct scsi_unit *unit, const struct scsi_unit_config *config);
/* No nexus is joined (asserted). */
void scsi_unit_fini(struct scsi_unit *unit);

/*
 * The first command of a nexus is told a unit attention: power on.  -ENOSPC: SCSI_MAX_NEXUSES are
 * joined; -EEXIST: that initiator is.
 */
int scsi_unit_join(struct scsi_unit *unit, struct scsi_nexus *nexus);
/* No command of the nexus is under way.  Its registration stays. */
void scsi_unit_leave(struct scsi_nexus *nexus);

/*
 * Unit attentions to everybody: the size is another; the contents are gone, and from now on each
 * command that touches the medium fails.  For a unit that shrinks the transport sees to commands
 * that are under way.  scsi_unit_resize(): -EINVAL: smaller than a block.
 */
int scsi_unit_resize(struct scsi_unit *unit, uint64_t size_bytes);
void scsi_unit_lose(struct scsi_unit *unit);

/*
 * What was reserved and registered holds no longer, as the region is another's now.  Registrants
 * that are still there are told.
 */
void scsi_unit_forget_reservations(struct scsi_unit *unit);

enum scsi_kind {
	/* The command has ended already: status, sense data and residuals are there. */
	SCSI_DO_END,
	/* data_bytes of cmd->data are for the initiator. */
	SCSI_DO_SEND,
	/* data_bytes of the initiator's are needed; then scsi_command_fetched(). */
	SCSI_DO_FETCH,
	/* From the region's off and len to the initiator's buffer. */
	SCSI_DO_READ,
	/* From the initiator's buffer; if fua, a flush of that range comes before the end. */
	SCSI_DO_WRITE,
	/* Compare with the initiator's buffer; scsi_command_miscompare() if they differ. */
	SCSI_DO_COMPARE,
	/* The range reads as zeros from then on; holes are allowed if may_punch.  fua as above. */
	SCSI_DO_ZERO,
	/* Every block of the range becomes cmd->list.  fua as above. */
	SCSI_DO_SAME,
	/* Advisory, for each of nr_extents: scsi_command_extent().  They may overlap. */
	SCSI_DO_UNMAP,
	/* What was written to the range is made durable; all of it may be. */
	SCSI_DO_FLUSH,
	/* The commands of the nexuses in abort_slots end, but for this one. */
	SCSI_DO_ABORT,
};

struct scsi_request {
	const uint8_t *cdb; /* SCSI_CDB_BYTES can be read */
	size_t cdb_bytes;   /* as long as it came; those behind SCSI_CDB_BYTES are not looked at */
	uint64_t lun;       /* the eight bytes, as a big-endian number */
	uint64_t in_bytes, out_bytes; /* room of the initiator's buffers; 0: there is none */
};

struct scsi_command {
	struct scsi_nexus *nexus;
	enum scsi_kind kind;
	/* What to do. */
	bool fua, may_punch;
	uint64_t off, len;        /* bytes of the medium, len > 0 */
	uint8_t *data;            /* the transport's, SCSI_DATA_BYTES */
	uint32_t data_bytes;      /* <= SCSI_DATA_BYTES */
	const uint8_t *list;      /* what was fetched; SAME: the block, SCSI_BLOCK_BYTES */
	uint32_t nr_extents;      /* <= SCSI_MAX_EXTENTS */
	uint64_t abort_slots;     /* 1 << nexus->slot */
	/* How it ended: after SCSI_DO_END or scsi_command_end(). */
	uint8_t status;           /* SCSI_GOOD, … */
	uint8_t sense_bytes;      /* of sense; > 0 with SCSI_CHECK_CONDITION alone */
	uint8_t key;              /* the same, for counters */
	uint16_t asc;
	/*
	 * Bytes of the initiator's buffers that were not used, or, if negative, that were missing.
	 */
	int64_t in_residual, out_residual;
	/* Private. */
	uint64_t in_bytes, out_bytes;
	bool elsewhere; /* for another LUN */
	struct scsi_cdb cdb;
	/* Last, as it is seldom written. */
	uint8_t sense[SCSI_SENSE_MAX_BYTES];
};

/* data: SCSI_DATA_BYTES that belong to the command until it has ended; READ and WRITE do not touch
 * them. */
void scsi_command_begin(struct scsi_command *cmd, struct scsi_nexus *nexus,
	const struct scsi_request *rq, uint8_t *data);

/*
 * After SCSI_DO_FETCH: list is cmd->data, or wherever the data_bytes came to; nobody changes it
 * before the command has ended.
 */
void scsi_command_fetched(struct scsi_command *cmd, const uint8_t *list);

/*
 * error: 0, or why what was to do was not done: -EIO, -ENOSPC, -EROFS of the medium; -ESTALE,
 * -ESHUTDOWN: the contents are gone, or no longer for us; -ECONNABORTED: the initiator's buffer
 * could not be reached.  Not after SCSI_DO_END.
 */
void scsi_command_end(struct scsi_command *cmd, int error);
/* In place of scsi_command_end(): the first byte that differs, counted from cmd->off. */
void scsi_command_miscompare(struct scsi_command *cmd, uint64_t differs);
/* In place of scsi_command_begin(), for a command that there is no room for: SCSI_TASK_SET_FULL. */
void scsi_command_refuse(struct scsi_command *cmd, struct scsi_nexus *nexus,
	const struct scsi_request *rq, uint8_t status);

/* Of SCSI_DO_UNMAP, i < nr_extents.  A length may be 0. */
void scsi_command_extent(const struct scsi_command *cmd, unsigned i, uint64_t *ret_off,
	uint64_t *ret_len);

/* Task management functions (SAM 7). */
enum scsi_function {
	SCSI_ABORT_TASK,
	SCSI_ABORT_TASK_SET,
	SCSI_CLEAR_TASK_SET,
	SCSI_LOGICAL_UNIT_RESET,
	SCSI_CLEAR_ACA,
};

/*
 * Which nexuses' commands have to end before the answer: *ret_slots, bits of nexus->slot.  (Of
 * SCSI_ABORT_TASK one command of this nexus's.)  -EOPNOTSUPP: the function is not supported, which
 * is the answer; -ENXIO: the LUN is not there.
 */
int scsi_function_begin(struct scsi_nexus *nexus, enum scsi_function function, uint64_t lun,
	uint64_t *ret_slots);
/* They have ended: what others have to be told of it, they will be. */
void scsi_function_end(struct scsi_nexus *nexus, enum scsi_function function);

/* Whether the eight bytes of a LUN name the unit (SAM 4.7: LUN 0, in either addressing method). */
bool scsi_lun_is_unit(uint64_t lun);

#endif
