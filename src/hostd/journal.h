/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's own events: kept in STATE/events until the control plane has acknowledged them, and
 * the place up to which each instance's events were taken into it.
 */
#ifndef SOSIE_HOSTD_JOURNAL_H
#define SOSIE_HOSTD_JOURNAL_H

#include <jansson.h>

#include "base/err.h"
#include "base/macro.h"

/*
 * While the control plane is away for long, the events file is bounded: beyond this the older half
 * goes, counted in journal_lost().
 */
#define JOURNAL_BYTES_MAX   (64U << 20)
#define JOURNAL_BATCH_MAX   100 /* events of one request */
#define JOURNAL_BATCH_BYTES (256U << 10)

struct journal;

/* state: the open state folder. */
int journal_open(int state, struct journal **ret, struct err *e);
void journal_free(struct journal *journal);
DEFINE_CLEANUP(struct journal *, journal_free);

/*
 * Adds an event, durably. source: the sequence that it has in the instance's own record, 0 for
 * events of the agent itself. data: taken, may be NULL.
 */
int journal_add(struct journal *journal, const char *kind, const char *subject, uint64_t time_ns,
	uint64_t source, json_t *data);
/* The first event of an instance that was not taken yet. */
uint64_t journal_wanted(const struct journal *journal, const char *subject);
/* Adds that the instance is gone for good; another one of its name begins anew. */
int journal_removed(struct journal *journal, const char *subject, uint64_t time_ns);

/* {"events":[…]} that are not acknowledged, from the oldest on; NULL when there are none. */
json_t *journal_batch(struct journal *journal);
int journal_acknowledge(struct journal *journal, uint64_t sequence, struct err *e);
uint64_t journal_lost(const struct journal *journal);

#endif
