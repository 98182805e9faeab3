/* SPDX-License-Identifier: MIT */
#include "fabric/move/fields.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"

json_t *number_json(uint64_t number)
{
	char text[17];

	snprintf(text, sizeof(text), "%016" PRIx64, number);
	return json_string(text);
}

json_t *bytes_json(const void *bytes, size_t n)
{
	WEFT_CLEANUP_FREE char *text = malloc(2 * n + 1);

	if (!text)
		return NULL;
	weft_hex(bytes, n, text);
	return json_string(text);
}

bool field_bytes(const json_t *json, const char *key, void *ret, size_t n)
{
	const json_t *field = json_object_get(json, key);
	const char *text = json_string_value(field);

	return text && json_string_length(field) == 2 * n && weft_unhex(text, ret, n) == 0;
}

bool field_number(const json_t *json, const char *key, uint64_t *ret)
{
	uint8_t bytes[8];
	uint64_t number = 0;

	if (!field_bytes(json, key, bytes, sizeof(bytes)))
		return false;
	for (unsigned i = 0; i < sizeof(bytes); i++)
		number = number << 8 | bytes[i];
	if (number == 0)
		return false;
	*ret = number;
	return true;
}

bool field_place(const json_t *json, const char *key, char ret[WEFT_PLACE_MAX])
{
	const json_t *field = json_object_get(json, key);
	const char *text = json_string_value(field);

	if (!text || !weft_place_valid(text, json_string_length(field)))
		return false;
	strcpy(ret, text);
	return true;
}

bool field_count(const json_t *json, const char *key, uint64_t max, uint64_t *ret)
{
	const json_t *field = json_object_get(json, key);
	json_int_t n = json_integer_value(field);

	if (!json_is_integer(field) || n < 0 || (uint64_t)n > max)
		return false;
	*ret = (uint64_t)n;
	return true;
}

json_t *bits_json(const uint64_t *bits, uint64_t n)
{
	const uint64_t nr_bytes = (n + 7) / 8;
	WEFT_CLEANUP_FREE uint8_t *bytes = malloc(nr_bytes + 1);

	if (!bytes)
		return NULL;
	for (uint64_t i = 0; i < nr_bytes; i++)
		bytes[i] = (uint8_t)(bits[i / 8] >> 8 * (i % 8));
	return bytes_json(bytes, nr_bytes);
}

bool field_bits(const json_t *json, const char *key, uint64_t n, uint64_t *ret)
{
	const uint64_t nr_bytes = (n + 7) / 8;
	WEFT_CLEANUP_FREE uint8_t *bytes = malloc(nr_bytes + 1);

	if (!bytes || !field_bytes(json, key, bytes, nr_bytes))
		return false;
	if (n % 8)
		bytes[nr_bytes - 1] &= (uint8_t)((1 << n % 8) - 1);
	for (uint64_t i = 0; i < nr_bytes; i++)
		ret[i / 8] |= (uint64_t)bytes[i] << 8 * (i % 8);
	return true;
}

/* ---- facts ---- */

static json_t *generation_json(const struct weft_generation *gen)
{
	char name[sizeof(gen->name) + 1] = "";

	memcpy(name, gen->name, sizeof(gen->name));
	return json_pack("{s:o, s:o, s:I, s:i, s:i, s:i, s:s}", "id", bytes_json(gen->id_hash, 16),
		"generation", number_json(gen->generation), "used", (json_int_t)gen->last_used,
		"lapsed", (int)gen->lapsed, "held", (int)gen->held, "flags", (int)gen->flags,
		"name", weft_name_valid(name) ? name : "");
}

json_t *facts_json(const struct weft_region_facts *facts)
{
	json_t *table = json_array();

	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		if (facts->table[i].generation)
			json_array_append_new(table, generation_json(&facts->table[i]));
	return json_pack("{s:o, s:I, s:i, s:i, s:I, s:o}", "id_key",
		bytes_json(facts->id_key, sizeof(facts->id_key)), "lease_ms",
		(json_int_t)facts->lease_ms, "stripe_index", (int)facts->stripe.index,
		"stripe_count", (int)facts->stripe.count, "stripe_unit",
		(json_int_t)facts->stripe.unit_bytes, "table", table);
}

static bool parse_generation(const json_t *json, struct weft_generation *ret)
{
	const char *name = json_string_value(json_object_get(json, "name"));
	uint64_t lapsed, held, flags = 0;

	if (!name || (*name && !weft_name_valid(name)) ||
		!field_bytes(json, "id", ret->id_hash, sizeof(ret->id_hash)) ||
		!field_number(json, "generation", &ret->generation) ||
		!field_count(json, "used", INT64_MAX, &ret->last_used) ||
		!field_count(json, "lapsed", WEFT_LEFT_WRITTEN, &lapsed) ||
		!field_count(json, "held", 1 + WEFT_MODE_WRITE, &held) ||
		(json_object_get(json, "flags") &&
			!field_count(json, "flags", WEFT_ENTRY_OPEN, &flags)) ||
		(flags & WEFT_ENTRY_HERE))
		return false;
	ret->lapsed = (uint32_t)lapsed;
	ret->held = (uint16_t)held;
	ret->flags = (uint16_t)flags;
	strcpy(ret->name, name);
	return true;
}

bool field_facts(const json_t *json, const char *key, struct weft_region_facts *ret)
{
	const json_t *facts = json_object_get(json, key), *table = json_object_get(facts, "table");
	uint64_t lease_ms, index, count, unit;

	memset(ret, 0, sizeof(*ret));
	if (!field_bytes(facts, "id_key", ret->id_key, sizeof(ret->id_key)) ||
		!field_count(facts, "lease_ms", WEFT_LEASE_MAX_S * UINT64_C(1000), &lease_ms) ||
		!field_count(facts, "stripe_index", UINT32_MAX, &index) ||
		!field_count(facts, "stripe_count", UINT32_MAX, &count) ||
		!field_count(facts, "stripe_unit", INT64_MAX, &unit) || !json_is_array(table) ||
		json_array_size(table) > WEFT_NR_GENERATIONS)
		return false;
	ret->lease_ms = (uint32_t)lease_ms;
	ret->stripe = (struct weft_stripe){(uint32_t)index, (uint32_t)count, unit};
	if (count && !weft_stripe_valid(&ret->stripe))
		return false;
	for (size_t i = 0; i < json_array_size(table); i++)
		if (!parse_generation(json_array_get(table, i), &ret->table[i]))
			return false;
	return true;
}
