/*
 * Private to weft doctor: what its files share.  Facts come from files below a root, which is "" but in tests and
 * with --sysroot.  One thread.
 */
#ifndef WEFT_FABRIC_MAIN_DOCTOR_H
#define WEFT_FABRIC_MAIN_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum state {
	OK,      /* works */
	WARN,    /* weft does without it, or with less */
	MISSING, /* a part of weft cannot be used */
	NONE,    /* there is nothing to look at */
};

struct finding {
	enum state state;
	char meaning[320];
	char fix[240]; /* "": nothing to do */
	bool as_root;  /* the fix is root's */
	char keep[240]; /* what makes the fix outlive a reboot; "": it does by itself */
};

extern const char *root;

void say(struct finding *f, enum state state, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* A command line, root's or anybody's; and what makes that outlive a reboot. */
void fix_as_root(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void fix(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void keep(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A kernel that has a module, since Linux major.minor. */
void fix_kernel(struct finding *f, unsigned major, unsigned minor);

/* path below the root, in buf, which has PATH_MAX bytes. */
const char *below_root(char *buf, const char *path);
bool exists(const char *path);
/* To read and write. */
bool usable(const char *path);
/* The first line of a file that holds `needle`, without its newline; false without one. */
bool read_line(const char *path, const char *needle, char *line, int len);
/* The number in a file's first line with `needle`, after it; false without one ("max" is none). */
bool read_number(const char *path, const char *needle, uint64_t *ret);
/* The names that match a pattern, without the directory, joined; returns how many. */
size_t names(const char *pattern, char *joined, size_t len);
bool kernel_release(char *release, int len);
/* Whether modprobe would find the module. */
bool module_available(const char *module);
/* What every check of a kernel module says.  what: who needs it; node: a file that shows that it works; since: major.minor. */
void check_module(struct finding *f, const char *module, const char *node, const char *what, unsigned major, unsigned minor);

/* doctor-topology.c: the exit status. */
int doctor_topology(bool as_json);

/* doctor-rdma-netlink.c: whether a port of the device is of no use, whatever its state says, as its queue pair for connection requests has failed. */
bool rdma_management_failed(const char *device);

/* doctor-rdma.c */
void check_rdma(struct finding *f);
void check_rdma_address(struct finding *f);
void check_rdma_mtu(struct finding *f);
void check_rdma_access(struct finding *f);
void check_soft_roce(struct finding *f);
void check_rdma_cm(struct finding *f);

#endif
