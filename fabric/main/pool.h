/* SPDX-License-Identifier: MIT */
/*
 * What the parts of weft pool share: pool.c (the command line), pool-serve.c (the coordinator),
 * pool-ask.c (what is asked of one), pool-job.c (what a scheduler asks; pool-job.h), pool-print.c
 * (tables).  One thread.
 */
#ifndef WEFT_FABRIC_MAIN_POOL_H
#define WEFT_FABRIC_MAIN_POOL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/pool/client.h"

enum { POOL_MAX_LISTEN = 8 };

struct pool_options {
	const char *action, *name; /* name NULL: none was given */
	struct pool_client_config at;
	bool json;
	/* alloc, resize */
	uint64_t size_bytes;
	unsigned copies;
	const char *spread, *job, *project, *owner, *donor;
	uint32_t idle_ms;
	bool dry_run, explain, discard;
	/* move, release, quota, audit */
	const char *to;
	unsigned copy, after;
	bool force, is_project, none;
	uint32_t wait_ms;
	bool has_wait, has_size;
	/* serve */
	const char *listen[POOL_MAX_LISTEN];
	unsigned nr_listen;
	const char *socket, *state, *keys;
	const char *etcd, *etcd_prefix, *etcd_certificates;
	/* job-start, job-end */
	const char *want, *nodes, *node, *dir, *cgroup;
	bool allow_swap, allow_insecure, is_first;
};

/* The coordinator, until it is told to end.  0, or -errno. */
int pool_serve(const struct pool_options *o, struct weft_error *err);

/* Requests: 0, or -errno. */
int pool_ask_status(struct pool_options *o, struct pool_client *client, struct weft_error *err);
int pool_ask_donors(struct pool_options *o, struct pool_client *client, struct weft_error *err);
int pool_ask_leases(struct pool_options *o, struct pool_client *client, struct weft_error *err);
int pool_ask_uris(struct pool_options *o, struct pool_client *client, struct weft_error *err);
int pool_ask_quotas(struct pool_options *o, struct pool_client *client, struct weft_error *err);
int pool_ask_audit(struct pool_options *o, struct pool_client *client, struct weft_error *err);
int pool_ask_alloc(struct pool_options *o, struct pool_client *client, struct weft_error *err);
int pool_ask_release(struct pool_options *o, struct pool_client *client, struct weft_error *err);
int pool_ask_resize(struct pool_options *o, struct pool_client *client, struct weft_error *err);
int pool_ask_move(struct pool_options *o, struct pool_client *client, struct weft_error *err);
int pool_ask_donor_state(struct pool_options *o, struct pool_client *client,
	struct weft_error *err);
int pool_ask_forget(struct pool_options *o, struct pool_client *client, struct weft_error *err);
int pool_ask_quota(struct pool_options *o, struct pool_client *client, struct weft_error *err);
/* A path with the name in place of its '*'; anything but plain letters is written as %XX. */
const char *pool_path(const char *fmt, const char *name, char ret[512]);

/* What a scheduler asks (pool-job.c).  client NULL: there is none, and *err says why. */
int pool_job_start(struct pool_options *o, struct pool_client *client, struct weft_error *err);
int pool_job_end(struct pool_options *o, struct pool_client *client, struct weft_error *err);

/* Tables, on standard output. */
void pool_print_status(const json_t *status);
void pool_print_donors(const json_t *donors);
void pool_print_leases(const json_t *leases);
/* One of them, with where its copies are. */
void pool_print_lease(const json_t *lease);
void pool_print_quotas(const json_t *quotas);
/* Without a head: more follow. */
void pool_print_audit(const json_t *audit);
void pool_print_explained(const json_t *explained);
void pool_print_json(const json_t *json);

#endif
