/* SPDX-License-Identifier: MIT */
/* Listening sockets; see listen.h.  No state. */
#include "fabric/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fabric/base/address.h"
#include "fabric/base/util.h"

enum { BACKLOG = 512 };

#define WHAT_IS_RIGHT "say ADDRESS, ADDRESS:PORT, [IPV6]:PORT or unix:/PATH"

static bool is_wildcard(const struct sockaddr *addr)
{
	if (addr->sa_family == AF_INET)
		return ((const struct sockaddr_in *)addr)->sin_addr.s_addr == INADDR_ANY;
	return addr->sa_family == AF_INET6 &&
	       IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)addr)->sin6_addr);
}

static int refuse_insecure(const char *what, struct weft_error *err)
{
	return weft_error_set(err, EPERM,
		"listening on %s would let everyone who reaches it read and write all "
		"regions: there are no keys; make one (weft key new NAME), or say "
		"--allow-insecure if that is all right",
		what);
}

int weft_listening_describe(int fd, bool allow_insecure, struct weft_listening *ret,
	struct weft_error *err)
{
	struct weft_listening l = {.fd = fd};
	struct sockaddr_storage addr = {0};
	socklen_t addr_len = sizeof(addr), len = sizeof(int);
	int listening = 0, type = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || !listening ||
		getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM ||
		getsockname(fd, (struct sockaddr *)&addr, &addr_len) < 0)
		return weft_error_set(err, EINVAL, "descriptor %d is not a listening stream socket",
			fd);
	if (addr.ss_family == AF_UNIX) {
		const struct sockaddr_un *un = (const struct sockaddr_un *)&addr;

		snprintf(l.socket, sizeof(l.socket), "%.*s", (int)sizeof(un->sun_path) - 1,
			un->sun_path);
	} else {
		int r = getnameinfo((struct sockaddr *)&addr, addr_len, l.host, sizeof(l.host),
			l.port, sizeof(l.port), NI_NUMERICHOST | NI_NUMERICSERV);

		if (r != 0)
			return weft_error_set(err, EINVAL, "descriptor %d: %s", fd,
				gai_strerror(r));
	}
	l.insecure = addr.ss_family != AF_UNIX &&
		!weft_address_is_loopback((struct sockaddr *)&addr);
	if (l.insecure && !allow_insecure) {
		char text[280];

		return refuse_insecure(weft_listening_format(&l, text), err);
	}
	if (is_wildcard((struct sockaddr *)&addr) && gethostname(l.host, sizeof(l.host) - 1) < 0)
		strcpy(l.host, "localhost");
	*ret = l;
	return 0;
}

/* Whether a process serves the socket file. */
static bool is_served(const struct sockaddr_un *addr)
{
	WEFT_CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd < 0 || connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 ||
	       (errno != ECONNREFUSED && errno != ENOENT);
}

