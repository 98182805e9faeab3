/* The ways to donors, and the start of a bridge over the best of them. */
#include "nbd-bridge/bridge/find.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "transports/nbd/borrower/client.h"
#include "transports/verbs/verbs.h"

enum {
	ASK_MS = 5000,  /* for what a donor offers; one that takes longer is spoken to over TCP */
	/* For an answer over RDMA, when there is TCP too: so many times what TCP's took, within these bounds. */
	TRY_FACTOR = 10,
	TRY_MIN_MS = 1000,
	TRY_MAX_MS = 10000,
};

static const struct verbs_config told = {0};
/* Before the bridge begins, by what each donor's answer over TCP took. */
static struct verbs_config tried = {.answer_ms = TRY_MIN_MS};

static int one_context(void *user, const char *name)
{
	struct weft_welcome welcome;

	if (weft_welcome_parse(name, strlen(name), &welcome) == 0)
		*(struct weft_welcome *)user = welcome;
	return 0;
}

static int answered(void *user, int *error)
{
	*(bool *)user = true;
	return 0;
}

/* true: it was answered. */
static bool ask_once(struct nbd_handle *nbd, const struct weft_hello *hello, uint64_t end_ns, struct weft_welcome *ret)
{
	char query[WEFT_CONTEXT_MAX];
	bool done = false;

	weft_hello_format(hello, query);
	if (nbd_clear_meta_contexts(nbd) < 0 || nbd_add_meta_context(nbd, query) < 0 ||
		nbd_aio_opt_list_meta_context(nbd, (nbd_context_callback){.callback = one_context, .user_data = ret},
			(nbd_completion_callback){.callback = answered, .user_data = &done}) < 0)
		return false;
	while (!done && weft_now_ns() < end_ns)
		if (nbd_poll(nbd, 100) < 0)
			break;
	return done;
}

/* What the donor offers the region over, and its epoch; "" and 0 if it does not say.  Nothing is granted. */
static void ask_offers(const struct weft_uri *uri, struct weft_welcome *ret)
{
	struct weft_hello hello = {.generation = 1, .mode = WEFT_MODE_SHARED, .name = "weft-attach"};
	struct nbd_handle *nbd = nbd_create();
	const uint64_t begin_ns = weft_now_ns(), end_ns = begin_ns + ASK_MS * UINT64_C(1000000);
	bool done = false;

	if (!nbd)
		return;
	weft_random(hello.id, sizeof(hello.id));
	if (nbd_set_opt_mode(nbd, true) == 0 && nbd_aio_connect_tcp(nbd, uri->host, uri->port) == 0) {
		while (nbd_aio_is_connecting(nbd) && weft_now_ns() < end_ns)
			if (nbd_poll(nbd, 100) < 0)
				break;
		if (nbd_aio_is_negotiating(nbd) && nbd_set_export_name(nbd, uri->region) == 0) {
			done = ask_once(nbd, &hello, end_ns, ret);
			/* A donor of version 0 does not understand the other. */
			hello.version0 = true;
			if (done && ret->epoch == 0)
				done = ask_once(nbd, &hello, end_ns, ret);
		}
		if (done)
			nbd_aio_opt_abort(nbd); /* a goodbye; nobody waits for its answer */
		/* A machine, or a network, that is slow with the one is slow with the other. */
		tried.answer_ms = (uint32_t)weft_max(tried.answer_ms,
			weft_min(TRY_FACTOR * ((weft_now_ns() - begin_ns) / 1000000), TRY_MAX_MS));
	}
	nbd_close(nbd);
}

/* An address of one host, as numbers: a donor names no other kind. */
static bool is_host_address(const char *text)
{
	struct in6_addr in6;
	struct in_addr in;

	if (inet_pton(AF_INET, text, &in) == 1) {
		uint8_t first = (uint8_t)(ntohl(in.s_addr) >> 24);

		return first != 0 && first != 127 && first < 224;
	}
	return inet_pton(AF_INET6, text, &in6) == 1 && !IN6_IS_ADDR_UNSPECIFIED(&in6) && !IN6_IS_ADDR_LOOPBACK(&in6) &&
		!IN6_IS_ADDR_MULTICAST(&in6) && !IN6_IS_ADDR_LINKLOCAL(&in6) && !IN6_IS_ADDR_V4MAPPED(&in6);
}

