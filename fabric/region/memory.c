/* SPDX-License-Identifier: MIT */
/*
 * Regions of memory: taken and cleared up front by several threads, or adopted from a daemon
 * that is gone.  Control path; the thread that owns the donor.
 * Invariant: the header's constant part is written last, once all memory is there.
 */
#include "fabric/region/region.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <hwloc.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "fabric/machine/available.h"
#include "fabric/region/region-private.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/hello.h"

/* FNV-1a: against mix-ups and torn writes, not against malice. */
static uint64_t header_checksum(const struct weft_region_header *header)
{
	const uint8_t *p = (const uint8_t *)header;
	uint64_t sum = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < offsetof(struct weft_region_header, checksum); i++)
		sum = (sum ^ p[i]) * UINT64_C(0x100000001b3);
	return sum;
}

struct populate {
	int fd;
	uint8_t *map;
	int advice;
};

/*
 * Before Linux 5.14 memory is allocated like this, and the first access to each page takes longer.
 */
static int allocate(int fd, uint64_t off, uint64_t len)
{
	while (fallocate(fd, 0, (off_t)off, (off_t)len) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int populate_slice(void *arg, uint64_t off, uint64_t len)
{
	const struct populate *p = arg;

	while (madvise(p->map + off, len, p->advice) < 0) {
		if (errno == EINVAL && p->advice == MADV_POPULATE_WRITE)
			return allocate(p->fd, off, len);
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
	}
	return 0;
}

static int populate(const struct weft_region *region, int advice, weft_progress_fn *progress,
	void *ctx)
{
	struct populate p = {region->fd, region->map, advice};

	return region_parallel(region->size_bytes, populate_slice, &p, progress, ctx);
}

/* The node of the first network device that has one, or -1. */
static int nic_node(void)
{
	DIR *dir = opendir("/sys/class/net");
	int node = -1;

	if (!dir)
		return -1;
	for (struct dirent *e; node < 0 && (e = readdir(dir));) {
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "/sys/class/net/%s/device/numa_node", e->d_name);
		FILE *f = fopen(path, "re");
		if (!f)
			continue;
		if (fscanf(f, "%d", &node) != 1)
			node = -1;
		fclose(f);
	}
	closedir(dir);
	return node;
}

/* *ret: the node to bind to, or -1 for none in particular. */
static int choose_node(const struct weft_memory_spec *spec, int *ret, struct weft_error *err)
{
	*ret = -1;
	if (spec->numa == WEFT_NUMA_NODE) {
		if (spec->numa_node > INT_MAX)
			return weft_error_set(err, EINVAL, "region '%s': no NUMA node %u",
				spec->name, spec->numa_node);
		*ret = (int)spec->numa_node;
	} else if (spec->numa == WEFT_NUMA_NIC) {
		*ret = nic_node();
	}
	return 0;
}

/* Sets the memory policy of the whole mapping before its first page is taken. */
static int bind_memory(const struct weft_memory_spec *spec, int node, void *map, uint64_t size,
	struct weft_error *err)
{
	hwloc_topology_t topology;
	int r = 0;

	if (spec->numa == WEFT_NUMA_ANY)
		return 0;
	if (hwloc_topology_init(&topology) < 0)
		return weft_error_set(err, ENOMEM, "region '%s': no memory for hwloc", spec->name);
	if (hwloc_topology_load(topology) < 0) {
		r = weft_error_set(err, EIO,
			"region '%s': hwloc cannot tell the machine's topology", spec->name);
		goto out;
	}
	int nr_nodes = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);
	hwloc_obj_t obj =
		node >= 0 ? hwloc_get_numanode_obj_by_os_index(topology, (unsigned)node) : NULL;
	if (node >= 0 && !obj) {
		r = weft_error_set(err, EINVAL,
			"region '%s': there is no NUMA node %d; this machine has %d", spec->name,
			node, nr_nodes);
		goto out;
	}
	if (nr_nodes <= 1)
		goto out; /* all is where it should be */
	if (spec->numa == WEFT_NUMA_NIC && !obj) {
		r = weft_error_set(err, ENODEV,
			"region '%s': no network device says which NUMA node it is on; say --numa "
			"NODE",
			spec->name);
		goto out;
	}
	bool interleave = spec->numa == WEFT_NUMA_INTERLEAVE;
	if (hwloc_set_area_membind(topology, map, size,
		    interleave ? hwloc_topology_get_topology_nodeset(topology) : obj->nodeset,
		    interleave ? HWLOC_MEMBIND_INTERLEAVE : HWLOC_MEMBIND_BIND,
		    HWLOC_MEMBIND_BYNODESET | HWLOC_MEMBIND_STRICT) < 0)
		r = weft_error_set(err, errno,
			"region '%s': cannot bind its memory to NUMA nodes: %s", spec->name,
			strerror(errno));
out:
	hwloc_topology_destroy(topology);
	return r;
}

