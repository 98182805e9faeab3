/* SPDX-License-Identifier: MIT */
/*
 * The coordinator's state at etcd, of which a server is played here that takes everything: members
 * that do not answer, pictures that make no sense, changes that are many, a machine that was
 * suspended, and a commit that fails.
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <gnutls/gnutls.h>
#include <sqlite3.h>

#include "fabric/base/util.h"
#include "fabric/pool/etcd.h"
#include "fabric/pool/pool.h"
#include "fabric/pool/shared.h"

#define NS_PER_S UINT64_C(1000000000)

enum { TAKES_MAX = 1536 << 10, WAITING = 64 };

static const struct pool_caller admin = {.name = "root", .admin = true};

/* ---- what is other than it is ---- */

/* ThreadSanitizer takes twenty times as long. */
#ifdef __SANITIZE_THREAD__
enum { SLOW = 1 };
#else
enum { SLOW = 0 };
#endif

static _Atomic uint64_t suspended_s; /* what CLOCK_BOOTTIME is ahead */
static _Atomic int64_t stands_at_s;  /* where CLOCK_BOOTTIME stands still; 0: it does not */
static _Atomic bool commits_fail;

int __real_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	int r = __real_clock_gettime(clock, ret);

	if (clock == CLOCK_BOOTTIME)
		ret->tv_sec += (time_t)suspended_s;
	if (clock == CLOCK_BOOTTIME && stands_at_s)
		*ret = (struct timespec){.tv_sec = stands_at_s};
	return r;
}

int __real_sqlite3_exec(sqlite3 *db, const char *sql, int (*fn)(void *, int, char **, char **),
	void *ctx, char **err);
int __wrap_sqlite3_exec(sqlite3 *db, const char *sql, int (*fn)(void *, int, char **, char **),
	void *ctx, char **err);
int __wrap_sqlite3_exec(sqlite3 *db, const char *sql, int (*fn)(void *, int, char **, char **),
	void *ctx, char **err)
{
	return commits_fail && strcmp(sql, "COMMIT") == 0
		? SQLITE_FULL
		: __real_sqlite3_exec(db, sql, fn, ctx, err);
}

/* ---- a member ---- */

static struct member {
	int fd;
	unsigned port;
	pthread_t thread;
	_Atomic bool ends, is_mute; /* mute: it takes questions, and does not answer */
	_Atomic unsigned nr_asked, nr_changes;
	_Atomic size_t most_bytes; /* of a question */
	/* What it has: a picture of one part; NULL: none.  And pages of a log in which nothing is.
	 */
	char *picture;
	_Atomic unsigned nr_pages, page_takes_s;
} m[2];

static char *coded(const void *bytes, size_t len)
{
	const gnutls_datum_t plain = {(void *)bytes, (unsigned)len};
	gnutls_datum_t text;

	assert_true(gnutls_base64_encode2(&plain, &text) >= 0);
	char *ret = strndup((char *)text.data, text.size);
	gnutls_free(text.data);
	return ret;
}

/* A key's name in a question, decoded: "/weft/pool/head". */
static bool asks_for(const char *body, const char *part)
{
	const char *at = strstr(body, "\"key\":\"");
	gnutls_datum_t plain = {NULL, 0};

	if (!at)
		return false;
	at += strlen("\"key\":\"");
	const gnutls_datum_t text = {(uint8_t *)at, (unsigned)strcspn(at, "\"")};
	if (gnutls_base64_decode2(&text, &plain) < 0)
		return false;
	const bool ret = memmem(plain.data, plain.size, part, strlen(part)) != NULL;
	gnutls_free(plain.data);
	return ret;
}

static char *value(const char *key, const char *text)
{
	char *k = coded(key, strlen(key)), *ret;

	assert_true(asprintf(&ret, "{\"kvs\":[{\"key\":\"%s\",\"value\":\"%s\"}]}", k, text) > 0);
	free(k);
	return ret;
}

