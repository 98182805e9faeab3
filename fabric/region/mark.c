/* SPDX-License-Identifier: MIT */
/*
 * The mark of a file region: which life its contents are of, and who may go on with them.
 *
 * It is text, so that a person can read it (getfattr -d FILE):
 *     v2 state=<clean|open|leaves|comes> epoch=<16 hex> size=<bytes> mtime=<s>.<ns> lease=<ms>
 *         key=<32 hex>[ by=<16 hex> move=<16 hex>][ stripe=<index>/<count>:<unit>][ <entry>]…
 * "leaves" and "comes" are of a file that moves between donors (struct weft_transfer), with `by`
 * and `move`. An entry is <32 hex of the id's hash>:<generation, hex>:<state, hex>[:<name>], oldest
 * use first. Names are left out where all of it would not fit.  Pure functions; any thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/hello.h"
#include "fabric/region/region-private.h"
#include "fabric/base/util.h"

#define STRIPE "stripe="

enum { HASH_BYTES = 16 };

static const char *state_word(const struct region_mark *mark)
{
	switch (mark->transfer.way) {
	case WEFT_LEAVES:
		return "leaves";
	case WEFT_COMES:
		return "comes";
	default:
		return mark->clean ? "clean" : "open";
	}
}

static bool parse_state(const char *word, struct region_mark *mark)
{
	mark->clean = strcmp(word, "open") != 0;
	if (strcmp(word, "leaves") == 0)
		mark->transfer.way = WEFT_LEAVES;
	else if (strcmp(word, "comes") == 0)
		mark->transfer.way = WEFT_COMES;
	else
		return !mark->clean || strcmp(word, "clean") == 0;
	return true;
}

/* held in bits 0-3, lapsed in bits 4-7, flags above. */
static unsigned pack_state(const struct weft_generation *gen)
{
	return (unsigned)gen->held | gen->lapsed << 4 | (unsigned)gen->flags << 8;
}

static int by_use(const void *a, const void *b)
{
	const struct weft_generation *x = *(const struct weft_generation *const *)a,
				     *y = *(const struct weft_generation *const *)b;

	return x->last_used < y->last_used ? -1 : x->last_used > y->last_used;
}

static size_t format(const struct region_mark *mark, char *text, size_t size, bool names)
{
	const struct weft_generation *sorted[WEFT_NR_GENERATIONS];
	char hash[2 * HASH_BYTES + 1], key[2 * REGION_KEY_BYTES + 1],
		transfer[64] = "", stripe[WEFT_STRIPE_TEXT_MAX] = "";
	unsigned nr = 0;

	weft_hex(mark->key, sizeof(mark->key), key);
	if (mark->stripe.count)
		weft_stripe_format(&mark->stripe, stripe);
	if (mark->transfer.way)
		snprintf(transfer, sizeof(transfer), " by=%016" PRIx64 " move=%016" PRIx64,
			mark->transfer.donor, mark->transfer.move);
	size_t n = (size_t)snprintf(text, size,
		"v2 state=%s epoch=%016" PRIx64 " size=%" PRId64 " mtime=%" PRId64 ".%09" PRIu32
		" lease=%" PRIu32 " key=%s%s%s%s",
		state_word(mark), mark->epoch, mark->size_bytes, mark->mtime_s, mark->mtime_ns,
		mark->lease_ms, key, transfer, stripe[0] ? " " STRIPE : "", stripe);
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		if (mark->table[i].generation != 0)
			sorted[nr++] = &mark->table[i];
	qsort(sorted, nr, sizeof(sorted[0]), by_use);
	for (unsigned i = 0; i < nr; i++) {
		const struct weft_generation *gen = sorted[i];
		bool named = names && gen->name[0];

		weft_hex(gen->id_hash, HASH_BYTES, hash);
		n += (size_t)snprintf(n < size ? text + n : NULL, n < size ? size - n : 0,
			" %s:%" PRIx64 ":%x%s%s", hash, gen->generation, pack_state(gen),
			named ? ":" : "", named ? gen->name : "");
	}
	return n;
}

size_t region_mark_format(const struct region_mark *mark, char text[REGION_MARK_MAX])
{
	size_t n = format(mark, text, REGION_MARK_MAX, true);

	return n < REGION_MARK_MAX ? n : format(mark, text, REGION_MARK_MAX, false);
}

