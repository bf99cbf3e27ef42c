/* SPDX-License-Identifier: Apache-2.0 */
#include "base/reader.h"

#include <endian.h>
#include <string.h>

const uint8_t *reader_bytes(struct reader *r, size_t n)
{
	const uint8_t *p = r->at;

	if (r->failed || n > r->left) {
		r->failed = true;
		return NULL;
	}
	r->at += n;
	r->left -= n;
	return p;
}

#define DEFINE_READ(name, type, convert)                          \
	type name(struct reader *r)                               \
	{                                                         \
		const uint8_t *p = reader_bytes(r, sizeof(type)); \
		type v = 0;                                       \
                                                                  \
		if (p)                                            \
			memcpy(&v, p, sizeof(v));                 \
		return convert(v);                                \
	}

DEFINE_READ(reader_u8, uint8_t, )
DEFINE_READ(reader_u16, uint16_t, le16toh)
DEFINE_READ(reader_u32, uint32_t, le32toh)
DEFINE_READ(reader_u64, uint64_t, le64toh)
DEFINE_READ(reader_u16_be, uint16_t, be16toh)
DEFINE_READ(reader_u32_be, uint32_t, be32toh)

uint64_t reader_varint(struct reader *r)
{
	uint64_t v = 0;

	for (unsigned int shift = 0; shift < 64; shift += 7) {
		uint8_t byte = reader_u8(r);

		/* The tenth byte has room for one bit only. */
		if (r->failed || (shift == 63 && byte > 1))
			break;
		v |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return v;
	}
	r->failed = true;
	return 0;
}

#define DEFINE_PUT(name, type, convert)       \
	void name(void *p, type v)            \
	{                                     \
		type raw = convert(v);        \
                                              \
		memcpy(p, &raw, sizeof(raw)); \
	}

DEFINE_PUT(put_u16, uint16_t, htole16)
DEFINE_PUT(put_u32, uint32_t, htole32)
DEFINE_PUT(put_u64, uint64_t, htole64)
DEFINE_PUT(put_u16_be, uint16_t, htobe16)
DEFINE_PUT(put_u32_be, uint32_t, htobe32)

size_t put_varint(void *p, uint64_t v)
{
	uint8_t *out = p;
	size_t n = 0;

	while (v >= 0x80) {
		out[n++] = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	out[n++] = (uint8_t)v;
	return n;
}
