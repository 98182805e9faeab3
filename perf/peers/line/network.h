/* SPDX-License-Identifier: MIT */
/*
 * The ends of a line: network namespaces, each with a TUN device.  One thread, before there are
 * others: it changes the namespaces of the thread that calls it.
 */
#ifndef WEFT_PERF_PEERS_LINE_NETWORK_H
#define WEFT_PERF_PEERS_LINE_NETWORK_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"

enum line_side { LINE_NEAR, LINE_FAR };
extern const char *const line_side_names[2];

struct line_end {
	int tun; /* the device, which does not block and goes when it is closed */
	int ns;  /* the namespace; its file lasts as long as the descriptor */
	char device[16], ipv4[16], ipv6[48]; /* ipv6 "-": there is none */
};

/*
 * Somebody who is not root gets a user namespace, in which this process, and what it runs, may do
 * with networks what root may, as the user that it is.  0, or -errno with err.
 */
int line_get_rights(struct weft_error *err);

/*
 * Makes an end: in a new namespace, or in an existing one (a name of ip-netns(8), a process id, or
 * a path).  number (0 to 255) tells lines apart that meet in a namespace: it is in the device's
 * name and in the addresses, 198.18.NUMBER.1 for the near end and .2 for the far one.  0, or -errno
 * with err.
 */
int line_end_open(enum line_side side, const char *existing, unsigned number, unsigned mtu,
	struct line_end *ret, struct weft_error *err);
/* Packets that the kernel could not hand to us, since we were too slow for it: the device's own
 * count. */
uint64_t line_end_overrun(const struct line_end *end);
/* Takes {-1, -1}. */
void line_end_close(struct line_end *end);

#endif
