/* SPDX-License-Identifier: MIT */
/*
 * The handshake with any NBD server: libnbd's.  The thread of the connection; see connecting.c.
 *
 * After GO, libnbd's handle is closed and we go on with a duplicate of its socket: libnbd receives
 * exactly what it needs, so that nothing is left in its buffers, and says no goodbye on
 * nbd_close().
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/nbd/libnbd.h"
#include "transports/nbd/borrower/client-private.h"

static const char SERVER_MESSAGE[] = "handshake: server error message: ";

struct foreign {
	struct nbd_connecting *c;
	struct nbd_handle *nbd;
	char server_text[256];
};

static int on_debug(void *ctx, const char *context, const char *message)
{
	struct foreign *f = ctx;

	if (strncmp(message, SERVER_MESSAGE, sizeof(SERVER_MESSAGE) - 1) == 0)
		snprintf(f->server_text, sizeof(f->server_text), "%s",
			message + sizeof(SERVER_MESSAGE) - 1);
	return 0;
}

struct outcome {
	bool over;
	int error;
};

static int on_completion(void *ctx, int *error)
{
	struct outcome *outcome = ctx;

	outcome->over = true;
	outcome->error = *error;
	return 0;
}

static const char *nbd_reason(void)
{
	const char *text = nbd_get_error();

	return text ? text : "unknown error";
}

/* libnbd's connection died. */
static int lost(struct foreign *f)
{
	const char *reason = nbd_reason();
	int code = nbd_get_errno();

	if (code == EPIPE || code == ECONNRESET || strstr(reason, "disconnected unexpectedly"))
		return weft_error_set(&f->c->error, ECONNRESET,
			"the server hung up during the handshake");
	return weft_error_set(&f->c->error, EPROTO, "the handshake failed: %s", reason);
}

/* Moves libnbd on once.  0, or -errno. */
static int step(struct foreign *f)
{
	struct pollfd p = nbd_libnbd_wants(f->nbd);
	int r = nbd_dial_wait(&f->c->dial, p.fd, p.events, &p.revents, &f->c->error);

	if (r < 0)
		return r;
	if (nbd_libnbd_go_on(f->nbd, &p) < 0 || nbd_aio_is_dead(f->nbd) ||
		nbd_aio_is_closed(f->nbd))
		return lost(f);
	return 0;
}

static int finish(struct foreign *f, const struct outcome *outcome)
{
	while (!outcome->over) {
		int r = step(f);

		if (r < 0)
			return r;
	}
	/* It is over too when the connection died while the question was asked. */
	return nbd_aio_is_dead(f->nbd) || nbd_aio_is_closed(f->nbd) ? lost(f) : 0;
}

/* What the server said, in the terms of tp_connect(): a donor has stock clients too. */
static int refused(struct foreign *f, int code)
{
	const char *rest;
	int said = weft_refusal_parse(f->server_text, &rest);

	if (said)
		return weft_error_set(&f->c->error, said, "%s", rest);
	if (code == ENOENT)
		return weft_error_set(&f->c->error, ENOENT, "there is no export '%.200s'",
			f->c->region);
	return weft_error_set(&f->c->error, code, "refused: %s",
		f->server_text[0] ? f->server_text : strerror(code));
}

static int go(struct foreign *f)
{
	struct outcome outcome = {0};

	if (nbd_aio_opt_go(f->nbd,
		    (nbd_completion_callback){.callback = on_completion, .user_data = &outcome}) <
		0)
		return lost(f);
	int r = finish(f, &outcome);
	if (r == 0 && outcome.error)
		return refused(f, outcome.error);
	while (r == 0 && !nbd_aio_is_ready(f->nbd))
		r = step(f);
	return r;
}

/* 0: what libnbd does not know, or what was not told. */
static uint32_t block_size(struct nbd_handle *nbd, int which)
{
	const int64_t n = nbd_get_block_size(nbd, which);

	return n < 0 ? 0 : (uint32_t)weft_min((uint64_t)n, UINT32_MAX);
}

static int take_info(struct foreign *f)
{
	struct tp_info *info = &f->c->info;
	struct nbd_handle *nbd = f->nbd;
	const int64_t size = nbd_get_size(nbd);
	int r = nbd_talk_sizes(info, f->c->region, size < 0 ? UINT64_MAX : (uint64_t)size,
		block_size(nbd, LIBNBD_SIZE_MINIMUM), block_size(nbd, LIBNBD_SIZE_PREFERRED),
		block_size(nbd, LIBNBD_SIZE_MAXIMUM), &f->c->error);

	if (r < 0)
		return r;
	info->read_only = nbd_is_read_only(nbd) != 0;
	info->can_flush = nbd_can_flush(nbd) > 0;
	info->can_fua = nbd_can_fua(nbd) > 0;
	info->can_trim = nbd_can_trim(nbd) > 0;
	info->can_zero = nbd_can_zero(nbd) > 0;
	info->can_fast_zero = nbd_can_fast_zero(nbd) > 0;
	info->can_cache = nbd_can_cache(nbd) > 0;
	info->can_multi_conn = nbd_can_multi_conn(nbd) > 0;
	f->c->structured = nbd_get_structured_replies_negotiated(nbd) > 0;
	return 0;
}

static int negotiate(struct foreign *f, int fd)
{
	int copy, r = 0;

	/* The callback first: without one, debugging goes to standard error. */
	if (nbd_set_debug_callback(f->nbd,
		    (nbd_debug_callback){.callback = on_debug, .user_data = f}) < 0 ||
		nbd_set_debug(f->nbd, true) < 0 || nbd_set_opt_mode(f->nbd, true) < 0 ||
		nbd_set_export_name(f->nbd, f->c->region) < 0)
		return weft_error_set(&f->c->error, EINVAL, "%s", nbd_reason());
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return weft_error_set(&f->c->error, errno, "cannot duplicate a socket: %s",
			strerror(errno));
	/* libnbd owns the copy from here on, also if it fails. */
	if (nbd_aio_connect_socket(f->nbd, copy) < 0)
		return lost(f);
	while (r == 0 && !nbd_aio_is_negotiating(f->nbd) && !nbd_aio_is_ready(f->nbd))
		r = step(f);
	/* An oldstyle server: nothing to ask for, it is in transmission already. */
	if (r == 0 && !nbd_aio_is_ready(f->nbd))
		r = go(f);
	return r < 0 ? r : take_info(f);
}

int nbd_foreign_handshake(struct nbd_connecting *c, int fd)
{
	struct foreign f = {.c = c, .nbd = nbd_create()};
	int r = f.nbd ? negotiate(&f, fd)
		      : weft_error_set(&c->error, ENOMEM, "%s", nbd_reason());

	nbd_close(f.nbd);
	return r;
}
