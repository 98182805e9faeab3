/* SPDX-License-Identifier: MIT */
/*
 * Looks at datagrams for which there is no socket of a connection: begins connections, hands
 * datagrams of known ones on, and answers the rest, with less than what came.
 *
 * Invariant: whoever has not shown that datagrams reach it costs nothing once more than a few do so
 * at a time; who has shown that has a place in the budget for strangers.
 */
#include "transports/quic/donor/listener.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "fabric/base/address.h"
#include "fabric/base/log.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "fabric/nbd/tls.h"
#include "transports/quic/donor/session.h"

#define MS_NS UINT64_C(1000000)

enum {
	ROUNDS = 4, /* receives before the loop's others get their turn */
	STACK_BYTES = 256 << 10,
	MAX_STRANGERS = 512,
	MIN_STRANGERS = 16,
	UNPROVED = 16,
	RESET_MS = 10, /* between two stateless resets to one place of sources */
	CUT_OFF_MS = 2000,
};

/* ---- datagrams ---- */

static bool is_busy(struct quic_listener *l)
{
	struct weft_strangers_status status;

	weft_strangers_status(&l->strangers, &status);
	return status.now >= l->config.max_unproved;
}

/* Whether it may begin a handshake; if not, the log says so. */
static bool may_come(struct quic_listener *l, const struct quic_path *path)
{
	struct weft_peer peer = {.transport = "quic"};
	char host[NI_MAXHOST] = "unknown";
	struct weft_error why;

	if (weft_strangers_may_come(&l->strangers, (const struct sockaddr *)&path->remote))
		return true;
	(void)getnameinfo((const struct sockaddr *)&path->remote, path->remote_len, host,
		sizeof(host), NULL, 0, NI_NUMERICHOST);
	snprintf(peer.text, sizeof(peer.text), "%.60s", host);
	peer.address = path->remote;
	weft_error_set(&why, EBUSY, "too many connections a second come from there");
	weft_donor_kept_out(l->donor, &peer, &why);
	return false;
}

/* Whether one connection less would help: no descriptor, no memory, no thread. */
static bool is_scarcity(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -EAGAIN;
}

static void begin(struct quic_listener *l, struct quic_initial *initial,
	const struct quic_message *m, const uint8_t *datagram, size_t len)
{
	const uint64_t now_ns = weft_now_ns();
	uint8_t answer[QUIC_LEAST_BYTES];
	size_t n = 0;

	if (initial->token_len > 0) {
		if (!quic_check_token(initial, l->token_secret, &m->path, now_ns))
			n = quic_make_refusal(initial, answer, sizeof(answer));
	} else if (is_busy(l)) {
		n = quic_make_retry(initial, l->token_secret, &m->path, now_ns, answer,
			sizeof(answer));
	}
	if (n == 0 && !may_come(l, &m->path))
		n = quic_make_refusal(initial, answer, sizeof(answer));
	if (n == 0) {
		int r = quic_session_start(l, initial, &m->path, datagram, len);

		if (r == 0)
			return;
		/* The newcomer will ask again, unless it was never there. */
		if (is_scarcity(r))
			weft_strangers_make_room(&l->strangers);
		weft_debug("a connection over QUIC cannot begin: %s", strerror(-r));
		pthread_mutex_lock(&l->lock);
		l->refused++;
		pthread_mutex_unlock(&l->lock);
		return;
	}
	quic_socket_send_to(l->socket.fd, &m->path, answer, n);
}

/*
 * Nobody makes this donor send more than a few resets to an address, nor keeps it from sending
 * others theirs.
 */
static bool may_be_reset(struct quic_listener *l, const struct sockaddr *peer, uint64_t now_ns)
{
	uint8_t key[WEFT_ADDRESS_KEY_BYTES];

	weft_address_key(peer, 0, key);
	uint64_t *at_ns = &l->reset_ns[XXH3_64bits_withSeed(key, sizeof(key), l->reset_seed) %
		QUIC_RESET_PLACES];
	if (*at_ns && now_ns - *at_ns < RESET_MS * MS_NS)
		return false;
	*at_ns = now_ns;
	return true;
}

/* Of a connection that is not there any more. */
static void end_unknown(struct quic_listener *l, const struct quic_initial *seen,
	const struct quic_message *m, size_t len)
{
	uint8_t answer[64];

	if (seen->version != 0)
		return;
	size_t n = quic_make_reset(seen->dcid, l->reset_secret, len, answer, sizeof(answer));
	if (n == 0 ||
		!may_be_reset(l, (const struct sockaddr *)&m->path.remote, weft_now_ns()))
		return;
	quic_socket_send_to(l->socket.fd, &m->path, answer, n);
}

