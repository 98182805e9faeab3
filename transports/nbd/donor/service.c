/* SPDX-License-Identifier: MIT */
/*
 * A donor's regions as NBD exports: the handshake.  fabric/exports/ has the transmission.
 * Owned by the connection's thread.
 */
#include <errno.h>
#include <string.h>

#include "fabric/base/util.h"
#include "transports/nbd/donor/session.h"

static struct nbd_session *session_of(const struct nbd_conn *conn)
{
	return weft_container_of(nbd_conn_user(conn), struct nbd_session, export);
}

/* ---- handshake ---- */

struct emitter {
	int (*emit)(void *ctx, const char *name, const char *description);
	void *ctx;
};

static int emit_region(void *ctx, const char *name, const char *description, uint64_t size_bytes)
{
	const struct emitter *e = ctx;

	return e->emit(e->ctx, name, description);
}

static int service_list(struct nbd_conn *conn,
	int (*emit)(void *ctx, const char *name, const char *description), void *ctx,
	struct weft_error *err)
{
	struct nbd_session *s = session_of(conn);
	struct emitter e = { emit, ctx };
	int r = nbd_session_begin_list(s);

	if (r < 0)
		return r;
	r = weft_donor_list(s->donor, &s->peer, emit_region, &e, err);
	nbd_session_end_list(s);
	return r;
}

/* Keeps the region until the next question: the engine borrows its strings. */
static int find(struct nbd_session *s, const char *name, struct weft_error *err)
{
	struct weft_region *region;
	int r;

	s->asked_tenure = 0;
	s->asked_by_alias = weft_alias_parse(name, s->asked_alias);
	r = s->asked_by_alias ? weft_donor_find_alias(s->donor, &s->peer, s->asked_alias, &region,
					&s->alias_writes, err)
			      : weft_donor_find(s->donor, &s->peer, name, &region,
					&s->asked_tenure, err);
	if (r < 0)
		return r;
	weft_region_put(s->asked);
	s->asked = region;
	return 0;
}

static int service_info(struct nbd_conn *conn, const char *name, struct nbd_export *ret,
	struct weft_error *err)
{
	struct nbd_session *s = session_of(conn);
	int r;

	r = find(s, name, err);
	if (r == 0)
		weft_export_describe(s->asked,
			s->asked_by_alias ? s->alias_writes
					  : weft_donor_may_write(s->donor, &s->peer, s->asked),
			ret);
	return r;
}

static void live_by_answers(struct nbd_session *s)
{
	struct weft_welcome welcome;

	weft_donor_welcome(s->donor, s->asked, &welcome);
	nbd_session_live_by_answers(s, welcome.lease_ms);
	weft_export_touch(&s->export, 0);
}

static int service_open(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct nbd_export *ret, struct weft_error *err)
{
	struct nbd_session *s = session_of(conn);
	int r;

	r = find(s, name, err);
	if (r == 0 && s->asked_by_alias && !hello->anonymous)
		r = weft_error_set(err, EINVAL, "an alias is for clients that say no hello");
	if (r == 0 && !s->counted)
		r = nbd_session_count(s,
			s->asked_by_alias ||
				weft_donor_knows(s->donor, &s->peer, s->asked, hello),
			err);
	if (r < 0)
		return r;
	struct weft_hello said = *hello;
	said.tenure = s->asked_tenure;
	if (s->asked_by_alias) {
		said.has_alias = true;
		memcpy(said.alias, s->asked_alias, sizeof(said.alias));
	}
	r = weft_donor_grant(s->donor, s->asked, &said, &s->peer, nbd_session_fence, s,
		&s->export.grant, err);
	explicit_bzero(&said, sizeof(said));
	if (r < 0) {
		nbd_session_uncount(s);
		return r;
	}
	if (s->asked_by_alias)
		live_by_answers(s);
	weft_stranger_belongs(&s->stranger);
	s->export.region = s->export.grant->region;
	weft_export_describe(s->export.region, s->export.grant->writable, ret);
	return 0;
}

/* Whether its TLS session is good for coming over another transport. */
static bool give_pass(struct nbd_session *s, const struct nbd_conn *conn)
{
	struct weft_key pass;

	if (!s->peer.certified || s->has_pass || nbd_conn_pass(conn, &pass) < 0)
		return false;
	s->has_pass = weft_donor_keep_pass(s->donor, &s->peer, &pass) == 0;
	weft_key_wipe(&pass);
	return s->has_pass;
}

static int service_welcome(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct weft_welcome *ret)
{
	struct nbd_session *s = session_of(conn);

	if (find(s, name, NULL) < 0 || s->asked_by_alias)
		return -ENOENT;
	/* The donor knows this peer: from now on it does not make room for strangers. */
	if (weft_donor_knows(s->donor, &s->peer, s->asked, hello))
		weft_stranger_belongs(&s->stranger);
	weft_donor_welcome(s->donor, s->asked, ret);
	ret->pass = hello->pass && give_pass(s, conn);
	return 0;
}

static void service_secured(struct nbd_conn *conn)
{
	struct nbd_session *s = session_of(conn);

	strcpy(s->peer.identity, nbd_conn_identity(conn));
	s->peer.life = nbd_conn_key_life(conn);
	s->peer.certified = !s->peer.life;
	s->peer.expires = nbd_conn_expires(conn);
	s->peer.encrypted = true;
	s->peer.transport = nbd_conn_in_kernel(conn) ? "tcp+ktls" : "tcp+tls";
}

static void service_kept_out(struct nbd_conn *conn, const struct weft_error *why)
{
	nbd_session_kept_out(session_of(conn), why);
}

static uint64_t service_tenure(struct nbd_conn *conn, const char *name)
{
	struct nbd_session *s = session_of(conn);

	if (find(s, name, NULL) < 0 || s->asked_by_alias)
		return 0;
	return weft_donor_tenure(s->donor, s->asked);
}

static int service_question(struct nbd_conn *conn, const char *json, size_t len, char **ret,
	struct weft_error *err)
{
	struct nbd_session *s = session_of(conn);
	int r = weft_donor_question(s->donor, &s->peer, json, len, ret, err);

	/*
	 * It asks again and again.  If it has proved who it is, it need not make room for strangers
	 * meanwhile: as long as there is a place, it counts as one that was granted something.
	 */
	if (r == 0 && !s->counted && (s->peer.identity[0] || s->peer.has_uid) &&
		nbd_session_count(s, false, NULL) == 0)
		weft_stranger_belongs(&s->stranger);
	return r;
}

static void service_close(struct nbd_conn *conn, bool clean)
{
	struct nbd_session *s = session_of(conn);

	if (s->export.by_alias)
		weft_grant_touch(s->export.grant, nbd_session_answered_ns(s));
	weft_grant_release(s->export.grant, clean);
	nbd_session_uncount(s);
	s->export.grant = NULL;
	s->export.region = NULL;
}

const struct nbd_service nbd_donor_service = {
	.list = service_list,
	.info = service_info,
	.open = service_open,
	.welcome = service_welcome,
	.tenure = service_tenure,
	.question = service_question,
	.secured = service_secured,
	.kept_out = service_kept_out,
	.prepare = weft_export_prepare,
	.take = weft_export_take,
	.submit = weft_export_submit,
	.release = weft_export_release,
	.close = service_close,
	.received = weft_export_received,
	.hashes = true,
};
