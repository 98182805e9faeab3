/* SPDX-License-Identifier: MIT */
/*
 * weft list: the regions that a donor lends.  A donor is an NBD server, so libnbd asks, and any NBD
 * server can be listed.  One thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "fabric/base/address.h"
#include "fabric/base/error.h"
#include "fabric/base/log.h"
#include "fabric/base/options.h"
#include "fabric/base/patience.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/hello.h"
#include "fabric/nbd/libnbd.h"
#include "fabric/uri-key.h"

enum {
	MAX_EXPORTS = 1000000, /* the most that a server can make us keep */
	/* exports asked about: an older donor takes 1024 options of a connection */
	PER_CONNECTION = 250,
	ANSWER_S = 10,
	MAX_WIDTH = 48,
	TENURE_LEN = 16,
	MAX_TENURES = 1000, /* with more regions, their tenures are not asked for */
};

struct exports {
	char **names, **descriptions;
	size_t nr, room;
	bool cut_off; /* there are more */
	bool no_memory; /* for an entry */
};

static bool make_room(struct exports *exports)
{
	size_t room = exports->room ? 2 * exports->room : 64;
	char **names = reallocarray(exports->names, room, sizeof(char *));

	if (names)
		exports->names = names;
	char **descriptions =
		names ? reallocarray(exports->descriptions, room, sizeof(char *)) : NULL;
	if (!descriptions)
		return false;
	exports->descriptions = descriptions;
	exports->room = room;
	return true;
}

static int one_export(void *user, const char *name, const char *description)
{
	struct exports *exports = user;

	weft_debug("the server has '%s'", name);
	if (exports->nr == MAX_EXPORTS) {
		exports->cut_off = true;
		return 0;
	}
	if (exports->nr == exports->room && !make_room(exports)) {
		exports->no_memory = true;
		return 0;
	}
	exports->names[exports->nr] = strdup(name);
	exports->descriptions[exports->nr] = strdup(description);
	exports->no_memory |= !exports->names[exports->nr] || !exports->descriptions[exports->nr];
	exports->nr++;
	return 0;
}

/* What the server said to the question before, in its own words; "" if it said nothing. */
static char server_said[512];

/* libnbd gives the server's words only here. */
static int on_debug(void *user, const char *context, const char *message)
{
	static const char prefix[] = "handshake: server error message: ";

	weft_debug("%s: %s", context, message);
	if (strncmp(message, prefix, sizeof(prefix) - 1) == 0)
		snprintf(server_said, sizeof(server_said), "%s", message + sizeof(prefix) - 1);
	return 0;
}

/* The result of the last question. */
static struct {
	bool over;
	int error; /* 0: the answer is known now */
} answer;

static int on_answer(void *user, int *error)
{
	answer.error = *error;
	answer.over = true;
	return 0;
}

/* For a new question, to await_answer(). */
static nbd_completion_callback begin_answer(void)
{
	answer.over = false;
	return (nbd_completion_callback){.callback = on_answer};
}

/* Why libnbd failed; EPROTO: the system had no part in it. */
static int nbd_error(void)
{
	const char *text = nbd_get_error();

	if (nbd_get_errno())
		return nbd_get_errno();
	return text && strstr(text, "getaddrinfo") ? EHOSTUNREACH : EPROTO;
}

/* Moves libnbd on once.  0, or an error: ETIMEDOUT where the server is silent for long. */
static int step(struct nbd_handle *nbd)
{
	struct pollfd p = nbd_libnbd_wants(nbd);
	int r = poll(&p, 1, ANSWER_S * 1000);

	if (r == 0)
		return ETIMEDOUT;
	if (r < 0)
		return errno == EINTR ? 0 : errno;
	r = nbd_libnbd_go_on(nbd, &p);
	return r < 0 || nbd_aio_is_dead(nbd) || nbd_aio_is_closed(nbd) ? nbd_error() : 0;
}

/* asked: what libnbd returned to the question.  0, or an error, which answer.error is as well. */
static int await_answer(struct nbd_handle *nbd, int asked)
{
	int error = asked < 0 ? nbd_error() : 0;

	while (!error && !answer.over)
		error = step(nbd);
	if (error)
		answer.error = error;
	return answer.error;
}

