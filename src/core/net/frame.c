/* SPDX-License-Identifier: Apache-2.0 */
#include "core/net/frame.h"

#include <errno.h>

#include "base/reader.h"

#define ARP_ETHERNET      1
#define IP4_VERSION_IHL   0x45 /* version 4, five words: no options */
#define IP4_TTL           64
#define IP4_DONT_FRAGMENT 0x4000
#define IP4_MORE          0x2000
#define IP4_OFFSET        0x1fff /* in units of 8 bytes */
#define TCP_HEADER        20
#define ICMP_HEADER       8

static struct mac read_mac(struct reader *r)
{
	const uint8_t *bytes = reader_bytes(r, MAC_SIZE);
	struct mac mac = {0};

	if (bytes)
		memcpy(&mac, bytes, sizeof(mac));
	return mac;
}

static int parse_arp(struct reader *r, struct frame *f)
{
	uint16_t hardware = reader_u16_be(r), protocol = reader_u16_be(r);
	uint8_t hardware_size = reader_u8(r), protocol_size = reader_u8(r);

	f->arp.operation = reader_u16_be(r);
	f->arp.sender_mac = read_mac(r);
	f->arp.sender_ip = reader_u32_be(r);
	(void)read_mac(r);
	f->arp.target_ip = reader_u32_be(r);
	if (r->failed || hardware != ARP_ETHERNET || protocol != ETHERTYPE_IP4 ||
		hardware_size != MAC_SIZE || protocol_size != 4)
		return -EBADMSG;
	f->size = ETHERNET_HEADER + ARP_SIZE;
	return 0;
}

static int parse_tcp(struct reader *r, struct packet *p)
{
	size_t options;

	p->from_port = reader_u16_be(r);
	p->to_port = reader_u16_be(r);
	(void)reader_bytes(r, 8);
	options = reader_u8(r) >> 4;
	p->tcp_flags = reader_u8(r);
	(void)reader_bytes(r, 6);
	if (options * 4 < TCP_HEADER)
		return -EBADMSG;
	(void)reader_bytes(r, options * 4 - TCP_HEADER);
	return 0;
}

static int parse_udp(struct reader *r, struct packet *p)
{
	size_t size;

	p->from_port = reader_u16_be(r);
	p->to_port = reader_u16_be(r);
	size = reader_u16_be(r);
	(void)reader_u16_be(r);
	if (size < UDP_HEADER)
		return -EBADMSG;
	/* A first fragment holds less than the datagram. */
	if (!p->fragmented && size - UDP_HEADER > r->left)
		return -EBADMSG;
	r->left = MIN(r->left, size - UDP_HEADER);
	return 0;
}

static int parse_icmp(struct reader *r, struct packet *p)
{
	p->icmp_type = reader_u8(r);
	p->icmp_code = reader_u8(r);
	(void)reader_u16_be(r);
	p->from_port = p->to_port = reader_u16_be(r);
	(void)reader_u16_be(r);
	return 0;
}

static int parse_transport(struct reader *r, struct packet *p)
{
	int ret = 0;

	if (p->protocol == PROTOCOL_TCP)
		ret = parse_tcp(r, p);
	else if (p->protocol == PROTOCOL_UDP)
		ret = parse_udp(r, p);
	else if (p->protocol == PROTOCOL_ICMP)
		ret = parse_icmp(r, p);
	if (ret < 0 || r->failed)
		return -EBADMSG;
	p->payload = r->at;
	p->payload_size = r->left;
	return 0;
}

/* The fixed header; the reader is left behind it. *ret_size: of the packet with its header. */
static int parse_ip4_header(
	struct reader *r, struct packet *p, size_t *ret_size, size_t *ret_offset)
{
	uint8_t version_ihl = reader_u8(r);
	uint16_t flags;

	(void)reader_u8(r);
	*ret_size = reader_u16_be(r);
	p->id = reader_u16_be(r);
	flags = reader_u16_be(r);
	(void)reader_u8(r);
	p->protocol = reader_u8(r);
	(void)reader_u16_be(r);
	p->from = reader_u32_be(r);
	p->to = reader_u32_be(r);
	if (r->failed || version_ihl >> 4 != 4 || *ret_size < IP4_HEADER)
		return -EBADMSG;
	if (version_ihl != IP4_VERSION_IHL)
		return -EPROTONOSUPPORT;
	*ret_offset = (size_t)(flags & IP4_OFFSET) * 8;
	p->first = *ret_offset == 0;
	p->fragmented = !p->first || flags & IP4_MORE;
	return 0;
}

