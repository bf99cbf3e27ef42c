/* SPDX-License-Identifier: Apache-2.0 */
#include "core/net/dhcp.h"
#include "core/net/dns.h"
#include "core/net/firewall.h"
#include "core/net/overlay.h"

#include <errno.h>
#include <stdio.h>

#include "base/reader.h"
#include "unit.h"

static const struct mac mac_a = {{0x52, 0x54, 0, 0, 0, 0x0a}};
static const struct mac mac_b = {{0x52, 0x54, 0, 0, 0, 0x0b}};
static const uint32_t ip_a = IP4(10, 0, 0, 10), ip_b = IP4(10, 0, 0, 11);

/* Addresses as text. */

static void addresses_are_parsed_whole_or_not_at_all(void **state)
{
	static const char *const bad_macs[] = {"", "52:54:00:00:00",
		"52:54:00:00:00:0a:", "52-54-00-00-00-0a", "52:54:00:00:00:0g", "01:00:5e:00:00:01",
		"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", " 2:54:00:00:00:0a"};
	static const char *const bad_ips[] = {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4",
		"1.2.3.", ".1.2.3", "1.2.3.4 ", "1.2.3.-4", "0x1.2.3.4", "1.2.3.1000"};
	static const char *const bad_cidrs[] = {"10.0.0.0", "10.0.0.0/", "10.0.0.0/33",
		"10.0.0.1/24", "10.0.0.0/24/", "/8", "1.0.0.0/0"};
	static const char *const bad_ports[] = {"", "-", "1-", "-1", "65536", "2-1", "1-2-3", "a"};
	char text[MAC_TEXT], ip_text[IP4_TEXT];
	struct mac mac;
	struct cidr cidr;
	uint32_t ip;
	uint16_t first, last;

	(void)state;
	assert_ok(mac_parse("52:54:00:AB:cd:0a", &mac));
	mac_format(mac, text);
	assert_string_equal(text, "52:54:00:ab:cd:0a");
	assert_ok(ip4_parse("192.168.0.255", &ip));
	ip4_format(ip, ip_text);
	assert_string_equal(ip_text, "192.168.0.255");
	assert_ok(cidr_parse("10.32.0.0/11", &cidr));
	assert_true(cidr_contains(cidr, IP4(10, 63, 255, 255)));
	assert_false(cidr_contains(cidr, IP4(10, 64, 0, 0)));
	assert_ok(cidr_parse("0.0.0.0/0", &cidr));
	assert_true(cidr_contains(cidr, IP4_BROADCAST));
	assert_ok(port_range_parse("0-65535", &first, &last));
	assert_int_equal(last, 65535);
	assert_ok(port_range_parse("80", &first, &last));
	assert_true(first == 80 && last == 80);
	for (size_t i = 0; i < ARRAY_SIZE(bad_macs); i++)
		assert_int_equal(mac_parse(bad_macs[i], &mac), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(bad_ips); i++)
		assert_int_equal(ip4_parse(bad_ips[i], &ip), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(bad_cidrs); i++)
		assert_int_equal(cidr_parse(bad_cidrs[i], &cidr), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(bad_ports); i++)
		assert_int_equal(port_range_parse(bad_ports[i], &first, &last), -EINVAL);
}

/* Frames. */

static size_t make_udp(uint8_t *out, size_t n)
{
	const struct endpoint from = {mac_a, ip_a, 1000}, to = {mac_b, ip_b, 53};

	for (size_t i = 0; i < n; i++)
		out[FRAME_UDP_OVERHEAD + i] = (uint8_t)i;
	return frame_udp(out, &from, &to, n);
}

