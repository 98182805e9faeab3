/* SPDX-License-Identifier: MIT */
/*
 * Changes of a store.  keys.psk is changed as text, so that comments and keys of others stay as
 * they are.
 */
#include "fabric/key/store-edit.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/key/memory.h"
#include "fabric/key/store-private.h"

struct weft_store {
	const char *dir;
	int dir_fd;
	struct weft_keys_files files;
	struct weft_key_text text; /* of keys.psk, with room for one more key */
	size_t room;               /* bytes at text.text */
};

/* ---- opening ---- */

/* Each directory on the way to it, too. */
static int make_dir(const char *dir, struct weft_error *err)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s", dir) >= (int)sizeof(path))
		return weft_error_set(err, ENAMETOOLONG, "the name of %.64s… is too long", dir);
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		mkdir(path, 0755);
		*p = '/';
	}
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		int r = -errno;

		return weft_error_set(err, -r, "cannot make the directory of keys %s: %s", dir,
			strerror(-r));
	}
	return 0;
}

/* Every line is a key's, or the whole is refused: a donor would refuse it, too. */
static int check(struct weft_key_text text, struct weft_error *err)
{
	struct weft_key key;
	const char *line;
	size_t len;
	int r = 0;

	while (r == 0 && weft_key_text_line(&text, &line, &len)) {
		r = weft_key_text_parse(&text, line, len, &key, err);
		weft_key_wipe(&key);
	}
	return r;
}

static int make_room(struct weft_store *store, struct weft_error *err)
{
	struct weft_key_text *file = &store->files.keys;

	store->room = file->len + 1 + WEFT_KEY_LINE_MAX + 1;
	store->text = *file;
	store->text.text = weft_secret_alloc(store->room);
	if (store->text.text && file->len > 0)
		memcpy(store->text.text, file->text, file->len);
	weft_key_text_free(file);
	if (!store->text.text)
		return weft_error_set(err, ENOMEM, "no memory");
	return check(store->text, err);
}

int weft_store_open(const char *dir, enum weft_store_use use, struct weft_store **ret,
	struct weft_error *err)
{
	struct weft_store *store = calloc(1, sizeof(*store));
	int r = store ? 0 : weft_error_set(err, ENOMEM, "no memory");

	if (r < 0)
		return r;
	store->dir = dir;
	store->dir_fd = store->files.lock_fd = -1;
	if (use == WEFT_STORE_MAKE)
		r = make_dir(dir, err);
	if (r == 0)
		r = store->dir_fd = weft_keys_dir_open(dir, err);
	if (r >= 0)
		r = weft_keys_read(store->dir_fd, dir,
			use == WEFT_STORE_LOOK ? WEFT_KEYS_LOOK : WEFT_KEYS_CHANGE, &store->files,
			err);
	if (r == 0)
		r = make_room(store, err);
	if (r < 0)
		weft_store_close(store);
	else
		*ret = store;
	return r;
}

void weft_store_close(struct weft_store *store)
{
	if (!store)
		return;
	weft_secret_free(store->text.text, store->room);
	weft_keys_files_free(&store->files);
	weft_close_fd(store->dir_fd);
	free(store);
}

/* ---- looking ---- */

/* From this text on, the next line's identity into ret of WEFT_IDENTITY_MAX + 1. */
static bool next_identity(struct weft_key_text *text, const char **ret_line, char *ret)
{
	struct weft_key key;
	size_t len;

	if (!weft_key_text_line(text, ret_line, &len))
		return false;
	int r = weft_key_parse(*ret_line, len, &key, NULL);
	assert(r == 0); /* check() has seen the text */
	strcpy(ret, key.identity);
	weft_key_wipe(&key);
	return true;
}

static json_t *grants_of(const struct weft_store *store, const char *name)
{
	return json_object_get(json_object_get(store->files.grants, "keys"), name);
}

int weft_store_find(struct weft_store *store, const char *name, struct weft_store_row *ret,
	struct weft_error *err)
{
	struct weft_key_text text = store->text;
	struct weft_store_row row = {0};
	char identity[WEFT_IDENTITY_MAX + 1];
	const char *line, *current;

	current = json_string_value(json_object_get(grants_of(store, name), "current"));
	while (next_identity(&text, &line, identity)) {
		if (!weft_identity_is_of(identity, name))
			continue;
		if (!row.identity[0]) {
			strcpy(row.identity, identity);
		} else if (current && strcmp(identity, current) == 0) {
			strcpy(row.other, row.identity);
			strcpy(row.identity, identity);
		} else {
			strcpy(row.other, identity);
		}
	}
	if (!row.identity[0])
		return weft_error_set(err, ENOKEY, "%s has no key of '%s'; see: weft key list",
			store->dir, name);
	weft_identity_name(row.identity, row.name);
	int r = weft_grants_rights(store->files.grants, name, &row.rights, err);
	if (r < 0 && r != -ENOKEY)
		return r;
	row.has_rights = r == 0;
	*ret = row;
	return 0;
}

/* Whether an identity of this name stands above the line. */
static bool is_above(struct weft_key_text text, const char *line, const char *name)
{
	char identity[WEFT_IDENTITY_MAX + 1];
	const char *at;

	text.at = 0;
	while (next_identity(&text, &at, identity) && at < line)
		if (weft_identity_is_of(identity, name))
			return true;
	return false;
}

