/* SPDX-License-Identifier: MIT */
/*
 * The NBD client's handshake: libnbd, in a thread of its own, because names are resolved and a
 * donor's grant may wait for the sessions that it supersedes.  The thread and the owner share a
 * struct nbd_client_handshake: the thread's until it sets `done`, its last act.  Every wait ends at
 * the deadline or when the owner gives up, but for the resolver's own.
 *
 * After GO, libnbd's handle is closed and we go on with a duplicate of its socket: libnbd receives
 * exactly what it needs, so that nothing is left in its buffers, and says no goodbye on
 * nbd_close().
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "fabric/nbd/libnbd.h"
#include "transports/nbd/borrower/client-private.h"

enum {
	DEFAULT_TIMEOUT_MS = 10000,
	DEAD_MS = 20000,
	KEEPALIVE_S = 5,
	KEEPALIVE_PROBES = 3,
	/* how long to try again when a donor hangs up on whom it does not know yet … */
	CROWDED_MS = 2000,
	CROWDED_WAIT_MS = 20, /* … and how often */
};

static const char SERVER_MESSAGE[] = "handshake: server error message: ";

/* Waits for events on fd.  0, or -ETIMEDOUT, -ECANCELED. */
static int wait_fd(struct nbd_client_handshake *hs, int fd, short events, short *ret_events)
{
	struct pollfd fds[2] = {{.fd = fd, .events = events},
		{.fd = hs->cancel_fd, .events = POLLIN}};

	for (;;) {
		uint64_t now = weft_now_ns();

		if (now >= hs->deadline_ns)
			return weft_error_set(&hs->error, ETIMEDOUT, "no answer within %u ms",
				hs->timeout_ms);
		int r = poll(fds, 2, (int)((hs->deadline_ns - now + 999999) / 1000000));
		if (r < 0 && errno != EINTR)
			return weft_error_set(&hs->error, errno, "poll: %s", strerror(errno));
		if (r > 0 && fds[1].revents)
			return weft_error_set(&hs->error, ECANCELED, "given up");
		if (r > 0) {
			*ret_events = fds[0].revents;
			return 0;
		}
	}
}

static void tune(int fd, int family, int dead_ms)
{
	const struct {
		int level, name, value;
	} options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_S},
		{IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, dead_ms},
	};

	/* Best effort: without them it is slower, or a dead peer is found later. */
	if (family != AF_UNIX)
		for (size_t i = 0; i < WEFT_ARRAY_LEN(options); i++)
			(void)setsockopt(fd, options[i].level, options[i].name, &options[i].value,
				sizeof(options[i].value));
}

/* A connected socket, or -errno with hs->error set. */
static int connect_to(struct nbd_client_handshake *hs, const struct sockaddr *addr, socklen_t len)
{
	int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int error = 0, r;
	short events;

	if (fd < 0)
		return weft_error_set(&hs->error, errno, "socket: %s", strerror(errno));
	tune(fd, addr->sa_family, (int)hs->dead_ms);
	if (connect(fd, addr, len) < 0) {
		error = errno;
		if (error == EINPROGRESS) {
			socklen_t size = sizeof(error);

			r = wait_fd(hs, fd, POLLOUT, &events);
			if (r < 0)
				goto fail;
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
		}
	}
	if (error == 0)
		return fd;
	/*
	 * No socket file, or its queue is full: to the caller both are a donor that does not
	 * answer.
	 */
	if (addr->sa_family == AF_UNIX && (error == ENOENT || error == EAGAIN))
		r = weft_error_set(&hs->error, ECONNREFUSED, "%s",
			error == ENOENT ? "no such socket" : "its queue is full");
	else
		r = weft_error_set(&hs->error, error, "%s", strerror(error));
fail:
	close(fd);
	return r;
}

static int connect_unix(struct nbd_client_handshake *hs)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (strlen(hs->host) >= sizeof(addr.sun_path))
		return weft_error_set(&hs->error, ENAMETOOLONG, "the socket's path is too long");
	strcpy(addr.sun_path, hs->host);
	return connect_to(hs, (const struct sockaddr *)&addr, sizeof(addr));
}

