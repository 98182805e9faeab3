/* SPDX-License-Identifier: MIT */
/* The QUIC listener behind the table of functions. */
#include "transports/quic/donor/serve.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/address.h"
#include "fabric/base/util.h"
#include "transports/quic/donor/listener.h"

struct quic_listen_settings quic_listen_settings;

struct listening {
	struct weft_listener base;
	struct quic_listener *quic;
	struct sockaddr_storage address;
	bool beside; /* at an address where the donor listens for TCP as well */
};

static struct listening *to_quic(struct weft_listener *listener)
{
	return weft_container_of(listener, struct listening, base);
}

static int parse_quic(void *into, const struct weft_option *option, char *value)
{
	struct quic_listen_settings *settings = into;

	if (!weft_place_port(value))
		return weft_option_refuse(option, value);
	settings->place = value;
	return WEFT_GO_ON;
}

const struct weft_option quic_listen_options[] = {
	{"quic", "ADDRESS:PORT",
		"over QUIC (UDP) too, for wide or lossy networks; PORT alone: at the\n"
		"first address of --listen. Borrowers show a key, or a certificate",
		.kind = WEFT_OPTION_CALL, .parse = parse_quic, .wants = "PORT, or ADDRESS:PORT"},
	{0},
};

static int resolve(const char *host, const char *port, struct sockaddr_storage *ret,
	struct weft_error *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_PASSIVE};
	struct addrinfo *found;
	int r = getaddrinfo(host, port, &hints, &found);

	if (r != 0)
		return weft_error_set(err, EADDRNOTAVAIL, "cannot listen on %s: %s", host,
			gai_strerror(r));
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return 0;
}

static void set_port(struct sockaddr_storage *address, const char *port)
{
	const in_port_t number = htons((uint16_t)strtoul(port, NULL, 10));

	if (address->ss_family == AF_INET6)
		((struct sockaddr_in6 *)address)->sin6_port = number;
	else
		((struct sockaddr_in *)address)->sin_port = number;
}

/* The first of the donor's addresses that is none of a Unix socket. */
static int find_beside(const struct weft_listener_config *config, const char *port,
	struct sockaddr_storage *ret, struct weft_error *err)
{
	for (unsigned i = 0; i < config->nr_sockets; i++) {
		socklen_t len = sizeof(*ret);

		memset(ret, 0, sizeof(*ret));
		if (*config->sockets[i].socket ||
			getsockname(config->sockets[i].fd, (struct sockaddr *)ret, &len) < 0)
			continue;
		set_port(ret, port);
		return 0;
	}
	return weft_error_set(err, ENODEV,
		"this donor listens at Unix sockets alone; say --quic ADDRESS:%s", port);
}

static int find_address(const struct weft_listener_config *config, char *place,
	struct listening *l, struct weft_error *err)
{
	char *host, *port;

	weft_place_split(place, &host, &port);
	l->beside = !host;
	return host ? resolve(host, port, &l->address, err)
		    : find_beside(config, port, &l->address, err);
}

static int listen_new(const struct weft_listener_config *config, struct weft_listener **ret,
	struct weft_error *err)
{
	const struct quic_listener_config quic = {.tls_certificates = config->tls_certificates};
	char *place = quic_listen_settings.place;
	struct listening *l;
	struct weft_error why;

	if (!place)
		return weft_error_set(err, ENODEV, "this donor is not told to listen for QUIC");
	l = calloc(1, sizeof(*l));
	if (!l)
		return weft_error_set(err, ENOMEM, "cannot listen: no memory");
	int r = find_address(config, place, l, &why);
	if (r == 0)
		r = quic_listener_new(config->donor, config->loop,
			(const struct sockaddr *)&l->address, &quic, &l->quic, &why);
	if (r < 0) {
		free(l);
		return weft_error_set(err, -r,
			"--quic: %s; without --quic this donor lends to all others", why.message);
	}
	quic_listener_address(l->quic, &l->address);
	*ret = &l->base;
	return 0;
}

static bool is_wanted(void)
{
	return quic_listen_settings.place;
}

static socklen_t address_len(const struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					       : sizeof(struct sockaddr_in);
}

static bool is_any(const struct sockaddr_storage *address)
{
	if (address->ss_family == AF_INET6)
		return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
	return ((const struct sockaddr_in *)address)->sin_addr.s_addr == htonl(INADDR_ANY);
}

static void listen_offers(const struct weft_listener *listener, char *buf, size_t len)
{
	const struct listening *l = weft_container_of(listener, const struct listening, base);
	char host[NI_MAXHOST], port[NI_MAXSERV];

	buf[0] = '\0';
	if (getnameinfo((const struct sockaddr *)&l->address, address_len(&l->address), host,
		    sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;
	/* Where a borrower asked at is where it finds QUIC, unless it is another address. */
	if (l->beside || is_any(&l->address) ||
		weft_address_is_loopback((const struct sockaddr *)&l->address))
		snprintf(buf, len, "quic:%s", port);
	else
		snprintf(buf, len, "quic:%s:%s", port, host);
}

static void listen_status(struct weft_listener *listener, struct weft_listener_status *ret)
{
	const struct listening *l = to_quic(listener);
	char host[NI_MAXHOST], port[NI_MAXSERV];

	quic_listener_status(l->quic, ret);
	if (getnameinfo((const struct sockaddr *)&l->address, address_len(&l->address), host,
		    sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(ret->place, sizeof(ret->place),
			l->address.ss_family == AF_INET6 ? "[%.100s]:%.8s" : "%.100s:%.8s", host,
			port);
}

static void listen_stop(struct weft_listener *listener)
{
	quic_listener_stop(to_quic(listener)->quic);
}

static int listen_drain(struct weft_listener *listener, uint32_t timeout_ms)
{
	return quic_listener_drain(to_quic(listener)->quic, timeout_ms);
}

static void listen_free(struct weft_listener *listener)
{
	quic_listener_free(to_quic(listener)->quic);
	free(to_quic(listener));
}

const struct weft_listener_ops quic_listener_ops = {
	.new = listen_new,
	.is_wanted = is_wanted,
	.offers = listen_offers,
	.status = listen_status,
	.stop = listen_stop,
	.drain = listen_drain,
	.free = listen_free,
};