/* Why a question failed, without libnbd's names of functions and options. */
static const char *reason(int error)
{
	size_t code = strspn(server_said, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

	if (error == ETIMEDOUT)
		return "it does not answer";
	if (server_said[0]) /* a donor's text begins with an error's name, for programs */
		return code > 0 && strncmp(server_said + code, ": ", 2) == 0
			? server_said + code + 2
			: server_said;
	return error == EPROTO ? "the server broke the protocol" : strerror(error);
}

static int set_tls(struct nbd_handle *nbd, struct weft_held_key *key, char *identity)
{
	const char *file = weft_held_key_file(key);

	weft_held_key_identity(key, identity);
	if (nbd_set_tls(nbd, LIBNBD_TLS_REQUIRE) < 0)
		return -1;
	if (!identity[0])
		return nbd_set_tls_certificates(nbd, file);
	return nbd_set_tls_psk_file(nbd, file) < 0 ? -1 : nbd_set_tls_username(nbd, identity);
}

/* In option mode: connected, nothing opened. */
static struct nbd_handle *connect_to(
	const struct weft_uri *uri, struct weft_held_key *key, struct weft_error *err)
{
	struct nbd_handle *nbd = nbd_create();
	char identity[WEFT_IDENTITY_MAX + 1];

	if (!nbd) {
		weft_error_set(err, ENOMEM, "no memory");
		return NULL;
	}
	server_said[0] = '\0';
	/* The callback first: without one, debugging goes to standard error. */
	nbd_set_debug_callback(nbd, (nbd_debug_callback){.callback = on_debug});
	nbd_set_debug(nbd, true);
	nbd_set_opt_mode(nbd, true);
	nbd_set_full_info(nbd, true);
	if (key && set_tls(nbd, key, identity) < 0) {
		weft_error_set(err, EOPNOTSUPP, "libnbd cannot use a key: %s", nbd_get_error());
		nbd_close(nbd);
		return NULL;
	}
	const char *where = uri->socket[0] ? uri->socket : uri->host;
	weft_patience_begin("weft-list: waiting for an answer of %s, up to %d s (Ctrl-C gives up)",
		where, ANSWER_S);
	int r = uri->socket[0] ? nbd_aio_connect_unix(nbd, uri->socket)
			       : nbd_aio_connect_tcp(nbd, uri->host, uri->port);
	int error = r < 0 ? nbd_error() : 0;
	while (!error && nbd_aio_is_connecting(nbd))
		error = step(nbd);
	/* A server that is fast enough is refused before the first step. */
	if (!error && (nbd_aio_is_dead(nbd) || nbd_aio_is_closed(nbd)))
		error = nbd_error();
	weft_patience_end();
	if (!error)
		return nbd;
	switch (error) {
	case ECONNREFUSED:
		weft_error_set(err, ECONNREFUSED,
			"no donor at %s%s%s: connection refused; is weft serve running there?",
			where, uri->socket[0] ? "" : " port ", uri->socket[0] ? "" : uri->port);
		break;
	case EHOSTUNREACH:
		weft_error_set(err, EHOSTUNREACH,
			"no donor at %s: it cannot be looked up or reached", where);
		break;
	case ENOENT:
		weft_error_set(err, ENOENT, "no donor at %s: there is no such socket", where);
		break;
	default:
		if (key && error == EPROTO && !server_said[0])
			weft_error_set(err, EKEYREJECTED,
				"cannot list %s: it does not accept the %s%s, of %s; was it "
				"revoked or rotated, or has it expired? weft key list shows keys "
				"at the donor",
				where, identity[0] ? "key of " : "certificate", identity,
				weft_held_key_file(key));
		else if (key && server_said[0])
			weft_error_set(err, error,
				"cannot list %s: %s; there is a key for it, of %s; to go on in "
				"plaintext, without a key, add --allow-insecure",
				where, reason(error), weft_held_key_file(key));
		else
			weft_error_set(err, error, "cannot list %s: %s", where, reason(error));
	}
	nbd_close(nbd);
	return NULL;
}

/* The region's, of the last welcome; 0: there was none. */
static uint64_t epoch_said;
static bool mark_said;
static struct weft_marked mark;

/* A server that knows nothing of weft is an NBD server over TCP. */
static int one_context(void *user, const char *name)
{
	struct weft_welcome welcome;

	if (weft_welcome_parse(name, strlen(name), &welcome) < 0)
		return 0;
	memcpy(user, welcome.offers, sizeof(welcome.offers));
	epoch_said = welcome.epoch;
	/* The same region's welcome of version 0 says nothing of it. */
	if (welcome.marks == WEFT_MARKS) {
		mark_said = true;
		mark = welcome.mark;
	}
	return 0;
}

/* *ret stays untouched if the server does not know the answer. */
static void ask(struct nbd_handle *nbd, const char *query, int (*fn)(void *user, const char *name),
	char *ret)
{
	nbd_add_meta_context(nbd, query);
	await_answer(nbd,
		nbd_aio_opt_list_meta_context(nbd,
			(nbd_context_callback){.callback = fn, .user_data = ret}, begin_answer()));
	nbd_clear_meta_contexts(nbd);
}

/* A donor answers a hello with its offers.  It grants nothing before a region is opened. */
static void ask_offers(struct nbd_handle *nbd, char *offers)
{
	struct weft_hello hello = {.generation = 1, .mode = WEFT_MODE_SHARED, .name = "weft-list"};
	char query[WEFT_CONTEXT_MAX], before[64];

	strcpy(before, offers);
	weft_random(hello.id, sizeof(hello.id));
	weft_hello_format(&hello, query);
	ask(nbd, query, one_context, offers);
	if (strcmp(offers, before) != 0)
		return;
	/* A donor of version 0 does not understand the hello of today. */
	hello.version0 = true;
	weft_hello_format(&hello, query);
	ask(nbd, query, one_context, offers);
}

static int one_tenure(void *user, const char *name)
{
	size_t n = strlen(WEFT_CONTEXT_TENURE);

	if (strncmp(name, WEFT_CONTEXT_TENURE, n) == 0 && strlen(name + n) == TENURE_LEN &&
		strspn(name + n, "0123456789abcdef") == TENURE_LEN)
		strcpy(user, name + n);
	return 0;
}

/* offers: "" until they are known; they are the same for all regions of a donor. */
static json_t *describe(struct nbd_handle *nbd, const char *name, const char *description,
	char *offers, bool with_tenure)
{
	char epoch[TENURE_LEN + 1];

	char tenure[TENURE_LEN + 1] = "";
	json_t *json = json_pack("{s:s, s:s}", "name", name, "description", description);

	server_said[0] = '\0';
	nbd_set_export_name(nbd, name);
	int error = await_answer(nbd, nbd_aio_opt_info(nbd, begin_answer()));
	if (error) {
		json_object_set_new(json, "error", json_string(reason(error)));
		return json;
	}
	json_object_set_new(json, "size_bytes", json_integer(nbd_get_size(nbd)));
	json_object_set_new(json, "read_only", json_boolean(nbd_is_read_only(nbd) > 0));
	if (!description[0]) {
		char *text = nbd_get_export_description(nbd);

		if (text)
			json_object_set_new(json, "description", json_string(text));
		free(text);
	}
	/* A server that said none of its first region is no donor. */
	bool again = with_tenure && epoch_said;
	epoch_said = 0;
	mark_said = false;
	if (!*offers || again) {
		strcpy(offers, tp_base_driver()->word);
		ask_offers(nbd, offers);
	}
	json_object_set_new(json, "offers", json_string(offers));
	snprintf(epoch, sizeof(epoch), "%016" PRIx64, epoch_said);
	json_object_set_new(json, "epoch", epoch_said ? json_string(epoch) : json_null());
	json_object_set_new(json, "marked",
		mark_said ? json_boolean(weft_is_marked(mark.number)) : json_null());
	json_object_set_new(json, "mark_s",
		mark_said ? json_real((double)mark.age_ms / 1e3) : json_null());
	if (with_tenure)
		ask(nbd, WEFT_CONTEXT_TENURE, one_tenure, tenure);
	json_object_set_new(json, "tenure", tenure[0] ? json_string(tenure) : json_null());
	return json;
}

static void hang_up(struct nbd_handle *nbd)
{
	if (nbd && nbd_aio_is_negotiating(nbd))
		nbd_aio_opt_abort(nbd); /* a goodbye; nobody waits for its answer */
	nbd_close(nbd);
}

static int connect_again(const struct weft_uri *uri, struct weft_held_key *key,
	struct nbd_handle **nbd, struct weft_error *err)
{
	hang_up(*nbd);
	*nbd = connect_to(uri, key, err);
	return *nbd ? 0 : -err->code;
}

/* Asks the donor for a region that its list left out, and appends it if the donor has it. */
static int append_by_name(struct nbd_handle *nbd, const char *name, char *offers, json_t *array)
{
	json_t *json = describe(nbd, name, "", offers, true);

	if (json_object_get(json, "error") && answer.error == ENOENT) {
		json_decref(json);
		return 0;
	}
	return json_array_append_new(array, json);
}

/* Appends what is known of each region that the URI means.  cut_off: the donor may have more. */
static int describe_all(const struct weft_uri *uri, struct weft_held_key *key,
	struct nbd_handle **nbd, const struct exports *exports, bool cut_off, json_t *array,
	struct weft_error *err)
{
	const bool with_tenure = uri->region[0] || exports->nr <= MAX_TENURES;
	char offers[64] = "";

	for (size_t i = 0, asked = 0; i < exports->nr; i++) {
		const char *name = exports->names[i];

		if (uri->region[0] && strcmp(uri->region, name) != 0)
			continue;
		if (++asked % PER_CONNECTION == 0) {
			int r = connect_again(uri, key, nbd, err);

			if (r < 0)
				return r;
		}
		json_t *json = describe(*nbd, name, exports->descriptions[i], offers, with_tenure);
		if (json_array_append_new(array, json) < 0)
			return weft_error_set(err, ENOMEM, "cannot list: out of memory");
		if (!nbd_aio_is_negotiating(*nbd)) {
			int error = answer.error ? answer.error : EPROTO;

			return weft_error_set(err, error, "cannot list: %s", reason(error));
		}
	}
	if (uri->region[0] && json_array_size(array) == 0 && cut_off &&
		append_by_name(*nbd, uri->region, offers, array) < 0)
		return weft_error_set(err, ENOMEM, "cannot list: out of memory");
	if (uri->region[0] && json_array_size(array) == 0)
		return weft_error_set(err, ENOENT, "there is no region '%s' there", uri->region);
	return 0;
}

static void free_exports(struct exports *exports)
{
	for (size_t i = 0; i < exports->nr; i++) {
		free(exports->names[i]);
		free(exports->descriptions[i]);
	}
	free(exports->names);
	free(exports->descriptions);
}

/* Whether the server is reached neither over loopback nor over a Unix socket. */
static bool is_elsewhere(struct nbd_handle *nbd)
{
	struct sockaddr_storage address;
	struct sockaddr *peer = (struct sockaddr *)&address;
	socklen_t len = sizeof(address);

	return getpeername(nbd_aio_get_fd(nbd), peer, &len) == 0 && peer->sa_family != AF_UNIX &&
	       !weft_address_is_loopback(peer);
}

/*
 * *ret_cut_off: the donor has more regions than it lists, or than we keep.  Never set when one
 * region was asked for: that one is found by its name.
 * *ret_asks_nobody: it told all that without a key, to one who may be on another machine.
 */
static int list(const struct weft_uri *uri, struct weft_held_key *key, json_t **ret,
	bool *ret_cut_off, bool *ret_asks_nobody, struct weft_error *err)
{
	struct exports exports = {0};
	struct nbd_handle *nbd = connect_to(uri, key, err);
	int r;

	if (!nbd)
		return -err->code;
	*ret_asks_nobody = !key && is_elsewhere(nbd);
	json_t *array = json_array();
	int error = await_answer(nbd,
		nbd_aio_opt_list(nbd,
			(nbd_list_callback){.callback = one_export, .user_data = &exports},
			begin_answer()));
	/* A donor that has more regions than it lists ends its answer with an error. */
	bool cut_off = exports.cut_off || (error && exports.nr > 0 && nbd_aio_is_negotiating(nbd));
	if (error && !cut_off)
		r = weft_error_set(err, error, "cannot list: %s", reason(error));
	else if (exports.no_memory || !array)
		r = weft_error_set(err, ENOMEM, "cannot list: out of memory");
	else
		r = describe_all(uri, key, &nbd, &exports, cut_off, array, err);
	free_exports(&exports);
	hang_up(nbd);
	if (r < 0) {
		json_decref(array);
		return r;
	}
	*ret = array;
	*ret_cut_off = cut_off && !uri->region[0];
	return 0;
}

static const char *text_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : "";
}

