/* SPDX-License-Identifier: MIT */
#include "fabric/pool/etcd.h"

#include <curl/curl.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/pool/curl.h"

enum {
	CONNECT_MS = 1000,
	ANSWER_MAX = 64 << 20,
};

struct etcd {
	CURL *curl;
	struct curl_slist *headers;
	char *endpoints[ETCD_ENDPOINTS_MAX];
	unsigned nr, at; /* at: which is asked next */
	char why[CURL_ERROR_SIZE];
};

/* ---- life ---- */

static int parse_endpoints(struct etcd *e, const char *text, struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *copy = strdup(text);
	char *at = copy, *one;

	while (copy && (one = strsep(&at, ","))) {
		const size_t len = strlen(one);

		if (e->nr == ETCD_ENDPOINTS_MAX ||
			(strncmp(one, "http://", 7) != 0 && strncmp(one, "https://", 8) != 0) ||
			strcspn(strstr(one, "://") + 3, "/?#@ ") <
				len - (size_t)(strstr(one, "://") + 3 - one))
			return weft_error_set(err, EINVAL,
				"'%.100s' is no endpoint of etcd: http://HOST:PORT or https://…, "
				"with commas between them",
				one);
		e->endpoints[e->nr] = strdup(one);
		if (!e->endpoints[e->nr])
			break;
		e->nr++;
	}
	return copy && e->nr > 0 ? 0 : weft_error_set(err, ENOMEM, "no memory");
}

int etcd_new(const char *endpoints, const char *certificates, struct etcd **ret,
	struct weft_error *err)
{
	struct etcd *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return weft_error_set(err, ENOMEM, "no memory");
	r = parse_endpoints(e, endpoints, err);
	if (r == 0) {
		e->curl = pool_curl_new(e->why);
		e->headers = curl_slist_append(NULL, "Content-Type: application/json");
		if (!e->curl || !e->headers)
			r = weft_error_set(err, ENOMEM, "no memory");
	}
	if (r == 0 && certificates)
		r = pool_curl_trust(e->curl, certificates, err);
	if (r < 0)
		etcd_free(e);
	else
		*ret = e;
	return r;
}

void etcd_free(struct etcd *e)
{
	if (!e)
		return;
	if (e->curl)
		curl_easy_cleanup(e->curl);
	curl_slist_free_all(e->headers);
	while (e->nr > 0)
		free(e->endpoints[--e->nr]);
	free(e);
}

/* ---- questions ---- */

/* Nothing of it has reached the other side. */
static bool was_not_asked(struct etcd *e, CURLcode code)
{
	long sent = 1;

	if (code == CURLE_OPERATION_TIMEDOUT)
		curl_easy_getinfo(e->curl, CURLINFO_REQUEST_SIZE, &sent);
	return sent == 0 || code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST ||
		code == CURLE_SSL_CONNECT_ERROR || code == CURLE_PEER_FAILED_VERIFICATION;
}

static int understand(struct etcd *e, long status, const struct pool_answer *answer, json_t **ret,
	struct weft_error *err)
{
	json_t *json = answer->text ? json_loadb(answer->text, answer->len, 0, NULL) : NULL;
	const char *error = json_string_value(json_object_get(json, "error"));
	int r = -EPROTO;

	if (status == 200 && json_is_object(json) && !error) {
		*ret = json;
		return 0;
	}
	/* It was asked; what a server that has no leader did with the question is not known. */
	if (status >= 500 || (error && status != 400))
		r = -EINPROGRESS;
	weft_error_set(err, -r, "etcd at %s answered: %.200s (status %ld)", e->endpoints[e->at],
		error ? error : "nothing that makes sense", status);
	json_decref(json);
	return r;
}

static CURLcode perform(struct etcd *e, const char *path, const char *text,
	struct pool_answer *answer)
{
	char url[400];

