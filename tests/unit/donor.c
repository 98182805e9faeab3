/* The donor's rules: who may use a region, who must stop, and for how long it is remembered. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/donor.h"
#include "fabric/util.h"

enum { LEASE_MS = 300, FENCE_MS = 2000 };

static struct weft_donor *donor;
static struct weft_region *region;
static struct weft_error err;

/* The linker puts these in the place of the real ones (--wrap).  The nth allocation from now on fails; 0: none. */
static unsigned fail_nth;
void *__real_calloc(size_t nr, size_t size);
void *__wrap_calloc(size_t nr, size_t size);
void *__real_reallocarray(void *p, size_t nr, size_t size);
void *__wrap_reallocarray(void *p, size_t nr, size_t size);

void *__wrap_calloc(size_t nr, size_t size)
{
	return fail_nth && --fail_nth == 0 ? NULL : __real_calloc(nr, size);
}

void *__wrap_reallocarray(void *p, size_t nr, size_t size)
{
	return fail_nth && --fail_nth == 0 ? NULL : __real_reallocarray(p, nr, size);
}

/* A session whose thread "copies" until it is fenced, or a passive one. */
struct session {
	struct weft_grant *grant;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool fenced, hold;
	unsigned nr_fenced;
	_Atomic bool released;
};

static void on_fence(void *ctx)
{
	struct session *s = ctx;

	pthread_mutex_lock(&s->lock);
	s->fenced = true;
	s->nr_fenced++;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

static struct weft_hello hello_of(uint8_t who, uint64_t generation, enum weft_mode mode)
{
	struct weft_hello hello = {.id = {who}, .generation = generation, .mode = mode};

	snprintf(hello.name, sizeof(hello.name), "box%u", who);
	return hello;
}

static int grant_hello(struct session *s, const struct weft_hello *hello)
{
	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	err.message[0] = '\0';
	return weft_donor_grant(donor, region, hello, "10.0.0.1:5", "tcp", on_fence, s, &s->grant, &err);
}

static int grant(struct session *s, uint8_t who, uint64_t generation, enum weft_mode mode)
{
	struct weft_hello hello = hello_of(who, generation, mode);

	return grant_hello(s, &hello);
}

/* As one that remembers the region's contents. */
static int claim(struct session *s, uint8_t who, uint64_t generation, enum weft_mode mode)
{
	struct weft_hello hello = hello_of(who, generation, mode);

	hello.epoch = region->epoch;
	return grant_hello(s, &hello);
}

static int grant_stock_at(struct session *s, uint64_t tenure)
{
	struct weft_hello hello;

	/* The other fields of an anonymous hello mean nothing. */
	memset(&hello, 0xff, sizeof(hello));
	hello.anonymous = true;
	hello.tenure = tenure;
	return grant_hello(s, &hello);
}

static int grant_stock(struct session *s)
{
	return grant_stock_at(s, 0);
}

/* Stays inside its copy until fenced, and 50 ms longer. */
static void *copier(void *arg)
{
	struct session *s = arg;

	pthread_mutex_lock(&s->lock);
	while (!s->fenced)
		pthread_cond_wait(&s->cond, &s->lock);
	pthread_mutex_unlock(&s->lock);
	usleep(50000);
	atomic_store(&s->released, true);
	weft_grant_release(s->grant, false);
	return NULL;
}

static void start_copier(struct session *s)
{
	assert_int_equal(pthread_create(&s->thread, NULL, copier, s), 0);
}

static void release(struct session *s, bool clean)
{
	weft_grant_release(s->grant, clean);
}

static void tick_in(uint64_t ms)
{
	weft_donor_tick(donor, weft_now_ns() + ms * 1000000);
}

static struct weft_region *new_region(const char *name, bool read_only)
{
	struct weft_memory_spec spec = {.name = name, .size_bytes = 65536, .read_only = read_only};
	struct weft_region *ret;

	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &ret, &err), 0);
	return ret;
}

static void new_donor(void)
{
	struct weft_donor_config config = {LEASE_MS, FENCE_MS, "tcp"};

	assert_int_equal(weft_donor_new(&config, &donor), 0);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
}

static int setup(void **state)
{
	region = new_region("m", false);
	new_donor();
	return 0;
}

static int teardown(void **state)
{
	weft_donor_free(donor);
	weft_region_put(region);
	return 0;
}

/* Attached and detached again as part `index` of `count`; 0 of 0: by a borrower that does not say. */
static int try_as(uint8_t who, enum weft_mode mode, uint32_t index, uint32_t count, uint64_t unit_bytes)
{
	struct weft_hello hello = hello_of(who, 1, mode);
	struct session s;

	hello.stripe = (struct weft_stripe){index, count, unit_bytes};
	int r = grant_hello(&s, &hello);
	if (r == 0)
		release(&s, true);
	return r;
}

static void expect_message(const char *text)
{
	if (strcmp(err.message, text) != 0)
		fail_msg("%s", err.message);
}

static void a_region_stays_the_part_of_the_device_that_it_was(void **state)
{
	/* Nobody wrote yet: whatever comes first; reading it changes nothing, nor does a client that knows nothing of it. */
	assert_int_equal(try_as(1, WEFT_MODE_READ, 2, 3, 4096), 0);
	assert_int_equal(try_as(1, WEFT_MODE_SHARED, 2, 3, 4096), 0);
	struct session stock;
	assert_int_equal(grant_stock(&stock), 0);
	release(&stock, true);
	assert_int_equal(region->stripe.count, 0);
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 1, 2, 65536), 0);
	assert_int_equal(try_as(3, WEFT_MODE_WRITE, 1, 2, 65536), 0);
	assert_int_equal(try_as(4, WEFT_MODE_READ, 1, 2, 65536), 0);

	assert_int_equal(try_as(5, WEFT_MODE_WRITE, 2, 2, 65536), -EINVAL);
	expect_message("region 'm' is part 1 of 2 of a striped device (stripes of 64 KiB), not part 2 of 2: give the donors in the order in which they "
		"were first attached; to give its contents up: --new-contents");
	assert_int_equal(try_as(5, WEFT_MODE_READ, 2, 2, 65536), -EINVAL);
	assert_int_equal(try_as(5, WEFT_MODE_SHARED, 2, 2, 65536), -EINVAL);
	assert_int_equal(try_as(5, WEFT_MODE_WRITE, 1, 2, 4096), -EINVAL);
	expect_message("region 'm' is part 1 of 2 of a striped device (stripes of 64 KiB), not part 1 of 2 (stripes of 4 KiB): give --stripe-unit 65536; "
		"to give its contents up: --new-contents");
	assert_int_equal(try_as(5, WEFT_MODE_WRITE, 1, 3, 65536), -EINVAL);
	expect_message("region 'm' is part 1 of 2 of a striped device (stripes of 64 KiB), not part 1 of 3: give all 2 donors, in the order in which they "
		"were first attached; to give its contents up: --new-contents");
	assert_int_equal(try_as(5, WEFT_MODE_WRITE, 1, 1, 0), -EINVAL);
	expect_message("region 'm' is part 1 of 2 of a striped device (stripes of 64 KiB), not a whole device: give all 2 donors, in the order in which "
		"they were first attached; to give its contents up: --new-contents");
	/* Who attaches a region and says nothing has it alone; a goodbye is said by one that wants nothing of it. */
	assert_int_equal(try_as(5, WEFT_MODE_WRITE, 0, 0, 0), -EINVAL);
	assert_int_equal(try_as(5, WEFT_MODE_READ, 0, 0, 0), -EINVAL);
	assert_int_equal(try_as(5, WEFT_MODE_SHARED, 0, 0, 0), 0);
	/* These cannot say it. */
	struct weft_hello old = hello_of(6, 1, WEFT_MODE_WRITE);
	struct session s;
	old.version0 = true;
	assert_int_equal(grant_hello(&s, &old), 0);
	release(&s, true);
	assert_int_equal(grant_stock(&s), 0);
	release(&s, true);
	assert_int_equal(try_as(3, WEFT_MODE_WRITE, 1, 2, 65536), 0);
}

