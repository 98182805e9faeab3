/* SPDX-License-Identifier: MIT */
/* Datagrams of a connection, in and out, and how large they are; see quic.h. */
#include <errno.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "transports/quic/quic-private.h"

enum {
	STUCK_MS = 300,        /* nothing of a stream arrives: its datagrams may be too large … */
	STUCK_AT_FIRST_MS = 100, /* … if none so large has arrived yet … */
	STUCK_PTOS = 3,        /* … once so many probes of them were lost too */
	GROW_MS = 600000,      /* until larger ones are tried again */
	TURN_BYTES = 64 << 10, /* of a stream, before others */
	FRAMING_BYTES = 100,   /* of a datagram that carries a stream, at most, but for receipts */
};

/* Sizes of datagrams, between the largest and the least. */
static const size_t steps[] = {QUIC_MOST_BYTES, 4080, 1452, 1360, QUIC_LEAST_BYTES};

/*
 * ngtcp2 0.12 ends the process when a client is back where it was before the path to where it went
 * is validated (it would look for a larger packet size then, which is off).  So to ngtcp2 each stay
 * of a client at an address is a path of its own: the port of ours, which ngtcp2 only compares, has
 * the stay's number.  No two stays have the same one, as each takes one of a client's few ids.
 */
static void from_path(const struct quic_conn *c, struct quic_path *ret, const ngtcp2_path *path)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(&ret->local, path->local.addr, path->local.addrlen);
	memcpy(&ret->remote, path->remote.addr, path->remote.addrlen);
	ret->local_len = path->local.addrlen;
	ret->remote_len = path->remote.addrlen;
	if (c->is_server)
		*quic_port_of(&ret->local) = c->port;
}

/* As ngtcp2 has it: address and port. */
static bool is_same(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;
	const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;

	if (a->ss_family != b->ss_family || a6->sin6_port != b6->sin6_port)
		return false;
	return a->ss_family == AF_INET6 ? IN6_ARE_ADDR_EQUAL(&a6->sin6_addr, &b6->sin6_addr)
					: a4->sin_addr.s_addr == b4->sin_addr.s_addr;
}

static bool is_same_path(const struct quic_path *a, const struct quic_path *b)
{
	return is_same(&a->remote, &b->remote) && is_same(&a->local, &b->local);
}

static void look_at_path(struct quic_conn *c)
{
	const ngtcp2_path *path = ngtcp2_conn_get_path(c->ngtcp2);
	const uint16_t stay = *quic_port_of((struct sockaddr_storage *)path->local.addr);
	struct quic_path now;

	if (c->is_server && stay != c->stay) {
		c->stay = stay;
		c->next_stay++;
	}
	from_path(c, &now, path);
	if (!is_same_path(&now, &c->path))
		c->path = now;
}

int quic_receive(struct quic_conn *c, const struct quic_path *path, const uint8_t *datagram,
	size_t len, uint64_t now_ns)
{
	const ngtcp2_pkt_info info = {.ecn = NGTCP2_ECN_NOT_ECT};
	ngtcp2_path on = to_path(path);
	struct sockaddr_storage local;

	if (c->error)
		return c->error;
	c->now_ns = now_ns;
	if (c->is_server) {
		memcpy(&local, &path->local, path->local_len);
		*quic_port_of(&local) = is_same_path(path, &c->path) ? c->stay : c->next_stay;
		on.local.addr = (struct sockaddr *)&local;
	}
	quic_set_receiving(c);
	int r = ngtcp2_conn_read_pkt(c->ngtcp2, &on, &info, datagram, len, now_ns);
	quic_set_receiving(NULL);
	if (r != 0) {
		quic_fail(c, r);
		/* It was to be taken for the peer's, which may be nowhere else to be told of it. */
		if (c->moved_too_often)
			c->path = *path;
		return c->error;
	}
	look_at_path(c);
	return 0;
}

