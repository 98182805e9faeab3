/* SPDX-License-Identifier: MIT */
/*
 * The transport "quic": its connections' lives; requests and replies are fabric/nbd/client.h's, of
 * which each stream has one.  A connection belongs to one thread.
 *
 * An operation goes to the next stream that has none in flight, or to the next one.  Their order
 * does not matter: a caller that needs one waits.  So a datagram that is lost holds up the
 * operations whose bytes it had, and those behind them on their streams.
 */
#include "transports/quic/borrower/client.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "fabric/base/map.h"
#include "fabric/base/resident.h"
#include "fabric/base/util.h"
#include "transports/quic/borrower/client-private.h"

#define MS_NS UINT64_C(1000000)

enum {
	DEFAULT_DEPTH = 128,
	LEAVE_MS = 2000, /* for a donor to release the grant after a goodbye */
	ALL_STREAMS = (1 << QUIC_STREAMS) - 1,
};

struct quic_tp_conn {
	struct tp_conn conn;
	struct quic_connecting *connecting; /* until it is done */
	struct quic_wire *wire;             /* from then on */
	int epoll_fd; /* the socket, and the timer */
	int timer_fd;
	uint64_t armed_ns; /* when the timer is due; 0: it is not set */
	bool awaits_room;  /* the socket is watched for room too */
	uint32_t again;    /* streams that have more to be looked at */
	unsigned next_stream;
	uint32_t in_flight[QUIC_STREAMS];
	bool leaving; /* it said goodbye */
	struct nbd_client clients[QUIC_STREAMS];
};

struct quic_tp {
	struct tp tp;
	uint32_t depth;
	struct weft_crew crew; /* connects, and sees off */
	struct quic_inbox *inbox;
};

static struct quic_tp_conn *conn_of(struct tp_conn *conn)
{
	return weft_container_of(conn, struct quic_tp_conn, conn);
}

static struct quic_tp *tp_of(const struct quic_tp_conn *c)
{
	return weft_container_of(c->conn.tp, struct quic_tp, tp);
}

/* ---- life ---- */

static int quic_tp_open(const void *arg, struct tp **ret, struct weft_error *err)
{
	const struct quic_client_config *config = arg;
	struct quic_tp *tp;

	if (weft_is_resident())
		return weft_error_set(err, EOPNOTSUPP,
			"QUIC takes memory for each packet, which a bridge that is swapped to may "
			"not");
	tp = calloc(1, sizeof(*tp));
	if (tp)
		tp->inbox = quic_inbox_new();
	if (!tp || !tp->inbox) {
		free(tp);
		return weft_error_set(err, ENOMEM, "cannot open the transport: out of memory");
	}
	tp->depth = config && config->depth ? config->depth : DEFAULT_DEPTH;
	assert(tp->depth <= NBD_CLIENT_MAX_DEPTH);
	weft_crew_init(&tp->crew, "weft-connect", 0);
	*ret = &tp->tp;
	return 0;
}

static void free_conn(struct quic_tp_conn *c)
{
	quic_wire_free(c->wire);
	weft_close_fd(c->epoll_fd);
	weft_close_fd(c->timer_fd);
	weft_unmap_bytes(c, sizeof(*c));
}

/* Waits until the donor has ended the connection, or has had the time for it. */
static void wait_for_end(struct quic_wire *w, struct quic_inbox *inbox)
{
	const uint64_t end_ns = weft_now_ns() + LEAVE_MS * MS_NS;
	uint64_t now_ns;

	while ((now_ns = weft_now_ns()) < end_ns && quic_wire_send(w, now_ns) == 0) {
		struct pollfd fd = {.fd = w->socket.fd, .events = POLLIN};
		const uint64_t due_ns = weft_min(quic_due_ns(w->conn), end_ns);

		poll(&fd, 1, due_ns > now_ns ? (int)((due_ns - now_ns) / MS_NS) + 1 : 0);
		if (quic_wire_receive(w, inbox, weft_now_ns()) < 0)
			return;
	}
}

/*
 * A goodbye was said: the donor ends the connection when it has released the grant.  On a thread of
 * the crew, as the lane may have nothing to do with QUIC any more.
 */
static void see_off(void *ctx)
{
	struct quic_wire *w = ctx;
	struct quic_inbox *inbox = quic_inbox_new();

	if (inbox)
		wait_for_end(w, inbox);
	quic_inbox_free(inbox);
	quic_wire_close(w, QUIC_OVER, NULL);
	quic_wire_free(w);
}

static void quic_tp_close(struct tp *tp)
{
	struct quic_tp *quic = weft_container_of(tp, struct quic_tp, tp);

	weft_crew_fini(&quic->crew); /* waits for the goodbyes */
	quic_inbox_free(quic->inbox);
	free(quic);
}

static int quic_tp_reg(struct tp *tp, struct tp_mem *mem, struct weft_error *err)
{
	return 0; /* sockets take any memory */
}

static void quic_tp_dereg(struct tp_mem *mem)
{
}

