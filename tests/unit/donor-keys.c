/* SPDX-License-Identifier: MIT */
/* What a key is for at a donor, who else may use what was granted under it, and when it ends. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/key/pass.h"
#include "tests/support/donor-sessions.h"

#define SECRET_A "00112233445566778899aabbccddeeff"
#define SECRET_B "ffeeddccbbaa99887766554433221100"

static char dir[64];
static struct weft_keys *keys;
static struct weft_region *other; /* "other", beside "m" */

static void put(const char *name, const char *text)
{
	char path[128], new_path[160];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	snprintf(new_path, sizeof(new_path), "%s.new", path);
	int fd = open(new_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(weft_write_all(fd, text, strlen(text)), 0);
	close(fd);
	assert_int_equal(rename(new_path, path), 0);
}

/* What alice and bob may do, as in grants.json. */
static void put_grants(const char *alice, const char *bob)
{
	char text[512];

	snprintf(text, sizeof(text), "{\"version\": 1, \"keys\": {\"alice\": {%s}, \"bob\": {%s}}}",
		alice, bob);
	put("grants.json", text);
}

/* As weft-serve does it when the store's descriptor is readable. */
static void reload(void)
{
	assert_int_equal(weft_keys_reload(keys, &err), 1);
	weft_donor_keys_changed(donor);
}

static int set_up(void **state)
{
	strcpy(dir, "/tmp/weft-donor-keys-XXXXXX");
	assert_non_null(mkdtemp(dir));
	put("keys.psk", "alice:" SECRET_A "\nbob:" SECRET_B "\n");
	put_grants("", "");
	assert_int_equal(weft_keys_open(dir, &keys, &err), 0);
	struct weft_donor_config config = {
		.lease_ms = LEASE_MS, .fence_timeout_ms = FENCE_MS, .offers = "tcp", .keys = keys};

	assert_int_equal(weft_donor_new(&config, &donor), 0);
	region = new_region("m", false);
	other = new_region("other", false);
	assert_int_equal(weft_donor_add(donor, region, &err), 0);
	assert_int_equal(weft_donor_add(donor, other, &err), 0);
	return 0;
}

static int tear_down(void **state)
{
	char path[128];

	weft_donor_free(donor);
	weft_region_put(region);
	weft_region_put(other);
	weft_keys_close(keys);
	snprintf(path, sizeof(path), "%s/keys.psk", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/grants.json", dir);
	unlink(path);
	return rmdir(dir);
}

static struct weft_peer peer_of(const char *identity, const char *address)
{
	struct weft_peer peer = {.transport = "tcp+tls", .encrypted = true};
	struct sockaddr_in *in = (struct sockaddr_in *)&peer.address;

	in->sin_family = AF_INET;
	in->sin_port = htons(5);
	assert_int_equal(inet_pton(AF_INET, address, &in->sin_addr), 1);
	snprintf(peer.text, sizeof(peer.text), "%s:5", address);
	strcpy(peer.identity, identity);
	return peer;
}

static int grant_by(struct session *s, const char *identity, uint8_t who, uint64_t generation,
	enum weft_mode mode)
{
	struct weft_peer peer = peer_of(identity, "10.0.0.1");
	struct weft_hello hello = hello_of(who, generation, mode);

	return grant_to(s, &peer, &hello);
}

static int stock_by(struct session *s, const char *identity)
{
	struct weft_peer peer = peer_of(identity, "10.0.0.1");
	struct weft_hello hello = {.anonymous = true};

	return grant_to(s, &peer, &hello);
}

static void expect_message(const char *text)
{
	if (strcmp(err.message, text) != 0)
		fail_msg("%s", err.message);
}

/* The names of a listing, each with a space behind it. */
static int collect(void *ctx, const char *name, const char *description, uint64_t size_bytes)
{
	strcat(strcat(ctx, name), " ");
	return 0;
}

static void nobody_is_let_in_without_a_key(void **state)
{
	struct weft_peer peer = peer_of("", "10.0.0.1");
	struct weft_region *found;
	char names[64] = "";
	struct session s;

	assert_int_equal(grant_by(&s, "", 1, 1, WEFT_MODE_READ), -EACCES);
	expect_message("this donor wants a key; whoever runs it makes one: weft key new");
	assert_int_equal(weft_donor_let_in(donor, &peer, &err), -EACCES);
	assert_int_equal(weft_donor_find(donor, &peer, "m", &found, NULL, &err), -EACCES);
	assert_int_equal(weft_donor_list(donor, &peer, collect, names, &err), -EACCES);
	assert_string_equal(names, "");
	assert_int_equal(grant_by(&s, "eve", 1, 1, WEFT_MODE_READ), -EACCES);
	expect_message("key 'eve' is not, or no longer, one of this donor's; whoever runs this "
		       "donor makes another: weft key new");
	assert_int_equal(grant_by(&s, "not a name", 1, 1, WEFT_MODE_READ), -EACCES);
	/* A socket's file says who may come to it. */
	peer.local = true;
	assert_int_equal(weft_donor_let_in(donor, &peer, &err), 0);
}

static void over_loopback_only_our_user_and_root_need_no_key(void **state)
{
	struct weft_peer peer = peer_of("", "127.0.0.1");
	struct weft_donor_config config = {.lease_ms = LEASE_MS};
	struct weft_donor *without;

	peer.encrypted = false;
	assert_int_equal(weft_donor_let_in(donor, &peer, &err), -EACCES);
	peer.has_uid = true;
	assert_int_equal(weft_donor_let_in(donor, &peer, &err), 0);
	peer.uid = geteuid();
	assert_int_equal(weft_donor_let_in(donor, &peer, &err), 0);
	peer.uid = geteuid() + 1;
	assert_int_equal(weft_donor_let_in(donor, &peer, &err), -EACCES);
	/* The same at a donor without keys; and nobody who does not come over loopback. */
	assert_int_equal(weft_donor_new(&config, &without), 0);
	assert_int_equal(weft_donor_let_in(without, &peer, &err), -EACCES);
	peer.uid = 0;
	assert_int_equal(weft_donor_let_in(without, &peer, &err), 0);
	peer.has_uid = false;
	assert_int_equal(weft_donor_let_in(without, &peer, &err), -EACCES);
	peer = peer_of("", "10.0.0.1");
	assert_int_equal(weft_donor_let_in(without, &peer, &err), -EACCES);
	weft_donor_free(without);
	config.allow_insecure = true;
	assert_int_equal(weft_donor_new(&config, &without), 0);
	assert_int_equal(weft_donor_let_in(without, &peer, &err), 0);
	weft_donor_free(without);
}

static void a_key_is_for_its_regions_and_there_are_no_others(void **state)
{
	struct weft_peer peer = peer_of("alice", "10.0.0.1");
	struct weft_region *found, *none = NULL;
	char names[64] = "";
	struct session s;

	put_grants("\"regions\": [\"other\", \"none\"]", "");
	reload();
	assert_int_equal(weft_donor_list(donor, &peer, collect, names, &err), 0);
	assert_string_equal(names, "other ");
	assert_int_equal(weft_donor_find(donor, &peer, "m", &none, NULL, &err), -ENOENT);
	expect_message("there is no region 'm'");
	assert_int_equal(weft_donor_find(donor, &peer, "none", &none, NULL, &err), -ENOENT);
	expect_message("there is no region 'none'");
	/* By a name with a tenure, too. */
	assert_int_equal(weft_donor_find(donor, &peer, "m@0123456789abcdef", &none, NULL, &err),
		-ENOENT);
	assert_null(none);
	/* For her there is just one. */
	assert_int_equal(weft_donor_find(donor, &peer, "", &found, NULL, &err), 0);
	assert_ptr_equal(found, other);
	weft_region_put(found);
	/* Also if it was found before the key was for less. */
	assert_int_equal(grant_by(&s, "alice", 1, 1, WEFT_MODE_WRITE), -ENOENT);
	expect_message("there is no region 'm'");
}

static void a_key_to_read_does_not_write(void **state)
{
	struct weft_peer peer = peer_of("alice", "10.0.0.1");
	struct session s;

	put_grants("\"read_only\": true", "");
	reload();
	assert_int_equal(grant_by(&s, "alice", 1, 1, WEFT_MODE_WRITE), -EROFS);
	expect_message("region 'm': key 'alice' may read it, and not write");
	assert_false(weft_donor_may_write(donor, &peer, region));
	assert_int_equal(grant_by(&s, "alice", 1, 1, WEFT_MODE_READ), 0);
	assert_false(s.grant->writable);
	release(&s, true);
	/* Stock clients do not say what they want: they get what there is. */
	assert_int_equal(stock_by(&s, "alice"), 0);
	assert_false(s.grant->writable);
	release(&s, true);
}

static void a_stock_client_that_only_reads_keeps_writers_out(void **state)
{
	struct session reader, writer;

	put_grants("\"read_only\": true", "");
	reload();
	assert_int_equal(stock_by(&reader, "alice"), 0);
	assert_int_equal(grant_by(&writer, "bob", 1, 1, WEFT_MODE_WRITE), -EBUSY);
	assert_int_equal(grant_by(&writer, "bob", 1, 1, WEFT_MODE_READ), 0);
	/* Nor does a second one write beside it, once the key is for that. */
	put_grants("", "");
	reload();
	release(&writer, true);
	assert_int_equal(stock_by(&writer, "alice"), -EBUSY);
	release(&reader, true);
	assert_int_equal(stock_by(&writer, "alice"), 0);
	assert_true(writer.grant->writable);
	release(&writer, true);
}

static void a_key_has_its_memory_at_a_time(void **state)
{
	struct session a, a2, b, c;
	struct weft_region *m = region;

	put_grants("\"max_bytes\": 65536", "");
	reload();
	assert_int_equal(grant_by(&a, "alice", 1, 1, WEFT_MODE_READ), 0);
	/* The same region once more is no more memory. */
	assert_int_equal(grant_by(&a2, "alice", 2, 1, WEFT_MODE_READ), 0);
	region = other;
	assert_int_equal(grant_by(&b, "alice", 3, 1, WEFT_MODE_READ), -EBUSY);
	expect_message("region 'other': key 'alice' may hold 64 KiB in all, and would hold more "
		       "with it");
	assert_int_equal(grant_by(&c, "bob", 3, 1, WEFT_MODE_READ), 0);
	release(&a, true);
	/* What is held still, by one that is away, counts. */
	release(&a2, false);
	assert_int_equal(grant_by(&b, "alice", 3, 1, WEFT_MODE_READ), -EBUSY);
	tick_in(LEASE_MS + 100);
	assert_int_equal(grant_by(&b, "alice", 3, 1, WEFT_MODE_READ), 0);
	release(&b, true);
	release(&c, true);
	region = m;
}

static void a_key_has_its_sessions_at_a_time(void **state)
{
	struct session a, b, c;

	put_grants("\"max_sessions\": 2", "");
	reload();
	assert_int_equal(grant_by(&a, "alice", 1, 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant_by(&b, "alice~2", 1, 1, WEFT_MODE_WRITE), -EACCES);
	assert_int_equal(grant_by(&b, "alice", 1, 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant_by(&c, "alice", 1, 1, WEFT_MODE_WRITE), -EBUSY);
	expect_message("region 'm': key 'alice' may have 2 connections at a time, and has them");
	/* Whoever comes back takes the place of what it had. */
	start_copier(&a);
	start_copier(&b);
	assert_int_equal(grant_by(&c, "alice", 1, 2, WEFT_MODE_WRITE), 0);
	pthread_join(a.thread, NULL);
	pthread_join(b.thread, NULL);
	release(&c, true);
}

static void a_key_is_used_from_where_it_may_be(void **state)
{
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_READ);
	struct weft_peer peer = peer_of("alice", "10.0.1.1");
	struct session s;

	put_grants("\"from\": [\"10.0.0.0/24\"]", "");
	reload();
	assert_int_equal(grant_to(&s, &peer, &hello), -EACCES);
	expect_message("key 'alice' may not be used from 10.0.1.1:5");
	peer = peer_of("alice", "10.0.0.77");
	assert_int_equal(grant_to(&s, &peer, &hello), 0);
	release(&s, true);
}

static void who_has_moved_is_held_to_where_it_is(void **state)
{
	const struct weft_peer before = peer_of("alice", "10.0.0.77"),
			       after = peer_of("alice", "10.0.1.1");
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_WRITE);
	struct session s;

	assert_int_equal(grant_to(&s, &before, &hello), 0);
	weft_grant_moved(s.grant, &after.address, after.text);
	put_grants("\"from\": [\"10.0.1.0/24\"]", "");
	reload();
	assert_int_equal(s.nr_fenced, 0);
	put_grants("\"from\": [\"10.0.0.0/24\"]", "");
	reload();
	assert_int_equal(s.nr_fenced, 1);
	release(&s, false);
}

static void a_key_is_for_plaintext_only_if_it_says_so(void **state)
{
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_READ);
	struct weft_peer peer = peer_of("alice", "10.0.0.1");
	struct session s;

	peer.encrypted = false;
	peer.transport = "rdma";
	assert_int_equal(grant_to(&s, &peer, &hello), -EACCES);
	expect_message("what travels over rdma is in plaintext, which key 'alice' is not for; "
		       "--rdma-plaintext of weft key new, or of weft serve, allows it");
	put_grants("\"rdma_plaintext\": true", "");
	reload();
	assert_int_equal(grant_to(&s, &peer, &hello), 0);
	release(&s, true);
}

static void an_id_means_nothing_under_another_key(void **state)
{
	struct session alice, bob;
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_WRITE);
	struct weft_peer peer = peer_of("bob", "10.0.0.1");

	assert_int_equal(grant_by(&alice, "alice", 1, 1, WEFT_MODE_WRITE), 0);
	assert_false(weft_donor_knows(donor, &peer, region, &hello));
	peer = peer_of("alice", "10.0.0.2");
	assert_true(weft_donor_knows(donor, &peer, region, &hello));
	peer = peer_of("bob", "10.0.0.1");
	/* He neither joins nor supersedes it. */
	assert_int_equal(grant_by(&bob, "bob", 1, 1, WEFT_MODE_WRITE), -EBUSY);
	assert_int_equal(grant_by(&bob, "bob", 1, 2, WEFT_MODE_WRITE), -EBUSY);
	assert_false(alice.fenced);
	/* Nor does he go on with it once it is over. */
	release(&alice, false);
	tick_in(LEASE_MS + 100);
	hello.generation = 2;
	hello.epoch = region->epoch;
	assert_int_equal(grant_to(&bob, &peer, &hello), -ESTALE);
	/* Nor one without a key, where those are let in. */
	peer = peer_of("", "10.0.0.1");
	peer.local = true;
	assert_int_equal(grant_to(&bob, &peer, &hello), -ESTALE);
	peer = peer_of("alice", "10.0.0.1");
	assert_int_equal(grant_to(&alice, &peer, &hello), 0);
	release(&alice, true);
}

