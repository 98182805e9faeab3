/* SPDX-License-Identifier: MIT */
/*
 * A borrower over RDMA, written from weft-protocol(7), rdma-core and a library of hashes alone:
 * nothing of weft's code is used.  It is a test of the manual
 * (tests/shell/protocol-second-borrower-rdma.sh), like second-borrower.py: what it cannot do after
 * reading that, the manual lacks.
 *
 * usage: second-borrower-rdma ADDRESS PORT memory|chunks|file|keys|moving
 *   memory   of a donor with --memory r=4M --lease 8
 *   chunks   of one that lends 'r', of more chunks than fit into a message
 *   file     of one with --file f=PATH, of 1M: its first 4 KiB, and every second of its first 600
 *            pieces of 512 bytes from there on, are written
 *   keys     of one that lends 'r' to the key "box", whose secret is $SECRET, in hexadecimal digits
 *   moving   of one with --memory r=4M, which somebody begins to move when "move it" is printed,
 *            calls off at "call it off", and begins to move again at the next "move it".  Ends
 *            without a goodbye; the bytes 0 to 4095, and 100 from 320K on, are 'm'
 *
 * One thread, which waits for everything it asks.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <rdma/rdma_cma.h>

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition);            \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

enum {
	MAGIC = 0x57454654,
	VERSION = 1,
	HELLO = 1,
	WAIT,
	GRANT,
	REFUSE,
	GET_CHUNKS,
	CHUNKS,
	REQUEST,
	REPLY,
	BYE,
	START,
	CHALLENGE,
	QUIET,
	CONTROL = 1,
	DATA = 2,
	PROVED = 3,
	PROOF_VERSION = 1,
	TAG_BYTES = 32,
	READ_ONLY = 1,
	FLUSH_ASKS = 2,
	FLUSH = 1,
	ZERO = 2,
	GRANTED = 1,
	WROTE = 2,
	RESTORABLE = 4,
	FOLLOWS = 9,
	REPORTS = 11,
	SAID = 12,
	MOVING = 13,
	BLOCK_BYTES = 64 << 10,
	MUST = 0x8000,
	ENOENT_ = 2,
	EBUSY_ = 4,
	ESTALE_ = 5,
	EPERM_ = 1,
	ENOSPC_ = 10,
	EPROTO_ = 12,
	EPROTONOSUPPORT_ = 13,
	EACCES_ = 14,
	OVER = 17,
	SUPERSEDED = 18,
	MSG_MAX = 4384,
	REQUESTS = 8,
	RANGES_PER_MESSAGE = 256,
	NR_RECV = REQUESTS,
	WAIT_MS = 60000, /* the machine may be slow */
	BUF_BYTES = 64 << 10,
	WR_RECV = 1000,
};

static struct sockaddr_in donor;

/* ---- bytes ---- */

static void put(uint8_t *p, size_t off, size_t size, uint64_t value)
{
	for (size_t i = 0; i < size; i++)
		p[off + i] = (uint8_t)(value >> 8 * (size - 1 - i));
}

static uint64_t get(const uint8_t *p, size_t off, size_t size)
{
	uint64_t value = 0;

	for (size_t i = 0; i < size; i++)
		value = value << 8 | p[off + i];
	return value;
}

/* ---- who we are ---- */

struct attachment {
	const char *region;
	uint8_t id[16];
	uint64_t generation;
	uint64_t epoch;
	uint8_t mode; /* 0: reads, 1: shared, 2: writes */
	/* For one hello. */
	bool remembers, version0;
	uint64_t granted;
	uint16_t fields[2]; /* more of them, empty */
};

static struct attachment attachment(const char *region, uint8_t mode)
{
	static uint8_t nr;
	struct attachment a = {.region = region, .generation = UINT64_C(1) << 32, .mode = mode};

	memset(a.id, 0x5a, sizeof(a.id));
	put(a.id, 8, 8, (uint64_t)time(NULL) << 8 | ++nr);
	return a;
}

/* ---- proof of a key ---- */

struct proof {
	bool on;
	uint8_t borrower[32], donor[32], seal[32], data[32];
	uint64_t nr_sent, nr_taken, session;
};

static struct {
	const char *identity; /* NULL: without */
	uint8_t secret[64];
	size_t secret_len;
} key;

static void hmac(const uint8_t *with, size_t with_len, const void *bytes, size_t len, uint8_t *ret)
{
	CHECK(gnutls_hmac_fast(GNUTLS_MAC_SHA256, with, with_len, bytes, len, ret) == 0);
}

static void sha256(const void *bytes, size_t len, uint8_t *ret)
{
	CHECK(gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes, len, ret) == 0);
}

static void tag_of(const uint8_t *with, uint64_t number, const uint8_t *message, size_t len,
	uint8_t *ret)
{
	uint8_t bytes[8 + 32];

	put(bytes, 0, 8, number);
	sha256(message, len, bytes + 8);
	hmac(with, 32, bytes, sizeof(bytes), ret);
}

static void put_address(uint8_t *p, const struct sockaddr *address)
{
	memset(p, 0, 10);
	memset(p + 10, 0xff, 2);
	memcpy(p + 12, &((const struct sockaddr_in *)address)->sin_addr, 4);
}