static void what_was_attached_alone_becomes_no_part(void **state)
{
	assert_int_equal(try_as(1, WEFT_MODE_WRITE, 0, 0, 0), 0);
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 1, 2, 65536), -EINVAL);
	expect_message("region 'm' is a whole device, not part 1 of 2 of a striped device (stripes of 64 KiB): attach this region alone; to give its "
		"contents up: --new-contents");
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 1, 1, 0), 0);
}

/* The refused one fences nobody; and who holds the region is told first. */
static void another_part_is_refused_before_anybody_is_fenced(void **state)
{
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_WRITE);
	struct session a, b;

	hello.stripe = (struct weft_stripe){1, 2, 65536};
	assert_int_equal(grant_hello(&a, &hello), 0);
	hello.generation = 2;
	hello.stripe.index = 2;
	assert_int_equal(grant_hello(&b, &hello), -EINVAL);
	assert_false(a.fenced);
	hello.new_contents = true;
	hello.epoch = region->epoch; /* what it remembers it does not give up */
	assert_int_equal(grant_hello(&b, &hello), -EINVAL);
	assert_false(a.fenced);
	release(&a, true);
}

static void new_contents_are_another_part(void **state)
{
	struct weft_hello hello = hello_of(2, 1, WEFT_MODE_READ);
	struct session s;

	assert_int_equal(try_as(1, WEFT_MODE_WRITE, 1, 2, 65536), 0);
	hello.stripe = (struct weft_stripe){2, 2, 65536};
	hello.new_contents = true;
	/* A reader would leave contents behind that are of neither. */
	assert_int_equal(grant_hello(&s, &hello), -EINVAL);
	/* A shared reader does not see the bytes of the other device as those of its own. */
	struct weft_hello shared = hello_of(3, 1, WEFT_MODE_SHARED);
	struct session reader;
	shared.stripe = (struct weft_stripe){1, 2, 65536};
	assert_int_equal(grant_hello(&reader, &shared), 0);
	start_copier(&reader);
	hello.mode = WEFT_MODE_WRITE;
	assert_int_equal(grant_hello(&s, &hello), 0);
	assert_true(reader.released);
	assert_int_equal(pthread_join(reader.thread, NULL), 0);
	/* From here on it remembers, as do the other lanes. */
	struct session lane;
	hello.new_contents = false;
	hello.epoch = region->epoch;
	assert_int_equal(grant_hello(&lane, &hello), 0);
	release(&lane, true);
	release(&s, true);
	assert_int_equal(try_as(1, WEFT_MODE_WRITE, 1, 2, 65536), -EINVAL);
	assert_int_equal(try_as(1, WEFT_MODE_WRITE, 2, 2, 65536), 0);
}

static void one_writer_and_the_refusal_says_who(void **state)
{
	struct session a, b;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	assert_true(a.grant->writable);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	assert_non_null(strstr(err.message, "writer 'box1' from 10.0.0.1:5"));
	assert_non_null(strstr(err.message, "free once 'box1' detaches"));
	release(&a, true);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), 0);
	release(&b, true);
}

static void joining_adds_a_session(void **state)
{
	struct session a, b, c;

	assert_int_equal(grant(&a, 1, 7, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&b, 1, 7, WEFT_MODE_WRITE), 0);
	assert_false(a.fenced);
	assert_int_equal(grant(&c, 1, 7, WEFT_MODE_READ), -EINVAL);
	release(&a, true);
	/* One lane's goodbye is not the attachment's. */
	assert_int_equal(grant(&c, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	release(&b, true);
	assert_int_equal(grant(&c, 2, 1, WEFT_MODE_WRITE), 0);
	release(&c, true);
}

static void readers_and_writers_exclude_each_other(void **state)
{
	struct session a, b, c;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_READ), 0);
	assert_false(a.grant->writable);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_READ), 0);
	assert_int_equal(grant(&c, 3, 1, WEFT_MODE_WRITE), -EBUSY);
	release(&a, true);
	release(&b, true);
	assert_int_equal(grant(&c, 3, 2, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&a, 1, 2, WEFT_MODE_READ), -EBUSY);
	release(&c, true);
}

static void shared_readers_are_always_welcome(void **state)
{
	struct session writer, a, b;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_SHARED), 0);
	assert_int_equal(grant(&writer, 3, 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_SHARED), 0);
	assert_false(a.grant->writable);
	release(&a, true);
	release(&b, true);
	release(&writer, true);
}

static void a_higher_generation_supersedes_and_waits_for_the_copy(void **state)
{
	struct session old[2], new;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(grant(&old[i], 1, 5, WEFT_MODE_WRITE), 0);
		start_copier(&old[i]);
	}
	assert_int_equal(grant(&new, 1, 6, WEFT_MODE_WRITE), 0);
	/* Nobody was inside a copy when the grant came. */
	assert_true(atomic_load(&old[0].released) && atomic_load(&old[1].released));
	for (int i = 0; i < 2; i++) {
		pthread_join(old[i].thread, NULL);
		assert_int_equal(old[i].nr_fenced, 1);
	}
	assert_false(new.fenced);
	/* The old one stays out. */
	assert_int_equal(grant(&old[0], 1, 5, WEFT_MODE_WRITE), -WEFT_EOVER);
	release(&new, false);
}

struct joiner {
	struct session session;
	int result;
	bool others_out;
	struct session *old;
	uint64_t generation;
	enum weft_mode mode;
};

static void *join_thread(void *arg)
{
	struct joiner *j = arg;
	struct weft_hello hello = hello_of(1, j->generation, j->mode);
	struct weft_error own_err;

	pthread_mutex_init(&j->session.lock, NULL);
	pthread_cond_init(&j->session.cond, NULL);
	j->result = weft_donor_grant(donor, region, &hello, "p", "tcp", on_fence, &j->session,
		&j->session.grant, &own_err);
	j->others_out = atomic_load(&j->old->released);
	return NULL;
}