static void a_built_frame_is_parsed_to_what_went_in(void **state)
{
	uint8_t bytes[2048], arp[ETHERNET_HEADER + ARP_SIZE];
	struct frame f;
	uint32_t pseudo;

	(void)state;
	for (size_t n = 0; n < 1200; n += 37) {
		size_t size = make_udp(bytes, n);

		assert_ok(frame_parse(bytes, size, &f));
		assert_true(mac_equal(f.to, mac_b) && mac_equal(f.from, mac_a));
		assert_true(f.ip.from == ip_a && f.ip.to == ip_b && f.ip.protocol == PROTOCOL_UDP);
		assert_true(f.ip.from_port == 1000 && f.ip.to_port == 53 && f.ip.first);
		assert_false(f.ip.fragmented);
		assert_int_equal(f.ip.payload_size, n);
		/* Checksums that are right sum up to nothing. */
		assert_int_equal(
			inet_checksum(inet_sum(bytes + ETHERNET_HEADER, IP4_HEADER, 0)), 0);
		pseudo = inet_sum(
			bytes + ETHERNET_HEADER + 12, 8, PROTOCOL_UDP + (uint32_t)(UDP_HEADER + n));
		assert_int_equal(inet_checksum(inet_sum(bytes + ETHERNET_HEADER + IP4_HEADER,
					 UDP_HEADER + n, pseudo)),
			0);
	}
	assert_int_equal(frame_arp_reply(arp, mac_a, ip_a, mac_b, ip_b), sizeof(arp));
	assert_ok(frame_parse(arp, sizeof(arp), &f));
	assert_true(f.type == ETHERTYPE_ARP && f.arp.operation == ARP_REPLY);
	assert_true(f.arp.sender_ip == ip_a && f.arp.target_ip == ip_b);
	assert_true(mac_equal(f.arp.sender_mac, mac_a));
}

static void addresses_change_with_their_checksums(void **state)
{
	uint8_t bytes[256];
	struct frame f;
	uint32_t pseudo;

	(void)state;
	for (uint32_t i = 0; i < 20000; i++) {
		size_t size = make_udp(bytes, 100);
		uint32_t ip = i * 0x9e3779b1;

		assert_ok(frame_parse(bytes, size, &f));
		frame_set_source(&f, ip);
		frame_set_destination(&f, ~ip * 7);
		assert_ok(frame_parse(bytes, size, &f));
		assert_true(f.ip.from == ip && f.ip.to == ~ip * 7);
		assert_int_equal(
			inet_checksum(inet_sum(bytes + ETHERNET_HEADER, IP4_HEADER, 0)), 0);
		pseudo = inet_sum(bytes + ETHERNET_HEADER + 12, 8, PROTOCOL_UDP + UDP_HEADER + 100);
		assert_int_equal(inet_checksum(inet_sum(bytes + ETHERNET_HEADER + IP4_HEADER,
					 UDP_HEADER + 100, pseudo)),
			0);
	}
}

static void a_frame_cut_anywhere_is_malformed(void **state)
{
	uint8_t whole[256];
	size_t size = make_udp(whole, 100);
	struct frame f;

	(void)state;
	for (size_t n = 0; n < size; n++) {
		/* A block of its own, so that a byte read behind it is noticed. */
		CLEANUP_FREE uint8_t *cut = malloc(MAX(n, 1U));

		memcpy(cut, whole, n);
		assert_int_equal(frame_parse(cut, n, &f), -EBADMSG);
	}
	/* More than the packet is padding, and cut off. */
	assert_ok(frame_parse(whole, size + 20, &f));
	assert_int_equal(f.size, size);
}

static void lengths_that_lie_are_malformed(void **state)
{
	static const struct {
		size_t at;
		uint8_t value;
		int error;
	} cases[] = {
		{14, 0x44, -EPROTONOSUPPORT}, /* a header of four words: not plain */
		{14, 0x46, -EPROTONOSUPPORT}, /* options */
		{14, 0x65, -EBADMSG},         /* version 6 */
		{17, 19, -EBADMSG},           /* total length below the header's */
		{16, 0xff, -EBADMSG},         /* beyond the frame */
		{39, 7, -EBADMSG},            /* UDP length below the header's */
		{38, 0xff, -EBADMSG},         /* beyond the packet */
		{12, 0x86, -EPROTONOSUPPORT}, /* another Ethernet type */
	};
	uint8_t bytes[256];
	struct frame f;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t size = make_udp(bytes, 100);

		bytes[cases[i].at] = cases[i].value;
		assert_int_equal(frame_parse(bytes, size, &f), cases[i].error);
	}
}

