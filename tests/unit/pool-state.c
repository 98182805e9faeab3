/* SPDX-License-Identifier: MIT */
/*
 * The coordinator without a network: leases and their regions, with donors that are played here. At
 * the end anything happens in any order, and the coordinator starts anew in between.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "fabric/base/util.h"
#include "fabric/pool/callers.h"
#include "fabric/pool/placement.h"
#include "fabric/pool/pool.h"

#define G ((json_int_t)WEFT_GIB)
#define NS_PER_S UINT64_C(1000000000)

enum { DONORS = 6, REGIONS = 64 };

static const struct pool_caller admin = {.name = "root", .admin = true};
static const struct pool_caller alice = {.name = "alice"}, bob = {.name = "bob"};

/* A donor that does what it is told. */
struct donor {
	char name[8], rack[8];
	json_int_t lends;
	struct region {
		char name[40];
		json_int_t size;
		unsigned epoch;
		bool used;
	} regions[REGIONS];
	unsigned nr;
	bool refuses, lies_still; /* it does not move what it is told to */
	char refused[40], stays[40];
	bool cannot_move;
};

static struct world {
	char path[64];
	struct pool *pool;
	uint64_t now_ns;
	int64_t now_s;
	struct donor donors[DONORS];
	unsigned epochs;
} w;

static void begin(void)
{
	/* In memory if that can be had: a disk's time is no matter here. */
	strcpy(w.path, "/dev/shm/weft-pool-state.XXXXXX");
	int fd = mkstemp(w.path);
	if (fd < 0) {
		strcpy(w.path, "/tmp/weft-pool-state.XXXXXX");
		fd = mkstemp(w.path);
	}
	assert_true(fd >= 0);
	close(fd);
	w.pool = NULL;
	w.now_ns = 1000 * NS_PER_S;
	w.now_s = 1800000000;
	w.epochs = 0;
	memset(w.donors, 0, sizeof(w.donors));
	for (unsigned i = 0; i < DONORS; i++) {
		snprintf(w.donors[i].name, sizeof(w.donors[i].name), "n%u", i);
		snprintf(w.donors[i].rack, sizeof(w.donors[i].rack), "r%u", i / 2);
		w.donors[i].lends = 16 * G;
	}
	assert_int_equal(pool_open(w.path, &w.pool, NULL), 0);
	pool_at(w.pool, w.now_ns, w.now_s);
}

static void end(void)
{
	char other[80];

	pool_close(w.pool);
	unlink(w.path);
	snprintf(other, sizeof(other), "%s-wal", w.path);
	unlink(other);
}

static void restart(void)
{
	struct weft_error err;

	pool_close(w.pool);
	if (pool_open(w.path, &w.pool, &err) < 0)
		fail_msg("%s", err.message);
	pool_at(w.pool, w.now_ns, w.now_s);
}

static void pass(unsigned seconds)
{
	w.now_ns += seconds * NS_PER_S;
	w.now_s += seconds;
	pool_at(w.pool, w.now_ns, w.now_s);
	pool_tick(w.pool);
}

static struct region *find(struct donor *d, const char *name)
{
	for (unsigned i = 0; i < d->nr; i++)
		if (strcmp(d->regions[i].name, name) == 0)
			return &d->regions[i];
	return NULL;
}

static void drop(struct donor *d, struct region *region)
{
	memmove(region, region + 1, (size_t)(d->regions + d->nr - (region + 1)) * sizeof(*region));
	d->nr--;
}

static void obey(struct donor *d, const json_t *answer)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(answer, "end"), i, one) {
		struct region *r = find(d, json_string_value(json_object_get(one, "name")));

		if (r && (!r->used || json_is_true(json_object_get(one, "force"))))
			drop(d, r);
	}
	json_array_foreach(json_object_get(answer, "make"), i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));

		if (d->refuses)
			strcpy(d->refused, name);
		if (d->refuses || find(d, name) || d->nr == REGIONS)
			continue;
		struct region *r = &d->regions[d->nr++];
		*r = (struct region){.size = json_integer_value(json_object_get(one, "size_bytes")),
			.epoch = ++w.epochs};
		strcpy(r->name, name);
	}
	json_array_foreach(json_object_get(answer, "move"), i, one) {
		struct region *r = find(d, json_string_value(json_object_get(one, "name")));
		const char *to = json_string_value(json_object_get(one, "to"));

		if (r && d->cannot_move)
			strcpy(d->stays, r->name);
		for (unsigned j = 0; r && !d->cannot_move && !d->lies_still && j < DONORS; j++)
			if (strcmp(to + strlen("weft://"), w.donors[j].name) == 0 &&
				w.donors[j].nr < REGIONS) {
				w.donors[j].regions[w.donors[j].nr++] = *r;
				drop(d, r);
				break;
			}
	}
}

static json_t *report_of(struct donor *d)
{
	json_t *regions = json_array(), *refused = json_array(), *stays = json_array();

	for (unsigned i = 0; i < d->nr; i++) {
		char epoch[17];

		snprintf(epoch, sizeof(epoch), "%016x", d->regions[i].epoch);
		json_array_append_new(regions,
			json_pack("{s:s, s:I, s:s, s:b}", "name", d->regions[i].name, "size_bytes",
				d->regions[i].size, "epoch", epoch, "used", d->regions[i].used));
	}
	if (d->refused[0])
		json_array_append_new(refused,
			json_pack("{s:s, s:s}", "name", d->refused, "why", "no memory"));
	if (d->stays[0])
		json_array_append_new(stays,
			json_pack("{s:s, s:s}", "name", d->stays, "why", "no time"));
	d->refused[0] = d->stays[0] = '\0';
	return json_pack("{s:o, s:s, s:i, s:I, s:o, s:o, s:o}", "uri",
		json_sprintf("weft://%s", d->name), "rack", d->rack, "since", 1, "lent_bytes",
		d->lends, "regions", regions, "refused", refused, "stays", stays);
}

