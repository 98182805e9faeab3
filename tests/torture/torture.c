/*
 * Kills donors, bridges and holders, lets leases lapse and others write, under clients that check all they are told (history.h).
 *
 *     torture [--rounds N] [--seed S] [--rdma ADDRESS] [--devices KIND] [--without TEXT]… DIRECTORY
 *
 * With an ADDRESS that has an RDMA device bridges use that.
 *
 * One donor with three regions: memory, a file, and a file below a directory.  Each has a client behind a bridge, with any kind of cache or
 * none, which keeps several requests under way and sends again what was not answered, as a kernel does; and now and then another
 * client, a stock one or behind a bridge of its own.  The seed tells what happens and in which order; how far a client is when it happens, time
 * does.  Events whose names have a TEXT are left out.  The programs are those in PATH.
 *
 * Ends with 1, and what happened, when somebody was told what cannot be; with 2 when it cannot go on.
 * One thread.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <netinet/in.h>

#include "fabric/util.h"
#include "tests/torture/channel.h"
#include "tests/torture/history.h"

enum {
	REGIONS = 3,
	REGION_BYTES = 8 << 20,
	STRIDE = REGION_BYTES / HISTORY_BLOCKS,
	DEPTH = 8, /* and a slot for a flush */
	LEASE_S = 2,
	PATIENCE_S = 60, /* for anything that has to come to pass */
};

enum cache { DIRECT, WRITE_THROUGH, WRITE_BACK, CACHE_FILE, NR_CACHES };
static const char *const cache_names[] = {"direct", "write-through", "write-back", "cache file"};

struct op {
	enum channel_kind kind;
	bool busy, sent;
	unsigned block;
	uint64_t mark, at, at_least, start_ns;
	struct snapshot snapshot;
	uint8_t *buf;
};

struct client {
	unsigned region;
	char name[32], path[256], cache_file[256], device[64];
	enum cache cache;
	pid_t bridge; /* 0: none */
	unsigned nr_logs;
	char log[280];
	struct channel *channel;
	struct view view;
	struct op ops[DEPTH + 1];
	bool failed;  /* an operation was answered with an error */
	bool stopped; /* the bridge is, by a signal */
};

static const char *const region_names[REGIONS] = {"memory", "file", "directory"};
static struct {
	const char *dir, *host, *device_kind, *without[4];
	unsigned nr_without;
	uint64_t seed, random;
	unsigned round;
	char what[128]; /* this round */
	int port;
	pid_t donor;
	unsigned nr_donors;
	char donor_log[280];
	bool traffic, rdma;
	struct history history[REGIONS];
	struct client client[REGIONS], other[REGIONS];
	bool copied[REGIONS];
	struct snapshot copy[REGIONS];
	uint64_t nr_writes, nr_reads, nr_flushes, nr_told, nr_others, nr_granted_again;
} t;

