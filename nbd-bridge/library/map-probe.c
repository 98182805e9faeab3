/* SPDX-License-Identifier: MIT */
/*
 * What this kernel can do, and the mode that a map has.  Opens the map's descriptors; no lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "nbd-bridge/library/map-private.h"
#include "nbd-bridge/library/map-uapi.h"

#define NEEDS_PAGED                                                                                \
	(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_MOVE |                 \
		UFFD_FEATURE_POISON | UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_THREAD_ID)
#define NEEDS_SHARED                                                                               \
	(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | \
		UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_THREAD_ID)

static int open_userfaultfd(struct weft_map *m)
{
	WEFT_CLEANUP_CLOSE int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = dev >= 0 ? ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK) : -1;

	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == EPERM) {
		fd = (int)syscall(
			SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
		m->user_faults_only = fd >= 0;
	}
	return fd < 0 ? -errno : fd;
}

/* Asked with a descriptor of its own: UFFDIO_API can be called once. */
static int features_of(uint64_t *ret)
{
	struct uffdio_api api = {.api = UFFD_API};
	WEFT_CLEANUP_CLOSE int fd =
		(int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		return -errno;
	*ret = api.features;
	return 0;
}

static const struct map_mode *mode_of(const struct weft_map *m, unsigned mode, uint64_t has)
{
	if (mode == WEFT_MAP_RESIDENT)
		return &map_resident;
	if (mode == WEFT_MAP_COMPAT ||
		(mode == WEFT_MAP_ANY_MODE && (has & NEEDS_PAGED) != NEEDS_PAGED))
		return &map_compat;
	return m->read_only ? &map_paged_read_only : &map_paged;
}

/* What is asked of the kernel: compat is on any kernel what it is on the oldest. */
static uint64_t features_for(struct weft_map *m, uint64_t has)
{
	if (!m->mode->shares)
		return NEEDS_PAGED;
	m->overlays = m->mode == &map_compat || !(has & UFFD_FEATURE_POISON);
	return NEEDS_SHARED | (m->overlays ? UFFD_FEATURE_EVENT_REMAP : UFFD_FEATURE_POISON);
}

static int choose_mode(struct weft_map *m, unsigned mode, uint64_t *ret_need,
	struct weft_error *err)
{
	uint64_t has = 0;
	int r = features_of(&has);

	if (r == -ENOSYS)
		return weft_error_set(err, ENOSYS,
			"cannot map: this kernel has no userfaultfd(2), or a filter of system "
			"calls forbids it");
	m->mode = mode_of(m, mode, has);
	*ret_need = features_for(m, has);
	if (r == 0 && (has & *ret_need) != *ret_need)
		return weft_error_set(err, ENOTSUP,
			"cannot map: %s maps need Linux %s or later (userfaultfd features %#llx "
			"are missing)",
			m->mode->name, m->mode->shares ? "5.19" : "6.8",
			(unsigned long long)(*ret_need & ~has));
	return 0;
}

int map_probe(struct weft_map *m, unsigned flags, unsigned mode, struct weft_error *err)
{
	struct uffdio_api api = {.api = UFFD_API};
	uint64_t need = 0;
	int r = choose_mode(m, mode, &need, err);

	if (r < 0)
		return r;
	api.features = need;
	m->uffd = open_userfaultfd(m);
	if (m->uffd < 0)
		return weft_error_set(err, -m->uffd, "cannot map: userfaultfd: %s",
			strerror(-m->uffd));
	if (m->user_faults_only && flags & WEFT_MAP_ALL_FAULTS)
		return weft_error_set(err, EPERM,
			"cannot map: this user may not have page faults of system calls handled; "
			"let the user open /dev/userfaultfd, or set "
			"vm.unprivileged_userfaultfd=1");
	if (ioctl(m->uffd, UFFDIO_API, &api) < 0)
		return weft_error_set(err, errno, "cannot map: UFFDIO_API: %s", strerror(errno));
	/* A system call that writes to a page that is protected would get EFAULT. */
	m->protects = !m->read_only && !(m->mode->shares && m->user_faults_only);
	m->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (m->pagemap < 0)
		return weft_error_set(err, errno, "cannot map: /proc/self/pagemap: %s",
			strerror(errno));
	return 0;
}
