/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ARP, DHCP and the network's own names: answered here from the mapping, so that none of it ever
 * reaches another guest.
 */
#include <strings.h>

#include "core/net/dhcp.h"
#include "core/net/dns.h"
#include "switch/network.h"

/* Whose Ethernet address stands for ip, seen from this NIC. */
static bool resolve(const struct network *n, const struct nic *nic, uint32_t ip, struct mac *ret)
{
	const struct port *port;

	if (ip == n->config->gateway || ip == METADATA_IP || ip == RESOLVER_IP) {
		*ret = n->router;
		return true;
	}
	port = config_find(n->config, ip);
	/* For its own address there is silence: nobody else has it. */
	if (!port || ip == nic->ip)
		return false;
	*ret = port->mac;
	return true;
}

void service_arp(const struct network *n, struct nic *nic, const struct frame *f)
{
	uint8_t out[ETHERNET_HEADER + ARP_SIZE];
	struct mac mac;

	if (!mac_equal(f->arp.sender_mac, nic->mac)) {
		nic->counters.spoofed_mac++;
		return;
	}
	/* 0.0.0.0 asks whether an address is in use (RFC 5227). */
	if (f->arp.sender_ip != nic->ip && f->arp.sender_ip != 0) {
		nic->counters.spoofed_ip++;
		return;
	}
	nic->counters.services++;
	if (f->arp.operation != ARP_REQUEST || !resolve(n, nic, f->arp.target_ip, &mac))
		return;
	nic_send(nic, out, frame_arp_reply(out, mac, f->arp.target_ip, nic->mac, f->arp.sender_ip));
}

static void fill_lease(const struct network *n, const struct nic *nic, struct dhcp_lease *lease)
{
	const struct config *c = n->config;
	const struct port *port = config_find(c, nic->ip);

	*lease = (struct dhcp_lease){.ip = nic->ip,
		.mask = c->cidr.mask,
		.router = c->gateway,
		.server = c->gateway,
		.dns = {RESOLVER_IP},
		.dns_count = 1,
		.hostname = port ? port->hostname : "",
		.domain = c->domain,
		.seconds = LEASE_SECONDS,
		.mtu = c->mtu};
	for (size_t i = 0; i < c->dns_count; i++)
		lease->dns[i] = c->dns[i];
	lease->dns_count = MAX(c->dns_count, (size_t)1);
}

bool service_dhcp(const struct network *n, struct nic *nic, const struct frame *f)
{
	const struct packet *p = &f->ip;
	struct endpoint from = {
		.mac = n->router, .ip = n->config->gateway, .port = DHCP_SERVER_PORT};
	struct endpoint to = {.mac = nic->mac, .ip = nic->ip, .port = DHCP_CLIENT_PORT};
	uint8_t out[FRAME_UDP_OVERHEAD + DHCP_MESSAGE_MAX], type;
	struct dhcp_request q;
	struct dhcp_lease lease;

	if (p->protocol != PROTOCOL_UDP || p->fragmented || p->from_port != DHCP_CLIENT_PORT ||
		p->to_port != DHCP_SERVER_PORT || (p->from != 0 && p->from != nic->ip) ||
		(p->to != IP4_BROADCAST && p->to != n->config->gateway))
		return false;
	/* A relay's or another station's request is nothing that a NIC has to send. */
	if (dhcp_parse(p->payload, p->payload_size, &q) < 0 || !mac_equal(q.client, nic->mac)) {
		nic->counters.malformed++;
		return true;
	}
	fill_lease(n, nic, &lease);
	type = dhcp_decide(&q, &lease);
	if (type == 0)
		return true;
	if (dhcp_is_broadcast(&q, type)) {
		to.ip = IP4_BROADCAST;
		memset(&to.mac, 0xff, sizeof(to.mac));
	}
	nic_send(nic, out,
		frame_udp(
			out, &from, &to, dhcp_answer(out + FRAME_UDP_OVERHEAD, &q, type, &lease)));
	return true;
}

/* Whether the name is one of the network's: the host name, with or without the domain. */
static const struct port *find_name(const struct config *c, const char *name)
{
	const char *dot = strchr(name, '.');
	size_t n = dot ? (size_t)(dot - name) : strlen(name);

	if (dot && strcasecmp(dot + 1, c->domain) != 0)
		return NULL;
	for (size_t i = 0; i < c->port_count; i++)
		if (strlen(c->port[i].hostname) == n &&
			strncasecmp(c->port[i].hostname, name, n) == 0)
			return &c->port[i];
	return NULL;
}

/* In the network's domain, whether there is such a name or not. */
static bool is_in_domain(const struct config *c, const char *name)
{
	size_t n = strlen(name), domain = strlen(c->domain);

	return domain > 0 && n >= domain && strcasecmp(name + n - domain, c->domain) == 0 &&
	       (n == domain || name[n - domain - 1] == '.');
}

bool service_dns(const struct network *n, struct nic *nic, const struct frame *f)
{
	const struct packet *p = &f->ip;
	const struct endpoint from = {.mac = n->router, .ip = p->to, .port = DNS_PORT};
	const struct endpoint to = {.mac = nic->mac, .ip = nic->ip, .port = p->from_port};
	uint8_t out[FRAME_UDP_OVERHEAD + DNS_ANSWER_MAX];
	const struct port *port;
	struct dns_query q;
	uint32_t ip;

	if (p->protocol != PROTOCOL_UDP || p->fragmented ||
		dns_parse(p->payload, p->payload_size, &q) < 0 || q.class != DNS_CLASS_IN)
		return false;
	port = find_name(n->config, q.name);
	if (!port && !is_in_domain(n->config, q.name))
		return false;
	ip = port && q.type == DNS_TYPE_A ? port->ip : 0;
	nic_send(nic, out,
		frame_udp(out, &from, &to,
			dns_answer(out + FRAME_UDP_OVERHEAD, &q, ip, port != NULL)));
	return true;
}

void service_too_big(const struct network *n, struct nic *nic, const struct frame *f)
{
	uint8_t out[FRAME_TOO_BIG_SIZE];

	nic_send(nic, out, frame_too_big(out, f, n->router, n->config->gateway, n->config->mtu));
}
