/* SPDX-License-Identifier: MIT */
#include "fabric/pool/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/key/find.h"
#include "fabric/key/token.h"
#include "fabric/pool/curl.h"

enum {
	PLACES_MAX = 5,
	ANSWER_MAX = 64 << 20,
	TOKEN_GOOD_FOR_S = 300,
	CONNECT_MS = 5000,
};

/* Where a coordinator is. */
struct place {
	bool tls;
	char *socket;   /* a Unix socket's path, or NULL */
	char *identity; /* of the key that is meant; NULL: it is not said */
	char *base;     /* what paths are put behind */
};

struct pool_client {
	CURL *curl;
	char *url; /* as it was given */
	struct place places[PLACES_MAX];
	unsigned nr_places, at;   /* at: which answered last */
	struct weft_key key;      /* secret_bytes 0: none */
	bool key_is_for_loopback; /* too: it was asked for */
	bool (*is_over)(void *ctx);
	void *ctx;
	char why[CURL_ERROR_SIZE];
};

int pool_default_socket(char *buf, size_t len)
{
	char dir[108];
	int r = weft_run_dir(dir, sizeof(dir));

	if (r == 0 && snprintf(buf, len, "unix:%s/pool.sock", dir) >= (int)len)
		r = -ENAMETOOLONG;
	return r;
}

/* ---- where it is ---- */

static void place_fini(struct place *place)
{
	free(place->socket);
	free(place->identity);
	free(place->base);
}

/* An address of this machine, or its name; perhaps with a port. */
static bool is_loopback(const char *host)
{
	const size_t len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
	char name[64];
	struct in_addr address;

	if (len >= sizeof(name))
		return false;
	snprintf(name, sizeof(name), "%.*s", (int)len, host);
	return strcasecmp(name, "localhost") == 0 || strcmp(name, "[::1]") == 0 ||
		(inet_pton(AF_INET, name, &address) == 1 &&
			ntohl(address.s_addr) >> 24 == IN_LOOPBACKNET);
}

/* Whether behind the host, which may be an address in brackets, there is a port. */
static bool has_port(const char *host)
{
	const char *bracket = strchr(host, ']');

	return strchr(bracket ? bracket : host, ':') != NULL;
}

static int no_url(const char *url, struct weft_error *err)
{
	return weft_error_set(err, EINVAL,
		"'%.200s' is no coordinator: say https://HOST[:PORT], unix:/PATH, or for one on "
		"this machine http://127.0.0.1:PORT",
		url);
}

static int parse_url(const char *url, struct place *ret, struct weft_error *err)
{
	*ret = (struct place){.tls = strncmp(url, "https://", 8) == 0};
	if (strncmp(url, "unix:/", 6) == 0) {
		ret->socket = strdup(url + 5);
		ret->base = strdup("http://pool");
		return ret->socket && ret->base ? 0 : weft_error_set(err, ENOMEM, "no memory");
	}
	if (!ret->tls && strncmp(url, "http://", 7) != 0)
		return no_url(url, err);
	const char *host = strstr(url, "://") + 3, *at = strchr(host, '@');
	size_t len = strlen(at ? at + 1 : host);
	if (at) {
		ret->identity = strndup(host, (size_t)(at - host));
		host = at + 1;
		if (!ret->identity || !weft_identity_valid(ret->identity))
			return no_url(url, err);
	}
	if (len > 0 && host[len - 1] == '/')
		len--;
	if (len == 0 || strcspn(host, "/?#@ ") < len)
		return no_url(url, err);
	if (!ret->tls && !is_loopback(host))
		return weft_error_set(err, EINVAL,
			"'%.200s': what is said in plaintext stays on this machine; say https://",
			url);
	if (asprintf(&ret->base, has_port(host) ? "%s://%.*s" : "%s://%.*s:%d",
		    ret->tls ? "https" : "http", (int)len, host, POOL_PORT) < 0) {
		ret->base = NULL;
		return weft_error_set(err, ENOMEM, "no memory");
	}
	return 0;
}