/* A fragment of an UDP datagram at this offset (in bytes). */
static size_t make_fragment(uint8_t *out, size_t offset, bool more, uint16_t id)
{
	size_t size = make_udp(out, 72);

	put_u16_be(out + ETHERNET_HEADER + 4, id);
	put_u16_be(out + ETHERNET_HEADER + 6, (uint16_t)(offset / 8 | (more ? 0x2000 : 0)));
	return size;
}

static void fragments_cannot_hide_or_overwrite_ports(void **state)
{
	uint8_t bytes[256];
	struct frame f;
	size_t size = make_fragment(bytes, 0, true, 1);

	(void)state;
	assert_ok(frame_parse(bytes, size, &f));
	assert_true(f.ip.first && f.ip.fragmented && f.ip.to_port == 53);
	/* A first fragment without room for the ports. */
	put_u16_be(bytes + ETHERNET_HEADER + 2, IP4_HEADER + 4);
	assert_int_equal(frame_parse(bytes, ETHERNET_HEADER + IP4_HEADER + 4, &f), -EBADMSG);
	for (size_t offset = 8; offset < 80; offset += 8) {
		size = make_fragment(bytes, offset, false, 1);
		assert_int_equal(frame_parse(bytes, size, &f), offset < 20 ? -EBADMSG : 0);
	}
	/* The end of a datagram that would be longer than any. */
	size = make_fragment(bytes, 65528, false, 1);
	assert_int_equal(frame_parse(bytes, size, &f), -EBADMSG);
}

static void the_answer_to_a_long_frame_quotes_it(void **state)
{
	uint8_t bytes[2048], out[FRAME_TOO_BIG_SIZE];
	struct frame f, answer;
	struct packet quoted;

	(void)state;
	assert_ok(frame_parse(bytes, make_udp(bytes, 1500), &f));
	assert_int_equal(frame_too_big(out, &f, mac_b, IP4(10, 0, 0, 1), 1400), sizeof(out));
	assert_ok(frame_parse(out, sizeof(out), &answer));
	assert_true(answer.ip.to == ip_a && mac_equal(answer.to, mac_a));
	assert_true(answer.ip.icmp_type == ICMP_UNREACHABLE && answer.ip.icmp_code == 4);
	assert_int_equal(inet_checksum(inet_sum(out + ETHERNET_HEADER + IP4_HEADER,
				 sizeof(out) - ETHERNET_HEADER - IP4_HEADER, 0)),
		0);
	assert_ok(frame_parse_icmp_error(&answer.ip, &quoted));
	assert_true(quoted.from == ip_a && quoted.to == ip_b && quoted.to_port == 53);
	answer.ip.payload_size = IP4_HEADER + 3; /* not even the ports */
	assert_int_equal(frame_parse_icmp_error(&answer.ip, &quoted), -EBADMSG);
}

/* The firewall. */

static const uint8_t key[16] = {1, 2, 3};

static struct packet make_packet(
	bool from_a, uint8_t protocol, uint16_t a_port, uint16_t b_port, uint8_t flags)
{
	return (struct packet){.from = from_a ? ip_a : ip_b,
		.to = from_a ? ip_b : ip_a,
		.protocol = protocol,
		.first = true,
		.from_port = from_a ? a_port : b_port,
		.to_port = from_a ? b_port : a_port,
		.tcp_flags = flags};
}

