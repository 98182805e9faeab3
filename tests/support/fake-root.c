/* SPDX-License-Identifier: MIT */
/* A machine of a test's: see fake-root.h. */
#include "tests/support/fake-root.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fabric/machine/finding.h"

static char root[] = "/tmp/weft-fake-root.XXXXXX", run_dir[sizeof(root) + 8];

int fake_root_make(void)
{
	if (!mkdtemp(root))
		return -1;
	snprintf(run_dir, sizeof(run_dir), "%s/run", root);
	facts_root = root;
	return setenv("WEFT_RUN_DIR", run_dir, 1);
}

int fake_root_remove(void)
{
	char command[sizeof(root) + 16];

	snprintf(command, sizeof(command), "rm -rf '%s'", root);
	return system(command) == 0 ? 0 : -1;
}

void fake_root_clear(void)
{
	char command[sizeof(root) + sizeof(run_dir) + 48];

	snprintf(command, sizeof(command), "rm -rf '%s'/* && mkdir -m 700 '%s'", root, run_dir);
	assert_int_equal(system(command), 0);
}

void fake_root_put(const char *path, const char *text)
{
	char full[PATH_MAX];

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = '\0';
		mkdir(full, 0700);
		*slash = '/';
	}
	FILE *out = fopen(full, "w");
	assert_non_null(out);
	fputs(text, out);
	fclose(out);
}

const char *fake_root_get(const char *path)
{
	static char line[256];

	assert_true(facts_line(path, "", line, sizeof(line)));
	return line;
}

const char *fake_root_run_dir(void)
{
	return run_dir;
}
