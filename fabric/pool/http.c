/* SPDX-License-Identifier: MIT */
#include "fabric/pool/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/donor/peer.h"
#include "fabric/pool/api.h"

/* Ciphers as a donor's. */
static const char PRIORITIES[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";

/* Whoever has connections over a Unix socket, which libmicrohttpd does not count. */
struct user {
	struct user *next;
	uid_t uid;
	unsigned nr;
};

struct pool_http {
	struct weft_loop *loop;
	struct weft_watch watch;
	struct weft_timer timer;
	struct MHD_Daemon *daemon;
	struct pool *const *pool;
	struct pool_callers *callers;
	struct user *users;
	bool tls;
};

/* One request, while it comes. */
struct coming {
	char *body;
	size_t len;
	bool too_long;
};

/* ---- answers ---- */

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status, char *text,
	const char *type)
{
	struct MHD_Response *response = text
		? MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE)
		: NULL;
	enum MHD_Result r = MHD_NO;

	if (!response) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (status == MHD_HTTP_UNAUTHORIZED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
	r = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return r;
}

/* Takes the object. */
static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, json_t *json)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	return answer_text(connection, status, text, "application/json");
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status, int code,
	const char *why)
{
	struct weft_error err;
	json_t *json;

	weft_error_set(&err, code, "%s", why);
	pool_api_error(&err, &json);
	return answer(connection, status, json);
}

/* ---- requests ---- */

static const char *header(struct MHD_Connection *connection, const char *name)
{
	return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

/* A page in a browser of our user's could ask in that user's name. */
static bool is_of_a_page(struct MHD_Connection *connection)
{
	return header(connection, "Origin") || header(connection, "Sec-Fetch-Site");
}

static int who(const struct pool_http *http, struct MHD_Connection *connection,
	struct pool_caller *ret, struct weft_error *err)
{
	const union MHD_ConnectionInfo *fd =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	const union MHD_ConnectionInfo *tls = http->tls
		? MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION)
		: NULL;
	const struct pool_coming coming = {
		.fd = fd ? fd->connect_fd : -1,
		.tls = tls ? tls->tls_session : NULL,
		.authorization = header(connection, MHD_HTTP_HEADER_AUTHORIZATION),
		.host = header(connection, MHD_HTTP_HEADER_HOST),
	};

	return pool_callers_find(http->callers, &coming, ret, err);
}

static const char *argument(void *ctx, const char *key)
{
	return MHD_lookup_connection_value(ctx, MHD_GET_ARGUMENT_KIND, key);
}

static enum MHD_Result carry_out(struct pool_http *http, struct MHD_Connection *connection,
	const char *method, const char *path, const struct coming *coming)
{
	struct pool_request request = {method, path, argument, connection, NULL};
	json_t *ret, *body = NULL;
	struct pool_caller caller;
	struct weft_error err;

	if (coming->too_long)
		return refuse(connection, MHD_HTTP_CONTENT_TOO_LARGE, EFBIG,
			"the request's body is too long");
	struct pool *pool = *http->pool;
	/* Who leads no longer may know less than who does: it says nothing. */
	if (!pool || !pool_leads(pool))
		return refuse(connection, MHD_HTTP_SERVICE_UNAVAILABLE, EAGAIN,
			"this coordinator does not lead; ask another");
	/* While the body came, its key may have been revoked, or have expired. */
	if (who(http, connection, &caller, &err) < 0)
		return refuse(connection, MHD_HTTP_UNAUTHORIZED, err.code, err.message);
	pool_at(pool, weft_now_ns(), (int64_t)time(NULL));
	if (strcmp(path, "/metrics") == 0 && strcmp(method, MHD_HTTP_METHOD_GET) == 0)
		return answer_text(connection, MHD_HTTP_OK, pool_api_metrics(pool),
			"text/plain; version=0.0.4");
	if (coming->len > 0) {
		body = json_loadb(coming->body, coming->len, JSON_REJECT_DUPLICATES, NULL);
		if (!body)
			return refuse(connection, MHD_HTTP_BAD_REQUEST, EINVAL,
				"the body is no JSON");
	}
	request.body = body;
	const unsigned status = pool_api(pool, &caller, &request, &ret);
	weft_debug("%s: %s %s: %u", caller.name, method, path, status);
	json_decref(body);
	return answer(connection, status, ret);
}

static void take(struct coming *coming, const char *data, size_t len)
{
	char *more =
		coming->len + len > POOL_BODY_MAX ? NULL : realloc(coming->body, coming->len + len);

	if (!more) {
		coming->too_long = true;
		return;
	}
	memcpy(more + coming->len, data, len);
	coming->body = more;
	coming->len += len;
}

/* Whoever is not known gets no room for a body. */
static enum MHD_Result begin(const struct pool_http *http, struct MHD_Connection *connection,
	void **state)
{
	struct coming *coming = calloc(1, sizeof(*coming));
	struct pool_caller caller;
	struct weft_error err;

	*state = coming;
	if (!coming)
		return MHD_NO;
	if (is_of_a_page(connection))
		return refuse(connection, MHD_HTTP_FORBIDDEN, EACCES, "this is for no browser");
	if (who(http, connection, &caller, &err) < 0)
		return refuse(connection, MHD_HTTP_UNAUTHORIZED, err.code, err.message);
	return MHD_YES;
}

