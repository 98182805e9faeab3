/* SPDX-License-Identifier: MIT */
/*
 * The state file.  It is rewritten in place by one pwrite(2), then cut to its length, under a lock
 * that its bridge holds as long as it lives.  Bytes that a longer state left behind the new one are
 * ignored.  A checksum tells whether the file was written whole: a signal may cut a write at the
 * end of a page.
 */
#include "nbd-bridge/main/state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "fabric/base/control.h"
#include "fabric/base/process.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/machine/number.h"

/*
 * A higher version changes the meaning of fields; new fields alone need no new version.  A program
 * that knows version 1 alone must not take over sealed contents: it would read and write them as
 * they are at the donor.  One that knows no version 3 would take copies for stripes.
 */
enum {
	STATE_MAX = 61440,
	STATE_VERSION = 3, /* with copies; … */
	STATE_SEALED_VERSION = 2, /* … else, sealed; … */
	STATE_PLAIN_VERSION = 1, /* … else */
};

/*
 * A process that looks whether a bridge lives has the lock for a moment; a killed bridge has it
 * until its last thread is gone.
 */
enum { LOOK_MS = 100, DYING_MS = 5000 };

static int state_path(const char *name, char *path, size_t len, struct weft_error *err)
{
	char dir[128];
	int r = weft_run_dir(dir, sizeof(dir));

	if (r < 0)
		return weft_error_set(err, -r,
			"cannot use the run directory: %s; set WEFT_RUN_DIR to one of yours",
			strerror(-r));
	if (snprintf(path, len, "%s/attach-%s.json", dir, name) >= (int)len)
		return weft_error_set(err, ENAMETOOLONG, "the run directory's name is too long");
	return 0;
}

/* ---- fields ---- */

/* A field that an older weft did not write is absent, or null; one of another type is damage. */
struct fields {
	const json_t *json;
	bool sound;
};

static const json_t *field(struct fields *f, const char *key, bool (*is_kind)(const json_t *value))
{
	const json_t *value = json_object_get(f->json, key);

	if (!value || json_is_null(value))
		return NULL;
	f->sound &= is_kind(value);
	return value;
}

static bool is_text(const json_t *value)
{
	return json_is_string(value);
}

static bool is_number(const json_t *value)
{
	return json_is_integer(value);
}

static bool is_flag(const json_t *value)
{
	return json_is_boolean(value);
}

static bool is_object(const json_t *value)
{
	return json_is_object(value);
}

static bool is_list(const json_t *value)
{
	return json_is_array(value);
}

static bool is_hex(const json_t *value)
{
	const char *text = json_string_value(value);

	return text && strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16;
}

static const char *text_of(struct fields *f, const char *key)
{
	return json_string_value(field(f, key, is_text));
}

static uint64_t number_of(struct fields *f, const char *key)
{
	return (uint64_t)json_integer_value(field(f, key, is_number));
}

static bool flag_of(struct fields *f, const char *key)
{
	return json_is_true(field(f, key, is_flag));
}

static uint64_t hex_of(struct fields *f, const char *key)
{
	const char *text = json_string_value(field(f, key, is_hex));

	return text ? strtoull(text, NULL, 16) : 0;
}

static char *copy(struct fields *f, const char *key)
{
	const char *text = text_of(f, key);
	char *ret = text ? strdup(text) : NULL;

	f->sound &= !text || ret;
	return ret;
}

static void copy_into(struct fields *f, const char *key, char *buf, size_t len)
{
	const char *text = text_of(f, key);

	f->sound &= !text || strlen(text) < len;
	snprintf(buf, len, "%s", text ? text : "");
}

static void copy_place(struct fields *f, const char *key, char ret[WEFT_PLACE_MAX])
{
	copy_into(f, key, ret, WEFT_PLACE_MAX);
	f->sound &= !ret[0] || weft_place_valid(ret, strlen(ret));
}

