/* SPDX-License-Identifier: MIT */
#include "fabric/base/step.h"

#ifdef WEFT_STEPS
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"

static void note(const char *path, const char *name)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	char line[80] = "";

	strncat(line, name, sizeof(line) - 2);
	strcat(line, "\n");
	if (fd >= 0)
		weft_write_all(fd, line, strlen(line));
}

void weft_step(const char *name)
{
	static _Atomic bool was_done;
	const char *wish = getenv("WEFT_STEP"), *log = getenv("WEFT_STEPS_LOG");
	const size_t len = strlen(name);

	if (log)
		note(log, name);
	if (!wish || strncmp(wish, name, len) != 0 || wish[len] != '=' ||
		atomic_exchange(&was_done, true))
		return;
	raise(strcmp(wish + len + 1, "stop") == 0 ? SIGSTOP : SIGKILL);
}
#endif
