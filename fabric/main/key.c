/* SPDX-License-Identifier: MIT */
/*
 * weft key: who may use what this machine lends.  Makes keys, shows, changes and revokes them in
 * the donor's store, and writes the file that a borrower needs.  No secret is in argv, printed, or
 * in a buffer that is not wiped.  One thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/options.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/key/store.h"
#include "fabric/main/key.h"

/* ---- the borrower's file ---- */

/* Nobody else can read it, and none that is there is lost.  ret_path has PATH_MAX bytes. */
static int write_borrowers(const struct key_options *o, const struct weft_key *key, char *ret_path,
	struct weft_error *err)
{
	char line[WEFT_KEY_LINE_MAX + 1];
	int n = o->out ? snprintf(ret_path, PATH_MAX, "%s", o->out)
		       : snprintf(ret_path, PATH_MAX, "%s.key", key->identity);

	if (n >= PATH_MAX)
		return weft_error_set(err, ENAMETOOLONG, "the name of --out is too long");
	int fd = open(ret_path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EEXIST)
		return weft_error_set(err, EEXIST,
			"%s is there already, and may hold a key that somebody needs; say another "
			"file with --out FILE",
			ret_path);
	int r = fd < 0 ? -errno : 0;
	if (r == 0) {
		weft_key_format(key, line);
		strcat(line, "\n");
		r = weft_write_all(fd, line, strlen(line));
		explicit_bzero(line, sizeof(line));
	}
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (fd >= 0 && close(fd) < 0 && r == 0)
		r = -errno;
	if (r == 0)
		return 0;
	if (fd >= 0)
		unlink(ret_path);
	return weft_error_set(err, -r, "cannot write %s: %s", ret_path, strerror(-r));
}

static void print_how_to_carry(const char *path)
{
	WEFT_CLEANUP_FREE char *word = malloc(WEFT_SHELL_WORD_MAX(strlen(path)) + 1);

	if (word)
		weft_shell_word(path, word);
	const char *shown = word ? word : path;

	printf("The borrower needs the file %s, which nobody else may read:\n"
	       "\n"
	       "    ssh BORROWER mkdir -p -m 700 .config/weft\n"
	       "    scp -p %s BORROWER:.config/weft/key\n"
	       "\n"
	       "weft looks there by itself: in ~/.config/weft/key, then in /etc/weft/key; for "
	       "another\n"
	       "place, say --key FILE or WEFT_KEY=FILE.  Who has keys of several donors keeps a "
	       "line\n"
	       "of each in that file.  Then remove it here: rm %s\n",
		shown, shown, shown);
}

/*
 * Makes a key of this identity, and writes it to the borrower's file (ret_path, PATH_MAX) and then
 * to the store, so that the donor never knows one that the borrower cannot have.
 */
static int make(const struct key_options *o, struct weft_store *store, const char *identity,
	const struct weft_rights *rights, char *ret_path, struct weft_error *err)
{
	struct weft_key key;
	int r = weft_key_new(identity, &key, err);

	if (r == 0)
		r = write_borrowers(o, &key, ret_path, err);
	if (r < 0)
		goto out;
	r = weft_store_add(store, &key, rights, err);
	if (r == 0)
		r = weft_store_commit(store, err);
	if (r < 0)
		unlink(ret_path);
out:
	weft_key_wipe(&key);
	return r;
}

/* ---- actions ---- */

static int new_key(struct key_options *o, struct weft_store *store, struct weft_error *err)
{
	char path[PATH_MAX];
	struct weft_store_row row;
	int r = weft_store_find(store, o->name, &row, err);

	if (r == 0) {
		weft_rights_fini(&row.rights);
		return weft_error_set(err, EEXIST,
			"there is a key of '%s' already; give it another one with weft key rotate "
			"%s, or end it with weft key revoke %s",
			o->name, o->name, o->name);
	}
	if (r != -ENOKEY)
		return r;
	r = make(o, store, o->name, &o->rights, path, err);
	if (r < 0)
		return r;
	printf("'%s' has a key in %s%s.\n", o->name, o->dir,
		o->is_new_store ? ", which is new: start donors that run again"
				: "; donors that run know it");
	print_how_to_carry(path);
	return 0;
}

