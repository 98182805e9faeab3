/* SPDX-License-Identifier: MIT */
/* The SRP listener behind the table of functions. */
#include "transports/srp/donor/serve.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "transports/rdma/device.h"
#include "transports/rdma/settings.h"
#include "transports/srp/donor/listener.h"
#include "transports/srp/target.h"

struct srp_listen_settings srp_listen_settings;

static struct srp_listener *to_srp(struct weft_listener *listener)
{
	return weft_container_of(listener, struct srp_listener, base);
}

static int parse_srp(void *into, const struct weft_option *option, char *value)
{
	struct srp_listen_settings *settings = into;

	if (!weft_place_port(value))
		return weft_option_refuse(option, value);
	settings->place = value;
	return WEFT_GO_ON;
}

static int parse_host(void *into, const struct weft_option *option, char *value)
{
	struct srp_listen_settings *settings = into;
	int r = srp_hosts_parse(&settings->hosts, value);

	if (r == -E2BIG)
		return weft_usage_error("--srp-host: more than %d hosts, or %d identifiers of one",
			SRP_HOSTS_MAX, SRP_HOST_IDS_MAX);
	return r < 0 ? weft_option_refuse(option, value) : WEFT_GO_ON;
}

const struct weft_option srp_listen_options[] = {
	{"srp", "ADDRESS:PORT", 
		"as disks to stock initiators (ib_srp) over RDMA; PORT alone:\n"
		"where --listen is on an RDMA device",
		.kind = WEFT_OPTION_CALL, .parse = parse_srp, .wants = "PORT, or ADDRESS:PORT"},
	{"srp-host", "NAME=ID[,ID]...[,ro]",
		"over SRP to this host alone (again: to others too), which is known by\n"
		"an initiator port's identifier, a GUID or an address; ro: it may read",
		.kind = WEFT_OPTION_CALL, .parse = parse_host,
		.wants = "a name of its own, '=', and 32 or 16 hex digits or addresses"},
	{0},
};

static int listen_at(const struct weft_listener_config *config, const char *host, const char *port,
	struct srp_listener **ret, struct weft_error *err)
{
	const struct srp_listener_config srp = {
		.hosts = srp_listen_settings.hosts.nr ? &srp_listen_settings.hosts : NULL,
		.may_be_plaintext = weft_rdma_listen_settings.plaintext,
	};
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	struct addrinfo *found;
	int r = getaddrinfo(host, port, &hints, &found);

	if (r != 0)
		return weft_error_set(err, EADDRNOTAVAIL, "cannot listen on %s for SRP: %s", host,
			gai_strerror(r));
	r = srp_listener_new(config->donor, config->loop, found->ai_addr, &srp, ret, err);
	freeaddrinfo(found);
	return r;
}

/* At the first of the donor's addresses that is on an RDMA device. */
static int listen_beside(const struct weft_listener_config *config, const char *port,
	struct srp_listener **ret, struct weft_error *err)
{
	for (unsigned i = 0; i < config->nr_sockets; i++) {
		char host[NI_MAXHOST];
		struct sockaddr_storage address;
		socklen_t len = sizeof(address);

		if (*config->sockets[i].socket ||
			getsockname(config->sockets[i].fd, (struct sockaddr *)&address, &len) < 0 ||
			getnameinfo((struct sockaddr *)&address, len, host, sizeof(host), NULL, 0,
				NI_NUMERICHOST) != 0)
			continue;
		int r = listen_at(config, host, port, ret, err);
		if (r != -ENODEV)
			return r;
	}
	return weft_error_set(err, ENODEV,
		"no address that this donor listens on is on an RDMA device; say --srp ADDRESS:%s",
		port);
}

static int listen_where_told(const struct weft_listener_config *config, char *place,
	struct srp_listener **ret, struct weft_error *err)
{
	char *host, *port;
	struct ibv_context **devices;
	int nr, r = weft_rdma_devices(&devices, &nr, err);

	if (r < 0)
		return r;
	rdma_free_devices(devices);
	weft_place_split(place, &host, &port);
	return host ? listen_at(config, host, port, ret, err)
		    : listen_beside(config, port, ret, err);
}

static int listen_new(const struct weft_listener_config *config, struct weft_listener **ret,
	struct weft_error *err)
{
	char *place = srp_listen_settings.place;
	struct srp_listener *srp;
	struct weft_error why;

	if (!place)
		return weft_error_set(err, ENODEV, "this donor is not told to listen for SRP");
	int r = listen_where_told(config, place, &srp, &why);
	if (r < 0)
		return weft_error_set(err, -r,
			"--srp: %s; without --srp this donor lends to all others", why.message);
	*ret = &srp->base;
	return 0;
}

static bool is_wanted(void)
{
	return srp_listen_settings.place;
}

static void listen_offers(const struct weft_listener *listener, char *buf, size_t len)
{
	srp_listener_offers(
		weft_container_of(listener, const struct srp_listener, base), buf, len);
}

static void listen_status(struct weft_listener *listener, struct weft_listener_status *ret)
{
	srp_listener_status(to_srp(listener), ret);
}

static void listen_stop(struct weft_listener *listener)
{
	srp_listener_stop(to_srp(listener));
}

static int listen_drain(struct weft_listener *listener, uint32_t timeout_ms)
{
	return weft_rdma_acceptor_drain(&to_srp(listener)->acceptor, timeout_ms);
}

static void listen_free(struct weft_listener *listener)
{
	srp_listener_free(to_srp(listener));
}

static void region_line(struct weft_listener *listener, const char *region, uint64_t epoch,
	uint64_t tenure, char *buf, size_t len)
{
	char dest[80];

	weft_rdma_acceptor_reached_at(&to_srp(listener)->acceptor, dest, sizeof(dest));
	srp_target_command(region, epoch, tenure, dest, buf, len);
}

const struct weft_listener_ops srp_listener_ops = {
	.new = listen_new,
	.is_wanted = is_wanted,
	.offers = listen_offers,
	.status = listen_status,
	.stop = listen_stop,
	.drain = listen_drain,
	.free = listen_free,
	.region_line = region_line,
};
