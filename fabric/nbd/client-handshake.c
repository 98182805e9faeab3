/* SPDX-License-Identifier: MIT */
/* The client's handshake; see client-handshake.h. */
#include "fabric/nbd/client-handshake.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/marking.h"

#define OLDSTYLE_MAGIC UINT64_C(0x00420281861253) /* proto, "Oldstyle negotiation" */

static const char *option_name(uint32_t option)
{
	switch (option) {
	case NBD_OPT_STARTTLS:
		return "STARTTLS";
	case NBD_OPT_STRUCTURED_REPLY:
		return "STRUCTURED_REPLY";
	case NBD_OPT_LIST_META_CONTEXT:
		return "LIST_META_CONTEXT";
	case NBD_OPT_SET_META_CONTEXT:
		return "SET_META_CONTEXT";
	case NBD_OPT_INFO:
		return "INFO";
	default:
		return "GO";
	}
}

static bool was_answered(const struct nbd_talk_answer *answer)
{
	return answer->type != 0;
}

static bool is_session(const struct nbd_talk *talk)
{
	return !talk->wish.hello.anonymous;
}

/* ---- asking ---- */

static uint8_t *put(struct nbd_talk *talk, size_t n)
{
	uint8_t *p = talk->out + talk->out_len;

	assert(n <= sizeof(talk->out) - talk->out_len);
	talk->out_len += n;
	return p;
}

/* Room for an option's len bytes of data. */
static uint8_t *put_option(struct nbd_talk *talk, uint32_t option, size_t len)
{
	uint8_t *p = put(talk, NBD_OPTION_BYTES + len);

	nbd_pack_option(p, option, (uint32_t)len);
	return p + NBD_OPTION_BYTES;
}

static uint8_t *ask(struct nbd_talk *talk, uint32_t option, size_t len)
{
	assert(talk->nr_asked < NBD_TALK_MAX_ASKED);
	talk->asked[talk->nr_asked++] = option;
	return put_option(talk, option, len);
}

static uint8_t *put_string(uint8_t *p, const char *text)
{
	const size_t len = strlen(text);

	weft_put32(p, (uint32_t)len);
	memcpy(p + 4, text, len);
	return p + 4 + len;
}

static void ask_context(struct nbd_talk *talk)
{
	const uint32_t option =
		talk->wish.only_ask ? NBD_OPT_LIST_META_CONTEXT : NBD_OPT_SET_META_CONTEXT;
	char query[WEFT_CONTEXT_MAX];

	weft_hello_format(&talk->wish.hello, query);
	uint8_t *p = ask(talk, option, 4 + strlen(talk->region) + 4 + 4 + strlen(query));
	p = put_string(p, talk->region);
	weft_put32(p, 1);
	put_string(p + 4, query);
	explicit_bzero(query, sizeof(query));
	talk->context = (struct nbd_talk_answer){0};
	talk->nr_welcomes = 0;
}

/* GO, or INFO, of an export; the sizes of its blocks are asked for. */
static void ask_export(struct nbd_talk *talk, uint32_t option, const char *name)
{
	uint8_t *p = put_string(ask(talk, option, 4 + strlen(name) + 4), name);

	weft_put16(p, 1);
	weft_put16(p + 2, NBD_INFO_BLOCK_SIZE);
}

static void ask_go(struct nbd_talk *talk, bool by_session)
{
	talk->went_by_session = by_session;
	talk->go = (struct nbd_talk_answer){0};
	ask_export(talk, NBD_OPT_GO, by_session ? WEFT_EXPORT_SESSION : talk->region);
}

static void ask_first(struct nbd_talk *talk)
{
	if (talk->wish.simple) {
		ask_go(talk, false);
		return;
	}
	ask(talk, NBD_OPT_STRUCTURED_REPLY, 0);
	if (!talk->wish.at_once)
		return;
	ask_context(talk);
	/* A donor of version 0 does not know that name: it is asked when it has answered. */
	if (!talk->wish.only_ask && !talk->wish.hello.version0)
		ask_go(talk, true);
}