static int quic_tp_connect(struct tp *tp, const struct tp_target *target, struct tp_conn **ret,
	struct weft_error *err)
{
	struct quic_tp *quic = weft_container_of(tp, struct quic_tp, tp);
	struct quic_tp_conn *c;
	int r;

	if (!target->key && !target->certificates)
		return weft_error_set(err, EOPNOTSUPP,
			"QUIC is always encrypted: it wants a key, or certificates");
	if (target->hello.anonymous)
		return weft_error_set(err, EOPNOTSUPP, "QUIC leads to donors of weft alone");
	c = weft_map_bytes(sizeof(*c));
	if (!c)
		return weft_error_set(err, ENOMEM, "cannot connect: out of memory");
	c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (c->epoll_fd < 0 || c->timer_fd < 0)
		r = weft_error_set(err, EMFILE, "cannot connect: no descriptor");
	else
		r = quic_connecting_start(&quic->crew, target, &c->connecting, err);
	if (r < 0) {
		free_conn(c);
		return r;
	}
	*ret = &c->conn;
	return 0;
}

static int watch(const struct quic_tp_conn *c)
{
	struct epoll_event event = {.events = EPOLLIN};

	if (epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->wire->socket.fd, &event) < 0 ||
		epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->timer_fd, &event) < 0)
		return -errno;
	return 0;
}

static void take_handshake(struct quic_tp_conn *c)
{
	struct quic_connecting *connecting = c->connecting;
	int r = 0;

	if (!quic_connecting_is_done(connecting))
		return;
	if (connecting->error.code != 0) {
		memcpy(c->conn.info.moving, connecting->info.moving, sizeof(c->conn.info.moving));
		tp_conn_fail(&c->conn, connecting->error.code, "%s", connecting->error.message);
		return;
	}
	c->wire = connecting->wire;
	connecting->wire = NULL;
	for (unsigned i = 0; i < QUIC_STREAMS && r == 0; i++) {
		const struct nbd_stream stream = {
			.fd = -1,
			.pipe = &c->wire->conn->streams[i].pipe,
		};

		r = nbd_client_begin(&c->clients[i], &c->conn, &stream, connecting->structured,
			&connecting->info, tp_of(c)->depth);
	}
	if (r == 0)
		r = watch(c);
	quic_connecting_put(connecting);
	c->connecting = NULL;
	if (r < 0) {
		tp_conn_fail(&c->conn, -r, "%s", strerror(-r));
		return;
	}
	c->again = ALL_STREAMS;
	c->conn.state = TP_READY;
}

static void quic_tp_shutdown(struct tp_conn *conn)
{
	struct quic_tp_conn *c = conn_of(conn);

	if (c->connecting) {
		quic_connecting_cancel(c->connecting);
		return;
	}
	if (conn->nr_outstanding == 0 && !c->wire->conn->error)
		c->leaving = nbd_client_say_goodbye(&c->clients[0]) &&
			quic_wire_send(c->wire, weft_now_ns()) == 0;
	if (!c->leaving)
		quic_wire_close(c->wire, QUIC_CUT, NULL);
}

static void quic_tp_disconnect(struct tp_conn *conn)
{
	struct quic_tp_conn *c = conn_of(conn);
	struct quic_tp *quic = tp_of(c);

	if (c->connecting) {
		quic_connecting_cancel(c->connecting);
		quic_connecting_put(c->connecting);
	}
	for (unsigned i = 0; i < QUIC_STREAMS; i++)
		nbd_client_end(&c->clients[i]);
	if (c->leaving && weft_crew_run(&quic->crew, see_off, c->wire) == 0)
		c->wire = NULL;
	/* Of one that failed here the donor knows nothing yet. */
	if (c->wire)
		quic_wire_close(c->wire, c->leaving ? QUIC_OVER : QUIC_CUT, NULL);
	free_conn(c);
}

/* ---- operations ---- */

static void fail(struct quic_tp_conn *c, int r)
{
	const struct quic_conn *conn = c->wire->conn;

	if (conn->error)
		tp_conn_fail(&c->conn, -conn->error, "%s: connection lost: %s", c->conn.info.path,
			conn->why.message);
	else
		tp_conn_fail(&c->conn, -r, "%s: connection lost: %s", c->conn.info.path,
			strerror(-r));
}

static void send_all(struct quic_tp_conn *c, uint64_t now_ns)
{
	int r = quic_wire_send(c->wire, now_ns);

	if (r < 0)
		fail(c, r);
}

/* The stream of the next operation. */
static unsigned choose(struct quic_tp_conn *c)
{
	unsigned first = c->next_stream, i = first;

	do {
		if (c->in_flight[i] == 0)
			break;
		i = (i + 1) % QUIC_STREAMS;
	} while (i != first);
	c->next_stream = (i + 1) % QUIC_STREAMS;
	return i;
}