/* obeys: it hears the answer. */
static void report(unsigned i, bool obeys)
{
	struct donor *d = &w.donors[i];
	struct pool_caller self = {.donor = true};
	json_t *body = report_of(d), *answer = NULL;
	struct weft_error err;

	strcpy(self.name, d->name);
	if (pool_report(w.pool, &self, d->name, body, &answer, &err) < 0)
		fail_msg("%s", err.message);
	if (obeys)
		obey(d, answer);
	json_decref(body);
	json_decref(answer);
}

static void all_report(void)
{
	for (unsigned i = 0; i < DONORS; i++)
		report(i, true);
}

static int alloc(const struct pool_caller *who, const char *name, json_int_t size, int copies,
	const char *more)
{
	json_t *wish = json_pack("{s:I, s:i}", "size_bytes", size, "copies", copies), *ret = NULL;
	json_t *rest = more ? json_loads(more, 0, NULL) : NULL;

	if (more) {
		assert_non_null(rest);
		json_object_update(wish, rest);
	}
	int r = pool_alloc(w.pool, who, name, wish, &ret, NULL);
	json_decref(rest);
	json_decref(wish);
	json_decref(ret);
	return r;
}

static json_t *lease(const char *name)
{
	json_t *ret = NULL;

	return pool_lease(w.pool, &admin, name, &ret, NULL) == 0 ? ret : NULL;
}

static void is_lease(const char *name, const char *state)
{
	json_t *l = lease(name);

	if (!l) {
		assert_null(state);
		return;
	}
	assert_string_equal(json_string_value(json_object_get(l, "state")), state);
	json_decref(l);
}

/* Of alice's lease, of which the first copy is to go there. */
static int begin_move(const char *name, const char *to)
{
	json_t *wish = json_pack("{s:s}", "to", to), *ret = NULL;
	int r = pool_move(w.pool, &alice, name, wish, &ret, NULL);

	json_decref(wish);
	json_decref(ret);
	return r;
}

static int release(const struct pool_caller *who, const char *name, bool force)
{
	json_t *ret = NULL;
	int r = pool_release(w.pool, who, name, force, &ret, NULL);

	json_decref(ret);
	return r;
}

static int set_donor(const char *name, const char *state)
{
	json_t *ret = NULL;
	int r = pool_set_donor(w.pool, &admin, name, state, &ret, NULL);

	json_decref(ret);
	return r;
}

static json_int_t status(const char *first, const char *second)
{
	json_t *s = NULL;

	assert_int_equal(pool_status(w.pool, &admin, &s, NULL), 0);
	const json_t *at = json_object_get(s, first);
	json_int_t ret = json_integer_value(second ? json_object_get(at, second) : at);
	json_decref(s);
	return ret;
}

static unsigned nr_at_donors(void)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < DONORS; i++)
		nr += w.donors[i].nr;
	return nr;
}

static void a_lease_is_made_and_ends(void **state)
{
	begin();
	assert_int_equal(alloc(&alice, "a", G, 1, NULL), -ENOSPC); /* nobody has joined */
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 2, NULL), 0);
	is_lease("a", "making");
	all_report();
	is_lease("a", "making");
	all_report();
	is_lease("a", "ready");
	assert_int_equal(nr_at_donors(), 2);
	assert_int_equal(status("used_bytes", NULL), 2 * G);
	/* The same again is the same; others are not. */
	assert_int_equal(alloc(&alice, "a", G, 2, NULL), 0);
	assert_int_equal(alloc(&alice, "a", 2 * G, 2, NULL), -EEXIST);
	assert_int_equal(alloc(&bob, "a", G, 2, NULL), -EEXIST);
	assert_int_equal(release(&bob, "a", false), -ENOENT);
	assert_int_equal(release(&alice, "a", false), 0);
	assert_int_equal(release(&alice, "a", false), 0);
	is_lease("a", "ending");
	assert_int_equal(alloc(&alice, "a", G, 2, NULL), -EEXIST);
	all_report();
	assert_int_equal(nr_at_donors(), 0);
	is_lease("a", "ending");
	all_report();
	is_lease("a", NULL);
	assert_int_equal(status("used_bytes", NULL), 0);
	end();
}

static void what_makes_no_sense_is_refused(void **state)
{
	static const char *const wishes[] = {"{\"size_bytes\": 0}", "{\"size_bytes\": -1}",
		"{\"size_bytes\": \"1\"}", "{\"size_bytes\": 2000000000000000}", "{\"copies\": 0}",
		"{\"copies\": 4}", "{\"spread\": \"row\"}", "{\"job\": \"a b\"}", "{\"job\": 7}",
		"{\"owner\": \"../x\"}", "{\"idle_s\": -1}"};

	begin();
	all_report();
	for (size_t i = 0; i < WEFT_ARRAY_LEN(wishes); i++)
		assert_int_equal(alloc(&admin, "a", G, 1, wishes[i]), -EINVAL);
	assert_int_equal(alloc(&admin, "", G, 1, NULL), -EINVAL);
	assert_int_equal(alloc(&admin, "a/b", G, 1, NULL), -EINVAL);
	assert_int_equal(alloc(&alice, "a", G, 1, "{\"owner\": \"bob\"}"), -EACCES);
	/* What a scheduler's prolog looks for. */
	assert_int_equal(alloc(&alice, "job-7.n1.file", G, 1, NULL), -EACCES);
	assert_int_equal(alloc(&admin, "job-7.n1.file", G, 1, NULL), 0);
	assert_int_equal(alloc(&alice, "jobs", G, 1, NULL), 0);
	assert_int_equal(alloc(&admin, "a", G, 1, "{\"owner\": \"bob\"}"), 0);
	assert_int_equal(set_donor("n0", "asleep"), -EINVAL);
	assert_int_equal(set_donor("x", "open"), -ENOENT);
	end();
}