static int connect_tcp(struct nbd_client_handshake *hs)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *list;
	int r = getaddrinfo(hs->host, hs->port, &hints, &list);

	if (r == EAI_NONAME || r == EAI_ADDRFAMILY) {
		/*
		 * AI_ADDRCONFIG takes loopback for no address: a machine without a network has only
		 * that.
		 */
		hints.ai_flags = 0;
		r = getaddrinfo(hs->host, hs->port, &hints, &list);
	}
	if (r != 0)
		return weft_error_set(&hs->error, EHOSTUNREACH, "%s", gai_strerror(r));
	r = -EHOSTUNREACH;
	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		r = connect_to(hs, ai->ai_addr, ai->ai_addrlen);
		if (r >= 0 || r == -ECANCELED || r == -ETIMEDOUT)
			break;
	}
	freeaddrinfo(list);
	return r;
}

static int on_debug(void *ctx, const char *context, const char *message)
{
	struct nbd_client_handshake *hs = ctx;

	if (strncmp(message, SERVER_MESSAGE, sizeof(SERVER_MESSAGE) - 1) == 0)
		snprintf(hs->server_text, sizeof(hs->server_text), "%s",
			message + sizeof(SERVER_MESSAGE) - 1);
	return 0;
}

static int on_context(void *ctx, const char *name)
{
	struct nbd_client_handshake *hs = ctx;

	if (strlen(name) < sizeof(hs->grant_name) &&
		weft_welcome_parse(name, strlen(name), &hs->welcome) == 0) {
		strcpy(hs->grant_name, name);
		hs->nr_grants++;
	}
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
static int lost(struct nbd_client_handshake *hs)
{
	const char *reason = nbd_reason();
	int code = nbd_get_errno();

	if (code == EPIPE || code == ECONNRESET || strstr(reason, "disconnected unexpectedly"))
		return weft_error_set(&hs->error, ECONNRESET,
			"the server hung up during the handshake");
	return weft_error_set(&hs->error, EPROTO, "the handshake failed: %s", reason);
}

/* Moves libnbd on once.  0, or -errno. */
static int step(struct nbd_client_handshake *hs, struct nbd_handle *nbd)
{
	struct pollfd p = nbd_libnbd_wants(nbd);
	int r = wait_fd(hs, p.fd, p.events, &p.revents);

	if (r < 0)
		return r;
	if (nbd_libnbd_go_on(nbd, &p) < 0 || nbd_aio_is_dead(nbd) || nbd_aio_is_closed(nbd))
		return lost(hs);
	return 0;
}

static int finish(struct nbd_client_handshake *hs, struct nbd_handle *nbd,
	const struct outcome *outcome)
{
	while (!outcome->over) {
		int r = step(hs, nbd);

		if (r < 0)
			return r;
	}
	/* It is over too when the connection died while the question was asked. */
	return nbd_aio_is_dead(nbd) || nbd_aio_is_closed(nbd) ? lost(hs) : 0;
}

/* What the server said, in the terms of tp_connect(). */
static int refused(struct nbd_client_handshake *hs, int code)
{
	const char *rest;
	int said = weft_refusal_parse(hs->server_text, &rest);

	if (said)
		return weft_error_set(&hs->error, said, "%s", rest);
	if (code == ENOENT)
		return weft_error_set(&hs->error, ENOENT, "there is no region '%.200s'",
			hs->region);
	return weft_error_set(&hs->error, code, "refused: %s",
		hs->server_text[0] ? hs->server_text : strerror(code));
}

/* Says the hello; sets hs->nr_grants and so on. */
static int say_hello(struct nbd_client_handshake *hs, struct nbd_handle *nbd)
{
	struct outcome outcome = {0};
	char query[WEFT_CONTEXT_MAX];

	weft_hello_format(&hs->hello, query);
	hs->server_text[0] = '\0';
	if (nbd_clear_meta_contexts(nbd) < 0 || nbd_add_meta_context(nbd, query) < 0)
		return weft_error_set(&hs->error, ENOMEM, "%s", nbd_reason());
	/*
	 * An error here says no more than that there is no grant; the server may not even know the
	 * option.
	 */
	if (nbd_aio_opt_list_meta_context(nbd,
		    (nbd_context_callback){.callback = on_context, .user_data = hs},
		    (nbd_completion_callback){.callback = on_completion, .user_data = &outcome}) ==
		0)
		return finish(hs, nbd, &outcome);
	return nbd_aio_is_dead(nbd) ? lost(hs) : 0;
}

static int check_welcome(struct nbd_client_handshake *hs)
{
	const struct weft_hello *hello = &hs->hello;
	uint64_t epoch = hello->epoch ? hello->epoch : hello->expect;

	if (epoch && epoch != hs->welcome.epoch)
		return weft_error_set(&hs->error, ESTALE,
			"region '%.100s' has another epoch: the contents known before are gone, or "
			"may have changed",
			hs->region);
	return hs->welcome.version0 ? weft_hello_check_version0(hello, hs->region, &hs->error) : 0;
}

/* INFO or GO: 0 where the server has the export for us. */
static int ask_of_export(struct nbd_client_handshake *hs, struct nbd_handle *nbd,
	int (*option)(struct nbd_handle *nbd, nbd_completion_callback callback))
{
	struct outcome outcome = {0};

	hs->server_text[0] = '\0';
	if (option(nbd,
		    (nbd_completion_callback){.callback = on_completion, .user_data = &outcome}) <
		0)
		return lost(hs);
	int r = finish(hs, nbd, &outcome);
	if (r < 0)
		return r;
	return outcome.error ? refused(hs, outcome.error) : 0;
}

/* Sets hs->nr_grants and so on, or finds out why there is none. */
static int ask_for_grant(struct nbd_client_handshake *hs, struct nbd_handle *nbd)
{
	const char *rest;
	int r = say_hello(hs, nbd);

	/* A donor of version 0 takes no field that it does not know. */
	if (r == 0 && hs->nr_grants == 0 &&
		strcmp(hs->server_text, "malformed weft:session") == 0) {
		hs->hello.version0 = true;
		r = say_hello(hs, nbd);
	}
	if (r < 0)
		return r;
	if (hs->nr_grants == 1)
		return check_welcome(hs);
	if (weft_refusal_parse(hs->server_text, &rest) == EPROTONOSUPPORT)
		return weft_error_set(&hs->error, EPROTONOSUPPORT, "%s", rest);
	if (hs->nr_grants > 1)
		return weft_error_set(&hs->error, EPROTO, "the server offers several grants");
	r = ask_of_export(hs, nbd, nbd_aio_opt_info);
	if (r < 0)
		return r;
	return weft_error_set(&hs->error, EPROTONOSUPPORT,
		"the server is no weft donor; a plain NBD server is used through nbd:// instead of "
		"weft://");
}

static int go(struct nbd_client_handshake *hs, struct nbd_handle *nbd)
{
	int r = ask_of_export(hs, nbd, nbd_aio_opt_go);

	if (r < 0)
		return r;
	while (!nbd_aio_is_ready(nbd)) {
		r = step(hs, nbd);
		if (r < 0)
			return r;
	}
	if (!hs->hello.anonymous && nbd_can_meta_context(nbd, hs->grant_name) != 1)
		return weft_error_set(&hs->error, EPROTO,
			"the donor's grant changed while it was asked for");
	return 0;
}

static void describe_path(struct nbd_client_handshake *hs, int fd)
{
	struct sockaddr_storage ours, theirs;
	socklen_t ours_len = sizeof(ours), theirs_len = sizeof(theirs);
	char host[2][NI_MAXHOST], port[2][NI_MAXSERV];
	struct tp_info *info = &hs->info;

	if (hs->host[0] == '/') {
		snprintf(info->path, sizeof(info->path), "unix %.150s", hs->host);
		return;
	}
	snprintf(info->path, sizeof(info->path), "tcp %.140s:%s", hs->host, hs->port);
	if (getsockname(fd, (struct sockaddr *)&ours, &ours_len) < 0 ||
		getpeername(fd, (struct sockaddr *)&theirs, &theirs_len) < 0)
		return;
	if (getnameinfo((struct sockaddr *)&ours, ours_len, host[0], sizeof(host[0]), port[0],
		    sizeof(port[0]), NI_NUMERICHOST | NI_NUMERICSERV) != 0 ||
		getnameinfo((struct sockaddr *)&theirs, theirs_len, host[1], sizeof(host[1]),
			port[1], sizeof(port[1]), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;
	const char *form = theirs.ss_family == AF_INET6 ? "tcp [%.60s]:%.5s -> [%.60s]:%.5s"
							: "tcp %.60s:%.5s -> %.60s:%.5s";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(info->path, sizeof(info->path), form, host[0], port[0], host[1], port[1]);
#pragma GCC diagnostic pop
}

static int take_info(struct nbd_client_handshake *hs, struct nbd_handle *nbd, int fd)
{
	struct tp_info *info = &hs->info;
	int64_t size = nbd_get_size(nbd);
	int64_t min = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);
	int64_t preferred = nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED);
	int64_t max = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);

	if (size < 0)
		return weft_error_set(&hs->error, EPROTO,
			"the server names a size of 8 EiB or more");
	/* 0: not told.  proto, "Block size constraints", has the defaults. */
	if (min < 1 || min > 65536)
		min = 1;
	if (max < min || max > NBD_MAX_PAYLOAD)
		max = NBD_MAX_PAYLOAD;
	info->min_block_bytes = (uint32_t)min;
	info->preferred_block_bytes = (uint32_t)weft_max((uint64_t)min,
		preferred > 0 && preferred <= NBD_MAX_PAYLOAD ? (uint64_t)preferred : 4096);
	info->max_io_bytes = (uint64_t)(max / min * min);
	info->size_bytes = (uint64_t)(size / min * min);
	if (info->size_bytes == 0)
		return weft_error_set(&hs->error, ENODATA, "'%.200s' is empty", hs->region);
	info->read_only = nbd_is_read_only(nbd) != 0 ||
			  (!hs->hello.anonymous && hs->hello.mode != WEFT_MODE_WRITE);
	info->can_flush = nbd_can_flush(nbd) > 0;
	info->can_fua = nbd_can_fua(nbd) > 0;
	info->can_trim = nbd_can_trim(nbd) > 0;
	info->can_zero = nbd_can_zero(nbd) > 0;
	info->can_fast_zero = nbd_can_fast_zero(nbd) > 0;
	info->can_cache = nbd_can_cache(nbd) > 0;
	info->can_multi_conn = nbd_can_multi_conn(nbd) > 0;
	hs->structured = nbd_get_structured_replies_negotiated(nbd) > 0;
	snprintf(info->transport, sizeof(info->transport), "%s",
		hs->host[0] == '/' ? "unix" : "tcp");
	snprintf(info->offers, sizeof(info->offers), "tcp");
	if (!hs->hello.anonymous) {
		info->has_epoch = true;
		info->epoch = hs->welcome.epoch;
		info->generation = hs->hello.generation;
		info->lease_ms = hs->welcome.lease_ms;
		info->restorable = hs->welcome.restorable;
		info->version0 = hs->welcome.version0;
		snprintf(info->offers, sizeof(info->offers), "%s", hs->welcome.offers);
	}
	describe_path(hs, fd);
	return 0;
}

