/* SPDX-License-Identifier: MIT */
/*
 * Which hosts may have regions over SRP, and by what they are known: identifiers of their initiator
 * ports, GUIDs, addresses.  Initiators say their identifiers themselves: that tells hosts apart,
 * and proves nothing.
 *
 * Threads: parsed before anything else runs; then constant.
 */
#ifndef WEFT_TRANSPORTS_SRP_DONOR_HOSTS_H
#define WEFT_TRANSPORTS_SRP_DONOR_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "fabric/key/rights.h"
#include "transports/srp/proto.h"

enum { SRP_HOST_NAME_MAX = 40, SRP_HOST_IDS_MAX = 16, SRP_HOSTS_MAX = 256 };

struct srp_host {
	char name[SRP_HOST_NAME_MAX + 1]; /* [A-Za-z0-9._-] */
	bool read_only;
	unsigned nr_ids;
	struct srp_host_id {
		enum { SRP_ID_PORT, SRP_ID_GUID, SRP_ID_ADDRESS } kind;
		uint8_t port[SRP_PORT_BYTES]; /* GUID: the second half */
		struct weft_range range;
	} ids[SRP_HOST_IDS_MAX];
};

struct srp_hosts {
	struct srp_host host[SRP_HOSTS_MAX];
	unsigned nr;
};

/*
 * "NAME=ID[,ID]…[,ro]" becomes one more host.  ID: 32 hex digits of an initiator port, with colons
 * or without; 16 of a GUID; an address, or a range of them.  0, or -EINVAL, -E2BIG.
 */
int srp_hosts_parse(struct srp_hosts *hosts, const char *text);
/* The host that has one of these, or NULL. */
const struct srp_host *srp_hosts_find(const struct srp_hosts *hosts,
	const uint8_t initiator[SRP_PORT_BYTES], const struct sockaddr *address);

#endif
