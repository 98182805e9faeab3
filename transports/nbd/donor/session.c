/* SPDX-License-Identifier: MIT */
/*
 * One connection of the donor's listener: its peer, its place in the listener's counts, its end.
 *
 * Invariant: a session with a thread is in the listener's list until that thread has released
 * everything.
 */
#include "transports/nbd/donor/session.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "fabric/base/thread.h"
#include "fabric/base/util.h"

#define NS_PER_MS UINT64_C(1000000)

enum {
	MAX_LISTING = 8, /* each has the names of all regions in memory … */
	LIST_WAIT_MS = 5000, /* … and others wait so long for their turn */
};

void nbd_session_kill(struct nbd_session *s, bool drain)
{
	pthread_mutex_lock(&s->alive_lock);
	if (s->alive)
		nbd_conn_kill(s->conn, drain);
	pthread_mutex_unlock(&s->alive_lock);
}

void nbd_session_fence(void *session)
{
	nbd_session_kill(session, false);
}

/* Without these a machine that died would hold its connection, and so the region, for hours. */
static void tune(int fd, uint32_t dead_ms)
{
	const int on = 1;
	const int idle_s = (int)weft_max(dead_ms / 3000, 1), probes = 3;
	const int interval_s =
		(int)weft_max((dead_ms / 1000 - (uint32_t)idle_s) / (uint32_t)probes, 1);

	/* These calls fail on a Unix socket, which needs none of them. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof(dead_ms));
}

void nbd_session_set_up(struct nbd_session *s)
{
	weft_peer_of_socket(s->watch.fd, &s->peer);
	s->peer.transport = "tcp";
	tune(s->watch.fd, s->listener->config.dead_ms);
}

void nbd_session_live_by_answers(struct nbd_session *s, uint32_t lease_ms)
{
	s->export.by_alias = true;
	if (lease_ms)
		tune(nbd_conn_fd(s->conn), (uint32_t)weft_max(lease_ms / 3 * 2, 1000));
}

bool nbd_session_hung_up(const struct nbd_conn *conn)
{
	struct pollfd pfd = {.fd = nbd_conn_fd(conn), .events = POLLRDHUP};

	return poll(&pfd, 1, 0) != 0;
}

uint64_t nbd_session_answered_ns(const struct nbd_session *s)
{
	uint64_t now_ns = weft_now_ns();
	struct tcp_info info;
	socklen_t len = sizeof(info);

	/* The end of a Unix socket is known at once. */
	if (getsockopt(nbd_conn_fd(s->conn), IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return now_ns;
	return now_ns - weft_min(info.tcpi_last_ack_recv * NS_PER_MS, now_ns);
}

void nbd_session_kept_out(struct nbd_session *s, const struct weft_error *why)
{
	pthread_mutex_lock(&s->listener->lock);
	s->listener->refused++;
	pthread_mutex_unlock(&s->listener->lock);
	weft_donor_kept_out(s->donor, &s->peer, why);
}

void nbd_session_free(struct nbd_session *s)
{
	pthread_mutex_lock(&s->alive_lock);
	s->alive = false;
	pthread_mutex_unlock(&s->alive_lock);
	weft_stranger_leave(&s->stranger);
	/*
	 * Every request completed inside submit(): this calls close(), which gives the grant back.
	 */
	nbd_conn_free(s->conn);
	nbd_session_uncount(s); /* it asked questions, and was granted nothing */
	assert(!s->export.grant);
	weft_region_put(s->asked);
	weft_export_fini(&s->export);
	pthread_mutex_destroy(&s->alive_lock);
	free(s);
}

int nbd_session_begin_list(struct nbd_session *s)
{
	struct nbd_listener *l = s->listener;
	const uint64_t deadline_ns = weft_now_ns() + LIST_WAIT_MS * NS_PER_MS;

	pthread_mutex_lock(&l->lock);
	while (l->nr_listing == MAX_LISTING &&
		weft_cond_wait_until(&l->changed, &l->lock, deadline_ns))
		;
	int r = l->nr_listing == MAX_LISTING ? -EBUSY : 0;
	l->nr_listing += r == 0;
	pthread_mutex_unlock(&l->lock);
	return r;
}

void nbd_session_end_list(struct nbd_session *s)
{
	struct nbd_listener *l = s->listener;

	pthread_mutex_lock(&l->lock);
	l->nr_listing--;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

int nbd_session_count(struct nbd_session *s, bool known, struct weft_error *err)
{
	struct nbd_listener *l = s->listener;
	bool full;

	pthread_mutex_lock(&l->lock);
	full = l->nr_granted >= l->config.max_connections && !known;
	l->nr_granted += !full;
	l->refused += full;
	pthread_mutex_unlock(&l->lock);
	if (full)
		return weft_error_set(err, EBUSY,
			"this donor serves %u connections, and more only to attachments that it "
			"has already",
			l->config.max_connections);
	s->counted = true;
	return 0;
}

void nbd_session_uncount(struct nbd_session *s)
{
	struct nbd_listener *l = s->listener;

	if (!s->counted)
		return;
	s->counted = false;
	pthread_mutex_lock(&l->lock);
	l->nr_granted--;
	pthread_mutex_unlock(&l->lock);
}
