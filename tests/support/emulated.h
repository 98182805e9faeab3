/* SPDX-License-Identifier: MIT */
/*
 * Under qemu-user (tests/cross/toolchain.cmake sets WEFT_EMULATED), where a few things cannot be
 * tested that work on the machine itself.
 */
#ifndef WEFT_TESTS_SUPPORT_EMULATED_H
#define WEFT_TESTS_SUPPORT_EMULATED_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* On any architecture, or (not NULL) on this one. */
static inline bool is_emulated(const char *arch)
{
	const char *emulated = getenv("WEFT_EMULATED");

	return emulated && (!arch || strcmp(emulated, arch) == 0);
}

/*
 * Whether a test may look at how much memory its process has, or had: under an emulator most of it
 * is that one's.
 */
#define MEMORY_IS_OURS() (!is_emulated(NULL) || (print_message("SKIP: qemu-user's own memory counts as a program's\n"), false))

/* Ends a cmocka test as skipped, with the reason: what it is that qemu-user does. */
#define SKIP_IF_EMULATED(arch, reason) \
	do { \
		if (is_emulated(arch)) { \
			print_message("SKIP: qemu-user " reason "\n"); \
			skip(); \
		} \
	} while (0)

#endif