/* Entries from the key that is asked for on. */
static char *page_of_log(struct member *e)
{
	enum { ENTRIES = 200 };
	static uint64_t nr;
	char *text, key[60];
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (e->nr_pages == 3)
		nr = 7;
	fputs("{\"kvs\":[", out);
	for (unsigned i = 0; i < ENTRIES; i++) {
		snprintf(key, sizeof(key), "/weft/pool/log/%016" PRIx64, ++nr);
		char *k = coded(key, strlen(key));
		fprintf(out, "%s{\"key\":\"%s\"}", i ? "," : "", k);
		free(k);
	}
	fputs("]}", out);
	fclose(out);
	e->nr_pages--;
	suspended_s += e->page_takes_s;
	return text;
}

/* To be freed. */
static char *answer_to(struct member *e, const char *path, const char *body)
{
	static const char head[] = "{\"version\": 1, \"nr\": 7, \"parts\": 1}";

	if (strcmp(path, "/v3/lease/grant") == 0)
		return strdup("{\"ID\":\"77\",\"TTL\":\"10\"}");
	if (strcmp(path, "/v3/lease/keepalive") == 0)
		return strdup("{\"result\":{\"ID\":\"77\",\"TTL\":\"10\"}}");
	if (strcmp(path, "/v3/kv/txn") == 0) {
		e->nr_changes++;
		return strdup("{\"header\":{\"revision\":\"5\"},\"succeeded\":true}");
	}
	if (strcmp(path, "/v3/kv/range") == 0 && e->picture && asks_for(body, "/head")) {
		char *text = coded(head, strlen(head)), *ret = value("/weft/pool/head", text);

		free(text);
		return ret;
	}
	if (strcmp(path, "/v3/kv/range") == 0 && e->nr_pages > 0 && asks_for(body, "/log/"))
		return page_of_log(e);
	if (strcmp(path, "/v3/kv/range") == 0 && e->picture && asks_for(body, "/state/"))
		return value("/weft/pool/state/0000000000000007/000000", e->picture);
	return strdup("{}");
}

/* One question, which fits; false: the other side is gone. */
static bool serve_one(struct member *e, int fd, char *buf)
{
	size_t used = 0;
	char *body, *head;

	for (;;) {
		ssize_t n = recv(fd, buf + used, TAKES_MAX - used, 0);

		if (n <= 0)
			return false;
		used += (size_t)n;
		buf[used] = '\0';
		body = strstr(buf, "\r\n\r\n");
		head = body ? strcasestr(buf, "content-length:") : NULL;
		if (head && used >= (size_t)(body + 4 - buf) + (size_t)atol(head + 15))
			break;
		/* curl waits for that before it sends much. */
		if (head && strcasestr(buf, "100-continue") &&
			send(fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_NOSIGNAL) < 0)
			return false;
		assert_true(used < TAKES_MAX);
	}
	e->nr_asked++;
	e->most_bytes = weft_max(e->most_bytes, strlen(body + 4));
	if (e->is_mute)
		return true;
	buf[5 + strcspn(buf + 5, " ")] = '\0'; /* POST /path */
	char *answer = answer_to(e, buf + 5, body + 4), *text;
	const int len = asprintf(&text,
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
		"%zu\r\n\r\n%s",
		strlen(answer), answer);
	bool good = true;
	for (ssize_t sent = 0, n; good && sent < len; sent += n) {
		n = send(fd, text + sent, (size_t)(len - sent), MSG_NOSIGNAL);
		good = n > 0;
	}
	free(answer);
	free(text);
	return good;
}

static void *run_member(void *ctx)
{
	struct member *e = ctx;
	char *buf = malloc(TAKES_MAX + 1);
	struct pollfd fds[16] = {{.fd = e->fd, .events = POLLIN}};
	nfds_t nr = 1;

	while (!e->ends) {
		if (poll(fds, nr, 20) <= 0)
			continue;
		if (fds[0].revents && nr < WEFT_ARRAY_LEN(fds))
			fds[nr++] =
				(struct pollfd){.fd = accept(e->fd, NULL, NULL), .events = POLLIN};
		for (nfds_t i = 1; i < nr; i++)
			if (fds[i].revents && !serve_one(e, fds[i].fd, buf)) {
				close(fds[i].fd);
				fds[i--] = fds[--nr];
			}
	}
	while (nr > 1)
		close(fds[--nr].fd);
	free(buf);
	return NULL;
}

