/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table from 64-bit keys to 64-bit values, with a stated maximum of entries. Entries are
 * never removed singly. Not thread-safe.
 */
#ifndef SOSIE_BASE_MAP_H
#define SOSIE_BASE_MAP_H

#include "base/macro.h"

struct map {
	struct map_entry *entries; /* open addressing, a power of two of them */
	size_t capacity, count, max;
};

#define MAP_INIT(limit)        \
	(struct map)           \
	{                      \
		.max = (limit) \
	}

void map_free(struct map *m);
/*
 * The place of the value for key: made, with the value 0, when it is not there. Valid until the
 * next call. NULL when out of memory or at the maximum. key must not be UINT64_MAX.
 */
uint64_t *map_at(struct map *m, uint64_t key);
/* The value for key, 0 when there is none. */
uint64_t map_get(const struct map *m, uint64_t key);

#endif