/* start and challenge: without the latter's tag. */
static void derive(struct proof *proof, const uint8_t *start, size_t start_len,
	const uint8_t *challenge, size_t challenge_len, const struct sockaddr *here)
{
	static const char *const purposes[] = {"borrower", "donor", "seal", "data"};
	uint8_t *const all[] = {proof->borrower, proof->donor, proof->seal, proof->data};
	uint8_t salt[64], prk[32], transcript[2 * 256 + 34], info[80];

	memcpy(salt, start + 16, 32);
	memcpy(salt + 32, challenge + 16, 32);
	hmac(salt, sizeof(salt), key.secret, key.secret_len, prk);
	memcpy(transcript, start, start_len);
	memcpy(transcript + start_len, challenge, challenge_len);
	uint8_t *ends = transcript + start_len + challenge_len;
	put_address(ends, here);
	put_address(ends + 16, (struct sockaddr *)&donor);
	put(ends, 32, 2, ntohs(donor.sin_port));
	for (unsigned i = 0; i < 4; i++) {
		size_t len = (size_t)sprintf((char *)info, "weft proof 1 %s", purposes[i]) + 1;

		sha256(transcript, start_len + challenge_len + 34, info + len);
		info[len + 32] = 1; /* HKDF's first block is all that is needed */
		hmac(prk, sizeof(prk), info, len + 33, all[i]);
	}
	proof->session = get(challenge, 48, 8);
	proof->on = true;
}

static void seal(const struct proof *proof, const uint8_t *id, uint8_t *ret)
{
	static const uint8_t nonce[12];
	gnutls_datum_t with = {(uint8_t *)(uintptr_t)proof->seal, 32};
	gnutls_aead_cipher_hd_t cipher;
	size_t len = 32;

	CHECK(gnutls_aead_cipher_init(&cipher, GNUTLS_CIPHER_AES_256_GCM, &with) == 0);
	CHECK(gnutls_aead_cipher_encrypt(
		      cipher, nonce, sizeof(nonce), NULL, 0, 16, id, 16, ret, &len) == 0);
	gnutls_aead_cipher_deinit(cipher);
}

/* ---- a session ---- */

struct chunk {
	uint64_t addr;
	uint32_t rkey;
};

struct session {
	struct rdma_event_channel *channel;
	struct rdma_cm_id *control, *data;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_mr *mr;
	uint8_t *memory; /* NR_RECV messages, one to send, BUF_BYTES, a word */
	uint8_t *out, *buf, *word;
	uint8_t in[MSG_MAX]; /* the message that came last */
	unsigned queue[NR_RECV], queue_len[NR_RECV], nr_queued;
	struct proof proof;
	bool ended;
	/* The grant. */
	uint64_t size_bytes, epoch, chunk_bytes;
	uint32_t lease_ms, flags, nr_chunks;
	struct chunk epoch_word, beat_word, *chunks;
	uint8_t token[16];
	bool restorable;
	struct chunk said; /* rkey 0 and addr 0: it need not report */
	char moving[320];
	uint64_t beat, beat_ms;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void nap(void)
{
	poll(NULL, 0, 1);
}

/* The next event of the connection manager, or NULL after wait_ms; the caller acknowledges it. */
static struct rdma_cm_event *next_event(struct session *s, int wait_ms)
{
	struct pollfd p = {.fd = s->channel->fd, .events = POLLIN};
	struct rdma_cm_event *event;

	if (poll(&p, 1, wait_ms) <= 0)
		return NULL;
	CHECK(rdma_get_cm_event(s->channel, &event) == 0);
	return event;
}

static void expect_event(struct session *s, enum rdma_cm_event_type type)
{
	struct rdma_cm_event *event = next_event(s, WAIT_MS);

	CHECK(event);
	if (event->event != type)
		fprintf(stderr, "%s (%d)\n", rdma_event_str(event->event), event->status);
	CHECK(event->event == type);
	rdma_ack_cm_event(event);
}

static void post_recv(struct session *s, unsigned i)
{
	struct ibv_sge sge = {(uintptr_t)(s->memory + i * MSG_MAX), MSG_MAX, s->mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = WR_RECV + i, .sg_list = &sge, .num_sge = 1}, *bad;

	CHECK(ibv_post_recv(s->control->qp, &wr, &bad) == 0);
}

static void make_qp(struct session *s, struct rdma_cm_id *id, unsigned nr_recv)
{
	struct ibv_qp_init_attr attr = {.send_cq = s->cq, .recv_cq = s->cq, .qp_type = IBV_QPT_RC};

	attr.cap.max_send_wr = 16;
	attr.cap.max_recv_wr = nr_recv;
	attr.cap.max_send_sge = attr.cap.max_recv_sge = 1;
	CHECK(rdma_create_qp(id, s->pd, &attr) == 0);
}

/* The device is known. */
static void make_buffers(struct session *s)
{
	size_t len = (NR_RECV + 1) * MSG_MAX + BUF_BYTES + 8;

	s->pd = ibv_alloc_pd(s->control->verbs);
	s->cq = ibv_create_cq(s->control->verbs, 64, NULL, NULL, 0);
	CHECK(s->pd && s->cq && posix_memalign((void **)&s->memory, 4096, len) == 0);
	s->mr = ibv_reg_mr(s->pd, s->memory, len, IBV_ACCESS_LOCAL_WRITE);
	CHECK(s->mr);
	s->out = s->memory + NR_RECV * MSG_MAX;
	s->buf = s->out + MSG_MAX;
	s->word = s->buf + BUF_BYTES;
}

/* Up to the connection request.  data: from where the control connection is. */
static struct rdma_cm_id *approach(struct session *s, bool data)
{
	struct sockaddr_in from, *src = NULL;
	struct rdma_cm_id *id;