static int listen_unix(const char *text, struct weft_error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	WEFT_CLEANUP_FREE char *cwd = NULL, *absolute = NULL;
	const char *path = text;

	/* Borrowers get the path, and have other working directories. */
	if (*text && *text != '/') {
		cwd = getcwd(NULL, 0);
		if (!cwd || asprintf(&absolute, "%s/%s", cwd, text) < 0) {
			absolute = NULL;
			return weft_error_set(err, ENOENT,
				"cannot tell which directory unix:%s is in", text);
		}
		path = absolute;
	}

	if (*path == '\0' || strlen(path) >= sizeof(addr.sun_path))
		return weft_error_set(err, EINVAL,
			"an absolute Unix socket's path has 1 to %zu bytes",
			sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return weft_error_set(err, errno, "cannot make a socket: %s", strerror(errno));
	int r = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	if (r == -EADDRINUSE && !is_served(&addr) && unlink(path) == 0)
		r = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	if (r == 0 && listen(fd, BACKLOG) < 0)
		r = -errno;
	if (r < 0) {
		weft_error_set(err, -r, "cannot listen on unix:%s: %s", path, strerror(-r));
		close(fd);
		return r;
	}
	return fd;
}

/* Splits ADDR[:PORT].  False: neither. */
static bool split(const char *text, const char *default_port, char *host, size_t host_size,
	char *port, size_t port_size)
{
	const char *colon = strrchr(text, ':'), *end, *begin = text;

	if (*text == '[') {
		begin++;
		end = strchr(text, ']');
		if (!end || (end[1] != '\0' && end[1] != ':'))
			return false;
		colon = end[1] ? end + 1 : NULL;
	} else if (colon && strchr(text, ':') != colon) {
		end = text + strlen(text); /* a bare IPv6 address */
		colon = NULL;
	} else {
		end = colon ? colon : text + strlen(text);
	}
	if (end == begin || (size_t)(end - begin) >= host_size)
		return false;
	memcpy(host, begin, (size_t)(end - begin));
	host[end - begin] = '\0';
	char *zone = strstr(host, "%25"); /* as URIs have it, RFC 6874 */
	if (zone && zone[3])
		memmove(zone + 1, zone + 3, strlen(zone + 3) + 1);
	const char *number = colon ? colon + 1 : default_port;
	size_t digits = strspn(number, "0123456789");
	if (digits == 0 || number[digits] || digits >= port_size || atoi(number) > UINT16_MAX)
		return false;
	strcpy(port, number);
	return true;
}

static int listen_tcp(const char *text, const char *default_port, bool allow_insecure,
	struct weft_error *err)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
				.ai_socktype = SOCK_STREAM},
			*found;
	char host[256], port[8];
	int one = 1, fd = -1, r;

	if (!split(text, default_port, host, sizeof(host), port, sizeof(port)))
		return weft_error_set(err, EINVAL,
			"'%s' is no address to listen on; " WHAT_IS_RIGHT, text);
	r = getaddrinfo(host, port, &hints, &found);
	if (r != 0)
		return weft_error_set(err, EINVAL,
			"'%s' is no address to listen on: %s; " WHAT_IS_RIGHT, text,
			gai_strerror(r));
	r = 0;
	if (!weft_address_is_loopback(found->ai_addr) && !allow_insecure) {
		r = refuse_insecure(text, err);
		goto out;
	}
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
		(found->ai_family == AF_INET6 &&
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) < 0) ||
		bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
		r = -errno;
		weft_error_set(err, -r, "cannot listen on %s port %s: %s%s", host, port,
			strerror(-r),
			r == -EADDRINUSE ? "; another port can be had with --listen ADDRESS:PORT"
					 : "");
		weft_close_fd(fd);
	}
out:
	freeaddrinfo(found);
	return r < 0 ? r : fd;
}

int weft_listen(const char *text, const char *default_port, bool allow_insecure,
	struct weft_listening *ret, struct weft_error *err)
{
	int fd = strncmp(text, "unix:", 5) == 0
		? listen_unix(text + 5, err)
		: listen_tcp(text, default_port, allow_insecure, err);
	int r;

	if (fd < 0)
		return fd;
	r = weft_listening_describe(fd, true, ret, err);
	if (r < 0) {
		close(fd);
		return r;
	}
	size_t len = strlen(text);
	ret->any_port = !*ret->socket && len > 2 && strcmp(text + len - 2, ":0") == 0 &&
			(*text == '[' || strchr(text, ':') == text + len - 2);
	return 0;
}

char *weft_listening_places(const struct weft_listening *listening, char *buf)
{
	struct weft_listening any = *listening;
	size_t len = strlen(weft_listening_format(listening, buf));

	if (listening->any_port) {
		strcpy(any.port, "0");
		buf[len++] = '\n';
		weft_listening_format(&any, buf + len);
	}
	return buf;
}

char *weft_listening_format(const struct weft_listening *listening, char *buf)
{
	if (*listening->socket)
		snprintf(buf, 280, "unix:%s", listening->socket);
	else
		snprintf(buf, 280, strchr(listening->host, ':') ? "[%s]:%s" : "%s:%s",
			listening->host, listening->port);
	return buf;
}

const char *weft_place_port(const char *place)
{
	const char *colon = strrchr(place, ':'), *port = colon ? colon + 1 : place;
	char *end;
	unsigned long value = strtoul(port, &end, 10);

	return *port >= '0' && *port <= '9' && !*end && value <= UINT16_MAX ? port : NULL;
}

