/* SPDX-License-Identifier: MIT */
/*
 * Operations on a file or a block device, without the kernel's cache (O_DIRECT), through its native
 * asynchronous I/O: io_uring would do as well, but many containers forbid it.  One thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/bench/bench.h"

enum { ANSWER_S = 30 };

struct file_io {
	struct bench_io io;
	int fd;
	io_context_t context;
	struct iocb iocbs[BENCH_MAX_DEPTH];
	struct iocb *free[BENCH_MAX_DEPTH];
	unsigned nr_free;
};

static int submit(struct bench_io *base, struct bench_slot **slots, unsigned n)
{
	struct file_io *io = weft_container_of(base, struct file_io, io);
	struct iocb *iocbs[BENCH_MAX_DEPTH];

	for (unsigned i = 0; i < n; i++) {
		const struct bench_slot *slot = slots[i];

		iocbs[i] = io->free[--io->nr_free];
		if (slot->write)
			io_prep_pwrite(iocbs[i], io->fd, slot->buf, slot->len,
				(long long)slot->off);
		else
			io_prep_pread(iocbs[i], io->fd, slot->buf, slot->len, (long long)slot->off);
		iocbs[i]->data = slots[i];
	}
	for (unsigned at = 0; at < n;) {
		int r = io_submit(io->context, n - at, iocbs + at);

		if (r <= 0)
			return r < 0 ? r : -EIO;
		at += (unsigned)r;
	}
	return 0;
}

static int reap(struct bench_io *base, struct bench_slot **done, unsigned max)
{
	struct file_io *io = weft_container_of(base, struct file_io, io);
	struct timespec bound = {.tv_sec = ANSWER_S};
	struct io_event events[BENCH_MAX_DEPTH];
	int n;

	do
		n = io_getevents(io->context, 1, (long)weft_min(max, BENCH_MAX_DEPTH), events,
			&bound);
	while (n == -EINTR);
	if (n == 0)
		return -ETIMEDOUT;
	for (int i = 0; i < n; i++) {
		long res = (long)events[i].res;

		done[i] = events[i].data;
		done[i]->error = res < 0 ? (int)res : (uint64_t)res == done[i]->len ? 0 : -EIO;
		io->free[io->nr_free++] = events[i].obj;
	}
	return n;
}

static int flush(struct bench_io *base)
{
	return fdatasync(weft_container_of(base, struct file_io, io)->fd) < 0 ? -errno : 0;
}

static void close_io(struct bench_io *base)
{
	struct file_io *io = weft_container_of(base, struct file_io, io);

	if (io->context)
		io_destroy(io->context); /* waits for what is in flight */
	if (io->fd >= 0)
		close(io->fd);
	free(io);
}

int bench_io_open(const char *path, bool read_only, struct bench_io **ret, struct weft_error *err)
{
	struct file_io *io = calloc(1, sizeof(*io));
	struct stat st;
	int r = 0;

	if (!io)
		return weft_error_set(err, ENOMEM, "out of memory");
	io->io.buf = bench_buf();
	io->fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC);
	if (!io->io.buf)
		r = weft_error_set(err, ENOMEM, "out of memory");
	else if (io->fd < 0 || fstat(io->fd, &st) < 0 ||
		 (S_ISBLK(st.st_mode) && ioctl(io->fd, BLKGETSIZE64, &io->io.size_bytes) < 0))
		r = weft_error_set(err, errno, "cannot open %s without the kernel's cache: %s",
			path, strerror(errno));
	if (r == 0 && (r = io_setup(BENCH_MAX_DEPTH, &io->context)) < 0)
		weft_error_set(err, -r, "no asynchronous I/O: %s; see /proc/sys/fs/aio-max-nr",
			strerror(-r));
	if (r < 0) {
		close_io(&io->io);
		return r;
	}
	if (!S_ISBLK(st.st_mode))
		io->io.size_bytes = (uint64_t)st.st_size;
	for (; io->nr_free < BENCH_MAX_DEPTH; io->nr_free++)
		io->free[io->nr_free] = &io->iocbs[io->nr_free];
	io->io.max_io_bytes = 4 << 20;
	io->io.max_depth = BENCH_MAX_DEPTH;
	io->io.submit = submit;
	io->io.reap = reap;
	io->io.flush = flush;
	io->io.close = close_io;
	*ret = &io->io;
	return 0;
}
