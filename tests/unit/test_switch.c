/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forwarding path fed with seeded mutations of every kind of frame that it takes apart, from a
 * NIC, from outside and from another host; each in a memory block of its own size, so that under
 * AddressSanitizer a byte read behind a frame's end ends the test.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/reader.h"
#include "core/net/dhcp.h"
#include "core/net/dns.h"
#include "io/json.h"
#include "io/listen.h"
#include "io/loop.h"
#include "switch/network.h"
#include "unit.h"

#define FRAMES     100000
#define TEMPLATE   512
#define BATCH      64 /* frames between two turns of the loop */
#define GUEST_PORT 4000

static const char document[] =
	"{\"revision\":1,\"network\":{\"id\":\"n-1\",\"cidr\":\"10.0.0.0/24\","
	"\"gateway\":\"10.0.0.1\",\"vni\":7,\"domain\":\"internal\","
	"\"key\":\"abababababababababababababababababababababababababababababababab\","
	"\"ports\":["
	"{\"mac\":\"52:54:00:00:00:0a\",\"ip\":\"10.0.0.10\",\"hostname\":\"a\"},"
	"{\"mac\":\"52:54:00:00:00:0b\",\"ip\":\"10.0.0.11\",\"hostname\":\"b\"},"
	"{\"mac\":\"52:54:00:00:00:0c\",\"ip\":\"10.0.0.12\",\"host\":\"127.0.0.1:9\"}],"
	"\"rules\":[{\"direction\":\"in\"}]},"
	"\"local\":{\"overlay\":\"127.0.0.1:0\",\"nics\":["
	"{\"mac\":\"52:54:00:00:00:0a\",\"socket\":\"a.sock\","
	"\"metadata\":{\"instance_id\":\"i-a\"}},"
	"{\"mac\":\"52:54:00:00:00:0b\",\"socket\":\"b.sock\"}]}}";

struct fixture {
	char folder[32];
	sd_event *event;
	struct network *network;
	int listener[2];
	int guest[2]; /* what the switch sends to each NIC */
	uint64_t random;
};

static uint64_t draw(struct fixture *f, uint64_t n)
{
	/* xorshift64: the same at every run. */
	f->random ^= f->random << 13;
	f->random ^= f->random >> 7;
	f->random ^= f->random << 17;
	return f->random % n;
}

/* One turn of the loop for as long as something is ready, the guests reading all the while. */
static void turn(struct fixture *f)
{
	uint8_t block[65536];

	for (int i = 0; i < 100 && sd_event_run(f->event, 0) > 0; i++)
		for (size_t k = 0; k < 2; k++)
			while (f->guest[k] >= 0 &&
				recv(f->guest[k], block, sizeof(block), MSG_DONTWAIT) > 0)
				;
}

static int set_up(void **state)
{
	static struct fixture f;
	CLEANUP_JSON json_t *value = NULL;
	struct config *config;
	struct err e = {0};

	f = (struct fixture){.folder = "/tmp/switchXXXXXX", .random = 0x9e3779b97f4a7c15};
	assert_non_null(mkdtemp(f.folder));
	assert_ok(chdir(f.folder));
	assert_ok(listen_unix("a.sock", 0600, &f.listener[0], &e));
	assert_ok(listen_unix("b.sock", 0600, &f.listener[1], &e));
	assert_ok(loop_new(&f.event));
	assert_ok(network_new(f.event, &f.network));
	assert_ok(json_parse(document, sizeof(document) - 1, NULL, &value, &e));
	if (config_parse(value, &config, &e) < 0 || network_configure(f.network, config, &e) < 0)
		fail_msg("%s", e.message);
	f.guest[0] = f.guest[1] = -1;
	turn(&f);
	for (size_t i = 0; i < 2; i++) {
		f.guest[i] = accept(f.listener[i], NULL, NULL);
		assert_true(f.guest[i] >= 0);
	}
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	network_free(f->network);
	(void)sd_event_unref(f->event);
	for (size_t i = 0; i < 2; i++) {
		(void)close(f->guest[i]);
		(void)close(f->listener[i]);
	}
	(void)unlink("a.sock");
	(void)unlink("b.sock");
	(void)chdir("/");
	return rmdir(f->folder);
}

/* The kinds of frame, as an honest guest at 10.0.0.10 would send them. */

static size_t make_ip(uint8_t *out, uint32_t to, uint16_t port, const void *payload, size_t n)
{
	const struct endpoint from = {{{0x52, 0x54, 0, 0, 0, 0x0a}}, IP4(10, 0, 0, 10), GUEST_PORT};
	const struct endpoint target = {{{0x52, 0x55, 10, 0, 0, 1}}, to, port};

	memcpy(out + FRAME_UDP_OVERHEAD, payload, n);
	return frame_udp(out, &from, &target, n);
}

