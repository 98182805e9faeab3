/* SPDX-License-Identifier: MIT */
/*
 * What TLS costs, over TCP: `plain` and `weft` are the borrower's transport against a `weft serve`,
 * without and with a key; `ktls` is that with the kernel's records, where its module tls is loaded;
 * `nbdkit` and `qemu` are their servers with TLS, asked by libnbd's asynchronous calls;
 * `floor` is GnuTLS over a bare socket.  All have the same pre-shared key.
 */
#include <errno.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/histogram.h"
#include "fabric/base/util.h"
#include "fabric/key/key.h"
#include "fabric/nbd/proto.h"
#include "perf/harness/perf.h"
#include "perf/harness/process.h"
#include "perf/peers/tls-floor.h"
#include "perf/suites/suites.h"
#include "transports/nbd/borrower/client.h"

enum { MAX_DEPTH = 16, MAX_LEN = 1 << 20, WAIT_MS = 20000 };
#define REGION_BYTES (64 * WEFT_MIB)

enum who { PLAIN, WEFT, KTLS, NBDKIT, QEMU, FLOOR };

struct tls_case {
	enum who who;
	bool write;
	uint32_t len;
	unsigned depth;
};

/* Written to the run's directory when first used: keys.psk and grants.json. */
static struct weft_key key;
/* What all contestants read into and write from, and the floor's server has. */
static uint8_t buffers[MAX_DEPTH][MAX_LEN];

/* An operation that is on its way. */
struct flight {
	struct tp_op op; /* plain, weft */
	uint64_t posted_ns;
	bool done; /* libnbd's */
	int error;
};

struct tls_run {
	const struct tls_case *c;
	pid_t server;
	struct tp *tp;
	struct tp_conn *conn;
	struct tp_mem *mem;
	struct nbd_handle *nbd;
	gnutls_session_t session;
	int fd;
	uint64_t place;
	unsigned next; /* the flight that the floor answers first */
	struct flight flights[MAX_DEPTH];
};

/* ---- servers ---- */

static int put_file(const char *name, const char *text)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/keys/%s", perf_tmpdir(), name);
	FILE *f = fopen(path, "we");
	if (!f)
		return -errno;
	fputs(text, f);
	fclose(f);
	return chmod(path, 0600) < 0 ? -errno : 0;
}

static int make_keys(void)
{
	char path[512], line[WEFT_KEY_LINE_MAX + 1];
	int r;

	if (key.secret_bytes > 0)
		return 0;
	snprintf(path, sizeof(path), "%s/keys", perf_tmpdir());
	if (mkdir(path, 0700) < 0)
		return -errno;
	r = weft_key_new("perf", &key, NULL);
	if (r < 0)
		return r;
	weft_key_format(&key, line);
	strcat(line, "\n");
	r = put_file("keys.psk", line);
	if (r == 0)
		r = put_file("grants.json", "{\"version\": 1, \"keys\": {\"perf\": {}}}\n");
	return r;
}

static int serve_floor(int fd)
{
	static const int on = 1;
	uint8_t request[TLS_FLOOR_REQUEST], answer[TLS_FLOOR_ANSWER] = {0};
	gnutls_session_t session;
	int r;

	fd = accept(fd, NULL, NULL);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	r = tls_floor_start(fd, true, key.identity, key.secret, key.secret_bytes, &session);
	while (r == 0) {
		r = tls_floor_receive(session, request, sizeof(request));
		if (r < 0)
			break;
		const bool write = weft_get16(request + 6) == NBD_CMD_WRITE;
		const uint32_t len = weft_get32(request + 24);
		if (write)
			r = tls_floor_receive(session, buffers[0], len);
		if (r == 0)
			r = tls_floor_send(session, answer, sizeof(answer));
		if (r == 0 && !write)
			r = tls_floor_send(session, buffers[1], len);
	}
	return 0;
}