static bool hand_on(struct quic_listener *l, const struct quic_initial *seen,
	const struct quic_message *m, const uint8_t *datagram, size_t len)
{
	pthread_mutex_lock(&l->lock);
	struct quic_session *s = quic_route_find(l, seen->dcid, seen->dcid_len);
	if (s)
		quic_session_post(s, &m->path, datagram, len);
	pthread_mutex_unlock(&l->lock);
	return s;
}

static void take(struct quic_listener *l, const struct quic_message *m, const uint8_t *datagram,
	size_t len)
{
	uint8_t answer[QUIC_LEAST_BYTES];
	struct quic_initial seen;
	enum quic_kind kind = quic_look(datagram, len, &seen);

	if (kind == QUIC_VERSION)
		quic_socket_send_to(l->socket.fd, &m->path, answer,
			quic_make_version(&seen, answer, sizeof(answer)));
	if (kind == QUIC_VERSION || kind == QUIC_JUNK || hand_on(l, &seen, m, datagram, len))
		return;
	if (kind == QUIC_INITIAL)
		begin(l, &seen, m, datagram, len);
	else
		end_unknown(l, &seen, m, len);
}

static void on_datagrams(struct weft_watch *watch, uint32_t events)
{
	struct quic_listener *l = weft_container_of(watch, struct quic_listener, watch);

	for (unsigned round = 0; round < ROUNDS; round++) {
		struct quic_message messages[QUIC_INBOX];
		int nr = quic_socket_receive(&l->socket, l->inbox, messages);

		if (nr <= 0)
			return;
		for (int i = 0; i < nr; i++) {
			const struct quic_message *m = &messages[i];

			for (size_t at = 0; at < m->len; at += m->segment)
				take(l, m, m->bytes + at, weft_min(m->segment, m->len - at));
		}
	}
}

/* ---- life ---- */

static unsigned default_strangers(void)
{
	struct rlimit limit;

	/* A connection has two descriptors. */
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return MAX_STRANGERS;
	return (unsigned)weft_max(weft_min(limit.rlim_cur / 8, MAX_STRANGERS), MIN_STRANGERS);
}

static void set_defaults(struct quic_listener_config *config)
{
	if (!config->max_connections)
		config->max_connections = 1024;
	if (!config->max_strangers)
		config->max_strangers = default_strangers();
	if (!config->handshake_ms)
		config->handshake_ms = 10000;
	if (!config->idle_ms)
		config->idle_ms = 120000;
	if (!config->max_unproved)
		config->max_unproved = (unsigned)weft_min(UNPROVED, config->max_strangers / 2);
}

/*
 * The same for each donor at this address and port of this network, as long as the machine runs:
 * one that was killed leaves borrowers behind, and the next one tells them at once that their
 * connections are over.  Users of this machine could find the secret out; all that they could do
 * with it is to end connections whose packets they see.
 */
static void make_reset_secret(struct quic_listener *l)
{
	struct {
		char what[16], boot[WEFT_BOOT_ID_BYTES];
		struct sockaddr_storage address;
		dev_t network_dev;
		ino_t network;
	} seed;
	struct stat network = {0};

	memset(&seed, 0, sizeof(seed)); /* with what lies between the fields */
	memcpy(seed.what, "weft quic reset", sizeof(seed.what));
	_Static_assert(QUIC_SECRET_BYTES == 32, "a SHA-256");
	weft_boot_id(seed.boot, sizeof(seed.boot));
	memcpy(&seed.address, &l->socket.path.local, l->socket.path.local_len);
	if (stat("/proc/self/ns/net", &network) == 0) {
		seed.network_dev = network.st_dev;
		seed.network = network.st_ino;
	}
	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, &seed, sizeof(seed), l->reset_secret) < 0)
		weft_random(l->reset_secret, sizeof(l->reset_secret));
}

static int start(struct quic_listener *l, const struct sockaddr *address, struct weft_error *err)
{
	int r;

	if (!weft_donor_keys(l->donor) && !l->config.tls_certificates)
		return weft_error_set(err, ENOKEY,
			"QUIC is always encrypted, and this donor has neither keys nor "
			"certificates: make a key with weft key new");
	r = weft_export_credentials(l->donor, l->config.tls_certificates, &l->credentials, err);
	if (r < 0)
		return r;
	l->inbox = quic_inbox_new();
	if (!l->inbox)
		return weft_error_set(err, ENOMEM, "no memory");
	r = quic_socket_open(address, NULL, false, &l->socket, err);
	if (r < 0)
		return r;
	/* The port is shared with the sockets of its connections, and with no other donor. */
	quic_socket_share(&l->socket);
	make_reset_secret(l);
	l->watch = (struct weft_watch){.fd = l->socket.fd, .fn = on_datagrams};
	r = weft_loop_add(l->loop, &l->watch, EPOLLIN);
	return r < 0 ? weft_error_set(err, -r, "%s", strerror(-r)) : 0;
}

