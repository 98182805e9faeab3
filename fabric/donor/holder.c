/* SPDX-License-Identifier: MIT */
/*
 * The daemon's side of memory that outlives it: systemd's descriptor store, or a holder process.
 * Thread: the daemon's main thread.
 */
#include "fabric/donor/holder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "fabric/base/process.h"
#include "fabric/base/util.h"

enum {
	ANSWER_TIMEOUT_S = 5,
	DYING_TRIES = 100, /* of 50 ms, for the daemon before us to die */
};

/* ---- what a daemon before us left ---- */

struct kept {
	struct weft_leftover leftover;
	int conn; /* to the holder, shared by all its leftovers; -1: stored by systemd */
};

struct weft_leftovers {
	struct kept *kept;
	unsigned nr;
	int *conns;
	unsigned nr_conns;
};

/* Takes the descriptors as a leftover, or closes them.  from: the leftover's other fields. */
static void add_kept(struct weft_leftovers *l, int fd, int header_fd, int conn,
	const struct weft_leftover *from)
{
	struct kept k = {.leftover = *from, .conn = conn};
	struct kept *more = reallocarray(l->kept, l->nr + 1, sizeof(*more));

	k.leftover.fd = fd;
	k.leftover.header_fd = header_fd;
	if (more)
		l->kept = more;
	if (!more ||
		weft_region_peek(header_fd, k.leftover.name, &k.leftover.size_bytes,
			&k.leftover.epoch) < 0) {
		close(fd);
		close(header_fd);
		return;
	}
	l->kept[l->nr++] = k;
}

/* A name in the store belongs to two descriptors; the header is the one that is a header. */
static void find_stored(struct weft_leftovers *l, int *fds, char *const *names, int nr_fds)
{
	const struct weft_leftover from = {.stored = true, .ours = true};
	char name[WEFT_MEMORY_NAME_MAX + 1];
	uint64_t size, epoch;

	for (int i = 0; i < nr_fds; i++) {
		if (fds[i] < 0 ||
			strncmp(names[i], WEFT_HOLDER_STORE_NAME, strlen(WEFT_HOLDER_STORE_NAME)) !=
				0 ||
			weft_region_peek(fds[i], name, &size, &epoch) < 0)
			continue;
		for (int j = 0; j < nr_fds; j++) {
			if (j == i || fds[j] < 0 || strcmp(names[i], names[j]) != 0)
				continue;
			add_kept(l, fds[j], fds[i], -1, &from);
			fds[i] = fds[j] = -1;
			break;
		}
	}
}

static int connect_holder(const char *run_dir, const char *name, int *ret_pid)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval bound = {.tv_sec = ANSWER_TIMEOUT_S};
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", run_dir, name) >=
		(int)sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int r = -errno;

		close(fd);
		/*
		 * A holder listens before its socket has this name, so there is no holder any more.
		 */
		if (r == -ECONNREFUSED)
			unlink(addr.sun_path);
		return r;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.uid != geteuid()) {
		close(fd);
		return -EPERM;
	}
	*ret_pid = peer.pid;
	return fd;
}

/* Whether two lists of places, one to a line, have one in common. */
static bool share_a_place(const char *a, const char *b)
{
	while (*a) {
		size_t n = strcspn(a, "\n");

		for (const char *p = b; *p; p += strcspn(p, "\n"), p += *p == '\n')
			if (strcspn(p, "\n") == n && memcmp(a, p, n) == 0)
				return true;
		a += n;
		a += *a == '\n';
	}
	return false;
}

/* 0: its regions are taken (or it has none); -EBUSY: its daemon lives, or seems to. */
static int take_from_holder(struct weft_leftovers *l, const char *run_dir, const char *name,
	const char *places, bool *ret_dying)
{
	/* not ours until the holder says its daemon's places */
	struct weft_leftover from = {.place = "?"};
	char text[WEFT_HOLDER_MESSAGE_MAX], theirs[WEFT_HOLDER_MESSAGE_MAX];
	unsigned nr_fds, before = l->nr;
	int fds[2], r, at = 0;

	*ret_dying = false;
	int fd = connect_holder(run_dir, name, &from.holder_pid);
	if (fd < 0)
		return 0;
	r = weft_holder_send(fd, "take", NULL, 0);
	while (r == 0 && (r = weft_holder_receive(fd, text, fds, &nr_fds)) > 0) {
		int daemon_pid;

		if (nr_fds == 2 && strncmp(text, "region ", 7) == 0) {
			add_kept(l, fds[0], fds[1], fd, &from);
			r = 0;
			continue;
		}
		for (unsigned i = 0; i < nr_fds; i++)
			close(fds[i]);
		if (sscanf(text, "kept %u %n", &from.seconds, &at) == 1 && at > 0) {
			from.ours = share_a_place(text + at, places);
			snprintf(from.place, sizeof(from.place), "%.*s",
				(int)strcspn(text + at, "\n"), text + at);
			r = 0;
			continue;
		}
		if (sscanf(text, "busy %d %[^\n]", &daemon_pid, theirs) == 2) {
			/* We have bound the daemon's place, so the daemon is dying, or dead. */
			*ret_dying =
				share_a_place(theirs, places) || weft_process_is_dying(daemon_pid);
			r = -EBUSY;
		}
		break;
	}
	int *conns =
		l->nr > before ? reallocarray(l->conns, l->nr_conns + 1, sizeof(*conns)) : NULL;
	if (!conns) {
		close(fd);
		return r == -EBUSY ? r : 0;
	}
	l->conns = conns;
	l->conns[l->nr_conns++] = fd;
	return 0;
}

