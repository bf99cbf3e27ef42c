/* SPDX-License-Identifier: Apache-2.0 */
#include "core/platform/addresses.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

static uint32_t mask(const struct subnet *c)
{
	return c->prefix == 0 ? 0 : UINT32_MAX << (32 - c->prefix);
}

int ipv4_parse(const char *text, uint32_t *ret)
{
	uint32_t address = 0;

	for (unsigned int i = 0; i < 4; i++) {
		size_t n = strcspn(text, ".");
		char part[4];
		uint64_t byte;

		/* No leading zeros: some would read them as octal. */
		if (n < 1 || n > 3 || (n > 1 && text[0] == '0'))
			return -EINVAL;
		memcpy(part, text, n);
		part[n] = '\0';
		if (parse_u64(part, 255, &byte) < 0 || text[n] != (i < 3 ? '.' : '\0'))
			return -EINVAL;
		address = address << 8 | (uint32_t)byte;
		text += n + (i < 3);
	}
	*ret = address;
	return 0;
}

void ipv4_format(uint32_t a, char out[IPV4_TEXT_SIZE])
{
	(void)snprintf(
		out, IPV4_TEXT_SIZE, "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
}

int subnet_parse(const char *text, struct subnet *ret)
{
	size_t n = strcspn(text, "/");
	char address[IPV4_TEXT_SIZE];
	struct subnet c;
	uint64_t prefix;

	if (n >= sizeof(address) || text[n] != '/')
		return -EINVAL;
	memcpy(address, text, n);
	address[n] = '\0';
	if (ipv4_parse(address, &c.network) < 0 || parse_u64(text + n + 1, 32, &prefix) < 0)
		return -EINVAL;
	c.prefix = (unsigned int)prefix;
	if ((c.network & ~mask(&c)) != 0)
		return -EINVAL;
	*ret = c;
	return 0;
}

bool subnet_contains(const struct subnet *c, uint32_t address)
{
	return (address & mask(c)) == c->network;
}

int subnet_check_tenant(const char *text, struct subnet *ret, struct err *e)
{
	static const struct subnet private[] = {
		{0x0a000000, 8}, {0xac100000, 12}, {0xc0a80000, 16}};
	struct subnet c;

	if (subnet_parse(text, &c) < 0) {
		(void)err_set(e, ERR_INVALID, "'%s' is no IPv4 network", text);
		return err_hint(e, "write it like 10.0.0.0/24, with no bits behind the prefix");
	}
	if (c.prefix < SUBNET_PREFIX_MIN || c.prefix > SUBNET_PREFIX_MAX)
		return err_set(e, ERR_INVALID, "a network has a prefix from /%d to /%d, not /%u",
			SUBNET_PREFIX_MIN, SUBNET_PREFIX_MAX, c.prefix);
	for (size_t i = 0; i < ARRAY_SIZE(private); i++)
		if (c.prefix >= private[i].prefix && subnet_contains(&private[i], c.network)) {
			*ret = c;
			return 0;
		}
	(void)err_set(e, ERR_INVALID, "%s is not private", text);
	return err_hint(e, "choose from 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16");
}

uint32_t subnet_gateway(const struct subnet *c)
{
	return c->network + 1;
}

int address_pool_init(struct address_pool *pool, const struct subnet *c)
{
	assert(c->prefix >= SUBNET_PREFIX_MIN && c->prefix <= SUBNET_PREFIX_MAX);
	pool->cidr = *c;
	pool->used = calloc((1U << (32 - c->prefix)) / 8, 1);
	if (!pool->used)
		return -ENOMEM;
	(void)address_pool_take(pool, c->network);
	(void)address_pool_take(pool, subnet_gateway(c));
	(void)address_pool_take(pool, c->network | ~mask(c));
	return 0;
}

void address_pool_free(struct address_pool *pool)
{
	free(pool->used);
	pool->used = NULL;
}

int address_pool_take(struct address_pool *pool, uint32_t address)
{
	uint32_t i = address - pool->cidr.network;
	uint8_t bit = (uint8_t)(1U << (i % 8));

	if (!subnet_contains(&pool->cidr, address))
		return -EINVAL;
	if (pool->used[i / 8] & bit)
		return -EEXIST;
	pool->used[i / 8] |= bit;
	return 0;
}

int address_pool_next(struct address_pool *pool, uint32_t *ret)
{
	uint32_t n = 1U << (32 - pool->cidr.prefix);

	for (uint32_t i = 0; i < n; i++) {
		if (address_pool_take(pool, pool->cidr.network + i) == 0) {
			*ret = pool->cidr.network + i;
			return 0;
		}
	}
	return -ENOSPC;
}
