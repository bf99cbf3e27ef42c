/* SPDX-License-Identifier: Apache-2.0 */
#include "core/net/dns.h"

#include <errno.h>

#include "base/reader.h"

#define HEADER_SIZE         12
#define LABEL_MAX           63
#define FLAG_RESPONSE       0x8000
#define FLAG_AUTHORITATIVE  0x0400
#define FLAG_WANT_RECURSION 0x0100
#define FLAG_CAN_RECURSE    0x0080
#define MASK_OPCODE         0x7800
#define CODE_NO_NAME        3
#define TTL_SECONDS         30 /* an instance may be replaced by another of its name */
#define POINTER_TO_QUESTION (0xc000 | HEADER_SIZE)

/* A byte of a label in lower case; 0 when it may not be in one. */
static char label_byte(uint8_t c)
{
	if (c >= 'A' && c <= 'Z')
		return (char)(c - 'A' + 'a');
	if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_')
		return (char)c;
	return 0;
}

/* An uncompressed name, as a question's always is. */
static int parse_name(struct reader *r, char out[DNS_NAME_MAX + 1])
{
	size_t used = 0;

	for (;;) {
		uint8_t n = reader_u8(r);
		const uint8_t *label = reader_bytes(r, n);

		if (!label || n > LABEL_MAX)
			return -EBADMSG;
		if (n == 0)
			break;
		/* With the dot behind it, which the last one loses. */
		if (used + n + 1 > DNS_NAME_MAX + 1)
			return -EBADMSG;
		for (size_t i = 0; i < n; i++) {
			out[used] = label_byte(label[i]);
			if (out[used++] == 0)
				return -EBADMSG;
		}
		out[used++] = '.';
	}
	out[used > 0 ? used - 1 : 0] = '\0';
	return 0;
}

int dns_parse(const void *bytes, size_t n, struct dns_query *ret)
{
	struct reader r = reader_init(bytes, n);
	struct dns_query q = {0};
	uint16_t questions, answers;

	q.id = reader_u16_be(&r);
	q.flags = reader_u16_be(&r);
	questions = reader_u16_be(&r);
	answers = reader_u16_be(&r);
	(void)reader_u32_be(&r); /* authority and additional records: EDNS may be there */
	if (r.failed || q.flags & (FLAG_RESPONSE | MASK_OPCODE) || questions != 1 || answers != 0)
		return -EBADMSG;
	q.question = r.at;
	if (parse_name(&r, q.name) < 0)
		return -EBADMSG;
	q.type = reader_u16_be(&r);
	q.class = reader_u16_be(&r);
	if (r.failed)
		return -EBADMSG;
	q.question_size = (size_t)(r.at - q.question);
	*ret = q;
	return 0;
}

size_t dns_answer(uint8_t out[DNS_ANSWER_MAX], const struct dns_query *q, uint32_t ip, bool exists)
{
	uint16_t flags = (uint16_t)(FLAG_RESPONSE | FLAG_AUTHORITATIVE | FLAG_CAN_RECURSE |
				    (q->flags & FLAG_WANT_RECURSION) | (exists ? 0 : CODE_NO_NAME));
	uint8_t *at = out + HEADER_SIZE;

	memset(out, 0, HEADER_SIZE);
	put_u16_be(out, q->id);
	put_u16_be(out + 2, flags);
	put_u16_be(out + 4, 1);
	put_u16_be(out + 6, ip != 0);
	memcpy(at, q->question, q->question_size);
	at += q->question_size;
	if (ip != 0) {
		put_u16_be(at, POINTER_TO_QUESTION);
		put_u16_be(at + 2, DNS_TYPE_A);
		put_u16_be(at + 4, DNS_CLASS_IN);
		put_u32_be(at + 6, TTL_SECONDS);
		put_u16_be(at + 10, 4);
		put_u32_be(at + 12, ip);
		at += 16;
	}
	return (size_t)(at - out);
}
