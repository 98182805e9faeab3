/* SPDX-License-Identifier: MIT */
/*
 * Command lines: see arguments.h.  getopt_long(3) has moved the arguments; the kernel still has
 * them as they were given.
 */
#include "fabric/base/arguments.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The option that "--js" stands for; NULL: none, or several. */
static const struct option *find_option(const char *text, const struct option *longs)
{
	const struct option *found = NULL;
	size_t len = strlen(text);

	if (strncmp(text, "--", 2) != 0 || len == 2)
		return NULL;
	for (const struct option *o = longs; o->name; o++) {
		if (strncmp(o->name, text + 2, len - 2) != 0)
			continue;
		if (strlen(o->name) == len - 2)
			return o;
		if (found)
			return NULL;
		found = o;
	}
	return found;
}

/* The option in front of the argument; NULL: there is none that could have taken the argument. */
static const struct option *option_before(const char *argument, const struct option *longs)
{
	FILE *file = fopen("/proc/self/cmdline", "re");
	const struct option *found = NULL;
	char *line = NULL, *before = NULL;
	size_t room = 0;

	while (file && !found && getdelim(&line, &room, '\0', file) > 0) {
		if (before && strcmp(line, argument) == 0)
			found = find_option(before, longs);
		free(before);
		before = strdup(line);
	}
	free(before);
	free(line);
	if (file)
		fclose(file);
	return found && found->has_arg != required_argument ? found : NULL;
}

char *weft_arguments_explain(char *const *arguments, int nr, int wanted, const char *noun,
	const struct option *longs, char *buf, size_t len)
{
	for (int i = 0; i < nr; i++) {
		const struct option *option = option_before(arguments[i], longs);

		/*
		 * Such an argument may be meant as it stands, so it is suspected only when there
		 * are too many.
		 */
		if (!option || (option->has_arg == no_argument && (nr <= wanted || i < wanted)))
			continue;
		if (option->has_arg == optional_argument)
			snprintf(buf, len, "'%s' is not %s: did you mean --%s=%s?", arguments[i],
				noun, option->name, arguments[i]);
		else
			snprintf(buf, len, "'%s' is one too many: --%s takes no value",
				arguments[i], option->name);
		return buf;
	}
	snprintf(buf, len, "'%s' is one too many", nr > wanted ? arguments[wanted] : "");
	return buf;
}
