/* SPDX-License-Identifier: MIT */
/*
 * The donor's regions: those it was given, and a directory's files, opened when asked for.
 *
 * Threads: any.  The table is under the donor's lock.  Files are opened and closed under open_lock
 * alone, since writing a durable mark takes long.
 */
#include "fabric/donor/donor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fabric/donor/donor-private.h"
#include "fabric/donor/moving.h"
#include "fabric/base/util.h"

enum {
	MAX_OPEN_FILES = 4096,  /* of the directory; then those that nobody uses are closed */
	MAX_LISTED = 100000,    /* a listing ends there, with an error */
	MAX_DEPTH = 32,
};

static struct donor_region *table_find(struct weft_donor *donor, const char *name)
{
	for (unsigned i = 0; i < donor->nr_regions; i++)
		if (strcmp(donor->regions[i].region->name, name) == 0)
			return &donor->regions[i];
	return NULL;
}

/* The lock is held. */
static int table_add(struct weft_donor *donor, struct weft_region *region, bool from_directory)
{
	unsigned i = donor->nr_regions;
	struct donor_region *regions =
		reallocarray(donor->regions, donor->nr_regions + 1, sizeof(*regions));

	if (!regions)
		return -ENOMEM;
	donor->regions = regions;
	for (; i > 0 && strcmp(regions[i - 1].region->name, region->name) > 0; i--)
		regions[i] = regions[i - 1];
	regions[i] = (struct donor_region){region, from_directory, weft_now_ns()};
	donor->nr_regions++;
	donor->nr_from_directory += from_directory;
	return 0;
}

/*
 * Lends the region from now on, at first to the attachments that held it before.  Takes over the
 * reference.  0; -ENOMEM: the region is not lent.  The lock is held.
 */
static int lend(struct weft_donor *donor, struct weft_region *region, bool from_directory)
{
	int r = donor_restore_attachments(donor, region);

	if (r < 0)
		return r;
	r = table_add(donor, region, from_directory);
	if (r < 0)
		donor_drop_attachments(donor, region);
	return r;
}

int weft_donor_add(struct weft_donor *donor, struct weft_region *region, struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&donor->lock);
	if (table_find(donor, region->name))
		r = weft_error_set(err, EEXIST, "there are two regions named '%s'", region->name);
	if (r == 0 && lend(donor, region, false) < 0)
		r = weft_error_set(err, ENOMEM, "region '%s': no memory", region->name);
	if (r == 0)
		weft_region_get(region);
	pthread_mutex_unlock(&donor->lock);
	return r;
}

int weft_donor_add_directory(struct weft_donor *donor, const char *path, bool read_only,
	struct weft_error *err)
{
	if (donor->dir_fd >= 0)
		return weft_error_set(err, EEXIST, "one directory can be served, not two (%s)",
			path);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return weft_error_set(err, errno, "cannot open directory %s: %s", path,
			strerror(errno));
	donor->dir_fd = fd;
	donor->dir_read_only = read_only;
	return 0;
}

void donor_regions_fini(struct weft_donor *donor)
{
	for (unsigned i = 0; i < donor->nr_regions; i++)
		weft_region_put(donor->regions[i].region);
	free(donor->regions);
	weft_close_fd(donor->dir_fd);
}

/* One name for one file: no empty, "." or ".." components. */
static bool name_is_plain_path(const char *name)
{
	for (const char *p = name;; p++) {
		size_t n = strcspn(p, "/");

		if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += n;
		if (*p == '\0')
			return true;
	}
}

/*
 * Whether the entry is a directory's file that nobody uses.  The lock is held; new references are
 * made only under it.
 */
static bool is_idle(const struct weft_donor *donor, const struct donor_region *entry)
{
	return entry->from_directory && atomic_load(&entry->region->refs) == 1 &&
	       !donor_region_in_use(donor, entry->region);
}

/* Takes a region off the table; the reference is the caller's. */
static struct weft_region *table_take(struct weft_donor *donor, struct donor_region *entry)
{
	struct weft_region *region = entry->region;
	size_t behind = (size_t)(donor->regions + donor->nr_regions - (entry + 1));

	donor->nr_from_directory -= entry->from_directory;
	memmove(entry, entry + 1, behind * sizeof(*entry));
	donor->nr_regions--;
	return region;
}

/*
 * Closes, of the files that nobody uses, the one that was not asked for the longest.  open_lock is
 * held.
 */
