/* SPDX-License-Identifier: MIT */
/* The checks of weft doctor for QUIC.  See fabric/machine/finding.h. */
#ifndef WEFT_TRANSPORTS_QUIC_DOCTOR_H
#define WEFT_TRANSPORTS_QUIC_DOCTOR_H

#include "fabric/machine/finding.h"

/* Up to the one without a name. */
extern const struct finding_check quic_checks[];

#endif
