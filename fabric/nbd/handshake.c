/* SPDX-License-Identifier: MIT */
/*
 * The handshake: option haggling of the fixed newstyle negotiation (proto, "Handshake phase").
 * Owned by the connection's thread.  One option at a time: the next is looked at when the last
 * one's reply has left, so that a peer who only asks cannot make replies pile up.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/nbd/conn.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"

enum { EXPORT_NAME_PADDING = 124, CLIENT_FLAGS_BYTES = 4 };

/* ---- what an option's payload consists of ---- */

struct cursor {
	const uint8_t *p;
	size_t left;
};

static bool get32(struct cursor *c, uint32_t *ret)
{
	if (c->left < 4)
		return false;
	*ret = weft_get32(c->p);
	c->p += 4;
	c->left -= 4;
	return true;
}

/* A 32-bit length and that many bytes. */
static bool get_string(struct cursor *c, const uint8_t **ret, uint32_t *ret_len)
{
	uint32_t len;

	if (!get32(c, &len) || len > c->left)
		return false;
	*ret = c->p;
	*ret_len = len;
	c->p += len;
	c->left -= len;
	return true;
}

/* An export name into conn->name: at most NBD_MAX_STRING bytes, none of them NUL. */
static bool set_name(struct nbd_conn *conn, const uint8_t *bytes, uint32_t len)
{
	if (len > NBD_MAX_STRING || memchr(bytes, 0, len))
		return false;
	memcpy(conn->name, bytes, len);
	conn->name[len] = 0;
	return true;
}

static bool get_name(struct nbd_conn *conn, struct cursor *c)
{
	const uint8_t *name;
	uint32_t len;

	return get_string(c, &name, &len) && set_name(conn, name, len);
}

/* ---- options ---- */

struct listing {
	struct nbd_conn *conn;
	int error;
};

/* A peer that asks and takes in no answers costs no more than what is kept.  0, or -errno. */
static int keep_few(struct nbd_conn *conn)
{
	if (conn->tx_len < NBD_KEPT_OPTION_REPLIES || !conn->step_ms)
		return 0;
	int r = nbd_conn_flush(conn, conn->step_ms);
	if (r == 0)
		conn->option_start = 0;
	return r;
}

static int emit_export(void *ctx, const char *name, const char *description)
{
	struct listing *listing = ctx;
	struct nbd_conn *conn = listing->conn;
	const size_t name_len = strlen(name);
	const size_t desc_len = description ? strnlen(description, NBD_MAX_STRING) : 0;
	uint8_t *data;

	if (name_len > NBD_MAX_STRING)
		return 0;
	if (conn->tx_len + name_len + desc_len > NBD_MAX_OPTION_REPLIES)
		return listing->error = -EMSGSIZE;
	listing->error = keep_few(conn);
	if (listing->error)
		return listing->error;
	listing->error = nbd_option_reply_data(conn, NBD_REP_SERVER,
		(uint32_t)(4 + name_len + desc_len), &data);
	if (listing->error)
		return listing->error;
	weft_put32(data, (uint32_t)name_len);
	memcpy(data + 4, name, name_len);
	if (desc_len > 0)
		memcpy(data + 4 + name_len, description, desc_len);
	return 0;
}

static int option_list(struct nbd_conn *conn, struct cursor *c)
{
	struct listing listing = { .conn = conn };
	struct weft_error err = { 0 };
	int r;

	if (c->left > 0)
		return nbd_option_error(conn, NBD_REP_ERR_INVALID, "LIST takes no data");
	r = conn->service->list(conn, emit_export, &listing, &err);
	if (listing.error == -EMSGSIZE)
		return nbd_option_error(conn, NBD_REP_ERR_TOO_BIG, "too many exports to list");
	if (listing.error)
		return listing.error;
	/* Those that were listed are told: the client sees by the error that there are more. */
	if (r == -E2BIG)
		return nbd_option_reply(conn, NBD_REP_ERR_TOO_BIG,
			"there are more exports than are listed");
	if (r < 0)
		return nbd_option_refuse(conn, r, &err);
	return nbd_option_reply(conn, NBD_REP_ACK, NULL);
}

