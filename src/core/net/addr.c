/* SPDX-License-Identifier: Apache-2.0 */
#include "core/net/addr.h"

#include <errno.h>
#include <stdio.h>

#include "base/str.h"

int mac_parse(const char *text, struct mac *ret)
{
	struct mac mac;

	if (strlen(text) != MAC_TEXT - 1)
		return -EINVAL;
	for (size_t i = 0; i < MAC_SIZE; i++) {
		char pair[3] = {text[3 * i], text[3 * i + 1], '\0'};

		if (text[3 * i + 2] != (i < MAC_SIZE - 1 ? ':' : '\0') ||
			hex_decode(pair, &mac.byte[i], 1) < 0)
			return -EINVAL;
	}
	if (mac.byte[0] & 1 || mac_equal(mac, (struct mac){0}))
		return -EINVAL;
	*ret = mac;
	return 0;
}

void mac_format(struct mac mac, char out[MAC_TEXT])
{
	const uint8_t *b = mac.byte;

	(void)snprintf(
		out, MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
}

/* Copies text up to the first `end` into out, so that parse_u64() can have it. */
static const char *take_number(const char *text, char end, char *out, size_t size)
{
	const char *stop = strchr(text, end);
	size_t n = stop ? (size_t)(stop - text) : size;

	if (n >= size)
		return NULL;
	memcpy(out, text, n);
	out[n] = '\0';
	return stop + 1;
}

int ip4_parse(const char *text, uint32_t *ret)
{
	uint32_t ip = 0;

	for (int i = 0; i < 4; i++) {
		char digits[4];
		uint64_t v = 0;

		text = take_number(text, i < 3 ? '.' : '\0', digits, sizeof(digits));
		/* A leading zero means octal to some readers, so it means nothing here. */
		if (!text || parse_u64(digits, UINT8_MAX, &v) < 0 ||
			(digits[0] == '0' && digits[1] != '\0'))
			return -EINVAL;
		ip = ip << 8 | (uint32_t)v;
	}
	*ret = ip;
	return 0;
}

void ip4_format(uint32_t ip, char out[IP4_TEXT])
{
	(void)snprintf(
		out, IP4_TEXT, "%u.%u.%u.%u", ip >> 24, ip >> 16 & 0xff, ip >> 8 & 0xff, ip & 0xff);
}

int cidr_parse(const char *text, struct cidr *ret)
{
	char address[IP4_TEXT];
	struct cidr c = {0};
	uint64_t bits = 0;

	text = take_number(text, '/', address, sizeof(address));
	if (!text || ip4_parse(address, &c.network) < 0 || parse_u64(text, 32, &bits) < 0)
		return -EINVAL;
	c.mask = bits == 0 ? 0 : UINT32_MAX << (32 - bits);
	if (c.network & ~c.mask)
		return -EINVAL;
	*ret = c;
	return 0;
}

int port_range_parse(const char *text, uint16_t *ret_first, uint16_t *ret_last)
{
	char digits[6];
	uint64_t first = 0, last = 0;
	const char *rest = take_number(text, '-', digits, sizeof(digits));

	if (parse_u64(rest ? digits : text, UINT16_MAX, &first) < 0)
		return -EINVAL;
	last = first;
	if (rest && parse_u64(rest, UINT16_MAX, &last) < 0)
		return -EINVAL;
	if (first > last)
		return -EINVAL;
	*ret_first = (uint16_t)first;
	*ret_last = (uint16_t)last;
	return 0;
}
