/* SPDX-License-Identifier: MIT */
/* A thread accepts, and each session has another one. */
#include "tests/support/moving-donor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/thread.h"
#include "fabric/base/util.h"

enum { WAIT_MS = 20000, HANDSHAKE_MS = 5000 };

struct moving_session {
	struct moving_donor *donor;
	struct nbd_conn *conn;
	uint64_t generation; /* 0: not granted */
	struct moving_session *next;
};

/* Two donors may have the same bytes, which are touched under this lock alone. */
static pthread_mutex_t bytes_lock = PTHREAD_MUTEX_INITIALIZER;

static struct moving_session *session_of(const struct nbd_conn *conn)
{
	return nbd_conn_user(conn);
}

static int list(struct nbd_conn *conn,
	int (*emit)(void *ctx, const char *name, const char *description), void *ctx,
	struct weft_error *err)
{
	return emit(ctx, "r", NULL);
}

static int describe(struct nbd_conn *conn, const char *name, struct nbd_export *ret,
	struct weft_error *err)
{
	struct moving_donor *d = session_of(conn)->donor;

	if (strcmp(name, "r") != 0)
		return weft_error_set(err, ENOENT, "there is no such region");
	*ret = (struct nbd_export){.size_bytes = d->size_bytes,
		.flags = NBD_FLAG_CAN_MULTI_CONN,
		.min_block_bytes = 1,
		.preferred_block_bytes = 4096,
		.max_block_bytes = NBD_MAX_PAYLOAD};
	return 0;
}

static int refuse(const struct moving_donor *d, struct weft_error *err)
{
	const char *place = atomic_load(&d->names);

	switch (atomic_load(&d->refuse)) {
	case 0:
		return 0;
	case WEFT_EMOVED:
	case WEFT_EMOVING:
		return weft_error_set(err, atomic_load(&d->refuse), "%s has the region now",
			place ? place : d->uri);
	default:
		return weft_error_set(err, atomic_load(&d->refuse), "told to refuse");
	}
}

static void end_others(struct moving_donor *d, uint64_t below)
{
	for (struct moving_session *s = d->sessions; s; s = s->next)
		if (s->generation && s->generation < below)
			nbd_conn_kill(s->conn, false);
}

static int grant(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct nbd_export *ret, struct weft_error *err)
{
	struct moving_session *s = session_of(conn);
	struct moving_donor *d = s->donor;
	int r = describe(conn, name, ret, err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&d->lock);
	if (d->nr_asked == 0)
		d->first = *hello;
	d->hello = *hello;
	r = refuse(d, err);
	if (r == 0) {
		end_others(d, hello->generation);
		s->generation = hello->generation;
	}
	pthread_mutex_unlock(&d->lock);
	atomic_fetch_add(&d->nr_asked, 1);
	if (r == 0)
		atomic_fetch_add(&d->nr_granted, 1);
	return r;
}

static int welcome(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
	struct weft_welcome *ret)
{
	const struct moving_donor *d = session_of(conn)->donor;
	const char *place = atomic_load(&d->names);

	*ret = (struct weft_welcome){
		.epoch = d->epoch, .lease_ms = 30000, .offers = "tcp", .restorable = true};
	snprintf(ret->moving, sizeof(ret->moving), "%s", place ? place : "");
	return 0;
}

static int prepare(struct nbd_request *rq)
{
	rq->buf = malloc(rq->len);
	return rq->buf ? 0 : -ENOMEM;
}

static void submit(struct nbd_request *rq)
{
	struct moving_donor *d = session_of(rq->conn)->donor;

	pthread_mutex_lock(&bytes_lock);
	if (rq->type == NBD_CMD_WRITE)
		memcpy(d->mem + rq->off, rq->buf, rq->len);
	else if (rq->type == NBD_CMD_READ)
		memcpy(rq->buf, d->mem + rq->off, rq->len);
	pthread_mutex_unlock(&bytes_lock);
	atomic_fetch_add(&d->nr_requests, 1);
	/* An answer that never leaves: the session is cut before that. */
	while (atomic_load(&d->stalls))
		usleep(1000);
	nbd_request_complete(rq, 0);
}

static void release(struct nbd_request *rq)
{
	free(rq->buf);
}

static void closed(struct nbd_conn *conn, bool clean)
{
}

static const struct nbd_service service = {.list = list,
	.info = describe,
	.open = grant,
	.welcome = welcome,
	.prepare = prepare,
	.submit = submit,
	.release = release,
	.close = closed};

