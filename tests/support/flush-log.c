/* SPDX-License-Identifier: MIT */
/*
 * What a power cut leaves of what was flushed.
 *
 *     flush-log write DEVICE SEED      writes blocks to it, at random, with a FLUSH now and then, after which it prints the number of
 *                                      the last write, until it is killed
 *     flush-log check FILE SEED N      FILE has write N, and each before it, unless a later one was over it already
 *
 * Write i fills block block_of(i) with the word i.  The last writes may have got there in part.
 */
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NR_BLOCKS = 2048, BLOCK = 4096 };

static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static uint64_t block_of(uint64_t seed, uint64_t i)
{
	return mix(mix(seed) + i) % NR_BLOCKS;
}

static void write_log(const char *path, uint64_t seed)
{
	int fd = open(path, O_RDWR | O_DIRECT);
	uint64_t *words = aligned_alloc(BLOCK, BLOCK);

	if (fd < 0 || !words)
		err(1, "%s", path);
	for (uint64_t i = 1;; i++) {
		for (unsigned w = 0; w < BLOCK / sizeof(*words); w++)
			words[w] = i;
		if (pwrite(fd, words, BLOCK, (off_t)(block_of(seed, i) * BLOCK)) != BLOCK)
			err(1, "pwrite");
		if (mix(seed ^ i) % 8 != 0)
			continue;
		if (fdatasync(fd) < 0)
			err(1, "fdatasync");
		printf("%" PRIu64 "\n", i);
		fflush(stdout);
	}
}

static void check_log(const char *path, uint64_t seed, uint64_t n)
{
	static uint64_t least[NR_BLOCKS], words[BLOCK / sizeof(uint64_t)];
	int fd = open(path, O_RDONLY);
	uint64_t nr_later = 0;

	if (fd < 0)
		err(1, "%s", path);
	for (uint64_t i = 1; i <= n; i++)
		least[block_of(seed, i)] = i;
	for (uint64_t block = 0; block < NR_BLOCKS; block++) {
		if (pread(fd, words, BLOCK, (off_t)(block * BLOCK)) != BLOCK)
			err(1, "pread");
		for (unsigned w = 0; w < BLOCK / sizeof(*words); w++) {
			if (words[w] < least[block])
				errx(1,
					"block %" PRIu64 " has write %" PRIu64 ", and %" PRIu64
					" was flushed",
					block, words[w], least[block]);
			if (words[w] != 0 && block_of(seed, words[w]) != block)
				errx(1,
					"block %" PRIu64 " has %" PRIu64
					", which was never written there",
					block, words[w]);
			nr_later += words[w] > n;
		}
	}
	printf("%" PRIu64 " writes flushed, all there; %" PRIu64 " blocks of later ones\n", n,
		nr_later * sizeof(*words) / BLOCK);
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "write") == 0)
		write_log(argv[2], strtoull(argv[3], NULL, 10));
	if (argc != 5 || strcmp(argv[1], "check") != 0)
		errx(2, "usage: flush-log write DEVICE SEED | check FILE SEED N");
	check_log(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
	return 0;
}
