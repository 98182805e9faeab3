/* SPDX-License-Identifier: MIT */
/* A session's thread: waiting for events, and sending. Threads: run.h says. */
#include "transports/verbs/donor/run.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "transports/verbs/messages.h"

void verbs_session_wake(struct verbs_session *session)
{
	uint64_t one = 1;

	(void)!write(session->wake_fd, &one, sizeof(one));
}

bool verbs_run_must_end(const struct verbs_run *run)
{
	return run->state == VERBS_RUN_OVER || atomic_load(&run->session->fenced) ||
		atomic_load(&run->session->stopped);
}

void verbs_run_take_events(struct verbs_run *run)
{
	struct rdma_cm_event *event;

	while (rdma_get_cm_event(run->session->channel, &event) == 0) {
		if (verbs_event_errno(event, run->peer.text, NULL) < 0)
			run->state = VERBS_RUN_OVER;
		rdma_ack_cm_event(event);
	}
}

unsigned verbs_run_take_completions(struct verbs_run *run)
{
	struct ibv_wc wc;
	unsigned nr = 0;

	while (ibv_poll_cq(run->cq, 1, &wc) > 0) {
		unsigned i = wc.wr_id & 0xffff;

		nr++;
		if (wc.status != IBV_WC_SUCCESS) {
			run->state = VERBS_RUN_OVER;
			continue;
		}
		if (wc.wr_id & VERBS_RUN_WR_SEND) {
			verbs_bufs_sent(&run->bufs, i);
		} else {
			run->received[run->nr_received] = i;
			run->received_len[run->nr_received++] = wc.byte_len;
		}
	}
	return nr;
}

void verbs_run_sleep(struct verbs_run *run, int timeout_ms)
{
	struct pollfd fds[] = {
		{.fd = run->session->wake_fd, .events = POLLIN},
		{.fd = run->session->channel->fd, .events = POLLIN},
		{.fd = run->comp->fd, .events = POLLIN},
	};
	struct ibv_cq *cq;
	uint64_t count;
	void *ctx;

	if (ibv_req_notify_cq(run->cq, 0) != 0)
		run->state = VERBS_RUN_OVER;
	/* Completions that came before the arming wake nobody. */
	if (verbs_run_take_completions(run) == 0 && run->nr_received == 0 &&
		!verbs_run_must_end(run))
		poll(fds, WEFT_ARRAY_LEN(fds), timeout_ms);
	(void)!read(run->session->wake_fd, &count, sizeof(count));
	while (ibv_get_cq_event(run->comp, &cq, &ctx) == 0)
		ibv_ack_cq_events(cq, 1);
	verbs_run_take_completions(run);
	verbs_run_take_events(run);
}

int verbs_run_send(struct verbs_run *run)
{
	uint64_t end_ns = verbs_after_ms(VERBS_RUN_LINGER_MS);
	int r;

	/* A buffer comes back as soon as the peer's side acknowledges. */
	while ((r = verbs_bufs_send(&run->bufs, run->session->control->qp, &run->out,
			&run->proof, VERBS_RUN_WR_SEND)) == -EAGAIN &&
		!verbs_run_must_end(run) && weft_now_ns() < end_ns)
		verbs_run_sleep(run, 10);
	if (r < 0)
		run->state = VERBS_RUN_OVER;
	return r;
}

void verbs_run_refuse(struct verbs_run *run, uint32_t linger_ms, const struct weft_error *err)
{
	run->out = (struct verbs_msg){.type = VERBS_REFUSE};
	run->out.refuse.error = -err->code;
	run->out.refuse.version0 = run->msg.type == VERBS_HELLO && run->msg.hello.hello.version0;
	snprintf(run->out.refuse.text, sizeof(run->out.refuse.text), "%.*s", VERBS_TEXT_MAX,
		err->message);
	run->state = VERBS_RUN_REFUSED;
	run->deadline_ns = verbs_after_ms(linger_ms);
	verbs_run_send(run);
}
