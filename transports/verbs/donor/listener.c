/* SPDX-License-Identifier: MIT */
/*
 * Accepts connections for a donor over rdma_cm.
 *
 * Runs on the loop's thread.  Invariant: nothing here waits for a driver's work on a queue pair, a
 * registration, or a grant.  A connection request becomes a session's (its id moves to the
 * session's event channel), or is rejected.
 */
#include "transports/verbs/donor/listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "transports/rdma/device.h"
#include "transports/verbs/messages.h"
#include "transports/verbs/donor/session.h"

enum {
	MAX_SESSIONS = 1024,
	MAX_STRANGERS = 128,
	LEAVING_SHARE = 2, /* the most sessions on their way out, in multiples of the strangers */
	HANDSHAKE_MS = 10000,
};
#define CHUNK_BYTES (512 * WEFT_MIB)

static void reject(struct verbs_listener *listener, struct rdma_cm_id *id, int error)
{
	uint8_t private_data[VERBS_REJECT_BYTES];

	verbs_pack_reject(error, private_data);
	weft_rdma_acceptor_reject(&listener->acceptor, id, private_data, sizeof(private_data));
}

/*
 * There is always room for a newcomer, unless drivers are slow to end the sessions that made room.
 */
static int new_session(struct verbs_listener *listener, struct rdma_cm_id *id)
{
	struct weft_rdma_acceptor *acceptor = &listener->acceptor;
	int r = 0;

	pthread_mutex_lock(&acceptor->lock);
	if (acceptor->stopping)
		r = -ESHUTDOWN;
	else if (!weft_strangers_may_come(&acceptor->strangers, rdma_get_peer_addr(id)) ||
		listener->nr_leaving >= LEAVING_SHARE * listener->config.max_strangers)
		r = -EBUSY;
	pthread_mutex_unlock(&acceptor->lock);
	return r < 0 ? r : verbs_session_start(listener, id);
}

/*
 * Whether a data connection is that session's.  Under the listener's lock.  A request with a MAC
 * that was right is used up, whatever comes of it.
 */
static bool is_for(struct verbs_session *session, struct rdma_cm_id *id,
	const struct verbs_private *wants)
{
	struct verbs_ends here, there;

	if (!session->has_token)
		return false;
	verbs_ends_of(session->control, true, &here);
	verbs_ends_of(id, true, &there);
	if (memcmp(here.borrower, there.borrower, sizeof(here.borrower)) != 0)
		return false;
	if (!session->keys)
		return wants->purpose == VERBS_DATA &&
			weft_secret_equal(session->token, wants->token, VERBS_TOKEN_BYTES);
	if (wants->purpose != VERBS_PROVED || wants->session != session->number ||
		wants->counter <= session->counter ||
		!verbs_proof_of_request(session->keys, session->token, wants))
		return false;
	session->counter = wants->counter;
	return true;
}

/* A data connection: it goes to the session that was granted the token, which is used up. */
static int hand_over(struct verbs_listener *listener, struct rdma_cm_id *id,
	const struct verbs_params *params, const struct verbs_private *wants)
{
	int r = -EACCES;

	pthread_mutex_lock(&listener->acceptor.lock);
	struct verbs_session *session = listener->sessions;
	while (session && !is_for(session, id, wants))
		session = session->next;
	if (session) {
		session->has_token = false;
		session->arriving = true; /* the session does not end meanwhile */
	}
	pthread_mutex_unlock(&listener->acceptor.lock);
	if (!session)
		return r;
	r = rdma_migrate_id(id, session->channel) != 0 ? -errno : 0;
	pthread_mutex_lock(&listener->acceptor.lock);
	session->arriving = false;
	if (r == 0) {
		session->arrived = id;
		session->arrived_params = *params;
	}
	verbs_session_wake(session);
	pthread_cond_broadcast(&listener->acceptor.changed);
	pthread_mutex_unlock(&listener->acceptor.lock);
	return r;
}

static void on_request(struct weft_rdma_acceptor *acceptor, struct rdma_cm_id *id,
	const struct weft_rdma_request *request)
{
	struct verbs_listener *listener =
		weft_container_of(acceptor, struct verbs_listener, acceptor);
	struct verbs_params params = {request->responder_resources, request->initiator_depth};
	struct verbs_private wants = {0};
	int r = verbs_unpack_private(request->private_data, request->len, &wants);

	if (r == 0 && wants.purpose == VERBS_CONTROL)
		r = new_session(listener, id);
	else if (r == 0)
		r = hand_over(listener, id, &params, &wants);
	if (r < 0)
		reject(listener, id, r);
	pthread_mutex_lock(&acceptor->lock);
	if (r < 0)
		acceptor->nr_refused++;
	else
		acceptor->nr_accepted++;
	pthread_mutex_unlock(&acceptor->lock);
}

static void on_closed(struct weft_rdma_acceptor *acceptor)
{
	struct verbs_listener *listener =
		weft_container_of(acceptor, struct verbs_listener, acceptor);

	verbs_shares_fini(&listener->shares);
	free(listener);
}

int verbs_listener_new(struct weft_donor *donor, struct weft_loop *loop,
	const struct sockaddr *address, const struct verbs_listener_config *config,
	struct verbs_listener **ret, struct weft_error *err)
{
	struct verbs_listener *listener = calloc(1, sizeof(*listener));

	if (!listener)
		return weft_error_set(err, ENOMEM, "cannot listen: out of memory");
	if (config)
		listener->config = *config;
	if (listener->config.max_sessions == 0)
		listener->config.max_sessions = MAX_SESSIONS;
	if (listener->config.max_strangers == 0)
		listener->config.max_strangers = MAX_STRANGERS;
	if (listener->config.handshake_ms == 0)
		listener->config.handshake_ms = HANDSHAKE_MS;
	listener->donor = donor;
	listener->acceptor.how = "over RDMA";
	listener->acceptor.without = "TCP only";
	listener->acceptor.request = on_request;
	listener->acceptor.closed = on_closed;
	verbs_shares_init(&listener->shares,
		listener->config.chunk_bytes ? listener->config.chunk_bytes : CHUNK_BYTES);
	int r = weft_rdma_acceptor_open(&listener->acceptor, loop, address,
		listener->config.max_strangers, err);
	if (r < 0) {
		verbs_listener_free(listener);
		return r;
	}
	*ret = listener;
	return 0;
}

uint16_t verbs_listener_port(const struct verbs_listener *listener)
{
	return weft_rdma_acceptor_port(&listener->acceptor);
}

void verbs_listener_offers(const struct verbs_listener *listener, char *buf, size_t len)
{
	weft_rdma_acceptor_offers(&listener->acceptor, "rdma", false, buf, len);
}

void verbs_listener_stop(struct verbs_listener *listener)
{
	pthread_mutex_lock(&listener->acceptor.lock);
	listener->acceptor.stopping = true;
	for (struct verbs_session *s = listener->sessions; s; s = s->next) {
		atomic_store(&s->stopped, true);
		verbs_session_wake(s);
	}
	pthread_mutex_unlock(&listener->acceptor.lock);
}

int verbs_listener_drain(struct verbs_listener *listener, uint32_t timeout_ms)
{
	return weft_rdma_acceptor_drain(&listener->acceptor, timeout_ms);
}

void verbs_listener_free(struct verbs_listener *listener)
{
	if (listener)
		weft_rdma_acceptor_close(&listener->acceptor);
}

void verbs_listener_status(struct verbs_listener *listener, struct weft_listener_status *ret)
{
	weft_rdma_acceptor_status(&listener->acceptor, ret);
}