/* What a service fills in is made to hold: the rest relies on it. */
static void tidy_export(struct nbd_conn *conn, struct nbd_export *export)
{
	if (export->max_block_bytes == 0 || export->max_block_bytes > NBD_MAX_PAYLOAD)
		export->max_block_bytes = NBD_MAX_PAYLOAD;
	if (export->min_block_bytes == 0)
		export->min_block_bytes = 1;
	if (export->preferred_block_bytes < export->min_block_bytes)
		export->preferred_block_bytes = weft_max(export->min_block_bytes, 4096);
	export->flags |= NBD_FLAG_HAS_FLAGS;
	export->flags &= (uint16_t)~NBD_FLAG_SEND_DF;
	if (conn->structured)
		export->flags |= NBD_FLAG_SEND_DF;
}

static int reply_info_string(struct nbd_conn *conn, uint16_t type, const char *text)
{
	const size_t len = strnlen(text, NBD_MAX_STRING);
	uint8_t *data;

	if (nbd_option_reply_data(conn, NBD_REP_INFO, (uint32_t)(2 + len), &data) < 0)
		return -ENOMEM;
	weft_put16(data, type);
	memcpy(data + 2, text, len);
	return 0;
}

/* proto, NBD_REP_INFO: the export itself, and what else was asked for. */
static int reply_infos(struct nbd_conn *conn, const struct nbd_export *export, unsigned wanted)
{
	uint8_t *data;
	int r = 0;

	if (nbd_option_reply_data(conn, NBD_REP_INFO, 12, &data) < 0)
		return -ENOMEM;
	weft_put16(data, NBD_INFO_EXPORT);
	weft_put64(data + 2, export->size_bytes);
	weft_put16(data + 10, export->flags);
	if (wanted & 1u << NBD_INFO_BLOCK_SIZE) {
		if (nbd_option_reply_data(conn, NBD_REP_INFO, 14, &data) < 0)
			return -ENOMEM;
		weft_put16(data, NBD_INFO_BLOCK_SIZE);
		weft_put32(data + 2, export->min_block_bytes);
		weft_put32(data + 6, export->preferred_block_bytes);
		weft_put32(data + 10, export->max_block_bytes);
	}
	if (wanted & 1u << NBD_INFO_NAME)
		r = reply_info_string(conn, NBD_INFO_NAME,
			export->name ? export->name : conn->name);
	if (r == 0 && (wanted & 1u << NBD_INFO_DESCRIPTION) && export->description)
		r = reply_info_string(conn, NBD_INFO_DESCRIPTION, export->description);
	return r;
}

/*
 * Grants conn->name.  Contexts and hello count only if they were for this very export
 * (proto, NBD_OPT_SET_META_CONTEXT).
 */
static int open_export(struct nbd_conn *conn, struct weft_error *err)
{
	const struct weft_hello anonymous = { .anonymous = true };
	int r;

	/* Whoever says that has not seen yet whether the hello was accepted. */
	if (conn->service->welcome && strcmp(conn->name, WEFT_EXPORT_SESSION) == 0) {
		if (!conn->have_hello)
			return weft_error_set(err, ENOENT, "no hello was accepted");
		strcpy(conn->name, conn->context_name);
	}
	if (strcmp(conn->name, conn->context_name) != 0) {
		conn->contexts = 0;
		conn->have_hello = false;
	}
	r = conn->service->open(conn, conn->name, conn->have_hello ? &conn->hello : &anonymous,
		&conn->export, err);
	if (r < 0)
		return r;
	conn->opened = true;
	tidy_export(conn, &conn->export);
	return 0;
}

static void enter_transmission(struct nbd_conn *conn)
{
	conn->export.name = conn->export.description = NULL;
	explicit_bzero(&conn->hello, sizeof(conn->hello));
	conn->phase = NBD_REQUEST;
	nbd_stream_may_go_far(&conn->stream);
}