static size_t make_template(struct fixture *f, uint8_t out[TEMPLATE])
{
	static const uint8_t query[] = "\0\7\1\0\0\1\0\0\0\0\0\0\1b\10internal\0\0\1\0\1";
	static const uint8_t client[] = {0x52, 0x54, 0, 0, 0, 0x0a};
	static const uint8_t options[] = {
		0x63, 0x82, 0x53, 0x63, 53, 1, 1, 50, 4, 10, 0, 0, 10, 255};
	uint8_t dhcp[260] = {1, 1, 6}, tcp[20] = {0};
	size_t n;

	switch (draw(f, 7)) {
	case 0:
		n = frame_arp_reply(out, (struct mac){{0x52, 0x54, 0, 0, 0, 0x0a}},
			IP4(10, 0, 0, 10), (struct mac){{0x52, 0x54, 0, 0, 0, 0x0b}},
			IP4(10, 0, 0, 11));
		out[21] = ARP_REQUEST;
		return n;
	case 1:
		memcpy(dhcp + 28, client, sizeof(client));
		memcpy(dhcp + 236, options, sizeof(options));
		n = make_ip(out, IP4_BROADCAST, DHCP_SERVER_PORT, dhcp, sizeof(dhcp));
		put_u16_be(out + ETHERNET_HEADER + IP4_HEADER, DHCP_CLIENT_PORT);
		return n;
	case 2:
		return make_ip(out, RESOLVER_IP, DNS_PORT, query, sizeof(query) - 1);
	case 3: /* TCP, written over UDP's header */
		n = make_ip(out, METADATA_IP, METADATA_PORT, tcp, 12 + draw(f, 8));
		out[ETHERNET_HEADER + 9] = PROTOCOL_TCP;
		put_u16_be(out + 34, (uint16_t)(GUEST_PORT + draw(f, 16)));
		out[38] = out[42] = 0;
		out[46] = (uint8_t)(0x50 + 0x10 * draw(f, 2));
		out[47] = draw(f, 2) ? TCP_SYN : (uint8_t)draw(f, 64);
		return n;
	case 4: /* to another host, perhaps in fragments */
		n = make_ip(out, IP4(10, 0, 0, 12), 9, tcp, sizeof(tcp));
		out[ETHERNET_HEADER + 6] = (uint8_t)(draw(f, 2) << 5);
		return n;
	case 5: /* an ICMP error about something */
		n = make_ip(out, IP4(10, 0, 0, 11), 0, dhcp, 40);
		out[ETHERNET_HEADER + 9] = PROTOCOL_ICMP;
		out[ETHERNET_HEADER + IP4_HEADER] = ICMP_UNREACHABLE;
		out[ETHERNET_HEADER + IP4_HEADER + 8] = 0x45;
		return n;
	default:
		return make_ip(out, IP4(10, 0, 0, 11), 9, tcp, sizeof(tcp));
	}
}

/* Makes the checksums right again, or libslirp would look no further. */
static void mend(uint8_t *frame, size_t n)
{
	uint8_t *ip = frame + ETHERNET_HEADER, *transport = ip + IP4_HEADER, *sum;
	size_t size = n - ETHERNET_HEADER - IP4_HEADER;
	uint32_t pseudo = 0;

	if (n < ETHERNET_HEADER + IP4_HEADER + 20 || frame[12] != 8 || frame[13] != 0)
		return;
	put_u16_be(ip + 2, (uint16_t)(n - ETHERNET_HEADER));
	put_u16_be(ip + 10, 0);
	put_u16_be(ip + 10, inet_checksum(inet_sum(ip, IP4_HEADER, 0)));
	if (ip[9] == PROTOCOL_TCP)
		sum = transport + 16;
	else if (ip[9] == PROTOCOL_UDP)
		sum = transport + 6;
	else
		sum = transport + 2;
	if (ip[9] != PROTOCOL_ICMP)
		pseudo = inet_sum(ip + 12, 8, ip[9] + (uint32_t)size);
	put_u16_be(sum, 0);
	put_u16_be(sum, inet_checksum(inet_sum(transport, size, pseudo)));
}

static uint8_t *mutate(struct fixture *f, size_t *ret_size)
{
	uint8_t frame[TEMPLATE], *exact;
	size_t n = make_template(f, frame);

	for (uint64_t i = draw(f, 4); i > 0; i--)
		frame[draw(f, n)] = (uint8_t)draw(f, 256);
	if (draw(f, 5) == 0)
		n = draw(f, n + 1);
	if (draw(f, 2))
		mend(frame, n);
	exact = malloc(MAX(n, 1U));
	assert_non_null(exact);
	memcpy(exact, frame, n);
	*ret_size = n;
	return exact;
}

static void mutated_frames_do_no_harm(void **state)
{
	struct fixture *f = *state;
	struct nic *a = f->network->nic[0];
	struct tunnel_peer *peer = NULL;
	uint64_t from_a;

	if (a->ip != IP4(10, 0, 0, 10))
		a = f->network->nic[1];
	peer = config_find(f->network->config, IP4(10, 0, 0, 12))->peer;
	assert_non_null(peer);
	for (int i = 0; i < FRAMES; i++) {
		size_t n = 0;
		uint8_t *frame = mutate(f, &n);

		if (i % 10 == 8)
			forward_from_outside(frame, n, f->network);
		else if (i % 10 == 9)
			forward_from_tunnel(peer, frame, n, f->network);
		else
			forward_from_nic(a, frame, n, f->network);
		free(frame);
		if (i % BATCH == 0)
			turn(f);
	}
	turn(f);
	/* The mutations reached every branch that counts. */
	assert_true(a->counters.malformed > 0 && a->counters.unsupported > 0);
	assert_true(a->counters.spoofed_mac > 0 && a->counters.spoofed_ip > 0);
	assert_true(a->counters.services > 0 && a->counters.metadata > 0);
	assert_true(a->counters.fragmented > 0);
	assert_true(a->counters.unknown_destination > 0 && a->counters.forbidden > 0);
	assert_true(f->network->counters.overlay_malformed > 0);
	assert_true(f->network->counters.overlay_spoofed > 0);
	assert_true(f->network->counters.outside_stray > 0);
	/* And it still works. */
	from_a = a->counters.to_frames;
	{
		uint8_t request[ETHERNET_HEADER + ARP_SIZE];
		size_t n = frame_arp_reply(
			request, a->mac, a->ip, (struct mac){{0xff}}, IP4(10, 0, 0, 11));

		request[21] = ARP_REQUEST;
		forward_from_nic(a, request, n, f->network);
	}
	assert_int_equal(a->counters.to_frames, from_a + 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(mutated_frames_do_no_harm, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
