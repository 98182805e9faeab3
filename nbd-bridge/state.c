/*
 * The state file.  It is rewritten in place by one pwrite(2), then cut to its length, under a lock that its
 * bridge holds as long as it lives; what a longer one left behind it is not looked at.
 */
#include "nbd-bridge/state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/control.h"
#include "fabric/util.h"

enum { STATE_MAX = 32768 };

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

/* What the front-ends were told of a donor's region. */
static const struct {
	const char *name;
	size_t offset;
} guarantees[] = {
#define GUARANTEE(field) {#field, offsetof(struct tp_info, field)}
	GUARANTEE(has_epoch), GUARANTEE(restorable), GUARANTEE(read_only), GUARANTEE(can_flush), GUARANTEE(can_fua), GUARANTEE(can_trim),
	GUARANTEE(can_zero), GUARANTEE(can_fast_zero), GUARANTEE(can_cache), GUARANTEE(can_multi_conn), GUARANTEE(flush_each_conn),
	GUARANTEE(one_sided),
};

static json_t *info_json(const struct tp_info *info)
{
	json_t *json = json_pack("{s:I, s:I, s:I, s:I, s:I}", "size_bytes", (json_int_t)info->size_bytes, "max_io_bytes",
		(json_int_t)info->max_io_bytes, "min_block_bytes", (json_int_t)info->min_block_bytes, "preferred_block_bytes",
		(json_int_t)info->preferred_block_bytes, "lease_ms", (json_int_t)info->lease_ms);

	for (size_t i = 0; i < WEFT_ARRAY_LEN(guarantees); i++)
		json_object_set_new(json, guarantees[i].name, json_boolean(*(const bool *)((const char *)info + guarantees[i].offset)));
	return json;
}

static void load_info(const json_t *json, struct tp_info *ret)
{
	ret->size_bytes = (uint64_t)json_integer_value(json_object_get(json, "size_bytes"));
	ret->max_io_bytes = (uint64_t)json_integer_value(json_object_get(json, "max_io_bytes"));
	ret->min_block_bytes = (uint32_t)json_integer_value(json_object_get(json, "min_block_bytes"));
	ret->preferred_block_bytes = (uint32_t)json_integer_value(json_object_get(json, "preferred_block_bytes"));
	ret->lease_ms = (uint32_t)json_integer_value(json_object_get(json, "lease_ms"));
	for (size_t i = 0; i < WEFT_ARRAY_LEN(guarantees); i++)
		*(bool *)((char *)ret + guarantees[i].offset) = json_is_true(json_object_get(json, guarantees[i].name));
	if (ret->min_block_bytes == 0 || ret->max_io_bytes == 0)
		ret->size_bytes = 0;
}

static bool load_donor(const json_t *json, struct bridge_state_donor *ret)
{
	const char *id = json_string_value(json_object_get(json, "id"));
	const char *epoch = json_string_value(json_object_get(json, "epoch"));

	if (!id || strlen(id) != 2 * WEFT_ID_BYTES || weft_unhex(id, ret->id, WEFT_ID_BYTES) != 0)
		return false;
	ret->epoch = epoch ? strtoull(epoch, NULL, 16) : 0;
	ret->granted = (uint64_t)json_integer_value(json_object_get(json, "granted"));
	ret->wrote = json_is_true(json_object_get(json, "wrote"));
	load_info(json_object_get(json, "info"), &ret->info);
	return true;
}