/* ---- who we are ---- */

/*
 * Over HTTPS whatever key there is; over loopback, where the kernel says who we are, one that is
 * asked for.
 */
static int find_key(struct pool_client *c, const struct pool_client_config *config,
	struct weft_error *err)
{
	const char *identity = NULL;
	bool tls = false, network = false;
	int r;

	for (unsigned i = 0; i < c->nr_places; i++) {
		tls |= c->places[i].tls;
		network |= !c->places[i].socket;
		if (!identity)
			identity = c->places[i].identity;
	}
	c->key_is_for_loopback = config->key || identity;
	if (!network || (!tls && !c->key_is_for_loopback))
		return 0;
	r = weft_key_find(config->key, identity, &c->key, err);
	return r == -ENOENT && !c->key_is_for_loopback ? 0 : r;
}

/* ---- life ---- */

static int on_progress(void *ctx, curl_off_t a, curl_off_t b, curl_off_t d, curl_off_t e)
{
	const struct pool_client *c = ctx;

	return c->is_over && c->is_over(c->ctx);
}

static void set_up(struct pool_client *c)
{
	curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	curl_easy_setopt(c->curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(c->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(c->curl, CURLOPT_XFERINFODATA, c);
}

/* One URL, or several with commas between them. */
static int parse_urls(struct pool_client *c, struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *copy = strdup(c->url);
	char *at = copy, *one;
	int r = copy ? 0 : weft_error_set(err, ENOMEM, "no memory");

	while (r == 0 && (one = strsep(&at, ","))) {
		if (c->nr_places == PLACES_MAX)
			return weft_error_set(err, EINVAL, "a pool has %d coordinators at most",
				PLACES_MAX);
		r = parse_url(one, &c->places[c->nr_places++], err);
	}
	return r;
}

int pool_client_new(const struct pool_client_config *config, struct pool_client **ret,
	struct weft_error *err)
{
	const char *url = config->url ? config->url : getenv("WEFT_POOL");
	char own[128];
	int r = url ? 0 : pool_default_socket(own, sizeof(own));

	if (r < 0)
		return weft_error_set(err, -r, "there is no run directory: %s", strerror(-r));
	struct pool_client *c = calloc(1, sizeof(*c));
	if (c) {
		c->curl = pool_curl_new(c->why);
		c->url = strdup(url ? url : own);
	}
	if (!c || !c->curl || !c->url)
		r = weft_error_set(err, ENOMEM, "no memory");
	if (r == 0)
		r = parse_urls(c, err);
	if (r == 0) {
		set_up(c);
		r = find_key(c, config, err);
	}
	const char *trusted =
		config->certificates ? config->certificates : getenv("WEFT_POOL_CERTIFICATES");
	if (r == 0 && trusted)
		r = pool_curl_trust(c->curl, trusted, err);
	if (r < 0)
		pool_client_free(c);
	else
		*ret = c;
	return r;
}

void pool_client_free(struct pool_client *c)
{
	if (!c)
		return;
	if (c->curl)
		curl_easy_cleanup(c->curl);
	weft_key_wipe(&c->key);
	while (c->nr_places > 0)
		place_fini(&c->places[--c->nr_places]);
	free(c->url);
	free(c);
}

const char *pool_client_url(const struct pool_client *c)
{
	return c->url;
}

void pool_client_give_up(struct pool_client *c, bool (*is_over)(void *ctx), void *ctx)
{
	c->is_over = is_over;
	c->ctx = ctx;
}

/* ---- questions ---- */

static int errno_of(const char *name)
{
	static const int codes[] = {EACCES, ENOENT, EEXIST, EBUSY, ESTALE, EINVAL, ENOSPC, EDQUOT,
		ENOSYS, ENOMEM, EFBIG, EAGAIN};

	for (size_t i = 0; name && i < WEFT_ARRAY_LEN(codes); i++)
		if (strcmp(name, strerrorname_np(codes[i])) == 0)
			return codes[i];
	return EIO;
}

static int understand(const struct pool_client *c, long status, const struct pool_answer *answer,
	json_t **ret, struct weft_error *err)
{
	json_t *json = answer->text ? json_loadb(answer->text, answer->len, 0, NULL) : NULL;
	const char *error = json_string_value(json_object_get(json, "error"));
	const char *code = json_string_value(json_object_get(json, "code"));
	int r = 0;

	if (status == 200 && json_is_object(json)) {
		*ret = json;
		return 0;
	}
	if (error)
		r = weft_error_set(err, errno_of(code), "%s", error);
	else
		r = weft_error_set(err, EPROTO, "%s is no coordinator of a pool (status %ld)",
			c->url, status);
	json_decref(json);
	return r;
}

/* NULL: no memory, or no token can be made. */
static struct curl_slist *headers(const struct pool_client *c, const struct place *place)
{
	struct curl_slist *list = curl_slist_append(NULL, "Content-Type: application/json"), *more;
	char token[WEFT_TOKEN_MAX], line[WEFT_TOKEN_MAX + 32];

	if (!list || !c->key.secret_bytes || place->socket ||
		(!place->tls && !c->key_is_for_loopback))
		return list;
	if (weft_token_make(&c->key, (int64_t)time(NULL) + TOKEN_GOOD_FOR_S, token) < 0)
		goto fail;
	snprintf(line, sizeof(line), "Authorization: Bearer %s", token);
	more = curl_slist_append(list, line);
	explicit_bzero(line, sizeof(line));
	if (more)
		return more;
fail:
	curl_slist_free_all(list);
	return NULL;
}

/* Asks this one. */
static int ask(struct pool_client *c, const struct place *place, const char *method,
	const char *path, const char *text, int timeout_ms, json_t **ret, struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *url = NULL;
	struct curl_slist *list = headers(c, place);
	struct pool_answer answer = {.most = ANSWER_MAX};
	long status = 0;
	int r = -ENOMEM;

	if (asprintf(&url, "%s%s", place->base, path) < 0)
		url = NULL;
	if (!url || !list) {
		curl_slist_free_all(list);
		return weft_error_set(err, ENOMEM, "no memory");
	}
	curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, place->socket);
	curl_easy_setopt(c->curl, CURLOPT_URL, url);
	curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(c->curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &answer);
	/* A request without a body is one of GET's form, whatever it is called. */
	curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, NULL);
	curl_easy_setopt(c->curl, CURLOPT_HTTPGET, 1L);
	if (text) {
		curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, text);
		curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE, (long)strlen(text));
	}
	c->why[0] = '\0';
	CURLcode code = curl_easy_perform(c->curl);
	curl_slist_free_all(list);
	curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
	if (code == CURLE_OK)
		r = understand(c, status, &answer, ret, err);
	else if (code == CURLE_ABORTED_BY_CALLBACK)
		r = weft_error_set(err, ECANCELED, "given up");
	else
		r = weft_error_set(err, EHOSTUNREACH, "the coordinator at %s does not answer: %s",
			c->url, c->why[0] ? c->why : curl_easy_strerror(code));
	free(answer.text);
	return r;
}

/* Of several coordinators one leads; the others say that they do not, and do nothing. */
int pool_client_ask(struct pool_client *c, const char *method, const char *path, const json_t *body,
	int timeout_ms, json_t **ret, struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	int r = -EHOSTUNREACH;

	if (body && !text)
		return weft_error_set(err, ENOMEM, "no memory");
	for (unsigned i = 0; i < c->nr_places && (r == -EHOSTUNREACH || r == -EAGAIN); i++) {
		c->at = (c->at + (i > 0)) % c->nr_places;
		/* 0 would be no limit. */
		r = ask(c, &c->places[c->at], method, path, text,
			weft_max(timeout_ms / (int)c->nr_places, 1), ret, err);
	}
	if (r == -EAGAIN)
		return weft_error_set(err, EHOSTUNREACH,
			"no coordinator leads now, and who is to lead does not answer yet");
	return r;
}