/* proto, NBD_OPT_INFO and NBD_OPT_GO */
static int option_info(struct nbd_conn *conn, struct cursor *c)
{
	const bool go = conn->option.option == NBD_OPT_GO;
	struct nbd_export export = { 0 };
	struct weft_error err = { 0 };
	unsigned wanted = 0;
	int r;

	if (!get_name(conn, c) || c->left < 2 || c->left != 2 + 2 * (size_t)weft_get16(c->p))
		return nbd_option_error(conn, NBD_REP_ERR_INVALID, "malformed INFO or GO");
	for (size_t at = 2; at < c->left; at += 2) {
		uint16_t info = weft_get16(c->p + at);

		if (info <= NBD_INFO_BLOCK_SIZE)
			wanted |= 1u << info;
	}
	if (go) {
		r = open_export(conn, &err);
		export = conn->export;
	} else {
		r = conn->service->info(conn, conn->name, &export, &err);
		tidy_export(conn, &export);
	}
	if (r < 0)
		return nbd_option_refuse(conn, r, &err);
	r = reply_infos(conn, &export, wanted);
	if (r == 0)
		r = nbd_option_reply(conn, NBD_REP_ACK, NULL);
	if (r == 0 && go)
		enter_transmission(conn);
	return r;
}

/* proto, NBD_OPT_EXPORT_NAME: cannot say no but by hanging up. */
static int option_export_name(struct nbd_conn *conn, struct cursor *c)
{
	struct weft_error err = { 0 };
	uint8_t *p;

	if (!set_name(conn, c->p, (uint32_t)c->left))
		return -EPROTO;
	if (open_export(conn, &err) < 0)
		return -ECONNABORTED;
	const size_t padding = conn->no_zeroes ? 0 : EXPORT_NAME_PADDING;
	p = nbd_tx_append(conn, 10 + padding);
	if (!p)
		return -ENOMEM;
	weft_put64(p, conn->export.size_bytes);
	weft_put16(p + 8, conn->export.flags);
	memset(p + 10, 0, padding);
	enter_transmission(conn);
	return 0;
}

static int reply_context(struct nbd_conn *conn, uint32_t id, const char *name)
{
	const size_t len = strlen(name);
	uint8_t *data;

	if (nbd_option_reply_data(conn, NBD_REP_META_CONTEXT, (uint32_t)(4 + len), &data) < 0)
		return -ENOMEM;
	weft_put32(data, id);
	memcpy(data + 4, name, len);
	return 0;
}

static bool query_is(const uint8_t *query, uint32_t len, const char *text)
{
	return len == strlen(text) && memcmp(query, text, len) == 0;
}

static bool query_begins(const uint8_t *query, uint32_t len, const char *text)
{
	return len >= strlen(text) && memcmp(query, text, strlen(text)) == 0;
}

/*
 * weft:session:… : at most one per option.  0, 1: it selects our context; -EINVAL: malformed;
 * -ENOENT; -EPROTONOSUPPORT, with err.
 */
static int query_session(struct nbd_conn *conn, const uint8_t *query, uint32_t len,
	struct weft_hello *ret_hello, char *ret_grant, struct weft_error *err)
{
	struct weft_welcome welcome = { 0 };
	int r;

	if (!conn->service->welcome)
		return 0;
	r = weft_hello_parse((const char *)query, len, ret_hello, err);
	if (r < 0)
		return r;
	r = conn->service->welcome(conn, conn->name, ret_hello, &welcome);
	if (r < 0)
		return r;
	welcome.version0 = ret_hello->version0;
	weft_welcome_format(&welcome, ret_grant);
	return 1;
}

/* weft:tenure: : told, never selected. */
static int reply_tenure(struct nbd_conn *conn)
{
	char name[sizeof(WEFT_CONTEXT_TENURE) + 16];
	uint64_t tenure = conn->service->tenure ? conn->service->tenure(conn, conn->name) : 0;

	if (!tenure)
		return 0;
	snprintf(name, sizeof(name), WEFT_CONTEXT_TENURE "%016" PRIx64, tenure);
	return reply_context(conn, 0, name);
}

