/* SPDX-License-Identifier: MIT */
/*
 * weft swap on: attaches, looks whether that is safe, makes swap spaces and takes them into use.
 * Each step is noted before it is taken; a failure, or Ctrl-C, undoes what is noted.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/swap.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/uri.h"
#include "nbd-bridge/main/swap-bridge.h"
#include "nbd-bridge/main/swap-check.h"
#include "nbd-bridge/main/swap-down.h"
#include "nbd-bridge/main/swap-kernel.h"
#include "nbd-bridge/main/swap-run.h"
#include "nbd-bridge/main/swap-setting.h"

enum { LABEL_MAX = 15 }; /* of a swap space */

/* What is being made. */
struct making {
	const struct swap_options *o;
	struct swap_note note;
	struct swap_findings findings;
	size_t nr_told;      /* of the findings */
	uint64_t size_bytes; /* of all spaces together */
	char told[4096];     /* a line for each space */
};

/* ---- names ---- */

/* The region's name, as far as it may be an attachment's. */
static void name_of_region(const char *uri_text, char *ret)
{
	struct weft_uri uri;

	strcpy(ret, "swap");
	if (weft_uri_parse(uri_text, &uri, NULL) < 0)
		return;
	if (weft_name_valid(uri.region) && uri.region[0] != '-' && uri.region[0] != '.' &&
		strlen(uri.region) + 3 <= WEFT_NAME_MAX)
		strcpy(ret, uri.region);
	weft_uri_fini(&uri);
}

static int plan(struct making *m, struct weft_error *err)
{
	const struct swap_options *o = m->o;
	struct swap_note earlier;

	if (o->zswap && swap_zswap() == SWAP_ZSWAP_NONE)
		return weft_error_set(err, EOPNOTSUPP, "--zswap: this kernel has no zswap");
	if (o->name)
		snprintf(m->note.name, sizeof(m->note.name), "%s", o->name);
	else
		name_of_region(o->arguments[0], m->note.name);
	m->note.priority = (int)o->priority;
	m->note.exclusive = o->exclusive;
	int r = swap_note_read(m->note.name, &earlier, err);
	if (r == 0)
		return weft_error_set(err, EEXIST,
			"there is a swap '%s' already; give this one another --name, or end that "
			"one: weft swap off %s",
			m->note.name, m->note.name);
	if (r != -ENOENT)
		return r;
	if (o->cgroup || o->slice)
		return swap_group_find(o->cgroup, o->slice, m->note.group, err);
	return 0;
}

/* ---- the preflight ---- */

/* Says what is new of it.  -EPERM: it is not safe, and not forced. */
static int judge(struct making *m, struct weft_error *err)
{
	const struct swap_findings *all = &m->findings;

	for (; m->nr_told < all->nr; m->nr_told++)
		fprintf(stderr, "weft-swap: %s: %s\n",
			all->at[m->nr_told].refuses ? "not safe" : "note",
			all->at[m->nr_told].text);
	if (all->nr_refusals == 0 || m->o->force)
		return 0;
	return weft_error_set(err, EPERM,
		"not done, as %zu thing%s above %s not safe; --force does it all the same",
		all->nr_refusals, all->nr_refusals == 1 ? "" : "s",
		all->nr_refusals == 1 ? "is" : "are");
}

static int interrupted(struct weft_error *err)
{
	return swap_signals_came() ? weft_error_set(err, EINTR, "interrupted") : 0;
}

/* ---- a member ---- */

static int attach_member(struct making *m, char *const *uris, unsigned nr, const char *suffix,
	struct weft_error *err)
{
	struct swap_member *member = &m->note.members[m->note.nr_members];
	json_t *status = NULL;
	size_t used = 0;

