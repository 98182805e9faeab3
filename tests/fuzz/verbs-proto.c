/* SPDX-License-Identifier: MIT */
/*
 * Messages and private data of the verbs transport: what is accepted is packed, and comes back the
 * same.  The first byte says as what the rest comes.
 */
#include "transports/verbs/proof.c"
#include "transports/verbs/proto-pack.c"
#include "transports/verbs/proto-unpack.c"
#include "transports/verbs/proto.c"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct weft_key key = {.identity = "box", .secret_bytes = 16};
static const struct verbs_ends ends;

/* Fields that are not known are left out: so it is packed twice. */
static void pack_again(struct verbs_msg *msg)
{
	uint8_t first[VERBS_MSG_MAX], second[VERBS_MSG_MAX];
	struct verbs_msg back;

	if (msg->type == VERBS_REFUSE)
		msg->refuse.version0 = false;
	if (msg->type == VERBS_GRANT)
		msg->grant.version0 = false;
	size_t len = verbs_pack(msg, first);
	assert(len <= VERBS_MSG_MAX - VERBS_TAG_BYTES);
	assert(verbs_unpack(first, len, &back) == 0);
	if (back.type == VERBS_REFUSE)
		back.refuse.version0 = false;
	if (back.type == VERBS_GRANT)
		back.grant.version0 = false;
	assert(verbs_pack(&back, second) == len && memcmp(first, second, len) == 0);
}

/* As a donor gets it: behind a start, with a tag that is right. */
static void come_proved(uint8_t *buf, size_t len)
{
	struct verbs_proof borrower = {0}, donor = {0};
	struct verbs_msg msg, challenge;
	uint8_t sent[VERBS_MSG_MAX];

	verbs_proof_start(&borrower, &key, &msg);
	assert(verbs_proof_unpack(&donor, borrower.start, borrower.start_len, &msg) == 0);
	assert(verbs_proof_challenge(&donor, &key, &ends, &challenge) == 0);
	int r = verbs_proof_mark(&donor, sent, verbs_pack(&challenge, sent));
	assert(verbs_proof_answered(&borrower, &key, &ends, sent, (size_t)r, &msg) == 0);
	struct verbs_private wants = {.session = borrower.session, .counter = len};
	assert(verbs_proof_request(&borrower.keys, sent, &wants) == 0);
	assert(verbs_proof_of_request(&donor.keys, sent, &wants));
	r = verbs_proof_mark(&borrower, buf, len);
	assert(r == (int)len + VERBS_TAG_BYTES);
	r = verbs_proof_unpack(&donor, buf, (size_t)r, &msg);
	assert(r != -EACCES);
	if (r == 0 && msg.type == VERBS_HELLO)
		(void)verbs_proof_open(&donor, &msg);
	if (r == 0)
		pack_again(&msg);
}

/* As a borrower gets it in answer to its start, or a donor as its first message. */
static void come_first(const uint8_t *buf, size_t len)
{
	struct verbs_proof proof = {0};
	struct verbs_msg msg, challenge;

	verbs_proof_start(&proof, &key, &msg);
	if (verbs_proof_answered(&proof, &key, &ends, buf, len, &msg) == 0)
		assert(msg.type == VERBS_REFUSE && !proof.on);
	proof = (struct verbs_proof){0};
	if (verbs_proof_unpack(&proof, buf, len, &msg) < 0)
		return;
	pack_again(&msg);
	if (msg.type == VERBS_START)
		assert(verbs_proof_challenge(&proof, &key, &ends, &challenge) == 0 && proof.on);
}

static void come_as_private_data(const uint8_t *buf, size_t len)
{
	uint8_t again[VERBS_PROVED_BYTES];
	struct verbs_private wants, back;
	int error;

	if (verbs_unpack_private(buf, len, &wants) == 0) {
		if (wants.purpose == VERBS_PROVED)
			verbs_pack_proved(&wants, again);
		else
			verbs_pack_private(wants.purpose, wants.token, again);
		assert(verbs_unpack_private(again, sizeof(again), &back) == 0);
		assert(wants.purpose == back.purpose && wants.session == back.session &&
			wants.counter == back.counter);
		assert(memcmp(wants.token, back.token, sizeof(wants.token)) == 0 &&
			memcmp(wants.mac, back.mac, sizeof(wants.mac)) == 0);
	}
	if (verbs_unpack_reject(buf, len, &error) == 0)
		assert(error < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Of exactly that size, so that what is read behind it is seen. */
	uint8_t *buf = NULL;

	if (size == 0 || size > VERBS_MSG_MAX)
		return 0;
	size_t len = size - 1;
	bool proved = data[0] % 4 == 2 && len <= VERBS_MSG_MAX - VERBS_TAG_BYTES;
	buf = malloc(len + (proved ? VERBS_TAG_BYTES : 0) + 1);
	if (!buf)
		return 0;
	memcpy(buf, data + 1, len);
	if (proved)
		come_proved(buf, len);
	else if (data[0] % 4 == 1)
		come_as_private_data(buf, len);
	else
		come_first(buf, len);
	free(buf);
	return 0;
}
