/* SPDX-License-Identifier: MIT */
/*
 * Asynchronous commands: their cookies, completions and results, and waiting for them.  Any thread;
 * a command ends on its lane's thread.
 *
 * Invariants: a command is free, in flight, or ended, under the handle's lock.  In flight, its
 * fields are the lane's, all but `waiter`.  nr_in_flight goes down before nr_ended is raised.  So a
 * thread that finds a command in flight, and nr_ended unchanged, can wait for nr_ended.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/weft-private.h"

enum {
	INDEX_BITS = 16,
	/* A connection carries so much at a time that more of it is better sent over another. */
	LARGE_BYTES = 256 << 10,
	LARGE_COMMANDS = 8,
};

/* ---- the commands; under the lock ---- */

static void put_free(struct weft *w, struct command *command)
{
	command->state = AIO_FREE;
	command->next = w->aio_free;
	w->aio_free = command;
}

static int make_more(struct weft *w)
{
	struct command *chunk;

	if (w->nr_chunks == AIO_CHUNKS)
		return -EAGAIN;
	chunk = calloc(AIO_CHUNK, sizeof(*chunk));
	if (!chunk)
		return -ENOMEM;
	for (unsigned i = AIO_CHUNK; i-- > 0;) {
		chunk[i].cookie = (uint64_t)w->nr_chunks * AIO_CHUNK + i;
		put_free(w, &chunk[i]);
	}
	w->aio[w->nr_chunks++] = chunk;
	return 0;
}

static int take_free(struct weft *w, struct command **ret)
{
	int r = w->aio_free ? 0 : make_more(w);

	if (r < 0)
		return r;
	*ret = w->aio_free;
	w->aio_free = (*ret)->next;
	(*ret)->cookie += UINT64_C(1) << INDEX_BITS;
	(*ret)->state = AIO_IN_FLIGHT;
	return 0;
}

static struct command *find(const struct weft *w, int64_t cookie)
{
	uint64_t index = (uint64_t)cookie & ((1 << INDEX_BITS) - 1);

	if (cookie <= 0 || index / AIO_CHUNK >= w->nr_chunks)
		return NULL;
	struct command *command = &w->aio[index / AIO_CHUNK][index % AIO_CHUNK];
	return command->cookie == (uint64_t)cookie && command->state != AIO_FREE ? command : NULL;
}

static void keep_result(struct weft *w, struct command *command)
{
	command->state = AIO_ENDED;
	command->next = NULL;
	command->prev = w->last_ended;
	if (w->last_ended)
		w->last_ended->next = command;
	else
		w->ended = command;
	w->last_ended = command;
}

static int take_result(struct weft *w, struct command *command)
{
	if (command->prev)
		command->prev->next = command->next;
	else
		w->ended = command->next;
	if (command->next)
		command->next->prev = command->prev;
	else
		w->last_ended = command->prev;
	put_free(w, command);
	return command->status;
}

/* ---- ending ---- */

/* True: the command is retired. */
static bool run_completion(struct command *command)
{
	const struct weft_completion completion = command->completion;
	struct library_lane *outer = library_lane_in_completion;
	bool retired = false;

	library_lane_in_completion = command->lane;
	if (completion.fn)
		retired = completion.fn(completion.user, command->status) == 1;
	if (completion.free)
		completion.free(completion.user);
	library_lane_in_completion = outer;
	return retired;
}

static void aio_ended(struct command *command)
{
	struct library_lane *lane = command->lane;
	struct weft *w = lane->w;
	bool retired = run_completion(command);

	pthread_mutex_lock(&w->lock);
	struct aio_waiter *waiter = command->waiter;
	if (waiter)
		waiter->status = command->status;
	if (retired || waiter)
		put_free(w, command);
	else
		keep_result(w, command);
	pthread_mutex_unlock(&w->lock);
	atomic_fetch_sub(&lane->nr_in_flight, 1);
	atomic_fetch_add(&w->nr_ended, 1);
	if (waiter)
		lane_drive_tell(lane->drive, &waiter->waiter);
}

/* ---- beginning ---- */

static int64_t refuse(const struct weft_completion *completion, int error)
{
	if (completion && completion->free)
		completion->free(completion->user);
	return error;
}

