/* SPDX-License-Identifier: MIT */
/* Block devices of either driver: see device.h. */
#include "nbd-bridge/device/device.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/resident.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "nbd-bridge/front/front.h"

int bridge_device_index(const char *path, const char *prefix)
{
	size_t len = strlen(prefix);
	char *end;

	if (strncmp(path, prefix, len) != 0 || !isdigit((unsigned char)path[len]))
		return -EINVAL;
	long number = strtol(path + len, &end, 10);
	return *end != '\0' || number > 1 << 20 ? -EINVAL : (int)number;
}

bool bridge_device_attribute(const char *name, const char *attribute, char *buf, size_t len)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/block/%s/%s", name, attribute);
	FILE *file = fopen(path, "re");
	if (!file)
		return false;
	bool read = fgets(buf, (int)len, file) != NULL;
	fclose(file);
	if (read)
		buf[strcspn(buf, "\n")] = '\0';
	return read;
}

/* ---- who uses it ---- */

static void add(json_t *texts, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(json_t *texts, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_array_append_new(texts, json_string(text));
}

/* number: "43:0". */
static unsigned mounts(const char *path, const char *number, json_t *texts)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char line[2 * PATH_MAX], dev[32], point[PATH_MAX], type[64], source[PATH_MAX];
	unsigned n = 0;

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		const char *tail = strstr(line, " - ");

		if (!tail || sscanf(line, "%*s %*s %31s %*s %4095s", dev, point) != 2 ||
			sscanf(tail, " - %63s %4095s", type, source) != 2)
			continue;
		/* Some file systems have a device number of their own. */
		if (strcmp(dev, number) != 0 && strcmp(source, path) != 0)
			continue;
		add(texts, "%s is mounted on %.300s (%s)", path, point, type);
		n++;
	}
	fclose(file);
	return n;
}

static unsigned swaps(const char *path, json_t *texts)
{
	FILE *file = fopen("/proc/swaps", "re");
	char line[PATH_MAX + 128], name[PATH_MAX];
	unsigned n = 0;

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%4095s", name) != 1 || strcmp(name, path) != 0)
			continue;
		add(texts, "%s is swap space", path);
		n++;
	}
	fclose(file);
	return n;
}

