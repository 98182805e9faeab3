/* SPDX-License-Identifier: MIT */
/*
 * A connection of the donor's, from its first datagram to its end: a thread that takes datagrams
 * in, runs the NBD engine of each stream as far as it goes, and sends.  While it waits for a disk,
 * or for a grant, the keeper acknowledges what comes (keeper.c).
 *
 * Invariant: a session is in the listener's list until its thread has released everything.
 */
#include "transports/quic/donor/session.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/nbd/tls-bare.h"

#define MS_NS UINT64_C(1000000)

enum {
	DRAIN_MS = 2000, /* for the last answers to arrive */
	ROUND_MS = 50,   /* between two looks at the wire, as far as regions allow */
};

/* ---- ids ---- */

/* ngtcp2's callbacks, on the session's thread, or on the listener's before there is one. */
static struct quic_session *session_of(struct quic_conn *conn)
{
	return conn->user;
}

static bool on_new_cid(struct quic_conn *conn, const uint8_t *cid)
{
	struct quic_session *s = session_of(conn);

	pthread_mutex_lock(&s->listener->lock);
	const bool added = quic_route_add(s, cid, QUIC_CID_BYTES);
	pthread_mutex_unlock(&s->listener->lock);
	return added;
}

static void on_drop_cid(struct quic_conn *conn, const uint8_t *cid)
{
	struct quic_session *s = session_of(conn);

	pthread_mutex_lock(&s->listener->lock);
	quic_route_drop(s, cid, QUIC_CID_BYTES);
	pthread_mutex_unlock(&s->listener->lock);
}

static const struct quic_owner owner = {.new_cid = on_new_cid, .drop_cid = on_drop_cid};

/* ---- who it is, and from where ---- */

static void keep_out(struct quic_session *s, const struct weft_error *why)
{
	pthread_mutex_lock(&s->listener->lock);
	s->listener->refused++;
	pthread_mutex_unlock(&s->listener->lock);
	weft_donor_kept_out(s->listener->donor, &s->peer, why);
}

static void set_peer(const struct quic_session *s, struct weft_peer *ret)
{
	weft_peer_of_socket(s->wire.socket.fd, ret);
	ret->transport = "quic";
	/* Whoever comes over QUIC has proved who it is: whose the socket is does not count. */
	ret->has_uid = false;
}

/* TLS's handshake is done.  0, or -errno. */
static int get_to_know(struct quic_session *s)
{
	struct quic_conn *conn = s->wire.conn;
	struct weft_error why;
	int r = nbd_tls_bare_done(conn->tls, &why);

	if (r < 0) {
		keep_out(s, &why);
		return r;
	}
	strcpy(s->peer.identity, nbd_tls_bare_identity(conn->tls));
	s->peer.life = nbd_tls_bare_life(conn->tls);
	s->peer.certified = !s->peer.life;
	s->peer.expires = nbd_tls_bare_expires(conn->tls);
	s->peer.encrypted = true;
	s->is_known = true;
	weft_stranger_spoke(&s->stranger);
	return 0;
}

/* The peer has proved that it is at another address (RFC 9000, 8.2). */
static void follow(struct quic_session *s)
{
	const struct sockaddr_storage to = s->wire.conn->proved;
	struct weft_peer now;

	s->wire.conn->proved.ss_family = AF_UNSPEC;
	if (quic_socket_connect(&s->wire.socket, (const struct sockaddr *)&to) < 0)
		return; /* the listener's socket goes on */
	set_peer(s, &now);
	weft_debug("%s is at %s now", s->peer.text, now.text);
	memcpy(s->peer.text, now.text, sizeof(s->peer.text));
	s->peer.address = now.address;
	if (s->grant)
		weft_grant_moved(s->grant, &now.address, now.text);
}

/* ---- the thread ---- */

static bool is_gone(const struct nbd_conn *conn)
{
	const struct weft_export *export = nbd_conn_user(conn);

	return atomic_load(&((struct quic_session *)export->session)->killed);
}