/*
 * The command is counted before the look whether the handle is being closed, so that weft_close()
 * either waits for it or is seen here.
 */
static int take(struct weft *w, struct library_lane *lane, struct command **ret)
{
	struct command *command;

	pthread_mutex_lock(&w->lock);
	int r = take_free(w, &command);
	pthread_mutex_unlock(&w->lock);
	if (r < 0)
		return r;
	atomic_fetch_add(&lane->nr_in_flight, 1);
	if (atomic_load(&w->closing)) {
		pthread_mutex_lock(&w->lock);
		put_free(w, command);
		pthread_mutex_unlock(&w->lock);
		atomic_fetch_sub(&lane->nr_in_flight, 1);
		return -ECANCELED;
	}
	*ret = command;
	return 0;
}

/* This thread's lane, or where it has much under way already, the one that has least. */
static struct library_lane *lane_for(struct weft *w, uint64_t len)
{
	struct library_lane *best = library_lane_of_thread(w);
	unsigned least = atomic_load(&best->nr_in_flight);

	if (len < LARGE_BYTES || least < LARGE_COMMANDS)
		return best;
	for (unsigned i = 0; i < w->nr_lanes; i++) {
		unsigned nr = atomic_load(&w->lanes[i].nr_in_flight);

		if (nr < least && lane_is_ready(w->lanes[i].lane)) {
			best = &w->lanes[i];
			least = nr;
		}
	}
	return best;
}

int64_t aio_start(struct weft *w, uint8_t kind, void *buf, uint64_t off, uint64_t len,
	const struct weft_hashing *hashing, const struct weft_completion *completion)
{
	struct library_lane *inside = library_lane_in_completion;
	bool here = inside && inside->w == w;
	struct library_lane *lane = here ? inside : lane_for(w, len);
	struct command *command = NULL;
	int r = command_check(w, kind, off, len);

	if (r == 0 && kind != TP_HASH && library_is_mapped(w, buf, len))
		r = -EINVAL;
	if (r == 0)
		r = take(w, lane, &command);
	if (r < 0)
		return refuse(completion, r);
	command_init(command, lane, kind, buf, off, len);
	if (hashing)
		command->hashing = *hashing;
	command->ended = aio_ended;
	command->completion = completion ? *completion : (struct weft_completion){0};
	command->waiter = NULL;
	int64_t cookie = (int64_t)command->cookie;
	/* A completion runs in a step of its lane; the end of that step sends the command. */
	if (here)
		command_begin(command);
	else
		lane_drive_post(lane->drive, &command->job);
	return cookie;
}

int64_t weft_aio_pread(struct weft *w, void *buf, size_t len, uint64_t off,
	const struct weft_completion *completion)
{
	return aio_start(w, TP_READ, buf, off, len, NULL, completion);
}

int64_t weft_aio_pwrite(struct weft *w, const void *buf, size_t len, uint64_t off,
	const struct weft_completion *completion)
{
	return aio_start(w, TP_WRITE, (void *)buf, off, len, NULL, completion);
}

int64_t weft_aio_flush(struct weft *w, const struct weft_completion *completion)
{
	return aio_start(w, TP_FLUSH, NULL, 0, 0, NULL, completion);
}

/* ---- results ---- */

int weft_aio_result(struct weft *w, int64_t cookie)
{
	pthread_mutex_lock(&w->lock);
	struct command *command = find(w, cookie);
	int r = !command                          ? -ENOENT
		: command->state == AIO_IN_FLIGHT ? -EINPROGRESS
						  : take_result(w, command);
	pthread_mutex_unlock(&w->lock);
	return r;
}

int weft_aio_wait(struct weft *w, int64_t cookie)
{
	struct aio_waiter waiter = {0};
	struct lane_drive *drive = NULL;
	int r = 0;

	if (library_lane_in_completion)
		return -EDEADLK;
	pthread_mutex_lock(&w->lock);
	struct command *command = find(w, cookie);
	if (!command) {
		r = -ENOENT;
	} else if (command->state == AIO_ENDED) {
		r = take_result(w, command);
	} else if (command->waiter) {
		r = -EBUSY;
	} else {
		command->waiter = &waiter;
		drive = command->lane->drive;
	}
	pthread_mutex_unlock(&w->lock);
	if (!drive)
		return r;
	lane_drive_attend(drive);
	lane_drive_wait(drive, &waiter.waiter, UINT64_MAX);
	return waiter.status;
}