static void stock_clients_of_two_keys_exclude_each_other(void **state)
{
	struct session a, a2, b;

	assert_int_equal(stock_by(&a, "alice"), 0);
	assert_int_equal(stock_by(&b, "bob"), -EBUSY);
	assert_int_equal(stock_by(&a2, "alice"), 0);
	release(&a, true);
	release(&a2, true);
	assert_int_equal(stock_by(&b, "bob"), 0);
	release(&b, true);
}

static void a_revoked_key_ends_its_sessions_and_no_others(void **state)
{
	struct session a, b, bob, next;
	struct weft_region *m = region;

	assert_int_equal(grant_by(&a, "alice", 1, 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant_by(&b, "alice", 1, 1, WEFT_MODE_WRITE), 0);
	region = other;
	assert_int_equal(grant_by(&bob, "bob", 2, 1, WEFT_MODE_WRITE), 0);
	region = m;
	put("keys.psk", "bob:" SECRET_B "\n");
	reload();
	assert_int_equal(a.nr_fenced, 1);
	assert_int_equal(b.nr_fenced, 1);
	assert_int_equal(bob.nr_fenced, 0);
	release(&a, false);
	release(&b, false);
	assert_int_equal(grant_by(&a, "alice", 1, 2, WEFT_MODE_WRITE), -EACCES);
	/* Her borrower may answer from memory as long as its lease. */
	assert_int_equal(grant_by(&next, "bob", 3, 1, WEFT_MODE_WRITE), -EBUSY);
	tick_in(LEASE_MS + 100);
	assert_int_equal(grant_by(&next, "bob", 3, 1, WEFT_MODE_WRITE), 0);
	release(&next, true);
	release(&bob, true);
}

/* A certificate of the name is not good for more once its key is gone. */
static int come_by(struct session *s, const char *identity, uint8_t alias)
{
	struct weft_peer peer = peer_of(identity, "10.0.0.1");
	struct weft_hello hello = {.anonymous = true, .has_alias = true, .alias = {alias}};

	return grant_to(s, &peer, &hello);
}

static void an_alias_means_nothing_under_another_key(void **state)
{
	struct weft_peer alice = peer_of("alice", "10.0.0.1"), bob = peer_of("bob", "10.0.0.1");
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_WRITE);
	struct session control, kernel, thief;
	struct weft_region *found;
	bool writes;

	hello.has_alias = true;
	hello.alias[0] = 9;
	assert_int_equal(grant_to(&control, &alice, &hello), 0);
	assert_int_equal(come_by(&thief, "bob", 9), -ENOENT);
	assert_int_equal(come_by(&thief, "", 9), -EACCES);
	assert_int_equal(weft_donor_find_alias(donor, &bob, hello.alias, &found, &writes, &err),
		-ENOENT);
	assert_int_equal(come_by(&kernel, "alice", 9), 0);
	put("keys.psk", "bob:" SECRET_B "\n");
	reload();
	assert_int_equal(control.nr_fenced, 1);
	assert_int_equal(kernel.nr_fenced, 1);
	release(&kernel, false);
	release(&control, false);
}

