/* SPDX-License-Identifier: MIT */
/*
 * A server's bytes up to GO: the first byte says what the handshake is for, the second is a piece's
 * length.
 */
#include "fabric/nbd/client-handshake.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	DONOR = 1,
	AT_ONCE = 2,
	TLS = 4,
	ONLY_ASK = 8,
	REMEMBERS = 16,
	VERSION0 = 32,
	SLOW = 64,
	WRITES = 128,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct nbd_talk talk;
	int r;

	if (size < 2)
		return 0;
	const uint8_t how = data[0];
	const size_t piece = data[1] ? data[1] : 2048;
	const bool donor = how & DONOR;
	const struct nbd_talk_wish wish = {
		.region = "r",
		.hello = {.anonymous = !donor,
			.generation = UINT64_C(2) << 32,
			.mode = how & WRITES ? WEFT_MODE_WRITE : WEFT_MODE_SHARED,
			.name = "t",
			.epoch = how & REMEMBERS ? 0xaa : 0,
			.version0 = how & VERSION0},
		.at_once = donor && (how & AT_ONCE),
		.tls = how & TLS,
		.only_ask = donor && (how & ONLY_ASK),
	};
	data += 2, size -= 2;
	r = nbd_talk_begin(&talk, &wish);
	while (r == 0 && size > 0) {
		const size_t n = weft_min(piece, size);

		/* What it has to send leaves, unless the server does not take it in. */
		if (!(how & SLOW))
			talk.out_sent = talk.out_len = 0;
		r = nbd_talk_take(&talk, data, n);
		assert(r == 0 || r == 1 || (r < 0 && talk.error.code == -r));
		assert(talk.nr_answers <= NBD_TALK_MAX_ANSWERS + 1);
		for (const char *p = r < 0 ? talk.error.message : ""; *p; p++)
			assert((uint8_t)*p >= 0x20 && *p != 0x7f);
		data += n, size -= n;
		if (r == 1 && talk.state == NBD_TALK_TLS) {
			nbd_talk_secured(&talk);
			r = 0;
		}
	}
	if (r == 1 && !wish.only_ask) {
		const struct tp_info *info = &talk.info;

		assert(talk.state == NBD_TALK_OVER && info->size_bytes <= INT64_MAX);
		assert(info->min_block_bytes > 0 && info->max_io_bytes >= info->min_block_bytes);
		assert(info->size_bytes % info->min_block_bytes == 0 && info->size_bytes > 0);
		assert(!wish.hello.epoch || !donor || info->epoch == wish.hello.epoch);
	}
	nbd_talk_end(&talk);
	return 0;
}