/* Fills *ret from the file.  False when it makes no sense: then nothing but the descriptor counts. */
static bool load(struct bridge_state_file *ret)
{
	char text[STATE_MAX];
	ssize_t n = pread(ret->fd, text, sizeof(text), 0);
	json_t *json = n > 0 ? json_loadb(text, (size_t)n, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
	json_int_t generation = json_integer_value(json_object_get(json, "generation"));
	json_t *more = json_object_get(json, "more"), *one;
	bool ok = load_donor(json, &ret->donors[0]) && generation > 0;
	size_t i;

	ret->nr_donors = 1;
	json_array_foreach(more, i, one)
		ok = ok && ret->nr_donors < BRIDGE_STATE_DONORS && load_donor(one, &ret->donors[ret->nr_donors++]);
	if (ok) {
		const char *mode = json_string_value(json_object_get(json, "mode"));
		const char *tenure = json_string_value(json_object_get(json, "socket_tenure"));

		ret->generation = (uint64_t)generation;
		ret->mode = mode ? mode[0] : 0;
		ret->stale = json_is_true(json_object_get(json, "stale"));
		ret->socket_tenure = tenure ? strtoull(tenure, NULL, 16) : 0;
		copy_into(json, "boot", ret->boot, sizeof(ret->boot));
		ret->stripe_bytes = (uint64_t)json_integer_value(json_object_get(json, "stripe_bytes"));
		ret->uri = copy(json, "uri");
		ret->socket = copy(json, "socket");
		ret->mount = copy(json, "mount");
		ret->cache_file = copy(json, "cache_file");
		ret->again = copy(json, "again");
		ret->directory = copy(json, "directory");
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

void bridge_state_renew(struct bridge_state_file *state, unsigned nr_donors)
{
	for (unsigned i = 0; i < nr_donors; i++) {
		state->donors[i] = (struct bridge_state_donor){0};
		weft_random(state->donors[i].id, sizeof(state->donors[i].id));
	}
	state->nr_donors = nr_donors;
	state->generation = UINT64_C(1) << 32;
	state->mode = 0;
	state->stale = state->takes_over = false;
	state->socket_tenure = weft_random_name();
}

void bridge_state_next_incarnation(struct bridge_state_file *state)
{
	state->generation = weft_next_incarnation(state->generation);
}

void bridge_state_note(struct bridge_state_donor *donor, uint64_t epoch, uint64_t granted, bool wrote)
{
	if (granted < donor->granted)
		return;
	donor->wrote = wrote || (granted == donor->granted && donor->wrote);
	donor->granted = granted;
	donor->epoch = epoch;
}

/* Whoever looks whether a bridge lives has the lock for a moment. */
static int lock(int fd)
{
	for (unsigned tries = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
		if (tries == 20)
			return -errno;
		usleep(5000);
	}
	return 0;
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
		if (lock(ret->fd) < 0) {
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
	char boot[sizeof(ret->boot)];
	weft_boot_id(boot, sizeof(boot));
	ret->takes_over = load(ret);
	/* After a restart of the machine nothing is left behind the attachment: one that is begun anew remembers nothing. */
	if (ret->takes_over && ret->boot[0] && strcmp(ret->boot, boot) != 0)
		ret->takes_over = false;
	snprintf(ret->boot, sizeof(ret->boot), "%s", boot);
	if (ret->takes_over)
		bridge_state_next_incarnation(ret);
	else
		bridge_state_renew(ret, 1);
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

struct each {
	int (*fn)(void *ctx, const char *name);
	void *ctx;
};

static int one_state(void *ctx, const char *file)
{
	const struct each *each = ctx;
	char name[WEFT_NAME_MAX + 1];
	size_t len = strlen(file) - strlen("attach-") - strlen(".json");

	if (len > WEFT_NAME_MAX)
		return 0;
	memcpy(name, file + strlen("attach-"), len);
	name[len] = '\0';
	return weft_name_valid(name) ? each->fn(each->ctx, name) : 0;
}

int bridge_state_each(int (*fn)(void *ctx, const char *name), void *ctx)
{
	struct each each = {.fn = fn, .ctx = ctx};

	return weft_run_dir_each("attach-", ".json", one_state, &each);
}

static json_t *donor_json(const struct bridge_state_donor *donor)
{
	char id[2 * WEFT_ID_BYTES + 1], epoch[17];

	weft_hex(donor->id, WEFT_ID_BYTES, id);
	snprintf(epoch, sizeof(epoch), "%016" PRIx64, donor->epoch);
	json_t *json = json_pack("{s:s, s:s, s:I, s:b}", "id", id, "epoch", epoch, "granted", (json_int_t)donor->granted, "wrote",
		(int)donor->wrote);
	if (donor->info.size_bytes)
		json_object_set_new(json, "info", info_json(&donor->info));
	return json;
}

int bridge_state_write(struct bridge_state_file *state, struct weft_error *err)
{
	json_t *json = donor_json(&state->donors[0]);
	int r = 0;

	json_t *rest = json_pack("{s:I, s:s?, s:s?, s:s?, s:s?, s:I, s:I, s:i}", "generation",
		(json_int_t)state->generation, "uri", state->uri, "socket", state->socket, "mount",
		state->mount, "cache_file", state->cache_file, "made_dev",
		(json_int_t)state->made_dev, "made_ino", (json_int_t)state->made_ino, "pid", (int)state->pid);
	if (json && state->device.backend[0]) {
		json_object_set_new(json, "device", json_string(state->device.path));
		json_object_set_new(json, "device_backend", json_string(state->device.backend));
		json_object_set_new(json, "device_connections", json_integer(state->device.nr_connections));
	}
	json_object_update_new(json, rest);
	if (state->again && state->directory)
		json_object_update_new(json, json_pack("{s:s, s:s}", "again", state->again, "directory", state->directory));
	char mode[2] = {state->mode}, tenure[17];
	snprintf(tenure, sizeof(tenure), "%016" PRIx64, state->socket_tenure);
	json_object_set_new(json, "mode", json_string(mode));
	json_object_set_new(json, "boot", json_string(state->boot));
	json_object_set_new(json, "stale", json_boolean(state->stale));
	json_object_set_new(json, "socket_tenure", json_string(tenure));
	if (state->nr_donors > 1) {
		json_t *more = json_array();

		for (unsigned i = 1; i < state->nr_donors; i++)
			json_array_append_new(more, donor_json(&state->donors[i]));
		json_object_set_new(json, "more", more);
		json_object_set_new(json, "stripe_bytes", json_integer((json_int_t)state->stripe_bytes));
	}
	char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
	size_t len = text ? strlen(text) : 0;
	ssize_t n = text && len <= STATE_MAX ? pwrite(state->fd, text, len, 0) : 0;
	if (!text || len > STATE_MAX)
		r = -ENOMEM;
	else if (n >= 0 && n < (ssize_t)len)
		r = -ENOSPC;
	else if (n < 0 || ftruncate(state->fd, (off_t)len) < 0 || fsync(state->fd) < 0)
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
	free(state->cache_file);
	free(state->again);
	free(state->directory);
	state->uri = state->socket = state->mount = state->cache_file = state->again = state->directory = NULL;
}
