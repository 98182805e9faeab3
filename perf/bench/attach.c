/* SPDX-License-Identifier: MIT */
/*
 * Bridges are those of `weft attach`, started and ended as a user would.  One thread; blocks.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/control.h"
#include "fabric/base/util.h"
#include "perf/bench/bench.h"
#include "perf/bench/json.h"

enum { ANSWER_MS = 5000, SAID_MAX = 8192, RELEASE_MS = 5000 };

void bench_program(const char *leaf, char path[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 32);

	if (n < 0)
		n = 0;
	path[n] = '\0';
	char *slash = strrchr(path, '/');
	strcpy(slash ? slash + 1 : path, leaf);
}

/* Runs it to its end; all that it says into said.  Its exit status, or -errno. */
static int call(const char *const argv[], char said[SAID_MAX])
{
	size_t have = 0;
	int fds[2], how = 0;
	ssize_t n;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	pid_t pid = fork();
	if (pid == 0) {
		/*
		 * Ctrl-C, and the terminal's end, are for the bench, which ends what it started in
		 * order.
		 */
		signal(SIGINT, SIG_IGN);
		signal(SIGHUP, SIG_IGN);
		dup2(fds[1], STDOUT_FILENO);
		dup2(fds[1], STDERR_FILENO);
		execv(argv[0], (char *const *)argv);
		dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	close(fds[1]);
	if (pid < 0) {
		close(fds[0]);
		return -errno;
	}
	while ((n = read(fds[0], said + have, SAID_MAX - 1 - have)) > 0 ||
		(n < 0 && errno == EINTR))
		have += n > 0 ? (size_t)n : 0;
	said[have] = '\0';
	close(fds[0]);
	while (waitpid(pid, &how, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(how) ? WEXITSTATUS(how) : 128;
}

/* The first line that is no warning, without "weft-attach: ", for an error. */
static const char *reason(char *said)
{
	static const char head[] = "weft-attach: ", warning[] = "weft-attach: warning: ";

	while (strncmp(said, warning, sizeof(warning) - 1) == 0 && strchr(said, '\n'))
		said = strchr(said, '\n') + 1;
	said[strcspn(said, "\n")] = '\0';
	return strncmp(said, head, sizeof(head) - 1) == 0 ? said + sizeof(head) - 1 : said;
}

/* What the bridge tells about itself. */
static int ask(struct bench_bridge *bridge, struct weft_error *err)
{
	char name[128];
	json_t *question = json_pack("{s:s}", "op", "status"), *answer;

	snprintf(name, sizeof(name), "attach-%s.sock", bridge->name);
	int r = weft_control_ask(name, question, ANSWER_MS, &answer, err);
	json_decref(question);
	if (r < 0)
		return r;
	bridge->pid = (pid_t)json_integer_value(json_object_get(answer, "pid"));
	snprintf(bridge->transport, sizeof(bridge->transport), "%s", text_of(answer, "transport"));
	snprintf(bridge->why, sizeof(bridge->why), "%s", text_of(answer, "transport_why"));
	snprintf(bridge->device, sizeof(bridge->device), "%s", text_of(answer, "device"));
	bridge->nr_lanes = (unsigned)json_array_size(json_object_get(answer, "lanes"));
	snprintf(bridge->path, sizeof(bridge->path), "%s",
		text_of(json_array_get(json_object_get(answer, "lanes"), 0), "path"));
	json_decref(answer);
	return 0;
}

int bench_attach(const struct bench_options *o, const char *transport,
	const bool fronts[BENCH_NR_FRONTS], const char *cache, const char *dir,
	struct bench_bridge *ret, struct weft_error *err)
{
	char path[PATH_MAX], file[PATH_MAX], said[SAID_MAX];
	const char *argv[24], *device = NULL;
	unsigned n = 0;
	int r;

	for (int front = BENCH_NBD; front <= BENCH_UBLK; front++)
		if (fronts[front])
			device = bench_front_names[front];
	memset(ret, 0, sizeof(*ret));
	snprintf(ret->name, sizeof(ret->name), "bench-%d", (int)getpid());
	bench_program("weft-attach", path);
	argv[n++] = path;
	argv[n++] = o->uri_text;
	argv[n++] = "--name";
	argv[n++] = ret->name;
	argv[n++] = "--transport";
	argv[n++] = transport;
	if (o->read_only)
		argv[n++] = "--read-only";
	if (o->key_file) {
		argv[n++] = "--key";
		argv[n++] = o->key_file;
	}
	if (o->allow_insecure)
		argv[n++] = "--allow-insecure";
	if (fronts[BENCH_SOCKET]) {
		snprintf(ret->socket, sizeof(ret->socket), "%s/socket", dir);
		argv[n++] = "--socket";
		argv[n++] = ret->socket;
	}
	if (fronts[BENCH_FILE]) {
		snprintf(ret->file, sizeof(ret->file), "%s/file", dir);
		argv[n++] = "--mount";
		argv[n++] = ret->file;
	}
	if (device) {
		argv[n++] = "--device-kind";
		argv[n++] = device;
	}
	if (cache) {
		argv[n++] = "--cache";
		argv[n++] = cache;
	}
	/* A device outlives its bridge, and so must what is not written back. */
	if (cache && device) {
		snprintf(file, sizeof(file), "%s/cache", dir);
		argv[n++] = "--cache-file";
		argv[n++] = file;
	}
	argv[n] = NULL;
	uint64_t start_ns = weft_now_ns(), until_ns = start_ns + RELEASE_MS * UINT64_C(1000000);
	char ours[160];
	snprintf(ours, sizeof(ours), "is held by writer '%s'", ret->name);
	/* A donor that is busy may not have read our last connection's goodbye yet. */
	while ((r = call(argv, said)) != 0 && strstr(said, ours) && weft_now_ns() < until_ns) {
		usleep(50000);
		start_ns = weft_now_ns();
	}
	if (r != 0)
		return weft_error_set(err, EIO, "%.400s", reason(said));
	ret->ready_ns = weft_now_ns() - start_ns;
	ret->up = true;
	r = ask(ret, err);
	if (r < 0)
		bench_detach(ret);
	return r;
}

void bench_detach(struct bench_bridge *bridge)
{
	char path[PATH_MAX], said[SAID_MAX];
	const char *const argv[] = {path, "--force", bridge->name, NULL};

	if (!bridge->up)
		return;
	bench_program("weft-detach", path);
	if (call(argv, said) != 0)
		fprintf(stderr, "weft-bench: the attachment '%s' did not end: %s\n", bridge->name,
			reason(said));
	bridge->up = false;
}

struct search {
	const char *name;
	pid_t pid;
};

static int look_at_donor(void *ctx, const char *socket)
{
	struct search *search = ctx;
	json_t *question = json_pack("{s:s}", "op", "status"), *answer, *one;
	int r = weft_control_ask(socket, question, ANSWER_MS, &answer, NULL);
	size_t i;

	json_decref(question);
	if (r < 0)
		return 0;
	json_array_foreach(json_object_get(answer, "attachments"), i, one)
		if (strcmp(text_of(one, "name"), search->name) == 0)
			search->pid = (pid_t)json_integer_value(json_object_get(answer, "pid"));
	json_decref(answer);
	return 0;
}

pid_t bench_local_donor(const char *name)
{
	struct search search = {.name = name};

	weft_control_each("serve-", look_at_donor, &search);
	return search.pid;
}
