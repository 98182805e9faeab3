/* SPDX-License-Identifier: MIT */
/*
 * What weft-serve lends: sockets, regions, and memory that outlives the process.  Main thread.
 *
 * The order matters.  Leftovers are searched for before our own holder exists, which the search
 * would find.  They are handed to our holder before their old one forgets them.  New memory is
 * handed over only when the start has succeeded.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include <xxhash.h>

#include "fabric/machine/available.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/main/serve.h"
#include "fabric/pool/pool.h"
#include "fabric/donor/supervision.h"

enum {
	HOLDER_STEADY_S = 10, /* after a holder has lived as long, the waits begin anew */
	HOLDER_WAIT_MAX_S = 60,
};

const struct weft_listening *serve_main_listening(const struct serve *s)
{
	for (unsigned i = 0; i < s->nr_listening; i++)
		if (!*s->listening[i].socket)
			return &s->listening[i];
	return &s->listening[0];
}

/* By other machines, since whoever comes from there has to show who it is, or need not. */
static bool may_be_reached(const struct serve *s)
{
	return s->allow_insecure || weft_keys_are_there(s->keys) || s->tls_certificates;
}

/* Sockets that systemd made take the place of the default one. */
static int take_passed_sockets(struct serve *s, int *fds, char *const *names, int nr_fds,
	struct weft_error *err)
{
	for (int i = 0; i < nr_fds; i++) {
		if (strncmp(names[i], WEFT_HOLDER_STORE_NAME, strlen(WEFT_HOLDER_STORE_NAME)) == 0)
			continue;
		if (s->nr_listening == SERVE_MAX_LISTEN)
			return weft_error_set(err, E2BIG, "systemd passed more than %d sockets",
				SERVE_MAX_LISTEN);
		int r = weft_listening_describe(fds[i], may_be_reached(s),
			&s->listening[s->nr_listening], err);

		if (r < 0)
			return weft_error_prefix(err, "socket '%s', passed by systemd", names[i]);
		s->listening[s->nr_listening++].passed = true;
		fds[i] = -1;
	}
	return 0;
}

int serve_open_sockets(struct serve *s, int *fds, char *const *names, int nr_fds,
	struct weft_error *err)
{
	static const char *const default_listen[] = {"127.0.0.1"};
	const char *const *listen = s->nr_listen ? s->listen : default_listen;
	int passed = take_passed_sockets(s, fds, names, nr_fds, err);
	unsigned nr = s->nr_listen ? s->nr_listen : s->nr_listening ? 0 : 1;

	if (passed < 0)
		return passed;

	for (unsigned i = 0; i < nr; i++) {
		if (s->nr_listening == SERVE_MAX_LISTEN)
			return weft_error_set(err, E2BIG, "more than %d sockets to listen on",
				SERVE_MAX_LISTEN);
		int r = weft_listen(listen[i], "10809", may_be_reached(s),
			&s->listening[s->nr_listening], err);

		if (r < 0)
			return r;
		s->nr_listening++;
	}
	return 0;
}

/* Whether there is memory for all regions together, before any is taken. */
static int check_total(const struct serve *s, struct weft_error *err)
{
	struct weft_available available;
	char want_text[32], have_text[32];
	uint64_t total = 0;
	unsigned nr = 0;

	for (unsigned i = 0; i < s->nr_wanted; i++) {
		const struct serve_region *w = &s->wanted[i];

		if (w->path || w->region)
			continue;
		if (w->size_bytes > UINT64_MAX - total)
			return weft_error_set(err, ENOMEM,
				"the regions' sizes add up to more than 16 EiB");
		total += w->size_bytes;
		nr++;
	}
	if (s->overcommit || nr < 2 || weft_available("", s->hugepage_bytes, -1, &available) < 0 ||
		total <= available.bytes)
		return 0;
	return weft_error_set(err, ENOMEM,
		"%s wanted for %u regions, but only %s can be had (%s); lend less, or "
		"insist with --overcommit",
		weft_format_size(total, want_text, sizeof(want_text)), nr,
		weft_format_size(available.bytes, have_text, sizeof(have_text)), available.limit);
}

