/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests themselves.
 */
#include <errno.h>
#include <string.h>

#include "lib/values/client.h"
#include "lib/values/internal.h"

/*
 * The order of a thread's requests over all kinds. Where the kind changes, the kind left and the
 * position reached in it go into a running digest; so one read of 8 bytes and two of 4 are the
 * same. Every ORDER_EVERY changes the digest is proposed in the order lane, like a value: the
 * first copy to come there sets it, a copy with another digest learns at once that it has parted.
 */
static uint64_t mix(uint64_t digest, uint64_t x)
{
	/* The finaliser of SplitMix64 (Steele, Lea and Flood, 2014). */
	digest += x + 0x9e3779b97f4a7c15ULL;
	digest = (digest ^ digest >> 30) * 0xbf58476d1ce4e5b9ULL;
	digest = (digest ^ digest >> 27) * 0x94d049bb133111ebULL;
	return digest ^ digest >> 31;
}

static void compare_order(struct thread_state *t)
{
	struct lane *lane = &t->lanes[KIND_ORDER];
	uint64_t ours = t->order_digest & ~SLOT_FILLED, theirs;
	_Atomic uint64_t *slot;
	bool won;
	int r = 0;

	slot = lane_slot(lane, &t->owner, KIND_ORDER, &r);
	if (!slot)
		return; /* the next request for a value meets the same and deals with it */
	theirs = atomic_load_explicit(slot, memory_order_acquire);
	won = false;
	if (!theirs)
		theirs = values_propose(&t->owner, &t->request, lane, KIND_ORDER, slot, ours, &won);
	if (!theirs)
		return;
	theirs &= ~SLOT_FILLED;
	if (theirs != ours)
		(void)member_diverge(t->owner.segment, t->owner.member, DIVERGED_ORDER,
			t->owner.lineage, KIND_ORDER, lane_ordinal(lane));
	lane_consume(lane, won);
}

static __attribute__((noinline)) void change_kind(struct thread_state *t, unsigned int kind)
{
	const struct cursor *left = t->lanes[t->order_kind].cursor;

	if (left) {
		uint64_t position = atomic_load_explicit(&left->position, memory_order_relaxed);

		t->order_digest = mix(mix(t->order_digest, t->order_kind), position);
		if (++t->order_switches % ORDER_EVERY == 0)
			compare_order(t);
	}
	t->order_kind = kind;
}

static inline void note_order(struct thread_state *t, unsigned int kind)
{
	if (unlikely(t->order_kind != kind))
		change_kind(t, kind);
}

static __attribute__((noinline)) void note_time(struct thread_state *t, struct lane *lane)
{
	lane_note_time(lane, &t->owner, values_now(CLOCK_REALTIME));
}

static inline void note_audit(struct thread_state *t, struct lane *lane)
{
	if (unlikely(values_process.audit_full))
		note_time(t, lane);
}

/* Begins the next span of a lane's stream with the seed that the lane's slot names. */
static int begin_span(
	struct lane *lane, struct stream *st, const struct lane_owner *owner, struct request **mine)
{
	const struct segment *s = owner->segment;
	_Atomic uint64_t *slot;
	const struct seed *seed;
	uint64_t word, position;
	bool won;
	int r = 0;

	slot = lane_slot(lane, owner, KIND_RANDOM, &r);
	if (!slot)
		return r;
	word = atomic_load_explicit(slot, memory_order_acquire);
	if (!word)
		word = values_propose(owner, mine, lane, KIND_RANDOM, slot,
			atomic_load(&segment_header(s)->seed), &won);
	if (!word)
		return -ENOSPC;
	seed = seed_at(s, word & ~SLOT_FILLED);
	if (!seed)
		return -EBADMSG;
	stream_begin(st, seed->bytes, owner->lineage->entry.key, lane_ordinal(lane));
	/* A stream's position counts bytes, not seeds: only the index moves. */
	position = atomic_load_explicit(&lane->cursor->position, memory_order_relaxed);
	lane_consume(lane, false);
	atomic_store_explicit(&lane->cursor->position, position, memory_order_relaxed);
	return 0;
}

