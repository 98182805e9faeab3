/* SPDX-License-Identifier: MIT */
/*
 * Questions at a control socket, whose asker sends pieces as long as the first byte says: each is
 * answered, at once or when the asker has gone, or the asker is hung up on; nothing is left of it.
 * 255: the asker says the same again and again, without an end.
 */
#include "fabric/base/control.c"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct weft_control_call *waiting;

static void answer(void *ctx, struct weft_control_call *call, const json_t *question)
{
	const char *op = json_string_value(json_object_get(question, "op"));

	if (op && strcmp(op, "wait") == 0)
		waiting = call;
	else if (op)
		weft_control_answer(call, json_pack("{s:s}", "op", op));
	else
		answer_error(call, EINVAL, "there is no such op");
}

static void on_turn(struct weft_timer *timer)
{
	weft_loop_stop(*(struct weft_loop **)(timer + 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct {
		struct weft_timer timer;
		struct weft_loop *loop;
	} turn = {.timer.fn = on_turn};
	static struct weft_control control = {.fn = answer, .listen_fd = -1, .lock_fd = -1};
	int pair[2];

	if (!turn.loop)
		assert(weft_loop_new(&turn.loop) == 0);
	control.loop = turn.loop;
	if (size == 0)
		return 0;
	size_t piece = data[0] ? data[0] : SIZE_MAX;
	const bool for_ever = data[0] == 255 && size > 1;
	static uint8_t much[MAX_QUESTION + 4096];
	data++, size--;
	if (for_ever) {
		for (size_t i = 0; i < sizeof(much); i++)
			much[i] = data[i % size];
		data = much, size = sizeof(much), piece = 4096;
	}
	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	on_connection(&control.acceptor, pair[0]);
	for (bool over = false; !over;) {
		size_t n = weft_min(piece, size);

		over = n == 0;
		if (over)
			shutdown(pair[1], SHUT_WR);
		else if (send(pair[1], data, n, MSG_NOSIGNAL) != (ssize_t)n)
			over = true;
		data += n, size -= n;
		weft_loop_timer_set(turn.loop, &turn.timer, 0);
		weft_loop_run(turn.loop);
	}
	close(pair[1]);
	if (waiting) {
		/* It learns that the asker has gone. */
		for (int i = 0; waiting->watch.fd >= 0; i++) {
			assert(i < 10);
			weft_loop_timer_set(turn.loop, &turn.timer, 0);
			weft_loop_run(turn.loop);
		}
		weft_control_answer(waiting, json_object());
		waiting = NULL;
	}
	for (int i = 0; control.nr_calls > 0; i++) {
		assert(i < 10);
		weft_loop_timer_set(turn.loop, &turn.timer, 0);
		weft_loop_run(turn.loop);
	}
	return 0;
}
