/*
 * Conformance of the verbs transport against a donor in this process.  Needs an RDMA device with an IPv4 address, named by
 * RDMA_IP (tests/shell/verbs-conformance.sh); without it everything is skipped.  WEFT_CHUNK: bytes of a memory
 * registration, so small regions can have many.  WEFT_REGION: bytes of the region.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/util.h"
#include "tests/conformance/suite.h"
#include "transports/verbs/listener.h"
#include "transports/verbs/verbs.h"

struct peer {
	struct weft_loop *loop;
	pthread_t thread;
	struct verbs_listener *listener;
	char port[8];
};

static const char *rdma_ip;
static uint64_t chunk_bytes, region_bytes;

static void *loop_main(void *ctx)
{
	weft_loop_run(ctx);
	return NULL;
}

static void on_wake(void *ctx)
{
	weft_loop_stop(ctx);
}

static void start(struct conf *conf)
{
	const struct weft_donor_config donor = {.lease_ms = CONF_LEASE_MS, .offers = "tcp,rdma"};
	const struct weft_memory_spec spec = {.name = "r", .size_bytes = region_bytes};
	const struct verbs_listener_config config = {.chunk_bytes = chunk_bytes};
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct peer *peer = test_calloc(1, sizeof(*peer));
	struct weft_error err = {0};

	assert_int_equal(inet_pton(AF_INET, rdma_ip, &address.sin_addr), 1);
	assert_int_equal(weft_donor_new(&donor, &conf->donor), 0);
	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &conf->region, NULL), 0);
	assert_int_equal(weft_donor_add(conf->donor, conf->region, NULL), 0);
	assert_int_equal(weft_loop_new(&peer->loop), 0);
	if (verbs_listener_new(conf->donor, peer->loop, (struct sockaddr *)&address, &config, &peer->listener,
		    &err) < 0)
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

static void stop(struct conf *conf)
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

int main(void)
{
	static const struct conf_fixture fixture = {
		.name = "verbs", .start = start, .stop = stop, .epoch = true, .sessions = true, .no_stock = true};
	struct weft_error err;
	struct tp *keep; /* so that the devices stay open from one case to the next */

	rdma_ip = getenv("RDMA_IP");
	chunk_bytes = getenv("WEFT_CHUNK") ? strtoull(getenv("WEFT_CHUNK"), NULL, 0) : 0;
	region_bytes = getenv("WEFT_REGION") ? strtoull(getenv("WEFT_REGION"), NULL, 0) : CONF_REGION_BYTES;
	if (!rdma_ip) {
		printf("SKIP: RDMA_IP does not name the address of an RDMA device\n");
		return 77;
	}
	if (tp_open(&tp_verbs_ops, NULL, &keep, &err) < 0) {
		printf("SKIP: %s\n", err.message);
		return 77;
	}
	int r = conf_run(&fixture, NULL, 0);
	tp_close(keep);
	return r;
}
