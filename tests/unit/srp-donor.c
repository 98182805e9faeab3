/* SPDX-License-Identifier: MIT */
/*
 * What an SRP donor makes of an initiator's words without a network: buffers that are described
 * wrongly, who a host is, what a target is called, and what stays of who has left.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/scsi/sense.h"
#include "transports/srp/donor/hosts.h"
#include "transports/srp/donor/unit.h"
#include "transports/srp/target.h"
#include "transports/srp/walk.h"

static uint8_t list[8 * SRP_BUFFER_BYTES];

/* A list of nr buffers of `len` bytes, one behind the other. */
static struct srp_data buffers(unsigned nr, uint32_t len, uint64_t addr)
{
	for (unsigned i = 0; i < nr; i++)
		srp_pack_buffer(&(struct srp_buffer){addr + (uint64_t)i * len, 7, len},
			list + i * SRP_BUFFER_BYTES);
	return (struct srp_data){.format = SRP_DIRECT, .len = nr * len, .nr_list = nr,
		.list = list};
}

static void a_walk_goes_along_all_of_them(void **state)
{
	struct srp_data data = buffers(3, 1000, 0x10000);
	struct srp_buffer part;
	struct srp_walk walk;
	uint64_t at = 0x10000;

	assert_int_equal(srp_walk_begin(&walk, &data), 0);
	while (at < 0x10000 + 3000) {
		assert_int_equal(srp_walk_next(&walk, 600, &part), 0);
		assert_int_equal(part.addr, at);
		assert_int_equal(part.key, 7);
		assert_true(part.len == 600 || part.len == 400);
		at += part.len;
	}
	assert_int_equal(srp_walk_next(&walk, 1, &part), -EPROTO);
	assert_int_equal(srp_walk_next(&walk, 1, &part), -EPROTO);
}

static void empty_and_wrapping_buffers_lead_nowhere(void **state)
{
	struct srp_data data = buffers(3, 0, 0x10000);
	struct srp_buffer part;
	struct srp_walk walk;

	assert_int_equal(srp_walk_begin(&walk, &data), 0);
	assert_int_equal(srp_walk_next(&walk, 4096, &part), -EPROTO);
	data = buffers(1, 4097, UINT64_MAX - 4095);
	assert_int_equal(srp_walk_begin(&walk, &data), 0);
	assert_int_equal(srp_walk_next(&walk, 4096, &part), -EPROTO);
	data = buffers(1, 4096, UINT64_MAX - 4095);
	assert_int_equal(srp_walk_begin(&walk, &data), 0);
	assert_int_equal(srp_walk_next(&walk, 4096, &part), 0);
	assert_int_equal(part.len, 4096);
	assert_int_equal(srp_walk_next(&walk, 1, &part), -EPROTO);
}

static void a_table_is_read_piece_by_piece(void **state)
{
	static uint8_t piece[SRP_PIECE_BYTES];
	struct srp_data data = buffers(2, 10, 0);
	struct srp_buffer part;
	struct srp_walk walk;
	uint32_t left = SRP_PIECE + 4, at = 2;

	data.format = SRP_INDIRECT;
	data.nr_table = left + 2;
	data.table = (struct srp_buffer){0x5000, 9, data.nr_table * SRP_BUFFER_BYTES};
	assert_int_equal(srp_walk_begin(&walk, &data), 0);
	assert_int_equal(srp_walk_next(&walk, 100, &part), 0);
	assert_int_equal(srp_walk_next(&walk, 100, &part), 0);
	while (left > 0) {
		uint32_t nr = (uint32_t)weft_min(left, SRP_PIECE);

		assert_int_equal(srp_walk_next(&walk, 100, &part), -EAGAIN);
		srp_walk_piece(&walk, &part);
		assert_int_equal(part.addr, 0x5000 + at * SRP_BUFFER_BYTES);
		assert_int_equal(part.key, 9);
		assert_int_equal(part.len, nr * SRP_BUFFER_BYTES);
		for (uint32_t i = 0; i < nr; i++)
			srp_pack_buffer(&(struct srp_buffer){at + i, 3, 1},
				piece + i * SRP_BUFFER_BYTES);
		srp_walk_pieced(&walk, piece);
		for (uint32_t i = 0; i < nr; i++) {
			assert_int_equal(srp_walk_next(&walk, 100, &part), 0);
			assert_int_equal(part.addr, at + i);
		}
		at += nr;
		left -= nr;
	}
	assert_int_equal(srp_walk_next(&walk, 100, &part), -EPROTO);
	data.nr_table = SRP_TABLE_MAX + 1;
	assert_int_equal(srp_walk_begin(&walk, &data), -EPROTO);
	data.nr_table = 4;
	data.table.addr = UINT64_MAX - 3;
	assert_int_equal(srp_walk_begin(&walk, &data), -EPROTO);
}

