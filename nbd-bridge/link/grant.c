/* SPDX-License-Identifier: MIT */
/*
 * Checks donors' grants against the attachment's purpose and its promises to front-ends.  On the
 * thread of the lane that was granted something; the first grants come to one lane alone.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "fabric/base/util.h"
#include "nbd-bridge/link/peer.h"

enum {
	MODEST_IO_BYTES = 8 << 20, /* the longest message of soft-RoCE; other devices take more */
	MODEST_HASHES = 256,       /* that fit into a message over RDMA */
};

/* Promises to the front-ends must still hold after a reconnection. */
static bool keeps_promises(const struct tp_info *was, const struct tp_info *is)
{
	return is->read_only <= was->read_only && is->can_flush >= was->can_flush &&
		is->can_fua >= was->can_fua && is->can_trim >= was->can_trim &&
		is->can_zero >= was->can_zero && is->can_fast_zero >= was->can_fast_zero &&
		is->can_cache >= was->can_cache && is->can_multi_conn >= was->can_multi_conn &&
		is->flush_each_conn <= was->flush_each_conn &&
		is->max_io_bytes >= was->max_io_bytes &&
		is->min_block_bytes <= was->min_block_bytes;
}

static int other_device(const struct tp_info *is, struct weft_error *err)
{
	return weft_error_set(err, ESTALE,
		"it is another device than before (%.120s): its names, or its blocks, differ",
		is->path);
}

static int check_again(const struct bridge_peer *peer, const struct tp_info *is,
	struct weft_error *err)
{
	const struct tp_info *was = &peer->info;

	if (is->has_epoch != was->has_epoch || is->epoch != was->epoch)
		return weft_error_set(err, ESTALE,
			"the region's contents are gone: its epoch was %016" PRIx64
			" and is %016" PRIx64,
			was->epoch, is->epoch);
	if (is->size_bytes != was->size_bytes)
		return weft_error_set(err, ESTALE,
			"the region had %" PRIu64 " bytes and has %" PRIu64, was->size_bytes,
			is->size_bytes);
	if (is->identity != was->identity)
		return other_device(is, err);
	if (peer->attachment->granted && !keeps_promises(&peer->attachment->info, is))
		return weft_error_set(err, EOPNOTSUPP,
			"the server came back and can do less than before");
	return 0;
}

/*
 * Over another transport a donor may be able to do less.  So nothing is promised that one of our
 * transports lacks, and an attachment can move at any time.  FUA becomes a FLUSH, CACHE is advice.
 */
static void be_modest(struct tp_info *info)
{
	info->can_fua = info->can_fast_zero = info->can_cache = false;
	info->flush_each_conn = true;
	info->max_io_bytes = weft_min(info->max_io_bytes, MODEST_IO_BYTES);
	info->max_hash_blocks = (uint32_t)weft_min(info->max_hash_blocks, MODEST_HASHES);
}

static void add_info(struct tp_info *all, const struct tp_info *one)
{
	all->read_only |= one->read_only;
	all->can_flush &= one->can_flush;
	all->can_fua &= one->can_fua;
	all->can_trim &= one->can_trim;
	all->can_zero &= one->can_zero;
	all->can_fast_zero &= one->can_fast_zero;
	all->can_cache &= one->can_cache;
	all->can_multi_conn &= one->can_multi_conn;
	all->can_mark &= one->can_mark;
	all->one_sided &= one->one_sided;
	all->has_epoch &= one->has_epoch;
	all->flush_each_conn |= one->flush_each_conn;
	all->max_hash_blocks = (uint32_t)weft_min(all->max_hash_blocks, one->max_hash_blocks);
	all->max_io_bytes = weft_min(all->max_io_bytes, one->max_io_bytes);
	all->min_block_bytes = (uint32_t)weft_max(all->min_block_bytes, one->min_block_bytes);
	all->preferred_block_bytes =
		(uint32_t)weft_max(all->preferred_block_bytes, one->preferred_block_bytes);
	all->size_bytes = weft_min(all->size_bytes, one->size_bytes);
	all->rtt_us = (uint32_t)weft_max(all->rtt_us, one->rtt_us);
	if (one->lease_ms && (!all->lease_ms || one->lease_ms < all->lease_ms))
		all->lease_ms = one->lease_ms;
}