int values_draw(struct lane *lane, struct stream *st, const struct lane_owner *owner,
	struct request **mine, uint8_t *out, size_t n)
{
	size_t left = n;

	while (left > 0) {
		if (unlikely(stream_needs_span(st))) {
			int r = begin_span(lane, st, owner, mine);

			if (r < 0)
				return r;
		}
		size_t got = stream_draw(st, out, left);

		out += got;
		left -= got;
	}
	atomic_store_explicit(&lane->cursor->position,
		atomic_load_explicit(&lane->cursor->position, memory_order_relaxed) + n,
		memory_order_release);
	return 0;
}

int values_random(void *out, size_t n)
{
	struct thread_state *t = values_enter();
	struct lane *lane;
	int r;

	if (!t)
		return -ENOTCONN;
	if (n == 0) {
		values_leave(t);
		return 0;
	}
	note_order(t, KIND_RANDOM);
	lane = &t->lanes[KIND_RANDOM];
	r = values_draw(lane, &t->random, &t->owner, &t->request, out, n);
	if (unlikely(r < 0))
		r = values_give_up(t, KIND_RANDOM, r);
	else
		note_audit(t, lane);
	values_leave(t);
	return r;
}

/* What the member's own clock is ahead of the group's. */
static int64_t shift_of(int clock_id)
{
	const struct member *m = values_process.member;

	switch (clock_id) {
	case CLOCK_MONOTONIC:
	case CLOCK_MONOTONIC_COARSE:
	case CLOCK_MONOTONIC_RAW:
		return m->shift_mono_ns;
	case CLOCK_BOOTTIME:
	case CLOCK_BOOTTIME_ALARM:
		return m->shift_boot_ns;
	default:
		return 0;
	}
}

/* Not in any family: CLOCK_MONOTONIC_RAW, which drifts from the others, and CLOCK_TAI. */
static inline enum clock_family clock_family(int clock_id)
{
	static const uint8_t families[CLOCK_LAST + 1] = {
		[CLOCK_REALTIME] = FAMILY_REALTIME,
		[CLOCK_REALTIME_COARSE] = FAMILY_REALTIME,
		[CLOCK_REALTIME_ALARM] = FAMILY_REALTIME,
		[CLOCK_MONOTONIC] = FAMILY_MONOTONIC,
		[CLOCK_MONOTONIC_COARSE] = FAMILY_MONOTONIC,
		[CLOCK_BOOTTIME] = FAMILY_BOOTTIME,
		[CLOCK_BOOTTIME_ALARM] = FAMILY_BOOTTIME,
	};

	return (unsigned int)clock_id < ARRAY_SIZE(families) ? (enum clock_family)families[clock_id]
							     : FAMILY_NONE;
}

/*
 * The value to propose for a reading: the group's time by this host's clock, never behind what
 * the thread was given before by another member, so that a new source goes on monotonically.
 */
static int make_reading(
	struct thread_state *t, int clock_id, enum clock_family family, uint64_t *ret)
{
	struct timespec ts;
	uint64_t now;

