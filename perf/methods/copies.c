/* SPDX-License-Identifier: MIT */
/*
 * Methods that make a whole copy: by a program, from a file or from another donor.  What they leave
 * is compared with what has to be there.  One thread; blocks.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/bench/json.h"
#include "perf/methods/methods.h"

enum { START_MS = 10000 };

/* A file that holds what belongs there; pages that changed are written again. */
struct copy_file {
	char path[160];
	int fd;
	uint8_t buf[METHODS_CHUNK];
};

static int write_at(struct copy_file *file, const struct methods_contents *c, uint64_t off,
	uint32_t len, struct weft_error *err)
{
	methods_contents_make(c, file->buf, len, off);
	if (pwrite(file->fd, file->buf, len, (off_t)off) == (ssize_t)len)
		return 0;
	return weft_error_set(err, errno, "cannot write %s: %s", file->path, strerror(errno));
}

static int make_file(struct copy_file *file, const struct methods_site *site, const char *name,
	const struct methods_contents *c, struct weft_error *err)
{
	int r = 0;

	snprintf(file->path, sizeof(file->path), "%s/%s", site->dir, name);
	file->fd = open(file->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (file->fd < 0)
		return weft_error_set(
			err, errno, "cannot make %s: %s", file->path, strerror(errno));
	for (uint64_t off = 0; r == 0 && off < c->bytes; off += METHODS_CHUNK)
		r = write_at(file, c, off, METHODS_CHUNK, err);
	return r;
}

/* 1 % of the pages, at random. */
static int change_file(struct copy_file *file, const struct methods_site *site,
	struct methods_contents *c, struct weft_error *err)
{
	uint64_t pages = c->bytes / METHODS_PAGE;
	struct methods_random random = {site->o->seed ^ 0x9e3779b97f4a7c15};
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < pages / 100; i++) {
		uint64_t off = methods_random_below(&random, pages) * METHODS_PAGE;

		methods_contents_change(c, off, METHODS_PAGE);
		r = write_at(file, c, off, METHODS_PAGE, err);
	}
	return r;
}

static int check_file(struct copy_file *file, const char *path, const struct methods_contents *c,
	struct weft_error *err)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	int r = fd < 0 ? weft_error_set(err, errno, "cannot open %s: %s", path, strerror(errno))
		       : 0;

	for (uint64_t off = 0; r == 0 && off < c->bytes; off += METHODS_CHUNK) {
		if (pread(fd, file->buf, METHODS_CHUNK, (off_t)off) != METHODS_CHUNK)
			return weft_error_set(err, EIO, "%s is too short", path);
		r = methods_contents_check(c, file->buf, METHODS_CHUNK, off, err);
	}
	return r;
}

static void end_file(struct copy_file *file)
{
	weft_close_fd(file->fd);
	unlink(file->path);
	free(file);
}

/* Runs the program that copies, with a meter; useful: what has to travel. */
static json_t *copy(const struct methods_cell *cell, const char *const argv[], uint64_t useful,
	struct weft_error *err)
{
	struct methods_phase phase = {.ops = 1, .bytes = useful};
	pid_t donor = methods_cell_donor(cell)->daemon.pid;
	char said[4096];

	methods_meter_read(cell->site, 0, donor, &phase.from);
	int r = methods_call(argv, said, sizeof(said), err);
	methods_meter_read(cell->site, 0, donor, &phase.to);
	return r == 0 ? methods_phase_json(cell->site, &phase, false, donor != 0) : NULL;
}

/* All of it, and then again when 1 % has changed. */
static json_t *copy_twice(const struct methods_cell *cell, struct copy_file *file,
	struct methods_contents *c, const char *const argv[], struct weft_error *err)
{
	json_t *whole = copy(cell, argv, c->bytes, err), *update = NULL;

	if (whole && change_file(file, cell->site, c, err) == 0)
		update = copy(cell, argv, c->bytes / METHODS_PAGE / 100 * METHODS_PAGE, err);
	if (update)
		return json_pack("{s:{s:o, s:o}}", "works", "copy", whole, "update", update);
	json_decref(whole);
	return NULL;
}

json_t *methods_run_push(const struct methods_cell *cell, struct weft_error *err)
{
	struct methods_contents *c = &methods_cell_donor(cell)->contents;
	struct copy_file *file = calloc(1, sizeof(*file));
	char program[PATH_MAX], uri[200], with_transport[200];
	const char *const argv[] = {
		program, "--allow-insecure", "--json", file ? file->path : "", uri, NULL};
	json_t *json = NULL;

	if (!file)
		return NULL;
	bench_program("weft-push", program);
	methods_cell_uri(cell, false, uri);
	/* Nothing of it is there yet. */
	methods_contents_change(c, 0, c->bytes);
	if (make_file(file, cell->site, "file", c, err) == 0)
		json = copy_twice(cell, file, c, argv, err);
	end_file(file);
	if (!json || methods_bulk_read(cell, methods_cell_uri(cell, true, with_transport), NULL,
			     err) == 0)
		return json;
	json_decref(json);
	return NULL;
}

/* ---- rsync, to its daemon at the far end ---- */

