/* SPDX-License-Identifier: MIT */
#include "tests/support/manual.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TABLES = 64, MAX_TEXT = 1 << 20 };

static struct manual_table tables[MAX_TABLES];
unsigned manual_nr_tables;

char *manual_slurp(const char *path)
{
	FILE *file = fopen(path, "r");
	char *text = calloc(1, MAX_TEXT);

	if (!file || !text)
		fail_msg("cannot read %s", path);
	size_t n = fread(text, 1, MAX_TEXT - 1, file);
	if (n == 0 || n == MAX_TEXT - 1)
		fail_msg("%s is empty, or too long", path);
	fclose(file);
	return text;
}

static unsigned split(char *line, char **cells)
{
	unsigned n = 0;

	for (char *cell; (cell = strsep(&line, "|"));) {
		assert_true(n < MAX_CELLS);
		cells[n++] = cell;
	}
	return n;
}

static bool in_capitals(const char *text)
{
	return isupper(text[0]) && isupper(text[1]);
}

static void begin_table(char *heads)
{
	char *cell[MAX_CELLS];

	assert_true(manual_nr_tables < MAX_TABLES);
	struct manual_table *t = &tables[manual_nr_tables++];
	t->nr_cells = split(heads, cell);
	while (t->name_column < t->nr_cells && !in_capitals(cell[t->name_column]))
		t->name_column++;
	if (t->name_column == t->nr_cells)
		fail_msg("table %u of the manual has no name among its heads", manual_nr_tables);
	t->name = cell[t->name_column];
}

static void add_row(char *line)
{
	struct manual_table *t = &tables[manual_nr_tables - 1];

	assert_true(t->nr_rows < MAX_ROWS);
	if (split(line, t->cell[t->nr_rows]) != t->nr_cells)
		fail_msg("table %s: a row beginning with '%s' has another number of cells than its "
			 "heads",
			t->name, line);
	t->nr_rows++;
}

/* tab(|); formats, the last with a dot at its end; heads; rows. */
int manual_read(void **state)
{
	enum { OUTSIDE, FORMATS, HEADS, ROWS } at = OUTSIDE;
	char *text = manual_slurp(MANUAL);

	for (char *line; (line = strsep(&text, "\n"));) {
		size_t len = strlen(line);

		if (strcmp(line, ".TS") == 0) {
			at = FORMATS;
		} else if (strcmp(line, ".TE") == 0) {
			at = OUTSIDE;
		} else if (at == FORMATS && len > 0 && line[len - 1] == '.') {
			at = HEADS;
		} else if (at == HEADS) {
			begin_table(line);
			at = ROWS;
		} else if (at == ROWS) {
			add_row(line);
		}
	}
	return 0;
}

const struct manual_table *manual_table(const char *name)
{
	const struct manual_table *found = NULL;

	for (unsigned i = 0; i < manual_nr_tables; i++) {
		if (strcmp(tables[i].name, name) != 0)
			continue;
		if (found)
			fail_msg("the manual has two tables %s", name);
		found = &tables[i];
	}
	if (!found)
		fail_msg("the manual has no table %s", name);
	return found;
}

uint64_t manual_number(const struct manual_table *t, unsigned row, unsigned column)
{
	char *end;
	uint64_t n = strtoull(t->cell[row][column], &end, 0);

	if (*end || end == t->cell[row][column])
		fail_msg("table %s: '%s' is no number", t->name, t->cell[row][column]);
	return n;
}

int manual_row(const struct manual_table *t, const char *name)
{
	for (unsigned i = 0; i < t->nr_rows; i++)
		if (strcmp(t->cell[i][t->name_column], name) == 0)
			return (int)i;
	return -1;
}
