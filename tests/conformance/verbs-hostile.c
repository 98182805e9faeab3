/* SPDX-License-Identifier: MIT */
/* Peers of a verbs donor that do not keep to the protocol, or reach for what is not theirs. */
#include "tests/conformance/verbs-process.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <rdma/rdma_verbs.h>

#include "fabric/base/util.h"
#include "transports/verbs/verbs.h"
#include "transports/verbs/proto.h"

enum { NR_ROUNDS = 60 };

/* A peer by rdma_cm's simple calls. */

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
	assert_int_equal(rdma_getaddrinfo(peer_rdma_ip, peer->port, &hints, &info), 0);
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
	uint64_t end_ns = peer_bound_ns(5000);
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
	struct tp_conn *conn = peer_connect(peer);

	assert_int_equal(peer_run(peer, conn, TP_PROBE, 0, 0, NULL), 0);
	peer_finish(conn);
}

static void strangers_are_rejected_and_hung_up_on(void **state)
{
	struct peer *peer = peer_new("1048576", "0", "60000");
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
	peer_free(peer);
}

static void requests_are_checked_by_the_donor_too(void **state)
{
	struct peer *peer = peer_new("1048576", "0", "60000");
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
	peer_free(peer);
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
	struct peer *peer = peer_new("1048576", "0", "60000");
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
	struct tp_conn *late = peer_try_connect(peer);
	assert_int_equal(late->error, -WEFT_ESUPERSEDED);
	peer_finish(late);
	assert_int_equal(raw_access(&next.data, false, next.chunk.addr, next.chunk.rkey, 4096), 0);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(next.data.buf[i], 0x77);
	if (next.chunk.rkey != owner.chunk.rkey)
		assert_int_not_equal(
			raw_access(&next.data, true, owner.chunk.addr, owner.chunk.rkey, 4096), 0);
	guest_close(&owner);
	guest_close(&next);
	peer_free(peer);
}

static void connections_that_never_say_hello_do_not_shut_others_out(void **state)
{
	struct peer *peer = peer_new("1048576", "0", "60000");
	uint8_t private_data[VERBS_PRIVATE_BYTES], token[VERBS_TOKEN_BYTES] = {0};
	struct raw raws[150]; /* more than there is room for */
	struct tp_conn *friend = peer_connect(peer);

	verbs_pack_private(VERBS_CONTROL, token, private_data);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(raws); i++)
		assert_int_equal(raw_connect(&raws[i], peer, private_data, sizeof(private_data)),
			0);
	/*
	 * They are held. Who was there stays and comes back, and who comes next finds room, from
	 * the same address.
	 */
	assert_int_equal(peer_run(peer, friend, TP_PROBE, 0, 0, NULL), 0);
	peer->target.hello.generation++;
	struct tp_conn *again = peer_connect(peer);
	peer_finish(friend);
	peer->target.hello.id[0] = 9;
	peer->target.hello.mode = WEFT_MODE_SHARED;
	struct tp_conn *newcomer = peer_connect(peer);
	peer_finish(newcomer);
	peer_finish(again);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(raws); i++)
		raw_close(&raws[i]);
	peer_free(peer);
}

/* One that asks for the same chunks for ever has no more time than others. */
static void asking_again_buys_no_time(void **state)
{
	struct peer *peer = peer_new("1048576", "0", "60000");
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
	peer_free(peer);
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
	struct peer *peer = peer_new("67108864", "0", "60000");
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
	peer_free(peer);
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
	struct peer *peer = peer_new("8388608", "0", "60000");
	unsetenv("WEFT_SLOW_MS");
	struct tp_conn *writer = peer_connect(peer);
	unsigned nr_cut = 0;

	for (uint64_t round = 1; round <= ROUNDS; round++) {
		struct guest reader, other, next;
		uint8_t *in = mmap(NULL, NR_READS * READ_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		struct ibv_wc wc;

		assert_ptr_not_equal(in, MAP_FAILED);
		peer_fill(peer->buf, 0, READ_BYTES, 2 * round);
		assert_int_equal(peer_run(peer, writer, TP_WRITE, 0, READ_BYTES, peer->buf), 0);
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
		peer_fill(peer->buf, 0, READ_BYTES, 2 * round + 1);
		assert_int_equal(peer_run(peer, writer, TP_WRITE, 0, READ_BYTES, peer->buf), 0);
		unsigned nr_good = 0;
		for (unsigned i = 0; i < NR_READS; i++) {
			assert_int_equal(rdma_get_send_comp(reader.data.id, &wc), 1);
			if (wc.status != IBV_WC_SUCCESS)
				continue;
			peer_check(in + nr_good * READ_BYTES, 0, READ_BYTES, 2 * round);
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
		peer_check(other.data.buf, 0, 4096, 2 * round + 1);
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
	peer_finish(writer);
	peer_free(peer);
}

/* Each takes over from one that is busy, or has left; others are turned away meanwhile. */
static void grants_come_soon_while_connections_come_and_go(void **state)
{
	struct peer *peer = peer_new("1048576", "32768", "60000");
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
		struct tp_conn *conn = peer_connect(peer);
		longest_ns = weft_max(longest_ns, weft_now_ns() - start_ns);
		if (old)
			peer_finish(old);
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
			peer_finish(conn);
			old = NULL;
			continue;
		}
		start_ns = weft_now_ns();
		struct tp_conn *next = peer_connect(peer);
		longest_ns = weft_max(longest_ns, weft_now_ns() - start_ns);
		peer_finish(conn);
		peer->target.hello.generation++;
		old = next;
	}
	if (old)
		peer_finish(old);
	print_message("the longest wait for a grant: %.2f s\n", (double)longest_ns / 1e9);
	assert_true(longest_ns < 5 * UINT64_C(1000000000));
	peer_free(peer);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strangers_are_rejected_and_hung_up_on),
		cmocka_unit_test(requests_are_checked_by_the_donor_too),
		cmocka_unit_test(a_key_opens_what_was_granted_and_nothing_else),
		cmocka_unit_test(connections_that_never_say_hello_do_not_shut_others_out),
		cmocka_unit_test(asking_again_buys_no_time),
		cmocka_unit_test(readers_share_one_registration),
		cmocka_unit_test(a_reader_is_revoked_with_a_read_in_flight),
		cmocka_unit_test(grants_come_soon_while_connections_come_and_go),
	};
	int r = peer_main(argc, argv);

	if (r >= 0)
		return r;
	if (argc == 2)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
