/* SPDX-License-Identifier: MIT */
/* The checks of weft doctor for stock SRP initiators.  See fabric/machine/finding.h. */
#ifndef WEFT_TRANSPORTS_SRP_DOCTOR_H
#define WEFT_TRANSPORTS_SRP_DOCTOR_H

#include "fabric/machine/finding.h"

/* Up to the one without a name. */
extern const struct finding_check srp_checks[];

#endif
