/* SPDX-License-Identifier: MIT */
/* A verbs donor in another process, and its borrower in this one; see verbs-process.h. */
#include "tests/conformance/verbs-process.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rdma/rdma_verbs.h>

#include "fabric/base/util.h"
#include "fabric/key/store.h"
#include "transports/verbs/donor/listener.h"
#include "transports/verbs/verbs.h"

const char *peer_rdma_ip;
extern char **environ;

/* A driver that takes its time before it ends a connection: the donor's (WEFT_SLOW_MS). */
int __real_rdma_disconnect(struct rdma_cm_id *id);
int __wrap_rdma_disconnect(struct rdma_cm_id *id);
static int slow_ms;

int __wrap_rdma_disconnect(struct rdma_cm_id *id)
{
	if (slow_ms)
		poll(NULL, 0, slow_ms);
	return __real_rdma_disconnect(id);
}

/*
 * And one that takes its time to register what is larger than a page: the donor's
 * (WEFT_SLOW_REGISTER_MS).
 */
struct ibv_mr *__real_ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t len, uint64_t iova,
	unsigned access);
struct ibv_mr *__wrap_ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t len, uint64_t iova,
	unsigned access);
static int slow_register_ms;

struct ibv_mr *__wrap_ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t len, uint64_t iova,
	unsigned access)
{
	if (slow_register_ms && len > (size_t)sysconf(_SC_PAGESIZE))
		poll(NULL, 0, slow_register_ms);
	return __real_ibv_reg_mr_iova2(pd, addr, len, iova, access);
}

/* ---- the donor ---- */

struct donor_main {
	struct weft_loop *loop;
	struct weft_donor *donor;
	struct weft_timer timer;
};

static void on_tick(struct weft_timer *timer)
{
	struct donor_main *d = weft_container_of(timer, struct donor_main, timer);

	weft_donor_tick(d->donor, weft_now_ns());
	weft_loop_timer_set(d->loop, timer, 50 * UINT64_C(1000000));
}

static int donor_main(char **args)
{
	struct weft_donor_config config = {.lease_ms = (uint32_t)atoi(args[2]),
		.offers = "tcp,rdma", .allow_insecure = !getenv("WEFT_KEYS")};
	const struct weft_memory_spec spec = {.name = "r",
		.size_bytes = strtoull(args[0], NULL, 0)};
	const struct verbs_listener_config listen = {
		.chunk_bytes = strtoull(args[1], NULL, 0), .handshake_ms = 2000};
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct donor_main d = {.timer.fn = on_tick};
	struct verbs_listener *listener;
	struct weft_region *region;
	struct weft_error err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getenv("WEFT_POOR")) { /* a user who may lock no more than this */
		const struct rlimit limit = {1 << 20, 1 << 20};

		if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 || seteuid(65534) < 0)
			return 1;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	}
	if (getenv("WEFT_SLOW_MS"))
		slow_ms = atoi(getenv("WEFT_SLOW_MS"));
	if (getenv("WEFT_SLOW_REGISTER_MS"))
		slow_register_ms = atoi(getenv("WEFT_SLOW_REGISTER_MS"));
	inet_pton(AF_INET, peer_rdma_ip, &address.sin_addr);
	if (getenv("WEFT_KEYS") && weft_keys_open(getenv("WEFT_KEYS"), &config.keys, &err) < 0) {
		fprintf(stderr, "donor: %s\n", err.message);
		return 1;
	}
	if (weft_loop_new(&d.loop) < 0 || weft_donor_new(&config, &d.donor) < 0 ||
		weft_region_new_memory(&spec, NULL, NULL, &region, &err) < 0 ||
		weft_donor_add(d.donor, region, &err) < 0 ||
		verbs_listener_new(d.donor, d.loop, (struct sockaddr *)&address, &listen, &listener,
			&err) < 0) {
		fprintf(stderr, "donor: %s\n", err.message);
		return 1;
	}
	dprintf(1, "%u\n", verbs_listener_port(listener));
	on_tick(&d.timer);
	return weft_loop_run(d.loop) < 0;
}

/* ---- its borrower ---- */

static void start_donor(struct peer *peer, const char *size, const char *chunk, const char *lease)
{
	char *argv[] = {"verbs-donor", "donor", (char *)size, (char *)chunk, (char *)lease, NULL};
	posix_spawn_file_actions_t actions;
	int fds[2];
	ssize_t n;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
	assert_int_equal(posix_spawn(&peer->pid, "/proc/self/exe", &actions, NULL, argv, environ),
		0);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	n = read(fds[0], peer->port, sizeof(peer->port) - 1);
	close(fds[0]);
	if (n <= 0)
		fail_msg("the donor did not start");
	peer->port[n - 1] = '\0';
}

