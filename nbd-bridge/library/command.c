/* SPDX-License-Identifier: MIT */
/*
 * Commands on their lane: a command is cut into pieces, each a request of the lane, until all are
 * done or one has failed.  Runs on the lane's thread, except the functions that prepare a command.
 *
 * If the lane's transports take any memory, or know the caller's, a piece points into the caller's
 * memory, and the lane cuts it as the donor wants.  Otherwise pieces go through the lane's
 * registered buffers, several at a time.
 *
 * Invariant: a command is touched last by its ended().  Since done() may run inside
 * bridge_lane_submit(), a piece that ends only notes that there is news, and the end of the step
 * acts on it.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/weft-private.h"

/*
 * Commands that end at once and begin others could keep a lane for ever, so a step handles so many.
 */
enum { NEWS_A_STEP = 256 };

LIBRARY_THREAD_LOCAL struct library_lane *library_lane_in_completion;

/* Makes the end of the step go on with commands. */
static void call_deferred(struct library_lane *lane)
{
	if (lane->acts)
		lane->has_more = true;
	else
		bridge_lane_defer(lane->lane, &lane->deferred);
}

static void add_news(struct command *command)
{
	struct library_lane *lane = command->lane;

	if (command->has_news)
		return;
	command->has_news = true;
	command->next_news = NULL;
	*lane->news_tail = command;
	lane->news_tail = &command->next_news;
	call_deferred(lane);
}

/* A request ends with -EIO for several reasons that a program wants to tell apart. */
static int explain(const struct library_lane *lane, const struct bridge_request *rq, int error)
{
	const struct weft *w = lane->w;

	if (error == 0)
		return 0;
	if (atomic_load_explicit(&w->closing, memory_order_relaxed))
		return -ECANCELED;
	if (error == -EIO)
		error = bridge_lane_why_eio(lane->lane, rq);
	/* An NBD server's contents may be what they were; nobody knows. */
	return error == -ESTALE && !w->info.has_epoch ? -ENOTCONN : error;
}

static void piece_ended(struct piece *piece, int error)
{
	struct command *command = piece->command;

	error = explain(command->lane, &piece->rq, error);
	if (command->status == 0)
		command->status = error;
	command->nr_pieces--;
	add_news(command);
}

static void submit(struct command *command, struct piece *piece, uint64_t len)
{
	struct bridge_request *rq = &piece->rq;

	piece->command = command;
	rq->kind = command->kind;
	rq->flags = 0;
	rq->off = command->kind == TP_FLUSH ? 0 : command->off + command->begun;
	rq->len = len;
	rq->hashing = &command->hashing;
	command->begun += len;
	command->nr_pieces++;
	bridge_lane_submit(command->lane->lane, rq);
}

/* ---- in the caller's memory ---- */

/* Where the next piece's bytes, or hashes, are to be. */
static uint8_t *place(const struct command *command)
{
	uint64_t done = command->begun;

	if (command->kind == TP_HASH)
		done = done / command->hashing.block_bytes * WEFT_HASH_BYTES;
	return (uint8_t *)command->buf + done;
}

static void direct_done(struct bridge_request *rq, int error)
{
	piece_ended(weft_container_of(rq, struct piece, rq), error);
}

static void submit_direct(struct command *command, uint64_t len)
{
	struct bridge_request *rq = &command->piece.rq;

	rq->done = direct_done;
	rq->may_lend = false;
	rq->mem = command->mem;
	rq->buf = command->buf ? place(command) : NULL;
	submit(command, &command->piece, len);
}

/* ---- through buffers ---- */

/* What a piece of len bytes needs of a buffer. */
static uint64_t buffer_bytes(const struct command *command, uint64_t len)
{
	if (command->kind != TP_HASH)
		return len;
	return (uint64_t)weft_hash_nr_blocks(len, command->hashing.block_bytes) * WEFT_HASH_BYTES;
}

