/* SPDX-License-Identifier: MIT */
/*
 * Listening sockets, as a command line names them: ADDR[:PORT], [IPV6]:PORT, unix:PATH.  Control
 * path, any thread.
 */
#ifndef WEFT_FABRIC_LISTEN_H
#define WEFT_FABRIC_LISTEN_H

#include <stdbool.h>
#include <stddef.h>

#include "fabric/base/error.h"

struct weft_listening {
	int fd;
	char socket[108]; /* a Unix socket's path, or "" */
	char host[256];   /* as a borrower would say it; this machine's name for a wildcard */
	char port[8];     /* the real one, also if 0 was asked for */
	bool insecure;    /* others than this machine's processes can reach it */
	bool any_port;    /* port 0 was asked for */
	bool passed;      /* the socket was passed to us: its file is not ours to remove */
};

/*
 * Binds and listens.  A Unix socket that nobody serves any more is replaced.
 * -EINVAL: text is none of the above; -EPERM: beyond loopback without allow_insecure; -EADDRINUSE
 * and what else bind(2) says.
 */
int weft_listen(const char *text, const char *default_port, bool allow_insecure,
	struct weft_listening *ret, struct weft_error *err);

/* Describes a listening stream socket that was passed in.  -EINVAL: it is none. */
int weft_listening_describe(int fd, bool allow_insecure, struct weft_listening *ret,
	struct weft_error *err);

/*
 * By which of nr sockets somebody at that host and port reaches this machine: by the one that is
 * bound to the address from which this machine reaches the host, or to all addresses.  The address
 * goes into host, of size bytes.  NULL: by none of them, as far as is known here.  May ask a name
 * server.
 */
const struct weft_listening *weft_listening_towards(const struct weft_listening *listening,
	unsigned nr, const char *there, const char *port, char *host, size_t size);

/*
 * Whether who connects to the host and port from this machine comes to one of nr sockets.  May ask
 * a name server.
 */
bool weft_listening_is_at(const struct weft_listening *listening, unsigned nr, const char *host,
	const char *port);

/* "127.0.0.1:10809", "[::1]:10809", "unix:/path" into buf (at least 280 bytes); returns buf. */
char *weft_listening_format(const struct weft_listening *listening, char *buf);

/*
 * The text by which a later start is known to be the same donor: that of weft_listening_format(),
 * and where port 0 was asked for a second line "127.0.0.1:0".  buf: at least WEFT_PLACES_MAX bytes;
 * returns buf.
 */
enum { WEFT_PLACES_MAX = 560 };
char *weft_listening_places(const struct weft_listening *listening, char *buf);

/*
 * For options that say [ADDRESS:]PORT, with an address of IPv6 in brackets.  weft_place_port(): the
 * port's digits; NULL: there are none.  weft_place_split(): cuts the place in two, in it; *ret_host
 * is NULL where there is a port alone, which stays whole.
 */
const char *weft_place_port(const char *place);
void weft_place_split(char *place, char **ret_host, char **ret_port);

#endif
