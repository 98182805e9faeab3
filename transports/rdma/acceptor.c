/* SPDX-License-Identifier: MIT */
/*
 * Accepts connections over rdma_cm.
 *
 * Runs on the loop's thread.  Invariant: nothing here waits for a driver's work on a queue pair.
 * Ids that were rejected are the reaper's, which destroys the listening id behind all of them.
 */
#include "transports/rdma/acceptor.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "transports/rdma/addresses.h"
#include "transports/rdma/device.h"

enum { RETRY_MS = 1000 };

/* ---- requests ---- */

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

void weft_rdma_acceptor_reject(struct weft_rdma_acceptor *acceptor, struct rdma_cm_id *id,
	const void *private_data, uint8_t len)
{
	struct refused *refused = malloc(sizeof(*refused));

	rdma_reject(id, private_data, len);
	if (!refused) {
		rdma_destroy_id(id);
		return;
	}
	*refused = (struct refused){.job.fn = refused_job, .id = id};
	weft_rdma_reaper_put(acceptor->reaper, &refused->job);
}

/* Closes devices that were removed, since their drivers may wait for that. */
static void look_for_devices(struct weft_rdma_acceptor *acceptor)
{
	struct ibv_context **devices;
	int nr;

	if (weft_rdma_devices(&devices, &nr, NULL) < 0)
		return;
	if (acceptor->devices)
		rdma_free_devices(acceptor->devices);
	acceptor->devices = devices;
}

static bool knows_device(const struct weft_rdma_acceptor *acceptor,
	const struct ibv_context *context)
{
	struct ibv_context **device = acceptor->devices;

	while (device && *device && *device != context)
		device++;
	return device && *device;
}

static void on_request(struct weft_rdma_acceptor *acceptor, struct rdma_cm_event *event)
{
	const struct rdma_conn_param *param = &event->param.conn;
	struct rdma_cm_id *id = event->id;
	struct weft_rdma_request request = {
		.len = param->private_data_len,
		.responder_resources = param->responder_resources,
		.initiator_depth = param->initiator_depth,
	};

	if (request.len > 0)
		memcpy(request.private_data, param->private_data, request.len);
	rdma_ack_cm_event(event); /* first: an id does not move while it has events */
	if (!knows_device(acceptor, id->verbs))
		look_for_devices(acceptor);
	acceptor->request(acceptor, id, &request);
}

/* ---- the listening id ---- */

/* 0, or -errno. */
static int listen_now(struct weft_rdma_acceptor *acceptor)
{
	struct sockaddr *address = (struct sockaddr *)&acceptor->address;

	if (rdma_create_id(acceptor->events, &acceptor->id, NULL, RDMA_PS_TCP) != 0) {
		acceptor->id = NULL;
		return -errno;
	}
	if (rdma_bind_addr(acceptor->id, address) == 0 &&
		rdma_listen(acceptor->id, WEFT_RDMA_BACKLOG) == 0) {
		in_port_t port = rdma_get_src_port(acceptor->id);

		if (address->sa_family == AF_INET6)
			((struct sockaddr_in6 *)address)->sin6_port = port;
		else
			((struct sockaddr_in *)address)->sin_port = port;
		return 0;
	}
	int r = -errno;
	rdma_destroy_id(acceptor->id);
	acceptor->id = NULL;
	return r;
}

static void try_later(struct weft_rdma_acceptor *acceptor)
{
	weft_loop_timer_set(acceptor->loop, &acceptor->retry, RETRY_MS * UINT64_C(1000000));
}

static void on_retry(struct weft_timer *timer)
{
	struct weft_rdma_acceptor *acceptor =
		weft_container_of(timer, struct weft_rdma_acceptor, retry);

	pthread_mutex_lock(&acceptor->lock);
	bool stopping = acceptor->stopping;
	pthread_mutex_unlock(&acceptor->lock);
	if (stopping)
		return;
	if (listen_now(acceptor) < 0) {
		try_later(acceptor);
		return;
	}
	look_for_devices(acceptor);
	weft_info("listens on %s %s again", acceptor->place, acceptor->how);
}

