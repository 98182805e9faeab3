/* SPDX-License-Identifier: MIT */
/* A borrower's key while it is used: in memory for secrets as a whole. */
#include "fabric/key/held.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/key/memory.h"

struct weft_held_key {
	pthread_mutex_t lock;
	struct weft_key key;
	unsigned number;
	bool is_directory; /* there is no key, but certificates */
	char wanted[WEFT_IDENTITY_MAX + 1]; /* "": the only one */
	char file[WEFT_KEY_PATH_MAX];
};

/* A daemon leaves its directory. */
static int make_absolute(char *file, struct weft_error *err)
{
	char dir[PATH_MAX], path[PATH_MAX + WEFT_KEY_PATH_MAX];

	if (file[0] == '/')
		return 0;
	if (!getcwd(dir, sizeof(dir))) {
		int error = errno;

		/* ENOENT, of a directory that was removed, would say that nobody named a key. */
		return weft_error_set(err, error == ENOENT ? ENOKEY : error,
			"cannot tell where the key file %s is: %s", file, strerror(error));
	}
	if (snprintf(path, sizeof(path), "%s/%s", dir, file) >= WEFT_KEY_PATH_MAX)
		return weft_error_set(err, ENAMETOOLONG, "the key file's name is too long");
	strcpy(file, path);
	return 0;
}

static const char *wanted(const struct weft_held_key *held)
{
	return held->wanted[0] ? held->wanted : NULL;
}

bool weft_key_is_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int load(struct weft_held_key *held, struct weft_error *err)
{
	held->is_directory = weft_key_is_directory(held->file);
	if (!held->is_directory)
		return weft_key_load(held->file, wanted(held), &held->key, err);
	/* What is in it is read for each connection. */
	if (held->wanted[0])
		return weft_error_set(err, ENOKEY,
			"%s is a directory of certificates, and has no key of the identity %s: "
			"leave the identity out of the URI",
			held->file, held->wanted);
	return 0;
}

int weft_held_key_open(const char *file, const char *identity, struct weft_held_key **ret,
	struct weft_error *err)
{
	struct weft_held_key *held = weft_secret_alloc(sizeof(*held));

	if (!held)
		return weft_error_set(err, ENOMEM, "no memory");
	pthread_mutex_init(&held->lock, NULL);
	snprintf(held->wanted, sizeof(held->wanted), "%s", identity ? identity : "");
	int r = weft_key_locate(file, held->file, err);
	if (r == 0)
		r = make_absolute(held->file, err);
	if (r == 0)
		r = load(held, err);
	if (r < 0)
		weft_held_key_close(held);
	else
		*ret = held;
	return r;
}

void weft_held_key_close(struct weft_held_key *held)
{
	if (!held)
		return;
	pthread_mutex_destroy(&held->lock);
	weft_secret_free(held, sizeof(*held));
}

const struct weft_key *weft_held_key_proof(struct weft_held_key *held, struct weft_key *space,
	const char **ret_certificates)
{
	*ret_certificates = held && held->is_directory ? held->file : NULL;
	if (!held || held->is_directory)
		return NULL;
	pthread_mutex_lock(&held->lock);
	*space = held->key;
	pthread_mutex_unlock(&held->lock);
	return space;
}

bool weft_held_key_renew(struct weft_held_key *held)
{
	struct weft_error err;
	struct weft_key key;

	if (held->is_directory)
		return false;
	if (weft_key_load(held->file, wanted(held), &key, &err) < 0) {
		weft_debug("the key stays what it was: %s", err.message);
		return false;
	}
	pthread_mutex_lock(&held->lock);
	bool is_new = strcmp(key.identity, held->key.identity) != 0 ||
		      key.secret_bytes != held->key.secret_bytes ||
		      !weft_secret_equal(key.secret, held->key.secret, key.secret_bytes);
	held->key = key;
	held->number += is_new;
	pthread_mutex_unlock(&held->lock);
	weft_key_wipe(&key);
	return is_new;
}

unsigned weft_held_key_number(struct weft_held_key *held)
{
	pthread_mutex_lock(&held->lock);
	unsigned number = held->number;
	pthread_mutex_unlock(&held->lock);
	return number;
}

const char *weft_held_key_file(const struct weft_held_key *held)
{
	return held->file;
}

const char *weft_held_key_identity(struct weft_held_key *held, char *ret)
{
	pthread_mutex_lock(&held->lock);
	strcpy(ret, held->key.identity);
	pthread_mutex_unlock(&held->lock);
	return ret;
}