	CHECK(rdma_create_id(s->channel, &id, NULL, RDMA_PS_TCP) == 0);
	if (data) {
		from = *(struct sockaddr_in *)rdma_get_local_addr(s->control);
		from.sin_port = 0;
		src = &from;
	} else {
		s->control = id;
	}
	CHECK(rdma_resolve_addr(id, (void *)src, (struct sockaddr *)&donor, 10000) == 0);
	expect_event(s, RDMA_CM_EVENT_ADDR_RESOLVED);
	if (!data)
		make_buffers(s);
	make_qp(s, id, data ? 1 : NR_RECV);
	for (unsigned i = 0; i < NR_RECV && !data; i++)
		post_recv(s, i);
	CHECK(rdma_resolve_route(id, 10000) == 0);
	expect_event(s, RDMA_CM_EVENT_ROUTE_RESOLVED);
	return id;
}

static void connect_with(struct rdma_cm_id *id, unsigned version, unsigned purpose, uint8_t *data,
	size_t len)
{
	uint8_t timeout = 15;
	struct rdma_conn_param param = {
		.private_data = data,
		.private_data_len = (uint8_t)len,
		.retry_count = 6,
		.rnr_retry_count = 6,
		.initiator_depth = purpose == CONTROL ? 0 : 4,
	};

	put(data, 0, 4, MAGIC);
	put(data, 4, 1, version);
	put(data, 5, 1, purpose);
	rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, 1);
	CHECK(rdma_connect(id, &param) == 0);
}

static void request_connection(
	struct rdma_cm_id *id, unsigned version, unsigned purpose, const uint8_t *token)
{
	uint8_t private_data[24] = {0};

	if (token)
		memcpy(private_data + 8, token, 16);
	connect_with(id, version, purpose, private_data, sizeof(private_data));
}

static void request_with_proof(struct rdma_cm_id *id, const struct session *s, uint64_t counter)
{
	uint8_t private_data[56] = {0}, maced[32];

	memcpy(maced, s->token, 16);
	put(maced, 16, 8, s->proof.session);
	put(maced, 24, 8, counter);
	put(private_data, 8, 8, s->proof.session);
	put(private_data, 16, 8, counter);
	hmac(s->proof.data, 32, maced, sizeof(maced), private_data + 24);
	connect_with(id, VERSION, PROVED, private_data, sizeof(private_data));
}

/* What a connection request is rejected with. */
static unsigned rejection(struct session *s)
{
	struct rdma_cm_event *event = next_event(s, WAIT_MS);

	CHECK(event && event->event == RDMA_CM_EVENT_REJECTED);
	const uint8_t *data = event->param.conn.private_data;
	CHECK(event->param.conn.private_data_len >= 8 && get(data, 0, 4) == MAGIC);
	unsigned error = (unsigned)get(data, 4, 4);
	rdma_ack_cm_event(event);
	return error;
}

static void take(struct session *s, const struct ibv_wc *wc)
{
	if (wc->wr_id < WR_RECV || wc->status != IBV_WC_SUCCESS)
		return;
	s->queue_len[s->nr_queued] = wc->byte_len;
	s->queue[s->nr_queued++] = (unsigned)(wc->wr_id - WR_RECV);
}

/* Waits for what was posted last as wr_id; returns its status. */
static enum ibv_wc_status completion(struct session *s, uint64_t wr_id)
{
	uint64_t end = now_ms() + WAIT_MS;
	struct ibv_wc wc;

	while (now_ms() < end) {
		if (ibv_poll_cq(s->cq, 1, &wc) <= 0) {
			nap();
			continue;
		}
		if (wc.wr_id == wr_id)
			return wc.status;
		take(s, &wc);
	}
	CHECK(!"a completion");
	return IBV_WC_GENERAL_ERR;
}

/* The type of the next message, which is in s->in; 0: the session ended. */
static unsigned next_message(struct session *s)
{
	uint64_t end = now_ms() + WAIT_MS;
	struct rdma_cm_event *event;
	struct ibv_wc wc;

	while (s->nr_queued == 0 && now_ms() < end) {
		if (ibv_poll_cq(s->cq, 1, &wc) > 0) {
			take(s, &wc);
			continue;
		}
		event = next_event(s, 1);
		if (!event)
			continue;
		s->ended |= event->event == RDMA_CM_EVENT_DISCONNECTED;
		rdma_ack_cm_event(event);
		if (s->ended)
			return 0;
	}
	CHECK(s->nr_queued > 0);
	unsigned i = s->queue[0], len = s->queue_len[0];
	s->nr_queued--;
	memmove(s->queue, s->queue + 1, s->nr_queued * sizeof(s->queue[0]));
	memmove(s->queue_len, s->queue_len + 1, s->nr_queued * sizeof(s->queue_len[0]));
	memcpy(s->in, s->memory + i * MSG_MAX, MSG_MAX);
	post_recv(s, i);
	CHECK(get(s->in, 0, 4) == MAGIC && get(s->in, 4, 1) == VERSION);
	if (s->proof.on) {
		uint8_t tag[TAG_BYTES];

		len -= TAG_BYTES;
		tag_of(s->proof.donor, s->proof.nr_taken++, s->in, len, tag);
		CHECK(memcmp(tag, s->in + len, sizeof(tag)) == 0);
	} else if (get(s->in, 5, 1) == CHALLENGE) {
		len -= TAG_BYTES;
	}
	CHECK(get(s->in, 6, 2) == len);
	return (unsigned)get(s->in, 5, 1);
}

