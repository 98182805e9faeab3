/* SPDX-License-Identifier: MIT */
/* Undoes what a note says: see swap-down.h. */
#include "nbd-bridge/main/swap-down.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "nbd-bridge/main/swap-bridge.h"
#include "nbd-bridge/main/swap-drain.h"
#include "nbd-bridge/main/swap-kernel.h"
#include "nbd-bridge/main/swap-setting.h"

/*
 * A device that the kernel has no more, or has of somebody else by now, is let be.  Where that
 * cannot be told, the space is drained: nobody loses anything by that.
 */
static int drain(const struct swap_member *member, struct weft_error *err)
{
	struct swap_spaces spaces;
	int r = swap_spaces_read(&spaces);

	if (r < 0)
		return weft_error_set(err, -r, "cannot read /proc/swaps: %s", strerror(-r));
	const struct swap_space *space = swap_spaces_find(&spaces, member->device);
	if (!space || (!space->is_gone && swap_has_device(member) == 0))
		return 0;
	r = swap_drain(member->device, err);
	if (r != -ENODEV)
		return r;
	fprintf(stderr, "weft-swap: %s\n", err->message);
	return 0;
}

static int take_down_last(struct swap_note *note, struct weft_error *err)
{
	struct swap_member *member = &note->members[note->nr_members - 1];
	struct weft_error unwritten;
	int r = member->device[0] ? drain(member, err) : 0;

	if (r == 0)
		r = swap_detach(member, err);
	if (r < 0)
		return r;
	note->nr_members--;
	/*
	 * Where there is no room for that, the note says more than there is, which does no harm:
	 * what is gone is passed over.  Removing the note needs no room.
	 */
	if (swap_note_write(note, &unwritten) < 0)
		weft_debug("%s", unwritten.message);
	return 0;
}

int swap_take_down(struct swap_note *note, struct weft_error *err)
{
	int r = 0;

	/* A limit of the job's would stand in the way of what comes back into its memory. */
	swap_settings_restore(note);
	while (r == 0 && note->nr_members > 0)
		r = take_down_last(note, err);
	if (r < 0)
		swap_settings_apply(note);
	else
		swap_note_remove(note);
	return r;
}
