/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ethernet frames: what arrives is taken apart once, with every length checked, into struct frame,
 * and everything above looks at that only; what is sent by the switch itself is built here.
 *
 * Supported: ARP for IPv4 over Ethernet, and IPv4 without options (with them a guest could route
 * by source, and nothing else in use needs them). Checksums of what is passed on are the end
 * points' business.
 */
#ifndef SOSIE_CORE_NET_FRAME_H
#define SOSIE_CORE_NET_FRAME_H

#include "core/net/addr.h"

#define ETHERNET_HEADER 14
#define ARP_SIZE        28
#define IP4_HEADER      20
#define UDP_HEADER      8
#define FRAME_MTU_MAX   9216 /* of a guest */
#define FRAME_MAX       (ETHERNET_HEADER + FRAME_MTU_MAX)
/* Headers of a frame that frame_udp() builds. */
#define FRAME_UDP_OVERHEAD (ETHERNET_HEADER + IP4_HEADER + UDP_HEADER)

#define ETHERTYPE_IP4 0x0800
#define ETHERTYPE_ARP 0x0806

#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP  6
#define PROTOCOL_UDP  17

#define ARP_REQUEST 1
#define ARP_REPLY   2

#define ICMP_ECHO_REPLY  0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO        8
#define ICMP_TIME_EXCEED 11
#define ICMP_PARAMETER   12
#define ICMP_FRAG_NEEDED 4 /* code of ICMP_UNREACHABLE */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* The end points of an IPv4 packet; ICMP's identifier stands in both ports. */
struct packet {
	uint32_t from, to;
	uint8_t protocol;
	bool first;      /* not a later fragment, so that the ports are known */
	bool fragmented; /* one of several, the first included */
	uint16_t id;     /* of the datagram, which its fragments share */
	uint16_t from_port, to_port;
	uint8_t tcp_flags;
	uint8_t icmp_type, icmp_code;
	const uint8_t *payload; /* behind the TCP (options included), UDP or ICMP header */
	size_t payload_size;
};

struct frame {
	uint8_t *bytes; /* those given to frame_parse() */
	size_t size;    /* up to the end of the packet: padding is cut off */
	struct mac to, from;
	uint16_t type; /* ETHERTYPE_IP4 or ETHERTYPE_ARP */
	struct packet ip;
	struct {
		uint16_t operation;
		struct mac sender_mac;
		uint32_t sender_ip, target_ip;
	} arp;
};

/*
 * -EPROTONOSUPPORT when it is neither ARP nor IPv4, or IPv4 with options; -EBADMSG when it is
 * malformed: a length that does not fit, a first fragment too short for its ports, a later one
 * that would overwrite them.
 */
int frame_parse(uint8_t *bytes, size_t n, struct frame *ret);
/*
 * The packet inside an ICMP error, of which only IPv4's header and 8 bytes must be there.
 * -EBADMSG when icmp is no error, or there is no such packet.
 */
int frame_parse_icmp_error(const struct packet *icmp, struct packet *ret);

/* Writes the addresses of a frame about to be passed on. */
void frame_readdress(uint8_t *bytes, struct mac to, struct mac from);

/* Replaces an IPv4 packet's source or destination address, and mends the checksums (RFC 1624). */
void frame_set_source(struct frame *f, uint32_t ip);
void frame_set_destination(struct frame *f, uint32_t ip);

/* RFC 1071: the ones' complement sum over n bytes, continuing with `sum` (begin with 0). */
uint32_t inet_sum(const void *bytes, size_t n, uint32_t sum);
uint16_t inet_checksum(uint32_t sum);

/* Says that `ip` is at `mac`. Returns the frame's size; out: ETHERNET_HEADER + ARP_SIZE. */
size_t frame_arp_reply(uint8_t *out, struct mac mac, uint32_t ip, struct mac to, uint32_t to_ip);

struct endpoint {
	struct mac mac;
	uint32_t ip;
	uint16_t port;
};

/*
 * Puts headers before a payload of n bytes that is already at out + FRAME_UDP_OVERHEAD, and
 * returns the frame's size.
 */
size_t frame_udp(uint8_t *out, const struct endpoint *from, const struct endpoint *to, size_t n);

/*
 * "Fragmentation needed" (RFC 1191) about `frame`, from the router, to be sent to the frame's
 * sender. Returns its size; out: FRAME_TOO_BIG_SIZE bytes.
 */
#define FRAME_TOO_BIG_SIZE (ETHERNET_HEADER + IP4_HEADER + 8 + IP4_HEADER + 8)
size_t frame_too_big(uint8_t *out, const struct frame *frame, struct mac router, uint32_t router_ip,
	uint16_t mtu);

#endif
