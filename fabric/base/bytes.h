/* SPDX-License-Identifier: MIT */
/*
 * Big-endian integers at any address, for what travels.  Any thread.
 */
#ifndef WEFT_FABRIC_BASE_BYTES_H
#define WEFT_FABRIC_BASE_BYTES_H

#include <endian.h>
#include <stdint.h>

static inline uint16_t weft_get16(const void *p)
{
	uint16_t v;

	__builtin_memcpy(&v, p, sizeof(v));
	return be16toh(v);
}

static inline uint32_t weft_get32(const void *p)
{
	uint32_t v;

	__builtin_memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static inline uint64_t weft_get64(const void *p)
{
	uint64_t v;

	__builtin_memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

static inline void weft_put16(void *p, uint16_t v)
{
	v = htobe16(v);
	__builtin_memcpy(p, &v, sizeof(v));
}

static inline void weft_put32(void *p, uint32_t v)
{
	v = htobe32(v);
	__builtin_memcpy(p, &v, sizeof(v));
}

static inline void weft_put64(void *p, uint64_t v)
{
	v = htobe64(v);
	__builtin_memcpy(p, &v, sizeof(v));
}

#endif
