/* SPDX-License-Identifier: MIT */
/* A client's bridge: attaching, being told, coming back.  See torture.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "tests/torture/torture.h"

const char *said(const struct client *c)
{
	static char text[8192];

	read_text(c->log, text, sizeof(text));
	return text;
}

static bool says_stale(const char *text)
{
	static const char *const words[] = {"could write since", "lost its lease", "superseded",
		"knows of is gone", "not remembered", "said goodbye", "stale", "epoch",
		"known before are gone"};

	for (unsigned i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strstr(text, words[i]))
			return true;
	return false;
}

static bool says_wait(const char *text)
{
	static const char *const words[] = {"is held by", "is in use", "refused", "timed out",
		"did not stop within", "No such", "not answer", "until the longest lease", "EBUSY",
		"no room", "stopping", "is free in"};

	for (unsigned i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strstr(text, words[i]))
			return true;
	return false;
}

static void bridge_spawn(struct client *c)
{
	char uri[128], interval[16];
	char *argv[32] = {"weft-attach", uri, "--name", c->name, "--lanes", "2", "--dead-timeout",
		"120", "--timeout", "30", "--foreground"};
	unsigned n = 11;

	snprintf(uri, sizeof(uri), "weft://%s:%d/%s", t.host, t.port, region_names[c->region]);
	snprintf(interval, sizeof(interval), "%d",
		c->cache == WRITE_BACK || c->cache == CACHE_FILE ? 1 + (int)(t.seed % 3) : 1);
	argv[n++] = t.device_kind ? "--device" : "--socket";
	if (t.device_kind) {
		if (*c->device)
			argv[n++] = c->device;
		argv[n++] = "--device-kind";
		argv[n++] = (char *)t.device_kind;
	} else {
		argv[n++] = c->path;
	}
	if (c->cache != DIRECT) {
		argv[n++] = "--cache";
		argv[n++] = "4M";
		argv[n++] = "--push-interval";
		argv[n++] = interval;
	}
	if (c->cache == WRITE_THROUGH)
		argv[n++] = "--write-through";
	if (c->cache == CACHE_FILE) {
		argv[n++] = "--cache-file";
		argv[n++] = c->cache_file;
	}
	snprintf(c->log, sizeof(c->log), "%s/%s.%u.log", t.dir, c->name, c->nr_logs++);
	c->bridge = spawn(c->log, argv);
}

static bool client_connect(struct client *c)
{
	if (t.device_kind && !*c->device) {
		const char *at = strstr(said(c), "/dev/");

		if (!at || sscanf(at, "%63[a-z0-9/]", c->device) != 1)
			return false;
	}
	if (!strstr(said(c), "is attached: ") && !strstr(said(c), "is taken over"))
		return false; /* not ready yet */
	c->channel = channel_open_path(*c->device ? c->device : c->path);
	return c->channel != NULL;
}

int bridge_attach(struct client *c)
{
	uint64_t end_ns = patience_ends_ns();

	for (;;) {
		bridge_spawn(c);
		while (!client_connect(c)) {
			if (has_ended(&c->bridge))
				break;
			if (weft_now_ns() > end_ns)
				end(1, "%s does not become ready: %s", c->name, said(c));
			pump(5);
		}
		if (c->channel)
			return 0;
		if ((says_wait(said(c)) || !says_stale(said(c))) && weft_now_ns() < end_ns) {
			pump(200);
			continue;
		}
		if (says_stale(said(c)))
			return -ESTALE;
		end(2, "%s cannot attach: %s", c->name, said(c));
	}
}

void bridge_clear(struct client *c)
{
	char text[4096];

	run(text, sizeof(text), (char *[]){"weft-detach", "--force", c->name, NULL});
	kill_and_reap(&c->bridge);
	unlink(c->cache_file);
	*c->device = '\0';
}

