/* SPDX-License-Identifier: MIT */
/*
 * URIs: what is accepted, what is refused and why, and that the canonical text parses to the same.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/driver.h"
#include "tests/support/parse-uri.h"

static void host_port_region_and_transport(void **state)
{
	parse_uri("weft://192.0.2.7:4000/scratch?transport=tcp");
	assert_string_equal(uri.host, "192.0.2.7");
	assert_string_equal(uri.port, "4000");
	assert_string_equal(uri.region, "scratch");
	assert_string_equal(uri.socket, "");
	assert_false(uri.foreign);
	assert_string_equal(uri.transport->word, "tcp");
}

static void an_identity_stands_before_the_host(void **state)
{
	static const char *const canonical[] = {"weft://node7@donor/scratch",
		"weft://node-7.x~2@donor:4000/scratch?transport=tcp",
		"weft://node7@[fe80::1%25eth0]:1/a", "nbd://node7@192.0.2.7/export",
		"weft://donor/scratch"};

	for (size_t i = 0; i < sizeof(canonical) / sizeof(canonical[0]); i++) {
		parse_uri(canonical[i]);
		assert_int_equal(uri.identity[0] != '\0', strchr(canonical[i], '@') != NULL);
		char *text = weft_uri_format(&uri);
		assert_string_equal(text, canonical[i]);
		free(text);
	}
	parse_uri("weft://node%2d7@donor/scratch");
	assert_string_equal(uri.identity, "node-7");
	parse_uri("weft://donor/a@b:c");
	assert_string_equal(uri.identity, "");
}

/* Others see a command line, and errors end up in logs. */
static void a_password_is_refused_and_not_repeated(void **state)
{
	static const char *const texts[] = {"weft://node7:hunter2@donor/scratch",
		"weft://:hunter2@donor", "https://node7:hunter2@donor/scratch",
		"node7:hunter2@donor/scratch", "weft://node7:hunter2@[::1%eth0]/scratch"};
	struct weft_error err;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		assert_int_equal(weft_uri_parse(texts[i], &uri, &err), -EINVAL);
		assert_non_null(strstr(err.message, "a password stands in it"));
		assert_null(strstr(err.message, "hunter2"));
	}
}

static void defaults_are_the_iana_port_and_auto(void **state)
{
	parse_uri("WEFT://donor/");
	assert_string_equal(uri.port, "10809");
	assert_string_equal(uri.region, "");
	assert_null(uri.transport);
	parse_uri("nbd://donor");
	assert_string_equal(uri.region, "");
	assert_true(uri.foreign);
}

static void ipv6_goes_in_brackets(void **state)
{
	parse_uri("weft://[fe80::1]:1/a");
	assert_string_equal(uri.host, "fe80::1");
	assert_string_equal(uri.port, "1");
}

static void an_address_may_have_a_zone(void **state)
{
	static const char *const texts[] = {
		"weft://[fe80::1%eth0]:1/a%25b", "weft://[fe80::1%25eth0]:1/a%25b",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		parse_uri(texts[i]);
		assert_string_equal(uri.host, "fe80::1%eth0");
		assert_string_equal(uri.port, "1");
		assert_string_equal(uri.region, "a%b");
		char *text = weft_uri_format(&uri);
		assert_string_equal(text, texts[1]);
		free(text);
	}
}

static void a_region_may_have_slashes_and_encoded_bytes(void **state)
{
	parse_uri("weft://d/dir/a%20b%2fc");
	assert_string_equal(uri.region, "dir/a b/c");
	parse_uri("nbd://d//abs");
	assert_string_equal(uri.region, "/abs");
}

static void a_unix_socket_is_named_in_the_query(void **state)
{
	parse_uri("weft+unix:///scratch?socket=/run/a%20b.sock");
	assert_string_equal(uri.socket, "/run/a b.sock");
	assert_string_equal(uri.host, "");
	assert_string_equal(uri.region, "scratch");
	assert_false(uri.foreign);
	parse_uri("nbd+unix:///?socket=/s+t");
	assert_string_equal(uri.socket, "/s+t");
	assert_true(uri.foreign);
}