static int try_report(const struct pool_caller *who, const char *donor, const char *body)
{
	json_t *json = json_loads(body, 0, NULL), *ret = NULL;

	assert_non_null(json);
	int r = pool_report(w.pool, who, donor, json, &ret, NULL);
	json_decref(json);
	json_decref(ret);
	return r;
}

#define REPORT(more)                                                                               \
	"{\"uri\": \"weft://a:1\", \"since\": 5, \"lent_bytes\": 9, \"regions\": [], "             \
	"\"refused\": [], \"stays\": []" more "}"

static void a_report_is_of_its_donor_and_makes_sense(void **state)
{
	static const char *const bad[] = {"{}", REPORT(", \"uri\": \"http://a\""),
		REPORT(", \"uri\": \"weft://a b\""), REPORT(", \"lent_bytes\": -1"),
		REPORT(", \"regions\": [{}]"), REPORT(", \"regions\": [{\"name\": \"other\"}]"),
		REPORT(", \"regions\": [{\"name\": \"pool-00000000000000zz\"}]"),
		REPORT(", \"regions\": {}, \"stays\": 3, \"since\": null")};
	const struct pool_caller a = {.name = "a", .donor = true}, b = {.name = "b", .donor = true},
				 user = {.name = "a"};

	begin();
	for (size_t i = 0; i < WEFT_ARRAY_LEN(bad); i++)
		assert_int_equal(try_report(&a, "a", bad[i]), -EINVAL);
	assert_int_equal(status("donors", "known"), 0);
	assert_int_equal(try_report(&b, "a", REPORT("")), -EACCES);
	assert_int_equal(try_report(&user, "a", REPORT("")), -EACCES);
	assert_int_equal(try_report(&a, "a", REPORT("")), 0);
	assert_int_equal(try_report(&admin, "a", REPORT("")), 0);
	/* A process that was there before is not heard any more. */
	assert_int_equal(try_report(&a, "a", REPORT(", \"since\": 4")), -ESTALE);
	assert_int_equal(try_report(&a, "a", REPORT(", \"since\": 6")), 0);
	assert_int_equal(try_report(&a, "a", REPORT("")), -ESTALE);
	/* Unless the other is gone: a machine's clock may have been set back. */
	pass(POOL_SILENT_S + 1);
	assert_int_equal(try_report(&a, "a", REPORT("")), 0);
	end();
}

static int report_nr(int nr, int since)
{
	const struct pool_caller self = {.name = "n0", .donor = true};
	json_t *body = report_of(&w.donors[0]), *answer = NULL;

	json_object_set_new(body, "nr", json_integer(nr));
	json_object_set_new(body, "since", json_integer(since));
	int r = pool_report(w.pool, &self, "n0", body, &answer, NULL);
	json_decref(body);
	json_decref(answer);
	return r;
}

/* One that was on its way for long says nothing of what there is now. */
/* The state cannot grow, so that nothing is committed. */
static void let_grow(bool may)
{
	const struct rlimit limit = {may ? RLIM_INFINITY : 0, RLIM_INFINITY};

	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void a_report_that_could_not_be_kept_is_heard_again(void **state)
{
	json_t *body, *answer = NULL;
	struct weft_error err;

	begin();
	signal(SIGXFSZ, SIG_IGN);
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 1, "{\"at\": \"n1\"}"), 0);
	report(1, true);
	let_grow(false);
	body = report_of(&w.donors[1]);
	assert_int_equal(pool_report(w.pool, &admin, "n1", body, &answer, &err), -EIO);
	let_grow(true);
	json_decref(body);
	/* It is still known where the donor is. */
	json_t *donors = NULL, *one;
	size_t i;
	assert_int_equal(pool_donors(w.pool, &admin, &donors, NULL), 0);
	json_array_foreach(json_object_get(donors, "donors"), i, one)
		assert_true(strncmp(json_string_value(json_object_get(one, "uri")), "weft://n",
				    8) == 0);
	json_decref(donors);
	/* One that is new, and was not noted, is noted the next time. */
	body = report_of(&w.donors[0]);
	let_grow(false);
	assert_int_equal(pool_report(w.pool, &admin, "new", body, &answer, &err), -EIO);
	let_grow(true);
	assert_int_equal(pool_report(w.pool, &admin, "new", body, &answer, &err), 0);
	json_decref(answer);
	json_decref(body);
	report(1, true);
	restart();
	is_lease("a", "silent");
	assert_int_equal(status("donors", "known"), DONORS + 1);
	end();
}

static void an_old_report_is_refused(void **state)
{
	begin();
	assert_int_equal(report_nr(7, 1), 0);
	assert_int_equal(report_nr(6, 1), -ESTALE);
	assert_int_equal(report_nr(7, 1), -ESTALE);
	assert_int_equal(report_nr(8, 1), 0);
	assert_int_equal(report_nr(1, 2), 0); /* another process */
	restart();
	assert_int_equal(report_nr(2, 2), 0);
	end();
}

static void who_cannot_make_a_region_is_left_out(void **state)
{
	begin();
	w.donors[0].lends = 64 * G;
	w.donors[0].refuses = true;
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 1, NULL), 0);
	for (int i = 0; i < 4; i++)
		all_report();
	is_lease("a", "ready");
	assert_int_equal(w.donors[0].nr, 0);
	/* Nobody else has as much. */
	assert_int_equal(alloc(&alice, "b", 32 * G, 1, NULL), 0);
	all_report();
	all_report();
	all_report();
	is_lease("b", NULL);
	/* A donor that is silent. */
	w.donors[0].refuses = false;
	assert_int_equal(alloc(&alice, "c", G, 1, "{\"at\": \"n0\"}"), 0);
	for (int i = 0; i < 70; i++) {
		for (unsigned j = 1; j < DONORS; j++)
			report(j, true);
		pass(1);
	}
	is_lease("c", "ready");
	/* … comes back, is told to end what it may have made, and has not. */
	report(0, true);
	report(0, true);
	assert_int_equal(w.donors[0].nr, 0);
	assert_int_equal(status("regions", "ending"), 0);
	end();
}

