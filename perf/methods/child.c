/* SPDX-License-Identifier: MIT */
/*
 * Work in a process of its own, which answers with JSON; and programs that are run to their end.
 * One thread; blocks.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/bench/json.h"
#include "perf/methods/methods.h"

enum { LOOK_MS = 200, ANSWER_MAX = 16 << 20 };

static void answer(int fd, json_t *(*fn)(void *, struct weft_error *), void *ctx)
{
	struct weft_error err = {.code = EIO, .message = "it failed"};
	json_t *json = fn(ctx, &err);

	if (!json)
		json = json_pack("{s:{s:i, s:s}}", "error", "code", err.code, "message",
			err.message);
	json_dumpfd(json, fd, JSON_COMPACT);
	_exit(0);
}

/* All that comes until the other end closes, or the deadline; NULL: no memory, or too late. */
static char *read_all(int fd, pid_t pid, uint64_t deadline_ns)
{
	size_t have = 0, room = 64 << 10;
	char *text = malloc(room);
	bool told = false;

	while (text && weft_now_ns() < deadline_ns) {
		struct pollfd one = {.fd = fd, .events = POLLIN};

		if (bench_stop && !told)
			kill(pid, SIGTERM);
		told |= bench_stop != 0;
		if (poll(&one, 1, LOOK_MS) <= 0)
			continue;
		ssize_t n = read(fd, text + have, room - 1 - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			text[have] = '\0';
			return text;
		}
		have += (size_t)n;
		if (have + 1 < room)
			continue;
		char *more = room < ANSWER_MAX ? realloc(text, room *= 2) : NULL;
		if (!more)
			break;
		text = more;
	}
	free(text);
	return NULL;
}

json_t *methods_in_child(json_t *(*fn)(void *ctx, struct weft_error *err), void *ctx,
	unsigned seconds, pid_t *ret_pid, struct weft_error *err)
{
	uint64_t deadline_ns = weft_now_ns() + seconds * UINT64_C(1000000000);
	pid_t parent = getpid();
	int fds[2], how = 0;

	if (pipe2(fds, O_CLOEXEC) < 0) {
		weft_error_set(err, errno, "no pipe: %s", strerror(errno));
		return NULL;
	}
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		close(fds[0]);
		if (getppid() == parent)
			answer(fds[1], fn, ctx);
		_exit(127);
	}
	close(fds[1]);
	*ret_pid = pid;
	WEFT_CLEANUP_FREE char *text = pid > 0 ? read_all(fds[0], pid, deadline_ns) : NULL;
	close(fds[0]);
	if (!text && pid > 0)
		kill(pid, SIGKILL);
	while (pid > 0 && waitpid(pid, &how, 0) < 0 && errno == EINTR)
		;
	json_t *json = text ? json_loads(text, 0, NULL) : NULL;
	const json_t *error = json_object_get(json, "error");
	if (error)
		weft_error_set(err, (int)number_of(error, "code"), "%s",
			text_of(error, "message"));
	else if (!text)
		weft_error_set(err, ETIMEDOUT, "it took longer than %u s", seconds);
	else if (!json)
		weft_error_set(err, EIO, "its process was ended by signal %d (%s)", WTERMSIG(how),
			strsignal(WTERMSIG(how)));
	if (error || !json) {
		json_decref(json);
		return NULL;
	}
	return json;
}

int methods_call(const char *const argv[], char *said, size_t len, struct weft_error *err)
{
	size_t have = 0;
	int out = -1, how = 0;
	ssize_t n;
	pid_t pid = bench_daemon_spawn(argv, -1, &out);

	if (pid < 0)
		return weft_error_set(err, -pid, "cannot run %s: %s", argv[0], strerror(-pid));
	while ((n = read(out, said + have, len - 1 - have)) > 0 || (n < 0 && errno == EINTR)) {
		have += n > 0 ? (size_t)n : 0;
		said[have] = '\0';
		/* The last line is what is wanted: those before make room. */
		char *line = have > len / 2 ? strchr(said, '\n') : NULL;
		if (line) {
			have -= (size_t)(line + 1 - said);
			memmove(said, line + 1, have);
		}
	}
	close(out);
	while (waitpid(pid, &how, 0) < 0 && errno == EINTR)
		;
	while (have > 0 && said[have - 1] == '\n')
		have--;
	said[have] = '\0';
	char *last = strrchr(said, '\n');
	if (last)
		memmove(said, last + 1, strlen(last));
	if (WIFEXITED(how) && WEXITSTATUS(how) == 0)
		return 0;
	return weft_error_set(err, EIO, "%.300s", said[0] ? said : "it failed without a word");
}
