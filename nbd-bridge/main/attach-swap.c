/* SPDX-License-Identifier: MIT */
/*
 * An attachment that the kernel swaps to: memory waits for the bridge, so the bridge may not wait
 * for memory.  Main thread.
 */
#include "nbd-bridge/main/attach.h"

#include <errno.h>
#include <netdb.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "fabric/base/log.h"
#include "fabric/base/lookup.h"
#include "fabric/base/resident.h"
#include "fabric/base/util.h"
#include "fabric/machine/available.h"

/* The heap's reserve is for whatever is made anew when connections are. */
#define RESERVE (16 * WEFT_MIB)
/* A lane has buffers of its own, threads, and the connections' memory. */
#define RESERVE_LANE (4 * WEFT_MIB)
#define LANE (10 * WEFT_MIB)
/* The program, its libraries, and stacks. */
#define PROGRAM (36 * WEFT_MIB)

enum {
	NICE = -15,
	STATE_BYTES = 64 << 10, /* more than a state file has */
};

/* What looks after a chunk of the cache; and the smallest chunk, where it is not told. */
#define CACHE_CHUNK 256
#define CHUNK_BYTES (256 * WEFT_KIB)

static uint64_t reserve_of(const struct attach_options *o)
{
	return RESERVE + o->nr_lanes * RESERVE_LANE;
}

/* Otherwise the kernel would find out, and kill other processes for it. */
static int check_room(const struct attach_options *o, struct weft_error *err)
{
	const uint64_t chunk = o->chunk_bytes ? o->chunk_bytes : CHUNK_BYTES;
	uint64_t want = PROGRAM + reserve_of(o) + o->nr_lanes * LANE + o->cache_bytes +
		o->cache_bytes / chunk * CACHE_CHUNK;
	struct weft_available available;
	char wanted[32], have[32];

	if (weft_available("", 0, -1, &available) < 0 || want <= available.bytes)
		return 0;
	return weft_error_set(err, ENOMEM,
		"--swap locks about %s, and only %s of memory can be had (%s); take fewer "
		"--lanes%s",
		weft_format_size(want, wanted, sizeof(wanted)),
		weft_format_size(available.bytes, have, sizeof(have)), available.limit,
		o->cache_bytes ? ", or a smaller --cache" : "");
}

/* A device is no swap space without them; the user of a socket may be another machine's kernel. */
static int protect(const struct attach *a, struct weft_error *err)
{
	const struct {
		int r;
		const char *what, *else_what;
	} all[] = {
		{weft_be_io_flusher(), "become an I/O flusher",
			"freeing memory could wait for this process, which waits for memory"},
		{weft_be_spared(), "set oom_score_adj",
			"this process could be killed when memory runs out"},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(all); i++) {
		if (all[i].r == 0)
			continue;
		if (a->options.device)
			return weft_error_set(err, -all[i].r,
				"cannot %s: %s; otherwise %s; swap wants root with "
				"CAP_SYS_RESOURCE",
				all[i].what, strerror(-all[i].r), all[i].else_what);
		weft_warn("cannot %s: %s (it wants CAP_SYS_RESOURCE); %s", all[i].what,
			strerror(-all[i].r), all[i].else_what);
	}
	return 0;
}

/*
 * Whoever waits for a page waits for these threads, which need little.  Of the main thread, and
 * inherited; it is as it was where it may not be.
 *
 * The lowest real-time priority, for another reason too: a thread that sends over a socket takes
 * pages from the kernel, and when those above vm.min_free_kbytes are gone, it would wait for the
 * very pages that it is to send.  The kernel lets real-time threads take half of what is below
 * (ALLOC_MIN_RESERVE).
 */
static void come_first(const struct attach *a)
{
	const struct sched_param lowest = {.sched_priority = 1};

	if (sched_setscheduler(0, SCHED_RR, &lowest) == 0)
		return;
	if (a->options.device)
		weft_warn("cannot have a real-time priority: %s (it wants CAP_SYS_NICE); without, "
			  "sending over a socket may wait for memory for ever when there is none",
			strerror(errno));
	if (getpriority(PRIO_PROCESS, 0) > NICE && setpriority(PRIO_PROCESS, 0, NICE) < 0)
		weft_debug("cannot have nice %d: %s", NICE, strerror(errno));
}

