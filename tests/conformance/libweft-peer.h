/* SPDX-License-Identifier: MIT */
/*
 * What the conformance programs of libweft share: a donor in this process, and handles of its
 * region.
 */
#ifndef WEFT_TESTS_CONFORMANCE_LIBWEFT_PEER_H
#define WEFT_TESTS_CONFORMANCE_LIBWEFT_PEER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#include "nbd-bridge/library/weft.h"
#include "tests/conformance/donor-peer.h"

/*
 * Of the donor that runs; over RDMA where RDMA_IP names a device
 * (tests/shell/verbs-conformance.sh).
 */
extern struct conf *libweft_conf;
extern char libweft_uri[128];
extern const char *libweft_rdma_ip;
/*
 * From the next handle on data go through the lanes' buffers, as they do where a transport
 * registers memory.
 */
extern bool libweft_buffered;

/*
 * How a handle's bridge was started, each time; a fall back: from RDMA, as the first time is made
 * to look.
 */
struct libweft_starts {
	bool fall_back;
	unsigned nr, nr_lanes[2];
	uint8_t id[2][16];
	uint64_t generation[2];
};
/* From the next handle on; NULL: nobody looks. */
extern struct libweft_starts *libweft_starts;

/* Set-up and teardown of a test. */
int libweft_start(void **state);
int libweft_start_buffered(void **state);
int libweft_stop(void **state);
/* A donor more, on a Unix socket; and its URI into uri, of 128 bytes. */
struct conf *libweft_start_another(char *uri);
void libweft_stop_another(struct conf *conf);

/* Fails the test if it cannot be opened. */
struct weft *libweft_open(const char *uri, unsigned flags);
struct weft *libweft_open_with(const struct weft_options *options);
/* Tries again while it is held: a donor hears of a goodbye a moment later. */
struct weft *libweft_open_when_free(const char *uri, unsigned flags);

/*
 * A completion that keeps the handle's only connection, so that it sees nothing, until go_on is
 * posted.  Returns once it does.
 */
struct libweft_hold {
	struct weft *w;
	/* That began it: the library may run a completion in the call that begins the command. */
	pthread_t thread;
	sem_t held, go_on;
	char byte;
};
void libweft_hold(struct weft *w, struct libweft_hold *hold);
void libweft_let_go(struct libweft_hold *hold);

/* As libweft_open_with(): closing waits for what is in flight, and writes back. */
struct weft *libweft_open_write_back(unsigned connections);

/* What a completion told: {libweft_tell, told, libweft_tell_free}. */
struct libweft_told {
	_Atomic unsigned nr, nr_freed;
	int retire; /* what libweft_tell() returns */
	_Atomic int error;
	_Atomic bool freed_first;
};
int libweft_tell(void *user, int error);
void libweft_tell_free(void *user);

/* When whatever was waited for should long have been. */
uint64_t libweft_bound_ns(void);

#define libweft_case(fn) cmocka_unit_test_setup_teardown(fn, libweft_start, libweft_stop)
#define libweft_buffered_case(fn) {#fn " (buffered)", fn, libweft_start_buffered, libweft_stop, NULL}
#define libweft_both_cases(fn) libweft_case(fn), libweft_buffered_case(fn)

#endif