static void device_removed(struct weft_rdma_acceptor *acceptor)
{
	weft_warn("the RDMA device of %s was removed; %s until it is back", acceptor->place,
		acceptor->without);
	rdma_destroy_id(acceptor->id);
	acceptor->id = NULL;
	try_later(acceptor);
}

static void on_events(struct weft_watch *watch, uint32_t events)
{
	struct weft_rdma_acceptor *acceptor =
		weft_container_of(watch, struct weft_rdma_acceptor, watch);
	struct rdma_cm_event *event;

	while (rdma_get_cm_event(acceptor->events, &event) == 0) {
		if (event->event == RDMA_CM_EVENT_CONNECT_REQUEST) {
			on_request(acceptor, event);
			continue;
		}
		/* An event of the listening id, or the end of a rejected request. */
		bool removed = event->id == acceptor->id &&
			event->event == RDMA_CM_EVENT_DEVICE_REMOVAL;

		rdma_ack_cm_event(event);
		if (removed)
			device_removed(acceptor);
	}
}

/* ---- beginning and end ---- */

static int open_now(struct weft_rdma_acceptor *acceptor, unsigned max_strangers)
{
	int r = weft_strangers_init(&acceptor->strangers, max_strangers);

	if (r == 0)
		r = weft_rdma_reaper_new(&acceptor->reaper);
	if (r < 0)
		return r;
	acceptor->events = rdma_create_event_channel();
	r = acceptor->events ? listen_now(acceptor) : -errno;
	if (r == 0)
		r = weft_rdma_nonblocking(acceptor->events->fd);
	if (r < 0)
		return r;
	acceptor->watch = (struct weft_watch){.fd = acceptor->events->fd, .fn = on_events};
	return weft_loop_add(acceptor->loop, &acceptor->watch, EPOLLIN);
}

int weft_rdma_acceptor_open(struct weft_rdma_acceptor *acceptor, struct weft_loop *loop,
	const struct sockaddr *address, unsigned max_strangers, struct weft_error *err)
{
	int nr, r;

	acceptor->loop = loop;
	acceptor->retry.fn = on_retry;
	pthread_mutex_init(&acceptor->lock, NULL);
	weft_cond_init(&acceptor->changed);
	memcpy(&acceptor->address, address,
		address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					       : sizeof(struct sockaddr_in));
	weft_rdma_address_text(address, acceptor->place, sizeof(acceptor->place));
	r = weft_rdma_devices(&acceptor->devices, &nr, err);
	if (r < 0)
		return r;
	r = open_now(acceptor, max_strangers);
	if (r == -ENODEV)
		return weft_error_set(err, ENODEV,
			"cannot listen on %s %s: that address is on no RDMA device (`rdma link` "
			"shows the interfaces that have one)",
			acceptor->place, acceptor->how);
	if (r < 0)
		return weft_error_set(err, -r, "cannot listen on %s %s: %s", acceptor->place,
			acceptor->how, strerror(-r));
	weft_rdma_address_text((struct sockaddr *)&acceptor->address, acceptor->place,
		sizeof(acceptor->place));
	return 0;
}

uint16_t weft_rdma_acceptor_port(const struct weft_rdma_acceptor *acceptor)
{
	const struct sockaddr *address = (const struct sockaddr *)&acceptor->address;

	return be16toh(address->sa_family == AF_INET6
			? ((const struct sockaddr_in6 *)address)->sin6_port
			: ((const struct sockaddr_in *)address)->sin_port);
}

enum { MAX_ADDRESSES = 16 };

/* The address, or all those that it stands for: how many. */
static unsigned addresses_of(const struct weft_rdma_acceptor *acceptor,
	struct sockaddr_storage *ret)
{
	unsigned nr = 0;

	if (weft_rdma_is_any((const struct sockaddr *)&acceptor->address))
		nr = weft_rdma_addresses(ret, MAX_ADDRESSES);
	else
		ret[nr++] = acceptor->address;
	return nr;
}