/* All donors have granted: puts together the info of the whole. */
static int put_together(struct bridge_attachment *attachment, struct weft_error *err)
{
	const struct bridge_peer *first = attachment->peers;

	while (!first->info.size_bytes && attachment->nr_copies > 1)
		first++;
	struct tp_info all = first->info;

	for (unsigned i = 0; i < attachment->nr_peers; i++)
		if (attachment->nr_copies <= 1 || attachment->peers[i].info.size_bytes)
			add_info(&all, &attachment->peers[i].info);
	if (attachment->nr_transports > 1)
		be_modest(&all);
	if (attachment->config.mode != WEFT_MODE_WRITE)
		all.read_only = true;
	/* A copy keeps its bytes only if each copy gets the same ones. */
	if (attachment->nr_copies > 1) {
		all.can_cache = all.can_mark = false;
		all.can_trim = all.can_zero;
	}
	attachment->map.part_bytes = all.size_bytes;
	if (attachment->map.nr > 1) {
		if (attachment->map.unit % all.min_block_bytes)
			return weft_error_set(err, EINVAL,
				"stripes of %" PRIu64
				" bytes are no multiple of a server's blocks of %u bytes",
				attachment->map.unit, all.min_block_bytes);
		attachment->map.part_bytes -= all.size_bytes % attachment->map.unit;
		if (attachment->map.part_bytes == 0)
			return weft_error_set(err, EINVAL,
				"a region is smaller than a stripe of %" PRIu64 " bytes",
				attachment->map.unit);
		all.size_bytes = attachment->map.nr * attachment->map.part_bytes;
	}
	attachment->info = all;
	attachment->granted = true;
	return 0;
}

int peer_put_together(struct bridge_attachment *attachment, struct weft_error *err)
{
	return attachment->granted ? 0 : put_together(attachment, err);
}

/* A copy that was not there at first, or had to begin anew. */
static int check_copy(struct bridge_peer *peer, const struct tp_info *is, struct weft_error *err)
{
	const struct bridge_attachment *attachment = peer->attachment;

	if (is->size_bytes < attachment->map.part_bytes)
		return weft_error_set(err, ENOSPC,
			"the region has %" PRIu64 " bytes, and a copy has %" PRIu64, is->size_bytes,
			attachment->map.part_bytes);
	if (!is->has_epoch || !keeps_promises(&attachment->info, is))
		return weft_error_set(err, EOPNOTSUPP,
			"the donor can do less than those of the other copies");
	peer->info = *is;
	peer->granted = true;
	return 0;
}

/* After a reset the contents are others; nothing else that the front-ends were told may differ. */
static int check_reset(struct bridge_peer *peer, const struct tp_info *is, struct weft_error *err)
{
	if (is->size_bytes != peer->info.size_bytes)
		return weft_error_set(err, ESTALE,
			"the region had %" PRIu64 " bytes and has %" PRIu64
			": detach, and attach anew",
			peer->info.size_bytes, is->size_bytes);
	if (!keeps_promises(&peer->attachment->info, is))
		return weft_error_set(err, EOPNOTSUPP,
			"the donor can do less than before: detach, and attach anew");
	peer->info = *is;
	peer->granted = true;
	/* Before anything is written back. */
	peer->attachment->owner->epoch_is(peer->attachment, peer->index, is->epoch);
	return 0;
}

int peer_check_grant(struct bridge_peer *peer, const struct tp_info *info, struct weft_error *err)
{
	struct bridge_attachment *attachment = peer->attachment;

	if (attachment->granted && attachment->nr_copies > 1) {
		/* Whichever lane comes first. */
		pthread_mutex_lock(&attachment->lock);
		int r = peer->granted ? check_again(peer, info, err) : check_copy(peer, info, err);
		pthread_mutex_unlock(&attachment->lock);
		return r;
	}
	if (peer->granted)
		return check_again(peer, info, err);
	if (attachment->granted)
		return check_reset(peer, info, err);
	if (info->size_bytes == 0)
		return weft_error_set(err, ENODATA, "the region is empty");
	/* It is taken over from a bridge whose users remember what was there. */
	if (peer->config.identity && info->identity != peer->config.identity)
		return other_device(info, err);
	/* Only the first lane comes here; the others start after it. */
	peer->info = *info;
	peer->granted = true;
	for (unsigned i = 0; i < attachment->nr_peers; i++)
		if (!attachment->peers[i].granted)
			return 0;
	return put_together(attachment, err);
}

int attachment_assume_grants(struct bridge_attachment *attachment, const struct tp_info *infos,
	struct weft_error *err)
{
	for (unsigned i = 0; i < attachment->nr_peers; i++) {
		attachment->peers[i].info = infos[i];
		snprintf(attachment->peers[i].used_transport,
			sizeof(attachment->peers[i].used_transport), "none");
	}
	return put_together(attachment, err);
}
