/* SPDX-License-Identifier: MIT */
/*
 * What a response of a target means for its command.  Pure functions, any thread.
 */
#ifndef WEFT_TRANSPORTS_SRP_BORROWER_JUDGE_H
#define WEFT_TRANSPORTS_SRP_BORROWER_JUDGE_H

#include <stdbool.h>

#include "fabric/base/error.h"
#include "fabric/scsi/sense.h"
#include "transports/srp/proto.h"

enum srp_verdict {
	SRP_DONE,  /* it was carried out, or failed: status */
	SRP_AGAIN, /* it was not carried out: send it again */
	SRP_LATER, /* … after a while */
	/* the unit may be another one, or another's, from now on: the connection ends, with why */
	SRP_END,
};

struct srp_judgement {
	enum srp_verdict verdict;
	int status;     /* DONE: 0 or -errno */
	bool deferred;  /* a write that was answered before is lost */
	bool has_fault; /* of a CHECK CONDITION */
	struct scsi_fault fault;
	struct weft_error why; /* END, and DONE with an error; for people */
};

/*
 * begun: the unit was examined, so that a change is news.  A residual is not looked at: commands
 * differ in what they expect.
 */
void srp_judge(const struct srp_rsp *rsp, bool begun, struct srp_judgement *ret);
/*
 * The fault is a unit attention after which the unit, or what it holds, may not be what it was.  A
 * target tells that once to all channels of an initiator, by whichever asks next.
 */
bool srp_is_news(const struct scsi_fault *fault);
/* News of a start: some targets greet every new channel with it. */
bool srp_is_greeting(const struct scsi_fault *fault);

#endif