/* The checksum over all fields but itself, in any order; NULL: out of memory. */
static json_t *sum_of(json_t *json)
{
	json_t *was = json_incref(json_object_get(json, "sum"));

	json_object_del(json, "sum");
	char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
	json_t *sum = text ? json_sprintf("%016" PRIx64, (uint64_t)XXH3_64bits(text, strlen(text)))
			   : NULL;
	free(text);
	if (was)
		json_object_set_new(json, "sum", was);
	return sum;
}

/* Files of older versions have none. */
static bool is_sum_right(json_t *json)
{
	json_t *said = json_object_get(json, "sum"), *sum = said ? sum_of(json) : NULL;
	bool right = !said || json_equal(said, sum);

	json_decref(sum);
	return right;
}

/* ---- what a donor granted ---- */

/* The abilities of a donor's region that the front-ends were told. */
static const struct {
	const char *name;
	size_t offset;
} guarantees[] = {
#define GUARANTEE(field) {#field, offsetof(struct tp_info, field)}
	GUARANTEE(has_epoch),
	GUARANTEE(restorable),
	GUARANTEE(read_only),
	GUARANTEE(can_flush),
	GUARANTEE(can_fua),
	GUARANTEE(can_trim),
	GUARANTEE(can_zero),
	GUARANTEE(can_fast_zero),
	GUARANTEE(can_cache),
	GUARANTEE(can_multi_conn),
	GUARANTEE(flush_each_conn),
	GUARANTEE(one_sided),
};

static json_t *info_json(const struct tp_info *info)
{
	json_t *json = json_pack("{s:I, s:I, s:I, s:I, s:I}", "size_bytes",
		(json_int_t)info->size_bytes, "max_io_bytes", (json_int_t)info->max_io_bytes,
		"min_block_bytes", (json_int_t)info->min_block_bytes, "preferred_block_bytes",
		(json_int_t)info->preferred_block_bytes, "lease_ms", (json_int_t)info->lease_ms);

	if (info->identity) {
		char hex[17];

		snprintf(hex, sizeof(hex), "%016" PRIx64, info->identity);
		json_object_set_new(json, "device", json_string(hex));
	}
	for (size_t i = 0; i < WEFT_ARRAY_LEN(guarantees); i++)
		json_object_set_new(json, guarantees[i].name,
			json_boolean(*(const bool *)((const char *)info + guarantees[i].offset)));
	return json;
}

static void load_info(struct fields *donor, struct tp_info *ret)
{
	struct fields f = {field(donor, "info", is_object), true};

	ret->size_bytes = number_of(&f, "size_bytes");
	ret->max_io_bytes = number_of(&f, "max_io_bytes");
	ret->min_block_bytes = (uint32_t)number_of(&f, "min_block_bytes");
	ret->preferred_block_bytes = (uint32_t)number_of(&f, "preferred_block_bytes");
	ret->lease_ms = (uint32_t)number_of(&f, "lease_ms");
	ret->identity = hex_of(&f, "device");
	for (size_t i = 0; i < WEFT_ARRAY_LEN(guarantees); i++)
		*(bool *)((char *)ret + guarantees[i].offset) = flag_of(&f, guarantees[i].name);
	if (ret->min_block_bytes == 0 || ret->max_io_bytes == 0)
		ret->size_bytes = 0;
	donor->sound &= f.sound;
}

static void load_donor(struct fields *f, struct bridge_state_donor *ret)
{
	const char *id = text_of(f, "id");

	f->sound &= id && strlen(id) == 2 * WEFT_ID_BYTES &&
		weft_unhex(id, ret->id, WEFT_ID_BYTES) == 0;
	ret->epoch = hex_of(f, "epoch");
	ret->granted = number_of(f, "granted");
	ret->wrote = flag_of(f, "wrote");
	copy_into(f, "identity", ret->identity, sizeof(ret->identity));
	f->sound &= !ret->identity[0] || weft_identity_valid(ret->identity);
	copy_place(f, "at", ret->at);
	copy_place(f, "moving", ret->moving);
	f->sound &= ret->granted <= INT64_MAX;
	load_info(f, &ret->info);
}

