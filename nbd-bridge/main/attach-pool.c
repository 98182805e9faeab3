/* SPDX-License-Identifier: MIT */
/*
 * weft attach pool:NAME: where a lease's copies are.  weft pool asks the coordinator, as a program
 * of its own: the bridge may be swapped to, and has no use for a library of HTTP.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/options.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "nbd-bridge/main/attach-options.h"

extern char **environ;

static int spawn(const char *name, int out, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	char program[PATH_MAX];
	char *const argv[] = {"weft-pool", "uris", (char *)name, NULL};
	int r = weft_program_beside("weft-pool", program, sizeof(program));

	if (r < 0)
		return r;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out, 1);
	r = -posix_spawn(ret, program, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

/* What it prints, as a text; it has said itself what is wrong. */
static int run(const char *name, char *ret, size_t size)
{
	size_t used = 0;
	int pipe_fds[2], status = -1;
	ssize_t n = 0;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	int r = spawn(name, pipe_fds[1], &pid);
	close(pipe_fds[1]);
	while (r == 0 && used < size - 1 &&
		((n = read(pipe_fds[0], ret + used, size - 1 - used)) > 0 ||
			(n < 0 && errno == EINTR)))
		used += n > 0 ? (size_t)n : 0;
	ret[used] = '\0';
	close(pipe_fds[0]);
	if (r < 0)
		return r;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECHILD;
}

int attach_pool_find(const char *name, char *uris[BRIDGE_MAX_DONORS], unsigned *ret_nr)
{
	char text[4096], *at = text, *line, *lines[BRIDGE_MAX_DONORS];
	unsigned nr = 0;
	int r = run(name, text, sizeof(text));

	if (r < 0 && r != -ECHILD)
		fprintf(stderr, "weft-attach: weft pool cannot be asked for '%s': %s\n", name,
			strerror(-r));
	if (r < 0)
		return 1;
	while ((line = strsep(&at, "\n")) && nr < BRIDGE_MAX_DONORS)
		if (line[0])
			lines[nr++] = line;
	if (nr == 0) {
		fprintf(stderr, "weft-attach: lease '%s' is nowhere\n", name);
		return 1;
	}
	for (unsigned i = 0; i < nr; i++)
		uris[i] = strdup(lines[i]);
	*ret_nr = nr;
	return WEFT_GO_ON;
}
