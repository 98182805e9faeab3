/* SPDX-License-Identifier: MIT */
/* Small things used everywhere; no state, any thread. */
#include "fabric/base/util.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

int weft_parse_size(const char *text, uint64_t *ret)
{
	static const char units[] = "KMGT";
	char *end;

	/* strtod alone would take "inf", "0x10", " 1" and "-1". */
	if (!isdigit((unsigned char)text[0]) || text[strspn(text, "0123456789.KMGTkmgtiB")] != '\0')
		return -EINVAL;
	double value = strtod(text, &end);
	uint64_t scale = 1;
	if (*end != '\0' && *end != 'B') {
		const char *unit = strchr(units, toupper((unsigned char)*end));

		if (!unit)
			return -EINVAL;
		scale = UINT64_C(1) << (10 * (unit - units + 1));
		end++;
		if (*end == 'i')
			end++;
	}
	if (strcmp(end, "B") == 0)
		end++;
	if (*end != '\0')
		return -EINVAL;
	double bytes = value * (double)scale;
	if (bytes >= 9223372036854775807.0)
		return -ERANGE;
	if (bytes != floor(bytes))
		return -EINVAL;
	/* A double is not exact above 2^53, so integers are parsed as integers. */
	if (!memchr(text, '.', strlen(text)))
		*ret = strtoull(text, NULL, 10) * scale;
	else
		*ret = (uint64_t)bytes;
	return 0;
}

char *weft_format_size(uint64_t bytes, char *buf, size_t len)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned u = 0;
	double value = (double)bytes;

	while (value >= 1024 && u + 1 < WEFT_ARRAY_LEN(units)) {
		value /= 1024;
		u++;
	}
	snprintf(buf, len, value == floor(value) ? "%.0f %s" : "%.1f %s", value, units[u]);
	return buf;
}

char *weft_format_generation(uint64_t generation, char *buf, size_t len)
{
	snprintf(buf, len, "%u.%u", (unsigned)(generation >> 32), (unsigned)generation);
	return buf;
}

char *weft_printable(char *text)
{
	for (uint8_t *p = (uint8_t *)text; *p; p++) {
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
		else if (*p == 0xc2 && p[1] >= 0x80 &&
			p[1] < 0xa0) /* C1 controls: some terminals obey them */
			*p = p[1] = '?';
	}
	return text;
}

char *weft_shell_word(const char *text, char *buf)
{
	static const char plain[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./:=@%+,";
	char *to = buf;

	if (text[0] && strspn(text, plain) == strlen(text))
		return stpcpy(to, text);
	*to++ = '\'';
	for (; *text; text++)
		if (*text == '\'')
			to = stpcpy(to, "'\\''");
		else
			*to++ = *text;
	return stpcpy(to, "'");
}

void weft_hex(const void *bytes, size_t n, char *text)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = bytes;

	for (size_t i = 0; i < n; i++) {
		text[2 * i] = digits[p[i] >> 4];
		text[2 * i + 1] = digits[p[i] & 15];
	}
	text[2 * n] = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int weft_unhex(const char *text, void *bytes, size_t n)
{
	uint8_t *p = bytes;

	for (size_t i = 0; i < 2 * n; i++)
		if (hex_digit(text[i]) < 0)
			return -EINVAL;
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
	return 0;
}

void weft_random(void *bytes, size_t n)
{
	for (uint8_t *p = bytes; n > 0;) {
		ssize_t got = getrandom(p, n, 0);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			abort();
		}
		p += got;
		n -= (size_t)got;
	}
}

int weft_write_all(int fd, const void *data, size_t n)
{
	for (const char *p = data; n > 0;) {
		ssize_t put = write(fd, p, n);

		if (put < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		p += put;
		n -= (size_t)put;
	}
	return 0;
}

int weft_read_all(int fd, void *data, size_t n)
{
	for (char *p = data; n > 0;) {
		ssize_t got = read(fd, p, n);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (got == 0)
			return -EPIPE;
		p += got;
		n -= (size_t)got;
	}
	return 0;
}

int weft_end_output(const char *program, int status)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "%s: cannot write the output: %s\n", program,
		strerror(errno ? errno : EIO));
	return 1;
}

int weft_run_dir(char *buf, size_t len)
{
	const char *own = getenv("WEFT_RUN_DIR");
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	int n;

	if (own && *own)
		n = snprintf(buf, len, "%s", own);
	else if (geteuid() == 0)
		n = snprintf(buf, len, "/run/weft");
	else if (xdg && *xdg)
		n = snprintf(buf, len, "%s/weft", xdg);
	else
		n = snprintf(buf, len, "/tmp/weft-%u", geteuid());
	if (n < 0 || (size_t)n >= len)
		return -ENAMETOOLONG;
	if (mkdir(buf, 0700) < 0 && errno != EEXIST)
		return -errno;
	/*
	 * In a shared /tmp somebody else may have made the directory first; and others must not be
	 * able to put sockets and states there.
	 */
	struct stat st;
	if (lstat(buf, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
		return -EPERM;
	return 0;
}

void weft_machine_name(char *buf, size_t len)
{
	WEFT_CLEANUP_CLOSE int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);

	memset(buf, 0, len);
	if (fd < 0 || read(fd, buf, len - 1) <= 0 || (buf[strcspn(buf, "\n")] = '\0', !*buf))
		gethostname(buf, len - 1);
}

/* Makes those directories of the path that are not there. */
static int make_path(char *path)
{
	for (char *at = path + 1; (at = strchr(at, '/')) != NULL; at++) {
		*at = '\0';
		int r = mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
		*at = '/';
		if (r < 0)
			return r;
	}
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int weft_state_dir(char *buf, size_t len)
{
	const char *own = getenv("STATE_DIRECTORY"); /* systemd.exec(5) */
	const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char machine[64];
	int n;

	buf[0] = '\0';
	if (getenv("WEFT_RUN_DIR"))
		return weft_run_dir(buf, len);
	/* A home may be that of many machines. */
	weft_machine_name(machine, sizeof(machine));
	if (own && *own && !strchr(own, ':'))
		n = snprintf(buf, len, "%s", own);
	else if (geteuid() == 0)
		n = snprintf(buf, len, "/var/lib/weft");
	else if (xdg && *xdg == '/')
		n = snprintf(buf, len, "%s/weft/%s", xdg, machine);
	else if (home && *home == '/')
		n = snprintf(buf, len, "%s/.local/state/weft/%s", home, machine);
	else
		return -ENOENT;
	if (n < 0 || (size_t)n >= len)
		return -ENAMETOOLONG;
	return make_path(buf);
}

void weft_boot_id(char *buf, size_t len)
{
	WEFT_CLEANUP_CLOSE int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	memset(buf, 0, len);
	if (fd >= 0 && read(fd, buf, WEFT_BOOT_ID_BYTES - 1) < 0)
		buf[0] = '\0';
}

uint64_t weft_random_name(void)
{
	uint64_t name;

	do
		weft_random(&name, sizeof(name));
	while (name == 0); /* 0 would mean none, or any */
	return name;
}
