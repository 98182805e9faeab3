/* SPDX-License-Identifier: MIT */
/* Changes of a donor's store: what is kept, what goes, and what a donor that reads it sees. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/key/store-edit.h"
#include "fabric/key/store.h"

#define SECRET "00112233445566778899aabbccddeeff"

static char top[64], dir[96];

static char *path_of(const char *name)
{
	static char path[160];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void put(const char *name, const char *text)
{
	int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(weft_write_all(fd, text, strlen(text)), 0);
	close(fd);
}

static const char *get(const char *name)
{
	static char text[4096];
	int fd = open(path_of(name), O_RDONLY);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	assert_true(n >= 0);
	text[n] = '\0';
	close(fd);
	return text;
}

static int set_up(void **state)
{
	strcpy(top, "/tmp/weft-key-edit-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	snprintf(dir, sizeof(dir), "%s/weft/keys", top);
	return 0;
}

static int tear_down(void **state)
{
	unlink(path_of("keys.psk"));
	unlink(path_of("grants.json"));
	unlink(path_of(".lock"));
	rmdir(dir);
	*strrchr(dir, '/') = '\0';
	rmdir(dir);
	return rmdir(top);
}

static struct weft_store *open_store(enum weft_store_use use)
{
	struct weft_error err = {0};
	struct weft_store *store = NULL;
	int r = weft_store_open(dir, use, &store, &err);

	if (r < 0)
		print_error("%s\n", err.message);
	assert_int_equal(r, 0);
	return store;
}

static void commit(struct weft_store *store)
{
	assert_int_equal(weft_store_commit(store, NULL), 0);
	weft_store_close(store);
}

static void add(const char *identity, const struct weft_rights *rights)
{
	struct weft_store *store = open_store(WEFT_STORE_MAKE);
	struct weft_key key;

	assert_int_equal(weft_key_new(identity, &key, NULL), 0);
	assert_int_equal(weft_store_add(store, &key, rights, NULL), 0);
	commit(store);
	weft_key_wipe(&key);
}

static bool lets_in(const char *identity)
{
	struct weft_keys *keys;
	struct weft_key key;

	assert_int_equal(weft_keys_open(dir, &keys, NULL), 0);
	int r = weft_keys_get(keys, identity, &key, NULL);
	weft_key_wipe(&key);
	weft_keys_close(keys);
	assert_true(r == 0 || r == -ENOKEY);
	return r == 0;
}

static void a_store_is_made_with_its_first_key(void **state)
{
	const struct weft_rights rights = {.read_only = true};
	struct stat st;

	add("node7", &rights);
	assert_true(lets_in("node7"));
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(stat(path_of("keys.psk"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(path_of("grants.json"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_non_null(strstr(get("grants.json"), "\"read_only\": true"));
}

static void what_others_wrote_stays(void **state)
{
	const struct weft_rights rights = {0};
	static const char before[] = "# nbdkit's\nalice:00112233445566778899aabbccddeeff\n\n# end";

	add("node7", &rights);
	put("keys.psk", before);
	add("node8", &rights);
	assert_memory_equal(get("keys.psk"), before, strlen(before));
	assert_memory_equal(get("keys.psk") + strlen(before), "\nnode8:", 7);
	assert_false(lets_in("alice"));
	assert_true(lets_in("node8"));
	struct weft_store *store = open_store(WEFT_STORE_CHANGE);
	weft_store_revoke(store, "node8");
	commit(store);
	assert_memory_equal(get("keys.psk"), before, strlen(before));
	assert_string_equal(get("keys.psk") + strlen(before), "\n");
	assert_null(strstr(get("grants.json"), "node8"));
}

static void a_rotation_has_two_identities_until_its_end(void **state)
{
	const struct weft_rights rights = {.max_sessions = 3};
	struct weft_store_row row;

	add("node7", &rights);
	add("node77", &rights);
	add("node7~2", NULL);
	assert_true(lets_in("node7") && lets_in("node7~2"));
	struct weft_store *store = open_store(WEFT_STORE_CHANGE);
	assert_int_equal(weft_store_find(store, "node7", &row, NULL), 0);
	assert_string_equal(row.identity, "node7~2");
	assert_string_equal(row.other, "node7");
	assert_true(row.has_rights);
	assert_int_equal(row.rights.max_sessions, 3);
	weft_rights_fini(&row.rights);
	weft_store_remove(store, "node7");
	commit(store);
	assert_false(lets_in("node7"));
	assert_true(lets_in("node7~2") && lets_in("node77"));

	/* And back. */
	add("node7", NULL);
	store = open_store(WEFT_STORE_LOOK);
	assert_int_equal(weft_store_find(store, "node7", &row, NULL), 0);
	assert_string_equal(row.identity, "node7");
	assert_string_equal(row.other, "node7~2");
	weft_rights_fini(&row.rights);
	weft_store_close(store);

	store = open_store(WEFT_STORE_CHANGE);
	weft_store_revoke(store, "node7");
	commit(store);
	assert_false(lets_in("node7") || lets_in("node7~2"));
	assert_true(lets_in("node77"));
}