static void all_lanes_of_a_new_generation_wait_for_the_old(void **state)
{
	struct joiner joiners[4];
	pthread_t threads[4];
	struct session old;

	assert_int_equal(grant(&old, 1, 5, WEFT_MODE_WRITE), 0);
	start_copier(&old);
	for (int i = 0; i < 4; i++) {
		joiners[i] = (struct joiner){.old = &old, .generation = 6, .mode = WEFT_MODE_WRITE};
		assert_int_equal(pthread_create(&threads[i], NULL, join_thread, &joiners[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(joiners[i].result, 0);
		assert_true(joiners[i].others_out);
	}
	pthread_join(old.thread, NULL);
	for (int i = 0; i < 4; i++)
		release(&joiners[i].session, true);
}

static void release_on_fence(void *ctx)
{
	struct session *s = ctx;

	s->nr_fenced++;
	weft_grant_release(s->grant, false);
}

static void a_session_may_end_inside_its_fence(void **state)
{
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_WRITE);
	struct session old = {0}, new;

	assert_int_equal(weft_donor_grant(donor, region, &hello, "p", "mem", release_on_fence, &old, &old.grant,
				 &err), 0);
	assert_int_equal(grant(&new, 1, 2, WEFT_MODE_WRITE), 0);
	assert_int_equal(old.nr_fenced, 1);
	release(&new, true);
}

static void a_session_that_does_not_stop_keeps_the_new_one_out(void **state)
{
	struct weft_donor_config config = {LEASE_MS, 50, "tcp"};
	struct session old, new;

	weft_donor_free(donor);
	assert_int_equal(weft_donor_new(&config, &donor), 0);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
	assert_int_equal(grant(&old, 1, 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&new, 1, 2, WEFT_MODE_WRITE), -EBUSY);
	assert_true(old.fenced);
	/* Superseded all the same. */
	assert_int_equal(grant(&new, 1, 1, WEFT_MODE_WRITE), -WEFT_EOVER);
	release(&old, false);
	assert_int_equal(grant(&new, 1, 2, WEFT_MODE_WRITE), 0);
	assert_int_equal(old.nr_fenced, 1);
	release(&new, true);
}

static void the_highest_generation_is_remembered_after_goodbye(void **state)
{
	struct session a;

	assert_int_equal(grant(&a, 1, 9, WEFT_MODE_WRITE), 0);
	release(&a, true);
	assert_int_equal(grant(&a, 1, 8, WEFT_MODE_WRITE), -WEFT_EOVER);
	assert_int_equal(grant(&a, 1, 9, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void a_lost_connection_keeps_the_region_for_a_lease(void **state)
{
	struct session a, b;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	release(&a, false);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	assert_non_null(strstr(err.message, "disconnected"));
	assert_int_equal(grant(&a, 1, 2, WEFT_MODE_WRITE), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), 0);
	release(&b, true);
}

static void an_expired_lease_frees_without_waiting_for_the_tick(void **state)
{
	struct session a, b;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	start_copier(&a);
	usleep((LEASE_MS + 50) * 1000);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), 0);
	assert_true(atomic_load(&a.released));
	pthread_join(a.thread, NULL);
	release(&b, true);
}

static void a_silent_session_is_fenced_and_its_generation_is_stale(void **state)
{
	struct session a;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	tick_in(LEASE_MS / 2);
	assert_false(a.fenced);
	weft_grant_touch(a.grant, weft_now_ns() + LEASE_MS * 1000000);
	tick_in(LEASE_MS + 50);
	assert_false(a.fenced);
	weft_grant_touch(a.grant, weft_now_ns());
	tick_in(LEASE_MS + 50);
	assert_true(a.fenced);
	release(&a, false);
	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), -WEFT_EOVER);
	/* Nobody else came: it may go on under a new generation. */
	assert_int_equal(grant(&a, 1, 2, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void who_waits_for_the_donor_is_not_silent(void **state)
{
	struct session a;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	weft_grant_touch(a.grant, UINT64_MAX);
	tick_in(LEASE_MS + 50);
	assert_false(a.fenced);
	weft_grant_touch(a.grant, weft_now_ns());
	tick_in(LEASE_MS + 50);
	assert_true(a.fenced);
	release(&a, false);
}

static void a_donor_that_slept_blames_nobody(void **state)
{
	struct session a, b;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	tick_in(0);
	tick_in(60000);
	assert_false(a.fenced);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	/* From its awakening on the lease counts anew. */
	tick_in(60000 + LEASE_MS + 50);
	assert_true(a.fenced);
	release(&a, false);
}

static void who_lost_the_lease_to_a_writer_must_attach_anew(void **state)
{
	struct session a, b;
	uint64_t first = UINT64_C(1) << 32;

	assert_int_equal(grant(&a, 1, first, WEFT_MODE_WRITE), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	assert_int_equal(grant(&b, 2, first, WEFT_MODE_WRITE), 0);
	release(&b, true);
	assert_int_equal(claim(&a, 1, first + 1, WEFT_MODE_WRITE), -ESTALE);
	assert_non_null(strstr(err.message, "attach anew"));
	/* A take-over goes on with what the one before it remembered. */
	assert_int_equal(claim(&a, 1, 2 * first, WEFT_MODE_WRITE), -ESTALE);
	assert_int_equal(claim(&a, 1, 2 * first, WEFT_MODE_READ), -ESTALE);
	/* Nor does it vouch for anything that it was let in as a shared reader. */
	assert_int_equal(claim(&a, 1, 2 * first, WEFT_MODE_SHARED), 0);
	release(&a, true);
	assert_int_equal(claim(&a, 1, 3 * first, WEFT_MODE_WRITE), -ESTALE);
	assert_int_equal(grant(&a, 1, 3 * first, WEFT_MODE_WRITE), 0);
	release(&a, true);
	assert_int_equal(claim(&a, 1, 3 * first + 1, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void who_left_before_a_writer_came_does_not_reconnect(void **state)
{
	struct session a, b;
	uint64_t first = UINT64_C(1) << 32;

	assert_int_equal(grant(&a, 1, first, WEFT_MODE_WRITE), 0);
	release(&a, true);
	assert_int_equal(grant(&b, 2, first, WEFT_MODE_WRITE), 0);
	release(&b, true);
	/* What it might write again is older than what b wrote. */
	assert_int_equal(claim(&a, 1, first + 1, WEFT_MODE_WRITE), -ESTALE);
	assert_int_equal(claim(&a, 1, first + 1, WEFT_MODE_SHARED), 0);
	release(&a, true);
	assert_int_equal(grant(&a, 1, 2 * first, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void who_is_not_remembered_does_not_go_on(void **state)
{
	struct session a;
	uint64_t first = UINT64_C(1) << 32;

	assert_int_equal(claim(&a, 1, first, WEFT_MODE_WRITE), -ESTALE);
	assert_non_null(strstr(err.message, "attach anew"));
	assert_int_equal(claim(&a, 1, first + 1, WEFT_MODE_READ), -ESTALE);
	assert_int_equal(claim(&a, 1, first + 1, WEFT_MODE_SHARED), 0);
	release(&a, true);
	assert_int_equal(grant(&a, 2, first + 7, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void who_is_new_and_of_version0_may_name_an_epoch(void **state)
{
	struct session a, b;
	uint64_t first = UINT64_C(1) << 32;
	struct weft_hello hello = hello_of(1, first, WEFT_MODE_WRITE);

	hello.epoch = region->epoch;
	hello.version0 = true;
	uint64_t tenure = region->tenure;
	assert_int_equal(grant_hello(&a, &hello), 0);
	assert_int_not_equal(region->tenure, tenure);
	/* Its next lane joins. */
	tenure = region->tenure;
	assert_int_equal(grant_hello(&b, &hello), 0);
	assert_int_equal(region->tenure, tenure);
	release(&b, true);
	release(&a, true);
	assert_int_equal(grant(&b, 2, first, WEFT_MODE_WRITE), 0);
	release(&b, true);
	assert_int_equal(grant_hello(&a, &hello), -ESTALE);
	hello = hello_of(3, first + 1, WEFT_MODE_WRITE);
	hello.epoch = region->epoch;
	hello.version0 = true;
	assert_int_equal(grant_hello(&a, &hello), -ESTALE);
	hello.generation = 2 * first;
	assert_int_equal(grant_hello(&a, &hello), -ESTALE);
	hello.generation = first;
	hello.epoch++;
	assert_int_equal(grant_hello(&a, &hello), -ESTALE);
}

static void a_reader_that_stood_beside_a_writer_takes_nothing_over(void **state)
{
	struct session reader, writer;

	assert_int_equal(grant(&writer, 2, 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&reader, 1, 1, WEFT_MODE_SHARED), 0);
	release(&writer, true);
	release(&reader, true);
	/* It was granted after the writer: that it held nothing then is no excuse. */
	assert_int_equal(grant(&writer, 2, 2, WEFT_MODE_WRITE), 0);
	release(&writer, true);
	assert_int_equal(claim(&reader, 1, 2, WEFT_MODE_WRITE), -ESTALE);
}

static void refusals_are_told_apart(void **state)
{
	struct session a, b;
	uint64_t first = UINT64_C(1) << 32;

	assert_int_equal(grant(&a, 1, 2 * first + 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(claim(&b, 1, first + 9, WEFT_MODE_WRITE), -WEFT_ESUPERSEDED);
	release(&a, true);
	assert_int_equal(claim(&a, 1, first + 9, WEFT_MODE_WRITE), -WEFT_ESUPERSEDED);
	/* Another lane of the same process was quicker. */
	assert_int_equal(claim(&a, 1, 2 * first, WEFT_MODE_WRITE), -WEFT_EOVER);
	assert_int_equal(claim(&a, 1, 2 * first + 2, WEFT_MODE_WRITE), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	assert_int_equal(claim(&a, 1, 2 * first + 2, WEFT_MODE_WRITE), -WEFT_EOVER);
	assert_int_equal(claim(&a, 1, 2 * first + 3, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void stock_clients_come_back_by_tenure(void **state)
{
	struct session a, weft;
	uint64_t tenure;

	assert_int_equal(grant_stock(&a), 0);
	tenure = region->tenure;
	assert_int_equal(tenure == 0, 0);
	release(&a, false);
	assert_int_equal(grant_stock_at(&a, tenure), 0);
	assert_true(region->tenure == tenure);
	release(&a, false);
	assert_int_equal(grant_stock_at(&a, tenure + 1), -ESTALE);
	/* An attachment says what it remembers otherwise. */
	struct weft_hello named = hello_of(1, 1, WEFT_MODE_WRITE);
	named.tenure = tenure;
	assert_int_equal(grant_hello(&a, &named), -EINVAL);
	/* A reader changes nothing. */
	assert_int_equal(grant(&weft, 1, 1, WEFT_MODE_READ), 0);
	release(&weft, true);
	assert_int_equal(grant_stock_at(&a, tenure), 0);
	release(&a, false);
	/* A writer that remembers nothing may. */
	assert_int_equal(grant(&weft, 1, 2, WEFT_MODE_WRITE), 0);
	release(&weft, true);
	assert_int_equal(grant_stock_at(&a, tenure), -ESTALE);
	assert_non_null(strstr(err.message, "is over"));
	/* So may a stock client that says none. */
	tenure = region->tenure;
	assert_int_equal(grant_stock(&a), 0);
	release(&a, false);
	assert_int_equal(grant_stock_at(&a, tenure), -ESTALE);
	assert_int_equal(grant_stock_at(&a, region->tenure), 0);
	release(&a, false);
}

/* ---- a file: closed and opened again, killed, put back from a copy ---- */

static char file_path[64], copy_path[80];

static int setup_file(void **state)
{
	strcpy(file_path, "/tmp/weft-donor-file.XXXXXX");
	int fd = mkstemp(file_path);

	snprintf(copy_path, sizeof(copy_path), "%s.copy", file_path);
	if (fd < 0 || ftruncate(fd, 65536) < 0 || weft_region_open_file(AT_FDCWD, file_path, "f", false, false, &region, &err) < 0)
		return -1;
	close(fd);
	new_donor();
	return 0;
}

static int teardown_file(void **state)
{
	teardown(state);
	unlink(file_path);
	unlink(copy_path);
	return 0;
}

static void open_again(void)
{
	assert_int_equal(weft_region_open_file(AT_FDCWD, file_path, "f", false, false, &region, &err), 0);
	new_donor();
}

static void stop_donor(void)
{
	weft_donor_free(donor);
	weft_region_put(region);
}

static void kill_donor(void)
{
	close(region->fd); /* nothing is marked */
	region->fd = -1;
	stop_donor();
}

static void copy_file(const char *from, const char *to)
{
	char command[256];

	snprintf(command, sizeof(command), "cp -a --preserve=all %s %s", from, to);
	assert_int_equal(system(command), 0);
}

static int go_on(struct session *s, uint8_t who, uint64_t generation, uint64_t epoch, uint64_t granted, bool wrote)
{
	struct weft_hello hello = hello_of(who, generation, WEFT_MODE_WRITE);

	hello.epoch = epoch;
	hello.granted = granted;
	hello.wrote = wrote;
	return grant_hello(s, &hello);
}

#define G(incarnation, low) (((uint64_t)(incarnation) << 32) + (low))

static void a_file_is_known_to_be_a_part_before_the_grant_is_answered(void **state)
{
	struct weft_hello hello = hello_of(1, G(1, 0), WEFT_MODE_WRITE);
	struct session s;

	hello.stripe = (struct weft_stripe){1, 2, 65536};
	assert_int_equal(grant_hello(&s, &hello), 0);
	release(&s, true);
	kill_donor();
	open_again();
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 2, 2, 65536), -EINVAL);
	/* Also when the mark said already that the file is being written, and after the crash that leaves it so. */
	tick_in(LEASE_MS + 50); /* it holds the region still, as far as the mark knows */
	assert_int_equal(weft_region_write(region, "x", 0, 1), 0);
	hello = hello_of(3, G(1, 0), WEFT_MODE_WRITE);
	hello.stripe = (struct weft_stripe){2, 2, 65536};
	hello.new_contents = true;
	assert_int_equal(grant_hello(&s, &hello), 0);
	release(&s, true);
	kill_donor();
	open_again();
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 1, 2, 65536), -EINVAL);
	assert_non_null(strstr(err.message, "is part 2 of 2"));
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 2, 2, 65536), -EBUSY); /* it only has to wait */
	stop_donor();
	open_again();
	assert_int_equal(try_as(2, WEFT_MODE_WRITE, 1, 2, 65536), -EINVAL);
}

static void who_waits_for_a_restart_goes_on(void **state)
{
	struct session a, b;
	uint64_t epoch = region->epoch;

	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	assert_int_equal(weft_region_write(region, "a", 0, 1), 0);
	release(&a, false);
	stop_donor();
	open_again();
	assert_true(region->epoch == epoch);
	/* It holds the region still, under the lease that it was promised. */
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), -EBUSY);
	assert_int_equal(go_on(&a, 1, G(1, 0), epoch, G(1, 0), true), -WEFT_EOVER);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, G(1, 0), true), 0);
	release(&a, false);
	/* As does one that only read, and whose donor was killed before anything was written. */
	kill_donor();
	open_again();
	assert_true(region->epoch == epoch);
	assert_int_equal(go_on(&a, 1, G(1, 2), epoch, G(1, 1), false), 0);
	release(&a, false);
	/* A lapse changes nothing, as long as nobody else comes. */
	tick_in(LEASE_MS + 50);
	stop_donor();
	open_again();
	assert_int_equal(go_on(&a, 1, G(1, 3), epoch, G(1, 2), false), 0);
	release(&a, true);
}

static void who_lapsed_before_another_wrote_is_stale_after_a_restart(void **state)
{
	struct session a, b;
	uint64_t epoch = region->epoch;

	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), 0);
	assert_int_equal(weft_region_write(region, "b", 0, 1), 0);
	release(&b, true);
	stop_donor();
	open_again();
	assert_true(region->epoch == epoch);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, G(1, 0), true), -ESTALE);
	assert_int_equal(go_on(&a, 1, G(2, 0), epoch, G(1, 0), true), -ESTALE);
	assert_int_equal(go_on(&a, 1, G(3, 0), 0, 0, false), 0);
	release(&a, true);
	/* A stock client writes as well. */
	assert_int_equal(grant_stock(&b), 0);
	release(&b, false);
	stop_donor();
	open_again();
	assert_int_equal(go_on(&a, 1, G(3, 1), epoch, G(3, 0), true), -ESTALE);
}

static void put_back(void)
{
	assert_int_equal(unlink(file_path), 0);
	copy_file(copy_path, file_path);
	open_again();
}

static void contents_that_were_put_back_are_found(void **state)
{
	struct session a;
	uint64_t epoch = region->epoch;

	/* Attached before the copy, goes on after it. */
	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	assert_int_equal(weft_region_write(region, "1", 0, 1), 0);
	release(&a, false);
	stop_donor();
	copy_file(file_path, copy_path);
	/* To have it back before going on is to have the same. */
	put_back();
	assert_true(region->epoch == epoch);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, G(1, 0), true), 0);
	assert_int_equal(weft_region_write(region, "2", 0, 1), 0);
	release(&a, false);
	stop_donor();
	put_back();
	assert_true(region->epoch == epoch);
	assert_int_equal(go_on(&a, 1, G(1, 2), epoch, G(1, 1), true), -ESTALE);
	assert_non_null(strstr(err.message, "put back"));
	/* The copy hides a crash, too. */
	assert_int_equal(go_on(&a, 1, G(2, 0), 0, 0, false), 0);
	assert_int_equal(weft_region_write(region, "3", 0, 1), 0);
	release(&a, false);
	kill_donor();
	put_back();
	assert_int_equal(go_on(&a, 1, G(2, 1), epoch, G(2, 0), true), -ESTALE);
}

static void a_copy_that_was_made_during_a_grant_is_found(void **state)
{
	struct session a;

	stop_donor(); /* a clean mark */
	open_again();
	uint64_t epoch = region->epoch;
	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	copy_file(file_path, copy_path);
	assert_int_equal(weft_region_write(region, "1", 0, 1), 0);
	release(&a, false);
	kill_donor();
	put_back();
	assert_true(region->epoch == epoch);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, G(1, 0), true), -ESTALE);
	/* Had it not written, nothing would have been lost. */
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, G(1, 0), false), 0);
	release(&a, true);
}

