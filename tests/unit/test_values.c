/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "core/values/journal.h"
#include "core/values/lane.h"
#include "core/values/segment.h"
#include "core/values/stream.h"
#include "unit.h"

#define SIZE (8ULL << 20)

static struct segment_options options(void)
{
	struct segment_options o = {
		.group = "test",
		.size = SIZE,
		.created = {.real_ns = 1700000000000000000ULL},
		.committed = SIZE,
	};

	memset(o.seed, 7, sizeof(o.seed));
	return o;
}

static int set_up(void **state)
{
	struct segment *s = calloc(1, sizeof(*s));
	const struct segment_options o = options();

	assert_non_null(s);
	s->size = SIZE;
	s->base = aligned_alloc(4096, SIZE);
	assert_non_null(s->base);
	memset(s->base, 0, SIZE);
	segment_format(s, &o);
	*state = s;
	return 0;
}

static int tear_down(void **state)
{
	struct segment *s = *state;

	free(s->base);
	free(s);
	return 0;
}

static void a_header_is_checked(void **state)
{
	struct segment *s = *state;
	uint8_t copy[SEGMENT_HEADER];
	uint64_t size = 0;
	struct err e;

	memcpy(copy, s->base, sizeof(copy));
	assert_ok(segment_check(copy, sizeof(copy), SIZE, &size, &e));
	assert_int_equal(segment_check(copy, 100, SIZE, &size, &e), -EBADMSG);
	assert_int_equal(segment_check(copy, sizeof(copy), SIZE - 1, &size, &e), -EBADMSG);
	assert_int_equal(e.code, ERR_CORRUPT);
	assert_true(size == SIZE);
	/* Every bit of the fixed part matters. */
	for (size_t i = 0; i < offsetof(struct segment_header, crc) + 4; i++) {
		copy[i] ^= 0x10;
		assert_true(segment_check(copy, sizeof(copy), SIZE, &size, &e) < 0);
		copy[i] ^= 0x10;
	}
	copy[8] = 9;
	assert_int_equal(segment_check(copy, sizeof(copy), SIZE, &size, &e), -EPROTONOSUPPORT);
	assert_int_equal(e.code, ERR_VERSION);
	assert_true(e.hint[0] != '\0');
}

static void lineages_are_found_again_and_named(void **state)
{
	const struct segment *s = *state;
	struct lineage *root = lineage_get(s, NULL, STEP_PROGRAM, 0, "redis-server");
	struct lineage *thread = lineage_get(s, root, STEP_THREAD, 2, NULL);
	struct lineage *child = lineage_get(s, thread, STEP_PROCESS, 1, NULL);
	struct lineage *exec = lineage_get(s, child, STEP_EXEC, 0, "date");
	struct lineage *task = lineage_get(s, root, STEP_NAMED, 0, "task-7");
	struct lineage *again = lineage_get(s, NULL, STEP_PROGRAM, 3, "redis-server");
	char name[100];

	assert_non_null(exec);
	assert_ptr_equal(lineage_get(s, NULL, STEP_PROGRAM, 0, "redis-server"), root);
	assert_ptr_equal(lineage_get(s, child, STEP_EXEC, 0, "date"), exec);
	assert_ptr_not_equal(lineage_get(s, child, STEP_EXEC, 0, "dates"), exec);
	assert_ptr_not_equal(lineage_get(s, root, STEP_THREAD, 3, NULL), thread);
	assert_ptr_not_equal(again, root);
	assert_int_equal(lineage_format(s, exec, name, sizeof(name)), 23);
	assert_string_equal(name, "redis-server/t2/p1/date");
	(void)lineage_format(s, task, name, sizeof(name));
	assert_string_equal(name, "redis-server/@task-7");
	(void)lineage_format(s, again, name, sizeof(name));
	assert_string_equal(name, "redis-server#3");
	/* Too small a buffer is filled and the whole length told. */
	assert_int_equal(lineage_format(s, exec, name, 10), 23);
	assert_string_equal(name, "redis-ser");
	/* What does not fit into the record still tells names apart. */
	assert_ptr_not_equal(lineage_get(s, NULL, STEP_PROGRAM, 0, "a-name-longer-than-23-chars-1"),
		lineage_get(s, NULL, STEP_PROGRAM, 0, "a-name-longer-than-23-chars-2"));
	for (int i = 0; i < 100; i++)
		exec = lineage_get(s, exec, STEP_PROCESS, 1, NULL);
	assert_true(lineage_format(s, exec, name, sizeof(name)) < sizeof(name));
	assert_memory_equal(name, ".../p1/", 7);
}

