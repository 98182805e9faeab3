/* SPDX-License-Identifier: MIT */
/* The suite at an SRP target, with cases of SRP's own. */
#ifndef WEFT_TESTS_CONFORMANCE_SRP_CASES_H
#define WEFT_TESTS_CONFORMANCE_SRP_CASES_H

#include "tests/conformance/suite.h"

/* The target's port, as its administrator has it: all who are logged in go, and may come again. */
struct srp_port {
	void (*stop)(struct conf *conf);
	void (*start)(struct conf *conf);
};

/* All cases at a unit that can be written to. */
int srp_conf_run(const struct conf_fixture *fixture, const struct srp_port *port);
/* Those at a unit that may only be read, whose first 64 KiB are zeros. */
int srp_conf_run_read_only(const struct conf_fixture *fixture);

#endif
