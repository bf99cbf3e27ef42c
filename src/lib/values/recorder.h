/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder of a group: looks every RECORDER_PERIOD at how far each running member has come
 * and writes what is new into the journal with the time. One process at a time holds the lock.
 * Members never wait for it; while nobody records, positions stay in the segment and are recorded
 * later, with an uncertainty that says so.
 */
#ifndef SOSIE_LIB_VALUES_RECORDER_H
#define SOSIE_LIB_VALUES_RECORDER_H

#include "core/values/journal.h"
#include "lib/values/group.h"

/* Below the 10 ms that the audit promises, with room for a late wake-up. */
#define RECORDER_PERIOD_NS (8 * NSEC_PER_MSEC)
/* Storage that is committed ahead of the members, so that they rarely do it themselves. */
#define RECORDER_AHEAD (4ULL << 20)

struct recorder {
	struct group *group;
	int lock, journal;
	uint64_t last_ns; /* CLOCK_REALTIME of the look before, 0 at first */
};

/* Takes the lock and opens the journal, cutting off a torn end. ERR_CONFLICT when another has it.
 */
int recorder_open(struct group *g, struct recorder *r, struct err *e);
void recorder_close(struct recorder *r);
/*
 * One look. *ret_running: members that have not ended. Members found dead are marked ended after
 * their last positions are written.
 */
int recorder_look(struct recorder *r, unsigned int *ret_running, struct err *e);
/* Records in this process until no member is running. -EEXIST: another process does. */
int recorder_run(struct group *g, struct err *e);
/* Starts a process that does so unless one does; it keeps none of the caller's descriptors. */
int recorder_start(struct group *g, struct err *e);
/* Returns once everything consumed before the call is in the journal. */
int recorder_settle(struct group *g, struct err *e);
/* The journal as bytes, header checked: malloc'ed; *ret_size 0 when there is none yet. */
int recorder_load(const struct group *g, uint8_t **ret, size_t *ret_size, struct err *e);

#endif
