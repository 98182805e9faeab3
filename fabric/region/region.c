/*
 * What both kinds of regions share: names, references, holes and zeros, generations.
 * Threads: as region.h says.
 */
#include "fabric/region/region.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gnutls/crypto.h>
#include <systemd/sd-id128.h>

#include "fabric/hello.h"
#include "fabric/region/region-private.h"
#include "fabric/base/util.h"

/* Punching less than this costs more than it gives back. */
#define PUNCH_MIN_BYTES (64 * WEFT_KIB)

bool weft_region_name_valid(const char *name, size_t max)
{
	const uint8_t *p = (const uint8_t *)name;

	if (*p == 0 || strnlen(name, max + 1) > max)
		return false;
	while (*p) {
		uint32_t c = *p++, min = 0;
		unsigned more = 0;

		if (c < 0x80) {
			if (c < 0x20 || c == 0x7f)
				return false;
			continue;
		}
		if ((c & 0xe0) == 0xc0) {
			more = 1, min = 0x80, c &= 0x1f;
		} else if ((c & 0xf0) == 0xe0) {
			more = 2, min = 0x800, c &= 0x0f;
		} else if ((c & 0xf8) == 0xf0) {
			more = 3, min = 0x10000, c &= 0x07;
		} else {
			return false;
		}
		for (; more > 0; more--, p++) {
			if ((*p & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*p & 0x3f);
		}
		/* Overlong forms, surrogates, C1 controls, beyond Unicode. */
		if (c < min || (c >= 0xd800 && c < 0xe000) || c < 0xa0 || c > 0x10ffff)
			return false;
	}
	return true;
}

struct weft_region *region_new(enum weft_backing backing, const char *name, const char *description)
{
	struct weft_region *region = calloc(1, sizeof(*region));

	if (!region)
		return NULL;
	region->backing = backing;
	region->fd = region->header_fd = -1;
	atomic_init(&region->refs, 1);
	pthread_mutex_init(&region->flush_lock, NULL);
	pthread_mutex_init(&region->promise_lock, NULL);
	region->name = strdup(name);
	region->description = strdup(description);
	if (!region->name || !region->description) {
		region_free(region);
		return NULL;
	}
	return region;
}

void region_free(struct weft_region *region)
{
	if (!region)
		return;
	if (region->map)
		munmap(region->map, region->size_bytes);
	region_stage_fini(region);
	if (region->header)
		munmap(region->header, sizeof(*region->header));
	else
		free(region->generations);
	free(region->note);
	free(region->promise_path);
	if (region->fd >= 0)
		close(region->fd);
	if (region->header_fd >= 0)
		close(region->header_fd);
	pthread_mutex_destroy(&region->flush_lock);
	pthread_mutex_destroy(&region->promise_lock);
	free(region->description);
	free(region->name);
	free(region);
}

struct weft_region *weft_region_get(struct weft_region *region)
{
	unsigned before = atomic_fetch_add_explicit(&region->refs, 1, memory_order_relaxed);

	assert(before > 0);
	return region;
}

void weft_region_put(struct weft_region *region)
{
	if (!region)
		return;
	unsigned before = atomic_fetch_sub_explicit(&region->refs, 1, memory_order_acq_rel);

	assert(before > 0);
	if (before > 1)
		return;
	if (region->backing == WEFT_BACKING_FILE)
		region_file_finish(region);
	region_free(region);
}

static void assert_inside(const struct weft_region *region, uint64_t off, uint64_t len)
{
	assert(off <= region->size_bytes && len <= region->size_bytes - off);
}

/* Gives whole pages inside the range back; says what was left over at its edges. */
static int memory_punch(struct weft_region *region, uint64_t off, uint64_t len, uint64_t *ret_first,
	uint64_t *ret_last)
{
	uint64_t page = region->page_bytes;
	uint64_t first = (off + page - 1) / page * page;
	uint64_t last = (off + len) / page * page;
	int r;

	/*
	 * A hole in huge pages returns them to a pool that others take from, and the fault that
	 * wants one back would be a SIGBUS.
	 */
	if (page != (uint64_t)sysconf(_SC_PAGESIZE) || last < first + PUNCH_MIN_BYTES)
		return -EOPNOTSUPP;
	/* This, then a look at nr_pins; weft_region_pin() the other way round: one of the two sees the other. */
	atomic_fetch_add(&region->nr_punching, 1);
	if (atomic_load(&region->nr_pins) > 0) {
		r = -EOPNOTSUPP;
	} else {
		atomic_store(&region->punched, true);
		do
			r = fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)first,
				      (off_t)(last - first)) < 0 ? -errno : 0;
		while (r == -EINTR);
	}
	atomic_fetch_sub(&region->nr_punching, 1);
	if (r < 0)
		return r;
	*ret_first = first;
	*ret_last = last;
	return 0;
}

