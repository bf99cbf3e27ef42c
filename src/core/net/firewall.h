/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Security groups: an ordered list of rules for a network, and per NIC a table of the connections
 * that they let through.
 *
 * The first rule that fits decides; without one, what comes in is denied and what goes out is
 * allowed. A packet of a connection that was let through passes in both directions, as does an
 * ICMP error about one, so that answers need no rules.
 *
 * Pure: time comes as an argument, in nanoseconds of a clock that never goes back.
 */
#ifndef SOSIE_CORE_NET_FIREWALL_H
#define SOSIE_CORE_NET_FIREWALL_H

#include "core/net/frame.h"

#define RULES_MAX       512  /* of a network, the switch's own included */
#define CONNECTIONS_MAX 4096 /* of a NIC */
#define FRAGMENTED_MAX  64   /* datagrams of a NIC whose fragments are under way */
#define PROTOCOL_ANY    0

enum direction {
	DIRECTION_IN,  /* to the NIC */
	DIRECTION_OUT, /* from it */
};

struct rule {
	enum direction direction;
	bool deny;
	bool outside;        /* only what comes in from outside the network */
	uint8_t protocol;    /* or PROTOCOL_ANY */
	uint16_t first_port; /* of the destination; TCP and UDP only */
	uint16_t last_port;
	struct cidr local; /* the NICs that it is for */
	struct cidr peer;  /* the other side */
};

struct rules {
	struct rule rule[RULES_MAX];
	size_t count;
};

/* How long a connection is remembered without a packet. */
#define CONNECTION_STATE_TABLE(X)                                                   \
	X(CONNECTION_TCP_OPENING, 60, "TCP, seen in one direction")                 \
	X(CONNECTION_TCP_OPEN, 7440, "TCP, seen in both (RFC 5382: at least 2h4m)") \
	X(CONNECTION_TCP_CLOSING, 60, "TCP after a FIN or RST")                     \
	X(CONNECTION_UDP_OPENING, 60, "UDP, seen in one direction")                 \
	X(CONNECTION_UDP_OPEN, 300, "UDP, seen in both (RFC 4787: at least 2 min)") \
	X(CONNECTION_OTHER, 60, "ICMP by its identifier, and other protocols")

enum connection_state {
#define X(constant, seconds, meaning) constant,
	CONNECTION_STATE_TABLE(X)
#undef X
		CONNECTION_STATES
};

/* How long the fragments of a datagram may take. */
#define FRAGMENTED_NS (10 * NSEC_PER_SEC)

#define CONNECTION_COUNTER_TABLE(X)                                      \
	X(opened, "connections let through by the rules")                \
	X(expired, "connections forgotten after their time")             \
	X(evicted, "connections forgotten because the NIC had too many") \
	X(revoked, "connections ended because the rules changed")        \
	X(orphans, "fragments dropped because their datagram's first was not seen")

struct connection_counters {
#define X(name, meaning) uint64_t name;
	CONNECTION_COUNTER_TABLE(X)
#undef X
};

struct connections;

/* The key keeps peers from choosing what collides; it is to be random. */
int connections_new(const uint8_t key[16], struct connections **ret);
/* NULL is accepted. */
void connections_free(struct connections *c);
DEFINE_CLEANUP(struct connections *, connections_free);

/*
 * Whether the packet may pass, and remembers its connection when it may. outside: it comes in from
 * outside the network.
 */
bool connections_pass(struct connections *c, const struct rules *rules, enum direction direction,
	bool outside, const struct packet *p, uint64_t now_ns);
/* After a change of the rules, or of the address: forgets what they would not let through now. */
void connections_recheck(struct connections *c, const struct rules *rules, uint32_t local);

size_t connections_count(const struct connections *c);
const struct connection_counters *connections_counters(const struct connections *c);

#endif