static void listen_at(struct member *e)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);

	*e = (struct member){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	assert_true(e->fd >= 0 && bind(e->fd, (struct sockaddr *)&address, len) == 0 &&
		listen(e->fd, 0) == 0 &&
		getsockname(e->fd, (struct sockaddr *)&address, &len) == 0);
	e->port = ntohs(address.sin_port);
}

static void begin(struct member *e)
{
	listen_at(e);
	assert_int_equal(pthread_create(&e->thread, NULL, run_member, e), 0);
}

static void end(struct member *e)
{
	e->ends = true;
	pthread_join(e->thread, NULL);
	close(e->fd);
	free(e->picture);
	e->picture = NULL;
}

static struct etcd *etcd_of(unsigned nr)
{
	char endpoints[100] = "";
	struct etcd *ret = NULL;

	for (unsigned i = 0; i < nr; i++)
		sprintf(endpoints + strlen(endpoints), "%shttp://127.0.0.1:%u", i ? "," : "",
			m[i].port);
	assert_int_equal(etcd_new(endpoints, NULL, &ret, NULL), 0);
	return ret;
}

static struct pool_shared *shared_of(void)
{
	char endpoints[40];
	struct pool_shared *ret = NULL;

	snprintf(endpoints, sizeof(endpoints), "http://127.0.0.1:%u", m[0].port);
	const struct pool_shared_config config = {.endpoints = endpoints,
		.prefix = "/weft/pool",
		.name = "this"};
	assert_int_equal(pool_shared_new(&config, &ret, NULL), 0);
	return ret;
}

/* ---- members ---- */

static void after_a_member_that_does_not_answer_another_is_asked(void **state)
{
	struct weft_error err;
	int64_t lease = 0;

	begin(&m[0]);
	begin(&m[1]);
	m[0].is_mute = true;
	struct etcd *e = etcd_of(2);
	/* What the first has done, is not known; so nobody is asked the same. */
	assert_int_equal(etcd_grant(e, 10, &lease, &err), -EINPROGRESS);
	assert_int_equal(m[1].nr_asked, 0);
	assert_int_equal(etcd_grant(e, 10, &lease, &err), 0);
	assert_int_equal(lease, 77);
	assert_int_equal(m[0].nr_asked, 1);
	etcd_free(e);
	end(&m[0]);
	end(&m[1]);
}

/* Its queue of connections is full: what is sent there is not taken. */
static void a_member_that_takes_no_connection_was_not_asked(void **state)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int waiting[WAITING];
	struct weft_error err;
	int64_t lease = 0;

	listen_at(&m[0]);
	begin(&m[1]);
	address.sin_port = htons((uint16_t)m[0].port);
	for (unsigned i = 0; i < WAITING; i++) {
		waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		assert_true(waiting[i] >= 0);
		connect(waiting[i], (struct sockaddr *)&address, sizeof(address));
	}
	struct etcd *e = etcd_of(2);
	if (etcd_grant(e, 10, &lease, &err) != 0)
		fail_msg("%s", err.message);
	assert_int_equal(lease, 77);
	etcd_free(e);
	for (unsigned i = 0; i < WAITING; i++)
		close(waiting[i]);
	close(m[0].fd);
	end(&m[1]);
}

/* ---- who leads ---- */

static void a_machine_that_was_suspended_leads_no_longer(void **state)
{
	begin(&m[0]);
	struct pool_shared *s = shared_of();
	assert_int_equal(pool_shared_lead(s, NULL), 0);
	assert_true(pool_shared_leads(s));
	suspended_s = POOL_LEADER_S;
	assert_false(pool_shared_leads(s));
	suspended_s = 0;
	pool_shared_free(s);
	end(&m[0]);
}

static void who_cannot_commit_what_is_at_etcd_leads_no_longer(void **state)
{
	struct pool *pool;
	struct weft_error err;
	json_t *ret = NULL;

	begin(&m[0]);
	struct pool_shared *s = shared_of();
	assert_int_equal(pool_shared_lead(s, NULL), 0);
	assert_int_equal(pool_open_shared(s, &pool, NULL), 0);
	const unsigned changes = m[0].nr_changes;
	commits_fail = true;
	assert_int_equal(pool_set_quota(pool, &admin, "user", "a", 1, &ret, &err), -EIO);
	commits_fail = false;
	assert_int_equal(m[0].nr_changes, changes + 1);
	assert_false(pool_leads(pool));
	pool_close(pool);
	pool_shared_free(s);
	end(&m[0]);
}