static void the_first_rule_that_fits_decides(void **state)
{
	CLEANUP(connections_free_p) struct connections *c = NULL;
	struct rules rules = {.count = 3,
		.rule = {
			{.direction = DIRECTION_IN,
				.deny = true,
				.protocol = PROTOCOL_TCP,
				.first_port = 22,
				.last_port = 22},
			{.direction = DIRECTION_IN,
				.outside = true,
				.protocol = PROTOCOL_TCP,
				.first_port = 80,
				.last_port = 80},
			{.direction = DIRECTION_IN,
				.protocol = PROTOCOL_TCP,
				.first_port = 20,
				.last_port = 30,
				.peer = {IP4(10, 0, 0, 0), IP4(255, 255, 255, 0)}},
		}};
	struct packet p;

	(void)state;
	assert_ok(connections_new(key, &c));
	p = make_packet(false, PROTOCOL_TCP, 22, 9000, TCP_SYN);
	assert_false(connections_pass(c, &rules, DIRECTION_IN, false, &p, 1));
	p = make_packet(false, PROTOCOL_TCP, 25, 9000, TCP_SYN);
	assert_true(connections_pass(c, &rules, DIRECTION_IN, false, &p, 1));
	p.from = IP4(10, 0, 1, 11);
	assert_false(connections_pass(c, &rules, DIRECTION_IN, false, &p, 1));
	p = make_packet(false, PROTOCOL_TCP, 80, 9000, TCP_SYN);
	assert_false(connections_pass(c, &rules, DIRECTION_IN, false, &p, 1));
	assert_true(connections_pass(c, &rules, DIRECTION_IN, true, &p, 1));
	p = make_packet(false, PROTOCOL_UDP, 25, 9000, 0);
	assert_false(connections_pass(c, &rules, DIRECTION_IN, false, &p, 1));
	assert_int_equal(connections_count(c), 2);
	/* One of the two does not stand without its rule. */
	rules.count = 2;
	connections_recheck(c, &rules, ip_a);
	assert_int_equal(connections_count(c), 1);
	assert_int_equal(connections_counters(c)->revoked, 1);
	connections_recheck(c, &rules, ip_b);
	assert_int_equal(connections_count(c), 0);
}

static void answers_pass_as_long_as_the_connection_lives(void **state)
{
	static const struct {
		uint8_t protocol;
		bool answered;
		uint8_t flags;
		uint64_t seconds;
	} cases[] = {
		{PROTOCOL_TCP, false, TCP_SYN, 60},
		{PROTOCOL_TCP, true, TCP_ACK, 7440},
		{PROTOCOL_TCP, true, TCP_RST, 60},
		{PROTOCOL_UDP, false, 0, 60},
		{PROTOCOL_UDP, true, 0, 300},
		{PROTOCOL_ICMP, false, 0, 60},
		{47, true, 0, 60},
	};
	const struct rules none = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (int late = 0; late < 2; late++) {
			CLEANUP(connections_free_p) struct connections *c = NULL;
			uint64_t t = 5 * NSEC_PER_SEC;
			struct packet out = make_packet(
					      true, cases[i].protocol, 9000, 80, cases[i].flags),
				      in = make_packet(
					      false, cases[i].protocol, 9000, 80, cases[i].flags);

			assert_ok(connections_new(key, &c));
			assert_false(connections_pass(c, &none, DIRECTION_IN, false, &in, t));
			assert_true(connections_pass(c, &none, DIRECTION_OUT, false, &out, t));
			if (cases[i].answered)
				assert_true(
					connections_pass(c, &none, DIRECTION_IN, false, &in, t));
			t += cases[i].seconds * NSEC_PER_SEC + (uint64_t)late;
			assert_int_equal(
				connections_pass(c, &none, DIRECTION_IN, false, &in, t), late == 0);
			assert_int_equal(connections_counters(c)->expired, late);
		}
}