static void what_is_lost_is_told(void **state)
{
	begin();
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 2, "{\"spread\": \"rack\"}"), 0);
	all_report();
	all_report();
	is_lease("a", "ready");
	/* n0 and n2 have the copies: the first of two racks. */
	assert_int_equal(w.donors[0].nr, 1);
	const struct region was = w.donors[0].regions[0];
	assert_int_equal(w.donors[2].nr, 1);
	w.donors[0].nr = 0;
	all_report();
	is_lease("a", "degraded");
	assert_int_equal(w.donors[0].nr, 0); /* it is not made again, empty */
	/* A donor that said so too early. */
	w.donors[0].regions[0] = was;
	w.donors[0].nr = 1;
	all_report();
	is_lease("a", "ready");
	w.donors[0].regions[0].epoch += 100;
	all_report();
	is_lease("a", "degraded");
	w.donors[2].regions[0].used = true;
	all_report();
	w.donors[2].nr = 0;
	all_report();
	is_lease("a", "lost"); /* and nobody uses it */
	assert_int_equal(status("regions", "lost"), 2);
	assert_int_equal(release(&alice, "a", false), 0);
	all_report();
	all_report();
	is_lease("a", NULL);
	assert_int_equal(nr_at_donors(), 0);
	end();
}

static void a_silent_donor_is_shown_and_waited_for(void **state)
{
	begin();
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 1, "{\"at\": \"n3\"}"), 0);
	all_report();
	all_report();
	pass(POOL_SILENT_S + 1);
	is_lease("a", "silent");
	assert_int_equal(status("donors", "silent"), DONORS);
	assert_int_equal(alloc(&alice, "b", G, 1, NULL), -ENOSPC);
	all_report();
	is_lease("a", "ready");
	restart();
	is_lease("a", "silent");
	all_report();
	is_lease("a", "ready");
	end();
}

static void what_is_used_stays(void **state)
{
	json_t *ret = NULL;

	begin();
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 1, "{\"at\": \"n1\", \"job\": \"7\"}"), 0);
	all_report();
	w.donors[1].regions[0].used = true;
	all_report();
	assert_int_equal(release(&alice, "a", false), -EBUSY);
	assert_int_equal(pool_end_job(w.pool, &bob, "7", false, &ret, NULL), 0);
	json_decref(ret);
	is_lease("a", "ready"); /* it is not bob's */
	assert_int_equal(pool_end_job(w.pool, &alice, "7", false, &ret, NULL), 0);
	json_decref(ret);
	all_report();
	all_report();
	is_lease("a", "ending");
	assert_int_equal(w.donors[1].nr, 1);
	assert_int_equal(release(&alice, "a", true), 0);
	all_report();
	all_report();
	is_lease("a", NULL);
	end();
}

static void a_lease_ends_when_nobody_uses_it(void **state)
{
	begin();
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 1, "{\"at\": \"n1\", \"idle_s\": 100}"), 0);
	assert_int_equal(alloc(&alice, "kept", G, 1, "{\"at\": \"n1\"}"), 0);
	all_report();
	w.donors[1].regions[0].used = w.donors[1].regions[1].used = true;
	all_report();
	for (int i = 0; i < 50; i++) {
		pass(10);
		all_report();
	}
	is_lease("a", "ready");
	w.donors[1].regions[0].used = w.donors[1].regions[1].used = false;
	all_report();
	pass(99);
	is_lease("a", "silent");
	/* A coordinator that was away does not know who came meanwhile. */
	restart();
	pass(500);
	is_lease("a", "silent");
	w.donors[1].regions[0].used = w.donors[1].regions[1].used = true;
	all_report();
	pass(1);
	is_lease("a", "ready");
	w.donors[1].regions[0].used = w.donors[1].regions[1].used = false;
	all_report();
	pass(100);
	is_lease("a", "silent"); /* it may be used again, for all that is known */
	all_report();
	pass(1);
	all_report();
	all_report();
	is_lease("a", NULL);
	is_lease("kept", "ready");
	end();
}

static void a_clock_that_is_set_ends_no_lease(void **state)
{
	begin();
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 1, "{\"idle_s\": 100}"), 0);
	all_report();
	all_report();
	w.now_s += 50 * 365 * 86400;
	for (int i = 0; i < 9; i++) {
		pass(10);
		all_report();
		is_lease("a", "ready");
	}
	/* Nor does one that was wrong when the coordinator was started. */
	w.now_s += 50 * 365 * 86400;
	restart();
	for (int i = 0; i < 9; i++) {
		all_report();
		pass(10);
		is_lease("a", "ready");
	}
	all_report();
	pass(10);
	is_lease("a", "ending");
	end();
}

/* Its donor said that it stays, and the move went on. */
static void what_went_away_after_all_is_found(void **state)
{
	begin();
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 1, "{\"at\": \"n1\"}"), 0);
	all_report();
	all_report();
	assert_int_equal(begin_move("a", "n2"), 0);
	w.donors[1].cannot_move = true;
	all_report();
	all_report();
	/* Another has other contents under this name. */
	w.donors[3].regions[0] = w.donors[1].regions[0];
	w.donors[3].regions[0].epoch += 100;
	w.donors[3].nr = 1;
	w.donors[2].regions[0] = w.donors[1].regions[0];
	w.donors[1].nr = 0;
	all_report();
	is_lease("a", "lost");
	w.donors[2].nr = 1;
	all_report();
	is_lease("a", "ready");
	w.donors[3].nr = 0;
	all_report();
	is_lease("a", "ready");
	assert_int_equal(release(&alice, "a", false), 0);
	all_report();
	all_report();
	is_lease("a", NULL);
	assert_int_equal(nr_at_donors(), 0);
	end();
}