/* "rdma:10809" or "rdma:10809:192.0.2.7"; no address: the one that it was asked at. */
static bool parse_rdma(const char *offer, char port[8], char address[64])
{
	int n = 0;

	if (sscanf(offer, "rdma:%7[0-9]%n", port, &n) != 1)
		return false;
	address[0] = '\0';
	if (offer[n] == '\0')
		return true;
	if (offer[n] != ':' || strlen(offer + n + 1) >= 64)
		return false;
	strcpy(address, offer + n + 1);
	return is_host_address(address);
}

static void add_way(struct bridge_found *found, struct bridge_donor_config *config, const struct verbs_config *verbs, const char *host,
	const char *port)
{
	unsigned i = config->nr_ways;

	for (unsigned j = 0; j < i; j++)
		if (config->ways[j].transport == &tp_verbs_ops && strcmp(config->ways[j].host, host) == 0)
			return;
	if (i == BRIDGE_MAX_WAYS)
		return;
	snprintf(found->hosts[i], sizeof(found->hosts[i]), "%s", host);
	snprintf(found->ports[i], sizeof(found->ports[i]), "%s", port);
	config->ways[i] = (struct bridge_way){&tp_verbs_ops, verbs, found->hosts[i], found->ports[i]};
	config->nr_ways++;
}

/* The addresses that the donor names, the one that the user named first if it is among them. */
static void add_offered(struct bridge_found *found, struct bridge_donor_config *config, const struct verbs_config *verbs)
{
	const char *host = found->uri->host;
	char offers[sizeof(found->offers)], port[8] = "", address[64], *at;

	for (unsigned pass = 0; pass < 2; pass++) {
		strcpy(offers, found->offers);
		for (char *offer = strtok_r(offers, ",", &at); offer; offer = strtok_r(NULL, ",", &at))
			if (parse_rdma(offer, port, address) &&
				(pass > 0 || address[0] == '\0' || strcmp(address, host) == 0))
				add_way(found, config, verbs, address[0] ? address : host, port);
	}
	/* It may not know what its address is to others. */
	if (port[0])
		add_way(found, config, verbs, host, port);
}

/* Without a device here nobody needs to be asked. */
static int look_for_device(struct weft_error *err)
{
	struct tp *tp;
	int r = tp_open(&tp_verbs_ops, NULL, &tp, err);

	if (r == 0)
		tp_close(tp);
	return r;
}

int bridge_find_ways(struct bridge_found *found, enum weft_transport_choice choice, struct bridge_donor_config *config,
	struct weft_error *no_better, struct weft_error *err)
{
	const struct weft_uri *uri = found->uri;
	bool tcp_only = uri->foreign || uri->socket[0];
	struct weft_welcome welcome = {0};

	config->region = uri->region;
	config->label = found->label;
	config->nr_ways = 0;
	found->offers[0] = '\0';
	if (choice == WEFT_TRANSPORT_RDMA && tcp_only)
		return weft_error_set(err, EOPNOTSUPP, "cannot attach over RDMA: %s; use --transport auto or tcp",
			uri->foreign ? "an NBD server speaks TCP only" : "a Unix socket is none");
	if (choice != WEFT_TRANSPORT_TCP && !tcp_only && look_for_device(no_better) == 0) {
		no_better->code = 0;
		ask_offers(uri, &welcome);
		strcpy(found->offers, welcome.offers);
		/* Whoever answers at an address that a donor names must have the same contents. */
		if (config->epoch == 0)
			config->expect = welcome.epoch;
		config->version0 = welcome.version0;
	}
	if (choice == WEFT_TRANSPORT_RDMA) {
		add_offered(found, config, &told);
		/* There may be a way over RDMA alone. */
		if (config->nr_ways == 0)
			add_way(found, config, &told, uri->host, uri->port);
		return 0;
	}
	config->ways[0] = (struct bridge_way){
		.transport = &tp_nbd_ops,
		.host = uri->socket[0] ? uri->socket : uri->host,
		.port = uri->socket[0] ? NULL : uri->port,
	};
	config->nr_ways = 1;
	add_offered(found, config, &tried);
	return 0;
}

/*
 * A donor's own word, which it would say over any transport.  EBUSY and EINVAL are the driver's, or the listener's, as well:
 * TCP is asked again then.
 */
static bool is_final(int error)
{
	return error == -ECANCELED || error == -ESTALE || error == -WEFT_ESUPERSEDED || error == -EROFS || error == -ENOENT || error == -ESHUTDOWN;
}

void bridge_find_end(struct bridge **bridge)
{
	if (!*bridge)
		return;
	bridge_stop(*bridge, 0, NULL);
	bridge_free(*bridge);
	*bridge = NULL;
}