static int parse_ip4(struct reader *r, struct frame *f)
{
	size_t size, offset;
	int ret = parse_ip4_header(r, &f->ip, &size, &offset);

	if (ret < 0)
		return ret;
	if (size - IP4_HEADER > r->left)
		return -EBADMSG;
	r->left = size - IP4_HEADER;
	f->size = ETHERNET_HEADER + size;
	if (f->ip.first)
		return parse_transport(r, &f->ip);
	/* A later fragment may not lie over the header on which the first was judged. */
	if (offset < TCP_HEADER || offset + r->left > UINT16_MAX)
		return -EBADMSG;
	return 0;
}

int frame_parse(uint8_t *bytes, size_t n, struct frame *ret)
{
	struct reader r = reader_init(bytes, n);
	struct frame f = {.bytes = bytes};
	int error;

	f.to = read_mac(&r);
	f.from = read_mac(&r);
	f.type = reader_u16_be(&r);
	if (r.failed)
		return -EBADMSG;
	if (f.type == ETHERTYPE_ARP)
		error = parse_arp(&r, &f);
	else if (f.type == ETHERTYPE_IP4)
		error = parse_ip4(&r, &f);
	else
		error = -EPROTONOSUPPORT;
	if (error == 0)
		*ret = f;
	return error;
}

int frame_parse_icmp_error(const struct packet *icmp, struct packet *ret)
{
	struct reader r = reader_init(icmp->payload, icmp->payload_size);
	struct packet p = {0};
	size_t size, offset;

	if (icmp->protocol != PROTOCOL_ICMP || !icmp->first ||
		(icmp->icmp_type != ICMP_UNREACHABLE && icmp->icmp_type != ICMP_TIME_EXCEED &&
			icmp->icmp_type != ICMP_PARAMETER))
		return -EBADMSG;
	if (parse_ip4_header(&r, &p, &size, &offset) < 0 || !p.first)
		return -EBADMSG;
	if (p.protocol == PROTOCOL_TCP || p.protocol == PROTOCOL_UDP) {
		p.from_port = reader_u16_be(&r);
		p.to_port = reader_u16_be(&r);
	} else if (p.protocol == PROTOCOL_ICMP) {
		(void)parse_icmp(&r, &p);
	}
	if (r.failed)
		return -EBADMSG;
	*ret = p;
	return 0;
}

void frame_readdress(uint8_t *bytes, struct mac to, struct mac from)
{
	memcpy(bytes, &to, sizeof(to));
	memcpy(bytes + MAC_SIZE, &from, sizeof(from));
}

/* The checksum at `sum` after `before` has become `after`. */
static void mend_checksum(uint8_t *sum, uint32_t before, uint32_t after)
{
	struct reader r = reader_init(sum, 2);
	uint32_t s = (uint16_t)~reader_u16_be(&r);

	before = ~before;
	s += (before >> 16) + (before & 0xffff) + (after >> 16) + (after & 0xffff);
	put_u16_be(sum, inet_checksum(s));
}

/* at: where in the frame the address is. */
static void set_address(struct frame *f, size_t at, uint32_t before, uint32_t after)
{
	uint8_t *ip = f->bytes + ETHERNET_HEADER, *transport = ip + IP4_HEADER;

	put_u32_be(f->bytes + at, after);
	mend_checksum(ip + 10, before, after);
	if (!f->ip.first)
		return;
	/* The addresses are part of TCP's and UDP's own sums; 0 is UDP's "none". */
	if (f->ip.protocol == PROTOCOL_TCP)
		mend_checksum(transport + 16, before, after);
	else if (f->ip.protocol == PROTOCOL_UDP && (transport[6] | transport[7]) != 0)
		mend_checksum(transport + 6, before, after);
}

void frame_set_source(struct frame *f, uint32_t ip)
{
	set_address(f, ETHERNET_HEADER + 12, f->ip.from, ip);
	f->ip.from = ip;
}

void frame_set_destination(struct frame *f, uint32_t ip)
{
	set_address(f, ETHERNET_HEADER + 16, f->ip.to, ip);
	f->ip.to = ip;
}