static struct srp_hosts hosts;

static void hosts_are_known_by_any_of_their_ids(void **state)
{
	struct sockaddr_in near = {.sin_family = AF_INET}, far = near;
	uint8_t port[SRP_PORT_BYTES];

	inet_pton(AF_INET, "10.9.0.2", &near.sin_addr);
	inet_pton(AF_INET, "10.8.0.2", &far.sin_addr);
	memset(&hosts, 0, sizeof(hosts));
	assert_int_equal(srp_hosts_parse(&hosts, "db1=0002c90300a0b0c0,10.9.0.0/24"), 0);
	assert_int_equal(srp_hosts_parse(&hosts,
		"db2=000000000000000100000000000000ff,0002:C903:00a0:b0c1,fe80::1,ro"), 0);
	assert_int_equal(hosts.nr, 2);
	assert_false(hosts.host[0].read_only);
	assert_true(hosts.host[1].read_only);
	srp_pack_port(5, 0x0002c90300a0b0c0, port);
	assert_ptr_equal(srp_hosts_find(&hosts, port, (void *)&far), &hosts.host[0]);
	srp_pack_port(5, 0x0002c90300a0b0c1, port);
	assert_ptr_equal(srp_hosts_find(&hosts, port, (void *)&far), &hosts.host[1]);
	srp_pack_port(1, 0xff, port);
	assert_ptr_equal(srp_hosts_find(&hosts, port, (void *)&far), &hosts.host[1]);
	srp_pack_port(2, 0xff, port);
	assert_null(srp_hosts_find(&hosts, port, (void *)&far));
	assert_ptr_equal(srp_hosts_find(&hosts, port, (void *)&near), &hosts.host[0]);
}

static void what_names_no_host_is_refused(void **state)
{
	static const char *const wrong[] = {"", "a", "a=", "=10.0.0.1", "a=ro", "a=10.0.0.1,",
		"a=10.0.0.1,,10.0.0.2", "a=ro,10.0.0.1", "a=nobody", "a b=10.0.0.1",
		"a=0002c90300a0b0c", "a=0002c90300a0b0c00", "a=:0002c90300a0b0c0",
		"a=0002::c90300a0b0c0", "a=0002c90300a0b0c0:", "a=10.0.0.1/33",
		"0123456789012345678901234567890123456789x=10.0.0.1", "db1=10.0.0.9"};
	char many[SRP_HOST_IDS_MAX * 16 + 32] = "many=10.0.0.1";

	memset(&hosts, 0, sizeof(hosts));
	assert_int_equal(srp_hosts_parse(&hosts, "db1=10.0.0.1"), 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(wrong); i++)
		assert_int_equal(srp_hosts_parse(&hosts, wrong[i]), -EINVAL);
	for (unsigned i = 0; i < SRP_HOST_IDS_MAX; i++)
		strcat(many, ",10.0.0.1");
	assert_int_equal(srp_hosts_parse(&hosts, many), -E2BIG);
	assert_int_equal(hosts.nr, 1);
}

/* Initiators keep these: another version of weft has to find them the same. */
static void names_of_targets_stay(void **state)
{
	char line[SRP_LINE_MAX];

	srp_target_line("scratch", 1, 2, "10.9.0.1:5555", line, sizeof(line));
	assert_string_equal(
		line, "id_ext=c4846c74c4b320ad,ioc_guid=2d3f6fd97f29aa2f,dest=10.9.0.1:5555");
	assert_int_not_equal(srp_target_ext(1, 2), srp_target_ext(1, 3));
	assert_int_not_equal(srp_target_ext(1, 2), srp_target_ext(2, 2));
	assert_int_not_equal(srp_target_ext(1, 2), srp_target_ext(2, 1));
	assert_int_not_equal(srp_target_guid("a"), srp_target_guid("b"));
}

/* ---- who uses a unit ---- */

enum { SIZE = 1 << 20 };
static char path[40];
static struct srp_units units;

static void wake(struct srp_member *member)
{
}

static struct weft_region *open_region(void)
{
	struct weft_region *region;

	assert_int_equal(
		weft_region_open_file(AT_FDCWD, path, "f", false, false, &region, NULL), 0);
	return region;
}

