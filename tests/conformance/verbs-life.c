/* SPDX-License-Identifier: MIT */
/*
 * The verbs transport when things go wrong, against a donor in another process: stopped, killed,
 * revoked, cut off; and against peers that do not keep to the protocol.  Needs RDMA_IP, as verbs.c
 * does.  With the argument `interface` or `device` it takes that away, for good:
 * tests/shell/verbs-life.sh.  The donor is this program too: `donor SIZE CHUNK LEASE_MS`, with the
 * keys of the directory $WEFT_KEYS.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <rdma/rdma_verbs.h>

#include "fabric/base/util.h"
#include "fabric/key/store.h"
#include "transports/verbs/donor/listener.h"
#include "transports/verbs/proto.h"
#include "transports/verbs/verbs.h"

enum { BOUND_MS = 30000, BUF_BYTES = 32 << 20, NR_OPS = 16, NR_ROUNDS = 60 };

static const char *rdma_ip;
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

/* The donor. */

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
	inet_pton(AF_INET, rdma_ip, &address.sin_addr);
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

struct peer {
	pid_t pid;
	char port[8];
	struct tp *tp;
	uint8_t *buf;
	struct tp_mem *mem;
	struct tp_target target;
};

static void start_donor(struct peer *peer, const char *size, const char *chunk, const char *lease)
{
	char *argv[] = {"verbs-life", "donor", (char *)size, (char *)chunk, (char *)lease, NULL};
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

static void stop_donor(struct peer *peer)
{
	if (peer->pid <= 0)
		return;
	kill(peer->pid, SIGKILL);
	waitpid(peer->pid, NULL, 0);
	peer->pid = 0;
}

/* state: the donor's words, "SIZE CHUNK LEASE". */
static struct peer *set_up(const char *size, const char *chunk, const char *lease)
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
		.host = rdma_ip,
		.port = peer->port,
		.region = "r",
		.hello = {.generation = UINT64_C(1) << 32, .mode = WEFT_MODE_WRITE, .name = "life"},
		.connect_timeout_ms = 10000,
	};
	return peer;
}

static void tear_down(struct peer *peer)
{
	assert_int_equal(tp_deregister(peer->mem), 0);
	tp_close(peer->tp);
	munmap(peer->buf, BUF_BYTES);
	stop_donor(peer);
	free(peer);
}

/* Waits once; returns how many completed. */
static int pump(struct tp_conn *conn, int timeout_ms)
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

static uint64_t bound_ns(uint64_t ms)
{
	return weft_now_ns() + ms * UINT64_C(1000000);
}

static struct tp_conn *try_connect(struct peer *peer)
{
	uint64_t end_ns = bound_ns(BOUND_MS);
	struct weft_error err;
	struct tp_conn *conn;

	if (tp_connect(peer->tp, &peer->target, &conn, &err) < 0)
		fail_msg("%s", err.message);
	while (tp_state(conn) == TP_CONNECTING) {
		assert_true(weft_now_ns() < end_ns);
		pump(conn, 100);
	}
	return conn;
}

static struct tp_conn *connect_ready(struct peer *peer)
{
	struct tp_conn *conn = try_connect(peer);

	if (tp_state(conn) != TP_READY)
		fail_msg("%s", conn->why.message);
	return conn;
}

static void finish(struct tp_conn *conn)
{
	uint64_t end_ns = bound_ns(BOUND_MS);

	tp_shutdown(conn);
	while (conn->nr_outstanding > 0) {
		assert_true(weft_now_ns() < end_ns);
		pump(conn, 100);
	}
	tp_disconnect(conn);
}

/* The status, or what tp_post() said. */
static int run_op(struct peer *peer, struct tp_conn *conn, enum tp_op_kind kind, uint64_t off,
	uint64_t len, void *buf)
{
	int done = 0;
	struct tp_op op =
		{.kind = kind, .off = off, .len = len, .buf = buf, .mem = peer->mem, .user = &done};
	struct tp_op *ops[] = {&op};
	uint64_t end_ns = bound_ns(BOUND_MS);
	int r = tp_post(conn, ops, 1);

	if (r < 0)
		return r;
	while (!done) {
		assert_true(weft_now_ns() < end_ns);
		pump(conn, 100);
	}
	return op.status;
}

static void fill(uint8_t *buf, uint64_t off, size_t len, uint64_t stamp)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = (off + i) * UINT64_C(0x9e3779b97f4a7c15) ^ stamp;

		memcpy(buf + i, &word, 8);
	}
}

static void check(const uint8_t *buf, uint64_t off, size_t len, uint64_t stamp)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = (off + i) * UINT64_C(0x9e3779b97f4a7c15) ^ stamp;

		if (memcmp(buf + i, &word, 8) != 0)
			fail_msg("wrong bytes at %ju", (uintmax_t)(off + i));
	}
}

/* Ticks of the processor that the donor, which is stopped, has used. */
static unsigned long cpu_of_stopped(pid_t pid)
{
	char path[64], text[1024], how;
	unsigned long user, sys;
	uint64_t end_ns = bound_ns(BOUND_MS);

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	do {
		FILE *file = fopen(path, "re");

		assert_true(file && weft_now_ns() < end_ns);
		assert_non_null(fgets(text, sizeof(text), file));
		fclose(file);
		assert_int_equal(sscanf(strrchr(text, ')') + 2,
					 "%c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &how,
					 &user, &sys),
			3);
	} while (how != 'T'); /* signals take their time */
	return user + sys;
}

