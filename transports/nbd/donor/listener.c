/* SPDX-License-Identifier: MIT */
/*
 * Accepts connections on the main loop; each is served by a thread of its own, once the peer has
 * said something.  A silent peer costs a descriptor and a few hundred bytes, and belongs to the
 * loop's thread.
 *
 * Invariant: a session with a thread is in the list until the thread has released everything.  So
 * an empty list (under the lock) means that no thread touches a region, the donor or the listener
 * any more.
 */
#include "transports/nbd/donor/listener.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "fabric/base/log.h"
#include "fabric/base/thread.h"
#include "fabric/nbd/tls.h"
#include "fabric/base/util.h"
#include "transports/nbd/donor/session.h"

#define NS_PER_MS UINT64_C(1000000)

enum {
	CUT_OFF_MS = 2000, /* for a connection's thread to notice */
	STACK_BYTES = 256 << 10,
	MAX_STRANGERS = 512,
	MIN_STRANGERS = 16,
};

/* ---- sessions with a thread ---- */

static void link_session(struct nbd_listener *l, struct nbd_session *s)
{
	s->next = l->sessions;
	s->prev = &l->sessions;
	if (s->next)
		s->next->prev = &s->next;
	l->sessions = s;
	l->nr_sessions++;
}

static void unlink_session(struct nbd_listener *l, struct nbd_session *s)
{
	*s->prev = s->next;
	if (s->next)
		s->next->prev = s->prev;
}

