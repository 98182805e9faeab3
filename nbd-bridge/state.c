/*
 * The state file.  It is rewritten in place by one write(2) of less than a page, under a lock that its
 * bridge holds as long as it lives.
 */
#include "nbd-bridge/state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "fabric/util.h"

static int state_path(const char *name, char *path, size_t len, struct weft_error *err)
{
	char dir[128];
	int r = weft_run_dir(dir, sizeof(dir));

	if (r < 0)
		return weft_error_set(err, -r, "cannot use the run directory: %s; set WEFT_RUN_DIR to one of yours",
			strerror(-r));
	if (snprintf(path, len, "%s/attach-%s.json", dir, name) >= (int)len)
		return weft_error_set(err, ENAMETOOLONG, "the run directory's name is too long");
	return 0;
}

static char *copy(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? strdup(text) : NULL;
}

static void copy_into(const json_t *json, const char *key, char *buf, size_t len)
{
	const char *text = json_string_value(json_object_get(json, key));

	snprintf(buf, len, "%s", text ? text : "");
}

/* Fills *ret from the file.  False when it makes no sense: then nothing but the descriptor counts. */
static bool load(struct bridge_state_file *ret)
{
	char text[8192];
	ssize_t n = pread(ret->fd, text, sizeof(text), 0);
	json_t *json = n > 0 ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
	const char *id = json_string_value(json_object_get(json, "id"));
	const char *epoch = json_string_value(json_object_get(json, "epoch"));
	json_int_t generation = json_integer_value(json_object_get(json, "generation"));
	bool ok = id && strlen(id) == 2 * WEFT_ID_BYTES && weft_unhex(id, ret->id, WEFT_ID_BYTES) == 0 &&
		generation > 0;

	if (ok) {
		ret->generation = (uint64_t)generation;
		ret->epoch = epoch ? strtoull(epoch, NULL, 16) : 0;
		ret->uri = copy(json, "uri");
		ret->socket = copy(json, "socket");
		ret->mount = copy(json, "mount");
		copy_into(json, "device", ret->device.path, sizeof(ret->device.path));
		copy_into(json, "device_backend", ret->device.backend, sizeof(ret->device.backend));
		ret->device.nr_connections = (unsigned)json_integer_value(json_object_get(json, "device_connections"));
		ret->made_dev = (uint64_t)json_integer_value(json_object_get(json, "made_dev"));
		ret->made_ino = (uint64_t)json_integer_value(json_object_get(json, "made_ino"));
		ret->pid = (pid_t)json_integer_value(json_object_get(json, "pid"));
	}
	json_decref(json);
	return ok;
}

void bridge_state_renew(struct bridge_state_file *state)
{
	weft_random(state->id, sizeof(state->id));
	state->generation = UINT64_C(1) << 32;
	state->epoch = 0;
	state->takes_over = false;
}

int bridge_state_open(const char *name, struct bridge_state_file *ret, struct weft_error *err)
{
	struct stat ours, there;
	int r;

	memset(ret, 0, sizeof(*ret));
	r = state_path(name, ret->path, sizeof(ret->path), err);
	if (r < 0)
		return r;
	for (;;) {
		ret->fd = open(ret->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (ret->fd < 0) {
			r = -errno;
			return weft_error_set(err, -r, "cannot open %s: %s", ret->path, strerror(-r));
		}
		if (flock(ret->fd, LOCK_EX | LOCK_NB) < 0) {
			load(ret);
			r = weft_error_set(err, EBUSY,
				"there is an attachment '%s' already (pid %d, %s); end it with: weft detach %s; "
				"or give this one another --name", name, (int)ret->pid, ret->uri ? ret->uri : "?", name);
			return r;
		}
		/* The one that we waited for may have removed it meanwhile. */
		if (fstat(ret->fd, &ours) == 0 && stat(ret->path, &there) == 0 && ours.st_ino == there.st_ino)
			break;
		close(ret->fd);
	}
	ret->takes_over = load(ret);
	if (ret->takes_over)
		ret->generation = ((ret->generation >> 32) + 1) << 32;
	else
		bridge_state_renew(ret);
	return 0;
}

int bridge_state_peek(const char *name, struct bridge_state_file *ret, bool *ret_alive, struct weft_error *err)
{
	int r;

	memset(ret, 0, sizeof(*ret));
	r = state_path(name, ret->path, sizeof(ret->path), err);
	if (r < 0)
		return r;
	ret->fd = open(ret->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (ret->fd < 0)
		return weft_error_set(err, errno, "there is no attachment '%s'", name);
	*ret_alive = flock(ret->fd, LOCK_EX | LOCK_NB) < 0;
	ret->takes_over = load(ret);
	return 0;
}

int bridge_state_write(struct bridge_state_file *state, struct weft_error *err)
{
	char id[2 * WEFT_ID_BYTES + 1], epoch[17];
	int r = 0;

	weft_hex(state->id, WEFT_ID_BYTES, id);
	snprintf(epoch, sizeof(epoch), "%016" PRIx64, state->epoch);
	json_t *json = json_pack("{s:s, s:I, s:s, s:s?, s:s?, s:s?, s:I, s:I, s:i}", "id", id, "generation",
		(json_int_t)state->generation, "epoch", epoch, "uri", state->uri, "socket", state->socket, "mount",
		state->mount, "made_dev",
		(json_int_t)state->made_dev, "made_ino", (json_int_t)state->made_ino, "pid", (int)state->pid);
	if (json && state->device.backend[0]) {
		json_object_set_new(json, "device", json_string(state->device.path));
		json_object_set_new(json, "device_backend", json_string(state->device.backend));
		json_object_set_new(json, "device_connections", json_integer(state->device.nr_connections));
	}
	char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
	size_t len = text ? strlen(text) : 0;
	if (!text || len > 8192)
		r = -ENOMEM;
	else if (pwrite(state->fd, text, len, 0) != (ssize_t)len || ftruncate(state->fd, (off_t)len) < 0 ||
		fsync(state->fd) < 0)
		r = -errno;
	free(text);
	json_decref(json);
	if (r < 0)
		return weft_error_set(err, -r, "cannot write %s: %s", state->path, strerror(-r));
	return 0;
}

void bridge_state_remove(struct bridge_state_file *state)
{
	if (state->path[0] && state->fd >= 0)
		unlink(state->path);
}

void bridge_state_fini(struct bridge_state_file *state)
{
	if (state->fd > 0)
		close(state->fd);
	state->fd = -1;
	free(state->uri);
	free(state->socket);
	free(state->mount);
	state->uri = state->socket = state->mount = NULL;
}
