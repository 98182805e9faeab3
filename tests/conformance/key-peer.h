/* SPDX-License-Identifier: MIT */
/* A directory of a test's own, and a donor's key in it. */
#ifndef WEFT_TESTS_CONFORMANCE_KEY_PEER_H
#define WEFT_TESTS_CONFORMANCE_KEY_PEER_H

#include "fabric/key/store.h"

enum { KEY_PEER_DIR = 32 };

/* A new directory; its path into dir. */
void key_peer_make_dir(char dir[KEY_PEER_DIR]);
/* The same with a store of one key, "alice", which may do anything. */
void key_peer_make(char dir[KEY_PEER_DIR], struct weft_key *ret_key, struct weft_keys **ret_keys);
/* Removes it, with the files in it. */
void key_peer_remove_dir(const char *dir);

#endif
