/* SPDX-License-Identifier: MIT */
/*
 * Accepts connections for a donor over rdma_cm.
 *
 * Runs on the loop's thread.  Invariant: nothing here waits for a driver's work on a queue pair, a
 * registration, or a grant.  A connection request becomes a session's (its id moves to the
 * session's event channel), or is rejected.
 */
#include "transports/verbs/donor/listener.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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
	RETRY_MS = 1000,
};
#define CHUNK_BYTES (512 * WEFT_MIB)

/* A request that was rejected: its id needs a thread that may wait for the driver. */
struct refused {
	struct weft_rdma_job job;
	struct rdma_cm_id *id;
};

static void refused_job(struct weft_rdma_job *job)
{
	struct refused *refused = weft_container_of(job, struct refused, job);

	rdma_destroy_id(refused->id);
	free(refused);
}

static void reject(struct verbs_listener *listener, struct rdma_cm_id *id, int error)
{
	uint8_t private_data[VERBS_REJECT_BYTES];
	struct refused *refused = malloc(sizeof(*refused));

	verbs_pack_reject(error, private_data);
	rdma_reject(id, private_data, sizeof(private_data));
	if (!refused) {
		rdma_destroy_id(id);
		return;
	}
	*refused = (struct refused){.job.fn = refused_job, .id = id};
	weft_rdma_reaper_put(listener->reaper, &refused->job);
}

/*
 * There is always room for a newcomer, unless drivers are slow to end the sessions that made room.
 */
static int new_session(struct verbs_listener *listener, struct rdma_cm_id *id)
{
	pthread_mutex_lock(&listener->lock);
	int r = listener->stopping ? -ESHUTDOWN :
		!weft_strangers_may_come(&listener->strangers, rdma_get_peer_addr(id)) ? -EBUSY :
		listener->nr_leaving >= LEAVING_SHARE * listener->config.max_strangers ? -EBUSY : 0;
	pthread_mutex_unlock(&listener->lock);
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

	pthread_mutex_lock(&listener->lock);
	struct verbs_session *session = listener->sessions;
	while (session && !is_for(session, id, wants))
		session = session->next;
	if (session) {
		session->has_token = false;
		session->arriving = true; /* the session does not end meanwhile */
	}
	pthread_mutex_unlock(&listener->lock);
	if (!session)
		return r;
	r = rdma_migrate_id(id, session->channel) != 0 ? -errno : 0;
	pthread_mutex_lock(&listener->lock);
	session->arriving = false;
	if (r == 0) {
		session->arrived = id;
		session->arrived_params = *params;
	}
	verbs_session_wake(session);
	pthread_cond_broadcast(&listener->changed);
	pthread_mutex_unlock(&listener->lock);
	return r;
}

static void on_request(struct verbs_listener *listener, struct rdma_cm_id *id,
	const struct verbs_params *params, int r, const struct verbs_private *wants)
{
	if (r == 0 && wants->purpose == VERBS_CONTROL)
		r = new_session(listener, id);
	else if (r == 0)
		r = hand_over(listener, id, params, wants);
	if (r < 0)
		reject(listener, id, r);
	pthread_mutex_lock(&listener->lock);
	if (r < 0)
		listener->nr_refused++;
	else
		listener->nr_accepted++;
	pthread_mutex_unlock(&listener->lock);
}

/* Closes devices that were removed, since their drivers may wait for that. */
static void look_for_devices(struct verbs_listener *listener)
{
	struct ibv_context **devices;
	int nr;

	if (weft_rdma_devices(&devices, &nr, NULL) < 0)
		return;
	if (listener->devices)
		rdma_free_devices(listener->devices);
	listener->devices = devices;
}

static bool knows_device(const struct verbs_listener *listener, const struct ibv_context *context)
{
	struct ibv_context **device = listener->devices;

	while (device && *device && *device != context)
		device++;
	return device && *device;
}

/* 0, or -errno. */
static int listen_now(struct verbs_listener *listener)
{
	struct sockaddr *address = (struct sockaddr *)&listener->address;

	if (rdma_create_id(listener->channel, &listener->id, NULL, RDMA_PS_TCP) != 0) {
		listener->id = NULL;
		return -errno;
	}
	if (rdma_bind_addr(listener->id, address) == 0 &&
		rdma_listen(listener->id, WEFT_RDMA_BACKLOG) == 0) {
		if (address->sa_family == AF_INET6)
			((struct sockaddr_in6 *)address)->sin6_port =
				rdma_get_src_port(listener->id);
		else
			((struct sockaddr_in *)address)->sin_port = rdma_get_src_port(listener->id);
		return 0;
	}
	int r = -errno;
	rdma_destroy_id(listener->id);
	listener->id = NULL;
	return r;
}

