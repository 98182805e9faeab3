/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD, into weft-attach --foreground --swap: ends the program, with a backtrace, once it
 * takes memory.  From the moment that the file $WEFT_TRAP is there:
 *
 * - from the kernel: brk(2), mremap(2), clone(2), and mmap(2) of anything but a device's pages
 *   (RDMA's libraries map queues of the card), on any thread.  A seccomp filter sees what no symbol
 *   shows.
 * - while there is $WEFT_TRAP.malloc too: from the heap, on a lane.
 */
#include <errno.h>
#include <execinfo.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t nr, size_t size);
extern void *__libc_realloc(void *p, size_t size);
extern void *__libc_memalign(size_t align, size_t size);

static _Atomic bool heap_is_shut;
static _Thread_local signed char is_lane; /* 0: not known yet */

/* dprintf(3) would take memory. */
__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	char text[160];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)!write(STDERR_FILENO, text, (size_t)n);
}

static void say_and_end(const char *what)
{
	void *frames[32];
	char name[17] = "";

	atomic_store(&heap_is_shut, false);
	prctl(PR_GET_NAME, name);
	say("TRAPPED: %s, on thread %s\n", what, name);
	backtrace_symbols_fd(frames, backtrace(frames, 32), 2);
	_exit(99);
}

static void look(const char *what)
{
	char name[17] = "";

	if (!atomic_load_explicit(&heap_is_shut, memory_order_relaxed))
		return;
	if (is_lane == 0) {
		prctl(PR_GET_NAME, name);
		is_lane = strncmp(name, "weft-lane", 9) == 0 ? 1 : -1;
	}
	if (is_lane > 0)
		say_and_end(what);
}

#define EXPORT __attribute__((visibility("default")))

EXPORT void *malloc(size_t size)
{
	look("malloc");
	return __libc_malloc(size);
}

EXPORT void *calloc(size_t nr, size_t size)
{
	look("calloc");
	return __libc_calloc(nr, size);
}

EXPORT void *realloc(void *p, size_t size)
{
	look("realloc");
	return __libc_realloc(p, size);
}

EXPORT int posix_memalign(void **ret, size_t align, size_t size)
{
	look("posix_memalign");
	*ret = __libc_memalign(align, size);
	return *ret ? 0 : 12;
}

static void on_trap(int signo, siginfo_t *info, void *context)
{
	char what[64];

	(void)signo;
	(void)context;
	snprintf(what, sizeof(what), "system call %d", info->si_syscall);
	say_and_end(what);
}

static void shut_the_kernel(void)
{
	const struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_brk, 7, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mremap, 6, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_clone, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_clone3, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mmap, 0, 2),
		/* Its flags: those of a device's pages are shared and not anonymous. */
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MAP_ANONYMOUS | MAP_PRIVATE, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), (struct sock_filter *)code};
	struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};

	sigaction(SIGSYS, &action, NULL);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) !=
		0) {
		perror("seccomp");
		_exit(98);
	}
	say("trap: set\n");
}

static void *wait_for_files(void *path)
{
	const char *heap = (const char *)path + strlen(path) + 1;

	while (access(path, F_OK) != 0)
		usleep(10000);
	shut_the_kernel();
	for (;;) {
		bool shut = access(heap, F_OK) == 0;

		if (shut != atomic_exchange(&heap_is_shut, shut))
			say("trap: the heap is %s\n", shut ? "shut" : "open");
		usleep(10000);
	}
	return NULL;
}

__attribute__((constructor)) static void begin(void)
{
	static char paths[512];
	const char *path = getenv("WEFT_TRAP");
	void *frames[1];
	pthread_t thread;

	if (!path || !strstr(program_invocation_short_name, "weft-attach"))
		return;
	int n = snprintf(paths, sizeof(paths), "%s", path);
	snprintf(paths + n + 1, sizeof(paths) - (size_t)n - 1, "%s.malloc", path);
	backtrace(frames, 1); /* loads what it needs */
	if (pthread_create(&thread, NULL, wait_for_files, paths) == 0)
		pthread_detach(thread);
}