/* tries: how often to ask while its daemon is dying; places: this daemon's. */
static int find_held(struct weft_leftovers *l, const char *places, int tries)
{
	char run_dir[108];
	int r = weft_run_dir(run_dir, sizeof(run_dir));

	if (r < 0)
		return 0;
	DIR *dir = opendir(run_dir);
	if (!dir)
		return 0;
	for (struct dirent *e; (e = readdir(dir));) {
		size_t n = strlen(e->d_name);
		bool dying = true;

		if (strncmp(e->d_name, WEFT_HOLDER_PREFIX, strlen(WEFT_HOLDER_PREFIX)) != 0 ||
			n < 5 || strcmp(e->d_name + n - 5, ".sock") != 0)
			continue;
		for (int i = 0; i < tries; i++) {
			if (take_from_holder(l, run_dir, e->d_name, places, &dying) != -EBUSY ||
				!dying)
				break;
			if (i + 1 < tries)
				poll(NULL, 0, 50);
		}
	}
	closedir(dir);
	return 0;
}

int weft_leftovers_find(const char *places, int *fds, char *const *names, int nr_fds,
	struct weft_leftovers **ret)
{
	struct weft_leftovers *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	find_stored(l, fds, names, nr_fds);
	find_held(l, places, DYING_TRIES);
	*ret = l;
	return 0;
}

int weft_leftovers_look(struct weft_leftovers **ret)
{
	struct weft_leftovers *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	find_held(l, "", 1);
	*ret = l;
	return 0;
}

const struct weft_leftover *weft_leftovers_at(const struct weft_leftovers *leftovers, unsigned i)
{
	return i < leftovers->nr ? &leftovers->kept[i].leftover : NULL;
}

const struct weft_leftover *weft_leftovers_get(const struct weft_leftovers *leftovers,
	const char *name)
{
	const struct weft_leftover *found = NULL;

	for (unsigned i = 0; i < leftovers->nr; i++) {
		const struct weft_leftover *left = &leftovers->kept[i].leftover;

		if (strcmp(left->name, name) == 0 && (!found || (left->ours && !found->ours)))
			found = left;
	}
	return found;
}

void weft_leftovers_done(struct weft_leftovers *leftovers, const struct weft_leftover *leftover)
{
	const struct kept *k = weft_container_of(leftover, struct kept, leftover);
	char text[64];

	if (k->conn < 0)
		return; /* it is stored under the same name as before */
	snprintf(text, sizeof(text), "drop %016" PRIx64, leftover->epoch);
	weft_holder_send(k->conn, text, NULL, 0);
}

void weft_leftovers_free(struct weft_leftovers *leftovers)
{
	if (!leftovers)
		return;
	for (unsigned i = 0; i < leftovers->nr; i++) {
		close(leftovers->kept[i].leftover.fd);
		close(leftovers->kept[i].leftover.header_fd);
	}
	for (unsigned i = 0; i < leftovers->nr_conns; i++)
		close(leftovers->conns[i]);
	free(leftovers->conns);
	free(leftovers->kept);
	free(leftovers);
}

/* ---- who keeps ours ---- */

struct weft_holder {
	int fd; /* -1: systemd's store */
	pid_t pid;
	unsigned nr_free; /* the store's room; systemd silently drops descriptors beyond it */
};

extern char **environ;

