/* SPDX-License-Identifier: MIT */
/*
 * The verbs transport with keys, against a donor in this process: the suite that all transports
 * pass, each connection proving a key; who is let in and who is not; and what somebody can do who
 * hears all that travels.  Needs RDMA_IP, as verbs.c does.  Without WEFT_SUITE it runs its own
 * cases alone.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rdma/rdma_cma.h>

#include "fabric/base/util.h"
#include "fabric/key/store.h"
#include "tests/conformance/verbs-peer.h"
#include "transports/verbs/borrower/conn.h"
#include "transports/verbs/donor/listener.h"
#include "transports/verbs/proof.h"
#include "transports/verbs/verbs.h"

#define SECRET "00112233445566778899aabbccddeeff"
#define OTHER "ffeeddccbbaa99887766554433221100"

static const char *rdma_ip;
static struct weft_key key, wrong, nobodys, expired, encrypted, bob, reader;
static struct verbs_listener_config listener;
static struct weft_donor_config donor;

/* ---- the donor's keys ---- */

#define LINE(name) name ":" SECRET "\n"
#define ALL_KEYS LINE("box") LINE("old") LINE("tls") LINE("bob") LINE("reader")

static char store[] = "/tmp/weft-verbs-keys-XXXXXX";

static void put(const char *name, const char *text)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/%s", store, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || weft_write_all(fd, text, strlen(text)) < 0 || close(fd) < 0)
		abort();
}

static void write_store(const char *keys)
{
	put("keys.psk", keys);
	put("grants.json",
		"{\"version\": 1, \"keys\": {"
		"\"box\": {\"rdma_plaintext\": true}, \"bob\": {\"rdma_plaintext\": true}, "
		"\"reader\": {\"rdma_plaintext\": true, \"read_only\": true}, \"tls\": {}, "
		"\"old\": {\"rdma_plaintext\": true, \"expires\": \"2020-01-01\"}}}");
}

static void drop(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/%s", store, name);
	unlink(path);
}

static void drop_store(void)
{
	drop("keys.psk");
	drop("grants.json");
	rmdir(store);
}

static struct weft_keys *make_keys(void)
{
	struct weft_error err;
	struct weft_keys *keys;

	if (!mkdtemp(store))
		abort();
	atexit(drop_store);
	write_store(ALL_KEYS);
	if (weft_keys_open(store, &keys, &err) < 0) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
	return keys;
}

/* ---- what travels is overheard ---- */

static struct {
	_Atomic bool listens; /* the donor's threads unpack too */
	char port[8];
	struct verbs_msg grant;
	uint8_t request[VERBS_PROVED_BYTES]; /* of the data connection */
	unsigned nr_requests;
} ear;

/* 0, or -errno of the rejection. */
static int knock(const void *private_data, size_t len)
{
	struct rdma_addrinfo hints = {.ai_port_space = RDMA_PS_TCP}, *info;
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
	};
	struct rdma_conn_param param = {
		.private_data = private_data,
		.private_data_len = (uint8_t)len,
		.initiator_depth = 1,
		.retry_count = 6,
		.rnr_retry_count = 6,
	};
	struct rdma_cm_id *id;
	bool listened = ear.listens;

	ear.listens = false; /* to itself */
	assert_int_equal(rdma_getaddrinfo(rdma_ip, ear.port, &hints, &info), 0);
	assert_int_equal(rdma_create_ep(&id, info, NULL, &attr), 0);
	rdma_freeaddrinfo(info);
	int r = rdma_connect(id, &param) == 0 ? 0 : -errno;
	rdma_destroy_ep(id);
	ear.listens = listened;
	return r;
}

static void knock_with_a_mac(const struct verbs_private *wants)
{
	uint8_t buf[VERBS_PROVED_BYTES];

	verbs_pack_proved(wants, buf);
	assert_int_equal(knock(buf, sizeof(buf)), -ECONNREFUSED);
}