static void a_certificate_may_do_what_the_key_of_its_name_may(void **state)
{
	struct weft_peer alice = peer_of("alice", "10.0.0.1"), eve = peer_of("eve", "10.0.0.1");
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_WRITE);
	struct session a, e;

	alice.certified = eve.certified = true;
	assert_int_equal(grant_to(&e, &eve, &hello), -EACCES);
	assert_int_equal(grant_to(&a, &alice, &hello), 0);
	put("keys.psk", "bob:" SECRET_B "\n");
	reload();
	assert_int_equal(a.nr_fenced, 1);
	release(&a, false);
	hello.generation = 2;
	assert_int_equal(grant_to(&a, &alice, &hello), -EACCES);
}

/* With keys or without: and nobody begins under one that is over. */
static void a_certificate_that_expires_ends_its_sessions(void **state)
{
	struct weft_peer alice = peer_of("alice", "10.0.0.1");
	struct weft_hello hello = hello_of(1, 1, WEFT_MODE_WRITE);
	struct session a;

	alice.certified = true;
	alice.expires = time(NULL) + 2;
	assert_int_equal(grant_to(&a, &alice, &hello), 0);
	weft_donor_tick(donor, weft_now_ns());
	assert_int_equal(a.nr_fenced, 0);
	while (time(NULL) < alice.expires)
		usleep(10000);
	weft_grant_touch(a.grant, weft_now_ns());
	weft_donor_tick(donor, weft_now_ns());
	assert_int_equal(a.nr_fenced, 1);
	release(&a, false);
	hello.generation = 2;
	assert_int_equal(grant_to(&a, &alice, &hello), -EACCES);
	expect_message("the certificate of 'alice' has expired");
}