/* s->out has the body. */
static void send_message(struct session *s, unsigned type, size_t len, uint32_t cookie)
{
	struct ibv_sge sge = {(uintptr_t)s->out, 0, s->mr->lkey};
	struct ibv_send_wr wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND},
			   *bad;

	put(s->out, 0, 4, MAGIC);
	put(s->out, 4, 1, VERSION);
	put(s->out, 5, 1, type);
	put(s->out, 6, 2, len);
	put(s->out, 8, 4, cookie);
	put(s->out, 12, 4, 0);
	if (s->proof.on) {
		tag_of(s->proof.borrower, s->proof.nr_sent++, s->out, len, s->out + len);
		len += TAG_BYTES;
	}
	sge.length = (uint32_t)len;
	wr.send_flags = IBV_SEND_SIGNALED;
	CHECK(ibv_post_send(s->control->qp, &wr, &bad) == 0);
	CHECK(completion(s, 1) == IBV_WC_SUCCESS);
}

static size_t put_field(uint8_t *p, size_t len, unsigned number, size_t size, uint64_t value)
{
	put(p, len, 2, number);
	put(p, len + 2, 2, size);
	put(p, len + 4, size, value);
	return len + 4 + size;
}

static void send_hello(struct session *s, const struct attachment *a)
{
	size_t region_len = strlen(a->region), len = 148 + region_len;

	memset(s->out, 0, MSG_MAX);
	if (s->proof.on)
		seal(&s->proof, a->id, s->out + 52);
	else
		memcpy(s->out + 16, a->id, 16);
	put(s->out, 32, 8, a->generation);
	put(s->out, 40, 8, a->remembers ? a->epoch : 0);
	put(s->out, 48, 1, a->mode);
	put(s->out, 49, 1, !a->version0);
	put(s->out, 50, 2, region_len);
	strcpy((char *)s->out + 84, "second.borrower");
	memcpy(s->out + 148, a->region, region_len);
	if (a->granted) {
		len = put_field(s->out, len, GRANTED, 8, a->granted);
		len = put_field(s->out, len, WROTE, 0, 0);
	}
	for (unsigned i = 0; i < 2; i++)
		if (a->fields[i])
			len = put_field(s->out, len, a->fields[i], 0, 0);
	send_message(s, HELLO, len, 0);
}

static struct chunk get_chunk(const uint8_t *p, size_t off)
{
	return (struct chunk){get(p, off, 8), (uint32_t)get(p, off + 8, 4)};
}

static void take_grant(struct session *s, const struct attachment *a)
{
	size_t len = get(s->in, 6, 2), at = 164;

	CHECK(len >= at && get(s->in, 32, 8) == a->generation);
	s->size_bytes = get(s->in, 16, 8);
	s->epoch = get(s->in, 24, 8);
	s->lease_ms = (uint32_t)get(s->in, 40, 4);
	s->flags = (uint32_t)get(s->in, 44, 4);
	s->chunk_bytes = get(s->in, 48, 8);
	s->nr_chunks = (uint32_t)get(s->in, 56, 4);
	s->epoch_word = get_chunk(s->in, 60);
	s->beat_word = get_chunk(s->in, 72);
	memcpy(s->token, s->in + 84, 16);
	CHECK((s->size_bytes + s->chunk_bytes - 1) / s->chunk_bytes == s->nr_chunks);
	CHECK(strncmp((const char *)s->in + 100, "tcp", 3) == 0);
	CHECK(!a->version0 || len == at);
	while (at < len) {
		unsigned number = (unsigned)get(s->in, at, 2);

		s->restorable |= (number & ~MUST) == RESTORABLE;
		CHECK(s->restorable || !(number & MUST));
		if (number == SAID)
			s->said = get_chunk(s->in, at + 4);
		if (number == MOVING)
			memcpy(s->moving, s->in + at + 4, get(s->in, at + 2, 2));
		at += 4 + get(s->in, at + 2, 2);
	}
}

static void learn_chunks(struct session *s)
{
	uint32_t known = 0;

	s->chunks = calloc(s->nr_chunks, sizeof(*s->chunks));
	CHECK(s->chunks);
	while (known < s->nr_chunks) {
		put(s->out, 16, 4, known);
		send_message(s, GET_CHUNKS, 20, 0);
		CHECK(next_message(s) == CHUNKS && get(s->in, 16, 4) == known);
		uint32_t nr = (uint32_t)get(s->in, 20, 4);
		CHECK(nr >= 1 && nr <= 256 && nr <= s->nr_chunks - known);
		for (uint32_t i = 0; i < nr; i++)
			s->chunks[known + i] = get_chunk(s->in, 24 + 12 * i);
		known += nr;
	}
}

static enum ibv_wc_status one_sided(struct session *s, enum ibv_wr_opcode opcode, void *local,
	uint32_t len, uint64_t addr, uint32_t rkey)
{
	struct ibv_sge sge = {(uintptr_t)local, len, s->mr->lkey};
	struct ibv_send_wr wr = {.wr_id = 2, .sg_list = &sge, .num_sge = 1, .opcode = opcode}, *bad;

	wr.send_flags = IBV_SEND_SIGNALED;
	wr.wr.rdma.remote_addr = addr;
	wr.wr.rdma.rkey = rkey;
	if (ibv_post_send(s->data->qp, &wr, &bad) != 0)
		return IBV_WC_WR_FLUSH_ERR;
	return completion(s, 2);
}

