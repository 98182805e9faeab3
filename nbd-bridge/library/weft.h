/*
 * libweft: a region of a weft donor (or any NBD server) as bytes to read and write.
 *
 *	struct weft *w;
 *	char why[256];
 *	if (weft_open("weft://192.0.2.7/scratch", 0, &w, why, sizeof(why)) < 0)
 *		errx(1, "%s", why);
 *	weft_pwrite(w, data, len, 0);
 *	weft_flush(w);
 *	weft_close(w);
 *
 * Every call blocks.  Calls on one handle take turns; use a handle a thread for more than one at a time
 * (a second writing handle of the same region is refused, see weft_open()).
 * An idle handle keeps its hold on the region by itself.
 *
 * When the connection breaks, a call connects again once and carries on, as long as the region's contents are
 * the same (its epoch); a plain NBD server cannot tell that, so there the handle is lost.
 *
 * Compile and link with `pkg-config --cflags --libs weft`.
 */
#ifndef WEFT_H
#define WEFT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEFT_API __attribute__((visibility("default")))

struct weft;

enum {
	WEFT_OPEN_READ_ONLY = 1 << 0, /* nothing is written through this handle; no writer beside it */
	WEFT_OPEN_SHARED = 1 << 1,    /* with READ_ONLY: whoever writes meanwhile */
};

/*
 * Opens a region by its URI: weft://HOST[:PORT]/REGION, nbd://HOST[:PORT]/EXPORT, or
 * weft+unix:///REGION?socket=PATH, nbd+unix:///EXPORT?socket=PATH.  It goes over TCP; over RDMA with weft://HOST[:PORT]/REGION?transport=rdma,
 * through 4 MiB of memory that the library registers (and locks: see RLIMIT_MEMLOCK).
 *
 * Returns 0 with *ret, to be given to weft_close(); or -errno with *ret untouched and, in why
 * (of why_size bytes; may be NULL with 0), what was tried, on what, and why it failed:
 *   -EINVAL           the URI or the flags
 *   -ENOENT           no such region
 *   -EBUSY            somebody else holds it
 *   -EROFS            it is read-only; WEFT_OPEN_READ_ONLY would do
 *   -EPROTONOSUPPORT  weft:// at a server that is no weft donor
 *   -ENODEV           transport=rdma, and there is no RDMA device
 *   -ECONNREFUSED, -ETIMEDOUT (10 s), -EHOSTUNREACH, …  no donor
 */
WEFT_API int weft_open(const char *uri, unsigned flags, struct weft **ret, char *why, size_t why_size);

/* In bytes.  Constant for the life of the handle. */
WEFT_API uint64_t weft_size(const struct weft *w);

/*
 * Reads or writes len bytes (0 is fine) at offset off of the region; buf may be any memory.
 * Returns 0 when all of it was done, or -errno, when none, some or all of it may have been:
 *   -ENOSPC    beyond the end (nothing was done)
 *   -EPERM     a write through a read-only handle (nothing was done)
 *   -EINVAL    a plain NBD server that wants whole blocks (nothing was done)
 *   -EIO, …    what the donor said
 *   -ESTALE    the contents are gone, or somebody took the region over; this handle is lost
 *   -ENOTCONN  the connection broke and could not be made again; -ETIMEDOUT: no answer for 30 s
 */
WEFT_API int weft_pread(struct weft *w, void *buf, size_t len, uint64_t off);
WEFT_API int weft_pwrite(struct weft *w, const void *buf, size_t len, uint64_t off);

/* All writes that returned before it are as durable as the region gets.  0, or -errno as above. */
WEFT_API int weft_flush(struct weft *w);

/* Lets go of the region and frees the handle.  Flushes nothing.  Takes NULL. */
WEFT_API void weft_close(struct weft *w);

#ifdef __cplusplus
}
#endif

#endif