static struct weft_key pass_of(unsigned i)
{
	uint8_t exported[WEFT_PASS_BYTES] = {(uint8_t)i, (uint8_t)(i >> 8)};
	struct weft_key ret;

	exported[WEFT_PASS_ID_BYTES] = (uint8_t)~i;
	weft_pass_make(exported, &ret);
	return ret;
}

static void a_pass_is_of_a_certificate_alone_and_taken_once(void **state)
{
	struct weft_peer alice = peer_of("alice", "10.0.0.1"), who = {.local = true};
	struct weft_key pass = pass_of(1), taken;

	assert_int_equal(weft_donor_keep_pass(donor, &alice, &pass), -EACCES);
	alice.certified = true;
	alice.expires = time(NULL) + 1000;
	alice.encrypted = false;
	assert_int_equal(weft_donor_keep_pass(donor, &alice, &pass), -EACCES);
	alice.encrypted = true;
	assert_int_equal(weft_donor_take_pass(donor, pass.identity, &taken, &who), -ENOKEY);
	assert_int_equal(weft_donor_keep_pass(donor, &alice, &pass), 0);
	assert_int_equal(weft_donor_take_pass(donor, "alice", &taken, &who), -ENOKEY);
	assert_int_equal(weft_donor_take_pass(donor, "", &taken, &who), -ENOKEY);
	assert_int_equal(weft_donor_take_pass(donor, pass.identity, &taken, &who), 0);
	assert_memory_equal(taken.secret, pass.secret, WEFT_SECRET_BYTES);
	assert_string_equal(who.identity, "alice");
	assert_true(who.certified && who.local && who.expires == alice.expires);
	assert_int_equal(weft_donor_take_pass(donor, pass.identity, &taken, &who), -ENOKEY);
	/* One whose name has no key here any more gets none. */
	put("keys.psk", "bob:" SECRET_B "\n");
	reload();
	assert_int_equal(weft_donor_keep_pass(donor, &alice, &pass), -EACCES);
}