static void *serve(void *ctx)
{
	struct moving_session *s = ctx, **p;
	struct moving_donor *d = s->donor;

	nbd_conn_serve(s->conn, HANDSHAKE_MS);
	pthread_mutex_lock(&d->lock);
	for (p = &d->sessions; *p != s; p = &(*p)->next)
		;
	*p = s->next;
	pthread_mutex_unlock(&d->lock);
	nbd_conn_free(s->conn);
	free(s);
	pthread_mutex_lock(&d->lock);
	d->nr_sessions--;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

static void begin_session(struct moving_donor *d, int fd)
{
	struct moving_session *s = calloc(1, sizeof(*s));
	pthread_t thread;

	if (!s || nbd_conn_new(fd, &service, s, &s->conn) < 0)
		abort();
	s->donor = d;
	pthread_mutex_lock(&d->lock);
	s->next = d->sessions;
	d->sessions = s;
	d->nr_sessions++;
	pthread_mutex_unlock(&d->lock);
	if (pthread_create(&thread, NULL, serve, s) != 0)
		abort();
	pthread_detach(thread);
}

static void *accept_all(void *ctx)
{
	struct moving_donor *d = ctx;

	while (!atomic_load(&d->ends)) {
		int fd = accept4(d->fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			break;
		if (atomic_load(&d->hangs_up)) {
			atomic_fetch_add(&d->nr_asked, 1);
			close(fd);
		} else {
			begin_session(d, fd);
		}
	}
	return NULL;
}

void moving_donor_start(struct moving_donor *d, uint8_t *mem, uint64_t size_bytes)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);

	memset(d, 0, sizeof(*d));
	d->mem = mem;
	d->size_bytes = size_bytes;
	d->epoch = 4711;
	d->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(d->fd >= 0);
	assert_int_equal(bind(d->fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(d->fd, 64), 0);
	assert_int_equal(getsockname(d->fd, (struct sockaddr *)&addr, &len), 0);
	d->port = ntohs(addr.sin_port);
	snprintf(d->uri, sizeof(d->uri), "weft://127.0.0.1:%u/r", d->port);
	pthread_mutex_init(&d->lock, NULL);
	weft_cond_init(&d->changed);
	assert_int_equal(pthread_create(&d->thread, NULL, accept_all, d), 0);
}

void moving_donor_cut(struct moving_donor *d)
{
	pthread_mutex_lock(&d->lock);
	for (struct moving_session *s = d->sessions; s; s = s->next)
		nbd_conn_kill(s->conn, false);
	pthread_mutex_unlock(&d->lock);
}

void moving_donor_close(struct moving_donor *d, int error)
{
	atomic_store(&d->refuse, error);
	moving_donor_cut(d);
}

void moving_donor_end(struct moving_donor *d)
{
	atomic_store(&d->ends, true);
	atomic_store(&d->stalls, false);
	shutdown(d->fd, SHUT_RDWR);
	pthread_join(d->thread, NULL);
	close(d->fd);
	moving_donor_cut(d);
	pthread_mutex_lock(&d->lock);
	while (d->nr_sessions > 0)
		pthread_cond_wait(&d->changed, &d->lock);
	pthread_mutex_unlock(&d->lock);
	pthread_cond_destroy(&d->changed);
	pthread_mutex_destroy(&d->lock);
}

struct weft_hello moving_donor_hello(struct moving_donor *d, bool first)
{
	pthread_mutex_lock(&d->lock);
	struct weft_hello hello = first ? d->first : d->hello;
	pthread_mutex_unlock(&d->lock);
	return hello;
}

void moving_donor_check(const struct moving_donor *d, uint64_t off, const void *want, size_t len)
{
	pthread_mutex_lock(&bytes_lock);
	bool same = memcmp(d->mem + off, want, len) == 0;
	pthread_mutex_unlock(&bytes_lock);
	assert_true(same);
}

static void wait_for(const _Atomic unsigned *number, unsigned more, const char *what)
{
	const uint64_t end_ns = weft_now_ns() + WAIT_MS * UINT64_C(1000000);
	const unsigned enough = atomic_load(number) + more;

	while (atomic_load(number) < enough) {
		if (weft_now_ns() > end_ns)
			fail_msg("waited until a donor %s %u times", what, enough);
		usleep(500);
	}
}

void moving_donor_wait_asked(struct moving_donor *d, unsigned more)
{
	wait_for(&d->nr_asked, more, "was asked");
}

void moving_donor_wait_granted(struct moving_donor *d, unsigned more)
{
	wait_for(&d->nr_granted, more, "granted");
}
