/* SPDX-License-Identifier: MIT */
/* What a test writes to a descriptor of its own, standard error for instance. */
#ifndef WEFT_TESTS_SUPPORT_CATCH_H
#define WEFT_TESTS_SUPPORT_CATCH_H

#include <sys/mman.h>
#include <unistd.h>

struct catcher {
	int fd, saved, memory;
};

static inline struct catcher catch_begin(int fd)
{
	struct catcher catcher = {fd, dup(fd), memfd_create("said", MFD_CLOEXEC)};

	dup2(catcher.memory, fd);
	return catcher;
}

/* What was written meanwhile, as far as it fits. */
static inline void catch_end(const struct catcher *catcher, char *ret, size_t size)
{
	dup2(catcher->saved, catcher->fd);
	ssize_t n = pread(catcher->memory, ret, size - 1, 0);
	ret[n < 0 ? 0 : n] = '\0';
	close(catcher->saved);
	close(catcher->memory);
}

#endif