/* While the grant waits for its data connection, by somebody who knows all but the key. */
static void try_without_the_key(void)
{
	uint8_t plain[VERBS_PRIVATE_BYTES];
	struct verbs_private wants;

	verbs_pack_private(VERBS_DATA, ear.grant.grant.token, plain);
	assert_int_equal(knock(plain, sizeof(plain)), -ECONNREFUSED);
	assert_int_equal(verbs_unpack_private(ear.request, sizeof(ear.request), &wants), 0);
	assert_int_equal(wants.purpose, VERBS_PROVED);
	struct verbs_private changed = wants;
	changed.counter++;
	knock_with_a_mac(&changed);
	changed = wants;
	changed.session++;
	knock_with_a_mac(&changed);
	changed = wants;
	changed.mac[0] ^= 1;
	knock_with_a_mac(&changed);
	/* A MAC of his own, under what he knows. */
	struct weft_proof keys = {0};
	assert_int_equal(verbs_proof_request(&keys, ear.grant.grant.token, &changed), 0);
	knock_with_a_mac(&changed);
}

int __real_rdma_connect(struct rdma_cm_id *id, struct rdma_conn_param *param);
int __wrap_rdma_connect(struct rdma_cm_id *id, struct rdma_conn_param *param);

static void flip_in_request(struct rdma_conn_param *param);

int __wrap_rdma_connect(struct rdma_cm_id *id, struct rdma_conn_param *param)
{
	flip_in_request(param);
	if (ear.listens && param->private_data_len == VERBS_PROVED_BYTES) {
		ear.nr_requests++;
		memcpy(ear.request, param->private_data, sizeof(ear.request));
		try_without_the_key();
	}
	return __real_rdma_connect(id, param);
}

int __real_verbs_unpack(const uint8_t *buf, size_t len, struct verbs_msg *ret);
int __wrap_verbs_unpack(const uint8_t *buf, size_t len, struct verbs_msg *ret);

int __wrap_verbs_unpack(const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	int r = __real_verbs_unpack(buf, len, ret);

	if (r == 0 && ear.listens && ret->type == VERBS_GRANT)
		ear.grant = *ret;
	return r;
}

/* ---- bits are flipped on the way, in either direction ---- */

/* The donor's threads look at these at any time. */
static struct {
	atomic_uint type;         /* an enum verbs_msg_type; 0: of no message */
	atomic_bool request;      /* the data connection's */
	_Atomic size_t byte, len; /* which; of how many there are */
	atomic_uint nr;           /* flipped, in this connection */
} flip;
static _Thread_local uint8_t packed_type; /* what the thread is about to send */

static void flip_in(uint8_t *bytes, size_t len)
{
	flip.len = len;
	if (flip.byte < len) {
		bytes[flip.byte] ^= (uint8_t)(1 << (flip.byte * 5 + flip.type) % 8);
		flip.nr++;
	}
}

int __real_verbs_proof_mark(struct verbs_proof *proof, uint8_t *buf, size_t len);
int __wrap_verbs_proof_mark(struct verbs_proof *proof, uint8_t *buf, size_t len);

int __wrap_verbs_proof_mark(struct verbs_proof *proof, uint8_t *buf, size_t len)
{
	int r = __real_verbs_proof_mark(proof, buf, len);

	if (flip.type && packed_type == flip.type && r > 0)
		flip_in(buf, (size_t)r);
	return r;
}

static void flip_in_request(struct rdma_conn_param *param)
{
	if (flip.request && param->private_data_len == VERBS_PROVED_BYTES)
		flip_in((uint8_t *)(uintptr_t)param->private_data, VERBS_PROVED_BYTES);
}

static atomic_uint nr_hellos;

size_t __real_verbs_pack(const struct verbs_msg *msg, uint8_t *buf);
size_t __wrap_verbs_pack(const struct verbs_msg *msg, uint8_t *buf);

size_t __wrap_verbs_pack(const struct verbs_msg *msg, uint8_t *buf)
{
	nr_hellos += msg->type == VERBS_HELLO;
	packed_type = msg->type;
	return __real_verbs_pack(msg, buf);
}

/* ---- cases ---- */

static void key_of_both_opens_all_that_it_did_without(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);

	conf_fill(conf->buf, 0, 65536, 1);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, 65536, conf->buf), 0);
	memset(conf->buf, 0, 65536);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, 65536, conf->buf), 0);
	conf_check(conf->buf, 0, 65536, 1);
	/* By the donor, over the control connection. */
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(conf_do(conf, conn, TP_ZERO, 0, 0, 1 << 20, NULL), 0);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, 65536, conf->buf), 0);
	for (unsigned i = 0; i < 65536; i++)
		assert_int_equal(conf->buf[i], 0);
	assert_int_equal(conf_do(conf, conn, TP_FLUSH, 0, 0, 0, NULL), 0);
	conf_end(conn);
}

