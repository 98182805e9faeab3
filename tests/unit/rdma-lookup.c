/* SPDX-License-Identifier: MIT */
/*
 * Questions for a pass, as the transports over RDMA ask them: on threads that are used again, and
 * that end with the transport, also in the middle of a question.
 */
#include <poll.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/transport.h"
#include "transports/rdma/lookup.h"

enum { NR_PASSES = 100, BOUND_MS = 30000 };

static struct weft_crew crew;
static _Atomic pid_t asked_by;
static sem_t begun;

static int give_pass(const char *host, const char *port, const char *region,
	const char *certificates, int cancel_fd, struct weft_key *ret, struct weft_error *err)
{
	asked_by = gettid();
	ret->secret_bytes = 1;
	return 0;
}

static int say_nothing(const char *host, const char *port, const char *region,
	const char *certificates, int cancel_fd, struct weft_key *ret, struct weft_error *err)
{
	struct pollfd p = {.fd = cancel_fd, .events = POLLIN};

	sem_post(&begun);
	return weft_error_set(err, poll(&p, 1, BOUND_MS) == 1 ? ECANCELED : ETIMEDOUT, "no pass");
}

static struct weft_rdma_lookup *start(int (*get_pass)(const char *host, const char *port,
	const char *region, const char *certificates, int cancel_fd, struct weft_key *ret,
	struct weft_error *err))
{
	const struct tp_target target = {.host = "127.0.0.1",
		.region = "r",
		.certificates = "/nowhere",
		.get_pass = get_pass,
		.pass_host = "127.0.0.1",
		.pass_port = "1"};
	struct weft_rdma_lookup *lookup;

	assert_int_equal(weft_rdma_lookup_start(&crew, &target, "10809", &lookup), 0);
	return lookup;
}

static void passes_are_asked_for_by_the_same_threads(void **state)
{
	unsigned nr_threads = 0;
	pid_t last = 0;

	for (unsigned i = 0; i < NR_PASSES; i++) {
		struct weft_rdma_lookup *lookup = start(give_pass);
		struct pollfd p = {.fd = weft_rdma_lookup_fd(lookup), .events = POLLIN};
		struct sockaddr_storage address;
		struct weft_key pass = {0};

		assert_int_equal(poll(&p, 1, BOUND_MS), 1);
		assert_int_equal(weft_rdma_lookup_result(lookup, &address, &pass, NULL), 0);
		assert_int_equal(pass.secret_bytes, 1);
		weft_rdma_lookup_free(lookup);
		/* A thread that has not put its work away yet is not called: there is another. */
		nr_threads += asked_by > last;
		last = asked_by > last ? asked_by : last;
	}
	assert_in_range(nr_threads, 1, NR_PASSES / 4);
}

static void a_question_ends_with_who_asked(void **state)
{
	const uint64_t begin_ns = weft_now_ns();
	struct weft_rdma_lookup *lookup = start(say_nothing);

	sem_wait(&begun);
	weft_rdma_lookup_free(lookup);
	weft_crew_fini(&crew);
	assert_in_range(weft_now_ns() - begin_ns, 0, BOUND_MS / 2 * UINT64_C(1000000));
	assert_null(crew.all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(passes_are_asked_for_by_the_same_threads),
		cmocka_unit_test(a_question_ends_with_who_asked),
	};

	sem_init(&begun, 0, 0);
	weft_crew_init(&crew, "lookup", 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