static pid_t start_floor(int fd)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(serve_floor(fd));
	return pid;
}

/* Holes would be answered as such. */
static int fill(const char *path)
{
	FILE *f = fopen(path, "we");
	size_t n = 0;

	for (uint64_t at = 0; f && at < REGION_BYTES; at += sizeof(buffers))
		n += fwrite(buffers, 1, sizeof(buffers), f);
	return f && fclose(f) == 0 && n == REGION_BYTES ? 0 : -EIO;
}

static pid_t start_server(enum who who, int fd, uint16_t port)
{
	char serve[512], keys[512], psk[540], listen[32], object[600], file[540], blockdev[700];
	const char *weft[] = {serve, "--listen", listen, "--keys", keys, "--memory", "r=64M",
		"--keep", "0", NULL};
	const char *nbdkit[] = {"nbdkit", "-f", "--tls=require", psk, "memory", "size=64M",
		"allocator=malloc", NULL};
	const char *qemu[] = {"qemu-storage-daemon", "--object", object, "--blockdev", blockdev,
		"--nbd-server", "addr.type=fd,addr.str=3,max-connections=0,tls-creds=tls",
		"--export", "type=nbd,id=e,node-name=ram,name=r,writable=on", NULL};

	snprintf(serve, sizeof(serve), "%s/weft-serve", perf_bindir());
	snprintf(keys, sizeof(keys), "%s/keys", perf_tmpdir());
	snprintf(psk, sizeof(psk), "--tls-psk=%s/keys.psk", keys);
	snprintf(listen, sizeof(listen), "127.0.0.1:%u", port);
	snprintf(object, sizeof(object), "tls-creds-psk,id=tls,endpoint=server,dir=%s", keys);
	snprintf(file, sizeof(file), "%s/qemu.ram", perf_tmpdir());
	snprintf(blockdev, sizeof(blockdev),
		"driver=file,node-name=ram,filename=%s,cache.direct=off,aio=threads", file);
	switch (who) {
	case PLAIN:
	case WEFT:
	case KTLS:
		return perf_spawn(weft, -1, "tls-weft.log");
	case NBDKIT:
		return perf_spawn(nbdkit, fd, "tls-nbdkit.log");
	case QEMU:
		if (fill(file) < 0)
			return -EIO;
		return perf_spawn(qemu, fd, "tls-qemu.log");
	default:
		return start_floor(fd);
	}
}

/* ---- connections ---- */

static int connect_weft(struct tls_run *run, uint16_t port, char *why)
{
	const uint64_t end_ns = weft_now_ns() + WAIT_MS * UINT64_C(1000000);
	struct weft_error err = {0};
	char text[8];
	struct tp_target target = {
		.host = "127.0.0.1",
		.port = text,
		.region = "r",
		.hello = {.generation = 1, .mode = WEFT_MODE_WRITE, .name = "perf"},
		.key = run->c->who == PLAIN ? NULL : &key,
		.connect_timeout_ms = WAIT_MS,
		.renews = run->c->who == KTLS, /* it ends before its keys are worn */
	};
	int r;

	snprintf(text, sizeof(text), "%u", port);
	r = tp_open(&tp_nbd_ops, NULL, &run->tp, &err);
	if (r == 0)
		r = tp_register(run->tp, buffers, sizeof(buffers), &run->mem, &err);
	/* It may take a moment until the donor listens. */
	while (r == 0 && weft_now_ns() < end_ns) {
		r = tp_connect(run->tp, &target, &run->conn, &err);
		while (r == 0 && tp_state(run->conn) == TP_CONNECTING) {
			struct pollfd pfd = {.fd = tp_event_fd(run->conn),
				.events = (short)tp_arm(run->conn)};
			struct tp_op *done[1];

			poll(&pfd, 1, pfd.events ? 100 : 0);
			tp_progress(run->conn, done, 1);
		}
		if (r == 0 && tp_state(run->conn) == TP_READY) {
			if (run->c->who != KTLS || strstr(run->conn->info.transport, "ktls"))
				return 0;
			snprintf(why, 256, "not the kernel's: %.200s", run->conn->info.path);
			return -EOPNOTSUPP;
		}
		if (r == 0)
			err = run->conn->why;
		tp_disconnect(run->conn);
		run->conn = NULL;
		poll(NULL, 0, 20);
	}
	snprintf(why, 256, "%.250s", err.message);
	return -ECONNREFUSED;
}

