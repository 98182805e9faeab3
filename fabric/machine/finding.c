/* SPDX-License-Identifier: MIT */
/* Facts from files, and the wording of findings. */
#include "fabric/machine/finding.h"

#include <glob.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *facts_root = "";

void finding_say(struct finding *f, enum finding_state state, const char *fmt, ...)
{
	va_list args;

	f->state = state;
	va_start(args, fmt);
	vsnprintf(f->meaning, sizeof(f->meaning), fmt, args);
	va_end(args);
}

#define FORMAT(to, fmt) \
	do { \
		va_list args; \
		va_start(args, fmt); \
		vsnprintf(to, sizeof(to), fmt, args); \
		va_end(args); \
	} while (0)

void finding_fix_as_root(struct finding *f, const char *fmt, ...)
{
	f->as_root = true;
	FORMAT(f->fix, fmt);
}

void finding_fix(struct finding *f, const char *fmt, ...)
{
	f->as_root = false;
	FORMAT(f->fix, fmt);
}

void finding_keep(struct finding *f, const char *fmt, ...)
{
	FORMAT(f->keep, fmt);
}

/* On Debian the fix names the kernel's package; elsewhere it says which kernel is wanted. */
void finding_fix_kernel(struct finding *f, unsigned major, unsigned minor)
{
#ifdef __aarch64__
	static const char package[] = "linux-image-arm64";
#else
	static const char package[] = "linux-image-amd64";
#endif
	char release[128] = "?", line[256];
	f->keep[0] = '\0';
	bool cloud = facts_kernel_release(release, sizeof(release)) && strstr(release, "cloud");
	const char *then = cloud ? "the cloud kernel leaves it out; then reboot"
				 : "in a container: on its host; then reboot";

	if (facts_exist("/etc/os-release") &&
		!facts_line("/etc/os-release", "ID=debian", line, sizeof(line)))
		finding_fix_as_root(f,
			"install a kernel of Linux %u.%u or later with that module; %s", major,
			minor, then);
	else if (major * 1000 + minor > 6001 &&
		(strncmp(release, "6.1.", 4) == 0 ||
			facts_line("/etc/os-release", "bookworm", line, sizeof(line))))
		finding_fix_as_root(f,
			"apt-get install -t bookworm-backports %s  # backports have to be among "
			"apt's sources; %s",
			package, then);
	else
		finding_fix_as_root(f, "apt-get install %s  # %s", package, then);
}

const char *facts_below_root(char *buf, const char *path)
{
	snprintf(buf, PATH_MAX, "%s%s", facts_root, path);
	return buf;
}

bool facts_exist(const char *path)
{
	char buf[PATH_MAX];

	return access(facts_below_root(buf, path), F_OK) == 0;
}

bool facts_usable(const char *path)
{
	char buf[PATH_MAX];

	return access(facts_below_root(buf, path), R_OK | W_OK) == 0;
}

bool facts_line(const char *path, const char *needle, char *line, int len)
{
	char buf[PATH_MAX];
	FILE *in = fopen(facts_below_root(buf, path), "re");
	bool found = false;

	if (!in)
		return false;
	while (!found && fgets(line, len, in))
		found = strstr(line, needle) != NULL;
	fclose(in);
	if (found)
		line[strcspn(line, "\n")] = '\0';
	return found;
}

bool facts_number(const char *path, const char *needle, uint64_t *ret)
{
	char line[256], *at, *end;
	unsigned long long value;

	if (!facts_line(path, needle, line, sizeof(line)))
		return false;
	at = strstr(line, needle) + strlen(needle);
	value = strtoull(at, &end, 10);
	if (end == at)
		return false;
	*ret = value;
	return true;
}

size_t facts_names(const char *pattern, char *joined, size_t len)
{
	char buf[PATH_MAX];
	glob_t g;
	size_t n = 0, used = 0;

	joined[0] = '\0';
	if (glob(facts_below_root(buf, pattern), 0, NULL, &g))
		return 0;
	for (; n < g.gl_pathc; n++)
		if (used < len)
			used += (size_t)snprintf(joined + used, len - used, "%s%s", n ? ", " : "",
				strrchr(g.gl_pathv[n], '/') + 1);
	globfree(&g);
	return n;
}

bool facts_kernel_release(char *release, int len)
{
	return facts_line("/proc/sys/kernel/osrelease", "", release, len);
}

bool facts_have_module(const char *module)
{
	char release[128], path[256], needle[64], line[1024];

	if (!facts_kernel_release(release, sizeof(release)))
		return false;
	snprintf(needle, sizeof(needle), "/%s.ko", module);
	snprintf(path, sizeof(path), "/lib/modules/%s/modules.dep", release);
	if (facts_line(path, needle, line, sizeof(line)))
		return true;
	snprintf(path, sizeof(path), "/lib/modules/%s/modules.builtin", release);
	return facts_line(path, needle, line, sizeof(line));
}

void finding_module(struct finding *f, const char *module, const char *node, const char *what,
	unsigned major, unsigned minor)
{
	char release[128] = "?";

	facts_kernel_release(release, sizeof(release));
	if (facts_exist(node)) {
		finding_say(f, FINDING_OK, "%s is there, for %s", module, what);
	} else if (facts_have_module(module)) {
		finding_say(f, FINDING_WARN, "%s is not loaded, for %s", module, what);
		finding_fix_as_root(f, "modprobe %s", module);
		finding_keep(f, "echo %s > /etc/modules-load.d/weft-%s.conf", module, module);
	} else {
		finding_say(f, FINDING_MISSING, "kernel %.64s has no module %s here, for %s",
			release, module, what);
		finding_fix_kernel(f, major, minor);
	}
}
