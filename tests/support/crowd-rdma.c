/* SPDX-License-Identifier: MIT */
/*
 * crowd-rdma: half-open connections over RDMA for a test.  Opens COUNT control connections to a
 * donor, says no hello on them, holds them, and opens again whatever was ended or refused; until it
 * is told to stop.
 *
 *     crowd-rdma HOST PORT COUNT FIRST-ADDRESS ADDRESSES
 *
 * They come from ADDRESSES addresses of this machine, one after the other, from FIRST-ADDRESS on.
 * Prints "there" once as many were established as wanted (one after the other, as the donor ends
 * them); the numbers at the end.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rdma/rdma_cma.h>

#include "transports/verbs/proto.h"

enum { UNDER_WAY = 32, RESOLVE_MS = 2000 };

struct connection {
	struct rdma_cm_id *id; /* NULL: to be opened */
	bool established;
};

static struct sockaddr_in donor, first;
static struct rdma_event_channel *channel;
static struct connection *connections;
static unsigned nr, nr_addresses, nr_under_way, nr_open, next;
static unsigned long opened, ended, failed;
static volatile sig_atomic_t stop;

static void on_signal(int signo)
{
	stop = 1;
}

static void hang_up(struct connection *c)
{
	if (c->id->qp)
		rdma_destroy_qp(c->id);
	rdma_destroy_id(c->id);
	c->id = NULL;
	nr_open -= c->established;
	nr_under_way -= !c->established;
}

static void begin(unsigned i)
{
	struct connection *c = &connections[i];
	struct sockaddr_in from = first;

	from.sin_addr.s_addr = htonl(ntohl(first.sin_addr.s_addr) + i % nr_addresses);
	if (rdma_create_id(channel, &c->id, c, RDMA_PS_TCP) != 0) {
		perror("crowd-rdma: rdma_create_id");
		exit(1);
	}
	c->established = false;
	nr_under_way++;
	if (rdma_resolve_addr(c->id, (struct sockaddr *)&from, (struct sockaddr *)&donor,
		    RESOLVE_MS) != 0) {
		failed++;
		hang_up(c);
	}
}

static void begin_some(void)
{
	for (unsigned looked = 0; looked < nr && nr_under_way < UNDER_WAY; looked++) {
		unsigned i = next++ % nr;

		if (!connections[i].id)
			begin(i);
	}
}

static int connect_now(struct rdma_cm_id *id)
{
	static const uint8_t none[VERBS_TOKEN_BYTES];
	uint8_t private_data[VERBS_PRIVATE_BYTES];
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
	};
	struct rdma_conn_param param = {.private_data = private_data,
		.private_data_len = sizeof(private_data),
		.retry_count = 6};

	verbs_pack_private(VERBS_CONTROL, none, private_data);
	return rdma_create_qp(id, NULL, &attr) != 0 || rdma_connect(id, &param) != 0 ? -errno : 0;
}

static void on_event(struct rdma_cm_event *event)
{
	struct connection *c = event->id->context;
	enum rdma_cm_event_type type = event->event;
	int r = 0;

	rdma_ack_cm_event(event);
	switch (type) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		r = rdma_resolve_route(c->id, RESOLVE_MS);
		break;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		r = connect_now(c->id);
		break;
	case RDMA_CM_EVENT_ESTABLISHED:
		c->established = true;
		nr_under_way--;
		nr_open++;
		opened++;
		return;
	case RDMA_CM_EVENT_TIMEWAIT_EXIT:
		return;
	default:
		r = -1;
	}
	if (r != 0) {
		*(c->established ? &ended : &failed) += 1;
		hang_up(c);
	}
}

int main(int argc, char **argv)
{
	struct rdma_cm_event *event;
	bool told = false;
	unsigned most = 0;

	if (argc != 6)
		return 2;
	donor.sin_family = first.sin_family = AF_INET;
	donor.sin_port = htons((uint16_t)atoi(argv[2]));
	nr = (unsigned)atoi(argv[3]);
	nr_addresses = (unsigned)atoi(argv[5]);
	if (inet_pton(AF_INET, argv[1], &donor.sin_addr) != 1 ||
		inet_pton(AF_INET, argv[4], &first.sin_addr) != 1 || nr == 0 || nr_addresses == 0)
		return 2;
	connections = calloc(nr, sizeof(*connections));
	channel = rdma_create_event_channel();
	if (!connections || !channel || fcntl(channel->fd, F_SETFL, O_NONBLOCK) < 0) {
		perror("crowd-rdma");
		return 1;
	}
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	while (!stop) {
		struct pollfd fd = {.fd = channel->fd, .events = POLLIN};

		begin_some();
		poll(&fd, 1, 10);
		while (!stop && rdma_get_cm_event(channel, &event) == 0)
			on_event(event);
		most = nr_open > most ? nr_open : most;
		if (!told && opened >= nr) {
			told = true;
			puts("there");
			fflush(stdout);
		}
	}
	printf("opened %lu, ended by the other side %lu, failed %lu, most at once %u\n", opened,
		ended, failed, most);
	fflush(stdout);
	_exit(0); /* the kernel tidies up faster than one by one */
}
