/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where each frame goes.
 *
 * The mapping alone decides: frames go by their IP destination to the one NIC that has it, nothing
 * is learned from traffic, and nothing is flooded. Broadcasts are answered by the switch's own
 * services or dropped. So a guest sees its own traffic only, and can make up nobody's address.
 *
 *                     ┌─ ARP, DHCP, own names ─> service.c
 *   NIC ─> checks ────┼─ 169.254.169.254 ──────> the NIC's own stack (metadata.c)
 *          (is it us?)├─ 169.254.169.253 ──────> outside (the resolver's address)
 *                     └─ may it go out? ───┬───> NIC here ── may it come in? ──> queued
 *                                          ├───> tunnel ~~ other host: may it come in?
 *                                          └───> outside
 *
 * A frame from the tunnel is checked against the mapping like one from a NIC: it must come from
 * the host that its sender's address is on. Which security groups let out was judged there.
 */
#include <errno.h>
#include <time.h>

#include "core/net/dns.h"
#include "switch/metadata.h"
#include "switch/network.h"

/* Who may deliver to a NIC, as far as the security group is concerned. */
enum origin {
	ORIGIN_NETWORK,
	ORIGIN_OUTSIDE,
	ORIGIN_SERVICE, /* the switch's own: never asked */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

static void deliver(const struct network *n, struct nic *to, const struct frame *f, struct mac from,
	enum origin origin)
{
	if (f->size > (size_t)n->config->mtu + ETHERNET_HEADER) {
		to->counters.too_big++;
		return;
	}
	if (origin != ORIGIN_SERVICE &&
		!connections_pass(to->connections, &n->config->rules, DIRECTION_IN,
			origin == ORIGIN_OUTSIDE, &f->ip, now_ns())) {
		to->counters.denied_in++;
		return;
	}
	frame_readdress(f->bytes, to->mac, from);
	nic_send(to, f->bytes, f->size);
}

static bool is_group_address(uint32_t ip, const struct config *c)
{
	return ip >= IP4(224, 0, 0, 0) || ip == (c->cidr.network | ~c->cidr.mask) ||
	       ip == c->cidr.network;
}

/* What must never be asked of the host's own IP stack on a guest's behalf. */
static bool is_forbidden(uint32_t ip, const struct config *c)
{
	static const struct cidr always[] = {
		{IP4(0, 0, 0, 0), IP4(255, 0, 0, 0)},
		{IP4(127, 0, 0, 0), IP4(255, 0, 0, 0)},
		{IP4(169, 254, 0, 0), IP4(255, 255, 0, 0)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(always); i++)
		if (cidr_contains(always[i], ip))
			return true;
	for (size_t i = 0; i < c->forbidden_count; i++)
		if (cidr_contains(c->forbidden[i], ip))
			return true;
	return false;
}

/* Whether the packet could make the way out open one more socket. */
static bool may_open(const struct packet *p)
{
	return p->protocol != PROTOCOL_TCP || (p->first && p->tcp_flags & TCP_SYN);
}

/*
 * Fragments stay here: libslirp 4.7.0's reassembly can be made to follow a pointer of the guest's
 * choice, and the guest has been told an MTU with which nothing need be fragmented.
 */
static void send_outside(const struct network *n, struct nic *nic, const struct frame *f)
{
	if (f->ip.fragmented)
		nic->counters.fragmented++;
	else if (!n->outside)
		nic->counters.forbidden++;
	else if (stack_is_full(n->outside) && may_open(&f->ip))
		nic->counters.outside_full++;
	else
		stack_input(n->outside, f->bytes, f->size);
}

static void send_to_metadata(struct nic *nic, const struct frame *f)
{
	if (f->ip.fragmented) {
		nic->counters.fragmented++;
	} else if (f->ip.protocol != PROTOCOL_TCP || f->ip.to_port != METADATA_PORT) {
		nic->counters.forbidden++;
	} else {
		nic->counters.metadata++;
		metadata_input(nic->metadata, f->bytes, f->size);
	}
}

/*
 * The resolver's address leads to port 53 of the host's resolver, and to nothing else there.
 * libslirp sends its answers from where they were asked for only within the network's own range;
 * so there the resolver has the one address that nobody else can have, the network's.
 */
static void send_to_resolver(const struct network *n, struct nic *nic, struct frame *f)
{
	const struct packet *p = &f->ip;

	if (!p->first || (p->protocol != PROTOCOL_UDP && p->protocol != PROTOCOL_TCP) ||
		p->to_port != DNS_PORT) {
		nic->counters.forbidden++;
		return;
	}
	if (service_dns(n, nic, f)) {
		nic->counters.services++;
		return;
	}
	frame_set_destination(f, n->config->cidr.network);
	send_outside(n, nic, f);
}

static void send_to_port(
	const struct network *n, struct nic *nic, const struct frame *f, struct port *port)
{
	/* Also through the router, for guests that believe to be on a network of their own. */
	bool addressed = mac_equal(f->to, port->mac) || mac_equal(f->to, n->router);

	if (addressed && port->attached && port->attached != nic)
		deliver(n, port->attached, f, nic->mac, ORIGIN_NETWORK);
	else if (addressed && port->peer && n->tunnel)
		tunnel_send(n->tunnel, port->peer, f->bytes, f->size);
	else
		nic->counters.unknown_destination++;
}

static void send_on(const struct network *n, struct nic *nic, const struct frame *f)
{
	const struct config *c = n->config;
	uint32_t to = f->ip.to;
	bool inside = cidr_contains(c->cidr, to);
	struct port *port = inside ? config_find(c, to) : NULL;

	if (inside && !port && to != c->gateway) {
		nic->counters.unknown_destination++;
		return;
	}
	if (!inside && is_forbidden(to, c)) {
		nic->counters.forbidden++;
		return;
	}
	if (!connections_pass(
		    nic->connections, &c->rules, DIRECTION_OUT, false, &f->ip, now_ns())) {
		nic->counters.denied_out++;
		return;
	}
	if (port)
		send_to_port(n, nic, f, port);
	else if (mac_equal(f->to, n->router))
		send_outside(n, nic, f);
	else
		nic->counters.unknown_destination++;
}

static void take_ip4(const struct network *n, struct nic *nic, struct frame *f)
{
	if (service_dhcp(n, nic, f)) {
		nic->counters.services++;
	} else if (f->ip.from != nic->ip) {
		nic->counters.spoofed_ip++;
	} else if (f->size > (size_t)n->config->mtu + ETHERNET_HEADER) {
		nic->counters.too_big++;
		service_too_big(n, nic, f);
	} else if (is_group_address(f->ip.to, n->config)) {
		nic->counters.group_address++;
	} else if (f->ip.to == METADATA_IP) {
		send_to_metadata(nic, f);
	} else if (f->ip.to == RESOLVER_IP) {
		send_to_resolver(n, nic, f);
	} else {
		send_on(n, nic, f);
	}
}

void forward_from_nic(struct nic *nic, uint8_t *bytes, size_t size, void *network)
{
	const struct network *n = network;
	struct frame f;
	int r = frame_parse(bytes, size, &f);

	if (r < 0) {
		*(r == -EBADMSG ? &nic->counters.malformed : &nic->counters.unsupported) += 1;
		return;
	}
	if (!mac_equal(f.from, nic->mac)) {
		nic->counters.spoofed_mac++;
		return;
	}
	if (f.type == ETHERTYPE_ARP)
		service_arp(n, nic, &f);
	else
		take_ip4(n, nic, &f);
}

void forward_from_outside(uint8_t *bytes, size_t size, void *network)
{
	struct network *n = network;
	struct frame f;
	struct port *port;

	if (frame_parse(bytes, size, &f) < 0 || f.type != ETHERTYPE_IP4) {
		n->counters.outside_stray++;
		return;
	}
	port = config_find(n->config, f.ip.to);
	if (!port || !port->attached) {
		n->counters.outside_stray++;
		return;
	}
	if (f.ip.from == n->config->cidr.network) {
		frame_set_source(&f, RESOLVER_IP);
		deliver(n, port->attached, &f, n->router, ORIGIN_SERVICE);
	} else {
		deliver(n, port->attached, &f, n->router, ORIGIN_OUTSIDE);
	}
}

void forward_from_tunnel(struct tunnel_peer *peer, uint8_t *bytes, size_t size, void *network)
{
	struct network *n = network;
	const struct port *from, *to;
	struct frame f;

	if (frame_parse(bytes, size, &f) < 0 || f.type != ETHERTYPE_IP4) {
		n->counters.overlay_malformed++;
		return;
	}
	from = config_find(n->config, f.ip.from);
	if (!from || from->peer != peer || from->attached || !mac_equal(f.from, from->mac)) {
		n->counters.overlay_spoofed++;
		return;
	}
	to = config_find(n->config, f.ip.to);
	if (!to || !to->attached) {
		n->counters.overlay_stray++;
		return;
	}
	deliver(n, to->attached, &f, from->mac, ORIGIN_NETWORK);
}