void weft_rdma_acceptor_offers(const struct weft_rdma_acceptor *acceptor, const char *word,
	bool with_address, char *buf, size_t len)
{
	bool any = weft_rdma_is_any((const struct sockaddr *)&acceptor->address);
	struct sockaddr_storage addresses[MAX_ADDRESSES];
	unsigned nr = any || with_address ? addresses_of(acceptor, addresses) : 0;
	char host[NI_MAXHOST], one[NI_MAXHOST + 32];
	size_t used = 0;

	snprintf(buf, len, "%s:%u", word, weft_rdma_acceptor_port(acceptor));
	for (unsigned i = 0; i < nr; i++) {
		if (getnameinfo((struct sockaddr *)&addresses[i], sizeof(addresses[i]), host,
			    sizeof(host), NULL, 0, NI_NUMERICHOST) != 0)
			continue;
		int n = snprintf(one, sizeof(one), "%s%s:%u:%s", used ? "," : "", word,
			weft_rdma_acceptor_port(acceptor), host);
		if (used + (size_t)n >= len)
			continue;
		strcpy(buf + used, one);
		used += (size_t)n;
	}
}

void weft_rdma_acceptor_reached_at(const struct weft_rdma_acceptor *acceptor, char *buf,
	size_t len)
{
	struct sockaddr_storage addresses[MAX_ADDRESSES];
	struct sockaddr *first = (struct sockaddr *)&addresses[0];
	uint16_t port = htobe16(weft_rdma_acceptor_port(acceptor));

	if (addresses_of(acceptor, addresses) == 0) {
		snprintf(buf, len, "%s", acceptor->place);
		return;
	}
	if (first->sa_family == AF_INET6)
		((struct sockaddr_in6 *)first)->sin6_port = port;
	else
		((struct sockaddr_in *)first)->sin_port = port;
	weft_rdma_address_text(first, buf, len);
}

int weft_rdma_acceptor_drain(struct weft_rdma_acceptor *acceptor, uint32_t timeout_ms)
{
	uint64_t end_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);

	pthread_mutex_lock(&acceptor->lock);
	while (acceptor->nr > 0 &&
		weft_cond_wait_until(&acceptor->changed, &acceptor->lock, end_ns))
		;
	int r = acceptor->nr > 0 ? -ETIMEDOUT : 0;
	pthread_mutex_unlock(&acceptor->lock);
	return r;
}

void weft_rdma_acceptor_status(struct weft_rdma_acceptor *acceptor,
	struct weft_listener_status *ret)
{
	pthread_mutex_lock(&acceptor->lock);
	ret->connections = acceptor->nr;
	ret->accepted = acceptor->nr_accepted;
	ret->refused = acceptor->nr_refused;
	pthread_mutex_unlock(&acceptor->lock);
	weft_strangers_status(&acceptor->strangers, &ret->strangers);
}

/* Comes after the jobs of rejected ids, which belong to the event channel. */
static void last_job(struct weft_rdma_job *job)
{
	struct weft_rdma_acceptor *acceptor =
		weft_container_of(job, struct weft_rdma_acceptor, last);

	if (acceptor->id)
		rdma_destroy_id(acceptor->id);
	if (acceptor->events)
		rdma_destroy_event_channel(acceptor->events);
	if (acceptor->devices)
		rdma_free_devices(acceptor->devices);
	weft_strangers_fini(&acceptor->strangers);
	pthread_cond_destroy(&acceptor->changed);
	pthread_mutex_destroy(&acceptor->lock);
	acceptor->closed(acceptor);
}

void weft_rdma_acceptor_close(struct weft_rdma_acceptor *acceptor)
{
	assert(acceptor->nr == 0);
	/* Requests that came meanwhile get no answer; their peers time out. */
	if (acceptor->watch.fn)
		weft_loop_remove(acceptor->loop, &acceptor->watch);
	weft_loop_timer_cancel(acceptor->loop, &acceptor->retry);
	acceptor->last.fn = last_job;
	if (acceptor->reaper)
		weft_rdma_reaper_stop(acceptor->reaper, &acceptor->last);
	else
		last_job(&acceptor->last);
}