void serve_remove_sockets(const struct serve *s)
{
	for (unsigned i = 0; i < s->nr_listening; i++)
		if (*s->listening[i].socket == '/' && !s->listening[i].passed)
			unlink(s->listening[i].socket);
}

struct progress {
	const struct serve *s;
	const char *name;
	bool tty;
	uint64_t last_ns;
};

static void show_progress(void *ctx, uint64_t done, uint64_t total)
{
	struct progress *p = ctx;
	uint64_t now_ns = weft_now_ns();
	char done_text[32], total_text[32], bar[31];
	sigset_t pending;

	/* A signal ends the start now, not after a terabyte was taken. */
	if (sigpending(&pending) == 0 &&
		(sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT))) {
		serve_remove_sockets(p->s);
		_exit(1);
	}
	if (done < total && now_ns - p->last_ns < (p->tty ? 100000000u : 5000000000u))
		return;
	if (!p->tty && done == total)
		return;
	p->last_ns = now_ns;
	weft_format_size(done, done_text, sizeof(done_text));
	weft_format_size(total, total_text, sizeof(total_text));
	if (!p->tty) {
		weft_info("region '%s': %s of %s taken", p->name, done_text, total_text);
		return;
	}
	size_t full = (size_t)((double)done / (double)total * (double)(sizeof(bar) - 1));
	memset(bar, ' ', sizeof(bar) - 1);
	memset(bar, '#', full);
	bar[sizeof(bar) - 1] = '\0';
	fprintf(stderr, "\r%s [%s] %s of %s \033[K%s", p->name, bar, done_text, total_text,
		done == total ? "\r\033[K" : "");
}

static int take_memory(const struct serve *s, struct serve_region *w, struct weft_error *err)
{
	struct weft_memory_spec spec = {
		.name = w->name,
		.size_bytes = w->size_bytes,
		.hugepage_bytes = s->hugepage_bytes,
		.numa = s->numa,
		.numa_node = s->numa_node,
		.read_only = s->read_only,
		.overcommit = s->overcommit,
	};
	struct progress progress = {s, w->name, isatty(STDERR_FILENO), weft_now_ns()};
	char asked[32], got[32];

	sd_notifyf(0, "STATUS=taking memory for region '%s'", w->name);
	int r = weft_region_new_memory(&spec, show_progress, &progress, &w->region, err);
	if (r == 0 && w->region->size_bytes != w->size_bytes)
		weft_info("region '%s' has %s rather than %s: memory comes in whole pages", w->name,
			weft_format_size(w->region->size_bytes, got, sizeof(got)),
			weft_format_size(w->size_bytes, asked, sizeof(asked)));
	return r;
}

static int show_reading(void *ctx, uint64_t done, uint64_t total)
{
	show_progress(ctx, done, total);
	return 0;
}

static int read_backend(const struct serve *s, struct serve_region *w, struct weft_error *err)
{
	struct progress progress = {s, w->name, isatty(STDERR_FILENO), weft_now_ns()};

	sd_notifyf(0, "STATUS=reading the backend of region '%s'", w->name);
	return serve_open_backend(s, w, show_reading, &progress, err);
}

/* ---- what outlives us ---- */

static void on_holder(struct weft_watch *watch, uint32_t events);

static bool lends_memory(const struct serve *s)
{
	if (s->take_bytes)
		return true;
	for (unsigned i = 0; i < s->nr_wanted; i++)
		if (!s->wanted[i].path)
			return true;
	return false;
}

static void retry_holder(struct serve *s, const char *why)
{
	s->holder_wait_s =
		s->holder_wait_s ? (unsigned)weft_min(2 * s->holder_wait_s, HOLDER_WAIT_MAX_S) : 1;
	weft_warn("a crash of this program would lose its memory now: %s; starting another holder "
		  "in %u s",
		why, s->holder_wait_s);
	weft_loop_timer_set(s->loop, &s->holder_retry, s->holder_wait_s * UINT64_C(1000000000));
}

