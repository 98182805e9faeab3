/* SPDX-License-Identifier: MIT */
/*
 * The verbs transport with certificates, against a donor in this process: they are shown over TLS,
 * and a pass of that session is proved over RDMA.  Who is let in and who is not, and what a pass is
 * good for.  Needs RDMA_IP, as verbs.c does, and WEFT_PKI: a directory with "pki" (an authority, a
 * server at 127.0.0.1, the client carol), "others" (the same of another authority) and "anonymous"
 * (the authority alone).  Without WEFT_SUITE it runs its own cases alone.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/key/pass.h"
#include "tests/conformance/verbs-peer.h"
#include "transports/nbd/donor/listener.h"
#include "transports/verbs/donor/listener.h"
#include "transports/verbs/proof.h"

/* Far longer than anything takes here, however slow the machine is: the cases turn the clock. */
enum { PASS_MS = 10 * 60 * 1000 };
#define NS_PER_MS UINT64_C(1000000)

static const char *rdma_ip;
static char pki[3][128]; /* ours, another authority's, without a client's */
static struct verbs_listener_config verbs_config = {.may_be_plaintext = true};

/* ---- the donor's listener for TLS, and one without ---- */

static struct {
	struct weft_loop *loop;
	pthread_t thread;
	struct nbd_listener *tls, *plain;
	char port[8], plain_port[8];
} nbd;

static void *loop_main(void *ctx)
{
	weft_loop_run(ctx);
	return NULL;
}

static void on_wake(void *ctx)
{
	struct nbd_listener *listeners[] = {nbd.tls, nbd.plain};

	for (unsigned i = 0; i < 2; i++) {
		nbd_listener_stop(listeners[i]);
		if (nbd_listener_drain(listeners[i], CONF_BOUND_MS) < 0)
			abort();
		nbd_listener_free(listeners[i]);
	}
	weft_loop_stop(ctx);
}

static struct nbd_listener *listen_with(struct conf *conf, const char *certificates, char *ret_port)
{
	const struct nbd_listener_config config = {.tls_certificates = certificates};
	struct sockaddr_in addr = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_ANY)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct nbd_listener *listener;
	struct weft_error err;

	assert_return_code(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_return_code(listen(fd, 64), 0);
	assert_return_code(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	sprintf(ret_port, "%u", ntohs(addr.sin_port));
	if (nbd_listener_new(conf->donor, nbd.loop, &fd, 1, &config, &listener, &err) < 0)
		fail_msg("%s", err.message);
	return listener;
}

/* ---- passes, as they are got; and START messages, as they leave ---- */

static struct weft_key last, next; /* next: what is got, if it has a secret */
static atomic_uint nr_starts, nr_hellos;

static int get_pass(const char *host, const char *port, const char *region,
	const char *certificates, int cancel_fd, struct weft_key *ret, struct weft_error *err)
{
	if (next.secret_bytes) {
		*ret = next;
		return 0;
	}
	int r, tries = 0;

	/* Its answer has a bound for machines that are not emulated. */
	do
		r = tp_get_pass(host, port, region, certificates, cancel_fd, ret, err);
	while (r == -ETIMEDOUT && tries++ < 3);
	if (r == 0)
		last = *ret;
	return r;
}

size_t __real_verbs_pack(const struct verbs_msg *msg, uint8_t *buf);
size_t __wrap_verbs_pack(const struct verbs_msg *msg, uint8_t *buf);

size_t __wrap_verbs_pack(const struct verbs_msg *msg, uint8_t *buf)
{
	nr_starts += msg->type == VERBS_START;
	nr_hellos += msg->type == VERBS_HELLO;
	return __real_verbs_pack(msg, buf);
}

static void start(struct conf *conf)
{
	verbs_peer_start_donor(conf, rdma_ip, CONF_REGION_BYTES, &verbs_config,
		(struct weft_donor_config){.pass_ms = PASS_MS});
	assert_int_equal(weft_loop_new(&nbd.loop), 0);
	nbd.tls = listen_with(conf, pki[0], nbd.port);
	nbd.plain = listen_with(conf, NULL, nbd.plain_port);
	weft_loop_on_wake(nbd.loop, on_wake, nbd.loop);
	assert_int_equal(pthread_create(&nbd.thread, NULL, loop_main, nbd.loop), 0);
	conf->target.certificates = pki[0];
	conf->target.connect_timeout_ms = conf->target.answer_ms = CONF_BOUND_MS;
	conf->target.get_pass = get_pass;
	conf->target.pass_host = "127.0.0.1";
	conf->target.pass_port = nbd.port;
	next = (struct weft_key){0};
	nr_starts = nr_hellos = 0;
}

static void stop(struct conf *conf)
{
	weft_loop_wake(nbd.loop);
	pthread_join(nbd.thread, NULL);
	weft_loop_free(nbd.loop);
	verbs_peer_stop(conf);
}

/* ---- cases ---- */

static void look(void *ctx, const struct weft_attachment_status *status)
{
	assert_string_equal(status->identity, "carol");
	assert_string_equal(status->transport, "rdma");
	assert_false(status->encrypted);
	++*(unsigned *)ctx;
}

static void certificate_is_proved_by_its_pass(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	unsigned nr = 0;

	assert_string_equal(conn->info.transport, "rdma");
	weft_donor_status(conf->donor, look, &nr);
	assert_int_equal(nr, 1);
	conf_fill(conf->buf, 0, 65536, 1);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, 65536, conf->buf), 0);
	memset(conf->buf, 0, 65536);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, 65536, conf->buf), 0);
	conf_check(conf->buf, 0, 65536, 1);
	conf_end(conn);
	/* Another connection has another. */
	struct weft_key first = last;
	conf_end(conf_connect(conf, &conf->target));
	assert_string_not_equal(first.identity, last.identity);
	assert_memory_not_equal(first.secret, last.secret, WEFT_SECRET_BYTES);
}

