/* SPDX-License-Identifier: MIT */
/*
 * Connecting: on a thread of the transport's crew, because names are resolved and a donor's grant
 * may wait for the sessions that it supersedes.  The thread and the owner have a reference each to
 * a struct nbd_connecting: dropping the second one frees.  The struct is the thread's until the
 * thread drops its own, its last act.  Every wait ends at the deadline or when the owner gives up,
 * but for the resolver's own.
 *
 * A donor, and any server over TLS, is spoken to by our own handshake
 * (fabric/nbd/client-handshake.h), other servers by libnbd's (foreign.c).
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "transports/nbd/borrower/client-private.h"

enum {
	DEFAULT_TIMEOUT_MS = 10000,
	DEAD_MS = 20000,
	/* how long to try again when a donor hangs up on whom it does not know yet … */
	CROWDED_MS = 2000,
	CROWDED_WAIT_MS = 20, /* … after so long, then after twice that, and so on */
};

/* Our own handshake over a connected socket. */
static int talk(struct nbd_connecting *c, struct nbd_stream *stream, bool at_once)
{
	struct nbd_talk_wish wish = {.region = c->region,
		.hello = c->hello,
		.at_once = at_once && !c->hello.anonymous};
	int r = nbd_dial_talk(&c->dial, stream, &c->talk, &wish);

	explicit_bzero(&wish.hello, sizeof(wish.hello));
	c->error = c->talk.error;
	c->info = c->talk.info;
	c->structured = c->talk.structured;
	return r;
}

/* What is there of TLS, behind the path: the cipher, and why it is not the kernel's. */
static void describe_tls(const struct nbd_tls *tls, bool tcp, char *buf, size_t len)
{
	const char *why = tcp ? nbd_tls_why_not_kernel(tls) : NULL;

	snprintf(buf, len, " (%s%s%s)", nbd_tls_cipher(tls), why ? "; no kTLS: " : "",
		why ? why : "");
}

static void describe(struct nbd_connecting *c)
{
	const struct nbd_tls *tls = c->stream.tls;
	struct tp_info *info = &c->info;

	snprintf(info->transport, sizeof(info->transport), "%s%s",
		c->host[0] == '/' ? "unix" : "tcp",
		!tls ? "" : nbd_tls_in_kernel(tls) ? "+ktls" : "+tls");
	if (!info->has_epoch)
		snprintf(info->offers, sizeof(info->offers), "tcp");
	nbd_dial_describe(&c->dial, c->stream.fd, info->path, sizeof(info->path));
	const size_t len = strlen(info->path);
	if (tls)
		describe_tls(tls, c->host[0] != '/', info->path + len, sizeof(info->path) - len);
}

/* 0 with c->stream; or -errno.  *ret_connected: it was the handshake that failed. */
static int try_once(struct nbd_connecting *c, bool at_once, bool *ret_connected)
{
	struct nbd_stream stream = {.fd = nbd_dial(&c->dial, &c->error)};

	*ret_connected = stream.fd >= 0;
	weft_debug("%s port %s: %s", c->host, c->port,
		stream.fd < 0 ? c->error.message : "connected");
	if (stream.fd < 0)
		return stream.fd;
	int r = c->hello.anonymous && !c->dial.credentials
			? nbd_foreign_handshake(c, stream.fd)
			: talk(c, &stream, at_once);
	weft_debug("%s port %s: %s", c->host, c->port, r < 0 ? c->error.message : "granted");
	if (r < 0) {
		close(stream.fd);
		return r;
	}
	c->error.code = 0;
	c->stream = stream;
	describe(c);
	return 0;
}

/*
 * A donor hangs up on the oldest of those that it does not know yet when there are too many;
 * whoever comes again is the newest of them.  False: the time is over, or the owner gave up.
 */
static bool may_try_again(struct nbd_connecting *c, uint64_t end_ns, unsigned tries)
{
	struct pollfd cancel = {.fd = c->dial.cancel_fd, .events = POLLIN};

	return weft_now_ns() < weft_min(end_ns, c->dial.deadline_ns) &&
		poll(&cancel, 1, CROWDED_WAIT_MS << weft_min(tries, 4)) == 0;
}

