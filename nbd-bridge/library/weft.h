/* SPDX-License-Identifier: MIT */
/*
 * libweft: a region of a weft donor (or any NBD server) as bytes to read and write; or regions of
 * several donors, striped.
 *
 *	struct weft *w;
 *	char why[256];
 *	if (weft_open("weft://192.0.2.7/scratch", 0, &w, why, sizeof(why)) < 0)
 *		errx(1, "%s", why);
 *	weft_pwrite(w, data, len, 0);
 *	weft_flush(w);
 *	weft_close(w);
 *
 * libweft(3) has more examples.
 *
 * Threads: any thread may use a handle, and calls of several threads run side by side.
 * weft_close() is the last call, and runs alone.  A thread must not be cancelled inside a call.  A
 * child of fork(2) must not use the handle, nor close it; it may exec.  The library installs no
 * signal handlers, and its threads take no signals.  It writes nothing to standard error.
 *
 * A handle holds its region while it is open; an idle handle shows signs of life by itself.  When
 * the connection breaks, calls wait for another one, over any transport that works, and carry on,
 * as long as the region's contents are the same (its epoch).  If they are not, the handle is lost:
 * every call fails with -ESTALE, and none returns zeros or old bytes.  A plain NBD server cannot
 * tell whether its contents are the same, so a handle to one is lost with its connection
 * (-ENOTCONN).
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
	/* this handle does not write, and there is no writer beside it */
	WEFT_OPEN_READ_ONLY = 1 << 0,
	WEFT_OPEN_SHARED = 1 << 1,       /* with READ_ONLY: others may write meanwhile */
	/*
	 * with a cache: a write returns when the cache has it; weft_flush() brings it to the donor
	 */
	WEFT_OPEN_WRITE_BACK = 1 << 2,
	/* several regions: they become parts of this device, whatever device they were parts of */
	WEFT_OPEN_NEW_CONTENTS = 1 << 3,
	/* no key is used: in plaintext, with a donor that proves nothing */
	WEFT_OPEN_ALLOW_INSECURE = 1 << 4,
};

/*
 * Opens a region by its URI: weft://[IDENTITY@]HOST[:PORT]/REGION, nbd://HOST[:PORT]/EXPORT, or
 * weft+unix:///REGION?socket=PATH, nbd+unix:///EXPORT?socket=PATH.
 *
 * weft://…?transport= chooses the transport.  auto, the default: RDMA if the donor offers it and it
 * works, else TCP.  When RDMA is lost the handle goes on over TCP, and returns to RDMA later. rdma
 * or tcp: that one alone.  RDMA takes 5 MiB of memory for each connection, which is registered and
 * locked (see RLIMIT_MEMLOCK).
 *
 * Returns 0 with *ret, to be given to weft_close(); or -errno with *ret untouched and, in why
 * (of why_size bytes; may be NULL with 0), what was tried, on what, and why it failed:
 *   -EINVAL           the URI, the flags or the options
 *   -ENOENT           no such region
 *   -EBUSY            somebody else holds it
 *   -EROFS            it is read-only; WEFT_OPEN_READ_ONLY would do
 *   -EPROTONOSUPPORT  weft:// at a server that is no weft donor
 *   -ENODEV           transport=rdma, and there is no RDMA device
 *   -EPERM            others can use the key file
 *   -ENOKEY           the URI's identity, or the file that was named, is not there; or the file has
 *                     several keys, and the URI has no identity
 *   -EACCES, -EKEYREJECTED, -EKEYEXPIRED  the donor does not take the key, or wants one
 *   -ECONNREFUSED, -ETIMEDOUT (10 s), -EHOSTUNREACH, …  no donor
 *   -EDEADLK          inside a completion's fn
 */
WEFT_API int weft_open(const char *uri, unsigned flags, struct weft **ret, char *why,
	size_t why_size);

