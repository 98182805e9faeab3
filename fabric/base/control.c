/* SPDX-License-Identifier: MIT */
/*
 * Control sockets: the daemon's side on its loop, the asker's side blocking with a bound.
 *
 * Threads: a control belongs to its loop's thread; weft_control_ask() and _each() to any.
 * Invariant: a call is freed by its answer, or by weft_control_free(); one question a connection.
 */
#include "fabric/base/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fabric/base/accept.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"

enum {
	MAX_CALLS = 32,
	MAX_QUESTION = 64 << 10,
	MAX_ANSWER = 16 << 20,
	CALL_TIMEOUT_S = 30,
};

enum call_state {
	CALL_ASKING,   /* waits for the question's end */
	CALL_THINKING, /* waits for weft_control_answer() */
	CALL_ANSWERING /* waits for the socket to take the answer */
};

struct weft_control_call {
	/* NULL: the control is gone, and the call waits only for its answer */
	struct weft_control *control;
	struct weft_control_call *next;
	struct weft_watch watch; /* fd -1 once the asker has gone */
	struct weft_timer timer; /* against askers that neither ask nor listen */
	enum call_state state;
	char *text;
	size_t len, room, sent;
};

struct weft_control {
	struct weft_loop *loop;
	struct weft_acceptor acceptor;
	int listen_fd;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	int lock_fd;
	ino_t ino; /* of our socket file, so that another's is not removed */
	void (*fn)(void *ctx, struct weft_control_call *call, const json_t *question);
	void *ctx;
	struct weft_control_call *calls;
	unsigned nr_calls;
};

static int socket_path(const char *name, char *path, size_t size)
{
	int n = 0, r;

	if (name[0] != '/') {
		r = weft_run_dir(path, size);
		if (r < 0)
			return r;
		n = (int)strlen(path);
		path[n++] = '/';
	}
	return snprintf(path + n, size - (size_t)n, "%s", name) < (int)(size - (size_t)n)
		? 0
		: -ENAMETOOLONG;
}

/* Stops talking to the asker. */
static void call_hang_up(struct weft_control_call *call)
{
	if (call->watch.fd < 0)
		return;
	weft_loop_timer_cancel(call->control->loop, &call->timer);
	weft_loop_remove(call->control->loop, &call->watch);
	close(call->watch.fd);
	call->watch.fd = -1;
}

static void call_free(struct weft_control_call *call)
{
	struct weft_control *control = call->control;

	if (control) {
		struct weft_control_call **p = &control->calls;

		call_hang_up(call);
		while (*p != call)
			p = &(*p)->next;
		*p = call->next;
		control->nr_calls--;
	}
	free(call->text);
	free(call);
}

static void call_send(struct weft_control_call *call)
{
	while (call->sent < call->len) {
		ssize_t n = send(call->watch.fd, call->text + call->sent, call->len - call->sent,
			MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			weft_loop_modify(call->control->loop, &call->watch, EPOLLOUT);
			return;
		}
		if (n < 0)
			break;
		call->sent += (size_t)n;
	}
	call_free(call);
}

void weft_control_answer(struct weft_control_call *call, json_t *answer)
{
	char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;

	json_decref(answer);
	if (!call->control || call->watch.fd < 0 || !text) {
		free(text);
		call_free(call);
		return;
	}
	free(call->text);
	call->text = text;
	call->len = strlen(text);
	text[call->len++] = '\n'; /* in the NUL's place */
	call->sent = 0;
	call->state = CALL_ANSWERING;
	weft_loop_timer_set(call->control->loop, &call->timer,
		CALL_TIMEOUT_S * UINT64_C(1000000000));
	call_send(call);
}

static void answer_error(struct weft_control_call *call, int code, const char *text)
{
	weft_control_answer(call, json_pack("{s:s, s:i}", "error", text, "code", code));
}

static void call_ask(struct weft_control_call *call)
{
	json_t *question = json_loadb(call->text, call->len, JSON_REJECT_DUPLICATES, NULL);

	call->state = CALL_THINKING;
	weft_debug("asked: %.*s", (int)call->len, call->text);
	/* From here on readiness only means that the asker left. */
	weft_loop_modify(call->control->loop, &call->watch, 0);
	weft_loop_timer_cancel(call->control->loop, &call->timer);
	if (!json_is_object(question))
		answer_error(call, EPROTO, "a question is one JSON object on one line");
	else
		call->control->fn(call->control->ctx, call, question);
	json_decref(question);
}

static void call_receive(struct weft_control_call *call)
{
	if (call->len == call->room) {
		size_t room = call->room ? 2 * call->room : 1024;
		char *text = room <= MAX_QUESTION ? realloc(call->text, room) : NULL;

		if (!text) {
			call_free(call);
			return;
		}
		call->text = text;
		call->room = room;
	}
	ssize_t n =
		recv(call->watch.fd, call->text + call->len, call->room - call->len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		call_free(call);
		return;
	}
	call->len += (size_t)n;
	char *end = memchr(call->text + call->len - n, '\n', (size_t)n);
	if (end) {
		call->len = (size_t)(end - call->text);
		call_ask(call);
	}
}

