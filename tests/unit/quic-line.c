/* SPDX-License-Identifier: MIT */
/*
 * Two ends of a QUIC connection on a line that there is not: time is a number, so that what a loss
 * costs has nothing to do with how fast this machine is.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/key/key.h"
#include "fabric/nbd/tls.h"
#include "transports/quic/quic.h"

#define MS_NS UINT64_C(1000000)

enum { PIECE_BYTES = 64 << 10 };

struct packet {
	struct packet *next;
	uint64_t due_ns;
	size_t len;
	uint8_t bytes[];
};

/* What one end sends to the other. */
struct way {
	struct packet *head, **tail;
	uint64_t nr;
	uint64_t free_ns; /* when the last one was on it */
};

static struct line {
	uint64_t now_ns, delay_ns; /* one way */
	uint64_t byte_ps;          /* what a byte takes of the way; 0: no time */
	unsigned lose_each;        /* of so many packets one is lost; 0: none */
	uint64_t lose_ppm, random; /* by chance, so many of a million; the generator's state */
	uint64_t lose_nr;          /* that packet of the client's; 0: none */
	size_t most;               /* larger ones are lost; 0: none */
	size_t largest;            /* that arrived */
	bool may_end;              /* the server, too: that is the test's to look at */
	struct way ways[2];
	struct quic_path paths[2];
	struct quic_conn *ends[2]; /* the client, the server */
} line;

static struct weft_key key;
static struct quic_batch batch;
static uint8_t piece[PIECE_BYTES];

static int secret(void *ctx, const char *identity, struct weft_key *ret, uint64_t *ret_life)
{
	*ret = key;
	*ret_life = 1;
	return 0;
}

static const struct quic_owner owner = {.new_cid = NULL};

