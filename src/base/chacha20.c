/* SPDX-License-Identifier: Apache-2.0 */
#include "base/chacha20.h"

#include <string.h>

#include "base/reader.h"

/*
 * Four blocks at once, one per lane of a 128-bit vector: SSE2 is part of the x86-64 baseline and
 * the compiler's generic vectors need no dispatch.
 */
typedef uint32_t vec __attribute__((vector_size(16)));

#define WIDTH 4

static inline vec rotl(vec x, int n)
{
	return (vec)(x << n | x >> (32 - n));
}

static inline void quarter_round(vec *a, vec *b, vec *c, vec *d)
{
	*a += *b;
	*d = rotl(*d ^ *a, 16);
	*c += *d;
	*b = rotl(*b ^ *c, 12);
	*a += *b;
	*d = rotl(*d ^ *a, 8);
	*c += *d;
	*b = rotl(*b ^ *c, 7);
}

static void four_blocks(const uint32_t input[16], uint8_t out[WIDTH * CHACHA20_BLOCK])
{
	vec start[16], x[16];

	for (int i = 0; i < 16; i++)
		start[i] = (vec){input[i], input[i], input[i], input[i]};
	start[12] += (vec){0, 1, 2, 3};
	memcpy(x, start, sizeof(x));
	for (int round = 0; round < 10; round++) {
		quarter_round(&x[0], &x[4], &x[8], &x[12]);
		quarter_round(&x[1], &x[5], &x[9], &x[13]);
		quarter_round(&x[2], &x[6], &x[10], &x[14]);
		quarter_round(&x[3], &x[7], &x[11], &x[15]);
		quarter_round(&x[0], &x[5], &x[10], &x[15]);
		quarter_round(&x[1], &x[6], &x[11], &x[12]);
		quarter_round(&x[2], &x[7], &x[8], &x[13]);
		quarter_round(&x[3], &x[4], &x[9], &x[14]);
	}
	for (int i = 0; i < 16; i++) {
		x[i] += start[i];
		for (int block = 0; block < WIDTH; block++)
			put_u32(out + block * CHACHA20_BLOCK + 4 * i, x[i][block]);
	}
}

void chacha20_stream(const uint8_t key[CHACHA20_KEY], const uint8_t nonce[CHACHA20_NONCE],
	uint32_t counter, uint8_t *out, size_t blocks)
{
	uint32_t input[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
	struct reader k = reader_init(key, CHACHA20_KEY);
	struct reader n = reader_init(nonce, CHACHA20_NONCE);
	uint8_t last[WIDTH * CHACHA20_BLOCK];

	for (int i = 4; i < 12; i++)
		input[i] = reader_u32(&k);
	input[12] = counter;
	for (int i = 13; i < 16; i++)
		input[i] = reader_u32(&n);
	for (; blocks >= WIDTH; blocks -= WIDTH) {
		four_blocks(input, out);
		input[12] += WIDTH;
		out += WIDTH * CHACHA20_BLOCK;
	}
	if (blocks > 0) {
		four_blocks(input, last);
		memcpy(out, last, blocks * CHACHA20_BLOCK);
		explicit_bzero(last, sizeof(last));
	}
	explicit_bzero(input, sizeof(input));
}
