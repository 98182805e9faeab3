/* SPDX-License-Identifier: MIT */
/* Files of keys and grants: who may use them is looked at on the open file. */
#include "fabric/key/key-private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/key/file.h"
#include "fabric/key/memory.h"

static int check_owner(const char *path, const struct stat *st, struct weft_error *err)
{
	if (st->st_uid == geteuid() || st->st_uid == 0)
		return 0;
	return weft_error_set(err, EPERM,
		"%s belongs to user %u, who could change it: it has to be yours or root's; "
		"chown %u %s",
		path, (unsigned)st->st_uid, (unsigned)geteuid(), path);
}

int weft_file_is_secret(const char *path, const struct stat *st, struct weft_error *err)
{
	if (!S_ISREG(st->st_mode))
		return weft_error_set(err, EINVAL, "%s is no file", path);
	int r = check_owner(path, st, err);
	if (r < 0)
		return r;
	if (st->st_mode & 077)
		return weft_error_set(err, EPERM,
			"others can use %s: its mode is %04o, and may be 0600 at most; chmod 600 "
			"%s",
			path, (unsigned)(st->st_mode & 07777), path);
	return 0;
}

int weft_file_is_firm(const char *path, const struct stat *st, struct weft_error *err)
{
	int r = check_owner(path, st, err);

	if (r == 0 && (st->st_mode & 022))
		r = weft_error_set(err, EPERM,
			"others can write to %s: its mode is %04o; chmod go-w %s", path,
			(unsigned)(st->st_mode & 07777), path);
	return r;
}

int weft_key_text_read(const char *path, struct weft_key_text *ret, struct weft_error *err)
{
	return weft_key_text_read_at(AT_FDCWD, path, path, ret, err);
}

int weft_key_text_read_at(int dir_fd, const char *name, const char *path,
	struct weft_key_text *ret, struct weft_error *err)
{
	/* A pipe is not waited for, but refused. */
	WEFT_CLEANUP_CLOSE int fd =
		openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0) {
		r = -errno;
		return weft_error_set(err, -r, "cannot open %s: %s", path, strerror(-r));
	}
	r = weft_file_is_secret(path, &st, err);
	if (r == 0 && st.st_size > WEFT_KEY_FILE_MAX)
		r = weft_error_set(err, EFBIG, "%s is over %d bytes", path, WEFT_KEY_FILE_MAX);
	if (r < 0)
		return r;
	weft_debug("reading %s", path);
	struct weft_key_text text = {.path = path, .len = (size_t)st.st_size};
	text.text = weft_secret_alloc(text.len);
	if (!text.text)
		return weft_error_set(err, ENOMEM, "no memory");
	r = weft_read_all(fd, text.text, text.len);
	if (r < 0) {
		weft_key_text_free(&text);
		return weft_error_set(err, -r, "cannot read %s: %s", path,
			r == -EPIPE ? "it was cut off meanwhile" : strerror(-r));
	}
	*ret = text;
	return 0;
}

void weft_key_text_free(struct weft_key_text *text)
{
	weft_secret_free(text->text, text->len);
	text->text = NULL;
}

bool weft_key_text_line(struct weft_key_text *text, const char **ret_line, size_t *ret_len)
{
	while (text->at < text->len) {
		const char *line = text->text + text->at;
		const char *end = memchr(line, '\n', text->len - text->at);
		size_t len = end ? (size_t)(end - line) : text->len - text->at, blank = 0;

		text->at += end ? len + 1 : len;
		text->line++;
		while (blank < len && strchr(" \t\r", line[blank]) && line[blank])
			blank++;
		if (blank == len || line[0] == '#')
			continue;
		*ret_line = line;
		*ret_len = len;
		return true;
	}
	return false;
}

int weft_key_text_parse(const struct weft_key_text *text, const char *line, size_t len,
	struct weft_key *ret, struct weft_error *err)
{
	int r = weft_key_parse(line, len, ret, err);

	if (r < 0)
		weft_error_prefix(err, "%s, line %u", text->path, text->line);
	return r;
}

int weft_secret_file_read(const char *path, uint8_t *ret, size_t len, struct weft_error *err)
{
	struct weft_key_text text;
	const char *line, *more;
	size_t line_len = 0, more_len;
	int r = weft_key_text_read(path, &text, err);

	if (r < 0)
		return r;
	uint8_t *secret = weft_secret_alloc(len);
	char *hex = weft_secret_alloc(2 * len + 1);
	bool one = secret && hex && weft_key_text_line(&text, &line, &line_len);
	while (one && line_len > 0 && (line[line_len - 1] == ' ' || line[line_len - 1] == '\r'))
		line_len--;
	if (one && line_len == 2 * len)
		memcpy(hex, line, line_len);
	if (!one || line_len != 2 * len || weft_unhex(hex, secret, len) < 0 ||
		weft_key_text_line(&text, &more, &more_len))
		r = weft_error_set(err, EINVAL,
			"%s has to be one line of %zu hexadecimal digits, as this makes it: "
			"(umask 077; openssl rand -hex %zu >%s)",
			path, 2 * len, len, path);
	else
		memcpy(ret, secret, len);
	weft_secret_free(secret, len);
	weft_secret_free(hex, 2 * len + 1);
	weft_key_text_free(&text);
	return r;
}

int weft_key_file_replace(int dir_fd, const char *dir, const char *name, const void *text,
	size_t len, struct weft_error *err)
{
	char new[64];

	snprintf(new, sizeof(new), ".%s.new", name);
	unlinkat(dir_fd, new, 0); /* of an edit that was killed */
	int fd = openat(dir_fd, new, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r = fd < 0 ? -errno : weft_write_all(fd, text, len);

	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (fd >= 0 && close(fd) < 0 && r == 0)
		r = -errno;
	if (r == 0 && renameat(dir_fd, new, dir_fd, name) < 0)
		r = -errno;
	if (r == 0 && fsync(dir_fd) < 0)
		r = -errno;
	if (r == 0)
		return 0;
	if (fd >= 0)
		unlinkat(dir_fd, new, 0);
	return weft_error_set(err, -r, "cannot write %s/%s: %s", dir, name, strerror(-r));
}
