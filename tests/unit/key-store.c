/* SPDX-License-Identifier: MIT */
/* A donor's keys: who is let in, what is granted, and how both follow the files. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/key/store.h"

#define ONE "00112233445566778899aabbccddeeff"
#define TWO "ffeeddccbbaa99887766554433221100"

static char dir[64];

static void put(const char *name, const char *text)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(weft_write_all(fd, text, strlen(text)), 0);
	close(fd);
}

static void drop(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
}

static void grants(const char *keys)
{
	char text[1024];

	snprintf(text, sizeof(text), "{\"version\": 1, \"keys\": {%s}}", keys);
	put("grants.json", text);
}

static int set_up(void **state)
{
	strcpy(dir, "/tmp/weft-key-store-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	drop("keys.psk");
	drop("grants.json");
	drop(".lock");
	return rmdir(dir);
}

static struct weft_keys *open_keys(void)
{
	struct weft_error err = {0};
	struct weft_keys *keys = NULL;
	int r = weft_keys_open(dir, &keys, &err);

	if (r < 0)
		print_error("%s\n", err.message);
	assert_int_equal(r, 0);
	return keys;
}

static void is_refused(int code, const char *message)
{
	struct weft_error err = {0};
	struct weft_keys *keys;

	assert_int_equal(weft_keys_open(dir, &keys, &err), code);
	if (!strstr(err.message, message))
		print_error("'%s' is not in '%s'\n", message, err.message);
	assert_non_null(strstr(err.message, message));
	assert_null(strstr(err.message, "0011"));
}

static bool has(struct weft_keys *keys, const char *identity, int r)
{
	struct weft_key key;
	bool right = weft_keys_get(keys, identity, &key, NULL) == r;

	if (right && r == 0)
		right = strcmp(key.identity, identity) == 0;
	return right;
}

static void a_key_with_grants_lets_in(void **state)
{
	put("keys.psk", "# by hand\nnode7:" ONE "\n\nnode7~2:" TWO "\nnobody:" ONE "\n");
	grants("\"node7\": {\"current\": \"node7~2\"}, \"late\": {}");
	struct weft_keys *keys = open_keys();

	assert_int_equal(weft_keys_count(keys), 2);
	assert_true(has(keys, "node7", 0));
	assert_true(has(keys, "node7~2", 0));
	assert_true(has(keys, "nobody", -ENOKEY));
	assert_true(has(keys, "late", -ENOKEY));
	assert_true(has(keys, "", -ENOKEY));
	weft_keys_close(keys);
}

static void without_files_nobody_is_let_in(void **state)
{
	struct weft_keys *keys = open_keys();

	assert_true(has(keys, "node7", -ENOKEY));
	weft_keys_close(keys);
	put("keys.psk", "node7:" ONE "\n");
	keys = open_keys();
	assert_true(has(keys, "node7", -ENOKEY));
	weft_keys_close(keys);
}

static void rights_are_what_the_file_says(void **state)
{
	struct weft_rights rights;

	put("keys.psk", "node7:" ONE "\nfree:" TWO "\n");
	grants("\"free\": {}, \"node7\": {\"regions\": [\"a\", \"b c\"], \"read_only\": true, "
	       "\"max_bytes\": 1073741824, \"max_sessions\": 4, \"from\": [\"192.0.2.0/25\", "
	       "\"fe80::/10\", \"198.51.100.7\"], \"expires\": \"2199-01-31T10:00:00Z\", "
	       "\"admin\": true, \"rdma_plaintext\": true}");
	struct weft_keys *keys = open_keys();

	assert_int_equal(weft_keys_rights(keys, "node7", &rights), 0);
	assert_string_equal(rights.name, "node7");
	assert_true(rights.read_only && rights.admin && rights.rdma_plaintext);
	assert_int_equal(rights.max_bytes, WEFT_GIB);
	assert_int_equal(rights.max_sessions, 4);
	assert_int_equal(rights.expires, 7229210400);
	assert_true(weft_rights_have_region(&rights, "a"));
	assert_true(weft_rights_have_region(&rights, "b c"));
	assert_false(weft_rights_have_region(&rights, "c"));
	assert_false(weft_rights_have_region(&rights, ""));
	json_t *json = weft_rights_json(&rights);
	struct weft_rights again;
	assert_int_equal(weft_rights_load(json, &again, NULL), 0);
	json_t *twice = weft_rights_json(&again);
	assert_true(json_equal(json, twice));
	assert_int_equal(json_object_size(json), 8);
	json_decref(json);
	json_decref(twice);
	weft_rights_fini(&again);
	weft_rights_fini(&rights);

	assert_int_equal(weft_keys_rights(keys, "free", &rights), 0);
	assert_false(rights.read_only || rights.admin || rights.rdma_plaintext);
	assert_true(weft_rights_have_region(&rights, "anything"));
	weft_rights_fini(&rights);
	assert_int_equal(weft_keys_rights(keys, "node8", &rights), -ENOKEY);
	weft_keys_close(keys);
}

static bool may_come(const struct weft_rights *rights, const char *text)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};

	if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
		return weft_rights_have_address(rights, (struct sockaddr *)&in);
	assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
	return weft_rights_have_address(rights, (struct sockaddr *)&in6);
}

static void ranges_hold_their_addresses(void **state)
{
	const struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct weft_range ranges[4];
	struct weft_rights rights = {.from = ranges};
	char text[WEFT_RANGE_TEXT_MAX];

	assert_true(may_come(&rights, "203.0.113.1"));
	assert_true(weft_rights_have_address(&rights, (const struct sockaddr *)&un));
	assert_int_equal(weft_range_parse("192.0.2.0/25", &ranges[rights.nr_from++]), 0);
	assert_int_equal(weft_range_parse("2001:db8::/33", &ranges[rights.nr_from++]), 0);
	assert_int_equal(weft_range_parse("198.51.100.7", &ranges[rights.nr_from++]), 0);
	assert_string_equal(weft_range_format(&ranges[1], text), "2001:db8::/33");
	assert_string_equal(weft_range_format(&ranges[2], text), "198.51.100.7/32");
	assert_true(may_come(&rights, "192.0.2.127"));
	assert_true(may_come(&rights, "::ffff:192.0.2.127"));
	assert_false(may_come(&rights, "192.0.2.128"));
	assert_true(may_come(&rights, "2001:db8:7fff::1"));
	assert_false(may_come(&rights, "2001:db8:8000::1"));
	assert_true(may_come(&rights, "198.51.100.7"));
	assert_false(may_come(&rights, "198.51.100.6"));
	assert_false(weft_rights_have_address(&rights, (const struct sockaddr *)&un));
	/* Every IPv6 address is no IPv4 address. */
	rights.nr_from = 1;
	assert_int_equal(weft_range_parse("::/0", &ranges[0]), 0);
	assert_true(may_come(&rights, "2001:db8::1"));
	assert_false(may_come(&rights, "192.0.2.1"));
	assert_false(may_come(&rights, "::ffff:192.0.2.1"));

	static const char *const wrong[] = {"", "/8", "192.0.2/24", "192.0.2.0/", "192.0.2.0/33",
		"192.0.2.0/-1", "192.0.2.0/8x", "::/129", "node7", "192.0.2.0/00000000000000008"};
	for (size_t i = 0; i < WEFT_ARRAY_LEN(wrong); i++)
		assert_int_equal(weft_range_parse(wrong[i], &ranges[0]), -EINVAL);
}

