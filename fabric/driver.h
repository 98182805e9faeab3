/* SPDX-License-Identifier: MIT */
/*
 * A transport, as the rest of weft sees it: one `struct tp_driver`, a row of tp_drivers[]
 * (transports/drivers.c).  Code that needs a transport finds it here, by a URI, a word or an offer;
 * no other code names a transport.
 *
 * To add a transport:
 *
 *  1. transports/NAME/ has the borrower's side, a `struct tp_ops`: transport.h says beside each
 *     function what it does, and what need not be checked.  If weft serve is to listen over it,
 *     the folder has a `struct weft_listener_ops` too (listener.h).  Files there include fabric/
 *     and each other, never another transport.
 *  2. transports/NAME/driver.c has the row, a `const struct tp_driver`.  It needs word, label and
 *     ops, and a way to be reached: a scheme of its own (ram:///64M), or offers, by which weft://
 *     leads there (parse_offer, and a listener that makes such offers).  All other fields may be
 *     left out.
 *  3. transports/drivers.c has a line for it, before the transports that it is better than, or last
 *     if no donor offers it; transports/CMakeLists.txt has a library, and its name among
 *     WEFT_TRANSPORTS.
 *  4. tests/conformance/NAME.c runs the suite that all transports pass.  verbs.c there is a short
 *     example, and mem.c one without a donor.  A line in tests/CMakeLists.txt builds it.
 *
 * That is all: URIs, --transport, weft status and its metrics, weft doctor, weft serve, weft bench
 * and libweft look into the table.  transports/mem is a good example to begin with.
 *
 * A driver calls no function of driver.c and uri.c, since those look into the table.  offer.c is
 * for drivers to call.
 *
 * Threads: any; everything but the settings of weft serve's options is constant.
 */
#ifndef WEFT_FABRIC_DRIVER_H
#define WEFT_FABRIC_DRIVER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/transport.h"

struct finding_check;
struct tp_talk; /* a connection that questions go over; the transport's */
struct weft_listener_ops;
struct weft_listening;
struct weft_option;
struct weft_uri;

/* What stands between a URI's "//" and its region. */
enum tp_place {
	TP_AT_HOST,   /* HOST[:PORT] */
	TP_AT_SOCKET, /* nothing; "?socket=PATH" follows the region */
	/* nothing: in this process; another process that opens the URI has contents of its own */
	TP_AT_HOME,
};

/*
 * A URI scheme that leads over this transport alone.  The scheme "weft" belongs to no transport: it
 * leads over any that the donor offers.
 */
struct tp_scheme {
	const char *name; /* "nbd+unix" */
	enum tp_place place;
	bool foreign;        /* a server without weft: there is no epoch, no generation, no lease */
	bool needs_port;     /* there is no usual one */
	const char *example; /* a whole URI, for the error about a wrong one */
	const char *server;  /* foreign: what runs there: "an NBD server" */
	const char *only; /* why another transport cannot be had: "an NBD server speaks TCP only" */
	const char *why;  /* why an attachment takes this one: "the donor is on this machine" */
};

/* One of a donor's offers, which are a list with commas between: "tcp,rdma:10809:192.0.2.7". */
struct tp_offer {
	char port[8];
	char address[64]; /* in digits, of one host; "": the address that the donor was asked at */
};

struct tp_driver {
	/*
	 * What users write and read: `transport=WORD`, `--transport WORD`, offers, status.
	 * tp_info.transport is the same.
	 */
	const char *word;       /* "rdma" */
	const char *label;      /* the same in a sentence: "RDMA" */
	const char *local_word; /* status' word for it over a Unix socket; NULL: there is none */
	/* status' words for it where all is encrypted, up to a NULL; NULL: there are none */
	const char *const *encrypted_words;
	const struct tp_scheme *schemes; /* up to the one without a name; NULL: it has none */

	/* The borrower's side; NULL: it has none, and leads nowhere for weft's borrowers. */
	const struct tp_ops *ops;
	bool shows_path; /* which device a connection takes is worth a line of status */
	/* What goes over it is in plaintext, whatever both ends proved to each other. */
	bool plaintext;
	bool needs_proof; /* nobody comes over it without a key or certificates */
	/*
	 * It is better than the base transport only for donors that are far away: whom to ask what
	 * they offer takes so long, at least.  0: for all.
	 */
	uint32_t far_ms;
	/*
	 * 0, or why this machine cannot use the transport, such as -ENODEV.  Control path.  NULL:
	 * every machine can.
	 */
	int (*usable)(struct weft_error *err);
	/*
	 * Asks a donor over which transports it offers the URI's region, and which contents the
	 * region has; nothing is granted.  Blocks for up to timeout_ms, or
	 * until cancel_fd is readable (-1: it never is).  0; or -errno as
	 * tp_connect() says, with why, and *ret is untouched.  One transport has this function, the
	 * base transport: a weft:// URI's host and port lead there, and a bridge falls back to it.
	 * Of the transports with offers it is the last in the table.  With a key, or certificates
	 * (as in struct tp_target), the donor proves who it is, and nothing is believed that others
	 * could have said; NULL: there are none.  ret_pass: the session's pass (fabric/key/pass.h),
	 * which the caller wipes; -EOPNOTSUPP: the donor takes none.  NULL: none is wanted.
	 */
	int (*ask)(const struct weft_uri *uri, const struct weft_key *key,
		const char *certificates, uint32_t timeout_ms, int cancel_fd,
		struct weft_welcome *ret, struct weft_key *ret_pass, struct weft_error *err);
	/*
	 * Puts a question, an object, to the donor at the URI's host or socket itself, which may
	 * change it; nothing is granted (weft-protocol(7), "QUESTIONS").  Of the base transport,
	 * with key and certificates, time and cancel_fd as for ask().  *io_talk NULL: connects;
	 * else goes on over that connection, of an earlier question to the same donor.  It is
	 * closed, and *io_talk NULL, when it is of no use any more; what became of the question is
	 * not known then.  0 with an object, the caller's.  -errno with why, and *io_talk is still
	 * there: the donor refuses, -ENOSYS: its weft knows no questions, or not this one.  Or as
	 * tp_connect() says.
	 */
	int (*question)(const struct weft_uri *uri, const struct weft_key *key,
		const char *certificates, uint32_t timeout_ms, int cancel_fd,
		struct tp_talk **io_talk, const json_t *question, json_t **ret_answer,
		struct weft_error *err);
	/* Ends the connection.  Takes NULL. */
	void (*hang_up)(struct tp_talk *talk);
	/*
	 * Opens a connection to a donor by a session's alias (hello.h), as the kernel's nbd driver
	 * goes on with it: in plaintext, at the beginning of the transmission phase, with simple
	 * replies.  dead_ms as in struct tp_target.  Blocks for up to timeout_ms.  The socket, the
	 * caller's, with its sizes and abilities in *ret; or -errno as tp_connect() says, with why.
	 * NULL: not over this transport.
	 */
	int (*open_alias)(const char *host, const char *port, const uint8_t *alias,
		uint32_t timeout_ms, uint32_t dead_ms, struct tp_info *ret, struct weft_error *err);
	/*
	 * Whether the text is an offer of this transport, and of which place.  NULL: donors do not
	 * offer the transport.
	 */
	bool (*parse_offer)(const char *offer, struct tp_offer *ret);

