/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bounded reader: the one way in which bytes of a file, a guest or a wire are looked at.
 *
 * Integers are little-endian unless named _be. Reading past the end returns zero or NULL and
 * marks the reader failed for good, so that a parser may read many fields and check once.
 */
#ifndef SOSIE_BASE_READER_H
#define SOSIE_BASE_READER_H

#include <stdbool.h>

#include "base/macro.h"

struct reader {
	const uint8_t *at;
	size_t left;
	bool failed;
};

static inline struct reader reader_init(const void *bytes, size_t n)
{
	return (struct reader){.at = bytes, .left = n};
}

/* n bytes in place, or NULL. Valid as long as the bytes given to reader_init(). */
const uint8_t *reader_bytes(struct reader *r, size_t n);
uint8_t reader_u8(struct reader *r);
uint16_t reader_u16(struct reader *r);
uint32_t reader_u32(struct reader *r);
uint64_t reader_u64(struct reader *r);
uint16_t reader_u16_be(struct reader *r);
uint32_t reader_u32_be(struct reader *r);
/* Variable-length unsigned integer: seven bits a byte, least significant first (LEB128). */
uint64_t reader_varint(struct reader *r);

/* The writers' side: store at p. put_varint() returns the bytes used, at most VARINT_MAX. */
#define VARINT_MAX 10
void put_u16(void *p, uint16_t v);
void put_u32(void *p, uint32_t v);
void put_u64(void *p, uint64_t v);
void put_u16_be(void *p, uint16_t v);
void put_u32_be(void *p, uint32_t v);
size_t put_varint(void *p, uint64_t v);

#endif