int64_t weft_aio_next(struct weft *w)
{
	pthread_mutex_lock(&w->lock);
	int64_t cookie = w->ended ? (int64_t)w->ended->cookie : 0;
	pthread_mutex_unlock(&w->lock);
	return cookie;
}

unsigned weft_aio_in_flight(struct weft *w)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < w->nr_lanes; i++)
		nr += atomic_load(&w->lanes[i].nr_in_flight);
	return nr;
}

/* ---- polling ---- */

/*
 * The lane to wait at: this thread's, or another one with commands in flight.  Keepers look after
 * the other lanes.
 */
static struct library_lane *lane_in_flight(struct weft *w)
{
	struct library_lane *own = library_lane_of_thread(w);

	if (atomic_load(&own->nr_in_flight) > 0)
		return own;
	for (unsigned i = 0; i < w->nr_lanes; i++)
		if (atomic_load(&w->lanes[i].nr_in_flight) > 0)
			return &w->lanes[i];
	return NULL;
}

/*
 * The descriptor may have been readable for any lane, or for commands that other threads have
 * ended.
 */
static void look_at_all(struct weft *w)
{
	uint64_t n;

	(void)!read(w->told_fd, &n, sizeof(n));
	for (unsigned i = 0; i < w->nr_lanes; i++) {
		struct lane_waiter waiter = {.count = &w->nr_ended,
			.seen = atomic_load(&w->nr_ended)};

		lane_drive_attend(w->lanes[i].drive);
		if (lane_drive_is_free(w->lanes[i].drive))
			lane_drive_wait(w->lanes[i].drive, &waiter, 0);
	}
}

int weft_aio_poll(struct weft *w, int timeout_ms)
{
	uint64_t deadline_ns = timeout_ms < 0 ? UINT64_MAX
		: timeout_ms == 0             ? 0
					      : weft_now_ns() + (uint64_t)timeout_ms * 1000000;
	struct lane_waiter waiter = {.count = &w->nr_ended, .seen = atomic_load(&w->nr_ended)};
	struct library_lane *lane;

	if (library_lane_in_completion)
		return -EDEADLK;
	if (atomic_load(&w->aio_fd) >= 0)
		look_at_all(w);
	if (weft_aio_next(w) == 0 && (lane = lane_in_flight(w)) != NULL) {
		lane_drive_attend(lane->drive);
		lane_drive_wait(lane->drive, &waiter, deadline_ns);
	}
	return atomic_load(&w->nr_ended) != waiter.seen || weft_aio_next(w) != 0;
}

static int add_to(int epfd, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	return epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* Under the lock. */
static int make_fd(struct weft *w)
{
	int fd = epoll_create1(EPOLL_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	/* Readable at first: commands may have ended before. */
	w->told_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	r = w->told_fd < 0 ? -errno : add_to(fd, w->told_fd);
	for (unsigned i = 0; i < w->nr_lanes && r == 0; i++)
		r = add_to(fd, weft_loop_fd(bridge_lane_loop(w->lanes[i].lane)));
	if (r < 0) {
		weft_close_fd(w->told_fd);
		close(fd);
		return r;
	}
	atomic_store(&w->aio_fd, fd);
	return fd;
}

int weft_aio_fd(struct weft *w)
{
	pthread_mutex_lock(&w->lock);
	int fd = atomic_load(&w->aio_fd);
	if (fd < 0)
		fd = make_fd(w);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->nr_lanes; i++)
		lane_drive_attend(w->lanes[i].drive);
	return fd;
}

void aio_fini(struct weft *w)
{
	if (atomic_load(&w->aio_fd) >= 0) {
		close(w->told_fd);
		close(atomic_load(&w->aio_fd));
	}
	for (unsigned i = 0; i < w->nr_chunks; i++)
		free(w->aio[i]);
}