static void passes_are_bounded_in_all_and_of_a_name(void **state)
{
	struct weft_peer peer = peer_of("alice", "10.0.0.1"), who;
	struct weft_key pass, taken;
	unsigned nr = 0;

	peer.certified = true;
	for (int r = 0; r == 0; nr += r == 0) {
		pass = pass_of(nr);
		r = weft_donor_keep_pass(donor, &peer, &pass);
		assert_true(r == 0 || r == -EBUSY);
	}
	assert_int_equal(nr, 64);
	/* Another name's are its own; a taken one makes room, and so does time. */
	strcpy(peer.identity, "bob");
	pass = pass_of(1000);
	assert_int_equal(weft_donor_keep_pass(donor, &peer, &pass), 0);
	strcpy(peer.identity, "alice");
	pass = pass_of(7);
	assert_int_equal(weft_donor_take_pass(donor, pass.identity, &taken, &who), 0);
	assert_int_equal(weft_donor_keep_pass(donor, &peer, &pass), 0);
	pass = pass_of(1001);
	assert_int_equal(weft_donor_keep_pass(donor, &peer, &pass), -EBUSY);
	weft_donor_tick(donor, weft_now_ns() + UINT64_C(10100000000));
	assert_int_equal(weft_donor_keep_pass(donor, &peer, &pass), 0);
	pass = pass_of(7);
	assert_int_equal(weft_donor_take_pass(donor, pass.identity, &taken, &who), -ENOKEY);
}