/* Starts a holder, and watches it; tries again later if that fails. */
static void start_holder(struct serve *s)
{
	struct weft_error err;
	char places[WEFT_PLACES_MAX];

	s->holder_start_ns = weft_now_ns();
	if (weft_holder_start(weft_listening_places(serve_main_listening(s), places), s->keep_s,
		    &s->holder, &err) < 0) {
		retry_holder(s, err.message);
		return;
	}
	s->holder_watch.fd = weft_holder_fd(s->holder);
	s->holder_watch.fn = on_holder;
	weft_loop_add(s->loop, &s->holder_watch, EPOLLIN);
}

void serve_hold(struct serve *s, struct serve_region *w)
{
	struct weft_error err;

	if (!s->holder || !w->region || !w->region->header)
		return;
	if (weft_holder_hold(s->holder, w->region, &err) < 0)
		weft_warn("%s", err.message);
	else
		w->keeper = weft_holder_pid(s->holder) ? KEPT_BY_HOLDER : KEPT_BY_SYSTEMD;
}

static void on_holder_retry(struct weft_timer *timer)
{
	struct serve *s = weft_container_of(timer, struct serve, holder_retry);
	bool kept = true;

	start_holder(s);
	for (unsigned i = 0; i < s->nr_wanted && s->holder; i++) {
		struct serve_region *w = &s->wanted[i];

		serve_hold(s, w);
		kept &= w->path || w->keeper;
	}
	if (s->holder && kept)
		weft_info("memory outlives a crash of this program again: weftholder (%d) has it, "
			  "too",
			weft_holder_pid(s->holder));
}

/* The holder sends nothing: this is its end. */
static void on_holder(struct weft_watch *watch, uint32_t events)
{
	struct serve *s = weft_container_of(watch, struct serve, holder_watch);
	uint64_t lived_ns = weft_now_ns() - s->holder_start_ns;
	bool steady = lived_ns >= HOLDER_STEADY_S * UINT64_C(1000000000);

	weft_loop_remove(s->loop, watch);
	weft_holder_end(s->holder, true);
	s->holder = NULL;
	for (unsigned i = 0; i < s->nr_wanted; i++)
		if (s->wanted[i].keeper == KEPT_BY_HOLDER)
			s->wanted[i].keeper = KEPT_BY_NOBODY;
	if (steady)
		s->holder_wait_s = 0;
	retry_holder(s, "weftholder ended");
}

/* nr_stored: descriptors that systemd's store has already. */
static void find_keeper(struct serve *s, unsigned nr_stored)
{
	struct weft_supervision supervision;

	if (s->keep_s == 0 || !lends_memory(s))
		return;
	s->holder_retry.fn = on_holder_retry;
	weft_supervision_find(&supervision);
	if (supervision.store_max > 0)
		weft_holder_store(supervision.store_max -
				(unsigned)weft_min(nr_stored, supervision.store_max),
			&s->holder);
	else if (supervision.ends_children)
		weft_warn("a crash of this program loses its memory: its supervisor ends a holder "
			  "together with it, and keeps no "
			  "descriptors itself; for systemd, set FileDescriptorStoreMax=1024 and "
			  "Restart=on-failure in the unit");
	else
		start_holder(s);
}

static int recover(struct serve *s, struct serve_region *w, struct weft_leftovers *leftovers,
	struct weft_error *err)
{
	const struct weft_leftover *left = weft_leftovers_get(leftovers, w->name);
	uint64_t page = s->hugepage_bytes ? s->hugepage_bytes : weft_page_bytes();
	char size[32], how[96];

