/* A process that asks the kernel to write back; see settle.h.  Its exit status is the errno. */
#include "nbd-bridge/settle.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/util.h"

#define SETTLE_NAME "weft-settle"

extern char **environ;

static void on_end(struct weft_watch *watch, uint32_t events)
{
	struct bridge_settle *settle = weft_container_of(watch, struct bridge_settle, watch);
	int how = 0, result = -ECHILD;

	if (waitpid(settle->pid, &how, 0) == settle->pid)
		result = WIFEXITED(how) ? -WEXITSTATUS(how) : -EINTR;
	bridge_settle_end(settle);
	settle->done(settle, result);
}

int bridge_settle_begin(struct bridge_settle *settle, struct weft_loop *loop, const char *const *paths, unsigned nr_paths, bool everything,
	void (*done)(struct bridge_settle *settle, int result))
{
	char *argv[BRIDGE_SETTLE_PATHS + 3] = {SETTLE_NAME, everything ? "everything" : "paths"};
	pid_t pid;
	int r;

	if (settle->pid)
		return -EALREADY;
	for (unsigned i = 0; i < nr_paths && i < BRIDGE_SETTLE_PATHS; i++)
		argv[2 + i] = (char *)paths[i];
	/* This very program: the file that it was started from may have been replaced. */
	r = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ);
	if (r != 0)
		return -r;
	settle->loop = loop;
	settle->pid = pid;
	settle->done = done;
	settle->watch.fn = on_end;
	settle->watch.fd = pidfd_open(pid, 0);
	r = settle->watch.fd < 0 ? -errno : weft_loop_add(loop, &settle->watch, EPOLLIN);
	if (r < 0)
		bridge_settle_end(settle);
	return r;
}

void bridge_settle_end(struct bridge_settle *settle)
{
	if (!settle->pid)
		return;
	weft_loop_remove(settle->loop, &settle->watch);
	if (settle->watch.fd >= 0)
		close(settle->watch.fd);
	/* It may still wait for the kernel: whoever comes after us reaps it. */
	kill(settle->pid, SIGKILL);
	waitpid(settle->pid, NULL, WNOHANG);
	settle->pid = 0;
}

static int write_back(const char *path)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return errno;
	return fsync(fd) < 0 ? errno : 0;
}

static int write_all_back(char *const *paths)
{
	int first = 0;

	for (; *paths; paths++) {
		int r = write_back(*paths);

		if (first == 0)
			first = r;
	}
	return first;
}

int bridge_settle_main(int argc, char **argv)
{
	if (argc < 2 || strcmp(argv[0], SETTLE_NAME) != 0)
		return -1;
	prctl(PR_SET_NAME, SETTLE_NAME);
	/* Not a user of anything, least of all of what the bridge's end is to close. */
	close_range(STDERR_FILENO + 1, UINT_MAX, 0);
	int status = write_all_back(argv + 2);
	if (strcmp(argv[1], "everything") == 0) {
		sync(); /* it may wait for others' disks, too */
		status = write_all_back(argv + 2);
	}
	return status;
}