static void run(struct nbd_connecting *c)
{
	uint64_t start_ns = weft_now_ns();
	unsigned tries = 0;
	bool connected;
	int r;

	c->dial.deadline_ns = start_ns + c->dial.timeout_ms * UINT64_C(1000000);
	do {
		/* Another's server may hang up on what comes unasked: it is asked step by step. */
		r = try_once(c, tries % 2 == 0, &connected);
	} while (r == -ECONNRESET && connected && !c->hello.anonymous &&
		may_try_again(c, start_ns + CROWDED_MS * UINT64_C(1000000), tries++));
	if (r == 0)
		return;
	if (r == -ECONNRESET && connected && !c->hello.anonymous)
		weft_error_set(&c->error, ECONNRESET,
			"the donor hung up during the handshake; too many peers without a grant "
			"may come to it, most of them from here: try again (weft status shows them "
			"at the donor)");
	const char *what = connected ? "" : "cannot connect to ";
	if (c->host[0] == '/')
		weft_error_prefix(&c->error, "%s%.108s", what, c->host);
	else
		weft_error_prefix(&c->error, "%s%.200s port %s", what, c->host, c->port);
}

static void free_connecting(struct nbd_connecting *c)
{
	nbd_tls_free(c->stream.tls);
	weft_close_fd(c->stream.fd);
	weft_close_fd(c->dial.cancel_fd);
	weft_close_fd(c->done_fd);
	nbd_tls_credentials_put(c->dial.credentials);
	free(c->host);
	free(c->port);
	free(c->region);
	explicit_bzero(&c->hello, sizeof(c->hello));
	free(c);
}

void nbd_connecting_put(struct nbd_connecting *c)
{
	if (atomic_fetch_sub(&c->refs, 1) == 1)
		free_connecting(c);
}

static void connecting_main(void *ctx)
{
	struct nbd_connecting *c = ctx;
	uint64_t one = 1;

	run(c);
	if (write(c->done_fd, &one, sizeof(one)) < 0)
		abort(); /* a fresh eventfd takes any count */
	nbd_connecting_put(c);
}

int nbd_connecting_start(struct weft_crew *crew, const struct tp_target *target,
	struct nbd_connecting **ret, struct weft_error *err)
{
	struct nbd_connecting *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return weft_error_set(err, ENOMEM, "cannot connect: out of memory");
	c->stream.fd = -1;
	c->hello = target->hello;
	c->dial.timeout_ms =
		target->connect_timeout_ms ? target->connect_timeout_ms : DEFAULT_TIMEOUT_MS;
	c->dial.dead_ms = target->dead_ms ? (uint32_t)weft_min(target->dead_ms, DEAD_MS) : DEAD_MS;
	c->host = strdup(target->host);
	c->port = strdup(target->port ? target->port : "10809");
	c->region = strdup(target->region);
	c->dial.host = c->host;
	c->dial.port = c->port;
	c->dial.cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->done_fd = c->dial.cancel_fd < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!c->host || !c->port || !c->region || c->done_fd < 0) {
		r = errno;
		free_connecting(c);
		return weft_error_set(err, r, "cannot connect: %s", strerror(r));
	}
	r = nbd_dial_prove(&c->dial, target->key, target->certificates, target->renews, err);
	if (r < 0) {
		free_connecting(c);
		return r;
	}
	atomic_init(&c->refs, 2);
	r = weft_crew_run(crew, connecting_main, c);
	if (r < 0) {
		free_connecting(c);
		return weft_error_set(err, -r, "cannot connect: no thread: %s", strerror(-r));
	}
	*ret = c;
	return 0;
}

void nbd_connecting_cancel(struct nbd_connecting *c)
{
	uint64_t one = 1;

	/* EAGAIN would mean that it was told already. */
	if (write(c->dial.cancel_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}
