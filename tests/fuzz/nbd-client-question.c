/* SPDX-License-Identifier: MIT */
/* A server's bytes in answer to a question: the first byte is a piece's length. */
#include "fabric/nbd/client-question.c"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct nbd_question q;
	int r;

	if (size < 1)
		return 0;
	const size_t piece = data[0] & 127 ? data[0] & 127 : 8192;
	/* … and its highest bit: the question has not left. */
	const bool slow = data[0] & 128;
	data++, size--;
	r = nbd_question_begin(&q, "{}", 2);
	q.out_sent = slow ? 0 : q.out_len;
	while (r == 0 && size > 0) {
		const size_t n = weft_min(piece, size);

		r = nbd_question_take(&q, data, n);
		data += n, size -= n;
	}
	assert(q.answer_len <= NBD_MAX_ANSWER && (!q.answer || !q.answer[q.answer_len]));
	assert(r == 0 || r == 1 || (r < 0 && q.error.code == -r));
	assert(r != 1 || q.error.code || q.answer);
	for (const char *p = q.error.code ? q.error.message : ""; *p; p++)
		assert((uint8_t)*p >= 0x20 && *p != 0x7f);
	nbd_question_end(&q);
	return 0;
}
