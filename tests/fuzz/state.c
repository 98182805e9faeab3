/* SPDX-License-Identifier: MIT */
/*
 * State files of attachments: what is believed is written, and believed again as the same.  The
 * first byte says whether the sum is set right.
 */
#include "nbd-bridge/main/state.c"

#include <assert.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(int fd, const void *bytes, size_t len)
{
	assert(ftruncate(fd, 0) == 0 && pwrite(fd, bytes, len, 0) == (ssize_t)len);
}

static bool set_sum(int fd, const uint8_t *data, size_t size)
{
	json_t *json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);

	if (!json_is_object(json)) {
		json_decref(json);
		return false;
	}
	json_object_set_new(json, "sum", sum_of(json));
	char *text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	put(fd, text, strlen(text));
	free(text);
	return true;
}

static void check_same(const struct bridge_state_file *a, const struct bridge_state_file *b)
{
	assert(a->nr_donors == b->nr_donors && a->generation == b->generation);
	assert(a->mode == b->mode && a->stale == b->stale);
	/* One donor has no stripes, whatever the file says. */
	assert(a->stripe_bytes == b->stripe_bytes || a->nr_donors == 1);
	assert(!a->uri == !b->uri && (!a->uri || strcmp(a->uri, b->uri) == 0));
	for (unsigned i = 0; i < a->nr_donors; i++) {
		assert(memcmp(a->donors[i].id, b->donors[i].id, WEFT_ID_BYTES) == 0);
		assert(a->donors[i].epoch == b->donors[i].epoch);
		assert(a->donors[i].granted == b->donors[i].granted);
		assert(a->donors[i].wrote == b->donors[i].wrote);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bridge_state_file state = {0}, again = {0};

	if (size == 0)
		return 0;
	state.fd = memfd_create("state", MFD_CLOEXEC);
	assert(state.fd >= 0);
	if (!(data[0] & 1) || !set_sum(state.fd, data + 1, size - 1))
		put(state.fd, data + 1, size - 1);
	if (load(&state) && bridge_state_write(&state, NULL) == 0) {
		again.fd = dup(state.fd);
		assert(again.fd >= 0 && load(&again) && !again.damaged);
		check_same(&state, &again);
		bridge_state_fini(&again);
	}
	bridge_state_fini(&state);
	return 0;
}