static int revoke_key(struct key_options *o, struct weft_store *store, struct weft_error *err)
{
	struct weft_store_row row;
	int r = weft_store_find(store, o->name, &row, err);

	if (r == 0)
		weft_rights_fini(&row.rights);
	else if (r != -EINVAL) /* its grants cannot be read: they are over, too */
		return r;
	weft_store_revoke(store, o->name);
	r = weft_store_commit(store, err);
	if (r == 0)
		printf("'%s' has no key any more; donors that run end its sessions.\n", o->name);
	return r;
}

static int finish_rotation(struct key_options *o, struct weft_store *store,
	const struct weft_store_row *row, struct weft_error *err)
{
	if (!row->other[0])
		return weft_error_set(err, EINVAL,
			"'%s' has one key only: no rotation is under way; begin one with weft key "
			"rotate %s",
			o->name, o->name);
	weft_store_remove(store, row->other);
	int r = weft_store_commit(store, err);
	if (r == 0)
		printf("The key of the identity %s is over; %s goes on.\n", row->other,
			row->identity);
	return r;
}

static int rotate_key(struct key_options *o, struct weft_store *store, struct weft_error *err)
{
	char identity[WEFT_IDENTITY_MAX + 1], path[PATH_MAX];
	struct weft_store_row row;
	int r = weft_store_find(store, o->name, &row, err);

	if (r < 0)
		return r;
	weft_rights_fini(&row.rights);
	if (o->finish)
		return finish_rotation(o, store, &row, err);
	if (row.other[0])
		return weft_error_set(err, EEXIST,
			"'%s' has two keys already: once all borrowers have %s, end %s with weft "
			"key rotate %s --finish",
			o->name, row.identity, row.other, o->name);
	if (!row.has_rights)
		return weft_error_set(err, ENOKEY,
			"nothing is granted to '%s', so that it lets nobody in; revoke it, and "
			"make "
			"a new one",
			o->name);
	snprintf(identity, sizeof(identity), "%s%s", o->name,
		strcmp(row.identity, o->name) == 0 ? "~2" : "");
	r = make(o, store, identity, NULL, path, err);
	if (r < 0)
		return r;
	printf("'%s' has a second key, of the identity %s; that of %s goes on until:\n"
	       "weft key rotate %s --finish\n",
		o->name, identity, row.identity, o->name);
	print_how_to_carry(path);
	return 0;
}

static const struct action {
	const char *name;
	/* What changes the store … */
	int (*fn)(struct key_options *o, struct weft_store *store, struct weft_error *err);
	enum weft_store_use use;
	/* … or only looks. */
	int (*look)(const struct key_options *o, struct weft_error *err);
} actions[] = {
	{"new", .fn = new_key, .use = WEFT_STORE_MAKE},
	{"list", .look = key_list},
	{"revoke", .fn = revoke_key, .use = WEFT_STORE_CHANGE},
	{"rotate", .fn = rotate_key, .use = WEFT_STORE_CHANGE},
	{"token", .look = key_token},
};

/* ---- the command line ---- */

static int parse_region(void *into, const struct weft_option *option, char *value)
{
	struct weft_rights *rights = &((struct key_options *)into)->rights;
	char **more = reallocarray(rights->regions, rights->nr_regions + 1, sizeof(*more));

	if (more)
		rights->regions = more;
	char *name = more ? strdup(value) : NULL;
	if (!name) {
		fputs("weft-key: out of memory\n", stderr);
		return 1;
	}
	rights->regions[rights->nr_regions++] = name;
	return WEFT_GO_ON;
}

static int parse_from(void *into, const struct weft_option *option, char *value)
{
	struct weft_rights *rights = &((struct key_options *)into)->rights;
	struct weft_range range, *more;

	if (weft_range_parse(value, &range) < 0)
		return weft_option_refuse(option, value);
	more = reallocarray(rights->from, rights->nr_from + 1, sizeof(*more));
	if (!more) {
		fputs("weft-key: out of memory\n", stderr);
		return 1;
	}
	rights->from = more;
	rights->from[rights->nr_from++] = range;
	return WEFT_GO_ON;
}