static void a_full_table_forgets_the_least_recent(void **state)
{
	CLEANUP(connections_free_p) struct connections *c = NULL;
	const struct rules none = {0};
	struct packet p = make_packet(true, PROTOCOL_UDP, 9000, 1, 0);

	(void)state;
	assert_ok(connections_new(key, &c));
	for (uint32_t i = 0; i < 3 * CONNECTIONS_MAX; i++) {
		p.to_port = (uint16_t)i;
		p.to = IP4(10, 1, 0, 0) + i;
		assert_true(connections_pass(c, &none, DIRECTION_OUT, false, &p, i));
		/* The first is used all the time, and so stays. */
		p.to_port = 0;
		p.to = IP4(10, 1, 0, 0);
		assert_true(connections_pass(c, &none, DIRECTION_OUT, false, &p, i));
	}
	assert_int_equal(connections_count(c), CONNECTIONS_MAX);
	assert_int_equal(connections_counters(c)->opened, 3 * CONNECTIONS_MAX);
	assert_int_equal(connections_counters(c)->evicted, 2 * CONNECTIONS_MAX);
	connections_recheck(c, &none, ip_b);
	assert_int_equal(connections_count(c), 0);
	assert_true(connections_pass(c, &none, DIRECTION_OUT, false, &p, 1));
}

static void icmp_errors_pass_about_known_connections_only(void **state)
{
	CLEANUP(connections_free_p) struct connections *c = NULL;
	const struct rules none = {0};
	uint8_t bytes[2048], out[FRAME_TOO_BIG_SIZE];
	struct frame f, error;

	(void)state;
	assert_ok(connections_new(key, &c));
	assert_ok(frame_parse(bytes, make_udp(bytes, 100), &f));
	(void)frame_too_big(out, &f, mac_b, ip_b, 1400);
	assert_ok(frame_parse(out, sizeof(out), &error));
	assert_false(connections_pass(c, &none, DIRECTION_IN, false, &error.ip, 1));
	assert_true(connections_pass(c, &none, DIRECTION_OUT, false, &f.ip, 1));
	assert_true(connections_pass(c, &none, DIRECTION_IN, false, &error.ip, 1));
	/* About the same ports of somebody else. */
	error.ip.to = IP4(10, 0, 0, 12);
	assert_false(connections_pass(c, &none, DIRECTION_IN, false, &error.ip, 1));
	assert_int_equal(connections_count(c), 1);
}

static void later_fragments_follow_their_first(void **state)
{
	CLEANUP(connections_free_p) struct connections *c = NULL;
	const struct rules none = {0};
	uint8_t bytes[256];
	struct frame first, later, other;

	(void)state;
	assert_ok(connections_new(key, &c));
	assert_ok(frame_parse(bytes, make_fragment(bytes, 80, false, 8), &other));
	assert_ok(frame_parse(bytes, make_fragment(bytes, 80, false, 7), &later));
	assert_ok(frame_parse(bytes, make_fragment(bytes, 0, true, 7), &first));
	assert_false(connections_pass(c, &none, DIRECTION_OUT, false, &later.ip, 1));
	assert_true(connections_pass(c, &none, DIRECTION_OUT, false, &first.ip, 1));
	assert_true(connections_pass(c, &none, DIRECTION_OUT, false, &later.ip, 1));
	assert_false(connections_pass(c, &none, DIRECTION_OUT, false, &other.ip, 1));
	assert_false(
		connections_pass(c, &none, DIRECTION_OUT, false, &later.ip, 2 + FRAGMENTED_NS));
	assert_int_equal(connections_counters(c)->orphans, 3);
}

/* DHCP. */

static size_t make_dhcp(uint8_t *out, uint8_t type, const uint8_t *options, size_t n)
{
	memset(out, 0, 240);
	out[0] = out[1] = 1;
	out[2] = MAC_SIZE;
	put_u32_be(out + 4, 0x12345678);
	memcpy(out + 28, &mac_a, sizeof(mac_a));
	put_u32_be(out + 236, 0x63825363);
	out[240] = 53;
	out[241] = 1;
	out[242] = type;
	memcpy(out + 243, options, n);
	return 243 + n;
}

static const struct dhcp_lease lease = {.ip = IP4(10, 0, 0, 10),
	.mask = IP4(255, 255, 255, 0),
	.router = IP4(10, 0, 0, 1),
	.server = IP4(10, 0, 0, 1),
	.dns = {IP4(1, 1, 1, 1)},
	.dns_count = 1,
	.hostname = "a",
	.domain = "d",
	.seconds = 3600,
	.mtu = 1386};