/* proto, NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT */
static int option_context(struct nbd_conn *conn, struct cursor *c)
{
	const bool set = conn->option.option == NBD_OPT_SET_META_CONTEXT;
	struct nbd_export export = { 0 };
	struct weft_error err = { 0 };
	struct weft_hello hello;
	bool tell_tenure = false;
	uint8_t selected = 0;
	uint32_t nr;
	int r;

	if (set) {
		conn->contexts = 0;
		conn->have_hello = false;
	}
	if (!conn->structured)
		return nbd_option_error(conn, NBD_REP_ERR_INVALID,
			"needs structured replies first");
	if (!get_name(conn, c) || !get32(c, &nr))
		return nbd_option_error(conn, NBD_REP_ERR_INVALID, "malformed meta context option");
	r = conn->service->info(conn, conn->name, &export, &err);
	if (r < 0)
		return nbd_option_refuse(conn, r, &err);
	if (nr == 0 && !set)
		selected = NBD_CONTEXT_ALLOCATION;
	for (; nr > 0; nr--) {
		const uint8_t *query;
		uint32_t len;

		if (!get_string(c, &query, &len))
			return nbd_option_error(conn, NBD_REP_ERR_INVALID, "malformed query");
		if (query_is(query, len, "base:allocation") ||
			(!set && query_is(query, len, "base:"))) {
			selected |= NBD_CONTEXT_ALLOCATION;
		} else if (query_begins(query, len, WEFT_CONTEXT_SESSION)) {
			if (selected & NBD_CONTEXT_GRANT)
				return nbd_option_error(conn, NBD_REP_ERR_INVALID,
					"more than one session");
			r = query_session(conn, query, len, &hello, conn->grant, &err);
			if (r == -ENOENT || r == -EPROTONOSUPPORT)
				return nbd_option_refuse(conn, r, &err);
			if (r < 0)
				return nbd_option_error(conn, NBD_REP_ERR_INVALID,
					"malformed weft:session");
			selected |= r ? NBD_CONTEXT_GRANT : 0;
		} else if (!set && query_is(query, len, WEFT_CONTEXT_TENURE)) {
			tell_tenure = true;
		}
	}
	if (c->left > 0)
		return nbd_option_error(conn, NBD_REP_ERR_INVALID, "bytes after the last query");
	r = 0;
	if (selected & NBD_CONTEXT_ALLOCATION)
		r = reply_context(conn, set ? NBD_CONTEXT_ALLOCATION : 0, "base:allocation");
	if (r == 0 && (selected & NBD_CONTEXT_GRANT))
		r = reply_context(conn, set ? NBD_CONTEXT_GRANT : 0, conn->grant);
	if (r == 0 && tell_tenure)
		r = reply_tenure(conn);
	if (r == 0)
		r = nbd_option_reply(conn, NBD_REP_ACK, NULL);
	if (r == 0 && set) {
		conn->contexts = selected;
		strcpy(conn->context_name, conn->name);
		if (selected & NBD_CONTEXT_GRANT) {
			conn->hello = hello;
			conn->have_hello = true;
		}
	}
	return r;
}

static int option_structured_reply(struct nbd_conn *conn, struct cursor *c)
{
	if (c->left > 0)
		return nbd_option_error(conn, NBD_REP_ERR_INVALID,
			"STRUCTURED_REPLY takes no data");
	conn->structured = true;
	return nbd_option_reply(conn, NBD_REP_ACK, NULL);
}

static int reply_answer(struct nbd_conn *conn, const char *answer, size_t len)
{
	int r = 0;

	for (size_t at = 0, n; r == 0 && at < len; at += n) {
		uint8_t *data;

		n = weft_min(len - at, NBD_MAX_ANSWER_PIECE);
		r = keep_few(conn);
		if (r == 0)
			r = nbd_option_reply_data(conn, NBD_REP_WEFT_ANSWER, (uint32_t)n, &data);
		if (r == 0)
			memcpy(data, answer + at, n);
	}
	return r < 0 ? r : nbd_option_reply(conn, NBD_REP_ACK, NULL);
}

static int option_question(struct nbd_conn *conn, struct cursor *c)
{
	struct weft_error err = { 0 };
	char *answer;
	int r = conn->service->question(conn, (const char *)c->p, c->left, &answer, &err);

	if (r == -ENOSYS)
		return nbd_option_error(conn, NBD_REP_ERR_UNSUP,
			"such a question is not answered here");
	if (r < 0)
		return nbd_option_refuse(conn, r, &err);
	/*
	 * Who is answered was let in by the service, and may ask as often as it likes: what it asks
	 * counts against time alone, which each step and the whole handshake have (serve.c).
	 */
	conn->nr_options--;
	conn->option_bytes -= conn->option.len;
	const size_t len = strlen(answer);
	r = len > NBD_MAX_ANSWER
		? nbd_option_error(conn, NBD_REP_ERR_TOO_BIG, "the answer would be too long")
		: reply_answer(conn, answer, len);
	free(answer);
	return r;
}

static int option_abort(struct nbd_conn *conn, struct cursor *c)
{
	conn->goodbye = true;
	conn->phase = NBD_CLOSING;
	return nbd_option_reply(conn, NBD_REP_ACK, NULL);
}