static bool has_epoch(struct session *s)
{
	const struct chunk *at = &s->epoch_word;

	memset(s->word, 0, 8);
	return one_sided(s, IBV_WR_RDMA_READ, s->word, 8, at->addr, at->rkey) == IBV_WC_SUCCESS &&
	       get(s->word, 0, 8) == s->epoch;
}

static bool probe(struct session *s)
{
	const struct chunk *at = &s->beat_word;

	put(s->word, 0, 8, ++s->beat);
	s->beat_ms = now_ms();
	return one_sided(s, IBV_WR_RDMA_WRITE, s->word, 8, at->addr, at->rkey) == IBV_WC_SUCCESS &&
	       has_epoch(s);
}

/* From or to s->buf, cut where chunks end; with a sign of life, as the donor does not see it. */
static bool moves(struct session *s, enum ibv_wr_opcode opcode, uint64_t off, uint32_t len)
{
	uint8_t *local = s->buf;

	if (now_ms() - s->beat_ms > s->lease_ms / 8 && !probe(s))
		return false;
	while (len > 0) {
		uint64_t in_chunk = off % s->chunk_bytes, left = s->chunk_bytes - in_chunk;
		const struct chunk *c = &s->chunks[off / s->chunk_bytes];
		uint32_t n = len < left ? len : (uint32_t)left;

		if (one_sided(s, opcode, local, n, c->addr + in_chunk, c->rkey) != IBV_WC_SUCCESS)
			return false;
		local += n;
		off += n;
		len -= n;
	}
	return true;
}

static bool writes(struct session *s, uint64_t off, uint32_t len, uint8_t byte)
{
	memset(s->buf, byte, len);
	return moves(s, IBV_WR_RDMA_WRITE, off, len);
}

static bool reads(struct session *s, uint64_t off, uint32_t len, uint8_t byte)
{
	memset(s->buf, byte + 1, len);
	if (!moves(s, IBV_WR_RDMA_READ, off, len))
		return false;
	for (uint32_t i = 0; i < len; i++)
		if (s->buf[i] != byte)
			return false;
	return true;
}

static struct session *session_new(void)
{
	struct session *s = calloc(1, sizeof(*s));

	CHECK(s);
	s->channel = rdma_create_event_channel();
	CHECK(s->channel);
	return s;
}

static void session_free(struct session *s)
{
	if (s->data) {
		rdma_disconnect(s->data);
		rdma_destroy_qp(s->data);
		rdma_destroy_id(s->data);
	}
	rdma_disconnect(s->control);
	rdma_destroy_qp(s->control);
	rdma_destroy_id(s->control);
	ibv_dereg_mr(s->mr);
	ibv_destroy_cq(s->cq);
	ibv_dealloc_pd(s->pd);
	rdma_destroy_event_channel(s->channel);
	free(s->chunks);
	free(s->memory);
	free(s);
}

/* 0: the donor has the key; or the error of a REFUSE.  -1: it has not. */
static int prove(struct session *s)
{
	uint8_t start[256], tag[TAG_BYTES];
	size_t identity_len = strlen(key.identity), len = 52 + identity_len;

	memset(s->out, 0, MSG_MAX);
	CHECK(gnutls_rnd(GNUTLS_RND_NONCE, s->out + 16, 32) == 0);
	put(s->out, 48, 1, PROOF_VERSION);
	put(s->out, 49, 1, identity_len);
	memcpy(s->out + 52, key.identity, identity_len);
	send_message(s, START, len, 0);
	memcpy(start, s->out, len);
	unsigned type = next_message(s);
	if (type == REFUSE)
		return (int)get(s->in, 16, 4);
	CHECK(type == CHALLENGE);
	size_t challenge_len = get(s->in, 6, 2);
	derive(&s->proof, start, len, s->in, challenge_len, rdma_get_local_addr(s->control));
	tag_of(s->proof.donor, s->proof.nr_taken++, s->in, challenge_len, tag);
	return memcmp(tag, s->in + challenge_len, sizeof(tag)) == 0 ? 0 : -1;
}

/* Says hello and waits for the answer: 0, or the REFUSE's error. */
static unsigned ask(struct session *s, const struct attachment *a)
{
	unsigned type;

	request_connection(approach(s, false), VERSION, CONTROL, NULL);
	expect_event(s, RDMA_CM_EVENT_ESTABLISHED);
	if (key.identity)
		CHECK(prove(s) == 0);
	send_hello(s, a);
	while ((type = next_message(s)) == WAIT)
		;
	if (type == REFUSE) {
		size_t len = get(s->in, 20, 4);

		CHECK(len <= 400 && get(s->in, 6, 2) == 24 + len && get(s->in, 16, 4) != 0);
		printf("    refused: %.*s\n", (int)len, (char *)s->in + 24);
		return (unsigned)get(s->in, 16, 4);
	}
	CHECK(type == GRANT);
	take_grant(s, a);
	return 0;
}

