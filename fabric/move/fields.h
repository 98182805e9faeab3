/* SPDX-License-Identifier: MIT */
/*
 * Fields of the JSON that donors say to each other, and note.  Numbers of 64 bits are 16 hex
 * digits, since JSON's are exact to 53 bits only.  What comes from a peer is checked here.  Pure.
 */
#ifndef WEFT_FABRIC_MOVE_FIELDS_H
#define WEFT_FABRIC_MOVE_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/donor/moving.h"

json_t *number_json(uint64_t number);
json_t *bytes_json(const void *bytes, size_t n);

/* False, with *ret untouched: it is not there, or wrong; a number is not 0. */
bool field_number(const json_t *json, const char *key, uint64_t *ret);
bool field_place(const json_t *json, const char *key, char ret[WEFT_PLACE_MAX]);
bool field_bytes(const json_t *json, const char *key, void *ret, size_t n);         /* exactly n */
bool field_count(const json_t *json, const char *key, uint64_t max, uint64_t *ret); /* an integer */

/* The bits of a bitmap: 8 in a byte, the lowest first.  n: how many. */
json_t *bits_json(const uint64_t *bits, uint64_t n);
/* Into ret, by "or". */
bool field_bits(const json_t *json, const char *key, uint64_t n, uint64_t *ret);

json_t *facts_json(const struct weft_region_facts *facts);
bool field_facts(const json_t *json, const char *key, struct weft_region_facts *ret);

#endif