#define RACERS 4
#define ROUNDS 20000

struct racer {
	const struct segment *s;
	struct member *member;
	uint64_t id;
	uint64_t digest, made;
};

static void *race(void *argument)
{
	struct racer *r = argument;
	struct lane lane = {0};

	/* Everybody also races for the records on the way. */
	for (uint32_t i = 0; i < 50; i++) {
		struct lineage *root = lineage_get(r->s, NULL, STEP_PROGRAM, i, "race");
		struct lane_owner owner = {
			r->s, r->member, lineage_get(r->s, root, STEP_THREAD, i, NULL)};

		lane = (struct lane){0};
		for (uint64_t k = 0; k < ROUNDS / 50; k++) {
			_Atomic uint64_t *slot;
			uint64_t word;
			bool won = false;
			int error = 0;

			slot = lane_slot(&lane, &owner, KIND_CLOCK, &error);
			if (!slot)
				return NULL;
			word = atomic_load_explicit(slot, memory_order_acquire);
			if (!word)
				word = lane_propose(slot, r->id << 32 | k, &won);
			lane_consume(&lane, won);
			r->made += won;
			r->digest = (r->digest ^ word) * 0x100000001b3ULL;
		}
	}
	return NULL;
}

static void racing_askers_agree_and_each_slot_has_one_maker(void **state)
{
	const struct segment *s = *state;
	struct racer racers[RACERS];
	pthread_t threads[RACERS];
	uint64_t made = 0;

	for (size_t i = 0; i < RACERS; i++) {
		racers[i] = (struct racer){.s = s, .member = member_add(s, NULL), .id = i + 1};
		assert_non_null(racers[i].member);
		assert_ok(pthread_create(&threads[i], NULL, race, &racers[i]));
	}
	for (size_t i = 0; i < RACERS; i++) {
		assert_ok(pthread_join(threads[i], NULL));
		assert_true(racers[i].digest == racers[0].digest);
		made += racers[i].made;
	}
	assert_int_equal(made, ROUNDS);
}

static int sum(void *context, uint64_t ordinal, uint64_t word)
{
	uint64_t *at = context;

	assert_int_equal(ordinal, at[0]);
	at[0]++;
	at[1] += word;
	return 0;
}

static void a_lane_is_read_back_in_order(void **state)
{
	const struct segment *s = *state;
	struct lane_owner owner = {
		s, member_add(s, "a"), lineage_get(s, NULL, STEP_PROGRAM, 0, "p")};
	struct lane lane = {0};
	uint64_t all[2] = {0, 0}, part[2] = {4990, 0};
	struct walk w;

	for (uint64_t i = 0; i < 5000; i++) {
		int error = 0;
		bool won;
		_Atomic uint64_t *slot = lane_slot(&lane, &owner, KIND_TSC, &error);

		assert_non_null(slot);
		assert_int_equal(lane_ordinal(&lane), i);
		(void)lane_propose(slot, i, &won);
		assert_true(won);
		lane_consume(&lane, won);
		lane_note_time(&lane, &owner, 1000 + i);
	}
	assert_ok(lane_each(s, owner.lineage, KIND_TSC, 0, UINT64_MAX, sum, all));
	assert_int_equal(all[0], 5000);
	assert_int_equal(all[1], 5000ULL * 4999 / 2);
	assert_ok(lane_each(s, owner.lineage, KIND_TSC, 4990, 5000, sum, part));
	assert_int_equal(part[0], 5000);
	w = walk_cursors(s, owner.member);
	assert_ptr_equal(cursor_next(s, &w), lane.cursor);
	assert_null(cursor_next(s, &w));
	assert_int_equal(atomic_load(&lane.cursor->position), 5000);
	assert_int_equal(atomic_load(&lane.cursor->made), 5000);
	assert_int_equal(atomic_load(&lane.cursor->noted), 10000);
	all[0] = all[1] = 0;
	assert_ok(times_each(s, lane.cursor, 0, 10000, sum, all));
	assert_int_equal(all[1], 5000ULL * 1000 + 5000ULL * 4999 / 2 + 5000ULL * 5001 / 2);
}

