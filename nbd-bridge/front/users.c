/* SPDX-License-Identifier: MIT */
/*
 * The users of a front-end, for people: found in /proc and /sys, as far as we may look.  Any
 * thread.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/front/front.h"

void bridge_process_name(pid_t pid, char *buf, size_t len)
{
	char path[64], comm[32] = "";

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	FILE *file = pid > 0 ? fopen(path, "re") : NULL;
	if (file) {
		if (fgets(comm, sizeof(comm), file))
			comm[strcspn(comm, "\n")] = '\0';
		fclose(file);
	}
	if (pid <= 0)
		snprintf(buf, len, "a process");
	else if (comm[0])
		snprintf(buf, len, "pid %d (%s)", (int)pid, comm);
	else
		snprintf(buf, len, "a process that has ended (pid %d)", (int)pid);
}

/* Compares names only: looking at the file itself would ask a server that may not answer. */
static bool link_is(int dirfd, const char *name, const char *path)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(dirfd, name, target, sizeof(target) - 1);

	if (n < 0)
		return false;
	target[n] = '\0';
	return strcmp(target, path) == 0;
}

static bool has_open(const char *pid, const char *path)
{
	char name[64];
	bool found = false;
	struct dirent *entry;

	snprintf(name, sizeof(name), "/proc/%.20s/fd", pid);
	DIR *dir = opendir(name);
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			found = link_is(dirfd(dir), entry->d_name, path);
	closedir(dir);
	return found;
}

bool bridge_process_has_open(pid_t pid, const char *path)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", (int)pid);
	return has_open(text, path);
}

static bool has_mapped(const char *pid, const char *path)
{
	char name[64], line[PATH_MAX + 128];
	bool found = false;

	snprintf(name, sizeof(name), "/proc/%.20s/maps", pid);
	FILE *file = fopen(name, "re");
	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file)) {
		const char *mapped = strchr(line, '/');

		line[strcspn(line, "\n")] = '\0';
		found = mapped && strcmp(mapped, path) == 0;
	}
	fclose(file);
	return found;
}

static void add(json_t *texts, const char *what, const char *how)
{
	char text[320];

	snprintf(text, sizeof(text), "%s %s", what, how);
	json_array_append_new(texts, json_string(text));
}

/* A loop device holds its file inside the kernel; no process has it open. */
static unsigned loop_users(const char *path, json_t *texts)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *entry;
	unsigned n = 0;

	if (!dir)
		return 0;
	while ((entry = readdir(dir)) != NULL) {
		char name[320], line[PATH_MAX], what[300];

		if (strncmp(entry->d_name, "loop", 4) != 0)
			continue;
		snprintf(name, sizeof(name), "/sys/block/%s/loop/backing_file", entry->d_name);
		FILE *file = fopen(name, "re");
		if (!file)
			continue;
		if (fgets(line, sizeof(line), file)) {
			line[strcspn(line, "\n")] = '\0';
			if (strcmp(line, path) == 0) {
				snprintf(what, sizeof(what), "/dev/%s", entry->d_name);
				add(texts, what, "is a loop device on it");
				n++;
			}
		}
		fclose(file);
	}
	closedir(dir);
	return n;
}

unsigned bridge_path_users(const char *path, json_t *texts)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	char process[64];
	unsigned n = loop_users(path, texts);

	if (!dir)
		return n;
	while ((entry = readdir(dir)) != NULL) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		bool open = has_open(entry->d_name, path);
		if (!open && !has_mapped(entry->d_name, path))
			continue;
		bridge_process_name(atoi(entry->d_name), process, sizeof(process));
		add(texts, process, open ? "has it open" : "has it mapped");
		n++;
	}
	closedir(dir);
	return n;
}

void bridge_front_free(struct bridge_front *fronts)
{
	while (fronts) {
		struct bridge_front *front = fronts;

		fronts = front->next;
		front->ops->free(front);
	}
}