static int parse_expires(void *into, const struct weft_option *option, char *value)
{
	static const struct {
		char unit;
		int64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 7 * 86400}};
	const int64_t now = (int64_t)time(NULL);
	int64_t *ret = &((struct key_options *)into)->rights.expires;
	size_t digits = strspn(value, "0123456789");
	char date[WEFT_DATE_TEXT_MAX];

	*ret = 0;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(units); i++)
		if (digits > 0 && digits < 8 && value[digits] == units[i].unit &&
			!value[digits + 1])
			*ret = now + strtol(value, NULL, 10) * units[i].seconds;
	if (*ret == 0 && weft_date_parse(value, ret) < 0)
		return weft_option_refuse(option, value);
	if (*ret <= now)
		return weft_usage_error("--expires %s is over already: it is %s now", value,
			weft_date_format(now, date));
	return WEFT_GO_ON;
}

#define INTO(member) .into = offsetof(struct key_options, member)

static const struct weft_option options[] = {
	{NULL, "new|list|revoke|rotate|token", "what to do", .kind = WEFT_OPTION_ARGUMENT,
		INTO(action), .wants = "what to do is new, list, revoke, rotate or token"},
	{NULL, "NAME", "of who holds the key: up to 63 of a-z, A-Z, 0-9, '.', '_' and '-'",
		.kind = WEFT_OPTION_ARGUMENT, INTO(name)},
	{"store", "DIR",
		"the donor's keys (/etc/weft/keys for root,\n~/.config/weft/keys for others)",
		WEFT_OPTION_TEXT, WEFT_COMPLETE_DIRECTORY, INTO(store)},
	{"out", "FILE", "new, rotate: the borrower's file (IDENTITY.key)", WEFT_OPTION_TEXT,
		WEFT_COMPLETE_FILE, INTO(out)},
	{"key", "FILE", "token: of the key in this borrower's file, rather than of the store's",
		WEFT_OPTION_TEXT, WEFT_COMPLETE_FILE, INTO(key)},
	{"finish", NULL, "rotate: end the key that was there before", WEFT_OPTION_FLAG,
		INTO(finish)},
	{"json", NULL, "list: as JSON", WEFT_OPTION_FLAG, INTO(json)},
	{NULL, NULL, "What a new key grants:", .kind = WEFT_OPTION_GROUP},
	{"region", "NAME", "this region; several are possible (all regions)", WEFT_OPTION_CALL,
		.parse = parse_region},
	{"read-only", NULL, "only reading", WEFT_OPTION_FLAG, INTO(rights.read_only)},
	{"max-memory", "SIZE", "so much at a time, of all regions together (no limit)",
		WEFT_OPTION_SIZE, INTO(rights.max_bytes), .min = 1, .wants = "a size, such as 64G"},
	{"max-sessions", "N", "so many connections at a time (no limit)", WEFT_OPTION_NUMBER,
		INTO(rights.max_sessions), .min = 1, .max = 1000000},
	{"from", "ADDRESS[/BITS]", "only from there; several are possible (anywhere)",
		WEFT_OPTION_CALL, .parse = parse_from,
		.wants = "an address or a range, such as 192.0.2.0/24"},
	{"expires", "DURATION|DATE",
		"until then: 12h, 90d, 2027-01-31 (UTC) (for ever; a token: 12h)", WEFT_OPTION_CALL,
		.parse = parse_expires,
		.wants = "a time from now or a date, such as 12h, 90d or 2027-01-31"},
	{"rdma-plaintext", NULL, "RDMA too, whose payload is in plaintext", WEFT_OPTION_FLAG,
		INTO(rights.rdma_plaintext)},
	{"admin", NULL, "what changes the donor", WEFT_OPTION_FLAG, INTO(rights.admin)},
	{"pool-donor", NULL, "lending memory to a pool, as the donor of this name",
		WEFT_OPTION_FLAG, INTO(rights.pool_donor)},
	{0},
};

