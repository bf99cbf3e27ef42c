/* SPDX-License-Identifier: Apache-2.0 */
#include "core/net/dhcp.h"

#include <errno.h>

#include "base/reader.h"

#define BOOT_REQUEST   1
#define BOOT_REPLY     2
#define ETHERNET       1
#define FIXED_SIZE     236 /* of BOOTP's fields */
#define MAGIC          0x63825363
#define FLAG_BROADCAST 0x8000
#define TEXT_MAX       63 /* of a host or domain name in an answer */

#define OPTION_TABLE(X)           \
	X(OPTION_PAD, 0)          \
	X(OPTION_MASK, 1)         \
	X(OPTION_ROUTER, 3)       \
	X(OPTION_DNS, 6)          \
	X(OPTION_HOSTNAME, 12)    \
	X(OPTION_DOMAIN, 15)      \
	X(OPTION_MTU, 26)         \
	X(OPTION_REQUESTED, 50)   \
	X(OPTION_LEASE_TIME, 51)  \
	X(OPTION_TYPE, 53)        \
	X(OPTION_SERVER, 54)      \
	X(OPTION_RENEW_TIME, 58)  \
	X(OPTION_REBIND_TIME, 59) \
	X(OPTION_END, 255)

enum {
#define X(constant, code) constant = (code),
	OPTION_TABLE(X)
#undef X
};

/* Fixed fields, magic, and options at their longest fit a message. */
static_assert(FIXED_SIZE + 4 + 3 + 6 * 6 + 2 + 4 * DHCP_DNS_MAX + 2 * (2 + TEXT_MAX) + 4 + 1 <=
		      DHCP_MESSAGE_MAX,
	"an answer fits");

static void take_option(struct dhcp_request *q, uint8_t code, const uint8_t *value, size_t n)
{
	struct reader r = reader_init(value, n);

	if (code == OPTION_TYPE && n == 1)
		q->type = reader_u8(&r);
	else if (code == OPTION_REQUESTED && n == 4)
		q->requested = reader_u32_be(&r);
	else if (code == OPTION_SERVER && n == 4)
		q->server = reader_u32_be(&r);
}

static int parse_options(struct reader *r, struct dhcp_request *q)
{
	while (r->left > 0) {
		uint8_t code = reader_u8(r), n;
		const uint8_t *value;

		if (code == OPTION_PAD)
			continue;
		if (code == OPTION_END)
			return 0;
		n = reader_u8(r);
		value = reader_bytes(r, n);
		if (!value)
			return -EBADMSG;
		take_option(q, code, value, n);
	}
	return 0; /* some clients leave the end mark out */
}

int dhcp_parse(const void *bytes, size_t n, struct dhcp_request *ret)
{
	struct reader r = reader_init(bytes, n);
	struct dhcp_request q = {0};
	uint8_t operation = reader_u8(&r), hardware = reader_u8(&r), size = reader_u8(&r);
	const uint8_t *client;

	(void)reader_u8(&r); /* hops */
	q.transaction = reader_u32_be(&r);
	(void)reader_u16_be(&r); /* seconds */
	q.flags = reader_u16_be(&r);
	q.client_ip = reader_u32_be(&r);
	(void)reader_bytes(&r, 12); /* yiaddr, siaddr, giaddr */
	client = reader_bytes(&r, 16);
	(void)reader_bytes(&r, 64 + 128); /* server name, boot file */
	if (reader_u32_be(&r) != MAGIC || r.failed || operation != BOOT_REQUEST ||
		hardware != ETHERNET || size != MAC_SIZE)
		return -EBADMSG;
	memcpy(&q.client, client, sizeof(q.client));
	if (parse_options(&r, &q) < 0 || q.type < DHCP_DISCOVER || q.type > DHCP_INFORM)
		return -EBADMSG;
	*ret = q;
	return 0;
}

