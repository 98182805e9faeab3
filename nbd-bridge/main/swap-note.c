/* SPDX-License-Identifier: MIT */
/* Notes of swap spaces: see swap-note.h.  One thread. */
#include "nbd-bridge/main/swap-note.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "fabric/base/control.h"
#include "fabric/base/util.h"

enum { SCHEMA = 1, DIR_BYTES = 128, FILE_BYTES = 256 };

static int file_of(const char *leaf, char path[FILE_BYTES], struct weft_error *err)
{
	char dir[DIR_BYTES];
	int r = weft_run_dir(dir, sizeof(dir));

	if (r < 0)
		return weft_error_set(err, -r, "cannot use the run directory: %s", strerror(-r));
	snprintf(path, FILE_BYTES, "%s/%s", dir, leaf);
	return 0;
}

static int note_file(const char *name, char path[FILE_BYTES], struct weft_error *err)
{
	char leaf[WEFT_NAME_MAX + 16];

	snprintf(leaf, sizeof(leaf), "swap-%s.json", name);
	return file_of(leaf, path, err);
}

int swap_lock(struct weft_error *err)
{
	char path[FILE_BYTES], pid[16] = "";
	int r = file_of("swap.lock", path, err);

	if (r < 0)
		return r;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
		int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());

		/* For whoever comes meanwhile; the lock itself is the kernel's. */
		if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) < 0)
			weft_error_set(err, errno, "cannot write %s: %s", path, strerror(errno));
		return fd;
	}
	r = errno;
	if (fd >= 0 && r == EWOULDBLOCK && pread(fd, pid, sizeof(pid) - 1, 0) >= 0) {
		pid[strcspn(pid, "\n")] = '\0';
		weft_error_set(err, EBUSY,
			"another weft swap is at work, pid %s; try again when it has ended",
			pid[0] ? pid : "unknown");
		r = EBUSY;
	} else {
		weft_error_set(err, r, "cannot lock %s: %s", path, strerror(r));
	}
	weft_close_fd(fd);
	return -r;
}

/* ---- as JSON ---- */

static json_t *to_json(const struct swap_note *note)
{
	json_t *members = json_array(), *settings = json_array();

	for (size_t i = 0; i < note->nr_members; i++)
		json_array_append_new(members,
			json_pack("{s:s, s:s, s:s, s:s}", "attachment",
				note->members[i].attachment, "device", note->members[i].device,
				"backend", note->members[i].backend, "uri",
				note->members[i].uri));
	for (size_t i = 0; i < note->nr_settings; i++)
		json_array_append_new(settings,
			json_pack("{s:s, s:s, s:s, s:b}", "file", note->settings[i].path, "was",
				note->settings[i].was, "now", note->settings[i].now,
				"not_read_back", note->settings[i].not_read_back));
	return json_pack("{s:i, s:s, s:s, s:i, s:s, s:b, s:o, s:o}", "schema", SCHEMA, "name",
		note->name, "boot", note->boot, "priority", note->priority, "group", note->group,
		"exclusive", note->exclusive, "members", members, "settings", settings);
}

/* False: it is no string, or too long. */
static bool take_text(const json_t *json, const char *key, char *ret, size_t len)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text && snprintf(ret, len, "%s", text) < (int)len;
}

static bool take_member(const json_t *json, struct swap_note *note)
{
	struct swap_member *member = &note->members[note->nr_members];

	if (note->nr_members == WEFT_ARRAY_LEN(note->members) ||
		!take_text(json, "attachment", member->attachment, sizeof(member->attachment)) ||
		!take_text(json, "device", member->device, sizeof(member->device)) ||
		!take_text(json, "uri", member->uri, sizeof(member->uri)) ||
		!weft_name_valid(member->attachment))
		return false;
	/* Notes of an earlier weft have none. */
	if (!take_text(json, "backend", member->backend, sizeof(member->backend)))
		member->backend[0] = '\0';
	note->nr_members++;
	return true;
}

