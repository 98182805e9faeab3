/* SPDX-License-Identifier: MIT */
/* The borrower's key: where it is looked for, who else may not have it, which line it is. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/key/find.h"
#include "fabric/key/held.h"

#define ONE "00112233445566778899aabbccddeeff"
#define TWO "ffeeddccbbaa99887766554433221100"

static char home[64];

static void put(const char *name, const char *text, mode_t mode)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(weft_write_all(fd, text, strlen(text)), 0);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static int set_up(void **state)
{
	char path[128];

	strcpy(home, "/tmp/weft-key-find-XXXXXX");
	if (!mkdtemp(home) || chdir(home) < 0)
		return -1;
	unsetenv("WEFT_KEY");
	setenv("HOME", home, 1);
	snprintf(path, sizeof(path), "%s/.config", home);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/.config/weft", home);
	mkdir(path, 0700);
	return 0;
}

static int tear_down(void **state)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/.config/weft/key", home);
	unlink(path);
	snprintf(path, sizeof(path), "%s/.config/weft", home);
	rmdir(path);
	snprintf(path, sizeof(path), "%s/.config", home);
	rmdir(path);
	unlink("k");
	unlink("other");
	return rmdir(home);
}

static void find(const char *file, const char *identity, const char *expected)
{
	struct weft_error err = {0};
	struct weft_key key;
	int r = weft_key_find(file, identity, &key, &err);

	if (r < 0)
		print_message("%s\n", err.message);
	assert_int_equal(r, 0);
	assert_string_equal(key.identity, expected);
	weft_key_wipe(&key);
}

static void fails(const char *file, const char *identity, int r, const char *message)
{
	struct weft_error err = {0};
	struct weft_key key;

	assert_int_equal(weft_key_find(file, identity, &key, &err), r);
	if (!strstr(err.message, message))
		print_error("'%s' is not in '%s'\n", message, err.message);
	assert_non_null(strstr(err.message, message));
	assert_null(strstr(err.message, "0011"));
	assert_null(strstr(err.message, "ffee"));
}

static void what_is_named_comes_before_what_is_found(void **state)
{
	if (access("/etc/weft/key", F_OK) < 0)
		fails(NULL, NULL, -ENOENT, "/.config/weft/key and /etc/weft/key");
	put(".config/weft/key", "home:" ONE "\n", 0600);
	find(NULL, NULL, "home");
	put("other", "environment:" ONE "\n", 0600);
	setenv("WEFT_KEY", "other", 1);
	find(NULL, NULL, "environment");
	put("k", "named:" ONE "\n", 0600);
	find("k", NULL, "named");
}

/* Whoever named it meant to be protected: that is no borrower without a key. */
static void what_is_named_has_to_be_there(void **state)
{
	fails("missing", NULL, -ENOKEY, "there is no key file missing");
	setenv("WEFT_KEY", "gone", 1);
	fails(NULL, NULL, -ENOKEY, "there is no key file gone");
}

/* A borrower that has a key, and cannot come by it, is no borrower without a key. */
static void what_cannot_be_reached_is_there(void **state)
{
	struct weft_error err = {0};
	struct weft_held_key *held;

	assert_int_equal(symlink("missing", ".config/weft/key"), 0);
	fails(NULL, NULL, -ENOKEY, "there is no key file /tmp/");
	unlink(".config/weft/key");
	assert_int_equal(symlink("key", ".config/weft/key"), 0);
	fails(NULL, NULL, -ELOOP, "cannot use the key");
	unlink(".config/weft/key");
	put(".config/weft/key", "home:" ONE "\n", 0600);
	assert_int_equal(chmod(".config/weft", 0), 0);
	if (geteuid() != 0)
		fails(NULL, NULL, -EACCES, "cannot use the key");
	assert_int_equal(chmod(".config/weft", 0700), 0);
	assert_int_equal(mkdir("gone", 0700), 0);
	assert_int_equal(chdir("gone"), 0);
	assert_int_equal(rmdir("../gone"), 0);
	assert_int_equal(weft_held_key_open("k", NULL, &held, &err), -ENOKEY);
	assert_int_equal(chdir(home), 0);
}

static void a_file_that_others_can_use_is_refused(void **state)
{
	put("k", "node7:" ONE "\n", 0640);
	fails("k", NULL, -EPERM, "k: its mode is 0640");
	fails("k", NULL, -EPERM, "chmod 600 k");
	put("k", "node7:" ONE "\n", 0602);
	fails("k", NULL, -EPERM, "its mode is 0602");
	put("k", "node7:" ONE "\n", 0400);
	find("k", NULL, "node7");
	fails("/dev/null", NULL, -EINVAL, "is no file");
	fails(".", NULL, -EINVAL, "is no file");
}

static void a_file_that_does_not_end_is_refused(void **state)
{
	assert_int_equal(mkfifo("other", 0600), 0);
	fails("other", NULL, -EINVAL, "other is no file");
	put("k", "node7:" ONE "\n", 0600);
	assert_int_equal(truncate("k", 2 << 20), 0);
	fails("k", NULL, -EFBIG, "k is over 1048576 bytes");
}

static void a_file_of_somebody_else_is_refused(void **state)
{
	put("k", "node7:" ONE "\n", 0600);
	if (geteuid() != 0 || chown("k", 12345, 12345) < 0)
		skip();
	fails("k", NULL, -EPERM, "k belongs to user 12345");
	fails("k", NULL, -EPERM, "chown 0 k");
}

static void the_identity_chooses_the_line(void **state)
{
	put("k", "# two donors\n\n  \t\nnode7:" ONE "\r\nother~2:" TWO, 0600);
	fails("k", NULL, -EINVAL, "k, line 4: the secret of 'node7'");
	put("k", "# two donors\n\n  \t\nnode7:" ONE "\nother~2:" TWO, 0600);
	fails("k", NULL, -ENOKEY, "k has 2 keys");
	find("k", "node7", "node7");
	find("k", "other~2", "other~2");
	fails("k", "node", -ENOKEY, "k has no key of the identity 'node'");
	fails("k", "node7~2", -ENOKEY, "k has no key of the identity 'node7~2'");
	put("k", "# none\n", 0600);
	fails("k", NULL, -ENOKEY, "k has no key");
	put("k", "node7:" ONE "\nnode7:" TWO "\n", 0600);
	fails("k", "node7", -EINVAL, "several keys");
}

/* What is said in a URI goes on meaning the same. */
static void a_name_finds_its_second_identity(void **state)
{
	put("k", "other:" ONE "\nnode7~2:" TWO "\n", 0600);
	find("k", "node7", "node7~2");
	put("k", "node7~2:" TWO "\nnode7:" ONE "\n", 0600);
	find("k", "node7", "node7");
	find("k", "node7~2", "node7~2");
}

static void damage_is_told_with_its_line(void **state)
{
	put("k", "node7:" ONE "\nwhat:is this\n", 0600);
	fails("k", "node7", -EINVAL, "k, line 2: ");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(what_is_named_comes_before_what_is_found),
		TEST(what_is_named_has_to_be_there),
		TEST(what_cannot_be_reached_is_there),
		TEST(a_file_that_others_can_use_is_refused),
		TEST(a_file_that_does_not_end_is_refused),
		TEST(a_file_of_somebody_else_is_refused),
		TEST(the_identity_chooses_the_line),
		TEST(a_name_finds_its_second_identity),
		TEST(damage_is_told_with_its_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
