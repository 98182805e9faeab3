/* SPDX-License-Identifier: MIT */
/* The files of a donor's keys. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/key/store-private.h"
#include "fabric/key/store.h"

enum { GRANTS_VERSION = 1, LOCK_MS = 10000 };

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
		r = weft_key_check_owner(dir, &st, err);
		if (r == 0 && (st.st_mode & 022))
			r = weft_error_set(err, EPERM,
				"others can write to %s: its mode is %04o; chmod 700 %s", dir,
				(unsigned)(st.st_mode & 07777), dir);
	}
	if (r == 0)
		return fd;
	weft_close_fd(fd);
	return r;
}

static int wait_for_lock(int fd, const char *path, struct weft_error *err)
{
	const uint64_t end_ns = weft_now_ns() + LOCK_MS * UINT64_C(1000000);

	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
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

int weft_keys_lock(int dir_fd, const char *dir, struct weft_error *err)
{
	char path[PATH_MAX];
	struct stat st;
	int fd, r;

	if (snprintf(path, sizeof(path), "%s/" WEFT_LOCK_FILE, dir) >= (int)sizeof(path))
		return weft_error_set(err, ENAMETOOLONG, "the name of %s is too long", dir);
	fd = openat(dir_fd, WEFT_LOCK_FILE, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK,
		0600);
	if (fd < 0 || fstat(fd, &st) < 0) {
		r = -errno;
		weft_error_set(err, -r, "cannot open %s: %s", path, strerror(-r));
	} else {
		r = weft_key_check_file(path, &st, err);
	}
	if (r == 0)
		r = wait_for_lock(fd, path, err);
	if (r == 0)
		return fd;
	weft_close_fd(fd);
	return r;
}

static int file_of(const char *dir, const char *name, char *path, struct weft_key_text *ret,
	struct weft_error *err)
{
	if (snprintf(path, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
		return weft_error_set(err, ENAMETOOLONG, "the name of %s is too long", dir);
	int r = weft_key_text_read(path, ret, err);
	if (r != -ENOENT)
		return r;
	*ret = (struct weft_key_text){.path = path};
	return 0;
}

int weft_keys_text(const char *dir, char *path, struct weft_key_text *ret, struct weft_error *err)
{
	return file_of(dir, WEFT_KEYS_FILE, path, ret, err);
}

int weft_grants_text(const char *dir, json_t **ret, struct weft_error *err)
{
	struct weft_key_text text;
	char path[PATH_MAX];
	int r = file_of(dir, WEFT_GRANTS_FILE, path, &text, err);
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