/* Which options belong to which actions; the rest to all. */
static const struct {
	const char *option, *actions;
} belongs[] = {
	{"out", "new rotate"},
	{"key", "token"},
	{"finish", "rotate"},
	{"json", "list"},
	{"region", "new"},
	{"read-only", "new"},
	{"max-memory", "new"},
	{"max-sessions", "new"},
	{"from", "new"},
	{"expires", "new token"},
	{"rdma-plaintext", "new"},
	{"admin", "new"},
	{"pool-donor", "new"},
};

static const struct action *action_of(const char *name)
{
	for (size_t i = 0; i < WEFT_ARRAY_LEN(actions); i++)
		if (strcmp(actions[i].name, name) == 0)
			return &actions[i];
	return NULL;
}

/* WEFT_GO_ON, or the exit status. */
static int check(const struct weft_command_line *line, const struct key_options *o)
{
	if (!action_of(o->action))
		return weft_usage_error("'%s': %s", o->action, options[0].wants);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(belongs); i++)
		if (weft_option_given(line, belongs[i].option) &&
			!strstr(belongs[i].actions, o->action))
			return weft_usage_error("--%s belongs to %s, not to %s", belongs[i].option,
				belongs[i].actions, o->action);
	if (strcmp(o->action, "list") == 0)
		return o->name
			? weft_usage_error("list shows all keys: '%s' is one too many", o->name)
			: WEFT_GO_ON;
	if (o->key && (o->store || !o->name))
		return o->store ? weft_usage_error("--key and --store are two places of a key")
				: WEFT_GO_ON;
	if (!o->name)
		return weft_usage_error("%s whose key? Give its name", o->action);
	if (!weft_identity_is_of(o->name, o->name))
		return weft_usage_error("'%s' is no name: it has up to %d letters of a-z, A-Z, "
					"digits, '.', '_' and '-'",
			o->name, WEFT_KEY_NAME_MAX);
	if (o->finish && o->out)
		return weft_usage_error(
			"--finish makes no key: there is nothing to write to --out");
	return WEFT_GO_ON;
}

static int parse(int argc, char **argv, struct key_options *o)
{
	struct weft_command_line line = {
		.command = "key",
		.synopsis = "new NAME [--out FILE] [--store DIR] [GRANTS]\n"
			    "list [--json] [--store DIR]\n"
			    "revoke NAME [--store DIR]\n"
			    "rotate NAME [--finish] [--out FILE] [--store DIR]\n"
			    "token NAME [--expires TIME] [--store DIR]\n"
			    "token [NAME] --key FILE [--expires TIME]",
		.about = "Says who may use what this machine lends, and what each may do.  Donors "
			 "that run follow at once.",
		.tables = {{options, o}},
		.surplus = "one name at a time",
		.noun = "a name",
	};
	int r = weft_options_parse(&line, argc, argv);

	return r == WEFT_GO_ON ? check(&line, o) : r;
}

static int run(struct key_options *o, struct weft_error *err)
{
	const struct action *action = action_of(o->action);
	struct weft_store *store;
	int r = o->store ? 0 : weft_keys_default_dir(o->dir, sizeof(o->dir), err);

	if (r == 0 && o->store && snprintf(o->dir, sizeof(o->dir), "%s", o->store) >= PATH_MAX)
		r = weft_error_set(err, ENAMETOOLONG, "the name of --store is too long");
	if (r == 0 && action->look)
		return action->look(o, err);
	o->is_new_store = r == 0 && access(o->dir, F_OK) < 0;
	if (r == 0)
		r = weft_store_open(o->dir, action->use, &store, err);
	if (r < 0)
		return r;
	r = action->fn(o, store, err);
	weft_store_close(store);
	return r;
}

int main(int argc, char **argv)
{
	struct key_options o = {0};
	struct weft_error err = {0};

	weft_process_begin();
	weft_process_set_limits();
	int r = parse(argc, argv, &o);
	if (r != WEFT_GO_ON)
		return r;
	r = run(&o, &err);
	weft_rights_fini(&o.rights);
	if (r < 0)
		fprintf(stderr, "weft-key: %s\n", err.message);
	return weft_end_output("weft-key", r < 0 ? 1 : 0);
}