static void an_older_borrower_does_not_go_on_after_a_restart(void **state)
{
	struct session a;
	uint64_t epoch = region->epoch;

	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	release(&a, false);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, 0, false), 0);
	release(&a, false);
	stop_donor();
	open_again();
	assert_int_equal(go_on(&a, 1, G(1, 2), epoch, 0, false), -ESTALE);
}

static void after_a_crash_nobody_is_let_in_before_the_leases_are_over(void **state)
{
	struct session a, b;
	uint64_t epoch = region->epoch;

	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	assert_int_equal(weft_region_write(region, "1", 0, 1), 0);
	release(&a, false);
	kill_donor();
	open_again();
	assert_true(region->epoch != epoch);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, G(1, 0), true), -ESTALE);
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), -EBUSY);
	assert_non_null(strstr(err.message, "is free in"));
	assert_int_equal(grant_stock(&b), -EBUSY);
	/* Who held it knows that it is gone once it asks anew. */
	assert_int_equal(grant(&a, 1, G(2, 0), WEFT_MODE_WRITE), 0);
	release(&a, true);
	usleep((LEASE_MS + 50) * 1000);
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), 0);
	release(&b, true);
	/* Without anybody who held it nobody waits. */
	assert_int_equal(grant_stock(&b), 0);
	release(&b, false);
	kill_donor();
	open_again();
	assert_int_equal(grant_stock(&b), 0);
	release(&b, false);
}