void weft_region_pin(struct weft_region *region)
{
	struct timespec nap = {.tv_nsec = 50000};

	atomic_fetch_add(&region->nr_pins, 1);
	while (atomic_load(&region->nr_punching) > 0)
		nanosleep(&nap, NULL);
}

void weft_region_unpin(struct weft_region *region)
{
	unsigned before = atomic_fetch_sub(&region->nr_pins, 1);

	assert(before > 0);
}

static int memory_zero(struct weft_region *region, uint64_t off, uint64_t len, bool may_punch)
{
	uint64_t first, last;

	if (may_punch && memory_punch(region, off, len, &first, &last) == 0) {
		memset(region->map + off, 0, first - off);
		memset(region->map + last, 0, off + len - last);
	} else {
		memset(region->map + off, 0, len);
	}
	return 0;
}

static int file_write_zeros(struct weft_region *region, uint64_t off, uint64_t len)
{
	static const uint8_t zeros[256 * 1024];

	while (len > 0) {
		uint64_t n = weft_min(len, sizeof(zeros));
		int r = weft_region_write(region, zeros, off, n);

		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

enum allocation { PUNCH, ZERO, DISCARD };

/* 0, or -EOPNOTSUPP: write zeros instead. */
static int file_tell(const struct weft_region *region, enum allocation what, uint64_t off, uint64_t len)
{
	uint64_t range[2] = {off, len};
	int r;

	do {
		if (what == DISCARD && region->block_bytes)
			r = ioctl(region->fd, BLKDISCARD, range);
		else
			r = fallocate(region->fd, FALLOC_FL_KEEP_SIZE | (what == ZERO ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE),
				(off_t)off, (off_t)len);
	} while (r < 0 && errno == EINTR);
	if (r < 0 && (errno == ENOSYS || errno == ENODEV || errno == EREMOTEIO))
		return -EOPNOTSUPP;
	return r < 0 ? -errno : 0;
}

/* A device's range is in whole blocks.  DISCARD is advisory: nothing need be done. */
static int file_allocate(struct weft_region *region, enum allocation what, uint64_t off, uint64_t len)
{
	int r = region_file_check_write(region);

	if (r < 0)
		return r;
	uint8_t *memory = region_enter(region);
	if (memory && what != DISCARD)
		memset(memory + off, 0, len);
	if (!memory)
		r = file_tell(region, what, off, len);
	if (!memory || what != DISCARD)
		region_note_change(region, off, len);
	if (r == 0)
		atomic_store(&region->dirty, true);
	region_leave(region);
	return r;
}

/* Whole blocks between the two, rounded inward; none: *first == *last. */
static void whole_blocks(const struct weft_region *region, uint64_t off, uint64_t len, uint64_t *first, uint64_t *last)
{
	uint64_t block = region->block_bytes ? region->block_bytes : 1;

	*first = (off + block - 1) / block * block;
	*last = weft_max((off + len) / block * block, *first);
}

static int file_zero(struct weft_region *region, uint64_t off, uint64_t len, bool may_punch, bool fast)
{
	uint64_t first, last;
	int r = -EOPNOTSUPP;

	whole_blocks(region, off, len, &first, &last);
	if (first == last)
		return fast ? r : file_write_zeros(region, off, len);
	if (may_punch)
		r = file_allocate(region, PUNCH, first, last - first);
	/* A device that cannot do it is sent zeros by the kernel. */
	if (r == -EOPNOTSUPP && !(fast && region->block_bytes))
		r = file_allocate(region, ZERO, first, last - first);
	if (r == -EOPNOTSUPP && !fast)
		r = file_write_zeros(region, first, last - first);
	if (r == 0 && first > off)
		r = file_write_zeros(region, off, first - off);
	if (r == 0 && off + len > last)
		r = file_write_zeros(region, last, off + len - last);
	return r;
}

int weft_region_zero(struct weft_region *region, uint64_t off, uint64_t len, bool may_punch, bool fast)
{
	assert_inside(region, off, len);
	if (region->read_only)
		return -EPERM;
	if (len == 0)
		return 0;
	/* Clearing memory is faster than sending the zeros would have been. */
	if (region->backing == WEFT_BACKING_MEMORY)
		return memory_zero(region, off, len, may_punch);
	return file_zero(region, off, len, may_punch, fast);
}

int weft_region_trim(struct weft_region *region, uint64_t off, uint64_t len)
{
	uint64_t first, last;
	int r = 0;

	assert_inside(region, off, len);
	if (region->read_only)
		return -EPERM;
	if (len == 0)
		return 0;
	if (region->backing == WEFT_BACKING_MEMORY) {
		r = memory_punch(region, off, len, &first, &last);
	} else {
		whole_blocks(region, off, len, &first, &last);
		if (first < last)
			r = file_allocate(region, DISCARD, first, last - first);
	}
	return r == -EIO ? r : 0;
}

static struct weft_extent find_extent(const struct weft_region *region, uint64_t off, uint64_t len)
{
	struct weft_extent data = {len, false};
	/* The file offset that these move is used by nobody. */
	off_t next = lseek(region->fd, (off_t)off, SEEK_DATA);

	if (next < 0)
		return errno == ENXIO ? (struct weft_extent){len, true} : data;
	if ((uint64_t)next > off)
		return (struct weft_extent){weft_min((uint64_t)next - off, len), true};
	next = lseek(region->fd, (off_t)off, SEEK_HOLE);
	if (next < 0 || (uint64_t)next <= off)
		return data;
	return (struct weft_extent){weft_min((uint64_t)next - off, len), false};
}

struct weft_extent weft_region_extent(struct weft_region *region, uint64_t off, uint64_t len)
{
	struct weft_extent extent = {len, false};

	assert_inside(region, off, len);
	if (region->backing == WEFT_BACKING_MEMORY)
		return atomic_load(&region->punched) ? find_extent(region, off, len) : extent;
	/* What cannot be told is data, so that it is read, and an error seen. */
	if (!region_enter(region) && region_file_check(region) == 0)
		extent = find_extent(region, off, len);
	region_leave(region);
	return extent;
}

void weft_region_id_hash(const struct weft_region *region, const uint8_t id[16], uint8_t ret[16])
{
	uint8_t digest[32];
	sd_id128_t in, out;

	if (region->backing == WEFT_BACKING_FILE) {
		/* Under a key that is kept beside it: it holds on any machine, and after any reboot. */
		if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, region->note->key, REGION_KEY_BYTES, id, 16, digest) < 0)
			abort(); /* no SHA-256 in the library */
		memcpy(ret, digest, 16);
		return;
	}
	memcpy(in.bytes, id, sizeof(in.bytes));
	/* HMAC-SHA256 under the boot id; a region of memory does not outlive the boot either. */
	if (sd_id128_get_boot_app_specific(in, &out) < 0)
		abort(); /* without /proc nothing of this works */
	memcpy(ret, out.bytes, sizeof(out.bytes));
}

