/* SPDX-License-Identifier: MIT */
/*
 * Accepts logins for a donor over rdma_cm.
 *
 * Runs on the loop's thread.  Invariant: nothing here waits for a driver's work on a queue pair, a
 * registration, or a grant.  A connection request becomes a channel's (its id moves to the
 * channel's event channel), or is rejected.
 */
#include "transports/srp/donor/listener.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "transports/rdma/device.h"
#include "transports/srp/donor/channel.h"

enum {
	MAX_CHANNELS = 1024,
	MAX_STRANGERS = 128, /* logins that are not answered yet */
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

static void reject(struct srp_listener *listener, struct rdma_cm_id *id, uint64_t tag,
	uint32_t reason)
{
	struct srp_login_rej rej = {.tag = tag, .reason = reason, .formats = SRP_FORMATS};
	struct refused *refused = malloc(sizeof(*refused));
	uint8_t data[SRP_LOGIN_REJ_BYTES];

	srp_pack_login_rej(&rej, data);
	rdma_reject(id, data, sizeof(data));
	if (!refused) {
		rdma_destroy_id(id);
		return;
	}
	*refused = (struct refused){.job.fn = refused_job, .id = id};
	weft_rdma_reaper_put(listener->reaper, &refused->job);
}

static void on_request(struct srp_listener *listener, struct rdma_cm_id *id,
	const struct srp_login *login, int r, uint8_t reads)
{
	if (r == 0) {
		pthread_mutex_lock(&listener->lock);
		r = listener->stopping ? -ESHUTDOWN
		    : listener->nr_channels >= MAX_CHANNELS ||
				    listener->nr_pending >= 2 * MAX_STRANGERS ||
				    !weft_strangers_may_come(
					    &listener->strangers, rdma_get_peer_addr(id))
			    ? -EBUSY
			    : 0;
		pthread_mutex_unlock(&listener->lock);
	}
	if (r == 0)
		r = srp_channel_start(listener, id, login, reads);
	if (r == 0)
		return;
	reject(listener, id, login->tag, r == -EPROTO ? SRP_REJ_CANNOT : SRP_REJ_RESOURCES);
	pthread_mutex_lock(&listener->lock);
	listener->nr_refused++;
	pthread_mutex_unlock(&listener->lock);
}

/* Closes devices that were removed, since their drivers may wait for that. */
static void look_for_devices(struct srp_listener *listener)
{
	struct ibv_context **devices;
	int nr;

	if (weft_rdma_devices(&devices, &nr, NULL) < 0)
		return;
	if (listener->devices)
		rdma_free_devices(listener->devices);
	listener->devices = devices;
}

static bool knows_device(const struct srp_listener *listener, const struct ibv_context *context)
{
	struct ibv_context **device = listener->devices;

	while (device && *device && *device != context)
		device++;
	return device && *device;
}

/* 0, or -errno. */
static int listen_now(struct srp_listener *listener)
{
	struct sockaddr *address = (struct sockaddr *)&listener->address;

	if (rdma_create_id(listener->events, &listener->id, NULL, RDMA_PS_TCP) != 0) {
		listener->id = NULL;
		return -errno;
	}
	if (rdma_bind_addr(listener->id, address) == 0 &&
		rdma_listen(listener->id, WEFT_RDMA_BACKLOG) == 0) {
		in_port_t port = rdma_get_src_port(listener->id);

		if (address->sa_family == AF_INET6)
			((struct sockaddr_in6 *)address)->sin6_port = port;
		else
			((struct sockaddr_in *)address)->sin_port = port;
		return 0;
	}
	int r = -errno;
	rdma_destroy_id(listener->id);
	listener->id = NULL;
	return r;
}

static void on_retry(struct weft_timer *timer)
{
	struct srp_listener *listener = weft_container_of(timer, struct srp_listener, retry);

	if (listener->stopping)
		return;
	if (listen_now(listener) < 0) {
		weft_loop_timer_set(listener->loop, timer, RETRY_MS * UINT64_C(1000000));
		return;
	}
	look_for_devices(listener);
	weft_info("listens on %s for SRP again", listener->place);
}

static void device_removed(struct srp_listener *listener)
{
	weft_warn("the RDMA device of %s was removed: no SRP until it is back", listener->place);
	rdma_destroy_id(listener->id);
	listener->id = NULL;
	weft_loop_timer_set(listener->loop, &listener->retry, RETRY_MS * UINT64_C(1000000));
}

static void on_events(struct weft_watch *watch, uint32_t events)
{
	struct srp_listener *listener = weft_container_of(watch, struct srp_listener, watch);
	struct rdma_cm_event *event;

	while (rdma_get_cm_event(listener->events, &event) == 0) {
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
		uint8_t reads = param->initiator_depth;
		struct srp_login login = {0};
		int r = srp_unpack_login(param->private_data, param->private_data_len, &login);

		rdma_ack_cm_event(event); /* first: an id does not move while it has events */
		if (!knows_device(listener, id->verbs))
			look_for_devices(listener);
		on_request(listener, id, &login, r, reads);
	}
}

/* What tells this donor's regions from those of the same names elsewhere, and stays. */
static void name_donor(uint16_t port, char *ret, size_t len)
{
	char host[64] = "";
	FILE *file = fopen("/etc/machine-id", "re");

	if (!file || fscanf(file, "%63s", host) != 1)
		gethostname(host, sizeof(host) - 1);
	if (file)
		fclose(file);
	snprintf(ret, len, "%s:%u", host, port);
}

static int open_listener(struct srp_listener *listener, struct weft_error *err)
{
	int nr, r = weft_strangers_init(&listener->strangers, MAX_STRANGERS);

	if (r == 0)
		r = weft_rdma_reaper_new(&listener->reaper);
	if (r < 0)
		return weft_error_set(err, -r, "cannot listen for SRP: %s", strerror(-r));
	r = weft_rdma_devices(&listener->devices, &nr, err);
	if (r < 0)
		return r;
	listener->events = rdma_create_event_channel();
	r = listener->events ? listen_now(listener) : -errno;
	if (r == 0)
		r = weft_rdma_nonblocking(listener->events->fd);
	if (r == 0) {
		listener->watch = (struct weft_watch){.fd = listener->events->fd, .fn = on_events};
		r = weft_loop_add(listener->loop, &listener->watch, EPOLLIN);
	}
	if (r == -ENODEV)
		return weft_error_set(err, ENODEV,
			"cannot listen on %s for SRP: that address is on no RDMA device (`rdma "
			"link` shows the interfaces that have one)",
			listener->place);
	return r < 0 ? weft_error_set(err, -r, "cannot listen on %s for SRP: %s", listener->place,
			       strerror(-r))
		     : 0;
}

int srp_listener_new(struct weft_donor *donor, struct weft_loop *loop,
	const struct sockaddr *address, const struct srp_listener_config *config,
	struct srp_listener **ret, struct weft_error *err)
{
	struct srp_listener *listener = calloc(1, sizeof(*listener));
	char name[80];