static void a_stream_is_what_its_description_says(void **state)
{
	static const uint8_t seed[32] = {1, 2, 3}, lineage[16] = {9, 8, 7, 6, 5, 4, 3, 2, 1};
	uint8_t ours[3 * STREAM_REFILL], theirs[32 + STREAM_REFILL], nonce[12], key[64],
		zero[12] = {0};
	struct stream st = {0};
	size_t n = 0;

	(void)state;
	stream_begin(&st, seed, lineage, 5);
	while (n < sizeof(ours))
		n += stream_draw(&st, ours + n, MIN(sizeof(ours) - n, 7U));
	/* The same with another implementation, from the formulas in stream.h. */
	memcpy(nonce, lineage, 12);
	assert_ok(crypto_stream_chacha20_ietf(key, 64, nonce, seed));
	memcpy(nonce, lineage + 12, 4);
	memcpy(nonce + 4, (uint8_t[8]){5}, 8);
	assert_ok(crypto_stream_chacha20_ietf(theirs, 64, nonce, key));
	memcpy(key, theirs, 32);
	for (size_t i = 0; i < 3; i++) {
		assert_ok(crypto_stream_chacha20_ietf(theirs, sizeof(theirs), zero, key));
		assert_memory_equal(ours + i * STREAM_REFILL, theirs + 32, STREAM_REFILL);
		memcpy(key, theirs, 32);
	}
	/* What was drawn is gone. */
	for (size_t i = 0; i < STREAM_REFILL; i++)
		assert_int_equal(st.bytes[i], 0);
}

static void a_span_ends_and_the_next_takes_the_current_seed(void **state)
{
	const struct segment *s = *state;
	struct lineage *l = lineage_get(s, NULL, STEP_PROGRAM, 0, "p");
	struct lane_owner owner = {s, member_add(s, "a"), l};
	struct lane lane = {0};
	static uint8_t drawn[2 * STREAM_SPAN], again[4096];
	uint8_t other_seed[32] = {42};
	struct stream st = {0};
	size_t n = 0;

	assert_int_equal(stream_recompute(s, l, 0, again, 16), -ENODATA);
	for (uint64_t span = 0; span < 2; span++) {
		int error = 0;
		bool won;
		_Atomic uint64_t *slot = lane_slot(&lane, &owner, KIND_RANDOM, &error);
		uint64_t seed = atomic_load(&segment_header(s)->seed);

		assert_non_null(slot);
		assert_true(lane_propose(slot, seed, &won) == (seed | SLOT_FILLED));
		lane_consume(&lane, won);
		stream_begin(&st, seed_at(s, seed)->bytes, l->entry.key, span);
		while (!stream_needs_span(&st))
			n += stream_draw(&st, drawn + n, 1000);
		/* A new seed in the middle of a span counts from the next on. */
		assert_ok(segment_reseed(s, other_seed, 1));
	}
	assert_int_equal(n, sizeof(drawn));
	assert_ok(stream_recompute(s, l, STREAM_SPAN - 2000, again, sizeof(again)));
	assert_memory_equal(again, drawn + STREAM_SPAN - 2000, sizeof(again));
	assert_ok(stream_recompute(s, l, 1, again, 77));
	assert_memory_equal(again, drawn + 1, 77);
	assert_int_equal(stream_recompute(s, l, 2 * STREAM_SPAN - 5, again, 10), -ENODATA);
}

static void processes_and_ids_belong_to_their_member(void **state)
{
	const struct segment *s = *state;
	struct member *a = member_add(s, "a"), *b = member_add(s, NULL);
	const struct lineage *l = lineage_get(s, NULL, STEP_PROGRAM, 0, "p");
	const struct process *p;
	struct walk w;
	bool made;

	assert_string_equal(a->name, "a");
	assert_string_equal(b->name, "m2");
	p = process_claim(s, a, l, 100, 100, 1, &made);
	assert_true(made && p);
	assert_ptr_equal(process_claim(s, a, l, 101, 101, 2, &made), p);
	assert_false(made);
	assert_ptr_not_equal(process_claim(s, b, l, 200, 100, 3, &made), p);
	assert_true(made);
	w = walk_processes(s, a);
	assert_ptr_equal(process_next(s, &w), p);
	assert_null(process_next(s, &w));

	assert_ok(pid_note(s, b, 200, 100));
	assert_int_equal(pid_lookup(s, b, PID_TO_REAL, 100), 200);
	assert_int_equal(pid_lookup(s, b, PID_TO_VIRTUAL, 200), 100);
	assert_int_equal(pid_lookup(s, a, PID_TO_REAL, 100), 100);
	assert_int_equal(pid_lookup(s, b, PID_TO_REAL, 5), 5);
	/* The kernel gave the id to another process of the member, which has its own virtual id. */
	assert_ok(pid_note(s, b, 200, 200));
	assert_int_equal(pid_lookup(s, b, PID_TO_VIRTUAL, 200), 200);

	assert_true(member_diverge(s, a, DIVERGED_ORDER, l, KIND_ORDER, 3));
	assert_false(member_diverge(s, a, DIVERGED_FULL, l, KIND_PID, 4));
	assert_int_equal(atomic_load(&a->diverged), DIVERGED_ORDER);
	assert_int_equal(atomic_load(&a->diverged_ordinal), 3);
	for (unsigned int why = DIVERGED_NOT; why <= DIVERGED_DAMAGED; why++)
		assert_string_not_equal(divergence_name(why), "?");
	assert_string_equal(divergence_name(99), "?");
}

