/* SPDX-License-Identifier: MIT */
/*
 * What a holder of memory is told by its daemon, and then by the next one: a message a line, of
 * which those that begin with '+' bring two descriptors, and those with '>' come from the next one
 * while the first lives.
 */
int holder_main(int argc, char **argv);
#define main holder_main
#include "fabric/main/holder.c"
#undef main

#include <assert.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void tell(int fd, const uint8_t *line, size_t len, const int *memory)
{
	char text[WEFT_HOLDER_MESSAGE_MAX] = "";
	bool with = len > 0 && line[0] == '+';

	line += with, len -= with;
	memcpy(text, line, weft_min(len, sizeof(text) - 1));
	weft_holder_send(fd, text, memory, with ? 2 : 0);
}

/* Takes what was answered, so that there is room for more. */
static void hear(int fd)
{
	char text[WEFT_HOLDER_MESSAGE_MAX];
	int fds[2];
	unsigned nr;

	while (weft_holder_receive(fd, text, fds, &nr) >= 0)
		for (unsigned i = 0; i < nr; i++)
			close(fds[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int memory[2] = {-1, -1};
	int daemons[2], next[2];
	bool daemon_lives = true;

	for (unsigned i = 0; i < 2 && memory[i] < 0; i++)
		memory[i] = memfd_create("m", MFD_CLOEXEC);
	assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, daemons) == 0);
	assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, next) == 0);
	daemon_fd = daemons[0];
	while (size > 0) {
		const uint8_t *end = memchr(data, '\n', size);
		size_t len = end ? (size_t)(end - data) : size;

		/* An empty line is the daemon's end: the next one speaks from there on. */
		if (len == 0 && daemon_lives) {
			daemon_lives = false;
			daemon_fd = -1;
			data++, size--;
			continue;
		}
		bool of_next = !daemon_lives || data[0] == '>';
		tell(of_next ? next[1] : daemons[1], data, len, memory);
		bool goes_on = of_next ? hear_next(next[0], "127.0.0.1:1") : hear_daemon();
		assert(!(of_next && daemon_lives && goes_on)); /* it is told to go away */
		if (!goes_on && of_next != daemon_lives)
			break;
		assert(nr_held <= MAX_HELD);
		hear(of_next ? next[1] : daemons[1]);
		data += weft_min(len + 1, size), size -= weft_min(len + 1, size);
	}
	while (nr_held > 0)
		drop(held[0].epoch);
	stopped = 0;
	for (unsigned i = 0; i < 2; i++) {
		close(daemons[i]);
		close(next[i]);
	}
	return 0;
}