static void on_retry(struct weft_timer *timer)
{
	struct verbs_listener *listener = weft_container_of(timer, struct verbs_listener, retry);
	char text[80];

	if (listener->stopping)
		return;
	if (listen_now(listener) < 0) {
		weft_loop_timer_set(listener->loop, timer, RETRY_MS * UINT64_C(1000000));
		return;
	}
	look_for_devices(listener);
	weft_rdma_address_text((struct sockaddr *)&listener->address, text, sizeof(text));
	weft_info("listens on %s over RDMA again", text);
}

static void device_removed(struct verbs_listener *listener)
{
	char text[80];

	weft_rdma_address_text((struct sockaddr *)&listener->address, text, sizeof(text));
	weft_warn("the RDMA device of %s was removed; TCP only until it is back", text);
	rdma_destroy_id(listener->id);
	listener->id = NULL;
	weft_loop_timer_set(listener->loop, &listener->retry, RETRY_MS * UINT64_C(1000000));
}

static void on_events(struct weft_watch *watch, uint32_t events)
{
	struct verbs_listener *listener = weft_container_of(watch, struct verbs_listener, watch);
	struct rdma_cm_event *event;

	while (rdma_get_cm_event(listener->channel, &event) == 0) {
		if (event->event != RDMA_CM_EVENT_CONNECT_REQUEST) {
			/* An event of the listening id, or the end of a rejected request. */
			bool removed = event->id == listener->id &&
				event->event == RDMA_CM_EVENT_DEVICE_REMOVAL;

			rdma_ack_cm_event(event);
			if (removed)
				device_removed(listener);
			continue;
		}
		struct rdma_cm_id *id = event->id;
		const struct rdma_conn_param *param = &event->param.conn;
		struct verbs_params params = {param->responder_resources, param->initiator_depth};
		struct verbs_private wants = {0};
		int r = verbs_unpack_private(param->private_data, param->private_data_len, &wants);

		rdma_ack_cm_event(event); /* first: an id does not move while it has events */
		if (!knows_device(listener, id->verbs))
			look_for_devices(listener);
		on_request(listener, id, &params, r, &wants);
	}
}

int verbs_listener_new(struct weft_donor *donor, struct weft_loop *loop,
	const struct sockaddr *address, const struct verbs_listener_config *config,
	struct verbs_listener **ret, struct weft_error *err)
{
	struct verbs_listener *listener = calloc(1, sizeof(*listener));
	char text[80];
	int nr, r;

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
	listener->loop = loop;
	pthread_mutex_init(&listener->lock, NULL);
	weft_cond_init(&listener->changed);
	verbs_shares_init(&listener->shares,
		listener->config.chunk_bytes ? listener->config.chunk_bytes : CHUNK_BYTES);
	r = weft_strangers_init(&listener->strangers, listener->config.max_strangers);
	if (r == 0)
		r = weft_rdma_reaper_new(&listener->reaper);
	if (r < 0) {
		weft_error_set(err, -r, "cannot listen over RDMA: %s", strerror(-r));
		goto fail;
	}
	r = weft_rdma_devices(&listener->devices, &nr, err);
	if (r < 0)
		goto fail;
	weft_rdma_address_text(address, text, sizeof(text));
	memcpy(&listener->address, address,
		address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					       : sizeof(struct sockaddr_in));
	listener->retry.fn = on_retry;
	listener->channel = rdma_create_event_channel();
	r = listener->channel ? listen_now(listener) : -errno;
	if (r < 0) {
		if (r == -ENODEV)
			weft_error_set(err, ENODEV,
				"cannot listen on %s over RDMA: that address "
				"is on no RDMA device (`rdma link` shows the interfaces that have "
				"one)",
				text);
		else
			weft_error_set(err, -r, "cannot listen on %s over RDMA: %s", text,
				strerror(-r));
		goto fail;
	}
	r = weft_rdma_nonblocking(listener->channel->fd);
	if (r == 0) {
		listener->watch = (struct weft_watch){.fd = listener->channel->fd, .fn = on_events};
		r = weft_loop_add(loop, &listener->watch, EPOLLIN);
	}
	if (r < 0) {
		weft_error_set(err, -r, "cannot listen on %s over RDMA: %s", text, strerror(-r));
		goto fail;
	}
	*ret = listener;
	return 0;
fail:
	verbs_listener_free(listener);
	return r;
}

uint16_t verbs_listener_port(const struct verbs_listener *listener)
{
	const struct sockaddr *address = (const struct sockaddr *)&listener->address;

	return be16toh(address->sa_family == AF_INET6
			? ((const struct sockaddr_in6 *)address)->sin6_port
			: ((const struct sockaddr_in *)address)->sin_port);
}