static void buffered_done(struct bridge_request *rq, int error)
{
	struct piece *piece = weft_container_of(rq, struct piece, rq);
	struct library_lane *lane = piece->command->lane;

	if (error == 0 && rq->kind == TP_READ)
		memcpy(piece->at, rq->lent ? rq->lent : rq->buf, rq->len);
	if (error == 0 && rq->kind == TP_HASH)
		memcpy(piece->at, rq->buf, buffer_bytes(piece->command, rq->len));
	bridge_lane_give_back(lane->lane, rq);
	bridge_lane_buffer_put(lane->lane, rq->buf);
	piece_ended(piece, error);
	piece->next = lane->free_pieces;
	lane->free_pieces = piece;
	if (lane->shorts)
		call_deferred(lane);
}

static void on_buffers(struct bridge_waiter *waiter)
{
	call_deferred(weft_container_of(waiter, struct library_lane, buffers));
}

static void add_short(struct command *command)
{
	struct library_lane *lane = command->lane;

	command->is_short = true;
	command->next_short = NULL;
	*lane->shorts_tail = command;
	lane->shorts_tail = &command->next_short;
}

/* The most that one piece is about; of hashes, what fits into one message over any transport. */
static uint64_t piece_max(const struct command *command)
{
	return command->kind == TP_HASH ? command->hashing.block_bytes * BUFFERED_HASHES
					: BUFFERED_BYTES;
}

/* Submits as many pieces as it can. */
static void submit_buffered(struct command *command)
{
	struct library_lane *lane = command->lane;

	while (command->begun < command->len && command->status == 0) {
		uint64_t len = weft_min(piece_max(command), command->len - command->begun);
		struct piece *piece = lane->free_pieces;
		void *buf;
		struct tp_mem *mem;

		if (!piece ||
			bridge_lane_buffer_get(lane->lane, buffer_bytes(command, len),
				&lane->buffers, &buf, &mem) < 0) {
			add_short(command);
			return;
		}
		lane->free_pieces = piece->next;
		piece->at = place(command);
		piece->rq.buf = buf;
		piece->rq.mem = mem;
		piece->rq.may_lend = command->kind == TP_READ;
		if (command->kind == TP_WRITE)
			memcpy(buf, piece->at, len);
		submit(command, piece, len);
	}
}

/* ---- both ---- */

static void go_on(struct command *command)
{
	if (command->kind == TP_FLUSH)
		submit_direct(command, 0);
	else if (command->mem)
		submit_direct(command, weft_min(DIRECT_BYTES, command->len - command->begun));
	else
		submit_buffered(command);
}

void command_begin(struct command *command)
{
	void (*before)(struct command *) = command->kind != TP_WRITE
		? NULL
		: atomic_load_explicit(&command->lane->w->before_write, memory_order_relaxed);

	if (__builtin_expect(before != NULL, 0))
		before(command);
	else if (command->len == 0 && command->kind != TP_FLUSH)
		add_news(command);
	else
		go_on(command);
}

void command_fail(struct command *command, int error)
{
	command->status = error;
	add_news(command);
}

static void look_at(struct command *command)
{
	if (command->is_short || (command->nr_pieces > 0 && command->mem))
		return;
	const bool has_more = command->begun < command->len;
	/* Closing waits for the pieces in flight, not for the whole command. */
	if (has_more && command->status == 0 &&
		atomic_load_explicit(&command->lane->w->closing, memory_order_relaxed))
		command->status = -ECANCELED;
	if (has_more && command->status == 0)
		go_on(command);
	else if (command->nr_pieces == 0)
		command->ended(command);
}

/* Commands that want a piece or a buffer try again, in turn. */
static void serve_shorts(struct library_lane *lane)
{
	struct command *command = lane->shorts;

	lane->shorts = NULL;
	lane->shorts_tail = &lane->shorts;
	while (command) {
		struct command *next = command->next_short;

		command->is_short = false;
		look_at(command);
		command = next;
	}
}

/*
 * Asynchronous commands may have ended: tells threads in weft_aio_poll(), and those that wait for
 * the descriptor.
 */
