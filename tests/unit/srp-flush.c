/* SPDX-License-Identifier: MIT */
/*
 * A channel of the SRP donor at a file whose disk is slow: commands are put into its receives, and
 * its queue pair is none, which keeps what is answered.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/bytes.h"
#include "fabric/base/thread.h"
#include "transports/srp/donor/channel.h"

enum {
	SIZE = 64 << 10,
	OFF = 68,
	NOT_YET = 0x100, /* for a status: there is no answer */
	MEM_BYTES = SRP_DEPTH * (SRP_IT_IU_MAX + SCSI_DATA_BYTES + SRP_PIECE_BYTES) +
		SRP_NR_ANSWERS * SRP_TI_IU_MAX,
};

/* ---- the disk ---- */

static atomic_int nr_syncs, disk_error;
static atomic_bool is_slow;

/* In place of the C library's. */
int fdatasync(int fd);
int fdatasync(int fd)
{
	atomic_fetch_add(&nr_syncs, 1);
	while (atomic_load(&is_slow))
		usleep(1000);
	errno = atomic_load(&disk_error);
	return errno ? -1 : 0;
}

/* ---- the channel ---- */

static char path[] = "/tmp/weft-srp-flush.XXXXXX";
static struct srp_listener listener;
static struct srp_channel *channel;
static struct ibv_context context;
static struct ibv_qp qp;
static struct ibv_cq cq;
static struct rdma_cm_id id;
static struct ibv_mr mr;
static struct weft_grant grant;
static unsigned status[256]; /* by tag: of the answer; of task management its code */
static unsigned nr_commands;
static uint64_t sent[8]; /* work requests whose completions were not taken */
static unsigned nr_sent;

static int post_send(struct ibv_qp *of, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	for (; wr; wr = wr->next) {
		struct srp_iu iu;

		assert_int_equal(wr->opcode, IBV_WR_SEND);
		assert_int_equal(srp_unpack_from_target(
					 (void *)(uintptr_t)wr->sg_list->addr,
					 wr->sg_list->length, &iu), 0);
		assert_int_equal(status[iu.rsp.tag], NOT_YET);
		status[iu.rsp.tag] = iu.rsp.has_code ? iu.rsp.code : iu.rsp.status;
		assert_true(nr_sent < WEFT_ARRAY_LEN(sent));
		sent[nr_sent++] = wr->wr_id;
	}
	return 0;
}

static int post_recv(struct ibv_qp *of, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	return 0;
}

static int poll_cq(struct ibv_cq *of, int max, struct ibv_wc *wc)
{
	int n = 0;

	while (n < max && nr_sent > 0)
		wc[n++] = (struct ibv_wc){.wr_id = sent[--nr_sent], .status = IBV_WC_SUCCESS};
	return n;
}

static void wake(struct srp_member *member)
{
}

/* What the channel's thread does with what came. */
static void turn(void)
{
	srp_channel_run(channel);
	srp_channel_look_at_tasks(channel);
	srp_channel_ring(channel);
	srp_channel_take_completions(channel, &srp_command_ops);
	srp_channel_look_at_tasks(channel);
	srp_channel_ring(channel);
}

static void receive(size_t len)
{
	struct srp_slot *slot = &channel->slots[nr_commands % SRP_DEPTH];

	assert_int_equal(slot->state, SRP_FREE);
	srp_command_ops.received(channel, slot, (uint32_t)len);
	nr_commands++;
	turn();
}

static uint8_t *next_iu(void)
{
	return srp_slot_iu(channel, nr_commands % SRP_DEPTH);
}

/* out: a block of immediate data, or NULL. */
static void command(uint8_t tag, const uint8_t cdb[16], const uint8_t *out)
{
	struct srp_cmd cmd = {.tag = tag, .cdb = cdb, .cdb_bytes = 16};
	uint8_t *iu = next_iu();

	if (out)
		cmd.out = (struct srp_data){.format = SRP_IMMEDIATE, .len = 512};
	status[tag] = NOT_YET;
	int n = srp_pack_cmd(&cmd, iu, SRP_IT_IU_MAX);
	assert_true(n > 0);
	if (out)
		memcpy(iu + OFF, out, 512);
	receive(out ? OFF + 512 : (size_t)n);
}

static void write_block(uint8_t tag, bool fua)
{
	static uint8_t block[512];

	block[0] = tag;
	command(tag, (uint8_t[16]){0x2a, fua ? 8 : 0, [8] = 1}, block);
}

static void flush(uint8_t tag)
{
	command(tag, (uint8_t[16]){0x35}, NULL);
}

static void test_unit_ready(uint8_t tag)
{
	command(tag, (uint8_t[16]){0}, NULL);
}

static void abort_task(uint8_t tag, uint8_t of)
{
	status[tag] = NOT_YET;
	receive(srp_pack_task(
		&(struct srp_task){.tag = tag, .function = SRP_ABORT_TASK, .task_tag = of},
		next_iu()));
}

/* Until the flush that runs has ended. */
static void wait_for_disk(void)
{
	struct pollfd fd = {.fd = channel->wake_fd, .events = POLLIN};
	uint64_t count;

	assert_int_equal(poll(&fd, 1, 10000), 1);
	assert_int_equal(read(channel->wake_fd, &count, sizeof(count)), sizeof(count));
	turn();
}