/* All zero but size: the defaults. */
struct weft_options {
	size_t size;            /* sizeof(struct weft_options) */
	unsigned flags;         /* WEFT_OPEN_… */
	/*
	 * connections to each donor, 64 at most; it is best to have one for each thread that calls
	 * at the same time.  0: one for each processor, 4 at most
	 */
	unsigned connections;
	/* memory for a cache of what was read and written, 4 MiB at least; 0: none */
	uint64_t cache_bytes;
	/*
	 * several regions: bytes that lie in one region before the next has its turn; a power of
	 * two, 4 KiB to 1 GiB; 0: 256 KiB
	 */
	uint64_t stripe_bytes;
	/* how long an answer may take before the connection is given up; 0: 30000 */
	uint32_t timeout_ms;
	/* how long calls wait for a donor that is gone, before -ENOTCONN; 0: 10000 */
	uint32_t dead_timeout_ms;
	/*
	 * the file with the key that the donor knows, as weft attach --key; NULL: $WEFT_KEY, or
	 * else ~/.config/weft/key, or else /etc/weft/key, if there is one; copied
	 */
	const char *key_file;
};

/*
 * Opens nr_uris regions (1 to 16) as one device, striped if there are several, in the order of
 * their URIs.  Opening them again needs the same order and stripe_bytes: a donor refuses anything
 * else (-EINVAL).  options: NULL: the defaults.  Otherwise as weft_open(); also
 *   -E2BIG  options of a later version of the library have a field set that this version does not
 *           know
 */
WEFT_API int weft_open_regions(const char *const *uris, unsigned nr_uris,
	const struct weft_options *options, struct weft **ret, char *why, size_t why_size);

/* In bytes.  Constant for the life of the handle. */
WEFT_API uint64_t weft_size(const struct weft *w);

/*
 * Writes the transport that the nth region (from 0) uses now, "rdma", "tcp", or "unix" for a Unix
 * socket, with "+tls" behind it where everything is encrypted, into buf, cut to size bytes with the
 * NUL.  0; or -EINVAL: there is no nth region.
 */
WEFT_API int weft_transport(struct weft *w, unsigned n, char *buf, size_t size);

/* ---- Calls that block ---- */

/*
 * Reads or writes len bytes (0 is fine) at offset off of the region; buf may be any memory. Returns
 * 0 when all bytes were read or written.  After -errno none, some or all of them may have been:
 *   -ENOSPC    beyond the end (nothing was done)
 *   -EPERM     a write through a read-only handle (nothing was done)
 *   -EINVAL    a plain NBD server that wants whole blocks; buf lies in a map of this handle
 *              (nothing was done)
 *   -EDEADLK   inside a completion's fn, which must not block (nothing was done)
 *   -EIO, …    what the donor said
 *   -ESTALE    the contents are gone, or somebody took the region over; this handle is lost
 *   -ENOTCONN  the connection broke and could not be made again within dead_timeout_ms; later calls
 *              fail at once until it is back.  -ETIMEDOUT: the same for a donor that is there and
 *              does not answer
 */
WEFT_API int weft_pread(struct weft *w, void *buf, size_t len, uint64_t off);
WEFT_API int weft_pwrite(struct weft *w, const void *buf, size_t len, uint64_t off);

/* Makes all writes that returned before as durable as the region can be.  0, or -errno as above. */
WEFT_API int weft_flush(struct weft *w);

/*
 * Releases the region and frees the handle.  Flushes nothing, except with WEFT_OPEN_WRITE_BACK:
 * then it writes back the cache, and gives up when nothing has arrived for 30 s.  Only a
 * weft_flush() before says whether writing back works.  If there is no connection at that moment,
 * the donor keeps the region for this handle until its lease is over.  Asynchronous commands that
 * have not ended end with -ECANCELED, and their completions run before weft_close() returns. Takes
 * NULL.
 */
WEFT_API void weft_close(struct weft *w);

/* ---- Asynchronous commands ---- */