uint8_t dhcp_decide(const struct dhcp_request *q, const struct dhcp_lease *lease)
{
	uint32_t wanted = q->requested ? q->requested : q->client_ip;

	if (q->server != 0 && q->server != lease->server)
		return 0; /* it chose another server */
	switch (q->type) {
	case DHCP_DISCOVER:
		return DHCP_OFFER;
	case DHCP_REQUEST:
		return wanted == lease->ip ? DHCP_ACK : DHCP_NAK;
	case DHCP_INFORM:
		return q->client_ip == lease->ip ? DHCP_ACK : 0;
	default:
		return 0;
	}
}

/* The writer's place in an answer; the static_assert above says that everything fits. */
struct writer {
	uint8_t *at;
};

static void put_option(struct writer *w, uint8_t code, const void *value, size_t n)
{
	w->at[0] = code;
	w->at[1] = (uint8_t)n;
	memcpy(w->at + 2, value, n);
	w->at += 2 + n;
}

static void put_option_u32(struct writer *w, uint8_t code, uint32_t v)
{
	uint8_t bytes[4];

	put_u32_be(bytes, v);
	put_option(w, code, bytes, sizeof(bytes));
}

static void put_option_text(struct writer *w, uint8_t code, const char *text)
{
	size_t n = text ? strlen(text) : 0;

	if (n > 0 && n <= TEXT_MAX)
		put_option(w, code, text, n);
}

static void put_configuration(struct writer *w, const struct dhcp_lease *lease)
{
	uint8_t dns[4 * DHCP_DNS_MAX], mtu[2];
	size_t count = MIN(lease->dns_count, (size_t)DHCP_DNS_MAX);

	put_option_u32(w, OPTION_MASK, lease->mask);
	put_option_u32(w, OPTION_ROUTER, lease->router);
	for (size_t i = 0; i < count; i++)
		put_u32_be(dns + 4 * i, lease->dns[i]);
	if (count > 0)
		put_option(w, OPTION_DNS, dns, 4 * count);
	put_option_text(w, OPTION_HOSTNAME, lease->hostname);
	put_option_text(w, OPTION_DOMAIN, lease->domain);
	put_u16_be(mtu, lease->mtu);
	put_option(w, OPTION_MTU, mtu, sizeof(mtu));
}

size_t dhcp_answer(uint8_t out[DHCP_MESSAGE_MAX], const struct dhcp_request *q, uint8_t type,
	const struct dhcp_lease *lease)
{
	struct writer w = {.at = out + FIXED_SIZE + 4};

	memset(out, 0, DHCP_MESSAGE_MAX);
	out[0] = BOOT_REPLY;
	out[1] = ETHERNET;
	out[2] = MAC_SIZE;
	put_u32_be(out + 4, q->transaction);
	put_u16_be(out + 10, q->flags);
	memcpy(out + 28, &q->client, sizeof(q->client));
	put_u32_be(out + FIXED_SIZE, MAGIC);
	put_option(&w, OPTION_TYPE, &type, 1);
	put_option_u32(&w, OPTION_SERVER, lease->server);
	if (type != DHCP_NAK) {
		put_u32_be(out + 12, q->client_ip);
		put_configuration(&w, lease);
		if (q->type != DHCP_INFORM) {
			put_u32_be(out + 16, lease->ip);
			put_option_u32(&w, OPTION_LEASE_TIME, lease->seconds);
			put_option_u32(&w, OPTION_RENEW_TIME, lease->seconds / 2);
			put_option_u32(&w, OPTION_REBIND_TIME, lease->seconds / 8 * 7);
		}
	}
	*w.at++ = OPTION_END;
	/* Some clients take nothing shorter than BOOTP's own 300 bytes. */
	return MAX((size_t)(w.at - out), (size_t)300);
}

bool dhcp_is_broadcast(const struct dhcp_request *q, uint8_t type)
{
	return type == DHCP_NAK || (q->client_ip == 0 && q->flags & FLAG_BROADCAST);
}
