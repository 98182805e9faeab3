/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD: allocations that fail, from main() on.  WEFT_FAIL_NTH=N: the Nth, and no other.
 * WEFT_FAIL_EVERY=N: each Nth.  WEFT_FAIL_WHEN=PATH: only while PATH is there.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

typedef int main_fn(int argc, char **argv, char **env);
typedef int start_fn(main_fn *fn, int argc, char **argv, void (*init)(void), void (*fini)(void),
	void (*rtld_fini)(void), void *stack_end);

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t nr, size_t size);
extern void *__libc_realloc(void *p, size_t size);
extern void *__libc_memalign(size_t align, size_t size);

int __libc_start_main(main_fn *fn, int argc, char **argv, void (*init)(void), void (*fini)(void),
	void (*rtld_fini)(void), void *stack_end);
void *reallocarray(void *p, size_t nr, size_t size);

static _Atomic unsigned long count, nth, every;
static const char *when;
static main_fn *real_main;

static bool fails(void)
{
	if ((nth == 0 && every == 0) || (when && access(when, F_OK) != 0))
		return false;
	unsigned long n = atomic_fetch_add(&count, 1) + 1;
	if (n != nth && (every == 0 || n % every != 0))
		return false;
	errno = ENOMEM;
	return true;
}

static unsigned long number(const char *name)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 10) : 0;
}

static int begin(int argc, char **argv, char **env)
{
	when = getenv("WEFT_FAIL_WHEN");
	every = number("WEFT_FAIL_EVERY");
	nth = number("WEFT_FAIL_NTH");
	return real_main(argc, argv, env);
}

__attribute__((visibility("default"))) int __libc_start_main(main_fn *fn, int argc, char **argv,
	void (*init)(void), void (*fini)(void), void (*rtld_fini)(void), void *stack_end)
{
	start_fn *real = (start_fn *)dlsym(RTLD_NEXT, "__libc_start_main");

	real_main = fn;
	return real(begin, argc, argv, init, fini, rtld_fini, stack_end);
}

__attribute__((visibility("default"))) void *malloc(size_t size)
{
	return fails() ? NULL : __libc_malloc(size);
}

__attribute__((visibility("default"))) void *calloc(size_t nr, size_t size)
{
	return fails() ? NULL : __libc_calloc(nr, size);
}

__attribute__((visibility("default"))) void *realloc(void *p, size_t size)
{
	return size > 0 && fails() ? NULL : __libc_realloc(p, size);
}

__attribute__((visibility("default"))) void *reallocarray(void *p, size_t nr, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(nr, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, bytes);
}

__attribute__((visibility("default"))) int posix_memalign(void **ret, size_t align, size_t size)
{
	void *p = fails() ? NULL : __libc_memalign(align, size);

	if (!p)
		return ENOMEM;
	*ret = p;
	return 0;
}
