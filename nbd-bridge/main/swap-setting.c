/* SPDX-License-Identifier: MIT */
/* Settings of the kernel: see swap-setting.h.  No state. */
#include "nbd-bridge/main/swap-setting.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/machine/finding.h"
#include "nbd-bridge/main/swap-kernel.h"

static int write_value(const char *path, const char *value)
{
	char buf[PATH_MAX], line[SWAP_VALUE_MAX + 1];
	WEFT_CLEANUP_CLOSE int fd = open(facts_below_root(buf, path), O_WRONLY | O_CLOEXEC);
	const int n = snprintf(line, sizeof(line), "%s\n", value);

	if (fd < 0)
		return -errno;
	return write(fd, line, (size_t)n) < 0 ? -errno : 0;
}

static const struct swap_setting *find(const struct swap_note *note, const char *path)
{
	for (size_t i = 0; i < note->nr_settings; i++)
		if (strcmp(note->settings[i].path, path) == 0)
			return &note->settings[i];
	return NULL;
}

/* ---- what several swap spaces want ---- */

struct search {
	const struct swap_note *ours;
	const char *path;
	struct swap_setting found;
	char owner[WEFT_NAME_MAX + 1]; /* "": none */
};

static int look_at_note(void *ctx, const char *name)
{
	struct search *search = ctx;
	struct swap_note note;

	if (strcmp(name, search->ours->name) == 0 || swap_note_read(name, &note, NULL) < 0)
		return 0;
	const struct swap_setting *setting = find(&note, search->path);
	if (!setting)
		return 0;
	search->found = *setting;
	snprintf(search->owner, sizeof(search->owner), "%s", name);
	return 1;
}

/* Whether another swap space has changed the file. */
static bool others_have(const struct swap_note *note, const char *path, struct search *ret)
{
	*ret = (struct search){.ours = note, .path = path};
	return swap_note_each(look_at_note, ret) == 1;
}

/* ---- changing, giving back ---- */

/* Notes the change; the kernel may write the value in another form. */
static int note_change(struct swap_note *note, const char *path, const char *value,
	struct swap_setting **ret, struct weft_error *err)
{
	struct search other;

	if (note->nr_settings == WEFT_ARRAY_LEN(note->settings))
		return weft_error_set(err, E2BIG, "more than %zu settings would have to be changed",
			WEFT_ARRAY_LEN(note->settings));
	struct swap_setting *setting = &note->settings[note->nr_settings];
	if (snprintf(setting->path, sizeof(setting->path), "%s", path) >=
		(int)sizeof(setting->path))
		return weft_error_set(err, ENAMETOOLONG, "the name %.300s… is too long", path);
	if (!swap_read_line(path, setting->was, sizeof(setting->was)))
		return weft_error_set(err, ENOENT, "cannot read %s", path);
	if (others_have(note, path, &other)) {
		if (strcmp(other.found.now, value) != 0)
			return weft_error_set(err, EBUSY,
				"%s belongs to the swap '%s', which has set it to %s; end that "
				"first: weft swap off %s",
				path, other.owner, other.found.now, other.owner);
		snprintf(setting->was, sizeof(setting->was), "%s", other.found.was);
	}
	snprintf(setting->now, sizeof(setting->now), "%s", value);
	setting->not_read_back = true;
	note->nr_settings++;
	*ret = setting;
	return swap_note_write(note, err);
}

int swap_setting_change(struct swap_note *note, const char *path, const char *value,
	struct weft_error *err)
{
	struct swap_setting *setting;
	int r = note_change(note, path, value, &setting, err);

	if (r < 0)
		return r;
	r = write_value(path, value);
	if (r < 0)
		return weft_error_set(err, -r, "cannot write %s to %s: %s", value, path,
			strerror(-r));
	if (!swap_read_line(path, setting->now, sizeof(setting->now)))
		return weft_error_set(err, EIO, "cannot read %s any more", path);
	setting->not_read_back = false;
	return swap_note_write(note, err);
}

static void restore(const struct swap_note *note, const struct swap_setting *setting)
{
	char now[SWAP_VALUE_MAX];
	struct search other;

	/* A group that has ended needs nothing. */
	if (!swap_read_line(setting->path, now, sizeof(now)) || strcmp(now, setting->was) == 0 ||
		others_have(note, setting->path, &other))
		return;
	/* Who was killed before the value was read back did not see what the kernel made of it. */
	if (strcmp(now, setting->now) != 0 && !setting->not_read_back) {
		fprintf(stderr,
			"weft-swap: %s is %s by now, which is somebody else's; it was %s before\n",
			setting->path, now, setting->was);
		return;
	}
	int r = write_value(setting->path, setting->was);
	if (r < 0)
		fprintf(stderr, "weft-swap: cannot write %s to %s again: %s\n", setting->was,
			setting->path, strerror(-r));
}

void swap_settings_restore(const struct swap_note *note)
{
	for (size_t i = note->nr_settings; i-- > 0;)
		restore(note, &note->settings[i]);
}

