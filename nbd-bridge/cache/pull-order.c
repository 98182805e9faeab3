/* SPDX-License-Identifier: MIT */
/* The order in which a region is pulled: see pull-order.h. */
#include "nbd-bridge/cache/pull-order.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/util.h"

enum { LINE_MAX_BYTES = 256, MAX_RANGES = 1 << 24 };

/* "OFFSET [LENGTH]", in bytes.  false: it is something else. */
static bool parse_line(const char *at, struct pull_range *ret)
{
	uint64_t values[2] = {0, 1};
	char *end;

	for (unsigned i = 0; i < 2 && *at; i++) {
		if (!isdigit((unsigned char)*at))
			return false;
		errno = 0;
		values[i] = strtoull(at, &end, 10);
		if (errno != 0)
			return false;
		for (at = end; *at == ' ' || *at == '\t'; at++)
			;
	}
	*ret = (struct pull_range){.off = values[0], .len = values[1]};
	return *at == '\0';
}

static int add_range(struct pull_order *order, const struct pull_range *range)
{
	if ((order->nr & (order->nr - 1)) == 0) {
		size_t room = weft_max(2 * order->nr, 1);
		void *more = order->nr < MAX_RANGES
			? realloc(order->ranges, room * sizeof(*order->ranges))
			: NULL;

		if (!more)
			return -ENOMEM;
		order->ranges = more;
	}
	order->ranges[order->nr++] = *range;
	return 0;
}

int pull_order_read(const char *path, struct pull_order *ret, struct weft_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	FILE *in = fd >= 0 ? fdopen(fd, "r") : NULL;
	struct stat st;
	char line[LINE_MAX_BYTES];
	struct pull_range range;
	unsigned number = 0;
	int r = 0;

	*ret = (struct pull_order){0};
	if (!in)
		return weft_error_set(err, errno, "cannot read %s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		r = weft_error_set(err, EINVAL, "%s is no regular file", path);
	while (r == 0 && fgets(line, sizeof(line), in)) {
		number++;
		if (!strchr(line, '\n') && !feof(in))
			r = weft_error_set(err, EINVAL, "%s, line %u: it is too long", path,
				number);
		line[strcspn(line, "\n")] = '\0';
		if (r < 0 || line[0] == '#' || line[0] == '\0')
			continue;
		if (!parse_line(line, &range))
			r = weft_error_set(err, EINVAL,
				"%s, line %u: '%.100s' is no offset in bytes, with a length behind "
				"it or without",
				path, number, line);
		else if (add_range(ret, &range) < 0)
			r = weft_error_set(err, ENOMEM, "%s, line %u: out of memory", path, number);
	}
	if (r == 0 && ferror(in))
		r = weft_error_set(err, EIO, "cannot read %s", path);
	fclose(in);
	if (r < 0)
		pull_order_free(ret);
	return r;
}

void pull_order_free(struct pull_order *order)
{
	free(order->ranges);
	*order = (struct pull_order){0};
}

int pull_order_chunks(const struct pull_order *order, uint64_t nr_chunks, unsigned shift,
	uint32_t **ret)
{
	uint32_t *chunks = malloc(weft_max(nr_chunks, 1) * sizeof(*chunks)), n = 0;
	uint8_t *listed = calloc(nr_chunks / 8 + 1, 1);

	if (!chunks || !listed || nr_chunks > UINT32_MAX) {
		free(chunks);
		free(listed);
		return -ENOMEM;
	}
	for (size_t i = 0; i <= order->nr; i++) {
		/* Last, the whole region. */
		const struct pull_range range =
			i < order->nr ? order->ranges[i] : (struct pull_range){.len = UINT64_MAX};
		uint64_t c = range.off >> shift,
			 last = range.len > UINT64_MAX - range.off ? UINT64_MAX
								   : range.off + range.len;

		for (; c < nr_chunks && c << shift < last; c++) {
			if (listed[c / 8] & 1 << c % 8)
				continue;
			listed[c / 8] |= (uint8_t)(1 << c % 8);
			chunks[n++] = (uint32_t)c;
		}
	}
	free(listed);
	*ret = chunks;
	return 0;
}
