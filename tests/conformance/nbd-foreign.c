/* SPDX-License-Identifier: MIT */
/*
 * Conformance of the transport "nbd" at a server that knows nothing of weft: nbdkit's memory
 * plugin, as a stock client.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <poll.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "tests/conformance/suite.h"
#include "transports/nbd/borrower/client.h"

struct peer {
	pid_t pid;
	char dir[32];
	char path[64];
};

static const char *const *options;

static bool answers(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, path);
	int r = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	close(fd);
	return r == 0;
}

static void start_nbdkit(struct conf *conf, const char *const *arguments)
{
	struct peer *peer = test_calloc(1, sizeof(*peer));
	const char *argv[24] = {"nbdkit", "--foreground", "--exit-with-parent", "--unix",
		peer->path};
	unsigned nr = 5;

	strcpy(peer->dir, "/tmp/weft-conf.XXXXXX");
	assert_non_null(mkdtemp(peer->dir));
	snprintf(peer->path, sizeof(peer->path), "%s/s", peer->dir);
	for (; *arguments; arguments++)
		argv[nr++] = *arguments;
	argv[nr] = NULL;
	peer->pid = fork();
	assert_return_code(peer->pid, 0);
	if (peer->pid == 0) {
		if (freopen("/dev/null", "w", stderr)) /* it complains of each client that leaves */
			execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	uint64_t end = weft_now_ns() + CONF_BOUND_MS * UINT64_C(1000000);
	while (!answers(peer->path)) {
		if (weft_now_ns() > end || waitpid(peer->pid, NULL, WNOHANG) != 0)
			fail_msg("nbdkit does not start");
		poll(NULL, 0, 5);
	}
	conf->peer = peer;
	conf->ops = &tp_nbd_ops;
	conf->size_bytes = CONF_REGION_BYTES;
	conf->target.host = peer->path;
	conf->target.region = "";
	conf->target.hello.anonymous = true;
}

static void start(struct conf *conf)
{
	static const char *const arguments[] = {"memory", "8M", NULL};

	start_nbdkit(conf, options ? options : arguments);
}

static void stop(struct conf *conf)
{
	struct peer *peer = conf->peer;

	kill(peer->pid, SIGTERM);
	waitpid(peer->pid, NULL, 0);
	unlink(peer->path);
	rmdir(peer->dir);
	test_free(peer);
}

/* weft:// at a plain server: an answer that says what to do instead. */
static void a_session_at_a_foreign_server_is_refused(void **state)
{
	struct conf *conf = *state;
	struct weft_error why;

	conf->target.hello.anonymous = false;
	assert_int_equal(conf_refused(conf, &conf->target, &why), -EPROTONOSUPPORT);
	assert_non_null(strstr(why.message, "nbd://"));
}

static void a_killed_server_fails_what_is_in_flight(void **state)
{
	struct conf *conf = *state;
	struct peer *peer = conf->peer;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	struct conf_op ops[32];
	int status;

	/* Stopped, so that the operations are in flight for certain. */
	kill(peer->pid, SIGSTOP);
	assert_int_equal(waitpid(peer->pid, &status, WUNTRACED), peer->pid);
	assert_true(WIFSTOPPED(status));
	for (unsigned i = 0; i < 32; i++) {
		conf_op(conf, &ops[i], i % 2 ? TP_READ : TP_WRITE, i * 65536, 65536,
			conf->buf + i * 65536);
		conf_post(conn, &ops[i]);
	}
	kill(peer->pid, SIGKILL);
	conf_drain(conn);
	for (unsigned i = 0; i < 32; i++) {
		assert_int_equal(ops[i].nr_done, 1);
		assert_int_equal(ops[i].op.status, -ENOTCONN);
	}
	conf_end(conn);
	assert_int_equal(waitpid(peer->pid, NULL, 0), peer->pid);
	assert_int_equal(conf_refused(conf, &conf->target, NULL), -ECONNREFUSED);
	peer->pid = fork(); /* something for stop() to end */
	if (peer->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
		_exit(0);
	}
}

int main(void)
{
	static const struct conf_fixture plain = {.name = "nbd-foreign",
		.start = start,
		.stop = stop};
	/* A server that can do little, has simple replies only and wants blocks. */
	static const struct conf_fixture poor = {.name = "nbd-foreign-poor",
		.start = start,
		.stop = stop};
	static const char *const poor_arguments[] = {"--no-sr", "--filter=blocksize-policy",
		"--filter=nozero", "--filter=nocache", "memory", "8M", "blocksize-minimum=512",
		"blocksize-preferred=4096", "blocksize-maximum=1M", "blocksize-error-policy=error",
		"zeromode=none", "cachemode=none", NULL};
	const struct CMUnitTest own[] = {
		conf_case(a_session_at_a_foreign_server_is_refused),
		conf_case(a_killed_server_fails_what_is_in_flight),
	};

	if (system("nbdkit --version >/dev/null 2>&1") != 0) {
		printf("SKIP: nbdkit is not installed\n");
		return 77;
	}
	int r = conf_run(&plain, own, WEFT_ARRAY_LEN(own));
	options = poor_arguments;
	return conf_run(&poor, NULL, 0) | r;
}
