/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"

#include <stdbool.h>
#include <string.h>

#include "base/reader.h"

static inline uint64_t rotl64(uint64_t x, unsigned int n)
{
	return x << n | x >> (64 - n);
}

static uint64_t load_u64(const uint8_t *p)
{
	struct reader r = reader_init(p, 8);

	return reader_u64(&r);
}

static void sip_rounds(uint64_t v[4], int rounds)
{
	while (rounds-- > 0) {
		v[0] += v[1];
		v[1] = rotl64(v[1], 13) ^ v[0];
		v[0] = rotl64(v[0], 32);
		v[2] += v[3];
		v[3] = rotl64(v[3], 16) ^ v[2];
		v[0] += v[3];
		v[3] = rotl64(v[3], 21) ^ v[0];
		v[2] += v[1];
		v[1] = rotl64(v[1], 17) ^ v[2];
		v[2] = rotl64(v[2], 32);
	}
}

static void sip_block(uint64_t v[4], uint64_t m)
{
	v[3] ^= m;
	sip_rounds(v, 2);
	v[0] ^= m;
}

void siphash128(const uint8_t key[16], const void *bytes, size_t n, uint8_t out[16])
{
	const uint64_t k0 = load_u64(key), k1 = load_u64(key + 8);
	uint64_t v[4] = {
		0x736f6d6570736575ULL ^ k0,
		0x646f72616e646f6dULL ^ k1 ^ 0xee,
		0x6c7967656e657261ULL ^ k0,
		0x7465646279746573ULL ^ k1,
	};
	const uint8_t *in = bytes;
	uint8_t tail[8] = {0};
	size_t i;

	for (i = 0; i + 8 <= n; i += 8)
		sip_block(v, load_u64(in + i));
	if (n > i)
		memcpy(tail, in + i, n - i);
	tail[7] = (uint8_t)n;
	sip_block(v, load_u64(tail));
	v[2] ^= 0xee;
	sip_rounds(v, 4);
	put_u64(out, v[0] ^ v[1] ^ v[2] ^ v[3]);
	v[1] ^= 0xdd;
	sip_rounds(v, 4);
	put_u64(out + 8, v[0] ^ v[1] ^ v[2] ^ v[3]);
}

/* One table entry: the CRC of a single byte, reflected polynomial 0x82f63b78. */
static uint32_t crc_byte(uint32_t x)
{
	for (int bit = 0; bit < 8; bit++)
		x = x & 1 ? x >> 1 ^ 0x82f63b78u : x >> 1;
	return x;
}

uint32_t crc32c(uint32_t crc, const void *bytes, size_t n)
{
	/* Half-byte table: small enough to be made on the stack, no initialisation order to mind.
	 */
	uint32_t low[16], high[16];
	const uint8_t *in = bytes;

	for (uint32_t i = 0; i < 16; i++) {
		low[i] = crc_byte(i);
		high[i] = crc_byte(i << 4);
	}
	crc = ~crc;
	for (size_t i = 0; i < n; i++) {
		uint32_t x = (crc ^ in[i]) & 0xff;

		crc = crc >> 8 ^ low[x & 15] ^ high[x >> 4];
	}
	return ~crc;
}
