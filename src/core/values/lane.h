/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread's place in a lane, and the two steps of every request: look at the next slot; when it
 * is empty make a value and propose it, when it is filled take what is there.
 *
 * A lane's state is private to one thread of one process; only slots and the published position
 * are shared.
 */
#ifndef SOSIE_CORE_VALUES_LANE_H
#define SOSIE_CORE_VALUES_LANE_H

#include "core/values/segment.h"

struct lane {
	struct chunk *chunk; /* where the thread stands; NULL before the first request */
	uint32_t index;      /* next slot in it */
	uint32_t count;      /* slots in it: copied, a hostile writer may change the original */
	struct cursor *cursor;
	struct chunk *times; /* audit in full: where the next time goes */
	uint32_t times_index;
};

/* What a thread's requests are accounted to. */
struct lane_owner {
	const struct segment *segment;
	struct member *member; /* NULL: nobody consumes, no cursor is made */
	struct lineage *lineage;
};

/*
 * Steps into the next chunk, making it when nobody has; opens the lane at the first call.
 * 0, -ENOSPC when the segment is full, -EBADMSG when it is damaged.
 */
int lane_advance(struct lane *lane, const struct lane_owner *owner, unsigned int kind);

/*
 * Appends to the cursor's list of exact times a pair of words: when, and the position that the
 * request reached. Failing is no error: the audit falls back to the batch's time.
 */
void lane_note_time(struct lane *lane, const struct lane_owner *owner, uint64_t realtime_ns);

/* The ordinal of the next request. */
static inline uint64_t lane_ordinal(const struct lane *lane)
{
	return lane->chunk ? lane->chunk->base + lane->index : 0;
}

/*
 * The next slot, or NULL with *ret_error set as by lane_advance(). It stays the next one until
 * lane_consume().
 */
static inline _Atomic uint64_t *lane_slot(
	struct lane *lane, const struct lane_owner *owner, unsigned int kind, int *ret_error)
{
	if (unlikely(lane->index >= lane->count)) {
		int r = lane_advance(lane, owner, kind);

		if (r < 0) {
			*ret_error = r;
			return NULL;
		}
	}
	return &lane->chunk->slots[lane->index];
}

/*
 * Proposes a filled word for the slot. Returns the word that the slot has now: the proposed one,
 * with *won set, or the one that was there first.
 */
static inline uint64_t lane_propose(_Atomic uint64_t *slot, uint64_t word, bool *won)
{
	uint64_t there = 0;

	*won = atomic_compare_exchange_strong_explicit(
		slot, &there, word | SLOT_FILLED, memory_order_acq_rel, memory_order_acquire);
	return *won ? word | SLOT_FILLED : there;
}

/* Moves behind the slot and publishes the position. made: this member filled it. */
static inline void lane_consume(struct lane *lane, bool made)
{
	struct cursor *c = lane->cursor;

	lane->index++;
	/* Only this thread writes the cursor: plain additions are enough. */
	atomic_store_explicit(&c->position,
		atomic_load_explicit(&c->position, memory_order_relaxed) + 1, memory_order_release);
	if (made)
		atomic_store_explicit(&c->made,
			atomic_load_explicit(&c->made, memory_order_relaxed) + 1,
			memory_order_relaxed);
}

/*
 * Goes to that ordinal, at or behind where the lane stands, making chunks on the way but no
 * cursor's progress. Returns the slot, or NULL with *ret_error set: -ERANGE when a slot before it
 * is empty.
 */
_Atomic uint64_t *lane_seek(struct lane *lane, const struct lane_owner *owner, unsigned int kind,
	uint64_t ordinal, int *ret_error);

/*
 * Reading a lane from outside: calls visit() for each filled slot with from <= ordinal < to, in
 * order, until it returns non-zero, which is returned. 0 at the end, -EBADMSG when damaged.
 */
int lane_each(const struct segment *s, const struct lineage *l, unsigned int kind, uint64_t from,
	uint64_t to, int (*visit)(void *context, uint64_t ordinal, uint64_t word), void *context);

/* The same over the words of a cursor's exact times. */
int times_each(const struct segment *s, const struct cursor *c, uint64_t from, uint64_t to,
	int (*visit)(void *context, uint64_t ordinal, uint64_t word), void *context);

#endif
