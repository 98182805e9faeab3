/* SPDX-License-Identifier: MIT */
/*
 * The address of a host, without waiting for it: names are resolved by a thread of their own.
 */
#ifndef WEFT_TRANSPORTS_VERBS_BORROWER_LOOKUP_H
#define WEFT_TRANSPORTS_VERBS_BORROWER_LOOKUP_H

#include <sys/socket.h>

struct verbs_lookup;

/* Numeric addresses are there at once.  0, or -errno. */
int verbs_lookup_start(const char *host, const char *port, struct verbs_lookup **ret);
/* Readable once the result is there. */
int verbs_lookup_fd(const struct verbs_lookup *lookup);
/* 0; -EAGAIN: not yet; -EHOSTUNREACH with the resolver's word in *ret_why (static): no address. */
int verbs_lookup_result(struct verbs_lookup *lookup, struct sockaddr_storage *ret,
	const char **ret_why);
/* Also while the thread still works: it cleans up.  Takes NULL. */
void verbs_lookup_free(struct verbs_lookup *lookup);

#endif
