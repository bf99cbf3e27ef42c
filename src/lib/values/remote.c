/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A member on a follower's host that is ahead of what has arrived asks the source.
 */
#include <errno.h>
#include <linux/futex.h>

#include "lib/values/client.h"
#include "lib/values/internal.h"

/*
 * The longest that a wait goes unchecked: a guest cannot be woken through shared memory, and
 * whoever becomes the source wakes nobody.
 */
#define LOOK_AGAIN_NS NSEC_PER_MSEC
/* An agent that took a request and died answers nobody: after so many looks it is posted again. */
#define POST_AGAIN_LOOKS 100

static void wake_agent(const struct segment *s)
{
	struct segment_header *h = segment_header(s);

	(void)raw_syscall(SYS_futex, (long)&h->posted, FUTEX_WAKE, 1, 0);
}

/* Until a batch has arrived, or LOOK_AGAIN_NS have passed. */
static void wait_for_batch(const struct segment *s, uint32_t arrived)
{
	struct segment_header *h = segment_header(s);
	const struct timespec limit = {.tv_nsec = LOOK_AGAIN_NS};
	const struct timespec pause = {.tv_nsec = LOOK_AGAIN_NS / 10};
	long r = raw_syscall(SYS_futex, (long)&h->arrived, FUTEX_WAIT, arrived, (long)&limit);

	/* A guest's window on the host's memory is no memory to its kernel: no futex there. */
	if (r == -EFAULT)
		(void)raw_syscall(SYS_nanosleep, (long)&pause, 0, 0, 0);
}

/* A record that nobody else may be reading. */
static struct request *own_record(const struct segment *s, struct request **mine)
{
	if (!*mine || !request_withdraw(*mine))
		*mine = segment_alloc(s, sizeof(**mine));
	return *mine;
}

uint64_t values_ask_source(const struct lane_owner *owner, struct request **mine, struct lane *lane,
	unsigned int kind, _Atomic uint64_t *slot, uint64_t word, bool *won)
{
	const struct segment *s = owner->segment;
	struct segment_header *h = segment_header(s);
	struct request *r = NULL;

	*won = false;
	for (unsigned int looks = 0;; looks++) {
		uint32_t arrived = atomic_load_explicit(&h->arrived, memory_order_acquire);
		uint64_t there = atomic_load_explicit(slot, memory_order_acquire);

		if (there) {
			if (r)
				(void)request_withdraw(r);
			return there;
		}
		/* This host has become the source. */
		if (atomic_load_explicit(&h->role, memory_order_acquire) == ROLE_SOURCE)
			return lane_propose(slot, word, won);
		if (looks % POST_AGAIN_LOOKS == 0) {
			r = own_record(s, mine);
			if (!r)
				return 0;
			r->lineage = segment_offset(s, owner->lineage);
			r->kind = kind;
			r->ordinal = lane_ordinal(lane);
			r->word = word;
			/* No place free: it is posted at the next look. */
			if (!request_post(s, r))
				looks--;
			wake_agent(s);
		}
		wait_for_batch(s, arrived);
	}
}
