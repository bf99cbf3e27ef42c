/* SPDX-License-Identifier: Apache-2.0 */
#include "base/map.h"

#define EMPTY UINT64_MAX

struct map_entry {
	uint64_t key, value;
};

void map_free(struct map *m)
{
	free(m->entries);
	*m = MAP_INIT(m->max);
}

/* Fibonacci hashing (Knuth, TAOCP volume 3, 6.4): keys that are multiples of 64 spread too. */
static size_t place(uint64_t key, size_t capacity)
{
	uint64_t x = (key ^ key >> 32) * 0x9e3779b97f4a7c15ULL;

	return (size_t)(x >> 32) & (capacity - 1);
}

static struct map_entry *find(struct map_entry *entries, size_t capacity, uint64_t key)
{
	size_t i = place(key, capacity);

	while (entries[i].key != key && entries[i].key != EMPTY)
		i = (i + 1) & (capacity - 1);
	return &entries[i];
}

static int grow(struct map *m)
{
	size_t capacity = m->capacity ? 2 * m->capacity : 64;
	struct map_entry *bigger = malloc(capacity * sizeof(*bigger));

	if (!bigger)
		return -1;
	for (size_t i = 0; i < capacity; i++)
		bigger[i] = (struct map_entry){EMPTY, 0};
	for (size_t i = 0; i < m->capacity; i++)
		if (m->entries[i].key != EMPTY)
			*find(bigger, capacity, m->entries[i].key) = m->entries[i];
	free(m->entries);
	m->entries = bigger;
	m->capacity = capacity;
	return 0;
}

uint64_t *map_at(struct map *m, uint64_t key)
{
	struct map_entry *e;

	assert(key != EMPTY);
	/* At most half full, so that searches stay short. */
	if (m->capacity < 2 * (m->count + 1) && grow(m) < 0)
		return NULL;
	e = find(m->entries, m->capacity, key);
	if (e->key == EMPTY) {
		if (m->count >= m->max)
			return NULL;
		*e = (struct map_entry){key, 0};
		m->count++;
	}
	return &e->value;
}

uint64_t map_get(const struct map *m, uint64_t key)
{
	const struct map_entry *e;

	if (m->capacity == 0)
		return 0;
	e = find(m->entries, m->capacity, key);
	return e->key == key ? e->value : 0;
}