static bool is_any(const struct sockaddr_storage *address)
{
	if (address->ss_family == AF_INET6)
		return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
	return ((const struct sockaddr_in *)address)->sin_addr.s_addr == INADDR_ANY;
}

static bool is_global(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return (ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24) != 127;
	const struct in6_addr *in6 = &((const struct sockaddr_in6 *)address)->sin6_addr;

	return address->sa_family == AF_INET6 && !IN6_IS_ADDR_LOOPBACK(in6) &&
		!IN6_IS_ADDR_LINKLOCAL(in6);
}

/* Whether an address of ours is on an RDMA device. */
static bool has_device(struct sockaddr *address)
{
	struct rdma_cm_id *id;
	bool has = false;

	if (rdma_create_id(NULL, &id, NULL, RDMA_PS_TCP) != 0)
		return false;
	if (address->sa_family == AF_INET6)
		((struct sockaddr_in6 *)address)->sin6_port = 0;
	else
		((struct sockaddr_in *)address)->sin_port = 0;
	has = rdma_bind_addr(id, address) == 0 && id->verbs;
	rdma_destroy_id(id);
	return has;
}

void verbs_listener_offers(const struct verbs_listener *listener, char *buf, size_t len)
{
	struct ifaddrs *list = NULL;
	char text[INET6_ADDRSTRLEN], one[INET6_ADDRSTRLEN + 16];
	uint16_t port = verbs_listener_port(listener);
	size_t used = 0;

	buf[0] = '\0';
	if (is_any(&listener->address) && getifaddrs(&list) == 0) {
		for (struct ifaddrs *i = list; i; i = i->ifa_next) {
			if (!i->ifa_addr || !is_global(i->ifa_addr) || !has_device(i->ifa_addr))
				continue;
			const void *bytes = i->ifa_addr->sa_family == AF_INET6 ?
				(const void *)&((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr :
				(const void *)&((struct sockaddr_in *)i->ifa_addr)->sin_addr;
			if (!inet_ntop(i->ifa_addr->sa_family, bytes, text, sizeof(text)))
				continue;
			int n = snprintf(one, sizeof(one), "%srdma:%u:%s", used ? "," : "", port,
				text);
			if (used + (size_t)n < len) {
				strcpy(buf + used, one);
				used += (size_t)n;
			}
		}
		freeifaddrs(list);
	}
	if (used == 0)
		snprintf(buf, len, "rdma:%u", port);
}

void verbs_listener_stop(struct verbs_listener *listener)
{
	pthread_mutex_lock(&listener->lock);
	listener->stopping = true;
	for (struct verbs_session *s = listener->sessions; s; s = s->next) {
		atomic_store(&s->stopped, true);
		verbs_session_wake(s);
	}
	pthread_mutex_unlock(&listener->lock);
}

int verbs_listener_drain(struct verbs_listener *listener, uint32_t timeout_ms)
{
	uint64_t end_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);

	pthread_mutex_lock(&listener->lock);
	while (listener->nr_sessions > 0 &&
		weft_cond_wait_until(&listener->changed, &listener->lock, end_ns))
		;
	int r = listener->nr_sessions > 0 ? -ETIMEDOUT : 0;
	pthread_mutex_unlock(&listener->lock);
	return r;
}

/* Comes after the jobs of rejected ids, which belong to the channel. */
static void last_job(struct weft_rdma_job *job)
{
	struct verbs_listener *listener = weft_container_of(job, struct verbs_listener, last);

	if (listener->id)
		rdma_destroy_id(listener->id);
	if (listener->channel)
		rdma_destroy_event_channel(listener->channel);
	if (listener->devices)
		rdma_free_devices(listener->devices);
	verbs_shares_fini(&listener->shares);
	weft_strangers_fini(&listener->strangers);
	pthread_cond_destroy(&listener->changed);
	pthread_mutex_destroy(&listener->lock);
	free(listener);
}

void verbs_listener_free(struct verbs_listener *listener)
{
	if (!listener)
		return;
	assert(listener->nr_sessions == 0);
	/* Requests that came meanwhile get no answer; their peers time out. */
	if (listener->watch.fn)
		weft_loop_remove(listener->loop, &listener->watch);
	weft_loop_timer_cancel(listener->loop, &listener->retry);
	listener->last.fn = last_job;
	if (listener->reaper)
		weft_rdma_reaper_stop(listener->reaper, &listener->last);
	else
		last_job(&listener->last);
}

void verbs_listener_status(struct verbs_listener *listener, struct weft_listener_status *ret)
{
	pthread_mutex_lock(&listener->lock);
	ret->connections = listener->nr_sessions;
	ret->accepted = listener->nr_accepted;
	ret->refused = listener->nr_refused;
	pthread_mutex_unlock(&listener->lock);
	weft_strangers_status(&listener->strangers, &ret->strangers);
}