static int check_available(const struct weft_memory_spec *spec, uint64_t size, int node,
	struct weft_error *err)
{
	char want[32], have[32], page[32];
	struct weft_available available;
	int r = weft_available("", spec->hugepage_bytes, node, &available);

	weft_format_size(spec->hugepage_bytes, page, sizeof(page));
	if (r == -ENOTSUP)
		return weft_error_set(err, ENOTSUP,
			"region '%s': this kernel has no huge pages of %s; add "
			"hugepagesz=%" PRIu64 "M to its command line",
			spec->name, page, spec->hugepage_bytes / WEFT_MIB);
	if (r < 0)
		return weft_error_set(err, -r,
			"region '%s': cannot tell how much memory is available: %s", spec->name,
			strerror(-r));
	if (available.bytes >= size)
		return 0;
	weft_format_size(size, want, sizeof(want));
	weft_format_size(available.bytes, have, sizeof(have));
	if (spec->hugepage_bytes)
		return weft_error_set(err, ENOMEM,
			"region '%s': %s wanted in huge pages of %s, but only %s are free; reserve "
			"them first: "
			"echo %" PRIu64 " > /sys/kernel/mm/hugepages/hugepages-%" PRIu64
			"kB/nr_hugepages",
			spec->name, want, page, have, size / spec->hugepage_bytes,
			spec->hugepage_bytes / WEFT_KIB);
	return weft_error_set(err, ENOMEM,
		"region '%s': %s wanted, but only %s can be had (%s); lend less, or insist with "
		"--overcommit",
		spec->name, want, have, available.limit);
}

static struct weft_region *memory_region_new(const char *name, uint64_t size, uint64_t page)
{
	char text[32], page_text[32], description[96];

	weft_format_size(size, text, sizeof(text));
	snprintf(description, sizeof(description), "memory, %s", text);
	if (page > 64 * WEFT_KIB)
		snprintf(description, sizeof(description), "memory, %s in pages of %s", text,
			weft_format_size(page, page_text, sizeof(page_text)));
	struct weft_region *region = region_new(WEFT_BACKING_MEMORY, name, description);
	if (region) {
		region->size_bytes = size;
		region->page_bytes = page;
	}
	return region;
}

/*
 * Lent memory in the donor's own swap would be worse than none.  mlock2(2) fails where the memlock
 * limit is low; the region serves all the same, and region->locked tells.
 */
static void lock_memory(struct weft_region *region)
{
	region->locked = mlock2(region->map, region->size_bytes, MLOCK_ONFAULT) == 0;
}

static int map_header(struct weft_region *region)
{
	void *map = mmap(NULL, sizeof(struct weft_region_header), PROT_READ | PROT_WRITE,
		MAP_SHARED, region->header_fd, 0);

	if (map == MAP_FAILED)
		return -errno;
	region->header = map;
	region->generations = region->header->generations;
	return 0;
}

static int write_header(struct weft_region *region)
{
	struct weft_region_header *header = region->header;
	struct stat st;

	if (fstat(region->fd, &st) < 0)
		return -errno;
	memcpy(header->magic, REGION_HEADER_MAGIC, sizeof(header->magic));
	header->header_bytes = sizeof(*header);
	header->size_bytes = region->size_bytes;
	header->page_bytes = region->page_bytes;
	header->epoch = region->epoch;
	header->mem_dev = st.st_dev;
	header->mem_ino = st.st_ino;
	memcpy(header->name, region->name, strlen(region->name) + 1);
	header->checksum = header_checksum(header);
	header->fills = region->fill != NULL;
	return 0;
}

