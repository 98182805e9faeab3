/* SPDX-License-Identifier: MIT */
/* See channel.h.  NBD by libnbd, devices by io_uring. */
#include "tests/torture/channel.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/nbd/libnbd.h"

enum { SLOTS = 16 };

struct channel {
	struct nbd_handle *nbd; /* NULL: a device */
	int64_t cookies[SLOTS];
	struct io_uring ring;
	int fd;
	int outcomes[SLOTS]; /* of a device's */
};

static struct channel *channel_new(void)
{
	struct channel *c = calloc(1, sizeof(*c));

	if (!c)
		err(1, "calloc");
	c->fd = -1;
	return c;
}

static struct channel *open_device(const char *path)
{
	struct channel *c = channel_new();

	c->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	unsigned workers[2] = {4 * SLOTS, 4 * SLOTS};

	if (c->fd < 0 || io_uring_queue_init(SLOTS, &c->ring, 0) < 0 ||
		io_uring_register_iowq_max_workers(&c->ring, workers) < 0)
		err(1, "%s", path);
	return c;
}

static struct channel *open_nbd(const char *path, const char *uri)
{
	struct channel *c = channel_new();

	c->nbd = nbd_create();
	if (!c->nbd)
		errx(1, "%s", nbd_get_error());
	nbd_set_uri_allow_local_file(c->nbd, true);
	if ((path ? nbd_connect_unix(c->nbd, path) : nbd_connect_uri(c->nbd, uri)) < 0) {
		nbd_close(c->nbd);
		free(c);
		return NULL;
	}
	return c;
}

struct channel *channel_open_path(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return NULL;
	return S_ISBLK(st.st_mode) ? open_device(path) : open_nbd(path, NULL);
}

struct channel *channel_open_uri(const char *uri)
{
	return open_nbd(NULL, uri);
}

void channel_close(struct channel *c, bool clean)
{
	if (!c)
		return;
	if (c->nbd) {
		if (clean)
			nbd_shutdown(c->nbd, 0);
		nbd_close(c->nbd);
	} else {
		io_uring_queue_exit(&c->ring);
		close(c->fd);
	}
	free(c);
}

bool channel_submit(struct channel *c, unsigned slot, enum channel_kind kind, void *buf,
	uint64_t off, size_t len)
{
	if (c->nbd) {
		c->cookies[slot] = kind == CHANNEL_READ
			? nbd_aio_pread(c->nbd, buf, len, off, NBD_NULL_COMPLETION, 0)
			: kind == CHANNEL_WRITE
			? nbd_aio_pwrite(c->nbd, buf, len, off, NBD_NULL_COMPLETION, 0)
			: nbd_aio_flush(c->nbd, NBD_NULL_COMPLETION, 0);
		return c->cookies[slot] > 0;
	}
	struct io_uring_sqe *sqe = io_uring_get_sqe(&c->ring);

	if (!sqe)
		errx(1, "no room for a request");
	if (kind == CHANNEL_READ)
		io_uring_prep_read(sqe, c->fd, buf, (unsigned)len, off);
	else if (kind == CHANNEL_WRITE)
		io_uring_prep_write(sqe, c->fd, buf, (unsigned)len, off);
	else
		io_uring_prep_fsync(sqe, c->fd, IORING_FSYNC_DATASYNC);
	/* Never here: the nbd driver waits for a bridge to come in whoever sends. */
	sqe->flags |= IOSQE_ASYNC;
	io_uring_sqe_set_data64(sqe, slot);
	c->outcomes[slot] = CHANNEL_PENDING;
	io_uring_submit(&c->ring);
	return true;
}

int channel_outcome(struct channel *c, unsigned slot)
{
	if (!c->nbd)
		return c->outcomes[slot];
	int r = nbd_aio_command_completed(c->nbd, (uint64_t)c->cookies[slot]);

	if (r == 0)
		return channel_is_broken(c) ? CHANNEL_UNANSWERED : CHANNEL_PENDING;
	if (r == 1)
		return CHANNEL_DONE;
	/* An error of the connection, or a reply with an error. */
	return channel_is_broken(c) ? CHANNEL_UNANSWERED : CHANNEL_ERROR;
}

bool channel_is_broken(const struct channel *c)
{
	return c->nbd && (nbd_aio_is_dead(c->nbd) || nbd_aio_is_closed(c->nbd));
}

static void reap(struct channel *c)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&c->ring, &cqe) == 0) {
		c->outcomes[io_uring_cqe_get_data64(cqe)] =
			cqe->res < 0 ? CHANNEL_ERROR : CHANNEL_DONE;
		io_uring_cqe_seen(&c->ring, cqe);
	}
}

void channels_run(struct channel *const *channels, unsigned nr, int timeout_ms)
{
	struct pollfd fds[SLOTS] = {0};

	for (unsigned i = 0; i < nr; i++) {
		struct channel *c = channels[i];

		fds[i].fd = -1;
		if (!c->nbd) {
			reap(c);
			fds[i] = (struct pollfd){.fd = c->ring.ring_fd, .events = POLLIN};
		} else if (!channel_is_broken(c)) {
			fds[i] = nbd_libnbd_wants(c->nbd);
		}
	}
	poll(fds, nr, timeout_ms);
	for (unsigned i = 0; i < nr; i++) {
		struct channel *c = channels[i];

		if (!c->nbd)
			reap(c);
		else if (fds[i].fd >= 0 && fds[i].revents)
			nbd_libnbd_go_on(c->nbd, &fds[i]);
	}
}
