/* SPDX-License-Identifier: MIT */
/*
 * A backend: an NBD server that keeps a region's contents, by libnbd.  It is asked over one
 * connection, so that whoever flushes over it learns if an earlier write may have been lost with
 * another.  A connection that is lost fails what is asked, and is made again for the next request.
 *
 * Threads: one at a time, under the backend's lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <xxhash.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/main/serve.h"

enum {
	PIECE_BYTES = 256 << 10, /* of a request to the server, at most */
	NR_IN_FLIGHT = 16,
	ANSWER_MS = 30000, /* a server that is silent for so long is gone */
	END_MS = 1000,     /* so long may it take to close the connection at the end */
};

struct backend {
	pthread_mutex_t lock;
	struct nbd_handle *nbd; /* NULL: not connected */
	char *uri;
	uint64_t size_bytes, block_bytes, piece_bytes;
	bool can_flush;
	bool gave_up_write; /* said in the log */
	int lock_fd;        /* of a run without a mark; or -1 */
};

/* What libnbd says, for people. */
static int failed(const char *uri, struct weft_error *err)
{
	int code = nbd_get_errno();

	return weft_error_set(err, code ? code : EIO, "backend %s: %s", uri, nbd_get_error());
}

static void disconnect(struct backend *b)
{
	nbd_close(b->nbd);
	b->nbd = NULL;
}

/* A server that does not finish its handshake is none. */
static int wait_until_connected(struct backend *b, struct weft_error *err)
{
	const uint64_t end_ns = weft_now_ns() + ANSWER_MS * UINT64_C(1000000);

	while (nbd_aio_is_connecting(b->nbd) == 1) {
		const uint64_t now_ns = weft_now_ns();

		if (now_ns >= end_ns)
			return weft_error_set(err, ETIMEDOUT,
				"backend %s: no whole handshake in %d s", b->uri, ANSWER_MS / 1000);
		if (nbd_poll(b->nbd, (int)((end_ns - now_ns) / 1000000) + 1) < 0)
			return failed(b->uri, err);
	}
	return nbd_aio_is_ready(b->nbd) == 1 ? 0 : failed(b->uri, err);
}

static int connect_backend(struct backend *b, struct weft_error *err)
{
	b->nbd = nbd_create();
	if (!b->nbd)
		return failed(b->uri, err);
	/* What it read is checked by nobody before it is here: no buffer needs clearing first. */
	nbd_set_pread_initialize(b->nbd, false);
	nbd_set_uri_allow_local_file(b->nbd, true); /* a file with a key, for TLS */
	int r = nbd_aio_connect_uri(b->nbd, b->uri) < 0 ? failed(b->uri, err)
							: wait_until_connected(b, err);
	if (r < 0)
		disconnect(b);
	return r;
}

/*
 * It is the one that was there when the region was opened, as far as can be told.  0, -ESTALE, or
 * -EPIPE: nothing was asked yet, so that nothing can be carried out late.
 */
static int reconnect(struct backend *b)
{
	struct weft_error err;
	int r = connect_backend(b, &err);

	if (r == 0 && nbd_get_size(b->nbd) != (int64_t)b->size_bytes) {
		r = weft_error_set(&err, ESTALE, "backend %s has another size now", b->uri);
		disconnect(b);
	}
	if (r < 0)
		weft_warn("%s", err.message);
	else
		weft_info("backend %s: connected again", b->uri);
	return r < 0 && r != -ESTALE ? -EPIPE : r;
}

static bool is_lost(struct backend *b)
{
	return nbd_aio_is_dead(b->nbd) == 1 || nbd_aio_is_closed(b->nbd) == 1;
}

/* Waits for the answer to a command.  -ETIMEDOUT: there is none. */
static int end(struct backend *b, int64_t cookie)
{
	for (;;) {
		int r = nbd_aio_command_completed(b->nbd, (uint64_t)cookie);

		if (r == 1)
			return 0;
		if (r < 0)
			return nbd_get_errno() ? -nbd_get_errno() : -EIO;
		r = nbd_poll(b->nbd, ANSWER_MS);
		if (r == 0)
			return -ETIMEDOUT;
		if (r < 0 && is_lost(b))
			return -ENOTCONN;
	}
}

enum what { READ, WRITE, FLUSH };

static int64_t begin(struct backend *b, enum what what, uint8_t *buf, uint64_t off, uint64_t len)
{
	switch (what) {
	case READ:
		return nbd_aio_pread(b->nbd, buf, len, off, NBD_NULL_COMPLETION, 0);
	case WRITE:
		return nbd_aio_pwrite(b->nbd, buf, len, off, NBD_NULL_COMPLETION, 0);
	default:
		return nbd_aio_flush(b->nbd, NBD_NULL_COMPLETION, 0);
	}
}

