/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A NIC's connections sit in a fixed array, found through hash chains of indexes and strung on a
 * list from the most to the least recently used. There is one table per NIC, so that a guest that
 * opens connections without end (or makes others send to it) pushes out its own only.
 *
 * Invariants:
 * 1. A slot is either on the free chain (through `next`), or on one hash chain and on the list.
 * 2. The flow is written from the NIC's side, whichever side sent: so both directions meet the
 *    same slot.
 * 3. A connection remembers who opened it, which is what rules are about: when they change, each
 *    is judged again as if it opened now.
 * 4. A later fragment passes only if the first one of its datagram did. The first must come first,
 *    as every IP stack in use sends them; nothing is held back to wait for it.
 *
 * A flow whose slot was pushed out or has expired is opened again by its next packet that the
 * rules allow, a SYN or not: a long idle connection of the side that is free to speak goes on.
 */
#include "core/net/firewall.h"

#include <errno.h>

#include "base/hash.h"

#define BUCKETS 4096 /* a power of two */
#define NONE    UINT16_MAX

static_assert(CONNECTIONS_MAX < NONE, "indexes are 16 bits");

struct flow {
	uint32_t local, remote;
	uint16_t local_port, remote_port;
	uint8_t protocol;
	uint8_t zero[3]; /* hashed with the rest */
};

static_assert(sizeof(struct flow) == 16, "no padding, since it is hashed and compared");

struct connection {
	struct flow flow;
	uint64_t seen_ns;
	uint8_t state;
	uint8_t opened_by; /* enum direction of its first packet */
	bool outside;      /* that packet came from outside the network */
	uint16_t next;     /* of the hash or free chain */
	uint16_t newer, older;
};

struct fragmented {
	uint32_t from, to;
	uint16_t id;
	uint8_t protocol;
	uint64_t seen_ns; /* 0: free */
};

struct connections {
	uint8_t key[16];
	struct connection slot[CONNECTIONS_MAX];
	uint16_t bucket[BUCKETS];
	uint16_t free, newest, oldest;
	size_t count;
	struct fragmented fragmented[FRAGMENTED_MAX];
	size_t next_fragmented;
	struct connection_counters counters;
};

static const uint64_t lifetime_ns[] = {
#define X(constant, seconds, meaning) [constant] = (uint64_t)(seconds)*NSEC_PER_SEC,
	CONNECTION_STATE_TABLE(X)
#undef X
};
static_assert(ARRAY_SIZE(lifetime_ns) == CONNECTION_STATES, "one lifetime a state");

int connections_new(const uint8_t key[16], struct connections **ret)
{
	struct connections *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	memcpy(c->key, key, sizeof(c->key));
	memset(c->bucket, 0xff, sizeof(c->bucket));
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		c->slot[i].next = (uint16_t)(i + 1);
	c->slot[CONNECTIONS_MAX - 1].next = NONE;
	c->newest = c->oldest = NONE;
	*ret = c;
	return 0;
}

void connections_free(struct connections *c)
{
	free(c);
}

size_t connections_count(const struct connections *c)
{
	return c->count;
}

const struct connection_counters *connections_counters(const struct connections *c)
{
	return &c->counters;
}

/* The chain head that the flow belongs to. */
static uint16_t *bucket_of(struct connections *c, const struct flow *flow)
{
	uint8_t digest[16];
	uint32_t h;

	siphash128(c->key, flow, sizeof(*flow), digest);
	memcpy(&h, digest, sizeof(h));
	return &c->bucket[h & (BUCKETS - 1)];
}

static void list_remove(struct connections *c, uint16_t i)
{
	const struct connection *s = &c->slot[i];

	*(s->newer == NONE ? &c->newest : &c->slot[s->newer].older) = s->older;
	*(s->older == NONE ? &c->oldest : &c->slot[s->older].newer) = s->newer;
}

static void list_push(struct connections *c, uint16_t i)
{
	struct connection *s = &c->slot[i];

	s->newer = NONE;
	s->older = c->newest;
	*(c->newest == NONE ? &c->oldest : &c->slot[c->newest].newer) = i;
	c->newest = i;
}

static void forget(struct connections *c, uint16_t i)
{
	uint16_t *link = bucket_of(c, &c->slot[i].flow);

	while (*link != i)
		link = &c->slot[*link].next;
	*link = c->slot[i].next;
	list_remove(c, i);
	c->slot[i].next = c->free;
	c->free = i;
	c->count--;
}

static bool is_expired(const struct connection *s, uint64_t now_ns)
{
	return now_ns - s->seen_ns > lifetime_ns[s->state];
}

static struct connection *find(struct connections *c, const struct flow *flow, uint64_t now_ns)
{
	for (uint16_t i = *bucket_of(c, flow); i != NONE; i = c->slot[i].next) {
		if (memcmp(&c->slot[i].flow, flow, sizeof(*flow)) != 0)
			continue;
		if (!is_expired(&c->slot[i], now_ns))
			return &c->slot[i];
		forget(c, i);
		c->counters.expired++;
		break;
	}
	return NULL;
}

static struct connection *add(struct connections *c, const struct flow *flow, uint64_t now_ns)
{
	uint16_t i, *bucket;

	if (c->free == NONE) {
		if (is_expired(&c->slot[c->oldest], now_ns))
			c->counters.expired++;
		else
			c->counters.evicted++;
		forget(c, c->oldest);
	}
	i = c->free;
	c->free = c->slot[i].next;
	bucket = bucket_of(c, flow);
	c->slot[i] = (struct connection){.flow = *flow, .next = *bucket, .seen_ns = now_ns};
	*bucket = i;
	list_push(c, i);
	c->count++;
	c->counters.opened++;
	return &c->slot[i];
}