void weft_place_split(char *place, char **ret_host, char **ret_port)
{
	char *colon = strrchr(place, ':');

	*ret_host = colon ? place : NULL;
	*ret_port = colon ? colon + 1 : place;
	if (!colon)
		return;
	*colon = '\0';
	if (place[0] == '[' && colon[-1] == ']') {
		colon[-1] = '\0';
		(*ret_host)++;
	}
}

/* Whether who connects to the address comes to the socket.  The port is the socket's own. */
static bool is_bound_to(int fd, const struct sockaddr_storage *address)
{
	struct sockaddr_storage bound = {0};
	socklen_t len = sizeof(bound), only_len = sizeof(int);
	int only = 1;

	if (getsockname(fd, (struct sockaddr *)&bound, &len) < 0)
		return false;
	if (bound.ss_family != address->ss_family)
		return bound.ss_family == AF_INET6 && is_wildcard((struct sockaddr *)&bound) &&
			getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &only_len) == 0 && !only;
	if (is_wildcard((struct sockaddr *)&bound))
		return true;
	return bound.ss_family == AF_INET
		? ((struct sockaddr_in *)&bound)->sin_addr.s_addr ==
			((const struct sockaddr_in *)address)->sin_addr.s_addr
		: IN6_ARE_ADDR_EQUAL(&((struct sockaddr_in6 *)&bound)->sin6_addr,
			  &((const struct sockaddr_in6 *)address)->sin6_addr);
}

/* The address from which this machine reaches the other one; nothing is sent. */
static int find_source(const struct addrinfo *there, struct sockaddr_storage *ret, socklen_t *len)
{
	WEFT_CLEANUP_CLOSE int fd =
		socket(there->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP);

	*len = sizeof(*ret);
	return fd < 0 || connect(fd, there->ai_addr, there->ai_addrlen) < 0 ||
			getsockname(fd, (struct sockaddr *)ret, len) < 0
		? -errno
		: 0;
}

const struct weft_listening *weft_listening_towards(const struct weft_listening *listening,
	unsigned nr, const char *there, const char *port, char *host, size_t size)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
	const struct weft_listening *found = NULL;
	struct sockaddr_storage from = {0};
	struct addrinfo *all = NULL;
	socklen_t len;

	if (getaddrinfo(there, port, &hints, &all) != 0)
		return NULL;
	for (const struct addrinfo *a = all; a && !found; a = a->ai_next) {
		if (find_source(a, &from, &len) < 0)
			continue;
		for (unsigned i = 0; i < nr && !found; i++)
			if (!*listening[i].socket && is_bound_to(listening[i].fd, &from))
				found = &listening[i];
	}
	freeaddrinfo(all);
	if (found &&
		getnameinfo((struct sockaddr *)&from, len, host, (socklen_t)size, NULL, 0,
			NI_NUMERICHOST) != 0)
		found = NULL;
	return found;
}

/* An address of this machine's is reached from itself. */
static bool is_here(const struct addrinfo *a, const struct sockaddr_storage *from)
{
	if (weft_address_is_loopback(a->ai_addr))
		return true;
	return a->ai_family == AF_INET
		? ((const struct sockaddr_in *)from)->sin_addr.s_addr ==
			((const struct sockaddr_in *)a->ai_addr)->sin_addr.s_addr
		: IN6_ARE_ADDR_EQUAL(&((const struct sockaddr_in6 *)from)->sin6_addr,
			  &((const struct sockaddr_in6 *)a->ai_addr)->sin6_addr);
}

bool weft_listening_is_at(const struct weft_listening *listening, unsigned nr, const char *host,
	const char *port)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
	struct sockaddr_storage from = {0}, there = {0};
	struct addrinfo *all = NULL;
	bool found = false;
	socklen_t len;

	if (getaddrinfo(host, port, &hints, &all) != 0)
		return false;
	for (const struct addrinfo *a = all; a && !found; a = a->ai_next) {
		if (find_source(a, &from, &len) < 0 || !is_here(a, &from))
			continue;
		memcpy(&there, a->ai_addr, a->ai_addrlen);
		for (unsigned i = 0; i < nr && !found; i++)
			found = !*listening[i].socket && strcmp(listening[i].port, port) == 0 &&
				is_bound_to(listening[i].fd, &there);
	}
	freeaddrinfo(all);
	return found;
}