static int negotiate(struct nbd_client_handshake *hs, struct nbd_handle *nbd, int fd)
{
	int copy, r = 0;

	/* The callback first: without one, debugging goes to standard error. */
	if (nbd_set_debug_callback(nbd,
		    (nbd_debug_callback){.callback = on_debug, .user_data = hs}) < 0 ||
		nbd_set_debug(nbd, true) < 0 || nbd_set_opt_mode(nbd, true) < 0 ||
		nbd_set_export_name(nbd, hs->region) < 0)
		return weft_error_set(&hs->error, EINVAL, "%s", nbd_reason());
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return weft_error_set(&hs->error, errno, "cannot duplicate a socket: %s",
			strerror(errno));
	/* libnbd owns the copy from here on, also if it fails. */
	if (nbd_aio_connect_socket(nbd, copy) < 0)
		return lost(hs);
	while (r == 0 && !nbd_aio_is_negotiating(nbd) && !nbd_aio_is_ready(nbd))
		r = step(hs, nbd);
	if (r == 0 && nbd_aio_is_ready(nbd)) {
		/* An oldstyle server: nothing to ask for, it is in transmission already. */
		if (!hs->hello.anonymous)
			r = weft_error_set(&hs->error, EPROTONOSUPPORT,
				"the server is no weft donor (it does not negotiate)");
		return r < 0 ? r : take_info(hs, nbd, fd);
	}
	if (r == 0 && !hs->hello.anonymous)
		r = ask_for_grant(hs, nbd);
	if (r == 0)
		r = go(hs, nbd);
	if (r == 0)
		r = take_info(hs, nbd, fd);
	return r;
}