/* Memory that is gone, and its donor; a new one of the same name. */
static void lose_memory(const char *promises)
{
	weft_donor_free(donor);
	weft_region_put(region);
	region = new_region("m", false);
	assert_int_equal(weft_region_keep_promises(region, promises, true), 0);
	new_donor();
}

static void leases_outlive_the_memory(void **state)
{
	char promises[] = "/tmp/weft-promises.XXXXXX";
	struct session a, b, lane;
	uint64_t epoch;

	int fd = mkstemp(promises);
	assert_true(fd >= 0 && close(fd) == 0 && unlink(promises) == 0);
	lose_memory(promises);
	/* Nobody holds it: nobody waits. */
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), 0);
	assert_int_equal(access(promises, F_OK), 0);
	release(&b, true);
	assert_int_equal(access(promises, F_OK), -1);
	assert_int_equal(grant_stock(&b), 0);
	release(&b, false);
	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	epoch = region->epoch;
	release(&a, false);
	lose_memory(promises);
	assert_int_equal(go_on(&a, 1, G(1, 1), epoch, 0, false), -ESTALE);
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), -EBUSY);
	assert_non_null(strstr(err.message, "is free in"));
	assert_int_equal(grant_stock(&b), -EBUSY);
	assert_int_equal(grant(&a, 1, G(2, 0), WEFT_MODE_WRITE), 0);
	assert_int_equal(claim(&lane, 1, G(2, 0), WEFT_MODE_WRITE), 0);
	release(&lane, true);
	release(&a, false);
	usleep((LEASE_MS + 50) * 1000);
	tick_in(0);
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), 0);
	release(&b, true);
	assert_int_equal(access(promises, F_OK), -1);
	/* What a stranger put there is no promise, and is said. */
	FILE *f = fopen(promises, "w");
	assert_non_null(f);
	fputs("v2 state=open\n", f);
	fclose(f);
	struct weft_region *other = new_region("m", false);
	assert_int_equal(weft_region_keep_promises(other, promises, true), -EBADMSG);
	weft_region_put(other);
	unlink(promises);
}

static unsigned nr_held(void)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		nr += region->generations[i].generation != 0 && region->generations[i].held;
	return nr;
}

