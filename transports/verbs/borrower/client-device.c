/* SPDX-License-Identifier: MIT */
/*
 * The borrower's devices and memory: what is registered with which, and devices that come and go.
 *
 * A device that was removed keeps its place until its last connection has ended.  One that appears
 * later is adopted by the reaper's thread when a connection first leads to it: opening and
 * registering would keep a lane for long.  Invariant: a connection has a device only when all
 * memory is registered with it.
 */
#include "transports/rdma/device.h"
#include "transports/verbs/borrower/client.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void list_put(struct verbs_list *list)
{
	if (--list->nr_users > 0)
		return;
	rdma_free_devices(list->contexts);
	free(list);
}

/* Lists the present devices; the list has one user. */
static int list_new(struct verbs_list **ret, struct weft_error *err)
{
	struct verbs_list *list = calloc(1, sizeof(*list));
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

static bool list_has(const struct verbs_list *list, const struct ibv_context *context)
{
	unsigned i = 0;

	while (list->contexts[i] && list->contexts[i] != context)
		i++;
	return list->contexts[i];
}

static int device_open(struct verbs_device *device, struct verbs_list *list,
	struct ibv_context *context, struct weft_error *err)
{
	struct ibv_pd *pd = verbs_pd_get(context);

	if (!pd)
		return weft_error_set(err, errno ? errno : EIO, "cannot use RDMA device %s: %s",
			ibv_get_device_name(context->device), strerror(errno));
	*device = (struct verbs_device){.context = context, .pd = pd, .list = list};
	list->nr_users++;
	return 0;
}

static void device_close(struct verbs_tp *tp, unsigned i)
{
	struct verbs_device *device = &tp->devices[i];

	for (struct verbs_mem *mem = tp->mems; mem; mem = mem->next) {
		if (mem->mr[i])
			verbs_mr_put(mem->mr[i]);
		mem->mr[i] = NULL;
	}
	verbs_pd_put(device->pd);
	list_put(device->list);
	*device = (struct verbs_device){0};
}

int verbs_tp_init(struct verbs_tp *tp, struct weft_error *err)
{
	struct verbs_list *list;
	unsigned nr = 0;
	int r = list_new(&list, err);

	if (r < 0)
		return r;
	for (unsigned i = 0; list->contexts[i] && nr < VERBS_MAX_DEVICES; i++) {
		r = device_open(&tp->devices[nr], list, list->contexts[i], err);
		if (r == 0)
			tp->devices[nr++].ready = true;
	}
	list_put(list);
	if (nr == 0)
		return r;
	pthread_mutex_init(&tp->lock, NULL);
	return 0;
}

void verbs_tp_fini(struct verbs_tp *tp)
{
	for (unsigned i = 0; i < VERBS_MAX_DEVICES; i++)
		if (tp->devices[i].context)
			device_close(tp, i);
	pthread_mutex_destroy(&tp->lock);
}

/* ---- memory ---- */

static void mem_free(struct verbs_mem *mem)
{
	for (unsigned i = 0; i < VERBS_MAX_DEVICES; i++)
		if (mem->mr[i])
			verbs_mr_put(mem->mr[i]);
	free(mem);
}

/*
 * Whether the device was removed, which shows by some failure of a registration.  Then it is
 * useless, but no obstacle.
 */
static bool is_removed(const struct verbs_device *device)
{
	struct ibv_device_attr attr;

	return ibv_query_device(device->context, &attr) != 0;
}

static int reg_with(struct verbs_tp *tp, struct verbs_mem *mem, unsigned i, struct weft_error *err)
{
	struct verbs_device *device = &tp->devices[i];

	mem->mr[i] = verbs_mr_get(device->pd, mem->base, mem->len);
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
int verbs_reg(struct tp *tp, struct tp_mem *mem, struct weft_error *err)
{
	struct verbs_tp *verbs = weft_container_of(tp, struct verbs_tp, tp);
	int r = weft_rdma_memlock_check(mem->len, err);

	if (r < 0)
		return r;
	struct verbs_mem *regs = calloc(1, sizeof(*regs));
	if (!regs)
		return weft_error_set(err, ENOMEM, "cannot register memory: out of memory");
	regs->base = mem->base;
	regs->len = mem->len;
	pthread_mutex_lock(&verbs->lock);
	for (unsigned i = 0; i < VERBS_MAX_DEVICES && r == 0; i++)
		if (verbs->devices[i].context && !verbs->devices[i].gone)
			r = reg_with(verbs, regs, i, err);
	if (r == 0) {
		regs->next = verbs->mems;
		regs->link = &verbs->mems;
		if (regs->next)
			regs->next->link = &regs->next;
		verbs->mems = regs;
	}
	pthread_mutex_unlock(&verbs->lock);
	if (r < 0)
		mem_free(regs);
	else
		mem->priv[0] = (uintptr_t)regs;
	return r;
}

void verbs_dereg(struct tp_mem *mem)
{
	struct verbs_tp *verbs = weft_container_of(mem->tp, struct verbs_tp, tp);
	struct verbs_mem *regs = (struct verbs_mem *)(uintptr_t)mem->priv[0];

	pthread_mutex_lock(&verbs->lock);
	*regs->link = regs->next;
	if (regs->next)
		regs->next->link = regs->link;
	pthread_mutex_unlock(&verbs->lock);
	mem_free(regs);
}

/* ---- devices that come and go ---- */

int verbs_device_take(struct verbs_conn *conn)
{
	struct verbs_tp *tp = conn->tp;
	int r = -EAGAIN;

	pthread_mutex_lock(&tp->lock);
	for (unsigned i = 0; i < VERBS_MAX_DEVICES && r < 0; i++) {
		struct verbs_device *device = &tp->devices[i];

		if (device->context != conn->control->verbs || !device->ready || device->gone)
			continue;
		conn->device = i;
		conn->has_device = true;
		device->nr_conns++;
		r = 0;
	}
	pthread_mutex_unlock(&tp->lock);
	return r;
}


/*
 * Under the lock.  Closes devices that are not in the list any more, or lets their last connection
 * close them.  The remaining devices' older list would keep them open.
 */
static void drop_removed(struct verbs_tp *tp, struct verbs_list *list)
{
	for (unsigned i = 0; i < VERBS_MAX_DEVICES; i++) {
		struct verbs_device *device = &tp->devices[i];

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
			device_close(tp, i);
	}
}

/*
 * The list of devices is not asked for here: the kernel may be removing one, and would answer only
 * after that, which may wait for us.
 */
void verbs_device_put(struct verbs_conn *conn)
{
	struct verbs_tp *tp = conn->tp;

	if (!conn->has_device)
		return;
	struct verbs_device *device = &tp->devices[conn->device];

	pthread_mutex_lock(&tp->lock);
	device->nr_conns--;
	device->gone |= conn->device_removed;
	if (device->gone && device->nr_conns == 0)
		device_close(tp, conn->device);
	pthread_mutex_unlock(&tp->lock);
	conn->has_device = false;
}

/*
 * Under the lock, which is released in between, so that the lane waits for one registration at
 * most.
 */
static int register_all(struct verbs_tp *tp, unsigned i, struct weft_error *err)
{
	for (;;) {
		struct verbs_mem *mem = tp->mems;
		int r;

		while (mem && mem->mr[i])
			mem = mem->next;
		if (!mem)
			return 0;
		r = reg_with(tp, mem, i, err);
		if (r == 0 && tp->devices[i].gone)
			r = weft_error_set(err, ENODEV, "the device was removed again");
		if (r < 0)
			return r;
		pthread_mutex_unlock(&tp->lock);
		sched_yield();
		pthread_mutex_lock(&tp->lock);
	}
}

static int adopt(struct verbs_conn *conn, struct verbs_list *list, struct weft_error *err)
{
	struct verbs_tp *tp = conn->tp;
	struct ibv_context *context = conn->control->verbs;
	unsigned i = 0;

	drop_removed(tp, list);
	/* A device that others have adopted meanwhile needs no second place. */
	while (i < VERBS_MAX_DEVICES && tp->devices[i].context != context)
		i++;
	if (i < VERBS_MAX_DEVICES && !tp->devices[i].gone)
		return 0;
	if (!list_has(list, context))
		return weft_error_set(err, ENODEV, "the device is being removed");
	for (i = 0; i < VERBS_MAX_DEVICES && tp->devices[i].context; i++)
		;
	if (i == VERBS_MAX_DEVICES)
		return weft_error_set(err, ENODEV, "there are more than %d devices",
			VERBS_MAX_DEVICES);
	int r = device_open(&tp->devices[i], list, context, err);
	if (r < 0)
		return r;
	r = register_all(tp, i, err);
	if (r < 0)
		device_close(tp, i);
	else
		tp->devices[i].ready = true;
	return r;
}

void verbs_adopt(struct weft_rdma_job *job)
{
	struct verbs_conn *conn = weft_container_of(job, struct verbs_conn, adopt_job);
	struct verbs_list *list;
	uint64_t one = 1;
	int r = list_new(&list, &conn->adopt_why);

	if (r == 0) {
		pthread_mutex_lock(&conn->tp->lock);
		r = adopt(conn, list, &conn->adopt_why);
		list_put(list);
		pthread_mutex_unlock(&conn->tp->lock);
	}
	atomic_store(&conn->adopted, r < 0 ? r : 1);
	(void)!write(conn->wake_fd, &one, sizeof(one));
}
