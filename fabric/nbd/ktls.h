/* SPDX-License-Identifier: MIT */
/*
 * Records that the kernel makes and opens, under a TLS session that GnuTLS has begun: for tls.c.
 * Linux with its module tls, over TCP, TLS 1.3.  Afterwards the socket's plain calls carry what is
 * in records.  Nothing waits or allocates.  The thread of the session.
 */
#ifndef WEFT_FABRIC_NBD_KTLS_H
#define WEFT_FABRIC_NBD_KTLS_H

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Asks the kernel to know of TLS on this connected socket; no byte changes by that alone.  0,
 * -ENOENT: the module is not loaded, which is the administrator's choice; -EOPNOTSUPP: it is no
 * TCP; or what else setsockopt(2) said.
 */
int nbd_ktls_begin(int fd);
/*
 * Gives the kernel the keys of one direction, from the session's next record on.  Before that no
 * byte of this direction may wait outside of the kernel.  0; -EOPNOTSUPP: a cipher that the kernel
 * is not asked for; or what setsockopt(2) said: then nothing has changed.
 */
int nbd_ktls_take(int fd, gnutls_session_t session, bool receives);
/* How many records of a direction that the kernel has there were since its keys; 0: it says not. */
uint64_t nbd_ktls_records(int fd, bool receives);
/*
 * After -EIO of a receive: takes a record that is no data.  0: it was close_notify; 1: another
 * alert, *ret_alert; -EPROTO: it is anything else; or what recvmsg(2) said.
 */
int nbd_ktls_take_control(int fd, uint8_t *ret_alert);
/* Sends close_notify, if the socket takes it. */
void nbd_ktls_bye(int fd);

#endif
