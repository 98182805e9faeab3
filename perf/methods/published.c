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

static const struct {
	const char *what, *figure;
	double rtt_ms, MB_s; /* below 0: not one */
	const char *conditions, *source;
} published[] = {
	{"userfaultfd, reads", "450 MB/s", 0, 450, laptop, study},
	{"direct mount (NBD), reads", "2.8 GB/s", 0, 2800, laptop, study},
	{"managed mount (NBD), reads", "2.4 GB/s", 0, 2400, laptop, study},
	{"userfaultfd, reads", "below 1 MB/s", 6, -1, laptop, study},
	{"direct mount, reads", "below 10 MB/s", 6, -1, laptop, study},
	{"managed mount, reads", "over 500 MB/s", 25, 500, laptop, study},
	{"direct mount, writes", "below 1 MB/s", 4, -1, laptop, study},
	{"managed mount, writes (O_DIRECT, no sync)", "over 230 MB/s at every delay", -1, -1,
		laptop, study},
	{"first chunk, all network methods", "below 200 us", 0, -1, laptop, study},
	{"managed mount of chunks in Redis, reads", "439 MB/s", 0, 439, laptop, study},
	{"managed mount of chunks in S3, reads", "44 MB/s", 0, 44, laptop, study},
	{"direct mount of chunks in Redis, reads", "114 MB/s", 0, 114, laptop, study},
	{"r3map, throughput", "up to 3 GB/s", -1, -1, "a typical desktop system", r3map},
	{"r3map, access", "about 100 us", -1, -1, "a typical desktop system", r3map},
	{"r3map, initialisation", "about 12 ms", -1, -1, "a typical desktop system", r3map},
};

json_t *methods_published(void)
{
	json_t *json = json_array();

	for (size_t i = 0; i < WEFT_ARRAY_LEN(published); i++)
		json_array_append_new(json,
			json_pack("{s:s, s:s, s:o, s:o, s:s, s:s}", "what", published[i].what,
				"figure", published[i].figure, "rtt_ms",
				published[i].rtt_ms < 0 ? json_null()
							: json_real(published[i].rtt_ms),
				"MB_s",
				published[i].MB_s < 0 ? json_null() : json_real(published[i].MB_s),
				"conditions", published[i].conditions, "source",
				published[i].source));
	return json;
}