static int note(void *ctx, const struct weft_store_row *row)
{
	strcat(strcat(ctx, row->name), row->has_rights ? " " : "! ");
	return 0;
}

static void each_name_comes_once(void **state)
{
	const struct weft_rights rights = {0};
	char names[128] = "";

	add("node7", &rights);
	add("node8", &rights);
	add("node7~2", NULL);
	add("node9", &rights);
	put("grants.json", "{\"version\": 1, \"keys\": {\"node7\": {}, \"node9\": {}}}");
	struct weft_store *store = open_store(WEFT_STORE_LOOK);
	assert_int_equal(weft_store_each(store, note, names, NULL), 0);
	assert_string_equal(names, "node7 node8! node9 ");
	weft_store_close(store);
}

static void what_is_not_committed_is_forgotten(void **state)
{
	const struct weft_rights rights = {0};

	add("node7", &rights);
	struct weft_store *store = open_store(WEFT_STORE_CHANGE);
	weft_store_revoke(store, "node7");
	weft_store_close(store);
	assert_true(lets_in("node7"));
}

static void a_store_that_is_missing_or_damaged_is_not_changed(void **state)
{
	const struct weft_rights rights = {0};
	struct weft_store *store;
	struct weft_error err;

	assert_int_equal(weft_store_open(dir, WEFT_STORE_CHANGE, &store, &err), -ENOENT);
	add("node7", &rights);
	put("keys.psk", "node7");
	assert_int_equal(weft_store_open(dir, WEFT_STORE_CHANGE, &store, &err), -EINVAL);
	assert_non_null(strstr(err.message, "keys.psk, line 1: "));
	put("keys.psk", "");
	put("grants.json", "{");
	assert_int_equal(weft_store_open(dir, WEFT_STORE_MAKE, &store, &err), -EINVAL);
	assert_non_null(strstr(err.message, "grants.json, line 1: "));
	assert_string_equal(get("grants.json"), "{");
}

/* A donor would keep the keys that it knew, and with them what seems to be revoked. */
static void what_donors_would_not_take_is_not_written(void **state)
{
	const struct weft_rights rights = {0};
	struct weft_error err = {0};
	char keys[4096];

	add("node7", &rights);
	add("node8", &rights);
	put("grants.json",
		"{\"version\": 1, \"keys\": {\"node7\": {}, \"node8\": {\"color\": 1}}}");
	struct weft_store *store = open_store(WEFT_STORE_CHANGE);
	weft_store_revoke(store, "node7");
	assert_int_equal(weft_store_commit(store, &err), -EINVAL);
	assert_non_null(strstr(err.message, "grants.json, 'node8': the field 'color'"));
	weft_store_close(store);
	assert_non_null(strstr(get("keys.psk"), "node7:"));
	assert_non_null(strstr(get("grants.json"), "node7"));
	store = open_store(WEFT_STORE_CHANGE);
	weft_store_revoke(store, "node8");
	commit(store);
	assert_true(lets_in("node7"));

	snprintf(keys, sizeof(keys), "%s%s", get("keys.psk"), "node9:" SECRET "\nnode9:" SECRET);
	put("keys.psk", keys);
	store = open_store(WEFT_STORE_CHANGE);
	weft_store_revoke(store, "node7");
	assert_int_equal(weft_store_commit(store, &err), -EINVAL);
	assert_non_null(strstr(err.message, "there is another key of 'node9'"));
	weft_store_revoke(store, "node9");
	commit(store);
	assert_false(lets_in("node7"));
}

/* A directory that others can open can be locked by them for as long as they like. */
static void others_do_not_hold_the_lock(void **state)
{
	const struct weft_rights rights = {0};
	struct weft_store *store;
	struct weft_error err;
	struct stat st;

	add("node7", &rights);
	assert_int_equal(chmod(dir, 0755), 0);
	int fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	store = open_store(WEFT_STORE_CHANGE);
	weft_store_revoke(store, "node7");
	commit(store);
	assert_false(lets_in("node7"));
	close(fd);
	assert_int_equal(stat(path_of(".lock"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);

	assert_int_equal(chmod(path_of(".lock"), 0644), 0);
	assert_int_equal(weft_store_open(dir, WEFT_STORE_CHANGE, &store, &err), -EPERM);
	assert_non_null(strstr(err.message, "/.lock: its mode is 0644"));
	assert_int_equal(unlink(path_of(".lock")), 0);
	assert_int_equal(symlink("keys.psk", path_of(".lock")), 0);
	assert_int_equal(weft_store_open(dir, WEFT_STORE_CHANGE, &store, &err), -ELOOP);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(a_store_is_made_with_its_first_key),
		TEST(what_others_wrote_stays),
		TEST(a_rotation_has_two_identities_until_its_end),
		TEST(each_name_comes_once),
		TEST(what_is_not_committed_is_forgotten),
		TEST(a_store_that_is_missing_or_damaged_is_not_changed),
		TEST(what_donors_would_not_take_is_not_written),
		TEST(others_do_not_hold_the_lock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
