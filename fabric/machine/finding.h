/* SPDX-License-Identifier: MIT */
/*
 * Checks of weft doctor: what they find, and functions for facts below a root.  The root is ""
 * except in tests and with --sysroot.  Facts that only a system call can tell are asked for the
 * root "" alone.
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
	FINDING_WARN,    /* weft goes on without it, or with less */
	FINDING_MISSING, /* a part of weft cannot be used */
	FINDING_NONE,    /* there is nothing to look at */
};

struct finding {
	enum finding_state state;
	char meaning[320];
	char fix[240];  /* "": nothing to do */
	bool as_root;   /* the fix is root's */
	char keep[240]; /* what makes the fix outlive a reboot; "": it does anyway */
};

/* One check. */
struct finding_check {
	const char *name; /* 14 characters at most: "RDMA address" */
	bool needed;      /* weft does not work at all without it */
	void (*look)(struct finding *f); /* fills *f, which is zero */
};

void finding_say(struct finding *f, enum finding_state state, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* fix: a command line, for root or for anybody; keep: what makes the fix outlive a reboot. */
void finding_fix_as_root(struct finding *f, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void finding_fix(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void finding_keep(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The fix is a kernel that has the module: Linux major.minor or later. */
void finding_fix_kernel(struct finding *f, unsigned major, unsigned minor);
/*
 * The finding of any check of a kernel module.  what: the part of weft that needs the module; node:
 * a file that is there when the module works; major.minor: the first Linux with it.
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
/* The first line of the file with `needle` in it, without the newline; false: there is none. */
bool facts_line(const char *path, const char *needle, char *line, int len);
/*
 * The number behind `needle` in the first line that has it; false: there is none ("max" is no
 * number).
 */
bool facts_number(const char *path, const char *needle, uint64_t *ret);
/* The names that match a pattern, without the directory, joined; returns how many. */
size_t facts_names(const char *pattern, char *joined, size_t len);
bool facts_kernel_release(char *release, int len);
/* Whether modprobe would find the module. */
bool facts_have_module(const char *module);

#endif
