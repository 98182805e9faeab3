/* SPDX-License-Identifier: MIT */
/*
 * Accepts logins for a donor over rdma_cm.
 *
 * Runs on the loop's thread.  Invariant: nothing here waits for a registration, or a grant.  A
 * connection request becomes a channel's (its id moves to the channel's event channel), or is
 * rejected.
 */
#include "transports/srp/donor/listener.h"

#include <assert.h>
#include <errno.h>
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
};
#define CHUNK_BYTES (512 * WEFT_MIB)

static void reject(struct srp_listener *listener, struct rdma_cm_id *id, uint64_t tag,
	uint32_t reason)
{
	struct srp_login_rej rej = {.tag = tag, .reason = reason, .formats = SRP_FORMATS};
	uint8_t data[SRP_LOGIN_REJ_BYTES];

	srp_pack_login_rej(&rej, data);
	weft_rdma_acceptor_reject(&listener->acceptor, id, data, sizeof(data));
	pthread_mutex_lock(&listener->acceptor.lock);
	listener->acceptor.nr_refused++;
	pthread_mutex_unlock(&listener->acceptor.lock);
}

/* Whether there is room for another channel: 0, or -errno. */
static int make_room(struct srp_listener *listener, struct rdma_cm_id *id)
{
	struct weft_rdma_acceptor *acceptor = &listener->acceptor;
	int r = 0;

	pthread_mutex_lock(&acceptor->lock);
	if (acceptor->stopping)
		r = -ESHUTDOWN;
	else if (acceptor->nr >= MAX_CHANNELS || listener->nr_pending >= 2 * MAX_STRANGERS ||
		!weft_strangers_may_come(&acceptor->strangers, rdma_get_peer_addr(id)))
		r = -EBUSY;
	pthread_mutex_unlock(&acceptor->lock);
	return r;
}

static void on_request(struct weft_rdma_acceptor *acceptor, struct rdma_cm_id *id,
	const struct weft_rdma_request *request)
{
	struct srp_listener *listener =
		weft_container_of(acceptor, struct srp_listener, acceptor);
	struct srp_login login = {0};
	int r = srp_unpack_login(request->private_data, request->len, &login);

	if (r == 0)
		r = make_room(listener, id);
	if (r == 0)
		r = srp_channel_start(listener, id, &login, request->initiator_depth);
	if (r < 0)
		reject(listener, id, login.tag,
			r == -EPROTO ? SRP_REJ_CANNOT : SRP_REJ_RESOURCES);
}

static void on_closed(struct weft_rdma_acceptor *acceptor)
{
	free(weft_container_of(acceptor, struct srp_listener, acceptor));
}

/* What tells this donor's regions from those of the same names elsewhere, and stays. */
static void name_donor(uint16_t port, char *ret, size_t len)
{
	char host[64];

	weft_machine_name(host, sizeof(host));
	snprintf(ret, len, "%s:%u", host, port);
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
	weft_crew_init(&listener->crew, "weft-flush", 0);
	pthread_mutex_init(&listener->search_lock, NULL);
	listener->acceptor.how = "for SRP";
	listener->acceptor.without = "no SRP";
	listener->acceptor.request = on_request;
	listener->acceptor.closed = on_closed;
	srp_units_init(&listener->units, config->chunk_bytes ? config->chunk_bytes : CHUNK_BYTES,
		"");
	int r = weft_rdma_acceptor_open(&listener->acceptor, loop, address, MAX_STRANGERS, err);
	if (r < 0) {
		srp_listener_free(listener);
		return r;
	}
	name_donor(srp_listener_port(listener), name, sizeof(name));
	snprintf(listener->units.donor, sizeof(listener->units.donor), "%s", name);
	*ret = listener;
	return 0;
}

uint16_t srp_listener_port(const struct srp_listener *listener)
{
	return weft_rdma_acceptor_port(&listener->acceptor);
}

void srp_listener_offers(const struct srp_listener *listener, char *buf, size_t len)
{
	weft_rdma_acceptor_offers(&listener->acceptor, "srp", true, buf, len);
}

void srp_listener_stop(struct srp_listener *listener)
{
	pthread_mutex_lock(&listener->acceptor.lock);
	listener->acceptor.stopping = true;
	for (struct srp_channel *c = listener->channels; c; c = c->next)
		srp_member_end(&c->member);
	pthread_mutex_unlock(&listener->acceptor.lock);
	/* Logins that wait for older channels. */
	pthread_mutex_lock(&listener->units.lock);
	pthread_cond_broadcast(&listener->units.changed);
	pthread_mutex_unlock(&listener->units.lock);
}

void srp_listener_free(struct srp_listener *listener)
{
	if (!listener)
		return;
	assert(listener->acceptor.nr == 0);
	weft_crew_fini(&listener->crew);
	pthread_mutex_destroy(&listener->search_lock);
	/* Its regions are the donor's, which ends before the reaper may. */
	srp_units_fini(&listener->units);
	weft_rdma_acceptor_close(&listener->acceptor);
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
	strcpy(ret->place, listener->acceptor.place);
	weft_rdma_acceptor_status(&listener->acceptor, ret);
	pthread_mutex_lock(&listener->acceptor.lock);
	sum(ret, &listener->counts);
	for (const struct srp_channel *c = listener->channels; c; c = c->next)
		sum(ret, &c->counts);
	pthread_mutex_unlock(&listener->acceptor.lock);
}
