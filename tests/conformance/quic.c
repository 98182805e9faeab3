/* SPDX-License-Identifier: MIT */
/* Conformance of the transport "quic" at a weft donor, which each end proves a key in. */
#include "tests/conformance/quic-peer.h"

#include <dirent.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fabric/base/util.h"

static atomic_uint sync_ms, write_ms;

/* In place of the C library's. */
int fdatasync(int fd);
int fdatasync(int fd)
{
	usleep(atomic_load(&sync_ms) * 1000);
	return 0;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	usleep(atomic_load(&write_ms) * 1000);
	return syscall(SYS_pwrite64, fd, buf, len, off);
}

static void start(struct conf *conf)
{
	quic_peer_start(conf, NULL);
}

static bool are_done(void *ctx)
{
	const struct conf_op *ops = ctx;

	return ops[0].nr_done > 0 && ops[1].nr_done > 0;
}

/*
 * The donor's disk takes longer than the borrower waits for a sign of life: one call of several
 * kinds, each of a connection at the same time, or many.
 */
static void a_slow_disk_is_not_the_end_of_a_connection(void **state)
{
	char path[] = "/tmp/weft-quic-flush.XXXXXX";
	struct conf *conf = *state;
	struct tp_target target = conf->target;
	struct weft_region *file = quic_peer_lend_file(conf, path);
	struct conf_op ops[16];

	target.region = "f";
	target.dead_ms = 2000;
	const unsigned slow_ms = target.dead_ms * 3 / 2;
	struct tp_conn *conn = conf_connect(conf, &target);
	struct tp_conn *conns[2] = {conn, conf_connect(conf, &target)};
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, 4096, conf->buf), 0);
	atomic_store(&sync_ms, slow_ms);
	atomic_store(&write_ms, slow_ms);
	conf_op(conf, &ops[0], TP_FLUSH, 0, 0, NULL);
	conf_op(conf, &ops[1], TP_WRITE, 0, 4096, conf->buf);
	for (unsigned i = 0; i < 2; i++)
		conf_post(conns[i], &ops[i]);
	conf_pump_until(conns, 2, are_done, ops);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(ops[i].op.status, 0);
	atomic_store(&sync_ms, 0);
	conf_end(conns[1]);
	atomic_store(&write_ms, slow_ms / WEFT_ARRAY_LEN(ops));
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ops); i++) {
		conf_op(conf, &ops[i], TP_WRITE, i * 4096, 4096, conf->buf);
		conf_post(conn, &ops[i]);
	}
	conf_drain(conn);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ops); i++)
		assert_int_equal(ops[i].op.status, 0);
	atomic_store(&write_ms, 0);
	conf_end(conn);
	weft_region_put(file);
	unlink(path);
}

static unsigned nr_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned nr = 0;

	assert_non_null(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

/* The lane may go on over TCP, and never ask this transport for anything again. */
static void a_goodbye_needs_nobody_to_drive_it(void **state)
{
	struct conf *conf = *state;
	const unsigned before = nr_descriptors();

	conf_end(conf_connect(conf, &conf->target));
	for (unsigned i = 0; i < 500 && nr_descriptors() > before; i++)
		usleep(10000);
	assert_true(nr_descriptors() <= before);
}

int main(void)
{
	static const struct conf_fixture fixture = {.name = "quic",
		.start = start,
		.stop = quic_peer_stop,
		.epoch = true,
		.sessions = true,
		.no_stock = true};
	const struct CMUnitTest tests[] = {
		conf_case(a_slow_disk_is_not_the_end_of_a_connection),
		conf_case(a_goodbye_needs_nobody_to_drive_it),
	};

	return conf_run(&fixture, tests, WEFT_ARRAY_LEN(tests));
}
