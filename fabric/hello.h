/* SPDX-License-Identifier: MIT */
/*
 * The hello, in which a borrower says who it is, and the welcome, which a donor answers, as they
 * travel: over NBD as the leaf of a `weft:` metadata context, over verbs in the hello message.
 *
 * Over NBD the borrower asks LIST_META_CONTEXT and SET_META_CONTEXT for
 *     weft:session:v=1,id=<32 hex>,gen=<decimal>,mode=<r|s|w>,name=<public name>
 *         [,expect=<16 hex>|,epoch=<16 hex>[,granted=<decimal>[,wrote=1]]]
 *         [,stripe=<index>/<count>:<unit>[,renew=1]][,pass=1][,follows=1][,copies=1]
 *         [,!alias=<32 hex>]
 * and the donor answers with one context named
 *     weft:grant:v=1,epoch=<16 hex>,lease=<ms>,offers=<list with ';' between>[,restorable=1]
 *         [,pass=1][,hashes=<decimal>][,marks=<decimal>,<marked|unmarked>=<ms>][,moving=<URI>]
 * LIST_META_CONTEXT with the query `weft:tenure:` is answered by a context whose leaf is the
 * region's tenure, 16 hex digits.  Stock clients never ask, so they never see it.  NBD proto.md,
 * "Metadata querying".
 *
 * The version is the first field.  A field that is not known is skipped, unless its name begins
 * with '!': then the hello is refused, and the refusal has that name.  Text without a version is of
 * version 0.  Its hello has id, gen, mode, name and epoch, its welcome epoch, lease and offers, and
 * nothing else; a donor answers version 0 with version 0.
 *
 * A hello that names an epoch remembers: whoever sends it goes on with contents that it knows, and
 * the donor refuses it when they may have changed since (donor.h).  One that names none remembers
 * nothing.
 *
 * `stripe` says which part of a striped device the region is to be (stripe.h); a reader or writer
 * of version 1 that does not say it means a whole device, a shared reader nothing.
 *
 * `!alias` is a name that the borrower has made up for its session.  As long as the session lasts,
 * a stock client that asks for the export WEFT_EXPORT_ALIAS joins the session's attachment, at the
 * session's generation (donor.h).
 */
#ifndef WEFT_FABRIC_HELLO_H
#define WEFT_FABRIC_HELLO_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/marking.h"
#include "fabric/stripe.h"

#define WEFT_CONTEXT_SESSION "weft:session:"
#define WEFT_CONTEXT_GRANT "weft:grant:"
#define WEFT_CONTEXT_TENURE "weft:tenure:"
/*
 * The export that NBD_OPT_GO names when it leaves before the hello is answered: the hello's region
 * where the hello was accepted, nothing anywhere else.
 */
#define WEFT_EXPORT_SESSION "weft:session"
/* The export of a session's alias: this, and 32 hex digits.  It is in no list. */
#define WEFT_EXPORT_ALIAS "weft:alias:"

enum {
	WEFT_ID_BYTES = 16,
	WEFT_NAME_MAX = 63,      /* public names: [A-Za-z0-9._-], not empty */
	WEFT_CONTEXT_MAX = 1024, /* a context name of ours, with its NUL */
	WEFT_PLACE_MAX = 320,    /* of a region's place, see weft_place_valid(), with its NUL */
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
	uint64_t epoch; /* of the contents that the borrower remembers; 0: it remembers nothing */
	uint64_t expect; /* without one: the region that is meant has this epoch; 0: any */
	/*
	 * With an epoch: the highest generation whose grant the borrower learned of; 0: it does not
	 * say.
	 */
	uint64_t granted;
	bool wrote; /* and a write under that generation was answered */
	struct weft_stripe stripe; /* count 0: it does not say */
	/*
	 * with a stripe, without an epoch: the region becomes this part, whatever part of another
	 * device it was before
	 */
	bool new_contents;
	bool pass; /* over TLS: the borrower goes on over another transport (fabric/key/pass.h) */
	bool follows; /* the borrower goes on at another donor when the region moves there */
	bool copies; /* the borrower knows that the region may be a copy (copying.h) */
	/*
	 * the session's alias, secret; or, in an anonymous hello, the alias by which it comes
	 */
	bool has_alias;
	uint8_t alias[WEFT_ID_BYTES];
	/*
	 * of, or for, a peer that speaks version 0: fields that version 0 does not have are left
	 * out
	 */
	bool version0;
	/*
	 * what was behind the region's name, NAME@TENURE; 0: nothing.  Only anonymous hellos have
	 * one
	 */
	uint64_t tenure;
};

