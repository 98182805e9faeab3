/* SPDX-License-Identifier: MIT */
/* What whoever asks a daemon is answered.  The connection leads to those bytes. */
#include <sys/socket.h>

static int connect_here(int fd, const struct sockaddr *addr, socklen_t len);
#define connect connect_here
#include "fabric/base/control.c"
#undef connect

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int daemon_fd, asker_fd;

static int connect_here(int fd, const struct sockaddr *addr, socklen_t len)
{
	assert(addr->sa_family == AF_UNIX && len == sizeof(struct sockaddr_un));
	return dup2(asker_fd, fd) < 0 ? -1 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *question = json_pack("{s:s}", "op", "status"), *answer = NULL;
	struct weft_error err = {0};
	int pair[2];

	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	daemon_fd = pair[0], asker_fd = pair[1];
	bool all = send(daemon_fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
	assert(all || size > 65536 || size == 0);
	shutdown(daemon_fd, SHUT_WR);
	int r = weft_control_ask("/daemon.sock", question, 1000, &answer, &err);
	assert(r == 0 ? json_is_object(answer) : r == -err.code && !answer);
	json_decref(answer);
	json_decref(question);
	close(pair[0]);
	close(pair[1]);
	return 0;
}