static int connect_libnbd(struct tls_run *run, uint16_t port, char *why)
{
	char uri[700];

	snprintf(uri, sizeof(uri), "nbds://perf@127.0.0.1:%u/%s?tls-psk-file=%s/keys/keys.psk",
		port, run->c->who == QEMU ? "r" : "", perf_tmpdir());
	for (int i = 0; i < WAIT_MS / 20; i++) {
		run->nbd = nbd_create();
		if (run->nbd) {
			nbd_set_pread_initialize(run->nbd, false);
			nbd_set_uri_allow_local_file(run->nbd, true);
			if (nbd_connect_uri(run->nbd, uri) == 0)
				return 0;
		}
		snprintf(why, 256, "%.250s", nbd_get_error());
		nbd_close(run->nbd);
		run->nbd = NULL;
		poll(NULL, 0, 20);
	}
	return -ECONNREFUSED;
}

static int connect_floor(struct tls_run *run, uint16_t port, char *why)
{
	const struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const int on = 1;

	run->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (run->fd < 0 || connect(run->fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	setsockopt(run->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return tls_floor_start(
		run->fd, false, key.identity, key.secret, key.secret_bytes, &run->session);
}

static void teardown(void *state)
{
	struct tls_run *run = state;
	struct tp_op *done[MAX_DEPTH];

	if (run->conn)
		tp_shutdown(run->conn);
	while (run->conn && run->conn->nr_outstanding > 0)
		tp_progress(run->conn, done, MAX_DEPTH);
	tp_disconnect(run->conn);
	tp_deregister(run->mem);
	tp_close(run->tp);
	nbd_close(run->nbd);
	if (run->session)
		gnutls_deinit(run->session);
	if (run->fd >= 0)
		close(run->fd);
	if (run->c->who == FLOOR && run->server > 0)
		waitpid(run->server, NULL, 0);
	else if (run->server > 0)
		perf_stop(run->server);
	free(run);
}

static int setup(const void *arg, void **ret_state, char *why)
{
	struct tls_run *run = calloc(1, sizeof(*run));
	uint16_t port = 0;
	int r;

	if (!run)
		return -ENOMEM;
	run->c = arg;
	run->fd = -1;
	memset(buffers, 0x5a, sizeof(buffers));
	r = make_keys();
	WEFT_CLEANUP_CLOSE int fd = r < 0 ? r : perf_listen(NULL, &port);
	r = fd < 0 ? fd : 0;
	if (r == 0 && run->c->who <= KTLS) {
		/* It binds the port by itself. */
		close(fd);
		fd = -1;
	}
	run->server = r < 0 ? r : start_server(run->c->who, fd, port);
	if (run->server < 0)
		r = (int)run->server;
	else if (run->c->who <= KTLS)
		r = connect_weft(run, port, why);
	else if (run->c->who == FLOOR)
		r = connect_floor(run, port, why);
	else
		r = connect_libnbd(run, port, why);
	if (r < 0) {
		teardown(run);
		return r;
	}
	*ret_state = run;
	return 0;
}

/* ---- the load ---- */

static uint64_t next_place(struct tls_run *run)
{
	const uint64_t place = run->place;

	run->place = (place + run->c->len) % REGION_BYTES;
	return place;
}

static int on_libnbd(void *user, int *error)
{
	struct flight *f = user;

	f->done = true;
	f->error = *error;
	return 1;
}

/* Sends the operations of these flights off.  0, or -errno. */
static int post(struct tls_run *run, const unsigned *which, unsigned nr)
{
	const struct tls_case *c = run->c;
	struct tp_op *ops[MAX_DEPTH];
	int r = 0;

	for (unsigned i = 0; i < nr && r >= 0; i++) {
		struct flight *f = &run->flights[which[i]];
		uint8_t *buf = buffers[which[i]], request[TLS_FLOOR_REQUEST];
		const struct nbd_request_header header = {
			.type = c->write ? NBD_CMD_WRITE : NBD_CMD_READ, .len = c->len};
		const nbd_completion_callback callback = {.callback = on_libnbd, .user_data = f};

		f->op = (struct tp_op){.kind = c->write ? TP_WRITE : TP_READ, .buf = buf,
			.len = c->len, .mem = run->mem, .off = next_place(run)};
		f->done = false;
		ops[i] = &f->op;
		int64_t cookie = 0;
		if (c->who == FLOOR) {
			nbd_pack_request(request, &header);
			r = tls_floor_send(run->session, request, sizeof(request));
			if (r == 0 && c->write)
				r = tls_floor_send(run->session, buf, c->len);
		} else if (run->nbd && c->write) {
			cookie = nbd_aio_pwrite(run->nbd, buf, c->len, f->op.off, callback, 0);
		} else if (run->nbd) {
			cookie = nbd_aio_pread(run->nbd, buf, c->len, f->op.off, callback, 0);
		}
		r = cookie < 0 ? -EIO : r;
	}
	if (run->conn && r == 0)
		r = tp_post(run->conn, ops, nr) == (int)nr ? 0 : -EIO;
	return r;
}

/* Waits for some; which have ended, and how many, or -errno. */
static int wait_some(struct tls_run *run, unsigned *which)
{
	uint8_t answer[TLS_FLOOR_ANSWER];
	struct tp_op *done[MAX_DEPTH];
	int nr = 0, r;

	if (run->conn) {
		while ((nr = tp_progress(run->conn, done, MAX_DEPTH)) == 0) {
			struct pollfd pfd = {.fd = tp_event_fd(run->conn),
				.events = (short)tp_arm(run->conn)};

			if (pfd.events)
				poll(&pfd, 1, WAIT_MS);
		}
		for (int i = 0; i < nr; i++) {
			if (done[i]->status < 0)
				return done[i]->status;
			which[i] = (unsigned)(weft_container_of(done[i], struct flight, op) -
				run->flights);
		}
		return nr;
	}
	if (run->nbd) {
		if (nbd_poll(run->nbd, WAIT_MS) < 0)
			return -EIO;
		for (unsigned i = 0; i < run->c->depth; i++) {
			struct flight *f = &run->flights[i];

			if (f->done && f->error)
				return -f->error;
			if (f->done)
				which[nr++] = i;
			f->done = false;
		}
		return nr;
	}
	which[0] = run->next++ % run->c->depth;
	r = tls_floor_receive(run->session, answer, sizeof(answer));
	if (r == 0 && !run->c->write)
		r = tls_floor_receive(run->session, buffers[which[0]], run->c->len);
	return r < 0 ? r : 1;
}

static int run_case(void *state, uint64_t iterations, uint64_t slice_ns, struct perf_sample *ret,
	char *why)
{
	static struct weft_histogram latency;
	struct tls_run *run = state;
	const struct tls_case *c = run->c;
	uint64_t start_ns = weft_now_ns(), now_ns = start_ns, ops = 0;
	uint64_t cpu_ns = perf_cpu_ns(run->server) + perf_own_cpu_ns();
	unsigned which[MAX_DEPTH], in_flight = 0;
	int nr = (int)c->depth;

	memset(&latency, 0, sizeof(latency));
	for (unsigned i = 0; i < c->depth; i++)
		which[i] = i;
	while (nr > 0 || in_flight > 0) {
		if (nr > 0 && now_ns - start_ns < slice_ns) {
			for (int i = 0; i < nr; i++)
				run->flights[which[i]].posted_ns = now_ns;
			int r = post(run, which, (unsigned)nr);
			if (r < 0)
				return r;
			in_flight += (unsigned)nr;
		} else if (in_flight == 0) {
			break;
		}
		nr = wait_some(run, which);
		if (nr < 0) {
			snprintf(why, 256, "%s", strerror(-nr));
			return nr;
		}
		now_ns = weft_now_ns();
		for (int i = 0; i < nr; i++)
			weft_histogram_add(&latency, now_ns - run->flights[which[i]].posted_ns);
		ops += (unsigned)nr;
		in_flight -= (unsigned)nr;
	}
	const double elapsed_ns = (double)(now_ns - start_ns);
	ret->elapsed_ns = now_ns - start_ns;
	cpu_ns = perf_cpu_ns(run->server) + perf_own_cpu_ns() - cpu_ns;
	perf_count(ret, "ops_s", (double)ops * 1e9 / elapsed_ns);
	perf_count(ret, "MB_s", (double)ops * c->len * 1e3 / elapsed_ns);
	perf_count(ret, "p50_us", (double)weft_histogram_quantile(&latency, 0.5) / 1e3);
	perf_count(ret, "both_us", (double)cpu_ns / (double)ops / 1e3);
	return 0;
}

void suite_tls(void)
{
	static const char *const counters[] = {"MB_s", "ops_s", "p50_us", "both_us", NULL};
	static const struct perf_ratio ratios[] = {{"MB/floor", "MB_s", "floor"},
		{"MB/nbdkit", "MB_s", "nbdkit"}, {"MB/plain", "MB_s", "plain"},
		{"CPU/floor", "both_us", "floor"}, {"CPU/weft", "both_us", "weft"},
		{NULL, NULL, NULL}};
	static const struct perf_columns columns = {"tls", counters, ratios};
	static const char *const names[] = {"plain", "weft", "ktls", "nbdkit", "qemu", "floor"};
	static const struct {
		const char *name;
		uint32_t len;
		unsigned depth;
	} shapes[] = {{"4K-1", 4096, 1}, {"4K-16", 4096, 16}, {"1M-4", 1 << 20, 4}};
	static struct tls_case cases[2 * 3 * 6];
	/* In CPU time, which others that use the machine change least. */
	static const struct perf_bound bounds[] = {
		{"tls/*/1M-4", "weft", "nbdkit", "both_us", 0, 0.25,
			"four times nbdkit with libnbd, no slack"},
		{"tls/*/1M-4", "weft", "floor", "both_us", 0, 1.25,
			"0.8 of what GnuTLS does: 1/0.8, no slack"},
	};
	unsigned n = 0;

	/* A minute's quick run has no time for it. */
	if (perf_options.quick)
		return;
	for (int write = 0; write < 2; write++)
		for (unsigned s = 0; s < WEFT_ARRAY_LEN(shapes); s++)
			for (unsigned w = 0; w < WEFT_ARRAY_LEN(names); w++) {
				struct perf_case pc = {.arg = &cases[n], .setup = setup,
					.run = run_case, .teardown = teardown, .sliced = true};

				if (w == KTLS && access("/proc/net/tls_stat", F_OK) < 0)
					continue;
				cases[n++] = (struct tls_case){.who = (enum who)w, .write = write,
					.len = shapes[s].len, .depth = shapes[s].depth};
				snprintf(pc.name, sizeof(pc.name), "tls/%s/%s/%s",
					write ? "write" : "read", shapes[s].name, names[w]);
				perf_add(&pc);
			}
	perf_columns_add(&columns);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(bounds); i++)
		perf_bound_add(&bounds[i]);
}
