/*
 * Accepts connections on the main loop; each is served by a thread of its own.
 *
 * Invariant: a session is in the list until its thread has let go of everything, so an empty list (under
 * the lock) means that no thread touches a region, the donor or the listener any more.
 */
#include "transports/nbd/listener.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "fabric/log.h"
#include "fabric/util.h"
#include "transports/nbd/session.h"

#define NS_PER_MS UINT64_C(1000000)

enum {
	BACKOFF_MS = 100,  /* when the process is out of descriptors or threads */
	CUT_OFF_MS = 2000, /* for a connection's thread to notice */
	STACK_BYTES = 256 << 10,
	ACCEPT_BATCH = 64,
};

struct socket {
	struct weft_watch watch;
	struct nbd_listener *listener;
};

struct nbd_listener {
	struct weft_donor *donor;
	struct weft_loop *loop;
	struct nbd_listener_config config;
	struct weft_timer backoff;
	bool stopping;
	bool backing_off;
	pthread_attr_t thread_attr;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	struct nbd_session *sessions;
	unsigned nr_sessions;
	uint64_t accepted, refused;
	struct nbd_counters ended; /* of sessions that are gone */

	unsigned nr_sockets;
	struct socket sockets[];
};

/* ---- one session ---- */

static void kill_session(struct nbd_session *s, bool drain)
{
	pthread_mutex_lock(&s->alive_lock);
	if (s->alive)
		nbd_conn_kill(s->conn, drain);
	pthread_mutex_unlock(&s->alive_lock);
}

void nbd_session_fence(void *session)
{
	kill_session(session, false);
}

