/* SPDX-License-Identifier: MIT */
/*
 * weft doctor: what a borrower needs that has a region as a disk by its kernel's own initiator: the
 * module, an RDMA device for it, and settings that fit a donor which comes back.
 */
#include "transports/srp/doctor.h"

#include <stdio.h>
#include <stdlib.h>

#include "transports/srp/target.h"

#define PARAMETERS "/sys/module/ib_srp/parameters/"
#define KEEP_SETTINGS \
	"echo options ib_srp " SRP_INITIATOR_SETTINGS " > /etc/modprobe.d/weft-ib_srp.conf"

static bool is_loaded(void)
{
	return facts_exist("/sys/module/ib_srp");
}

static void check_initiator(struct finding *f)
{
	char ports[160];

	/* Before 4.16 it knows InfiniBand's own connection manager alone, which RoCE has not. */
	finding_module(f, "ib_srp", "/sys/module/ib_srp",
		"a donor's region as a disk without weft (weft serve --srp)", 4, 16);
	if (f->state == FINDING_WARN) {
		finding_fix_as_root(f, "modprobe ib_srp %s", SRP_INITIATOR_SETTINGS);
		return;
	}
	if (f->state != FINDING_OK)
		return;
	if (facts_names("/sys/class/infiniband_srp/srp-*", ports, sizeof(ports)))
		finding_say(f, FINDING_OK,
			"disks of donors by %s: weft list --line srp URI has the command", ports);
	else
		finding_say(f, FINDING_MISSING,
			"ib_srp is loaded, and there is no RDMA device for it: see RDMA");
}

/* Seconds, or -1: off.  False: there is no such setting. */
static bool setting(const char *name, long *ret)
{
	char path[96], line[32], *end;

	snprintf(path, sizeof(path), PARAMETERS "%s", name);
	if (!facts_line(path, "", line, sizeof(line)))
		return false;
	*ret = strtol(line, &end, 10);
	if (end == line)
		*ret = -1;
	return true;
}

static void check_settings(struct finding *f)
{
	long again, fail, forget;

	if (!is_loaded() || !setting("reconnect_delay", &again) ||
		!setting("fast_io_fail_tmo", &fail) || !setting("dev_loss_tmo", &forget)) {
		finding_say(f, FINDING_NONE, "ib_srp is not loaded");
		return;
	}
	if (again > 0 && again <= 2 && fail > again) {
		finding_say(f, FINDING_OK,
			"a disk is back %ld s after its donor; without one there are errors after "
			"%ld s",
			again, fail);
		return;
	}
	if (again <= 0)
		finding_say(f, FINDING_WARN,
			"reconnect_delay is off: a disk whose donor was started again stays away");
	else if (fail < 0)
		finding_say(f, FINDING_WARN,
			"fast_io_fail_tmo is off: without a donor, requests wait until the disk is "
			"given up");
	else if (again > 2 && fail > again)
		finding_say(f, FINDING_WARN,
			"a disk is back up to %ld s after its donor (reconnect_delay)", again);
	else
		finding_say(f, FINDING_WARN,
			"a disk has errors after %ld s without its donor (fast_io_fail_tmo), "
			"before it is tried again after %ld s (reconnect_delay)",
			fail, again);
	finding_fix_as_root(f,
		"echo 15 >" PARAMETERS "fast_io_fail_tmo; echo 1 >" PARAMETERS
		"reconnect_delay  # of the next logins");
	finding_keep(f, KEEP_SETTINGS);
}

const struct finding_check srp_checks[] = {
	{"SRP initiator", false, check_initiator},
	{"SRP settings", false, check_settings},
	{.name = NULL},
};