struct weft_welcome {
	uint64_t epoch;
	uint32_t lease_ms;
	char offers[64];
	/* the contents can be put back to what they were: hellos say `granted` and `wrote` */
	bool restorable;
	bool pass;         /* the donor takes the session's pass */
	uint32_t hashes;   /* the scheme by which it hashes blocks (hashing.h); 0: it does not */
	uint32_t marks;    /* that it keeps marks, and how (marking.h): 1; 0: it does not */
	struct weft_marked mark; /* with marks: the number is only even or odd */
	/*
	 * the region is about to move to this place, and may be there at the next loss; "": it is
	 * not
	 */
	char moving[WEFT_PLACE_MAX];
	bool version0;     /* as above */
};

/*
 * The first generation of the next incarnation.  The high 32 bits of a generation count processes,
 * the low 32 bits a process's reconnections.
 */
static inline uint64_t weft_next_incarnation(uint64_t generation)
{
	return ((generation >> 32) + 1) << 32;
}

/*
 * How a donor refuses somebody who holds, or held, the region; all other errors are errno's.
 * Version 0 has ESTALE for all three.
 */
enum {
	WEFT_EOVER = EKEYEXPIRED,       /* the generation is over: a higher one may be granted */
	/* a higher generation is another process': final for the one that asked */
	WEFT_ESUPERSEDED = EKEYREVOKED,
	/* ESTALE: what the borrower remembers may have changed: final until it attaches anew. */
	/*
	 * Another donor has the region, or may have it in a moment.  The text begins with the
	 * place, a URI, which a space may follow (weft_place_of()).
	 */
	WEFT_EMOVED = EREMCHG,
	WEFT_EMOVING = EREMOTE,
};

/*
 * Whether the text is a place: a URI "weft://…" of printable ASCII, without a space, ',', ';' or
 * '=', of less than WEFT_PLACE_MAX bytes.
 */
bool weft_place_valid(const char *text, size_t len);
/* The place with which a refusal's text begins, into ret; false: there is none. */
bool weft_place_of(const char *text, char ret[WEFT_PLACE_MAX]);

/*
 * Whether a donor of version 0 would understand the hello.  Such a donor assumes that a new
 * incarnation (low 32 bits of the generation: 0) remembers nothing.  0, or -EPROTONOSUPPORT for a
 * new incarnation that remembers, and that does not join a grant which it has already; and for one
 * with an alias.
 */
int weft_hello_check_version0(const struct weft_hello *hello, const char *region,
	struct weft_error *err);
/* The code that a peer is told for an errno > 0. */
int weft_refusal_code(int code, bool version0);
/*
 * word: the head of a refusal's text over NBD, "ESTALE", "OVER", …; NULL: not an error of ours.
 * parse: the errno > 0 of such a text, with *ret_rest behind ": "; 0: no such head.
 */
const char *weft_refusal_word(int code, bool version0);
int weft_refusal_parse(const char *text, const char **ret_rest);

/*
 * Splits NAME@TENURE (16 hex digits) into its parts; ret_name has size bytes.  False: the text is
 * not of that form, or the name does not fit.
 */
bool weft_tenure_split(const char *name, char *ret_name, size_t size, uint64_t *ret_tenure);

enum { WEFT_EXPORT_ALIAS_MAX = sizeof(WEFT_EXPORT_ALIAS) + 2 * WEFT_ID_BYTES }; /* with a NUL */
/* The export's name of an alias, into ret of WEFT_EXPORT_ALIAS_MAX; and the inverse. */
void weft_alias_format(const uint8_t *alias, char *ret);
bool weft_alias_parse(const char *name, uint8_t *ret);

/* True for 1 to WEFT_NAME_MAX characters of [A-Za-z0-9._-]. */
bool weft_name_valid(const char *name);

/* Write the whole context name, NUL-terminated, into buf of WEFT_CONTEXT_MAX. */
void weft_hello_format(const struct weft_hello *hello, char *buf);
void weft_welcome_format(const struct weft_welcome *welcome, char *buf);

/*
 * Inverses; text of len bytes is not NUL-terminated and not trusted.  0, or with *ret untouched
 * -EINVAL (missing, repeated or malformed field, or an unknown one of version 0), -EPROTONOSUPPORT
 * (an unknown field that must not be skipped: the message names it).
 */
int weft_hello_parse(const char *text, size_t len, struct weft_hello *ret, struct weft_error *err);
int weft_welcome_parse(const char *text, size_t len, struct weft_welcome *ret);

#endif
