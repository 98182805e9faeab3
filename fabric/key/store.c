/* SPDX-License-Identifier: MIT */
/*
 * The keys of a donor that runs.  A table is made as a whole from the files and takes the place of
 * the one before under the lock.  inotify(7) tells of changes in the directory at once; what it
 * does not tell of is looked for each second: another directory, and a file that is a link or
 * that another machine changes.
 */
#include "fabric/key/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/key/memory.h"
#include "fabric/key/store-private.h"

/* What is known of an identity beside its secret. */
struct about {
	uint64_t life;
	int64_t expires;
};

struct table {
	size_t nr, room;
	struct weft_key *keys; /* nr of them, in memory for secrets that has room for more */
	struct about *about;   /* the same */
	json_t *grants;        /* the whole of grants.json */
};

/* What tells each file from the one that was there before; zeros: there is none. */
struct stamps {
	uint64_t of[2][4]; /* device, inode, and the last change's seconds and nanoseconds */
};

struct weft_keys {
	pthread_mutex_t lock;
	struct table table;
	uint64_t last_life;
	char dir[PATH_MAX];
	/* inotify_fd tells of changes in the directory; timer_fd ticks */
	int inotify_fd, watch, timer_fd;
	struct stamps loaded, seen; /* of the table's files or older; at the last tick */
	atomic_bool there;
	struct weft_error error; /* of the last reload, which is tried again; code 0: none */
	int fd; /* an epoll(7) of both */
};

enum { LOOK_S = 1 };

static void table_fini(struct table *table)
{
	weft_secret_free(table->keys, table->room * sizeof(*table->keys));
	free(table->about);
	json_decref(table->grants);
}

static size_t find(const struct table *table, const char *identity)
{
	size_t i = 0;

	while (i < table->nr && strcmp(table->keys[i].identity, identity) != 0)
		i++;
	return i;
}

/* The next key of the text, which lets somebody in, into the table that has room for it. */
static int load_line(struct table *table, const struct weft_key_text *text, const char *line,
	size_t len, struct weft_error *err)
{
	struct weft_key *key = &table->keys[table->nr];
	char name[WEFT_KEY_NAME_MAX + 1];
	struct weft_rights rights;
	int r = weft_key_text_parse(text, line, len, key, err);

	if (r < 0)
		return r;
	if (find(table, key->identity) < table->nr)
		return weft_error_set(err, EINVAL, "%s, line %u: there is another key of '%s'",
			text->path, text->line, key->identity);
	weft_identity_name(key->identity, name);
	r = weft_grants_rights(table->grants, name, &rights, err);
	if (r == -ENOKEY) {
		weft_key_wipe(key);
		return 0;
	}
	if (r < 0)
		return r;
	table->about[table->nr++].expires = rights.expires;
	weft_rights_fini(&rights);
	return 0;
}

static size_t count_lines(struct weft_key_text text)
{
	const char *line;
	size_t len, n = 0;

	while (weft_key_text_line(&text, &line, &len))
		n++;
	return n;
}

static int load_keys(struct weft_key_text *text, struct table *table, struct weft_error *err)
{
	const char *line;
	size_t len;
	int r = 0;

	table->room = count_lines(*text);
	table->keys = weft_secret_alloc(table->room * sizeof(*table->keys));
	table->about = calloc(table->room + 1, sizeof(*table->about));
	if (!table->keys || !table->about)
		r = weft_error_set(err, ENOMEM, "no memory");
	while (r == 0 && weft_key_text_line(text, &line, &len))
		r = load_line(table, text, line, len, err);
	return r;
}

static int load(const char *dir, enum weft_keys_use use, struct table *ret, struct weft_error *err)
{
	struct table table = {0};
	struct weft_keys_files files;
	WEFT_CLEANUP_CLOSE int fd = weft_keys_dir_open(dir, err);

	if (fd < 0)
		return fd;
	int r = weft_keys_read(fd, dir, use, &files, err);
	if (r < 0)
		return r;
	table.grants = json_incref(files.grants);
	r = load_keys(&files.keys, &table, err);
	weft_keys_files_free(&files);
	if (r < 0)
		table_fini(&table);
	else
		*ret = table;
	return r;
}

static bool is_same_secret(const struct weft_key *a, const struct weft_key *b)
{
	return a->secret_bytes == b->secret_bytes &&
		weft_secret_equal(a->secret, b->secret, a->secret_bytes);
}

