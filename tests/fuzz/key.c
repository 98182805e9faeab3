/* SPDX-License-Identifier: MIT */
/*
 * Key files and grants: a line that is accepted comes back the same, the borrower's choice is among
 * the lines, and rights that are accepted come back the same from their JSON.  All of it is the
 * file, too, that a key is loaded from.
 */
#include "fabric/key/find.c"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/mman.h>

#include "fabric/key/rights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void lines(struct weft_key_text text)
{
	struct weft_key key, again;
	char buf[WEFT_KEY_LINE_MAX];
	const char *line;
	size_t len;

	while (weft_key_text_line(&text, &line, &len)) {
		if (weft_key_text_parse(&text, line, len, &key, NULL) < 0)
			continue;
		weft_key_format(&key, buf);
		assert(weft_key_parse(buf, strlen(buf), &again, NULL) == 0);
		assert(memcmp(&key, &again, sizeof(key)) == 0);
		assert(weft_identity_valid(key.identity));
		weft_identity_name(key.identity, buf);
		assert(weft_identity_is_of(key.identity, buf));
	}
}

static void choice(struct weft_key_text text, const char *identity)
{
	struct weft_error err;
	struct weft_key key;

	if (choose(&text, identity, &key, &err) == 0) {
		assert(key.secret_bytes >= WEFT_SECRET_MIN && key.secret_bytes <= WEFT_SECRET_MAX);
		assert(!identity || weft_identity_is_of(key.identity, identity) ||
			strcmp(key.identity, identity) == 0);
	}
}

/* The addresses that are let in are in one of the ranges. */
static void ask(const struct weft_rights *rights)
{
	struct sockaddr_in four = {.sin_family = AF_INET};
	struct sockaddr_in6 six = {.sin6_family = AF_INET6};
	const struct sockaddr other = {.sa_family = AF_UNIX};
	bool has_four, has_mapped;

	inet_pton(AF_INET, "10.1.2.3", &four.sin_addr);
	has_four = weft_rights_have_address(rights, (struct sockaddr *)&four);
	inet_pton(AF_INET6, "::ffff:10.1.2.3", &six.sin6_addr);
	has_mapped = weft_rights_have_address(rights, (struct sockaddr *)&six);
	assert(has_four == has_mapped);
	inet_pton(AF_INET6, "fd00::1", &six.sin6_addr);
	weft_rights_have_address(rights, (struct sockaddr *)&six);
	assert(weft_rights_have_address(rights, &other) == (rights->nr_from == 0));
	for (size_t i = 0; i < rights->nr_regions; i++)
		assert(weft_rights_have_region(rights, rights->regions[i]));
	assert(!weft_rights_have_region(rights, "\n") || rights->nr_regions != 1 ||
		strcmp(rights->regions[0], "\n") == 0);
}

static void grants(const char *text, size_t size)
{
	json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	struct weft_rights rights, again;

	if (json && weft_rights_load(json, &rights, NULL) == 0) {
		json_t *once = weft_rights_json(&rights);

		assert(weft_rights_load(once, &again, NULL) == 0);
		json_t *twice = weft_rights_json(&again);
		assert(json_equal(once, twice));
		json_decref(once);
		json_decref(twice);
		ask(&rights);
		weft_rights_fini(&rights);
		weft_rights_fini(&again);
	}
	json_decref(json);
}

static void from_a_file(const char *text, size_t size)
{
	struct weft_key key;
	struct weft_error err;
	char path[32];
	int fd = memfd_create("key", MFD_CLOEXEC);

	assert(fd >= 0 && fchmod(fd, 0600) == 0);
	assert(size == 0 || write(fd, text, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (weft_key_load(path, NULL, &key, &err) == 0)
		assert(weft_identity_valid(key.identity));
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Of its own, so that a byte too many is seen. */
	char *copy = malloc(size);
	struct weft_key_text text = {.path = "key", .text = copy, .len = size};

	if (size > 0)
		memcpy(copy, data, size);
	lines(text);
	choice(text, NULL);
	choice(text, "node7");
	choice(text, "node7~2");
	grants(copy, size);
	from_a_file(copy, size);
	free(copy);
	return 0;
}
