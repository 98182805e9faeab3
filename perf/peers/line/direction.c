/* SPDX-License-Identifier: MIT */
/*
 * One direction of a line.  Invariant: what is in the ring is ordered by the time it is due, since
 * nothing overtakes.
 */
#include "perf/peers/line/direction.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/peers/line/train.h"

enum {
	RING_BYTES = 256 << 20, /* of address space; memory is what is used of it */
	ROOM_BYTES = 1 << 20,   /* for one frame, cut any way */
	BATCH = 32,             /* frames read before those that are due are looked at */
	CUT_NS = 250000,        /* with a rate, a train that takes longer is cut */
	TIMER_SLACK_NS = 1000,
};

struct record {
	uint64_t due_ns;
	uint32_t len; /* of the frame behind it; 0: go on at the ring's beginning */
	uint32_t nr_segments;
};

_Static_assert(LINE_FRAME_MAX + LINE_SEGMENTS_MAX * (LINE_HEADERS_MAX + sizeof(struct record) + 8) <
		       ROOM_BYTES,
	"each segment of a train on its own fits");

static size_t record_bytes(size_t frame_len)
{
	return (sizeof(struct record) + frame_len + 7) & ~(size_t)7;
}

/* splitmix64 */
static uint64_t next_random(struct line_direction *d)
{
	uint64_t z = d->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static double next_share(struct line_direction *d)
{
	return (double)(next_random(d) >> 11) * 0x1p-53;
}

/* ---- the ring ---- */

static bool is_empty(const struct line_direction *d)
{
	return d->in == d->out && !d->wrapped;
}

/* Makes room behind in, in one piece. */
static bool make_room(struct line_direction *d)
{
	if (is_empty(d))
		d->in = d->out = 0; /* the same memory again: it is in the cache */
	if (!d->wrapped && RING_BYTES - d->in < ROOM_BYTES + sizeof(struct record)) {
		if (d->out < ROOM_BYTES)
			return false;
		memcpy(d->ring + d->in, &(struct record){0}, sizeof(struct record));
		d->in = 0;
		d->wrapped = true;
	}
	return !d->wrapped || d->out - d->in > ROOM_BYTES;
}

static struct record *first(struct line_direction *d)
{
	struct record *record = (struct record *)(d->ring + d->out);

	if (is_empty(d))
		return NULL;
	if (record->len == 0) {
		d->out = 0;
		d->wrapped = false;
		if (is_empty(d))
			return NULL;
		record = (struct record *)d->ring;
	}
	return record;
}

/* ---- in ---- */

/* The time at which a packet of so many bytes has left, or 0: the queue is full. */
static uint64_t leave(struct line_direction *d, uint64_t now_ns, size_t bytes)
{
	const struct line_shape *shape = &d->shape;

	if (shape->rate_bit_s == 0)
		return now_ns;
	uint64_t start_ns = weft_max(now_ns, d->free_ns);
	uint64_t waiting =
		(uint64_t)((double)(start_ns - now_ns) * (double)shape->rate_bit_s / 8e9);
	if (waiting + bytes > shape->queue_bytes)
		return 0;
	d->counts.queue_peak_bytes = weft_max(d->counts.queue_peak_bytes, waiting + bytes);
	d->free_ns = start_ns + (uint64_t)((double)bytes * 8e9 / (double)shape->rate_bit_s);
	return d->free_ns;
}

/* These segments are under way from now on. */
static void plan(struct line_direction *d, const struct line_train *train, unsigned from,
	unsigned to, uint64_t left_ns)
{
	struct record *record = (struct record *)(d->ring + d->in);
	uint64_t due_ns = left_ns + d->shape.delay_ns;
	uint8_t *frame = (uint8_t *)(record + 1);

	if (from == to)
		return;
	if (d->shape.jitter_ns > 0)
		due_ns += (uint64_t)(next_share(d) * 2 * (double)d->shape.jitter_ns) -
			  d->shape.jitter_ns;
	d->last_ns = weft_max(d->last_ns, due_ns);
	record->due_ns = d->last_ns;
	record->nr_segments = to - from;
	/* A whole frame was read to where it belongs. */
	if (frame == train->frame)
		record->len = (uint32_t)train->len;
	else
		record->len = (uint32_t)line_train_cut(train, from, to, frame);
	d->in += record_bytes(record->len);
}

/* Which of the segments are lost, and when the others are due: together, as far as they leave soon
 * after one another. */
static void plan_segments(struct line_direction *d, const struct line_train *train, uint64_t now_ns)
{
	uint64_t left_ns = now_ns, begin_ns = 0;
	unsigned from = 0;

	for (unsigned i = 0; i < train->nr_segments; i++) {
		bool lost = d->shape.loss > 0 && next_share(d) < d->shape.loss;
		uint64_t at_ns = lost ? 0 : leave(d, now_ns, line_train_bytes(train, i, i + 1));

		d->counts.lost += lost;
		d->counts.dropped += !lost && at_ns == 0;
		if (at_ns == 0 || (i > from && at_ns - begin_ns > CUT_NS)) {
			plan(d, train, from, i, left_ns);
			from = at_ns == 0 ? i + 1 : i;
		}
		if (at_ns == 0)
			continue;
		if (from == i)
			begin_ns = at_ns;
		left_ns = at_ns;
	}
	plan(d, train, from, train->nr_segments, left_ns);
}

/* Whether every segment goes at once, all together. */
static bool is_plain(const struct line_direction *d, const struct line_train *train)
{
	return d->shape.loss == 0 && (d->shape.rate_bit_s == 0 || train->nr_segments == 1);
}

/* false: there was none. */
static bool take(struct line_direction *d)
{
	uint8_t *frame = d->ring + d->in + sizeof(struct record);
	ssize_t n = read(d->from, frame, LINE_FRAME_MAX);
	uint64_t now_ns = weft_now_ns();
	struct line_train train;

	if (n <= 0)
		return false;
	if (line_train_parse(frame, (size_t)n, &train) < 0) {
		d->counts.refused++;
		return true;
	}
	d->counts.frames++;
	if (!is_plain(d, &train)) {
		memcpy(d->scratch, frame, train.len);
		train.frame = d->scratch;
		plan_segments(d, &train, now_ns);
		return true;
	}
	uint64_t left_ns = leave(d, now_ns, line_train_bytes(&train, 0, train.nr_segments));
	if (left_ns == 0)
		d->counts.dropped += train.nr_segments;
	else
		plan(d, &train, 0, train.nr_segments, left_ns);
	return true;
}

/* ---- out ---- */

/* Hands over what is due.  When the next one is; UINT64_MAX: there is none. */
static uint64_t give(struct line_direction *d)
{
	struct line_train train;
	struct record *record;

	while ((record = first(d))) {
		uint64_t now_ns = weft_now_ns();

		if (record->due_ns > now_ns)
			return record->due_ns;
		uint8_t *frame = (uint8_t *)(record + 1);
		if (write(d->to, frame, record->len) < 0) {
			d->counts.refused += record->nr_segments;
		} else {
			line_train_parse(frame, record->len, &train);
			d->counts.packets += record->nr_segments;
			d->counts.bytes += line_train_bytes(&train, 0, record->nr_segments);
			weft_histogram_add(&d->late, weft_now_ns() - record->due_ns);
		}
		d->out += record_bytes(record->len);
	}
	return UINT64_MAX;
}

static void *forward(void *ctx)
{
	struct line_direction *d = ctx;
	struct pollfd fds[] = {
		{.fd = d->from, .events = POLLIN}, {.fd = d->stop, .events = POLLIN}};

	prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
	while (!fds[1].revents) {
		uint64_t due_ns = give(d), now_ns = weft_now_ns();
		struct timespec left = {0};
		bool room = make_room(d);

		if (due_ns > now_ns) {
			left.tv_sec = (time_t)((due_ns - now_ns) / 1000000000);
			left.tv_nsec = (long)((due_ns - now_ns) % 1000000000);
		}
		fds[0].fd = room ? d->from : -1;
		fds[0].revents = 0;
		if (ppoll(fds, 2, due_ns == UINT64_MAX ? NULL : &left, NULL) <= 0)
			continue;
		if (fds[0].revents & POLLERR)
			break; /* somebody has removed the device */
		for (int i = 0; i < BATCH && make_room(d) && take(d); i++)
			;
	}
	return NULL;
}

/* ---- life ---- */

int line_direction_start(struct line_direction *d, int from, int to, const struct line_shape *shape,
	unsigned which, int stop)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

	*d = (struct line_direction){.from = from, .to = to, .shape = *shape, .stop = stop};
	d->random = shape->seed * 2 + which;
	d->ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (d->ring == MAP_FAILED) {
		d->ring = NULL;
		return -ENOMEM;
	}
	d->scratch = malloc(LINE_FRAME_MAX);
	int r = d->scratch ? pthread_create(&d->thread, NULL, forward, d) : ENOMEM;
	if (r != 0) {
		free(d->scratch);
		munmap(d->ring, RING_BYTES);
		d->ring = NULL;
	}
	return -r;
}

void line_direction_end(struct line_direction *d)
{
	if (!d->ring)
		return;
	pthread_join(d->thread, NULL);
	munmap(d->ring, RING_BYTES);
	free(d->scratch);
	d->ring = NULL;
}

static double quantile_us(const struct weft_histogram *h, double q)
{
	return (double)weft_histogram_quantile(h, q) / 1e3;
}

json_t *line_direction_json(const struct line_direction *d)
{
	const struct line_counts *c = &d->counts;

	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:f, s:f, s:f}}", "packets",
		(json_int_t)c->packets, "bytes", (json_int_t)c->bytes, "frames",
		(json_int_t)c->frames, "lost", (json_int_t)c->lost, "dropped",
		(json_int_t)c->dropped, "refused", (json_int_t)c->refused, "queue_peak_bytes",
		(json_int_t)c->queue_peak_bytes, "late_us", "p50", quantile_us(&d->late, 0.5),
		"p99", quantile_us(&d->late, 0.99), "max", (double)d->late.max / 1e3);
}