static void a_grant_that_cannot_be_noted_makes_nobody_stale(void **state)
{
	char place[] = "/tmp/weft-promises.XXXXXX", promises[64];
	struct session a, b;

	assert_non_null(mkdtemp(place));
	snprintf(promises, sizeof(promises), "%s/leases", place);
	lose_memory(promises);
	assert_int_equal(grant(&a, 1, G(1, 0), WEFT_MODE_WRITE), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	assert_int_equal(nr_held(), 0);
	/* The disk is full, or gone. */
	assert_int_equal(access(promises, F_OK), -1);
	assert_int_equal(rmdir(place), 0);
	assert_int_equal(grant(&b, 2, G(1, 0), WEFT_MODE_WRITE), -EIO);
	assert_int_equal(grant_stock(&b), -EBUSY);
	assert_int_equal(mkdir(place, 0700), 0);
	tick_in(2 * LEASE_MS + 100);
	/* Nobody wrote. */
	assert_int_equal(claim(&a, 1, G(1, 1), WEFT_MODE_WRITE), 0);
	release(&a, true);
	/* One that is noted at another try counts. */
	assert_int_equal(grant(&b, 2, G(1, 1), WEFT_MODE_WRITE), 0);
	release(&b, true);
	assert_int_equal(claim(&a, 1, G(1, 2), WEFT_MODE_WRITE), -ESTALE);
	rmdir(place);
}

static void shared_readers_take_nobodys_place(void **state)
{
	struct session readers[WEFT_NR_GENERATIONS + 6], writer, second;

	/* One that left is remembered, however many come and go. */
	assert_int_equal(grant(&writer, 200, 1, WEFT_MODE_WRITE), 0);
	release(&writer, true);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(readers); i++)
		assert_int_equal(grant(&readers[i], (uint8_t)(2 + i), 1, WEFT_MODE_SHARED), 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(readers); i++)
		release(&readers[i], true);
	assert_int_equal(claim(&writer, 200, 2, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&readers[0], 2, 2, WEFT_MODE_SHARED), 0);
	assert_int_equal(claim(&second, 200, 2, WEFT_MODE_WRITE), 0);
	release(&readers[0], true);
	release(&second, true);
	release(&writer, true);
}

static void who_joins_as_a_shared_reader_vouches_for_nothing(void **state)
{
	struct session a, b;

	/* As weft detach does for a bridge that was killed; then it is killed itself, and the bridge is taken over after all. */
	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), 0);
	release(&a, true);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_WRITE), 0);
	release(&b, true);
	assert_int_equal(grant(&a, 1, 2, WEFT_MODE_SHARED), 0);
	release(&a, true);
	assert_int_equal(claim(&a, 1, 2, WEFT_MODE_WRITE), -ESTALE);
	assert_int_equal(claim(&a, 1, 3, WEFT_MODE_WRITE), -ESTALE);
	/* Nor when it does not leave, but lapses. */
	assert_int_equal(grant(&a, 1, 4, WEFT_MODE_SHARED), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	assert_int_equal(claim(&a, 1, 5, WEFT_MODE_WRITE), -ESTALE);
	assert_int_equal(grant(&a, 1, 5, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void a_writer_that_is_left_as_a_shared_reader_stops_first(void **state)
{
	struct weft_donor_config config = {LEASE_MS, 50, "tcp"};
	struct session old, left, other;

	weft_donor_free(donor);
	assert_int_equal(weft_donor_new(&config, &donor), 0);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
	assert_int_equal(grant(&old, 1, 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&left, 1, 2, WEFT_MODE_SHARED), -EBUSY);
	assert_true(old.fenced);
	/* A write of the old session may land until it has stopped. */
	assert_int_equal(grant(&other, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	release(&old, false);
	assert_int_equal(grant(&other, 2, 2, WEFT_MODE_WRITE), 0);
	release(&other, true);
}

static void see_generation(void *ctx, const struct weft_attachment_status *status)
{
	*(uint64_t *)ctx = status->generation;
}

static void wait_for_generation(uint64_t generation)
{
	uint64_t seen = 0;

	for (unsigned i = 0; i < 1000 && seen != generation; i++) {
		weft_donor_status(donor, see_generation, &seen);
		usleep(1000);
	}
	assert_int_equal(seen, generation);
}

static void a_shared_reader_that_waits_is_superseded(void **state)
{
	struct session old;
	struct joiner first = {.old = &old, .generation = 6, .mode = WEFT_MODE_SHARED};
	struct joiner second = {.old = &old, .generation = 7, .mode = WEFT_MODE_SHARED};
	pthread_t threads[2];

	assert_int_equal(grant(&old, 1, 5, WEFT_MODE_SHARED), 0);
	assert_int_equal(pthread_create(&threads[0], NULL, join_thread, &first), 0);
	wait_for_generation(6);
	assert_int_equal(pthread_create(&threads[1], NULL, join_thread, &second), 0);
	wait_for_generation(7);
	release(&old, false);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(first.result, -WEFT_EOVER);
	assert_int_equal(second.result, 0);
	release(&second.session, true);
}

static void waiting_for_the_old_to_stop_is_not_silence(void **state)
{
	struct weft_donor_config config = {LEASE_MS, LEASE_MS / 2, "tcp"};
	struct session old, new;

	weft_donor_free(donor);
	assert_int_equal(weft_donor_new(&config, &donor), 0);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
	assert_int_equal(grant(&old, 1, 1, WEFT_MODE_WRITE), 0);
	/* Inside a FLUSH of a slow disk for longer than the lease, while its bridge keeps asking. */
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(grant(&new, 1, 2, WEFT_MODE_WRITE), -EBUSY);
		tick_in(LEASE_MS / 2);
	}
	release(&old, false);
	assert_int_equal(grant(&new, 1, 2, WEFT_MODE_WRITE), 0);
	release(&new, true);
}

static void who_was_forgotten_before_a_crash_does_not_reconnect(void **state)
{
	struct session a, b;
	uint64_t first = UINT64_C(1) << 32;

	assert_int_equal(grant(&a, 1, first, WEFT_MODE_WRITE), 0);
	release(&a, false);
	tick_in(LEASE_MS + 50);
	/* So many that the table has no entry left for the first. */
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS + 1; i++) {
		assert_int_equal(grant(&b, (uint8_t)(2 + i), first, WEFT_MODE_WRITE), 0);
		release(&b, true);
	}
	assert_int_equal(claim(&a, 1, first + 1, WEFT_MODE_WRITE), -ESTALE);
	assert_int_equal(grant(&a, 1, 2 * first, WEFT_MODE_WRITE), 0);
	release(&a, true);
}

static void stock_clients_are_one_attachment(void **state)
{
	struct session a, b, weft;

	assert_int_equal(grant_stock(&a), 0);
	assert_int_equal(grant_stock(&b), 0);
	assert_true(a.grant->writable);
	assert_false(a.fenced);
	tick_in(100 * LEASE_MS); /* no lease */
	assert_false(a.fenced || b.fenced);
	assert_int_equal(grant(&weft, 1, 1, WEFT_MODE_WRITE), -EBUSY);
	assert_non_null(strstr(err.message, "2 stock NBD clients"));
	assert_int_equal(grant(&weft, 1, 1, WEFT_MODE_READ), -EBUSY);
	assert_int_equal(grant(&weft, 1, 1, WEFT_MODE_SHARED), 0);
	release(&weft, true);
	release(&a, false);
	release(&b, false);
	assert_int_equal(grant(&weft, 1, 2, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant_stock(&a), -EBUSY);
	release(&weft, true);
}

static void nobody_writes_a_read_only_region(void **state)
{
	struct weft_region *plain = region;
	struct session a, b;

	region = new_region("ro", true);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_WRITE), -EROFS);
	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_READ), 0);
	assert_int_equal(grant_stock(&b), 0);
	assert_false(b.grant->writable);
	release(&a, true);
	release(&b, true);
	weft_region_put(region);
	region = plain;
}

