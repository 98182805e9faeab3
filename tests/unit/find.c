/* SPDX-License-Identifier: MIT */
/*
 * The ways to a donor, and the start over the best of them, with a table of its own: a base
 * transport, two that are better, one that this machine cannot use.  All are "mem", behind
 * operations that know which hosts answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/key/held.h"
#include "nbd-bridge/bridge/find.h"
#include "tests/support/bridge-io.h"
#include "transports/mem/mem.h"

static const char *offers; /* what the donor says */
static unsigned nr_asked;
static useconds_t ask_us; /* how long it takes */
static const char
	*answers; /* the better transports' hosts that answer, with spaces between; others refuse */
static int refusal;        /* with this, positive */
static char tried[256];    /* host after host, of the better transports */
static uint32_t answer_ms; /* of the last of those */
static char proved[WEFT_IDENTITY_MAX + 1]; /* what the last that was asked or connected to got */

static void note_key(const struct weft_key *key)
{
	strcpy(proved, key ? key->identity : "");
}

static int better_connect(struct tp *tp, const struct tp_target *target, struct tp_conn **ret,
	struct weft_error *err)
{
	snprintf(tried + strlen(tried), sizeof(tried) - strlen(tried), "%s ", target->host);
	answer_ms = target->answer_ms;
	note_key(target->key);
	if (!strstr(answers, target->host))
		return weft_error_set(err, refusal, "%s does not answer", target->host);
	return tp_mem_ops.connect(tp, target, ret, err);
}

static int base_ask(const struct weft_uri *uri, const struct weft_key *key,
	const char *certificates, uint32_t timeout_ms, int cancel_fd, struct weft_welcome *ret,
	struct weft_key *ret_pass, struct weft_error *err)
{
	nr_asked++;
	usleep(ask_us);
	note_key(key);
	snprintf(ret->offers, sizeof(ret->offers), "%s", offers);
	ret->epoch = 1;
	return 0;
}

static bool fast_offer(const char *offer, struct tp_offer *ret)
{
	return tp_parse_offer("fast", offer, ret);
}

static bool quick_offer(const char *offer, struct tp_offer *ret)
{
	return tp_parse_offer("quick", offer, ret);
}

static bool rare_offer(const char *offer, struct tp_offer *ret)
{
	return tp_parse_offer("rare", offer, ret);
}

static bool wide_offer(const char *offer, struct tp_offer *ret)
{
	return tp_parse_offer("wide", offer, ret);
}

static int rare_usable(struct weft_error *err)
{
	return weft_error_set(err, ENODEV, "there is no such device");
}

static struct tp_ops base_ops, fast_ops, quick_ops, rare_ops, wide_ops;

static const struct tp_scheme base_schemes[] = {
	{
		.name = "old",
		.place = TP_AT_HOST,
		.foreign = true,
		.example = "old://192.0.2.7/x",
		.only = "it is old",
		.why = "it offers nothing else",
	},
	{.name = NULL},
};
static const struct tp_driver rare = {.word = "rare",
	.label = "Rare",
	.ops = &rare_ops,
	.usable = rare_usable,
	.parse_offer = rare_offer};
static const struct tp_driver fast = {.word = "fast",
	.label = "Fast",
	.ops = &fast_ops,
	.parse_offer = fast_offer};
static const struct tp_driver quick = {.word = "quick",
	.label = "Quick",
	.ops = &quick_ops,
	.parse_offer = quick_offer};
static const struct tp_driver wide = {.word = "wide",
	.label = "Wide",
	.ops = &wide_ops,
	.needs_proof = true,
	.far_ms = 50,
	.parse_offer = wide_offer};
static const struct tp_driver base = {.word = "base",
	.label = "Base",
	.schemes = base_schemes,
	.ops = &base_ops,
	.ask = base_ask};
const struct tp_driver *const tp_drivers[] = {&rare, &fast, &quick, &wide, &base, NULL};

static struct weft_uri uri;
static struct bridge_find find;
static char home[64], key_path[128];

static void put_keys(const char *path, const char *lines)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(weft_write_all(fd, lines, strlen(lines)), 0);
	close(fd);
}

static int set_up_home(void **state)
{
	strcpy(home, "/tmp/weft-find-XXXXXX");
	if (!mkdtemp(home))
		return -1;
	setenv("HOME", home, 1);
	unsetenv("WEFT_KEY");
	snprintf(key_path, sizeof(key_path), "%s/.config", home);
	mkdir(key_path, 0700);
	strcat(key_path, "/weft");
	mkdir(key_path, 0700);
	strcat(key_path, "/key");
	return 0;
}

