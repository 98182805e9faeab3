/* SPDX-License-Identifier: MIT */
/* The files of a donor's keys. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/key/file.h"
#include "fabric/key/store-private.h"
#include "fabric/key/store.h"

enum { GRANTS_VERSION = 1, LOCK_MS = 10000, FOLLOW_MS = 500 };

int weft_keys_default_dir(char *ret, size_t len, struct weft_error *err)
{
	const char *home = secure_getenv("HOME");
	int n;

	if (geteuid() == 0)
		n = snprintf(ret, len, "/etc/weft/keys");
	else if (home && home[0] == '/')
		n = snprintf(ret, len, "%s/.config/weft/keys", home);
	else
		return weft_error_set(err, ENOENT,
			"there is no place for keys: HOME names no directory");
	if (n >= (int)len)
		return weft_error_set(err, ENAMETOOLONG, "HOME is too long for a path of keys");
	return 0;
}

int weft_keys_dir_open(const char *dir, struct weft_error *err)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0) {
		r = -errno;
		weft_error_set(err, -r, "cannot open the directory of keys %s: %s", dir,
			strerror(-r));
	} else {
		r = weft_file_is_firm(dir, &st, err);
	}
	if (r == 0)
		return fd;
	weft_close_fd(fd);
	return r;
}

static int wait_for_lock(int fd, const char *path, enum weft_keys_use use, struct weft_error *err)
{
	const uint64_t end_ns = weft_now_ns() +
		(use == WEFT_KEYS_FOLLOW ? FOLLOW_MS : LOCK_MS) * UINT64_C(1000000);

	while (flock(fd, (use == WEFT_KEYS_CHANGE ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
		int r = -errno;

		if (r != -EWOULDBLOCK)
			return weft_error_set(err, -r, "cannot lock %s: %s", path, strerror(-r));
		if (weft_now_ns() > end_ns)
			return weft_error_set(err, EBUSY,
				"another weft key has locked %s, and does not come to its end",
				path);
		usleep(5000);
	}
	return 0;
}

/*
 * *ret: a descriptor that has the lock; or, for who changes nothing, -1: there is no such file,
 * since nobody has changed the store yet.  The caller closes it, of an error, too.
 */
static int lock(int dir_fd, const char *dir, enum weft_keys_use use, int *ret,
	struct weft_error *err)
{
	const int flags = use == WEFT_KEYS_CHANGE ? O_RDWR | O_CREAT : O_RDONLY;
	char path[PATH_MAX];
	struct stat st;
	int r;

	if (snprintf(path, sizeof(path), "%s/" WEFT_LOCK_FILE, dir) >= (int)sizeof(path))
		return weft_error_set(err, ENAMETOOLONG, "the name of %s is too long", dir);
	*ret = openat(dir_fd, WEFT_LOCK_FILE, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	if (*ret < 0 && errno == ENOENT && use != WEFT_KEYS_CHANGE)
		return 0;
	if (*ret < 0 || fstat(*ret, &st) < 0) {
		r = -errno;
		return weft_error_set(err, -r, "cannot open %s: %s", path, strerror(-r));
	}
	r = weft_file_is_secret(path, &st, err);
	return r < 0 ? r : wait_for_lock(*ret, path, use, err);
}

static int file_of(int dir_fd, const char *dir, const char *name, char *path,
	struct weft_key_text *ret, struct weft_error *err)
{
	if (snprintf(path, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
		return weft_error_set(err, ENAMETOOLONG, "the name of %s is too long", dir);
	int r = weft_key_text_read_at(dir_fd, name, path, ret, err);
	if (r != -ENOENT)
		return r;
	*ret = (struct weft_key_text){.path = path};
	return 0;
}

/* *ret is a reference to the whole object, which has "version" and "keys", an object. */
static int read_grants(int dir_fd, const char *dir, json_t **ret, struct weft_error *err)
{
	struct weft_key_text text;
	char path[PATH_MAX];
	int r = file_of(dir_fd, dir, WEFT_GRANTS_FILE, path, &text, err);
	json_error_t where;

	if (r < 0)
		return r;
	if (text.len == 0) {
		*ret = json_pack("{s:i, s:{}}", "version", GRANTS_VERSION, "keys");
		return *ret ? 0 : weft_error_set(err, ENOMEM, "no memory");
	}
	json_t *json = json_loadb(text.text, text.len, JSON_REJECT_DUPLICATES, &where);
	weft_key_text_free(&text);
	if (!json)
		return weft_error_set(err, EINVAL, "%s, line %d: %s", path, where.line, where.text);
	json_int_t version = json_integer_value(json_object_get(json, "version"));
	if (version == GRANTS_VERSION && json_is_object(json_object_get(json, "keys"))) {
		*ret = json;
		return 0;
	}
	json_decref(json);
	if (version > GRANTS_VERSION)
		return weft_error_set(err, EINVAL, "%s is of a newer weft", path);
	return weft_error_set(err, EINVAL, "%s has no \"version\": %d and \"keys\"", path,
		GRANTS_VERSION);
}

void weft_keys_files_free(struct weft_keys_files *files)
{
	weft_key_text_free(&files->keys);
	json_decref(files->grants);
	files->grants = NULL;
	weft_close_fd(files->lock_fd);
	files->lock_fd = -1;
}

int weft_keys_read(int dir_fd, const char *dir, enum weft_keys_use use, struct weft_keys_files *ret,
	struct weft_error *err)
{
	bool again;

	do {
		*ret = (struct weft_keys_files){.lock_fd = -1};
		int r = lock(dir_fd, dir, use, &ret->lock_fd, err);
		if (r == 0)
			r = file_of(dir_fd, dir, WEFT_KEYS_FILE, ret->path, &ret->keys, err);
		if (r == 0)
			r = read_grants(dir_fd, dir, &ret->grants, err);
		/* Somebody may have made the lock meanwhile, and changed the files. */
		again = ret->lock_fd < 0 && faccessat(dir_fd, WEFT_LOCK_FILE, F_OK, 0) == 0;
		if (r < 0 || again)
			weft_keys_files_free(ret);
		if (r < 0)
			return r;
	} while (again);
	if (use != WEFT_KEYS_CHANGE) {
		weft_close_fd(ret->lock_fd);
		ret->lock_fd = -1;
	}
	return 0;
}

int weft_grants_rights(const json_t *grants, const char *name, struct weft_rights *ret,
	struct weft_error *err)
{
	json_t *one = json_object_get(json_object_get(grants, "keys"), name);

	if (!one)
		return weft_error_set(err, ENOKEY, WEFT_GRANTS_FILE " says nothing of '%s'", name);
	json_t *rights = json_copy(one);
	if (!rights)
		return weft_error_set(err, ENOMEM, "no memory");
	if (json_is_object(rights))
		json_object_del(rights, "current");
	int r = weft_rights_load(rights, ret, err);
	json_decref(rights);
	if (r == 0)
		strcpy(ret->name, name);
	else
		weft_error_prefix(err, WEFT_GRANTS_FILE ", '%s'", name);
	return r;
}
