/* SPDX-License-Identifier: MIT */
/* The log of who did what, and small things that all parts of the coordinator need. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fabric/base/log.h"
#include "fabric/pool/pool-private.h"

void pool_note(struct pool *pool, const char *who, const char *what, const char *object,
	const char *fmt, ...)
{
	char detail[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(detail, sizeof(detail), fmt, ap);
	va_end(ap);
	pool_db_run(pool->db,
		"INSERT INTO audit (at, who, what, object, detail) VALUES (?, ?, ?, ?, ?)", "itttt",
		pool->now_s, who, what, object, detail);
	weft_debug("%s: %s %s: %s", who, what, object, detail);
}

bool pool_name_valid(const char *name)
{
	size_t len = strspn(name,
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		"0123456789._-");

	return len > 0 && len <= POOL_NAME_MAX && name[len] == '\0' && name[0] != '-' &&
		strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

bool pool_field_text(const json_t *json, const char *key, char ret[POOL_NAME_MAX + 1])
{
	const char *text = json_string_value(json_object_get(json, key));

	if (!text || strlen(text) > POOL_NAME_MAX)
		return false;
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return false;
	strcpy(ret, text);
	return true;
}

bool pool_field_size(const json_t *json, const char *key, int64_t most, int64_t *ret)
{
	const json_t *value = json_object_get(json, key);
	json_int_t number = json_integer_value(value);

	if (!json_is_integer(value) || number < 0 || number > most)
		return false;
	*ret = number;
	return true;
}

int pool_refuse(struct weft_error *err)
{
	return weft_error_set(err, EACCES,
		"that needs a key with the right admin: weft key new NAME --admin");
}

char *pool_time_text(int64_t seconds, char ret[40])
{
	const time_t at = (time_t)seconds;
	struct tm tm;

	ret[0] = '\0';
	if (gmtime_r(&at, &tm))
		strftime(ret, 40, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return ret;
}
