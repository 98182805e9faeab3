/* SPDX-License-Identifier: MIT */
/*
 * What the cases of weft-count share.  Each sets up, then calls its function weft_counted_<case>(),
 * inside which callgrind counts; `batch` operations are in flight at a time, COUNT_OPS in all.  One
 * thread.
 */
#ifndef WEFT_PERF_COUNT_COUNT_H
#define WEFT_PERF_COUNT_COUNT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { COUNT_OPS = 4096, COUNT_BYTES = 4096, COUNT_REGION = 4 << 20, COUNT_MAX_BATCH = 16 };

/* the NBD engine, over a pair of sockets, on memory */
void count_engine(bool write, unsigned batch);
void count_lane(bool write, unsigned batch);   /* a bridge's lane, over the transport mem */
void count_scsi(bool write, unsigned batch);   /* SCSI's command layer */
/* the verbs transport's post and poll, on a device that is a stub */
void count_verbs(bool write, unsigned batch);

#endif
