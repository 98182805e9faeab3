/* SPDX-License-Identifier: MIT */
/*
 * What a taker asks of a giver, over one connection as long as that lasts; and its reader's
 * connection.  On the take's thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/key/find.h"
#include "fabric/move/fields.h"
#include "fabric/move/moves-private.h"

enum {
	ASK_MS = 15000,   /* A may have to wait for sessions to end */
	WINDOW = 1 << 17, /* chunks, as the giver allows */
};

/* False: it is aborted, or the donor stops. */
bool take_nap(const struct take *t, int ms)
{
	struct pollfd p = {.fd = t->cancel_fd, .events = POLLIN};

	return poll(&p, 1, ms) == 0;
}

bool take_rest(struct take *t, int ms)
{
	struct pollfd p = {.fd = t->cancel_fd, .events = POLLIN};
	uint64_t nr;

	if (poll(&p, 1, ms) > 0 && read(t->cancel_fd, &nr, sizeof(nr)) < 0)
		weft_debug("cannot read an eventfd");
	pthread_mutex_lock(&t->moves->lock);
	bool stops = t->moves->stopping;
	pthread_mutex_unlock(&t->moves->lock);
	return !stops;
}

/* Whether the error is of the way to A, and not A's answer. */
bool take_is_of_link(int r)
{
	switch (-r) {
	case ECONNREFUSED:
	case ECONNRESET:
	case ECONNABORTED:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ENETDOWN:
	case ENOTCONN:
	case EPIPE:
	case ETIMEDOUT:
	case ESHUTDOWN:
		return true;
	default:
		return false;
	}
}

static int with_key(const struct take *t, struct weft_key *key, const struct weft_key **ret,
	struct weft_error *err)
{
	int r;

	*ret = NULL;
	if (t->moves->certificates)
		return 0;
	r = weft_key_find(NULL, t->uri.identity[0] ? t->uri.identity : NULL, key, err);
	if (r == 0)
		*ret = key;
	return r == -ENOENT && !t->uri.identity[0] ? 0 : r;
}

/* Takes over the question.  once: cancelling does not end it. */
int take_ask_with(struct take *t, json_t *question, int cancel_fd, json_t **ret,
	struct weft_error *err)
{
	struct weft_key key = {0};
	const struct weft_key *proof = NULL;
	json_t *ours = NULL;
	int r = question ? with_key(t, &key, &proof, err)
			 : weft_error_set(err, ENOMEM, "no memory");

	if (r == 0)
		r = tp_base_driver()->question(&t->uri, proof, t->moves->certificates, ASK_MS,
			cancel_fd, &t->talk, question, &ours, err);
	json_decref(question);
	weft_key_wipe(&key);
	if (r == 0 && ret)
		*ret = ours;
	else
		json_decref(ours);
	return r;
}

static int explain(const struct take *t, int r, struct weft_error *err)
{
	if (r == -ENOSYS)
		return weft_error_set(err, ENOSYS, "%s is at a weft that cannot move regions",
			t->from);
	/* Where it is not A's own word. */
	return r < 0 && !t->talk ? weft_error_prefix(err, "cannot ask for %s", t->from) : r;
}

int take_ask(struct take *t, json_t *question, json_t **ret, struct weft_error *err)
{
	return explain(t, take_ask_with(t, question, t->cancel_fd, ret, err), err);
}

int take_ask_to_the_end(struct take *t, json_t *question, json_t **ret, struct weft_error *err)
{
	return explain(t, take_ask_with(t, question, -1, ret, err), err);
}

json_t *take_question(const struct take *t, const char *op)
{
	return json_pack("{s:s, s:s, s:o, s:I}", "op", op, "region", t->uri.region, "move",
		number_json(t->number), "turn", (json_int_t)t->turn);
}

static int unintelligible(const struct take *t, struct weft_error *err)
{
	return weft_error_set(err, EPROTO, "%s answers what makes no sense", t->from);
}

/* What goes with the contents, from A's answer. */
int take_apply(struct take *t, const json_t *told, struct weft_error *err)
{
	struct weft_region_facts *facts = calloc(1, sizeof(*facts));
	struct weft_region *region = t->region;
	bool good = facts && field_facts(told, "facts", facts);

	if (good) {
		memcpy(region->generations, facts->table, sizeof(facts->table));
		weft_region_set_id_key(region, facts->id_key);
		weft_region_note_stripe(region, &facts->stripe);
		/* Whoever wrote it there knew nothing of copies, as far as is known here. */
		weft_region_note_copies(region, &(struct weft_copies){.foreign = 1});
		region->promised_lease_ms = facts->lease_ms;
	}
	free(facts);
	return good ? 0 : unintelligible(t, err);
}

/* Only who is frozen says that. */
static void note_readers(struct take *t, const json_t *told)
{
	uint64_t nr;

	if (!field_count(told, "readers", UINT32_MAX, &nr))
		return;
	pthread_mutex_lock(&t->moves->lock);
	t->view.nr_readers = nr;
	pthread_mutex_unlock(&t->moves->lock);
}

