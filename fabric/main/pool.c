/* SPDX-License-Identifier: MIT */
/*
 * weft pool: the memory that the donors of a cluster lend, as one.  This file is the command line.
 * One thread.
 */
#include <stdio.h>
#include <string.h>

#include "fabric/base/options.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/main/pool.h"

/* ---- actions ---- */

static const struct action {
	const char *name;
	int (*ask)(struct pool_options *o, struct pool_client *client, struct weft_error *err);
	const char *noun; /* of its name; NULL: it takes none */
	bool may_lack_name;
	bool may_lack_client; /* then err says why there is none, and client is NULL */
} actions[] = {
	{"serve", NULL, NULL, false, false},
	{"status", pool_ask_status, NULL, false, false},
	{"donors", pool_ask_donors, NULL, false, false},
	{"leases", pool_ask_leases, "lease", true, false},
	{"uris", pool_ask_uris, "lease", false, false},
	{"alloc", pool_ask_alloc, "lease", false, false},
	{"release", pool_ask_release, "lease", true, false},
	{"resize", pool_ask_resize, "lease", false, false},
	{"move", pool_ask_move, "lease", false, false},
	{"cordon", pool_ask_donor_state, "donor", false, false},
	{"drain", pool_ask_donor_state, "donor", false, false},
	{"open", pool_ask_donor_state, "donor", false, false},
	{"forget", pool_ask_forget, "donor", false, false},
	{"quota", pool_ask_quota, "user", false, false},
	{"quotas", pool_ask_quotas, NULL, false, false},
	{"audit", pool_ask_audit, NULL, false, false},
	{"job-start", pool_job_start, NULL, false, true},
	{"job-end", pool_job_end, NULL, false, true},
};

static const struct action *action_of(const char *name)
{
	for (size_t i = 0; i < WEFT_ARRAY_LEN(actions); i++)
		if (strcmp(actions[i].name, name) == 0)
			return &actions[i];
	return NULL;
}

/* ---- the command line ---- */

static int parse_listen(void *into, const struct weft_option *option, char *value)
{
	struct pool_options *o = into;

	if (o->nr_listen == POOL_MAX_LISTEN)
		return weft_usage_error("--listen can be given %d times at most", POOL_MAX_LISTEN);
	o->listen[o->nr_listen++] = value;
	return WEFT_GO_ON;
}

static int parse_size(void *into, const struct weft_option *option, char *value)
{
	struct pool_options *o = into;

	if (weft_parse_size(value, &o->size_bytes) < 0)
		return weft_option_refuse(option, value);
	o->has_size = true;
	return WEFT_GO_ON;
}

static int parse_spread(void *into, const struct weft_option *option, char *value)
{
	if (strcmp(value, "donor") != 0 && strcmp(value, "rack") != 0)
		return weft_option_refuse(option, value);
	((struct pool_options *)into)->spread = value;
	return WEFT_GO_ON;
}

#define INTO(member) .into = offsetof(struct pool_options, member)

