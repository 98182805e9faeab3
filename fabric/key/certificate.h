/* SPDX-License-Identifier: MIT */
/* Who a certificate (X.509) says that its holder is.  Pure; any thread. */
#ifndef WEFT_FABRIC_KEY_CERTIFICATE_H
#define WEFT_FABRIC_KEY_CERTIFICATE_H

#include <gnutls/gnutls.h>
#include <stdint.h>

#include "fabric/key/key.h"

/*
 * The common name, which is the holder's identity, and when the certificate expires (seconds of
 * CLOCK_REALTIME; 0: never).  Nothing is verified here.  0; -EINVAL: it is no certificate, or that
 * name cannot be an identity.
 */
int weft_certificate_identity(const gnutls_datum_t *der, char ret[WEFT_IDENTITY_MAX + 1],
	int64_t *ret_expires);

#endif
