/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of the member's side; not for those who use it.
 */
#ifndef SOSIE_LIB_VALUES_INTERNAL_H
#define SOSIE_LIB_VALUES_INTERNAL_H

#include <sys/syscall.h>

#include "lib/values/client.h"

/* The system call itself: result or negative errno; errno is not touched. x86-64 only. */
static inline long raw_syscall6(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static inline long raw_syscall(long number, long a, long b, long c, long d)
{
	return raw_syscall6(number, a, b, c, d, 0, 0);
}

/* The real clock in nanoseconds. */
uint64_t values_now(clockid_t id);

uint64_t values_ask_source(const struct lane_owner *owner, struct request **mine, struct lane *lane,
	unsigned int kind, _Atomic uint64_t *slot, uint64_t word, bool *won);

/*
 * Fills an empty slot with the word, or has the source do so. Returns what the slot holds then,
 * with SLOT_FILLED; *won: it was this asker that filled it. 0 when the segment is full. mine: the
 * asker's request record, or NULL the first time.
 */
static inline uint64_t values_propose(const struct lane_owner *owner, struct request **mine,
	struct lane *lane, unsigned int kind, _Atomic uint64_t *slot, uint64_t word, bool *won)
{
	const struct segment_header *h = segment_header(owner->segment);

	if (likely(atomic_load_explicit(&h->role, memory_order_acquire) == ROLE_SOURCE))
		return lane_propose(slot, word, won);
	return values_ask_source(owner, mine, lane, kind, slot, word, won);
}

/*
 * Leaves the group because no value can be had, or ends the process when that is the policy; the
 * member's record says why. Returns -ENOTCONN.
 */
int values_give_up(const struct thread_state *t, unsigned int kind, int error);

/* n zeroed bytes that are given back with munmap(), or NULL. */
void *values_map(size_t n);

/* Gives a state the lineage that its requests are accounted to. */
void values_begin(struct thread_state *t, struct lineage *lineage);

/* n bytes of a random lane. 0 or what lane_slot() says. */
int values_draw(struct lane *lane, struct stream *st, const struct lane_owner *owner,
	struct request **mine, uint8_t *out, size_t n);

/* In a fork's child: what the parent has open or named is forgotten. */
void values_devices_forked(void);
void values_named_forked(void);

#endif
