/* SPDX-License-Identifier: MIT */
/*
 * What a check of weft doctor finds out: a finding, and the facts below a root that it comes from.
 * The root is "" but in tests and with --sysroot: what only a system call can tell is asked of the
 * real root alone.
 *
 * One thread.
 */
#ifndef WEFT_FABRIC_MACHINE_FINDING_H
#define WEFT_FABRIC_MACHINE_FINDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum finding_state {
	FINDING_OK,      /* works */
	FINDING_WARN,    /* weft does without it, or with less */
	FINDING_MISSING, /* a part of weft cannot be used */
	FINDING_NONE,    /* there is nothing to look at */
};

struct finding {
	enum finding_state state;
	char meaning[320];
	char fix[240];  /* "": nothing to do */
	bool as_root;   /* the fix is root's */
	char keep[240]; /* what makes the fix outlive a reboot; "": it does by itself */
};

/* One check. */
struct finding_check {
	const char *name; /* 14 characters at most: "RDMA address" */
	bool needed;      /* weft does not work at all without it */
	void (*look)(struct finding *f); /* fills *f, which is zero */
};

void finding_say(struct finding *f, enum finding_state state, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* A command line, root's or anybody's; and what makes that outlive a reboot. */
void finding_fix_as_root(struct finding *f, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void finding_fix(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void finding_keep(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A kernel that has a module, since Linux major.minor. */
void finding_fix_kernel(struct finding *f, unsigned major, unsigned minor);
/*
 * What every check of a kernel module says.  what: who needs it; node: a file that shows that it
 * works; since: major.minor.
 */
void finding_module(struct finding *f, const char *module, const char *node, const char *what,
	unsigned major, unsigned minor);

/* Set before the first check. */
extern const char *facts_root;

/* path below the root, in buf, which has PATH_MAX bytes. */
const char *facts_below_root(char *buf, const char *path);
bool facts_exist(const char *path);
/* To read and write. */
bool facts_usable(const char *path);
/* The first line of a file that holds `needle`, without its newline; false without one. */
bool facts_line(const char *path, const char *needle, char *line, int len);
/* The number in a file's first line with `needle`, after it; false without one ("max" is none). */
bool facts_number(const char *path, const char *needle, uint64_t *ret);
/* The names that match a pattern, without the directory, joined; returns how many. */
size_t facts_names(const char *pattern, char *joined, size_t len);
bool facts_kernel_release(char *release, int len);
/* Whether modprobe would find the module. */
bool facts_have_module(const char *module);

#endif