static void one_sided_means_that_the_donor_may_sleep(void **state)
{
	struct peer *peer = set_up("67108864", "16777216", "60000");
	struct tp_conn *conn = connect_ready(peer);
	const uint64_t size = 64 * WEFT_MIB, step = 8 * WEFT_MIB;

	assert_true(conn->info.one_sided);
	print_message("path: %s\n", conn->info.path);
	assert_int_equal(kill(peer->pid, SIGSTOP), 0);
	unsigned long before = cpu_of_stopped(peer->pid);
	for (uint64_t pass = 0; pass < 4; pass++) {
		for (uint64_t off = 0; off < size; off += step) {
			fill(peer->buf, off, step, pass);
			assert_int_equal(run_op(peer, conn, TP_WRITE, off, step, peer->buf), 0);
		}
		assert_int_equal(run_op(peer, conn, TP_FLUSH, 0, 0, NULL), 0);
		assert_int_equal(run_op(peer, conn, TP_PROBE, 0, 0, NULL), 0);
		assert_int_equal(run_op(peer, conn, TP_ZERO, 4096, 4096, NULL), 0);
		for (uint64_t off = 0; off < size; off += step) {
			memset(peer->buf, 0xee, step);
			assert_int_equal(run_op(peer, conn, TP_READ, off, step, peer->buf), 0);
			if (off == 0) {
				for (unsigned i = 4096; i < 8192; i++)
					assert_int_equal(peer->buf[i], 0);
				check(peer->buf, 0, 4096, pass);
				check(peer->buf + 8192, 8192, step - 8192, pass);
			} else {
				check(peer->buf, off, step, pass);
			}
		}
	}
	assert_int_equal(cpu_of_stopped(peer->pid), before);
	kill(peer->pid, SIGCONT);
	finish(conn);
	tear_down(peer);
}

static void a_region_of_many_registrations_is_one(void **state)
{
	/* 1024 chunks: more than one message holds. */
	struct peer *peer = set_up("268435456", "262144", "60000");
	struct tp_conn *conn = connect_ready(peer);
	const uint64_t size = 256 * WEFT_MIB;

	assert_int_equal(conn->info.size_bytes, size);
	for (uint64_t off = 262144 - 4096; off + 8192 <= size; off += 262144) {
		fill(peer->buf, off, 8192, 5);
		assert_int_equal(run_op(peer, conn, TP_WRITE, off, 8192, peer->buf), 0);
	}
	for (uint64_t off = 262144 - 4096; off + 8192 <= size; off += 262144) {
		memset(peer->buf, 0, 8192);
		assert_int_equal(run_op(peer, conn, TP_READ, off, 8192, peer->buf), 0);
		check(peer->buf, off, 8192, 5);
	}
	finish(conn);
	tear_down(peer);
}

static void registering_may_take_longer_than_the_lease(void **state)
{
	const uint64_t lease_ns = 1000 * UINT64_C(1000000);

	setenv("WEFT_SLOW_REGISTER_MS", "3000", 1);
	struct peer *peer = set_up("16777216", "0", "1000");
	unsetenv("WEFT_SLOW_REGISTER_MS");
	peer->target.connect_timeout_ms = BOUND_MS;
	uint64_t start_ns = weft_now_ns();
	struct tp_conn *conn = connect_ready(peer);

	assert_true(weft_now_ns() - start_ns > 2 * lease_ns);
	fill(peer->buf, 0, 4096, 3);
	assert_int_equal(run_op(peer, conn, TP_WRITE, 0, 4096, peer->buf), 0);
	memset(peer->buf, 0, 4096);
	assert_int_equal(run_op(peer, conn, TP_READ, 0, 4096, peer->buf), 0);
	check(peer->buf, 0, 4096, 3);
	finish(conn);
	tear_down(peer);
}

static void three_gibibytes_need_several_registrations(void **state)
{
	long pages = sysconf(_SC_AVPHYS_PAGES);

#ifdef __SANITIZE_THREAD__
	print_message("\nSKIP: under the thread sanitizer the donor zeroes 1 GiB in over 30 s\n");
	skip();
#endif
	if (pages > 0 && (uint64_t)pages * 4096 < 7 * WEFT_GIB / 2) {
		print_message("\nSKIP: 3 GiB need more memory than there is\n");
		skip();
	}
	struct peer *peer = set_up("3221225472", "0", "60000");
	struct tp_conn *conn = connect_ready(peer);

	assert_int_equal(conn->info.size_bytes, 3 * WEFT_GIB);
	for (uint64_t chunk = 1; chunk < 6; chunk++) {
		uint64_t off = chunk * 512 * WEFT_MIB - WEFT_MIB;

		fill(peer->buf, off, 2 * WEFT_MIB, chunk);
		assert_int_equal(run_op(peer, conn, TP_WRITE, off, 2 * WEFT_MIB, peer->buf), 0);
	}
	fill(peer->buf, 3 * WEFT_GIB - 4096, 4096, 9);
	assert_int_equal(run_op(peer, conn, TP_WRITE, 3 * WEFT_GIB - 4096, 4096, peer->buf), 0);
	for (uint64_t chunk = 1; chunk < 6; chunk++) {
		uint64_t off = chunk * 512 * WEFT_MIB - WEFT_MIB;

		memset(peer->buf, 0, 2 * WEFT_MIB);
		assert_int_equal(run_op(peer, conn, TP_READ, off, 2 * WEFT_MIB, peer->buf), 0);
		check(peer->buf, off, 2 * WEFT_MIB, chunk);
	}
	assert_int_equal(run_op(peer, conn, TP_READ, 3 * WEFT_GIB - 4096, 4096, peer->buf), 0);
	check(peer->buf, 3 * WEFT_GIB - 4096, 4096, 9);
	/* A ZERO that the donor carries out. */
	assert_int_equal(run_op(peer, conn, TP_ZERO, 512 * WEFT_MIB, 1024 * WEFT_MIB, NULL), 0);
	assert_int_equal(run_op(peer, conn, TP_READ, 511 * WEFT_MIB, 2 * WEFT_MIB, peer->buf), 0);
	check(peer->buf, 511 * WEFT_MIB, WEFT_MIB, 1);
	for (uint64_t i = WEFT_MIB; i < 2 * WEFT_MIB; i++)
		assert_int_equal(peer->buf[i], 0);
	finish(conn);
	tear_down(peer);
}

