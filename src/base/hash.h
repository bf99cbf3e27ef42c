/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
 * 2012, and its reference implementation's 128-bit variant), for names of lanes; and CRC-32C
 * (Castagnoli, RFC 3720 appendix B.4), for files.
 */
#ifndef SOSIE_BASE_HASH_H
#define SOSIE_BASE_HASH_H

#include "base/macro.h"

void siphash128(const uint8_t key[16], const void *bytes, size_t n, uint8_t out[16]);

/* Continue with the previous result; begin with 0. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t n);

#endif