static void load_donors(struct fields *f, struct bridge_state_file *ret)
{
	const json_t *more = field(f, "more", is_list), *one;
	size_t i;

	load_donor(f, &ret->donors[0]);
	ret->nr_donors = 1;
	json_array_foreach(more, i, one) {
		struct fields fields = {one, true};

		if (ret->nr_donors == BRIDGE_STATE_DONORS) {
			f->sound = false;
			break;
		}
		load_donor(&fields, &ret->donors[ret->nr_donors++]);
		f->sound &= fields.sound;
	}
}

static void load_regions(struct fields *f, unsigned copies, struct bridge_copies_known *ret)
{
	const json_t *all = field(f, "regions", is_list), *one;
	size_t i;

	json_array_foreach(all, i, one) {
		const json_int_t nr = json_integer_value(one);

		f->sound &= i < copies && json_is_integer(one) && nr >= 0 &&
			nr <= weft_copies_regions_max((uint8_t)copies);
		if (!f->sound)
			return;
		ret->regions[i] = (uint32_t)nr;
	}
}

static void load_set(struct fields *f, unsigned copies, struct bridge_copies_known *ret)
{
	ret->set = hex_of(f, "set");
	ret->term = number_of(f, "term");
	ret->change = (uint32_t)number_of(f, "change");
	ret->members = (uint16_t)number_of(f, "members");
	load_regions(f, copies, ret);
	f->sound &= ret->term <= INT64_MAX &&
		(!ret->set || (ret->term && ret->members));
}

static void load_copies(struct fields *f, struct bridge_state_file *ret)
{
	const json_t *sets = field(f, "sets", is_list), *one;
	size_t i;

	ret->copies = 1;
	if (!sets)
		return;
	ret->copies = (unsigned)number_of(f, "copies");
	ret->min_copies = (unsigned)number_of(f, "min_copies");
	f->sound &= ret->copies > 1 && ret->min_copies >= 1 && ret->min_copies <= ret->copies &&
		ret->copies <= WEFT_COPIES_MAX &&
		json_array_size(sets) * ret->copies == ret->nr_donors;
	if (!f->sound)
		return;
	json_array_foreach(sets, i, one) {
		struct fields fields = {one, true};

		load_set(&fields, ret->copies, &ret->sets[i]);
		f->sound &= fields.sound;
	}
}

/*
 * Fills *ret from the file.  True: the file has what a bridge wrote; false: nothing was written
 * yet, or (ret->damaged) it makes no sense.
 */
static bool load(struct bridge_state_file *ret)
{
	char text[STATE_MAX];
	ssize_t n = pread(ret->fd, text, sizeof(text), 0);

	if (n == 0)
		return false;
	json_t *json = n > 0
		? json_loadb(text, (size_t)n, JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, NULL)
		: NULL;
	struct fields f = {json, json_is_object(json) && is_sum_right(json)};
	const char *mode = text_of(&f, "mode");

	f.sound &= number_of(&f, "version") <= STATE_VERSION;
	load_donors(&f, ret);
	ret->generation = number_of(&f, "generation");
	f.sound &= ret->generation > 0 && ret->generation <= INT64_MAX;
	ret->mode = mode ? mode[0] : 0;
	f.sound &= !ret->mode || (strchr("rsw", ret->mode) && !mode[1]);
	ret->stale = flag_of(&f, "stale");
	ret->socket_tenure = hex_of(&f, "socket_tenure");
	ret->borrower = hex_of(&f, "borrower");
	copy_into(&f, "boot", ret->boot, sizeof(ret->boot));
	ret->stripe_bytes = number_of(&f, "stripe_bytes");
	load_copies(&f, ret);
	ret->uri = copy(&f, "uri");
	ret->socket = copy(&f, "socket");
	ret->mount = copy(&f, "mount");
	ret->cache_file = copy(&f, "cache_file");
	ret->key_file = copy(&f, "key_file");
	ret->seal_file = copy(&f, "seal_file");
	const char *sealed = text_of(&f, "sealed");
	f.sound &= !sealed || seal_kind_parse(sealed, &ret->sealed);
	ret->guard = (pid_t)number_of(&f, "guard");
	ret->keeps[0] = number_of(&f, "keeps_seal");
	ret->keeps[1] = number_of(&f, "keeps_cache");
	ret->again = copy(&f, "again");
	ret->directory = copy(&f, "directory");
	copy_into(&f, "device", ret->device.path, sizeof(ret->device.path));
	copy_into(&f, "device_backend", ret->device.backend, sizeof(ret->device.backend));
	ret->device.nr_connections = (unsigned)number_of(&f, "device_connections");
	ret->unserved_ns = number_of(&f, "device_unserved_ns");
	ret->made_dev = number_of(&f, "made_dev");
	ret->made_ino = number_of(&f, "made_ino");
	ret->pid = (pid_t)number_of(&f, "pid");
	ret->damaged = !f.sound;
	json_decref(json);
	return f.sound;
}