static void dhcp_requests_are_decided_by_the_mapping(void **state)
{
	static const uint8_t mine[] = {50, 4, 10, 0, 0, 10, 54, 4, 10, 0, 0, 1, 255};
	static const uint8_t stolen[] = {50, 4, 10, 0, 0, 11, 255};
	static const uint8_t elsewhere[] = {0, 0, 50, 4, 10, 0, 0, 10, 54, 4, 10, 0, 0, 2, 255};
	static const struct {
		const uint8_t *options;
		size_t n;
		uint8_t type, answer;
	} cases[] = {
		{stolen, sizeof(stolen), DHCP_DISCOVER, DHCP_OFFER},
		{mine, sizeof(mine), DHCP_REQUEST, DHCP_ACK},
		{stolen, sizeof(stolen), DHCP_REQUEST, DHCP_NAK},
		{elsewhere, sizeof(elsewhere), DHCP_REQUEST, 0},
		{mine, sizeof(mine), DHCP_RELEASE, 0}, {mine, sizeof(mine), DHCP_DECLINE, 0},
		{mine, sizeof(mine), DHCP_INFORM, 0},
		{NULL, 0, DHCP_DISCOVER, DHCP_OFFER}, /* no end mark */
	};
	uint8_t message[DHCP_MESSAGE_MAX];
	struct dhcp_request q;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t n = make_dhcp(message, cases[i].type,
			cases[i].n ? cases[i].options : (const uint8_t *)"", cases[i].n);

		assert_ok(dhcp_parse(message, n, &q));
		assert_int_equal(q.transaction, 0x12345678);
		assert_int_equal(dhcp_decide(&q, &lease), cases[i].answer);
	}
	/* A client that renews names its address in ciaddr. */
	q = (struct dhcp_request){.type = DHCP_REQUEST, .client_ip = lease.ip};
	assert_int_equal(dhcp_decide(&q, &lease), DHCP_ACK);
}

static void dhcp_answers_fit_whatever_the_names(void **state)
{
	char longest[64] = {0}, longer[65] = {0};
	struct dhcp_lease l = lease;
	uint8_t out[DHCP_MESSAGE_MAX];
	struct dhcp_request q = {.type = DHCP_DISCOVER, .client = mac_a};

	(void)state;
	memset(longest, 'x', 63);
	memset(longer, 'x', 64);
	l.dns_count = DHCP_DNS_MAX;
	l.hostname = l.domain = longest;
	assert_in_range(dhcp_answer(out, &q, DHCP_OFFER, &l), 400, DHCP_MESSAGE_MAX);
	l.hostname = l.domain = longer; /* left out */
	assert_int_equal(dhcp_answer(out, &q, DHCP_OFFER, &l), 300);
	l.hostname = l.domain = NULL;
	assert_int_equal(dhcp_answer(out, &q, DHCP_NAK, &l), 300);
	assert_true(dhcp_is_broadcast(&q, DHCP_NAK));
	assert_false(dhcp_is_broadcast(&q, DHCP_ACK));
}

static void bad_dhcp_is_refused(void **state)
{
	static const uint8_t too_long[] = {50, 200, 1, 2, 3, 4};
	uint8_t message[DHCP_MESSAGE_MAX];
	size_t n = make_dhcp(message, DHCP_DISCOVER, (const uint8_t *)"\xff", 1);
	static const size_t fixed[] = {0, 1, 2, 236, 239, 242};
	struct dhcp_request q;

	(void)state;
	assert_ok(dhcp_parse(message, n, &q));
	for (size_t i = 0; i < 243; i++) {
		CLEANUP_FREE uint8_t *cut = malloc(MAX(i, 1U));

		memcpy(cut, message, i);
		assert_int_equal(dhcp_parse(cut, i, &q), -EBADMSG);
	}
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		message[fixed[i]] ^= 0x80;
		assert_int_equal(dhcp_parse(message, n, &q), -EBADMSG);
		message[fixed[i]] ^= 0x80;
	}
	n = make_dhcp(message, DHCP_DISCOVER, too_long, sizeof(too_long));
	assert_int_equal(dhcp_parse(message, n, &q), -EBADMSG);
}