static void other_contents_are_no_arrival(void **state)
{
	begin();
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 1, "{\"at\": \"n1\"}"), 0);
	all_report();
	all_report();
	w.donors[1].lies_still = true;
	assert_int_equal(begin_move("a", "n2"), 0);
	all_report();
	w.donors[2].regions[0] = w.donors[1].regions[0];
	w.donors[2].regions[0].epoch += 100;
	w.donors[2].nr = 1;
	report(2, true);
	/* It is where it was still. */
	json_t *l = lease("a");
	const json_t *region = json_array_get(json_object_get(l, "regions"), 0);
	assert_string_equal(json_string_value(json_object_get(region, "donor")), "n1");
	json_decref(l);
	w.donors[2].regions[0].epoch -= 100;
	w.donors[1].nr = 0;
	all_report();
	is_lease("a", "ready");
	end();
}

static void a_drained_donor_is_empty_in_the_end(void **state)
{
	begin();
	all_report();
	for (int i = 0; i < 6; i++) {
		char name[8];

		snprintf(name, sizeof(name), "l%d", i);
		assert_int_equal(alloc(&alice, name, G, 1 + i % 2, "{\"spread\": \"rack\"}"), 0);
		all_report();
	}
	all_report();
	const unsigned before = nr_at_donors();
	assert_true(w.donors[0].nr > 0);
	assert_int_equal(set_donor("n0", "draining"), 0);
	/* What could not move once may the next time. */
	w.donors[0].cannot_move = true;
	for (int i = 0; i < 10; i++) {
		pass(1);
		all_report();
	}
	assert_true(w.donors[0].nr > 0);
	w.donors[0].cannot_move = false;
	pass(POOL_AGAIN_S);
	all_report();
	for (int i = 0; i < 10; i++) {
		pass(1);
		all_report();
	}
	assert_int_equal(w.donors[0].nr, 0);
	assert_int_equal(nr_at_donors(), before);
	assert_int_equal(status("leases", NULL), 6);
	for (int i = 0; i < 6; i++) {
		char name[8];

		snprintf(name, sizeof(name), "l%d", i);
		is_lease(name, "ready");
	}
	/* One that is told to go there. */
	assert_int_equal(set_donor("n0", "open"), 0);
	assert_int_equal(begin_move("l0", "n0"), 0);
	assert_int_equal(begin_move("l0", "n0"), -EBUSY);
	all_report();
	all_report();
	assert_int_equal(w.donors[0].nr, 1);
	is_lease("l0", "ready");
	end();
}

static void a_quota_is_kept_and_time_is_counted(void **state)
{
	json_t *ret = NULL;

	begin();
	all_report();
	assert_int_equal(pool_set_quota(w.pool, &alice, "user", "alice", G, &ret, NULL), -EACCES);
	assert_int_equal(pool_set_quota(w.pool, &admin, "user", "alice", 3 * G, &ret, NULL), 0);
	json_decref(ret);
	assert_int_equal(alloc(&alice, "a", 2 * G, 2, NULL), -EDQUOT);
	assert_int_equal(alloc(&alice, "a", G, 2, "{\"project\": \"p\"}"), 0);
	assert_int_equal(alloc(&alice, "b", 2 * G, 1, NULL), -EDQUOT);
	assert_int_equal(alloc(&bob, "b", 2 * G, 1, NULL), 0);
	pass(3600);
	assert_int_equal(release(&alice, "a", false), 0);
	all_report();
	all_report();
	pass(3600);
	assert_int_equal(pool_quotas(w.pool, &alice, &ret, NULL), 0);
	const json_t *list = json_object_get(ret, "quotas");
	assert_int_equal(json_array_size(list), 1);
	const json_t *mine = json_array_get(list, 0);
	assert_int_equal(json_integer_value(json_object_get(mine, "held_bytes")), 0);
	assert_true(json_real_value(json_object_get(mine, "spent_gib_h")) == 2.0);
	json_decref(ret);
	assert_int_equal(pool_quotas(w.pool, &admin, &ret, NULL), 0);
	assert_int_equal(json_array_size(json_object_get(ret, "quotas")), 3);
	json_decref(ret);
	end();
}

static void who_has_a_projects_quota_is_not_everybodys_to_say(void **state)
{
	json_t *ret = NULL;

	begin();
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 1, "{\"project\": \"p\"}"), 0);
	assert_int_equal(pool_set_quota(w.pool, &admin, "project", "p", 3 * G, &ret, NULL), 0);
	json_decref(ret);
	assert_int_equal(alloc(&alice, "a", G, 1, "{\"project\": \"p\"}"), 0); /* the same */
	assert_int_equal(alloc(&alice, "b", G, 1, "{\"project\": \"p\"}"), -EACCES);
	assert_int_equal(alloc(&bob, "b", G, 1, "{\"project\": \"p\", \"dry_run\": true}"),
		-EACCES);
	assert_int_equal(alloc(&alice, "b", G, 1, "{\"project\": \"q\"}"), 0);
	assert_int_equal(alloc(&admin, "c", G, 1, "{\"project\": \"p\", \"owner\": \"bob\"}"), 0);
	assert_int_equal(alloc(&admin, "d", 2 * G, 1, "{\"project\": \"p\"}"), -EDQUOT);
	end();
}

static json_int_t held_by_alice(void)
{
	json_t *ret = NULL;

	assert_int_equal(pool_quotas(w.pool, &alice, &ret, NULL), 0);
	const json_t *mine = json_array_get(json_object_get(ret, "quotas"), 0);
	const json_int_t held = json_integer_value(json_object_get(mine, "held_bytes"));
	json_decref(ret);
	return held;
}

