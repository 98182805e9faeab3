/* SPDX-License-Identifier: MIT */
/*
 * What sessions say of their writes that this process does not see; see region.h.
 *
 * Threads: any; reports_lock guards the list.  A network card writes the bytes meanwhile: it may
 * make "open" of "closed" at any time, which then has to stay.
 * Invariant (tests/model/reports.pml): what is open is never forgotten, whoever asks and however
 * often.  So it does not matter when a write lands, as long as that is before "closed", and before
 * the session's end.
 *
 * That a write is in memory before its "closed" is the order in which a card carries out the WRITEs
 * of one queue pair.  Memory that is registered for relaxed ordering would not keep it.
 */
#include <string.h>

#include "fabric/region/region-private.h"

enum { WORD_BYTES = sizeof(uint64_t), WORD_BITS = 64 };

void weft_region_begin_report(struct weft_region *region, struct weft_report *report)
{
	pthread_mutex_lock(&region->reports_lock);
	report->next = region->reports;
	region->reports = report;
	pthread_mutex_unlock(&region->reports_lock);
}

/* A bit for each byte of the word that says something; forgets those that say "closed". */
static uint64_t take_word(_Atomic uint64_t *word)
{
	uint64_t was = atomic_load(word), left, changed;
	uint8_t said[WORD_BYTES];

	do {
		if (was == 0)
			return 0;
		memcpy(said, &was, sizeof(said));
		changed = 0;
		for (unsigned i = 0; i < WORD_BYTES; i++) {
			changed |= (uint64_t)(said[i] != WEFT_SAID_NOTHING) << i;
			if (said[i] == WEFT_SAID_CLOSED)
				said[i] = WEFT_SAID_NOTHING;
		}
		memcpy(&left, said, sizeof(left));
	} while (!atomic_compare_exchange_strong(word, &was, left));
	return changed;
}

void region_take_reports(struct weft_region *region, uint64_t first, uint64_t nr, uint64_t *ret)
{
	pthread_mutex_lock(&region->reports_lock);
	for (struct weft_report *report = region->reports; report; report = report->next)
		for (uint64_t i = 0; i < nr; i += WORD_BYTES)
			ret[i / WORD_BITS] |= take_word(&report->said[(first + i) / WORD_BYTES])
				<< i % WORD_BITS;
	pthread_mutex_unlock(&region->reports_lock);
}

void weft_region_end_report(struct weft_region *region, struct weft_report *report)
{
	const uint64_t nr = region->changes ? weft_region_nr_chunks(region) : 0;
	struct weft_report **at = &region->reports;

	pthread_mutex_lock(&region->reports_lock);
	for (uint64_t i = 0; i < nr; i += WORD_BYTES)
		atomic_fetch_or(&region->changes[i / WORD_BITS],
			take_word(&report->said[i / WORD_BYTES]) << i % WORD_BITS);
	while (*at != report)
		at = &(*at)->next;
	*at = report->next;
	pthread_mutex_unlock(&region->reports_lock);
}