void quic_shrink(struct quic_conn *c, uint64_t now_ns)
{
	size_t smaller = QUIC_LEAST_BYTES;

	for (unsigned n = WEFT_ARRAY_LEN(steps); n-- > 0;)
		if (steps[n] < c->packet_bytes)
			smaller = steps[n];
	weft_debug("datagrams of %zu bytes do not arrive: %zu", c->packet_bytes, smaller);
	quic_set_packet_bytes(c, smaller);
	c->grow_ns = now_ns + GROW_MS * MS_NS;
	for (unsigned i = 0; i < QUIC_STREAMS; i++)
		if (c->streams[i].waits_ns)
			c->streams[i].waits_ns = now_ns;
}

/* If nothing of a stream arrives, smaller datagrams may: others may be too large for the path. */
static void shrink_if_stuck(struct quic_conn *c, uint64_t now_ns)
{
	const uint64_t least_ms = c->size_works ? STUCK_MS : STUCK_AT_FIRST_MS;
	const uint64_t wait_ns =
		weft_max(least_ms * MS_NS, STUCK_PTOS * ngtcp2_conn_get_pto(c->ngtcp2));

	if (c->packet_bytes == QUIC_LEAST_BYTES)
		return;
	for (unsigned i = 0; i < QUIC_STREAMS; i++)
		if (c->streams[i].waits_ns && now_ns - c->streams[i].waits_ns >= wait_ns) {
			quic_shrink(c, now_ns);
			return;
		}
}

static void grow(struct quic_conn *c, uint64_t now_ns)
{
	for (unsigned n = WEFT_ARRAY_LEN(steps); n-- > 0;) {
		if (steps[n] <= c->packet_bytes)
			continue;
		quic_set_packet_bytes(c, weft_min(steps[n], c->most_packet_bytes));
		break;
	}
	c->grow_ns = c->packet_bytes < c->most_packet_bytes ? now_ns + GROW_MS * MS_NS : 0;
}

int quic_expire(struct quic_conn *c, uint64_t now_ns)
{
	if (c->error)
		return c->error;
	c->now_ns = now_ns;
	shrink_if_stuck(c, now_ns);
	if (c->grow_ns && now_ns >= c->grow_ns)
		grow(c, now_ns);
	int r = ngtcp2_conn_handle_expiry(c->ngtcp2, now_ns);
	return r != 0 ? quic_fail(c, r) : 0;
}

uint64_t quic_due_ns(const struct quic_conn *c)
{
	return c->error ? UINT64_MAX : ngtcp2_conn_get_expiry(c->ngtcp2);
}

/* The next stream that has bytes, from next_stream on, and is none of those passed over. */
static struct quic_stream *next_to_send(struct quic_conn *c, uint32_t passed)
{
	for (unsigned i = 0; i < QUIC_STREAMS; i++) {
		struct quic_stream *s = &c->streams[(c->next_stream + i) % QUIC_STREAMS];

		if (s->sent < s->tx.tail && !(passed & bit_of(s)))
			return s;
	}
	return NULL;
}

/* What was begun is ended first, as far as a stream's turn goes. */
static void take_turn(struct quic_conn *c, const struct quic_stream *s, size_t len)
{
	const unsigned nr = (unsigned)(s - c->streams);

	c->turn_bytes = nr == c->next_stream ? c->turn_bytes + len : len;
	c->next_stream = nr;
	if (c->turn_bytes < TURN_BYTES)
		return;
	c->next_stream = (nr + 1) % QUIC_STREAMS;
	c->turn_bytes = 0;
}

/* A datagram of len bytes is made, of which so many are the last of those that s has sent. */
static void note_trial(struct quic_conn *c, struct quic_stream *s, size_t taken, size_t len)
{
	if (c->size_works || c->trial || len < c->packet_bytes || taken + FRAMING_BYTES < len)
		return;
	c->trial = s;
	c->trial_end = s->sent;
}

