/* SPDX-License-Identifier: MIT */
/* Sessions with several donors that need no bridge; see visit.h. */
#include "nbd-bridge/bridge/visit.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/key/held.h"

enum {
	POLL_MS = 100,
	DRAIN_MS = 2000,       /* for the transport to give back what it holds */
	COPIES_RANGE = 3 * WEFT_HASH_BLOCK_MIN, /* three blocks, of which the last … */
	COPIES_RANGE_MIN = 2 * WEFT_HASH_BLOCK_MIN + 1, /* … may be short */
	PAGE = 4096,
};

/* ---- waiting ---- */

static void progress(struct bridge_visit *visit)
{
	struct tp_op *done[1];

	if (!visit->conn)
		return;
	if (tp_progress(visit->conn, done, WEFT_ARRAY_LEN(done)) > 0) {
		visit->busy = false;
		visit->status = visit->op.status;
	}
	if (tp_state(visit->conn) == TP_FAILED && visit->why.code == 0)
		visit->why = visit->conn->why;
}

static bool waits(const struct bridge_visit *visit)
{
	return visit->conn &&
		(visit->busy || (!visit->why.code && tp_state(visit->conn) == TP_CONNECTING));
}

/* Until none waits, or the time is over. */
static void wait_for_all(struct bridge_visit *visits, unsigned nr, uint32_t timeout_ms)
{
	const uint64_t end_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);
	struct pollfd polled[BRIDGE_MAX_DONORS];

	do {
		bool idle = true;
		nfds_t n = 0;

		for (unsigned i = 0; i < nr; i++) {
			progress(&visits[i]);
			if (!waits(&visits[i]))
				continue;
			int events = tp_arm(visits[i].conn);
			idle &= events != 0;
			polled[n++] = (struct pollfd){
				.fd = tp_event_fd(visits[i].conn), .events = (short)events};
		}
		if (n == 0)
			return;
		if (idle)
			poll(polled, n, POLL_MS);
	} while (weft_now_ns() < end_ns);
}

/* Those that have no answer yet get none. */
static void give_up(struct bridge_visit *visits, unsigned nr, uint32_t timeout_ms)
{
	for (unsigned i = 0; i < nr; i++)
		if (waits(&visits[i]) && visits[i].why.code == 0)
			weft_error_set(&visits[i].why, ETIMEDOUT, "no answer within %g s",
				(double)timeout_ms / 1000);
}

/* ---- sessions ---- */

static int begin(struct bridge_visit *visit, const struct weft_hello *hello, size_t buf_bytes,
	uint32_t timeout_ms)
{
	const struct bridge_donor_config *donor = visit->donor;
	const struct bridge_way *way = &donor->ways[0];
	struct weft_error *err = &visit->why;
	struct weft_key key = {0};
	struct tp_target target = {
		.host = way->host,
		.port = way->port,
		.region = donor->region,
		.hello = *hello,
		.get_pass = donor->pass_host ? tp_get_pass : NULL,
		.pass_host = donor->pass_host,
		.pass_port = donor->pass_port,
		.connect_timeout_ms = timeout_ms,
	};

	weft_random(target.hello.id, sizeof(target.hello.id));
	visit->buf_bytes = (buf_bytes + PAGE - 1) / PAGE * PAGE;
	visit->buf = aligned_alloc(PAGE, visit->buf_bytes);
	if (!visit->buf)
		return weft_error_set(err, ENOMEM, "out of memory");
	int r = tp_open(way->transport, way->transport_config, &visit->tp, err);
	if (r == 0)
		r = tp_register(visit->tp, visit->buf, visit->buf_bytes, &visit->mem, err);
	if (r < 0)
		return r;
	target.key = weft_held_key_proof(donor->key, &key, &target.certificates);
	r = tp_connect(visit->tp, &target, &visit->conn, err);
	weft_key_wipe(&key);
	return r;
}

unsigned visits_open(struct bridge_visit *visits, unsigned nr, const struct weft_hello *hello,
	size_t buf_bytes, uint32_t timeout_ms)
{
	unsigned nr_open = 0;

	for (unsigned i = 0; i < nr; i++)
		begin(&visits[i], hello, buf_bytes, timeout_ms);
	wait_for_all(visits, nr, timeout_ms);
	give_up(visits, nr, timeout_ms);
	for (unsigned i = 0; i < nr; i++) {
		if (!visit_is_open(&visits[i]))
			continue;
		visits[i].info = visits[i].conn->info;
		nr_open++;
	}
	return nr_open;
}

