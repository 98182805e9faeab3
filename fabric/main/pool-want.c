/* SPDX-License-Identifier: MIT */
/* What a job asks for, as one of the words of its comment, its licences or an option. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/main/pool-job.h"

static const char *const forms[POOL_NR_FORMS] = {
	[POOL_FILE] = "file",
	[POOL_DEVICE] = "device",
	[POOL_SWAP] = "swap",
};

const char *pool_form_name(enum pool_form form)
{
	return form < POOL_NR_FORMS ? forms[form] : NULL;
}

bool pool_form_parse(const char *name, enum pool_form *ret)
{
	for (int i = 0; i < POOL_NR_FORMS; i++)
		if (strcmp(name, forms[i]) == 0) {
			*ret = (enum pool_form)i;
			return true;
		}
	return false;
}

/* Behind "weft=" or "weft:", which begins a word; NULL: it is not there. */
static const char *find_wish(const char *text)
{
	for (const char *at = text; (at = strstr(at, "weft")); at++)
		if ((at == text || strchr(" \t,;", at[-1])) && (at[4] == '=' || at[4] == ':'))
			return at + 4;
	return NULL;
}

static int no_wish(const char *text, struct weft_error *err)
{
	return weft_error_set(err, EINVAL,
		"'%.100s' asks for nothing that there is: weft=SIZE[,copies=1|2|3]"
		"[,as=file|device|swap], or the licence weft:GIBIBYTES",
		text);
}

static bool take_part(const char *part, struct pool_want *want)
{
	if (strncmp(part, "as=", 3) == 0)
		return pool_form_parse(part + 3, &want->form);
	if (strncmp(part, "copies=", 7) != 0 || part[7] < '1' || part[7] > '3' || part[8])
		return false;
	want->copies = part[7] - '0';
	return true;
}

/* A licence is counted for the job, whose nodes share what it stands for. */
static int take_licence(const char *text, const char *wish, unsigned nr_nodes,
	struct pool_want *want, struct weft_error *err)
{
	char *end;
	const unsigned long gib = strtoul(wish, &end, 10);

	if (!isdigit((unsigned char)wish[0]) || gib == 0 || gib > 1u << 20 ||
		(*end && *end != ',' && !isspace((unsigned char)*end)))
		return no_wish(text, err);
	want->size_bytes = weft_whole_pages(gib * WEFT_GIB / nr_nodes);
	return 0;
}

static int take_words(const char *text, const char *wish, struct pool_want *want,
	struct weft_error *err)
{
	char buf[128], *at = buf, *part;
	const size_t len = strcspn(wish, " \t;");

	if (len >= sizeof(buf))
		return no_wish(text, err);
	snprintf(buf, sizeof(buf), "%.*s", (int)len, wish);
	if (weft_parse_size(strsep(&at, ","), &want->size_bytes) < 0 || want->size_bytes == 0)
		return no_wish(text, err);
	while ((part = strsep(&at, ",")))
		if (!take_part(part, want))
			return no_wish(text, err);
	if (want->form == POOL_SWAP && want->copies > 1)
		return weft_error_set(err, EINVAL, "swap space has one copy: '%.100s'", text);
	return 0;
}

int pool_want_parse(const char *text, unsigned nr_nodes, struct pool_want *ret,
	struct weft_error *err)
{
	const char *wish = text ? find_wish(text) : NULL;
	struct pool_want want = {.copies = 1, .is_asked = wish != NULL};
	int r = 0;

	*ret = want;
	if (wish)
		r = wish[0] == ':' ? take_licence(text, wish + 1, nr_nodes, &want, err)
				   : take_words(text, wish + 1, &want, err);
	if (r == 0)
		*ret = want;
	return r;
}
