/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where pure code gets time and randomness: it never asks the system itself, so that a test or a
 * simulator can stand in for it.
 */
#ifndef SOSIE_BASE_SOURCE_H
#define SOSIE_BASE_SOURCE_H

#include "base/macro.h"

struct source {
	void *context;
	/* Nanoseconds of a POSIX clock id. */
	uint64_t (*clock_ns)(void *context, int clock_id);
	/* Fills n bytes. 0 or a negative errno. */
	int (*random)(void *context, void *bytes, size_t n);
};

/* The real thing: clock_gettime(2) and getrandom(2). */
extern const struct source source_system;

#endif