static struct session *attach(struct attachment *a)
{
	struct session *s = session_new();
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	CHECK(ask(s, a) == 0);
	learn_chunks(s);
	s->data = approach(s, true);
	if (s->proof.on)
		request_with_proof(s->data, s, 1);
	else
		request_connection(s->data, VERSION, DATA, s->token);
	expect_event(s, RDMA_CM_EVENT_ESTABLISHED);
	CHECK(ibv_query_qp(s->data->qp, &attr, IBV_QP_MAX_QP_RD_ATOMIC, &init) == 0);
	CHECK(attr.max_rd_atomic > 0);
	CHECK(has_epoch(s));
	a->epoch = s->epoch;
	return s;
}

static struct session *attach_at(struct attachment *a, uint64_t incarnation, uint64_t reconnection)
{
	a->generation = incarnation << 32 | reconnection;
	a->remembers = true;
	return attach(a);
}

static void refused(const struct attachment *a, unsigned error)
{
	struct session *s = session_new();
	unsigned got = ask(s, a);

	if (got != error)
		fprintf(stderr, "error %u, not %u\n", got, error);
	CHECK(got == error);
	session_free(s);
}

static void goodbye(struct session *s, bool changed)
{
	memset(s->out, 0, 24);
	put(s->out, 16, 1, changed);
	send_message(s, BYE, 24, 0);
	CHECK(next_message(s) == 0);
	session_free(s);
}

static unsigned reply(struct session *s, uint32_t cookie)
{
	CHECK(next_message(s) == REPLY && get(s->in, 8, 4) == cookie);
	return (unsigned)get(s->in, 16, 4);
}

static unsigned zero(struct session *s, uint64_t off, uint64_t len)
{
	memset(s->out, 0, 40);
	put(s->out, 16, 1, ZERO);
	put(s->out, 24, 8, off);
	put(s->out, 32, 8, len);
	send_message(s, REQUEST, 40, 0xfeedbeef);
	return reply(s, 0xfeedbeef);
}

/* nr ranges of len bytes, each step bytes behind the last. */
static unsigned flush(
	struct session *s, uint64_t off, unsigned nr, uint64_t len, uint64_t step, bool more)
{
	CHECK(nr <= RANGES_PER_MESSAGE && has_epoch(s)); /* the READ behind the WRITEs */
	memset(s->out, 0, 40);
	put(s->out, 16, 1, FLUSH);
	put(s->out, 18, 1, more);
	put(s->out, 20, 4, nr);
	for (unsigned i = 0; i < nr; i++) {
		put(s->out, 40 + 16 * i, 8, off + i * step);
		put(s->out, 48 + 16 * i, 8, len);
	}
	send_message(s, REQUEST, 40 + 16 * nr, 7);
	return reply(s, 7);
}

static void probe_for(struct session *s, uint64_t ms)
{
	for (uint64_t end = now_ms() + ms; now_ms() < end;) {
		CHECK(probe(s));
		poll(NULL, 0, (int)(s->lease_ms / 8));
	}
}

/* ---- what the manual says ---- */

static void step(const char *name)
{
	printf("%s\n", name);
	fflush(stdout);
}

static void requests_are_rejected_with_a_reason(void)
{
	static const uint8_t token[16] = {1};
	struct session *s = session_new();

	step("a connection request is rejected with a reason");
	request_connection(approach(s, false), VERSION + 1, CONTROL, NULL);
	CHECK(rejection(s) == EPROTONOSUPPORT_);
	session_free(s);
	s = session_new();
	request_connection(approach(s, false), VERSION, 9, NULL);
	CHECK(rejection(s) == EPROTO_);
	session_free(s);
	s = session_new();
	request_connection(approach(s, false), VERSION, DATA, token);
	CHECK(rejection(s) == EACCES_);
	session_free(s);
}

static void a_writer_writes_and_reads(void)
{
	struct attachment a = attachment("r", 2), nobody = attachment("nobody", 2);
	struct session *s;

	step("a writer writes and reads");
	refused(&nobody, ENOENT_);
	s = attach(&a);
	CHECK(s->size_bytes == 4 << 20 && s->flags == 0 && s->lease_ms == 8000 && !s->restorable);
	CHECK(writes(s, 4099, 60001, 0x41) && reads(s, 4099, 60001, 0x41) && reads(s, 4098, 1, 0));
	CHECK(writes(s, s->size_bytes - 3, 3, 0x42) && reads(s, s->size_bytes - 3, 3, 0x42));
	CHECK(zero(s, 5000, 50000) == 0 && reads(s, 5000, 50000, 0) && reads(s, 4999, 1, 0x41));
	CHECK(zero(s, s->size_bytes - 1, 2) == ENOSPC_ && zero(s, UINT64_MAX, 2) == ENOSPC_);
	CHECK(flush(s, 0, 0, 0, 0, false) == 0 && probe(s));
	step("  its token is good once");
	struct rdma_cm_id *id = approach(s, true);
	request_connection(id, VERSION, DATA, s->token);
	CHECK(rejection(s) == EACCES_);
	rdma_destroy_qp(id);
	rdma_destroy_id(id);
	goodbye(s, false);
}

static void signs_of_life_keep_a_region(void)
{
	struct attachment a = attachment("r", 2), other = attachment("r", 2);
	struct session *s = attach(&a), *second;

	step("signs of life keep a region");
	probe_for(s, 2 * s->lease_ms);
	refused(&other, EBUSY_);
	step("  a session joins");
	a.remembers = true;
	second = attach(&a);
	CHECK(writes(s, 0, 4096, 0x43) && reads(second, 0, 4096, 0x43));
	goodbye(second, false);
	probe_for(s, 100);
	refused(&other, EBUSY_);
	goodbye(s, false);
	step("  a goodbye gives it back at once");
	goodbye(attach(&other), false);
	a.generation++;
	refused(&a, ESTALE_);
}

