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

/*
 * The offer of the address that the host's name is, or else the first; a donor on many networks
 * offers an address of each.  False: none is of SRP.
 */
static bool best_offer(const char *offers, const char *address, struct tp_offer *ret)
{
	bool found = false;

	for (const char *at = offers; *at; at += strspn(at, ",")) {
		size_t n = strcspn(at, ",");
		struct tp_offer offer;
		char one[96];

		if (n < sizeof(one)) {
			memcpy(one, at, n);
			one[n] = '\0';
			if (tp_parse_offer("srp", one, &offer) &&
				(!found || strcmp(offer.address, address) == 0)) {
				*ret = offer;
				found = true;
			}
		}
		at += n;
	}
	return found;
}

/* The kernel looks nothing up.  0, or -EADDRNOTAVAIL. */
static int look_up(const char *host, const char *port, char *ret_address, size_t address_len,
	char *ret_dest, size_t dest_len)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found;

	if (getaddrinfo(host, port, &hints, &found) != 0)
		return -EADDRNOTAVAIL;
	int r = getnameinfo(found->ai_addr, found->ai_addrlen, ret_address,
			(socklen_t)address_len, NULL, 0, NI_NUMERICHOST) != 0 ? -EADDRNOTAVAIL : 0;
	weft_rdma_address_text(found->ai_addr, ret_dest, dest_len);
	freeaddrinfo(found);
	return r;
}

static int region_line(const char *host, const char *offers, const char *region, uint64_t epoch,
	uint64_t tenure, char *buf, size_t len)
{
	char address[NI_MAXHOST] = "", dest[80];
	struct tp_offer offer;

	/* Whoever cannot be looked up may still have offered an address. */
	(void)look_up(host, "0", address, sizeof(address), dest, sizeof(dest));
	if (!best_offer(offers, address, &offer))
		return -ENODEV;
	int r = look_up(offer.address[0] ? offer.address : host, offer.port, address,
		sizeof(address), dest, sizeof(dest));
	if (r == 0)
		srp_target_command(region, epoch, tenure, dest, buf, len);
	return r;
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
