/* SPDX-License-Identifier: MIT */
/*
 * The table of transports: one row each, the ones to prefer first.  Only this file knows which
 * transports exist. fabric/driver.h says what a row brings, and how to add one.
 */
#include "fabric/driver.h"

#ifdef WEFT_TEST_DRIVERS
#include "transports/mem/driver.h"
#endif
#include "transports/nbd/driver.h"
#include "transports/quic/driver.h"
#include "transports/srp/driver.h"
#include "transports/verbs/driver.h"

const struct tp_driver *const tp_drivers[] = {
	&tp_verbs_driver,
	&tp_quic_driver,
	&tp_nbd_driver,
	&tp_srp_driver,
#ifdef WEFT_TEST_DRIVERS
	&tp_mem_driver,
#endif
	NULL,
};