int weft_region_new_memory(const struct weft_memory_spec *spec, weft_progress_fn *progress,
	void *ctx, struct weft_region **ret, struct weft_error *err)
{
	uint64_t page = spec->hugepage_bytes ? spec->hugepage_bytes : weft_page_bytes();
	unsigned flags = 0;
	int node, r;

	if (!weft_region_name_valid(spec->name, WEFT_MEMORY_NAME_MAX))
		return weft_error_set(err, EINVAL,
			"'%.100s' cannot be a region's name: that is 1 to %d bytes of UTF-8 "
			"without control characters, and not " WEFT_EXPORT_SESSION,
			spec->name, WEFT_MEMORY_NAME_MAX);
	if (spec->hugepage_bytes == 2 * WEFT_MIB)
		flags = MFD_HUGETLB | MFD_HUGE_2MB;
	else if (spec->hugepage_bytes == WEFT_GIB)
		flags = MFD_HUGETLB | MFD_HUGE_1GB;
	else if (spec->hugepage_bytes)
		return weft_error_set(err, EINVAL, "region '%s': huge pages are 2M or 1G",
			spec->name);
	if (spec->size_bytes == 0 || spec->size_bytes > INT64_MAX - page)
		return weft_error_set(err, EINVAL,
			"region '%s': its size must be above zero and below 8 EiB", spec->name);
	uint64_t size = (spec->size_bytes + page - 1) / page * page;
	r = choose_node(spec, &node, err);
	if (r < 0)
		return r;
	if (!spec->overcommit) {
		r = check_available(spec, size, node, err);
		if (r < 0)
			return r;
	}
	struct weft_region *region = memory_region_new(spec->name, size, page);
	if (!region)
		return weft_error_set(err, ENOMEM, "region '%s': no memory", spec->name);
	region->epoch = spec->epoch ? spec->epoch : weft_random_name();
	r = region->fd = region_memfd("weft-region", size, flags);
	if (r >= 0)
		r = region->header_fd = region_memfd("weft-header",
			spec->fills ? region_fill_bytes(size) : sizeof(struct weft_region_header),
			0);
	if (r >= 0)
		r = region_map(region->fd, region->size_bytes, &region->map);
	if (r >= 0)
		r = map_header(region);
	if (r >= 0 && spec->fills)
		r = region_fill_map(region);
	if (r < 0) {
		weft_error_set(err, -r, "region '%s': cannot take its memory: %s", spec->name,
			strerror(-r));
		goto fail;
	}
	r = bind_memory(spec, node, region->map, size, err);
	if (r < 0)
		goto fail;
	r = populate(region, MADV_POPULATE_WRITE, progress, ctx);
	if (r == 0)
		r = write_header(region);
	if (r == 0)
		weft_region_note_tenure(region, weft_random_name());
	if (r == 0 && spec->read_only && mprotect(region->map, size, PROT_READ) < 0)
		r = -errno;
	if (r < 0) {
		weft_error_set(err, -r, "region '%s': cannot take its memory: %s", spec->name,
			strerror(-r));
		goto fail;
	}
	region->read_only = spec->read_only;
	weft_debug("region '%s': %" PRIu64 " bytes of memory, epoch %016" PRIx64, region->name,
		size, region->epoch);
	lock_memory(region);
	*ret = region;
	return 0;
fail:
	region_free(region);
	return r;
}

/* Whether the descriptor is a file that keeps this size for ever. */
static bool sealed_file(int fd, uint64_t size, struct stat *ret)
{
	int seals = fcntl(fd, F_GET_SEALS);

	return fstat(fd, ret) == 0 && S_ISREG(ret->st_mode) && (uint64_t)ret->st_size == size &&
		seals >= 0 && (seals & REGION_SEALS) == REGION_SEALS;
}

