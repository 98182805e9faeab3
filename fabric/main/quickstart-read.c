/* SPDX-License-Identifier: MIT */
/*
 * quickstart-read REFERENCE TARGET: reads a region back and compares it with the file that was put
 * there.  TARGET is the region as a file, read by mmap and at random offsets, or an NBD server's
 * Unix socket.  Prints one line a way of reading: name, MB/s, and for random reads the median and
 * the 99th percentile in microseconds.  Exits 1 at the first byte that differs.  One thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "fabric/base/process.h"
#include "fabric/base/util.h"

enum { PIECE = 1 << 20, BLOCK = 4096, NR_RANDOM = 4000 };

static uint8_t *map_file(const char *path, uint64_t *ret_len, int *ret_fd)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *map = MAP_FAILED;

	if (fd >= 0 && fstat(fd, &st) == 0) {
		/* Pages that the kernel still caches would hide the path that is measured. */
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	}
	if (map == MAP_FAILED) {
		fprintf(stderr, "quickstart-read: cannot map %s: %s\n", path, strerror(errno));
		exit(1);
	}
	*ret_len = (uint64_t)st.st_size;
	*ret_fd = fd;
	return map;
}

static void compare(const uint8_t *reference, const uint8_t *got, uint64_t off, size_t len)
{
	if (memcmp(reference + off, got, len)) {
		for (size_t i = 0; i < len; i++) {
			if (reference[off + i] == got[i])
				continue;
			fprintf(stderr, "quickstart-read: byte %llu is %02x, was written as %02x\n",
				(unsigned long long)(off + i), got[i], reference[off + i]);
			exit(1);
		}
	}
}

static void fail_nbd(const char *what)
{
	fprintf(stderr, "quickstart-read: %s: %s\n", what, nbd_get_error());
	exit(1);
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Random blocks through nbd, or else fd; the seed is fixed, so that a failure can be seen again. */
static void read_random(const char *name, const uint8_t *reference, uint64_t len, int fd,
	struct nbd_handle *nbd)
{
	static uint64_t took[NR_RANDOM];
	static uint8_t buf[BLOCK];
	uint64_t x = 88172645463325252u, total = 0;

	for (unsigned i = 0; i < NR_RANDOM; i++) {
		uint64_t off, start = weft_now_ns();
		ssize_t n = BLOCK;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		off = x % (len / BLOCK) * BLOCK;
		if (nbd && nbd_pread(nbd, buf, BLOCK, off, 0) < 0)
			fail_nbd("reading at random");
		if (!nbd)
			n = pread(fd, buf, BLOCK, (off_t)off);
		took[i] = weft_now_ns() - start;
		total += took[i];
		if (n != BLOCK) {
			fprintf(stderr, "quickstart-read: reading at %llu: %s\n",
				(unsigned long long)off, n < 0 ? strerror(errno) : "short");
			exit(1);
		}
		compare(reference, buf, off, BLOCK);
	}
	qsort(took, NR_RANDOM, sizeof(took[0]), by_number);
	printf("%s\t%.0f\t%.0f\t%.0f\n", name, (double)NR_RANDOM * BLOCK * 1000 / (double)total,
		(double)took[NR_RANDOM / 2] / 1000, (double)took[NR_RANDOM * 99 / 100] / 1000);
}

static void read_file(const char *path, const uint8_t *reference, uint64_t len)
{
	uint64_t start, got_len;
	int fd;
	const uint8_t *got = map_file(path, &got_len, &fd);

	if (got_len != len) {
		fprintf(stderr, "quickstart-read: %s has %llu bytes, not %llu\n", path,
			(unsigned long long)got_len, (unsigned long long)len);
		exit(1);
	}
	start = weft_now_ns();
	for (uint64_t off = 0; off < len; off += PIECE)
		compare(reference, got + off, off, (size_t)weft_min(PIECE, len - off));
	printf("file, mmap\t%.0f\t\t\n", (double)len * 1000 / (double)(weft_now_ns() - start));
	munmap((void *)got, got_len);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	read_random("file, random 4 KiB reads", reference, len, fd, NULL);
	close(fd);
}

static void read_socket(const char *path, const uint8_t *reference, uint64_t len)
{
	static uint8_t buf[PIECE];
	struct nbd_handle *nbd = nbd_create();
	uint64_t start;

	if (!nbd || nbd_connect_unix(nbd, path) < 0)
		fail_nbd(path);
	start = weft_now_ns();
	for (uint64_t off = 0; off < len; off += PIECE) {
		size_t n = (size_t)weft_min(PIECE, len - off);

		if (nbd_pread(nbd, buf, n, off, 0) < 0)
			fail_nbd("reading");
		compare(reference, buf, off, n);
	}
	printf("NBD socket, 1 MiB reads\t%.0f\t\t\n",
		(double)len * 1000 / (double)(weft_now_ns() - start));
	read_random("NBD socket, random 4 KiB reads", reference, len, -1, nbd);
	nbd_shutdown(nbd, 0);
	nbd_close(nbd);
}

int main(int argc, char **argv)
{
	uint8_t *reference;
	struct stat st;
	uint64_t len;
	int fd;

	weft_process_begin();
	if (argc != 3 || stat(argv[2], &st)) {
		fputs("usage: quickstart-read REFERENCE FILE|SOCKET\n", stderr);
		return 2;
	}
	reference = map_file(argv[1], &len, &fd);
	/* The reference is read beforehand: only the region's time counts. */
	madvise(reference, len, MADV_POPULATE_READ);
	if (S_ISSOCK(st.st_mode))
		read_socket(argv[2], reference, len);
	else
		read_file(argv[2], reference, len);
	return fflush(stdout) ? 1 : 0;
}
