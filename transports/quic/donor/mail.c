/* SPDX-License-Identifier: MIT */
/*
 * Datagrams of a connection that came by the listener's socket, since the peer sends from another
 * address than the one that the connection's socket knows; and taking in all that came.  Owned by
 * the session's thread, or by the keeper (keeper.c).
 */
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "transports/quic/donor/session.h"

static void say_where(const struct quic_session *s, const struct quic_path *path)
{
	char host[NI_MAXHOST] = "?";

	(void)getnameinfo((const struct sockaddr *)&path->remote, path->remote_len, host,
		sizeof(host), NULL, 0, NI_NUMERICHOST);
	weft_debug("%s may not be at %s", s->peer.text, host);
}

/*
 * Whether the peer may be at that address: its key says from where it may be used.  Until the peer
 * is known, there is no other address than that of its first datagram.
 */
static bool may_be_at(const struct quic_session *s, const struct quic_path *path)
{
	struct weft_peer there = s->peer;

	if (path->remote_len == s->wire.socket.path.remote_len &&
		memcmp(&path->remote, &s->wire.socket.path.remote, path->remote_len) == 0)
		return true;
	memcpy(&there.address, &path->remote, sizeof(there.address));
	if (s->is_known && weft_donor_let_in(s->listener->donor, &there, NULL) == 0)
		return true;
	say_where(s, path);
	return false;
}

int quic_session_read_mail(struct quic_session *s, uint64_t now_ns)
{
	struct quic_letter *letters[QUIC_MAILBOX];
	uint64_t count;
	unsigned nr;
	int r = 0;

	(void)!read(s->wake_fd, &count, sizeof(count));
	pthread_mutex_lock(&s->mail_lock);
	nr = s->nr_letters;
	memcpy(letters, s->letters, nr * sizeof(letters[0]));
	s->nr_letters = 0;
	pthread_mutex_unlock(&s->mail_lock);
	for (unsigned i = 0; i < nr; i++) {
		const struct quic_letter *letter = letters[i];

		if (r == 0 && may_be_at(s, &letter->path)) {
			/* Its old address may refuse what is sent there: it is not gone. */
			s->wire.refused_ns = 0;
			r = quic_receive(s->wire.conn, &letter->path, letter->bytes, letter->len,
				now_ns);
		}
		free(letters[i]);
	}
	return r;
}

void quic_session_keep_up(struct quic_session *s)
{
	const uint64_t now_ns = weft_now_ns();

	/* Of a connection that is over the mail is thrown away. */
	if (quic_session_read_mail(s, now_ns) == 0 && !s->wire.conn->error &&
		quic_wire_receive(&s->wire, s->inbox, now_ns) == 0)
		(void)quic_wire_send(&s->wire, weft_now_ns());
}