/* A disk may take longer than a peer waits for an acknowledgement. */
static int waits(struct weft_export *export, bool begins)
{
	struct quic_session *s = export->session;

	if (!begins)
		quic_keeper_take_back(s);
	else if (atomic_load(&s->killed))
		return -ESHUTDOWN; /* more may come all the time, so that step() does not look */
	else
		quic_keeper_lend(s);
	return 0;
}

/* The engine of a stream that has its first bytes.  0, or -errno. */
static int start_stream(struct quic_session *s, unsigned i)
{
	struct nbd_pipe *pipe = &s->wire.conn->streams[i].pipe;
	struct weft_export *export = &s->exports[i];

	export->donor = s->listener->donor;
	export->session = s;
	export->is_gone = is_gone;
	export->waits = waits;
	if (i == 0)
		return nbd_conn_new_over(pipe, &quic_donor_service, export, &s->conns[0]);
	/* Nothing may be asked for before the first has a grant. */
	if (!s->conns[0] || !nbd_conn_in_transmission(s->conns[0]))
		return -EPROTO;
	export->grant = s->grant;
	export->region = s->grant->region;
	return nbd_conn_new_beside(pipe, s->conns[0], export, &s->conns[i]);
}

/* 1; 0: the session is over, and all was answered; or -errno: it is broken. */
static int move_stream(struct quic_session *s, unsigned i)
{
	int r;

	if (!s->conns[i]) {
		r = start_stream(s, i);
		if (r < 0)
			return r;
	}
	r = nbd_conn_move(s->conns[i]);
	return r == 0 && i > 0 && !atomic_load(&s->draining) ? -EPROTO : r;
}

/* As move_stream(), of all streams that bytes have come for, or room. */
static int move_streams(struct quic_session *s)
{
	struct quic_conn *conn = s->wire.conn;
	uint32_t bits = (conn->readable | conn->writable) & ((UINT32_C(1) << QUIC_STREAMS) - 1);
	uint64_t since_ns = weft_now_ns();

	conn->readable = conn->writable = 0;
	for (; bits; bits &= bits - 1) {
		const unsigned i = (unsigned)__builtin_ctz(bits);

		if (!conn->streams[i].is_open)
			continue;
		int r = move_stream(s, i);
		if (r <= 0)
			return r;
		/* With a slow disk under it a round takes long. */
		if (weft_now_ns() - since_ns > ROUND_MS * MS_NS) {
			quic_session_keep_up(s);
			since_ns = weft_now_ns();
		}
	}
	return 1;
}

/* No more is received: what was is answered.  As move_stream(). */
static void drain(struct quic_session *s)
{
	struct quic_conn *conn = s->wire.conn;
	const uint64_t end_ns = weft_now_ns() + DRAIN_MS * MS_NS;

	for (unsigned i = 0; i < QUIC_STREAMS; i++) {
		conn->streams[i].ended = true;
		if (s->conns[i])
			(void)nbd_conn_move(s->conns[i]);
	}
	while (!conn->error && !quic_all_arrived(conn) && !atomic_load(&s->killed)) {
		uint64_t now_ns = weft_now_ns();

		if (now_ns >= end_ns || quic_wire_send(&s->wire, now_ns) < 0)
			return;
		struct pollfd fd = {.fd = s->wire.socket.fd, .events = POLLIN};
		poll(&fd, 1, 10);
		if (quic_wire_receive(&s->wire, s->inbox, weft_now_ns()) < 0)
			return;
		for (unsigned i = 0; i < QUIC_STREAMS; i++)
			if (s->conns[i])
				(void)nbd_conn_move(s->conns[i]);
	}
}

