/* SPDX-License-Identifier: MIT */
/*
 * A channel's life: login, serving, end.
 *
 * Threads: each channel has one.  Invariant: the grant is released only after everything that was
 * posted has come back from a queue pair in its error state, or the queue pair was destroyed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "transports/rdma/device.h"
#include "transports/srp/donor/channel.h"

enum {
	STACK_BYTES = 512 * 1024,
	ESTABLISH_MS = 20000, /* from our answer to the initiator's */
	DRAIN_MS = 2000,
	TASK_TICK_MS = 100,
};

static uint64_t after_ms(uint64_t ms)
{
	return weft_now_ns() + ms * UINT64_C(1000000);
}

static void on_wake(struct srp_member *member)
{
	srp_channel_wake(weft_container_of(member, struct srp_channel, member));
}

static void take_events(struct srp_channel *channel)
{
	static const struct weft_rdma_protocol protocol = {.name = "SRP", .advice = ""};
	struct rdma_cm_event *event;

	while (rdma_get_cm_event(channel->events, &event) == 0) {
		if (event->event == RDMA_CM_EVENT_ESTABLISHED)
			channel->established = true;
		else if (weft_rdma_event_errno(event, &protocol, channel->peer.text, NULL) < 0)
			channel->over = true;
		rdma_ack_cm_event(event);
	}
}

/* What came, or has left, since the last look.  Either way the initiator is there. */
static unsigned take(struct srp_channel *channel)
{
	unsigned nr = srp_channel_take_completions(channel, &srp_command_ops);

	if (nr > 0) {
		channel->seen_ns = weft_now_ns();
		channel->established = channel->busy = true;
		weft_grant_touch(channel->grant, channel->seen_ns);
	}
	return nr;
}

/* Looks for a little while: the initiator may go on at once. */
static bool spin(struct srp_channel *channel)
{
	if (!weft_rdma_spin_begin(&channel->spin))
		return false;
	do {
		if (take(channel) > 0) {
			weft_rdma_spin_found(&channel->spin);
			return true;
		}
	} while (weft_rdma_spin_goes_on(&channel->spin));
	return false;
}

/*
 * Whether something goes on when work requests come back: READs, what waits for a place, task
 * management.  An answer that has left is no reason to wake up.
 */
static bool waits_for_what_left(const struct srp_channel *channel)
{
	return channel->nr_reads > 0 || channel->pushes.first || channel->pulls.first ||
		channel->works.first || channel->nr_aborted > 0 ||
		channel->met != channel->marked || channel->member.nr_waiting > 0;
}

static int arm(struct srp_channel *channel)
{
	int r = weft_rdma_cq_arm(&channel->came);

	return r == 0 && waits_for_what_left(channel) ? weft_rdma_cq_arm(&channel->left) : r;
}

static void on_ready(struct srp_channel *channel, int fd)
{
	uint64_t count;

	if (fd == channel->wake_fd)
		(void)!read(channel->wake_fd, &count, sizeof(count));
	else if (fd == channel->events->fd)
		take_events(channel);
	else
		weft_rdma_cq_woken(channel->comp);
}

/* Sleeps until something happens.  Completions that came before the arming wake nobody. */
static void sleep_for(struct srp_channel *channel, int timeout_ms)
{
	struct epoll_event events[3];

	if (arm(channel) < 0)
		channel->over = true;
	if (take(channel) > 0 || srp_channel_must_end(channel))
		return;
	int nr = epoll_wait(channel->epfd, events, WEFT_ARRAY_LEN(events), timeout_ms);
	for (int i = 0; i < nr; i++)
		on_ready(channel, events[i].data.fd);
}

static int watch_all(struct srp_channel *channel)
{
	channel->epfd = epoll_create1(EPOLL_CLOEXEC);
	int r = channel->epfd < 0 ? -errno : weft_rdma_watch(channel->epfd, channel->wake_fd);

	return r < 0 ? r : weft_rdma_watch(channel->epfd, channel->events->fd);
}

/* An initiator with nothing to say is silent: whether it is there, a WRITE of no bytes tells. */
static void probe(struct srp_channel *channel, uint64_t now_ns)
{
	uint64_t tick_ns = channel->tick_ms * UINT64_C(1000000);

	/*
	 * What was posted has not come back for a lease.  The queue pair need not find that by
	 * itself: the initiator has chosen how often it tries, and to some devices its 7 times are
	 * for ever (rxe).
	 */
	if (channel->nr_completed < channel->nr_posted &&
		now_ns > channel->seen_ns + channel->lease_ms * UINT64_C(1000000))
		channel->over = true;
	if (!channel->established || channel->probing || now_ns < channel->seen_ns + tick_ns)
		return;
	srp_post_probe(channel);
	srp_channel_ring(channel);
}

