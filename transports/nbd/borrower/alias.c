/* SPDX-License-Identifier: MIT */
/* See alias.h. */
#include "transports/nbd/borrower/alias.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "transports/nbd/borrower/dial.h"

/* The socket, or -errno. */
static int talk_as_stock_client(const struct nbd_dial *dial, const char *export,
	struct nbd_talk *talk, struct weft_error *err)
{
	const struct nbd_talk_wish wish = {
		.region = export, .hello.anonymous = true, .simple = true};
	struct nbd_stream stream = {.fd = nbd_dial(dial, err)};

	if (stream.fd < 0)
		return stream.fd;
	int r = nbd_dial_talk(dial, &stream, talk, &wish);
	/* Whoever goes on with the socket waits in its calls. */
	if (r == 0 && fcntl(stream.fd, F_SETFL, 0) < 0)
		r = weft_error_set(&talk->error, errno, "fcntl: %s", strerror(errno));
	if (r == 0)
		return stream.fd;
	*err = talk->error;
	close(stream.fd);
	return r;
}

int nbd_open_alias(const char *host, const char *port, const uint8_t *alias, uint32_t timeout_ms,
	uint32_t dead_ms, struct tp_info *ret, struct weft_error *err)
{
	const struct nbd_dial dial = {
		.host = host,
		.port = port,
		.timeout_ms = timeout_ms,
		.deadline_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000),
		.dead_ms = dead_ms,
		.cancel_fd = -1,
	};
	struct nbd_talk *talk = malloc(sizeof(*talk));
	char export[WEFT_EXPORT_ALIAS_MAX];

	if (!talk)
		return weft_error_set(err, ENOMEM, "cannot connect to %s: no memory", host);
	weft_alias_format(alias, export);
	int fd = talk_as_stock_client(&dial, export, talk, err);
	if (fd >= 0) {
		*ret = talk->info;
		strcpy(ret->transport, "tcp");
		nbd_dial_describe(&dial, fd, ret->path, sizeof(ret->path));
	}
	explicit_bzero(export, sizeof(export));
	explicit_bzero(talk, sizeof(*talk));
	free(talk);
	return fd;
}