static void dates_are_dates(void **state)
{
	static const char *const wrong[] = {"", "soon", "2027-02-31", "2027-13-01", "2027-01-01x",
		"2027-01-01T25:00:00Z", "2027-01-01T10:00:00", "1969-12-31"};
	char text[WEFT_DATE_TEXT_MAX];
	int64_t seconds;

	assert_int_equal(weft_date_parse("2027-01-31", &seconds), 0);
	assert_string_equal(weft_date_format(seconds, text), "2027-01-31T00:00:00Z");
	assert_int_equal(weft_date_parse("2027-01-31T12:34:56Z", &seconds), 0);
	assert_string_equal(weft_date_format(seconds, text), "2027-01-31T12:34:56Z");
	for (size_t i = 0; i < WEFT_ARRAY_LEN(wrong); i++)
		assert_int_equal(weft_date_parse(wrong[i], &seconds), -EINVAL);
}

static void an_expired_key_lets_nobody_in(void **state)
{
	struct weft_rights rights;

	put("keys.psk", "node7:" ONE "\n");
	grants("\"node7\": {\"expires\": \"2001-01-01\"}");
	struct weft_keys *keys = open_keys();

	assert_true(has(keys, "node7", -EKEYEXPIRED));
	assert_int_equal(weft_keys_rights(keys, "node7", &rights), -EKEYEXPIRED);
	assert_int_equal(weft_keys_still(keys, "node7", 1), -EKEYEXPIRED);
	weft_keys_close(keys);
}