static int accept_login(struct srp_channel *channel, uint8_t result)
{
	const struct srp_login *login = &channel->login;
	struct srp_login_rsp rsp = {
		.tag = login->tag,
		.delta = SRP_DEPTH,
		.max_it_iu_bytes = SRP_IT_IU_MAX,
		.max_ti_iu_bytes = SRP_TI_IU_MAX,
		.formats = SRP_FORMATS,
		.result = result,
	};
	uint8_t data[SRP_LOGIN_RSP_BYTES];

	if (login->immediate && login->immediate_off >= SRP_CMD_BYTES) {
		channel->immediate_off = login->immediate_off;
		rsp.immediate = true;
	}
	srp_pack_login_rsp(&rsp, data);
	struct rdma_conn_param param = {
		.private_data = data,
		.private_data_len = sizeof(data),
		.initiator_depth = (uint8_t)channel->max_reads,
		.responder_resources = 1,
		.rnr_retry_count = WEFT_RDMA_RETRIES,
	};
	weft_rdma_set_timeout(channel->id);
	return rdma_accept(channel->id, &param) != 0 ? -errno : 0;
}

static void refuse(struct srp_channel *channel, uint32_t reason, const struct weft_error *why)
{
	struct srp_login_rej rej = {
		.tag = channel->login.tag,
		.reason = reason,
		.formats = SRP_FORMATS,
	};
	uint8_t data[SRP_LOGIN_REJ_BYTES];

	weft_debug("a login from %s: %s", channel->peer.text, why->message);
	/* What the donor refused it has told already. */
	if (!channel->region || why->code == ESTALE)
		weft_donor_kept_out(channel->listener->donor, &channel->peer, why);
	srp_pack_login_rej(&rej, data);
	rdma_reject(channel->id, data, sizeof(data));
	channel->over = channel->refused = true;
}

static void log_in(struct srp_channel *channel)
{
	struct srp_listener *listener = channel->listener;
	struct weft_error err = {0};
	uint32_t reason = 0;
	uint8_t result = 0;
	int r = srp_channel_login(channel, &result, &reason, &err);

	if (r == 0) {
		r = weft_rdma_watch(channel->epfd, channel->comp->fd);
		if (r == 0)
			r = accept_login(channel, result);
		if (r < 0) {
			weft_error_set(&err, -r, "cannot accept: %s", strerror(-r));
			reason = SRP_REJ_RESOURCES;
		}
	}
	if (r < 0)
		refuse(channel, reason, &err);
	pthread_mutex_lock(&listener->acceptor.lock);
	channel->pending = false;
	listener->nr_pending--;
	if (r < 0)
		listener->acceptor.nr_refused++;
	else
		listener->acceptor.nr_accepted++;
	pthread_mutex_unlock(&listener->acceptor.lock);
	if (r == 0)
		weft_stranger_belongs(&channel->stranger);
	channel->accepted = r == 0;
	channel->deadline_ns = after_ms(ESTABLISH_MS);
	channel->seen_ns = weft_now_ns();
}

static void serve(struct srp_channel *channel)
{
	while (!srp_channel_must_end(channel)) {
		unsigned nr = take(channel);
		bool more = srp_channel_run(channel);
		srp_channel_look_at_tasks(channel);
		srp_channel_ring(channel);
		if (nr > 0 || more || (channel->busy && spin(channel)))
			continue;
		channel->busy = false;
		uint64_t now_ns = weft_now_ns();
		if (!channel->established && now_ns >= channel->deadline_ns)
			break;
		probe(channel, now_ns);
		sleep_for(channel,
			channel->member.nr_waiting ? TASK_TICK_MS : (int)channel->tick_ms);
	}
}

/* Nothing that was posted is in flight any more: true, unless the device keeps it. */
static bool drain(struct srp_channel *channel)
{
	uint64_t end_ns = after_ms(DRAIN_MS);

	rdma_disconnect(channel->id);
	while (!channel->broken && channel->nr_completed < channel->nr_posted &&
		weft_now_ns() < end_ns) {
		struct ibv_wc wc;

		if (ibv_poll_cq(channel->left.ibv, 1, &wc) > 0)
			channel->nr_completed += srp_wr_is_counted(wc.wr_id);
		else
			usleep(1000);
	}
	return !channel->broken && channel->nr_completed >= channel->nr_posted;
}

static void add_counts(struct srp_counts *to, const struct srp_counts *from)
{
	atomic_fetch_add(&to->commands, atomic_load(&from->commands));
	atomic_fetch_add(&to->read_bytes, atomic_load(&from->read_bytes));
	atomic_fetch_add(&to->written_bytes, atomic_load(&from->written_bytes));
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(to->by_key); i++)
		atomic_fetch_add(&to->by_key[i], atomic_load(&from->by_key[i]));
}