static struct weft_region *new_region(void)
{
	const struct weft_memory_spec spec = {.name = "m", .size_bytes = 4096};
	struct weft_region *region;

	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &region, NULL), 0);
	return region;
}

static void enter(struct srp_member *member, struct weft_region *region)
{
	static const uint8_t initiator[SRP_PORT_BYTES] = {1};
	uint8_t result;

	*member = (struct srp_member){.wake = wake};
	assert_int_equal(srp_unit_enter(&units, region, initiator, "h", false, 1, false, 0, member,
				 &result, NULL),
		0);
}

static void persistent(struct scsi_command *cmd, struct srp_member *member, const uint8_t *cdb,
	uint8_t *data)
{
	const struct scsi_request rq = {
		.cdb = cdb, .cdb_bytes = 10, .in_bytes = 24, .out_bytes = 24};

	atomic_store(&member->nexus->scsi.gate, 0); /* its unit attentions */
	scsi_command_begin(cmd, &member->nexus->scsi, &rq, data);
}

/* SPC 6.16: REGISTER, with the key 7 */
static void make_registration(struct srp_member *member)
{
	uint8_t data[SCSI_DATA_BYTES] = {[15] = 7};
	struct scsi_command cmd;

	persistent(&cmd, member, (uint8_t[16]){0x5f, [8] = 24}, data);
	assert_int_equal(cmd.kind, SCSI_DO_FETCH);
	scsi_command_fetched(&cmd, data);
	assert_int_equal(cmd.status, SCSI_GOOD);
}

/* SPC 6.15: READ KEYS */
static bool has_registration(struct srp_member *member)
{
	uint8_t data[SCSI_DATA_BYTES];
	struct scsi_command cmd;

	persistent(&cmd, member, (uint8_t[16]){0x5e, [8] = 24}, data);
	assert_int_equal(cmd.kind, SCSI_DO_SEND);
	scsi_command_end(&cmd, 0);
	return data[7] == 8 && data[15] == 7;
}

static int make_file(void **state)
{
	strcpy(path, "/tmp/weft-srp-donor-XXXXXX");
	int fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, SIZE) < 0 || close(fd) < 0)
		return -1;
	return srp_units_init(&units, SIZE, "donor");
}

static int remove_file(void **state)
{
	srp_units_fini(&units);
	return unlink(path);
}

static void registrations_do_not_keep_a_file_open(void **state)
{
	struct weft_region *region = open_region();
	struct srp_member member;

	enter(&member, region);
	make_registration(&member);
	srp_unit_leave(&units, &member);
	assert_int_equal(atomic_load(&region->refs), 1);
	/* While it is open, they are there. */
	enter(&member, region);
	assert_true(has_registration(&member));
	srp_unit_leave(&units, &member);
	weft_region_put(region);
	/* Opened again it is as after a loss of power: none. */
	region = open_region();
	enter(&member, region);
	assert_false(has_registration(&member));
	srp_unit_leave(&units, &member);
	assert_int_equal(atomic_load(&region->refs), 1);
	weft_region_put(region);
}

static void units_that_nobody_uses_are_bounded(void **state)
{
	struct weft_region *first = new_region(), *region;
	struct srp_member member;
	unsigned nr = 0;

	enter(&member, first);
	make_registration(&member);
	srp_unit_leave(&units, &member);
	for (unsigned i = 0; i < SRP_UNUSED_MAX + 8; i++) {
		region = new_region();
		enter(&member, region);
		make_registration(&member);
		srp_unit_leave(&units, &member);
		weft_region_put(region);
		if (i % 100 > 0)
			continue;
		/* One that is used goes to the front. */
		enter(&member, first);
		assert_true(has_registration(&member));
		srp_unit_leave(&units, &member);
	}
	for (const struct srp_unit *u = units.first; u; u = u->next)
		nr++;
	assert_int_equal(nr, SRP_UNUSED_MAX);
	weft_region_put(first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_walk_goes_along_all_of_them),
		cmocka_unit_test(empty_and_wrapping_buffers_lead_nowhere),
		cmocka_unit_test(a_table_is_read_piece_by_piece),
		cmocka_unit_test(hosts_are_known_by_any_of_their_ids),
		cmocka_unit_test(what_names_no_host_is_refused),
		cmocka_unit_test(names_of_targets_stay),
		cmocka_unit_test_setup_teardown(
			registrations_do_not_keep_a_file_open, make_file, remove_file),
		cmocka_unit_test_setup_teardown(
			units_that_nobody_uses_are_bounded, make_file, remove_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
