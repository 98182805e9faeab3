/* SPDX-License-Identifier: MIT */
/* weft doctor: what QUIC wants of the kernel: large buffers, and many packets a system call. */
#include "transports/quic/doctor.h"

#include <stdio.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/transport.h"
#include "transports/quic/borrower/client.h"
#include "transports/quic/socket.h"

#define LIMITS "/proc/sys/net/core/"

/* Whether this weft has QUIC; else the finding says that it has not. */
static bool is_built(struct finding *f)
{
	struct weft_error why;
	struct tp *tp;

	if (tp_open(&tp_quic_ops, NULL, &tp, &why) < 0) {
		finding_say(f, FINDING_NONE, "%s", why.message);
		return false;
	}
	tp_close(tp);
	return true;
}

/* Root's sockets may have more than the limits say. */
static void check_buffers(struct finding *f)
{
	uint64_t in, out;
	char text[2][16];

	if (!is_built(f))
		return;
	if (!facts_number(LIMITS "rmem_max", "", &in) ||
		!facts_number(LIMITS "wmem_max", "", &out)) {
		finding_say(f, FINDING_NONE, "the kernel does not say how large they may be");
		return;
	}
	weft_format_size(in, text[0], sizeof(text[0]));
	weft_format_size(out, text[1], sizeof(text[1]));
	if (in >= QUIC_SOCKET_BYTES && out >= QUIC_SOCKET_BYTES) {
		finding_say(f, FINDING_OK, "a socket may keep %s of what comes, %s of what leaves",
			text[0], text[1]);
		return;
	}
	finding_say(f, FINDING_WARN,
		"a socket may keep %s of what comes, %s of what leaves, but for root's: on fast "
		"wide networks more is lost",
		text[0], text[1]);
	finding_fix_as_root(f, "sysctl -w net.core.rmem_max=%d net.core.wmem_max=%d",
		QUIC_SOCKET_BYTES, QUIC_SOCKET_BYTES);
	finding_keep(f,
		"printf 'net.core.%%s=%d\\n' rmem_max wmem_max > /etc/sysctl.d/90-weft-quic.conf",
		QUIC_SOCKET_BYTES);
}

static void check_batches(struct finding *f)
{
	unsigned major = 0, minor = 0;
	char release[64] = "";

	if (!is_built(f))
		return;
	facts_kernel_release(release, sizeof(release));
	if (sscanf(release, "%u.%u", &major, &minor) != 2) {
		finding_say(f, FINDING_NONE, "the kernel does not say which it is");
	} else if (major >= 5) { /* UDP_SEGMENT is of 4.18, UDP_GRO of 5.0 */
		finding_say(f, FINDING_OK, "a system call sends, or receives, many packets");
	} else {
		finding_say(f, FINDING_WARN,
			"kernel %.40s takes each packet for itself through the network: QUIC costs "
			"half as much again",
			release);
		finding_fix_kernel(f, 5, 0);
	}
}

const struct finding_check quic_checks[] = {
	{.name = "QUIC buffers", .look = check_buffers},
	{.name = "QUIC packets", .look = check_batches},
	{.name = NULL},
};