	/*
	 * The donor's side; NULL: weft serve does not listen over this transport.  weft serve ends
	 * if it cannot listen over the base transport; others may fail.
	 */
	const struct weft_listener_ops *listener;
	/*
	 * Options of weft serve for this transport, up to WEFT_OPTION_END; their values are stored
	 * in listen_settings before anything is started.  NULL: none.
	 */
	const struct weft_option *listen_options;
	void *listen_settings;
	/*
	 * A line of weft serve about other programs that can use the regions here, and how: "any
	 * NBD client: nbd://192.0.2.7:10809/NAME".  proof: what they have to show, "key" or
	 * "certificate"; NULL: nothing.  NULL: there are no such programs.
	 */
	void (*stock_line)(const struct weft_listening *socket, const char *proof, char *buf,
		size_t len);

	/*
	 * For weft list --line: what a user of programs without weft writes to have a region that
	 * the donor at host offers, with the contents of this epoch and tenure.  0; -ENODEV: it is
	 * not among the offers; -EADDRNOTAVAIL: the host has no address.  Blocks where the host has
	 * to be looked up.  NULL: there are no such lines.
	 */
	int (*region_line)(const char *host, const char *offers, const char *region,
		uint64_t epoch, uint64_t tenure, char *buf, size_t len);

	/* What comes before the first of those lines, once; NULL: nothing. */
	const char *region_line_before;

	/*
	 * The checks of weft doctor for this transport, up to the one without a name; NULL: none.
	 */
	const struct finding_check *checks;
};

/* All transports, the ones to prefer first, up to NULL. */
extern const struct tp_driver *const tp_drivers[];

/*
 * The transport that status, offers or a command line call so; a word ends before a '+', behind
 * which stands how it is protected.  NULL: none.
 */
const struct tp_driver *tp_driver_of_word(const char *word);
/*
 * For a sentence: "RDMA" for "rdma".  An unknown word, and a local_word, are returned as they are.
 */
const char *tp_word_label(const char *word);
/*
 * The pass of a session with these certificates, over the base transport, for one connection over
 * another; for struct tp_target.  The caller wipes it.  Blocks for up to 5 s, until cancel_fd is
 * readable (-1: it never is), and as long as the resolver does.  0, or as ask(), with why.
 */
int tp_get_pass(const char *host, const char *port, const char *region, const char *certificates,
	int cancel_fd, struct weft_key *ret, struct weft_error *err);
/* What status says behind it: ", in plaintext", or "". */
const char *tp_word_note(const char *word);
/* The transport whose operations these are. */
const struct tp_driver *tp_driver_of_ops(const struct tp_ops *ops);
/* The base transport: the one with ask(). */
const struct tp_driver *tp_base_driver(void);

/* Whether a weft:// URI can lead over the transport: its word may be chosen. */
bool tp_driver_is_choice(const struct tp_driver *driver);
/* Parses "auto" (*ret is NULL) or the word of a transport that may be chosen.  0, or -EINVAL. */
int tp_choice_parse(const char *text, const struct tp_driver **ret);
/* "auto|rdma|quic|tcp" into buf, whatever stands between; returns buf. */
const char *tp_choices(const char *between, char *buf, size_t len);

/*
 * Finds the next offer of the transport in a list, from *at on, and moves *at behind the offer;
 * false: there are no more.  At first *at is the list.
 */
bool tp_next_offer(const struct tp_driver *driver, const char **at, struct tp_offer *ret);

/*
 * Calls add() with each place where a donor at host offers the transport, the likeliest ones first;
 * some more than once.
 */
void tp_each_offered(const struct tp_driver *driver, const char *offers, const char *host,
	void (*add)(void *ctx, const struct tp_driver *driver, const char *host, const char *port),
	void *ctx);

/* The parse_offer() of most: WORD:PORT or WORD:PORT:ADDRESS. */
bool tp_parse_offer(const char *word, const char *offer, struct tp_offer *ret);

#endif
