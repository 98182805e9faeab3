/* SPDX-License-Identifier: MIT */
/*
 * Memory for contents: sealed memfds, mapped whole, worked on by several threads at once.
 * Threads: any.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "fabric/region/region-private.h"

#ifdef __SANITIZE_THREAD__
void AnnotateBenignRaceSized(const char *file, int line, const volatile void *mem, size_t size,
	const char *why);
#endif

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

enum { MAX_WORKERS = 16, SLICE_BYTES = 32 << 20 };

int region_memfd(const char *name, uint64_t size, unsigned flags)
{
	flags |= MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create(name, flags);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0 ||
		fcntl(fd, F_ADD_SEALS, REGION_SEALS | F_SEAL_SEAL) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

int region_map(int fd, uint64_t size, uint8_t **ret)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return -errno;
	*ret = map;
	/* Other people's data do not belong in a core dump, and the dump would take very long. */
	madvise(map, size, MADV_DONTDUMP);
#ifdef __SANITIZE_THREAD__
	/*
	 * Requests and answers over sockets order borrowers' accesses, but the sanitizer does not
	 * see them.
	 */
	AnnotateBenignRaceSized(__FILE__, __LINE__, map, size, "bytes of borrowers");
#endif
	return 0;
}

/* Several threads take slices in turn; the caller's thread waits and calls progress(). */
struct parallel {
	uint64_t size;
	int (*fn)(void *arg, uint64_t off, uint64_t len);
	void *arg;
	_Atomic uint64_t next; /* the first byte that no thread has taken */
	pthread_mutex_t lock;
	pthread_cond_t more;
	uint64_t done;
	unsigned nr_running;
	int error;
};

static void *parallel_worker(void *arg)
{
	struct parallel *p = arg;

	for (;;) {
		uint64_t off = atomic_fetch_add(&p->next, SLICE_BYTES);

		if (off >= p->size)
			break;
		uint64_t len = weft_min(SLICE_BYTES, p->size - off);
		int r = p->fn(p->arg, off, len);
		if (r < 0)
			atomic_store(&p->next, p->size);
		pthread_mutex_lock(&p->lock);
		p->done += len;
		if (r < 0 && p->error == 0)
			p->error = r;
		pthread_cond_signal(&p->more);
		pthread_mutex_unlock(&p->lock);
		if (r < 0)
			break;
	}
	pthread_mutex_lock(&p->lock);
	p->nr_running--;
	pthread_cond_signal(&p->more);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

int region_parallel(uint64_t size, int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg,
	weft_progress_fn *progress, void *ctx)
{
	struct parallel p = {.size = size, .fn = fn, .arg = arg};
	pthread_t threads[MAX_WORKERS];
	cpu_set_t cpus;
	unsigned want = 1, n = 0;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		want = (unsigned)weft_min(MAX_WORKERS, (uint64_t)CPU_COUNT(&cpus));
	want = (unsigned)weft_min(want, (size + SLICE_BYTES - 1) / SLICE_BYTES);
	pthread_mutex_init(&p.lock, NULL);
	weft_cond_init(&p.more);
	p.nr_running = want;
	while (n < want && pthread_create(&threads[n], NULL, parallel_worker, &p) == 0)
		n++;
	pthread_mutex_lock(&p.lock);
	p.nr_running -= want - n;
	if (n == 0) {
		p.nr_running = 1;
		pthread_mutex_unlock(&p.lock);
		parallel_worker(&p);
		pthread_mutex_lock(&p.lock);
	}
	while (p.nr_running > 0) {
		uint64_t done = p.done;

		if (progress) {
			pthread_mutex_unlock(&p.lock);
			progress(ctx, done, size);
			pthread_mutex_lock(&p.lock);
		}
		/* So that progress() is called, whatever the pace. */
		const uint64_t end_ns = weft_now_ns() + UINT64_C(1000000000);
		while (p.nr_running > 0 && p.done == done &&
			weft_cond_wait_until(&p.more, &p.lock, end_ns))
			;
	}
	pthread_mutex_unlock(&p.lock);
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	pthread_cond_destroy(&p.more);
	pthread_mutex_destroy(&p.lock);
	if (p.error == 0 && progress)
		progress(ctx, size, size);
	return p.error;
}
