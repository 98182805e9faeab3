/* SPDX-License-Identifier: MIT */
#define SQLITE_ENABLE_SESSION
#define SQLITE_ENABLE_PREUPDATE_HOOK
#include "fabric/pool/shared.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/step.h"
#include "fabric/base/util.h"
#include "fabric/pool/etcd.h"

enum {
	KEY_MAX = 200,
	PART_BYTES = 512 << 10,
	LOG_MIN_BYTES = 1 << 20, /* before a new picture is worth while */
	ENTRIES = 200,           /* of the log, asked for at a time */
	MARGIN_MS = 1000,        /* for clocks that run at other rates */
};
#define NS_PER_MS UINT64_C(1000000)

struct pool_shared {
	struct etcd *etcd;
	char prefix[KEY_MAX / 2], name[100];
	char leader[KEY_MAX]; /* its key */
	int64_t lease, revision;
	bool leads;
	uint64_t until_ns; /* it leads for certain; by a clock that a suspended machine's is, too */
	bool has_picture;
	uint64_t picture, last; /* numbers: of the picture, of the last entry */
	size_t picture_bytes, log_bytes;
};

static const char *key(const struct pool_shared *s, char ret[KEY_MAX], const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static const char *key(const struct pool_shared *s, char ret[KEY_MAX], const char *fmt, ...)
{
	int n = snprintf(ret, KEY_MAX, "%s/", s->prefix);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ret + n, KEY_MAX - (size_t)n, fmt, ap);
	va_end(ap);
	return ret;
}

/* ---- life ---- */

int pool_shared_new(const struct pool_shared_config *config, struct pool_shared **ret,
	struct weft_error *err)
{
	struct pool_shared *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return weft_error_set(err, ENOMEM, "no memory");
	if (config->prefix[0] != '/' || strlen(config->prefix) >= sizeof(s->prefix) - 1) {
		free(s);
		return weft_error_set(err, EINVAL, "'%.100s' is no prefix of keys: say /weft/pool",
			config->prefix);
	}
	snprintf(s->prefix, sizeof(s->prefix), "%s", config->prefix);
	snprintf(s->name, sizeof(s->name), "%s", config->name);
	key(s, s->leader, "leader");
	r = etcd_new(config->endpoints, config->certificates, &s->etcd, err);
	if (r < 0)
		pool_shared_free(s);
	else
		*ret = s;
	return r;
}

void pool_shared_free(struct pool_shared *s)
{
	if (!s)
		return;
	pool_shared_resign(s);
	etcd_free(s->etcd);
	free(s);
}

/* ---- who leads ---- */

static int name_leader(struct pool_shared *s, struct weft_error *err)
{
	struct etcd_value *values;
	char below[KEY_MAX];
	size_t nr;
	int r = etcd_list(s->etcd, s->leader, key(s, below, "leader0"), 1, &values, &nr, err);

	if (r < 0)
		return r;
	r = nr == 0 ? 0
		    : weft_error_set(err, EBUSY, "the coordinator %.100s leads",
			      (const char *)values[0].bytes);
	etcd_values_free(values, nr);
	return r;
}

static void lead_until(struct pool_shared *s, uint64_t asked_ns)
{
	s->until_ns = asked_ns + (POOL_LEADER_S * 1000 - MARGIN_MS) * NS_PER_MS;
}

int pool_shared_lead(struct pool_shared *s, struct weft_error *err)
{
	const uint64_t begin_ns = weft_boottime_ns();
	int r = name_leader(s, err);

	if (r == 0)
		r = etcd_grant(s->etcd, POOL_LEADER_S, &s->lease, err);
	if (r == 0)
		r = etcd_claim(s->etcd, s->leader, s->name, s->lease, &s->revision, err);
	if (r < 0) {
		if (s->lease)
			etcd_revoke(s->etcd, s->lease, NULL);
		s->lease = 0;
		return r == -EEXIST ? -EBUSY : r;
	}
	s->leads = true;
	lead_until(s, begin_ns);
	return 0;
}

void pool_shared_keep(struct pool_shared *s)
{
	const uint64_t begin_ns = weft_boottime_ns();
	struct weft_error err;

	if (!s->leads)
		return;
	int r = etcd_renew(s->etcd, s->lease, &err);
	if (r == 0)
		lead_until(s, begin_ns);
	else if (r == -ESTALE || !pool_shared_leads(s)) {
		weft_warn("%s", err.message);
		s->leads = false;
	}
}

bool pool_shared_leads(const struct pool_shared *s)
{
	return s->leads && weft_boottime_ns() < s->until_ns;
}

