/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random bytes of a lane: a ChaCha20 stream with fast key erasure (Bernstein, "Fast-key-erasure
 * random-number generators", 2017; what Linux's own generator does per CPU), so that bytes once
 * drawn cannot be found again in the process.
 *
 * The stream is cut into spans of STREAM_SPAN bytes; the lane's slot of ordinal k names the seed
 * of span k. The span's first key is derived from seed, lineage key and span number:
 *
 *   k1 = first 32 bytes of ChaCha20(seed,  nonce = lineage key [0..12))
 *   k0 = first 32 bytes of ChaCha20(k1,    nonce = lineage key [12..16), span number as u64)
 *
 * and refill i of a span gives  k(i+1) || 480 bytes of output = ChaCha20(k(i), nonce 0), 8 blocks.
 *
 * A position in the stream is a number of bytes, so two reads of 4 bytes are the same as one of 8.
 */
#ifndef SOSIE_CORE_VALUES_STREAM_H
#define SOSIE_CORE_VALUES_STREAM_H

#include "base/chacha20.h"
#include "core/values/segment.h"

#define STREAM_REFILL  480U
#define STREAM_REFILLS 2048U /* in a span */
#define STREAM_SPAN    ((uint64_t)STREAM_REFILL * STREAM_REFILLS)

struct stream {
	uint8_t key[CHACHA20_KEY];
	uint8_t bytes[STREAM_REFILL];
	uint32_t left;    /* bytes not yet drawn, at the end of `bytes` */
	uint32_t refills; /* still to come in this span */
};

/* Begins a span; the caller has the seed from the lane's slot. */
void stream_begin(
	struct stream *st, const uint8_t seed[32], const uint8_t lineage_key[16], uint64_t span);
/* Whether a new span must be begun before anything more can be drawn. */
static inline bool stream_needs_span(const struct stream *st)
{
	return st->left == 0 && st->refills == 0;
}
/* Draws up to n bytes, at least one when !stream_needs_span() and n > 0. Returns how many. */
size_t stream_draw(struct stream *st, uint8_t *out, size_t n);

/*
 * Recomputes the bytes [from, from + n) of a lane for the audit. 0, -ENODATA when a span of them
 * has not been begun by anybody, -EBADMSG when the segment is damaged.
 */
int stream_recompute(
	const struct segment *s, const struct lineage *l, uint64_t from, uint8_t *out, size_t n);

#endif