/* DNS. */

static size_t make_query(uint8_t *out, const char *labels, size_t n)
{
	static const uint8_t header[12] = {0, 77, 1, 0, 0, 1};

	memcpy(out, header, sizeof(header));
	memcpy(out + 12, labels, n);
	put_u16_be(out + 12 + n, DNS_TYPE_A);
	put_u16_be(out + 14 + n, DNS_CLASS_IN);
	return 12 + n + 4;
}

static void dns_questions_are_read_and_answered(void **state)
{
	uint8_t query[512], out[DNS_ANSWER_MAX];
	size_t n = make_query(query, "\3WEB\10internal", 14);
	struct dns_query q;

	(void)state;
	assert_ok(dns_parse(query, n, &q));
	assert_string_equal(q.name, "web.internal");
	assert_true(q.type == DNS_TYPE_A && q.class == DNS_CLASS_IN && q.id == 77);
	assert_int_equal(dns_answer(out, &q, ip_a, true), n + 16);
	assert_memory_equal(out + n + 12, "\x0a\0\0\x0a", 4);
	assert_int_equal(out[3] & 15, 0);
	assert_int_equal(dns_answer(out, &q, 0, false), n);
	assert_int_equal(out[3] & 15, 3);
	assert_int_equal(dns_answer(out, &q, 0, true), n);
	assert_int_equal(out[3] & 15, 0);
	assert_ok(dns_parse(query, make_query(query, "", 1), &q));
	assert_string_equal(q.name, "");
}

