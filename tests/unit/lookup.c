/* SPDX-License-Identifier: MIT */
/* A resident process asks for a name once, and keeps what was found; any other asks each time. */
#include <netdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fabric/base/lookup.h"
#include "fabric/base/resident.h"

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
	struct addrinfo **ret);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
	struct addrinfo **ret);
bool __wrap_weft_is_resident(void);

static unsigned nr_asked;
static bool resident;

/* Every name is 192.0.2.1, but for that of nobody. */
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
	struct addrinfo **ret)
{
	nr_asked++;
	return host[0] == 'n' ? EAI_AGAIN : __real_getaddrinfo("192.0.2.1", port, hints, ret);
}

bool __wrap_weft_is_resident(void)
{
	return resident;
}

static void look(const char *host, const char *port, int wanted)
{
	struct weft_lookup found = {0};

	assert_int_equal(weft_lookup(host, port, 0, &found), wanted);
	if (wanted != 0)
		return;
	assert_int_equal(found.nr, 1);
	assert_int_equal(found.len[0], sizeof(struct sockaddr_in));
	assert_int_equal(found.at[0].ss_family, AF_INET);
}

static void others_ask_each_time(void **state)
{
	resident = false;
	nr_asked = 0;
	look("donor", "10809", 0);
	look("donor", "10809", 0);
	assert_int_equal(nr_asked, 2);
}

static void the_resident_asks_once(void **state)
{
	resident = true;
	nr_asked = 0;
	look("donor", "10809", 0);
	look("donor", "10809", 0);
	assert_int_equal(nr_asked, 1);
	look("donor", "10810", 0);
	look("other", "10809", 0);
	assert_int_equal(nr_asked, 3);
	look("donor", "10809", 0);
	look("other", "10809", 0);
	assert_int_equal(nr_asked, 3);
}

static void what_was_not_found_is_asked_for_again(void **state)
{
	resident = true;
	nr_asked = 0;
	look("nobody", "10809", EAI_AGAIN);
	look("nobody", "10809", EAI_AGAIN);
	assert_int_equal(nr_asked, 2);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(others_ask_each_time),
		cmocka_unit_test(the_resident_asks_once),
		cmocka_unit_test(what_was_not_found_is_asked_for_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
