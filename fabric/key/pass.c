/* SPDX-License-Identifier: MIT */
/* Passes; see pass.h.  No state. */
#include "fabric/key/pass.h"

#include <string.h>

#include "fabric/base/util.h"

_Static_assert(1 + 2 * (int)WEFT_PASS_ID_BYTES <= (int)WEFT_IDENTITY_MAX, "a pass's identity");

void weft_pass_make(const uint8_t exported[WEFT_PASS_BYTES], struct weft_key *ret)
{
	*ret = (struct weft_key){.identity = "@", .secret_bytes = WEFT_SECRET_BYTES};
	weft_hex(exported, WEFT_PASS_ID_BYTES, ret->identity + 1);
	memcpy(ret->secret, exported + WEFT_PASS_ID_BYTES, WEFT_SECRET_BYTES);
}

bool weft_identity_is_pass(const char *identity)
{
	uint8_t id[WEFT_PASS_ID_BYTES];

	return identity[0] == '@' && strlen(identity + 1) == 2 * sizeof(id) &&
		weft_unhex(identity + 1, id, sizeof(id)) == 0;
}
