/* SPDX-License-Identifier: MIT */
/* The log of a bridge in the background. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/main/attach.h"

int attach_log_path(const struct attach_options *o, char *path, size_t len)
{
	char dir[128];
	int r = weft_run_dir(dir, sizeof(dir));

	return r < 0 ? r : snprintf(path, len, "%s/attach-%s.log", dir, o->name);
}

void attach_log_to_file(const struct attach_options *o)
{
	char path[256];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), log = -1;

	if (attach_log_path(o, path, sizeof(path)) > 0)
		log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	dup2(null, 0);
	dup2(null, 1);
	dup2(log >= 0 ? log : null, 2);
	weft_close_fd(log);
	close(null);
}
