/* SPDX-License-Identifier: MIT */
/*
 * A process that memory may wait for: when the kernel writes pages to a swap device that this
 * process carries, nothing that the process does may need a page that is not there.
 *
 * Such a process is resident: all that it has and will have mapped is locked and faulted in, and
 * its heap has a reserve, so that malloc(3) asks the kernel for nothing any more.  What is freed
 * goes back to the reserve.  Mappings of weft_map_bytes() come from the reserve as well, and so do
 * the stacks of new threads, up to a number.  Libraries that call mmap(2) themselves still do.
 *
 * Process-wide and for good; the calls belong to the main thread, unless they say otherwise.
 */
#ifndef WEFT_FABRIC_BASE_RESIDENT_H
#define WEFT_FABRIC_BASE_RESIDENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"

/* Before any thread is made: one heap serves all threads, and asks for no mappings. */
void weft_resident_prepare(void);
/*
 * Before what is to be resident is made.  -EPERM, -ENOMEM: memory cannot be locked, with what to
 * do; nothing is locked then.
 */
int weft_resident_begin(size_t reserve_bytes, struct weft_error *err);
/*
 * Once everything is made: faults in again what fork(2) has made the child's as well, and counts
 * faults from now on.  Errors as above.
 */
int weft_resident_complete(struct weft_error *err);
/* Any thread. */
bool weft_is_resident(void);

/*
 * Whole pages of zeros from the reserve, for map.h.  NULL: the process is not resident, or not
 * complete, or the reserve lacks them.  give_back: false: they are not of the reserve.  Any thread.
 */
void *weft_resident_take(size_t len);
bool weft_resident_give_back(void *p);

struct weft_resident_usage {
	uint64_t locked_bytes;
	uint64_t faults_major, faults_minor; /* since weft_resident_complete() */
	uint64_t reserve_bytes, reserve_free_bytes;
	uint64_t grown_bytes; /* what the reserve lacked, and was taken from the kernel */
};

/* Any thread.  Allocates nothing. */
void weft_resident_usage(struct weft_resident_usage *ret);

/*
 * For the calling thread, and the threads and processes that it makes afterwards: the kernel takes
 * memory for them without waiting for I/O (PR_SET_IO_FLUSHER).  0, or -errno: -EPERM without
 * CAP_SYS_RESOURCE.
 */
int weft_be_io_flusher(void);
bool weft_is_io_flusher(void);
/* The process, and its children, are not killed when memory runs out.  0, or -errno. */
int weft_be_spared(void);
/* oom_score_adj of this process, 0 if it cannot be read.  Allocates nothing. */
int weft_oom_score_adj(void);

#endif