/*
 * All pieces of the range, some at a time.  After an error nothing more is begun, and what was
 * begun is waited for: some servers end when a client leaves them with answers.
 */
static int exchange(struct backend *b, enum what what, uint8_t *buf, uint64_t off, uint64_t len)
{
	int64_t cookies[NR_IN_FLIGHT];
	uint64_t begun = 0, ended = 0, nr = (len + b->piece_bytes - 1) / b->piece_bytes;
	int r = 0;

	while (ended < begun || (r == 0 && begun < nr)) {
		if (r < 0 || begun == nr || begun - ended == NR_IN_FLIGHT) {
			int ended_with = end(b, cookies[ended++ % NR_IN_FLIGHT]);

			/* What a lost connection leaves without an answer is ended by libnbd. */
			if (ended_with == -ETIMEDOUT)
				return ended_with;
			r = r < 0 ? r : ended_with;
			continue;
		}
		uint64_t at = begun * b->piece_bytes;
		int64_t cookie = begin(b, what, buf + at, off + at,
			weft_min(b->piece_bytes, len - at));
		if (cookie < 0)
			r = nbd_get_errno() ? -nbd_get_errno() : -EIO;
		else
			cookies[begun++ % NR_IN_FLIGHT] = cookie;
	}
	return r;
}

static int flush(struct backend *b)
{
	int64_t cookie = begin(b, FLUSH, NULL, 0, 0);

	return cookie >= 0 ? end(b, cookie) : nbd_get_errno() ? -nbd_get_errno() : -EIO;
}

static void give_up(struct backend *b, enum what what)
{
	disconnect(b);
	if (what == WRITE && !b->gave_up_write)
		weft_warn("backend %s: it may carry out a write late that it did not answer: the "
			  "next run is another epoch",
			b->uri);
	b->gave_up_write |= what == WRITE;
}

/* 0: there is a connection. */
static int use_connection(struct backend *b)
{
	if (!b->nbd)
		return reconnect(b);
	/* What is not sent over a connection that has ended already cannot come late. */
	nbd_poll(b->nbd, 0);
	if (!is_lost(b))
		return 0;
	weft_warn("backend %s: the connection has ended", b->uri);
	disconnect(b);
	return -EPIPE;
}

static int ask(struct backend *b, enum what what, uint8_t *buf, uint64_t off, uint64_t len)
{
	pthread_mutex_lock(&b->lock);
	int r = use_connection(b);
	if (r == 0) {
		r = what == FLUSH ? flush(b) : exchange(b, what, buf, off, len);
		/* Not the first error: some pieces have no answer. */
		if (r < 0 && r != -ETIMEDOUT && is_lost(b))
			r = -ENOTCONN;
		if (r < 0)
			weft_warn("backend %s: %s", b->uri, strerror(-r));
		/*
		 * What is in flight still must not find the buffer.  A connection that was lost
		 * behind a good answer fails the next request: the server may have lost more.
		 */
		if (r == -ETIMEDOUT || r == -ENOTCONN)
			give_up(b, what);
	}
	pthread_mutex_unlock(&b->lock);
	return r;
}

static int read_backend(void *store, void *buf, uint64_t off, uint64_t len)
{
	return ask(store, READ, buf, off, len);
}

static int write_backend(void *store, const void *buf, uint64_t off, uint64_t len)
{
	return ask(store, WRITE, (uint8_t *)buf, off, len);
}

static int flush_backend(void *store)
{
	struct backend *b = store;

	return b->can_flush ? ask(b, FLUSH, NULL, 0, 0) : 0;
}

/* Some servers end badly when a client just goes; one that hangs is left. */
static void say_goodbye(struct backend *b)
{
	const uint64_t end_ns = weft_now_ns() + END_MS * UINT64_C(1000000);
	uint64_t now_ns;

	if (nbd_aio_disconnect(b->nbd, 0) < 0)
		return;
	while (!is_lost(b) && (now_ns = weft_now_ns()) < end_ns)
		if (nbd_poll(b->nbd, (int)((end_ns - now_ns) / 1000000) + 1) < 0)
			return;
}

static void close_backend(void *store)
{
	struct backend *b = store;

	if (b->nbd)
		say_goodbye(b);
	nbd_close(b->nbd);
	pthread_mutex_destroy(&b->lock);
	weft_close_fd(b->lock_fd);
	free(b->uri);
	free(b);
}

static const struct weft_store_ops ops = {.read = read_backend,
	.write = write_backend,
	.flush = flush_backend,
	.close = close_backend};

