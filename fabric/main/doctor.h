/* SPDX-License-Identifier: MIT */
/* Private to weft doctor: what its files share. */
#ifndef WEFT_FABRIC_MAIN_DOCTOR_H
#define WEFT_FABRIC_MAIN_DOCTOR_H

#include <stdbool.h>

/* doctor-topology.c: the exit status. */
int doctor_topology(bool as_json);

#endif