void bridge_state_renew(struct bridge_state_file *state, unsigned nr_donors)
{
	for (unsigned i = 0; i < nr_donors; i++) {
		state->donors[i] = (struct bridge_state_donor){0};
		weft_random(state->donors[i].id, sizeof(state->donors[i].id));
	}
	state->nr_donors = nr_donors;
	state->copies = 1;
	memset(state->sets, 0, sizeof(state->sets));
	state->generation = UINT64_C(1) << 32;
	state->mode = 0;
	state->sealed = SEAL_NONE;
	state->guard = 0;
	state->stale = state->takes_over = false;
	state->socket_tenure = weft_random_name();
	/* Whoever has the file's lock is the attachment, and nobody else of this machine is. */
	state->borrower = weft_machine_number(state->path);
}

void bridge_state_next_incarnation(struct bridge_state_file *state)
{
	state->generation = weft_next_incarnation(state->generation);
}

void bridge_state_note(struct bridge_state_donor *donor, uint64_t epoch, uint64_t granted,
	bool wrote)
{
	if (granted < donor->granted)
		return;
	donor->wrote = wrote || (granted == donor->granted && donor->wrote);
	donor->granted = granted;
	donor->epoch = epoch;
}

static int lock(int fd, unsigned ms)
{
	const uint64_t end_ns = weft_now_ns() + ms * UINT64_C(1000000);

	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (weft_now_ns() > end_ns)
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
			return weft_error_set(err, -r, "cannot open %s: %s", ret->path,
				strerror(-r));
		}
		if (lock(ret->fd, LOOK_MS) < 0) {
			load(ret);
			if (ret->pid > 0 && weft_process_is_dying(ret->pid) &&
				lock(ret->fd, DYING_MS) == 0) {
				bridge_state_fini(ret);
				return bridge_state_open(name, ret, err);
			}
			r = weft_error_set(err, EBUSY,
				"there is an attachment '%s' already (pid %d, %s); end it with: "
				"weft detach %s; "
				"or give this one another --name",
				name, (int)ret->pid, ret->uri ? ret->uri : "?", name);
			return r;
		}
		/* The bridge that we waited for may have removed the file meanwhile. */
		if (fstat(ret->fd, &ours) == 0 && stat(ret->path, &there) == 0 &&
			ours.st_ino == there.st_ino)
			break;
		close(ret->fd);
	}
	char boot[sizeof(ret->boot)];
	weft_boot_id(boot, sizeof(boot));
	ret->takes_over = load(ret);
	if (ret->damaged)
		return weft_error_set(err, EUCLEAN,
			"%s cannot be believed: it is damaged, or of a newer weft, and what the "
			"bridge of '%s' that died "
			"remembers is not known; end what uses its device, file or socket, and "
			"give it up with: weft detach --force %s",
			ret->path, name, name);
	/*
	 * After a restart of the machine nothing is left of the attachment: it begins anew, and
	 * remembers nothing.
	 */
	if (ret->takes_over && ret->boot[0] && strcmp(ret->boot, boot) != 0)
		ret->takes_over = false;
	snprintf(ret->boot, sizeof(ret->boot), "%s", boot);
	if (ret->takes_over)
		bridge_state_next_incarnation(ret);
	else
		bridge_state_renew(ret, 1);
	return 0;
}