static void on_call(struct weft_watch *watch, uint32_t events)
{
	struct weft_control_call *call = weft_container_of(watch, struct weft_control_call, watch);

	switch (call->state) {
	case CALL_ASKING:
		call_receive(call);
		break;
	case CALL_THINKING:
		if (events & (EPOLLERR | EPOLLHUP))
			call_hang_up(call);
		break;
	case CALL_ANSWERING:
		call_send(call);
		break;
	}
}

static void on_call_timeout(struct weft_timer *timer)
{
	call_free(weft_container_of(timer, struct weft_control_call, timer));
}

static void on_connection(struct weft_acceptor *acceptor, int fd)
{
	struct weft_control *control = weft_container_of(acceptor, struct weft_control, acceptor);
	struct ucred peer;
	socklen_t len = sizeof(peer);

	/* The mode of the socket file says the same, but somebody may change the mode. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 ||
		(peer.uid != geteuid() && peer.uid != 0) || control->nr_calls >= MAX_CALLS) {
		close(fd);
		return;
	}
	struct weft_control_call *call = calloc(1, sizeof(*call));
	if (!call) {
		close(fd);
		return;
	}
	call->control = control;
	call->watch.fd = fd;
	call->watch.fn = on_call;
	call->timer.fn = on_call_timeout;
	call->next = control->calls;
	control->calls = call;
	control->nr_calls++;
	if (weft_loop_add(control->loop, &call->watch, EPOLLIN) < 0) {
		call_free(call);
		return;
	}
	weft_loop_timer_set(control->loop, &call->timer, CALL_TIMEOUT_S * UINT64_C(1000000000));
}

/*
 * Binds the path, replacing what a dead daemon left.  A lock file beside it decides who is alive:
 * trying to connect would race with another daemon that has bound and not yet listened.
 */
static int bind_socket(struct weft_control *control)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char lock[sizeof(control->path) + 8];
	struct stat st;

	snprintf(lock, sizeof(lock), "%s.lock", control->path);
	for (;;) {
		control->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (control->lock_fd < 0)
			return -errno;
		if (flock(control->lock_fd, LOCK_EX | LOCK_NB) < 0)
			return errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
		if (fstat(control->lock_fd, &st) == 0 && st.st_nlink > 0)
			break;
		close(control->lock_fd); /* its last owner removed it between the two calls */
	}
	if (unlink(control->path) < 0 && errno != ENOENT)
		return -errno;
	memcpy(addr.sun_path, control->path, sizeof(addr.sun_path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	control->listen_fd = fd;
	/* On a socket fchmod(2) before bind(2) sets the mode that the file is made with. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
		chmod(control->path, 0600) < 0 || listen(fd, 16) < 0 ||
		stat(control->path, &st) < 0)
		return -errno;
	control->ino = st.st_ino;
	return 0;
}

int weft_control_new(struct weft_loop *loop, const char *name,
	void (*fn)(void *ctx, struct weft_control_call *call, const json_t *question), void *ctx,
	struct weft_control **ret, struct weft_error *err)
{
	struct weft_control *control = calloc(1, sizeof(*control));
	int r;

	if (!control)
		return weft_error_set(err, ENOMEM, "control socket %s: no memory", name);
	control->loop = loop;
	control->fn = fn;
	control->ctx = ctx;
	control->listen_fd = control->lock_fd = -1;
	control->acceptor.fn = on_connection;
	control->acceptor.flags = SOCK_NONBLOCK;
	control->acceptor.what = "questions at the control socket";
	r = socket_path(name, control->path, sizeof(control->path));
	if (r == 0)
		r = bind_socket(control);
	if (r == 0)
		r = weft_acceptor_start(&control->acceptor, loop, control->listen_fd);
	if (r < 0) {
		if (r == -EADDRINUSE)
			weft_error_set(err, -r, "another daemon has the control socket %s",
				control->path);
		else
			weft_error_set(err, -r, "cannot make control socket %s: %s",
				*control->path ? control->path : name, strerror(-r));
		weft_control_free(control);
		return r;
	}
	*ret = control;
	return 0;
}

void weft_control_free(struct weft_control *control)
{
	struct stat st;

	if (!control)
		return;
	for (struct weft_control_call *call = control->calls, *next; call; call = next) {
		next = call->next;
		if (call->state == CALL_THINKING) {
			/* weft_control_answer() is still to come. */
			call_hang_up(call);
			call->control = NULL;
		} else {
			call_free(call);
		}
	}
	weft_acceptor_stop(&control->acceptor);
	if (control->ino && stat(control->path, &st) == 0 && st.st_ino == control->ino)
		unlink(control->path);
	weft_close_fd(control->listen_fd);
	if (control->lock_fd >= 0) {
		char lock[sizeof(control->path) + 8];

		/* Removed while the lock is held, so that it cannot be another daemon's. */
		snprintf(lock, sizeof(lock), "%s.lock", control->path);
		if (control->ino)
			unlink(lock);
		close(control->lock_fd);
	}
	free(control);
}

