/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IPv4 networks of tenants: which address goes to whom. Pure. Addresses are in host byte order.
 */
#ifndef SOSIE_CORE_PLATFORM_ADDRESSES_H
#define SOSIE_CORE_PLATFORM_ADDRESSES_H

#include <stdbool.h>

#include "base/err.h"

/* Largest and smallest tenant network: 65534 and 6 addresses. */
#define SUBNET_PREFIX_MIN 16
#define SUBNET_PREFIX_MAX 29
#define IPV4_TEXT_SIZE    16
#define SUBNET_TEXT_SIZE  19

struct subnet {
	uint32_t network; /* without host bits */
	unsigned int prefix;
};

/* "10.0.0.0/24"; host bits must be zero. -EINVAL. */
int subnet_parse(const char *text, struct subnet *ret);
/* "10.0.0.5" */
int ipv4_parse(const char *text, uint32_t *ret);
void ipv4_format(uint32_t address, char out[IPV4_TEXT_SIZE]);
bool subnet_contains(const struct subnet *c, uint32_t address);

/* Whether a tenant may have it as a network: private (RFC 1918) and of a size within bounds. */
int subnet_check_tenant(const char *text, struct subnet *ret, struct err *e);
/* The gateway has the first address. */
uint32_t subnet_gateway(const struct subnet *c);

/* A network's addresses in use. */
struct address_pool {
	struct subnet cidr;
	uint8_t *used; /* a bit each */
};

/* With network, gateway and broadcast address taken. -ENOMEM. */
int address_pool_init(struct address_pool *pool, const struct subnet *c);
void address_pool_free(struct address_pool *pool);
#define CLEANUP_POOL CLEANUP(address_pool_free)
/* -EEXIST when it is taken, -EINVAL when it is outside. */
int address_pool_take(struct address_pool *pool, uint32_t address);
/* Takes the lowest free one. -ENOSPC. */
int address_pool_next(struct address_pool *pool, uint32_t *ret);

#endif
