/* SPDX-License-Identifier: MIT */
/*
 * Conformance of the transport "srp" at weft's own SRP target, a donor in this process: its
 * listener's loop runs in a thread.  Needs an RDMA device with an IPv4 address, named by RDMA_IP
 * (tests/shell/srp-conformance.sh); without it everything is skipped.
 *
 *     WEFT_SRP_READ  set: the region may only be read
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/srp-cases.h"
#include "transports/srp/borrower/client.h"
#include "transports/srp/donor/listener.h"
#include "transports/srp/target.h"

static const char *rdma_ip;
static struct srp_hosts hosts; /* one, which may read; none: any may write */

struct peer {
	struct weft_loop *loop;
	pthread_t thread;
	struct srp_listener *listener;
	char port[8];
	char unit[40];
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

static void start_port(struct conf *conf)
{
	const struct srp_listener_config config = {.hosts = hosts.nr ? &hosts : NULL};
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct peer *peer = conf->peer;
	struct weft_error err = {0};

	assert_int_equal(inet_pton(AF_INET, rdma_ip, &address.sin_addr), 1);
	address.sin_port = htobe16((uint16_t)atoi(peer->port));
	assert_int_equal(weft_loop_new(&peer->loop), 0);
	/* The one before is closed on a thread. */
	uint64_t end_ns = weft_now_ns() + CONF_BOUND_MS * UINT64_C(1000000);
	while (srp_listener_new(conf->donor, peer->loop, (struct sockaddr *)&address, &config,
		       &peer->listener, &err) < 0) {
		if (err.code != EADDRINUSE || weft_now_ns() > end_ns)
			fail_msg("%s", err.message);
		poll(NULL, 0, 10);
	}
	snprintf(peer->port, sizeof(peer->port), "%u", srp_listener_port(peer->listener));
	weft_loop_on_wake(peer->loop, on_wake, peer->loop);
	assert_int_equal(pthread_create(&peer->thread, NULL, loop_main, peer->loop), 0);
}

static void stop_port(struct conf *conf)
{
	struct peer *peer = conf->peer;

	weft_loop_wake(peer->loop);
	pthread_join(peer->thread, NULL);
	srp_listener_stop(peer->listener);
	assert_int_equal(weft_rdma_acceptor_drain(&peer->listener->acceptor, CONF_BOUND_MS), 0);
	srp_listener_free(peer->listener);
	weft_loop_free(peer->loop);
}

static void start(struct conf *conf)
{
	const struct weft_memory_spec spec = {.name = "r", .size_bytes = CONF_REGION_BYTES};
	const struct weft_donor_config donor = {
		.allow_insecure = true, .lease_ms = CONF_LEASE_MS, .offers = "srp"};
	struct peer *peer = test_calloc(1, sizeof(*peer));

	conf->peer = peer;
	assert_int_equal(weft_donor_new(&donor, &conf->donor), 0);
	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &conf->region, NULL), 0);
	assert_int_equal(weft_donor_add(conf->donor, conf->region, NULL), 0);
	start_port(conf);
	snprintf(peer->unit, sizeof(peer->unit), "%016" PRIx64 ".%016" PRIx64,
		srp_target_ext(conf->region->epoch, weft_donor_tenure(conf->donor, conf->region)),
		srp_target_guid("r"));
	conf->ops = &tp_srp_ops;
	conf->size_bytes = CONF_REGION_BYTES;
	conf->target.host = rdma_ip;
	conf->target.port = peer->port;
	conf->target.region = peer->unit;
	conf->target.hello.anonymous = true;
}

static void stop(struct conf *conf)
{
	stop_port(conf);
	weft_donor_free(conf->donor);
	weft_region_put(conf->region);
	test_free(conf->peer);
}

int main(void)
{
	static const struct conf_fixture fixture = {.name = "srp-donor", .start = start,
		.stop = stop};
	static const struct srp_port port = {.stop = stop_port, .start = start_port};
	char reader[80];
	struct weft_error err;
	struct tp *keep;

	rdma_ip = getenv("RDMA_IP");
	if (!rdma_ip) {
		printf("SKIP: RDMA_IP does not name the address of an RDMA device\n");
		return 77;
	}
	/* The devices stay open, so that the suite sees no file come or go with them. */
	if (tp_open(&tp_srp_ops, NULL, &keep, &err) < 0) {
		printf("SKIP: %s\n", err.message);
		return 77;
	}
	snprintf(reader, sizeof(reader), "reader=%s,ro", rdma_ip);
	if (getenv("WEFT_SRP_READ") && srp_hosts_parse(&hosts, reader) < 0)
		abort();
	int r = hosts.nr ? srp_conf_run_read_only(&fixture) : srp_conf_run(&fixture, &port);
	tp_close(keep);
	return r;
}
