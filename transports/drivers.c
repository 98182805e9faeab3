/*
 * The table of transports: one row each, the ones to prefer first.  The only file that knows which there are.
 * fabric/driver.h says what a row brings, and how to add one.
 */
#include "fabric/driver.h"

#include "transports/nbd/driver.h"
#include "transports/verbs/driver.h"

const struct tp_driver *const tp_drivers[] = {
	&tp_verbs_driver,
	&tp_nbd_driver,
	NULL,
};