	if (values_real_clock(clock_id, &ts) < 0)
		return -EINVAL;
	now = (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
	now -= (uint64_t)shift_of(clock_id);
	if (family != FAMILY_NONE) {
		struct clock_view *view = &t->clocks[family];
		uint64_t own = now;

		now = MAX(now, view->floor);
		view->ahead = (int64_t)(own - now);
	}
	*ret = now & ~SLOT_FILLED;
	return 0;
}

/*
 * How far the thread is behind the group: a copy that runs an hour later reads clocks of an hour
 * ago, and what it computes from them must last as long for it as for the others.
 *
 * Measured at a thread's first reading that another member made, and again when a deadline is
 * used after such a reading. By then a little more has passed than at the reading, so the
 * smallest measurement counts; a loop that adds a period to its first reading stays in step, and
 * a copy that was stopped for a while sleeps less until it has caught up.
 */
static __attribute__((noinline)) void measure_lag(struct clock_view *view, enum clock_family family)
{
	static const clockid_t clocks[] = {
		[FAMILY_REALTIME] = CLOCK_REALTIME,
		[FAMILY_MONOTONIC] = CLOCK_MONOTONIC,
		[FAMILY_BOOTTIME] = CLOCK_BOOTTIME,
	};
	static_assert(ARRAY_SIZE(clocks) == CLOCK_FAMILIES, "one clock per family");
	int64_t lag = (int64_t)values_now(clocks[family]) - shift_of(clocks[family]) -
		      (int64_t)view->last;

	view->lag = view->settled ? MIN(view->lag, lag) : lag;
	view->settled = view->known = true;
	/* For threads that wait without ever reading a clock. */
	atomic_store(&values_process.lag[family], view->lag);
}

static inline void note_reading(
	struct thread_state *t, enum clock_family family, uint64_t value, bool made)
{
	struct clock_view *view;

	if (family == FAMILY_NONE)
		return;
	view = &t->clocks[family];
	view->last = value;
	view->seen = true;
	view->known = made;
	if (made) {
		view->lag = view->ahead;
		return;
	}
	view->floor = value;
	if (unlikely(!view->settled))
		measure_lag(view, family);
}

/*
 * What values_clock() does when it cannot simply take what is there: the lane must go on to
 * another chunk, or this is the first asker. Apart, so that a later asker's way is short.
 */
static __attribute__((noinline)) int first_reading(
	struct thread_state *t, int clock_id, uint64_t *ret_word, bool *ret_won)
{
	const unsigned int kind = kind_of_clock(clock_id);
	_Atomic uint64_t *slot;
	uint64_t now;
	int r = 0;