int bridge_state_peek(const char *name, struct bridge_state_file *ret, bool *ret_alive,
	struct weft_error *err)
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
	if (*ret_alive && ret->pid > 0 && weft_process_is_dying(ret->pid) &&
		lock(ret->fd, DYING_MS) == 0) {
		bridge_state_fini(ret);
		return bridge_state_peek(name, ret, ret_alive, err);
	}
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
	json_t *json = json_pack("{s:s, s:s, s:I, s:b}", "id", id, "epoch", epoch, "granted",
		(json_int_t)donor->granted, "wrote", (int)donor->wrote);
	if (donor->info.size_bytes)
		json_object_set_new(json, "info", info_json(&donor->info));
	if (donor->identity[0])
		json_object_set_new(json, "identity", json_string(donor->identity));
	if (donor->at[0])
		json_object_set_new(json, "at", json_string(donor->at));
	if (donor->moving[0])
		json_object_set_new(json, "moving", json_string(donor->moving));
	return json;
}

static json_t *sets_json(const struct bridge_state_file *state)
{
	json_t *sets = json_array();

	for (unsigned i = 0; i < state->nr_donors / state->copies; i++) {
		const struct bridge_copies_known *known = &state->sets[i];
		json_t *regions = json_array();
		char set[17];

		for (unsigned n = 0; n < state->copies; n++)
			json_array_append_new(regions, json_integer(known->regions[n]));
		snprintf(set, sizeof(set), "%016" PRIx64, known->set);
		json_array_append_new(sets,
			json_pack("{s:s, s:I, s:I, s:i, s:o}", "set", set, "term",
				(json_int_t)known->term, "change", (json_int_t)known->change,
				"members", (int)known->members, "regions",
				regions));
	}
	return sets;
}

static int version_of(const struct bridge_state_file *state)
{
	if (state->copies > 1)
		return STATE_VERSION;
	return state->sealed ? STATE_SEALED_VERSION : STATE_PLAIN_VERSION;
}