/* Posts NR_OPS READs and WRITEs of 1 MiB, runs `blow`, and expects all back within limit_ms. */
static void blow_up(struct peer *peer, struct tp_conn *conn, void (*blow)(struct peer *peer),
	unsigned limit_ms)
{
	struct tp_op op[NR_OPS];
	int done[NR_OPS] = {0};

	for (unsigned i = 0; i < NR_OPS; i++) {
		struct tp_op *ops[] = {&op[i]};

		op[i] = (struct tp_op){
			.kind = i % 2 ? TP_READ : TP_WRITE,
			.off = i * WEFT_MIB,
			.len = WEFT_MIB,
			.buf = peer->buf + i * WEFT_MIB,
			.mem = peer->mem,
			.user = &done[i],
		};
		assert_int_equal(tp_post(conn, ops, 1), 1);
	}
	blow(peer);
	uint64_t start_ns = weft_now_ns(), end_ns = bound_ns(BOUND_MS);
	while (conn->nr_outstanding > 0 && weft_now_ns() < end_ns)
		pump(conn, 100);
	uint64_t took_ms = (weft_now_ns() - start_ns) / 1000000;
	unsigned nr_failed = 0;
	for (unsigned i = 0; i < NR_OPS; i++) {
		assert_int_equal(done[i], 1);
		if (op[i].status == 0)
			continue;
		nr_failed++;
		if (op[i].status != -ENOTCONN)
			assert_int_equal(op[i].status, -ETIMEDOUT);
	}
	print_message("%u of %u failed, after %ju ms: %s\n", nr_failed, NR_OPS, (uintmax_t)took_ms,
		tp_state(conn) == TP_FAILED ? conn->why.message : "(alive)");
	/* What was fast enough may have passed; the connection is dead all the same. */
	while (tp_state(conn) != TP_FAILED && weft_now_ns() < end_ns)
		run_op(peer, conn, TP_PROBE, 0, 0, NULL);
	took_ms = (weft_now_ns() - start_ns) / 1000000;
	assert_int_equal(tp_state(conn), TP_FAILED);
	assert_true(took_ms <= limit_ms);
	assert_true(run_op(peer, conn, TP_PROBE, 0, 0, NULL) == -ENOTCONN);
}

static void kill_donor(struct peer *peer)
{
	stop_donor(peer);
}

static void a_killed_donor_is_known_at_once(void **state)
{
	struct peer *peer = set_up("67108864", "0", "60000");
	struct tp_conn *conn = connect_ready(peer);

	blow_up(peer, conn, kill_donor, 3000);
	finish(conn);
	conn = try_connect(peer);
	assert_int_equal(tp_state(conn), TP_FAILED);
	print_message("then: %s\n", conn->why.message);
	assert_int_equal(conn->error, -ECONNREFUSED);
	finish(conn);
	tear_down(peer);
}

static void a_killed_donor_is_known_when_idle(void **state)
{
	struct peer *peer = set_up("1048576", "0", "60000");
	struct tp_conn *conn = connect_ready(peer);
	uint64_t end_ns = bound_ns(3000);

	stop_donor(peer);
	while (tp_state(conn) == TP_READY) {
		assert_true(weft_now_ns() < end_ns);
		pump(conn, 1000);
	}
	finish(conn);
	tear_down(peer);
}

static void a_busy_borrower_keeps_its_lease_without_asking(void **state)
{
	struct peer *peer = set_up("1048576", "0", "1000");
	struct tp_conn *conn = connect_ready(peer);
	uint64_t end_ns = bound_ns(4000);

	while (weft_now_ns() < end_ns)
		assert_int_equal(run_op(peer, conn, TP_READ, 0, 4096, peer->buf), 0);
	finish(conn);
	tear_down(peer);
}

static void a_silent_borrower_loses_its_access(void **state)
{
	struct peer *peer = set_up("1048576", "0", "1000");
	struct tp_conn *conn = connect_ready(peer);
	struct tp_op op = {.kind = TP_WRITE, .len = 4096, .buf = peer->buf, .mem = peer->mem};
	struct tp_op *ops[] = {&op};
	int done = 0;

	assert_int_equal(run_op(peer, conn, TP_WRITE, 0, 4096, peer->buf), 0);
	poll(NULL, 0, 2500); /* silence is the point */
	op.user = &done;
	/* Posted before anything told it: refused by the NIC, not by us. */
	assert_int_equal(tp_post(conn, ops, 1), 1);
	while (!done)
		pump(conn, 1000);
	assert_int_equal(op.status, -ENOTCONN);
	print_message("%s\n", conn->why.message);
	finish(conn);
	conn = try_connect(peer);
	assert_int_equal(conn->error, -WEFT_EOVER);
	finish(conn);
	tear_down(peer);
}

static void a_higher_generation_kills_the_keys_of_one_that_is_stopped(void **state)
{
	struct peer *peer = set_up("1048576", "0", "60000");
	struct tp_conn *old = connect_ready(peer);

	assert_int_equal(run_op(peer, old, TP_WRITE, 0, 4096, peer->buf), 0);
	/* As if it were stopped: nobody looks after it while the new one takes over. */
	peer->target.hello.generation = UINT64_C(2) << 32;
	struct tp_conn *new = connect_ready(peer);
	fill(peer->buf, 0, 4096, 7);
	assert_int_equal(run_op(peer, new, TP_WRITE, 0, 4096, peer->buf), 0);
	memset(peer->buf, 0x11, 4096);
	assert_int_equal(run_op(peer, old, TP_WRITE, 0, 4096, peer->buf), -ENOTCONN);
	assert_int_equal(run_op(peer, new, TP_READ, 0, 4096, peer->buf), 0);
	check(peer->buf, 0, 4096, 7);
	finish(old);
	finish(new);
	tear_down(peer);
}

/* Peers that do not keep to the protocol, with rdma_cm's simple calls. */

struct raw {
	struct rdma_cm_id *id;
	uint8_t *buf;
	struct ibv_mr *mr;
};

