/* SPDX-License-Identifier: MIT */
/*
 * srp-hostile: an initiator that does what none should, for a test.
 *
 *     srp-hostile ADDRESS PORT ID_EXT IOC_GUID WHAT COUNT SEED
 *
 * WHAT: malformed (IUs), buffers (that are not there, wrap, overlap, chain, lie), credits (more
 * commands than it has), tasks (a storm of task management), logins.  Logs in again whenever the
 * target has ended the channel.  In the end reads a block as it should be read.  0: that block
 * came, and no byte of this program's memory that no command named has changed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rdma/rdma_cma.h>

#include "fabric/base/util.h"
#include "transports/srp/proto.h"

enum {
	NR_RECV = 128, NR_SEND = 192, IU = 8260, OFF = 68,
	DATA = 1 << 20,  /* that commands name */
	GUARD = 1 << 16, /* and what they do not, on both sides, in the same registration */
};

static struct sockaddr_in target;
static uint64_t ext, guid, rng;
static struct rdma_cm_id *id;
static struct ibv_pd *pd;
static struct ibv_cq *send_cq, *recv_cq;
static struct ibv_mr *mr;
static uint8_t *mem, *sends, *recvs, *data;
static unsigned long nr_logins, nr_refused, nr_sent, nr_answers, nr_ended, nr_good;
static int credits, sending;
static struct srp_rsp last;

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return below ? rng % below : rng;
}

