/* SPDX-License-Identifier: MIT */
/* A donor over QUIC; see quic-peer.h.  The loop is its thread's, the rest the test's. */
#include "tests/conformance/quic-peer.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "fabric/base/loop.h"
#include "tests/conformance/key-peer.h"
#include "transports/quic/borrower/client.h"

struct quic_peer {
	struct weft_loop *loop;
	struct quic_listener *listener;
	pthread_t thread;
	struct weft_keys *keys;
	struct weft_key key;
	char dir[KEY_PEER_DIR];
	char host[INET_ADDRSTRLEN], port[8];
};

static void on_wake(void *ctx)
{
	struct quic_peer *peer = ctx;

	quic_listener_stop(peer->listener);
	if (quic_listener_drain(peer->listener, CONF_BOUND_MS) < 0)
		abort();
	quic_listener_free(peer->listener);
	weft_loop_stop(peer->loop);
}

static void *run(void *ctx)
{
	struct quic_peer *peer = ctx;

	weft_loop_run(peer->loop);
	return NULL;
}

void quic_peer_start(struct conf *conf, const struct quic_listener_config *config)
{
	quic_peer_start_at(conf, config, INADDR_LOOPBACK, "0");
}

void quic_peer_start_at(struct conf *conf, const struct quic_listener_config *config, in_addr_t ip,
	const char *port)
{
	const struct sockaddr_in address = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(ip),
		.sin_port = htons((uint16_t)atoi(port))};
	const struct weft_memory_spec spec = {.name = "r", .size_bytes = CONF_REGION_BYTES};
	struct quic_peer *peer = test_calloc(1, sizeof(*peer));
	struct sockaddr_storage at;
	struct weft_error err;

	key_peer_make(peer->dir, &peer->key, &peer->keys);
	const struct weft_donor_config donor = {
		.lease_ms = CONF_LEASE_MS, .offers = "quic", .keys = peer->keys};
	assert_int_equal(weft_donor_new(&donor, &conf->donor), 0);
	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &conf->region, NULL), 0);
	assert_int_equal(weft_donor_add(conf->donor, conf->region, NULL), 0);
	assert_int_equal(weft_loop_new(&peer->loop), 0);
	assert_int_equal(quic_listener_new(conf->donor, peer->loop,
				 (const struct sockaddr *)&address, config, &peer->listener, &err),
		0);
	quic_listener_address(peer->listener, &at);
	snprintf(peer->port, sizeof(peer->port), "%u",
		ntohs(((const struct sockaddr_in *)&at)->sin_port));
	weft_loop_on_wake(peer->loop, on_wake, peer);
	assert_int_equal(pthread_create(&peer->thread, NULL, run, peer), 0);
	conf->peer = peer;
	conf->ops = &tp_quic_ops;
	conf->size_bytes = CONF_REGION_BYTES;
	inet_ntop(AF_INET, &address.sin_addr, peer->host, sizeof(peer->host));
	conf->target.host = peer->host;
	conf->target.port = peer->port;
	conf->target.key = &peer->key;
}

struct weft_region *quic_peer_lend_file(const struct conf *conf, char *path)
{
	struct weft_region *file;
	struct weft_error err;
	int fd = mkstemp(path);

	assert_true(fd >= 0 && ftruncate(fd, 64 << 10) == 0);
	close(fd);
	if (weft_region_open_file(AT_FDCWD, path, "f", false, false, &file, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(weft_donor_add(conf->donor, file, NULL), 0);
	return file;
}

void quic_peer_status(const struct conf *conf, struct weft_listener_status *ret)
{
	const struct quic_peer *peer = conf->peer;

	quic_listener_status(peer->listener, ret);
}

void quic_peer_stop(struct conf *conf)
{
	struct quic_peer *peer = conf->peer;

	weft_loop_wake(peer->loop);
	pthread_join(peer->thread, NULL);
	weft_loop_free(peer->loop);
	weft_donor_free(conf->donor);
	weft_region_put(conf->region);
	conf->donor = NULL;
	weft_keys_close(peer->keys);
	key_peer_remove_dir(peer->dir);
	test_free(peer);
}