/* 0, or -errno of the rejection. */
static int raw_connect(struct raw *raw, const struct peer *peer, const void *private_data,
	size_t len)
{
	struct rdma_addrinfo hints = {.ai_port_space = RDMA_PS_TCP}, *info;
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 1,
		.cap = {.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1},
	};
	struct rdma_conn_param param = {
		.private_data = private_data,
		.private_data_len = (uint8_t)len,
		.initiator_depth = 1,
		.retry_count = 6,
		.rnr_retry_count = 6,
	};

	memset(raw, 0, sizeof(*raw));
	assert_int_equal(rdma_getaddrinfo(rdma_ip, peer->port, &hints, &info), 0);
	assert_int_equal(rdma_create_ep(&raw->id, info, NULL, &attr), 0);
	rdma_freeaddrinfo(info);
	raw->buf = calloc(2, VERBS_MSG_MAX + 64);
	assert_non_null(raw->buf);
	raw->mr = rdma_reg_msgs(raw->id, raw->buf, 2 * (VERBS_MSG_MAX + 64));
	assert_non_null(raw->mr);
	assert_int_equal(rdma_post_recv(raw->id, NULL, raw->buf + VERBS_MSG_MAX + 64, VERBS_MSG_MAX,
				 raw->mr),
		0);
	return rdma_connect(raw->id, &param) == 0 ? 0 : -errno;
}

static void raw_close(struct raw *raw)
{
	rdma_dereg_mr(raw->mr);
	rdma_destroy_ep(raw->id);
	free(raw->buf);
}

/* Sends, and waits for an answer: its length, or 0 when the donor hung up instead. */
static size_t raw_talk(struct raw *raw, size_t len)
{
	struct ibv_wc wc;

	assert_int_equal(rdma_post_send(raw->id, NULL, raw->buf, len, raw->mr, 0), 0);
	if (rdma_get_send_comp(raw->id, &wc) != 1 || wc.status != IBV_WC_SUCCESS)
		return 0;
	uint64_t end_ns = bound_ns(5000);
	while (weft_now_ns() < end_ns) {
		int n = ibv_poll_cq(raw->id->recv_cq, 1, &wc);

		if (n > 0)
			return wc.status == IBV_WC_SUCCESS ? wc.byte_len : 0;
		/* The library flushes nothing by itself when the other end hangs up. */
		struct rdma_cm_event *event;
		struct pollfd fd = {.fd = raw->id->channel->fd, .events = POLLIN};
		if (poll(&fd, 1, 5) > 0 && rdma_get_cm_event(raw->id->channel, &event) == 0) {
			bool over = event->event == RDMA_CM_EVENT_DISCONNECTED;

			rdma_ack_cm_event(event);
			if (over)
				return 0;
		}
	}
	fail_msg("neither answered nor hung up");
	return 0;
}

static void still_serves(struct peer *peer)
{
	struct tp_conn *conn = connect_ready(peer);

	assert_int_equal(run_op(peer, conn, TP_PROBE, 0, 0, NULL), 0);
	finish(conn);
}

static void strangers_are_rejected_and_hung_up_on(void **state)
{
	struct peer *peer = set_up("1048576", "0", "60000");
	uint8_t private_data[VERBS_PRIVATE_BYTES], token[VERBS_TOKEN_BYTES] = {1};
	unsigned seed = 22;
	struct raw raw;

	/* No word of ours, nor a token that was granted. */
	assert_int_equal(raw_connect(&raw, peer, NULL, 0), -ECONNREFUSED);
	raw_close(&raw);
	assert_int_equal(raw_connect(&raw, peer, "GET / HTTP/1.0\r\n\r\n......", 24),
		-ECONNREFUSED);
	raw_close(&raw);
	verbs_pack_private(VERBS_DATA, token, private_data);
	assert_int_equal(raw_connect(&raw, peer, private_data, sizeof(private_data)),
		-ECONNREFUSED);
	raw_close(&raw);
	memset(token, 0, sizeof(token));
	verbs_pack_private(VERBS_DATA, token, private_data);
	assert_int_equal(raw_connect(&raw, peer, private_data, sizeof(private_data)),
		-ECONNREFUSED);
	raw_close(&raw);
	still_serves(peer);
	/* Messages that are none, or come at the wrong time. */
	for (int i = 0; i < 40; i++) {
		struct verbs_msg msg = {.type = VERBS_REQUEST};
		size_t len = 1 + (size_t)rand_r(&seed) % VERBS_MSG_MAX;

		verbs_pack_private(VERBS_CONTROL, token, private_data);
		assert_int_equal(raw_connect(&raw, peer, private_data, sizeof(private_data)), 0);
		for (size_t k = 0; k < len; k++)
			raw.buf[k] = (uint8_t)rand_r(&seed);
		if (i % 4 == 1) {
			msg.request.kind = VERBS_ZERO;
			msg.request.len = 4096;
			len = verbs_pack(&msg, raw.buf);
		} else if (i % 4 == 2) {
			msg.type = VERBS_GET_CHUNKS;
			len = verbs_pack(&msg, raw.buf);
		} else if (i % 4 == 3) {
			len = VERBS_MSG_MAX + 64; /* more than a buffer there holds */
		}
		assert_int_equal(raw_talk(&raw, len), 0);
		raw_close(&raw);
	}
	still_serves(peer);
	tear_down(peer);
}

