/* SPDX-License-Identifier: MIT */
/* Replies to options, queued in conn->tx. Owned by the connection's thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/nbd/conn.h"

static int reserve(struct nbd_conn *conn, size_t n)
{
	size_t cap = conn->tx_cap;

	if (conn->tx_len + n <= cap)
		return 0;
	while (cap < conn->tx_len + n)
		cap = cap ? 2 * cap : 1024;
	uint8_t *tx = realloc(conn->tx, cap);
	if (!tx)
		return -ENOMEM;
	conn->tx = tx;
	conn->tx_cap = cap;
	return 0;
}

uint8_t *nbd_tx_append(struct nbd_conn *conn, size_t n)
{
	if (reserve(conn, n) < 0)
		return NULL;
	conn->tx_len += n;
	return conn->tx + conn->tx_len - n;
}

int nbd_option_reply_data(struct nbd_conn *conn, uint32_t type, uint32_t len, uint8_t **ret_data)
{
	uint8_t *p = nbd_tx_append(conn, NBD_OPTION_REPLY_BYTES + len);

	if (!p)
		return -ENOMEM;
	nbd_pack_option_reply(p, conn->option.option, type, len);
	*ret_data = p + NBD_OPTION_REPLY_BYTES;
	return 0;
}

int nbd_option_reply(struct nbd_conn *conn, uint32_t type, const char *text)
{
	const size_t len = text ? strlen(text) : 0;
	uint8_t *data;
	int r;

	r = nbd_option_reply_data(conn, type, (uint32_t)len, &data);
	if (r == 0 && len > 0)
		memcpy(data, text, len);
	return r;
}

int nbd_option_error(struct nbd_conn *conn, uint32_t type, const char *text)
{
	conn->tx_len = conn->option_start;
	return nbd_option_reply(conn, type, text);
}

int nbd_option_refuse(struct nbd_conn *conn, int error, const struct weft_error *err)
{
	const char *word = weft_refusal_word(-error, conn->have_hello && conn->hello.version0);
	const char *code = word ? word : strerrorname_np(-error);
	char text[64 + sizeof(err->message)];

	if (error == -ENOENT)
		return nbd_option_error(conn, NBD_REP_ERR_UNKNOWN,
			err->code ? err->message : "no such export");
	if (error == -ESHUTDOWN)
		return nbd_option_error(conn, NBD_REP_ERR_SHUTDOWN, "the server is stopping");
	/* A weft client finds the code from the head of the text. */
	snprintf(text, sizeof(text), "%s: %s", code ? code : "EIO",
		err->code ? err->message : strerror(-error));
	return nbd_option_error(conn, NBD_REP_ERR_POLICY, text);
}
