/* SPDX-License-Identifier: MIT */
/* How much this machine is short of memory, as its kernel says (PSI).  Reads a file; any thread. */
#ifndef WEFT_FABRIC_MACHINE_PRESSURE_H
#define WEFT_FABRIC_MACHINE_PRESSURE_H

/*
 * Of the last ten seconds, the part in which some process waited for memory, in percent; 0 where
 * the kernel does not say.  root: as weft_available().
 */
double weft_memory_stalled(const char *root);

#endif