/* 0 with hs->fd; or -errno.  *ret_connected: it was the handshake that failed. */
static int try_once(struct nbd_client_handshake *hs, bool *ret_connected)
{
	int fd = hs->host[0] == '/' ? connect_unix(hs) : connect_tcp(hs);

	*ret_connected = fd >= 0;
	weft_debug("%s port %s: %s", hs->host, hs->port, fd < 0 ? hs->error.message : "connected");
	if (fd < 0)
		return fd;
	hs->nr_grants = 0;
	struct nbd_handle *nbd = nbd_create();
	int r = nbd ? negotiate(hs, nbd, fd)
		    : weft_error_set(&hs->error, ENOMEM, "%s", nbd_reason());
	nbd_close(nbd);
	weft_debug("%s port %s: %s", hs->host, hs->port, r < 0 ? hs->error.message : "granted");
	if (r < 0) {
		close(fd);
		return r;
	}
	hs->error.code = 0;
	hs->fd = fd;
	return 0;
}

/*
 * A donor hangs up on the oldest of those that it does not know yet when there are too many;
 * whoever comes again is the newest of them.  False: the time is over, or the owner gave up.
 */
static bool may_try_again(struct nbd_client_handshake *hs, uint64_t end_ns)
{
	struct pollfd cancel = {.fd = hs->cancel_fd, .events = POLLIN};

	return weft_now_ns() < weft_min(end_ns, hs->deadline_ns) &&
		poll(&cancel, 1, CROWDED_WAIT_MS) == 0;
}