/* A lease that ends still has its memory as long as somebody has it attached. */
static void what_is_still_attached_counts(void **state)
{
	json_t *ret = NULL, *wish;

	begin();
	all_report();
	assert_int_equal(pool_set_quota(w.pool, &admin, "user", "alice", 2 * G, &ret, NULL), 0);
	json_decref(ret);
	assert_int_equal(alloc(&alice, "a", G, 2, "{\"job\": \"j\"}"), 0);
	assert_int_equal(held_by_alice(), 2 * G);
	all_report();
	for (unsigned i = 0; i < DONORS; i++)
		if (w.donors[i].nr > 0)
			w.donors[i].regions[0].used = true;
	all_report();
	assert_int_equal(pool_end_job(w.pool, &alice, "j", false, &ret, NULL), 0);
	json_decref(ret);
	all_report();
	all_report();
	assert_int_equal(nr_at_donors(), 2);
	assert_int_equal(held_by_alice(), 2 * G);
	assert_int_equal(alloc(&alice, "b", G, 1, NULL), -EDQUOT);
	for (unsigned i = 0; i < DONORS; i++)
		w.donors[i].regions[0].used = false;
	all_report();
	all_report();
	assert_int_equal(held_by_alice(), 0);
	assert_int_equal(alloc(&alice, "b", G, 1, NULL), 0);
	/* What nobody has any more is free at once, before the donors have heard of it. */
	all_report();
	all_report();
	wish = json_pack("{s:I, s:b}", "size_bytes", 2 * G, "discard", true);
	assert_int_equal(pool_resize(w.pool, &alice, "b", wish, &ret, NULL), 0);
	json_decref(ret);
	json_decref(wish);
	assert_int_equal(held_by_alice(), 2 * G);
	assert_int_equal(nr_at_donors(), 1);
	all_report();
	all_report();
	assert_int_equal(held_by_alice(), 2 * G);
	end();
}

static void limits_of_a_key_hold_for_the_pool(void **state)
{
	const struct pool_caller small = {.name = "alice", .max_bytes = 2 * G},
				 limited = {.name = "alice", .limited = true};
	json_t *wish = json_pack("{s:I, s:b}", "size_bytes", 2 * G, "discard", true), *ret = NULL;

	begin();
	all_report();
	assert_int_equal(alloc(&limited, "a", G, 1, NULL), -EACCES);
	assert_int_equal(alloc(&limited, "a", G, 1, "{\"dry_run\": true, \"explain\": true}"),
		-EACCES);
	assert_int_equal(alloc(&small, "a", 3 * G, 1, NULL), -EDQUOT);
	assert_int_equal(alloc(&small, "a", G, 1, NULL), 0);
	assert_int_equal(alloc(&small, "b", 2 * G, 1, NULL), -EDQUOT);
	assert_int_equal(alloc(&small, "b", G, 1, NULL), 0);
	all_report();
	assert_int_equal(pool_resize(w.pool, &small, "a", wish, &ret, NULL), -EDQUOT);
	assert_int_equal(pool_resize(w.pool, &limited, "a", wish, &ret, NULL), -EACCES);
	/* Her other key has no limit. */
	assert_int_equal(alloc(&alice, "c", 2 * G, 1, NULL), 0);
	assert_int_equal(release(&limited, "c", false), 0);
	json_decref(wish);
	end();
}

static void a_lease_gets_another_size(void **state)
{
	json_t *wish = json_pack("{s:I}", "size_bytes", 4 * G), *ret = NULL;

	begin();
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 2, NULL), 0);
	all_report();
	all_report();
	assert_int_equal(pool_resize(w.pool, &alice, "a", wish, &ret, NULL), -EBUSY);
	json_object_set_new(wish, "discard", json_true());
	assert_int_equal(pool_resize(w.pool, &bob, "a", wish, &ret, NULL), -ENOENT);
	assert_int_equal(pool_resize(w.pool, &alice, "a", wish, &ret, NULL), 0);
	json_decref(ret);
	is_lease("a", "making");
	all_report();
	all_report();
	is_lease("a", "ready");
	all_report();
	assert_int_equal(status("used_bytes", NULL), 8 * G);
	assert_int_equal(nr_at_donors(), 2);
	/* Whole pages, as at first: this size is the one that it has. */
	json_object_set_new(wish, "size_bytes", json_integer((json_int_t)(4 * G - 1)));
	assert_int_equal(pool_resize(w.pool, &alice, "a", wish, &ret, NULL), 0);
	json_decref(ret);
	is_lease("a", "ready");
	json_decref(wish);
	end();
}

static void a_region_that_nobody_knows_stays(void **state)
{
	begin();
	w.donors[0].regions[0] =
		(struct region){.name = "pool-0123456789abcdef", .size = G, .epoch = 9};
	w.donors[0].nr = 1;
	all_report();
	all_report();
	assert_int_equal(w.donors[0].nr, 1);
	assert_int_equal(status("regions", "unknown"), 1);
	assert_int_equal(status("used_bytes", NULL), G);
	/* Who runs the pool ends it. */
	assert_int_equal(release(&alice, "pool-0123456789abcdef", false), -ENOENT);
	assert_int_equal(release(&admin, "pool-0123456789abcdef", false), 0);
	all_report();
	all_report();
	assert_int_equal(w.donors[0].nr, 0);
	assert_int_equal(status("regions", "unknown"), 0);
	end();
}

static size_t nr_lines(void)
{
	json_t *ret = NULL;

	assert_int_equal(pool_audit(w.pool, &admin, 0, 1000, &ret, NULL), 0);
	const size_t nr = json_array_size(json_object_get(ret, "audit"));
	json_decref(ret);
	return nr;
}

/* A donor that makes names up fills neither the state nor the log. */
static void regions_that_nobody_knows_are_bounded(void **state)
{
	const struct pool_caller self = {.name = "n0", .donor = true};
	json_int_t names = 0;

	begin();
	all_report();
	const size_t before = nr_lines();
	for (int i = 0; i < 5; i++) {
		json_t *body = report_of(&w.donors[0]), *ret = NULL;

		for (int j = 0; j < 1000; j++)
			json_array_append_new(json_object_get(body, "regions"),
				json_pack("{s:o, s:I, s:s}", "name",
					json_sprintf("pool-%016llx", (long long)++names),
					"size_bytes", G, "epoch", "0000000000000001"));
		assert_int_equal(pool_report(w.pool, &self, "n0", body, &ret, NULL), 0);
		json_decref(body);
		json_decref(ret);
		assert_in_range(status("regions", "unknown"), 1, POOL_REGIONS_MAX);
	}
	assert_in_range(nr_lines() - before, 1, 5);
	/* What its donor has no longer is forgotten. */
	all_report();
	assert_int_equal(status("regions", "unknown"), 0);
	assert_int_equal(status("regions", "lost"), 0);
	end();
}

