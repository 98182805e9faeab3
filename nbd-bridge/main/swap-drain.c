/* SPDX-License-Identifier: MIT */
/*
 * Ends swap spaces: see swap-drain.h.
 *
 * swapoff(2) may take minutes.  A child of ours sits in it: a signal makes the kernel give up and
 * put the space back as it was, and when memory runs out meanwhile, the kernel kills whoever sits
 * in swapoff(2) before anybody else.
 */
#include "nbd-bridge/main/swap-drain.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/main/swap-kernel.h"
#include "nbd-bridge/main/swap-run.h"

enum {
	LOOK_MS = 100,
	TELL_MS = 1000,
	/* Of what is available: the kernel's own needs, and what others take meanwhile. */
	SPARE_DIVISOR = 16,
};

static bool is_ours(const struct swap_note *note, const char *path)
{
	for (size_t i = 0; i < note->nr_members; i++)
		if (strcmp(note->members[i].device, path) == 0)
			return true;
	return false;
}

/* -ENOMEM too if the job's own group may not have it all in memory. */
static int check_group(const struct swap_note *note, struct weft_error *err)
{
	char path[SWAP_PATH_MAX + 32], line[64], need_text[32], room_text[32];
	uint64_t numbers[3];
	static const char *const files[] = {"memory.max", "memory.current", "memory.swap.current"};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", note->group, files[i]);
		if (!note->group[0] || !swap_read_line(path, line, sizeof(line)) ||
			sscanf(line, "%" SCNu64, &numbers[i]) != 1)
			return 0; /* no limit */
	}
	uint64_t room = numbers[0] > numbers[1] ? numbers[0] - numbers[1] : 0;
	if (numbers[2] <= room)
		return 0;
	return weft_error_set(err, ENOMEM,
		"%s has %s in swap, and its memory.max leaves room for %s: bringing it back would "
		"have the kernel kill its processes; end some of them, raise memory.max, or add "
		"--force",
		note->group, weft_format_size(numbers[2], need_text, sizeof(need_text)),
		weft_format_size(room, room_text, sizeof(room_text)));
}

int swap_drain_check(const struct swap_note *note, struct weft_error *err)
{
	uint64_t need = 0, elsewhere = 0, available = swap_memory_available();
	char need_text[32], have_text[32], free_text[32];
	struct swap_spaces spaces;

	int r = swap_spaces_read(&spaces);
	if (r < 0)
		return weft_error_set(err, -r, "cannot read /proc/swaps: %s", strerror(-r));
	for (size_t i = 0; i < spaces.nr; i++)
		if (is_ours(note, spaces.at[i].path))
			need += spaces.at[i].used_bytes;
		else if (!spaces.at[i].is_compressed_memory && !spaces.at[i].is_gone)
			elsewhere += spaces.at[i].size_bytes - spaces.at[i].used_bytes;
	if (need == 0)
		return 0;
	available -= available / SPARE_DIVISOR;
	if (need > available + elsewhere)
		return weft_error_set(err, ENOMEM,
			"memory does not suffice: %s are swapped out to '%s', and %s of memory are "
			"available, %s of other swap are free; end something that needs memory "
			"(weft swap status shows who holds swapped pages), or add --force",
			weft_format_size(need, need_text, sizeof(need_text)), note->name,
			weft_format_size(available, have_text, sizeof(have_text)),
			weft_format_size(elsewhere, free_text, sizeof(free_text)));
	return check_group(note, err);
}

/* ---- swapoff(2) ---- */