	if (!listener)
		return weft_error_set(err, ENOMEM, "cannot listen: out of memory");
	listener->config = *config;
	listener->donor = donor;
	listener->loop = loop;
	listener->retry.fn = on_retry;
	pthread_mutex_init(&listener->lock, NULL);
	weft_cond_init(&listener->changed);
	weft_crew_init(&listener->crew, "weft-flush", 0);
	weft_rdma_address_text(address, listener->place, sizeof(listener->place));
	memcpy(&listener->address, address,
		address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					       : sizeof(struct sockaddr_in));
	srp_units_init(&listener->units, config->chunk_bytes ? config->chunk_bytes : CHUNK_BYTES,
		"");
	int r = open_listener(listener, err);
	if (r < 0) {
		srp_listener_free(listener);
		return r;
	}
	name_donor(srp_listener_port(listener), name, sizeof(name));
	snprintf(listener->units.donor, sizeof(listener->units.donor), "%s", name);
	weft_rdma_address_text((struct sockaddr *)&listener->address, listener->place,
		sizeof(listener->place));
	*ret = listener;
	return 0;
}

uint16_t srp_listener_port(const struct srp_listener *listener)
{
	const struct sockaddr *address = (const struct sockaddr *)&listener->address;

	return be16toh(address->sa_family == AF_INET6
			? ((const struct sockaddr_in6 *)address)->sin6_port
			: ((const struct sockaddr_in *)address)->sin_port);
}

void srp_listener_offers(const struct srp_listener *listener, char *buf, size_t len)
{
	const struct sockaddr *address = (const struct sockaddr *)&listener->address;
	char text[NI_MAXHOST];
	int n = snprintf(buf, len, "srp:%u", srp_listener_port(listener));

	if (getnameinfo(address, sizeof(listener->address), text, sizeof(text), NULL, 0,
		    NI_NUMERICHOST) == 0 && strcmp(text, "0.0.0.0") != 0 &&
		strcmp(text, "::") != 0 && n + strlen(text) + 2 <= len)
		snprintf(buf + n, len - (size_t)n, ":%s", text);
}

void srp_listener_stop(struct srp_listener *listener)
{
	pthread_mutex_lock(&listener->lock);
	listener->stopping = true;
	for (struct srp_channel *c = listener->channels; c; c = c->next)
		srp_member_end(&c->member);
	pthread_mutex_unlock(&listener->lock);
	/* Logins that wait for older channels. */
	pthread_mutex_lock(&listener->units.lock);
	pthread_cond_broadcast(&listener->units.changed);
	pthread_mutex_unlock(&listener->units.lock);
}

int srp_listener_drain(struct srp_listener *listener, uint32_t timeout_ms)
{
	uint64_t end_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);