void weft_region_note_tenure(struct weft_region *region, uint64_t tenure)
{
	region->tenure = tenure;
	if (region->header)
		region->header->tenure = tenure;
}

void weft_region_note_stripe(struct weft_region *region, const struct weft_stripe *stripe)
{
	region->stripe = *stripe;
	if (!region->header)
		return;
	/* Who finds the header of a daemon that was killed in between finds none. */
	__atomic_store_n(&region->header->stripe.count, 0, __ATOMIC_SEQ_CST);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	region->header->stripe.index = stripe->index;
	region->header->stripe.unit_bytes = stripe->unit_bytes;
	__atomic_store_n(&region->header->stripe.count, stripe->count, __ATOMIC_SEQ_CST);
}

void weft_region_note_lease(struct weft_region *region, uint32_t lease_ms)
{
	if (region->header && region->header->promised_lease_ms < lease_ms)
		region->header->promised_lease_ms = lease_ms;
}

/* A shared reader keeps nobody out, and goes on with whatever there is: it needs no entry. */
static bool may_forget(const struct weft_generation *gen)
{
	return gen->generation == 0 || gen->held == 0 || gen->held == 1 + WEFT_MODE_SHARED;
}

/* Free ones first, then those that hold nothing, then shared readers; of each the one not used for longest. */
static bool is_better_victim(const struct weft_generation *a, const struct weft_generation *b)
{
	if ((a->generation == 0) != (b->generation == 0))
		return a->generation == 0;
	if ((a->held == 0) != (b->held == 0))
		return a->held == 0;
	return a->last_used < b->last_used;
}

struct weft_generation *weft_region_generation(struct weft_region *region,
	const uint8_t id_hash[16], bool add)
{
	struct weft_generation *victim = NULL;
	uint64_t now = 0;

	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		now = weft_max(now, region->generations[i].last_used);
	now++;
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++) {
		struct weft_generation *gen = &region->generations[i];

		if (gen->generation != 0 && memcmp(gen->id_hash, id_hash, sizeof(gen->id_hash)) == 0) {
			gen->last_used = now;
			return gen;
		}
		if (may_forget(gen) && (!victim || is_better_victim(gen, victim)))
			victim = gen;
	}
	if (!add || !victim)
		return NULL;
	/* Whoever is killed in between leaves a free entry behind. */
	*(volatile uint64_t *)&victim->generation = 0;
	atomic_signal_fence(memory_order_seq_cst);
	memcpy(victim->id_hash, id_hash, sizeof(victim->id_hash));
	memset(victim->name, 0, sizeof(victim->name));
	victim->last_used = now;
	victim->lapsed = WEFT_NOT_LAPSED;
	victim->held = victim->flags = 0;
	atomic_signal_fence(memory_order_seq_cst);
	*(volatile uint64_t *)&victim->generation = 1;
	return victim;
}
