/* SPDX-License-Identifier: MIT */
/* A donor's key; see key-peer.h. */
#include "tests/conformance/key-peer.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/key/store-edit.h"
#include "tests/conformance/suite.h"

void key_peer_make_dir(char dir[KEY_PEER_DIR])
{
	strcpy(dir, "/tmp/weft-conf.XXXXXX");
	assert_non_null(mkdtemp(dir));
}

void key_peer_make(char dir[KEY_PEER_DIR], struct weft_key *ret_key, struct weft_keys **ret_keys)
{
	const struct weft_rights rights = {.max_sessions = 0};
	struct weft_store *store;

	key_peer_make_dir(dir);
	assert_int_equal(weft_key_new("alice", ret_key, NULL), 0);
	assert_int_equal(weft_store_open(dir, WEFT_STORE_MAKE, &store, NULL), 0);
	assert_int_equal(weft_store_add(store, ret_key, &rights, NULL), 0);
	assert_int_equal(weft_store_commit(store, NULL), 0);
	weft_store_close(store);
	assert_int_equal(weft_keys_open(dir, ret_keys, NULL), 0);
}

void key_peer_remove_dir(const char *path)
{
	DIR *dir = opendir(path);

	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			assert_int_equal(unlinkat(dirfd(dir), entry->d_name, 0), 0);
	closedir(dir);
	assert_int_equal(rmdir(path), 0);
}