/* In columns of a terminal, or nearly: letters of UTF-8, not bytes. */
static size_t letters(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static void print_name(const char *name, size_t width)
{
	size_t n = letters(name);

	printf("%s%*s  ", name, n < width ? (int)(width - n) : 0, "");
}

/* A server's text must not give orders to a terminal. */
static void print_row(const json_t *json, size_t width, size_t offers_width)
{
	const char *error = json_string_value(json_object_get(json, "error"));
	char size[32];

	print_name(weft_printable(strdupa(text_of(json, "name"))), width);
	if (error) {
		printf("cannot be used: %s\n", weft_printable(strdupa(error)));
		return;
	}
	const char *tenure = text_of(json, "tenure");
	printf("%10s  %-10s %-*s  %-16s  %s\n",
		weft_format_size((uint64_t)json_integer_value(json_object_get(json, "size_bytes")),
			size, sizeof(size)),
		json_is_true(json_object_get(json, "read_only")) ? "read-only" : "read-write",
		(int)offers_width, text_of(json, "offers"), tenure[0] ? tenure : "-",
		weft_printable(strdupa(text_of(json, "description"))));
}

static void print_table(const json_t *array)
{
	size_t i, width = 6, offers_width = 8;
	json_t *json;

	if (json_array_size(array) == 0) {
		puts("no regions");
		return;
	}
	json_array_foreach(array, i, json) {
		width = weft_max(width, letters(text_of(json, "name")));
		offers_width = weft_max(offers_width, strlen(text_of(json, "offers")));
	}
	width = weft_min(width, MAX_WIDTH);
	printf("%-*s  %10s  %-10s %-*s  %-16s  %s\n", (int)width, "REGION", "SIZE", "ACCESS",
		(int)offers_width, "OFFERED", "TENURE", "WHAT");
	json_array_foreach(array, i, json)
		print_row(json, width, offers_width);
}

/* The commands by which programs without weft have the regions.  False: there are none. */
static bool print_lines(const json_t *array, const struct weft_uri *uri,
	const struct tp_driver *driver)
{
	char line[400];
	json_t *json;
	size_t i;
	bool any = false;

	json_array_foreach(array, i, json) {
		uint64_t epoch = strtoull(text_of(json, "epoch"), NULL, 16);
		uint64_t tenure = strtoull(text_of(json, "tenure"), NULL, 16);

		if (!epoch || !tenure ||
			driver->region_line(uri->host, text_of(json, "offers"),
				text_of(json, "name"), epoch, tenure, line, sizeof(line)) < 0)
			continue;
		if (!uri->region[0])
			printf("# %s\n", weft_printable(strdupa(text_of(json, "name"))));
		puts(line);
		any = true;
	}
	return any;
}

struct list_options {
	const char *uri, *key_file, *line;
	bool json, allow_insecure;
};

static const struct weft_option options[] = {
	{NULL, "URI", "of a donor, or of one region", WEFT_OPTION_ARGUMENT,
		.into = offsetof(struct list_options, uri), .completion = WEFT_COMPLETE_URI,
		.wants = "which donor? Give its URI, such as weft://HOST"},
	{"json", NULL, "as JSON", WEFT_OPTION_FLAG, .into = offsetof(struct list_options, json)},
	{"line", "TRANSPORT",
		"instead, the commands by which machines without weft have the regions\n"
		"over TRANSPORT (srp)",
		WEFT_OPTION_TEXT, .into = offsetof(struct list_options, line)},
	{"key", "FILE",
		"the key that the donor knows (default: $WEFT_KEY,\n"
		"~/.config/weft/key, /etc/weft/key)",
		WEFT_OPTION_TEXT, .into = offsetof(struct list_options, key_file),
		.completion = WEFT_COMPLETE_FILE},
	{"allow-insecure", NULL, "use no key: in plaintext, with a donor that proves nothing",
		WEFT_OPTION_FLAG, .into = offsetof(struct list_options, allow_insecure)},
	{0},
};

/* WEFT_GO_ON, or the exit status. */
static int parse(int argc, char **argv, struct list_options *o, struct weft_uri *uri,
	const struct tp_driver **ret_driver)
{
	struct weft_command_line line = {
		.command = "list",
		.synopsis = "URI [--json | --line TRANSPORT] [--key FILE | --allow-insecure]",
		.about = "Shows what a donor lends.  URI: weft://HOST[:PORT] "
			 "or weft+unix:///?socket=PATH, or the same with\n"
			 "nbd for another NBD server.",
		.tables = {{options, o}},
		.surplus = "one URI at a time",
		.noun = "a URI",
	};
	struct weft_error err;
	int r = weft_options_parse(&line, argc, argv);

	if (r != WEFT_GO_ON)
		return r;
	if (weft_uri_parse(o->uri, uri, &err) < 0)
		return weft_usage_error("%s", err.message);
	if (o->line) {
		*ret_driver = tp_driver_of_word(o->line);
		if (!*ret_driver || !(*ret_driver)->region_line)
			return weft_usage_error("there are no lines of '%s'", o->line);
		if (o->json || uri->socket[0])
			return weft_usage_error(o->json ? "--line and --json exclude each other"
				: "--line wants a donor on the network: weft://HOST");
	}
	if (uri->driver && uri->driver != tp_base_driver() && uri->foreign)
		return weft_usage_error("%s tells nobody what it has: whoever runs it does; weft "
					"list asks donors and NBD servers, such as weft://HOST",
			uri->scheme->server);
	if (uri->driver && uri->driver != tp_base_driver())
		return weft_usage_error(
			"a donor tells what it lends over %s; give its URI, such as weft://HOST",
			tp_base_driver()->label);
	return WEFT_GO_ON;
}

int main(int argc, char **argv)
{
	struct list_options o = {0};
	struct weft_error err = {0};
	struct weft_held_key *key = NULL;
	struct weft_uri uri = {0};
	json_t *array = NULL;
	bool cut_off = false, asks_nobody = false;

	weft_process_begin();
	const struct tp_driver *driver = NULL;
	int r = parse(argc, argv, &o, &uri, &driver);
	if (r != WEFT_GO_ON) {
		weft_uri_fini(&uri);
		return r;
	}
	r = weft_uri_key(&uri, o.key_file, o.allow_insecure, &key, &err);
	if (r == 0)
		r = list(&uri, key, &array, &cut_off, &asks_nobody, &err);
	weft_held_key_close(key);
	if (r == 0 && asks_nobody)
		fprintf(stderr,
			"weft-list: warning: %s asks for no key: whoever reaches it gets what it "
			"lends\n",
			uri.host);
	bool printed = r < 0 || !driver || print_lines(array, &uri, driver);
	weft_uri_fini(&uri);
	if (r < 0) {
		fprintf(stderr, "weft-list: %s\n", err.message);
		return 1;
	}
	if (!printed) {
		fprintf(stderr, "weft-list: nothing there is lent over %s\n", driver->label);
		return 1;
	}
	if (o.json) {
		json_dumpf(array, stdout, JSON_INDENT(2));
		putchar('\n');
	} else if (!driver) {
		print_table(array);
	}
	if (cut_off) {
		fflush(stdout);
		fprintf(stderr,
			"weft-list: there are more regions: these %zu are not all; ask for one by "
			"its name\n",
			json_array_size(array));
	}
	json_decref(array);
	return weft_end_output("weft-list", cut_off);
}