int attach_begin_swap(struct attach *a, struct weft_error *err)
{
	if (!a->options.swap)
		return 0;
	int r = check_room(&a->options, err);
	if (r == 0)
		r = protect(a, err);
	if (r == 0)
		r = weft_resident_begin(reserve_of(&a->options), err);
	if (r < 0)
		return r;
	come_first(a);
	r = weft_log_start_thread();
	if (r < 0)
		return weft_error_set(err, -r, "cannot start the log's thread: %s", strerror(-r));
	return attach_swapped_start(a, err);
}

static void look_up(const char *host, const char *port)
{
	struct weft_lookup found;
	int r = host[0] != '/' && port ? weft_lookup(host, port, 0, &found) : 0;

	if (r != 0)
		weft_warn("the address of %s is not known: %s", host, gai_strerror(r));
}

void attach_look_up_place(const char *uri_text)
{
	struct weft_uri uri;

	if (weft_uri_parse(uri_text, &uri, NULL) < 0)
		return;
	look_up(uri.host, uri.port);
	weft_uri_fini(&uri);
}

/* So that nobody has to be asked when the attachment fails over to a way that was not used yet. */
static void look_names_up(const struct bridge_donor_config *donor)
{
	struct weft_lookup found;

	for (unsigned i = 0; i < donor->nr_ways; i++)
		look_up(donor->ways[i].host, donor->ways[i].port);
	if (donor->pass_host && donor->pass_port)
		weft_lookup(donor->pass_host, donor->pass_port, 0, &found);
}

/*
 * The state file is on a tmpfs, whose pages may be swapped out, to this very device.  As mapped
 * pages they are locked while the bridge lives, those too that the state may come to need; and
 * without a bridge nothing can be written to the device, so that the guard finds them where they
 * are.
 */
static int hold_state(struct attach *a, struct weft_error *err)
{
	if (a->held_state)
		return 0;
	int r = bridge_state_keep(&a->state);
	if (r < 0)
		return weft_error_set(err, -r, "cannot keep room in %s: %s", a->state.path,
			strerror(-r));
	void *p = mmap(NULL, STATE_BYTES, PROT_READ, MAP_SHARED, a->state.fd, 0);
	if (p == MAP_FAILED)
		return weft_error_set(err, errno, "cannot lock %s in memory: %s", a->state.path,
			strerror(errno));
	a->held_state = p;
	return 0;
}

int attach_complete_swap(struct attach *a, struct weft_error *err)
{
	if (!a->options.swap)
		return 0;
	int r = hold_state(a, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < a->options.nr_donors; i++)
		look_names_up(&bridge_attachment(a->bridge)->peers[i].config);
	return weft_resident_complete(err);
}

static void look_at_lane(struct bridge_lane *lane, void *ctx)
{
	bool *all = ctx;

	*all &= weft_is_io_flusher();
}

json_t *attach_swap_status(struct attach *a)
{
	bool flusher = weft_is_io_flusher();
	struct weft_resident_usage usage;

	if (!a->options.swap)
		return json_null();
	for (unsigned i = 0; i < bridge_nr_lanes(a->bridge); i++)
		bridge_lane_run(bridge_lane(a->bridge, i), look_at_lane, &flusher);
	weft_resident_usage(&usage);
	return json_pack("{s:I, s:I, s:I, s:i, s:b, s:I, s:I, s:I}", "locked_bytes",
		(json_int_t)usage.locked_bytes, "faults_major", (json_int_t)usage.faults_major,
		"faults_minor", (json_int_t)usage.faults_minor, "oom_score_adj",
		weft_oom_score_adj(), "io_flusher", flusher, "reserve_bytes",
		(json_int_t)usage.reserve_bytes, "reserve_free_bytes",
		(json_int_t)usage.reserve_free_bytes, "grown_bytes",
		(json_int_t)usage.grown_bytes);
}