void peer_stop_donor(struct peer *peer)
{
	if (peer->pid <= 0)
		return;
	kill(peer->pid, SIGKILL);
	waitpid(peer->pid, NULL, 0);
	peer->pid = 0;
}

struct peer *peer_new(const char *size, const char *chunk, const char *lease)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	struct weft_error err;

	assert_non_null(peer);
	start_donor(peer, size, chunk, lease);
	peer->buf =
		mmap(NULL, BUF_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(peer->buf, MAP_FAILED);
	if (tp_open(&tp_verbs_ops, NULL, &peer->tp, &err) < 0 ||
		tp_register(peer->tp, peer->buf, BUF_BYTES, &peer->mem, &err) < 0)
		fail_msg("%s", err.message);
	peer->target = (struct tp_target){
		.host = peer_rdma_ip,
		.port = peer->port,
		.region = "r",
		.hello = {.generation = UINT64_C(1) << 32, .mode = WEFT_MODE_WRITE, .name = "life"},
		.connect_timeout_ms = 10000,
	};
	return peer;
}

void peer_free(struct peer *peer)
{
	assert_int_equal(tp_deregister(peer->mem), 0);
	tp_close(peer->tp);
	munmap(peer->buf, BUF_BYTES);
	peer_stop_donor(peer);
	free(peer);
}

int peer_pump(struct tp_conn *conn, int timeout_ms)
{
	struct tp_op *done[NR_OPS];
	int n = tp_progress(conn, done, NR_OPS), events;

	for (int i = 0; i < n; i++)
		*(int *)done[i]->user += 1;
	if (n > 0)
		return n;
	events = tp_arm(conn);
	if (events) {
		struct pollfd fd = {.fd = tp_event_fd(conn), .events = (short)events};

		poll(&fd, 1, timeout_ms);
	}
	return 0;
}

uint64_t peer_bound_ns(uint64_t ms)
{
	return weft_now_ns() + ms * UINT64_C(1000000);
}

struct tp_conn *peer_try_connect(struct peer *peer)
{
	uint64_t end_ns = peer_bound_ns(BOUND_MS);
	struct weft_error err;
	struct tp_conn *conn;

	if (tp_connect(peer->tp, &peer->target, &conn, &err) < 0)
		fail_msg("%s", err.message);
	while (tp_state(conn) == TP_CONNECTING) {
		assert_true(weft_now_ns() < end_ns);
		peer_pump(conn, 100);
	}
	return conn;
}

struct tp_conn *peer_connect(struct peer *peer)
{
	struct tp_conn *conn = peer_try_connect(peer);

	if (tp_state(conn) != TP_READY)
		fail_msg("%s", conn->why.message);
	return conn;
}

void peer_finish(struct tp_conn *conn)
{
	uint64_t end_ns = peer_bound_ns(BOUND_MS);

	tp_shutdown(conn);
	while (conn->nr_outstanding > 0) {
		assert_true(weft_now_ns() < end_ns);
		peer_pump(conn, 100);
	}
	tp_disconnect(conn);
}

int peer_run(struct peer *peer, struct tp_conn *conn, enum tp_op_kind kind, uint64_t off,
	uint64_t len, void *buf)
{
	int done = 0;
	struct tp_op op =
		{.kind = kind, .off = off, .len = len, .buf = buf, .mem = peer->mem, .user = &done};
	struct tp_op *ops[] = {&op};
	uint64_t end_ns = peer_bound_ns(BOUND_MS);
	int r = tp_post(conn, ops, 1);

	if (r < 0)
		return r;
	while (!done) {
		assert_true(weft_now_ns() < end_ns);
		peer_pump(conn, 100);
	}
	return op.status;
}

void peer_fill(uint8_t *buf, uint64_t off, size_t len, uint64_t stamp)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = (off + i) * UINT64_C(0x9e3779b97f4a7c15) ^ stamp;

		memcpy(buf + i, &word, 8);
	}
}

void peer_check(const uint8_t *buf, uint64_t off, size_t len, uint64_t stamp)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = (off + i) * UINT64_C(0x9e3779b97f4a7c15) ^ stamp;

		if (memcmp(buf + i, &word, 8) != 0)
			fail_msg("wrong bytes at %ju", (uintmax_t)(off + i));
	}
}

int peer_main(int argc, char **argv)
{
	peer_rdma_ip = getenv("RDMA_IP");
	if (!peer_rdma_ip) {
		printf("SKIP: RDMA_IP does not name the address of an RDMA device\n");
		return 77;
	}
	/* What it said is there if it takes too long. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	return argc == 5 && strcmp(argv[1], "donor") == 0 ? donor_main(argv + 2) : -1;
}