static void name_peer(int fd, char *buf, size_t len)
{
	struct sockaddr_storage addr;
	socklen_t addr_len = sizeof(addr);
	char host[INET6_ADDRSTRLEN], port[8];
	struct ucred cred;
	socklen_t cred_len = sizeof(cred);

	if (getpeername(fd, (struct sockaddr *)&addr, &addr_len) < 0)
		addr.ss_family = AF_UNSPEC;
	if (addr.ss_family == AF_UNIX && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len) == 0)
		snprintf(buf, len, "local process %d (uid %u)", (int)cred.pid, cred.uid);
	else if (getnameinfo((struct sockaddr *)&addr, addr_len, host, sizeof(host), port, sizeof(port),
			 NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(buf, len, addr.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	else
		snprintf(buf, len, "unknown");
}

/* Without these a machine that died would hold its connection, and so the region, for hours. */
static void tune(int fd, uint32_t dead_ms)
{
	const int on = 1;
	const int idle_s = (int)weft_max(dead_ms / 3000, 1), probes = 3;
	const int interval_s = (int)weft_max((dead_ms / 1000 - (uint32_t)idle_s) / (uint32_t)probes, 1);

	/* Each fails on a Unix socket, which needs none. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof(dead_ms));
}

/* Takes fd, also on failure. */
static struct nbd_session *session_new(struct nbd_listener *l, int fd)
{
	struct nbd_session *s = calloc(1, sizeof(*s));

	if (!s) {
		close(fd);
		return NULL;
	}
	s->listener = l;
	s->donor = l->donor;
	s->handshake_ms = l->config.handshake_ms;
	name_peer(fd, s->peer, sizeof(s->peer));
	tune(fd, l->config.dead_ms);
	if (nbd_conn_new(fd, &nbd_donor_service, s, &s->conn) < 0) {
		free(s);
		return NULL;
	}
	pthread_mutex_init(&s->alive_lock, NULL);
	s->alive = true;
	return s;
}

static void session_free(struct nbd_session *s)
{
	pthread_mutex_lock(&s->alive_lock);
	s->alive = false;
	pthread_mutex_unlock(&s->alive_lock);
	/* Every request completed inside submit(): this calls close(), which gives the grant back. */
	nbd_conn_free(s->conn);
	assert(!s->grant && s->arena_users == 0);
	weft_region_put(s->asked);
	if (s->arena)
		munmap(s->arena, NBD_ARENA_BYTES);
	pthread_mutex_destroy(&s->alive_lock);
	free(s);
}

static void add_counters(struct nbd_counters *sum, const struct nbd_counters *c)
{
	sum->requests += c->requests;
	sum->read_bytes += c->read_bytes;
	sum->written_bytes += c->written_bytes;
	sum->errors += c->errors;
}

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

static void *session_main(void *arg)
{
	struct nbd_session *s = arg;
	struct nbd_listener *l = s->listener;
	int r;

	r = nbd_conn_serve(s->conn, s->handshake_ms);
	if (r < 0)
		weft_debug("nbd: %s: %s", s->peer, strerror(-r));
	pthread_mutex_lock(&l->lock);
	unlink_session(l, s);
	add_counters(&l->ended, &s->counters);
	pthread_mutex_unlock(&l->lock);
	session_free(s);
	pthread_mutex_lock(&l->lock);
	l->nr_sessions--;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

/* ---- accepting ---- */

static void back_off(struct nbd_listener *l)
{
	/* Level-triggered: the sockets would keep the loop spinning. */
	for (unsigned i = 0; i < l->nr_sockets; i++)
		weft_loop_remove(l->loop, &l->sockets[i].watch);
	l->backing_off = true;
	weft_loop_timer_set(l->loop, &l->backoff, BACKOFF_MS * NS_PER_MS);
}

static void end_backoff(struct weft_timer *timer)
{
	struct nbd_listener *l = weft_container_of(timer, struct nbd_listener, backoff);

	l->backing_off = false;
	for (unsigned i = 0; i < l->nr_sockets; i++)
		if (weft_loop_add(l->loop, &l->sockets[i].watch, EPOLLIN) < 0)
			back_off(l);
}

static int start_thread(struct nbd_listener *l, struct nbd_session *s)
{
	sigset_t all, old;
	pthread_t thread;
	int r;

	/* Signals are the main thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&thread, &l->thread_attr, session_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

/* Takes fd. */
static void start_session(struct nbd_listener *l, int fd)
{
	struct nbd_session *s;
	bool full;

	pthread_mutex_lock(&l->lock);
	full = l->nr_sessions >= l->config.max_connections;
	l->refused += full;
	pthread_mutex_unlock(&l->lock);
	if (full) {
		close(fd);
		return;
	}
	s = session_new(l, fd);
	pthread_mutex_lock(&l->lock);
	if (s) {
		link_session(l, s);
		l->accepted++;
	} else {
		l->refused++;
	}
	pthread_mutex_unlock(&l->lock);
	if (!s || start_thread(l, s) == 0)
		return;
	pthread_mutex_lock(&l->lock);
	unlink_session(l, s);
	l->nr_sessions--;
	l->accepted--;
	l->refused++;
	pthread_mutex_unlock(&l->lock);
	session_free(s);
	back_off(l);
}

static void on_connect(struct weft_watch *watch, uint32_t events)
{
	struct nbd_listener *l = weft_container_of(watch, struct socket, watch)->listener;

	for (int i = 0; i < ACCEPT_BATCH && !l->backing_off; i++) {
		int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			start_session(l, fd);
		else if (errno == EAGAIN)
			return;
		else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			back_off(l);
		/* Anything else is about that one connection: accept(2), "Error handling". */
	}
}

/* ---- life ---- */

int nbd_listener_new(struct weft_donor *donor, struct weft_loop *loop, const int *fds, unsigned nr_fds,
	const struct nbd_listener_config *config, struct nbd_listener **ret, struct weft_error *err)
{
	struct nbd_listener *l = calloc(1, sizeof(*l) + nr_fds * sizeof(l->sockets[0]));
	pthread_condattr_t attr;
	int r;

	if (!l)
		return weft_error_set(err, ENOMEM, "cannot listen: no memory");
	l->donor = donor;
	l->loop = loop;
	if (config)
		l->config = *config;
	if (!l->config.max_connections)
		l->config.max_connections = 1024;
	if (!l->config.handshake_ms)
		l->config.handshake_ms = 10000;
	if (!l->config.dead_ms)
		l->config.dead_ms = 120000;
	l->backoff.fn = end_backoff;
	for (; l->nr_sockets < nr_fds; l->nr_sockets++) {
		struct socket *s = &l->sockets[l->nr_sockets];
		int flags = fcntl(fds[l->nr_sockets], F_GETFL);

		s->listener = l;
		s->watch.fd = fds[l->nr_sockets];
		s->watch.fn = on_connect;
		if (flags < 0 || fcntl(s->watch.fd, F_SETFL, flags | O_NONBLOCK) < 0)
			r = -errno;
		else
			r = weft_loop_add(loop, &s->watch, EPOLLIN);
		if (r < 0)
			goto remove_watches;
	}
	pthread_attr_init(&l->thread_attr);
	pthread_attr_setdetachstate(&l->thread_attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&l->thread_attr, STACK_BYTES);
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->changed, &attr);
	pthread_condattr_destroy(&attr);
	*ret = l;
	return 0;

remove_watches:
	while (l->nr_sockets-- > 0)
		weft_loop_remove(loop, &l->sockets[l->nr_sockets].watch);
	free(l);
	return weft_error_set(err, -r, "cannot listen: %s", strerror(-r));
}

static void kill_all(struct nbd_listener *l, bool drain)
{
	pthread_mutex_lock(&l->lock);
	for (struct nbd_session *s = l->sessions; s; s = s->next)
		kill_session(s, drain);
	pthread_mutex_unlock(&l->lock);
}

void nbd_listener_stop(struct nbd_listener *l)
{
	if (l->stopping)
		return;
	l->stopping = true;
	weft_loop_timer_cancel(l->loop, &l->backoff);
	for (unsigned i = 0; i < l->nr_sockets; i++) {
		weft_loop_remove(l->loop, &l->sockets[i].watch);
		close(l->sockets[i].watch.fd);
	}
	kill_all(l, true);
}

/* Until no session is left: 0, or -ETIMEDOUT. */
static int wait_for_end(struct nbd_listener *l, uint32_t timeout_ms)
{
	const uint64_t deadline_ns = weft_now_ns() + timeout_ms * NS_PER_MS;
	const struct timespec ts = {
		.tv_sec = (time_t)(deadline_ns / 1000000000),
		.tv_nsec = (long)(deadline_ns % 1000000000),
	};
	int r = 0;

	pthread_mutex_lock(&l->lock);
	while (l->nr_sessions > 0 && r == 0)
		r = pthread_cond_timedwait(&l->changed, &l->lock, &ts);
	r = l->nr_sessions > 0 ? -ETIMEDOUT : 0;
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
	pthread_attr_destroy(&l->thread_attr);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

void nbd_listener_status(struct nbd_listener *l, struct nbd_listener_status *ret)
{
	struct nbd_counters sum = { 0 };

	pthread_mutex_lock(&l->lock);
	add_counters(&sum, &l->ended);
	for (const struct nbd_session *s = l->sessions; s; s = s->next)
		add_counters(&sum, &s->counters);
	*ret = (struct nbd_listener_status){
		.connections = l->nr_sessions,
		.accepted = l->accepted,
		.refused = l->refused,
		.requests = sum.requests,
		.read_bytes = sum.read_bytes,
		.written_bytes = sum.written_bytes,
		.errors = sum.errors,
	};
	pthread_mutex_unlock(&l->lock);
}