/* Nothing was even asked for over RDMA. */
static void refused_before(struct conf *conf, const struct tp_target *target, int error)
{
	struct weft_error why;

	nr_starts = 0;
	assert_int_equal(conf_refused(conf, target, &why), error);
	print_message("%s\n", why.message);
	assert_int_equal(nr_starts, 0);
}

static void certificate_of_another_authority_or_none_gets_no_pass(void **state)
{
	struct conf *conf = *state;
	struct tp_target target = conf->target;

	target.certificates = pki[1];
	refused_before(conf, &target, -EKEYREJECTED);
	target.certificates = pki[2];
	refused_before(conf, &target, -EKEYREJECTED);
	/* And a donor of another name. */
	target = conf->target;
	target.pass_host = "127.0.0.2";
	refused_before(conf, &target, -EKEYREJECTED);
}

static void certificate_is_not_shown_without_tls(void **state)
{
	struct conf *conf = *state;
	struct tp_target target = conf->target;

	target.pass_port = nbd.plain_port;
	refused_before(conf, &target, -EPROTONOSUPPORT);
	target.get_pass = NULL;
	struct tp_conn *conn;
	assert_int_equal(tp_connect(conf->tp, &target, &conn, NULL), -EINVAL);
}

/* The donor answers its START as any, and whoever sent it cannot go on. */
static void is_no_pass(struct conf *conf, const struct weft_key *pass)
{
	struct weft_error why;

	next = *pass;
	nr_hellos = 0;
	assert_int_equal(conf_refused(conf, &conf->target, &why), -EACCES);
	print_message("%s\n", why.message);
	assert_non_null(strstr(why.message, "certificates"));
	assert_int_equal(nr_hellos, 0);
	next.secret_bytes = 0;
}

static struct weft_key new_pass(struct conf *conf)
{
	struct weft_key pass;

	assert_int_equal(get_pass("127.0.0.1", nbd.port, "r", pki[0], -1, &pass, NULL), 0);
	return pass;
}

static void pass_is_good_once(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	struct weft_key used = last;

	/* While its connection lives, and after. */
	is_no_pass(conf, &used);
	assert_int_equal(conf_do(conf, conn, TP_PROBE, 0, 0, 0, NULL), 0);
	conf_end(conn);
	is_no_pass(conf, &used);
}

