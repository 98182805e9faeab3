/* SPDX-License-Identifier: MIT */
/*
 * Small things used everywhere: scope cleanup, a monotonic clock, sizes and
 * ids as text.  Any thread.
 */
#ifndef WEFT_FABRIC_BASE_UTIL_H
#define WEFT_FABRIC_BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define WEFT_KIB (UINT64_C(1) << 10)
#define WEFT_MIB (UINT64_C(1) << 20)
#define WEFT_GIB (UINT64_C(1) << 30)

#define weft_container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#define WEFT_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

static inline uint64_t weft_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t weft_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* CLOCK_MONOTONIC in nanoseconds. */
static inline uint64_t weft_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* CLOCK_BOOTTIME: goes on while the machine is suspended.  For leases. */
static inline uint64_t weft_boottime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* Takes -1: not open. */
static inline void weft_close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* Scope cleanup: WEFT_CLEANUP_CLOSE int fd = -1; */
static inline void weft_cleanup_close(int *fd)
{
	weft_close_fd(*fd);
}

static inline void weft_cleanup_free(void *p)
{
	free(*(void **)p);
}

#define WEFT_CLEANUP_CLOSE __attribute__((cleanup(weft_cleanup_close)))
#define WEFT_CLEANUP_FREE __attribute__((cleanup(weft_cleanup_free)))

/*
 * A page of this machine: 4 KiB on most, 64 KiB on some of arm64.  Files, caches and buffers count
 * in blocks of 4 KiB, which are the same everywhere.
 */
static inline uint64_t weft_page_bytes(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* len, rounded up to whole pages. */
static inline uint64_t weft_whole_pages(uint64_t len)
{
	return (len + weft_page_bytes() - 1) / weft_page_bytes() * weft_page_bytes();
}

/*
 * Parses "4096", "64K", "1.5G" style sizes (K, M, G, T: powers of 1024; an
 * optional trailing "i", "iB" or "B").  Returns 0, -EINVAL for anything else,
 * -ERANGE above INT64_MAX.  *ret untouched on failure.
 */
int weft_parse_size(const char *text, uint64_t *ret);

/* "64 MiB", "1.5 GiB", "512 B" into buf (at least 16 bytes); returns buf. */
char *weft_format_size(uint64_t bytes, char *buf, size_t len);

/*
 * An attachment's generation for people: "INCARNATION.RECONNECTS" into buf (at least 24 bytes);
 * returns buf.
 */
char *weft_format_generation(uint64_t generation, char *buf, size_t len);

/*
 * Makes a stranger's UTF-8 fit for a terminal, in place: each byte of a control character
 * becomes '?'.  Returns text.
 */
char *weft_printable(char *text);

/*
 * Writes text as one word of a shell's line, in quotes if need be, and a NUL into buf, which has
 * room for WEFT_SHELL_WORD_MAX(length of text) bytes.  Returns the NUL's place.
 */
char *weft_shell_word(const char *text, char *buf);
#define WEFT_SHELL_WORD_MAX(len) (4 * (len) + 2)

/* n bytes as 2n hex digits and a NUL into text. */
void weft_hex(const void *bytes, size_t n, char *text);

/* Exactly 2n lower- or upper-case hex digits from text (not NUL-terminated). 0, or -EINVAL. */
int weft_unhex(const char *text, void *bytes, size_t n);

/* n bytes from getrandom(2); aborts when the kernel has none to give (it always has). */
void weft_random(void *bytes, size_t n);
/* 64 random bits, never 0: a name for one life of something. */
uint64_t weft_random_name(void);

/*
 * The kernel's name for this life of the machine, into buf of len bytes, at least
 * WEFT_BOOT_ID_BYTES; zeros behind it.  "" when it cannot be had.
 */
void weft_boot_id(char *buf, size_t len);
enum { WEFT_BOOT_ID_BYTES = 37 };

/* write(2) and read(2) until n bytes went through.  0, -errno, or -EPIPE at an early end. */
int weft_write_all(int fd, const void *data, size_t n);
int weft_read_all(int fd, void *data, size_t n);

/*
 * For the end of a program: checks that standard output took what was printed.  Returns status, or
 * 1 after saying on standard error what is wrong.
 */
int weft_end_output(const char *program, int status);

/* What tells this machine from others, and stays: /etc/machine-id, or else its host name. */
void weft_machine_name(char *buf, size_t len);
/*
 * Where daemons keep what outlives a reboot: what systemd says, or /var/lib/weft for root, or
 * $XDG_STATE_HOME/weft/MACHINE, or ~/.local/state/weft/MACHINE; where WEFT_RUN_DIR is set: the run
 * directory.  Made if it is not there.  0; -ENOENT: this user has no home; or -errno.
 */
int weft_state_dir(char *buf, size_t len);
/*
 * The directory for sockets and state of this user's daemons: $WEFT_RUN_DIR, or
 * /run/weft for root, or $XDG_RUNTIME_DIR/weft.  Created with mode 0700.
 * buf: at least 108 bytes.  0, or -errno.
 */
int weft_run_dir(char *buf, size_t len);

#endif