	snprintf(member->attachment, sizeof(member->attachment), "%.*s%s", WEFT_NAME_MAX - 3,
		m->note.name, suffix);
	for (unsigned i = 0; i < nr && used < sizeof(member->uri); i++)
		used += (size_t)snprintf(member->uri + used, sizeof(member->uri) - used, "%s%s",
			i ? " " : "", uris[i]);
	if (used >= sizeof(member->uri))
		return weft_error_set(err, E2BIG, "the URIs are too long");
	if (swap_is_attached(member->attachment))
		return weft_error_set(err, EEXIST,
			"there is an attachment '%s' already; give the swap another --name, or "
			"end that one: weft detach %s",
			member->attachment, member->attachment);
	m->note.nr_members++;
	int r = swap_note_write(&m->note, err);
	if (r == 0)
		r = swap_attach(m->o, member->attachment, uris, nr, !m->findings.unlocked, err);
	if (r == 0)
		r = swap_ask_bridge(member->attachment, &status, err);
	if (r < 0)
		return r;
	const char *device = json_string_value(json_object_get(status, "device"));
	snprintf(member->device, sizeof(member->device), "%s", device ? device : "");
	r = device ? swap_note_backend(member, err)
		   : weft_error_set(err, ENODEV, "'%s' has no device", member->attachment);
	if (r == 0)
		r = swap_note_write(&m->note, err);
	if (r == 0) {
		swap_check_path(status, &m->findings);
		r = judge(m, err);
	}
	json_decref(status);
	return r;
}

static int attach_all(struct making *m, struct weft_error *err)
{
	const struct swap_options *o = m->o;
	char suffix[8] = "";
	int r = 0;

	if (o->striped || o->nr_arguments == o->copies)
		return attach_member(m, o->arguments, o->nr_arguments, suffix, err);
	for (unsigned i = 0; i < o->nr_arguments && r == 0; i += o->copies) {
		snprintf(suffix, sizeof(suffix), "-%u", i / o->copies + 1);
		r = interrupted(err);
		if (r == 0)
			r = attach_member(m, &o->arguments[i], o->copies, suffix, err);
	}
	return r;
}

/* ---- the swap space on its device ---- */

/* util-linux has them where a user's PATH may not lead. */
static const char *tool(const char *name, char *buf, size_t len)
{
	static const char *const dirs[] = {"/usr/sbin", "/sbin"};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(dirs); i++) {
		snprintf(buf, len, "%s/%s", dirs[i], name);
		if (access(buf, X_OK) == 0)
			return buf;
	}
	snprintf(buf, len, "%s", name);
	return buf;
}

/* What mkswap(8) would destroy. */
static int check_empty(const struct swap_member *member, bool give_up, struct weft_error *err)
{
	char wipefs[64], said[512];
	const char *argv[] = {tool("wipefs", wipefs, sizeof(wipefs)), "--no-act", "--noheadings",
		"--output", "TYPE", member->device, NULL};
	int r = swap_run(argv, said, sizeof(said), err);

	if (r < 0)
		return weft_error_prefix(err, "cannot see whether %s is empty", member->uri);
	said[strcspn(said, "\n")] = '\0';
	if (give_up || !said[0] || strcmp(said, "swap") == 0)
		return 0;
	return weft_error_set(err, EEXIST,
		"%.200s has something in it (%.64s), which a swap space would destroy; name an "
		"empty region, or give it up with --new-contents",
		member->uri, said);
}

static int make_space(const struct making *m, const struct swap_member *member,
	struct weft_error *err)
{
	char mkswap[64], label[WEFT_NAME_MAX + 8], kib[32];
	const char *argv[] = {tool("mkswap", mkswap, sizeof(mkswap)), "--quiet", "--label", label,
		member->device, m->o->size_bytes ? kib : NULL, NULL};
	char said[1024];
	int r = check_empty(member, m->o->new_contents, err);

	if (r < 0)
		return r;
	snprintf(label, sizeof(label), "%.*s", LABEL_MAX, member->attachment);
	snprintf(kib, sizeof(kib), "%" PRIu64, m->o->size_bytes / WEFT_KIB);
	r = swap_run(argv, said, sizeof(said), err);
	return r < 0 ? weft_error_prefix(err, "no swap space could be made on %s", member->device)
		     : 0;
}

static int use_space(struct making *m, const struct swap_member *member, struct weft_error *err)
{
	const int flags = SWAP_FLAG_PREFER | (m->note.priority & SWAP_FLAG_PRIO_MASK);
	struct swap_spaces spaces;
	char size[32];

	if (swapon(member->device, flags) < 0)
		return weft_error_set(err, errno, "swapon %s: %s%s", member->device,
			strerror(errno), errno == EPERM ? " (it takes CAP_SYS_ADMIN)" : "");
	swap_spaces_read(&spaces);
	const struct swap_space *space = swap_spaces_find(&spaces, member->device);
	if (!space)
		return weft_error_set(err, EIO, "%s is not among /proc/swaps", member->device);
	m->size_bytes += space->size_bytes;
	size_t used = strlen(m->told);
	snprintf(m->told + used, sizeof(m->told) - used, "  %s, %s, of %s\n", member->device,
		weft_format_size(space->size_bytes, size, sizeof(size)), member->uri);
	return 0;
}