/* Its words are cut anywhere, and are shown to people. */
static void words_of_a_donor_are_plain(void **state)
{
	char why[400] = "\033[31m";
	json_t *body, *ret = NULL;

	begin();
	all_report();
	assert_int_equal(alloc(&alice, "a", G, 1, "{\"at\": \"n0\"}"), 0);
	while (strlen(why) < 390)
		strcat(why, "\xc3\xa4");
	json_t *made = lease("a");
	body = report_of(&w.donors[0]);
	json_array_append_new(json_object_get(body, "refused"),
		json_pack("{s:O, s:s}", "name",
			json_object_get(json_array_get(json_object_get(made, "regions"), 0),
				"region"),
			"why", why));
	json_decref(made);
	for (unsigned i = 1; i < DONORS; i++)
		set_donor(w.donors[i].name, "cordoned");
	assert_int_equal(pool_report(w.pool, &admin, "n0", body, &ret, NULL), 0);
	json_decref(body);
	json_decref(ret);
	is_lease("a", "ending");
	json_t *l = lease("a");
	const char *said = json_string_value(json_object_get(l, "why"));
	assert_non_null(strstr(said, "donor n0 ?[31m??"));
	json_decref(l);
	assert_int_equal(pool_audit(w.pool, &admin, 0, 1000, &ret, NULL), 0);
	size_t i, nr = 0;
	const json_t *line;
	json_array_foreach(json_object_get(ret, "audit"), i, line) {
		assert_true(json_is_object(line));
		nr += strcmp(json_string_value(json_object_get(line, "what")), "refused") == 0;
		for (const char *p = json_string_value(json_object_get(line, "detail")); *p; p++)
			assert_in_range(*p, ' ', '~');
	}
	assert_int_equal(nr, 1);
	json_decref(ret);
	end();
}

/* A donor that is gone for good takes its copies with it. */
static void what_went_with_a_donor_is_lost(void **state)
{
	json_t *ret = NULL;

	begin();
	report(0, true);
	report(1, true);
	assert_int_equal(alloc(&alice, "two", G, 2, NULL), 0);
	assert_int_equal(alloc(&alice, "one", G, 1, "{\"at\": \"n1\"}"), 0);
	assert_int_equal(alloc(&alice, "idle", G, 1, "{\"at\": \"n1\", \"idle_s\": 50}"), 0);
	for (int i = 0; i < 2; i++) {
		report(0, true);
		report(1, true);
	}
	is_lease("two", "ready");
	w.donors[1].nr = 0;
	report(1, false);
	is_lease("two", "degraded");
	for (int i = 0; i < 20; i++) {
		pass(1);
		report(0, true);
	}
	assert_int_equal(pool_forget_donor(w.pool, &admin, "n1", &ret, NULL), 0);
	json_decref(ret);
	is_lease("two", "degraded");
	is_lease("one", "lost");
	assert_int_equal(release(&alice, "one", false), 0);
	is_lease("one", NULL);
	assert_int_equal(alloc(&alice, "one", G, 1, NULL), 0);
	is_lease("idle", "lost");
	pass(60);
	is_lease("idle", NULL);
	end();
}

/* A coordinator that was away gives donors time to say that they are making a region. */
static void who_was_away_ends_nothing_that_is_made(void **state)
{
	begin();
	report(0, true);
	assert_int_equal(alloc(&alice, "a", G, 1, NULL), 0);
	w.now_ns += 2 * POOL_MAKE_S * NS_PER_S;
	w.now_s += 2 * POOL_MAKE_S;
	restart();
	report(0, false);
	pass(1);
	is_lease("a", "making");
	/* So does one whose clock is set. */
	w.now_s += 1000;
	pass(1);
	is_lease("a", "making");
	pass(POOL_MAKE_S + 1);
	is_lease("a", "ending");
	end();
}

/* What cannot be read is no answer. */
static void a_state_that_cannot_be_read_is_told(void **state)
{
	json_t *ret = NULL;

	begin();
	all_report();
	assert_int_equal(pool_set_quota(w.pool, &admin, "user", "alice", G, &ret, NULL), 0);
	json_decref(ret);
	assert_int_equal(alloc(&alice, "a", G, 1, NULL), 0);
	all_report();
	all_report();
	w.donors[0].regions[0].used = w.donors[1].regions[0].used = true;
	sqlite3_hard_heap_limit64(1);
	const int one = pool_lease(w.pool, &alice, "a", &ret, NULL);
	const int all = pool_leases(w.pool, &alice, NULL, "", 1000, &ret, NULL);
	const int quotas = pool_quotas(w.pool, &alice, &ret, NULL);
	const int audit = pool_audit(w.pool, &admin, 0, 1000, &ret, NULL);
	const int more = alloc(&alice, "b", G, 1, "{\"dry_run\": true}");
	sqlite3_hard_heap_limit64(0);
	assert_int_equal(one, -EIO);
	assert_int_equal(all, -EIO);
	assert_int_equal(quotas, -EIO);
	assert_int_equal(audit, -EIO);
	assert_int_equal(more, -EIO);
	/* Nothing of it sticks. */
	is_lease("a", "ready");
	assert_int_equal(alloc(&alice, "b", G, 1, NULL), -EDQUOT);
	end();
}

/*
 * In a user namespace a number is everybody's who has none there: a coordinator that has it itself
 * takes nobody for its own user by it.
 */
