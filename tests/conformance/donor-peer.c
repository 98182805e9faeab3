/* SPDX-License-Identifier: MIT */
/*
 * A donor in this process, served over NBD.  The loop is its thread's; starting and stopping are
 * the test's.
 */
#include "tests/conformance/donor-peer.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fabric/base/loop.h"
#include "tests/conformance/key-peer.h"
#include "transports/nbd/borrower/client.h"
#include "transports/nbd/donor/listener.h"

struct donor_peer {
	struct weft_loop *loop;
	struct nbd_listener *listener;
	pthread_t thread;
	struct weft_keys *keys; /* NULL: whoever comes is let in */
	struct weft_key key;
	char dir[32];
	char path[64];
	char port[8];
};

static void on_wake(void *ctx)
{
	struct donor_peer *peer = ctx;

	nbd_listener_stop(peer->listener);
	if (nbd_listener_drain(peer->listener, CONF_BOUND_MS) < 0)
		abort();
	nbd_listener_free(peer->listener);
	weft_loop_stop(peer->loop);
}

static void *run(void *ctx)
{
	struct donor_peer *peer = ctx;

	weft_loop_run(peer->loop);
	return NULL;
}

static int listen_tcp(struct donor_peer *peer)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_return_code(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_return_code(listen(fd, 64), 0);
	assert_return_code(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	snprintf(peer->port, sizeof(peer->port), "%u", ntohs(addr.sin_port));
	return fd;
}

static int listen_unix(struct donor_peer *peer)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (!peer->dir[0])
		key_peer_make_dir(peer->dir);
	snprintf(peer->path, sizeof(peer->path), "%s/s", peer->dir);
	strcpy(addr.sun_path, peer->path);
	unlink(peer->path);
	assert_return_code(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_return_code(listen(fd, 64), 0);
	return fd;
}

static void make_donor(struct conf *conf, struct donor_peer *peer)
{
	const struct weft_donor_config donor = {.lease_ms = CONF_LEASE_MS, .offers = "tcp",
		.keys = peer->keys,
		.allow_insecure = !peer->keys};
	const struct weft_memory_spec spec = {.name = "r", .size_bytes = CONF_REGION_BYTES};

	assert_int_equal(weft_donor_new(&donor, &conf->donor), 0);
	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &conf->region, NULL), 0);
	assert_int_equal(weft_donor_add(conf->donor, conf->region, NULL), 0);
}

static void serve(struct conf *conf, struct donor_peer *peer, int fd)
{
	assert_int_equal(weft_loop_new(&peer->loop), 0);
	assert_int_equal(
		nbd_listener_new(conf->donor, peer->loop, &fd, 1, NULL, &peer->listener, NULL), 0);
	weft_loop_on_wake(peer->loop, on_wake, peer);
	assert_int_equal(pthread_create(&peer->thread, NULL, run, peer), 0);
}

static void start(struct conf *conf, bool tcp, bool tls)
{
	struct donor_peer *peer = test_calloc(1, sizeof(*peer));

	if (tls)
		key_peer_make(peer->dir, &peer->key, &peer->keys);
	make_donor(conf, peer);
	serve(conf, peer, tcp ? listen_tcp(peer) : listen_unix(peer));
	conf->peer = peer;
	conf->ops = &tp_nbd_ops;
	conf->size_bytes = CONF_REGION_BYTES;
	conf->target.host = tcp ? "127.0.0.1" : peer->path;
	conf->target.port = tcp ? peer->port : NULL;
	conf->target.key = tls ? &peer->key : NULL;
	conf->target.renews = tls; /* the kernel has the records, where it can */
}

void donor_peer_start(struct conf *conf, bool tcp)
{
	start(conf, tcp, false);
}

void donor_peer_start_tls(struct conf *conf)
{
	start(conf, true, true);
}

static void give_up(struct conf *conf)
{
	weft_donor_free(conf->donor);
	weft_region_put(conf->region);
	conf->donor = NULL;
}

void donor_peer_go(struct conf *conf)
{
	struct donor_peer *peer = conf->peer;

	weft_loop_wake(peer->loop);
	pthread_join(peer->thread, NULL);
	weft_loop_free(peer->loop);
	peer->loop = NULL;
}

void donor_peer_come_back(struct conf *conf, bool with_other_contents)
{
	struct donor_peer *peer = conf->peer;

	if (with_other_contents) {
		give_up(conf);
		make_donor(conf, peer);
	}
	serve(conf, peer, listen_unix(peer));
}

void donor_peer_stop(struct conf *conf)
{
	struct donor_peer *peer = conf->peer;

	if (peer->loop)
		donor_peer_go(conf);
	give_up(conf);
	if (peer->path[0])
		unlink(peer->path);
	weft_keys_close(peer->keys);
	if (peer->dir[0])
		key_peer_remove_dir(peer->dir);
	test_free(peer);
}