/* What one with such a key is told, but for the key's name. */
static void refused_text(struct conf *conf, const struct weft_key *with, char *ret)
{
	struct tp_target target = conf->target;
	struct weft_error why;

	/* It has the contents that are meant: that is no proof. */
	target.hello.expect = conf->region->epoch;
	target.key = with;
	nr_hellos = 0;
	assert_int_equal(conf_refused(conf, &target, &why), -EACCES);
	assert_int_equal(nr_hellos, 0);
	print_message("%s\n", why.message);
	const char *name = strstr(why.message, with->identity);
	assert_non_null(name);
	sprintf(ret, "%.*s%s", (int)(name - why.message), why.message,
		name + strlen(with->identity));
}

static void key_that_is_unknown_expired_or_wrong_is_refused_alike(void **state)
{
	char texts[3][sizeof(((struct weft_error *)0)->message)];

	refused_text(*state, &wrong, texts[0]);
	refused_text(*state, &nobodys, texts[1]);
	refused_text(*state, &expired, texts[2]);
	assert_string_equal(texts[0], texts[1]);
	assert_string_equal(texts[0], texts[2]);
}

/* It is proved; and that the donor can tell why is a proof as well. */
static void key_that_is_not_for_plaintext_is_told_so(void **state)
{
	struct conf *conf = *state;
	struct tp_target target = conf->target;
	struct weft_error why;

	target.key = &encrypted;
	assert_int_equal(conf_refused(conf, &target, &why), -EACCES);
	print_message("%s\n", why.message);
	assert_non_null(strstr(why.message, "--rdma-plaintext"));
}

static void key_is_good_for_plaintext_where_all_are(void **state)
{
	struct conf *conf = *state;
	struct tp_target target = conf->target;

	target.key = &encrypted;
	conf_end(conf_connect(conf, &target));
}

static void key_that_is_missing_is_asked_for(void **state)
{
	struct conf *conf = *state;
	struct tp_target target = conf->target;
	struct weft_error why;

	target.key = NULL;
	assert_int_equal(conf_refused(conf, &target, &why), -EACCES);
	assert_non_null(strstr(why.message, "wants a key"));
	/* And nothing of it is in the way of who has one. */
	conf_end(conf_connect(conf, &conf->target));
}

static void key_is_not_needed_where_everybody_may_come(void **state)
{
	struct conf *conf = *state;
	struct tp_target target = conf->target;

	target.key = NULL;
	conf_end(conf_connect(conf, &target));
	conf_end(conf_connect(conf, &conf->target));
	/* It has to be right all the same: nobody goes on without what he asked for. */
	target.key = &wrong;
	assert_int_equal(conf_refused(conf, &target, NULL), -EACCES);
}

static void key_has_to_be_proved_by_the_donor_too(void **state)
{
	struct conf *conf = *state;
	struct weft_error why;

	assert_int_equal(conf_refused(conf, &conf->target, &why), -EACCES);
	assert_non_null(strstr(why.message, "has no keys"));
}

static void key_makes_a_token_that_is_overheard_worthless(void **state)
{
	struct conf *conf = *state;

	snprintf(ear.port, sizeof(ear.port), "%s", conf->target.port);
	ear.nr_requests = 0;
	ear.listens = true;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	ear.listens = false;
	assert_int_equal(ear.nr_requests, 1);
	assert_int_equal(ear.grant.type, VERBS_GRANT);
	/* Again, bit for bit, and with the token: the session has what it asked for. */
	assert_int_equal(knock(ear.request, sizeof(ear.request)), -ECONNREFUSED);
	uint8_t plain[VERBS_PRIVATE_BYTES];
	verbs_pack_private(VERBS_DATA, ear.grant.grant.token, plain);
	assert_int_equal(knock(plain, sizeof(plain)), -ECONNREFUSED);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, 4096, conf->buf), 0);
	conf_end(conn);
	assert_int_equal(knock(ear.request, sizeof(ear.request)), -ECONNREFUSED);
}