static const struct weft_option options[] = {
	{NULL,
		"status|donors|leases|alloc|release|resize|move|uris|cordon|drain|open|forget|"
		"quotas|quota|audit|job-start|job-end|serve",
		"what to do", .kind = WEFT_OPTION_ARGUMENT, INTO(action),
		.wants = "what to do is status, donors, leases, alloc, release or another word of "
			 "weft pool --help"},
	{NULL, "NAME", "of the lease, the donor or the user", .kind = WEFT_OPTION_ARGUMENT,
		INTO(name)},
	{"url", "URL",
		"the coordinator: https://HOST[:PORT], unix:/PATH, http://127.0.0.1:PORT\n"
		"(default: $WEFT_POOL, or your user's on this machine)",
		WEFT_OPTION_TEXT, INTO(at.url)},
	{"key", "FILE",
		"the key that the coordinator knows (default: $WEFT_KEY, ~/.config/weft/key,\n"
		"/etc/weft/key)",
		WEFT_OPTION_TEXT, WEFT_COMPLETE_FILE, INTO(at.key)},
	{"tls-certificates", "DIR",
		"trust DIR/ca-cert.pem and show the certificate there; serve: lend an ear over\n"
		"HTTPS, with its server-cert.pem and server-key.pem",
		WEFT_OPTION_TEXT, WEFT_COMPLETE_DIRECTORY, INTO(at.certificates)},
	{"json", NULL, "say it as JSON", WEFT_OPTION_FLAG, INTO(json)},
	{"wait", "SECONDS",
		"how long to wait for donors (alloc, release, resize, move: 60; drain: for ever)",
		.kind = WEFT_OPTION_SECONDS, INTO(wait_ms), .zero = true, .wants = "seconds"},
	{.kind = WEFT_OPTION_GROUP, .help = "What a lease is:"},
	{"size", "SIZE", "alloc, resize: of each copy; quota: how much", WEFT_OPTION_CALL,
		.parse = parse_size, .wants = "a size, such as 64G"},
	{"mirror", "COPIES", "alloc: so many copies, each at another donor (1)", WEFT_OPTION_NUMBER,
		INTO(copies), .min = 1, .max = 3},
	{"spread", "donor|rack", "alloc: copies at donors, or in racks, of their own (donor)",
		WEFT_OPTION_CALL, .parse = parse_spread, .wants = "donor or rack"},
	{"for", "JOB", "alloc: it is this job's; leases, release: this job's", WEFT_OPTION_TEXT,
		INTO(job)},
	{"project", "NAME", "alloc: this project pays; quota: it is a project's name",
		WEFT_OPTION_TEXT, INTO(project)},
	{"owner", "USER", "alloc: it is this user's (yours)", WEFT_OPTION_TEXT, INTO(owner)},
	{"at", "DONOR", "alloc: at this donor", WEFT_OPTION_TEXT, INTO(donor)},
	{"keep", "SECONDS",
		"alloc: it ends once nobody has had it attached for so long\n"
		"(with --for: 600; without: never)",
		.kind = WEFT_OPTION_SECONDS, INTO(idle_ms), .zero = true, .wants = "seconds"},
	{"dry-run", NULL, "alloc: say whether there is room, and do nothing", WEFT_OPTION_FLAG,
		INTO(dry_run)},
	{"explain", NULL, "alloc: say of each donor why it was chosen, or was not",
		WEFT_OPTION_FLAG, INTO(explain)},
	{.kind = WEFT_OPTION_GROUP, .help = "What becomes of it:"},
	{"force", NULL, "release: although it is attached; whoever has it loses it",
		WEFT_OPTION_FLAG, INTO(force)},
	{"discard", NULL, "resize: give up its contents", WEFT_OPTION_FLAG, INTO(discard)},
	{"to", "DONOR", "move: there (wherever there is most room)", WEFT_OPTION_TEXT, INTO(to)},
	{"copy", "NUMBER", "move: which of its copies (0)", WEFT_OPTION_NUMBER, INTO(copy),
		.max = 2},
	{"none", NULL, "quota: there is none any more", WEFT_OPTION_FLAG, INTO(none)},
	{"after", "NUMBER", "audit: what came after this entry", WEFT_OPTION_NUMBER, INTO(after),
		.max = UINT32_MAX},
	{.kind = WEFT_OPTION_GROUP, .help = "For a scheduler (job-start, job-end):"},
	{"job", "JOB", "its number", WEFT_OPTION_TEXT, INTO(job)},
	{"want", "TEXT",
		"job-start: what it asks for of each node: "
		"weft=SIZE[,copies=N][,as=file|device|swap], or\n"
		"weft:GIB for all nodes; among other words ($SPANK_WEFT)",
		WEFT_OPTION_TEXT, INTO(want)},
	{"nodes", "NODE,...", "job-start: make leases for these nodes, and attach nothing here",
		WEFT_OPTION_TEXT, INTO(nodes)},
	{"node", "NODE", "this node ($SLURMD_NODENAME, or the machine's name)", WEFT_OPTION_TEXT,
		INTO(node)},
	{"first", NULL, "it is the job's first node, and has what is for any (job-JOB.any.FORM)",
		WEFT_OPTION_FLAG, INTO(is_first)},
	{"dir", "DIR", "where a job finds what it has (/run/weft-jobs)", WEFT_OPTION_TEXT,
		WEFT_COMPLETE_DIRECTORY, INTO(dir)},
	{"cgroup", "PATH", "job-start: who swaps to it (weft swap on --cgroup)", WEFT_OPTION_TEXT,
		INTO(cgroup)},
	{"allow-swap", NULL, "job-start: jobs may have swap space, whoever else swaps to it",
		WEFT_OPTION_FLAG, INTO(allow_swap)},
	{"allow-insecure", NULL, "job-start: as of weft attach", WEFT_OPTION_FLAG,
		INTO(allow_insecure)},
	{.kind = WEFT_OPTION_GROUP, .help = "The coordinator (serve):"},
	{"listen", "ADDRESS[:PORT]",
		"or unix:PATH; more than loopback with --tls-certificates alone (default: a\n"
		"socket of your user's)",
		WEFT_OPTION_CALL, .parse = parse_listen},
	{"socket", "PATH", "the same as --listen unix:PATH", WEFT_OPTION_TEXT, WEFT_COMPLETE_FILE,
		INTO(socket)},
	{"state", "FILE", "where it keeps what it decided (/var/lib/weft/pool.db for root)",
		WEFT_OPTION_TEXT, WEFT_COMPLETE_FILE, INTO(state)},
	{"keys", "DIR",
		"the store of weft key that says who may ask (default: /etc/weft/keys for root,\n"
		"~/.config/weft/keys for others)",
		WEFT_OPTION_TEXT, WEFT_COMPLETE_DIRECTORY, INTO(keys)},
	{"etcd", "URL,...",
		"in place of --state: the site's etcd, http://HOST:PORT or https://…; of several\n"
		"coordinators one leads",
		WEFT_OPTION_TEXT, INTO(etcd)},
	{"etcd-prefix", "KEY", "of the keys there (/weft/pool)", WEFT_OPTION_TEXT,
		INTO(etcd_prefix)},
	{"etcd-certificates", "DIR", "trust DIR/ca-cert.pem, and show DIR/client-cert.pem, to etcd",
		WEFT_OPTION_TEXT, WEFT_COMPLETE_DIRECTORY, INTO(etcd_certificates)},
	{0},
};