static void pass_needs_its_secret(void **state)
{
	struct conf *conf = *state;
	struct weft_key pass = new_pass(conf), other = new_pass(conf), mixed = pass;

	memcpy(mixed.secret, other.secret, sizeof(mixed.secret));
	is_no_pass(conf, &mixed);
	/* Whoever tried has ended it; the other's is what it was. */
	is_no_pass(conf, &pass);
	next = other;
	conf_end(conf_connect(conf, &conf->target));
	/* One that there never was. */
	weft_random(other.secret, sizeof(other.secret));
	other.identity[5] = other.identity[5] == '0' ? '1' : '0';
	is_no_pass(conf, &other);
}

static void tick_after(struct conf *conf, uint64_t ms)
{
	weft_donor_tick(conf->donor, weft_now_ns() + ms * NS_PER_MS);
}

static void pass_ends_by_itself(void **state)
{
	struct conf *conf = *state;
	struct weft_key early = new_pass(conf), late = early;

	tick_after(conf, PASS_MS / 2);
	next = early;
	conf_end(conf_connect(conf, &conf->target));
	next.secret_bytes = 0;
	late = new_pass(conf);
	tick_after(conf, PASS_MS + 1);
	is_no_pass(conf, &late);
}

static void passes_of_a_name_are_bounded(void **state)
{
	struct weft_peer carol = {.identity = "carol", .certified = true, .encrypted = true};
	struct conf *conf = *state;
	uint8_t exported[WEFT_PASS_BYTES] = {0};
	struct weft_key pass;

	do {
		exported[0]++;
		weft_pass_make(exported, &pass);
	} while (weft_donor_keep_pass(conf->donor, &carol, &pass) == 0);
	refused_before(conf, &conf->target, -EOPNOTSUPP);
	tick_after(conf, PASS_MS + 1);
	conf_end(conf_connect(conf, &conf->target));
}

static void certificate_is_for_plaintext_only_where_all_are(void **state)
{
	struct conf *conf = *state;
	struct weft_error why;

	assert_int_equal(conf_refused(conf, &conf->target, &why), -EACCES);
	print_message("%s\n", why.message);
	assert_non_null(strstr(why.message, "--rdma-plaintext of weft serve"));
}

int main(void)
{
	static const struct conf_fixture fixture = {.name = "verbs-certificates",
		.start = start,
		.stop = stop,
		.epoch = true,
		.sessions = true,
		.no_stock = true};
	const struct CMUnitTest own[] = {
		conf_case(certificate_is_proved_by_its_pass),
		conf_case(certificate_of_another_authority_or_none_gets_no_pass),
		conf_case(certificate_is_not_shown_without_tls),
		conf_case(pass_is_good_once),
		conf_case(pass_needs_its_secret),
		conf_case(pass_ends_by_itself),
		conf_case(passes_of_a_name_are_bounded),
	};
	const struct CMUnitTest encrypted[] = {
		conf_case(certificate_is_for_plaintext_only_where_all_are),
	};
	static const char *const names[] = {"pki", "others", "anonymous"};
	const char *dir = getenv("WEFT_PKI");
	struct tp *keep;

	if (!dir) {
		printf("SKIP: WEFT_PKI does not name a directory of certificates\n");
		return 77;
	}
	rdma_ip = verbs_peer_ip(&keep);
	if (!rdma_ip)
		return 77;
	for (unsigned i = 0; i < 3; i++)
		snprintf(pki[i], sizeof(pki[i]), "%s/%s", dir, names[i]);
	int r = getenv("WEFT_SUITE") ? conf_run(&fixture, own, WEFT_ARRAY_LEN(own))
				     : conf_run_own(&fixture, own, WEFT_ARRAY_LEN(own));
	verbs_config.may_be_plaintext = false;
	r |= conf_run_own(&fixture, encrypted, WEFT_ARRAY_LEN(encrypted));
	tp_close(keep);
	return r;
}