/*
 * Called when a command has ended.  fn runs once, on the thread that took the answer: one that is
 * in a call of this handle, or one of the library's.  The functions of several commands may run at
 * the same time.  error: 0, or -errno as the blocking calls return it.  If fn returns 1, the
 * command is retired, and its cookie means nothing any more; if 0, the result is kept for
 * weft_aio_result().  fn may begin commands of any handle and ask for results.  fn must not block
 * (calls that would block fail with -EDEADLK) and must not close.  free runs once, after fn; if the
 * command was refused, free runs without fn, before the call that begins the command returns.
 * Either may be NULL: without fn the result is kept.
 */
struct weft_completion {
	int (*fn)(void *user, int error);
	void *user;
	void (*free)(void *user);
};

/*
 * Begin a command.  The command is sent before the call returns, or very soon after; nothing
 * blocks. buf belongs to the library until the command has ended.  Until then nobody frees buf,
 * changes the bytes of a write, or looks at the bytes of a read.  completion is copied; NULL: none.
 * Commands in flight are carried out in any order.  Return the command's cookie, > 0, unique in the
 * handle; or -errno, and there is no command:
 *   -ENOSPC, -EPERM, -EINVAL  as weft_pread()
 *   -EAGAIN    65536 commands are in flight, or have results that nobody took
 *   -ENOMEM
 *   -ECANCELED the handle is being closed
 */
WEFT_API int64_t weft_aio_pread(struct weft *w, void *buf, size_t len, uint64_t off,
	const struct weft_completion *completion);
WEFT_API int64_t weft_aio_pwrite(struct weft *w, const void *buf, size_t len, uint64_t off,
	const struct weft_completion *completion);
/* Begins a flush, which covers the writes that have ended by now. */
WEFT_API int64_t weft_aio_flush(struct weft *w, const struct weft_completion *completion);

/*
 * The command's result, which retires it: 0 or -errno as weft_pread(); or
 *   -EINPROGRESS  it has not ended
 *   -ENOENT       there is no such command, or it was retired
 */
WEFT_API int weft_aio_result(struct weft *w, int64_t cookie);

/*
 * The same, but waits for the command's end.  Also -EBUSY: another thread waits for it; -EDEADLK:
 * inside a completion's fn.
 */
WEFT_API int weft_aio_wait(struct weft *w, int64_t cookie);

/*
 * Takes answers, and waits at most timeout_ms (-1: without limit) until a command ends.  1: one or
 * more ended during the call, or ended before and nobody took the result; 0: none did, or none is
 * in flight; -EDEADLK: inside a completion's fn.
 */
WEFT_API int weft_aio_poll(struct weft *w, int timeout_ms);

/*
 * The cookie of a command that has ended and whose result nobody took: the one that ended first; 0:
 * there is none.
 */
WEFT_API int64_t weft_aio_next(struct weft *w);

/* How many commands have not ended. */
WEFT_API unsigned weft_aio_in_flight(struct weft *w);

/*
 * A descriptor for poll(2), epoll(7) and the like, which is readable when weft_aio_poll(w, 0)
 * should be called (a call may find nothing).  It belongs to the handle: only wait for it.
 * Commands end, a little later, even if nobody waits.  Or -errno of epoll_create1(2), eventfd(2).
 */
WEFT_API int weft_aio_fd(struct weft *w);

/* ---- Marks ---- */

/*
 * Followers are those who read the region while it is written: WEFT_OPEN_READ_ONLY and
 * WEFT_OPEN_SHARED, `weft pull --watch`.  A mark tells them which of its states to trust.
 *
 * weft_mark() sets the mark: what was written through this handle is a state that followers may
 * trust.  It flushes first.  No write is under way meanwhile, and none begins; a map of the handle
 * is synced before (WEFT_MAP_MARK does both).  The next write through the handle, and the next
 * writer that is granted the region, take the mark away before anything is written, which costs
 * that write a round trip.  0; or -errno as weft_flush(), and there is no mark:
 *   -EBUSY       something was written meanwhile
 *   -EPERM       a handle that only reads
 *   -EOPNOTSUPP  a donor keeps no marks: it is an older one, or a plain NBD server; or the handle
 *                has a cache
 */