/* The facts of a server that we are connected to, as far as a region needs them. */
static int look(struct backend *b, const char *name, struct weft_error *err)
{
	int64_t size = nbd_get_size(b->nbd),
		least = nbd_get_block_size(b->nbd, LIBNBD_SIZE_MINIMUM),
		most = nbd_get_block_size(b->nbd, LIBNBD_SIZE_MAXIMUM);

	if (size < 0)
		return failed(b->uri, err);
	if (size == 0)
		return weft_error_set(err, ENODATA, "region '%s': backend %s is empty", name,
			b->uri);
	if (least > WEFT_STORE_BLOCK_MAX || (least > 1 && (size % least || least & (least - 1))))
		return weft_error_set(err, EOPNOTSUPP,
			"region '%s': backend %s wants blocks of %" PRId64
			" bytes; a power of two up to %d, and a whole number of them, would do",
			name, b->uri, least, WEFT_STORE_BLOCK_MAX);
	uint64_t block = weft_max(4096, least > 0 ? (uint64_t)least : 0);
	b->size_bytes = (uint64_t)size;
	b->block_bytes = least > 4096 ? (uint64_t)least : 0;
	b->piece_bytes = most > 0 ? weft_min(PIECE_BYTES, (uint64_t)most / block * block)
				  : PIECE_BYTES;
	b->can_flush = nbd_can_flush(b->nbd) == 1;
	if (b->piece_bytes == 0)
		return weft_error_set(err, EOPNOTSUPP,
			"region '%s': backend %s takes no requests of %" PRIu64 " bytes", name,
			b->uri, block);
	return 0;
}

/* Of the backend, whatever its region is called. */
static int mark_path(const char *name, const char *uri, char *path, size_t len,
	struct weft_error *err)
{
	char dir[256];
	int r = weft_state_dir(dir, sizeof(dir));
	uint64_t key = XXH3_64bits(uri, strlen(uri));

	if (r == 0 && snprintf(path, len, "%s/backend-%016" PRIx64, dir, key) >= (int)len)
		r = -ENAMETOOLONG;
	return r < 0 ? weft_error_set(err, -r, "region '%s': no place for its mark in %s: %s", name,
			       dir, strerror(-r))
		     : 0;
}

/*
 * Of a run that keeps no mark: nobody else lends the backend meanwhile, and a mark of an earlier
 * run is of other contents from now on, which its length says (fabric/region/store.c).
 */
static int take_without_mark(struct backend *b, const char *name, struct weft_error *err)
{
	char path[300];
	struct stat st;
	int r = mark_path(name, b->uri, path, sizeof(path), err);

	b->lock_fd = r < 0 ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (b->lock_fd < 0) {
		weft_debug("region '%s': nothing keeps its backend from being lent twice", name);
		return 0;
	}
	if (flock(b->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return weft_error_set(err, EBUSY,
			"region '%s': %s is in use: another region, or another donor, lends this "
			"backend",
			name, path);
	if (fstat(b->lock_fd, &st) < 0 ||
		(st.st_size > 0 && (ftruncate(b->lock_fd, 0) < 0 || fsync(b->lock_fd) < 0)))
		return weft_error_set(err, errno, "region '%s': %s cannot be emptied: %s", name,
			path, strerror(errno));
	return 0;
}

int serve_open_backend(const struct serve *s, struct serve_region *w, weft_stage_fn *wait,
	void *ctx, struct weft_error *err)
{
	struct backend *b = calloc(1, sizeof(*b));
	char path[300];
	struct weft_store_spec spec = {.name = w->name, .place = w->path, .ops = &ops, .store = b};
	int r;

	if (!b || !(b->uri = strdup(w->path))) {
		free(b);
		return weft_error_set(err, ENOMEM, "region '%s': no memory", w->name);
	}
	pthread_mutex_init(&b->lock, NULL);
	b->lock_fd = -1;
	r = connect_backend(b, err);
	if (r < 0)
		weft_error_prefix(err, "region '%s'", w->name);
	else
		r = look(b, w->name, err);
	spec.read_only = s->read_only || (r == 0 && nbd_is_read_only(b->nbd) == 1);
	if (r == 0 && s->backend_stable) {
		r = mark_path(w->name, w->path, path, sizeof(path), err);
		spec.mark_path = path;
	} else if (r == 0 && !spec.read_only) {
		r = take_without_mark(b, w->name, err);
	}
	if (r < 0) {
		close_backend(b);
		return r;
	}
	spec.size_bytes = b->size_bytes;
	spec.block_bytes = b->block_bytes;
	if (!b->can_flush && !spec.read_only)
		weft_warn("region '%s': backend %s cannot flush: what was written is as durable as "
			  "it keeps it",
			w->name, w->path);
	return weft_region_open_store(&spec, wait, ctx, &w->region, err);
}