/* splitmix64 */
static uint64_t next_random(void)
{
	uint64_t z = line.random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static bool is_lost(const struct way *way, size_t len)
{
	if (line.most > 0 && len > line.most)
		return true;
	if (way == &line.ways[0] && line.lose_nr > 0 && way->nr == line.lose_nr)
		return true;
	if (line.lose_ppm > 0 && next_random() % 1000000 < line.lose_ppm)
		return true;
	return line.lose_each > 0 && way->nr % line.lose_each == 0;
}

static void post(struct way *way, const uint8_t *bytes, size_t len)
{
	struct packet *p = malloc(sizeof(*p) + len); /* may be on the line when the test ends */

	assert_non_null(p);
	p->next = NULL;
	way->free_ns = weft_max(way->free_ns, line.now_ns) + len * line.byte_ps / 1000;
	p->due_ns = way->free_ns + line.delay_ns;
	p->len = len;
	memcpy(p->bytes, bytes, len);
	*way->tail = p;
	way->tail = &p->next;
}

/* What an end may send now. */
static void send_all(unsigned end)
{
	struct quic_conn *conn = line.ends[end];
	struct way *way = &line.ways[end];
	ssize_t n;

	if (conn->error)
		return;
	if (quic_due_ns(conn) <= line.now_ns)
		assert_int_equal(quic_expire(conn, line.now_ns), 0);
	while ((n = quic_fill(conn, &batch, line.now_ns)) > 0)
		for (size_t at = 0; at < batch.len; at += batch.segment) {
			const size_t len = weft_min(batch.segment, batch.len - at);

			way->nr++;
			if (!is_lost(way, len))
				post(way, batch.bytes + at, len);
		}
	assert_int_equal(n, 0);
}

/* What has arrived at an end. */
static void receive_all(unsigned end)
{
	struct way *way = &line.ways[1 - end];

	for (struct packet *p; (p = way->head) && p->due_ns <= line.now_ns;) {
		line.largest = weft_max(line.largest, p->len);
		way->head = p->next;
		if (!way->head)
			way->tail = &way->head;
		const int r = quic_receive(line.ends[end], &line.paths[end], p->bytes, p->len,
			line.now_ns);
		assert_true(r == 0 || line.may_end);
		free(p);
	}
}

static void pass(uint64_t ns)
{
	for (unsigned end = 0; end < 2; end++)
		send_all(end);
	line.now_ns += ns;
	for (unsigned end = 0; end < 2; end++)
		receive_all(end);
}

/* Until something arrives at an end, or is due there; ns at most. */
static void pass_until_news(uint64_t ns)
{
	uint64_t next_ns = line.now_ns + ns;

	for (unsigned end = 0; end < 2; end++)
		send_all(end);
	for (unsigned end = 0; end < 2; end++) {
		next_ns = weft_min(next_ns, quic_due_ns(line.ends[end]));
		if (line.ways[end].head)
			next_ns = weft_min(next_ns, line.ways[end].head->due_ns);
	}
	line.now_ns = weft_max(next_ns, line.now_ns + 1000);
	for (unsigned end = 0; end < 2; end++)
		receive_all(end);
}

static void set_address(struct sockaddr_storage *ret, socklen_t *ret_len, uint16_t port)
{
	*(struct sockaddr_in *)ret = (struct sockaddr_in){.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(port)};
	*ret_len = sizeof(struct sockaddr_in);
}

static void begin_server(struct quic_config *config)
{
	static const uint8_t resets[QUIC_SECRET_BYTES] = {1};
	struct quic_initial initial;

	const ssize_t n = quic_fill(line.ends[0], &batch, line.now_ns);
	assert_true(n > 0);
	assert_int_equal(quic_look(batch.bytes, (size_t)n, &initial), QUIC_INITIAL);
	config->path = line.paths[1];
	assert_int_equal(quic_server_new(config, &initial, resets, &line.ends[1]), 0);
	assert_int_equal(quic_receive(line.ends[1], &line.paths[1], batch.bytes, (size_t)n,
				 line.now_ns),
		0);
}

/* A connection with all its streams, on a line without losses yet. */
static int connect_over(size_t route_bytes, uint64_t delay_ns)
{
	const struct nbd_tls_client client = {.key = &key, .host = "127.0.0.1"};
	const struct nbd_tls_server server = {.secret = secret};
	struct nbd_tls_credentials *credentials[2];
	struct quic_config config = {.owner = &owner,
		.idle_ms = 60000,
		.handshake_ms = 20000,
		.route_bytes = route_bytes};

	line = (struct line){.now_ns = weft_now_ns(), .delay_ns = delay_ns};
	for (unsigned end = 0; end < 2; end++) {
		struct quic_path *path = &line.paths[end];

		line.ways[end].tail = &line.ways[end].head;
		set_address(&path->local, &path->local_len, (uint16_t)(1000 + end));
		set_address(&path->remote, &path->remote_len, (uint16_t)(1001 - end));
	}
	assert_int_equal(weft_key_new("alice", &key, NULL), 0);
	assert_int_equal(nbd_tls_client_new(&client, &credentials[0], NULL), 0);
	assert_int_equal(nbd_tls_server_new(&server, &credentials[1], NULL), 0);
	config.path = line.paths[0];
	config.credentials = credentials[0];
	assert_int_equal(quic_client_new(&config, &line.ends[0]), 0);
	config.credentials = credentials[1];
	begin_server(&config);
	for (unsigned i = 0; i < 10; i++)
		pass(line.delay_ns);
	assert_true(quic_is_shaken(line.ends[0]) && quic_is_shaken(line.ends[1]));
	assert_int_equal(quic_open_streams(line.ends[0]), 0);
	for (unsigned end = 0; end < 2; end++)
		nbd_tls_credentials_put(credentials[end]);
	return 0;
}

static int connect_ends(void **state)
{
	return connect_over(1472, MS_NS);
}

/* Both ends are on a network of 9000 bytes a packet. */
static int connect_jumbo(void **state)
{
	return connect_over(8972, MS_NS);
}

/* 25 ms for a round trip. */
static int connect_far(void **state)
{
	return connect_over(1472, MS_NS * 25 / 2);
}

static int free_ends(void **state)
{
	for (unsigned end = 0; end < 2; end++) {
		quic_free(line.ends[end]);
		for (struct packet *p; (p = line.ways[end].head);) {
			line.ways[end].head = p->next;
			free(p);
		}
	}
	weft_key_wipe(&key);
	return 0;
}

/* How many bytes of len the stream of an end takes. */
static size_t put_at(unsigned end, unsigned stream, size_t len)
{
	struct nbd_pipe *pipe = &line.ends[end]->streams[stream].pipe;
	const struct iovec iov = {piece, len};
	const ssize_t n = pipe->ops->write(pipe, &iov, 1);

	return n > 0 ? (size_t)n : 0;
}

/* How many bytes have come over the stream at an end since the last call. */
static size_t take_at(unsigned end, unsigned stream)
{
	struct quic_stream *s = &line.ends[end]->streams[stream];
	const struct iovec iov = {piece, sizeof(piece)};
	size_t len = 0;

	for (ssize_t n; s->is_open && (n = s->pipe.ops->read(&s->pipe, &iov, 1)) > 0;)
		len += (size_t)n;
	return len;
}

static size_t put(unsigned stream, size_t len)
{
	return put_at(0, stream, len);
}

static size_t take(unsigned stream)
{
	return take_at(1, stream);
}

static size_t take_all(void)
{
	size_t len = 0;

	for (unsigned i = 0; i < QUIC_STREAMS; i++)
		len += take(i);
	return len;
}

/* Until so many bytes have come that were put at round_bytes each 50 us; in ns. */
static uint64_t carry(size_t bytes, size_t round_bytes)
{
	const uint64_t start_ns = line.now_ns;
	size_t sent = 0, came = 0;

	for (unsigned i = 0; came < bytes; i++) {
		assert_true(line.now_ns - start_ns < 60000 * MS_NS);
		sent += put(i % QUIC_STREAMS, weft_min(round_bytes, bytes - sent));
		pass(50000);
		came += take_all();
	}
	return line.now_ns - start_ns;
}

static void a_lost_packet_holds_up_its_streams_alone(void **state)
{
	unsigned nr_whole = 0;

	carry(4 << 20, 20000); /* now a packet of each stream may be on its way */
	line.lose_nr = line.ways[0].nr + 1;
	for (unsigned i = 0; i < QUIC_STREAMS; i++)
		assert_int_equal(put(i, 4096), 4096);
	/* Before the client can know of the loss. */
	for (uint64_t end_ns = line.now_ns + line.delay_ns + MS_NS / 2; line.now_ns < end_ns;)
		pass(50000);
	for (unsigned i = 0; i < QUIC_STREAMS; i++)
		nr_whole += take(i) == 4096;
	assert_true(line.ways[0].nr > line.lose_nr);
	assert_in_range(nr_whole, QUIC_STREAMS - 2, QUIC_STREAMS - 1);
	for (unsigned i = 0; i < 400; i++)
		pass(50000);
	assert_true(take_all() > 0);
	assert_true(quic_all_arrived(line.ends[0]));
}

/* What a peer that is not heard of any more costs this end, whatever it has asked for. */
static void little_is_kept_for_who_acknowledges_nothing(void **state)
{
	size_t kept = 0, came = 0;

	for (unsigned i = 0; i < QUIC_STREAMS; i++)
		for (size_t n; (n = put(i, PIECE_BYTES)) > 0;)
			kept += n;
	print_message("%zu KiB\n", kept >> 10);
	assert_in_range(kept, 1 << 20, 4 << 20);
	for (unsigned i = 0; came < kept; i++) {
		assert_true(i < 10000);
		pass(50000);
		came += take_all();
	}
	for (unsigned i = 0; !quic_all_arrived(line.ends[0]); i++) {
		assert_true(i < 1000);
		pass(50000);
	}
	assert_int_equal(put(0, PIECE_BYTES), PIECE_BYTES);
}

/*
 * The server sees the client at another port each time, and follows.  In sum a client has as many
 * ids as ngtcp2 survives.
 */
static void an_address_may_change_twelve_times(void **state)
{
	struct sockaddr_in *client = (struct sockaddr_in *)&line.paths[1].remote;
	const struct quic_conn *server = line.ends[1];
	unsigned nr = 0;

	line.may_end = true;
	for (; !server->error; nr++) {
		assert_true(nr < 20);
		client->sin_port = htons((uint16_t)(2000 + nr));
		for (unsigned i = 0; i < 40 && !server->error; i++) {
			if (i % 10 == 0)
				assert_int_equal(put(0, 100), 100);
			pass(5 * MS_NS);
		}
		const struct sockaddr_in *seen = (const struct sockaddr_in *)&server->path.remote;
		assert_int_equal(seen->sin_port, client->sin_port);
		assert_true(server->error || server->proved.ss_family == AF_INET);
		line.ends[1]->proved.ss_family = AF_UNSPEC;
	}
	assert_int_equal(server->error, -ESHUTDOWN);
	assert_int_equal(nr, 13);
	/* The client is told of it where it is, as of an end of the application's. */
	quic_close(line.ends[1], QUIC_CUT, "the end", &batch, line.now_ns);
	assert_true(batch.len > 0);
	assert_int_equal(((const struct sockaddr_in *)&batch.path.remote)->sin_port,
		client->sin_port);
	assert_int_equal(quic_receive(line.ends[0], &line.paths[0], batch.bytes, batch.len,
				 line.now_ns),
		-ENOTCONN);
}

/*
 * 400 MB/s, one packet of each hundred is lost: neither windows nor congestion control are in the
 * way.
 */
static void losses_do_not_take_the_rate(void **state)
{
	enum { BYTES = 32 << 20, ROUND = 20000 };
	const uint64_t least_ns = BYTES / ROUND * UINT64_C(50000);

	line.lose_each = 97;
	const uint64_t took_ns = carry(BYTES, ROUND);
	print_message("%.0f ms of %.0f\n", (double)took_ns / 1e6, (double)least_ns / 1e6);
	assert_true(took_ns < 2 * least_ns);
}

static void packets_that_do_not_arrive_become_smaller(void **state)
{
	line.most = 1400;
	carry(1 << 20, 20000);
	assert_in_range(line.ends[0]->packet_bytes, QUIC_LEAST_BYTES, line.most);
}

static void the_first_datagrams_are_as_large_as_the_route(void **state)
{
	carry(1 << 20, 20000);
	assert_int_equal(line.ends[0]->packet_bytes, QUIC_MOST_BYTES);
	assert_int_equal(line.largest, QUIC_MOST_BYTES);
}

/* Between the networks there is one of 1500 bytes: the first bytes wait for two steps down. */
static void a_network_in_between_may_be_smaller(void **state)
{
	line.most = 1472;
	const uint64_t took_ns = carry(1 << 20, 20000);
	print_message("%.0f ms\n", (double)took_ns / 1e6);
	assert_int_equal(line.ends[0]->packet_bytes, 1452);
	assert_true(took_ns < 450 * MS_NS);
}

/* Small ones are sent all the time, which leaves the path to the large one. */
static void a_large_one_among_small_ones_takes_few_round_trips(void **state)
{
	enum { LARGE = 1 << 20, SMALL = 4096, NR = 20 };
	const struct quic_ring *tx = &line.ends[0]->streams[0].tx;
	const uint64_t start_ns = line.now_ns;

	line.byte_ps = 10000;
	for (unsigned nr = 0; nr < NR; nr++)
		for (size_t left = LARGE; left > 0 || tx->head < tx->tail;) {
			for (size_t n = 1; left > 0 && n > 0; left -= n)
				n = put(0, weft_min(left, sizeof(piece)));
			for (unsigned i = 1; i < QUIC_STREAMS; i++)
				if (line.ends[0]->streams[i].tx.head ==
					line.ends[0]->streams[i].tx.tail)
					assert_int_equal(put(i, SMALL), SMALL);
			pass_until_news(MS_NS);
			take_all();
		}
	const double trips = (double)(line.now_ns - start_ns) / (2.0 * line.delay_ns) / NR;
	print_message("%.1f round trips each\n", trips);
	assert_true(trips < 2.5);
}

enum { REQUEST_BYTES = 28, REPLY_BYTES = 4096 + 16, READERS = 8, MAX_READS = 6000,
	MOST_REST_NS = 600000 };

static struct read {
	bool runs;
	uint64_t since_ns; /* when it began; while it does not run: when the next one begins */
	size_t came, asked; /* bytes: of the reply at the client, of requests at the server */
} reads[READERS];
static uint64_t took_ns[MAX_READS];

/* Readers do not run in step, as their requests would be in one packet. */
static void rest(unsigned i)
{
	reads[i].runs = false;
	reads[i].since_ns = line.now_ns + next_random() % MOST_REST_NS;
}

static void begin_read(unsigned i)
{
	reads[i].runs = true;
	reads[i].since_ns = line.now_ns;
	reads[i].came = 0;
	assert_int_equal(put_at(0, i, REQUEST_BYTES), REQUEST_BYTES);
}

static void move_read(unsigned i, unsigned *io_nr)
{
	struct read *r = &reads[i];

	r->asked += take_at(1, i);
	for (; r->asked >= REQUEST_BYTES; r->asked -= REQUEST_BYTES)
		assert_int_equal(put_at(1, i, REPLY_BYTES), REPLY_BYTES);
	r->came += take_at(0, i);
	if (!r->runs && line.now_ns >= r->since_ns)
		begin_read(i);
	if (r->came < REPLY_BYTES)
		return;
	took_ns[(*io_nr)++] = line.now_ns - r->since_ns;
	r->came = 0;
	rest(i);
}

/* When the next read begins, from now on. */
static uint64_t next_begin_ns(void)
{
	uint64_t wait_ns = 1000 * MS_NS;

	for (unsigned i = 0; i < READERS; i++)
		if (!reads[i].runs && reads[i].since_ns > line.now_ns)
			wait_ns = weft_min(wait_ns, reads[i].since_ns - line.now_ns);
	return wait_ns;
}

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* What of 1000 reads so many take at most, in ms, where this share of the packets is lost. */
static double time_of(unsigned of_1000, uint64_t lose_ppm)
{
	unsigned nr = 0;

	memset(reads, 0, sizeof(reads));
	line.lose_ppm = lose_ppm;
	for (unsigned i = 0; i < READERS; i++)
		rest(i);
	while (nr < MAX_READS) {
		pass_until_news(next_begin_ns());
		for (unsigned i = 0; i < READERS && nr < MAX_READS; i++)
			move_read(i, &nr);
	}
	qsort(took_ns, MAX_READS, sizeof(took_ns[0]), compare);
	return (double)took_ns[MAX_READS / 1000 * of_1000] / 1e6;
}

/* A round trip is 2 ms: whoever loses nothing waits for nobody. */
static void reads_wait_for_losses_of_their_own_alone(void **state)
{
	const double p99 = time_of(990, 1000), p90 = time_of(900, 10000);

	print_message("p99 %.2f ms at 0.1 %%, p90 %.2f ms at 1 %%\n", p99, p90);
	assert_true(p99 < 3 && p90 < 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, connect_ends, free_ends)
		TEST(a_lost_packet_holds_up_its_streams_alone),
		TEST(little_is_kept_for_who_acknowledges_nothing),
		TEST(an_address_may_change_twelve_times),
		TEST(losses_do_not_take_the_rate),
#define FAR(name) cmocka_unit_test_setup_teardown(name, connect_far, free_ends)
		FAR(a_large_one_among_small_ones_takes_few_round_trips),
		TEST(packets_that_do_not_arrive_become_smaller),
#define JUMBO(name) cmocka_unit_test_setup_teardown(name, connect_jumbo, free_ends)
		JUMBO(the_first_datagrams_are_as_large_as_the_route),
		JUMBO(a_network_in_between_may_be_smaller),
		TEST(reads_wait_for_losses_of_their_own_alone),
	};

	return cmocka_run_group_tests_name("quic-line", tests, NULL, NULL);
}