static bool rules_allow(
	const struct rules *rules, enum direction direction, bool outside, const struct flow *flow)
{
	uint16_t port = direction == DIRECTION_IN ? flow->local_port : flow->remote_port;
	bool has_port = flow->protocol == PROTOCOL_TCP || flow->protocol == PROTOCOL_UDP;

	for (size_t i = 0; i < rules->count; i++) {
		const struct rule *r = &rules->rule[i];

		if (r->direction == direction && (!r->outside || outside) &&
			(r->protocol == PROTOCOL_ANY || r->protocol == flow->protocol) &&
			(!has_port || (port >= r->first_port && port <= r->last_port)) &&
			cidr_contains(r->local, flow->local) &&
			cidr_contains(r->peer, flow->remote))
			return !r->deny;
	}
	return direction == DIRECTION_OUT;
}

void connections_recheck(struct connections *c, const struct rules *rules, uint32_t local)
{
	uint16_t older;

	for (uint16_t i = c->newest; i != NONE; i = older) {
		const struct connection *s = &c->slot[i];

		older = s->older;
		if (s->flow.local == local &&
			rules_allow(rules, s->opened_by, s->outside, &s->flow))
			continue;
		forget(c, i);
		c->counters.revoked++;
	}
}

static struct flow flow_of(const struct packet *p, bool from_local)
{
	struct flow flow = {.protocol = p->protocol};

	flow.local = from_local ? p->from : p->to;
	flow.remote = from_local ? p->to : p->from;
	flow.local_port = from_local ? p->from_port : p->to_port;
	flow.remote_port = from_local ? p->to_port : p->from_port;
	return flow;
}

static void advance(struct connection *s, enum direction direction, const struct packet *p)
{
	bool both = s->opened_by != direction;

	if (p->protocol == PROTOCOL_TCP) {
		if (p->tcp_flags & (TCP_FIN | TCP_RST))
			s->state = CONNECTION_TCP_CLOSING;
		else if (both && s->state == CONNECTION_TCP_OPENING)
			s->state = CONNECTION_TCP_OPEN;
		else if (p->tcp_flags & TCP_SYN && !both)
			s->state = CONNECTION_TCP_OPENING; /* the ports are used anew */
	} else if (p->protocol == PROTOCOL_UDP && both) {
		s->state = CONNECTION_UDP_OPEN;
	}
}

static uint8_t first_state(const struct packet *p)
{
	if (p->protocol == PROTOCOL_TCP)
		return CONNECTION_TCP_OPENING;
	return p->protocol == PROTOCOL_UDP ? CONNECTION_UDP_OPENING : CONNECTION_OTHER;
}

static bool is_icmp_error(const struct packet *p)
{
	return p->protocol == PROTOCOL_ICMP &&
	       (p->icmp_type == ICMP_UNREACHABLE || p->icmp_type == ICMP_TIME_EXCEED ||
		       p->icmp_type == ICMP_PARAMETER);
}

/* An ICMP error passes when the packet that it quotes went the other way on a known connection. */
static bool pass_icmp_error(
	struct connections *c, enum direction direction, const struct packet *p, uint64_t now_ns)
{
	struct packet quoted;
	struct flow flow;

	if (frame_parse_icmp_error(p, &quoted) < 0)
		return false;
	flow = flow_of(&quoted, direction == DIRECTION_IN);
	return flow.local == (direction == DIRECTION_IN ? p->to : p->from) &&
	       find(c, &flow, now_ns) != NULL;
}

static bool pass_later_fragment(struct connections *c, const struct packet *p, uint64_t now_ns)
{
	for (size_t i = 0; i < FRAGMENTED_MAX; i++) {
		const struct fragmented *f = &c->fragmented[i];

		if (f->seen_ns != 0 && now_ns - f->seen_ns <= FRAGMENTED_NS && f->from == p->from &&
			f->to == p->to && f->id == p->id && f->protocol == p->protocol)
			return true;
	}
	c->counters.orphans++;
	return false;
}

static void remember_fragmented(struct connections *c, const struct packet *p, uint64_t now_ns)
{
	c->fragmented[c->next_fragmented] = (struct fragmented){.from = p->from,
		.to = p->to,
		.id = p->id,
		.protocol = p->protocol,
		.seen_ns = MAX(now_ns, 1U)};
	c->next_fragmented = (c->next_fragmented + 1) % FRAGMENTED_MAX;
}

bool connections_pass(struct connections *c, const struct rules *rules, enum direction direction,
	bool outside, const struct packet *p, uint64_t now_ns)
{
	struct flow flow;
	struct connection *s;
	uint16_t i;

	if (!p->first)
		return pass_later_fragment(c, p, now_ns);
	if (is_icmp_error(p))
		return pass_icmp_error(c, direction, p, now_ns);
	flow = flow_of(p, direction == DIRECTION_OUT);
	s = find(c, &flow, now_ns);
	if (!s) {
		if (!rules_allow(rules, direction, outside, &flow))
			return false;
		s = add(c, &flow, now_ns);
		s->opened_by = (uint8_t)direction;
		s->outside = outside;
		s->state = first_state(p);
	}
	advance(s, direction, p);
	s->seen_ns = now_ns;
	i = (uint16_t)(s - c->slot);
	if (c->newest != i) {
		list_remove(c, i);
		list_push(c, i);
	}
	if (p->fragmented)
		remember_fragmented(c, p, now_ns);
	return true;
}
