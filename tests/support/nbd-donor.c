/* SPDX-License-Identifier: MIT */
#include "tests/support/nbd-donor.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "fabric/base/util.h"

enum { RUN, DRAIN, STOP };

#define must(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
			abort(); \
		} \
	} while (0)

static void on_wake(void *ctx)
{
	struct nbd_donor *d = ctx;

	switch (atomic_load(&d->command)) {
	case DRAIN:
		nbd_listener_stop(d->listener);
		d->drained = nbd_listener_drain(d->listener, d->drain_ms);
		break;
	case STOP:
		weft_loop_stop(d->loop);
		break;
	}
	d->command = RUN;
}

static void *run(void *ctx)
{
	struct nbd_donor *d = ctx;

	weft_loop_run(d->loop);
	return NULL;
}

static int listen_tcp(uint16_t *ret_port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
		listen(fd, 128) == 0);
	must(getsockname(fd, (struct sockaddr *)&addr, &len) == 0);
	*ret_port = ntohs(addr.sin_port);
	return fd;
}

static struct sockaddr_un unix_address(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	return addr;
}

static int listen_unix(const char *path)
{
	struct sockaddr_un addr = unix_address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
		listen(fd, 128) == 0);
	return fd;
}

void nbd_donor_start(struct nbd_donor *d, uint64_t size_bytes,
	const struct nbd_listener_config *config, uint32_t fence_timeout_ms)
{
	const struct weft_donor_config donor_config = {.offers = "tcp",
		.fence_timeout_ms = fence_timeout_ms};

	nbd_donor_start_as(d, size_bytes, config, &donor_config);
}

void nbd_donor_start_as(struct nbd_donor *d, uint64_t size_bytes,
	const struct nbd_listener_config *config, const struct weft_donor_config *donor_config)
{
	const struct weft_memory_spec spec = { .name = "m", .size_bytes = size_bytes };
	int fds[2];

	*d = (struct nbd_donor){ .dir = "/tmp/weft-test.XXXXXX" };
	must(mkdtemp(d->dir));
	snprintf(d->socket, sizeof(d->socket), "%s/s", d->dir);
	must(weft_donor_new(donor_config, &d->donor) == 0);
	must(weft_region_new_memory(&spec, NULL, NULL, &d->region, NULL) == 0);
	must(weft_donor_add(d->donor, d->region, NULL) == 0);
	must(weft_loop_new(&d->loop) == 0);
	fds[0] = listen_tcp(&d->port);
	fds[1] = listen_unix(d->socket);
	must(nbd_listener_new(d->donor, d->loop, fds, 2, config, &d->listener, NULL) == 0);
	weft_loop_on_wake(d->loop, on_wake, d);
	must(pthread_create(&d->thread, NULL, run, d) == 0);
}

static void command(struct nbd_donor *d, int what)
{
	d->command = what;
	weft_loop_wake(d->loop);
}

int nbd_donor_drain(struct nbd_donor *d, uint32_t timeout_ms)
{
	d->drain_ms = timeout_ms;
	d->drained = 1;
	command(d, DRAIN);
	while (d->drained == 1)
		usleep(1000);
	return d->drained;
}

void nbd_donor_end(struct nbd_donor *d)
{
	must(nbd_donor_drain(d, 10000) == 0);
	command(d, STOP);
	pthread_join(d->thread, NULL);
	nbd_listener_free(d->listener);
	weft_donor_free(d->donor);
	weft_region_put(d->region);
	weft_loop_free(d->loop);
	unlink(d->socket);
	rmdir(d->dir);
}

uint64_t rss_bytes(void)
{
	unsigned long size, rss;
	FILE *f = fopen("/proc/self/statm", "r");

	must(f);
	must(fscanf(f, "%lu %lu", &size, &rss) == 2);
	fclose(f);
	return rss * (uint64_t)sysconf(_SC_PAGESIZE);
}

void nbd_donor_connect(struct nbd_donor *d, struct nbd_raw *raw, bool tcp)
{
	*raw = (struct nbd_raw){ .server_result = 1 };
	if (tcp) {
		struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(d->port),
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

		raw->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		must(setsockopt(raw->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)) == 0);
		must(connect(raw->fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
	} else {
		struct sockaddr_un addr = unix_address(d->socket);

		raw->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		must(connect(raw->fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
	}
}

uint32_t nbd_donor_go(struct nbd_raw *raw, const char *name, unsigned id, uint64_t generation,
	char *text)
{
	struct weft_hello hello = {.generation = generation,
		.mode = WEFT_MODE_WRITE,
		.name = "test"};
	char query[WEFT_CONTEXT_MAX];
	const char *queries[] = { query };
	uint8_t data[WEFT_CONTEXT_MAX + 64];
	uint32_t type, len;

	memset(hello.id, (int)id, sizeof(hello.id));
	weft_hello_format(&hello, query);
	must(nbd_raw_hello(raw, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES) == 0);
	nbd_raw_option(raw, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	must(nbd_raw_final(raw, NBD_OPT_STRUCTURED_REPLY) == NBD_REP_ACK);
	nbd_raw_option(raw, NBD_OPT_SET_META_CONTEXT, data,
		nbd_raw_context_data(data, name, queries, 1));
	must(nbd_raw_final(raw, NBD_OPT_SET_META_CONTEXT) == NBD_REP_ACK);
	nbd_raw_option(raw, NBD_OPT_GO, data, nbd_raw_info_data(data, name, NULL, 0));
	do
		type = nbd_raw_reply(raw, NBD_OPT_GO, data, 255, &len);
	while (type == NBD_REP_INFO);
	if (text)
		snprintf(text, 256, "%.*s", (int)weft_min(len, 255), (char *)data);
	return type;
}