static void count_grants(void *ctx, const struct weft_attachment_status *status)
{
	*(unsigned *)ctx += status->nr_sessions;
}

/* Every byte of the message, each in a connection of its own; what is flipped is the tag, too. */
static void flip_all(struct conf *conf, struct tp_target *target, bool before_grant)
{
	uint64_t begin_ns = weft_now_ns();

	for (flip.byte = 0; flip.byte == 0 || flip.byte < flip.len; flip.byte++) {
		unsigned nr_grants = 0;

		/* Reserved: nobody looks at them. */
		if (flip.request && (flip.byte == 6 || flip.byte == 7))
			continue;
		flip.nr = 0;
		target->hello.generation++;
		struct tp_conn *conn = conf_try(conf, target);
		if (tp_state(conn) != TP_FAILED || flip.nr != 1)
			fail_msg("byte %zu of message %u: flipped %u times, and it went on",
				flip.byte, flip.type, flip.nr);
		if (before_grant)
			weft_donor_status(conf->donor, count_grants, &nr_grants);
		assert_int_equal(nr_grants, 0);
		conf_end(conn);
	}
	print_message("message %u: %zu bytes, %.1f s\n", flip.type, flip.len,
		(double)(weft_now_ns() - begin_ns) / 1e9);
	flip.type = 0;
	flip.request = false;
}

static void key_protects_each_byte_of_the_handshake(void **state)
{
	static const enum verbs_msg_type types[] = {VERBS_START, VERBS_CHALLENGE, VERBS_HELLO,
		VERBS_GRANT, VERBS_GET_CHUNKS, VERBS_CHUNKS};
	struct conf *conf = *state;
	struct tp_target target = conf->target;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(types); i++) {
		flip.type = types[i];
		flip_all(conf, &target, i < 3);
	}
	flip.request = true;
	flip_all(conf, &target, false);
	/* And whoever nobody meddles with goes on. */
	target.hello.generation++;
	struct tp_conn *conn = conf_connect(conf, &target);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, 4096, conf->buf), 0);
	conf_end(conn);
}

/* ---- what a hostile borrower does by itself ---- */

/* Posts what the transport would not, on its queue pair; the connection fails with it. */
static int post_raw(struct conf *conf, struct tp_conn *conn, enum ibv_wr_opcode opcode,
	const struct verbs_chunk *at)
{
	struct verbs_conn *verbs = to_verbs(conn);
	const struct weft_rdma_mem *mem = (const void *)(uintptr_t)conf->mem->priv[0];
	struct ibv_sge sge = {(uintptr_t)conf->buf, 4096, mem->mr[verbs->seat.device]->lkey};
	struct ibv_send_wr wr = {
		.wr_id = verbs_wr_id(VERBS_WR_EPOCH, 0),
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = opcode,
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = {.remote_addr = at->addr, .rkey = at->rkey},
	};
	struct ibv_send_wr *bad;

	assert_int_equal(ibv_post_send(verbs->data->qp, &wr, &bad), 0);
	while (tp_state(conn) == TP_READY)
		conf_pump(&conn, 1);
	return conn->error;
}

static void key_of_another_opens_nothing_of_the_first(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *first = conf_connect(conf, &conf->target);
	struct tp_target target = conf->target;

	conf_fill(conf->buf, 0, 65536, 1);
	assert_int_equal(conf_do(conf, first, TP_WRITE, 0, 0, 65536, conf->buf), 0);
	target.key = &bob;
	memset(target.hello.id, 0x22, WEFT_ID_BYTES);
	target.hello.mode = WEFT_MODE_SHARED;
	for (unsigned i = 0; i < 2; i++) {
		struct tp_conn *second = conf_connect(conf, &target);

		memset(conf->buf, 0, 65536);
		assert_int_equal(post_raw(conf, second, i ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ,
					 &to_verbs(first)->chunks[0]),
			-ENOTCONN);
		for (unsigned k = 0; k < 4096; k++)
			assert_int_equal(conf->buf[k], 0);
		conf_end(second);
	}
	assert_int_equal(conf_do(conf, first, TP_READ, 0, 0, 65536, conf->buf), 0);
	conf_check(conf->buf, 0, 65536, 1);
	/* The first one's id, which he cannot know, is another's under his own key. */
	target.hello = conf->target.hello;
	target.hello.generation += UINT64_C(1) << 32;
	assert_int_equal(conf_refused(conf, &target, NULL), -EBUSY);
	assert_int_equal(conf_do(conf, first, TP_PROBE, 0, 0, 0, NULL), 0);
	conf_end(first);
}

