/* SPDX-License-Identifier: MIT */
/* Processes, what is said, and chance.  See torture.h. */
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "tests/torture/torture.h"

void log_line(const char *format, ...)
{
	va_list args;

	printf("%6.1f %3u: ", (double)weft_now_ns() / 1e9, t.round);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

void end(int status, const char *format, ...)
{
	va_list args;

	printf("%s in round %u (%s), seed %" PRIu64 ": ", status == 1 ? "VIOLATION" : "STUCK",
		t.round, t.what, t.seed);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	exit(status);
}

void check(int r, const char *why)
{
	if (r < 0)
		end(1, "%s", why);
}

uint64_t random_below(uint64_t n)
{
	t.random += UINT64_C(0x9e3779b97f4a7c15);
	uint64_t x = t.random;
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return (x ^ x >> 31) % n;
}

uint64_t patience_ends_ns(void)
{
	return weft_now_ns() + PATIENCE_S * UINT64_C(1000000000);
}

pid_t spawn(const char *log, char *const argv[])
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

bool has_ended(pid_t *pid)
{
	if (*pid && waitpid(*pid, NULL, WNOHANG) == *pid)
		*pid = 0;
	return *pid == 0;
}

void kill_and_reap(pid_t *pid)
{
	if (*pid == 0)
		return;
	kill(*pid, SIGKILL);
	waitpid(*pid, NULL, 0);
	*pid = 0;
}

size_t read_text(const char *path, char *buf, size_t size)
{
	FILE *file = fopen(path, "r");
	size_t n = file ? fread(buf, 1, size - 1, file) : 0;

	if (file)
		fclose(file);
	buf[n] = '\0';
	return n;
}

int run(char *text, size_t size, char *const argv[])
{
	uint64_t end_ns = patience_ends_ns();
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

void holder_kill(void)
{
	DIR *proc = opendir("/proc");
	char path[300], text[8192];

	for (struct dirent *entry; proc && (entry = readdir(proc));) {
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		if (atoi(entry->d_name) <= 1 || read_text(path, text, sizeof(text)) == 0 ||
			strcmp(text, "weftholder\n") != 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%s/environ", entry->d_name);
		size_t n = read_text(path, text, sizeof(text));
		if (memmem(text, n, getenv("WEFT_RUN_DIR"), strlen(getenv("WEFT_RUN_DIR"))))
			kill(atoi(entry->d_name), SIGKILL);
	}
	if (proc)
		closedir(proc);
}