void pool_shared_resign(struct pool_shared *s)
{
	if (s->lease)
		etcd_revoke(s->etcd, s->lease, NULL);
	s->lease = 0;
	s->leads = false;
}

/* ---- reading ---- */

static int read_head(struct pool_shared *s, unsigned *ret_parts, struct weft_error *err)
{
	struct etcd_value *values;
	char from[KEY_MAX], below[KEY_MAX];
	json_int_t nr_picture, parts, version;
	size_t nr;
	int r = etcd_list(s->etcd, key(s, from, "head"), key(s, below, "head0"), 1, &values, &nr,
		err);

	if (r < 0)
		return r;
	json_t *head = nr ? json_loadb(values[0].bytes, values[0].len, 0, NULL) : NULL;
	if (nr == 0)
		r = -ENOENT;
	else if (!head ||
		json_unpack(head, "{s:I, s:I, s:I}", "nr", &nr_picture, "parts", &parts, "version",
			&version) < 0 ||
		nr_picture < 0 || parts < 1 || parts > 1 << 20)
		r = weft_error_set(err, EBADMSG, "%s at etcd is damaged", from);
	else if (version != 1)
		r = weft_error_set(err, EPROTONOSUPPORT, "the state at etcd is of a newer weft");
	if (r == 0) {
		s->picture = (uint64_t)nr_picture;
		*ret_parts = (unsigned)parts;
	}
	json_decref(head);
	etcd_values_free(values, nr);
	return r;
}

static int read_part(struct pool_shared *s, unsigned part, sqlite3_int64 *io_len,
	unsigned char **io_bytes, struct weft_error *err)
{
	struct etcd_value *values;
	char from[KEY_MAX], below[KEY_MAX];
	size_t nr;
	int r = etcd_list(s->etcd, key(s, from, "state/%016" PRIx64 "/%06u", s->picture, part),
		key(s, below, "state/%016" PRIx64 "/%06u0", s->picture, part), 1, &values, &nr,
		err);

	if (r < 0)
		return r;
	const bool is_there = nr == 1 && values[0].len > 0;
	unsigned char *more = is_there
		? sqlite3_realloc64(*io_bytes, (sqlite3_uint64)*io_len + values[0].len)
		: NULL;
	if (more) {
		memcpy(more + *io_len, values[0].bytes, values[0].len);
		*io_bytes = more;
		*io_len += (sqlite3_int64)values[0].len;
	} else {
		r = weft_error_set(err, is_there ? ENOMEM : EBADMSG, "%s at etcd cannot be read",
			from);
	}
	etcd_values_free(values, nr);
	return r;
}

static int read_picture(struct pool_shared *s, unsigned nr_parts, sqlite3 *db,
	struct weft_error *err)
{
	unsigned char *bytes = NULL;
	sqlite3_int64 len = 0;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < nr_parts; i++) {
		r = read_part(s, i, &len, &bytes, err);
		pool_shared_keep(s);
	}
	if (r < 0) {
		sqlite3_free(bytes);
		return r;
	}
	s->picture_bytes = (size_t)len;
	/* It frees the bytes, on failure too. */
	if (sqlite3_deserialize(db, "main", bytes, len, len,
		    SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_RESIZEABLE) != SQLITE_OK)
		return weft_error_set(err, EBADMSG, "the state at etcd is damaged: %s",
			sqlite3_errmsg(db));
	return 0;
}

/* Nothing but this coordinator wrote it: what does not fit is damaged. */
static int on_conflict(void *ctx, int why, sqlite3_changeset_iter *at)
{
	return SQLITE_CHANGESET_ABORT;
}

static int apply(struct pool_shared *s, const struct etcd_value *entry, sqlite3 *db,
	struct weft_error *err)
{
	char wanted[KEY_MAX];

	key(s, wanted, "log/%016" PRIx64, s->last + 1);
	if (strcmp(entry->key, wanted) != 0 || entry->len > ETCD_VALUE_MAX ||
		sqlite3changeset_apply(db, (int)entry->len, entry->bytes, NULL, on_conflict,
			NULL) != SQLITE_OK)
		return weft_error_set(err, EBADMSG, "%s at etcd, or what is before it, is damaged",
			entry->key);
	s->last++;
	s->log_bytes += entry->len;
	return 0;
}

static int read_log(struct pool_shared *s, sqlite3 *db, struct weft_error *err)
{
	char from[KEY_MAX], below[KEY_MAX];
	struct etcd_value *values;
	size_t nr = ENTRIES;
	int r = 0;

	while (r == 0 && nr == ENTRIES) {
		r = etcd_list(s->etcd, key(s, from, "log/%016" PRIx64, s->last + 1),
			key(s, below, "log0"), ENTRIES, &values, &nr, err);
		if (r < 0)
			return r;
		for (size_t i = 0; r == 0 && i < nr; i++)
			r = apply(s, &values[i], db, err);
		etcd_values_free(values, nr);
		/* That may take longer than another waits. */
		pool_shared_keep(s);
	}
	return r;
}