static void another_key_of_the_name_goes_on_but_not_the_old_one(void **state)
{
	struct weft_peer peer = peer_of("alice", "10.0.0.1");
	struct weft_hello hello = hello_of(1, 2, WEFT_MODE_WRITE);
	struct weft_rights rights;
	struct session a;

	assert_int_equal(weft_keys_rights(keys, "alice", &rights), 0);
	assert_int_equal(grant_by(&a, "alice", 1, 1, WEFT_MODE_WRITE), 0);
	put("keys.psk", "alice:" SECRET_B "\n");
	reload();
	assert_int_equal(a.nr_fenced, 1);
	release(&a, false);
	/* It proved the old one just before. */
	peer.life = rights.life;
	hello.epoch = region->epoch;
	assert_int_equal(grant_to(&a, &peer, &hello), -EACCES);
	peer.life = 0;
	assert_int_equal(grant_to(&a, &peer, &hello), 0);
	release(&a, true);
	weft_rights_fini(&rights);
}

static void a_rotated_key_is_the_same_name(void **state)
{
	struct session a, b, bob;

	assert_int_equal(grant_by(&a, "alice", 1, 1, WEFT_MODE_WRITE), 0);
	put("keys.psk", "alice:" SECRET_A "\nalice~2:" SECRET_B "\nbob:" SECRET_B "0011\n");
	reload();
	assert_int_equal(grant_by(&b, "alice~2", 1, 1, WEFT_MODE_WRITE), 0);
	assert_int_equal(a.nr_fenced, 0);
	put("keys.psk", "alice~2:" SECRET_B "\nbob:" SECRET_B "0011\n");
	reload();
	assert_int_equal(a.nr_fenced, 1);
	assert_int_equal(b.nr_fenced, 0);
	release(&a, false);
	assert_int_equal(grant_by(&bob, "bob", 2, 1, WEFT_MODE_WRITE), -EBUSY);
	release(&b, true);
}

static void a_key_that_is_for_less_ends_what_is_more(void **state)
{
	struct session writer, reader;
	struct weft_region *m = region;

	assert_int_equal(grant_by(&writer, "alice", 1, 1, WEFT_MODE_WRITE), 0);
	region = other;
	assert_int_equal(grant_by(&reader, "alice", 1, 1, WEFT_MODE_READ), 0);
	region = m;
	put_grants("\"read_only\": true, \"max_sessions\": 9", "");
	reload();
	assert_int_equal(writer.nr_fenced, 1);
	assert_int_equal(reader.nr_fenced, 0);
	put_grants("\"regions\": [\"m\"]", "");
	reload();
	assert_int_equal(reader.nr_fenced, 1);
	release(&writer, false);
	release(&reader, false);
}