int weft_store_each(struct weft_store *store,
	int (*fn)(void *ctx, const struct weft_store_row *row), void *ctx, struct weft_error *err)
{
	struct weft_key_text text = store->text;
	char identity[WEFT_IDENTITY_MAX + 1], name[WEFT_KEY_NAME_MAX + 1];
	struct weft_store_row row;
	const char *line;
	int r = 0;

	while (r == 0 && next_identity(&text, &line, identity)) {
		weft_identity_name(identity, name);
		if (is_above(text, line, name))
			continue;
		r = weft_store_find(store, name, &row, err);
		if (r < 0)
			break;
		r = fn(ctx, &row);
		weft_rights_fini(&row.rights);
	}
	return r;
}

/* ---- changing ---- */

int weft_store_add(struct weft_store *store, const struct weft_key *key,
	const struct weft_rights *rights, struct weft_error *err)
{
	char name[WEFT_KEY_NAME_MAX + 1], *end = store->text.text + store->text.len;
	struct weft_key_text text = store->text;
	char identity[WEFT_IDENTITY_MAX + 1];
	const char *line;

	while (next_identity(&text, &line, identity))
		assert(strcmp(identity, key->identity) != 0);
	assert(store->text.len + 1 + WEFT_KEY_LINE_MAX < store->room);
	weft_identity_name(key->identity, name);
	json_t *grants = rights ? weft_rights_json(rights) : json_incref(grants_of(store, name));
	if (!grants || json_object_set_new(grants, "current", json_string(key->identity)) < 0 ||
		json_object_set(json_object_get(store->files.grants, "keys"), name, grants) < 0) {
		json_decref(grants);
		return weft_error_set(err, ENOMEM, "no memory");
	}
	json_decref(grants);
	if (store->text.len > 0 && end[-1] != '\n')
		*end++ = '\n';
	weft_key_format(key, end);
	end += strlen(end);
	*end++ = '\n';
	store->text.len = (size_t)(end - store->text.text);
	return 0;
}

void weft_store_remove(struct weft_store *store, const char *identity)
{
	struct weft_key_text text = store->text;
	char found[WEFT_IDENTITY_MAX + 1];
	const char *line;

	while (next_identity(&text, &line, found)) {
		size_t from = (size_t)(line - text.text);

		if (strcmp(found, identity) != 0)
			continue;
		memmove(text.text + from, text.text + text.at, text.len - text.at);
		text.len -= text.at - from;
		text.at = from;
	}
	store->text.len = text.len;
}

void weft_store_revoke(struct weft_store *store, const char *name)
{
	struct weft_key_text text = store->text;
	char identity[WEFT_IDENTITY_MAX + 1];
	const char *line;

	while (next_identity(&text, &line, identity)) {
		if (!weft_identity_is_of(identity, name))
			continue;
		weft_store_remove(store, identity);
		text = store->text;
	}
	json_object_del(json_object_get(store->files.grants, "keys"), name);
}

/* Whether the identity is above the line. */
static bool is_repeated(struct weft_key_text text, const char *line, const char *identity)
{
	char other[WEFT_IDENTITY_MAX + 1];
	const char *at;

	text.at = 0;
	while (next_identity(&text, &at, other) && at < line)
		if (strcmp(other, identity) == 0)
			return true;
	return false;
}

/*
 * A donor takes a store as a whole, or goes on with the keys that it knew: with one slip in the
 * store nothing that is revoked here would be over there.
 */
static int check_for_donors(const struct weft_store *store, struct weft_error *err)
{
	struct weft_key_text text = store->text;
	char identity[WEFT_IDENTITY_MAX + 1], name[WEFT_KEY_NAME_MAX + 1];
	struct weft_rights rights;
	const char *line;
	int r = 0;

	while (r == 0 && next_identity(&text, &line, identity)) {
		weft_identity_name(identity, name);
		if (is_repeated(text, line, identity))
			r = weft_error_set(err, EINVAL, "%s, line %u: there is another key of '%s'",
				store->files.path, text.line, identity);
		else
			r = weft_grants_rights(store->files.grants, name, &rights, err);
		if (r == 0)
			weft_rights_fini(&rights);
		else if (r == -ENOKEY) /* it lets nobody in */
			r = 0;
	}
	if (r < 0)
		weft_error_prefix(err,
			"nothing was changed, since donors would not take it; mend this first, or "
			"revoke that name");
	return r;
}

int weft_store_commit(struct weft_store *store, struct weft_error *err)
{
	int r = check_for_donors(store, err);

	if (r < 0)
		return r;
	char *grants = json_dumps(store->files.grants, JSON_INDENT(2) | JSON_SORT_KEYS);

	if (!grants)
		return weft_error_set(err, ENOMEM, "no memory");
	r = weft_key_file_replace(store->dir_fd, store->dir, WEFT_GRANTS_FILE, grants,
		strlen(grants), err);
	free(grants);
	if (r == 0)
		r = weft_key_file_replace(store->dir_fd, store->dir, WEFT_KEYS_FILE,
			store->text.text, store->text.len, err);
	return r;
}