static bool take_setting(const json_t *json, struct swap_note *note)
{
	struct swap_setting *setting = &note->settings[note->nr_settings];

	if (note->nr_settings == WEFT_ARRAY_LEN(note->settings) ||
		!take_text(json, "file", setting->path, sizeof(setting->path)) ||
		!take_text(json, "was", setting->was, sizeof(setting->was)) ||
		!take_text(json, "now", setting->now, sizeof(setting->now)))
		return false;
	setting->not_read_back = json_is_true(json_object_get(json, "not_read_back"));
	note->nr_settings++;
	return true;
}

static bool from_json(const json_t *json, struct swap_note *note)
{
	const json_t *one;
	size_t i;

	if (json_integer_value(json_object_get(json, "schema")) != SCHEMA ||
		!take_text(json, "name", note->name, sizeof(note->name)) ||
		!take_text(json, "boot", note->boot, sizeof(note->boot)) ||
		!take_text(json, "group", note->group, sizeof(note->group)))
		return false;
	note->priority = (int)json_integer_value(json_object_get(json, "priority"));
	note->exclusive = json_is_true(json_object_get(json, "exclusive"));
	json_array_foreach(json_object_get(json, "members"), i, one)
		if (!take_member(one, note))
			return false;
	json_array_foreach(json_object_get(json, "settings"), i, one)
		if (!take_setting(one, note))
			return false;
	return true;
}

/* What it says of the kernel is over with the machine's life. */
static void forget_earlier_life(struct swap_note *note)
{
	char boot[WEFT_BOOT_ID_BYTES];

	weft_boot_id(boot, sizeof(boot));
	if (strcmp(boot, note->boot) == 0)
		return;
	note->nr_settings = 0;
	for (size_t i = 0; i < note->nr_members; i++)
		note->members[i].device[0] = '\0';
}

/* ---- files ---- */

int swap_note_read(const char *name, struct swap_note *ret, struct weft_error *err)
{
	char path[FILE_BYTES];
	int r = note_file(name, path, err);

	if (r < 0)
		return r;
	if (access(path, F_OK) < 0)
		return weft_error_set(err, ENOENT,
			"there is no swap '%s'; weft swap status shows all", name);
	json_t *json = json_load_file(path, 0, NULL);
	*ret = (struct swap_note){0};
	bool ok = json && from_json(json, ret) && strcmp(ret->name, name) == 0;
	json_decref(json);
	if (ok) {
		forget_earlier_life(ret);
		return 0;
	}
	return weft_error_set(err, EUCLEAN,
		"%s is damaged, or of a newer weft; look at /proc/swaps, end what is left there "
		"with swapoff and weft detach, and remove the file",
		path);
}

int swap_note_write(struct swap_note *note, struct weft_error *err)
{
	char path[FILE_BYTES], fresh[FILE_BYTES + 8];
	int r = note_file(note->name, path, err);

	if (r < 0)
		return r;
	weft_boot_id(note->boot, sizeof(note->boot));
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	json_t *json = to_json(note);
	char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
	json_decref(json);
	if (!text)
		return weft_error_set(err, ENOMEM, "out of memory");
	int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : weft_write_all(fd, text, strlen(text));
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	weft_close_fd(fd);
	if (r == 0 && rename(fresh, path) < 0)
		r = -errno;
	free(text);
	if (r < 0) {
		unlink(fresh);
		weft_error_set(err, -r, "cannot write %s: %s", path, strerror(-r));
	}
	return r;
}

void swap_note_remove(const struct swap_note *note)
{
	char path[FILE_BYTES];

	if (note_file(note->name, path, NULL) == 0)
		unlink(path);
}

struct each {
	int (*fn)(void *ctx, const char *name);
	void *ctx;
	int result;
};

static int one_file(void *ctx, const char *file)
{
	struct each *each = ctx;
	const size_t head = strlen("swap-"), tail = strlen(".json"), len = strlen(file);
	char name[WEFT_NAME_MAX + 1];

	if (len <= head + tail || len - head - tail > WEFT_NAME_MAX || each->result != 0)
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)(len - head - tail), file + head);
	each->result = each->fn(each->ctx, name);
	return 0;
}

int swap_note_each(int (*fn)(void *ctx, const char *name), void *ctx)
{
	struct each each = {.fn = fn, .ctx = ctx};
	int r = weft_run_dir_each("swap-", ".json", one_file, &each);

	return r < 0 ? r : each.result;
}
