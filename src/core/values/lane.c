/* SPDX-License-Identifier: Apache-2.0 */
#include "core/values/lane.h"

#include <errno.h>

static uint32_t slots_in(uint32_t bytes)
{
	return (bytes - (uint32_t)sizeof(struct chunk)) / 8;
}

static uint32_t chunk_bytes(uint32_t count)
{
	return (uint32_t)sizeof(struct chunk) + 8 * count;
}

/*
 * The chunk that the link leads to, made when there is none yet. Each is twice as large as the
 * one before, so that a thread that asks once costs a cache line and one that asks for ever
 * rarely comes here.
 */
static int follow(const struct segment *s, _Atomic uint64_t *link, uint64_t base,
	uint32_t previous_bytes, struct chunk **ret)
{
	uint64_t offset = atomic_load_explicit(link, memory_order_acquire);
	struct chunk *c;

	if (offset == 0) {
		uint32_t bytes = previous_bytes == 0 ? CHUNK_BYTES_FIRST
						     : MIN(2 * previous_bytes, CHUNK_BYTES_MAX);

		c = segment_alloc(s, bytes);
		if (!c)
			return -ENOSPC;
		c->base = base;
		c->count = slots_in(bytes);
		if (atomic_compare_exchange_strong_explicit(link, &offset, segment_offset(s, c),
			    memory_order_acq_rel, memory_order_acquire)) {
			*ret = c;
			return 0;
		}
	}
	c = segment_at(s, offset, CHUNK_BYTES_FIRST);
	if (!c || c->base != base || c->count == 0 || c->count > slots_in(CHUNK_BYTES_MAX) ||
		!segment_at(s, offset, chunk_bytes(c->count)))
		return -EBADMSG;
	*ret = c;
	return 0;
}

int lane_advance(struct lane *lane, const struct lane_owner *owner, unsigned int kind)
{
	_Atomic uint64_t *link = lane->chunk ? &lane->chunk->next : &owner->lineage->lanes[kind];
	uint64_t base = lane->chunk ? lane->chunk->base + lane->count : 0;
	uint32_t bytes = lane->chunk ? chunk_bytes(lane->count) : 0;
	struct chunk *next;
	int r;

	if (!lane->cursor && owner->member) {
		lane->cursor = cursor_add(owner->segment, owner->member, owner->lineage, kind);
		if (!lane->cursor)
			return -ENOSPC;
	}
	r = follow(owner->segment, link, base, bytes, &next);
	if (r < 0)
		return r;
	lane->chunk = next;
	lane->count = next->count;
	lane->index = 0;
	return 0;
}

_Atomic uint64_t *lane_seek(struct lane *lane, const struct lane_owner *owner, unsigned int kind,
	uint64_t ordinal, int *ret_error)
{
	*ret_error = -ERANGE;
	if (ordinal < lane_ordinal(lane))
		return NULL;
	while (!lane->chunk || ordinal >= lane->chunk->base + lane->count) {
		/* The last slot of a chunk speaks for those before it. */
		if (lane->chunk && atomic_load(&lane->chunk->slots[lane->count - 1]) == 0)
			return NULL;
		*ret_error = lane_advance(lane, owner, kind);
		if (*ret_error < 0)
			return NULL;
		*ret_error = -ERANGE;
	}
	lane->index = (uint32_t)(ordinal - lane->chunk->base);
	if (lane->index > 0 && atomic_load(&lane->chunk->slots[lane->index - 1]) == 0)
		return NULL;
	return &lane->chunk->slots[lane->index];
}

static int append_word(struct lane *lane, const struct lane_owner *owner, uint64_t n, uint64_t word)
{
	struct chunk *next;
	int r;

	if (!lane->times || lane->times_index >= lane->times->count) {
		_Atomic uint64_t *link = lane->times ? &lane->times->next : &lane->cursor->times;
		uint32_t bytes = lane->times ? chunk_bytes(lane->times->count) : 0;

		r = follow(owner->segment, link, n, bytes, &next);
		if (r < 0)
			return r;
		lane->times = next;
		lane->times_index = 0;
	}
	atomic_store_explicit(
		&lane->times->slots[lane->times_index++], word | SLOT_FILLED, memory_order_relaxed);
	return 0;
}

void lane_note_time(struct lane *lane, const struct lane_owner *owner, uint64_t realtime_ns)
{
	struct cursor *c = lane->cursor;
	uint64_t n;

	if (!c)
		return;
	n = atomic_load_explicit(&c->noted, memory_order_relaxed);
	if (append_word(lane, owner, n, realtime_ns) < 0 ||
		append_word(lane, owner, n + 1,
			atomic_load_explicit(&c->position, memory_order_relaxed)) < 0)
		return;
	atomic_store_explicit(&c->noted, n + 2, memory_order_release);
}

static int chunks_each(const struct segment *s, const _Atomic uint64_t *link, uint64_t from,
	uint64_t to, int (*visit)(void *context, uint64_t ordinal, uint64_t word), void *context)
{
	uint64_t base = 0;

	while (base < to) {
		uint64_t offset = atomic_load_explicit(link, memory_order_acquire);
		struct chunk *c;

		if (offset == 0)
			return 0;
		c = segment_at(s, offset, CHUNK_BYTES_FIRST);
		if (!c || c->base != base || c->count == 0 ||
			!segment_at(s, offset, chunk_bytes(c->count)))
			return -EBADMSG;
		for (uint64_t i = from > base ? from - base : 0; i < c->count && base + i < to;
			i++) {
			uint64_t word = atomic_load_explicit(&c->slots[i], memory_order_acquire);
			int r = word ? visit(context, base + i, word & ~SLOT_FILLED) : 0;

			if (r != 0)
				return r;
		}
		base += c->count;
		link = &c->next;
	}
	return 0;
}

int lane_each(const struct segment *s, const struct lineage *l, unsigned int kind, uint64_t from,
	uint64_t to, int (*visit)(void *context, uint64_t ordinal, uint64_t word), void *context)
{
	return chunks_each(s, &l->lanes[kind], from, to, visit, context);
}

int times_each(const struct segment *s, const struct cursor *c, uint64_t from, uint64_t to,
	int (*visit)(void *context, uint64_t ordinal, uint64_t word), void *context)
{
	return chunks_each(s, &c->times, from, to, visit, context);
}
