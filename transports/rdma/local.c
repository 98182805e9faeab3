/* SPDX-License-Identifier: MIT */
/*
 * A lane's devices and memory.
 *
 * A device that was removed keeps its place until its last connection has ended.  One that appears
 * later is adopted by the reaper's thread when a connection first leads to it: opening and
 * registering would keep a lane for long.  Invariant: a connection has a device only when all
 * memory is registered with it.
 */
#include "transports/rdma/local.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "transports/rdma/device.h"
#include "transports/rdma/shared.h"

/* The result of a call of rdma_get_devices(), which keeps its devices open. */
struct weft_rdma_list {
	struct ibv_context **contexts;
	unsigned nr_users;
};

static void list_put(struct weft_rdma_list *list)
{
	if (--list->nr_users > 0)
		return;
	rdma_free_devices(list->contexts);
	free(list);
}

/* Lists the present devices; the list has one user. */
static int list_new(struct weft_rdma_list **ret, struct weft_error *err)
{
	struct weft_rdma_list *list = calloc(1, sizeof(*list));
	int nr, r;

	if (!list)
		return weft_error_set(err, ENOMEM, "cannot open RDMA: out of memory");
	r = weft_rdma_devices(&list->contexts, &nr, err);
	if (r < 0) {
		free(list);
		return r;
	}
	list->nr_users = 1;
	*ret = list;
	return 0;
}

static bool list_has(const struct weft_rdma_list *list, const struct ibv_context *context)
{
	unsigned i = 0;

	while (list->contexts[i] && list->contexts[i] != context)
		i++;
	return list->contexts[i];
}

static int device_open(struct weft_rdma_local *local, struct weft_rdma_device *device,
	struct weft_rdma_list *list, struct ibv_context *context, struct weft_error *err)
{
	struct ibv_pd *pd = weft_rdma_pd_get(context, local->access);

	if (!pd)
		return weft_error_set(err, errno ? errno : EIO, "cannot use RDMA device %s: %s",
			ibv_get_device_name(context->device), strerror(errno));
	*device = (struct weft_rdma_device){.context = context, .pd = pd, .list = list};
	list->nr_users++;
	return 0;
}

static void device_close(struct weft_rdma_local *local, unsigned i)
{
	struct weft_rdma_device *device = &local->devices[i];

	for (struct weft_rdma_mem *mem = local->mems; mem; mem = mem->next) {
		if (mem->mr[i])
			weft_rdma_mr_put(mem->mr[i]);
		mem->mr[i] = NULL;
	}
	weft_rdma_pd_put(device->pd);
	list_put(device->list);
	*device = (struct weft_rdma_device){0};
}

int weft_rdma_local_init(struct weft_rdma_local *local, int access, struct weft_error *err)
{
	struct weft_rdma_list *list;
	unsigned nr = 0;
	int r = list_new(&list, err);

	if (r < 0)
		return r;
	*local = (struct weft_rdma_local){.access = access};
	for (unsigned i = 0; list->contexts[i] && nr < WEFT_RDMA_MAX_DEVICES; i++) {
		r = device_open(local, &local->devices[nr], list, list->contexts[i], err);
		if (r == 0)
			local->devices[nr++].ready = true;
	}
	list_put(list);
	if (nr == 0)
		return r;
	pthread_mutex_init(&local->lock, NULL);
	return 0;
}

void weft_rdma_local_fini(struct weft_rdma_local *local)
{
	for (unsigned i = 0; i < WEFT_RDMA_MAX_DEVICES; i++)
		if (local->devices[i].context)
			device_close(local, i);
	pthread_mutex_destroy(&local->lock);
}

/* ---- memory ---- */

static void mem_free(struct weft_rdma_mem *mem)
{
	for (unsigned i = 0; i < WEFT_RDMA_MAX_DEVICES; i++)
		if (mem->mr[i])
			weft_rdma_mr_put(mem->mr[i]);
	free(mem);
}

/*
 * Whether the device was removed, which shows by some failure of a registration.  Then it is
 * useless, but no obstacle.
 */
static bool is_removed(const struct weft_rdma_device *device)
{
	struct ibv_device_attr attr;

	return ibv_query_device(device->context, &attr) != 0;
}

static int reg_with(struct weft_rdma_local *local, struct weft_rdma_mem *mem, unsigned i,
	struct weft_error *err)
{
	struct weft_rdma_device *device = &local->devices[i];

	mem->mr[i] = weft_rdma_mr_get(device->pd, mem->base, mem->len);
	if (mem->mr[i])
		return 0;
	int code = errno;
	if (is_removed(device)) {
		device->gone = true;
		return 0;
	}
	return weft_rdma_reg_failed(code, mem->len, err);
}

/*
 * It is not known yet which device a connection will take, so the memory is registered with each.
 */
int weft_rdma_local_reg(struct weft_rdma_local *local, struct tp_mem *mem,
	struct weft_error *err)
{
	int r = weft_rdma_memlock_check(mem->len, err);

