/* SPDX-License-Identifier: MIT */
/* What a donor does for its pool: regions are ordered, ended, moved, and given up. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "fabric/base/log.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/donor/moving.h"
#include "fabric/main/serve-pool.h"

bool serve_pool_has_name(const char *name)
{
	const size_t head = strlen(POOL_REGION_HEAD);

	return strncmp(name, POOL_REGION_HEAD, head) == 0 && strlen(name) == REGION_LEN &&
		strspn(name + head, "0123456789abcdef") == 16;
}

struct has *serve_pool_find(struct serve_pool *p, const char *name)
{
	for (unsigned i = 0; i < p->nr_has; i++)
		if (strcmp(p->has[i].name, name) == 0)
			return &p->has[i];
	return NULL;
}

struct job *serve_pool_find_job(struct serve_pool *p, const char *name)
{
	for (unsigned i = 0; i < p->nr_jobs; i++)
		if (strcmp(p->jobs[i].name, name) == 0)
			return &p->jobs[i];
	return NULL;
}

/* ---- what is done for it ---- */

void serve_pool_append(json_t *list, const char *name, const char *why)
{
	json_array_append_new(list, json_pack("{s:s, s:s}", "name", name, "why", why));
}

/*
 * What may be lent in sum.  A machine's needs go up and down: a coordinator that has heard of a
 * little more than there is now is no stranger.
 */
uint64_t serve_pool_most(const struct serve_pool *p)
{
	return p->lending.lent_bytes + (p->wish->idle ? p->wish->reserve_bytes / 16 : 0);
}

static void order(struct serve_pool *p, const char *name, uint64_t size_bytes)
{
	pthread_mutex_lock(&p->lock);
	if (serve_pool_find(p, name) || serve_pool_find_job(p, name) || p->nr_jobs == JOBS_MAX) {
		/* It is here, or comes, or can be ordered again. */
	} else if (p->used_bytes > serve_pool_most(p) ||
		size_bytes > serve_pool_most(p) - p->used_bytes) {
		serve_pool_append(p->refused, name, "has lent as much as it lends");
	} else {
		struct job *job = &p->jobs[p->nr_jobs++];

		*job = (struct job){.size_bytes = size_bytes};
		strcpy(job->name, name);
		p->used_bytes += size_bytes;
		pthread_cond_broadcast(&p->changed);
	}
	pthread_mutex_unlock(&p->lock);
}

void serve_pool_remove_job(struct serve_pool *p, struct job *job)
{
	memmove(job, job + 1, (size_t)(p->jobs + p->nr_jobs - (job + 1)) * sizeof(*job));
	p->nr_jobs--;
}

/* It is lent no more, and its memory is free.  0, or -EBUSY: somebody has it. */
static int let_go(struct serve_pool *p, struct weft_region *region)
{
	struct weft_error err;
	int r = weft_moves_give_up(p->serve->moves, region->name, &err);

	if (r == 0)
		r = weft_donor_remove(p->serve->donor, region);
	if (r < 0 && r != -ENOENT) {
		/* Otherwise the region has the memory, and nobody has the region. */
		weft_donor_end_eviction(p->serve->donor, region);
		return r;
	}
	p->is_busy = true;
	return serve_forget_region(p->serve, region);
}

static void end(struct serve_pool *p, const char *name, bool force)
{
	const struct has *has = serve_pool_find(p, name);
	struct weft_error err;

	pthread_mutex_lock(&p->lock);
	struct job *job = serve_pool_find_job(p, name);
	/* One that is under way is ended when it is there. */
	if (job && !job->under_way)
		serve_pool_remove_job(p, job);
	pthread_mutex_unlock(&p->lock);
	/* Who was connected a moment ago has a lease. */
	if (!has || (has->user[0] && !force))
		return;
	if (force && has->user[0]) {
		weft_warn("region '%s', which '%s' has attached, ends: its lease was released by "
			  "force",
			name, has->user);
		if (weft_donor_evict(p->serve->donor, has->region, &err) < 0)
			weft_warn("%s", err.message);
	}
	let_go(p, has->region);
}

