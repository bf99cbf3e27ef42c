/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ethernet and IPv4 addresses. An IPv4 address is a uint32_t in host byte order everywhere but in
 * bytes on a wire. Parsers take the whole string and return -EINVAL when it is anything else.
 */
#ifndef SOSIE_CORE_NET_ADDR_H
#define SOSIE_CORE_NET_ADDR_H

#include <stdbool.h>
#include <string.h>

#include "base/macro.h"

#define MAC_SIZE 6
#define MAC_TEXT 18 /* "52:54:00:12:34:56" and its NUL */
#define IP4_TEXT 16 /* "255.255.255.255" and its NUL */

struct mac {
	uint8_t byte[MAC_SIZE];
};

static_assert(sizeof(struct mac) == MAC_SIZE, "copied to and from wires as it is");

struct cidr {
	uint32_t network, mask;
};

#define IP4(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (d))
#define IP4_BROADCAST   UINT32_MAX
#define CIDR_ANY        ((struct cidr){0, 0})

static inline bool mac_equal(struct mac a, struct mac b)
{
	return memcmp(&a, &b, sizeof(a)) == 0;
}

static inline bool cidr_contains(struct cidr c, uint32_t ip)
{
	return (ip & c.mask) == c.network;
}

/* Hexadecimal pairs with colons, of one station: no group address, not all zero. */
int mac_parse(const char *text, struct mac *ret);
void mac_format(struct mac mac, char out[MAC_TEXT]);
int ip4_parse(const char *text, uint32_t *ret);
void ip4_format(uint32_t ip, char out[IP4_TEXT]);
/* "10.0.0.0/8", the bits behind the prefix being zero. */
int cidr_parse(const char *text, struct cidr *ret);
/* "80" or "8000-8080". */
int port_range_parse(const char *text, uint16_t *ret_first, uint16_t *ret_last);

#endif