/* One consistent copy of the constant part, checked as if a stranger had written it. */
static int read_header(int header_fd, struct weft_region_header *ret)
{
	struct weft_region_header header;
	struct stat st;

	if (pread(header_fd, &header, sizeof(header), 0) != sizeof(header) ||
		memcmp(header.magic, REGION_HEADER_MAGIC, sizeof(header.magic)) != 0 ||
		header.header_bytes != sizeof(header) ||
		header.checksum != header_checksum(&header))
		return -ESTALE;
	/* Before the size is used for anything. */
	if (header.size_bytes > INT64_MAX ||
		!sealed_file(header_fd,
			header.fills ? region_fill_bytes(header.size_bytes) : sizeof(header), &st))
		return -ESTALE;
	if (header.next_epoch)
		header.epoch = header.next_epoch;
	header.name[WEFT_MEMORY_NAME_MAX] = '\0';
	if (!weft_region_name_valid(header.name, WEFT_MEMORY_NAME_MAX) || header.size_bytes == 0 ||
		header.size_bytes > INT64_MAX || header.epoch == 0 ||
		(header.page_bytes != weft_page_bytes() && header.page_bytes != 2 * WEFT_MIB &&
			header.page_bytes != WEFT_GIB) ||
		header.size_bytes % header.page_bytes != 0)
		return -ESTALE;
	*ret = header;
	return 0;
}

int weft_region_peek(int header_fd, char name[WEFT_MEMORY_NAME_MAX + 1], uint64_t *ret_size_bytes,
	uint64_t *ret_epoch)
{
	struct weft_region_header header;
	int r = read_header(header_fd, &header);

	if (r < 0)
		return r;
	memcpy(name, header.name, sizeof(header.name));
	*ret_size_bytes = header.size_bytes;
	*ret_epoch = header.epoch;
	return 0;
}

int weft_region_adopt(int fd, int header_fd, bool read_only, struct weft_region **ret,
	struct weft_error *err)
{
	struct weft_region_header header;
	struct stat st;
	int r = read_header(header_fd, &header);

	if (r < 0)
		return weft_error_set(err, ESTALE,
			"a descriptor left behind is not a region's header of this "
			"version");
	if (!sealed_file(fd, header.size_bytes, &st) || st.st_dev != header.mem_dev ||
		st.st_ino != header.mem_ino)
		return weft_error_set(err, ESTALE,
			"region '%s': the memory and the header that were left "
			"behind do not belong together",
			header.name);

	struct weft_region *region =
		memory_region_new(header.name, header.size_bytes, header.page_bytes);
	if (!region)
		return weft_error_set(err, ENOMEM, "region '%s': no memory", header.name);
	region->epoch = header.epoch;
	region->fd = fd;
	region->header_fd = header_fd;
	r = region_map(region->fd, region->size_bytes, &region->map);
	if (r == 0)
		r = map_header(region);
	if (r == 0 && header.fills)
		r = region_fill_map(region);
	if (r == 0) {
		if (lseek(fd, 0, SEEK_HOLE) == (off_t)header.size_bytes)
			/* The pages exist; this saves a fault at the first use of each. */
			populate(region, MADV_POPULATE_READ, NULL, NULL);
		else
			atomic_store(&region->punched, true);
		if (read_only && mprotect(region->map, region->size_bytes, PROT_READ) < 0)
			r = -errno;
	}
	if (r < 0) {
		weft_error_set(err, -r, "region '%s': cannot map what was left behind: %s",
			header.name, strerror(-r));
		region->fd = region->header_fd = -1; /* the caller's still */
		region_free(region);
		return r;
	}
	region->read_only = read_only;
	weft_debug("region '%s': memory that was left behind, epoch %016" PRIx64, region->name,
		region->epoch);
	weft_region_note_tenure(region,
		region->header->tenure ? region->header->tenure : weft_random_name());
	if (region->header->owned_tenure == region->tenure)
		weft_region_note_owner(region, region->header->tenure_owner,
			region->header->owner_tenure);
	region->promised_lease_ms =
		(uint32_t)weft_min(region->header->promised_lease_ms, WEFT_LEASE_MAX_S * 1000);
	if (weft_stripe_valid(&region->header->stripe))
		region->stripe = region->header->stripe;
	const uint64_t at = region->header->copies_at;
	if (at == 1 || at == 2) {
		memcpy(&region->copies, region->header->copies[at - 1], WEFT_COPIES_KEPT);
		region->copies.regions = region->header->copies_regions[at - 1];
	}
	lock_memory(region);
	*ret = region;
	return 0;
}