static void silence_loses_it(void)
{
	struct attachment a = attachment("r", 2);
	struct session *s = attach(&a);

	step("silence loses it, and READs are silence");
	for (uint64_t end = now_ms() + WAIT_MS; now_ms() < end && has_epoch(s);)
		poll(NULL, 0, 100);
	CHECK(!has_epoch(s) && !writes(s, 0, 1, 0x44));
	session_free(s);
	a.remembers = true;
	refused(&a, OVER);
	goodbye(attach_at(&a, 1, 1), false);
}

static void a_higher_generation_supersedes(void)
{
	struct attachment a = attachment("r", 2);
	struct session *first = attach(&a), *second, *third;

	step("a higher generation supersedes");
	second = attach_at(&a, 1, 1);
	CHECK(!writes(first, 0, 16, 0x45) && next_message(first) == 0);
	CHECK(writes(second, 0, 16, 0x46));
	a.generation = UINT64_C(1) << 32;
	refused(&a, OVER);
	third = attach_at(&a, 2, 0);
	CHECK(!writes(second, 0, 16, 0x47) && reads(third, 0, 16, 0x46));
	a.generation = (UINT64_C(1) << 32) + 2;
	refused(&a, SUPERSEDED);
	goodbye(third, false);
	session_free(first);
	session_free(second);
}

static void a_reader_cannot_write(void)
{
	struct attachment w = attachment("r", 2), r = attachment("r", 0),
			  shared = attachment("r", 1);
	struct session *writer = attach(&w), *reader;

	step("a reader cannot write");
	refused(&r, EBUSY_);
	reader = attach(&shared);
	CHECK(reader->flags == READ_ONLY && writes(writer, 0, 16, 0x48) &&
		reads(reader, 0, 16, 0x48));
	CHECK(zero(reader, 0, 16) == EPERM_);
	CHECK(!writes(reader, 0, 16, 0x49) && reads(writer, 0, 16, 0x48));
	goodbye(writer, false);
	session_free(reader);
}

static void fields_are_skipped_or_refused(void)
{
	struct attachment a = attachment("r", 2);

	step("fields that are not known are skipped or refused; version 0 has none");
	a.fields[0] = 0x1234;
	goodbye(attach(&a), false);
	a.fields[0] = MUST | 0x1234;
	a.generation++;
	refused(&a, EPROTONOSUPPORT_);
	a.fields[0] = 0;
	a.version0 = true;
	goodbye(attach(&a), false);
}

static void what_is_not_expected_ends_the_session(void)
{
	struct attachment a = attachment("r", 2);
	struct session *s = attach(&a);

	step("what is not expected ends the session");
	put(s->out, 16, 4, 0);
	send_message(s, GET_CHUNKS, 20, 0);
	CHECK(next_message(s) == 0);
	session_free(s);
	s = session_new();
	request_connection(approach(s, false), VERSION, CONTROL, NULL);
	expect_event(s, RDMA_CM_EVENT_ESTABLISHED);
	memset(s->out, 0, 148);
	send_message(s, HELLO, 147, 0);
	CHECK(next_message(s) == 0);
	session_free(s);
}

static int proves(const char *identity, unsigned flip)
{
	struct session *s = session_new();

	key.identity = identity;
	key.secret[0] ^= (uint8_t)flip;
	request_connection(approach(s, false), VERSION, CONTROL, NULL);
	expect_event(s, RDMA_CM_EVENT_ESTABLISHED);
	int r = prove(s);
	key.secret[0] ^= (uint8_t)flip;
	key.identity = "box";
	session_free(s);
	return r;
}

static void a_key_is_proved(void)
{
	struct attachment a = attachment("r", 2);
	struct session *s;

	step("a donor proves a key that it has, and no other");
	CHECK(proves("box", 0) == 0);
	CHECK(proves("box", 1) == -1 && proves("fox", 0) == -1);
	step("with a key a writer writes, and a donor answers");
	s = attach(&a);
	CHECK(writes(s, 4099, 60001, 0x41) && reads(s, 4099, 60001, 0x41));
	CHECK(zero(s, 5000, 50000) == 0 && reads(s, 5000, 50000, 0));
	CHECK(flush(s, 0, 0, 0, 0, false) == 0 && probe(s));
	step("  neither its token nor its request is good again");
	for (unsigned i = 0; i < 3; i++) {
		struct rdma_cm_id *id = approach(s, true);

		if (i == 0)
			request_connection(id, VERSION, DATA, s->token);
		else
			request_with_proof(id, s, i);
		CHECK(rejection(s) == EACCES_);
		rdma_destroy_qp(id);
		rdma_destroy_id(id);
	}
	goodbye(s, false);
	step("without one nobody is granted anything");
	key.identity = NULL;
	refused(&a, EACCES_);
	key.identity = "box";
	step("a tag that is wrong, or missing, ends the session");
	for (unsigned i = 0; i < 2; i++) {
		s = session_new();
		request_connection(approach(s, false), VERSION, CONTROL, NULL);
		expect_event(s, RDMA_CM_EVENT_ESTABLISHED);
		CHECK(prove(s) == 0);
		s->proof.borrower[0] ^= 1;
		s->proof.on = i == 0;
		send_hello(s, &a);
		s->proof.on = true;
		CHECK(next_message(s) == 0);
		session_free(s);
	}
	goodbye(attach_at(&a, 1, 1), false);
}

