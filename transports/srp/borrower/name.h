/* SPDX-License-Identifier: MIT */
/*
 * What a URI calls a unit at an SRP target: srp://HOST:PORT/ID_EXT[.IOC_GUID][/LUN], as an
 * add_target line of Linux's initiator has it; and what its target calls us.  Pure functions, any
 * thread.
 */
#ifndef WEFT_TRANSPORTS_SRP_BORROWER_NAME_H
#define WEFT_TRANSPORTS_SRP_BORROWER_NAME_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/transport.h"

struct srp_name {
	uint64_t target_ext, target_guid;
	unsigned number; /* of the unit */
	uint64_t lun;    /* the same in eight bytes, as SAM 4.7 has it */
};

/*
 * text: what stands behind the host.  Numbers are hexadecimal, with or without "0x", and with or
 * without ':' between their digits; without IOC_GUID it is the same as ID_EXT (as with LIO); LUN is
 * decimal, 0 if it is not there.  -EINVAL.
 */
int srp_name_parse(const char *text, struct srp_name *ret, struct weft_error *err);

/*
 * What we call ourselves: the extension of the initiator's identifier, which tells attachments of a
 * machine apart, and stays over a take-over.  A target may keep what an initiator is to it, as
 * weft's own keeps who has written: so it is the borrower's number where there is one, and only
 * otherwise this attachment's own, or without an id `random`.
 */
uint64_t srp_name_initiator(const struct tp_target *target, uint64_t random);

#endif