/* Puts the table in the place of the one before.  Whether they differ. */
static bool take(struct weft_keys *keys, const struct table *table)
{
	struct table old = keys->table;
	bool changed = old.nr != table->nr ||
		(old.grants != table->grants && !json_equal(old.grants, table->grants));

	for (size_t i = 0; i < table->nr; i++) {
		size_t was = find(&old, table->keys[i].identity);

		if (was < old.nr && is_same_secret(&table->keys[i], &old.keys[was])) {
			table->about[i].life = old.about[was].life;
		} else {
			table->about[i].life = ++keys->last_life;
			changed = true;
		}
	}
	pthread_mutex_lock(&keys->lock);
	keys->table = *table;
	pthread_mutex_unlock(&keys->lock);
	table_fini(&old);
	return changed;
}

static struct stamps look_at_files(const char *dir)
{
	static const char *const names[] = {WEFT_KEYS_FILE, WEFT_GRANTS_FILE};
	WEFT_CLEANUP_CLOSE int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stamps stamps = {0};
	struct stat st;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(names); i++) {
		uint64_t *of = stamps.of[i];

		if (fstatat(fd, names[i], &st, 0) < 0)
			continue;
		of[0] = st.st_dev;
		of[1] = st.st_ino;
		of[2] = (uint64_t)st.st_ctim.tv_sec;
		of[3] = (uint64_t)st.st_ctim.tv_nsec;
	}
	return stamps;
}

