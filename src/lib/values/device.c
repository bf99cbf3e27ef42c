/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Openings of random devices, and lanes that the program names: random streams and states that
 * are not tied to one thread.
 */
#include <errno.h>
#include <string.h>

#include "lib/values/client.h"
#include "lib/values/internal.h"

/*
 * An opening is a lineage of its own below the thread that opened, so that whichever thread reads
 * gets the bytes in the order of the reads. Its reader is one thread at a time.
 */
struct device {
	_Atomic uint32_t state; /* enum device_state */
	struct lane_owner owner;
	struct lane lane;
	struct stream stream;
};

enum device_state {
	DEVICE_FREE,
	DEVICE_OPEN,
	DEVICE_READING,
};

static struct device devices[DEVICES_MAX];

int values_device_open(void)
{
	struct thread_state *t = values_enter();
	struct lineage *l;
	int handle;

	if (!t)
		return -ENOTCONN;
	for (handle = 0; handle < DEVICES_MAX; handle++) {
		uint32_t free_state = DEVICE_FREE;

		if (atomic_compare_exchange_strong(
			    &devices[handle].state, &free_state, DEVICE_READING))
			break;
	}
	/* Counted also when there is no room: the copies' next openings stay in step. */
	l = lineage_get(t->owner.segment, t->owner.lineage, STEP_DEVICE, ++t->devices, NULL);
	if (!l) {
		int r = values_give_up(t, KIND_RANDOM, -ENOSPC);

		if (handle < DEVICES_MAX)
			atomic_store(&devices[handle].state, DEVICE_FREE);
		values_leave(t);
		return r;
	}
	if (handle < DEVICES_MAX) {
		struct device *d = &devices[handle];

		d->owner = (struct lane_owner){t->owner.segment, t->owner.member, l};
		d->lane = (struct lane){0};
		d->stream = (struct stream){0};
		atomic_store(&d->state, DEVICE_OPEN);
	}
	values_leave(t);
	return handle < DEVICES_MAX ? handle : -EMFILE;
}

int values_device_read(int handle, void *out, size_t n)
{
	struct thread_state *t = values_enter();
	uint32_t open = DEVICE_OPEN;
	struct device *d;
	int r = -EBADF;

	if (!t)
		return -ENOTCONN;
	if (handle < 0 || handle >= DEVICES_MAX) {
		values_leave(t);
		return -EBADF;
	}
	d = &devices[handle];
	if (atomic_compare_exchange_strong(&d->state, &open, DEVICE_READING)) {
		r = n > 0 ? values_draw(&d->lane, &d->stream, &d->owner, &t->request, out, n) : 0;
		if (r < 0)
			r = values_give_up(t, KIND_RANDOM, r);
		atomic_store(&d->state, DEVICE_OPEN);
	}
	values_leave(t);
	/* Somebody else is reading, perhaps what this very handler interrupted: never wait. */
	return r == -EBADF && open == DEVICE_READING ? values_random(out, n) : r;
}

void values_device_close(int handle)
{
	struct device *d;

	if (handle < 0 || handle >= DEVICES_MAX)
		return;
	d = &devices[handle];
	explicit_bzero(&d->stream, sizeof(d->stream));
	atomic_store(&d->state, DEVICE_FREE);
}

/*
 * A child shares its parent's openings in the kernel, but what it reads is its own: each gets a
 * lineage of the child's, in the order of the handles.
 */
void values_devices_forked(void)
{
	struct thread_state *t = values_current;

	for (int handle = 0; handle < DEVICES_MAX; handle++) {
		struct device *d = &devices[handle];

		if (atomic_load(&d->state) == DEVICE_FREE)
			continue;
		d->owner.lineage = lineage_get(
			t->owner.segment, t->owner.lineage, STEP_DEVICE, ++t->devices, NULL);
		d->lane = (struct lane){0};
		d->stream = (struct stream){0};
		atomic_store(&d->state, d->owner.lineage ? DEVICE_OPEN : DEVICE_FREE);
	}
}

struct named {
	_Atomic uint32_t taken; /* a thread's requests are accounted to it */
	struct named *next;     /* set before it is reachable, never changed */
	char name[NAME_MAX_LENGTH + 1];
	struct thread_state state;
};

static _Atomic(struct named *) named_lanes;
static _Atomic uint32_t named_count;
static _Thread_local struct named *named_here;

static struct named *find_named(const char *name)
{
	struct named *n = atomic_load(&named_lanes);

	while (n && strcmp(n->name, name) != 0)
		n = n->next;
	return n;
}

static struct named *make_named(const char *name)
{
	struct process_state *p = &values_process;
	struct named *n, *head;
	struct lineage *l;

	if (atomic_fetch_add(&named_count, 1) >= NAMED_LANES_MAX)
		return NULL;
	/* Below the process, not the thread: any thread may come next. */
	l = lineage_get(&p->segment, p->lineage, STEP_NAMED, 0, name);
	n = l ? values_map(sizeof(*n)) : NULL;
	if (!n)
		return NULL;
	memcpy(n->name, name, strlen(name) + 1);
	values_begin(&n->state, l);
	head = atomic_load(&named_lanes);
	do {
		struct named *there = find_named(name);

		if (there) {
			(void)raw_syscall(SYS_munmap, (long)n, sizeof(*n), 0, 0);
			return there;
		}
		n->next = head;
	} while (!atomic_compare_exchange_weak(&named_lanes, &head, n));
	return n;
}

int values_named_lane(const char *name)
{
	uint32_t free_state = 0;
	struct thread_state *t;
	struct named *n = NULL;

	if (name && !name_valid(name))
		return -EINVAL;
	t = values_enter();
	if (!t)
		return -ENOTCONN;
	values_leave(t);
	if (name) {
		n = find_named(name);
		if (!n)
			n = make_named(name);
		if (!n)
			return -EMFILE;
		if (n == named_here)
			return 0;
		if (!atomic_compare_exchange_strong(&n->taken, &free_state, 1))
			return -EBUSY;
	}
	values_current = n ? &n->state : &values_self;
	if (named_here)
		atomic_store(&named_here->taken, 0);
	named_here = n;
	return 0;
}

void values_named_forked(void)
{
	atomic_store(&named_lanes, NULL);
	atomic_store(&named_count, 0);
	named_here = NULL;
}