	snprintf(url, sizeof(url), "%s%s", e->endpoints[e->at], path);
	curl_easy_setopt(e->curl, CURLOPT_URL, url);
	curl_easy_setopt(e->curl, CURLOPT_HTTPHEADER, e->headers);
	curl_easy_setopt(e->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	curl_easy_setopt(e->curl, CURLOPT_TIMEOUT_MS, (long)ETCD_ANSWER_MS);
	curl_easy_setopt(e->curl, CURLOPT_POSTFIELDS, text);
	curl_easy_setopt(e->curl, CURLOPT_POSTFIELDSIZE, (long)strlen(text));
	curl_easy_setopt(e->curl, CURLOPT_WRITEDATA, answer);
	e->why[0] = '\0';
	return curl_easy_perform(e->curl);
}

/* Takes the body. */
static int ask(struct etcd *e, const char *path, json_t *body, json_t **ret, struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	CURLcode code = CURLE_OK;
	bool is_asked = false;
	struct pool_answer answer = {.most = ANSWER_MAX};
	long status = 0;
	int r;

	json_decref(body);
	if (!text)
		return weft_error_set(err, ENOMEM, "no memory");
	for (unsigned i = 0; i < e->nr && !is_asked; i++) {
		e->at = (e->at + (i > 0)) % e->nr;
		code = perform(e, path, text, &answer);
		is_asked = !was_not_asked(e, code);
	}
	curl_easy_getinfo(e->curl, CURLINFO_RESPONSE_CODE, &status);
	if (code == CURLE_OK)
		r = understand(e, status, &answer, ret, err);
	else
		r = weft_error_set(err, is_asked ? EINPROGRESS : EHOSTUNREACH,
			"etcd at %s does not answer: %s", e->endpoints[e->at],
			e->why[0] ? e->why : curl_easy_strerror(code));
	/* It may be cut off from the others. */
	if (r == -EINPROGRESS)
		e->at = (e->at + 1) % e->nr;
	free(answer.text);
	return r;
}

/* ---- bytes ---- */

static json_t *coded(const void *bytes, size_t len)
{
	const gnutls_datum_t plain = {(void *)bytes, (unsigned)len};
	gnutls_datum_t text;

	if (gnutls_base64_encode2(&plain, &text) < 0)
		return NULL;
	json_t *ret = json_stringn((char *)text.data, text.size);
	gnutls_free(text.data);
	return ret;
}

static json_t *coded_text(const char *text)
{
	return coded(text, strlen(text));
}

/* With a zero behind it; to be freed.  NULL: it makes no sense, or there is no memory. */
static void *decoded(const json_t *json, size_t *ret_len)
{
	const gnutls_datum_t text = {(void *)json_string_value(json),
		(unsigned)json_string_length(json)};
	gnutls_datum_t plain = {NULL, 0};

	/* A value without bytes is left out. */
	if (text.size > 0 && gnutls_base64_decode2(&text, &plain) < 0)
		return NULL;
	char *ret = malloc(plain.size + 1);
	if (ret) {
		if (plain.size)
			memcpy(ret, plain.data, plain.size);
		ret[plain.size] = '\0';
		*ret_len = plain.size;
	}
	gnutls_free(plain.data);
	return ret;
}

/* The gateway writes numbers of 64 bits as texts. */
static int64_t number(const json_t *json, const char *key)
{
	const json_t *value = json_object_get(json, key);

	return json_is_string(value) ? strtoll(json_string_value(value), NULL, 10)
				     : json_integer_value(value);
}

static json_t *number_text(int64_t value)
{
	return json_sprintf("%lld", (long long)value);
}

/* ---- leases ---- */

int etcd_grant(struct etcd *e, int seconds, int64_t *ret_lease, struct weft_error *err)
{
	json_t *answer;
	int r = ask(e, "/v3/lease/grant", json_pack("{s:i}", "TTL", seconds), &answer, err);

	if (r < 0)
		return r;
	*ret_lease = number(answer, "ID");
	json_decref(answer);
	return *ret_lease ? 0 : weft_error_set(err, EPROTO, "etcd granted no lease");
}

int etcd_renew(struct etcd *e, int64_t lease, struct weft_error *err)
{
	json_t *answer;
	int r = ask(e, "/v3/lease/keepalive", json_pack("{s:o}", "ID", number_text(lease)), &answer,
		err);

	if (r < 0)
		return r;
	if (number(json_object_get(answer, "result"), "TTL") <= 0)
		r = weft_error_set(err, ESTALE, "the lease at etcd has ended");
	json_decref(answer);
	return r;
}

int etcd_revoke(struct etcd *e, int64_t lease, struct weft_error *err)
{
	json_t *answer;
	int r = ask(e, "/v3/lease/revoke", json_pack("{s:o}", "ID", number_text(lease)), &answer,
		err);

	if (r == 0)
		json_decref(answer);
	return r;
}

/* ---- keys ---- */

void etcd_values_free(struct etcd_value *values, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		free(values[i].key);
		free(values[i].bytes);
	}
	free(values);
}

