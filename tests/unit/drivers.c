/* SPDX-License-Identifier: MIT */
/*
 * The table of transports, and what it alone makes reachable: the transport "mem" has a row here,
 * and nothing else knows it.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/bridge/find.h"
#include "tests/support/bridge-io.h"
#include "tests/support/parse-uri.h"
#include "transports/mem/mem.h"

static uint8_t pattern[1 << 20], got[1 << 20];

static void words_lead_to_transports(void **state)
{
	assert_string_equal(tp_driver_of_word("tcp")->word, "tcp");
	assert_ptr_equal(tp_driver_of_word("unix"), tp_driver_of_word("tcp"));
	assert_string_equal(tp_driver_of_word("mem")->word, "mem");
	/* What is behind a '+' says how it is protected, and is no choice. */
	assert_ptr_equal(tp_driver_of_word("tcp+tls"), tp_driver_of_word("tcp"));
	assert_ptr_equal(tp_driver_of_word("unix+tls"), tp_driver_of_word("tcp"));
	assert_null(tp_driver_of_word("tc+tls"));
	assert_null(tp_driver_of_word("TCP"));
	assert_null(tp_driver_of_word(""));
	assert_string_equal(tp_word_label("rdma"), "RDMA");
	assert_string_equal(tp_word_label("unix"), "unix");
	assert_string_equal(tp_word_label("smoke"), "smoke");
	assert_string_equal(tp_word_note("rdma"), ", in plaintext");
	assert_string_equal(tp_word_note("tcp"), "");
	assert_string_equal(tp_word_note("smoke"), "");
	assert_ptr_equal(tp_driver_of_ops(&tp_mem_ops), tp_driver_of_word("mem"));
	assert_null(tp_driver_of_ops(NULL));
}

static void what_no_weft_uri_leads_over_is_no_choice(void **state)
{
	const struct tp_driver *driver = NULL;
	char text[64];

	assert_int_equal(tp_choice_parse("rdma", &driver), 0);
	assert_string_equal(driver->word, "rdma");
	assert_int_equal(tp_choice_parse("auto", &driver), 0);
	assert_null(driver);
	assert_int_equal(tp_choice_parse("mem", &driver), -EINVAL);
	assert_int_equal(tp_choice_parse("unix", &driver), -EINVAL);
	assert_int_equal(tp_choice_parse("", &driver), -EINVAL);
	assert_string_equal(tp_choices("|", text, sizeof(text)), "auto|rdma|quic|tcp");
	assert_int_equal(strlen(tp_choices(", ", text, 8)), 7); /* cut off, not overrun */
}

static void the_base_is_the_one_that_asks(void **state)
{
	assert_string_equal(tp_base_driver()->word, "tcp");
	for (const struct tp_driver *const *at = tp_drivers; *at; at++)
		assert_true(!(*at)->ask || *at == tp_base_driver());
}

static void offers_are_found_in_a_list(void **state)
{
	static const struct {
		const char *list, *found; /* port:address, … */
	} cases[] = {
		{"", ""},
		{"tcp", ""},
		{"tcp,rdma:10809", "10809: "},
		{"rdma:1:192.0.2.7,tcp,rdma:2:2001:db8::1", "1:192.0.2.7 2:2001:db8::1 "},
		/* An offer that names no host of its own is none. */
		{"rdma:1:127.0.0.1,rdma:1:0.0.0.0,rdma:1:224.0.0.1,rdma:1:::1,rdma:1:fe80::1,rdma:"
		 "1:::ffff:1.2.3.4,rdma:1:a",
			""},
		{"rdma,rdma:,rdma:x,rdmas:1,xrdma:1,rdma:123456789,rdma:7x", ""},
		{",,rdma:3,,", "3: "},
		{"rdma:1:"
		 "012345678901234567890123456789012345678901234567890123456789012345678901234567890"
		 "1234567890123456789,rdma:4",
			"4: "},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		const char *at = cases[i].list;
		char found[128] = "";
		struct tp_offer offer = {.port = "none"}, last = offer;

		while (tp_next_offer(tp_driver_of_word("rdma"), &at, &offer)) {
			snprintf(found + strlen(found), sizeof(found) - strlen(found), "%s:%s ",
				offer.port, offer.address);
			last = offer;
		}
		assert_string_equal(found, cases[i].found);
		/* One that is none changes nothing. */
		assert_string_equal(offer.port, last.port);
		assert_string_equal(offer.address, last.address);
	}
}