	if (!left)
		return 0;
	weft_format_size(left->size_bytes, size, sizeof(size));
	if (!left->ours) {
		weft_info("region '%s' is new: a donor on %s left another one of this name (%s), "
			  "which is kept for the next "
			  "donor there, for %u s more",
			w->name, left->place, size, left->seconds);
		return 0;
	}
	if (left->size_bytes != w->size_bytes &&
		left->size_bytes != (w->size_bytes + page - 1) / page * page) {
		if (left->stored)
			snprintf(how, sizeof(how),
				"stop its systemd unit, which empties the descriptor store");
		else
			snprintf(how, sizeof(how), "kill %d", left->holder_pid);
		return weft_error_set(err, EEXIST,
			"region '%s': a donor before this one left %s (%" PRIu64 " bytes) of "
			"contents under this name. Lend that size to have them back, or first give "
			"up all that is kept there: %s",
			w->name, size, left->size_bytes, how);
	}
	int fd = fcntl(left->fd, F_DUPFD_CLOEXEC, 3),
	    header_fd = fcntl(left->header_fd, F_DUPFD_CLOEXEC, 3);
	int r = fd < 0 || header_fd < 0
			? weft_error_set(err, EMFILE, "region '%s': no descriptors left", w->name)
			: weft_region_adopt(fd, header_fd, s->read_only, &w->region, err);
	if (r < 0) {
		weft_close_fd(fd);
		weft_close_fd(header_fd);
		return r;
	}
	w->recovered = true;
	if (left->stored)
		w->keeper = KEPT_BY_SYSTEMD; /* still */
	else
		serve_hold(s, w);
	if (w->keeper)
		weft_leftovers_done(leftovers, left);
	printf("recovered region '%s' (%s), epoch %016" PRIx64 "\n", w->name, size,
		w->region->epoch);
	return 0;
}

static bool is_wanted(const struct serve *s, const char *name)
{
	for (unsigned i = 0; i < s->nr_wanted; i++)
		if (strcmp(s->wanted[i].name, name) == 0)
			return true;
	return false;
}

/* A region that came while the donor ran is recovered like one that was named. */
static int want_back(void *ctx, const char *name, uint64_t size_bytes, const char *file)
{
	struct serve *s = ctx;

	if (is_wanted(s, name))
		return 0;
	if (s->nr_wanted == SERVE_MAX_REGIONS)
		return -EMFILE;
	char *copy = strdup(name), *path = file ? strdup(file) : NULL;
	if (!copy || (file && !path)) {
		free(copy);
		free(path);
		return -ENOMEM;
	}
	s->wanted[s->nr_wanted++] = (struct serve_region){.name = copy,
		.path = path,
		.size_bytes = size_bytes,
		.came = true};
	return 0;
}

/* Regions of the pool are named by the coordinator, and not in the command line. */
static int want_back_of_pool(struct serve *s, const struct weft_leftover *left)
{
	if (!s->pool_wish.url || !left->ours ||
		strncmp(left->name, POOL_REGION_HEAD, strlen(POOL_REGION_HEAD)) != 0)
		return 0;
	return want_back(s, left->name, left->size_bytes, NULL);
}

static int recover_all(struct serve *s, int *fds, char *const *names, int nr_fds,
	struct weft_error *err)
{
	struct weft_leftovers *leftovers;
	const struct weft_leftover *left;
	char places[SERVE_MAX_LISTEN * (WEFT_PLACES_MAX + 1)] = "";
	unsigned nr_stored = 0;
	size_t len = 0;

	for (int i = 0; i < nr_fds; i++)
		nr_stored += strncmp(names[i], WEFT_HOLDER_STORE_NAME,
				     strlen(WEFT_HOLDER_STORE_NAME)) == 0;
	for (unsigned i = 0; i < s->nr_listening; i++) {
		len += strlen(weft_listening_places(&s->listening[i], places + len));
		places[len++] = '\n';
		places[len] = '\0';
	}
	int r = weft_leftovers_find(places, fds, names, nr_fds, &leftovers);

	if (r < 0)
		return weft_error_set(err, -r,
			"cannot look for what a donor before this one left: %s", strerror(-r));
	for (unsigned i = 0; r == 0 && (left = weft_leftovers_at(leftovers, i)); i++)
		r = want_back_of_pool(s, left);
	if (r < 0)
		weft_error_set(err, -r, "the pool's regions cannot be recovered: %s", strerror(-r));
	for (unsigned i = 0; r == 0 && (left = weft_leftovers_at(leftovers, i)); i++)
		if (s->take_bytes || is_wanted(s, left->name))
			r = serve_check_notes(s, serve_main_listening(s), left, err);
	if (r < 0) {
		weft_leftovers_free(leftovers);
		return r;
	}
	find_keeper(s, nr_stored); /* after the search, which would find our own holder */
	for (unsigned i = 0; i < s->nr_wanted && r == 0; i++)
		if (!s->wanted[i].path)
			r = recover(s, &s->wanted[i], leftovers, err);
	weft_leftovers_free(leftovers);
	return r;
}