static void run(struct nbd_client_handshake *hs)
{
	uint64_t start_ns = weft_now_ns();
	bool connected;
	int r;

	hs->deadline_ns = start_ns + hs->timeout_ms * UINT64_C(1000000);
	do
		r = try_once(hs, &connected);
	while (r == -ECONNRESET && connected && !hs->hello.anonymous &&
		may_try_again(hs, start_ns + CROWDED_MS * UINT64_C(1000000)));
	if (r == 0)
		return;
	if (r == -ECONNRESET && connected && !hs->hello.anonymous)
		weft_error_set(&hs->error, ECONNRESET,
			"the donor hung up during the handshake; too many peers without a grant "
			"may come to it, most of them from here: try again (weft status shows them "
			"at the donor)");
	const char *what = connected ? "" : "cannot connect to ";
	if (hs->host[0] == '/')
		weft_error_prefix(&hs->error, "%s%.108s", what, hs->host);
	else
		weft_error_prefix(&hs->error, "%s%.200s port %s", what, hs->host, hs->port);
}

static void *thread_main(void *ctx)
{
	struct nbd_client_handshake *hs = ctx;
	uint64_t one = 1;

	run(hs);
	/* The owner joins this thread before it frees anything. */
	atomic_store(&hs->done, true);
	if (write(hs->done_fd, &one, sizeof(one)) < 0)
		abort(); /* a fresh eventfd takes any count */
	return NULL;
}

static void free_handshake(struct nbd_client_handshake *hs)
{
	if (hs->fd >= 0)
		close(hs->fd);
	if (hs->cancel_fd >= 0)
		close(hs->cancel_fd);
	if (hs->done_fd >= 0)
		close(hs->done_fd);
	free(hs->host);
	free(hs->port);
	free(hs->region);
	free(hs);
}

int nbd_client_handshake_start(const struct tp_target *target, struct nbd_client_handshake **ret,
	struct weft_error *err)
{
	struct nbd_client_handshake *hs = calloc(1, sizeof(*hs));
	int r;

	if (!hs)
		return weft_error_set(err, ENOMEM, "cannot connect: out of memory");
	hs->fd = -1;
	hs->hello = target->hello;
	hs->timeout_ms =
		target->connect_timeout_ms ? target->connect_timeout_ms : DEFAULT_TIMEOUT_MS;
	hs->dead_ms = target->dead_ms ? (uint32_t)weft_min(target->dead_ms, DEAD_MS) : DEAD_MS;
	hs->host = strdup(target->host);
	hs->port = strdup(target->port ? target->port : "10809");
	hs->region = strdup(target->region);
	hs->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	hs->done_fd = hs->cancel_fd < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!hs->host || !hs->port || !hs->region || hs->done_fd < 0) {
		r = errno;
		free_handshake(hs);
		return weft_error_set(err, r, "cannot connect: %s", strerror(r));
	}
	r = weft_thread_create(&hs->thread, NULL, thread_main, hs);
	if (r < 0) {
		free_handshake(hs);
		return weft_error_set(err, -r, "cannot connect: no thread: %s", strerror(-r));
	}
	*ret = hs;
	return 0;
}

void nbd_client_handshake_cancel(struct nbd_client_handshake *hs)
{
	uint64_t one = 1;

	/* EAGAIN would mean that it was told already. */
	if (write(hs->cancel_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}

void nbd_client_handshake_finish(struct nbd_client_handshake *hs)
{
	pthread_join(hs->thread, NULL);
	free_handshake(hs);
}
