/* SPDX-License-Identifier: MIT */
#include "tests/conformance/verbs-peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "transports/verbs/donor/listener.h"
#include "transports/verbs/verbs.h"

struct peer {
	struct weft_loop *loop;
	pthread_t thread;
	struct verbs_listener *listener;
	char port[8];
};

static void *loop_main(void *ctx)
{
	weft_loop_run(ctx);
	return NULL;
}

static void on_wake(void *ctx)
{
	weft_loop_stop(ctx);
}

const char *verbs_peer_ip(struct tp **ret_keep)
{
	const char *ip = getenv("RDMA_IP");
	struct weft_error err;

	if (!ip)
		printf("SKIP: RDMA_IP does not name the address of an RDMA device\n");
	else if (tp_open(&tp_verbs_ops, NULL, ret_keep, &err) < 0)
		printf("SKIP: %s\n", err.message);
	else
		return ip;
	return NULL;
}

void verbs_peer_start(struct conf *conf, const char *rdma_ip, uint64_t region_bytes,
	const struct verbs_listener_config *config)
{
	verbs_peer_start_donor(
		conf, rdma_ip, region_bytes, config,
		(struct weft_donor_config){.allow_insecure = true});
}

void verbs_peer_start_donor(struct conf *conf, const char *rdma_ip, uint64_t region_bytes,
	const struct verbs_listener_config *config, struct weft_donor_config donor)
{
	const struct weft_memory_spec spec = {.name = "r", .size_bytes = region_bytes};
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct peer *peer = test_calloc(1, sizeof(*peer));
	struct weft_error err = {0};

	assert_int_equal(inet_pton(AF_INET, rdma_ip, &address.sin_addr), 1);
	donor.lease_ms = CONF_LEASE_MS;
	snprintf(donor.offers, sizeof(donor.offers), "tcp,rdma");
	assert_int_equal(weft_donor_new(&donor, &conf->donor), 0);
	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &conf->region, NULL), 0);
	assert_int_equal(weft_donor_add(conf->donor, conf->region, NULL), 0);
	assert_int_equal(weft_loop_new(&peer->loop), 0);
	if (verbs_listener_new(conf->donor, peer->loop, (struct sockaddr *)&address, config,
		    &peer->listener, &err) < 0)
		fail_msg("%s", err.message);
	snprintf(peer->port, sizeof(peer->port), "%u", verbs_listener_port(peer->listener));
	weft_loop_on_wake(peer->loop, on_wake, peer->loop);
	assert_int_equal(pthread_create(&peer->thread, NULL, loop_main, peer->loop), 0);
	conf->peer = peer;
	conf->target.host = rdma_ip;
	conf->target.port = peer->port;
	conf->ops = &tp_verbs_ops;
	conf->size_bytes = region_bytes;
}

void verbs_peer_stop(struct conf *conf)
{
	struct peer *peer = conf->peer;

	weft_loop_wake(peer->loop);
	pthread_join(peer->thread, NULL);
	verbs_listener_stop(peer->listener);
	assert_int_equal(verbs_listener_drain(peer->listener, CONF_BOUND_MS), 0);
	verbs_listener_free(peer->listener);
	weft_loop_free(peer->loop);
	weft_donor_free(conf->donor);
	weft_region_put(conf->region);
	test_free(peer);
}