static void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void log_line(const char *format, ...)
{
	va_list args;

	printf("%6.1f %3u: ", (double)weft_now_ns() / 1e9, t.round);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

/* Somebody was told what cannot be (1), or nothing can be said (2). */
static void end(int status, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
static void end(int status, const char *format, ...)
{
	va_list args;

	printf("%s in round %u (%s), seed %" PRIu64 ": ", status == 1 ? "VIOLATION" : "STUCK", t.round, t.what, t.seed);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	exit(status);
}

static void check(int r, const char *why)
{
	if (r < 0)
		end(1, "%s", why);
}

static uint64_t random_below(uint64_t n)
{
	t.random += UINT64_C(0x9e3779b97f4a7c15);
	uint64_t x = t.random;
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return (x ^ x >> 31) % n;
}

/* ---- processes ---- */

static pid_t spawn(const char *log, char *const argv[])
{
	pid_t pid = fork();

	if (pid < 0)
		err(2, "fork");
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	fd = open("/dev/null", O_RDONLY);
	dup2(fd, STDIN_FILENO);
	execvp(argv[0], argv);
	_exit(127);
}

/* Reaps it if it has ended. */
static bool has_ended(pid_t *pid)
{
	if (*pid && waitpid(*pid, NULL, WNOHANG) == *pid)
		*pid = 0;
	return *pid == 0;
}

static void kill_and_reap(pid_t *pid)
{
	if (*pid == 0)
		return;
	kill(*pid, SIGKILL);
	waitpid(*pid, NULL, 0);
	*pid = 0;
}

static size_t read_text(const char *path, char *buf, size_t size)
{
	FILE *file = fopen(path, "r");
	size_t n = file ? fread(buf, 1, size - 1, file) : 0;

	if (file)
		fclose(file);
	buf[n] = '\0';
	return n;
}

static void pump(uint64_t ms);

/* Runs it to its end, while clients go on.  Its exit status; what it said goes to text. */
static int run(char *text, size_t size, char *const argv[])
{
	uint64_t end_ns = weft_now_ns() + PATIENCE_S * UINT64_C(1000000000);
	char log[280];
	int status;

	snprintf(log, sizeof(log), "%s/run.log", t.dir);
	pid_t pid = spawn(log, argv);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (weft_now_ns() > end_ns)
			end(1, "%s %s does not end", argv[0], argv[1]);
		pump(5);
	}
	read_text(log, text, size);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* ---- clients ---- */

static void op_answered(struct client *c, struct op *op)
{
	char why[HISTORY_WHY];

	switch (op->kind) {
	case CHANNEL_READ:
		t.nr_reads++;
		check(view_read_answered(&c->view, op->block, op->at_least, op->at, op->buf, why), why);
		break;
	case CHANNEL_WRITE:
		t.nr_writes++;
		check(view_write_answered(&c->view, op->block, op->mark, op->at, why), why);
		break;
	case CHANNEL_FLUSH:
		t.nr_flushes++;
		check(view_flush_answered(&c->view, &op->snapshot, why), why);
		break;
	}
}

/* A read begins anew each time that it is sent; a write stays what it was. */
static void op_send(struct client *c, struct op *op)
{
	if (op->kind == CHANNEL_READ)
		op->at_least = view_read(&c->view, op->block, &op->at);
	else if (op->kind == CHANNEL_FLUSH)
		view_flush(&c->view, &op->snapshot);
	else
		op->at = ++c->view.history->now;
	op->sent = channel_submit(c->channel, (unsigned)(op - c->ops), op->kind, op->buf, (uint64_t)op->block * STRIDE,
		op->kind == CHANNEL_FLUSH ? 0 : HISTORY_BLOCK_BYTES);
	op->start_ns = weft_now_ns();
}

static bool is_block_busy(const struct client *c, unsigned block)
{
	for (unsigned i = 0; i < DEPTH; i++)
		if (c->ops[i].busy && c->ops[i].block == block)
			return true;
	return false;
}

static void op_begin(struct client *c, unsigned slot)
{
	struct op *op = &c->ops[slot];

	if (slot == DEPTH) {
		op->kind = CHANNEL_FLUSH;
		op->block = 0;
	} else {
		do
			op->block = (unsigned)random_below(HISTORY_BLOCKS);
		while (is_block_busy(c, op->block));
		op->kind = random_below(2) ? CHANNEL_WRITE : CHANNEL_READ;
		if (op->kind == CHANNEL_WRITE)
			op->mark = view_write(&c->view, op->block, op->buf);
	}
	op->busy = true;
	op->sent = false;
	op_send(c, op);
}

static void client_step(struct client *c)
{
	bool broken;

	if (!c->channel)
		return;
	broken = channel_is_broken(c->channel);
	for (unsigned i = 0; i <= DEPTH; i++) {
		struct op *op = &c->ops[i];
		int outcome = op->busy && op->sent ? channel_outcome(c->channel, i) : CHANNEL_PENDING;

		if (outcome == CHANNEL_PENDING) {
			if (op->busy && op->sent && !c->stopped && weft_now_ns() - op->start_ns > PATIENCE_S * UINT64_C(2000000000))
				end(1, "%s: an operation is not answered", c->name);
			continue;
		}
		if (outcome == CHANNEL_UNANSWERED) {
			op->sent = false;
			continue;
		}
		op->busy = false;
		if (outcome == CHANNEL_ERROR)
			c->failed = true;
		else
			op_answered(c, op);
	}
	if (broken) {
		channel_close(c->channel, false);
		c->channel = NULL;
		return;
	}
	for (unsigned i = 0; i <= DEPTH && !c->failed; i++) {
		if (c->ops[i].busy && !c->ops[i].sent)
			op_send(c, &c->ops[i]);
		if (t.traffic && !c->ops[i].busy && (i < DEPTH || random_below(64) == 0))
			op_begin(c, i);
	}
}

static bool has_ops(const struct client *c)
{
	for (unsigned i = 0; i <= DEPTH; i++)
		if (c->ops[i].busy)
			return true;
	return false;
}

static void pump(uint64_t ms)
{
	uint64_t end_ns = weft_now_ns() + ms * 1000000, now_ns;

	while ((now_ns = weft_now_ns()) < end_ns) {
		struct channel *channels[REGIONS];
		unsigned nr = 0;

		for (unsigned i = 0; i < REGIONS; i++)
			client_step(&t.client[i]);
		for (unsigned i = 0; i < REGIONS; i++)
			if (t.client[i].channel)
				channels[nr++] = t.client[i].channel;
		channels_run(channels, nr, (int)weft_min(5, (end_ns - now_ns) / 1000000 + 1));
	}
}

/* Forgets all that it had under way. */
static void drop_ops(struct client *c)
{
	channel_close(c->channel, true);
	c->channel = NULL;
	for (unsigned i = 0; i <= DEPTH; i++)
		c->ops[i].busy = c->ops[i].sent = false;
	c->failed = false;
}

/* ---- bridges ---- */

static const char *said(const struct client *c)
{
	static char text[8192];

	read_text(c->log, text, sizeof(text));
	return text;
}

static bool says_stale(const char *text)
{
	static const char *const words[] = {"could write since", "lost its lease", "superseded", "knows of is gone", "not remembered",
		"said goodbye", "stale", "epoch", "known before are gone"};

	for (unsigned i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strstr(text, words[i]))
			return true;
	return false;
}

static bool says_wait(const char *text)
{
	static const char *const words[] = {"is held by", "is in use", "refused", "timed out", "did not stop within", "No such", "not answer",
		"until the longest lease", "EBUSY", "no room", "stopping", "is free in"};

	for (unsigned i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strstr(text, words[i]))
			return true;
	return false;
}

static void bridge_spawn(struct client *c)
{
	char uri[128], interval[16];
	char *argv[32] = {"weft-attach", uri, "--name", c->name, "--lanes", "2", "--dead-timeout", "120", "--timeout", "30", "--foreground"};
	unsigned n = 11;

	snprintf(uri, sizeof(uri), "weft://%s:%d/%s", t.host, t.port, region_names[c->region]);
	snprintf(interval, sizeof(interval), "%d", c->cache == WRITE_BACK || c->cache == CACHE_FILE ? 1 + (int)(t.seed % 3) : 1);
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
	if (strstr(said(c), "weft detach") == NULL)
		return false; /* not ready yet */
	c->channel = channel_open_path(*c->device ? c->device : c->path);
	return c->channel != NULL;
}

/* 0 once it is there; -ESTALE when it was told so. */
static int bridge_attach(struct client *c)
{
	uint64_t end_ns = weft_now_ns() + PATIENCE_S * UINT64_C(1000000000);

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
		if (says_wait(said(c)) && weft_now_ns() < end_ns) {
			pump(200);
			continue;
		}
		if (says_stale(said(c)))
			return -ESTALE;
		end(2, "%s cannot attach: %s", c->name, said(c));
	}
}

/* Whatever its bridge left is cleared away. */
static void bridge_clear(struct client *c)
{
	char text[4096];

	run(text, sizeof(text), (char *[]){"weft-detach", "--force", c->name, NULL});
	kill_and_reap(&c->bridge);
	unlink(c->cache_file);
	*c->device = '\0';
}

/* Over RDMA a file region is memory at the donor, until somebody flushes it. */
static void begin_view(struct client *c)
{
	bool write_back = c->cache == WRITE_BACK || c->cache == CACHE_FILE || (t.rdma && c->region > 0);

	view_begin(&c->view, &t.history[c->region], c->name, write_back, c->cache != DIRECT);
}

static void begin_anew(struct client *c)
{
	drop_ops(c);
	bridge_clear(c);
	c->cache = random_below(NR_CACHES);
	if (t.device_kind && c->cache == WRITE_BACK)
		c->cache = CACHE_FILE;
	if (bridge_attach(c) < 0)
		end(1, "L: %s remembers nothing, and is told that it is stale: %s", c->name, said(c));
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
	log_line("%s (%s) is told that it is stale: %.300s", c->name, cache_names[c->cache], c->bridge ? "" : said(c));
	check(view_told(&c->view, why), why);
	if (c->bridge && !has_ended(&c->bridge) && random_below(2)) {
		uint64_t end_ns = weft_now_ns() + PATIENCE_S * UINT64_C(1000000000);

		drop_ops(c);
		while (run(text, sizeof(text), (char *[]){"weft-reset", "--discard", c->name, NULL}) != 0) {
			if (weft_now_ns() > end_ns)
				end(2, "%s cannot be reset: %s", c->name, text);
			pump(200);
		}
		begin_view(c);
		return;
	}
	begin_anew(c);
}

/* Until it works again, or was told that it cannot. */
static void recover(struct client *c)
{
	uint64_t end_ns = weft_now_ns() + 2 * PATIENCE_S * UINT64_C(1000000000), failed_ns = 0;

	for (;;) {
		if (weft_now_ns() > end_ns)
			end(1, "%s does not work again (%s): %s", c->name, c->bridge ? "its bridge lives" : "no bridge", said(c));
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

/* ---- the donor ---- */

static void donor_start(void)
{
	uint64_t end_ns = weft_now_ns() + PATIENCE_S * UINT64_C(1000000000);
	char listen[64], lease[8], memory[64], file[300], directory[300], text[8192];
	char *argv[] = {"weft-serve", "--listen", listen, "--lease", lease, "--memory", memory, "--file", file, "--directory", directory, "--allow-insecure", NULL};

	snprintf(listen, sizeof(listen), "%s:%d", t.host, t.port);
	snprintf(lease, sizeof(lease), "%d", LEASE_S);
	snprintf(memory, sizeof(memory), "memory=%d", REGION_BYTES);
	snprintf(file, sizeof(file), "file=%s/file", t.dir);
	snprintf(directory, sizeof(directory), "%s/below", t.dir);
	snprintf(t.donor_log, sizeof(t.donor_log), "%s/donor.%u.log", t.dir, t.nr_donors++);
	t.donor = spawn(t.donor_log, argv);
	for (;;) {
		read_text(t.donor_log, text, sizeof(text));
		if (strstr(text, "\nready\n"))
			break;
		if (has_ended(&t.donor) || weft_now_ns() > end_ns)
			end(2, "the donor does not start: %s", text);
		pump(10);
	}
	if (t.nr_donors > 1 && !strstr(text, "recovered region 'memory'")) {
		log_line("the memory's contents are gone");
		history_replaced(&t.history[0], NULL);
	}
}

static void donor_end(int sig)
{
	uint64_t end_ns = weft_now_ns() + PATIENCE_S * UINT64_C(1000000000);

	kill(t.donor, sig);
	while (!has_ended(&t.donor)) {
		if (weft_now_ns() > end_ns)
			end(1, "the donor does not end");
		pump(2);
	}
	if (sig == SIGKILL)
		for (unsigned i = 1; i < REGIONS; i++)
			history_new_epoch(&t.history[i]);
}

static void holder_kill(void)
{
	DIR *proc = opendir("/proc");
	char path[300], text[8192];

	for (struct dirent *entry; proc && (entry = readdir(proc));) {
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		if (atoi(entry->d_name) <= 1 || read_text(path, text, sizeof(text)) == 0 || strcmp(text, "weftholder\n") != 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%s/environ", entry->d_name);
		size_t n = read_text(path, text, sizeof(text));
		if (memmem(text, n, getenv("WEFT_RUN_DIR"), strlen(getenv("WEFT_RUN_DIR"))))
			kill(atoi(entry->d_name), SIGKILL);
	}
	if (proc)
		closedir(proc);
}

/* ---- others ---- */

static void other_op(struct client *c, enum channel_kind kind, unsigned block)
{
	uint64_t end_ns = weft_now_ns() + PATIENCE_S * UINT64_C(1000000000);
	struct op *op = &c->ops[0];
	int outcome;

	op->kind = kind;
	op->block = block;
	op->sent = false;
	if (kind == CHANNEL_WRITE)
		op->mark = view_write(&c->view, block, op->buf);
	op_send(c, op);
	while ((outcome = channel_outcome(c->channel, 0)) == CHANNEL_PENDING) {
		if (weft_now_ns() > end_ns)
			end(1, "%s: an operation is not answered", c->name);
		channels_run(&c->channel, 1, 5);
	}
	if (outcome != CHANNEL_DONE)
		end(1, "%s, which has just been granted the region, gets an error", c->name);
	op_answered(c, op);
}

/* Another client gets the region as soon as it is free, looks at everything, writes some, and goes. */
static void other_comes(unsigned region)
{
	uint64_t end_ns = weft_now_ns() + PATIENCE_S * UINT64_C(1000000000);
	struct client *c = &t.other[region];
	bool stock = random_below(2);
	char uri[128];

	snprintf(uri, sizeof(uri), "nbd://%s:%d/%s", t.host, t.port, region_names[region]);
	c->cache = DIRECT;
	if (stock) {
		while (!(c->channel = channel_open_uri(uri))) {
			if (weft_now_ns() > end_ns)
				end(1, "a stock client does not get the region '%s'", region_names[region]);
			pump(50);
		}
	} else {
		char *device = NULL;

		/* Never by a device. */
		const char *kind = t.device_kind;
		t.device_kind = device;
		if (bridge_attach(c) < 0)
			end(1, "L: %s remembers nothing, and is told that it is stale: %s", c->name, said(c));
		t.device_kind = kind;
	}
	t.nr_others++;
	begin_view(c);
	for (unsigned i = 0; i < HISTORY_BLOCKS; i++)
		other_op(c, CHANNEL_READ, i);
	for (uint64_t i = 4 + random_below(40); i > 0; i--)
		other_op(c, CHANNEL_WRITE, (unsigned)random_below(HISTORY_BLOCKS));
	if (random_below(4))
		other_op(c, CHANNEL_FLUSH, 0);
	channel_close(c->channel, random_below(2));
	c->channel = NULL;
	if (stock)
		return;
	if (random_below(2))
		kill_and_reap(&c->bridge);
	bridge_clear(c);
}

/* ---- rounds ---- */

static void bridge_signal(struct client *c, int sig)
{
	if (!c->bridge)
		return;
	if (sig == SIGKILL) {
		kill_and_reap(&c->bridge);
	} else {
		kill(c->bridge, sig);
		c->stopped = sig == SIGSTOP;
	}
}

static void bridges_signal(int sig, unsigned which)
{
	for (unsigned i = 0; i < REGIONS; i++)
		if (which & 1u << i)
			bridge_signal(&t.client[i], sig);
}

/* Copies the files' contents aside, or puts them back; no donor runs. */
static void files_copy(bool back)
{
	for (unsigned i = 1; i < REGIONS; i++) {
		char from[300], to[300], text[256];

		snprintf(from, sizeof(from), i == 1 ? "%s/file" : "%s/below/directory", t.dir);
		snprintf(to, sizeof(to), "%s/%s.copy", t.dir, region_names[i]);
		if (back && !t.copied[i])
			continue;
		if (run(text, sizeof(text), (char *[]){"cp", "-a", "--remove-destination", back ? to : from, back ? from : to, NULL}) != 0)
			end(2, "cp: %s", text);
		if (back)
			history_replaced(&t.history[i], &t.copy[i]);
		else
			history_copy(&t.history[i], &t.copy[i]);
		t.copied[i] = true;
	}
}

static const struct {
	const char *name;
	unsigned weight;
} events[] = {
	{"the donor is killed", 4},
	{"the donor is upgraded", 2},
	{"the donor is stopped and started", 1},
	{"bridges are killed", 4},
	{"the donor and bridges are killed", 3},
	{"the holder is killed", 1},
	{"the donor and the holder are killed", 1},
	{"bridges are stopped, others write", 4},
	{"bridges are killed, others write", 4},
	{"bridges are stopped, others write, the donor is restarted", 4},
	{"bridges are killed, others write, the donor is restarted", 2},
	{"bridges are stopped for longer than a lease", 1},
	{"the files are copied", 2},
	{"the files are put back", 2},
	{"detached, others write", 1},
};
enum { NR_EVENTS = sizeof(events) / sizeof(*events) };
static unsigned nr_events[NR_EVENTS];

static unsigned weight(unsigned event)
{
	for (unsigned i = 0; i < t.nr_without; i++)
		if (strstr(events[event].name, t.without[i]))
			return 0;
	return events[event].weight;
}

static unsigned choose_event(void)
{
	unsigned sum = 0, i;

	for (i = 0; i < NR_EVENTS; i++)
		sum += weight(i);
	uint64_t n = random_below(sum);
	for (i = 0; n >= weight(i); i++)
		n -= weight(i);
	return i;
}

static int any_end(void)
{
	static const int signals[] = {SIGKILL, SIGUSR2, SIGUSR2, SIGTERM};

	return signals[random_below(4)];
}

static void restart(int sig)
{
	donor_end(sig);
	pump(random_below(300));
	donor_start();
}

static void others_write(unsigned which)
{
	for (unsigned i = 0; i < REGIONS; i++)
		if (which & 1u << i)
			other_comes(i);
}

static void happen(unsigned event)
{
	unsigned which = 1 + (unsigned)random_below((1 << REGIONS) - 1);

	switch (event) {
	case 0: restart(SIGKILL); break;
	case 1: restart(SIGUSR2); break;
	case 2: restart(SIGTERM); break;
	case 3: bridges_signal(SIGKILL, which); break;
	case 4:
		bridges_signal(SIGKILL, which);
		restart(SIGKILL);
		break;
	case 5: holder_kill(); break;
	case 6:
		kill(t.donor, SIGKILL);
		holder_kill();
		restart(SIGKILL);
		break;
	case 7:
	case 9:
	case 11:
		bridges_signal(SIGSTOP, which);
		if (event == 11)
			pump(LEASE_S * 1000 + 1500);
		else
			others_write(which);
		if (event == 9)
			restart(any_end());
		bridges_signal(SIGCONT, which);
		break;
	case 8:
	case 10:
		bridges_signal(SIGKILL, which);
		others_write(which);
		if (event == 10)
			restart(any_end());
		break;
	case 12:
	case 13:
		donor_end(event == 13 && random_below(2) ? SIGKILL : SIGUSR2);
		files_copy(event == 13);
		donor_start();
		break;
	case 14:
		for (unsigned i = 0; i < REGIONS; i++) {
			struct client *c = &t.client[i];
			char text[4096];

			if (!(which & 1u << i) || (c->failed || !c->bridge))
				continue;
			drop_ops(c);
			if (run(text, sizeof(text), (char *[]){"weft-detach", c->name, NULL}) == 0)
				other_comes(i);
			begin_anew(c);
		}
		break;
	}
}

static void read_all(struct client *c)
{
	for (unsigned block = 0; block < HISTORY_BLOCKS && !c->failed && c->channel; block++) {
		struct op *op = &c->ops[block % DEPTH];

		while (op->busy && c->channel)
			pump(1);
		if (!c->channel)
			return;
		*op = (struct op){.kind = CHANNEL_READ, .busy = true, .block = block, .buf = op->buf};
		op_send(c, op);
	}
}

static void one_round(void)
{
	unsigned event = choose_event();

	nr_events[event]++;
	snprintf(t.what, sizeof(t.what), "%s", events[event].name);
	log_line("%s", t.what);
	alarm(10 * PATIENCE_S);
	t.traffic = true;
	pump(20 + random_below(150));
	happen(event);
	pump(20 + random_below(150));
	t.traffic = false;
	for (unsigned i = 0; i < REGIONS; i++)
		recover(&t.client[i]);
	for (unsigned i = 0; i < REGIONS; i++) {
		read_all(&t.client[i]);
		recover(&t.client[i]);
	}
}

/* Everybody detaches; a stock client looks at everything. */
static void last_look(void)
{
	snprintf(t.what, sizeof(t.what), "the end");
	for (unsigned i = 0; i < REGIONS; i++) {
		struct client *c = &t.client[i];
		struct snapshot flushed;
		char text[4096], why[HISTORY_WHY];

		recover(c);
		view_flush(&c->view, &flushed);
		drop_ops(c);
		for (unsigned n = 0; run(text, sizeof(text), (char *[]){"weft-detach", c->name, NULL}) != 0; n++) {
			if (n > 50)
				end(2, "%s cannot be detached: %s", c->name, text);
			pump(100);
		}
		check(view_flush_answered(&c->view, &flushed, why), why);
		other_comes(i);
	}
	donor_end(SIGTERM);
}

static void on_alarm(int sig)
{
	static const char text[] = "HANG: a round does not end\n";

	(void)!write(STDOUT_FILENO, text, sizeof(text) - 1);
	_exit(1);
}

static int free_port(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sin, len) < 0 || getsockname(fd, (struct sockaddr *)&sin, &len) < 0)
		err(2, "socket");
	close(fd);
	return ntohs(sin.sin_port);
}

static void make_client(struct client *c, const char *name, unsigned region)
{
	c->region = region;
	snprintf(c->name, sizeof(c->name), "%s-%s", name, region_names[region]);
	snprintf(c->path, sizeof(c->path), "%s/%s.sock", t.dir, c->name);
	snprintf(c->cache_file, sizeof(c->cache_file), "%s/%s.cache", t.dir, c->name);
	for (unsigned i = 0; i <= DEPTH; i++)
		c->ops[i].buf = aligned_alloc(HISTORY_BLOCK_BYTES, HISTORY_BLOCK_BYTES);
}

static void make_file(const char *name)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", t.dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, REGION_BYTES) < 0)
		err(2, "%s", path);
	close(fd);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"rounds", required_argument, NULL, 'r'},
		{"seed", required_argument, NULL, 's'},
		{"rdma", required_argument, NULL, 'h'},
		{"devices", required_argument, NULL, 'd'},
		{"without", required_argument, NULL, 'w'},
		{0},
	};
	unsigned nr_rounds = 20;
	char path[300];
	int option;

	weft_random(&t.seed, sizeof(t.seed));
	t.seed >>= 32;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'r')
			nr_rounds = (unsigned)strtoul(optarg, NULL, 10);
		else if (option == 's')
			t.seed = strtoull(optarg, NULL, 10);
		else if (option == 'h')
			t.host = optarg, t.rdma = true;
		else if (option == 'd')
			t.device_kind = optarg;
		else if (option == 'w' && t.nr_without < 4)
			t.without[t.nr_without++] = optarg;
		else
			return 2;
	}
	if (optind + 1 != argc || !getenv("WEFT_RUN_DIR"))
		errx(2, "usage: WEFT_RUN_DIR=… torture [--rounds N] [--seed S] [--rdma ADDRESS] [--devices ublk|nbd] [--without TEXT]… DIRECTORY");
	t.dir = argv[optind];
	if (!t.host)
		t.host = "127.0.0.1";
	t.random = t.seed;
	signal(SIGALRM, on_alarm);
	signal(SIGPIPE, SIG_IGN);
	printf("seed %" PRIu64 ", %u rounds\n", t.seed, nr_rounds);
	make_file("file");
	snprintf(path, sizeof(path), "%s/below", t.dir);
	mkdir(path, 0700);
	make_file("below/directory");
	t.port = free_port();
	for (unsigned i = 0; i < REGIONS; i++) {
		history_init(&t.history[i], t.seed * REGIONS + i);
		make_client(&t.client[i], "mine", i);
		make_client(&t.other[i], "other", i);
	}
	snprintf(t.what, sizeof(t.what), "the beginning");
	donor_start();
	for (unsigned i = 0; i < REGIONS; i++)
		begin_anew(&t.client[i]);
	for (t.round = 1; t.round <= nr_rounds; t.round++)
		one_round();
	last_look();
	printf("%u rounds: %" PRIu64 " writes, %" PRIu64 " reads and %" PRIu64 " flushes answered; %" PRIu64 " times stale, %" PRIu64
	       " times taken over; %" PRIu64 " others\n", nr_rounds, t.nr_writes, t.nr_reads, t.nr_flushes, t.nr_told, t.nr_granted_again, t.nr_others);
	for (unsigned i = 0; i < NR_EVENTS; i++)
		printf("%4u %s\n", nr_events[i], events[i].name);
	return 0;
}
