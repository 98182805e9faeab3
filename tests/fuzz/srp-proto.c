/* SPDX-License-Identifier: MIT */
/*
 * IUs of SRP: what is accepted lies inside the IU, is packed, and comes back the same.  The first
 * byte says as what the rest comes, the next two where immediate data is.
 */
#include "transports/srp/proto.c"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX = 1 << 14 };

static uint8_t sum;

/* Reads all of it, so that a sanitizer sees what is not inside. */
static void look(const uint8_t *at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum ^= at[i];
}

static void look_at_data(const struct srp_data *of)
{
	struct srp_buffer buffer;

	if (of->format == SRP_IMMEDIATE)
		look(of->immediate, of->len);
	for (unsigned i = 0; i < of->nr_list; i++)
		srp_unpack_buffer(of->list + i * SRP_BUFFER_BYTES, &buffer);
	assert(of->nr_list <= of->nr_table || of->format == SRP_DIRECT);
}

static void come_from_initiator(const uint8_t *iu, size_t len, uint16_t off)
{
	static uint8_t first[MAX], second[MAX];
	struct srp_iu got, back;

	if (srp_unpack_from_initiator(iu, len, off, &got) < 0)
		return;
	if (got.type == SRP_TSK_MGMT) {
		assert(srp_pack_task(&got.task, first) == SRP_TSK_MGMT_BYTES);
		assert(srp_unpack_from_initiator(first, SRP_TSK_MGMT_BYTES, off, &back) == 0);
		assert(srp_pack_task(&back.task, second) == SRP_TSK_MGMT_BYTES);
		assert(memcmp(first, second, SRP_TSK_MGMT_BYTES) == 0);
	}
	if (got.type != SRP_CMD)
		return;
	look(got.cmd.cdb, got.cmd.cdb_bytes);
	look_at_data(&got.cmd.out);
	look_at_data(&got.cmd.in);
	int n = srp_pack_cmd(&got.cmd, first, sizeof(first));
	assert(n > 0 && (size_t)n <= len);
	if (got.cmd.out.format == SRP_IMMEDIATE)
		return;
	assert(srp_unpack_from_initiator(first, (size_t)n, off, &back) == 0);
	assert(srp_pack_cmd(&back.cmd, second, sizeof(second)) == n);
	assert(memcmp(first, second, (size_t)n) == 0);
}

static void come_from_target(const uint8_t *iu, size_t len)
{
	static uint8_t again[MAX + SRP_RSP_DATA_BYTES];
	struct srp_iu got, back;

	if (srp_unpack_from_target(iu, len, &got) < 0)
		return;
	if (got.type == SRP_RSP) {
		look(got.rsp.sense, got.rsp.sense_bytes);
		size_t n = srp_pack_rsp(&got.rsp, again);
		assert(srp_unpack_from_target(again, n, &back) == 0);
		assert(back.rsp.tag == got.rsp.tag && back.rsp.delta == got.rsp.delta &&
			back.rsp.sense_bytes == got.rsp.sense_bytes &&
			back.rsp.in_residual == got.rsp.in_residual);
	} else {
		look(got.other.sense, got.other.sense_bytes);
		size_t n = srp_pack_short(got.type, &got.other, again);
		assert(n <= len && srp_unpack_from_target(again, n, &back) == 0);
		assert(back.other.tag == got.other.tag && back.other.delta == got.other.delta);
	}
}

static void come_as_private_data(const uint8_t *data, size_t len)
{
	uint8_t again[SRP_LOGIN_BYTES];
	struct srp_login login, back;
	struct srp_login_rsp rsp;
	struct srp_login_rej rej;

	if (srp_unpack_login(data, len, &login) == 0) {
		srp_pack_login(&login, again);
		assert(srp_unpack_login(again, sizeof(again), &back) == 0);
		assert(login.target_ext == back.target_ext && login.channels == back.channels &&
			memcmp(login.initiator, back.initiator, SRP_PORT_BYTES) == 0);
	}
	(void)srp_unpack_login_rsp(data, len, &rsp);
	(void)srp_unpack_login_rej(data, len, &rej);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 3 || size > MAX)
		return 0;
	size_t len = size - 3;
	/* Of exactly that size, so that what is read behind it is seen. */
	uint8_t *buf = malloc(len + !len);
	if (!buf)
		return 0;
	memcpy(buf, data + 3, len);
	if (data[0] % 3 == 0)
		come_from_initiator(buf, len, (uint16_t)(data[1] << 8 | data[2]));
	else if (data[0] % 3 == 1)
		come_from_target(buf, len);
	else
		come_as_private_data(buf, len);
	free(buf);
	return 0;
}
