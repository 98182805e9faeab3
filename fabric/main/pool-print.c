/* SPDX-License-Identifier: MIT */
/* What weft pool prints: tables of what a coordinator answered.  One thread. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/main/pool.h"

enum {
	COLUMNS_MAX = 8,
	CELL_MAX = 96,
};

/* Rows are kept until the widths are known. */
struct table {
	unsigned nr_columns;
	char (*rows)[COLUMNS_MAX][CELL_MAX];
	size_t nr, room;
};

/* For a terminal; the answer is ours to change. */
static const char *text(const json_t *json, const char *key)
{
	const char *value = json_string_value(json_object_get(json, key));

	return value ? weft_printable((char *)value) : "";
}

static json_int_t number(const json_t *json, const char *key)
{
	return json_integer_value(json_object_get(json, key));
}

static const char *size(const json_t *json, const char *key, char ret[32])
{
	return weft_format_size((uint64_t)number(json, key), ret, 32);
}

/* The next row; NULL: no memory, and the row is left out. */
static char (*row(struct table *t))[CELL_MAX]
{
	if (t->nr == t->room) {
		const size_t room = t->room ? 2 * t->room : 32;
		void *more = reallocarray(t->rows, room, sizeof(*t->rows));

		if (!more)
			return NULL;
		t->rows = more;
		t->room = room;
	}
	memset(t->rows[t->nr], 0, sizeof(t->rows[t->nr]));
	return t->rows[t->nr++];
}

__attribute__((format(printf, 2, 3))) static void cell(char *ret, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ret, CELL_MAX, fmt, ap);
	va_end(ap);
	weft_printable(ret);
}

/* right: columns of numbers, as bits. */
static void print(struct table *t, const char *const *heads, unsigned right)
{
	int widths[COLUMNS_MAX] = {0};

	for (unsigned c = 0; c < t->nr_columns; c++) {
		widths[c] = (int)strlen(heads[c]);
		for (size_t i = 0; i < t->nr; i++)
			widths[c] = (int)weft_max((uint64_t)widths[c], strlen(t->rows[i][c]));
	}
	for (size_t i = 0; i <= t->nr; i++)
		for (unsigned c = 0; c < t->nr_columns; c++) {
			const char *what = i == 0 ? heads[c] : t->rows[i - 1][c];
			const bool last = c + 1 == t->nr_columns;

			if (right >> c & 1)
				printf("%*s%s", widths[c], what, last ? "\n" : "  ");
			else
				printf("%-*s%s", last ? 0 : widths[c], what, last ? "\n" : "  ");
		}
	free(t->rows);
}

void pool_print_json(const json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	putchar('\n');
}

/* ---- the whole ---- */

void pool_print_status(const json_t *s)
{
	const json_t *d = json_object_get(s, "donors"), *r = json_object_get(s, "regions");
	char lent[32], used[32], room[32];

	printf("pool %s: %lld donor%s", text(s, "pool"), number(d, "known"),
		number(d, "known") == 1 ? "" : "s");
	for (size_t i = 0; i < 4; i++) {
		static const char *const kinds[] = {"silent", "cordoned", "draining", "pressed"};

		if (number(d, kinds[i]))
			printf(", %lld %s", number(d, kinds[i]), kinds[i]);
	}
	printf("\n%s lent, %s used, room for %s\n%lld lease%s", size(s, "lent_bytes", lent),
		size(s, "used_bytes", used), size(s, "room_bytes", room), number(s, "leases"),
		number(s, "leases") == 1 ? "" : "s");
	if (number(r, "wanted"))
		printf("; %lld regions are not made yet", number(r, "wanted"));
	if (number(r, "ending"))
		printf("; %lld regions are ending", number(r, "ending"));
	putchar('\n');
	if (number(r, "lost"))
		printf("%lld regions are LOST: weft pool leases shows whose\n", number(r, "lost"));
	if (number(r, "unknown"))
		printf("%lld regions at donors belong to no lease: weft pool audit says which\n",
			number(r, "unknown"));
}

static const char *state_of_donor(const json_t *d)
{
	if (json_is_true(json_object_get(d, "silent")))
		return "SILENT";
	if (strcmp(text(d, "state"), "open") != 0)
		return text(d, "state");
	return json_is_true(json_object_get(d, "pressed")) ? "pressed" : "open";
}

void pool_print_donors(const json_t *donors)
{
	static const char *const heads[] = {"DONOR", "STATE", "LENT", "USED", "REGIONS", "RACK",
		"AT"};
	struct table t = {.nr_columns = 7};
	const json_t *d;
	char lent[32], used[32];
	size_t i;

	if (json_array_size(donors) == 0) {
		puts("no donor has joined: weft serve --pool URL");
		return;
	}
	json_array_foreach(donors, i, d) {
		char(*to)[CELL_MAX] = row(&t);

		if (!to)
			continue;
		cell(to[0], "%s", text(d, "donor"));
		cell(to[1], "%s", state_of_donor(d));
		cell(to[2], "%s", size(d, "lent_bytes", lent));
		cell(to[3], "%s", size(d, "used_bytes", used));
		cell(to[4], "%lld", number(d, "regions"));
		cell(to[5], "%s", text(d, "rack")[0] ? text(d, "rack") : "-");
		cell(to[6], "%s", text(d, "uri"));
	}
	print(&t, heads, 1 << 2 | 1 << 3 | 1 << 4);
}

/* ---- leases ---- */

