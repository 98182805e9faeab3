/* SPDX-License-Identifier: MIT */
/* The row of the transport "srp": SCSI over RDMA. */
#include "transports/srp/driver.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>

#include "transports/rdma/device.h"
#include "transports/srp/borrower/client.h"
#include "transports/srp/doctor.h"
#include "transports/srp/donor/serve.h"
#include "transports/srp/target.h"

static const struct tp_scheme schemes[] = {
	{
		.name = "srp",
		.place = TP_AT_HOST,
		.foreign = true,
		.needs_port = true,
		.example = "srp://192.0.2.7:5555/0002c90300a0b1c0/0",
		.server = "an SRP target",
		.only = "an SRP target speaks SRP only",
		.why = "an SRP target offers nothing else",
	},
	{.name = NULL},
};

static int usable(struct weft_error *err)
{
	struct tp *tp;
	int r = tp_open(&tp_srp_ops, NULL, &tp, err);

	if (r == 0)
		tp_close(tp);
	return r;
}

static int region_line(const char *host, const char *offers, const char *region, uint64_t epoch,
	uint64_t tenure, char *buf, size_t len)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct tp_offer offer;
	struct addrinfo *found;
	char dest[80];
	bool offered = false;

	for (const char *at = offers; *at && !offered; at += strspn(at, ",")) {
		size_t n = strcspn(at, ",");
		char one[96];

		if (n < sizeof(one)) {
			memcpy(one, at, n);
			one[n] = '\0';
			offered = tp_parse_offer("srp", one, &offer);
		}
		at += n;
	}
	if (!offered)
		return -ENODEV;
	/* The kernel looks nothing up. */
	if (getaddrinfo(offer.address[0] ? offer.address : host, offer.port, &hints, &found) != 0)
		return -EADDRNOTAVAIL;
	weft_rdma_address_text(found->ai_addr, dest, sizeof(dest));
	freeaddrinfo(found);
	srp_target_command(region, epoch, tenure, dest, buf, len);
	return 0;
}

const struct tp_driver tp_srp_driver = {
	.word = "srp",
	.label = "SRP",
	.schemes = schemes,
	.ops = &tp_srp_ops,
	.shows_path = true,
	.plaintext = true,
	.usable = usable,
	.listener = &srp_listener_ops,
	.listen_options = srp_listen_options,
	.listen_settings = &srp_listen_settings,
	.region_line = region_line,
	.region_line_before = "modprobe ib_srp " SRP_INITIATOR_SETTINGS,
	.checks = srp_checks,
};