static int set_up(void **state)
{
	static uint32_t lkey;
	const uint8_t initiator[SRP_PORT_BYTES] = {1};
	uint8_t result;
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, SIZE) < 0)
		return -1;
	close(fd);
	channel = calloc(1, sizeof(*channel));
	if (weft_region_open_file(AT_FDCWD, path, "f", false, false, &channel->region, NULL) < 0 ||
		weft_region_stage(channel->region, true, NULL, NULL, NULL) < 0)
		return -1;
	context.ops.post_send = post_send;
	context.ops.post_recv = post_recv;
	context.ops.poll_cq = poll_cq;
	qp.context = cq.context = &context;
	id.qp = &qp;
	pthread_mutex_init(&listener.acceptor.lock, NULL);
	weft_cond_init(&listener.acceptor.changed);
	weft_crew_init(&listener.crew, "weft-flush", 0);
	srp_units_init(&listener.units, SIZE, "donor");
	channel->listener = &listener;
	channel->id = &id;
	channel->came.ibv = channel->left.ibv = &cq;
	channel->mr = &mr;
	channel->mem = malloc(MEM_BYTES);
	channel->wake_fd = eventfd(0, EFD_CLOEXEC);
	channel->member.wake = wake;
	channel->grant = &grant;
	channel->lkeys = &lkey;
	channel->immediate_off = OFF;
	channel->max_reads = 4;
	channel->nr_moves = SRP_NR_MOVES;
	for (unsigned i = 0; i < SRP_NR_ANSWERS; i++)
		channel->free_answers[channel->nr_free_answers++] = (uint8_t)i;
	nr_commands = 0;
	atomic_store(&nr_syncs, 0);
	atomic_store(&disk_error, 0);
	if (srp_unit_enter(&listener.units, channel->region, initiator, "h", false, 1, false, 0,
		    &channel->member, &result, NULL) < 0)
		return -1;
	test_unit_ready(255); /* which the unit attention is for */
	return 0;
}

static int tear_down(void **state)
{
	atomic_store(&is_slow, false);
	srp_flush_wait(channel);
	srp_unit_leave(&listener.units, &channel->member);
	weft_region_unstage(channel->region);
	weft_region_put(channel->region);
	weft_crew_fini(&listener.crew);
	srp_units_fini(&listener.units);
	pthread_cond_destroy(&listener.acceptor.changed);
	pthread_mutex_destroy(&listener.acceptor.lock);
	close(channel->wake_fd);
	free(channel->mem);
	free(channel);
	return unlink(path);
}

/* ---- tests ---- */

static void others_are_answered_beside_a_flush(void **state)
{
	atomic_store(&is_slow, true);
	write_block(1, false);
	assert_int_equal(status[1], SCSI_GOOD);
	flush(2);
	test_unit_ready(3);
	write_block(4, false);
	assert_int_equal(status[2], NOT_YET);
	assert_int_equal(status[3], SCSI_GOOD);
	assert_int_equal(status[4], SCSI_GOOD);
	atomic_store(&is_slow, false);
	wait_for_disk();
	assert_int_equal(status[2], SCSI_GOOD);
}

static void what_comes_beside_a_flush_is_in_the_next(void **state)
{
	atomic_store(&is_slow, true);
	write_block(1, false);
	flush(2);
	while (atomic_load(&nr_syncs) == 0)
		usleep(1000);
	write_block(3, true);
	flush(4);
	assert_int_equal(status[3], NOT_YET);
	atomic_store(&is_slow, false);
	wait_for_disk();
	assert_int_equal(status[2], SCSI_GOOD);
	wait_for_disk();
	assert_int_equal(status[3], SCSI_GOOD);
	assert_int_equal(status[4], SCSI_GOOD);
	assert_int_equal(atomic_load(&nr_syncs), 2);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t byte;
	assert_int_equal(pread(fd, &byte, 1, 0), 1);
	assert_int_equal(byte, 3);
	close(fd);
}

static void an_abort_does_not_wait_for_the_disk(void **state)
{
	atomic_store(&is_slow, true);
	write_block(1, false);
	flush(2);
	flush(3);
	abort_task(4, 2);
	abort_task(5, 3);
	assert_int_equal(status[4], SRP_RSP_GOOD);
	assert_int_equal(status[5], SRP_RSP_GOOD);
	test_unit_ready(6);
	assert_int_equal(status[6], SCSI_GOOD);
	atomic_store(&is_slow, false);
	wait_for_disk();
	assert_int_equal(status[2], NOT_YET);
	assert_int_equal(status[3], NOT_YET);
	for (unsigned i = 0; i < SRP_DEPTH; i++)
		assert_int_equal(channel->slots[i].state, SRP_FREE);
	write_block(7, true);
	wait_for_disk();
	assert_int_equal(status[7], SCSI_GOOD);
}

static void a_disk_that_fails_is_told(void **state)
{
	write_block(1, false);
	atomic_store(&disk_error, EIO);
	flush(2);
	wait_for_disk();
	assert_int_equal(status[2], SCSI_CHECK_CONDITION);
	assert_int_equal(atomic_load(&channel->counts.by_key[SCSI_KEY_MEDIUM_ERROR]), 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(others_are_answered_beside_a_flush),
		TEST(what_comes_beside_a_flush_is_in_the_next),
		TEST(an_abort_does_not_wait_for_the_disk),
		TEST(a_disk_that_fails_is_told),
	};
	int fd = mkstemp(path);

	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
