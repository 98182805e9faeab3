/* SPDX-License-Identifier: MIT */
/*
 * weft line: a line to measure on.  Joins two network namespaces by TUN devices and forwards what
 * one sends to the other as a line of some length would: by a thread for each direction, while this
 * one waits for a command or a signal.
 *
 * Everything goes when this process ends, however it ends: the devices with their descriptors, a
 * namespace with the last process in it.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/options.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "perf/peers/line/direction.h"
#include "perf/peers/line/network.h"
#include "perf/peers/line/options.h"

struct line {
	struct line_options options;
	struct line_end ends[2];
	struct line_direction directions[2]; /* [LINE_NEAR]: from near to far */
	int stop;                            /* an eventfd */
};

static int say(const char *what, int code)
{
	fprintf(stderr, "weft-line: %s: %s\n", what, strerror(code));
	return 1;
}

static int make(struct line *line)
{
	const struct line_options *o = &line->options;
	struct weft_error err;
	int r = line_get_rights(&err);

	for (int side = LINE_NEAR; r == 0 && side <= LINE_FAR; side++)
		r = line_end_open(
			side, o->existing[side], o->number, o->mtu, &line->ends[side], &err);
	if (r < 0) {
		fprintf(stderr, "weft-line: %s\n", err.message);
		return 1;
	}
	/* Whoever is root here may open our descriptors: of the namespaces, by /proc. */
	prctl(PR_SET_DUMPABLE, 1);
	line->stop = eventfd(0, EFD_CLOEXEC);
	if (line->stop < 0)
		return say("cannot make an eventfd", errno);
	for (int from = LINE_NEAR; r == 0 && from <= LINE_FAR; from++)
		r = line_direction_start(&line->directions[from], line->ends[from].tun,
			line->ends[1 - from].tun, &o->shape, (unsigned)from, line->stop);
	return r < 0 ? say("cannot start the line", -r) : 0;
}

static int print_stats(const struct line *line)
{
	const struct line_options *o = &line->options;
	json_t *json = json_pack("{s:I, s:I, s:I, s:f, s:I, s:I, s:i}", "seed",
		(json_int_t)o->shape.seed, "delay_ns", (json_int_t)o->shape.delay_ns, "jitter_ns",
		(json_int_t)o->shape.jitter_ns, "loss", o->shape.loss, "rate_bit_s",
		(json_int_t)o->shape.rate_bit_s, "queue_bytes", (json_int_t)o->shape.queue_bytes,
		"mtu", (int)o->mtu);

	for (int from = LINE_NEAR; from <= LINE_FAR; from++) {
		json_t *one = line_direction_json(&line->directions[from]);
		json_object_set_new(one, "overrun",
			json_integer((json_int_t)line_end_overrun(&line->ends[from])));
		json_object_set_new(json, from == LINE_NEAR ? "near_to_far" : "far_to_near", one);
	}
	int r = json_dump_file(json, o->stats_file, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
	json_decref(json);
	if (r < 0)
		fprintf(stderr, "weft-line: cannot write %s: %s\n", o->stats_file, strerror(errno));
	return r < 0;
}

/* Ends what was made of it, and tells what went over it if it was in use. */
static int finish(struct line *line, bool used, int status)
{
	const uint64_t one = 1;

	if (line->stop >= 0 && weft_write_all(line->stop, &one, sizeof(one)) < 0)
		abort();
	for (int from = LINE_NEAR; from <= LINE_FAR; from++)
		line_direction_end(&line->directions[from]);
	if (used && line->options.stats_file && print_stats(line) != 0 && status == 0)
		status = 1;
	for (int side = LINE_NEAR; side <= LINE_FAR; side++)
		line_end_close(&line->ends[side]);
	weft_cleanup_close(&line->stop);
	return status;
}

/* ---- what happens meanwhile ---- */

/* For nsenter(1), among others: --net="$WEFT_LINE_FAR". */
static int tell_ends(const struct line *line)
{
	char name[32], path[64];

	for (int side = LINE_NEAR; side <= LINE_FAR; side++) {
		const char *upper = side == LINE_NEAR ? "NEAR" : "FAR";

		snprintf(name, sizeof(name), "WEFT_LINE_%s", upper);
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), line->ends[side].ns);
		setenv(name, path, 1);
		snprintf(name, sizeof(name), "WEFT_LINE_%s_IP", upper);
		setenv(name, line->ends[side].ipv4, 1);
		if (!line->options.command)
			printf("%s %s %s %s\n", line_side_names[side], line->ends[side].ipv4,
				line->ends[side].ipv6, path);
	}
	if (!line->options.command) {
		puts("ready");
		return weft_end_output("weft-line", 0);
	}
	return 0;
}

static pid_t run_command(const struct line *line, const sigset_t *before)
{
	char **argv = line->options.command;

	weft_debug("running %s at the near end", argv[0]);
	pid_t parent = getpid(), pid = fork();

	if (pid > 0)
		weft_debug("the command is process %d", (int)pid);
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(127);
	sigprocmask(SIG_SETMASK, before, NULL);
	if (setns(line->ends[LINE_NEAR].ns, CLONE_NEWNET) == 0)
		execvp(argv[0], argv);
	fprintf(stderr, "weft-line: cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* The exit status: the command's, as a shell tells it; 0 without one. */
static int wait_for_end(pid_t command, int signals)
{
	struct signalfd_siginfo info;
	int how;

	for (;;) {
		if (weft_read_all(signals, &info, sizeof(info)) < 0)
			abort();
		if (info.ssi_signo != SIGCHLD && command == 0)
			return 0;
		/* A terminal's signals reach the command without us. */
		if (info.ssi_signo == SIGTERM)
			kill(command, SIGTERM);
		if (info.ssi_signo == SIGCHLD && command != 0 &&
			waitpid(command, &how, WNOHANG) == command)
			return WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
	}
}

int main(int argc, char **argv)
{
	static struct line line = {.ends = {{.tun = -1, .ns = -1}, {.tun = -1, .ns = -1}},
		.stop = -1};
	sigset_t wanted, before;
	pid_t command = 0;
	int r;

	weft_process_begin();
	r = line_options_parse(argc, argv, &line.options);
	if (r != WEFT_GO_ON)
		return r;
	weft_log_init("weft-line", WEFT_LOG_WARNING);
	sigemptyset(&wanted);
	for (size_t i = 0; i < 4; i++)
		sigaddset(&wanted, (const int[]){SIGTERM, SIGINT, SIGHUP, SIGCHLD}[i]);
	sigprocmask(SIG_BLOCK, &wanted, &before);
	int signals = signalfd(-1, &wanted, SFD_CLOEXEC);
	if (signals < 0)
		return say("cannot watch signals", errno);
	if (make(&line) != 0)
		return finish(&line, false, 1);
	if (tell_ends(&line) != 0)
		return finish(&line, false, 1);
	if (line.options.command)
		command = run_command(&line, &before);
	if (command < 0)
		return finish(&line, false, say("cannot start a process", errno));
	return finish(&line, true, wait_for_end(command, signals));
}