/*
 * Sets the file that keeps leases which may last longer than the contents: a file for this device,
 * or for memory at the place where this donor listens.
 */
void serve_keep_promises(const struct serve *s, const struct serve_region *w)
{
	WEFT_CLEANUP_FREE char *device = w->path ? realpath(w->path, NULL) : NULL;
	char dir[256], place[300], path[SERVE_NOTES_MAX], why[160];
	int r = weft_state_dir(dir, sizeof(dir));

	/* If the port is another each time, no earlier borrower comes back. */
	if (!w->path && serve_main_listening(s)->any_port)
		return;
	if (w->path)
		snprintf(place, sizeof(place), "%s", device ? device : w->path);
	else
		weft_listening_format(serve_main_listening(s), place);
	XXH64_hash_t key =
		XXH3_64bits_withSeed(place, strlen(place), XXH3_64bits(w->name, strlen(w->name)));
	if (r == 0 &&
		snprintf(path, sizeof(path), "%s/leases-%016" PRIx64, dir, (uint64_t)key) >=
			(int)sizeof(path))
		r = -ENAMETOOLONG;
	if (r < 0) {
		weft_warn("region '%s': who holds it cannot be kept in %s: %s; should its contents "
			  "be lost, the next donor will not know of a borrower that "
			  "is cut off and answers from what it remembers",
			w->name, dir, strerror(-r));
		return;
	}
	/* What another region of the name had promised says nothing of one that came here. */
	r = weft_region_keep_promises(w->region, path, !w->recovered && !w->came);
	if (r == -EBADMSG)
		snprintf(why, sizeof(why), "is damaged");
	else
		snprintf(why, sizeof(why), "cannot be read (%s)", strerror(-r));
	if (r < 0)
		weft_warn("region '%s': %s %s: it may have named a borrower that still answers "
			  "from what it remembers, so that nobody is granted the region "
			  "in the first %u s",
			w->name, path, why, s->lease_s);
}

/* What its moves say of a region, which was recovered or not. */
static enum weft_moves_wish ask_moves(struct serve *s, struct serve_region *w)
{
	char place[WEFT_PLACE_MAX];
	const enum weft_moves_wish wish = weft_moves_recovered(s->moves, w->name, w->region);

	if (wish == WEFT_MOVES_DROP &&
		weft_moves_look(s->moves, w->name, place) == WEFT_MOVES_AWAY)
		weft_warn("region '%s' has moved to %s, and is not lent here; move it back, or "
			  "lend another name",
			w->name, place);
	/* What came here and was not kept is not made anew. */
	return !w->region && w->came ? WEFT_MOVES_DROP : wish;
}

void serve_forget_wanted(struct serve *s, struct serve_region *w)
{
	free(w->name);
	free(w->path);
	memmove(w, w + 1, (size_t)(s->wanted + s->nr_wanted - (w + 1)) * sizeof(*w));
	s->nr_wanted--;
}

static void drop(struct serve *s, struct serve_region *w)
{
	if (w->region && w->keeper)
		weft_holder_drop(s->holder, w->region);
	if (w->region && w->path)
		weft_region_forgo(w->region);
	weft_region_put(w->region);
	serve_forget_wanted(s, w);
}

/* The path may have another file by now. */
void serve_remove_file(const struct serve_region *w)
{
	struct stat ours, there;

	if (fstat(w->region->fd, &ours) == 0 && lstat(w->path, &there) == 0 &&
		ours.st_dev == there.st_dev && ours.st_ino == there.st_ino && unlink(w->path) < 0)
		weft_warn("cannot remove %s: %s", w->path, strerror(errno));
}