WEFT_API int weft_mark(struct weft *w);

struct weft_mark {
	size_t size;     /* set by the caller: sizeof(struct weft_mark) */
	/* only goes up as long as the contents are the same, by each setting and taking away */
	uint64_t number;
	int is_set;
	uint64_t age_ms; /* since it was set; or, if it is not, since the last was taken away */
};

/*
 * Looks at the mark.  What a program reads between two looks that both find the mark set, with the
 * same number, is the state that was marked.  0, or -errno as weft_pread(); -EOPNOTSUPP as
 * weft_mark(); -EINVAL: ret->size.
 */
WEFT_API int weft_mark_look(struct weft *w, struct weft_mark *ret);

/* ---- Memory ---- */

/*
 * A part of the region as memory: what the program reads there is fetched, what it writes there
 * goes to the donor.  No more than local_bytes of it are in this machine at a time.
 *
 *	struct weft_map *m;
 *	if (weft_map(w, 0, weft_size(w), NULL, &m, why, sizeof(why)) < 0)
 *		errx(1, "%s", why);
 *	uint64_t *counts = weft_map_addr(m);
 *	counts[12345678]++;
 *	weft_map_sync(m, counts, len, WEFT_MAP_FLUSH);
 *	weft_unmap(m, 0);
 *
 * Threads: any thread may touch the map at any time; weft_unmap() is the last call, and runs alone.
 * Calls inside a completion's fn fail with -EDEADLK, and such a function must not touch a map of
 * its handle.  A child of fork(2) does not have the map.  Only the functions here may change the
 * mapping: no munmap(2), mprotect(2) or mremap(2), and no madvise(2) that drops pages.  A map is
 * not a buffer for weft_pread() and weft_pwrite() of its own handle (-EINVAL).
 *
 * Bytes that cannot be had are SIGBUS, and EFAULT in system calls, never zeros: if the donor is
 * gone for longer than dead_timeout_ms, until it is back; if the contents are gone, until
 * weft_map_reset().  Writes go home by themselves within seconds, or when their room is needed;
 * only weft_map_sync() says that they have.
 *
 * weft_map() needs Linux 5.19 or later with userfaultfd(2).  A user who may not open
 * /dev/userfaultfd (and vm.unprivileged_userfaultfd is 0) gets a map whose missing parts only the
 * program's own accesses fetch: system calls get EFAULT for them, so weft_map_prefetch() them.
 * Then weft_map() says so in why, although it succeeds.
 */
struct weft_map;

enum {
	WEFT_MAP_READ_ONLY = 1 << 0, /* writing to the map is SIGSEGV */
	/* no map rather than one in which system calls get EFAULT: weft_map() fails with -EPERM */
	WEFT_MAP_ALL_FAULTS = 1 << 1,
};

/*
 * How pages come and go.  Which one a map has is in its stats.
 *
 * paged: pages are moved into the map and out, by Linux 6.8 or later.
 * compat: Linux 5.19 will do.  Pages lie in a memory file that is mapped twice, so that the
 * process's resident set counts them twice.  The first write to a unit that was looked at for
 * writes waits for a handler.  What the kernel itself writes later than a system call says
 * (io_uring with registered buffers), or while the map evicts (direct I/O), can be lost.
 * resident: as compat, but all of the map may be here, none of it leaves before weft_unmap(), and
 * local_bytes is 0.  READs land in the map's own pages, over RDMA too, for which they are pinned.
 * Pages are huge where the system gives such to files (shmem_enabled in
 * /sys/kernel/mm/transparent_hugepage).
 */
