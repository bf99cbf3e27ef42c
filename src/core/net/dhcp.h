/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DHCP server's messages (RFC 2131, 2132). There is no pool: the NIC that asks has one
 * address, assigned by the control plane, and is told it or refused another.
 */
#ifndef SOSIE_CORE_NET_DHCP_H
#define SOSIE_CORE_NET_DHCP_H

#include "core/net/addr.h"

#define DHCP_SERVER_PORT 67
#define DHCP_CLIENT_PORT 68
#define DHCP_MESSAGE_MAX 548 /* what every client must accept (RFC 2132, 9.10) */
#define DHCP_DNS_MAX     3

enum dhcp_type {
	DHCP_DISCOVER = 1,
	DHCP_OFFER,
	DHCP_REQUEST,
	DHCP_DECLINE,
	DHCP_ACK,
	DHCP_NAK,
	DHCP_RELEASE,
	DHCP_INFORM,
};

struct dhcp_request {
	uint8_t type; /* enum dhcp_type */
	uint32_t transaction;
	uint16_t flags;
	uint32_t client_ip; /* ciaddr: the address that the client has already */
	struct mac client;
	uint32_t requested; /* 0: none */
	uint32_t server;    /* 0: none */
};

struct dhcp_lease {
	uint32_t ip, mask, router;
	uint32_t server; /* this server's own address */
	uint32_t dns[DHCP_DNS_MAX];
	size_t dns_count;
	const char *hostname; /* NULL or "": none */
	const char *domain;
	uint32_t seconds;
	uint16_t mtu;
};

/* -EBADMSG when it is no well-formed request of an Ethernet client. */
int dhcp_parse(const void *bytes, size_t n, struct dhcp_request *ret);
/* What to answer: DHCP_OFFER, DHCP_ACK, DHCP_NAK, or 0 for nothing. */
uint8_t dhcp_decide(const struct dhcp_request *q, const struct dhcp_lease *lease);
/* Writes the answer. Returns its size. */
size_t dhcp_answer(uint8_t out[DHCP_MESSAGE_MAX], const struct dhcp_request *q, uint8_t type,
	const struct dhcp_lease *lease);
/* Whether the answer goes to everybody on the link, because the client has no address yet. */
bool dhcp_is_broadcast(const struct dhcp_request *q, uint8_t type);

#endif