_Static_assert(270 + WEFT_NR_GENERATIONS * (1 + 2 * HASH_BYTES + 1 + 16 + 1 + 4) < REGION_MARK_MAX,
	"a full table fits");

static bool parse_entry(const char *p, struct weft_generation *ret)
{
	struct weft_generation gen = {0};
	unsigned state;
	int n = 0;

	if (strlen(p) < 2 * HASH_BYTES + 1 || p[2 * HASH_BYTES] != ':' ||
		weft_unhex(p, gen.id_hash, HASH_BYTES) < 0)
		return false;
	p += 2 * HASH_BYTES + 1;
	if (sscanf(p, "%16" SCNx64 ":%4x%n", &gen.generation, &state, &n) != 2 ||
		gen.generation == 0)
		return false;
	gen.held = state & 0xf;
	gen.lapsed = state >> 4 & 0xf;
	gen.flags = (uint16_t)(state >> 8);
	if (gen.held > 1 + WEFT_MODE_WRITE || gen.lapsed > WEFT_LEFT_WRITTEN ||
		gen.flags > (WEFT_ENTRY_HERE | WEFT_ENTRY_OPEN))
		return false;
	p += n;
	if (*p == ':' && weft_name_valid(p + 1))
		strcpy(gen.name, p + 1);
	else if (*p)
		return false;
	*ret = gen;
	return true;
}

static int parse_v1(const char *text, struct region_mark *ret)
{
	struct region_mark mark = {0};
	int n = 0;

	if (sscanf(text,
		    "v1 epoch=%16" SCNx64 " state=clean size=%" SCNd64 " mtime=%" SCNd64
		    ".%9" SCNu32 "%n",
		    &mark.epoch, &mark.size_bytes, &mark.mtime_s, &mark.mtime_ns, &n) == 4 &&
		text[n] == '\0')
		mark.clean = true;
	else if (sscanf(text, "v1 epoch=%16" SCNx64 " state=open%n", &mark.epoch, &n) != 1 ||
		n == 0 || text[n])
		return -EINVAL;
	*ret = mark;
	return 0;
}

int region_mark_parse(const char *bytes, size_t len, struct region_mark *ret)
{
	char text[REGION_MARK_MAX + 1], state[8], key[2 * REGION_KEY_BYTES + 1], *at;
	struct region_mark mark = {0};
	unsigned nr = 0;
	int n = 0;

	if (len > REGION_MARK_MAX || memchr(bytes, '\0', len))
		return -EINVAL;
	memcpy(text, bytes, len);
	text[len] = '\0';
	if (strncmp(text, "v1 ", 3) == 0)
		return parse_v1(text, ret);
	if (sscanf(text,
		    "v2 state=%7[a-z] epoch=%16" SCNx64 " size=%" SCNd64 " mtime=%" SCNd64
		    ".%9" SCNu32 " lease=%9" SCNu32 " key=%32[0-9a-f]%n",
		    state, &mark.epoch, &mark.size_bytes, &mark.mtime_s, &mark.mtime_ns,
		    &mark.lease_ms, key, &n) != 7 ||
		strlen(key) != 2 * REGION_KEY_BYTES ||
		weft_unhex(key, mark.key, sizeof(mark.key)) < 0 || mark.epoch == 0 ||
		mark.lease_ms > WEFT_LEASE_MAX_S * 1000)
		return -EINVAL;
	if (!parse_state(state, &mark))
		return -EINVAL;
	if (mark.transfer.way) {
		int more = 0;

		if (sscanf(text + n, " by=%16" SCNx64 " move=%16" SCNx64 "%n", &mark.transfer.donor,
			    &mark.transfer.move, &more) != 2)
			return -EINVAL;
		n += more;
	}
	if (text[n] != '\0' && text[n] != ' ')
		return -EINVAL;
	for (char *word = strtok_r(text + n, " ", &at); word; word = strtok_r(NULL, " ", &at)) {
		if (nr == 0 && !mark.stripe.count && strncmp(word, STRIPE, strlen(STRIPE)) == 0) {
			word += strlen(STRIPE);
			if (!weft_stripe_parse(word, strlen(word), &mark.stripe))
				return -EINVAL;
			continue;
		}
		if (nr == WEFT_NR_GENERATIONS || !parse_entry(word, &mark.table[nr]))
			return -EINVAL;
		mark.table[nr].last_used = nr + 1;
		nr++;
	}
	*ret = mark;
	return 0;
}
