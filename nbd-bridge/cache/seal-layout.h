/* SPDX-License-Identifier: MIT */
/*
 * Private to seal-disk.c and seal-rows.c: what lies where in the file of a seal, and how the file
 * is read and written.  See seal-disk.h.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_SEAL_LAYOUT_H
#define WEFT_NBD_BRIDGE_CACHE_SEAL_LAYOUT_H

#include "fabric/base/util.h"
#include "nbd-bridge/cache/seal-disk.h"

enum {
	SEAL_HEAD_BYTES = 40960,
	SEAL_TABLE_AT = 2 * SEAL_HEAD_BYTES,
	SEAL_PAGE_BYTES = 512,   /* of the table */
	SEAL_SECTOR_BYTES = 512, /* of a log */
	SEAL_LOG_MIN = 64 << 10,
	SEAL_LOG_MAX = 4 << 20,
};

struct seal_head {
	char magic[8];
	uint32_t version, kind, algorithm, nr_salts;
	uint64_t seq; /* the higher one counts */
	uint64_t size_bytes;
	uint64_t log_name, log_at, log_bytes; /* random; where it is */
	uint8_t volume[SEAL_VOLUME_BYTES], check[SEAL_KEY_BYTES];
	struct seal_identity identity;
	uint8_t salts[SEAL_SALTS_MAX][SEAL_SALT_BYTES];
	uint64_t sum;
};

static inline uint64_t seal_nr_pages_of(uint64_t size_bytes)
{
	const uint64_t nr_blocks = (size_bytes + SEAL_BLOCK - 1) / SEAL_BLOCK;

	return (nr_blocks + SEAL_PAGE_ROWS - 1) / SEAL_PAGE_ROWS;
}

/* Two of these lie behind the table: an eighth of it together, within bounds. */
static inline uint64_t seal_log_bytes_of(uint64_t size_bytes)
{
	const uint64_t want = seal_nr_pages_of(size_bytes) * SEAL_PAGE_BYTES / 16;

	return weft_max(SEAL_LOG_MIN,
		weft_min(SEAL_LOG_MAX, want / SEAL_SECTOR_BYTES * SEAL_SECTOR_BYTES));
}

static inline uint64_t seal_logs_at(uint64_t size_bytes)
{
	return SEAL_TABLE_AT + seal_nr_pages_of(size_bytes) * SEAL_PAGE_BYTES;
}

static inline uint64_t seal_file_bytes_of(uint64_t size_bytes)
{
	return seal_logs_at(size_bytes) + 2 * seal_log_bytes_of(size_bytes);
}

/* 0; -ENODATA: the file is shorter; or -errno. */
int seal_disk_read_at(const struct seal_disk *disk, void *bytes, size_t len, uint64_t off);
int seal_disk_write_at(const struct seal_disk *disk, const void *bytes, size_t len, uint64_t off);
int seal_disk_sync(const struct seal_disk *disk);
/* Writes the head in its next place.  Under the head's lock.  0 or -errno: the other one counts. */
int seal_disk_put_head(struct seal *seal);
int seal_disk_make_bitmaps(struct seal_disk *disk, uint64_t size_bytes);

#endif