/* ---- pictures ---- */

static int open_picture(const void *bytes, size_t len, struct pool_shared **ret_shared,
	struct pool **ret)
{
	begin(&m[0]);
	m[0].picture = coded(bytes, len);
	*ret_shared = shared_of();
	assert_int_equal(pool_shared_lead(*ret_shared, NULL), 0);
	struct weft_error err;
	int r = pool_open_shared(*ret_shared, ret, &err);
	if (r < 0)
		print_message("%s\n", err.message);
	return r;
}

static void a_picture_of_nothing_is_damaged(void **state)
{
	struct pool_shared *s;
	struct pool *pool;
	sqlite3 *db;
	sqlite3_int64 len;

	assert_int_equal(open_picture("", 0, &s, &pool), -EBADMSG);
	pool_shared_free(s);
	end(&m[0]);
	assert_int_equal(open_picture("nonsense, and not a little of it", 32, &s, &pool), -EBADMSG);
	pool_shared_free(s);
	end(&m[0]);
	/* A database, but no pool's. */
	assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "CREATE TABLE a (b); DROP TABLE a", NULL, NULL, NULL),
		SQLITE_OK);
	unsigned char *bytes = sqlite3_serialize(db, "main", &len, 0);
	assert_non_null(bytes);
	assert_int_equal(open_picture(bytes, (size_t)len, &s, &pool), -EBADMSG);
	sqlite3_free(bytes);
	sqlite3_close(db);
	pool_shared_free(s);
	end(&m[0]);
}