static int start_rsync(const struct methods_site *site, const char *host, const char *config,
	struct bench_daemon *ret, struct weft_error *err)
{
	const char *const argv[] = {"rsync", "--daemon", "--no-detach", "--address", host, "--port",
		"8730", "--config", config, NULL};
	FILE *f = fopen(config, "we");

	if (!f)
		return weft_error_set(err, errno, "cannot make %s: %s", config, strerror(errno));
	fprintf(f, "use chroot = no\nuid = %u\ngid = %u\n[m]\npath = %s/there\nread only = no\n",
		getuid(), getgid(), site->dir);
	fclose(f);
	pid_t pid = bench_daemon_spawn(argv, site->far, &ret->out);
	if (pid < 0)
		return weft_error_set(err, -pid, "cannot start rsync: %s", strerror(-pid));
	ret->pid = pid;
	return 0;
}

/* Until its daemon answers. */
static int wait_for_rsync(const char *module, struct weft_error *err)
{
	const char *const argv[] = {"rsync", "--contimeout=2", module, NULL};
	uint64_t until_ns = weft_now_ns() + START_MS * UINT64_C(1000000);
	char said[4096];
	int r;

	while ((r = methods_call(argv, said, sizeof(said), err)) < 0 && weft_now_ns() < until_ns)
		usleep(50000);
	return r;
}

static json_t *rsync(const struct methods_cell *cell, struct copy_file *file,
	struct methods_contents *c, const char *host, struct weft_error *err)
{
	char module[128], to[160], there[160];
	const char *const argv[] = {"rsync", "--ignore-times", "--inplace", "--no-whole-file",
		file->path, to, NULL};
	json_t *json = NULL;

	snprintf(module, sizeof(module), "rsync://%s:8730/m/", host);
	snprintf(to, sizeof(to), "%s%s", module, "now");
	snprintf(there, sizeof(there), "%s/there/now", cell->site->dir);
	if (wait_for_rsync(module, err) == 0 &&
		make_file(file, cell->site, "file", c, err) == 0)
		json = copy_twice(cell, file, c, argv, err);
	if (json && check_file(file, there, c, err) < 0) {
		json_decref(json);
		json = NULL;
	}
	unlink(there);
	return json;
}

json_t *methods_run_rsync(const struct methods_cell *cell, struct weft_error *err)
{
	const char *address = methods_cell_donor(cell)->address;
	struct copy_file *file = calloc(1, sizeof(*file));
	struct bench_daemon daemon = {.out = -1};
	struct methods_contents c;
	char host[80], config[160], there[160];
	json_t *json = NULL;

	if (!file || methods_contents_new(&c, ~cell->site->o->seed, cell->site->bytes) < 0) {
		free(file);
		return NULL;
	}
	file->fd = -1;
	snprintf(host, sizeof(host), "%.*s", (int)(strrchr(address, ':') - address), address);
	snprintf(config, sizeof(config), "%s/rsyncd", cell->site->dir);
	snprintf(there, sizeof(there), "%s/there", cell->site->dir);
	mkdir(there, 0700);
	if (start_rsync(cell->site, host, config, &daemon, err) == 0)
		json = rsync(cell, file, &c, host, err);
	bench_daemon_end(&daemon);
	unlink(config);
	rmdir(there);
	end_file(file);
	methods_contents_free(&c);
	return json;
}

/* ---- a move to a donor at this end ---- */

static json_t *move(const struct methods_cell *cell, struct bench_daemon *taker,
	struct weft_error *err)
{
	const struct methods_site *site = cell->site;
	struct methods_phase phase = {.ops = 1, .bytes = site->bytes};
	pid_t donor = methods_cell_donor(cell)->daemon.pid;
	char program[PATH_MAX], uri[200], to[100], there[120], said[8192];
	const char *const argv[] = {program, "--allow-insecure", "--json", uri, to, NULL};

	bench_program("weft-move", program);
	methods_cell_uri(cell, false, uri);
	snprintf(to, sizeof(to), "weft://%s", site->near_address);
	methods_meter_read(site, taker->pid, donor, &phase.from);
	int r = methods_call(argv, said, sizeof(said), err);
	methods_meter_read(site, taker->pid, donor, &phase.to);
	snprintf(there, sizeof(there), "%s/bench", to);
	if (r == 0)
		r = methods_bulk_read(cell, there, NULL, err);
	if (r < 0)
		return NULL;
	json_t *told = json_loads(said, 0, NULL);
	json_t *json = json_pack("{s:{s:o}, s:f}", "works", "copy",
		methods_phase_json(site, &phase, true, donor != 0), "frozen_ms",
		number_of(told, "downtime_s") * 1e3);
	json_decref(told);
	return json;
}

json_t *methods_run_move(const struct methods_cell *cell, struct weft_error *err)
{
	struct bench_daemon taker = {.out = -1};
	char program[PATH_MAX], bytes[32], said[4096];
	const char *const argv[] = {program, "--take", bytes, "--listen",
		cell->site->near_address, "--allow-insecure", "--keep", "0", NULL};
	json_t *json = NULL;

	bench_program("weft-serve", program);
	snprintf(bytes, sizeof(bytes), "%" PRIu64, 2 * cell->site->bytes);
	if (bench_daemon_start(argv, -1, "donor", &taker, said, sizeof(said), err) == 0)
		json = move(cell, &taker, err);
	bench_daemon_end(&taker);
	return json;
}
