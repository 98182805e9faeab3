/* SPDX-License-Identifier: MIT */
/*
 * A program that uses libweft, for shell tests: one command a line on standard input, one answer a
 * line: "ok", "differs", or an error's name.
 *
 *	libweft-io [-c CACHE-BYTES] [-b] [-d DEAD-TIMEOUT-MS] [-n CONNECTIONS]
 *		[-k KEY-FILE | -i] [-u UNIT-BYTES] [-m MODE] URI...
 *
 *	write SEED OFF LEN, read SEED OFF LEN; flush; transport
 *	awrite, aread: the same by asynchronous commands, 64 KiB each
 *
 * With -m, paged, compat or resident: a map of the whole, 1 MiB of it here at a time, or all
 *	mwrite SEED OFF LEN, mread SEED OFF LEN: in the map; "SIGBUS" if it is
 *	msync; rescue SEED OFF LEN: whether those bytes are rescued; reset
 *
 * What is written at an offset depends on it and on the seed.  -b: a write-back cache;
 * -i: without a key.
 */
#include <err.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/weft.h"

enum { PART = 64 << 10, MAX_PARTS = 1024 };

static void fill(uint8_t *buf, unsigned seed, uint64_t off, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(((off + i) / 512 + 1) * (seed * 2 + 1) + (off + i) % 251);
}

static int by_parts(struct weft *w, bool write, uint8_t *buf, uint64_t off, size_t len)
{
	int64_t cookies[MAX_PARTS];
	unsigned nr = 0;
	int r = 0;

	for (size_t at = 0; at < len; at += PART, nr++) {
		size_t n = weft_min(PART, len - at);

		if (nr == MAX_PARTS)
			errx(1, "too long");
		cookies[nr] = write ? weft_aio_pwrite(w, buf + at, n, off + at, NULL)
				    : weft_aio_pread(w, buf + at, n, off + at, NULL);
		if (cookies[nr] < 0)
			return (int)cookies[nr];
	}
	/* All of them, since the buffer is theirs. */
	for (unsigned i = 0; i < nr; i++) {
		int one = weft_aio_wait(w, cookies[i]);

		if (r == 0)
			r = one;
	}
	return r;
}

static void say(int r)
{
	puts(r == 0 ? "ok" : strerrorname_np(-r));
	fflush(stdout);
}

static void move(struct weft *w, bool aio, bool write, unsigned seed, uint64_t off, size_t len)
{
	uint8_t *buf = calloc(1, len ? len : 1), *right = malloc(len ? len : 1);
	int r;

	if (!buf || !right)
		errx(1, "out of memory");
	fill(right, seed, off, len);
	if (write)
		memcpy(buf, right, len);
	if (aio)
		r = by_parts(w, write, buf, off, len);
	else
		r = write ? weft_pwrite(w, buf, len, off) : weft_pread(w, buf, len, off);
	if (r == 0 && !write && memcmp(buf, right, len) != 0) {
		puts("differs");
		fflush(stdout);
	} else {
		say(r);
	}
	free(buf);
	free(right);
}

/* ---- the map ---- */

static struct weft_map *map;
static uint64_t map_bytes;
static uint64_t unit_bytes = 16 << 10;
static sigjmp_buf back;

static void on_bus(int signo)
{
	siglongjmp(back, 1);
}

static void begin_map(struct weft *w, const char *mode)
{
	static const char *const names[] = {"", "paged", "compat", "resident"};
	struct weft_map_options o = {.size = sizeof(o)};
	char why[256];

	while (o.mode < WEFT_ARRAY_LEN(names) && strcmp(mode, names[o.mode]) != 0)
		o.mode++;
	o.local_bytes = o.mode == WEFT_MAP_RESIDENT ? 0 : 1 << 20;
	o.unit_bytes = unit_bytes;
	if (weft_map(w, 0, weft_size(w), &o, &map, why, sizeof(why)) < 0)
		errx(1, "%s", why);
	map_bytes = weft_size(w);
	signal(SIGBUS, on_bus);
}

static void move_in_map(bool write, unsigned seed, uint64_t off, size_t len)
{
	uint8_t *right = malloc(len), *at = (uint8_t *)weft_map_addr(map) + off;

	if (!right)
		errx(1, "out of memory");
	fill(right, seed, off, len);
	if (sigsetjmp(back, 1) != 0) {
		puts("SIGBUS");
	} else if (write) {
		memcpy(at, right, len);
		puts("ok");
	} else {
		puts(memcmp(at, right, len) == 0 ? "ok" : "differs");
	}
	fflush(stdout);
	free(right);
}

