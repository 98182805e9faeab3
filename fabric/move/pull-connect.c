/* SPDX-License-Identifier: MIT */
/*
 * The connection by which a region is pulled: over the best that both machines have, or over the
 * base transport; see pull.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/move/pull-private.h"

#define NS_PER_MS UINT64_C(1000000)

/*
 * For one connection, or for all that is tried before the base transport: the giver ends a move
 * whose taker is silent for 20 s.
 */
enum { CONNECT_MS = 5000 };

void pull_disconnect(struct pull *pull)
{
	struct tp_op *done[2 * PULL_DEPTH];

	if (pull->conn) {
		tp_shutdown(pull->conn);
		while (pull->conn->nr_outstanding > 0)
			tp_progress(pull->conn, done, WEFT_ARRAY_LEN(done));
		tp_disconnect(pull->conn);
		pull->conn = NULL;
	}
	tp_deregister(pull->mem);
	tp_deregister(pull->hash_mem);
	pull->mem = pull->hash_mem = NULL;
	tp_close(pull->tp);
	pull->tp = NULL;
	for (unsigned i = 0; i < PULL_DEPTH; i++)
		pull->slots[i].nr_pending = 0;
}

/* Until the connection has something to do, or ms are over.  0, or -ECANCELED, -ETIMEDOUT. */
int pull_wait(struct pull *pull, int ms)
{
	int events = tp_arm(pull->conn);
	struct pollfd fds[2] = {
		{.fd = pull->cancel_fd, .events = POLLIN},
		{.fd = tp_event_fd(pull->conn), .events = (short)events},
	};

	if (events == 0)
		ms = 0;
	int n = poll(fds, 2, ms);
	if (fds[0].revents)
		return -ECANCELED;
	return n == 0 && events != 0 ? -ETIMEDOUT : 0;
}

static int register_memory(struct pull *pull, struct weft_error *err)
{
	int r = pull_is_file(pull)
		? tp_register(pull->tp, pull->buffers, PULL_DEPTH * PULL_BUF_BYTES, &pull->mem, err)
		: tp_register(pull->tp, pull->region->map, pull->region->size_bytes, &pull->mem,
			  err);

	return r < 0 ? r
		     : tp_register(pull->tp, pull->slots[0].hashes,
			       weft_whole_pages(PULL_DEPTH * PULL_HASHES_BYTES), &pull->hash_mem,
			       err);
}

static int check_grant(const struct pull *pull, struct weft_error *err)
{
	const struct tp_info *info = &pull->conn->info;

	if (info->size_bytes != pull->region->size_bytes)
		return weft_error_set(err, EINVAL, "the region has another size than it had");
	if (info->max_hash_blocks < PULL_CHUNKS ||
		info->max_io_bytes < PULL_CHUNKS * WEFT_CHUNK_BYTES)
		return weft_error_set(err, EOPNOTSUPP,
			"the donor that has the region hashes no blocks, or too few; upgrade it");
	return 0;
}

/* Over the driver, which the target is for; nothing is left of a failure. */
static int connect_over(struct pull *pull, const struct tp_driver *driver,
	const struct tp_target *target, uint64_t deadline_ns, struct weft_error *err)
{
	int r = tp_open(driver->ops, NULL, &pull->tp, err);

	if (r == 0)
		r = register_memory(pull, err);
	if (r == 0)
		r = tp_connect(pull->tp, target, &pull->conn, err);
	while (r == 0 && tp_state(pull->conn) == TP_CONNECTING) {
		struct tp_op *none[1];

		if (pull_wait(pull, 100) == -ECANCELED)
			r = weft_error_set(err, ECANCELED, "aborted");
		tp_progress(pull->conn, none, 1);
		if (r == 0 && weft_now_ns() > deadline_ns)
			r = weft_error_set(err, ETIMEDOUT, "%s does not answer", target->host);
	}
	if (r == 0 && tp_state(pull->conn) != TP_READY) {
		*err = pull->conn->why;
		r = pull->conn->error;
	}
	if (r == 0)
		r = check_grant(pull, err);
	if (r < 0)
		pull_disconnect(pull);
	else
		pull->driver = driver;
	return r;
}

