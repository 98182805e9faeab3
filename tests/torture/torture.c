/* SPDX-License-Identifier: MIT */
/*
 * Kills donors, bridges and holders, lets leases lapse and others write, under clients that check
 * all they are told (history.h).
 *
 *     torture [--rounds N] [--seed S] [--rdma ADDRESS] [--devices KIND] [--without TEXT]… DIRECTORY
 *
 * With an ADDRESS that has an RDMA device bridges use that.
 *
 * One donor with three regions: memory, a file, and a file below a directory.  Each has a client
 * behind a bridge, with any kind of cache or none, which keeps several requests under way and sends
 * again what was not answered, as a kernel does; and now and then another client, a stock one or
 * behind a bridge of its own.  The seed tells what happens and in which order; how far a client is
 * when it happens, time does.  Events whose names have a TEXT are left out.  The programs are those
 * in PATH.
 *
 * Ends with 1, and what happened, when somebody was told what cannot be; with 2 when it cannot go
 * on.  One thread.
 */
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <netinet/in.h>

#include "fabric/base/util.h"
#include "tests/torture/torture.h"

struct torture t;
const char *const cache_names[NR_CACHES] = {"direct", "write-through", "write-back", "cache file"};
const char *const region_names[REGIONS] = {"memory", "file", "directory"};

/* ---- the donor ---- */

static void donor_start(void)
{
	uint64_t end_ns = patience_ends_ns();
	char listen[64], lease[8], memory[64], file[300], directory[300], text[8192];
	char *argv[] = {"weft-serve", "--listen", listen, "--lease", lease, "--memory", memory,
		"--file", file, "--directory", directory, "--allow-insecure", NULL};

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
	uint64_t end_ns = patience_ends_ns();

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

/* ---- others ---- */

static void other_op(struct client *c, enum channel_kind kind, unsigned block)
{
	uint64_t end_ns = patience_ends_ns();
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

/*
 * Another client gets the region as soon as it is free, looks at everything, writes some, and goes.
 */
static void other_comes(unsigned region)
{
	uint64_t end_ns = patience_ends_ns();
	struct client *c = &t.other[region];
	bool stock = random_below(2);
	char uri[128];

	snprintf(uri, sizeof(uri), "nbd://%s:%d/%s", t.host, t.port, region_names[region]);
	c->cache = DIRECT;
	if (stock) {
		while (!(c->channel = channel_open_uri(uri))) {
			if (weft_now_ns() > end_ns)
				end(1, "a stock client does not get the region '%s'",
					region_names[region]);
			pump(50);
		}
	} else {
		/* Never by a device. */
		const char *kind = t.device_kind;
		t.device_kind = NULL;
		if (bridge_attach(c) < 0)
			end(1, "L: %s remembers nothing, and is told that it is stale: %s", c->name,
				said(c));
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
		if (run(text, sizeof(text),
			    (char *[]){"cp", "-a", "--remove-destination", back ? to : from,
				    back ? from : to, NULL}) != 0)
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
		*op = (struct op){.kind = CHANNEL_READ,
			.busy = true,
			.block = block,
			.buf = op->buf};
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
		for (unsigned n = 0;
			run(text, sizeof(text), (char *[]){"weft-detach", c->name, NULL}) != 0;
			n++) {
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

	if (fd < 0 || bind(fd, (struct sockaddr *)&sin, len) < 0 ||
		getsockname(fd, (struct sockaddr *)&sin, &len) < 0)
		err(2, "socket");
	close(fd);
	return ntohs(sin.sin_port);
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
		errx(2,
			"usage: WEFT_RUN_DIR=… torture [--rounds N] [--seed S] [--rdma ADDRESS] "
			"[--devices ublk|nbd] [--without TEXT]… DIRECTORY");
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
		client_init(&t.client[i], "mine", i);
		client_init(&t.other[i], "other", i);
	}
	snprintf(t.what, sizeof(t.what), "the beginning");
	donor_start();
	for (unsigned i = 0; i < REGIONS; i++)
		begin_anew(&t.client[i]);
	for (t.round = 1; t.round <= nr_rounds; t.round++)
		one_round();
	last_look();
	printf("%u rounds: %" PRIu64 " writes, %" PRIu64 " reads and %" PRIu64
	       " flushes answered; %" PRIu64 " times stale, %" PRIu64 " times taken over; %" PRIu64
	       " others\n",
		nr_rounds, t.nr_writes, t.nr_reads, t.nr_flushes, t.nr_told, t.nr_granted_again,
		t.nr_others);
	for (unsigned i = 0; i < NR_EVENTS; i++)
		printf("%4u %s\n", nr_events[i], events[i].name);
	return 0;
}