/* Begins with the nth better way of each donor that has so many, with the fallback of the others. */
static int start_over(struct bridge_config *config, struct bridge_donor_config *donors, unsigned nth, struct bridge **bridge,
	struct weft_error *err)
{
	bridge_find_end(bridge);
	for (unsigned i = 0; i < config->nr_donors; i++)
		donors[i].first_way = nth < donors[i].nr_ways ? nth : 0;
	config->donors = donors;
	int r = bridge_new(config, bridge, err);
	if (r < 0)
		return r;
	return bridge_start(*bridge, err);
}

static unsigned most_ways(const struct bridge_donor_config *donors, unsigned nr)
{
	unsigned most = 0;

	for (unsigned i = 0; i < nr; i++)
		if (donors[i].nr_ways > most)
			most = donors[i].nr_ways;
	return most;
}

/* RDMA alone: the first address that answers is the one to stay with. */
static int start_rdma(struct bridge_find *find, struct bridge_config *config, struct bridge_donor_config *donors,
	struct bridge **bridge, struct weft_error *err)
{
	unsigned most = most_ways(donors, config->nr_donors);
	int r = 0;

	for (unsigned nth = 0; nth < most; nth++) {
		struct bridge_donor_config one[BRIDGE_MAX_DONORS];

		for (unsigned i = 0; i < config->nr_donors; i++) {
			one[i] = donors[i];
			one[i].ways[0] = donors[i].ways[nth < donors[i].nr_ways ? nth : 0];
			one[i].nr_ways = 1;
		}
		r = start_over(config, one, 0, bridge, err);
		if (r == 0 || is_final(r))
			break;
	}
	snprintf(find->why, sizeof(find->why), "as told");
	return r;
}

static void say_why_tcp(struct bridge_find *find, const struct bridge *bridge, const struct weft_error *rdma)
{
	const struct weft_uri *uri = find->donors[0].uri;
	const char *offers = bridge_info(bridge)->offers;

	if (uri->foreign)
		snprintf(find->why, sizeof(find->why), "an NBD server offers nothing else");
	else if (find->choice == WEFT_TRANSPORT_TCP)
		snprintf(find->why, sizeof(find->why), "as told");
	else if (rdma->code && strstr(offers, "rdma:"))
		snprintf(find->why, sizeof(find->why), "auto: RDMA was tried: %s", rdma->message);
	else if (uri->socket[0])
		snprintf(find->why, sizeof(find->why), "the donor is on this machine");
	else
		snprintf(find->why, sizeof(find->why), "auto: the donor offers only %s", offers);
}

static int find_all(struct bridge_find *find, const struct bridge_config *config, struct bridge_donor_config *donors,
	struct weft_error *rdma, struct weft_error *err)
{
	int r = 0;

	for (unsigned i = 0; i < config->nr_donors && r == 0; i++)
		r = bridge_find_ways(&find->donors[i], find->choice, &donors[i], rdma, err);
	return r;
}

int bridge_find_and_start_stale(struct bridge_find *find, struct bridge_config *config, struct bridge_donor_config *donors,
	const struct tp_info *infos, const struct weft_error *why, struct bridge **bridge, struct weft_error *err)
{
	struct weft_error rdma = {0};

	bridge_find_end(bridge);
	int r = find_all(find, config, donors, &rdma, err);
	config->donors = donors;
	snprintf(find->why, sizeof(find->why), "it was stale when it was taken over");
	if (r == 0)
		r = bridge_new(config, bridge, err);
	return r < 0 ? r : bridge_start_stale(*bridge, infos, why, err);
}

int bridge_find_and_start(struct bridge_find *find, struct bridge_config *config, struct bridge_donor_config *donors,
	struct bridge **bridge, struct weft_error *err)
{
	struct weft_error rdma = {0};
	int r = find_all(find, config, donors, &rdma, err);

	if (r < 0)
		return r;
	if (find->choice == WEFT_TRANSPORT_RDMA)
		return start_rdma(find, config, donors, bridge, err);
	unsigned most = most_ways(donors, config->nr_donors);
	for (unsigned nth = 1; nth < most; nth++) {
		r = start_over(config, donors, nth, bridge, err);
		if (r == 0) {
			snprintf(find->why, sizeof(find->why), "auto: the donor offers %s", bridge_info(*bridge)->offers);
			return 0;
		}
		if (is_final(r))
			return r;
		/* The first address is the likeliest, and its failure the one to know of. */
		if (rdma.code == 0)
			rdma = *err;
	}
	r = start_over(config, donors, 0, bridge, err);
	if (r == 0)
		say_why_tcp(find, *bridge, &rdma);
	return r;
}
