/* SPDX-License-Identifier: MIT */
/*
 * What seals the contents of weft attach (nbd-bridge/cache/seal.h), and the cache with it: memory
 * that the guard keeps as well, so that the next bridge finds it.  Main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/file.h"
#include "nbd-bridge/cache/seal.h"
#include "nbd-bridge/main/attach-guard.h"
#include "nbd-bridge/main/attach.h"

/* Of the two, that of the cache is none (-1) where the cache has a file. */
struct kept {
	int fds[ATTACH_GUARD_KEEPS];
	uint64_t inodes[ATTACH_GUARD_KEEPS];
};

static int make(struct kept *kept, unsigned nr)
{
	static const char *const names[] = {"weft-seal", "weft-cache"};

	for (unsigned i = 0; i < nr; i++) {
		struct stat st;

		kept->fds[i] = memfd_create(names[i], MFD_CLOEXEC);
		if (kept->fds[i] < 0 || fstat(kept->fds[i], &st) < 0)
			return -errno;
		kept->inodes[i] = st.st_ino;
	}
	return 0;
}

/* From the guard of the bridge that died: what the state says that it keeps. */
static int take(struct kept *kept, unsigned nr, const struct bridge_state_file *state)
{
	for (unsigned i = 0; i < nr; i++) {
		char path[48];
		struct stat st;

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)state->guard,
			ATTACH_GUARD_FD + (int)i);
		kept->fds[i] = open(path, O_RDWR | O_CLOEXEC);
		if (kept->fds[i] < 0)
			return -errno;
		if (fstat(kept->fds[i], &st) < 0 || !S_ISREG(st.st_mode) ||
			st.st_ino != state->keeps[i])
			return -ESTALE;
		kept->inodes[i] = st.st_ino;
	}
	return 0;
}

/* Whether take() found no guard, or another process under the guard's number. */
static bool is_gone(int r)
{
	return r == -ENOENT || r == -ESRCH || r == -ENXIO || r == -ESTALE;
}

static int begin(struct attach *a, const struct kept *kept, unsigned nr, struct weft_error *err)
{
	struct bridge_state_file *state = &a->state;
	int r = seal_new(kept->fds[0], a->options.sealed, &a->seal, err);

	if (r == 0 && nr > 1)
		r = cache_file_on_memory(kept->fds[1], &a->cache_file, err);
	if (r == 0)
		r = attach_guard_keep(a, kept->fds, nr, err);
	if (r < 0)
		return r;
	state->guard = a->guard;
	memset(state->keeps, 0, sizeof(state->keeps));
	memcpy(state->keeps, kept->inodes, nr * sizeof(kept->inodes[0]));
	return 0;
}

int attach_open_seal(struct attach *a, struct weft_error *err)
{
	const struct attach_options *o = &a->options;
	const unsigned nr = o->cache_file ? 1 : ATTACH_GUARD_KEEPS;
	struct kept kept = {.fds = {-1, -1}};
	int r;

	a->state.sealed = o->sealed;
	if (o->seal_key)
		return attach_open_seal_file(a, err);
	if (!o->sealed)
		return 0;
	if (!a->state.takes_over && !o->new_contents)
		return weft_error_set(err, EINVAL,
			"--%s begins with empty contents, and gives up whatever %s holds: say so "
			"with --new-contents",
			seal_kind_name(o->sealed), o->uri_text);
	r = a->state.takes_over ? take(&kept, nr, &a->state) : make(&kept, nr);
	if (a->state.takes_over && is_gone(r)) {
		a->seal_lost = true;
		r = 0;
	} else if (r < 0 && a->state.takes_over) {
		weft_error_set(err, -r,
			"cannot take what seals the contents of '%s' from process %d, which keeps "
			"it: %s; mend that, or give the contents up: weft detach --force %s",
			o->name, (int)a->state.guard, strerror(-r), o->name);
	} else if (r < 0) {
		weft_error_set(err, -r, "cannot make memory for what seals the contents: %s",
			strerror(-r));
	} else {
		r = begin(a, &kept, nr, err);
	}
	for (unsigned i = 0; i < nr; i++)
		if (kept.fds[i] >= 0)
			close(kept.fds[i]);
	return r;
}