static void die(const char *what)
{
	fprintf(stderr, "srp-hostile: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* From here on its events are looked for, not waited for. */
static void look_for_events(void)
{
	fcntl(id->channel->fd, F_SETFL, fcntl(id->channel->fd, F_GETFL) | O_NONBLOCK);
}

static void hang_up(void)
{
	if (!id)
		return;
	look_for_events(); /* one that was refused has none of its end */
	rdma_disconnect(id);
	if (id->qp)
		rdma_destroy_qp(id);
	rdma_destroy_id(id);
	id = NULL;
}

static void make_memory(void)
{
	size_t len = 2 * GUARD + DATA + (size_t)(NR_RECV + NR_SEND) * IU;

	pd = ibv_alloc_pd(id->verbs);
	send_cq = ibv_create_cq(id->verbs, NR_SEND + 8, NULL, NULL, 0);
	recv_cq = ibv_create_cq(id->verbs, NR_RECV + 8, NULL, NULL, 0);
	if (!pd || !send_cq || !recv_cq || posix_memalign((void **)&mem, 4096, len) != 0)
		die("memory");
	memset(mem, 0xa5, len);
	data = mem + GUARD;
	sends = data + DATA + GUARD;
	recvs = sends + (size_t)NR_SEND * IU;
	mr = ibv_reg_mr(pd, mem, len, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
		IBV_ACCESS_REMOTE_WRITE);
	if (!mr)
		die("ibv_reg_mr");
}

static void post_receive(unsigned i)
{
	struct ibv_sge sge = {(uintptr_t)(recvs + (size_t)i * IU), IU, mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = i, .sg_list = &sge, .num_sge = 1}, *bad;

	ibv_post_recv(id->qp, &wr, &bad);
}

/* A login, right but for what `wrong` says.  Whether it was accepted. */
static bool log_in(bool wrong)
{
	uint8_t private_data[SRP_LOGIN_BYTES];
	struct srp_login login = {.tag = 1, .it_iu_bytes = IU, .formats = 6, .immediate = true,
		.immediate_off = OFF, .target_ext = ext, .target_guid = guid};
	struct rdma_conn_param param = {.private_data = private_data,
		.private_data_len = sizeof(private_data), .responder_resources = 4,
		.initiator_depth = 4, .retry_count = 7, .rnr_retry_count = 7};
	struct ibv_wc wc;

	srp_pack_port(0x7777, 0x6666, login.initiator);
	if (wrong) {
		switch (rnd(6)) {
		case 0: login.target_ext ^= 1ULL << rnd(64); break;
		case 1: login.target_guid ^= 1ULL << rnd(64); break;
		case 2: login.it_iu_bytes = (uint32_t)rnd(0) | 0x10000; break;
		case 3: login.formats = (uint16_t)rnd(0) | 0x100; break;
		case 4: param.private_data_len = (uint8_t)rnd(SRP_LOGIN_BYTES); break;
		default: login.channels = 3;
		}
	}
	srp_pack_login(&login, private_data);
	hang_up();
	if (rdma_create_id(NULL, &id, NULL, RDMA_PS_TCP) != 0)
		die("rdma_create_id");
	if (rdma_resolve_addr(id, NULL, (struct sockaddr *)&target, 2000) != 0 ||
		rdma_resolve_route(id, 2000) != 0)
		die("resolve");
	if (!mr)
		make_memory();
	while (ibv_poll_cq(send_cq, 1, &wc) > 0 || ibv_poll_cq(recv_cq, 1, &wc) > 0)
		;
	struct ibv_qp_init_attr attr = {.send_cq = send_cq, .recv_cq = recv_cq,
		.qp_type = IBV_QPT_RC, .cap = {NR_SEND, NR_RECV, 1, 1, 0}};
	if (rdma_create_qp(id, pd, &attr) != 0)
		die("rdma_create_qp");
	for (unsigned i = 0; i < NR_RECV; i++)
		post_receive(i);
	nr_logins++;
	sending = 0;
	if (rdma_connect(id, &param) != 0) {
		nr_refused++;
		return false;
	}
	struct srp_login_rsp rsp;
	if (srp_unpack_login_rsp(id->event->param.conn.private_data,
		    id->event->param.conn.private_data_len, &rsp) == 0)
		credits = (int)rsp.delta;
	look_for_events();
	return true;
}

static void must_log_in(void)
{
	for (unsigned i = 0; i < 200; i++) {
		if (log_in(false))
			return;
		usleep(20000);
	}
	die("the target lets nobody in");
}

/* The queue pair does not see the target's end of the connection: what is sent waits for ever. */
static bool is_disconnected(void)
{
	struct rdma_cm_event *event;

	if (rdma_get_cm_event(id->channel, &event) != 0)
		return false;
	rdma_ack_cm_event(event);
	return true;
}

/* Takes what has come.  False: the target has ended the channel. */
static bool take(void)
{
	struct ibv_wc wc;
	bool alive = !is_disconnected();

	while (ibv_poll_cq(send_cq, 1, &wc) > 0) {
		sending--;
		alive &= wc.status == IBV_WC_SUCCESS;
	}
	while (ibv_poll_cq(recv_cq, 1, &wc) > 0) {
		struct srp_iu iu;

		if (wc.status != IBV_WC_SUCCESS) {
			alive = false;
			continue;
		}
		if (srp_unpack_from_target(recvs + wc.wr_id * IU, wc.byte_len, &iu) < 0 ||
			iu.type != SRP_RSP)
			die("the target sent what is no response");
		nr_answers++;
		nr_good += iu.rsp.status == 0;
		credits += iu.rsp.delta;
		last = iu.rsp;
		post_receive((unsigned)wc.wr_id);
	}
	return alive;
}

/* Sends the IU that was put to sends + i * IU. */
static bool send_iu(unsigned i, size_t len)
{
	struct ibv_sge sge = {(uintptr_t)(sends + (size_t)i * IU), (uint32_t)len, mr->lkey};
	struct ibv_send_wr wr = {.wr_id = i, .sg_list = &sge, .num_sge = 1,
		.opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED}, *bad;

	if (ibv_post_send(id->qp, &wr, &bad) != 0)
		return false;
	nr_sent++;
	sending++;
	credits--;
	return true;
}

static uint8_t list[256 * SRP_BUFFER_BYTES];

/* READ(10) or WRITE(10) of so many blocks, with these descriptors. */
static size_t pack_io(uint8_t *iu, bool write, uint32_t lba, uint16_t blocks, struct srp_data *at)
{
	uint8_t cdb[16] = {write ? 0x2a : 0x28, 0, (uint8_t)(lba >> 24), (uint8_t)(lba >> 16),
		(uint8_t)(lba >> 8), (uint8_t)lba, 0, (uint8_t)(blocks >> 8), (uint8_t)blocks};
	struct srp_cmd cmd = {.tag = nr_sent, .cdb = cdb, .cdb_bytes = 16};

	if (at)
		*(write ? &cmd.out : &cmd.in) = *at;
	int n = srp_pack_cmd(&cmd, iu, IU);
	return n > 0 ? (size_t)n : 0;
}

static struct srp_data direct(uint64_t addr, uint32_t key, uint32_t len)
{
	srp_pack_buffer(&(struct srp_buffer){addr, key, len}, list);
	return (struct srp_data){.format = SRP_DIRECT, .len = len, .nr_list = 1, .list = list};
}

/* Waits until all was answered, or the channel is over, or nothing comes. */
static bool settle(int until)
{
	for (unsigned i = 0; i < 3000; i++) {
		if (!take())
			return false;
		if (credits >= until && sending == 0)
			return true;
		usleep(1000);
	}
	return false;
}

static void go_on(bool alive)
{
	if (alive)
		return;
	nr_ended++;
	must_log_in();
}

static void malformed(unsigned long count)
{
	for (unsigned long i = 0; i < count; i++) {
		uint8_t *iu = sends + (size_t)(i % NR_SEND) * IU;
		struct srp_data at = direct((uintptr_t)data, mr->rkey, DATA);
		size_t len = pack_io(iu, rnd(2), (uint32_t)rnd(128), (uint16_t)rnd(64), &at);

		if (rnd(40) == 0) { /* the IU itself */
			for (unsigned k = 0; k < 1 + rnd(6); k++)
				iu[rnd(len)] = (uint8_t)rnd(256);
			if (rnd(3) == 0)
				len = 1 + rnd(len);
		} else { /* its CDB, its LUN, its lengths */
			for (unsigned k = 0; k < 1 + rnd(8); k++)
				iu[rnd(4) ? 32 + rnd(16) : 20 + rnd(8)] = (uint8_t)rnd(256);
			if (rnd(4) == 0)
				iu[60 + rnd(4)] = 0;
		}
		bool alive = send_iu((unsigned)(i % NR_SEND), len);
		alive = alive && take();
		if (alive && credits < 4)
			alive = settle(32);
		go_on(alive);
	}
}

static struct srp_data evil(void)
{
	struct srp_data at = direct((uintptr_t)data, mr->rkey, 4096);
	unsigned n = 1 + (unsigned)rnd(8);

	switch (rnd(9)) {
	case 0: /* outside of the registration */
		return direct((uintptr_t)mem - 4096, mr->rkey, 8192);
	case 1: /* no key */
		return direct((uintptr_t)data, (uint32_t)rnd(0), 4096);
	case 2: /* wraps */
		return direct(UINT64_MAX - 100, mr->rkey, 4096);
	case 3: /* shorter than the command, or of no byte */
		return direct((uintptr_t)data, mr->rkey, (uint32_t)rnd(512));
	case 4: /* overlapping, in a list */
		for (unsigned i = 0; i < n; i++)
			srp_pack_buffer(&(struct srp_buffer){(uintptr_t)data + i * 16, mr->rkey,
				(uint32_t)rnd(4096)}, list + i * SRP_BUFFER_BYTES);
		return (struct srp_data){.format = SRP_INDIRECT, .len = 4096, .nr_list = n,
			.list = list, .nr_table = n, .table = {(uintptr_t)data, mr->rkey, n * 16}};
	case 5: /* a chain: the table is what it describes */
		srp_pack_buffer(&(struct srp_buffer){(uintptr_t)data, mr->rkey, 64}, data);
		return (struct srp_data){.format = SRP_INDIRECT, .len = 4096, .list = list,
			.table = {(uintptr_t)data, mr->rkey, 64 * 16}};
	case 6: /* a table that is not there, or has no end */
		return (struct srp_data){.format = SRP_INDIRECT, .len = 4096, .list = list,
			.table = {rnd(2) ? (uintptr_t)data : rnd(0), mr->rkey,
				rnd(2) ? 0xfffffff0 : 4096}};
	case 7: /* says more than there is */
		at.format = SRP_INDIRECT;
		at.len = UINT32_MAX;
		at.table = (struct srp_buffer){(uintptr_t)data, mr->rkey, 16};
		return at;
	default: /* a table of empty ones */
		memset(data, 0, 4096);
		return (struct srp_data){.format = SRP_INDIRECT, .len = 4096, .list = list,
			.table = {(uintptr_t)data, mr->rkey, 4096}};
	}
}

static void buffers(unsigned long count)
{
	for (unsigned long i = 0; i < count; i++) {
		struct srp_data at = evil();
		size_t len = pack_io(sends, rnd(2), (uint32_t)rnd(64), 8, &at);

		go_on(send_iu(0, len) && settle(64));
	}
}

static void overrun(unsigned long count)
{
	for (unsigned long i = 0; i < count; i++) {
		struct srp_data at = direct((uintptr_t)data, mr->rkey, 4096);

		for (unsigned k = 0; k < NR_SEND; k++)
			if (!send_iu(k, pack_io(sends + (size_t)k * IU, k % 2, k, 8, &at)))
				break;
		go_on(settle(64));
	}
}

static void storm(unsigned long count)
{
	static const uint8_t functions[] = {1, 2, 4, 8, 0x40, 0x80, 0};

	for (unsigned long i = 0; i < count; i++) {
		unsigned k = (unsigned)(i % NR_SEND);
		uint8_t *iu = sends + (size_t)k * IU;
		struct srp_data at = direct((uintptr_t)data, mr->rkey, 65536);
		size_t len = rnd(3) == 0 ? pack_io(iu, rnd(2), 0, 128, &at)
			: srp_pack_task(&(struct srp_task){.tag = nr_sent | 1u << 31,
				.function = functions[rnd(sizeof(functions))],
				.task_tag = nr_sent - rnd(20), .lun = rnd(8) ? 0 : rnd(0)}, iu);
		bool alive = send_iu(k, len) && take();

		if (alive && credits < 2)
			alive = settle(8);
		go_on(alive);
	}
}

static void logins(unsigned long count)
{
	for (unsigned long i = 0; i < count; i++)
		log_in(rnd(4) != 0);
	must_log_in();
}

static bool guard_is_right(const uint8_t *at)
{
	for (unsigned i = 0; i < GUARD; i++)
		if (at[i] != 0xa5)
			return false;
	return true;
}

int main(int argc, char **argv)
{
	if (argc != 8)
		return 2;
	target = (struct sockaddr_in){.sin_family = AF_INET,
		.sin_port = htons((uint16_t)atoi(argv[2]))};
	inet_pton(AF_INET, argv[1], &target.sin_addr);
	ext = strtoull(argv[3], NULL, 16);
	guid = strtoull(argv[4], NULL, 16);
	unsigned long count = strtoul(argv[6], NULL, 10);
	rng = strtoull(argv[7], NULL, 10) | 1;
	must_log_in();
	if (strcmp(argv[5], "malformed") == 0)
		malformed(count);
	else if (strcmp(argv[5], "buffers") == 0)
		buffers(count);
	else if (strcmp(argv[5], "credits") == 0)
		overrun(count);
	else if (strcmp(argv[5], "tasks") == 0)
		storm(count);
	else if (strcmp(argv[5], "logins") == 0)
		logins(count);
	else
		return 2;
	/* A good one: past the unit attentions that are due. */
	must_log_in();
	for (unsigned i = 0; i < 16; i++) {
		struct srp_data at = direct((uintptr_t)data, mr->rkey, 4096);

		last.status = 0xff;
		if (!send_iu(0, pack_io(sends, false, 0, 8, &at)) || !settle(64))
			die("no answer at the end");
		if (last.status == 0)
			break;
	}
	printf("%s: %lu logins, %lu refused, %lu IUs, %lu answers (%lu good), %lu channels ended\n",
		argv[5], nr_logins, nr_refused, nr_sent, nr_answers, nr_good, nr_ended);
	if (last.status != 0)
		die("no block at the end");
	if (!guard_is_right(mem) || !guard_is_right(data + DATA))
		die("bytes changed that no command named");
	return 0;
}