/* Until something comes, or is due.  False: the time for a grant is over. */
static bool wait_for_more(struct quic_session *s)
{
	struct pollfd fds[] = {
		{.fd = s->wire.socket.fd, .events = POLLIN | (s->wire.blocked ? POLLOUT : 0)},
		{.fd = s->wake_fd, .events = POLLIN},
	};
	uint64_t now_ns = weft_now_ns(), due_ns = quic_due_ns(s->wire.conn);

	if (!s->grant)
		due_ns = weft_min(due_ns, s->deadline_ns);
	if (!s->grant && now_ns >= s->deadline_ns)
		return false;
	/* The keeper may have taken in what no other datagram would tell of. */
	if (s->is_known && (s->wire.conn->readable | s->wire.conn->writable))
		return true;
	if (due_ns <= now_ns && !s->wire.blocked)
		return true;
	const uint64_t wait_ns = due_ns > now_ns ? due_ns - now_ns : MS_NS;
	const struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000),
		.tv_nsec = (long)(wait_ns % 1000000000)};
	ppoll(fds, 2, due_ns == UINT64_MAX ? NULL : &wait, NULL);
	return true;
}

/* One round.  1; 0: the session is over; or -errno. */
static int step(struct quic_session *s)
{
	uint64_t now_ns = weft_now_ns();
	int r = quic_session_read_mail(s, now_ns);

	if (r == 0)
		r = quic_wire_receive(&s->wire, s->inbox, now_ns);
	if (r < 0)
		return r;
	if (atomic_load(&s->killed))
		return -ESHUTDOWN;
	if (!s->is_known && quic_is_shaken(s->wire.conn)) {
		r = get_to_know(s);
		if (r < 0)
			return r;
	}
	if (s->wire.conn->error)
		return s->wire.conn->error;
	if (s->wire.conn->proved.ss_family != AF_UNSPEC)
		follow(s);
	r = s->is_known ? move_streams(s) : 1;
	if (r <= 0)
		return r;
	if (atomic_load(&s->draining)) {
		drain(s);
		return 0;
	}
	r = quic_wire_send(&s->wire, weft_now_ns());
	return r < 0 ? r : wait_for_more(s) ? 1 : -ETIMEDOUT;
}

/* Whether a request of the stream has come, in part at least, and its answer has not left. */
static bool has_request(const struct quic_session *s, unsigned i)
{
	const struct quic_ring *came = &s->wire.conn->streams[i].rx;

	return came->head < came->tail || (s->conns[i] && nbd_conn_nr_requests(s->conns[i]) > 0);
}

/*
 * The grant goes with the first stream's connection.  A goodbye there may overtake what other
 * streams carry: it is a clean end if there is nothing left.
 */
static void end_streams(struct quic_session *s)
{
	for (unsigned i = 1; i < QUIC_STREAMS; i++)
		s->cut_off = s->cut_off || has_request(s, i);
	for (unsigned i = QUIC_STREAMS; i-- > 0;) {
		nbd_conn_free(s->conns[i]);
		weft_export_fini(&s->exports[i]);
	}
}

static void say_goodbye(struct quic_session *s, int r)
{
	if (r == 0)
		quic_wire_close(&s->wire, QUIC_OVER, "the session is over");
	else if (r == -ESHUTDOWN)
		quic_wire_close(&s->wire, QUIC_CUT, "the donor ended the session");
	else if (r == -ETIMEDOUT)
		quic_wire_close(&s->wire, QUIC_CUT, "the handshake took too long");
	else
		quic_wire_close(&s->wire, QUIC_BROKEN, "what was sent over a stream is not NBD");
}

static void free_session(struct quic_session *s)
{
	weft_stranger_leave(&s->stranger);
	weft_region_put(s->asked);
	quic_wire_fini(&s->wire);
	quic_inbox_free(s->inbox);
	for (unsigned i = 0; i < s->nr_letters; i++)
		free(s->letters[i]);
	weft_close_fd(s->wake_fd);
	quic_keeper_end(s);
	pthread_mutex_destroy(&s->mail_lock);
	free(s);
}

