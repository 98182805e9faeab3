/* SPDX-License-Identifier: MIT */
/*
 * What an SRP target may answer: to the borrower's commands, and to its examination of a unit.  The
 * first byte says which.  Each operation comes back exactly once, and none without its response
 * while the channel lives.
 */
#include <errno.h>

#include "tests/support/srp-stub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NR_OPS = 6 };

static struct tp_op ops[NR_OPS];
static bool posted[NR_OPS];

static void take(struct stub *s)
{
	struct tp_op *done[4];
	int n;

	do {
		n = tp_progress(&s->conn.conn, done, 4);
		for (int i = 0; i < n; i++) {
			size_t k = (size_t)(done[i] - ops);

			assert(k < NR_OPS && posted[k]);
			posted[k] = false;
		}
	} while (n > 0);
}

static void post(struct stub *s, uint8_t what)
{
	unsigned k = what % NR_OPS;
	struct tp_op *op = &ops[k];

	if (posted[k])
		return;
	*op = (struct tp_op){.kind = what / NR_OPS % TP_NR_KINDS,
		.flags = what & 0x80 ? TP_FUA : 0,
		.off = 4096,
		.len = 300 * 512,
		.buf = s->buf,
		.mem = &s->mem};
	if (op->kind == TP_FLUSH || op->kind == TP_PROBE) {
		op->off = op->len = 0;
		op->flags = 0;
	}
	if (op->kind == TP_READ)
		op->flags = 0;
	posted[k] = tp_post(&s->conn.conn, &op, 1) == 1;
}

/* A command's tag in place of the response's, so that the rest of it is looked at. */
static void receive(struct stub *s, const uint8_t *data, size_t len, uint8_t slot)
{
	uint8_t iu[SRP_RECV_BYTES];

	memcpy(iu, data, len);
	if (slot <= STUB_DEPTH && len >= 16 && s->conn.slots[slot].tag) {
		uint64_t tag = htobe64(s->conn.slots[slot].tag);

		memcpy(iu + 8, &tag, sizeof(tag));
	}
	stub_receive(s, iu, (uint32_t)len);
	take(s);
}

static void talk(const uint8_t *data, size_t size)
{
	static const struct srp_unit unit = {.size_bytes = STUB_BLOCKS * 512,
		.block_bytes = 512,
		.write_cache = true,
		.can_unmap = true,
		.can_same = true,
		.max_transfer = 2048,
		.max_unmap = 100,
		.max_same = 100};
	struct stub *s = stub_new(5, &unit);

	memset(posted, 0, sizeof(posted));
	while (size >= 3 && s->conn.conn.state == TP_READY) {
		size_t len = data[2] < size - 3 ? data[2] : size - 3;

		post(s, data[0]);
		if (len > 0)
			receive(s, data + 3, len, data[1]);
		data += 3 + len;
		size -= 3 + len;
	}
	tp_shutdown(&s->conn.conn);
	atomic_store(&s->conn.qp_gone, true);
	take(s);
	for (unsigned i = 0; i < NR_OPS; i++)
		assert(!posted[i]);
	stub_free(s);
}

static void examine(const uint8_t *data, size_t size)
{
	struct srp_exam exam;
	struct scsi_cdb cdb;
	uint32_t bytes;

	srp_exam_begin(&exam, true);
	while (size >= 3 && srp_exam_next(&exam, &cdb, &bytes)) {
		struct srp_judgement j = {.verdict = SRP_DONE, .status = data[0] & 1 ? -EIO : 0};
		size_t len = (size_t)(data[1] << 8 | data[2]) % (SRP_UNIT_DATA_BYTES + 1);
		struct weft_error err;

		len = weft_min(weft_min(len, bytes), size - 3);
		uint8_t *exact = malloc(len ? len : 1);
		memcpy(exact, data + 3, len);
		int r = srp_exam_answer(&exam, &j, exact, len, &err);
		free(exact);
		if (r < 0)
			return;
		data += 3 + len;
		size -= 3 + len;
	}
	if (exam.step != SRP_EXAM_END)
		return;
	assert(exam.unit.block_bytes >= 512 && exam.unit.block_bytes <= SRP_UNIT_DATA_BYTES);
	assert(exam.unit.size_bytes > 0 && exam.unit.size_bytes % exam.unit.block_bytes == 0);
	assert(exam.unit.max_transfer > 0 && exam.unit.max_same > 0);
	assert(!exam.unit.can_unmap || exam.unit.max_unmap > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	if (data[0] & 1)
		examine(data + 1, size - 1);
	else
		talk(data + 1, size - 1);
	return 0;
}
