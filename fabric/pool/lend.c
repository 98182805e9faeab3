/* SPDX-License-Identifier: MIT */
#include "fabric/pool/lend.h"

#include "fabric/base/util.h"

/* Above it somebody is short of memory, whatever is called available. */
#define STALLED_PERCENT 10.0

struct pool_lending pool_lend_idle(const struct pool_machine *m)
{
	const uint64_t reserve = m->reserve_bytes + (m->was_pressed ? m->reserve_bytes / 16 : 0);
	/* What is being made is taken from what is available, and nobody knows how much was. */
	const uint64_t free = m->available_bytes - weft_min(m->making_bytes, m->available_bytes);
	struct pool_lending ret = {.lent_bytes = m->lent_bytes};

	ret.pressed = m->available_bytes < reserve || m->stalled_percent > STALLED_PERCENT;
	if (!ret.pressed && free > m->reserve_bytes)
		ret.lent_bytes += free - m->reserve_bytes;
	if (m->available_bytes < m->reserve_bytes)
		ret.give_back_bytes =
			weft_min(m->reserve_bytes - m->available_bytes, m->lent_bytes);
	return ret;
}