/* One datagram into buf.  Its length; 0: none may leave now; or one of ngtcp2's errors. */
static ngtcp2_ssize make_datagram(struct quic_conn *c, uint8_t *buf, uint32_t *io_passed,
	ngtcp2_path *path, uint64_t now_ns)
{
	ngtcp2_pkt_info info;

	for (;;) {
		struct quic_stream *s = next_to_send(c, *io_passed);
		struct iovec from[2];
		ngtcp2_vec vec[2];
		ngtcp2_ssize taken = -1;
		unsigned nr = 0;

		if (s)
			nr = quic_ring_at(&s->tx, s->sent, (size_t)(s->tx.tail - s->sent), from);
		for (unsigned i = 0; i < nr; i++)
			vec[i] = (ngtcp2_vec){.base = from[i].iov_base, .len = from[i].iov_len};
		ngtcp2_ssize n = ngtcp2_conn_writev_stream(c->ngtcp2, path, &info, buf,
			c->packet_bytes, &taken,
			s ? NGTCP2_WRITE_STREAM_FLAG_MORE : NGTCP2_WRITE_STREAM_FLAG_NONE,
			s ? id_of(s) : -1, vec, nr, now_ns);
		if (s && taken > 0) {
			s->sent += (uint64_t)taken;
			if (!s->waits_ns)
				s->waits_ns = now_ns;
			take_turn(c, s, (size_t)taken);
		}
		switch (n) {
		case NGTCP2_ERR_WRITE_MORE:
			break;
		case NGTCP2_ERR_STREAM_DATA_BLOCKED:
		case NGTCP2_ERR_STREAM_SHUT_WR:
		case NGTCP2_ERR_STREAM_NOT_FOUND:
			*io_passed |= bit_of(s);
			break;
		default:
			if (n > 0 && taken > 0)
				note_trial(c, s, (size_t)taken, (size_t)n);
			return n;
		}
	}
}

ssize_t quic_fill(struct quic_conn *c, struct quic_batch *batch, uint64_t now_ns)
{
	const size_t quantum =
		weft_min(ngtcp2_conn_get_send_quantum(c->ngtcp2), QUIC_BATCH_BYTES);
	ngtcp2_path_storage path;
	uint32_t passed = 0;

	batch->len = batch->sent = 0;
	if (c->error)
		return c->error;
	c->now_ns = now_ns;
	if (c->carry_len > 0) {
		memmove(batch->bytes, batch->bytes + c->carry_at, c->carry_len);
		batch->len = batch->segment = c->carry_len;
		batch->path = c->carry_path;
		c->carry_len = 0;
	}
	for (unsigned nr = batch->len > 0; nr < QUIC_BATCH_PACKETS; nr++) {
		struct quic_path to;

		if (nr > 0 && batch->len + batch->segment > weft_max(quantum, batch->segment))
			break;
		ngtcp2_path_storage_zero(&path);
		ngtcp2_ssize n = make_datagram(c, batch->bytes + batch->len, &passed, &path.path,
			now_ns);
		if (n < 0)
			return quic_fail(c, (int)n);
		if (n == 0)
			break;
		from_path(c, &to, &path.path);
		if (nr == 0) {
			batch->segment = (size_t)n;
			batch->path = to;
		} else if ((size_t)n > batch->segment || !is_same_path(&to, &batch->path)) {
			c->carry_at = batch->len;
			c->carry_len = (size_t)n;
			c->carry_path = to;
			break;
		}
		batch->len += (size_t)n;
		if ((size_t)n < batch->segment)
			break;
	}
	ngtcp2_conn_update_pkt_tx_time(c->ngtcp2, now_ns);
	look_at_path(c);
	return (ssize_t)batch->len;
}

int quic_migrate(struct quic_conn *c, const struct quic_path *path, uint64_t now_ns)
{
	const ngtcp2_path to = to_path(path);
	int r;

	if (c->error)
		return c->error;
	r = ngtcp2_conn_initiate_immediate_migration(c->ngtcp2, &to, now_ns);
	if (r == NGTCP2_ERR_NOMEM)
		return -ENOMEM;
	if (r != 0)
		return -EAGAIN; /* the peer has given no other id to be known by yet */
	look_at_path(c);
	return 0;
}
