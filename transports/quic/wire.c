/* SPDX-License-Identifier: MIT */
/* A connection and its socket; see wire.h. */
#include "transports/quic/wire.h"

#include <errno.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"

#define MS_NS UINT64_C(1000000)

enum {
	ROUNDS = 8, /* receives in one call, so that answers leave in between */
	/*
	 * Anybody may forge an ICMP message: it is believed once nothing else came for so long
	 * after it.  A donor is told that of a port which a borrower's NAT has forgotten, too: the
	 * borrower has longer to show where it is now.
	 */
	REFUSED_MS = 500,
	REFUSED_AT_DONOR_MS = 5000,
	RENEW_MS = 100, /* between two looks for another address of ours */
};

static bool is_remote(const struct quic_path *a, const struct quic_path *b)
{
	return a->remote_len == b->remote_len && memcmp(&a->remote, &b->remote, a->remote_len) == 0;
}

static int refused(struct quic_wire *w, uint64_t now_ns)
{
	const uint64_t ms = w->aside ? REFUSED_AT_DONOR_MS : REFUSED_MS;

	if (!w->refused_ns)
		w->refused_ns = now_ns;
	return now_ns - w->refused_ns >= ms * MS_NS || !w->heard_ns ? -ECONNREFUSED : 0;
}

int quic_wire_receive(struct quic_wire *w, struct quic_inbox *inbox, uint64_t now_ns)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct quic_message messages[QUIC_INBOX];
		int nr = quic_socket_receive(&w->socket, inbox, messages);

		if (nr == -ECONNREFUSED) {
			int r = refused(w, now_ns);

			if (r < 0)
				return r;
			continue;
		}
		/* Other words of ICMP's mean as little as datagrams that are lost. */
		if (nr < 0)
			continue;
		for (int i = 0; i < nr; i++) {
			const struct quic_message *m = &messages[i];

			w->refused_ns = 0;
			w->heard_ns = now_ns;
			for (size_t at = 0; at < m->len; at += m->segment) {
				int r = quic_receive(w->conn, &m->path, m->bytes + at,
					weft_min(m->segment, m->len - at), now_ns);

				if (r < 0)
					return r;
			}
		}
		if (nr < QUIC_INBOX)
			return 0;
	}
	return 0;
}

/* A borrower's: nothing leaves from its address any more.  From another one, it goes on. */
static void renew(struct quic_wire *w, uint64_t now_ns)
{
	if (now_ns - w->renewed_ns < RENEW_MS * MS_NS)
		return;
	w->renewed_ns = now_ns;
	if (!quic_socket_renew(&w->socket))
		return;
	int r = quic_migrate(w->conn, &w->socket.path, now_ns);
	weft_debug("another address of ours: %s", r < 0 ? strerror(-r) : "the connection goes on");
}

/* The batch, as far as it goes.  0; -EAGAIN: there is no room; or as quic_wire_receive(). */
static int send_batch(struct quic_wire *w, uint64_t now_ns)
{
	const bool aside = !is_remote(&w->batch.path, &w->socket.path);

	if (aside && !w->aside)
		return 0;
	int r = quic_socket_send(aside ? w->aside : &w->socket, &w->batch, aside);
	switch (r) {
	case -EAGAIN:
		/* Nobody waits for room in the other socket: what had none is lost. */
		w->blocked = !aside;
		if (aside)
			w->batch.sent = w->batch.len;
		return aside ? 0 : -EAGAIN;
	case -ECONNREFUSED:
		return refused(w, now_ns);
	case -EMSGSIZE:
		quic_shrink(w->conn, now_ns);
		return 0;
	case 0:
		return 0;
	default:
		/* It is lost, as if the network had lost it; perhaps our address is gone. */
		if (!w->aside)
			renew(w, now_ns);
		return 0;
	}
}

int quic_wire_send(struct quic_wire *w, uint64_t now_ns)
{
	int r = 0;

	w->blocked = false;
	if (w->batch.sent < w->batch.len)
		r = send_batch(w, now_ns);
	if (r == 0 && quic_due_ns(w->conn) <= now_ns)
		r = quic_expire(w->conn, now_ns);
	while (r == 0) {
		ssize_t n = quic_fill(w->conn, &w->batch, now_ns);

		if (n <= 0)
			return (int)n;
		r = send_batch(w, now_ns);
	}
	return r == -EAGAIN ? 0 : r;
}

void quic_wire_close(struct quic_wire *w, unsigned code, const char *reason)
{
	const uint64_t now_ns = weft_now_ns();

	quic_close(w->conn, code, reason, &w->batch, now_ns);
	if (w->batch.len > 0)
		(void)send_batch(w, now_ns);
}

void quic_wire_fini(struct quic_wire *w)
{
	quic_free(w->conn);
	w->conn = NULL;
	quic_socket_close(&w->socket);
}
