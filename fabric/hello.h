/*
 * Who a borrower says it is, and what a donor answers, in the forms that travel:
 * over NBD as the leaf of a `weft:` metadata context, over verbs in the hello message.
 *
 * Over NBD the borrower asks LIST_META_CONTEXT and SET_META_CONTEXT for
 *     weft:session:id=<32 hex>,gen=<decimal>,mode=<r|s|w>,name=<public name>[,epoch=<16 hex>]
 * and the donor answers with one context named
 *     weft:grant:epoch=<16 hex>,lease=<ms>,offers=<list with ';' between>
 * Stock clients never ask, so they never see it.  NBD proto.md, "Metadata querying".
 */
#ifndef WEFT_FABRIC_HELLO_H
#define WEFT_FABRIC_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEFT_CONTEXT_SESSION "weft:session:"
#define WEFT_CONTEXT_GRANT "weft:grant:"

enum {
	WEFT_ID_BYTES = 16,
	WEFT_NAME_MAX = 63,      /* public names: [A-Za-z0-9._-], not empty */
	WEFT_CONTEXT_MAX = 1024, /* a context name of ours, with its NUL */
};

enum weft_mode {
	WEFT_MODE_READ,   /* 'r': reads; no writer beside it */
	WEFT_MODE_SHARED, /* 's': reads, whoever writes meanwhile */
	WEFT_MODE_WRITE,  /* 'w': reads and writes; one per region */
};

struct weft_hello {
	bool anonymous; /* a stock NBD client: the fields below mean nothing */
	uint8_t id[WEFT_ID_BYTES]; /* secret; never logged, never shown */
	uint64_t generation; /* from 1 */
	enum weft_mode mode;
	char name[WEFT_NAME_MAX + 1];
	uint64_t epoch; /* the epoch that the borrower knows; 0: any */
};

struct weft_welcome {
	uint64_t epoch;
	uint32_t lease_ms;
	char offers[64];
};

/* True for 1 to WEFT_NAME_MAX characters of [A-Za-z0-9._-]. */
bool weft_name_valid(const char *name);

/* The whole context name, NUL-terminated, into buf of WEFT_CONTEXT_MAX. */
void weft_hello_format(const struct weft_hello *hello, char *buf);
void weft_welcome_format(const struct weft_welcome *welcome, char *buf);

/*
 * Strict inverses; text of len bytes is not NUL-terminated and not trusted.
 * 0, or -EINVAL (unknown, missing, repeated or malformed field) with *ret untouched.
 */
int weft_hello_parse(const char *text, size_t len, struct weft_hello *ret);
int weft_welcome_parse(const char *text, size_t len, struct weft_welcome *ret);

#endif
