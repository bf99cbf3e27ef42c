/* SPDX-License-Identifier: Apache-2.0 */
#include "core/values/stream.h"

#include <errno.h>
#include <string.h>

#include "base/reader.h"
#include "core/values/lane.h"

#define REFILL_BLOCKS ((CHACHA20_KEY + STREAM_REFILL) / CHACHA20_BLOCK)
static_assert((CHACHA20_KEY + STREAM_REFILL) % CHACHA20_BLOCK == 0, "whole blocks only");

void stream_begin(
	struct stream *st, const uint8_t seed[32], const uint8_t lineage_key[16], uint64_t span)
{
	uint8_t block[CHACHA20_BLOCK], nonce[CHACHA20_NONCE];

	memcpy(nonce, lineage_key, CHACHA20_NONCE);
	chacha20_stream(seed, nonce, 0, block, 1);
	memcpy(nonce, lineage_key + CHACHA20_NONCE, 4);
	put_u64(nonce + 4, span);
	memcpy(st->key, block, CHACHA20_KEY);
	chacha20_stream(st->key, nonce, 0, block, 1);
	memcpy(st->key, block, CHACHA20_KEY);
	explicit_bzero(block, sizeof(block));
	st->left = 0;
	st->refills = STREAM_REFILLS;
}

static void refill(struct stream *st)
{
	static const uint8_t zero[CHACHA20_NONCE];
	uint8_t fresh[REFILL_BLOCKS * CHACHA20_BLOCK];

	chacha20_stream(st->key, zero, 0, fresh, REFILL_BLOCKS);
	memcpy(st->key, fresh, CHACHA20_KEY);
	memcpy(st->bytes, fresh + CHACHA20_KEY, STREAM_REFILL);
	explicit_bzero(fresh, sizeof(fresh));
	st->left = STREAM_REFILL;
	st->refills--;
}

size_t stream_draw(struct stream *st, uint8_t *out, size_t n)
{
	uint8_t *at;

	if (st->left == 0) {
		if (st->refills == 0)
			return 0;
		refill(st);
	}
	n = MIN(n, st->left);
	at = st->bytes + (STREAM_REFILL - st->left);
	/* The size that is drawn most often, without two calls. */
	if (likely(n == 8)) {
		memcpy(out, at, 8);
		memset(at, 0, 8);
	} else {
		memcpy(out, at, n);
		memset(at, 0, n);
	}
	st->left -= (uint32_t)n;
	return n;
}

static int take_word(void *context, uint64_t ordinal, uint64_t word)
{
	(void)ordinal;
	*(uint64_t *)context = word;
	return 0;
}

int stream_recompute(
	const struct segment *s, const struct lineage *l, uint64_t from, uint8_t *out, size_t n)
{
	uint8_t skipped[STREAM_REFILL];
	struct stream st = {0};
	uint64_t at = from / STREAM_SPAN * STREAM_SPAN;

	while (n > 0) {
		if (stream_needs_span(&st)) {
			uint64_t span = at / STREAM_SPAN, offset = 0;
			const struct seed *seed;
			int r = lane_each(s, l, KIND_RANDOM, span, span + 1, take_word, &offset);

			if (r < 0)
				return r;
			if (offset == 0)
				return -ENODATA;
			seed = seed_at(s, offset);
			if (!seed)
				return -EBADMSG;
			stream_begin(&st, seed->bytes, l->entry.key, span);
		}
		if (at < from) {
			at += stream_draw(&st, skipped, MIN(sizeof(skipped), from - at));
		} else {
			size_t got = stream_draw(&st, out, n);

			at += got;
			out += got;
			n -= got;
		}
	}
	explicit_bzero(&st, sizeof(st));
	return 0;
}