/* Which options belong to which actions; the rest to all but serve. */
static const struct {
	const char *option, *actions;
} belongs[] = {
	{"wait", "alloc release resize move drain job-start job-end"},
	{"size", "alloc resize quota"},
	{"mirror", "alloc"},
	{"spread", "alloc"},
	{"for", "alloc leases release"},
	{"project", "alloc quota job-start"},
	{"owner", "alloc job-start"},
	{"at", "alloc"},
	{"keep", "alloc job-start"},
	{"dry-run", "alloc"},
	{"explain", "alloc"},
	{"force", "release"},
	{"discard", "resize"},
	{"to", "move"},
	{"copy", "move"},
	{"none", "quota"},
	{"after", "audit"},
	{"job", "job-start job-end"},
	{"want", "job-start"},
	{"nodes", "job-start"},
	{"node", "job-start job-end"},
	{"first", "job-start job-end"},
	{"dir", "job-start job-end"},
	{"cgroup", "job-start"},
	{"allow-swap", "job-start"},
	{"allow-insecure", "job-start"},
	{"listen", "serve"},
	{"socket", "serve"},
	{"state", "serve"},
	{"keys", "serve"},
	{"etcd", "serve"},
	{"etcd-prefix", "serve"},
	{"etcd-certificates", "serve"},
};

/* Whether the word is one of the list's. */
static bool has_word(const char *list, const char *word)
{
	const size_t len = strlen(word);

	for (const char *at = list; (at = strstr(at, word)); at += len)
		if ((at == list || at[-1] == ' ') && (at[len] == '\0' || at[len] == ' '))
			return true;
	return false;
}