static bool are_same(const struct stamps *a, const struct stamps *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* Whether the files are others than those that were read, and nobody is about to change them. */
static bool have_changed(struct weft_keys *keys)
{
	const struct stamps now = look_at_files(keys->dir);
	bool changed = !are_same(&now, &keys->loaded) && are_same(&now, &keys->seen);

	keys->seen = now;
	return changed;
}

/* The watch is on what the path leads to now.  Whether that is another directory, or none. */
static bool watch_dir(struct weft_keys *keys)
{
	int watch = inotify_add_watch(keys->inotify_fd, keys->dir,
		IN_CLOSE_WRITE | IN_MOVE | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF |
			IN_ONLYDIR);
	bool is_same = watch >= 0 && watch == keys->watch;

	if (!is_same && keys->watch >= 0)
		inotify_rm_watch(keys->inotify_fd, keys->watch);
	keys->watch = watch;
	return !is_same;
}

static int add_to_fd(struct weft_keys *keys, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	return fd < 0 || epoll_ctl(keys->fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int begin_watching(struct weft_keys *keys, struct weft_error *err)
{
	const struct itimerspec every = {.it_value.tv_sec = LOOK_S, .it_interval.tv_sec = LOOK_S};

	keys->fd = epoll_create1(EPOLL_CLOEXEC);
	int r = keys->fd < 0 ? -errno : 0;

	if (r == 0) {
		keys->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
		r = add_to_fd(keys, keys->inotify_fd);
	}
	if (r == 0) {
		keys->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
		r = add_to_fd(keys, keys->timer_fd);
	}
	if (r == 0 && timerfd_settime(keys->timer_fd, 0, &every, NULL) < 0)
		r = -errno;
	if (r == 0)
		watch_dir(keys); /* load() says what is wrong with it */
	return r < 0 ? weft_error_set(err, -r, "cannot watch %s: %s", keys->dir, strerror(-r)) : 0;
}

int weft_keys_open(const char *dir, struct weft_keys **ret, struct weft_error *err)
{
	struct weft_keys *keys = calloc(1, sizeof(*keys));
	struct table table = {0};
	int r = 0;

	if (!keys)
		return weft_error_set(err, ENOMEM, "no memory");
	pthread_mutex_init(&keys->lock, NULL);
	keys->fd = keys->inotify_fd = keys->timer_fd = keys->watch = -1;
	if (!dir)
		r = weft_keys_default_dir(keys->dir, sizeof(keys->dir), err);
	else if (strlen(dir) >= sizeof(keys->dir))
		r = weft_error_set(err, ENAMETOOLONG, "the name of %.64s… is too long", dir);
	else
		strcpy(keys->dir, dir);
	/* The files are read after the watch exists, so that no change is missed. */
	if (r == 0)
		r = begin_watching(keys, err);
	keys->loaded = look_at_files(keys->dir);
	if (r == 0)
		r = load(keys->dir, WEFT_KEYS_LOOK, &table, err);
	keys->there = r == 0;
	if (r == -ENOENT && !dir)
		r = 0; /* nobody has made a key yet */
	if (r < 0) {
		weft_keys_close(keys);
		return r;
	}
	take(keys, &table);
	*ret = keys;
	return 0;
}

void weft_keys_close(struct weft_keys *keys)
{
	if (!keys)
		return;
	weft_close_fd(keys->fd);
	weft_close_fd(keys->inotify_fd);
	weft_close_fd(keys->timer_fd);
	table_fini(&keys->table);
	pthread_mutex_destroy(&keys->lock);
	free(keys);
}

const char *weft_keys_dir(const struct weft_keys *keys)
{
	return keys->dir;
}

bool weft_keys_are_there(const struct weft_keys *keys)
{
	return keys && keys->there;
}

int weft_keys_fd(const struct weft_keys *keys)
{
	return keys->fd;
}

/* Whether the files may be others than those that were read. */
static bool may_differ(struct weft_keys *keys)
{
	bool differ = keys->error.code != 0;
	char events[4096];

	while (read(keys->inotify_fd, events, sizeof(events)) > 0)
		differ = true;
	if (read(keys->timer_fd, events, sizeof(events)) > 0 && have_changed(keys))
		differ = true;
	return watch_dir(keys) || differ;
}

int weft_keys_reload(struct weft_keys *keys, struct weft_error *err)
{
	struct weft_error why = {0}, before = keys->error;
	struct table table = {0};

	if (!may_differ(keys))
		return 0;
	keys->loaded = look_at_files(keys->dir);
	int r = load(keys->dir, WEFT_KEYS_FOLLOW, &table, &why);
	/* Who removes the directory means its keys. */
	if (r == 0 || r == -ENOENT) {
		keys->error.code = 0;
		keys->there = keys->there || r == 0;
		return take(keys, &table);
	}
	keys->error = why;
	if (before.code == why.code && strcmp(before.message, why.message) == 0)
		return 0; /* that is known */
	if (err)
		*err = why;
	return r;
}

/* ---- questions ---- */

/* The place of an identity that lets somebody in now.  0 with the lock held; or -errno without. */
static int look_up(struct weft_keys *keys, const char *identity, size_t *ret)
{
	const int64_t now = (int64_t)time(NULL);
	int r = 0;

	pthread_mutex_lock(&keys->lock);
	*ret = find(&keys->table, identity);
	if (*ret == keys->table.nr)
		r = -ENOKEY;
	else if (keys->table.about[*ret].expires && now >= keys->table.about[*ret].expires)
		r = -EKEYEXPIRED;
	if (r < 0)
		pthread_mutex_unlock(&keys->lock);
	return r;
}

size_t weft_keys_count(struct weft_keys *keys)
{
	pthread_mutex_lock(&keys->lock);
	size_t nr = keys->table.nr;
	pthread_mutex_unlock(&keys->lock);
	return nr;
}

int weft_keys_get(struct weft_keys *keys, const char *identity, struct weft_key *ret,
	uint64_t *ret_life)
{
	size_t i;
	int r = look_up(keys, identity, &i);

	if (r < 0)
		return r;
	*ret = keys->table.keys[i];
	if (ret_life)
		*ret_life = keys->table.about[i].life;
	pthread_mutex_unlock(&keys->lock);
	return 0;
}

int weft_keys_rights(struct weft_keys *keys, const char *identity, struct weft_rights *ret)
{
	char name[WEFT_KEY_NAME_MAX + 1];
	size_t i;
	int r = look_up(keys, identity, &i);

	if (r < 0)
		return r;
	weft_identity_name(identity, name);
	r = weft_grants_rights(keys->table.grants, name, ret, NULL);
	if (r == 0)
		ret->life = keys->table.about[i].life;
	pthread_mutex_unlock(&keys->lock);
	return r;
}

int weft_keys_still(struct weft_keys *keys, const char *identity, uint64_t life)
{
	size_t i;
	int r = look_up(keys, identity, &i);

	if (r < 0)
		return r;
	r = keys->table.about[i].life == life ? 0 : -ENOKEY;
	pthread_mutex_unlock(&keys->lock);
	return r;
}