static int spawn_move(struct serve_pool *p, const char *name, const char *to, pid_t *ret)
{
	WEFT_CLEANUP_FREE char *from = NULL;
	char program[4096];
	int r = weft_program_beside("weft-move", program, sizeof(program));

	if (r == 0 && asprintf(&from, "%s/%s", p->uri, name) < 0) {
		from = NULL;
		r = -ENOMEM;
	}
	if (r < 0)
		return r;
	char *const argv[] = {"weft-move", from, (char *)to, NULL};
	return serve_spawn(program, argv, ret);
}

static void move(struct serve_pool *p, const char *name, const char *to)
{
	struct leaving *free_one = NULL;

	for (unsigned i = 0; i < MOVES_MAX; i++) {
		if (p->leaving[i].pid && strcmp(p->leaving[i].name, name) == 0)
			return;
		if (!p->leaving[i].pid)
			free_one = &p->leaving[i];
	}
	if (!free_one || !serve_pool_find(p, name))
		return;
	int r = spawn_move(p, name, to, &free_one->pid);
	if (r < 0) {
		free_one->pid = 0;
		serve_pool_append(p->stays, name, strerror(-r));
		return;
	}
	strcpy(free_one->name, name);
	weft_info("region '%s' moves to %s, as the pool's coordinator says", name, to);
}

void serve_pool_see_moves(struct serve_pool *p)
{
	char why[100];
	int status;

	for (unsigned i = 0; i < MOVES_MAX; i++) {
		struct leaving *l = &p->leaving[i];

		const pid_t ended = l->pid ? waitpid(l->pid, &status, WNOHANG) : 0;
		if (ended == 0)
			continue;
		l->pid = 0;
		/* Its status is not kept if a holder was started meanwhile. */
		if (ended < 0)
			status = W_EXITCODE(1, 0);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			continue;
		snprintf(why, sizeof(why), "weft move failed (status %d): its donor's log says why",
			WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
		serve_pool_append(p->stays, l->name, why);
	}
}

void serve_pool_carry_out(struct serve_pool *p, const json_t *answer)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(answer, "end"), i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));

		if (name && serve_pool_has_name(name))
			end(p, name, json_is_true(json_object_get(one, "force")));
	}
	json_array_foreach(json_object_get(answer, "make"), i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));
		const json_int_t size = json_integer_value(json_object_get(one, "size_bytes"));

		if (name && serve_pool_has_name(name) && size > 0)
			order(p, name, (uint64_t)size);
	}
	json_array_foreach(json_object_get(answer, "move"), i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));
		const char *to = json_string_value(json_object_get(one, "to"));

		if (name && to && serve_pool_has_name(name) && strncmp(to, "weft://", 7) == 0)
			move(p, name, to);
	}
}

/* ---- memory that has to come back ---- */

/* What nobody has attached goes first, then what is largest. */
static int compare(const void *a, const void *b)
{
	const struct has *x = a, *y = b;
	const bool used_x = x->user[0] != '\0', used_y = y->user[0] != '\0';

	if (used_x != used_y)
		return used_x ? 1 : -1;
	return (x->size_bytes < y->size_bytes) - (x->size_bytes > y->size_bytes);
}

/* The machine has missed memory for too long. */
void serve_pool_give_up(struct serve_pool *p)
{
	uint64_t wanted = p->lending.give_back_bytes;
	struct weft_error err;
	char size[32];

	qsort(p->has, p->nr_has, sizeof(*p->has), compare);
	for (unsigned i = 0; i < p->nr_has && wanted > 0; i++) {
		const struct has *has = &p->has[i];

		if (has->user[0] && weft_donor_evict(p->serve->donor, has->region, &err) < 0)
			weft_warn("%s", err.message);
		if (let_go(p, has->region) < 0)
			continue;
		weft_err("region '%s' (%s), which %s%s%s, is given up: this machine's own jobs "
			 "have missed memory for %u s (--reclaim-deadline)",
			has->name, weft_format_size(has->size_bytes, size, sizeof(size)),
			has->user[0] ? "'" : "", has->user[0] ? has->user : "nobody has attached",
			has->user[0] ? "' had attached and loses" : "",
			p->wish->deadline_ms / 1000);
		wanted -= weft_min(wanted, has->size_bytes);
	}
	p->missed_since_ns = weft_now_ns();
}
