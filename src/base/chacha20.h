/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ChaCha20 block function of RFC 8439, made for one purpose: key streams drawn in whole blocks
 * inside processes that are not ours. No allocation, no initialisation, no CPU detection, no
 * system call, which is why no library is used for it; the unit tests hold it against the RFC's
 * vectors and against libsodium.
 */
#ifndef SOSIE_BASE_CHACHA20_H
#define SOSIE_BASE_CHACHA20_H

#include "base/macro.h"

#define CHACHA20_KEY   32
#define CHACHA20_NONCE 12
#define CHACHA20_BLOCK 64

/* Writes `blocks` key-stream blocks, the first with block counter `counter`. */
void chacha20_stream(const uint8_t key[CHACHA20_KEY], const uint8_t nonce[CHACHA20_NONCE],
	uint32_t counter, uint8_t *out, size_t blocks);

#endif
