/* SPDX-License-Identifier: MIT */
/*
 * The tables of weft-protocol(7), out of its source; and files as text.  Each fails the test where
 * something is not there, or is not as it should be.
 */
#ifndef WEFT_TESTS_MANUAL_H
#define WEFT_TESTS_MANUAL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { MAX_ROWS = 64, MAX_CELLS = 6 };

/* A table's name is the one in capitals among its heads. */
struct manual_table {
	const char *name;
	unsigned nr_rows, nr_cells, name_column;
	char *cell[MAX_ROWS][MAX_CELLS];
};

extern unsigned manual_nr_tables;

/* Set-up of a group. */
int manual_read(void **state);
/* All of the file, for the caller to free. */
char *manual_slurp(const char *path);

const struct manual_table *manual_table(const char *name);
/* The row of this name, or -1. */
int manual_row(const struct manual_table *t, const char *name);
uint64_t manual_number(const struct manual_table *t, unsigned row, unsigned column);

#endif