static void say_flags(struct nbd_talk *talk)
{
	weft_put32(put(talk, 4),
		NBD_FLAG_C_FIXED_NEWSTYLE | (talk->no_zeroes ? NBD_FLAG_C_NO_ZEROES : 0));
	if (talk->wish.tls)
		ask(talk, NBD_OPT_STARTTLS, 0);
	else if (!talk->wish.only_greet)
		ask_first(talk);
}

int nbd_talk_begin(struct nbd_talk *talk, const struct nbd_talk_wish *wish)
{
	memset(talk, 0, sizeof(*talk));
	talk->wish = *wish;
	talk->wish.region = NULL;
	if (strlen(wish->region) > NBD_MAX_STRING)
		return weft_error_set(&talk->error, ENAMETOOLONG,
			"a region's name has at most %d bytes", NBD_MAX_STRING);
	strcpy(talk->region, wish->region);
	assert(is_session(talk) ? !wish->simple && !wish->only_greet
				: !wish->at_once && !wish->only_ask);
	talk->no_zeroes = true;
	if (wish->at_once)
		say_flags(talk);
	return 0;
}

void nbd_talk_end(struct nbd_talk *talk)
{
	explicit_bzero(&talk->wish.hello, sizeof(talk->wish.hello));
	explicit_bzero(talk->out, sizeof(talk->out));
}

void nbd_talk_secured(struct nbd_talk *talk)
{
	assert(talk->state == NBD_TALK_TLS && talk->nr_asked == 0);
	talk->secured = true;
	talk->state = talk->wish.only_greet ? NBD_TALK_OVER : NBD_TALK_ANSWERS;
	if (!talk->wish.only_greet)
		ask_first(talk);
}

/* ---- what was found out ---- */

static bool names_a_place(int said)
{
	return said == WEFT_EMOVED || said == WEFT_EMOVING;
}

static int refused(struct nbd_talk *talk, uint32_t option, const struct nbd_talk_answer *answer)
{
	static const struct {
		uint32_t type;
		int code;
		const char *text;
	} errors[] = {
		{NBD_REP_ERR_UNSUP, ENOTSUP, "the server does not know it"},
		{NBD_REP_ERR_POLICY, EPERM, "the server does not allow it"},
		{NBD_REP_ERR_INVALID, EINVAL, "the server takes it for malformed"},
		{NBD_REP_ERR_PLATFORM, ENOTSUP, "the server's machine cannot do it"},
		{NBD_REP_ERR_TLS_REQD, EACCES, "the server wants TLS"},
		{NBD_REP_ERR_UNKNOWN, ENOENT, "the server has no such export"},
		{NBD_REP_ERR_SHUTDOWN, ESHUTDOWN, "the server is stopping"},
		{NBD_REP_ERR_BLOCK_SIZE_REQD, EINVAL, "the server wants its block sizes asked for"},
		{NBD_REP_ERR_TOO_BIG, EINVAL, "the server takes it for too long"},
	};
	const char *rest, *text = answer->text;
	int code = EPROTO, said = weft_refusal_parse(text, &rest);

	if (said) {
		if (names_a_place(said))
			weft_place_of(rest, talk->info.moving);
		return weft_error_set(&talk->error, said, "%s", rest);
	}
	if (option != NBD_OPT_STARTTLS && answer->type == NBD_REP_ERR_UNKNOWN)
		return weft_error_set(&talk->error, ENOENT, "there is no region '%.200s'",
			talk->region);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(errors); i++)
		if (errors[i].type == answer->type) {
			code = errors[i].code;
			text = text[0] ? text : errors[i].text;
		}
	if (!text[0])
		text = "the server does not say why";
	if (option != NBD_OPT_STARTTLS)
		return weft_error_set(&talk->error, code, "refused: %s", text);
	/* A server without TLS may call that its policy. */
	return weft_error_set(&talk->error,
		code == ENOTSUP || code == EPERM ? EPROTONOSUPPORT : code,
		"the server does not begin TLS, and nothing is said to it without: %s", text);
}

static int is_foreign(struct nbd_talk *talk)
{
	return weft_error_set(&talk->error, EPROTONOSUPPORT,
		"the server is no weft donor; a plain NBD server is used through nbd:// instead of "
		"weft://");
}

