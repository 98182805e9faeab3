/* SPDX-License-Identifier: MIT */
/* Locked memory and the heap's reserve; see resident.h.  Written before threads start. */
#include "fabric/base/resident.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fabric/base/util.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif

enum {
	THREAD_STACK = 512 << 10, /* locked as a whole, so no longer 8 MiB */
	MAIN_STACK = 512 << 10,
	SPARE_STACKS = 16,
};

static bool resident, complete;
static uint64_t reserve;
static char *heap_end;

extern char end[]; /* of the program, end(3): the heap begins behind it */
static struct rusage counted_from;

/* ---- locking ---- */

static int lock(struct weft_error *err)
{
	struct rlimit limit = {0};
	char text[32] = "as much as it takes";

	if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0)
		return 0;
	int code = errno;
	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (limit.rlim_cur != RLIM_INFINITY)
		weft_format_size(limit.rlim_cur, text, sizeof(text));
	return weft_error_set(err, code == EAGAIN ? ENOMEM : code,
		"cannot lock this process in memory: %s; %s may be locked: as root with "
		"CAP_IPC_LOCK there is no limit, else `ulimit -l unlimited`, or "
		"LimitMEMLOCK=infinity in a unit",
		strerror(code), text);
}

/*
 * What libraries bring, and nobody reads here: ICU's tables of character sets, 30 MiB, which come
 * with libxml2, and that with libnbd and hwloc.
 */
static const char unread_library[] = "/libicudata.so";

static int unlock_unread(struct dl_phdr_info *info, size_t len, void *ctx)
{
	(void)len;
	(void)ctx;
	if (!strstr(info->dlpi_name, unread_library))
		return 0;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];

		if (part->p_type == PT_LOAD && !(part->p_flags & PF_W))
			munlock((const void *)(info->dlpi_addr + part->p_vaddr), part->p_memsz);
	}
	return 0;
}

/* ---- the reserve ---- */

void weft_resident_prepare(void)
{
	/* Read when a second thread allocates first, and never again. */
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_MAX, 0);
	mallopt(M_TRIM_THRESHOLD, -1);
}

static int fill_reserve(size_t bytes, struct weft_error *err)
{
	volatile char *p = malloc(bytes);

	if (!p)
		return weft_error_set(err, ENOMEM, "cannot get %zu bytes of memory", bytes);
	for (size_t i = 0; i < bytes; i += 4096)
		p[i] = 1;
	free((void *)p);
	return 0;
}

/* Main's stack grows page by page: these pages are there from now on. */
__attribute__((noinline)) static void fill_stack(void)
{
	volatile char deep[MAIN_STACK];

	for (size_t i = 0; i < sizeof(deep); i += 1024)
		deep[i] = 0;
}

static void *pass(void *gate)
{
	pthread_mutex_lock(gate);
	pthread_mutex_unlock(gate);
	return NULL;
}

/*
 * The C library keeps the stacks of threads that have ended, and gives them to new threads.  So
 * threads that are all there at once leave as many stacks.
 */
static void fill_stacks(void)
{
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	pthread_t threads[SPARE_STACKS];
	pthread_attr_t attr;
	unsigned n = 0;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	pthread_setattr_default_np(&attr);
	pthread_attr_destroy(&attr);
	pthread_mutex_lock(&gate);
	while (n < SPARE_STACKS && pthread_create(&threads[n], NULL, pass, &gate) == 0)
		n++;
	pthread_mutex_unlock(&gate);
	while (n > 0)
		pthread_join(threads[--n], NULL);
}

int weft_resident_begin(size_t reserve_bytes, struct weft_error *err)
{
	fill_stack();
	int r = lock(err);
	if (r == 0)
		r = fill_reserve(reserve_bytes, err);
	if (r < 0) {
		munlockall();
		return r;
	}
	/* Collapsing pages would take them away for a moment. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	fill_stacks();
	reserve = reserve_bytes;
	resident = true;
	return 0;
}

int weft_resident_complete(struct weft_error *err)
{
	int r = lock(err);

	/* What was made since has taken of the reserve. */
	if (r == 0 && !complete)
		r = fill_reserve(reserve, err);
	if (r < 0)
		return r;
	dl_iterate_phdr(unlock_unread, NULL);
	getrusage(RUSAGE_SELF, &counted_from);
	heap_end = sbrk(0);
	complete = true;
	return 0;
}

bool weft_is_resident(void)
{
	return resident;
}

/* ---- pages of the reserve ---- */

/* Mappings are above the heap, wherever they are. */
static bool is_of_reserve(const void *p)
{
	return (const char *)p >= end && (const char *)p < (const char *)sbrk(0);
}

void *weft_resident_take(size_t len)
{
	void *p = NULL;

	/* What is there before the front-ends are is there for good, and need not be small. */
	if (!complete || posix_memalign(&p, weft_page_bytes(), weft_whole_pages(len)) != 0)
		return NULL;
	if (is_of_reserve(p))
		return memset(p, 0, len);
	free(p);
	return NULL;
}

bool weft_resident_give_back(void *p)
{
	if (!resident || !is_of_reserve(p))
		return false;
	free(p);
	return true;
}

/* ---- what there is to tell ---- */

/* The start of a small file of /proc as a text. */
static void read_proc(const char *path, char *buf, size_t len)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, len - 1);

	buf[n > 0 ? n : 0] = '\0';
}

void weft_resident_usage(struct weft_resident_usage *ret)
{
	struct mallinfo2 heap = mallinfo2();
	char status[4096];
	struct rusage now;

	read_proc("/proc/self/status", status, sizeof(status));
	const char *locked = strstr(status, "VmLck:");
	getrusage(RUSAGE_SELF, &now);
	*ret = (struct weft_resident_usage){
		.locked_bytes = locked ? strtoull(locked + 6, NULL, 10) * WEFT_KIB : 0,
		.faults_major = (uint64_t)(now.ru_majflt - counted_from.ru_majflt),
		.faults_minor = (uint64_t)(now.ru_minflt - counted_from.ru_minflt),
		.reserve_bytes = reserve,
		.reserve_free_bytes = heap.fordblks,
		.grown_bytes = complete ? (uint64_t)((char *)sbrk(0) - heap_end) : 0,
	};
}

/* ---- what the kernel may do to it ---- */

int weft_be_io_flusher(void)
{
	return prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0 ? -errno : 0;
}

bool weft_is_io_flusher(void)
{
	return prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1;
}

int weft_be_spared(void)
{
	WEFT_CLEANUP_CLOSE int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	return fd < 0 || write(fd, "-1000", 5) < 0 ? -errno : 0;
}

int weft_oom_score_adj(void)
{
	char text[16];

	read_proc("/proc/self/oom_score_adj", text, sizeof(text));
	return atoi(text);
}