static void who_reads_for_long_leads_all_the_same(void **state)
{
	struct pool_shared *s;
	struct weft_error err;
	struct pool *pool;
	sqlite3_int64 len;
	char path[] = "/tmp/weft-pool-etcd.XXXXXX";
	sqlite3 *db;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(pool_open(path, &pool, NULL), 0);
	pool_close(pool);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL),
		SQLITE_OK);
	unsigned char *bytes = sqlite3_serialize(db, "main", &len, 0);
	begin(&m[0]);
	m[0].picture = coded(bytes, (size_t)len);
	m[0].nr_pages = 3;
	m[0].page_takes_s = 4;
	s = shared_of();
	assert_int_equal(pool_shared_lead(s, NULL), 0);
	if (pool_open_shared(s, &pool, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(suspended_s, 12);
	assert_true(pool_leads(pool));
	suspended_s = 0;
	pool_close(pool);
	pool_shared_free(s);
	end(&m[0]);
	sqlite3_free(bytes);
	sqlite3_close(db);
	unlink(path);
}

/* ---- many changes ---- */

static json_t *report_of(unsigned donor, unsigned nr)
{
	json_t *report = json_pack("{s:o, s:s, s:i, s:I, s:i, s:[], s:[], s:[]}", "uri",
		json_sprintf("weft://127.0.0.1:%u", 1000 + donor), "rack", "r", "since", 1,
		"lent_bytes", (json_int_t)(1000 * WEFT_GIB), "nr", (int)nr, "regions", "refused",
		"stays");

	assert_non_null(report);
	return report;
}

static void a_job_of_many_leases_ends_in_pieces(void **state)
{
	/* Whatever the machine's speed is, nobody leads for too long meanwhile. */
	enum { DONORS = 80, LEASES = SLOW ? 500 : 5000, COPIES = 3 };
	struct timespec now;
	struct pool *pool;
	struct weft_error err;
	json_t *ret = NULL;
	char name[64];

	begin(&m[0]);
	struct pool_shared *s = shared_of();
	assert_int_equal(pool_shared_lead(s, NULL), 0);
	assert_int_equal(pool_open_shared(s, &pool, NULL), 0);
	for (unsigned i = 0; i < DONORS; i++) {
		json_t *report = report_of(i, 1);

		snprintf(name, sizeof(name), "a-donor-with-a-name-that-is-longer-than-most-%02u",
			i);
		assert_int_equal(pool_report(pool, &admin, name, report, &ret, &err), 0);
		json_decref(report);
		json_decref(ret);
	}
	json_t *wish =
		json_pack("{s:i, s:i, s:s}", "size_bytes", 4096, "copies", COPIES, "job", "7");
	for (unsigned i = 0; i < LEASES; i++) {
		snprintf(name, sizeof(name), "job-7.a-node-with-a-name-that-is-long-too-%04u.file",
			i);
		pool_shared_keep(s);
		if (pool_alloc(pool, &admin, name, wish, &ret, &err) < 0)
			fail_msg("%s: %s", name, err.message);
		json_decref(ret);
	}
	json_decref(wish);
	m[0].most_bytes = 0;
	pool_shared_keep(s);
	clock_gettime(CLOCK_BOOTTIME, &now);
	stands_at_s = now.tv_sec + 1;
	if (pool_end_job(pool, &admin, "7", true, &ret, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(json_integer_value(json_object_get(ret, "ended")), LEASES);
	json_decref(ret);
	assert_true(pool_leads(pool));
	stands_at_s = 0;
	assert_true(m[0].most_bytes < TAKES_MAX);
	pool_close(pool);
	pool_shared_free(s);
	end(&m[0]);
}

/* Of a pool that was not tidied for long: the first 20,000 of its 300,001 entries are there. */
static unsigned char *old_picture(sqlite3_int64 *ret_len)
{
	char path[] = "/tmp/weft-pool-etcd.XXXXXX", sql[400], *why = NULL;
	struct pool *pool;
	sqlite3 *db;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(pool_open(path, &pool, NULL), 0);
	pool_close(pool);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	snprintf(sql, sizeof(sql),
		"PRAGMA journal_mode = DELETE;"
		"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000) "
		"INSERT INTO audit SELECT n, 1, 'who', 'what', 'object', 'detail' FROM c;"
		"INSERT INTO audit VALUES (300001, 1, 'who', 'what', 'object', 'detail')");
	if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
		fail_msg("%s", why);
	unsigned char *ret = sqlite3_serialize(db, "main", ret_len, 0);
	assert_non_null(ret);
	sqlite3_close(db);
	unlink(path);
	return ret;
}

static json_int_t first_entry(struct pool *pool)
{
	json_t *ret = NULL;

	assert_int_equal(pool_audit(pool, &admin, 0, 1, &ret, NULL), 0);
	json_int_t nr = json_integer_value(
		json_object_get(json_array_get(json_object_get(ret, "audit"), 0), "nr"));
	json_decref(ret);
	return nr;
}

static void a_long_audit_is_pruned_in_pieces(void **state)
{
	sqlite3_int64 len;
	unsigned char *bytes = old_picture(&len);
	uint64_t now_ns = weft_now_ns();
	struct pool_shared *s;
	struct pool *pool;

	assert_int_equal(open_picture(bytes, (size_t)len, &s, &pool), 0);
	sqlite3_free(bytes);
	assert_int_equal(first_entry(pool), 1);
	for (unsigned i = 1; i <= 20; i++) {
		pool_shared_keep(s);
		pool_at(pool, now_ns + i * NS_PER_S, 1800000000 + i);
		pool_tick(pool);
		assert_true(pool_leads(pool));
	}
	assert_true(first_entry(pool) > 5000);
	assert_true(m[0].most_bytes < TAKES_MAX);
	pool_close(pool);
	pool_shared_free(s);
	end(&m[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(after_a_member_that_does_not_answer_another_is_asked),
		cmocka_unit_test(a_member_that_takes_no_connection_was_not_asked),
		cmocka_unit_test(a_machine_that_was_suspended_leads_no_longer),
		cmocka_unit_test(who_cannot_commit_what_is_at_etcd_leads_no_longer),
		cmocka_unit_test(a_picture_of_nothing_is_damaged),
		cmocka_unit_test(who_reads_for_long_leads_all_the_same),
		cmocka_unit_test(a_job_of_many_leases_ends_in_pieces),
		cmocka_unit_test(a_long_audit_is_pruned_in_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
