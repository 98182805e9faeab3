/* SPDX-License-Identifier: MIT */
/*
 * Storms that take a machine's memory away, and what watches whether the machine lives through
 * them (shell/swap-storms.sh).
 *
 *   swap-storm allocate SECONDS MIB    a process has so much memory, writes to all of it, gives it
 *                                      back, and begins again; when it is killed, another begins
 *   swap-storm fork SECONDS MIB        processes are made by dozens, and each copies a part of
 *                                      its parent's memory by writing to it
 *   swap-storm files SECONDS MIB PATH  a file is written, and read through a mapping
 *   swap-storm sink SECONDS MIB PORT   datagrams are let lie in the kernel's memory, up to so much
 *   swap-storm flood SECONDS IP PORT   sends them
 *   swap-storm watch SECONDS STALL PROGRESS
 *       looks each second whether the number in the file PROGRESS goes on (swap-load ... busy), and
 *       whether pages go to swap and come from there.  When either has not for STALL seconds, the
 *       kernel's log, and the console, get the stack of every task.  Prints the longest pauses;
 *       ends with 1 after one of STALL.
 *
 * Storms give themselves to the killer for want of memory first; the watch is locked in memory, is
 * killed last, and makes nothing new once it has begun.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, FORKS = 24, DATAGRAM = 1400 };

static double end_s;

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void rest(double s)
{
	const struct timespec ts = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};

	nanosleep(&ts, NULL);
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static uint8_t *new_memory(size_t bytes)
{
	uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Bytes that do not compress: each page's follow from its number. */
static void touch(uint8_t *memory, size_t pages, uint64_t seed)
{
	for (size_t page = 0; page < pages; page++)
		for (size_t i = 0; i < PAGE; i += 64)
			*(uint64_t *)(memory + page * PAGE + i) =
				(seed + page * PAGE + i) * UINT64_C(0x9e3779b97f4a7c15);
}

/* ---- storms ---- */

static void allocate_once(size_t bytes, uint64_t seed)
{
	uint8_t *memory = new_memory(bytes);

	if (!memory)
		return;
	touch(memory, bytes / PAGE, seed);
	munmap(memory, bytes);
}

static int allocate(size_t bytes)
{
	unsigned nr = 0, killed = 0;

	while (now_s() < end_s) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			while (now_s() < end_s)
				allocate_once(bytes, (uint64_t)getpid() << 32);
			_exit(0);
		}
		if (pid < 0) {
			rest(0.1);
			continue;
		}
		waitpid(pid, &status, 0);
		nr++;
		killed += WIFSIGNALED(status);
	}
	printf("allocate: %u processes, %u killed\n", nr, killed);
	return 0;
}

static int fork_many(size_t bytes)
{
	uint8_t *memory = new_memory(bytes);
	unsigned long nr = 0, failed = 0;

	if (!memory)
		return 3;
	touch(memory, bytes / PAGE, 1);
	while (now_s() < end_s) {
		for (int i = 0; i < FORKS; i++) {
			pid_t pid = fork();

			if (pid == 0) {
				touch(memory, bytes / PAGE / FORKS, (uint64_t)i);
				_exit(0);
			}
			nr++;
			failed += pid < 0;
		}
		while (wait(NULL) > 0)
			;
	}
	printf("fork: %lu processes, %lu could not be made\n", nr, failed);
	return 0;
}

static int files(size_t bytes, const char *path)
{
	static uint8_t block[1 << 20];
	unsigned long rounds = 0;

	touch(block, sizeof(block) / PAGE, 7);
	while (now_s() < end_s) {
		int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		volatile uint8_t sum = 0;

		if (fd < 0)
			return 3;
		for (size_t at = 0; at < bytes && now_s() < end_s; at += sizeof(block))
			if (write(fd, block, sizeof(block)) != sizeof(block))
				break;
		const off_t len = lseek(fd, 0, SEEK_END);
		uint8_t *p = mmap(NULL, (size_t)len, PROT_READ, MAP_SHARED, fd, 0);
		for (off_t at = 0; p != MAP_FAILED && at < len && now_s() < end_s; at += PAGE)
			sum = (uint8_t)(sum + p[at]);
		if (p != MAP_FAILED)
			munmap(p, (size_t)len);
		close(fd);
		rounds++;
	}
	printf("files: %lu rounds\n", rounds);
	return 0;
}

/* What lies in the queue was allocated by the network card's driver, which cannot wait. */
static int sink(size_t bytes, const char *port)
{
	const struct sockaddr_in any = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)atoi(port))};
	const int size = (int)(bytes / 2); /* the kernel doubles it */
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	static uint8_t datagram[DATAGRAM];
	unsigned long nr = 0;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0 ||
		bind(fd, (const struct sockaddr *)&any, sizeof(any)) < 0)
		return 3;
	while (now_s() < end_s) {
		rest(3);
		while (recv(fd, datagram, sizeof(datagram), MSG_DONTWAIT) > 0)
			nr++;
	}
	printf("sink: %lu datagrams\n", nr);
	return 0;
}

