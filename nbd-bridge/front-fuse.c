#include "nbd-bridge/front.h"
#include <errno.h>
int bridge_front_fuse_new(struct bridge *bridge, const char *path, bool ours, struct bridge_front **ret,
	struct weft_error *err)
{
	return weft_error_set(err, ENOSYS, "no FUSE yet");
}
bool bridge_front_fuse_made_file(const struct bridge_front *front)
{
	return false;
}
