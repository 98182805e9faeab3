/* SPDX-License-Identifier: MIT */
/*
 * A buddy allocator with its lists beside the memory, not in it.  Owned by one thread.  Invariant:
 * a page's state is that of the block that begins there; a free block's buddy of the same order is
 * never free as well.
 */
#include "nbd-bridge/lane/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

enum {
	ORDER_MAX = 8, /* 4 KiB << 8 is 1 MiB */
	NONE = -1,
};

_Static_assert((BRIDGE_POOL_MIN << ORDER_MAX) == BRIDGE_POOL_MAX, "orders span the sizes");

enum page_state {
	PAGE_INSIDE, /* not the first of a block */
	PAGE_FREE,
	PAGE_USED,
};

struct page {
	int32_t prev, next; /* of the free list */
	uint8_t state, order;
};

struct bridge_pool {
	char *base;
	int32_t nr_pages;
	size_t used;
	int32_t free[ORDER_MAX + 1]; /* newest first */
	struct page pages[];
};

static void push(struct bridge_pool *pool, int32_t i, unsigned order)
{
	struct page *page = &pool->pages[i];

	page->state = PAGE_FREE;
	page->order = (uint8_t)order;
	page->prev = NONE;
	page->next = pool->free[order];
	if (page->next != NONE)
		pool->pages[page->next].prev = i;
	pool->free[order] = i;
}

static void unlink_free(struct bridge_pool *pool, int32_t i)
{
	struct page *page = &pool->pages[i];

	if (page->prev != NONE)
		pool->pages[page->prev].next = page->next;
	else
		pool->free[page->order] = page->next;
	if (page->next != NONE)
		pool->pages[page->next].prev = page->prev;
	page->state = PAGE_INSIDE;
}

int bridge_pool_new(void *base, size_t len, struct bridge_pool **ret)
{
	if (len == 0 || len % BRIDGE_POOL_MAX != 0 || len / BRIDGE_POOL_MIN > INT32_MAX)
		return -EINVAL;
	int32_t nr_pages = (int32_t)(len / BRIDGE_POOL_MIN);
	struct bridge_pool *pool =
		calloc(1, sizeof(*pool) + (size_t)nr_pages * sizeof(*pool->pages));

	if (!pool)
		return -ENOMEM;
	pool->base = base;
	pool->nr_pages = nr_pages;
	for (unsigned order = 0; order <= ORDER_MAX; order++)
		pool->free[order] = NONE;
	for (int32_t i = nr_pages - (1 << ORDER_MAX); i >= 0; i -= 1 << ORDER_MAX)
		push(pool, i, ORDER_MAX);
	*ret = pool;
	return 0;
}

void bridge_pool_free(struct bridge_pool *pool)
{
	free(pool);
}

static unsigned order_of(size_t len)
{
	size_t pages = (len + BRIDGE_POOL_MIN - 1) / BRIDGE_POOL_MIN;

	return pages <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(pages - 1);
}

void *bridge_pool_get(struct bridge_pool *pool, size_t len)
{
	assert(len > 0 && len <= BRIDGE_POOL_MAX);
	unsigned want = order_of(len), order = want;

	while (order <= ORDER_MAX && pool->free[order] == NONE)
		order++;
	if (order > ORDER_MAX)
		return NULL;
	int32_t i = pool->free[order];
	unlink_free(pool, i);
	while (order > want) {
		order--;
		push(pool, i + (1 << order), order);
	}
	pool->pages[i].state = PAGE_USED;
	pool->pages[i].order = (uint8_t)want;
	pool->used += (size_t)BRIDGE_POOL_MIN << want;
	return pool->base + (size_t)i * BRIDGE_POOL_MIN;
}

void bridge_pool_put(struct bridge_pool *pool, void *buf)
{
	size_t off = (size_t)((char *)buf - pool->base);
	int32_t i = (int32_t)(off / BRIDGE_POOL_MIN);

	assert(off % BRIDGE_POOL_MIN == 0 && i < pool->nr_pages &&
		pool->pages[i].state == PAGE_USED);
	unsigned order = pool->pages[i].order;
	pool->used -= (size_t)BRIDGE_POOL_MIN << order;
	pool->pages[i].state = PAGE_INSIDE;
	for (; order < ORDER_MAX; order++) {
		int32_t buddy = i ^ (1 << order);

		if (pool->pages[buddy].state != PAGE_FREE || pool->pages[buddy].order != order)
			break;
		unlink_free(pool, buddy);
		if (buddy < i)
			i = buddy;
	}
	push(pool, i, order);
}

size_t bridge_pool_used(const struct bridge_pool *pool)
{
	return pool->used;
}