static void another_epoch_is_stale(void **state)
{
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_WRITE);
	struct weft_welcome welcome;
	struct session a;

	weft_donor_welcome(donor, region, &welcome);
	assert_true(welcome.epoch == region->epoch);
	assert_int_equal(welcome.lease_ms, LEASE_MS);
	assert_string_equal(welcome.offers, "tcp");
	hello.epoch = region->epoch + 1;
	assert_int_equal(grant_hello(&a, &hello), -ESTALE);
	hello.epoch = 0;
	hello.expect = region->epoch + 1;
	assert_int_equal(grant_hello(&a, &hello), -ESTALE);
	hello.expect = region->epoch;
	assert_int_equal(grant_hello(&a, &hello), 0);
	release(&a, true);
}

static void a_new_daemon_remembers_holders_and_generations(void **state)
{
	struct session a, b;
	struct weft_region *again;

	assert_int_equal(grant(&a, 1, 5, WEFT_MODE_WRITE), 0);
	release(&a, false);
	assert_int_equal(grant(&b, 2, 3, WEFT_MODE_SHARED), 0);
	release(&b, true);
	/* As after kill -9: header and memory are all that is left. */
	assert_int_equal(weft_region_adopt(dup(region->fd), dup(region->header_fd), false, &again, &err), 0);
	struct weft_region *old_region = region;
	struct weft_donor *old_donor = donor;
	region = again;
	new_donor();

	assert_int_equal(grant(&b, 3, 1, WEFT_MODE_WRITE), -EBUSY);
	assert_non_null(strstr(err.message, "box1"));
	/* A shared reader is held to nothing. */
	assert_int_equal(grant(&b, 2, 2, WEFT_MODE_SHARED), 0);
	release(&b, true);
	assert_int_equal(grant(&a, 1, 4, WEFT_MODE_WRITE), -WEFT_EOVER);
	assert_int_equal(grant(&a, 1, 6, WEFT_MODE_WRITE), 0);
	release(&a, true);
	assert_int_equal(grant(&b, 3, 1, WEFT_MODE_WRITE), 0);
	release(&b, true);
	weft_donor_free(donor);
	weft_region_put(again);
	donor = old_donor;
	region = old_region;
}

static void count_attachments(void *ctx, const struct weft_attachment_status *status)
{
	++*(unsigned *)ctx;
}

static void a_region_that_there_is_no_memory_for_leaves_nothing_behind(void **state)
{
	struct weft_donor_config config = {LEASE_MS, FENCE_MS, "tcp"};
	struct weft_region *mine = region, *again;
	struct weft_donor *old_donor = donor;
	struct session a, b;
	unsigned nth = 0;
	int r;

	assert_int_equal(grant(&a, 1, 5, WEFT_MODE_READ), 0);
	release(&a, false);
	assert_int_equal(grant(&b, 2, 3, WEFT_MODE_READ), 0);
	release(&b, false);
	assert_int_equal(weft_region_adopt(dup(region->fd), dup(region->header_fd), false, &again, &err), 0);
	assert_int_equal(weft_donor_new(&config, &donor), 0);
	do {
		unsigned nr = 0;

		fail_nth = ++nth;
		r = weft_donor_add(donor, again, &err);
		weft_donor_status(donor, count_attachments, &nr);
		assert_int_equal(nr, r < 0 ? 0 : 2);
		assert_int_equal(atomic_load(&again->refs), r < 0 ? 1 : 4);
	} while (r == -ENOMEM && nth < 10);
	fail_nth = 0;
	assert_int_equal(r, 0);
	assert_int_equal(nth, 4);
	/* Those who hold it still do. */
	region = again;
	assert_int_equal(grant(&b, 3, 1, WEFT_MODE_WRITE), -EBUSY);
	weft_donor_free(donor);
	weft_region_put(again);
	donor = old_donor;
	region = mine;
}

static void a_stopping_donor_grants_nothing_and_fences_all(void **state)
{
	struct session a, b, c;

	assert_int_equal(grant(&a, 1, 1, WEFT_MODE_SHARED), 0);
	assert_int_equal(grant(&b, 2, 1, WEFT_MODE_SHARED), 0);
	start_copier(&a);
	weft_donor_stop(donor);
	assert_int_equal(grant(&c, 3, 1, WEFT_MODE_SHARED), -ESHUTDOWN);
	assert_int_equal(weft_donor_fence_all(donor, 100), -ETIMEDOUT);
	assert_true(b.fenced);
	release(&b, false);
	assert_int_equal(weft_donor_fence_all(donor, 5000), 0);
	pthread_join(a.thread, NULL);
}

static void no_more_than_the_table_holds(void **state)
{
	struct session sessions[WEFT_NR_GENERATIONS], one_more;

	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		assert_int_equal(grant(&sessions[i], (uint8_t)(i + 1), 1, WEFT_MODE_READ), 0);
	assert_int_equal(grant(&one_more, 200, 1, WEFT_MODE_READ), -EBUSY);
	release(&sessions[7], true);
	assert_int_equal(grant(&sessions[7], 200, 1, WEFT_MODE_READ), 0);
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		release(&sessions[i], true);
}

static void copy_status(void *ctx, const struct weft_attachment_status *status)
{
	unsigned *n = ctx;

	assert_string_equal(status->region, "m");
	assert_string_equal(status->name, "box1");
	assert_int_equal(status->nr_sessions, 2);
	assert_int_equal(status->generation, 4);
	assert_true(status->lease_left_ms <= LEASE_MS);
	(*n)++;
}

static void status_tells_of_attachments(void **state)
{
	struct session a, b;
	unsigned n = 0;

	assert_int_equal(grant(&a, 1, 4, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&b, 1, 4, WEFT_MODE_WRITE), 0);
	weft_donor_status(donor, copy_status, &n);
	assert_int_equal(n, 1);
	release(&a, true);
	release(&b, true);
	weft_donor_status(donor, copy_status, &n);
	assert_int_equal(n, 1);
}

static void the_empty_name_means_the_only_region(void **state)
{
	struct weft_region *found, *other = new_region("n", false);

	assert_int_equal(weft_donor_find(donor, "", &found, NULL, &err), 0);
	assert_ptr_equal(found, region);
	weft_region_put(found);
	assert_int_equal(weft_donor_add(donor, region, &err), -EEXIST);
	assert_int_equal(weft_donor_add(donor, other, &err), 0);
	assert_int_equal(weft_donor_find(donor, "", &found, NULL, &err), -ENOENT);
	assert_int_equal(weft_donor_find(donor, "n", &found, NULL, &err), 0);
	assert_ptr_equal(found, other);
	weft_region_put(found);
	assert_int_equal(weft_donor_find(donor, "none", &found, NULL, &err), -ENOENT);
	weft_region_put(other);
}

static int collect(void *ctx, const char *name, const char *description, uint64_t size_bytes)
{
	char *text = ctx;
	size_t n = strlen(text);

	snprintf(text + n, 512 - n, "%s=%u ", name, (unsigned)size_bytes);
	return 0;
}

