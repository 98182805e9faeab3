/* SPDX-License-Identifier: MIT */
/* Threads that are used again: as many as there was work at once, with nothing on their stacks. */
#include <dirent.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/crew.h"

enum { AT_ONCE = 8, USED = 100 << 10 };

static struct weft_crew crew;
static sem_t begun, go;
static _Atomic uintptr_t used;
static _Atomic unsigned nr_named;

static unsigned nr_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned n = 0;

	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir));)
		n += e->d_name[0] != '.';
	closedir(dir);
	return n;
}

static unsigned nr_idle(void)
{
	const char *const *hand;
	unsigned n = 0;

	/* Its second word is the next one. */
	pthread_mutex_lock(&crew.lock);
	for (hand = (const void *)crew.idle; hand; hand = (const void *)hand[1])
		n++;
	pthread_mutex_unlock(&crew.lock);
	return n;
}

static void wait_until_idle(unsigned n)
{
	while (nr_idle() != n)
		usleep(1000);
}

static void work(void *ctx)
{
	char name[16];

	pthread_getname_np(pthread_self(), name, sizeof(name));
	if (strcmp(name, "crew") == 0)
		atomic_fetch_add(&nr_named, 1);
	sem_post(&begun);
	sem_wait(&go);
}

static void threads_are_used_again(void **state)
{
	/* A sanitizer may have made a thread of its own by the first one. */
	assert_int_equal(weft_crew_run(&crew, work, NULL), 0);
	sem_post(&go);
	sem_wait(&begun);
	wait_until_idle(1);
	const unsigned before = nr_threads() - 1;

	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = 0; i < AT_ONCE; i++)
			assert_int_equal(weft_crew_run(&crew, work, NULL), 0);
		for (unsigned i = 0; i < AT_ONCE; i++)
			sem_wait(&begun);
		assert_int_equal(nr_threads(), before + AT_ONCE);
		assert_int_equal(nr_idle(), 0);
		for (unsigned i = 0; i < AT_ONCE; i++)
			sem_post(&go);
		wait_until_idle(AT_ONCE);
	}
	assert_int_equal(nr_threads(), before + AT_ONCE);
	assert_int_equal(atomic_load(&nr_named), 1 + 50 * AT_ONCE);
}

static void work_with_secrets(void *ctx)
{
	uint8_t bytes[USED];

	memset(bytes, 0x5e, sizeof(bytes));
	atomic_store(&used, (uintptr_t)bytes);
	__asm__ volatile("" : : "r"(bytes) : "memory");
}

static void nothing_is_left_on_a_stack(void **state)
{
	const unsigned threads = nr_threads();
	unsigned left = 0;

	assert_int_equal(weft_crew_run(&crew, work_with_secrets, NULL), 0);
	while (!atomic_load(&used))
		usleep(1000);
	wait_until_idle(AT_ONCE);
	assert_int_equal(nr_threads(), threads);
	const volatile uint8_t *bytes = (const volatile uint8_t *)atomic_load(&used);
	/* Those of the 16 KiB next to what the thread is in are kept. */
	for (unsigned i = 0; i < USED - (24 << 10); i++)
		left += bytes[i] == 0x5e;
	assert_int_equal(left, 0);
}

static void threads_end_with_their_crew(void **state)
{
	const unsigned threads = nr_threads();

	/* One of them has work still. */
	sem_post(&go);
	assert_int_equal(weft_crew_run(&crew, work, NULL), 0);
	weft_crew_fini(&crew);
	sem_wait(&begun);
	/* The kernel lists a thread for a moment after it was joined. */
	for (unsigned i = 0; i < 5000 && nr_threads() != threads - AT_ONCE; i++)
		usleep(1000);
	assert_int_equal(nr_threads(), threads - AT_ONCE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_are_used_again),
		cmocka_unit_test(nothing_is_left_on_a_stack),
		cmocka_unit_test(threads_end_with_their_crew),
	};

	sem_init(&begun, 0, 0);
	sem_init(&go, 0, 0);
	weft_crew_init(&crew, "crew", 256 << 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
