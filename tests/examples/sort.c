/* SPDX-License-Identifier: MIT */
/*
 * Sorts more numbers than it has memory for, in place, in a region that lies at a donor.
 *
 *	sort URI NUMBERS LOCAL_BYTES      in a map, with so much memory here
 *	sort - NUMBERS                    in plain memory, to compare
 *
 * Prints a sum that depends on the order.
 */
#include <err.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <weft.h>

/* What one would write for numbers in memory: it knows nothing of the map. */
static void sort(uint64_t *numbers, size_t nr)
{
	while (nr > 1) {
		uint64_t pivot = numbers[(nr - 1) / 2];
		size_t i = 0, j = nr - 1;

		for (;; i++, j--) {
			while (numbers[i] < pivot)
				i++;
			while (numbers[j] > pivot)
				j--;
			if (i >= j)
				break;
			uint64_t number = numbers[i];
			numbers[i] = numbers[j];
			numbers[j] = number;
		}
		/* The smaller part by a call, so that calls do not nest deeply. */
		if (j + 1 < nr - j - 1) {
			sort(numbers, j + 1);
			numbers += j + 1;
			nr -= j + 1;
		} else {
			sort(numbers + j + 1, nr - j - 1);
			nr = j + 1;
		}
	}
}

static void work(uint64_t *numbers, size_t nr)
{
	uint64_t number = 1, sum = 0;

	for (size_t i = 0; i < nr; i++) {
		number = number * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		numbers[i] = number >> 20;
	}
	sort(numbers, nr);
	for (size_t i = 0; i < nr; i++) {
		if (i > 0 && numbers[i - 1] > numbers[i])
			errx(1, "number %zu is out of order", i);
		sum = sum * 31 + numbers[i];
	}
	printf("%016" PRIx64 "\n", sum);
}

int main(int argc, char **argv)
{
	size_t nr = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;
	struct weft_map_options options = {.size = sizeof(options)};
	struct weft_map *map;
	struct weft *w;
	char why[256];

	if (argc == 3 && argv[1][0] == '-') {
		work(calloc(nr, sizeof(uint64_t)), nr);
		return 0;
	}
	if (argc != 4)
		errx(2, "usage: sort URI NUMBERS LOCAL_BYTES");
	options.local_bytes = strtoull(argv[3], NULL, 0);
	if (weft_open(argv[1], 0, &w, why, sizeof(why)) < 0)
		errx(1, "%s", why);
	if (weft_map(w, 0, nr * sizeof(uint64_t), &options, &map, why, sizeof(why)) < 0)
		errx(1, "%s", why);
	work(weft_map_addr(map), nr);
	/* The sorted numbers are at the donor afterwards, or the program says so. */
	if (weft_map_sync(map, weft_map_addr(map), nr * sizeof(uint64_t), WEFT_MAP_FLUSH) < 0)
		errx(1, "the numbers could not be written back");
	weft_unmap(map, 0);
	weft_close(w);
	return 0;
}
