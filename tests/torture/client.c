/* SPDX-License-Identifier: MIT */
/* A client's operations.  See torture.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/torture/torture.h"

void client_init(struct client *c, const char *name, unsigned region)
{
	c->region = region;
	snprintf(c->name, sizeof(c->name), "%s-%s", name, region_names[region]);
	snprintf(c->path, sizeof(c->path), "%s/%s.sock", t.dir, c->name);
	snprintf(c->cache_file, sizeof(c->cache_file), "%s/%s.cache", t.dir, c->name);
	for (unsigned i = 0; i <= DEPTH; i++)
		c->ops[i].buf = aligned_alloc(HISTORY_BLOCK_BYTES, HISTORY_BLOCK_BYTES);
}

void op_answered(struct client *c, struct op *op)
{
	char why[HISTORY_WHY];

	switch (op->kind) {
	case CHANNEL_READ:
		t.nr_reads++;
		check(view_read_answered(&c->view, op->block, op->at_least, op->at, op->buf, why),
			why);
		break;
	case CHANNEL_WRITE:
		t.nr_writes++;
		check(view_write_answered(&c->view, op->block, op->mark, op->at, why), why);
		break;
	case CHANNEL_FLUSH:
		t.nr_flushes++;
		check(view_flush_answered(&c->view, &op->snapshot, why), why);
		break;
	}
}

/* A read begins anew each time that it is sent; a write stays what it was. */
void op_send(struct client *c, struct op *op)
{
	if (op->kind == CHANNEL_READ)
		op->at_least = view_read(&c->view, op->block, &op->at);
	else if (op->kind == CHANNEL_FLUSH)
		view_flush(&c->view, &op->snapshot);
	else
		op->at = ++c->view.history->now;
	op->sent = channel_submit(c->channel, (unsigned)(op - c->ops), op->kind, op->buf,
		(uint64_t)op->block * STRIDE, op->kind == CHANNEL_FLUSH ? 0 : HISTORY_BLOCK_BYTES);
	op->start_ns = weft_now_ns();
}

static bool is_block_busy(const struct client *c, unsigned block)
{
	for (unsigned i = 0; i < DEPTH; i++)
		if (c->ops[i].busy && c->ops[i].block == block)
			return true;
	return false;
}

void op_begin(struct client *c, unsigned slot)
{
	struct op *op = &c->ops[slot];

	if (slot == DEPTH) {
		op->kind = CHANNEL_FLUSH;
		op->block = 0;
	} else {
		do
			op->block = (unsigned)random_below(HISTORY_BLOCKS);
		while (is_block_busy(c, op->block));
		op->kind = random_below(2) ? CHANNEL_WRITE : CHANNEL_READ;
		if (op->kind == CHANNEL_WRITE)
			op->mark = view_write(&c->view, op->block, op->buf);
	}
	op->busy = true;
	op->sent = false;
	op_send(c, op);
}

static void client_step(struct client *c)
{
	bool broken;

	if (!c->channel)
		return;
	broken = channel_is_broken(c->channel);
	for (unsigned i = 0; i <= DEPTH; i++) {
		struct op *op = &c->ops[i];
		int outcome =
			op->busy && op->sent ? channel_outcome(c->channel, i) : CHANNEL_PENDING;

		if (outcome == CHANNEL_PENDING) {
			if (op->busy && op->sent && !c->stopped &&
				weft_now_ns() - op->start_ns > PATIENCE_S * UINT64_C(2000000000))
				end(1, "%s: an operation is not answered", c->name);
			continue;
		}
		if (outcome == CHANNEL_UNANSWERED) {
			op->sent = false;
			continue;
		}
		op->busy = false;
		if (outcome == CHANNEL_ERROR)
			c->failed = true;
		else
			op_answered(c, op);
	}
	if (broken) {
		channel_close(c->channel, false);
		c->channel = NULL;
		return;
	}
	for (unsigned i = 0; i <= DEPTH && !c->failed; i++) {
		if (c->ops[i].busy && !c->ops[i].sent)
			op_send(c, &c->ops[i]);
		if (t.traffic && !c->ops[i].busy && (i < DEPTH || random_below(64) == 0))
			op_begin(c, i);
	}
}

bool has_ops(const struct client *c)
{
	for (unsigned i = 0; i <= DEPTH; i++)
		if (c->ops[i].busy)
			return true;
	return false;
}

void pump(uint64_t ms)
{
	uint64_t end_ns = weft_now_ns() + ms * 1000000, now_ns;

	while ((now_ns = weft_now_ns()) < end_ns) {
		struct channel *channels[REGIONS];
		unsigned nr = 0;

		for (unsigned i = 0; i < REGIONS; i++)
			client_step(&t.client[i]);
		for (unsigned i = 0; i < REGIONS; i++)
			if (t.client[i].channel)
				channels[nr++] = t.client[i].channel;
		channels_run(channels, nr, (int)weft_min(5, (end_ns - now_ns) / 1000000 + 1));
	}
}

void drop_ops(struct client *c)
{
	channel_close(c->channel, true);
	c->channel = NULL;
	for (unsigned i = 0; i <= DEPTH; i++)
		c->ops[i].busy = c->ops[i].sent = false;
	c->failed = false;
}

