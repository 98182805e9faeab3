/* SPDX-License-Identifier: MIT */
/* Debug lines: silent until their area is turned on, and then told with it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/error.h"
#include "fabric/base/log.h"
#include "tests/support/catch.h"

/* As if it were a file of that room; the paths in front are a compiler's. */
#line 1 "/src/fabric/weft/nbd-bridge/unit/test.c"

static unsigned evaluated;
static const char *text = "line";
static char said[1024];

static int evaluate(void)
{
	return (int)++evaluated;
}

/* What a debug line of this file, in the area "unit", prints. */
static const char *print(void)
{
	struct catcher catcher = catch_begin(STDERR_FILENO);

	weft_debug("%s %d", text, evaluate());
	catch_end(&catcher, said, sizeof(said));
	return said;
}

static void a_line_is_off_and_its_arguments_are_not_looked_at(void **state)
{
	assert_string_equal(print(), "");
	assert_int_equal(evaluated, 0);
}

static void an_area_that_is_not_there_is_named(void **state)
{
	char unknown[64] = "";

	assert_false(weft_debug_enable("nothing", unknown, sizeof(unknown)));
	assert_string_equal(unknown, "nothing");
	assert_false(weft_debug_enable("uni", unknown, sizeof(unknown)));
	assert_string_equal(unknown, "uni");
	assert_string_equal(print(), "");
}

static void areas_are_listed(void **state)
{
	char areas[64];

	assert_string_equal(weft_debug_areas(", ", areas, sizeof(areas)), "unit");
}

static void the_environment_may_name_other_programs_areas(void **state)
{
	setenv("WEFT_DEBUG", "nothing", 1);
	weft_debug_enable_from_environment();
	assert_string_equal(print(), "");
	setenv("WEFT_DEBUG", "nothing,unit", 1);
	weft_debug_enable_from_environment();
	assert_non_null(strstr(print(), "] unit: line 1\n"));
}

static void a_line_that_is_on_has_its_area_and_the_time(void **state)
{
	unsigned s, us;
	int n = 0;

	weft_log_init("weft-test", WEFT_LOG_ERROR);
	assert_true(weft_debug_enable(NULL, NULL, 0));
	assert_int_equal(sscanf(print(), "weft-test: debug: [%u.%u] unit: line 2\n%n", &s, &us, &n),
		2);
	assert_int_equal(n, strlen(said));
}

static void bytes_of_a_peer_begin_no_line_of_their_own(void **state)
{
	text = "a\nweft-test: error: \x1b[2J\xc2\x9b";
	assert_non_null(strstr(print(), "] unit: a?weft-test: error: ?[2J?? 3\n"));
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
}

static void a_message_is_one_line_and_no_order_to_a_terminal(void **state)
{
	struct weft_error err;

	assert_int_equal(weft_error_set(&err, EIO, "%s", "a\n\x1b[2J\xc2\x9b"), -EIO);
	assert_string_equal(err.message, "a??[2J??");
	assert_int_equal(weft_error_prefix(&err, "%s", "b\r\x1b]"), -EIO);
	assert_string_equal(err.message, "b??]: a??[2J??");
}

/* Nothing may be written to what it returns as [1], until [0] is read. */
static void fill_pipe(int fds[2])
{
	char full[4096];

	memset(full, '\n', sizeof(full));
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	while (write(fds[1], full, sizeof(full)) > 0)
		;
	fcntl(fds[1], F_SETFL, 0);
}

/* Lines that a reader of the pipe gets up to `last`. */
static unsigned count_lines(int fd, const char *last)
{
	unsigned n = 0;
	char line[256];

	fcntl(fd, F_SETFL, 0);
	FILE *file = fdopen(fd, "r");
	do {
		assert_non_null(fgets(line, sizeof(line), file));
		n += strstr(line, "told ") != NULL;
	} while (!strstr(line, last));
	fclose(file);
	return n;
}

static void who_logs_does_not_wait_for_who_reads(void **state)
{
	int fds[2], saved = dup(STDERR_FILENO);

	weft_log_init("weft-test", WEFT_LOG_INFO);
	fill_pipe(fds);
	dup2(fds[1], STDERR_FILENO);
	assert_int_equal(weft_log_start_thread(), 0);
	for (unsigned i = 0; i < 300; i++)
		weft_info("told %u", i);
	assert_int_equal(count_lines(fds[0], "(44 lines of this log found no reader"), 256);
	weft_log_end_thread();
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fds[1]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_is_off_and_its_arguments_are_not_looked_at),
		cmocka_unit_test(an_area_that_is_not_there_is_named),
		cmocka_unit_test(areas_are_listed),
		cmocka_unit_test(the_environment_may_name_other_programs_areas),
		cmocka_unit_test(a_line_that_is_on_has_its_area_and_the_time),
		cmocka_unit_test(bytes_of_a_peer_begin_no_line_of_their_own),
		cmocka_unit_test(a_message_is_one_line_and_no_order_to_a_terminal),
		cmocka_unit_test(who_logs_does_not_wait_for_who_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
