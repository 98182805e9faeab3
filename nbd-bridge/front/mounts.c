/* SPDX-License-Identifier: MIT */
/* The mounts on a path, and clearing away the mount that a dead bridge left.  Any thread. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nbd-bridge/front/front.h"
#include "nbd-bridge/front/mounts.h"
#include "nbd-bridge/front/settle.h"

extern char **environ;

enum { LOOK_MS = 2000 }; /* for an answer of the mounted file system */

/* mountinfo writes spaces and the like as \ooo: proc(5). */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		if (from[0] == '\\' && from[1] && from[2] && from[3]) {
			*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

bool bridge_mounted(const char *path, char *type, size_t len)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char line[2 * PATH_MAX], point[PATH_MAX], fs[64];
	bool found = false;

	if (!file)
		return false;
	while (fgets(line, sizeof(line), file)) {
		const char *tail = strstr(line, " - ");

		if (!tail || sscanf(line, "%*s %*s %*s %*s %4095s", point) != 1 ||
			sscanf(tail, " - %63s", fs) != 1)
			continue;
		unescape(point);
		if (strcmp(point, path) != 0)
			continue;
		/* The last one is on top. */
		found = true;
		snprintf(type, len, "%s", fs);
	}
	fclose(file);
	return found;
}

int bridge_unmount(const char *path, bool lazy)
{
	if (umount2(path, lazy ? MNT_DETACH : 0) == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	/* Without root's rights, FUSE's own helper may do it. */
	char *argv[] = {"fusermount3", "-u", lazy ? "-z" : "-q", "--", (char *)path, NULL};
	pid_t pid;
	int how;
	int r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (r != 0)
		return -r;
	while (waitpid(pid, &how, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(how) && WEXITSTATUS(how) == 0 ? 0 : -EBUSY;
}

int bridge_clear_stale_mount(const char *path, struct weft_error *err)
{
	char type[64] = "";

	if (!bridge_mounted(path, type, sizeof(type)))
		return 0;
	bool ours = strcmp(type, "fuse." BRIDGE_FUSE_SUBTYPE) == 0;
	int r = bridge_settle_look(path, LOOK_MS);
	if (r == -ETIMEDOUT && ours)
		return weft_error_set(err, EBUSY,
			"a weft region is mounted on %s already, and its bridge does not answer; "
			"weft status shows whose",
			path);
	if (r != -ENOTCONN)
		return weft_error_set(err, EBUSY,
			ours ? "a weft region is mounted on %s already; weft status shows whose"
			     : "something is mounted on %s already",
			path);
	if (!ours)
		return weft_error_set(err, ENOTCONN,
			"%s is the mount of a program that died, not of weft's; clear it with: "
			"umount %s "
			"(not as root: fusermount3 -u %s)",
			path, path, path);
	r = bridge_unmount(path, true);
	if (r < 0)
		return weft_error_set(err, -r,
			"cannot clear the dead mount on %s: %s; try: umount -l %s", path,
			strerror(-r), path);
	return 1;
}

void bridge_remove_made_file(const char *path, struct bridge_made_file made)
{
	struct stat st;

	if (made.ino != 0 && lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
		st.st_dev == made.dev && st.st_ino == made.ino && st.st_size == 0)
		unlink(path);
}
