/* SPDX-License-Identifier: MIT */
/* Messages of weft attach when it has attached, or could not.  On the main thread. */
#include "nbd-bridge/main/attach.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/key/held.h"
#include "fabric/driver.h"
#include "nbd-bridge/bridge/copies.h"
#include "nbd-bridge/cache/cache.h"
#include "nbd-bridge/cache/seal.h"
#include "nbd-bridge/link/follow.h"
#include "nbd-bridge/main/status-copies.h"

/* "%s; what to do". */
static void add_advice(struct weft_error *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void add_advice(struct weft_error *err, const char *fmt, ...)
{
	char advice[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(advice, sizeof(advice), fmt, ap);
	va_end(ap);
	weft_error_set(err, err->code, "%.*s; %s", (int)(sizeof(err->message) - strlen(advice) - 3),
		strdupa(err->message), advice);
}

int attach_explain_refusal(const struct attach *a, struct weft_error *err)
{
	const struct attach_options *o = &a->options;
	const struct weft_uri *uri = &o->donors[0].uri;
	const struct weft_held_key *key = a->find.donors[0].key;
	bool v6 = strchr(uri->host, ':');

	weft_error_prefix(err, "cannot attach %s", o->uri_text);
	switch (err->code) {
	case ECONNREFUSED:
		add_advice(err, "is %s running there?",
			uri->foreign ? uri->scheme->server : "weft serve");
		break;
	case ENOENT:
		if (!uri->driver && o->nr_donors == 1)
			add_advice(err, "to see its regions: weft list weft://%s%s%s:%s",
				v6 ? "[" : "", uri->host, v6 ? "]" : "", uri->port);
		break;
	case EROFS:
		add_advice(err, "add --read-only");
		break;
	case EACCES:
		if (!key)
			add_advice(
				err, "then put it into ~/.config/weft/key here, or say --key FILE");
		break;
	case EKEYREJECTED:
		if (key)
			add_advice(err, "the key is of %.200s", weft_held_key_file(key));
		break;
	case EPROTONOSUPPORT:
		if (key)
			add_advice(err,
				"there is a key for it, of %.200s; to go on in plaintext, without "
				"a key, add --allow-insecure",
				weft_held_key_file(key));
		break;
	case EBUSY:
		if (o->read_only && !o->shared && !uri->foreign)
			add_advice(err,
				"to read beside a writer, use --shared instead of --read-only");
		break;
	case ESTALE:
		if (a->resumes)
			add_advice(err,
				"what was not at the donor is still in %.200s: save it with weft "
				"rescue, then remove that file",
				o->cache_file);
		else if (attach_has_seal_file(a) && !a->state.takes_over)
			add_advice(err,
				"what %.200s seals is gone: to begin empty contents, add "
				"--new-contents",
				o->seal_file);
		else if (a->state.takes_over)
			add_advice(err, "to give up what '%s' had and attach anew: weft detach %s",
				o->name, o->name);
		break;
	default:
		break;
	}
	return -err->code;
}

static void print_cache(const struct attach *a, FILE *out)
{
	char size[32], chunk[32];

	fprintf(out, "  cache %s in chunks of %s, %s%s\n",
		weft_format_size(cache_capacity_bytes(bridge_cache(a->bridge)), size, sizeof(size)),
		weft_format_size(cache_chunk_size(bridge_cache(a->bridge)), chunk, sizeof(chunk)),
		a->options.write_through ? "write-through" : "write-back",
		a->options.pull ? ", pulling" : "");
	if (a->options.cache_file)
		fprintf(out, "  cache file %s%s\n", a->options.cache_file,
			a->resumes ? ", with what a bridge that died had not written back" : "");
	if (a->seal && seal_path(a->seal))
		fprintf(out,
			"  sealed: the donor's bytes are %s (%s), the key is that of %s; the cache "
			"file's bytes are plain\n"
			"  the contents outlive a restart of this machine, with that key and %s\n",
			a->options.sealed == SEAL_ENCRYPT ? "encrypted and verified" : "verified",
			seal_algorithm_name(seal_algorithm_of(a->seal)), a->options.seal_key,
			seal_path(a->seal));
	else if (a->seal)
		fprintf(out,
			"  sealed: the donor's bytes are %s (%s), the key is on this machine "
			"alone%s\n"
			"  the contents end with this attachment, and when this machine is "
			"restarted\n",
			a->options.sealed == SEAL_ENCRYPT ? "encrypted and verified" : "verified",
			seal_algorithm_name(seal_algorithm_of(a->seal)),
			a->options.cache_file ? "; the cache file's bytes are plain" : "");
	if (a->restarted)
		fprintf(out,
			"  this machine was restarted without a detach: what was flushed before is "
			"there, what was written after that may be gone\n");
}

static void print_keys(const struct attach *a, FILE *out)
{
	char identity[WEFT_IDENTITY_MAX + 1];

	for (unsigned i = 0; i < a->options.nr_donors; i++) {
		struct weft_held_key *key = a->find.donors[i].key;

		if (!key)
			continue;
		weft_held_key_identity(key, identity);
		if (identity[0])
			fprintf(out, "  key %s, of %s\n", identity, weft_held_key_file(key));
		else
			fprintf(out, "  certificates of %s\n", weft_held_key_file(key));
	}
}

static void print_places(const struct attach *a, FILE *out)
{
	const char *at, *moving;

	for (unsigned i = 0; i < a->options.nr_donors; i++) {
		follow_now(&bridge_attachment(a->bridge)->peers[i], &at, &moving);
		if (at[0] && !attach_is_given(&a->options, i, at))
			fprintf(out, "  %s has moved, and is at %s now\n",
				a->options.donors[i].uri_text, at);
	}
}

static void print_result(const struct attach *a, FILE *out)
{
	const struct attach_options *o = &a->options;
	const struct tp_info *info = bridge_info(a->bridge);
	unsigned lanes = bridge_nr_lanes(a->bridge);
	struct bridge_way_now now;
	char size[32];

	fprintf(out, "'%s' is attached: %s, %s, %s%s\n", o->name, o->uri_text,
		weft_format_size(info->size_bytes, size, sizeof(size)),
		info->read_only ? "read-only" : "to read and write",
		a->state.takes_over ? ", taken over from a bridge that died" : "");
	peer_way_now(&bridge_attachment(a->bridge)->peers[0], &now);
	fprintf(out, "  transport %s (%s)%s, %u lane%s\n", now.transport, a->find.why,
		tp_word_note(now.transport), lanes, lanes == 1 ? "" : "s");
	const struct tp_driver *driver = tp_driver_of_word(now.transport);
	if (driver && driver->shows_path)
		fprintf(out, "  over %s\n", info->path);
	print_places(a, out);
	print_keys(a, out);
	if (o->nr_donors > o->copies) {
		uint64_t cut = attachment_bytes_cut_off(bridge_attachment(a->bridge));

		fprintf(out, "  striped over %u %s, %s at a time", o->nr_donors / o->copies,
			o->copies > 1 ? "sets of copies" : "donors",
			weft_format_size(o->stripe_bytes, size, sizeof(size)));
		if (cut > 0)
			fprintf(out,
				"; all parts are equal, so that %s of the larger regions are not "
				"used",
				weft_format_size(cut, size, sizeof(size)));
		fputc('\n', out);
	}
	if (o->copies > 1) {
		char line[1024];
		json_t *copies = bridge_copies_status(a->bridge);

		fprintf(out, "  %s\n", status_copies_line(copies, line, sizeof(line)));
		json_decref(copies);
	}
	if (o->new_contents)
		fprintf(out,
			"  new contents: what was there as part of another device, or alone, is "
			"given up\n");
	if (!info->can_multi_conn && o->nr_lanes > 1)
		fprintf(out,
			"  only one lane: the server does not promise that a FLUSH on one "
			"connection covers all (CAN_MULTI_CONN)\n");
	if (!info->has_epoch && !o->assume_stable)
		fprintf(out,
			"  the server cannot say whether its contents are still the same: once a "
			"connection is lost, every request fails (see --assume-stable)\n");
	if (info->read_only && !o->read_only && !o->shared)
		fprintf(out, "  the server allows no writes\n");
	if (bridge_is_managed(a->bridge))
		print_cache(a, out);
	if (o->device)
		fprintf(out, "  device %s (%s)\n", a->state.device.path, a->device_why);
	if (o->device_wish.kernel_socket)
		fprintf(out,
			"  the kernel holds the donor's socket: plain TCP and one connection, "
			"without failover, stripes, cache and encryption\n");
	if (o->socket)
		fprintf(out, "  socket %s (nbd+unix:///?socket=%s)\n", o->socket, o->socket);
	if (o->mount)
		fprintf(out, "  file %s\n", o->mount);
	fprintf(out, "  end it with: weft detach %s\n", o->name);
}

static void print_stale(struct attach *a, FILE *out)
{
	const char *name = a->options.name;
	struct weft_error why = {0};

	bridge_state(a->bridge, &why);
	fprintf(out,
		"weft-attach: '%s' is taken over from a bridge that died, and is stale: every "
		"request fails with an I/O error: %s\n"
		"  go on with what its donor has now: weft reset %s\n"
		"  end it: weft detach --force %s\n",
		name, why.message, name, name);
	if (a->left_cache)
		fprintf(out,
			"  what was not at the donor is still in %s; save it: weft rescue %s "
			"FILE\n",
			a->options.cache_file, a->options.cache_file);
}

void attach_report(struct attach *a, int r, const struct weft_error *err)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return;
	if (r < 0)
		fprintf(out, "weft-attach: %s\n", err->message);
	else if (a->began_stale)
		print_stale(a, out);
	else
		print_result(a, out);
	fclose(out);
	if (a->result_fd >= 0) {
		char failed = r < 0 ? 1 : a->began_stale ? ATTACH_STALE : 0;

		if (weft_write_all(a->result_fd, &failed, 1) == 0)
			weft_write_all(a->result_fd, text, len);
		close(a->result_fd);
		a->result_fd = -1;
	} else {
		fputs(text, r < 0 || a->began_stale ? stderr : stdout);
		if (r == 0)
			puts("ready");
		fflush(stdout);
	}
	free(text);
}