/* Over RDMA a file region is memory at the donor, until somebody flushes it. */
void begin_view(struct client *c)
{
	bool write_back =
		c->cache == WRITE_BACK || c->cache == CACHE_FILE || (t.rdma && c->region > 0);

	view_begin(&c->view, &t.history[c->region], c->name, write_back, c->cache != DIRECT);
}

void begin_anew(struct client *c)
{
	drop_ops(c);
	bridge_clear(c);
	c->cache = random_below(NR_CACHES);
	if (t.device_kind && c->cache == WRITE_BACK)
		c->cache = CACHE_FILE;
	if (bridge_attach(c) < 0)
		end(1, "L: %s remembers nothing, and is told that it is stale: %s", c->name,
			said(c));
	begin_view(c);
}

static bool is_stale(struct client *c)
{
	char text[65536];

	run(text, sizeof(text), (char *[]){"weft-status", "--json", c->name, NULL});
	const char *state = strstr(text, "\"state\":");
	return state && strncmp(state + strcspn(state, ":"), ": \"stale\"", 9) == 0;
}

/* It goes on with what there is now, remembering nothing. */
static void told(struct client *c)
{
	char why[HISTORY_WHY], text[4096];

	t.nr_told++;
	log_line("%s (%s) is told that it is stale: %.300s", c->name, cache_names[c->cache],
		c->bridge ? "" : said(c));
	check(view_told(&c->view, why), why);
	if (c->bridge && !has_ended(&c->bridge) && random_below(2)) {
		uint64_t end_ns = patience_ends_ns();

		drop_ops(c);
		while (run(text, sizeof(text),
			       (char *[]){"weft-reset", "--discard", c->name, NULL}) != 0) {
			if (weft_now_ns() > end_ns)
				end(2, "%s cannot be reset: %s", c->name, text);
			pump(200);
		}
		begin_view(c);
		return;
	}
	begin_anew(c);
}

void recover(struct client *c)
{
	uint64_t end_ns = weft_now_ns() + 2 * PATIENCE_S * UINT64_C(1000000000), failed_ns = 0;

	for (;;) {
		if (weft_now_ns() > end_ns)
			end(1, "%s does not work again (%s): %s", c->name,
				c->bridge ? "its bridge lives" : "no bridge", said(c));
		if (has_ended(&c->bridge) && !c->failed) {
			channel_close(t.device_kind ? NULL : c->channel, false);
			if (!t.device_kind)
				c->channel = NULL;
			/* No answer of its is under way any more. */
			if (c->cache == WRITE_BACK)
				view_lost_cache(&c->view);
			for (unsigned i = 0; i <= DEPTH && !t.device_kind; i++)
				c->ops[i].sent = false;
			if (c->channel) { /* a device that is waiting for its bridge */
				struct channel *device = c->channel;

				c->channel = NULL;
				int r = bridge_attach(c);
				channel_close(c->channel, false);
				c->channel = device;
				if (r < 0) {
					told(c);
				} else {
					t.nr_granted_again++;
				}
				continue;
			}
			if (bridge_attach(c) < 0)
				told(c);
			else
				t.nr_granted_again++;
		}
		if (!c->channel && !client_connect(c)) {
			pump(20);
			continue;
		}
		if (c->failed) {
			if (is_stale(c)) {
				told(c);
				continue;
			}
			if (failed_ns == 0)
				failed_ns = weft_now_ns();
			if (weft_now_ns() - failed_ns > 5 * UINT64_C(1000000000))
				end(1, "%s got an error, and is not stale", c->name);
			pump(100);
			continue;
		}
		pump(20);
		if (c->channel && !c->failed && !has_ops(c)) {
			if (t.traffic)
				return;
			/* Something that only the donor can answer. */
			op_begin(c, DEPTH);
			while (c->channel && c->ops[DEPTH].busy && !c->failed)
				pump(5);
			if (c->channel && !c->failed)
				return;
		}
	}
}

