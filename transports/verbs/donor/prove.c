/* SPDX-License-Identifier: MIT */
/*
 * Who says hello: a start, and the challenge that answers it; what a hello proves.
 *
 * Threads: the session's.  Invariant: a start of a key that there is not is answered like any
 * other, by the same work, under a secret that nobody has: what comes back proves nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/key/pass.h"
#include "fabric/key/store.h"
#include "transports/verbs/messages.h"
#include "transports/verbs/donor/run.h"

/* Some secret, always: 0, or -errno why it is nobody's. */
static int get_key(struct verbs_run *run, struct weft_keys *keys, struct weft_key *ret)
{
	struct weft_key nobodys = {.secret_bytes = WEFT_SECRET_BYTES};

	weft_random(nobodys.secret, sizeof(nobodys.secret));
	int r = weft_identity_is_pass(run->identity)
		? weft_donor_take_pass(run->session->listener->donor, run->identity, ret,
			  &run->passed)
		: keys ? weft_keys_get(keys, run->identity, ret, &run->life)
		       : -ENOKEY;
	if (r < 0)
		*ret = nobodys;
	return r;
}

/* 0; a refusal of what this donor cannot do, whoever it is. */
static int check_start(const struct verbs_msg *msg, const struct weft_keys *keys,
	struct weft_error *err)
{
	if (!keys && !weft_identity_is_pass(msg->start.identity))
		return weft_error_set(err, EACCES,
			"this donor has no keys, and cannot prove that it has '%s' (`weft key new` "
			"there makes one)",
			msg->start.identity);
	if (msg->start.version != VERBS_PROOF_VERSION)
		return weft_error_set(err, EPROTONOSUPPORT,
			"the borrower proves its key by version %u, which this version of weft "
			"does not know; upgrade the donor",
			msg->start.version);
	if (msg->start.unknown)
		return weft_error_set(err, EPROTONOSUPPORT,
			"the borrower needs field %u of its start understood, which this version "
			"of weft does not know; upgrade the donor",
			msg->start.unknown);
	return 0;
}

void verbs_run_challenge(struct verbs_run *run)
{
	struct weft_keys *keys = weft_donor_keys(run->session->listener->donor);
	struct verbs_ends ends;
	struct weft_error err;
	struct weft_key key;

	if (check_start(&run->msg, keys, &err) < 0) {
		verbs_run_refuse(run, VERBS_RUN_LINGER_MS, &err);
		return;
	}
	snprintf(run->identity, sizeof(run->identity), "%s", run->msg.start.identity);
	verbs_ends_of(run->session->control, true, &ends);
	run->no_key = get_key(run, keys, &key);
	weft_debug("%s says that it has key '%s': %s", run->peer.text, run->identity,
		run->no_key ? strerror(-run->no_key) : "there is one");
	int r = verbs_proof_challenge(&run->proof, &key, &ends, &run->out);
	weft_key_wipe(&key);
	run->state = r < 0 ? VERBS_RUN_OVER : VERBS_RUN_PROOF;
	if (r == 0)
		verbs_run_send(run);
}

int verbs_run_know(struct verbs_run *run)
{
	if (!run->proof.on)
		return 0;
	bool is_pass = run->passed.certified;
	snprintf(run->peer.identity, sizeof(run->peer.identity), "%s",
		is_pass ? run->passed.identity : run->identity);
	run->peer.certified = is_pass;
	run->peer.expires = run->passed.expires;
	run->peer.life = run->life;
	run->peer.may_be_plaintext = run->session->listener->config.may_be_plaintext;
	return verbs_proof_open(&run->proof, &run->msg);
}

void verbs_run_tell_kept_out(struct verbs_run *run)
{
	struct weft_error why;

	if (!run->identity[0] || run->peer.identity[0] || atomic_load(&run->session->stopped) ||
		atomic_load(&run->session->unwanted))
		return;
	/* Whoever has another secret sees that the challenge was made with another, and leaves. */
	weft_error_set(&why, EACCES, "%s '%s' %s",
		weft_identity_is_pass(run->identity) ? "pass" : "key", run->identity,
		run->no_key == -EKEYEXPIRED ? "has expired"
			: run->no_key ? "is not, or no longer, one of this donor's"
				      : "was not proved, which one cannot whose secret is another");
	weft_donor_kept_out(run->session->listener->donor, &run->peer, &why);
}
