/* SPDX-License-Identifier: MIT */
/*
 * The borrower's side of the verbs transport: who we are, and what is believed of the donor.
 *
 * Runs on the lane's thread; nothing waits.  Invariant: with a key nothing is said but its name
 * before the donor has proved that it has it, and nothing that the donor says counts before.
 */
#include "transports/verbs/borrower/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/key/pass.h"

static int send_hello(struct verbs_conn *conn)
{
	struct verbs_msg hello = {.type = VERBS_HELLO};

	conn->phase = VERBS_PHASE_GRANT;
	hello.hello.hello = conn->hello;
	hello.hello.reports = conn->hello.mode == WEFT_MODE_WRITE;
	snprintf(hello.hello.region, sizeof(hello.hello.region), "%s", conn->region);
	int r = conn->keyed ? verbs_proof_seal(&conn->proof, &hello) : 0;
	return r < 0 ? r : verbs_send(conn, &hello);
}

int verbs_say_hello(struct verbs_conn *conn)
{
	struct verbs_msg start;

	if (!conn->keyed)
		return send_hello(conn);
	conn->phase = VERBS_PHASE_CHALLENGE;
	verbs_proof_start(&conn->proof, &conn->key, &start);
	return verbs_send(conn, &start);
}

void verbs_on_challenge(struct verbs_conn *conn)
{
	weft_key_wipe(&conn->key);
	int r = send_hello(conn);
	if (r < 0)
		verbs_fail(conn, -r, "cannot ask %s: %s", conn->peer, strerror(-r));
}

void verbs_on_refuse(struct verbs_conn *conn)
{
	const struct verbs_msg *msg = &conn->msg;
	int error = msg->refuse.error;

	/* Anybody could say so: it ends nothing but this connection. */
	if (conn->keyed && !conn->proof.on && error != -EBUSY && error != -ESHUTDOWN)
		error = -EACCES;
	if (error == -WEFT_EMOVED || error == -WEFT_EMOVING)
		weft_place_of(msg->refuse.text, conn->conn.info.moving);
	verbs_fail(conn, -error, "%s", msg->refuse.text);
}

int verbs_receive(struct verbs_conn *conn, const uint8_t *buf, size_t len)
{
	struct verbs_ends ends;
	int r;

	if (conn->phase == VERBS_PHASE_CHALLENGE) {
		verbs_ends_of(conn->control, false, &ends);
		r = verbs_proof_answered(&conn->proof, &conn->key, &ends, buf, len, &conn->msg);
	} else {
		r = verbs_proof_unpack(&conn->proof, buf, len, &conn->msg);
	}
	if (r == 0)
		return 0;
	if (r == -EACCES && conn->phase == VERBS_PHASE_CHALLENGE &&
		weft_identity_is_pass(conn->key.identity))
		verbs_fail(conn, EACCES,
			"%s does not prove that the certificates were shown to it: that was over "
			"10 s ago, or it is another donor than answers over TLS",
			conn->peer);
	else if (r == -EACCES && conn->phase == VERBS_PHASE_CHALLENGE)
		verbs_fail(conn, EACCES,
			"%s does not prove that it has key '%s': the secrets differ, the key was "
			"revoked or has expired there, or it is another donor (`weft key list` at "
			"the donor shows its keys)",
			conn->peer, conn->key.identity);
	else if (r == -EACCES)
		verbs_fail(conn, EACCES, "%s sent a message that does not prove the key",
			conn->peer);
	else
		verbs_fail(conn, -r, "%s sent %s", conn->peer,
			r == -EPROTO ? "a malformed message" : "a message of another version");
	return r;
}
