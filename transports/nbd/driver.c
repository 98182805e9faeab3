/* SPDX-License-Identifier: MIT */
/* The row of the transport "nbd". */
#include "transports/nbd/driver.h"

#include <stdio.h>
#include <string.h>

#include "fabric/listen.h"
#include "transports/nbd/borrower/alias.h"
#include "transports/nbd/borrower/ask.h"
#include "transports/nbd/borrower/client.h"
#include "transports/nbd/borrower/question.h"
#include "transports/nbd/donor/serve.h"

static const struct tp_scheme schemes[] = {
	{
		.name = "nbd",
		.place = TP_AT_HOST,
		.foreign = true,
		.example = "nbd://192.0.2.7/export",
		.server = "an NBD server",
		.only = "an NBD server speaks TCP only",
		.why = "an NBD server offers nothing else",
	},
	{
		.name = "weft+unix",
		.place = TP_AT_SOCKET,
		.example = "weft+unix:///scratch?socket=/run/donor.sock",
		.only = "a Unix socket leads to this machine only",
		.why = "the donor is on this machine",
	},
	{
		.name = "nbd+unix",
		.place = TP_AT_SOCKET,
		.foreign = true,
		.example = "nbd+unix:///export?socket=/run/server.sock",
		.server = "an NBD server",
		.only = "an NBD server speaks TCP only",
		.why = "an NBD server offers nothing else",
	},
	{.name = NULL},
};

static void stock_line(const struct weft_listening *socket, const char *proof, char *buf,
	size_t len)
{
	char place[280];

	weft_listening_format(socket, place);
	if (*socket->socket)
		snprintf(buf, len, "any NBD client: nbd+unix:///NAME?socket=%s", socket->socket);
	else if (!proof)
		snprintf(buf, len, "any NBD client: nbd://%s/NAME", place);
	else if (strcmp(proof, "key") == 0)
		snprintf(buf, len,
			"any NBD client with a key: nbds://IDENTITY@%s/NAME?tls-psk-file=FILE",
			place);
	else
		snprintf(buf, len,
			"any NBD client with a certificate: nbds://%s/NAME?tls-certificates=DIR",
			place);
}

static const char *const encrypted_words[] = { "tcp+tls", "tcp+ktls", "unix+tls", NULL };

const struct tp_driver tp_nbd_driver = {
	.word = "tcp",
	.label = "TCP",
	.local_word = "unix",
	.encrypted_words = encrypted_words,
	.schemes = schemes,
	.ops = &tp_nbd_ops,
	.ask = nbd_ask,
	.question = nbd_put_question,
	.hang_up = nbd_hang_up,
	.open_alias = nbd_open_alias,
	.listener = &nbd_listener_ops,
	.stock_line = stock_line,
};