static void requests_are_checked_by_the_donor_too(void **state)
{
	struct peer *peer = set_up("1048576", "0", "60000");
	uint8_t private_data[VERBS_PRIVATE_BYTES], token[VERBS_TOKEN_BYTES];
	struct verbs_msg msg = {.type = VERBS_HELLO}, answer;
	struct raw raw, data, again;
	size_t len;

	verbs_pack_private(VERBS_CONTROL, token, private_data);
	assert_int_equal(raw_connect(&raw, peer, private_data, sizeof(private_data)), 0);
	msg.hello.hello = peer->target.hello;
	snprintf(msg.hello.region, sizeof(msg.hello.region), "r");
	do {
		len = raw_talk(&raw, verbs_pack(&msg, raw.buf));
		assert_int_equal(verbs_unpack(raw.buf + VERBS_MSG_MAX + 64, len, &answer), 0);
		/* A word of patience comes first. */
		if (answer.type == VERBS_WAIT) {
			struct ibv_wc wc;

			assert_int_equal(rdma_post_recv(raw.id, NULL, raw.buf + VERBS_MSG_MAX + 64,
						 VERBS_MSG_MAX, raw.mr), 0);
			assert_int_equal(rdma_get_recv_comp(raw.id, &wc), 1);
			assert_int_equal(verbs_unpack(raw.buf + VERBS_MSG_MAX + 64, wc.byte_len,
						 &answer),
				0);
		}
	} while (0);
	assert_int_equal(answer.type, VERBS_GRANT);
	/* The token is good once. */
	verbs_pack_private(VERBS_DATA, answer.grant.token, private_data);
	assert_int_equal(raw_connect(&data, peer, private_data, sizeof(private_data)), 0);
	assert_int_equal(raw_connect(&again, peer, private_data, sizeof(private_data)),
		-ECONNREFUSED);
	raw_close(&again);
	/* A range outside the region is an error, not a crash. */
	msg = (struct verbs_msg){.type = VERBS_REQUEST, .cookie = 3};
	msg.request.kind = VERBS_ZERO;
	msg.request.off = UINT64_MAX - 4095;
	msg.request.len = 8192;
	assert_int_equal(rdma_post_recv(raw.id, NULL, raw.buf + VERBS_MSG_MAX + 64, VERBS_MSG_MAX,
				 raw.mr),
		0);
	len = raw_talk(&raw, verbs_pack(&msg, raw.buf));
	assert_int_equal(verbs_unpack(raw.buf + VERBS_MSG_MAX + 64, len, &answer), 0);
	assert_int_equal(answer.type, VERBS_REPLY);
	assert_int_equal(answer.cookie, 3);
	assert_int_equal(answer.reply.error, -ENOSPC);
	raw_close(&data);
	raw_close(&raw);
	tear_down(peer);
}

/* Asks, and waits for the answer, past words of patience. */
static void raw_ask(struct raw *raw, const struct verbs_msg *msg, struct verbs_msg *answer)
{
	uint8_t *in = raw->buf + VERBS_MSG_MAX + 64;
	size_t len = raw_talk(raw, verbs_pack(msg, raw->buf));
	struct ibv_wc wc;

	for (;;) {
		assert_int_equal(verbs_unpack(in, len, answer), 0);
		assert_int_equal(rdma_post_recv(raw->id, NULL, in, VERBS_MSG_MAX, raw->mr), 0);
		if (answer->type != VERBS_WAIT)
			return;
		assert_int_equal(rdma_get_recv_comp(raw->id, &wc), 1);
		len = wc.byte_len;
	}
}

/* A granted session of a peer that may do what it likes. */
struct guest {
	struct raw control, data;
	struct verbs_msg grant;
	struct verbs_chunk chunk;
};

static void guest_open(struct guest *guest, const struct peer *peer, uint8_t id,
	enum weft_mode mode, uint64_t generation)
{
	uint8_t private_data[VERBS_PRIVATE_BYTES], none[VERBS_TOKEN_BYTES] = {0};
	struct verbs_msg msg = {.type = VERBS_HELLO}, answer;

	verbs_pack_private(VERBS_CONTROL, none, private_data);
	assert_int_equal(raw_connect(&guest->control, peer, private_data, sizeof(private_data)), 0);
	msg.hello.hello = peer->target.hello;
	msg.hello.hello.id[0] = id;
	msg.hello.hello.mode = mode;
	msg.hello.hello.generation = generation;
	snprintf(msg.hello.region, sizeof(msg.hello.region), "r");
	raw_ask(&guest->control, &msg, &guest->grant);
	assert_int_equal(guest->grant.type, VERBS_GRANT);
	msg = (struct verbs_msg){.type = VERBS_GET_CHUNKS};
	raw_ask(&guest->control, &msg, &answer);
	assert_int_equal(answer.type, VERBS_CHUNKS);
	guest->chunk = answer.chunks.chunk[0];
	verbs_pack_private(VERBS_DATA, guest->grant.grant.token, private_data);
	assert_int_equal(raw_connect(&guest->data, peer, private_data, sizeof(private_data)), 0);
}

static void guest_close(struct guest *guest)
{
	raw_close(&guest->data);
	raw_close(&guest->control);
}

/* The completion's status. */
static int raw_access(struct raw *raw, bool write, uint64_t addr, uint32_t rkey, size_t len)
{
	struct ibv_wc wc = {.status = IBV_WC_GENERAL_ERR};
	int r = write ? rdma_post_write(raw->id, NULL, raw->buf, len, raw->mr, 0, addr, rkey) :
		rdma_post_read(raw->id, NULL, raw->buf, len, raw->mr, 0, addr, rkey);

	assert_int_equal(r, 0);
	assert_int_equal(rdma_get_send_comp(raw->id, &wc), 1);
	return wc.status;
}