static void the_number_of_those_without_is_nobody(void **state)
{
	struct pool_callers *callers = NULL;
	struct pool_coming coming = {.fd = -1};
	struct pool_caller caller;
	int pair[2], status;

	if (geteuid() != 0)
		skip();
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		if (setresuid(65534, 65534, 65534) < 0 ||
			socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
			pool_callers_new(NULL, NULL, &callers, NULL) < 0)
			_exit(2);
		coming.fd = pair[0];
		const int r = pool_callers_find(callers, &coming, &caller, NULL);
		pool_callers_free(callers);
		_exit(r < 0 || caller.admin || caller.donor);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* ---- anything, in any order ---- */

/* Each region at a donor is of one lease, and no donor has more than it lends. */
static void check_owners(void)
{
	json_t *ret = NULL;
	const json_t *l, *r;
	size_t i, j;

	assert_int_equal(pool_leases(w.pool, &admin, NULL, "", 1000, &ret, NULL), 0);
	for (unsigned d = 0; d < DONORS; d++) {
		json_int_t sum = 0;

		for (unsigned k = 0; k < w.donors[d].nr; k++) {
			unsigned owners = 0;

			json_array_foreach(json_object_get(ret, "leases"), i, l)
				json_array_foreach(json_object_get(l, "regions"), j, r)
					owners += strcmp(json_string_value(
								 json_object_get(r, "region")),
							  w.donors[d].regions[k].name) == 0;
			assert_int_equal(owners, 1);
			sum += w.donors[d].regions[k].size;
		}
		assert_true(sum <= w.donors[d].lends);
	}
	json_decref(ret);
	assert_int_equal(status("regions", "unknown"), 0);
}

static void one_event(void)
{
	static const char *const states[] = {"open", "open", "cordoned", "draining"};
	const unsigned d = (unsigned)random() % DONORS;
	char name[8], wish[80];

	snprintf(name, sizeof(name), "l%ld", random() % 12);
	switch (random() % 12) {
	case 0:
	case 1:
		snprintf(wish, sizeof(wish), "{\"spread\": \"%s\", \"idle_s\": %ld}",
			random() % 2 ? "rack" : "donor", random() % 2 * 50);
		alloc(&alice, name, G * (1 + random() % 6), 1 + (int)(random() % 3), wish);
		break;
	case 2:
		release(&alice, name, random() % 2);
		break;
	case 3:
		set_donor(w.donors[d].name, states[random() % 4]);
		break;
	case 4:
		if (w.donors[d].nr > 0)
			w.donors[d].regions[(unsigned)random() % w.donors[d].nr].used ^= true;
		break;
	case 5:
		if (random() % 8 == 0)
			w.donors[d].nr = 0; /* its machine */
		w.donors[d].refuses = random() % 8 == 0;
		w.donors[d].lies_still = random() % 4 == 0;
		break;
	case 6:
		restart();
		break;
	case 7:
		pass(1 + (unsigned)random() % 20);
		break;
	default:
		report(d, random() % 4 > 0);
	}
}

static void nothing_is_without_an_owner_whatever_happens(void **state)
{
	const long seed = getenv("SEED") ? strtol(getenv("SEED"), NULL, 10) : 18;

	print_message("SEED=%ld\n", seed);
	srandom((unsigned)seed);
	begin();
	all_report();
	for (int i = 0; i < 2000; i++) {
		one_event();
		check_owners();
	}
	/* In peace all of it ends. */
	for (unsigned i = 0; i < DONORS; i++) {
		w.donors[i].refuses = w.donors[i].lies_still = false;
		set_donor(w.donors[i].name, "open");
	}
	for (int i = 0; i < 12; i++) {
		char name[8];

		snprintf(name, sizeof(name), "l%d", i);
		release(&alice, name, true);
	}
	for (int i = 0; i < 80; i++) {
		all_report();
		pass(1);
	}
	assert_int_equal(nr_at_donors(), 0);
	assert_int_equal(status("leases", NULL), 0);
	assert_int_equal(status("used_bytes", NULL), 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lease_is_made_and_ends),
		cmocka_unit_test(what_makes_no_sense_is_refused),
		cmocka_unit_test(a_report_is_of_its_donor_and_makes_sense),
		cmocka_unit_test(a_report_that_could_not_be_kept_is_heard_again),
		cmocka_unit_test(what_is_still_attached_counts),
		cmocka_unit_test(limits_of_a_key_hold_for_the_pool),
		cmocka_unit_test(regions_that_nobody_knows_are_bounded),
		cmocka_unit_test(words_of_a_donor_are_plain),
		cmocka_unit_test(what_went_with_a_donor_is_lost),
		cmocka_unit_test(who_was_away_ends_nothing_that_is_made),
		cmocka_unit_test(a_state_that_cannot_be_read_is_told),
		cmocka_unit_test(the_number_of_those_without_is_nobody),
		cmocka_unit_test(an_old_report_is_refused),
		cmocka_unit_test(who_cannot_make_a_region_is_left_out),
		cmocka_unit_test(what_is_lost_is_told),
		cmocka_unit_test(a_silent_donor_is_shown_and_waited_for),
		cmocka_unit_test(what_is_used_stays),
		cmocka_unit_test(a_lease_ends_when_nobody_uses_it),
		cmocka_unit_test(a_clock_that_is_set_ends_no_lease),
		cmocka_unit_test(what_went_away_after_all_is_found),
		cmocka_unit_test(other_contents_are_no_arrival),
		cmocka_unit_test(a_drained_donor_is_empty_in_the_end),
		cmocka_unit_test(a_quota_is_kept_and_time_is_counted),
		cmocka_unit_test(who_has_a_projects_quota_is_not_everybodys_to_say),
		cmocka_unit_test(a_lease_gets_another_size),
		cmocka_unit_test(a_region_that_nobody_knows_stays),
		cmocka_unit_test(nothing_is_without_an_owner_whatever_happens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
