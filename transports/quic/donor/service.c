/* SPDX-License-Identifier: MIT */
/*
 * A donor's regions over QUIC: the handshake, which weft's borrowers alone have here.  What others
 * ask of a donor is answered over TCP.  fabric/exports/ has the transmission.
 * Owned by the session's thread.
 */
#include <errno.h>
#include <string.h>

#include "fabric/base/util.h"
#include "transports/quic/donor/session.h"

/* The first export's: questions come over the first stream alone. */
static struct quic_session *session_of(const struct nbd_conn *conn)
{
	return weft_container_of(nbd_conn_user(conn), struct quic_session, exports[0]);
}

static int service_list(struct nbd_conn *conn,
	int (*emit)(void *ctx, const char *name, const char *description), void *ctx,
	struct weft_error *err)
{
	return weft_error_set(err, EPERM, "regions are listed over TCP");
}

/* Keeps the region until the next question: the engine borrows its strings. */
static int find(struct quic_session *s, const char *name, struct weft_error *err)
{
	struct weft_region *region;
	int r = weft_donor_find(s->listener->donor, &s->peer, name, &region, &s->asked_tenure, err);

	if (r < 0)
		return r;
	weft_region_put(s->asked);
	s->asked = region;
	return 0;
}

static int service_info(struct nbd_conn *conn, const char *name, struct nbd_export *ret,
	struct weft_error *err)
{
	struct quic_session *s = session_of(conn);
	int r = find(s, name, err);

	if (r == 0)
		weft_export_describe(s->asked,
			weft_donor_may_write(s->listener->donor, &s->peer, s->asked), ret);
	return r;
}

static int service_welcome(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct weft_welcome *ret)
{
	struct quic_session *s = session_of(conn);

	if (find(s, name, NULL) < 0)
		return -ENOENT;
	/* The donor knows this peer: from now on it does not make room for strangers. */
	if (weft_donor_knows(s->listener->donor, &s->peer, s->asked, hello))
		weft_stranger_belongs(&s->stranger);
	weft_donor_welcome(s->listener->donor, s->asked, ret);
	return 0;
}

static int service_open(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct nbd_export *ret, struct weft_error *err)
{
	struct quic_session *s = session_of(conn);
	struct weft_donor *donor = s->listener->donor;
	int r = find(s, name, err);

	if (r == 0 && hello->anonymous)
		r = weft_error_set(err, EPERM, "QUIC is for weft's borrowers alone");
	if (r == 0)
		r = quic_session_count(s, weft_donor_knows(donor, &s->peer, s->asked, hello), err);
	if (r < 0)
		return r;
	struct weft_hello said = *hello;
	said.tenure = s->asked_tenure;
	/* The sessions that it supersedes may be in a disk. */
	quic_keeper_lend(s);
	r = weft_donor_grant(donor, s->asked, &said, &s->peer, quic_session_fence, s, &s->grant,
		err);
	quic_keeper_take_back(s);
	explicit_bzero(&said, sizeof(said));
	if (r < 0) {
		quic_session_uncount(s);
		return r;
	}
	weft_stranger_belongs(&s->stranger);
	s->exports[0].grant = s->grant;
	s->exports[0].region = s->grant->region;
	weft_export_describe(s->grant->region, s->grant->writable, ret);
	return 0;
}

/* The first stream's connection is the last to end. */
static void service_close(struct nbd_conn *conn, bool clean)
{
	struct weft_export *export = nbd_conn_user(conn);
	struct quic_session *s = export->session;

	if (export != &s->exports[0])
		return;
	weft_grant_release(s->grant, clean && !s->cut_off);
	quic_session_uncount(s);
	s->grant = NULL;
}

const struct nbd_service quic_donor_service = {
	.list = service_list,
	.info = service_info,
	.open = service_open,
	.welcome = service_welcome,
	.prepare = weft_export_prepare,
	.take = weft_export_take,
	.submit = weft_export_submit,
	.release = weft_export_release,
	.received = weft_export_received,
	.close = service_close,
	.hashes = true,
};