static void a_key_opens_what_was_granted_and_nothing_else(void **state)
{
	enum { SIZE = 1 << 20 };
	struct peer *peer = set_up("1048576", "0", "60000");
	struct guest owner, thief, next;
	uint8_t private_data[VERBS_PRIVATE_BYTES];

	guest_open(&owner, peer, 1, WEFT_MODE_WRITE, UINT64_C(1) << 32);
	memset(owner.data.buf, 0x77, 4096);
	assert_int_equal(raw_access(&owner.data, true, owner.chunk.addr, owner.chunk.rkey, 4096),
		0);
	/* Each attempt costs the thief its connection. */
	for (unsigned i = 0; i <= 12; i++) {
		guest_open(&thief, peer, 2, WEFT_MODE_SHARED, UINT64_C(1) << 32);
		const struct verbs_chunk *own = &thief.chunk,
					 *epoch = &thief.grant.grant.epoch_word,
					 *beat = &thief.grant.grant.beat_word;
		const struct {
			bool write;
			uint64_t addr;
			uint32_t rkey;
			size_t len;
		} tries[] = {
			{false, own->addr, own->rkey, 4096}, /* 0: this is right */
			{false, owner.chunk.addr, owner.chunk.rkey, 4096},
			{true, owner.chunk.addr, owner.chunk.rkey, 4096},
			{true, own->addr, own->rkey, 4096},
			{false, own->addr + SIZE, own->rkey, 8},
			{false, own->addr - 4096, own->rkey, 8},
			{false, own->addr + SIZE - 8, own->rkey, 4096},
			{false, UINT64_MAX - 7, own->rkey, 4096},
			{true, epoch->addr, epoch->rkey, 8},
			{false, epoch->addr, epoch->rkey, 4096},
			{false, beat->addr, beat->rkey, 8},
			{true, beat->addr, beat->rkey, 16},
			{true, owner.grant.grant.beat_word.addr, owner.grant.grant.beat_word.rkey,
				8},
		};
		memset(thief.data.buf, 0, 4096);
		int status = raw_access(&thief.data, tries[i].write, tries[i].addr, tries[i].rkey,
			tries[i].len);
		if ((i == 0) != (status == IBV_WC_SUCCESS))
			fail_msg("attempt %u: %s", i, ibv_wc_status_str(status));
		if (i == 0)
			assert_memory_equal(thief.data.buf, owner.data.buf, 4096);
		guest_close(&thief);
	}
	/* Nor from a connection that was granted nothing. */
	guest_open(&thief, peer, 2, WEFT_MODE_SHARED, UINT64_C(1) << 32);
	assert_int_not_equal(raw_access(&thief.control, true, owner.chunk.addr, owner.chunk.rkey,
				     8),
		0);
	guest_close(&thief);
	/* What came before a take-over: its keys, its token, its generation. */
	guest_open(&next, peer, 1, WEFT_MODE_WRITE, UINT64_C(2) << 32);
	assert_int_not_equal(raw_access(&owner.data, false, owner.chunk.addr, owner.chunk.rkey,
				     4096),
		0);
	verbs_pack_private(VERBS_DATA, owner.grant.grant.token, private_data);
	assert_int_equal(raw_connect(&thief.data, peer, private_data, sizeof(private_data)),
		-ECONNREFUSED);
	raw_close(&thief.data);
	peer->target.hello.id[0] = 1;
	struct tp_conn *late = try_connect(peer);
	assert_int_equal(late->error, -WEFT_ESUPERSEDED);
	finish(late);
	assert_int_equal(raw_access(&next.data, false, next.chunk.addr, next.chunk.rkey, 4096), 0);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(next.data.buf[i], 0x77);
	if (next.chunk.rkey != owner.chunk.rkey)
		assert_int_not_equal(
			raw_access(&next.data, true, owner.chunk.addr, owner.chunk.rkey, 4096), 0);
	guest_close(&owner);
	guest_close(&next);
	tear_down(peer);
}

static void what_cannot_be_registered_is_not_held(void **state)
{
	setenv("WEFT_POOR", "1", 1);
	struct peer *peer = set_up("4194304", "0", "60000");
	unsetenv("WEFT_POOR");

	/* Another attachment each time: the one before left nothing that is in its way. */
	for (unsigned i = 1; i <= 2; i++) {
		peer->target.hello.id[0] = (uint8_t)i;
		struct tp_conn *conn = try_connect(peer);
		if (conn->error != -ENOMEM || !strstr(conn->why.message, "ulimit -l"))
			fail_msg("attachment %u: %s", i, conn->why.message);
		finish(conn);
	}
	tear_down(peer);
}

static void connections_that_never_say_hello_do_not_shut_others_out(void **state)
{
	struct peer *peer = set_up("1048576", "0", "60000");
	uint8_t private_data[VERBS_PRIVATE_BYTES], token[VERBS_TOKEN_BYTES] = {0};
	struct raw raws[150]; /* more than there is room for */
	struct tp_conn *friend = connect_ready(peer);

	verbs_pack_private(VERBS_CONTROL, token, private_data);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(raws); i++)
		assert_int_equal(raw_connect(&raws[i], peer, private_data, sizeof(private_data)),
			0);
	/*
	 * They are held. Who was there stays and comes back, and who comes next finds room, from
	 * the same address.
	 */
	assert_int_equal(run_op(peer, friend, TP_PROBE, 0, 0, NULL), 0);
	peer->target.hello.generation++;
	struct tp_conn *again = connect_ready(peer);
	finish(friend);
	peer->target.hello.id[0] = 9;
	peer->target.hello.mode = WEFT_MODE_SHARED;
	struct tp_conn *newcomer = connect_ready(peer);
	finish(newcomer);
	finish(again);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(raws); i++)
		raw_close(&raws[i]);
	tear_down(peer);
}

/* One that asks for the same chunks for ever has no more time than others. */
static void asking_again_buys_no_time(void **state)
{
	struct peer *peer = set_up("1048576", "0", "60000");
	uint8_t private_data[VERBS_PRIVATE_BYTES], token[VERBS_TOKEN_BYTES] = {0};
	struct verbs_msg msg = {.type = VERBS_HELLO}, answer;
	uint64_t start_ns = weft_now_ns();
	struct raw raw;
	size_t len;

	verbs_pack_private(VERBS_CONTROL, token, private_data);
	assert_int_equal(raw_connect(&raw, peer, private_data, sizeof(private_data)), 0);
	msg.hello.hello = peer->target.hello;
	snprintf(msg.hello.region, sizeof(msg.hello.region), "r");
	raw_ask(&raw, &msg, &answer);
	assert_int_equal(answer.type, VERBS_GRANT);
	msg = (struct verbs_msg){.type = VERBS_GET_CHUNKS};
	do {
		assert_true(weft_now_ns() - start_ns < UINT64_C(10000000000));
		poll(NULL, 0, 200);
		if (rdma_post_recv(raw.id, NULL, raw.buf + VERBS_MSG_MAX + 64, VERBS_MSG_MAX,
			    raw.mr) != 0)
			break;
		len = raw_talk(&raw, verbs_pack(&msg, raw.buf));
	} while (len > 0);
	raw_close(&raw);
	tear_down(peer);
}