static void key_to_read_cannot_write(void **state)
{
	struct conf *conf = *state;
	struct tp_target target = conf->target;

	target.key = &reader;
	assert_int_equal(conf_refused(conf, &target, NULL), -EROFS);
	target.hello.mode = WEFT_MODE_READ;
	struct tp_conn *conn = conf_connect(conf, &target);
	assert_true(conn->info.read_only);
	memset(conf->buf, 0x77, 4096);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, 4096, conf->buf), -EPERM);
	assert_int_equal(post_raw(conf, conn, IBV_WR_RDMA_WRITE, &to_verbs(conn)->chunks[0]),
		-ENOTCONN);
	conf_end(conn);
	conn = conf_connect(conf, &target);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, 4096, conf->buf), 0);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(conf->buf[i], 0);
	conf_end(conn);
}

/* ---- revocation ---- */

static _Atomic uint64_t revoked_ns; /* 0: not yet */

static void *revoke_main(void *ctx)
{
	struct conf *conf = ctx;
	struct weft_error err;

	poll(NULL, 0, 100);
	write_store("");
	revoked_ns = weft_now_ns();
	if (weft_keys_reload(donor.keys, &err) != 1)
		abort();
	weft_donor_keys_changed(conf->donor);
	return NULL;
}

/*
 * How long a thread that wants to run each millisecond was not let, since the revocation: for so
 * long this machine had no time for anybody, which no program can make good.
 */
struct lateness {
	pthread_t thread;
	_Atomic bool stop;
	uint64_t ns;
};

static void *be_late(void *ctx)
{
	struct lateness *late = ctx;

	while (!atomic_load(&late->stop)) {
		const uint64_t begin_ns = weft_now_ns();

		poll(NULL, 0, 1);
		const uint64_t now_ns = weft_now_ns(), since_ns = atomic_load(&revoked_ns);
		const uint64_t from_ns = weft_max(begin_ns, since_ns) + 1000000;
		if (since_ns && now_ns > from_ns)
			late->ns += now_ns - from_ns;
	}
	return NULL;
}

/* The donor has noticed that all sessions have ended, and then their leases are over. */
static void end_leases(struct conf *conf)
{
	const uint64_t end_ns = weft_now_ns() + CONF_BOUND_MS * UINT64_C(1000000);
	unsigned nr;

	do {
		nr = 0;
		weft_donor_status(conf->donor, count_grants, &nr);
	} while (nr > 0 && weft_now_ns() < end_ns && poll(NULL, 0, 5) == 0);
	assert_int_equal(nr, 0);
	weft_donor_tick(conf->donor, weft_now_ns() + UINT64_C(1000000) * 2 * CONF_LEASE_MS);
	weft_donor_tick(conf->donor, weft_now_ns() + UINT64_C(1000000) * 2 * CONF_LEASE_MS);
}

static bool all_below(const uint64_t ns[2])
{
	return weft_max(ns[0], ns[1]) < UINT64_C(100000000);
}

