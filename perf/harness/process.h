/* SPDX-License-Identifier: MIT */
/*
 * The processes that a run measures: started with a listening socket as descriptor 3 (as
 * sd_listen_fds(3) says), their CPU time, and their end, which is at the latest the harness's own.
 */
#ifndef PERF_HARNESS_PROCESS_H
#define PERF_HARNESS_PROCESS_H

#include <stdint.h>
#include <sys/types.h>

/*
 * A listening socket.  unix_path NULL: perf_far_ip(), where that is, with a port of the kernel's
 * choice.  Returns the fd, or -errno.
 */
int perf_listen(const char *unix_path, uint16_t *ret_port);

/*
 * Runs argv[0] with listen_fd (-1: none) as descriptor 3 and LISTEN_FDS=1, its output in the
 * file log below perf_tmpdir().  The pid, or -errno.
 */
pid_t perf_spawn(const char *const argv[], int listen_fd, const char *log);
/* The same in another network namespace; ns -1: in ours. */
pid_t perf_spawn_in(int ns, const char *const argv[], int listen_fd, const char *log);
/* SIGTERM, then after 10 s SIGKILL; waits.  Its wait status. */
int perf_stop(pid_t pid);
/* All that still run. */
void perf_stop_all(void);
/* 1: still runs, 0: ended. */
int perf_alive(pid_t pid);

/* CPU time used so far by all threads of the process, those that ended included; 0: gone. */
uint64_t perf_cpu_ns(pid_t pid);

/* Context switches so far of all threads that live. */
uint64_t perf_switches(pid_t pid);

/*
 * Counts the system calls of all threads that the process has now, until perf_calls_stop().  Each
 * costs more meanwhile: nothing is timed then.  0, or -errno: it cannot be counted here (no tracefs
 * at /sys/kernel/tracing, no rights).
 */
int perf_calls_start(pid_t pid);
uint64_t perf_calls_stop(void);

/* Lets all threads of the process (0: the caller's thread) run on this CPU only; -1: on any. */
void perf_pin(pid_t pid, int cpu);

/* Runs argv to its end. 0: exit status 0; else -EIO. */
int perf_call(const char *const argv[], const char *log);

#endif