static void cells_hold_what_was_put_in(void **state)
{
	const struct segment *s = *state;
	static uint8_t large[CELL_MAX + 1];
	struct cell *c = cell_make(s, "hello", 5, 77);

	assert_non_null(c);
	assert_ptr_equal(cell_at(s, segment_offset(s, c)), c);
	assert_memory_equal(c->bytes, "hello", 5);
	assert_null(cell_make(s, large, CELL_MAX + 1, 0));
	assert_non_null(cell_make(s, large, CELL_MAX, 0));
	assert_null(cell_at(s, 0));
	assert_null(cell_at(s, SIZE));
	assert_null(cell_at(s, SIZE - 8));
	assert_null(cell_at(s, segment_offset(s, c) + 1));
	c->size = CELL_MAX + 1;
	assert_null(cell_at(s, segment_offset(s, c)));
}

struct limit {
	unsigned int calls, fail_at;
	bool persistent;
};

static int limited_extend(void *context, uint64_t upto)
{
	struct limit *l = context;
	unsigned int call = l->calls++;

	(void)upto;
	return call == l->fail_at || (l->persistent && call > l->fail_at) ? -ENOSPC : 0;
}

/* Draws until the segment refuses or enough was drawn; returns how many values there were. */
static uint64_t draw_until_full(const struct segment *s, uint64_t most)
{
	struct lane_owner owner = {s, member_add(s, NULL), NULL};
	uint64_t n = 0;

	for (uint32_t thread = 0; owner.member && n < most; thread++) {
		struct lane lane = {0};

		owner.lineage = lineage_get(s, NULL, STEP_PROGRAM, thread, "filler");
		for (int i = 0; owner.lineage && i < 1000; i++, n++) {
			int error = 0;
			bool won;
			_Atomic uint64_t *slot = lane_slot(&lane, &owner, KIND_CLOCK, &error);

			if (!slot) {
				assert_int_equal(error, -ENOSPC);
				return n;
			}
			(void)lane_propose(slot, (uint64_t)i, &won);
			lane_consume(&lane, won);
		}
		if (!owner.lineage)
			break;
	}
	return n;
}

/* Every link leads to something whole, whatever allocation failed. */
static void check_integrity(const struct segment *s)
{
	struct walk members = walk_members(s);
	const struct member *m;

	while ((m = member_next(s, &members))) {
		struct walk cursors = walk_cursors(s, m);
		const struct cursor *c;

		while ((c = cursor_next(s, &cursors))) {
			const struct lineage *l = lineage_at(s, c->lineage);
			uint64_t position = atomic_load(&c->position), seen[2] = {0, 0};

			assert_non_null(l);
			assert_ok(lane_each(s, l, c->kind, 0, position, sum, seen));
			assert_int_equal(seen[0], position);
		}
	}
}

static void every_failing_extension_leaves_a_whole_segment(void **state)
{
	struct segment *s = *state;
	struct segment_options o = options();
	bool fired = true;

	o.committed = round_up_u64(SEGMENT_HEAP, SEGMENT_STEP);
	for (unsigned int at = 0; fired; at++) {
		for (int persistent = 0; persistent < 2; persistent++) {
			struct limit limit = {.fail_at = at, .persistent = persistent};

			memset(s->base, 0, SIZE);
			s->extend = limited_extend;
			s->context = &limit;
			segment_format(s, &o);
			assert_true(draw_until_full(s, UINT64_MAX) > 0);
			assert_true(atomic_load(&segment_header(s)->refused) > 0);
			check_integrity(s);
			fired = limit.calls > at;
			/* After one failure the next attempt has room again. */
			if (fired && !persistent)
				assert_true(draw_until_full(s, 100) >= 100);
		}
	}
	s->extend = NULL;
}

