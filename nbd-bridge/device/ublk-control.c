/* SPDX-License-Identifier: MIT */
/*
 * Commands to the ublk driver: each is one io_uring command of 128 bytes, submitted and waited for.
 */
#include "nbd-bridge/device/ublk-control.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"

#define UBLK_CONTROL_PATH "/dev/ublk-control"

enum { ANSWER_MS = 60000 };

struct ublk_control {
	int fd;
	struct io_uring ring;
	bool ring_made;
	bool stuck; /* the kernel has not answered a command */
};

static int submit(struct ublk_control *control, uint32_t op, uint32_t id, void *addr, size_t len,
	uint64_t data)
{
	struct ublksrv_ctrl_cmd cmd = {
		.dev_id = id,
		.queue_id = UINT16_MAX,
		.addr = (uintptr_t)addr,
		.len = (uint16_t)len,
		.data = {data},
	};
	struct io_uring_sqe *sqe = control->stuck ? NULL : io_uring_get_sqe(&control->ring);

	if (!sqe)
		return control->stuck ? -ETIMEDOUT : -EBUSY;
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = control->fd;
	sqe->cmd_op = op;
	memcpy((char *)sqe + offsetof(struct io_uring_sqe, cmd), &cmd, sizeof(cmd));
	int r = io_uring_submit(&control->ring);
	return r < 0 ? r : 0;
}

/*
 * Waits for the result of the submitted command.  timeout_ms 0: without a limit, for a caller that
 * has made sure that the command ends.
 */
static int result(struct ublk_control *control, uint32_t timeout_ms)
{
	struct __kernel_timespec time = {.tv_sec = timeout_ms / 1000,
		.tv_nsec = (long long)timeout_ms % 1000 * 1000000};
	struct io_uring_cqe *cqe;
	int r;

	do
		r = io_uring_wait_cqe_timeout(&control->ring, &cqe, timeout_ms ? &time : NULL);
	while (r == -EINTR);
	if (r < 0)
		return r == -ETIME ? -ETIMEDOUT : r;
	r = cqe->res;
	io_uring_cqe_seen(&control->ring, cqe);
	return r;
}

/* -ETIMEDOUT: its answer may still come, so there are no more commands. */
static int command(struct ublk_control *control, uint32_t op, uint32_t id, void *addr, size_t len,
	uint64_t data)
{
	int r = submit(control, op, id, addr, len, data);

	if (r == 0)
		r = result(control, ANSWER_MS);
	control->stuck |= r == -ETIMEDOUT;
	weft_debug("ublk%u: command %#x: %s", id, op, r < 0 ? strerror(-r) : "done");
	return r;
}

/* A kernel without this command may have all the features that we need. */
static int check_features(struct ublk_control *control, struct weft_error *err)
{
	const uint64_t wanted = UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE |
		UBLK_F_NEED_GET_DATA | UBLK_F_CMD_IOCTL_ENCODE;
	uint64_t features = 0;
	int r = command(control, UBLK_U_CMD_GET_FEATURES, UINT32_MAX, &features, sizeof(features),
		0);

	if (r == -EPERM || r == -EACCES)
		return weft_error_set(err, EACCES, "ublk devices are for root (CAP_SYS_ADMIN)");
	if (r < 0 || (features & wanted) != wanted)
		return weft_error_set(err, EOPNOTSUPP,
			"this kernel's ublk driver cannot do what weft needs; Linux 6.5 can");
	return 0;
}

int ublk_control_new(struct ublk_control **ret, struct weft_error *err)
{
	struct ublk_control *control = calloc(1, sizeof(*control));
	int r;

	if (!control)
		return weft_error_set(err, ENOMEM, "cannot use ublk: out of memory");
	control->fd = open(UBLK_CONTROL_PATH, O_RDWR | O_CLOEXEC);
	if (control->fd < 0) {
		r = errno == ENOENT || errno == ENXIO || errno == ENODEV
			? weft_error_set(err, ENOENT,
				  "the kernel's ublk driver is not loaded; as root: modprobe "
				  "ublk_drv (Linux 6.5 or later)")
			: weft_error_set(err, errno, "cannot open " UBLK_CONTROL_PATH ": %s",
				  strerror(errno));
		goto fail;
	}
	r = io_uring_queue_init(4, &control->ring, IORING_SETUP_SQE128);
	if (r < 0) {
		weft_error_set(err, -r,
			"cannot use io_uring, which ublk needs: %s; see the sysctl "
			"kernel.io_uring_disabled",
			strerror(-r));
		goto fail;
	}
	control->ring_made = true;
	r = check_features(control, err);
	if (r < 0)
		goto fail;
	*ret = control;
	return 0;
fail:
	ublk_control_free(control);
	return r;
}

void ublk_control_free(struct ublk_control *control)
{
	if (!control)
		return;
	if (control->ring_made)
		io_uring_queue_exit(&control->ring);
	weft_close_fd(control->fd);
	free(control);
}

int ublk_control_add(struct ublk_control *control, struct ublksrv_ctrl_dev_info *info)
{
	return command(control, UBLK_U_CMD_ADD_DEV, info->dev_id, info, sizeof(*info), 0);
}

int ublk_control_info(struct ublk_control *control, uint32_t id, struct ublksrv_ctrl_dev_info *ret)
{
	return command(control, UBLK_U_CMD_GET_DEV_INFO, id, ret, sizeof(*ret), 0);
}

int ublk_control_set_params(struct ublk_control *control, uint32_t id, struct ublk_params *params)
{
	params->len = sizeof(*params);
	return command(control, UBLK_U_CMD_SET_PARAMS, id, params, sizeof(*params), 0);
}

int ublk_control_get_params(struct ublk_control *control, uint32_t id, struct ublk_params *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->len = sizeof(*ret);
	return command(control, UBLK_U_CMD_GET_PARAMS, id, ret, sizeof(*ret), 0);
}

int ublk_control_start(struct ublk_control *control, uint32_t id)
{
	return command(control, UBLK_U_CMD_START_DEV, id, NULL, 0, (uint64_t)getpid());
}

int ublk_control_end_recovery(struct ublk_control *control, uint32_t id)
{
	return command(control, UBLK_U_CMD_END_USER_RECOVERY, id, NULL, 0, (uint64_t)getpid());
}

int ublk_control_start_recovery(struct ublk_control *control, uint32_t id)
{
	return command(control, UBLK_U_CMD_START_USER_RECOVERY, id, NULL, 0, 0);
}

int ublk_control_stop(struct ublk_control *control, uint32_t id, uint32_t timeout_ms)
{
	int r = submit(control, UBLK_U_CMD_STOP_DEV, id, NULL, 0, 0);

	return r < 0 ? r : result(control, (uint32_t)weft_max(timeout_ms, 1));
}

int ublk_control_stop_wait(struct ublk_control *control)
{
	return result(control, 0);
}

int ublk_control_del(struct ublk_control *control, uint32_t id)
{
	int r = command(control, UBLK_U_CMD_DEL_DEV_ASYNC, id, NULL, 0, 0);

	return r == -EOPNOTSUPP ? command(control, UBLK_U_CMD_DEL_DEV, id, NULL, 0, 0) : r;
}