static void bad_dns_is_refused(void **state)
{
	static const struct {
		const char *labels;
		size_t n;
	} bad[] = {
		{"\3a.b", 5},    /* a dot within a label */
		{"\3a\0b", 5},   /* a NUL */
		{"\300\14", 2},  /* a pointer, to itself */
		{"\100aaaa", 6}, /* a label of 64 */
		{"\77short", 7}, /* longer than the message */
	};
	uint8_t query[512];
	char long_name[300];
	size_t n = make_query(query, "\3web", 5);
	struct dns_query q;

	(void)state;
	for (size_t i = 0; i < n; i++) {
		CLEANUP_FREE uint8_t *cut = malloc(MAX(i, 1U));

		memcpy(cut, query, i);
		assert_int_equal(dns_parse(cut, i, &q), -EBADMSG);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(
			dns_parse(query, make_query(query, bad[i].labels, bad[i].n), &q), -EBADMSG);
	n = make_query(query, "\3web", 5);
	query[2] |= 0x80; /* an answer */
	assert_int_equal(dns_parse(query, n, &q), -EBADMSG);
	query[2] = 1;
	query[5] = 2; /* two questions */
	assert_int_equal(dns_parse(query, n, &q), -EBADMSG);
	/* 253 characters are the most: 126 labels of one, and then one more. */
	for (size_t i = 0; i < 254; i++)
		long_name[i] = i % 2 ? 'a' : 1;
	long_name[254] = 0;
	assert_ok(dns_parse(query, make_query(query, long_name, 255), &q));
	assert_int_equal(strlen(q.name), DNS_NAME_MAX);
	long_name[254] = 1;
	long_name[255] = 'a';
	long_name[256] = 0;
	assert_int_equal(dns_parse(query, make_query(query, long_name, 257), &q), -EBADMSG);
}

/* The overlay. */

static void overlay_headers_go_there_and_back(void **state)
{
	struct overlay_header h = {.kind = OVERLAY_PROOF,
				      .key_id = 9,
				      .counter = 0x123456789abcdef},
			      got;
	uint8_t packet[OVERLAY_HEADER + OVERLAY_TAG] = {0}, vxlan[VXLAN_HEADER];
	static const size_t checked[] = {0, 1, 3};
	uint32_t vni;

	(void)state;
	memset(h.sender, 0x5a, sizeof(h.sender));
	overlay_header_put(packet, &h);
	assert_ok(overlay_header_parse(packet, sizeof(packet), &got));
	assert_memory_equal(&got, &h, sizeof(h));
	for (size_t n = 0; n < sizeof(packet); n++)
		assert_int_equal(overlay_header_parse(packet, n, &got), -EBADMSG);
	for (size_t i = 0; i < ARRAY_SIZE(checked); i++) {
		packet[checked[i]] ^= 0x40;
		assert_int_equal(overlay_header_parse(packet, sizeof(packet), &got), -EBADMSG);
		packet[checked[i]] ^= 0x40;
	}
	vxlan_put(vxlan, VNI_MAX);
	assert_ok(vxlan_parse(vxlan, sizeof(vxlan), &vni));
	assert_int_equal(vni, VNI_MAX);
	assert_int_equal(vxlan_parse(vxlan, sizeof(vxlan) - 1, &vni), -EBADMSG);
	vxlan[0] = 0;
	assert_int_equal(vxlan_parse(vxlan, sizeof(vxlan), &vni), -EBADMSG);
}

/* The window against the plainest thing that does the same: a byte for every counter. */
static void the_replay_window_takes_each_counter_once(void **state)
{
	enum { COUNTERS = 100000 };
	CLEANUP_FREE uint8_t *seen = calloc(COUNTERS, 1);
	struct replay_window w;
	uint64_t highest = 100, x = 88172645463325252;

	(void)state;
	assert_non_null(seen);
	replay_window_init(&w, highest);
	memset(seen, 1, highest + 1);
	for (int i = 0; i < 300000; i++) {
		uint64_t counter;
		bool expected;

		/* xorshift64: the same at every run. */
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		counter = highest + x % 64;
		counter -= MIN(counter, x / 64 % (x % 3 ? 100 : 3000));
		if (x % 1000 == 0)
			counter += 5000;
		if (counter >= COUNTERS)
			break;
		expected = !seen[counter] && counter + REPLAY_WINDOW > highest;
		assert_int_equal(replay_window_take(&w, counter), expected);
		seen[counter] = 1;
		highest = MAX(highest, counter);
	}
	assert_true(highest > 10000);
	assert_true(replay_window_take(&w, UINT64_MAX));
	assert_false(replay_window_take(&w, UINT64_MAX));
	assert_false(replay_window_take(&w, highest + 1));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_parsed_whole_or_not_at_all),
		cmocka_unit_test(a_built_frame_is_parsed_to_what_went_in),
		cmocka_unit_test(addresses_change_with_their_checksums),
		cmocka_unit_test(a_frame_cut_anywhere_is_malformed),
		cmocka_unit_test(lengths_that_lie_are_malformed),
		cmocka_unit_test(fragments_cannot_hide_or_overwrite_ports),
		cmocka_unit_test(the_answer_to_a_long_frame_quotes_it),
		cmocka_unit_test(the_first_rule_that_fits_decides),
		cmocka_unit_test(answers_pass_as_long_as_the_connection_lives),
		cmocka_unit_test(a_full_table_forgets_the_least_recent),
		cmocka_unit_test(icmp_errors_pass_about_known_connections_only),
		cmocka_unit_test(later_fragments_follow_their_first),
		cmocka_unit_test(dhcp_requests_are_decided_by_the_mapping),
		cmocka_unit_test(dhcp_answers_fit_whatever_the_names),
		cmocka_unit_test(bad_dhcp_is_refused),
		cmocka_unit_test(dns_questions_are_read_and_answered),
		cmocka_unit_test(bad_dns_is_refused),
		cmocka_unit_test(overlay_headers_go_there_and_back),
		cmocka_unit_test(the_replay_window_takes_each_counter_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