struct rescued {
	const uint8_t *right;
	uint64_t off, len, nr;
};

/* Counts the bytes that are there and right. */
static int look_at_rescued(void *ctx, uint64_t off, const void *data, size_t len)
{
	struct rescued *rescued = ctx;

	for (uint64_t i = 0; i < len; i++)
		if (off + i >= rescued->off && off + i < rescued->off + rescued->len)
			rescued->nr += ((const uint8_t *)data)[i] ==
				rescued->right[off + i - rescued->off];
	return 0;
}

static void rescue(unsigned seed, uint64_t off, uint64_t len)
{
	uint8_t *right = malloc(len);
	struct rescued rescued = {.right = right, .off = off, .len = len};

	if (!right)
		errx(1, "out of memory");
	fill(right, seed, off, len);
	int64_t r = weft_map_rescue(map, look_at_rescued, &rescued);
	say(r < 0 ? (int)r : rescued.nr == len ? 0 : -ENODATA);
	free(right);
}

static bool obey_map(const char *verb, int n, unsigned seed, uint64_t off, uint64_t len)
{
	char why[256] = "";

	if (n == 1 && strcmp(verb, "msync") == 0) {
		say(weft_map_sync(map, weft_map_addr(map), map_bytes, WEFT_MAP_FLUSH));
	} else if (n == 1 && strcmp(verb, "reset") == 0) {
		int r = weft_map_reset(map, why, sizeof(why));

		say(r);
		if (r < 0)
			warnx("%s", why);
	} else if (n == 4 && strcmp(verb, "rescue") == 0) {
		rescue(seed, off, len);
	} else if (n == 4 && verb[0] == 'm') {
		move_in_map(strcmp(verb, "mwrite") == 0, seed, off, len);
	} else {
		return false;
	}
	return true;
}

/* ---- commands ---- */

static void obey(struct weft *w, const char *line)
{
	char verb[16] = "", transport[32];
	unsigned long long off = 0, len = 0;
	unsigned seed = 0;
	int n = sscanf(line, "%15s %u %llu %llu", verb, &seed, &off, &len);

	if (map && obey_map(verb, n, seed, off, len))
		return;
	if (n == 1 && strcmp(verb, "flush") == 0) {
		say(weft_flush(w));
	} else if (n == 1 && strcmp(verb, "transport") == 0) {
		weft_transport(w, 0, transport, sizeof(transport));
		puts(transport);
		fflush(stdout);
	} else if (n == 4) {
		const char *plain = verb[0] == 'a' ? verb + 1 : verb;

		move(w, verb[0] == 'a', strcmp(plain, "write") == 0, seed, off, len);
	} else {
		errx(2, "what is '%s'?", line);
	}
}

int main(int argc, char **argv)
{
	struct weft_options options = {.size = sizeof(options)};
	char line[128], why[512];
	const char *mode = NULL;
	struct weft *w;
	int c;

	while ((c = getopt(argc, argv, "c:d:n:k:m:u:bi")) != -1) {
		if (c == 'c')
			options.cache_bytes = strtoull(optarg, NULL, 0);
		else if (c == 'd')
			options.dead_timeout_ms = (uint32_t)strtoul(optarg, NULL, 0);
		else if (c == 'n')
			options.connections = (uint32_t)strtoul(optarg, NULL, 0);
		else if (c == 'b')
			options.flags |= WEFT_OPEN_WRITE_BACK;
		else if (c == 'k')
			options.key_file = optarg;
		else if (c == 'm')
			mode = optarg;
		else if (c == 'u')
			unit_bytes = strtoull(optarg, NULL, 0);
		else if (c == 'i')
			options.flags |= WEFT_OPEN_ALLOW_INSECURE;
		else
			return 2;
	}
	int r = weft_open_regions((const char *const *)argv + optind, (unsigned)(argc - optind),
		&options, &w, why, sizeof(why));
	if (r < 0)
		errx(1, "%s", why);
	if (mode)
		begin_map(w, mode);
	say(0);
	while (fgets(line, sizeof(line), stdin))
		obey(w, line);
	weft_unmap(map, WEFT_UNMAP_DISCARD);
	weft_close(w);
	return 0;
}