static int tear_down_home(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		remove(key_path);
		*strrchr(key_path, '/') = '\0';
	}
	return 0;
}

static int set_up(void **state)
{
	unlink(key_path);
	proved[0] = '\0';
	base_ops = fast_ops = quick_ops = rare_ops = wide_ops = tp_mem_ops;
	fast_ops.proves_keys = quick_ops.proves_keys = wide_ops.proves_keys = true;
	fast_ops.connect = quick_ops.connect = wide_ops.connect = better_connect;
	nr_asked = 0;
	ask_us = 0;
	tried[0] = '\0';
	answers = "";
	refusal = EHOSTUNREACH;
	memset(&find, 0, sizeof(find));
	return 0;
}

static int tear_down(void **state)
{
	bridge_find_end(&bridge);
	bridge_find_fini(&find);
	weft_uri_fini(&uri);
	return 0;
}

static void parse(const char *text)
{
	struct weft_error err = {0};

	if (weft_uri_parse(text, &uri, &err) < 0)
		fail_msg("%s: %s", text, err.message);
	find.donors[0].uri = &uri;
	find.choice = uri.transport;
}

static int attach(struct weft_error *err)
{
	struct bridge_donor_config donor = {.generation = UINT64_C(1) << 32};
	struct bridge_config config = bridge_config_for_tests(NULL);

	config.attach.nr_donors = 1;
	config.attach.foreign = uri.foreign;
	config.nr_lanes = 1;
	weft_random(donor.id, sizeof(donor.id));
	return bridge_find_and_start(&find, &config, &donor, &bridge, err);
}

static void attached(void)
{
	struct weft_error err = {0};

	if (attach(&err) < 0)
		fail_msg("%s", err.message);
}

static void ways(const char *want)
{
	struct bridge_donor_config config = {.nr_ways = 99};
	struct weft_error no_better = {0}, err = {0};
	char got[256] = "";

	if (bridge_find_ways(&find.donors[0], find.choice, &config, &no_better, &err) < 0)
		fail_msg("%s", err.message);
	for (unsigned i = 0; i < config.nr_ways; i++)
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s@%s:%s ",
			tp_driver_of_ops(config.ways[i].transport)->word, config.ways[i].host,
			config.ways[i].port);
	assert_string_equal(got, want);
}

static void the_fallback_comes_first_and_the_rest_as_the_table_has_it(void **state)
{
	offers = "base,quick:7,fast:9:192.0.2.9,rare:5";
	parse("weft://192.0.2.7:4000/r");
	/* The donor may not know what its address is to others. */
	ways("base@192.0.2.7:4000 fast@192.0.2.9:9 fast@192.0.2.7:9 quick@192.0.2.7:7 ");
}

static void the_address_that_the_user_named_is_tried_first(void **state)
{
	offers = "fast:9:192.0.2.9,fast:9:192.0.2.7,base";
	parse("weft://192.0.2.7/r");
	ways("base@192.0.2.7:10809 fast@192.0.2.7:9 fast@192.0.2.9:9 ");
}

static void a_chosen_transport_is_the_only_way(void **state)
{
	offers = "base,fast:9:192.0.2.9,quick:7";
	parse("weft://192.0.2.7/r?transport=fast");
	ways("fast@192.0.2.9:9 fast@192.0.2.7:9 ");
	offers = "base";
	ways("fast@192.0.2.7:10809 "); /* it may be there over that alone */
}

static void the_base_as_a_choice_asks_nobody(void **state)
{
	offers = "base,fast:9";
	parse("weft://192.0.2.7/r?transport=base");
	ways("base@192.0.2.7:10809 ");
	assert_int_equal(nr_asked, 0);
}

static void a_scheme_of_the_base_asks_nobody(void **state)
{
	offers = "base,fast:9";
	parse("old://192.0.2.7/r");
	ways("base@192.0.2.7:10809 ");
	assert_int_equal(nr_asked, 0);
	attached();
	assert_string_equal(find.why, "it offers nothing else");
}