/* What is not understood may have been meant as a limit. */
static void damage_is_refused(void **state)
{
	static const char *const wrong[] = {"\"node7\": {\"color\": 1}", "\"node7\": []",
		"\"node7\": {\"regions\": []}", "\"node7\": {\"regions\": \"a\"}",
		"\"node7\": {\"regions\": [1]}", "\"node7\": {\"from\": []}",
		"\"node7\": {\"from\": [\"here\"]}", "\"node7\": {\"read_only\": 1}",
		"\"node7\": {\"max_bytes\": 0}", "\"node7\": {\"max_sessions\": -1}",
		"\"node7\": {\"max_sessions\": 4294967297}", "\"node7\": {\"expires\": 1}",
		"\"node7\": {\"expires\": \"never\"}"};

	put("keys.psk", "node7:" ONE "\n");
	for (size_t i = 0; i < WEFT_ARRAY_LEN(wrong); i++) {
		print_message("%s\n", wrong[i]);
		grants(wrong[i]);
		is_refused(-EINVAL, "grants.json, 'node7': ");
	}
	put("grants.json", "{\"version\": 2, \"keys\": {}}");
	is_refused(-EINVAL, "is of a newer weft");
	put("grants.json", "[]");
	is_refused(-EINVAL, "grants.json has no");
	put("grants.json", "{\"version\": 1, \"keys\": {}, \"keys\": {}}");
	is_refused(-EINVAL, "duplicate");
	grants("\"node7\": {}");
	put("keys.psk", "node7:" ONE "\nnode7:" TWO "\n");
	is_refused(-EINVAL, "keys.psk, line 2: there is another key of 'node7'");
	put("keys.psk", "node7:" ONE "\n-\n");
	is_refused(-EINVAL, "keys.psk, line 2: ");
}

static void what_others_can_change_is_refused(void **state)
{
	char path[128];

	put("keys.psk", "node7:" ONE "\n");
	grants("\"node7\": {}");
	assert_int_equal(chmod(dir, 0770), 0);
	is_refused(-EPERM, "chmod go-w /tmp/weft-key-store-");
	assert_int_equal(chmod(dir, 0755), 0);
	weft_keys_close(open_keys());
	snprintf(path, sizeof(path), "%s/grants.json", dir);
	assert_int_equal(chmod(path, 0644), 0);
	is_refused(-EPERM, "/grants.json: its mode is 0644");
	if (geteuid() == 0) {
		assert_int_equal(chown(dir, 12345, 12345), 0);
		is_refused(-EPERM, "belongs to user 12345");
		assert_int_equal(chown(dir, 0, 0), 0);
	}
	rmdir(dir);
	strcat(dir, "-gone");
	is_refused(-ENOENT, "cannot open the directory of keys");
	dir[strlen(dir) - 5] = '\0';
}

static bool is_told(struct weft_keys *keys)
{
	struct pollfd fd = {.fd = weft_keys_fd(keys), .events = POLLIN};

	return poll(&fd, 1, 2000) == 1;
}

