/* SPDX-License-Identifier: MIT */
/*
 * The kernel's ublk driver: its commands on /dev/ublk-control, and definitions that older headers
 * lack.  One thread at a time.  Unless its comment says otherwise, a command waits at most a minute
 * for the kernel.  After that it fails with -ETIMEDOUT, and so do all later commands: they need
 * another struct ublk_control.
 */
#ifndef WEFT_NBD_BRIDGE_DEVICE_UBLK_CONTROL_H
#define WEFT_NBD_BRIDGE_DEVICE_UBLK_CONTROL_H

#include <linux/ublk_cmd.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "fabric/base/error.h"

/* Linux 6.4: commands are numbered as ioctl(2)s are; a kernel may refuse the old numbers. */
#ifndef UBLK_F_CMD_IOCTL_ENCODE
#define UBLK_F_CMD_IOCTL_ENCODE (1ULL << 6)
#endif
#ifndef UBLK_U_CMD_ADD_DEV
#define UBLK_U_CMD_GET_DEV_INFO _IOR('u', UBLK_CMD_GET_DEV_INFO, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_ADD_DEV _IOWR('u', UBLK_CMD_ADD_DEV, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_DEL_DEV _IOWR('u', UBLK_CMD_DEL_DEV, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_START_DEV _IOWR('u', UBLK_CMD_START_DEV, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_STOP_DEV _IOWR('u', UBLK_CMD_STOP_DEV, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_SET_PARAMS _IOWR('u', UBLK_CMD_SET_PARAMS, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_GET_PARAMS _IOR('u', UBLK_CMD_GET_PARAMS, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_START_USER_RECOVERY _IOWR('u', UBLK_CMD_START_USER_RECOVERY, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_END_USER_RECOVERY _IOWR('u', UBLK_CMD_END_USER_RECOVERY, struct ublksrv_ctrl_cmd)
#define UBLK_U_IO_FETCH_REQ _IOWR('u', UBLK_IO_FETCH_REQ, struct ublksrv_io_cmd)
#define UBLK_U_IO_COMMIT_AND_FETCH_REQ _IOWR('u', UBLK_IO_COMMIT_AND_FETCH_REQ, struct ublksrv_io_cmd)
#define UBLK_U_IO_NEED_GET_DATA _IOWR('u', UBLK_IO_NEED_GET_DATA, struct ublksrv_io_cmd)
#endif
/* Linux 6.5 */
#ifndef UBLK_U_CMD_GET_FEATURES
#define UBLK_U_CMD_GET_FEATURES _IOR('u', 0x13, struct ublksrv_ctrl_cmd)
#endif
/* Linux 6.7 */
#ifndef UBLK_U_CMD_DEL_DEV_ASYNC
#define UBLK_U_CMD_DEL_DEV_ASYNC _IOR('u', 0x14, struct ublksrv_ctrl_cmd)
#endif

struct ublk_control;

/*
 * 0; -ENOENT: the driver is not loaded; -EACCES: we may not use it; -EOPNOTSUPP: it lacks something
 * that we need; or -errno of io_uring_setup(2).  The message says what to do.
 */
int ublk_control_new(struct ublk_control **ret, struct weft_error *err);
/* Takes NULL. */
void ublk_control_free(struct ublk_control *control);

/* Each blocks until the kernel has carried it out: 0 or -errno. */

/* info: in and out; dev_id UINT32_MAX: the kernel chooses. */
int ublk_control_add(struct ublk_control *control, struct ublksrv_ctrl_dev_info *info);
int ublk_control_info(struct ublk_control *control, uint32_t id, struct ublksrv_ctrl_dev_info *ret);
int ublk_control_set_params(struct ublk_control *control, uint32_t id, struct ublk_params *params);
int ublk_control_get_params(struct ublk_control *control, uint32_t id, struct ublk_params *ret);
/*
 * These wait for the queues' fetches, which another thread serves.  Starting also reads partition
 * tables, and ends when all those reads have ended.
 */
int ublk_control_start(struct ublk_control *control, uint32_t id);
int ublk_control_end_recovery(struct ublk_control *control, uint32_t id);
/* -EBUSY: the process that served the device is not quite gone. */
int ublk_control_start_recovery(struct ublk_control *control, uint32_t id);
/*
 * Removes the disk.  Requests in flight are finished first, if somebody serves them; later ones
 * fail.  -ETIMEDOUT: not done in time, and still under way; then only ublk_control_stop_wait() may
 * be called.
 */
int ublk_control_stop(struct ublk_control *control, uint32_t id, uint32_t timeout_ms);
int ublk_control_stop_wait(struct ublk_control *control);
/* The device goes once nobody has it open; before Linux 6.7 this call waits for that. */
int ublk_control_del(struct ublk_control *control, uint32_t id);

#endif
