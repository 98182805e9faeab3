/* SPDX-License-Identifier: MIT */
/* weft key list: as a table and as JSON, which weft-key(1) describes; never a secret. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fabric/base/util.h"
#include "fabric/main/key.h"

static bool is_over(const struct weft_rights *rights)
{
	return rights->expires && rights->expires <= (int64_t)time(NULL);
}

static json_t *number_or_null(uint64_t number)
{
	return number ? json_integer((json_int_t)number) : json_null();
}

/* What limits the rights is in their own JSON; here each field is there, whatever it holds. */
static json_t *row_json(const struct weft_store_row *row)
{
	const struct weft_rights *rights = &row->rights;
	json_t *limits = weft_rights_json(rights);
	json_t *regions = json_object_get(limits, "regions");
	json_t *from = json_object_get(limits, "from");
	json_t *expires = json_object_get(limits, "expires");
	json_t *json =
		json_pack("{s:s, s:s, s:s?, s:b, s:b, s:O?, s:b, s:o, s:o, s:O?, s:O?, s:b, s:b, "
			  "s:b}",
			"name", row->name, "identity", row->identity, "other_identity",
			row->other[0] ? row->other : NULL, "usable",
			row->has_rights && !is_over(rights), "expired", is_over(rights), "regions",
			regions, "read_only", rights->read_only, "max_bytes",
			number_or_null(rights->max_bytes), "max_sessions",
			number_or_null(rights->max_sessions), "from", from, "expires", expires,
			"admin", rights->admin, "pool_donor", rights->pool_donor, "rdma_plaintext",
			rights->rdma_plaintext);

	json_decref(limits);
	return json;
}

static void print_rights(const struct weft_rights *rights)
{
	char size[32], range[WEFT_RANGE_TEXT_MAX];

	if (rights->nr_regions == 0)
		fputs("all regions", stdout);
	for (size_t i = 0; i < rights->nr_regions; i++)
		printf("%s%s", i ? ", " : "region ", weft_printable(strdupa(rights->regions[i])));
	if (rights->read_only)
		fputs("; read-only", stdout);
	if (rights->max_bytes)
		printf("; at most %s", weft_format_size(rights->max_bytes, size, sizeof(size)));
	if (rights->max_sessions)
		printf("; at most %u session%s", rights->max_sessions,
			rights->max_sessions == 1 ? "" : "s");
	for (size_t i = 0; i < rights->nr_from; i++)
		printf("%s%s", i ? ", " : "; from ", weft_range_format(&rights->from[i], range));
	if (rights->rdma_plaintext)
		fputs("; RDMA in plaintext", stdout);
	if (rights->pool_donor)
		fputs("; donor of a pool", stdout);
	if (rights->admin)
		fputs("; admin", stdout);
}

struct listing {
	json_t *keys;                   /* of the JSON form; NULL: the table */
	int name_width, identity_width; /* of the table; 0: its head was not printed */
};

static int measure(void *ctx, const struct weft_store_row *row)
{
	struct listing *listing = ctx;
	int name = (int)strlen(row->name), identity = (int)strlen(row->identity);

	if (name > listing->name_width)
		listing->name_width = name;
	if (identity > listing->identity_width)
		listing->identity_width = identity;
	return 0;
}

static int show(void *ctx, const struct weft_store_row *row)
{
	struct listing *listing = ctx;
	char date[WEFT_DATE_TEXT_MAX] = "never";

	if (listing->keys)
		return json_array_append_new(listing->keys, row_json(row)) < 0 ? -ENOMEM : 0;
	if (row->rights.expires)
		weft_date_format(row->rights.expires, date);
	printf("%-*s  %-*s  %-20s  ", listing->name_width, row->name, listing->identity_width,
		row->identity, is_over(&row->rights) ? "has expired" : date);
	if (row->has_rights)
		print_rights(&row->rights);
	else
		fputs("none: it lets nobody in", stdout);
	if (row->other[0])
		printf("; %s too, until: weft key rotate %s --finish", row->other, row->name);
	putchar('\n');
	return 0;
}

static int list_table(struct weft_store *store, struct weft_error *err)
{
	struct listing listing = {0};
	int r = weft_store_each(store, measure, &listing, err);

	if (r < 0)
		return r;
	if (listing.name_width == 0) {
		puts("no keys");
		return 0;
	}
	listing.name_width = (int)weft_max((uint64_t)listing.name_width, 4);
	listing.identity_width = (int)weft_max((uint64_t)listing.identity_width, 8);
	printf("%-*s  %-*s  %-20s  %s\n", listing.name_width, "NAME", listing.identity_width,
		"IDENTITY", "EXPIRES", "GRANTS");
	return weft_store_each(store, show, &listing, err);
}

static int list_json(const char *dir, struct weft_store *store, struct weft_error *err)
{
	struct listing listing = {.keys = json_array()};
	int r = weft_store_each(store, show, &listing, err);
	json_t *json = json_pack("{s:s, s:O}", "directory", dir, "keys", listing.keys);

	if (r == 0 && !json)
		r = weft_error_set(err, ENOMEM, "no memory");
	if (r == 0) {
		json_dumpf(json, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(json);
	json_decref(listing.keys);
	return r;
}

static int list_nothing(const struct key_options *o)
{
	if (o->json)
		printf("{\n  \"directory\": null,\n  \"keys\": []\n}\n");
	else
		puts("no keys");
	return 0;
}

int key_list(const struct key_options *o, struct weft_error *err)
{
	struct weft_store *store;
	int r = weft_store_open(o->dir, WEFT_STORE_LOOK, &store, err);

	/* Nobody has made the first key yet. */
	if (r == -ENOENT && !o->store)
		return list_nothing(o);
	if (r < 0)
		return r;
	r = o->json ? list_json(o->dir, store, err) : list_table(store, err);
	weft_store_close(store);
	return r;
}