	slot = lane_slot(&t->lanes[kind], &t->owner, kind, &r);
	if (!slot)
		return values_give_up(t, kind, r);
	*ret_won = false;
	*ret_word = atomic_load_explicit(slot, memory_order_acquire);
	if (*ret_word)
		return 0;
	r = make_reading(t, clock_id, clock_family(clock_id), &now);
	if (r < 0)
		return r;
	*ret_word =
		values_propose(&t->owner, &t->request, &t->lanes[kind], kind, slot, now, ret_won);
	return *ret_word ? 0 : values_give_up(t, kind, -ENOSPC);
}

int values_clock(int clock_id, uint64_t *ret_ns)
{
	const unsigned int kind = kind_of_clock(clock_id);
	struct thread_state *t = values_enter();
	struct lane *lane;
	uint64_t word = 0;
	bool won = false;

	if (unlikely(!t))
		return -ENOTCONN;
	note_order(t, kind);
	lane = &t->lanes[kind];
	if (likely(lane->index < lane->count))
		word = atomic_load_explicit(&lane->chunk->slots[lane->index], memory_order_acquire);
	if (unlikely(!word)) {
		int r = first_reading(t, clock_id, &word, &won);

		if (r < 0) {
			values_leave(t);
			return r;
		}
	}
	word &= ~SLOT_FILLED;
	note_reading(t, clock_family(clock_id), word, won);
	lane_consume(lane, won);
	note_audit(t, lane);
	values_leave(t);
	*ret_ns = word;
	return 0;
}

int values_word(enum value_kind kind, uint64_t (*make)(void *context), void *context, uint64_t *ret)
{
	struct thread_state *t = values_enter();
	_Atomic uint64_t *slot;
	struct lane *lane;
	bool won = false;
	uint64_t word;
	int r = 0;

	if (!t)
		return -ENOTCONN;
	note_order(t, kind);
	lane = &t->lanes[kind];
	slot = lane_slot(lane, &t->owner, kind, &r);
	if (!slot) {
		r = values_give_up(t, kind, r);
		values_leave(t);
		return r;
	}
	word = atomic_load_explicit(slot, memory_order_acquire);
	if (!word)
		word = values_propose(&t->owner, &t->request, lane, kind, slot,
			make(context) & ~SLOT_FILLED, &won);
	if (!word) {
		r = values_give_up(t, kind, -ENOSPC);
		values_leave(t);
		return r;
	}
	lane_consume(lane, won);
	note_audit(t, lane);
	values_leave(t);
	*ret = word & ~SLOT_FILLED;
	return 0;
}

/* Makes a value into a cell of its own. Returns the cell, or NULL with *ret_error set. */
static struct cell *make_cell(const struct thread_state *t, uint64_t parameters,
	ssize_t (*make)(void *context, void *out, size_t size), void *context, void *out,
	size_t size, int *ret_error)
{
	struct cell *c;
	ssize_t n = make(context, out, MIN(size, CELL_MAX));

	if (n < 0) {
		*ret_error = (int)n;
		return NULL;
	}
	c = cell_make(t->owner.segment, out, (uint32_t)n, parameters);
	if (!c)
		*ret_error = -ENOSPC;
	return c;
}

ssize_t values_cell(enum value_kind kind, uint64_t parameters,
	ssize_t (*make)(void *context, void *out, size_t size), void *context, void *out,
	size_t size)
{
	struct thread_state *t = values_enter();
	const struct segment *s;
	const struct cell *cell;
	_Atomic uint64_t *slot;
	struct lane *lane;
	bool won = false;
	uint64_t word;
	ssize_t n;
	int r = 0;

	if (!t)
		return -ENOTCONN;
	s = t->owner.segment;
	note_order(t, kind);
	lane = &t->lanes[kind];
	slot = lane_slot(lane, &t->owner, kind, &r);
	if (!slot)
		goto give_up;
	word = atomic_load_explicit(slot, memory_order_acquire);
	if (!word) {
		cell = make_cell(t, parameters, make, context, out, size, &r);
		if (!cell && r == -ENOSPC)
			goto give_up;
		if (!cell) {
			values_leave(t);
			return r;
		}
		word = values_propose(
			&t->owner, &t->request, lane, kind, slot, segment_offset(s, cell), &won);
		r = -ENOSPC;
		if (!word)
			goto give_up;
	}
	cell = cell_at(s, word & ~SLOT_FILLED);
	r = -EBADMSG;
	if (!cell)
		goto give_up;
	if (cell->parameters != parameters)
		(void)member_diverge(s, t->owner.member, DIVERGED_PARAMETERS, t->owner.lineage,
			kind, lane_ordinal(lane));
	n = -EMSGSIZE;
	if (cell->size <= size) {
		n = cell->size;
		memcpy(out, cell->bytes, cell->size);
	}
	lane_consume(lane, won);
	note_audit(t, lane);
	values_leave(t);
	return n;
give_up:
	r = values_give_up(t, kind, r);
	values_leave(t);
	return r;
}

void values_deadline(int clock_id, struct timespec *deadline)
{
	enum clock_family family = clock_id == CLOCK_TAI ? FAMILY_REALTIME : clock_family(clock_id);
	struct clock_view *view;
	struct thread_state *t;
	int64_t ns, lag;

	if (family == FAMILY_NONE || deadline->tv_nsec < 0 || deadline->tv_nsec >= NSEC_PER_SEC ||
		deadline->tv_sec < 0 || deadline->tv_sec > INT64_MAX / NSEC_PER_SEC / 2)
		return; /* nothing of ours, or for the callee to refuse, or for ever */
	t = values_enter();
	if (!t)
		return;
	view = &t->clocks[family];
	if (view->seen && !view->known)
		measure_lag(view, family);
	lag = view->seen ? view->lag : atomic_load(&values_process.lag[family]);
	values_leave(t);
	ns = deadline->tv_sec * NSEC_PER_SEC + deadline->tv_nsec + lag + shift_of(clock_id);
	ns = MAX(ns, 0);
	deadline->tv_sec = ns / NSEC_PER_SEC;
	deadline->tv_nsec = ns % NSEC_PER_SEC;
}