static void a_key_that_expires_ends_its_sessions(void **state)
{
	char grants[64], date[WEFT_DATE_TEXT_MAX];
	int64_t expires = time(NULL) + 2;
	struct session a, bob;
	struct weft_region *m = region;

	snprintf(grants, sizeof(grants), "\"expires\": \"%s\"", weft_date_format(expires, date));
	put_grants(grants, "");
	reload();
	assert_int_equal(grant_by(&a, "alice", 1, 1, WEFT_MODE_WRITE), 0);
	region = other;
	assert_int_equal(grant_by(&bob, "bob", 1, 1, WEFT_MODE_WRITE), 0);
	region = m;
	weft_donor_tick(donor, weft_now_ns());
	assert_int_equal(a.nr_fenced, 0);
	while (time(NULL) < expires)
		usleep(10000);
	weft_grant_touch(a.grant, weft_now_ns());
	weft_grant_touch(bob.grant, weft_now_ns());
	weft_donor_tick(donor, weft_now_ns());
	assert_int_equal(a.nr_fenced, 1);
	assert_int_equal(bob.nr_fenced, 0);
	release(&a, false);
	release(&bob, true);
	assert_int_equal(grant_by(&a, "alice", 1, 2, WEFT_MODE_WRITE), -EACCES);
	expect_message("key 'alice' has expired; whoever runs this donor makes another: weft key "
		       "new");
}

/* ---- hosts that say who they are, and prove nothing ---- */

static int host_comes(struct session *s, const char *name, bool read_only, bool may_be_plaintext)
{
	struct weft_hello hello = {.anonymous = true, .tenure = weft_donor_tenure(donor, region)};
	struct weft_peer peer = peer_of("", "10.0.0.1");

	peer.encrypted = false;
	peer.listed = true;
	peer.read_only = read_only;
	peer.may_be_plaintext = may_be_plaintext;
	strcpy(peer.host, name);
	return grant_to(s, &peer, &hello);
}

static void a_listed_host_needs_plaintext_to_be_allowed(void **state)
{
	struct weft_peer peer = peer_of("", "10.0.0.1");
	struct session s;

	assert_int_equal(host_comes(&s, "db1", false, false), -EACCES);
	strcpy(peer.host, "db1");
	peer.may_be_plaintext = true; /* it is not listed */
	assert_int_equal(weft_donor_let_in(donor, &peer, &err), -EACCES);
	assert_int_equal(host_comes(&s, "db1", false, true), 0);
	assert_true(s.grant->writable);
	release(&s, true);
}

static void hosts_exclude_each_other_and_join_themselves(void **state)
{
	struct session one, two, three, stock;
	uint64_t tenure = weft_donor_tenure(donor, region);

	assert_int_equal(host_comes(&one, "db1", false, true), 0);
	assert_int_equal(host_comes(&two, "db1", false, true), 0);
	assert_int_equal(host_comes(&three, "db2", false, true), -EBUSY);
	assert_non_null(strstr(err.message, "in use by host 'db1'"));
	assert_int_equal(stock_by(&stock, "alice"), -EBUSY);
	/* No key has a host's name. */
	assert_int_equal(grant_by(&stock, "alice", 1, 1, WEFT_MODE_WRITE), -EBUSY);
	release(&one, true);
	assert_int_equal(host_comes(&three, "db2", false, true), -EBUSY);
	release(&two, false);
	assert_int_equal(host_comes(&three, "db2", false, true), 0);
	/* Whoever comes next is told another. */
	assert_true(weft_donor_tenure(donor, region) != tenure);
	release(&three, true);
}

static int host_says(struct session *s, const char *name, uint64_t tenure)
{
	struct weft_hello hello = {.anonymous = true, .tenure = tenure};
	struct weft_peer peer = peer_of("", "10.0.0.1");

	peer.encrypted = false;
	peer.listed = peer.may_be_plaintext = true;
	strcpy(peer.host, name);
	int r = grant_to(s, &peer, &hello);
	uint64_t own = weft_donor_own_tenure(donor, region, &peer);
	assert_int_equal(own, r == 0 ? tenure : 0);
	return r;
}