static void a_directory_is_served_and_not_left(void **state)
{
	static const char *const outside[] = {"../secret", "/etc/passwd", "link", "sub/../../secret", "sub",
		"sub/../a", "./a", "sub//b", "a/", "fifo", "linkdir/b", "empty", "", "x", "..", "."};
	char root[] = "/tmp/weft-donor.XXXXXX", command[1024], text[512] = "";
	struct weft_region *found;

	if (syscall(SYS_openat2, -1, NULL, NULL, 0) < 0 && errno == ENOSYS) {
		print_message("SKIP: openat2(2) is not there, as under valgrind\n");
		skip();
	}
	assert_non_null(mkdtemp(root));
	snprintf(command, sizeof(command),
		"cd %s && echo secret >secret && mkdir -p dir/sub && cd dir && head -c 100 /dev/zero >a && "
		"head -c 200 /dev/zero >sub/b && head -c 300 /dev/zero >m && ln -s ../secret link && "
		"ln -s sub linkdir && mkfifo fifo && touch empty", root);
	assert_int_equal(system(command), 0);
	snprintf(command, sizeof(command), "%s/none", root);
	assert_int_equal(weft_donor_add_directory(donor, command, false, &err), -ENOENT);
	snprintf(command, sizeof(command), "%s/dir", root);
	assert_int_equal(weft_donor_add_directory(donor, command, false, &err), 0);

	assert_int_equal(weft_donor_list(donor, collect, text), 0);
	assert_string_equal(text, "a=100 m=65536 sub/b=200 ");
	for (size_t i = 0; i < WEFT_ARRAY_LEN(outside); i++) {
		int r = weft_donor_find(donor, outside[i], &found, NULL, &err);

		if (r != -ENOENT && !(r == -ENODATA && strcmp(outside[i], "empty") == 0))
			fail_msg("'%s': %d %s", outside[i], r, err.message);
	}
	assert_int_equal(weft_donor_find(donor, "sub/b", &found, NULL, &err), 0);
	assert_int_equal(found->size_bytes, 200);
	assert_int_equal(found->backing, WEFT_BACKING_FILE);
	struct weft_region *again;
	assert_int_equal(weft_donor_find(donor, "sub/b", &again, NULL, &err), 0);
	assert_ptr_equal(found, again);
	weft_region_put(found);
	weft_region_put(again);
	snprintf(command, sizeof(command), "rm -rf %s", root);
	assert_int_equal(system(command), 0);
}

static void a_file_that_was_replaced_is_opened_anew(void **state)
{
	char root[] = "/tmp/weft-donor.XXXXXX", command[512];
	struct weft_region *before, *found;

	if (syscall(SYS_openat2, -1, NULL, NULL, 0) < 0 && errno == ENOSYS) {
		print_message("SKIP: openat2(2) is not there, as under valgrind\n");
		skip();
	}
	assert_non_null(mkdtemp(root));
	snprintf(command, sizeof(command), "cd %s && head -c 100 /dev/zero >a", root);
	assert_int_equal(system(command), 0);
	assert_int_equal(weft_donor_add_directory(donor, root, false, &err), 0);
	assert_int_equal(weft_donor_find(donor, "a", &before, NULL, &err), 0);
	snprintf(command, sizeof(command), "cd %s && head -c 200 /dev/zero >b && mv b a", root);
	assert_int_equal(system(command), 0);
	/* Who has it keeps it, and whoever joins gets the same. */
	assert_int_equal(weft_donor_find(donor, "a", &found, NULL, &err), 0);
	assert_ptr_equal(found, before);
	weft_region_put(found);
	weft_region_put(before);
	assert_int_equal(weft_donor_find(donor, "a", &found, NULL, &err), 0);
	assert_int_equal(found->size_bytes, 200);
	uint64_t epoch = found->epoch;
	weft_region_put(found);
	assert_int_equal(weft_donor_find(donor, "a", &found, NULL, &err), 0);
	assert_true(found->epoch == epoch);
	weft_region_put(found);
	snprintf(command, sizeof(command), "rm -r %s", root);
	assert_int_equal(system(command), 0);
	assert_int_equal(weft_donor_find(donor, "a", &found, NULL, &err), -ENOENT);
}

int main(void)
{
#define FILE_TEST(name) cmocka_unit_test_setup_teardown(name, setup_file, teardown_file)
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_region_stays_the_part_of_the_device_that_it_was),
		TEST(what_was_attached_alone_becomes_no_part),
		TEST(another_part_is_refused_before_anybody_is_fenced),
		TEST(new_contents_are_another_part),
		FILE_TEST(a_file_is_known_to_be_a_part_before_the_grant_is_answered),
		TEST(one_writer_and_the_refusal_says_who),
		TEST(joining_adds_a_session),
		TEST(readers_and_writers_exclude_each_other),
		TEST(shared_readers_are_always_welcome),
		TEST(a_higher_generation_supersedes_and_waits_for_the_copy),
		TEST(all_lanes_of_a_new_generation_wait_for_the_old),
		TEST(a_session_may_end_inside_its_fence),
		TEST(a_session_that_does_not_stop_keeps_the_new_one_out),
		TEST(the_highest_generation_is_remembered_after_goodbye),
		TEST(a_lost_connection_keeps_the_region_for_a_lease),
		TEST(an_expired_lease_frees_without_waiting_for_the_tick),
		TEST(a_silent_session_is_fenced_and_its_generation_is_stale),
		TEST(who_waits_for_the_donor_is_not_silent),
		TEST(a_donor_that_slept_blames_nobody),
		TEST(who_lost_the_lease_to_a_writer_must_attach_anew),
		TEST(who_was_forgotten_before_a_crash_does_not_reconnect),
		TEST(who_left_before_a_writer_came_does_not_reconnect),
		TEST(who_is_not_remembered_does_not_go_on),
		TEST(who_is_new_and_of_version0_may_name_an_epoch),
		TEST(a_reader_that_stood_beside_a_writer_takes_nothing_over),
		TEST(refusals_are_told_apart),
		TEST(stock_clients_come_back_by_tenure),
		TEST(leases_outlive_the_memory),
		TEST(a_grant_that_cannot_be_noted_makes_nobody_stale),
		TEST(shared_readers_take_nobodys_place),
		TEST(who_joins_as_a_shared_reader_vouches_for_nothing),
		TEST(a_writer_that_is_left_as_a_shared_reader_stops_first),
		TEST(a_shared_reader_that_waits_is_superseded),
		FILE_TEST(who_waits_for_a_restart_goes_on),
		FILE_TEST(who_lapsed_before_another_wrote_is_stale_after_a_restart),
		FILE_TEST(contents_that_were_put_back_are_found),
		FILE_TEST(a_copy_that_was_made_during_a_grant_is_found),
		FILE_TEST(an_older_borrower_does_not_go_on_after_a_restart),
		FILE_TEST(after_a_crash_nobody_is_let_in_before_the_leases_are_over),
		TEST(waiting_for_the_old_to_stop_is_not_silence),
		TEST(stock_clients_are_one_attachment),
		TEST(nobody_writes_a_read_only_region),
		TEST(another_epoch_is_stale),
		TEST(a_new_daemon_remembers_holders_and_generations),
		TEST(a_region_that_there_is_no_memory_for_leaves_nothing_behind),
		TEST(a_stopping_donor_grants_nothing_and_fences_all),
		TEST(no_more_than_the_table_holds),
		TEST(status_tells_of_attachments),
		TEST(the_empty_name_means_the_only_region),
		TEST(a_directory_is_served_and_not_left),
		TEST(a_file_that_was_replaced_is_opened_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
