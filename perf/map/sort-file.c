/* SPDX-License-Identifier: MIT */
/*
 * The example's sort, over a file that is mapped: what the file costs in the map's place.
 *
 *	sort-file FILE NUMBERS
 */
int example_main(int argc, char **argv);
#define main example_main
#include "tests/examples/sort.c"
#undef main

#include <fcntl.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	size_t nr = argc == 3 ? strtoull(argv[2], NULL, 0) : 0;
	int fd = nr > 0 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
	void *at = fd < 0 ? MAP_FAILED
			  : mmap(NULL, nr * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED,
				    fd, 0);

	if (at == MAP_FAILED)
		err(1, "%s", argc > 1 ? argv[1] : "usage: sort-file FILE NUMBERS");
	work(at, nr);
	if (msync(at, nr * sizeof(uint64_t), MS_SYNC) < 0)
		err(1, "the numbers could not be written back");
	return 0;
}