/* Pages that a process has pinned. */
static uint64_t pinned_bytes(pid_t pid)
{
	char path[64], line[256];
	unsigned long kb = 0;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	FILE *file = fopen(path, "re");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		sscanf(line, "VmPin: %lu kB", &kb);
	fclose(file);
	return kb * 1024;
}

static void readers_share_one_registration(void **state)
{
	enum { READERS = 12 };
	struct peer *peer = set_up("67108864", "0", "60000");
	struct guest writer, readers[READERS];
	const uint64_t size = 64 * WEFT_MIB;

	for (unsigned i = 0; i < READERS; i++)
		guest_open(&readers[i], peer, (uint8_t)(10 + i), WEFT_MODE_SHARED,
			UINT64_C(1) << 32);
	uint64_t pinned = pinned_bytes(peer->pid);
	print_message("%u readers of 64 MiB pin %.1f MiB\n", READERS,
		(double)pinned / (double)WEFT_MIB);
	assert_in_range(pinned, size, size + size / 2);
	/*
	 * No writer shares it: a reader's key writes nothing, nor does a writer's open anything to
	 * a reader.
	 */
	guest_open(&writer, peer, 1, WEFT_MODE_WRITE, UINT64_C(1) << 32);
	assert_in_range(pinned_bytes(peer->pid), 2 * size, 5 * size / 2);
	assert_int_equal(raw_access(&writer.data, true, writer.chunk.addr, writer.chunk.rkey, 4096),
		0);
	assert_int_not_equal(raw_access(&readers[0].data, true, readers[1].chunk.addr,
				     readers[1].chunk.rkey, 8),
		0);
	assert_int_not_equal(raw_access(&readers[1].data, false, writer.chunk.addr,
				     writer.chunk.rkey, 8),
		0);
	/* Those that ended took nothing from the others. */
	guest_close(&readers[0]);
	guest_close(&readers[1]);
	for (unsigned i = 2; i < READERS; i++)
		assert_int_equal(raw_access(&readers[i].data, false, readers[i].chunk.addr,
					 readers[i].chunk.rkey, 4096),
			0);
	for (unsigned i = 2; i < READERS; i++)
		guest_close(&readers[i]);
	guest_close(&writer);
	tear_down(peer);
}

/*
 * A reader that was superseded reads nothing more, not even with a READ that is in flight, although
 * the key that it uses goes on for others.
 */
