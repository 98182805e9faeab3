/* SPDX-License-Identifier: MIT */
/*
 * Conformance of the transport "srp" at another's SRP target, which a script has started
 * (tests/shell/srp-conformance.sh); without one everything is skipped.
 *
 *     WEFT_SRP       "HOST PORT UNIT"
 *     WEFT_SRP_FILE  the file behind the unit, of CONF_REGION_BYTES
 *     WEFT_SRP_PORT  the attribute of the target's port that a 0 stops, and a 1 starts
 *     WEFT_SRP_READ  set: the unit may only be read
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/conformance/srp-cases.h"
#include "transports/srp/borrower/client.h"

static char host[64], port[8], unit[64];
static const char *file;

static void start(struct conf *conf)
{
	static const uint8_t zeros[1 << 20];
	int fd = open(file, O_WRONLY | O_CLOEXEC);

	assert_return_code(fd, errno);
	for (unsigned i = 0; i < CONF_REGION_BYTES / sizeof(zeros); i++)
		assert_int_equal(
			pwrite(fd, zeros, sizeof(zeros), i * sizeof(zeros)), sizeof(zeros));
	close(fd);
	conf->ops = &tp_srp_ops;
	conf->size_bytes = CONF_REGION_BYTES;
	conf->target.host = host;
	conf->target.port = port;
	conf->target.region = unit;
	conf->target.hello.anonymous = true;
}

static void stop(struct conf *conf)
{
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_return_code(fd, errno);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void stop_port(struct conf *conf)
{
	put(getenv("WEFT_SRP_PORT"), "0");
}

static void start_port(struct conf *conf)
{
	put(getenv("WEFT_SRP_PORT"), "1");
}

int main(void)
{
	static const struct conf_fixture fixture = {.name = "srp", .start = start, .stop = stop};
	static const struct srp_port at = {.stop = stop_port, .start = start_port};
	const char *where = getenv("WEFT_SRP");
	struct weft_error err;
	struct tp *keep;

	file = getenv("WEFT_SRP_FILE");
	if (!where || !file || sscanf(where, "%63s %7s %63s", host, port, unit) != 3) {
		printf("SKIP: WEFT_SRP does not name a unit of an SRP target\n");
		return 77;
	}
	/* The devices stay open, so that the suite sees no file come or go with them. */
	if (tp_open(&tp_srp_ops, NULL, &keep, &err) < 0) {
		printf("SKIP: %s\n", err.message);
		return 77;
	}
	int r = getenv("WEFT_SRP_READ") ? srp_conf_run_read_only(&fixture)
					: srp_conf_run(&fixture, &at);
	tp_close(keep);
	return r;
}