/* WEFT_GO_ON, or the exit status. */
static int check_belongings(const struct weft_command_line *line, const struct pool_options *o)
{
	static const char *const of_askers[] = {"url", "key", "json"};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(belongs); i++)
		if (weft_option_given(line, belongs[i].option) &&
			!has_word(belongs[i].actions, o->action))
			return weft_usage_error("--%s belongs to %s, not to %s", belongs[i].option,
				belongs[i].actions, o->action);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(of_askers); i++)
		if (strcmp(o->action, "serve") == 0 && weft_option_given(line, of_askers[i]))
			return weft_usage_error("--%s is for those who ask, not for serve",
				of_askers[i]);
	return WEFT_GO_ON;
}

static int check(const struct weft_command_line *line, struct pool_options *o)
{
	const struct action *action = action_of(o->action);

	if (!action)
		return weft_usage_error("'%s': %s", o->action, options[0].wants);
	int r = check_belongings(line, o);
	if (r != WEFT_GO_ON)
		return r;
	if (!action->noun && o->name)
		return weft_usage_error("%s takes no name: '%s' is one too many", o->action,
			o->name);
	if (action->noun && !action->may_lack_name && !o->name)
		return weft_usage_error("%s which %s? Give its name", o->action, action->noun);
	if (o->etcd ? o->state != NULL : o->etcd_prefix || o->etcd_certificates)
		return weft_usage_error("the state is in a file (--state), or at etcd (--etcd)");
	if (has_word("job-start job-end", o->action) && !o->job)
		return weft_usage_error("%s of which job? Say --job", o->action);
	if (strcmp(o->action, "release") == 0 && !o->name == !o->job)
		return weft_usage_error("release which lease? Give its name, or --for JOB");
	if (has_word("alloc resize", o->action) && o->size_bytes == 0)
		return weft_usage_error("%s how much? Say --size, such as --size 64G", o->action);
	if (strcmp(o->action, "quota") == 0 && o->has_size == o->none)
		return weft_usage_error("quota: --size SIZE, or --none");
	o->is_project = strcmp(o->action, "quota") == 0 && o->project;
	o->has_wait = weft_option_given(line, "wait");
	if (o->job && !weft_option_given(line, "keep"))
		o->idle_ms = 600 * 1000;
	return WEFT_GO_ON;
}

static int run(struct pool_options *o, struct weft_error *err)
{
	const struct action *action = action_of(o->action);
	struct pool_client *client = NULL;

	if (!action->ask)
		return pool_serve(o, err);
	int r = pool_client_new(&o->at, &client, err);
	if (r < 0 && !action->may_lack_client)
		return r;
	r = action->ask(o, client, err);
	pool_client_free(client);
	return r;
}

int main(int argc, char **argv)
{
	struct pool_options o = {.copies = 1};
	struct weft_command_line line = {
		.command = "pool",
		.synopsis = "status|donors|leases|quotas|audit [OPTION]...\n"
			    "alloc NAME --size SIZE [OPTION]...\n"
			    "release|resize|move|uris NAME [OPTION]...\n"
			    "cordon|drain|open|forget DONOR [OPTION]...\n"
			    "quota USER --size SIZE [OPTION]...\n"
			    "job-start|job-end --job JOB [OPTION]...\n"
			    "serve [OPTION]...",
		.about =
			"The memory that a cluster's donors lend, as one: leases it, and shows who "
			"has what.\nDonors join with weft serve --pool; weft attach pool:NAME maps "
			"a lease.",
		.tables = {{options, &o}},
		.surplus = "one name at a time",
		.noun = "a name",
	};
	struct weft_error err = {0};

	weft_process_begin();
	int r = weft_options_parse(&line, argc, argv);
	if (r == WEFT_GO_ON)
		r = check(&line, &o);
	if (r != WEFT_GO_ON)
		return r;
	r = run(&o, &err);
	if (r < 0)
		fprintf(stderr, "weft-pool: %s\n", err.message);
	return weft_end_output("weft-pool", r < 0 ? 1 : 0);
}
