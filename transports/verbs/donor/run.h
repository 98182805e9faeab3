/* SPDX-License-Identifier: MIT */
/*
 * Private to transports/verbs/donor/: what a session's thread keeps, shared by session.c, grant.c,
 * prove.c and run.c, of which each uses those behind it only.
 *
 * Threads: the session's; verbs_session_wake() any.
 */
#ifndef WEFT_TRANSPORTS_VERBS_DONOR_RUN_H
#define WEFT_TRANSPORTS_VERBS_DONOR_RUN_H

#include "fabric/base/util.h"
#include "transports/verbs/messages.h"
#include "transports/verbs/donor/session.h"

enum {
	VERBS_RUN_NR_RECV = VERBS_REQUESTS + 2, /* REQUESTs, and a BYE behind them */
	VERBS_RUN_NR_SEND = VERBS_REQUESTS + 4,
	VERBS_RUN_LINGER_MS = 1000, /* how long a refused borrower has to read why */
	/* What a work request is for; the low bits are the buffer. */
	VERBS_RUN_WR_RECV = 0,
	VERBS_RUN_WR_SEND = 1 << 16,
};

enum verbs_run_state {
	VERBS_RUN_HELLO,   /* waits for a hello, or a start */
	VERBS_RUN_PROOF,   /* told a challenge, waits for a hello that proves the key */
	VERBS_RUN_DATA,    /* granted, waits for the data connection */
	VERBS_RUN_GRANTED, /* serves requests */
	VERBS_RUN_REFUSED, /* waits for the borrower to leave */
	VERBS_RUN_OVER,
};

/* What only the thread touches. */
struct verbs_run {
	struct verbs_session *session;
	enum verbs_run_state state;
	bool counted; /* among those with a grant */
	bool clean;   /* it said goodbye */
	bool told;    /* … and we know of all its WRITEs */
	uint64_t deadline_ns; /* 0: none */
	struct weft_peer peer;
	struct ibv_pd *pd; /* of the control connection: holds message buffers only */
	struct ibv_comp_channel *comp;
	struct ibv_cq *cq;
	struct verbs_bufs bufs;
	unsigned received[VERBS_RUN_NR_RECV], nr_received; /* buffers with messages, oldest first */
	uint32_t received_len[VERBS_RUN_NR_RECV];
	struct rdma_cm_id *data;
	struct weft_region *region; /* referenced */
	struct weft_grant *grant;
	bool staged; /* a file's contents are in memory for us */
	/* while staging: when the borrower was told last, and when the log was */
	uint64_t waited_ns, logged_ns;
	struct verbs_share *share;
	uint64_t *beat; /* a page */
	struct ibv_mr *beat_mr;
	uint64_t seen_beat;
	/* while its writes have to be said: where it does; NULL: they need not be */
	struct weft_report report;
	struct ibv_mr *said_mr;
	bool quiet; /* they need not be any more, and it was told */
	uint32_t tick_ms;
	uint32_t nr_told; /* of the share's chunks, from the first on */
	struct verbs_proof proof;
	char identity[WEFT_IDENTITY_MAX + 1]; /* that the proof would be of; "": of none */
	uint64_t life; /* … and of which of its secrets */
	struct weft_peer passed; /* … and of a pass, whose */
	int no_key;    /* -errno why there is no such key; 0: there is one */
	struct verbs_msg msg, out;
};

static inline uint64_t verbs_after_ms(uint64_t ms)
{
	return weft_now_ns() + ms * UINT64_C(1000000);
}

/* run.c */

bool verbs_run_must_end(const struct verbs_run *run);
/* Each handles what has come, without waiting; the second returns the number of completions. */
void verbs_run_take_events(struct verbs_run *run);
unsigned verbs_run_take_completions(struct verbs_run *run);
/* Sleeps until something happens, at most timeout_ms (-1: for ever).  Handles nothing. */
void verbs_run_sleep(struct verbs_run *run, int timeout_ms);
/* Sends run->out.  May wait for a buffer.  0, or -errno: the session is over. */
int verbs_run_send(struct verbs_run *run);
void verbs_run_refuse(struct verbs_run *run, uint32_t linger_ms, const struct weft_error *err);

/* prove.c */

/* run->msg is a START: a challenge, or a refusal. */
void verbs_run_challenge(struct verbs_run *run);
/*
 * run->msg is a HELLO, whose tag, if it needed one, was right: the peer is known from now on, and
 * the HELLO has its id.  0, or -EPROTO.
 */
int verbs_run_know(struct verbs_run *run);

/* At the end: the log has who named a key and did not prove it. */
void verbs_run_tell_kept_out(struct verbs_run *run);

/* grant.c */

/* run->msg is a HELLO: grants, or refuses. */
void verbs_run_grant(struct verbs_run *run);
/* run->msg is a GET_CHUNKS. */
void verbs_run_tell_chunks(struct verbs_run *run);
/* The move is over in which it has to say what it writes: once, it is told. */
void verbs_run_tell_quiet(struct verbs_run *run);
/* Nothing of the session lands any more. */
void verbs_run_end_report(struct verbs_run *run);
/* May take as long as writing all of the file. */
void verbs_run_unstage(struct verbs_run *run);

#endif
