/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How often a token may ask: a token bucket each, in a table of fixed size. Beyond its size the
 * one that asked longest ago gives way, so that the limit errs on the side of the caller.
 */
#ifndef SOSIE_SOSIED_LIMIT_H
#define SOSIE_SOSIED_LIMIT_H

#include <stdbool.h>

#include "base/macro.h"

#define LIMITER_BUCKETS 1024
#define LIMITER_PROBES  8

struct limiter;

/* rate: requests a second, of which up to twice as many may come at once. */
struct limiter *limiter_new(unsigned int rate);
void limiter_free(struct limiter *l);
/* Whether one more is allowed now (CLOCK_MONOTONIC). */
bool limiter_take(struct limiter *l, const char *token_id, uint64_t now_ns);

#endif