/* Whoever is told to lend a file under the name of one that came here has two of them. */
static int check_path(const struct serve *s, const struct serve_region *w, struct weft_error *err)
{
	const char *came = w->came ? NULL : weft_moves_file(s->moves, w->name);
	WEFT_CLEANUP_FREE char *path = came ? realpath(w->path, NULL) : NULL;

	if (!came || (path && strcmp(path, came) == 0))
		return 0;
	return weft_error_set(err, EEXIST,
		"region '%s' came here from another donor, and is in %s, not in %s; lend what that "
		"has under another name",
		w->name, came, w->path);
}

/*
 * Opens the region's file, if it is one.  It need not be there if it came by a move, or has moved
 * away.
 */
static int open_file(struct serve *s, struct serve_region *w, struct weft_error *err)
{
	char place[WEFT_PLACE_MAX];

	if (!w->path)
		return 0;
	if (w->is_backend)
		return read_backend(s, w, err);
	int r = check_path(s, w, err);
	if (r < 0)
		return r;
	r = weft_region_open_file(AT_FDCWD, w->path, w->name, false, s->read_only && !w->came,
		&w->region, err);
	if (r == 0)
		weft_moves_opened(s->moves, w->region);
	else if ((w->came && r == -ENOENT) ||
		weft_moves_look(s->moves, w->name, place) == WEFT_MOVES_AWAY)
		r = 0;
	return r;
}

int serve_open_regions(struct serve *s, int *fds, char *const *names, int nr_fds,
	struct weft_error *err)
{
	int r = weft_moves_each(s->moves, want_back, s);

	if (r == -EMFILE)
		return weft_error_set(err, EMFILE,
			"with the regions that came from other donors there are more than %d; "
			"lend less, so that those can be recovered",
			SERVE_MAX_REGIONS);
	if (r < 0)
		return weft_error_set(err, -r, "no memory");
	r = recover_all(s, fds, names, nr_fds, err);
	if (r == 0)
		r = check_total(s, err);

	for (unsigned i = 0; i < s->nr_wanted && r == 0; i++) {
		struct serve_region *w = &s->wanted[i];

		r = open_file(s, w, err);
		if (r < 0)
			break;
		enum weft_moves_wish wish = ask_moves(s, w);

		if (wish == WEFT_MOVES_REMOVE)
			serve_remove_file(w);
		if (wish == WEFT_MOVES_DROP || wish == WEFT_MOVES_REMOVE) {
			drop(s, w);
			i--;
			continue;
		}
		if (!w->region)
			r = take_memory(s, w, err);
		if (r == 0 && (!w->path || (w->region->unmarked && !w->region->read_only)))
			serve_keep_promises(s, w);
		if (r == 0 && w->region->read_only && !s->read_only)
			weft_warn("region '%s' is read-only: %s cannot be written", w->name,
				w->path);
		w->waits = wish == WEFT_MOVES_KEEP;
		if (r == 0 && !w->waits)
			r = weft_donor_add(s->donor, w->region, err);
	}
	if (r == 0 && s->directory)
		r = weft_donor_add_directory(s->donor, s->directory, s->read_only, err);
	return r;
}

void serve_hold_all(struct serve *s)
{
	for (unsigned i = 0; i < s->nr_wanted; i++)
		if (!s->wanted[i].recovered)
			serve_hold(s, &s->wanted[i]);
}

void serve_end_holder(struct serve *s)
{
	/* After a start that failed, what was recovered stays recoverable. */
	bool keep = s->stop_signal != SIGTERM && s->stop_signal != SIGINT;

	if (s->loop) {
		weft_loop_timer_cancel(s->loop, &s->holder_retry);
		if (s->holder && weft_holder_fd(s->holder) >= 0)
			weft_loop_remove(s->loop, &s->holder_watch);
	}
	if (keep && s->stop_signal && weft_holder_pid(s->holder))
		weft_info("memory stays with weftholder (%d) for %u s", weft_holder_pid(s->holder),
			s->keep_s);
	weft_holder_end(s->holder, keep);
	s->holder = NULL;
}
