/* SPDX-License-Identifier: MIT */
/* The borrower's key. */
#include "fabric/key/find.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/key/key-private.h"

#define SYSTEM_KEY "/etc/weft/key"

/*
 * Whether the user has this file, be it of use or not: a link that leads nowhere is one, and so is
 * what a directory of the user's own hides.  What another user's home hides is not the user's.
 */
static bool is_there(const char *path, const char *home)
{
	struct stat st;

	if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return true;
	if (errno == EACCES)
		return stat(home, &st) == 0 && st.st_uid == geteuid();
	return errno != ENOENT && errno != ENOTDIR;
}

/* The user's own, if it is there.  *ret is the path anyway; "": the user has no home. */
static bool locate_own(char *ret)
{
	const char *home = secure_getenv("HOME");

	ret[0] = '\0';
	if (!home || home[0] != '/' ||
		snprintf(ret, WEFT_KEY_PATH_MAX, "%s/.config/weft/key", home) >= WEFT_KEY_PATH_MAX)
		return false;
	return is_there(ret, home);
}

int weft_key_locate(const char *file, char *ret, struct weft_error *err)
{
	char own[WEFT_KEY_PATH_MAX];
	const char *found = file;

	if (!found) {
		found = secure_getenv("WEFT_KEY");
		if (found && !found[0])
			found = NULL;
	}
	if (!found && locate_own(own))
		found = own;
	/* Root's key, which other users cannot read, is not their key. */
	else if (!found && eaccess(SYSTEM_KEY, R_OK) == 0)
		found = SYSTEM_KEY;
	if (!found)
		return weft_error_set(err, ENOENT,
			"there is no key: neither --key nor WEFT_KEY names a file, and "
			"%s%s" SYSTEM_KEY " %s",
			own, own[0] ? " and " : "",
			access(SYSTEM_KEY, F_OK) == 0 ? "is not yours to read" : "are not there");
	if (strlen(found) >= WEFT_KEY_PATH_MAX)
		return weft_error_set(err, ENAMETOOLONG, "the key file's name is too long");
	strcpy(ret, found);
	return 0;
}

/* Whether `key` is what was asked for: 2: the very one; 1: its NAME's other one; 0. */
static int fits(const struct weft_key *key, const char *identity)
{
	if (!identity || strcmp(key->identity, identity) == 0)
		return 2;
	return weft_identity_is_of(key->identity, identity);
}

/* *ret is wiped unless 0 is returned. */
static int choose(struct weft_key_text *text, const char *identity, struct weft_key *ret,
	struct weft_error *err)
{
	unsigned nr_keys = 0, nr_fit = 0;
	int best = 0, r = 0;
	const char *line;
	struct weft_key key;
	size_t len;

	while (r == 0 && weft_key_text_line(text, &line, &len)) {
		r = weft_key_text_parse(text, line, len, &key, err);
		if (r < 0)
			break;
		int fit = fits(&key, identity);

		nr_keys++;
		if (fit > best)
			nr_fit = 0;
		if (fit > 0 && fit >= best) {
			nr_fit++;
			best = fit;
			*ret = key;
		}
		weft_key_wipe(&key);
	}
	if (r == 0 && nr_keys == 0)
		r = weft_error_set(err, ENOKEY,
			"%s has no key: each line is IDENTITY:SECRET, as weft key new writes it",
			text->path);
	else if (r == 0 && nr_fit == 0)
		r = weft_error_set(err, ENOKEY,
			"%s has no key of the identity '%s': is that the name that weft key new "
			"was given at the donor?",
			text->path, identity);
	else if (r == 0 && nr_fit > 1 && identity)
		r = weft_error_set(err, EINVAL, "%s has several keys of the identity '%s'",
			text->path, ret->identity);
	else if (r == 0 && nr_fit > 1)
		r = weft_error_set(err, ENOKEY,
			"%s has %u keys: say which one by its identity, as weft://%s@HOST",
			text->path, nr_fit, ret->identity);
	if (r < 0)
		weft_key_wipe(ret);
	return r;
}

int weft_key_load(const char *path, const char *identity, struct weft_key *ret,
	struct weft_error *err)
{
	struct weft_key_text text;
	int r = weft_key_text_read(path, &text, err);

	if (r == -ENOENT)
		return weft_error_set(err, ENOKEY, "there is no key file %s", path);
	if (r < 0) {
		weft_error_prefix(err, "cannot use the key");
		return r;
	}
	r = choose(&text, identity, ret, err);
	weft_key_text_free(&text);
	return r;
}

int weft_key_find(const char *file, const char *identity, struct weft_key *ret,
	struct weft_error *err)
{
	char path[WEFT_KEY_PATH_MAX];
	int r = weft_key_locate(file, path, err);

	return r < 0 ? r : weft_key_load(path, identity, ret, err);
}