int etcd_list(struct etcd *e, const char *from, const char *below, int most,
	struct etcd_value **ret, size_t *ret_nr, struct weft_error *err)
{
	json_t *answer, *one;
	size_t i, unused;
	bool good = true;
	int r = ask(e, "/v3/kv/range",
		json_pack("{s:o, s:o, s:i}", "key", coded_text(from), "range_end",
			coded_text(below), "limit", most),
		&answer, err);

	if (r < 0)
		return r;
	const json_t *kvs = json_object_get(answer, "kvs");
	struct etcd_value *values = calloc(json_array_size(kvs) + 1, sizeof(*values));
	json_array_foreach(values ? kvs : NULL, i, one) {
		values[i].key = decoded(json_object_get(one, "key"), &unused);
		values[i].bytes = decoded(json_object_get(one, "value"), &values[i].len);
		good = good && values[i].key && values[i].bytes;
	}
	*ret = values;
	*ret_nr = json_array_size(kvs);
	if (!values || !good) {
		etcd_values_free(values, values ? *ret_nr : 0);
		r = weft_error_set(err, EPROTO, "etcd answered no values that make sense");
	}
	json_decref(answer);
	return r;
}

/* The comparison of a key's first revision; 0: there is no such key. */
static json_t *compare(const char *key, int64_t revision)
{
	return json_pack("[{s:o, s:s, s:s, s:o}]", "key", coded_text(key), "target", "CREATE",
		"result", "EQUAL", "create_revision", number_text(revision));
}

/* 0; -ESTALE: the comparison does not hold. */
static int txn(struct etcd *e, json_t *compared, json_t *then, int64_t *ret_revision,
	struct weft_error *err)
{
	json_t *answer;
	int r = ask(e, "/v3/kv/txn", json_pack("{s:o, s:o}", "compare", compared, "success", then),
		&answer, err);

	if (r < 0)
		return r;
	if (ret_revision)
		*ret_revision = number(json_object_get(answer, "header"), "revision");
	if (!json_is_true(json_object_get(answer, "succeeded")))
		r = -ESTALE;
	json_decref(answer);
	return r;
}

int etcd_claim(struct etcd *e, const char *key, const char *value, int64_t lease,
	int64_t *ret_revision, struct weft_error *err)
{
	int r = txn(e, compare(key, 0),
		json_pack("[{s:{s:o, s:o, s:o}}]", "request_put", "key", coded_text(key), "value",
			coded_text(value), "lease", number_text(lease)),
		ret_revision, err);

	return r == -ESTALE ? weft_error_set(err, EEXIST, "%s is there", key) : r;
}

static json_t *change_json(const struct etcd_change *c)
{
	if (c->below)
		return json_pack("{s:{s:o, s:o}}", "request_delete_range", "key",
			coded_text(c->key), "range_end", coded_text(c->below));
	return json_pack("{s:{s:o, s:o}}", "request_put", "key", coded_text(c->key), "value",
		coded(c->bytes, c->len));
}

int etcd_change(struct etcd *e, const char *claim, int64_t revision,
	const struct etcd_change *changes, size_t nr, struct weft_error *err)
{
	json_t *then = json_array();

	for (size_t i = 0; i < nr; i++)
		if (json_array_append_new(then, change_json(&changes[i])) < 0) {
			json_decref(then);
			return weft_error_set(err, ENOMEM, "no memory");
		}
	int r = txn(e, compare(claim, revision), then, NULL, err);
	return r == -ESTALE ? weft_error_set(err, ESTALE, "this coordinator leads no longer") : r;
}