static void what_is_wrong_is_refused_with_a_reason(void **state)
{
	static const struct {
		const char *text, *reason;
	} cases[] = {
		{"", "scheme"},
		{"scratch", "scheme"},
		{"/dev/nbd0", "scheme"},
		{"http://h/r", "scheme"},
		{"nbds://h/r", "scheme"},
		{"weft:///r", "no host"},
		{"weft:r", "no host"},
		{"127.0.0.1:22001/m", "is it weft://127.0.0.1:22001/m?"},
		{"donor/m", "is it weft://donor/m?"},
		{"weft+unix:///m?socket=s",
			"it looks like weft+unix:///scratch?socket=/run/donor.sock"},
		{"nbd+unix:///m", "it looks like nbd+unix:///export?socket=/run/server.sock"},
		{"nbd://h:0/e", "it looks like nbd://192.0.2.7/export"},
		{"weft:/h//r", "no host"},
		{"weft+unix:r?socket=/x", "no host"},
		{"weft://a%20user@h/r", "no identity"},
		{"weft://@h/r", "no identity"},
		{"weft://node7~3@h/r", "no identity"},
		{"weft://a@b@h/r", "wrong at"},
		{"weft+unix://node7@/r?socket=/x", "stands before a host"},
		{"weft://h:0/r", "port"},
		{"weft://h:65536/r", "port"},
		{"weft://h:99999999999999999999/r", "port"},
		{"weft://h:http/r", "wrong at"},
		{"weft://%2Frun%2Fsock/r", "host"},
		{"weft://a%3Ab/r", "host"},
		{"weft://[v1.x]/r", "address"},
		{"weft://[fe80::1%]/r", "interface's name"},
		{"weft://[fe80::1%an-interface-0123]/r", "interface's name"},
		{"weft://[fe80::1%25a/b]/r", "wrong at"},
		{"weft://[fe80::1%25a b]/r", "zone"},
		{"weft://[%25lo]/r", "wrong at"},
		{"weft://h/r#frag", "#"},
		{"weft://h/a%00b", "zero byte"},
		{"weft://h/a%0", "wrong at"},
		{"weft://h/a b", "wrong at"},
		{"weft://h/r?transport=carrier-pigeon", "transport="},
		{"weft://h/r?transport=tcp&transport=rdma", "twice"},
		{"weft://h/r?tls=1", "unknown"},
		{"weft://h/r?socket=/x", "unknown"},
		{"nbd://h/r?transport=rdma", "unknown"},
		{"weft+unix:///r", "socket=PATH"},
		{"weft+unix://h/r?socket=/x", "three slashes"},
		{"weft+unix:///r?socket=x", "absolute"},
		{"weft+unix:///r?socket=/x&socket=/y", "twice"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct weft_uri untouched = {.foreign = true};
		struct weft_error err = {0};

		if (weft_uri_parse(cases[i].text, &untouched, &err) != -EINVAL)
			fail_msg("accepted: %s", cases[i].text);
		if (!strstr(err.message, cases[i].reason))
			fail_msg("%s: '%s' says nothing of '%s'", cases[i].text, err.message,
				cases[i].reason);
		assert_true(untouched.foreign); /* untouched */
	}
}

static void long_names_are_refused(void **state)
{
	char text[9000];
	struct weft_error err;

	memset(text, 'a', sizeof(text));
	memcpy(text, "weft://", 7);
	text[300] = '/';
	text[310] = '\0';
	assert_int_equal(weft_uri_parse(text, &uri, &err), -EINVAL);
	memset(text + 7, 'a', sizeof(text) - 7);
	text[20] = '/';
	text[20 + 4096 + 1] = '\0';
	parse_uri(text);
	text[20 + 4096 + 1] = 'a';
	text[20 + 4096 + 2] = '\0';
	assert_int_equal(weft_uri_parse(text, &uri, &err), -EINVAL);
}

static void the_canonical_text_parses_to_the_same(void **state)
{
	static const struct {
		const char *text, *canonical;
	} cases[] = {
		{"weft://h:10809/r", "weft://h/r"},
		{"weft://h:7/r?transport=rdma", "weft://h:7/r?transport=rdma"},
		{"weft://[::1]/a%2Fb%3f", "weft://[::1]/a/b%3F"},
		{"nbd://h", "nbd://h/"},
		{"weft+unix:///r?socket=%2Ftmp/x%26y", "weft+unix:///r?socket=/tmp/x%26y"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct weft_uri again;
		struct weft_error err;

		parse_uri(cases[i].text);
		char *text = weft_uri_format(&uri);
		assert_string_equal(text, cases[i].canonical);
		assert_int_equal(weft_uri_parse(text, &again, &err), 0);
		assert_string_equal(again.host, uri.host);
		assert_string_equal(again.port, uri.port);
		assert_string_equal(again.socket, uri.socket);
		assert_string_equal(again.region, uri.region);
		assert_int_equal(again.transport, uri.transport);
		assert_int_equal(again.foreign, uri.foreign);
		free(text);
		weft_uri_fini(&again);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(host_port_region_and_transport),
		cmocka_unit_test(an_identity_stands_before_the_host),
		cmocka_unit_test(a_password_is_refused_and_not_repeated),
		cmocka_unit_test(defaults_are_the_iana_port_and_auto),
		cmocka_unit_test(ipv6_goes_in_brackets),
		cmocka_unit_test(an_address_may_have_a_zone),
		cmocka_unit_test(a_region_may_have_slashes_and_encoded_bytes),
		cmocka_unit_test(a_unix_socket_is_named_in_the_query),
		cmocka_unit_test(what_is_wrong_is_refused_with_a_reason),
		cmocka_unit_test(long_names_are_refused),
		cmocka_unit_test(the_canonical_text_parses_to_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, free_uri);
}
