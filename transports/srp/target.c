/* SPDX-License-Identifier: MIT */
/* Names of targets.  The hashes are what initiators keep: they never change. */
#include "transports/srp/target.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

uint64_t srp_target_guid(const char *region)
{
	return XXH3_64bits(region, strlen(region));
}

uint64_t srp_target_ext(uint64_t epoch, uint64_t tenure)
{
	const uint64_t life[2] = {htobe64(epoch), htobe64(tenure)};

	return XXH3_64bits(life, sizeof(life));
}

void srp_target_line(const char *region, uint64_t epoch, uint64_t tenure, const char *dest,
	char *buf, size_t len)
{
	snprintf(buf, len, "id_ext=%016" PRIx64 ",ioc_guid=%016" PRIx64 ",dest=%s",
		srp_target_ext(epoch, tenure), srp_target_guid(region), dest);
}

void srp_target_command(const char *region, uint64_t epoch, uint64_t tenure, const char *dest,
	char *buf, size_t len)
{
	char line[SRP_LINE_MAX];

	srp_target_line(region, epoch, tenure, dest, line, sizeof(line));
	snprintf(buf, len, "echo %s >/sys/class/infiniband_srp/srp-DEVICE-PORT/add_target", line);
}