static void session_main(void *arg)
{
	struct nbd_session *s = arg;
	struct nbd_listener *l = s->listener;
	int r;

	r = nbd_conn_serve(s->conn, s->handshake_ms);
	if (r < 0)
		weft_debug("%s: %s", s->peer.text, strerror(-r));
	pthread_mutex_lock(&l->lock);
	unlink_session(l, s);
	weft_export_add(&l->ended, &s->export.counters);
	pthread_mutex_unlock(&l->lock);
	nbd_session_free(s);
	pthread_mutex_lock(&l->lock);
	l->nr_sessions--;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

/* ---- peers that have said nothing ---- */

static void silent_add(struct nbd_listener *l, struct nbd_session *s)
{
	s->silent = true;
	s->next = NULL;
	s->prev = l->silent.end;
	*l->silent.end = s;
	l->silent.end = &s->next;
}

static void silent_take(struct nbd_listener *l, struct nbd_session *s)
{
	s->silent = false;
	weft_loop_remove(l->loop, &s->watch);
	*s->prev = s->next;
	if (s->next)
		s->next->prev = s->prev;
	else
		l->silent.end = s->prev;
}

static void silent_end(struct nbd_listener *l, struct nbd_session *s)
{
	/* The kernel keeps nothing of the connection either, even if the peer does not answer. */
	const struct linger at_once = { .l_onoff = 1 };

	silent_take(l, s);
	setsockopt(s->watch.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(s->watch.fd);
	nbd_session_free(s);
	pthread_mutex_lock(&l->lock);
	l->nr_silent--;
	pthread_mutex_unlock(&l->lock);
}

/* Sets the timer to the deadline of the oldest. */
static void set_silent_timer(struct nbd_listener *l)
{
	uint64_t now_ns = weft_now_ns();

	if (l->silent.first && !l->silent_timer.due_ns)
		weft_loop_timer_set(l->loop, &l->silent_timer,
			l->silent.first->deadline_ns > now_ns
				? l->silent.first->deadline_ns - now_ns
				: 1);
}

static void end_the_silent(struct weft_timer *timer)
{
	struct nbd_listener *l = weft_container_of(timer, struct nbd_listener, silent_timer);
	uint64_t now_ns = weft_now_ns();

	while (l->silent.first && l->silent.first->deadline_ns <= now_ns)
		silent_end(l, l->silent.first);
	set_silent_timer(l);
}

/*
 * A session's thread notices.  A silent session waits until the caller has released the budget's
 * lock.
 */
static void make_room(struct weft_stranger *stranger)
{
	struct nbd_session *s = weft_container_of(stranger, struct nbd_session, stranger);

	/* Silent sessions and the caller belong to the same thread. */
	if (s->silent)
		s->listener->made_room = s;
	else
		nbd_session_kill(s, false);
}

static void end_who_made_room(struct nbd_listener *l)
{
	struct nbd_session *s = l->made_room;

	l->made_room = NULL;
	if (s)
		silent_end(l, s);
}

/* Who proves nothing is asked to, unless the donor lets it in all the same. */
static void offer_tls(struct nbd_listener *l, struct nbd_session *s)
{
	const char *wanted =
		"this donor wants a key, and TLS; whoever runs it makes one: weft key new";

	if (weft_donor_keys(l->donor) || l->config.tls_certificates)
		nbd_conn_offer_tls(s->conn, l->tls,
			weft_donor_let_in(s->donor, &s->peer, NULL) < 0 ? wanted : NULL);
}

/* From here on a thread serves it. */
static void start_session(struct nbd_listener *l, struct nbd_session *s)
{
	int fd = s->watch.fd;

	silent_take(l, s);
	weft_stranger_spoke(&s->stranger);
	nbd_session_set_up(s);
	int r = nbd_conn_new_greeted(fd, &nbd_donor_service, &s->export, &s->conn);
	if (r == 0)
		offer_tls(l, s);
	pthread_mutex_lock(&s->alive_lock);
	s->alive = r == 0;
	pthread_mutex_unlock(&s->alive_lock);
	pthread_mutex_lock(&l->lock);
	l->nr_silent--;
	if (r == 0)
		link_session(l, s);
	pthread_mutex_unlock(&l->lock);
	if (r == 0) {
		r = weft_crew_run(&l->crew, session_main, s);
		if (r == 0)
			return;
		pthread_mutex_lock(&l->lock);
		unlink_session(l, s);
		l->nr_sessions--;
		pthread_mutex_unlock(&l->lock);
	}
	pthread_mutex_lock(&l->lock);
	l->refused++;
	pthread_mutex_unlock(&l->lock);
	nbd_session_free(s);
	for (unsigned i = 0; i < l->nr_sockets; i++)
		weft_acceptor_pause(&l->sockets[i].acceptor, WEFT_ACCEPT_PAUSE_MS * NS_PER_MS);
}

static void on_first_bytes(struct weft_watch *watch, uint32_t events)
{
	struct nbd_session *s = weft_container_of(watch, struct nbd_session, watch);
	char byte;
	ssize_t n = recv(watch->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		start_session(s->listener, s);
	else
		silent_end(s->listener, s);
}

/* ---- accepting ---- */

static void enter(struct nbd_listener *l, struct nbd_session *s)
{
	struct sockaddr_storage addr = { .ss_family = AF_UNIX };
	socklen_t len = sizeof(addr);
	struct ucred cred = { 0 };
	socklen_t cred_len = sizeof(cred);

	if (getpeername(s->watch.fd, (struct sockaddr *)&addr, &len) < 0 ||
		addr.ss_family == AF_UNIX)
		getsockopt(s->watch.fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len);
	s->stranger.make_room = make_room;
	weft_strangers_enter(&l->strangers, &s->stranger, (struct sockaddr *)&addr, cred.uid);
	end_who_made_room(l);
}

/* Whether it may begin a handshake; if not, the log says so. */
static bool may_come(struct nbd_listener *l, int fd)
{
	struct sockaddr_storage addr = { .ss_family = AF_UNSPEC };
	socklen_t len = sizeof(addr);
	struct weft_peer peer;
	struct weft_error why;

	if (getpeername(fd, (struct sockaddr *)&addr, &len) < 0 ||
		weft_strangers_may_come(&l->strangers, (struct sockaddr *)&addr))
		return true;
	weft_peer_of_socket(fd, &peer);
	peer.transport = "tcp";
	weft_error_set(&why, EBUSY, "too many connections a second come from there");
	weft_donor_kept_out(l->donor, &peer, &why);
	return false;
}

/* Takes fd. */
static void on_connection(struct weft_acceptor *acceptor, int fd)
{
	struct nbd_listener *l = weft_container_of(acceptor, struct nbd_socket, acceptor)->listener;
	struct nbd_session *s = may_come(l, fd) ? calloc(1, sizeof(*s)) : NULL;
	int r = s ? nbd_greet(fd) : -ENOMEM;

	if (r == 0) {
		s->watch = (struct weft_watch){ .fd = fd, .fn = on_first_bytes };
		r = weft_loop_add(l->loop, &s->watch, EPOLLIN);
	}
	pthread_mutex_lock(&l->lock);
	l->accepted += r == 0;
	l->nr_silent += r == 0;
	l->refused += r < 0;
	pthread_mutex_unlock(&l->lock);
	if (r < 0) {
		close(fd);
		free(s);
		return;
	}
	s->listener = l;
	s->donor = l->donor;
	s->export.donor = l->donor;
	s->export.is_gone = nbd_session_hung_up;
	s->handshake_ms = l->config.handshake_ms;
	s->deadline_ns = weft_now_ns() + l->config.handshake_ms * NS_PER_MS;
	pthread_mutex_init(&s->alive_lock, NULL);
	silent_add(l, s);
	set_silent_timer(l);
	enter(l, s);
}

/* Out of descriptors. */
static bool give_one_up(struct weft_acceptor *acceptor)
{
	struct nbd_listener *l = weft_container_of(acceptor, struct nbd_socket, acceptor)->listener;
	bool made = weft_strangers_make_room(&l->strangers);
	bool silent = l->made_room != NULL;

	end_who_made_room(l);
	/* A thread closes its descriptor later. */
	return made && silent;
}

/* ---- life ---- */

/* There have to be descriptors left for borrowers with grants. */
static unsigned default_strangers(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return MAX_STRANGERS;
	return (unsigned)weft_max(weft_min(limit.rlim_cur / 4, MAX_STRANGERS), MIN_STRANGERS);
}

int nbd_listener_new(struct weft_donor *donor, struct weft_loop *loop, const int *fds,
	unsigned nr_fds, const struct nbd_listener_config *config, struct nbd_listener **ret,
	struct weft_error *err)
{
	struct nbd_listener *l = calloc(1, sizeof(*l) + nr_fds * sizeof(l->sockets[0]));
	int r;

	if (!l)
		return weft_error_set(err, ENOMEM, "cannot listen: no memory");
	l->donor = donor;
	l->loop = loop;
	if (config)
		l->config = *config;
	if (!l->config.max_connections)
		l->config.max_connections = 1024;
	if (!l->config.max_strangers)
		l->config.max_strangers = default_strangers();
	if (!l->config.handshake_ms)
		l->config.handshake_ms = 10000;
	if (!l->config.dead_ms)
		l->config.dead_ms = 120000;
	l->silent.end = &l->silent.first;
	l->silent_timer.fn = end_the_silent;
	r = weft_export_credentials(donor, l->config.tls_certificates, &l->tls, err);
	if (r < 0) {
		free(l);
		return r;
	}
	r = weft_strangers_init(&l->strangers, l->config.max_strangers);
	if (r < 0)
		goto stop_acceptors;
	for (; l->nr_sockets < nr_fds; l->nr_sockets++) {
		struct nbd_socket *s = &l->sockets[l->nr_sockets];

		s->listener = l;
		s->fd = fds[l->nr_sockets];
		s->acceptor.fn = on_connection;
		s->acceptor.make_room = give_one_up;
		s->acceptor.what = "connections";
		r = weft_acceptor_start(&s->acceptor, loop, s->fd);
		if (r < 0)
			goto stop_acceptors;
	}
	weft_crew_init(&l->crew, "weft-connection", STACK_BYTES);
	pthread_mutex_init(&l->lock, NULL);
	weft_cond_init(&l->changed);
	*ret = l;
	return 0;

stop_acceptors:
	while (l->nr_sockets-- > 0)
		weft_acceptor_stop(&l->sockets[l->nr_sockets].acceptor);
	weft_strangers_fini(&l->strangers);
	nbd_tls_credentials_put(l->tls);
	free(l);
	return weft_error_set(err, -r, "cannot listen: %s", strerror(-r));
}

static void kill_all(struct nbd_listener *l, bool drain)
{
	pthread_mutex_lock(&l->lock);
	for (struct nbd_session *s = l->sessions; s; s = s->next)
		nbd_session_kill(s, drain);
	pthread_mutex_unlock(&l->lock);
}

void nbd_listener_stop(struct nbd_listener *l)
{
	if (l->stopping)
		return;
	l->stopping = true;
	for (unsigned i = 0; i < l->nr_sockets; i++) {
		weft_acceptor_stop(&l->sockets[i].acceptor);
		close(l->sockets[i].fd);
	}
	weft_loop_timer_cancel(l->loop, &l->silent_timer);
	while (l->silent.first)
		silent_end(l, l->silent.first);
	kill_all(l, true);
}

/* Waits until no session is left: 0, or -ETIMEDOUT. */
static int wait_for_end(struct nbd_listener *l, uint32_t timeout_ms)
{
	const uint64_t deadline_ns = weft_now_ns() + timeout_ms * NS_PER_MS;

	pthread_mutex_lock(&l->lock);
	while (l->nr_sessions > 0 && weft_cond_wait_until(&l->changed, &l->lock, deadline_ns))
		;
	int r = l->nr_sessions > 0 ? -ETIMEDOUT : 0;
	pthread_mutex_unlock(&l->lock);
	return r;
}

int nbd_listener_drain(struct nbd_listener *l, uint32_t timeout_ms)
{
	assert(l->stopping);
	if (wait_for_end(l, timeout_ms) == 0)
		return 0;
	kill_all(l, false);
	return wait_for_end(l, CUT_OFF_MS);
}

void nbd_listener_free(struct nbd_listener *l)
{
	if (!l)
		return;
	nbd_listener_stop(l);
	pthread_mutex_lock(&l->lock);
	assert(l->nr_sessions == 0);
	pthread_mutex_unlock(&l->lock);
	weft_crew_fini(&l->crew);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	weft_strangers_fini(&l->strangers);
	nbd_tls_credentials_put(l->tls);
	free(l);
}

void nbd_listener_status(struct nbd_listener *l, struct weft_listener_status *ret)
{
	struct weft_export_counters sum = { 0 };

	pthread_mutex_lock(&l->lock);
	weft_export_add(&sum, &l->ended);
	for (const struct nbd_session *s = l->sessions; s; s = s->next)
		weft_export_add(&sum, &s->export.counters);
	*ret = (struct weft_listener_status){
		.connections = l->nr_sessions + l->nr_silent,
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
