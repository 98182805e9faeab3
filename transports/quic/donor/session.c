/* SPDX-License-Identifier: MIT */
/*
 * What others do to a connection of the donor's: they end it, or put datagrams into its mailbox.
 * Its place in the listener's counts.  run.c is its thread.
 */
#include "transports/quic/donor/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void quic_session_wake(struct quic_session *s)
{
	const uint64_t one = 1;

	/* EAGAIN would mean that it was told already. */
	(void)!write(s->wake_fd, &one, sizeof(one));
}

void quic_session_kill(struct quic_session *s, bool drain)
{
	atomic_store(drain ? &s->draining : &s->killed, true);
	quic_session_wake(s);
}

void quic_session_fence(void *session)
{
	quic_session_kill(session, false);
}

void quic_session_post(struct quic_session *s, const struct quic_path *path,
	const uint8_t *datagram, size_t len)
{
	struct quic_letter *letter = malloc(sizeof(*letter) + len);

	if (!letter)
		return;
	letter->path = *path;
	letter->len = len;
	memcpy(letter->bytes, datagram, len);
	pthread_mutex_lock(&s->mail_lock);
	const bool full = s->nr_letters == QUIC_MAILBOX;
	if (!full)
		s->letters[s->nr_letters++] = letter;
	pthread_mutex_unlock(&s->mail_lock);
	if (full)
		free(letter);
	else
		quic_session_wake(s);
}

int quic_session_count(struct quic_session *s, bool known, struct weft_error *err)
{
	struct quic_listener *l = s->listener;

	pthread_mutex_lock(&l->lock);
	s->counted = l->nr_granted < l->config.max_connections || known;
	l->nr_granted += s->counted;
	l->refused += !s->counted;
	pthread_mutex_unlock(&l->lock);
	if (s->counted)
		return 0;
	return weft_error_set(err, EBUSY,
		"this donor serves %u connections over QUIC, and more only to attachments that it "
		"has already",
		l->config.max_connections);
}

void quic_session_uncount(struct quic_session *s)
{
	pthread_mutex_lock(&s->listener->lock);
	s->listener->nr_granted -= s->counted;
	pthread_mutex_unlock(&s->listener->lock);
	s->counted = false;
}