static int flood(const char *ip, const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	static uint8_t datagram[DATAGRAM];
	unsigned long nr = 0;

	if (fd < 0 || inet_pton(AF_INET, ip, &to.sin_addr) != 1 ||
		connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
		return 3;
	while (now_s() < end_s) {
		nr += send(fd, datagram, sizeof(datagram), 0) > 0;
		/* The link has room for others too, and so has the processor. */
		if (nr % 16 == 0)
			rest(0.004);
	}
	printf("flood: %lu datagrams\n", nr);
	return 0;
}

/* ---- the watch ---- */

static uint64_t read_number(int fd)
{
	uint64_t number = 0;

	return pread(fd, &number, sizeof(number), 0) == sizeof(number) ? number : 0;
}

/* Pages that came from swap spaces and went there: storms do not let them stand still. */
static uint64_t nr_swapped(int fd)
{
	static char text[16384];
	static const char *const names[] = {"\npswpin ", "\npswpout "};
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	uint64_t sum = 0;

	text[n > 0 ? n : 0] = '\0';
	for (unsigned i = 0; i < 2; i++) {
		const char *at = strstr(text, names[i]);

		sum += at ? strtoull(at + strlen(names[i]), NULL, 10) : 0;
	}
	return sum;
}

struct watched {
	const char *what;
	int fd;
	uint64_t (*read)(int fd);
	uint64_t first, last;
	double moved_s, longest_s;
	bool told;
};

/* True: it has stood still for so long, and nobody was told yet. */
static bool look(struct watched *w, double s, double stall_s)
{
	const uint64_t number = w->read(w->fd);

	if (s - w->moved_s > w->longest_s)
		w->longest_s = s - w->moved_s;
	if (number != w->last) {
		w->last = number;
		w->moved_s = s;
		w->told = false;
	}
	if (w->told || s - w->moved_s <= stall_s)
		return false;
	w->told = true;
	return true;
}

static int watch(double stall_s, const char *progress)
{
	const struct sched_param before_all = {.sched_priority = 50};
	struct watched watched[] = {
		{.what = "the job",
			.fd = open(progress, O_RDONLY | O_CLOEXEC),
			.read = read_number},
		{.what = "swap",
			.fd = open("/proc/vmstat", O_RDONLY | O_CLOEXEC),
			.read = nr_swapped},
	};
	bool stalled = false;

	/* All of it on the console: whoever copies our output may want for memory as others do. */
	write_text("/proc/sys/kernel/printk", "8");
	if (watched[0].fd < 0 || watched[1].fd < 0 || mlockall(MCL_CURRENT | MCL_FUTURE) < 0 ||
		sched_setscheduler(0, SCHED_FIFO, &before_all) < 0)
		return 3;
	for (unsigned i = 0; i < 2; i++) {
		watched[i].moved_s = now_s();
		watched[i].first = watched[i].last = watched[i].read(watched[i].fd);
	}
	while (now_s() < end_s) {
		rest(1);
		for (unsigned i = 0; i < 2; i++) {
			if (!look(&watched[i], now_s(), stall_s))
				continue;
			stalled = true;
			dprintf(1, "watch: %s has stood still for %.0f s\n", watched[i].what,
				stall_s);
			write_text("/proc/sysrq-trigger", "m");
			write_text("/proc/sysrq-trigger", "t");
		}
	}
	dprintf(1, "watch: %" PRIu64 " pages at random, the longest pause was %.0f s; %" PRIu64
		   " pages to and from swap, %.0f s\n",
		watched[0].last - watched[0].first, watched[0].longest_s,
		watched[1].last - watched[1].first, watched[1].longest_s);
	return stalled;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	end_s = now_s() + atof(argv[2]);
	const size_t bytes = (size_t)atoll(argv[3]) << 20;
	const char *what = argv[1], *last = argc > 4 ? argv[4] : "";
	if (strcmp(what, "watch") == 0) {
		write_text("/proc/self/oom_score_adj", "-1000");
		return argc > 4 ? watch(atof(argv[3]), last) : 2;
	}
	write_text("/proc/self/oom_score_adj", "1000");
	if (strcmp(what, "allocate") == 0)
		return allocate(bytes);
	if (strcmp(what, "fork") == 0)
		return fork_many(bytes);
	if (strcmp(what, "files") == 0)
		return files(bytes, last);
	if (strcmp(what, "sink") == 0)
		return sink(bytes, last);
	if (strcmp(what, "flood") == 0)
		return flood(argv[3], last);
	return 2;
}
