/* SPDX-License-Identifier: MIT */
/* See donor-sessions.h. */
#include "tests/support/donor-sessions.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"

struct weft_donor *donor;
struct weft_region *region;
char file_path[64], copy_path[80];
struct weft_error err;

void on_fence(void *ctx)
{
	struct session *s = ctx;

	pthread_mutex_lock(&s->lock);
	s->fenced = true;
	s->nr_fenced++;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

struct weft_hello hello_of(uint8_t who, uint64_t generation, enum weft_mode mode)
{
	struct weft_hello hello = {.id = {who}, .generation = generation, .mode = mode};

	snprintf(hello.name, sizeof(hello.name), "box%u", who);
	return hello;
}

int grant_to(struct session *s, const struct weft_peer *peer, const struct weft_hello *hello)
{
	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	err.message[0] = '\0';
	return weft_donor_grant(donor, region, hello, peer, on_fence, s, &s->grant, &err);
}

int grant_hello(struct session *s, const struct weft_hello *hello)
{
	const struct weft_peer peer = {.text = "10.0.0.1:5", .transport = "tcp", .local = true};

	return grant_to(s, &peer, hello);
}

int grant(struct session *s, uint8_t who, uint64_t generation, enum weft_mode mode)
{
	struct weft_hello hello = hello_of(who, generation, mode);

	return grant_hello(s, &hello);
}

int claim(struct session *s, uint8_t who, uint64_t generation, enum weft_mode mode)
{
	struct weft_hello hello = hello_of(who, generation, mode);

	hello.epoch = region->epoch;
	return grant_hello(s, &hello);
}

int grant_stock_at(struct session *s, uint64_t tenure)
{
	struct weft_hello hello;

	/* The other fields of an anonymous hello mean nothing. */
	memset(&hello, 0xff, sizeof(hello));
	hello.anonymous = true;
	hello.has_alias = false;
	hello.tenure = tenure;
	return grant_hello(s, &hello);
}

int grant_stock(struct session *s)
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

void start_copier(struct session *s)
{
	assert_int_equal(pthread_create(&s->thread, NULL, copier, s), 0);
}

void release(struct session *s, bool clean)
{
	weft_grant_release(s->grant, clean);
}

void tick_in(uint64_t ms)
{
	weft_donor_tick(donor, weft_now_ns() + ms * 1000000);
}

struct weft_region *new_region(const char *name, bool read_only)
{
	struct weft_memory_spec spec = {.name = name, .size_bytes = 65536, .read_only = read_only};
	struct weft_region *ret;

	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &ret, &err), 0);
	return ret;
}

void new_donor(void)
{
	struct weft_donor_config config = {
		.lease_ms = LEASE_MS, .fence_timeout_ms = FENCE_MS, .offers = "tcp"};

	assert_int_equal(weft_donor_new(&config, &donor), 0);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
}

int setup(void **state)
{
	region = new_region("m", false);
	new_donor();
	return 0;
}

int teardown(void **state)
{
	weft_donor_free(donor);
	weft_region_put(region);
	return 0;
}

int setup_file(void **state)
{
	strcpy(file_path, "/tmp/weft-donor-file.XXXXXX");
	int fd = mkstemp(file_path);

	snprintf(copy_path, sizeof(copy_path), "%s.copy", file_path);
	if (fd < 0 || ftruncate(fd, 65536) < 0 ||
		weft_region_open_file(AT_FDCWD, file_path, "f", false, false, &region, &err) < 0)
		return -1;
	close(fd);
	new_donor();
	return 0;
}

int teardown_file(void **state)
{
	teardown(state);
	unlink(file_path);
	unlink(copy_path);
	return 0;
}

void open_again(void)
{
	assert_int_equal(weft_region_open_file(AT_FDCWD, file_path, "f", false, false, &region,
				 &err),
		0);
	new_donor();
}

void stop_donor(void)
{
	weft_donor_free(donor);
	weft_region_put(region);
}

void kill_donor(void)
{
	close(region->fd); /* nothing is marked */
	region->fd = -1;
	stop_donor();
}