static void what_is_offered_is_taken(void **state)
{
	offers = "base,fast:9,quick:7";
	answers = "192.0.2.7";
	parse("weft://192.0.2.7/r");
	attached();
	assert_string_equal(tried, "192.0.2.7 ");
	assert_in_range(answer_ms, 1000, 10000);
	assert_memory_equal(find.why, "auto: the donor offers ", 23);
}

static void the_next_is_tried_where_one_does_not_answer(void **state)
{
	offers = "fast:9:192.0.2.9,quick:7:192.0.2.8,base";
	answers = "192.0.2.8";
	parse("weft://192.0.2.7/r");
	attached();
	assert_string_equal(tried, "192.0.2.9 192.0.2.7 192.0.2.8 ");
}

static void the_fallback_is_loud(void **state)
{
	offers = "base,fast:9";
	parse("weft://192.0.2.7/r");
	attached();
	assert_string_equal(tried, "192.0.2.7 ");
	/* What mem says that it offers is none of these. */
	assert_string_equal(find.why, "auto: the donor offers only mem");
}

static void a_donors_own_word_is_final(void **state)
{
	struct weft_error err = {0};

	offers = "base,fast:9";
	refusal = ENOENT;
	parse("weft://192.0.2.7/r");
	assert_int_equal(attach(&err), -ENOENT);
	assert_string_equal(err.message, "192.0.2.7 does not answer");
}

static void nothing_else_is_tried_for_a_chosen_transport(void **state)
{
	struct weft_error err = {0};

	offers = "base,fast:9:192.0.2.9,quick:7";
	parse("weft://192.0.2.7/r?transport=fast");
	assert_int_equal(attach(&err), -EHOSTUNREACH);
	assert_string_equal(tried, "192.0.2.9 192.0.2.7 ");
	assert_int_equal(answer_ms, 0);
	assert_string_equal(find.why, "as told");
}

static void what_this_machine_cannot_use_says_why(void **state)
{
	struct bridge_donor_config config = {.nr_ways = 0};
	struct weft_error no_better = {0}, err = {0};

	offers = "base,rare:5";
	parse("weft://192.0.2.7/r?transport=rare");
	assert_int_equal(bridge_find_ways(&find.donors[0], find.choice, &config, &no_better, &err),
		0);
	assert_int_equal(no_better.code, ENODEV);
	assert_string_equal(no_better.message, "there is no such device");
	assert_int_equal(nr_asked, 0); /* nobody needs to be asked */
	no_better.code = 0; /* whoever tries again is told again */
	assert_int_equal(bridge_find_ways(&find.donors[0], find.choice, &config, &no_better, &err),
		0);
	assert_int_equal(no_better.code, ENODEV);
	assert_int_equal(bridge_find_ways(&find.donors[0], NULL, &config, &no_better, &err), 0);
	assert_int_equal(no_better.code, 0); /* others can be used */
	assert_int_equal(nr_asked, 1);
}

#define SECRET "00112233445566778899aabbccddeeff\n"

/* Whoever has a key for a donor proves it whenever it asks or connects. */
static void a_key_that_is_there_is_used(void **state)
{
	put_keys(key_path, "node7:" SECRET);
	offers = "base,fast:9";
	answers = "192.0.2.7";
	parse("weft://192.0.2.7/r");
	assert_int_equal(bridge_find_keys(&find, 1, NULL), 0);
	ways("base@192.0.2.7:10809 fast@192.0.2.7:9 ");
	assert_string_equal(proved, "node7");
	proved[0] = '\0';
	attached();
	assert_string_equal(proved, "node7");
}

/* For donors that are far away, and for whoever can prove who it is; for all if it is chosen. */
static void what_is_for_wide_networks_is_taken_there(void **state)
{
	offers = "base,wide:9";
	answers = "192.0.2.7";
	parse("weft://192.0.2.7/r");
	ask_us = 60000;
	ways("base@192.0.2.7:10809 ");
	put_keys(key_path, "node7:" SECRET);
	assert_int_equal(bridge_find_keys(&find, 1, NULL), 0);
	ways("base@192.0.2.7:10809 wide@192.0.2.7:9 ");
	attached();
	assert_string_equal(tried, "192.0.2.7 ");
	bridge_find_end(&bridge);

	ask_us = 0;
	base_ops.proves_keys = true;
	ways("base@192.0.2.7:10809 ");
	attached();
	assert_string_equal(tried, "192.0.2.7 ");
	bridge_find_end(&bridge);
	weft_uri_fini(&uri);
	parse("weft://192.0.2.7/r?transport=wide");
	ways("wide@192.0.2.7:9 ");
}