static void a_rows_scheme_is_a_uri(void **state)
{
	parse_uri("mem:///scratch");
	assert_ptr_equal(uri.driver, tp_driver_of_word("mem"));
	assert_int_equal(uri.scheme->place, TP_AT_HOME);
	assert_string_equal(uri.region, "scratch");
	char *text = weft_uri_format(&uri);
	assert_string_equal(text, "mem:///scratch");
	free(text);
}

static void a_rows_scheme_is_told_of(void **state)
{
	static const char *const cases[][2] = {
		{"http://h/r", "its scheme is none of weft, nbd, weft+unix, nbd+unix, srp, mem"},
		{"mem://host/r",
			"it has no host, so that there are three slashes; it looks like "
			"mem:///scratch"},
		{"mem:///r?transport=tcp", "what follows '?' is unknown"},
		{"weft://h/r?transport=mem", "transport= is none of auto, rdma, quic, tcp"},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		struct weft_error err = {0};
		assert_int_equal(weft_uri_parse(cases[i][0], &uri, &err), -EINVAL);
		if (!strstr(err.message, cases[i][1]))
			fail_msg("%s: %s", cases[i][0], err.message);
	}
}

static int attach(struct bridge_find *find, struct weft_error *err)
{
	struct bridge_donor_config donor = {.generation = UINT64_C(1) << 32};
	struct bridge_config config = bridge_config_for_tests(NULL);

	config.attach.nr_donors = 1;
	weft_random(donor.id, sizeof(donor.id));
	return bridge_find_and_start(find, &config, &donor, &bridge, err);
}

static void a_uri_leads_to_the_region_through_a_bridge(void **state)
{
	struct bridge_find find = {.choice = NULL};
	struct weft_error err = {0};
	char text[64];

	parse_uri("mem:///scratch");
	find.donors[0].uri = &uri;
	if (attach(&find, &err) < 0)
		fail_msg("%s", err.message);
	assert_string_equal(find.why, "the region is in this process");
	assert_string_equal(status_text("transport", text, sizeof(text)), "mem");
	assert_int_equal(bridge_info(bridge)->size_bytes, MEM_HOME_BYTES);
	fill_pattern(pattern, sizeof(pattern));
	assert_int_equal(do_write(0, 4097, pattern, sizeof(pattern), 0), 0);
	assert_memory_equal((uint8_t *)mem_home.base + 4097, pattern, sizeof(pattern));
	assert_int_equal(do_read(1, 4097, got, sizeof(got)), 0);
	assert_memory_equal(got, pattern, sizeof(got));
	assert_int_equal(bridge_stop(bridge, 1000, NULL), 0);
	bridge_free(bridge);
	bridge = NULL;
}

static void a_scheme_of_one_transport_takes_no_other(void **state)
{
	struct bridge_find find = {.choice = tp_driver_of_word("tcp")};
	struct weft_error err = {0};
	parse_uri("mem:///scratch");
	find.donors[0].uri = &uri;
	assert_int_equal(attach(&find, &err), -EOPNOTSUPP);
	assert_string_equal(err.message,
		"cannot attach over TCP: it is in this process; use --transport auto");
	assert_null(bridge);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_lead_to_transports),
		cmocka_unit_test(what_no_weft_uri_leads_over_is_no_choice),
		cmocka_unit_test(the_base_is_the_one_that_asks),
		cmocka_unit_test(offers_are_found_in_a_list),
		cmocka_unit_test(a_rows_scheme_is_a_uri),
		cmocka_unit_test(a_rows_scheme_is_told_of),
		cmocka_unit_test(a_uri_leads_to_the_region_through_a_bridge),
		cmocka_unit_test(a_scheme_of_one_transport_takes_no_other),
	};

	return cmocka_run_group_tests(tests, NULL, free_uri);
}