static void a_tenure_is_one_hosts(void **state)
{
	const uint64_t first = weft_donor_tenure(donor, region);
	struct session s;

	assert_int_equal(host_says(&s, "db1", first), 0);
	release(&s, true);
	/* The line that was printed holds for the host that uses it … */
	assert_int_equal(host_says(&s, "db1", first), 0);
	const uint64_t turn = s.grant->turn;
	release(&s, false);
	assert_int_equal(weft_donor_tenure(donor, region), first);
	/* … until another uses it, which comes back by it then, and the first does not. */
	assert_int_equal(host_says(&s, "db2", first), 0);
	assert_true(s.grant->turn > turn);
	const uint64_t second = weft_donor_tenure(donor, region);
	assert_true(second != first);
	release(&s, false);
	assert_int_equal(host_says(&s, "db1", first), -ESTALE);
	assert_int_equal(host_says(&s, "db2", first), 0);
	assert_true(weft_donor_tenure(donor, region) == second);
	release(&s, false);
	/* What the donor tells now is for anybody, once. */
	assert_int_equal(host_says(&s, "db1", second), 0);
	release(&s, false);
	assert_int_equal(host_says(&s, "db2", first), -ESTALE);
	assert_int_equal(host_says(&s, "db2", second), -ESTALE);
	assert_int_equal(host_says(&s, "db1", second), 0);
	release(&s, true);
	/* A key is another than a host. */
	struct weft_hello hello = {.anonymous = true, .tenure = weft_donor_tenure(donor, region)};
	struct weft_peer alice = peer_of("alice", "10.0.0.1");
	assert_int_equal(grant_to(&s, &alice, &hello), 0);
	release(&s, true);
	assert_int_equal(host_says(&s, "db1", second), -ESTALE);
	assert_int_equal(grant_to(&s, &alice, &hello), 0);
	release(&s, true);
}

static void a_host_that_reads_stands_beside_one_that_writes(void **state)
{
	struct session writer, reader;

	assert_int_equal(host_comes(&writer, "db1", false, true), 0);
	assert_int_equal(host_comes(&reader, "db2", true, true), 0);
	assert_false(reader.grant->writable);
	release(&reader, true);
	release(&writer, true);
}

/* ---- a key that is revoked while it is granted something ---- */

static void *revoker(void *arg)
{
	usleep(20000);
	put("keys.psk", "bob:" SECRET_B "\n");
	reload();
	return NULL;
}

/* The grant waits for an older session to stop, and the key is gone before that has. */
static void a_grant_does_not_outlive_a_key_that_is_revoked_meanwhile(void **state)
{
	struct session old, next;
	pthread_t thread;

	assert_int_equal(grant_by(&old, "alice", 1, 1, WEFT_MODE_WRITE), 0);
	start_copier(&old); /* stops 50 ms after it is told */
	assert_int_equal(pthread_create(&thread, NULL, revoker, NULL), 0);
	assert_int_equal(grant_by(&next, "alice", 1, 2, WEFT_MODE_WRITE), -EACCES);
	pthread_join(thread, NULL);
	pthread_join(old.thread, NULL);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(nobody_is_let_in_without_a_key),
		TEST(over_loopback_only_our_user_and_root_need_no_key),
		TEST(a_key_is_for_its_regions_and_there_are_no_others),
		TEST(a_key_to_read_does_not_write),
		TEST(a_stock_client_that_only_reads_keeps_writers_out),
		TEST(a_key_has_its_memory_at_a_time),
		TEST(a_key_has_its_sessions_at_a_time),
		TEST(a_key_is_used_from_where_it_may_be),
		TEST(who_has_moved_is_held_to_where_it_is),
		TEST(a_key_is_for_plaintext_only_if_it_says_so),
		TEST(an_id_means_nothing_under_another_key),
		TEST(stock_clients_of_two_keys_exclude_each_other),
		TEST(a_revoked_key_ends_its_sessions_and_no_others),
		TEST(an_alias_means_nothing_under_another_key),
		TEST(a_certificate_may_do_what_the_key_of_its_name_may),
		TEST(a_certificate_that_expires_ends_its_sessions),
		TEST(a_pass_is_of_a_certificate_alone_and_taken_once),
		TEST(passes_are_bounded_in_all_and_of_a_name),
		TEST(another_key_of_the_name_goes_on_but_not_the_old_one),
		TEST(a_rotated_key_is_the_same_name),
		TEST(a_key_that_is_for_less_ends_what_is_more),
		TEST(a_key_that_expires_ends_its_sessions),
		TEST(a_listed_host_needs_plaintext_to_be_allowed),
		TEST(hosts_exclude_each_other_and_join_themselves),
		TEST(a_tenure_is_one_hosts),
		TEST(a_host_that_reads_stands_beside_one_that_writes),
		TEST(a_grant_does_not_outlive_a_key_that_is_revoked_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