static void sit_in_swapoff(const char *device, int result_fd)
{
	int error;

	swap_signals_release();
	/* Without us nobody would know that it goes on. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	error = swapoff(device) < 0 ? errno : 0;
	if (write(result_fd, &error, sizeof(error)) != sizeof(error))
		_exit(1);
	_exit(0);
}

struct progress {
	uint64_t begin_bytes, begin_ns, told_ns;
	bool told;
};

static uint64_t used_bytes(const char *device)
{
	struct swap_spaces spaces;

	swap_spaces_read(&spaces);
	const struct swap_space *space = swap_spaces_find(&spaces, device);
	return space ? space->used_bytes : 0;
}

static void tell(struct progress *progress, const char *device)
{
	const uint64_t now_ns = weft_now_ns(), left = used_bytes(device);
	char left_text[32], begin_text[32];
	uint64_t done = progress->begin_bytes > left ? progress->begin_bytes - left : 0;

	if (now_ns - progress->told_ns < TELL_MS * UINT64_C(1000000) || left == 0)
		return;
	progress->told_ns = now_ns;
	progress->told = true;
	weft_format_size(left, left_text, sizeof(left_text));
	weft_format_size(progress->begin_bytes, begin_text, sizeof(begin_text));
	if (done == 0)
		fprintf(stderr, "weft-swap: %s: %s to bring back\n", device, left_text);
	else
		fprintf(stderr, "weft-swap: %s: %s of %s to bring back, about %.0f s\n", device,
			left_text, begin_text,
			(double)(now_ns - progress->begin_ns) / 1e9 * (double)left / (double)done);
}

/* Until the child ends; a signal of ours ends it. */
static void attend(pid_t pid, const char *device, struct progress *progress)
{
	WEFT_CLEANUP_CLOSE int pidfd = pidfd_open(pid, 0);
	struct pollfd ended = {.fd = pidfd, .events = POLLIN};
	bool interrupted = false;

	while (pidfd >= 0 && poll(&ended, 1, LOOK_MS) <= 0) {
		tell(progress, device);
		if (!interrupted && swap_signals_came()) {
			interrupted = true;
			kill(pid, SIGTERM);
		}
	}
}

/* What became of the child, whose error (-1: it gave none) and status these are. */
static int judge(const char *device, int error, int status, struct weft_error *err)
{
	char left[32];

	weft_format_size(used_bytes(device), left, sizeof(left));
	if (error == 0 || error == EINVAL) /* EINVAL: it is no swap space any more */
		return 0;
	if (error == EINTR || (error < 0 && WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL))
		return weft_error_set(err, EINTR,
			"interrupted: %s is swap space still, with %s in it, and nothing is lost",
			device, left);
	if (error == ENOMEM || error < 0)
		return weft_error_set(err, ENOMEM,
			"memory ran out: %s is swap space still, with %s in it, and nothing is "
			"lost; end something that needs memory, then try again",
			device, left);
	if (error == EIO)
		return weft_error_set(err, EIO,
			"%s is swap space still: its donor does not have the pages, and some are "
			"of "
			"shared memory or of files on a tmpfs; remove those, then try again",
			device);
	return weft_error_set(err, error, "swapoff %s: %s", device, strerror(error));
}

int swap_drain(const char *device, struct weft_error *err)
{
	struct progress progress = {.begin_bytes = used_bytes(device), .begin_ns = weft_now_ns()};
	int fds[2], error = -1, status = 0;
	struct swap_spaces spaces;

	swap_spaces_read(&spaces);
	const struct swap_space *space = swap_spaces_find(&spaces, device);
	if (!space)
		return 0;
	if (space->is_gone)
		return weft_error_set(err, ENODEV,
			"%s was removed under its swap space: what was in it is lost, and the "
			"kernel keeps an empty entry for it until this machine is restarted",
			device);
	if (pipe2(fds, O_CLOEXEC) < 0)
		return weft_error_set(err, errno, "cannot make a pipe: %s", strerror(errno));
	progress.told_ns = progress.begin_ns;
	pid_t pid = fork();
	if (pid == 0)
		sit_in_swapoff(device, fds[1]);
	const int forked = pid < 0 ? errno : 0;
	close(fds[1]);
	if (pid > 0) {
		attend(pid, device, &progress);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		if (read(fds[0], &error, sizeof(error)) != sizeof(error))
			error = -1;
	}
	close(fds[0]);
	if (forked)
		return weft_error_set(err, forked, "cannot fork: %s", strerror(forked));
	return judge(device, error, status, err);
}