enum weft_map_mode {
	WEFT_MAP_ANY_MODE, /* paged; or where the kernel cannot, compat */
	WEFT_MAP_PAGED,
	WEFT_MAP_COMPAT,
	WEFT_MAP_RESIDENT,
};

/* All zero but size: the defaults. */
struct weft_map_options {
	size_t size;    /* sizeof(struct weft_map_options) */
	unsigned flags; /* WEFT_MAP_READ_ONLY, WEFT_MAP_ALL_FAULTS */
	/* threads that take page faults, 8 at most; 0: one for each processor, 4 at most */
	unsigned handlers;
	/* the bound of what is here at a time; 0: 256 MiB; at least 18 units */
	uint64_t local_bytes;
	/*
	 * fetched at a time, a power of two from a page to 1 MiB; 0: 64 KiB, on a long way 8 and
	 * the rest behind them
	 */
	uint64_t unit_bytes;
	/*
	 * called once, from a thread of the library, when the contents are gone: from then on every
	 * access of the map is SIGBUS; error: -ESTALE, or -ENOTCONN at a plain NBD server.  It must
	 * not call weft_unmap(), weft_map_reset() or weft_close()
	 */
	void (*on_lost)(void *ctx, int error);
	void *on_lost_ctx;
	unsigned mode; /* enum weft_map_mode */
};

/*
 * Maps len bytes at off (a multiple of the page size) of the region.  What is behind them in their
 * last page is zero, and not written.  options: NULL: the defaults.  Returns 0 with *ret, to be
 * given to weft_unmap(); or -errno with *ret untouched and the reason in why:
 *   -EINVAL   the place or the options; a plain NBD server's blocks are cut by off, len or
 *             unit_bytes; -E2BIG: options of a later version
 *   -EROFS    the handle does not write; WEFT_MAP_READ_ONLY would do
 *   -ENOTSUP, -ENOSYS  the kernel cannot
 *   -EPERM    see WEFT_MAP_ALL_FAULTS
 *   -ENOMEM, …  no memory, no threads, no address space
 *   -EDEADLK  inside a completion's fn
 */
WEFT_API int weft_map(struct weft *w, uint64_t off, uint64_t len,
	const struct weft_map_options *options, struct weft_map **ret, char *why, size_t why_size);

/* Where the map begins; page-aligned, constant. */
WEFT_API void *weft_map_addr(const struct weft_map *m);

enum {
	WEFT_MAP_FLUSH = 1 << 0, /* weft_map_sync(): then as weft_flush() */
	WEFT_MAP_MARK = 1 << 1,  /* weft_map_sync(): all of the map; then as weft_mark() */
	WEFT_MAP_WAIT = 1 << 0,  /* weft_map_prefetch(): returns when all is here */
	WEFT_MAP_RESET = 1 << 0, /* weft_map_dirty(): those are told, and not again */
	WEFT_UNMAP_DISCARD = 1 << 0,
};

/*
 * Returns when the donor has what was written to these len bytes before the call; with
 * WEFT_MAP_FLUSH as durably as the region can be.  0, or -errno as weft_pwrite(): then some of it
 * is not there, stays here, and is tried again.  -EINVAL: the bytes are not all in the map.  With
 * WEFT_MAP_MARK nothing is written to the map until the call returns; it also returns what
 * weft_mark() does.
 */
WEFT_API int weft_map_sync(struct weft_map *m, const void *addr, size_t len, unsigned flags);

/*
 * Fetches the len bytes before they are needed.  Without WEFT_MAP_WAIT: as far as there is room,
 * and no errors are told but -EAGAIN: too much was asked for and has not begun.  With it: -ENOSPC:
 * they are more than three quarters of local_bytes; -EIO: the donor cannot be read; -ESTALE,
 * -ENOTCONN: the contents are gone.
 */
WEFT_API int weft_map_prefetch(struct weft_map *m, const void *addr, size_t len, unsigned flags);

/*
 * Frees the memory of the len bytes here; what was written is written back first, a little later.
 * -EBUSY: some are in use by the kernel (direct I/O, io_uring) and stay.  In a resident map nothing
 * is freed.
 */
