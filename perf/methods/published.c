/* SPDX-License-Identifier: MIT */
/*
 * Figures that others published, with their conditions: for the reader, and never mixed with what
 * was measured here.  Functions without state.
 */
#include "fabric/base/util.h"
#include "perf/methods/methods.h"

static const char study[] = "F. Pojtinger, Efficient Synchronization of Linux Memory Regions over "
			    "a Network, docs/main.md of networked-linux-memsync",
		  laptop[] =
			  "one laptop (Core i7-1280P, Linux 6.3); the delay is added by software",
		  r3map[] = "README.md of pojntfx/r3map";

/* value: where it stands as a line of the plots of that name, in their unit. */
static const struct {
	const char *what, *figure;
	double rtt_ms; /* below 0: not said */
	const char *plot;
	double value;
	const char *conditions, *source;
} published[] = {
	{"userfaultfd, reads", "450 MB/s", 0, "direct", 450, laptop, study},
	{"direct mount (NBD), reads", "2.8 GB/s", 0, "direct", 2800, laptop, study},
	{"managed mount (NBD), reads", "2.4 GB/s", 0, "managed", 2400, laptop, study},
	{"userfaultfd, reads", "below 1 MB/s", 6, "direct", 1, laptop, study},
	{"direct mount, reads", "below 10 MB/s", 6, "direct", 10, laptop, study},
	{"managed mount, reads", "over 500 MB/s", 25, "managed", 500, laptop, study},
	{"direct mount, writes", "below 1 MB/s", 4, "write", 1, laptop, study},
	{"managed mount, writes (O_DIRECT, no sync)", "over 230 MB/s at every delay", -1, "write",
		230, laptop, study},
	{"first chunk, all network methods", "below 200 us", 0, "first", 0.2, laptop, study},
	{"managed mount of chunks in Redis, reads", "439 MB/s", 0, NULL, 0, laptop, study},
	{"managed mount of chunks in S3, reads", "44 MB/s", 0, NULL, 0, laptop, study},
	{"direct mount of chunks in Redis, reads", "114 MB/s", 0, NULL, 0, laptop, study},
	{"r3map, throughput", "up to 3 GB/s", -1, "managed", 3000, "a typical desktop system",
		r3map},
	{"r3map, access", "about 100 us", -1, "first", 0.1, "a typical desktop system", r3map},
	{"r3map, initialisation", "about 12 ms", -1, "ready", 12, "a typical desktop system",
		r3map},
};

json_t *methods_published(void)
{
	json_t *json = json_array();

	for (size_t i = 0; i < WEFT_ARRAY_LEN(published); i++)
		json_array_append_new(json,
			json_pack("{s:s, s:s, s:o, s:s?, s:o, s:s, s:s}", "what", published[i].what,
				"figure", published[i].figure, "rtt_ms",
				published[i].rtt_ms < 0 ? json_null()
							: json_real(published[i].rtt_ms),
				"plot", published[i].plot, "value",
				published[i].plot ? json_real(published[i].value) : json_null(),
				"conditions", published[i].conditions, "source",
				published[i].source));
	return json;
}