bool pull_is_new_place(struct pull_tried *tried, const char *host, const char *port)
{
	for (unsigned i = 0; i < tried->nr; i++)
		if (strcmp(tried->places[i].host, host) == 0 &&
			strcmp(tried->places[i].port, port) == 0)
			return false;
	if (tried->nr == PULL_PLACES_MAX)
		return false;
	snprintf(tried->places[tried->nr].host, sizeof(tried->places[0].host), "%s", host);
	snprintf(tried->places[tried->nr].port, sizeof(tried->places[0].port), "%s", port);
	tried->nr++;
	return true;
}

struct better {
	struct pull *pull;
	struct tp_target target;
	uint64_t deadline_ns; /* of all of them */
	struct pull_tried tried; /* over the driver */
	int r; /* 0: it is connected */
};

static uint32_t left_ms(uint64_t deadline_ns)
{
	const uint64_t now_ns = weft_now_ns();

	return now_ns < deadline_ns ? (uint32_t)((deadline_ns - now_ns) / NS_PER_MS) : 0;
}

static void try_offer(void *ctx, const struct tp_driver *driver, const char *host, const char *port)
{
	struct better *better = ctx;
	struct weft_error why;

	/* A place that does not answer leaves half of the time to those after it. */
	better->target.connect_timeout_ms = left_ms(better->deadline_ns) / 2;
	if (better->r == 0 || better->r == -ECANCELED || !better->target.connect_timeout_ms ||
		!pull_is_new_place(&better->tried, host, port))
		return;
	better->target.host = host;
	better->target.port = port;
	better->r = connect_over(better->pull, driver, &better->target,
		weft_now_ns() + better->target.connect_timeout_ms * NS_PER_MS, &why);
	if (better->r < 0)
		weft_debug("region '%s' cannot be read over %s: %s", better->target.region,
			driver->label, why.message);
}

/* What is better whatever the distance, and can be had on this machine. */
static bool is_better(const struct tp_driver *driver, const struct tp_target *target)
{
	struct weft_error why;

	return driver->ops && driver->parse_offer && !driver->far_ms &&
		(!driver->needs_proof || target->key || target->certificates) &&
		(!driver->usable || driver->usable(&why) == 0);
}

/* A file's bytes go by way of buffers anyway, and its donor would have to hold all of it. */
static bool connect_better(struct pull *pull, const struct weft_uri *uri,
	const struct tp_target *target)
{
	struct better better = {.pull = pull,
		.target = *target,
		.r = -ENOTCONN};
	struct weft_welcome welcome;
	struct weft_error why;
	bool asked = false;

	if (pull->base_only || pull_is_file(pull))
		return false;
	for (const struct tp_driver *const *at = tp_drivers; *at && !(*at)->ask; at++) {
		if (!is_better(*at, target))
			continue;
		if (!asked && tp_base_driver()->ask(uri, target->key, target->certificates,
				      CONNECT_MS, pull->cancel_fd, &welcome, NULL, &why) < 0)
			return false;
		if (!asked)
			better.deadline_ns = weft_now_ns() + CONNECT_MS * NS_PER_MS;
		asked = true;
		better.tried.nr = 0;
		tp_each_offered(*at, welcome.offers, uri->host, try_offer, &better);
	}
	return better.r == 0;
}

int pull_connect(struct pull *pull, const struct weft_uri *uri, const struct weft_key *key,
	const char *certificates, const uint8_t id[WEFT_ID_BYTES], uint64_t epoch,
	struct weft_error *err)
{
	struct tp_target target = {
		.host = uri->host,
		.port = uri->port,
		.region = uri->region,
		.key = key,
		.certificates = certificates,
		.get_pass = tp_get_pass,
		.pass_host = uri->host,
		.pass_port = uri->port,
		.connect_timeout_ms = CONNECT_MS,
		.dead_ms = PULL_SILENT_MS,
		.hello = {.generation = UINT64_C(1) << 32,
			.mode = WEFT_MODE_SHARED,
			.name = "weft-move",
			.expect = epoch},
	};

	pull_disconnect(pull);
	memcpy(target.hello.id, id, WEFT_ID_BYTES);
	if (connect_better(pull, uri, &target))
		return 0;
	return connect_over(pull, tp_base_driver(), &target,
		weft_now_ns() + CONNECT_MS * NS_PER_MS, err);
}