static void unlist(struct srp_channel *channel)
{
	struct srp_listener *listener = channel->listener;
	struct srp_channel **p = &listener->channels;

	pthread_mutex_lock(&listener->acceptor.lock);
	while (*p != channel)
		p = &(*p)->next;
	*p = channel->next;
	add_counts(&listener->counts, &channel->counts);
	pthread_mutex_unlock(&listener->acceptor.lock);
	weft_stranger_leave(&channel->stranger);
}

static void end(struct srp_channel *channel)
{
	struct srp_listener *listener = channel->listener;

	weft_debug("a channel of %s ends%s", channel->peer.text,
		channel->clean ? " by a logout" : "");
	unlist(channel);
	if (channel->id->qp && channel->accepted && !drain(channel))
		rdma_destroy_qp(channel->id);
	/* Nothing of it is in flight from here on. */
	for (unsigned i = 0; i < SRP_DEPTH && channel->accepted; i++)
		srp_slot_note_write(channel, &channel->slots[i]);
	if (channel->grant)
		weft_grant_release(channel->grant, channel->clean);
	srp_unit_leave(&listener->units, &channel->member);
	if (channel->id->qp)
		rdma_destroy_qp(channel->id);
	srp_channel_close(channel);
	srp_flush_wait(channel);
	srp_reach_put(&listener->units, channel->reach);
	srp_channel_unstage(channel);
	weft_region_put(channel->region);
	free(channel->lkeys);
	rdma_destroy_id(channel->id);
	rdma_destroy_event_channel(channel->events);
	close(channel->wake_fd);
	close(channel->epfd);
	free(channel);
	pthread_mutex_lock(&listener->acceptor.lock);
	listener->acceptor.nr--;
	pthread_cond_broadcast(&listener->acceptor.changed);
	pthread_mutex_unlock(&listener->acceptor.lock);
}

static void name_peer(struct rdma_cm_id *id, struct weft_peer *peer)
{
	const struct sockaddr *address = rdma_get_peer_addr(id);

	peer->transport = "srp";
	weft_rdma_address_text(address, peer->text, sizeof(peer->text));
	memcpy(&peer->address, address,
		address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					       : sizeof(struct sockaddr_in));
}

static void *channel_main(void *ctx)
{
	struct srp_channel *channel = ctx;

	name_peer(channel->id, &channel->peer);
	log_in(channel);
	if (channel->accepted)
		serve(channel);
	end(channel);
	return NULL;
}

/* The budget calls this where strangers enter. */
static void on_make_room(struct weft_stranger *stranger)
{
	srp_member_end(&weft_container_of(stranger, struct srp_channel, stranger)->member);
}

int srp_channel_start(struct srp_listener *listener, struct rdma_cm_id *id,
	const struct srp_login *login, uint8_t their_reads)
{
	struct srp_channel *channel = calloc(1, sizeof(*channel));
	pthread_attr_t attr;
	pthread_t thread;
	int r = -ENOMEM;

	if (!channel)
		return r;
	channel->listener = listener;
	channel->id = id;
	channel->login = *login;
	channel->their_reads = their_reads;
	channel->member.wake = on_wake;
	channel->epfd = -1;
	channel->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	channel->events = rdma_create_event_channel();
	if (channel->wake_fd < 0 || !channel->events)
		goto fail;
	r = weft_rdma_nonblocking(channel->events->fd);
	if (r == 0)
		r = watch_all(channel);
	if (r == 0 && rdma_migrate_id(id, channel->events) != 0)
		r = -errno;
	if (r < 0)
		goto fail;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	channel->stranger.make_room = on_make_room;
	weft_strangers_enter(&listener->acceptor.strangers, &channel->stranger,
		rdma_get_peer_addr(id), 0);
	/* Under the lock, so that the thread finds itself listed, and a stop finds it. */
	pthread_mutex_lock(&listener->acceptor.lock);
	r = listener->acceptor.stopping ? -ESHUTDOWN
			       : -pthread_create(&thread, &attr, channel_main, channel);
	if (r == 0) {
		channel->pending = true;
		channel->next = listener->channels;
		listener->channels = channel;
		listener->acceptor.nr++;
		listener->nr_pending++;
	}
	pthread_mutex_unlock(&listener->acceptor.lock);
	pthread_attr_destroy(&attr);
	if (r == 0)
		return 0;
	weft_stranger_leave(&channel->stranger);
	rdma_migrate_id(id, listener->acceptor.events);
fail:
	if (channel->events)
		rdma_destroy_event_channel(channel->events);
	weft_close_fd(channel->wake_fd);
	weft_close_fd(channel->epfd);
	free(channel);
	return r;
}
