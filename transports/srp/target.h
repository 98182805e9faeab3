/* SPDX-License-Identifier: MIT */
/*
 * The names of a region as a target of SRP.  ioc_guid is the region's, for ever.  id_ext is of the
 * contents' epoch and of the region's tenure (fabric/donor/donor.h): an initiator that logs in
 * again by itself is refused when the contents are others, or when somebody else could write.
 * Pure functions, any thread.
 */
#ifndef WEFT_TRANSPORTS_SRP_TARGET_H
#define WEFT_TRANSPORTS_SRP_TARGET_H

#include <stddef.h>
#include <stdint.h>

/*
 * Of Linux's initiator: a disk is back a second after its donor; without one there are errors after
 * 15 s.  The disk itself stays for ten minutes.
 */
#define SRP_INITIATOR_SETTINGS "reconnect_delay=1 fast_io_fail_tmo=15 dev_loss_tmo=600"

uint64_t srp_target_guid(const char *region);
uint64_t srp_target_ext(uint64_t epoch, uint64_t tenure);

/* What goes into add_target: "id_ext=…,ioc_guid=…,dest=10.0.0.1:5555". */
enum { SRP_LINE_MAX = 160 };
void srp_target_line(const char *region, uint64_t epoch, uint64_t tenure, const char *dest,
	char *buf, size_t len);
/* The whole command, of a driver's region_line(). */
void srp_target_command(const char *region, uint64_t epoch, uint64_t tenure, const char *dest,
	char *buf, size_t len);

#endif