void swap_settings_apply(const struct swap_note *note)
{
	char now[SWAP_VALUE_MAX];

	/* Those that restore() gave back; the others are somebody else's by now. */
	for (size_t i = 0; i < note->nr_settings; i++)
		if (swap_read_line(note->settings[i].path, now, sizeof(now)) &&
			strcmp(now, note->settings[i].was) == 0)
			write_value(note->settings[i].path, note->settings[i].now);
}

/* ---- groups ---- */

#define GROUPS "/sys/fs/cgroup"

/* "a-b.slice" is below "a.slice" (systemd.slice(5)). */
static int slice_path(const char *slice, char *ret, size_t len)
{
	size_t end = strlen(slice), n = 0;
	const char *suffix = ".slice";

	if (end > strlen(suffix) && strcmp(slice + end - strlen(suffix), suffix) == 0)
		end -= strlen(suffix);
	ret[0] = '\0';
	for (size_t i = 1; i <= end; i++) {
		if (i < end && slice[i] != '-')
			continue;
		int more = snprintf(ret + n, len - n, "/%.*s%s", (int)i, slice, suffix);

		if (more < 0 || (size_t)more >= len - n)
			return -ENAMETOOLONG;
		n += (size_t)more;
	}
	return 0;
}

int swap_group_find(const char *path, const char *slice, char ret[SWAP_PATH_MAX],
	struct weft_error *err)
{
	char below[SWAP_PATH_MAX / 2], file[SWAP_PATH_MAX + 32];

	if (slice &&
		(slice[0] == '\0' || strchr(slice, '/') ||
			slice_path(slice, below, sizeof(below)) < 0))
		return weft_error_set(err, EINVAL, "'%.100s' is no name of a slice", slice);
	if (!slice) {
		if (strncmp(path, GROUPS "/", strlen(GROUPS "/")) == 0)
			path += strlen(GROUPS);
		snprintf(below, sizeof(below), "%s%s", path[0] == '/' ? "" : "/", path);
	}
	while (strlen(below) > 1 && below[strlen(below) - 1] == '/')
		below[strlen(below) - 1] = '\0';
	if (strcmp(below, "/") == 0 || strstr(below, ".."))
		return weft_error_set(err, EINVAL,
			"the root group has no settings: name a group below " GROUPS);
	snprintf(ret, SWAP_PATH_MAX, "%s%s", GROUPS, below);
	if (!facts_exist(ret))
		return weft_error_set(err, ENOENT, "there is no group %s", ret);
	snprintf(file, sizeof(file), "%s/memory.swap.max", ret);
	if (!facts_exist(file))
		return weft_error_set(err, EOPNOTSUPP,
			"%s is not there: this needs cgroup v2, with its memory controller on for "
			"this group",
			file);
	return 0;
}

bool swap_group_has_us(const char *group)
{
	char line[PATH_MAX];
	const char *below = group + strlen(GROUPS);

	if (!facts_line("/proc/self/cgroup", "0::", line, sizeof(line)))
		return false;
	const char *ours = line + strlen("0::");
	return strncmp(ours, below, strlen(below)) == 0 &&
		(ours[strlen(below)] == '\0' || ours[strlen(below)] == '/');
}

int swap_group_limit(struct swap_note *note, uint64_t high_bytes, uint64_t swap_bytes,
	struct weft_error *err)
{
	char path[SWAP_PATH_MAX + 32], value[SWAP_VALUE_MAX];
	int r;

	/* Swap first: what memory.high puts out has to go somewhere. */
	snprintf(path, sizeof(path), "%s/memory.swap.max", note->group);
	snprintf(value, sizeof(value), "%" PRIu64, swap_bytes);
	r = swap_setting_change(note, path, value, err);
	if (r < 0 || high_bytes == 0)
		return r;
	snprintf(path, sizeof(path), "%s/memory.high", note->group);
	snprintf(value, sizeof(value), "%" PRIu64, high_bytes);
	return swap_setting_change(note, path, value, err);
}

/* Whether the group lies in the one at the top that has this name. */
static bool is_below(const char *group, const char *top)
{
	const char *at = group + strlen(GROUPS "/");

	return strncmp(at, top, strlen(top)) == 0 &&
		(at[strlen(top)] == '\0' || at[strlen(top)] == '/');
}

int swap_group_keep_others_off(struct swap_note *note, struct weft_error *err)
{
	char buf[PATH_MAX], path[SWAP_PATH_MAX];
	DIR *dir = opendir(facts_below_root(buf, GROUPS));
	struct dirent *entry;
	int r = dir ? 0 : weft_error_set(err, errno, "cannot look into " GROUPS);

	while (r == 0 && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.' || is_below(note->group, entry->d_name))
			continue;
		snprintf(path, sizeof(path), GROUPS "/%s/memory.swap.max", entry->d_name);
		if (facts_exist(path))
			r = swap_setting_change(note, path, "0", err);
	}
	if (dir)
		closedir(dir);
	return r;
}
