/* SPDX-License-Identifier: MIT */
/* Finding a transport in the table.  No state, any thread. */
#include "fabric/driver.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"

static bool is_word(const char *word, const char *text)
{
	return word && strcmp(word, text) == 0;
}

/* The same, or with a '+' and more behind it. */
static bool begins_as(const char *word, const char *text)
{
	const size_t len = strcspn(text, "+");

	return word && strlen(word) == len && strncmp(word, text, len) == 0;
}

const struct tp_driver *tp_driver_of_word(const char *word)
{
	for (const struct tp_driver *const *at = tp_drivers; *at; at++)
		if (begins_as((*at)->word, word) || begins_as((*at)->local_word, word))
			return *at;
	return NULL;
}

const char *tp_word_label(const char *word)
{
	const struct tp_driver *driver = tp_driver_of_word(word);

	return driver && is_word(driver->word, word) ? driver->label : word;
}

const char *tp_word_note(const char *word)
{
	const struct tp_driver *driver = tp_driver_of_word(word);

	return driver && driver->plaintext ? ", in plaintext" : "";
}

const struct tp_driver *tp_driver_of_ops(const struct tp_ops *ops)
{
	for (const struct tp_driver *const *at = tp_drivers; *at; at++)
		if (ops && (*at)->ops == ops)
			return *at;
	return NULL;
}

const struct tp_driver *tp_base_driver(void)
{
	const struct tp_driver *const *at = tp_drivers;

	while (*at && !(*at)->ask)
		at++;
	return *at;
}

bool tp_driver_is_choice(const struct tp_driver *driver)
{
	return driver->ask || driver->parse_offer;
}

int tp_choice_parse(const char *text, const struct tp_driver **ret)
{
	const struct tp_driver *driver = NULL;

	if (strcmp(text, "auto") != 0) {
		driver = tp_driver_of_word(text);
		if (!driver || !tp_driver_is_choice(driver) || !is_word(driver->word, text))
			return -EINVAL;
	}
	*ret = driver;
	return 0;
}

const char *tp_choices(const char *between, char *buf, size_t len)
{
	size_t used = (size_t)snprintf(buf, len, "auto");

	for (const struct tp_driver *const *at = tp_drivers; *at && used < len; at++)
		if (tp_driver_is_choice(*at))
			used += (size_t)snprintf(
				buf + used, len - used, "%s%s", between, (*at)->word);
	return buf;
}

bool tp_next_offer(const struct tp_driver *driver, const char **at, struct tp_offer *ret)
{
	char offer[96];

	while (driver->parse_offer && **at) {
		size_t len = strcspn(*at, ",");
		bool fits = len < sizeof(offer);

		if (fits)
			snprintf(offer, sizeof(offer), "%.*s", (int)len, *at);
		*at += len;
		*at += **at == ',';
		if (fits && driver->parse_offer(offer, ret))
			return true;
	}
	return false;
}

void tp_each_offered(const struct tp_driver *driver, const char *offers, const char *host,
	void (*add)(void *ctx, const struct tp_driver *driver, const char *host, const char *port),
	void *ctx)
{
	struct tp_offer offer = {0};

	/* The address by which the donor is known comes first, if it is among them. */
	for (unsigned pass = 0; pass < 2; pass++)
		for (const char *at = offers; tp_next_offer(driver, &at, &offer);)
			if (pass > 0 || offer.address[0] == '\0' ||
				strcmp(offer.address, host) == 0)
				add(ctx, driver, offer.address[0] ? offer.address : host,
					offer.port);
	/* The donor may not know at which address others reach it. */
	if (offer.port[0])
		add(ctx, driver, host, offer.port);
}
