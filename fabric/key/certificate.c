/* SPDX-License-Identifier: MIT */
#include "fabric/key/certificate.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <string.h>

int weft_certificate_identity(const gnutls_datum_t *der, char ret[WEFT_IDENTITY_MAX + 1],
	int64_t *ret_expires)
{
	char name[WEFT_IDENTITY_MAX + 1] = "";
	size_t len = sizeof(name);
	gnutls_x509_crt_t crt;

	if (gnutls_x509_crt_init(&crt) < 0)
		return -EINVAL;
	if (gnutls_x509_crt_import(crt, der, GNUTLS_X509_FMT_DER) < 0 ||
		gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &len) <
			0 ||
		strlen(name) != len || !weft_identity_valid(name))
		name[0] = 0;
	/* Those above it were valid when they vouched for it. */
	const time_t expires = gnutls_x509_crt_get_expiration_time(crt);
	gnutls_x509_crt_deinit(crt);
	if (!name[0])
		return -EINVAL;
	strcpy(ret, name);
	*ret_expires = expires > 0 ? (int64_t)expires : 0;
	return 0;
}
