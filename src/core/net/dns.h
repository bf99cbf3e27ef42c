/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of DNS (RFC 1035) as it takes to answer questions about the network's own names;
 * everything else is passed on to a real resolver.
 */
#ifndef SOSIE_CORE_NET_DNS_H
#define SOSIE_CORE_NET_DNS_H

#include "core/net/addr.h"

#define DNS_PORT     53
#define DNS_NAME_MAX 253 /* characters, without a final dot */
#define DNS_TYPE_A   1
#define DNS_CLASS_IN 1
/* The question as it came and one address. */
#define DNS_ANSWER_MAX (12 + DNS_NAME_MAX + 2 + 4 + 16)

struct dns_query {
	uint16_t id;
	uint16_t flags;
	char name[DNS_NAME_MAX + 1]; /* lower case, labels joined by dots */
	uint16_t type, class;
	const uint8_t *question; /* within the message, for the answer to repeat */
	size_t question_size;
};

/*
 * -EBADMSG when it is no standard query with exactly one question, or has a name with anything but
 * letters, digits, hyphens and underscores.
 */
int dns_parse(const void *bytes, size_t n, struct dns_query *ret);
/* The answer: `ip`, or for 0 that there is no such record (exists) or no such name. Its size. */
size_t dns_answer(uint8_t out[DNS_ANSWER_MAX], const struct dns_query *q, uint32_t ip, bool exists);

#endif