int pool_shared_load(struct pool_shared *s, sqlite3 *db, struct weft_error *err)
{
	unsigned nr_parts;
	int r = read_head(s, &nr_parts, err);

	s->has_picture = false;
	s->log_bytes = 0;
	if (r == -ENOENT)
		s->picture = s->last = 0;
	if (r < 0)
		return r;
	r = read_picture(s, nr_parts, db, err);
	s->last = s->picture;
	if (r == 0)
		r = read_log(s, db, err);
	s->has_picture = r == 0;
	return r;
}

/* ---- writing ---- */

/* Only what etcd said for certain leaves it known what is there. */
static int change(struct pool_shared *s, const struct etcd_change *changes, size_t nr,
	struct weft_error *err)
{
	int r = pool_shared_leads(s)
		? etcd_change(s->etcd, s->leader, s->revision, changes, nr, err)
		: weft_error_set(err, ESTALE, "this coordinator leads no longer");

	if (r < 0 && r != -EHOSTUNREACH && r != -ENOMEM)
		s->leads = false;
	return r;
}

int pool_shared_write(struct pool_shared *s, const void *changes, size_t len,
	struct weft_error *err)
{
	char name[KEY_MAX];
	const struct etcd_change entry = {
		.key = key(s, name, "log/%016" PRIx64, s->last + 1),
		.bytes = changes,
		.len = len,
	};

	if (len == 0)
		return 0;
	if (len > ETCD_VALUE_MAX)
		return weft_error_set(err, EFBIG, "that is more than etcd takes at once");
	int r = change(s, &entry, 1, err);
	if (r < 0)
		return r;
	s->last++;
	s->log_bytes += len;
	return 0;
}

static int write_parts(struct pool_shared *s, const unsigned char *bytes, size_t len,
	unsigned *ret_parts, struct weft_error *err)
{
	unsigned nr = 0;
	int r = 0;

	for (size_t off = 0; r == 0 && off < len; off += PART_BYTES) {
		char name[KEY_MAX];
		const struct etcd_change part = {
			.key = key(s, name, "state/%016" PRIx64 "/%06u", s->last, nr++),
			.bytes = bytes + off,
			.len = weft_min(len - off, PART_BYTES),
		};

		r = change(s, &part, 1, err);
		pool_shared_keep(s);
	}
	*ret_parts = nr;
	return r;
}

/* With the head goes what it makes needless, of pictures that came to no end too. */
static int write_head(struct pool_shared *s, unsigned nr_parts, struct weft_error *err)
{
	char head[100], names[7][KEY_MAX];
	const int len = snprintf(head, sizeof(head),
		"{\"version\": 1, \"nr\": %" PRIu64 ", \"parts\": %u}", s->last, nr_parts);
	const struct etcd_change changes[] = {
		{.key = key(s, names[0], "head"), .bytes = head, .len = (size_t)len},
		{.key = key(s, names[1], "log/"),
			.below = key(s, names[2], "log/%016" PRIx64, s->last + 1)},
		{.key = key(s, names[3], "state/"),
			.below = key(s, names[4], "state/%016" PRIx64 "/", s->last)},
		{.key = key(s, names[5], "state/%016" PRIx64 "0", s->last),
			.below = key(s, names[6], "state0")},
	};

	weft_step("pool-picture");
	return change(s, changes, WEFT_ARRAY_LEN(changes), err);
}

int pool_shared_settle(struct pool_shared *s, sqlite3 *db, struct weft_error *err)
{
	sqlite3_int64 len = 0;
	unsigned nr_parts;

	if (s->has_picture && s->log_bytes < weft_max(s->picture_bytes, LOG_MIN_BYTES))
		return 0;
	unsigned char *bytes = sqlite3_serialize(db, "main", &len, 0);
	if (!bytes)
		return weft_error_set(err, ENOMEM, "no memory");
	int r = write_parts(s, bytes, (size_t)len, &nr_parts, err);
	sqlite3_free(bytes);
	if (r == 0)
		r = write_head(s, nr_parts, err);
	if (r < 0)
		return r;
	weft_step("pool-picture-noted");
	s->has_picture = true;
	s->picture = s->last;
	s->picture_bytes = (size_t)len;
	s->log_bytes = 0;
	return 0;
}