static int quic_tp_post(struct tp_conn *conn, struct tp_op *const *ops, unsigned n)
{
	struct quic_tp_conn *c = conn_of(conn);

	for (unsigned i = 0; i < n; i++) {
		const unsigned stream = choose(c);

		c->in_flight[stream]++;
		nbd_client_post(&c->clients[stream], &ops[i], 1);
	}
	if (conn->state == TP_READY)
		send_all(c, weft_now_ns());
	return (int)n;
}

/* Lets the streams of these bits go on.  How many operations are done. */
static unsigned move_streams(struct quic_tp_conn *c, uint32_t bits, struct tp_op **done,
	unsigned max)
{
	unsigned nr = 0;

	for (; bits && nr < max; bits &= bits - 1) {
		const unsigned i = (unsigned)__builtin_ctz(bits);
		struct nbd_client *client = &c->clients[i];

		client->drained = false; /* more may have come */
		unsigned n = nbd_client_progress(client, done + nr, max - nr);
		c->in_flight[i] -= n;
		nr += n;
		if (c->conn.state == TP_READY && nbd_client_arm(client) == 0)
			c->again |= UINT32_C(1) << i;
	}
	c->again |= bits;
	return nr;
}

static void read_timer(struct quic_tp_conn *c, uint64_t now_ns)
{
	uint64_t count;

	if (!c->armed_ns || now_ns < c->armed_ns)
		return;
	(void)!read(c->timer_fd, &count, sizeof(count));
	c->armed_ns = 0;
}

static int quic_tp_progress(struct tp_conn *conn, struct tp_op **done, unsigned max)
{
	struct quic_tp_conn *c = conn_of(conn);
	unsigned nr = 0;

	if (conn->state == TP_CONNECTING)
		take_handshake(c);
	if (c->connecting)
		return 0;
	if (conn->state == TP_READY) {
		const uint64_t now_ns = weft_now_ns();

		read_timer(c, now_ns);
		int r = quic_wire_receive(c->wire, tp_of(c)->inbox, now_ns);
		if (r < 0)
			fail(c, r);
	}
	if (conn->state == TP_READY) {
		struct quic_conn *quic = c->wire->conn;
		const uint32_t bits = (quic->readable | quic->writable | c->again) & ALL_STREAMS;

		quic->readable = quic->writable = c->again = 0;
		nr = move_streams(c, bits, done, max);
	}
	if (conn->state == TP_READY)
		send_all(c, weft_now_ns());
	/* What is left of a connection that failed comes back. */
	if (conn->state == TP_FAILED && conn->nr_outstanding > nr)
		nr += move_streams(c, ALL_STREAMS, done + nr, max - nr);
	return (int)nr;
}

static int quic_tp_event_fd(struct tp_conn *conn)
{
	struct quic_tp_conn *c = conn_of(conn);

	return c->connecting ? c->connecting->done_fd : c->epoll_fd;
}

static void await_room(struct quic_tp_conn *c)
{
	struct epoll_event event = {.events = EPOLLIN | (c->wire->blocked ? EPOLLOUT : 0u)};

	if (c->awaits_room == c->wire->blocked)
		return;
	c->awaits_room = c->wire->blocked;
	epoll_ctl(c->epoll_fd, EPOLL_CTL_MOD, c->wire->socket.fd, &event);
}

static int arm(struct quic_tp_conn *c)
{
	const uint64_t due_ns = quic_due_ns(c->wire->conn);

	if (c->again)
		return 0;
	await_room(c);
	/* A timer that is due earlier wakes for nothing, once. */
	if (due_ns != UINT64_MAX && (!c->armed_ns || due_ns < c->armed_ns)) {
		/* What is due needs room in the socket as well. */
		if (due_ns <= weft_now_ns())
			return c->wire->blocked ? POLLIN : 0;
		const struct itimerspec at = {
			.it_value.tv_sec = (time_t)(due_ns / 1000000000),
			.it_value.tv_nsec = (long)(due_ns % 1000000000),
		};

		timerfd_settime(c->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
		c->armed_ns = due_ns;
	}
	return POLLIN;
}

static int quic_tp_arm(struct tp_conn *conn)
{
	struct quic_tp_conn *c = conn_of(conn);

	switch (conn->state) {
	case TP_CONNECTING:
		return quic_connecting_is_done(c->connecting) ? 0 : POLLIN;
	case TP_READY:
		return arm(c);
	default:
		return conn->nr_outstanding > 0 ? 0 : POLLIN;
	}
}

const struct tp_ops tp_quic_ops = {
	.name = "quic",
	.any_memory = true, /* sockets take any */
	.proves_keys = true,
	.proves_certificates = true,
	.open = quic_tp_open,
	.close = quic_tp_close,
	.reg = quic_tp_reg,
	.dereg = quic_tp_dereg,
	.connect = quic_tp_connect,
	.shutdown = quic_tp_shutdown,
	.disconnect = quic_tp_disconnect,
	.post = quic_tp_post,
	.progress = quic_tp_progress,
	.event_fd = quic_tp_event_fd,
	.arm = quic_tp_arm,
};