static void chunks_are_many(void)
{
	struct attachment a = attachment("r", 2);
	struct session *s = attach(&a);

	step("a region of many chunks");
	printf("    %u of %llu bytes\n", s->nr_chunks, (unsigned long long)s->chunk_bytes);
	CHECK(s->nr_chunks > 256 && s->chunk_bytes <= BUF_BYTES / 2);
	for (uint64_t off = 0; off + BUF_BYTES <= s->size_bytes; off += s->size_bytes / 7 - 1)
		CHECK(writes(s, off, BUF_BYTES, (uint8_t)(off | 1)) &&
			reads(s, off, BUF_BYTES, (uint8_t)(off | 1)));
	goodbye(s, false);
}

static void a_file_is_told_what_changed(void)
{
	struct attachment a = attachment("f", 2);
	struct session *s = attach(&a);

	step("a file is told what changed");
	CHECK(s->flags == FLUSH_ASKS && s->restorable);
	CHECK(writes(s, 0, 4096, 'a') && flush(s, 0, 1, 4096, 0, false) == 0);
	/* More ranges than fit. */
	for (unsigned i = 0; i < 300; i++)
		CHECK(writes(s, 4096 + i * 1024, 512, 'b'));
	CHECK(flush(s, 4096, 256, 512, 1024, true) == 0);
	CHECK(flush(s, 4096 + 256 * 1024, 44, 512, 1024, false) == 0);
	step("  a goodbye may leave something untold");
	CHECK(writes(s, 1 << 19, 100, 'c'));
	goodbye(s, true);
	a.granted = a.generation;
	goodbye(attach_at(&a, 1, 1), false);
}

/* What is said of n blocks. */
static bool says(struct session *s, uint64_t block, uint32_t n, uint8_t what)
{
	memset(s->buf, what, n);
	return one_sided(s, IBV_WR_RDMA_WRITE, s->buf, n, s->said.addr + block, s->said.rkey) ==
	       IBV_WC_SUCCESS;
}

/* The move ends the session of before; to a borrower that does not report it is refused. */
static struct session *goes_on_while_it_moves(struct attachment *a, struct session *s)
{
	step("move it");
	for (uint64_t end = now_ms() + WAIT_MS; now_ms() < end && probe(s);)
		nap();
	CHECK(!has_epoch(s));
	session_free(s);
	a->remembers = true;
	a->generation++;
	a->fields[1] = 0;
	refused(a, EBUSY_);
	a->fields[1] = REPORTS;
	s = attach(a);
	CHECK(s->said.addr && strncmp(s->moving, "weft://", 7) == 0);
	return s;
}

static void a_region_that_moves_is_written(void)
{
	struct attachment a = attachment("r", 2);
	struct session *s;

	step("a writer that reports writes while the region moves");
	a.fields[0] = FOLLOWS;
	a.fields[1] = REPORTS;
	s = attach(&a);
	CHECK(!s->said.addr && !s->moving[0]);
	s = goes_on_while_it_moves(&a, s);
	CHECK(says(s, 0, 1, 1) && writes(s, 0, 4096, 'k') && says(s, 0, 1, 2));
	step("  there is a byte for each block, and no other");
	CHECK(!says(s, s->size_bytes / BLOCK_BYTES, 1, 2));
	session_free(s);
	a.generation++;
	s = attach(&a);
	step("call it off");
	CHECK(next_message(s) == QUIET && writes(s, 0, 4096, 'l'));
	s = goes_on_while_it_moves(&a, s);
	CHECK(says(s, 0, 1, 1) && writes(s, 0, 4096, 'm') && says(s, 0, 1, 2));
	step("  and is lost in the midst of it");
	CHECK(says(s, 4, 2, 1) && writes(s, 5 * BLOCK_BYTES, 100, 'm'));
	_exit(0);
}

static size_t get_secret(const char *digits)
{
	size_t len = strlen(digits) / 2;

	CHECK(len >= 16 && len <= sizeof(key.secret));
	for (size_t i = 0; i < len; i++)
		CHECK(sscanf(digits + 2 * i, "%2hhx", &key.secret[i]) == 1);
	return len;
}

int main(int argc, char **argv)
{
	if (argc != 4 || inet_pton(AF_INET, argv[1], &donor.sin_addr) != 1) {
		fprintf(stderr,
			"usage: second-borrower-rdma ADDRESS PORT "
			"memory|chunks|file|keys|moving\n");
		return 2;
	}
	donor.sin_family = AF_INET;
	donor.sin_port = htons((uint16_t)atoi(argv[2]));
	if (strcmp(argv[3], "memory") == 0) {
		requests_are_rejected_with_a_reason();
		a_writer_writes_and_reads();
		signs_of_life_keep_a_region();
		silence_loses_it();
		a_higher_generation_supersedes();
		a_reader_cannot_write();
		fields_are_skipped_or_refused();
		what_is_not_expected_ends_the_session();
	} else if (strcmp(argv[3], "chunks") == 0) {
		chunks_are_many();
	} else if (strcmp(argv[3], "keys") == 0) {
		key.identity = "box";
		key.secret_len = get_secret(getenv("SECRET"));
		a_key_is_proved();
	} else if (strcmp(argv[3], "moving") == 0) {
		a_region_that_moves_is_written();
	} else {
		a_file_is_told_what_changed();
	}
	step("done");
	return 0;
}
