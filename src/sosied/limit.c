/* SPDX-License-Identifier: Apache-2.0 */
#include "sosied/limit.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "store/store.h"

struct bucket {
	char token_id[STORE_ID_SIZE]; /* "": unused */
	uint64_t level_ns;            /* one request costs `cost_ns` of it */
	uint64_t at_ns;
};

struct limiter {
	uint64_t cost_ns, full_ns;
	struct bucket buckets[LIMITER_BUCKETS];
};

struct limiter *limiter_new(unsigned int rate)
{
	struct limiter *l = calloc(1, sizeof(*l));

	assert(rate > 0);
	if (!l)
		return NULL;
	l->cost_ns = (uint64_t)NSEC_PER_SEC / rate;
	l->full_ns = 2 * (uint64_t)rate * l->cost_ns;
	return l;
}

void limiter_free(struct limiter *l)
{
	free(l);
}

static struct bucket *find(struct limiter *l, const char *token_id, uint64_t now_ns)
{
	static const uint8_t key[16];
	uint8_t name[16];
	struct bucket *oldest = NULL;
	size_t first;

	/* Identifiers are ours, not the caller's to choose: no secret key is needed. */
	siphash128(key, token_id, strlen(token_id), name);
	first = (size_t)name[0] | (size_t)name[1] << 8;
	for (size_t i = 0; i < LIMITER_PROBES; i++) {
		struct bucket *b = &l->buckets[(first + i) % LIMITER_BUCKETS];

		if (!strcmp(b->token_id, token_id))
			return b;
		if (!oldest || b->at_ns < oldest->at_ns)
			oldest = b;
	}
	(void)snprintf(oldest->token_id, sizeof(oldest->token_id), "%s", token_id);
	oldest->level_ns = l->full_ns;
	oldest->at_ns = now_ns;
	return oldest;
}

bool limiter_take(struct limiter *l, const char *token_id, uint64_t now_ns)
{
	struct bucket *b = find(l, token_id, now_ns);

	b->level_ns = MIN(b->level_ns + (now_ns - MIN(b->at_ns, now_ns)), l->full_ns);
	b->at_ns = now_ns;
	if (b->level_ns < l->cost_ns)
		return false;
	b->level_ns -= l->cost_ns;
	return true;
}