uint32_t inet_sum(const void *bytes, size_t n, uint32_t sum)
{
	const uint8_t *b = bytes;

	for (size_t i = 0; i + 1 < n; i += 2)
		sum += (uint32_t)b[i] << 8 | b[i + 1];
	if (n & 1)
		sum += (uint32_t)b[n - 1] << 8;
	/* Folded each time, so that sums may be continued without end. */
	return (sum & 0xffff) + (sum >> 16);
}

uint16_t inet_checksum(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

size_t frame_arp_reply(uint8_t *out, struct mac mac, uint32_t ip, struct mac to, uint32_t to_ip)
{
	uint8_t *arp = out + ETHERNET_HEADER;

	frame_readdress(out, to, mac);
	put_u16_be(out + 12, ETHERTYPE_ARP);
	put_u16_be(arp, ARP_ETHERNET);
	put_u16_be(arp + 2, ETHERTYPE_IP4);
	arp[4] = MAC_SIZE;
	arp[5] = 4;
	put_u16_be(arp + 6, ARP_REPLY);
	memcpy(arp + 8, &mac, sizeof(mac));
	put_u32_be(arp + 14, ip);
	memcpy(arp + 18, &to, sizeof(to));
	put_u32_be(arp + 24, to_ip);
	return ETHERNET_HEADER + ARP_SIZE;
}

/* Ethernet and IPv4 headers before n bytes of transport. */
static void put_headers(uint8_t *out, const struct endpoint *from, const struct endpoint *to,
	uint8_t protocol, size_t n)
{
	uint8_t *ip = out + ETHERNET_HEADER;

	frame_readdress(out, to->mac, from->mac);
	put_u16_be(out + 12, ETHERTYPE_IP4);
	memset(ip, 0, IP4_HEADER);
	ip[0] = IP4_VERSION_IHL;
	put_u16_be(ip + 2, (uint16_t)(IP4_HEADER + n));
	put_u16_be(ip + 6, IP4_DONT_FRAGMENT);
	ip[8] = IP4_TTL;
	ip[9] = protocol;
	put_u32_be(ip + 12, from->ip);
	put_u32_be(ip + 16, to->ip);
	put_u16_be(ip + 10, inet_checksum(inet_sum(ip, IP4_HEADER, 0)));
}

size_t frame_udp(uint8_t *out, const struct endpoint *from, const struct endpoint *to, size_t n)
{
	uint8_t *ip = out + ETHERNET_HEADER, *udp = ip + IP4_HEADER;
	uint16_t checksum;

	put_headers(out, from, to, PROTOCOL_UDP, UDP_HEADER + n);
	put_u16_be(udp, from->port);
	put_u16_be(udp + 2, to->port);
	put_u16_be(udp + 4, (uint16_t)(UDP_HEADER + n));
	put_u16_be(udp + 6, 0);
	/* The pseudo header: both addresses, the protocol, the length. */
	checksum = inet_checksum(inet_sum(udp, UDP_HEADER + n,
		inet_sum(ip + 12, 8, PROTOCOL_UDP + (uint32_t)(UDP_HEADER + n))));
	put_u16_be(udp + 6, checksum ? checksum : UINT16_MAX);
	return FRAME_UDP_OVERHEAD + n;
}

size_t frame_too_big(uint8_t *out, const struct frame *frame, struct mac router, uint32_t router_ip,
	uint16_t mtu)
{
	const struct endpoint from = {.mac = router, .ip = router_ip};
	const struct endpoint to = {.mac = frame->from, .ip = frame->ip.from};
	uint8_t *icmp = out + ETHERNET_HEADER + IP4_HEADER;
	/* What RFC 792 quotes: the header and 8 bytes; frame_parse() saw to their presence. */
	const size_t quoted = IP4_HEADER + 8;

	memset(icmp, 0, ICMP_HEADER);
	icmp[0] = ICMP_UNREACHABLE;
	icmp[1] = ICMP_FRAG_NEEDED;
	put_u16_be(icmp + 6, mtu);
	memcpy(icmp + ICMP_HEADER, frame->bytes + ETHERNET_HEADER, quoted);
	put_u16_be(icmp + 2, inet_checksum(inet_sum(icmp, ICMP_HEADER + quoted, 0)));
	put_headers(out, &from, &to, PROTOCOL_ICMP, ICMP_HEADER + quoted);
	return FRAME_TOO_BIG_SIZE;
}