static void close_one_file(struct weft_donor *donor)
{
	struct donor_region *oldest = NULL;
	struct weft_region *victim;

	pthread_mutex_lock(&donor->lock);
	for (unsigned i = 0; i < donor->nr_regions; i++) {
		struct donor_region *entry = &donor->regions[i];

		if (is_idle(donor, entry) && (!oldest || entry->found_ns < oldest->found_ns))
			oldest = entry;
	}
	victim = oldest ? table_take(donor, oldest) : NULL;
	pthread_mutex_unlock(&donor->lock);
	weft_region_put(victim);
}

/*
 * Closes a file if its name stands for another file now, unless somebody still uses it.  open_lock
 * is held.
 */
static void close_replaced(struct weft_donor *donor, const char *name)
{
	struct weft_region *region = NULL;
	struct stat ours, there;

	pthread_mutex_lock(&donor->lock);
	struct donor_region *entry = table_find(donor, name);
	if (entry && is_idle(donor, entry))
		region = table_take(donor, entry);
	pthread_mutex_unlock(&donor->lock);
	if (!region)
		return;
	if (atomic_load(&region->lost) != -EUCLEAN &&
		fstatat(donor->dir_fd, name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
		fstat(region->fd, &ours) == 0 && ours.st_dev == there.st_dev &&
		ours.st_ino == there.st_ino && (uint64_t)ours.st_size == region->size_bytes) {
		pthread_mutex_lock(&donor->lock);
		if (table_add(donor, region, true) == 0)
			region = NULL;
		pthread_mutex_unlock(&donor->lock);
	}
	weft_region_put(region);
}

/* NULL: there is no region that these rights reach, or there are several. */
static struct donor_region *the_only_one(const struct weft_donor *donor,
	const struct weft_rights *rights)
{
	struct donor_region *only = NULL;

	for (unsigned i = 0; i < donor->nr_regions && donor->dir_fd < 0; i++) {
		if (!weft_rights_have_region(rights, donor->regions[i].region->name))
			continue;
		if (only)
			return NULL;
		only = &donor->regions[i];
	}
	return only;
}

/*
 * -ENOENT; -EAGAIN: a file that nobody uses, which may have been replaced, and was not `checked`.
 */
static int find_open(struct weft_donor *donor, const struct weft_rights *rights, const char *name,
	bool checked, struct weft_region **ret)
{
	struct donor_region *entry = NULL;
	int r = -ENOENT;

	pthread_mutex_lock(&donor->lock);
	entry = *name ? table_find(donor, name) : the_only_one(donor, rights);
	if (entry && !checked && is_idle(donor, entry)) {
		r = -EAGAIN;
	} else if (entry) {
		entry->found_ns = weft_now_ns();
		*ret = weft_region_get(entry->region);
		r = 0;
	}
	pthread_mutex_unlock(&donor->lock);
	return r;
}

static int open_below(struct weft_donor *donor, const char *name, struct weft_region **ret,
	struct weft_error *err)
{
	struct weft_region *region;
	int r;

	if (donor->nr_from_directory >= MAX_OPEN_FILES) /* written under open_lock only */
		close_one_file(donor);
	if (donor->nr_from_directory >= MAX_OPEN_FILES)
		return weft_error_set(err, EMFILE,
			"region '%s': %d files of the directory are in use, and there cannot be "
			"more",
			name, MAX_OPEN_FILES);
	r = weft_region_open_file(donor->dir_fd, name, name, true, donor->dir_read_only, &region,
		err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&donor->lock);
	r = lend(donor, region, true);
	if (r == 0)
		*ret = weft_region_get(region);
	pthread_mutex_unlock(&donor->lock);
	if (r < 0) {
		weft_region_put(region);
		return weft_error_set(err, ENOMEM, "region '%s': no memory", name);
	}
	return 0;
}

static int find_exactly(struct weft_donor *donor, const struct weft_rights *rights,
	const char *name, struct weft_region **ret, struct weft_error *err)
{
	int r;

	if (*name && !weft_rights_have_region(rights, name))
		return donor_no_such_region(name, err);
	r = find_open(donor, rights, name, false, ret);
	if (r == 0)
		return 0;
	if (*name == '\0')
		return weft_error_set(err, ENOENT,
			"which region? This donor has several: name one at the end of the URI");
	if (donor->dir_fd >= 0 && name_is_plain_path(name) && weft_region_name_valid(name, 4096)) {
		pthread_mutex_lock(&donor->open_lock);
		close_replaced(donor, name);
		r = find_open(donor, rights, name, true, ret);
		if (r < 0)
			r = open_below(donor, name, ret, err);
		pthread_mutex_unlock(&donor->open_lock);
		/* A peer need not learn what else there is in the file system. */
		if (r != -ENOENT && r != -ENOTDIR && r != -EXDEV && r != -ELOOP && r != -EISDIR &&
			r != -ENOTSUP && r != -ENAMETOOLONG)
			return r;
	}
	pthread_mutex_lock(&donor->lock);
	r = donor_check_elsewhere(donor, name, 0, err);
	pthread_mutex_unlock(&donor->lock);
	return r < 0 ? r : donor_no_such_region(name, err);
}

/* As donor_rights(), with a line of the log for those who are not let in. */
static int let_in(struct weft_donor *donor, const struct weft_peer *peer, struct weft_rights *ret,
	struct weft_error *err)
{
	struct weft_error why;
	int r = donor_rights(donor, peer, ret, &why);

	if (r < 0) {
		weft_donor_kept_out(donor, peer, &why);
		if (err)
			*err = why;
	}
	return r;
}

int weft_donor_find(struct weft_donor *donor, const struct weft_peer *peer, const char *name,
	struct weft_region **ret, uint64_t *ret_tenure, struct weft_error *err)
{
	uint64_t tenure = 0;
	char plain[4096 + 1];
	struct weft_rights rights;
	int r = let_in(donor, peer, &rights, err);

	if (r < 0)
		return r;
	r = find_exactly(donor, &rights, name, ret, err);
	if (r == -ENOENT && weft_tenure_split(name, plain, sizeof(plain), &tenure))
		r = find_exactly(donor, &rights, plain, ret, err);
	if (r == 0 && ret_tenure)
		*ret_tenure = tenure;
	weft_rights_fini(&rights);
	return r;
}

int weft_donor_remove(struct weft_donor *donor, struct weft_region *region)
{
	int r = -ENOENT;

	pthread_mutex_lock(&donor->lock);
	struct donor_region *entry = table_find(donor, region->name);
	if (entry && entry->region == region && donor_is_being_used(donor, region)) {
		r = -EBUSY;
	} else if (entry && entry->region == region) {
		donor_drop_attachments(donor, region);
		table_take(donor, entry);
		r = 0;
	}
	pthread_mutex_unlock(&donor->lock);
	if (r == 0)
		weft_region_put(region);
	return r;
}

void weft_donor_facts(struct weft_donor *donor, const struct weft_region *region,
	struct weft_region_facts *ret)
{
	pthread_mutex_lock(&donor->lock);
	weft_region_get_id_key(region, ret->id_key);
	ret->lease_ms = (uint32_t)weft_max(donor_longest_lease_ms(donor, region), donor->lease_ms);
	ret->stripe = region->stripe;
	memcpy(ret->table, region->generations, sizeof(ret->table));
	pthread_mutex_unlock(&donor->lock);
	/* Nobody joins what was granted here; all that it wrote is in what moves. */
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		if (ret->table[i].flags & WEFT_ENTRY_HERE)
			ret->table[i].flags = 0;
}

void weft_donor_regions(struct weft_donor *donor,
	void (*fn)(void *ctx, struct weft_region *region, bool from_directory), void *ctx)
{
	pthread_mutex_lock(&donor->lock);
	for (unsigned i = 0; i < donor->nr_regions; i++)
		fn(ctx, donor->regions[i].region, donor->regions[i].from_directory);
	pthread_mutex_unlock(&donor->lock);
}

int weft_donor_flush(struct weft_donor *donor, struct weft_error *err)
{
	int first = 0;

	pthread_mutex_lock(&donor->open_lock); /* nothing is closed meanwhile */
	for (unsigned i = 0;; i++) {
		struct weft_region *region = NULL;
		int r;

		pthread_mutex_lock(&donor->lock);
		if (i < donor->nr_regions)
			region = weft_region_get(donor->regions[i].region);
		pthread_mutex_unlock(&donor->lock);
		if (!region)
			break;
		r = weft_region_flush(region);
		if (r < 0 && first == 0)
			first = weft_error_set(err, -r,
				"region '%s': cannot make its file durable: %s", region->name,
				strerror(-r));
		weft_region_put(region);
	}
	pthread_mutex_unlock(&donor->open_lock);
	return first;
}

struct listing {
	struct listed {
		char *name, *description;
		uint64_t size_bytes;
	} *items;
	size_t nr, room;
	bool full;
	char path[4096 + 1]; /* of the directory being read, with a slash, or "" */
};

/* 0, -ENOMEM, or -E2BIG: it is full. */
static int listing_add(struct listing *l, const char *name, const char *description,
	uint64_t size_bytes)
{
	if (l->nr >= MAX_LISTED) {
		l->full = true;
		return -E2BIG;
	}
	if (l->nr == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		struct listed *items = reallocarray(l->items, room, sizeof(*items));

		if (!items)
			return -ENOMEM;
		l->items = items;
		l->room = room;
	}
	struct listed *item = &l->items[l->nr];
	item->name = strdup(name);
	item->description = strdup(description);
	item->size_bytes = size_bytes;
	l->nr++;
	return item->name && item->description ? 0 : -ENOMEM;
}

/* The description says if a region is no longer what was opened. */
static int list_region(struct listing *l, const struct weft_region *region)
{
	struct weft_error err;
	char text[600];

	if (donor_given_to(region)) {
		snprintf(text, sizeof(text), "moved to %s", donor_given_to(region));
		return listing_add(l, region->name, text, region->size_bytes);
	}
	if (weft_region_check(region, &err) == 0)
		return listing_add(l, region->name, region->description, region->size_bytes);
	snprintf(text, sizeof(text), "cannot be attached: %s", err.message);
	return listing_add(l, region->name, text, region->size_bytes);
}

static int compare_listed(const void *a, const void *b)
{
	const struct listed *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/* The regular files below dir_fd (which it closes), without following links. */
static int list_files(struct listing *l, int dir_fd, unsigned depth)
{
	size_t base = strlen(l->path);
	DIR *dir = fdopendir(dir_fd);
	int r = 0;

	if (!dir) {
		close(dir_fd);
		return 0;
	}
	for (struct dirent *e; r == 0 && (e = readdir(dir));) {
		char description[64], size[32];
		struct stat st;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
			base + strlen(e->d_name) + 1 >= sizeof(l->path))
			continue;
		strcpy(l->path + base, e->d_name);
		if (!weft_region_name_valid(l->path, sizeof(l->path) - 1) ||
			fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISREG(st.st_mode) && st.st_size > 0) {
			snprintf(description, sizeof(description), "file, %s",
				weft_format_size((uint64_t)st.st_size, size, sizeof(size)));
			r = listing_add(l, l->path, description, (uint64_t)st.st_size);
		} else if (S_ISDIR(st.st_mode) && depth < MAX_DEPTH) {
			int fd = openat(dir_fd, e->d_name,
				O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

			if (fd < 0)
				continue;
			strcat(l->path, "/");
			r = list_files(l, fd, depth + 1);
		}
	}
	closedir(dir);
	return r;
}

int weft_donor_list(struct weft_donor *donor, const struct weft_peer *peer,
	int (*fn)(void *ctx, const char *name, const char *description, uint64_t size_bytes),
	void *ctx, struct weft_error *err)
{
	struct weft_rights rights;
	int r = let_in(donor, peer, &rights, err);

	if (r < 0)
		return r;
	struct listing *l = calloc(1, sizeof(*l)); /* the callers' stacks are small */
	if (!l) {
		weft_rights_fini(&rights);
		return -ENOMEM;
	}
	pthread_mutex_lock(&donor->lock);
	for (unsigned i = 0; i < donor->nr_regions && r == 0; i++) {
		struct donor_region *entry = &donor->regions[i];

		if (!entry->from_directory)
			r = list_region(l, entry->region);
	}
	size_t nr_given = l->nr;
	pthread_mutex_unlock(&donor->lock);
	if (r == 0 && donor->dir_fd >= 0) {
		/* A descriptor of its own: others may be reading the directory too. */
		int fd = openat(donor->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd >= 0)
			r = list_files(l, fd, 0);
		if (r == -E2BIG)
			r = 0;
		/* A region that was given hides a file of its name. */
		for (size_t i = 0; r == 0 && i < nr_given; i++)
			for (size_t j = nr_given; j < l->nr; j++)
				if (strcmp(l->items[i].name, l->items[j].name) == 0)
					l->items[j].size_bytes = 0;
		if (l->nr > 0)
			qsort(l->items, l->nr, sizeof(*l->items), compare_listed);
	}
	for (size_t i = 0; r == 0 && i < l->nr; i++)
		if (l->items[i].size_bytes > 0 &&
			weft_rights_have_region(&rights, l->items[i].name))
			r = fn(ctx, l->items[i].name, l->items[i].description,
				l->items[i].size_bytes);
	if (r == 0 && l->full)
		r = -E2BIG;
	for (size_t i = 0; i < l->nr; i++) {
		free(l->items[i].name);
		free(l->items[i].description);
	}
	free(l->items);
	free(l);
	weft_rights_fini(&rights);
	return r;
}
