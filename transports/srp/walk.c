/* SPDX-License-Identifier: MIT */
/* Descriptors, one part after another.  Invariant: at <= nr_list, and nr_read <= nr_table. */
#include "transports/srp/walk.h"

#include <errno.h>

#include "fabric/base/util.h"

static bool wraps(const struct srp_buffer *buffer)
{
	return buffer->len > 0 && buffer->addr + (buffer->len - 1) < buffer->addr;
}

int srp_walk_begin(struct srp_walk *walk, const struct srp_data *data)
{
	if (data->nr_table > SRP_TABLE_MAX || wraps(&data->table))
		return -EPROTO;
	*walk = (struct srp_walk){
		.list = data->list,
		.nr_list = data->nr_list,
		.table = data->table,
		.nr_table = data->nr_table,
		.nr_read = data->nr_table ? data->nr_list : 0,
	};
	return 0;
}

int srp_walk_next(struct srp_walk *walk, uint64_t max, struct srp_buffer *ret)
{
	struct srp_buffer buffer;

	while (walk->at < walk->nr_list) {
		srp_unpack_buffer(walk->list + (size_t)walk->at * SRP_BUFFER_BYTES, &buffer);
		if (wraps(&buffer))
			return -EPROTO;
		if (walk->used < buffer.len) {
			buffer.addr += walk->used;
			buffer.len = (uint32_t)weft_min(buffer.len - walk->used, max);
			walk->used += buffer.len;
			*ret = buffer;
			return 0;
		}
		walk->at++;
		walk->used = 0;
	}
	return walk->nr_read < walk->nr_table ? -EAGAIN : -EPROTO;
}

static uint32_t in_piece(const struct srp_walk *walk)
{
	return (uint32_t)weft_min(walk->nr_table - walk->nr_read, SRP_PIECE);
}

void srp_walk_piece(const struct srp_walk *walk, struct srp_buffer *ret)
{
	*ret = (struct srp_buffer){
		.addr = walk->table.addr + (uint64_t)walk->nr_read * SRP_BUFFER_BYTES,
		.key = walk->table.key,
		.len = in_piece(walk) * SRP_BUFFER_BYTES,
	};
}

void srp_walk_pieced(struct srp_walk *walk, const uint8_t *piece)
{
	walk->list = piece;
	walk->nr_list = in_piece(walk);
	walk->at = walk->used = 0;
	walk->nr_read += walk->nr_list;
}