/* "node7, node8 -> node9 (lost)": the donors of the copies. */
static void where(const json_t *lease, char *ret)
{
	const json_t *r;
	size_t i, used = 0;

	ret[0] = '\0';
	json_array_foreach(json_object_get(lease, "regions"), i, r) {
		const bool plain = strcmp(text(r, "state"), "there") == 0;
		const bool silent = json_is_true(json_object_get(r, "silent"));

		if (used < CELL_MAX)
			used += (size_t)snprintf(ret + used, CELL_MAX - used, "%s%s%s%s%s%s%s",
				used ? ", " : "", text(r, "donor"),
				text(r, "moving_to")[0] ? " -> " : "", text(r, "moving_to"),
				plain && !silent ? "" : " (",
				plain ? silent ? "silent" : "" : text(r, "state"),
				plain && !silent ? "" : ")");
	}
}

void pool_print_leases(const json_t *leases)
{
	static const char *const heads[] = {"LEASE", "STATE", "SIZE", "COPIES", "OWNER", "JOB",
		"SINCE", "AT"};
	struct table t = {.nr_columns = 8};
	const json_t *l;
	char bytes[32];
	size_t i;

	if (json_array_size(leases) == 0) {
		puts("no leases");
		return;
	}
	json_array_foreach(leases, i, l) {
		char(*to)[CELL_MAX] = row(&t);

		if (!to)
			continue;
		cell(to[0], "%s", text(l, "lease"));
		cell(to[1], "%s", text(l, "state"));
		cell(to[2], "%s", size(l, "size_bytes", bytes));
		cell(to[3], "%lld", number(l, "copies"));
		cell(to[4], "%s", text(l, "owner"));
		cell(to[5], "%s", text(l, "job")[0] ? text(l, "job") : "-");
		cell(to[6], "%s", text(l, "made"));
		where(l, to[7]);
	}
	print(&t, heads, 1 << 2 | 1 << 3);
}

void pool_print_lease(const json_t *l)
{
	const json_t *r;
	char bytes[32];
	size_t i;

	printf("lease '%s' is %s: %s, %lld cop%s\n", text(l, "lease"), text(l, "state"),
		size(l, "size_bytes", bytes), number(l, "copies"),
		number(l, "copies") == 1 ? "y" : "ies");
	json_array_foreach(json_object_get(l, "regions"), i, r)
		printf("copy %lld at %s%s%s, %s%s: %s\n", number(r, "copy"), text(r, "donor"),
			text(r, "moving_to")[0] ? ", moving to " : "", text(r, "moving_to"),
			text(r, "state"),
			json_is_true(json_object_get(r, "silent")) ? ", SILENT" : "",
			text(r, "uri"));
	if (strcmp(text(l, "state"), "ready") == 0)
		printf("map it with:  weft attach pool:%s --mount %s.img\n", text(l, "lease"),
			text(l, "lease"));
}

/* ---- the rest ---- */

void pool_print_quotas(const json_t *quotas)
{
	static const char *const heads[] = {"OF", "NAME", "QUOTA", "HELD", "GIB-HOURS"};
	struct table t = {.nr_columns = 5};
	const json_t *q;
	char quota[32], held[32];
	size_t i;

	if (json_array_size(quotas) == 0) {
		puts("nobody has had anything yet");
		return;
	}
	json_array_foreach(quotas, i, q) {
		char(*to)[CELL_MAX] = row(&t);

		if (!to)
			continue;
		cell(to[0], "%s", text(q, "kind"));
		cell(to[1], "%s", text(q, "name"));
		cell(to[2], "%s",
			json_is_null(json_object_get(q, "quota_bytes"))
				? "none"
				: size(q, "quota_bytes", quota));
		cell(to[3], "%s", size(q, "held_bytes", held));
		cell(to[4], "%.3f", json_real_value(json_object_get(q, "spent_gib_h")));
	}
	print(&t, heads, 1 << 2 | 1 << 3 | 1 << 4);
}

void pool_print_audit(const json_t *audit)
{
	const json_t *a;
	size_t i;

	json_array_foreach(audit, i, a)
		printf("%lld  %s  %s  %s %s: %s\n", number(a, "nr"), text(a, "at"), text(a, "who"),
			text(a, "what"), text(a, "object"), text(a, "detail"));
}

void pool_print_explained(const json_t *explained)
{
	static const char *const heads[] = {"DONOR", "COPY", "ROOM", "REGIONS", "RACK", "WHY"};
	struct table t = {.nr_columns = 6};
	const json_t *one;
	char room[32];
	size_t i;

	json_array_foreach(json_object_get(explained, "criteria"), i, one)
		printf("%s: %s%s\n", text(one, "criterion"),
			json_is_true(json_object_get(one, "met")) ? "met" : "NOT MET: ",
			text(one, "why"));
	json_array_foreach(json_object_get(explained, "donors"), i, one) {
		const json_t *copy = json_object_get(one, "copy");
		char(*to)[CELL_MAX] = row(&t);

		if (!to)
			continue;
		cell(to[0], "%s", text(one, "donor"));
		if (json_is_integer(copy))
			cell(to[1], "%lld", json_integer_value(copy));
		else
			cell(to[1], "-");
		cell(to[2], "%s", size(one, "room_bytes", room));
		cell(to[3], "%lld", number(one, "regions"));
		cell(to[4], "%s", text(one, "rack")[0] ? text(one, "rack") : "-");
		cell(to[5], "%s", text(one, "why"));
	}
	if (t.nr > 0)
		print(&t, heads, 1 << 2 | 1 << 3);
}