/* Called for the head, then for each part of the body, then once more. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *path,
	const char *method, const char *version, const char *data, size_t *len, void **state)
{
	struct coming *coming = *state;

	if (!coming)
		return begin(ctx, connection, state);
	if (*len > 0) {
		if (!coming->too_long)
			take(coming, data, *len);
		*len = 0;
		return MHD_YES;
	}
	return carry_out(ctx, connection, method, path, coming);
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **state,
	enum MHD_RequestTerminationCode code)
{
	struct coming *coming = *state;

	if (coming)
		free(coming->body);
	free(coming);
	*state = NULL;
}

/* ---- connections ---- */

static struct user *user_of(struct pool_http *http, uid_t uid)
{
	struct user *user = http->users;

	while (user && user->uid != uid)
		user = user->next;
	if (user || !(user = calloc(1, sizeof(*user))))
		return user;
	*user = (struct user){http->users, uid, 0};
	http->users = user;
	return user;
}

static void forget_user(struct pool_http *http, struct user *user)
{
	struct user **at = &http->users;

	while (*at != user)
		at = &(*at)->next;
	*at = user->next;
	free(user);
}

/* A user has as many connections as an address. */
static void on_connection(void *ctx, struct MHD_Connection *connection, void **state,
	enum MHD_ConnectionNotificationCode code)
{
	struct user *user = *state;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (user && --user->nr == 0)
			forget_user(ctx, user);
		return;
	}
	const union MHD_ConnectionInfo *fd =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct weft_peer peer = {.local = false};
	if (fd)
		weft_peer_of_socket(fd->connect_fd, &peer);
	if (!peer.local)
		return;
	user = peer.has_uid ? user_of(ctx, peer.uid) : NULL;
	*state = user;
	/* It is over as soon as it is looked at. */
	if (!user || ++user->nr > POOL_CONNECTIONS_OF_ONE)
		shutdown(fd->connect_fd, SHUT_RDWR);
}

/* ---- the loop ---- */

static void run(struct pool_http *http)
{
	MHD_UNSIGNED_LONG_LONG ms;

	MHD_run(http->daemon);
	weft_loop_timer_cancel(http->loop, &http->timer);
	if (MHD_get_timeout(http->daemon, &ms) == MHD_YES)
		weft_loop_timer_set(http->loop, &http->timer, ms * UINT64_C(1000000));
}

static void on_ready(struct weft_watch *watch, uint32_t events)
{
	run(weft_container_of(watch, struct pool_http, watch));
}

static void on_timer(struct weft_timer *timer)
{
	run(weft_container_of(timer, struct pool_http, timer));
}

/* In place of lines that would name nothing of ours. */
__attribute__((format(printf, 2, 0))) static void on_message(void *ctx, const char *fmt, va_list ap)
{
	char text[300];

	vsnprintf(text, sizeof(text), fmt, ap);
	weft_debug("libmicrohttpd: %s", text);
}

static struct MHD_Daemon *start(struct pool_http *http, int fd)
{
	const struct MHD_OptionItem tls[] = {
		{MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)pool_callers_certificate(http->callers)},
		{MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)pool_callers_key(http->callers)},
		/* So that clients are asked for a certificate, which callers.c looks at. */
		{MHD_OPTION_HTTPS_MEM_TRUST, 0, (void *)pool_callers_authority(http->callers)},
		{MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)PRIORITIES},
		{MHD_OPTION_END, 0, NULL},
	};
	const struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};

	return MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_ERROR_LOG | (http->tls ? MHD_USE_TLS : 0),
		0, NULL, NULL, on_request, http, MHD_OPTION_EXTERNAL_LOGGER, on_message, NULL,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned)POOL_CONNECTIONS_MAX, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
		(unsigned)POOL_CONNECTIONS_OF_ONE, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned)POOL_IDLE_S, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_ARRAY,
		http->tls ? tls : none, MHD_OPTION_END);
}

int pool_http_new(struct weft_loop *loop, const struct weft_listening *socket, bool tls,
	struct pool *const *pool, struct pool_callers *callers, struct pool_http **ret,
	struct weft_error *err)
{
	struct pool_http *http = calloc(1, sizeof(*http));
	char place[280];
	int r = 0;

	if (!http) {
		close(socket->fd);
		return weft_error_set(err, ENOMEM, "no memory");
	}
	*http = (struct pool_http){
		.loop = loop,
		.pool = pool,
		.callers = callers,
		.tls = tls,
		.watch.fn = on_ready,
		.timer.fn = on_timer,
	};
	http->daemon = start(http, socket->fd);
	if (!http->daemon) {
		free(http);
		return weft_error_set(err, EINVAL, "cannot serve HTTP%s on %s", tls ? "S" : "",
			weft_listening_format(socket, place));
	}
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	http->watch.fd = info ? info->epoll_fd : -1;
	r = weft_loop_add(loop, &http->watch, EPOLLIN);
	if (r < 0) {
		pool_http_free(http);
		return weft_error_set(err, -r, "cannot serve HTTP: %s", strerror(-r));
	}
	*ret = http;
	return 0;
}

void pool_http_free(struct pool_http *http)
{
	if (!http)
		return;
	weft_loop_remove(http->loop, &http->watch);
	weft_loop_timer_cancel(http->loop, &http->timer);
	MHD_stop_daemon(http->daemon); /* ends all connections */
	free(http);
}
