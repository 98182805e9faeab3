/* SPDX-License-Identifier: MIT */
/* The donor as a whole: its life and its status.  Threads: as donor.h says. */
#include "fabric/donor/donor.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fabric/base/thread.h"
#include "fabric/donor/donor-private.h"

enum { MAX_SESSIONS_EACH = 512 };

int weft_donor_new(const struct weft_donor_config *config, struct weft_donor **ret)
{
	struct weft_donor *donor = calloc(1, sizeof(*donor));

	if (!donor)
		return -ENOMEM;
	pthread_mutex_init(&donor->lock, NULL);
	pthread_mutex_init(&donor->open_lock, NULL);
	pthread_mutex_init(&donor->audit.lock, NULL);
	weft_cond_init(&donor->changed);
	donor->lease_ms = config->lease_ms ? config->lease_ms : 30000;
	donor->fence_timeout_ms = config->fence_timeout_ms ? config->fence_timeout_ms : 10000;
	donor->pass_ms = config->pass_ms ? config->pass_ms : 10000;
	snprintf(donor->offers, sizeof(donor->offers), "%s", config->offers);
	donor->max_sessions_each = config->max_sessions_each ? config->max_sessions_each
							     : MAX_SESSIONS_EACH;
	donor->keys = config->keys;
	donor->allow_insecure = config->allow_insecure;
	donor->question = config->question;
	donor->question_ctx = config->question_ctx;
	donor->dir_fd = -1;
	if (donor_hashes_init(donor) < 0) {
		weft_donor_free(donor);
		return -ENOMEM;
	}
	*ret = donor;
	return 0;
}

void weft_donor_free(struct weft_donor *donor)
{
	if (!donor)
		return;
	assert(donor->nr_grants == 0);
	for (struct weft_attachment *a = donor->attachments, *next; a; a = next) {
		next = a->next;
		weft_region_put(a->region);
		free(a);
	}
	donor_regions_fini(donor);
	donor_passes_fini(donor);
	donor_moves_fini(donor);
	donor_hashes_fini(donor);
	pthread_cond_destroy(&donor->changed);
	pthread_mutex_destroy(&donor->audit.lock);
	pthread_mutex_destroy(&donor->open_lock);
	pthread_mutex_destroy(&donor->lock);
	free(donor);
}

void weft_donor_stop(struct weft_donor *donor)
{
	pthread_mutex_lock(&donor->lock);
	donor->stopping = true;
	pthread_cond_broadcast(&donor->changed);
	pthread_mutex_unlock(&donor->lock);
}

void weft_donor_tick(struct weft_donor *donor, uint64_t now_ns)
{
	pthread_mutex_lock(&donor->lock);
	donor_attachments_tick(donor, now_ns);
	for (unsigned i = 0; i < donor->nr_regions; i++)
		donor_moves_tick(donor, donor->regions[i].region, now_ns);
	pthread_mutex_unlock(&donor->lock);
}

void weft_donor_welcome(struct weft_donor *donor, struct weft_region *region,
	struct weft_welcome *ret)
{
	*ret = (struct weft_welcome){
		.epoch = region->epoch,
		.lease_ms = donor->lease_ms,
		.restorable = region->backing == WEFT_BACKING_FILE && !region->read_only,
		.hashes = WEFT_HASH_SCHEME,
		.marks = WEFT_MARKS,
	};
	pthread_mutex_lock(&donor->lock);
	donor_copy_text(ret->offers, sizeof(ret->offers), donor->offers);
	weft_donor_mark_of(region, &ret->mark);
	donor_moving_to(region, ret->moving);
	pthread_mutex_unlock(&donor->lock);
}

uint64_t weft_donor_tenure(struct weft_donor *donor, const struct weft_region *region)
{
	pthread_mutex_lock(&donor->lock);
	uint64_t tenure = region->tenure;
	pthread_mutex_unlock(&donor->lock);
	return tenure;
}

uint64_t weft_donor_own_tenure(struct weft_donor *donor, const struct weft_region *region,
	const struct weft_peer *peer)
{
	uint64_t owner = donor_owner_of(region, peer);

	pthread_mutex_lock(&donor->lock);
	uint64_t tenure = region->tenure_owner == owner ? region->owner_tenure : 0;
	pthread_mutex_unlock(&donor->lock);
	return tenure;
}

void weft_donor_offer(struct weft_donor *donor, const char *offers)
{
	pthread_mutex_lock(&donor->lock);
	donor_copy_text(donor->offers, sizeof(donor->offers), offers);
	pthread_mutex_unlock(&donor->lock);
}