/* All changes since the last time, by "or" into t->changed; op: give-changes, give-freeze. */
int take_ask_changes(struct take *t, const char *op, uint64_t pace, struct weft_error *err)
{
	struct pull *pull = &t->pull;

	memset(t->changed, 0, pull->nr_words * sizeof(*t->changed));
	for (uint64_t first = 0, nr; first < pull->nr_chunks; first += nr) {
		json_t *question = take_question(t, first == 0 ? op : "give-changes"), *told;

		nr = weft_min(WINDOW, pull->nr_chunks - first);
		json_object_set_new(question, "first", json_integer((json_int_t)first));
		json_object_set_new(question, "nr", json_integer((json_int_t)nr));
		json_object_set_new(question, "pace_ns_per_mib", json_integer((json_int_t)pace));
		int r = take_ask(t, question, &told, err);
		if (r < 0)
			return r;
		if (!field_bits(told, "bits", nr, t->changed + first / 64))
			r = unintelligible(t, err);
		else if (json_object_get(told, "facts"))
			r = take_apply(t, told, err);
		note_readers(t, told);
		json_decref(told);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Where the file is to be. */
static int find_path(struct take *t, struct weft_error *err)
{
	const char *directory = t->moves->directory;

	if (t->fills)
		return weft_error_set(err, EOPNOTSUPP,
			"%s is a file, and a file is not served before all of it is on the disk: "
			"move it without --post-copy",
			t->from);
	if (t->file)
		return 0;
	if (!directory)
		return weft_error_set(err, EPERM,
			"%s is a file, and this donor takes none: start it with weft serve --take "
			"DIRECTORY",
			t->from);
	if (!weft_region_file_name_valid(t->name))
		return weft_error_set(err, EINVAL,
			"region '%s' is a file, and its name cannot be one's: move it to another "
			"name, such as %s",
			t->name, "weft://HOST/NAME");
	return asprintf(&t->file, "%s/%s", directory, t->name) < 0
		? weft_error_set(err, ENOMEM, "no memory")
		: 0;
}

/* Who cannot follow: ret_names, of TAKE_WHO_MAX, is for people. */
int take_look(struct take *t, uint64_t *ret_size, uint64_t *ret_cannot, char *ret_names,
	struct weft_error *err)
{
	uint64_t follow, cannot;
	json_t *told;
	int r = take_ask(t, take_question(t, "give-look"), &told, err);

	if (r < 0)
		return r;
	if (!field_number(told, "epoch", &t->epoch) ||
		!field_count(told, "size", INT64_MAX, ret_size) || *ret_size == 0 ||
		!field_count(told, "follow", UINT32_MAX, &follow) ||
		!field_count(told, "cannot_follow", UINT32_MAX, &cannot))
		r = unintelligible(t, err);
	else if (json_is_true(json_object_get(told, "read_only")))
		r = weft_error_set(err, EOPNOTSUPP,
			"a region that is lent read-only does not move");
	else if (json_is_true(json_object_get(told, "file")))
		r = find_path(t, err);
	else if (t->fills && !json_is_true(json_object_get(told, "post_copy")))
		/* It would let nobody read what it gave away, and nothing would come here. */
		r = weft_error_set(err, EOPNOTSUPP,
			"%s is at a weft that gives nothing away before it is copied: move it "
			"without --post-copy",
			t->from);
	if (r == 0) {
		const char *names = json_string_value(json_object_get(told, "names"));

		*ret_cannot = cannot;
		snprintf(ret_names, TAKE_WHO_MAX, "%s", names ? names : "");
	}
	json_decref(told);
	pthread_mutex_lock(&t->moves->lock);
	t->view.size_bytes = t->view.left_bytes = r == 0 ? *ret_size : 0;
	t->view.nr_borrowers = r == 0 ? (unsigned)follow : 0;
	pthread_mutex_unlock(&t->moves->lock);
	return r;
}

int take_check_who_follows(const struct take *t, uint64_t cannot, const char *names,
	struct weft_error *err)
{
	if (cannot == 0 || t->disconnect)
		return 0;
	return weft_error_set(err, EBUSY,
		"it is used by who cannot follow: %.200s; with --disconnect they lose it", names);
}

int take_connect_reader(struct take *t, struct weft_error *err)
{
	const struct tp_driver *before = t->pull.driver;
	struct weft_key key = {0};
	const struct weft_key *proof = NULL;
	int r = with_key(t, &key, &proof, err);

	if (r == 0)
		r = pull_connect(&t->pull, &t->uri, proof, t->moves->certificates, t->reader,
			t->epoch, err);
	weft_key_wipe(&key);
	if (r == 0 && t->pull.driver != before)
		weft_info("region '%s' is read from %s over %s", t->name, t->from,
			t->pull.driver->label);
	return r;
}
