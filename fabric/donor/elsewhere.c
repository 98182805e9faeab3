/* SPDX-License-Identifier: MIT */
/*
 * Names that this donor does not lend, and where they are: see moving.h.  Threads: any; the donor's
 * lock guards the list.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/donor/donor-private.h"
#include "fabric/donor/moving.h"

struct donor_elsewhere {
	struct donor_elsewhere *next;
	char *name;
	uint64_t epoch;
	char place[WEFT_PLACE_MAX];
};

static struct donor_elsewhere *find_elsewhere(const struct weft_donor *donor, const char *name,
	uint64_t epoch)
{
	struct donor_elsewhere *e = donor->elsewhere;

	while (e && (strcmp(e->name, name) != 0 || (epoch && e->epoch != epoch)))
		e = e->next;
	return e;
}

int donor_check_elsewhere(const struct weft_donor *donor, const char *name, uint64_t epoch,
	struct weft_error *err)
{
	const struct donor_elsewhere *e = find_elsewhere(donor, name, epoch);

	if (!e)
		return 0;
	return weft_error_set(err, e->epoch ? WEFT_EMOVED : WEFT_EMOVING, "%s %s", e->place,
		e->epoch ? "has the region now" : "has the region in a moment");
}

int weft_donor_elsewhere(struct weft_donor *donor, const char *name, uint64_t epoch,
	const char *place)
{
	struct donor_elsewhere *e = calloc(1, sizeof(*e));

	if (!e || !(e->name = strdup(name))) {
		free(e);
		return -ENOMEM;
	}
	weft_donor_not_elsewhere(donor, name, epoch);
	e->epoch = epoch;
	donor_copy_text(e->place, sizeof(e->place), place);
	pthread_mutex_lock(&donor->lock);
	e->next = donor->elsewhere; /* the newest is found first */
	donor->elsewhere = e;
	pthread_mutex_unlock(&donor->lock);
	return 0;
}

static void forget(struct donor_elsewhere **at)
{
	struct donor_elsewhere *e = *at;

	*at = e->next;
	free(e->name);
	free(e);
}

void weft_donor_not_elsewhere(struct weft_donor *donor, const char *name, uint64_t epoch)
{
	pthread_mutex_lock(&donor->lock);
	for (struct donor_elsewhere **at = &donor->elsewhere; *at;) {
		if (strcmp((*at)->name, name) == 0 && (*at)->epoch == epoch)
			forget(at);
		else
			at = &(*at)->next;
	}
	pthread_mutex_unlock(&donor->lock);
}

void donor_moves_fini(struct weft_donor *donor)
{
	while (donor->elsewhere)
		forget(&donor->elsewhere);
}
