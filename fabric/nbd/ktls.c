/* SPDX-License-Identifier: MIT */
/* The kernel's records; see ktls.h and the kernel's Documentation/networking/tls.rst. */
#include "fabric/nbd/ktls.h"

#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

enum {
	ALERT = 21, /* a record's type (RFC 8446, 5.1) */
	CLOSE_NOTIFY = 0,
	WARNING = 1,
};

union crypto {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 aes_128;
	struct tls12_crypto_info_aes_gcm_256 aes_256;
	struct tls12_crypto_info_chacha20_poly1305 chacha20;
};

int nbd_ktls_begin(int fd)
{
	/* The call below would load the module for root. */
	if (access("/proc/net/tls_stat", F_OK) < 0)
		return -ENOENT;
	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == 0)
		return 0;
	return errno == EINVAL || errno == ENOPROTOOPT ? -EOPNOTSUPP : -errno;
}

/* ---- keys ---- */

/* Where a cipher's parts go.  TLS 1.3's IV has 12 bytes, of which the first may be the salt. */
struct place {
	uint16_t cipher;
	socklen_t size;
	uint8_t *salt, *iv, *key, *sequence;
	size_t salt_bytes, iv_bytes, key_bytes;
};

#define PLACE(type, member) \
	{ \
		.cipher = TLS_CIPHER_##type, .size = sizeof(member), .salt = (member).salt, \
		.iv = (member).iv, .key = (member).key, .sequence = (member).rec_seq, \
		.salt_bytes = TLS_CIPHER_##type##_SALT_SIZE, \
		.iv_bytes = TLS_CIPHER_##type##_IV_SIZE, \
		.key_bytes = TLS_CIPHER_##type##_KEY_SIZE, \
	}

static int find_place(union crypto *c, uint16_t cipher, struct place *ret)
{
	const struct place places[] = {
		PLACE(AES_GCM_128, c->aes_128),
		PLACE(AES_GCM_256, c->aes_256),
		PLACE(CHACHA20_POLY1305, c->chacha20),
	};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (places[i].cipher == cipher) {
			*ret = places[i];
			return 0;
		}
	return -EOPNOTSUPP;
}

static uint16_t cipher_of(gnutls_session_t session)
{
	switch (gnutls_cipher_get(session)) {
	case GNUTLS_CIPHER_AES_128_GCM:
		return TLS_CIPHER_AES_GCM_128;
	case GNUTLS_CIPHER_AES_256_GCM:
		return TLS_CIPHER_AES_GCM_256;
	case GNUTLS_CIPHER_CHACHA20_POLY1305:
		return TLS_CIPHER_CHACHA20_POLY1305;
	default:
		return 0;
	}
}

static int fill(gnutls_session_t session, bool receives, union crypto *c, socklen_t *ret_size)
{
	gnutls_datum_t iv = { 0 }, key = { 0 };
	unsigned char sequence[8];
	struct place place;
	int r = find_place(c, cipher_of(session), &place);

	if (r < 0 || gnutls_protocol_get_version(session) != GNUTLS_TLS1_3)
		return -EOPNOTSUPP;
	r = gnutls_record_get_state(session, receives, NULL, &iv, &key, sequence);
	if (r < 0 || key.size != place.key_bytes || iv.size != place.salt_bytes + place.iv_bytes)
		return -EOPNOTSUPP;
	c->info.version = TLS_1_3_VERSION;
	c->info.cipher_type = place.cipher;
	memcpy(place.salt, iv.data, place.salt_bytes);
	memcpy(place.iv, iv.data + place.salt_bytes, place.iv_bytes);
	memcpy(place.key, key.data, place.key_bytes);
	memcpy(place.sequence, sequence, sizeof(sequence));
	*ret_size = place.size;
	return 0;
}

int nbd_ktls_take(int fd, gnutls_session_t session, bool receives)
{
	union crypto crypto = { 0 };
	socklen_t size;
	int r = fill(session, receives, &crypto, &size);

	if (r == 0 && setsockopt(fd, SOL_TLS, receives ? TLS_RX : TLS_TX, &crypto, size) < 0)
		r = -errno;
	explicit_bzero(&crypto, sizeof(crypto));
	return r;
}

uint64_t nbd_ktls_records(int fd, bool receives)
{
	const int option = receives ? TLS_RX : TLS_TX;
	union crypto crypto = { 0 };
	socklen_t size = sizeof(crypto.info);
	struct place place;
	uint64_t n = 0;

	/* First which cipher it is, since the size has to fit. */
	if (getsockopt(fd, SOL_TLS, option, &crypto, &size) == 0 &&
		find_place(&crypto, crypto.info.cipher_type, &place) == 0 &&
		getsockopt(fd, SOL_TLS, option, &crypto, &place.size) == 0)
		for (unsigned i = 0; i < 8; i++)
			n = n << 8 | place.sequence[i];
	explicit_bzero(&crypto, sizeof(crypto));
	return n;
}

/* ---- records that are no data ---- */

int nbd_ktls_take_control(int fd, uint8_t *ret_alert)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(uint8_t))];
	} control;
	uint8_t data[64];
	struct iovec iov = { data, sizeof(data) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT);
	const struct cmsghdr *head = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);

	if (n < 0)
		return -errno;
	if (!head || head->cmsg_level != SOL_TLS || head->cmsg_type != TLS_GET_RECORD_TYPE ||
		*CMSG_DATA(head) != ALERT || n != 2)
		return -EPROTO;
	*ret_alert = data[1];
	return data[1] == CLOSE_NOTIFY ? 0 : 1;
}

void nbd_ktls_bye(int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(uint8_t))];
	} control = { 0 };
	uint8_t alert[2] = { WARNING, CLOSE_NOTIFY };
	struct iovec iov = { alert, sizeof(alert) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *head = CMSG_FIRSTHDR(&msg);

	head->cmsg_level = SOL_TLS;
	head->cmsg_type = TLS_SET_RECORD_TYPE;
	head->cmsg_len = CMSG_LEN(sizeof(uint8_t));
	*CMSG_DATA(head) = ALERT;
	/* Whoever does not get it sees an end that nobody has said. */
	ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)n;
}