	if (r < 0)
		return r;
	struct weft_rdma_mem *regs = calloc(1, sizeof(*regs));
	if (!regs)
		return weft_error_set(err, ENOMEM, "cannot register memory: out of memory");
	regs->base = mem->base;
	regs->len = mem->len;
	pthread_mutex_lock(&local->lock);
	for (unsigned i = 0; i < WEFT_RDMA_MAX_DEVICES && r == 0; i++)
		if (local->devices[i].context && !local->devices[i].gone)
			r = reg_with(local, regs, i, err);
	if (r == 0) {
		regs->next = local->mems;
		regs->link = &local->mems;
		if (regs->next)
			regs->next->link = &regs->next;
		local->mems = regs;
	}
	pthread_mutex_unlock(&local->lock);
	if (r < 0)
		mem_free(regs);
	else
		mem->priv[0] = (uintptr_t)regs;
	return r;
}

void weft_rdma_local_dereg(struct weft_rdma_local *local, struct tp_mem *mem)
{
	struct weft_rdma_mem *regs = (struct weft_rdma_mem *)(uintptr_t)mem->priv[0];

	pthread_mutex_lock(&local->lock);
	*regs->link = regs->next;
	if (regs->next)
		regs->next->link = regs->link;
	pthread_mutex_unlock(&local->lock);
	mem_free(regs);
}

/* ---- devices that come and go ---- */

int weft_rdma_local_take(struct weft_rdma_local *local, const struct ibv_context *context,
	unsigned *ret)
{
	int r = -EAGAIN;

	pthread_mutex_lock(&local->lock);
	for (unsigned i = 0; i < WEFT_RDMA_MAX_DEVICES && r < 0; i++) {
		struct weft_rdma_device *device = &local->devices[i];

		if (device->context != context || !device->ready || device->gone)
			continue;
		*ret = i;
		device->nr_conns++;
		r = 0;
	}
	pthread_mutex_unlock(&local->lock);
	return r;
}

/*
 * Under the lock.  Closes devices that are not in the list any more, or lets their last connection
 * close them.  The remaining devices' older list would keep them open.
 */
static void drop_removed(struct weft_rdma_local *local, struct weft_rdma_list *list)
{
	for (unsigned i = 0; i < WEFT_RDMA_MAX_DEVICES; i++) {
		struct weft_rdma_device *device = &local->devices[i];

		if (!device->context)
			continue;
		if (list_has(list, device->context)) {
			list_put(device->list);
			device->list = list;
			list->nr_users++;
			continue;
		}
		device->gone = true;
		if (device->nr_conns == 0)
			device_close(local, i);
	}
}

/*
 * The list of devices is not asked for here: the kernel may be removing one, and would answer only
 * after that, which may wait for us.
 */
void weft_rdma_local_put(struct weft_rdma_local *local, unsigned i, bool removed)
{
	struct weft_rdma_device *device = &local->devices[i];

	pthread_mutex_lock(&local->lock);
	device->nr_conns--;
	device->gone |= removed;
	if (device->gone && device->nr_conns == 0)
		device_close(local, i);
	pthread_mutex_unlock(&local->lock);
}

/*
 * Under the lock, which is released in between, so that the lane waits for one registration at
 * most.
 */
static int register_all(struct weft_rdma_local *local, unsigned i, struct weft_error *err)
{
	for (;;) {
		struct weft_rdma_mem *mem = local->mems;
		int r;

		while (mem && mem->mr[i])
			mem = mem->next;
		if (!mem)
			return 0;
		r = reg_with(local, mem, i, err);
		if (r == 0 && local->devices[i].gone)
			r = weft_error_set(err, ENODEV, "the device was removed again");
		if (r < 0)
			return r;
		pthread_mutex_unlock(&local->lock);
		sched_yield();
		pthread_mutex_lock(&local->lock);
	}
}

static int adopt(struct weft_rdma_local *local, struct ibv_context *context,
	struct weft_rdma_list *list, struct weft_error *err)
{
	unsigned i = 0;

	drop_removed(local, list);
	/* A device that others have adopted meanwhile needs no second place. */
	while (i < WEFT_RDMA_MAX_DEVICES && local->devices[i].context != context)
		i++;
	if (i < WEFT_RDMA_MAX_DEVICES && !local->devices[i].gone)
		return 0;
	if (!list_has(list, context))
		return weft_error_set(err, ENODEV, "the device is being removed");
	for (i = 0; i < WEFT_RDMA_MAX_DEVICES && local->devices[i].context; i++)
		;
	if (i == WEFT_RDMA_MAX_DEVICES)
		return weft_error_set(err, ENODEV, "there are more than %d devices",
			WEFT_RDMA_MAX_DEVICES);
	int r = device_open(local, &local->devices[i], list, context, err);
	if (r < 0)
		return r;
	r = register_all(local, i, err);
	if (r < 0)
		device_close(local, i);
	else
		local->devices[i].ready = true;
	return r;
}

int weft_rdma_local_adopt(struct weft_rdma_local *local, struct ibv_context *context,
	struct weft_error *err)
{
	struct weft_rdma_list *list;
	int r = list_new(&list, err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&local->lock);
	r = adopt(local, context, list, err);
	list_put(list);
	pthread_mutex_unlock(&local->lock);
	return r;
}
