/* SPDX-License-Identifier: MIT */
/*
 * A transport, as the rest of weft sees it: one `struct tp_driver`, in a row of tp_drivers[]
 * (transports/drivers.c). Whoever needs a transport finds it here, by a URI, a word or an offer;
 * nobody else names one.
 *
 * To add a transport:
 *
 *  1. transports/NAME/ has the borrower's side, a `struct tp_ops`: transport.h says beside each
 *     function what it does, and what need not be checked.  If weft serve is to listen over it,
 *     the folder has a `struct weft_listener_ops` too (listener.h).  Files there include fabric/
 *     and each other, never another transport.
 *  2. transports/NAME/driver.c has the row, a `const struct tp_driver`.  It needs word, label and
 *     ops, and a way to be reached: a scheme of its own (ram:///64M), or offers, by which weft://
 *     leads there (parse_offer, and a listener that offers the same).  All else may be left out.
 *  3. transports/drivers.c has a line for it, before the transports that it is better than, or
 *     behind all if nobody offers it; transports/CMakeLists.txt has a library, and its name among
 *     WEFT_TRANSPORTS.
 *  4. tests/conformance/NAME.c runs the suite that all transports pass; conformance/verbs.c is
 *     short, mem.c has no donor.  A line in tests/CMakeLists.txt builds it.
 *
 * That is all: URIs, --transport, weft status and its metrics, weft doctor, weft serve, weft bench
 * and libweft look into the table.  transports/mem is one to begin with.
 *
 * A driver calls nothing of driver.c and uri.c, which look into the table; offer.c is apart, for
 * drivers to call.
 *
 * Threads: any; everything is constant, but for the settings of weft serve's options.
 */
#ifndef WEFT_FABRIC_DRIVER_H
#define WEFT_FABRIC_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/transport.h"

struct finding_check;
struct weft_listener_ops;
struct weft_listening;
struct weft_option;
struct weft_uri;

/* What stands between a URI's "//" and its region. */
enum tp_place {
	TP_AT_HOST,   /* HOST[:PORT] */
	TP_AT_SOCKET, /* nothing; "?socket=PATH" follows the region */
	/* nothing: in this process; another that opens the URI has contents of its own */
	TP_AT_HOME,
};

/*
 * A URI scheme that leads over this transport alone.  "weft" is no transport's: it leads over
 * whatever the donor offers.
 */
struct tp_scheme {
	const char *name; /* "nbd+unix" */
	enum tp_place place;
	bool foreign;        /* nothing of weft's is asked for: no epoch, no generation, no lease */
	const char *example; /* a whole URI, for who got one wrong */
	const char *only; /* why another transport cannot be had: "an NBD server speaks TCP only" */
	const char *why;  /* why an attachment takes this one: "the donor is on this machine" */
};

/* One of a donor's offers, which are a list with commas between: "tcp,rdma:10809:192.0.2.7". */
struct tp_offer {
	char port[8];
	char address[64]; /* in digits, of one host; "": the one that the donor was asked at */
};

struct tp_driver {
	/*
	 * What users write and read: `transport=WORD`, `--transport WORD`, offers, status.
	 * tp_info.transport is the same.
	 */
	const char *word;       /* "rdma" */
	const char *label;      /* the same in a sentence: "RDMA" */
	const char *local_word; /* status' word for it over a Unix socket; NULL: there is none */
	const struct tp_scheme *schemes; /* up to the one without a name; NULL: it has none */

	/* The borrower's side. */
	const struct tp_ops *ops;
	bool shows_path; /* which device a connection takes is worth a line of status */
	/*
	 * 0, or why this machine cannot use it, such as -ENODEV.  Control path.  NULL: every
	 * machine can.
	 */
	int (*usable)(struct weft_error *err);
	/*
	 * Asks a donor what it offers the URI's region over, and which contents that has; nothing
	 * is granted.  Blocks for up to timeout_ms.  *ret keeps what it held if there is no answer.
	 * The one transport that has it is where a weft:// URI's host and port lead, and what a
	 * bridge falls back to: it is the last of the table that offers are looked for.
	 */
	void (*ask)(const struct weft_uri *uri, uint32_t timeout_ms, struct weft_welcome *ret);
	/*
	 * Whether this is an offer of the transport, and of which place.  NULL: donors do not offer
	 * it.
	 */
	bool (*parse_offer)(const char *offer, struct tp_offer *ret);

	/*
	 * The donor's side; NULL: weft serve does not listen over it.  It has to over the transport
	 * with ask(), and does over others if it can.
	 */
	const struct weft_listener_ops *listener;
	/*
	 * Options of weft serve for it, up to WEFT_OPTION_END, stored in listen_settings before
	 * anything is started; NULL: none.
	 */
	const struct weft_option *listen_options;
	void *listen_settings;
	/*
	 * Who else can use what is served here, and how, for a line of weft serve: "any NBD client:
	 * nbd://192.0.2.7:10809/NAME".  NULL: nobody.
	 */
	void (*stock_line)(const struct weft_listening *socket, char *buf, size_t len);

	/* What weft doctor looks at for it, up to the check without a name; NULL: nothing. */
	const struct finding_check *checks;
};

/* All transports, the ones to prefer first, up to NULL. */
extern const struct tp_driver *const tp_drivers[];

/* The transport that status, offers or a command line call so; NULL: none. */
const struct tp_driver *tp_driver_of_word(const char *word);
/* For a sentence: "RDMA" for "rdma"; a word that is nobody's, or a local one, as it is. */
const char *tp_word_label(const char *word);
/* The transport whose operations these are. */
const struct tp_driver *tp_driver_of_ops(const struct tp_ops *ops);
/* The one with ask(). */
const struct tp_driver *tp_base_driver(void);

/* Whether a weft:// URI can lead over it: it may be chosen by its word. */
bool tp_driver_is_choice(const struct tp_driver *driver);
/* 0: "auto", *ret is NULL, or the word of one that may be chosen.  -EINVAL. */
int tp_choice_parse(const char *text, const struct tp_driver **ret);
/* "auto|rdma|tcp" into buf, whatever stands between; returns buf. */
const char *tp_choices(const char *between, char *buf, size_t len);

/*
 * The next offer of the transport in a list, from *at on, which moves behind it; false: there is no
 * more.  *at begins as the list.
 */
bool tp_next_offer(const struct tp_driver *driver, const char **at, struct tp_offer *ret);

/* The parse_offer() of most: WORD:PORT or WORD:PORT:ADDRESS. */
bool tp_parse_offer(const char *word, const char *offer, struct tp_offer *ret);

#endif
