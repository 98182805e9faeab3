/* SPDX-License-Identifier: MIT */
/*
 * Reads an NBD export again and again until that fails: when it did, in seconds of the epoch.
 *
 *     read-until-cut URI
 *
 * "reads" comes first, once a read was answered.
 */
#include <libnbd.h>
#include <stdio.h>
#include <time.h>

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct nbd_handle *nbd = nbd_create();
	char block[4096];

	if (argc != 2 || !nbd || nbd_set_uri_allow_local_file(nbd, true) < 0 ||
		nbd_connect_uri(nbd, argv[1]) < 0 ||
		nbd_pread(nbd, block, sizeof(block), 0, 0) < 0) {
		fprintf(stderr, "read-until-cut: %s\n", nbd_get_error());
		return 1;
	}
	puts("reads");
	fflush(stdout);
	while (nbd_pread(nbd, block, sizeof(block), 0, 0) == 0)
		;
	printf("%.6f\n", now_s());
	nbd_close(nbd);
	return 0;
}