static void close_one(struct bridge_visit *visit)
{
	const uint64_t end_ns = weft_now_ns() + DRAIN_MS * UINT64_C(1000000);

	if (visit->conn) {
		tp_shutdown(visit->conn);
		for (progress(visit); visit->busy && weft_now_ns() < end_ns; progress(visit)) {
			struct pollfd p = {.fd = tp_event_fd(visit->conn)};

			p.events = (short)tp_arm(visit->conn);
			if (p.events)
				poll(&p, 1, POLL_MS);
		}
	}
	/* What the transport does not give back may still be written to. */
	if (visit->busy)
		return;
	tp_disconnect(visit->conn);
	tp_deregister(visit->mem);
	tp_close(visit->tp);
	free(visit->buf);
	visit->conn = NULL;
	visit->mem = NULL;
	visit->tp = NULL;
	visit->buf = NULL;
}

void visits_close(struct bridge_visit *visits, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		close_one(&visits[i]);
}

/* ---- operations ---- */

uint32_t visits_do(struct bridge_visit *visits, unsigned nr, uint32_t set, enum tp_op_kind kind,
	uint64_t off, uint64_t len, const struct weft_hashing *hashing, uint32_t timeout_ms)
{
	uint32_t done = 0, posted = 0;

	for (unsigned i = 0; i < nr; i++) {
		struct bridge_visit *visit = &visits[i];
		struct tp_op *op = &visit->op;

		if (!(set >> i & 1) || !visit_is_open(visit))
			continue;
		*op = (struct tp_op){
			.kind = kind, .off = off, .len = len, .buf = visit->buf, .mem = visit->mem};
		if (hashing) {
			visit->hashing = *hashing;
			op->hashing = &visit->hashing;
		}
		int r = tp_post(visit->conn, &op, 1);
		visit->busy = r == 1;
		visit->status = r == 1 ? -EINPROGRESS : r;
		posted |= UINT32_C(1) << i;
	}
	wait_for_all(visits, nr, timeout_ms);
	give_up(visits, nr, timeout_ms);
	for (unsigned i = 0; i < nr; i++)
		if ((posted >> i & 1) && visits[i].status == 0)
			done |= UINT32_C(1) << i;
	return done;
}

static void refuse(struct bridge_visit *visit, int r)
{
	if (visit->why.code)
		return;
	if (r == -EOPNOTSUPP || r == -EINVAL)
		weft_error_set(&visit->why, EOPNOTSUPP,
			"its donor notes nothing of copies: they are for regions of memory, at "
			"donors of this weft");
	else
		weft_error_set(&visit->why, -r, "%s", strerror(-r));
}

unsigned visits_ask(struct bridge_visit *visits, unsigned nr,
	const struct weft_copies_asked *asked, uint32_t timeout_ms)
{
	struct weft_hashing hashing;
	uint64_t len = COPIES_RANGE;
	unsigned nr_answers = 0;
	uint32_t set = 0;

	weft_copies_ask_pack(asked, &hashing);
	for (unsigned i = 0; i < nr; i++) {
		if (!visit_is_open(&visits[i]))
			continue;
		len = weft_min(len, visits[i].info.size_bytes);
		set |= UINT32_C(1) << i;
		if (visits[i].info.size_bytes >= COPIES_RANGE_MIN)
			continue;
		weft_error_set(&visits[i].why, EINVAL, "the region is too small to be a copy");
		set &= ~(UINT32_C(1) << i);
	}
	visits_do(visits, nr, set, TP_HASH, 0, weft_max(len, COPIES_RANGE_MIN), &hashing,
		timeout_ms);
	for (unsigned i = 0; i < nr; i++) {
		struct bridge_visit *visit = &visits[i];

		if (!(set >> i & 1))
			continue;
		if (visit->status == 0 && !weft_copies_answer_unpack(visit->buf, &visit->answer))
			visit->status = -EPROTO;
		if (visit->status == 0)
			nr_answers++;
		else
			refuse(visit, visit->status);
	}
	return nr_answers;
}