static void unlink_session(struct quic_session *s)
{
	struct quic_listener *l = s->listener;

	pthread_mutex_lock(&l->lock);
	quic_route_drop_all(s);
	*s->prev = s->next;
	if (s->next)
		s->next->prev = s->prev;
	for (unsigned i = 0; i < QUIC_STREAMS; i++)
		weft_export_add(&l->ended, &s->exports[i].counters);
	pthread_mutex_unlock(&l->lock);
}

static void session_main(void *ctx)
{
	struct quic_session *s = ctx;
	struct quic_listener *l = s->listener;
	int r;

	do
		r = step(s);
	while (r > 0);
	if (r < 0)
		weft_debug("%s: %s", s->peer.text,
			s->wire.conn->error ? s->wire.conn->why.message : strerror(-r));
	if (!s->is_known && s->wire.conn->error && s->wire.conn->why.code == EKEYREJECTED)
		keep_out(s, &s->wire.conn->why);
	/* Whoever said goodbye, and sees the end, has been let go of. */
	end_streams(s);
	unlink_session(s);
	say_goodbye(s, r);
	free_session(s);
	pthread_mutex_lock(&l->lock);
	l->nr_sessions--;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

/* ---- its beginning, on the listener's thread ---- */

static void make_room(struct weft_stranger *stranger)
{
	quic_session_kill(weft_container_of(stranger, struct quic_session, stranger), false);
}

static void link_session(struct quic_listener *l, struct quic_session *s)
{
	s->next = l->sessions;
	s->prev = &l->sessions;
	if (s->next)
		s->next->prev = &s->next;
	l->sessions = s;
	l->nr_sessions++;
	l->accepted++;
}

static int make_conn(struct quic_session *s, const struct quic_initial *initial)
{
	struct quic_listener *l = s->listener;
	const struct quic_config config = {
		.credentials = l->credentials,
		.owner = &owner,
		.user = s,
		.path = s->wire.socket.path,
		.idle_ms = l->config.idle_ms,
		.handshake_ms = l->config.handshake_ms,
		.route_bytes = s->wire.socket.route_bytes,
	};

	return quic_server_new(&config, initial, l->reset_secret, &s->wire.conn);
}

int quic_session_start(struct quic_listener *l, const struct quic_initial *initial,
	const struct quic_path *path, const uint8_t *datagram, size_t len)
{
	struct quic_session *s = calloc(1, sizeof(*s));
	int r = s ? 0 : -ENOMEM;

	if (r < 0)
		return r;
	s->listener = l;
	s->wire.socket.fd = -1;
	s->wire.aside = &l->socket;
	s->deadline_ns = weft_now_ns() + 2 * l->config.handshake_ms * MS_NS;
	pthread_mutex_init(&s->mail_lock, NULL);
	quic_keeper_init(&s->keeper);
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->inbox = quic_inbox_new();
	if (s->wake_fd < 0 || !s->inbox)
		r = -ENOMEM;
	if (r == 0)
		r = quic_socket_open((const struct sockaddr *)&path->local,
			(const struct sockaddr *)&path->remote, true, &s->wire.socket, NULL);
	if (r == 0)
		r = make_conn(s, initial);
	if (r < 0)
		goto fail;
	set_peer(s, &s->peer);
	quic_session_post(s, &s->wire.socket.path, datagram, len);
	s->stranger.make_room = make_room;
	weft_strangers_enter(
		&l->strangers, &s->stranger, (const struct sockaddr *)&path->remote, 0);
	pthread_mutex_lock(&l->lock);
	quic_route_add(s, initial->dcid, initial->dcid_len);
	link_session(l, s);
	pthread_mutex_unlock(&l->lock);
	r = weft_crew_run(&l->crew, session_main, s);
	if (r == 0)
		return 0;
	unlink_session(s);
	pthread_mutex_lock(&l->lock);
	l->nr_sessions--;
	pthread_mutex_unlock(&l->lock);
fail:
	pthread_mutex_lock(&l->lock);
	quic_route_drop_all(s);
	pthread_mutex_unlock(&l->lock);
	free_session(s);
	return r;
}