/* *ret_error: why it is NULL. */
static json_t *state_json(const struct bridge_state_file *state, int *ret_error)
{
	char mode[2] = {state->mode}, tenure[17], borrower[17];
	json_error_t error = {0};

	snprintf(tenure, sizeof(tenure), "%016" PRIx64, state->socket_tenure);
	json_t *json = donor_json(&state->donors[0]);
	json_t *rest = json_pack_ex(&error, 0,
		"{s:i, s:I, s:s?, s:s?, s:s?, s:s?, s:I, s:I, s:i, s:s, s:s, s:b, s:s}", "version",
		version_of(state), "generation",
		(json_int_t)state->generation, "uri", state->uri, "socket", state->socket, "mount",
		state->mount, "cache_file", state->cache_file, "made_dev",
		(json_int_t)state->made_dev, "made_ino", (json_int_t)state->made_ino, "pid",
		(int)state->pid, "mode", mode, "boot", state->boot, "stale",
		(int)state->stale, "socket_tenure", tenure);
	*ret_error = json_error_code(&error) == json_error_invalid_utf8 ? -EILSEQ : -ENOMEM;
	if (json_object_update_new(json, rest) < 0) {
		json_decref(json);
		return NULL;
	}
	if (state->sealed)
		json_object_update_new(json,
			json_pack("{s:s, s:i, s:I, s:I}", "sealed", seal_kind_name(state->sealed),
				"guard", (int)state->guard, "keeps_seal",
				(json_int_t)state->keeps[0], "keeps_cache",
				(json_int_t)state->keeps[1]));
	if ((state->key_file &&
		    json_object_set_new(json, "key_file", json_string(state->key_file)) < 0) ||
		(state->seal_file &&
			json_object_set_new(json, "seal_file", json_string(state->seal_file)) <
				0)) {
		*ret_error = -EILSEQ;
		json_decref(json);
		return NULL;
	}
	if (state->device.backend[0]) {
		json_object_set_new(json, "device", json_string(state->device.path));
		json_object_set_new(json, "device_backend", json_string(state->device.backend));
		json_object_set_new(json, "device_connections",
			json_integer(state->device.nr_connections));
		if (state->unserved_ns)
			json_object_set_new(json, "device_unserved_ns",
				json_integer((json_int_t)state->unserved_ns));
	}
	if (state->borrower) {
		snprintf(borrower, sizeof(borrower), "%016" PRIx64, state->borrower);
		json_object_set_new(json, "borrower", json_string(borrower));
	}
	if (state->again && state->directory)
		json_object_update_new(json,
			json_pack("{s:s, s:s}", "again", state->again, "directory",
				state->directory));
	if (state->nr_donors > 1) {
		json_t *more = json_array();

		for (unsigned i = 1; i < state->nr_donors; i++)
			json_array_append_new(more, donor_json(&state->donors[i]));
		json_object_set_new(json, "more", more);
		json_object_set_new(json, "stripe_bytes",
			json_integer((json_int_t)state->stripe_bytes));
	}
	if (state->copies > 1)
		json_object_update_new(json,
			json_pack("{s:i, s:i, s:o}", "copies", (int)state->copies, "min_copies",
				(int)state->min_copies, "sets", sets_json(state)));
	json_object_set_new(json, "sum", sum_of(json));
	return json;
}

/* Blanks, from here to there. */
static int write_blanks(int fd, size_t from, size_t to)
{
	char blanks[512];

	memset(blanks, ' ', sizeof(blanks));
	while (from < to) {
		ssize_t n = pwrite(fd, blanks, weft_min(to - from, sizeof(blanks)), (off_t)from);

		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		from += (size_t)n;
	}
	return 0;
}

int bridge_state_keep(struct bridge_state_file *state)
{
	struct stat st;

	if (fstat(state->fd, &st) < 0)
		return -errno;
	int r = write_blanks(state->fd, (size_t)st.st_size, STATE_MAX);
	if (r == 0)
		state->kept_bytes = STATE_MAX;
	return r;
}

/* After so many bytes of text comes nothing. */
static int end_file(struct bridge_state_file *state, size_t len)
{
	if (state->kept_bytes)
		return write_blanks(state->fd, len, state->kept_bytes);
	return ftruncate(state->fd, (off_t)len) < 0 ? -errno : 0;
}

int bridge_state_write(struct bridge_state_file *state, struct weft_error *err)
{
	int r, why;
	json_t *json = state_json(state, &why);
	char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
	size_t len = text ? strlen(text) : 0;
	ssize_t n = text && len <= STATE_MAX ? pwrite(state->fd, text, len, 0) : 0;

	if (!json)
		r = why;
	else if (!text || len > STATE_MAX)
		r = -ENOMEM;
	else if (n >= 0 && n < (ssize_t)len)
		r = -ENOSPC;
	else
		r = n < 0 ? -errno : end_file(state, len);
	if (r == 0 && fsync(state->fd) < 0)
		r = -errno;
	weft_debug("%s: %s", state->path, r < 0 ? strerror(-r) : "written");
	free(text);
	json_decref(json);
	if (r == -EILSEQ)
		return weft_error_set(err, EILSEQ,
			"cannot write %s: the path of the socket, the file, the cache file or the "
			"key file is no UTF-8; name another",
			state->path);
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
	free(state->key_file);
	free(state->seal_file);
	free(state->again);
	free(state->directory);
	state->uri = state->socket = state->mount = state->cache_file = state->key_file =
		state->again = state->directory = NULL;
}
