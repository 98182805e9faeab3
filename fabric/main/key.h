/* SPDX-License-Identifier: MIT */
/* weft key: what its files share.  One thread. */
#ifndef WEFT_FABRIC_MAIN_KEY_H
#define WEFT_FABRIC_MAIN_KEY_H

#include <limits.h>
#include <stdbool.h>

#include "fabric/key/rights.h"
#include "fabric/key/store-edit.h"

struct key_options {
	const char *action; /* "new", "list", "revoke", "rotate", "token" */
	const char *name;   /* NULL for list */
	const char *store;  /* --store; NULL: the default */
	const char *out;    /* --out; NULL: the identity's name */
	const char *key;    /* --key: a borrower's file, rather than the store; NULL: none */
	bool json, finish;
	struct weft_rights rights; /* of a new key */
	/* Not options. */
	char dir[PATH_MAX]; /* the store's */
	bool is_new_store;  /* it was not there */
};

/* Prints what the store has.  0, or -errno. */
int key_list(const struct key_options *o, struct weft_error *err);
/* Prints a token of the name's key, of the store or of --key.  0, or -errno. */
int key_token(const struct key_options *o, struct weft_error *err);

#endif