static void changes_are_told_and_taken(void **state)
{
	struct weft_rights rights;
	struct weft_error err;

	put("keys.psk", "node7:" ONE "\nnode8:" TWO "\n");
	grants("\"node7\": {}, \"node8\": {}");
	struct weft_keys *keys = open_keys();

	assert_int_equal(weft_keys_rights(keys, "node7", &rights), 0);
	assert_int_equal(weft_keys_reload(keys, NULL), 0);
	assert_int_equal(weft_keys_still(keys, "node7", rights.life), 0);

	/* Rights change: the session is looked at again, and goes on. */
	grants("\"node7\": {\"read_only\": true}, \"node8\": {}");
	assert_true(is_told(keys));
	assert_int_equal(weft_keys_reload(keys, NULL), 1);
	assert_int_equal(weft_keys_still(keys, "node7", rights.life), 0);

	/* A slip ends nobody, and lets nobody else in. */
	put("keys.psk", "node9:" ONE "\nnode7");
	assert_true(is_told(keys));
	assert_int_equal(weft_keys_reload(keys, &err), -EINVAL);
	assert_int_equal(weft_keys_still(keys, "node7", rights.life), 0);
	assert_true(has(keys, "node9", -ENOKEY));

	/* Another secret under the same identity is another key. */
	put("keys.psk", "node7:" TWO "\nnode8:" TWO "\n");
	assert_true(is_told(keys));
	assert_int_equal(weft_keys_reload(keys, &err), 1);
	assert_int_equal(weft_keys_still(keys, "node7", rights.life), -ENOKEY);
	assert_true(has(keys, "node7", 0));

	drop("keys.psk");
	assert_true(is_told(keys));
	assert_int_equal(weft_keys_reload(keys, NULL), 1);
	assert_true(has(keys, "node8", -ENOKEY));
	weft_keys_close(keys);
}

/* A directory that is removed takes its keys along; one in its place brings its own. */
static void a_store_is_replaced_as_a_whole(void **state)
{
	char away[80];

	put("keys.psk", "node7:" ONE "\n");
	grants("\"node7\": {}");
	struct weft_keys *keys = open_keys();

	snprintf(away, sizeof(away), "%s-away", dir);
	assert_int_equal(rename(dir, away), 0);
	assert_true(is_told(keys));
	assert_int_equal(weft_keys_reload(keys, NULL), 1);
	assert_true(has(keys, "node7", -ENOKEY));
	assert_int_equal(weft_keys_reload(keys, NULL), 0);

	assert_int_equal(mkdir(dir, 0700), 0);
	put("keys.psk", "node8:" TWO "\n");
	grants("\"node8\": {}");
	assert_true(is_told(keys));
	assert_int_equal(weft_keys_reload(keys, NULL), 1);
	assert_true(has(keys, "node7", -ENOKEY));
	assert_true(has(keys, "node8", 0));

	/* It is followed again, and the other is not. */
	grants("\"node8\": {\"read_only\": true}");
	assert_true(is_told(keys));
	assert_int_equal(weft_keys_reload(keys, NULL), 1);
	drop("keys.psk");
	drop("grants.json");
	assert_int_equal(rmdir(dir), 0);
	assert_true(is_told(keys));
	assert_int_equal(weft_keys_reload(keys, NULL), 1);
	assert_int_equal(weft_keys_count(keys), 0);
	weft_keys_close(keys);
	assert_int_equal(rename(away, dir), 0);
}

static int reload_when_told(struct weft_keys *keys)
{
	int r = 0;

	for (unsigned tries = 0; tries < 3 && r == 0 && is_told(keys); tries++)
		r = weft_keys_reload(keys, NULL);
	return r;
}

/* Of what is above the store, and of where a link leads, inotify tells nothing. */
static void the_path_may_lead_elsewhere(void **state)
{
	char other[80], link[80];
	struct weft_keys *keys;

	put("keys.psk", "node7:" ONE "\n");
	grants("\"node7\": {}");
	snprintf(other, sizeof(other), "%s-other", dir);
	snprintf(link, sizeof(link), "%s-link", dir);
	assert_int_equal(symlink(dir, link), 0);
	assert_int_equal(weft_keys_open(link, &keys, NULL), 0);
	assert_true(has(keys, "node7", 0));
	assert_int_equal(reload_when_told(keys), 0);

	assert_int_equal(mkdir(other, 0700), 0);
	assert_int_equal(unlink(link), 0);
	assert_int_equal(symlink(other, link), 0);
	assert_int_equal(reload_when_told(keys), 1);
	assert_true(has(keys, "node7", -ENOKEY));
	assert_int_equal(unlink(link), 0);
	assert_int_equal(symlink(dir, link), 0);
	assert_int_equal(reload_when_told(keys), 1);
	assert_true(has(keys, "node7", 0));
	weft_keys_close(keys);
	unlink(link);
	rmdir(other);
}

