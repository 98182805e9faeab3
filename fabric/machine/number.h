/* SPDX-License-Identifier: MIT */
/* A number by which this machine is known elsewhere.  Any thread. */
#ifndef WEFT_FABRIC_MACHINE_NUMBER_H
#define WEFT_FABRIC_MACHINE_NUMBER_H

#include <stdint.h>

/*
 * The same for the same purpose, on this machine, for ever; another for another purpose, and on
 * another machine.  Nobody learns the machine's id from it.  0: there is no such number, since the
 * machine has no id (machine-id(5)), or since this is a container: several may have the id, and all
 * else, of their machine.
 */
uint64_t weft_machine_number(const char *purpose);

#endif