static void give_back(struct quic_listener *l)
{
	quic_socket_close(&l->socket);
	quic_inbox_free(l->inbox);
	nbd_tls_credentials_put(l->credentials);
	weft_strangers_fini(&l->strangers);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	explicit_bzero(l->token_secret, sizeof(l->token_secret));
	explicit_bzero(l->reset_secret, sizeof(l->reset_secret));
	free(l);
}

int quic_listener_new(struct weft_donor *donor, struct weft_loop *loop,
	const struct sockaddr *address, const struct quic_listener_config *config,
	struct quic_listener **ret, struct weft_error *err)
{
	struct quic_listener *l = calloc(1, sizeof(*l));

	if (!l)
		return weft_error_set(err, ENOMEM, "no memory");
	l->donor = donor;
	l->loop = loop;
	l->socket.fd = -1;
	if (config)
		l->config = *config;
	set_defaults(&l->config);
	weft_random(l->token_secret, sizeof(l->token_secret));
	weft_random(&l->reset_seed, sizeof(l->reset_seed));
	if (weft_strangers_init(&l->strangers, l->config.max_strangers) < 0) {
		free(l);
		return weft_error_set(err, ENOMEM, "no memory");
	}
	pthread_mutex_init(&l->lock, NULL);
	weft_cond_init(&l->changed);
	int r = start(l, address, err);
	if (r < 0) {
		give_back(l);
		return r;
	}
	weft_crew_init(&l->crew, "weft-quic", STACK_BYTES);
	*ret = l;
	return 0;
}

static void kill_all(struct quic_listener *l, bool drain)
{
	pthread_mutex_lock(&l->lock);
	for (struct quic_session *s = l->sessions; s; s = s->next)
		quic_session_kill(s, drain);
	pthread_mutex_unlock(&l->lock);
}

void quic_listener_stop(struct quic_listener *l)
{
	if (l->stopping)
		return;
	l->stopping = true;
	weft_loop_remove(l->loop, &l->watch);
	kill_all(l, true);
}

/* Waits until no session is left: 0, or -ETIMEDOUT. */
static int wait_for_end(struct quic_listener *l, uint32_t timeout_ms)
{
	const uint64_t deadline_ns = weft_now_ns() + timeout_ms * MS_NS;

	pthread_mutex_lock(&l->lock);
	while (l->nr_sessions > 0 && weft_cond_wait_until(&l->changed, &l->lock, deadline_ns))
		;
	int r = l->nr_sessions > 0 ? -ETIMEDOUT : 0;
	pthread_mutex_unlock(&l->lock);
	return r;
}

int quic_listener_drain(struct quic_listener *l, uint32_t timeout_ms)
{
	assert(l->stopping);
	if (wait_for_end(l, timeout_ms) == 0)
		return 0;
	kill_all(l, false);
	return wait_for_end(l, CUT_OFF_MS);
}

void quic_listener_free(struct quic_listener *l)
{
	if (!l)
		return;
	quic_listener_stop(l);
	pthread_mutex_lock(&l->lock);
	assert(l->nr_sessions == 0);
	pthread_mutex_unlock(&l->lock);
	weft_crew_fini(&l->crew);
	give_back(l);
}

void quic_listener_status(struct quic_listener *l, struct weft_listener_status *ret)
{
	struct weft_export_counters sum = {0};

	pthread_mutex_lock(&l->lock);
	weft_export_add(&sum, &l->ended);
	for (const struct quic_session *s = l->sessions; s; s = s->next)
		for (unsigned i = 0; i < QUIC_STREAMS; i++)
			weft_export_add(&sum, &s->exports[i].counters);
	*ret = (struct weft_listener_status){
		.connections = l->nr_sessions,
		.accepted = l->accepted,
		.refused = l->refused,
		.requests = sum.requests,
		.read_bytes = sum.read_bytes,
		.written_bytes = sum.written_bytes,
		.errors = sum.errors,
	};
	pthread_mutex_unlock(&l->lock);
	weft_strangers_status(&l->strangers, &ret->strangers);
}

void quic_listener_address(const struct quic_listener *l, struct sockaddr_storage *ret)
{
	*ret = l->socket.path.local;
}