WEFT_API int weft_map_evict(struct weft_map *m, const void *addr, size_t len);

struct weft_map_extent {
	uint64_t off, len; /* in the map */
};

/*
 * Which bytes were written since weft_map(), or since they were told with WEFT_MAP_RESET, whether
 * the donor has them by now or not: in whole pages (a unit of more than 256 KiB: in 64ths of a
 * unit; a plain NBD server's blocks where they are larger), in order, from `from` on.  Rarely a
 * page that was not written is among them.  What is written while the call runs is told by this
 * call or by the next.  Returns the number of extents, at most nr: if it is nr, go on behind the
 * last; or -EINVAL, or -ESTALE, -ENOTCONN: the contents are gone.
 */
WEFT_API int64_t weft_map_dirty(struct weft_map *m, uint64_t from, struct weft_map_extent *extents,
	size_t nr, unsigned flags);

enum {
	WEFT_MAP_NORMAL = 0, /* what comes next in a stream of accesses is fetched ahead */
	WEFT_MAP_RANDOM = 1, /* nothing is */
};

/* How the map will be used.  0, or -EINVAL. */
WEFT_API int weft_map_advise(struct weft_map *m, int advice);

/*
 * Once the contents are gone: calls fn for what was written to the map and is not known to be at
 * the donor, in order, from this thread; off: in the map; data is valid inside fn.  fn returns 0 to
 * go on.  Returns how many bytes there were; what fn returned, if that is not 0; -EINVAL: the
 * contents are not gone; or -EAGAIN: on_lost was not called yet.
 */
WEFT_API int64_t weft_map_rescue(struct weft_map *m,
	int (*fn)(void *ctx, uint64_t off, const void *data, size_t len), void *ctx);

/*
 * The way back once the contents are gone: drops what weft_map_rescue() has, and maps whatever the
 * region has now; the handle works again too.  No thread touches the map meanwhile.  Other maps of
 * the handle stay lost until they are reset.  Waits while another thread resets a map of the
 * handle.  0; or -errno, with the reason in why, and all is as before: -EINVAL: the contents are
 * not gone, or another thread has reset the map meanwhile; -EPERM: another process has taken the
 * region; -EAGAIN: on_lost was not called yet; or as weft_open().
 */
WEFT_API int weft_map_reset(struct weft_map *m, char *why, size_t why_size);

struct weft_map_stats {
	size_t size;      /* set by the caller: sizeof(struct weft_map_stats) */
	const char *mode; /* "paged", "compat" or "resident" */
	int user_faults_only; /* system calls get EFAULT for what is not here */
	int error;            /* why the contents are gone, or of the last write; 0: none */
	uint64_t local_bytes; /* the bound, in whole units */
	/* in the map; on their way out, or kept for a while */
	uint64_t resident_bytes, staged_bytes;
	uint64_t dirty_bytes;    /* known to be newer than the donor's */
	uint64_t poisoned_bytes; /* SIGBUS at present */
	/* Since weft_map(); units, but for those in bytes. */
	uint64_t faults, fetched, fetched_ahead, returned; /* returned: before they were gone */
	uint64_t evicted, evicted_dirty;
	uint64_t pinned; /* could not be evicted, being in use by the kernel */
	uint64_t read_bytes, written_bytes, write_errors;
};

/* 0; or -EINVAL: ret->size. */
WEFT_API int weft_map_stats(struct weft_map *m, struct weft_map_stats *ret);

/*
 * Writes back as weft_map_sync(), and ends the map.  If that fails: -errno, and the map is as
 * before.  WEFT_UNMAP_DISCARD: nothing is written back; always ends the map (0), but waits for what
 * is under way.  Takes NULL.
 */
WEFT_API int weft_unmap(struct weft_map *m, unsigned flags);

#ifdef __cplusplus
}
#endif

#endif
