/* SPDX-License-Identifier: MIT */
/* Numbers of the machine's id. */
#include "fabric/machine/number.h"

#include <gnutls/crypto.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-id128.h>

/* Linux, include/linux/proc_ns.h: the inode of the namespace that the machine was started with. */
#define FIRST_PID_NAMESPACE 0xeffffffcU

static int is_container(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) < 0 || st.st_ino != FIRST_PID_NAMESPACE;
}

uint64_t weft_machine_number(const char *purpose)
{
	uint8_t digest[32];
	sd_id128_t app, id;
	uint64_t number;

	if (is_container() ||
		gnutls_hash_fast(GNUTLS_DIG_SHA256, purpose, strlen(purpose), digest) < 0)
		return 0;
	memcpy(app.bytes, digest, sizeof(app.bytes));
	if (sd_id128_get_machine_app_specific(app, &id) < 0)
		return 0;
	memcpy(&number, id.bytes, sizeof(number));
	return number;
}