static void tell_pollers(struct library_lane *lane)
{
	struct weft *w = lane->w;
	uint64_t nr = atomic_load(&w->nr_ended), one = 1;

	if (nr == lane->nr_told)
		return;
	lane->nr_told = nr;
	for (unsigned i = 0; i < w->nr_lanes; i++)
		lane_drive_counted(w->lanes[i].drive, &w->lanes[i] == lane);
	/* If it is full it is readable anyway. */
	if (atomic_load(&w->aio_fd) >= 0 && !lane_drive_counts(lane->drive))
		while (write(w->told_fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
}

static struct command *take_news(struct library_lane *lane)
{
	struct command *command = lane->news;

	lane->news = command->next_news;
	if (!lane->news)
		lane->news_tail = &lane->news;
	command->has_news = false;
	return command;
}

/* The end of a step. */
static void on_deferred(struct weft_deferred *deferred)
{
	struct library_lane *lane = weft_container_of(deferred, struct library_lane, deferred);
	const bool closing = atomic_load_explicit(&lane->w->closing, memory_order_relaxed);
	/*
	 * When the handle is closed nothing begins any more, and the loop may not run another step.
	 */
	unsigned left = closing ? UINT_MAX : NEWS_A_STEP;

	lane->acts = true;
	do {
		lane->has_more = false;
		for (; lane->news && left > 0; left--)
			look_at(take_news(lane));
		if (lane->shorts)
			serve_shorts(lane);
	} while (lane->has_more && left > 0);
	lane->acts = false;
	if (lane->news) {
		weft_loop_timer_set(bridge_lane_loop(lane->lane), &lane->later, 0);
		weft_loop_wake(bridge_lane_loop(lane->lane));
	}
	tell_pollers(lane);
}

static void on_later(struct weft_timer *timer)
{
	call_deferred(weft_container_of(timer, struct library_lane, later));
}

/* ---- before it begins ---- */

int command_check(const struct weft *w, uint8_t kind, uint64_t off, uint64_t len)
{
	const struct tp_info *info = &w->info;

	/* A command that cannot be done as a whole is not begun. */
	if (off > info->size_bytes || len > info->size_bytes - off)
		return -ENOSPC;
	if (kind == TP_WRITE && info->read_only)
		return -EPERM;
	return off % info->min_block_bytes || len % info->min_block_bytes ? -EINVAL : 0;
}

static void begin(struct lane_job *job)
{
	command_begin(weft_container_of(job, struct command, job));
}

void command_init(struct command *command, struct library_lane *lane, uint8_t kind, void *buf,
	uint64_t off, uint64_t len)
{
	command->kind = kind;
	command->buf = buf;
	command->off = off;
	command->len = len;
	command->lane = lane;
	command->mem = lane->all;
	command->job.fn = begin;
	memset(&command->piece.rq, 0, sizeof(command->piece.rq));
	command->begun = 0;
	command->nr_pieces = 0;
	command->status = 0;
	command->has_news = command->is_short = false;
}

/* ---- lanes ---- */

int library_lane_init(struct library_lane *lane, struct weft *w, struct bridge_lane *bridge_lane)
{
	int r;

	lane->w = w;
	lane->lane = bridge_lane;
	lane->drive = bridge_lane_drive(bridge_lane);
	lane->deferred.fn = on_deferred;
	lane->later.fn = on_later;
	lane->buffers.fn = on_buffers;
	lane->news_tail = &lane->news;
	lane->shorts_tail = &lane->shorts;
	lane->raise.parked_tail = &lane->raise.parked;
	for (unsigned i = 0; i < LANE_PIECES; i++) {
		struct piece *piece = &lane->pieces[i];

		piece->rq.done = buffered_done;
		piece->next = lane->free_pieces;
		lane->free_pieces = piece;
	}
	r = bridge_lane_register_all(bridge_lane, &lane->all, NULL);
	return r == -EOPNOTSUPP ? 0 : r;
}

void library_lane_fini(struct library_lane *lane)
{
	weft_loop_timer_cancel(bridge_lane_loop(lane->lane), &lane->later);
	bridge_lane_deregister(lane->lane, lane->all);
	lane->all = NULL;
}

/* Threads take the lanes in turn. */
static unsigned number_of_thread(void)
{
	static _Atomic unsigned nr_threads;
	static LIBRARY_THREAD_LOCAL unsigned number;

	if (number == 0)
		number = atomic_fetch_add(&nr_threads, 1) + 1;
	return number - 1;
}

struct library_lane *library_lane_of_thread(struct weft *w)
{
	unsigned first = number_of_thread() % w->nr_lanes;

	/* A donor without room may have refused some lanes' connections; the other lanes work. */
	for (unsigned i = 0; i < w->nr_lanes; i++) {
		struct library_lane *lane = &w->lanes[(first + i) % w->nr_lanes];

		if (lane_is_ready(lane->lane))
			return lane;
	}
	return &w->lanes[first];
}

struct library_lane *library_lane_choose(struct weft *w)
{
	struct library_lane *own = library_lane_of_thread(w);

	if (lane_drive_is_free(own->drive))
		return own;
	for (unsigned i = 0; i < w->nr_lanes; i++) {
		struct library_lane *lane = &w->lanes[i];

		if (lane_drive_is_free(lane->drive) && lane_is_ready(lane->lane))
			return lane;
	}
	return own;
}

/* ---- a call that blocks ---- */

static void call_ended(struct command *command)
{
	lane_drive_tell(command->lane->drive, command->caller);
}

static int call(struct weft *w, struct tp_mem *const *mems, uint8_t kind, void *buf, uint64_t off,
	uint64_t len, const struct weft_hashing *hashing)
{
	struct library_lane *lane = library_lane_choose(w);
	struct lane_waiter waiter = {0};
	struct command command;

	if (library_lane_in_completion)
		return -EDEADLK;
	command_init(&command, lane, kind, buf, off, len);
	if (mems)
		command.mem = mems[lane - w->lanes];
	command.ended = call_ended;
	command.caller = &waiter;
	if (hashing)
		command.hashing = *hashing;
	lane_drive_do(lane->drive, &command.job, &waiter);
	return command.status;
}

int library_call(struct weft *w, uint8_t kind, void *buf, uint64_t off, uint64_t len)
{
	return call(w, NULL, kind, buf, off, len, NULL);
}

int library_call_from(struct weft *w, struct tp_mem *const *mems, uint8_t kind, void *buf,
	uint64_t off, uint64_t len)
{
	return call(w, mems, kind, buf, off, len, NULL);
}

int library_ask(struct weft *w, const struct weft_hashing *hashing, uint64_t off, uint64_t len,
	uint8_t *ret)
{
	return call(w, NULL, TP_HASH, ret, off, len, hashing);
}

/* ---- memory of the caller's that lanes know ---- */

struct registration {
	void *base;
	size_t len;
	struct tp_mem *mem;
	int error;
};

static void register_memory(struct bridge_lane *lane, void *ctx)
{
	struct registration *reg = ctx;

	reg->error = bridge_lane_register(lane, reg->base, reg->len, &reg->mem, NULL);
}

static void deregister_memory(struct bridge_lane *lane, void *ctx)
{
	struct registration *reg = ctx;

	reg->error = bridge_lane_deregister(lane, reg->mem);
}

bool library_has_registered(const struct weft *w)
{
	return w->nr_lanes > 0 && !w->lanes[0].all;
}

int library_deregister(struct weft *w, struct tp_mem **mems)
{
	int error = 0;

	for (unsigned i = 0; mems && i < w->nr_lanes; i++) {
		struct registration reg = {.mem = mems[i]};

		bridge_lane_run(w->lanes[i].lane, deregister_memory, &reg);
		error = reg.error < 0 ? reg.error : error;
	}
	free(mems);
	return error;
}

int library_register(struct weft *w, void *base, size_t len, struct tp_mem ***ret)
{
	struct tp_mem **mems = calloc(w->nr_lanes, sizeof(struct tp_mem *));
	struct registration reg = {.base = base, .len = len, .error = mems ? 0 : -ENOMEM};

	for (unsigned i = 0; i < w->nr_lanes && reg.error == 0; i++) {
		bridge_lane_run(w->lanes[i].lane, register_memory, &reg);
		if (reg.error == 0)
			mems[i] = reg.mem;
	}
	if (reg.error < 0)
		library_deregister(w, mems);
	else
		*ret = mems;
	return reg.error;
}