/* Readers and writers, who look at nothing but what they do. */
static void key_that_is_revoked_opens_nothing_100_ms_later(void **state)
{
	struct conf *conf = *state;
	uint64_t best_ns[2] = {UINT64_MAX, UINT64_MAX};

	/* This machine may be busy, but not each time. */
	for (unsigned round = 0; round < 40 && (round % 2 || !all_below(best_ns)); round++) {
		struct tp_target target = conf->target;
		struct lateness late = {0};
		struct weft_error err;
		pthread_t thread;

		atomic_store(&revoked_ns, 0);
		target.hello.id[0] = (uint8_t)(0x30 + round);
		if (round % 2)
			target.hello.mode = WEFT_MODE_SHARED;
		struct tp_conn *conn = conf_connect(conf, &target);
		assert_int_equal(pthread_create(&late.thread, NULL, be_late, &late), 0);
		assert_int_equal(pthread_create(&thread, NULL, revoke_main, conf), 0);
		while (conf_do(conf, conn, round % 2 ? TP_READ : TP_WRITE, 0, 0, 4096, conf->buf) ==
			0)
			;
		uint64_t ns = weft_now_ns();
		atomic_store(&late.stop, true);
		pthread_join(late.thread, NULL);
		pthread_join(thread, NULL);
		assert_true(ns >= revoked_ns);
		ns -= revoked_ns;
		print_message("%s: %.1f ms, of which %.1f ms nobody ran, %s\n",
			round % 2 ? "a reader" : "a writer", (double)ns / 1e6,
			(double)late.ns / 1e6, conn->why.message);
		ns -= weft_min(ns, late.ns);
		best_ns[round % 2] = weft_min(best_ns[round % 2], ns);
		conf_end(conn);
		assert_int_equal(conf_refused(conf, &target, NULL), -EACCES);
		write_store(ALL_KEYS);
		assert_int_equal(weft_keys_reload(donor.keys, &err), 1);
		/* A reader takes nothing from others; a writer's region is free after its lease. */
		end_leases(conf);
	}
	assert_true(all_below(best_ns));
}

/* ---- fixtures ---- */

static void start(struct conf *conf)
{
	verbs_peer_start_donor(conf, rdma_ip, CONF_REGION_BYTES, &listener, donor);
	conf->target.key = &key;
}

static struct weft_key parse(const char *line)
{
	struct weft_key ret;

	if (weft_key_parse(line, strlen(line), &ret, NULL) < 0)
		abort();
	return ret;
}

int main(void)
{
	static const struct conf_fixture fixture = {.name = "verbs-keys",
		.start = start,
		.stop = verbs_peer_stop,
		.epoch = true,
		.sessions = true,
		.no_stock = true};
	const struct CMUnitTest own[] = {
		conf_case(key_of_both_opens_all_that_it_did_without),
		conf_case(key_that_is_unknown_expired_or_wrong_is_refused_alike),
		conf_case(key_that_is_not_for_plaintext_is_told_so),
		conf_case(key_that_is_missing_is_asked_for),
		conf_case(key_makes_a_token_that_is_overheard_worthless),
		conf_case(key_protects_each_byte_of_the_handshake),
		conf_case(key_of_another_opens_nothing_of_the_first),
		conf_case(key_to_read_cannot_write),
		conf_case(key_that_is_revoked_opens_nothing_100_ms_later),
	};
	const struct CMUnitTest plaintext[] = {
		conf_case(key_is_good_for_plaintext_where_all_are),
	};
	const struct CMUnitTest insecure[] = {
		conf_case(key_is_not_needed_where_everybody_may_come),
	};
	const struct CMUnitTest without[] = {
		conf_case(key_has_to_be_proved_by_the_donor_too),
	};
	struct tp *keep;
	int r;

	rdma_ip = verbs_peer_ip(&keep);
	if (!rdma_ip)
		return 77;
	key = parse("box:" SECRET);
	wrong = parse("box:" OTHER);
	nobodys = parse("nobody:" SECRET);
	expired = parse("old:" SECRET);
	encrypted = parse("tls:" SECRET);
	bob = parse("bob:" SECRET);
	reader = parse("reader:" SECRET);
	struct weft_keys *keys = make_keys();
	donor.keys = keys;
	r = getenv("WEFT_SUITE") ? conf_run(&fixture, own, WEFT_ARRAY_LEN(own))
				 : conf_run_own(&fixture, own, WEFT_ARRAY_LEN(own));
	listener.may_be_plaintext = true;
	r |= conf_run_own(&fixture, plaintext, WEFT_ARRAY_LEN(plaintext));
	listener.may_be_plaintext = false;
	donor.allow_insecure = true;
	r |= conf_run_own(&fixture, insecure, WEFT_ARRAY_LEN(insecure));
	donor.allow_insecure = false;
	donor.keys = NULL;
	r |= conf_run_own(&fixture, without, WEFT_ARRAY_LEN(without));
	weft_keys_close(keys);
	tp_close(keep);
	return r;
}