/* A file that is a link is followed where it leads. */
static void a_file_may_be_elsewhere(void **state)
{
	char other[80], path[128];

	put("other.psk", "node7:" ONE "\n");
	grants("\"node7\": {}");
	snprintf(other, sizeof(other), "%s-other", dir);
	assert_int_equal(mkdir(other, 0700), 0);
	snprintf(path, sizeof(path), "%s/other.psk", dir);
	snprintf(other, sizeof(other), "%s-other/psk", dir);
	assert_int_equal(rename(path, other), 0);
	snprintf(path, sizeof(path), "%s/keys.psk", dir);
	assert_int_equal(symlink(other, path), 0);
	struct weft_keys *keys = open_keys();

	assert_true(has(keys, "node7", 0));
	assert_int_equal(reload_when_told(keys), 0);
	int fd = open(other, O_WRONLY | O_TRUNC);
	assert_int_equal(weft_write_all(fd, "node8:" TWO "\n", 39), 0);
	close(fd);
	assert_int_equal(reload_when_told(keys), 1);
	assert_true(has(keys, "node7", -ENOKEY));
	assert_int_equal(unlink(other), 0);
	*strrchr(other, '/') = '\0';
	assert_int_equal(rmdir(other), 0);
	weft_keys_close(keys);
}

/* What could not be read is tried again, and told once. */
static void a_failure_is_tried_again(void **state)
{
	struct weft_error err = {0};

	put("keys.psk", "node7:" ONE "\n");
	grants("\"node7\": {}");
	struct weft_keys *keys = open_keys();
	struct rlimit limit, none;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 0;
	drop("keys.psk");
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(weft_keys_reload(keys, &err), -EMFILE);
	assert_int_equal(weft_keys_reload(keys, &err), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_true(has(keys, "node7", 0));
	assert_int_equal(reload_when_told(keys), 1);
	assert_true(has(keys, "node7", -ENOKEY));
	weft_keys_close(keys);
}

/* A key that is revoked and made anew: its old secret never has its new rights. */
static void a_change_is_taken_as_a_whole(void **state)
{
	struct weft_rights rights;
	struct weft_error err;
	char path[128];

	put("keys.psk", "node7:" ONE "\n");
	grants("\"node7\": {\"read_only\": true}");
	struct weft_keys *keys = open_keys();

	put(".lock", "");
	snprintf(path, sizeof(path), "%s/.lock", dir);
	int lock = open(path, O_RDWR);
	assert_int_equal(flock(lock, LOCK_EX), 0);
	grants("\"node7\": {\"admin\": true}");
	assert_int_equal(weft_keys_reload(keys, &err), -EBUSY);
	assert_int_equal(weft_keys_rights(keys, "node7", &rights), 0);
	assert_true(rights.read_only && !rights.admin);
	weft_rights_fini(&rights);
	put("keys.psk", "node7:" TWO "\n");
	close(lock);
	assert_true(is_told(keys));
	assert_int_equal(weft_keys_reload(keys, &err), 1);
	assert_int_equal(weft_keys_rights(keys, "node7", &rights), 0);
	assert_true(rights.admin);
	weft_rights_fini(&rights);

	/* Who reads keeps nobody from reading. */
	lock = open(path, O_RDONLY);
	assert_int_equal(flock(lock, LOCK_SH), 0);
	drop("keys.psk");
	assert_int_equal(weft_keys_reload(keys, &err), 1);
	close(lock);
	weft_keys_close(keys);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(a_key_with_grants_lets_in),
		TEST(without_files_nobody_is_let_in),
		TEST(rights_are_what_the_file_says),
		TEST(ranges_hold_their_addresses),
		TEST(dates_are_dates),
		TEST(an_expired_key_lets_nobody_in),
		TEST(damage_is_refused),
		TEST(what_others_can_change_is_refused),
		TEST(changes_are_told_and_taken),
		TEST(a_store_is_replaced_as_a_whole),
		TEST(the_path_may_lead_elsewhere),
		TEST(a_file_may_be_elsewhere),
		TEST(a_failure_is_tried_again),
		TEST(a_change_is_taken_as_a_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
