/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement: which hosts take which of a batch of equal instances. Pure: the fleet comes in, the
 * choice goes out.
 *
 * Thread-safe on different arguments.
 */
#ifndef SOSIE_CORE_PLATFORM_PLACEMENT_H
#define SOSIE_CORE_PLATFORM_PLACEMENT_H

#include <stdbool.h>

#include "base/err.h"

/* The most instances that one request may place. */
#define PLACEMENT_BATCH_MAX 64

struct placement_size {
	uint64_t cores;
	uint64_t memory; /* bytes */
	uint64_t disk;   /* bytes */
};

/* One host as placement sees it. */
struct placement_host {
	const char *name;
	const char *zone;   /* "" when it has none, which is a zone too */
	const char *closed; /* why it takes nothing at present ("offline"); NULL: it is open */
	struct placement_size free;
	unsigned int members; /* of the group that the batch belongs to, there already */
};

enum placement_spread {
	SPREAD_ANY,   /* wherever there is most room */
	SPREAD_HOSTS, /* no two of the group on one host */
	SPREAD_ZONES, /* no two of the group in one zone */
	SPREAD_NONE,  /* all of the group on one host */
};

/*
 * Chooses a host for each of `count` (1 to PLACEMENT_BATCH_MAX) instances of that size:
 * ret[i] is an index into hosts. All or nothing. Invariants of a choice:
 *  - on no host is more placed than is free there, and on a closed one nothing;
 *  - the spread holds for the batch and the members that are there already;
 *  - the same arguments give the same choice.
 * ERR_NO_CAPACITY otherwise, with the reason for each host, as many as the message holds.
 */
int placement_choose(const struct placement_host *hosts, size_t n,
	const struct placement_size *size, enum placement_spread spread, unsigned int count,
	size_t *ret, struct err *e);

#endif