/* splitmix64: the seed is fixed, so that a finding comes back. */
static uint64_t next_random(uint64_t *x)
{
	uint64_t z = *x += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static int ignore(void *context, uint64_t ordinal, uint64_t word)
{
	(void)context;
	(void)ordinal;
	(void)word;
	return 0;
}

/* Everything that a reader of a hostile segment does. The sanitizer says whether it stays inside.
 */
static void read_everything(const struct segment *s)
{
	struct walk members = walk_members(s);
	const struct member *m;
	char name[200];

	while ((m = member_next(s, &members)) && members.left > SIZE / SEGMENT_ALIGN - 100) {
		struct walk cursors = walk_cursors(s, m), processes = walk_processes(s, m);
		const struct cursor *c;

		while ((c = cursor_next(s, &cursors)) &&
			cursors.left > SIZE / SEGMENT_ALIGN - 100) {
			const struct lineage *l = lineage_at(s, c->lineage);
			uint8_t bytes[16];

			if (!l)
				continue;
			(void)lineage_format(s, l, name, sizeof(name));
			(void)lane_each(s, l, c->kind % KINDS, 0, 100, ignore, NULL);
			(void)stream_recompute(s, l, 0, bytes, sizeof(bytes));
			(void)times_each(s, c, 0, 100, ignore, NULL);
		}
		while (process_next(s, &processes) && processes.left > SIZE / SEGMENT_ALIGN - 100)
			continue;
		(void)pid_lookup(s, m, PID_TO_REAL, 7);
	}
}

static void a_hostile_segment_leads_nobody_outside(void **state)
{
	struct segment *s = *state;
	const struct segment_options o = options();
	uint64_t x = 20260131, used;
	uint8_t *good = malloc(SIZE);

	assert_non_null(good);
	for (uint32_t i = 0; i < 20; i++) {
		struct member *m = member_add(s, NULL);
		struct lane_owner owner = {s, m, lineage_get(s, NULL, STEP_PROGRAM, i % 5, "p")};
		struct lane lane = {0};
		int error;
		bool made, won;

		(void)process_claim(s, m, owner.lineage, i, i, 0, &made);
		(void)pid_note(s, m, i, i + 1000);
		for (int k = 0; k < 40; k++) {
			_Atomic uint64_t *slot = lane_slot(&lane, &owner, KIND_CUSTOM, &error);

			(void)lane_propose(slot, segment_offset(s, cell_make(s, &k, 4, 1)), &won);
			lane_consume(&lane, won);
			lane_note_time(&lane, &owner, 5);
		}
	}
	used = atomic_load(&segment_header(s)->heap_next);
	memcpy(good, s->base, used);
	for (int round = 0; round < 3000; round++) {
		memcpy(s->base, good, used);
		for (int i = 0; i < 30; i++) {
			/* Words, since what hurts is a wrong offset; behind the checked header. */
			uint64_t at = 192 + next_random(&x) % (used - 200) / 8 * 8;
			uint64_t value = next_random(&x);

			if (i % 3 == 0)
				value %= 2 * SIZE;
			if (i % 3 == 1)
				value = value % used / 64 * 64;
			/* Half of them in the heap's records, not in empty buckets. */
			if (i % 2)
				at = SEGMENT_HEAP + at % (used - SEGMENT_HEAP) / 8 * 8;
			memcpy(s->base + at, &value, 8);
		}
		read_everything(s);
		if (round % 10 == 0)
			(void)draw_until_full(s, 100);
	}
	memset(s->base, 0, SIZE);
	segment_format(s, &o);
	free(good);
}

struct seen {
	unsigned int cursors, ranges;
	struct journal_cursor cursor;
	struct journal_batch batch;
	struct journal_range range;
};

static int see_cursor(void *context, const struct journal_cursor *c)
{
	struct seen *seen = context;

	seen->cursors++;
	seen->cursor = *c;
	return 0;
}

static int see_range(
	void *context, const struct journal_batch *batch, const struct journal_range *range)
{
	struct seen *seen = context;

	seen->ranges++;
	seen->batch = *batch;
	seen->range = *range;
	return 0;
}

static void a_journal_is_read_as_it_was_written(void **state)
{
	static const uint8_t group[16] = {1, 2, 3}, other[16] = {4};
	const struct journal_cursor c = {.id = 4096,
		.member = 3,
		.lineage_key = {5, 6},
		.kind = KIND_CLOCK,
		.lineage = 140000,
		.member_name = "a",
		.lane = "python3/t1"};
	const struct journal_range ranges[] = {{4096, 0, 7}, {4096, 7, 1ULL << 40}};
	CLEANUP_BUF struct buf b = BUF_INIT(1 << 20);
	struct seen seen = {0};
	const struct journal_visitor v = {&seen, see_cursor, see_range};
	size_t whole, first;
	struct err e;

	(void)state;
	journal_put_header(&b, group);
	assert_int_equal(b.size, JOURNAL_HEADER);
	journal_put_cursor(&b, &c);
	first = b.size;
	journal_put_batch(&b, 1700000000000000000ULL, 8000000, ranges, 2);
	assert_ok(buf_error(&b));
	assert_ok(journal_check(b.data, b.size, group, &e));
	assert_int_equal(journal_check(b.data, b.size, other, &e), -EEXIST);
	assert_int_equal(journal_check(b.data, 20, group, &e), -EBADMSG);
	assert_ok(journal_read(b.data + JOURNAL_HEADER, b.size - JOURNAL_HEADER, &v, &whole));
	assert_int_equal(whole, b.size - JOURNAL_HEADER);
	assert_int_equal(seen.cursors, 1);
	assert_int_equal(seen.ranges, 2);
	assert_memory_equal(&seen.cursor, &c, sizeof(c));
	assert_true(seen.range.to == 1ULL << 40 && seen.batch.time_ns == 1700000000000000000ULL);
	assert_int_equal(seen.batch.uncertainty_ns, 8000000);

	/* Torn anywhere, exactly the whole frames are read. */
	for (size_t n = JOURNAL_HEADER; n < b.size; n++) {
		seen = (struct seen){0};
		assert_ok(journal_read(b.data + JOURNAL_HEADER, n - JOURNAL_HEADER, &v, &whole));
		assert_int_equal(whole, n < first ? 0 : first - JOURNAL_HEADER);
		assert_int_equal(seen.cursors, n < first ? 0 : 1);
		assert_int_equal(seen.ranges, 0);
	}
	/* Changed anywhere, what is behind the change is not believed. */
	for (size_t i = JOURNAL_HEADER; i < b.size; i++) {
		b.data[i] ^= 0x20;
		seen = (struct seen){0};
		assert_ok(
			journal_read(b.data + JOURNAL_HEADER, b.size - JOURNAL_HEADER, &v, &whole));
		assert_int_equal(whole, i < first ? 0 : first - JOURNAL_HEADER);
		b.data[i] ^= 0x20;
	}
}

static void kinds_have_one_name_each(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < KINDS; i++)
		assert_int_equal(kind_from_name(kind_name(i)), i);
	assert_int_equal(kind_from_name("no such kind"), -1);
	assert_string_equal(kind_name(KINDS), "?");
	for (int id = 0; id <= CLOCK_LAST; id++)
		assert_int_equal(kind_of_clock(id), KIND_CLOCK + id);
	assert_int_equal(kind_of_clock(-6), KIND_CLOCK_DYNAMIC);
	assert_int_equal(kind_of_clock(99), KIND_CLOCK_DYNAMIC);
}

#define WITH_SEGMENT(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SEGMENT(a_header_is_checked),
		WITH_SEGMENT(lineages_are_found_again_and_named),
		WITH_SEGMENT(racing_askers_agree_and_each_slot_has_one_maker),
		WITH_SEGMENT(a_lane_is_read_back_in_order),
		cmocka_unit_test(a_stream_is_what_its_description_says),
		WITH_SEGMENT(a_span_ends_and_the_next_takes_the_current_seed),
		WITH_SEGMENT(processes_and_ids_belong_to_their_member),
		WITH_SEGMENT(cells_hold_what_was_put_in),
		WITH_SEGMENT(every_failing_extension_leaves_a_whole_segment),
		WITH_SEGMENT(a_hostile_segment_leads_nobody_outside),
		cmocka_unit_test(a_journal_is_read_as_it_was_written),
		cmocka_unit_test(kinds_have_one_name_each),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("values", tests, NULL, NULL);
}