static int spawn(const char *program, const char *places, unsigned keep_s, int fd, pid_t *ret)
{
	char keep[16];
	char *argv[] = {(char *)"weftholder", keep, (char *)places, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;

	snprintf(keep, sizeof(keep), "%u", keep_s);
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
	posix_spawn_file_actions_adddup2(&actions, 0, 1);
	posix_spawn_file_actions_adddup2(&actions, 0, 2);
	posix_spawn_file_actions_adddup2(&actions, fd, WEFT_HOLDER_FD);
	/* A session of its own: signals that end ours, such as a terminal's ^C, do not reach it. */
	posix_spawnattr_setflags(&attr,
		POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	int r = -posix_spawn(ret, program, &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

int weft_holder_start(const char *places, unsigned keep_s, struct weft_holder **ret,
	struct weft_error *err)
{
	struct weft_holder *holder = calloc(1, sizeof(*holder));
	char program[PATH_MAX], text[WEFT_HOLDER_MESSAGE_MAX];
	struct timeval bound = {.tv_sec = ANSWER_TIMEOUT_S};
	unsigned nr_fds;
	int pair[2], fds[2], r;

	if (!holder)
		return weft_error_set(err, ENOMEM, "no memory");
	holder->fd = -1;
	if (weft_program_beside("weftholder", program, sizeof(program)) < 0) {
		free(holder);
		return weft_error_set(err, ENOENT, "cannot tell where this program is");
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		r = weft_error_set(err, errno, "cannot make a socket pair: %s", strerror(errno));
		free(holder);
		return r;
	}
	if (pair[1] == WEFT_HOLDER_FD) /* dup2(2) to itself would leave O_CLOEXEC on */
		fcntl(pair[1], F_SETFD, 0);
	signal(SIGCHLD, SIG_IGN); /* it may end before us */
	r = spawn(program, places, keep_s, pair[1], &holder->pid);
	close(pair[1]);
	if (r < 0) {
		close(pair[0]);
		free(holder);
		return weft_error_set(err, -r, "cannot start %s: %s", program, strerror(-r));
	}
	/*
	 * We wait for the holder not only to know that it works.  Until it runs its own program it
	 * has our descriptors too, and a port that we gave up would stay taken for a moment.
	 */
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound));
	r = weft_holder_receive(pair[0], text, fds, &nr_fds);
	if (r < 0 || strncmp(text, "down ", 5) == 0) {
		close(pair[0]);
		free(holder);
		if (r < 0)
			return weft_error_set(err, -r, "%s did not start: %s", program,
				r == -EAGAIN          ? "it said nothing for 5 s"
					: r == -EPIPE ? "it ended at once"
						      : strerror(-r));
		return weft_error_set(err, EIO,
			"its holder cannot make %s (see WEFT_RUN_DIR in weft(1))", text + 5);
	}
	holder->fd = pair[0];
	*ret = holder;
	return 0;
}

int weft_holder_store(unsigned nr_free, struct weft_holder **ret)
{
	struct weft_holder *holder = calloc(1, sizeof(*holder));

	if (!holder)
		return -ENOMEM;
	holder->fd = -1;
	holder->nr_free = nr_free;
	*ret = holder;
	return 0;
}

int weft_holder_hold(struct weft_holder *holder, const struct weft_region *region,
	struct weft_error *err)
{
	int fds[2] = {region->fd, region->header_fd}, none[2], r;
	char text[96], answer[WEFT_HOLDER_MESSAGE_MAX];
	unsigned nr_fds;

	if (holder->fd < 0) {
		if (holder->nr_free < 2)
			return weft_error_set(err, ENOSPC,
				"a crash of this program would lose region '%s': systemd's "
				"descriptor store is full; raise FileDescriptorStoreMax= in the "
				"unit, by two for each region",
				region->name);
		holder->nr_free -= 2;
		snprintf(text, sizeof(text),
			"FDSTORE=1\nFDNAME=" WEFT_HOLDER_STORE_NAME "%016" PRIx64, region->epoch);
		r = sd_pid_notify_with_fds(0, 0, text, fds, 2);
		if (r > 0)
			r = 0;
	} else {
		snprintf(text, sizeof(text), "hold %016" PRIx64 " ack", region->epoch);
		r = weft_holder_send(holder->fd, text, fds, 2);
		if (r == 0)
			r = weft_holder_receive(holder->fd, answer, none, &nr_fds);
		if (r > 0)
			r = strcmp(answer, "held") == 0 ? 0 : -ENOSPC;
	}
	if (r < 0)
		return weft_error_set(err, -r, "a crash of this program would lose region '%s': %s",
			region->name,
			r == -ENOSPC ? "its holder has no room for more; raise the limit of open "
				       "files (ulimit -n)"
				     : strerror(-r));
	return 0;
}

void weft_holder_drop(struct weft_holder *holder, const struct weft_region *region)
{
	char text[96];

	if (!holder)
		return;
	if (holder->fd < 0) {
		snprintf(text, sizeof(text),
			"FDSTOREREMOVE=1\nFDNAME=" WEFT_HOLDER_STORE_NAME "%016" PRIx64,
			region->epoch);
		sd_notify(0, text);
		holder->nr_free += 2;
		return;
	}
	snprintf(text, sizeof(text), "drop %016" PRIx64, region->epoch);
	weft_holder_send(holder->fd, text, NULL, 0);
}

int weft_holder_fd(const struct weft_holder *holder)
{
	return holder->fd;
}

int weft_holder_pid(const struct weft_holder *holder)
{
	return holder ? holder->pid : 0;
}

void weft_holder_end(struct weft_holder *holder, bool keep)
{
	if (!holder)
		return;
	if (holder->fd >= 0) {
		if (!keep)
			weft_holder_send(holder->fd, "bye", NULL, 0);
		close(holder->fd);
	}
	free(holder);
}