static int change_settings(struct making *m, struct weft_error *err)
{
	const struct swap_options *o = m->o;
	int r = 0;

	if (o->zswap)
		r = swap_setting_change(&m->note, SWAP_ZSWAP_SWITCH, "Y", err);
	if (r == 0 && m->note.group[0])
		r = swap_group_limit(&m->note, o->high_bytes,
			o->swap_max_bytes ? o->swap_max_bytes : m->size_bytes, err);
	if (r == 0 && m->note.exclusive)
		r = swap_group_keep_others_off(&m->note, err);
	return r;
}

/* ---- the whole ---- */

static int make_all(struct making *m, struct weft_error *err)
{
	int r = attach_all(m, err);

	for (size_t i = 0; i < m->note.nr_members && r == 0; i++) {
		r = interrupted(err);
		if (r == 0)
			r = make_space(m, &m->note.members[i], err);
	}
	for (size_t i = 0; i < m->note.nr_members && r == 0; i++) {
		r = interrupted(err);
		if (r == 0)
			r = use_space(m, &m->note.members[i], err);
	}
	if (r == 0)
		r = change_settings(m, err);
	return r < 0 ? r : interrupted(err);
}

static void undo(struct making *m)
{
	struct weft_error err;

	/* A second Ctrl-C ends the undoing. */
	swap_signals_forget();
	if (swap_take_down(&m->note, &err) == 0) {
		fprintf(stderr, "weft-swap: what was begun is undone\n");
		return;
	}
	fprintf(stderr,
		"weft-swap: not all that was begun is undone: %s; go on with: weft swap "
		"off %s\n",
		err.message, m->note.name);
}

static void report(const struct making *m)
{
	const struct swap_options *o = m->o;
	char size[32];

	printf("'%s' is swap space: %s, priority %d\n%s", m->note.name,
		weft_format_size(m->size_bytes, size, sizeof(size)), m->note.priority, m->told);
	if (m->note.group[0]) {
		printf("  %s may have %s in swap", m->note.group,
			weft_format_size(o->swap_max_bytes ? o->swap_max_bytes : m->size_bytes,
				size, sizeof(size)));
		if (o->high_bytes)
			printf(", and about %s in memory",
				weft_format_size(o->high_bytes, size, sizeof(size)));
		printf("\n");
	}
	if (m->note.exclusive)
		printf("  the other groups at the top do not swap; the root group's own "
		       "processes cannot be kept from it\n");
	if (o->zswap)
		printf("  zswap is on: the kernel compresses what it can in front of it\n");
	printf("  end it with: weft swap off %s\n", m->note.name);
}

/* Whether it may be done.  Nothing is made yet. */
static int look(struct making *m, struct weft_error *err)
{
	int r = plan(m, err);

	if (r < 0)
		return r;
	swap_check_plan(m->o, m->note.group, &m->findings);
	r = judge(m, err);
	if (r == 0 && !m->o->dry_run && geteuid() != 0)
		r = weft_error_set(err, EPERM, "swap spaces are root's to make");
	return r;
}

int swap_on(const struct swap_options *o)
{
	struct making m = {.o = o};
	struct weft_error err = {0};
	const int lock = swap_lock(&err);
	int r = lock < 0 ? lock : look(&m, &err);
	const bool makes = r == 0 && !o->dry_run;

	swap_signals_hold();
	if (makes)
		r = make_all(&m, &err);
	if (r < 0)
		fprintf(stderr, "weft-swap: %s\n", err.message);
	if (r < 0 && makes)
		undo(&m);
	else if (makes)
		report(&m);
	else if (r == 0)
		printf("'%s' could be swapped to, as far as can be seen before it is attached\n",
			m.note.name);
	weft_close_fd(lock);
	return r < 0 ? 1 : 0;
}