static void a_reader_is_revoked_with_a_read_in_flight(void **state)
{
	enum { NR_READS = 8, READ_BYTES = 8 << 20, ROUNDS = 4 };
	/* So that nothing but the queue pair's state ends the access. */
	setenv("WEFT_SLOW_MS", "3000", 1);
	struct peer *peer = set_up("8388608", "0", "60000");
	unsetenv("WEFT_SLOW_MS");
	struct tp_conn *writer = connect_ready(peer);
	unsigned nr_cut = 0;

	for (uint64_t round = 1; round <= ROUNDS; round++) {
		struct guest reader, other, next;
		uint8_t *in = mmap(NULL, NR_READS * READ_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		struct ibv_wc wc;

		assert_ptr_not_equal(in, MAP_FAILED);
		fill(peer->buf, 0, READ_BYTES, 2 * round);
		assert_int_equal(run_op(peer, writer, TP_WRITE, 0, READ_BYTES, peer->buf), 0);
		guest_open(&reader, peer, 40, WEFT_MODE_SHARED, round << 33);
		guest_open(&other, peer, 41, WEFT_MODE_SHARED, round << 33);
		assert_int_equal(reader.chunk.rkey, other.chunk.rkey);
		struct ibv_mr *mr = ibv_reg_mr(reader.data.id->pd, in, NR_READS * READ_BYTES,
			IBV_ACCESS_LOCAL_WRITE);
		assert_non_null(mr);
		for (unsigned i = 0; i < NR_READS; i++)
			assert_int_equal(rdma_post_read(reader.data.id, NULL, in + i * READ_BYTES,
						 READ_BYTES, mr, 0, reader.chunk.addr,
						 reader.chunk.rkey),
				0);
		poll(NULL, 0, 20 * (int)round);
		/* Granted means that the one before reaches nothing. */
		guest_open(&next, peer, 40, WEFT_MODE_SHARED, (round << 33) + 1);
		fill(peer->buf, 0, READ_BYTES, 2 * round + 1);
		assert_int_equal(run_op(peer, writer, TP_WRITE, 0, READ_BYTES, peer->buf), 0);
		unsigned nr_good = 0;
		for (unsigned i = 0; i < NR_READS; i++) {
			assert_int_equal(rdma_get_send_comp(reader.data.id, &wc), 1);
			if (wc.status != IBV_WC_SUCCESS)
				continue;
			check(in + nr_good * READ_BYTES, 0, READ_BYTES, 2 * round);
			nr_good++;
		}
		nr_cut += nr_good < NR_READS;
		/* Not a word of what was written after the grant. */
		for (size_t i = 0; i < NR_READS * READ_BYTES; i += 8) {
			uint64_t word, off = i % READ_BYTES;

			memcpy(&word, in + i, 8);
			if (word != 0 && word != (off * UINT64_C(0x9e3779b97f4a7c15) ^ 2 * round))
				fail_msg("round %ju: a word of later than the grant at %zu",
					(uintmax_t)round, i);
		}
		assert_int_equal(raw_access(&other.data, false, other.chunk.addr, other.chunk.rkey,
					 4096),
			0);
		check(other.data.buf, 0, 4096, 2 * round + 1);
		assert_int_equal(raw_access(&next.data, false, next.chunk.addr, next.chunk.rkey,
					 4096),
			0);
		ibv_dereg_mr(mr);
		guest_close(&reader);
		guest_close(&other);
		guest_close(&next);
		munmap(in, NR_READS * READ_BYTES);
	}
	print_message("READs were cut off in %u of %u rounds\n", nr_cut, ROUNDS);
	assert_true(nr_cut > 0);
	finish(writer);
	tear_down(peer);
}

/* Last: these take the interface and the device away. */

/* Each takes over from one that is busy, or has left; others are turned away meanwhile. */
static void grants_come_soon_while_connections_come_and_go(void **state)
{
	struct peer *peer = set_up("1048576", "32768", "60000");
	struct tp_conn *old = NULL;
	uint64_t longest_ns = 0;

	for (unsigned round = 0; round < NR_ROUNDS; round++) {
		struct tp_op op[NR_OPS];
		int done[NR_OPS] = {0};
		struct raw raw;

		if (round % 8 == 5) {
			assert_int_equal(raw_connect(&raw, peer, "nonsense", 8), -ECONNREFUSED);
			raw_close(&raw);
		}
		uint64_t start_ns = weft_now_ns();
		struct tp_conn *conn = connect_ready(peer);
		longest_ns = weft_max(longest_ns, weft_now_ns() - start_ns);
		if (old)
			finish(old);
		for (unsigned i = 0; i < NR_OPS; i++) {
			struct tp_op *ops[] = {&op[i]};

			op[i] = (struct tp_op){
				.kind = i % 2 ? TP_READ : TP_WRITE,
				.off = i * 65536,
				.len = 65536,
				.buf = peer->buf + i * 65536,
				.mem = peer->mem,
				.user = &done[i],
			};
			assert_int_equal(tp_post(conn, ops, 1), 1);
		}
		peer->target.hello.generation++;
		old = conn;
		/* An operation must not outlive its round. */
		if (round % 4 == 3) {
			finish(conn);
			old = NULL;
			continue;
		}
		start_ns = weft_now_ns();
		struct tp_conn *next = connect_ready(peer);
		longest_ns = weft_max(longest_ns, weft_now_ns() - start_ns);
		finish(conn);
		peer->target.hello.generation++;
		old = next;
	}
	if (old)
		finish(old);
	print_message("the longest wait for a grant: %.2f s\n", (double)longest_ns / 1e9);
	assert_true(longest_ns < 5 * UINT64_C(1000000000));
	tear_down(peer);
}

static void run_command(const char *command)
{
	int status = system(command);

	if (status != 0)
		fail_msg("%s: %d", command, status);
}

static void link_down(struct peer *peer)
{
	run_command("ip link set rdma0 down");
}

static void an_interface_that_goes_down_fails_it(void **state)
{
	struct peer *peer = set_up("67108864", "0", "60000");
	struct tp_conn *conn = connect_ready(peer);

	blow_up(peer, conn, link_down, 5000);
	finish(conn);
	peer->target.connect_timeout_ms = 2000;
	conn = try_connect(peer);
	assert_int_equal(tp_state(conn), TP_FAILED);
	print_message("without the interface: %s\n", conn->why.message);
	finish(conn);
	tear_down(peer);
}

/* rxe waits until everybody who has it open is gone: in the background. */
static void remove_device(struct peer *peer)
{
	run_command("rdma link del rxe0 </dev/null >/dev/null 2>&1 &");
}

static void a_device_that_is_removed_fails_it(void **state)
{
	struct peer *peer = set_up("67108864", "0", "60000");
	struct tp_conn *conn = connect_ready(peer);

	blow_up(peer, conn, remove_device, 10000);
	finish(conn);
	tear_down(peer);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_sided_means_that_the_donor_may_sleep),
		cmocka_unit_test(a_region_of_many_registrations_is_one),
		cmocka_unit_test(registering_may_take_longer_than_the_lease),
		cmocka_unit_test(three_gibibytes_need_several_registrations),
		cmocka_unit_test(a_killed_donor_is_known_at_once),
		cmocka_unit_test(a_killed_donor_is_known_when_idle),
		cmocka_unit_test(a_busy_borrower_keeps_its_lease_without_asking),
		cmocka_unit_test(a_silent_borrower_loses_its_access),
		cmocka_unit_test(a_higher_generation_kills_the_keys_of_one_that_is_stopped),
		cmocka_unit_test(strangers_are_rejected_and_hung_up_on),
		cmocka_unit_test(requests_are_checked_by_the_donor_too),
		cmocka_unit_test(a_key_opens_what_was_granted_and_nothing_else),
		cmocka_unit_test(what_cannot_be_registered_is_not_held),
		cmocka_unit_test(connections_that_never_say_hello_do_not_shut_others_out),
		cmocka_unit_test(asking_again_buys_no_time),
		cmocka_unit_test(readers_share_one_registration),
		cmocka_unit_test(a_reader_is_revoked_with_a_read_in_flight),
		cmocka_unit_test(grants_come_soon_while_connections_come_and_go),
	};
	const struct CMUnitTest last[] = {
		cmocka_unit_test(an_interface_that_goes_down_fails_it),
		cmocka_unit_test(a_device_that_is_removed_fails_it),
	};

	rdma_ip = getenv("RDMA_IP");
	if (!rdma_ip) {
		printf("SKIP: RDMA_IP does not name the address of an RDMA device\n");
		return 77;
	}
	if (argc == 5 && strcmp(argv[1], "donor") == 0)
		return donor_main(argv + 2);
	if (argc == 2 && strcmp(argv[1], "interface") == 0)
		return _cmocka_run_group_tests("interface", last, 1, NULL, NULL);
	if (argc == 2 && strcmp(argv[1], "device") == 0)
		return _cmocka_run_group_tests("device", last + 1, 1, NULL, NULL);
	if (argc == 2)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