static int wait_for(int fd, short events, uint64_t deadline_ns)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = events};
		uint64_t now = weft_now_ns();
		uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
		int n = poll(&p, 1, (int)((left + 999999) / 1000000));

		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

static int send_question(int fd, const char *text, size_t len, uint64_t deadline_ns)
{
	while (len > 0) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		int r;

		if (n >= 0) {
			text += n;
			len -= (size_t)n;
		} else if (errno == EAGAIN) {
			r = wait_for(fd, POLLOUT, deadline_ns);
			if (r < 0)
				return r;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

/* Receives until the line's end, or the stream's. */
static int receive_answer(int fd, char **ret, size_t *ret_len, uint64_t deadline_ns)
{
	size_t len = 0, room = 4096;
	WEFT_CLEANUP_FREE char *text = malloc(room);

	while (text) {
		int r = wait_for(fd, POLLIN, deadline_ns);

		if (r < 0)
			return r;
		ssize_t n = recv(fd, text + len, room - len, MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return -errno;
		if (n == 0 || memchr(text + len, '\n', (size_t)n)) {
			*ret_len = len + (size_t)n;
			*ret = text;
			text = NULL;
			return 0;
		}
		len += (size_t)n;
		if (len == room) {
			char *more = room < MAX_ANSWER ? realloc(text, 2 * room) : NULL;

			if (!more)
				return -EPROTO;
			text = more;
			room *= 2;
		}
	}
	return -ENOMEM;
}

int weft_control_ask(const char *name, const json_t *question, int timeout_ms, json_t **ret,
	struct weft_error *err)
{
	uint64_t deadline_ns = weft_now_ns() + (uint64_t)timeout_ms * 1000000;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	WEFT_CLEANUP_FREE char *text = NULL, *answer_text = NULL;
	size_t answer_len = 0;
	int r = socket_path(name, addr.sun_path, sizeof(addr.sun_path));

	if (r < 0)
		return weft_error_set(err, -r, "control socket %s: %s", name, strerror(-r));
	text = json_dumps(question, JSON_COMPACT);
	WEFT_CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (!text || fd < 0)
		return weft_error_set(err, ENOMEM, "control socket %s: no memory or descriptors",
			name);
	weft_debug("%s is asked: %s", name, text);
	/* EAGAIN: its backlog is full. */
	while ((r = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0) ==
			-EINTR ||
		(r == -EAGAIN && weft_now_ns() < deadline_ns))
		poll(NULL, 0, 5);
	if (r == -EAGAIN)
		r = -ETIMEDOUT;
	if (r == 0) {
		size_t len = strlen(text);

		text[len] = '\n'; /* in the NUL's place */
		r = send_question(fd, text, len + 1, deadline_ns);
	}
	if (r == 0)
		r = receive_answer(fd, &answer_text, &answer_len, deadline_ns);
	if (r < 0)
		return weft_error_set(err, -r, "asking the daemon behind %s: %s", addr.sun_path,
			strerror(-r));
	weft_debug("%s answers: %.*s", name, (int)answer_len, answer_text);
	json_t *answer = json_loadb(answer_text, answer_len, 0, NULL);
	if (!json_is_object(answer)) {
		json_decref(answer);
		return weft_error_set(err, EPROTO, "the daemon behind %s did not answer in JSON",
			addr.sun_path);
	}
	const char *error = json_string_value(json_object_get(answer, "error"));
	if (error) {
		int code = (int)json_integer_value(json_object_get(answer, "code"));

		r = weft_error_set(err, code > 0 ? code : EIO, "%s", error);
		json_decref(answer);
		return r;
	}
	*ret = answer;
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_between(const char *name, const char *prefix, const char *suffix)
{
	size_t n = strlen(name), begin = strlen(prefix), end = strlen(suffix);

	return n > begin + end && strncmp(name, prefix, begin) == 0 &&
		strcmp(name + n - end, suffix) == 0;
}

int weft_control_each(const char *prefix, int (*fn)(void *ctx, const char *name), void *ctx)
{
	return weft_run_dir_each(prefix, ".sock", fn, ctx);
}

int weft_run_dir_each(const char *prefix, const char *suffix,
	int (*fn)(void *ctx, const char *name), void *ctx)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char **names = NULL;
	size_t nr = 0;
	int r = weft_run_dir(path, sizeof(path));

	if (r < 0)
		return r;
	DIR *dir = opendir(path);
	if (!dir)
		return -errno;
	for (struct dirent *e; r == 0 && (e = readdir(dir));) {
		if (!is_between(e->d_name, prefix, suffix))
			continue;
		char **more = reallocarray(names, nr + 1, sizeof(*names));
		char *name = strdup(e->d_name);
		if (more)
			names = more;
		if (more && name)
			names[nr++] = name;
		else {
			free(name);
			r = -ENOMEM;
		}
	}
	closedir(dir);
	if (nr > 0)
		qsort(names, nr, sizeof(*names), compare_names);
	for (size_t i = 0; i < nr && r == 0; i++)
		r = fn(ctx, names[i]);
	for (size_t i = 0; i < nr; i++)
		free(names[i]);
	free(names);
	return r;
}