static int handle_option(struct nbd_conn *conn)
{
	struct cursor c = { .p = nbd_rx(conn), .left = conn->option.len };

	conn->rx_start += conn->option.len;
	conn->phase = NBD_OPTION;
	weft_debug("option %" PRIu32 ", %" PRIu32 " bytes", conn->option.option, conn->option.len);
	if (conn->wants_tls && !conn->stream.tls && conn->option.option != NBD_OPT_STARTTLS &&
		conn->option.option != NBD_OPT_ABORT)
		return nbd_starttls_wanted(conn);
	switch (conn->option.option) {
	case NBD_OPT_EXPORT_NAME:
		return option_export_name(conn, &c);
	case NBD_OPT_ABORT:
		return option_abort(conn, &c);
	case NBD_OPT_LIST:
		return option_list(conn, &c);
	case NBD_OPT_STARTTLS:
		return nbd_option_starttls(conn, c.left);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return option_info(conn, &c);
	case NBD_OPT_STRUCTURED_REPLY:
		return option_structured_reply(conn, &c);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return option_context(conn, &c);
	case NBD_OPT_WEFT_ASK:
		if (conn->service->question)
			return option_question(conn, &c);
		/* fall through */
	default:
		return nbd_option_error(conn, NBD_REP_ERR_UNSUP, "unknown option");
	}
}

/* ---- steps ---- */

int nbd_handshake_start(struct nbd_conn *conn)
{
	uint8_t *p = nbd_tx_append(conn, NBD_HANDSHAKE_BYTES);

	if (!p)
		return -ENOMEM;
	nbd_pack_handshake(p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	return 0;
}

static int step_client_flags(struct nbd_conn *conn)
{
	const uint32_t known = NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES;
	uint32_t flags;

	if (nbd_rx_len(conn) < CLIENT_FLAGS_BYTES)
		return 0;
	flags = weft_get32(nbd_rx(conn));
	conn->rx_start += CLIENT_FLAGS_BYTES;
	if (flags & ~known)
		return -EPROTO;
	conn->no_zeroes = flags & NBD_FLAG_C_NO_ZEROES;
	conn->phase = NBD_OPTION;
	return 1;
}

static int step_option(struct nbd_conn *conn)
{
	int r;

	if (nbd_rx_len(conn) < NBD_OPTION_BYTES)
		return 0;
	if (conn->tx_len > 0) {
		conn->held_back = true;
		return 0;
	}
	r = nbd_unpack_option(nbd_rx(conn), &conn->option);
	if (r < 0)
		return r;
	conn->rx_start += NBD_OPTION_BYTES;
	conn->option_start = conn->tx_len;
	conn->nr_steps++;
	conn->option_bytes += conn->option.len;
	if (++conn->nr_options > NBD_MAX_OPTIONS || conn->option_bytes > NBD_MAX_OPTION_BYTES)
		return -E2BIG;
	if (conn->option.len <= NBD_MAX_OPTION) {
		conn->phase = NBD_OPTION_DATA;
		return 1;
	}
	if (conn->option.option == NBD_OPT_EXPORT_NAME)
		return -EPROTO;
	conn->phase = NBD_OPTION_SKIP;
	conn->left = conn->option.len;
	return 1;
}

static int step_skip(struct nbd_conn *conn)
{
	const size_t n = weft_min(conn->left, nbd_rx_len(conn));
	int r;

	conn->rx_start += n;
	conn->left -= n;
	if (conn->left > 0)
		return 0;
	conn->phase = NBD_OPTION;
	r = nbd_option_error(conn, NBD_REP_ERR_TOO_BIG, "option too long");
	return r < 0 ? r : 1;
}

int nbd_handshake_step(struct nbd_conn *conn)
{
	int r;

	switch (conn->phase) {
	case NBD_CLIENT_FLAGS:
		return step_client_flags(conn);
	case NBD_OPTION:
		return step_option(conn);
	case NBD_OPTION_SKIP:
		return step_skip(conn);
	case NBD_TLS:
		return nbd_starttls_step(conn);
	case NBD_OPTION_DATA:
		if (nbd_rx_len(conn) < conn->option.len)
			return 0;
		r = handle_option(conn);
		return r < 0 ? r : 1;
	default:
		return 0;
	}
}