/* Not even the fallback goes on in plaintext. */
static void what_proves_no_key_is_not_used(void **state)
{
	struct weft_error err = {0};

	put_keys(key_path, "node7:" SECRET);
	offers = "base,fast:9";
	parse("weft://192.0.2.7/r");
	assert_int_equal(bridge_find_keys(&find, 1, NULL), 0);
	assert_int_equal(attach(&err), -EOPNOTSUPP);
	assert_non_null(strstr(err.message, "with the key 'node7'"));
	bridge_find_end(&bridge);
	bridge_find_fini(&find);

	find.allow_insecure = true;
	assert_int_equal(bridge_find_keys(&find, 1, NULL), 0);
	attached();
	assert_string_equal(proved, "");
}

static void a_rotation_of_the_file_is_followed(void **state)
{
	put_keys(key_path, "node7:" SECRET);
	offers = "base,fast:9";
	answers = "192.0.2.7";
	parse("weft://192.0.2.7/r");
	strcpy(uri.identity, "node7");
	assert_int_equal(bridge_find_keys(&find, 1, NULL), 0);
	put_keys(key_path, "node7~2:" SECRET);
	assert_true(weft_held_key_renew(find.donors[0].key));
	assert_false(weft_held_key_renew(find.donors[0].key));
	attached();
	assert_string_equal(proved, "node7~2");
}

static void keys_are_refused(int code, const char *message)
{
	struct weft_error err = {0};

	assert_int_equal(bridge_find_keys(&find, 1, &err), code);
	if (!strstr(err.message, message))
		fail_msg("'%s' says nothing of '%s'", err.message, message);
	assert_null(find.donors[0].key);
}

static void a_key_that_is_asked_for_has_to_be_there(void **state)
{
	parse("weft://192.0.2.7/r");
	strcpy(uri.identity, "node7");
	keys_are_refused(-ENOKEY, "cannot use the identity node7: there is no key");
	put_keys(key_path, "other:" SECRET);
	keys_are_refused(-ENOKEY, "has no key of the identity 'node7'");
	find.allow_insecure = true;
	keys_are_refused(-EINVAL, "the identity node7 asks for a key");
	weft_uri_fini(&uri);
	parse("weft://192.0.2.7/r");
	find.key_file = "missing";
	keys_are_refused(-EINVAL, "--key asks for a key");
	find.allow_insecure = false;
	keys_are_refused(-ENOKEY, "/missing");
	put_keys(key_path, "node7:" SECRET "node8:" SECRET);
	find.key_file = NULL;
	keys_are_refused(-ENOKEY, "has 2 keys");
	chmod(key_path, 0644);
	keys_are_refused(-EPERM, "chmod 600");
}

static void only_a_weft_donor_gets_a_key_that_nobody_named(void **state)
{
	put_keys(key_path, "node7:" SECRET);
	parse("old://192.0.2.7/x");
	assert_int_equal(bridge_find_keys(&find, 1, NULL), 0);
	assert_null(find.donors[0].key);
	find.key_file = key_path;
	assert_int_equal(bridge_find_keys(&find, 1, NULL), 0);
	assert_non_null(find.donors[0].key);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(the_fallback_comes_first_and_the_rest_as_the_table_has_it),
		TEST(the_address_that_the_user_named_is_tried_first),
		TEST(a_chosen_transport_is_the_only_way),
		TEST(the_base_as_a_choice_asks_nobody),
		TEST(a_scheme_of_the_base_asks_nobody),
		TEST(what_is_offered_is_taken),
		TEST(the_next_is_tried_where_one_does_not_answer),
		TEST(the_fallback_is_loud),
		TEST(a_donors_own_word_is_final),
		TEST(nothing_else_is_tried_for_a_chosen_transport),
		TEST(what_this_machine_cannot_use_says_why),
		TEST(a_key_that_is_there_is_used),
		TEST(what_is_for_wide_networks_is_taken_there),
		TEST(what_proves_no_key_is_not_used),
		TEST(a_rotation_of_the_file_is_followed),
		TEST(a_key_that_is_asked_for_has_to_be_there),
		TEST(only_a_weft_donor_gets_a_key_that_nobody_named),
	};

	return cmocka_run_group_tests(tests, set_up_home, tear_down_home);
}
