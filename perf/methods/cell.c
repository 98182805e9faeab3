/* SPDX-License-Identifier: MIT */
/*
 * Transports and kinds of work, and where the region of a method over a transport is.  Functions
 * without state.
 */
#include <stdio.h>
#include <string.h>

#include "perf/methods/methods.h"

const struct methods_transport methods_transports[METHODS_NR_TRANSPORTS] = {
	{"tcp", "tcp", METHODS_PLAIN, false, false},
	{"tls", "tcp", METHODS_KEYED, true, false},
	{"quic", "quic", METHODS_KEYED, true, false},
	{"rdma", "rdma", METHODS_PLAIN, false, true},
	{"srp", "srp", METHODS_SRP, false, true},
};

const char *const methods_work_names[] = {
	"read", "random_read", "write", "random_write", "fits", "exceeds", "update", "copy"};

struct methods_donor *methods_cell_donor(const struct methods_cell *cell)
{
	return cell->own ? cell->own : &cell->site->donors[cell->transport->donor];
}

const char *methods_cell_uri(const struct methods_cell *cell, bool with_transport, char *buf)
{
	const char *address = methods_cell_donor(cell)->address;

	if (cell->transport->donor == METHODS_SRP)
		snprintf(buf, 200, "srp://%s", address);
	else
		snprintf(buf, 200, "weft://%s/bench%s%s", address,
			with_transport ? "?transport=" : "",
			with_transport ? cell->transport->word : "");
	return buf;
}

const char *methods_device(const struct bench_options *o, const char *name)
{
	size_t len = strlen(name);

	for (unsigned i = 0; i < o->nr_devices; i++)
		if (strcspn(o->devices[i], "=") == len && strncmp(o->devices[i], name, len) == 0)
			return o->devices[i] + len + 1;
	return NULL;
}
