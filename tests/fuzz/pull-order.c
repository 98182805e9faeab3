/* SPDX-License-Identifier: MIT */
/*
 * Files that say in which order a region is pulled: whatever they say, each chunk comes once.  The
 * first two bytes say how many chunks there are, and of which size.
 */
#include "nbd-bridge/cache/pull-order.c"

#include <assert.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pull_order order;
	bool seen[256] = {0};
	char path[32];

	if (size < 2)
		return 0;
	const unsigned nr_chunks = 1 + data[0] % 200, shift = 12 + data[1] % 20;
	int fd = memfd_create("order", MFD_CLOEXEC);
	assert(fd >= 0 && write(fd, data + 2, size - 2) == (ssize_t)(size - 2));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (pull_order_read(path, &order, NULL) == 0) {
		uint32_t *chunks;

		assert(pull_order_chunks(&order, nr_chunks, shift, &chunks) == 0);
		for (unsigned i = 0; i < nr_chunks; i++) {
			assert(chunks[i] < nr_chunks && !seen[chunks[i]]);
			seen[chunks[i]] = true;
		}
		free(chunks);
		pull_order_free(&order);
	}
	close(fd);
	return 0;
}