/* Devices on top of it: dm, md, bcache. */
static unsigned holders(const char *sys, const char *path, json_t *texts)
{
	char dir[PATH_MAX];
	struct dirent *entry;
	unsigned n = 0;

	snprintf(dir, sizeof(dir), "/sys/block/%s/holders", sys);
	DIR *d = opendir(dir);
	if (!d)
		return 0;
	while ((entry = readdir(d)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		add(texts, "/dev/%s stands on %s", entry->d_name, path);
		n++;
	}
	closedir(d);
	return n;
}

/* sys: "nbd0" or "nbd0/nbd0p1". */
static unsigned users_of(const char *sys, json_t *texts)
{
	const char *slash = strrchr(sys, '/');
	char path[300], number[32] = "";

	snprintf(path, sizeof(path), "/dev/%s", slash ? slash + 1 : sys);
	bridge_device_attribute(sys, "dev", number, sizeof(number));
	return mounts(path, number, texts) + swaps(path, texts) + holders(sys, path, texts) +
	       bridge_path_users(path, texts);
}

unsigned bridge_device_users(const char *name, json_t *texts)
{
	unsigned n = users_of(name, texts);
	char dir[64], sys[300];
	struct dirent *entry;

	snprintf(dir, sizeof(dir), "/sys/block/%.32s", name);
	DIR *d = opendir(dir);
	if (!d)
		return n;
	while ((entry = readdir(d)) != NULL) {
		if (strncmp(entry->d_name, name, strlen(name)) != 0)
			continue;
		snprintf(sys, sizeof(sys), "%.32s/%.200s", name, entry->d_name);
		n += users_of(sys, texts);
	}
	closedir(d);
	return n;
}

int bridge_device_say_busy(const char *name, struct weft_error *err)
{
	json_t *texts = json_array();
	unsigned n = bridge_device_users(name, texts);

	const char *text = n ? json_string_value(json_array_get(texts, 0)) : "by the kernel";
	/* "/dev/… is mounted on …" says which device. */
	bool whole = strncmp(text, "/dev/", strlen("/dev/")) == 0;

	weft_error_set(err, EBUSY, "%s%s%s%s%s; end that first, or add --force",
		whole ? "" : "/dev/", whole ? "" : name, whole ? "" : " is in use: ", text,
		n > 1 ? ", and more" : "");
	json_decref(texts);
	return -EBUSY;
}

/* ---- its queue ---- */

unsigned bridge_device_block_bytes(const struct tp_info *info)
{
	return (unsigned)weft_max(info->min_block_bytes, 512);
}

int bridge_device_check_earlier(const char *earlier, const char *path, bool read_only,
	struct weft_error *err)
{
	char ro[8] = "";

	if (path && strcmp(path, earlier) != 0)
		return weft_error_set(err, EEXIST,
			"this attachment is %s already; give that, or clear it with weft detach",
			earlier);
	bridge_device_attribute(earlier + strlen("/dev/"), "ro", ro, sizeof(ro));
	if (read_only && strcmp(ro, "0") == 0)
		return weft_error_set(err, EROFS,
			"%s was attached to write to, and its users do; it cannot become read-only",
			earlier);
	return 0;
}

int bridge_device_check_region(const struct tp_info *info, struct weft_error *err)
{
	const unsigned block = bridge_device_block_bytes(info);

	if (block > 4096)
		return weft_error_set(err, EINVAL,
			"the server wants blocks of %u bytes, and a device's have at most 4096; "
			"use --socket or --mount",
			info->min_block_bytes);
	if (info->size_bytes % block != 0)
		return weft_error_set(err, EINVAL,
			"the region has %" PRIu64 " bytes, and a device consists of blocks of "
			"%u; use --socket or --mount",
			info->size_bytes, block);
	return 0;
}

void bridge_device_set(const char *name, const char *attribute, const char *value)
{
	char path[PATH_MAX], leaf[64], now[128];

	snprintf(leaf, sizeof(leaf), "queue/%.48s", attribute);
	if (bridge_device_attribute(name, leaf, now, sizeof(now)) && strcmp(now, value) == 0)
		return;
	snprintf(path, sizeof(path), "/sys/block/%s/%s", name, leaf);
	WEFT_CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		weft_debug("cannot set %s to %s: %s", path, value, strerror(errno));
}

void bridge_device_tune(const char *name)
{
	bridge_device_set(name, "scheduler", "none");
	bridge_device_set(name, "max_sectors_kb", "1024");
	bridge_device_set(name, "read_ahead_kb", "1024");
}

/* ---- what the kernel caches of it ---- */

/* A call that may take as long as the donor does; the last of its two threads frees it. */
struct work {
	char path[64];
	bool forget;
	int fd, result;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done, abandoned;
};

static void work_free(struct work *work)
{
	weft_close_fd(work->fd);
	pthread_mutex_destroy(&work->lock);
	pthread_cond_destroy(&work->changed);
	free(work);
}

static int work_on(struct work *work)
{
	work->fd = open(work->path, O_RDONLY | O_CLOEXEC | (work->forget ? 0 : O_EXCL));
	if (work->fd < 0)
		return -errno;
	if (work->forget)
		return ioctl(work->fd, BLKFLSBUF, 0) < 0 ? -errno : 0;
	return fsync(work->fd) < 0 ? -errno : 0;
}

static void *work_main(void *arg)
{
	struct work *work = arg;
	int r = work_on(work);

	pthread_mutex_lock(&work->lock);
	work->result = r;
	work->done = true;
	bool mine = work->abandoned;
	pthread_cond_signal(&work->changed);
	pthread_mutex_unlock(&work->lock);
	if (mine)
		work_free(work);
	return NULL;
}

static struct work *work_start(const char *name, bool forget)
{
	struct work *work = calloc(1, sizeof(*work));
	pthread_t thread;

	if (!work)
		return NULL;
	snprintf(work->path, sizeof(work->path), "/dev/%s", name);
	work->forget = work->abandoned = forget;
	work->fd = -1;
	pthread_mutex_init(&work->lock, NULL);
	weft_cond_init(&work->changed);
	if (pthread_create(&thread, NULL, work_main, work) != 0) {
		work_free(work);
		return NULL;
	}
	pthread_detach(thread);
	return work;
}

static int settle(const char *name, unsigned timeout_ms, struct weft_error *err)
{
	struct work *work = work_start(name, false);
	uint64_t end_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);

	if (!work)
		return weft_error_set(err, ENOMEM, "out of memory");
	pthread_mutex_lock(&work->lock);
	while (!work->done && weft_cond_wait_until(&work->changed, &work->lock, end_ns))
		;
	bool done = work->done;
	work->abandoned = !done;
	pthread_mutex_unlock(&work->lock);
	if (!done)
		return weft_error_set(err, ETIMEDOUT,
			"what is cached of /dev/%s could not be written to the donor "
			"within %u s",
			name, timeout_ms / 1000);
	int r = work->result, fd = work->fd;
	if (r == 0)
		work->fd = -1;
	work_free(work);
	if (r == -EBUSY)
		return weft_error_set(err, EBUSY, "/dev/%s is in use", name);
	if (r < 0)
		return weft_error_set(err, -r,
			"what is cached of /dev/%s could not be written to the donor: %s", name,
			strerror(-r));
	return fd;
}

int bridge_device_hold(const char *name, bool force, unsigned timeout_ms, int *ret_fd,
	struct weft_error *err)
{
	int r = settle(name, timeout_ms, err);

	if (r < 0 && !force)
		return r == -EBUSY ? bridge_device_say_busy(name, err)
				   : weft_error_prefix(err, "not detached");
	*ret_fd = r < 0 ? -1 : r;
	return 0;
}

void bridge_device_take_back(const char *name)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/dev/%s", name);
	if (stat(path, &st) == 0 && st.st_uid != 0 && chown(path, 0, (gid_t)-1) < 0)
		weft_warn("%s stays the property of user %u: %s", path, (unsigned)st.st_uid,
			strerror(errno));
}

void bridge_device_forget(const char *name)
{
	work_start(name, true);
}

/* ---- a process that memory waits for ---- */

void bridge_device_protect_process(void)
{
	int r = weft_be_io_flusher();

	/* For this thread and the threads that it makes. */
	if (r < 0)
		weft_warn("cannot become an I/O flusher: %s; freeing memory may wait for this "
			  "process, which waits for "
			  "memory (it wants CAP_SYS_RESOURCE)",
			strerror(-r));
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
		weft_warn("cannot lock memory: %s; under memory pressure the device may stall "
			  "(raise `ulimit -l`)",
			strerror(errno));
	r = weft_be_spared();
	if (r < 0)
		weft_warn("cannot set oom_score_adj: %s; when memory runs out, this process may be "
			  "killed and its device with it",
			strerror(-r));
}