	pthread_mutex_lock(&listener->lock);
	while (listener->nr_channels > 0 &&
		weft_cond_wait_until(&listener->changed, &listener->lock, end_ns))
		;
	int r = listener->nr_channels > 0 ? -ETIMEDOUT : 0;
	pthread_mutex_unlock(&listener->lock);
	return r;
}

/* Comes after the jobs of rejected ids, which belong to the event channel. */
static void last_job(struct weft_rdma_job *job)
{
	struct srp_listener *listener = weft_container_of(job, struct srp_listener, last);

	if (listener->id)
		rdma_destroy_id(listener->id);
	if (listener->events)
		rdma_destroy_event_channel(listener->events);
	if (listener->devices)
		rdma_free_devices(listener->devices);
	weft_strangers_fini(&listener->strangers);
	pthread_cond_destroy(&listener->changed);
	pthread_mutex_destroy(&listener->lock);
	free(listener);
}

void srp_listener_free(struct srp_listener *listener)
{
	if (!listener)
		return;
	assert(listener->nr_channels == 0);
	weft_crew_fini(&listener->crew);
	/* Requests that came meanwhile get no answer; their peers time out. */
	if (listener->watch.fn)
		weft_loop_remove(listener->loop, &listener->watch);
	weft_loop_timer_cancel(listener->loop, &listener->retry);
	/* Its regions are the donor's, which ends before the reaper may. */
	srp_units_fini(&listener->units);
	listener->last.fn = last_job;
	if (listener->reaper)
		weft_rdma_reaper_stop(listener->reaper, &listener->last);
	else
		last_job(&listener->last);
}

static void sum(struct weft_listener_status *ret, const struct srp_counts *counts)
{
	ret->requests += atomic_load_explicit(&counts->commands, memory_order_relaxed);
	ret->read_bytes += atomic_load_explicit(&counts->read_bytes, memory_order_relaxed);
	ret->written_bytes += atomic_load_explicit(&counts->written_bytes, memory_order_relaxed);
	ret->has_sense = true;
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ret->sense); i++)
		ret->sense[i] +=
			atomic_load_explicit(&counts->by_key[i], memory_order_relaxed);
	ret->errors += atomic_load_explicit(
			       &counts->by_key[SCSI_KEY_MEDIUM_ERROR], memory_order_relaxed) +
		atomic_load_explicit(
			&counts->by_key[SCSI_KEY_HARDWARE_ERROR], memory_order_relaxed);
}

void srp_listener_status(struct srp_listener *listener, struct weft_listener_status *ret)
{
	strcpy(ret->place, listener->place);
	pthread_mutex_lock(&listener->lock);
	ret->connections = listener->nr_channels;
	ret->accepted = listener->nr_accepted;
	ret->refused = listener->nr_refused;
	sum(ret, &listener->counts);
	for (const struct srp_channel *c = listener->channels; c; c = c->next)
		sum(ret, &c->counts);
	pthread_mutex_unlock(&listener->lock);
	weft_strangers_status(&listener->strangers, &ret->strangers);
}