static int check_welcome(struct nbd_talk *talk)
{
	const struct weft_hello *hello = &talk->wish.hello;
	const uint64_t epoch = hello->epoch ? hello->epoch : hello->expect;

	if (epoch && epoch != talk->welcome.epoch)
		return weft_error_set(&talk->error, ESTALE,
			"region '%.100s' has another epoch: the contents known before are gone, or "
			"may have changed",
			talk->region);
	return talk->welcome.version0
		       ? weft_hello_check_version0(hello, talk->region, &talk->error)
		       : 0;
}

static bool is_power_of_two(uint32_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

int nbd_talk_sizes(struct tp_info *info, const char *region, uint64_t size_bytes, uint32_t min,
	uint32_t preferred, uint32_t max, struct weft_error *err)
{
	if (size_bytes > INT64_MAX)
		return weft_error_set(err, EPROTO, "the server names a size of 8 EiB or more");
	/* 0: not told.  proto, "Block size constraints", has the defaults. */
	if (min == 0)
		min = 1;
	if (max == 0 || max > NBD_MAX_PAYLOAD)
		max = NBD_MAX_PAYLOAD;
	if (!is_power_of_two(min) || min > 65536 || max < min)
		return weft_error_set(err, EPROTO,
			"the server names block sizes that cannot be: %u to %u bytes", min, max);
	info->min_block_bytes = min;
	info->preferred_block_bytes = (uint32_t)weft_max(min,
		preferred > 0 && preferred <= NBD_MAX_PAYLOAD ? preferred : 4096);
	info->max_io_bytes = max / min * min;
	info->size_bytes = size_bytes / min * min;
	if (info->size_bytes == 0)
		return weft_error_set(err, ENODATA, "'%.200s' is empty", region);
	return 0;
}

static int take_info(struct nbd_talk *talk)
{
	const struct weft_hello *hello = &talk->wish.hello;
	struct tp_info *info = &talk->info;
	const uint16_t flags = talk->flags & NBD_FLAG_HAS_FLAGS ? talk->flags : 0;

	if (!talk->has_export)
		return weft_error_set(&talk->error, EPROTO, "the server does not say the size");
	int r = nbd_talk_sizes(info, talk->region, talk->size_bytes, talk->min, talk->preferred,
		talk->max, &talk->error);
	if (r < 0)
		return r;
	info->read_only = (flags & NBD_FLAG_READ_ONLY) ||
			  (is_session(talk) && hello->mode != WEFT_MODE_WRITE);
	info->can_flush = flags & NBD_FLAG_SEND_FLUSH;
	info->can_fua = flags & NBD_FLAG_SEND_FUA;
	info->can_trim = flags & NBD_FLAG_SEND_TRIM;
	info->can_zero = flags & NBD_FLAG_SEND_WRITE_ZEROES;
	info->can_fast_zero = flags & NBD_FLAG_SEND_FAST_ZERO;
	info->can_cache = flags & NBD_FLAG_SEND_CACHE;
	info->can_multi_conn = flags & NBD_FLAG_CAN_MULTI_CONN;
	if (is_session(talk)) {
		info->has_epoch = true;
		info->epoch = talk->welcome.epoch;
		info->generation = hello->generation;
		info->lease_ms = talk->welcome.lease_ms;
		info->restorable = talk->welcome.restorable;
		info->version0 = talk->welcome.version0;
		info->max_hash_blocks = talk->welcome.hashes == WEFT_HASH_SCHEME ?
			WEFT_HASH_MAX_BLOCKS : 0;
		info->can_mark = talk->welcome.marks == WEFT_MARKS && info->max_hash_blocks > 0;
		snprintf(info->offers, sizeof(info->offers), "%s", talk->welcome.offers);
		snprintf(info->moving, sizeof(info->moving), "%s", talk->welcome.moving);
	}
	talk->state = NBD_TALK_OVER;
	return 1;
}

/* ---- what to ask next: nothing is in flight ---- */

static int decide_asked(struct nbd_talk *talk)
{
	talk->has_welcome = talk->nr_welcomes == 1;
	put_option(talk, NBD_OPT_ABORT, 0); /* a goodbye; nobody waits for its answer */
	talk->state = NBD_TALK_OVER;
	return 1;
}

static int decide_welcomed(struct nbd_talk *talk)
{
	int r = check_welcome(talk);

	if (r < 0)
		return r;
	if (talk->go.type == NBD_REP_ACK)
		return take_info(talk);
	/* A donor that does not know the name yet; or it has no such region any more. */
	bool again = talk->went_by_session && talk->go.type == NBD_REP_ERR_UNKNOWN;
	if (was_answered(&talk->go) && !again)
		return refused(talk, NBD_OPT_GO, &talk->go);
	ask_go(talk, false);
	return 0;
}

static int decide_session(struct nbd_talk *talk)
{
	struct weft_hello *hello = &talk->wish.hello;
	const char *rest;

	if (!was_answered(&talk->context) && talk->structured) {
		ask_context(talk);
		return 0;
	}
	if (talk->nr_welcomes > 1)
		return weft_error_set(&talk->error, EPROTO, "the server offers several grants");
	if (talk->nr_welcomes == 1)
		return talk->wish.only_ask ? decide_asked(talk) : decide_welcomed(talk);
	/* A server for which every name is an export. */
	if (talk->go.type == NBD_REP_ACK)
		return is_foreign(talk);
	/* A donor of version 0 takes no field that it does not know. */
	if (!hello->version0 && strcmp(talk->context.text, "malformed weft:session") == 0) {
		hello->version0 = true;
		ask_context(talk);
		return 0;
	}
	if (talk->wish.only_ask)
		return decide_asked(talk);
	const int said = weft_refusal_parse(talk->context.text, &rest);
	if (said == EPROTONOSUPPORT || names_a_place(said))
		return refused(talk, NBD_OPT_SET_META_CONTEXT, &talk->context);
	/* Why there is no grant. */
	if (!was_answered(&talk->inquiry)) {
		ask_export(talk, NBD_OPT_INFO, talk->region);
		return 0;
	}
	return talk->inquiry.type == NBD_REP_ACK ? is_foreign(talk)
						 : refused(talk, NBD_OPT_INFO, &talk->inquiry);
}

static int decide(struct nbd_talk *talk)
{
	if (talk->wish.tls && !talk->secured) {
		if (talk->tls.type != NBD_REP_ACK)
			return refused(talk, NBD_OPT_STARTTLS, &talk->tls);
		talk->state = NBD_TALK_TLS;
		return 1;
	}
	if (is_session(talk))
		return decide_session(talk);
	if (!was_answered(&talk->go)) {
		ask_go(talk, false);
		return 0;
	}
	return talk->go.type == NBD_REP_ACK ? take_info(talk)
					    : refused(talk, NBD_OPT_GO, &talk->go);
}

/* ---- what the server says ---- */

static int take_greeting(struct nbd_talk *talk)
{
	const uint64_t magic = weft_get64(talk->in), style = weft_get64(talk->in + 8);
	const uint16_t flags = weft_get16(talk->in + 16);

	if (magic != NBD_MAGIC || (style != NBD_OPTS_MAGIC && style != OLDSTYLE_MAGIC))
		return weft_error_set(&talk->error, EPROTO,
			"the handshake failed: this is no NBD server");
	if (style == OLDSTYLE_MAGIC || !(flags & NBD_FLAG_FIXED_NEWSTYLE) ||
		(is_session(talk) && !(flags & NBD_FLAG_NO_ZEROES)))
		return weft_error_set(&talk->error, EPROTONOSUPPORT, "%s",
			is_session(talk)
				? "the server is no weft donor (it does not negotiate as one)"
				: "the server is too old: it does not negotiate options");
	talk->state = NBD_TALK_ANSWERS;
	if (!talk->wish.at_once) {
		talk->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
		say_flags(talk);
	}
	if (!talk->wish.only_greet || talk->wish.tls)
		return 0;
	talk->state = NBD_TALK_OVER;
	return 1;
}

static int malformed(struct nbd_talk *talk, const char *what)
{
	return weft_error_set(&talk->error, EPROTO, "the handshake failed: %s", what);
}

static int take_context(struct nbd_talk *talk, const uint8_t *data, uint32_t len)
{
	struct weft_welcome welcome;

	if (len < 4)
		return malformed(talk, "the server sent a context without a name");
	/* What is no welcome was not asked for, and means nothing. */
	if (weft_welcome_parse((const char *)data + 4, len - 4, &welcome) == 0) {
		talk->welcome = welcome;
		talk->nr_welcomes++;
	}
	return 0;
}

/* proto, NBD_REP_INFO */
static int take_export_info(struct nbd_talk *talk, const uint8_t *data, uint32_t len)
{
	if (len < 2)
		return malformed(talk, "the server sent an information without a type");
	switch (weft_get16(data)) {
	case NBD_INFO_EXPORT:
		if (len != 12 || talk->has_export)
			return malformed(talk, "the server says the size twice, or wrongly");
		talk->has_export = true;
		talk->size_bytes = weft_get64(data + 2);
		talk->flags = weft_get16(data + 10);
		return 0;
	case NBD_INFO_BLOCK_SIZE:
		if (len != 14 || talk->has_sizes)
			return malformed(talk,
				"the server says its block sizes twice, or wrongly");
		talk->has_sizes = true;
		talk->min = weft_get32(data + 2);
		talk->preferred = weft_get32(data + 6);
		talk->max = weft_get32(data + 10);
		if (talk->min == 0 || talk->max == 0)
			return malformed(talk, "the server names a block size of 0");
		return 0;
	default:
		return 0;
	}
}

static struct nbd_talk_answer *answer_to(struct nbd_talk *talk, uint32_t option)
{
	switch (option) {
	case NBD_OPT_STARTTLS:
		return &talk->tls;
	case NBD_OPT_STRUCTURED_REPLY:
		return &talk->structured_reply;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return &talk->context;
	case NBD_OPT_INFO:
		return &talk->inquiry;
	default:
		return &talk->go;
	}
}

/* The option is answered: an acknowledgement, or an error with a text for people. */
static int take_end(struct nbd_talk *talk, uint32_t option, uint32_t type, const uint8_t *data,
	uint32_t len)
{
	struct nbd_talk_answer *answer = answer_to(talk, option);
	const size_t n = weft_min(len, sizeof(answer->text) - 1);

	if (type == NBD_REP_ACK && len > 0)
		return malformed(talk, "the server sent an acknowledgement with data");
	answer->type = type;
	for (size_t i = 0; i < n; i++)
		answer->text[i] = data[i] ? (char)data[i] : '?';
	answer->text[n] = '\0';
	weft_printable(answer->text);
	if (option == NBD_OPT_STRUCTURED_REPLY)
		talk->structured = type == NBD_REP_ACK;
	/* What an export was said to be counts for nothing if it was not opened. */
	if ((option == NBD_OPT_GO || option == NBD_OPT_INFO) && type != NBD_REP_ACK)
		talk->has_export = talk->has_sizes = false;
	memmove(talk->asked, talk->asked + 1, --talk->nr_asked * sizeof(talk->asked[0]));
	if (talk->nr_asked > 0)
		return 0;
	if (talk->out_len > 0)
		return malformed(talk, "the server answers what has not left yet");
	return decide(talk);
}

static int take_answer(struct nbd_talk *talk)
{
	const uint32_t option = weft_get32(talk->in + 8), type = weft_get32(talk->in + 12);
	const uint32_t len = weft_get32(talk->in + 16);
	const uint8_t *data = talk->in + NBD_OPTION_REPLY_BYTES;
	const bool of_export = option == NBD_OPT_GO || option == NBD_OPT_INFO;
	const bool of_context =
		option == NBD_OPT_SET_META_CONTEXT || option == NBD_OPT_LIST_META_CONTEXT;

	weft_debug("%s: answer %#" PRIx32 ", %" PRIu32 " bytes", option_name(option), type, len);
	if (++talk->nr_answers > NBD_TALK_MAX_ANSWERS)
		return malformed(talk, "the server does not come to an end");
	if (type == NBD_REP_ACK || type & NBD_REP_FLAG_ERROR)
		return take_end(talk, option, type, data, len);
	if (type == NBD_REP_META_CONTEXT && of_context)
		return take_context(talk, data, len);
	if (type == NBD_REP_INFO && of_export)
		return take_export_info(talk, data, len);
	return malformed(talk, "the server answers what was not asked");
}

/* How many bytes of what is at hand are wanted before it is looked at; -errno: it cannot be. */
static ssize_t wanted(struct nbd_talk *talk)
{
	if (talk->state == NBD_TALK_GREETING)
		return NBD_HANDSHAKE_BYTES;
	if (talk->in_len < NBD_OPTION_REPLY_BYTES)
		return NBD_OPTION_REPLY_BYTES;
	const uint32_t len = weft_get32(talk->in + 16);

	if (weft_get64(talk->in) != NBD_REP_MAGIC)
		return malformed(talk, "the server sent something else than an answer");
	if (weft_get32(talk->in + 8) != talk->asked[0])
		return malformed(talk, "the server answers another option than was asked");
	if (len > NBD_TALK_ANSWER_BYTES)
		return weft_error_set(&talk->error, EPROTO,
			"the handshake failed: the server's answer to %s is %" PRIu32 " bytes long",
			option_name(talk->asked[0]), len);
	return NBD_OPTION_REPLY_BYTES + (ssize_t)len;
}

/* The server has to be silent now: its next bytes are of another phase, or not its own. */
static int check_silence(struct nbd_talk *talk, size_t left)
{
	bool is_over = talk->wish.only_ask && talk->state != NBD_TALK_TLS;

	if (left == 0 || is_over)
		return 1;
	if (talk->state == NBD_TALK_TLS)
		return malformed(talk,
			"bytes came behind the answer to STARTTLS, before TLS began; somebody "
			"may have put them there");
	return malformed(talk, talk->wish.only_greet ? "bytes came behind the greeting"
						     : "bytes came behind the answer to GO");
}

int nbd_talk_take(struct nbd_talk *talk, const uint8_t *bytes, size_t n)
{
	for (;;) {
		const ssize_t want = wanted(talk);

		if (want < 0)
			return (int)want;
		const size_t part = weft_min((size_t)want - talk->in_len, n);

		memcpy(talk->in + talk->in_len, bytes, part);
		talk->in_len += part;
		bytes += part;
		n -= part;
		if (talk->in_len < (size_t)want)
			return 0;
		/* The head of an answer alone: how long is all of it? */
		const ssize_t whole = wanted(talk);
		if (whole != want)
			continue;
		int r = talk->state == NBD_TALK_GREETING ? take_greeting(talk) : take_answer(talk);
		talk->in_len = 0;
		if (r != 0)
			return r < 0 ? r : check_silence(talk, n);
	}
}

static int hung_up(struct nbd_talk *talk)
{
	return weft_error_set(&talk->error, ECONNRESET, "the server hung up during the handshake");
}

static int broken(struct nbd_talk *talk, int code)
{
	if (code == EPIPE || code == ECONNRESET)
		return hung_up(talk);
	return weft_error_set(&talk->error, code, "the connection failed during the handshake: %s",
		code == EKEYREJECTED ? "the server does not accept our certificate"
				     : strerror(code));
}

/* 0, or -errno. */
static int send_some(struct nbd_talk *talk, struct nbd_stream *stream)
{
	while (talk->out_sent < talk->out_len) {
		struct iovec iov = {talk->out + talk->out_sent, talk->out_len - talk->out_sent};
		ssize_t n = nbd_stream_write(stream, &iov, 1);

		if (n == -EAGAIN)
			return 0;
		if (n < 0 && n != -EINTR)
			return (int)n;
		talk->out_sent += n > 0 ? (size_t)n : 0;
	}
	talk->out_sent = talk->out_len = 0;
	return 0;
}

int nbd_talk_move(struct nbd_talk *talk, struct nbd_stream *stream, short *ret_events)
{
	uint8_t bytes[2048];

	for (;;) {
		int sent = send_some(talk, stream);
		struct iovec iov = {bytes, sizeof(bytes)};
		ssize_t n = nbd_stream_read(stream, &iov, 1, false);

		/* What it said before it hung up tells more. */
		if (n > 0) {
			int r = nbd_talk_take(talk, bytes, (size_t)n);

			if (r > 0)
				send_some(talk, stream); /* a goodbye */
			if (r != 0)
				return r;
			continue;
		}
		if (sent < 0)
			return broken(talk, -sent);
		if (n == 0)
			return hung_up(talk);
		if (n == -EINTR)
			continue;
		if (n != -EAGAIN)
			return broken(talk, (int)-n);
		*ret_events = POLLIN | (talk->out_len > 0 ? POLLOUT : 0);
		return 0;
	}
}
